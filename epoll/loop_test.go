package epoll

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"runtime"
	"slices"
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

func TestMegabytesComeBackThoughThePeerReadsLate(t *testing.T) {
	drained := make(chan int, 1024)
	g, addr := serve(t, Config{}, script{drained: func(l *Loop, c Slot) { drained <- l.Pending(c) }})
	c := dial(t, addr)
	all := pattern(12 << 20) // more than both kernels' buffers take
	sent := make(chan error, 1)
	go func() {
		_, err := c.Write(all)
		sent <- errors.Join(err, c.CloseWrite())
	}()
	until(t, "congestion", func() (held bool) {
		only(t, g, func(l *Loop, c Slot) { held = l.Held(c) && l.Pending(c) > 0 })
		return held
	})
	back, err := io.ReadAll(c)
	if err != nil {
		t.Fatal(err)
	}
	same(t, back, all)
	if err := await(t, sent); err != nil {
		t.Fatal(err)
	}
	if n := await(t, drained); n != 0 {
		t.Errorf("Drained was told while %d bytes waited", n)
	}
	settle(g)
	if n := g.Budget().Used(); n != 0 {
		t.Errorf("%d bytes of the budget are used at the end", n)
	}
}

func TestAPeerThatDoesNotReadGetsToSendNoMore(t *testing.T) {
	cfg := Config{ReadBuffer: 16 << 10, Congested: 32 << 10, MaxPending: 64 << 10}
	most := 0
	g, addr := serve(t, cfg, script{data: func(l *Loop, c Slot, in []byte) int {
		l.Write(c, in)
		most = max(most, l.Pending(c))
		return len(in)
	}})
	c := dial(t, addr)
	all := pattern(16 << 20)
	sent := 0
	until(t, "congestion", func() (held bool) {
		if err := c.SetWriteDeadline(time.Now().Add(20 * time.Millisecond)); err != nil {
			t.Fatal(err)
		}
		n, _ := c.Write(all[sent:])
		sent += n
		if n == 0 { // the kernels' buffers are full, so the server has stopped reading
			only(t, g, func(l *Loop, c Slot) { held = l.Held(c) })
		}
		return held
	})
	only(t, g, func(l *Loop, c Slot) {
		if n := l.Pending(c); n <= cfg.Congested || n > cfg.Congested+cfg.ReadBuffer {
			t.Errorf("%d bytes wait, want more than Congested, %d, and at most one read more", n, cfg.Congested)
		}
	})
	if n := g.Budget().Used(); n > int64(cfg.MaxPending) {
		t.Errorf("%d bytes of memory are used for it, more than %d", n, cfg.MaxPending)
	}
	// When the peer reads, everything goes on.
	rest := make(chan error, 1)
	all = all[:sent+2<<20]
	if err := c.SetWriteDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	go func() {
		_, err := c.Write(all[sent:])
		rest <- err
	}()
	back := make([]byte, len(all))
	if _, err := io.ReadFull(c, back); err != nil {
		t.Fatal(err)
	}
	same(t, back, all)
	if err := await(t, rest); err != nil {
		t.Fatal(err)
	}
	g.Do(func(*Loop) {
		if most > cfg.MaxPending {
			t.Errorf("up to %d bytes waited, more than MaxPending, %d", most, cfg.MaxPending)
		}
	})
	if n := g.Budget().Used(); n != 0 {
		t.Errorf("%d bytes of the budget are used at the end", n)
	}
}

// push writes in pieces of 64 KiB until the connection is gone or all is written.
func push(l *Loop, c Slot, all int) {
	b := make([]byte, 64<<10)
	id := l.ID(c)
	for ; all > 0; all -= len(b) {
		if l.ID(c) != id {
			return
		}
		l.Write(c, b)
	}
}

func TestAHandlerThatPushesPastMaxPendingLosesTheConnection(t *testing.T) {
	ends := newEnds()
	g, addr := serve(t, Config{MaxPending: 128 << 10}, script{ends: ends, opened: func(l *Loop, c Slot, _ uint32) { push(l, c, 64<<20) }})
	dial(t, addr)
	awaitCause(t, ends, CausePending)
	settle(g)
	if n := g.Budget().Used(); n != 0 {
		t.Errorf("%d bytes of the budget are used at the end", n)
	}
}

