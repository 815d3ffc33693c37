package frame

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"reflect"
	"testing"
	"unsafe"

	"github.com/gobwas/ws"
)

// pass feeds input to a Passage in chunks of the sizes that cut returns and
// returns what it passes on. After every part what was passed on must be
// whole frames, so that a Close can follow.
func pass(t testing.TB, r *Rules, hold int, input []byte, cut func(left int) int) (out []byte, err error) {
	t.Helper()
	var x Passage
	var part Part
	var kept []byte
	for len(input) > 0 {
		n := cut(len(input))
		b := append(append([]byte(nil), kept...), input[:n]...)
		input = input[n:]
		before := append([]byte(nil), b...)
		rest := b
		for {
			n, err := x.Next(r, rest, hold, &part)
			if err != nil {
				return out, err
			}
			if n == 0 {
				break
			}
			size := len(out)
			out = append(append(out, part.Head...), part.Bytes...)
			h, herr := ws.ReadHeader(bytes.NewReader(out[size:]))
			if herr != nil || int(h.Length) != part.Size || ws.HeaderSize(h)+part.Size != len(out)-size {
				t.Fatalf("part %+v is no whole frame: header %+v, %v", part, h, herr)
			}
			if h.Fin != part.Last || part.First != (h.OpCode != 0) {
				t.Fatalf("part %+v has the header %+v", part, h)
			}
			if part.Head == nil && !bytes.Equal(part.Bytes, rest[:n]) {
				t.Fatalf("a whole frame is not what came")
			}
			rest = rest[n:]
		}
		if !bytes.Equal(b, before) {
			t.Fatal("the input was written to")
		}
		if most := 14 + max(hold, 125); len(rest) >= most {
			t.Fatalf("%d bytes are kept, at most %d should be", len(rest), most)
		}
		kept = append([]byte(nil), rest...)
		for i := range b { // what was kept a reference to would show
			b[i] = 0xee
		}
	}
	return out, nil
}

// messagesIn reads all messages and control frames of a stream with a Parser.
func messagesIn(t testing.TB, r *Rules, b []byte) (all []string) {
	t.Helper()
	var p Parser
	var piece Piece
	var j Joiner
	b = bytes.Clone(b)
	for len(b) > 0 {
		n, err := p.Next(r, b, &piece)
		if err != nil || n == 0 {
			t.Fatalf("what was passed on cannot be read: %v, %d bytes left", err, len(b))
		}
		b = b[n:]
		name := string(rune('0' + piece.Op))
		if piece.Compressed {
			name += "c"
		}
		if piece.Op.IsControl() {
			all = append(all, name+string(piece.Data))
		} else if msg, whole := j.Add(&piece); whole {
			all = append(all, name+string(msg))
		}
	}
	return all
}

// passed is a stream of frames of every kind, of a client or of a server.
func passed(client bool, sizes ...int) (b []byte) {
	rng := rand.New(rand.NewPCG(1, 2))
	add := func(first byte, size int, key [4]byte) {
		payload := make([]byte, size)
		for i := range payload {
			payload[i] = byte(rng.Uint32())
		}
		h := ws.Header{Fin: first&bitFIN != 0, Rsv: first >> 4 & 7, OpCode: ws.OpCode(first & bitsOpcode), Length: int64(size), Masked: client, Mask: key}
		b = append(AppendHeader(b, h), payload...)
	}
	for _, size := range sizes {
		key := [4]byte{byte(size), 2, 3, byte(size >> 8)}
		add(0x82, size, key)
		add(0x01, size, key) // a message in three frames with a ping in the middle
		add(0x89, min(size, 125), key)
		add(0x00, size/2, [4]byte{})
		add(0x80, 3, key)
		add(0xc1, size, [4]byte{}) // compressed, and a key of zeros
	}
	return b
}

