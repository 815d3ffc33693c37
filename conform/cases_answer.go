package conform

import (
	"bytes"
	"fmt"
	"strings"

	"github.com/gobwas/ws"
)

// answerCases are the cases of §4.1 for clients: what a client must not take for a 101 that is right.
func answerCases() []Case {
	cases := rightAnswerCases()
	const accept = "Sec-WebSocket-Accept"
	for _, c := range []struct {
		id, what string
		change   change
	}{
		{"2-upgrade-missing", "without an Upgrade header", func(h *Head) { h.Drop("Upgrade") }},
		{"2-upgrade-empty", "with an empty Upgrade header", set("Upgrade", "Upgrade:")},
		{"2-upgrade-other", "with Upgrade: h2c", set("Upgrade", "Upgrade: h2c")},
		{"2-upgrade-longer", "with Upgrade: websockets", set("Upgrade", "Upgrade: websockets")},
		{"3-connection-missing", "without a Connection header", func(h *Head) { h.Drop("Connection") }},
		{"3-connection-other", "with Connection: keep-alive", set("Connection", "Connection: keep-alive")},
		{"3-connection-longer", "with Connection: upgraded", set("Connection", "Connection: upgraded")},
		{"4-accept-missing", "without a Sec-WebSocket-Accept", func(h *Head) { h.Drop(accept) }},
		{"4-accept-empty", "with an empty Sec-WebSocket-Accept", set(accept, accept+":")},
		{"4-accept-of-another-key", "with the Sec-WebSocket-Accept of another key", set(accept, accept+": s3pPLMBiTxaQ9kYGzzhZRbK+xOo=")},
		{"4-accept-in-other-case", "with its Sec-WebSocket-Accept in another casing", func(h *Head) { h.Set(accept, accept+": "+swapCase(h.Get(accept))) }},
		{"4-accept-cut", "with the last character of its Sec-WebSocket-Accept missing", func(h *Head) {
			v := h.Get(accept)
			h.Set(accept, accept+": "+v[:len(v)-1])
		}},
		{"5-extension-not-offered", "with an extension that was not offered", add("Sec-WebSocket-Extensions: x-wspoll-unknown")},
		{"5-extension-malformed", "with a malformed list of extensions", add("Sec-WebSocket-Extensions: ;;")},
		{"6-subprotocol-not-offered", "with a subprotocol that was not offered", add("Sec-WebSocket-Protocol: x-wspoll-unknown")},
		{"6-subprotocol-twice", "with two subprotocols that were not offered", add("Sec-WebSocket-Protocol: x-wspoll-a", "Sec-WebSocket-Protocol: x-wspoll-b")},
	} {
		cases = append(cases, wrongAnswer("rfc6455-4.1-answer-"+c.id, "An answer 101 "+c.what+".", c.change))
	}
	for _, status := range []string{"100 Continue", "102 Processing"} {
		cases = append(cases, interimAnswer(status))
	}
	for _, status := range []string{"200 OK", "204 No Content", "301 Moved Permanently", "400 Bad Request", "426 Upgrade Required", "503 Service Unavailable"} {
		cases = append(cases, wrongAnswer("rfc6455-4.1-answer-1-status-"+status[:3], "An answer "+status+" with all the headers of a 101.",
			func(h *Head) { h.First = "HTTP/1.1 " + status }))
	}
	for _, c := range []struct{ id, what, line string }{
		{"not-http", "whose version is not HTTP", "ICY 101 Switching Protocols"},
		{"status-1010", "whose status has four digits, 1010", "HTTP/1.1 1010 Switching Protocols"},
		{"status-malformed", "whose status is 1O1, with a letter", "HTTP/1.1 1O1 Switching Protocols"},
	} {
		cases = append(cases, wrongAnswer("rfc6455-4.1-answer-1-"+c.id, "An answer "+c.what+".", func(h *Head) { h.First = c.line }))
	}
	cases = append(cases, Case{
		ID: "rfc6455-4.1-answer-1-http-1.0", Peer: Client,
		Sentence: "An answer whose version is HTTP/1.0, which knows no 101. The client should fail the connection and send no frame; §4.1 does not have it among what it MUST look at.",
		Run: func(s *Session) {
			h := s.AnswerHead()
			h.First = "HTTP/1.0 101 Switching Protocols"
			s.Send(append(h.Bytes(), s.Frame(fin|ping, []byte("open?"))...))
			p, a := s.next(s.opts.Timeout)
			switch {
			case a == arrived && p.Op == ws.OpPong:
				s.NonStrict("the client takes the connection for open")
				s.Finish()
			case a == arrived:
				s.NonStrict("the client takes the connection for open: a %s came", opName(p.Op))
			case a == silent:
				s.Fail("the client did not end TCP within %v", s.opts.Timeout)
			}
		},
	})
	return append(cases, oddAnswerCases()...)
}

