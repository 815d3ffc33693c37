package epoll

import "golang.org/x/sys/unix"

// The way out. What a handler has to say to a connection is appended to the
// loop's out scratch and sent with one write when the handler returns, however
// many frames there are. Only what the socket does not take is kept, in a
// buffer of the connection's own, until EPOLLOUT.

const (
	// outScratch is the size of the scratch, and also when it is flushed
	// early: a handler with much to say does not make it grow.
	outScratch = 64 << 10
	// throughMin is the size from which bytes are written from where they
	// are rather than copied into the scratch: a second entry for writev
	// costs less than the copy.
	throughMin = 8 << 10
)

// Out is the out scratch for bytes to c, to be appended to and given to SetOut
// before any other call. What it holds already, if anything, is c's.
func (l *Loop) Out(c Slot) []byte {
	for l.outOf != 0 && l.outOf != c {
		l.flushWith(nil) // it may end that connection, and Closed write to another
	}
	l.outOf = c
	return l.out
}

// SetOut takes the scratch back with more bytes in it. They are sent when the
// handler returns; when there are very many, at once.
func (l *Loop) SetOut(b []byte) {
	l.out = b
	if len(b) >= outScratch {
		l.flush()
	}
}

// Write sends b to c, behind what is in the scratch for it; b is the caller's
// again when Write returns.
func (l *Loop) Write(c Slot, b []byte) {
	if len(b) < throughMin {
		l.SetOut(append(l.Out(c), b...))
		return
	}
	l.Out(c)
	l.flushWith(b)
}

// Direct sends b to c now, without the scratch unless that holds bytes for c.
// It is for one b that goes to many connections.
func (l *Loop) Direct(c Slot, b []byte) {
	if l.outOf == c {
		l.flush()
	}
	l.send(c, l.slots.At(c), b, nil)
}

// Pending is how many bytes wait for c to take them.
func (l *Loop) Pending(c Slot) int { return l.bufs.len(l.pend(l.slots.At(c))) }

// Flush sends what is in the scratch for c now.
func (l *Loop) Flush(c Slot) { l.flushOf(c) }

func (l *Loop) flushOf(c Slot) {
	if l.outOf == c {
		l.flush()
	}
}

// flush sends the scratch.
func (l *Loop) flush() {
	for l.outOf != 0 { // ending a connection, it may leave words of Closed to another
		l.flushWith(nil)
	}
}

// flushWith sends the scratch and then b, to the connection that the scratch is for.
func (l *Loop) flushWith(b []byte) {
	c, out := l.outOf, l.out
	l.out, l.outOf = out[:0], 0
	if cap(out) > 4*outScratch {
		l.out = make([]byte, 0, outScratch)
	}
	if len(out) == 0 {
		out, b = b, nil
	}
	if len(out) > 0 {
		l.send(c, l.slots.At(c), out, b)
	}
}

// send writes a and then b to the socket, and keeps what it does not take.
func (l *Loop) send(c Slot, s *slot, a, b []byte) {
	if s.fd < 0 || s.flags&(flagFinishing|flagEnding) != 0 {
		return // nothing may follow what Finish was called behind
	}
	if s.is(flagTLS) {
		l.seal(c, s, a, b)
		return
	}
	l.put(c, s, a, b)
}

// put is send for the bytes that go to the socket.
func (l *Loop) put(c Slot, s *slot, a, b []byte) {
	first := l.pend(s) == 0
	if first {
		var n int
		var e unix.Errno
		if len(b) == 0 {
			n, e = l.write(s.fd, a)
		} else {
			n, e = l.writev(s.fd, a, b)
		}
		if s.flags&(flagTapped|flagTLS) == flagTapped {
			l.wrote(c, a, b, n)
		}
		if e == none && n == len(a)+len(b) {
			return
		}
		if e != none && e != unix.EAGAIN {
			l.end(c, s, causeOf(e), e)
			return
		}
		n = max(n, 0)
		if n < len(a) {
			a = a[n:]
		} else {
			a, b = b[n-len(a):], nil
		}
	}
	waiting := l.bufs.len(l.pend(s)) + len(a) + len(b)
	if waiting > l.cfg.MaxPending {
		l.end(c, s, CausePending, none)
		return
	}
	if !l.bufs.add(&l.extra(s).pend, a, b) {
		l.end(c, s, CauseBudget, none)
		return
	}
	if waiting > l.cfg.Congested {
		s.flags |= flagCongested
	}
	if first {
		l.progress(c, s)
	}
	l.rewatch(c, s)
}

// progress starts the time anew in which a waiting byte must go.
func (l *Loop) progress(c Slot, s *slot) {
	was := l.dueAt(s)
	x := l.extra(s)
	x.stall = tickOf(l.now+int64(l.cfg.WriteTimeout)) + 1
	// It is filed no later than was, if that is not 0, and may stay there.
	if was == 0 || x.stall < was {
		l.unlink(s)
		l.file(c, s)
	}
}

// sendPending writes what waits for c, now that the socket has room.
func (l *Loop) sendPending(c Slot, s *slot) {
	b := l.bufs.bytes(l.pend(s))
	n, e := l.write(s.fd, b)
	if s.flags&(flagTapped|flagTLS) == flagTapped {
		l.wrote(c, b, nil, n)
	}
	if e == unix.EAGAIN {
		return
	}
	if e != none {
		l.end(c, s, causeOf(e), e)
		return
	}
	x := l.extra(s)
	l.bufs.drop(&x.pend, n)
	if x.pend != 0 {
		l.progress(c, s)
		return
	}
	x.stall = 0
	l.tidy(s)
	if s.is(flagCongested) {
		s.flags &^= flagCongested
		l.again(c, s)
	}
	if s.is(flagFinishing) {
		l.finished(c, s)
		return
	}
	l.rewatch(c, s)
	l.handler.Drained(c)
	l.flush()
}
