package epoll

import (
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

func TestWhatIsLeftWhilePausedIsShownAgainWithoutNewBytes(t *testing.T) {
	var id ID
	paused := make(chan bool, 1)
	seen := make(chan string, 100)
	pause := true
	g, addr := serve(t, Config{}, script{
		opened: func(l *Loop, c Slot, _ uint32) { id = l.ID(c) },
		data: func(l *Loop, c Slot, in []byte) int {
			seen <- string(in)
			if pause {
				pause = false
				l.Pause(c)
				if !l.Held(c) {
					t.Error("a paused connection is not held")
				}
				paused <- true
				return 1
			}
			return len(in)
		},
	})
	c := dial(t, addr)
	send(t, c, "abc")
	await(t, paused)
	if s := await(t, seen); s != "abc" {
		t.Fatalf("saw %q", s)
	}
	send(t, c, "def")
	settle(g)
	if len(seen) != 0 {
		t.Fatalf("saw %q while paused", <-seen)
	}
	resume := func(l *Loop) {
		if c, ok := l.Find(id); ok {
			l.Resume(c)
			l.Resume(c) // the second does nothing
		}
	}
	g.Do(resume)
	all := await(t, seen)
	if !strings.HasPrefix(all, "bc") {
		t.Errorf("saw %q, want what was left in front", all)
	}
	for len(all) < len("bcdef") {
		all += await(t, seen)
	}
	if all != "bcdef" {
		t.Errorf("saw %q, want bcdef once", all)
	}

	// The same without a byte behind it, and paused again at first.
	g.Do(func(*Loop) { pause = true })
	send(t, c, "xyz")
	await(t, paused)
	if s := await(t, seen); s != "xyz" {
		t.Fatalf("saw %q", s)
	}
	g.Do(func(l *Loop) {
		resume(l)
		if c, ok := l.Find(id); ok {
			l.Pause(c)
		}
	})
	settle(g)
	if len(seen) != 0 {
		t.Fatalf("saw %q while paused", <-seen)
	}
	g.Do(resume)
	if s := await(t, seen); s != "yz" {
		t.Errorf("saw %q, want what was left", s)
	}
	settle(g)
	if len(seen) != 0 || g.Budget().Used() != 0 {
		t.Errorf("Data was called %d times too often, %d bytes are held", len(seen), g.Budget().Used())
	}
}

func TestWhatIsLeftIsShownBeforeEOF(t *testing.T) {
	var id ID
	var order []string
	paused, done := make(chan bool, 1), make(chan bool, 1)
	g, addr := serve(t, Config{}, script{
		opened: func(l *Loop, c Slot, _ uint32) { id = l.ID(c) },
		data: func(l *Loop, c Slot, in []byte) int {
			order = append(order, string(in))
			if len(in) > 1 {
				l.Pause(c)
				if len(order) == 1 {
					paused <- true
				} else {
					l.Resume(c)
				}
				return 1
			}
			return len(in)
		},
		eof:    func(*Loop, Slot) { order = append(order, "EOF") },
		closed: func(*Loop, Slot, Cause, unix.Errno) { done <- true },
	})
	c := dial(t, addr)
	send(t, c, "abcd")
	await(t, paused)
	if err := c.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	g.Do(func(l *Loop) {
		c, _ := l.Find(id)
		l.Resume(c) // the kernel reports FIN before what was left is shown
	})
	await(t, done)
	if want := []string{"abcd", "bcd", "cd", "d", "EOF"}; !slices.Equal(order, want) {
		t.Errorf("the order was %q, want %q", order, want)
	}
}

func TestUnitsAreJoinedOverManyTinyReads(t *testing.T) {
	const unit = 1000
	all := pattern(20 * unit)
	var whole []byte
	calls := 0
	done := make(chan int, 1)
	g, addr := serve(t, Config{ReadBuffer: 7}, script{data: func(_ *Loop, _ Slot, in []byte) int {
		calls++
		n := len(in) / unit * unit
		whole = append(whole, in[:n]...)
		clear(in[:n]) // it may be written to
		if len(whole) == len(all) {
			done <- calls
		}
		return n
	}})
	c := dial(t, addr)
	for _, b := range all[:100] {
		send(t, c, string([]byte{b}))
	}
	send(t, c, string(all[100:]))
	if n := await(t, done); n < len(all)/7 {
		t.Errorf("%d reads of at most 7 bytes cannot have been enough", n)
	}
	g.Do(func(*Loop) { same(t, whole, all) })
	if n := g.Budget().Used(); n != 0 {
		t.Errorf("%d bytes of the budget are used at the end", n)
	}
}

func TestAUnitThatOutgrowsMaxCarryEndsTheConnection(t *testing.T) {
	ends := newEnds()
	cfg := Config{ReadBuffer: 4096}
	most := 0
	g, addr := serve(t, cfg, script{ends: ends, data: func(_ *Loop, _ Slot, in []byte) int {
		most = max(most, len(in))
		return 0
	}})
	c := dial(t, addr)
	go c.Write(make([]byte, 1<<20)) // fails when the server has had enough
	awaitCause(t, ends, CauseBudget)
	g.Do(func(*Loop) {
		if most <= cfg.MaxCarry() || most > cfg.MaxCarry()+cfg.ReadBuffer {
			t.Errorf("the most that Data saw is %d, want one read more than MaxCarry, %d, at most", most, cfg.MaxCarry())
		}
	})
	if n := g.Budget().Used(); n != 0 {
		t.Errorf("%d bytes of the budget are used at the end", n)
	}
}

func TestWhatTheBudgetCannotKeepEndsTheConnection(t *testing.T) {
	ends := newEnds()
	cfg := Config{Budget: NewBudget(1024)}
	g, addr := serve(t, cfg, script{ends: ends, data: func(*Loop, Slot, []byte) int { return 0 }})
	small := dial(t, addr)
	send(t, small, "a unit that is not whole")
	until(t, "the first unit to be kept", func() bool { return cfg.Budget.Used() == minBuffer })
	large := dial(t, addr)
	send(t, large, string(make([]byte, 1000)))
	awaitCause(t, ends, CauseBudget)
	settle(g)
	if cfg.Budget.Used() != minBuffer {
		t.Errorf("%d bytes are used, want those of the other connection", cfg.Budget.Used())
	}
	send(t, small, "!")
	small.Close()
	awaitCause(t, ends, CauseEOF)
}
