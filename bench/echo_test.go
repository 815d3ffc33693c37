package bench

import (
	"bytes"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"wspoll/epoll"

	"github.com/gobwas/ws"
)

// bareEcho is a plain TCP echo.
func bareEcho(t *testing.T) string {
	t.Helper()
	g, err := epoll.NewGroup(epoll.Config{}, func(l *epoll.Loop) epoll.Handler { return epoll.Echo{Loop: l} })
	if err != nil {
		t.Fatal(err)
	}
	addr, err := g.Listen("127.0.0.1:0", 0)
	if err != nil {
		t.Fatal(err)
	}
	g.Start()
	t.Cleanup(g.Stop)
	return "tcp://" + addr.String()
}

func TestEchoCountsAreTheServersForEverySizeAndDepth(t *testing.T) {
	payload := []byte("a payload of a file, with ümlauts")
	for _, size := range [][2]int{{0, 0}, {1, 1}, {7, 7}, {8, 8}, {125, 125}, {126, 126}, {65535, 65535}, {65536, 65536}, {1 << 20, 1 << 20}, {0, 40}, {8, 300}, {100, 70_000}, {-1, 0}} {
		for _, depth := range []int{1, 16} {
			for _, text := range []bool{depth > 1} {
				t.Run(fmt.Sprintf("%d to %d bytes, depth %d, text %t", size[0], size[1], depth, text), func(t *testing.T) {
					srv, url := honest(t)
					o := Options{Scenario: "echo", Duration: time.Minute, Messages: 203, Config: Config{
						Targets: targets(t, url), Connections: 5, SizeMin: size[0], SizeMax: size[1], Depth: depth, Text: text, Limit: 203,
					}}
					if size[0] < 0 {
						o.SizeMin, o.Payload = 0, payload
					} else if size[0] > 1<<18 {
						o.Messages, o.Limit = 43, 43
					}
					r := measured(t, o)
					st := srv.Stats()
					if r.Messages != o.Limit || r.Sent != o.Limit || st.MessagesIn != o.Limit || r.InFlight != 0 || uint64(r.Message.Count()) != o.Limit {
						t.Errorf("%d sent, %d back, %d measured; the server has %d; want %d", r.Sent, r.Messages, r.Message.Count(), st.MessagesIn, o.Limit)
					}
					if r.BytesSent != st.BytesIn || r.BytesBack != st.BytesIn {
						t.Errorf("%d bytes sent, %d back; the server has %d", r.BytesSent, r.BytesBack, st.BytesIn)
					}
					if r.Opened != 5 || st.Upgraded != 5 || r.Connect.Count() != 5 || r.Upgrade.Count() != 5 {
						t.Errorf("%d opened; the server has %d", r.Opened, st.Upgraded)
					}
					if len(r.Errors) > 0 || r.Interrupted {
						t.Errorf("%+v", r.Errors)
					}
				})
			}
		}
	}
}

func TestSeveralTargetsShareTheConnections(t *testing.T) {
	srv1, url1 := honest(t)
	srv2, url2 := honest(t)
	for _, rate := range []float64{0, 5000} {
		r := measured(t, Options{Scenario: "echo", Duration: 300 * time.Millisecond, Server: Process(os.Getpid()), Config: Config{
			Targets: targets(t, url1, bareEcho(t), url2), Connections: 9, SizeMin: 16, SizeMax: 100, Depth: 3, Rate: rate,
		}})
		if len(r.Errors) > 0 || r.Opened != 9 || r.Messages == 0 || len(r.URLs) != 3 {
			t.Errorf("%+v", r)
		}
		me := Usage{PID: os.Getpid()}
		for _, u := range []*Usage{&r.Client, r.Server} {
			if u == nil || u.PID != me.PID || u.CPUSeconds <= 0 || u.CPUPerMsg <= 0 || u.Private <= 0 || u.Threads < 2 || u.Descriptors < 18 {
				t.Errorf("%+v", u)
			}
		}
	}
	if a, b := srv1.Stats(), srv2.Stats(); a.Upgraded != 6 || b.Upgraded != 6 || a.MessagesIn == 0 || b.MessagesIn == 0 {
		t.Errorf("%+v and %+v", a, b)
	}
}

