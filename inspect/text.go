package inspect

import (
	"fmt"
	"io"
	"strconv"
	"strings"
	"unicode"

	"github.com/gobwas/ws"
)

// Text writes records for people. The zero value of each field is good; W is required.
type Text struct {
	W     io.Writer
	Color bool // with the colours of a terminal
	Brief bool // one line for each record that is not of the lane of reads: see Record.String
	Reads bool // the lane of reads too

	started bool
	inHead  bool
	err     error
}

// The colours.
const (
	plain  = "\x1b[0m"
	bold   = "\x1b[1m"
	faint  = "\x1b[2m"
	red    = "\x1b[31m"
	green  = "\x1b[32m"
	yellow = "\x1b[33m"
	cyan   = "\x1b[36m"
)

// Err is the first error of the writer.
func (t *Text) Err() error { return t.err }

// Write writes one record, and nothing more after an error of the writer.
func (t *Text) Write(r *Record) {
	if t.err != nil || r.Kind == KindRead && !t.Reads {
		return
	}
	var b strings.Builder
	switch {
	case t.Brief && r.Kind == KindMessage && r.Message.Count == 1 && !r.Message.Compressed:
		return // its one frame has said it all
	case t.Brief:
		b.WriteString(t.shade(r) + "\n")
	default:
		// Lines of one head stand together, the rest apart.
		if t.started && !(r.Kind == KindLine && t.inHead) && r.Kind != KindRead {
			b.WriteByte('\n')
		}
		t.full(&b, r)
		t.inHead = r.Kind == KindLine && r.Line.Text != ""
	}
	t.started = true
	_, t.err = io.WriteString(t.W, b.String())
}

// Heading writes a line between connections.
func (t *Text) Heading(s string) {
	if t.err != nil {
		return
	}
	if t.started {
		s = "\n" + s
	}
	t.started, t.inHead = true, false
	_, t.err = io.WriteString(t.W, t.paint(bold, s)+"\n")
}

func (t *Text) paint(color, s string) string {
	if !t.Color || s == "" {
		return s
	}
	return color + s + plain
}

// side is the colour of who sent it.
func (t *Text) side(d Dir, s string) string {
	if d == Server {
		return t.paint(cyan, s)
	}
	return t.paint(green, s)
}

// shade is the one line in the colour of its side, or in red.
func (t *Text) shade(r *Record) string {
	if len(r.Violations) > 0 {
		return t.paint(red, r.String())
	}
	return t.side(r.Dir, r.String())
}

func (t *Text) full(b *strings.Builder, r *Record) {
	switch r.Kind {
	case KindRead:
		what := "read"
		if r.Read.Gap {
			what = "gap"
		}
		fmt.Fprintf(b, "%s\n", t.paint(faint, fmt.Sprintf("%s %s %d: %s", r.Dir, what, r.N, span(r))))
		return
	case KindLine:
		t.line(b, r)
	case KindFrame:
		t.frame(b, r)
	case KindBytes:
		t.title(b, r, "bytes")
		fmt.Fprintf(b, "  %s\n", r.Bytes.What)
		dump(b, r.Bytes.Excerpt, nil)
	case KindMessage:
		t.message(b, r)
	}
	for _, n := range r.Notes {
		fmt.Fprintf(b, "  %s\n", t.paint(yellow, "note: "+safe(n)))
	}
	for i := range r.Violations {
		v := &r.Violations[i]
		fmt.Fprintf(b, "  %s\n", t.paint(red, "VIOLATION "+v.Section+": "+safe(v.What)))
		fmt.Fprintf(b, "    byte %d; the receiver has to %s\n", v.At, demand(v))
		fmt.Fprintf(b, "    cure: %s\n", v.Cure)
	}
}

// demand is Demands with the meaning of the code.
func demand(v *Violation) string {
	if v.Code != 0 {
		return v.Demands() + " (" + meaning(v.Code) + ")"
	}
	return v.Demands()
}

// title is the first line of a record.
func (t *Text) title(b *strings.Builder, r *Record, what string) {
	where := fmt.Sprintf("%s %s: ", r.Dir, what)
	fmt.Fprintf(b, "%s%s\n", t.paint(bold, t.side(r.Dir, where)), t.paint(faint, at(r)+span(r)+reads(r)))
}

// at is when it came, if that is known.
func at(r *Record) string {
	if r.When.IsZero() {
		return ""
	}
	return r.When.Format("15:04:05.000000 ")
}

