package epoll

import (
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// The life of a connection: it is added, watched, paused, finished and ended.

// add gives descriptor fd a slot and watches it.
func (l *Loop) add(fd int32, flags uint16) (Slot, *slot, unix.Errno) {
	if l.stopping {
		return 0, nil, unix.ESHUTDOWN // Closed may dial again; that must not outlive the loop
	}
	var c Slot
	if n := len(l.freed); n > 0 {
		c = l.freed[n-1]
		l.freed = l.freed[:n-1]
	} else {
		c = l.top
		l.slots.Grow(c)
		l.top++
	}
	if l.outOf == c {
		l.out, l.outOf = l.out[:0], 0 // written to the connection that was in the slot, after its end
	}
	s := l.slots.At(c)
	*s = slot{gen: s.gen, fd: fd, flags: flags, watch: unix.EPOLLIN}
	if flags&flagConnecting != 0 {
		s.watch = unix.EPOLLOUT
	}
	if e := l.kernel.Ctl(l.epfd, unix.EPOLL_CTL_ADD, fd, uint32(s.watch), uint64(l.ID(c))); e != none {
		s.fd = -1
		l.freed = append(l.freed, c)
		return 0, nil, e
	}
	l.open++
	return c, s, none
}

// Add puts a connected stream socket on the loop, which owns it from then on,
// also when Add fails: it is made non-blocking. first are bytes that were read
// from it already, at most MaxCarry; they are shown to Data first. Opened is called before Add
// returns.
func (l *Loop) Add(fd int, tag uint32, first []byte) error {
	c, _, err := l.insert(fd, first)
	if err == nil {
		l.opened(c, tag)
	}
	return err
}

// insert is Add until Opened.
func (l *Loop) insert(fd int, first []byte) (Slot, *slot, error) {
	if len(first) > l.cfg.maxCarry() {
		l.kernel.Close(int32(fd))
		return 0, nil, fmt.Errorf("%d first bytes are more than MaxCarry, %d", len(first), l.cfg.maxCarry())
	}
	if err := l.kernel.Nonblock(int32(fd)); err != nil {
		l.kernel.Close(int32(fd))
		return 0, nil, os.NewSyscallError("fcntl", err)
	}
	c, s, e := l.add(int32(fd), 0)
	if e != none {
		l.kernel.Close(int32(fd))
		return 0, nil, os.NewSyscallError("epoll_ctl", e)
	}
	if len(first) > 0 && !l.bufs.add(&l.extra(s).carry, first, nil) {
		l.release(c, s)
		l.kernel.Close(int32(fd))
		return 0, nil, fmt.Errorf("no room for %d bytes in the memory budget", len(first))
	}
	l.again(c, s)
	return c, s, nil
}

func (l *Loop) opened(c Slot, tag uint32) {
	serving := l.serving
	l.serving = c
	l.handler.Opened(c, tag)
	l.serving = serving
	l.flush()
}

// Detach takes c off the loop without closing it. The caller owns the
// descriptor then, still non-blocking; nothing may be pending. Closed is not
// called. To be called within Data, whose in are the bytes that were read. It
// returns -1 when c has ended.
func (l *Loop) Detach(c Slot) (fd int) {
	s := l.slots.At(c)
	if s.fd < 0 || s.is(flagEnding) {
		return -1
	}
	fd = int(s.fd)
	l.kernel.Ctl(l.epfd, unix.EPOLL_CTL_DEL, s.fd, 0, 0)
	l.release(c, s)
	return fd
}

// Close ends c at once; bytes that wait are dropped. The handler's Closed is
// called with CauseLocal before Close returns.
func (l *Loop) Close(c Slot) { l.end(c, l.slots.At(c), CauseLocal, none) }

// Finish ends c properly: nothing more is shown to the handler, what waits is
// sent, then FIN. With linger, what the peer still sends is read and dropped
// until its FIN comes, for up to Config.LingerTimeout: closing a socket while
// bytes arrive makes the kernel send RST, which can destroy our last words on
// their way. Without linger the socket is closed after the last byte, right
// for a peer that has said it sends no more.
func (l *Loop) Finish(c Slot, linger bool) {
	l.finish(c, l.slots.At(c), CauseLocal, linger)
}

func (l *Loop) finish(c Slot, s *slot, cause Cause, linger bool) {
	if s.flags&(flagFinishing|flagEnding) != 0 {
		return
	}
	l.flushOf(c)
	if s.is(flagShaking) {
		l.end(c, s, cause, none)
		return
	}
	if s.is(flagTLS) {
		l.notify(c, s)
	}
	if s.fd < 0 {
		return // the flush found the connection broken
	}
	s.flags |= flagFinishing
	s.flags &^= flagPaused | flagCongested
	if linger {
		s.flags |= flagLinger
	}
	s.cause = cause
	l.dropCarry(s)
	// A peer that takes a byte now and then makes progress, but not for ever.
	l.setDeadline(c, s, l.cfg.WriteTimeout+l.cfg.LingerTimeout)
	l.finished(c, s)
}

// finished goes on with finishing when nothing waits to be sent.
func (l *Loop) finished(c Slot, s *slot) {
	if l.pend(s) != 0 {
		l.rewatch(c, s)
		return
	}
	if !s.is(flagLinger) || s.is(flagEOF) {
		l.end(c, s, s.cause, none)
		return
	}
	if !s.is(flagShut) {
		s.flags |= flagShut
		l.kernel.Shutdown(s.fd)
		l.setDeadline(c, s, l.cfg.LingerTimeout)
	}
	l.rewatch(c, s)
}

// end closes the descriptor, tells the handler, and frees the slot.
func (l *Loop) end(c Slot, s *slot, cause Cause, e unix.Errno) {
	if s.fd < 0 || s.is(flagEnding) {
		return // Closed may call Close, or write to all there are
	}
	s.flags |= flagEnding
	fd := s.fd
	l.stats.Closed[cause]++
	if l.outOf == c {
		l.out, l.outOf = l.out[:0], 0
	}
	defer func() { // also when Closed panics
		l.release(c, s)
		l.kernel.Close(fd)
		if l.starved {
			l.retry = l.tick // a descriptor has come back
		}
	}()
	l.handler.Closed(c, cause, e)
}

// release frees the slot: events and IDs of the old generation find nobody.
func (l *Loop) release(c Slot, s *slot) {
	if l.outOf == c {
		l.out, l.outOf = l.out[:0], 0
	}
	l.unlink(s)
	l.dropTaps(c, s)
	l.dropExtra(s)
	if s.is(flagTLS) {
		l.dropTLS(c)
	}
	if s.gen++; s.gen == listenerGen {
		s.gen = 0
	}
	s.fd = -1
	l.freed = append(l.freed, c)
	l.open--
}

// SetDeadline calls the handler's Expired when d has passed, once; it replaces
// an earlier deadline. 0 or less means no deadline.
func (l *Loop) SetDeadline(c Slot, d time.Duration) {
	s := l.slots.At(c)
	if s.fd < 0 || s.is(flagFinishing) {
		return // a write may have found c broken; the deadline of Finish stands
	}
	l.setDeadline(c, s, d)
}

func (l *Loop) setDeadline(c Slot, s *slot, d time.Duration) {
	l.unlink(s) // exactly where it belongs: nobody wakes up at the old time
	at := uint32(0)
	if d > 0 {
		d = min(d, 5*365*24*time.Hour)  // ticks are 32 bits: 6.8 years
		at = tickOf(l.now+int64(d)) + 1 // the tick that begins after it
	}
	*l.deadline(s) = at
	l.file(c, s)
}

// Pause stops reading from c, and calls of Data, until Resume: the peer is
// held back by TCP. Bytes that Data leaves while paused are kept.
func (l *Loop) Pause(c Slot) {
	s := l.slots.At(c)
	s.flags |= flagPaused
	l.rewatch(c, s)
}

// Resume undoes Pause. Bytes that were left are shown to Data soon, even if
// none arrive.
func (l *Loop) Resume(c Slot) {
	s := l.slots.At(c)
	if !s.is(flagPaused) {
		return
	}
	s.flags &^= flagPaused
	l.rewatch(c, s)
	l.again(c, s)
}

// Held reports whether no data is shown to the handler for now: c is paused, or
// its peer must first read what waits for it. A handler that works through
// many units in one Data may stop there and leave the rest.
func (l *Loop) Held(c Slot) bool { return l.slots.At(c).flags&(flagPaused|flagCongested) != 0 }

// again puts c in the list of connections whose carry is shown to Data at the
// end of the batch, or which have yet to be told the end behind it.
func (l *Loop) again(c Slot, s *slot) {
	if (l.carry(s) != 0 || s.is(flagTLS) && l.tls[c].eof) && !s.is(flagResumed) {
		s.flags |= flagResumed
		l.resumed = append(l.resumed, l.ID(c))
	}
}

// rewatch tells the kernel which events of c matter now, if that changed.
func (l *Loop) rewatch(c Slot, s *slot) {
	var want uint8
	switch {
	case s.is(flagShaking):
		if l.tls[c].shake.reads() {
			want |= unix.EPOLLIN
		}
	case s.flags&(flagPaused|flagCongested|flagEOF|flagConnecting) == 0:
		want |= unix.EPOLLIN
	}
	if l.pend(s) != 0 || s.flags&(flagConnecting|flagShaking) == flagConnecting {
		want |= unix.EPOLLOUT
	}
	if want != s.watch {
		s.watch = want
		op := unix.EPOLL_CTL_MOD
		if s.is(flagUnwatched) {
			op = unix.EPOLL_CTL_ADD
			s.flags &^= flagUnwatched
		}
		l.kernel.Ctl(l.epfd, op, s.fd, uint32(want), uint64(l.ID(c)))
	}
}
