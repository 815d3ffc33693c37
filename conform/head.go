package conform

import (
	"bytes"
	"context"
	"crypto/rand"
	"slices"
	"strings"
	"time"

	"wspoll/client"
	"wspoll/handshake"
)

// Target is a server to be tested.
type Target = client.Target

// ParseTarget reads a ws:// or wss:// URL. insecure: any certificate will do.
func ParseTarget(s string, insecure bool) (*Target, error) { return client.ParseTarget(s, insecure) }

// dial connects, or connects anew. As the server we have the one connection that the client made.
func (s *Session) dial() {
	if !s.client {
		return
	}
	s.release()
	ctx, cancel := context.WithTimeout(s.ctx, s.opts.Timeout)
	defer cancel()
	conn, err := s.target.Connect(ctx)
	if err != nil {
		if s.ctx.Err() != nil {
			panic(stop{})
		}
		s.trouble = err
		s.Fail("cannot connect: %v", err)
	}
	s.record.connect()
	s.adopt(conn)
}

// Head is a request or answer head in the making: a first line and header lines, each without its CRLF.
type Head struct {
	First string
	Lines []string
	URL   string // of the server to be tested
}

// Head is the request that opens a connection to the peer, right in every way, with a new key.
func (s *Session) Head() *Head {
	var nonce [16]byte
	rand.Read(nonce[:])
	s.hello = handshake.Hello{Host: s.target.Host, Target: s.target.Path, Key: handshake.AppendKey(nil, nonce)}
	h := &Head{First: "GET " + s.target.Path + " HTTP/1.1", URL: s.target.URL, Lines: []string{
		"Host: " + s.target.Host,
		"Upgrade: websocket",
		"Connection: Upgrade",
		"Sec-WebSocket-Key: " + string(s.hello.Key),
		"Sec-WebSocket-Version: 13",
	}}
	if s.opts.Origin != "" {
		h.Add("Origin: " + s.opts.Origin)
	}
	for _, l := range s.opts.Header {
		h.Add(l)
		if isField(l, "Sec-WebSocket-Protocol") {
			_, v, _ := strings.Cut(l, ":")
			for p := range strings.SplitSeq(v, ",") {
				s.hello.Protocols = append(s.hello.Protocols, strings.TrimSpace(p))
			}
		}
	}
	return h
}

// Add appends header lines.
func (h *Head) Add(lines ...string) *Head {
	h.Lines = append(h.Lines, lines...)
	return h
}

// Drop takes all lines of a field away.
func (h *Head) Drop(name string) *Head {
	h.Lines = slices.DeleteFunc(h.Lines, func(l string) bool { return isField(l, name) })
	return h
}

// Set puts lines in the place of those of a field, at its first.
func (h *Head) Set(name string, lines ...string) *Head {
	i := slices.IndexFunc(h.Lines, func(l string) bool { return isField(l, name) })
	if i < 0 {
		return h.Add(lines...)
	}
	h.Drop(name)
	h.Lines = slices.Insert(h.Lines, i, lines...)
	return h
}

// Get is the value of a field, empty if there is none.
func (h *Head) Get(name string) string {
	for _, l := range h.Lines {
		if isField(l, name) {
			_, v, _ := strings.Cut(l, ":")
			return strings.TrimSpace(v)
		}
	}
	return ""
}

func isField(line, name string) bool {
	n, _, ok := strings.Cut(line, ":")
	return ok && strings.EqualFold(n, name)
}

// Bytes are the head as it goes to the wire.
func (h *Head) Bytes() []byte {
	b := append([]byte(h.First), "\r\n"...)
	for _, l := range h.Lines {
		b = append(append(b, l...), "\r\n"...)
	}
	return append(b, "\r\n"...)
}

// Open does the opening handshake (§4), whichever side we are; the peer must go along.
func (s *Session) Open() {
	if !s.client {
		s.OpenAnswer("")
		return
	}
	s.OpenOffer("")
}

// OpenOffer opens as the client and offers extensions. It returns those that the peer answered with, as it wrote them;
// none is "".
func (s *Session) OpenOffer(offer string) string {
	h := s.Head()
	s.hello.Extensions = offer
	if offer != "" {
		h.Add("Sec-WebSocket-Extensions: " + offer)
	}
	s.dial()
	s.uncounted = true
	s.Send(h.Bytes())
	s.uncounted = false
	s.ExpectOpen()
	return s.agreed
}

