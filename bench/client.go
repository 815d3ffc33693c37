package bench

import (
	"crypto/rand"
	"errors"
	"net"
	"time"

	"wspoll/epoll"
	"wspoll/frame"
	"wspoll/handshake"

	"github.com/gobwas/ws"
	"golang.org/x/sys/unix"
)

// Counts are what a client has seen so far.
type Counts struct {
	Open      int    // connections that are open for messages
	Opened    uint64 // connections that were opened, and upgraded
	Ended     uint64 // of these, how many have ended, in whatever way
	Sent      uint64 // messages
	Messages  uint64 // replies that came back whole and right
	BytesSent uint64 // payload
	BytesBack uint64
	WireIn    uint64 // bytes of TCP payload, handshakes and headers included; not for wss
	WireOut   uint64
	InFlight  uint64 // sent and not answered
	Unsent    uint64 // due by Rate, but no connection could take them
	Failures  uint64 // of all kinds
	Slip      time.Duration
}

// Client is a load on one epoll loop: the other end of what server is. An idle
// connection costs it what it costs a server.
//
// Its methods may be called from one goroutine that is not the loop's.
type Client struct {
	cfg   Config
	group *epoll.Group
	loop  *epoll.Loop
	conns epoll.Table[conn]
	rings epoll.Table[ring] // only when more than one message is in flight

	rules   frame.Rules
	piece   frame.Piece
	squeeze *squeeze // with Config.Compress
	resp    handshake.Response

	hellos   []handshake.Hello // for each target
	requests [][]byte
	framed   []template // messages for WebSocket
	bare     []template // and for plain TCP
	numbered bool       // messages carry their number
	many     bool       // rings are used
	closing  []byte     // a masked Close 1000
	ping     []byte     // a masked ping

	counts   Counts
	errs     failures
	connect  Latency
	upgrade  Latency
	interval Latency // of the messages since the last Sample
	message  Latency // of those before

	fan       *fanOut  // when Config.Subscribe is set
	publisher epoll.ID // the connection to Config.Via, when it is open

	mode     mode
	waiting  int // connections that are being opened
	tried    int // dials so far, for taking turns
	stalled  int // connections that read nothing
	local    int // source addresses of loopback that are full
	ready    chan struct{}
	home     chan struct{} // closed when want replies have come
	want     uint64
	order    []epoll.ID // open connections, for the schedule
	turn     int
	next     float64 // nanosecond at which the next message is due
	rampNext int64   // and the next connection
	ended    chan struct{}
}

// mode is what a client does with its connections.
type mode uint8

const (
	modeHold    mode = iota // nothing
	modeLoop                // answer each reply with the next message
	modeRate                // send on schedule
	modeCycle               // close each connection when it is open, and open another
	modePublish             // publish on schedule to those that subscribe
	modeClose               // all connections are being closed
)

// conn is the state of one connection. No pointers.
type conn struct {
	parser frame.Parser
	began  int64  // when the connect, the upgrade, or the message in flight began
	got    int    // payload bytes of the reply that is arriving
	sent   uint32 // number of the next message
	back   uint32 // number of the next reply, if none is out of order
	holes  uint32 // replies before back that have not come
	low    uint32 // number of the first reply that has not come, back if there are no holes
	seq    uint32 // number of the reply that is arriving
	digits [seqSize]byte
	terms  frame.Terms
	target uint8
	phase  phase

	stalled   bool // one of Config.Stalled
	publishes bool // the one connection of Config.Publish, which is not a subscriber
}

type phase uint8

const (
	phaseConnect phase = iota
	phaseUpgrade
	phaseOpen
	phaseClosing
)

