package frame

import (
	"encoding/binary"
	"math/bits"
)

// The codes of DEFLATE (RFC 1951 §3.2) as tables that the next bits of the
// stream are an index into. A table has a first part for the first bits of a
// code word, so many as the root has, and behind it a part for each beginning of
// longer words. A table is no wider than its longest word wants it: that of a
// short message is quickly made.
const (
	literalRoot  = 10
	distanceRoot = 8
	lengthsRoot  = 7

	// Room for the largest tables. The words come in the order of their
	// lengths, so a part behind the first one has words all of one length,
	// and as many entries as words, or its longest word is longer than any
	// in the parts before it: at most 2+4+...+32 entries more for literals,
	// 2+4+...+128 for distances. That makes 1024+286+62 and 256+30+254; as
	// powers of two, for an index that is masked needs no check.
	literalRoom  = 2048
	distanceRoom = 1024
)

// One entry of a table:
//
//	bits  0 to 5    bits to take off the stream: code word and extra bits
//	bits  8 to 11   how many of these are the code word's
//	bit  13         end of block, if special
//	bit  14         the word goes on: see the part of the table that begins at
//	                the value and has as many index bits as bits 8 to 11 say
//	bit  15         special: one of the two above, or a word that means nothing
//	bits 16 to 30   the value: a byte; or what the extra bits are added to
//	bit  31         the value is a byte
const (
	takeMask   = 63
	wordShift  = 8
	wordMask   = 15
	endOfBlock = 1 << 13
	goesOn     = 1 << 14
	special    = 1 << 15
	valueShift = 16
	valueMask  = 1<<15 - 1
	literal    = 1 << 31
	oneBit     = 1<<wordShift | 1 // a code word of one bit, to be multiplied
	noSuchWord = special
	endSymbol  = 256 // the symbol for the end of a block
)

type (
	literalTable  [literalRoom]uint32
	distanceTable [distanceRoom]uint32
)

// Most symbols that a block may use (RFC 1951 §3.2.7). The two literals and the
// two distances beyond them are part of the fixed code, with no meaning.
const (
	maxLiterals  = 286
	maxDistances = 30
	maxLengths   = 19
)

// The entries of the symbols without their code words, for literals and
// lengths, for distances, and for the lengths of the code words.
var (
	literalSymbols  = makeLiterals()
	distanceSymbols = makeDistances()
	lengthsSymbols  = makeLengths()
)

// The fixed code of RFC 1951 §3.2.6. It is only read.
var fixed = makeFixed()

func makeLiterals() (s [288]uint32) {
	for i := range uint32(256) {
		s[i] = literal | i<<valueShift
	}
	s[endSymbol] = special | endOfBlock
	length := uint32(3)
	for i := range uint32(28) {
		extra := max(i, 4)/4 - 1
		s[257+i] = length<<valueShift | extra
		length += 1 << extra
	}
	s[285] = 258 << valueShift // without extra bits, though 284 reaches it too
	s[286], s[287] = noSuchWord, noSuchWord
	return s
}

func makeDistances() (s [32]uint32) {
	distance := uint32(1)
	for i := range uint32(30) {
		extra := max(i, 2)/2 - 1
		s[i] = distance<<valueShift | extra
		distance += 1 << extra
	}
	s[30], s[31] = noSuchWord, noSuchWord
	return s
}

// makeLengths: 0 to 15 are lengths; the others say how often something is
// repeated: 16, which is special, the length before, 17 and 18 a zero.
func makeLengths() (s [maxLengths]uint32) {
	for i := range uint32(16) {
		s[i] = literal | i<<valueShift
	}
	s[16] = special | 3<<valueShift | 2
	s[17] = 3<<valueShift | 3
	s[18] = 11<<valueShift | 7
	return s
}

type fixedCode struct {
	literals      literalTable
	distances     distanceTable
	literalMask   uint64
	distancesMask uint64
}

func makeFixed() *fixedCode {
	var lens [288]uint8
	for i := range lens {
		switch {
		case i < 144:
			lens[i] = 8
		case i < 256:
			lens[i] = 9
		case i < 280:
			lens[i] = 7
		default:
			lens[i] = 8
		}
	}
	f := new(fixedCode)
	f.literalMask, _ = build(f.literals[:], literalRoot, literalSymbols[:], lens[:])
	for i := range 32 {
		lens[i] = 5
	}
	f.distancesMask, _ = build(f.distances[:], distanceRoot, distanceSymbols[:], lens[:32])
	return f
}

