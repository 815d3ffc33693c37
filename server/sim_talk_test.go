package server

import (
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"strings"

	"wspoll/frame"
)

// What the clients of a simulation say: heads and frames, good and bad ones.

// simTalk makes the units of one client. Each kind of conversation is a
// function that appends to them; a new kind needs a line in simTalks.
type simTalk struct {
	rng   *rand.Rand
	max   int // Config.MaxMessage
	units [][]byte

	// When compression is agreed on; see sim_deflate_test.go.
	z       *frame.Deflater
	agreed  simDeflate
	window  frame.Deflation
	small   bool
	offered string // line of the head
}

var simTalks = []func(*simTalk){
	(*simTalk).messages, (*simTalk).messages, (*simTalk).messages,
	(*simTalk).burst, (*simTalk).flood,
	(*simTalk).closing, (*simTalk).closing,
	(*simTalk).violation, (*simTalk).violation,
	(*simTalk).badText,
	(*simTalk).atLimit,
	(*simTalk).commands,
	(*simTalk).noise,
	(*simTalk).corrupt, (*simTalk).bomb,
	func(*simTalk) {}, // silence
}

func (t *simTalk) add(u []byte)        { t.units = append(t.units, u) }
func (t *simTalk) n(n int) int         { return t.rng.IntN(n) }
func (t *simTalk) one(n int) bool      { return t.rng.IntN(n) == 0 }
func pick[T any](t *simTalk, a ...T) T { return a[t.rng.IntN(len(a))] }

// bytes is a masked frame, b0 and all: legal or not. form is the least
// number of length bytes to use, 0, 2 or 8.
func (t *simTalk) bytes(b0 byte, form int, masked bool, payload []byte) []byte {
	var mask [4]byte
	binary.BigEndian.PutUint32(mask[:], t.rng.Uint32())
	b := []byte{b0}
	bit := byte(0)
	if masked {
		bit = 0x80
	}
	switch n := len(payload); {
	case form == 0 && n < 126:
		b = append(b, bit|byte(n))
	case form <= 2 && n < 65536:
		b = binary.BigEndian.AppendUint16(append(b, bit|126), uint16(n))
	default:
		b = binary.BigEndian.AppendUint64(append(b, bit|127), uint64(n))
	}
	if !masked {
		return append(b, payload...)
	}
	b = append(b, mask[:]...)
	for i, c := range payload {
		b = append(b, c^mask[i%4])
	}
	return b
}

func (t *simTalk) frame(b0 byte, payload []byte) { t.add(t.bytes(b0, 0, true, payload)) }

// binary is n bytes of anything.
func (t *simTalk) binary(n int) []byte {
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(t.rng.Uint32()) | 1 // never the marker
	}
	return b
}

// text is about n bytes of UTF-8.
func (t *simTalk) text(n int) []byte {
	var b []byte
	for len(b) < n {
		b = append(b, pick(t, "a", "bc ", "ß", "€", "𝄞", "\u07ff", "\u0800", "\ud7ff", "\ue000", "\uffff", "\U00010000", "\U0010ffff")...)
	}
	return b
}

// size is mostly small, and often a boundary of the header's forms.
func (t *simTalk) size() int {
	switch {
	case t.one(3):
		return min(t.max, pick(t, 0, 1, 2, 124, 125, 126, 127, 128, 255, 256, 4095, 4096, 8191, 8192, 65535, 65536, 65537))
	case t.one(12):
		return t.n(min(t.max, 100_000) + 1)
	}
	return min(t.max, t.n(300))
}

// control is a ping or a pong that may come anywhere between frames.
func (t *simTalk) control() {
	t.frame(pick[byte](t, 0x89, 0x89, 0x8a), t.binary(pick(t, 0, 1, 4, t.n(126), 125)))
}

// send is one message, in fragments or not, with controls between them.
func (t *simTalk) send(op byte, p []byte) {
	if t.z != nil && !t.one(3) && (!t.small || len(p) < 2000) {
		t.compressed(op, t.packed(p))
		return
	}
	for !t.one(3) && len(p) > 0 && t.one(2) || t.one(12) {
		n := 0
		if !t.one(6) {
			n = t.n(len(p) + 1)
		}
		t.frame(op, p[:n])
		op, p = 0, p[n:]
		for t.one(4) {
			t.control()
		}
	}
	t.frame(0x80|op, p)
}

