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
	// back: at most 1<<bits. Its array is reused. It grows by doubling, from
	// 256 bytes on: it never has room for twice of what has come out.
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
// can be told from the n bytes of in that are consumed.
//
// more says that the room for output is used up, 8 to 64 KiB in one call, and
// that Next is to be called again, with in[n:] and the same last; that may bring
// nothing new. Without more and without an error all of in is consumed.
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
