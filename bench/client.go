package bench

import (
	"bytes"
	"crypto/rand"
	"errors"
	"fmt"
	"net"
	"time"

	"wspoll/epoll"
	"wspoll/frame"
	"wspoll/handshake"

	"github.com/gobwas/ws"
	"golang.org/x/sys/unix"
)

// Config describes a load: connections that each send a message, wait for its
// echo, and send the next.
type Config struct {
	Addr        *net.TCPAddr  // where to connect
	Host        string        // of the request; empty means Addr
	Path        string        // of the request; empty means "/"
	Raw         bool          // plain TCP, no WebSocket: for the floor that a server is compared with
	Connections int           // how many at once
	Size        int           // payload bytes of a message
	Text        bool          // text messages; else binary
	Depth       int           // messages in flight per connection; 0 means 1
	Timeout     time.Duration // for connect and upgrade; 0 means 10 s
}

// Counts are what a client has seen so far.
type Counts struct {
	Open      int    // connections that are open for messages
	Messages  uint64 // echoes that came back whole
	Bytes     uint64 // their payload
	Handshake uint64 // connections that were opened, and upgraded unless Raw
	Failed    uint64 // connections that could not be opened or broke
}

// Client is a load on one epoll loop: the other end of what server is. An idle
// connection costs it what it costs a server.
type Client struct {
	cfg   Config
	group *epoll.Group
	loop  *epoll.Loop
	conns epoll.Table[conn]
	rules frame.Rules
	piece frame.Piece
	resp  handshake.Response

	hello   handshake.Hello
	request []byte
	payload []byte
	message []byte // the payload in a frame, masked; or bare
	closing []byte // a masked Close 1000

	counts  Counts
	waiting int           // connections that are being opened
	ready   chan struct{} // closed when none is
	cycle   bool          // close each connection when it is open, and open another
	running bool          // answer each echo with the next message
	want    uint64        // messages at which home is closed
	home    chan struct{}
	err     error // the first failure
}

// conn is the state of one connection. No pointers.
type conn struct {
	parser frame.Parser
	got    int // payload bytes of the echo that is arriving
	phase  phase
}

type phase uint8

const (
	phaseUpgrade phase = iota
	phaseOpen
	phaseClosing
)

