package frame

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"reflect"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/gobwas/ws"
)

func TestTheExamplesOfTheRFCAreRead(t *testing.T) {
	frame := func(fin bool, wireOp, op ws.OpCode, first, last bool, data string) event {
		return event{
			header: ws.Header{Fin: fin, OpCode: wireOp, Length: int64(len(data))},
			op:     op, first: first, last: last, done: true, data: data,
		}
	}
	masked := func(e event) event {
		e.header.Masked, e.header.Mask = true, rfcMask
		return e
	}
	for _, test := range []struct {
		name  string // as in §5.7
		rules *Rules
		wire  string
		want  []event
	}{
		{
			"a single-frame unmasked text message", client,
			"81 05 48 65 6c 6c 6f",
			[]event{frame(true, ws.OpText, ws.OpText, true, true, "Hello")},
		},
		{
			"a single-frame masked text message", server,
			"81 85 37 fa 21 3d 7f 9f 4d 51 58",
			[]event{masked(frame(true, ws.OpText, ws.OpText, true, true, "Hello"))},
		},
		{
			"a fragmented unmasked text message", client,
			"01 03 48 65 6c  80 02 6c 6f",
			[]event{
				frame(false, ws.OpText, ws.OpText, true, false, "Hel"),
				frame(true, ws.OpContinuation, ws.OpText, false, true, "lo"),
			},
		},
		{
			"unmasked ping request", client,
			"89 05 48 65 6c 6c 6f",
			[]event{frame(true, ws.OpPing, ws.OpPing, true, true, "Hello")},
		},
		{
			"masked ping response", server,
			"8a 85 37 fa 21 3d 7f 9f 4d 51 58",
			[]event{masked(frame(true, ws.OpPong, ws.OpPong, true, true, "Hello"))},
		},
		{
			"256 bytes binary message in a single unmasked frame", client,
			"82 7e 0100" + strings.Repeat("00", 256),
			[]event{frame(true, ws.OpBinary, ws.OpBinary, true, true, strings.Repeat("\x00", 256))},
		},
		{
			"64KiB binary message in a single unmasked frame", client,
			"82 7f 0000000000010000" + strings.Repeat("5a", 65536),
			[]event{frame(true, ws.OpBinary, ws.OpBinary, true, true, strings.Repeat("Z", 65536))},
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			got := everyCut(t, test.rules, wire(test.wire))
			if got.err != nil || !reflect.DeepEqual(got.events, test.want) {
				t.Errorf("%v, %s\nwant %s", got.err, show(got.events), show(test.want))
			}
		})
	}
}

