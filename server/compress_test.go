package server

import (
	"bytes"
	"fmt"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"

	"wspoll/frame"
	"wspoll/handshake"

	"github.com/gobwas/ws"
)

var compressingEndpoints = map[string]*Endpoint{
	"/message":  {Message: func(c Conn, op ws.OpCode, p []byte) { c.Send(op, p) }},
	"/blocking": {Blocking: func(r Ref, op ws.OpCode, p []byte) { r.Send(op, p) }},
}

func TestWhatIsAgreedOnIsWhatTheServerWasToldTo(t *testing.T) {
	const plain = "permessage-deflate"
	for _, c := range []struct {
		mode        Compression
		offer, want string
	}{
		{CompressOff, plain, ""},
		{CompressShared, "", ""},
		{CompressShared, plain, plain + "; server_no_context_takeover; client_no_context_takeover"},
		{CompressShared, plain + "; client_max_window_bits", plain + "; server_no_context_takeover; client_no_context_takeover"},
		{CompressShared, plain + "; server_max_window_bits=9", plain + "; server_no_context_takeover; client_no_context_takeover; server_max_window_bits=9"},
		{CompressShared, plain + "; unknown", ""},
		{CompressShared, plain + "; server_max_window_bits=7, " + plain, plain + "; server_no_context_takeover; client_no_context_takeover"},
		{CompressContext, plain, plain + "; server_max_window_bits=12"},
		{CompressContext, plain + "; client_max_window_bits", plain + "; server_max_window_bits=12; client_max_window_bits=12"},
		{CompressContext, plain + "; client_max_window_bits=10; server_max_window_bits=8", plain + "; server_max_window_bits=8; client_max_window_bits=10"},
		{CompressContext, plain + "; server_no_context_takeover", plain + "; server_no_context_takeover; server_max_window_bits=12"},
		{CompressContext, "other, " + plain, plain + "; server_max_window_bits=12"},
	} {
		s := serve(t, Config{Compress: c.mode}, nil)
		// Once on the loop, and once through net/http.
		front := httptest.NewServer(s)
		for _, addr := range []string{s.addr, strings.TrimPrefix(front.URL, "http://")} {
			req, _ := http.NewRequest("GET", "http://"+addr+"/echo", nil)
			for name, v := range map[string]string{
				"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13",
				"Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==", "Sec-WebSocket-Extensions": c.offer,
			} {
				if v != "" {
					req.Header.Set(name, v)
				}
			}
			res, err := http.DefaultTransport.RoundTrip(req)
			if err != nil {
				t.Fatal(err)
			}
			if got := res.Header.Get("Sec-WebSocket-Extensions"); res.StatusCode != 101 || got != c.want {
				t.Errorf("mode %d, offer %q: %d %q, want %q", c.mode, c.offer, res.StatusCode, got, c.want)
			}
			res.Body.Close()
		}
		front.Close()
	}
}

func TestCompressedMessagesAreEchoed(t *testing.T) {
	messages := [][]byte{
		nil, []byte("H"), []byte("Hello"), []byte("Hello"), jsonText(125), jsonText(126), jsonText(1000), jsonText(1000),
		jsonText(65535), jsonText(65536), []byte(strings.Repeat("zß€", 20_000)),
	}
	if !raceEnabled { // there everything takes ten times as long
		messages = append(messages, jsonText(1<<20))
	}
	for _, mode := range []Compression{CompressShared, CompressContext} {
		s := serve(t, Config{Compress: mode}, compressingEndpoints)
		for _, path := range []string{"/echo", "/message", "/blocking"} {
			for _, offer := range []handshake.DeflateOffer{
				{}, {ClientBits: 15}, {ServerBits: 8, ClientBits: 8}, {ServerNoContext: true}, {ClientNoContext: true, ClientBits: 9, ServerBits: 10},
			} {
				t.Run(fmt.Sprintf("mode %d %s %+v", mode, path, offer), func(t *testing.T) {
					c := s.openCompressed(t, path, offer)
					for i, m := range messages {
						for _, op := range []ws.OpCode{ws.OpText, ws.OpBinary} {
							go c.conn.Write(c.deflate(op, m, 1+i%3))
							c.wantMessage(op, m)
							if len(m) >= 256 && !c.deflated || c.frames == 1 && c.wire > len(m)+1 {
								t.Fatalf("%d bytes came back in %d, compressed %v", len(m), c.wire, c.deflated)
							}
							// One that is not compressed does not enter the windows.
							go c.send(op, m)
							c.wantMessage(op, m)
							if c.deflated && (path == "/echo" || len(m) < 256) {
								t.Fatalf("%d bytes came back compressed", len(m))
							}
						}
					}
				})
			}
		}
	}
}

