package server

import (
	"bytes"
	"errors"
	"net/http"

	"wspoll/epoll"
	"wspoll/frame"
	"wspoll/handshake"
)

// upgrade looks at a request head: a WebSocket handshake is answered here,
// plain HTTP is handed to net/http, and what is neither is refused.
func (sh *shard) upgrade(c epoll.Slot, st *state, in []byte) (done int) {
	st.flags |= flagSpoke
	limits := handshake.Limits{Head: sh.srv.cfg.MaxHead}
	n, err := handshake.ParseRequest(in, &limits, &sh.head)
	if err != nil {
		return sh.refuseError(c, st, err, len(in))
	}
	if n == 0 {
		return 0
	}
	r := &sh.head
	if f := sh.srv.cfg.TracePath; f != nil && !f(r.Path) {
		sh.loop.DropTaps(c)
	}
	ep, ok := sh.srv.endpointOf(r.Path)
	switch {
	case sh.srv.draining.Load():
		sh.refuse(c, st, handshake.RefuseDraining, ReasonRefused)
		return len(in)
	case !ok && r.WantsWebSocket():
		sh.refuse(c, st, handshake.RefuseNotFound, ReasonRefused)
		return len(in)
	case !ok, sh.srv.endpoints[ep].plain && !r.WantsWebSocket():
		sh.handOver(c, st, in)
		return len(in)
	}
	var a handshake.Answer
	if err := sh.srv.check(ep, r, &a); err != nil {
		return sh.refuseError(c, st, err, len(in))
	}
	id := sh.loop.ID(c)
	sh.read = in
	sh.open(c, st, ep, r, &a)
	sh.read = nil
	if sh.loop.ID(c) != id || sh.loop.Held(c) {
		return n
	}
	if n < len(in) { // bytes that followed the request in the same packet are the first frames
		n += sh.frames(c, st, in[n:])
	}
	return n
}

// open answers with 101 and makes c a WebSocket connection of endpoint ep.
func (sh *shard) open(c epoll.Slot, st *state, ep uint16, r *handshake.Request, a *handshake.Answer) {
	l := sh.loop
	l.SetOut(handshake.AppendAnswer(l.Out(c), a, &sh.srv.cfg.Handshake))
	st.endpoint, st.phase = ep, phaseOpen
	st.flags |= flagUpgraded
	if d := &a.Deflate; d.On {
		st.proto.Deflate = frame.NewTerms(d.ServerBits, d.ClientBits, d.ServerNoContext, d.ClientNoContext)
	}
	st.seen = l.Tick()
	for i, p := range sh.srv.cfg.Handshake.Protocols {
		if p == a.Protocol {
			st.protocol = uint8(i + 1)
		}
	}
	sh.stats.Upgraded++
	sh.stats.WebSockets++
	l.SetDeadline(c, sh.srv.cfg.IdleTimeout/2)
	if f := sh.srv.endpoints[ep].Open; f != nil {
		sh.request = r
		f(Conn{sh, l.ID(c)})
		sh.request = nil
	}
}

// refuseError refuses with the *handshake.Refusal that err is. It returns all.
func (sh *shard) refuseError(c epoll.Slot, st *state, err error, all int) int {
	var r *handshake.Refusal
	if !errors.As(err, &r) {
		r = &handshake.Refusal{Status: http.StatusInternalServerError, Msg: err.Error()}
	}
	sh.refuse(c, st, r, ReasonRefused)
	return all
}

// refuse answers with an HTTP status and ends the connection.
func (sh *shard) refuse(c epoll.Slot, st *state, r *handshake.Refusal, why Reason) {
	st.reason, st.phase = why, phaseDone
	sh.stats.Refused++
	sh.faults[c] = r
	l := sh.loop
	l.SetOut(handshake.AppendRefusal(l.Out(c), r, bytes.Equal(sh.head.Method, []byte("HEAD"))))
	l.Finish(c, true)
}

// handOver gives a plain HTTP connection, and the bytes that were read from
// it, to net/http.
func (sh *shard) handOver(c epoll.Slot, st *state, in []byte) {
	if !sh.srv.http.admit() {
		sh.refuse(c, st, handshake.RefuseOverloaded, ReasonFull)
		return
	}
	sh.stats.Closed[ReasonHTTP]++
	inside := sh.loop.TLS(c)
	fd := sh.loop.Detach(c)
	sh.srv.http.hand(fd, inside, bytes.Clone(bytes.TrimPrefix(in, []byte(handshake.EmptyLine))))
}
