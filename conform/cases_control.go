package conform

import (
	"fmt"

	"github.com/gobwas/ws"
)

// controlCases are the cases of §5.5: pings and pongs of all sizes, and control frames that are none.
func controlCases() []Case {
	var cases []Case
	for _, n := range []int{0, 1, 2, 4, 5, 64, 124, 125} {
		cases = append(
			cases,
			orderly(fmt.Sprintf("rfc6455-5.5.2-ping-%d", n), fmt.Sprintf("A ping of %d bytes. A pong with the same bytes must come.", n), func(s *Session) {
				s.Send(s.Frame(fin|ping, noise(n)))
				s.ExpectPong(noise(n))
			}),
			orderly(fmt.Sprintf("rfc6455-5.5.3-pong-%d", n), fmt.Sprintf("A pong of %d bytes that nobody asked for. No answer may come.", n), func(s *Session) {
				s.Send(s.Frame(fin|pong, noise(n)))
				s.Alive()
			}),
		)
	}
	cases = append(
		cases,
		orderly("rfc6455-5.5.2-ping-not-utf8", "A ping with bytes that are not UTF-8, which is no matter. A pong with the same bytes must come.", func(s *Session) {
			s.Send(s.Frame(fin|ping, []byte("\xff\xfe\x00\xc0\x80")))
			s.ExpectPong([]byte("\xff\xfe\x00\xc0\x80"))
		}),
		orderly("rfc6455-5.5.2-ping-byte-by-byte", "A ping of 125 bytes, byte by byte. A pong with the same bytes must come.", func(s *Session) {
			s.SendChopped(s.Frame(fin|ping, noise(125)), 1)
			s.ExpectPong(noise(125))
		}),
		orderly("rfc6455-5.5.2-pings-in-turn", "A hundred pings, each after the pong to the one before. Each must be answered.", func(s *Session) {
			for i := range 100 {
				s.Send(s.Frame(fin|ping, noise(i)))
				s.ExpectPong(noise(i))
			}
		}),
		orderly("rfc6455-5.5.2-ten-pings-at-once", "Ten pings in one write. The pongs must come in order, at least the last one (§5.5.3).", func(s *Session) {
			var b []byte
			for i := range 10 {
				b = append(b, s.Frame(fin|ping, fmt.Appendf(nil, "ping %d", i))...)
			}
			s.Send(b)
			s.lastPong("ping ", 0, 9)
		}),
		orderly("rfc6455-5.5.2-thousand-pings-at-once", "A thousand pings in one write. The pongs must come in order, at least the last one (§5.5.3).", func(s *Session) {
			var b []byte
			for i := range 1000 {
				b = append(b, s.Frame(fin|ping, fmt.Appendf(nil, "ping %d", i))...)
			}
			s.Send(b)
			s.lastPong("ping ", 0, 999)
		}),
		orderly("rfc6455-5.5.2-ping-between-messages", "Messages with pings between them, in one write. All must be answered.", func(s *Session) {
			var b []byte
			for i := range 10 {
				b = append(b, s.Frame(fin|text, letters(i*50))...)
				b = append(b, s.Frame(fin|ping, fmt.Appendf(nil, "ping %d", i))...)
			}
			s.Send(b)
			for i := range 10 {
				s.ExpectMessage(ws.OpText, letters(i*50))
			}
			s.lastPong("ping ", 0, 9)
		}),
		orderly("rfc6455-5.5.3-pong-then-ping", "A pong and then a ping with another payload. The pong that comes must have that of the ping.", func(s *Session) {
			s.Send(append(s.Frame(fin|pong, []byte("pong")), s.Frame(fin|ping, []byte("ping"))...))
			s.ExpectPong([]byte("ping"))
		}),
		orderly("rfc6455-5.5.3-ten-pongs", "Ten pongs in one write that nobody asked for. No answer may come.", func(s *Session) {
			var b []byte
			for i := range 10 {
				b = append(b, s.Frame(fin|pong, noise(i))...)
			}
			s.Send(b)
			s.Alive()
		}),
	)
	return append(cases, badControlCases()...)
}

