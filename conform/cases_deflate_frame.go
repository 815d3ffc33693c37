package conform

import (
	"bytes"
	"fmt"
	"strings"

	"github.com/gobwas/ws"
)

// deflateFrameCases are the cases of RFC 7692 §6: RSV1, fragments, what is and is not compressed, and what holds for the
// text of a message that was compressed.
func deflateFrameCases() []Case {
	cases := append(rsv1Cases(), plainCases()...)
	cases = append(cases, compressedFragmentCases()...)
	cases = append(cases, compressedTextCases()...)
	return append(cases, compressedLimitCases()...)
}

// hello is the first example of §7.2.3.1.
const hello = "\xf2\x48\xcd\xc9\xc9\x07\x00"

// rsv1Cases: where RSV1 may not be.
func rsv1Cases() []Case {
	f := func(first byte, payload string) func(*Session) []byte {
		return func(s *Session) []byte { return s.Frame(first, []byte(payload)) }
	}
	two := func(a, b func(*Session) []byte) func(*Session) []byte {
		return func(s *Session) []byte { return append(a(s), b(s)...) }
	}
	cases := []Case{
		deflateFault("6.1-rsv1-continuation", "A compressed message in two fragments, RSV1 on both.", two(f(rsv1|text, hello[:3]), f(fin|rsv1|continuation, hello[3:])), 1002),
		deflateFault("6.1-rsv1-continuation-only", "A message in two fragments, RSV1 on the second only.", two(f(text, "Hel"), f(fin|rsv1|continuation, "lo")), 1002),
		deflateFault("6.1-rsv1-continuation-middle", "A compressed message of which the second fragment has RSV1 and no FIN.", two(f(rsv1|binaryOp, hello[:3]), f(rsv1|continuation, hello[3:5])), 1002),
		deflateFault("6.1-rsv1-continuation-empty", "An empty continuation with RSV1.", two(f(rsv1|text, hello), f(fin|rsv1|continuation, "")), 1002),
		deflateFault("6.1-rsv1-continuation-of-nothing", "A continuation with RSV1, and no message to continue.", f(fin|rsv1|continuation, hello), 1002),
		deflateFault("6.1-rsv1-ping", "A ping with RSV1.", f(fin|rsv1|ping, "Hello"), 1002),
		deflateFault("6.1-rsv1-ping-empty", "An empty ping with RSV1.", f(fin|rsv1|ping, ""), 1002),
		deflateFault("6.1-rsv1-ping-compressed", "A ping with RSV1 and a compressed payload.", f(fin|rsv1|ping, hello), 1002),
		deflateFault("6.1-rsv1-pong", "A pong with RSV1.", f(fin|rsv1|pong, "Hello"), 1002),
		deflateFault("6.1-rsv1-close", "A Close with RSV1.", f(fin|rsv1|closing, "\x03\xe8"), 1002),
		deflateFault("6.1-rsv1-ping-between", "A ping with RSV1 between the fragments of a compressed message.", two(f(rsv1|text, hello[:3]), f(fin|rsv1|ping, "")), 1002),
		deflateFault("6.1-rsv1-text-in-text", "A compressed text inside a compressed text in fragments.", two(f(rsv1|text, hello[:3]), f(fin|rsv1|text, hello)), 1002),
		deflateFault("6.1-rsv2", "A text with RSV2, which nothing has negotiated.", f(fin|rsv2|text, "Hello"), 1002),
		deflateFault("6.1-rsv3", "A text with RSV3, which nothing has negotiated.", f(fin|rsv3|text, "Hello"), 1002),
		deflateFault("6.1-rsv1-and-rsv2", "A compressed text with RSV2 too.", f(fin|rsv1|rsv2|text, hello), 1002),
		deflateFault("6.1-rsv1-and-rsv3", "A compressed text with RSV3 too.", f(fin|rsv1|rsv3|text, hello), 1002),
		deflateFault("6.1-rsv1-reserved-opcode", "A frame with RSV1 and the reserved opcode 3.", f(fin|rsv1|3, hello), 1002),
	}
	for _, c := range []struct {
		name string
		op   byte
	}{{"text", text}, {"binary", binaryOp}} {
		cases = append(cases, Case{
			ID:       "rfc7692-6-not-negotiated-" + c.name,
			Sentence: "A compressed " + c.name + " message (RSV1) on a connection on which no extension was agreed. The peer must fail it, with a Close 1002.",
			Run: func(s *Session) {
				if s.client {
					s.deflates()
				}
				s.Open()
				s.Send(s.Frame(fin|rsv1|c.op, []byte(hello)))
				s.ExpectFail(1002)
			},
		})
	}
	return cases
}

