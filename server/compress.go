package server

import (
	"unsafe"

	"wspoll/epoll"
	"wspoll/frame"
	"wspoll/handshake"

	"github.com/gobwas/ws"
)

// permessage-deflate (RFC 7692). What was agreed is in the connection's state;
// what is large belongs to the loop; and a connection has something of its own
// only within a compressed message, or with context takeover: an inflation or a
// deflation in a map, charged to the memory budget.

const (
	// contextBits is the window of CompressContext: 4 KiB in each direction. A
	// larger one makes compressing dearer, since the window is gone through anew
	// for each message, more than it makes messages shorter.
	contextBits = 12

	// streamBits bounds what is kept of a message that goes out in parts, for
	// the next part of it to refer to.
	streamBits = 12

	// Buffers of the loop that grew larger than this for one message are not kept.
	maxSpare = 1 << 20

	// Inflations and deflations that were made for one message and are kept for
	// the next, of any connection. They are not charged.
	maxSpares = 4
)

// deflate is what the handshake is to agree to.
func (cfg *Config) deflate() *handshake.DeflateOptions {
	switch {
	case cfg.Compress == CompressOff:
		return nil
	case cfg.Handshake.Deflate != nil:
		return cfg.Handshake.Deflate
	case cfg.Compress == CompressContext:
		return &handshake.DeflateOptions{ServerBits: contextBits, ClientBits: contextBits}
	}
	return &handshake.DeflateOptions{ServerNoContext: true, ClientNoContext: true}
}

// squeeze is what a shard has for compression. It belongs to the loop.
type squeeze struct {
	rules    frame.Rules // of connections that agreed on it
	min      int         // Config.CompressMin
	inflater *frame.Inflater
	deflater *frame.Deflater
	in       map[epoll.Slot]*inflation
	out      map[epoll.Slot]*deflation
	spareIn  []*inflation
	spareOut []*deflation
	nothing  frame.Deflation // to refer to nothing

	piece  frame.Piece // what endpoints are given
	plain  []byte      // its payload
	packed []byte      // what was compressed last
}

func newSqueeze(srv *Server) squeeze {
	return squeeze{
		rules: frame.Rules{MaxMessage: uint64(max(0, srv.cfg.MaxMessage)), RSV1: true, Inflates: true},
		min:   srv.cfg.CompressMin,
		in:    map[epoll.Slot]*inflation{},
		out:   map[epoll.Slot]*deflation{},
	}
}

// inflation is what is kept of a client's compressed messages.
type inflation struct {
	frame.Inflation
	message progress
	charged int // to the budget
}

// progress is how far an endpoint has been given a message.
type progress struct {
	size  uint64 // bytes, inflated
	text  frame.UTF8
	begun bool // the first piece was given
}

// deflation is what is kept of our compressed messages.
type deflation struct {
	frame.Deflation
	in      chainPlace // in the chain of a topic: then the window is that one's
	charged int
}

// inflate gives the endpoint what the compressed piece in sh.piece inflates to,
// and reports how much of its payload is done with: all, or less when the peer
// must read first; then what is left must come again.
//
// Limits are for what comes out: what is over MaxMessage is inflated to at most
// one buffer of the inflater's, which is there anyway, and no endpoint sees it.
func (sh *shard) inflate(c epoll.Slot, st *state, conn Conn, ep *Endpoint) int {
	q, p := &sh.squeeze, &sh.piece
	if q.inflater == nil {
		q.inflater = frame.NewInflater()
	}
	z, terms := q.inflater, st.proto.Deflate
	var m progress
	if s := q.in[c]; s != nil {
		z.Resume(&s.Inflation, terms.InBits())
		m = s.message
	} else {
		z.Resume(nil, terms.InBits())
	}
	for used, start := 0, p.Start; ; {
		out, k, more, err := z.Next(p.Data[used:], p.Last)
		used += k
		last := p.Last && !more
		if fault := m.check(&q.rules, p.Op, out, last, err); fault != nil {
			sh.punish(c, st, fault)
			return len(p.Data)
		}
		if len(out) > 0 || last {
			// The endpoint may write to it, and the inflater needs it as it is.
			q.plain = append(q.plain[:0], out...)
			q.piece = frame.Piece{
				Header: p.Header, Op: p.Op, Compressed: true, Data: q.plain,
				Start: start, End: p.End && !more, First: !m.begun, Last: last,
			}
			m.begun, start = true, false
			sh.take(c, st, conn, ep, &q.piece)
			if sh.loop.ID(c) != conn.id || st.phase != phaseOpen || st.proto.CloseSent() {
				return len(p.Data)
			}
		}
		switch {
		case last && terms.FreshIn():
			sh.forgetIn(c)
			return len(p.Data)
		case last:
			sh.keepIn(c, st, progress{})
			return len(p.Data)
		case !more:
			sh.keepIn(c, st, m)
			return len(p.Data)
		case used < len(p.Data) && sh.loop.Held(c):
			if sh.keepIn(c, st, m) {
				return used
			}
			return len(p.Data)
		}
	}
}

