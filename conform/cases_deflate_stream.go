package conform

import (
	"bytes"
	"compress/flate"
	"fmt"

	"github.com/gobwas/ws"
)

// deflateStreamCases are the cases of RFC 7692 §7.2 about what a message may be made of.
func deflateStreamCases() []Case {
	return append(append(exampleCases(), blockCases()...), levelCases()...)
}

// exampleCases: the messages of §7.2.3, byte for byte.
func exampleCases() []Case {
	hello := []byte("Hello")
	one := func(id, what string, wire string) Case {
		return deflateCase(id, what+". \"Hello\" must come back.", wish{}, func(s *Session) {
			s.Send(s.Frame(fin|rsv1|text, []byte(wire)))
			s.ExpectMessage(ws.OpText, hello)
		})
	}
	return []Case{
		one("7.2.3.1-one-frame", "The first example, one fixed block (f2 48 cd c9 c9 07 00)", "\xf2\x48\xcd\xc9\xc9\x07\x00"),
		deflateCase("7.2.3.1-two-fragments", "The same in two fragments (f2 48 cd, c9 c9 07 00). \"Hello\" must come back.", wish{}, func(s *Session) {
			s.Send(s.Frame(rsv1|text, []byte("\xf2\x48\xcd")))
			s.Send(s.Frame(fin|continuation, []byte("\xc9\xc9\x07\x00")))
			s.ExpectMessage(ws.OpText, hello)
		}),
		deflateCase("7.2.3.2-shared-window", "\"Hello\" twice; the second message is a reference to the first (f2 00 11 00 00). Both must come back.", wish{takeover: true}, func(s *Session) {
			s.Send(s.Frame(fin|rsv1|text, []byte("\xf2\x48\xcd\xc9\xc9\x07\x00")))
			s.ExpectMessage(ws.OpText, hello)
			s.Send(s.Frame(fin|rsv1|text, []byte("\xf2\x00\x11\x00\x00")))
			s.ExpectMessage(ws.OpText, hello)
		}),
		deflateCase("7.2.3.2-window-not-used", "\"Hello\" twice with the same bytes: the second does not use the window, as is allowed. Both must come back.", wish{}, func(s *Session) {
			for range 2 {
				s.Send(s.Frame(fin|rsv1|text, []byte("\xf2\x48\xcd\xc9\xc9\x07\x00")))
				s.ExpectMessage(ws.OpText, hello)
			}
		}),
		one("7.2.3.3-stored", "A block without compression (00 05 00 fa ff, the text, 00)", "\x00\x05\x00\xfa\xffHello\x00"),
		one("7.2.3.4-final", "A block with BFINAL, and a byte 00 behind it (f3 48 cd c9 c9 07 00 00)", "\xf3\x48\xcd\xc9\xc9\x07\x00\x00"),
		one("7.2.3.5-two-blocks", "Two blocks with an empty stored one between them (f2 48 05 00 00 00 ff ff ca c9 c9 07 00)",
			"\xf2\x48\x05\x00\x00\x00\xff\xff\xca\xc9\xc9\x07\x00"),
		deflateCase("7.2.3.6-empty", "An empty message, one byte 00, as text and as binary. It must come back empty.", wish{}, func(s *Session) {
			for _, op := range []byte{text, binaryOp} {
				s.Send(s.Frame(fin|rsv1|op, []byte{0}))
				s.ExpectMessage(ws.OpCode(op), nil)
			}
		}),
		deflateCase("7.2.3.6-empty-between", "\"Hello\", an empty message, and a reference over it to the first. All must come back.", wish{takeover: true}, func(s *Session) {
			var d stream
			s.echoed(text, d.fixed("Hello"))
			s.echoed(text, &d)
			s.echoed(text, d.fixed(match{5, 5}))
		}),
		{
			ID: "rfc7692-7.2.3.6-empty-without-a-byte",
			Sentence: "A compressed message without a byte, where an empty one has a 00: its DEFLATE is cut off. The peer may fail the connection, with a Close 1007 or 1002; " +
				"if it takes the message, it must be empty.",
			Run: func(s *Session) {
				s.OpenDeflate(wish{})
				s.Send(s.Frame(fin|rsv1|text, nil))
				// "00 00 ff ff" alone is no whole block, yet what is missing is no more than the block header. The RFC does
				// not forbid it in words, so neither answer is a fault.
				if s.comesWhole() {
					s.ExpectMessage(ws.OpText, nil)
					s.Remark("it is taken for an empty message")
					s.Finish()
					return
				}
				s.ExpectFail(badData...)
				s.Remark("it is refused")
			},
		},
	}
}