// plainCases: an endpoint "MAY" compress; messages without RSV1 are not compressed (§6).
func plainCases() []Case {
	return []Case{
		deflateCase("6-uncompressed", "Messages without RSV1, though compression was agreed. They must come back.", wish{}, func(s *Session) {
			for _, n := range []int{0, 1, 125, 126, 1000, 70000} {
				s.echo(text, letters(n))
				s.echo(binaryOp, noise(n))
			}
		}),
		deflateCase("6-uncompressed-fragments", "A message without RSV1 in fragments, though compression was agreed. It must come back.", wish{}, func(s *Session) {
			for _, f := range s.fragments(text, cut(letters(100), 10)...) {
				s.Send(f)
			}
			s.ExpectMessage(ws.OpText, letters(100))
		}),
		deflateCase("6-uncompressed-that-looks-compressed", "A binary message without RSV1 that would be \"Hello\" if it were inflated. It must come back as it is.", wish{}, func(s *Session) {
			s.echo(binaryOp, []byte(hello))
		}),
		deflateCase("6-in-turn", "Compressed and uncompressed messages in turn, text and binary. All must come back.", wish{}, func(s *Session) {
			var d stream
			for i := range 10 {
				s.echoed(text, d.fixed(letters(i*9)))
				s.echo(text, letters(i*11))
				s.echoed(binaryOp, d.stored(noise(i*13), false))
				s.echo(binaryOp, noise(i*17))
			}
		}),
		deflateCase("6-reply-compressed", "2 KiB of text, compressed. It must come back; a remark says how large.", wish{}, func(s *Session) {
			s.echoed(text, new(stream).squeeze(letters(2048), s.pact.ourBits))
			if s.pact.last == nil {
				s.Remark("the reply was not compressed")
			} else {
				s.Remark("the reply has %d bytes", len(s.pact.last))
			}
		}),
		deflateCase("6-incompressible", "Noise in stored blocks, which is longer compressed than it was. It must come back.", wish{}, func(s *Session) {
			var d stream
			for _, n := range []int{1, 2, 3, 100, 1000, 65535} {
				s.echoed(binaryOp, d.stored(noise(n), false))
			}
		}),
		deflateCase("6-hundred-at-once", "A hundred compressed messages in one write. They must come back in order.", wish{}, func(s *Session) {
			var b []byte
			for i := range 100 {
				wire, _ := new(stream).fixed(fmt.Sprintf("message %d", i)).message()
				b = append(b, s.Frame(fin|rsv1|text, wire)...)
			}
			s.Send(b)
			for i := range 100 {
				s.ExpectMessage(ws.OpText, fmt.Appendf(nil, "message %d", i))
			}
		}),
		deflateCase("6-close-uncompressed", "A compressed message, and the closing handshake, in which nothing is compressed.", wish{}, func(s *Session) {
			s.echoed(text, new(stream).fixed("the last"))
		}),
		deflateCase("6-ping-uncompressed", "Pings of 0, 5 and 125 bytes, though compression was agreed. Their pongs must come, not compressed.", wish{}, func(s *Session) {
			for _, n := range []int{0, 5, 125} {
				s.Send(s.Frame(fin|ping, letters(n)))
				s.ExpectPong(letters(n))
			}
		}),
	}
}

