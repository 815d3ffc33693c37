package server

import (
	"time"

	"wspoll/epoll"
)

// How a simulation judges what the server did with a connection: in time while
// it is open, and for a reason at its end.

// simSlack is how late a deadline may be: two ticks, and what the clocks of
// both sides round.
const simSlack = int64(3 * epoll.Tick)

// look compares with what the server has of the connection, after each step of
// its loop: deadlines, and bounds.
func (c *simClient) look(sh *shard, slot epoll.Slot) {
	cfg, now := &c.sim.cfg, c.now()
	c.sh, c.slot = sh, slot
	st := sh.conns.At(slot)
	pending := sh.loop.Pending(slot)
	if p, kept := sh.parsers[slot]; kept != (st.flags&flagMidMessage != 0) || kept && !p.MidMessage() {
		c.fail("a parser is kept aside: %v, its flag says %v: %+v", kept, !kept, p)
	}
	if c.heldStep > 0 && c.heldStep >= c.sim.steps[sh.loop.Index()]-1 {
		c.heldAt = now // let go in this step, and its deadline may have come before that
	}
	if sh.loop.Held(slot) {
		c.heldAt, c.heldStep = now, c.sim.steps[sh.loop.Index()]
		if pending == 0 {
			if c.pausedStep = c.heldStep; st.proto.CloseSent() {
				c.fail("the server waits for its Close, and does not read")
			}
		}
	}
	switch {
	case pending > cfg.MaxPending:
		c.fail("%d bytes wait for it, MaxPending is %d", pending, cfg.MaxPending)
	case pending == 0:
		c.pendingSince = 0
	case c.pendingSince == 0:
		c.pendingSince = now
	case now-max(c.pendingSince, c.wroteAt) > int64(cfg.WriteTimeout)+simSlack && !c.sim.panicked:
		c.fail("%d bytes wait for it, none was taken for %v, and it is not ended", pending, time.Duration(now-c.wroteAt))
	}
	if !c.closeSent && st.proto.CloseSent() {
		c.closeSent, c.closeAt = true, now
		c.beganBy(st.reason)
	}
	wasPinged := c.isPinged
	c.isPinged = st.flags&flagPinged != 0
	if c.isPinged && !wasPinged {
		c.idlePings++
		c.heard("pinged")
		if silent, limit := now-c.lastRead, int64(cfg.IdleTimeout); limit < 0 || silent < limit/2-int64(epoll.Tick) {
			c.fail("an idle ping after %v, IdleTimeout is %v", time.Duration(silent), time.Duration(limit))
		}
	}
	if !c.done && st.phase == phaseDone {
		c.done, c.doneAt = true, now
	}
	if c.sim.panicked {
		return // the deadlines have their turn in the next step
	}
	idle := int64(cfg.IdleTimeout)
	silent := now - max(c.lastRead, c.heldAt)
	switch {
	case st.phase == phaseHead && now-c.openedAt > int64(cfg.HandshakeTimeout)+simSlack:
		c.fail("no request for %v, and it is not ended", time.Duration(now-c.openedAt))
	case c.done:
		over := now - c.doneAt - int64(cfg.WriteTimeout+cfg.CloseTimeout)
		if c.sock.shut { // all is sent: now it is the peer's FIN that is waited for
			over = now - c.shutAt - int64(cfg.CloseTimeout)
		}
		if over > simSlack {
			c.fail("it should have ended %v ago", time.Duration(over))
		}
	case c.closeSent && now-c.closeAt > int64(cfg.CloseTimeout)+simSlack:
		c.fail("no Close came for %v, and it is not ended", time.Duration(now-c.closeAt))
	case st.phase == phaseOpen && !c.closeSent && idle > 0 && silent > idle+2*simSlack:
		c.fail("silent for %v, and nothing happens", time.Duration(silent))
	case st.phase == phaseOpen && !c.closeSent && idle > 0 && silent > idle/2+2*simSlack && !c.isPinged:
		c.fail("silent for %v, and no ping was sent", time.Duration(silent))
	}
}

// heard: it cannot be blamed for silence when nobody listens.
func (c *simClient) heard(what string) {
	if c.sh != nil && c.pausedStep == c.sim.steps[c.sh.loop.Index()]-1 {
		c.fail("%s though the server does not listen", what)
	}
}

// beganBy notes a Close of the server's own, when r is such a reason.
func (c *simClient) beganBy(r Reason) {
	switch r {
	case ReasonIdle:
		c.heard("idle")
		if limit := int64(c.sim.cfg.IdleTimeout); limit < 0 || c.now()-c.lastRead < limit-int64(epoll.Tick) {
			c.fail("idle after %v, IdleTimeout is %v", time.Duration(c.now()-c.lastRead), time.Duration(limit))
		}
		c.begin(1001, r)
	case ReasonDrain:
		if !c.sim.draining {
			c.fail("the server closes as if it were going down")
		}
		c.begin(1001, r)
	case ReasonMemory:
		if c.sim.cfg.MemoryBudget < 0 {
			c.fail("the server closes for want of memory, which has no bound")
		}
		c.begin(1013, r)
	}
}

