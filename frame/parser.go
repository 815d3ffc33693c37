package frame

import (
	"encoding/binary"
	"slices"

	"github.com/gobwas/ws"
)

// Rules are what one endpoint enforces. One value is shared by many
// connections and goroutines: it is only read. The zero value is a server
// without extensions and without a size limit.
type Rules struct {
	// Client: we are the client, so frames that arrive must not be masked
	// (§5.1) and those that a Conn appends are. False: we are the server
	// and the other way round.
	Client bool

	// MaxMessage is how many payload bytes a message may have over all its
	// fragments, as they are on the wire (before inflating). 0: no limit.
	// Control frames do not count.
	MaxMessage uint64

	// RSV1: permessage-deflate was negotiated, so RSV1 is legal on the first
	// frame of a data message (RFC 7692 §6). The text of a message that has
	// it is not checked here: its UTF-8 shows only after inflating.
	RSV1 bool

	// Inflates: the caller inflates compressed messages, and holds what comes of
	// them to a limit. MaxMessage is then for the others: deflating can make a
	// message larger, so a whole one within the limit may be above it on the wire.
	Inflates bool

	// SkipUTF8: text is not checked at all. For intermediaries, which pass
	// on what they are given and leave the judgement to the endpoint.
	SkipUTF8 bool

	// Mask makes the masking key of one frame that a Conn appends. Used only
	// when Client is set, and then required (a Conn panics with MisuseNoMask).
	// §10.3 wants keys that cannot be predicted: crypto/rand, except in tests.
	Mask func() [4]byte
}

// Parser is the receiving half of one connection: it remembers what must be
// known between two reads and nothing else. It has no pointers, so a million
// of them give the garbage collector no work. The zero value is ready, and
// between two messages a Parser is its zero value again.
//
// A Parser belongs to the goroutine that reads the connection.
type Parser struct {
	left    uint64 // payload bytes of the current data frame still to come
	length  uint64 // all payload bytes of the current data frame
	message uint64 // payload bytes declared so far by the frames of the message
	key     uint32 // masking key of the current data frame, see keyOf
	first   byte   // first header byte of the current data frame
	open    byte   // first header byte of the message in progress; 0 between messages
	text    UTF8   // where the text stands
	fault   uint8  // index into faults; 0 while all is well
}

// Piece is what Next found: a run of payload bytes of one frame.
type Piece struct {
	// Header of the frame that the bytes belong to, as it was on the wire;
	// Length is the payload of the whole frame.
	Header ws.Header

	// Op is the opcode of the MESSAGE for data frames (text or binary, for
	// continuation frames too) and of the frame for control frames. It is 0
	// only when a Conn ignored bytes.
	Op ws.OpCode

	Start, End  bool // Data begins, ends the payload of the frame
	First, Last bool // Data begins, ends the message; both true for control frames

	// Compressed: the first frame of the message had RSV1 (RFC 7692 §6).
	Compressed bool

	// Data is unmasked in place: it aliases the input and is valid until the
	// input is overwritten.
	Data []byte
}

// Bits of the first two header bytes (§5.2).
const (
	bitFIN     = 0x80
	bitRSV1    = 0x40
	bitsRSV23  = 0x30
	bitControl = 0x08 // in the opcode (§5.5)
	bitsOpcode = 0x0f
	bitMask    = 0x80
	bitsLength = 0x7f
)

// MidMessage reports whether a data message has begun and not ended. Control
// frames may come at such a moment (unless MidFrame), other messages may not.
func (p *Parser) MidMessage() bool { return p.open != 0 }

// MidFrame reports whether a part of a data frame's payload was delivered and
// the rest is still to come. Who passes frames on as they are cannot put a
// frame of its own there.
func (p *Parser) MidFrame() bool { return p.left != 0 }

