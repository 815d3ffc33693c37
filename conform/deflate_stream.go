package conform

import (
	"encoding/binary"
	"math/bits"
	"slices"
)

// stream writes messages of permessage-deflate by hand (RFC 7692 §7.2.1, RFC 1951 §3.2), so that a case controls each of
// its bytes, and knows the text that they stand for. The zero value is the beginning of a stream. Its methods return it.
type stream struct {
	wire  []byte // the whole bytes of the message at hand
	acc   uint64 // bits behind them, the first one lowest
	nacc  uint   // how many, at most 7 between two calls
	text  []byte // all that was compressed: a match may reach back into earlier messages
	begin int    // where in text the message at hand begins
	far   int    // the greatest distance of a match
}

// match is a back-reference: length bytes, 3 to 258, from distance bytes back, 1 to 32768.
type match struct{ length, distance int }

// number writes n bits of v, at most 32, the lowest first.
func (d *stream) number(v, n int) *stream {
	d.acc |= uint64(v) & (1<<n - 1) << d.nacc
	for d.nacc += uint(n); d.nacc >= 8; d.nacc -= 8 {
		d.wire = append(d.wire, byte(d.acc))
		d.acc >>= 8
	}
	return d
}

// word writes a code word of n bits, the highest first.
func (d *stream) word(v, n int) *stream {
	return d.number(int(bits.Reverse32(uint32(v))>>(32-n)), n)
}

// align fills the last byte with zeros.
func (d *stream) align() *stream { return d.number(0, -int(d.nacc)&7) }

// stored writes one block without compression, of at most 65535 bytes; final sets BFINAL.
func (d *stream) stored(b []byte, final bool) *stream {
	d.number(b2i(final), 3).align().number(len(b), 16).number(^len(b), 16)
	d.wire = append(d.wire, b...)
	d.text = append(d.text, b...)
	return d
}

// symbol writes a literal, a length or the end in the fixed code.
func (d *stream) symbol(s int) *stream {
	switch {
	case s < 144:
		return d.word(0x30+s, 8)
	case s < 256:
		return d.word(0x190+s-144, 9)
	case s < 280:
		return d.word(s-256, 7)
	}
	return d.word(0xc0+s-280, 8)
}

const endOfBlock = 256

// fixed writes one block in the fixed code: parts are strings and matches.
func (d *stream) fixed(parts ...any) *stream {
	return d.number(1<<1, 3).parts(parts...).symbol(endOfBlock)
}

// final is fixed with BFINAL (RFC 7692 §7.2.3.4); what follows begins at a whole byte.
func (d *stream) final(parts ...any) *stream {
	return d.number(1|1<<1, 3).parts(parts...).symbol(endOfBlock).align()
}

func (d *stream) parts(parts ...any) *stream {
	for _, p := range parts {
		switch p := p.(type) {
		case string:
			d.literals([]byte(p))
		case []byte:
			d.literals(p)
		case match:
			d.match(p.length, p.distance)
		}
	}
	return d
}

func (d *stream) literals(b []byte) {
	for _, c := range b {
		d.symbol(int(c))
	}
	d.text = append(d.text, b...)
}

// match writes a back-reference. If there are not so many bytes to go back, the text is not changed, since there is none.
func (d *stream) match(length, distance int) {
	s, extra, n := lengthSymbol(length)
	d.symbol(s).number(extra, n)
	s, extra, n = distanceSymbol(distance)
	d.word(s, 5).number(extra, n)
	d.far = max(d.far, distance)
	for i := len(d.text) - distance; i >= 0 && length > 0; length-- {
		d.text = append(d.text, d.text[i])
		i++
	}
}

// lengthSymbol is the symbol of a length, with its extra bits and their number (RFC 1951 §3.2.5).
func lengthSymbol(length int) (symbol, extra, n int) {
	switch l := length - 3; {
	case length == 258:
		return 285, 0, 0
	case l < 8:
		return 257 + l, 0, 0
	default:
		n = bits.Len(uint(l)) - 3
		return 257 + 4*n + l>>n, l & (1<<n - 1), n
	}
}

