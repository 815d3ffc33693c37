package server

import (
	"bytes"
	"fmt"

	"wspoll/epoll"

	"github.com/gobwas/ws"
)

// simClient is a client of a simulation: what it sends and reads, what the
// server was shown of it and owes for that, and how it all ended.
type simClient struct {
	sim  *simulation
	id   int
	sock *simSocket

	// What it does. Units are a head or frames; between two of them the client
	// may put an answer of its own.
	path    string
	head    int    // bytes of the head, the first unit
	status  int    // of the answer it deserves; 0: it is plain HTTP
	key     string // Sec-WebSocket-Key
	agrees  string // Sec-WebSocket-Extensions of the answer
	units   [][]byte
	begun   bool // a part of units[0] is sent
	talking bool // the head is sent
	waits   bool // for the 101, before it sends frames
	polite  bool // answers pings and Close
	last    int  // what it does when all units are sent
	window  int  // bytes on the way to the server
	gulp    int  // bytes it reads at once, 0: it does not read
	ponged  int  // pings that it answered
	replied bool // it has answered the server's Close

	// What the server has been shown, and what it owes.
	opened        bool // accepted, and watched
	openedAt      int64
	headRead      int
	upgraded      bool // the whole of a good head was read
	lastRead      int64
	in            *simReader
	message       []byte // so far
	want          simWant
	posted        simWant // messages of Ref.Send, and the answers of Blocking
	pings         simWant
	blocking      []simToken // messages that Blocking has not been given yet
	final         bool       // the Close that ends it all stands in want, or stood there
	finalWhy      Reason
	finRead       bool
	peerClose     bool      // a valid Close was read
	broken        bool      // a violation was read
	brokenMessage bool      // it was, or may have been, in what a compressed message inflates to
	own           *simToken // a Close that the server sends for its own reasons
	mayDrop       bool      // with it, what was owed for bytes that were not looked at yet

	// What the server has written.
	raw      []byte // not looked at yet
	out      *simReader
	frame    []byte
	answered int // HTTP status that came
	pinged   int // pings that came
	closed   bool
	wroteAt  int64

	// What the server thinks of it.
	ref          Ref
	sh           *shard
	slot         epoll.Slot // on sh
	opens, ends  int        // calls of the endpoint's functions
	heldAt       int64
	heldStep     int
	pausedStep   int // held back, and not because it does not read
	pendingSince int64
	isPinged     bool
	idlePings    int // that were sent and have not come
	closeSent    bool
	closeAt      int64
	done         bool
	doneAt       int64
	shutAt       int64
	reason       Reason // at the end
	cause        string
	isClosed     bool // the descriptor is
	unwatched    bool // epoll did not take it
	judged       bool
	whole        bool // all that was read was looked at before the end
	plain        bool // handed to net/http
}

// What a client does when it has nothing more to send.
const (
	simStay  = iota // nothing
	simFIN          // half-close
	simLeave        // close: what still comes is answered by RST
	simReset
	simLasts
)

const simMarker = "\x00posted " // what Ref.Send sends begins with it, and no client's message does

func (c *simClient) fail(format string, args ...any) {
	c.sim.fail("client %d (%s): %s", c.id, c.path, fmt.Sprintf(format, args...))
}

func (c *simClient) trace(format string, args ...any) {
	if c.sim.tracing {
		c.sim.tracef("client %d: %s", c.id, fmt.Sprintf(format, args...))
	}
}

func (c *simClient) now() int64 { return c.sim.k.now }

// Some make the endpoint's functions panic.

func (c *simClient) openPanics() bool  { return c.id%19 == 0 }
func (c *simClient) closePanics() bool { return c.id%17 == 0 }

// The kernel's side.

func (c *simClient) accepted() {
	c.opened, c.openedAt = true, c.now()
	c.lastRead, c.wroteAt = c.now(), c.now()
	c.trace("accepted")
}

