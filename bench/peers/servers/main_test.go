package main

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/gorilla/websocket"
)

// patience is how long a test waits for something that should come at once.
const patience = time.Minute

// asServer in the environment makes the test binary the program itself.
const asServer = "WSPOLL_PEERS_SERVER"

func TestMain(m *testing.M) {
	if os.Getenv(asServer) != "" {
		main()
		return
	}
	os.Exit(m.Run())
}

// start runs a server as a process until the test ends, and returns its URL.
// On SIGTERM it must end with status 0.
func start(t *testing.T, path string, args ...string) string {
	t.Helper()
	cmd := exec.Command(path, args...)
	cmd.Env = append(os.Environ(), asServer+"=1")
	cmd.Stderr = t.Output()
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	kill := time.AfterFunc(patience, func() { cmd.Process.Kill() })
	t.Cleanup(func() {
		cmd.Process.Signal(syscall.SIGTERM)
		if err := cmd.Wait(); err != nil {
			t.Errorf("after SIGTERM the server ends with %v", err)
		}
		kill.Stop()
	})
	url, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatalf("the server prints no URL: %v", err)
	}
	return strings.TrimSpace(url)
}

func startSelf(t *testing.T, name string) string {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return start(t, self, name, "127.0.0.1:0")
}

func dial(t *testing.T, url string) *websocket.Conn {
	t.Helper()
	c, _, err := websocket.DefaultDialer.Dial(url, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	c.SetReadDeadline(time.Now().Add(patience))
	return c
}

// payload is n bytes of which no two stretches are alike; all are ASCII.
func payload(n int) []byte {
	var b bytes.Buffer
	for i := 0; b.Len() < n; i++ {
		fmt.Fprintf(&b, "%d,", i)
	}
	return b.Bytes()[:n]
}

// echoes checks an echo at a URL.
func echoes(t *testing.T, url string) {
	t.Run("one message at a time", func(t *testing.T) {
		c := dial(t, url)
		for _, kind := range []int{websocket.TextMessage, websocket.BinaryMessage} {
			for _, n := range []int{0, 1, 32, 125, 126, 1 << 10, 16 << 10, 65535, 65536, 1 << 20} {
				p := payload(n)
				if err := c.WriteMessage(kind, p); err != nil {
					t.Fatal(err)
				}
				wantEcho(t, c, kind, p)
			}
		}
	})
	t.Run("sixteen in flight", func(t *testing.T) {
		c := dial(t, url)
		for i := range 16 {
			if err := c.WriteMessage(websocket.BinaryMessage, payload(32+i)); err != nil {
				t.Fatal(err)
			}
		}
		for i := range 16 {
			wantEcho(t, c, websocket.BinaryMessage, payload(32+i))
		}
	})
	t.Run("a message in two pieces of a stream", func(t *testing.T) {
		c := dial(t, url)
		w, err := c.NextWriter(websocket.TextMessage)
		if err != nil {
			t.Fatal(err)
		}
		p := payload(20000) // more than a write buffer: several frames
		w.Write(p[:9999])
		w.Write(p[9999:])
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		wantEcho(t, c, websocket.TextMessage, p)
	})
	t.Run("no compression, and a Close is answered", func(t *testing.T) {
		d := websocket.Dialer{EnableCompression: true}
		c, resp, err := d.Dial(url, nil)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if e := resp.Header.Get("Sec-WebSocket-Extensions"); e != "" {
			t.Errorf("the server agrees to %s", e)
		}
		c.SetReadDeadline(time.Now().Add(patience))
		c.WriteMessage(websocket.CloseMessage, websocket.FormatCloseMessage(websocket.CloseNormalClosure, ""))
		if _, _, err := c.ReadMessage(); !websocket.IsCloseError(err, websocket.CloseNormalClosure) {
			t.Errorf("instead of the Close with 1000: %v", err)
		}
	})
}

func wantEcho(t *testing.T, c *websocket.Conn, kind int, p []byte) {
	t.Helper()
	gotKind, got, err := c.ReadMessage()
	if err != nil {
		t.Fatalf("instead of an echo of %d bytes: %v", len(p), err)
	}
	if gotKind != kind || !bytes.Equal(got, p) {
		t.Fatalf("the echo of %d bytes of kind %d is %d bytes of kind %d", len(p), kind, len(got), gotKind)
	}
}

func TestEveryServerEchoes(t *testing.T) {
	for _, p := range peers {
		t.Run(p.name, func(t *testing.T) {
			t.Parallel()
			url := startSelf(t, p.name)
			if !p.tcp {
				echoes(t, url)
				return
			}
			addr, ok := strings.CutPrefix(url, "tcp://")
			if !ok {
				t.Fatalf("the URL is %s", url)
			}
			c, err := net.Dial("tcp4", addr)
			if err != nil {
				t.Fatal(err)
			}
			defer c.Close()
			c.SetDeadline(time.Now().Add(patience))
			sent, got := payload(1<<20), make([]byte, 1<<20)
			go c.Write(sent)
			if _, err := io.ReadFull(c, got); err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(got, sent) {
				t.Error("the echo is not what was sent")
			}
		})
	}
}

// What the others are tested with is tested with these too, and that they agree.
func TestDeflatingServersCompress(t *testing.T) {
	for _, p := range deflating {
		t.Run(p.name, func(t *testing.T) {
			t.Parallel()
			compresses(t, startSelf(t, p.name))
		})
	}
}

// compresses checks an echo that negotiates permessage-deflate.
func compresses(t *testing.T, url string) {
	t.Helper()
	d := websocket.Dialer{EnableCompression: true}
	c, resp, err := d.Dial(url, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetReadDeadline(time.Now().Add(patience))
	if e := resp.Header.Get("Sec-WebSocket-Extensions"); !strings.HasPrefix(e, "permessage-deflate") {
		t.Fatalf("the server agrees to %q", e)
	}
	for _, n := range []int{0, 1, 1 << 10, 1 << 20} {
		if err := c.WriteMessage(websocket.TextMessage, payload(n)); err != nil {
			t.Fatal(err)
		}
		wantEcho(t, c, websocket.TextMessage, payload(n))
	}
}

func TestServersThatPushSendToAllOthers(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range peers {
		if p.push == nil {
			continue
		}
		t.Run(p.name, func(t *testing.T) {
			url := start(t, self, p.name, "127.0.0.1:0", "push")
			from := dial(t, url)
			others := []*websocket.Conn{dial(t, url), dial(t, url), dial(t, url)}
			// A server may learn of a connection after its handshake: each says
			// its name again and again until the one that sends has heard it.
			heard := make(chan string)
			go func() {
				defer close(heard)
				for {
					_, b, err := from.ReadMessage()
					if err != nil {
						return
					}
					heard <- string(b)
				}
			}()
			for i, c := range others {
				for again := time.NewTicker(10 * time.Millisecond); ; {
					if err := c.WriteMessage(websocket.TextMessage, fmt.Append(nil, i)); err != nil {
						t.Fatal(err)
					}
					select {
					case <-again.C:
						continue
					case name := <-heard:
						if name != fmt.Sprint(i) {
							continue
						}
					}
					again.Stop()
					break
				}
			}
			go func() {
				for range heard {
				}
			}()
			if err := from.WriteMessage(websocket.BinaryMessage, payload(128)); err != nil {
				t.Fatal(err)
			}
			for _, c := range others {
				for {
					kind, b, err := c.ReadMessage()
					if err != nil {
						t.Fatal(err)
					}
					if kind == websocket.BinaryMessage {
						if !bytes.Equal(b, payload(128)) {
							t.Errorf("%d bytes came", len(b))
						}
						break
					}
				}
			}
		})
	}
}

func TestNpmWsEchoes(t *testing.T) {
	missing := t.Skipf
	if os.Getenv("WSPOLL_REQUIRE") == "1" {
		missing = t.Fatalf
	}
	node, err := exec.LookPath("node")
	if err != nil {
		missing("node is missing (version 20 or later; on Debian: apt-get install nodejs npm)")
	}
	if _, err := os.Stat(filepath.Join("..", "npm", "node_modules", "ws")); err != nil {
		missing("the npm package ws is missing; get it with: npm ci --prefix bench/peers/npm")
	}
	echoes(t, start(t, node, "npm-ws.mjs", "0"))
	compresses(t, start(t, node, "npm-ws.mjs", "0", "deflate"))
}

func TestPythonWebsocketsEchoes(t *testing.T) {
	missing := t.Skipf
	if os.Getenv("WSPOLL_REQUIRE") == "1" {
		missing = t.Fatalf
	}
	const python = "/usr/bin/python3" // whose package websockets is Debian's
	if exec.Command(python, "-c", "import websockets").Run() != nil {
		missing("the Python package websockets is missing; on Debian: apt-get install python3-websockets")
	}
	url := start(t, python, "py-websockets.py", "0")
	compresses(t, url)
}

func TestListNamesEveryServer(t *testing.T) {
	var out strings.Builder
	if err := run([]string{"list"}, &out); err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(strings.TrimSpace(out.String()), "\n")
	if len(lines) != len(peers) {
		t.Fatalf("%d lines for %d servers:\n%s", len(lines), len(peers), out.String())
	}
	for i, p := range peers {
		if f := strings.Fields(lines[i]); len(f) < 2 || f[0] != p.name {
			t.Errorf("line %d is %q, for %s", i, lines[i], p.name)
		}
	}
}

func TestBadCallsAreRefused(t *testing.T) {
	for _, args := range [][]string{{}, {"gorilla"}, {"none", "127.0.0.1:0"}, {"gorilla", "0.0.0.0:0"}, {"gorilla", "127.0.0.1"}, {"list", "a", "b"}, {"coder", "127.0.0.1:0", "push"}, {"gws", "127.0.0.1:0", "pull"}} {
		if err := run(args, io.Discard); err == nil {
			t.Errorf("servers %q is no error", args)
		}
	}
}
