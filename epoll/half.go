package epoll

import "golang.org/x/sys/unix"

// TCP ends each direction by itself. A protocol that has an end of its own,
// as WebSocket has, need not care; who passes on plain bytes must pass on FIN
// as well, and go on with the other direction.

// KeepOpen, called within the handler's EOF, leaves c open for bytes to its
// peer. The handler must end it some time.
func (l *Loop) KeepOpen(c Slot) { l.slots.At(c).flags |= flagKept }

// Shut sends FIN to c, and reports whether it could: not while bytes wait to
// be sent; the handler then calls it again in Drained. Nothing may be written
// to c any more.
func (l *Loop) Shut(c Slot) bool {
	l.flushOf(c)
	s := l.slots.At(c)
	if s.fd >= 0 && !s.is(flagEnding) && s.is(flagTLS) {
		l.notify(c, s)
	}
	if s.fd < 0 || s.is(flagEnding) {
		return true // the flush found it broken
	}
	if l.pend(s) != 0 {
		return false
	}
	if !s.is(flagShut) {
		s.flags |= flagShut
		l.kernel.Shutdown(s.fd)
	}
	return true
}

// hungUp is called when both directions of c, which is paused, have ended. If
// bytes have arrived that it has not been asked for, it is not at its end: it
// is taken from the poller, which would report it without pause, until Resume,
// and hungUp reports true.
func (l *Loop) hungUp(s *slot) bool {
	if _, onLinux := l.kernel.(linux); !onLinux {
		return false
	}
	if n, err := unix.IoctlGetInt(int(s.fd), unix.TIOCINQ); err != nil || n == 0 {
		return false
	}
	l.kernel.Ctl(l.epfd, unix.EPOLL_CTL_DEL, s.fd, 0, 0)
	s.flags |= flagUnwatched
	s.watch = 0
	return true
}
