package conform

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"os"
	"sync"
	"time"

	"wspoll/frame"
	"wspoll/handshake"

	"github.com/gobwas/ws"
)

// First bytes of frame headers (§5.2): FIN or not, and an opcode, to be joined by |. The RSV bits are of no use to RFC
// 6455; rsv1 marks a compressed message in RFC 7692.
const (
	fin  = 0x80
	rsv1 = 0x40
	rsv2 = 0x20
	rsv3 = 0x10

	continuation = 0x0
	text         = 0x1
	binaryOp     = 0x2
	closing      = 0x8
	ping         = 0x9
	pong         = 0xa
)

// Session is the connection of one case, with what was said on it. It belongs to the goroutine that runs the case; only
// the inbox is filled by another.
type Session struct {
	ctx    context.Context
	opts   *Options
	client bool    // we are the client, and the peer is a server
	target *Target // as the client
	house  *house  // as the server

	hello   handshake.Hello    // as the client
	request *handshake.Request // as the server: what the peer asked for
	link                       // the connection that the methods are about

	verdict Verdict
	remarks []Remark
	record  transcript
	trouble error // why no connection came about

	sent      int     // bytes of ours, but those of a handshake that is only the beginning of a case
	uncounted bool    // such a handshake is going on
	cutAt     int     // cut what is sent behind so many of them; 0: do not
	beside    *beacon // for that
}

// link is one connection and where it stands.
type link struct {
	conn   net.Conn
	in     *inbox
	buf    []byte // what has arrived and is not consumed
	ended  error  // io.EOF, or why nothing more will arrive; nil while something may
	rules  frame.Rules
	parser frame.Parser
	agreed string // the extensions in use
	pact   pact   // of permessage-deflate

	aside []frame.Piece // data that came while a pong was expected
	pongs [][]byte      // that came while something else was expected
	pings int           // how many have come

	sentClose bool          // a Close of ours went out, so none will answer the peer's
	sentMore  bool          // and more behind it, for which TCP may end with a RST
	gotClose  bool          // the peer's Close has come
	peerCode  ws.StatusCode // its code, 1005 for none
}

// Remark is something that a case noted.
type Remark struct {
	Verdict Verdict `json:"verdict"`
	Text    string  `json:"text"`
}

// stop ends a case from within; run recovers it.
type stop struct{}

// Fail ends the case: the peer broke a rule.
func (s *Session) Fail(format string, args ...any) {
	s.note(Failed, format, args...)
	panic(stop{})
}

// NonStrict notes that the peer did what is tolerated, or did right but late.
func (s *Session) NonStrict(format string, args ...any) { s.note(NonStrict, format, args...) }

// Remark notes something that is worth knowing and no fault.
func (s *Session) Remark(format string, args ...any) { s.note(OK, format, args...) }

func (s *Session) note(v Verdict, format string, args ...any) {
	s.verdict = max(s.verdict, v)
	s.remarks = append(s.remarks, Remark{v, fmt.Sprintf(format, args...)})
}

// Key is a new masking key, one that cannot be foreseen (§10.3).
func (s *Session) Key() (k [4]byte) {
	rand.Read(k[:])
	return k
}

// Frame is one whole frame with the right length in its shortest form, masked if we are the client. first is FIN, RSV
// bits and opcode, which need not be legal.
func (s *Session) Frame(first byte, payload []byte) []byte {
	return s.Raw(frame.AppendHeader(nil, ws.Header{
		Fin: first&fin != 0, Rsv: first >> 4 & 7, OpCode: ws.OpCode(first & 15), Length: int64(len(payload)),
	}), payload)
}

// Raw is head, the bytes of a header without masking, and payload; masking is added if we are the client. The header
// may lie about the payload.
func (s *Session) Raw(head, payload []byte) []byte {
	return s.mask(head, payload, s.client, s.Key())
}

// mask puts a header and a payload together, masked or not (§5.3). A Close from us, right or wrong, is the only one:
// the peer's will not be answered.
func (s *Session) mask(head, payload []byte, masked bool, key [4]byte) []byte {
	if head[0]&15 == closing {
		s.sentClose = true
	}
	out := append(make([]byte, 0, len(head)+4+len(payload)), head...)
	if masked {
		out[1] |= 0x80
		out = append(out, key[:]...)
	}
	n := len(out)
	out = append(out, payload...)
	if masked {
		ws.Cipher(out[n:], key, 0)
	}
	return out
}

// Close is a Close frame with this body, which need not be legal.
func (s *Session) Close(body []byte) []byte { return s.Frame(fin|closing, body) }

// CloseBody is the body of a Close frame (§5.5.1).
func CloseBody(code int, reason string) []byte {
	return append([]byte{byte(code >> 8), byte(code)}, reason...)
}

