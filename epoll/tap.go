package epoll

// Tap sees the bytes of one connection as they are on the wire: what each read
// took from the socket and what each write gave to it, in the order of these
// calls; of a connection with TLS, what is inside of it. What waits in a buffer has not been written and is not seen yet. Its
// methods are called on the loop's goroutine and must not block, keep b, change
// it, or use the Loop.
type Tap interface {
	// Bytes: one read (out is false) or one write took b.
	Bytes(out bool, b []byte)
	// End: the connection has ended, or left the loop, or its taps were taken
	// off. Nothing follows.
	End()
}

// AddTap lets t see the bytes of c from now on. A connection without a Tap pays
// a test of a bit for each read and write.
func (l *Loop) AddTap(c Slot, t Tap) {
	s := l.slots.At(c)
	if s.fd < 0 {
		t.End()
		return
	}
	if l.taps == nil {
		l.taps = map[Slot][]Tap{}
	}
	l.taps[c] = append(l.taps[c], t)
	s.flags |= flagTapped
}

// DropTaps takes off all taps of c.
func (l *Loop) DropTaps(c Slot) { l.dropTaps(c, l.slots.At(c)) }

func (l *Loop) dropTaps(c Slot, s *slot) {
	if s.is(flagTapped) {
		s.flags &^= flagTapped
		all := l.taps[c]
		delete(l.taps, c)
		for _, t := range all {
			t.End()
		}
	}
}

// tapped shows b to the taps of c.
func (l *Loop) tapped(c Slot, out bool, b []byte) {
	if len(b) > 0 {
		for _, t := range l.taps[c] {
			t.Bytes(out, b)
		}
	}
}

// wrote shows the taps of c the first n bytes of a and b, which a write has taken.
func (l *Loop) wrote(c Slot, a, b []byte, n int) {
	n = max(n, 0)
	k := min(n, len(a))
	l.tapped(c, true, a[:k])
	l.tapped(c, true, b[:n-k])
}
