package server

import (
	"context"
	"flag"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"wspoll/epoll"

	"github.com/gobwas/ws"
)

var (
	simSeed  = flag.Uint64("sim.seed", 0, "run the simulation of this seed only")
	simSteps = flag.Int("sim.steps", 3000, "steps of one simulation")
	simFor   = flag.Duration("sim.for", 0, "run simulations, of new seeds, for so long")
)

// TestSimulation runs a whole server on a simulated kernel, against clients
// who say right and wrong things, and a reference that knows what must come
// back. What happens depends on the seed alone: a failure names it.
func TestSimulation(t *testing.T) {
	seed, seeds, until := uint64(1), 30, time.Time{}
	if raceEnabled {
		seeds = 4 // each takes ten times as long
	}
	switch {
	case *simSeed != 0:
		seed, seeds = *simSeed, 1
	case *simFor != 0:
		seed, seeds, until = uint64(time.Now().UnixNano())%1e9+1, 1<<40, time.Now().Add(*simFor)
	}
	var total simTotals
	for i := range seeds {
		if i > 0 && !until.IsZero() && time.Now().After(until) {
			break
		}
		if failure := simulate(seed, *simSteps, false, &total); failure != nil {
			again := simulate(seed, *simSteps, true, new(simTotals))
			if again == nil {
				t.Fatalf("seed %d failed and did not fail a second time; it is the simulation that is wrong: %s", seed, failure.what)
			}
			t.Fatalf("%s\n...\n%s\nagain: go test ./server -run TestSimulation -sim.seed=%d -sim.steps=%d", failure.what, strings.Join(again.traces, "\n"), seed, *simSteps)
		}
		seed++
	}
	t.Logf("%d simulations, %d steps, %d connections, simulated time %v", total.runs, total.steps, total.clients, total.time.Round(time.Second))
	for r, n := range total.ended {
		if n > 0 {
			t.Logf("%7d ended with %q", n, Reason(r))
		}
	}
}

type simTotals struct {
	runs, steps, clients int
	time                 time.Duration
	ended                [NumReasons]int
}

// simulation is one server, its kernel, and its clients.
type simulation struct {
	rng *rand.Rand
	k   *simKernel
	cfg Config
	srv *Server

	clients []*simClient
	made    int
	steps   []int // of each loop
	resets  []*simClient
	slow    int // how slow the functions of Blocking are
	ended   [NumReasons]int
	opened  uint64
	opens   uint64

	draining, stopping bool
	panicked           bool // within this step: the rest of its batch comes in the next one

	// The goroutines of Blocking wait here until the simulation lets one go.
	mu     sync.Mutex
	parked []*simParked
	queues map[Ref]*queue

	failure string
	tracing bool
	traces  []string
}

type simParked struct {
	c    *simClient
	goOn chan struct{}
}

type simFailure struct {
	what   string
	traces []string
}

func (s *simulation) fail(format string, args ...any) {
	if s.failure == "" {
		s.failure = fmt.Sprintf(format, args...)
		s.tracef("FAILED: %s", s.failure)
	}
}

func (s *simulation) tracef(format string, args ...any) {
	if !s.tracing {
		return
	}
	if s.traces = append(s.traces, fmt.Sprintf("%12v %s", time.Duration(s.k.now), fmt.Sprintf(format, args...))); len(s.traces) > 400 {
		s.traces = s.traces[200:]
	}
}

func (s *simulation) one(n int) bool { return s.rng.IntN(n) == 0 }

// simulate runs one simulation; nil means that all was well.
func simulate(seed uint64, steps int, tracing bool, total *simTotals) *simFailure {
	s := &simulation{rng: rand.New(rand.NewPCG(seed, 1)), tracing: tracing, queues: map[Ref]*queue{}}
	s.k = newSimKernel(s, rand.New(rand.NewPCG(seed, 2)))
	choose := func(a ...int) int { return a[s.rng.IntN(len(a))] }
	s.cfg = Config{
		Loops:            1 + s.rng.IntN(2),
		MaxMessage:       int64(choose(1000, 70_000, 1<<20)),
		MaxPending:       choose(20_000, 64<<10, 256<<10, 1<<20),
		MaxConnections:   choose(0, 0, 0, 0, 0, 12),
		MemoryBudget:     int64(choose(Unlimited, Unlimited, Unlimited, 50_000, 400_000)),
		HandshakeTimeout: 5 * time.Second,
		IdleTimeout:      time.Duration(choose(20, 120, -1)) * time.Second,
		CloseTimeout:     time.Duration(choose(1, 5)) * time.Second,
		WriteTimeout:     time.Duration(choose(3, 10)) * time.Second,
		Compress:         Compression(choose(0, 0, 1, 1, 2)),
		CompressMin:      choose(0, -1, 50),
		Log:              slog.New(simLog{s}),
		kernel:           s.k,
	}
	s.slow = choose(0, 0, 20, 200)
	s.start()
	for range steps {
		if s.failure != "" {
			break
		}
		s.act()
	}
	s.finish()
	total.runs++
	total.steps += steps
	total.clients += s.made
	total.time += time.Duration(s.k.now)
	for r, n := range s.ended {
		total.ended[r] += n
	}
	if s.failure == "" {
		return nil
	}
	return &simFailure{s.failure, s.traces}
}

