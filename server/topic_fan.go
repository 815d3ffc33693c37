package server

import (
	"sync"
	"sync/atomic"
	"time"

	"wspoll/epoll"

	"github.com/gobwas/ws"
)

// fan is what a loop has to send to its subscribers: messages in the order in
// which they were published, whatever their topic.
type fan struct {
	mu     sync.Mutex
	jobs   []job // guarded by mu: published, and not seen by the loop
	posted bool  // guarded by mu: fanOut is posted, or running

	count, bytes atomic.Int64 // of the messages that were published and are not sent

	// The rest is the loop's.
	run   func() // fanOut, made once
	taken []job  // what it took from jobs; the first is being sent if begun
	begun bool
	group int    // index in local.groups of the list that is being sent along
	room  []byte // for a frame that the message does not have
}

type job struct {
	lc *local
	m  *message
}

const (
	// A slice of a fan-out: so many messages to sockets, or so much time; then
	// the other connections of the loop have their turn.
	sliceSends = 256
	sliceTime  = time.Millisecond
	clockEvery = 16 // sends after which the clock is looked at

	// What may wait on a loop before Publish is refused. From half of it,
	// subscribers that publish are held back; from a quarter they go on.
	queueCount = 4096
	queueBytes = 16 << 20
)

// above says that more waits than a share of what may.
func (f *fan) above(share int64) bool {
	return f.count.Load() > queueCount/share || f.bytes.Load() > queueBytes/share
}

func (f *fan) full() bool { return f.above(1) }

// push takes a message, with a reference to it, for the subscribers of lc. It
// wakes the loop when it has nothing else to send. topic.mu is held.
func (f *fan) push(lc *local, m *message) {
	f.count.Add(1)
	f.bytes.Add(int64(m.size))
	f.mu.Lock()
	f.jobs = append(f.jobs, job{lc, m})
	wake := !f.posted
	f.posted = true
	f.mu.Unlock()
	if wake {
		lc.sh.loop.Post(f.run)
	}
}

// busy: there are messages to be sent.
func (f *fan) busy() bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.posted
}

// fanOut sends the next slice, and comes again if that was not all.
func (sh *shard) fanOut() {
	more := true
	defer func() { // also when the Close of an endpoint panicked
		if more {
			sh.loop.Post(sh.fan.run)
		}
	}()
	more = sh.fanSlice()
}

// fanSlice reports false when nothing is left.
func (sh *shard) fanSlice() bool {
	f := &sh.fan
	until := sh.loop.Clock() + int64(sliceTime)
	for n := 1; ; n++ {
		if !f.begun && !sh.nextJob() {
			return false
		}
		lc, m := f.taken[0].lc, f.taken[0].m
		for ; f.group < len(lc.groups); f.group++ {
			g := lc.groups[f.group]
			if g.next == g.end || m.again && !g.mode.numbered() {
				continue
			}
			b, deflated := m.bytes(sh, g.mode, &f.room)
			for ; g.next < g.end; n++ {
				if n > sh.srv.sliceSends || n%clockEvery == 0 && sh.loop.Clock() > until {
					return true
				}
				c := g.slots.at(g.next)
				g.next++
				sh.sendTo(c, g, m, b, deflated)
			}
		}
		sh.endJob(lc, m)
	}
}

// nextJob begins with the next message; false when there is none.
func (sh *shard) nextJob() bool {
	f := &sh.fan
	if len(f.taken) == 0 {
		f.mu.Lock()
		if len(f.jobs) == 0 {
			f.taken, f.posted = nil, false
			f.mu.Unlock()
			sh.dry()
			return false
		}
		f.taken, f.jobs = f.jobs, nil
		f.mu.Unlock()
	}
	f.begun, f.group = true, 0
	lc, m := f.taken[0].lc, f.taken[0].m
	before := lc.num
	lc.seq, lc.num = m.seq, m.last()
	for _, g := range lc.groups {
		g.next, g.end = 0, g.slots.len()
	}
	if lc.ahead > 0 {
		sh.overtake(lc, before)
	}
	if lc.behind > 0 {
		lc.keep(m)
		sh.bound(lc)
	}
	return true
}

