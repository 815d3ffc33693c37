package server

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"sync/atomic"
	"testing"

	"wspoll/epoll"
	"wspoll/frame"
	"wspoll/handshake"

	"github.com/gobwas/ws"
	"golang.org/x/sys/unix"
)

// midMessage is how many parsers the loops keep aside.
func (s *testServer) midMessage() int64 {
	var n atomic.Int64
	s.group.Do(func(l *epoll.Loop) { n.Add(int64(len(s.shards[l.Index()].parsers))) })
	return n.Load()
}

func TestCutMessagesAllocateNothing(t *testing.T) {
	const rounds = 200
	payload := bytes.Repeat([]byte("x"), 100)
	whole := masked(true, ws.OpText, payload)
	fragment := masked(false, ws.OpText, payload[:50])
	for name, parts := range map[string][2][]byte{
		"in a frame":        {whole[:len(whole)-50], whole[len(whole)-50:]},
		"between fragments": {fragment, masked(true, ws.OpContinuation, payload[50:])},
	} {
		for _, conns := range []int{1, 64} { // a map with few entries is another one than with many
			t.Run(fmt.Sprintf("%s of %d", name, conns), func(t *testing.T) {
				s := serve(t, Config{Loops: 1}, nil)
				clients := make([]net.Conn, conns)
				for i := range clients {
					clients[i] = join(t, s.packets(t), hello("/echo"), nil).conn
				}
				answer := make([]byte, 2+50)
				half := func(part []byte) {
					for _, c := range clients {
						if _, err := c.Write(part); err != nil {
							t.Fatal(err)
						}
					}
					for _, c := range clients {
						if _, err := io.ReadFull(c, answer); err != nil {
							t.Fatal(err)
						}
					}
				}
				round := func() {
					half(parts[0])
					half(parts[1])
				}
				if n := mallocs(rounds, round); n > 100 {
					t.Errorf("%d allocations for %d messages", n, rounds*conns)
				}
				if n := s.midMessage(); n != 0 {
					t.Errorf("%d parsers are kept between messages", n)
				}
				half(parts[0])
				if n := s.midMessage(); n != int64(conns) {
					t.Errorf("%d parsers are kept of %d connections in a message", n, conns)
				}
			})
		}
	}
}

// Whatever ends a connection in the middle of a message, its parser goes too.
func TestNothingIsKeptOfHalfAMessage(t *testing.T) {
	const conns = 10
	echo := Echo().Piece
	piece := func(then func(c Conn)) *Endpoint {
		return &Endpoint{Piece: func(c Conn, p *frame.Piece) {
			if echo(c, p); !p.First {
				then(c)
			}
		}}
	}
	s := serve(t, Config{Loops: 2, Log: new(lockedLog).logger()}, map[string]*Endpoint{
		"/panic": piece(func(Conn) { panic("boom") }),
		"/close": piece(func(c Conn) { c.Close(ws.StatusNormalClosure, "") }),
		"/late":  piece(func(c Conn) { c.Close(ws.StatusNormalClosure, ""); panic("boom") }),
	})
	check := s.calm(t)
	whole := masked(true, ws.OpText, bytes.Repeat([]byte("x"), 100))
	half, more, bad := whole[:56], whole[56:57], []byte{whole[56] ^ 0x80}
	fragment := masked(false, ws.OpText, bytes.Repeat([]byte("x"), 50))
	for _, end := range []struct {
		name, path string
		start      []byte
		end        func(c *client)
	}{
		{"FIN in a frame", "/echo", half, func(c *client) {}},
		{"FIN between fragments", "/echo", fragment, func(c *client) {}},
		{"RST", "/echo", half, func(c *client) { reset(c.conn) }},
		{"Close between fragments", "/echo", fragment, func(c *client) { c.close(ws.StatusNormalClosure); c.wantClose(ws.StatusNormalClosure) }},
		{"a violation", "/echo", fragment, func(c *client) { c.write([]byte{0x83, 0x80}); c.wantClose(ws.StatusProtocolError) }},
		{"bad text", "/echo", half, func(c *client) { c.write(bad); c.wantClose(ws.StatusInvalidFramePayloadData) }},
		{"a Close of the endpoint", "/close", half, func(c *client) { c.write(more); c.frame(); c.wantClose(ws.StatusNormalClosure) }},
		{"a panic", "/panic", half, func(c *client) { c.write(more); c.frame(); c.wantClose(ws.StatusInternalServerError) }},
		{"a panic behind a Close", "/late", half, func(c *client) { c.write(more); c.frame(); c.wantClose(ws.StatusNormalClosure) }},
	} {
		clients := make([]*client, conns)
		for i := range clients {
			clients[i] = s.open(t, end.path)
			clients[i].write(end.start)
			clients[i].frame() // the echo of what has come
		}
		if n := s.midMessage(); n != conns {
			t.Errorf("%s: %d parsers are kept of %d connections in a message", end.name, n, conns)
		}
		for _, c := range clients {
			end.end(c)
			c.conn.Close()
		}
		eventually(t, "all have ended", func() bool { return s.Stats().Connections == 0 })
		if n := s.midMessage(); n != 0 {
			t.Errorf("%s: %d parsers are kept of nobody", end.name, n)
		}
	}
	check()
}

