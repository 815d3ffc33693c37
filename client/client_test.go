package client

import (
	"bytes"
	"compress/flate"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"wspoll/frame"
	"wspoll/handshake"

	"github.com/gobwas/ws"
)

const patience = 30 * time.Second

// scripted is a server that does talk with each connection whose request has come, and then ends TCP. answer is a good
// answer up to its last line.
func scripted(t *testing.T, talk func(c *net.TCPConn, answer string)) *Target {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				c.SetDeadline(time.Now().Add(patience))
				var head []byte
				var r handshake.Request
				for n := 0; n == 0; {
					b := make([]byte, 4096)
					m, err := c.Read(b)
					if err != nil {
						return
					}
					head = append(head, b[:m]...)
					if n, err = handshake.ParseRequest(head, nil, &r); err != nil {
						return
					}
				}
				talk(c.(*net.TCPConn), "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"+
					"Sec-WebSocket-Accept: "+string(handshake.AppendAccept(nil, r.Key))+"\r\n")
			}()
		}
	}()
	target, err := ParseTarget("ws://"+l.Addr().String()+"/", false)
	if err != nil {
		t.Fatal(err)
	}
	return target
}

func open(t *testing.T, target *Target, o Options) *Conn {
	t.Helper()
	c, err := Dial(t.Context(), target, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Release)
	return c
}

// all is what Next returns until the end, in words.
func all(c *Conn) (words []string, err error) {
	for {
		e, err := c.Next()
		if err != nil {
			return words, err
		}
		w := fmt.Sprintf("%x %.40q", byte(e.Op), e.Data)
		if e.Op == ws.OpClose {
			w += fmt.Sprint(" ", e.Code)
		}
		if e.Frames > 1 {
			w += fmt.Sprintf(" in %d", e.Frames)
		}
		if e.Compressed {
			w += " compressed"
		}
		words = append(words, w)
	}
}

func TestMessagesAndControlFramesComeInOrder(t *testing.T) {
	sent := make(chan []byte, 1)
	target := scripted(t, func(c *net.TCPConn, answer string) {
		io.WriteString(c, "HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n"+answer+"\r\n"+
			"\x81\x05Hello"+"\x01\x03Hel"+"\x89\x02hi"+"\x80\x02lo"+"\x82\x01\xff"+"\x8a\x00"+"\x88\x05\x0f\xa0bye"+"\x81\x01x")
		b, _ := io.ReadAll(c)
		sent <- b
	})
	c := open(t, target, Options{})
	words, err := all(c)
	want := `1 "Hello"|9 "hi"|1 "Hello" in 2|2 "\xff"|a ""|8 "bye" 4000`
	if got := strings.Join(words, "|"); got != want || !errors.Is(err, io.EOF) {
		t.Errorf("%s, %v; want\n%s", got, err, want)
	}
	if c.PeerCode() != 4000 || c.First() {
		t.Errorf("code %d, ours first: %v", c.PeerCode(), c.First())
	}
	// What we sent: a pong with the ping's payload, a Close with the Close's code, both masked.
	var r frame.Parser
	var p frame.Piece
	var answers []string
	for b := <-sent; len(b) > 0; {
		n, err := r.Next(&frame.Rules{}, b, &p)
		if n == 0 || err != nil {
			t.Fatal(n, err)
		}
		answers = append(answers, fmt.Sprintf("%x %q", byte(p.Op), p.Data))
		b = b[n:]
	}
	if got := strings.Join(answers, "|"); got != `a "hi"|8 "\x0f\xa0"` {
		t.Errorf("we sent %s", got)
	}
}

func TestCompressedMessagesAreInflated(t *testing.T) {
	for _, tt := range []struct{ agreed, frames, want, err string }{
		// The examples of RFC 7692 §7.2.3.
		{"permessage-deflate", "\xc1\x07\xf2\x48\xcd\xc9\xc9\x07\x00" + "\xc1\x05\xf2\x00\x11\x00\x00" + "\x88\x00", `1 "Hello" compressed|1 "Hello" compressed|8 "" 1005`, "EOF"},
		{"permessage-deflate", "\x41\x03\xf2\x48\xcd" + "\x89\x00" + "\x80\x04\xc9\xc9\x07\x00" + "\x88\x00", `9 ""|1 "Hello" in 2 compressed|8 "" 1005`, "EOF"},
		{"permessage-deflate; server_no_context_takeover", "\xc1\x07\xf2\x48\xcd\xc9\xc9\x07\x00" + "\x81\x02hi" + "\xc1\x05\xf2\x00\x11\x00\x00", `1 "Hello" compressed|1 "hi"`, "RFC 7692 §7.2.2"},
		{"permessage-deflate", "\xc1\x02\xff\xff", "", "RFC 7692 §7.2.2"},
		{"", "\xc1\x07\xf2\x48\xcd\xc9\xc9\x07\x00", "", "RFC 6455 §5.2"},
		{"permessage-deflate", "\xc1\x03\xfa\x0f\x00\x88\x00", "", "RFC 6455 §8.1"}, // 0xff, deflated
	} {
		target := scripted(t, func(c *net.TCPConn, answer string) {
			if tt.agreed != "" {
				answer += "Sec-WebSocket-Extensions: " + tt.agreed + "\r\n"
			}
			io.WriteString(c, answer+"\r\n"+tt.frames)
			io.Copy(io.Discard, c)
		})
		words, err := all(open(t, target, Options{Compress: true}))
		if got := strings.Join(words, "|"); got != tt.want || !strings.Contains(err.Error(), tt.err) {
			t.Errorf("%q %q: %s, %v; want %s, %s", tt.agreed, tt.frames, got, err, tt.want, tt.err)
		}
	}
}