// What does not become shorter is sent as it is, and the windows of both sides
// still agree afterwards.
func TestNoiseIsSentAsItIs(t *testing.T) {
	s := serve(t, Config{Compress: CompressContext}, compressingEndpoints)
	for _, path := range []string{"/message", "/echo"} {
		c := s.openCompressed(t, path)
		for range 3 {
			for _, m := range [][]byte{noise(1000), jsonText(500), noise(3000), jsonText(700)} {
				c.write(c.deflate(ws.OpBinary, m, 1))
				c.wantMessage(ws.OpBinary, m)
			}
		}
	}
}

// A message of any size goes through in constant memory, and so does one that
// is very small on the wire.
func TestAHugeCompressedMessageIsEchoedInConstantMemory(t *testing.T) {
	for _, mode := range []Compression{CompressShared, CompressContext} {
		s := serve(t, Config{Compress: mode, MaxMessage: Unlimited, MemoryBudget: 1 << 20}, nil)
		c := s.openCompressed(t, "/echo")
		const part = 1 << 20
		size := 256 << 20
		if raceEnabled {
			size = 32 << 20
		}
		zeros := make([]byte, part)
		go func() {
			for i := range size / part {
				packed := c.z.Append(nil, nil, c.terms.OutBits(), zeros, i == size/part-1)
				c.conn.Write(rsv1(i == 0, i == size/part-1, ws.OpBinary, packed))
			}
		}()
		var p frame.Piece
		judge, total := frame.NewInflater(), 0
		var peak uint64
		for done := false; !done; {
			n, err := c.parser.Next(&compressedRules, c.client.in, &p)
			if err != nil {
				t.Fatal(err)
			}
			if n == 0 {
				if err := c.fill(); err != nil {
					t.Fatalf("after %d bytes: %v", total, err)
				}
				continue
			}
			if p.Op != ws.OpBinary {
				t.Fatalf("%x %q", p.Op, p.Data)
			}
			c.client.in = c.client.in[n:]
			for more := true; more; {
				var out []byte
				var k int
				if out, k, more, err = judge.Next(p.Data, p.Last); err != nil {
					t.Fatal(err)
				}
				p.Data, total = p.Data[k:], total+len(out)
			}
			done = p.Last
			peak = max(peak, uint64(s.Stats().Buffered))
		}
		if total != size || peak > 1<<20 {
			t.Errorf("%d bytes came, of the budget %d were used", total, peak)
		}
	}
}

// 16 MiB that the client's window of 32 KiB makes small and ours of 4 KiB does
// not: the echo must wait for its reader in the middle of what one read inflates to.
func TestAnEchoThatInflatesMoreThanItsReaderTakesWaits(t *testing.T) {
	s := serve(t, Config{Compress: CompressShared, MaxMessage: Unlimited, MaxPending: 256 << 10}, compressingEndpoints)
	block := noise(20_000)
	msg := bytes.Repeat(block, 800)
	for _, fragments := range []int{1, 5} {
		c := s.openCompressed(t, "/echo", handshake.DeflateOffer{ServerBits: 8})
		b := c.deflate(ws.OpBinary, msg, fragments)
		if len(b) > len(msg)/50 {
			t.Fatalf("%d bytes are not small", len(b))
		}
		written := make(chan struct{})
		go func() {
			c.conn.Write(append(b, masked(true, ws.OpBinary, []byte("behind"))...))
			close(written)
		}()
		<-written // all that was to be read is on its way before anything is taken
		c.wantMessage(ws.OpBinary, msg)
		c.wantMessage(ws.OpBinary, []byte("behind"))
	}
	if n := s.Stats().Closed[ReasonSlowReader]; n != 0 {
		t.Errorf("%d were too slow", n)
	}
}

