package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"os/signal"
	"runtime"
	"runtime/debug"
	"slices"
	"strings"
	"syscall"
	"time"

	"wspoll/epoll"
	"wspoll/proxy"

	"github.com/spf13/cobra"
)

// proxyOptions are the flags of proxy. Those that serve has too are its own.
type proxyOptions struct {
	serveOptions
	to            []string
	routes        []string
	backends      string
	balance       string
	mode          string
	maxPerAddress int
	rate          float64
	trust         []string
	connect       time.Duration
	answer        time.Duration
	vanish        time.Duration
	healthEvery   time.Duration
	healthPath    string
	access        bool
	backendCA     string
	backendTrust  bool
	bareRelay     bool
}

// defaultBackend is where plain wspoll serves.
const defaultBackend = "ws://127.0.0.1:8002"

func proxyCommand() *cobra.Command {
	o := proxyOptions{serveOptions: serveOptions{maxHead: 8 << 10, maxMessage: 16 << 20, maxPending: 1 << 20, memoryBudget: 1 << 30}}
	cmd := &cobra.Command{
		Use:   "proxy",
		Short: "Pass WebSocket connections on to backends",
		Long: `Pass WebSocket connections on to backends, and plain HTTP requests too. The handshake is
checked here; then frames flow both ways, held to the protocol, without a goroutine or a
buffer while nothing is sent. A backend that dies costs its clients a Close 1012, not a
connection cut in the middle of a frame. Both sides may speak TLS: --tls-listen, and
backends of wss://.

SIGTERM refuses new requests and ends the tunnels, see --drain. SIGHUP reads the file of
--backends again and leaves open tunnels alone. ` + aboutFlags,
		Args: unknownCommand,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return proxyRun(cmd.OutOrStdout(), cmd.ErrOrStderr(), &o)
		},
	}
	f := cmd.Flags()
	f.SortFlags = false
	f.StringSliceVar(&o.listen, "listen", []string{"127.0.0.1:8082"}, "address to listen on; repeatable; port 0 takes a free one and prints it")
	f.StringSliceVar(&o.to, "to", nil, "backend for every path that no --route names; repeatable (default "+defaultBackend+")")
	f.StringSliceVar(&o.routes, "route", nil, "path prefix and backend, like /chat/=ws://127.0.0.1:8002; repeatable, also with the same prefix; the longest that fits counts")
	f.StringVar(&o.backends, "backends", "", "file of further backends, one on a line: ws://host:port, or a path prefix, a space and that; # begins a comment")
	f.StringVar(&o.balance, "balance", "least-connections", "how to choose among backends: least-connections, round-robin, hash:ip, or hash: and the name of a header")
	f.StringVar(&o.mode, "mode", "frames", "frames: checked and counted as they pass; tunnel: bytes as they are")
	f.IntVar(&o.loops, "loops", runtime.GOMAXPROCS(0), "event loops, each with a thread; one per CPU unless given")
	f.Var(&o.maxHead, "max-head", "longest head of a request (above it: 431) and of a backend's answer (502)")
	f.Var(&o.maxMessage, "max-message", "longest message over all its fragments, 0 for no limit; above it: close 1009")
	f.IntVar(&o.maxConnections, "max-connections", 0, "most connections of clients; above it: 503 (default: half of what the open-files limit allows)")
	f.IntVar(&o.maxPerAddress, "max-per-address", 0, "most connections of one client address, 0 for no limit; above it: 429")
	f.Float64Var(&o.rate, "handshakes-per-second", 0, "most requests a second of one client address, 0 for no limit; above it: 429")
	f.Var(&o.memoryBudget, "memory-budget", "most bytes that wait for all connections together, 0 for no limit")
	f.StringSliceVar(&o.trust, "trust", nil, "address or network of proxies in front whose X-Forwarded-* and Forwarded are believed; repeatable (default: nobody's)")
	f.DurationVar(&o.handshake, "handshake-timeout", 5*time.Second, "the request must be complete by then")
	f.DurationVar(&o.connect, "connect-timeout", 3*time.Second, "a backend must have taken the connection by then; another one is tried")
	f.DurationVar(&o.answer, "answer-timeout", 10*time.Second, "a backend must have answered the handshake by then; else 504")
	f.DurationVar(&o.idle, "idle-timeout", 2*time.Minute, "silence after which a side is closed; at half of it a ping is sent; with --mode tunnel, silence of both; 0 for never")
	f.DurationVar(&o.close, "close-timeout", 5*time.Second, "wait for a side's Close, and for its FIN")
	f.DurationVar(&o.write, "write-timeout", 30*time.Second, "a side that takes none of the bytes that wait for it for so long is given up")
	f.DurationVar(&o.vanish, "vanish-timeout", 30*time.Second, "a machine that acknowledges nothing for so long is gone; 0 leaves it to the kernel")
	f.DurationVar(&o.healthEvery, "health-every", 10*time.Second, "send each backend a handshake so often, and avoid those that fail; 0 for never")
	f.StringVar(&o.healthPath, "health-path", "", "path for these handshakes, whose answer must be 101 (default: / and any answer below 500)")
	f.DurationVar(&o.drain, "drain", 0, "on SIGTERM or SIGINT, let tunnels run so long before both sides get close 1001")
	o.tls.flags(f)
	f.StringVar(&o.backendCA, "backend-ca", "", "file of certificates in PEM that those of wss:// backends are held to (default: the machine's)")
	f.BoolVar(&o.backendTrust, "backend-insecure", false, "accept any certificate of a wss:// backend")
	f.BoolVar(&o.access, "access-log", true, "a log line at the end of each connection, at level info")
	f.StringVar(&o.logLevel, "log-level", "info", "debug, info, warn or error")
	f.StringVar(&o.logFormat, "log-format", "text", "text or json")
	f.StringVar(&o.pidfile, "pidfile", "", "file to write the process id to; removed at the end")
	o.metrics.flags(f)
	o.trace.flags(f)
	f.BoolVar(&o.bareRelay, "bare-relay", false, "relay plain TCP bytes to the first backend, nothing else: the floor to measure against")
	f.Lookup("bare-relay").Hidden = true
	return cmd
}

