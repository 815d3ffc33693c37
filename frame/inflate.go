package frame

import (
	"encoding/binary"
	"unsafe"
)

const (
	maxWindow = 1 << 15

	// An Inflater's buffer: the window, as much output behind it, and a margin
	// for copies that are made eight bytes at a time.
	inflateRoom   = 2 * maxWindow
	inflateMargin = 16

	// Less room than this for output, and the window is moved to the front.
	leastRoom = 8 << 10

	// What one turn of the fast loop needs: of the input, two times eight
	// bytes; of the room, two literals and the longest match.
	turnInput  = 16
	turnOutput = 2 + 258
)

// MisuseWindow is what Inflater.Resume panics with.
const MisuseWindow Misuse = "window of fewer than 8 or more than 15 bits (RFC 7692 §7.1.2)"

// syncTail is what the sender of a message has left away from its end (RFC 7692
// §7.2.1) and the receiver puts back (§7.2.2).
const syncTail = "\x00\x00\xff\xff"

// Inflater decompresses the messages of permessage-deflate (RFC 7692 §7.2.2),
// a stream of DEFLATE (RFC 1951) in bytes that come as they come. It holds what
// is large, a buffer of 64 KiB and the tables of the codes, and nothing that it
// would have to keep for a stream: one Inflater, of one goroutine, serves any
// number of connections, each with an Inflation of its own or none. It
// allocates nothing after NewInflater.
//
// One message, of a connection that takes no context over:
//
//	z.Resume(nil, bits)
//	for more := true; more; in = in[n:] {
//		out, n, more, err = z.Next(in, true)
//		...
//	}
//
// With context takeover, or when only part of a message has come, Resume gets
// the connection's Inflation, and Suspend puts back into it what is to be kept.
type Inflater struct {
	place
	window int // how far back a match may reach: 1<<bits
	at     int // end of the output in buf; what lies before it is the window

	// The code of the block: a table of our own, or the fixed one.
	literals      *literalTable
	distances     *distanceTable
	literalMask   uint64
	distancesMask uint64

	lengthsMask  uint64
	lengthsTable [1 << lengthsRoot]uint32
	ownLiterals  literalTable
	ownDistances distanceTable

	lens codeLengths
	buf  [inflateRoom + inflateMargin]byte
}

// place is where in a stream a decoder stands, apart from the window and the
// code of a dynamic block.
type place struct {
	bits  uint64 // taken from the input and not used, the next one lowest; zeros above
	nbits uint8  // how many, at most 63
	phase phase
	final bool   // the block has BFINAL: the next one begins at a whole byte
	fixed bool   // the block has the fixed code
	tail  uint8  // how much of syncTail has been read
	left  uint16 // bytes to copy, of a stored block or of a match
	back  uint16 // distance of that match, 1 to 32768
	have  uint16 // lengths read, of the code for lengths or of the block's
	nlit  uint16 // 257 to 286
	ndist uint8  // 1 to 30
	nlen  uint8  // 4 to 19
}

// phase is what the next bits of the stream are.
type phase uint8

const (
	blockHeader  phase = iota
	storedLength       // LEN and NLEN of a stored block
	storedBytes
	codeCounts    // HLIT, HDIST, HCLEN
	lengthsOfCode // code lengths for the code lengths
	codeWords     // code lengths, in that code
	symbols
	corrupt // nothing any more
)

// Inflation is what is kept of one connection's compressed stream while an
// Inflater works for others. The zero value is the beginning of a stream.
type Inflation struct {
	// Window are the last bytes of the output, as many as a match may reach
	// back: at most 1<<bits. Its array is reused; it grows by doubling, so
	// that it is never twice as large as what has come out.
	Window []byte

	place
	lens packedLengths
}

// Size is how many bytes of memory s holds, for its owner's budget.
func (s *Inflation) Size() int { return int(unsafe.Sizeof(*s)) + cap(s.Window) }

