package bench

import (
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"wspoll/frame"
	"wspoll/handshake"

	"github.com/gobwas/ws"
)

// liar is a WebSocket server with a goroutine per connection that can do
// everything wrong.
type liar struct {
	url      string
	addr     net.Addr
	greet    func(c *liarConn) bool                                 // in place of the handshake; false: that was all
	answer   func(c *liarConn, n int, op ws.OpCode, payload []byte) // n counts the messages of the connection from 1; nil: echo
	lies     atomic.Int64
	messages atomic.Int64
	pings    atomic.Int64
	upgraded atomic.Int64

	mu     sync.Mutex
	seen   []time.Time // when connections were accepted
	from   []string    // and their addresses
	closes []ws.StatusCode
}

type liarConn struct {
	net.Conn
	l    *liar
	in   []byte
	held []byte
}

// start serves on a listener until the test ends.
func (l *liar) start(t testing.TB, ln net.Listener) *liar {
	t.Helper()
	l.addr, l.url = ln.Addr(), "ws://"+ln.Addr().String()+"/echo"
	var wg sync.WaitGroup
	var mu sync.Mutex
	conns := map[net.Conn]bool{}
	wg.Go(func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			l.mu.Lock()
			l.seen = append(l.seen, time.Now())
			l.from = append(l.from, conn.RemoteAddr().(*net.TCPAddr).IP.String())
			l.mu.Unlock()
			mu.Lock()
			conns[conn] = true
			mu.Unlock()
			wg.Go(func() {
				(&liarConn{Conn: conn, l: l}).serve()
				conn.Close()
				mu.Lock()
				delete(conns, conn)
				mu.Unlock()
			})
		}
	})
	t.Cleanup(func() {
		ln.Close()
		mu.Lock()
		for c := range conns {
			c.Close()
		}
		mu.Unlock()
		wg.Wait()
	})
	return l
}

func (l *liar) listen(t testing.TB) *liar {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return l.start(t, ln)
}

func (c *liarConn) more() bool {
	b := make([]byte, 32<<10)
	n, err := c.Read(b)
	c.in = append(c.in, b[:n]...)
	return err == nil
}

// upgrade answers the handshake as it should be.
func (c *liarConn) upgrade() bool {
	for {
		var r handshake.Request
		n, err := handshake.ParseRequest(c.in, nil, &r)
		if err != nil {
			return false
		}
		if n > 0 {
			var a handshake.Answer
			if handshake.Check(&r, nil, &a) != nil {
				return false
			}
			c.Write(handshake.AppendAnswer(nil, &a, nil))
			c.in = append([]byte(nil), c.in[n:]...)
			c.l.upgraded.Add(1)
			return true
		}
		if !c.more() {
			return false
		}
	}
}

func (c *liarConn) serve() {
	greet := (*liarConn).upgrade
	if c.l.greet != nil {
		greet = c.l.greet
	}
	if !greet(c) {
		return
	}
	var (
		p     frame.Parser
		j     frame.Joiner
		piece frame.Piece
		n     int
	)
	for {
		used, err := p.Next(&frame.Rules{}, c.in, &piece)
		if err != nil {
			return
		}
		if used == 0 {
			if !c.more() {
				return
			}
			continue
		}
		c.in = c.in[used:]
		switch msg, whole := j.Add(&piece); {
		case !whole:
		case piece.Op == ws.OpPing:
			c.l.pings.Add(1)
			c.Write(frame.AppendFrame(nil, true, ws.OpPong, msg))
		case piece.Op == ws.OpClose:
			code, _, _ := frame.ParseClose(msg)
			c.l.mu.Lock()
			c.l.closes = append(c.l.closes, code)
			c.l.mu.Unlock()
			c.Write(frame.AppendClose(nil, code, ""))
			return
		case piece.Op.IsData():
			n++
			c.l.messages.Add(1)
			if c.l.answer == nil {
				c.echo(piece.Op, msg)
			} else {
				c.l.answer(c, n, piece.Op, msg)
			}
		}
	}
}

func (c *liarConn) echo(op ws.OpCode, payload []byte) {
	c.Write(frame.AppendFrame(nil, true, op, payload))
}

// answered reads one frame, and reports whether it did; what came behind it is dropped.
func (c *liarConn) answered() bool {
	var p frame.Parser
	var piece frame.Piece
	n, err := p.Next(&frame.Rules{}, c.in, &piece)
	for n == 0 && err == nil && c.more() {
		n, err = p.Next(&frame.Rules{}, c.in, &piece)
	}
	return n > 0
}

// drain reads until the other side ends.
func (c *liarConn) drain() {
	for c.more() {
		c.in = nil
	}
}