// New makes a client; it connects with Open.
func New(cfg Config) (*Client, error) {
	if cfg.Timeout == 0 {
		cfg.Timeout = 10 * time.Second
	}
	cfg.Depth = max(cfg.Depth, 1)
	if cfg.Path == "" {
		cfg.Path = "/"
	}
	if cfg.Host == "" {
		cfg.Host = cfg.Addr.String()
	}
	c := &Client{cfg: cfg, rules: frame.Rules{Client: true}}
	c.prepare()
	group, err := epoll.NewGroup(epoll.Config{
		MaxPending: 1 << 30, // a message that is on its way out is the load itself
		Congested:  1 << 30, // a client that writes much must read meanwhile, or both ends wait
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

// prepare makes the bytes that are sent again and again. The masking key and
// the nonce are random, but the same for all connections: a load test gains
// nothing from new ones (RFC 6455 §10.3 protects intermediaries from hostile
// payloads, and ours is our own).
func (c *Client) prepare() {
	var nonce [16]byte
	rand.Read(nonce[:])
	c.hello = handshake.Hello{Host: c.cfg.Host, Target: c.cfg.Path, Key: handshake.AppendKey(nil, nonce)}
	c.request = handshake.AppendRequest(nil, &c.hello)
	c.payload = make([]byte, c.cfg.Size)
	for i := range c.payload {
		c.payload[i] = 'a' + byte(i%26)
	}
	c.message = c.payload
	if c.cfg.Raw {
		return
	}
	op := ws.OpBinary
	if c.cfg.Text {
		op = ws.OpText
	}
	var mask [4]byte
	rand.Read(mask[:])
	c.message = frame.AppendMasked(nil, true, op, mask, c.payload)
	c.closing = frame.AppendMaskedClose(nil, mask, ws.StatusNormalClosure, "")
}

// Open opens all connections, at most 256 under way at a time, and returns
// when they are open or the first one failed.
func (c *Client) Open() error {
	ready := make(chan struct{})
	c.group.Do(func(*epoll.Loop) {
		c.ready = ready
		c.dialMore()
	})
	<-ready
	var err error
	c.group.Do(func(*epoll.Loop) { err = c.err })
	return err
}

// dialMore keeps connections being opened until there are enough.
func (c *Client) dialMore() {
	for c.err == nil && c.waiting < 256 && c.waiting+c.counts.Open < c.cfg.Connections {
		if _, err := c.loop.Dial(c.cfg.Addr, nil, 0, c.cfg.Timeout); err != nil {
			c.fail(err)
			return
		}
		c.waiting++
	}
	if c.ready != nil && (c.err != nil || c.waiting == 0) {
		close(c.ready)
		c.ready = nil
	}
}

func (c *Client) fail(err error) {
	c.counts.Failed++
	if c.err == nil {
		c.err = err
	}
	if c.ready != nil {
		close(c.ready)
		c.ready = nil
	}
}

// Start sends the first messages; each echo is answered with the next one
// until Pause.
func (c *Client) Start() {
	c.group.Do(func(l *epoll.Loop) {
		c.running = true
		l.Each(func(s epoll.Slot) {
			if c.conns.At(s).phase == phaseOpen {
				for range c.cfg.Depth {
					l.Write(s, c.message)
				}
			}
		})
	})
}

// Once sends one message on each connection and returns when every echo is back.
func (c *Client) Once() error {
	home := make(chan struct{})
	c.group.Do(func(l *epoll.Loop) {
		c.want, c.home = c.counts.Messages+uint64(c.counts.Open), home
		l.Each(func(s epoll.Slot) { l.Write(s, c.message) })
	})
	select {
	case <-home:
		return nil
	case <-time.After(c.cfg.Timeout):
		n, err := c.Counts()
		if err != nil {
			return err
		}
		return fmt.Errorf("%d echoes are missing after %s", c.want-n.Messages, c.cfg.Timeout)
	}
}

// Pause lets the messages in flight come home and sends no more.
func (c *Client) Pause() { c.group.Do(func(*epoll.Loop) { c.running = false }) }

// Cycle opens connections and closes each as soon as it is upgraded,
// cfg.Connections at a time, until Pause.
func (c *Client) Cycle() {
	c.group.Do(func(*epoll.Loop) {
		c.running, c.cycle = true, true
		c.dialMore()
	})
}

// Counts are the numbers so far and the first failure.
func (c *Client) Counts() (n Counts, err error) {
	c.group.Do(func(*epoll.Loop) { n, err = c.counts, c.err })
	return n, err
}

// Stop ends all connections.
func (c *Client) Stop() { c.group.Stop() }

// Opened: the TCP connection stands.
func (c *Client) Opened(s epoll.Slot, _ uint32) {
	c.conns.Grow(s)
	*c.conns.At(s) = conn{}
	if c.cfg.Raw {
		c.opened(s)
		return
	}
	c.loop.SetDeadline(s, c.cfg.Timeout)
	c.loop.Write(s, c.request)
}

// opened: messages may be sent.
func (c *Client) opened(s epoll.Slot) {
	c.counts.Open++
	c.counts.Handshake++
	c.waiting--
	c.conns.At(s).phase = phaseOpen
	c.loop.SetDeadline(s, 0)
	if c.cycle {
		c.conns.At(s).phase = phaseClosing
		c.loop.Write(s, c.closing)
		return
	}
	c.dialMore()
}

// Data: the answer to the handshake, then echoes.
func (c *Client) Data(s epoll.Slot, in []byte) int {
	k := c.conns.At(s)
	switch {
	case k.phase == phaseUpgrade:
		n, err := handshake.ParseResponse(in, nil, &c.resp)
		if err == nil && n > 0 {
			err = c.resp.Check(&c.hello)
		}
		if err != nil {
			c.broke(s, err)
			return len(in)
		}
		if n > 0 {
			c.opened(s)
		}
		return n
	case k.phase == phaseClosing:
		return len(in) // the server's Close, then its FIN
	case c.cfg.Raw:
		return c.raw(s, k, in)
	}
	return c.frames(s, k, in)
}

func (c *Client) raw(s epoll.Slot, k *conn, in []byte) int {
	c.counts.Bytes += uint64(len(in))
	k.got += len(in)
	for k.got >= len(c.payload) {
		k.got -= len(c.payload)
		c.echoed(s)
	}
	return len(in)
}

// frames checks that the echo is what was sent, byte for byte.
func (c *Client) frames(s epoll.Slot, k *conn, in []byte) (done int) {
	id := c.loop.ID(s)
	for done < len(in) {
		p := &c.piece
		n, err := k.parser.Next(&c.rules, in[done:], p)
		if err != nil {
			c.broke(s, err)
			return len(in)
		}
		if n == 0 {
			return done
		}
		done += n
		if p.Op.IsControl() {
			if p.Op == ws.OpClose {
				code, reason, _ := frame.ParseClose(p.Data)
				c.broke(s, fmt.Errorf("the server closed with %d %s", code, reason))
				return len(in)
			}
			continue
		}
		if end := k.got + len(p.Data); end > len(c.payload) || !bytes.Equal(p.Data, c.payload[k.got:end]) ||
			p.Last && end < len(c.payload) {
			c.broke(s, errors.New("the echo is not what was sent"))
			return len(in)
		}
		k.got += len(p.Data)
		c.counts.Bytes += uint64(len(p.Data))
		if p.Last {
			k.got = 0
			c.echoed(s)
			if c.loop.ID(s) != id {
				return len(in)
			}
		}
	}
	return done
}

func (c *Client) echoed(s epoll.Slot) {
	if c.counts.Messages++; c.home != nil && c.counts.Messages >= c.want {
		close(c.home)
		c.home = nil
	}
	if c.running {
		c.loop.Write(s, c.message)
	}
}

// broke ends a connection that did something wrong.
func (c *Client) broke(s epoll.Slot, err error) {
	c.fail(err)
	c.loop.Close(s)
}

// EOF: expected of a connection that was to be closed.
func (c *Client) EOF(s epoll.Slot) {
	if c.conns.At(s).phase != phaseClosing {
		c.fail(errors.New("the server closed the TCP connection"))
	}
	c.loop.Close(s)
}

// Drained needs nothing.
func (c *Client) Drained(epoll.Slot) {}

// Expired: the upgrade took too long.
func (c *Client) Expired(s epoll.Slot) {
	c.broke(s, fmt.Errorf("no answer to the handshake within %s", c.cfg.Timeout))
}

// Closed counts the connection out.
func (c *Client) Closed(s epoll.Slot, cause epoll.Cause, errno unix.Errno) {
	c.conns.Grow(s)
	if k := c.conns.At(s); k.phase == phaseUpgrade {
		c.waiting--
	} else {
		c.counts.Open--
	}
	c.conns.At(s).phase = phaseUpgrade // for a Dial in this slot that fails before Opened
	if cause != epoll.CauseLocal && cause != epoll.CauseEOF {
		c.fail(fmt.Errorf("connection %s: %w", cause, errno))
	}
	if c.cycle && c.running {
		c.dialMore()
	}
}
