package epoll

import "sync"

// Group is a number of loops that share their listeners and settings.
type Group struct {
	cfg   Config
	loops []*Loop
	wg    sync.WaitGroup

	started bool
}

// NewGroup makes cfg.Loops loops, each with the handler that newHandler
// returns for it. They begin with Start.
func NewGroup(cfg Config, newHandler func(*Loop) Handler) (*Group, error) {
	g := &Group{cfg: cfg.withDefaults()}
	for i := range g.cfg.Loops {
		l, err := newLoop(g.cfg, i)
		if err != nil {
			g.Stop()
			return nil, err
		}
		l.handler = newHandler(l)
		g.loops = append(g.loops, l)
	}
	return g, nil
}

// Start runs each loop in a goroutine of its own.
func (g *Group) Start() {
	g.started = true
	for _, l := range g.loops {
		g.wg.Go(l.run)
	}
}

// Loops are the loops of the group, in the order of their Index.
func (g *Group) Loops() []*Loop { return g.loops }

// Budget is the one that the loops share.
func (g *Group) Budget() *Budget { return g.cfg.Budget }

// Unlisten closes the listening sockets: new connections are refused. It
// returns when that is done on every loop.
func (g *Group) Unlisten() { g.Do(func(l *Loop) { l.closeListeners() }) }

// Do runs f on every loop and returns when all have; a loop that has ended is
// left out. Not to be called from a loop. In a group that has not started the
// caller is the loops' goroutine.
func (g *Group) Do(f func(l *Loop)) { g.do(f) }

// Read is Do for an f that only looks: of loops that have ended it sees, on the
// goroutine of the caller, what they were at their end.
func (g *Group) Read(f func(l *Loop)) {
	ended := g.do(f)
	if len(ended) == 0 {
		return
	}
	g.wg.Wait() // one that takes no posts may still be closing connections
	for _, l := range ended {
		f(l)
	}
}

// do is Do; it returns the loops that had ended.
func (g *Group) do(f func(l *Loop)) (ended []*Loop) {
	if !g.started {
		for _, l := range g.loops {
			l.guard(func() { f(l) })
		}
		return nil
	}
	var wg sync.WaitGroup
	for _, l := range g.loops {
		wg.Add(1)
		if !l.Post(func() { defer wg.Done(); f(l) }) {
			wg.Done()
			ended = append(ended, l)
		}
	}
	wg.Wait()
	return ended
}

// Stop ends the loops, and with them every connection, and returns when the
// last has ended. Not to be called from a loop.
func (g *Group) Stop() {
	if !g.started {
		for _, l := range g.loops {
			l.exit()
		}
		return
	}
	for _, l := range g.loops {
		l.Post(func() { l.stopping = true })
	}
	g.wg.Wait()
}

// Stats of all loops together, taken on the loops; after Stop what they were
// at the end.
func (g *Group) Stats() Stats {
	var mu sync.Mutex
	var sum Stats
	g.Read(func(l *Loop) {
		mu.Lock()
		defer mu.Unlock()
		sum.Open += l.open
		sum.Accepted += l.stats.Accepted
		sum.Starved += l.stats.Starved
		sum.Waits += l.stats.Waits
		sum.Events += l.stats.Events
		for i, n := range l.stats.Closed {
			sum.Closed[i] += n
		}
	})
	return sum
}
