package proxy

import (
	"crypto/rand"
	"time"

	"wspoll/epoll"
	"wspoll/frame"

	"github.com/gobwas/ws"
)

// Frames that pass, and how they end.

// frames passes on what c sent. Whole frames that lie one behind the other go
// on in one piece, from where they were read.
func (sh *shard) frames(c epoll.Slot, st *state, in []byte) (done int) {
	l := sh.loop
	id, to, p := l.ID(c), st.other, sh.pairs.At(st.pair)
	pinged := st.is(flagPinged)
	st.seen = l.Tick()
	st.flags &^= flagPinged
	if st.is(flagCloseIn) {
		return len(in) // "an endpoint MUST NOT send any more data frames" behind a Close (§5.5.1)
	}
	rules := sh.rulesFor(st, p)
	start := 0 // in[start:done] are whole frames that have not gone on
	for done < len(in) {
		n, err := st.pass.Next(rules, in[done:], holdMax, &sh.part)
		if n == 0 && err == nil {
			break
		}
		part := &sh.part
		if err == nil && part.Head == nil && part.Op != ws.OpClose && !(pinged && part.Op == ws.OpPong) {
			sh.count(p, st, part)
			done += n
			continue
		}
		// All else is looked at: faults, Closes, runs of large frames, and the
		// pongs to pings of ours.
		if done > start && !sh.send(c, id, to, in[start:done]) {
			return len(in)
		}
		if err != nil {
			sh.fault(c, st, err.(*frame.Error))
			return len(in)
		}
		done += n
		start = done
		sh.count(p, st, part)
		switch {
		case part.Op == ws.OpClose:
			sh.closeCame(c, st, part)
			return len(in)
		case part.Op == ws.OpPong:
			if string(part.AppendPayload(sh.small[:0])) != pingText {
				start -= n // the other side has asked for it
			}
		default:
			if to = st.other; sh.mute(to) {
				continue
			}
			l.SetOut(append(l.Out(to), part.Head...))
			if !sh.send(c, id, to, part.Bytes) {
				return len(in)
			}
		}
	}
	if done > start && !sh.send(c, id, to, in[start:done]) {
		return len(in)
	}
	if to = st.other; to != 0 {
		sh.hold(c, to, st)
	}
	return done
}

func (sh *shard) rulesFor(st *state, p *pair) *frame.Rules {
	behind, compressed := 0, 0
	if st.is(flagBackend) {
		behind = 1
	}
	if p.flags&pairCompressed != 0 {
		compressed = 1
	}
	return &sh.rules[behind][compressed]
}

// count counts a part that c sent.
func (sh *shard) count(p *pair, st *state, part *frame.Part) {
	d, size := st.direction(), uint64(len(part.Head)+len(part.Bytes))
	p.bytes[d] += size
	sh.stats.Bytes[d] += size
	sh.stats.Payload[d][part.Op] += uint64(part.Size)
	if part.Last {
		sh.stats.Messages[d][part.Op]++
		if part.Op < ws.OpClose {
			p.messages[d]++
		}
	}
}

// mute reports whether nothing may be sent to a side any more: it has gone, or
// was sent a Close (§5.5.1).
func (sh *shard) mute(to epoll.Slot) bool {
	return to == 0 || sh.conns.At(to).is(flagCloseOut)
}

// send passes whole frames of c on. It reports false when c, which had this
// id, ended meanwhile.
func (sh *shard) send(c epoll.Slot, id epoll.ID, to epoll.Slot, b []byte) bool {
	if sh.loop.ID(c) != id {
		return false
	}
	if to != sh.conns.At(c).other || sh.mute(to) {
		return true // they are too late
	}
	sh.loop.Write(to, b)
	return sh.loop.ID(c) == id
}

// newMask makes a masking key for a frame of ours to a backend (§10.3).
func newMask() (key [4]byte) {
	rand.Read(key[:])
	return key
}

// sendClose sends a Close to c, unless it was sent one. Nothing may be sent to
// it behind that, and its own Close is waited for.
func (sh *shard) sendClose(c epoll.Slot, code ws.StatusCode, text string) {
	st, l := sh.conns.At(c), sh.loop
	if st.phase != phaseOpen || st.is(flagCloseOut|flagTunnel) {
		return
	}
	st.flags |= flagCloseOut
	id := l.ID(c)
	if st.is(flagBackend) {
		l.SetOut(frame.AppendMaskedClose(l.Out(c), newMask(), code, text))
	} else {
		l.SetOut(frame.AppendClose(l.Out(c), code, text))
	}
	if l.ID(c) == id {
		sh.closeSent(c)
	}
}

