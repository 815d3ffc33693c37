package epoll

import (
	"os"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"
)

const (
	maxEvents = 256 // events taken from the kernel at once
	// turn is for how long a loop stays on its processor without asking the Go
	// scheduler. After 10 ms the scheduler's monitor would interrupt it with a
	// signal, take the processor away while it sleeps, and for that watch it
	// every 20 us from then on.
	turn    = 5 * time.Millisecond
	keyWake = ^uint64(0)
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
	kernel  Kernel
	epfd    int
	wakefd  int32

	slots Table[slot]
	top   Slot   // slots below top have been used
	freed []Slot // and these of them are free
	open  int

	now  int64 // monotonic nanoseconds, taken once per batch of events
	turn int64 // when the loop last let others have its processor
	tick uint32
	wheel
	due       []ID
	advancing bool // in the middle of a tick
	resumed   []ID
	serving   Slot // the connection whose event, deadline or carry is being handled

	in     []byte // the read buffer, and in front of it room for a carry
	out    []byte // the out scratch: bytes of connection outOf that await the flush
	outOf  Slot
	evs    []unix.EpollEvent
	iov    [2]unix.Iovec
	bufs   bufs
	extras extras
	duct   duct
	taps   map[Slot][]Tap // of those with flagTapped

	tls     map[Slot]*TLS // of those with flagTLS
	cipher  []byte        // the read buffer for these
	sealed  []byte        // what a tls.Conn wrote and ship has yet to send
	shaking int           // handshakes with a goroutine
	toShake []*TLS        // those that wait to begin

	listeners []listener
	alarm     int64 // of SetAlarm; 0: none
	starved   bool  // out of descriptors: listeners are not watched until retry
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
	epfd, wakefd, err := cfg.Kernel.Open()
	if err != nil {
		return nil, err
	}
	l := &Loop{
		cfg:    cfg,
		index:  index,
		kernel: cfg.Kernel,
		epfd:   epfd,
		wakefd: wakefd,
		evs:    make([]unix.EpollEvent, maxEvents),
		top:    1,
		in:     make([]byte, cfg.maxCarry()+cfg.ReadBuffer+maxRecord), // the last for a record that a small read completes
		out:    make([]byte, 0, outScratch),
		bufs:   bufs{budget: cfg.Budget},
	}
	l.clock()
	l.wheel.now = l.tick
	if e := l.kernel.Ctl(epfd, unix.EPOLL_CTL_ADD, l.wakefd, unix.EPOLLIN, keyWake); e != none {
		l.kernel.Close(int32(epfd))
		l.kernel.Close(wakefd)
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
	l.now = l.kernel.Now()
	l.tick = tickOf(l.now)
}

// Clock is the monotonic time now, in the terms of Now but not rounded to the
// batch.
func (l *Loop) Clock() int64 { return l.kernel.Now() }

// SetAlarm calls Config.OnAlarm when Now has reached at; a later SetAlarm
// replaces it. It is for one thing per loop that must happen at an exact time,
// to the resolution of the kernel's timers; deadlines of connections have Tick.
func (l *Loop) SetAlarm(at int64) { l.alarm = at }

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

// run serves until stop. It is the loop's goroutine.
func (l *Loop) run() {
	defer l.exit()
	for !l.stopping {
		l.serve()
	}
}

// serve handles batches of events until stop, or until something panicked that
// OnPanic takes care of. What is left of such a batch is not lost: the kernel
// reports level-triggered events again, and the other lists are worked off
// from the front.
func (l *Loop) serve() {
	if l.cfg.OnPanic != nil {
		defer l.goOn()
	}
	for !l.stopping {
		l.serving = 0
		l.batch(l.wait(l.evs))
	}
}

// Step serves one batch of the events that are there and returns; it never
// waits. It is for the goroutine that made the group and does not Start it, a
// simulation: that goroutine is then the one of all its loops.
func (l *Loop) Step() {
	if l.cfg.OnPanic != nil {
		defer l.goOn()
	}
	l.serving = 0
	n, _ := l.kernel.Poll(l.epfd, l.evs)
	l.batch(max(n, 0))
}

// goOn is deferred: it takes care of a panic with OnPanic.
func (l *Loop) goOn() {
	if v := recover(); v != nil {
		if l.advancing {
			l.advancing = false
			l.wheel.now-- // visit the bucket again
		}
		l.cfg.OnPanic(l, l.serving, v)
		l.flush()
	}
}

// batch serves n events, and what else is due.
func (l *Loop) batch(n int) {
	l.clock()
	l.stats.Waits++
	l.stats.Events += uint64(n)
	for i := range l.evs[:n] {
		l.dispatch(&l.evs[i])
		l.flush() // what Closed had to say to others
	}
	if l.alarm != 0 && l.now >= l.alarm {
		l.alarm = 0
		l.cfg.OnAlarm(l)
		l.flush()
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

// wait takes the next batch of events. Under load there always are some and
// asking without waiting finds them; only when there are none does the loop
// give its processor away.
func (l *Loop) wait(evs []unix.EpollEvent) int {
	if l.now-l.turn > int64(turn) {
		l.turn = l.now
		runtime.Gosched()
	}
	if n, _ := l.kernel.Poll(l.epfd, evs); n > 0 {
		return n
	}
	if l.woken.Load() || len(l.resumed) > 0 || len(l.running) > 0 {
		return 0
	}
	now := l.kernel.Now()
	ms := l.untilNext(now)
	if l.starved {
		ms = int(min(uint(ms), uint(Tick/time.Millisecond))) // -1 is the largest uint
	}
	if l.alarm != 0 && (ms < 0 || l.alarm-now < int64(ms)*1e6) {
		return l.waitForAlarm(evs, l.alarm-now)
	}
	n, e := l.kernel.Wait(l.epfd, evs, int64(ms)*1e6)
	if e != none { // EINTR: a signal, no event
		return 0
	}
	return n
}

// waitForAlarm is the end of wait when the alarm comes before any deadline.
func (l *Loop) waitForAlarm(evs []unix.EpollEvent, ns int64) int {
	if ns <= 0 {
		return 0
	}
	n, e := l.kernel.Wait(l.epfd, evs, ns)
	if e != none {
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
	if s.flags&(flagConnecting|flagShaking) == flagConnecting {
		l.connected(c, s, ev.Events)
		return
	}
	if ev.Events&unix.EPOLLOUT != 0 && l.pend(s) != 0 {
		if l.sendPending(c, s); s.gen != id.gen() {
			return
		}
	}
	if ev.Events&unix.EPOLLIN != 0 && s.watch&unix.EPOLLIN != 0 {
		l.readable(c, s)
		return
	}
	if ev.Events&(unix.EPOLLERR|unix.EPOLLHUP) != 0 && s.gen == id.gen() {
		if s.is(flagPaused) && ev.Events&unix.EPOLLERR == 0 && l.hungUp(s) {
			return
		}
		// The connection is dead both ways though we are not reading from it.
		e := l.kernel.SocketError(s.fd)
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
	if s.is(flagTLS) {
		l.readTLS(c, s)
		return
	}
	k := 0
	if h := l.carry(s); h != 0 {
		k = copy(l.in, l.bufs.bytes(h))
	}
	n, e := l.read(s.fd, l.in[k:k+l.cfg.ReadBuffer])
	if s.is(flagTapped) {
		l.tapped(c, false, l.in[k:k+max(n, 0)])
	}
	switch {
	case e == unix.EAGAIN:
	case e != none:
		l.end(c, s, causeOf(e), e)
	case n == 0:
		l.fin(c, s)
	case s.is(flagFinishing):
		// Lingering: the bytes are too late.
	default:
		l.show(c, s, l.in[:k+n])
	}
}

// fin: the peer's FIN has come.
func (l *Loop) fin(c Slot, s *slot) {
	s.flags |= flagEOF
	if s.is(flagFinishing) {
		l.finished(c, s)
		return
	}
	gen := s.gen
	l.rewatch(c, s)
	l.handler.EOF(c)
	if l.flush(); s.gen == gen && s.flags&(flagFinishing|flagKept) == 0 {
		l.finish(c, s, CauseEOF, false)
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
	l.dropCarry(s)
	if done < len(in) && !s.is(flagFinishing) {
		if len(in)-done > l.cfg.maxCarry() || !l.bufs.add(&l.extra(s).carry, in[done:], nil) {
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
	if s.flags&(flagPaused|flagCongested|flagFinishing) != 0 {
		return
	}
	l.serving = c
	if l.carry(s) != 0 {
		l.show(c, s, l.in[:copy(l.in, l.bufs.bytes(l.carry(s)))])
	}
	if t := l.tls[c]; t != nil && t.id == id {
		l.tellEOF(c, s, t)
	}
}

// guard runs f outside of a batch; a panic in it is OnPanic's as it is there.
func (l *Loop) guard(f func()) {
	l.serving = 0
	l.clock()
	if l.cfg.OnPanic != nil {
		defer l.goOn()
	}
	f()
	l.flush()
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
		l.guard(f)
	}
	l.Each(func(c Slot) { l.guard(func() { l.Close(c) }) })
	for c := Slot(1); c < l.top; c++ { // those that were still connecting
		if s := l.slots.At(c); s.fd >= 0 {
			l.end(c, s, CauseLocal, none)
		}
	}
	l.closeListeners()
	l.duct.close()
	l.kernel.Close(int32(l.epfd))
	l.kernel.Close(l.wakefd)
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
