package server

import (
	"wspoll/epoll"
)

// What a loop has of a topic. It all belongs to the loop's goroutine.
//
// The subscribers of one loop, topic and mode are a group: a list of slots,
// four bytes each. A connection's state holds its group and its place in the
// list, so that it can leave in a few steps. While a message is sent along the
// list, the list has three parts:
//
//	[0, next)    have the message
//	[next, end)  are waiting for it
//	[end, len)   came since it was begun, and are not to get it
//
// Who leaves is replaced by the last of its own part, that one by the last of
// the next part, and so on: nobody moves from one part to another, so nobody
// is skipped and nobody is served twice.
//
// So a place in the list is enough to know what a subscriber has had. Who is
// not as far as that, because its socket is full or because it asked for older
// messages, is not in the list but in behind, with what it has reached.

// local is a topic on a loop.
type local struct {
	topic  *topic
	sh     *shard
	seq    uint64     // of the message that was begun last
	num    uint64     // and the newest number then
	groups []*group   // at most one for each mode
	subs   int        // subscribers on this loop; guarded by topic.mu, written by the loop
	kept   []*message // while somebody is behind: the last ones, without a gap, up to seq

	keptBytes int
	behind    int // subscribers in the behind of the groups
	ahead     int // of these, those that have seen a number above num
}

// first is the number of the oldest message that is kept, one more than seq when none is.
func (lc *local) first() uint64 { return lc.seq + 1 - uint64(len(lc.kept)) }

// floor is the number that those must have reached who have missed nothing when
// they get what is kept.
func (lc *local) floor() uint64 {
	if len(lc.kept) > 0 {
		return lc.kept[0].after
	}
	return lc.num
}

func (lc *local) keep(m *message) {
	lc.kept = append(lc.kept, m.hold())
	lc.keptBytes += m.size
}

// forgetOldest lets go of the oldest n messages.
func (lc *local) forgetOldest(n int) {
	for i, m := range lc.kept[:n] {
		lc.keptBytes -= m.size
		m.release()
		lc.kept[i] = nil
	}
	if lc.kept = lc.kept[n:]; len(lc.kept) == 0 {
		lc.kept = nil
	}
}

// group is the subscribers of a local that share a mode.
type group struct {
	local     *local
	mode      mode
	index     uint16 // in shard.groups
	slots     roster
	next, end int
	behind    map[epoll.Slot]reached // not in slots
}

// reached is how far a subscriber has got that is not in the list.
type reached struct {
	seq   uint64 // of the last message that it has had, or needs not have
	num   uint64 // the newest number that it knows of
	fresh bool   // it came to the topic now and has not had any yet
}

const (
	groupNone  uint16 = 0         // state.group of a connection on no topic
	groupMany  uint16 = 1<<16 - 1 // and of one on several: they are in shard.several
	placeApart uint32 = 1<<32 - 1 // in behind, and not in slots
	maxSeveral        = 32        // topics in one request

	// With so many groups on a loop no more are made for compression, whose
	// subscribers get their messages as they are then: clients that agree on
	// all sizes of windows leave room for others.
	manyGroups = 1 << 15
)

// seat is the place of a connection in one of its groups.
type seat struct {
	group uint16
	place uint32
}

// groupOf is the group of lc for a mode, made when there is none; nil when
// there are too many on the loop.
func (sh *shard) groupOf(lc *local, md mode) *group {
	for _, g := range lc.groups {
		if g.mode == md {
			return g
		}
	}
	if md.bits() != 0 && len(sh.groups)-len(sh.freeGroups) >= sh.srv.manyGroups {
		return sh.groupOf(lc, md.uncompressed())
	}
	g := &group{local: lc, mode: md, behind: map[epoll.Slot]reached{}}
	if len(sh.groups) == 0 {
		sh.groups = append(sh.groups, nil) // groupNone
	}
	switch n := len(sh.freeGroups); {
	case n > 0:
		g.index = sh.freeGroups[n-1]
		sh.freeGroups = sh.freeGroups[:n-1]
		sh.groups[g.index] = g
	case len(sh.groups) == int(groupMany):
		return nil
	default:
		g.index = uint16(len(sh.groups))
		sh.groups = append(sh.groups, g)
	}
	lc.groups = append(lc.groups, g)
	return g
}

// freeGroupsOf makes the indexes of the groups free, when nobody is in them.
func (sh *shard) freeGroupsOf(lc *local) {
	for _, g := range lc.groups {
		sh.groups[g.index] = nil
		sh.freeGroups = append(sh.freeGroups, g.index)
	}
}