// NewInflater returns an Inflater that stands at the beginning of a stream with
// a window of 15 bits. It is about 80 KiB.
func NewInflater() *Inflater { return &Inflater{window: maxWindow} }

// Resume goes on with the stream of s, or with a fresh one when s is nil. A
// match that reaches back over more than 1<<bits bytes is corrupt: bits are 8
// to 15, as negotiated for the peer (RFC 7692 §7.1.2), and others are misuse.
// What the Inflater did before is forgotten. s is only read.
func (z *Inflater) Resume(s *Inflation, bits uint8) {
	if bits < 8 || bits > 15 {
		panic(MisuseWindow)
	}
	z.window = 1 << bits
	if s == nil {
		z.place, z.at = place{}, 0
		return
	}
	z.place = s.place
	z.at = copy(z.buf[:], s.Window[max(len(s.Window)-z.window, 0):])
	if z.inDynamic() {
		z.lens.unpack(&s.lens)
	}
	// The lengths have been found good before.
	switch z.phase {
	case codeWords:
		z.prepareLengths()
	case symbols:
		if z.fixed {
			z.useFixed()
		} else {
			z.prepare()
		}
	}
}

// Suspend stores in s what is needed to go on with the stream later: between
// two messages, or anywhere within one. The Inflater stays where it is.
func (z *Inflater) Suspend(s *Inflation) {
	s.place = z.place
	if z.phase == corrupt {
		s.Window = s.Window[:0]
		return
	}
	if z.inDynamic() {
		z.lens.pack(&s.lens)
	}
	n := min(z.at, z.window)
	if cap(s.Window) < n {
		room := 256
		for room < n {
			room *= 2
		}
		s.Window = make([]byte, 0, room)
	}
	s.Window = s.Window[:n]
	copy(s.Window, z.buf[z.at-n:z.at])
}

// inDynamic: the lengths of code words, some or all, are part of the place.
func (z *Inflater) inDynamic() bool {
	return z.phase == lengthsOfCode || z.phase == codeWords || z.phase == symbols && !z.fixed
}

// Next decompresses what has come of a message. out is valid until the next
// call of any method, and only to be read: it is the window too. It has all that
// the n bytes of in which were consumed allow to tell. more says that the room for output is used up (8 to 32 KiB in
// one call) and that Next is to be called again, with in[n:]; without more all
// of in is consumed.
//
// last says that the message ends with in: the four bytes that its sender left
// away are read behind it, and when there is neither more nor an error the
// stream is ready for the next message.
//
// The error is ErrInflate, and stays until the next Resume. What was
// decompressed before the fault is in out.
func (z *Inflater) Next(in []byte, last bool) (out []byte, n int, more bool, err error) {
	if inflateRoom-z.at < leastRoom {
		keep := min(z.at, z.window)
		copy(z.buf[:keep], z.buf[z.at-keep:z.at])
		z.at = keep
	}
	from := z.at
	n, more = z.decode(in)
	if last && !more && z.phase != corrupt {
		var k int
		k, more = z.decode([]byte(syncTail[z.tail:]))
		z.tail += uint8(k)
		if !more {
			z.tail = 0
			if z.phase != blockHeader || z.nbits != 0 {
				z.phase = corrupt
			}
		}
	}
	if z.phase == corrupt {
		more, err = false, ErrInflate
	}
	return z.buf[from:z.at], n, more, err
}

// status is why a step of decode has ended.
type status uint8

const (
	goOn status = iota // the phase is another one
	dry                // the input is used up
	full               // the room for output is used up
)

// decode reads in as far as it can, n bytes. It ends when in is used up, when
// the room is (full), or when the stream is corrupt.
func (z *Inflater) decode(in []byte) (n int, isFull bool) {
	var s status
	for s == goOn && z.phase != corrupt {
		switch z.phase {
		case storedBytes:
			n, s = z.stored(in, n)
		case codeWords:
			n, s = z.codeWords(in, n)
		case symbols:
			n, s = z.symbols(in, n)
		default:
			n, s = z.header(in, n)
		}
	}
	return n, s == full
}

