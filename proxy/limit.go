package proxy

import (
	"net/netip"
	"sync"
	"time"
)

// addresses holds clients to Config.MaxPerAddress and HandshakesPerSecond. All
// loops share it; it is asked once for a connection and once for a request.
type addresses struct {
	most int
	rate float64

	mu    sync.Mutex
	known map[netip.Addr]address
	sweep int // look for entries that say nothing when there are so many
}

// address is one client's. It has no pointers.
type address struct {
	conns  int
	tokens float64 // requests that it may still make
	at     int64   // when that was so
}

func newAddresses(most int, rate float64) *addresses {
	return &addresses{most: most, rate: rate, known: map[netip.Addr]address{}, sweep: 1024}
}

// limited is the address that counts: hosts have a /64 of IPv6 to themselves.
func limited(a netip.Addr) netip.Addr {
	a = a.Unmap().WithZone("")
	if a.Is6() {
		if p, err := a.Prefix(64); err == nil {
			return p.Addr()
		}
	}
	return a
}

// connect counts a connection of a, or reports that it is one too many.
func (x *addresses) connect(a netip.Addr) bool {
	if x.most == 0 {
		return true
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	a = limited(a)
	e, ok := x.known[a]
	if !ok {
		e.tokens = x.burst()
	}
	if e.conns >= x.most {
		return false
	}
	e.conns++
	x.known[a] = e
	return true
}

// leave undoes connect.
func (x *addresses) leave(a netip.Addr) {
	if x.most == 0 {
		return
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	a = limited(a)
	e := x.known[a]
	if e.conns--; e.conns <= 0 && (x.rate == 0 || e.tokens >= x.burst()) {
		delete(x.known, a)
		return
	}
	x.known[a] = e
}

// ask takes a token for a request of a at time now, or reports that there is none.
func (x *addresses) ask(a netip.Addr, now int64) bool {
	if x.rate == 0 {
		return true
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	a = limited(a)
	e, ok := x.known[a]
	if !ok {
		if len(x.known) >= x.sweep {
			x.forget(now)
		}
		e = address{tokens: x.burst(), at: now}
	}
	e.tokens = x.filled(e, now)
	e.at = now
	if ok = e.tokens >= 1; ok {
		e.tokens--
	}
	x.known[a] = e
	return ok
}

// burst is how many requests may come at once.
func (x *addresses) burst() float64 { return max(1, x.rate) }

// filled is what e's tokens have grown to.
func (x *addresses) filled(e address, now int64) float64 {
	return min(x.burst(), e.tokens+float64(now-e.at)/float64(time.Second)*x.rate)
}

// forget drops the addresses without connections whose tokens are all back.
func (x *addresses) forget(now int64) {
	for a, e := range x.known {
		if e.conns <= 0 && x.filled(e, now) >= x.burst() {
			delete(x.known, a)
		}
	}
	x.sweep = max(1024, 2*len(x.known))
}