// blockCases: every kind of block, every length and distance.
func blockCases() []Case {
	one := func(id, what string, op byte, make func(*stream) *stream) Case {
		return deflateCase("7.2.2-"+id, what+" Its text must come back.", wish{}, func(s *Session) { s.echoed(op, make(new(stream))) })
	}
	return []Case{
		one("stored-many", "A message of ten stored blocks.", text, func(d *stream) *stream {
			for i := range 10 {
				d.stored(letters(i*10), false)
			}
			return d
		}),
		one("stored-empty-many", "A message of text between many empty stored blocks, as a sender makes them that flushes often.", text, func(d *stream) *stream {
			for i := range 10 {
				d.stored(nil, false).fixed(string(rune('a'+i))).stored(nil, false).stored(nil, false)
			}
			return d
		}),
		one("stored-65535", "A stored block of 65535 bytes, the longest there is.", binaryOp, func(d *stream) *stream { return d.stored(noise(65535), false) }),
		one("stored-and-fixed", "Stored blocks and fixed ones in turn, which begin at every bit.", text, func(d *stream) *stream {
			for i := range 16 {
				d.fixed(letters(i)).stored(letters(i), false).fixed().fixed(letters(i))
			}
			return d
		}),
		one("fixed-empty-many", "A message of a hundred empty fixed blocks: it is empty.", binaryOp, func(d *stream) *stream {
			for range 100 {
				d.fixed()
			}
			return d
		}),
		one("fixed-all-bytes", "A fixed block with each byte once.", binaryOp, func(d *stream) *stream {
			all := make([]byte, 256)
			for i := range all {
				all[i] = byte(i)
			}
			return d.fixed(all)
		}),
		one("all-lengths", "Matches of every length from 3 to 258.", text, func(d *stream) *stream {
			d.number(1<<1, 3).literals(letters(258))
			for n := 3; n <= 258; n++ {
				d.match(n, 258)
			}
			return d.symbol(endOfBlock)
		}),
		{
			ID: "rfc7692-7.2.2-length-258-the-long-way",
			Sentence: "A match of 258 bytes that is written as 227 and 31 more (symbol 284), and not as symbol 285. RFC 1951 §3.2.5 has 227 to 257 for it, and no word about 258: " +
				"the text may come back, or the peer fail the connection, with a Close 1007 or 1002.",
			Run: func(s *Session) {
				s.OpenDeflate(wish{})
				d := new(stream).number(1<<1, 3)
				d.literals([]byte("abc"))
				d.symbol(284).number(31, 5).word(2, 5) // distance 3
				for range 258 {
					d.text = append(d.text, d.text[len(d.text)-3])
				}
				want := s.say(text, d.symbol(endOfBlock))
				if s.comesWhole() {
					s.ExpectMessage(ws.OpText, want)
					s.Remark("it is taken")
					s.Finish()
					return
				}
				s.ExpectFail(badData...)
				s.Remark("it is refused")
			},
		},
		one("all-distances", "Matches at the least and the greatest distance of each of the 30 symbols, up to 32768.", binaryOp, func(d *stream) *stream {
			d.stored(noise(1<<15), false).number(1<<1, 3)
			for n := range 15 {
				for _, distance := range []int{1<<n + 1, 1<<n + max(1, 1<<n/2), 1<<n + 1<<n/2 + 1, 2 << n} {
					d.match(3+n, min(distance, 2<<n))
				}
			}
			return d.symbol(endOfBlock)
		}),
		one("match-of-itself", "Matches that are longer than their distance, of 1 to 9, and so repeat themselves.", text, func(d *stream) *stream {
			d.number(1<<1, 3).literals([]byte("123456789"))
			for n := 1; n <= 9; n++ {
				d.match(250+n-1, n)
			}
			return d.symbol(endOfBlock)
		}),
		one("dynamic", "A dynamic block whose code has words of every length from 1 to 15.", text, func(d *stream) *stream {
			l := lens(257, endOfBlock, 15)
			for i := range 14 {
				l['a'+i] = i + 1
			}
			l['o'] = 15
			d.dynamic(l, []int{0})
			for i := range 14 {
				d.word(1<<(i+1)-2, i+1)
			}
			d.word(1<<15-2, 15).text = append(d.text, "abcdefghijklmno"...)
			return d.word(1<<15-1, 15)
		}),
		one("dynamic-only-the-end", "A dynamic block whose code has one word only, the end: it is empty.", text, func(d *stream) *stream {
			return d.dynamic(lens(257, endOfBlock, 1), []int{0}).word(0, 1)
		}),
		one("dynamic-one-distance", "A dynamic block with one distance code of one bit.", text, func(d *stream) *stream {
			d.dynamic(lens(258, 'a', 1, endOfBlock, 2, 257, 2), []int{1}).word(0, 1).word(3, 2).word(0, 1)
			d.text = append(d.text, "aaaa"...)
			return d.word(2, 2)
		}),
		one("final-in-the-middle", "A block with BFINAL, and more blocks behind it, at the next whole byte: §7.2.1 allows both kinds of blocks in a message.", text, func(d *stream) *stream {
			return d.final("one ").fixed("two ").stored([]byte("three "), true).stored([]byte("four"), false)
		}),
		one("final-stored", "A stored block with BFINAL.", text, func(d *stream) *stream { return d.stored([]byte("Hello"), true) }),
		deflateCase("7.2.3.4-final-each", "Three messages that end with BFINAL, and one that does not. All must come back.", wish{}, func(s *Session) {
			var d stream
			for i := range 4 {
				if i < 3 {
					s.echoed(text, d.final(fmt.Sprintf("message %d", i)))
				} else {
					s.echoed(text, d.fixed(fmt.Sprintf("message %d", i)))
				}
			}
		}),
		{
			ID: "rfc7692-7.2.3.4-window-over-final",
			Sentence: "A message with BFINAL, and a message that refers into it. BFINAL ends a stream of DEFLATE and not the window of §7.2.3.2, so the text should come back; " +
				"a peer that has forgotten the window fails the connection.",
			Run: func(s *Session) {
				s.OpenDeflate(wish{takeover: true})
				var d stream
				s.echoed(text, d.final("a text that comes again"))
				want := s.say(text, d.fixed(match{23, 23}))
				if s.comesWhole() {
					s.ExpectMessage(ws.OpText, want)
					s.Finish()
					return
				}
				s.NonStrict("the window is lost with BFINAL")
				s.ExpectFail(badData...)
			},
		},
	}
}