// swapCase turns capital letters into small ones and the other way round.
func swapCase(s string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r >= 'a' && r <= 'z':
			return r - 'a' + 'A'
		case r >= 'A' && r <= 'Z':
			return r - 'A' + 'a'
		}
		return r
	}, s)
}

// wrongAnswer is a case of an answer that must make the client fail the connection. Whether it has shows when it does
// not answer a ping.
func wrongAnswer(id, sentence string, c change) Case {
	return Case{
		ID: id, Peer: Client,
		Sentence: sentence + " The client must fail the connection and send no frame.",
		Run: func(s *Session) {
			h := s.AnswerHead()
			c(h)
			s.Send(append(h.Bytes(), s.Frame(fin|ping, []byte("open?"))...))
			s.mustLeave()
		},
	}
}

// interimAnswer is wrongAnswer for an interim status. §4.1, item 1, leaves it to HTTP, where the final answer is waited for:
// that none will come only shows at the end of TCP.
func interimAnswer(status string) Case {
	return Case{
		ID: "rfc6455-4.1-answer-1-status-" + status[:3], Peer: Client,
		Sentence: "An answer " + status + " with all the headers of a 101, and the end of TCP where the final answer should come. The client must fail the connection and send no frame.",
		Run: func(s *Session) {
			h := s.AnswerHead()
			h.First = "HTTP/1.1 " + status
			s.Send(append(h.Bytes(), s.Frame(fin|ping, []byte("open?"))...))
			s.Shut()
			s.mustLeave()
		},
	}
}

// mustLeave waits for the client to end TCP, with no frame before it.
func (s *Session) mustLeave() {
	p, a := s.next(s.opts.Timeout)
	switch {
	case s.pings > 0:
		s.Fail("the client takes the connection for open: a ping came")
	case a == over:
		return
	case a == silent:
		s.Fail("the client did not end TCP within %v", s.opts.Timeout)
	case p.Op == ws.OpClose:
		s.NonStrict("%s came on a connection that was never open", closeWords(p.Data))
		s.expectEnd(false)
	default:
		s.Fail("the client takes the connection for open: a %s came", opName(p.Op))
	}
}

// rightAnswerCases: what a client must take, though it is rare.
func rightAnswerCases() []Case {
	right := func(id, sentence string, c change) Case {
		return Case{
			ID: "rfc6455-4.1-answer-right-" + id, Peer: Client, Sentence: sentence + " The connection must be open.",
			Run: func(s *Session) {
				h := s.AnswerHead()
				c(h)
				s.Send(h.Bytes())
				s.works()
			},
		}
	}
	return []Case{
		right("plain", "The answer as §1.3 shows it.", func(*Head) {}),
		right("names-lower-case", "An answer with all header names in lower case.", func(h *Head) {
			for i, l := range h.Lines {
				name, v, _ := strings.Cut(l, ":")
				h.Lines[i] = strings.ToLower(name) + ":" + v
			}
		}),
		right("upgrade-case", "An answer with Upgrade: WebSocket.", set("Upgrade", "Upgrade: WebSocket")),
		right("connection-case", "An answer with Connection: UPGRADE.", set("Connection", "Connection: UPGRADE")),
		right("connection-list", "An answer with Connection: keep-alive, Upgrade.", set("Connection", "Connection: keep-alive, Upgrade")),
		right("other-reason", "An answer with another reason phrase, which means nothing.", func(h *Head) { h.First = "HTTP/1.1 101 Web Socket Protocol Handshake" }),
		right("no-reason", "An answer with an empty reason phrase.", func(h *Head) { h.First = "HTTP/1.1 101 " }),
		right("unknown-fields", "An answer with headers that the client does not know, and 2 KiB of them.", func(h *Head) {
			h.Add("Server: x", "X-Unknown: "+strings.Repeat("x", 2<<10), "Set-Cookie: a=b; Path=/")
		}),
		right("order-reversed", "An answer with its headers in reverse order.", func(h *Head) {
			for i, j := 0, len(h.Lines)-1; i < j; i, j = i+1, j-1 {
				h.Lines[i], h.Lines[j] = h.Lines[j], h.Lines[i]
			}
		}),
		right("white-space", "An answer with blanks and tabs around all values.", func(h *Head) {
			for i, l := range h.Lines {
				h.Lines[i] = strings.Replace(l, ": ", ": \t ", 1) + " \t"
			}
		}),
		{
			ID: "rfc6455-4.1-answer-right-byte-by-byte", Peer: Client,
			Sentence: "The answer comes byte by byte. The connection must be open.",
			Run: func(s *Session) {
				s.SendChopped(s.AnswerHead().Bytes(), 1)
				s.works()
			},
		},
		{
			ID: "rfc6455-4.1-answer-right-with-frames", Peer: Client,
			Sentence: "The answer, a text message and a ping in one segment. The message must come back and the pong come.",
			Run: func(s *Session) {
				b := append(s.AnswerHead().Bytes(), s.Frame(fin|text, []byte("early"))...)
				s.Send(append(b, s.Frame(fin|ping, []byte("early"))...))
				s.ExpectMessage(ws.OpText, []byte("early"))
				s.ExpectPong([]byte("early"))
				s.Finish()
			},
		},
		{
			ID: "rfc6455-4.1-answer-right-with-half-a-frame", Peer: Client,
			Sentence: "The answer and the first three bytes of a text message in one segment, then the rest. The message must come back.",
			Run: func(s *Session) {
				f := s.Frame(fin|text, []byte("early"))
				s.Send(append(s.AnswerHead().Bytes(), f[:3]...))
				s.Send(f[3:])
				s.ExpectMessage(ws.OpText, []byte("early"))
				s.Finish()
			},
		},
	}
}

