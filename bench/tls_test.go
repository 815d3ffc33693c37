package bench

import (
	"bytes"
	"context"
	"crypto/tls"
	"net"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gobwas/ws"
)

// secure starts l behind TLS of one version, with a certificate that nobody trusts.
func (l *liar) secure(t *testing.T, version uint16) *liar {
	t.Helper()
	h := httptest.NewTLSServer(nil)
	cert := h.TLS.Certificates
	h.Close()
	ln, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: cert, MinVersion: version, MaxVersion: version})
	if err != nil {
		t.Fatal(err)
	}
	l.start(t, ln)
	l.url = "wss" + strings.TrimPrefix(l.url, "ws")
	return l
}

func TestEchoOverTLS(t *testing.T) {
	for name, version := range map[string]uint16{"1.2": tls.VersionTLS12, "1.3": tls.VersionTLS13} {
		t.Run(name, func(t *testing.T) {
			l := (&liar{}).secure(t, version)
			plain := (&liar{}).listen(t)
			for _, o := range []Options{
				{Messages: 500, Config: Config{Connections: 10, SizeMin: 32, Depth: 4}},
				{Messages: 300, Config: Config{Connections: 3, SizeMin: 0, SizeMax: 50_000, Text: true}}, // records split and joined
				{Messages: 12, Config: Config{Connections: 2, SizeMin: 1 << 20}},
				{Duration: 300 * time.Millisecond, Config: Config{Connections: 4, SizeMin: 100, Rate: 1000}},
			} {
				o.Scenario, o.Limit, o.Targets = "echo", o.Messages, targets(t, l.url)
				if o.Duration == 0 {
					o.Duration = time.Minute
				}
				before := uint64(l.messages.Load())
				r := measured(t, o)
				if len(r.Errors) > 0 || o.Limit > 0 && r.Messages != o.Limit || r.Opened != uint64(o.Connections) || uint64(l.messages.Load())-before != r.Sent || r.Messages == 0 {
					t.Errorf("%d of %d messages, %d opened, %+v", r.Messages, o.Limit, r.Opened, r.Errors)
				}
			}
			r := measured(t, Options{Scenario: "echo", Duration: time.Minute, Messages: 50, Config: Config{Targets: targets(t, plain.url, l.url), Connections: 4, SizeMin: 32, Limit: 50}})
			if len(r.Errors) > 0 || r.Messages != 50 || plain.upgraded.Load() != 2 {
				t.Errorf("%+v", r.Errors)
			}
		})
	}
}

func TestTwoHundredConnectionsOverTLSOpenEchoAndClose(t *testing.T) {
	l := (&liar{}).secure(t, tls.VersionTLS13)
	r := measured(t, Options{Scenario: "echo", Duration: time.Minute, Messages: 1000, Config: Config{Targets: targets(t, l.url), Connections: 200, SizeMin: 64, Limit: 1000}})
	l.mu.Lock()
	defer l.mu.Unlock()
	if r.Opened != 200 || r.Messages != 1000 || len(r.Errors) > 0 || len(l.closes) != 200 {
		t.Errorf("%d opened, %d messages, %d closed, %+v", r.Opened, r.Messages, len(l.closes), r.Errors)
	}
	if r.Connect.Count() != 200 || r.Upgrade.Count() != 200 || r.Connect.At(50) < 100*time.Microsecond {
		t.Errorf("the TLS handshake is not in the connect: %s", r.Connect.At(50))
	}
}

func TestConnectionsOverTLSCycle(t *testing.T) {
	ctx, stop := context.WithCancel(context.Background())
	defer stop()
	l := &liar{}
	l.greet = func(c *liarConn) bool {
		ok := c.upgrade()
		if l.upgraded.Load() == 20 {
			stop()
		}
		return ok
	}
	l.secure(t, tls.VersionTLS13)
	r, err := Run(ctx, Options{Scenario: "connect", Duration: patience, Config: Config{Targets: targets(t, l.url), Connections: 4}})
	if err != nil {
		t.Fatal(err)
	}
	if n := uint64(l.upgraded.Load()); r.Opened < 8 || len(r.Errors) > 0 || n < r.Opened || n > r.Opened+4 {
		t.Errorf("%d opened, the server has %d, %+v", r.Opened, n, r.Errors)
	}
}