// refill adds to b, which has nb bits, as many bytes of in[i:] as there are and
// fit.
func refill(b uint64, nb uint, in []byte, i int) (uint64, uint, int) {
	if len(in)-i >= 8 {
		b |= binary.LittleEndian.Uint64(in[i:]) << (nb & 63)
		i += int(63-nb) >> 3
		nb |= 56
		return b & (1<<(nb&63) - 1), nb, i
	}
	for ; nb < 56 && i < len(in); i++ {
		b |= uint64(in[i]) << (nb & 63)
		nb += 8
	}
	return b, nb, i
}

// fieldBits is the size of the field that header reads in each phase.
var fieldBits = [...]uint8{blockHeader: 3, storedLength: 32, codeCounts: 14, lengthsOfCode: 3}

// header reads the next field of what stands before the bytes of a stored block
// or the code words of another (RFC 1951 §3.2.3, §3.2.4, §3.2.7).
func (z *Inflater) header(in []byte, i int) (int, status) {
	b, nb, i := refill(z.bits, uint(z.nbits), in, i)
	need := uint(fieldBits[z.phase])
	if nb < need {
		z.bits, z.nbits = b, uint8(nb)
		return i, dry
	}
	field := uint32(b) & uint32(1<<need-1)
	b, nb = b>>need, nb-need
	switch z.phase {
	case blockHeader:
		z.final = field&1 != 0
		switch field >> 1 {
		case 0:
			b, nb = b>>(nb&7), nb&^7
			z.phase = storedLength
		case 1:
			z.useFixed()
		case 2:
			z.phase = codeCounts
		case 3:
			z.phase = corrupt
		}
	case storedLength:
		z.left = uint16(field)
		z.phase = storedBytes
		if ^z.left != uint16(field>>16) {
			z.phase = corrupt
		}
	case codeCounts:
		z.nlit, z.ndist, z.nlen = 257+uint16(field&31), 1+uint8(field>>5&31), 4+uint8(field>>10)
		z.have = 0
		clear(z.lens[ofLengths:])
		z.phase = lengthsOfCode
		if z.nlit > maxLiterals || z.ndist > maxDistances {
			z.phase = corrupt
		}
	case lengthsOfCode:
		z.lens[ofLengths+int(lengthsOrder[z.have])] = uint8(field)
		z.have++
		for ; z.have < uint16(z.nlen) && nb >= 3; z.have++ {
			z.lens[ofLengths+int(lengthsOrder[z.have])] = uint8(b & 7)
			b, nb = b>>3, nb-3
		}
		if z.have == uint16(z.nlen) {
			z.have, z.phase = 0, codeWords
			if !z.prepareLengths() {
				z.phase = corrupt
			}
		}
	}
	z.bits, z.nbits = b, uint8(nb)
	return i, goOn
}

// endBlock: the next thing is the header of a block, directly, or at the next
// whole byte if the stream was said to end here (RFC 7692 §7.2.3.4 allows that,
// and the window goes on).
func (z *Inflater) endBlock() {
	z.phase = blockHeader
	if z.final {
		z.bits, z.nbits, z.final = z.bits>>(z.nbits&7), z.nbits&^7, false
	}
}

// stored copies the bytes of a stored block (RFC 1951 §3.2.4).
func (z *Inflater) stored(in []byte, i int) (int, status) {
	// First those that were taken as bits. What is left of them is whole
	// bytes: the header of the block ended with one.
	for ; z.left > 0 && z.nbits > 0; z.left-- {
		if z.at == inflateRoom {
			return i, full
		}
		z.buf[z.at] = byte(z.bits)
		z.at++
		z.bits, z.nbits = z.bits>>8, z.nbits-8
	}
	n := copy(z.buf[z.at:inflateRoom], in[i:min(i+int(z.left), len(in))])
	z.at, z.left, i = z.at+n, z.left-uint16(n), i+n
	if z.left == 0 {
		z.endBlock()
		return i, goOn
	}
	if i == len(in) {
		return i, dry
	}
	return i, full
}

