package bench

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"wspoll/server"

	"github.com/gobwas/ws"
)

func compressing(t *testing.T, cfg server.Config) (*server.Server, string) {
	t.Helper()
	cfg.MaxMessage = 64 << 20
	srv, err := server.New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	for path, ep := range map[string]*server.Endpoint{"/echo": server.Echo(), "/liar": altering()} {
		if err := srv.Handle(path, ep); err != nil {
			t.Fatal(err)
		}
	}
	addr, err := srv.Listen("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	srv.Start()
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		if err := srv.Shutdown(ctx); err != nil {
			t.Error(err)
		}
	})
	return srv, "ws://" + addr.String()
}

// altering is an echo that changes a byte in the middle.
func altering() *server.Endpoint {
	return &server.Endpoint{Message: func(c server.Conn, op ws.OpCode, p []byte) {
		p[len(p)/2]++
		c.Send(op, p)
	}}
}

func TestCompressedEchoIsCheckedAndCounted(t *testing.T) {
	for _, mode := range []server.Compression{server.CompressShared, server.CompressContext} {
		srv, url := compressing(t, server.Config{Compress: mode})
		for _, o := range []Config{
			{SizeMin: 0},
			{SizeMin: 7, Text: true},
			{SizeMin: 1024, Text: true, Depth: 8},
			{SizeMin: 1, SizeMax: 100_000},
			{SizeMin: 1<<20 + 1},
			{Payload: []byte(strings.Repeat("again and ", 1000)), Text: true},
		} {
			before, n := srv.Stats(), uint64(50)
			if o.SizeMin > 1<<20 {
				n = 5
			}
			o.Targets, o.Connections, o.Compress, o.Limit, o.Timeout = targets(t, url+"/echo"), 5, true, n, patience
			r := measured(t, Options{Scenario: "echo", Messages: n, Config: o})
			z, now := r.Compressed, srv.Stats()
			if len(r.Errors) > 0 || r.Messages != n || z == nil {
				t.Fatalf("%+v: %d messages, %+v, %+v", o, r.Messages, z, r.Errors)
			}
			if z.SentPlain != r.BytesSent || z.BackPlain != r.BytesBack || now.BytesIn-before.BytesIn != r.BytesSent || now.BytesOut-before.BytesOut != r.BytesBack {
				t.Errorf("%+v: %+v, %d bytes sent and %d back", o, z, r.BytesSent, r.BytesBack)
			}
			if r.SizeMin >= 1024 && (z.SentWire > z.SentPlain/2 || z.BackWire > z.BackPlain/2) || z.SentWire < n*6 || z.BackWire < n*2 {
				t.Errorf("%+v: %+v", o, z)
			}
			if !strings.HasPrefix(z.Agreed, "permessage-deflate") {
				t.Errorf("agreed: %q", z.Agreed)
			}
			// The reports say the same.
			text, page, data := written(t, r.Text()), written(t, r.HTML()), written(t, r.JSON())
			for _, want := range []string{shrunk(z.SentPlain, z.SentWire), "came back " + shrunk(z.BackPlain, z.BackWire)} {
				if r.BytesSent == 0 {
					want = "nothing was sent"
				}
				if !strings.Contains(strings.Join(strings.Fields(text), " "), want) || !strings.Contains(page, want) {
					t.Errorf("%q is not in\n%s", want, text)
				}
			}
			var back Result
			if err := json.Unmarshal([]byte(data), &back); err != nil || *back.Compressed != *z {
				t.Errorf("%+v, %v", back.Compressed, err)
			}
			if sum := Merge([]*Result{r, r}); *sum.Compressed != (Compressed{z.Agreed, 2 * z.SentPlain, 2 * z.SentWire, 2 * z.BackPlain, 2 * z.BackWire}) {
				t.Errorf("merged: %+v", sum.Compressed)
			}
		}
	}
}

// What comes back compressed and is not what was sent is seen.
func TestAWrongCompressedEchoIsSeen(t *testing.T) {
	for _, mode := range []server.Compression{server.CompressShared, server.CompressContext} {
		_, url := compressing(t, server.Config{Compress: mode})
		r := measured(t, Options{Scenario: "echo", Duration: patience, Config: Config{
			Targets: targets(t, url+"/liar"), Connections: 2, SizeMin: 2000, Compress: true,
		}})
		if n, details := errorsOf(r, KindWrong); n != 2 || !strings.Contains(details, "the payload differs") {
			t.Errorf("%+v", r.Errors)
		}
	}
}

func TestAServerThatDoesNotCompressIsAFailure(t *testing.T) {
	_, url := compressing(t, server.Config{Compress: server.CompressOff})
	for _, scenario := range []string{"echo", "connect", "idle", "push"} {
		_, err := Run(context.Background(), Options{Scenario: scenario, Duration: patience, Config: Config{
			Targets: targets(t, url+"/echo"), Connections: 2, SizeMin: 32, Compress: true, Timeout: time.Second,
		}})
		if want := "no connection could be opened: upgrade refused, " + errNotAgreed.Error(); err == nil || err.Error() != want {
			t.Errorf("%s: %v", scenario, err)
		}
	}
	_, err := Run(context.Background(), Options{Scenario: "echo", Config: Config{
		Targets: targets(t, "tcp://127.0.0.1:1"), Connections: 1, SizeMin: 1, Compress: true,
	}})
	if err == nil || !strings.Contains(err.Error(), "plain TCP knows no compression") {
		t.Error(err)
	}
}

func TestIdleConnectionsAgreeOnCompression(t *testing.T) {
	for _, mode := range []server.Compression{server.CompressShared, server.CompressContext} {
		srv, url := compressing(t, server.Config{Compress: mode})
		c, err := New(Config{Targets: targets(t, url+"/echo"), Connections: 10, SizeMin: 10_000, Compress: true})
		if err != nil {
			t.Fatal(err)
		}
		defer c.Stop()
		c.Open(nil)
		if !c.Once() {
			t.Fatal(fmt.Sprint(c.Errors()))
		}
		if n := srv.Stats().Buffered; (n == 0) != (mode == server.CompressShared) {
			t.Errorf("the server holds %d bytes", n)
		}
		c.Close(patience)
		if n := len(c.squeeze.in) + len(c.squeeze.out); n != 0 {
			t.Errorf("%d windows are left", n)
		}
	}
}
