package server

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"wspoll/frame"

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

func TestPieceEndpointSeesAMessageAsItArrives(t *testing.T) {
	type piece struct {
		first, last bool
		data        string
	}
	got := make(chan piece, 10)
	s := serve(t, Config{}, map[string]*Endpoint{
		"/p": {Piece: func(_ Conn, p *frame.Piece) { got <- piece{p.First, p.Last, string(p.Data)} }},
	})
	conn := s.packets(t)
	c := join(t, conn, hello("/p"), nil)
	whole := masked(true, ws.OpText, []byte("abcdef"))
	c.write(whole[:8])
	c.write(whole[8:])
	for _, want := range []piece{{true, false, "ab"}, {false, true, "cdef"}} {
		if p := receive(t, "a piece", got); p != want {
			t.Errorf("%+v, want %+v", p, want)
		}
	}
}

func TestEndpointWithoutFunctionsChecksAndDrops(t *testing.T) {
	s := serve(t, Config{}, map[string]*Endpoint{"/drop": {}})
	c := s.open(t, "/drop")
	c.send(ws.OpText, []byte("nobody hears this"))
	c.send(ws.OpPing, []byte("x"))
	if f := c.frame(); f.op != ws.OpPong {
		t.Errorf("%+v", f)
	}
	c.send(ws.OpText, []byte("\xff"))
	c.wantClose(1007)
	if n := s.Stats().MessagesIn; n != 1 {
		t.Errorf("%d messages were counted", n)
	}
}

func TestOpenAndCloseAreCalledOnceEach(t *testing.T) {
	type ended struct {
		why   Reason
		value any
	}
	opened, closed := make(chan string, 10), make(chan ended, 10)
	s := serve(t, Config{}, map[string]*Endpoint{"/oc": {
		Open: func(c Conn) {
			opened <- string(c.Request().Target) + " from " + c.RemoteAddr().(*net.TCPAddr).IP.String()
			if c.Value() != nil {
				t.Error("a new connection has a value")
			}
			c.SetValue(string(c.Request().Query))
		},
		Message: func(c Conn, _ ws.OpCode, _ []byte) {
			if c.Request() != nil {
				t.Error("there is a request outside of Open")
			}
			c.Send(ws.OpText, []byte(c.Value().(string)))
		},
		Close: func(c Conn, why Reason) {
			c.Send(ws.OpText, []byte("too late"))
			c.Close(1000, "")
			closed <- ended{why, c.Value()}
		},
	}})
	for i, tt := range []struct {
		end func(c *client)
		why Reason
	}{
		{func(c *client) { c.close(1000); c.wantClose(1000) }, ReasonPeerClosed},
		{func(c *client) { c.conn.Close() }, ReasonEOF},
		{func(c *client) { reset(c.conn) }, ReasonReset},
		{func(c *client) { c.write([]byte{0xff}); c.wantClose(1002); c.conn.Close() }, ReasonProtocol},
	} {
		query := fmt.Sprint("n=", i)
		c := s.open(t, "/oc?"+query)
		if got := receive(t, "Open", opened); got != "/oc?"+query+" from 127.0.0.1" {
			t.Errorf("%q", got)
		}
		c.send(ws.OpText, nil)
		if _, got := c.message(); string(got) != query {
			t.Errorf("the value is %q", got)
		}
		tt.end(c)
		if got := receive(t, "Close", closed); got != (ended{tt.why, query}) {
			t.Errorf("%+v, want %v", got, tt.why)
		}
	}
	s.answer(t, request("/oc", "Sec-WebSocket-Key:")) // refused: neither
	if len(opened) > 0 || len(closed) > 0 {
		t.Errorf("%d more were opened, %d closed", len(opened), len(closed))
	}
}

func TestEndpointMaySendWhileItOpens(t *testing.T) {
	s := serve(t, Config{}, map[string]*Endpoint{"/hi": {Open: func(c Conn) {
		c.Send(ws.OpText, []byte("welcome"))
		c.Send(ws.OpPing, []byte("there?"))
		c.Close(4000, "that was all")
		c.Send(ws.OpText, []byte("dropped"))
		c.SendPiece(ws.OpText, true, true, []byte("dropped"))
		c.Close(4001, "too late")
	}}})
	c := join(t, s.dial(t), hello("/hi"), masked(true, ws.OpText, []byte("not looked at")))
	for _, want := range []received{{true, ws.OpText, []byte("welcome")}, {true, ws.OpPing, []byte("there?")}} {
		if f := c.frame(); fmt.Sprint(f) != fmt.Sprint(want) {
			t.Errorf("%+v, want %+v", f, want)
		}
	}
	if f := c.frame(); f.op != ws.OpClose || string(f.payload) != "\x0f\xa0that was all" {
		t.Errorf("%+v", f)
	}
	c.close(4000)
	c.wantEnd()
	s.waitClosed(t, ReasonEndpoint, 1)
}