// adopt puts a connection with path on the loop of c, within a function of c's
// endpoint.
func (s *testServer) adopt(t *testing.T, c Conn, path string) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Error(err)
		return
	}
	t.Cleanup(func() { unix.Close(fds[1]) })
	ep, _ := s.endpointOf([]byte(path))
	head := handshake.AppendRequest(nil, hello(path))
	c.sh.adopted = &adoption{endpoint: ep, path: path, head: head, read: head}
	defer func() { c.sh.adopted = nil }()
	if err := c.sh.loop.Add(fds[0], 0, nil); err != nil {
		t.Error(err)
	}
}

// A panic may be another connection's: one that an endpoint's function put on
// the loop. The parser must then stand where the piece ended.
func TestAPanicOfAnotherConnectionInTheMiddleOfAMessage(t *testing.T) {
	var s *testServer
	added, echo := 0, Echo().Piece
	s = serve(t, Config{Loops: 1, Log: new(lockedLog).logger()}, map[string]*Endpoint{
		"/panic": {Open: func(Conn) { panic("boom") }},
		"/adds": {Piece: func(c Conn, p *frame.Piece) {
			if echo(c, p); added < 3 {
				added++
				s.adopt(t, c, "/panic")
			}
		}},
	})
	c := join(t, s.packets(t), hello("/adds"), nil)
	f := masked(true, ws.OpText, []byte("abcdef"))
	cut := len(f) - 4
	for _, part := range [][]byte{f[:cut], f[cut : cut+2], f[cut+2:], f} {
		c.write(part)
	}
	for range 2 {
		if _, got := c.message(); string(got) != "abcdef" {
			t.Errorf("%q came back", got)
		}
	}
	s.waitClosed(t, ReasonPanic, 3)
	if n := s.midMessage(); n != 0 {
		t.Errorf("%d parsers are kept between messages", n)
	}
}

func TestTheNextConnectionOfASlotBeginsBetweenMessages(t *testing.T) {
	var s *testServer
	s = serve(t, Config{Loops: 1}, map[string]*Endpoint{
		"/swaps": {Piece: func(c Conn, _ *frame.Piece) {
			slot, _ := c.find()
			c.sh.loop.Close(slot)
			s.adopt(t, c, "/echo")
			if c.sh.loop.ID(slot) == c.id || c.sh.conns.At(slot).phase != phaseOpen {
				t.Error("the slot did not get another connection")
			}
		}},
	})
	c := join(t, s.packets(t), hello("/swaps"), nil)
	c.write(masked(false, ws.OpText, []byte("half")))
	c.wantEnd()
	if n := s.midMessage(); n != 0 {
		t.Errorf("%d parsers are kept of a connection that has ended", n)
	}
}
