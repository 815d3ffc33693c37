package frame

import (
	"encoding/binary"
	"math/bits"

	"github.com/gobwas/ws"
)

const highBits = 0x8080808080808080 // the top bit of each of eight bytes

// simdMin is the payload from which ws.Cipher's blocks win over words.
const simdMin = 128

// keyOf returns the masking key (§5.3) at the front of b as a word whose lowest
// byte is the first: it turns and repeats more cheaply than a [4]byte.
func keyOf(b []byte) uint32 { return binary.LittleEndian.Uint32(b) }

// unmask applies the XOR of §5.3 to b in place. offset is the position of b[0]
// in the frame's payload, modulo 4. ascii true says that every byte came out
// below 0x80; false says nothing: long payloads are not looked at.
func unmask(b []byte, key uint32, offset int) (ascii bool) {
	if len(b) >= simdMin {
		var mask [4]byte
		binary.LittleEndian.PutUint32(mask[:], key)
		ws.Cipher(b, mask, offset)
		return false
	}
	// The key as it lies under b[0], b[1]...: turned by the offset.
	key = bits.RotateLeft32(key, -8*offset)
	if len(b) < 8 {
		var seen byte
		for i := range b {
			b[i] ^= byte(key)
			seen |= b[i]
			key = bits.RotateLeft32(key, -8)
		}
		return seen < 0x80
	}
	// The last eight bytes are done apart, so that no odd bytes remain: they
	// overlap the words before them and are computed from what they were.
	tail := b[len(b)-8:]
	last := binary.LittleEndian.Uint64(tail) ^ twice(bits.RotateLeft32(key, -8*(len(b)&3)))
	k, seen := twice(key), last
	for ; len(b) > 8; b = b[8:] {
		w := binary.LittleEndian.Uint64(b) ^ k
		binary.LittleEndian.PutUint64(b, w)
		seen |= w
	}
	binary.LittleEndian.PutUint64(tail, last)
	return seen&highBits == 0
}

// twice repeats a masking key over eight bytes.
func twice(key uint32) uint64 { return uint64(key)<<32 | uint64(key) }
