package conform

import (
	"encoding/hex"
	"fmt"
	"strings"

	"github.com/gobwas/ws"
)

// deflateWindowCases are the cases of RFC 7692 §7.1.2 and §7.1.1: how far back each side may reach, within a message and
// into those before it.
func deflateWindowCases() []Case {
	var cases []Case
	for bits := uint8(8); bits <= 15; bits++ {
		cases = append(cases, ourWindowCases(bits)...)
		cases = append(cases, peerWindowCases(bits)...)
	}
	return append(append(cases, takeoverCases()...), windowContentCases()...)
}

// digits are n random hexadecimal digits, the same each time: what a compressor makes smaller even if its window sees no
// repetition.
func digits(n int) []byte { return hex.AppendEncode(nil, noise(n/2+1))[:n] }

// repeated are digits that begin again after gap bytes: only a window of gap bytes or more sees it.
func repeated(gap int) []byte {
	b := digits(gap)
	return append(b, b[:min(gap, 300)]...)
}

// ourWindowCases: matches of ours at the greatest distance, and beyond.
func ourWindowCases(bits uint8) []Case {
	size := 1 << bits
	w := wish{ourBits: bits}
	id := fmt.Sprintf("7.1.2-window-%d-", bits)
	cases := []Case{
		deflateCase(id+"ours-farthest", fmt.Sprintf("Our window is %d bits. A match from exactly %d bytes back. The text must come back.", bits, size), w, func(s *Session) {
			d := new(stream).stored(noise(size), false)
			s.echoed(binaryOp, d.fixed(match{258, size}, "and", match{3, size}))
		}),
		deflateCase(id+"ours-farthest-message-before", fmt.Sprintf("Our window is %d bits, and a second message is a match from exactly %d bytes back, in the first. Both must come back.", bits, size),
			wish{ourBits: bits, takeover: true}, func(s *Session) {
				var d stream
				s.echoed(binaryOp, d.stored(noise(size), false))
				s.echoed(binaryOp, d.fixed(match{200, size}))
				s.echoed(binaryOp, d.stored(noise(size/2), false).stored(noise(size/2), false).fixed(match{200, size}))
			}),
		deflateCase(id+"ours-squeezed", fmt.Sprintf("Ten messages of text, each as large as our window of %d bits, which a compressor made. They must come back.", bits), w, func(s *Session) {
			var d stream
			for i := range 10 {
				s.echoed(text, d.squeeze(append(letters(size), fmt.Sprintf(" %d", i)...), s.pact.ourBits))
			}
		}),
	}
	if bits == 15 {
		return cases // no distance is greater
	}
	return append(cases, Case{
		ID: "rfc7692-" + id + "ours-beyond",
		Sentence: fmt.Sprintf("A window of %d bits was asked of us, and we send a match from %d bytes back, one more than that. The RFC forbids it to us and does not say what the peer must do: "+
			"it should fail the connection, with a Close 1007 or 1002.", bits, size+1),
		Run: func(s *Session) {
			s.OpenDeflate(wish{ourBits: bits})
			if param := "client_max_window_bits="; s.client && !strings.Contains(s.agreed, param) || s.pact.ourBits != bits {
				s.Unimplemented("the peer does not ask for a window of %d bits", bits)
			}
			wire, want := new(stream).stored(noise(size+1), false).fixed(match{100, size + 1}).message()
			s.Send(s.Frame(fin|rsv1|binaryOp, wire))
			s.expectFailUnless(binaryOp, want, "a match beyond the agreed window was accepted", badData...)
		},
	})
}

// peerWindowCases: what the peer compresses must be read with exactly the window that was agreed. The messages have
// repetitions that a larger window would see.
func peerWindowCases(bits uint8) []Case {
	size := 1 << bits
	w := wish{peerBits: bits}
	id := fmt.Sprintf("7.1.2-window-%d-", bits)
	return []Case{
		deflateCase(id+"peer", fmt.Sprintf("The peer's window is %d bits. Messages with repetitions at and beyond %d bytes. What comes back must be read with a window of %d bits.", bits, size, bits), w, func(s *Session) {
			var d stream
			for _, gap := range []int{size / 2, size - 1, size, size + 1, size + 40, 2*size - 200, 2 * size} {
				s.echoed(text, d.squeeze(repeated(gap), s.pact.ourBits))
			}
			s.remarkCompressed()
		}),
		deflateCase(id+"peer-messages", fmt.Sprintf("The peer's window is %d bits. The same digits in message after message, with %d bytes and more between. What comes back must be read with a window of %d bits, "+
			"and the context that was agreed.", bits, size, bits), w, func(s *Session) {
			var d stream
			for range 3 {
				s.echoed(text, d.squeeze(digits(size+17), s.pact.ourBits))
				s.echoed(text, d.fixed(letters(80)))
			}
			s.remarkCompressed()
		}),
	}
}

// remarkCompressed notes whether the message that came last was compressed.
func (s *Session) remarkCompressed() {
	if s.pact.last == nil {
		s.Remark("the reply was not compressed")
	}
}

