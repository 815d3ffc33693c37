package epoll

import (
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestDoRunsOnceOnEveryLoop(t *testing.T) {
	g, _ := serve(t, Config{Loops: 3}, script{})
	if len(g.Loops()) != 3 {
		t.Fatalf("%d loops", len(g.Loops()))
	}
	var mu sync.Mutex
	ran := map[int]int{}
	g.Do(func(l *Loop) {
		mu.Lock()
		defer mu.Unlock()
		ran[l.Index()]++
		if g.Loops()[l.Index()] != l {
			t.Errorf("loop %d is not the one at its Index", l.Index())
		}
	})
	if fmt.Sprint(ran) != "map[0:1 1:1 2:1]" {
		t.Errorf("Do ran %v", ran)
	}
}

func TestReadSeesLoopsThatHaveEndedAndDoLeavesThemOut(t *testing.T) {
	g, addr := serve(t, Config{Loops: 3}, script{})
	for range 5 {
		talk(t, dial(t, addr), "hello")
	}
	looked := func(through func(func(*Loop))) (n int) {
		var mu sync.Mutex
		through(func(*Loop) {
			mu.Lock()
			defer mu.Unlock()
			n++
		})
		return n
	}
	if do, read := looked(g.Do), looked(g.Read); do != 3 || read != 3 {
		t.Errorf("of 3 loops Do ran on %d and Read on %d", do, read)
	}
	// What is asked all the time while they end never goes back, and comes to an end.
	asked := make(chan bool)
	go func() {
		defer close(asked)
		for st := (Stats{}); st.Closed[CauseLocal] < 5; {
			now := g.Stats()
			if now.Accepted < st.Accepted || now.Waits < st.Waits || now.Closed[CauseLocal] < st.Closed[CauseLocal] {
				t.Errorf("%+v, and then %+v", st, now)
				return
			}
			st = now
		}
	}()
	g.Stop()
	await(t, asked)
	if do, read := looked(g.Do), looked(g.Read); do != 0 || read != 3 {
		t.Errorf("of 3 loops that have ended Do ran on %d and Read on %d", do, read)
	}
	if st := g.Stats(); st.Open != 0 || st.Accepted != 5 || st.Closed[CauseLocal] != 5 {
		t.Errorf("%+v", st)
	}
}

func TestStopEndsEveryConnectionAndTellsTheHandler(t *testing.T) {
	ends := newEnds()
	g, addr := serve(t, Config{Loops: 2}, script{ends: ends})
	var cs []*net.TCPConn
	for range 40 {
		c := dial(t, addr)
		talk(t, c, "hello")
		cs = append(cs, c)
	}
	g.Stop()
	if len(ends) != 40 {
		t.Errorf("%d connections were told Closed, want 40", len(ends))
	}
	for range len(ends) {
		awaitCause(t, ends, CauseLocal)
	}
	for _, c := range cs {
		expectEOF(t, c)
	}
	if _, err := net.Dial("tcp", addr); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("after Stop dialing gives %v", err)
	}
}

func TestAHandlerThatDialsAgainInClosedDoesNotOutliveStop(t *testing.T) {
	target, err := net.ListenTCP("tcp", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer target.Close()
	refused := 0
	dialed := make(chan bool, 1000)
	again := func(l *Loop) {
		if _, err := l.Dial(target.Addr().(*net.TCPAddr), nil, 0, time.Second); errors.Is(err, syscall.ESHUTDOWN) {
			refused++
		} else if err != nil {
			t.Error(err)
		}
	}
	g, _ := serve(t, Config{}, script{
		opened: func(*Loop, Slot, uint32) { dialed <- true },
		closed: func(l *Loop, _ Slot, _ Cause, _ unix.Errno) { again(l) },
	})
	g.Do(func(l *Loop) {
		for range 10 {
			again(l)
		}
	})
	for range 10 {
		await(t, dialed)
	}
	g.Stop() // noLeak sees what is left
	if refused != 10 {
		t.Errorf("%d dials were refused while stopping, want 10", refused)
	}
}

func TestStatsCountConnectionsAndTheirEnds(t *testing.T) {
	ends := newEnds()
	g, addr := serve(t, Config{Loops: 2}, script{ends: ends})
	var cs []*net.TCPConn
	for range 10 {
		c := dial(t, addr)
		talk(t, c, "hello")
		cs = append(cs, c)
	}
	for i, c := range cs[:5] {
		if i < 2 {
			if err := c.SetLinger(0); err != nil {
				t.Fatal(err)
			}
		}
		c.Close()
		await(t, ends)
	}
	st := g.Stats()
	if st.Open != 5 || st.Accepted != 10 || st.Closed[CauseReset] != 2 || st.Closed[CauseEOF] != 3 || st.Starved != 0 || st.Events < 10 || st.Waits == 0 {
		t.Errorf("%+v", st)
	}
}

func TestEchoSendsEverythingBack(t *testing.T) {
	noLeak(t)
	g, err := NewGroup(Config{Loops: 2}, func(l *Loop) Handler { return Echo{l} })
	if err != nil {
		t.Fatal(err)
	}
	g.Start()
	defer g.Stop()
	addr, err := g.Listen("127.0.0.1:0", 0)
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	for i := range 8 {
		c := dial(t, addr.String())
		all := pattern(256 << 10)[i:]
		wg.Go(func() {
			if _, err := c.Write(all); err != nil {
				t.Error(err)
			}
			if err := c.CloseWrite(); err != nil {
				t.Error(err)
			}
		})
		wg.Go(func() {
			back, err := io.ReadAll(c)
			if err != nil || string(back) != string(all) {
				t.Errorf("%d of %d bytes came back: %v", len(back), len(all), err)
			}
		})
	}
	wg.Wait()
}

func TestManyConnectionsComeAndGoOnSeveralLoops(t *testing.T) {
	ends := newEnds()
	g, addr := serve(t, Config{Loops: 3}, script{ends: ends})
	var wg sync.WaitGroup
	const clients, rounds = 16, 30
	for i := range clients {
		wg.Go(func() {
			for r := range rounds {
				c, err := net.Dial("tcp", addr)
				if err != nil {
					t.Error(err)
					return
				}
				msg := fmt.Sprintf("client %d round %d", i, r)
				b := make([]byte, len(msg))
				c.SetDeadline(time.Now().Add(patience))
				io.WriteString(c, msg)
				if _, err := io.ReadFull(c, b); err != nil || string(b) != msg {
					t.Errorf("%q came back for %q: %v", b, msg, err)
				}
				if r%3 == 0 {
					c.(*net.TCPConn).SetLinger(0)
				}
				c.Close()
			}
		})
	}
	wg.Wait()
	for range clients * rounds {
		await(t, ends)
	}
	if st := g.Stats(); st.Open != 0 || st.Accepted != clients*rounds || g.Budget().Used() != 0 {
		t.Errorf("%+v, %d bytes used", st, g.Budget().Used())
	}
}
