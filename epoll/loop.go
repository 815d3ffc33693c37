package epoll

import (
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

// Handler is a protocol on a loop. Its methods are called on the loop's
// goroutine, one at a time; one that blocks holds up every connection of the
// loop. Within a method the handler may call any method of the Loop, for any
// connection. There is one Handler per loop, so it may keep state without locks.
type Handler interface {
	// Opened: c was accepted by the listener with that tag, or added or
	// dialed with it, and is ready.
	Opened(c Slot, tag uint32)

	// Data: in holds what arrived, in order, behind what an earlier call left.
	// Data returns how many bytes it is done with; the loop keeps the rest and
	// shows it again, in front, when more has arrived. Leaving bytes is for
	// units that cannot be handled in part; it must leave less than MaxCarry.
	// in may be written to, and is valid until Data returns.
	Data(c Slot, in []byte) (done int)

	// EOF: the peer sent FIN; nothing more will arrive. Bytes can still be
	// sent to it. The handler should Close or Finish.
	EOF(c Slot)

	// Drained: bytes that waited to be sent have all gone to the socket.
	Drained(c Slot)

	// Expired: the deadline of SetDeadline has passed.
	Expired(c Slot)

	// Closed: the descriptor is closed and the slot is free when Closed
	// returns. errno is the failed system call's error, or 0. Called exactly
	// once for each Opened; and once, without an Opened, for a Dial that failed.
	// It may run inside a call of Close.
	Closed(c Slot, cause Cause, errno unix.Errno)
}

// Config is what the loops of a Group share.
type Config struct {
	Loops int // number of loops; 0 means 1

	// ReadBuffer is how many bytes one read takes at most; 0 means the smaller
	// of 64 KiB and half of MaxPending. There is one such buffer per loop.
	ReadBuffer int

	// MaxPending bounds the bytes that wait for one peer to read; a
	// connection above it is closed with CausePending. 0 means 1 MiB.
	MaxPending int

	// Congested is how many waiting bytes stop the reading from their
	// connection until all of them are sent: a peer that does not read its
	// answers gets to ask no more. 0 means the smaller of 64 KiB and a
	// quarter of MaxPending.
	Congested int

	// WriteTimeout closes a connection with CauseStalled when bytes wait to be
	// sent to it and none could be for that long. 0 means 10 s.
	WriteTimeout time.Duration

	// LingerTimeout bounds how long Finish waits for the peer's FIN. 0 means 2 s.
	LingerTimeout time.Duration

	// Budget bounds the bytes in buffers of connections; nil means no bound.
	Budget *Budget

	// OnPanic is called, on the loop, when a Handler or a posted function has
	// panicked with v; c is the connection that was served, 0 if none was. The
	// loop then goes on with the others. nil means that the panic ends the program.
	OnPanic func(l *Loop, c Slot, v any)
}

func (cfg Config) withDefaults() Config {
	def := func(p *int, v int) {
		if *p == 0 {
			*p = v
		}
	}
	def(&cfg.Loops, 1)
	def(&cfg.MaxPending, 1<<20)
	// What may wait before reading stops, and the echo of one more read, fit
	// in what may wait at all: a peer that reads slowly is held back first.
	def(&cfg.ReadBuffer, min(64<<10, cfg.MaxPending/2))
	def(&cfg.Congested, min(64<<10, cfg.MaxPending/4))
	if cfg.WriteTimeout == 0 {
		cfg.WriteTimeout = 10 * time.Second
	}
	if cfg.LingerTimeout == 0 {
		cfg.LingerTimeout = 2 * time.Second
	}
	if cfg.Budget == nil {
		cfg.Budget = NewBudget(0)
	}
	return cfg
}

// MaxCarry is how many bytes a handler's Data may leave at the most: what it
// may leave after a whole read of an earlier leftover.
func (cfg *Config) MaxCarry() int { return cfg.ReadBuffer + 64<<10 }

const (
	maxEvents = 256 // events taken from the kernel at once
	keyWake   = ^uint64(0)
	// Keys of listeners have the generation that no slot ever has.
	listenerGen = ^uint32(0)
)

// Loop is one epoll instance, the connections in it, and the goroutine that
// serves them. Every method but Post, ID's holders' Group methods and Index is
// for the loop's own goroutine: its Handler, and functions that were posted.
type Loop struct {
	cfg     Config
	index   int
	handler Handler
	epfd    int
	wakefd  int32

	slots Table[slot]
	top   Slot   // slots below top have been used
	freed []Slot // and these of them are free
	open  int

	now  int64 // monotonic nanoseconds, taken once per batch of events
	tick uint32
	wheel
	due       []ID
	advancing bool // in the middle of a tick
	resumed   []ID
	serving   Slot // the connection whose event, deadline or carry is being handled

	in    []byte // the read buffer, and in front of it room for a carry
	out   []byte // the out scratch: bytes of connection outOf that await the flush
	outOf Slot
	iov   [2]unix.Iovec
	bufs  bufs

	listeners []listener
	starved   bool // out of descriptors: listeners are not watched until retry
	retry     uint32

	mu      sync.Mutex
	posted  []func()
	dead    bool        // guarded by mu: the loop has ended and takes no more posts
	woken   atomic.Bool // posted is not empty, and the eventfd has been written
	running []func()    // what was posted and is run now

	stopping bool
	stats    Stats
}

// Stats count what a loop has done.
type Stats struct {
	Open     int               // connections now
	Accepted uint64            // connections taken from listeners
	Closed   [numCauses]uint64 // connections that ended, by Cause
	Starved  uint64            // times that accepting stopped because descriptors ran out
	Waits    uint64            // batches of events
	Events   uint64            // events in them
}

func newLoop(cfg Config, index int) (*Loop, error) {
	epfd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("epoll_create1", err)
	}
	wakefd, err := unix.Eventfd(0, unix.EFD_NONBLOCK|unix.EFD_CLOEXEC)
	if err != nil {
		unix.Close(epfd)
		return nil, os.NewSyscallError("eventfd", err)
	}
	l := &Loop{
		cfg:    cfg,
		index:  index,
		epfd:   epfd,
		wakefd: int32(wakefd),
		top:    1,
		in:     make([]byte, cfg.MaxCarry()+cfg.ReadBuffer),
		out:    make([]byte, 0, outScratch),
		bufs:   bufs{budget: cfg.Budget},
	}
	l.clock()
	l.wheel.now = l.tick
	if e := sysCtl(epfd, unix.EPOLL_CTL_ADD, l.wakefd, unix.EPOLLIN, keyWake); e != none {
		unix.Close(epfd)
		unix.Close(wakefd)
		return nil, os.NewSyscallError("epoll_ctl", e)
	}
	return l, nil
}