// symbols decodes the code words of a block: literals, and matches, which are a
// length and a distance (RFC 1951 §3.2.5).
func (z *Inflater) symbols(in []byte, i int) (int, status) {
	if z.left > 0 {
		z.copyMatch() // the rest of one: Next has made room enough
	}
	if len(in)-i >= turnInput && z.at <= inflateRoom-turnOutput {
		if i = z.fast(in, i); z.phase != symbols {
			return i, goOn
		}
	}
	return z.careful(in, i)
}

// copyMatch makes as much of a match as there is room for. A match may overlap
// itself: then it repeats what it has just made.
func (z *Inflater) copyMatch() {
	n := min(int(z.left), inflateRoom-z.at)
	for to := z.at; to < z.at+n; to++ {
		z.buf[to] = z.buf[to-int(z.back)]
	}
	z.at += n
	z.left -= uint16(n)
}

// careful decodes symbols where the input or the room may end at any of them.
// What is not there with all its bits stays where it is.
func (z *Inflater) careful(in []byte, i int) (int, status) {
	b, nb := z.bits, uint(z.nbits)
	for {
		if nb < 48 {
			b, nb, i = refill(b, nb, in, i)
		}
		z.bits, z.nbits = b, uint8(nb)

		// The bits above nb are 0, so this may be the entry of a longer
		// word, but never one of a word that is there.
		e := z.literals[b&z.literalMask&(literalRoom-1)]
		used := uint(0)
		if e&goesOn != 0 {
			used = uint(e & takeMask)
			e = z.literals[nextPart(e, b)&(literalRoom-1)]
		}
		if nb < used+uint(e>>wordShift&wordMask) {
			return i, dry
		}
		take := used + uint(e&takeMask)
		switch {
		case e&literal != 0:
			if z.at == inflateRoom {
				return i, full
			}
			z.buf[z.at] = byte(e >> valueShift)
			z.at++
			b, nb = b>>take, nb-take
			continue
		case e&endOfBlock != 0:
			z.bits, z.nbits = b>>take, uint8(nb-take)
			z.endBlock()
			return i, goOn
		case e&special != 0:
			z.phase = corrupt
			return i, goOn
		case nb < take:
			return i, dry
		}
		length := valueOf(e, b>>used)
		rest, nrest := b>>take, nb-take

		e = z.distances[rest&z.distancesMask&(distanceRoom-1)]
		used = 0
		if e&goesOn != 0 {
			used = uint(e & takeMask)
			e = z.distances[nextPart(e, rest)&(distanceRoom-1)]
		}
		if nrest < used+uint(e>>wordShift&wordMask) {
			return i, dry
		}
		take = used + uint(e&takeMask)
		if e&special != 0 {
			z.phase = corrupt
			return i, goOn
		}
		if nrest < take {
			return i, dry
		}
		distance := valueOf(e, rest>>used)
		if distance > z.at || distance > z.window {
			z.phase = corrupt
			return i, goOn
		}
		b, nb = rest>>take, nrest-take
		z.left, z.back = uint16(length), uint16(distance)
		z.copyMatch()
		if z.left > 0 {
			z.bits, z.nbits = b, uint8(nb)
			return i, full
		}
	}
}

// nextPart is the index of the entry to which e goes on, for the bits b that
// e's word is the beginning of.
func nextPart(e uint32, b uint64) uint32 {
	width := e >> wordShift & wordMask
	return e>>valueShift&valueMask + uint32(b>>(e&takeMask))&(1<<width-1)
}

// valueOf is a length or a distance: the value of e and the extra bits, which
// stand in b behind e's word.
func valueOf(e uint32, b uint64) int {
	return int(e>>valueShift&valueMask) + int(b&(1<<(e&takeMask)-1)>>(e>>wordShift&wordMask))
}

