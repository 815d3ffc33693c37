package server

import (
	"unsafe"

	"wspoll/epoll"
	"wspoll/frame"
)

// With context takeover the messages of a topic refer to those before them,
// and are shared all the same. In each mode a topic has a chain: messages that
// were compressed one after the other, each of which refers to the ones behind
// the last keyframe, and a keyframe to none. Who has got a keyframe, and every
// link since then, and nothing else that was compressed, has the very window
// that the next link refers to. Everybody else (who came in between, was served
// by another topic, has skipped messages or published one of them) gets the
// message in a form that refers to none, until the next keyframe.
//
// No link can be put in behind a later one. So when the first subscriber with a
// mode on one loop has its messages linked while the other loops lag behind,
// what these have not come to yet, up to there, goes without references.
//
// So a connection needs to know only where it is, and what is sent to it alone
// goes uncompressed while it is in a chain.

// chainLinks is the number of messages from one keyframe to the next.
const chainLinks = 64

// chain is what a topic has for a mode. topic.packing guards it.
type chain struct {
	frame.Deflation        // text of the links since the keyframe
	key, last       uint64 // seq of the keyframe, and of the newest link
	links           int    // since the keyframe, with it; 0: the next one is a keyframe
	charged         int    // to the budget
}

// chainPlace is where a connection is in a chain: it has had all links from key to last.
type chainPlace struct {
	topic     *topic // nil: in none
	key, last uint64
}

// link makes m the next of the chain of mode md, if that can be. m.topic.packing
// is held. Nil: there was no memory.
func (m *message) link(sh *shard, md mode, size int, room *[]byte) *form {
	t := m.topic
	ch := t.chains[md]
	if ch == nil {
		if t.chains == nil {
			t.chains = map[mode]*chain{}
		}
		ch = new(chain)
		t.chains[md] = ch
	}
	f := &form{mode: md}
	if late := m.seq <= ch.last; late || ch.links == 0 || ch.links == chainLinks {
		alone := m.find(md.alone())
		if alone == nil {
			alone = m.add(m.pack(sh, md.alone(), nil, size, room))
		}
		if alone == nil {
			return nil
		}
		f.frame = alone.frame
		if late || f.frame == nil {
			return m.add(f)
		}
		ch.key, ch.links = m.seq, 0
		ch.Window = ch.Window[:0]
	} else if f = m.pack(sh, md, &ch.Deflation, size, room); f == nil || f.frame == nil {
		return m.add(f)
	}
	f.linked, f.key, f.prev = true, ch.key, ch.last
	b := m.plain(md.uncompressed(), room)
	ch.Keep(b[len(b)-size:], md.bits())
	ch.last = m.seq
	if ch.links++; !sh.charge(&ch.charged, cap(ch.Window)) {
		ch.Window, ch.links = nil, 0
		sh.srv.group.Budget().Release(ch.charged)
		ch.charged = 0
	}
	return m.add(f)
}

// dropChains is for a topic without subscribers.
func (t *topic) dropChains() {
	t.packing.Lock()
	defer t.packing.Unlock()
	for _, ch := range t.chains {
		t.topics.srv.group.Budget().Release(ch.charged)
	}
	t.chains = nil
}

// inChain is the frame of m, which is compressed in the chained mode md, for c:
// the link if c is where that follows, and else one that refers to nothing, or
// is not compressed.
func (sh *shard) inChain(c epoll.Slot, m *message, md mode, room *[]byte) []byte {
	f, s := m.find(md), sh.squeeze.out[c]
	switch {
	case f.linked && f.key == m.seq:
		if s == nil || s.in.topic == nil {
			sh.forgetOut(c)
			s = new(deflation)
			if !sh.charge(&s.charged, int(unsafe.Sizeof(*s))) {
				return f.frame
			}
			sh.squeeze.out[c] = s
		}
		s.in = chainPlace{m.topic, m.seq, m.seq}
		return f.frame
	case f.linked && s != nil && s.in == chainPlace{m.topic, f.key, f.prev}:
		s.in.last = m.seq
		return f.frame
	}
	b, deflated := m.bytes(sh, md.alone(), room)
	if deflated {
		// The client's window takes it in. Ours would be behind, and what
		// refers to it reach back too little.
		sh.forgetOut(c)
	}
	return b
}

// chained: c is in a chain, whose window no other message may move.
func (q *squeeze) chained(c epoll.Slot) bool {
	s := q.out[c]
	return s != nil && s.in.topic != nil
}

// unchain takes c out of the chain of a topic that it leaves.
func (sh *shard) unchain(c epoll.Slot, t *topic) {
	if s := sh.squeeze.out[c]; s != nil && s.in.topic == t {
		sh.forgetOut(c)
	}
}