func TestHandleRefusesWhatCannotWork(t *testing.T) {
	s, err := New(Config{})
	if err != nil {
		t.Fatal(err)
	}
	message, piece := func(Conn, ws.OpCode, []byte) {}, func(Conn, *frame.Piece) {}
	for _, tt := range []struct {
		path string
		ep   *Endpoint
		says string
	}{
		{"/a", Echo(), ""},
		{"/b", Echo(), ""},
		{"/a", Echo(), "there is one already"},
		{"/b", Echo(), "there is one already"},
		{"c", Echo(), "begins with /"},
		{"", Echo(), "begins with /"},
		{"/d", &Endpoint{Message: message, Piece: piece}, "more than one"},
		{"/e", &Endpoint{Message: message, Blocking: func(Ref, ws.OpCode, []byte) {}}, "more than one"},
	} {
		if err := s.Handle(tt.path, tt.ep); fmt.Sprint(err) != "<nil>" != (tt.says != "") || err != nil && !strings.Contains(err.Error(), tt.says) {
			t.Errorf("%q: %v, want %q", tt.path, err, tt.says)
		}
	}
	var paths []string
	for p := range s.Endpoints() {
		paths = append(paths, p)
	}
	if !slices.Equal(paths, []string{"/a", "/b"}) {
		t.Errorf("%q", paths)
	}
	s.Start()
	if err := s.Handle("/late", Echo()); err == nil || !strings.Contains(err.Error(), "has been started") {
		t.Errorf("after Start: %v", err)
	}
	if err := s.Shutdown(context.Background()); err != nil {
		t.Error(err)
	}
}

func TestBlockingEndpointKeepsOrderAndHoldsNobodyUp(t *testing.T) {
	release := make(chan struct{})
	s := serve(t, Config{Loops: 1}, map[string]*Endpoint{"/slow": {Blocking: func(r Ref, op ws.OpCode, p []byte) {
		<-release
		if err := r.Send(op, p); err != nil {
			t.Error(err)
		}
	}}})
	other := s.open(t, "/echo")
	goroutines := runtime.NumGoroutine()
	c := s.open(t, "/slow")
	const n = 3000
	var all []byte
	for i := range n { // in fragments too, and more than the queue takes
		m := fmt.Appendf(nil, "%04d%s", i, strings.Repeat(".", 500))
		if i%3 == 0 {
			all = append(all, masked(false, ws.OpText, m[:100])...)
			all = append(all, masked(true, ws.OpContinuation, m[100:])...)
			continue
		}
		all = append(all, masked(true, ws.OpText, m)...)
	}
	written := make(chan struct{})
	go func() { c.conn.Write(all); close(written) }()
	// One or none is in the function's hands, and one more than queueMany waits.
	held := func() bool { return s.Stats().MessagesIn >= queueMany+1 }
	eventually(t, "the queue is full", held)
	for range 100 { // the loop turns and reads no more
		other.echoes(ws.OpText, []byte("meanwhile"))
	}
	if got := s.Stats().MessagesIn; got > queueMany+2+100 {
		t.Errorf("%d messages were taken in while one is slow, want %d at most", got, queueMany+2+100)
	}
	close(release)
	for i := range n {
		if _, got := c.message(); string(got[:4]) != fmt.Sprintf("%04d", i) || len(got) != 504 {
			t.Fatalf("message %d is %.10q", i, got)
		}
	}
	receive(t, "all is written", written)
	eventually(t, "no goroutine and no memory is left", func() bool {
		return runtime.NumGoroutine() <= goroutines && s.Stats().Buffered == 0
	})
	c.send(ws.OpText, []byte("once more"))
	if _, got := c.message(); string(got) != "once more" {
		t.Errorf("%q", got)
	}
}

