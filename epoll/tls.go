package epoll

import (
	"crypto/tls"
	"errors"
	"io"
	"net"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// TLS on the loop. A handshake waits for its peer and computes for long, which
// crypto/tls does in one call, so that runs in a goroutine; how many there are is
// bounded, and so is how many of them compute at a time. An open connection has
// no goroutine: what a read brings is given to its tls.Conn, whose own Read finds
// the wire dry when all is decrypted and goes on with the next call. Handlers
// see and send what is inside of TLS, and need not know of it.

// TLS is the TLS side of one connection. It belongs to the loop's goroutine
// from the end of the handshake until Detach, then to who took it over.
type TLS struct {
	conn   *tls.Conn
	config *tls.Config
	loop   *Loop
	id     ID
	in     []byte   // bytes of the wire that conn has not read
	shake  *shake   // nil when the handshake has ended
	raw    net.Conn // after Detach: the connection itself
	err    error    // why TLS failed
	noted  bool     // close_notify was sent
	eof    bool     // close_notify has come, and the handler is not told yet
	client bool
}

// shake is what a handshake needs. Between its goroutine and the loop are in of
// the TLS, and these.
type shake struct {
	mu      sync.Mutex
	arrived sync.Cond
	ended   bool // the connection has ended: nothing more will arrive
	full    bool // much of in is unread: the loop reads no more for now
	begun   bool // the goroutine runs; of the loop
	waits   bool // for its turn to begin; of the loop
}

const (
	// maxRecord is more than the largest TLS record takes, with its header.
	maxRecord = 18 << 10
	// shakeMost is how many bytes of a handshake wait for its goroutine.
	shakeMost = 64 << 10
)

// PrepareTLS makes of a server's settings those for StartTLS, that agree on one of
// protocols (ALPN, RFC 7301). nil stays nil. Functions in them are called by the
// goroutine of a handshake, and must not wait: others wait for it to compute.
func PrepareTLS(c *tls.Config, protocols ...string) (*tls.Config, error) {
	if c == nil {
		return nil, nil
	}
	if len(c.Certificates) == 0 && c.GetCertificate == nil && c.GetConfigForClient == nil {
		return nil, errors.New("TLS without a certificate")
	}
	c = c.Clone()
	c.NextProtos = protocols
	c.DynamicRecordSizingDisabled = true // what is written in one call is in few records
	return c, nil
}

// StartTLS makes the peer of c, which has not been told anything, do a TLS
// handshake first. To be called within Opened. Data is called when the handshake
// is done and bytes have come; what is written to c before is dropped, and Finish
// ends it at once. A handshake that fails ends c with CauseTLS. No deadline is set:
// that of what shall come inside of TLS may be for both.
func (l *Loop) StartTLS(c Slot, config *tls.Config) {
	s := l.slots.At(c)
	if s.fd < 0 || s.is(flagEnding) {
		return
	}
	l.secure(c, s, &TLS{config: config})
	s.flags |= flagShaking
}

// DialTLS is Dial with a TLS handshake as client behind the connect. Opened is
// told, and timeout fulfilled, when that is done.
func (l *Loop) DialTLS(addr, local *net.TCPAddr, tag uint32, timeout time.Duration, config *tls.Config) (Slot, error) {
	c, err := l.Dial(addr, local, tag, timeout)
	if err == nil {
		l.secure(c, l.slots.At(c), &TLS{config: config, client: true})
	}
	return c, err
}

// TLS is the TLS side of c, nil when it is plain. Also within Closed.
func (l *Loop) TLS(c Slot) *TLS { return l.tls[c] }

// Begun reports whether the handshake has begun: TCP stands.
func (t *TLS) Begun() bool { return t.conn != nil }

// Err is why TLS failed; nil when it did not.
func (t *TLS) Err() error { return t.err }

// State is what the handshake has agreed on.
func (t *TLS) State() tls.ConnectionState { return t.conn.ConnectionState() }

// Over makes of the TLS side of a connection that was detached, and of the
// connection itself, one that is decrypted.
func (t *TLS) Over(raw net.Conn) net.Conn {
	t.raw = raw
	return t.conn
}

// AddTLS is Add for a connection that was detached with its TLS side, or without
// one, t being nil then. first are bytes that were read through it.
func (l *Loop) AddTLS(fd int, tag uint32, first []byte, t *TLS) error {
	if t == nil {
		return l.Add(fd, tag, first)
	}
	t.raw = nil
	c, s, err := l.insert(fd, first)
	if err != nil {
		return err
	}
	l.secure(c, s, t)
	gen := s.gen
	l.opened(c, tag)
	if s.gen == gen && !s.is(flagFinishing) {
		l.decrypt(c, s, t) // what t has read beyond first
	}
	return nil
}

// secure gives c its TLS side.
func (l *Loop) secure(c Slot, s *slot, t *TLS) {
	if l.tls == nil {
		l.tls = map[Slot]*TLS{}
		// A read may complete a record of which most came before; with less read
		// there is not more to be shown, and to be echoed, than without TLS.
		l.cipher = make([]byte, max(l.cfg.ReadBuffer-maxRecord, l.cfg.ReadBuffer/4))
	}
	s.flags |= flagTLS
	t.loop, t.id = l, l.ID(c)
	if t.conn == nil {
		t.shake = &shake{}
		t.shake.arrived.L = &t.shake.mu
	}
	l.tls[c] = t
}

// begin starts the handshake of c and reports true, or lets it wait for others
// to end: what has arrived stays with the kernel.
func (l *Loop) begin(c Slot, s *slot, t *TLS) bool {
	if l.shaking >= l.cfg.MaxHandshakes {
		t.shake.waits = true
		l.toShake = append(l.toShake, t)
		l.rewatch(c, s)
		return false
	}
	l.shaking++
	t.shake.begun, t.shake.waits = true, false
	if t.client {
		t.conn = tls.Client((*wire)(t), t.config)
	} else {
		t.conn = tls.Server((*wire)(t), t.config)
	}
	t.config = nil
	go t.run()
	return true
}

// run is the goroutine of a handshake.
func (t *TLS) run() {
	turns := t.loop.cfg.turns
	turns <- struct{}{}
	err := t.conn.Handshake()
	<-turns
	t.loop.Post(func() { t.loop.shaken(t, err) })
}

// shaken: the handshake of t has ended, and its goroutine.
func (l *Loop) shaken(t *TLS, err error) {
	l.shaking--
	for len(l.toShake) > 0 && l.shaking < l.cfg.MaxHandshakes {
		next := l.toShake[0]
		l.toShake = l.toShake[1:]
		if c, s := l.find(next.id); s != nil {
			l.begin(c, s, next)
			l.rewatch(c, s)
		}
	}
	c, s := l.find(t.id)
	if s == nil {
		return
	}
	l.serving = c
	t.shake = nil
	t.in = append([]byte(nil), t.in...) // what it kept for the handshake is not kept for the connection
	s.flags &^= flagShaking
	if err != nil {
		l.failTLS(c, s, t, err)
		return
	}
	if s.is(flagConnecting) {
		s.flags &^= flagConnecting
		*l.deadline(s) = 0
		l.rewatch(c, s)
		gen := s.gen
		l.opened(c, l.takeTag(s))
		if s.gen != gen || s.is(flagFinishing) {
			return
		}
	} else {
		l.rewatch(c, s)
	}
	l.decrypt(c, s, t) // bytes may have come along with the end of the handshake
}

// failTLS ends c, whose TLS has failed. The peer may have been sent an alert.
func (l *Loop) failTLS(c Slot, s *slot, t *TLS, err error) {
	t.err = err
	if s.is(flagConnecting) {
		l.end(c, s, CauseTLS, none)
		return
	}
	if h, ok := errors.AsType[tls.RecordHeaderError](err); ok && looksLikeHTTP(h.RecordHeader) {
		l.put(c, s, []byte(wantsTLS), nil)
	}
	l.finish(c, s, CauseTLS, true)
}

const wantsTLS = "HTTP/1.1 400 Bad Request\r\nContent-Type: text/plain; charset=utf-8\r\nConnection: close\r\n\r\n" +
	"this port speaks TLS: use https:// or wss://\n"

// looksLikeHTTP says whether what should be the head of a TLS record is the
// beginning of a request.
func looksLikeHTTP(head [5]byte) bool {
	switch string(head[:]) {
	case "GET /", "HEAD ", "POST ", "PUT /", "PATCH", "DELET", "OPTIO":
		return true
	}
	return false
}

// readTLS is readable for a connection with TLS.
func (l *Loop) readTLS(c Slot, s *slot) {
	t := l.tls[c]
	if h := t.shake; h != nil && !h.begun && !l.begin(c, s, t) {
		return
	}
	in := l.cipher
	if s.is(flagShaking) {
		in = in[:min(len(in), maxRecord)]
	}
	n, e := l.read(s.fd, in)
	switch {
	case e == unix.EAGAIN:
	case e != none:
		l.end(c, s, causeOf(e), e)
	case n == 0 && s.is(flagConnecting):
		t.err = io.ErrUnexpectedEOF
		l.end(c, s, CauseEOF, none)
	case n == 0:
		l.fin(c, s)
	case s.is(flagFinishing):
		// Lingering: the bytes are too late.
	case s.is(flagShaking):
		l.feed(c, s, t, in[:n])
	default:
		t.in = in[:n]
		l.decrypt(c, s, t)
	}
}

// feed gives bytes to the handshake of c.
func (l *Loop) feed(c Slot, s *slot, t *TLS, b []byte) {
	h := t.shake
	h.mu.Lock()
	t.in = append(t.in, b...)
	h.full = len(t.in) >= shakeMost
	h.mu.Unlock()
	h.arrived.Signal()
	l.rewatch(c, s)
}

// reads reports whether the loop should read for the handshake.
func (h *shake) reads() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return !h.full && !h.waits
}