// TestEveryRuleHasTwoSides shows for each rule what breaks it, at which byte
// that is seen, and what comes nearest without breaking it. at is the number
// of bytes after which the error must be there, and not one earlier.
func TestEveryRuleHasTwoSides(t *testing.T) {
	var (
		deflate = &Rules{RSV1: true}
		limited = &Rules{MaxMessage: 10}
		big     = &Rules{MaxMessage: 1 << 20}
		proxy   = &Rules{SkipUTF8: true}
		key     = " 00 00 00 00 "
	)
	for _, test := range []struct {
		name  string
		rules *Rules
		wire  string
		want  *Error
		at    int
	}{
		// §5.2, byte 0: 0111 .... are reserved.
		{"RSV1 without an extension", server, "c1 80" + key, ErrReservedBits, 1},
		{"RSV1 with permessage-deflate", deflate, "c1 80" + key, nil, 0},
		{"RSV1 on binary with permessage-deflate", deflate, "c2 80" + key, nil, 0},
		{"RSV2 without an extension", server, "a1 80" + key, ErrReservedBits, 1},
		{"RSV2 with permessage-deflate", deflate, "a1 80" + key, ErrReservedBits, 1},
		{"RSV3 with permessage-deflate", deflate, "91 80" + key, ErrReservedBits, 1},
		{"RSV1 and RSV2 with permessage-deflate", deflate, "e1 80" + key, ErrReservedBits, 1},
		{"RSV1 on a ping", deflate, "c9 80" + key, ErrRSV1Misplaced, 1},
		{"RSV1 on a close", deflate, "c8 80" + key, ErrRSV1Misplaced, 1},
		{"a plain ping with permessage-deflate", deflate, "89 80" + key, nil, 0},
		{"RSV1 on a continuation", deflate, "41 80" + key + "c0 80" + key, ErrRSV1Misplaced, 7},
		{"a plain continuation of a compressed message", deflate, "41 80" + key + "80 80" + key, nil, 0},

		{"opcode 3", server, "83 80" + key, ErrReservedOpcode, 1},
		{"opcode 7", server, "87 80" + key, ErrReservedOpcode, 1},
		{"opcode B", server, "8b 80" + key, ErrReservedOpcode, 1},
		{"opcode F", server, "8f 80" + key, ErrReservedOpcode, 1},
		{"opcode 2", server, "82 80" + key, nil, 0},
		{"opcode A", server, "8a 80" + key, nil, 0},

		// §5.5
		{"a ping in fragments", server, "09 80" + key, ErrControlFragmented, 1},
		{"a close in fragments", server, "08 80" + key, ErrControlFragmented, 1},
		{"text in fragments", server, "01 80" + key, nil, 0},
		{"a ping of 126 bytes", server, "89 fe 00 7e" + key, ErrControlTooLong, 2},
		{"a ping of 65536 bytes", server, "89 ff 00 00 00 00 00 01 00 00" + key, ErrControlTooLong, 2},
		{"a ping of 125 bytes", server, "89 fd" + key + strings.Repeat("61", 125), nil, 0},

		// §5.4
		{"a continuation of nothing", server, "80 80" + key, ErrContinuationUnexpected, 1},
		{"a continuation after a whole message", server, "81 80" + key + "00 80" + key, ErrContinuationUnexpected, 7},
		{"a continuation after the last fragment", server, "01 80" + key + "80 80" + key + "80 80" + key, ErrContinuationUnexpected, 13},
		{"a continuation of a message", server, "01 80" + key + "00 80" + key + "80 80" + key, nil, 0},
		{"text inside a message", server, "02 80" + key + "81 80" + key, ErrContinuationExpected, 7},
		{"binary inside a message", server, "01 80" + key + "02 80" + key, ErrContinuationExpected, 7},
		{"a ping inside a message", server, "01 80" + key + "89 80" + key + "80 80" + key, nil, 0},
		{"text after the last fragment", server, "01 80" + key + "80 80" + key + "81 80" + key, nil, 0},

		// §5.1
		{"an unmasked frame to a server", server, "81 05", ErrMaskRequired, 2},
		{"an unmasked ping to a server", server, "89 00", ErrMaskRequired, 2},
		{"a masked frame to a client", client, "81 85", ErrMaskForbidden, 2},
		{"a masked pong to a client", client, "8a 80", ErrMaskForbidden, 2},
		{"an unmasked frame to a client", client, "81 00", nil, 0},

		// §5.2: "the minimal number of bytes MUST be used"; ws.ReadHeader takes both.
		{"5 in 16 bits", client, "82 7e 00 05 00 00 00 00 00", ErrLengthNotMinimal, 4},
		{"125 in 16 bits", client, "82 7e 00 7d", ErrLengthNotMinimal, 4},
		{"126 in 16 bits", client, "82 7e 00 7e" + strings.Repeat("00", 126), nil, 0},
		{"5 in 64 bits", client, "82 7f 00 00 00 00 00 00 00 05 00 00 00 00 00", ErrLengthNotMinimal, 8},
		{"65535 in 64 bits", client, "82 7f 00 00 00 00 00 00 ff ff", ErrLengthNotMinimal, 8},
		{"65536 in 64 bits", client, "82 7f 00 00 00 00 00 01 00 00 00", nil, 0},
		{"2^63 in 64 bits", client, "82 7f 80 00 00 00 00 00 00 00", ErrLengthMSB, 3},
		{"2^63-1 in 64 bits", client, "82 7f 7f ff ff ff ff ff ff ff 00", nil, 0},

		// §10.4
		{"11 bytes where 10 are allowed", limited, "82 8b" + key, ErrTooLarge, 2},
		{"10 bytes where 10 are allowed", limited, "82 8a" + key + "00 01 02 03 04 05 06 07 08 09", nil, 0},
		{
			"10 bytes, and a message of 10 again", limited,
			"82 8a" + key + "00 01 02 03 04 05 06 07 08 09" + "82 8a" + key + "00 01 02 03 04 05 06 07 08 09", nil, 0,
		},
		{"8 bytes and 3 more", limited, "02 88" + key + "00 01 02 03 04 05 06 07" + "80 83" + key, ErrTooLarge, 16},
		{"8 bytes, 1 more and 2 more", limited, "02 88" + key + "00 01 02 03 04 05 06 07" + "00 81" + key + "08" + "80 82" + key, ErrTooLarge, 23},
		{"8 bytes and 2 more", limited, "02 88" + key + "00 01 02 03 04 05 06 07" + "80 82" + key + "08 09", nil, 0},
		{"a ping does not count", limited, "02 88" + key + "00 01 02 03 04 05 06 07" + "89 8b" + key + "00 01 02 03 04 05 06 07 08 09 0a", nil, 0},
		{"256 in 16 bits where 10 are allowed", limited, "82 fe 01 00", ErrTooLarge, 3},
		{"11 in 16 bits where 10 are allowed", limited, "82 fe 00 0b", ErrLengthNotMinimal, 4},
		{"100 in 64 bits where 10 are allowed", limited, "82 ff 00 00 00 00 00 00 00 64", ErrLengthNotMinimal, 8},
		{"2^62 where 2^20 are allowed", big, "82 ff 40 00 00 00 00 00 00 00", ErrTooLarge, 3},
		{"2^20+1 where 2^20 are allowed", big, "82 ff 00 00 00 00 00 10 00 01", ErrTooLarge, 10},
		{"2^20 where 2^20 are allowed", big, "82 ff 00 00 00 00 00 10 00 00" + key + "00", nil, 0},

		// §5.6, §8.1: at the first wrong byte.
		{"an overlong form", client, "81 05 61 c0 80 61 61", ErrTextUTF8, 4},
		{"an overlong form of three bytes", client, "81 05 61 e0 80 80 61", ErrTextUTF8, 5},
		{"the least character of three bytes", client, "81 05 61 e0 a0 80 61", nil, 0},
		{"a surrogate", client, "81 05 61 ed a0 80 61", ErrTextUTF8, 5},
		{"the last character before the surrogates", client, "81 05 61 ed 9f bf 61", nil, 0},
		{"U+110000", client, "81 05 61 f4 90 80 80", ErrTextUTF8, 5},
		{"U+10FFFF", client, "81 05 61 f4 8f bf bf", nil, 0},
		{"a wrong byte in the second fragment", client, "01 01 e2 80 02 82 c0", ErrTextUTF8, 7},
		{"an ASCII fragment where a character must go on", server, "01 81" + key + "e2 80 82" + key + "61 61", ErrTextUTF8, 14},
		{"a character over masked fragments", server, "01 82" + key + "61 e2 80 83" + key + "82 ac 61", nil, 0},
		{"a character over three fragments", client, "01 01 e2 00 01 82 80 01 ac", nil, 0},
		{"a character over fragments with a ping between", client, "01 01 e2 89 01 ff 80 02 82 ac", nil, 0},
		{"text that ends inside a character", client, "81 03 61 e2 82", ErrTextTruncated, 5},
		{"text that ends inside a character, in an empty fragment", client, "01 02 e2 82 80 00", ErrTextTruncated, 6},
		{"the same bytes as binary", client, "82 03 61 e2 82", nil, 0},
		{"the same bytes for a proxy", proxy, "81 83" + key + "61 e2 82", nil, 0},
		{"the same bytes for a proxy in fragments", proxy, "01 83" + key + "61 e2 82 80 81" + key + "61", nil, 0},
		{"bytes that are not text, compressed", deflate, "c1 83" + key + "ff fe fd", nil, 0},
		{"bytes that are not text, compressed, in fragments", deflate, "41 83" + key + "ff fe fd 80 81" + key + "ff", nil, 0},
		{"bytes that are not text, not compressed", deflate, "81 83" + key + "ff fe fd", ErrTextUTF8, 7},
		{
			"text after compressed text is checked again", deflate,
			"c1 81" + key + "ff" + "81 81" + key + "ff", ErrTextUTF8, 14,
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			input := wire(test.wire)
			got := everyCut(t, test.rules, input)
			if test.want == nil {
				if got.err != nil {
					t.Fatalf("refused: %v", got.err)
				}
				if got.consumed != len(input) {
					t.Fatalf("consumed %d of %d bytes", got.consumed, len(input))
				}
				return
			}
			if got.err != error(test.want) {
				t.Fatalf("error %v, want %v", got.err, test.want)
			}
			if err := run(t, test.rules, input[:test.at], whole).err; err != error(test.want) {
				t.Errorf("after %d bytes: %v, want %v", test.at, err, test.want)
			}
			if err := run(t, test.rules, input[:test.at-1], whole).err; err != nil {
				t.Errorf("after %d bytes already: %v", test.at-1, err)
			}
		})
	}
}

