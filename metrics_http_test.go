package main

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"wspoll/proxy"
	"wspoll/server"

	"github.com/gobwas/ws"
)

// served are a server and its proxy in this process, with their metrics.
type served struct {
	srv     *server.Server
	px      *proxy.Proxy
	metrics *metrics
	url     string // of the server, without a path
	through string // the same of the proxy
	at      string // of the metrics
}

func serveHere(t *testing.T, limit time.Duration, more map[string]*server.Endpoint) *served {
	t.Helper()
	check := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	s := &served{}
	log := slog.New(slog.DiscardHandler)
	var err error
	s.srv, err = server.New(server.Config{Loops: 2, CloseTimeout: 200 * time.Millisecond, Log: log})
	check(err)
	check(s.srv.Handle("/echo", server.Echo()))
	for path, ep := range more {
		check(s.srv.Handle(path, ep))
	}
	addr, err := s.srv.Listen("127.0.0.1:0")
	check(err)
	s.url = "ws://" + addr.String()
	s.srv.Start()
	s.px, err = proxy.New(proxy.Config{Routes: []proxy.Route{{To: []string{s.url}}}, Loops: 2, CloseTimeout: 200 * time.Millisecond, Log: log})
	check(err)
	addr, err = s.px.Listen("127.0.0.1:0")
	check(err)
	s.through = "ws://" + addr.String()
	s.px.Start()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	check(err)
	s.at = "http://" + l.Addr().String() + "/metrics"
	s.metrics = newMetrics(l, log, limit)
	s.metrics.start(io.Discard, s.srv, s.px)
	t.Cleanup(func() { s.shutdown(); s.metrics.end() })
	return s
}

func (s *served) shutdown() {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	s.px.Shutdown(ctx, 0)
	s.srv.Shutdown(ctx)
}

func TestOnlyGETAndHEADOfMetricsAreAnswered(t *testing.T) {
	s := serveHere(t, patience, nil)
	for _, tt := range []struct {
		method, path string
		want         int
	}{
		{"GET", "/metrics", 200},
		{"HEAD", "/metrics", 200},
		{"GET", "/metrics?x=y", 200},
		{"POST", "/metrics", 405},
		{"PUT", "/metrics", 405},
		{"DELETE", "/metrics", 405},
		{"OPTIONS", "/metrics", 405},
		{"GET", "/", 404},
		{"GET", "/metrics/", 404},
		{"GET", "/debug/pprof/", 404},
		{"POST", "/", 404},
	} {
		status, body, err := requestMetrics(tt.method, strings.TrimSuffix(s.at, "/metrics")+tt.path)
		if status != tt.want || err != nil {
			t.Errorf("%s %s: %d, %v; want %d", tt.method, tt.path, status, err, tt.want)
		}
		if has := bytes.Contains(body, []byte("\nwspoll_connections 0\n")); has != (tt.method == "GET" && tt.want == 200) {
			t.Errorf("%s %s: %d bytes", tt.method, tt.path, len(body))
		}
	}
	for request, want := range map[string]string{
		"GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n":                                           "HTTP/1.1 200 ",
		"OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n":                                              "HTTP/1.1 400 ",
		"GET /metrics HTTP/1.1\r\nHost: a\r\nX: " + strings.Repeat("x", 64<<10) + "\r\n\r\n": "HTTP/1.1 431 ",
	} {
		c, err := net.Dial("tcp", s.metrics.listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		c.SetDeadline(time.Now().Add(patience))
		go io.WriteString(c, request)
		// No connection is kept for the next scrape.
		if answer, err := io.ReadAll(c); !bytes.HasPrefix(answer, []byte(want)) || !bytes.Contains(answer, []byte("\r\nConnection: close\r\n")) {
			t.Errorf("%.40q: %.40q, %v; want %s", request, answer, err, want)
		}
	}
}

func TestScrapesSeeTheDrainUntilItsEnd(t *testing.T) {
	p, url := serving(t, "serve", "--metrics-listen", "127.0.0.1:0", "--close-timeout", "1m", "--drain", "1m")
	at := p.metricsURL()
	quick, slow := dial(t, url), dial(t, url)
	p.signal(syscall.SIGTERM)
	for _, c := range []net.Conn{quick, slow} {
		if code := closeCode(t, c); code != ws.StatusGoingAway {
			t.Errorf("Close %d", code)
		}
	}
	goodbye := ws.MustCompileFrame(ws.MaskFrameInPlace(ws.NewCloseFrame(ws.NewCloseFrameBody(ws.StatusGoingAway, ""))))
	quick.Write(goodbye)
	quick.Close()
	scrapeUntil(t, at, samples{
		"wspoll_connections":                         1,
		"wspoll_websockets":                          1,
		"wspoll_accepted_total":                      2,
		`wspoll_handshakes_total{result="upgraded"}`: 2,
		`wspoll_closed_total{reason="drain"}`:        1,
	})
	slow.Write(goodbye)
	slow.Close()
	if code := p.wait(); code != exitOK {
		t.Errorf("exit %d", code)
	}
	if _, _, err := requestMetrics("GET", at); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("when it has ended: %v", err)
	}
}

