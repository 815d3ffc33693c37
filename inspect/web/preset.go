package web

import (
	"encoding/hex"
	"strings"

	"wspoll/frame"

	"github.com/gobwas/ws"
)

// preset is an experiment that is ready to be made.
type preset struct {
	ID     string        `json:"id"`
	Group  string        `json:"group"`
	Name   string        `json:"name"`
	Frames string        `json:"frames,omitempty"` // hexadecimal digits
	Head   [2]string     `json:"head,omitzero"`    // a line of the request, and what stands in its place; without the first it is added
	Kind   string        `json:"kind,omitempty"`   // the violation; none for what is legal
	Code   ws.StatusCode `json:"code,omitempty"`   // that the server closes with
	Status int           `json:"status,omitempty"` // or that it answers the request with
}

// requestHead is a good request for the lab's own endpoint.
func requestHead(host string) string {
	return "GET /lab HTTP/1.1\r\nHost: " + host + "\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n" +
		"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
}

// masked makes a frame of a client: first is FIN, RSV and opcode.
func masked(first byte, payload string) string {
	b := frame.AppendHeader(nil, ws.Header{
		Fin: first&0x80 != 0, Rsv: first >> 4 & 7, OpCode: ws.OpCode(first & 15), Length: int64(len(payload)),
		Masked: true, Mask: [4]byte{0x37, 0xfa, 0x21, 0x3d},
	})
	n := len(b)
	b = append(b, payload...)
	ws.Cipher(b[n:], [4]byte{0x37, 0xfa, 0x21, 0x3d}, 0)
	return hex.EncodeToString(b)
}

