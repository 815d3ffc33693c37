package inspect

import (
	"bytes"
	"fmt"
	"io"
	"strings"
	"time"

	"wspoll/handshake"
)

// String is a record in one line: when, who (client ->, server <-), what, and the first violation. It has no line end, and
// nothing in it steers a terminal.
func (r *Record) String() string { return at(r) + r.brief() }

// brief is String without the time.
func (r *Record) brief() string {
	var b strings.Builder
	arrow := "-> "
	if r.Dir == Server {
		arrow = "<- "
	}
	b.WriteString(arrow)
	switch r.Kind {
	case KindRead:
		what := "read"
		if r.Read.Gap {
			what = "gap"
		}
		fmt.Fprintf(&b, "%s %d, %d bytes", what, r.N, r.End-r.Start)
	case KindLine:
		b.WriteString(r.Line.shown())
	case KindBytes:
		fmt.Fprintf(&b, "%d bytes: %s", r.End-r.Start, r.Bytes.What)
	case KindMessage:
		fmt.Fprintf(&b, "message %d: %s", r.N, r.Message.summary())
		b.WriteString(brief(r.Message.Text, r.Message.Content))
	case KindFrame:
		r.Frame.line(&b)
	}
	for i := range r.Violations {
		v := &r.Violations[i]
		if i > 0 {
			fmt.Fprintf(&b, " (and %d more)", len(r.Violations)-1)
			break
		}
		fmt.Fprintf(&b, "  ! %s: %s; %s", v.Section, safe(v.What), v.Demands())
	}
	return b.String()
}

// line is a frame in a few words.
func (f *Frame) line(b *strings.Builder) {
	b.WriteString(f.Name)
	if f.Fin {
		b.WriteString(" FIN")
	}
	for i, name := range [...]string{" RSV1", " RSV2", " RSV3"} {
		if f.Rsv>>(2-i)&1 != 0 {
			b.WriteString(name)
		}
	}
	fmt.Fprintf(b, " %d B", f.Length)
	if f.Message != nil && (f.Fragment > 0 || !f.Fin) {
		fmt.Fprintf(b, " (message %d, frame %d)", *f.Message, f.Fragment)
	}
	switch {
	case f.Close != nil:
		fmt.Fprintf(b, " %d", f.Close.Code)
		if f.Close.Reason != "" {
			b.WriteString(" " + quoted(f.Close.Reason))
		}
	case f.Inflated != nil:
		fmt.Fprintf(b, " inflates to %d B", *f.Inflated)
	default:
		b.WriteString(brief(f.Text, f.Payload))
	}
	if f.Truncated {
		b.WriteString(" (truncated)")
	}
}

// brief is the beginning of a content.
func brief(text string, b []byte) string {
	const most = 32
	switch {
	case text != "":
		cut := ""
		if runes := []rune(text); len(runes) > most {
			text, cut = string(runes[:most]), "..."
		}
		return " " + quoted(text) + cut
	case len(b) > most/2:
		return " " + spaced(b[:most/2]) + " ..."
	case len(b) > 0:
		return " " + spaced(b)
	}
	return ""
}

// Explain writes all about one connection of which the bytes of both sides are known, and not how they fell in time: the
// request, all that the server sent, and what the client sent behind its request. t says how; its W is not used.
func Explain(w io.Writer, o Options, t Text, client, server []byte) error {
	t.W = w
	e := New(o)
	write := func(records []Record) {
		for i := range records {
			t.Write(&records[i])
		}
	}
	n := RequestSize(client)
	write(e.Feed(Client, time.Time{}, client[:n]))
	write(e.Feed(Server, time.Time{}, server))
	write(e.Feed(Client, time.Time{}, client[n:]))
	write(e.Finish())
	return t.Err()
}

// RequestPath is the path in a request line; false if it is none.
func RequestPath(line string) (string, bool) {
	var r handshake.Request
	n, _ := handshake.ParseRequest([]byte(line+"\r\nHost: h\r\n\r\n"), &limits, &r)
	return string(r.Path), n > 0
}

// RequestSize is the size of the request at the front of b, be it good or bad; 0 if there is none, or not its end.
func RequestSize(b []byte) int {
	if s := (side{dir: Client}); !s.looksLikeHead(b) {
		return 0
	}
	n := 0
	for line := range bytes.Lines(b) {
		if n += len(line); len(bytes.TrimRight(line, "\r\n")) == 0 {
			return n
		}
	}
	return 0
}
