package server

import (
	"crypto/tls"
	"errors"
	"net"

	"wspoll/epoll"
	"wspoll/frame"
	"wspoll/handshake"

	"github.com/gobwas/ws"
)

// Conn is an open connection as the functions of its Endpoint see it: to be
// used on the connection's loop only, that is, until the function it was given
// to returns. Methods of a connection that has ended do nothing. It is a small
// value; for later and for other goroutines there is Ref.
type Conn struct {
	sh *shard
	id epoll.ID
}

// Ref names a connection for any goroutine and for any time. What is sent by
// it arrives in the order of the calls, between the frames of others. A Ref
// of a connection that has ended does nothing.
type Ref struct {
	sh *shard
	id epoll.ID
}

// Why a Ref could not send.
var (
	ErrStopped = errors.New("the server has stopped")
	ErrMemory  = errors.New("no room in the memory budget for a message to be sent")
	ErrControl = errors.New("a control frame over 125 bytes (RFC 6455 §5.5), or a Close, which Ref.Close sends")
	ErrCode    = errors.New("a close code that may not be sent (RFC 6455 §7.4)")
)

// Ref returns the name by which other goroutines may use the connection.
func (c Conn) Ref() Ref { return Ref(c) }

func (c Conn) find() (epoll.Slot, *state) {
	if slot, ok := c.sh.loop.Find(c.id); ok {
		return slot, c.sh.conns.At(slot)
	}
	return 0, nil
}

// Send sends one message, text or binary, or a ping or pong; payload is the
// caller's again when Send returns. Where that was agreed on, a message of
// Config.CompressMin or more bytes is compressed. While the message that SendPiece began has
// not ended, a data message waits for its end (RFC 6455 §5.4). A control
// payload over 125 bytes, and a Close, which Close sends, are bugs, and panic.
func (c Conn) Send(op ws.OpCode, payload []byte) {
	slot, st := c.find()
	if st == nil || st.phase != phaseOpen || st.proto.CloseSent() {
		return
	}
	if op == ws.OpClose {
		panic(frame.MisuseControl)
	}
	if op.IsControl() {
		l := c.sh.loop
		l.SetOut(frame.AppendFrame(l.Out(slot), true, op, payload))
		return
	}
	if st.flags&flagMidSend != 0 {
		c.sh.stats.BytesOut += uint64(len(payload))
		c.sh.postpone(slot, c.sh.postponable(st, op, payload))
		return
	}
	c.sh.message(slot, st, op, payload)
}

// SendPiece sends a part of a message as a frame of its own: first and last
// say whether it begins and ends the message. The parts of one message follow
// each other; messages of Send, and pings, may be sent meanwhile.
//
// Whether the message is compressed is decided by its first part, as by Send.
func (c Conn) SendPiece(op ws.OpCode, first, last bool, payload []byte) {
	c.sendPiece(op, first, last, payload, packLarge)
}

func (c Conn) sendPiece(op ws.OpCode, first, last bool, payload []byte, how packing) {
	slot, st := c.find()
	if st == nil || st.phase != phaseOpen || st.proto.CloseSent() {
		return
	}
	if !first {
		op = ws.OpContinuation
	}
	if last {
		st.flags &^= flagMidSend
	} else {
		st.flags |= flagMidSend
	}
	c.sh.part(slot, st, op, first, last, payload, how)
	if last && st.flags&flagPostponed != 0 {
		c.sh.sendPostponed(c.id)
	}
	if last && st.group != groupNone {
		c.sh.drained(slot) // messages of its topics may have come meanwhile
	}
}

// Close begins the closing handshake (RFC 6455 §7.1.2): nothing can be sent
// behind it, data that still arrives is dropped, and the connection ends when
// the peer's Close has come or CloseTimeout has passed. A code of 0 sends none;
// one that may not be sent (RFC 6455 §7.4) is a bug, and panics.
func (c Conn) Close(code ws.StatusCode, reason string) {
	if slot, st := c.find(); st != nil {
		c.sh.sendClose(slot, st, ReasonEndpoint, code, reason)
	}
}

// Request is the request of the handshake, during Open; nil afterwards, when
// its bytes are gone.
func (c Conn) Request() *handshake.Request { return c.sh.request }

// Protocol is the subprotocol that was agreed on, empty if none was.
func (c Conn) Protocol() string {
	if _, st := c.find(); st != nil && st.protocol > 0 {
		return c.sh.srv.cfg.Handshake.Protocols[st.protocol-1]
	}
	return ""
}

// RemoteAddr is the peer's address; nil when the connection is broken. It
// costs a system call.
func (c Conn) RemoteAddr() net.Addr {
	if slot, st := c.find(); st != nil {
		if a := c.sh.loop.Peer(slot); a != nil {
			return a
		}
	}
	return nil
}

// TLS is what the TLS handshake has agreed on, with the peer's certificates if
// Config.TLS asked for some; nil for a connection without TLS.
func (c Conn) TLS() *tls.ConnectionState {
	if slot, st := c.find(); st != nil {
		if t := c.sh.loop.TLS(slot); t != nil {
			state := t.State()
			return &state
		}
	}
	return nil
}

// SetValue keeps v with the connection until its end. A connection without a
// value costs nothing for it.
func (c Conn) SetValue(v any) {
	if slot, st := c.find(); st != nil {
		c.sh.values[slot] = v
	}
}

// Value is what SetValue kept, or nil.
func (c Conn) Value() any {
	if slot, st := c.find(); st != nil {
		return c.sh.values[slot]
	}
	return nil
}

// Send sends one message, or a ping or pong. payload is the caller's again
// when Send returns; the copy waits in the memory budget until the loop takes
// it. A nil error means that it was taken, not that it arrives.
func (r Ref) Send(op ws.OpCode, payload []byte) error {
	if op == ws.OpClose || op.IsControl() && len(payload) > ws.MaxControlFramePayloadSize {
		return ErrControl
	}
	budget := r.sh.srv.group.Budget()
	size := len(payload) + ws.MaxHeaderSize
	if !budget.Reserve(size) {
		return ErrMemory
	}
	payload = append([]byte(nil), payload...)
	return r.post(func() {
		budget.Release(size)
		Conn(r).Send(op, payload)
	}, func() { budget.Release(size) })
}

// Close is Conn.Close for any goroutine.
func (r Ref) Close(code ws.StatusCode, reason string) error {
	if code != 0 && !frame.ValidCloseCode(code) {
		return ErrCode
	}
	return r.post(func() { Conn(r).Close(code, reason) }, func() {})
}

// Do runs f on the connection's loop, soon, unless the connection has ended by then.
func (r Ref) Do(f func(c Conn)) error {
	return r.post(func() {
		if _, st := Conn(r).find(); st != nil {
			f(Conn(r))
		}
	}, func() {})
}

func (r Ref) post(f, failed func()) error {
	if !r.sh.loop.Post(f) {
		failed()
		return ErrStopped
	}
	return nil
}
