package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"wspoll/client"
	"wspoll/inspect"

	"github.com/gobwas/ws"
)

// connectSession is a conversation. One goroutine receives and prints, one takes lines and sends them, one waits for
// signals.
type connectSession struct {
	o       *connectOptions
	printer *connectPrinter
	console *console
	typed   bool // lines come from a person
	replies int  // how many messages must come; 0: as many as were sent
	cancel  context.CancelCauseFunc

	closing sync.Mutex // held while our Close is sent and told, so that the answer is told behind it

	mu          sync.Mutex
	conn        *client.Conn // nil until it is open
	interrupted bool
	ending      bool  // a Close of ours is asked for
	broken      error // why we end, if that is a failure
	sent        int   // messages
	got         int
	allSent     bool
	timer       *time.Timer // --wait
}

// talk holds the conversation to its end. The error says what failed.
func (s *connectSession) talk(conn *client.Conn, messages []string) error {
	s.mu.Lock()
	s.conn = conn
	interrupted := s.interrupted
	s.mu.Unlock()
	if interrupted {
		s.finish(nil)
	}
	go s.feed(messages)
	for {
		e, err := conn.Next()
		if err != nil || e.Op == ws.OpClose {
			s.ownCloseTold()
		}
		if err != nil {
			return s.verdict(err)
		}
		data := e.Op == ws.OpText || e.Op == ws.OpBinary
		if data && s.full() {
			continue // it was under way before our Close came to the server
		}
		s.printer.received(&e)
		if err := s.printer.failure(); err != nil {
			return err
		}
		if data {
			s.count(func() { s.got++ })
		}
	}
}

// ownCloseTold waits for a Close of ours that is being sent to have been told.
func (s *connectSession) ownCloseTold() {
	s.closing.Lock()
	defer s.closing.Unlock()
}

// full reports whether as many messages have come as --replies wants.
func (s *connectSession) full() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.replies > 0 && s.got >= s.replies
}

// feed sends what is to be sent.
func (s *connectSession) feed(messages []string) {
	var err error
	switch {
	case len(messages) > 0:
		for _, m := range messages {
			if err = s.send(&order{op: ws.OpText, payload: []byte(m)}); err != nil {
				break
			}
		}
	default:
		err = connectLines(s.o.stdin, int64(s.o.maxMessage), s.line)
	}
	if s.console != nil {
		s.console.close()
	}
	switch {
	case s.typed && err == nil: // Ctrl-C, or Ctrl-D
		s.finish(nil)
	case err != nil && !errors.Is(err, client.ErrClosing):
		s.finish(err)
	case err == nil:
		s.count(func() { s.allSent = true })
	}
}

// line does what a line asks for. What is wrong with a line is told to a person, and ends a script.
func (s *connectSession) line(line []byte) error {
	if s.typed && len(line) == 0 {
		return nil
	}
	d, err := parseOrder(string(line), s.o.commands)
	switch {
	case err != nil && s.typed:
		s.printer.talk("%v", err)
		return nil
	case err != nil:
		return err
	case d.op == 0:
		s.printer.talk("%s", connectHelp)
		return nil
	}
	return s.send(&d)
}

func (s *connectSession) send(d *order) error {
	switch d.op {
	case ws.OpClose:
		s.end(d.code, d.reason, nil)
		return client.ErrClosing
	case ws.OpText, ws.OpBinary:
		s.mu.Lock()
		s.sent++ // before the reply can come
		s.mu.Unlock()
	}
	s.printer.sent(d) // before the reply is
	return s.conn.Send(d.op, d.payload)
}

// count changes what was counted, and closes if that was all.
func (s *connectSession) count(change func()) {
	s.mu.Lock()
	change()
	if s.timer != nil {
		s.timer.Stop()
	}
	want := s.sent
	if s.replies > 0 {
		want = s.replies
	}
	enough := s.got >= want && (s.replies > 0 || s.allSent)
	if s.o.follow && s.replies == 0 {
		enough = false
	}
	if s.allSent && !enough && !s.o.follow {
		s.timer = time.AfterFunc(s.o.wait, func() { s.finish(nil) })
	}
	s.mu.Unlock()
	if enough {
		s.finish(nil)
	}
}

// finish begins a normal closing handshake. broken is why, if it is a failure.
func (s *connectSession) finish(broken error) { s.end(ws.StatusNormalClosure, "", broken) }

func (s *connectSession) end(code ws.StatusCode, reason string, broken error) {
	s.mu.Lock()
	first := !s.ending
	if s.ending = true; first {
		s.broken = broken
	}
	s.mu.Unlock()
	if first {
		s.closing.Lock()
		defer s.closing.Unlock()
		if s.conn.Close(code, reason) {
			s.printer.sent(&order{op: ws.OpClose, code: code, reason: reason})
		}
	}
}

// interrupt is a signal: the first one closes, the second ends at once.
func (s *connectSession) interrupt() {
	s.mu.Lock()
	conn, again := s.conn, s.ending
	if again {
		s.broken = errors.New("interrupted before the server answered our Close")
	}
	s.replies, s.interrupted = 0, true
	s.mu.Unlock()
	switch {
	case conn == nil:
		s.cancel(context.Canceled)
	case again:
		conn.Release()
	default:
		s.finish(nil)
	}
}

// verdict says how the end of the connection is to be judged; err is what Next ended with.
func (s *connectSession) verdict(err error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.timer != nil {
		s.timer.Stop()
	}
	code, own := s.conn.PeerCode(), s.conn.First()
	say := func(format string, args ...any) {
		if !s.o.quiet {
			s.printer.talk(format, args...)
		}
	}
	switch {
	case s.broken != nil:
		return s.broken
	case errors.Is(err, client.ErrUnanswered):
		say("closed: %v", err)
	case !errors.Is(err, io.EOF):
		return err
	case own:
		say("closed: %s", closeWords(code, ""))
	case code != ws.StatusNormalClosure && code != ws.StatusGoingAway && code != ws.StatusNoStatusRcvd:
		return fmt.Errorf("the server closed with %d (%s)", code, inspect.CloseMeaning(code))
	default:
		say("closed by the server: %s", closeWords(code, ""))
	}
	if s.got < s.replies {
		return fmt.Errorf("%d of %d messages came", s.got, s.replies)
	}
	return nil
}
