package conform

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strings"
	"syscall"
	"time"

	"wspoll/frame"

	"github.com/gobwas/ws"
)

// arrival is what waiting for the peer brought.
type arrival uint8

const (
	arrived arrival = iota
	silent          // nothing within the time
	over            // the end of TCP
)

// next returns the next piece that the peer sends: data, a pong, or its Close. Pings are answered on the way. What breaks
// the protocol ends the case. piece.Data is the caller's. Pings alone, however many, are silence.
func (s *Session) next(wait time.Duration) (piece frame.Piece, a arrival) {
	began := time.Now()
	for {
		n, err := s.parser.Next(&s.rules, s.buf, &piece)
		if err != nil {
			s.Fail("the peer broke the protocol: %v", err)
		}
		if n == 0 {
			if s.more(wait) {
				continue
			}
			if s.ended == nil {
				return piece, silent
			}
			if len(s.buf) > 0 || s.parser.MidFrame() {
				s.NonStrict("TCP ended inside a frame")
				s.buf = nil
			}
			return piece, over
		}
		piece.Data = bytes.Clone(piece.Data)
		s.buf = s.buf[n:]
		if s.gotClose {
			s.afterClose(&piece)
			continue
		}
		switch piece.Op {
		case ws.OpPing:
			s.pings++
			if !s.sentClose {
				s.write(s.Frame(fin|pong, piece.Data))
			}
			if time.Since(began) > wait {
				return piece, silent
			}
			continue
		case ws.OpClose:
			s.gotClose = true
			if s.peerCode, _, err = frame.ParseClose(piece.Data); err != nil {
				s.Fail("the peer broke the protocol: %v; its code was %d", err, s.peerCode)
			}
		}
		return piece, arrived
	}
}

// afterClose judges what came behind the peer's Close. §5.5.1: "The application MUST NOT send any more data frames after
// sending a Close frame."
func (s *Session) afterClose(p *frame.Piece) {
	switch {
	case p.Op.IsData():
		s.Fail("a data frame came after the peer's Close (RFC 6455 §5.5.1)")
	case p.Op == ws.OpClose:
		s.NonStrict("a second Close came after the peer's Close")
	default:
		s.NonStrict("a %s came after the peer's Close", opName(p.Op))
	}
}

// awaited is next, and pieces that ExpectPong put aside come first.
func (s *Session) awaited(wait time.Duration) (frame.Piece, arrival) {
	if len(s.aside) > 0 {
		p := s.aside[0]
		s.aside = s.aside[1:]
		return p, arrived
	}
	return s.next(wait)
}

// mustCome is awaited where only data may come: want says what is missing if it does not.
func (s *Session) mustCome(want string) frame.Piece {
	began := time.Now()
	for {
		p, a := s.awaited(s.opts.Timeout)
		switch {
		case a == silent || p.Op == ws.OpPong && time.Since(began) > s.opts.Timeout:
			s.Fail("%s did not come within %v", want, s.opts.Timeout)
		case a == over:
			s.Fail("%s where %s should come", endWords(s.ended), want)
		case p.Op == ws.OpClose:
			s.Fail("%s where %s should come", closeWords(p.Data), want)
		case p.Op == ws.OpPong:
			s.pongs = append(s.pongs, p.Data)
		default:
			return p
		}
	}
}

// ExpectMessage waits for the message with this opcode and payload, in as many frames as the peer likes, compressed or not
// if that was agreed. Pongs that come before its end are kept for ExpectPong.
func (s *Session) ExpectMessage(op ws.OpCode, payload []byte) {
	want := fmt.Sprintf("the %s message of %d bytes", opName(op), len(payload))
	s.pact.last = nil
	for got := 0; ; {
		p := s.mustCome(want)
		switch {
		case p.Op != op:
			s.Fail("a %s message came where %s should", opName(p.Op), want)
		case p.Compressed && !s.pact.on:
			s.Fail("a compressed message came where %s should", want)
		case p.Compressed:
			if s.pact.last = append(s.pact.last, p.Data...); p.Last {
				s.inflate(want, s.pact.last, payload)
				return
			}
			continue
		case got+len(p.Data) > len(payload):
			s.Fail("%s came back with more than that: %d bytes and more", want, got+len(p.Data))
		}
		if i := differ(p.Data, payload[got:]); i >= 0 {
			s.Fail("%s came back changed: byte %d is %#02x and not %#02x", want, got+i, p.Data[i], payload[got+i])
		}
		got += len(p.Data)
		if p.Last {
			if got != len(payload) {
				s.Fail("%s came back with %d bytes only", want, got)
			}
			return
		}
	}
}

