package proxy

import (
	"fmt"
	"runtime/debug"
	"time"

	"wspoll/epoll"
	"wspoll/frame"
	"wspoll/handshake"

	"github.com/gobwas/ws"
	"golang.org/x/sys/unix"
)

// state is what the proxy keeps of one connection, a client's or a backend's,
// beside the loop's slot. No pointers: what few connections need is in maps of
// the shard.
type state struct {
	pass  frame.Passage // what comes from this connection
	pair  pairID
	other epoll.Slot // the other side of the pair, 0: it has gone
	seen  uint32     // tick at which something last arrived
	flags uint16
	phase phase
}

type phase uint8

const (
	phaseHead    phase = iota // client: waiting for its request
	phaseWait                 // client: waiting for the backend's answer
	phaseConnect              // backend: connecting
	phaseAnswer               // backend: it has the request
	phaseBody                 // both: the body of a refusal passes
	phaseOpen                 // both: 101 was passed on
	phaseDone                 // the last bytes are on their way out
)

const (
	flagBackend  uint16 = 1 << iota // the backend's side
	flagSpoke                       // client: a byte of the request has come
	flagTunnel                      // bytes go on as they are
	flagPinged                      // our ping was sent and nothing came since
	flagCloseIn                     // it has sent a Close
	flagCloseOut                    // it was sent a Close
	flagEOF                         // it has sent FIN, and still gets what there is for it
	flagHeld                        // not read from, because the other side is slow
	flagShut                        // ModeTunnel: it is to be sent FIN when nothing waits
)

// Tags of connections on a loop.
const (
	fromListener uint32 = iota
	fromDial
	fromTLSListener
)

// holdMax is the largest frame that is passed on only when it is whole.
const holdMax = 16 << 10

// pingText is the payload of our own pings: the pongs to them are not passed on.
const pingText = "wspoll proxy"

// closeTryAgain and the others are registered at IANA after RFC 6455.
const (
	closeRestart  ws.StatusCode = 1012
	closeTryAgain ws.StatusCode = 1013
)

// shard is the proxy's part of one loop, and its epoll.Handler. Its fields
// belong to the loop's goroutine; px is shared.
type shard struct {
	px    *Proxy
	loop  *epoll.Loop
	conns epoll.Table[state]
	pairs epoll.Table[pair]
	freed []pairID
	top   pairID
	paths paths

	rules [2][2]frame.Rules // [of the backend's frames][compressed]
	part  frame.Part
	small [ws.MaxControlFramePayloadSize]byte

	head     handshake.Request  // the one being looked at
	response handshake.Response // the one being looked at

	attempts map[pairID]*attempt // of clients that wait for a backend
	reasons  map[pairID]string   // texts of Closes, until the end is told

	spareAttempts []*attempt
	spareHeads    [][]byte
	spareBytes    int // in spareHeads

	stats Stats
}

func newShard(px *Proxy, l *epoll.Loop) *shard {
	sh := &shard{px: px, loop: l, attempts: map[pairID]*attempt{}, reasons: map[pairID]string{}}
	for behind := range sh.rules {
		for compressed := range sh.rules[behind] {
			sh.rules[behind][compressed] = frame.Rules{
				Client:     behind == 1, // towards a backend we are the client
				RSV1:       compressed == 1,
				MaxMessage: uint64(max(0, px.cfg.MaxMessage)),
			}
		}
	}
	return sh
}

// trace asks Config.Trace who shall see the bytes of c, which is new.
func (sh *shard) trace(c epoll.Slot, backend bool) {
	if f := sh.px.cfg.Trace; f != nil {
		if t := f(sh.loop.PeerAddr(c), backend); t != nil {
			sh.loop.AddTap(c, t)
		}
	}
}

// direction is that of the bytes which come from this side.
func (st *state) direction() int {
	if st.flags&flagBackend != 0 {
		return Down
	}
	return Up
}

func (st *state) is(f uint16) bool { return st.flags&f != 0 }

// Opened: a client has come, or a backend has taken the connection.
func (sh *shard) Opened(c epoll.Slot, tag uint32) {
	if tag == fromDial {
		sh.trace(c, true)
		sh.connected(c, sh.conns.At(c))
		return
	}
	sh.conns.Grow(c)
	st := sh.conns.At(c)
	if tag == fromTLSListener {
		sh.loop.StartTLS(c, sh.px.tls)
	}
	sh.trace(c, false)
	full := sh.px.count()
	*st = state{pair: sh.newPair(c), seen: sh.loop.Tick()}
	p := sh.pairs.At(st.pair)
	sh.head = handshake.Request{} // the last one looked at is another connection's
	switch {
	case full:
		sh.refuse(c, st, handshake.RefuseOverloaded, ReasonFull)
		return
	case isTrusted(p.addr(), sh.px.cfg.Trusted):
		p.flags |= pairTrusted
	case !sh.px.addresses.connect(p.addr()):
		sh.refuse(c, st, refuseLimit, ReasonLimit)
		return
	default:
		p.flags |= pairCounted
	}
	sh.loop.SetDeadline(c, sh.px.cfg.HandshakeTimeout)
}