func (s *simulation) start() {
	srv, err := New(s.cfg)
	if err != nil {
		s.fail("%v", err)
		return
	}
	s.srv = srv
	s.cfg = srv.cfg
	s.steps = make([]int, s.cfg.Loops)
	for _, e := range []struct {
		path string
		ep   *Endpoint
	}{
		{"/echo", Echo()},
		{"/message", &Endpoint{Message: func(c Conn, op ws.OpCode, p []byte) {
			switch string(p) {
			case simPanic:
				panic(simPanic)
			case simBye:
				c.Close(4321, "as you wish")
				return
			}
			c.Send(op, p)
		}}},
		{"/blocking", &Endpoint{Blocking: s.park}},
	} {
		ep := e.ep
		ep.Open = func(c Conn) {
			cl := s.client(c.RemoteAddr().(*net.TCPAddr).Port)
			s.mu.Lock() // park looks through all of them
			cl.ref = c.Ref()
			s.mu.Unlock()
			cl.opens++
			s.opens++
			c.SetValue(cl)
			if cl.openPanics() {
				panic("Open does")
			}
			if ep.Message != nil {
				c.Send(ws.OpText, []byte("welcome"))
			}
		}
		ep.Close = func(c Conn, why Reason) {
			cl := c.Value().(*simClient)
			cl.ends++
			if slot, ok := c.sh.loop.Find(c.id); ok {
				s.know(c.sh, slot)
			}
			c.Send(ws.OpText, []byte("too late")) // must do nothing
			if cl.closePanics() {
				cl.reason, cl.cause = why, "panic" // the log does not tell
				panic("Close does")
			}
		}
		if err := srv.Handle(e.path, ep); err != nil {
			s.fail("%v", err)
		}
	}
	if _, err := srv.Listen("10.0.0.1:80"); err != nil {
		s.fail("%v", err)
	}
	srv.http.start()
	srv.started.Store(true) // the loops are stepped, not started
}

// simLog is told the reason of every end.
type simLog struct{ s *simulation }

func (simLog) Enabled(context.Context, slog.Level) bool { return true }
func (l simLog) WithAttrs([]slog.Attr) slog.Handler     { return l }
func (l simLog) WithGroup(string) slog.Handler          { return l }

func (l simLog) Handle(_ context.Context, r slog.Record) error {
	if r.Message == "an endpoint panicked" {
		l.s.panicked = true
	}
	if r.Message != "connection ended" {
		return nil
	}
	var c *simClient
	reason, cause := ReasonNone, "local"
	r.Attrs(func(a slog.Attr) bool {
		switch a.Key {
		case "peer":
			var id int
			fmt.Sscanf(a.Value.String(), "10.0.0.2:%d", &id)
			c = l.s.client(id)
		case "reason":
			reason = Reason(slices.Index(reasonNames[:], a.Value.String()))
		case "tcp":
			cause = a.Value.String()
		}
		return true
	})
	switch {
	case c == nil:
		l.s.fail("a connection ended that nobody has")
	case c.reason != ReasonNone:
		c.fail("ended twice, with %v and %v", c.reason, reason)
	default:
		c.reason, c.cause = reason, cause
	}
	return nil
}

func (s *simulation) client(id int) *simClient {
	for _, c := range s.clients {
		if c.id == id {
			return c
		}
	}
	return nil
}

// act is one step: somebody does something.
func (s *simulation) act() {
	s.k.now += int64(s.rng.IntN(300_000))
	for _, c := range s.resets { // bytes came to a program that has gone
		c.sock.reset(s.k)
	}
	s.resets = nil
	switch n := s.rng.IntN(1000); {
	case n < 350:
		s.step(s.rng.IntN(s.cfg.Loops))
	case n < 380:
		s.connect()
	case n < 640:
		s.with(func(c *simClient) { c.send(1 + s.rng.IntN(1<<s.rng.IntN(17))) })
	case n < 760:
		s.with(func(c *simClient) { s.readBy(c) })
	case n < 820:
		s.with((*simClient).react)
	case n < 840:
		s.with((*simClient).leave)
	case n < 890:
		s.with(s.post)
	case n < 960:
		if s.slow == 0 || s.one(s.slow) {
			s.letGo()
		}
	case n < 963:
		s.with(func(c *simClient) { c.sock.reset(s.k) })
	case n < 970:
		s.k.short = s.rng.IntN(4)
	case n < 990:
		s.k.now += int64(s.rng.IntN(100)) * 1e6
	case n < 991:
		s.k.now += int64(s.rng.IntN(6000)) * 1e6
	case s.one(200):
		s.k.now += int64(time.Hour)
	case s.one(40):
		s.k.now += int64(s.rng.IntN(300)) * 1e9
	}
}