func (t *simTalk) messages() {
	for range 1 + t.n(6) {
		t.oneMessage()
		if t.one(4) {
			t.control()
		}
	}
}

// oneMessage is one of text or of binary, of any size.
func (t *simTalk) oneMessage() {
	n := t.size()
	if t.one(2) {
		t.send(2, t.binary(n))
		return
	}
	p := t.text(n)
	for len(p) > t.max { // the last rune may be above it
		p = t.text(n - 4)
	}
	t.send(1, p)
}

// burst is much at once: more than a server may keep for who does not read.
func (t *simTalk) burst() {
	for range 20 + t.n(100) {
		if t.one(5) {
			t.control()
			continue
		}
		t.send(2, t.binary(min(t.max, t.n(3000))))
	}
}

// flood is messages so large that few of them fill what may wait for a client.
func (t *simTalk) flood() {
	for range 10 + t.n(30) {
		t.send(2, t.binary(min(t.max, 7000+t.n(7000))))
		if t.one(3) {
			t.control()
		}
	}
}

// commands make the endpoint of messages, or of Blocking, do something.
func (t *simTalk) commands() {
	t.messages()
	t.send(1, []byte(pick(t, simPanic, simBye)))
	t.messages()
}

// closing is a Close with what may stand in it or not, and something behind.
func (t *simTalk) closing() {
	t.messages()
	if t.one(6) {
		t.frame(pick[byte](t, 1, 2), t.text(10)) // within a message
	}
	code := pick(t, 1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014, 3000, 3999, 4000, 4999)
	if t.one(4) {
		code = pick(t, 0, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000, 65535)
	}
	body := binary.BigEndian.AppendUint16(nil, uint16(code))
	switch t.n(12) {
	case 0:
		body = nil
	case 1:
		body = body[:1]
	case 2:
		body = append(body, t.text(t.n(100))...)
	case 3:
		body = append(body, "\xc3("...)
	case 4:
		body = append(body, strings.Repeat("x", 123)...)
	}
	t.frame(0x88, body)
	if t.one(3) {
		t.messages()
	}
}

// violation breaks one rule of §5, perhaps within a message.
func (t *simTalk) violation() {
	if !t.one(3) {
		t.messages()
	}
	within := t.one(2)
	if within {
		t.frame(pick[byte](t, 1, 2), t.text(t.n(20)))
	}
	switch t.n(10) {
	case 0: // reserved bits
		t.frame(pick[byte](t, 0x80, 0)|pick[byte](t, 0x10, 0x20, 0x30, 0x40, 0x50, 0x60, 0x70)|pick[byte](t, 0, 1, 2, 8, 9, 10), t.text(5))
	case 1: // reserved opcodes
		t.frame(pick[byte](t, 0x80, 0)|pick[byte](t, 3, 4, 5, 6, 7, 11, 12, 13, 14, 15), t.text(t.n(200)))
	case 2: // no mask
		t.add(t.bytes(pick[byte](t, 0x81, 0x82, 0x80, 0x88, 0x89), 0, false, t.text(t.n(300))))
	case 3: // a fragmented control frame
		t.frame(pick[byte](t, 8, 9, 10), t.text(3))
	case 4: // too long a control frame
		t.frame(pick[byte](t, 0x88, 0x89, 0x8a), t.binary(126+t.n(300)))
	case 5: // nothing to continue, or a message within a message
		if within {
			t.frame(pick[byte](t, 1, 2, 0x81, 0x82), t.text(5))
		} else {
			t.frame(pick[byte](t, 0, 0x80), t.text(5))
		}
	case 6: // not the shortest form
		if t.one(2) {
			t.add(t.bytes(0x82, 2, true, t.binary(pick(t, 0, 1, 125, t.n(126)))))
		} else {
			t.add(t.bytes(0x82, 8, true, t.binary(min(t.max, pick(t, 0, 125, 126, 65535, t.n(3000))))))
		}
	case 7: // 2^63
		t.add([]byte{0x82, 0xff, 0x80 | byte(t.n(128)), 0, 0, 0, 0, 0, 1, 2, 1, 2, 3, 4, 'x'})
	case 8: // too large, declared
		big := []byte{0x82, 0xff}
		big = binary.BigEndian.AppendUint64(big, uint64(max(t.max+1+t.n(1000), 65536))<<pick(t, 0, 0, 20))
		t.add(append(big, 1, 2, 3, 4, 'x', 'y'))
	case 9: // too large, in sum
		if !within {
			t.frame(2, t.binary(min(t.max, 100)))
		}
		t.frame(0, t.binary(min(t.max, 60_000)))
		t.frame(0x80, t.binary(t.max))
	}
	if t.one(2) {
		t.messages() // too late
	}
}