// differ is the index of the first byte of a that b has not got at the same place, -1 if there is none.
func differ(a, b []byte) int {
	if bytes.HasPrefix(b, a) {
		return -1
	}
	for i, c := range a {
		if i == len(b) || b[i] != c {
			return i
		}
	}
	return -1
}

// Message is a whole message as it was on the wire: not inflated.
type Message struct {
	Op         ws.OpCode
	Compressed bool // the first frame had RSV1
	Payload    []byte
	Frames     int
}

// NextMessage waits for the next message, whatever is in it. Pongs that come before its end are kept for ExpectPong.
func (s *Session) NextMessage() Message {
	m := Message{}
	for {
		p := s.mustCome("a message")
		m.Op, m.Compressed = p.Op, p.Compressed
		m.Payload = append(m.Payload, p.Data...)
		if p.End {
			m.Frames++
		}
		if p.Last {
			return m
		}
	}
}

// ExpectPong waits for a pong with this payload. Data that comes before it is kept for ExpectMessage. A pong that nobody
// asked for may come (§5.5.3), but before an answer it is taken for a wrong answer.
func (s *Session) ExpectPong(payload []byte) { s.awaitPong(payload, true) }

// Alive shows that the connection is in order and that nothing more was coming: a ping, and its pong must be the next
// thing to arrive.
func (s *Session) Alive() {
	payload := fmt.Appendf(nil, "alive %x", s.Key())
	s.write(s.Frame(fin|ping, payload))
	s.awaitPong(payload, false)
}

func (s *Session) awaitPong(payload []byte, data bool) {
	for messages := 0; ; {
		var got []byte
		if len(s.pongs) > 0 {
			got, s.pongs = s.pongs[0], s.pongs[1:]
		} else {
			p, a := s.next(s.opts.Timeout)
			switch {
			case a == silent:
				s.Fail("no pong came within %v", s.opts.Timeout)
			case a == over:
				s.Fail("%s where a pong should come", endWords(s.ended))
			case p.Op == ws.OpClose:
				s.Fail("%s where a pong should come", closeWords(p.Data))
			case p.Op != ws.OpPong && !data:
				s.Fail("a %s message came where nothing should come but a pong", opName(p.Op))
			case p.Op != ws.OpPong:
				if p.Last {
					messages++
				}
				if messages > mostAside {
					s.Fail("%d messages came and no pong", messages)
				}
				s.aside = append(s.aside, p)
				continue
			}
			got = p.Data
		}
		if !bytes.Equal(got, payload) {
			s.Fail("a pong came with %s and not with %s (RFC 6455 §5.5.3)", excerpt(got), excerpt(payload))
		}
		return
	}
}

// Finish does the closing handshake (§7) from our side: a Close 1000, which the peer must answer. What else comes before
// its answer is one message too many.
func (s *Session) Finish() {
	s.write(s.Close(CloseBody(1000, "")))
	s.ExpectClose(1000)
}

// ExpectClose waits for the peer's Close with one of the codes, 1005 for one without a code, and for the end of TCP. Data
// that comes before it is one message too many.
func (s *Session) ExpectClose(codes ...int) {
	for !s.gotClose {
		p, a := s.awaited(s.opts.Timeout)
		switch {
		case a == silent:
			s.Fail("no Close came within %v", s.opts.Timeout)
		case a == over:
			s.NonStrict("%s where a Close should come (RFC 6455 §5.5.1)", endWords(s.ended))
			return
		case p.Op.IsData():
			s.Fail("a %s message came where nothing should come but a Close", opName(p.Op))
		case p.Op == ws.OpPong:
			s.keepPong(p.Data)
		}
	}
	s.judgeCode(codes)
	if !s.sentClose {
		s.answerClose()
	}
	s.expectEnd(true)
}

// keepPong notes a pong that came while the end was awaited. That there was one is what counts: of very many, most are
// forgotten.
func (s *Session) keepPong(payload []byte) {
	if len(s.pongs) < mostAside {
		s.pongs = append(s.pongs, payload)
	}
}

// judgeCode compares the code of the peer's Close. §5.5.1 and §7.1.7 leave another code possible; a code that may not be
// sent at all has failed already.
func (s *Session) judgeCode(codes []int) {
	if len(codes) > 0 && !slices.Contains(codes, int(s.peerCode)) {
		s.NonStrict("the peer closed with %d and not with %s", s.peerCode, orList(codes))
	}
}

// answerClose sends the Close that the peer's asks for. The peer may have ended TCP already.
func (s *Session) answerClose() {
	body := CloseBody(int(s.peerCode), "")
	if s.peerCode == ws.StatusNoStatusRcvd {
		body = nil
	}
	s.write(s.Close(body))
}

