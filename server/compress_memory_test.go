package server

import (
	"fmt"
	"io"
	"testing"
	"unsafe"

	"wspoll/epoll"
	"wspoll/frame"
	"wspoll/handshake"

	"github.com/gobwas/ws"
)

func TestCompressedMessagesAllocateNothing(t *testing.T) {
	messages := 5000
	if raceEnabled {
		messages = 300
	}
	for _, mode := range []Compression{CompressShared, CompressContext} {
		for _, path := range []string{"/echo", "/message"} {
			for _, size := range []int{20, 1000, 30_000} {
				t.Run(fmt.Sprintf("mode %d %s %d bytes", mode, path, size), func(t *testing.T) {
					s := serve(t, Config{Compress: mode}, compressingEndpoints)
					c := s.openCompressed(t, path, handshake.DeflateOffer{ClientNoContext: true, ClientBits: 12})
					request := c.deflate(ws.OpText, jsonText(size), 1)
					head := make([]byte, 10)
					answer := make([]byte, size)
					round := func() {
						if _, err := c.conn.Write(request); err != nil {
							t.Fatal(err)
						}
						if _, err := io.ReadFull(c.conn, head[:2]); err != nil {
							t.Fatal(err)
						}
						n := int(head[1])
						if n == 126 {
							if _, err := io.ReadFull(c.conn, head[2:4]); err != nil {
								t.Fatal(err)
							}
							n = int(head[2])<<8 | int(head[3])
						}
						if _, err := io.ReadFull(c.conn, answer[:n]); err != nil {
							t.Fatal(err)
						}
					}
					if n := mallocs(messages, round); n > 100 {
						t.Errorf("%d allocations for %d messages", n, messages)
					}
				})
			}
		}
	}
}

func TestWhatAnIdleConnectionHoldsWithCompression(t *testing.T) {
	if n := unsafe.Sizeof(state{}); n > 24 {
		t.Errorf("the state of a connection is %d bytes: what was agreed on should cost none", n)
	}
	held := func(s *testServer) (in, out int) {
		s.group.Do(func(l *epoll.Loop) {
			q := &s.shards[l.Index()].squeeze
			in, out = len(q.in), len(q.out)
		})
		return in, out
	}
	const conns = 20
	msg := jsonText(10_000)
	for _, path := range []string{"/echo", "/message"} {
		s := serve(t, Config{}, compressingEndpoints)
		for range conns {
			c := s.openCompressed(t, path)
			for _, fragments := range []int{1, 3} {
				c.write(c.deflate(ws.OpText, msg, fragments))
				c.wantMessage(ws.OpText, msg)
			}
		}
		if in, out := held(s); in+out != 0 || s.Stats().Buffered != 0 {
			t.Errorf("shared: %d inflations, %d deflations, %d bytes", in, out, s.Stats().Buffered)
		}

		s = serve(t, Config{Compress: CompressContext}, compressingEndpoints)
		clients := make([]*compressor, conns)
		for i := range clients {
			clients[i] = s.openCompressed(t, path)
			clients[i].write(clients[i].deflate(ws.OpText, msg, 1))
			clients[i].wantMessage(ws.OpText, msg)
		}
		each := int64(unsafe.Sizeof(inflation{})+unsafe.Sizeof(deflation{})) + 2<<contextBits
		if in, out := held(s); in != conns || out != conns || s.Stats().Buffered != conns*each {
			t.Errorf("context: %d inflations, %d deflations, %d bytes, want %d", in, out, s.Stats().Buffered, conns*each)
		}
		for _, c := range clients {
			c.conn.Close()
		}
		eventually(t, "nothing is held", func() bool { return s.Stats().Buffered == 0 })
	}
}

// Without memory for a window of ours the messages refer to nothing; without
// memory for one of the client's the connection must end.
func TestABudgetThatIsUsedUpByContexts(t *testing.T) {
	in := int64(unsafe.Sizeof(inflation{}))
	s := serve(t, Config{Compress: CompressContext, MemoryBudget: in + 3000}, compressingEndpoints)
	c := s.openCompressed(t, "/message", handshake.DeflateOffer{ClientNoContext: true})
	for range 3 {
		m := jsonText(6000)
		c.send(ws.OpText, m)
		if c.wantMessage(ws.OpText, m); !c.deflated {
			t.Error("not compressed")
		}
	}
	c = s.openCompressed(t, "/message", handshake.DeflateOffer{ClientBits: 15})
	c.write(c.deflate(ws.OpText, jsonText(200), 1))
	c.wantMessage(ws.OpText, jsonText(200))
	c.write(c.deflate(ws.OpText, jsonText(6000), 1))
	for {
		if f := c.compressedFrame(); f.op == ws.OpClose {
			if code, _, _ := frame.ParseClose(f.payload); code != statusTryAgainLater {
				t.Errorf("Close %d", code)
			}
			return
		}
	}
}
