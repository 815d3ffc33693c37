package frame

import (
	"bytes"
	"compress/flate"
	"io"
	"testing"
)

// flateSays is what compress/flate makes of a message of RFC 7692, a fresh one
// or one behind history. It stops at a block with BFINAL, so it is set on again
// behind it.
func flateSays(in, history []byte, end string) ([]byte, error) {
	r := bytes.NewReader(append(append(bytes.Clone(in), syncTail...), end...))
	out := bytes.Clone(history)
	for r.Len() > 0 {
		part, err := io.ReadAll(flate.NewReaderDict(r, out[max(0, len(out)-maxWindow):]))
		out = append(out, part...)
		if err != nil {
			return out[len(history):], err
		}
	}
	return out[len(history):], nil
}

// Any bytes, cut anyhow and suspended, are judged as the slow decoder and as
// compress/flate judge them.
func FuzzInflate(f *testing.F) {
	for _, s := range []string{
		"f2 48 cd c9 c9 07 00", "f2 00 11 00 00", "00 05 00 fa ff 48 65 6c 6c 6f 00", "f3 48 cd c9 c9 07 00 00",
		"f2 48 05 00 00 00 ff ff ca c9 c9 07 00", "00", "", "07", "05 80 01 00 00 00 00 00 10 ff 6b ab 00",
	} {
		f.Add(wire(s), []byte("Hello"), uint8(15), uint64(1))
	}
	for level := flate.HuffmanOnly; level <= flate.BestCompression; level++ {
		f.Add(deflated(f, level, sampleText[:600]), []byte{}, uint8(15), uint64(level+8))
	}
	for _, s := range corruptions() {
		f.Add(s.in, []byte{}, uint8(8), uint64(3))
	}
	f.Fuzz(func(t *testing.T, in, history []byte, bits uint8, seed uint64) {
		if len(in) > 2000 {
			return // the judge is slow
		}
		bits = 8 + bits%8
		history = history[max(0, len(history)-1<<bits):]
		out, err := judged(t, history, in, bits, func() func(int) int { return atRandom(seed) })
		if bits < 15 {
			return // compress/flate has one window
		}
		// A stored block and a fixed one, both final and empty, show whether
		// flate stands between two blocks: it cannot read both to the end, to
		// no output, from within one.
		says := [2][]byte{}
		var errs [2]error
		says[0], errs[0] = flateSays(in, history, "\x01\x00\x00\xff\xff")
		says[1], errs[1] = flateSays(in, history, "\x03\x00")
		accepts := errs[0] == nil && errs[1] == nil && bytes.Equal(says[0], says[1])
		switch {
		case err == nil && !accepts:
			t.Fatalf("% x: flate refuses it: %v, %v", in, errs[0], errs[1])
		case err == nil && !bytes.Equal(out, says[0]):
			t.Fatalf("% x: flate inflates it to %q, not %q", in, says[0], out)
		case err != nil && accepts:
			t.Fatalf("% x: flate accepts it", in)
		}
	})
}