// lost: the connection has ended before the server heard of it.
func (c *simClient) lost() { c.isClosed, c.opened = true, false }

func (c *simClient) detached() {
	if c.status != 0 {
		c.fail("handed to net/http, though it asks for a WebSocket")
	}
	delete(c.sim.k.open, c.sock.fd)
	c.plain, c.isClosed = true, true
	c.reason = ReasonHTTP
	c.trace("handed to net/http")
}

func (c *simClient) wasRead(b []byte) {
	c.trace("the server reads %d bytes", len(b))
	if c.sh != nil && c.sh.loop.Held(c.slot) {
		c.fail("the server reads from it though it holds back")
	}
	c.lastRead = c.now()
	if c.done {
		return // too late for the server to look at them
	}
	if c.headRead < c.head {
		n := min(len(b), c.head-c.headRead)
		c.headRead += n
		b = b[n:]
		if c.headRead == c.head && c.sim.draining && (c.status == 101 || c.status == 0) {
			c.status = 503
		}
		if c.headRead < c.head || c.status != 101 {
			return
		}
		c.upgraded = true
		c.want.add(simToken{kind: wantHTTP, code: 101, data: acceptOf(c.key), deflate: c.agrees})
		if c.openPanics() {
			c.close(1011, ReasonPanic)
		} else if c.path == "/message" {
			c.want.message(1, []byte("welcome"))
		}
	}
	if c.upgraded && !c.broken && !c.peerClose {
		c.in.deaf = c.final || c.own != nil
		if code := c.in.read(b, c.show); code != 0 {
			c.broken = true
			c.brokenMessage = c.in.compressed
			if d := c.in.deflate; d != nil && len(d.damaged) > 0 && c.path == "/echo" && !c.final && c.own == nil {
				// Of what was inflated before the fault some may have been echoed.
				if !d.begun {
					c.want.add(simToken{kind: wantStart, code: int(c.in.message), optional: true})
				}
				c.want.add(simToken{kind: wantData, data: d.damaged, optional: true})
			}
			c.close(code%10_000, map[int]Reason{1002: ReasonProtocol, 1007: ReasonUTF8, 1009: ReasonTooLarge, simCorrupt: ReasonInflate}[code])
		}
	}
}

// close notes that the server must send this Close and nothing after it.
func (c *simClient) close(code int, why Reason) {
	c.trace("owed from here on: Close %d", code)
	if !c.final && c.own == nil {
		c.want.add(simToken{kind: wantClose, code: code, why: why})
		c.final, c.finalWhy = true, why
		c.in.deaf = true
	}
}

// show is what the server owes for a part of what it has read.
func (c *simClient) show(f simFrame) bool {
	switch f.op {
	case 8:
		code, fault := closeBody(f.data)
		if fault != 0 {
			c.broken = true
			c.close(fault, map[int]Reason{1002: ReasonProtocol, 1007: ReasonUTF8}[fault])
		} else {
			c.peerClose = true
			c.close(code, ReasonPeerClosed)
		}
		return false
	case 9:
		if !c.final && c.own == nil {
			c.want.add(simToken{kind: wantPong, data: f.data})
		}
		return true
	case 10:
		return true
	}
	if c.final || c.own != nil {
		return true
	}
	start, end := f.first && f.op != 0, f.end && f.fin
	if c.path == "/echo" {
		if start {
			c.want.add(simToken{kind: wantStart, code: int(f.op)})
		}
		c.want.add(simToken{kind: wantData, data: f.data})
		if end {
			c.want.add(simToken{kind: wantEnd})
		}
		return true
	}
	if start {
		c.message = append(c.message[:0], f.op)
	}
	c.message = append(c.message, f.data...)
	if !end {
		return true
	}
	op, p := c.message[0], c.message[1:]
	switch {
	case c.path == "/blocking":
		c.blocking = append(c.blocking, simToken{code: int(op), data: bytes.Clone(p)})
	case string(p) == simPanic:
		c.close(1011, ReasonPanic)
	case string(p) == simBye:
		c.close(4321, ReasonEndpoint)
	default:
		c.want.message(op, p)
	}
	return true
}

