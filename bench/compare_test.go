package bench

import (
	"context"
	"encoding/json"
	"errors"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"wspoll/epoll"
)

// comparedProcess in the environment makes the test of that name a server.
const comparedProcess = "COMPARED_PROCESS"

// TestComparedProcess is the bare echo that Compare starts in tests.
func TestComparedProcess(t *testing.T) {
	what := os.Getenv(comparedProcess)
	if what == "" {
		t.Skip("not started by another test")
	}
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM)
	if what == "fail" {
		os.Stderr.WriteString("some line\nno such thing\n")
		os.Exit(3)
	}
	var g *epoll.Group
	g, err := epoll.NewGroup(epoll.Config{}, func(l *epoll.Loop) epoll.Handler {
		if slices.Contains(os.Args, "push") {
			return epoll.Spread{Echo: epoll.Echo{Loop: l}, All: func() []*epoll.Loop { return g.Loops() }}
		}
		return epoll.Echo{Loop: l}
	})
	if err != nil {
		t.Fatal(err)
	}
	addr, err := g.Listen("127.0.0.1:0", 0)
	if err != nil {
		t.Fatal(err)
	}
	g.Start()
	os.Stdout.WriteString("tcp://" + addr.String() + " echoes\n")
	<-stop
	os.Exit(0)
}

func comparedSelf(name string) Contestant {
	args := []string{os.Args[0], "-test.run=^TestComparedProcess$"}
	return Contestant{Name: name, Args: args, Push: append(slices.Clone(args), "push")}
}

func TestCompareMeasuresServersInRounds(t *testing.T) {
	t.Setenv(comparedProcess, "echo")
	var order []string
	o := &CompareOptions{
		Servers: []Contestant{comparedSelf("a"), comparedSelf("b")},
		Cases: []CompareCase{
			{Name: "echo", Kind: CompareEcho, Connections: 4, Size: 32, Depth: 1},
			{Name: "handshake", Kind: CompareHandshake, Connections: 2},
			{Name: "push", Kind: ComparePush, Connections: 5, Size: 128},
			{Name: "idle", Kind: CompareIdle, Connections: 10, Size: 32},
		},
		Rounds: 2, Interval: 250 * time.Millisecond, Floor: "a", Baseline: "b",
		Progress: func(c *CompareCase, _ int, server string) {
			if c.Name == "echo" {
				order = append(order, server)
			}
		},
		Latency: func(*Client) (l Latency) {
			l.Record(int64(time.Millisecond))
			return l
		},
	}
	all := Compare(t.Context(), o)
	if lines := all.Failures(); len(lines) > 0 || all.Interrupted {
		t.Fatalf("failures %q, interrupted: %v", lines, all.Interrupted)
	}
	if want := []string{"a", "b", "a", "b"}; !slices.Equal(order, want) {
		t.Errorf("the order is %q, want %q", order, want)
	}
	if n := len(all.Cases[1].Rows); n != 0 {
		t.Errorf("a bare TCP echo has %d rows about WebSocket handshakes", n)
	}
	for _, r := range slices.Concat(all.Cases[0].Rows, all.Cases[2].Rows) {
		for _, figure := range []string{figureRate, figureCPU, figureP50, figureP999} {
			if len(r.samples(figure)) != 2 || r.Median[figure] <= 0 {
				t.Errorf("%s: %s is %v", r.Server, figure, r.samples(figure))
			}
		}
	}
	var b strings.Builder
	if err := all.WriteJSON(&b); err != nil {
		t.Fatal(err)
	}
	var back Comparison
	if err := json.Unmarshal([]byte(b.String()), &back); err != nil {
		t.Fatal(err)
	}
	if got, want := back.Cases[0].Rows[1].Median[figureCPU], all.Cases[0].Rows[1].Median[figureCPU]; got != want {
		t.Errorf("the JSON says %g, not %g", got, want)
	}
}

func TestCompareGoesOnWithoutAServerThatFails(t *testing.T) {
	t.Setenv(comparedProcess, "fail")
	none := Contestant{Name: "none", Args: []string{"/nonexistent/program"}}
	all := Compare(t.Context(), &CompareOptions{
		Servers: []Contestant{comparedSelf("failing"), none},
		Cases:   []CompareCase{{Name: "echo", Kind: CompareEcho, Connections: 1, Size: 1}},
		Rounds:  2, Interval: time.Millisecond,
	})
	lines := all.Failures()
	if len(lines) != 2 || !strings.Contains(lines[0], "exit status 3: no such thing") || !strings.Contains(lines[1], "cannot be started") {
		t.Errorf("the failures are %q", lines)
	}
}

func TestCompareEndsItsServersWhenItIsInterrupted(t *testing.T) {
	t.Setenv(comparedProcess, "echo")
	who := comparedSelf("a")
	ctx, cancel := context.WithCancel(t.Context())
	p, err := launch(ctx, &who, nil)
	if err != nil {
		t.Fatal(err)
	}
	m := &measurement{ctx: ctx, o: &CompareOptions{Interval: time.Hour}, c: &CompareCase{Kind: CompareEcho, Connections: 2, Size: 8}, p: p, server: Process(p.cmd.Process.Pid), client: Process(os.Getpid())}
	done := make(chan error, 1)
	go func() {
		_, err := m.echo()
		p.end()
		done <- err
	}()
	cancel()
	if err := <-done; !errors.Is(err, context.Canceled) {
		t.Errorf("the error is %v", err)
	}
	if !p.hasEnded() || p.err != nil {
		t.Errorf("the server has ended: %v, with %v", p.hasEnded(), p.err)
	}
	all := Compare(ctx, &CompareOptions{Servers: []Contestant{who}, Cases: CompareCases(1, true), Rounds: 1})
	if !all.Interrupted || len(all.Cases) != 0 {
		t.Errorf("interrupted: %v, with %d cases", all.Interrupted, len(all.Cases))
	}
}