// levelCases: what compressors of all kinds make, the levels of zlib here in Go.
func levelCases() []Case {
	var cases []Case
	for _, c := range []struct {
		id, what string
		level    int
	}{
		{"huffman-only", "a compressor that looks for no matches", flate.HuffmanOnly},
		{"level-0", "a compressor that only stores", flate.NoCompression},
		{"level-1", "the fastest compressor", flate.BestSpeed},
		{"level-6", "the usual compressor", 6},
		{"level-9", "the best compressor", flate.BestCompression},
	} {
		cases = append(cases, deflateCase("7.2.1-"+c.id, "Text and noise of 1 byte to 100 KiB as "+c.what+" makes it, with context takeover if that is agreed. All must come back.", wish{}, func(s *Session) {
			s.needsWindow(1 << 15)
			var b bytes.Buffer
			w, _ := flate.NewWriter(&b, c.level)
			for _, n := range []int{1, 10, 1000, 70000, 100 << 10} {
				for _, op := range []byte{text, binaryOp} {
					data := letters(n)
					if op == binaryOp {
						data = noise(n)
					}
					if b.Reset(); s.pact.ourNoContext {
						w.Reset(&b)
					}
					w.Write(data)
					w.Flush()
					s.Send(s.Frame(fin|rsv1|op, bytes.TrimSuffix(b.Bytes(), []byte("\x00\x00\xff\xff"))))
					s.ExpectMessage(ws.OpCode(op), data)
				}
			}
		}))
	}
	return cases
}

