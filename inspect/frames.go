package inspect

import (
	"encoding/binary"
	"unicode/utf8"

	"wspoll/frame"

	"github.com/gobwas/ws"
)

// headerSize is the size of the header whose first two bytes b has (§5.2).
func headerSize(b []byte) int {
	n := 2
	switch b[1] & 0x7f {
	case 126:
		n += 2
	case 127:
		n += 8
	}
	if b[1]&0x80 != 0 {
		n += 4
	}
	return n
}

// header collects a header, and begins the frame when it is whole.
func (e *Explainer) header(s *side, b []byte) int {
	n := 0
	for n < len(b) && (len(s.buf) < 2 || len(s.buf) < headerSize(s.buf)) {
		s.buf = append(s.buf, b[n])
		n++
	}
	s.off += int64(n)
	if len(s.buf) >= 2 && len(s.buf) == headerSize(s.buf) {
		e.beginFrame(s)
	}
	return n
}

// fields reads what there is of a header into a Frame.
func fields(h []byte) *Frame {
	b0 := h[0]
	f := &Frame{
		Fin: b0&0x80 != 0, Rsv: b0 >> 4 & 7, Opcode: b0 & 15, Name: opName(b0 & 15),
		LengthBits: 7, Header: h,
	}
	if len(h) < 2 {
		return f
	}
	f.Masked, f.Length = h[1]&0x80 != 0, uint64(h[1]&0x7f)
	rest := h[2:]
	if f.Length > 125 {
		size := 2
		if f.Length == 127 {
			size = 8
		}
		f.LengthBits, f.Length = 8*size, 0
		var raw [8]byte
		copy(raw[8-size:], rest)
		f.Length = binary.BigEndian.Uint64(raw[:])
		rest = rest[min(size, len(rest)):]
	}
	if f.Masked {
		f.Key = rest
	}
	return f
}

// beginFrame judges a whole header and finds out which message its frame belongs to.
func (e *Explainer) beginFrame(s *side) {
	f := fields(s.buf)
	s.buf = nil
	s.frame, s.left, s.at = f, f.Length, 0
	e.guess(s, f)
	e.judge(s, f)
	e.join(s, f)
	e.keyNotes(s, f)
	s.phase = inPayload
	switch {
	case f.Length >= 1<<63:
		e.partFrame(s)
		s.phase, s.what = inNowhere, whatNever
	case f.Length == 0:
		e.endFrame(s)
	}
}

// guess takes RSV1 as permessage-deflate where no handshake says otherwise.
func (e *Explainer) guess(s *side, f *Frame) {
	if e.known || e.agreed.On || f.Rsv&4 == 0 || ws.OpCode(f.Opcode).IsControl() {
		return
	}
	e.agreed.On, e.agreed.ServerBits, e.agreed.ClientBits = true, 15, 15
	s.note("RSV1, and no answer of a server in sight: taken as permessage-deflate without parameters (RFC 7692)")
}

// judge finds all that is wrong with what there is of a header, in the order in which frame.Parser would.
func (e *Explainer) judge(s *side, f *Frame) {
	op, at := ws.OpCode(f.Opcode), s.start
	control := op.IsControl()
	switch {
	case op.IsReserved() && control:
		s.violate(kindOpcodeControl.at(at, "%d", op))
	case op.IsReserved():
		s.violate(kindOpcodeData.at(at, "%d", op))
	}
	if f.Rsv&4 != 0 && !e.agreed.On {
		s.violate(kindRSV1.at(at, "RSV1"))
	}
	if f.Rsv&2 != 0 {
		s.violate(kindRSV2.at(at, "RSV2"))
	}
	if f.Rsv&1 != 0 {
		s.violate(kindRSV3.at(at, "RSV3"))
	}
	switch {
	case f.Rsv&4 == 0 || !e.agreed.On || op.IsReserved():
	case control:
		s.violate(kindRSV1Control.at(at, "it is set on a %s", f.Name))
	case op == ws.OpContinuation:
		s.violate(kindRSV1Continuation.at(at, "it is set on a continuation"))
	}
	if control && !op.IsReserved() && !f.Fin {
		s.violate(fragmented(op).at(at, "a %s without FIN", f.Name))
	}
	switch {
	case op == ws.OpContinuation && s.message == nil && s.uncertain:
		s.note("continues a message whose beginning is missing")
	case op == ws.OpContinuation && s.message == nil:
		s.violate(kindContinuation.at(at, ""))
	case op == ws.OpText && s.message != nil:
		s.violate(kindTextInside.at(at, "a text frame, and message %d has not ended", s.message.n))
	case op == ws.OpBinary && s.message != nil:
		s.violate(kindBinaryInside.at(at, "a binary frame, and message %d has not ended", s.message.n))
	}
	switch {
	case s.closed && !control:
		s.violate(Violation{
			Kind: kindDataAfterClose, At: at, Section: "RFC 6455 §5.5.1", What: "data frame after a Close",
			Cure: "send nothing more after a Close; the receiver ignores it",
		})
	case s.closed:
		s.note("comes after the Close of the same side; nobody looks at it any more")
	}
	if len(f.Header) < 2 {
		return
	}
	if f.Masked == (s.dir == Server) {
		k := kindMaskMissing
		if f.Masked {
			k = kindMaskForbidden
		}
		s.violate(k.at(at+1, ""))
	}
	e.judgeLength(s, f, at+1)
}