const (
	simPanic = "panic!"   // the endpoint does
	simBye   = "close me" // the endpoint does
)

func (c *simClient) finWasRead() {
	c.trace("the server reads FIN")
	c.finRead = true
}

func (c *simClient) wasWritten(b []byte) {
	c.trace("the server writes %d bytes", len(b))
	c.wroteAt = c.now()
	c.raw = append(c.raw, b...)
	if c.sock.gone {
		c.sock.out = nil
		c.sim.resets = append(c.sim.resets, c)
	}
}

func (c *simClient) wasClosed() {
	c.trace("the server closes: %v, %s", c.reason, c.cause)
	if c.isClosed {
		c.fail("closed twice")
	}
	c.isClosed = true
}

// What the server does to the connection from outside.

// noted is called on the loop, just before something is done to the connection;
// it reports whether that has an effect.
func (c *simClient) noted() bool {
	slot, ok := c.ref.sh.loop.Find(c.ref.id)
	if !ok {
		return false
	}
	if c.ref.sh.loop.Held(slot) {
		c.heldStep = c.sim.steps[c.ref.sh.loop.Index()]
	}
	st := c.ref.sh.conns.At(slot)
	return st.phase == phaseOpen && !st.proto.CloseSent()
}

// begin notes that the server has begun to close for a reason of its own.
func (c *simClient) begin(code int, why Reason) {
	if c.own != nil {
		return
	}
	c.trace("the server closes with %d for %v", code, why)
	c.own = &simToken{kind: wantClose, code: code, why: why}
	// What it has read and not looked at, since it was holding back, it need not answer.
	c.mayDrop = why == ReasonMemory || c.ref.sh == nil || c.sim.steps[c.ref.sh.loop.Index()]-c.heldStep <= 4
}

// Matching what came with what is owed.

func (c *simClient) match() {
	for len(c.raw) > 0 && c.answered == 0 {
		t, n, err := httpAnswer(c.raw)
		if err != nil {
			c.fail("the answer to the handshake: %v", err)
		}
		if n == 0 || err != nil {
			return
		}
		c.raw = c.raw[n:]
		c.answer(t)
	}
	if c.answered == 0 || len(c.raw) == 0 {
		return
	}
	if c.answered != 101 {
		c.fail("%d bytes behind the refusal: %.60q", len(c.raw), c.raw)
		return
	}
	b := c.raw
	c.raw = nil
	if code := c.out.read(b, c.got); code != 0 {
		c.fail("what the server sent breaks a rule that is punished with %d; %x", code, c.out.head)
	}
}

func (c *simClient) answer(t simToken) {
	c.trace("the answer is %d", t.code)
	c.answered = t.code
	cfg := &c.sim.cfg
	switch {
	case t.code == 101:
		if err := c.want.take(t); err != nil {
			c.fail("%v", err)
		}
		return
	case t.code == 503 && (c.sim.draining || cfg.MaxConnections > 0),
		t.code == 408 && c.headRead > 0 && c.now()-c.openedAt >= int64(cfg.HandshakeTimeout),
		t.code == c.status && c.headRead > 0:
	default:
		c.fail("refused with %d after %d of %d bytes of a head that deserves %d", t.code, c.headRead, c.head, c.status)
	}
	c.want, c.upgraded = nil, false
}