// fast decodes symbols while there are turnInput bytes of input and turnOutput
// bytes of room for each turn: after a refill the bits are enough for three
// literals, or for a whole match, 48 bits at most.
func (z *Inflater) fast(in []byte, i int) int {
	var (
		b, nb         = z.bits, uint(z.nbits)
		at            = z.at
		literals      = z.literals
		distances     = z.distances
		literalMask   = z.literalMask
		distancesMask = z.distancesMask
		window        = z.window
		buf           = &z.buf
	)
	for len(in)-i >= turnInput && at <= inflateRoom-turnOutput {
		b |= binary.LittleEndian.Uint64(in[i:]) << (nb & 63)
		i += int(63-nb) >> 3
		nb |= 56

		e := literals[b&literalMask&(literalRoom-1)]
		if e&literal != 0 {
			buf[at] = byte(e >> valueShift)
			at++
			b, nb = b>>(e&takeMask), nb-uint(e&takeMask)
			e = literals[b&literalMask&(literalRoom-1)]
			if e&literal != 0 {
				buf[at] = byte(e >> valueShift)
				at++
				b, nb = b>>(e&takeMask), nb-uint(e&takeMask)
				e = literals[b&literalMask&(literalRoom-1)]
				if e&literal != 0 {
					buf[at] = byte(e >> valueShift)
					at++
					b, nb = b>>(e&takeMask), nb-uint(e&takeMask)
					continue
				}
			}
			b |= binary.LittleEndian.Uint64(in[i:]) << (nb & 63)
			i += int(63-nb) >> 3
			nb |= 56
		}
		if e&special != 0 {
			if e&goesOn != 0 {
				next := nextPart(e, b)
				b, nb = b>>(e&takeMask), nb-uint(e&takeMask)
				e = literals[next&(literalRoom-1)]
				if e&literal != 0 {
					buf[at] = byte(e >> valueShift)
					at++
					b, nb = b>>(e&takeMask), nb-uint(e&takeMask)
					continue
				}
			}
			if e&special != 0 {
				z.phase = corrupt
				if e&endOfBlock != 0 {
					b, nb = b>>(e&takeMask), nb-uint(e&takeMask)
					z.phase = blockHeader
				}
				break
			}
		}
		length := valueOf(e, b)
		b, nb = b>>(e&takeMask), nb-uint(e&takeMask)

		e = distances[b&distancesMask&(distanceRoom-1)]
		if e&special != 0 {
			if e&goesOn != 0 {
				next := nextPart(e, b)
				b, nb = b>>(e&takeMask), nb-uint(e&takeMask)
				e = distances[next&(distanceRoom-1)]
			}
			if e&special != 0 {
				z.phase = corrupt
				break
			}
		}
		distance := valueOf(e, b)
		b, nb = b>>(e&takeMask), nb-uint(e&takeMask)
		if distance > at || distance > window {
			z.phase = corrupt
			break
		}

		to, from, end := at, at-distance, at+length
		at = end
		switch {
		case distance >= length && length > 32:
			copy(buf[to:end], buf[from:])
		case distance >= 8:
			for ; to < end; to, from = to+8, from+8 {
				binary.LittleEndian.PutUint64(buf[to:], binary.LittleEndian.Uint64(buf[from:]))
			}
		case distance == 1:
			same := uint64(buf[from]) * 0x0101010101010101
			for ; to < end; to += 8 {
				binary.LittleEndian.PutUint64(buf[to:], same)
			}
		default:
			// Of eight bytes, the first ones are right already.
			for ; to < end; to, from = to+distance, from+distance {
				binary.LittleEndian.PutUint64(buf[to:], binary.LittleEndian.Uint64(buf[from:]))
			}
		}
	}
	z.at = at
	z.bits, z.nbits = b&(1<<(nb&63)-1), uint8(nb)
	if z.phase == blockHeader {
		z.endBlock()
	}
	return i
}
