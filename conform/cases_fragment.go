package conform

import (
	"fmt"

	"github.com/gobwas/ws"
)

// fragments are the frames of one message with these payloads (§5.4).
func (s *Session) fragments(op byte, parts ...[]byte) [][]byte {
	frames := make([][]byte, len(parts))
	for i, p := range parts {
		first := op
		if i > 0 {
			first = continuation
		}
		if i == len(parts)-1 {
			first |= fin
		}
		frames[i] = s.Frame(first, p)
	}
	return frames
}

// cut is b in parts of n bytes.
func cut(b []byte, n int) (parts [][]byte) {
	for len(b) > n {
		parts = append(parts, b[:n])
		b = b[n:]
	}
	return append(parts, b)
}

// fragmentCases are the cases of §5.4.
func fragmentCases() []Case {
	var cases []Case
	kinds := []struct {
		name string
		op   byte
		data func(int) []byte
	}{{"text", text, letters}, {"binary", binaryOp, noise}}
	for _, k := range kinds {
		for _, c := range []struct {
			id    string
			parts [][]byte
		}{
			{"two", cut(k.data(10), 5)},
			{"three", cut(k.data(15), 5)},
			{"ten", cut(k.data(1000), 100)},
			{"of-one-byte", cut(k.data(200), 1)},
			{"of-125", cut(k.data(500), 125)},
			{"of-126", cut(k.data(504), 126)},
			{"of-65535", cut(k.data(3*65535), 65535)},
			{"of-65536", cut(k.data(3*65536), 65536)},
			{"uneven", [][]byte{k.data(1), k.data(126), k.data(2), k.data(70000), k.data(3)}},
			{"first-empty", [][]byte{nil, k.data(5)}},
			{"middle-empty", [][]byte{k.data(5), nil, nil, k.data(5)}},
			{"last-empty", [][]byte{k.data(5), nil}},
			{"all-empty", [][]byte{nil, nil, nil}},
		} {
			var whole []byte
			for _, p := range c.parts {
				whole = append(whole, p...)
			}
			cases = append(cases, orderly("rfc6455-5.4-"+k.name+"-fragments-"+c.id,
				fmt.Sprintf("A %s message of %d bytes in %d fragments. It must come back, in one frame or several.", k.name, len(whole), len(c.parts)),
				func(s *Session) {
					for _, f := range s.fragments(k.op, c.parts...) {
						s.Send(f)
					}
					s.ExpectMessage(ws.OpCode(k.op), whole)
				}))
		}
		cases = append(
			cases,
			orderly("rfc6455-5.4-"+k.name+"-fragments-chopped", "A "+k.name+" message in ten fragments, byte by byte. It must come back.", func(s *Session) {
				for _, f := range s.fragments(k.op, cut(k.data(100), 10)...) {
					s.SendChopped(f, 1)
				}
				s.ExpectMessage(ws.OpCode(k.op), k.data(100))
			}),
			orderly("rfc6455-5.4-"+k.name+"-fragments-one-write", "A "+k.name+" message in ten fragments, in one write. It must come back.", func(s *Session) {
				var b []byte
				for _, f := range s.fragments(k.op, cut(k.data(100), 10)...) {
					b = append(b, f...)
				}
				s.Send(b)
				s.ExpectMessage(ws.OpCode(k.op), k.data(100))
			}),
		)
	}
	cases = append(cases, orderly("rfc6455-5.4-fragmented-messages-in-turn", "Fragmented and whole messages in turn. Each must come back as what it was.", func(s *Session) {
		for i := range 10 {
			for _, k := range kinds {
				for _, f := range s.fragments(k.op, k.data(i), k.data(2*i)) {
					s.Send(f)
				}
				s.ExpectMessage(ws.OpCode(k.op), append(k.data(i), k.data(2*i)...))
				s.echo(k.op, k.data(i))
			}
		}
	}))
	return append(append(cases, interleavedCases()...), sequenceCases()...)
}

