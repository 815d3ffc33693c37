package bench

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/gobwas/ws"
	"golang.org/x/sys/unix"
)

func TestNobodyAtThePortIsOneLine(t *testing.T) {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := ln.Addr().String()
	ln.Close()
	for _, scenario := range []string{"echo", "connect", "idle"} {
		for _, scheme := range []string{"ws", "wss", "tcp"} {
			_, err := Run(context.Background(), Options{Scenario: scenario, Duration: 30 * time.Second, Config: Config{
				Targets: targets(t, scheme+"://"+addr+"/"), Connections: 3, SizeMin: 1, Timeout: time.Second,
			}})
			if err == nil || err.Error() != "no connection could be opened: refused, connection refused" {
				t.Errorf("%s, %s: %v", scenario, scheme, err)
			}
		}
	}
}

func TestAConnectThatGetsNoAnswerTimesOut(t *testing.T) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	if err := unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		t.Fatal(err)
	}
	if err := unix.Listen(fd, 0); err != nil { // room for one connection, and nobody takes it
		t.Fatal(err)
	}
	sa, err := unix.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	addr := &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: sa.(*unix.SockaddrInet4).Port}
	for range 2 {
		if c, err := net.DialTimeout("tcp", addr.String(), 100*time.Millisecond); err == nil {
			defer c.Close()
		}
	}
	for _, scheme := range []string{"ws", "wss"} {
		_, err = Run(context.Background(), Options{Scenario: "echo", Duration: time.Second, Config: Config{
			Targets: targets(t, scheme+"://"+addr.String()), Connections: 2, SizeMin: 1, Timeout: 100 * time.Millisecond,
		}})
		if err == nil || err.Error() != "no connection could be opened: timed out, connect" {
			t.Errorf("%s: %v", scheme, err)
		}
	}
}

func TestSourceAddressesAreTakenInTurn(t *testing.T) {
	l := (&liar{}).listen(t)
	local, err := ParseLocal("127.0.0.7-127.0.0.9,127.0.0.20")
	if err != nil {
		t.Fatal(err)
	}
	r := measured(t, Options{Scenario: "idle", Duration: time.Millisecond, Config: Config{Targets: targets(t, l.url), Connections: 8, Local: local}})
	l.mu.Lock()
	defer l.mu.Unlock()
	slices.Sort(l.from)
	want := []string{"127.0.0.20", "127.0.0.20", "127.0.0.7", "127.0.0.7", "127.0.0.8", "127.0.0.8", "127.0.0.9", "127.0.0.9"}
	if !slices.Equal(l.from, want) || r.Opened != 8 {
		t.Errorf("%v, %+v", l.from, r.Errors)
	}
}

func TestARampOpensOnScheduleHoldsAndCloses(t *testing.T) {
	for _, hold := range []time.Duration{0, 200 * time.Millisecond} {
		l := (&liar{}).listen(t)
		r := measured(t, Options{Scenario: "connect", Duration: hold, Config: Config{Targets: targets(t, l.url), Connections: 41, Ramp: 100}})
		l.mu.Lock()
		if len(l.seen) != 41 || r.Opened != 41 || len(r.Errors) > 0 || l.upgraded.Load() != 41 {
			t.Fatalf("%d accepted, %d opened, %+v", len(l.seen), r.Opened, r.Errors)
		}
		slices.SortFunc(l.seen, time.Time.Compare)
		for i, at := range l.seen {
			// Never early. Late on a busy machine, but then it catches up.
			if d := at.Sub(r.Start); d < time.Duration(i)*10*time.Millisecond-5*time.Millisecond || d > time.Duration(i)*10*time.Millisecond+300*time.Millisecond {
				t.Errorf("connection %d after %s", i, d)
			}
		}
		if s := r.Seconds; s < 0.4+hold.Seconds() || s > 1+hold.Seconds() {
			t.Errorf("measured %.3f s", s)
		}
		if len(l.closes) != 41 || slices.ContainsFunc(l.closes, func(c ws.StatusCode) bool { return c != ws.StatusNormalClosure }) {
			t.Errorf("closed with %v", l.closes)
		}
		l.mu.Unlock()
	}
}

func TestCyclingConnectionsCountsWhatTheServerCounts(t *testing.T) {
	srv, url := honest(t)
	r := measured(t, Options{Scenario: "connect", Duration: 300 * time.Millisecond, Config: Config{Targets: targets(t, url), Connections: 8}})
	st := srv.Stats()
	if r.Opened <= 8 || st.Upgraded-r.Opened > 8 || r.Opened > st.Upgraded || len(r.Errors) > 0 || uint64(r.Upgrade.Count()) < r.Opened {
		t.Errorf("%d opened, the server has %d; %+v", r.Opened, st.Upgraded, r.Errors)
	}
	r = measured(t, Options{Scenario: "connect", Duration: 100 * time.Millisecond, Config: Config{Targets: targets(t, bareEcho(t)), Connections: 4}})
	if r.Opened <= 4 || len(r.Errors) > 0 {
		t.Errorf("tcp: %d opened; %+v", r.Opened, r.Errors)
	}
}

