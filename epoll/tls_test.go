package epoll

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// tlsConfigs are those of a server and of clients that trust it.
var tlsConfigs = sync.OnceValues(func() (server, client *tls.Config) {
	srv := httptest.NewTLSServer(nil)
	srv.Close()
	pool := x509.NewCertPool()
	pool.AddCert(srv.Certificate())
	return &tls.Config{Certificates: srv.TLS.Certificates}, &tls.Config{RootCAs: pool, ServerName: "127.0.0.1"}
})

// serveTLS is serve for a group whose connections begin with TLS.
func serveTLS(t testing.TB, cfg Config, sc script) (*Group, string) {
	t.Helper()
	server, _ := tlsConfigs()
	opened := sc.opened
	sc.opened = func(l *Loop, c Slot, tag uint32) {
		if tag == 0 { // from the listener
			l.StartTLS(c, server)
		}
		if opened != nil {
			opened(l, c, tag)
		}
	}
	return serve(t, cfg, sc)
}

// dialTLS connects to addr, and does the handshake in a version of TLS.
func dialTLS(t testing.TB, addr string, version uint16) *tls.Conn {
	t.Helper()
	return overTLS(t, dial(t, addr), version)
}

func overTLS(t testing.TB, raw net.Conn, version uint16) *tls.Conn {
	t.Helper()
	_, client := tlsConfigs()
	client = client.Clone()
	client.MinVersion, client.MaxVersion = version, version
	c := tls.Client(raw, client)
	if err := c.Handshake(); err != nil {
		t.Fatal(err)
	}
	return c
}

var tlsVersions = map[string]uint16{"1.2": tls.VersionTLS12, "1.3": tls.VersionTLS13}

func TestTLSCarriesBytesOfAnySize(t *testing.T) {
	_, addr := serveTLS(t, Config{}, script{})
	for name, version := range tlsVersions {
		t.Run(name, func(t *testing.T) {
			c := dialTLS(t, addr, version)
			for _, n := range []int{1, 100, 16 << 10, 16<<10 + 1, 100_000, 3 << 20} {
				want := pattern(n)
				go c.Write(want) // it is echoed while it is being sent
				got := make([]byte, n)
				if _, err := io.ReadFull(c, got); err != nil {
					t.Fatalf("%d bytes: %v", n, err)
				}
				same(t, got, want)
			}
			c.CloseWrite()
			expectEOF(t, c)
		})
	}
}

// crumbs is a connection whose writes arrive in pieces of few bytes.
type crumbs struct {
	*net.TCPConn
	size int
}

func (c crumbs) Write(p []byte) (n int, err error) {
	for n < len(p) && err == nil {
		var k int
		k, err = c.TCPConn.Write(p[n:min(n+c.size, len(p))])
		n += k
	}
	return n, err
}

func TestTLSMayArriveByteByByte(t *testing.T) {
	_, addr := serveTLS(t, Config{}, script{})
	for name, version := range tlsVersions {
		for _, size := range []int{1, 7, 1000} {
			raw := dial(t, addr)
			raw.SetNoDelay(true)
			c := overTLS(t, crumbs{raw, size}, version)
			for range 3 {
				talk(t, c, strings.Repeat(name+" in crumbs ", 30))
			}
		}
	}
}

// What a handler leaves is shown again in front of what is decrypted later.
func TestTLSCarry(t *testing.T) {
	_, addr := serveTLS(t, Config{}, script{data: func(l *Loop, c Slot, in []byte) int {
		n := len(in) / 10 * 10
		l.Write(c, in[:n])
		return n
	}})
	c := dialTLS(t, addr, tls.VersionTLS13)
	var want strings.Builder
	for i := range 23 {
		part := "0123456789ABC"[:i%13+1]
		want.WriteString(part)
		send(t, c, part)
	}
	expect(t, c, want.String()[:want.Len()/10*10])
}

// glued is a connection that sends the last flight of the handshake together
// with what comes behind it.
type glued struct {
	*net.TCPConn
	held []byte
	on   bool
}

func (g *glued) Write(p []byte) (int, error) {
	if g.on {
		g.held = append(g.held, p...)
		return len(p), nil
	}
	return g.TCPConn.Write(p)
}

func (g *glued) Read(p []byte) (int, error) {
	n, err := g.TCPConn.Read(p)
	g.on = true // the server has spoken: the rest is ours
	return n, err
}

func TestTLSBytesBehindTheHandshake(t *testing.T) {
	_, addr := serveTLS(t, Config{}, script{})
	for _, n := range []int{10, 30_000, 150_000} {
		g := &glued{TCPConn: dial(t, addr)}
		c := overTLS(t, g, tls.VersionTLS13)
		want := pattern(n)
		c.Write(want)
		go g.TCPConn.Write(g.held)
		got := make([]byte, n)
		if _, err := io.ReadFull(c, got); err != nil {
			t.Fatal(err)
		}
		same(t, got, want)
	}
}

