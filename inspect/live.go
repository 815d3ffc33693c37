package inspect

import (
	"sync"
	"time"
)

// Live explains connections while they run. Event loops hand it bytes and never wait: it copies them, as far as there is
// room, and one goroutine of its own explains them. What there was no room for is counted, and a gap in the connection.
type Live struct {
	o LiveOptions

	mu      sync.Mutex // held for the time of a copy
	events  []liveEvent
	data    []byte
	batch   uint64 // counts the times that both were taken
	watched int
	losers  []*LiveConn // that have lost bytes since they were last told of
	missed  int64       // bytes lost since Behind was last called
	closed  bool

	wake    chan struct{}
	noticed chan struct{} // something was lost
	done    chan struct{}
}

// LiveOptions say what to do with connections. The zero value of each limit is good.
type LiveOptions struct {
	Room    int // bytes that may wait to be explained, of all connections; 0 means 1 MiB. There may be twice as many in memory.
	PerConn int // bytes of these that may be of one connection; 0 means Room
	Conns   int // connections that are watched at a time; 0 means 1,000

	// Records gets what was explained; Lost that n bytes of a side were not, for want of room; End that nothing follows.
	// They are called by the goroutine of Live, which may wait in them.
	Records func(c *LiveConn, records []Record)
	Lost    func(c *LiveConn, d Dir, n int64)
	End     func(c *LiveConn)

	// Behind, if it is not nil, gets how many bytes of all connections were lost since it was last called: when the first
	// are, and then once a second at the most. A goroutine of its own calls it, also while Records waits.
	Behind func(n int64)
}

// maxLiveEvents bounds the reads and writes that wait, which may be of a byte each.
const maxLiveEvents = 16 << 10

// liveEvent is a read, a write, a gap, or an end.
type liveEvent struct {
	c    *LiveConn
	kind liveKind
	dir  Dir
	when time.Time
	n    int64 // bytes of data, or of the gap
}

type liveKind uint8

const (
	liveBytes liveKind = iota
	liveGap
	liveEnd
)

// LiveConn is a connection that is watched; it is an epoll.Tap. Its methods are for the goroutine of the connection.
type LiveConn struct {
	// Value is the caller's, for its functions in LiveOptions.
	Value any

	live  *Live
	local Dir // who sends what goes out
	e     *Explainer

	// Guarded by live.mu.
	lost    [2]int64
	loser   bool // it is among live.losers
	waiting int  // bytes in live.data, of this batch
	batch   uint64
	ended   bool
}

// behindEvery is the least time between two calls of LiveOptions.Behind.
const behindEvery = time.Second

// NewLive starts to explain.
func NewLive(o LiveOptions) *Live {
	def := func(p *int, v int) {
		if *p == 0 {
			*p = v
		}
	}
	def(&o.Room, 1<<20)
	def(&o.PerConn, o.Room)
	def(&o.Conns, 1000)
	l := &Live{o: o, wake: make(chan struct{}, 1), noticed: make(chan struct{}, 1), done: make(chan struct{})}
	go l.run()
	if o.Behind != nil {
		go l.tellBehind()
	}
	return l
}

// Watch makes a LiveConn. local is who sends the bytes that go out here: Server, unless this is a client. It returns nil
// when as many are watched as may be. Any goroutine may call it.
func (l *Live) Watch(local Dir, o Options, value any) *LiveConn {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed || l.watched >= l.o.Conns {
		return nil
	}
	l.watched++
	return &LiveConn{Value: value, live: l, local: local, e: New(o)}
}

// WebSocket is that of the connection's Explainer. For the functions of LiveOptions only.
func (c *LiveConn) WebSocket() bool { return c.e.WebSocket() }