// interleavedCases: "Control frames MAY be injected in the middle of a fragmented message."
func interleavedCases() []Case {
	var cases []Case
	for _, n := range []int{0, 5, 125} {
		cases = append(
			cases,
			Case{
				ID:       fmt.Sprintf("rfc6455-5.4-ping-%d-between-fragments", n),
				Sentence: fmt.Sprintf("A ping of %d bytes between two fragments. Its pong must come before the message is complete, and then the message.", n),
				Run: func(s *Session) {
					s.Open()
					f := s.fragments(text, []byte("Hel"), []byte("lo"))
					s.Send(f[0])
					s.Send(s.Frame(fin|ping, letters(n)))
					s.pongBefore(f[1], letters(n))
					s.ExpectMessage(ws.OpText, []byte("Hello"))
					s.Finish()
				},
			},
			orderly(fmt.Sprintf("rfc6455-5.4-pong-%d-between-fragments", n),
				fmt.Sprintf("A pong of %d bytes, which nobody asked for, between two fragments. The message must come back.", n),
				func(s *Session) {
					f := s.fragments(binaryOp, []byte("Hel"), []byte("lo"))
					s.Send(f[0])
					s.Send(s.Frame(fin|pong, letters(n)))
					s.Send(f[1])
					s.ExpectMessage(ws.OpBinary, []byte("Hello"))
				}),
		)
	}
	return append(
		cases,
		orderly("rfc6455-5.4-pings-between-all-fragments", "Ten fragments with a ping between each two. Each pong must come, and the message.", func(s *Session) {
			for i, f := range s.fragments(text, cut(letters(100), 10)...) {
				if i > 0 {
					p := fmt.Appendf(nil, "ping %d", i)
					s.Send(s.Frame(fin|ping, p))
					s.ExpectPong(p)
				}
				s.Send(f)
			}
			s.ExpectMessage(ws.OpText, letters(100))
		}),
		orderly("rfc6455-5.4-pings-between-all-fragments-one-write", "The same in one write. The pongs must come in order, at least the last one (§5.5.3), and the message.", func(s *Session) {
			var b []byte
			for i, f := range s.fragments(text, cut(letters(100), 10)...) {
				if i > 0 {
					b = append(b, s.Frame(fin|ping, fmt.Appendf(nil, "ping %d", i))...)
				}
				b = append(b, f...)
			}
			s.Send(b)
			s.ExpectMessage(ws.OpText, letters(100))
			s.lastPong("ping ", 1, 9)
		}),
		orderly("rfc6455-5.4-ping-chopped-between-fragments", "A ping between two fragments, everything byte by byte. The pong must come, and the message.", func(s *Session) {
			f := s.fragments(text, []byte("Hel"), []byte("lo"))
			s.SendChopped(f[0], 1)
			s.SendChopped(s.Frame(fin|ping, []byte("between")), 1)
			s.ExpectPong([]byte("between"))
			s.SendChopped(f[1], 1)
			s.ExpectMessage(ws.OpText, []byte("Hello"))
		}),
	)
}

// pongBefore waits for a pong that must come "as soon as is practical" (§5.5.2), and then sends rest. A pong that comes
// only after rest is late.
func (s *Session) pongBefore(rest, payload []byte) {
	late := true
	for wait := s.opts.Timeout / 2; ; {
		p, a := s.next(wait)
		if a == silent {
			break
		}
		if a == arrived && p.Op.IsData() {
			s.aside = append(s.aside, p)
			continue
		}
		if a == arrived && p.Op == ws.OpPong {
			s.pongs = append(s.pongs, p.Data)
			late = false
			break
		}
		s.Fail("no pong came")
	}
	s.Send(rest)
	s.ExpectPong(payload)
	if late {
		s.NonStrict("the pong came only when the message was complete (RFC 6455 §5.5.2: as soon as is practical)")
	}
}