// The handshakes that stand still do not keep others out for ever, and cost no
// more goroutines than allowed.
func TestTLSHandshakesWaitForTheirTurn(t *testing.T) {
	g, addr := serveTLS(t, Config{MaxHandshakes: 2}, script{})
	var stuck []net.Conn
	for range 2 {
		c := dial(t, addr)
		send(t, c, "\x16\x03\x01") // the beginning of a record
		stuck = append(stuck, c)
	}
	shaking := func() (n int) {
		g.Do(func(l *Loop) { n += l.shaking })
		return n
	}
	until(t, "two handshakes", func() bool { return shaking() == 2 })
	done := make(chan *tls.Conn, 3)
	_, client := tlsConfigs()
	for range 3 {
		raw := dial(t, addr)
		go func() {
			c := tls.Client(raw, client)
			if err := c.Handshake(); err != nil {
				t.Error(err)
			}
			done <- c
		}()
	}
	until(t, "three that wait", func() bool {
		n := 0
		g.Do(func(l *Loop) { n += len(l.toShake) })
		return n == 3
	})
	select {
	case <-done:
		t.Error("a handshake did not wait")
	default:
	}
	stuck[0].Close()
	for range 3 {
		talk(t, await(t, done), "after all")
	}
	if n := shaking(); n > 2 {
		t.Errorf("%d handshakes under way", n)
	}
}

// What arrives while a handshake waits to compute stays with the kernel, beyond a bound.
func TestTLSHandshakeIsReadInBounds(t *testing.T) {
	turns := make(chan struct{}, 1)
	turns <- struct{}{} // somebody else computes
	ends := newEnds()
	g, addr := serveTLS(t, Config{turns: turns, LingerTimeout: 100 * time.Millisecond}, script{ends: ends})
	c := dial(t, addr)
	flood := []byte(strings.Repeat("\x16\x03\x01\x40\x00\x01\x00\xff\xff"+strings.Repeat("x", 1<<14-4), 64)) // a ClientHello of 64 KiB, and more
	go c.Write(flood)
	held := func() (n int, full bool) {
		g.Do(func(l *Loop) {
			for _, h := range l.tls { // none before the connection was accepted
				h.shake.mu.Lock()
				n, full = len(h.in), h.shake.full
				h.shake.mu.Unlock()
			}
		})
		return n, full
	}
	until(t, "enough has come", func() bool { _, full := held(); return full })
	settle(g)
	if n, _ := held(); n < shakeMost || n > shakeMost+maxRecord {
		t.Errorf("%d bytes wait for a handshake", n)
	}
	<-turns // now it may
	awaitCause(t, ends, CauseTLS)
}

// A peer that does not read is held back as without TLS, and gets all of it.
func TestTLSBackpressure(t *testing.T) {
	g, addr := serveTLS(t, Config{MaxPending: 64 << 10}, script{})
	c := dialTLS(t, addr, tls.VersionTLS13)
	want := pattern(16 << 20)
	go c.Write(want)
	until(t, "the peer is congested", func() (held bool) {
		only(t, g, func(l *Loop, c Slot) { held = l.Held(c) })
		return held
	})
	got := make([]byte, len(want))
	if _, err := io.ReadFull(c, got); err != nil {
		t.Fatal(err)
	}
	same(t, got, want)
}

// crypto/tls allocates a reader of 24 bytes for each look at the wire: the peer
// has one, we a second that finds it dry. Nothing else is.
func TestTLSMessagesAllocateNothingOfOurs(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector has crypto/tls allocate more")
	}
	g, addr := serveTLS(t, Config{}, script{})
	c := dialTLS(t, addr, tls.VersionTLS13)
	msg, in := pattern(500), make([]byte, 500)
	round := func() {
		c.Write(msg)
		if _, err := io.ReadFull(c, in); err != nil {
			t.Fatal(err)
		}
	}
	n := testing.AllocsPerRun(500, round)
	for range 2 { // what other tests have left to end is counted too
		n = min(n, testing.AllocsPerRun(500, round))
	}
	if n > 3 { // both ends
		t.Errorf("%v allocations per message", n)
	}
	settle(g)
}

