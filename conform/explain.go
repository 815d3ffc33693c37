package conform

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"strings"
	"time"

	"wspoll/inspect"
)

// explainLines is how many lines of an explained conversation are shown from its beginning, and half as many from its end.
const explainLines = 40

// explain tells line by line what was said: -> is the client, <- the server. client says that we were the client.
func explain(chunks []Chunk, client bool) []string {
	lines := explainFrames(chunks, client)
	if !opened(chunks, client) {
		lines = quoteLines(chunks, client)
	}
	if n := len(lines) - explainLines*3/2; n > 1 {
		tail := lines[explainLines+n:]
		lines = append(append(lines[:explainLines:explainLines], fmt.Sprintf("... %d more ...", n)), tail...)
	}
	return lines
}

// opened reports whether a 101 was sent by the server. Without one there are no frames to explain, and what a head has
// that is odd shows best as it is.
func opened(chunks []Chunk, client bool) bool {
	for _, c := range chunks {
		if c.Sent != client && bytes.HasPrefix(c.Data, []byte("HTTP/1.1 101")) {
			return true
		}
	}
	return false
}

// quoteLines shows every line as a string of Go.
func quoteLines(chunks []Chunk, client bool) (lines []string) {
	for i := 0; i < len(chunks); i++ {
		c := chunks[i]
		arrow := "<- "
		if c.Sent == client {
			arrow = "-> "
		}
		if c.Note != "" {
			lines = append(lines, arrow+c.Note)
			continue
		}
		said, lost := bytes.Clone(c.Data), c.Lost
		for i+1 < len(chunks) && chunks[i+1].Sent == c.Sent && chunks[i+1].Note == "" {
			i++
			said, lost = append(said, chunks[i].Data...), lost+chunks[i].Lost
		}
		for l := range bytes.Lines(said) {
			lines = append(lines, arrow+excerptOf(l, 160))
		}
		if lost > 0 {
			lines = append(lines, fmt.Sprintf("%s%d more bytes", arrow, lost))
		}
	}
	return lines
}

// explainFrames is explain for a connection that was open.
func explainFrames(chunks []Chunk, client bool) []string {
	var lines []string
	e := inspect.New(inspect.Options{Excerpt: 32})
	note := func(records []inspect.Record) {
		for i := range records {
			if r := &records[i]; r.Kind != inspect.KindRead && r.Kind != inspect.KindMessage {
				lines = append(lines, wire(r))
			}
		}
	}
	for _, c := range chunks {
		dir := inspect.Server
		if c.Sent == client {
			dir = inspect.Client
		}
		switch {
		case c.Note == "":
			note(e.Feed(dir, time.Time{}, c.Data))
			if c.Lost > 0 {
				note(e.Gap(dir, time.Time{}, int64(c.Lost)))
			}
		case c.New:
			note(e.Finish())
			e = inspect.New(inspect.Options{Excerpt: 32})
			lines = append(lines, c.Note)
		case c.Sent == client:
			lines = append(lines, "-> "+c.Note)
		default:
			lines = append(lines, "<- "+c.Note)
		}
	}
	note(e.Finish())
	return lines
}

// wire is a record in words, and of a frame its bytes too: the header, a bar, the payload as it was sent.
func wire(r *inspect.Record) string {
	s := r.String()
	if r.Kind != inspect.KindFrame {
		return s
	}
	f := r.Frame
	b := spaced(f.Header)
	if len(f.Wire) > 0 {
		b += " | " + spaced(f.Wire[:min(len(f.Wire), 16)])
		if len(f.Wire) > 16 || f.Cut {
			b += " ..."
		}
	}
	return s + "   [" + b + "]"
}

// spaced is b in hexadecimal digits, a blank between the bytes.
func spaced(b []byte) string {
	var s strings.Builder
	for i := range b {
		if i > 0 {
			s.WriteByte(' ')
		}
		s.WriteString(hex.EncodeToString(b[i : i+1]))
	}
	return s.String()
}
