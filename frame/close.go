package frame

import (
	"encoding/binary"
	"unicode/utf8"

	"github.com/gobwas/ws"
)

// maxReason is what a Close frame has left for its reason: 125 bytes (§5.5)
// less the two of the code (§5.5.1).
const maxReason = ws.MaxControlFramePayloadSize - 2

// ValidCloseCode reports whether c may be the status code in a Close frame
// (§7.4): a code that RFC 6455 defines for the wire, one that IANA registered
// since (1012 to 1014), or one of the ranges 3000-3999 for libraries and
// 4000-4999 for private use. 1004, 1005, 1006 and 1015 may never be sent; the
// rest of 1000-2999 is reserved for the protocol's future.
//
// ws.CheckCloseFrameData judges otherwise: it refuses 1012 to 1014 and takes
// 5000 to 65535.
func ValidCloseCode(c ws.StatusCode) bool {
	switch {
	case c < 1000:
		return false
	case c <= 1003, c >= 1007 && c <= 1014:
		return true
	}
	return c >= 3000 && c <= 4999
}

// ParseClose reads the payload of a Close frame (§5.5.1). A Close without a
// payload has the code 1005, ws.StatusNoStatusRcvd (§7.1.5), which cannot be
// mistaken for a received one: a payload that says 1005 is an error.
//
// reason aliases payload. With ErrCloseCode and ErrCloseReason, code is the
// code found, for the log; with ErrCloseLength it is 0.
func ParseClose(payload []byte) (code ws.StatusCode, reason []byte, err error) {
	switch len(payload) {
	case 0:
		return ws.StatusNoStatusRcvd, nil, nil
	case 1:
		// §5.5.1: "If there is a body, the first two bytes of the body MUST be a
		// 2-byte unsigned integer".
		return 0, nil, ErrCloseLength
	}
	code, reason = ws.StatusCode(binary.BigEndian.Uint16(payload)), payload[2:]
	if !ValidCloseCode(code) {
		return code, nil, ErrCloseCode
	}
	// §5.5.1: "the body MAY contain UTF-8-encoded data"; §8.1 for other data.
	if !utf8.Valid(reason) {
		return code, nil, ErrCloseReason
	}
	return code, reason, nil
}

// AppendClose appends a Close frame of a server, unmasked, to dst. code 0 or
// 1005 makes one without a payload. A reason that does not fit into 123 bytes
// is cut between two code points, and one that is not UTF-8 before the first
// wrong byte. Panics with MisuseCode when the code may not be sent.
func AppendClose(dst []byte, code ws.StatusCode, reason string) []byte {
	reason, size := closeBody(code, reason)
	dst = append(dst, bitFIN|byte(ws.OpClose), byte(size))
	return appendCloseBody(dst, code, reason, size)
}

// AppendMaskedClose is AppendClose for a client.
func AppendMaskedClose(dst []byte, mask [4]byte, code ws.StatusCode, reason string) []byte {
	reason, size := closeBody(code, reason)
	dst = append(dst, bitFIN|byte(ws.OpClose), bitMask|byte(size), mask[0], mask[1], mask[2], mask[3])
	start := len(dst)
	dst = appendCloseBody(dst, code, reason, size)
	unmask(dst[start:], keyOf(mask[:]), 0)
	return dst
}

// closeBody returns what of reason is sent, and the payload's size.
func closeBody(code ws.StatusCode, reason string) (string, int) {
	if code == 0 || code == ws.StatusNoStatusRcvd {
		return "", 0
	}
	// "1005 is a reserved value and MUST NOT be set as a status code in a
	// Close control frame by an endpoint", and so on (§7.4).
	if !ValidCloseCode(code) {
		panic(MisuseCode)
	}
	reason = cutReason(reason)
	return reason, 2 + len(reason)
}

func appendCloseBody(dst []byte, code ws.StatusCode, reason string, size int) []byte {
	if size == 0 {
		return dst
	}
	dst = binary.BigEndian.AppendUint16(dst, uint16(code))
	return append(dst, reason...)
}

// cutReason returns the longest prefix of s that is UTF-8 and at most
// maxReason bytes. ws.NewCloseFrameBody cuts inside a code point.
func cutReason(s string) string {
	n := 0
	for n < len(s) {
		r, size := utf8.DecodeRuneInString(s[n:])
		if r == utf8.RuneError && size == 1 || n+size > maxReason {
			break
		}
		n += size
	}
	return s[:n]
}