// decrypt gives the bytes of t.in, as they are inside of TLS, to the handler.
func (l *Loop) decrypt(c Slot, s *slot, t *TLS) {
	gen, n := s.gen, 0
	var err error
	k := copy(l.in, l.bufs.bytes(l.carry(s)))
	// There is room for all of it, see newLoop.
	for err == nil && k+n < len(l.in) {
		var m int
		m, err = t.conn.Read(l.in[k+n:])
		n += m
	}
	if len(l.sealed) > 0 { // an alert, or the answer to a key update
		if l.ship(c, s); s.gen != gen {
			return
		}
	}
	if s.is(flagTapped) {
		l.tapped(c, false, l.in[k:k+n])
	}
	switch {
	case n == 0:
	case s.is(flagPaused): // by Opened, before it was known that there is more
		if !l.bufs.add(&l.extra(s).carry, l.in[k:k+n], nil) {
			l.end(c, s, CauseBudget, none)
			return
		}
	default:
		if l.show(c, s, l.in[:k+n]); s.gen != gen {
			return
		}
	}
	switch {
	case err == nil || errors.Is(err, errDry{}) || s.is(flagFinishing):
	case err == io.EOF:
		t.eof = true
		l.tellEOF(c, s, t)
	default:
		l.failTLS(c, s, t, err)
	}
}

