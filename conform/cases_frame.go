package conform

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"strings"
	"time"

	"github.com/gobwas/ws"
)

// letters are n bytes of text, noise n bytes of no text; both are the same each time.
func letters(n int) []byte {
	return bytes.Repeat([]byte("The quick brown fox jumps over the lazy dog; "), n/45+1)[:n]
}

func noise(n int) []byte {
	b := make([]byte, n)
	x := uint32(2463534242)
	for i := range b {
		x ^= x << 13
		x ^= x >> 17
		x ^= x << 5
		b[i] = byte(x >> 24)
	}
	return b
}

// echo sends one message in one frame; it must come back.
func (s *Session) echo(op byte, payload []byte) {
	s.Send(s.Frame(fin|op, payload))
	s.ExpectMessage(ws.OpCode(op), payload)
}

// orderly is a case that opens, does steps, and closes.
func orderly(id, sentence string, steps func(*Session)) Case {
	return Case{ID: id, Sentence: sentence, Run: func(s *Session) {
		s.Open()
		steps(s)
		s.Finish()
	}}
}

// violation is a case in which bytes must make the peer fail the connection, with one of the codes.
func violation(id, what string, b func(*Session) []byte, codes ...int) Case {
	return Case{
		ID: id, Sentence: what + " The peer must fail the connection, with a Close " + orList(codes) + ".",
		Run: func(s *Session) {
			s.Open()
			s.Send(b(s))
			s.ExpectFail(codes...)
		},
	}
}

// frameCases are the cases of §5.1 to §5.3: every opcode, reserved bits, masks, lengths.
func frameCases() []Case {
	cases := lengthCases()
	cases = append(cases, longFormCases()...)
	cases = append(cases, opcodeCases()...)
	cases = append(cases, reservedBitCases()...)
	cases = append(cases, maskCases()...)
	return append(cases, segmentCases()...)
}

// lengthCases: messages at each boundary of the three length forms.
func lengthCases() []Case {
	var cases []Case
	for _, n := range []int{0, 1, 2, 3, 4, 7, 8, 124, 125, 126, 127, 128, 255, 256, 1023, 4096, 65534, 65535, 65536, 65537, 131072} {
		cases = append(
			cases,
			orderly(fmt.Sprintf("rfc6455-5.6-text-%d", n), fmt.Sprintf("A text message of %d bytes in one frame. It must come back.", n),
				func(s *Session) { s.echo(text, letters(n)) }),
			orderly(fmt.Sprintf("rfc6455-5.6-binary-%d", n), fmt.Sprintf("A binary message of %d bytes in one frame. It must come back.", n),
				func(s *Session) { s.echo(binaryOp, noise(n)) }),
		)
	}
	return append(
		cases,
		orderly("rfc6455-5.6-binary-all-bytes", "A binary message with each byte once, and one with invalid UTF-8. They must come back.", func(s *Session) {
			all := make([]byte, 256)
			for i := range all {
				all[i] = byte(i)
			}
			s.echo(binaryOp, all)
			s.echo(binaryOp, []byte("\xff\xfe\xc0\x80\xed\xa0\x80"))
		}),
		orderly("rfc6455-5.6-kinds-in-turn", "Text and binary messages in turn. Each must come back as what it was.", func(s *Session) {
			for i := range 20 {
				s.echo(text, letters(i*7))
				s.echo(binaryOp, noise(i*7))
			}
		}),
		orderly("rfc6455-5.6-hundred-at-once", "A hundred messages in one write. They must come back in order.", func(s *Session) {
			var b []byte
			for i := range 100 {
				b = append(b, s.Frame(fin|text, fmt.Appendf(nil, "message %d", i))...)
			}
			s.Send(b)
			for i := range 100 {
				s.ExpectMessage(ws.OpText, fmt.Appendf(nil, "message %d", i))
			}
		}),
		orderly("rfc6455-5.6-empty-at-once", "Ten empty messages, text and binary, in one write. They must come back in order.", func(s *Session) {
			var b []byte
			for range 5 {
				b = append(append(b, s.Frame(fin|text, nil)...), s.Frame(fin|binaryOp, nil)...)
			}
			s.Send(b)
			for range 5 {
				s.ExpectMessage(ws.OpText, nil)
				s.ExpectMessage(ws.OpBinary, nil)
			}
		}),
	)
}

