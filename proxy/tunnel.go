package proxy

import "wspoll/epoll"

// spliceFrom is how much one read must bring for the rest to be moved without
// coming into memory, and spliceMost how much is moved before the other
// connections of the loop have their turn.
const (
	spliceFrom = readBuffer
	spliceMost = 1 << 20
)

// bytes passes on what c sent, whatever it is.
func (sh *shard) bytes(c epoll.Slot, st *state, in []byte) int {
	l, to, p, d := sh.loop, st.other, sh.pairs.At(st.pair), st.direction()
	st.seen = l.Tick()
	if to == 0 {
		return len(in)
	}
	p.bytes[d] += uint64(len(in))
	sh.stats.Bytes[d] += uint64(len(in))
	id := l.ID(c)
	l.Write(to, in)
	if l.ID(c) != id || st.other != to {
		return len(in)
	}
	if len(in) >= spliceFrom {
		n := uint64(l.Splice(c, to, spliceMost))
		p.bytes[d] += n
		sh.stats.Bytes[d] += n
		sh.stats.Spliced += n
		if l.ID(c) != id || st.other != to {
			return len(in)
		}
	}
	sh.hold(c, to, st)
	return len(in)
}

// halfClosed: c sends no more, and the other side o is told so by FIN, behind
// what waits for it. When both have said so, that was all.
func (sh *shard) halfClosed(c epoll.Slot, st *state, o epoll.Slot) {
	l, ost := sh.loop, sh.conns.At(o)
	st.flags |= flagEOF
	if st.is(flagBackend) {
		sh.pairs.At(st.pair).end(ReasonBackend)
	} else {
		sh.pairs.At(st.pair).end(ReasonClient)
	}
	l.KeepOpen(c)
	if ost.is(flagEOF) {
		l.Finish(c, false)
		l.Finish(o, false)
		return
	}
	if !l.Shut(o) {
		ost.flags |= flagShut
	}
}
