package epoll

import (
	"errors"
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestWordsToTwoConnectionsInOneCallbackStayApartAndInOrder(t *testing.T) {
	l := stillLoop(t, Config{}, script{})
	a, peerA := couple(t, l)
	b, peerB := couple(t, l)
	big := string(pattern(throughMin))
	var wantA, wantB string
	say := func(c Slot, s string, how func(Slot, string)) {
		how(c, s)
		if c == a {
			wantA += s
		} else {
			wantB += s
		}
	}
	write := func(c Slot, s string) { l.Write(c, []byte(s)) }
	direct := func(c Slot, s string) { l.Direct(c, []byte(s)) }
	out := func(c Slot, s string) { l.SetOut(append(l.Out(c), s...)) }
	n := 0
	for _, first := range []func(Slot, string){write, direct, out} {
		for _, second := range []func(Slot, string){write, direct, out} {
			for _, s := range []string{"1", "22", big, "333"} {
				n++
				say(a, s, first)
				say(b, s+"b", second)
				say(a, "x", second)
				say(a, s, first)
				if n%5 == 0 {
					l.Flush(a)
				}
				if n%7 == 0 {
					l.Flush(b)
				}
			}
		}
	}
	l.flush()
	same(t, []byte(got(t, peerA)), []byte(wantA))
	same(t, []byte(got(t, peerB)), []byte(wantB))
}

func TestTheScratchIsSentWhenTheHandlerReturnsWhoeverItWasFor(t *testing.T) {
	// The last word of a handler that closes its own connection is for another
	// one; nothing else happens on the loop afterwards.
	for _, how := range []string{"Close in Data", "Close in Data of what was left", "Detach in Data", "Closed after EOF", "Closed after reset", "Closed after Finish"} {
		t.Run(how, func(t *testing.T) {
			ends := newEnds()
			var other ID
			tell := func(l *Loop) {
				if c, ok := l.Find(other); ok {
					l.Write(c, []byte("farewell"))
				}
			}
			_, addr := serve(t, Config{}, script{
				ends: ends,
				opened: func(l *Loop, c Slot, _ uint32) {
					if other == 0 {
						other = l.ID(c)
					}
				},
				data: func(l *Loop, c Slot, in []byte) int {
					switch {
					case string(in) == "hello":
						l.Write(c, in)
					case how == "Close in Data of what was left" && !l.Held(c) && len(in) > 1:
						l.Pause(c)
						id := l.ID(c)
						l.Post(func() {
							if c, ok := l.Find(id); ok {
								l.Resume(c)
							}
						})
						return 1
					case how == "Close in Data", how == "Close in Data of what was left":
						tell(l)
						l.Close(c)
					case how == "Detach in Data":
						tell(l)
						unix.Close(l.Detach(c))
					case how == "Closed after Finish":
						l.Finish(c, true)
					}
					return len(in)
				},
				closed: func(l *Loop, _ Slot, _ Cause, _ unix.Errno) {
					if strings.HasPrefix(how, "Closed") {
						tell(l)
					}
				},
			})
			stays := dial(t, addr)
			talk(t, stays, "hello")
			c := dial(t, addr)
			send(t, c, "xy")
			switch how {
			case "Closed after Finish":
				expectEOF(t, c)
				c.Close()
			case "Closed after EOF":
				c.Close()
			case "Closed after reset":
				if err := c.SetLinger(0); err != nil {
					t.Fatal(err)
				}
				c.Close()
			}
			expect(t, stays, "farewell")
		})
	}
}

func TestWordsOfClosedDoNotReachTheConnectionThatIsWrittenToNext(t *testing.T) {
	var broken, friend, next Slot
	l := stillLoop(t, Config{}, script{closed: func(l *Loop, c Slot, cause Cause, _ unix.Errno) {
		if c == broken {
			if cause != CauseReset {
				t.Errorf("the cause is %v", cause)
			}
			l.Write(friend, []byte("it left"))
		}
	}})
	var brokenPeer, friendPeer, nextPeer int
	broken, brokenPeer = couple(t, l)
	friend, friendPeer = couple(t, l)
	next, nextPeer = couple(t, l)
	if err := unix.Shutdown(brokenPeer, unix.SHUT_RD); err != nil { // writing to it gives EPIPE
		t.Fatal(err)
	}
	l.Write(broken, []byte("into the void"))
	l.Write(next, []byte("for the next")) // flushes the scratch, which finds out
	l.flush()
	if s := got(t, friendPeer); s != "it left" {
		t.Errorf("the friend got %q", s)
	}
	if s := got(t, nextPeer); s != "for the next" {
		t.Errorf("the next got %q", s)
	}
	if l.Len() != 2 {
		t.Errorf("%d connections, want 2", l.Len())
	}
}

func TestWordsToAConnectionThatHasEndedDoNotReachTheNextInItsSlot(t *testing.T) {
	l := stillLoop(t, Config{}, script{})
	c, _ := couple(t, l)
	l.Close(c)
	l.Write(c, []byte("for the dead")) // as a handler does that did not notice
	again, peer := couple(t, l)
	if again != c {
		t.Fatalf("slot %d was not used again, but %d", c, again)
	}
	l.Write(again, []byte("for the living"))
	l.flush()
	if s := got(t, peer); s != "for the living" {
		t.Errorf("the new connection got %q", s)
	}
}

func TestNothingFollowsFinish(t *testing.T) {
	for _, linger := range []bool{false, true} {
		l := stillLoop(t, Config{MaxPending: 64 << 20}, script{})
		c, peer := couple(t, l)
		l.Write(c, []byte("one "))
		l.Direct(c, []byte("two "))
		l.Write(c, make([]byte, 4<<20)) // waits, so that the connection is still open
		l.Write(c, []byte("three"))
		l.Finish(c, linger)
		waiting := l.Pending(c)
		if waiting == 0 {
			t.Fatal("nothing waits: Finish was not tried")
		}
		l.Write(c, []byte("late"))
		l.Direct(c, []byte("late"))
		l.SetOut(append(l.Out(c), "late"...))
		l.flush()
		if l.Pending(c) != waiting {
			t.Errorf("%d bytes wait after Finish, %d before", l.Pending(c), waiting)
		}
		var all strings.Builder
		for {
			s := got(t, peer)
			if s == "" {
				break
			}
			all.WriteString(s)
			poll(l)
		}
		if want := "one two " + string(make([]byte, 4<<20)) + "three"; all.String() != want {
			t.Errorf("linger %v: %d bytes came, ending in %q, want %d", linger, len(all.String()), all.String()[len(all.String())-5:], len(want))
		}
		if open := map[bool]int{false: 0, true: 1}[linger]; l.Len() != open {
			t.Errorf("linger %v: %d connections at the end, want %d", linger, l.Len(), open)
		}
	}
}

func TestTheScratchDoesNotStayLarge(t *testing.T) {
	l := stillLoop(t, Config{MaxPending: 64 << 20}, script{})
	c, peer := couple(t, l)
	l.SetOut(append(l.Out(c), make([]byte, 8*outScratch)...)) // flushed at once
	if len(l.out) != 0 || l.outOf != 0 || cap(l.out) > 4*outScratch {
		t.Errorf("%d bytes in a scratch of %d for slot %d", len(l.out), cap(l.out), l.outOf)
	}
	n := 0
	for s := got(t, peer); s != ""; s = got(t, peer) {
		n += len(s)
		poll(l)
	}
	if n != 8*outScratch {
		t.Errorf("%d bytes came, want %d", n, 8*outScratch)
	}
}

// TestWhatTheSocketDoesNotTakeIsKeptByteForByte has the peer read in all
// kinds of portions, so that writes end within the scratch and behind it.
func TestWhatTheSocketDoesNotTakeIsKeptByteForByte(t *testing.T) {
	var order []string
	l := stillLoop(t, Config{MaxPending: 64 << 20, Congested: 64 << 10}, script{drained: func(l *Loop, c Slot) {
		order = append(order, "drained")
		l.Write(c, []byte("!"))
	}})
	c, peer := couple(t, l)
	if err := unix.SetsockoptInt(l.Fd(c), unix.SOL_SOCKET, unix.SO_SNDBUF, 8<<10); err != nil {
		t.Fatal(err)
	}
	all := pattern(1 << 20)
	var want, back []byte
	b := make([]byte, 100_000)
	for i, at := 0, 0; at < len(all); i++ {
		n := min([]int{1, 100, throughMin - 1, throughMin, 30_000, outScratch + 1}[i%6], len(all)-at)
		small := all[at:min(at+50, len(all))]
		l.Write(c, small)
		l.Write(c, all[at:at+n])
		want = append(append(want, small...), all[at:at+n]...)
		at += n
		l.flush()
		if i%3 == 0 {
			m, _ := unix.Read(peer, b[:1+i*997%len(b)])
			back = append(back, b[:max(m, 0)]...)
			poll(l)
		}
	}
	if order != nil || !l.Held(c) || l.bufs.budget.Used() == 0 {
		t.Errorf("%v before everything is sent; held: %v, %d bytes used", order, l.Held(c), l.bufs.budget.Used())
	}
	for s := got(t, peer); s != ""; s = got(t, peer) {
		back = append(back, s...)
		poll(l)
	}
	same(t, back, append(want, '!'))
	if !slices.Equal(order, []string{"drained"}) || l.Held(c) || l.Pending(c) != 0 || l.bufs.budget.Used() != 0 {
		t.Errorf("%v at the end; held: %v, %d wait, %d bytes used", order, l.Held(c), l.Pending(c), l.bufs.budget.Used())
	}
}

func TestAHangupIsNoticedThoughNobodyReads(t *testing.T) {
	ends := newEnds()
	l := stillLoop(t, Config{}, script{ends: ends})
	c, peer := couple(t, l)
	l.Pause(c)
	poll(l)
	unix.Close(peer)
	poll(l)
	awaitCause(t, ends, CauseLocal)
	if l.Len() != 0 {
		t.Error("it is still open")
	}
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