// judgeLength finds what is wrong with what there is of a length.
func (e *Explainer) judgeLength(s *side, f *Frame, at int64) {
	op := ws.OpCode(f.Opcode)
	if op.IsControl() && !op.IsReserved() && f.LengthBits > 7 {
		s.violate(tooLong(op).at(at, "a %s with a length of %d bits", f.Name, f.LengthBits))
	}
	least, size := uint64(0), f.LengthBits/8
	switch f.LengthBits {
	case 16:
		least = 126
	case 64:
		least = 1 << 16
	}
	// The bytes that are missing make the length at most this.
	high := f.Length
	if have := len(f.Header) - 2; have < size {
		high |= 1<<(8*(size-have)) - 1
	}
	switch {
	case f.Length > 1<<63-1:
		s.violate(kindLengthTop.at(at, "%#x", f.Length))
	case high < least && f.LengthBits == 16:
		s.violate(kindLength16.at(at, "%d in 16 bits", f.Length))
	case high < least:
		s.violate(kindLength64.at(at, "%d in 64 bits", f.Length))
	}
	if limit := e.o.MaxMessage; limit != 0 && !op.IsControl() && f.Length < 1<<63 {
		size := f.Length
		if s.message != nil && op == ws.OpContinuation {
			size += s.message.declared
		}
		if size > limit {
			s.violate(kindTooLarge.at(at, "%d bytes, and the limit is %d", size, limit))
		}
	}
}

// keyNotes looks at the masking key (§5.3).
func (e *Explainer) keyNotes(s *side, f *Frame) {
	if !f.Masked {
		return
	}
	key := [4]byte(f.Key)
	switch {
	case key == [4]byte{}:
		s.note("the masking key is 0, which masks nothing; §5.3 wants one that cannot be predicted")
	case s.keyed && key == s.key:
		s.note("the same masking key as in the frame before; §5.3 wants a new one for each")
	}
	s.key, s.keyed = key, true
}

// payload takes payload bytes of the frame.
func (e *Explainer) payload(s *side, b []byte) int {
	f := s.frame
	if uint64(len(b)) > s.left {
		b = b[:s.left]
	}
	const most = 16 << 10
	if len(b) > most {
		b = b[:most]
	}
	e.scratch = append(e.scratch[:0], b...)
	if f.Masked {
		ws.Cipher(e.scratch, [4]byte(f.Key), int(s.at&3))
	}
	k := min(len(b), max(0, e.o.Excerpt-len(f.Wire)))
	if f.Missing > 0 || e.secretive() {
		k = 0 // an excerpt has no holes
	}
	f.Wire = append(f.Wire, b[:k]...)
	f.Payload = append(f.Payload, e.scratch[:k]...)
	f.Cut = f.Cut || k < len(b)
	if f.Opcode == byte(ws.OpClose) {
		s.closing = append(s.closing, e.scratch[:min(len(b), ws.MaxControlFramePayloadSize-len(s.closing))]...)
	}
	s.at += uint64(len(b))
	s.left -= uint64(len(b))
	if f.Message != nil {
		e.content(s, e.scratch, s.left == 0 && f.Fin)
	}
	s.off += int64(len(b))
	if s.left == 0 {
		e.finishFrame(s)
	}
	return len(b)
}

// secretive: bytes that are read as a frame may be those of a request, and nothing of them is kept.
func (e *Explainer) secretive() bool {
	return e.o.Redact && !e.open && !e.request.seen && !e.o.Frames
}