// expectEnd waits for the end of TCP, after the closing handshake or (not clean) a failure. §7.1.1: the server ends it
// first.
func (s *Session) expectEnd(clean bool) {
	if !s.client {
		s.Shut()
	}
	for {
		p, a := s.next(s.opts.Timeout)
		switch {
		case a == arrived:
			_ = p // data before its Close is no matter any more
			continue
		case a == silent && s.client:
			s.Fail("TCP was not ended within %v after the Close (RFC 6455 §7.1.1)", s.opts.Timeout)
		case a == silent:
			s.NonStrict("the client did not end TCP within %v after we did", s.opts.Timeout)
		case clean && isReset(s.ended) && !s.sentMore:
			s.NonStrict("RST where TCP should end cleanly (RFC 6455 §7.1.1)")
		}
		return
	}
}

// ExpectFail waits for the peer to fail the connection (§7.1.7): a Close with one of the codes, then the end of TCP. The
// end of TCP alone is non-strict, and so is another code. Pieces of a message may come before it, its end may not.
func (s *Session) ExpectFail(codes ...int) {
	switch s.awaitFail(s.opts.Timeout, nil) {
	case silent:
		s.Fail("the peer did not fail the connection within %v", s.opts.Timeout)
	case over:
		s.NonStrict("%s without a Close (RFC 6455 §7.1.7: SHOULD send one)", endWords(s.ended))
		return
	}
	s.judgeCode(codes)
	if !s.sentClose {
		s.answerClose()
	}
	s.expectEnd(false)
}

// ExpectFailBefore is ExpectFail for a fault that shows before the message is complete. A peer that fails the connection
// only when it has got the rest is late. between says that we stand between two frames, where a ping can ask whether the
// peer has seen the fault.
func (s *Session) ExpectFailBefore(rest []byte, between bool, codes ...int) {
	var probe []byte
	if between {
		probe = fmt.Appendf(nil, "probe %x", s.Key())
		s.write(s.Frame(fin|ping, probe))
	}
	if s.awaitFail(s.opts.Timeout/2, probe) != silent {
		s.ExpectFail(codes...)
		return
	}
	s.Send(rest)
	s.ExpectFail(codes...)
	s.NonStrict("the peer failed the connection only when the message was complete, not at the first wrong byte")
}

// awaitFail waits for the peer's Close (arrived) or the end of TCP (over). A pong with the payload of probe counts as
// silence.
func (s *Session) awaitFail(wait time.Duration, probe []byte) arrival {
	for !s.gotClose {
		p, a := s.awaited(wait)
		switch {
		case a != arrived:
			return a
		case p.Op == ws.OpPong && probe != nil && bytes.Equal(p.Data, probe):
			return silent
		case p.Op == ws.OpPong:
			s.keepPong(p.Data)
		case p.Op.IsData() && p.Last:
			s.Fail("a whole %s message came where the peer should fail the connection", opName(p.Op))
		}
	}
	return arrived
}

func isReset(err error) bool {
	return errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE)
}

// opName is an opcode in words.
func opName(op ws.OpCode) string {
	switch op {
	case ws.OpContinuation:
		return "continuation"
	case ws.OpText:
		return "text"
	case ws.OpBinary:
		return "binary"
	case ws.OpClose:
		return "Close"
	case ws.OpPing:
		return "ping"
	case ws.OpPong:
		return "pong"
	}
	return fmt.Sprintf("reserved (%#x)", byte(op))
}

// closeWords describe a Close that came.
func closeWords(body []byte) string {
	code, reason, _ := frame.ParseClose(body)
	if len(reason) == 0 {
		return fmt.Sprintf("a Close %d", code)
	}
	return fmt.Sprintf("a Close %d (%q)", code, reason)
}

// excerpt is b for people, cut if it is long.
func excerpt(b []byte) string {
	if len(b) == 0 {
		return "no payload"
	}
	return excerptOf(b, 24)
}

// excerptOf is at most n bytes of b, quoted, and how many there are if it has more.
func excerptOf(b []byte, n int) string {
	if len(b) > n {
		return fmt.Sprintf("%q... (%d bytes)", b[:n], len(b))
	}
	return fmt.Sprintf("%q", b)
}

// orList is codes with "or" between them.
func orList(codes []int) string {
	var s strings.Builder
	for i, c := range codes {
		if i > 0 {
			s.WriteString(" or ")
		}
		s.WriteString(fmt.Sprint(c))
	}
	return s.String()
}