// config checks the flags and makes a proxy's settings of them.
func (o *proxyOptions) config(log *slog.Logger) (cfg proxy.Config, err error) {
	bad := func(flag string, value any, want string) (proxy.Config, error) {
		return proxy.Config{}, &badValue{flag: flag, value: fmt.Sprint(value), want: want}
	}
	if err := o.check(); err != nil {
		return cfg, err
	}
	cfg = proxy.Config{
		Loops:               o.loops,
		MaxHead:             int(o.maxHead),
		MaxMessage:          orUnlimited(int64(o.maxMessage)),
		MemoryBudget:        orUnlimited(int64(o.memoryBudget)),
		MaxPerAddress:       o.maxPerAddress,
		HandshakesPerSecond: o.rate,
		HandshakeTimeout:    o.handshake,
		ConnectTimeout:      o.connect,
		AnswerTimeout:       o.answer,
		IdleTimeout:         time.Duration(orUnlimited(int64(o.idle))),
		CloseTimeout:        o.close,
		WriteTimeout:        o.write,
		VanishTimeout:       time.Duration(orUnlimited(int64(o.vanish))),
		HealthEvery:         o.healthEvery,
		HealthPath:          o.healthPath,
		Log:                 log,
	}
	if o.access {
		cfg.Access = log
	}
	switch o.mode {
	case "frames":
	case "tunnel":
		cfg.Mode = proxy.ModeTunnel
	default:
		return bad("mode", o.mode, "frames or tunnel")
	}
	if cfg.Balance, err = proxy.ParseBalance(o.balance); err != nil {
		return bad("balance", o.balance, "least-connections, round-robin, hash:ip, or hash: and the name of a header")
	}
	switch {
	case o.maxPerAddress < 0:
		return bad("max-per-address", o.maxPerAddress, "0 or more")
	case !(o.rate >= 0 && o.rate <= 1e6):
		return bad("handshakes-per-second", o.rate, "from 0 to 1000000")
	case o.healthPath != "" && !strings.HasPrefix(o.healthPath, "/"):
		return bad("health-path", o.healthPath, "a path, like /health")
	}
	for _, d := range []struct {
		flag  string
		value time.Duration
		least time.Duration
	}{
		{"connect-timeout", o.connect, epoll.Tick},
		{"answer-timeout", o.answer, epoll.Tick},
		{"vanish-timeout", o.vanish, 0},
		{"health-every", o.healthEvery, 0},
	} {
		if d.value < d.least || d.value > 365*24*time.Hour {
			return bad(d.flag, d.value, fmt.Sprintf("from %s to a year", d.least))
		}
	}
	for _, s := range o.trust {
		p, err := netip.ParsePrefix(s)
		if a, aerr := netip.ParseAddr(s); err != nil && aerr == nil {
			p, err = a.Prefix(a.BitLen())
		}
		if err != nil {
			return bad("trust", s, "an address or a network, like 10.0.0.7 or 10.0.0.0/8")
		}
		cfg.Trusted = append(cfg.Trusted, p)
	}
	if o.backendCA != "" && o.backendTrust {
		return cfg, errors.New("--backend-ca is of no use with --backend-insecure")
	}
	if cfg.BackendTLS, err = backendTLS(o.backendCA, o.backendTrust); err != nil {
		return cfg, err
	}
	cfg.Routes, err = o.allRoutes()
	return cfg, err
}