// ExpectOpen waits for the 101 that accepts what was sent of Head, and holds it to §4.1.
func (s *Session) ExpectOpen() {
	r := s.Answer()
	if err := r.Check(&s.hello); err != nil {
		s.Fail("the handshake was not accepted: %v", err)
	}
	s.agreed = string(r.Extensions)
	s.rules.RSV1 = s.agreed != ""
	s.agree(&r.Deflate)
}

// Answer waits for the head of an HTTP answer, interim ones (1xx but 101) passed over.
func (s *Session) Answer() *handshake.Response {
	r, a := s.answer(s.opts.Timeout)
	switch a {
	case silent:
		s.Fail("no HTTP answer came within %v", s.opts.Timeout)
	case over:
		s.Fail("%s where an HTTP answer should come", endWords(s.ended))
	}
	return r
}

func (s *Session) answer(wait time.Duration) (*handshake.Response, arrival) {
	limits := handshake.Limits{Head: 64 << 10}
	for interim := 0; ; {
		// r aliases what it was parsed from; s.buf goes on changing.
		head := bytes.Clone(s.buf)
		r := &handshake.Response{}
		n, err := handshake.ParseResponse(head, &limits, r)
		switch {
		case err != nil:
			s.Fail("the peer broke the protocol: %v", err)
		case n == 0:
			if s.more(wait) {
				continue
			}
			if s.ended == nil {
				return nil, silent
			}
			return nil, over
		}
		s.buf = s.buf[n:]
		if r.Status == 101 || r.Status >= 200 {
			return r, arrived
		}
		if interim++; interim > mostAside {
			s.Fail("%d interim answers came and none that counts", interim)
		}
	}
}

// ExpectRefusal waits for an HTTP error: any of 400 to 499, or one of also. The end of TCP without one is non-strict.
// §4.2.1: the server MUST return "an appropriate error code".
func (s *Session) ExpectRefusal(also ...int) *handshake.Response {
	r, a := s.answer(s.opts.Timeout)
	switch {
	case a == silent:
		s.Fail("no HTTP answer came within %v", s.opts.Timeout)
	case a == over:
		s.NonStrict("%s without an HTTP answer (RFC 6455 §4.2.1: an appropriate error code)", endWords(s.ended))
		return &handshake.Response{}
	case r.Status >= 400 && r.Status <= 499 || slices.Contains(also, r.Status):
		s.Remark("refused with %d", r.Status)
	case r.Status == 101:
		s.Fail("the handshake was accepted")
	default:
		s.Fail("the answer is %d and not an appropriate error code", r.Status)
	}
	return r
}

// ExpectEither waits for an answer where the RFC leaves it open: a 101 that is right, and then a connection that works, or
// a refusal as ExpectRefusal has it, or a redirection. It reports whether it is the 101.
func (s *Session) ExpectEither(also ...int) (opened bool) {
	r, a := s.answer(s.opts.Timeout)
	switch {
	case a == silent:
		s.Fail("no HTTP answer came within %v", s.opts.Timeout)
	case a == over:
		s.Remark("%s without an HTTP answer", endWords(s.ended))
		return false
	case r.Status == 101:
		if err := r.Check(&s.hello); err != nil {
			s.Fail("the handshake was accepted, but %v", err)
		}
		s.Remark("accepted")
		return true
	case r.Status >= 400 && r.Status <= 499 || slices.Contains(also, r.Status):
		s.Remark("refused with %d", r.Status)
	case r.Status >= 300 && r.Status <= 399:
		s.Remark("redirected with %d", r.Status)
	default:
		s.Fail("the answer is %d: neither 101 nor a redirection nor an appropriate error code", r.Status)
	}
	return false
}

// AnswerHead is the 101 to the peer's request, right in every way.
func (s *Session) AnswerHead() *Head {
	return &Head{First: "HTTP/1.1 101 Switching Protocols", Lines: []string{
		"Upgrade: websocket",
		"Connection: Upgrade",
		"Sec-WebSocket-Accept: " + string(handshake.AppendAccept(nil, s.request.Key)),
	}}
}

// OpenAnswer opens as the server, with these extensions, which the peer must have offered.
func (s *Session) OpenAnswer(extensions string) {
	h := s.AnswerHead()
	if extensions != "" {
		h.Add("Sec-WebSocket-Extensions: " + extensions)
	}
	s.agreed, s.rules.RSV1 = extensions, extensions != ""
	s.Send(h.Bytes())
}