func TestATimedRunAgreesWithTheServerWithinWhatIsInFlight(t *testing.T) {
	for _, rate := range []float64{0, 3000} {
		srv, url := honest(t)
		r := measured(t, Options{Scenario: "echo", Duration: 300 * time.Millisecond, Config: Config{Targets: targets(t, url), Connections: 10, SizeMin: 50, Depth: 4, Rate: rate}})
		st := srv.Stats()
		if r.Sent != st.MessagesIn || r.Sent-r.Messages != r.InFlight || r.InFlight > 40 || r.Sent*50 != r.BytesSent || st.BytesIn != r.BytesSent {
			t.Errorf("%d sent, %d back, %d in flight; the server has %d", r.Sent, r.Messages, r.InFlight, st.MessagesIn)
		}
	}
}

func TestPlainTCPRefusesWhatItCannotCheck(t *testing.T) {
	_, err := Run(t.Context(), Options{Scenario: "echo", Duration: time.Second, Config: Config{Targets: targets(t, bareEcho(t)), Connections: 1}})
	if err == nil || !strings.Contains(err.Error(), "empty message") {
		t.Error(err)
	}
	l := &liar{greet: func(c *liarConn) bool {
		for c.more() {
			c.Write(append(c.in, 'x'))
			c.in = nil
		}
		return false
	}}
	l.listen(t)
	r := measured(t, Options{Scenario: "idle", Duration: patience, Config: Config{Targets: targets(t, "tcp://"+l.addr.String()), Connections: 2, SizeMin: 10}})
	if n, _ := errorsOf(r, KindWrong); n != 2 {
		t.Errorf("%+v", r.Errors)
	}
}

func TestThePayloadOfAFileIsWhatTheServerGets(t *testing.T) {
	var mu sync.Mutex
	var got []byte
	l := (&liar{answer: func(c *liarConn, _ int, op ws.OpCode, p []byte) {
		mu.Lock()
		got = bytes.Clone(p)
		mu.Unlock()
		c.echo(op, p)
	}}).listen(t)
	want := bytes.Repeat([]byte("Gruß "), 1000)
	file := filepath.Join(t.TempDir(), "payload")
	if err := os.WriteFile(file, want, 0o600); err != nil {
		t.Fatal(err)
	}
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	r := measured(t, Options{Scenario: "echo", Duration: time.Minute, Messages: 9, Config: Config{Targets: targets(t, l.url), Connections: 1, Payload: b, Text: true, Limit: 9}})
	if r.Messages != 9 || !bytes.Equal(got, want) || r.SizeMin != len(want) {
		t.Errorf("%+v", r)
	}
}

func TestTheOpenLoopKeepsItsSchedule(t *testing.T) {
	srv, url := honest(t)
	for _, c := range []int{1, 7} {
		before := srv.Stats().MessagesIn
		r := measured(t, Options{Scenario: "echo", Duration: time.Second, Config: Config{Targets: targets(t, url), Connections: c, SizeMin: 32, Rate: 4000}})
		want := 4000 * r.Seconds
		late := time.Since(r.Start).Seconds() - r.Seconds // for a while after the measuring it still sends
		if sent := float64(r.Sent); sent < want*0.99-4000*r.SlipSeconds || sent > want*1.01+4000*late || r.Unsent != 0 || r.Loop != "open" || len(r.Errors) > 0 {
			t.Errorf("%d sent in %.3f s, want %.0f; %d unsent; %+v", r.Sent, r.Seconds, want, r.Unsent, r.Errors)
		}
		if n := srv.Stats().MessagesIn - before; n != r.Sent {
			t.Errorf("the server has %d of %d", n, r.Sent)
		}
	}
}