func TestPassageKeepsMessagesHoweverTheyAreCut(t *testing.T) {
	for _, client := range []bool{false, true} {
		r := &Rules{Client: !client, RSV1: true, SkipUTF8: true}
		small := passed(client, 0, 1, 5, 125, 126, 300, 1000)
		large := append(small[:len(small):len(small)], passed(client, 65535, 65536)...)
		rng := rand.New(rand.NewPCG(3, 4))
		for name, cut := range map[string]func(int) int{
			"whole":  func(left int) int { return left },
			"one":    func(int) int { return 1 },
			"seven":  func(left int) int { return min(left, 7) },
			"random": func(left int) int { return 1 + rng.IntN(min(left, 2000)) },
		} {
			in := large
			if name == "one" || name == "seven" {
				in = small
			}
			want := messagesIn(t, r, in)
			for _, hold := range []int{0, 200, 16 << 10} {
				out, err := pass(t, r, hold, in, cut)
				if err != nil {
					t.Fatalf("%s, hold %d: %v", name, hold, err)
				}
				if name == "whole" && !bytes.Equal(out, in) {
					t.Errorf("frames that are there whole were changed")
				}
				if got := messagesIn(t, r, out); !reflect.DeepEqual(got, want) {
					t.Errorf("%s, hold %d, from a client: %v: %d messages came, want %d the same", name, hold, client, len(got), len(want))
				}
			}
		}
	}
}

// On the wire: "Hello" of a client in RFC 6455 §5.7, cut behind its second
// byte. The key of the rest is turned by two.
func TestPassageMakesFragmentsOfARunOfAFrame(t *testing.T) {
	var x Passage
	var part Part
	r := &Rules{}
	n, err := x.Next(r, wire("81 85 37 fa 21 3d 7f 9f"), 0, &part)
	if err != nil || n != 8 || !bytes.Equal(append(part.Head, part.Bytes...), wire("01 82 37 fa 21 3d 7f 9f")) {
		t.Fatalf("% x % x, %d, %v", part.Head, part.Bytes, n, err)
	}
	if got := part.AppendPayload(nil); string(got) != "He" || !part.First || part.Last || !x.MidMessage() {
		t.Errorf("%q %+v", got, part)
	}
	n, err = x.Next(r, wire("4d 51 58"), 0, &part)
	if err != nil || n != 3 || !bytes.Equal(append(part.Head, part.Bytes...), wire("80 83 21 3d 37 fa 4d 51 58")) {
		t.Fatalf("% x % x, %d, %v", part.Head, part.Bytes, n, err)
	}
	if got := part.AppendPayload(nil); string(got) != "llo" || part.First || !part.Last || part.Op != ws.OpText || x != (Passage{}) {
		t.Errorf("%q %+v", got, part)
	}
}

func TestPassageHoldsSmallFramesUntilTheyAreWhole(t *testing.T) {
	var x Passage
	var part Part
	in := AppendFrame(nil, true, ws.OpBinary, make([]byte, 1000))
	r := &Rules{Client: true}
	for i := range in {
		if n, err := x.Next(r, in[:i], 1000, &part); n != 0 || err != nil {
			t.Fatalf("%d of %d bytes: %d, %v", i, len(in), n, err)
		}
	}
	if n, err := x.Next(r, in, 1000, &part); n != len(in) || err != nil || part.Head != nil {
		t.Fatalf("%d, %v", n, err)
	}
	if n, err := x.Next(r, in[:len(in)-1], 999, &part); n != len(in)-1 || err != nil {
		t.Fatalf("a frame that is larger is passed on as it comes: %d, %v", n, err)
	}
}

// Every fault that a Parser finds, a Passage finds at the same byte, but for
// what is in the text.
func TestPassageFindsWhatAParserFinds(t *testing.T) {
	rules := []*Rules{{SkipUTF8: true, MaxMessage: 200}, {Client: true, SkipUTF8: true}, {Client: true, RSV1: true, SkipUTF8: true}}
	for b0 := range 256 {
		for _, b1 := range []byte{0, 1, 5, 125, 126, 127, 0x80, 0x81, 0xfd, 0xfe, 0xff} {
			for _, open := range []bool{false, true} {
				for _, r := range rules {
					var in []byte
					if open {
						in = append(in, 0x02, 0)
						if !r.Client {
							in = append(in[:1], 0x80, 1, 2, 3, 4)
						}
					}
					in = append(in, byte(b0), b1, 0, 0, 0, 0, 0, 7, 1, 2, 9, 9, 9, 9, 9)
					sameFault(t, r, in)
				}
			}
		}
	}
}