// oddAnswerCases: answers that are hardly HTTP, or none.
func oddAnswerCases() []Case {
	leaves := func(id, sentence string, b func(*Session) []byte) Case {
		return Case{
			ID: "rfc6455-4.1-answer-odd-" + id, Peer: Client,
			Sentence: sentence + " The client must end the connection and send no frame.",
			Run: func(s *Session) {
				s.Send(b(s))
				s.Shut()
				s.mustLeave()
			},
		}
	}
	return []Case{
		leaves("cut-off", "TCP ends in the middle of the answer.", func(s *Session) []byte {
			b := s.AnswerHead().Bytes()
			return b[:len(b)-10]
		}),
		leaves("no-empty-line", "TCP ends before the empty line of the answer.", func(s *Session) []byte {
			return bytes.TrimSuffix(s.AnswerHead().Bytes(), []byte("\r\n"))
		}),
		leaves("garbage", "A kilobyte of zeros instead of an answer.", func(*Session) []byte { return make([]byte, 1024) }),
		leaves("frame", "A frame instead of an answer.", func(s *Session) []byte { return s.Frame(fin|text, []byte("Hello")) }),
		{
			ID: "rfc6455-10.4-answer-4m", Peer: Client,
			Sentence: "An answer with a header of 4 MiB. The client should fail the connection.",
			Run: func(s *Session) {
				h := s.AnswerHead().Add("X-Filler: " + strings.Repeat("x", 4<<20))
				s.Send(append(h.Bytes(), s.Frame(fin|ping, []byte("open?"))...))
				p, a := s.next(s.opts.Timeout)
				switch {
				case a == silent:
					s.NonStrict("the client did not end TCP within %v", s.opts.Timeout)
				case a == arrived:
					s.NonStrict("the client took it: a %s came", opName(p.Op))
				}
			},
		},
		{
			ID: "rfc6455-4.1-request", Peer: Client,
			Sentence: "The request of the client is held to §4.1: GET and HTTP/1.1 or higher, Host, Upgrade, Connection, a new key of 16 random bytes, version 13.",
			Run: func(s *Session) {
				// Check has found all of it right before the case began.
				if n := s.keysSeen(string(s.request.Key)); n > 1 {
					s.Fail("the key %s has been used %d times", s.request.Key, n)
				}
				if s.request.HasBody() {
					s.Fail("the request announces a body")
				}
				if v, n := s.request.Get("Connection"); n != 1 {
					s.Remark("Connection stands on %d lines, the first being %s", n, fmt.Sprintf("%q", v))
				}
				s.Open()
				s.works()
			},
		},
	}
}

// keysSeen is how many connections of the same client had this key.
func (s *Session) keysSeen(key string) int {
	s.house.mu.Lock()
	defer s.house.mu.Unlock()
	return s.house.keys[key]
}