// with does something for a client that is there.
func (s *simulation) with(f func(*simClient)) {
	if len(s.clients) > 0 {
		if c := s.clients[s.rng.IntN(len(s.clients))]; !c.isClosed && !c.sock.dead {
			f(c)
		}
	}
}

func (s *simulation) readBy(c *simClient) {
	if s.one(40) {
		c.gulp = s.rng.IntN(3) * 3000 // a mind may change
	}
	n := min(c.gulp, len(c.sock.out))
	c.sock.out = c.sock.out[n:]
}

// connect makes a client.
func (s *simulation) connect() {
	if len(s.clients) >= 16 || len(s.k.listeners) == 0 {
		return
	}
	t := &simTalk{rng: s.rng, max: int(s.cfg.MaxMessage)}
	s.made++
	c := &simClient{
		sim: s, id: s.made,
		path:   pick(t, "/echo", "/echo", "/message", "/blocking"),
		waits:  t.one(2),
		polite: !t.one(3),
		last:   t.n(simLasts),
		window: pick(t, 1, 100, 5000, 200_000, 200_000),
		gulp:   pick(t, 0, 7, 2000, 1<<20, 1<<20, 1<<20),
		in:     newSimReader(false, uint64(t.max)),
		out:    newSimReader(true, 0),
	}
	o := t.offer(s.cfg.Compress)
	t.offered, c.in.deflate, c.out.deflate = o.line, o.in, o.out
	if c.agrees = ""; o.in != nil {
		c.agrees = o.agreement()
	}
	t.deflater(o, c.window < 1000)
	head, status, key := t.heads(c.path)
	c.status, c.key, c.head = status, key, len(head)
	if t.one(20) {
		head = head[:t.n(len(head))] // the rest never comes
	}
	t.add([]byte(head))
	if len(head) == c.head {
		for range 1 + t.n(3) {
			simTalks[t.n(len(simTalks))](t)
		}
	}
	c.units = t.units
	c.sock = &simSocket{client: c, room: pick(t, 10, 500, 8000, 100_000, 1<<20)}
	ln := s.k.listeners[t.n(len(s.k.listeners))]
	ln.backlog = append(ln.backlog, c)
	s.clients = append(s.clients, c)
	c.trace("%s, %d units, deserves %d, then way %d", c.path, len(c.units), c.status, c.last)
}

// step lets a loop serve one batch, and looks at what came of it.
func (s *simulation) step(i int) {
	sh := s.srv.shards[i]
	s.tracef("step of loop %d", i)
	s.steps[i]++
	s.panicked = false
	sh.loop.Step()
	s.look(sh)
	s.compare()
}

// look takes note of what a loop has done.
func (s *simulation) look(sh *shard) {
	sh.loop.Each(func(slot epoll.Slot) {
		s.know(sh, slot)
		sock := s.k.open[int32(sh.loop.Fd(slot))]
		if sock == nil || sock.client == nil {
			s.fail("slot %d has descriptor %d, which is not open", slot, sh.loop.Fd(slot)-simFirst)
			return
		}
		sock.client.look(sh, slot)
	})
}

// compare holds what the clients have got against what they are owed.
func (s *simulation) compare() {
	s.settle()
	for s.srv.http.open.Load() > 0 { // a goroutine finds out that the descriptor is none of Linux
		runtime.Gosched()
	}
	for _, c := range s.clients {
		if !c.isClosed {
			c.match()
			c.prompt()
			continue
		}
		c.judge()
	}
	s.clients = slices.DeleteFunc(s.clients, func(c *simClient) bool {
		if !c.isClosed || slices.ContainsFunc(s.parked, func(p *simParked) bool { return p.c == c }) {
			return false
		}
		if c.whole && len(c.blocking) > 0 {
			c.fail("%d messages that came before its end were not given to Blocking", len(c.blocking))
		}
		return true
	})
	budget := s.srv.group.Budget()
	if used := budget.Used(); used < 0 || s.cfg.MemoryBudget > 0 && used > s.cfg.MemoryBudget {
		s.fail("%d bytes of the memory budget of %d are used", used, s.cfg.MemoryBudget)
	}
}
