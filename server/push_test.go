package server

import (
	"context"
	"net"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"wspoll/epoll"

	"github.com/gobwas/ws"
)

// withBeat is a server with a heart beat at /push.
func withBeat(t *testing.T, cfg Config, h HeartBeat) *testServer {
	t.Helper()
	s, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	ep, err := s.HeartBeat(h)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Handle("/push", ep); err != nil {
		t.Fatal(err)
	}
	s.Handle("/echo", Echo())
	return started(t, s)
}

func TestHeartBeatComesAtOnceAndThenInThePhaseOfEachConnection(t *testing.T) {
	const every = 200 * time.Millisecond
	s := withBeat(t, Config{Loops: 2, IdleTimeout: -1}, HeartBeat{Every: every})
	var clients []*client
	var opened []time.Time
	for i := range 4 {
		if i > 0 {
			time.Sleep(every / 4) // so that their phases differ
		}
		opened = append(opened, time.Now())
		clients = append(clients, s.open(t, "/push"))
	}
	for i, c := range clients {
		began := opened[i]
		for n := range 6 {
			c.hears("heart beat")
			if n < 4 && i < 3 {
				continue // it was read late, after those of others
			}
			// Never early, and at most two ticks late; the rest is for a busy machine.
			if at, due := time.Since(began), time.Duration(n)*every; at < due-5*time.Millisecond {
				t.Errorf("client %d: beat %d came after %v, due %v", i, n, at, due)
			}
		}
	}
}

// The mean distance of beats is the period, whatever the ticks of the loop are.
func TestHeartBeatDoesNotDrift(t *testing.T) {
	const every, n = 70 * time.Millisecond, 15
	s := withBeat(t, Config{}, HeartBeat{Every: every, Message: "tick"})
	c := s.open(t, "/push")
	c.hears("tick")
	began := time.Now()
	for range n {
		c.hears("tick")
	}
	if d := time.Since(began); d < n*every-epoll.Tick || d > n*every+10*epoll.Tick {
		t.Errorf("%d beats took %v, want %v", n, d, n*every)
	}
}

func TestAlignedHeartBeatsComeToAllAtOnce(t *testing.T) {
	const every = 250 * time.Millisecond
	s := withBeat(t, Config{Loops: 3}, HeartBeat{Every: every, Message: "all", Align: true})
	var clients []*client
	for range 12 {
		clients = append(clients, s.open(t, "/push"))
	}
	arrived := make(chan time.Time, 100)
	for range 4 {
		for _, c := range clients {
			go func() {
				if f, err := c.next(); err == nil && string(f.payload) == "all" {
					arrived <- time.Now()
				}
			}()
		}
		var times []time.Time
		for range clients {
			times = append(times, receive(t, "a beat", arrived))
		}
		slices.SortFunc(times, time.Time.Compare)
		if spread := times[len(times)-1].Sub(times[0]); spread > every/2 {
			t.Errorf("they came within %v", spread)
		}
	}
	if list := s.Topics().List(); len(list) != 0 {
		t.Errorf("the topic of the heart beat is listed: %+v", list)
	}
}

// The one deadline of a connection serves the beats and the look at its silence.
func TestHeartBeatsAndIdleTimeoutLiveTogether(t *testing.T) {
	for _, every := range []time.Duration{100 * time.Millisecond, time.Hour} {
		t.Run(every.String(), func(t *testing.T) {
			s := withBeat(t, Config{IdleTimeout: 600 * time.Millisecond}, HeartBeat{Every: every})
			c := s.open(t, "/push")
			began := time.Now()
			beats, pings := 0, 0
			for time.Since(began) < 1500*time.Millisecond || beats == 0 {
				switch f := c.frame(); f.op {
				case ws.OpText:
					beats++
				case ws.OpPing:
					pings++
					c.send(ws.OpPong, nil)
				default:
					t.Fatalf("%+v", f)
				}
			}
			if want := 1 + int(1200*time.Millisecond/every); beats < want || pings < 3 {
				t.Errorf("%d beats and %d pings, want at least %d and 3", beats, pings, want)
			}
			for silent := time.Now(); ; {
				if f := c.frame(); f.op == ws.OpClose {
					if d := time.Since(silent); d < 400*time.Millisecond {
						t.Errorf("closed after only %v of silence", d)
					}
					break
				}
			}
		})
	}
}

func TestReaderThatTakesNoBeatsDoesNotPileThemUp(t *testing.T) {
	s := withBeat(t, Config{WriteTimeout: time.Minute}, HeartBeat{Every: 50 * time.Millisecond, Message: strings.Repeat("x", 900_000)})
	c := s.dial(t)
	c.SetReadBuffer(16 << 10)
	join(t, c, hello("/push"), nil)
	eventually(t, "beats are left out", func() bool { return s.Stats().Dropped[DropBeat] >= 3 })
	if b := s.Stats().Buffered; b > 1<<20 {
		t.Errorf("%d bytes wait", b)
	}
}

func TestWhatClientsSendToThePushIsDropped(t *testing.T) {
	s := withBeat(t, Config{}, HeartBeat{Every: 100 * time.Millisecond})
	c := s.open(t, "/push")
	c.hears("heart beat")
	c.send(ws.OpText, []byte("hello"))
	c.send(ws.OpPing, []byte("p"))
	for {
		if f := c.frame(); f.op == ws.OpPong {
			break
		}
	}
	c.hears("heart beat")
	c.close(1000)
	c.wantClose(1000)
}

func TestHeartBeatThatCannotBeIsRefused(t *testing.T) {
	s, err := New(Config{})
	if err != nil {
		t.Fatal(err)
	}
	for _, h := range []HeartBeat{
		{Every: time.Millisecond}, {Every: -time.Second}, {Every: 25 * time.Hour}, {Message: "\xff"}, {Message: strings.Repeat("x", 2<<20)},
	} {
		if _, err := s.HeartBeat(h); err == nil {
			t.Errorf("every %v, %d bytes: is taken", h.Every, len(h.Message))
		}
	}
	s.Start()
	if _, err := s.HeartBeat(HeartBeat{}); err == nil {
		t.Error("one after Start is taken")
	}
	s.Shutdown(context.Background())
}

// A client with beats has no goroutine and no buffer.
func TestHeartBeatsCostNoGoroutineEach(t *testing.T) {
	s := withBeat(t, Config{}, HeartBeat{Every: 300 * time.Millisecond})
	var conns []net.Conn
	for range 300 {
		conns = append(conns, s.open(t, "/push").conn)
	}
	before, goroutines := s.Stats().FramesOut, runtime.NumGoroutine()
	eventually(t, "all have a second beat", func() bool { return s.Stats().FramesOut >= before+300 })
	if st, n := s.Stats(), runtime.NumGoroutine(); st.Buffered != 0 || st.WebSockets != len(conns) || n > goroutines || n > 100 {
		t.Errorf("%d goroutines, %+v", n, st)
	}
	s.group.Do(func(l *epoll.Loop) {
		if sh := s.shards[l.Index()]; len(sh.values)+len(sh.several)+len(sh.groups) != 0 {
			t.Error("something is kept for them")
		}
	})
}
