package server

import (
	"context"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// The end of a simulation: first everybody is given what he waits for, and
// nothing may be owed; then everybody goes, and nothing may be left.

func (s *simulation) finish() {
	defer s.stop()
	if s.failure != "" {
		return
	}
	s.k.calm, s.k.short = true, 0
	for _, c := range s.clients {
		c.gulp, c.window, c.sock.room = 1<<30, 1<<30, 1<<30
	}
	all := func() bool { return len(s.clients) == 0 }
	if s.one(4) {
		s.shutdown(all) // in the middle of everything
		s.gone()
		return
	}
	if !s.rounds(1000, 20*time.Millisecond, nil) {
		s.fail("the server does not come to rest")
	}
	for _, c := range s.clients {
		if c.opened && !c.isClosed && !c.sock.dead {
			c.settled("when all is calm")
			if len(c.blocking) > 0 && c.own == nil && !c.final {
				c.fail("%d messages were not given to Blocking", len(c.blocking))
			}
		}
	}
	for _, p := range s.k.polls {
		for _, o := range p.watched {
			if ev := o.state() & (o.events | unix.EPOLLERR | unix.EPOLLHUP); ev != 0 && o.client != nil {
				o.client.fail("epoll reports %#x again and again", ev)
			}
		}
	}
	if s.failure != "" {
		return
	}
	switch end := s.rng.IntN(3); {
	case end == 0:
		s.shutdown(all)
	case end == 1 || s.cfg.IdleTimeout < 0:
		for _, c := range s.clients {
			c.units, c.last = nil, simFIN
			c.leave()
		}
		fallthrough
	default: // silence
		for _, c := range s.clients {
			c.polite = c.polite && end == 1
		}
		step := time.Duration(1+s.rng.IntN(1000)) * time.Millisecond
		s.rounds(int(5*time.Minute/step), step, all)
	}
	s.gone()
}

// gone: nobody may be there any more, nor anything of theirs.
func (s *simulation) gone() {
	if s.failure == "" && len(s.clients) > 0 {
		s.clients[0].fail("it should have ended, and it has not")
	}
	if s.failure == "" {
		s.count()
	}
}

// rounds gives everybody a turn, again and again: until done, if that is given,
// else until nothing moves any more. It reports whether that came.
func (s *simulation) rounds(n int, step time.Duration, done func() bool) bool {
	for still := 0; n > 0 && still < 8; n-- {
		if s.failure != "" || done != nil && done() {
			return true
		}
		moves := s.k.moves
		for _, c := range slices.Clone(s.clients) {
			if !c.isClosed && !c.sock.dead {
				c.send(1 << 30)
				c.sock.out = nil
				c.react()
			}
		}
		for _, c := range s.resets {
			c.sock.reset(s.k)
		}
		s.resets = nil
		s.release()
		s.k.now += int64(step)
		for i := range s.srv.shards {
			s.step(i)
		}
		if s.k.moves != moves || done != nil {
			still = 0
		} else {
			still++
		}
	}
	return n > 0
}

// simContext is the context of a Shutdown that stops where Shutdown begins to
// wait, so that the loops can be stepped until their connections have ended.
type simContext struct {
	context.Context
	once    sync.Once
	reached chan struct{}
	goOn    chan struct{}
}

func (c *simContext) Done() <-chan struct{} {
	c.once.Do(func() { close(c.reached) })
	<-c.goOn
	return c.goOn // closed: what has not ended now does not
}

// shutdown ends the server; connections get Close and may answer it.
func (s *simulation) shutdown(all func() bool) {
	s.draining = true
	s.tracef("shutdown")
	ctx := &simContext{Context: context.Background(), reached: make(chan struct{}), goOn: make(chan struct{})}
	ended := make(chan error)
	go func() { ended <- s.srv.Shutdown(ctx) }()
	<-ctx.reached     // until here Shutdown was the only one to touch the loops
	s.panicked = true // that is, it was not a step, and deadlines had no turn
	for _, sh := range s.srv.shards {
		s.look(sh)
	}
	s.compare()
	s.rounds(2000, 10*time.Millisecond, all)
	s.stopping = true
	close(ctx.goOn)
	if err := <-ended; err != nil && s.failure == "" && all() {
		s.fail("Shutdown: %v", err)
	}
}

// count compares what the server has counted with what there was, and looks
// for what it still holds.
func (s *simulation) count() {
	st := s.srv.Stats()
	if st.Connections != 0 || st.WebSockets != 0 || st.HTTP != 0 || st.Buffered != 0 || s.srv.conns.Load() != 0 {
		s.fail("nobody is there, and the server has %d connections (%d), %d WebSockets, %d HTTP, %d bytes in buffers",
			st.Connections, s.srv.conns.Load(), st.WebSockets, st.HTTP, st.Buffered)
	}
	if st.Accepted != s.opened || st.Upgraded != s.opens {
		s.fail("the server counts %d accepted and %d upgraded, there were %d and %d", st.Accepted, st.Upgraded, s.opened, s.opens)
	}
	for r, n := range st.Closed {
		if int(n) != s.ended[r] {
			s.fail("the server counts %d ends with %q, there were %d", n, Reason(r), s.ended[r])
		}
	}
	for _, sh := range s.srv.shards {
		if n := len(sh.parsers) + len(sh.joins) + len(sh.postponed) + len(sh.queues) + len(sh.values) + len(sh.faults); n > 0 {
			s.fail("nobody is there, and %d entries are left in the maps of a loop", n)
		}
		if sh.loop.Len() != 0 {
			s.fail("nobody is there, and a loop has %d connections", sh.loop.Len())
		}
	}
}

// stop ends the server, whatever happened, and looks for open descriptors.
func (s *simulation) stop() {
	s.stopping = true
	s.release()
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if !s.draining {
		s.draining = true
		s.srv.Shutdown(ctx)
	}
	s.release()
	for fd, o := range s.k.open {
		s.fail("descriptor %d is left open (epoll or eventfd: %v, listener: %v)", fd-simFirst, o.other, o.listens)
	}
}
