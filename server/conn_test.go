package server

import (
	"bytes"
	"context"
	"errors"
	"io"
	"strings"
	"testing"

	"github.com/gobwas/ws"
)

func TestRefOfAnEndedConnectionDoesNothing(t *testing.T) {
	refs := make(chan Ref, 2)
	s := serve(t, Config{}, map[string]*Endpoint{"/r": {Open: func(c Conn) { refs <- c.Ref() }}})
	c := s.open(t, "/r")
	old := receive(t, "Open", refs)
	c.close(1000)
	c.wantClose(1000)
	s.waitClosed(t, ReasonPeerClosed, 1)
	next := s.open(t, "/r") // has the slot of the one before
	now := receive(t, "Open", refs)
	for _, err := range []error{
		old.Send(ws.OpText, []byte("for nobody")),
		old.Do(func(Conn) { t.Error("Do ran for a connection that has ended") }),
		old.Close(4000, "not you"),
	} {
		if err != nil {
			t.Error(err)
		}
	}
	ran := make(chan bool, 1)
	now.Do(func(c Conn) { c.Send(ws.OpText, []byte("for you")); ran <- true })
	receive(t, "Do runs", ran)
	if _, got := next.message(); string(got) != "for you" {
		t.Errorf("%q", got)
	}
	if err := now.Close(1006, ""); err != ErrCode {
		t.Errorf("Close 1006: %v", err)
	}
	if st := s.Stats(); st.Buffered != 0 {
		t.Errorf("%d bytes are still reserved", st.Buffered)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	s.Shutdown(ctx)
	if err := now.Send(ws.OpText, nil); !errors.Is(err, ErrStopped) {
		t.Errorf("after Shutdown: %v", err)
	}
	if err := now.Do(func(Conn) {}); !errors.Is(err, ErrStopped) {
		t.Errorf("after Shutdown: %v", err)
	}
	if used := s.group.Budget().Used(); used != 0 {
		t.Errorf("%d bytes are still reserved", used)
	}
}

func TestRefSaysWhenThereIsNoMemory(t *testing.T) {
	refs := make(chan Ref, 1)
	s := serve(t, Config{MemoryBudget: 64 << 10}, map[string]*Endpoint{"/r": {Open: func(c Conn) { refs <- c.Ref() }}})
	c := s.open(t, "/r")
	ref := receive(t, "Open", refs)
	if err := ref.Send(ws.OpBinary, make([]byte, 64<<10)); err != ErrMemory {
		t.Errorf("64 KiB and a header out of 64 KiB: %v", err)
	}
	if err := ref.Send(ws.OpBinary, make([]byte, 32<<10)); err != nil {
		t.Errorf("32 KiB out of 64 KiB: %v", err)
	}
	if _, got := c.message(); len(got) != 32<<10 {
		t.Errorf("%d bytes", len(got))
	}
}

// A connection that breaks while an endpoint sends on it must leave nothing to
// the one that gets its slot.
func TestNothingOfABrokenConnectionReachesTheNext(t *testing.T) {
	inside, broken := make(chan bool), make(chan bool)
	s := serve(t, Config{Loops: 1}, map[string]*Endpoint{"/m": {Message: func(c Conn, op ws.OpCode, _ []byte) {
		inside <- true
		<-broken
		// The scratch is flushed when 64 KiB are in it: with the header of the
		// last message, so that its payload finds the connection gone.
		for range 7 {
			c.Send(op, make([]byte, 8000))
		}
		c.Send(op, make([]byte, 4749))
		c.Send(op, make([]byte, 4749))
		c.Send(op, []byte("SECRET"))
		if _, st := c.find(); st != nil {
			t.Error("the connection is not broken yet: the sizes of this test are wrong")
		}
	}}})
	c := s.open(t, "/m")
	c.send(ws.OpBinary, nil)
	receive(t, "the message", inside)
	reset(c.conn)
	eventually(t, "the reset has arrived", func() bool { return !established(t, s, c) })
	broken <- true
	next := s.dial(t)
	io.WriteString(next, "GET /nothing HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\n\r\n")
	all, _ := io.ReadAll(next)
	if !bytes.HasPrefix(all, []byte("HTTP/1.1 404")) {
		t.Errorf("the next connection got %.100q", all)
	}
}

// established says whether the server's end of c is, as the kernel has it.
func established(t *testing.T, s *testServer, c *client) bool {
	t.Helper()
	return strings.Contains(tcpTable(t), tcpEntry(s.addr, c.conn.LocalAddr().String()))
}

func TestRefDoMayPanic(t *testing.T) {
	refs := make(chan Ref, 1)
	s := serve(t, Config{}, map[string]*Endpoint{"/r": {Open: func(c Conn) { refs <- c.Ref() }}})
	c := s.open(t, "/r")
	ref := receive(t, "Open", refs)
	ref.Do(func(Conn) { panic("boom") })
	ref.Send(ws.OpText, []byte("still here"))
	if f, err := c.next(); err != nil || string(f.payload) != "still here" {
		t.Errorf("%+v, %v", f, err)
	}
}

func TestARefRefusesWhatMayNotBeSent(t *testing.T) {
	refs := make(chan Ref, 1)
	s := serve(t, Config{}, map[string]*Endpoint{"/ref": {Open: func(c Conn) { refs <- c.Ref() }}})
	s.open(t, "/ref")
	r := <-refs
	for _, c := range []struct {
		err, want error
	}{
		{r.Send(ws.OpPing, make([]byte, 126)), ErrControl},
		{r.Send(ws.OpClose, nil), ErrControl},
		{r.Close(1006, ""), ErrCode},
		{r.Send(ws.OpPing, make([]byte, 125)), nil},
	} {
		if !errors.Is(c.err, c.want) {
			t.Errorf("got %v, want %v", c.err, c.want)
		}
	}
}
