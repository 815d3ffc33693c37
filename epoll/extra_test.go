package epoll

import (
	"net"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// checkExtras fails the test unless exactly the connections that need an extra
// have one, each its own, and all others are free. It returns how many have one.
func checkExtras(t testing.TB, l *Loop) (used int) {
	t.Helper()
	p := &l.extras
	seen := map[uint32]string{0: "the index of none"}
	for c := Slot(1); c < l.top; c++ {
		s := l.slots.At(c)
		if !s.is(flagExtra) {
			continue
		}
		i := s.deadline
		if who, ok := seen[i]; ok || i > p.made || s.fd < 0 {
			t.Fatalf("slot %d, fd %d, has extra %d of %d, which is %q", c, s.fd, i, p.made, who)
		}
		seen[i] = "another's"
		if x := *p.at(i); x == (extra{deadline: x.deadline}) {
			t.Fatalf("slot %d keeps extra %d for nothing", c, i)
		}
		used++
	}
	for i := p.free; i != 0; i = p.at(i).deadline {
		if who, ok := seen[i]; ok || i > p.made {
			t.Fatalf("extra %d of %d is free, and %q", i, p.made, who)
		}
		seen[i] = "free"
	}
	if len(seen)-1 != int(p.made) {
		t.Fatalf("of %d extras %d are used or free", p.made, len(seen)-1)
	}
	return used
}

// narrow is a couple whose socket takes little at once.
func narrow(t testing.TB, l *Loop) (Slot, int) {
	t.Helper()
	c, peer := couple(t, l)
	if err := unix.SetsockoptInt(l.Fd(c), unix.SOL_SOCKET, unix.SO_SNDBUF, 8<<10); err != nil {
		t.Fatal(err)
	}
	return c, peer
}

func TestAConnectionHasAnExtraOnlyWhileItNeedsOne(t *testing.T) {
	left := 0
	l := stillLoop(t, Config{}, script{data: func(_ *Loop, _ Slot, in []byte) int { return len(in) - left }})
	c, peer := narrow(t, l)
	has := func(want bool, when string) {
		t.Helper()
		if got := l.slots.At(c).is(flagExtra); got != want {
			t.Errorf("%s: an extra: %v", when, got)
		}
		checkExtras(t, l)
	}
	has(false, "at first")
	l.SetDeadline(c, time.Minute)
	send := func(s string) {
		if _, err := unix.Write(peer, []byte(s)); err != nil {
			t.Fatal(err)
		}
		poll(l)
	}
	send("whole")
	has(false, "all was taken")
	left = 3
	send("half")
	has(true, "bytes are left")
	if n := l.bufs.len(l.carry(l.slots.At(c))); n != 3 {
		t.Errorf("%d bytes are left, want 3", n)
	}
	l.Direct(c, make([]byte, 64<<10))
	if l.Pending(c) == 0 {
		t.Fatal("the socket took everything")
	}
	left = 0
	send("the rest")
	has(true, "bytes wait to be sent")
	for l.Pending(c) > 0 {
		got(t, peer)
		poll(l)
	}
	has(false, "all was sent")
	left = 1
	send("half")
	has(true, "bytes are left again")
	l.Finish(c, true)
	has(false, "it finishes")
}

func TestADeadlineOutlivesTheExtra(t *testing.T) {
	for _, when := range []string{"before", "while", "moved while", "cancelled while"} {
		t.Run(when, func(t *testing.T) {
			a := newAlarm(t)
			c, peer := narrow(t, a.Loop)
			if when != "while" {
				a.SetDeadline(c, 2*time.Second)
			}
			a.Direct(c, make([]byte, 64<<10))
			if a.Pending(c) == 0 {
				t.Fatal("the socket took everything")
			}
			checkWheel(t, a.Loop)
			switch when {
			case "while":
				a.SetDeadline(c, 2*time.Second)
			case "moved while":
				a.SetDeadline(c, time.Minute)
				a.SetDeadline(c, 2*time.Second)
			case "cancelled while":
				a.SetDeadline(c, 0)
			}
			checkWheel(t, a.Loop)
			a.steps(time.Second)
			for a.Pending(c) > 0 {
				got(t, peer)
				poll(a.Loop)
			}
			if checkExtras(t, a.Loop) != 0 {
				t.Error("an extra is left")
			}
			a.steps(time.Minute)
			if when == "cancelled while" {
				if a.rang[c] != nil {
					t.Errorf("rang at %v", a.rang[c])
				}
				return
			}
			a.once(t, c, 2*time.Second)
		})
	}
}

func TestAConnectionThatFallsBehindAgainAndAgainAllocatesNothing(t *testing.T) {
	l := stillLoop(t, Config{}, script{data: func(_ *Loop, _ Slot, in []byte) int { return len(in) / 2 }})
	c, peer := narrow(t, l)
	s := l.slots.At(c)
	out, in := make([]byte, 64<<10), make([]byte, 64<<10)
	l.SetDeadline(c, time.Hour)
	was := s.deadline
	if n := testing.AllocsPerRun(1000, func() {
		l.Direct(c, out)
		l.show(c, s, l.in[:2]) // one byte is left
		if l.Pending(c) == 0 || l.carry(s) == 0 {
			t.Fatal("nothing waits")
		}
		for l.Pending(c) > 0 {
			if _, err := unix.Read(peer, in); err != nil {
				t.Fatal(err)
			}
			l.sendPending(c, s)
		}
		for n := 1; n > 0; n, _ = unix.Read(peer, in) {
		}
		l.dropCarry(s)
		if s.is(flagExtra) || s.deadline != was {
			t.Fatalf("the slot is %+v", *s)
		}
	}); n != 0 {
		t.Errorf("%v allocations each time", n)
	}
	if l.extras.made != 1 {
		t.Errorf("%d extras for one connection", l.extras.made)
	}
}

func TestExtrasAreNeverMoreThanWereNeededAtOnce(t *testing.T) {
	const most = 7
	l := stillLoop(t, Config{}, script{})
	for gen := range 200 {
		var cs []Slot
		for i := range 1 + gen%most {
			c := chair(t, l)
			x := l.extra(l.slots.At(c))
			if *x != (extra{}) {
				t.Fatalf("a new extra is %+v", *x)
			}
			l.SetDeadline(c, time.Minute)
			if i%3 != 0 && !l.bufs.add(&x.carry, []byte("left"), nil) {
				t.Fatal("no room")
			}
			if i%3 != 1 && !l.bufs.add(&x.pend, []byte("waits"), nil) {
				t.Fatal("no room")
			}
			l.progress(c, l.slots.At(c))
			cs = append(cs, c)
		}
		if n := checkExtras(t, l); n != len(cs) {
			t.Fatalf("%d extras for %d connections", n, len(cs))
		}
		checkWheel(t, l)
		for i, c := range cs {
			if i%2 == 0 {
				l.Close(c)
			} else {
				unix.Close(l.Detach(c))
			}
		}
		if n := checkExtras(t, l); n != 0 || l.bufs.budget.Used() != 0 || l.wheel.count != 0 {
			t.Fatalf("after all have gone: %d extras, %d bytes, %d timers", n, l.bufs.budget.Used(), l.wheel.count)
		}
	}
	if l.extras.made != most {
		t.Errorf("%d extras were made, want %d", l.extras.made, most)
	}
}

func TestADialHasAnExtraForItsTagUntilItIsConnected(t *testing.T) {
	ln := tcpListener(t, "127.0.0.1:0")
	for i, tag := range []uint32{0, 42, 43} {
		early := i == 2 // words that wait for it
		opened := 0
		l := stillLoop(t, Config{}, script{opened: func(l *Loop, c Slot, got uint32) {
			opened++
			if s := l.slots.At(c); got != tag || s.is(flagExtra) != early || *l.deadline(s) != 0 {
				t.Errorf("opened with tag %d, want %d; the slot is %+v", got, tag, *s)
			}
		}})
		c, err := l.Dial(ln.Addr().(*net.TCPAddr), nil, tag, time.Minute)
		if err != nil {
			t.Fatal(err)
		}
		if has := l.slots.At(c).is(flagExtra); has != (tag != 0) {
			t.Errorf("tag %d: an extra while it connects: %v", tag, has)
		}
		if early && !l.bufs.add(&l.extra(l.slots.At(c)).pend, []byte("early"), nil) {
			t.Fatal("no room")
		}
		checkExtras(t, l)
		until(t, "it is connected", func() bool { poll(l); return opened == 1 })
		until(t, "the words are sent", func() bool { poll(l); return l.Pending(c) == 0 })
		if checkExtras(t, l) != 0 {
			t.Error("an extra is left")
		}
	}
}