func TestAReplyBrokenOverTLSIsCaught(t *testing.T) {
	l := (&liar{answer: every(5, func(c *liarConn, op ws.OpCode, p []byte) { c.echo(op, bytes.ToUpper(p)) })}).secure(t, tls.VersionTLS13)
	r := measured(t, Options{Scenario: "echo", Duration: patience, Config: Config{Targets: targets(t, l.url), Connections: 2, SizeMin: 32}})
	if n, _ := errorsOf(r, KindWrong); n != 2 || r.failures() != 2 || r.Messages != 8 {
		t.Errorf("%d messages, %+v", r.Messages, r.Errors)
	}
}

func TestTheEndOfATLSConnectionIsNamed(t *testing.T) {
	for name, test := range map[string]struct {
		end  func(c *liarConn)
		kind string
	}{
		"close_notify": {func(c *liarConn) { c.Conn.(*tls.Conn).CloseWrite(); c.drain() }, KindEOF},
		"FIN":          {func(c *liarConn) { c.Conn.(*tls.Conn).NetConn().(*net.TCPConn).CloseWrite(); c.drain() }, KindEOF},
		"RST": {func(c *liarConn) {
			tcp := c.Conn.(*tls.Conn).NetConn().(*net.TCPConn)
			tcp.SetLinger(0)
			tcp.Close()
		}, KindReset},
		"no TLS": {func(c *liarConn) {
			c.Conn.(*tls.Conn).NetConn().Write([]byte("what is this, no record at all"))
			c.drain()
		}, KindTLS},
	} {
		t.Run(name, func(t *testing.T) {
			l := (&liar{answer: func(c *liarConn, _ int, _ ws.OpCode, _ []byte) { test.end(c) }}).secure(t, tls.VersionTLS13)
			r := measured(t, Options{Scenario: "echo", Duration: patience, Config: Config{Targets: targets(t, l.url), Connections: 2, SizeMin: 32}})
			if n, _ := errorsOf(r, test.kind); n != 2 || r.failures() != 2 {
				t.Errorf("%+v", r.Errors)
			}
		})
	}
}

func TestACertificateNobodyTrustsIsNamedAndInsecureTakesIt(t *testing.T) {
	l := (&liar{}).secure(t, tls.VersionTLS13)
	target, err := ParseTarget(l.url, false)
	if err != nil {
		t.Fatal(err)
	}
	for _, scenario := range []string{"echo", "connect"} {
		_, err = Run(context.Background(), Options{Scenario: scenario, Duration: 20 * time.Second, Config: Config{Targets: []Target{target}, Connections: 2, SizeMin: 1}})
		if err == nil || !strings.HasPrefix(err.Error(), "no connection could be opened: tls, ") || !strings.Contains(err.Error(), "certificate") {
			t.Error(err)
		}
	}
}

func TestATLSHandshakeThatFailsIsNamed(t *testing.T) {
	var hello atomic.Int64
	for name, test := range map[string]struct {
		greet func(c *liarConn) bool
		want  string
	}{
		"plain HTTP": {func(c *liarConn) bool {
			c.more()
			c.Write([]byte("HTTP/1.1 400 Bad Request\r\n\r\n"))
			c.drain()
			return false
		}, "tls, tls: first record does not look like a TLS handshake"},
		"silence": {func(c *liarConn) bool { hello.Add(1); c.drain(); return false }, "timed out, TLS handshake"},
		"FIN":     {func(c *liarConn) bool { c.more(); return false }, "ended, FIN in the TLS handshake"},
		"RST":     {func(c *liarConn) bool { c.more(); c.Conn.(*net.TCPConn).SetLinger(0); return false }, "reset"},
	} {
		l := (&liar{greet: test.greet}).listen(t)
		timeout := patience // for an answer that comes
		if name == "silence" {
			timeout = 300 * time.Millisecond
		}
		_, err := Run(context.Background(), Options{Scenario: "echo", Duration: time.Second, Config: Config{
			Targets: targets(t, "wss://"+l.addr.String()), Connections: 2, SizeMin: 1, Timeout: timeout,
		}})
		if err == nil || err.Error() != "no connection could be opened: "+test.want {
			t.Errorf("%s: %v", name, err)
		}
	}
}