// Send writes b in one go. Not every failure to write counts: the peer may have closed already, and what it said before
// decides.
func (s *Session) Send(b []byte) {
	if n := s.opts.Chop; n > 0 && len(b) > n && len(b) <= 64<<10 {
		s.SendChopped(b, n)
		return
	}
	s.write(b)
}

// SendChopped writes b in pieces of n bytes, each a TCP segment of its own as far as the kernel goes along.
func (s *Session) SendChopped(b []byte, n int) {
	for len(b) > n {
		s.write(b[:n])
		b = b[n:]
	}
	s.write(b)
}

func (s *Session) write(b []byte) {
	if s.uncounted {
		s.writeAll(b)
		return
	}
	at := s.cutAt - s.sent
	if s.sent += len(b); at <= 0 || at >= len(b) {
		s.writeAll(b)
		return
	}
	s.writeAll(b[:at])
	s.beside.wait(s)
	s.writeAll(b[at:])
}

func (s *Session) writeAll(b []byte) {
	if s.conn == nil {
		s.dial()
	}
	s.record.add(true, b)
	s.conn.SetWriteDeadline(time.Now().Add(s.opts.Timeout + time.Duration(len(b)>>20)*time.Second))
	_, err := s.conn.Write(b)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		s.Fail("the peer does not read: %d bytes could not be written within %v", len(b), s.opts.Timeout)
	}
}

// Shut sends the FIN of TCP: we write no more, and still read.
func (s *Session) Shut() {
	s.record.mark(true, "end of TCP")
	if c, ok := s.conn.(interface{ CloseWrite() error }); ok {
		c.CloseWrite()
	}
}

// Reset ends TCP at once, with a RST, as a process that crashed.
func (s *Session) Reset() {
	s.record.mark(true, "RST of TCP")
	conn := s.conn
	if c, ok := conn.(interface{ NetConn() net.Conn }); ok {
		conn = c.NetConn() // TLS would say goodbye
	}
	if c, ok := conn.(*net.TCPConn); ok {
		c.SetLinger(0)
	}
	conn.Close()
	s.ended = net.ErrClosed
}

// more waits for bytes from the peer. False: none came within the time, or none will come (s.ended is set).
func (s *Session) more(wait time.Duration) bool {
	if s.ended != nil {
		return false
	}
	timer := time.NewTimer(wait)
	defer timer.Stop()
	for {
		b, err := s.in.take()
		if len(b) > 0 {
			s.record.add(false, b)
			s.buf = append(s.buf, b...)
			return true
		}
		if err != nil {
			s.ended = err
			s.record.mark(false, endWords(err))
			return false
		}
		select {
		case <-s.in.signal:
		case <-timer.C:
			return false
		case <-s.ctx.Done():
			panic(stop{})
		}
	}
}

// endWords say how TCP ended.
func endWords(err error) string {
	switch {
	case isReset(err):
		return "RST of TCP"
	case errors.Is(err, errFlood):
		return err.Error()
	}
	return "end of TCP"
}

// A peer that never stops would keep a case from ever ending, and fill the memory.
const (
	mostBytes = 128 << 20 // from the peer on a connection; no case asks for more than half of it
	mostAside = 100       // messages that come while a pong is waited for, pongs while the end is, and interim answers
)

var errFlood = fmt.Errorf("more than %d MiB came", mostBytes>>20)

// inbox reads a connection all the time, so that neither side waits for the other to read.
type inbox struct {
	mu     sync.Mutex
	b      []byte
	err    error
	signal chan struct{} // one is there when something changed
}

func newInbox(conn net.Conn) *inbox {
	in := &inbox{signal: make(chan struct{}, 1)}
	go in.fill(conn)
	return in
}

func (in *inbox) fill(conn net.Conn) {
	b := make([]byte, 32<<10)
	for total := 0; ; {
		n, err := conn.Read(b)
		if total += n; total > mostBytes && err == nil {
			err = errFlood
		}
		in.mu.Lock()
		in.b = append(in.b, b[:n]...)
		in.err = err
		in.mu.Unlock()
		select {
		case in.signal <- struct{}{}:
		default:
		}
		if err != nil {
			return
		}
	}
}

// take returns what has arrived since, and the error that ended the reading.
func (in *inbox) take() ([]byte, error) {
	in.mu.Lock()
	defer in.mu.Unlock()
	b := in.b
	in.b = nil
	return b, in.err
}

// adopt makes conn the connection of s.
func (s *Session) adopt(conn net.Conn) {
	s.link = link{conn: conn, in: newInbox(conn), rules: frame.Rules{Client: s.client}}
}

// release ends the connection, if there is one.
func (l *link) release() {
	if l.conn != nil {
		l.conn.Close()
		l.conn = nil
	}
}

// another does something on a new connection while the one at hand stays open.
func (s *Session) another(do func()) {
	first := s.link
	defer func() { first.release() }()
	s.link = link{}
	do()
	s.release()
	s.link, first = first, link{}
}