// Next consumes one piece from the front of b, describes it in piece, and
// returns how many bytes it took. n = 0 with a nil error means that b does
// not hold enough: keep b, append what arrives, and call again. That is so
// for an incomplete header, for a header without any of its payload, and for
// a control frame that is not whole, together never more than
// MaxKeep bytes. Payload of data frames is delivered as it arrives.
//
// When n = 0 the content of piece has no meaning. Next overwrites masked
// bytes of b that it consumes, and keeps no reference to b.
//
// An error is an *Error of this package. It is found at the first byte that
// shows it and is final: every later call returns it again with n = 0. What
// MidMessage and MidFrame say after an error has no meaning.
func (p *Parser) Next(r *Rules, b []byte, piece *Piece) (n int, err error) {
	if p.left|uint64(p.fault) != 0 {
		return p.resume(r, b, piece)
	}
	if len(b) == 0 {
		return 0, nil
	}
	b0 := b[0]
	// A whole message of text or binary between messages needs no look at
	// its first byte; all else does.
	if b0-(bitFIN|byte(ws.OpText)) > 1 || p.open != 0 {
		if e := p.checkFirst(r, b0); e != nil {
			return p.fail(e)
		}
	}
	if len(b) < 2 {
		return 0, nil
	}
	b1 := b[1]
	// §5.1: "a client MUST mask all frames", "a server MUST NOT mask any".
	if (b1&bitMask != 0) == r.Client {
		return p.fail(maskError(r))
	}
	head, length := 2, uint64(b1&bitsLength)
	if length > 125 {
		// §5.5: control frames "MUST have a payload length of 125 bytes or less".
		if b0&bitControl != 0 {
			return p.fail(ErrControlTooLong)
		}
		var e *Error
		if head, length, e = p.extended(r, b); e != nil {
			return p.fail(e)
		}
		if head == 0 {
			return 0, nil
		}
	} else if b0&bitControl == 0 && p.tooLarge(r, b0, length) {
		return p.fail(ErrTooLarge)
	}

	key := uint32(0)
	if b1&bitMask != 0 {
		if len(b) < head+4 {
			return 0, nil
		}
		key = keyOf(b[head:])
		head += 4
	}
	data := b[head:]
	if uint64(len(data)) >= length {
		data = data[:length]
	} else if len(data) == 0 || b0&bitControl != 0 {
		return 0, nil
	}

	piece.setHeader(b0, b1&bitMask != 0, key, length)
	if b0&bitControl != 0 || b0-(bitFIN|byte(ws.OpText)) <= 1 && uint64(len(data)) == length {
		// A control frame, or the common case, a whole message in one frame:
		// there is nothing to remember.
		ascii := b1&bitMask != 0 && unmask(data, key, 0)
		if b0 == bitFIN|byte(ws.OpText) && !ascii && !r.SkipUTF8 {
			var text UTF8
			if e := text.check(data, true); e != nil {
				return p.fail(e)
			}
		}
		piece.Op = ws.OpCode(b0 & bitsOpcode)
		piece.Start, piece.End, piece.First, piece.Last = true, true, true, true
		piece.Compressed = false
		piece.Data = data
		return head + len(data), nil
	}
	if b0&bitsOpcode != 0 {
		p.open = b0
	}
	p.first = b0
	p.message += length
	p.length, p.left, p.key = length, length, key
	if e := p.deliver(r, data, piece); e != nil {
		return p.fail(e)
	}
	return head + len(data), nil
}

// MaxKeep is the most bytes that Next can leave unconsumed: a masked header
// and one byte less than the longest control payload.
const MaxKeep = 2 + 4 + ws.MaxControlFramePayloadSize - 1

// resume is Next inside a data frame, and after an error.
func (p *Parser) resume(r *Rules, b []byte, piece *Piece) (n int, err error) {
	if p.fault != 0 {
		return 0, faults[p.fault]
	}
	if len(b) == 0 {
		return 0, nil
	}
	if uint64(len(b)) > p.left {
		b = b[:p.left]
	}
	piece.setHeader(p.first, !r.Client, p.key, p.length)
	if e := p.deliver(r, b, piece); e != nil {
		return p.fail(e)
	}
	return len(b), nil
}

// setHeader fills in the Header, field by field: a composite literal would be
// built elsewhere and copied, which is measured to cost a quarter of Next.
func (piece *Piece) setHeader(b0 byte, masked bool, key uint32, length uint64) {
	h := &piece.Header
	h.Fin = b0&bitFIN != 0
	h.Rsv = b0 >> 4 & 7
	h.OpCode = ws.OpCode(b0 & bitsOpcode)
	h.Masked = masked
	binary.LittleEndian.PutUint32(h.Mask[:], key)
	h.Length = int64(length)
}

// deliver fills in piece, all but its Header, with the next payload bytes of
// the current data frame.
func (p *Parser) deliver(r *Rules, data []byte, piece *Piece) *Error {
	ascii := false
	offset := p.length - p.left
	if !r.Client {
		ascii = unmask(data, p.key, int(offset&3))
	}
	p.left -= uint64(len(data))

	piece.Op = ws.OpCode(p.open & bitsOpcode)
	piece.Start = offset == 0
	piece.End = p.left == 0
	piece.First = piece.Start && p.first&bitsOpcode != 0
	piece.Last = piece.End && p.first&bitFIN != 0
	piece.Compressed = p.open&bitRSV1 != 0
	piece.Data = data

	if p.open&(bitRSV1|bitsOpcode) == byte(ws.OpText) && !r.SkipUTF8 {
		if ascii && p.text.Done() {
			data = nil // seen already
		}
		if e := p.text.check(data, piece.Last); e != nil {
			return e
		}
	}
	if piece.Last {
		*p = Parser{}
	}
	return nil
}

