package conform

import (
	"fmt"
	"strings"

	"github.com/gobwas/ws"
)

// closeCases are the cases of §7 and §5.5.1: codes, reasons, and closing at odd moments.
func closeCases() []Case {
	cases := append(codeCases(), reasonCases()...)
	cases = append(cases, momentCases()...)
	return append(cases, endCases()...)
}

// sendClose closes with a body of our choice.
func (s *Session) sendClose(body []byte) { s.write(s.Close(body)) }

// codeCases: every code that may be sent, at each edge of its range, and those that may not (§7.4).
func codeCases() []Case {
	var cases []Case
	for _, code := range []int{1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 3000, 3001, 3500, 3998, 3999, 4000, 4001, 4500, 4998, 4999} {
		peer := Both
		if code == 1010 {
			peer = Server // §7.4.1: "this status code is not used by the server"
		}
		cases = append(cases, Case{
			ID: fmt.Sprintf("rfc6455-7.4-code-%d", code), Peer: peer,
			Sentence: fmt.Sprintf("A Close %d. A Close must come, typically with the same code, and the end of TCP.", code),
			Run: func(s *Session) {
				s.Open()
				s.sendClose(CloseBody(code, ""))
				s.ExpectClose(code)
			},
		})
	}
	for _, code := range []int{1012, 1013, 1014} {
		cases = append(cases, Case{
			ID:       fmt.Sprintf("rfc6455-7.4-code-%d", code),
			Sentence: fmt.Sprintf("A Close %d, a code that IANA registered after RFC 6455. A Close must come, with the same code or, from who does not know it, 1002.", code),
			Run: func(s *Session) {
				s.Open()
				s.sendClose(CloseBody(code, ""))
				s.ExpectClose(code, 1002)
				if s.peerCode == 1002 {
					s.Remark("the peer does not know the code")
				}
			},
		})
	}
	for _, code := range []int{
		0, 1, 100, 500, 998, 999, 1004, 1005, 1006, 1015, 1016, 1017, 1100, 1500, 1999, 2000, 2001, 2500, 2998, 2999,
		5000, 5001, 9999, 10000, 32767, 32768, 65534, 65535,
	} {
		cases = append(cases, Case{
			ID:       fmt.Sprintf("rfc6455-7.4-bad-code-%d", code),
			Sentence: fmt.Sprintf("A Close %d, a code that may not be sent. The peer must fail the connection, with a Close 1002, and not send the code back.", code),
			Run: func(s *Session) {
				s.Open()
				s.sendClose(CloseBody(code, ""))
				s.ExpectFail(1002)
			},
		})
	}
	return append(
		cases,
		Case{
			ID:       "rfc6455-5.5.1-close-empty",
			Sentence: "A Close without a code. A Close must come, typically without a code too, and the end of TCP.",
			Run: func(s *Session) {
				s.Open()
				s.sendClose(nil)
				s.ExpectClose(int(ws.StatusNoStatusRcvd), 1000)
			},
		},
		Case{
			ID:       "rfc6455-5.5.1-close-1-byte",
			Sentence: "A Close with a payload of one byte, half a code. The peer must fail the connection, with a Close 1002.",
			Run: func(s *Session) {
				s.Open()
				s.sendClose([]byte{3})
				s.ExpectFail(1002)
			},
		},
	)
}

// reasonCases: a reason is UTF-8 of at most 123 bytes (§5.5.1, §7.1.6).
func reasonCases() []Case {
	var cases []Case
	for _, c := range []struct{ id, what, reason string }{
		{"1", "of one byte", "x"},
		{"words", "of some words", "going away"},
		{"122", "of 122 bytes", strings.Repeat("x", 122)},
		{"123", "of 123 bytes, the most there can be", strings.Repeat("x", 123)},
		{"two-byte", "of two-byte characters", "grüße"},
		{"three-byte", "of three-byte characters, 123 bytes", strings.Repeat("€", 41)},
		{"four-byte", "of four-byte characters", "\U0001F600\U0010FFFF"},
		{"nul", "of NUL bytes", "\x00\x00"},
	} {
		cases = append(cases, Case{
			ID:       "rfc6455-7.1.6-reason-" + c.id,
			Sentence: "A Close 1000 with a reason " + c.what + ". A Close must come, and the end of TCP.",
			Run: func(s *Session) {
				s.Open()
				s.sendClose(CloseBody(1000, c.reason))
				s.ExpectClose(1000)
			},
		})
	}
	for _, c := range []struct{ id, what, reason string }{
		{"ff", "with a byte ff", "\xff"},
		{"continuation", "that begins with a continuation byte", "\x80"},
		{"overlong", "with an overlong form of /", "\xc0\xaf"},
		{"surrogate", "with a surrogate", "\xed\xa0\x80"},
		{"too-high", "with a character above U+10FFFF", "\xf4\x90\x80\x80"},
		{"truncated", "that ends inside a character", "gr\xc3"},
		{"truncated-4", "that ends inside a four-byte character", "\xf0\x9f\x98"},
		{"late", "whose last byte is wrong", strings.Repeat("x", 122) + "\xff"},
		{"latin1", "in Latin-1", "gr\xfc\xdfe"},
	} {
		cases = append(cases, Case{
			ID:       "rfc6455-8.1-reason-" + c.id,
			Sentence: "A Close 1000 with a reason " + c.what + ", not UTF-8. The peer must fail the connection, with a Close 1007 or 1002.",
			Run: func(s *Session) {
				s.Open()
				s.sendClose(CloseBody(1000, c.reason))
				s.ExpectFail(1007, 1002)
			},
		})
	}
	return cases
}