// Index is the loop's number in its Group. Any goroutine may call it.
func (l *Loop) Index() int { return l.index }

// Len is the number of connections on the loop.
func (l *Loop) Len() int { return l.open }

// Slots is one more than the highest slot that was ever used: the length for
// tables beside the loop's.
func (l *Loop) Slots() Slot { return l.top }

// Now is the monotonic time of the current batch of events, in nanoseconds
// since an origin that all loops share.
func (l *Loop) Now() int64 { return l.now }

// Tick is Now in units of Tick. It fits a slot's state better.
func (l *Loop) Tick() uint32 { return l.tick }

func (l *Loop) clock() {
	l.now = sysNow()
	l.tick = tickOf(l.now)
}

// ID is the name of c for other goroutines and for later.
func (l *Loop) ID(c Slot) ID { return ID(l.slots.At(c).gen)<<32 | ID(c) }

// Find is the slot of id; false when that connection is gone.
func (l *Loop) Find(id ID) (Slot, bool) {
	c, s := l.find(id)
	return c, s != nil && !s.is(flagConnecting)
}

func (l *Loop) find(id ID) (Slot, *slot) {
	c := id.slot()
	if c == 0 || c >= l.top {
		return 0, nil
	}
	s := l.slots.At(c)
	if s.gen != id.gen() || s.fd < 0 {
		return 0, nil
	}
	return c, s
}

// Each calls f for every connection, which f may close.
func (l *Loop) Each(f func(c Slot)) {
	for c := Slot(1); c < l.top; c++ {
		if s := l.slots.At(c); s.fd >= 0 && !s.is(flagConnecting) {
			f(c)
		}
	}
}

// Fd is the descriptor of c, for socket options; it stays the loop's.
func (l *Loop) Fd(c Slot) int { return int(l.slots.At(c).fd) }

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
	s.deadline = 0
	if d > 0 {
		s.deadline = tickOf(l.now+int64(d)) + 1 // the tick that begins after it
	}
	l.refile(c, s)
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
// end of the batch.
func (l *Loop) again(c Slot, s *slot) {
	if s.carry != 0 && !s.is(flagResumed) {
		s.flags |= flagResumed
		l.resumed = append(l.resumed, l.ID(c))
	}
}