// got is a part of a frame of the server.
func (c *simClient) got(f simFrame) bool {
	if c.closed {
		c.fail("opcode %d with %.40q behind the Close", f.op, f.data)
		return false
	}
	if f.op >= 8 {
		c.gotControl(f)
		return c.sim.failure == ""
	}
	if c.frame = append(c.frame, f.data...); !f.end {
		return true
	}
	p := c.frame
	c.frame = nil
	from := &c.want
	if c.path == "/blocking" || f.op != 0 && bytes.HasPrefix(p, []byte(simMarker)) {
		from = &c.posted
	}
	c.trace("came: opcode %d, %d bytes", f.op, len(p))
	if f.op != 0 {
		c.took(from.take(simToken{kind: wantStart, code: int(f.op)}))
	}
	c.took(from.take(simToken{kind: wantData, data: p}))
	if f.fin {
		c.took(from.take(simToken{kind: wantEnd}))
	}
	return c.sim.failure == ""
}

func (c *simClient) took(err error) {
	if err != nil {
		c.fail("%v", err)
	}
}

func (c *simClient) gotControl(f simFrame) {
	c.trace("came: opcode %d, %x", f.op, f.data)
	switch {
	case f.op == 10:
		c.took(c.want.take(simToken{kind: wantPong, data: f.data}))
	case f.op == 9 && len(f.data) > 0:
		c.pinged++
		c.took(c.pings.take(simToken{kind: wantPing, data: f.data}))
	case f.op == 9:
		c.pinged++
		if c.idlePings--; c.idlePings < 0 && !c.isClosed {
			c.fail("a ping without a reason")
		}
	default:
		c.gotClose(f.data)
	}
}

func (c *simClient) gotClose(p []byte) {
	code, fault := closeBody(p)
	if fault != 0 {
		c.fail("the server sent an invalid Close, %x", p)
		return
	}
	c.closed = true
	if c.own == nil {
		c.took(c.want.take(simToken{kind: wantClose, code: code}))
		return
	}
	if code != c.own.code {
		c.fail("the server closes with %d and should with %d for %v", code, c.own.code, c.own.why)
	}
	if !c.mayDrop && len(c.want) > 0 && c.want[0].kind != wantClose {
		c.fail("the server closes for %v and owes %v", c.own.why, c.want[0])
	}
	if len(c.posted) > 0 && c.out.message == 0 {
		c.fail("the server closes for %v and %v was posted before", c.own.why, c.posted[0])
	}
	c.want, c.posted, c.pings = nil, nil, nil
}

// What the client does.

// send puts some bytes on the way.
func (c *simClient) send(n int) {
	if c.waits && c.talking && (c.answered == 0 || len(c.sock.out) > 0) {
		return
	}
	for n = min(n, c.window-len(c.sock.in)); n > 0 && len(c.units) > 0; {
		u := c.units[0]
		m := min(n, len(u))
		c.sock.in = append(c.sock.in, u[:m]...)
		n -= m
		if c.units[0], c.begun = u[m:], true; m < len(u) {
			continue
		}
		c.units, c.begun = c.units[1:], false
		if !c.talking && c.waits {
			n = 0
		}
		c.talking = true
	}
}

// insert puts a unit in front of those that have not begun.
func (c *simClient) insert(u []byte) {
	i := 0
	if c.begun {
		i = 1
	}
	c.units = append(c.units[:i:i], append([][]byte{u}, c.units[i:]...)...)
}

// react answers what it has read, when it is polite.
func (c *simClient) react() {
	if len(c.sock.out) > 0 || !c.polite || c.answered != 101 {
		return
	}
	for c.ponged < c.pinged {
		c.ponged++
		c.insert(masked(true, ws.OpPong, nil))
	}
	if c.closed && !c.replied {
		c.replied = true
		if c.begun {
			c.units = c.units[:1]
		} else {
			c.units = nil
		}
		c.units = append(c.units, masked(true, ws.OpClose, []byte{3, 232}))
	}
}

// leave does what the client does last.
func (c *simClient) leave() {
	if len(c.units) > 0 {
		return
	}
	c.trace("leaves by way %d", c.last)
	switch c.last {
	case simFIN:
		c.sock.fin = true
	case simLeave:
		c.sock.fin, c.sock.gone = true, true
		c.sock.out = nil
	case simReset:
		c.sock.reset(c.sim.k)
	}
}
