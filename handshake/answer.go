package handshake

import (
	"crypto/sha1"
	"encoding/base64"
)

// guid is the constant of RFC 6455 §1.3 that makes a server say "I know this protocol" and not merely echo.
const guid = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"

// AcceptSize is the length of a Sec-WebSocket-Accept: 20 bytes in base64.
const AcceptSize = 28

// AppendAccept appends the Sec-WebSocket-Accept that proves the receipt of key: the base64 of the SHA-1 of key, as it
// stood in the header, and the GUID (RFC 6455 §4.2.2 item 5.4). It does not allocate when dst has room.
func AppendAccept(dst, key []byte) []byte {
	var buf [KeySize + len(guid)]byte
	sum := sha1.Sum(append(append(buf[:0], key...), guid...))
	return base64.StdEncoding.AppendEncode(dst, sum[:])
}

// AppendAnswer appends the 101 that accepts the handshake (RFC 6455 §4.2.2 item 5). After it the connection is open and
// the next byte in either direction is a frame. o may be nil. It does not allocate when dst has room; dst must not
// overlap the request.
func AppendAnswer(dst []byte, a *Answer, o *Options) []byte {
	dst = append(dst, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: "...)
	dst = AppendAccept(dst, a.Key)
	dst = append(dst, "\r\n"...)
	// §4.2.2 /subprotocol/: without a choice the field MUST NOT be sent; an empty value is no choice.
	if a.Protocol != "" {
		dst = append(dst, "Sec-WebSocket-Protocol: "...)
		dst = append(dst, a.Protocol...)
		dst = append(dst, "\r\n"...)
	}
	// §11.3.2: one line, however many extensions.
	if a.Deflate.On || len(a.Extensions) > 0 {
		dst = append(dst, "Sec-WebSocket-Extensions: "...)
		if a.Deflate.On {
			dst = a.appendDeflate(dst)
			if len(a.Extensions) > 0 {
				dst = append(dst, ", "...)
			}
		}
		dst = append(dst, a.Extensions...)
		dst = append(dst, "\r\n"...)
	}
	if o != nil {
		dst = append(dst, o.Header...)
	}
	return append(dst, "\r\n"...)
}