func TestBlockingEndpointHearsWhatCameBeforeTheEnd(t *testing.T) {
	release, got := make(chan struct{}), make(chan string, 1000)
	s := serve(t, Config{}, map[string]*Endpoint{"/slow": {Blocking: func(_ Ref, _ ws.OpCode, p []byte) {
		<-release
		got <- string(p)
	}}})
	c := s.open(t, "/slow")
	var all []byte
	for i := range 500 {
		all = append(all, masked(true, ws.OpText, fmt.Append(nil, i))...)
	}
	c.write(frame.AppendMaskedClose(all, [4]byte{}, 1000, ""))
	c.conn.(*net.TCPConn).CloseWrite()
	eventually(t, "the queue is full", func() bool { return s.Stats().MessagesIn >= queueMany })
	close(release)
	for i := range 500 {
		if m := receive(t, "a message", got); m != fmt.Sprint(i) {
			t.Fatalf("message %d is %q", i, m)
		}
	}
	c.wantClose(1000)
	s.waitClosed(t, ReasonPeerClosed, 1)
}

func TestCloseReachesAPeerThatIsHeldBack(t *testing.T) {
	release, ref := make(chan struct{}), make(chan Ref, 1000)
	s := serve(t, Config{}, map[string]*Endpoint{"/slow": {Blocking: func(r Ref, _ ws.OpCode, _ []byte) {
		ref <- r
		<-release
	}}})
	defer close(release)
	c := s.open(t, "/slow")
	for range 200 {
		c.send(ws.OpText, []byte("x"))
	}
	r := receive(t, "the first message", ref)
	eventually(t, "the queue is full", func() bool { return s.Stats().MessagesIn >= queueMany })
	if err := r.Close(4000, "enough"); err != nil {
		t.Error(err)
	}
	if reason := c.wantClose(4000); reason != "enough" {
		t.Errorf("%q", reason)
	}
	c.close(4000)
	c.wantEnd()
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

func TestRefOfAnEndedConnectionDoesNothing(t *testing.T) {
	refs := make(chan Ref, 2)
	s := serve(t, Config{}, map[string]*Endpoint{"/r": {Open: func(c Conn) { refs <- c.Ref() }}})
	c := s.open(t, "/r")
	old := receive(t, "Open", refs)
	c.close(1000)
	c.wantClose(1000)
	s.waitClosed(t, ReasonPeerClosed, 1)
	next := s.open(t, "/r") // has the slot of the one before
	now := receive(t, "Open", refs)
	for _, err := range []error{
		old.Send(ws.OpText, []byte("for nobody")),
		old.Do(func(Conn) { t.Error("Do ran for a connection that has ended") }),
		old.Close(4000, "not you"),
	} {
		if err != nil {
			t.Error(err)
		}
	}
	ran := make(chan bool, 1)
	now.Do(func(c Conn) { c.Send(ws.OpText, []byte("for you")); ran <- true })
	receive(t, "Do runs", ran)
	if _, got := next.message(); string(got) != "for you" {
		t.Errorf("%q", got)
	}
	if err := now.Close(1006, ""); err != ErrCode {
		t.Errorf("Close 1006: %v", err)
	}
	if st := s.Stats(); st.Buffered != 0 {
		t.Errorf("%d bytes are still reserved", st.Buffered)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	s.Shutdown(ctx)
	if err := now.Send(ws.OpText, nil); !errors.Is(err, ErrStopped) {
		t.Errorf("after Shutdown: %v", err)
	}
	if err := now.Do(func(Conn) {}); !errors.Is(err, ErrStopped) {
		t.Errorf("after Shutdown: %v", err)
	}
	if used := s.group.Budget().Used(); used != 0 {
		t.Errorf("%d bytes are still reserved", used)
	}
}

func TestRefSaysWhenThereIsNoMemory(t *testing.T) {
	refs := make(chan Ref, 1)
	s := serve(t, Config{MemoryBudget: 64 << 10}, map[string]*Endpoint{"/r": {Open: func(c Conn) { refs <- c.Ref() }}})
	c := s.open(t, "/r")
	ref := receive(t, "Open", refs)
	if err := ref.Send(ws.OpBinary, make([]byte, 64<<10)); err != ErrMemory {
		t.Errorf("64 KiB and a header out of 64 KiB: %v", err)
	}
	if err := ref.Send(ws.OpBinary, make([]byte, 32<<10)); err != nil {
		t.Errorf("32 KiB out of 64 KiB: %v", err)
	}
	if _, got := c.message(); len(got) != 32<<10 {
		t.Errorf("%d bytes", len(got))
	}
}

// A connection that breaks while an endpoint sends on it must leave nothing to
// the one that gets its slot.
func TestNothingOfABrokenConnectionReachesTheNext(t *testing.T) {
	inside, broken := make(chan bool), make(chan bool)
	s := serve(t, Config{Loops: 1}, map[string]*Endpoint{"/m": {Message: func(c Conn, op ws.OpCode, _ []byte) {
		inside <- true
		<-broken
		// The scratch is flushed when 64 KiB are in it: with the header of the
		// last message, so that its payload finds the connection gone.
		for range 7 {
			c.Send(op, make([]byte, 8000))
		}
		c.Send(op, make([]byte, 4749))
		c.Send(op, make([]byte, 4749))
		c.Send(op, []byte("SECRET"))
		if _, st := c.find(); st != nil {
			t.Error("the connection is not broken yet: the sizes of this test are wrong")
		}
	}}})
	c := s.open(t, "/m")
	c.send(ws.OpBinary, nil)
	receive(t, "the message", inside)
	reset(c.conn)
	eventually(t, "the reset has arrived", func() bool { return !established(t, s, c) })
	broken <- true
	next := s.dial(t)
	io.WriteString(next, "GET /nothing HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\n\r\n")
	all, _ := io.ReadAll(next)
	if !bytes.HasPrefix(all, []byte("HTTP/1.1 404")) {
		t.Errorf("the next connection got %.100q", all)
	}
}

// established says whether the server's end of c is, as the kernel has it.
func established(t *testing.T, s *testServer, c *client) bool {
	t.Helper()
	return strings.Contains(tcpTable(t), tcpEntry(s.addr, c.conn.LocalAddr().String()))
}

func TestPanicCostsOnlyItsOwnConnection(t *testing.T) {
	var log lockedLog
	boom := func() { panic("boom") }
	s := serve(t, Config{Loops: 1, Log: log.logger()}, map[string]*Endpoint{
		"/open":     {Open: func(Conn) { boom() }},
		"/message":  {Message: func(Conn, ws.OpCode, []byte) { boom() }},
		"/piece":    {Piece: func(Conn, *frame.Piece) { boom() }},
		"/blocking": {Blocking: func(Ref, ws.OpCode, []byte) { boom() }},
		"/close":    {Close: func(Conn, Reason) { boom() }},
	})
	other := s.open(t, "/echo")
	check := s.calm(t)
	for _, path := range []string{"/open", "/message", "/piece", "/blocking"} {
		c := s.open(t, path)
		c.send(ws.OpText, []byte("x"))
		c.wantClose(ws.StatusInternalServerError)
		c.close(ws.StatusInternalServerError)
		c.conn.Close()
		other.echoes(ws.OpText, []byte("alive"))
	}
	s.waitClosed(t, ReasonPanic, 4)
	c := s.open(t, "/close")
	c.conn.Close()
	eventually(t, "all of it is in the log", func() bool { return strings.Count(log.String(), "panic=boom") == 5 })
	other.echoes(ws.OpText, []byte("alive"))
	check()
	other.conn.Close()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := s.Shutdown(ctx); err != nil {
		t.Errorf("not every connection was counted out: %v", err)
	}
}

func TestRefDoMayPanic(t *testing.T) {
	refs := make(chan Ref, 1)
	s := serve(t, Config{}, map[string]*Endpoint{"/r": {Open: func(c Conn) { refs <- c.Ref() }}})
	c := s.open(t, "/r")
	ref := receive(t, "Open", refs)
	ref.Do(func(Conn) { panic("boom") })
	ref.Send(ws.OpText, []byte("still here"))
	if f, err := c.next(); err != nil || string(f.payload) != "still here" {
		t.Errorf("%+v, %v", f, err)
	}
}

func TestStatsMayBeAskedWhileTheServerStops(t *testing.T) {
	for range 20 {
		s, err := New(Config{Loops: 2})
		if err != nil {
			t.Fatal(err)
		}
		s.Start()
		done := make(chan bool)
		go func() {
			for range 200 {
				s.Stats()
			}
			close(done)
		}()
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		if err := s.Shutdown(ctx); err != nil {
			t.Error(err)
		}
		cancel()
		receive(t, "Stats return", done)
	}
}

func TestARefRefusesWhatMayNotBeSent(t *testing.T) {
	refs := make(chan Ref, 1)
	s := serve(t, Config{}, map[string]*Endpoint{"/ref": {Open: func(c Conn) { refs <- c.Ref() }}})
	s.open(t, "/ref")
	r := <-refs
	for _, c := range []struct {
		err, want error
	}{
		{r.Send(ws.OpPing, make([]byte, 126)), ErrControl},
		{r.Send(ws.OpClose, nil), ErrControl},
		{r.Close(1006, ""), ErrCode},
		{r.Send(ws.OpPing, make([]byte, 125)), nil},
	} {
		if !errors.Is(c.err, c.want) {
			t.Errorf("got %v, want %v", c.err, c.want)
		}
	}
}
