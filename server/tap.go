package server

import "wspoll/epoll"

// Tap lets t see the bytes of the connection as they are on the wire, beginning
// with the request. To be called in an Endpoint's Open, else it does nothing.
// The request of a connection that came through net/http is shown as that
// gives it, which may be another order of its lines.
func (c Conn) Tap(t epoll.Tap) {
	if slot, st := c.find(); st != nil && c.sh.read != nil {
		t.Bytes(false, c.sh.read)
		c.sh.loop.AddTap(slot, t)
	}
}

// trace asks Config.Trace who shall see the bytes of c, which is new.
func (sh *shard) trace(c epoll.Slot) {
	t := sh.srv.cfg.Trace(sh.loop.PeerAddr(c))
	if t == nil {
		return
	}
	if a := sh.adopted; a != nil {
		if f := sh.srv.cfg.TracePath; f != nil && !f([]byte(a.path)) {
			t.End()
			return
		}
		t.Bytes(false, a.read)
	}
	sh.loop.AddTap(c, t)
}
