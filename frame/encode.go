package frame

import (
	"encoding/binary"

	"github.com/gobwas/ws"
)

// AppendHeader appends the wire form of h (§5.2) to dst, ws.HeaderSize(h)
// bytes, the length in its shortest form. Opcode, FIN and RSV bits go out as
// they are given, legal or not: tools that test other endpoints need both.
// Panics with MisuseLength when h.Length is negative.
func AppendHeader(dst []byte, h ws.Header) []byte {
	if h.Length < 0 {
		panic(MisuseLength)
	}
	b0 := h.Rsv&7<<4 | byte(h.OpCode)&bitsOpcode
	if h.Fin {
		b0 |= bitFIN
	}
	if !h.Masked {
		return appendStart(dst, b0, 0, uint64(h.Length))
	}
	dst = appendStart(dst, b0, bitMask, uint64(h.Length))
	return append(dst, h.Mask[0], h.Mask[1], h.Mask[2], h.Mask[3])
}

// appendStart appends a header up to the masking key. mask is bitMask or 0.
func appendStart(dst []byte, b0, mask byte, length uint64) []byte {
	switch {
	case length < 126:
		return append(dst, b0, mask|byte(length))
	case length < 1<<16:
		return append(dst, b0, mask|126, byte(length>>8), byte(length))
	}
	dst = append(dst, b0, mask|127)
	return binary.BigEndian.AppendUint64(dst, length)
}

// AppendFrame appends a whole frame of a server, unmasked, to dst. payload is
// copied. A message in fragments has its opcode on the first and
// ws.OpContinuation on the others, fin on the last (§5.4). Panics with
// MisuseControl for a control frame without fin or over 125 bytes.
func AppendFrame(dst []byte, fin bool, op ws.OpCode, payload []byte) []byte {
	dst = appendStart(dst, firstByte(fin, op, len(payload)), 0, uint64(len(payload)))
	return append(dst, payload...)
}

// AppendMasked is AppendFrame for a client: the payload is masked (§5.3) in
// dst, and the caller's bytes stay as they are. The key must be fresh and
// unpredictable for every frame (§10.3).
func AppendMasked(dst []byte, fin bool, op ws.OpCode, mask [4]byte, payload []byte) []byte {
	dst = appendStart(dst, firstByte(fin, op, len(payload)), bitMask, uint64(len(payload)))
	dst = append(dst, mask[0], mask[1], mask[2], mask[3])
	start := len(dst)
	dst = append(dst, payload...)
	unmask(dst[start:], keyOf(mask[:]), 0)
	return dst
}

// firstByte makes FIN and opcode, and holds our own control frames to §5.5.
func firstByte(fin bool, op ws.OpCode, size int) byte {
	if op.IsControl() && (!fin || size > ws.MaxControlFramePayloadSize) {
		panic(MisuseControl)
	}
	if fin {
		return bitFIN | byte(op)&bitsOpcode
	}
	return byte(op) & bitsOpcode
}