// takeoverCases: both sides with and without no_context_takeover (§7.1.1).
func takeoverCases() []Case {
	var cases []Case
	for i := range 4 {
		w := wish{ourNoContext: i&1 != 0, peerNoContext: i&2 != 0}
		id := fmt.Sprintf("7.1.1-takeover-ours-%s-peer-%s-", onOff(!w.ourNoContext), onOff(!w.peerNoContext))
		head := fmt.Sprintf("Context takeover is %s for us and %s for the peer. ", onOff(!w.ourNoContext), onOff(!w.peerNoContext))
		cases = append(cases, deflateCase(id+"replies", head+"The same digits four times, compressed. What comes back must be read as was agreed: with the window of the messages before, or without.", w,
			func(s *Session) {
				var d stream
				refers := 0
				for range 4 {
					s.echoed(text, d.fixed(digits(600)))
					if s.refersBack(digits(600)) {
						refers++
					}
				}
				s.remarkCompressed()
				if refers > 0 {
					s.Remark("%d of 4 replies refer to earlier ones", refers)
				}
			}))
		if w.ourNoContext {
			cases = append(cases, deflateCase(id+"fresh", head+"Five messages that each begin anew and refer only to themselves. They must come back.", w, func(s *Session) {
				for i := range 5 {
					s.echoed(text, new(stream).fixed(fmt.Sprintf("message %d ", i), match{10, 10}))
				}
			}), Case{
				ID: "rfc7692-" + id + "refers",
				Sentence: head + "We send a message that refers to the one before all the same. The RFC forbids it to us and does not say what the peer must do: " +
					"it should fail the connection, with a Close 1007 or 1002.",
				Run: func(s *Session) {
					s.OpenDeflate(w)
					if s.client && !strings.Contains(s.agreed, "client_no_context_takeover") {
						s.Unimplemented("the answer does not have client_no_context_takeover, so the peer may keep the window")
					}
					d := new(stream).fixed("Hello")
					s.echoed(text, d)
					wire, _ := new(stream).fixed(match{5, 5}).message()
					s.Send(s.Frame(fin|rsv1|text, wire))
					s.expectFailUnless(text, nil, "a reference to the message before was accepted, without context takeover", badData...)
				},
			})
			continue
		}
		w.takeover = true
		cases = append(cases, deflateCase(id+"refers", head+"Each of five messages but the first is only a reference to the one before. All must come back.", w, func(s *Session) {
			var d stream
			s.echoed(text, d.fixed("a text that comes again and again"))
			for range 4 {
				s.echoed(text, d.fixed(match{33, 33}))
			}
		}))
	}
	return cases
}

func onOff(on bool) string {
	if on {
		return "on"
	}
	return "off"
}

// refersBack reports whether the peer's last message can only be read with those before it.
func (s *Session) refersBack(payload []byte) bool {
	if s.pact.last == nil {
		return false
	}
	at, err := s.pact.matches(s.pact.last, nil, 15, payload)
	return err != nil || at >= 0
}

// windowContentCases: what enters the window, and what does not.
func windowContentCases() []Case {
	w := wish{takeover: true}
	again := func(id, sentence string, between func(*Session, *stream)) Case {
		return deflateCase("7.2.3.2-"+id, sentence+" All must come back.", w, func(s *Session) {
			var d stream
			s.echoed(text, d.fixed("a text that comes again"))
			between(s, &d)
			s.echoed(text, d.fixed("and: ", match{23, len(d.text) + 5}))
		})
	}
	return []Case{
		again("uncompressed-between", "A compressed message, one without RSV1, which does not enter the window, and one that refers to the first.", func(s *Session, _ *stream) {
			s.echo(text, []byte("this is not part of the window"))
		}),
		again("uncompressed-fragments-between", "A compressed message, an uncompressed one in fragments, and a reference to the first.", func(s *Session, _ *stream) {
			for _, f := range s.fragments(binaryOp, noise(100), noise(200), nil) {
				s.Send(f)
			}
			s.ExpectMessage(ws.OpBinary, append(noise(100), noise(200)...))
		}),
		again("ping-between", "A compressed message, a ping, and a reference to the first.", func(s *Session, _ *stream) {
			s.Send(s.Frame(fin|ping, []byte("this is not part of the window")))
			s.ExpectPong([]byte("this is not part of the window"))
		}),
		again("binary-between", "A compressed text, a compressed binary message, which enters the same window, and a reference over it to the first.", func(s *Session, d *stream) {
			s.echoed(binaryOp, d.stored(noise(1000), false))
		}),
		again("stored-enters", "A compressed text, a message of a stored block, which enters the window though it is not compressed, and a reference over it to the first.", func(s *Session, d *stream) {
			s.echoed(text, d.stored(letters(500), false))
		}),
		again("fragments-enter", "A compressed text, a compressed message in fragments of one byte, and a reference over it to the first.", func(s *Session, d *stream) {
			wire, want := d.fixed(letters(40)).message()
			for _, f := range s.fragments(rsv1|text, cut(wire, 1)...) {
				s.Send(f)
			}
			s.ExpectMessage(ws.OpText, want)
		}),
		deflateCase("7.2.3.2-many-messages", "A hundred compressed messages in one write, each but the first a reference to the one before and two letters. All must come back in order.", w, func(s *Session) {
			var d stream
			var b []byte
			var want [][]byte
			wire, t := d.fixed("message").message()
			for i := range 100 {
				b, want = append(b, s.Frame(fin|rsv1|text, wire)...), append(want, t)
				wire, t = d.fixed(match{min(len(t), 258), len(t)}, fmt.Sprintf("%02d", i)).message()
			}
			s.Send(b)
			for _, t := range want {
				s.ExpectMessage(ws.OpText, t)
			}
		}),
		deflateCase("7.2.3.2-window-slides", "Noise of 20,000 bytes six times, and each time a reference to what came 32768 bytes before. All must come back.", w, func(s *Session) {
			var d stream
			for i := range 6 {
				d.stored(noise(20000)[:20000-i], false)
				if len(d.text) >= 1<<15 {
					d.fixed(match{258, 1 << 15})
				}
				s.echoed(binaryOp, &d)
			}
		}),
	}
}