// TestWhereWeAreStricterThanGobwas pins the traps of ws.CheckHeader.
func TestWhereWeAreStricterThanGobwas(t *testing.T) {
	for _, test := range []struct {
		name  string
		state ws.State
		wire  string // the last frame is the one that matters
		last  string
		want  *Error
	}{
		{"RSV2 with an extension", 0, "", "a1 80 00 00 00 00", ErrReservedBits},
		{"RSV3 with an extension", 0, "", "91 80 00 00 00 00", ErrReservedBits},
		{"RSV1 on a ping", 0, "", "c9 80 00 00 00 00", ErrRSV1Misplaced},
		{"RSV1 on a continuation", ws.StateFragmented, "41 80 00 00 00 00", "c0 80 00 00 00 00", ErrRSV1Misplaced},
		{"length not minimal", 0, "", "82 fe 00 05 00 00 00 00", ErrLengthNotMinimal},
	} {
		t.Run(test.name, func(t *testing.T) {
			h, err := ws.ReadHeader(bytes.NewReader(wire(test.last)))
			if err == nil {
				err = ws.CheckHeader(h, ws.StateServerSide|ws.StateExtended|test.state)
			}
			if err != nil {
				t.Errorf("gobwas refuses it now (%v): the comment that it does not is out of date", err)
			}
			got := everyCut(t, &Rules{RSV1: true}, wire(test.wire+test.last))
			if got.err != error(test.want) {
				t.Errorf("error %v, want %v", got.err, test.want)
			}
		})
	}
}

