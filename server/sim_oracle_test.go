package server

import (
	"bytes"
	"crypto/sha1"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"
)

// The reference of a simulation: the protocol once more, written from the RFC
// without a look at packages frame and handshake, slow and plain. simReader
// reads what one side has sent. simWant says what the server has to answer.

// simFrame is what simReader finds.
type simFrame struct {
	op    byte
	fin   bool
	first bool   // data holds the first bytes of the frame, or it is empty
	end   bool   // and the last ones
	data  []byte // unmasked
}

// simReader reads frames. For a client's frames it applies the rules of a
// server, for a server's those of a client.
type simReader struct {
	ofServer bool
	max      uint64 // payload of a message; 0: any

	head    []byte // of the frame that has begun
	left    uint64 // payload bytes to come; in a frame when size >= 0
	size    int64  // payload of the current frame, -1: none has begun
	at      int    // of the mask
	mask    [4]byte
	control []byte
	message byte   // opcode of the message that has begun, 0: none
	total   uint64 // payload of the message, as declared
	rune    []byte // the incomplete rune at the end of a text

	deflate    *simDeflate // nil: not agreed on
	compressed bool        // the message that has begun is
	deaf       bool        // messages are not inflated any more: our Close is sent
}

func newSimReader(ofServer bool, max uint64) *simReader {
	return &simReader{ofServer: ofServer, max: max, size: -1}
}

// boundary reports whether no frame has been begun.
func (r *simReader) boundary() bool { return r.size < 0 && len(r.head) == 0 }

// read takes all of b, and gives to yield what it finds: payload of data
// frames as it comes, control frames when they are whole. The code is not 0
// when b breaks a rule: then it is what the Close must say, 1002, 1007 or 1009.
// yield reports whether to go on.
func (r *simReader) read(b []byte, yield func(simFrame) bool) (code int) {
	for len(b) > 0 || r.size == 0 {
		if r.size < 0 {
			r.head = append(r.head, b[0])
			b = b[1:]
			code, whole := r.header()
			if code != 0 {
				return code
			}
			if !whole {
				continue
			}
		}
		n := int(min(uint64(len(b)), r.left))
		if n == 0 && r.left > 0 {
			return 0
		}
		first := r.left == uint64(r.size)
		data := bytes.Clone(b[:n])
		b = b[n:]
		r.left -= uint64(n)
		if !r.ofServer {
			for i := range data {
				data[i] ^= r.mask[r.at%4]
				r.at++
			}
		}
		if r.compressed && r.head[0]&8 == 0 && !r.deaf {
			code, f := r.inflate(data)
			if code != 0 {
				return code
			}
			if r.left == 0 {
				r.head, r.size = r.head[:0], -1
			}
			if f.end && f.fin {
				r.message, r.total, r.compressed = 0, 0, false
				r.deflate.end()
			}
			if (len(f.data) > 0 || f.first || f.end) && !yield(f) {
				return 0
			}
			continue
		}
		f := simFrame{op: r.head[0] & 15, fin: r.head[0]&0x80 != 0, first: first, end: r.left == 0, data: data}
		if f.op&8 != 0 {
			r.control = append(r.control, data...)
			if !f.end {
				continue
			}
			f.first, f.data, r.control = true, r.control, nil
		} else if r.message == 1 && !r.compressed {
			if !r.text(data, f.end && f.fin) {
				return 1007
			}
		}
		if f.end {
			if f.op&8 == 0 && f.fin {
				r.message, r.total, r.compressed = 0, 0, false
			}
			r.head, r.size = r.head[:0], -1
		}
		if !yield(f) {
			return 0
		}
	}
	return 0
}

// inflate takes payload of a compressed message. The frame that it makes of it is
// empty, and begins and ends nothing, when there is nothing to be said.
func (r *simReader) inflate(data []byte) (code int, f simFrame) {
	d := r.deflate
	end := r.left == 0
	last := end && r.head[0]&0x80 != 0
	plain, ok := d.inflate(data, last)
	fits := plain
	if r.max > 0 && r.total+uint64(len(plain)) > r.max {
		fits = plain[:r.max-r.total]
	}
	r.total += uint64(len(plain))
	d.damaged = fits
	switch {
	case r.message == 1 && !r.text(fits, false):
		return 1007, f
	case len(fits) < len(plain):
		return 1009, f
	case !ok:
		return simCorrupt, f
	case r.message == 1 && last && len(r.rune) > 0:
		return 1007, f
	}
	d.damaged = nil
	if !d.begun && (len(plain) > 0 || last) {
		d.begun, f.first, f.op = true, true, r.message
	}
	f.data, f.fin, f.end = plain, last, last
	if r.ofServer { // its frames are looked at; a client's do not show in an echo
		f.op, f.end = r.head[0]&15, end
	}
	return 0, f
}