var presets = []preset{
	{"hello", "as it should be", "a text, masked", masked(0x81, "Hello"), [2]string{}, "", 0, 0},
	{"fragmented", "as it should be", "three fragments with a ping between them", masked(0x01, "Hel") + masked(0x00, "l") + masked(0x89, "still there?") + masked(0x80, "o"), [2]string{}, "", 0, 0},
	{"empty", "as it should be", "an empty message", masked(0x81, ""), [2]string{}, "", 0, 0},
	{"close", "as it should be", "a Close with code and reason", masked(0x88, "\x03\xe8that was all"), [2]string{}, "", 1000, 0},
	{"close-empty", "as it should be", "a Close that says nothing", masked(0x88, ""), [2]string{}, "", 1005, 0},
	{"half", "as it should be", "half a frame: the server waits for the rest", masked(0x81, "Hello")[:10], [2]string{}, "", 0, 0},
	{"after-close", "as it should be", "a message behind a Close: nobody looks at it", masked(0x88, "\x03\xe8") + masked(0x81, "too late"), [2]string{}, "data-after-close", 1000, 0},

	{"mask-missing", "mask", "no mask", "810548656c6c6f", [2]string{}, "mask-missing", 1002, 0},

	{"opcode-3", "opcode and reserved bits", "opcode 3, reserved for data", masked(0x83, "x"), [2]string{}, "opcode-reserved-data", 1002, 0},
	{"opcode-11", "opcode and reserved bits", "opcode 11, reserved for control", masked(0x8b, "x"), [2]string{}, "opcode-reserved-control", 1002, 0},
	{"rsv1", "opcode and reserved bits", "RSV1, and no compression was agreed on", masked(0xc1, "x"), [2]string{}, "rsv1-not-agreed", 1002, 0},
	{"rsv2", "opcode and reserved bits", "RSV2", masked(0xa1, "x"), [2]string{}, "rsv2", 1002, 0},
	{"rsv3", "opcode and reserved bits", "RSV3", masked(0x91, "x"), [2]string{}, "rsv3", 1002, 0},

	{"length-16", "length", "5 bytes, written in 16 bits", "81fe0005" + "37fa213d" + "7f9f4d5158", [2]string{}, "length-16-not-minimal", 1002, 0},
	{"length-64", "length", "5 bytes, written in 64 bits", "81ff0000000000000005" + "37fa213d" + "7f9f4d5158", [2]string{}, "length-64-not-minimal", 1002, 0},
	{"length-top", "length", "a length with its top bit set", "82ff8000000000000005" + "37fa213d" + "7f9f4d5158", [2]string{}, "length-top-bit", 1002, 0},
	{"too-large", "length", "a terabyte is declared", "82ff0000010000000000" + "37fa213d", [2]string{}, "message-too-large", 1009, 0},

	{"ping-fragmented", "control frames", "a ping in fragments", masked(0x09, "x"), [2]string{}, "ping-fragmented", 1002, 0},
	{"pong-fragmented", "control frames", "a pong in fragments", masked(0x0a, "x"), [2]string{}, "pong-fragmented", 1002, 0},
	{"close-fragmented", "control frames", "a Close in fragments", masked(0x08, "\x03\xe8"), [2]string{}, "close-fragmented", 1002, 0},
	{"ping-long", "control frames", "a ping of 126 bytes", masked(0x89, strings.Repeat("p", 126)), [2]string{}, "ping-too-long", 1002, 0},
	{"pong-long", "control frames", "a pong of 126 bytes", masked(0x8a, strings.Repeat("p", 126)), [2]string{}, "pong-too-long", 1002, 0},
	{"close-long", "control frames", "a Close of 126 bytes", masked(0x88, "\x03\xe8"+strings.Repeat("r", 124)), [2]string{}, "close-too-long", 1002, 0},

	{"continuation", "fragments", "a continuation of nothing", masked(0x80, "x"), [2]string{}, "continuation-without-message", 1002, 0},
	{"text-inside", "fragments", "a text that begins inside another message", masked(0x01, "one") + masked(0x81, "two"), [2]string{}, "text-inside-message", 1002, 0},
	{"binary-inside", "fragments", "a binary that begins inside a text", masked(0x01, "one") + masked(0x82, "two"), [2]string{}, "binary-inside-message", 1002, 0},

	{"utf8-latin1", "UTF-8", "Latin-1: café with the byte E9", masked(0x81, "caf\xe9 au lait"), [2]string{}, "utf8-sequence-broken", 1007, 0},
	{"utf8-ff", "UTF-8", "the byte FF", masked(0x81, "abc\xff"), [2]string{}, "utf8-impossible-byte", 1007, 0},
	{"utf8-alone", "UTF-8", "a continuation byte alone", masked(0x81, "x\x80"), [2]string{}, "utf8-continuation-alone", 1007, 0},
	{"utf8-overlong", "UTF-8", "NUL in two bytes", masked(0x81, "\xc0\x80"), [2]string{}, "utf8-overlong", 1007, 0},
	{"utf8-surrogate", "UTF-8", "half of a surrogate pair", masked(0x81, "\xed\xa0\x80"), [2]string{}, "utf8-surrogate", 1007, 0},
	{"utf8-beyond", "UTF-8", "a character beyond U+10FFFF", masked(0x81, "\xf4\x90\x80\x80"), [2]string{}, "utf8-beyond-unicode", 1007, 0},
	{"utf8-truncated", "UTF-8", "a character that does not end", masked(0x81, "\xe2\x82"), [2]string{}, "utf8-truncated", 1007, 0},

	{"close-one-byte", "Close", "a Close of one byte", masked(0x88, "\x03"), [2]string{}, "close-one-byte", 1002, 0},
	{"close-999", "Close", "code 999", masked(0x88, "\x03\xe7"), [2]string{}, "close-code-below-1000", 1002, 0},
	{"close-1005", "Close", "code 1005, which is never sent", masked(0x88, "\x03\xed"), [2]string{}, "close-code-local", 1002, 0},
	{"close-1004", "Close", "code 1004, which is reserved", masked(0x88, "\x03\xec"), [2]string{}, "close-code-reserved", 1002, 0},
	{"close-5000", "Close", "code 5000", masked(0x88, "\x13\x88"), [2]string{}, "close-code-above-4999", 1002, 0},
	{"close-reason", "Close", "a reason that is not UTF-8", masked(0x88, "\x03\xe8caf\xe9"), [2]string{}, "close-reason-utf8", 1007, 0},

	{"no-key", "handshake", "no Sec-WebSocket-Key", "", [2]string{"Sec-WebSocket-Key", ""}, "handshake-key", 0, 400},
	{"short-key", "handshake", "a key of 15 bytes", "", [2]string{"Sec-WebSocket-Key", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25j"}, "handshake-key", 0, 400},
	{"version-8", "handshake", "version 8, of 2011", "", [2]string{"Sec-WebSocket-Version", "Sec-WebSocket-Version: 8"}, "handshake-version", 0, 426},
	{"no-host", "handshake", "no Host", "", [2]string{"Host", ""}, "handshake-host", 0, 400},
	{"post", "handshake", "POST instead of GET", "", [2]string{"GET", "POST /lab HTTP/1.1"}, "handshake-line", 0, 405},
	{"no-upgrade", "handshake", "no Upgrade: it is plain HTTP then", "", [2]string{"Upgrade", ""}, "handshake-upgrade", 0, 426},
	{"foreign", "handshake", "a page of another origin", "", [2]string{"", "Origin: https://elsewhere.example"}, "", 0, 403},
}
