package peers

import (
	"bytes"
	"os/exec"
	"strings"
	"testing"
	"time"
)

// Real clients by TLS, to the server and through the proxy.

var byTLS = []string{"--tls-listen", "127.0.0.1:0", "--tls-self-signed"}

// secureProxy is a proxy that speaks TLS on both sides, and the URL of the echo behind it.
func secureProxy(t *testing.T, s *server, mode string) string {
	t.Helper()
	px := start(t, append([]string{"proxy", "--mode", mode, "--backend-insecure", "--to", strings.TrimSuffix(s.secure, "/wshandler")}, byTLS...)...)
	return px.secure + "wshandler"
}

func TestEveryClientByTLS(t *testing.T) {
	s := start(t, byTLS...)
	t.Run("server", func(t *testing.T) { converses(t, s.secure) })
	for _, mode := range []string{"frames", "tunnel"} {
		t.Run(mode, func(t *testing.T) { converses(t, secureProxy(t, s, mode)) })
	}
}

func TestNpmWsClientByTLS(t *testing.T) {
	t.Setenv("NODE_TLS_REJECT_UNAUTHORIZED", "0")
	s := start(t, append([]string{"--subprotocol", "chat"}, byTLS...)...)
	node(t, "ws", "echo.mjs", s.secure, agreements["shared"])
}

func TestChromiumByTLS(t *testing.T) {
	s := start(t, byTLS...)
	chromiumUses(t, "https://"+strings.TrimSuffix(strings.TrimPrefix(secureProxy(t, s, "frames"), "wss://"), "wshandler"))
	s.logged(`reason="peer closed"`, "code=3001")
}

// OpenSSL changes the keys in the middle (RFC 8446 §4.6.3) and asks us to do so too.
func TestOpenSSLUpdatesItsKeys(t *testing.T) {
	path, err := exec.LookPath("openssl")
	if err != nil {
		missing(t, "openssl is missing (on Debian: apt-get install openssl)")
	}
	s := start(t, byTLS...)
	cmd := exec.Command(path, "s_client", "-connect", hostOf(t, s.secure), "-tls1_3", "-msg")
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out := newAwaited()
	cmd.Stdout = out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Wait()
	defer cmd.Process.Kill()
	in.Write([]byte("GET /wshandler HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"))
	out.wait(t, "101 Switching Protocols")
	for range 2 {
		in.Write([]byte("K\n")) // a line of its own is a command
		out.wait(t, ">>> TLS 1.3, Handshake [length 0005], KeyUpdate")
		out.wait(t, "<<< TLS 1.3, Handshake [length 0005], KeyUpdate")
		in.Write([]byte{0x81, 0x85, 0x37, 0xfa, 0x21, 0x3d, 0x7f, 0x9f, 0x4d, 0x51, 0x58})
		out.wait(t, "\x81\x05Hello")
	}
}

// awaited is output in which a test waits for something.
type awaited struct {
	in  chan []byte
	all bytes.Buffer
}

func newAwaited() *awaited { return &awaited{in: make(chan []byte, 1<<10)} }

func (a *awaited) Write(p []byte) (int, error) {
	a.in <- bytes.Clone(p)
	return len(p), nil
}

// wait reads until what has come contains s, and forgets it to there.
func (a *awaited) wait(t *testing.T, s string) {
	t.Helper()
	deadline := time.After(patience)
	for {
		if i := bytes.Index(a.all.Bytes(), []byte(s)); i >= 0 {
			a.all.Next(i + len(s))
			return
		}
		select {
		case p := <-a.in:
			a.all.Write(p)
		case <-deadline:
			t.Fatalf("no %q in %q", s, a.all.Bytes())
		}
	}
}
