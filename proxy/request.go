package proxy

import (
	"bytes"
	"errors"
	"fmt"
	"net/netip"
	"slices"

	"wspoll/epoll"
	"wspoll/handshake"

	"golang.org/x/sys/unix"
)

// From a client's request to the 101 that it is sent.

// attempt is the handshake of a client that waits for a backend. Thousands can
// wait at a time, so nothing is kept that is not needed any more.
type attempt struct {
	route *route
	hash  uint64     // for the balances that hash
	tried []*backend // those that could not be connected to, and the last
	head  []byte     // what a backend is sent; nil once it was
	body  *body      // of a refusal

	protocols, extensions string // that were asked for
}

// newAttempt notes the request of a pair, which is sh.head and was size bytes long.
func (sh *shard) newAttempt(id pairID, r *route, from origin, size int) {
	var a *attempt
	if n := len(sh.spareAttempts); n > 0 {
		a = sh.spareAttempts[n-1]
		sh.spareAttempts = sh.spareAttempts[:n-1]
	} else {
		a = new(attempt)
	}
	a.route = r
	a.hash = sh.px.cfg.Balance.key(sh.pairs.At(id).addr(), sh.head.Get)
	sh.pairs.At(id).setKey(sh.head.Key)
	a.protocols = joined(&sh.head, "Sec-WebSocket-Protocol")
	a.extensions = joined(&sh.head, "Sec-WebSocket-Extensions")
	var buf []byte
	if n := len(sh.spareHeads); n > 0 {
		buf = sh.spareHeads[n-1]
		sh.spareHeads = sh.spareHeads[:n-1]
		sh.spareBytes -= cap(buf)
	}
	// What we write instead of what was there is longer by the forwarding fields.
	buf = slices.Grow(buf, size+2*len(sh.head.Host)+256)
	a.head = appendRequest(buf, &sh.head, from)
	sh.attempts[id] = a
}

// How many attempts are kept for the next, and bytes of their heads.
const (
	spareMost      = 256
	spareHeadBytes = 128 << 10
)

// dropHead: the backend has the request.
func (sh *shard) dropHead(a *attempt) {
	if n := cap(a.head); n > 0 && sh.spareBytes+n <= spareHeadBytes {
		sh.spareHeads = append(sh.spareHeads, a.head[:0])
		sh.spareBytes += n
	}
	a.head = nil
}

// endAttempt forgets the attempt of a pair, if there is one.
func (sh *shard) endAttempt(id pairID) {
	a := sh.attempts[id]
	if a == nil {
		return
	}
	sh.dropHead(a)
	delete(sh.attempts, id)
	if len(sh.spareAttempts) < spareMost {
		*a = attempt{tried: a.tried[:0]}
		sh.spareAttempts = append(sh.spareAttempts, a)
	}
}

// Refusals of a proxy's own.
var (
	refuseLimit     = &handshake.Refusal{Status: 429, Msg: "too many connections or requests from your address; try again later", Section: "RFC 6585 §4", Header: "Retry-After: 1\r\n"}
	refuseNoRoute   = &handshake.Refusal{Status: 404, Msg: "no backend serves this path", Section: "RFC 6455 §4.2.2"}
	refuseNoBackend = &handshake.Refusal{Status: 502, Msg: "no backend could be connected to; try again later", Section: "RFC 9110 §15.6.3"}
	refuseGone      = &handshake.Refusal{Status: 502, Msg: "the backend ended the connection without an answer", Section: "RFC 9110 §15.6.3"}
	refuseTimeout   = &handshake.Refusal{Status: 504, Msg: "the backend did not answer the handshake in time", Section: "RFC 9110 §15.6.5"}
	refuseBody      = &handshake.Refusal{Status: 502, Msg: "the backend's answer has a body without a clear end", Section: "RFC 9112 §6.3"}
)

// anyOrigin: whether a page may connect is for the backend to say.
var anyOrigin = handshake.Options{Origins: []string{"*"}}

