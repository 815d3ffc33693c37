package epoll

import (
	"bytes"
	"io"
	"net"
	"os"
	"runtime"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestMain(m *testing.M) {
	// The runtime's own poller keeps two descriptors from its first use on,
	// and ends the program when it cannot have them.
	if ln, err := net.Listen("tcp", "127.0.0.1:0"); err == nil {
		ln.Close()
	}
	if os.Getenv(envChild) != "" {
		os.Exit(child())
	}
	os.Exit(m.Run())
}

// patience is how long a test waits for what must happen.
const patience = 10 * time.Second

// script is a Handler made of functions; without one for Data it echoes, and
// those that are nil do nothing.
type script struct {
	loop    *Loop
	opened  func(l *Loop, c Slot, tag uint32)
	data    func(l *Loop, c Slot, in []byte) int
	eof     func(l *Loop, c Slot)
	drained func(l *Loop, c Slot)
	expired func(l *Loop, c Slot)
	closed  func(l *Loop, c Slot, cause Cause, e unix.Errno)
	ends    chan end // told of every Closed, if there is one
}

// end is what Closed was told.
type end struct {
	id    ID
	cause Cause
	errno unix.Errno
}

func (s *script) Opened(c Slot, tag uint32) {
	if s.opened != nil {
		s.opened(s.loop, c, tag)
	}
}

func (s *script) Data(c Slot, in []byte) int {
	if s.data != nil {
		return s.data(s.loop, c, in)
	}
	s.loop.Write(c, in)
	return len(in)
}

func (s *script) EOF(c Slot) {
	if s.eof != nil {
		s.eof(s.loop, c)
	}
}

func (s *script) Drained(c Slot) {
	if s.drained != nil {
		s.drained(s.loop, c)
	}
}

func (s *script) Expired(c Slot) {
	if s.expired != nil {
		s.expired(s.loop, c)
	}
}

func (s *script) Closed(c Slot, cause Cause, e unix.Errno) {
	id := s.loop.ID(c)
	if s.closed != nil {
		s.closed(s.loop, c, cause, e)
	}
	if s.ends != nil {
		s.ends <- end{id, cause, e}
	}
}

// newEnds is a channel that no test fills, so that no loop blocks on it.
func newEnds() chan end { return make(chan end, 4096) }

// noLeak fails the test when, after all its other cleanups, it has left
// goroutines or descriptors behind.
func noLeak(t testing.TB) {
	t.Helper()
	goroutines, fds := runtime.NumGoroutine(), countFds(t)
	t.Cleanup(func() {
		var g, f int
		for deadline := time.Now().Add(patience / 2); ; runtime.Gosched() {
			// The goroutine that told us of its end may not have ended quite.
			if g, f = runtime.NumGoroutine(), countFds(t); g <= goroutines && f <= fds {
				return
			}
			if time.Now().After(deadline) {
				break
			}
		}
		t.Errorf("%d goroutines and %d descriptors before the test, %d and %d after it", goroutines, fds, g, f)
	})
}

func countFds(t testing.TB) int {
	t.Helper()
	es, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(es)
}

// stillGroup is a group that has not started, with a copy of the script on each loop.
func stillGroup(t testing.TB, cfg Config, sc script) *Group {
	t.Helper()
	g, err := NewGroup(cfg, func(l *Loop) Handler {
		own := sc
		own.loop = l
		return &own
	})
	if err != nil {
		t.Fatal(err)
	}
	return g
}

// serve runs a group that listens on a port of its own until the test ends.
func serve(t testing.TB, cfg Config, sc script) (*Group, string) {
	t.Helper()
	noLeak(t)
	g := stillGroup(t, cfg, sc)
	g.Start()
	t.Cleanup(func() {
		g.Stop()
		for _, l := range g.loops {
			if n := checkExtras(t, l); n != 0 {
				t.Errorf("%d extras are left at the end", n)
			}
		}
	})
	addr, err := g.Listen("127.0.0.1:0", 0)
	if err != nil {
		t.Fatal(err)
	}
	return g, addr.String()
}

// stillLoop is a loop without a goroutine: the test is the loop, and its time.
func stillLoop(t testing.TB, cfg Config, sc script) *Loop {
	t.Helper()
	noLeak(t)
	l, err := newLoop(cfg.withDefaults(), 0)
	if err != nil {
		t.Fatal(err)
	}
	sc.loop = l
	l.handler = &sc
	t.Cleanup(func() {
		l.exit()
		if n := checkExtras(t, l); n != 0 {
			t.Errorf("%d extras are left at the end", n)
		}
	})
	return l
}

// sleep moves the time of a still loop.
func sleep(l *Loop, d time.Duration) {
	l.now += int64(d)
	l.tick = tickOf(l.now)
	if l.tick != l.wheel.now {
		l.advance(l.tick)
		l.flush()
	}
}

// poll lets a still loop handle the events that there are, and what they lead to.
func poll(l *Loop) {
	evs := make([]unix.EpollEvent, maxEvents)
	n, _ := sysPoll(l.epfd, evs)
	for i := range max(n, 0) {
		l.dispatch(&evs[i])
		l.flush()
	}
	for range len(l.resumed) {
		l.showCarry()
	}
}

// couple puts one end of a socket pair on the loop and returns the other.
func couple(t testing.TB, l *Loop) (Slot, int) {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	c, _, e := l.add(int32(fds[0]), 0)
	if e != none {
		t.Fatal(e)
	}
	t.Cleanup(func() { unix.Close(fds[1]) })
	return c, fds[1]
}

// got is what has arrived at the other end of a couple.
func got(t testing.TB, fd int) string {
	t.Helper()
	var all []byte
	b := make([]byte, 64<<10)
	for {
		n, err := unix.Read(fd, b)
		if n <= 0 || err != nil {
			return string(all)
		}
		all = append(all, b[:n]...)
	}
}

// dial connects to addr until the test ends.
func dial(t testing.TB, addr string) *net.TCPConn {
	t.Helper()
	c, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	return c.(*net.TCPConn)
}

// talk sends s and fails the test unless it comes back.
func talk(t testing.TB, c io.ReadWriter, s string) {
	t.Helper()
	send(t, c, s)
	expect(t, c, s)
}

func send(t testing.TB, c io.Writer, s string) {
	t.Helper()
	if _, err := io.WriteString(c, s); err != nil {
		t.Fatal(err)
	}
}

// expect reads exactly what should come.
func expect(t testing.TB, c io.Reader, want string) {
	t.Helper()
	b := make([]byte, len(want))
	n, err := io.ReadFull(c, b)
	if string(b[:n]) != want {
		i := 0
		for i < n && b[i] == want[i] {
			i++
		}
		t.Fatalf("read %.60q at %d of %d, want %.60q (%v)", b[i:n], i, len(want), want[i:], err)
	}
}

// expectEOF fails the test unless the other side has ended properly.
func expectEOF(t testing.TB, c io.Reader) {
	t.Helper()
	if b, err := io.ReadAll(c); err != nil || len(b) > 0 {
		t.Fatalf("read %.60q, %v, want the end of the stream", b, err)
	}
}

// await returns what ch gives.
func await[T any](t testing.TB, ch <-chan T) T {
	t.Helper()
	select {
	case v := <-ch:
		return v
	case <-time.After(patience):
		t.Fatal("waited too long")
		panic("unreachable")
	}
}

// awaitCause fails the test unless the next Closed has that cause.
func awaitCause(t testing.TB, ends <-chan end, want Cause) end {
	t.Helper()
	e := await(t, ends)
	if e.cause != want {
		t.Fatalf("closed with %v (%v), want %v", e.cause, e.errno, want)
	}
	return e
}

// settle returns when every loop has handled what had arrived before: the
// second function is in a batch that began after the first.
func settle(g *Group) {
	g.Do(func(*Loop) {})
	g.Do(func(*Loop) {})
}

// until polls a condition that nothing announces.
func until(t testing.TB, what string, cond func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !cond(); runtime.Gosched() {
		if time.Now().After(deadline) {
			t.Fatalf("waited too long for: %s", what)
		}
	}
}

// only runs f on the loop of the only connection of a group.
func only(t testing.TB, g *Group, f func(l *Loop, c Slot)) {
	t.Helper()
	n := 0
	g.Do(func(l *Loop) {
		l.Each(func(c Slot) {
			n++
			f(l, c)
		})
	})
	if n != 1 {
		t.Errorf("%d connections, want one", n)
	}
}

// pattern is n bytes in which no stretch repeats soon.
func pattern(n int) []byte {
	b := make([]byte, n)
	x := uint32(1)
	for i := range b {
		x = x*1664525 + 1013904223
		b[i] = byte(x >> 24)
	}
	return b
}

// same compares long byte slices and says where they part.
func same(t testing.TB, got, want []byte) {
	t.Helper()
	if bytes.Equal(got, want) {
		return
	}
	for i := range min(len(got), len(want)) {
		if got[i] != want[i] {
			t.Fatalf("%d bytes differ from the %d sent at %d", len(got), len(want), i)
		}
	}
	t.Fatalf("got %d bytes, want %d", len(got), len(want))
}