// New makes a client; it connects with Open.
func New(cfg Config) (*Client, error) {
	cfg = cfg.withDefaults()
	switch {
	case len(cfg.Targets) == 0 || len(cfg.Targets) > 255:
		return nil, errors.New("from 1 to 255 targets are possible")
	case cfg.SizeMin < 0:
		return nil, errors.New("a size cannot be negative")
	}
	c := &Client{
		cfg: cfg, rules: frame.Rules{Client: true},
		many: !cfg.Subscribe && (cfg.Depth > 1 || cfg.Rate > 0), ended: make(chan struct{}),
	}
	var nonce [16]byte
	rand.Read(nonce[:])
	key := handshake.AppendKey(nil, nonce) // one for all: it proves that the server answered this client, no more
	for i := range cfg.Targets {
		t := &cfg.Targets[i]
		c.hellos = append(c.hellos, handshake.Hello{
			Host: t.Host, Target: t.Path, Key: key, Origin: cfg.Origin, Protocols: cfg.Protocols, Header: cfg.Header,
		})
		if cfg.Compress {
			c.hellos[i].Extensions = deflateOffer
		}
		c.requests = append(c.requests, handshake.AppendRequest(nil, &c.hellos[i]))
	}
	if cfg.Compress {
		c.squeeze = newSqueeze()
		c.rules.RSV1 = true
	}
	if cfg.Subscribe {
		c.fan = &fanOut{parts: map[epoll.Slot]*part{}}
	}
	c.framed, c.bare = templates(&cfg, false), templates(&cfg, true)
	c.numbered = c.framed[0].seq && cfg.SizeMin >= seqSize
	if !c.numbered {
		for i := range c.framed {
			c.framed[i].seq = false
		}
	}
	var mask [4]byte
	rand.Read(mask[:])
	c.closing = frame.AppendMaskedClose(nil, mask, ws.StatusNormalClosure, "")
	c.ping = frame.AppendMasked(nil, true, ws.OpPing, mask, nil)

	group, err := epoll.NewGroup(epoll.Config{
		MaxPending:   1 << 30, // what is on its way out is the load itself
		Congested:    1 << 30, // a client that writes much must read meanwhile, or both ends wait
		WriteTimeout: cfg.Timeout,
		OnAlarm:      func(*epoll.Loop) { c.alarm() },
	}, func(l *epoll.Loop) epoll.Handler {
		c.loop = l
		return c
	})
	if err != nil {
		return nil, err
	}
	c.group = group
	group.Start()
	return c, nil
}

// do runs f on the loop and waits for it.
func (c *Client) do(f func()) { c.group.Do(func(*epoll.Loop) { f() }) }

// Open opens all connections and returns when each is open or has failed, or
// when stop is closed. Failures are in Errors.
func (c *Client) Open(stop <-chan struct{}) {
	ready := make(chan struct{})
	c.do(func() {
		c.ready = ready
		c.rampNext = c.loop.Clock()
		c.dialMore()
	})
	select {
	case <-ready:
	case <-stop:
		c.do(func() { c.ready = nil })
	}
}

// dialMore keeps connections being opened until there are enough.
func (c *Client) dialMore() {
	if c.mode == modeClose {
		return
	}
	want := c.cfg.Connections
	if c.cfg.Publish {
		want++
	}
	for c.waiting < c.cfg.Opening && c.waiting+c.missing() < want {
		if c.cfg.Ramp > 0 {
			now := c.loop.Clock()
			if now < c.rampNext {
				c.loop.SetAlarm(c.rampNext)
				break
			}
			c.rampNext += int64(float64(time.Second) / c.cfg.Ramp)
		}
		if !c.dialOne() && c.mode == modeCycle {
			c.loop.SetAlarm(c.loop.Clock() + int64(10*time.Millisecond))
			break // an error that comes at once would come again and again
		}
	}
	if c.ready != nil && c.waiting == 0 && c.missing() >= want {
		close(c.ready)
		c.ready = nil
	}
}

// missing is how many connections need not be opened (again): those that are
// open or were, and those that failed. A cycle counts only those that are open.
func (c *Client) missing() int {
	if c.mode == modeCycle {
		return c.counts.Open
	}
	return c.tried - c.waiting
}

// nextTarget is where the next connection goes. The last of all is the one that
// publishes, to the last target; the others take turns.
func (c *Client) nextTarget() (target int, publishes bool) {
	n := len(c.cfg.Targets)
	switch {
	case !c.cfg.Publish:
		return c.tried % n, false
	case c.tried == c.cfg.Connections:
		return n - 1, true
	}
	return c.tried % max(1, n-1), false
}

// dialOne starts one connection; false when it could not even begin.
func (c *Client) dialOne() bool {
	target, publishes := c.nextTarget()
	t := &c.cfg.Targets[target]
	c.tried++
	for {
		began := c.loop.Clock()
		s, err := c.dial(t)
		if err == nil {
			c.conns.Grow(s)
			*c.conns.At(s) = conn{began: began, target: uint8(target), publishes: publishes}
			c.waiting++
			return true
		}
		if errors.Is(err, unix.EADDRNOTAVAIL) && c.nextSource(t.Addr, c.local) {
			continue
		}
		kind, detail := ofErrno(err)
		c.errs.add(kind, detail, 1)
		return false
	}
}

// dial begins to connect; TLS is part of that.
func (c *Client) dial(t *Target) (epoll.Slot, error) {
	if t.TLS != nil {
		return c.loop.DialTLS(t.Addr, c.source(t.Addr), 0, c.cfg.Timeout, t.TLS)
	}
	return c.loop.Dial(t.Addr, c.source(t.Addr), 0, c.cfg.Timeout)
}