// longFormCases: lengths that are not minimal, that have the top bit, and that are enormous (§5.2).
func longFormCases() []Case {
	var cases []Case
	for _, op := range []struct {
		name string
		code byte
	}{{"text", text}, {"binary", binaryOp}} {
		for _, n := range []int{0, 1, 125} {
			cases = append(cases, notMinimal(fmt.Sprintf("%s-%d-in-16-bits", op.name, n), n, []byte{fin | op.code, 126, 0, byte(n)}))
		}
		for _, n := range []int{0, 1, 125, 126, 65535} {
			head := binary.BigEndian.AppendUint64([]byte{fin | op.code, 127}, uint64(n))
			cases = append(cases, notMinimal(fmt.Sprintf("%s-%d-in-64-bits", op.name, n), n, head))
		}
	}
	for _, c := range []struct {
		id   string
		head []byte
	}{
		{"8000000000000000", []byte{fin | binaryOp, 127, 0x80, 0, 0, 0, 0, 0, 0, 0}},
		{"8000000000000005", []byte{fin | binaryOp, 127, 0x80, 0, 0, 0, 0, 0, 0, 5}},
		{"ffffffffffffffff", []byte{fin | binaryOp, 127, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff}},
		{"8000000000010000-fragment", []byte{binaryOp, 127, 0x80, 0, 0, 0, 0, 1, 0, 0}},
	} {
		cases = append(cases, Case{
			ID: "rfc6455-5.2-length-" + c.id,
			Sentence: "A 64-bit length whose most significant bit is 1, " + c.id[:16] + ", and 5 bytes. The peer must fail the connection, " +
				"with a Close 1002 or 1009; a server must go on serving.",
			Run: func(s *Session) {
				s.Open()
				s.Send(s.Raw(c.head, []byte("Hello")))
				s.ExpectFail(1002, 1009)
				if s.client {
					s.Open() // a length that is taken for a negative one has ended whole processes
					s.works()
				}
			},
		})
	}
	for _, c := range []struct {
		id string
		n  uint64
	}{
		{"2147483647", 1<<31 - 1},
		{"2147483648", 1 << 31},
		{"4294967295", 1<<32 - 1},
		{"4294967296", 1 << 32},
		{"1099511627776", 1 << 40},
		{"9223372036854775807", 1<<63 - 1},
	} {
		cases = append(cases, enormous(c.id, c.n))
	}
	return cases
}

// notMinimal is a case of a length that could be shorter.
func notMinimal(id string, n int, head []byte) Case {
	return Case{
		ID: "rfc6455-5.2-not-minimal-" + id,
		Sentence: fmt.Sprintf("A length of %d in %d bits, though \"the minimal number of bytes MUST be used\". The peer should fail the connection, with a Close 1002.",
			n, 8*(len(head)-2)),
		Run: func(s *Session) {
			s.Open()
			s.Send(s.Raw(head, letters(n)))
			if s.comesWhole() {
				// The RFC forbids to send it, and does not say what who gets it must do.
				s.NextMessage()
				s.NonStrict("the message was accepted")
				s.Finish()
				return
			}
			s.ExpectFail(1002)
		},
	}
}

// enormous is a case of a header that announces more than anyone will send.
func enormous(id string, n uint64) Case {
	return Case{
		ID:       "rfc6455-10.4-announced-" + id,
		Sentence: fmt.Sprintf("A frame that announces %d bytes, and 1000 of them. The peer may close with 1009 or wait for more; it must go on serving.", n),
		Run: func(s *Session) {
			s.Open()
			s.Send(s.Raw(binary.BigEndian.AppendUint64([]byte{fin | binaryOp, 127}, n), noise(1000)))
			if s.client {
				// Whoever serves this connection has had time to fall over when another one works.
				s.another(func() { s.Open(); s.works() })
			}
			// A peer that waits for more cannot be asked whether it does: mid-frame there is no room for a ping.
			switch s.awaitFail(min(s.opts.Timeout/2, 250*time.Millisecond), nil) {
			case arrived:
				s.judgeCode([]int{1009})
			case silent:
				s.Remark("the peer waits for more")
				s.Reset()
			case over:
				s.NonStrict("%s without a Close", endWords(s.ended))
			}
		},
	}
}

// opcodeCases: the reserved opcodes, of which nothing is known but that they are unknown.
func opcodeCases() []Case {
	var cases []Case
	for _, op := range []byte{3, 4, 5, 6, 7, 0xb, 0xc, 0xd, 0xe, 0xf} {
		id := fmt.Sprintf("rfc6455-5.2-opcode-%x", op)
		what := fmt.Sprintf("A frame with the reserved opcode %#x", op)
		cases = append(
			cases,
			violation(id, what+" and no payload.", func(s *Session) []byte { return s.Frame(fin|op, nil) }, 1002),
			violation(id+"-payload", what+" and 5 bytes of payload.", func(s *Session) []byte { return s.Frame(fin|op, []byte("Hello")) }, 1002),
			violation(id+"-no-fin", what+" without FIN.", func(s *Session) []byte { return s.Frame(op, []byte("Hello")) }, 1002),
			violation(id+"-in-message", what+" between the fragments of a message.",
				func(s *Session) []byte { return append(s.Frame(text, []byte("Hel")), s.Frame(fin|op, nil)...) }, 1002),
		)
	}
	return append(
		cases,
		Case{
			ID:       "rfc6455-5.2-opcode-after-message",
			Sentence: "A message, which must come back, and then a frame with a reserved opcode, for which the peer must fail the connection.",
			Run: func(s *Session) {
				s.Open()
				s.Send(append(s.Frame(fin|text, []byte("Hello")), s.Frame(fin|3, nil)...))
				s.ExpectMessage(ws.OpText, []byte("Hello"))
				s.ExpectFail(1002)
			},
		},
		Case{
			ID: "rfc6455-5.2-http-on-open-connection", Peer: Server,
			Sentence: "A second handshake on an open connection; its first byte, G, is a header with RSV1 and a reserved opcode. The peer must fail the connection, with a Close 1002.",
			Run: func(s *Session) {
				s.Open()
				s.Send(s.Head().Bytes())
				s.ExpectFail(1002)
			},
		},
	)
}