func TestAPieceSaysWhereItStands(t *testing.T) {
	var p Parser
	var piece Piece
	step := func(in string, n int, data string, flags string, mid string) {
		t.Helper()
		got, err := p.Next(client, wire(in), &piece)
		if err != nil || got != n {
			t.Fatalf("%s: %d, %v, want %d", in, got, err, n)
		}
		if n == 0 {
			return
		}
		var f strings.Builder
		for _, b := range []struct {
			name string
			on   bool
		}{{"F", piece.First}, {"S", piece.Start}, {"E", piece.End}, {"L", piece.Last}} {
			if b.on {
				f.WriteString(b.name)
			}
		}
		if string(piece.Data) != data || f.String() != flags {
			t.Errorf("%s: %q %q, want %q %q", in, piece.Data, f.String(), data, flags)
		}
		if m := fmt.Sprint(p.MidMessage(), p.MidFrame()); m != mid {
			t.Errorf("%s: mid message, frame: %s, want %s", in, m, mid)
		}
	}
	step("01", 0, "", "", "")
	step("01 03", 0, "", "", "")                // a header alone waits
	step("01 03 48", 3, "H", "FS", "true true") // and passes with the first byte
	step("", 0, "", "", "")
	step("65", 1, "e", "", "true true")
	step("6c 89", 1, "l", "E", "true false") // not into the next frame
	step("89 02 61", 0, "", "", "")          // a ping waits for all of itself
	step("89 02 61 62 00", 4, "ab", "FSEL", "true false")
	step("00 00", 2, "", "SE", "true false") // an empty fragment is a piece too
	step("80 02 6c", 3, "l", "S", "true true")
	step("6f", 1, "o", "EL", "false false")
	step("82 00", 2, "", "FSEL", "false false")
}

func TestACompressedMessageIsMarkedInAllItsPieces(t *testing.T) {
	got := everyCut(t, &Rules{RSV1: true, Client: true}, wire(
		"41 03 f2 48 cd  89 00  80 04 c9 c9 07 00"+ // "Hello", RFC 7692 §7.2.3.1
			"01 01 61 80 01 62"+
			"c1 07 f2 48 cd c9 c9 07 00"))
	if got.err != nil {
		t.Fatal(got.err)
	}
	var marks []bool
	for _, e := range got.events {
		marks = append(marks, e.compressed)
	}
	if want := []bool{true, false, true, false, false, true}; !reflect.DeepEqual(marks, want) {
		t.Errorf("Compressed = %v, want %v", marks, want)
	}
}

func TestParserAndConnAreSmallAndWithoutPointers(t *testing.T) {
	for _, test := range []struct {
		value any
		most  uintptr
	}{{Parser{}, 40}, {Conn{}, 48}, {UTF8(0), 1}} {
		typ := reflect.TypeOf(test.value)
		if typ.Size() > test.most {
			t.Errorf("%v has %d bytes, more than %d", typ, typ.Size(), test.most)
		}
		if hasPointers(typ) {
			t.Errorf("%v has pointers", typ)
		}
	}
	if !hasPointers(reflect.TypeFor[Rules]()) {
		t.Error("the test does not see the func in Rules")
	}
}

