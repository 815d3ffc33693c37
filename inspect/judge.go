package inspect

import (
	"bytes"
	"errors"
	"slices"
	"strings"

	"wspoll/handshake"
)

const (
	exampleKey = "dGhlIHNhbXBsZSBub25jZQ==" // of §1.3
	rightFirst = "GET / HTTP/1.1\r\n"
	rightHost  = "Host: h\r\n"
)

// requestParts are the parts of a client's handshake (§4.2.1), each as handshake.Check takes it.
var requestParts = []part{
	{"line", nil, rightFirst, "send GET, the path with its query and no fragment, HTTP/1.1, and CR LF"},
	{"host", []string{"host"}, rightHost, "send one Host header, with the host and port of the URL"},
	{"upgrade", []string{"upgrade"}, "Upgrade: websocket\r\n", "send Upgrade: websocket"},
	{"connection", []string{"connection"}, "Connection: Upgrade\r\n", "send Connection: Upgrade; a proxy on the way has to be told to pass it on"},
	{"body", []string{"content-length", "transfer-encoding"}, "", "send no body, and neither of these headers"},
	{"version", []string{"sec-websocket-version"}, "Sec-WebSocket-Version: 13\r\n", "send Sec-WebSocket-Version: 13, once"},
	{"key", []string{"sec-websocket-key"}, "Sec-WebSocket-Key: " + exampleKey + "\r\n", "send 16 new random bytes in base64, which are 24 characters, once"},
	{"protocol", []string{"sec-websocket-protocol"}, "", "list each subprotocol once, with commas between them"},
	{"extensions", []string{"sec-websocket-extensions"}, "", "write it like permessage-deflate; client_max_window_bits, with commas between extensions"},
	{"origin", []string{"origin"}, "", "send one Origin header, or none"},
}

// judgeRequest finds all that is wrong with a request that means a WebSocket, and remembers what the answer must fit.
func (e *Explainer) judgeRequest(s *side, lines []headLine, whole bool) {
	wants := false
	for i := range lines[1:] {
		name := strings.ToLower(lines[i+1].name)
		wants = wants || strings.HasPrefix(name, "sec-websocket-") ||
			name == "upgrade" && strings.Contains(strings.ToLower(lines[i+1].value), "websocket")
	}
	s.afterHead(lines, false)
	if !wants {
		lines[0].notes = append(lines[0].notes, "plain HTTP: nothing in it asks for a WebSocket")
		return
	}
	s.phase = undecided
	e.request = request{seen: true}
	for i := range lines {
		l := &lines[i]
		if l.bad || whole && i == len(lines)-1 {
			continue
		}
		judgeRequestLine(lines, i)
		switch strings.ToLower(l.name) {
		case "sec-websocket-key":
			if e.request.key == "" {
				e.request.key = l.value
			}
			a, err := Derive(l.value)
			if l.accept = &a; err != nil {
				l.notes = append(l.notes, err.Error())
			}
		case "sec-websocket-protocol":
			for p := range strings.SplitSeq(l.value, ",") {
				e.request.protocols = append(e.request.protocols, strings.Trim(p, " \t"))
			}
		case "sec-websocket-extensions":
			e.request.extensions = append(e.request.extensions, l.value)
		}
	}
	if !whole {
		return // what is missing may have been to come
	}
	for i := range requestParts {
		p := &requestParts[i]
		places := p.places(lines)
		if anyBad(lines, places) {
			continue // a line that cannot be read is not missing
		}
		var r handshake.Request
		var a handshake.Answer
		_, err := handshake.ParseRequest(p.alone(requestParts, lines, places), &limits, &r)
		if err == nil {
			err = handshake.Check(&r, &handshake.Options{Origins: []string{"*"}}, &a)
		}
		if err != nil {
			blame(lines, places, requestViolation(p.name, p.cure, err))
		}
	}
	if !strings.Contains(strings.Join(e.request.extensions, ","), "permessage-deflate") && e.o.Deflate == nil {
		e.agreed, e.known = handshake.Deflate{}, true
	}
}

// judgeRequestLine holds one line to the grammar of HTTP.
func judgeRequestLine(lines []headLine, i int) {
	l := &lines[i]
	head, tail, cure := rightFirst+rightHost, "\r\n", cureGrammar
	switch {
	case i == 0:
		head, tail, cure = "", rightHost+tail, requestParts[0].cure
	case strings.EqualFold(l.name, "Host"): // whose value has a part of its own
		head += "X-"
	}
	var r handshake.Request
	_, err := handshake.ParseRequest(bytes.Join([][]byte{[]byte(head), l.raw, []byte(tail)}, nil), &limits, &r)
	if err != nil {
		l.bad = true
		blame(lines, []int{i}, requestViolation("grammar", cure, err))
	}
}

// anyBad reports whether one of the lines breaks the grammar.
func anyBad(lines []headLine, places []int) bool {
	return slices.ContainsFunc(places, func(i int) bool { return lines[i].bad })
}

const cureGrammar = "write each line as HTTP/1.1 has it: a name, a colon, a value, CR LF; no line begins with a blank"

func requestViolation(part, cure string, err error) Violation {
	r := err.(*handshake.Refusal)
	return Violation{Kind: "handshake-" + part, Section: r.Section, Status: r.Status, What: r.Msg, Cure: cure, err: r}
}

