package server

import (
	"bytes"
	"io"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync"
	"testing"

	"wspoll/epoll"
	"wspoll/frame"
	"wspoll/handshake"

	"github.com/gobwas/ws"
)

// kept is a Tap that keeps everything.
type kept struct {
	mu      sync.Mutex
	in, out []byte
	done    chan struct{}
}

func newKept() *kept { return &kept{done: make(chan struct{})} }

func (k *kept) Bytes(out bool, b []byte) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if out {
		k.out = append(k.out, b...)
	} else {
		k.in = append(k.in, b...)
	}
}

func (k *kept) End() { close(k.done) }

// wireOf is what a client sends in these tests, whole, with a Close at its end.
func wireOf(path string, r *rand.Rand) []byte {
	b := []byte("GET " + path + " HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nCookie: a=b\r\n" +
		"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n")
	for range 20 {
		payload := bytes.Repeat([]byte{'x'}, r.IntN(1+r.IntN(60_000)))
		b = frame.AppendMasked(b, true, ws.OpBinary, [4]byte{1, 2, 3, byte(r.Uint32())}, payload)
	}
	return frame.AppendMasked(b, true, ws.OpClose, [4]byte{9, 8, 7, 6}, []byte("\x03\xe8bye"))
}

// TestTapsSeeEachByteOfTheSocketOnce: those of Config.Trace and of Conn.Tap, with what the client sends cut at random, and with the
// request and the first frames in one packet.
func TestTapsSeeEachByteOfTheSocketOnce(t *testing.T) {
	for seed := range uint64(12) {
		trace, tap := newKept(), newKept()
		var peer netip.AddrPort
		ep := Echo()
		ep.Open = func(c Conn) { c.Tap(tap) }
		s := serve(t, Config{Trace: func(p netip.AddrPort) epoll.Tap { peer = p; return trace }}, map[string]*Endpoint{"/tapped": ep})
		conn := s.dial(t)
		r := rand.New(rand.NewPCG(seed, 4))
		sent := wireOf("/tapped", r)
		answered := make(chan []byte)
		go func() {
			b, _ := io.ReadAll(conn)
			answered <- b
		}()
		most := len(sent)
		if seed > 0 {
			most = 1 + r.IntN(5000)
		}
		for rest := sent; len(rest) > 0; {
			n := min(len(rest), 1+r.IntN(most))
			if seed == 0 {
				n = len(rest)
			}
			if _, err := conn.Write(rest[:n]); err != nil {
				t.Fatal(err)
			}
			rest = rest[n:]
		}
		got := <-answered
		<-trace.done
		<-tap.done
		for name, k := range map[string]*kept{"Trace": trace, "Tap": tap} {
			if !bytes.Equal(k.in, sent) {
				t.Fatalf("seed %d, %s: %d bytes came in, %d were sent", seed, name, len(k.in), len(sent))
			}
			if !bytes.Equal(k.out, got) {
				t.Fatalf("seed %d, %s: %d bytes went out, %d arrived", seed, name, len(k.out), len(got))
			}
		}
		if peer.String() != conn.LocalAddr().String() {
			t.Errorf("the peer is %v, want %v", peer, conn.LocalAddr())
		}
	}
}

func TestTracePathChoosesConnections(t *testing.T) {
	for path, wanted := range map[string]bool{"/echo": true, "/other": false, "/nothing": false} {
		trace := newKept()
		s := serve(t, Config{
			Trace:     func(netip.AddrPort) epoll.Tap { return trace },
			TracePath: func(p []byte) bool { return string(p) == "/echo" },
		}, map[string]*Endpoint{"/other": Echo()})
		conn := s.dial(t)
		conn.Write(wireOf(path, rand.New(rand.NewPCG(1, 1))))
		io.ReadAll(conn)
		<-trace.done
		if got := len(trace.out) > 0; got != wanted {
			t.Errorf("%s: %d bytes out were seen", path, len(trace.out))
		}
	}
}

// What was refused is what one wants to see most.
func TestTraceSeesRefusals(t *testing.T) {
	trace := newKept()
	s := serve(t, Config{Trace: func(netip.AddrPort) epoll.Tap { return trace }}, nil)
	conn := s.dial(t)
	const bad = "GET /echo HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 12\r\n\r\n"
	io.WriteString(conn, bad)
	got, _ := io.ReadAll(conn)
	conn.Close()
	<-trace.done
	if string(trace.in) != bad || !bytes.Equal(trace.out, got) || len(got) == 0 {
		t.Errorf("%q and %q, the client has %q", trace.in, trace.out, got)
	}
}

// A connection that net/http had first begins with its request as net/http gives it.
func TestTapsSeeConnectionsThatComeFromNetHTTP(t *testing.T) {
	trace, tap := newKept(), newKept()
	ep := Echo()
	ep.Open = func(c Conn) { c.Tap(tap) }
	s := serve(t, Config{Trace: func(netip.AddrPort) epoll.Tap { return trace }}, map[string]*Endpoint{"/tapped": ep})
	std := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { s.Upgrade(w, r) }))
	defer std.Close()
	u := &testServer{Server: s.Server, addr: std.Listener.Addr().String()}
	conn := u.dial(t)
	sent := wireOf("/tapped", rand.New(rand.NewPCG(2, 2)))
	go conn.Write(sent)
	got, _ := io.ReadAll(conn)
	<-trace.done
	<-tap.done
	head := bytes.Index(sent, []byte("\r\n\r\n")) + 4
	for name, k := range map[string]*kept{"Trace": trace, "Tap": tap} {
		n := bytes.Index(k.in, []byte("\r\n\r\n")) + 4
		if n != head || !bytes.Equal(k.in[n:], sent[head:]) || !strings.Contains(string(k.in[:n]), "Cookie: a=b\r\n") {
			t.Errorf("%s: %d bytes came in, %d were sent", name, len(k.in), len(sent))
		}
		if !bytes.Equal(k.out, got) {
			t.Errorf("%s: %d bytes went out, %d arrived", name, len(k.out), len(got))
		}
	}
}

func TestAnEndpointMayDoWithoutCompression(t *testing.T) {
	plain := Echo()
	plain.Uncompressed = func(r *handshake.Request) bool { return len(r.Query) == 0 }
	s := serve(t, Config{Handshake: handshake.Options{Deflate: &handshake.DeflateOptions{}}}, map[string]*Endpoint{"/plain": plain})
	for path, agreed := range map[string]bool{"/echo": true, "/plain": false, "/plain?compress": true} {
		r, _ := s.answer(t, "GET "+path+" HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Extensions: permessage-deflate\r\n"+
			"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"+string(frame.AppendMasked(nil, true, ws.OpClose, [4]byte{1}, nil)))
		if got := r.Header.Get("Sec-WebSocket-Extensions") != ""; r.StatusCode != 101 || got != agreed {
			t.Errorf("%s: %s, %v", path, r.Status, r.Header)
		}
	}
}