// Data: bytes have arrived.
func (sh *shard) Data(c epoll.Slot, in []byte) int {
	st := sh.conns.At(c)
	switch st.phase {
	case phaseOpen:
		return sh.relay(c, st, in)
	case phaseHead:
		return sh.request(c, st, in)
	case phaseAnswer:
		return sh.answer(c, st, in)
	case phaseBody:
		return sh.refusalBody(c, st, in)
	case phaseWait:
		return 0 // it is paused; this may be called once more
	}
	return len(in)
}

// relay passes on what an open connection sent.
func (sh *shard) relay(c epoll.Slot, st *state, in []byte) int {
	if st.is(flagTunnel) {
		return sh.bytes(c, st, in)
	}
	return sh.frames(c, st, in)
}

// Drained: what waited for c has gone, so the other side may go on.
func (sh *shard) Drained(c epoll.Slot) {
	st := sh.conns.At(c)
	if st.is(flagShut) && sh.loop.Shut(c) {
		st.flags &^= flagShut
	}
	if o := st.other; o != 0 {
		sh.release(o, sh.conns.At(o))
	}
}

// hold stops reading from c while much waits for to.
func (sh *shard) hold(c, to epoll.Slot, st *state) {
	if !st.is(flagHeld) && sh.loop.Pending(to) > pauseAt {
		st.flags |= flagHeld
		sh.loop.Pause(c)
	}
}

// release undoes hold.
func (sh *shard) release(c epoll.Slot, st *state) {
	if st.is(flagHeld) {
		st.flags &^= flagHeld
		st.seen = sh.loop.Tick() // it was we who did not listen
		sh.loop.Resume(c)
	}
}

// Expired: the one deadline of a connection is that of its phase.
func (sh *shard) Expired(c epoll.Slot) {
	st := sh.conns.At(c)
	p := sh.pairs.At(st.pair)
	switch {
	case st.phase == phaseHead && st.is(flagSpoke):
		sh.head = handshake.Request{} // the last one looked at may be another connection's
		sh.refuse(c, st, handshake.RefuseTimeout, ReasonHandshake)
	case st.phase == phaseHead:
		p.end(ReasonHandshake)
		sh.loop.Close(c)
	case st.phase == phaseAnswer:
		sh.unanswered(c, st)
	case st.phase == phaseBody:
		sh.endBody(c, st)
	case st.phase != phaseOpen || st.is(flagCloseOut):
		sh.loop.Close(c) // its Close, or its FIN, was waited for long enough
	case st.is(flagTunnel):
		sh.idleTunnel(c, st)
	default:
		sh.idle(c, st)
	}
}

// EOF: FIN has come.
func (sh *shard) EOF(c epoll.Slot) {
	st := sh.conns.At(c)
	p := sh.pairs.At(st.pair)
	o := st.other
	switch {
	case st.phase == phaseHead:
		p.end(ReasonClientGone)
		if !st.is(flagSpoke) {
			p.reason = ReasonClient
		}
		sh.loop.Finish(c, false)
	case st.phase == phaseBody:
		sh.endBody(c, st)
	case st.phase == phaseDone:
		sh.loop.Finish(c, false)
	case st.phase == phaseOpen && st.is(flagTunnel) && o != 0:
		sh.halfClosed(c, st, o)
	case st.phase == phaseOpen && o != 0 && (!st.is(flagBackend) || st.is(flagCloseIn)):
		// A client may have sent all it wants to and still wait for answers;
		// who has sent a Close waits for the other's.
		sh.loop.KeepOpen(c)
		st.flags |= flagEOF
		if !st.is(flagCloseIn) {
			p.end(ReasonClientGone)
			sh.sendClose(o, ws.StatusGoingAway, "the client has gone")
		}
		sh.complete(c)
	default:
		if st.phase == phaseOpen {
			p.end(reasonOfCause(epoll.CauseEOF, st.is(flagBackend)))
		}
		sh.loop.Close(c)
	}
}

// Closed: the end of every connection passes here, also of a connect that failed.
func (sh *shard) Closed(c epoll.Slot, cause epoll.Cause, errno unix.Errno) {
	st := sh.conns.At(c)
	id, o, was := st.pair, st.other, *st
	p := sh.pairs.At(id)
	var fault error
	if t := sh.loop.TLS(c); t != nil {
		fault = t.Err()
	}
	st.phase, st.other = phaseDone, 0 // nothing can be sent from here on
	if o != 0 {
		sh.conns.At(o).other = 0
	}
	if st.is(flagBackend) {
		p.backend = 0
		sh.px.table.Load().all[p.to].active.Add(-1)
	} else {
		p.client = 0
		if fault != nil {
			sh.px.cfg.Log.Debug("TLS with a client failed", "client", p.addr(), "error", fault)
		}
	}
	if was.phase != phaseConnect && was.phase != phaseAnswer {
		p.end(reasonOfCause(cause, st.is(flagBackend)))
	}
	if o != 0 {
		sh.left(o, &was, cause, errno, fault)
	}
	if p.client == 0 && p.backend == 0 && p.flags&pairEnded == 0 { // else left has ended the other side, and so the pair
		sh.endPair(id)
	}
}