// closeSent: c was sent a Close, one of ours or the other side's.
func (sh *shard) closeSent(c epoll.Slot) {
	sh.release(c, sh.conns.At(c)) // else its answer is never read
	sh.loop.SetDeadline(c, sh.px.cfg.CloseTimeout)
	sh.complete(c)
}

// closeCame: c has sent a Close, which goes on as it is.
func (sh *shard) closeCame(c epoll.Slot, st *state, part *frame.Part) {
	code, text, err := frame.ParseClose(part.AppendPayload(sh.small[:0]))
	if err != nil {
		sh.fault(c, st, err.(*frame.Error))
		return
	}
	st.flags |= flagCloseIn
	p := sh.pairs.At(st.pair)
	if p.code == 0 {
		p.code = code
		if len(text) > 0 {
			p.flags |= pairReason
			sh.reasons[st.pair] = string(text)
		}
	}
	if st.is(flagBackend) {
		p.end(ReasonBackend)
	} else {
		p.end(ReasonClient)
	}
	id, l, to := sh.loop.ID(c), sh.loop, st.other
	if to == 0 && !st.is(flagCloseOut) {
		sh.sendClose(c, code, "") // there is nobody else to answer it
		return
	}
	if !sh.mute(to) {
		o := sh.conns.At(to)
		o.flags |= flagCloseOut
		toID := l.ID(to)
		l.Write(to, part.Bytes)
		if l.ID(to) == toID {
			sh.closeSent(to)
		}
	}
	if l.ID(c) == id {
		sh.complete(c)
	}
}

// complete ends the connection of c when a Close has gone both ways: to a
// client we are the server and close first, from a backend we wait for the FIN
// (§7.1.1), which leaves the TIME_WAIT, and with it the port, on its side.
func (sh *shard) complete(c epoll.Slot) {
	st := sh.conns.At(c)
	if st.phase != phaseOpen || !st.is(flagCloseOut) || !st.is(flagCloseIn|flagEOF) {
		return
	}
	st.phase = phaseDone
	if st.is(flagBackend) && !st.is(flagEOF) {
		sh.loop.SetDeadline(c, sh.px.cfg.CloseTimeout)
		return
	}
	sh.loop.Finish(c, false)
}

// fault ends a tunnel of which c has broken a rule. It is told which; the other
// side is told that there is no more to come.
func (sh *shard) fault(c epoll.Slot, st *state, e *frame.Error) {
	p, o, l := sh.pairs.At(st.pair), st.other, sh.loop
	why, code, text := ReasonClientFault, ws.StatusGoingAway, "the client broke the protocol"
	if st.is(flagBackend) {
		why, code, text = ReasonBackendFault, ws.StatusInternalServerError, "the backend broke the protocol"
	}
	if e.Code == ws.StatusMessageTooBig {
		why, text = ReasonTooLarge, "a message was larger than the proxy takes"
	}
	p.end(why)
	if p.code == 0 {
		p.code = e.Code
		p.flags |= pairReason
		sh.reasons[st.pair] = e.Msg
	}
	id := l.ID(c)
	sh.sendClose(c, e.Code, e.Msg)
	if o != 0 && st.other == o {
		sh.sendClose(o, code, text)
	}
	if l.ID(c) == id {
		// What it still sends is dropped, lest a RST overtakes the Close.
		st.phase = phaseDone
		l.Finish(c, true)
	}
}

// idleTunnel is idle for bytes: both sides have been silent.
func (sh *shard) idleTunnel(c epoll.Slot, st *state) {
	limit, l, o := sh.px.cfg.IdleTimeout, sh.loop, st.other
	silent := time.Duration(l.Tick()-st.seen) * epoll.Tick
	if o != 0 {
		silent = min(silent, time.Duration(l.Tick()-sh.conns.At(o).seen)*epoll.Tick)
	}
	if silent < limit {
		l.SetDeadline(c, limit-silent)
		return
	}
	sh.pairs.At(st.pair).end(ReasonIdle)
	l.Finish(c, false)
	if o != 0 {
		l.Finish(o, false)
	}
}
