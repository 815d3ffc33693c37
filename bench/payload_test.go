package bench

import (
	"bytes"
	"fmt"
	"testing"

	"wspoll/frame"

	"github.com/gobwas/ws"
)

func TestTheNumberOfAMessageIsReadBack(t *testing.T) {
	for _, size := range []int{8, 9, 125, 126, 70_000} {
		tm := &templates(&Config{SizeMin: size, SizeMax: size, Text: true}, false)[0]
		for _, seq := range []uint32{0, 1, 0x89abcdef, ^uint32(0)} {
			tm.number(seq)
			var p frame.Parser
			var piece frame.Piece
			n, err := p.Next(&frame.Rules{}, bytes.Clone(tm.wire), &piece)
			if err != nil || n != len(tm.wire) || piece.Op != ws.OpText || !piece.Last || len(piece.Data) != size {
				t.Fatalf("%d bytes: %+v, %v", size, piece, err)
			}
			got, ok := parseSeq((*[seqSize]byte)(piece.Data))
			if !ok || got != seq || string(piece.Data[:seqSize]) != fmt.Sprintf("%08x", seq) || !bytes.Equal(piece.Data[seqSize:], tm.payload[seqSize:]) {
				t.Errorf("%d bytes: %x, want %x", size, got, seq)
			}
		}
	}
}

func TestWhatIsNoNumberIsRefused(t *testing.T) {
	for _, s := range []string{"0000000g", "ABCDEF00", "        ", "-0000001", "0000\x000000"[:8]} {
		if _, ok := parseSeq((*[seqSize]byte)([]byte(s))); ok {
			t.Errorf("%q is a number", s)
		}
	}
}

func TestARangeOfSizesIsTheSameInEachRunAndWithinTheRange(t *testing.T) {
	cfg := Config{SizeMin: 10, SizeMax: 20}
	a, b := templates(&cfg, false), templates(&cfg, true)
	seen := map[int]bool{}
	for i := range a {
		n := len(a[i].payload)
		if n < 10 || n > 20 || n != len(b[i].payload) || !bytes.Equal(b[i].wire, b[i].payload) || b[i].seq {
			t.Errorf("%d and %d bytes", n, len(b[i].payload))
		}
		seen[n] = true
	}
	if len(seen) < 8 {
		t.Errorf("sizes %v", seen)
	}
	if one := templates(&Config{SizeMin: 10, SizeMax: 20, Payload: []byte("x")}, false); len(one) != 1 || one[0].seq || string(one[0].payload) != "x" {
		t.Errorf("%+v", one)
	}
}
