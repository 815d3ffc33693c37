package peers

import (
	"bufio"
	"fmt"
	"net"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// front is a proxy of somebody's, or ours, that can be put before a backend.
type front struct {
	name string
	// start starts one before the backend at an address, ended with the test.
	start func(t *testing.T, backend string) *running
}

// running is a proxy that runs.
type running struct {
	addr   string
	reload func()                // reads its settings again; nil: it cannot
	logged func(parts ...string) // ours: waits for a line of its log
}

// idleOfFronts is after how much silence every front ends a connection, if it can.
const idleOfFronts = 2 * time.Second

var fronts = []front{
	{"wspoll frames", func(t *testing.T, backend string) *running { return startWspollProxy(t, backend, "frames") }},
	{"wspoll tunnel", func(t *testing.T, backend string) *running { return startWspollProxy(t, backend, "tunnel") }},
	{"nginx", startNginx},
	{"HAProxy", startHAProxy},
	{"Go ReverseProxy", startReverseProxy},
}

func startWspollProxy(t *testing.T, backend, mode string, args ...string) *running {
	t.Helper()
	file := filepath.Join(t.TempDir(), "backends")
	if err := os.WriteFile(file, []byte("ws://"+backend+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	s := start(t, append([]string{"proxy", "--backends", file, "--mode", mode, "--health-every", "0", "--idle-timeout", idleOfFronts.String()}, args...)...)
	addr := strings.Replace(strings.TrimSuffix(strings.TrimPrefix(s.url, "ws://"), "/"), "localhost", "127.0.0.1", 1)
	return &running{addr: addr, logged: s.logged, reload: func() {
		s.cmd.Process.Signal(syscall.SIGHUP)
		s.logged("backends read again")
	}}
}

// freeAddress is one on which nobody listens, for programs that cannot choose
// a port themselves. Somebody else may take it before they do.
func freeAddress(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// program finds a program or skips the test.
func program(t *testing.T, name string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		missing(t, "%s is missing (on Debian: apt-get install %s)", name, name)
	}
	return path
}

// daemon runs a program in the foreground until the test ends, and returns
// when it listens on addr.
func daemon(t *testing.T, addr, path string, args ...string) *exec.Cmd {
	t.Helper()
	cmd := exec.Command(path, args...)
	cmd.Stdout, cmd.Stderr = t.Output(), t.Output()
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Signal(syscall.SIGTERM)
		kill := time.AfterFunc(patience, func() { cmd.Process.Kill() })
		cmd.Wait()
		kill.Stop()
	})
	listens(t, addr)
	return cmd
}

func listens(t *testing.T, addr string) {
	t.Helper()
	for end := time.Now().Add(patience); ; time.Sleep(10 * time.Millisecond) { // each says so in another way, or not at all
		c, err := net.Dial("tcp", addr)
		if err == nil {
			c.Close()
			return
		}
		if time.Now().After(end) {
			t.Fatalf("nobody listens on %s", addr)
		}
	}
}

func startNginx(t *testing.T, backend string) *running {
	t.Helper()
	path, addr, dir := program(t, "nginx"), freeAddress(t), t.TempDir()
	os.Chmod(dir, 0o755)
	conf := filepath.Join(dir, "nginx.conf")
	text := fmt.Sprintf(`daemon off;
worker_processes 1;
error_log stderr error;
pid %[1]s/pid;
events { worker_connections 1000; }
http {
	access_log off;
	client_body_temp_path %[1]s/body; proxy_temp_path %[1]s/proxy; fastcgi_temp_path %[1]s/fastcgi;
	uwsgi_temp_path %[1]s/uwsgi; scgi_temp_path %[1]s/scgi;
	server {
		listen %[2]s;
		location / {
			proxy_pass http://%[3]s;
			proxy_http_version 1.1;
			proxy_set_header Upgrade $http_upgrade;
			proxy_set_header Connection "upgrade";
			proxy_set_header Host $http_host;
			proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
			proxy_read_timeout %[4]ds;
			proxy_send_timeout %[4]ds;
		}
	}
}
`, dir, addr, backend, int(idleOfFronts.Seconds()))
	if err := os.WriteFile(conf, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	cmd := daemon(t, addr, path, "-e", "stderr", "-c", conf)
	return &running{addr: addr, reload: func() {
		cmd.Process.Signal(syscall.SIGHUP)
		time.Sleep(300 * time.Millisecond) // it says nothing when it has
	}}
}

func startHAProxy(t *testing.T, backend string) *running {
	t.Helper()
	path, addr, dir := program(t, "haproxy"), freeAddress(t), t.TempDir()
	conf := filepath.Join(dir, "haproxy.cfg")
	text := fmt.Sprintf(`global
	nbthread 1
	maxconn 1000
defaults
	mode http
	option forwardfor
	timeout connect 5s
	timeout client 30s
	timeout server 30s
	timeout tunnel %[3]ds
frontend f
	bind %[1]s
	default_backend b
backend b
	server s1 %[2]s
`, addr, backend, int(idleOfFronts.Seconds()))
	if err := os.WriteFile(conf, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	cmd := daemon(t, addr, path, "-db", "-f", conf)
	return &running{addr: addr, reload: func() {
		// A new process takes over the port, the old one finishes what it has.
		daemon(t, addr, path, "-db", "-f", conf, "-sf", fmt.Sprint(cmd.Process.Pid))
		time.Sleep(300 * time.Millisecond) // it says nothing when the old one has stopped listening
	}}
}

// startReverseProxy is the proxy of the seed text.
func startReverseProxy(t *testing.T, backend string) *running {
	t.Helper()
	s := httptest.NewServer(httputil.NewSingleHostReverseProxy(&url.URL{Scheme: "http", Host: backend}))
	s.Config.ErrorLog = nil
	t.Cleanup(s.CloseClientConnections)
	return &running{addr: s.Listener.Addr().String()}
}

// serversBinary is the program of the directory servers, built once.
var serversBinary = sync.OnceValues(func() (string, error) {
	path := filepath.Join(filepath.Dir(wspoll), "servers")
	out, err := exec.Command("go", "build", "-o", path, "./servers").CombinedOutput()
	if err != nil {
		return "", fmt.Errorf("the servers cannot be built: %w\n%s", err, out)
	}
	return path, nil
})

// startServer starts the echo of a library and returns its URL.
func startServer(t *testing.T, name string) string {
	t.Helper()
	var cmd *exec.Cmd
	switch name {
	case "wspoll":
		return start(t).url
	case "npm-ws":
		if _, err := os.Stat(filepath.Join("npm", "node_modules", "ws")); err != nil {
			missing(t, "the npm package ws is missing; get it with: npm ci --prefix bench/peers/npm")
		}
		cmd = exec.Command(program(t, "node"), "servers/npm-ws.mjs", "0")
	default:
		path, err := serversBinary()
		if err != nil {
			t.Fatal(err)
		}
		cmd = exec.Command(path, name, "127.0.0.1:0")
	}
	cmd.Stderr = t.Output()
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		cmd.Process.Kill()
		cmd.Wait()
	})
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatalf("%s prints no URL: %v", name, err)
	}
	return strings.TrimSpace(line)
}