// request looks at a request head: a good handshake goes to a backend, plain
// HTTP to net/http, and what is neither is refused.
func (sh *shard) request(c epoll.Slot, st *state, in []byte) (done int) {
	st.flags |= flagSpoke
	limits := handshake.Limits{Head: sh.px.cfg.MaxHead}
	n, err := handshake.ParseRequest(in, &limits, &sh.head)
	if err != nil {
		sh.refuseError(c, st, err)
		return len(in)
	}
	if n == 0 {
		return 0
	}
	r, p := &sh.head, sh.pairs.At(st.pair)
	if f := sh.px.cfg.TracePath; f != nil && !f(r.Path) {
		sh.loop.DropTaps(c)
	}
	p.flags |= pairAsked
	p.path = sh.paths.take(r.Path[:min(len(r.Path), maxPath)])
	from := origin{peer: p.addr(), secure: sh.loop.TLS(c) != nil, trusted: p.flags&pairTrusted != 0}
	if from.trusted {
		if who := from.client(joined(r, forwarding[forwardingFor]), sh.px.cfg.Trusted); who != from.peer {
			p.who, p.port = who.As16(), 0
			if !sh.px.addresses.connect(who) {
				sh.refuse(c, st, refuseLimit, ReasonLimit)
				return len(in)
			}
			p.flags |= pairCounted
		}
	}
	route := sh.px.table.Load().find(string(r.Path))
	switch {
	case p.flags&pairCounted != 0 && !sh.px.addresses.ask(p.addr(), clock()): // a trusted peer that names nobody is not bounded
		sh.refuse(c, st, refuseLimit, ReasonLimit)
		return len(in)
	case sh.px.draining.Load():
		sh.refuse(c, st, handshake.RefuseDraining, ReasonRefused)
		return len(in)
	case route == nil:
		sh.refuse(c, st, refuseNoRoute, ReasonRefused)
		return len(in)
	case !r.WantsWebSocket():
		sh.handOver(c, st, in)
		return len(in)
	}
	var a handshake.Answer
	if err := handshake.Check(r, &anyOrigin, &a); err != nil {
		sh.refuseError(c, st, err)
		return len(in)
	}
	sh.newAttempt(st.pair, route, from, n)
	st.phase = phaseWait
	sh.loop.SetDeadline(c, 0) // the backend has one
	sh.loop.Pause(c)          // what follows the request waits until the backend has said 101
	sh.try(c, st)
	return n
}

// key is what the backend is chosen by, for the balances that hash. get gives
// the value of a field, and on how many lines it stands.
func (b Balance) key(who netip.Addr, get func(name string) ([]byte, int)) uint64 {
	if b.by == hashHeader {
		if v, n := get(b.header); n > 0 {
			return hash(v)
		}
	}
	return hash(who.AsSlice())
}

// try connects to the next backend for the request of c, or gives up.
func (sh *shard) try(c epoll.Slot, st *state) {
	a, p := sh.attempts[st.pair], sh.pairs.At(st.pair)
	for {
		b := a.route.pick(sh.px.cfg.Balance.by, a.hash, a.tried, clock())
		if b == nil {
			sh.refuse(c, st, refuseNoBackend, ReasonNoBackend)
			return
		}
		if len(a.tried) > 0 {
			sh.stats.Retries++
		}
		a.tried = append(a.tried, b)
		s, err := sh.dial(b)
		if errors.Is(err, unix.EMFILE) || errors.Is(err, unix.ENFILE) {
			sh.px.cfg.Log.Warn("no descriptor for a connection to a backend: raise the open-files limit (ulimit -Hn)")
			sh.refuse(c, st, handshake.RefuseOverloaded, ReasonFull)
			return
		}
		if errors.Is(err, unix.ESHUTDOWN) { // the loop ends
			sh.refuse(c, st, handshake.RefuseDraining, ReasonDrain)
			return
		}
		if err != nil {
			sh.noteFailure(b, "cannot be connected to", err)
			continue
		}
		b.active.Add(1)
		sh.conns.Grow(s)
		*sh.conns.At(s) = state{pair: st.pair, other: c, phase: phaseConnect, flags: flagBackend}
		st.other, p.backend, p.to = s, s, b.index
		return
	}
}

// dial begins to connect to b. Of a backend with TLS the handshake belongs to it:
// when that fails, another one is tried.
func (sh *shard) dial(b *backend) (epoll.Slot, error) {
	if b.tls != nil {
		return sh.loop.DialTLS(b.addr.Load(), nil, fromDial, sh.px.cfg.ConnectTimeout, b.tls)
	}
	return sh.loop.Dial(b.addr.Load(), nil, fromDial, sh.px.cfg.ConnectTimeout)
}

// noteFailure makes a backend come last for a while.
func (sh *shard) noteFailure(b *backend, what string, err error) {
	if now := clock(); b.healthy(now) {
		sh.px.cfg.Log.Warn("a backend "+what, "backend", b.url, "error", err)
	}
	b.failed(clock())
}

// backend is that of a pair.
func (sh *shard) backend(st *state) *backend {
	return sh.px.table.Load().all[sh.pairs.At(st.pair).to]
}

// connected: the backend has taken the connection, and is sent the request.
func (sh *shard) connected(s epoll.Slot, st *state) {
	st.phase, st.seen = phaseAnswer, sh.loop.Tick()
	sh.loop.SetDeadline(s, sh.px.cfg.AnswerTimeout)
	a := sh.attempts[st.pair]
	sh.loop.Write(s, a.head)
	sh.dropHead(a)
	if a.protocols == "" && a.extensions == "" && sh.attempts[st.pair] == a {
		sh.endAttempt(st.pair) // the key is all that the answer is held to
	}
}