// allRoutes are those of the flags and of the file.
func (o *proxyOptions) allRoutes() (routes []proxy.Route, err error) {
	add := func(prefix, to string) {
		for i := range routes {
			if routes[i].Prefix == prefix {
				routes[i].To = append(routes[i].To, to)
				return
			}
		}
		routes = append(routes, proxy.Route{Prefix: prefix, To: []string{to}})
	}
	for _, to := range o.to {
		if err := proxy.CheckBackend(to); err != nil {
			return nil, fmt.Errorf("--to: %w", err)
		}
		add("/", to)
	}
	for _, r := range o.routes {
		prefix, to, ok := strings.Cut(r, "=")
		if !ok || !strings.HasPrefix(prefix, "/") {
			return nil, &badValue{flag: "route", value: r, want: "a path prefix, = and a backend, like /chat/=ws://127.0.0.1:8002"}
		}
		if err := proxy.CheckBackend(to); err != nil {
			return nil, fmt.Errorf("--route %s: %w", prefix, err)
		}
		add(prefix, to)
	}
	if o.backends != "" {
		b, err := os.ReadFile(o.backends)
		if err != nil {
			return nil, failed(fmt.Errorf("--backends cannot be read: %w", err))
		}
		number := 0
		for line := range strings.Lines(string(b)) {
			number++
			line, _, _ = strings.Cut(line, "#")
			switch words := strings.Fields(line); {
			case len(words) == 0:
			case len(words) == 1 && !strings.HasPrefix(words[0], "/"):
				add("/", words[0])
			case len(words) == 2 && strings.HasPrefix(words[0], "/"):
				add(words[0], words[1])
			default:
				return nil, failed(fmt.Errorf("%s line %d is neither a backend like ws://127.0.0.1:8002 nor a path prefix and one: %s", o.backends, number, shown(strings.TrimSpace(line))))
			}
		}
		if len(routes) == 0 {
			return nil, failed(fmt.Errorf("%s names no backend", o.backends))
		}
	}
	if len(routes) == 0 {
		add("/", defaultBackend)
	}
	return routes, nil
}

func proxyRun(stdout, stderr io.Writer, o *proxyOptions) error {
	log := o.logger(stderr)
	cfg, err := o.config(log)
	if err != nil {
		return err
	}
	stop := make(chan os.Signal, 2)
	signal.Notify(stop, os.Interrupt, syscall.SIGTERM)
	hup := make(chan os.Signal, 1)
	signal.Notify(hup, syscall.SIGHUP)

	files, err := raiseFileLimit()
	if err != nil {
		return failed(err)
	}
	spareProcessor(o.loops)
	if o.bareRelay {
		return failed(relayBare(stdout, log, o, cfg.Routes[0].To[0], stop))
	}
	// Each loop has an epoll instance, an eventfd, a pipe and its listeners.
	room := max(1, (files-sparedFiles-o.loops*(4+len(o.listen)+len(o.tls.listen)))/2)
	cfg.MaxConnections = o.maxConnections
	if o.maxConnections == 0 {
		cfg.MaxConnections = room
	} else if o.maxConnections > room {
		cfg.MaxConnections = room
		log.Warn("fewer connections than --max-connections are possible: raise the open-files limit (ulimit -Hn), or run several processes",
			"max_connections", o.maxConnections, "possible", room)
	}
	var certificate func()
	if cfg.TLS, certificate, err = o.tls.config(log); err != nil {
		return failed(err)
	}
	trace := o.trace.start(stdout, log)
	defer trace.close()
	cfg.Trace, cfg.TracePath = trace.proxy(), trace.paths()
	px, err := proxy.New(cfg)
	if err != nil {
		return failed(err)
	}
	addrs, err := listenAll("listen", o.listen, px.Listen)
	if err != nil {
		return failed(err)
	}
	secure, err := listenAll("tls-listen", o.tls.listen, px.ListenTLS)
	if err != nil {
		return failed(err)
	}
	metrics, err := o.metrics.open(log)
	if err != nil {
		return failed(err)
	}
	defer metrics.end()
	for _, addr := range addrs {
		announceProxy(stdout, "ws", addr, cfg.Routes)
	}
	for _, addr := range secure {
		announceProxy(stdout, "wss", addr, cfg.Routes)
	}
	if err := o.writePidfile(); err != nil {
		return failed(err)
	}
	defer o.removePidfile()
	if os.Getenv("GOGC") == "" && cfg.TLS == nil && !slices.ContainsFunc(cfg.Routes, proxy.Route.HasTLS) {
		// What is alive are tables without pointers, so that a collection costs
		// next to nothing, and messages make no garbage, only handshakes do:
		// collecting often keeps the memory small. (crypto/tls is made of pointers.)
		debug.SetGCPercent(10)
	}
	px.Start()
	metrics.start(stdout, nil, px)
	log.Info(fmt.Sprintf("room for %d connections; Ctrl-C ends", cfg.MaxConnections), "open_files", files)
	awaitStop(stop, hup, func() {
		if certificate != nil {
			certificate()
		}
		o.reload(px, log)
	})
	log.Info("ending: new requests are refused, tunnels get 1001", "after", o.drain)
	go func() {
		<-stop
		log.Warn("second signal: ending at once")
		o.removePidfile()
		os.Exit(exitFail)
	}()
	ctx, cancel := context.WithTimeout(context.Background(), o.drain+2*o.close)
	defer cancel()
	if err := px.Shutdown(ctx, o.drain); err != nil {
		log.Warn("ended before every connection was closed", "error", err)
	}
	return nil
}

