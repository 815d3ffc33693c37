package web

import (
	"crypto/rand"
	"encoding/json"
	"net/url"
	"strconv"
	"sync"
	"time"

	"wspoll/handshake"
	"wspoll/inspect"
	"wspoll/server"

	"github.com/gobwas/ws"
)

// mirror is the connection over which a page is told what the server saw of its other ones.
type mirror struct {
	page  *Page
	token string
	ref   server.Ref

	mu     sync.Mutex
	conns  map[int]*seen // by the number that the page gave
	unread int           // bytes that were sent and that the page has not said it has read
	sleepy *time.Timer
	gone   bool
}

// seen is a connection that is mirrored.
type seen struct {
	m   *mirror
	n   int
	ref server.Ref

	// Guarded by m.mu.
	dropped int // records that there was no room for
	beat    *time.Timer
}

// told is a message to the page.
type told struct {
	Token   string         `json:"token,omitempty"`
	Conn    int            `json:"conn,omitempty"`
	Records []inspect.View `json:"records,omitempty"`
	Dropped int            `json:"dropped,omitempty"` // records of Conn
	Lost    int64          `json:"lost,omitempty"`    // bytes of Conn, not explained
	Dir     *inspect.Dir   `json:"dir,omitempty"`     // who sent them
	End     bool           `json:"end,omitempty"`     // of Conn
	Error   string         `json:"error,omitempty"`
}

// samePage reports whether the request comes from a page of this server, or from no page at all.
func samePage(r *handshake.Request) bool {
	var a handshake.Answer
	return handshake.Check(r, &handshake.Options{}, &a) == nil
}

const notHere = "only for pages of this server"

// mirrorEndpoint is where a page says what it wants and is told what was seen.
func (p *Page) mirrorEndpoint() *server.Endpoint {
	return &server.Endpoint{
		Open: func(c server.Conn) {
			if !samePage(c.Request()) {
				c.Close(ws.StatusPolicyViolation, notHere)
				return
			}
			m := &mirror{page: p, token: rand.Text(), ref: c.Ref(), conns: map[int]*seen{}}
			p.mu.Lock()
			full := len(p.mirrors) >= maxMirrors
			if !full {
				p.mirrors[m.token] = m
			}
			p.mu.Unlock()
			if full {
				c.Close(1013, "too many pages are open; try again later")
				return
			}
			m.sleepy = time.AfterFunc(p.sleep, m.asleep)
			c.SetValue(m)
			m.tell(told{Token: m.token})
		},
		Message: func(c server.Conn, op ws.OpCode, payload []byte) {
			if m, ok := c.Value().(*mirror); ok && op == ws.OpText {
				m.command(payload)
			}
		},
		Close: func(c server.Conn, _ server.Reason) {
			if m, ok := c.Value().(*mirror); ok {
				p.mu.Lock()
				delete(p.mirrors, m.token)
				p.mu.Unlock()
				m.stop()
			}
		},
	}
}

// stop ends what the mirror has running.
func (m *mirror) stop() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.gone = true
	m.sleepy.Stop()
	for _, s := range m.conns {
		s.stopBeat()
	}
}

// asleep: nothing was asked for in a long time. A page without a connection is told to come again.
func (m *mirror) asleep() {
	m.mu.Lock()
	busy := len(m.conns) > 0
	if busy && !m.gone {
		m.sleepy.Reset(m.page.sleep)
	}
	m.mu.Unlock()
	if !busy {
		m.ref.Close(ws.StatusGoingAway, "nothing was asked for in a long time")
	}
}

// labEndpoint is the connection to look at: an echo, with a mirror if the query names one.
func (p *Page) labEndpoint() *server.Endpoint {
	return &server.Endpoint{
		// A page sees its own bytes rather than those of a compressor, unless it asks for them.
		Uncompressed: func(r *handshake.Request) bool {
			q, err := url.ParseQuery(string(r.Query))
			return err != nil || !q.Has("compress")
		},
		Open: func(c server.Conn) {
			r := c.Request()
			if !samePage(r) {
				c.Close(ws.StatusPolicyViolation, notHere)
				return
			}
			q, err := url.ParseQuery(string(r.Query))
			if err != nil || !q.Has("mirror") {
				return
			}
			p.mu.Lock()
			m := p.mirrors[q.Get("mirror")]
			p.mu.Unlock()
			n, err := strconv.Atoi(q.Get("n"))
			if m == nil || err != nil || n < 1 {
				c.Close(ws.StatusPolicyViolation, "no such mirror")
				return
			}
			s := &seen{m: m, n: n, ref: c.Ref()}
			tap := (*inspect.LiveConn)(nil)
			if m.add(s) {
				tap = p.live.Watch(inspect.Server, inspect.Options{MaxMessage: p.maxMessage}, s)
			}
			if tap == nil {
				c.Close(1013, "too many connections are mirrored; close another one")
				m.remove(s)
				return
			}
			c.SetValue(s)
			c.Tap(tap)
		},
		Message: func(c server.Conn, op ws.OpCode, payload []byte) { c.Send(op, payload) },
		Close: func(c server.Conn, _ server.Reason) {
			if s, ok := c.Value().(*seen); ok {
				s.m.remove(s)
			}
		},
	}
}

func (m *mirror) add(s *seen) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.gone || m.conns[s.n] != nil || len(m.conns) >= maxConns {
		return false
	}
	m.conns[s.n] = s
	return true
}

func (m *mirror) remove(s *seen) {
	m.mu.Lock()
	defer m.mu.Unlock()
	s.stopBeat()
	if m.conns[s.n] == s {
		delete(m.conns, s.n)
	}
}

// records, lost and end are called by the goroutine of inspect.Live.

func (p *Page) records(c *inspect.LiveConn, records []inspect.Record) {
	s := c.Value.(*seen)
	const most = 100 // in a message to the page
	for len(records) > 0 {
		n := min(most, len(records))
		views := make([]inspect.View, n)
		for i := range views {
			views[i] = records[i].View()
		}
		records = records[n:]
		s.tell(told{Conn: s.n, Records: views})
	}
}

func (p *Page) lost(c *inspect.LiveConn, d inspect.Dir, n int64) {
	s := c.Value.(*seen)
	s.m.tell(told{Conn: s.n, Lost: n, Dir: &d})
}

func (p *Page) end(c *inspect.LiveConn) {
	s := c.Value.(*seen)
	s.tell(told{Conn: s.n, End: true})
}

// tell sends records to the page if it keeps up with reading, and counts those that it is spared.
func (s *seen) tell(v told) {
	s.m.mu.Lock()
	v.Dropped = s.dropped
	s.dropped = 0
	s.m.mu.Unlock()
	if !s.m.tell(v) {
		s.m.mu.Lock()
		s.dropped += v.Dropped + len(v.Records)
		s.m.mu.Unlock()
	}
}

// tell sends v to the page; false: too much is on its way to it already. What says an end or an error goes all the same.
func (m *mirror) tell(v told) bool {
	b, err := json.Marshal(v)
	if err != nil {
		m.page.log.Error("a record cannot be written as JSON", "error", err)
		return false
	}
	m.mu.Lock()
	fits := m.unread+len(b) <= maxUnread || len(v.Records) == 0
	if fits {
		m.unread += len(b)
	}
	m.mu.Unlock()
	if !fits {
		return false
	}
	if err := m.ref.Send(ws.OpText, b); err != nil {
		m.page.log.Debug("a mirror could not be told", "error", err)
	}
	return true
}