// backendFailed: the backend of c ended before it answered. Before it was sent
// the request another one can be tried.
func (sh *shard) backendFailed(c epoll.Slot, st *state, was phase, cause epoll.Cause, errno unix.Errno, fault error) {
	err := error(errno)
	switch {
	case fault != nil:
		err = fmt.Errorf("TLS: %w", fault)
	case errno == 0 && cause == epoll.CauseLocal:
		err = errors.New("it ended the connection")
	case errno == 0:
		err = errors.New(cause.String())
	}
	if was == phaseConnect {
		sh.noteFailure(sh.backend(st), "cannot be connected to", err)
		sh.try(c, st)
		return
	}
	sh.noteFailure(sh.backend(st), "ended the connection without an answer", err)
	sh.refuse(c, st, refuseGone, ReasonBackendAnswer)
}

// unanswered: the backend s had the request for too long.
func (sh *shard) unanswered(s epoll.Slot, st *state) {
	sh.noteFailure(sh.backend(st), "did not answer a handshake in time", unix.ETIMEDOUT)
	sh.refuseOther(s, st, refuseTimeout, ReasonBackendNoAnswer)
}

// refuseOther ends the backend s and refuses its client.
func (sh *shard) refuseOther(s epoll.Slot, st *state, r *handshake.Refusal, why Reason) {
	c := st.other
	st.other = 0
	if c != 0 {
		cst := sh.conns.At(c)
		cst.other = 0
		sh.refuse(c, cst, r, why)
	}
	sh.loop.Close(s)
}

// answer looks at what a backend says to the handshake.
func (sh *shard) answer(s epoll.Slot, st *state, in []byte) (done int) {
	r, limits := &sh.response, handshake.Limits{Head: sh.px.cfg.MaxHead}
	for {
		n, err := handshake.ParseResponse(in[done:], &limits, r)
		if err != nil {
			sh.badAnswer(s, st, err)
			return len(in)
		}
		if n == 0 {
			return done
		}
		head := in[done : done+n]
		done += n
		c, p := st.other, sh.pairs.At(st.pair)
		switch {
		case r.Status == 101:
			return done + sh.accepted(s, st, head, in[done:])
		case r.Status < 200:
			sh.loop.Write(c, head) // RFC 9110 §15.2: an interim answer is passed on, and another follows
			if st.other == 0 {
				return len(in)
			}
		default:
			p.status = uint16(r.Status)
			return done + sh.refused(s, st, head, in[done:])
		}
	}
}

// badAnswer: what came is no answer to the handshake.
func (sh *shard) badAnswer(s epoll.Slot, st *state, err error) {
	sh.noteFailure(sh.backend(st), "gave a bad answer to a handshake", err)
	ref := &handshake.Refusal{Status: 502, Msg: "the backend's answer to the handshake is wrong: " + err.Error(), Section: "RFC 9110 §15.6.3"}
	if e, ok := errors.AsType[*handshake.AnswerError](err); ok {
		ref.Err = e
	}
	sh.refuseOther(s, st, ref, ReasonBackendAnswer)
}

// accepted: the backend s has said 101. rest is what it has sent behind that.
func (sh *shard) accepted(s epoll.Slot, st *state, head, rest []byte) (done int) {
	if err := sh.check(st.pair); err != nil {
		sh.badAnswer(s, st, err)
		return len(rest)
	}
	l, c, p := sh.loop, st.other, sh.pairs.At(st.pair)
	cst := sh.conns.At(c)
	compressed, known := framing(sh.response.Extensions)
	sh.backend(st).answered()
	sh.endAttempt(st.pair)
	p.status = 101
	p.flags |= pairUpgraded
	if compressed {
		p.flags |= pairCompressed
	}
	sh.stats.Upgraded++
	sh.stats.Tunnels++
	tunnel := sh.px.cfg.Mode == ModeTunnel || !known
	sh.open(c, cst, tunnel)
	sh.open(s, st, tunnel)
	id := l.ID(s)
	l.Write(c, head)
	l.Resume(c)
	if len(rest) > 0 && st.other == c { // its first frames came along
		done = sh.relay(s, st, rest)
	}
	if sh.px.closing.Load() && l.ID(s) == id && st.other == c {
		sh.drainOne(c, cst, p)
		if l.ID(s) == id {
			sh.drainOne(s, st, p)
		}
	}
	return done
}

