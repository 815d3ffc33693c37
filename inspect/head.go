package inspect

import (
	"bytes"
	"slices"
	"strconv"
	"strings"

	"wspoll/handshake"
)

// headLine is a line of a head that is in the making.
type headLine struct {
	raw        []byte // with its line end
	size       int    // of raw as it came
	end        int64  // offset behind it
	reads      [2]int
	name       string // as it stands there; empty for the first line, the last, and one without a colon
	value      string
	bad        bool // it breaks the grammar and is not looked at any further
	accept     *Accept
	violations []Violation
	notes      []string
}

// request is what is remembered of a request to judge its answer.
type request struct {
	seen       bool
	key        string
	protocols  []string
	extensions []string
}

// maxLines is how many lines of a head are kept: one of two bytes takes a hundred times as much in memory.
const maxLines = 1000

// limits let pass what is legal, however large: what a server takes is its own decision.
var limits = handshake.Limits{Head: 2 * MaxHead, Target: 2 * MaxHead, Headers: MaxHead}

// head takes bytes of a request or an answer up to its empty line, and explains it then.
func (e *Explainer) head(s *side, b []byte) int {
	n := bytes.IndexByte(b, '\n') + 1
	whole := n > 0
	if !whole {
		n = len(b)
	}
	n = min(n, max(1, MaxHead-s.headSize()))
	whole = whole && b[n-1] == '\n'
	if len(s.buf) == 0 && len(s.lines) > 0 {
		s.first = s.reads - 1
	}
	s.buf = append(s.buf, b[:n]...)
	s.off += int64(n)
	if whole {
		s.lines = append(s.lines, cutLine(s.buf, s.off, [2]int{s.first, s.reads - 1}, len(s.lines) == 0))
		s.buf = nil
		if last := s.lines[len(s.lines)-1]; len(last.content()) == 0 {
			e.endHead(s, true)
			return n
		}
	}
	if s.headSize() >= MaxHead || len(s.lines) >= maxLines {
		e.partHead(s)
		s.phase, s.body = inBytes, -1
		s.what = "the head is longer than " + itoa(MaxHead) + " bytes or " + itoa(maxLines) + " lines; no more of it is explained"
	}
	return n
}

// headSize is how much of a head has come.
func (s *side) headSize() int {
	n := len(s.buf)
	if k := len(s.lines); k > 0 {
		n += int(s.lines[k-1].end - s.start)
	}
	return n
}

// cutLine makes a headLine of a line with its end.
func cutLine(raw []byte, end int64, reads [2]int, first bool) headLine {
	l := headLine{raw: raw, size: len(raw), end: end, reads: reads}
	if name, value, ok := strings.Cut(string(l.content()), ":"); ok && !first {
		l.name, l.value = name, strings.Trim(value, " \t")
	}
	return l
}

// isSecret reports whether the value of a line is nobody else's business.
func isSecret(l *headLine) bool {
	switch strings.ToLower(strings.TrimSpace(l.name)) {
	case "cookie", "set-cookie", "authorization", "proxy-authorization":
		return true
	}
	return false
}

const hidden = "(not shown)"

// hide takes the value out of a line, or all that a folded line has.
func (l *headLine) hide() {
	if l.value = hidden; l.raw[0] == ' ' || l.raw[0] == '\t' {
		l.name, l.raw = "", []byte(" "+hidden)
		return
	}
	l.raw = []byte(l.name + ": " + hidden)
}

// content is the line without its end.
func (l *headLine) content() []byte { return bytes.TrimRight(l.raw, "\r\n") }

// partHead explains a head whose end has not come.
func (e *Explainer) partHead(s *side) {
	if len(s.buf) > 0 {
		l := cutLine(s.buf, s.off, [2]int{s.first, s.reads - 1}, len(s.lines) == 0)
		l.bad = true
		s.lines = append(s.lines, l)
		s.buf = nil
	}
	e.endHead(s, false)
}

