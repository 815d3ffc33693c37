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

// Spread is the other Handler that knows no protocol: what one connection sends
// goes to all others, on All loops. It is what pushing is measured against.
type Spread struct {
	Echo
	All func() []*Loop
}

// Data sends everything to everybody else.
func (e Spread) Data(c Slot, in []byte) int {
	b, from := append([]byte(nil), in...), e.Loop.ID(c)
	for _, l := range e.All() {
		l.Post(func() {
			l.Each(func(c Slot) {
				if l != e.Loop || l.ID(c) != from {
					l.Direct(c, b)
				}
			})
		})
	}
	return len(in)
}
