package frame

import (
	"bytes"
	"math/rand/v2"
	"testing"
)

// maskNaive is §5.3 word by word: octet i XOR masking-key-octet i MOD 4.
func maskNaive(b []byte, mask [4]byte, offset int) []byte {
	out := make([]byte, len(b))
	for i := range b {
		out[i] = b[i] ^ mask[(offset+i)%4]
	}
	return out
}

func TestUnmaskingIsTheFormulaOfTheRFC(t *testing.T) {
	rnd := rand.New(rand.NewPCG(5, 3))
	for size := range 300 {
		for offset := range 4 {
			var mask [4]byte
			buf := make([]byte, size+16)
			for i := range buf {
				buf[i] = byte(rnd.Uint32())
			}
			for i := range mask {
				mask[i] = byte(rnd.Uint32())
			}
			b := buf[8 : 8+size]
			before, want := bytes.Clone(buf), maskNaive(b, mask, offset)
			unmask(b, keyOf(mask[:]), offset)
			if !bytes.Equal(b, want) {
				t.Fatalf("%d bytes at offset %d differ", size, offset)
			}
			if !bytes.Equal(buf[:8], before[:8]) || !bytes.Equal(buf[8+size:], before[8+size:]) {
				t.Fatalf("%d bytes at offset %d: neighbours changed", size, offset)
			}
		}
	}
}

func TestUnmaskingSeesEveryByteThatIsNotASCII(t *testing.T) {
	for size := range simdMin + 10 {
		text := bytes.Repeat([]byte("a"), size)
		b := maskNaive(text, rfcMask, 1)
		if got, want := unmask(b, keyOf(rfcMask[:]), 1), size < simdMin; got != want {
			t.Errorf("%d bytes of ASCII: %v", size, got)
		}
		for i := range size {
			text[i] = 0x80
			b := maskNaive(text, rfcMask, 1)
			if unmask(b, keyOf(rfcMask[:]), 1) {
				t.Errorf("byte %d of %d was taken for ASCII", i, size)
			}
			text[i] = 'a'
		}
	}
}