// nextSource takes the next source address of loopback, when the ports of the
// one that was number full are used up. False when there is none to be had.
func (c *Client) nextSource(to *net.TCPAddr, full int) bool {
	if len(c.cfg.Local) > 0 || to.IP.To4() == nil || !to.IP.IsLoopback() || full >= 1<<16 {
		return false
	}
	c.local = max(c.local, full+1)
	return true
}

// source is the address to connect from; nil leaves it to the kernel.
func (c *Client) source(to *net.TCPAddr) *net.TCPAddr {
	if n := len(c.cfg.Local); n > 0 {
		return c.cfg.Local[c.tried%n]
	}
	if c.local == 0 || !to.IP.IsLoopback() {
		return nil
	}
	n := 1 + c.local // 127.0.0.2 is the first after the kernel's own choice
	return &net.TCPAddr{IP: net.IPv4(127, byte(n>>16), byte(n>>8), byte(n))}
}

// Counts are the numbers so far.
func (c *Client) Counts() (n Counts) {
	c.do(func() { n = c.count() })
	return n
}

func (c *Client) count() Counts {
	n := c.counts
	n.Failures = c.errs.total
	c.loop.Each(func(s epoll.Slot) {
		k := c.conns.At(s)
		n.InFlight += uint64(k.sent - k.back + k.holes)
	})
	return n
}

// TakeLatency is the distribution of the messages that came back since the
// last call.
func (c *Client) TakeLatency() (l Latency) {
	c.do(func() {
		l.Merge(&c.interval)
		c.interval.Reset()
	})
	return l
}

// Errors are the failures so far, the most frequent first.
func (c *Client) Errors() (list []ErrorCount) {
	c.do(func() { list = c.errs.list() })
	return list
}

// Stop ends all connections at once.
func (c *Client) Stop() { c.group.Stop() }

// Close ends all connections with a Close frame and returns when they have
// ended, or after limit.
func (c *Client) Close(limit time.Duration) {
	ended := make(chan struct{})
	c.do(func() {
		c.mode = modeClose
		c.ended = ended
		c.loop.Each(func(s epoll.Slot) {
			k := c.conns.At(s)
			if k.phase != phaseOpen || k.stalled || c.cfg.Targets[k.target].Raw {
				c.loop.Close(s)
				return
			}
			c.goodbye(s, k)
		})
		c.checkEnded()
	})
	select {
	case <-ended:
	case <-time.After(limit):
	}
}

func (c *Client) goodbye(s epoll.Slot, k *conn) {
	k.phase = phaseClosing
	c.loop.SetDeadline(s, c.cfg.Timeout)
	c.write(s, c.closing)
}

func (c *Client) checkEnded() {
	if c.mode == modeClose && c.loop.Len() == 0 && c.ended != nil {
		close(c.ended)
		c.ended = nil
	}
}

// Opened: the TCP connection stands, and TLS over it where there is any.
func (c *Client) Opened(s epoll.Slot, _ uint32) {
	k := c.conns.At(s)
	now := c.loop.Clock()
	c.connect.Record(now - k.began)
	k.began = now
	if c.cfg.Targets[k.target].Raw {
		c.opened(s, k)
		return
	}
	k.phase = phaseUpgrade
	c.loop.SetDeadline(s, c.cfg.Timeout)
	c.write(s, c.requests[k.target])
}

// opened: messages may be sent.
func (c *Client) opened(s epoll.Slot, k *conn) {
	c.waiting--
	k.phase, k.began = phaseOpen, 0
	if k.publishes {
		c.publisher = c.loop.ID(s)
		c.dialMore()
		return
	}
	if c.stalled < c.cfg.Stalled {
		c.stalled++
		c.stall(s, k)
		c.dialMore()
		return
	}
	c.counts.Open++
	c.counts.Opened++
	if c.many {
		c.rings.Grow(s)
		*c.rings.At(s) = ring{}
	}
	raw := c.cfg.Targets[k.target].Raw
	c.loop.SetDeadline(s, 0)
	if !raw {
		c.loop.SetDeadline(s, c.cfg.Ping)
	}
	switch c.mode {
	case modeCycle:
		if raw {
			c.loop.Close(s)
			return
		}
		c.goodbye(s, k)
		return
	case modeClose:
		c.loop.Close(s)
		return
	case modeRate:
		c.order = append(c.order, c.loop.ID(s))
	}
	c.dialMore()
}

// stall makes a connection a reader that reads nothing: it is not one of those
// that are counted, nor is its end.
func (c *Client) stall(s epoll.Slot, k *conn) {
	k.stalled = true
	unix.SetsockoptInt(c.loop.Fd(s), unix.SOL_SOCKET, unix.SO_RCVBUF, 4<<10) // else it takes megabytes first
	c.loop.SetDeadline(s, 0)
	c.loop.Pause(s)
}

