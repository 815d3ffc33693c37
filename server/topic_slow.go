package server

import (
	"wspoll/epoll"

	"github.com/gobwas/ws"
)

// Subscribers that are behind: those whose socket is full, those that send a
// message in pieces and stand in the middle of it, and newcomers that asked
// for older messages. They are not in the list of their group. What they have
// not got is in local.kept, and they take it from there when they can.

// fallBehind takes c out of the list: it has had the message m that is being
// sent, or only those before it.
func (sh *shard) fallBehind(c epoll.Slot, st *state, g *group, m *message, had bool) {
	lc, at := g.local, reached{seq: m.seq, num: m.last()}
	if !had {
		at = reached{seq: m.seq - 1, num: m.after}
		if len(lc.kept) == 0 {
			lc.keep(m)
		}
	}
	sh.delist(g, sh.placeIn(c, st, g))
	sh.putApart(c, g, at)
}

// catchUp gives c what it has missed, as much as its socket takes, and puts it
// back into the list when that was all.
func (sh *shard) catchUp(c epoll.Slot, st *state, g *group) {
	lc, l := g.local, sh.loop
	id := l.ID(c)
	for n := 0; ; n++ {
		at := g.behind[c]
		switch {
		case st.phase != phaseOpen || st.proto.CloseSent():
			return // it leaves with its end
		case at.num > lc.num || st.flags&flagMidSend != 0 || l.Pending(c) > 0:
			return // it comes again
		case at.seq == lc.seq:
			sh.takeBack(c, g)
			sh.enlist(c, g)
			return
		case n == sh.srv.sliceSends:
			sh.later(id)
			return
		}
		first := lc.first()
		if at.seq+1 < first { // lost meanwhile
			if lc.topic.policy == PolicyClose {
				sh.tooSlow(c, st, g, at)
				return
			}
			lc.topic.drop(dropOf(lc.topic.policy), first-1-at.seq)
			floor := lc.floor()
			g.behind[c] = reached{seq: first - 1, num: floor, fresh: at.fresh}
			if g.mode.numbered() && floor > at.num {
				sh.tell(c, st, "gap", lc.topic.name, at.num+1, floor)
				l.Flush(c)
			}
		} else {
			m := lc.kept[at.seq+1-first]
			g.behind[c] = reached{seq: m.seq, num: m.last()}
			switch {
			case m.from == sh && id == m.fromID:
				sh.own(c, st, g, m)
				l.Flush(c)
			case m.again && !g.mode.numbered() && !at.fresh:
			default:
				b, deflated := m.bytes(sh, g.mode, &sh.lateRoom)
				if deflated && g.mode.chained() {
					b = sh.inChain(c, m, g.mode, &sh.lateRoom)
				}
				sh.direct(c, m, b)
			}
		}
		if l.ID(c) != id {
			return // the socket was found broken
		}
	}
}

// later goes on with a subscriber that is behind when others have had their turn.
func (sh *shard) later(id epoll.ID) {
	sh.loop.Post(func() {
		if c, ok := sh.loop.Find(id); ok {
			sh.drained(c)
		}
	})
}

func dropOf(p Policy) Drop {
	if p == PolicyLatest {
		return DropLatest
	}
	return DropOldest
}

// bound keeps what is kept on a loop for those behind within its limit. Whoever
// has not had what goes is closed, if that is the policy.
func (sh *shard) bound(lc *local) {
	n, bytes := 0, lc.keptBytes
	for n < len(lc.kept)-1 && (bytes > sh.srv.topics.cfg.Pending || lc.topic.policy == PolicyLatest) {
		bytes -= lc.kept[n].size
		n++
	}
	if n == 0 {
		return
	}
	lc.forgetOldest(n)
	if lc.topic.policy != PolicyClose {
		return
	}
	first := lc.first()
	for _, g := range lc.groups {
		for c, at := range g.behind {
			if at.seq+1 < first {
				sh.tooSlow(c, sh.conns.At(c), g, at)
			}
		}
	}
}

// tooSlow ends a subscriber that is more behind than it may be.
func (sh *shard) tooSlow(c epoll.Slot, st *state, g *group, at reached) {
	t, id := g.local.topic, sh.loop.ID(c)
	// First the Close: the flush of what is for another connection may panic
	// in the Close of its endpoint, and then c must be found here again.
	sh.sendClose(c, st, ReasonSlowReader, statusTryAgainLater, "too slow for topic "+t.name)
	if sh.loop.ID(c) != id {
		return
	}
	t.drop(DropClosed, g.local.seq-at.seq)
	at.seq = g.local.seq // so that they are counted once
	g.behind[c] = at
	sh.leaveAll(c, st)
}

// overtake looks at those that came with a number above before, the newest one
// until now on this loop, after a message was begun. Who has that message, or a
// later one, is not to get it.
func (sh *shard) overtake(lc *local, before uint64) {
	lc.ahead = 0
	for _, g := range lc.groups {
		for c, at := range g.behind {
			switch {
			case at.num <= before:
				continue // it is behind for another reason
			case at.num > lc.num:
				lc.ahead++
				fallthrough
			case at.num == lc.num:
				at.seq = lc.seq
				g.behind[c] = at
			}
			if at.num <= lc.num {
				sh.later(sh.loop.ID(c))
			}
		}
	}
}

// drained goes on with c after its socket, or its endpoint, was in the middle
// of something.
func (sh *shard) drained(c epoll.Slot) {
	st, id := sh.conns.At(c), sh.loop.ID(c)
	if st.group == groupNone {
		return
	}
	sh.seats(c, st, func(g *group, place uint32) bool {
		if place == placeApart {
			sh.catchUp(c, st, g)
		}
		return sh.loop.ID(c) == id
	})
	if sh.loop.ID(c) != id {
		return
	}
	if sh.leaving {
		sh.goodbye(c, st)
	}
}

// goodbye tells c that the server goes down, when c has what was published.
func (sh *shard) goodbye(c epoll.Slot, st *state) {
	if st.group == groupNone || !sh.fan.busy() && !sh.isApart(c, st) {
		sh.sendClose(c, st, ReasonDrain, ws.StatusGoingAway, "the server is going down")
	}
}

// isApart: c has not had all that its loop has sent.
func (sh *shard) isApart(c epoll.Slot, st *state) (apart bool) {
	sh.seats(c, st, func(g *group, place uint32) bool {
		// Who knows a higher number than the loop lacks nothing that is here.
		apart = place == placeApart && g.behind[c].num <= g.local.num
		return !apart
	})
	return apart
}

// dry: all that was published is sent.
func (sh *shard) dry() {
	if !sh.leaving {
		return
	}
	sh.loop.Each(func(c epoll.Slot) {
		if st := sh.conns.At(c); st.phase == phaseOpen {
			sh.goodbye(c, st)
		}
	})
}