func TestDialTLS(t *testing.T) {
	server, client := tlsConfigs()
	g, opened, ends := dialer(t)
	ln := tcpListener(t, "127.0.0.1:0")
	connect := func(cfg *tls.Config, timeout time.Duration) {
		g.Do(func(l *Loop) {
			if _, err := l.DialTLS(ln.Addr().(*net.TCPAddr), nil, 7, timeout, cfg); err != nil {
				t.Error(err)
			}
		})
	}
	accept := func() net.Conn {
		c, err := ln.Accept()
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		c.SetDeadline(time.Now().Add(patience))
		return c
	}
	t.Run("good", func(t *testing.T) {
		connect(client, time.Minute)
		c := tls.Server(accept(), server)
		expect(t, c, "hello") // what the test's handler says when it is told Opened
		if o := await(t, opened); o.tag != 7 {
			t.Errorf("tag %d", o.tag)
		}
		talk(t, c, "and back")
		c.Close()
		awaitCause(t, ends, CauseEOF)
	})
	t.Run("unknown certificate", func(t *testing.T) {
		connect(&tls.Config{ServerName: "127.0.0.1", RootCAs: x509.NewCertPool()}, time.Minute)
		if err := tls.Server(accept(), server).Handshake(); err == nil || !strings.Contains(err.Error(), "certificate") {
			t.Errorf("the server was told %v", err)
		}
		awaitCause(t, ends, CauseTLS)
	})
	t.Run("FIN instead of an answer", func(t *testing.T) {
		connect(client, time.Minute)
		accept().(*net.TCPConn).CloseWrite()
		awaitCause(t, ends, CauseEOF)
	})
	t.Run("no answer", func(t *testing.T) {
		connect(client, 50*time.Millisecond)
		accept()
		awaitCause(t, ends, CauseTimeout)
	})
	if len(opened) > 0 {
		t.Error("Opened was told of a handshake that failed")
	}
}

// A connection may leave the loop with its TLS, and come back, even to be paused at once.
func TestTLSDetachAndAdd(t *testing.T) {
	for name, paused := range map[string]bool{"": false, "paused": true} {
		t.Run(name, func(t *testing.T) { detachAndAdd(t, paused) })
	}
}

func detachAndAdd(t *testing.T, paused bool) {
	type gone struct {
		fd    int
		tls   *TLS
		first []byte
	}
	out := make(chan gone, 1)
	g, addr := serveTLS(t, Config{}, script{opened: func(l *Loop, c Slot, tag uint32) {
		if tag == 1 {
			l.Write(c, []byte("back"))
			if paused {
				l.Pause(c)
			}
		}
	}, data: func(l *Loop, c Slot, in []byte) int {
		if l.Held(c) {
			t.Error("Data was called while paused")
		}
		if !bytes.HasPrefix(in, []byte("leave")) {
			l.Write(c, in)
			return len(in)
		}
		x := gone{tls: l.TLS(c), first: bytes.Clone(in)}
		x.fd = l.Detach(c)
		out <- x
		return len(in)
	}})
	c := dialTLS(t, addr, tls.VersionTLS13)
	talk(t, c, "on the loop")
	send(t, c, "leave")
	x := await(t, out)
	if string(x.first) != "leave" {
		t.Errorf("left with %q", x.first)
	}
	raw := netConn(t, x.fd)
	over := x.tls.Over(raw)
	send(t, c, "to a goroutine")
	expect(t, over, "to a goroutine")
	send(t, over, "and from it")
	expect(t, c, "and from it")

	// It reads ahead: what is inside of TLS already is not forgotten.
	send(t, c, "first")
	send(t, c, "second")
	expect(t, over, "f")
	fd, err := raw.File()
	if err != nil {
		t.Fatal(err)
	}
	own, err := unix.FcntlInt(fd.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	fd.Close()
	raw.Close()
	g.loops[0].Post(func() {
		if err := g.loops[0].AddTLS(own, 1, nil, x.tls); err != nil {
			t.Error(err)
		}
	})
	expect(t, c, "back")
	if paused {
		only(t, g, func(l *Loop, c Slot) {
			if !l.Held(c) || string(l.bufs.bytes(l.carry(l.slots.At(c)))) == "" {
				t.Error("what came before is not kept")
			}
			l.Resume(c)
		})
	}
	expect(t, c, "irstsecond")
	talk(t, c, "on the loop again")
}

func netConn(t *testing.T, fd int) *net.TCPConn {
	t.Helper()
	f := os.NewFile(uintptr(fd), "tcp")
	defer f.Close()
	c, err := net.FileConn(f) // duplicates the descriptor
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c.(*net.TCPConn)
}

func TestTLSTapsSeeWhatIsInside(t *testing.T) {
	var in, out bytes.Buffer
	g, addr := serveTLS(t, Config{}, script{opened: func(l *Loop, c Slot, _ uint32) { l.AddTap(c, insideTap{&in, &out}) }})
	c := dialTLS(t, addr, tls.VersionTLS12)
	talk(t, c, "one")
	talk(t, c, "two")
	g.Do(func(*Loop) {
		if in.String() != "onetwo" || out.String() != "onetwo" {
			t.Errorf("seen: in %q, out %q", &in, &out)
		}
	})
}

type insideTap struct{ in, out *bytes.Buffer }

func (p insideTap) Bytes(out bool, b []byte) {
	if out {
		p.out.Write(b)
	} else {
		p.in.Write(b)
	}
}
func (insideTap) End() {}

// What crypto/tls does when the wire is dry is what all of this stands on.
func TestErrDryIsTemporary(t *testing.T) {
	var e net.Error
	if !errors.As(error(errDry{}), &e) || !e.Timeout() {
		t.Error("errDry is no net.Error that passes")
	}
}
