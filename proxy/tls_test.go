package proxy

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

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

// serveTLS is serve with an address for TLS, which is the one of the result.
func serveTLS(t testing.TB, cfg Config, backends ...*behind) *testProxy {
	t.Helper()
	cfg.TLS, _ = tlsConfigs()
	px := serve(t, cfg, backends...)
	addr, err := px.ListenTLS("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	px.addr = addr.String()
	return px
}

func (px *testProxy) dialTLS(t testing.TB) *tls.Conn {
	_, client := tlsConfigs()
	return tls.Client(px.dial(t), client)
}

// toTLS is a Config whose only route goes to backends with TLS, which are trusted.
func toTLS(cfg Config, backends ...*behind) Config {
	_, cfg.BackendTLS = tlsConfigs()
	r := Route{}
	for _, b := range backends {
		r.To = append(r.To, "wss://"+b.addr)
	}
	cfg.Routes = []Route{r}
	return cfg
}

// acceptTLS is accept for a backend with TLS.
func (b *behind) acceptTLS() *end {
	b.t.Helper()
	server, _ := tlsConfigs()
	c := tls.Server(b.conn(), server)
	head, rest := readHead(b.t, c)
	e := &end{t: b.t, conn: c, in: rest, head: head}
	e.write([]byte(answer101(b.t, head)))
	return e
}

// openTLS is a tunnel with TLS on both sides.
func (px *testProxy) openTLS(t testing.TB, b *behind) (client, backend *end) {
	t.Helper()
	client = &end{t: t, conn: px.dialTLS(t), client: true}
	client.write([]byte(request("/chat")))
	backend = b.acceptTLS()
	client.readAnswer()
	return client, backend
}

func TestTLSOnBothSides(t *testing.T) {
	for name, mode := range map[string]Mode{"frames": ModeFrames, "tunnel": ModeTunnel} {
		t.Run(name, func(t *testing.T) {
			b := newBehind(t)
			px := serveTLS(t, toTLS(Config{Mode: mode}, b))
			client, backend := px.openTLS(t, b)
			if !strings.Contains(backend.head, "\r\nX-Forwarded-Proto: https\r\n") || !strings.Contains(backend.head, ";proto=https\r\n") {
				t.Errorf("the backend is told %s", backend.head)
			}
			for _, n := range []int{1, 1000, 64 << 10, 3 << 20} {
				want := strings.Repeat("x", n)
				sent := make(chan bool)
				go func() {
					client.conn.Write(client.frameOf(true, ws.OpBinary, []byte(want)))
					close(sent)
				}()
				if _, got := backend.message(); string(got) != want {
					t.Fatalf("%d bytes of %d have come", len(got), n)
				}
				<-sent
				go backend.conn.Write(backend.frameOf(true, ws.OpBinary, []byte(want)))
				if _, got := client.message(); string(got) != want {
					t.Fatalf("%d bytes of %d have come back", len(got), n)
				}
			}
			client.close(1000, "bye")
			backend.wantClose(1000)
			backend.close(1000, "bye")
			client.wantClose(1000)
		})
	}
}

// A backend whose certificate is not good was sent nothing: another one is tried.
func TestBackendWithABadCertificateIsPassedOver(t *testing.T) {
	var said lockedLog
	bad, good := newBehind(t), newBehind(t)
	server, _ := tlsConfigs()
	cfg := toTLS(Config{Log: said.logger(), Balance: Balance{by: roundRobin}}, bad)
	cfg.BackendTLS = &tls.Config{RootCAs: x509.NewCertPool()}
	cfg.Routes[0].To = append(cfg.Routes[0].To, "ws://"+good.addr)
	px := serve(t, cfg)
	failed := make(chan error, 1)
	go func() {
		c := <-bad.conns
		defer c.Close()
		failed <- tls.Server(c, server).Handshake()
	}()
	client, backend := px.open(t, good)
	if err := receive(t, "the handshake to fail", failed); err == nil || !strings.Contains(err.Error(), "certificate") {
		t.Errorf("the backend was told %v", err)
	}
	client.send(ws.OpText, "hello")
	if f := backend.frame(); string(f.payload) != "hello" {
		t.Errorf("%+v", f)
	}
	if got := said.String(); !strings.Contains(got, "a backend cannot be connected to") || !strings.Contains(got, "certificate signed by unknown authority") {
		t.Errorf("the log says %s", got)
	}
	if px.Stats().Retries != 1 {
		t.Errorf("%d retries", px.Stats().Retries)
	}
}

// And when there is no other, that is 502.
func TestNoBackendWithAGoodCertificate(t *testing.T) {
	b := newBehind(t)
	px := serve(t, toTLS(Config{}, b))
	c := px.dial(t)
	io.WriteString(c, request("/"))
	b.conn().Close() // FIN in the middle of its handshake
	if all, _ := io.ReadAll(c); !bytes.HasPrefix(all, []byte("HTTP/1.1 502 ")) {
		t.Errorf("answered %q", all)
	}
}

func TestEndsOverTLS(t *testing.T) {
	b := newBehind(t)
	px := serveTLS(t, toTLS(Config{}, b))
	client, backend := px.openTLS(t, b)
	backend.conn.(*tls.Conn).NetConn().Close() // it dies, without close_notify
	client.wantClose(1012)
	client.close(1012, "")
	client.wantEnd()

	client, backend = px.openTLS(t, b)
	client.write([]byte("no frame"))
	client.wantClose(1002)
	backend.wantClose(1001)

	// What is no record ends both sides.
	client, backend = px.openTLS(t, b)
	io.WriteString(client.conn.(*tls.Conn).NetConn(), strings.Repeat("x", 100))
	backend.wantClose(1001)
	eventually(t, "TLS has failed", func() bool { return px.Stats().Closed[ReasonTLS] == 1 })
}

// close_notify is to TLS what FIN is to TCP: the other direction goes on.
func TestHalfCloseOverTLS(t *testing.T) {
	b := newBehind(t)
	px := serveTLS(t, toTLS(Config{Mode: ModeTunnel}, b))
	client, backend := px.openTLS(t, b)
	client.write([]byte("all"))
	client.conn.CloseWrite()
	if all, err := io.ReadAll(backend.conn); string(all) != "all" || err != nil {
		t.Errorf("the backend reads %q, %v", all, err)
	}
	backend.write(bytes.Repeat([]byte("tail"), 1<<18))
	backend.conn.CloseWrite()
	if all, err := io.ReadAll(client.conn); len(all) != 4<<18 || err != nil {
		t.Errorf("the client reads %d bytes, %v", len(all), err)
	}
}

// Plain HTTP passes over TLS on both sides, and a handshake may follow on the
// same connection.
func TestPlainHTTPOverTLSAndThenAHandshake(t *testing.T) {
	h := func(w http.ResponseWriter, r *http.Request) {
		io.WriteString(w, r.Header.Get("X-Forwarded-Proto")+" "+r.Proto)
	}
	site := httptest.NewTLSServer(http.HandlerFunc(h))
	t.Cleanup(site.Close)
	b := newBehind(t)
	cfg := toTLS(Config{}, b)
	cfg.Routes = append(cfg.Routes, Route{Prefix: "/site", To: []string{strings.Replace(site.URL, "https:", "wss:", 1)}})
	px := serveTLS(t, cfg)
	conn := px.dialTLS(t)
	in := bufio.NewReader(conn)
	for range 2 {
		io.WriteString(conn, "GET /site HTTP/1.1\r\nHost: a\r\n\r\n")
		r, err := http.ReadResponse(in, nil)
		if err != nil {
			t.Fatal(err)
		}
		if body, _ := io.ReadAll(r.Body); string(body) != "https HTTP/1.1" {
			t.Fatalf("%d %q", r.StatusCode, body)
		}
	}
	client := &end{t: t, conn: conn, client: true}
	client.write([]byte(request("/chat")))
	backend := b.acceptTLS()
	client.readAnswer()
	if !strings.Contains(backend.head, "X-Forwarded-Proto: https") {
		t.Errorf("the backend is told %s", backend.head)
	}
	backend.send(ws.OpText, "on a loop again")
	if f := client.frame(); string(f.payload) != "on a loop again" {
		t.Errorf("%+v", f)
	}
}

func TestHealthOverTLS(t *testing.T) {
	site := httptest.NewUnstartedServer(http.NotFoundHandler())
	site.Config.ErrorLog = log.New(io.Discard, "", 0) // it tells of the handshakes that are to fail
	site.StartTLS()
	t.Cleanup(site.Close)
	for name, trusted := range map[string]bool{"trusted": true, "not trusted": false} {
		t.Run(name, func(t *testing.T) {
			cfg := Config{HealthEvery: time.Hour, Routes: []Route{{To: []string{"wss://" + site.Listener.Addr().String()}}}, BackendTLS: &tls.Config{}}
			if trusted {
				_, cfg.BackendTLS = tlsConfigs()
			}
			px := serve(t, cfg)
			px.checkHealth(context.Background(), px.table.Load().all[0])
			if got := px.Backends()[0]; got.Healthy != trusted || got.URL[:6] != "wss://" {
				t.Errorf("%+v", got)
			}
		})
	}
}
