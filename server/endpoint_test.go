package server

import (
	"context"
	"fmt"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"wspoll/frame"

	"github.com/gobwas/ws"
)

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
