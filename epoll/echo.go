package epoll

import "golang.org/x/sys/unix"

// Echo is the smallest Handler: what arrives goes back. It is what a protocol
// on the loop is measured against, since no server on it can cost less.
type Echo struct{ Loop *Loop }

// Opened does nothing.
func (e Echo) Opened(Slot, uint32) {}

// Data sends everything back.
func (e Echo) Data(c Slot, in []byte) int {
	e.Loop.Write(c, in)
	return len(in)
}

// EOF sends what waits, then FIN.
func (e Echo) EOF(c Slot) { e.Loop.Finish(c, false) }

// Drained does nothing.
func (e Echo) Drained(Slot) {}

// Expired does nothing: no deadline is ever set.
func (e Echo) Expired(Slot) {}

// Closed does nothing.
func (e Echo) Closed(Slot, Cause, unix.Errno) {}