// endHead explains the lines of a head, and says what comes after it.
func (e *Explainer) endHead(s *side, whole bool) {
	lines := s.lines
	s.lines = nil
	var explain func(name string) (string, string)
	if s.dir == Client {
		e.judgeRequest(s, lines, whole)
		explain = requestHeader
	} else {
		e.judgeResponse(s, lines, whole)
		explain = responseHeader
	}
	secret := false
	for i := range lines {
		l := &lines[i]
		if folded := len(l.raw) > 0 && (l.raw[0] == ' ' || l.raw[0] == '\t'); e.o.Redact && i > 0 && (!folded || !secret) {
			secret = isSecret(l)
		}
		if secret {
			l.hide()
		}
		out := &Line{Text: strings.ToValidUTF8(string(l.content()), "\uFFFD"), Accept: l.accept}
		switch {
		case i == 0 && s.dir == Client:
			out.What, out.Section = "the request line: method, path with query, version", "RFC 6455 §4.1 item 2"
		case i == 0:
			out.What, out.Section = statusLine(lines)
		case out.Text == "" && i == len(lines)-1:
			out.What, out.Section = "the empty line ends the head", "RFC 9112 §2.1"
		case l.name == "":
			out.What = "a line without a name and a colon"
		default:
			out.Name, out.Value = strings.ToValidUTF8(l.name, "\uFFFD"), strings.ToValidUTF8(l.value, "\uFFFD")
			out.What, out.Section = explain(strings.ToLower(l.name))
		}
		if !whole && i == len(lines)-1 {
			l.notes = append(l.notes, "the head ends here, without an empty line")
		}
		e.out = append(e.out, Record{
			Kind: KindLine, Dir: s.dir, N: s.wire, Start: l.end - int64(l.size), End: l.end, When: s.when,
			Reads: l.reads, Line: out, Notes: l.notes, Violations: l.violations,
		})
		s.wire++
	}
	s.begun = false
}

// afterHead gets a side ready for what follows a head that is no handshake: a body, or the next head.
func (s *side) afterHead(lines []headLine, toEnd bool) {
	s.phase = undecided
	for i := range lines {
		switch strings.ToLower(lines[i].name) {
		case "transfer-encoding":
			s.phase, s.body, s.what = inBytes, -1, "the body of an HTTP message, and what follows it"
			return
		case "content-length":
			n, err := strconv.ParseInt(lines[i].value, 10, 64)
			if err == nil && n >= 0 {
				toEnd = false
				if n > 0 {
					s.phase, s.body, s.what = inBytes, n, "the body of an HTTP message"
				}
			}
		}
	}
	if toEnd {
		s.phase, s.body, s.what = inBytes, -1, "the body of an HTTP answer, up to the end of the connection"
	}
}

// part is a part of a handshake that is judged by itself: the lines of some fields, and what stands for them in a handshake
// that is otherwise right.
type part struct {
	name   string
	fields []string // lower case; nil: the first line
	right  string
	cure   string
}

// field returns the places of the lines of the part.
func (p *part) places(lines []headLine) (places []int) {
	if p.fields == nil {
		return []int{0}
	}
	for i := range lines {
		if i > 0 && slices.Contains(p.fields, strings.ToLower(lines[i].name)) {
			places = append(places, i)
		}
	}
	return places
}

// alone is the handshake of which only this part is as it came.
func (p *part) alone(parts []part, lines []headLine, places []int) []byte {
	var b []byte
	for i := range parts {
		if parts[i].name != p.name {
			b = append(b, parts[i].right...)
			continue
		}
		for _, k := range places {
			if !lines[k].bad {
				b = append(b, lines[k].raw...)
			}
		}
	}
	return append(b, "\r\n"...)
}

// blame puts the violation at the line that shows it: the second of two, the only one, or the first line for what is missing.
func blame(lines []headLine, places []int, v Violation) {
	i := 0
	switch len(places) {
	case 0:
	case 1:
		i = places[0]
	default:
		i = places[1]
	}
	v.At = lines[i].end - int64(len(lines[i].raw))
	lines[i].violations = append(lines[i].violations, v)
}