// reservedBitCases: RSV1, 2 and 3 "MUST be 0 unless an extension is negotiated"; here none is.
func reservedBitCases() []Case {
	var cases []Case
	for _, rsv := range []byte{rsv1, rsv2, rsv3, rsv1 | rsv2, rsv1 | rsv3, rsv2 | rsv3, rsv1 | rsv2 | rsv3} {
		name := strings.TrimLeft(fmt.Sprintf("%03b", rsv>>4), "")
		for _, f := range []struct {
			id, what string
			b        func(*Session) []byte
		}{
			{"text", "text frame", func(s *Session) []byte { return s.Frame(fin|rsv|text, []byte("Hello")) }},
			{"binary", "binary frame", func(s *Session) []byte { return s.Frame(fin|rsv|binaryOp, []byte("Hello")) }},
			{"first-fragment", "first fragment", func(s *Session) []byte { return s.Frame(rsv|text, []byte("Hel")) }},
			{"continuation", "continuation frame", func(s *Session) []byte {
				return append(s.Frame(text, []byte("Hel")), s.Frame(fin|rsv|continuation, []byte("lo"))...)
			}},
			{"ping", "ping", func(s *Session) []byte { return s.Frame(fin|rsv|ping, []byte("Hello")) }},
			{"pong", "pong", func(s *Session) []byte { return s.Frame(fin|rsv|pong, []byte("Hello")) }},
			{"close", "Close frame", func(s *Session) []byte { return s.Frame(fin|rsv|closing, CloseBody(1000, "")) }},
		} {
			cases = append(cases, violation("rfc6455-5.2-rsv-"+name+"-"+f.id, "A "+f.what+" with RSV1 to RSV3 = "+name+".", f.b, 1002))
		}
	}
	return cases
}

// maskCases: who masks (§5.1), and with which keys (§5.3).
func maskCases() []Case {
	var cases []Case
	wrong := func(s *Session, head, payload []byte) []byte { return s.mask(head, payload, !s.client, s.Key()) }
	for _, f := range []struct {
		id, what string
		b        func(*Session) []byte
	}{
		{"text", "A text frame", func(s *Session) []byte { return wrong(s, []byte{fin | text, 5}, []byte("Hello")) }},
		{"text-empty", "An empty text frame", func(s *Session) []byte { return wrong(s, []byte{fin | text, 0}, nil) }},
		{"binary-126", "A binary frame of 126 bytes", func(s *Session) []byte { return wrong(s, []byte{fin | binaryOp, 126, 0, 126}, noise(126)) }},
		{"binary-65536", "A binary frame of 65536 bytes", func(s *Session) []byte {
			return wrong(s, []byte{fin | binaryOp, 127, 0, 0, 0, 0, 0, 1, 0, 0}, noise(65536))
		}},
		{"continuation", "A continuation frame", func(s *Session) []byte {
			return append(s.Frame(text, []byte("Hel")), wrong(s, []byte{fin | continuation, 2}, []byte("lo"))...)
		}},
		{"ping", "A ping", func(s *Session) []byte { return wrong(s, []byte{fin | ping, 5}, []byte("Hello")) }},
		{"ping-empty", "An empty ping", func(s *Session) []byte { return wrong(s, []byte{fin | ping, 0}, nil) }},
		{"pong", "A pong", func(s *Session) []byte { return wrong(s, []byte{fin | pong, 5}, []byte("Hello")) }},
		{"close", "A Close", func(s *Session) []byte { return wrong(s, []byte{fin | closing, 2}, CloseBody(1000, "")) }},
		{"close-empty", "An empty Close", func(s *Session) []byte { return wrong(s, []byte{fin | closing, 0}, nil) }},
	} {
		cases = append(cases, violation("rfc6455-5.1-masking-"+f.id,
			f.what+" masked the wrong way round: not at all to a server, or with a key to a client.", f.b, 1002))
	}
	for _, k := range []struct {
		id  string
		key [4]byte
	}{
		{"00000000", [4]byte{}},
		{"ffffffff", [4]byte{255, 255, 255, 255}},
		{"00000001", [4]byte{0, 0, 0, 1}},
		{"80000000", [4]byte{0x80, 0, 0, 0}},
		{"54686520", [4]byte{'T', 'h', 'e', ' '}},
	} {
		c := orderly("rfc6455-5.3-key-"+k.id, "Messages of 0 to 40 bytes with the masking key "+k.id+". They must come back.", func(s *Session) {
			for n := range 41 {
				s.Send(s.mask([]byte{fin | text, byte(n)}, letters(n), true, k.key))
				s.ExpectMessage(ws.OpText, letters(n))
			}
		})
		c.Peer = Server
		cases = append(cases, c)
	}
	return append(cases, Case{
		ID: "rfc6455-5.3-keys-of-the-client", Peer: Client,
		Sentence: "Twenty messages. The client must mask each of its frames with a fresh key (§5.3, §10.3).",
		Run: func(s *Session) {
			s.Open()
			seen := map[[4]byte]bool{}
			frames := 0
			for i := range 20 {
				s.Send(s.Frame(fin|text, letters(i+1)))
				for p := s.mustCome("the echo"); ; p = s.mustCome("the echo") {
					if p.Start {
						seen[p.Header.Mask] = true
						frames++
					}
					if p.Last {
						break
					}
				}
			}
			switch {
			case len(seen) == 1:
				s.Fail("all %d frames have the same masking key", frames)
			case len(seen) < frames:
				s.NonStrict("%d frames have only %d masking keys", frames, len(seen))
			}
			s.Finish()
		},
	})
}

