package frame

import (
	"encoding/binary"
	"math/bits"

	"github.com/gobwas/ws"
)

// Passage is a Parser for an intermediary that passes frames on: it holds the
// sender to the same rules, and leaves the payload masked as it is.
//
// A frame that is there as a whole goes on byte for byte. A larger one goes on
// as it arrives, each run of its payload as a fragment of its own (§5.4), so
// that what was passed on always ends with a whole frame: should the sender
// die in the middle, the receiver can still be sent a Close. A masked payload
// is not touched for that: the key of a later fragment is the key of the frame,
// turned by the bytes that went before (§5.3).
//
// "An intermediary MUST NOT change the fragmentation of a message if any
// reserved bit values are used and the meaning of these values is not known"
// (§5.4): a Passage is for connections without extensions, or with
// permessage-deflate alone, whose RSV1 stays on the first fragment (RFC 7692 §6.1).
//
// Like a Parser it has no pointers, its zero value is ready, and it belongs to
// the goroutine that reads the connection.
type Passage struct{ p Parser }

// Part is what Passage.Next found: a whole frame, or a run of one that becomes
// a frame of its own.
type Part struct {
	Op          ws.OpCode // of the MESSAGE for data frames, of the frame for control frames
	First, Last bool      // it begins, ends the message; both true for control frames

	// Head is the header to be sent in front of Bytes. nil: Bytes are a whole
	// frame with its header, as it came. Valid until the next call of Next.
	Head []byte
	// Bytes go on as they are. They alias the input.
	Bytes []byte
	// Size is how many bytes of payload are in Bytes, at their end.
	Size int

	key  uint32 // masking key of Bytes; 0 when they are not masked
	head [ws.MaxHeaderSize]byte
}

// AppendPayload appends the payload, unmasked, to dst.
func (part *Part) AppendPayload(dst []byte) []byte {
	start := len(dst)
	dst = append(dst, part.Bytes[len(part.Bytes)-part.Size:]...)
	unmask(dst[start:], part.key, 0)
	return dst
}

// Next consumes one part from the front of b and returns how many bytes it
// took. Frames of up to hold bytes of payload are not passed on in parts. n = 0
// with a nil error means that b does not hold enough: keep b, append what
// arrives, and call again; that is never more than a header and the larger of
// hold and 125 bytes. b is not written to.
//
// Of the rules, Mask is not used and SkipUTF8 is taken to be set. Errors are
// those of a Parser, except that text is not looked at, and final like these.
func (x *Passage) Next(r *Rules, b []byte, hold int, part *Part) (n int, err error) {
	p := &x.p
	if p.left|uint64(p.fault) != 0 {
		return x.resume(r, b, part)
	}
	if len(b) == 0 {
		return 0, nil
	}
	b0 := b[0]
	if e := p.checkFirst(r, b0); e != nil {
		return p.fail(e)
	}
	if len(b) < 2 {
		return 0, nil
	}
	b1 := b[1]
	// §5.1: "a client MUST mask all frames", "a server MUST NOT mask any".
	if (b1&bitMask != 0) == r.Client {
		return p.fail(maskError(r))
	}
	control := b0&bitControl != 0
	head, length := 2, uint64(b1&bitsLength)
	if length > 125 {
		if control {
			return p.fail(ErrControlTooLong)
		}
		var e *Error
		if head, length, e = p.extended(r, b); e != nil {
			return p.fail(e)
		}
		if head == 0 {
			return 0, nil
		}
	} else if !control && p.tooLarge(r, b0, length) {
		return p.fail(ErrTooLarge)
	}
	part.key = 0
	if b1&bitMask != 0 {
		if len(b) < head+4 {
			return 0, nil
		}
		part.key = keyOf(b[head:])
		head += 4
	}
	have := uint64(len(b) - head)
	whole := have >= length
	if !whole && (control || have == 0 || length <= uint64(hold)) {
		return 0, nil
	}

	if control {
		part.Op = ws.OpCode(b0 & bitsOpcode)
		part.First, part.Last = true, true
		return x.whole(b, head, int(length), part), nil
	}
	part.First = b0&bitsOpcode != 0
	if part.First {
		p.open = b0
	}
	part.Op = ws.OpCode(p.open & bitsOpcode)
	part.Last = whole && b0&bitFIN != 0
	p.message += length
	if whole {
		if part.Last {
			*p = Parser{}
		}
		return x.whole(b, head, int(length), part), nil
	}
	p.first, p.length, p.left, p.key = b0, length, length, part.key
	x.fragment(b[head:], b0&^bitFIN, b1&bitMask, part)
	return len(b), nil
}

// whole fills in a frame that is there from its first byte to its last.
func (x *Passage) whole(b []byte, head, length int, part *Part) int {
	part.Head, part.Bytes, part.Size = nil, b[:head+length], length
	return head + length
}

// resume is Next inside a data frame, and after an error.
func (x *Passage) resume(r *Rules, b []byte, part *Part) (n int, err error) {
	p := &x.p
	if p.fault != 0 {
		return 0, faults[p.fault]
	}
	if len(b) == 0 {
		return 0, nil
	}
	b0 := byte(ws.OpContinuation)
	if uint64(len(b)) >= p.left {
		b = b[:p.left]
		b0 |= p.first & bitFIN
	}
	part.Op = ws.OpCode(p.open & bitsOpcode)
	part.First, part.Last = false, b0&bitFIN != 0
	part.key = bits.RotateLeft32(p.key, -8*int((p.length-p.left)&3))
	mask := byte(0)
	if !r.Client { // a key of zeros is a key too
		mask = bitMask
	}
	x.fragment(b, b0, mask, part)
	if part.Last {
		*p = Parser{}
	}
	return len(b), nil
}

// fragment makes a frame of its own of a run of payload.
func (x *Passage) fragment(data []byte, b0, mask byte, part *Part) {
	x.p.left -= uint64(len(data))
	part.Head = appendStart(part.head[:0], b0, mask, uint64(len(data)))
	if mask != 0 {
		part.Head = binary.LittleEndian.AppendUint32(part.Head, part.key)
	}
	part.Bytes, part.Size = data, len(data)
}

// MidMessage reports whether a data message has begun and not ended. A control
// frame may be sent behind what was passed on, another message may not.
func (x *Passage) MidMessage() bool { return x.p.open != 0 }