// badData are the codes for what cannot be inflated. RFC 7692 names none. 1007 is for a payload that is not what the message
// is said to be, 1002 for a breach of the protocol (RFC 6455 §7.4.1).
var badData = []int{1007, 1002}

// corruptCases: what is no DEFLATE. The peer cannot know what was meant.
func corruptCases() []Case {
	two := lens(257, 'a', 1, endOfBlock, 1)
	withMatch := lens(258, 'a', 1, endOfBlock, 2, 257, 2)
	start := func() *stream { return new(stream).number(1<<1, 3) }
	pad := func(d *stream) *stream {
		for range 40 {
			d.number(0, 32)
		}
		return d
	}
	var cases []Case
	for _, c := range []struct {
		id, what string
		d        *stream
	}{
		{"reserved-block", "A block of the reserved type 3 (07).", new(stream).number(7, 3)},
		{"reserved-block-second", "A fixed block, and one of the reserved type 3.", new(stream).fixed("Hello").number(6, 3)},
		{"stored-length", "A stored block whose NLEN is not the complement of its LEN.", new(stream).number(0, 3).align().number(5, 16).number(5, 16).number(0x6c6c6548, 32).number('o', 8)},
		{"stored-length-one-bit", "A stored block of whose NLEN one bit is wrong.", new(stream).number(0, 3).align().number(5, 16).number(^5^0x8000, 16).number(0x6c6c6548, 32).number('o', 8)},
		{"literals-287", "A dynamic block with 287 literal codes, one too many.", pad(new(stream).number(2<<1, 3).number(30, 5).number(0, 5).number(15, 4))},
		{"literals-288", "A dynamic block with 288 literal codes.", pad(new(stream).number(2<<1, 3).number(31, 5).number(0, 5).number(15, 4))},
		{"lengths-none", "A dynamic block whose code for lengths has no word.", pad(new(stream).dynamicHead(257, 1, nil))},
		{"lengths-incomplete", "A dynamic block whose code for lengths is incomplete.", pad(new(stream).dynamicHead(257, 1, map[int]int{0: 2, 1: 2}))},
		{"lengths-too-many", "A dynamic block whose code for lengths has too many words of one bit.", pad(new(stream).dynamicHead(257, 1, map[int]int{0: 1, 1: 1, 2: 1}))},
		{"repeat-nothing", "A dynamic block whose lengths begin with a repetition of the one before.", pad(new(stream).dynamicHead(257, 1, map[int]int{16: 1, 1: 1}).word(1, 1))},
		{"repeat-beyond", "A dynamic block whose lengths go on beyond the last one.", pad(new(stream).dynamicHead(257, 1, map[int]int{18: 1, 1: 1}).word(1, 1).number(127, 7).word(1, 1).number(127, 7))},
		{"no-end", "A dynamic block whose code has no word for its end.", pad(new(stream).dynamic(lens(257, 'a', 1, 'b', 1), []int{1}))},
		{"literals-too-many-words", "A dynamic block whose literal code has too many words.", pad(new(stream).dynamic(lens(257, 'a', 1, 'b', 1, endOfBlock, 1), []int{1}))},
		{"literals-incomplete", "A dynamic block whose literal code is incomplete.", pad(new(stream).dynamic(lens(257, 'a', 3, endOfBlock, 3), []int{1}))},
		{"distances-too-many-words", "A dynamic block whose distance code has too many words.", pad(new(stream).dynamic(two, []int{1, 1, 1}))},
		{"distances-incomplete", "A dynamic block whose distance code is incomplete.", pad(new(stream).dynamic(two, []int{2, 2, 2}))},
		{"distance-word", "A dynamic block with one distance code, and the word that it does not use.", pad(new(stream).dynamic(withMatch, []int{1}).word(0, 1).word(3, 2).word(1, 1))},
		{"distances-none", "A match in a dynamic block without distances.", pad(new(stream).dynamic(withMatch, []int{0}).word(0, 1).word(3, 2).word(0, 1))},
		{"symbol-286", "The symbol 286, which means nothing, in a fixed block.", pad(start().symbol('a').symbol(286))},
		{"symbol-287", "The symbol 287, which means nothing, in a fixed block.", pad(start().symbol('a').symbol(287))},
		{"distance-30", "The distance symbol 30, which means nothing, in a fixed block.", pad(start().symbol('a').symbol(257).word(30, 5))},
		{"distance-31", "The distance symbol 31, which means nothing, in a fixed block.", pad(start().symbol('a').symbol(257).word(31, 5))},
		{"before-the-beginning", "A match that begins one byte before the text.", new(stream).fixed("abc", match{3, 4})},
		{"before-anything", "A match where there is no text yet.", new(stream).fixed(match{3, 1})},
		{"before-the-beginning-32768", "A match from 32768 bytes back in a text of three.", new(stream).fixed("abc", match{258, 32768})},
		{"text-itself", "RSV1 on a message that is not compressed: \"Hello\".", &stream{wire: []byte("Hello")}},
		{"zlib-header", "A message in the format of zlib, with a header (78 9c) before its DEFLATE.", &stream{wire: []byte("\x78\x9c\xf2\x48\xcd\xc9\xc9\x07\x00")}},
		{"gzip-header", "A message in the format of gzip.", &stream{wire: []byte("\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\xff\xf2\x48\xcd\xc9\xc9\x07\x00")}},
		{"ff", "A message of bytes ff.", &stream{wire: bytes.Repeat([]byte{0xff}, 20)}},
	} {
		wire, _ := c.d.message()
		cases = append(cases, deflateFault("7.2.2-corrupt-"+c.id, c.what, func(s *Session) []byte { return s.Frame(fin|rsv1|text, wire) }, badData...))
	}
	return append(append(cases, cutOffCases()...),
		deflateFault("7.2.2-corrupt-after-good", "A first fragment that is right, and a second with a block of the reserved type, in one write.",
			func(s *Session) []byte {
				b := s.Frame(rsv1|binaryOp, []byte("\x00\x05\x00\xfa\xffHello"))
				return append(b, s.Frame(continuation, []byte{6})...)
			}, badData...),
		Case{
			ID: "rfc7692-7.2.2-corrupt-before-the-end",
			Sentence: "A first fragment with a block of the reserved type; the second is held back. The peer must fail the connection, with a Close 1007 or 1002; " +
				"it should do so before the rest comes.",
			Run: func(s *Session) {
				s.OpenDeflate(wish{})
				s.Send(s.Frame(rsv1|text, []byte{7, 0, 0, 0}))
				s.ExpectFailBefore(s.Frame(fin|continuation, []byte{0}), true, badData...)
			},
		},
	)
}

