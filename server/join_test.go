package server

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"strings"
	"sync"
	"testing"

	"github.com/gobwas/ws"
)

// heard is a message as an endpoint got it.
type heard struct {
	op   ws.OpCode
	text string
}

func TestMessageEndpointGetsWholeMessages(t *testing.T) {
	got := make(chan heard, 10)
	s := serve(t, Config{}, map[string]*Endpoint{
		"/m": {Message: func(c Conn, op ws.OpCode, p []byte) {
			got <- heard{op, string(p)}
			for i := range p {
				p[i] = 'x' // it may be written to
			}
			c.Send(op, p)
		}},
	})
	c := s.open(t, "/m")
	large := strings.Repeat("0123456789", 30<<10)
	c.write(masked(true, ws.OpText, []byte("whole")))
	c.write(masked(false, ws.OpBinary, []byte("in ")))
	c.write(masked(true, ws.OpPing, nil))
	c.write(masked(false, ws.OpContinuation, nil))
	c.write(masked(true, ws.OpContinuation, []byte("parts")))
	c.write(masked(true, ws.OpText, nil))
	c.write(masked(true, ws.OpText, []byte(large))) // comes in several reads
	for _, want := range []heard{{ws.OpText, "whole"}, {ws.OpBinary, "in parts"}, {ws.OpText, ""}, {ws.OpText, large}} {
		if h := receive(t, "a message", got); h != want {
			t.Errorf("%v %.50q, want %v %.50q", h.op, h.text, want.op, want.text)
		}
	}
	for _, want := range []received{
		{true, ws.OpText, []byte("xxxxx")},
		{true, ws.OpPong, nil},
		{true, ws.OpBinary, []byte("xxxxxxxx")},
		{true, ws.OpText, nil},
		{true, ws.OpText, bytes.Repeat([]byte("x"), len(large))},
	} {
		if f := c.frame(); f.op != want.op || !f.fin || !bytes.Equal(f.payload, want.payload) {
			t.Errorf("%v %.50q, want %v %.50q", f.op, f.payload, want.op, want.payload)
		}
	}
	eventually(t, "the budget has all back", func() bool { return s.Stats().Buffered == 0 })

	// What a message in progress holds goes back when the connection ends.
	c.write(masked(false, ws.OpText, make([]byte, 100<<10)))
	eventually(t, "a message waits for its end", func() bool { return s.Stats().Buffered >= 100<<10 })
	reset(c.conn)
	eventually(t, "the budget has all back", func() bool { return s.Stats().Buffered == 0 })
}

func TestMessageThatFindsNoMemoryIsClosedWith1013(t *testing.T) {
	for name, ep := range map[string]*Endpoint{
		"message":  {Message: func(Conn, ws.OpCode, []byte) {}},
		"blocking": {Blocking: func(Ref, ws.OpCode, []byte) {}},
	} {
		t.Run(name, func(t *testing.T) {
			s := serve(t, Config{MemoryBudget: 64 << 10}, map[string]*Endpoint{"/m": ep})
			c := s.open(t, "/m")
			c.write(masked(true, ws.OpBinary, make([]byte, 200<<10)))
			c.wantClose(1013)
			c.close(1013)
			c.wantEnd()
			s.waitClosed(t, ReasonMemory, 1)
			eventually(t, "the budget has all back", func() bool { return s.Stats().Buffered == 0 })
		})
	}
}