func span(r *Record) string {
	if r.End == r.Start+1 {
		return fmt.Sprintf("byte %d", r.Start)
	}
	return fmt.Sprintf("bytes %d to %d", r.Start, r.End-1)
}

func reads(r *Record) string {
	if r.Reads[0] == r.Reads[1] {
		return fmt.Sprintf(", read %d", r.Reads[0])
	}
	return fmt.Sprintf(", reads %d to %d", r.Reads[0], r.Reads[1])
}

// line is a line of a handshake, with what it is for under it.
func (t *Text) line(b *strings.Builder, r *Record) {
	l := r.Line
	if !t.inHead {
		what := "request"
		if r.Dir == Server {
			what = "answer"
		}
		fmt.Fprintf(b, "%s\n", t.paint(bold, t.side(r.Dir, r.Dir.String()+" "+what+":")))
	}
	fmt.Fprintf(b, "  %s\n", t.side(r.Dir, l.shown()))
	section := ""
	if l.Section != "" {
		section = " (" + l.Section + ")"
	}
	fmt.Fprintf(b, "      %s\n", t.paint(faint, l.What+section))
	if a := l.Accept; a != nil && r.Dir == Server {
		a.write(b, "      ")
	}
}

// shown is the text of a line as it may stand on a terminal.
func (l *Line) shown() string {
	if l.Text == "" {
		return "(empty line)"
	}
	return safe(l.Text)
}

// write writes the steps.
func (a *Accept) write(b *strings.Builder, indent string) {
	fmt.Fprintf(b, "%skey           %s\n", indent, safe(a.Key))
	if a.Nonce != nil {
		fmt.Fprintf(b, "%sis base64 of  %s (16 random bytes; they are not decoded for what follows)\n", indent, spaced(a.Nonce))
	}
	fmt.Fprintf(b, "%skey + GUID    %s\n", indent, safe(a.Joined))
	fmt.Fprintf(b, "%sSHA-1         %s\n", indent, spaced(a.SHA1))
	fmt.Fprintf(b, "%sbase64        %s\n", indent, a.Accept)
}

// Steps is the derivation as lines of text.
func (a *Accept) Steps() string {
	var b strings.Builder
	a.write(&b, "")
	return b.String()
}

// frame is the diagram, the header in words, and the payload.
func (t *Text) frame(b *strings.Builder, r *Record) {
	f := r.Frame
	t.title(b, r, "frame "+itoa(r.N))
	b.WriteString(f.diagram())
	for _, w := range f.words(r.Dir) {
		fmt.Fprintf(b, "  %-10s %s\n", w[0], safe(w[1]))
	}
	switch {
	case len(f.Wire) == 0:
	case f.Masked:
		fmt.Fprintf(b, "  %-10s %s\n", "payload", "masked, and without the mask:")
		dump(b, f.Wire, f.Payload)
	default:
		fmt.Fprintf(b, "  %-10s %s\n", "payload", "not masked:")
		dump(b, f.Wire, nil)
	}
	if f.Cut {
		fmt.Fprintf(b, "        ... %d bytes in all\n", f.Length)
	}
}

// words are the fields of a header and what they say.
func (f *Frame) words(d Dir) (w [][2]string) {
	add := func(name, format string, args ...any) { w = append(w, [2]string{name, fmt.Sprintf(format, args...)}) }
	add(fmt.Sprintf("FIN %d", bit(f.Fin)), "%s", f.finWhy())
	add(fmt.Sprintf("RSV %03b", f.Rsv), "%s", f.rsvWhy())
	add(fmt.Sprintf("opcode %x", f.Opcode), "%s", opMeaning(ws.OpCode(f.Opcode)))
	if len(f.Header) < 2 {
		add("", "the stream ends here, in the middle of the header")
		return w
	}
	add(fmt.Sprintf("MASK %d", bit(f.Masked)), "%s", f.maskWhy(d))
	add(fmt.Sprintf("length %d", f.Length), "%s (§5.2)", f.LengthWhy())
	if len(f.Key) == 4 {
		add("key", "%s: %s", spaced(f.Key), keyWhy)
	}
	if f.Truncated && f.Length < 1<<63 {
		add("", "the stream ends inside this frame")
	}
	if f.Missing > 0 {
		add("", "%d bytes of its payload are missing in the capture", f.Missing)
	}
	if f.Message != nil {
		add("message", "number %d, its frame %d", *f.Message, f.Fragment)
	}
	if f.Inflated != nil {
		add("inflates", "%d bytes to %d", f.Length, *f.Inflated)
	}
	if c := f.Close; c != nil {
		if f.Length == 0 {
			add("code", "none was sent (§7.1.5)")
		} else {
			add("code", "%d, %s (§7.4)", c.Code, c.Meaning)
		}
		if c.Reason != "" {
			add("reason", "%q", c.Reason)
		}
	}
	switch {
	case f.Text != "" && f.Cut:
		add("text", "%s ...", quoted(f.Text))
	case f.Text != "":
		add("text", "%s", quoted(f.Text))
	}
	return w
}

