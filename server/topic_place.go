package server

import "slices"

// Where a subscriber begins, and how it leaves.

// enter makes sh the loop of one more subscriber of a topic in a mode.
func (tp *Topics) enter(sh *shard, name string, md mode, begin beginning) (lc *local, at reached, err error) {
	tp.mu.RLock()
	defer tp.mu.RUnlock()
	t, err := tp.find(name, true)
	if err != nil {
		return nil, at, err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	lc = t.locals[sh.loop.Index()]
	if lc == nil {
		lc = &local{topic: t, sh: sh, seq: t.seq, num: t.num}
		t.locals[sh.loop.Index()] = lc
	}
	lc.subs++
	t.subs++
	if md.numbered() {
		t.numbered++
	}
	return lc, t.place(lc, begin), nil
}

// beginning is with which message a subscriber begins: the retained one if
// there is one, or the one after the number that it saw last.
type beginning struct {
	given bool
	since uint64
}

// place says where a newcomer on lc begins, and gives lc the messages from
// there on, as far as they are kept. mu is held.
func (t *topic) place(lc *local, begin beginning) reached {
	at := reached{seq: lc.seq, num: lc.num, fresh: true}
	switch {
	case !begin.given:
		// What lc has not begun to send yet comes by itself.
		if t.retain && len(t.kept) > 0 && t.kept[0].seq <= lc.seq {
			m := t.kept[lc.seq-t.kept[0].seq]
			at.seq, at.num = m.seq-1, m.after
		}
	case t.topics.foreign():
	default:
		if at.num = t.known(begin.since); at.num < lc.num {
			at.seq = 0 // found below
		}
	}
	if at.seq == lc.seq {
		return at
	}
	first := lc.first()
	var older []*message
	for _, m := range t.kept {
		if m.seq < first && m.seq > at.seq && (!begin.given || m.last() > at.num) {
			older = append(older, m.hold())
			lc.keptBytes += m.size
		}
	}
	if len(older) > 0 {
		lc.kept = append(older, lc.kept...)
	}
	if at.seq > 0 {
		return at
	}
	for _, m := range slices.Backward(lc.kept) {
		if m.last() <= at.num {
			at.seq = m.seq
			break
		}
		if m.after <= at.num {
			at.seq = m.seq - 1
		}
	}
	return at // seq is 0 still if what follows num is lost
}

// foreign: the number that a subscriber brings may be another server's, and means
// nothing here.
func (tp *Topics) foreign() bool { return tp.relay != nil && !tp.stream }

// known is the number that a subscriber has which brings n: one that was never
// given means the newest.
func (t *topic) known(n uint64) uint64 {
	if n <= t.num || t.topics.stream && n > t.topics.newest.Load() {
		return n // or other servers are ahead of this one: it is not to get it twice
	}
	return t.num
}

// left takes one subscriber of lc off its topic, lc itself with the last, and
// the topic when it has nothing any more. Called on the loop of lc.
func (tp *Topics) left(lc *local, md mode) {
	t := lc.topic
	t.mu.Lock()
	lc.subs--
	t.subs--
	if md.numbered() {
		t.numbered--
	}
	if lc.subs == 0 {
		t.locals[lc.sh.loop.Index()] = nil // what is queued for it finds nobody
	}
	if t.subs == 0 {
		t.dropChains()
	}
	idle := t.idle()
	t.mu.Unlock()
	if !idle {
		return
	}
	tp.mu.Lock()
	t.mu.Lock()
	if t.idle() && tp.byName[t.name] == t {
		delete(tp.byName, t.name)
	}
	t.mu.Unlock()
	tp.mu.Unlock()
}

// idle: nobody would miss it. mu is held.
func (t *topic) idle() bool { return t.subs == 0 && len(t.kept) == 0 }
