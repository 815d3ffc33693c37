package server

import (
	"context"
	"errors"
	"log/slog"
	"runtime/debug"
	"time"

	"wspoll/epoll"
	"wspoll/frame"
	"wspoll/handshake"

	"github.com/gobwas/ws"
	"golang.org/x/sys/unix"
)

// state is what the server keeps of a connection beside the loop's slot, 24
// bytes. No pointers: what few connections need is in maps of the shard.
type state struct {
	seen     uint32 // tick at which something last arrived
	place    uint32 // on the topic of group; or when its next heart beat is due, see beat
	group    uint16 // of the topic that it is on, see topic_local.go
	flags    uint16
	endpoint uint16 // index in Server.endpoints
	proto    frame.State
	protocol uint8 // index of the subprotocol plus one
	phase    phase
	reason   Reason
}

type phase uint8

const (
	phaseHead phase = iota // waiting for the request
	phaseOpen              // frames, until both sides have sent Close
	phaseDone              // the last bytes are on their way out
)

const (
	flagSpoke      uint16 = 1 << iota // a byte of the request has come
	flagPinged                        // the idle ping was sent and nothing came since
	flagMidSend                       // a message of ours has begun and not ended
	flagPostponed                     // messages wait for its end, in shard.postponed
	flagMidMessage                    // a message of the peer's has, its parser is in shard.parsers
	flagJoining                       // a message in fragments is in shard.joins
	flagQueued                        // there is a queue in shard.queues for Endpoint.Blocking
	flagUpgraded                      // the 101 was sent
	flagDeflating                     // the message of flagMidSend is compressed
)

// shard is the server's part of one loop. Its fields belong to the loop's
// goroutine; srv is shared.
type shard struct {
	srv   *Server
	loop  *epoll.Loop
	conns epoll.Table[state]
	rules frame.Rules
	piece frame.Piece

	head    handshake.Request // of the request being looked at
	request *handshake.Request
	read    []byte    // the bytes of the connection until now, during Open
	adopted *adoption // set around the Add of a connection that comes from net/http

	parsers   map[epoll.Slot]frame.Parser // of connections in the middle of a message
	joins     map[epoll.Slot]*frame.Joiner
	postponed map[epoll.Slot][]byte
	queues    map[epoll.Slot]*queue
	values    map[epoll.Slot]any
	squeeze   squeeze
	faults    map[epoll.Slot]error // what was wrong, until the connection's end is told

	fan        fan
	groups     []*group // of the topics; state.group is an index
	freeGroups []uint16
	several    map[epoll.Slot][]seat // of connections on more than one topic
	lateRoom   []byte                // catchUp's
	leaving    bool                  // the server goes down: who has all that was published gets its Close

	stats Stats
}

func newShard(srv *Server, l *epoll.Loop) *shard {
	sh := &shard{
		srv:       srv,
		loop:      l,
		rules:     frame.Rules{MaxMessage: uint64(max(0, srv.cfg.MaxMessage))},
		parsers:   map[epoll.Slot]frame.Parser{},
		joins:     map[epoll.Slot]*frame.Joiner{},
		postponed: map[epoll.Slot][]byte{},
		queues:    map[epoll.Slot]*queue{},
		values:    map[epoll.Slot]any{},
		squeeze:   newSqueeze(srv),
		faults:    map[epoll.Slot]error{},
		several:   map[epoll.Slot][]seat{},
	}
	sh.fan.run = sh.fanOut
	return sh
}

// Opened: a TCP connection. It has HandshakeTimeout to bring its request, that
// of TLS included.
func (sh *shard) Opened(c epoll.Slot, tag uint32) {
	sh.conns.Grow(c)
	st := sh.conns.At(c)
	*st = state{seen: sh.loop.Tick()}
	if tag == tagTLS {
		sh.loop.StartTLS(c, sh.srv.tls)
	}
	if sh.srv.cfg.Trace != nil {
		sh.trace(c)
	}
	full := sh.srv.countConn()
	if full {
		sh.head = handshake.Request{} // the last one looked at is another connection's
		sh.refuse(c, st, handshake.RefuseOverloaded, ReasonFull)
		return
	}
	if a := sh.adopted; a != nil {
		sh.adopt(c, st, a)
		return
	}
	sh.loop.SetDeadline(c, sh.srv.cfg.HandshakeTimeout)
}