// seats calls f for each group that c is in, until f returns false. f may take
// c off the group it is called for, or off all.
func (sh *shard) seats(c epoll.Slot, st *state, f func(g *group, place uint32) bool) {
	switch st.group {
	case groupNone:
	case groupMany:
		all := sh.several[c]
		for i := len(all) - 1; i >= 0 && i < len(sh.several[c]); i-- {
			if s := sh.several[c][i]; !f(sh.groups[s.group], s.place) {
				return
			}
		}
	default:
		f(sh.groups[st.group], st.place)
	}
}

// placeIn is the place of c in the list of g, which it is in.
func (sh *shard) placeIn(c epoll.Slot, st *state, g *group) int {
	if st.group != groupMany {
		return int(st.place)
	}
	for _, s := range sh.several[c] {
		if s.group == g.index {
			return int(s.place)
		}
	}
	return -1
}

// sit notes that c is in g at place: a new seat or another place.
func (sh *shard) sit(c epoll.Slot, g *group, place uint32) {
	st := sh.conns.At(c)
	switch st.group {
	case groupNone:
		st.group, st.place = g.index, place
		return
	case g.index:
		st.place = place
		return
	case groupMany:
	default:
		sh.several[c] = []seat{{st.group, st.place}}
		st.group = groupMany
	}
	all := sh.several[c]
	for i := range all {
		if all[i].group == g.index {
			all[i].place = place
			return
		}
	}
	sh.several[c] = append(all, seat{g.index, place})
}

// stand is the end of c's seat in g.
func (sh *shard) stand(c epoll.Slot, st *state, g *group) {
	if st.group != groupMany {
		st.group, st.place = groupNone, 0
		return
	}
	all := sh.several[c]
	for i := range all {
		if all[i].group == g.index {
			all = append(all[:i], all[i+1:]...)
			break
		}
	}
	if sh.several[c] = all; len(all) == 0 {
		delete(sh.several, c)
		st.group, st.place = groupNone, 0
	}
}

// enlist puts c, which has every message up to local.seq, into the list.
func (sh *shard) enlist(c epoll.Slot, g *group) {
	g.slots.add(c)
	sh.sit(c, g, uint32(g.slots.len()-1))
}

// delist takes place p out of the list and leaves every other subscriber in
// the part of the list that it is in.
func (sh *shard) delist(g *group, p int) {
	if p < g.next {
		g.next--
		p = sh.fill(g, p, g.next)
	}
	if p < g.end {
		g.end--
		p = sh.fill(g, p, g.end)
	}
	sh.fill(g, p, g.slots.len()-1)
	g.slots.drop()
}

// fill moves who is at place from to place to, and returns from, which is free then.
func (sh *shard) fill(g *group, to, from int) int {
	if to != from {
		c := g.slots.at(from)
		g.slots.set(to, c)
		sh.sit(c, g, uint32(to))
	}
	return from
}

// putApart puts c, which is not in the list, behind: it is where at says.
func (sh *shard) putApart(c epoll.Slot, g *group, at reached) {
	lc := g.local
	g.behind[c] = at
	sh.sit(c, g, placeApart)
	lc.topic.behind.Add(1)
	if lc.behind++; at.num > lc.num {
		lc.ahead++
	}
}

// takeBack takes c out of behind; what only it needed is let go of.
func (sh *shard) takeBack(c epoll.Slot, g *group) (at reached) {
	lc := g.local
	at = g.behind[c]
	delete(g.behind, c)
	if at.num > lc.num {
		lc.ahead--
	}
	lc.topic.behind.Add(-1)
	if lc.behind--; lc.behind == 0 {
		lc.forgetOldest(len(lc.kept))
	}
	return at
}

// leave takes c off the topic of g.
func (sh *shard) leave(c epoll.Slot, st *state, g *group, place uint32) {
	lc := g.local
	if place == placeApart {
		if at := sh.takeBack(c, g); at.seq < lc.seq {
			lc.topic.drop(DropEnded, lc.seq-at.seq)
		}
	} else {
		sh.delist(g, int(place))
	}
	sh.stand(c, st, g)
	sh.unchain(c, lc.topic)
	sh.srv.topics.left(lc, g.mode)
	if lc.subs == 0 {
		sh.freeGroupsOf(lc)
	}
}

// leaveAll takes c off all its topics.
func (sh *shard) leaveAll(c epoll.Slot, st *state) {
	sh.seats(c, st, func(g *group, place uint32) bool {
		sh.leave(c, st, g, place)
		return true
	})
}