// open makes c a side of a tunnel.
func (sh *shard) open(c epoll.Slot, st *state, tunnel bool) {
	l, idle := sh.loop, sh.px.cfg.IdleTimeout
	st.phase, st.seen = phaseOpen, l.Tick()
	sh.watchPeer(c, tunnel)
	switch {
	case !tunnel:
		l.SetDeadline(c, idle/2)
	case st.is(flagBackend):
		st.flags |= flagTunnel
		l.SetDeadline(c, 0) // the client's is for both
	default:
		st.flags |= flagTunnel
		l.SetDeadline(c, idle)
	}
}

// watchPeer has the kernel find out when the other machine is gone. What it
// does not take costs a later end, and no more.
func (sh *shard) watchPeer(c epoll.Slot, tunnel bool) {
	v := sh.px.cfg.VanishTimeout
	if v <= 0 {
		return
	}
	fd := sh.loop.Fd(c)
	unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(v.Milliseconds()))
	if tunnel {
		// There are no pings of ours.
		unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_KEEPALIVE, 1)
		unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_KEEPIDLE, max(1, int(v.Seconds())))
		unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_KEEPINTVL, max(1, int(v.Seconds())/3))
	}
}

// refused: the backend s has answered with another status. The client gets
// that answer, body included, and then both connections end: no second request
// can follow the first.
func (sh *shard) refused(s epoll.Slot, st *state, head, rest []byte) (done int) {
	l, c, p := sh.loop, st.other, sh.pairs.At(st.pair)
	b, ok := newBody(&sh.response)
	if !ok {
		sh.refuseOther(s, st, refuseBody, ReasonBackendAnswer)
		return len(rest)
	}
	if sh.attempts[st.pair] == nil {
		sh.attempts[st.pair] = new(attempt)
	}
	sh.attempts[st.pair].body = &b
	sh.backend(st).answered()
	p.end(ReasonBackendRefused)
	st.phase, sh.conns.At(c).phase = phaseBody, phaseBody
	l.SetOut(appendRefusal(l.Out(c), head, &sh.response))
	return sh.refusalBody(s, st, rest)
}

// refusalBody passes the body of a refusal on.
func (sh *shard) refusalBody(s epoll.Slot, st *state, in []byte) int {
	c, a := st.other, sh.attempts[st.pair]
	if c == 0 || a == nil {
		return len(in)
	}
	n, more := a.body.next(in)
	if n > 0 {
		sh.loop.Write(c, in[:n])
	}
	if st.other != c {
		return len(in)
	}
	if !more {
		sh.endBody(s, st)
		return len(in)
	}
	sh.hold(s, c, st)
	return len(in)
}

// endBody ends both sides behind the body of a refusal.
func (sh *shard) endBody(s epoll.Slot, st *state) {
	c := st.other
	st.phase = phaseDone
	if c != 0 {
		sh.conns.At(c).phase = phaseDone
		sh.loop.Finish(c, true)
	}
	sh.loop.Close(s)
}

// refuseError refuses with the *handshake.Refusal that err is.
func (sh *shard) refuseError(c epoll.Slot, st *state, err error) {
	r, ok := errors.AsType[*handshake.Refusal](err)
	if !ok {
		r = &handshake.Refusal{Status: 500, Msg: err.Error()}
	}
	sh.refuse(c, st, r, ReasonRefused)
}

// refuse answers a client with an HTTP status and ends its connection.
func (sh *shard) refuse(c epoll.Slot, st *state, r *handshake.Refusal, why Reason) {
	p := sh.pairs.At(st.pair)
	// Only now is sh.head that of c. Later the request was a GET.
	head := st.phase == phaseHead && bytes.Equal(sh.head.Method, []byte("HEAD"))
	p.end(why)
	p.status = uint16(r.Status)
	st.phase = phaseDone
	sh.stats.Refused++
	sh.px.cfg.Log.Debug("request refused", "client", p.addr(), "error", r)
	l := sh.loop
	l.SetOut(handshake.AppendRefusal(l.Out(c), r, head))
	l.Finish(c, true)
}

// handOver gives a plain HTTP connection, and the bytes that were read from
// it, to net/http.
func (sh *shard) handOver(c epoll.Slot, st *state, in []byte) {
	if !sh.px.plain.admit() {
		sh.refuse(c, st, handshake.RefuseOverloaded, ReasonFull)
		return
	}
	p, id := sh.pairs.At(st.pair), st.pair
	p.end(ReasonHTTP)
	p.flags |= pairHTTP // its end is seen there
	p.client = 0
	addr, counted := p.addr(), p.flags&pairCounted != 0
	inside := sh.loop.TLS(c)
	fd := sh.loop.Detach(c)
	sh.endPair(id)
	sh.px.plain.hand(fd, inside, bytes.Clone(bytes.TrimPrefix(in, []byte(handshake.EmptyLine))), func() {
		if counted {
			sh.px.addresses.leave(addr)
		}
	})
}
