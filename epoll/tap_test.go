package epoll

import (
	"io"
	"math/rand/v2"
	"sync"
	"testing"

	"golang.org/x/sys/unix"
)

// tapped is a Tap that keeps everything. It scribbles on nothing and copies all.
type tapped struct {
	in, out []byte
	ends    int
	done    chan struct{} // closed by End, if there is one
}

func (t *tapped) Bytes(out bool, b []byte) {
	if len(b) == 0 {
		panic("a tap was shown nothing")
	}
	if t.ends > 0 {
		panic("a tap was shown bytes behind its end")
	}
	if out {
		t.out = append(t.out, b...)
	} else {
		t.in = append(t.in, b...)
	}
}

func (t *tapped) End() {
	if t.ends++; t.done != nil {
		close(t.done)
	}
}

// Bytes leave by three ways: from the scratch, with writev from where they are, and from the buffer of what waits. The
// reader begins when something waits, so that all three are used.
func TestTapSeesEachByteOfTheWireOnce(t *testing.T) {
	for seed := range uint64(8) {
		tap := &tapped{done: make(chan struct{})}
		waits := make(chan struct{})
		once := sync.OnceFunc(func() { close(waits) })
		_, addr := serve(t, Config{MaxPending: 64 << 20}, script{
			opened: func(l *Loop, c Slot, _ uint32) { l.AddTap(c, tap) },
			data: func(l *Loop, c Slot, in []byte) int {
				l.SetOut(append(l.Out(c), in[:len(in)/3]...))
				l.Write(c, in[len(in)/3:])
				for i := range in {
					in[i] = 0xa5 // a tap that kept it would show it
				}
				if l.Pending(c) > 0 {
					once()
				}
				return len(in)
			},
		})
		conn := dial(t, addr)
		conn.SetReadBuffer(16 << 10)
		r := rand.New(rand.NewPCG(seed, 1))
		sent := pattern(4<<20 + r.IntN(100_000))
		got := make(chan []byte)
		go func() {
			var all []byte
			b := make([]byte, 100_000)
			<-waits
			for {
				n, err := conn.Read(b[:1+r.IntN(len(b))])
				all = append(all, b[:n]...)
				if err != nil {
					got <- all
					return
				}
			}
		}()
		cut := rand.New(rand.NewPCG(seed, 2))
		for rest := sent; len(rest) > 0; {
			n := min(len(rest), 1+cut.IntN(1+cut.IntN(200_000)))
			send(t, conn, string(rest[:n]))
			rest = rest[n:]
		}
		conn.CloseWrite()
		same(t, await(t, got), sent)
		await(t, tap.done)
		same(t, tap.in, sent)
		same(t, tap.out, sent)
		if tap.ends != 1 {
			t.Fatalf("%d ends", tap.ends)
		}
	}
}

func TestTapSeesWhatComesTooLateForTheHandler(t *testing.T) {
	l := stillLoop(t, Config{}, script{})
	c, conn := tcpCouple(t, l)
	tap := &tapped{}
	l.AddTap(c, tap)
	l.Write(c, []byte("bye"))
	l.Finish(c, true)
	send(t, conn, "too late")
	until(t, "it is seen", func() bool { poll(l); return string(tap.in) == "too late" })
	if string(tap.out) != "bye" {
		t.Errorf("out: %q", tap.out)
	}
}