// deflated is n zeros as the payload of a compressed message (RFC 7692 §7.2.1).
func deflated(t *testing.T, n int) []byte {
	t.Helper()
	var b bytes.Buffer
	w, err := flate.NewWriter(&b, flate.BestCompression)
	if err == nil {
		_, err = w.Write(make([]byte, n))
	}
	if err == nil {
		err = w.Flush()
	}
	if err != nil {
		t.Fatal(err)
	}
	return bytes.TrimSuffix(b.Bytes(), []byte{0, 0, 0xff, 0xff})
}

func TestAMessageIsBoundedAlsoAfterInflating(t *testing.T) {
	body := deflated(t, 1<<20)
	target := scripted(t, func(c *net.TCPConn, answer string) {
		io.WriteString(c, answer+"Sec-WebSocket-Extensions: permessage-deflate\r\n\r\n")
		c.Write(frame.AppendHeader(nil, ws.Header{Fin: true, Rsv: 4, OpCode: ws.OpBinary, Length: int64(len(body))}))
		c.Write(body)
		c.Write(frame.AppendClose(nil, 1000, ""))
		io.Copy(io.Discard, c)
	})
	_, err := all(open(t, target, Options{Compress: true, MaxMessage: 100_000}))
	if !errors.Is(err, frame.ErrTooLarge) {
		t.Errorf("%v, want %v", err, frame.ErrTooLarge)
	}
	words, err := all(open(t, target, Options{Compress: true, MaxMessage: 1 << 20}))
	if len(words) != 2 || !errors.Is(err, io.EOF) {
		t.Errorf("%q, %v", words, err)
	}
}

func TestBothSidesMaySendMuchAtATime(t *testing.T) {
	// A server that writes all it has to say before it reads, as many echoes do for the size of their buffers.
	const n, size = 64, 1 << 20
	target := scripted(t, func(c *net.TCPConn, answer string) {
		io.WriteString(c, answer+"\r\n")
		for range n {
			c.Write(frame.AppendFrame(nil, true, ws.OpBinary, make([]byte, size)))
		}
		io.CopyN(io.Discard, c, n*(size+14))
		c.Write(frame.AppendClose(nil, 1000, ""))
		io.Copy(io.Discard, c)
	})
	c := open(t, target, Options{Timeout: patience})
	sent := make(chan error, 1)
	go func() {
		for range n {
			if err := c.Send(ws.OpBinary, make([]byte, size)); err != nil {
				sent <- err
				return
			}
		}
		sent <- nil
	}()
	words, err := all(c)
	if len(words) != n+1 || !errors.Is(err, io.EOF) {
		t.Errorf("%d messages, %v", len(words), err)
	}
	if err := <-sent; err != nil {
		t.Error(err)
	}
}