// check holds the next inflated bytes of a message to the rules; err is what the
// inflater has found behind them. The first fault in the stream is the one.
func (m *progress) check(r *frame.Rules, op ws.OpCode, out []byte, last bool, err error) *frame.Error {
	fits := out
	if r.MaxMessage != 0 && uint64(len(out)) > r.MaxMessage-m.size {
		fits = out[:r.MaxMessage-m.size]
	}
	m.size += uint64(len(fits))
	if op == ws.OpText {
		if _, ok := m.text.Write(fits); !ok {
			return frame.ErrTextUTF8
		}
	}
	switch {
	case len(fits) < len(out):
		return frame.ErrTooLarge
	case err != nil:
		return frame.ErrInflate // an inflater has no other
	case last && !m.text.Done():
		return frame.ErrTextTruncated
	}
	return nil
}

// punish ends a connection for a fault that the parser cannot see.
func (sh *shard) punish(c epoll.Slot, st *state, e *frame.Error) {
	id := sh.loop.ID(c)
	sh.loop.SetOut(st.proto.AppendClose(&sh.rules, sh.loop.Out(c), e.Code, e.Msg))
	if sh.loop.ID(c) == id {
		sh.fail(c, st, e)
	}
}

// keepIn stores where the inflater stands, for the next piece of c. False: there
// was no memory for that, and the connection ends.
func (sh *shard) keepIn(c epoll.Slot, st *state, m progress) bool {
	q := &sh.squeeze
	s := q.in[c]
	if s == nil {
		if k := len(q.spareIn); k > 0 && st.proto.Deflate.FreshIn() {
			s, q.spareIn = q.spareIn[k-1], q.spareIn[:k-1]
		} else {
			s = new(inflation)
		}
		q.in[c] = s
	}
	q.inflater.Suspend(&s.Inflation)
	s.message = m
	if !sh.charge(&s.charged, int(unsafe.Sizeof(*s))+cap(s.Window)) {
		sh.forgetIn(c)
		sh.sendClose(c, st, ReasonMemory, statusTryAgainLater, "out of memory for messages; try again later")
		return false
	}
	return true
}

// charge makes the budget say what a connection holds now.
func (sh *shard) charge(charged *int, size int) bool {
	if size != *charged && !sh.srv.group.Budget().Reserve(size-*charged) {
		return false
	}
	*charged = size
	return true
}

func (sh *shard) forgetIn(c epoll.Slot) {
	q := &sh.squeeze
	s := q.in[c]
	if s == nil {
		return
	}
	delete(q.in, c)
	sh.srv.group.Budget().Release(s.charged)
	if len(q.spareIn) < maxSpares {
		*s = inflation{Inflation: frame.Inflation{Window: s.Window[:0]}}
		q.spareIn = append(q.spareIn, s)
	}
}

// packing is when a message is compressed, if that was agreed on.
type packing uint8

const (
	packLarge  packing = iota // from Config.CompressMin on
	packAlways                // unless it is whole and does not become shorter
	packNever
)

func (q *squeeze) wants(terms frame.Terms, how packing, payload []byte) bool {
	return terms.On() && (how == packAlways || how == packLarge && len(payload) >= q.min)
}

// message sends a whole message of the server's own.
func (sh *shard) message(c epoll.Slot, st *state, op ws.OpCode, payload []byte) {
	sh.part(c, st, op, true, true, payload, packLarge)
}