func TestScrapesWhileTheLoopsStopAreAnsweredAndNothingGoesBack(t *testing.T) {
	s := serveHere(t, patience, nil)
	for range 10 {
		dial(t, s.url+"/echo") // and nobody answers a Close
		dial(t, s.through+"/echo")
	}
	ended := make(chan bool)
	go func() {
		defer close(ended)
		s.shutdown()
	}()
	last := samples{}
	for after := 0; after < 3; {
		select {
		case <-ended:
			after++
		default:
		}
		now := scrape(t, s.at).ours()
		for key, v := range last {
			if strings.Contains(key, "_total") && now[key] < v {
				t.Fatalf("%s goes from %v back to %v", key, v, now[key])
			}
		}
		last = now
	}
	for key, want := range map[string]float64{
		"wspoll_accepted_total":                            20,
		`wspoll_handshakes_total{result="upgraded"}`:       20,
		"wspoll_connections":                               0,
		"wspoll_websockets":                                0,
		"wspoll_proxy_accepted_total":                      10,
		`wspoll_proxy_handshakes_total{result="upgraded"}`: 10,
		`wspoll_proxy_closed_total{reason="drain"}`:        10,
		"wspoll_proxy_tunnels":                             0,
	} {
		if last[key] != want {
			t.Errorf("at the end %s is %v, want %v", key, last[key], want)
		}
	}
}

func TestScrapesOfALoopThatIsStuckEndAndAreFew(t *testing.T) {
	stuck, release := make(chan bool), make(chan bool)
	s := serveHere(t, 50*time.Millisecond, map[string]*server.Endpoint{"/stuck": {Message: func(server.Conn, ws.OpCode, []byte) {
		stuck <- true
		<-release
	}}})
	c := dial(t, s.url+"/stuck")
	c.Write(ws.MustCompileFrame(ws.MaskFrameInPlace(ws.NewTextFrame(nil))))
	<-stuck
	for i := range scrapesMost + 2 {
		status, body, err := requestMetrics("GET", s.at)
		want := "Exceeded configured timeout"
		if i >= scrapesMost {
			want = "Limit of concurrent requests reached (8)"
		}
		if status != http.StatusServiceUnavailable || !bytes.HasPrefix(body, []byte(want)) {
			t.Errorf("scrape %d: %d %q, %v; want %s", i, status, body, err, want)
		}
	}
	close(release)
	for deadline := time.Now().Add(patience); ; {
		if status, _, _ := requestMetrics("GET", s.at); status == http.StatusOK {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("scrapes do not work again")
		}
	}
}

func TestMetricsTakeFewConnectionsAtATime(t *testing.T) {
	s := serveHere(t, patience, nil)
	var silent []net.Conn
	one := func() net.Conn {
		c, err := net.Dial("tcp", s.metrics.listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		return c
	}
	for range scrapeConns {
		silent = append(silent, one())
	}
	c := one()
	io.WriteString(c, "GET /metrics HTTP/1.1\r\nHost: a\r\n\r\n")
	c.SetDeadline(time.Now().Add(100 * time.Millisecond)) // nothing must come, and nothing tells that
	if n, err := c.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("beside %d others: %d bytes, %v", scrapeConns, n, err)
	}
	silent[5].Close()
	c.SetDeadline(time.Now().Add(patience))
	if answer, err := io.ReadAll(c); err != nil || !bytes.HasPrefix(answer, []byte("HTTP/1.1 200 ")) {
		t.Errorf("when one has gone: %.40q, %v", answer, err)
	}
}

func TestNobodyHoldsUpTheEndOfTheMetrics(t *testing.T) {
	s := serveHere(t, patience, nil)
	addr := s.metrics.listener.Addr().String()
	var held []net.Conn
	for i := range scrapeConns + 4 { // more than it takes
		c, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		held = append(held, c)
		if i%2 == 0 {
			io.WriteString(c, "GET /metrics HTTP/1.1\r\nHost: a\r\n")
		}
	}
	s.shutdown()
	began := time.Now()
	s.metrics.end()
	if d := time.Since(began); d > scrapeEnd+2*time.Second {
		t.Errorf("the end took %v", d)
	}
	if _, _, err := requestMetrics("GET", s.at); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("then %v", err)
	}
	for _, c := range held {
		c.SetDeadline(time.Now().Add(time.Second)) // less than the time for a request, which would end it too
		if _, err := c.Read(make([]byte, 1)); errors.Is(err, os.ErrDeadlineExceeded) {
			t.Error("a connection is still open")
		}
	}
	s.metrics.end() // again, for nothing
}

func TestTheAddressOfMetricsInUseNamesItsFlag(t *testing.T) {
	held, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer held.Close()
	for _, command := range []string{"serve", "proxy"} {
		p := start(t, command, "--listen", "127.0.0.1:0", "--metrics-listen", held.Addr().String())
		want := "wspoll: cannot listen on " + held.Addr().String() + ": the address is in use; choose another with --metrics-listen, or end what uses it"
		code := p.wait()
		if out, errs := p.stdout.all(), p.stderr.all(); code != exitFail || len(out) != 0 || len(errs) != 1 || errs[0] != want {
			t.Errorf("%s: exit %d, stdout %q, stderr %q", command, code, out, errs)
		}
	}
}