// compressedFragmentCases: the bytes of a compressed message may be cut anywhere (§6.1).
func compressedFragmentCases() []Case {
	kinds := []struct {
		id, what string
		wire     func() ([]byte, []byte)
	}{
		{"fixed", "a fixed block with a match", func() ([]byte, []byte) { return new(stream).fixed("Hello, hello, ", match{7, 7}).message() }},
		{"stored", "two stored blocks", func() ([]byte, []byte) {
			return new(stream).stored([]byte("Hel"), false).stored([]byte("lo"), false).message()
		}},
		{"dynamic", "a dynamic block", func() ([]byte, []byte) {
			d := new(stream).dynamic(lens(258, 'a', 1, endOfBlock, 2, 257, 2), []int{1}).word(0, 1).word(3, 2).word(0, 1).word(2, 2)
			d.text = []byte("aaaa")
			return d.message()
		}},
		{"final", "a block with BFINAL and one behind it", func() ([]byte, []byte) { return new(stream).final("Hello").fixed(" again").message() }},
		{"text", "characters of two to four bytes in a fixed block", func() ([]byte, []byte) { return new(stream).fixed("grün € 😀").message() }},
	}
	var cases []Case
	for _, k := range kinds {
		cases = append(
			cases,
			deflateCase("6.1-fragments-"+k.id, "A message of "+k.what+", cut between two fragments at each byte, and into fragments of one byte. It must come back each time.", wish{}, func(s *Session) {
				wire, want := k.wire()
				for i := range len(wire) + 1 {
					s.Send(bytes.Join(s.fragments(rsv1|text, wire[:i], wire[i:]), nil))
					s.ExpectMessage(ws.OpText, want)
				}
				s.Send(bytes.Join(s.fragments(rsv1|text, cut(wire, 1)...), nil))
				s.ExpectMessage(ws.OpText, want)
			}),
			deflateCase("6.1-segments-"+k.id, "A message of "+k.what+", in one frame, in TCP segments of one byte. It must come back.", wish{}, func(s *Session) {
				wire, want := k.wire()
				s.SendChopped(s.Frame(fin|rsv1|text, wire), 1)
				s.ExpectMessage(ws.OpText, want)
			}),
		)
	}
	return append(
		cases,
		deflateCase("6.1-fragments-empty", "A compressed message between empty fragments. It must come back.", wish{}, func(s *Session) {
			for _, f := range s.fragments(rsv1|text, nil, []byte(hello[:3]), nil, nil, []byte(hello[3:]), nil) {
				s.Send(f)
			}
			s.ExpectMessage(ws.OpText, []byte("Hello"))
		}),
		deflateCase("6.1-pings-between", "A compressed message in fragments of one byte, a ping between each two. Each pong must come, and the message.", wish{}, func(s *Session) {
			for i, f := range s.fragments(rsv1|text, cut([]byte(hello), 1)...) {
				if i > 0 {
					p := fmt.Appendf(nil, "ping %d", i)
					s.Send(s.Frame(fin|ping, p))
					s.ExpectPong(p)
				}
				s.Send(f)
			}
			s.ExpectMessage(ws.OpText, []byte("Hello"))
		}),
		deflateCase("6.1-ping-between", "A ping between two fragments of a compressed message. Its pong must come before the message is complete, and then the message.", wish{}, func(s *Session) {
			f := s.fragments(rsv1|text, []byte(hello[:3]), []byte(hello[3:]))
			s.Send(f[0])
			s.Send(s.Frame(fin|ping, []byte("between")))
			s.pongBefore(f[1], []byte("between"))
			s.ExpectMessage(ws.OpText, []byte("Hello"))
		}),
		deflateCase("6.1-fragments-large", "64 KiB of text, compressed, in fragments of 1, 7, 100 and 1000 bytes. They must come back.", wish{}, func(s *Session) {
			var d stream
			for _, n := range []int{1, 7, 100, 1000} {
				wire, want := d.squeeze(letters(64<<10), s.pact.ourBits).message()
				if s.pact.ourNoContext {
					d.forget()
				}
				s.Send(bytes.Join(s.fragments(rsv1|text, cut(wire, n)...), nil))
				s.ExpectMessage(ws.OpText, want)
			}
		}),
	)
}

