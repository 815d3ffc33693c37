package client

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"time"
	"unicode/utf8"

	"wspoll/frame"

	"github.com/gobwas/ws"
)

const (
	maxOut    = 1 << 20     // bytes that wait to be written before Send waits; bytes of answers before Next takes no more
	chunkSize = 64 << 10    // written at a time
	finTime   = time.Second // for the server's FIN, when the closing handshake is over (§7.1.1)
)

// Event is a message or a control frame that has come.
type Event struct {
	Op         ws.OpCode // text, binary, ping, pong or close
	Data       []byte    // its payload, inflated; of a Close, its reason. Valid until the next call of Next
	Code       ws.StatusCode
	Frames     int  // that the message came in
	Compressed bool // it came compressed
	Answered   bool // a pong or a Close of ours answers it
}

// How a connection can end, beside io.EOF after a closing handshake and a *frame.Error for a rule that the server broke.
var (
	// ErrNoClose: TCP ended and the server did not begin a closing handshake.
	ErrNoClose = errors.New("the server ended TCP without a Close (RFC 6455 §7.1.5: 1006)")
	// ErrUnanswered: TCP ended, or Options.Timeout passed, and our Close was not answered.
	ErrUnanswered = errors.New("the server did not answer our Close (RFC 6455 §5.5.1)")
	// ErrClosing: nothing can be sent any more, because a Close was.
	ErrClosing = errors.New("the connection is closing: no data may follow a Close (RFC 6455 §5.5.1)")
)

// Conn is an open connection.
type Conn struct {
	Protocol   string // that was agreed on; empty for none
	Extensions string // as the server answered them; empty for none

	conn    net.Conn
	o       Options
	rules   frame.Rules
	tapping sync.Mutex

	// Of the goroutine that calls Next.
	buf    []byte
	in     []byte // bytes that came, of buf
	joiner frame.Joiner
	frames int // of the message in the making
	size   uint64
	text   frame.UTF8
	inflation

	mu     sync.Mutex
	change sync.Cond // of anything below
	state  frame.Conn
	first  bool   // our Close was the first
	out    []byte // waits to be written
	owed   int    // how much of it are answers
	spare  []byte // the other one of two buffers
	busy   bool   // some of it is being written
	failed error  // of writing: nothing more is written
	done   bool

	wrote chan struct{} // closed when the goroutine that writes has ended
}

// Next waits for the next message or control frame, and does what is owed to it: pings and a Close are answered. The
// first error is final, and the connection has ended then.
func (c *Conn) Next() (Event, error) {
	for {
		var p frame.Piece
		n, answered, err := c.parse(&p)
		if err != nil {
			return Event{}, c.fail(err)
		}
		c.in = c.in[n:]
		switch {
		case n == 0:
			if err := c.fill(); err != nil {
				return Event{}, err
			}
		case p.Op == ws.OpClose:
			code, reason, _ := frame.ParseClose(p.Data) // parse has checked it
			c.conn.SetReadDeadline(time.Now().Add(finTime))
			return Event{Op: p.Op, Code: code, Data: reason, Frames: 1, Answered: answered}, nil
		case p.Op.IsControl():
			return Event{Op: p.Op, Data: p.Data, Frames: 1, Answered: answered}, nil
		case p.Op == 0: // behind the Close
		default:
			msg, whole, err := c.join(&p)
			switch {
			case err != nil:
				return Event{}, c.fail(err)
			case whole:
				return Event{Op: p.Op, Data: msg, Frames: c.frames, Compressed: p.Compressed}, nil
			}
		}
	}
}

// parse takes a piece off c.in. What it owes waits to be written.
func (c *Conn) parse(p *frame.Piece) (n int, answered bool, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	// What Send has put there does not count: a server that does not read on before it has written must find a reader.
	for c.owed > maxOut && c.failed == nil && !c.done {
		c.change.Wait()
	}
	was := len(c.out)
	n, c.out, err = c.state.Next(&c.rules, c.in, c.out, p)
	if answered = len(c.out) > was; answered {
		c.owed += len(c.out) - was
		c.change.Broadcast()
	}
	return n, answered, err
}

// join puts a message together. Only it can be large, and it never is beyond MaxMessage.
func (c *Conn) join(p *frame.Piece) (msg []byte, whole bool, err error) {
	if p.First {
		c.frames, c.size, c.text = 0, 0, 0
	}
	if p.Start {
		c.frames++
	}
	if p.Compressed {
		return c.inflate(p)
	}
	msg, whole = c.joiner.Add(p)
	return msg, whole, nil
}

// fill reads more bytes. Its error says how the connection ended.
func (c *Conn) fill() error {
	kept := copy(c.buf, c.in)
	n, err := c.conn.Read(c.buf[kept:])
	c.in = c.buf[:kept+n]
	c.tap(false, c.buf[kept:kept+n])
	if n > 0 || err == nil {
		return nil
	}
	c.drain() // our Close may be on its way
	c.mu.Lock()
	defer c.mu.Unlock()
	c.conn.Close()
	return c.ended(err)
}

