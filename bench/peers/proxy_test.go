package peers

import (
	"net/url"
	"strings"
	"testing"
)

// Real servers behind the proxy, and real clients before it.

// through is the URL of a backend's endpoint at a proxy before it.
func through(t *testing.T, px *running, backend string) string {
	t.Helper()
	u, err := url.Parse(backend)
	if err != nil {
		t.Fatal(err)
	}
	return "ws://" + px.addr + u.Path
}

// hostOf is host:port of a URL, with an address that every program takes.
func hostOf(t *testing.T, raw string) string {
	t.Helper()
	u, err := url.Parse(raw)
	if err != nil {
		t.Fatal(err)
	}
	return strings.Replace(u.Host, "localhost", "127.0.0.1", 1)
}

// converses has every library talk to the echo at a URL.
func converses(t *testing.T, url string) {
	for i := range libraries {
		lib := &libraries[i]
		t.Run(lib.name, func(t *testing.T) {
			for _, deflate := range []bool{false, true} {
				c := lib.mustDial(t, url, options{deflate: deflate})
				for _, text := range []bool{true, false} {
					for _, n := range []int{0, 1, 125, 126, 65535, 65536, 1 << 20} {
						p := payload(text, n)
						if err := c.send(text, p); err != nil {
							t.Fatal(err)
						}
						c.wantEcho(t, text, p)
					}
				}
				parts := [][]byte{payload(true, 10), payload(true, 30_000), payload(true, 5)}
				if err := c.fragments(true, parts); err != nil {
					t.Fatal(err)
				}
				c.wantEcho(t, true, append(append(append([]byte(nil), parts[0]...), parts[1]...), parts[2]...))
				if err := c.ping([]byte("ping")); err != nil {
					t.Fatal(err)
				}
				<-c.pongs
				if lib.leavesAtOnce || lib.checksCode {
					c.drop()
					continue
				}
				if err := c.close(4001, "done"); err != nil {
					t.Fatal(err)
				}
				c.wantClose(t, 4001)
			}
		})
	}
}

func TestEveryServerBehindTheProxyAndEveryClientBeforeIt(t *testing.T) {
	for _, backend := range []string{"wspoll", "gorilla", "coder", "gws", "gobwas", "fasthttp", "npm-ws"} {
		for _, mode := range []string{"frames", "tunnel"} {
			t.Run(backend+" "+mode, func(t *testing.T) {
				url := startServer(t, backend)
				converses(t, through(t, startWspollProxy(t, hostOf(t, url), mode, "--idle-timeout", "2m"), url))
			})
		}
	}
}

func TestNpmWsClientThroughTheProxy(t *testing.T) {
	for _, mode := range []string{"frames", "tunnel"} {
		t.Run(mode, func(t *testing.T) {
			s := start(t, "--subprotocol", "chat")
			px := startWspollProxy(t, hostOf(t, s.url), mode, "--max-message", "64MiB", "--idle-timeout", "2m")
			node(t, "ws", "echo.mjs", through(t, px, s.url), agreements["shared"])
		})
	}
}

// The page comes as plain HTTP and its WebSockets as tunnels, both through the
// proxy, from the origin that the page has there.
func TestChromiumThroughTheProxy(t *testing.T) {
	for _, mode := range []string{"frames", "tunnel"} {
		t.Run(mode, func(t *testing.T) {
			s := start(t)
			px := startWspollProxy(t, hostOf(t, s.url), mode, "--idle-timeout", "2m")
			chromiumUses(t, "http://"+px.addr+"/")
			s.logged(`reason="peer closed"`, "code=3001")
			if mode == "frames" {
				px.logged("path=/wshandler", "status=101", `end="client closed"`, "code=3001")
			}
		})
	}
}

func TestOtherProxiesBeforeAndBehindOurs(t *testing.T) {
	for _, f := range fronts[2:] {
		t.Run(f.name, func(t *testing.T) {
			url := start(t).url
			t.Run("before", func(t *testing.T) {
				ours := startWspollProxy(t, hostOf(t, url), "frames", "--trust", "127.0.0.1")
				converses(t, through(t, f.start(t, ours.addr), url))
			})
			t.Run("behind", func(t *testing.T) {
				other := f.start(t, hostOf(t, url))
				converses(t, through(t, startWspollProxy(t, other.addr, "frames"), url))
			})
		})
	}
}