func TestABombIsInflatedNoFurtherThanTheLimit(t *testing.T) {
	const limit = 1 << 20
	bomb := 256 << 20
	if raceEnabled {
		bomb = 32 << 20 // everything takes ten times as long
	}
	for _, mode := range []Compression{CompressShared, CompressContext} {
		var largest atomic.Int64 // bytes that an endpoint was given of a message
		s := serve(t, Config{Compress: mode, MaxMessage: limit}, map[string]*Endpoint{
			"/message": {Message: func(c Conn, op ws.OpCode, p []byte) {
				largest.Store(int64(len(p)))
				c.Send(op, p[:1])
			}},
			"/piece": {Piece: func(_ Conn, p *frame.Piece) {
				largest.Add(int64(len(p.Data)))
			}},
		})
		for _, path := range []string{"/message", "/piece", "/echo"} {
			largest.Store(0)
			c := s.openCompressed(t, path)
			if path != "/piece" { // exactly the limit is taken
				c.write(c.deflate(ws.OpBinary, make([]byte, limit), 1))
				c.inflate()
				largest.Store(0)
			}
			packed := c.deflate(ws.OpBinary, make([]byte, bomb), 1)
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			c.conn.Write(packed)
			c.judge.Resume(nil, 15)
			for {
				f := c.compressedFrame()
				if f.op != ws.OpClose {
					continue
				}
				if code, reason, err := frame.ParseClose(f.payload); code != ws.StatusMessageTooBig {
					t.Fatalf("%s: Close %d %q %v", path, code, reason, err)
				}
				break
			}
			runtime.ReadMemStats(&after)
			if n := largest.Load(); n > limit {
				t.Errorf("%s was given %d bytes", path, n)
			}
			// The joined message grows by doubling: less than twice the limit in
			// all, and a garbage generation of it.
			if grown := after.TotalAlloc - before.TotalAlloc; grown > 5*limit {
				t.Errorf("%s: %d bytes of bomb made the program allocate %d", path, len(packed), grown)
			}
			c.conn.Close()
		}
		s.waitClosed(t, ReasonTooLarge, 3)
	}
}

func TestWhatIsWrongWithACompressedMessageIsSaidAtOnce(t *testing.T) {
	z := frame.NewDeflater()
	packed := func(s string, last bool) []byte { return z.Append(nil, nil, 15, []byte(s), last) }
	bit := func(b []byte, mask byte) []byte { b[0] |= mask; return b }
	for _, c := range []struct {
		name string
		send []byte
		code ws.StatusCode
		why  Reason
	}{
		{"UTF-8, in a message that is not over", rsv1(true, false, ws.OpText, packed("good\xffbad", false)), 1007, ReasonUTF8},
		{"UTF-8 at the end", rsv1(true, true, ws.OpText, packed("good\xc3", true)), 1007, ReasonUTF8},
		{"UTF-8 across fragments", append(rsv1(true, false, ws.OpText, packed("\xe2\x82", false)), rsv1(false, true, 0, packed("\xff", true))...), 1007, ReasonUTF8},
		{"an unknown block", rsv1(true, false, ws.OpBinary, []byte{7}), 1007, ReasonInflate},
		{"lengths that do not fit", rsv1(true, false, ws.OpBinary, []byte{0, 5, 0, 5, 0}), 1007, ReasonInflate},
		{"a message that is cut off", rsv1(true, true, ws.OpBinary, []byte{0, 9, 0, 0xf6, 0xff, 'H'}), 1007, ReasonInflate},
		{"a match beyond the beginning", rsv1(true, true, ws.OpBinary, []byte{0x02, 0x13, 0, 0}), 1007, ReasonInflate},
		{"no bytes at all", rsv1(true, true, ws.OpBinary, nil), 1007, ReasonInflate}, // §7.2.3.6: at least 00
		{"RSV1 on a continuation", append(rsv1(true, false, ws.OpText, packed("a", false)), bit(masked(true, 0, packed("b", true)), 0x40)...), 1002, ReasonProtocol},
		{"RSV1 on a ping", bit(masked(true, ws.OpPing, nil), 0x40), 1002, ReasonProtocol},
		{"RSV2", bit(masked(true, ws.OpText, nil), 0x60), 1002, ReasonProtocol},
		{"a message within a message", append(rsv1(true, false, ws.OpText, packed("a", false)), rsv1(true, true, ws.OpText, packed("b", true))...), 1002, ReasonProtocol},
	} {
		for _, mode := range []Compression{CompressShared, CompressContext} {
			for _, path := range []string{"/echo", "/message", "/blocking"} {
				t.Run(fmt.Sprintf("%s %d %s", c.name, mode, path), func(t *testing.T) {
					s := serve(t, Config{Compress: mode}, compressingEndpoints)
					x := s.openCompressed(t, path)
					x.write(c.send)
					for {
						if f := x.compressedFrame(); f.op == ws.OpClose {
							if code, reason, _ := frame.ParseClose(f.payload); code != c.code {
								t.Fatalf("Close %d %q", code, reason)
							}
							break
						}
					}
					x.conn.Close()
					eventually(t, "the end is counted", func() bool { return s.Stats().Closed[c.why] == 1 })
					if n := s.Stats().Buffered; n != 0 {
						t.Errorf("%d bytes of the budget are kept", n)
					}
				})
			}
		}
	}
}