// responseParts are the parts of a server's handshake (§4.2.2), each as handshake.Response.Check takes it. The accept value
// is put in for each request.
var responseParts = []part{
	{"answer-line", nil, "HTTP/1.1 101 Switching Protocols\r\n", "answer HTTP/1.1 101 Switching Protocols"},
	{"answer-upgrade", []string{"upgrade"}, "Upgrade: websocket\r\n", "answer Upgrade: websocket, once"},
	{"answer-connection", []string{"connection"}, "Connection: Upgrade\r\n", "answer Connection: Upgrade"},
	{"answer-body", []string{"content-length", "transfer-encoding"}, "", "announce no body: frames follow"},
	{"answer-accept", []string{"sec-websocket-accept"}, "", "answer the base64 of the SHA-1 of the key and " + GUID},
	{"answer-extensions", []string{"sec-websocket-extensions"}, "", "answer only what was offered, in one line, within what was offered"},
	{"answer-protocol", []string{"sec-websocket-protocol"}, "", "answer one of the subprotocols that were offered, or none"},
}

// judgeResponse finds all that is wrong with an answer, and what was agreed.
func (e *Explainer) judgeResponse(s *side, lines []headLine, whole bool) {
	var first handshake.Response
	_, err := handshake.ParseResponse(append(bytes.Clone(lines[0].raw), "\r\n"...), &limits, &first)
	if err != nil {
		lines[0].bad = true
		blame(lines, []int{0}, answerViolation("answer-grammar", "answer in HTTP/1.1: "+strings.TrimSpace(responseParts[0].right), err))
	}
	switched := err == nil && first.Status == 101
	switch {
	case switched:
		s.phase = inHeader
		e.open = e.open || whole
	case first.Status >= 100 && first.Status < 200:
		s.phase = undecided
	default:
		s.afterHead(lines, err != nil || first.Status != 204 && first.Status != 304)
	}
	for i := 1; i < len(lines); i++ {
		l := &lines[i]
		if l.bad || whole && i == len(lines)-1 {
			continue
		}
		var r handshake.Response
		text := append([]byte(responseParts[0].right), l.raw...)
		if _, err := handshake.ParseResponse(append(text, "\r\n"...), &limits, &r); err != nil {
			l.bad = true
			blame(lines, []int{i}, answerViolation("answer-grammar", cureGrammar, err))
		}
	}
	if !switched {
		if first.Status >= 200 && e.request.seen {
			lines[0].notes = append(lines[0].notes, "the server does not open a WebSocket; the connection goes on as HTTP, or ends")
		}
		return
	}
	if whole {
		e.judgeAnswer(lines)
	}
}

// judgeAnswer holds a 101 to the request that it answers.
func (e *Explainer) judgeAnswer(lines []headLine) {
	hello := handshake.Hello{
		Key: []byte(e.request.key), Protocols: e.request.protocols, Extensions: strings.Join(e.request.extensions, ", "),
	}
	if !e.request.seen {
		lines[0].notes = append(lines[0].notes, "the request is not in sight: whether the answer fits it is not judged")
		hello.Key = []byte(exampleKey)
	}
	parts := append([]part(nil), responseParts...)
	right := "Sec-WebSocket-Accept: " + string(handshake.AppendAccept(nil, hello.Key)) + "\r\n"
	for i := range parts {
		if parts[i].name == "answer-accept" {
			parts[i].right = right
		}
	}
	if e.o.Deflate == nil {
		e.agreed, e.known = handshake.Deflate{}, true
	}
	for i := range parts {
		p := &parts[i]
		places := p.places(lines)
		if p.name == "answer-accept" {
			e.explainAccept(lines, places)
		}
		if !e.request.seen && (p.name == "answer-accept" || p.name == "answer-protocol") || anyBad(lines, places) {
			continue
		}
		h := hello
		if !e.request.seen && p.name == "answer-extensions" && len(places) > 0 {
			h.Extensions = anyOffer
		}
		var r handshake.Response
		_, err := handshake.ParseResponse(p.alone(parts, lines, places), &limits, &r)
		if err == nil {
			err = r.Check(&h)
		}
		if err != nil {
			blame(lines, places, answerViolation(p.name, p.cure, err))
		}
		if p.name == "answer-extensions" && e.o.Deflate == nil {
			e.agreed = r.Deflate
		}
	}
}

// anyOffer is what a client offers that takes any answer.
const anyOffer = "permessage-deflate; client_max_window_bits"

// ParseExtensions reads the value of a server's Sec-WebSocket-Extensions for Options.Deflate.
func ParseExtensions(value string) (handshake.Deflate, error) {
	switch {
	case value == "":
		return handshake.Deflate{}, nil
	case strings.ContainsAny(value, "\r\n"):
		return handshake.Deflate{}, errors.New("it is more than one line")
	}
	head := "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: " +
		string(handshake.AppendAccept(nil, []byte(exampleKey))) + "\r\nSec-WebSocket-Extensions: " + value + "\r\n\r\n"
	var r handshake.Response
	_, err := handshake.ParseResponse([]byte(head), &limits, &r)
	if err == nil {
		err = r.Check(&handshake.Hello{Key: []byte(exampleKey), Extensions: anyOffer})
	}
	return r.Deflate, err
}

// explainAccept derives the value at the line that has it.
func (e *Explainer) explainAccept(lines []headLine, places []int) {
	if len(places) == 0 || !e.request.seen {
		return
	}
	a, _ := Derive(e.request.key)
	lines[places[0]].accept = &a
}

func answerViolation(part, cure string, err error) Violation {
	a := err.(*handshake.AnswerError)
	return Violation{Kind: "handshake-" + part, Section: a.Section, What: a.Msg, Cure: cure, err: a}
}