// badText is text that is not UTF-8, cut anywhere.
func (t *simTalk) badText() {
	if t.one(2) {
		t.messages()
	}
	p := t.text(t.n(200))
	p = append(p, pick(t, "\x80", "\xbf", "\xc0\xaf", "\xc1\xbf", "\xc3(", "\xe0\x80\x80", "\xe0\x9f\xbf", "\xed\xa0\x80", "\xed\xbf\xbf", "\xef\xbf",
		"\xf0\x80\x80\x80", "\xf0\x8f\xbf\xbf", "\xf4\x90\x80\x80", "\xf5\x80\x80\x80", "\xff", "\xe2\x82", "\xf0\x9f\x98", "\xc3")...)
	if t.one(2) {
		p = append(p, t.text(t.n(100))...)
	}
	t.send(1, p)
	if t.one(2) {
		t.messages()
	}
}

// atLimit is a message of just the largest size.
func (t *simTalk) atLimit() {
	if t.max > 200_000 {
		t.messages()
		return
	}
	t.send(2, t.binary(t.max))
	t.send(2, t.binary(pick(t, t.max, t.max-1, t.max+1)))
}

// noise is frames with some bits turned.
func (t *simTalk) noise() {
	from := len(t.units)
	t.messages()
	for range 1 + t.n(3) {
		u := t.units[from+t.n(len(t.units)-from)]
		u[t.n(min(len(u), pick(t, 2, 14, 200)))] ^= 1 << t.n(8)
	}
}

// heads is a head, the status that it deserves, and its key. Status 0 is plain HTTP.
func (t *simTalk) heads(path string) (head string, status int, key string) {
	var nonce [16]byte
	copy(nonce[:], t.binary(16))
	key = base64.StdEncoding.EncodeToString(nonce[:])
	k := "Sec-WebSocket-Key: " + key
	if !t.one(6) {
		lines := []string{k}
		if t.offered != "" {
			lines = append(lines, "Sec-WebSocket-Extensions: "+t.offered)
		}
		for range t.n(4) {
			lines = append(lines, fmt.Sprintf("X-Filler-%d: %s", len(lines), strings.Repeat("f", t.n(200))))
		}
		return request(path, lines...), 101, key
	}
	switch t.n(16) {
	case 0:
		return request(path, k, "Host:"), 400, ""
	case 1:
		return request(path, "Sec-WebSocket-Key:"), 400, ""
	case 2:
		return request(path, "Sec-WebSocket-Key: short"), 400, ""
	case 3:
		return request(path, k, "Sec-WebSocket-Version: 12"), 426, ""
	case 4:
		return request(path, k, "Sec-WebSocket-Version:"), 400, ""
	case 5:
		return request(path, k, "Connection: close"), 400, ""
	case 6:
		return request(path, k, "Upgrade:"), 426, ""
	case 7:
		return strings.Replace(request(path, k), "GET", "POST", 1), 405, ""
	case 8:
		return strings.Replace(request(path, k), "HTTP/1.1", "HTTP/1.0", 1), 505, ""
	case 9:
		return request("/nothing-here", k), 404, ""
	case 10:
		return request(path, k, "X-Long: "+strings.Repeat("x", 9000)), 431, ""
	case 11:
		return "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400, ""
	case 12:
		return request(path, k, "Origin: http://evil.example"), 403, ""
	case 13:
		return strings.Replace(request(path, k), "\r\n", "\n", 1), 400, ""
	case 14:
		return strings.Replace(request(path, k), "\r\n", "\r\n folded\r\n", 1), 400, ""
	}
	return "GET /nothing-here HTTP/1.1\r\nHost: example.com\r\n\r\n", 0, ""
}