func TestAHandlerThatPushesPastTheBudgetLosesTheConnection(t *testing.T) {
	ends := newEnds()
	cfg := Config{Budget: NewBudget(128 << 10), MaxPending: 64 << 20}
	g, addr := serve(t, cfg, script{ends: ends, opened: func(l *Loop, c Slot, _ uint32) { push(l, c, 64<<20) }})
	dial(t, addr)
	awaitCause(t, ends, CauseBudget)
	settle(g)
	if n := cfg.Budget.Used(); n != 0 {
		t.Errorf("%d bytes of the budget are used at the end", n)
	}
}

func TestAPeerThatReadsNothingForWriteTimeoutIsStalled(t *testing.T) {
	ends := newEnds()
	const timeout = 100 * time.Millisecond
	pushed := make(chan time.Time, 1)
	_, addr := serve(t, Config{WriteTimeout: timeout, MaxPending: 64 << 20}, script{ends: ends, opened: func(l *Loop, c Slot, _ uint32) {
		pushed <- time.Now()
		push(l, c, 32<<20)
	}})
	dial(t, addr)
	awaitCause(t, ends, CauseStalled)
	if d := time.Since(await(t, pushed)); d < timeout {
		t.Errorf("stalled after %v, before %v had passed", d, timeout)
	}
}