// rewatch tells the kernel which events of c matter now, if that changed.
func (l *Loop) rewatch(c Slot, s *slot) {
	var want uint8
	if s.flags&(flagPaused|flagCongested|flagEOF|flagConnecting) == 0 {
		want |= unix.EPOLLIN
	}
	if s.pend != 0 || s.is(flagConnecting) {
		want |= unix.EPOLLOUT
	}
	if want != s.watch {
		s.watch = want
		sysCtl(l.epfd, unix.EPOLL_CTL_MOD, s.fd, uint32(want), uint64(l.ID(c)))
	}
}

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
	if e := sysCtl(l.epfd, unix.EPOLL_CTL_ADD, fd, uint32(s.watch), uint64(l.ID(c))); e != none {
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
	if len(first) > l.cfg.MaxCarry() {
		unix.Close(fd)
		return fmt.Errorf("%d first bytes are more than MaxCarry, %d", len(first), l.cfg.MaxCarry())
	}
	if err := unix.SetNonblock(fd, true); err != nil {
		unix.Close(fd)
		return os.NewSyscallError("fcntl", err)
	}
	c, s, e := l.add(int32(fd), 0)
	if e != none {
		unix.Close(fd)
		return os.NewSyscallError("epoll_ctl", e)
	}
	if !l.bufs.add(&s.carry, first, nil) {
		l.release(c, s)
		sysClose(int32(fd))
		return fmt.Errorf("no room for %d bytes in the memory budget", len(first))
	}
	l.again(c, s)
	l.opened(c, tag)
	return nil
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
	sysCtl(l.epfd, unix.EPOLL_CTL_DEL, s.fd, 0, 0)
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
	if s.fd < 0 {
		return // the flush found the connection broken
	}
	s.flags |= flagFinishing
	s.flags &^= flagPaused | flagCongested
	if linger {
		s.flags |= flagLinger
	}
	s.cause = cause
	l.bufs.discard(&s.carry)
	l.setDeadline(c, s, 0) // sending is bounded by the stall, lingering below
	l.finished(c, s)
}

