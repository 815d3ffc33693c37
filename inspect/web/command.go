package web

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"time"

	"wspoll/frame"
	"wspoll/server"

	"github.com/gobwas/ws"
)

// command is what a page asks of the server, for one of its connections.
type command struct {
	Do     string `json:"do"`
	Conn   int    `json:"conn"`
	N      int    `json:"n"`      // read: bytes that were read
	Size   int    `json:"size"`   // send: of the message
	Binary bool   `json:"binary"` // send
	On     bool   `json:"on"`     // beat
	Code   int    `json:"code"`   // close
	Reason string `json:"reason"` // close
}

// maxSend bounds a message that the server is asked to send.
const maxSend = 1 << 20

// fragments is the message that is sent in pieces.
var fragments = [...]string{"one message ", "in three ", "fragments"}

// command does what a page asks for. It runs on the loop of the mirror; what it does to the other connection runs on that one's.
func (m *mirror) command(b []byte) {
	var k command
	if err := json.Unmarshal(b, &k); err != nil {
		m.tell(told{Error: "a command that is no JSON: " + err.Error()})
		return
	}
	m.mu.Lock()
	if k.Do == "read" {
		m.unread = max(0, m.unread-max(0, k.N))
	} else if !m.gone {
		m.sleepy.Reset(m.page.sleep)
	}
	s := m.conns[k.Conn]
	m.mu.Unlock()
	switch {
	case k.Do == "read":
		return
	case s == nil:
		m.tell(told{Conn: k.Conn, Error: "there is no such connection; open one first"})
		return
	}
	if wrong := s.do(&k); wrong != "" {
		m.tell(told{Conn: k.Conn, Error: wrong})
	}
}

// do returns what is wrong with the command.
func (s *seen) do(k *command) (wrong string) {
	do := func(f func(c server.Conn)) { s.ref.Do(f) }
	switch k.Do {
	case "ping":
		do(func(c server.Conn) { c.Send(ws.OpPing, []byte("are you there?")) })
	case "pong":
		do(func(c server.Conn) { c.Send(ws.OpPong, []byte("I am here")) })
	case "fragments":
		do(func(c server.Conn) { s.fragments(c, func(int) {}) })
	case "interleave":
		do(func(c server.Conn) {
			s.fragments(c, func(i int) {
				switch i {
				case 0:
					c.Send(ws.OpPing, []byte("between fragments"))
				case 1:
					c.Send(ws.OpPong, []byte("and again"))
				}
			})
		})
	case "send":
		if k.Size < 0 || k.Size > maxSend {
			return fmt.Sprintf("a message of %d bytes; from 0 to %d can be asked for", k.Size, maxSend)
		}
		do(func(c server.Conn) {
			op := ws.OpText
			if k.Binary {
				op = ws.OpBinary
			}
			c.Send(op, []byte(filler(k.Size)))
		})
	case "beat":
		s.setBeat(k.On)
	case "close":
		if k.Code != 0 && !frame.ValidCloseCode(ws.StatusCode(k.Code)) {
			return fmt.Sprintf("%d is no code that may be sent (RFC 6455 §7.4)", k.Code)
		}
		if len(k.Reason) > ws.MaxControlFramePayloadSize-2 {
			return "a reason has at most 123 bytes (RFC 6455 §5.5)"
		}
		do(func(c server.Conn) { c.Close(ws.StatusCode(k.Code), k.Reason) })
	default:
		return fmt.Sprintf("%q is no command", k.Do)
	}
	return ""
}

// fragments sends a message in pieces, and calls between after each but the last.
func (s *seen) fragments(c server.Conn, between func(i int)) {
	last := len(fragments) - 1
	for i, f := range fragments {
		c.SendPiece(ws.OpText, i == 0, i == last, []byte(f))
		if i < last {
			between(i)
		}
	}
}

// filler is text of a size.
func filler(size int) string {
	const words = "All work and no play makes Jack a dull boy. "
	return strings.Repeat(words, size/len(words)+1)[:size]
}

// A value that changes each second, to see what it costs to ask for it again and again, and to be told. It is the second
// itself, so that everybody knows when it changed.

func toNextSecond(now time.Time) time.Duration {
	return now.Truncate(time.Second).Add(time.Second).Sub(now)
}

// setBeat starts to push the value, or stops.
func (s *seen) setBeat(on bool) {
	s.m.mu.Lock()
	defer s.m.mu.Unlock()
	s.stopBeat()
	if on && !s.m.gone && s.m.conns[s.n] == s {
		s.beat = time.AfterFunc(toNextSecond(time.Now()), s.push)
	}
}

// stopBeat is called with m.mu held.
func (s *seen) stopBeat() {
	if s.beat != nil {
		s.beat.Stop()
		s.beat = nil
	}
}

func (s *seen) push() {
	s.m.mu.Lock()
	defer s.m.mu.Unlock()
	if s.beat == nil {
		return // stopped meanwhile
	}
	now := time.Now()
	s.ref.Send(ws.OpText, fmt.Appendf(nil, "heart beat %d", now.Unix()))
	s.beat.Reset(toNextSecond(now))
}

// value answers a page that polls: the second, the time, and what the connection has cost until now.
func (p *Page) value(w http.ResponseWriter, r *http.Request) {
	conn, in, out, _ := server.WireBytes(r)
	now := time.Now()
	h := w.Header()
	h.Set("Content-Type", "application/json")
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	p.write(w, fmt.Appendf(nil, `{"value":%d,"now":%d,"conn":%d,"bytes":%d}`, now.Unix(), now.UnixMilli(), conn, in+out))
}