// end notes why a pair ends; the first reason counts.
func (p *pair) end(why Reason) {
	if p.reason == ReasonNone {
		p.reason = why
	}
}

// left tells o that its other side, which was in this state, has ended.
func (sh *shard) left(o epoll.Slot, was *state, cause epoll.Cause, errno unix.Errno, fault error) {
	st := sh.conns.At(o)
	switch st.phase {
	case phaseWait: // o is the client
		sh.backendFailed(o, st, was.phase, cause, errno, fault)
	case phaseConnect, phaseAnswer: // o is the backend
		sh.loop.Close(o)
	case phaseBody:
		sh.loop.Finish(o, !st.is(flagBackend))
	case phaseOpen:
		switch {
		case st.is(flagTunnel):
			sh.loop.Finish(o, false)
		case st.is(flagCloseIn):
			sh.sendClose(o, sh.pairs.At(st.pair).code, "") // who left owed it this answer
		case st.is(flagBackend):
			sh.sendClose(o, ws.StatusGoingAway, "the client has gone")
		case cause == epoll.CauseStalled || cause == epoll.CausePending:
			sh.sendClose(o, closeTryAgain, "the backend takes no bytes; try again later")
		case cause == epoll.CauseBudget:
			sh.sendClose(o, closeTryAgain, "no memory; try again later")
		default:
			sh.sendClose(o, closeRestart, "the backend has gone")
		}
	}
}

// drain ends what is open on this loop; see Proxy.Shutdown.
func (sh *shard) drain() {
	sh.loop.Each(func(c epoll.Slot) {
		st := sh.conns.At(c)
		p := sh.pairs.At(st.pair)
		switch {
		case st.phase == phaseOpen:
			sh.drainOne(c, st, p)
		case st.phase == phaseHead && !st.is(flagSpoke):
			p.end(ReasonDrain)
			sh.loop.Close(c) // a connection made in reserve, or one that will retry
		}
	})
}

// drainOne sends Close 1001, where there are frames.
func (sh *shard) drainOne(c epoll.Slot, st *state, p *pair) {
	p.end(ReasonDrain)
	if st.is(flagTunnel) {
		sh.loop.Finish(c, false)
		return
	}
	sh.sendClose(c, ws.StatusGoingAway, "the proxy is going down")
}

// idle looks whether a side of frames has been silent for long: a ping at half
// of IdleTimeout, Close for both at the whole. Activity does not move the
// deadline, it only notes the time; here it is taken into account.
func (sh *shard) idle(c epoll.Slot, st *state) {
	limit, l := sh.px.cfg.IdleTimeout, sh.loop
	if st.is(flagHeld) {
		st.seen = l.Tick() // it is we who do not listen
	}
	silent := time.Duration(l.Tick()-st.seen) * epoll.Tick
	switch {
	case silent >= limit:
		sh.pairs.At(st.pair).end(ReasonIdle)
		o := st.other
		code, text := ws.StatusGoingAway, "silent for too long"
		if o != 0 && st.is(flagBackend) {
			sh.sendClose(o, closeRestart, "the backend has been silent for too long")
		} else if o != 0 {
			sh.sendClose(o, code, "the client has been silent for too long")
		}
		sh.sendClose(c, code, text)
	case silent >= limit/2:
		if !st.is(flagPinged) {
			st.flags |= flagPinged
			if st.is(flagBackend) {
				l.SetOut(frame.AppendMasked(l.Out(c), true, ws.OpPing, newMask(), []byte(pingText)))
			} else {
				l.SetOut(frame.AppendFrame(l.Out(c), true, ws.OpPing, []byte(pingText)))
			}
		}
		l.SetDeadline(c, limit-silent)
	default:
		l.SetDeadline(c, limit/2-silent)
	}
}

// panicked: this code did. It costs one pair, and no other.
func (sh *shard) panicked(c epoll.Slot, v any) {
	sh.px.cfg.Log.Error("a bug in the proxy", "panic", fmt.Sprint(v), "stack", string(debug.Stack()))
	if c == 0 {
		return // no connection was being served
	}
	if _, ok := sh.loop.Find(sh.loop.ID(c)); !ok {
		return
	}
	if st := sh.conns.At(c); st.pair != 0 {
		sh.pairs.At(st.pair).end(ReasonPanic)
	}
	sh.loop.Close(c)
}