// compressedTextCases: the text is checked after inflating (RFC 6455 §8.1, RFC 7692 §6.2).
func compressedTextCases() []Case {
	cases := []Case{
		deflateCase("6.2-text-valid", "Texts at each boundary of UTF-8, compressed. They must come back.", wish{}, func(s *Session) {
			var d stream
			for _, t := range []string{"\x00", "\x7f", "\u0080", "\u07ff", "\u0800", "\ud7ff", "\ue000", "\ufeff", "\uffff", "\U00010000", "\U0010ffff", "κόσμε"} {
				s.echoed(text, d.fixed(t))
			}
		}),
		deflateCase("6.2-text-character-over-blocks", "A character of four bytes, each in a block of its own. It must come back.", wish{}, func(s *Session) {
			s.echoed(text, new(stream).fixed("\xf0").stored([]byte{0x9f}, false).fixed("\x98").final("\x80"))
		}),
		deflateCase("6.2-text-character-from-a-match", "A character whose last bytes are a match. It must come back.", wish{}, func(s *Session) {
			s.echoed(text, new(stream).fixed("€uro \xe2", match{5, 7}))
		}),
		deflateCase("6.2-binary-not-text", "A binary message that is not UTF-8, compressed. It must come back.", wish{}, func(s *Session) {
			s.echoed(binaryOp, new(stream).fixed("\xff\xfe\xc0\x80\xed\xa0\x80"))
		}),
		deflateFault("6.2-text-made-by-a-match", "A compressed text in which a match repeats half a character.", func(s *Session) []byte {
			wire, _ := new(stream).fixed("€\xe2\x82\xac", match{4, 4}).message()
			return s.Frame(fin|rsv1|text, wire)
		}, 1007),
		deflateFault("6.2-text-over-two-messages", "A compressed text that ends inside a character, and a second that begins with the rest of it.", func(s *Session) []byte {
			a, _ := new(stream).fixed("gr\xc3").message()
			b, _ := new(stream).fixed("\xbcn").message()
			return append(s.Frame(fin|rsv1|text, a), s.Frame(fin|rsv1|text, b)...)
		}, 1007),
		deflateFault("6.2-text-far-in", "100 KiB of text, compressed, and a byte ff behind it.", func(s *Session) []byte {
			wire, _ := new(stream).squeeze(append(letters(100<<10), 0xff), 8).message()
			return s.Frame(fin|rsv1|text, wire)
		}, 1007),
	}
	for _, seq := range []string{"\x80", "\xc0\xaf", "\xe0\x9f\xbf", "\xf0\x8f\xbf\xbf", "\xed\xa0\x80", "\xf4\x90\x80\x80", "\xff", "\xc2A", "\xe1\x80A"} {
		name := strings.ReplaceAll(spaced([]byte(seq)), " ", "-")
		whole := []byte(string(before) + seq + "and more")
		wrong := firstWrong(whole)
		cases = append(
			cases,
			deflateFault("6.2-text-broken-"+name, "A compressed text that is not UTF-8 ("+spaced([]byte(seq))+").", func(s *Session) []byte {
				wire, _ := new(stream).fixed(whole).message()
				return s.Frame(fin|rsv1|text, wire)
			}, 1007),
			Case{
				ID: "rfc7692-6.2-text-broken-" + name + "-early",
				Sentence: "A compressed text that is not UTF-8 (" + spaced([]byte(seq)) + "): a fragment with a stored block up to its first wrong byte; the rest is held back. " +
					"The peer must fail the connection, with a Close 1007; it should do so before the rest comes.",
				Run: func(s *Session) {
					s.OpenDeflate(wish{})
					var d stream
					d.stored(whole[:wrong+1], false)
					first := len(d.wire)
					wire, _ := d.stored(whole[wrong+1:], false).message()
					s.Send(s.Frame(rsv1|text, wire[:first]))
					s.ExpectFailBefore(s.Frame(fin|continuation, wire[first:]), true, 1007)
				},
			},
		)
	}
	for _, seq := range []string{"\xc3", "\xe2\x82", "\xf0\x9f\x98"} {
		cases = append(cases, deflateFault("6.2-text-truncated-"+strings.ReplaceAll(spaced([]byte(seq)), " ", "-"),
			"A compressed text that ends inside a character ("+spaced([]byte(seq))+").", func(s *Session) []byte {
				wire, _ := new(stream).fixed(string(before) + seq).message()
				return s.Frame(fin|rsv1|text, wire)
			}, 1007))
	}
	return cases
}

