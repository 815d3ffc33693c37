package epoll

import (
	"net"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestBytesOfEverySizeComeBack(t *testing.T) {
	const read = 4096
	_, addr := serve(t, Config{ReadBuffer: read}, script{})
	c := dial(t, addr)
	all := pattern(1 << 18)
	sizes := []int{1, 2, 3}
	for _, n := range []int{minBuffer, read, throughMin, outScratch, read + throughMin, 2 * outScratch} {
		sizes = append(sizes, n-1, n, n+1)
	}
	for _, n := range sizes {
		talk(t, c, string(all[:n]))
	}
	if err := c.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	expectEOF(t, c)
}

func TestAResetIsTold(t *testing.T) {
	for _, name := range []string{"while reading", "while paused", "while lingering", "while bytes wait"} {
		t.Run(name, func(t *testing.T) {
			ends := newEnds()
			opened := make(chan bool, 1)
			_, addr := serve(t, Config{MaxPending: 64 << 20}, script{ends: ends, opened: func(l *Loop, c Slot, _ uint32) {
				switch name {
				case "while bytes wait":
					l.Write(c, make([]byte, 12<<20))
				case "while paused":
					l.Pause(c)
				case "while lingering":
					l.Finish(c, true)
				}
				opened <- true
			}})
			c := dial(t, addr)
			await(t, opened)
			if err := c.SetLinger(0); err != nil {
				t.Fatal(err)
			}
			c.Close()
			if e := awaitCause(t, ends, CauseReset); e.errno != unix.ECONNRESET && e.errno != unix.EPIPE {
				t.Errorf("errno is %v", e.errno)
			}
		})
	}
}

func TestEachSeesEveryConnectionAndMayCloseIt(t *testing.T) {
	ends := newEnds()
	g, addr := serve(t, Config{}, script{ends: ends})
	for range 30 {
		talk(t, dial(t, addr), "x")
	}
	g.Do(func(l *Loop) {
		if int(l.Slots()) != l.Len()+1 {
			t.Errorf("Slots is %d for %d connections", l.Slots(), l.Len())
		}
		seen := map[Slot]bool{}
		l.Each(func(c Slot) {
			if seen[c] = true; c%2 == 0 {
				l.Close(c)
			}
		})
		if len(seen) != 30 {
			t.Errorf("Each saw %d of 30", len(seen))
		}
		n := 0
		l.Each(func(c Slot) {
			if n++; c%2 == 0 {
				t.Errorf("Each saw %d, which is closed", c)
			}
		})
		if n != 15 || l.Len() != 15 {
			t.Errorf("Each saw %d, Len is %d; want 15", n, l.Len())
		}
	})
	if len(ends) != 15 {
		t.Errorf("Closed was called %d times", len(ends))
	}
}

func TestTheClockOfABatchDoesNotGoBack(t *testing.T) {
	g, _ := serve(t, Config{}, script{})
	var last int64
	for range 10 {
		before := sysNow()
		g.Do(func(*Loop) {}) // a batch that began before
		g.Do(func(l *Loop) {
			if l.Now() < last || l.Now() < before || l.Now() > sysNow() || l.Tick() != tickOf(l.Now()) {
				t.Errorf("Now is %d, it was %d and is %d outside; Tick is %d", l.Now(), last, sysNow(), l.Tick())
			}
			last = l.Now()
		})
	}
}

func TestAPanicIsToldWithItsConnectionAndTheOthersGoOn(t *testing.T) {
	type panicked struct {
		id ID
		v  any
	}
	panics := make(chan panicked, 10)
	ends := newEnds()
	cfg := Config{OnPanic: func(l *Loop, c Slot, v any) {
		p := panicked{v: v}
		if c != 0 {
			p.id = l.ID(c)
			l.Close(c)
		}
		panics <- p
	}}
	var last ID
	g, addr := serve(t, cfg, script{
		ends: ends,
		opened: func(l *Loop, c Slot, tag uint32) {
			if last = l.ID(c); tag == 1 {
				panic("opened")
			}
		},
		data: func(l *Loop, c Slot, in []byte) int {
			switch {
			case strings.HasPrefix(string(in), "panic"):
				panic("data")
			case strings.HasPrefix(string(in), "expire"):
				l.SetDeadline(c, time.Nanosecond)
			case strings.HasPrefix(string(in), "post"):
				l.Post(func() { panic("posted in Data") })
			}
			l.Write(c, in)
			return len(in)
		},
		expired: func(*Loop, Slot) { panic("expired") },
		closed: func(l *Loop, c Slot, cause Cause, _ unix.Errno) {
			if cause == CauseReset {
				panic("closed")
			}
		},
	})
	stays := dial(t, addr)
	talk(t, stays, "hello")
	want := func(v string, id ID) {
		t.Helper()
		if p := await(t, panics); p.v != v || p.id != id {
			t.Errorf("OnPanic was told %x, %v; want %x, %v", uint64(p.id), p.v, uint64(id), v)
		}
	}
	for _, what := range []string{"data", "expired", "closed"} {
		c := dial(t, addr)
		talk(t, c, "hello")
		var id ID
		g.Do(func(*Loop) { id = last })
		switch what {
		case "data":
			send(t, c, "panic")
			want("data", id)
			awaitCause(t, ends, CauseLocal)
		case "expired":
			talk(t, c, "expire")
			want("expired", id)
			awaitCause(t, ends, CauseLocal)
		case "closed":
			if err := c.SetLinger(0); err != nil {
				t.Fatal(err)
			}
			c.Close()
			// The slot was freed all the same: its ID is that of the next.
			want("closed", id+1<<32)
		}
		talk(t, stays, "after "+what)
		g.Do(func(l *Loop) {
			if l.Len() != 1 {
				t.Errorf("%s: %d connections, want the one that stays", what, l.Len())
			}
			checkWheel(t, l)
		})
	}

	ln, err := g.Listen("127.0.0.1:0", 1)
	if err != nil {
		t.Fatal(err)
	}
	dial(t, ln.String())
	awaitCause(t, ends, CauseLocal)
	if p := await(t, panics); p.v != "opened" || p.id == 0 {
		t.Errorf("OnPanic was told %x, %v", uint64(p.id), p.v)
	}

	// A posted function: no connection is to blame, and those behind it run.
	ran := make(chan int, 3)
	g.Do(func(l *Loop) {
		l.Post(func() { ran <- 1 })
		l.Post(func() { panic("posted") })
		l.Post(func() { ran <- 3 })
	})
	want("posted", 0)
	if a, b := await(t, ran), await(t, ran); a != 1 || b != 3 {
		t.Errorf("%d and %d ran around the panic", a, b)
	}
	talk(t, stays, "post")
	want("posted in Data", 0)
	talk(t, stays, "at the end")
}

// rawDial is a blocking client that allocates nothing.
func rawDial(t testing.TB, addr string) int {
	t.Helper()
	tcp, err := net.ResolveTCPAddr("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	domain, sa := sockaddr(tcp)
	fd, err := unix.Socket(domain, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	tv := unix.NsecToTimeval(int64(patience))
	for _, err := range []error{
		unix.Connect(fd, sa),
		unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1),
		unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &tv),
	} {
		if err != nil {
			t.Fatal(err)
		}
	}
	return fd
}

// rawTalk has a message echoed.
func rawTalk(t testing.TB, fd int, b []byte) {
	if n, err := unix.Write(fd, b); n != len(b) || err != nil {
		t.Fatal(n, err)
	}
	for n := 0; n < len(b); {
		m, err := unix.Read(fd, b[n:])
		if err == unix.EINTR {
			continue
		}
		if m <= 0 {
			t.Fatal(m, err)
		}
		n += m
	}
}

func TestAnEchoedMessageAllocatesNothing(t *testing.T) {
	_, addr := serve(t, Config{}, script{})
	fd := rawDial(t, addr)
	for _, size := range []int{64, throughMin + 100} {
		b := pattern(size)
		for range 100 {
			rawTalk(t, fd, b)
		}
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		const messages = 10_000
		for range messages {
			rawTalk(t, fd, b)
		}
		runtime.ReadMemStats(&after)
		// The runtime has a few of its own in the background.
		if n := after.Mallocs - before.Mallocs; n > 20 {
			t.Errorf("%d messages of %d bytes cost %d allocations", messages, size, n)
		}
	}
}

func TestCausesOfErrorNumbers(t *testing.T) {
	for e, want := range map[unix.Errno]Cause{
		none: CauseEOF, unix.ECONNRESET: CauseReset, unix.EPIPE: CauseReset, unix.ETIMEDOUT: CauseTimeout,
		unix.ECONNREFUSED: CauseRefused, unix.EHOSTUNREACH: CauseRefused, unix.ENETUNREACH: CauseRefused, unix.EIO: CauseError,
	} {
		if got := causeOf(e); got != want {
			t.Errorf("the cause of %v is %v, want %v", e, got, want)
		}
	}
	names := map[string]bool{}
	for c := range numCauses {
		names[c.String()] = true
	}
	if len(names) != int(numCauses) || names[""] {
		t.Errorf("the causes have no names of their own: %v", names)
	}
	if syscall.Errno(socketError(-1)) != syscall.EBADF {
		t.Errorf("the error of no socket is %v", socketError(-1))
	}
}

func BenchmarkEcho(b *testing.B) {
	_, addr := serve(b, Config{}, script{})
	fd := rawDial(b, addr)
	msg := pattern(64)
	b.ReportAllocs()
	for b.Loop() {
		rawTalk(b, fd, msg)
	}
}