// momentCases: a Close where it is less expected, and what comes behind one.
func momentCases() []Case {
	closed := func(id, sentence string, b func(*Session) []byte) Case {
		return Case{
			ID: id, Sentence: sentence + " A Close 1000 must come, the end of TCP, and nothing else.",
			Run: func(s *Session) {
				s.Open()
				said := b(s)
				s.sentMore = true
				s.Send(said)
				s.ExpectClose(1000)
				if len(s.pongs) > 0 {
					s.NonStrict("a pong came to the ping behind the Close (RFC 6455 §1.4: what comes then is discarded)")
				}
			},
		}
	}
	bye := func(s *Session) []byte { return s.Close(CloseBody(1000, "")) }
	return []Case{
		closed("rfc6455-7.1.2-close-at-once", "A Close as the first frame.", bye),
		closed("rfc6455-5.5.1-text-after-close", "A text message behind our Close, in one write. It is ignored.", func(s *Session) []byte {
			return append(bye(s), s.Frame(fin|text, []byte("too late"))...)
		}),
		closed("rfc6455-5.5.1-fragment-after-close", "A fragment behind our Close, in one write. It is ignored.", func(s *Session) []byte {
			return append(bye(s), s.Frame(text, []byte("too late"))...)
		}),
		closed("rfc6455-5.5.1-ping-after-close", "A ping behind our Close, in one write. It is ignored.", func(s *Session) []byte {
			return append(bye(s), s.Frame(fin|ping, []byte("too late"))...)
		}),
		closed("rfc6455-5.5.1-close-after-close", "A second Close 3000 behind our Close 1000, in one write. It is ignored.", func(s *Session) []byte {
			return append(bye(s), s.Close(CloseBody(3000, ""))...)
		}),
		closed("rfc6455-5.5.1-garbage-after-close", "Bytes that are no frames behind our Close, in one write. They are ignored.", func(s *Session) []byte {
			return append(bye(s), "\xff\xff\xff\xff\xff\xff"...)
		}),
		closed("rfc6455-7.1.2-close-byte-by-byte", "A Close of 125 bytes in segments of one byte.", func(s *Session) []byte {
			b := s.Close(CloseBody(1000, strings.Repeat("x", 123)))
			s.SendChopped(b[:len(b)-1], 1)
			return b[len(b)-1:]
		}),
		{
			ID:       "rfc6455-7.1.2-close-after-message",
			Sentence: "A message and a Close 1000 in one write. The message must come back, then the Close and the end of TCP.",
			Run: func(s *Session) {
				s.Open()
				s.Send(append(s.Frame(fin|text, []byte("Hello")), bye(s)...))
				s.ExpectMessage(ws.OpText, []byte("Hello"))
				s.ExpectClose(1000)
			},
		},
		{
			ID:       "rfc6455-7.1.2-close-after-ping",
			Sentence: "A ping and a Close 1000 in one write. The pong may come (§5.5.2), the Close and the end of TCP must.",
			Run: func(s *Session) {
				s.Open()
				s.Send(append(s.Frame(fin|ping, []byte("Hello")), bye(s)...))
				s.ExpectClose(1000)
			},
		},
		{
			ID:       "rfc6455-5.5.1-close-inside-message",
			Sentence: "A Close 1000 after the first fragment of a message. A Close 1000 must come and the end of TCP, and the message may not be ended.",
			Run: func(s *Session) {
				s.Open()
				s.Send(s.Frame(text, []byte("Hel")))
				s.Send(bye(s))
				s.closedInside(1000)
			},
		},
		{
			ID:       "rfc6455-5.5.1-close-inside-message-then-rest",
			Sentence: "A Close 1000 after the first fragment of a message, and the rest of the message behind it. A Close 1000 must come and the end of TCP, and the message may not be ended.",
			Run: func(s *Session) {
				s.Open()
				b := append(s.Frame(text, []byte("Hel")), bye(s)...)
				s.sentMore = true
				s.Send(append(b, s.Frame(fin|continuation, []byte("lo"))...))
				s.closedInside(1000)
			},
		},
		{
			ID:       "rfc6455-7.1.3-both-close",
			Sentence: "A frame that breaks the protocol and our own Close behind it in one write: both sides close at the same time. One Close 1002 must come and the end of TCP.",
			Run: func(s *Session) {
				s.Open()
				b := s.Frame(fin|3, nil)
				s.Send(append(b, bye(s)...))
				s.ExpectFail(1002)
			},
		},
		{
			ID:       "rfc6455-7.1.7-text-after-violation",
			Sentence: "A frame that breaks the protocol and a text message behind it in one write. The peer must fail the connection and not process the message.",
			Run: func(s *Session) {
				s.Open()
				s.Send(append(s.Frame(fin|3, nil), s.Frame(fin|text, []byte("too late"))...))
				s.ExpectFail(1002)
			},
		},
		{
			ID:       "rfc6455-7.1.7-ping-after-violation",
			Sentence: "A frame that breaks the protocol and a ping behind it in one write. The peer must fail the connection and not answer the ping.",
			Run: func(s *Session) {
				s.Open()
				s.Send(append(s.Frame(fin|3, nil), s.Frame(fin|ping, []byte("too late"))...))
				s.ExpectFail(1002)
				if len(s.pongs) > 0 {
					s.Fail("a pong came to the ping behind the violation (RFC 6455 §7.1.7)")
				}
			},
		},
	}
}