// Data: bytes from the peer.
func (sh *shard) Data(c epoll.Slot, in []byte) int {
	st := sh.conns.At(c)
	switch st.phase {
	case phaseOpen:
		return sh.frames(c, st, in)
	case phaseHead:
		return sh.upgrade(c, st, in)
	}
	return len(in)
}

// frames is the way of a byte through an open connection. Its parser is kept
// aside only in the middle of a message: idle connections have none.
func (sh *shard) frames(c epoll.Slot, st *state, in []byte) (done int) {
	st.seen = sh.loop.Tick()
	st.flags &^= flagPinged
	conn := Conn{sh, sh.loop.ID(c)}
	ep := sh.srv.endpoints[st.endpoint]
	rules := &sh.rules
	if st.proto.Deflate.On() {
		rules = &sh.squeeze.rules
	}
	var parser, before frame.Parser
	if st.flags&flagMidMessage != 0 {
		parser = sh.parsers[c]
	}
	defer sh.keepParser(conn.id, st, &parser) // also when an endpoint panics
	for done < len(in) {
		if rules != &sh.rules {
			before = parser
		}
		n, out, err := st.proto.Next(&parser, rules, in[done:], sh.loop.Out(c), &sh.piece)
		sh.loop.SetOut(out)
		if sh.loop.ID(c) != conn.id {
			return len(in) // the socket was found broken
		}
		if err != nil {
			sh.fail(c, st, err)
			return len(in)
		}
		if n == 0 {
			return done
		}
		switch p := &sh.piece; {
		case p.Op == ws.OpClose:
			sh.peerClosed(c, st)
			return len(in)
		case p.Op.IsControl() || st.proto.CloseSent():
			// Answered already, or too late to matter.
		case p.Compressed:
			if k := sh.inflate(c, st, conn, ep); k < len(p.Data) {
				n = parser.Unread(&before, rules, in[done:], n, p, k)
			}
		default:
			sh.take(c, st, conn, ep, p)
		}
		done += n
		if sh.loop.ID(c) != conn.id || st.phase != phaseOpen {
			return len(in) // ended meanwhile
		}
		if sh.loop.Held(c) {
			return done // the peer must read first, or the handler catch up
		}
	}
	return done
}

// keepParser puts a connection's parser aside until more of its message comes.
// Between two messages there is nothing to keep.
func (sh *shard) keepParser(id epoll.ID, st *state, p *frame.Parser) {
	c, ok := sh.loop.Find(id)
	switch {
	case !ok: // forget has seen to it, and st may be another connection's
	case st.phase == phaseOpen && *p != frame.Parser{}:
		sh.parsers[c] = *p
		st.flags |= flagMidMessage
	case st.flags&flagMidMessage != 0:
		sh.dropParser(c, st)
	}
}

func (sh *shard) dropParser(c epoll.Slot, st *state) {
	delete(sh.parsers, c)
	st.flags &^= flagMidMessage
}

// take gives a piece of a message, as it was before it was compressed, to the
// endpoint.
func (sh *shard) take(c epoll.Slot, st *state, conn Conn, ep *Endpoint, p *frame.Piece) {
	if sh.stats.BytesIn += uint64(len(p.Data)); p.Last {
		sh.stats.MessagesIn++
	}
	if ep.Piece != nil {
		ep.Piece(conn, p)
	} else if ep.Message != nil || ep.Blocking != nil {
		sh.join(c, st, conn, ep, p)
	}
}

// data appends a data frame for c to what goes out. Large payloads are written
// from where they are.
func (sh *shard) data(c epoll.Slot, fin bool, op ws.OpCode, payload []byte) {
	sh.stats.FramesOut++
	sh.stats.BytesOut += uint64(len(payload))
	l := sh.loop
	l.SetOut(frame.AppendHeader(l.Out(c), ws.Header{Fin: fin, OpCode: op, Length: int64(len(payload))}))
	l.Write(c, payload)
}