// Bytes: one read, or one write, took b. It copies b and does not wait for anything but other copies.
func (c *LiveConn) Bytes(out bool, b []byte) {
	d, now, l := c.local, time.Now(), c.live
	if !out {
		d = d.other()
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if c.ended || l.closed {
		return
	}
	if c.batch != l.batch {
		c.batch, c.waiting = l.batch, 0
	}
	room := min(l.o.Room-len(l.data), l.o.PerConn-c.waiting)
	if len(l.events)+3 > maxLiveEvents { // room for gaps of both directions and for b
		room = 0
	}
	n := min(room, len(b))
	if n > 0 {
		l.tellLost(c, d, now)
		l.data = append(l.data, b[:n]...)
		c.waiting += n
		l.tell(liveEvent{c, liveBytes, d, now, int64(n)})
	}
	if n < len(b) {
		l.lose(c, d, int64(len(b)-max(n, 0)))
	}
}

// lose counts bytes for which there is no room.
func (l *Live) lose(c *LiveConn, d Dir, n int64) {
	c.lost[d] += n
	l.missed += n
	if !c.loser {
		c.loser = true
		l.losers = append(l.losers, c)
	}
	select {
	case l.noticed <- struct{}{}:
	default:
	}
}

// tellBehind is the goroutine that calls Behind.
func (l *Live) tellBehind() {
	for {
		select {
		case <-l.noticed:
		case <-l.done:
			return
		}
		l.mu.Lock()
		n := l.missed
		l.missed = 0
		l.mu.Unlock()
		if n == 0 {
			continue // told together with what was before it
		}
		l.o.Behind(n)
		select {
		case <-time.After(behindEvery):
		case <-l.done:
			return
		}
	}
}

// End: no more bytes will come.
func (c *LiveConn) End() {
	now, l := time.Now(), c.live
	l.mu.Lock()
	defer l.mu.Unlock()
	if c.ended || l.closed {
		return
	}
	c.ended = true
	// There are at most LiveOptions.Conns of these, so room need not be looked for.
	l.tellLost(c, Client, now)
	l.tellLost(c, Server, now)
	l.tell(liveEvent{c: c, kind: liveEnd, when: now})
}

// tellLost puts what was lost of a direction in front of what follows.
func (l *Live) tellLost(c *LiveConn, d Dir, now time.Time) {
	if n := c.lost[d]; n > 0 {
		c.lost[d] = 0
		l.tell(liveEvent{c, liveGap, d, now, n})
	}
}

func (l *Live) tell(e liveEvent) {
	l.events = append(l.events, e)
	select {
	case l.wake <- struct{}{}:
	default: // it is awake
	}
}

// Close explains what waits and ends, as far as that is done before the time has passed: whoever reads the records may be
// stuck. It reports whether it was. Connections that are still watched get no End.
func (l *Live) Close(wait time.Duration) bool {
	l.mu.Lock()
	l.closed = true
	l.mu.Unlock()
	select {
	case l.wake <- struct{}{}:
	default:
	}
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-l.done:
		return true
	case <-timer.C:
		return false
	}
}

// run is the goroutine.
func (l *Live) run() {
	defer close(l.done)
	var events []liveEvent
	var data []byte
	gone := 0
	for {
		l.mu.Lock()
		for _, c := range l.losers { // nothing may follow in which it would be told
			l.tellLost(c, Client, time.Now())
			l.tellLost(c, Server, time.Now())
			c.loser = false
		}
		clear(l.losers)
		l.losers = l.losers[:0]
		events, l.events = l.events, events[:0]
		data, l.data = l.data, data[:0]
		l.batch++
		l.watched -= gone
		closed := l.closed
		l.mu.Unlock()
		if len(events) == 0 && closed {
			return
		}
		gone = l.explain(events, data)
		clear(events) // it points to connections that may be gone
		if len(events) == 0 && gone == 0 {
			<-l.wake
		}
	}
}

// explain works a batch off, and returns how many connections ended in it.
func (l *Live) explain(events []liveEvent, data []byte) (gone int) {
	for i := range events {
		ev := &events[i]
		switch c := ev.c; ev.kind {
		case liveBytes:
			b := data[:ev.n]
			data = data[ev.n:]
			l.o.Records(c, c.e.Feed(ev.dir, ev.when, b))
		case liveGap:
			l.o.Records(c, c.e.Gap(ev.dir, ev.when, ev.n))
			l.o.Lost(c, ev.dir, ev.n)
		default:
			l.o.Records(c, c.e.Finish())
			l.o.End(c)
			gone++
		}
	}
	return gone
}