// header looks at the bytes of a header that are there (§5.2 to §5.5).
func (r *simReader) header() (code int, whole bool) {
	h := r.head
	op, fin := h[0]&15, h[0]&0x80 != 0
	if len(h) == 1 {
		switch {
		case h[0]&0x30 != 0, // RSV
			h[0]&0x40 != 0 && (r.deflate == nil || op == 0 || op >= 8), // RSV1
			op >= 3 && op <= 7, op >= 11, // reserved
			op >= 8 && !fin,                     // control frames are not fragmented
			op == 0 && r.message == 0,           // nothing to continue
			op != 0 && op < 8 && r.message != 0: // not the continuation
			return 1002, false
		}
		return 0, false
	}
	masked := h[1]&0x80 != 0
	if masked == r.ofServer {
		return 1002, false
	}
	size, extra := uint64(h[1]&127), 0
	switch {
	case size > 125 && op >= 8:
		return 1002, false
	case size == 126:
		extra = 2
	case size == 127:
		extra = 8
	}
	if extra > 0 {
		// The least and the most that the length can be with the bytes that are there.
		var least, most [8]byte
		for i := range 8 {
			if i >= 8-extra {
				most[i] = 0xff
			}
		}
		for i, c := range h[2:min(len(h), 2+extra)] {
			least[8-extra+i], most[8-extra+i] = c, c
		}
		lo, hi := binary.BigEndian.Uint64(least[:]), binary.BigEndian.Uint64(most[:])
		if lo>>63 != 0 || extra == 2 && hi < 126 || extra == 8 && hi < 65536 {
			return 1002, false
		}
		size = lo
	}
	compressed := r.compressed || h[0]&0x40 != 0
	if op < 8 && !compressed && r.max > 0 && r.total+size > r.max {
		return 1009, false
	}
	need := 2 + extra
	if masked {
		need += 4
	}
	if len(h) < need {
		return 0, false
	}
	if masked {
		copy(r.mask[:], h[need-4:])
	}
	r.left, r.size, r.at = size, int64(size), 0
	if op < 8 {
		if r.compressed = compressed; !compressed {
			r.total += size
		}
		if op != 0 {
			r.message, r.rune = op, nil
		}
	}
	return 0, true
}

// text reports whether the text so far is UTF-8 (§8.1).
func (r *simReader) text(b []byte, last bool) bool {
	b = append(r.rune, b...)
	for len(b) > 0 && utf8.FullRune(b) {
		c, n := utf8.DecodeRune(b)
		if c == utf8.RuneError && n == 1 {
			return false
		}
		b = b[n:]
	}
	r.rune = bytes.Clone(b)
	return !last || len(b) == 0
}

// goodCode is §7.4 with the codes that IANA registered since.
func goodCode(c int) bool {
	switch c {
	case 1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014:
		return true
	}
	return c >= 3000 && c < 5000
}

// closeBody is the code of a Close's payload, 1005 for none, and the code of
// the Close that answers it when the payload is wrong.
func closeBody(p []byte) (code, fault int) {
	switch {
	case len(p) == 0:
		return 1005, 0
	case len(p) == 1 || !goodCode(int(binary.BigEndian.Uint16(p))):
		return 0, 1002
	case !utf8.Valid(p[2:]):
		return 0, 1007
	}
	return int(binary.BigEndian.Uint16(p)), 0
}

// What the server answers, in order.
const (
	wantHTTP  = iota // an answer of HTTP: code is the status, data the Sec-WebSocket-Accept
	wantStart        // the first frame of a message: code is the opcode
	wantData         // its payload
	wantEnd          // the last frame of it
	wantPong
	wantPing
	wantClose // code, and why
)

type simToken struct {
	kind int
	code int
	data []byte
	why  Reason

	optional bool // data that may come, or some of it
	deflate  string
}

