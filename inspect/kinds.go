package inspect

import (
	"fmt"

	"wspoll/frame"

	"github.com/gobwas/ws"
)

// kind is one way to break a rule of the framing: finer than the errors of package frame, because the cure differs.
type kind struct {
	name string
	err  *frame.Error // section, close code, and the words
	cure string
}

// The kinds that are found in a header.
var (
	kindOpcodeData = &kind{
		"opcode-reserved-data", frame.ErrReservedOpcode,
		"send data as text (1) or binary (2); 3 to 7 wait for an extension that defines them",
	}
	kindOpcodeControl = &kind{
		"opcode-reserved-control", frame.ErrReservedOpcode,
		"close (8), ping (9) and pong (10) are all the control frames there are; 11 to 15 wait for an extension that defines them",
	}
	kindRSV1 = &kind{
		"rsv1-not-agreed", frame.ErrReservedBits,
		"set RSV1 only when the handshake agreed on permessage-deflate: offer it, and look whether the answer has it",
	}
	kindRSV2 = &kind{
		"rsv2", frame.ErrReservedBits,
		"clear RSV2: no extension that was agreed on uses it",
	}
	kindRSV3 = &kind{
		"rsv3", frame.ErrReservedBits,
		"clear RSV3: no extension that was agreed on uses it",
	}
	kindRSV1Control = &kind{
		"rsv1-on-control", frame.ErrRSV1Misplaced,
		"clear RSV1: control frames are never compressed",
	}
	kindRSV1Continuation = &kind{
		"rsv1-on-continuation", frame.ErrRSV1Misplaced,
		"set RSV1 on the first frame of a message only: it is said of the whole message",
	}
	kindCloseFragmented = &kind{
		"close-fragmented", frame.ErrControlFragmented,
		"set FIN: a Close is one frame, with a reason of at most 123 bytes",
	}
	kindPingFragmented = &kind{
		"ping-fragmented", frame.ErrControlFragmented,
		"set FIN: a ping is one frame",
	}
	kindPongFragmented = &kind{
		"pong-fragmented", frame.ErrControlFragmented,
		"set FIN: a pong is one frame",
	}
	kindCloseLong = &kind{
		"close-too-long", frame.ErrControlTooLong,
		"shorten the reason to 123 bytes, between two characters",
	}
	kindPingLong = &kind{
		"ping-too-long", frame.ErrControlTooLong,
		"send at most 125 bytes in a ping; data goes into messages",
	}
	kindPongLong = &kind{
		"pong-too-long", frame.ErrControlTooLong,
		"send back what the ping had, which is at most 125 bytes",
	}
	kindContinuation = &kind{
		"continuation-without-message", frame.ErrContinuationUnexpected,
		"begin a message with text (1) or binary (2), and continue only one whose last frame had no FIN",
	}
	kindTextInside = &kind{
		"text-inside-message", frame.ErrContinuationExpected,
		"finish the message before it with a frame that has FIN, or make this one a continuation (0); messages are not interleaved",
	}
	kindBinaryInside = &kind{
		"binary-inside-message", frame.ErrContinuationExpected,
		"finish the message before it with a frame that has FIN, or make this one a continuation (0); messages are not interleaved",
	}
	kindMaskMissing = &kind{
		"mask-missing", frame.ErrMaskRequired,
		"set MASK, add a random key of 4 bytes, and XOR the payload with it: a client masks every frame, control frames too",
	}
	kindMaskForbidden = &kind{
		"mask-forbidden", frame.ErrMaskForbidden,
		"clear MASK and send the payload as it is: a server masks no frame",
	}
	kindLength16 = &kind{
		"length-16-not-minimal", frame.ErrLengthNotMinimal,
		"write a length up to 125 in the 7 bits themselves",
	}
	kindLength64 = &kind{
		"length-64-not-minimal", frame.ErrLengthNotMinimal,
		"write a length up to 125 in the 7 bits, and one up to 65535 as 126 and 16 bits",
	}
	kindLengthTop = &kind{
		"length-top-bit", frame.ErrLengthMSB,
		"write the length as 63 bits, most significant byte first; a top bit that is set is mostly a negative number or a wrong byte order",
	}
	kindTooLarge = &kind{
		"message-too-large", frame.ErrTooLarge,
		"send smaller messages, or raise the limit of the receiver; fragments do not help, the limit is for the message",
	}
)

