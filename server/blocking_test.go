package server

import (
	"fmt"
	"net"
	"runtime"
	"strings"
	"testing"

	"wspoll/frame"

	"github.com/gobwas/ws"
)

func TestBlockingEndpointKeepsOrderAndHoldsNobodyUp(t *testing.T) {
	release := make(chan struct{})
	s := serve(t, Config{Loops: 1}, map[string]*Endpoint{"/slow": {Blocking: func(r Ref, op ws.OpCode, p []byte) {
		<-release
		if err := r.Send(op, p); err != nil {
			t.Error(err)
		}
	}}})
	other := s.open(t, "/echo")
	goroutines := runtime.NumGoroutine()
	c := s.open(t, "/slow")
	const n = 3000
	var all []byte
	for i := range n { // in fragments too, and more than the queue takes
		m := fmt.Appendf(nil, "%04d%s", i, strings.Repeat(".", 500))
		if i%3 == 0 {
			all = append(all, masked(false, ws.OpText, m[:100])...)
			all = append(all, masked(true, ws.OpContinuation, m[100:])...)
			continue
		}
		all = append(all, masked(true, ws.OpText, m)...)
	}
	written := make(chan struct{})
	go func() { c.conn.Write(all); close(written) }()
	// One or none is in the function's hands, and one more than queueMany waits.
	held := func() bool { return s.Stats().MessagesIn >= queueMany+1 }
	eventually(t, "the queue is full", held)
	for range 100 { // the loop turns and reads no more
		other.echoes(ws.OpText, []byte("meanwhile"))
	}
	if got := s.Stats().MessagesIn; got > queueMany+2+100 {
		t.Errorf("%d messages were taken in while one is slow, want %d at most", got, queueMany+2+100)
	}
	close(release)
	for i := range n {
		if _, got := c.message(); string(got[:4]) != fmt.Sprintf("%04d", i) || len(got) != 504 {
			t.Fatalf("message %d is %.10q", i, got)
		}
	}
	receive(t, "all is written", written)
	eventually(t, "no goroutine and no memory is left", func() bool {
		return runtime.NumGoroutine() <= goroutines && s.Stats().Buffered == 0
	})
	c.send(ws.OpText, []byte("once more"))
	if _, got := c.message(); string(got) != "once more" {
		t.Errorf("%q", got)
	}
}

func TestBlockingEndpointHearsWhatCameBeforeTheEnd(t *testing.T) {
	release, got := make(chan struct{}), make(chan string, 1000)
	s := serve(t, Config{}, map[string]*Endpoint{"/slow": {Blocking: func(_ Ref, _ ws.OpCode, p []byte) {
		<-release
		got <- string(p)
	}}})
	c := s.open(t, "/slow")
	var all []byte
	for i := range 500 {
		all = append(all, masked(true, ws.OpText, fmt.Append(nil, i))...)
	}
	c.write(frame.AppendMaskedClose(all, [4]byte{}, 1000, ""))
	c.conn.(*net.TCPConn).CloseWrite()
	eventually(t, "the queue is full", func() bool { return s.Stats().MessagesIn >= queueMany })
	close(release)
	for i := range 500 {
		if m := receive(t, "a message", got); m != fmt.Sprint(i) {
			t.Fatalf("message %d is %q", i, m)
		}
	}
	c.wantClose(1000)
	s.waitClosed(t, ReasonPeerClosed, 1)
}

func TestCloseReachesAPeerThatIsHeldBack(t *testing.T) {
	release, ref := make(chan struct{}), make(chan Ref, 1000)
	s := serve(t, Config{}, map[string]*Endpoint{"/slow": {Blocking: func(r Ref, _ ws.OpCode, _ []byte) {
		ref <- r
		<-release
	}}})
	defer close(release)
	c := s.open(t, "/slow")
	for range 200 {
		c.send(ws.OpText, []byte("x"))
	}
	r := receive(t, "the first message", ref)
	eventually(t, "the queue is full", func() bool { return s.Stats().MessagesIn >= queueMany })
	if err := r.Close(4000, "enough"); err != nil {
		t.Error(err)
	}
	if reason := c.wantClose(4000); reason != "enough" {
		t.Errorf("%q", reason)
	}
	c.close(4000)
	c.wantEnd()
}