func TestAPeerThatReadsSlowlyIsNotStalled(t *testing.T) {
	ends := newEnds()
	l := stillLoop(t, Config{WriteTimeout: time.Second, MaxPending: 64 << 20}, script{ends: ends})
	c, peer := couple(t, l)
	push(l, c, 8<<20)
	for range 10 {
		sleep(l, 900*time.Millisecond) // never a whole second without a byte
		if got(t, peer) == "" {
			t.Fatal("nothing to read")
		}
		poll(l)
	}
	if l.Len() != 1 || l.Pending(c) == 0 {
		t.Fatalf("%d connections, %d bytes wait, want some: else nothing was tried", l.Len(), l.Pending(c))
	}
	sleep(l, 900*time.Millisecond)
	if l.Len() != 1 {
		t.Fatal("stalled before the time")
	}
	sleep(l, 250*time.Millisecond)
	awaitCause(t, ends, CauseStalled)
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

func TestAPeerThatHasSentItsFINStillGetsEverything(t *testing.T) {
	for _, who := range []string{"the handler finishes", "the loop finishes"} {
		t.Run(who, func(t *testing.T) {
			ends := newEnds()
			want := CauseEOF
			sc := script{ends: ends}
			if who == "the handler finishes" {
				want = CauseLocal
				sc.eof = func(l *Loop, c Slot) { l.Finish(c, false) }
			}
			_, addr := serve(t, Config{}, sc)
			c := dial(t, addr)
			all := pattern(8 << 20)
			sent := make(chan error, 1)
			go func() {
				_, err := c.Write(all)
				sent <- errors.Join(err, c.CloseWrite())
			}()
			back := make([]byte, len(all))
			if _, err := io.ReadFull(c, back[:1]); err != nil {
				t.Fatal(err)
			}
			if _, err := io.ReadFull(c, back[1:]); err != nil {
				t.Fatal(err)
			}
			same(t, back, all)
			if err := await(t, sent); err != nil {
				t.Fatal(err)
			}
			expectEOF(t, c)
			awaitCause(t, ends, want)
		})
	}
}

func TestFINFromAPeerThatIsFarBehindEndsOnlyAfterTheLastByte(t *testing.T) {
	ends := newEnds()
	g, addr := serve(t, Config{MaxPending: 64 << 20}, script{ends: ends, data: func(l *Loop, c Slot, in []byte) int {
		l.Write(c, make([]byte, 24<<20))
		return len(in)
	}})
	c := dial(t, addr)
	send(t, c, "x")
	if err := c.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	settle(g)
	if len(ends) != 0 {
		t.Fatalf("closed with %v while bytes wait", (<-ends).cause)
	}
	if n, err := io.Copy(io.Discard, c); n != 24<<20 || err != nil {
		t.Errorf("%d bytes came, %v", n, err)
	}
	awaitCause(t, ends, CauseEOF)
}

func TestLingeringSavesTheLastWordsFromThePeersOwnBytes(t *testing.T) {
	ends := newEnds()
	words := string(pattern(1 << 20))
	calls := make(chan int, 4096)
	g, addr := serve(t, Config{MaxPending: 2 << 20}, script{ends: ends, data: func(l *Loop, c Slot, in []byte) int {
		calls <- len(in)
		l.Write(c, []byte(words))
		l.Finish(c, true)
		l.Write(c, []byte("too late"))
		return 0 // what is left after Finish is of no interest
	}})
	c := dial(t, addr)
	send(t, c, "x")
	await(t, calls)
	for range 64 { // much more than is read, before we read a byte
		send(t, c, string(pattern(32<<10)))
	}
	settle(g)
	expect(t, c, words)
	expectEOF(t, c) // EOF, not ECONNRESET
	send(t, c, "still here")
	settle(g)
	if len(ends) != 0 {
		t.Fatalf("closed with %v before the peer's FIN", (<-ends).cause)
	}
	c.Close()
	awaitCause(t, ends, CauseLocal)
	if len(calls) != 0 {
		t.Error("Data was called after Finish")
	}
}

func TestLingeringEndsAfterLingerTimeout(t *testing.T) {
	ends := newEnds()
	const timeout = 100 * time.Millisecond
	began := make(chan time.Time, 1)
	_, addr := serve(t, Config{LingerTimeout: timeout}, script{ends: ends, opened: func(l *Loop, c Slot, _ uint32) {
		began <- time.Now()
		l.SetDeadline(c, time.Hour)
		l.Finish(c, true)
		l.SetDeadline(c, time.Hour) // the deadline of Finish stands
		l.Finish(c, false)          // and the first Finish
	}})
	c := dial(t, addr)
	expectEOF(t, c)
	awaitCause(t, ends, CauseLocal)
	if d := time.Since(await(t, began)); d < timeout || d > timeout+time.Second {
		t.Errorf("lingered for %v, want %v", d, timeout)
	}
}

func TestFinishWithoutLingerClosesAfterTheLastByte(t *testing.T) {
	ends := newEnds()
	words := string(pattern(12 << 20))
	g, addr := serve(t, Config{MaxPending: 32 << 20}, script{ends: ends, data: func(l *Loop, c Slot, in []byte) int {
		l.Write(c, []byte(words))
		l.Finish(c, false)
		return len(in)
	}})
	c := dial(t, addr)
	send(t, c, "x")
	settle(g)
	if len(ends) != 0 {
		t.Fatalf("closed with %v while bytes wait", (<-ends).cause)
	}
	expect(t, c, words)
	awaitCause(t, ends, CauseLocal) // though the peer has sent no FIN
	expectEOF(t, c)
}

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

func TestAConnectionMayBeClosedWithinEveryCallback(t *testing.T) {
	for _, where := range []string{"Opened", "Data", "EOF", "Drained", "Expired"} {
		for _, how := range []string{"Close", "Finish", "Detach"} {
			t.Run(how+" in "+where, func(t *testing.T) {
				ends := newEnds()
				over := make(chan bool, 2)
				leave := func(at string) func(l *Loop, c Slot) {
					return func(l *Loop, c Slot) {
						if at != where {
							return
						}
						switch how {
						case "Close":
							l.Write(c, []byte("dropped"))
							l.Close(c)
						case "Finish":
							l.Finish(c, false)
						case "Detach":
							unix.Close(l.Detach(c))
						}
						// Nothing of this may reach the next in the slot.
						useless(l, c)
						over <- true
					}
				}
				g, addr := serve(t, Config{MaxPending: 64 << 20}, script{
					ends: ends,
					opened: func(l *Loop, c Slot, tag uint32) {
						if where == "Expired" {
							l.SetDeadline(c, time.Millisecond)
						}
						leave("Opened")(l, c)
					},
					data: func(l *Loop, c Slot, in []byte) int {
						if where == "Drained" {
							l.Write(c, make([]byte, 12<<20))
						}
						leave("Data")(l, c)
						return 0
					},
					eof:     leave("EOF"),
					drained: leave("Drained"),
					expired: leave("Expired"),
				})
				c := dial(t, addr)
				switch where {
				case "Data", "Drained":
					send(t, c, "x")
				case "EOF":
					if err := c.CloseWrite(); err != nil {
						t.Fatal(err)
					}
				}
				if where == "Drained" { // else the kernel might take it all, and nothing would ever drain
					until(t, "bytes to wait", func() (wait bool) {
						g.Do(func(l *Loop) { l.Each(func(c Slot) { wait = wait || l.Pending(c) > 0 }) })
						return wait
					})
				}
				go io.Copy(io.Discard, c)
				await(t, over)
				if how != "Detach" {
					awaitCause(t, ends, CauseLocal)
				}
				settle(g)
				if st := g.Stats(); st.Open != 0 || len(ends) != 0 || len(over) != 0 {
					t.Errorf("%d open, %d more ends, %d more calls", st.Open, len(ends), len(over))
				}
				g.Do(func(l *Loop) { checkWheel(t, l) })
				if n := g.Budget().Used(); n != 0 {
					t.Errorf("%d bytes of the budget are used at the end", n)
				}
			})
		}
	}
}

// useless calls everything there is for a connection that has ended, or that
// is being told Closed.
func useless(l *Loop, c Slot) {
	l.Write(c, []byte("dropped"))
	l.Write(c, make([]byte, 2*outScratch))
	l.SetOut(append(l.Out(c), "dropped"...))
	l.Direct(c, []byte("dropped"))
	l.Flush(c)
	l.Pause(c)
	l.Resume(c)
	l.SetDeadline(c, time.Millisecond)
	l.Peer(c)
	l.Pending(c)
	l.Finish(c, true)
	l.Close(c)
	if fd := l.Detach(c); fd >= 0 {
		panic(fmt.Sprint("detached descriptor ", fd, " of a connection that has ended"))
	}
	l.Write(c, []byte("dropped"))
}

func TestClosedMayCallAnythingAndIsCalledOnce(t *testing.T) {
	ends := newEnds()
	g, addr := serve(t, Config{}, script{ends: ends, closed: func(l *Loop, c Slot, _ Cause, _ unix.Errno) {
		if id := l.ID(c); id.slot() != c {
			t.Errorf("the ID in Closed is %x", uint64(id))
		}
		useless(l, c)
		l.Each(func(o Slot) { l.Direct(o, []byte("somebody left\n")) })
		l.Each(func(o Slot) { l.Write(o, []byte("really\n")) })
	}})
	stays := dial(t, addr)
	talk(t, stays, "hello")
	for i := range 20 {
		c := dial(t, addr)
		talk(t, c, "x")
		if i%2 == 0 {
			if err := c.SetLinger(0); err != nil {
				t.Fatal(err)
			}
		}
		c.Close()
		await(t, ends)
		expect(t, stays, "somebody left\nreally\n")
	}
	talk(t, stays, "still here")
	settle(g)
	st := g.Stats()
	sum := uint64(0)
	for _, n := range st.Closed {
		sum += n
	}
	if sum != 20 || st.Open != 1 || len(ends) != 0 {
		t.Errorf("%d ends counted, %d open, %d told too often; want 20, 1, 0", sum, st.Open, len(ends))
	}
	g.Do(func(l *Loop) { checkWheel(t, l) })
}

func TestADetachedDescriptorWorksAndTheLoopForgetsIt(t *testing.T) {
	ends := newEnds()
	type detached struct {
		fd int
		in string
		id ID
	}
	out := make(chan detached, 1)
	g, addr := serve(t, Config{}, script{ends: ends, data: func(l *Loop, c Slot, in []byte) int {
		if len(in) < 4 {
			return 1 // part of it is carried when the rest comes
		}
		id := l.ID(c)
		s := string(in)
		l.SetDeadline(c, time.Millisecond)
		out <- detached{l.Detach(c), s, id}
		return 0
	}})
	c := dial(t, addr)
	send(t, c, "abc")
	until(t, "a carry", func() bool { return g.Budget().Used() > 0 })
	send(t, c, "defg")
	d := await(t, out)
	if d.in != "bcdefg" {
		t.Errorf("it was detached with %q", d.in)
	}
	f := os.NewFile(uintptr(d.fd), "")
	nc, err := net.FileConn(f)
	if err != nil {
		t.Fatal(err)
	}
	f.Close()
	defer nc.Close()
	send(t, nc, "from outside")
	expect(t, c, "from outside")
	send(t, c, "to outside")
	expect(t, nc, "to outside")
	settle(g)
	g.Do(func(l *Loop) {
		if _, ok := l.Find(d.id); ok || l.Len() != 0 || l.wheel.count != 0 {
			t.Errorf("found: %v; %d connections, %d timers", ok, l.Len(), l.wheel.count)
		}
	})
	if len(ends) != 0 || g.Budget().Used() != 0 {
		t.Errorf("Closed called %d times, %d bytes used", len(ends), g.Budget().Used())
	}
}

// pipe is a connected pair of TCP sockets: a descriptor to Add and its peer.
func pipe(t *testing.T) (fd int, peer *net.TCPConn) {
	t.Helper()
	ln, err := net.ListenTCP("tcp", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	peer = dial(t, ln.Addr().String())
	c, err := ln.AcceptTCP()
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	rc, err := c.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	if err := rc.Control(func(raw uintptr) { fd, err = unix.FcntlInt(raw, unix.F_DUPFD_CLOEXEC, 0) }); err != nil || fd < 0 {
		t.Fatal(err)
	}
	return fd, peer
}

func TestBytesThatWereReadBeforeAddAreShownFirst(t *testing.T) {
	type seen struct{ what, in string }
	calls := make(chan seen, 100)
	g, _ := serve(t, Config{}, script{
		opened: func(_ *Loop, _ Slot, tag uint32) { calls <- seen{what: fmt.Sprint("opened ", tag)} },
		data: func(l *Loop, c Slot, in []byte) int {
			calls <- seen{"data", string(in)}
			l.Write(c, in)
			return len(in)
		},
		eof: func(*Loop, Slot) { calls <- seen{what: "eof"} },
	})
	for _, rest := range []string{"", " and the rest"} {
		for _, fin := range []bool{false, true} {
			fd, peer := pipe(t)
			send(t, peer, rest)
			if fin {
				if err := peer.CloseWrite(); err != nil {
					t.Fatal(err)
				}
			}
			g.Do(func(l *Loop) {
				if err := l.Add(fd, 7, []byte("the first")); err != nil {
					t.Error(err)
				}
			})
			if s := await(t, calls); s.what != "opened 7" {
				t.Fatalf("the first call was %+v", s)
			}
			want := "the first" + rest
			expect(t, peer, want)
			if fin {
				expectEOF(t, peer)
			}
			peer.Close()
			var all strings.Builder
			for s := await(t, calls); s.what != "eof"; s = await(t, calls) {
				all.WriteString(s.in)
			}
			if all.String() != want {
				t.Errorf("Data saw %q before EOF, want %q", all.String(), want)
			}
		}
	}
}

func TestAddOwnsTheDescriptorAlsoWhenItFails(t *testing.T) {
	cfg := Config{Budget: NewBudget(1 << 20)}
	g, _ := serve(t, cfg, script{opened: func(*Loop, Slot, uint32) { t.Error("Opened was called") }})
	file := func() int {
		fd, err := unix.Open("/proc/self/exe", unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		return fd
	}
	sock := func() int { fd, _ := pipe(t); return fd }
	for _, test := range []struct {
		name  string
		fd    int
		first int
		taken int // of the budget
	}{
		{"more than MaxCarry", sock(), 128<<10 + 1, 0},
		{"more than the budget", sock(), 2048, 1<<20 - 2047},
		{"not a socket", file(), 0, 0},
		{"not a descriptor", 1 << 30, 0, 0},
	} {
		g.Do(func(l *Loop) {
			cfg.Budget.Reserve(test.taken)
			defer cfg.Budget.Release(test.taken)
			if err := l.Add(test.fd, 0, make([]byte, test.first)); err == nil {
				t.Errorf("%s: added", test.name)
			} else if _, e := unix.FcntlInt(uintptr(test.fd), unix.F_GETFD, 0); e != unix.EBADF {
				t.Errorf("%s: the descriptor is still open (%v)", test.name, e)
			}
			if l.Len() != 0 || cfg.Budget.Used() != int64(test.taken) {
				t.Errorf("%s: %d connections, %d bytes used", test.name, l.Len(), cfg.Budget.Used())
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

func TestDeadlinesSetInCallbacksFireInTime(t *testing.T) {
	const d = 60 * time.Millisecond
	n := 0
	began := time.Now()
	_, addr := serve(t, Config{}, script{
		opened: func(l *Loop, c Slot, _ uint32) { l.SetDeadline(c, d) },
		expired: func(l *Loop, c Slot) {
			l.Write(c, []byte("tick\n"))
			if n++; n < 3 {
				l.SetDeadline(c, d)
				return
			}
			l.SetDeadline(c, time.Nanosecond)
			l.SetDeadline(c, 0)
		},
		data: func(l *Loop, c Slot, in []byte) int {
			l.SetDeadline(c, time.Nanosecond)
			return len(in)
		},
	})
	c := dial(t, addr)
	for i := range 3 {
		expect(t, c, "tick\n")
		if got := time.Since(began); got < time.Duration(i+1)*d {
			t.Errorf("tick %d came after %v", i+1, got)
		}
	}
	send(t, c, "x")
	expect(t, c, "tick\n")
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
