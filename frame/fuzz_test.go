package frame

import (
	"bytes"
	"errors"
	"io"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/gobwas/ws"
)

// naive reads the same frames with gobwas/ws and no regard to speed. It
// returns the whole frames up to the end or to the first fault.
func naive(input []byte) (frames []ws.Frame) {
	r := bytes.NewReader(input)
	for {
		h, err := ws.ReadHeader(r)
		if err != nil || h.Length > int64(r.Len()) {
			return frames
		}
		f := ws.Frame{Header: h, Payload: make([]byte, h.Length)}
		if _, err := io.ReadFull(r, f.Payload); err != nil {
			return frames
		}
		if h.Masked {
			for i := range f.Payload {
				f.Payload[i] ^= h.Mask[i%4]
			}
		}
		frames = append(frames, f)
	}
}

func FuzzHeader(f *testing.F) {
	for _, s := range []string{
		"81 05", "81 85 37 fa 21 3d", "82 7e 0100", "82 7f 0000000000010000",
		"82 7f 8000000000000000", "89 7e 0005", "c1 00", "83", "31 ff", "82 fe 00", "82 ff 00 00 00 00 00 00 00 05 01 02 03 04",
	} {
		f.Add(wire(s), true, false)
		f.Add(wire(s), false, true)
	}
	f.Fuzz(func(t *testing.T, b []byte, isClient, rsv1 bool) {
		if len(b) > ws.MaxHeaderSize {
			b = b[:ws.MaxHeaderSize]
		}
		rules := &Rules{Client: isClient, RSV1: rsv1, SkipUTF8: true}
		// With room for payload behind the header, a header that is whole and
		// legal is always delivered, and otherwise the reason is plain.
		in := append(bytes.Clone(b), make([]byte, 128)...)
		var p Parser
		var piece Piece
		n, err := p.Next(rules, in, &piece)

		h, want := ws.ReadHeader(bytes.NewReader(append(bytes.Clone(b), make([]byte, 128)...)))
		state := ws.StateServerSide
		if isClient {
			state = ws.StateClientSide
		}
		if rsv1 {
			state = state.Set(ws.StateExtended)
		}
		if want == nil {
			want = ws.CheckHeader(h, state)
		}
		if want != nil {
			if err == nil {
				t.Fatalf("%x is taken, gobwas says: %v", b, want)
			}
			return
		}
		minimal := AppendHeader(nil, h)
		switch {
		// In the order of the bytes that show it.
		case h.Rsv&3 != 0:
			if err != error(ErrReservedBits) {
				t.Fatalf("%x: %v, want %v", b, err, ErrReservedBits)
			}
		case h.Rsv != 0 && (h.OpCode.IsControl() || h.OpCode == ws.OpContinuation):
			if err != error(ErrRSV1Misplaced) {
				t.Fatalf("%x: %v, want %v", b, err, ErrRSV1Misplaced)
			}
		case h.OpCode.IsControl() && in[1]&0x7f > 125:
			// Not minimal too, but this is seen two bytes earlier.
			if err != error(ErrControlTooLong) {
				t.Fatalf("%x: %v, want %v", b, err, ErrControlTooLong)
			}
		case len(minimal) != headerSize(in):
			if err != error(ErrLengthNotMinimal) {
				t.Fatalf("%x: %v, want %v", b, err, ErrLengthNotMinimal)
			}
		case err != nil || n == 0:
			t.Fatalf("%x: %d, %v, but gobwas takes it: %+v", b, n, err, h)
		case piece.Header != h:
			t.Fatalf("%x: %+v, gobwas: %+v", b, piece.Header, h)
		}
	})
}

// headerSize is what the header at the front of b takes, minimal or not.
func headerSize(b []byte) int {
	n := 2
	switch b[1] & 0x7f {
	case 126:
		n += 2
	case 127:
		n += 8
	}
	if b[1]&0x80 != 0 {
		n += 4
	}
	return n
}

func FuzzChunks(f *testing.F) {
	for _, s := range []string{
		"81 85 37 fa 21 3d 7f 9f 4d 51 58",
		"01 03 48 65 6c 89 00 80 02 6c 6f",
		"82 7e 0100", "82 7f 8000000000000000", "01 01 e2 80 02 82 ac",
		"88 02 03 e8 81 00", "c1 07 f2 48 cd c9 c9 07 00", "81 04 61 f4 90 80",
	} {
		f.Add(wire(s), uint64(1), true, uint16(0))
		f.Add(wire(s), uint64(2), false, uint16(20))
	}
	f.Fuzz(func(t *testing.T, input []byte, seed uint64, isClient bool, limit uint16) {
		if len(input) > 1<<10 {
			return
		}
		rules := &Rules{Client: isClient, RSV1: seed&1 != 0, MaxMessage: uint64(limit), SkipUTF8: seed&6 == 6}
		want := run(t, rules, input, whole)
		same(t, "byte by byte", want, run(t, rules, input, oneByOne))
		same(t, "at random", want, run(t, rules, input, atRandom(seed)))

		frames := naive(input)
		for i, e := range finished(want.events) {
			if i >= len(frames) || frames[i].Header != e.header || string(frames[i].Payload) != e.data {
				t.Fatalf("frame %d is %+v, gobwas: %+v", i, e, frames)
			}
		}
		if want.err == nil && len(finished(want.events)) != len(frames) {
			t.Fatalf("%d frames, gobwas: %d", len(want.events), len(frames))
		}
		checkMessages(t, rules, want)
	})
}

// checkMessages holds the whole messages of a result to the rules, naively.
func checkMessages(t *testing.T, rules *Rules, res result) {
	t.Helper()
	var text strings.Builder
	for _, e := range res.events {
		if e.op.IsControl() {
			if len(e.data) > 125 || !e.done {
				t.Fatalf("control frame %+v", e)
			}
			continue
		}
		if e.first {
			text.Reset()
		}
		text.WriteString(e.data)
		if limit := rules.MaxMessage; limit != 0 && uint64(text.Len()) > limit {
			t.Fatalf("a message of %d bytes, limit %d", text.Len(), limit)
		}
		if e.last && e.op == ws.OpText && !e.compressed && !rules.SkipUTF8 && !utf8.ValidString(text.String()) {
			t.Fatalf("not UTF-8: %q", text.String())
		}
	}
	if errors.Is(res.err, ErrTextUTF8) && rules.SkipUTF8 {
		t.Fatal("text checked that should not be")
	}
}
