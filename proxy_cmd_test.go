package main

import (
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/spf13/pflag"

	"github.com/gobwas/ws"
)

func TestBadValueOfAFlagOfProxyIsOneLineAndStatus2(t *testing.T) {
	for _, tt := range []struct {
		args string
		want string // the whole line
	}{
		{"--to wss://127.0.0.1:1 --backend-ca x --backend-insecure", "--backend-ca is of no use with --backend-insecure"},
		{"--tls-listen 127.0.0.1:0", "--tls-listen needs --tls-cert and --tls-key, or --tls-self-signed to try it out"},
		{"--to 127.0.0.1:8002", `--to: backend "127.0.0.1:8002" is no URL like ws://127.0.0.1:8002`},
		{"--route /a/", "--route /a/: must be a path prefix, = and a backend, like /chat/=ws://127.0.0.1:8002"},
		{"--route a=ws://127.0.0.1:1", "--route a=ws://127.0.0.1:1: must be a path prefix, = and a backend, like /chat/=ws://127.0.0.1:8002"},
		{"--route /a=x", `--route /a: backend "x" is no URL like ws://127.0.0.1:8002`},
		{"--balance random", "--balance random: must be least-connections, round-robin, hash:ip, or hash: and the name of a header"},
		{"--mode fast", "--mode fast: must be frames or tunnel"},
		{"--loops 0", "--loops 0: must be from 1 to 1024"},
		{"--listen 8082", "--listen 8082: must be host:port, like 127.0.0.1:8002, :8002 or [::1]:0"},
		{"--metrics-listen 127.0.0.1:http:0", "--metrics-listen 127.0.0.1:http:0: must be host:port, like 127.0.0.1:8002, :8002 or [::1]:0"},
		{"--max-per-address -1", "--max-per-address -1: must be 0 or more"},
		{"--handshakes-per-second -1", "--handshakes-per-second -1: must be from 0 to 1000000"},
		{"--handshakes-per-second NaN", "--handshakes-per-second NaN: must be from 0 to 1000000"},
		{"--trust localhost", "--trust localhost: must be an address or a network, like 10.0.0.7 or 10.0.0.0/8"},
		{"--connect-timeout 0s", "--connect-timeout 0s: must be from 50ms to a year"},
		{"--answer-timeout 0s", "--answer-timeout 0s: must be from 50ms to a year"},
		{"--vanish-timeout -1s", "--vanish-timeout -1s: must be from 0s to a year"},
		{"--health-every -1s", "--health-every -1s: must be from 0s to a year"},
		{"--health-path x", "--health-path x: must be a path, like /health"},
		{"--drain soon", "--drain soon: must be a time like 500ms, 5s, 2m or 1h30m"},
		{"here", `"here" is not an argument of wspoll proxy; see wspoll proxy --help`},
	} {
		t.Run(tt.args, func(t *testing.T) {
			code, stdout, stderr := call(append([]string{"proxy"}, strings.Fields(tt.args)...)...)
			if code != exitUsage || stdout != "" || stderr != "wspoll: "+tt.want+"\n" {
				t.Errorf("exit %d, stdout %q, stderr\n%s want\nwspoll: %s", code, stdout, stderr, tt.want)
			}
		})
	}
}

