package server

import (
	"fmt"
	"time"
	"unicode/utf8"

	"wspoll/epoll"

	"github.com/gobwas/ws"
)

// HeartBeat is what an endpoint of heart beats sends, and when.
type HeartBeat struct {
	// Every is the time between two beats, from 50 ms to a day; 0 means 3 s.
	Every time.Duration
	// Message is the text; empty means "heart beat".
	Message string
	// Align: all connections get their beats at the same moments. Otherwise
	// each gets its first at once, and the others as long after it as it was
	// opened, so that they spread by themselves.
	Align bool
}

// beat is the heart beat of an endpoint whose connections have each their own
// phase. It rides on the one deadline that a connection has: state.place holds
// when the next beat is due, in milliseconds of the loop's clock, modulo 2^32.
type beat struct {
	every   int32 // milliseconds
	message []byte
}

// aligned is the heart beat of all connections at once: a topic of the
// server's own, published to by an alarm of the first loop.
type aligned struct {
	topic   string
	every   int64 // nanoseconds
	next    int64 // on the loop's clock
	message []byte
}

// HeartBeat makes an endpoint that sends a text again and again. What clients
// send to it is checked and dropped. A reader that has not taken a beat yet
// does not get the next one; that is counted as DropBeat, or DropLatest with
// Align. To be called before Start.
func (s *Server) HeartBeat(h HeartBeat) (*Endpoint, error) {
	if h.Every == 0 {
		h.Every = 3 * time.Second
	}
	if h.Message == "" {
		h.Message = "heart beat"
	}
	switch {
	case h.Every < epoll.Tick || h.Every > 24*time.Hour:
		return nil, fmt.Errorf("a heart beat every %s: must be from %s to a day", h.Every, epoll.Tick)
	case !utf8.ValidString(h.Message):
		return nil, fmt.Errorf("the heart beat %q: must be UTF-8", h.Message)
	case len(h.Message) > s.topics.limit:
		return nil, fmt.Errorf("a heart beat of %d bytes: must be at most %d", len(h.Message), s.topics.limit)
	case s.started.Load():
		return nil, fmt.Errorf("a heart beat every %s: the server has been started", h.Every)
	}
	ep := &Endpoint{About: fmt.Sprintf("sends %q every %s", h.Message, h.Every)}
	if !h.Align {
		ep.beat = &beat{every: int32(h.Every.Milliseconds()), message: []byte(h.Message)}
		ep.Open = func(c Conn) {
			if slot, st := c.find(); st != nil {
				st.place = c.sh.milliseconds()
				c.sh.beat(slot, st, ep.beat)
			}
		}
		return ep, nil
	}
	l := s.shards[0].loop
	a := &aligned{
		topic: fmt.Sprintf("%cpush %d)", ownTopic, len(s.aligned)),
		every: int64(h.Every), next: l.Clock() + int64(h.Every), message: []byte(h.Message),
	}
	s.aligned = append(s.aligned, a)
	s.setAlarm(l)
	ep.Open = func(c Conn) {
		if slot, st := c.find(); st != nil {
			if err := c.sh.subscribe(slot, st, a.topic, modePlain, beginning{}); err != nil {
				c.sh.sendClose(slot, st, ReasonFull, statusTryAgainLater, err.Error())
			}
		}
	}
	return ep, nil
}

// milliseconds is the loop's time for state.place.
func (sh *shard) milliseconds() uint32 { return uint32(sh.loop.Now() / int64(time.Millisecond)) }

// beat sends the beat that is due to c, if one is, and sets the deadline for
// the next, or for the look at its silence if that is earlier.
func (sh *shard) beat(c epoll.Slot, st *state, b *beat) {
	if st.phase != phaseOpen || st.proto.CloseSent() {
		return
	}
	id, now := sh.loop.ID(c), sh.milliseconds()
	if late := int32(now - st.place); late >= 0 {
		// Those that were missed altogether are not made up for.
		st.place += uint32(b.every * (late/b.every + 1))
		if sh.loop.Pending(c) > 0 {
			sh.srv.topics.dropped[DropBeat].Add(1)
		} else if sh.message(c, st, ws.OpText, b.message); sh.loop.ID(c) != id {
			return
		}
	}
	wait := time.Duration(int32(st.place-now)) * time.Millisecond
	if limit := sh.srv.cfg.IdleTimeout; limit > 0 {
		silent := sh.silence(st)
		if silent >= limit/2 {
			wait = min(wait, limit-silent)
		} else {
			wait = min(wait, limit/2-silent)
		}
	}
	sh.loop.SetDeadline(c, max(wait, time.Millisecond))
}

// setAlarm sets the alarm of the first loop for the next aligned beat.
func (s *Server) setAlarm(l *epoll.Loop) {
	next := s.aligned[0].next
	for _, a := range s.aligned {
		next = min(next, a.next)
	}
	l.SetAlarm(next)
}

// alarm is called on the first loop when an aligned beat is due.
func (s *Server) alarm(l *epoll.Loop) {
	now := l.Now()
	for _, a := range s.aligned {
		if late := now - a.next; late >= 0 {
			a.next += a.every * (late/a.every + 1)
			// Without a subscriber there is no such topic, and when the
			// queues are full the next beat will do.
			s.topics.publish(&publication{name: a.topic, op: ws.OpText, payload: a.message})
		}
	}
	s.setAlarm(l)
}