func TestTheOpenLoopEndsAfterExactlySoManyMessages(t *testing.T) {
	srv, url := honest(t)
	r := measured(t, Options{Scenario: "echo", Duration: time.Minute, Messages: 77, Config: Config{Targets: targets(t, url), Connections: 3, SizeMin: 32, Rate: 2000, Limit: 77}})
	if r.Sent != 77 || r.Messages != 77 || srv.Stats().MessagesIn != 77 {
		t.Errorf("%d sent, %d back", r.Sent, r.Messages)
	}
}

func TestARateThatTheClientCannotReachIsSaid(t *testing.T) {
	_, url := honest(t)
	r := measured(t, Options{Scenario: "echo", Duration: 1200 * time.Millisecond, Config: Config{Targets: targets(t, url), Connections: 4, SizeMin: 16, Rate: 1e7}})
	notes := strings.Join(r.Notes, "\n")
	if !strings.Contains(notes, "schedule slipped") {
		t.Errorf("nothing about the schedule: %q", notes)
	}
	if !strings.Contains(notes, "the client was the bottleneck") {
		t.Errorf("nothing about the client: %q; %+v", notes, r.Client)
	}
	if r.Seconds > 3 || len(r.Series) < 2 || r.Messages == 0 {
		t.Errorf("the loop did nothing else: %.1f s, %d intervals, %d replies", r.Seconds, len(r.Series), r.Messages)
	}
}

func TestATinyRateSendsAMessageAndWaits(t *testing.T) {
	_, url := honest(t)
	r := measured(t, Options{Scenario: "echo", Duration: 100 * time.Millisecond, Config: Config{Targets: targets(t, url), Connections: 1, SizeMin: 16, Rate: 1e-13}})
	if r.Sent != 1 || r.Messages != 1 {
		t.Errorf("%d sent", r.Sent)
	}
}

// staller is a server that holds all replies for the first 100 ms of every
// second, and remembers when it did.
type staller struct {
	*liar
	mu       sync.Mutex
	start    time.Time
	stalls   [][2]time.Time
	longest  time.Duration // that a reply was held
	answered []time.Time
}

func stalling(t *testing.T) *staller {
	s := &staller{start: time.Now().Add(50 * time.Millisecond)}
	s.liar = &liar{answer: func(c *liarConn, _ int, op ws.OpCode, p []byte) {
		s.mu.Lock()
		if since := time.Since(s.start); since > 0 && since%time.Second < 100*time.Millisecond {
			came := time.Now()
			begin := s.start.Add(since.Truncate(time.Second))
			time.Sleep(time.Until(begin.Add(100 * time.Millisecond))) // the stall itself
			s.stalls = append(s.stalls, [2]time.Time{begin, time.Now()})
			s.longest = max(s.longest, time.Since(came))
		}
		s.answered = append(s.answered, time.Now())
		s.mu.Unlock()
		c.echo(op, p)
	}}
	s.listen(t)
	return s
}

