package frame

import (
	"encoding/binary"
	"math/bits"
)

// UTF8 checks a stream of UTF-8 (RFC 3629) that comes in pieces, and finds
// the first byte that cannot be part of it. The zero value is the start of a
// text. It is one byte and remembers no text, only what may come next.
type UTF8 uint8

// What may come next. The second byte of four lead bytes is limited further
// than to 80..BF: that keeps out overlong forms, surrogates, and what lies
// beyond U+10FFFF (RFC 3629 §3 and §4; RFC 6455 §8.1 says what a failure costs).
const (
	utf8Start UTF8 = iota // a code point's first byte
	utf8Tail1             // one more byte 80..BF
	utf8Tail2             // two more
	utf8Tail3             // three more
	utf8AftE0             // A0..BF and one more
	utf8AftED             // 80..9F and one more
	utf8AftF0             // 90..BF and two more
	utf8AftF4             // 80..8F and two more
	utf8Bad               // nothing: the text is broken
)

// Done reports whether the text may end here: it is valid and does not stop
// inside a code point.
func (s UTF8) Done() bool { return s == utf8Start }

// Write checks the next bytes of the text. When ok is false, b[n] is the first
// byte of the text that is wrong, and every later Write fails with n = 0.
// Otherwise n is len(b).
func (s *UTF8) Write(b []byte) (n int, ok bool) {
	state := *s
	for n < len(b) {
		if state == utf8Start {
			// All but the first and last few bytes are passed here.
			if n += wholeRunes(b[n:]); n == len(b) {
				break
			}
		}
		if state = state.step(b[n]); state == utf8Bad {
			*s = state
			return n, false
		}
		n++
	}
	*s = state
	return n, true
}

// step takes one byte, by the grammar of RFC 3629 §4.
func (s UTF8) step(c byte) UTF8 {
	low, high := byte(0x80), byte(0xbf)
	next := utf8Start
	switch s {
	case utf8Start:
		return lead(c)
	case utf8Tail1:
	case utf8Tail2:
		next = utf8Tail1
	case utf8Tail3:
		next = utf8Tail2
	case utf8AftE0: // E0 80..9F would be an overlong form
		low, next = 0xa0, utf8Tail1
	case utf8AftED: // ED A0..BF would be a surrogate
		high, next = 0x9f, utf8Tail1
	case utf8AftF0: // F0 80..8F would be an overlong form
		low, next = 0x90, utf8Tail2
	case utf8AftF4: // F4 90..BF would be beyond U+10FFFF
		high, next = 0x8f, utf8Tail2
	default:
		return utf8Bad
	}
	if c < low || c > high {
		return utf8Bad
	}
	return next
}

// lead takes the first byte of a code point.
func lead(c byte) UTF8 {
	switch {
	case c < 0x80:
		return utf8Start
	case c < 0xc2: // a continuation byte, or C0, C1: always overlong
		return utf8Bad
	case c < 0xe0:
		return utf8Tail1
	case c == 0xe0:
		return utf8AftE0
	case c == 0xed:
		return utf8AftED
	case c < 0xf0:
		return utf8Tail2
	case c == 0xf0:
		return utf8AftF0
	case c < 0xf4:
		return utf8Tail3
	case c == 0xf4:
		return utf8AftF4
	}
	return utf8Bad
}

// wholeRunes returns the length of a prefix of b that is made of whole valid
// code points. It stops early: before a wrong one, and before one that has
// less than four bytes of b left; step judges those.
func wholeRunes(b []byte) int {
	i := 0
	for {
		// ASCII by the 32 bytes, then by the eight.
		for len(b)-i >= 32 {
			q := b[i : i+32]
			if (binary.LittleEndian.Uint64(q)|binary.LittleEndian.Uint64(q[8:])|
				binary.LittleEndian.Uint64(q[16:])|binary.LittleEndian.Uint64(q[24:]))&highBits != 0 {
				break
			}
			i += 32
		}
		for {
			if len(b)-i < 8 {
				for i < len(b) && b[i] < 0x80 {
					i++
				}
				return i
			}
			if w := binary.LittleEndian.Uint64(b[i:]) & highBits; w != 0 {
				i += bits.TrailingZeros64(w) / 8
				break
			}
			i += 8
		}
		// Other scripts come in runs: stay here as long as they last. A
		// single ASCII byte between them, a blank, does not end a run.
		for {
			if len(b)-i < 4 {
				return i
			}
			// A code point's bytes, the first one lowest. One comparison
			// looks at the marks of all its bytes, and a few bits of the
			// first two tell the forms that are forbidden.
			w := binary.LittleEndian.Uint32(b[i:])
			if w&0xc0e0 == 0x80c0 { // 110xxxxx 10xxxxxx
				if w&0x1e == 0 { // below U+0080
					return i
				}
				i += 2
			} else if w&0xc0c0f0 == 0x8080e0 { // 1110xxxx 10xxxxxx 10xxxxxx
				if d := w & 0x200f; d == 0 || d == 0x200d { // below U+0800, surrogate
					return i
				}
				i += 3
			} else if w&0x8080 == 0x8000 { // ASCII, then something else
				i++
			} else if w&0x80 == 0 {
				break
			} else if w&0xc0c0c0f8 == 0x808080f0 { // 11110xxx and three 10xxxxxx
				if plane := w&7<<2 | w>>12&3; plane-1 > 15 {
					return i
				}
				i += 4
			} else {
				return i
			}
		}
	}
}