func (sh *shard) endJob(lc *local, m *message) {
	f := &sh.fan
	f.taken[0] = job{}
	f.taken = f.taken[1:]
	f.begun = false
	for _, g := range lc.groups {
		g.next, g.end = 0, 0
	}
	f.count.Add(-1)
	f.bytes.Add(-int64(m.size))
	m.release()
	if !f.above(4) {
		sh.srv.topics.paused.resume()
	}
}

// sendTo sends m, whose frame is b, to one subscriber that has all before it.
func (sh *shard) sendTo(c epoll.Slot, g *group, m *message, b []byte, deflated bool) {
	st, l := sh.conns.At(c), sh.loop
	switch {
	case m.from == sh && l.ID(c) == m.fromID:
		sh.own(c, st, g, m)
		return
	case st.phase != phaseOpen || st.proto.CloseSent():
		return
	case st.flags&flagMidSend != 0 || l.Pending(c) > 0:
		sh.fallBehind(c, st, g, m, false)
		return
	}
	if deflated && g.mode.chained() {
		b = sh.inChain(c, m, g.mode, &sh.lateRoom)
	}
	sh.direct(c, m, b)
	if l.Pending(c) > 0 {
		sh.fallBehind(c, st, g, m, true)
	}
}

// direct sends c the frame b of m.
func (sh *shard) direct(c epoll.Slot, m *message, b []byte) {
	sh.stats.FramesOut++
	sh.stats.BytesOut += uint64(len(m.payload()))
	sh.loop.Direct(c, b)
}

// own tells the sender of m, if it counts, the number that m got.
func (sh *shard) own(c epoll.Slot, st *state, g *group, m *message) {
	if !g.mode.numbered() {
		return
	}
	if m.lost && m.num > m.after+1 {
		sh.tell(c, st, "gap", m.topic.name, m.after+1, m.num-1)
	}
	if m.num > 0 { // else it comes again with its number
		sh.tell(c, st, "own", m.topic.name, m.num)
	}
}

// tell sends a line about a topic to a subscriber of modeSeq.
func (sh *shard) tell(c epoll.Slot, st *state, word, topic string, numbers ...uint64) {
	if st.phase != phaseOpen || st.proto.CloseSent() {
		return
	}
	var room [maxLine]byte
	sh.data(c, true, ws.OpText, appendLine(room[:0], word, topic, numbers...))
}

// pausedConns are the connections that are not read from because they publish
// more than the loops can send.
type pausedConns struct {
	count atomic.Int64
	mu    sync.Mutex
	refs  []Ref
}

// holdBack pauses a connection that has published, when much waits.
func (tp *Topics) holdBack(c Conn) {
	over := func() bool {
		if tp.relayFull.Load() {
			return true
		}
		for _, sh := range tp.srv.shards {
			if sh.fan.above(2) {
				return true
			}
		}
		return false
	}
	slot, st := c.find()
	if st == nil || !over() {
		return
	}
	c.sh.loop.Pause(slot)
	p := &tp.paused
	p.mu.Lock()
	p.refs = append(p.refs, c.Ref())
	p.count.Add(1)
	p.mu.Unlock()
	if !over() { // since then the loops may have passed the mark, and seen nobody
		p.resume()
	}
}

// resume lets all go on.
func (p *pausedConns) resume() {
	if p.count.Load() == 0 {
		return
	}
	p.mu.Lock()
	refs := p.refs
	p.refs = nil
	p.count.Store(0)
	p.mu.Unlock()
	for _, r := range refs {
		r.post(func() {
			if c, ok := r.sh.loop.Find(r.id); ok {
				r.sh.loop.Resume(c)
			}
		}, func() {})
	}
}
