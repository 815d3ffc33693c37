package server

import (
	"bytes"
	"net"
	"testing"
	"time"

	"github.com/gobwas/ws"
)

func TestSilentConnectionIsPingedAndThenClosed(t *testing.T) {
	s := serve(t, Config{IdleTimeout: 400 * time.Millisecond}, nil)
	began := time.Now()
	silent := began
	c := s.open(t, "/echo")
	// Answered pings keep it open beyond the timeout.
	for i := 0; time.Since(began) < 900*time.Millisecond; i++ {
		if f := c.frame(); f.op != ws.OpPing {
			t.Fatalf("%+v, want a ping", f)
		}
		if i == 0 {
			// Before 400 ms, for it stands before a Close.
			if d := time.Since(began); d < 150*time.Millisecond {
				t.Errorf("the first ping came after %v, want half of 400ms", d)
			}
		}
		silent = time.Now()
		c.send(ws.OpPong, nil)
	}
	if f := c.frame(); f.op != ws.OpPing {
		t.Fatalf("%+v, want a ping", f)
	}
	if f := c.frame(); f.op != ws.OpClose {
		t.Fatalf("%+v, want Close and no second ping", f)
	} else if code := ws.StatusCode(f.payload[0])<<8 | ws.StatusCode(f.payload[1]); code != ws.StatusGoingAway {
		t.Errorf("code %d", code)
	}
	if d := time.Since(silent); d < 340*time.Millisecond {
		t.Errorf("closed after only %v of silence", d)
	}
	c.close(1001)
	c.wantEnd()
	s.waitClosed(t, ReasonIdle, 1)
}

func TestNegativeIdleTimeoutMeansNever(t *testing.T) {
	s := serve(t, Config{IdleTimeout: -1, HandshakeTimeout: 300 * time.Millisecond}, nil)
	c := s.open(t, "/echo")
	c.conn.SetReadDeadline(time.Now().Add(500 * time.Millisecond)) // time enough for it, were it that
	f, err := c.next()
	if ne, ok := err.(net.Error); !ok || !ne.Timeout() {
		t.Fatalf("%+v, %v; want nothing", f, err)
	}
	c.conn.SetDeadline(time.Now().Add(patience))
	c.echoes(ws.OpText, []byte("still here"))
}

// While the server does not read from a peer, that peer's silence says nothing.
func TestPeerThatIsHeldBackIsNotIdle(t *testing.T) {
	release := make(chan struct{})
	s := serve(t, Config{IdleTimeout: 200 * time.Millisecond}, map[string]*Endpoint{"/slow": {Blocking: func(r Ref, op ws.OpCode, p []byte) {
		<-release
		r.Send(op, p)
	}}})
	c := s.open(t, "/slow")
	const n = 500
	for range n {
		c.send(ws.OpText, []byte("x"))
	}
	eventually(t, "the queue is full", func() bool { return s.Stats().MessagesIn > queueMany })
	timer := time.NewTimer(600 * time.Millisecond) // three times the timeout
	<-timer.C
	close(release)
	for got := 0; got < n; {
		switch f := c.frame(); f.op {
		case ws.OpText:
			got++
		case ws.OpClose:
			t.Fatalf("closed after %d answers: %q", got, f.payload[2:])
		}
	}
}

func TestPeerThatNeverAnswersTheCloseIsCutOff(t *testing.T) {
	closed := make(chan Reason, 1)
	s := serve(t, Config{CloseTimeout: 150 * time.Millisecond}, map[string]*Endpoint{"/bye": {
		Open:  func(c Conn) { c.Close(4000, "bye") },
		Close: func(_ Conn, why Reason) { closed <- why },
	}})
	began := time.Now()
	c := s.open(t, "/bye")
	c.wantClose(4000)
	c.send(ws.OpText, []byte("too late to matter"))
	c.send(ws.OpPing, []byte("not answered"))
	if f, err := c.next(); err == nil {
		t.Errorf("%+v came behind the Close", f)
	}
	if why := receive(t, "Close", closed); why != ReasonEndpoint {
		t.Error(why)
	}
	if d := time.Since(began); d < 140*time.Millisecond {
		t.Errorf("cut off after %v", d)
	}
}

func TestPeerThatNeverEndsAfterAnErrorIsCutOff(t *testing.T) {
	s := serve(t, Config{CloseTimeout: 150 * time.Millisecond}, nil)
	c := s.open(t, "/echo")
	c.write([]byte{0xff, 0xff})
	c.wantClose(1002)
	s.waitClosed(t, ReasonProtocol, 1)
}

// flood sends messages and reads nothing, until the connection breaks.
func flood(c *client) (broken chan error) {
	broken = make(chan error, 1)
	b := bytes.Repeat(masked(true, ws.OpBinary, make([]byte, 1000)), 64)
	go func() {
		for {
			if _, err := c.conn.Write(b); err != nil {
				broken <- err
				return
			}
		}
	}()
	return broken
}

func TestReaderThatTakesNothingIsStalled(t *testing.T) {
	s := serve(t, Config{WriteTimeout: 200 * time.Millisecond}, nil)
	check := s.calm(t)
	c := s.open(t, "/echo")
	if err := receive(t, "the connection breaks", flood(c)); !isReset(err) {
		t.Error(err)
	}
	s.waitClosed(t, ReasonStalled, 1)
	c.conn.Close()
	check()
}

func TestMoreThanMaxPendingIsASlowReader(t *testing.T) {
	refs := make(chan Ref, 1)
	s := serve(t, Config{MaxPending: 100 << 10}, map[string]*Endpoint{"/push": {Open: func(c Conn) { refs <- c.Ref() }}})
	check := s.calm(t)
	c := s.open(t, "/push")
	ref := receive(t, "Open", refs)
	message := make([]byte, 50<<10)
	eventually(t, "the limit is reached", func() bool {
		if err := ref.Send(ws.OpBinary, message); err != nil {
			t.Fatal(err)
		}
		if b := s.Stats().Buffered; b > 512<<10 { // twice 100 KiB rounded up, and what Ref.Send has on the way
			t.Fatalf("%d bytes wait, MaxPending is 100 KiB", b)
		}
		return s.closed(ReasonSlowReader) == 1
	})
	c.conn.Close()
	check()
}
