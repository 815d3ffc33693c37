package epoll

import (
	"bytes"
	"crypto/tls"
	"io"
	"net"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

// How TLS ends, and how its handshake fails.

// Loops with stuck handshakes end, and their goroutines with them (serve looks for those).
func TestTLSHandshakeEndsWithTheLoop(t *testing.T) {
	g, addr := serveTLS(t, Config{MaxHandshakes: 1}, script{})
	for range 3 {
		send(t, dial(t, addr), "\x16\x03\x01")
	}
	until(t, "one under way and two waiting", func() (ok bool) {
		g.Do(func(l *Loop) { ok = l.shaking == 1 && len(l.toShake) == 2 })
		return ok
	})
}

func TestTLSEnds(t *testing.T) {
	for name, test := range map[string]struct {
		do   func(t *testing.T, raw *net.TCPConn, c *tls.Conn)
		want Cause
	}{
		"close_notify and FIN": {func(t *testing.T, _ *net.TCPConn, c *tls.Conn) { c.Close() }, CauseEOF},
		"close_notify alone": {func(t *testing.T, _ *net.TCPConn, c *tls.Conn) {
			c.CloseWrite()
			expectEOF(t, c) // we have answered with ours
		}, CauseEOF},
		"FIN alone": {func(t *testing.T, raw *net.TCPConn, c *tls.Conn) { raw.Close() }, CauseEOF},
		"no record": {func(t *testing.T, raw *net.TCPConn, c *tls.Conn) {
			send(t, raw, strings.Repeat("x", 20))
			if _, err := c.Read(make([]byte, 1)); err == nil || !strings.Contains(err.Error(), "tls: ") {
				t.Errorf("the peer was told %v, want an alert", err)
			}
		}, CauseTLS},
		"changed record": {func(t *testing.T, raw *net.TCPConn, c *tls.Conn) {
			send(t, raw, "\x17\x03\x03\x00\x20"+strings.Repeat("x", 32))
			if _, err := c.Read(make([]byte, 1)); err == nil || !strings.Contains(err.Error(), "bad record MAC") {
				t.Errorf("the peer was told %v, want bad_record_mac", err)
			}
		}, CauseTLS},
	} {
		t.Run(name, func(t *testing.T) {
			ends, errs := newEnds(), make(chan error, 1)
			_, addr := serveTLS(t, Config{}, script{ends: ends, closed: func(l *Loop, c Slot, _ Cause, _ unix.Errno) { errs <- l.TLS(c).Err() }})
			raw := dial(t, addr)
			c := overTLS(t, raw, tls.VersionTLS13)
			talk(t, c, "hello")
			test.do(t, raw, c)
			raw.Close()
			awaitCause(t, ends, test.want)
			if err := await(t, errs); (err != nil) != (test.want == CauseTLS) {
				t.Errorf("Err is %v", err)
			}
		})
	}
}

// mortal is a connection that ends when so many bytes were written to it.
type mortal struct {
	*net.TCPConn
	left  int
	reset bool
}

func (m *mortal) Write(p []byte) (int, error) {
	n, err := m.TCPConn.Write(p[:min(len(p), m.left)])
	if m.left -= n; m.left == 0 {
		if m.reset {
			m.SetLinger(0)
		}
		m.Close()
		return n, net.ErrClosed
	}
	return n, err
}

// A peer may go at any byte of the handshake and of what comes behind it; serve
// looks for what is left over.
func TestTLSPeersThatGoAnywhere(t *testing.T) {
	ends := newEnds()
	g, addr := serveTLS(t, Config{MaxHandshakes: 3}, script{ends: ends})
	_, client := tlsConfigs()
	var all sync.WaitGroup
	n := 0
	for left := 1; left < 3000; left += 1 + left/20 {
		n++
		all.Go(func() {
			raw, err := net.Dial("tcp", addr)
			if err != nil {
				t.Error(err)
				return
			}
			defer raw.Close()
			m := &mortal{TCPConn: raw.(*net.TCPConn), left: left, reset: left%3 == 0}
			c := tls.Client(m, client)
			for {
				if _, err := c.Write(pattern(100)); err != nil {
					return
				}
				if _, err := io.ReadFull(c, make([]byte, 100)); err != nil {
					return
				}
			}
		})
	}
	all.Wait()
	for range n {
		if e := await(t, ends); e.cause != CauseEOF && e.cause != CauseReset {
			t.Errorf("ended with %v", e.cause)
		}
	}
	until(t, "no handshake is under way", func() bool {
		left := 0
		g.Do(func(l *Loop) { left += l.shaking + len(l.toShake) + len(l.tls) })
		return left == 0
	})
}

func TestTLSHandshakeThatFails(t *testing.T) {
	for name, test := range map[string]struct{ send, answer string }{
		"HTTP":           {"GET / HTTP/1.1\r\nHost: a\r\n\r\n", "HTTP/1.1 400 Bad Request\r\n"},
		"something else": {"SSH-2.0-x\r\n", ""},
		"old version":    {"\x16\x03\x00\x00\x2f\x01\x00\x00\x2b\x03\x00" + strings.Repeat("r", 32) + "\x00\x00\x04\x00\x2f\x00\x0a\x01\x00", "\x15\x03"},
	} {
		t.Run(name, func(t *testing.T) {
			ends := newEnds()
			_, addr := serveTLS(t, Config{}, script{ends: ends, data: func(*Loop, Slot, []byte) int {
				t.Error("Data was called")
				return 0
			}})
			c := dial(t, addr)
			send(t, c, test.send)
			b, err := io.ReadAll(c)
			if err != nil || !strings.HasPrefix(string(b), test.answer) {
				t.Errorf("answered %q, %v, want %q", b, err, test.answer)
			}
			c.Close()
			awaitCause(t, ends, CauseTLS)
		})
	}
}

// close_notify does not overtake what a paused handler has yet to see.
func TestTLSEndWaitsForCarry(t *testing.T) {
	var seen bytes.Buffer
	eof := make(chan string, 1)
	g, addr := serveTLS(t, Config{}, script{
		data: func(l *Loop, c Slot, in []byte) int {
			if l.Held(c) {
				return 0
			}
			seen.Write(in[:1])
			l.Pause(c)
			return 1
		},
		eof: func(*Loop, Slot) { eof <- seen.String() },
	})
	c := dialTLS(t, addr, tls.VersionTLS13)
	send(t, c, "abc")
	c.CloseWrite()
	for i := range 3 {
		until(t, "a byte", func() (ok bool) {
			g.Do(func(*Loop) { ok = seen.Len() == i+1 })
			return ok
		})
		only(t, g, func(l *Loop, c Slot) { l.Resume(c) })
	}
	if s := await(t, eof); s != "abc" {
		t.Errorf("the end came behind %q", s)
	}
}
