package epoll

// Tap sees the bytes of one connection as they are on the wire: what each read
// took from the socket and what each write gave to it, in the order of these
// calls. What waits in a buffer has not been written and is not seen yet. Its
// methods are called on the loop's goroutine and must not block, keep b, change
// it, or use the Loop.
type Tap interface {
	// Bytes: one read (out is false) or one write took b.
	Bytes(out bool, b []byte)
	// End: the connection has ended, or left the loop, or the tap was taken
	// off. Nothing follows.
	End()
}

// SetTap lets t see the bytes of c from now on, in place of another Tap, which
// gets its End; nil takes that off. A connection without one pays a test of a
// bit for each read and write.
func (l *Loop) SetTap(c Slot, t Tap) {
	s := l.slots.At(c)
	l.endTap(c, s)
	switch {
	case t == nil:
	case s.fd < 0:
		t.End()
	default:
		if l.taps == nil {
			l.taps = map[Slot]Tap{}
		}
		l.taps[c] = t
		s.flags |= flagTapped
	}
}

// endTap takes off the tap of c, if it has one.
func (l *Loop) endTap(c Slot, s *slot) {
	if s.is(flagTapped) {
		s.flags &^= flagTapped
		t := l.taps[c]
		delete(l.taps, c)
		t.End()
	}
}

// wrote shows the tap of c the first n bytes of a and b, which a write has taken.
func (l *Loop) wrote(c Slot, a, b []byte, n int) {
	if n <= 0 {
		return
	}
	t := l.taps[c]
	t.Bytes(true, a[:min(n, len(a))])
	if n > len(a) {
		t.Bytes(true, b[:n-len(a)])
	}
}
