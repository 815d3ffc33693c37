package proxy

import (
	"bytes"
	"fmt"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/gobwas/ws"
)

// echoing is a backend that can be killed and started again on its address. It
// sends every message back.
type echoing struct {
	t    testing.TB
	addr string
	mu   sync.Mutex
	ln   net.Listener
	open map[*net.TCPConn]bool
	all  sync.WaitGroup
}

func echoBackend(t testing.TB) *echoing {
	b := &echoing{t: t, addr: "127.0.0.1:0"}
	b.start()
	t.Cleanup(b.kill)
	return b
}

func (b *echoing) start() {
	b.t.Helper()
	ln, err := net.Listen("tcp", b.addr)
	if err != nil {
		b.t.Fatal(err)
	}
	b.ln, b.addr, b.open = ln, ln.Addr().String(), map[*net.TCPConn]bool{}
	b.all.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			b.mu.Lock()
			b.open[c.(*net.TCPConn)] = true
			b.mu.Unlock()
			b.all.Go(func() { b.serve(c.(*net.TCPConn)) })
		}
	})
}

func (b *echoing) serve(c *net.TCPConn) {
	defer c.Close()
	e := &end{t: b.t, conn: c}
	for i := -1; i < 0; i = bytes.Index(e.in, []byte("\r\n\r\n")) {
		if e.fill() != nil {
			return
		}
	}
	e.in = nil // a client waits for the 101
	key := sampleKey
	c.Write([]byte(answer101(b.t, request("/", "Sec-WebSocket-Key: "+key))))
	for {
		f, err := e.next()
		if err != nil {
			return
		}
		if f.op == ws.OpClose {
			c.Write(e.frameOf(true, ws.OpClose, f.payload))
			return
		}
		c.Write(e.frameOf(f.fin, f.op, f.payload))
	}
}

// kill ends the backend as the kernel ends a process.
func (b *echoing) kill() {
	b.ln.Close()
	b.mu.Lock()
	for c := range b.open {
		c.SetLinger(0)
		c.Close()
	}
	b.mu.Unlock()
	b.all.Wait()
}

// restarts is how many tunnels there are while backends are killed. Each has
// four descriptors in this process, which may have 20,000.
func restarts() int {
	if raceDetector {
		return 400
	}
	return 4000
}

func TestTunnelsWhileBackendsRestartOneByOne(t *testing.T) {
	var backends []*echoing
	var to []string
	for range 3 {
		b := echoBackend(t)
		backends = append(backends, b)
		to = append(to, "ws://"+b.addr)
	}
	px := serve(t, Config{Loops: 2, Routes: []Route{{To: to}}, CloseTimeout: 5 * time.Second})
	check := px.calm(t)
	n := restarts()
	tunnels := make([]*end, n)
	open := func(i int) error {
		c, err := net.Dial("tcp", px.addr)
		if err != nil {
			return err
		}
		c.SetDeadline(time.Now().Add(time.Minute))
		e := &end{t: t, conn: c.(*net.TCPConn), client: true}
		tunnels[i] = e
		if _, err := c.Write([]byte(request("/"))); err != nil {
			return err
		}
		for !bytes.Contains(e.in, []byte("\r\n\r\n")) {
			if err := e.fill(); err != nil {
				return fmt.Errorf("no answer: %w, %q", err, e.in)
			}
		}
		if !bytes.HasPrefix(e.in, []byte("HTTP/1.1 101")) {
			return fmt.Errorf("the answer is %q", e.in)
		}
		e.in = nil
		return nil
	}
	echoes := func(e *end) (received, error) {
		e.conn.Write(e.frameOf(true, ws.OpText, []byte("is anybody there?")))
		return e.next()
	}
	each := func(f func(i int) error) {
		t.Helper()
		var all sync.WaitGroup
		for w := range 32 {
			all.Go(func() {
				for i := w; i < n; i += 32 {
					if err := f(i); err != nil {
						t.Errorf("tunnel %d: %v", i, err)
						return
					}
				}
			})
		}
		all.Wait()
		if t.Failed() {
			t.FailNow()
		}
	}
	each(open)
	for k, b := range backends {
		before := px.Stats().Closed[ReasonBackendGone]
		b.kill()
		b.start()
		var mu sync.Mutex
		died := 0
		each(func(i int) error {
			f, err := echoes(tunnels[i])
			if err != nil {
				return fmt.Errorf("a tunnel ended without a Close: %w", err)
			}
			if f.op == ws.OpText {
				return nil
			}
			if f.op != ws.OpClose || !bytes.Equal(f.payload[:2], []byte{3, 0xf4}) {
				return fmt.Errorf("%v %q came, want Close 1012", f.op, f.payload)
			}
			mu.Lock()
			died++
			mu.Unlock()
			tunnels[i].conn.Write(tunnels[i].closeFrame(closeRestart, ""))
			tunnels[i].conn.Close()
			return open(i)
		})
		if got := px.Stats().Closed[ReasonBackendGone] - before; died == 0 || int(got) < died {
			t.Errorf("backend %d: %d clients were told, %d tunnels ended", k, died, got)
		}
		t.Logf("backend %d of %d restarted: %d of %d tunnels were told with Close 1012 and came back", k+1, len(backends), died, n)
	}
	each(func(i int) error {
		e := tunnels[i]
		if f, err := echoes(e); err != nil || f.op != ws.OpText {
			return fmt.Errorf("%+v, %v", f, err)
		}
		e.conn.Write(e.closeFrame(1000, ""))
		if f, err := e.next(); err != nil || f.op != ws.OpClose {
			return fmt.Errorf("%+v, %v", f, err)
		}
		return e.conn.Close()
	})
	check()
}