// skipPayload goes over n bytes of payload that are missing.
func (e *Explainer) skipPayload(s *side, n int64) {
	if n == 0 {
		return
	}
	s.frame.Missing += int(n)
	s.at += uint64(n)
	s.left -= uint64(n)
	s.off += n
	if m := s.message; s.frame.Message != nil {
		m.hole = true
		s.zLost = s.zLost || m.compressed
		m.size += n
		m.end, m.reads[1] = s.off, s.reads-1
	}
	if s.left == 0 {
		e.finishFrame(s)
	}
}

// endFrame ends a frame without payload, which may yet end a message.
func (e *Explainer) endFrame(s *side) {
	if s.frame.Message != nil {
		e.content(s, nil, s.frame.Fin)
	}
	e.finishFrame(s)
}

// finishFrame makes the record of a whole frame, and of the message that it ends.
func (e *Explainer) finishFrame(s *side) {
	f := s.frame
	if f.Opcode == byte(ws.OpClose) {
		s.closed = true
		if f.Missing == 0 {
			e.closeFrame(s, f)
		}
	}
	e.emitFrame(s)
	s.phase = inHeader
	if f.Message != nil && f.Fin {
		e.endMessage(s, true)
	}
}

// closeFrame reads the payload of a Close (§5.5.1).
func (e *Explainer) closeFrame(s *side, f *Frame) {
	if uint64(len(s.closing)) < f.Length { // too long, and cut: perhaps inside a character
		s.closing = s.closing[:len(s.closing)-len(unfinished(s.closing))]
	}
	code, reason, err := frame.ParseClose(s.closing)
	at := s.off - int64(f.Length)
	f.Close = &Close{Code: code, Reason: string(reason), Meaning: meaning(code)}
	switch err {
	case error(frame.ErrCloseLength):
		f.Close = nil
		s.violate(kindCloseByte.at(at, ""))
	case error(frame.ErrCloseCode):
		s.violate(closeCode(code).at(at, "%d", code))
		if utf8.Valid(s.closing[2:]) {
			f.Close.Reason = string(s.closing[2:])
		} else {
			s.violate(kindCloseReason.at(at+2, "%x", excerpt(s.closing[2:], 16)))
		}
	case error(frame.ErrCloseReason):
		s.violate(kindCloseReason.at(at+2, "%x", excerpt(s.closing[2:], 16)))
	}
}

// emitFrame makes the record.
func (e *Explainer) emitFrame(s *side) {
	f := s.frame
	op := ws.OpCode(f.Opcode)
	if m := s.message; f.Message != nil && m.op == ws.OpText && !m.compressed || op == ws.OpPing || op == ws.OpPong {
		f.Text = asText(f.Payload, f.Cut || !f.Fin)
	}
	s.frame, s.closing = nil, s.closing[:0]
	r := s.record(KindFrame)
	r.Frame = f
	e.framed = e.framed || len(r.Violations) == 0 && !f.Truncated
	e.out = append(e.out, r)
}

// partHeader makes the record of a header that did not come whole.
func (e *Explainer) partHeader(s *side) {
	s.frame = fields(s.buf)
	e.guess(s, s.frame)
	e.judge(s, s.frame)
	s.frame.Truncated = true
	e.emitFrame(s)
}

// partFrame makes the record of a frame that did not come whole.
func (e *Explainer) partFrame(s *side) {
	s.frame.Truncated = true
	e.emitFrame(s)
}

// plausible reports whether b looks like frames of this side from its first byte on.
func (s *side) plausible(b []byte) bool {
	if len(b) < 2 {
		return false
	}
	for len(b) >= 2 {
		op := ws.OpCode(b[0] & 15)
		masked := b[1]&0x80 != 0
		switch {
		case op.IsReserved(), b[0]&0x30 != 0, masked != (s.dir == Client):
			return false
		case b[0]&0x40 != 0 && op != ws.OpText && op != ws.OpBinary:
			return false
		case op.IsControl() && (b[0]&0x80 == 0 || b[1]&0x7f > 125):
			return false
		}
		n := headerSize(b)
		if len(b) < n {
			return true
		}
		f := fields(b[:n])
		switch {
		case f.LengthBits == 16 && f.Length < 126, f.LengthBits == 64 && f.Length < 1<<16, f.Length > 1<<40:
			return false
		case uint64(len(b)-n) < f.Length:
			return true
		}
		b = b[n+int(f.Length):]
	}
	return true
}

// asText is b as text; empty if it is not UTF-8. more: b may end inside a character, which is left away.
func asText(b []byte, more bool) string {
	if more {
		b = b[:len(b)-len(unfinished(b))]
	}
	if !utf8.Valid(b) {
		return ""
	}
	return string(b)
}

func excerpt(b []byte, n int) []byte { return b[:min(n, len(b))] }