// Eight goroutines send while the same connection echoes a message in
// fragments: nothing of theirs may stand inside a frame, or between the
// fragments of another message, and each one's messages stay in order.
func TestSendingFromManyGoroutinesSplitsNothing(t *testing.T) {
	const senders, each, echoed = 8, 200, 200
	refs := make(chan Ref, 1)
	// All of it may wait at once: the reader below is no slow one, but no match for eight senders.
	s := serve(t, Config{MaxPending: 64 << 20}, map[string]*Endpoint{"/push": {Open: func(c Conn) { refs <- c.Ref() }, Piece: Echo().Piece}})
	c := s.open(t, "/push")
	ref := receive(t, "Open", refs)
	var wg sync.WaitGroup
	for g := range senders {
		wg.Go(func() {
			for i := range each {
				m := binary.BigEndian.AppendUint32([]byte{byte(g)}, uint32(i))
				m = append(m, bytes.Repeat([]byte{byte(g)}, i*17%2000)...)
				if i == each/2 {
					m = append(m, bytes.Repeat([]byte{byte(g)}, 70000)...)
				}
				if err := ref.Send(ws.OpBinary, m); err != nil {
					t.Error(err)
				}
				if i%50 == 0 {
					ref.Send(ws.OpPing, []byte{byte(g)})
				}
				for i := range m {
					m[i] = 0xee // it is the caller's again
				}
			}
		})
	}
	wg.Go(func() {
		for i := range echoed {
			text := bytes.Repeat([]byte{byte('a' + i%26)}, 300)
			for k := range 3 {
				op := ws.OpContinuation
				if k == 0 {
					op = ws.OpText
				}
				f := masked(k == 2, op, text[:100])
				c.conn.Write(f[:50]) // a frame in two pieces, so that the loop has its turn between
				c.conn.Write(f[50:])
			}
		}
	})
	var next [senders]uint32
	texts, binaries, pings := 0, 0, 0
	for texts < echoed || binaries < senders*each || pings < senders*each/50 {
		f := c.frame()
		switch f.op {
		case ws.OpPing:
			pings++
		case ws.OpBinary:
			if !f.fin || len(f.payload) < 5 {
				t.Fatalf("a message that was sent as one frame is not: %+v", f)
			}
			g := f.payload[0]
			if n := binary.BigEndian.Uint32(f.payload[1:]); n != next[g] {
				t.Fatalf("goroutine %d: message %d, want %d", g, n, next[g])
			}
			next[g]++
			if len(bytes.Trim(f.payload[5:], string(g))) > 0 {
				t.Fatal("a message is mixed with something else")
			}
			binaries++
		case ws.OpText:
			text := f.payload
			for !f.fin {
				f = c.frame()
				if f.op == ws.OpPing {
					pings++
					f.fin = false
					continue
				}
				if f.op != ws.OpContinuation {
					t.Fatalf("opcode %#x stands between the fragments of a message", f.op)
				}
				text = append(text, f.payload...)
			}
			if want := byte('a' + texts%26); len(text) != 300 || len(bytes.Trim(text, string(want))) > 0 {
				t.Fatalf("message %d came back as %q", texts, text)
			}
			texts++
		default:
			t.Fatalf("%+v", f)
		}
	}
	wg.Wait()
	st := s.Stats()
	if st.Buffered != 0 || st.MessagesIn != echoed {
		t.Errorf("%+v", st)
	}
}

func TestMessagesSentInTheMiddleOfAnotherWaitForItsEnd(t *testing.T) {
	refs := make(chan Ref, 1)
	s := serve(t, Config{}, map[string]*Endpoint{"/push": {Open: func(c Conn) { refs <- c.Ref() }, Piece: Echo().Piece}})
	c := s.open(t, "/push")
	ref := receive(t, "Open", refs)
	c.write(masked(false, ws.OpText, []byte("begin")))
	c.frame()
	ref.Send(ws.OpBinary, []byte("one"))
	ref.Send(ws.OpPing, []byte("at once"))
	ref.Send(ws.OpBinary, []byte("two"))
	if f := c.frame(); f.op != ws.OpPing {
		t.Errorf("%+v came first", f)
	}
	eventually(t, "two messages wait", func() bool { return s.Stats().FramesOut == 3 && s.Stats().Buffered > 0 })
	c.write(masked(true, ws.OpContinuation, []byte("end")))
	for _, want := range []received{{true, ws.OpContinuation, []byte("end")}, {true, ws.OpBinary, []byte("one")}, {true, ws.OpBinary, []byte("two")}} {
		if f := c.frame(); fmt.Sprint(f) != fmt.Sprint(want) {
			t.Errorf("%+v, want %+v", f, want)
		}
	}
	st := s.Stats()
	if st.Buffered != 0 || st.FramesOut != 4 || st.BytesOut != uint64(len("beginendonetwo")) {
		t.Errorf("buffered %d, frames %d, bytes %d", st.Buffered, st.FramesOut, st.BytesOut)
	}

	// Too much of it, and what waits goes with the connection.
	c.write(masked(false, ws.OpText, []byte("begin")))
	c.frame()
	big := make([]byte, 400<<10)
	for range 4 {
		if err := ref.Send(ws.OpBinary, big); err != nil {
			t.Error(err)
		}
	}
	s.waitClosed(t, ReasonSlowReader, 1)
	eventually(t, "the budget has all back", func() bool { return s.Stats().Buffered == 0 })
}