// checkFirst judges the first byte of a header (§5.2, §5.4, §5.5).
func (p *Parser) checkFirst(r *Rules, b0 byte) *Error {
	op := ws.OpCode(b0 & bitsOpcode)
	switch {
	// §5.2: "If an unknown opcode is received, the receiving endpoint MUST _Fail
	// the WebSocket Connection_."
	case op.IsReserved():
		return ErrReservedOpcode

	// §5.2: RSV "MUST be 0 unless an extension is negotiated that defines meanings
	// for non-zero values". No extension that we know defines RSV2 or RSV3.
	// ws.CheckHeader lets them pass once any extension is negotiated.
	case b0&bitsRSV23 != 0, b0&bitRSV1 != 0 && !r.RSV1:
		return ErrReservedBits

	// RFC 7692 §6.1: no RSV1 on control frames and continuations.
	case b0&bitRSV1 != 0 && (op.IsControl() || op == ws.OpContinuation):
		return ErrRSV1Misplaced

	// §5.5: "All control frames […] MUST NOT be fragmented."
	case op.IsControl() && b0&bitFIN == 0:
		return ErrControlFragmented

	// §5.4: a message starts with "an opcode other than 0", and the fragments
	// of one "MUST NOT be interleaved between the fragments of another".
	case op == ws.OpContinuation && p.open == 0:
		return ErrContinuationUnexpected
	case op.IsData() && op != ws.OpContinuation && p.open != 0:
		return ErrContinuationExpected
	}
	return nil
}

// extended reads the 16 or 64 bits of an extended payload length (§5.2) and
// returns the header's size up to them; 0 when bytes are missing. It judges
// the bytes that are there: low and high are the least and the greatest
// length that the missing ones can still make.
func (p *Parser) extended(r *Rules, b []byte) (head int, length uint64, e *Error) {
	size, least := 2, uint64(126)
	if b[1]&bitsLength == 127 {
		size, least = 8, 1<<16
	}
	var raw [8]byte
	have := copy(raw[:size], b[2:])
	shift := 8 * uint(8-size)
	low := binary.BigEndian.Uint64(raw[:]) >> shift
	high := low | ^uint64(0)>>(8*uint(have))>>shift
	switch {
	// §5.2: "the most significant bit MUST be 0"
	case low > 1<<63-1:
		return 0, 0, ErrLengthMSB
	// §5.2: "in all cases, the minimal number of bytes MUST be used to encode the
	// length". ws.ReadHeader does not look.
	case high < least:
		return 0, 0, ErrLengthNotMinimal
	// §10.4: the size of messages must be limited, when it shows.
	case p.tooLarge(r, b[0], low):
		return 0, 0, ErrTooLarge
	case have < size:
		return 0, 0, nil
	}
	return 2 + size, low, nil
}

// tooLarge reports whether a frame of length bytes makes the message longer
// than we take (§10.4). Of its first frame, b0 says that it is compressed, of
// the others p.open does.
func (p *Parser) tooLarge(r *Rules, b0 byte, length uint64) bool {
	return r.MaxMessage != 0 && p.message+length > r.MaxMessage && !(r.Inflates && (p.open|b0)&bitRSV1 != 0)
}

// Unread takes back, of the last piece, a compressed one, all but the first keep
// bytes of payload, fewer than it has: an inflater with much to say, whose reader
// does not listen, stops in the middle. before is what p was when Next was given
// in and consumed n bytes of it. What is to be taken for consumed instead is
// returned; the rest of in is as it was, and is shown again later.
func (p *Parser) Unread(before *Parser, r *Rules, in []byte, n int, piece *Piece, keep int) int {
	head := n - len(piece.Data)
	if !r.Client {
		offset := uint64(0)
		if before.left != 0 { // within a frame
			offset = before.length - before.left
		}
		unmask(piece.Data, keyOf(piece.Header.Mask[:]), int(offset&3))
	}
	*p = *before
	n, _ = p.Next(r, in[:head+keep], piece)
	return n
}

// maskError is for a mask that is missing or too much (§5.1).
func maskError(r *Rules) *Error {
	if r.Client {
		return ErrMaskForbidden
	}
	return ErrMaskRequired
}

// fail makes e the answer to this and every later call.
func (p *Parser) fail(e *Error) (int, error) {
	p.fault = uint8(slices.Index(faults[:], e))
	return 0, e
}

// check holds the next bytes of a text message to §5.6, "the whole message
// MUST contain valid UTF-8": a frame may end inside a code point, the message
// may not.
func (s *UTF8) check(data []byte, last bool) *Error {
	if _, ok := s.Write(data); !ok {
		return ErrTextUTF8
	}
	if last && !s.Done() {
		return ErrTextTruncated
	}
	return nil
}
