package server

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
	"time"

	"wspoll/frame"

	"github.com/gobwas/ws"
)

// FuzzServerBytes sends arbitrary bytes into a connection, behind a handshake
// and without one, whole and cut in chunks, and looks at all that comes out:
// the server goes on, what follows a 101 is frames that a server may send, it
// is no more than maxOutput says, and the cuts make no difference. The socket
// keeps the bounds of writes, so a chunk is what the server reads at once.
func FuzzServerBytes(f *testing.F) {
	add := func(frames ...[]byte) {
		b := bytes.Join(frames, nil)
		f.Add(b, uint8(0), true)
		f.Add(b, uint8(3), true)
	}
	add(masked(true, ws.OpText, []byte("hello")))
	add(masked(false, ws.OpText, []byte("gr\xc3")), masked(true, ws.OpPing, []byte("x")), masked(true, ws.OpContinuation, []byte("\xbcn")))
	add(masked(true, ws.OpBinary, make([]byte, 70_000)))
	add(masked(true, ws.OpText, []byte("\xff")))
	add(masked(true, ws.OpText, []byte("ok")), frame.AppendMaskedClose(nil, [4]byte{1}, 1000, "bye"), masked(true, ws.OpText, []byte("late")))
	add(frame.AppendHeader(nil, ws.Header{Fin: true, OpCode: ws.OpBinary, Masked: true, Length: 1<<63 - 1}), make([]byte, 100))
	add(bytes.Repeat(masked(true, ws.OpPing, nil), 100))
	add([]byte{0x81, 0x05, 'h', 'e', 'l', 'l', 'o'}, []byte{0xff, 0xff, 0xff})
	for _, r := range []string{
		request("/echo"), request("/echo", "Origin: https://evil.example"), request("/none"), request("/echo", "Upgrade:"),
		"GET / HTTP/1.1\r\nHost: a\r\n\r\nGET /healthz HTTP/1.1\r\nHost: a\r\n\r\n", "\x16\x03\x01", "GET", "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nhi",
	} {
		f.Add([]byte(r), uint8(0), false)
		f.Add([]byte(r+string(masked(true, ws.OpText, []byte("hello")))), uint8(7), false)
	}
	s := serve(f, Config{MaxMessage: 1 << 20, CloseTimeout: 5 * time.Second}, map[string]*Endpoint{
		"/join": {Message: func(c Conn, op ws.OpCode, p []byte) { c.Send(op, p) }},
	})
	f.Fuzz(func(t *testing.T, b []byte, chunk uint8, opened bool) {
		if len(b) > 100_000 {
			b = b[:100_000] // no more than the kernel takes at once, so that nothing depends on time
		}
		size := int(chunk) + 1
		for _, path := range []string{"/echo", "/join"} {
			in, head := b, 0
			if opened {
				in = append([]byte(request(path)), b...)
				head = len(in) - len(b)
			} else if path == "/join" {
				in = bytes.ReplaceAll(b, []byte("/echo"), []byte("/join"))
			}
			whole := s.exchange(t, in, 60_000)
			cut := s.exchange(t, in, max(size, len(in)/200)) // 200 chunks are enough, and fit
			for _, out := range [][]byte{whole, cut} {
				if limit := maxOutput(len(in), 201); bytes.HasPrefix(out, []byte("HTTP/1.1 101 ")) && len(out) > limit {
					t.Fatalf("%d bytes made %d, more than %d", len(in), len(out), limit)
				}
			}
			a, b := normalize(t, whole), normalize(t, cut)
			if a != b && (opened || !strings.HasPrefix(a, "HTTP/1.1 200")) {
				t.Fatalf("the cuts (%d bytes, %d of head) make a difference:\n%.2000s\nwhole, and cut:\n%.2000s", size, head, a, b)
			}
		}
	})
}

// maxOutput bounds what a WebSocket connection gets for n bytes in so many
// reads. The answer to the handshake has 129 bytes, the last Close at most 127.
// An echoed frame is 4 bytes shorter than what it answers, since it has no mask;
// a read that ends in a frame cuts its echo in two, which costs a header of at
// most 10 bytes and may have the first one longer than it was. A pong is
// shorter than its ping.
func maxOutput(n, reads int) int { return 129 + n + 20*reads + 127 }

// exchange sends in, in chunks, then FIN, and gives all that comes back.
func (s *testServer) exchange(t *testing.T, in []byte, chunk int) []byte {
	t.Helper()
	conn := s.packets(t).(packetConn)
	defer conn.Close()
	out := make(chan []byte, 1)
	go func() {
		var all bytes.Buffer
		b := make([]byte, 256<<10)
		for {
			n, err := conn.Read(b)
			all.Write(b[:n])
			if isReset(err) {
				continue // the server did not read all: what it said before comes now
			}
			if err != nil {
				break
			}
		}
		out <- all.Bytes()
	}()
	for len(in) > 0 {
		n := min(chunk, len(in))
		if _, err := conn.Write(in[:n]); err != nil {
			break // the server has closed
		}
		in = in[n:]
	}
	conn.CloseWrite()
	return receive(t, "the server ends the connection", out)
}

// normalize is what must not depend on the cuts: the head without its date,
// whole messages, control frames, and where between them they stand.
func normalize(t *testing.T, out []byte) string {
	t.Helper()
	head, rest, ok := bytes.Cut(out, []byte("\r\n\r\n"))
	if !ok {
		if len(out) > 0 {
			t.Fatalf("the answer is no HTTP: %q", out)
		}
		return ""
	}
	if !bytes.HasPrefix(head, []byte("HTTP/1.1 101 ")) {
		status, _, _ := bytes.Cut(head, []byte("\r\n"))
		if !bytes.HasPrefix(status, []byte("HTTP/1.")) {
			t.Fatalf("the answer is no HTTP: %q", out)
		}
		return string(status) + "\n"
	}
	got := new(strings.Builder)
	fmt.Fprintf(got, "%s\n", head)
	var p frame.Piece
	var parser frame.Parser
	var message []byte
	closed := false
	for len(rest) > 0 {
		n, err := parser.Next(&clientRules, rest, &p)
		if err != nil {
			t.Fatalf("behind the 101 stands what is no frame of a server, error %v: %q", err, rest)
		}
		rest = rest[n:]
		if closed {
			t.Fatalf("something stands behind the Close: %+v", p)
		}
		switch {
		case p.Op == ws.OpClose:
			if _, _, err := frame.ParseClose(p.Data); err != nil {
				t.Fatal(err)
			}
			closed = true
			fmt.Fprintf(got, "close %q\n", p.Data)
		case p.Op.IsControl():
			fmt.Fprintf(got, "%#x %q\n", p.Op, p.Data)
		default:
			if message = append(message, p.Data...); p.Last {
				fmt.Fprintf(got, "%#x %q\n", p.Op, message)
				message = nil
			}
		}
	}
	if parser.MidFrame() {
		t.Fatal("the output ends in the middle of a frame")
	}
	return got.String()
}
