package bench

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httputil"
	"net/url"
	"os/exec"
	"strings"
	"time"
)

// Comparing proxies: each contestant stands in front of the same backend,
// which is on the client's processor. What is measured is the proxy alone.

const (
	backendMark = "{backend}" // host:port of the server behind a proxy
	configMark  = "{config}"  // the path of a file that holds Contestant.Config
	dirMark     = "{dir}"     // a directory that the contestant may write to
)

// ProxyCases are the cases of bench compare --proxy. Quick ones have fewer
// connections.
func ProxyCases(idle int, quick bool) []CompareCase {
	many, some, most, generations := 500, 100, idle, 10
	if quick {
		many, some, most, generations = 100, 20, min(idle, 500), 2
	}
	return []CompareCase{
		{Name: "echo-32", Kind: CompareEcho, Connections: many, Size: 32, Depth: 1},
		{Name: "echo-1k", Kind: CompareEcho, Connections: many, Size: 1 << 10, Depth: 1},
		{Name: "echo-64k", Kind: CompareEcho, Connections: some, Size: 64 << 10, Depth: 1},
		{Name: "handshake", Kind: CompareHandshake, Connections: 64},
		{Name: "idle", Kind: CompareIdle, Connections: most, Size: 32, MostRounds: 1},
		{Name: "generations", Kind: CompareGenerations, Connections: most, Size: 4 << 10, Generations: generations, MostRounds: 1},
	}
}

// Proxies are the proxies of other people that are on this machine, as their
// documentation sets them up for WebSocket and with larger buffers. reverse is
// the command that runs ServeReverseProxy. What is missing is said to stderr.
func Proxies(reverse []string, stderr io.Writer) (all []Contestant) {
	if path, err := exec.LookPath("nginx"); err != nil {
		fmt.Fprintln(stderr, "without nginx: it is not installed (on Debian: apt-get install nginx-light)")
	} else {
		about := version(path, "nginx version: nginx/", "-v")
		nginx := func(name, more, settings string) Contestant {
			return Contestant{
				Name: name, About: "nginx " + about + more,
				Args:   []string{path, "-e", "stderr", "-c", configMark},
				Config: strings.ReplaceAll(nginxConfig, "{settings}", settings),
			}
		}
		all = append(all, nginx("nginx", "", ""), nginx("nginx-64k", ", proxy_buffer_size 64k", "proxy_buffer_size 64k; proxy_buffers 8 64k; proxy_busy_buffers_size 64k;"))
	}
	if path, err := exec.LookPath("haproxy"); err != nil {
		fmt.Fprintln(stderr, "without HAProxy: it is not installed (on Debian: apt-get install haproxy)")
	} else {
		about := version(path, "HAProxy version ", "-v")
		haproxy := func(name, more, global, defaults string) Contestant {
			return Contestant{
				Name: name, About: "HAProxy " + about + more,
				Args:   []string{path, "-db", "-f", configMark},
				Config: strings.NewReplacer("{global}", global, "{defaults}", defaults).Replace(haproxyConfig),
			}
		}
		all = append(all, haproxy("haproxy", "", "", ""), haproxy("haproxy-64k", ", tune.bufsize 64k, splice-auto", "tune.bufsize 65664", "option splice-auto"))
	}
	return append(all, Contestant{Name: "go", About: "httputil.ReverseProxy, goroutines", Args: append(reverse, backendMark)})
}

// One process, one thread, no log, and timeouts that no measurement reaches.
const (
	nginxConfig = `daemon off;
master_process off;
worker_rlimit_nofile 20000;
error_log stderr error;
pid {dir}/pid;
events { worker_connections 19000; }
http {
	access_log off;
	client_body_temp_path {dir}/body; proxy_temp_path {dir}/proxy; fastcgi_temp_path {dir}/fastcgi;
	uwsgi_temp_path {dir}/uwsgi; scgi_temp_path {dir}/scgi;
	server {
		listen 127.0.0.1:{port} backlog=4096;
		location / {
			proxy_pass http://{backend};
			proxy_http_version 1.1;
			proxy_set_header Upgrade $http_upgrade;
			proxy_set_header Connection "upgrade";
			proxy_set_header Host $http_host;
			proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
			proxy_read_timeout 600s;
			{settings}
		}
	}
}
`
	haproxyConfig = `global
	nbthread 1
	maxconn 9000
	{global}
defaults
	mode http
	option forwardfor
	timeout connect 5s
	timeout client 60s
	timeout server 60s
	timeout tunnel 600s
	{defaults}
frontend f
	bind 127.0.0.1:{port} backlog 4096
	default_backend b
backend b
	server s1 {backend}
`
)

// version is what a program says behind a mark in its first line.
func version(path, mark string, args ...string) string {
	out, _ := exec.Command(path, args...).CombinedOutput() // without one there is nothing to say
	_, v, _ := strings.Cut(string(out), mark)
	v, _, _ = strings.Cut(strings.TrimSpace(v), "\n")
	v, _, _ = strings.Cut(v, " ")
	return v
}

// before is the contestant in front of the backend at host:port.
func (who Contestant) before(backend string) Contestant {
	who.Config = strings.ReplaceAll(who.Config, backendMark, backend)
	args := make([]string, len(who.Args))
	for i, a := range who.Args {
		args[i] = strings.ReplaceAll(a, backendMark, backend)
	}
	who.Args = args
	return who
}

// throughProxy is the URL of an endpoint of a backend at a proxy in front of it.
func throughProxy(proxy, backend string) (string, error) {
	p, err := url.Parse(proxy)
	if err != nil {
		return "", err
	}
	b, err := url.Parse(backend)
	if err != nil {
		return "", err
	}
	return "ws://" + p.Host + b.RequestURI(), nil
}

// ServeReverseProxy is the reverse proxy of the standard library in front of
// the backend at host:port, until ctx ends.
func ServeReverseProxy(ctx context.Context, backend string, out io.Writer) error {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	s := &http.Server{Handler: httputil.NewSingleHostReverseProxy(&url.URL{Scheme: "http", Host: backend})}
	fmt.Fprintf(out, "ws://%s/\n", ln.Addr())
	defer context.AfterFunc(ctx, func() { s.Close() })()
	if err := s.Serve(ln); ctx.Err() == nil {
		return err
	}
	return nil
}

// generations is idle after others have come, sent messages, and gone.
func (m *measurement) generations() (ComparedFigures, error) {
	before, err := m.settled()
	if err != nil {
		return nil, err
	}
	for range m.c.Generations {
		if err := m.generation(); err != nil {
			return nil, err
		}
	}
	f, err := m.idle()
	if err != nil {
		return nil, err
	}
	// What the generations have left counts too.
	f[figureEach] += (f[figureBefore] - float64(before)) / float64(m.c.Connections)
	f[figureBefore] = float64(before)
	return f, nil
}

// generation opens all connections, exchanges messages on them, and closes them.
func (m *measurement) generation() error {
	cl, err := m.opened(m.c.Connections)
	if err != nil {
		return err
	}
	defer cl.Stop()
	cl.Start()
	if err := m.sleep(max(m.o.Interval/4, 100*time.Millisecond)); err != nil {
		return err
	}
	if err := m.trouble(cl); err != nil {
		return err
	}
	cl.Close(10 * time.Second)
	return nil
}