// build makes the table of the code whose word for symbol i has lens[i] bits, 0
// to 15, 0 if the symbol has no word (RFC 1951 §3.2.2). mask is for the index
// into the first part of the table. ok is false when there is no such code:
// when words are the beginning of others, or when some bits are no word at
// all. A code of one word of one bit, and one of no word, are let pass (mask is
// then 1): RFC 1951 §3.2.7 has them for distances.
func build(table []uint32, root int, symbols []uint32, lens []uint8) (mask uint64, ok bool) {
	// The symbols of each length, ascending, as lists: where a list begins,
	// and for a symbol the next one. Most lengths are often 0, in long runs.
	var (
		begin, count [16]uint16
		next         [288]uint16
	)
	for i := len(lens); i > 0; {
		if i >= 8 && binary.LittleEndian.Uint64(lens[i-8:]) == 0 {
			i -= 8
			continue
		}
		for end := max(i-8, 0); i > end; {
			i--
			n := lens[i] & 15
			next[i] = begin[n]
			begin[n] = uint16(i)
			count[n]++
		}
	}
	longest, left := 0, 1
	for n := 1; n < 16; n++ {
		left = left<<1 - int(count[n])
		if left < 0 {
			return 0, false
		}
		if count[n] != 0 {
			longest = n
		}
	}
	if left > 0 {
		if longest > 1 {
			return 0, false
		}
		table[0], table[1] = noSuchWord|oneBit, noSuchWord|oneBit
		if longest == 1 {
			table[0] = symbols[begin[1]] + oneBit
		}
		return 1, true
	}

	// Code words are packed from their first bit on, the stream is read from
	// its lowest bit on: word is the code word mirrored. Up to the root, what
	// there is of the table is doubled for each length more.
	root = min(root, longest)
	word, size := 0, 1
	for n := 1; n <= root; n++ {
		copy(table[size:2*size], table[:size])
		size *= 2
		for i, k := begin[n], count[n]; k > 0; k-- {
			table[word] = symbols[i] + uint32(n)*oneBit
			word = nextWord(word, size-1)
			i = next[i]
		}
	}
	mask = uint64(size - 1)

	// The longer words. One part of the table is for all that share their
	// first bits, as wide as the longest of these is: so many words that the
	// rest of them, all put together, fill it.
	part, end := 0, size
	prefix := -1
	for n := root + 1; n <= longest; n++ {
		for i, k := begin[n], count[n]; k > 0; k-- {
			if p := word & int(mask); p != prefix {
				prefix = p
				width := n - root
				for filled := int(k); filled < 1<<width; {
					width++
					filled = filled<<1 + int(count[root+width])
				}
				part, end = end, end+1<<width
				table[p] = special | goesOn | uint32(part)<<valueShift | uint32(width)<<wordShift | uint32(root)
			}
			e := symbols[i] + uint32(n-root)*oneBit
			for at := part + word>>root; at < end; at += 1 << (n - root) {
				table[at] = e
			}
			word = nextWord(word, 1<<n-1)
			i = next[i]
		}
	}
	return mask, true
}

// nextWord is the code word behind word, both mirrored: 1 is added at the top
// end and carried downwards. ones is a word of the same length, all ones; the
// one behind that is not used.
func nextWord(word, ones int) int {
	bit := 1 << bits.Len(uint(word^ones)) >> 1
	return word&(bit-1) | bit
}

// lengthsOrder is the order in which the lengths of the code for lengths are
// written (RFC 1951 §3.2.7).
var lengthsOrder = [maxLengths]uint8{16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15}

// codeLengths are the lengths of the code words of a dynamic block: of literals
// and lengths, behind them of distances, each 0 to 15; and from ofLengths on of
// the code in which these are written, each 0 to 7.
type codeLengths [ofLengths + maxLengths + 1]uint8

const ofLengths = maxLiterals + maxDistances

// packedLengths are codeLengths, two in a byte.
type packedLengths [(ofLengths + maxLengths + 1) / 2]uint8

func (c *codeLengths) pack(p *packedLengths) {
	for i := range p {
		p[i] = c[2*i] | c[2*i+1]<<4
	}
}

func (c *codeLengths) unpack(p *packedLengths) {
	for i, n := range p {
		c[2*i], c[2*i+1] = n&15, n>>4
	}
}

// prepareLengths makes the table of the code for lengths. It wants a complete
// code: one that is let pass for distances is not.
func (z *Inflater) prepareLengths() (ok bool) {
	lens := z.lens[ofLengths : ofLengths+maxLengths]
	z.lengthsMask, ok = build(z.lengthsTable[:], lengthsRoot, lengthsSymbols[:], lens)
	return ok && z.lengthsTable[1] != noSuchWord|oneBit
}

// codeWords reads the lengths of the code words of a dynamic block.
func (z *Inflater) codeWords(in []byte, i int) (int, status) {
	var (
		b, nb = z.bits, uint(z.nbits)
		have  = int(z.have)
		all   = int(z.nlit) + int(z.ndist)
		s     = goOn
	)
	for have < all {
		if nb < 14 {
			b, nb, i = refill(b, nb, in, i)
		}
		e := z.lengthsTable[b&z.lengthsMask&(1<<lengthsRoot-1)]
		take := uint(e & takeMask)
		if nb < take {
			s = dry
			break
		}
		if e&literal != 0 {
			z.lens[have] = uint8(e >> valueShift & 15)
			have++
			b, nb = b>>take, nb-take
			continue
		}
		n, same := valueOf(e, b), uint8(0)
		if e&special != 0 && have > 0 {
			same = z.lens[have-1]
		}
		if n > all-have || e&special != 0 && have == 0 {
			z.phase = corrupt
			break
		}
		for ; n > 0; n-- {
			z.lens[have] = same
			have++
		}
		b, nb = b>>take, nb-take
	}
	z.bits, z.nbits, z.have = b, uint8(nb), uint16(have)
	if have == all && !z.prepare() {
		z.phase = corrupt
	}
	return i, s
}

// prepare makes the tables of a dynamic block; its symbols are next. Without a
// word for the end of the block there would be none.
func (z *Inflater) prepare() (ok bool) {
	lens := z.lens[:z.nlit+uint16(z.ndist)]
	if lens[endSymbol] == 0 {
		return false
	}
	z.phase, z.fixed = symbols, false
	z.literals, z.distances = &z.ownLiterals, &z.ownDistances
	z.literalMask, ok = build(z.ownLiterals[:], literalRoot, literalSymbols[:], lens[:z.nlit])
	if ok {
		z.distancesMask, ok = build(z.ownDistances[:], distanceRoot, distanceSymbols[:], lens[z.nlit:])
	}
	return ok
}

// useFixed makes the fixed code that of the block; its symbols are next.
func (z *Inflater) useFixed() {
	z.phase, z.fixed = symbols, true
	z.literals, z.literalMask = &fixed.literals, fixed.literalMask
	z.distances, z.distancesMask = &fixed.distances, fixed.distancesMask
}
