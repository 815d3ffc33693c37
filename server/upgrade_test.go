package server

import (
	"bytes"
	"context"
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"testing"
	"time"

	"wspoll/handshake"

	"github.com/gobwas/ws"
)

// foreign is somebody's own net/http server that has ours mounted.
func foreign(t *testing.T, cfg Config) (s *testServer, std *httptest.Server) {
	t.Helper()
	s = serve(t, cfg, nil)
	std = httptest.NewServer(s)
	t.Cleanup(std.Close)
	return s, std
}

func dialTo(t *testing.T, std *httptest.Server) net.Conn {
	t.Helper()
	c, err := net.Dial("tcp", std.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(patience))
	return c
}

func TestUpgradeTakesAConnectionOutOfNetHTTP(t *testing.T) {
	s, std := foreign(t, Config{Loops: 2})
	check := s.calm(t)
	for _, first := range [][]byte{nil, []byte("glued"), bytes.Repeat([]byte("x"), 3000), bytes.Repeat([]byte("x"), 100_000)} {
		h := hello("/echo?a=b")
		var frames []byte
		if first != nil {
			frames = masked(true, ws.OpText, first)
		}
		conn := dialTo(t, std)
		c := join(t, conn, h, frames)
		if first != nil {
			if _, got := c.message(); !bytes.Equal(got, first) {
				t.Errorf("%d bytes came back of %d", len(got), len(first))
			}
		}
		c.echoes(ws.OpBinary, make([]byte, 70_000))
		c.close(1000)
		c.wantClose(1000)
		c.wantEnd()
		conn.Close()
	}
	s.waitClosed(t, ReasonPeerClosed, 4)
	check()
}

// A peer that has said all it had to say before the loop has the connection.
func TestUpgradeWithFramesAndFINGluedToTheRequest(t *testing.T) {
	_, std := foreign(t, Config{})
	for range 50 {
		conn := dialTo(t, std)
		h := hello("/echo")
		conn.Write(append(handshake.AppendRequest(nil, h), masked(true, ws.OpText, []byte("all"))...))
		conn.(*net.TCPConn).CloseWrite()
		c := &client{t: t, conn: conn}
		if err := c.fill(); err == io.EOF {
			continue // net/http may notice the FIN first and give up
		}
		c.accepted(h)
		if _, got := c.message(); string(got) != "all" {
			t.Fatalf("%q", got)
		}
		c.wantEnd()
	}
}

func TestUpgradeRefusesWithTheRightStatus(t *testing.T) {
	_, std := foreign(t, Config{})
	for _, tt := range []struct {
		name, request string
		status        int
		says, header  string
	}{
		{"unknown path", request("/nothing"), 404, "no WebSocket service", ""},
		{"plain GET", "GET /echo HTTP/1.1\r\nHost: a\r\n\r\n", 426, "WebSocket client", "Upgrade: websocket"},
		{"POST", strings.Replace(request("/echo"), "GET", "POST", 1), 405, "GET", "Allow: GET"},
		{"version", request("/echo", "Sec-WebSocket-Version: 8"), 426, "only 13", "Sec-WebSocket-Version: 13"},
		{"key", request("/echo", "Sec-WebSocket-Key: short"), 400, "16 bytes", ""},
		{"two keys", request("/echo", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="), 400, "more than one", ""},
		{"origin", request("/echo", "Origin: https://evil.example"), 403, "may not connect", ""},
		{"body", request("/echo", "Content-Length: 2") + "hi", 400, "no body", ""},
		{"chunked body", request("/echo", "Transfer-Encoding: chunked") + "0\r\n\r\n", 400, "no body", ""},
		{"HTTP/1.0", strings.Replace(request("/echo"), "HTTP/1.1", "HTTP/1.0", 1), 505, "HTTP/1.1", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := dialTo(t, std)
			io.WriteString(c, tt.request)
			raw := rawAnswer(t, c)
			r, body := parseAnswer(t, raw)
			checkRefusal(t, r, body, tt.status, tt.says)
			if name, value, _ := strings.Cut(tt.header, ": "); name != "" && r.Header.Get(name) != value {
				t.Errorf("%s: %q, want %q", name, r.Header.Get(name), value)
			}
			// RFC 9110 §7.8: who sends Upgrade sends it as a connection option.
			if r.Header.Get("Upgrade") != "" && !regexp.MustCompile(`(?m)^Connection: .*Upgrade`).Match(raw) {
				t.Errorf("Upgrade without its connection option: %s", raw)
			}
		})
	}
}

func TestUpgradeOverTLSIsRefusedWith501(t *testing.T) {
	s := serve(t, Config{}, nil)
	std := httptest.NewTLSServer(s)
	t.Cleanup(std.Close)
	c := tls.Client(dialTo(t, std), &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"http/1.1"}})
	io.WriteString(c, request("/echo"))
	r, body := readAnswer(t, c)
	checkRefusal(t, r, body, 501, "only plain TCP")
}

func TestUpgradeByHandlersThatCannotBeHijackedIsRefused(t *testing.T) {
	s := serve(t, Config{}, nil)
	w := httptest.NewRecorder() // no Hijacker
	r := httptest.NewRequest("GET", "/echo", nil)
	r.Header = http.Header{
		"Upgrade": {"websocket"}, "Connection": {"Upgrade"},
		"Sec-Websocket-Version": {"13"}, "Sec-Websocket-Key": {"dGhlIHNhbXBsZSBub25jZQ=="},
	}
	if err := s.Upgrade(w, r); err == nil || w.Code != 505 {
		t.Errorf("%d %q, error %v", w.Code, w.Body, err)
	}
}

func TestUpgradeBeforeStartAndAfterShutdownIs503(t *testing.T) {
	s, err := New(Config{})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Handle("/echo", Echo()); err != nil {
		t.Fatal(err)
	}
	std := httptest.NewServer(s)
	t.Cleanup(std.Close)
	ask := func(says string) {
		t.Helper()
		c := dialTo(t, std)
		io.WriteString(c, request("/echo"))
		r, body := readAnswer(t, c)
		checkRefusal(t, r, body, 503, says)
	}
	ask("has not been started")
	s.Start()
	join(t, dialTo(t, std), hello("/echo"), nil).echoes(ws.OpText, []byte("now it has"))
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	s.Shutdown(ctx)
	ask("shutting down")
}

func TestUpgradeHeedsMaxConnections(t *testing.T) {
	s, std := foreign(t, Config{MaxConnections: 1})
	c := join(t, dialTo(t, std), hello("/echo"), nil)
	second := dialTo(t, std)
	io.WriteString(second, request("/echo"))
	r, body := readAnswer(t, second)
	checkRefusal(t, r, body, 503, "as many connections")
	c.echoes(ws.OpText, []byte("still here"))
	c.close(1000)
	c.wantClose(1000)
	c.wantEnd()
	s.waitClosed(t, ReasonPeerClosed, 1)
	// One that net/http got from us is counted already.
	kept := s.dial(t)
	h := hello("/echo")
	io.WriteString(kept, "GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n")
	kept.Write(handshake.AppendRequest(nil, h))
	b, got := make([]byte, 4096), ""
	for !strings.Contains(got, "101 Switching") {
		n, err := kept.Read(b)
		if err != nil {
			t.Fatalf("%v after %q", err, got)
		}
		got += string(b[:n])
	}
}