func TestTapEndsOnceHoweverItEnds(t *testing.T) {
	for name, end := range map[string]func(l *Loop, c Slot){
		"Close":      (*Loop).Close,
		"Finish":     func(l *Loop, c Slot) { l.Finish(c, false) },
		"Detach":     func(l *Loop, c Slot) { sysClose(int32(l.Detach(c))) },
		"taken off":  (*Loop).DropTaps,
		"twice":      func(l *Loop, c Slot) { l.DropTaps(c); l.DropTaps(c) },
		"off, ended": func(l *Loop, c Slot) { l.DropTaps(c); l.Close(c) },
	} {
		t.Run(name, func(t *testing.T) {
			l := stillLoop(t, Config{}, script{})
			c, _ := couple(t, l)
			tap, second := &tapped{}, &tapped{}
			l.AddTap(c, tap)
			l.AddTap(c, second)
			l.Direct(c, []byte("x"))
			end(l, c)
			if tap.ends != 1 || second.ends != 1 || string(tap.out) != "x" || string(second.out) != "x" {
				t.Errorf("%+v and %+v", tap, second)
			}
			if len(l.taps) != 0 {
				t.Errorf("%d taps are left", len(l.taps))
			}
		})
	}
	l := stillLoop(t, Config{}, script{})
	c, _ := couple(t, l)
	l.Close(c)
	tap := &tapped{}
	if l.AddTap(c, tap); tap.ends != 1 {
		t.Errorf("on a connection that has ended: %d ends", tap.ends)
	}
}

// The next connection in a slot is not the one that was tapped.
func TestTapDoesNotOutliveItsConnection(t *testing.T) {
	l := stillLoop(t, Config{}, script{})
	c, _ := couple(t, l)
	tap := &tapped{}
	l.AddTap(c, tap)
	l.Close(c)
	again, fd := couple(t, l)
	if again != c {
		t.Fatal("the slot was not used again")
	}
	unix.Write(fd, []byte("x"))
	poll(l)
	if got(t, fd) != "x" || len(tap.in) != 0 {
		t.Errorf("the old tap has seen %q", tap.in)
	}
}

func TestSpliceLeavesTappedConnectionsAlone(t *testing.T) {
	for i := range 2 {
		l := stillLoop(t, Config{}, script{})
		from, sender := tcpCouple(t, l)
		to, _ := tcpCouple(t, l)
		l.AddTap([]Slot{from, to}[i], &tapped{})
		io.WriteString(sender, "bytes")
		poll(l) // they are there now, and the handler has echoed them
		io.WriteString(sender, "more")
		if n := l.Splice(from, to, 1<<20); n != 0 {
			t.Errorf("%d bytes passed by unseen", n)
		}
	}
}

// Off, a tap costs a test of a bit; on, nothing but what the Tap itself does.
func TestTapsAllocateNothing(t *testing.T) {
	for name, taps := range map[string][]Tap{"off": nil, "on": {blind{}}, "twice": {blind{}, blind{}}} {
		l := stillLoop(t, Config{}, script{})
		c, fd := couple(t, l)
		for _, tap := range taps {
			l.AddTap(c, tap)
		}
		b := make([]byte, 64)
		evs := make([]unix.EpollEvent, 4)
		if n := testing.AllocsPerRun(1000, func() {
			unix.Write(fd, b)
			n, _ := sysPoll(l.epfd, evs)
			for i := range n {
				l.dispatch(&evs[i])
				l.flush()
			}
			if n, err := unix.Read(fd, b); n != len(b) {
				t.Fatal(n, err)
			}
		}); n != 0 {
			t.Errorf("%s: %v allocations for an echo", name, n)
		}
	}
}

type blind struct{}

func (blind) Bytes(bool, []byte) {}
func (blind) End()               {}

func BenchmarkTap(b *testing.B) {
	for name, taps := range map[string][]Tap{"off": nil, "on": {blind{}}, "twice": {blind{}, blind{}}} {
		b.Run(name, func(b *testing.B) {
			l := stillLoop(b, Config{}, script{})
			c, fd := couple(b, l)
			for _, tap := range taps {
				l.AddTap(c, tap)
			}
			buf := make([]byte, 64)
			evs := make([]unix.EpollEvent, 4)
			for b.Loop() {
				unix.Write(fd, buf)
				n, _ := sysPoll(l.epfd, evs)
				for i := range n {
					l.dispatch(&evs[i])
					l.flush()
				}
				unix.Read(fd, buf)
			}
		})
	}
}