func TestProxyThatCannotStartIsOneLineAndStatus1(t *testing.T) {
	dir := t.TempDir()
	file := func(name, content string) string {
		p := filepath.Join(dir, name)
		if err := os.WriteFile(p, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		return p
	}
	empty, bad := file("empty", "# nothing\n\n"), file("bad", "ws://127.0.0.1:1\n/a ws://127.0.0.1:2 ws://127.0.0.1:3\n")
	held, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer held.Close()
	for _, tt := range []struct {
		args []string
		want string
	}{
		{[]string{"--backends", filepath.Join(dir, "none")}, "--backends cannot be read: open " + filepath.Join(dir, "none") + ": no such file or directory"},
		{[]string{"--backends", empty}, empty + " names no backend"},
		{[]string{"--backends", bad}, bad + ` line 2 is neither a backend like ws://127.0.0.1:8002 nor a path prefix and one: "/a ws://127.0.0.1:2 ws://127.0.0.1:3"`},
		{[]string{"--to", "ws://127.0.0.1:1", "--to", "ws://127.0.0.1:1"}, `route "/": backend ws://127.0.0.1:1 is there twice`},
		{[]string{"--listen", held.Addr().String()}, "cannot listen on " + held.Addr().String() + ": the address is in use; choose another with --listen, or end what uses it"},
	} {
		code, stdout, stderr := call(append([]string{"proxy"}, tt.args...)...)
		if code != exitFail || stdout != "" || stderr != "wspoll: "+tt.want+"\n" {
			t.Errorf("%q: exit %d, stdout %q, stderr\n%s want\nwspoll: %s", tt.args, code, stdout, stderr, tt.want)
		}
	}
}

func TestEveryFlagOfProxySaysWhatItIsFor(t *testing.T) {
	_, stdout, _ := call("proxy", "--help")
	proxyCommand().Flags().VisitAll(func(f *pflag.Flag) {
		if f.Usage == "" || f.Hidden == strings.Contains(stdout, "--"+f.Name+" ") {
			t.Errorf("--%s: hidden %v, usage %q", f.Name, f.Hidden, f.Usage)
		}
	})
}

// proxying starts a proxy on a free port and returns the URL it prints.
func proxying(t *testing.T, args ...string) (p *process, url string) {
	t.Helper()
	return serving(t, append([]string{"proxy"}, args...)...)
}

func TestProxyPassesOnToTheServer(t *testing.T) {
	_, behind := serving(t)
	backend := strings.TrimSuffix(behind, "/wshandler")
	for _, mode := range []string{"frames", "tunnel"} {
		p, url := proxying(t, "--to", backend, "--mode", mode)
		c := dial(t, url+"wshandler")
		echo(t, c, "hello")
		if err := ws.WriteFrame(c, ws.MaskFrameInPlace(ws.NewCloseFrame(ws.NewCloseFrameBody(4000, "done")))); err != nil {
			t.Fatal(err)
		}
		if code := closeCode(t, c); code != 4000 {
			t.Errorf("%s: Close %d", mode, code)
		}
		c.Close()
		line := p.stderr.next("path=/wshandler")
		want := []string{"status=101", "backend=" + strings.TrimPrefix(backend, "ws://")}
		if mode == "frames" {
			want = append(want, "messages_up=1", "messages_down=1", `end="client closed"`, "code=4000", "reason=done")
		}
		for _, part := range want {
			if !strings.Contains(line, part) {
				t.Errorf("%s: no %s in %s", mode, part, line)
			}
		}
		resp, err := http.Get(strings.Replace(url, "ws://", "http://", 1) + "healthz")
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != http.StatusOK {
			t.Errorf("%s: a plain request is answered with %s", mode, resp.Status)
		}
		p.stop()
	}
}

func TestServeStartsAProxyToItself(t *testing.T) {
	p, url := serving(t, "serve", "--proxy-listen", "127.0.0.1:0")
	p.stdout.next("/topics/")
	through := p.url()
	if through == url || !strings.HasSuffix(through, "/") {
		t.Fatalf("the proxy is at %s, the server at %s", through, url)
	}
	c := dial(t, through+"wshandler")
	echo(t, c, "through the proxy")
	echo(t, dial(t, url), "and not")
	p.signal(syscall.SIGTERM)
	if code := closeCode(t, c); code != ws.StatusGoingAway {
		t.Errorf("Close %d", code)
	}
	if code := p.wait(); code != exitOK {
		t.Errorf("exit %d", code)
	}
}

func TestTheProxysAddressInUseNamesItsFlag(t *testing.T) {
	held, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer held.Close()
	p := start(t, "serve", "--listen", "127.0.0.1:0", "--proxy-listen", held.Addr().String())
	want := "wspoll: cannot listen on " + held.Addr().String() + ": the address is in use; choose another with --proxy-listen, or end what uses it"
	if code := p.wait(); code != exitFail || p.stderr.next("cannot listen") != want {
		t.Errorf("exit %d, %q", code, p.stderr.seen)
	}
}

func TestSIGHUPReadsTheBackendsAgainAndLeavesTunnelsAlone(t *testing.T) {
	_, one := serving(t, "--subprotocol", "one")
	_, two := serving(t, "--subprotocol", "two")
	file := filepath.Join(t.TempDir(), "backends")
	write := func(content string) {
		t.Helper()
		if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	base := func(url string) string { return strings.TrimSuffix(url, "/wshandler") }
	write("# first\n" + base(one) + "\n")
	p, url := proxying(t, "--backends", file, "--log-format", "text")
	spoken := func() string {
		t.Helper()
		d := ws.Dialer{Protocols: []string{"one", "two"}}
		c, _, h, err := d.Dial(t.Context(), url+"wshandler")
		if err != nil {
			t.Fatal(err)
		}
		c.Close()
		return h.Protocol
	}
	old := dial(t, url+"wshandler")
	if got := spoken(); got != "one" {
		t.Errorf("%q speaks", got)
	}
	write("/ " + base(two) + " # second\n")
	p.signal(syscall.SIGHUP)
	p.stderr.next("backends read again")
	if got := spoken(); got != "two" {
		t.Errorf("%q speaks", got)
	}
	echo(t, old, "still there")
	write("ws://127.0.0.1:1/path\n")
	p.signal(syscall.SIGHUP)
	if line := p.stderr.next("the backends stay as they were"); !strings.Contains(line, "only scheme, host and port") {
		t.Error(line)
	}
	if got := spoken(); got != "two" {
		t.Errorf("%q speaks", got)
	}
	p.stop()
}

func TestProxyDrainsOnSIGTERM(t *testing.T) {
	_, behind := serving(t)
	p, url := proxying(t, "--to", strings.TrimSuffix(behind, "/wshandler"), "--drain", "1s")
	c := dial(t, url+"wshandler")
	p.signal(syscall.SIGTERM)
	p.stderr.next("ending")
	echo(t, c, "it may go on for a while")
	if code := closeCode(t, c); code != ws.StatusGoingAway {
		t.Errorf("Close %d", code)
	}
	if code := p.wait(); code != exitOK {
		t.Errorf("exit %d", code)
	}
}

func TestBareRelayRelaysBytes(t *testing.T) {
	addr := func(p *process) string {
		addr, _, _ := strings.Cut(strings.TrimPrefix(p.stdout.next("tcp://"), "tcp://"), " ")
		return addr
	}
	behind := start(t, "--bare-echo", "--listen", "127.0.0.1:0")
	p := start(t, "proxy", "--bare-relay", "--to", "ws://"+addr(behind), "--listen", "127.0.0.1:0")
	c, err := net.Dial("tcp", addr(p))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(patience))
	sent := strings.Repeat("no frames here \x00\xff\r\n", 50_000)
	go io.WriteString(c, sent)
	got := make([]byte, len(sent))
	if n, err := io.ReadFull(c, got); err != nil || string(got) != sent {
		t.Fatalf("%d bytes came back, %v", n, err)
	}
	behind.stop()
	if n, err := c.Read(got); err != io.EOF {
		t.Errorf("%d bytes and %v came, want the end", n, err)
	}
	p.stop()
}
