package frame

import "encoding/binary"

// What one turn of the fast loop needs: of the input, two times eight bytes; of
// the room, two literals and the longest match.
const (
	turnInput  = 16
	turnOutput = 2 + 258
)

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
