package inspect

import (
	"bytes"
	"encoding/hex"
	"strconv"
	"time"

	"wspoll/frame"
	"wspoll/handshake"
)

// MaxHead is how many bytes of a request or an answer are kept to explain it. A head that is longer, or has more than 1,000
// lines, is shown up to there.
const MaxHead = 64 << 10

// Options say how to explain a connection. The zero value is good.
type Options struct {
	// Excerpt is how many bytes of each payload, and of each message, are kept to show; 0 means 256, negative none.
	Excerpt int

	// MaxMessage is the limit of the receiver for a message, as in frame.Rules; 0 means none. A message above it is a
	// violation that demands 1009.
	MaxMessage uint64

	// Deflate is what was agreed on compression; nil means: what the handshake says. When there is no handshake in the
	// bytes, RSV1 is taken as a sign of permessage-deflate without parameters, and a note says so.
	Deflate *handshake.Deflate

	// Redact keeps out of the records what may be a secret: the values of Cookie, Set-Cookie, Authorization and
	// Proxy-Authorization, and all bytes that are neither a line of a handshake nor a frame of an open connection.
	Redact bool

	// Frames: the bytes begin behind the handshake. Otherwise the first bytes decide, which can be wrong only for a
	// stream that begins with a fault.
	Frames bool
}

// Explainer follows one connection. It belongs to one goroutine.
type Explainer struct {
	o       Options
	sides   [2]side
	out     []Record
	scratch []byte

	request request           // the last request that wanted a WebSocket
	agreed  handshake.Deflate // on compression
	known   bool              // agreed is what the handshake or the options say, and no guess
	open    bool              // a 101 has been seen
	framed  bool              // a frame without a violation has been seen
	foreign bool              // the client sent what is no request, and had not asked for a WebSocket
}

// phase is what a side's next byte belongs to.
type phase uint8

const (
	undecided phase = iota // the first bytes of a head or of a frame
	inHead                 // of a request or an answer
	inHeader               // of a frame
	inPayload              // of a frame
	inBytes                // neither
	lost                   // bytes are missing, and where a frame begins is not known
	inNowhere              // a payload whose length cannot be
)

// side is what one side sends.
type side struct {
	dir      Dir
	off      int64 // of the next byte
	when     time.Time
	reads    int // how many came; the last is the one that is being explained
	wire     int // number of the wire record that is in the making
	messages int

	phase  phase
	begun  bool // the record in the making has bytes
	start  int64
	first  int // the read that brought the first of them
	buf    []byte
	notes  []string
	broken []Violation

	lines []headLine // in a head
	body  int64      // in bytes: how many are left, negative: all
	what  string     // in bytes: what they are

	frame   *Frame
	left    uint64 // of the frame's payload
	at      uint64 // bytes of payload that came
	closing []byte // payload of a Close

	message   *message
	uncertain bool // bytes were missing: a message may have begun in them
	midway    bool // the stream did not begin with the connection
	closed    bool // a Close was sent
	key       [4]byte
	keyed     bool

	z     *frame.Inflater
	zLost bool // what later messages refer to is not known
}

// New returns an Explainer for one connection.
func New(o Options) *Explainer {
	if o.Excerpt == 0 {
		o.Excerpt = 256
	}
	e := &Explainer{o: o}
	e.sides[Server].dir = Server
	if o.Deflate != nil {
		e.agreed, e.known = *o.Deflate, true
	}
	if o.Frames {
		e.sides[Client].phase, e.sides[Server].phase = inHeader, inHeader
	}
	return e
}

// WebSocket reports whether something that has been seen says that this is a WebSocket connection: a request that
// wants one, or a frame without a fault.
func (e *Explainer) WebSocket() bool {
	return e.shaken() || e.framed
}

// shaken reports whether there was a handshake, or one half of it.
func (e *Explainer) shaken() bool { return e.open || e.request.seen }