// LengthWhy says in which form the length is written, and why in this.
func (f *Frame) LengthWhy() string {
	switch {
	case f.LengthBits == 16 && f.Length < 126:
		return "the 7 bits say 126: the length is in the next 16 bits, though it would fit into the 7"
	case f.LengthBits == 16:
		return "the 7 bits say 126: the length is in the next 16 bits, since the 7 say up to 125 themselves"
	case f.LengthBits == 64 && f.Length < 1<<16:
		return "the 7 bits say 127: the length is in the next 64 bits, though it would fit into fewer"
	case f.LengthBits == 64:
		return "the 7 bits say 127: the length is in the next 64 bits, since it does not fit into 16"
	}
	return "in the 7 bits themselves, since it is at most 125"
}

func opMeaning(op ws.OpCode) string {
	switch op {
	case ws.OpContinuation:
		return "continuation: goes on with the message that has begun (§5.4)"
	case ws.OpText:
		return "text: the message is UTF-8 (§5.6)"
	case ws.OpBinary:
		return "binary: the message means what the application says (§5.6)"
	case ws.OpClose:
		return "close: the sender is done; the other answers with a Close (§5.5.1)"
	case ws.OpPing:
		return "ping: the other answers with a pong of the same payload (§5.5.2)"
	case ws.OpPong:
		return "pong: answers a ping, or says unasked that the sender is there (§5.5.3)"
	}
	if op.IsControl() {
		return "reserved for control frames to come (§5.2)"
	}
	return "reserved for data frames to come (§5.2)"
}

// message is what the frames made up.
func (t *Text) message(b *strings.Builder, r *Record) {
	m := r.Message
	t.title(b, r, "message "+itoa(r.N))
	fmt.Fprintf(b, "  %s\n", safe(m.summary()))
	switch {
	case m.Text != "" && m.Cut:
		fmt.Fprintf(b, "  %s ...\n", quoted(m.Text))
	case m.Text != "":
		fmt.Fprintf(b, "  %s\n", quoted(m.Text))
	case len(m.Content) > 0:
		dump(b, m.Content, nil)
		if m.Cut {
			b.WriteString("        ...\n")
		}
	}
}

// summary is a message in a few words.
func (m *Message) summary() string {
	s := m.Name
	if m.Compressed {
		s += ", compressed"
	}
	if m.Count == 1 {
		s += fmt.Sprintf(", in frame %d", m.Frames[0])
	} else {
		s += fmt.Sprintf(", in %d frames, %d to %d", m.Count, m.Frames[0], m.Frames[1])
	}
	s += fmt.Sprintf(", %d bytes", m.Size)
	if m.Inflated != nil {
		s += fmt.Sprintf(", inflated %d", *m.Inflated)
		if m.Size > 0 && *m.Inflated > 0 {
			s += fmt.Sprintf(" (compressed to %.0f %%)", 100*float64(m.Size)/float64(*m.Inflated))
		}
	}
	if !m.Whole {
		s += "; it did not end"
	}
	return s
}

// dump writes bytes as hexadecimal digits and characters, and beside them a second view of the same bytes.
func dump(b *strings.Builder, left, right []byte) {
	width := 16
	if right != nil {
		width = 8
	}
	for i := 0; i < len(left); i += width {
		row := left[i:min(i+width, len(left))]
		fmt.Fprintf(b, "    %4d  %-*s  ", i, 3*width-1, spaced(row))
		if right != nil {
			row = right[i:min(i+width, len(right))]
			fmt.Fprintf(b, "%-*s  ", 3*width-1, spaced(row))
		}
		for _, c := range row {
			if c < ' ' || c > '~' {
				c = '.'
			}
			b.WriteByte(c)
		}
		b.WriteByte('\n')
	}
}

// safe is s without anything that could steer a terminal.
func safe(s string) string {
	return strings.Map(func(c rune) rune {
		if unicode.IsControl(c) || !unicode.IsPrint(c) {
			return '\uFFFD'
		}
		return c
	}, s)
}

// quoted is s in quotes, escaped where it could steer a terminal.
func quoted(s string) string { return strconv.QuoteToGraphic(s) }