// cutOffCases: messages whose DEFLATE is not at the end of a block when the message ends. A decompressor that is not
// asked whether it has come to an end tolerates them; the RFC has no words about them.
func cutOffCases() []Case {
	var cases []Case
	for _, c := range []struct{ id, what, wire string }{
		{"fixed", "A fixed block that breaks off after three letters of \"Hello\" (f2 48 cd).", "\xf2\x48\xcd"},
		{"stored-head", "A stored block that breaks off in its LEN.", "\x00\x05"},
		{"stored-bytes", "A stored block of 10 bytes of which three are there.", "\x00\x0a\x00\xf5\xffHel"},
		{"dynamic-head", "A dynamic block that breaks off in its head.", "\x04\xc0"},
		{"final-nothing-behind", "A block with BFINAL, and not the byte 00 behind it.", "\xf3\x48\xcd\xc9\xc9\x07\x00"},
		{"tail-not-left-away", "A message from whose end 00 00 ff ff was not taken away.", "\xf2\x48\xcd\xc9\xc9\x07\x00\x00\x00\xff\xff"},
	} {
		cases = append(cases, Case{
			ID:       "rfc7692-7.2.2-cut-off-" + c.id,
			Sentence: c.what + " With 00 00 ff ff behind it, it is not whole. The peer should fail the connection, with a Close 1007 or 1002; some take what there is.",
			Run: func(s *Session) {
				s.OpenDeflate(wish{})
				s.Send(s.Frame(fin|rsv1|binaryOp, []byte(c.wire)))
				s.expectFailUnless(binaryOp, nil, "the message was accepted", badData...)
			},
		})
	}
	return cases
}