// part sends a part of a message, or a whole one, as a frame. op is that of the
// frame. Of a message in parts the first decides how it goes.
func (sh *shard) part(c epoll.Slot, st *state, op ws.OpCode, first, last bool, payload []byte, how packing) {
	q, terms := &sh.squeeze, st.proto.Deflate
	if first {
		if st.flags &^= flagDeflating; !q.wants(terms, how, payload) || q.chained(c) {
			sh.data(c, last, op, payload)
			return
		}
		if terms.FreshOut() {
			sh.forgetOut(c)
		}
	} else if st.flags&flagDeflating == 0 {
		sh.data(c, last, op, payload)
		return
	}
	var refer *frame.Deflation
	if s := q.out[c]; s != nil {
		refer = &s.Deflation
	}
	packed := q.pack(refer, terms.OutBits(), payload, last)
	if first && len(packed) >= len(payload) && (last || how != packAlways) {
		sh.data(c, last, op, payload)
		return
	}
	h := ws.Header{Fin: last, OpCode: op, Length: int64(len(packed))}
	if first {
		h.Rsv = ws.Rsv(true, false, false)
	}
	if st.flags |= flagDeflating; last {
		st.flags &^= flagDeflating
	}
	if last && terms.FreshOut() {
		sh.forgetOut(c)
	} else {
		sh.keepOut(c, terms, payload)
	}
	sh.stats.FramesOut++
	sh.stats.BytesOut += uint64(len(payload))
	sh.loop.SetOut(frame.AppendHeader(sh.loop.Out(c), h))
	sh.loop.Write(c, packed)
}

// pack compresses the next part of a message, or a whole one; refer may be nil.
// The result is valid until the next call.
func (q *squeeze) pack(refer *frame.Deflation, bits uint8, payload []byte, last bool) []byte {
	if q.deflater == nil {
		q.deflater = frame.NewDeflater()
	}
	if cap(q.packed) > maxSpare {
		q.packed = nil
	}
	if refer == nil {
		refer = &q.nothing // with nil the deflater looks for no matches in a short payload
	}
	q.packed = q.deflater.Append(q.packed[:0], refer, bits, payload, last)
	return q.packed
}

// fresh compresses a whole message for any connection whose window has so many
// bits, without reference to others. It is nil when that makes it no shorter, and
// valid until something else is compressed. Where the context is taken over
// (FreshOut is false) it may be sent too, if keepOut is then told of it: the
// client's window takes it in.
func (q *squeeze) fresh(bits uint8, payload []byte) []byte {
	if packed := q.pack(nil, bits, payload, true); len(packed) < len(payload) {
		return packed
	}
	return nil
}

// postponable makes the frame of a message that must wait for the end of another
// one. With context takeover it goes as it is: what it could refer to has not
// been sent yet.
func (sh *shard) postponable(st *state, op ws.OpCode, payload []byte) []byte {
	q, terms := &sh.squeeze, st.proto.Deflate
	if q.wants(terms, packLarge, payload) && terms.FreshOut() {
		if packed := q.fresh(terms.OutBits(), payload); packed != nil {
			h := ws.Header{Fin: true, Rsv: ws.Rsv(true, false, false), OpCode: op, Length: int64(len(packed))}
			return append(frame.AppendHeader(make([]byte, 0, ws.MaxHeaderSize+len(packed)), h), packed...)
		}
	}
	return frame.AppendFrame(nil, true, op, payload)
}

// keepOut takes what was compressed for c into its window, to be referred to.
// When there is no memory for that the window is forgotten: then nothing refers
// to it, which is as good.
func (sh *shard) keepOut(c epoll.Slot, terms frame.Terms, payload []byte) {
	q := &sh.squeeze
	bits := terms.OutBits()
	s := q.out[c]
	if terms.FreshOut() {
		bits = min(bits, streamBits)
	}
	if s == nil {
		if k := len(q.spareOut); k > 0 && terms.FreshOut() {
			s, q.spareOut = q.spareOut[k-1], q.spareOut[:k-1]
		} else {
			s = new(deflation)
		}
		q.out[c] = s
	}
	s.Keep(payload, bits)
	if !sh.charge(&s.charged, int(unsafe.Sizeof(*s))+cap(s.Window)) {
		sh.forgetOut(c)
	}
}

func (sh *shard) forgetOut(c epoll.Slot) {
	q := &sh.squeeze
	s := q.out[c]
	if s == nil {
		return
	}
	delete(q.out, c)
	sh.srv.group.Budget().Release(s.charged)
	if len(q.spareOut) < maxSpares {
		*s = deflation{Deflation: frame.Deflation{Window: s.Window[:0]}}
		q.spareOut = append(q.spareOut, s)
	}
}