// fail ends a connection whose peer broke a rule; the Close that says so is in
// the out scratch already. What the peer still sends is read and dropped, lest
// a RST overtakes that Close.
func (sh *shard) fail(c epoll.Slot, st *state, err error) {
	var e *frame.Error
	if st.reason == ReasonNone && errors.As(err, &e) {
		st.reason = reasonOf(e)
	}
	sh.faults[c] = err
	st.phase = phaseDone
	sh.loop.Finish(c, true)
}

// peerClosed ends a connection when the closing handshake is complete. The
// server closes the TCP connection first (§7.1.1): the side that does has the
// TIME_WAIT.
func (sh *shard) peerClosed(c epoll.Slot, st *state) {
	if st.reason == ReasonNone {
		st.reason = ReasonPeerClosed
	}
	st.phase = phaseDone
	sh.loop.Finish(c, false)
}

// sendClose begins the closing handshake, for the reason why.
func (sh *shard) sendClose(c epoll.Slot, st *state, why Reason, code ws.StatusCode, text string) {
	if st.phase != phaseOpen || st.proto.CloseSent() {
		return
	}
	id := sh.loop.ID(c)
	out := sh.loop.Out(c) // may end another connection, whose endpoint may panic: before anything is said of this one
	st.reason = why
	sh.loop.SetOut(st.proto.AppendClose(&sh.rules, out, code, text))
	if sh.loop.ID(c) != id {
		return
	}
	sh.loop.Resume(c) // else the answer is never read
	sh.loop.SetDeadline(c, sh.srv.cfg.CloseTimeout)
}

// panicked: an endpoint's function did. It costs its own connection, and no
// other one.
func (sh *shard) panicked(c epoll.Slot, v any) {
	sh.adopted, sh.request, sh.read = nil, nil, nil
	sh.srv.logPanic(v)
	if c == 0 {
		return // it was not serving a connection
	}
	if _, ok := sh.loop.Find(sh.loop.ID(c)); !ok {
		return // the connection has ended
	}
	sh.panicClose(c, sh.conns.At(c))
}

// panicClose ends a connection whose endpoint panicked.
func (sh *shard) panicClose(c epoll.Slot, st *state) {
	if st.phase == phaseOpen {
		sh.sendClose(c, st, ReasonPanic, ws.StatusInternalServerError, "internal error")
	}
	if st.phase = phaseDone; st.reason == ReasonNone {
		st.reason = ReasonPanic // else it was ending already, for another reason
	}
	sh.loop.Finish(c, true)
}

func (s *Server) logPanic(v any) {
	s.cfg.Log.Error("an endpoint panicked", "panic", v, "stack", string(debug.Stack()))
}

// EOF: the peer's FIN. Before a request that is nothing unusual; without a
// Close it is not a clean end (§7.1.4).
func (sh *shard) EOF(c epoll.Slot) {
	st := sh.conns.At(c)
	if st.reason == ReasonNone {
		st.reason = ReasonEOF
		if st.phase == phaseHead && st.flags&flagSpoke == 0 {
			st.reason = ReasonPeerClosed
		}
	}
	st.phase = phaseDone
	sh.loop.Finish(c, false)
}

// Drained: a subscriber may have messages to catch up with. The rest of what
// waited for it goes on by itself.
func (sh *shard) Drained(c epoll.Slot) { sh.drained(c) }

// Expired: the one deadline of a connection is that of its phase.
func (sh *shard) Expired(c epoll.Slot) {
	st := sh.conns.At(c)
	switch {
	case st.phase == phaseHead && st.flags&flagSpoke != 0:
		sh.head = handshake.Request{} // the last one looked at may be another connection's
		sh.refuse(c, st, handshake.RefuseTimeout, ReasonHandshake)
	case st.phase == phaseHead:
		st.reason = ReasonHandshake
		sh.loop.Close(c)
	case st.proto.CloseSent():
		sh.loop.Close(c) // the peer's Close was waited for long enough
	case st.phase == phaseOpen:
		sh.idle(c, st)
		if b := sh.srv.endpoints[st.endpoint].beat; b != nil {
			sh.beat(c, st, b)
		}
	}
}