func TestHowAConnectionEnds(t *testing.T) {
	for _, tt := range []struct {
		name string
		talk func(c *net.TCPConn)
		ours bool // we close
		want string
	}{
		{"FIN", func(*net.TCPConn) {}, false, "ended TCP without a Close"},
		{"FIN in a frame", func(c *net.TCPConn) { io.WriteString(c, "\x81\x05Hel") }, false, "in the middle of a message"},
		{"FIN in a header", func(c *net.TCPConn) { io.WriteString(c, "\x81") }, false, "in the middle of a message"},
		{"FIN between fragments", func(c *net.TCPConn) { io.WriteString(c, "\x01\x01x") }, false, "in the middle of a message"},
		{"RST", func(c *net.TCPConn) { c.SetLinger(0) }, false, "connection reset"},
		{"Close", func(c *net.TCPConn) { io.WriteString(c, "\x88\x02\x03\xe9"); io.Copy(io.Discard, c) }, false, "EOF"},
		{"Close and a RST", func(c *net.TCPConn) { io.WriteString(c, "\x88\x02\x03\xe9"); c.SetLinger(0) }, false, "EOF"},
		{"Close and no FIN", func(c *net.TCPConn) { io.WriteString(c, "\x88\x02\x03\xe9"); io.Copy(io.Discard, c) }, false, "EOF"},
		{"our Close without an answer", func(c *net.TCPConn) { io.Copy(io.Discard, c) }, true, "did not answer our Close (RFC 6455 §5.5.1) within 300ms"},
		{"our Close answered by FIN", func(c *net.TCPConn) { io.ReadFull(c, make([]byte, 8)) }, true, "did not answer our Close (RFC 6455 §5.5.1) and ended TCP"},
		{"masked", func(c *net.TCPConn) { io.WriteString(c, "\x81\x80\x00\x00\x00\x00"); io.Copy(io.Discard, c) }, false, "RFC 6455 §5.1: frame from a server is masked"},
		{"Close with a bad code", func(c *net.TCPConn) { io.WriteString(c, "\x88\x02\x03\xed"); io.Copy(io.Discard, c) }, false, "RFC 6455 §7.4"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := open(t, scripted(t, func(c *net.TCPConn, answer string) {
				io.WriteString(c, answer+"\r\n")
				tt.talk(c)
			}), Options{Timeout: 300 * time.Millisecond})
			if tt.ours && (!c.Close(1000, "") || c.Close(1000, "") || !c.First()) {
				t.Error("a Close is sent once")
			}
			if _, err := all(c); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("%v, want %q", err, tt.want)
			}
			if tt.ours && !errors.Is(c.Send(ws.OpText, nil), ErrClosing) {
				t.Error("a message goes behind a Close")
			}
		})
	}
}

func TestABrokenRuleIsToldToTheServer(t *testing.T) {
	got := make(chan []byte, 1)
	c := open(t, scripted(t, func(c *net.TCPConn, answer string) {
		io.WriteString(c, answer+"\r\n\x81\x80\x00\x00\x00\x00")
		b, _ := io.ReadAll(c)
		got <- b
	}), Options{})
	c.Next()
	b := <-got
	var r frame.Parser
	var p frame.Piece
	if n, err := r.Next(&frame.Rules{}, b, &p); n != len(b) || err != nil || p.Op != ws.OpClose || !bytes.HasPrefix(p.Data, []byte("\x03\xea")) {
		t.Errorf("%x, %d, %v", b, n, err)
	}
}

func TestAServerThatDoesNotReadIsGivenUp(t *testing.T) {
	done := make(chan struct{})
	defer close(done)
	c := open(t, scripted(t, func(c *net.TCPConn, answer string) {
		io.WriteString(c, answer+"\r\n")
		<-done
	}), Options{Timeout: 300 * time.Millisecond})
	go func() {
		for c.Send(ws.OpBinary, make([]byte, 1<<20)) == nil {
		}
	}()
	if _, err := c.Next(); !errors.Is(err, os.ErrDeadlineExceeded) || !strings.Contains(err.Error(), "does not read") {
		t.Errorf("%v", err)
	}
}

func TestAFloodOfPingsIsBounded(t *testing.T) {
	// Pings come and pongs are not read: then no more pings are taken.
	wrote := make(chan int, 1)
	c := open(t, scripted(t, func(c *net.TCPConn, answer string) {
		io.WriteString(c, answer+"\r\n")
		flood := bytes.Repeat([]byte("\x89\x7d"+strings.Repeat("x", 125)), 500)
		total := 0
		for {
			n, err := c.Write(flood)
			if total += n; err != nil {
				wrote <- total
				return
			}
		}
	}), Options{Timeout: 500 * time.Millisecond})
	_, err := all(c)
	if !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("%v", err)
	}
	c.mu.Lock()
	if len(c.out) > maxOut+bufferSize*2 {
		t.Errorf("%d bytes wait", len(c.out))
	}
	c.mu.Unlock()
	c.Release()
	if n := <-wrote; n > 256<<20 {
		t.Errorf("%d bytes were taken", n)
	}
}

func TestWhatMayNotBeSentIsRefused(t *testing.T) {
	c := open(t, scripted(t, func(c *net.TCPConn, answer string) {
		io.WriteString(c, answer+"\r\n")
		io.Copy(io.Discard, c)
	}), Options{})
	if err := c.Send(ws.OpText, []byte("\xff")); err == nil || !strings.Contains(err.Error(), "§5.6") {
		t.Error(err)
	}
	if err := c.Send(ws.OpPing, make([]byte, 126)); err == nil || !strings.Contains(err.Error(), "§5.5") {
		t.Error(err)
	}
}