// Data: the answer to the handshake, then replies.
func (c *Client) Data(s epoll.Slot, in []byte) int {
	k := c.conns.At(s)
	encrypted := c.cfg.Targets[k.target].TLS != nil
	done := c.plain(s, k, in)
	if !encrypted {
		c.counts.WireIn += uint64(done)
	}
	return done
}

func (c *Client) plain(s epoll.Slot, k *conn, in []byte) int {
	switch {
	case k.phase == phaseUpgrade:
		return c.answer(s, k, in)
	case k.phase == phaseClosing:
		return len(in) // the server's Close, then its FIN
	case c.cfg.Targets[k.target].Raw && c.fan == nil:
		return c.raw(s, k, in)
	}
	return c.frames(s, k, in)
}

// answer reads the server's half of the handshake. Frames may follow it in the
// same packet.
func (c *Client) answer(s epoll.Slot, k *conn, in []byte) int {
	n, err := handshake.ParseResponse(in, nil, &c.resp)
	interim := 0 // bytes of answers that another follows (RFC 9110 §15.2)
	for err == nil && n > 0 && c.resp.Status < 200 && c.resp.Status != 101 {
		interim, in = interim+n, in[n:]
		n, err = handshake.ParseResponse(in, nil, &c.resp)
	}
	if err == nil && n > 0 {
		err = c.resp.Check(&c.hellos[k.target])
	}
	if err == nil && n > 0 && c.cfg.Compress {
		err = c.agree(k)
	}
	if err != nil {
		c.broke(s, err)
		return interim + len(in)
	}
	if n == 0 {
		return interim
	}
	c.upgrade.Record(c.loop.Clock() - k.began)
	id := c.loop.ID(s)
	c.opened(s, k)
	if c.loop.ID(s) != id || n == len(in) {
		return interim + n
	}
	return interim + n + c.plain(s, k, in[n:])
}

// broke ends a connection that did something wrong.
func (c *Client) broke(s epoll.Slot, err error) {
	kind, detail := ofError(err)
	c.lose(s, kind, detail)
}

// lose counts a failure and ends the connection.
func (c *Client) lose(s epoll.Slot, kind, detail string) {
	c.errs.add(kind, detail, 1)
	c.loop.Close(s)
}

// EOF: expected of a connection that was to be closed.
func (c *Client) EOF(s epoll.Slot) {
	if k := c.conns.At(s); k.phase != phaseClosing {
		c.errs.add(KindEOF, "FIN without a Close frame", 1)
	}
	c.loop.Close(s)
}

// Drained needs nothing.
func (c *Client) Drained(epoll.Slot) {}

// Expired: the upgrade or the close took too long, or a ping is due.
func (c *Client) Expired(s epoll.Slot) {
	switch k := c.conns.At(s); k.phase {
	case phaseOpen:
		c.write(s, c.ping)
		c.loop.SetDeadline(s, c.cfg.Ping)
	case phaseClosing:
		c.lose(s, KindTimeout, "close")
	default:
		c.lose(s, KindTimeout, "upgrade")
	}
}

// Closed counts the connection out.
func (c *Client) Closed(s epoll.Slot, cause epoll.Cause, errno unix.Errno) {
	k := c.conns.At(s)
	switch {
	case k.phase < phaseOpen:
		c.waiting--
	case !k.publishes && !k.stalled:
		c.counts.Open--
		c.counts.Ended++
	}
	if k.holes > 0 {
		c.errs.add(KindLost, "no reply, though later messages had theirs", uint64(k.holes))
	}
	switch {
	case k.stalled || cause == epoll.CauseLocal || k.phase == phaseClosing:
	case cause == epoll.CauseEOF && k.phase == phaseConnect:
		c.errs.add(KindEOF, "FIN in the TLS handshake", 1)
	case cause == epoll.CauseEOF && errno == 0: // EOF has told
	default:
		kind, detail := ofCause(cause, errno, c.loop.TLS(s))
		c.errs.add(kind, detail, 1)
	}
	if c.squeeze != nil {
		c.squeeze.forget(s)
	}
	if c.fan != nil {
		delete(c.fan.parts, s)
	}
	if c.many && k.phase >= phaseOpen {
		*c.rings.At(s) = ring{}
	}
	*k = conn{}
	if c.mode == modeCycle || c.ready != nil {
		c.dialMore()
	}
	if c.mode == modeClose && c.loop.Len() <= 1 { // this one is still counted
		c.loop.Post(c.checkEnded)
	}
}