// ended says how the connection ended for which reading gave err.
func (c *Conn) ended(err error) error {
	var n net.Error
	timeout := errors.As(err, &n) && n.Timeout()
	if errors.Is(err, io.ErrUnexpectedEOF) { // TLS, of a FIN without its own goodbye
		err = io.EOF
	}
	switch {
	case c.state.CloseReceived():
		return io.EOF // however TCP ends now
	case errors.Is(c.failed, os.ErrDeadlineExceeded):
		return fmt.Errorf("the server does not read: %w", c.failed)
	case c.state.CloseSent() && timeout:
		return fmt.Errorf("%w within %v", ErrUnanswered, c.o.Timeout)
	case c.state.CloseSent() && errors.Is(err, io.EOF):
		return fmt.Errorf("%w and ended TCP", ErrUnanswered)
	case errors.Is(err, io.EOF):
		if c.state.MidMessage() || len(c.in) > 0 {
			return fmt.Errorf("%w, in the middle of a message", ErrNoClose)
		}
		return ErrNoClose
	}
	return err
}

// fail ends the connection for a rule that the server broke: it is told with a Close, and TCP ends (§7.1.7).
func (c *Conn) fail(err error) error {
	if e, ok := errors.AsType[*frame.Error](err); ok {
		c.mu.Lock()
		c.out = c.state.AppendClose(&c.rules, c.out, e.Code, e.Msg)
		c.change.Broadcast()
		c.mu.Unlock()
	}
	c.conn.SetReadDeadline(time.Now().Add(finTime))
	c.drain()
	c.conn.Close()
	return err
}

// drain waits until what was to be sent is written, or cannot be. Meanwhile nothing is read: a server that does not
// read either is given up after Options.Timeout.
func (c *Conn) drain() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for (len(c.out) > 0 || c.busy) && c.failed == nil && !c.done {
		c.change.Wait()
	}
}

// Send sends a whole message, or a ping or pong, in one frame. It copies payload, and waits while much is waiting to be
// written. It may be called by any goroutine, and beside Next.
func (c *Conn) Send(op ws.OpCode, payload []byte) error {
	switch {
	case op == ws.OpText && !utf8.Valid(payload):
		return errors.New("a text message must be UTF-8 (RFC 6455 §5.6)")
	case op.IsControl() && len(payload) > ws.MaxControlFramePayloadSize:
		return fmt.Errorf("%d bytes in a control frame; at most 125 can be (RFC 6455 §5.5)", len(payload))
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for len(c.out) > maxOut && c.failed == nil && !c.done {
		c.change.Wait()
	}
	switch {
	case c.state.CloseSent() || c.done:
		return ErrClosing
	case c.failed != nil:
		return c.failed
	}
	c.out = frame.AppendMasked(c.out, true, op, newMask(), payload)
	c.change.Broadcast()
	return nil
}

// Close begins the closing handshake (§7.1.2), unless that has begun; Next goes on, and returns io.EOF when it is over. code
// must be one that may be sent, or 0 for none. It reports whether a Close was sent now. It may be called by any goroutine.
func (c *Conn) Close(code ws.StatusCode, reason string) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.state.CloseSent() || c.done {
		return false
	}
	c.first = true
	c.out = c.state.AppendClose(&c.rules, c.out, code, reason)
	c.conn.SetReadDeadline(time.Now().Add(c.o.Timeout))
	c.change.Broadcast()
	return true
}

// First reports whether our Close was the first: false if the server's was, or none was sent.
func (c *Conn) First() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.first
}

// PeerCode is the code of the server's Close, 1005 if it had none; 0 if none came.
func (c *Conn) PeerCode() ws.StatusCode {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.state.PeerCode()
}

// Release ends TCP at once, if it has not ended, and waits for the goroutine that writes.
func (c *Conn) Release() {
	c.mu.Lock()
	c.done = true
	c.change.Broadcast()
	c.mu.Unlock()
	c.conn.Close()
	<-c.wrote
}

// write is the goroutine that writes.
func (c *Conn) write() {
	defer close(c.wrote)
	c.mu.Lock()
	defer c.mu.Unlock()
	for {
		for len(c.out) == 0 && !c.done {
			c.change.Wait()
		}
		if c.done {
			return
		}
		b := c.out
		c.out, c.owed, c.busy = c.spare[:0], 0, true
		c.mu.Unlock()
		err := c.writeAll(b)
		c.mu.Lock()
		c.busy = false
		if c.spare = nil; cap(b) <= 2*maxOut {
			c.spare = b
		}
		c.change.Broadcast()
		if err != nil {
			// Whatever the server said before can still be read, unless it does not read itself.
			if c.failed = err; errors.Is(err, os.ErrDeadlineExceeded) {
				c.conn.SetReadDeadline(time.Unix(1, 0))
			}
			return
		}
	}
}

func (c *Conn) writeAll(b []byte) error {
	for len(b) > 0 {
		chunk := b[:min(len(b), chunkSize)]
		c.tap(true, chunk)
		c.conn.SetWriteDeadline(time.Now().Add(c.o.Timeout))
		if _, err := c.conn.Write(chunk); err != nil {
			return err
		}
		b = b[len(chunk):]
	}
	return nil
}