func TestAnAnswerThatDoesNotOpenIsAnError(t *testing.T) {
	endless := func(c *net.TCPConn, _ string) {
		io.WriteString(c, "HTTP/1.1 101 Switching Protocols\r\n")
		for {
			if _, err := io.WriteString(c, "X-Filler: "+strings.Repeat("x", 1000)+"\r\n"); err != nil {
				return
			}
		}
	}
	for name, tt := range map[string]struct {
		talk func(c *net.TCPConn, answer string)
		want string
	}{
		"nothing":         {func(*net.TCPConn, string) {}, "ended TCP without a whole answer"},
		"silence":         {func(c *net.TCPConn, _ string) { io.Copy(io.Discard, c) }, "no answer to the handshake within 300ms"},
		"no HTTP":         {func(c *net.TCPConn, _ string) { io.WriteString(c, "SSH-2.0-x\r\n"); io.Copy(io.Discard, c) }, "not HTTP/1.1"},
		"an endless head": {endless, "the head is too large (RFC 6455 §10.4)"},
		"endless 100s": {func(c *net.TCPConn, _ string) {
			c.Write(bytes.Repeat([]byte("HTTP/1.1 100 Continue\r\n\r\n"), 8000))
			io.Copy(io.Discard, c)
		}, "interim answers without an end"},
		"a wrong accept": {func(c *net.TCPConn, a string) { io.WriteString(c, a[:len(a)-4]+"x\r\n\r\n"); io.Copy(io.Discard, c) }, "where the key asks for"},
		"two accepts": {func(c *net.TCPConn, a string) {
			io.WriteString(c, a+"Sec-WebSocket-Accept: x\r\n\r\n")
			io.Copy(io.Discard, c)
		}, "more than once"},
		"another protocol": {func(c *net.TCPConn, a string) {
			io.WriteString(c, a+"Sec-WebSocket-Protocol: x\r\n\r\n")
			io.Copy(io.Discard, c)
		}, `the subprotocol "x", which was not offered`},
		"another extension": {func(c *net.TCPConn, a string) {
			io.WriteString(c, a+"Sec-WebSocket-Extensions: permessage-deflate\r\n\r\n")
			io.Copy(io.Discard, c)
		}, "which was not offered"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := Dial(t.Context(), scripted(t, tt.talk), Options{Timeout: 300 * time.Millisecond})
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("%v, want %q", err, tt.want)
			}
		})
	}
}

func TestARefusalHasItsStatusAndBody(t *testing.T) {
	for _, tt := range []struct {
		answer string
		want   RefusedError
	}{
		{"HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nnoxx", RefusedError{403, "Forbidden", "", []byte("no")}},
		{"HTTP/1.1 301 Moved\r\nLocation: /there\r\nContent-Length: 0\r\n\r\n", RefusedError{301, "Moved", "/there", []byte{}}},
		{"HTTP/1.1 500 \r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n", RefusedError{500, "", "", []byte("abc")}},
		{"HTTP/1.0 200 OK\r\n\r\n" + strings.Repeat("x", 100_000), RefusedError{200, "OK", "", bytes.Repeat([]byte("x"), MaxBody)}},
		{"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 404 Not Found\r\nContent-Length: 100\r\n\r\nonly this", RefusedError{404, "Not Found", "", []byte("only this")}},
	} {
		_, err := Dial(t.Context(), scripted(t, func(c *net.TCPConn, _ string) { io.WriteString(c, tt.answer) }), Options{Timeout: 300 * time.Millisecond})
		var got *RefusedError
		if !errors.As(err, &got) || got.Status != tt.want.Status || got.Reason != tt.want.Reason || got.Location != tt.want.Location || !bytes.Equal(got.Body, tt.want.Body) {
			t.Errorf("%.60q: %v, %+v", tt.answer, err, got)
		}
	}
}

func TestADialEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	asked := make(chan struct{})
	target := scripted(t, func(c *net.TCPConn, _ string) {
		close(asked)
		io.Copy(io.Discard, c)
	})
	go func() {
		<-asked
		cancel()
	}()
	if _, err := Dial(ctx, target, Options{}); !errors.Is(err, context.Canceled) {
		t.Errorf("%v", err)
	}
}

func TestADeclaredLengthAllocatesNothing(t *testing.T) {
	for _, head := range []string{"\x82\x7f\x7f\xff\xff\xff\xff\xff\xff\xff", "\x82\x7f\x80\x00\x00\x00\x00\x00\x00\x00"} {
		c := open(t, scripted(t, func(c *net.TCPConn, answer string) {
			io.WriteString(c, answer+"\r\n"+head+"some")
		}), Options{})
		if _, err := c.Next(); err == nil || cap(c.joiner.Buf) > 4096 {
			t.Errorf("%v, %d bytes kept", err, cap(c.joiner.Buf))
		}
	}
}