func (t simToken) String() string {
	name := []string{"HTTP", "first frame of a message", "payload", "last frame of a message", "pong", "ping", "Close"}[t.kind]
	return fmt.Sprintf("%s %d (%d bytes %.40q)", name, t.code, len(t.data), t.data)
}

// simWant is a queue of them; runs of payload are joined, since nothing says
// how an echo cuts them.
type simWant []simToken

func (w *simWant) add(t simToken) {
	if n := len(*w); t.kind == wantData {
		if len(t.data) == 0 {
			return
		}
		if n > 0 && (*w)[n-1].kind == wantData && !t.optional {
			(*w)[n-1].data = append((*w)[n-1].data, t.data...)
			return
		}
		t.data = bytes.Clone(t.data)
	}
	*w = append(*w, t)
}

// message adds a whole one.
func (w *simWant) message(op byte, p []byte) {
	w.add(simToken{kind: wantStart, code: int(op)})
	w.add(simToken{kind: wantData, data: p})
	w.add(simToken{kind: wantEnd})
}

// take removes got from the front and says what is wrong with it.
func (w *simWant) take(got simToken) error {
	if got.kind == wantData && len(got.data) == 0 {
		return nil
	}
	if len(*w) == 0 {
		return fmt.Errorf("the server sent %v and owes nothing", got)
	}
	t := &(*w)[0]
	if t.optional && got.kind != t.kind {
		*w = (*w)[1:]
		return w.take(got)
	}
	switch {
	case t.kind == wantHTTP && t.code == 101 && t.deflate != got.deflate:
		return fmt.Errorf("the server agreed on %q, and should on %q", got.deflate, t.deflate)
	case t.kind != got.kind || t.code != got.code:
		return fmt.Errorf("the server sent %v and owes %v", got, *t)
	case t.kind == wantData && len(got.data) < len(t.data) && bytes.HasPrefix(t.data, got.data):
		t.data = t.data[len(got.data):]
		return nil
	case !bytes.Equal(t.data, got.data):
		return fmt.Errorf("the server sent %v and owes %v", got, *t)
	}
	*w = (*w)[1:]
	return nil
}

// size is how many bytes of payload are in the queue.
func (w simWant) size() (n int) {
	for _, t := range w {
		n += len(t.data) + 2
	}
	return n
}

// acceptOf is Sec-WebSocket-Accept (§4.2.2 item 5.4).
func acceptOf(key string) []byte {
	sum := sha1.Sum([]byte(key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"))
	return []byte(base64.StdEncoding.EncodeToString(sum[:]))
}

// httpAnswer reads an answer of HTTP at the front of b; n is 0 when it is not whole.
func httpAnswer(b []byte) (t simToken, n int, err error) {
	head, _, ok := strings.Cut(string(b), "\r\n\r\n")
	if !ok {
		return t, 0, nil
	}
	lines := strings.Split(head, "\r\n")
	field := map[string]string{}
	for _, l := range lines[1:] {
		name, value, ok := strings.Cut(l, ": ")
		if _, double := field[strings.ToLower(name)]; !ok || double {
			return t, 0, fmt.Errorf("header line %q", l)
		}
		field[strings.ToLower(name)] = value
	}
	version, status, _ := strings.Cut(lines[0], " ")
	status, _, _ = strings.Cut(status, " ")
	t.kind = wantHTTP
	if t.code, err = strconv.Atoi(status); err != nil || version != "HTTP/1.1" {
		return t, 0, fmt.Errorf("status line %q", lines[0])
	}
	n = len(head) + 4
	if t.code == 101 {
		t.data = []byte(field["sec-websocket-accept"])
		t.deflate = field["sec-websocket-extensions"]
		if !strings.EqualFold(field["upgrade"], "websocket") || !strings.EqualFold(field["connection"], "upgrade") {
			err = fmt.Errorf("a 101 without what it needs: %q", head)
		}
		return t, n, err
	}
	size, err := strconv.Atoi(field["content-length"])
	if err != nil || field["connection"] == "" {
		return t, 0, fmt.Errorf("a refusal without Content-Length or Connection: %q", head)
	}
	if len(b) < n+size {
		return t, 0, nil
	}
	return t, n + size, nil
}