// distanceSymbol is the same for a distance.
func distanceSymbol(distance int) (symbol, extra, n int) {
	x := distance - 1
	if x < 4 {
		return x, 0, 0
	}
	n = bits.Len(uint(x)) - 2
	return 2*n + x>>n, x & (1<<n - 1), n
}

// dynamicHead writes the head of a block with a code of its own, as far as the code for lengths (RFC 1951 §3.2.7): in
// that, the symbols of ofLens have words of the lengths behind them.
func (d *stream) dynamicHead(literals, distances int, ofLens map[int]int) *stream {
	d.number(2<<1, 3).number(literals-257, 5).number(distances-1, 5).number(15, 4)
	for _, s := range []int{16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15} {
		d.number(ofLens[s], 3)
	}
	return d
}

// flatLens is a code for lengths in which 0 to 15 are words of four bits, their own values.
func flatLens() map[int]int {
	m := map[int]int{}
	for i := range 16 {
		m[i] = 4
	}
	return m
}

// dynamic writes the head of a block whose literals and distances have code words of these lengths.
func (d *stream) dynamic(literals, distances []int) *stream {
	d.dynamicHead(len(literals), len(distances), flatLens())
	for _, n := range slices.Concat(literals, distances) {
		d.word(n, 4)
	}
	return d
}

// lens is a list of n lengths, 0 but those that are given: symbol, length.
func lens(n int, pairs ...int) []int {
	l := make([]int, n)
	for i := 0; i < len(pairs); i += 2 {
		l[pairs[i]] = pairs[i+1]
	}
	return l
}

// message ends the message as §7.2.1 asks, with an empty stored block whose last four bytes are left away, and returns
// its bytes and its text, both the caller's. The next message begins.
func (d *stream) message() (wire, text []byte) {
	d.number(0, 3)
	return d.cut()
}

// cut ends the message without that block, wherever it stands.
func (d *stream) cut() (wire, text []byte) {
	d.align()
	wire, text = d.wire, slices.Clone(d.text[d.begin:])
	d.wire, d.begin = nil, len(d.text)
	return wire, text
}

// forget makes the window empty, as it is without context takeover.
func (d *stream) forget() { d.text, d.begin = nil, 0 }

// squeeze writes b as one block in the fixed code with the matches that a small table finds, none of them from farther back
// than 1<<windowBits: what a plain compressor would make of it.
func (d *stream) squeeze(b []byte, windowBits uint8) *stream {
	d.number(1<<1, 3)
	var last [1 << 14]int // where a hash was seen, plus one
	from := len(d.text)
	d.text = append(d.text, b...)
	t := d.text
	hash := func(i int) uint32 { return binary.LittleEndian.Uint32(t[i:]) * 2654435761 >> 18 }
	for i := max(0, from-1<<windowBits); i < from && i+4 <= len(t); i++ {
		last[hash(i)] = i + 1
	}
	for i := from; i < len(t); {
		length, at := 0, 0
		if i+4 <= len(t) {
			h := hash(i)
			at, last[h] = last[h]-1, i+1
			for at >= 0 && i-at <= 1<<windowBits && length < 258 && i+length < len(t) && t[at+length] == t[i+length] {
				length++
			}
		}
		if length < 4 {
			d.symbol(int(t[i]))
			i++
			continue
		}
		s, extra, n := lengthSymbol(length)
		d.symbol(s).number(extra, n)
		s, extra, n = distanceSymbol(i - at)
		d.word(s, 5).number(extra, n)
		for end := i + length; i < end; i++ {
			if i+4 <= len(t) {
				last[hash(i)] = i + 1
			}
		}
	}
	return d.symbol(endOfBlock)
}

func b2i(b bool) int {
	if b {
		return 1
	}
	return 0
}
