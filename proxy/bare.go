package proxy

import (
	"net"
	"time"

	"wspoll/epoll"

	"golang.org/x/sys/unix"
)

// Bare is the smallest relay on a loop: bytes go both ways between a client
// and one backend, whatever they are. It is what this package is measured
// against, since no proxy on these loops can cost less. It is an
// epoll.Handler; make one for each loop with NewBare.
type Bare struct {
	loop  *epoll.Loop
	to    *net.TCPAddr
	other epoll.Table[epoll.Slot]
	up    epoll.Table[bool] // connected both ways
}

// NewBare returns the relay to a backend for one loop.
func NewBare(l *epoll.Loop, to *net.TCPAddr) *Bare { return &Bare{loop: l, to: to} }

// BareConfig are the settings for the loops of Bare: those of a Proxy.
func BareConfig(loops int) epoll.Config {
	cfg := Config{Loops: loops}.withDefaults()
	return cfg.epoll()
}

// Opened connects to the backend, or begins to relay when that is done.
func (b *Bare) Opened(c epoll.Slot, tag uint32) {
	b.grow(c)
	if tag == fromDial {
		o := *b.other.At(c)
		*b.up.At(c), *b.up.At(o) = true, true
		b.loop.Resume(o)
		return
	}
	*b.up.At(c) = false
	b.loop.Pause(c)
	o, err := b.loop.Dial(b.to, nil, fromDial, 3*time.Second)
	if err != nil {
		*b.other.At(c) = 0
		b.loop.Close(c)
		return
	}
	b.grow(o)
	*b.up.At(o) = false
	*b.other.At(c), *b.other.At(o) = o, c
}

func (b *Bare) grow(c epoll.Slot) {
	b.other.Grow(c)
	b.up.Grow(c)
}

// Data passes bytes on.
func (b *Bare) Data(c epoll.Slot, in []byte) int {
	if !*b.up.At(c) {
		return 0
	}
	o := *b.other.At(c)
	b.loop.Write(o, in)
	if *b.other.At(c) == o && b.loop.Pending(o) > pauseAt {
		b.loop.Pause(c)
	}
	return len(in)
}

// EOF ends both sides.
func (b *Bare) EOF(c epoll.Slot) { b.loop.Finish(c, false) }

// Drained lets the other side go on.
func (b *Bare) Drained(c epoll.Slot) {
	if *b.up.At(c) {
		b.loop.Resume(*b.other.At(c))
	}
}

// Expired does nothing: no deadline is ever set.
func (b *Bare) Expired(epoll.Slot) {}

// Closed ends the other side.
func (b *Bare) Closed(c epoll.Slot, _ epoll.Cause, _ unix.Errno) {
	o := *b.other.At(c)
	*b.other.At(c), *b.up.At(c) = 0, false
	if o != 0 {
		*b.other.At(o), *b.up.At(o) = 0, false
		b.loop.Finish(o, false)
	}
}