func TestPassageCountsAMessageOverItsFragments(t *testing.T) {
	const key = " 00 00 00 00 "
	for _, in := range []string{
		"82 8b" + key,
		"82 8a" + key + "00 01 02 03 04 05 06 07 08 09",
		"02 88" + key + "00 01 02 03 04 05 06 07" + "80 83" + key,
		"02 88" + key + "00 01 02 03 04 05 06 07" + "00 81" + key + "08" + "80 82" + key,
		"02 88" + key + "00 01 02 03 04 05 06 07" + "80 82" + key + "08 09" + "82 8a" + key,
	} {
		sameFault(t, &Rules{SkipUTF8: true, MaxMessage: 10}, wire(in))
	}
}

func sameFault(t *testing.T, r *Rules, in []byte) {
	t.Helper()
	for i := range len(in) + 1 {
		var p Parser
		var piece Piece
		var x Passage
		var part Part
		want := drive(in[:i], func(b []byte) (int, error) { return p.Next(r, b, &piece) })
		got := drive(in[:i], func(b []byte) (int, error) { return x.Next(r, b, 0, &part) })
		if !errors.Is(got, want) {
			t.Fatalf("% x: %v, a Parser says %v", in[:i], got, want)
		}
		if _, again := x.Next(r, []byte{0x81}, 0, &part); got != nil && again != got {
			t.Fatalf("% x: the error is not final: %v", in[:i], again)
		}
	}
}

func drive(b []byte, next func([]byte) (int, error)) error {
	b = bytes.Clone(b)
	for {
		n, err := next(b)
		if n == 0 || err != nil {
			return err
		}
		b = b[n:]
	}
}

func TestPassageIsSmallAndAllocatesNothing(t *testing.T) {
	if size := unsafe.Sizeof(Passage{}); size > 32 {
		t.Errorf("%d bytes", size)
	}
	in := passed(true, 0, 100, 1000, 70000)
	r := &Rules{RSV1: true}
	var x Passage
	var part Part
	if n := testing.AllocsPerRun(10, func() {
		for b := in; len(b) > 0; {
			n, err := x.Next(r, b[:min(len(b), 5000)], 0, &part)
			if n == 0 || err != nil {
				t.Fatal(n, err)
			}
			b = b[n:]
		}
	}); n > 0 {
		t.Errorf("%v allocations", n)
	}
}

func FuzzPassage(f *testing.F) {
	f.Add(passed(true, 0, 5, 200), false, 0, uint64(1))
	f.Add(passed(false, 1, 126), true, 100, uint64(2))
	f.Fuzz(func(t *testing.T, in []byte, client bool, hold int, seed uint64) {
		hold = min(max(hold, 0), 1<<16)
		r := &Rules{Client: client, RSV1: true, SkipUTF8: true, MaxMessage: 1 << 20}
		whole, wholeErr := pass(t, r, hold, in, func(left int) int { return left })
		rng := rand.New(rand.NewPCG(seed, 0))
		cut, cutErr := pass(t, r, hold, in, func(left int) int { return 1 + rng.IntN(left) })
		if wholeErr != cutErr {
			t.Fatalf("%v in one piece, %v in many", wholeErr, cutErr)
		}
		// What was passed on is the same, as far as both have come.
		payload := func(b []byte) (all []byte) {
			var p Parser
			var piece Piece
			for b = bytes.Clone(b); ; {
				n, err := p.Next(r, b, &piece)
				if n == 0 || err != nil {
					return all
				}
				all = append(all, piece.Data...)
				b = b[n:]
			}
		}
		if a, b := payload(whole), payload(cut); !bytes.Equal(a, b) {
			t.Fatalf("%q in one piece, %q in many", a, b)
		}
	})
}
