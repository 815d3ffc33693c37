package server

import (
	"wspoll/epoll"
	"wspoll/frame"

	"github.com/gobwas/ws"
)

// join puts the pieces of a message together and delivers it when it is whole.
// One that arrives whole, as small ones do, is delivered from the read buffer.
// Memory is taken, from the budget too, as bytes arrive and not as they are
// declared.
func (sh *shard) join(c epoll.Slot, st *state, conn Conn, ep *Endpoint, p *frame.Piece) {
	if p.First && p.Last {
		sh.deliver(c, st, conn, ep, p.Op, p.Data)
		return
	}
	j := sh.joins[c]
	if j == nil {
		j = new(frame.Joiner)
		sh.joins[c] = j
		st.flags |= flagJoining
	}
	if need := len(j.Buf) + len(p.Data); need > cap(j.Buf) {
		size := max(need, 2*cap(j.Buf))
		if !sh.srv.group.Budget().Reserve(size - cap(j.Buf)) {
			sh.endJoin(c, st)
			sh.sendClose(c, st, ReasonMemory, statusTryAgainLater, "out of memory for messages; try again later")
			return
		}
		// Reserved is what cap says: append could round it up.
		j.Buf = append(make([]byte, 0, size)[:0:size], j.Buf...)
	}
	if msg, whole := j.Add(p); whole {
		id := conn.id
		sh.deliver(c, st, conn, ep, p.Op, msg)
		if sh.loop.ID(c) == id { // else Closed has seen to it
			sh.endJoin(c, st)
		}
	}
}

func (sh *shard) endJoin(c epoll.Slot, st *state) {
	st.flags &^= flagJoining
	if j := sh.joins[c]; j != nil {
		sh.srv.group.Budget().Release(cap(j.Buf))
		delete(sh.joins, c)
	}
}

func (sh *shard) deliver(c epoll.Slot, st *state, conn Conn, ep *Endpoint, op ws.OpCode, msg []byte) {
	if ep.Message != nil {
		ep.Message(conn, op, msg)
		return
	}
	sh.enqueue(c, st, conn, ep, op, msg)
}

// statusTryAgainLater is 1013, which IANA registered after RFC 6455.
const statusTryAgainLater ws.StatusCode = 1013

// postpone keeps a whole frame for c until the message that SendPiece began ends.
func (sh *shard) postpone(c epoll.Slot, f []byte) {
	st := sh.conns.At(c)
	old := sh.postponed[c]
	size := len(old) + len(f)
	if size > sh.srv.cfg.MaxPending {
		st.reason = ReasonSlowReader
		sh.loop.Close(c)
		return
	}
	if size > cap(old) {
		grown := make([]byte, len(old), max(size, 2*cap(old)))
		if !sh.srv.group.Budget().Reserve(cap(grown) - cap(old)) {
			st.reason = ReasonMemory
			sh.loop.Close(c)
			return
		}
		copy(grown, old)
		old = grown
	}
	sh.postponed[c] = append(old, f...)
	st.flags |= flagPostponed
	sh.stats.FramesOut++
}

// sendPostponed sends what postpone kept.
func (sh *shard) sendPostponed(id epoll.ID) {
	c, ok := sh.loop.Find(id)
	if !ok {
		return
	}
	b := sh.postponed[c]
	delete(sh.postponed, c)
	sh.conns.At(c).flags &^= flagPostponed
	defer sh.srv.group.Budget().Release(cap(b)) // also when Write ends the connection and Close panics
	sh.loop.Write(c, b)
}