// tellEOF tells the handler that close_notify has come, unless it must see bytes
// before that.
func (l *Loop) tellEOF(c Slot, s *slot, t *TLS) {
	if t.eof && s.flags&(flagPaused|flagCongested|flagResumed|flagFinishing) == 0 {
		t.eof = false
		l.fin(c, s)
	}
}

// seal sends a and then b, encrypted.
func (l *Loop) seal(c Slot, s *slot, a, b []byte) {
	t := l.tls[c]
	if s.is(flagShaking) || t.noted || t.err != nil {
		return
	}
	for _, p := range [2][]byte{a, b} {
		if len(p) == 0 {
			continue
		}
		if s.is(flagTapped) {
			l.tapped(c, true, p)
		}
		if _, err := t.conn.Write(p); err != nil { // too many bytes for one key, if that can be
			t.err = err
			l.sealed = l.sealed[:0]
			l.end(c, s, CauseTLS, none)
			return
		}
	}
	l.ship(c, s)
}

// ship sends what tls.Conn has written.
func (l *Loop) ship(c Slot, s *slot) {
	out := l.sealed
	l.sealed = nil // ending c, put may let others be written to
	l.put(c, s, out, nil)
	if cap(out) <= 4*outScratch {
		l.sealed = out[:0]
	}
}

// notify sends close_notify: nothing more will be written to c.
func (l *Loop) notify(c Slot, s *slot) {
	t := l.tls[c]
	if s.is(flagShaking) || t.noted || t.err != nil {
		return
	}
	t.noted = true
	t.conn.CloseWrite()
	l.ship(c, s)
}

// dropTLS forgets the TLS side of c, which ends or leaves the loop.
func (l *Loop) dropTLS(c Slot) {
	t := l.tls[c]
	delete(l.tls, c)
	if h := t.shake; h != nil {
		h.mu.Lock()
		h.ended = true
		h.mu.Unlock()
		h.arrived.Signal()
	}
}