func TestIdleConnectionsPingAndAreClosedProperly(t *testing.T) {
	l := (&liar{}).listen(t)
	r := measured(t, Options{Scenario: "idle", Duration: 600 * time.Millisecond, Config: Config{Targets: targets(t, l.url, bareEcho(t)), Connections: 10, SizeMin: 32, Ping: 50 * time.Millisecond}})
	// The loop's deadlines are up to two ticks of 50 ms late.
	if n := l.pings.Load(); n < 5*3 || n > 5*12 {
		t.Errorf("%d pings", n)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if r.Messages != 10 || l.messages.Load() != 5 || len(r.Errors) > 0 || len(l.closes) != 5 {
		t.Errorf("%d messages, the server has %d; %v, %+v", r.Messages, l.messages.Load(), l.closes, r.Errors)
	}
}

func TestAnInterruptedRunHasTheResultsSoFar(t *testing.T) {
	for _, o := range []Options{
		{Scenario: "echo", Config: Config{Depth: 3}},
		{Scenario: "echo", Config: Config{Rate: 1000}},
		{Scenario: "idle"},
		{Scenario: "connect"},
		{Scenario: "connect", Config: Config{Ramp: 50}},
	} {
		ctx, stop := context.WithCancel(context.Background())
		l := &liar{}
		l.answer = func(c *liarConn, n int, op ws.OpCode, p []byte) {
			c.echo(op, p)
			if n == 30 || o.Scenario == "idle" {
				stop()
			}
		}
		l.greet = func(c *liarConn) bool {
			ok := c.upgrade()
			if l.upgraded.Load() == 5 && o.Scenario == "connect" {
				stop()
			}
			return ok
		}
		l.listen(t)
		o.Duration, o.Connections, o.SizeMin, o.Targets = time.Hour, 5, 20, targets(t, l.url)
		if o.Ramp > 0 {
			o.Connections = 1000
		}
		began := time.Now()
		r, err := Run(ctx, o)
		if err != nil || !r.Interrupted || r.Opened < 4 || r.Seconds <= 0 || o.Scenario == "echo" && r.Messages < 30 {
			t.Errorf("%s, ramp %g, rate %g: %v, %+v", o.Scenario, o.Ramp, o.Rate, err, r)
		}
		if d := time.Since(began); d > 10*time.Second {
			t.Errorf("%s", d)
		}
		stop()
	}
}

func TestAnInterruptedRunDoesNotWaitForADeadServer(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	l := &liar{}
	l.answer = func(c *liarConn, _ int, _ ws.OpCode, _ []byte) { cancel(); c.drain() }
	l.listen(t)
	began := time.Now()
	r, err := Run(ctx, Options{Scenario: "echo", Duration: time.Hour, Config: Config{Targets: targets(t, l.url), Connections: 1, SizeMin: 20, Timeout: time.Hour}})
	if d := time.Since(began); err != nil || !r.Interrupted || r.InFlight != 1 || d > 10*time.Second {
		t.Errorf("%s, %v, %+v", d, err, r)
	}
}

func TestALimitThatCannotBeReachedAnyMoreEndsTheRun(t *testing.T) {
	l := &liar{}
	l.answer = func(c *liarConn, n int, op ws.OpCode, p []byte) {
		if n == 10 {
			c.Close()
			return
		}
		c.echo(op, p)
	}
	l.listen(t)
	began := time.Now()
	r := measured(t, Options{Scenario: "echo", Duration: time.Hour, Messages: 1000, Config: Config{Targets: targets(t, l.url), Connections: 4, SizeMin: 20, Limit: 1000}})
	if r.Messages != 36 || time.Since(began) > 10*time.Second || !strings.Contains(strings.Join(r.Notes, " "), "every connection had ended") {
		t.Errorf("%d messages, %v", r.Messages, r.Notes)
	}
}

func TestMergedResultsAreTheSumOfTheirs(t *testing.T) {
	srv, url := honest(t)
	l := (&liar{answer: every(10, func(c *liarConn, op ws.OpCode, p []byte) { c.echo(op, p[1:]) })}).listen(t)
	var all []*Result
	for i, u := range []string{url, url, l.url} {
		o := Options{Scenario: "echo", Duration: time.Minute, Messages: 100, Config: Config{Targets: targets(t, u), Connections: 2 + i, SizeMin: 32, Limit: 100}}
		if i == 2 {
			o.Messages, o.Limit = 0, 0
			o.Duration = patience // or the end of every connection
		}
		r := measured(t, o)
		b, err := json.Marshal(r) // as from a child process
		if err != nil {
			t.Fatal(err)
		}
		r = &Result{}
		if err := json.Unmarshal(b, r); err != nil {
			t.Fatal(err)
		}
		all = append(all, r)
	}
	m := Merge(all)
	st := srv.Stats()
	if m.Messages != 200+36 || st.MessagesIn != 200 || m.Connections != 9 || m.Opened != 9 || m.Processes != 3 || m.Message.Count() != 236 ||
		m.Connect.Count() != 9 || m.Upgrade.Count() != 9 || m.Sent != 240 || m.BytesSent != 240*32 || m.BytesBack != 236*32 {
		t.Errorf("%+v", m)
	}
	if n, _ := errorsOf(m, KindWrong); n != 4 || m.failures() != 4 {
		t.Errorf("%+v", m.Errors)
	}
	if m.Message.At(100) != max(all[0].Message.At(100), all[1].Message.At(100), all[2].Message.At(100)) || m.Seconds != max(all[0].Seconds, all[1].Seconds, all[2].Seconds) {
		t.Error("the longest times are not those of the parts")
	}
	if sum := all[0].Client.CPUSeconds + all[1].Client.CPUSeconds + all[2].Client.CPUSeconds; m.Client.CPUSeconds != sum {
		t.Errorf("%g s of CPU, want %g", m.Client.CPUSeconds, sum)
	}
	if len(m.Series) != max(len(all[0].Series), len(all[1].Series), len(all[2].Series)) || all[0].Messages != 100 {
		t.Error("the series are not those of the longest, or a part was changed")
	}
}

func TestAReplyThatIsTooLateAtTheEndIsAFailure(t *testing.T) {
	// Shorter than the second between two looks for replies that are overdue.
	l := (&liar{answer: func(c *liarConn, n int, op ws.OpCode, p []byte) {
		if n < 10 {
			c.echo(op, p)
		}
	}}).listen(t)
	r := measured(t, Options{Scenario: "echo", Duration: 200 * time.Millisecond, Config: Config{
		Targets: targets(t, l.url), Connections: 4, SizeMin: 32, Timeout: 300 * time.Millisecond,
	}})
	if n, details := errorsOf(r, KindTimeout); n != 4 || !strings.Contains(details, "reply") || r.Messages != 36 {
		t.Errorf("%d messages, errors %v", r.Messages, r.Errors)
	}
}

func TestAProcessWithoutAResultIsAFailureOfItsConnections(t *testing.T) {
	m := Merge([]*Result{{Connections: 3, Opened: 3}, {Connections: 3, Opened: 3}})
	m.AddFailed(2, errors.New("killed"))
	limit, err := ParseThreshold("errors==0")
	if err != nil {
		t.Fatal(err)
	}
	if ok, got := limit.Check(m); ok || m.Connections != 8 || m.Opened != 6 || m.failures() != 2 {
		t.Errorf("%s: %+v", got, m)
	}
}

func TestMessagesWithoutAReplyAtTheEndAreSaidToBeMissingInTheLatencies(t *testing.T) {
	l := (&liar{answer: func(c *liarConn, n int, op ws.OpCode, p []byte) {
		if n < 10 {
			c.echo(op, p)
		}
	}}).listen(t)
	r := measured(t, Options{Scenario: "echo", Duration: 300 * time.Millisecond, Config: Config{
		Targets: targets(t, l.url), Connections: 2, SizeMin: 32, Rate: 200, Timeout: patience,
	}})
	if notes := strings.Join(r.Notes, "\n"); r.InFlight == 0 || !strings.Contains(notes, fmt.Sprintf("%d messages had no reply yet 2s after", r.InFlight)) {
		t.Errorf("%d in flight, %q", r.InFlight, notes)
	}
}

func TestTheTimeForWhichConnectionsAreHeldIsNotThatOfTheirOpening(t *testing.T) {
	_, url := honest(t)
	r := measured(t, Options{Scenario: "connect", Duration: time.Second, Config: Config{Targets: targets(t, url), Connections: 100, Ramp: 500}})
	rate := r.rate()
	if r.Opened != 100 || r.OpeningSeconds < 0.15 || r.OpeningSeconds > r.Seconds-0.9 || rate != float64(r.Opened)/r.OpeningSeconds {
		t.Errorf("%d opened in %g of %g s, %g/s", r.Opened, r.OpeningSeconds, r.Seconds, rate)
	}
	if f := r.figures(); f.OpenedRate != rate || !strings.Contains(textOf(t, r), rateText(rate)) {
		t.Errorf("%g/s and %g/s", f.OpenedRate, rate)
	}
}