// The kinds that are found in a payload.
var (
	kindUTF8Alone = &kind{
		"utf8-continuation-alone", frame.ErrTextUTF8,
		"send bytes that are no text as binary (2); text is encoded as UTF-8 first",
	}
	kindUTF8Overlong = &kind{
		"utf8-overlong", frame.ErrTextUTF8,
		"encode each character in its shortest form; C0 80 for NUL is a habit of Java's modified UTF-8",
	}
	kindUTF8Surrogate = &kind{
		"utf8-surrogate", frame.ErrTextUTF8,
		"join surrogate pairs to one character before encoding; a lone surrogate is no character",
	}
	kindUTF8Beyond = &kind{
		"utf8-beyond-unicode", frame.ErrTextUTF8,
		"send only characters up to U+10FFFF; bytes that are no text go as binary (2)",
	}
	kindUTF8Byte = &kind{
		"utf8-impossible-byte", frame.ErrTextUTF8,
		"send bytes that are no text as binary (2); F8 to FF are nowhere in UTF-8",
	}
	kindUTF8Broken = &kind{
		"utf8-sequence-broken", frame.ErrTextUTF8,
		"encode text as UTF-8 and not as Latin-1; cut strings between characters",
	}
	kindUTF8Truncated = &kind{
		"utf8-truncated", frame.ErrTextTruncated,
		"end a message between two characters; only a fragment may end inside one",
	}
	kindCloseByte = &kind{
		"close-one-byte", frame.ErrCloseLength,
		"send no payload at all, or a code of two bytes, most significant byte first",
	}
	kindCloseLow = &kind{
		"close-code-below-1000", frame.ErrCloseCode,
		"use 1000 for a normal end; codes below 1000 are not used (perhaps the bytes are swapped)",
	}
	kindCloseLocal = &kind{
		"close-code-local", frame.ErrCloseCode,
		"leave the payload empty to say nothing; 1005, 1006 and 1015 are for the API of the receiver, never for the wire",
	}
	kindCloseReserved = &kind{
		"close-code-reserved", frame.ErrCloseCode,
		"use a code that is registered, or one of 4000 to 4999 for your own application",
	}
	kindCloseHigh = &kind{
		"close-code-above-4999", frame.ErrCloseCode,
		"use one of 4000 to 4999 for your own application; from 5000 on none is valid",
	}
	kindCloseReason = &kind{
		"close-reason-utf8", frame.ErrCloseReason,
		"encode the reason as UTF-8, and cut it between two characters",
	}
	kindInflate = &kind{
		"deflate-corrupt", frame.ErrInflate,
		"compress each message as raw DEFLATE (no zlib or gzip header), flush it, and take the 00 00 ff ff off its end; keep within the agreed window, and forget it between messages when no context takeover was agreed",
	}
)

// kindDataAfterClose is no fault that a receiver answers: it has to ignore what comes behind a Close.
const kindDataAfterClose = "data-after-close"

// kinds are all kinds that are found in frames and make the receiver fail the connection.
var kinds = []*kind{
	kindOpcodeData, kindOpcodeControl, kindRSV1, kindRSV2, kindRSV3, kindRSV1Control, kindRSV1Continuation,
	kindCloseFragmented, kindPingFragmented, kindPongFragmented, kindCloseLong, kindPingLong, kindPongLong,
	kindContinuation, kindTextInside, kindBinaryInside, kindMaskMissing, kindMaskForbidden,
	kindLength16, kindLength64, kindLengthTop, kindTooLarge,
	kindUTF8Alone, kindUTF8Overlong, kindUTF8Surrogate, kindUTF8Beyond, kindUTF8Byte, kindUTF8Broken, kindUTF8Truncated,
	kindCloseByte, kindCloseLow, kindCloseLocal, kindCloseReserved, kindCloseHigh, kindCloseReason, kindInflate,
}

// Kinds returns the names of the violations that frames can have, beside those of the handshake.
func Kinds() []string {
	names := make([]string, 0, len(kinds)+1)
	for _, k := range kinds {
		names = append(names, k.name)
	}
	return append(names, kindDataAfterClose)
}