// Feed explains the next bytes of one side, which came at a time. b is not kept, and not changed. The Records are valid
// until the next call; what they point to, longer.
func (e *Explainer) Feed(dir Dir, when time.Time, b []byte) []Record {
	e.out = e.out[:0]
	if len(b) == 0 {
		return nil
	}
	s := &e.sides[dir]
	if s.phase == lost && (s.surelyHead(b) || s.plausible(b)) {
		e.endBytes(s)
		s.phase = undecided
	}
	i, from := e.beginRead(s, when, int64(len(b)), false)
	e.take(s, b)
	e.endRead(s, i, from)
	return e.out
}

// Gap tells that the next n bytes of one side are missing, n < 0: that an unknown number is missing before the first.
// The Records are valid until the next call.
func (e *Explainer) Gap(dir Dir, when time.Time, n int64) []Record {
	e.out = e.out[:0]
	s := &e.sides[dir]
	if n == 0 {
		return nil
	}
	if n < 0 {
		s.midway, s.uncertain = true, true
		s.phase, s.what = lost, whatLost
		return nil
	}
	if s.phase == inHead && s.begun {
		e.partHead(s)
		s.phase = lost
	}
	i, from := e.beginRead(s, when, n, true)
	e.skip(s, n)
	e.endRead(s, i, from)
	return e.out
}

// Finish tells that no more bytes will come, and returns records of what was left unfinished.
func (e *Explainer) Finish() []Record {
	e.out = e.out[:0]
	for i := range e.sides {
		e.end(&e.sides[i])
	}
	return e.out
}

// beginRead begins the record of a read. i is its place in out, from the wire record that it begins in.
func (e *Explainer) beginRead(s *side, when time.Time, n int64, gap bool) (i, from int) {
	s.when = when
	e.out = append(e.out, Record{
		Kind: KindRead, Dir: s.dir, N: s.reads, Start: s.off, End: s.off + n, When: when,
		Reads: [2]int{s.reads, s.reads}, Read: &Read{Gap: gap},
	})
	s.reads++
	return len(e.out) - 1, s.wire + len(s.lines)
}

func (e *Explainer) endRead(s *side, i, from int) {
	last := s.wire + len(s.lines)
	if !s.begun || s.phase == inHead && len(s.buf) == 0 {
		last-- // it ended with a record
	}
	e.out[i].Read.Wire = [2]int{from, last}
}

// begin notes where the next record of the wire begins, unless it has.
func (s *side) begin() {
	if !s.begun {
		s.begun, s.start, s.first = true, s.off, s.reads-1
	}
}

// record makes the record of the wire that ends here, and gets ready for the next.
func (s *side) record(k Kind) Record {
	r := Record{
		Kind: k, Dir: s.dir, N: s.wire, Start: s.start, End: s.off, When: s.when,
		Reads: [2]int{s.first, s.reads - 1}, Notes: s.notes, Violations: s.broken,
	}
	s.wire++
	s.begun, s.notes, s.broken = false, nil, nil
	return r
}

func (s *side) note(text string) { s.notes = append(s.notes, text) }

func (s *side) violate(v Violation) { s.broken = append(s.broken, v) }

// take explains bytes. off counts along.
func (e *Explainer) take(s *side, b []byte) {
	for len(b) > 0 {
		s.begin()
		n := 0
		switch s.phase {
		case undecided:
			n = e.decide(s, b)
		case inHead:
			n = e.head(s, b)
		case inHeader:
			n = e.header(s, b)
		case inPayload:
			n = e.payload(s, b)
		default:
			n = e.bytes(s, b)
		}
		b = b[n:]
	}
}