// Messages that are sent while another one is on its way in parts, and the
// windows of both sides afterwards.
func TestMessagesBetweenThePartsOfACompressedOne(t *testing.T) {
	parts := jsonText(30_000)
	send := func(c Conn, op ws.OpCode, p []byte) {
		for i := range 10 {
			c.SendPiece(op, i == 0, i == 9, parts[i*3000:][:3000])
			if i == 4 {
				c.Send(op, parts[:2000])
				c.Send(op, p)
			}
		}
		c.Send(op, parts[1000:3000])
		c.SendPiece(op, true, false, parts[:10]) // too small to begin with
		c.SendPiece(op, false, true, parts[:5000])
	}
	for _, mode := range []Compression{CompressShared, CompressContext} {
		s := serve(t, Config{Compress: mode}, map[string]*Endpoint{"/parts": {Message: send}})
		c := s.openCompressed(t, "/parts")
		for range 3 {
			c.write(c.deflate(ws.OpText, []byte("go"), 1))
			c.wantMessage(ws.OpText, parts)
			if !c.deflated || c.frames != 10 || c.wire > 12_000 {
				t.Errorf("%d bytes in %d frames, compressed %v", c.wire, c.frames, c.deflated)
			}
			c.wantMessage(ws.OpText, parts[:2000])
			if c.deflated != (mode == CompressShared) {
				t.Errorf("mode %d: compressed %v", mode, c.deflated)
			}
			c.wantMessage(ws.OpText, []byte("go"))
			c.wantMessage(ws.OpText, parts[1000:3000])
			if !c.deflated {
				t.Error("not compressed")
			}
			c.wantMessage(ws.OpText, append(bytes.Clone(parts[:10]), parts[:5000]...))
			if c.deflated {
				t.Error("compressed, though it began small")
			}
		}
	}
}

func TestTheSmallestSizeToBeCompressed(t *testing.T) {
	for _, c := range []struct{ min, size int }{{0, 256}, {1000, 1000}, {-1, 200}} {
		s := serve(t, Config{CompressMin: c.min}, compressingEndpoints)
		x := s.openCompressed(t, "/message")
		for n, want := range map[int]bool{c.size: true, c.size - 1: c.min < 0} {
			msg := bytes.Repeat([]byte("a"), n)
			x.send(ws.OpText, msg)
			if x.wantMessage(ws.OpText, msg); x.deflated != want {
				t.Errorf("least size %d: of %d bytes, compressed %v", c.min, n, x.deflated)
			}
		}
	}
}

func TestHeartBeatsAreCompressed(t *testing.T) {
	text := strings.Repeat("tick tack ", 100)
	s, err := New(Config{})
	if err != nil {
		t.Fatal(err)
	}
	ep, err := s.HeartBeat(HeartBeat{Message: text})
	if err != nil {
		t.Fatal(err)
	}
	x := serve(t, Config{}, map[string]*Endpoint{"/push": ep}).openCompressed(t, "/push")
	if x.wantMessage(ws.OpText, []byte(text)); !x.deflated {
		t.Error("not compressed")
	}
}