// lastPong waits for the pong to the last of several pings, prefix with the numbers from first to last. Those before it
// may be left out (§5.5.3), but not come in another order.
func (s *Session) lastPong(prefix string, first, last int) {
	for next := first; next <= last; {
		var got []byte
		if len(s.pongs) > 0 {
			got, s.pongs = s.pongs[0], s.pongs[1:]
		} else {
			p, a := s.next(s.opts.Timeout)
			if a != arrived || p.Op != ws.OpPong {
				s.Fail("the pong with \"%s%d\" did not come", prefix, last)
			}
			got = p.Data
		}
		n := next
		for n <= last && string(got) != fmt.Sprintf("%s%d", prefix, n) {
			n++
		}
		if n > last {
			s.Fail("a pong came with %s, which is not the payload of a ping that still waits", excerpt(got))
		}
		if n > next {
			s.Remark("pongs to pings before %q were left out", got)
		}
		next = n + 1
	}
}

// sequenceCases: frames of messages in an order that makes no sense.
func sequenceCases() []Case {
	f := func(first byte, payload string) func(*Session) []byte {
		return func(s *Session) []byte { return s.Frame(first, []byte(payload)) }
	}
	join := func(parts ...func(*Session) []byte) func(*Session) []byte {
		return func(s *Session) (b []byte) {
			for _, p := range parts {
				b = append(b, p(s)...)
			}
			return b
		}
	}
	cases := []Case{
		violation("rfc6455-5.4-continuation-first", "A continuation frame with FIN, and no message to continue.", f(fin|continuation, "Hello"), 1002),
		violation("rfc6455-5.4-continuation-first-empty", "An empty continuation frame with FIN, and no message to continue.", f(fin|continuation, ""), 1002),
		violation("rfc6455-5.4-continuation-first-no-fin", "A continuation frame without FIN, and no message to continue.", f(continuation, "Hello"), 1002),
		violation("rfc6455-5.4-continuation-then-text", "A continuation frame without FIN, then a text frame.", join(f(continuation, "Hel"), f(fin|text, "lo")), 1002),
	}
	for _, c := range []struct {
		id, what string
		b        func(*Session) []byte
	}{
		{"text-in-text", "A text frame inside a fragmented text message.", join(f(text, "Hel"), f(fin|text, "lo"))},
		{"binary-in-text", "A binary frame inside a fragmented text message.", join(f(text, "Hel"), f(fin|binaryOp, "lo"))},
		{"text-in-binary", "A text frame inside a fragmented binary message.", join(f(binaryOp, "Hel"), f(fin|text, "lo"))},
		{"binary-in-binary", "A binary frame inside a fragmented binary message.", join(f(binaryOp, "Hel"), f(fin|binaryOp, "lo"))},
		{"text-no-fin-in-text", "The first fragment of a text message inside a fragmented text message.", join(f(text, "Hel"), f(text, "lo"))},
		{"binary-no-fin-in-text", "The first fragment of a binary message inside a fragmented text message.", join(f(text, "Hel"), f(binaryOp, "lo"))},
		{"empty-text-in-empty-text", "An empty text frame inside a message that began with an empty fragment.", join(f(text, ""), f(fin|text, ""))},
		{"text-after-two-fragments", "A text frame after two fragments of a message.", join(f(text, "H"), f(continuation, "el"), f(fin|text, "lo"))},
		{"text-after-ping-in-text", "A text frame inside a fragmented message, behind a ping.", join(f(text, "Hel"), f(fin|ping, ""), f(fin|text, "lo"))},
	} {
		cases = append(cases, violation("rfc6455-5.4-"+c.id, c.what, c.b, 1002))
	}
	for _, c := range []struct{ id, what string }{{"fin", "with FIN"}, {"no-fin", "without FIN"}} {
		cases = append(cases, Case{
			ID:       "rfc6455-5.4-continuation-after-message-" + c.id,
			Sentence: "A message in two fragments, which must come back, and then a continuation frame " + c.what + ". The peer must fail the connection, with a Close 1002.",
			Run: func(s *Session) {
				s.Open()
				for _, f := range s.fragments(text, []byte("Hel"), []byte("lo")) {
					s.Send(f)
				}
				s.ExpectMessage(ws.OpText, []byte("Hello"))
				first := byte(continuation)
				if c.id == "fin" {
					first |= fin
				}
				s.Send(s.Frame(first, []byte("more")))
				s.ExpectFail(1002)
			},
		})
	}
	return cases
}