// closedInside is ExpectClose where pieces of a message that has not ended may come before.
func (s *Session) closedInside(code int) {
	switch s.awaitFail(s.opts.Timeout, nil) {
	case silent:
		s.Fail("no Close came within %v", s.opts.Timeout)
	case over:
		s.NonStrict("%s where a Close should come (RFC 6455 §5.5.1)", endWords(s.ended))
		return
	}
	s.judgeCode([]int{code})
	s.expectEnd(true)
}

// endCases: TCP ends without a Close (§7.1.5: code 1006, which is never sent).
func endCases() []Case {
	var cases []Case
	for _, c := range []struct {
		id, what string
		before   func(*Session) []byte
	}{
		{"between-messages", "after a message", func(s *Session) []byte {
			s.echo(text, []byte("Hello"))
			return nil
		}},
		{"at-once", "right after the handshake", func(*Session) []byte { return nil }},
		{"in-payload", "inside the payload of a frame", func(s *Session) []byte {
			f := s.Frame(fin|binaryOp, noise(1000))
			return f[:500]
		}},
		{"in-message", "between two fragments", func(s *Session) []byte { return s.Frame(text, []byte("Hel")) }},
		{"in-ping", "inside a ping", func(s *Session) []byte { return s.Frame(fin|ping, letters(100))[:50] }},
		{"in-close", "inside a Close", func(s *Session) []byte { return s.Close(CloseBody(1000, "reason"))[:5] }},
	} {
		cases = append(
			cases,
			Case{
				ID:       "rfc6455-7.1.5-tcp-ends-" + c.id,
				Sentence: "TCP ends " + c.what + ". The peer should end TCP too.",
				Run: func(s *Session) {
					s.Open()
					if b := c.before(s); b != nil {
						s.Send(b)
					}
					s.Shut()
					s.gone()
				},
			},
			Case{
				ID: "rfc6455-7.1.5-tcp-reset-" + c.id, Peer: Server,
				Sentence: "TCP is reset " + c.what + ". The peer must go on serving: the next connection must work.",
				Run: func(s *Session) {
					s.Open()
					if b := c.before(s); b != nil {
						s.Send(b)
					}
					s.Reset()
					s.Open()
					s.works()
				},
			},
		)
	}
	return append(cases, Case{
		ID:       "rfc6455-5.5.1-half-close-after-close",
		Sentence: "A Close 1000 and the end of our half of TCP behind it. A Close 1000 must still come, and the end of TCP.",
		Run: func(s *Session) {
			s.Open()
			s.sendClose(CloseBody(1000, ""))
			s.Shut()
			s.ExpectClose(1000)
		},
	})
}
