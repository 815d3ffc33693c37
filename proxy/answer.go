package proxy

import (
	"bytes"
	"strconv"
	"strings"

	"wspoll/handshake"
)

// The answer of a backend.

// check holds the 101 in sh.response to what the client has asked for (RFC 6455 §4.1).
func (sh *shard) check(id pairID) error {
	var key [handshake.KeySize]byte
	h := handshake.Hello{Key: sh.pairs.At(id).takeKey(key[:0])}
	if a := sh.attempts[id]; a != nil {
		h.Extensions = a.extensions
		if a.protocols != "" {
			for p := range strings.SplitSeq(a.protocols, ",") {
				h.Protocols = append(h.Protocols, strings.TrimSpace(p))
			}
		}
	}
	return sh.response.Check(&h)
}

// framing says how frames look under the extensions of an answer that was
// checked. known is false if that is not for us to say.
func framing(extensions []byte) (compressed, known bool) {
	if len(bytes.TrimSpace(extensions)) == 0 {
		return false, true
	}
	// Values are tokens, so a comma is never inside one (RFC 6455 §9.1).
	name, _, _ := bytes.Cut(extensions, []byte{';'})
	ok := string(bytes.TrimSpace(name)) == "permessage-deflate" && bytes.IndexByte(extensions, ',') < 0
	return ok, ok
}

// appendRefusal appends the head of an answer other than 101 as the client
// gets it: unchanged, but for what it says of the connection, which ends.
func appendRefusal(dst, head []byte, r *handshake.Response) []byte {
	line, _, _ := bytes.Cut(head, []byte("\r\n"))
	dst = append(append(dst, line...), "\r\n"...)
	upgrade := false
	for name, value := range r.All {
		if equalName(name, "Connection") || equalName(name, "Keep-Alive") {
			continue
		}
		upgrade = upgrade || equalName(name, "Upgrade")
		dst = appendField(dst, string(name), value)
	}
	if upgrade { // RFC 9110 §7.8: never the one without the other
		return append(dst, "Connection: Upgrade, close\r\n\r\n"...)
	}
	return append(dst, "Connection: close\r\n\r\n"...)
}

// body knows where the body of a refusal ends (RFC 9112 §6.3).
type body struct {
	left    int64 // bytes still to come; -1: until the connection ends
	size    int64 // bytes that came
	chunked bool
	chunk   chunks
}

// maxBody bounds the body of a refusal.
const maxBody = 1 << 20

// newBody says what body an answer has; ok is false when two could read
// different things from it, or when it is too long.
func newBody(r *handshake.Response) (b body, ok bool) {
	encoding, encodings := r.Get("Transfer-Encoding")
	length, lengths := r.Get("Content-Length")
	switch {
	case r.Status == 204 || r.Status == 304:
		return body{}, true
	case encodings > 0:
		return body{chunked: true}, encodings == 1 && lengths == 0 && strings.EqualFold(string(encoding), "chunked")
	case lengths == 0:
		return body{left: -1}, true
	}
	n, err := strconv.ParseUint(string(length), 10, 63)
	return body{left: int64(n)}, lengths == 1 && err == nil && n <= maxBody
}

// next takes bytes of the body from the front of in: n of them belong to it,
// and more says whether there are still others to come that we want to see.
func (b *body) next(in []byte) (n int, more bool) {
	switch {
	case b.chunked:
		n = b.chunk.next(in)
		more = b.chunk.state != chunkEnd
	case b.left < 0:
		n, more = len(in), true
	default:
		n = int(min(b.left, int64(len(in))))
		b.left -= int64(n)
		more = b.left > 0
	}
	b.size += int64(n)
	return n, more && b.size <= maxBody
}

// chunks finds the end of a chunked body (RFC 9112 §7.1). What is no chunk at
// all ends it: the client is to see the fault, not we.
type chunks struct {
	left  int64
	state uint8
	line  int // bytes of the line so far
}

const (
	chunkSize    = iota // in the digits of a size
	chunkExt            // behind them, until the line ends
	chunkData           // in the data and the line end behind it
	chunkTrailer        // in the lines behind the last chunk
	chunkEnd
)

func (c *chunks) next(in []byte) int {
	for i := 0; i < len(in); i++ {
		switch b := in[i]; c.state {
		case chunkSize, chunkExt:
			d := digit(b)
			switch {
			case b == '\n':
				c.state = chunkData
				if c.left == 0 {
					c.state = chunkTrailer
				}
				c.left += 2 // the CR LF behind the data
				c.line = 0
			case c.state == chunkSize && d >= 0 && c.left < maxBody:
				c.left = c.left<<4 | int64(d)
			case d >= 0 && c.state == chunkSize:
				c.state = chunkEnd
				return i
			default:
				c.state = chunkExt
			}
		case chunkData:
			n := min(c.left, int64(len(in)-i))
			c.left -= n
			i += int(n) - 1
			if c.left == 0 {
				c.state = chunkSize
			}
		case chunkTrailer:
			switch {
			case b == '\n' && c.line == 0:
				c.state = chunkEnd
				return i + 1
			case b == '\n':
				c.line = 0
			case b != '\r':
				c.line++
			}
		case chunkEnd:
			return i
		}
	}
	return len(in)
}

func digit(b byte) int {
	switch {
	case '0' <= b && b <= '9':
		return int(b - '0')
	case 'a' <= lower(b) && lower(b) <= 'f':
		return int(lower(b)-'a') + 10
	}
	return -1
}
