package server

import (
	"fmt"
	"runtime"
	"slices"
	"strings"

	"wspoll/epoll"

	"github.com/gobwas/ws"
)

// What reaches the connections of a simulation from outside of their loop:
// posts, and the goroutines of Blocking, which are let go one at a time.

// post does something to a connection from outside, as a goroutine that has
// its Ref would.
func (s *simulation) post(c *simClient) {
	if c.ref.sh == nil {
		return
	}
	// What is posted together runs together, so the note is taken at the moment
	// of the effect.
	off := false
	note := func(f func()) {
		c.ref.sh.loop.Post(func() {
			if !off && c.noted() {
				f()
			}
		})
	}
	var err error
	switch n := s.rng.IntN(20); {
	case n < 13:
		size := s.rng.IntN(200)
		if s.one(6) {
			size = s.rng.IntN(40_000)
		}
		p := append([]byte(simMarker), strings.Repeat("p", size)...)
		note(func() {
			c.trace("posted: %d bytes", len(p))
			c.posted.message(1, p)
		})
		err = c.ref.Send(ws.OpText, p)
	case n < 17:
		p := fmt.Appendf(nil, "ping %d", s.rng.IntN(1000))
		note(func() { c.pings.add(simToken{kind: wantPing, data: p}) })
		err = c.ref.Send(ws.OpPing, p)
	case n < 18:
		code := []int{1000, 1001, 1008, 4000}[s.rng.IntN(4)]
		note(func() { c.begin(code, ReasonEndpoint) })
		err = c.ref.Close(ws.StatusCode(code), "from outside")
	case n < 19:
		err = c.ref.Do(func(Conn) { panic("a posted function does") })
	default:
		err = c.ref.Do(func(conn Conn) {
			if c.noted() {
				c.posted.message(2, []byte(simMarker))
			}
			conn.Send(ws.OpBinary, []byte(simMarker))
		})
	}
	if off = err != nil; off && (err != ErrMemory || s.cfg.MemoryBudget < 0) {
		c.fail("posting fails: %v", err)
	}
}

// park is the endpoint's Blocking function. It waits until the simulation
// lets it go, and sends the message back.
func (s *simulation) park(r Ref, op ws.OpCode, p []byte) {
	me := &simParked{goOn: make(chan struct{})}
	s.mu.Lock()
	for _, c := range s.clients {
		if c.ref == r {
			me.c = c
		}
	}
	c := me.c
	if c == nil {
		s.fail("Blocking is called for nobody")
		s.mu.Unlock()
		return
	}
	s.parked = append(s.parked, me)
	s.mu.Unlock()
	<-me.goOn
	if len(c.blocking) == 0 || c.blocking[0].code != int(op) || string(c.blocking[0].data) != string(p) {
		c.fail("Blocking is given opcode %d with %.40q", op, p)
		return
	}
	c.blocking = c.blocking[1:]
	switch string(p) {
	case simPanic:
		r.sh.loop.Post(func() {
			if c.noted() {
				c.begin(1011, ReasonPanic)
			}
		})
		panic(simPanic)
	case simBye:
		r.sh.loop.Post(func() {
			if c.noted() {
				c.begin(4321, ReasonEndpoint)
			}
		})
		r.Close(4321, "as you wish")
		return
	}
	off := false
	r.sh.loop.Post(func() {
		if !off && c.noted() {
			c.posted.message(byte(op), p)
		}
	})
	off = r.Send(op, p) != nil
}

// letGo lets one of the waiting goroutines go, and waits until it waits again
// or has ended.
func (s *simulation) letGo() {
	if len(s.parked) == 0 {
		return
	}
	slices.SortFunc(s.parked, func(a, b *simParked) int { return a.c.id - b.c.id })
	i := s.rng.IntN(len(s.parked))
	p := s.parked[i]
	s.parked = slices.Delete(s.parked, i, i+1)
	close(p.goOn)
	s.settle()
}

// know notes the queue of a connection.
func (s *simulation) know(sh *shard, slot epoll.Slot) {
	if q := sh.queues[slot]; q != nil {
		s.queues[Ref{sh, sh.loop.ID(slot)}] = q
	}
}

// settle waits until no goroutine of Blocking runs: each has ended, or waits
// to be let go.
func (s *simulation) settle() {
	for r, q := range s.queues {
		for n := 0; ; n++ {
			q.mu.Lock()
			running := q.running
			if len(q.waiting) > queueMany+1 || q.bytes > queueHigh+int(s.cfg.MaxMessage) {
				s.fail("%d messages, %d bytes wait for Blocking", len(q.waiting), q.bytes)
			}
			q.mu.Unlock()
			s.mu.Lock()
			parked := slices.ContainsFunc(s.parked, func(p *simParked) bool { return p.c.ref == r })
			s.mu.Unlock()
			if parked {
				break
			}
			if !running {
				delete(s.queues, r)
				break
			}
			runtime.Gosched()
		}
	}
}

// release ends the goroutines that wait.
func (s *simulation) release() {
	for len(s.parked) > 0 {
		s.letGo()
	}
}