func TestContestantsOfCommandsAreRead(t *testing.T) {
	for _, c := range []struct {
		in   string
		want Contestant
	}{
		{"x=./srv {port}", Contestant{Name: "x", About: "./srv {port}", Args: []string{"./srv", "{port}"}}},
		{"tcp:c=./echo -p{port}", Contestant{Name: "c", About: "./echo -p{port}", Args: []string{"./echo", "-p{port}"}, TCP: true}},
		{"old=./wspoll --listen=127.0.0.1:0", Contestant{Name: "old", About: "./wspoll --listen=127.0.0.1:0", Args: []string{"./wspoll", "--listen=127.0.0.1:0"}}},
	} {
		got, err := ParseContestant(c.in)
		if err != nil || got.Name != c.want.Name || got.About != c.want.About || got.TCP != c.want.TCP || !slices.Equal(got.Args, c.want.Args) {
			t.Errorf("%q is %+v, %v", c.in, got, err)
		}
	}
	for _, bad := range []string{"", "x", "x=", "=./srv {port}", "tcp:=./srv {port}", "tcp:x=./srv", "a b=./srv", "a,b=./srv"} {
		if got, err := ParseContestant(bad); err == nil {
			t.Errorf("%q is %+v", bad, got)
		}
	}
}

func TestCasesArePickedByNameOrItsBeginning(t *testing.T) {
	all := CompareCases(100, false)
	for _, c := range []struct{ names, want string }{
		{"", "echo-32 echo-1k echo-16k echo-32-d16 echo-1m push handshake idle gc"},
		{"echo-32", "echo-32"},
		{"echo-32-", "echo-32-d16"},
		{"gc echo-1", "echo-1k echo-16k echo-1m gc"},
	} {
		got, err := PickCases(all, strings.Fields(c.names))
		var names []string
		for _, p := range got {
			names = append(names, p.Name)
		}
		if err != nil || strings.Join(names, " ") != c.want {
			t.Errorf("%q picks %q, %v", c.names, names, err)
		}
	}
	for _, bad := range []string{"", "no", "echo-32-d17"} {
		if _, err := PickCases(all, []string{bad}); err == nil {
			t.Errorf("%q is no error", bad)
		}
	}
}

func TestTableOfACaseShowsMediansAndRatios(t *testing.T) {
	row := func(name string, cpu ...float64) *ComparedRow {
		r := &ComparedRow{Server: name, Rounds: make([]ComparedFigures, 4)} // the last was not measured
		for i, v := range cpu {
			r.Rounds[i] = ComparedFigures{figureRate: 1000, figureCPU: v}
		}
		r.Median = r.medians()
		return r
	}
	c := &ComparedCase{
		CompareCase: CompareCase{Name: "echo-1k", Kind: CompareEcho, Connections: 1000, Size: 1 << 10, Depth: 1},
		Rows:        []*ComparedRow{row("wspoll", 8, 6, 7), row("floor", 4, 6, 7), row("gorilla", 16, 18, 14), {Server: "x", Error: "it broke"}},
		all:         &Comparison{Floor: "floor", Baseline: "gorilla"},
	}
	c.Rows[1].Median[figureClient] = 0.95
	var b strings.Builder
	if err := c.WriteText(&b); err != nil {
		t.Fatal(err)
	}
	want := `
echo-1k: echo of 1 KiB, 1,000 connections, one message in flight on each
  server   messages/s        CPU us/message       it / floor        gorilla / it
  wspoll   1000 (1000-1000)  7.00 (6.00-8.00)     1.00 (1.00-2.00)  2.00 (2.00-3.00)
  floor *  1000 (1000-1000)  6.00 (4.00-7.00)     1.00 (1.00-1.00)  3.00 (2.00-4.00)
  gorilla  1000 (1000-1000)  16.0 (14.0-18.0)     3.00 (2.00-4.00)  1.00 (1.00-1.00)
  x        -                 -                    -                 -
  * the client was the bottleneck: messages and handshakes per second, and latencies, are its own
  x failed: it broke
`
	squeeze := func(s string) string { return strings.Join(strings.Fields(s), " ") }
	if squeeze(b.String()) != squeeze(want) {
		t.Errorf("the table is\n%s\nwant\n%s", b.String(), want)
	}
}

func TestFigureTextKeepsThreeDigits(t *testing.T) {
	for v, want := range map[float64]string{0: "0", 0.456: "0.46", 9.99: "9.99", 9.996: "10.0", 99.94: "99.9", 99.96: "100", 12345.6: "12346"} {
		if got := figureText(v); got != want {
			t.Errorf("%g is %s, want %s", v, got, want)
		}
	}
}