// compressedLimitCases: large messages, and small ones that become large. Who has a limit for messages says so with 1009.
func compressedLimitCases() []Case {
	var cases []Case
	for _, k := range []struct {
		name string
		op   byte
		data func(int) []byte
	}{{"text", text, letters}, {"binary", binaryOp, noise}} {
		for _, kib := range []int{64, 256, 1024, 4096, 16384} {
			cases = append(cases, largeDeflated(fmt.Sprintf("%s-%dk", k.name, kib), fmt.Sprintf("A %s message of %d KiB, compressed, in one frame.", k.name, kib), k.op, 0,
				func() []byte { return k.data(kib << 10) }))
		}
		cases = append(
			cases,
			largeDeflated(k.name+"-1024k-fragments-of-100", "A "+k.name+" message of 1 MiB, compressed, in fragments of 100 bytes.", k.op, 100, func() []byte { return k.data(1 << 20) }),
			largeDeflated(k.name+"-16384k-fragments-of-65536", "A "+k.name+" message of 16 MiB, compressed, in fragments of 64 KiB.", k.op, 65536, func() []byte { return k.data(16 << 20) }),
		)
	}
	for _, mib := range []int{1, 4, 17, 64} {
		cases = append(cases, Case{
			ID: fmt.Sprintf("rfc7692-8-bomb-%dm", mib), Heavy: true,
			Sentence: fmt.Sprintf("%d MiB of zeros, compressed to %d KiB. They must come back, or the peer close with 1009: what counts is the size after inflating, where the peer has a limit.",
				mib, mib<<20/258*13/8>>10),
			Run: func(s *Session) {
				s.OpenDeflate(wish{})
				s.Send(s.Frame(fin|rsv1|binaryOp, bomb(mib<<20)))
				if s.echoOrTooBig(ws.OpBinary, make([]byte, mib<<20)) {
					s.Remark("the peer has no limit below %d MiB", mib)
					s.Finish()
				}
			},
		})
	}
	return append(cases, Case{
		ID: "rfc7692-8-bomb-before-its-end", Heavy: true,
		Sentence: "A fragment that inflates to 64 MiB, and no end of the message. If the peer refuses such a message when it is whole, it should refuse this one before more of it comes, with a Close 1009.",
		Run: func(s *Session) {
			wire := bomb(64 << 20)
			s.OpenDeflate(wish{})
			s.Send(s.Frame(fin|rsv1|binaryOp, wire))
			if s.echoOrTooBig(ws.OpBinary, make([]byte, 64<<20)) {
				s.Remark("the peer takes 64 MiB")
				s.Finish()
				return
			}
			if !s.client {
				return // there is no second connection
			}
			s.OpenDeflate(wish{})
			s.Send(s.Frame(rsv1|binaryOp, wire))
			s.ExpectFailBefore(s.Frame(fin|continuation, nil), true, 1009)
		},
	})
}

// bomb are n zeros, compressed.
func bomb(n int) []byte {
	var d stream
	d.number(1<<1, 3).symbol(0)
	for n--; n > 0; {
		length := min(n, 258)
		if n > 258 && n < 261 {
			length = n - 3
		}
		if length < 3 {
			d.symbol(0)
			n--
			continue
		}
		s, extra, bits := lengthSymbol(length)
		d.symbol(s).number(extra, bits).word(0, 5)
		n -= length
	}
	wire, _ := d.symbol(endOfBlock).message()
	return wire
}

// largeDeflated is a case of a compressed message that may be too large for the peer.
func largeDeflated(id, sentence string, op byte, part int, data func() []byte) Case {
	return Case{
		ID: "rfc7692-8-" + id, Heavy: true,
		Sentence: sentence + " It must come back, or the peer close with 1009.",
		Run: func(s *Session) {
			s.OpenDeflate(wish{})
			wire, want := new(stream).squeeze(data(), s.pact.ourBits).message()
			if part == 0 {
				s.Send(s.Frame(fin|rsv1|op, wire))
			} else {
				var b []byte
				for _, f := range s.fragments(rsv1|op, cut(wire, part)...) {
					if b = append(b, f...); len(b) >= 256<<10 {
						s.write(b)
						b = b[:0]
					}
				}
				s.write(b)
			}
			if s.echoOrTooBig(ws.OpCode(op), want) {
				s.Finish()
			}
		},
	}
}