func TestTheOpenLoopShowsAStallWhereArithmeticPutsIt(t *testing.T) {
	const rate = 2000
	s := stalling(t)
	r := measured(t, Options{Scenario: "echo", Duration: 3 * time.Second, Config: Config{Targets: targets(t, s.url), Connections: 1, SizeMin: 32, Rate: rate}})
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.stalls) < 3 || uint64(len(s.answered)) != r.Messages || r.Sent != r.Messages || len(r.Errors) > 0 {
		t.Fatalf("%d stalls, %d answered, %d sent, %d back, %+v", len(s.stalls), len(s.answered), r.Sent, r.Messages, r.Errors)
	}
	// stalled is what each message waits from its time to the end of the stall
	// that it falls into; really is when the server answered it, on a machine
	// that others use too. The client may see the answer later by its own slip:
	// it sends every half millisecond, so what keeps it from reading shows there.
	slip := time.Duration(r.SlipSeconds * 1e9)
	var stalled, really []time.Duration
	origin := s.answered[0] // of the schedule: no answer comes before its message
	for i, answered := range s.answered {
		if at := answered.Add(-time.Duration(i) * time.Second / rate); at.Before(origin) {
			origin = at
		}
	}
	if d := origin.Sub(r.Start); d < 0 || d > 50*time.Millisecond+slip {
		t.Errorf("the schedule began %s after the measuring", d)
	}
	for i, answered := range s.answered {
		at := origin.Add(time.Duration(i) * time.Second / rate)
		d := time.Duration(0)
		for _, st := range s.stalls {
			if at.After(st[0]) && at.Before(st[1]) {
				d = st[1].Sub(at)
			}
		}
		stalled, really = append(stalled, d), append(really, max(0, answered.Sub(at)))
	}
	slices.Sort(stalled)
	slices.Sort(really)
	quiet := true
	for _, q := range []float64{50, 85, 92, 95, 97, 99, 99.9, 100} {
		i := min(len(really)-1, int(q/100*float64(len(really))))
		got := r.Message.At(q)
		more := got - really[i]
		if more > 0 {
			more = max(0, more-slip)
		}
		if !asComputed(really[i]+more, really[i]) {
			t.Errorf("p%g is %s, the server says %s", q, got, really[i])
		}
		if !asComputed(really[i], stalled[i]) {
			quiet = false
		} else if off := (got - stalled[i]).Abs() - (really[i] - stalled[i]).Abs() - slip; off > 0 && !asComputed(stalled[i]+off, stalled[i]) {
			t.Errorf("p%g is %s, arithmetic says %s", q, got, stalled[i])
		}
	}
	if !quiet {
		t.Logf("the machine was too busy to hold the server to arithmetic, only to its own account; slip %.4f s", r.SlipSeconds)
	}
	if p95 := stalled[len(stalled)*95/100]; p95 < 40*time.Millisecond || r.Message.At(95) < 40*time.Millisecond || r.Message.At(100) < 95*time.Millisecond {
		t.Errorf("a p95 of %s, measured %s", p95, r.Message.At(95))
	}
}

// asComputed: within 5 %, and what a wake-up takes.
func asComputed(got, want time.Duration) bool {
	return math.Abs(float64(got-want)) <= 0.05*float64(want)+3e6
}

func TestTheClosedLoopHidesAStallAndSaysSo(t *testing.T) {
	s := stalling(t)
	r := measured(t, Options{Scenario: "echo", Duration: 1200 * time.Millisecond, Config: Config{Targets: targets(t, s.url), Connections: 2, SizeMin: 32}})
	s.mu.Lock()
	defer s.mu.Unlock()
	if p99, top := r.Message.At(99), r.Message.At(100); p99 > s.longest/2 || top < s.longest*99/100 || s.longest < 50*time.Millisecond {
		t.Errorf("p99 %s, max %s; a reply was held for up to %s", p99, top, s.longest)
	}
	var b strings.Builder
	if err := r.Text()(&b); err != nil || !strings.Contains(b.String(), "closed") || !strings.Contains(strings.Join(strings.Fields(b.String()), " "), "coordinated omission") || r.Loop != "closed" {
		t.Errorf("%v\n%s", err, b.String())
	}
}

func TestAnEchoedMessageAllocatesNothing(t *testing.T) {
	const messages = 20_000
	for _, depth := range []int{1, 8} {
		_, url := honest(t)
		c, err := New(Config{Targets: targets(t, url), Connections: 8, SizeMin: 8, SizeMax: 200, Depth: depth})
		if err != nil {
			t.Fatal(err)
		}
		defer c.Stop()
		c.Open(nil)
		c.Start()
		<-c.after(2000)
		from := c.Counts().Messages
		var before, after runtime.MemStats
		home := c.after(from + messages)
		runtime.ReadMemStats(&before)
		<-home
		runtime.ReadMemStats(&after)
		if n := after.Mallocs - before.Mallocs; n > 200 {
			t.Errorf("depth %d: %d allocations for %d messages", depth, n, messages)
		}
	}
}