// at makes a violation of the kind. detail, if any, says which value is wrong.
func (k *kind) at(offset int64, detail string, args ...any) Violation {
	what := k.err.Msg
	if detail != "" {
		what += ": " + fmt.Sprintf(detail, args...)
	}
	return Violation{Kind: k.name, At: offset, Section: section(k.err), Code: k.err.Code, What: what, Cure: k.cure, err: k.err}
}

// fragmented and tooLong pick the kind for a control opcode.
func fragmented(op ws.OpCode) *kind {
	switch op {
	case ws.OpClose:
		return kindCloseFragmented
	case ws.OpPing:
		return kindPingFragmented
	}
	return kindPongFragmented
}

func tooLong(op ws.OpCode) *kind {
	switch op {
	case ws.OpClose:
		return kindCloseLong
	case ws.OpPing:
		return kindPingLong
	}
	return kindPongLong
}

// closeCode picks the kind for a code that frame.ValidCloseCode refuses.
func closeCode(c ws.StatusCode) *kind {
	switch {
	case c < 1000:
		return kindCloseLow
	case c == 1005 || c == 1006 || c == 1015:
		return kindCloseLocal
	case c >= 5000:
		return kindCloseHigh
	}
	return kindCloseReserved
}

// badUTF8 picks the kind for the first byte c that cannot be, behind the bytes of a begun sequence, which may be none.
func badUTF8(begun []byte, c byte) *kind {
	tail := c >= 0x80 && c < 0xc0
	switch {
	case len(begun) == 0 && tail:
		return kindUTF8Alone
	case len(begun) == 0 && (c == 0xc0 || c == 0xc1):
		return kindUTF8Overlong
	case len(begun) == 0 && c < 0xf8: // F5 to F7 would begin a sequence of four
		return kindUTF8Beyond
	case len(begun) == 0:
		return kindUTF8Byte
	case !tail:
		return kindUTF8Broken
	}
	// The second byte of four lead bytes is limited further.
	switch begun[0] {
	case 0xe0, 0xf0:
		return kindUTF8Overlong
	case 0xed:
		return kindUTF8Surrogate
	}
	return kindUTF8Beyond
}

// CloseMeaning says in a few words what a close code means (§7.4.1, and the registry of IANA).
func CloseMeaning(c ws.StatusCode) string { return meaning(c) }

// meaning is CloseMeaning.
func meaning(c ws.StatusCode) string {
	switch c {
	case 1000:
		return "normal: what the connection was for is done"
	case 1001:
		return "going away: the server goes down, or the page was left"
	case 1002:
		return "protocol error"
	case 1003:
		return "unsupported data: a kind of message that is not accepted, such as binary where only text is"
	case 1004:
		return "reserved; it has no meaning yet"
	case 1005:
		return "no code was sent"
	case 1006:
		return "the connection ended without a Close; never on the wire"
	case 1007:
		return "the payload does not fit its message type, such as text that is not UTF-8"
	case 1008:
		return "policy violation"
	case 1009:
		return "message too big"
	case 1010:
		return "the client needs an extension that the server did not agree to"
	case 1011:
		return "internal error: the server met something unexpected"
	case 1012:
		return "service restart"
	case 1013:
		return "try again later"
	case 1014:
		return "bad gateway: a server behind this one gave an invalid answer"
	case 1015:
		return "the TLS handshake failed; never on the wire"
	}
	switch {
	case c < 1000:
		return "not used"
	case c < 3000:
		return "reserved for the protocol"
	case c < 4000:
		return "registered by a library or framework"
	case c < 5000:
		return "private to the application"
	}
	return "not valid"
}

// opName is the name of an opcode (§5.2, §11.8).
func opName(op byte) string {
	switch ws.OpCode(op) {
	case ws.OpContinuation:
		return "continuation"
	case ws.OpText:
		return "text"
	case ws.OpBinary:
		return "binary"
	case ws.OpClose:
		return "close"
	case ws.OpPing:
		return "ping"
	case ws.OpPong:
		return "pong"
	}
	if op&8 != 0 {
		return "reserved control"
	}
	return "reserved data"
}