// finished goes on with finishing when nothing waits to be sent.
func (l *Loop) finished(c Slot, s *slot) {
	if s.pend != 0 {
		l.rewatch(c, s)
		return
	}
	if !s.is(flagLinger) || s.is(flagEOF) {
		l.end(c, s, s.cause, none)
		return
	}
	if !s.is(flagShut) {
		s.flags |= flagShut
		sysShutdown(s.fd)
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
		sysClose(fd)
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
	l.bufs.discard(&s.carry)
	l.bufs.discard(&s.pend)
	if s.gen++; s.gen == listenerGen {
		s.gen = 0
	}
	s.fd = -1
	l.freed = append(l.freed, c)
	l.open--
}

// run serves until stop. It is the loop's goroutine.
func (l *Loop) run() {
	defer l.exit()
	evs := make([]unix.EpollEvent, maxEvents)
	for !l.stopping {
		l.serve(evs)
	}
}

// serve handles batches of events until stop, or until something panicked that
// OnPanic takes care of. What is left of such a batch is not lost: the kernel
// reports level-triggered events again, and the other lists are worked off
// from the front.
func (l *Loop) serve(evs []unix.EpollEvent) {
	if l.cfg.OnPanic != nil {
		defer func() {
			if v := recover(); v != nil {
				if l.advancing {
					l.advancing = false
					l.wheel.now-- // visit the bucket again
				}
				l.cfg.OnPanic(l, l.serving, v)
				l.flush()
			}
		}()
	}
	for !l.stopping {
		l.serving = 0
		n := l.wait(evs)
		l.clock()
		l.stats.Waits++
		l.stats.Events += uint64(n)
		for i := range evs[:n] {
			l.dispatch(&evs[i])
			l.flush() // what Closed had to say to others
		}
		if l.tick != l.wheel.now {
			l.advance(l.tick)
			l.flush()
		}
		for range len(l.resumed) { // those that come now have their turn in the next batch
			l.showCarry()
		}
		if l.starved && l.tick >= l.retry {
			l.watchListeners()
		}
		if l.woken.Load() || len(l.running) > 0 {
			l.serving = 0
			l.runPosted()
		}
	}
}

// wait takes the next batch of events. Under load there always are some and
// asking without waiting finds them; only when there are none does the loop
// give its processor away.
func (l *Loop) wait(evs []unix.EpollEvent) int {
	if n, _ := sysPoll(l.epfd, evs); n > 0 {
		return n
	}
	if l.woken.Load() || len(l.resumed) > 0 || len(l.running) > 0 {
		return 0
	}
	ms := l.untilNext(sysNow())
	if l.starved {
		ms = int(min(uint(ms), uint(Tick/time.Millisecond))) // -1 is the largest uint
	}
	n, e := sysWait(l.epfd, evs, ms)
	if e != none { // EINTR: a signal, no event
		return 0
	}
	return n
}

// dispatch acts on one event.
func (l *Loop) dispatch(ev *unix.EpollEvent) {
	id := ID(*keyOf(ev))
	c, s := l.find(id)
	l.serving = c
	if s == nil {
		if id == ID(keyWake) {
			l.clearWake()
		} else if id.gen() == listenerGen {
			l.accept(int(id.slot()))
		}
		return // else an event of a connection that has gone
	}
	if s.is(flagConnecting) {
		l.connected(c, s)
		return
	}
	if ev.Events&unix.EPOLLOUT != 0 && s.pend != 0 {
		if l.sendPending(c, s); s.gen != id.gen() {
			return
		}
	}
	if ev.Events&unix.EPOLLIN != 0 && s.watch&unix.EPOLLIN != 0 {
		l.readable(c, s)
		return
	}
	if ev.Events&(unix.EPOLLERR|unix.EPOLLHUP) != 0 && s.gen == id.gen() {
		// The connection is dead both ways though we are not reading from it.
		e := socketError(s.fd)
		cause := s.cause
		if e != none {
			cause = causeOf(e)
		}
		l.end(c, s, cause, e)
	}
}

// readable reads once and shows the bytes to the handler. Level-triggered
// epoll reports again what one read leaves, after the other connections.
func (l *Loop) readable(c Slot, s *slot) {
	if s.is(flagResumed) && !s.is(flagFinishing) {
		// What was left is shown first, else what is left could grow with
		// every Resume, and FIN overtake it; the kernel reports this again.
		return
	}
	k := 0
	if s.carry != 0 {
		k = copy(l.in, l.bufs.bytes(s.carry))
	}
	n, e := sysRead(s.fd, l.in[k:k+l.cfg.ReadBuffer])
	switch {
	case e == unix.EAGAIN:
	case e != none:
		l.end(c, s, causeOf(e), e)
	case n == 0:
		s.flags |= flagEOF
		if s.is(flagFinishing) {
			l.finished(c, s)
			return
		}
		gen := s.gen
		l.rewatch(c, s)
		l.handler.EOF(c)
		if l.flush(); s.gen == gen && !s.is(flagFinishing) {
			l.finish(c, s, CauseEOF, false)
		}
	case s.is(flagFinishing):
		// Lingering: the bytes are too late.
	default:
		l.show(c, s, l.in[:k+n])
	}
}

// show gives bytes to the handler, keeps what it leaves, and flushes what it
// has to say.
func (l *Loop) show(c Slot, s *slot, in []byte) {
	gen := s.gen
	done := l.handler.Data(c, in)
	if s.gen != gen {
		l.flush() // it may have written to others
		return    // closed or detached within
	}
	if s.carry != 0 {
		l.bufs.discard(&s.carry)
	}
	if done < len(in) && !s.is(flagFinishing) {
		if len(in)-done > l.cfg.MaxCarry() || !l.bufs.add(&s.carry, in[done:], nil) {
			l.end(c, s, CauseBudget, none)
			return
		}
	}
	l.flush()
}

// showCarry shows kept bytes again to the handler, of the first connection
// that Resume asked it for.
func (l *Loop) showCarry() {
	id := l.resumed[0]
	if l.resumed = l.resumed[1:]; len(l.resumed) == 0 {
		l.resumed = nil
	}
	c, s := l.find(id)
	if s == nil {
		return
	}
	s.flags &^= flagResumed
	if s.carry == 0 || s.flags&(flagPaused|flagCongested|flagFinishing) != 0 {
		return
	}
	l.serving = c
	l.show(c, s, l.in[:copy(l.in, l.bufs.bytes(s.carry))])
}

func (l *Loop) exit() {
	// Who was told that a function will run may be waiting for it: what was
	// posted until now runs, and nothing is taken any more.
	l.stopping = true
	l.mu.Lock()
	l.dead = true
	posted := append(l.running, l.posted...)
	l.running, l.posted = nil, nil
	l.mu.Unlock()
	for _, f := range posted {
		f()
	}
	l.flush()
	l.Each(func(c Slot) { l.Close(c) })
	for c := Slot(1); c < l.top; c++ { // those that were still connecting
		if s := l.slots.At(c); s.fd >= 0 {
			l.end(c, s, CauseLocal, none)
		}
	}
	l.closeListeners()
	unix.Close(l.epfd)
	sysClose(l.wakefd)
}

func causeOf(e unix.Errno) Cause {
	switch e {
	case none:
		return CauseEOF
	case unix.ECONNRESET, unix.EPIPE:
		return CauseReset
	case unix.ETIMEDOUT:
		return CauseTimeout
	case unix.ECONNREFUSED, unix.EHOSTUNREACH, unix.ENETUNREACH:
		return CauseRefused
	}
	return CauseError
}

// socketError takes the error that the kernel holds for fd.
func socketError(fd int32) unix.Errno {
	v, err := unix.GetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_ERROR)
	if err != nil {
		return unix.EBADF
	}
	return unix.Errno(v)
}