// reload reads the file of --backends again.
func (o *proxyOptions) reload(px *proxy.Proxy, log *slog.Logger) {
	if o.backends == "" {
		if o.tls.cert == "" {
			log.Warn("SIGHUP has nothing to read again: there is no --backends, and no --tls-cert")
		}
		return
	}
	routes, err := o.allRoutes()
	if err == nil {
		err = px.SetRoutes(routes)
	}
	if err != nil {
		log.Error("the backends stay as they were", "error", err)
		return
	}
	log.Info("backends read again", "file", o.backends)
}

// announceProxy says what goes where.
func announceProxy(w io.Writer, scheme string, addr net.Addr, routes []proxy.Route) {
	routes = slices.Clone(routes)
	slices.SortStableFunc(routes, func(a, b proxy.Route) int { return len(b.Prefix) - len(a.Prefix) })
	for _, r := range routes {
		fmt.Fprintf(w, "%s://%s%-12s to %s\n", scheme, urlHost(addr), r.Prefix, strings.Join(r.To, ", "))
	}
}

// plainProxy is where plain wspoll proxies.
const plainProxy = "127.0.0.1:8082"

// startProxy starts the proxy of serve --proxy-listen to the server at to; nil
// without that flag.
func (o *serveOptions) startProxy(stdout io.Writer, log *slog.Logger, to net.Addr, room int) (*proxy.Proxy, error) {
	if o.proxyListen == "" {
		return nil, nil
	}
	host, port, _ := net.SplitHostPort(to.String())
	if ip := net.ParseIP(host); ip.IsUnspecified() {
		host = "localhost"
	}
	routes := []proxy.Route{{Prefix: "/", To: []string{"ws://" + net.JoinHostPort(host, port)}}}
	px, err := proxy.New(proxy.Config{
		Routes:           routes,
		Loops:            o.loops,
		MaxHead:          int(o.maxHead),
		MaxMessage:       orUnlimited(int64(o.maxMessage)),
		MaxConnections:   room,
		MemoryBudget:     orUnlimited(int64(o.memoryBudget)),
		HandshakeTimeout: o.handshake,
		IdleTimeout:      time.Duration(orUnlimited(int64(o.idle))),
		CloseTimeout:     o.close,
		WriteTimeout:     o.write,
		Log:              log,
	})
	if err != nil {
		return nil, err
	}
	addr, err := px.Listen(o.proxyListen)
	if err != nil {
		return nil, listenError("proxy-listen", o.proxyListen, err)
	}
	px.Start()
	announceProxy(stdout, "ws", addr, routes)
	return px, nil
}

// relayBare is proxy --bare-relay.
func relayBare(stdout io.Writer, log *slog.Logger, o *proxyOptions, to string, stop <-chan os.Signal) error {
	addr, err := net.ResolveTCPAddr("tcp", strings.TrimSuffix(strings.TrimPrefix(to, "ws://"), "/"))
	if err != nil {
		return fmt.Errorf("backend %s: %w", to, err)
	}
	g, err := epoll.NewGroup(proxy.BareConfig(o.loops), func(l *epoll.Loop) epoll.Handler { return proxy.NewBare(l, addr) })
	if err != nil {
		return err
	}
	for _, a := range o.listen {
		bound, err := g.Listen(a, 0)
		if err != nil {
			return listenError("listen", a, err)
		}
		fmt.Fprintf(stdout, "tcp://%s relays plain TCP bytes to %s\n", strings.Replace(urlHost(bound), "localhost", "127.0.0.1", 1), addr)
	}
	if err := o.writePidfile(); err != nil {
		return err
	}
	defer o.removePidfile()
	g.Start()
	<-stop
	log.Info("ending")
	g.Stop()
	return nil
}
