package server

import (
	"wspoll/epoll"

	"github.com/gobwas/ws"
)

// Subscribers that are behind: those whose socket is full, those that send a
// message in pieces and stand in the middle of it, and newcomers that asked
// for older messages. They are not in the list of their group. What they have
// not got is in local.kept, and they take it from there when they can.

// fallBehind takes c out of the list: it has had messages up to pos, which is m,
// the message that is being sent, or the one before it.
func (sh *shard) fallBehind(c epoll.Slot, st *state, g *group, m *message, pos uint64) {
	lc := g.local
	if pos < lc.seq && len(lc.kept) == 0 {
		lc.keep(m)
	}
	sh.delist(g, sh.placeIn(c, st, g))
	sh.putApart(c, g, pos)
}

// catchUp gives c what it has missed, as much as its socket takes, and puts it
// back into the list when that was all.
func (sh *shard) catchUp(c epoll.Slot, st *state, g *group) {
	lc, l := g.local, sh.loop
	id := l.ID(c)
	for n := 0; ; n++ {
		pos := g.behind[c]
		switch {
		case st.phase != phaseOpen || st.proto.CloseSent():
			return // it leaves with its end
		case pos > lc.seq || st.flags&flagMidSend != 0 || l.Pending(c) > 0:
			return // it comes again
		case pos == lc.seq:
			sh.takeBack(c, g)
			sh.enlist(c, g)
			return
		case n == sh.srv.sliceSends:
			l.Post(func() {
				if c, ok := l.Find(id); ok {
					sh.drained(c)
				}
			})
			return
		}
		first := lc.first()
		if pos+1 < first { // lost meanwhile
			if lc.topic.policy == PolicyClose {
				sh.tooSlow(c, st, g, pos)
				return
			}
			g.behind[c] = first - 1
			lc.topic.drop(dropOf(lc.topic.policy), first-1-pos)
			if g.mode == modeSeq {
				sh.tell(c, st, "gap", lc.topic.name, pos+1, first-1)
				l.Flush(c)
			}
		} else {
			m := lc.kept[pos+1-first]
			g.behind[c] = pos + 1
			if m.from == sh && id == m.fromID {
				sh.own(c, st, g, m)
				l.Flush(c)
			} else {
				sh.stats.FramesOut++
				sh.stats.BytesOut += uint64(len(m.payload()))
				l.Direct(c, m.bytes(g.mode, &sh.lateRoom))
			}
		}
		if l.ID(c) != id {
			return // the socket was found broken
		}
	}
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
		for c, pos := range g.behind {
			if pos+1 < first {
				sh.tooSlow(c, sh.conns.At(c), g, pos)
			}
		}
	}
}

// tooSlow ends a subscriber that is more behind than it may be.
func (sh *shard) tooSlow(c epoll.Slot, st *state, g *group, pos uint64) {
	t, id := g.local.topic, sh.loop.ID(c)
	// First the Close: the flush of what is for another connection may panic
	// in the Close of its endpoint, and then c must be found here again.
	sh.sendClose(c, st, ReasonSlowReader, statusTryAgainLater, "too slow for topic "+t.name)
	if sh.loop.ID(c) != id {
		return
	}
	t.drop(DropClosed, g.local.seq-pos)
	g.behind[c] = g.local.seq // so that they are counted once
	sh.leaveAll(c, st)
}

// overtake puts those into the list who have seen the message that is begun
// now, but not a later one: the loop has caught up with them.
func (sh *shard) overtake(lc *local) {
	lc.ahead = 0
	for _, g := range lc.groups {
		for c, pos := range g.behind {
			switch {
			case pos > lc.seq:
				lc.ahead++
			case pos == lc.seq && sh.loop.Pending(c) == 0 && sh.conns.At(c).flags&flagMidSend == 0:
				sh.takeBack(c, g)
				sh.enlist(c, g)
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
	sh.seats(c, st, func(_ *group, place uint32) bool {
		apart = place == placeApart
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