func hasPointers(t reflect.Type) bool {
	switch t.Kind() {
	case reflect.Struct:
		for f := range t.Fields() {
			if hasPointers(f.Type) {
				return true
			}
		}
		return false
	case reflect.Array:
		return hasPointers(t.Elem())
	}
	return t.Kind() < reflect.Bool || t.Kind() > reflect.Complex128 || t.Kind() == reflect.Uintptr
}

func TestNextDoesNotAllocate(t *testing.T) {
	rules := &Rules{RSV1: true, MaxMessage: 1 << 20}
	var text, broken []byte
	mask := [4]byte{}
	text = AppendMasked(text, true, ws.OpText, mask, []byte("Hello, wörld, 世界"))
	text = AppendMasked(text, false, ws.OpBinary, mask, make([]byte, 70000))
	text = AppendMasked(text, true, ws.OpPing, mask, []byte("ping"))
	text = AppendMasked(text, true, ws.OpContinuation, mask, make([]byte, 1000))
	broken = AppendMasked(broken, true, ws.OpText, mask, []byte{0xff})
	for _, input := range [][]byte{text, broken} {
		if n := testing.AllocsPerRun(100, func() {
			var c Conn
			var piece Piece
			var out [512]byte
			for rest := input; len(rest) > 0; {
				n, _, err := c.Next(rules, rest[:min(len(rest), 1000)], out[:0], &piece)
				if err != nil {
					break
				}
				rest = rest[n:]
			}
		}); n != 0 {
			t.Errorf("%v allocations", n)
		}
	}
}

// randomFrames makes a legal stream of one side, and what it says.
func randomFrames(rnd *rand.Rand, n int, masked bool) (stream []byte, want []event) {
	runes := []rune("aZ 0é߿ࠀ€퟿￿𐀀😀\U0010ffff")
	inside := false
	var op ws.OpCode
	for range n {
		h := ws.Header{Fin: rnd.IntN(3) > 0, Masked: masked}
		switch kind := rnd.IntN(10); {
		case kind == 0:
			h.Fin, h.OpCode = true, []ws.OpCode{ws.OpPing, ws.OpPong}[rnd.IntN(2)]
		case inside:
			h.OpCode = ws.OpContinuation
		default:
			op = []ws.OpCode{ws.OpText, ws.OpBinary}[rnd.IntN(2)]
			h.OpCode = op
		}
		size := rnd.IntN(40)
		if !h.OpCode.IsControl() && rnd.IntN(50) == 0 {
			size = []int{125, 126, 127, 128, 65535, 65536, 70000}[rnd.IntN(7)]
		}
		payload := make([]byte, 0, size)
		if op == ws.OpText && !h.OpCode.IsControl() {
			for len(payload) < size {
				payload = utf8.AppendRune(payload, runes[rnd.IntN(len(runes))])
			}
		} else {
			for range size {
				payload = append(payload, byte(rnd.Uint32()))
			}
		}
		e := event{header: h, op: h.OpCode, done: true, first: true, last: true, data: string(payload)}
		if !h.OpCode.IsControl() {
			e.op, e.first, e.last = op, h.OpCode != ws.OpContinuation, h.Fin
			inside = !h.Fin
		}
		e.header.Length = int64(len(payload))
		if masked {
			for i := range e.header.Mask {
				e.header.Mask[i] = byte(rnd.Uint32())
			}
			stream = AppendMasked(stream, h.Fin, h.OpCode, e.header.Mask, payload)
		} else {
			stream = AppendFrame(stream, h.Fin, h.OpCode, payload)
		}
		want = append(want, e)
	}
	return stream, want
}

func TestTenThousandRandomFramesComeBackAsTheyWere(t *testing.T) {
	for seed, rules := range []*Rules{server, client} {
		rnd := rand.New(rand.NewPCG(uint64(seed), 6455))
		for range 10 {
			stream, want := randomFrames(rnd, 500, !rules.Client)
			for name, cut := range map[string]func(int) int{
				"whole": whole, "by 1000": inChunks(1000), "at random": atRandom(uint64(seed)),
			} {
				got := run(t, rules, stream, cut)
				if got.err != nil {
					t.Fatal(name, got.err)
				}
				if !reflect.DeepEqual(got.events, want) {
					t.Fatalf("%s: events differ", name)
				}
			}
		}
	}
}