// judge looks at the end of a connection.
func (c *simClient) judge() {
	cfg, now := &c.sim.cfg, c.now()
	if !c.opened || c.unwatched || c.judged {
		return
	}
	c.judged = true
	c.sim.ended[c.reason]++
	if c.plain {
		return
	}
	if c.opens != c.ends || c.opens > 1 || c.answered == 101 && c.opens == 0 {
		c.fail("Open was called %d times, Close %d times", c.opens, c.ends)
	}
	if c.upgraded && c.own == nil && !c.sim.stopping {
		c.beganBy(c.reason)
	}
	c.match()
	passed := func(since int64, d time.Duration) bool { return now-since >= int64(d) }
	gaveUp := c.closeSent && passed(c.closeAt, cfg.CloseTimeout) || c.done && passed(c.doneAt, cfg.CloseTimeout)
	handshake := c.answered != 101 && passed(c.openedAt, cfg.HandshakeTimeout)
	var why string
	switch {
	case c.sock.dead:
		why = "RST"
	case c.peerClose:
		why = "Close of both sides"
	case c.finRead:
		why = "FIN"
	case c.cause == "panic":
		why = "anything"
	case c.sim.stopping:
		why = "end of the loop"
	case c.brokenMessage && c.own != nil && c.mayDrop:
		why = "a message that was not inflated any more, and what came behind it"
	case gaveUp:
		why = "time-out of closing"
	case handshake && c.headRead == 0:
		why = "time-out of the handshake"
	case c.sim.draining && c.headRead == 0:
		why = "drain before a request"
	case c.cause == "stalled" && passed(c.wroteAt, cfg.WriteTimeout):
		why = "stall"
	case (c.reason == ReasonSlowReader || c.cause == "pending") && c.want.size()+c.posted.size()+len(c.raw) > cfg.MaxPending/2:
		why = "slow reader"
	case (c.reason == ReasonMemory || c.cause == "budget") && cfg.MemoryBudget > 0:
		why = "memory"
	default:
		c.fail("ended with %v (%s) for no reason: %d bytes of its head read, answer %d, %v owed", c.reason, c.cause, c.headRead, c.answered, c.want)
	}
	if !c.mayBe(c.reason) {
		c.fail("ended with %v (%s), which cannot be: %s, final %v, own %v, answer %d", c.reason, c.cause, why, c.finalWhy, c.own, c.answered)
	}
	cut := c.sock.dead || c.cause == "panic" || c.cause == "stalled" || c.cause == "pending" || c.cause == "budget" || c.cause == "reset" || c.cause == "timeout" ||
		gaveUp || c.sim.stopping || c.reason == ReasonMemory && !c.closed || c.reason == ReasonSlowReader
	if cut {
		return
	}
	c.whole = c.own == nil || !c.mayDrop
	c.settled("at its end")
	if c.answered == 101 && !c.out.boundary() {
		c.fail("the last frame is cut off")
	}
	if c.own != nil && !c.closed {
		c.fail("ended with %v, and its Close was not sent", c.reason)
	}
}

// prompt: what is owed is written at the end of the step, unless the peer must
// read first.
func (c *simClient) prompt() {
	if c.sh == nil || c.sock.dead || c.pendingSince != 0 || c.sim.panicked || c.sim.steps[c.sh.loop.Index()]-c.heldStep <= 4 {
		return
	}
	c.settled("after a step")
}

// settled: nothing may be owed any more.
func (c *simClient) settled(when string) {
	if c.own != nil && c.mayDrop {
		return
	}
	if c.headRead == c.head && c.status != 101 && c.status != 0 && c.answered == 0 {
		c.fail("%s it was not refused, and deserves %d", when, c.status)
	}
	posted := c.posted
	if c.out.message != 0 {
		posted = nil // nothing may come between the fragments of an echo
	}
	for _, w := range []simWant{c.want, c.pings, posted} {
		if len(w) > 0 && (c.own == nil || w[0].kind != wantClose) {
			c.fail("%s the server owes %v (reason %v, %s)", when, w[0], c.reason, c.cause)
		}
	}
}

// mayBe reports whether the connection may have ended for r.
func (c *simClient) mayBe(r Reason) bool {
	cfg := &c.sim.cfg
	switch {
	case c.answered != 0 && c.answered != 101:
		switch c.answered {
		case 408:
			return r == ReasonHandshake
		case 503:
			return r == ReasonFull || r == ReasonRefused
		}
		return r == ReasonRefused
	case c.closed && c.own != nil:
		return r == c.own.why
	case c.closed:
		return r == c.finalWhy
	case c.own != nil && r == c.own.why, c.final && r == c.finalWhy:
		return true
	}
	switch r {
	case ReasonPeerClosed:
		return c.finRead && c.headRead == 0
	case ReasonEOF:
		return c.finRead && c.headRead > 0
	case ReasonReset:
		return c.sock.dead
	case ReasonStalled:
		return c.now()-c.wroteAt >= int64(cfg.WriteTimeout)
	case ReasonSlowReader:
		return true // judged already
	case ReasonMemory:
		return cfg.MemoryBudget > 0
	case ReasonHandshake:
		return c.answered == 0 && c.now()-c.openedAt >= int64(cfg.HandshakeTimeout)
	case ReasonRefused:
		return c.answered == 0 && (c.status != 101 && c.headRead > 0 || c.sim.draining)
	case ReasonFull:
		return c.answered == 0 && cfg.MaxConnections > 0
	case ReasonDrain:
		return c.sim.stopping || c.sim.draining && c.headRead == 0
	}
	return false
}