// badControlCases: "All control frames MUST have a payload length of 125 bytes or less and MUST NOT be fragmented."
func badControlCases() []Case {
	var cases []Case
	for _, k := range []struct {
		name string
		op   byte
		body func(n int) []byte
	}{
		{"ping", ping, letters},
		{"pong", pong, letters},
		{"close", closing, func(n int) []byte { return append(CloseBody(1000, ""), letters(n)...)[:n] }},
	} {
		what := map[string]string{"ping": "A ping", "pong": "A pong", "close": "A Close"}[k.name]
		for _, n := range []int{126, 127, 1000, 65535, 65536} {
			cases = append(cases, violation(fmt.Sprintf("rfc6455-5.5-%s-%d", k.name, n), fmt.Sprintf("%s with %d bytes of payload.", what, n),
				func(s *Session) []byte { return s.Frame(fin|k.op, k.body(n)) }, 1002))
		}
		cases = append(
			cases,
			longControl("rfc6455-5.2-not-minimal-"+k.name+"-5-in-16-bits", what+" whose length of 5 is written in 16 bits.",
				k.op, []byte{fin | k.op, 126, 0, 5}, k.body(5)),
			longControl("rfc6455-5.2-not-minimal-"+k.name+"-5-in-64-bits", what+" whose length of 5 is written in 64 bits.",
				k.op, []byte{fin | k.op, 127, 0, 0, 0, 0, 0, 0, 0, 5}, k.body(5)),
			violation("rfc6455-5.5-"+k.name+"-without-fin", what+" without FIN.",
				func(s *Session) []byte { return s.Frame(k.op, k.body(5)) }, 1002),
			violation("rfc6455-5.5-"+k.name+"-without-fin-empty", what+" without FIN and without payload.",
				func(s *Session) []byte { return s.Frame(k.op, nil) }, 1002),
			violation("rfc6455-5.5-"+k.name+"-in-two-fragments", what+" in two fragments.",
				func(s *Session) []byte {
					return append(s.Frame(k.op, k.body(5)), s.Frame(fin|continuation, []byte("more"))...)
				}, 1002),
			violation("rfc6455-5.5-"+k.name+"-without-fin-in-message", what+" without FIN between the fragments of a message.",
				func(s *Session) []byte {
					return append(s.Frame(text, []byte("Hel")), s.Frame(k.op, k.body(5))...)
				}, 1002),
			Case{
				ID:       "rfc6455-5.5-" + k.name + "-65536-header-only",
				Sentence: what + " that announces 65536 bytes, and none of them yet. The peer must fail the connection, with a Close 1002, and need not see them.",
				Run: func(s *Session) {
					s.Open()
					f := s.Frame(fin|k.op, k.body(65536))
					n := len(f) - 65536
					s.Send(f[:n])
					s.ExpectFailBefore(f[n:], false, 1002)
				},
			},
		)
	}
	return cases
}

// longControl is notMinimal for a control frame: short enough, and written as if it were not.
func longControl(id, what string, op byte, head, body []byte) Case {
	return Case{
		ID: id, Sentence: what + " The peer should fail the connection, with a Close 1002.",
		Run: func(s *Session) {
			s.Open()
			said := s.Raw(head, body)
			if op == closing {
				s.Send(said)
				s.ExpectFail(1002) // who takes it answers 1000, and that is non-strict
				return
			}
			answer := []byte("behind it")
			s.Send(append(said, s.Frame(fin|ping, answer)...))
			for {
				p, a := s.next(s.opts.Timeout)
				if a == arrived && p.Op == ws.OpPong {
					if string(p.Data) == string(answer) {
						s.NonStrict("the frame was accepted")
						s.Finish()
						return
					}
					continue
				}
				if a == silent {
					s.Fail("the peer did not fail the connection within %v", s.opts.Timeout)
				}
				break
			}
			s.ExpectFail(1002)
		},
	}
}