// segmentCases: frames do not care how TCP cuts them.
func segmentCases() []Case {
	stream := func(s *Session) []byte {
		var b []byte
		for _, n := range []int{0, 1, 125, 126, 300} {
			b = append(b, s.Frame(fin|text, letters(n))...)
			b = append(b, s.Frame(fin|ping, letters(n%126))...)
		}
		return b
	}
	back := func(s *Session) {
		for _, n := range []int{0, 1, 125, 126, 300} {
			s.ExpectMessage(ws.OpText, letters(n))
			s.ExpectPong(letters(n % 126))
		}
	}
	var cases []Case
	for _, n := range []int{1, 2, 3, 5, 6, 7, 13, 64, 127} {
		cases = append(cases, orderly(fmt.Sprintf("rfc6455-5.2-segments-of-%d", n),
			fmt.Sprintf("Messages and pings cut into segments of %d bytes. They must be answered as if they were not.", n),
			func(s *Session) { s.SendChopped(stream(s), n); back(s) }))
	}
	cases = append(cases, orderly("rfc6455-5.2-segments-of-all", "Messages and pings in one segment. All must be answered, in order.",
		func(s *Session) { s.Send(stream(s)); back(s) }))
	for _, n := range []int{5, 200, 70000} {
		cases = append(cases, orderly(fmt.Sprintf("rfc6455-5.2-header-cut-length-%d", n),
			fmt.Sprintf("Frames of %d bytes, cut once at each position of the header. They must come back.", n),
			func(s *Session) {
				for i := 1; i < 15; i++ {
					f := s.Frame(fin|binaryOp, noise(n))
					if i >= len(f) {
						break
					}
					s.Send(f[:i])
					s.Send(f[i:])
					s.ExpectMessage(ws.OpBinary, noise(n))
				}
			}))
	}
	for _, n := range []int{5, 200, 70000} {
		cases = append(cases, Case{
			ID: fmt.Sprintf("rfc6455-7.1.5-tcp-ends-in-header-length-%d", n), Peer: Server,
			Sentence: fmt.Sprintf("TCP ends inside a frame of %d bytes, at each position of its header and one byte behind, on many connections. The peer should end TCP too, and echo nothing.", n),
			Run: func(s *Session) {
				for i := 1; i <= len(s.Frame(fin|binaryOp, noise(n)))-n+1; i++ {
					s.Open()
					s.Send(s.Frame(fin|binaryOp, noise(n))[:i])
					s.Shut()
					s.gone()
				}
			},
		})
	}
	return cases
}

// gone waits for the end of TCP after we have ended our half of it. Whatever Close comes before is no matter (§7.1.5:
// 1006 is never sent); a whole message is.
func (s *Session) gone() {
	s.sentClose = true // it could not be sent
	switch s.awaitFail(s.opts.Timeout, nil) {
	case silent:
		// No clause says when, but a half that nobody will write to is of no use.
		s.NonStrict("TCP was not ended within %v after we did", s.opts.Timeout)
	case arrived:
		s.expectEnd(false)
	}
}