// idle looks whether the connection has been silent for long: a ping at half
// of IdleTimeout, Close at the whole. Activity does not move the deadline, it
// only notes the time; here it is taken into account.
func (sh *shard) idle(c epoll.Slot, st *state) {
	limit := sh.srv.cfg.IdleTimeout
	if limit < 0 {
		return // the deadline was not for this
	}
	if sh.loop.Held(c) {
		st.seen = sh.loop.Tick() // it is we who do not listen; a peer that does not read is stalled
	}
	silent := sh.silence(st)
	switch {
	case silent >= limit:
		sh.sendClose(c, st, ReasonIdle, ws.StatusGoingAway, "idle for too long")
	case silent >= limit/2:
		if st.flags&flagPinged == 0 {
			st.flags |= flagPinged
			sh.loop.SetOut(frame.AppendFrame(sh.loop.Out(c), true, ws.OpPing, nil))
		}
		sh.loop.SetDeadline(c, limit-silent)
	default:
		sh.loop.SetDeadline(c, limit/2-silent)
	}
}

// silence is for how long nothing has arrived.
func (sh *shard) silence(st *state) time.Duration {
	return time.Duration(sh.loop.Tick()-st.seen) * epoll.Tick
}

// Closed: the end of every connection passes here.
func (sh *shard) Closed(c epoll.Slot, cause epoll.Cause, errno unix.Errno) {
	st := sh.conns.At(c)
	if st.reason == ReasonNone {
		st.reason = reasonOfCause(cause)
	}
	if t := sh.loop.TLS(c); t != nil && t.Err() != nil {
		sh.faults[c] = t.Err()
	}
	st.phase = phaseDone // nothing can be sent from here on
	defer func() {       // also when the endpoint's Close panics
		sh.forget(c, st)
		sh.srv.uncountConn()
	}()
	sh.stats.Closed[st.reason]++
	if st.flags&flagUpgraded != 0 {
		sh.stats.WebSockets--
		if ep := sh.srv.endpoints[st.endpoint]; ep.Close != nil {
			ep.Close(Conn{sh, sh.loop.ID(c)}, st.reason)
		}
	}
	if log := sh.srv.cfg.Log; log.Enabled(context.Background(), slog.LevelDebug) {
		sh.logEnd(log, c, st, cause, errno)
	}
}

// forget drops what the maps hold of c.
func (sh *shard) forget(c epoll.Slot, st *state) {
	if st.flags&flagMidMessage != 0 {
		sh.dropParser(c, st)
	}
	if st.flags&flagJoining != 0 {
		sh.endJoin(c, st)
	}
	if st.flags&flagPostponed != 0 {
		sh.srv.group.Budget().Release(cap(sh.postponed[c]))
		delete(sh.postponed, c)
	}
	if st.flags&flagQueued != 0 {
		delete(sh.queues, c)
	}
	if st.proto.Deflate.On() {
		sh.forgetIn(c)
		sh.forgetOut(c)
	}
	delete(sh.values, c)
	delete(sh.faults, c)
	sh.leaveAll(c, st)
}

func (sh *shard) logEnd(log *slog.Logger, c epoll.Slot, st *state, cause epoll.Cause, errno unix.Errno) {
	attrs := make([]slog.Attr, 0, 8)
	attrs = append(attrs, slog.String("reason", st.reason.String()))
	if a := sh.loop.Peer(c); a != nil {
		attrs = append(attrs, slog.String("peer", a.String()))
	}
	if st.flags&flagUpgraded != 0 {
		attrs = append(attrs, slog.String("path", sh.srv.paths[st.endpoint]))
	}
	if code := st.proto.PeerCode(); code != 0 {
		attrs = append(attrs, slog.Int("code", int(code)))
	}
	if err := sh.faults[c]; err != nil {
		attrs = append(attrs, slog.String("fault", err.Error()))
	}
	if cause != epoll.CauseLocal {
		attrs = append(attrs, slog.String("tcp", cause.String()))
	}
	if errno != 0 {
		attrs = append(attrs, slog.String("errno", errno.Error()))
	}
	log.LogAttrs(context.Background(), slog.LevelDebug, "connection ended", attrs...)
}
