package server

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"wspoll/handshake"

	"github.com/gobwas/ws"
)

// tlsConfigs are those of a server and of clients that trust it.
var tlsConfigs = sync.OnceValues(func() (server, client *tls.Config) {
	srv := httptest.NewTLSServer(nil)
	srv.Close()
	pool := x509.NewCertPool()
	pool.AddCert(srv.Certificate())
	return &tls.Config{Certificates: srv.TLS.Certificates}, &tls.Config{RootCAs: pool, ServerName: "127.0.0.1"}
})

// serveTLS is serve with an address for TLS, which is the one of s, beside the plain one.
func serveTLS(t testing.TB, cfg Config, more map[string]*Endpoint) (s *testServer, plain string) {
	t.Helper()
	cfg.TLS, _ = tlsConfigs()
	s = serve(t, cfg, more)
	plain = s.addr
	addr, err := s.ListenTLS("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s.addr = addr.String()
	return s, plain
}

func (s *testServer) dialTLS(t testing.TB, version uint16) *tls.Conn {
	t.Helper()
	_, cfg := tlsConfigs()
	cfg = cfg.Clone()
	cfg.MinVersion, cfg.MaxVersion = version, version
	cfg.NextProtos = []string{"h2", "http/1.1"}
	return tls.Client(s.dial(t), cfg)
}

func TestWebSocketOverTLS(t *testing.T) {
	agreed := make(chan *tls.ConnectionState, 1)
	s, plain := serveTLS(t, Config{}, map[string]*Endpoint{"/state": {Open: func(c Conn) { agreed <- c.TLS() }}})
	for _, version := range []uint16{tls.VersionTLS12, tls.VersionTLS13} {
		join(t, s.dialTLS(t, version), hello("/state"), nil)
		if st := receive(t, "the state", agreed); st == nil || st.Version != version || !st.HandshakeComplete {
			t.Errorf("%+v, want version %#x", st, version)
		}
		conn := s.dialTLS(t, version)
		c := join(t, conn, hello("/echo"), masked(true, ws.OpText, []byte("glued to the request")))
		if p := conn.ConnectionState().NegotiatedProtocol; p != "http/1.1" {
			t.Errorf("protocol %q", p)
		}
		if _, got := c.message(); string(got) != "glued to the request" {
			t.Errorf("%q", got)
		}
		for _, n := range []int{0, 125, 126, 16 << 10, 65536, 3 << 20} {
			c.echoes(ws.OpBinary, bytes.Repeat([]byte{7}, n))
		}
		c.send(ws.OpPing, []byte("p"))
		if f := c.frame(); f.op != ws.OpPong || string(f.payload) != "p" {
			t.Errorf("%+v", f)
		}
		c.close(1000)
		c.wantClose(1000)
		c.wantEnd() // by close_notify, else it were an unexpected EOF
	}
	s.waitClosed(t, ReasonPeerClosed, 2)
	s.addr = plain
	s.open(t, "/state")
	if st := receive(t, "the state", agreed); st != nil {
		t.Errorf("a plain connection has %+v", st)
	}
}

func TestReasonsOverTLS(t *testing.T) {
	var log lockedLog
	s, _ := serveTLS(t, Config{Log: log.logger(), HandshakeTimeout: 100 * time.Millisecond, MaxConnections: 3}, nil)
	end := func(c net.Conn) string {
		t.Helper()
		b, err := io.ReadAll(c)
		if err != nil {
			t.Errorf("read %v", err)
		}
		return string(b)
	}
	c := s.dial(t)
	io.WriteString(c, "GET /echo HTTP/1.1\r\nHost: a\r\n\r\n")
	if got := end(c); !strings.HasPrefix(got, "HTTP/1.1 400 ") || !strings.Contains(got, "wss://") {
		t.Errorf("plain HTTP is answered %q", got)
	}
	c.Close()
	s.waitClosed(t, ReasonTLS, 1)
	if !strings.Contains(log.String(), "first record does not look like a TLS handshake") {
		t.Errorf("the log does not say why: %s", log.String())
	}

	c = s.dial(t) // silent
	if got := end(c); got != "" {
		t.Errorf("silence is answered %q", got)
	}
	s.waitClosed(t, ReasonHandshake, 1)
	c = s.dial(t)
	io.WriteString(c, "\x16\x03\x01\x02\x00\x01") // and one that stops in the middle of its first record
	if got := end(c); got != "" {
		t.Errorf("half a record is answered %q", got)
	}
	s.waitClosed(t, ReasonHandshake, 2)
	slow := s.dialTLS(t, tls.VersionTLS13)
	io.WriteString(slow, "GET /echo HT") // inside of TLS, where an answer can be sent
	if got := end(slow); !strings.HasPrefix(got, "HTTP/1.1 408 ") {
		t.Errorf("half a request is answered %q", got)
	}
	s.waitClosed(t, ReasonHandshake, 3)
	c.Close()
	slow.Close()
	eventually(t, "all have ended", func() bool { return s.Stats().Connections == 0 })

	var open []*client
	for range 3 {
		open = append(open, join(t, s.dialTLS(t, tls.VersionTLS13), hello("/echo"), nil))
	}
	if got := end(s.dial(t)); got != "" { // nothing can be said before TLS
		t.Errorf("one too many is answered %q", got)
	}
	s.waitClosed(t, ReasonFull, 1)
	open[0].write([]byte("no frame"))
	open[0].wantClose(1002)
	open[0].wantEnd()
	s.waitClosed(t, ReasonProtocol, 1)
}

// Plain HTTP over TLS goes to net/http, and a handshake that follows on such a
// connection comes back to a loop, with its TLS.
func TestHTTPSAndUpgradeOnOneConnection(t *testing.T) {
	s, _ := serveTLS(t, Config{}, nil)
	s.Mux().HandleFunc("GET /tls", func(w http.ResponseWriter, r *http.Request) {
		if r.TLS == nil || r.TLS.Version != tls.VersionTLS13 {
			http.Error(w, "no TLS", 500)
			return
		}
		io.WriteString(w, r.Proto)
	})
	conn := s.dialTLS(t, tls.VersionTLS13)
	in := bufio.NewReader(conn)
	for range 2 {
		io.WriteString(conn, "GET /tls HTTP/1.1\r\nHost: a\r\n\r\n")
		r, err := http.ReadResponse(in, nil)
		if err != nil {
			t.Fatal(err)
		}
		if body, _ := io.ReadAll(r.Body); r.StatusCode != 200 || string(body) != "HTTP/1.1" {
			t.Fatalf("%d %q", r.StatusCode, body)
		}
	}
	h := hello("/echo")
	// In one record: net/http reads both.
	c := &client{t: t, conn: conn}
	c.write(append(append([]byte("GET /tls HTTP/1.1\r\nHost: a\r\n\r\n"), handshake.AppendRequest(nil, h)...), masked(true, ws.OpText, []byte("glued"))...))
	for !bytes.Contains(c.in, []byte("\r\n\r\nHTTP/1.1")) {
		if err := c.fill(); err != nil {
			t.Fatalf("%v after %q", err, c.in)
		}
	}
	_, c.in, _ = bytes.Cut(c.in, []byte("\r\n\r\nHTTP/1.1"))
	c.accepted(h)
	if _, got := c.message(); string(got) != "glued" {
		t.Errorf("%q", got)
	}
	c.echoes(ws.OpText, []byte("on a loop again"))
	c.close(1000)
	c.wantClose(1000)
	c.wantEnd()
	s.waitClosed(t, ReasonPeerClosed, 1)
	if n := s.Stats().HTTP; n != 0 {
		t.Errorf("%d plain connections are counted", n)
	}
}

func TestTopicsAndShutdownOverTLS(t *testing.T) {
	server, _ := tlsConfigs()
	srv, err := New(Config{Loops: 2, TLS: server})
	if err != nil {
		t.Fatal(err)
	}
	if err := srv.Handle("/topics/", srv.Topics().Endpoint()); err != nil {
		t.Fatal(err)
	}
	addr, err := srv.ListenTLS("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	srv.Start()
	s := &testServer{srv, addr.String()}
	var all []*client
	for range 8 {
		all = append(all, join(t, s.dialTLS(t, tls.VersionTLS13), hello("/topics/news"), nil))
	}
	msg := bytes.Repeat([]byte("news "), 5000)
	if _, err := s.Topics().Publish("news", ws.OpText, msg); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	ended := make(chan error, 1)
	go func() { ended <- s.Shutdown(ctx) }()
	for _, c := range all {
		if _, got := c.message(); !bytes.Equal(got, msg) {
			t.Errorf("%d bytes came", len(got))
		}
		c.wantClose(1001)
		c.close(1001)
		c.wantEnd()
	}
	if err := receive(t, "the end", ended); err != nil {
		t.Error(err)
	}
}

func TestTLSNeedsACertificate(t *testing.T) {
	if _, err := New(Config{TLS: &tls.Config{}}); err == nil {
		t.Error("a server without a certificate was made")
	}
	s, err := New(Config{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Shutdown(context.Background())
	if _, err := s.ListenTLS("127.0.0.1:0"); err == nil {
		t.Error("it listens without TLS")
	}
}