// decide takes the first two bytes of a head or of a frame, and finds out what they are.
func (e *Explainer) decide(s *side, b []byte) int {
	n := min(2-len(s.buf), len(b))
	s.buf = append(s.buf, b[:n]...)
	s.off += int64(n)
	if len(s.buf) < 2 {
		return n
	}
	b = s.buf
	s.off -= 2
	s.buf = nil
	head := s.looksLikeHead(b)
	e.foreign = e.foreign || s.dir == Client && !head && !e.shaken()
	switch {
	case head:
		s.phase = inHead
	case b[0] == 0x16 && b[1] == 3:
		s.phase, s.body, s.what = inBytes, -1, "TLS: all that follows is encrypted"
	default:
		s.phase = inHeader
	}
	e.take(s, b)
	return n
}

// looksLikeHead reports whether a request or an answer may begin with b, of at least two bytes. Their first letters are no
// frames that could be legal, but for A and B, the first fragments of compressed messages.
func (s *side) looksLikeHead(b []byte) bool {
	letter := func(c byte) bool { return c|0x20 >= 'a' && c|0x20 <= 'z' }
	if len(b) < 2 || !letter(b[0]) || !letter(b[1]) {
		return false
	}
	if s.dir == Server {
		return b[0] == 'H'
	}
	return b[0] != 'A' && b[0] != 'B'
}

// surelyHead is a narrower looksLikeHead, for the middle of a stream.
func (s *side) surelyHead(b []byte) bool {
	if s.dir == Server {
		return bytes.HasPrefix(b, []byte("HTTP/1."))
	}
	return bytes.HasPrefix(b, []byte("GET /"))
}

// end finishes what a side has begun.
func (e *Explainer) end(s *side) {
	if s.begun {
		switch s.phase {
		case undecided, inHeader:
			e.partHeader(s)
		case inHead:
			e.partHead(s)
		case inPayload:
			e.partFrame(s)
		default:
			e.endBytes(s)
		}
	}
	s.buf, s.begun = nil, false
	e.endMessage(s, false)
}

const (
	whatLost  = "bytes are missing in the capture: where the next frame begins is not known"
	whatNever = "the rest: the length above cannot be, so where the next frame begins is not known"
)

// bytes takes what is neither head nor frame.
func (e *Explainer) bytes(s *side, b []byte) int {
	n := len(b)
	if s.phase == inBytes && s.body >= 0 && int64(n) > s.body {
		n = int(s.body)
	}
	s.buf = append(s.buf, b[:min(n, max(0, e.o.Excerpt-len(s.buf)))]...)
	s.off += int64(n)
	if s.phase == inBytes && s.body >= 0 {
		if s.body -= int64(n); s.body == 0 {
			e.endBytes(s)
			s.phase = undecided
		}
	}
	return n
}

// endBytes makes the record of them.
func (e *Explainer) endBytes(s *side) {
	if s.begun {
		r := s.record(KindBytes)
		r.Bytes = &Bytes{What: s.what, Excerpt: s.buf}
		if e.o.Redact {
			r.Bytes.Excerpt = nil
		}
		e.out = append(e.out, r)
	}
	s.buf = nil
}

// skip goes over n bytes that are missing.
func (e *Explainer) skip(s *side, n int64) {
	if s.phase == inPayload {
		k := int64(min(uint64(n), s.left))
		e.skipPayload(s, k)
		n -= k
	}
	if n == 0 {
		return
	}
	s.begin()
	switch {
	case s.phase == inBytes && s.body >= 0 && s.body <= n:
		s.off += s.body
		n -= s.body
		e.endBytes(s)
		if n == 0 {
			s.phase = undecided
			return
		}
	case s.phase == inBytes || s.phase == inNowhere:
		s.off += n
		s.body -= min(n, max(0, s.body))
		return
	}
	// What has come of a header goes with the gap.
	s.begin()
	e.endMessage(s, false)
	s.phase, s.what, s.uncertain = lost, whatLost, true
	s.off += n
}

func itoa(n int) string { return strconv.Itoa(n) }

func hexDigits(b []byte) string { return hex.EncodeToString(b) }
