package handshake

import "encoding/base64"

// Hello is a client's side of the handshake: what it asks for, and what the response is checked against. Host and Target
// are required, Key too; the strings go to the wire as they are, so whoever takes them from others must see to it that
// they hold no line break (a Target and Host of a parsed Request do not).
type Hello struct {
	Host       string   // "example.com", or "example.com:8080" if the port is not the scheme's default
	Target     string   // path and query: "/chat?room=1"; empty means "/"
	Key        []byte   // 24 base64 bytes, see AppendKey; a new one for each connection
	Origin     string   // empty: none, as clients other than browsers do
	Protocols  []string // offered subprotocols, the preferred one first; tokens, each once
	Extensions string   // the value of Sec-WebSocket-Extensions, see AppendDeflateOffers; empty: none
	Header     []byte   // extra header lines, each ended by CRLF, or nil
}

// AppendKey appends the Sec-WebSocket-Key for a nonce, which the caller takes from crypto/rand: it MUST be chosen
// randomly for each connection (RFC 6455 §4.1 item 7).
func AppendKey(dst []byte, nonce [16]byte) []byte {
	return base64.StdEncoding.AppendEncode(dst, nonce[:])
}

// AppendRequest appends the request head of RFC 6455 §4.1, its fields in the order of the example in §1.3. It does not
// allocate when dst has room. The client MUST wait for the response before it sends any frame.
func AppendRequest(dst []byte, h *Hello) []byte {
	dst = append(dst, "GET "...)
	if h.Target == "" {
		dst = append(dst, '/')
	}
	dst = append(dst, h.Target...)
	dst = append(dst, " HTTP/1.1\r\nHost: "...)
	dst = append(dst, h.Host...)
	dst = append(dst, "\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: "...)
	dst = append(dst, h.Key...)
	dst = append(dst, "\r\n"...)
	if h.Origin != "" {
		dst = append(dst, "Origin: "...)
		dst = append(dst, h.Origin...)
		dst = append(dst, "\r\n"...)
	}
	for i, p := range h.Protocols {
		if i == 0 {
			dst = append(dst, "Sec-WebSocket-Protocol: "...)
		} else {
			dst = append(dst, ", "...)
		}
		dst = append(dst, p...)
	}
	if len(h.Protocols) > 0 {
		dst = append(dst, "\r\n"...)
	}
	dst = append(dst, "Sec-WebSocket-Version: 13\r\n"...)
	if h.Extensions != "" {
		dst = append(dst, "Sec-WebSocket-Extensions: "...)
		dst = append(dst, h.Extensions...)
		dst = append(dst, "\r\n"...)
	}
	dst = append(dst, h.Header...)
	return append(dst, "\r\n"...)
}
