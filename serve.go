package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"

	"wspoll/epoll"
	"wspoll/handshake"
	"wspoll/inspect/web"
	"wspoll/server"

	"github.com/spf13/cobra"
)

// serveOptions are the flags of serve.
type serveOptions struct {
	listen         []string
	loops          int
	maxHead        byteSize
	maxMessage     byteSize
	maxPending     byteSize
	maxConnections int
	memoryBudget   byteSize
	handshake      time.Duration
	idle           time.Duration
	close          time.Duration
	write          time.Duration
	drain          time.Duration
	subprotocols   []string
	origins        []string
	compress       string
	compressMin    byteSize
	logLevel       string
	logFormat      string
	pidfile        string
	proxyListen    string
	push           pushOptions
	nats           natsOptions
	tls            tlsOptions
	metrics        metricsOptions
	trace          traceOptions
	noPage         bool
	bareEcho       bool
	barePush       bool
}

func serveCommand() *cobra.Command {
	o := serveOptions{maxHead: 8 << 10, maxMessage: 16 << 20, maxPending: 1 << 20, memoryBudget: 1 << 30, compressMin: 256}
	cmd := &cobra.Command{
		Use:   "serve",
		Short: "Serve WebSocket connections (what plain wspoll does)",
		Long:  "Serve WebSocket connections: an echo at /wshandler, heart beats at /push, and topics. " + aboutFlags,
		Args:  unknownCommand,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if f := cmd.Flags(); !cmd.HasParent() && !f.Changed("listen") && !f.Changed("proxy-listen") {
				o.proxyListen = plainProxy
			}
			return serve(cmd.OutOrStdout(), cmd.ErrOrStderr(), &o)
		},
	}
	f := cmd.Flags()
	f.SortFlags = false
	f.StringSliceVar(&o.listen, "listen", []string{"127.0.0.1:8002"}, "address to listen on; repeatable; port 0 takes a free one and prints it")
	f.IntVar(&o.loops, "loops", runtime.GOMAXPROCS(0), "event loops, each with a thread; one per CPU unless given")
	f.Var(&o.maxHead, "max-head", "longest request head; above it: 431")
	f.Var(&o.maxMessage, "max-message", "longest message over all its fragments, 0 for no limit; above it: close 1009")
	f.Var(&o.maxPending, "max-pending", "most bytes that may wait for one slow reader; above it the connection is closed")
	f.IntVar(&o.maxConnections, "max-connections", 0, "most connections; above it: 503 (default: what the open-files limit allows)")
	f.Var(&o.memoryBudget, "memory-budget", "most bytes in the buffers of all connections together, 0 for no limit")
	f.DurationVar(&o.handshake, "handshake-timeout", 5*time.Second, "the request must be complete by then")
	f.DurationVar(&o.idle, "idle-timeout", 2*time.Minute, "silence after which a connection is closed with 1001; at half of it a ping is sent; 0 for never")
	f.DurationVar(&o.close, "close-timeout", 5*time.Second, "wait for the peer's Close, and for its FIN")
	f.DurationVar(&o.write, "write-timeout", 10*time.Second, "a peer that takes none of the bytes that wait for it for so long is cut off")
	f.DurationVar(&o.drain, "drain", 10*time.Second, "on SIGTERM or SIGINT, wait so long for the connections to close")
	f.StringSliceVar(&o.subprotocols, "subprotocol", nil, "subprotocol that the server speaks; repeatable")
	f.StringSliceVar(&o.origins, "origin", nil, `allowed origin like https://example.com or https://*.example.com, "*" for any; repeatable (default: the host that the request names; clients that send no Origin always pass)`)
	f.StringVar(&o.compress, "compress", "shared", "compress messages for clients that offer it: shared (each for itself, an idle connection holds nothing), context (each may refer to earlier ones, up to 4 KiB in each direction), or off")
	f.Var(&o.compressMin, "compress-min", "smallest payload to compress; an echo goes as the message came, whatever its size")
	f.StringVar(&o.logLevel, "log-level", "info", "debug, info, warn or error")
	f.StringVar(&o.logFormat, "log-format", "text", "text or json")
	f.StringVar(&o.pidfile, "pidfile", "", "file to write the process id to; removed at the end")
	o.push.flags(f)
	o.nats.flags(f)
	o.tls.flags(f)
	f.StringVar(&o.proxyListen, "proxy-listen", "", "address for a proxy to this server in the same process, see wspoll proxy (default for plain wspoll without --listen: "+plainProxy+")")
	o.metrics.flags(f)
	o.trace.flags(f)
	f.BoolVar(&o.noPage, "no-page", false, "a plain list of the endpoints at /, without the page and its lab")
	f.BoolVar(&o.bareEcho, "bare-echo", false, "echo plain TCP bytes on the same loops, no WebSocket at all: the floor to measure against")
	f.BoolVar(&o.barePush, "bare-push", false, "plain TCP on the same loops: what one client sends goes to all others; the floor for pushing")
	return cmd
}

// check refuses values that make no sense, before anything is done.
func (o *serveOptions) check() error {
	bad := func(flag string, value any, want string) error {
		return &badValue{flag: flag, value: fmt.Sprint(value), want: want}
	}
	switch {
	case o.loops < 1 || o.loops > 1024:
		return bad("loops", o.loops, "from 1 to 1024")
	case o.maxHead < 128 || o.maxHead > 64<<10:
		return bad("max-head", &o.maxHead, "from 128B to 64KiB")
	case o.maxPending < 4<<10 || o.maxPending > 1<<30:
		return bad("max-pending", &o.maxPending, "from 4KiB to 1GiB")
	case o.maxConnections < 0:
		return bad("max-connections", o.maxConnections, "0 or more")
	case len(o.subprotocols) > 250:
		return fmt.Errorf("--subprotocol: %d are too many; 250 at the most", len(o.subprotocols))
	case o.logFormat != "text" && o.logFormat != "json":
		return bad("log-format", o.logFormat, "text or json")
	case len(o.listen) == 0:
		return bad("listen", "", listenForm)
	}
	if _, err := o.level(); err != nil {
		return bad("log-level", o.logLevel, "debug, info, warn or error")
	}
	for _, d := range []struct {
		flag  string
		value time.Duration
		least time.Duration
	}{
		{"handshake-timeout", o.handshake, epoll.Tick},
		{"idle-timeout", o.idle, 0},
		{"close-timeout", o.close, epoll.Tick},
		{"write-timeout", o.write, epoll.Tick},
		{"drain", o.drain, 0},
	} {
		if d.value < d.least || d.value > 365*24*time.Hour {
			return bad(d.flag, d.value, fmt.Sprintf("from %s to a year", d.least))
		}
	}
	for _, a := range o.listen {
		if !isListenAddress(a) {
			return bad("listen", a, listenForm)
		}
	}
	if o.proxyListen != "" && !isListenAddress(o.proxyListen) {
		return bad("proxy-listen", o.proxyListen, listenForm)
	}
	if err := o.metrics.check(); err != nil {
		return err
	}
	if err := o.trace.check(); err != nil {
		return err
	}
	if err := o.tls.check(); err != nil {
		return err
	}
	for _, p := range o.subprotocols {
		if err := (&handshake.Options{Protocols: []string{p}}).Validate(); err != nil {
			return bad("subprotocol", p, "a token of RFC 9110, like chat or v2.example.org")
		}
	}
	for _, p := range o.origins {
		if err := (&handshake.Options{Origins: []string{p}}).Validate(); err != nil {
			return bad("origin", p, `like https://example.com, https://*.example.com or http://localhost:3000, without a path; or "*"`)
		}
	}
	if err := o.options().Validate(); err != nil {
		return fmt.Errorf("--subprotocol: %w", err)
	}
	return nil
}

// compression is the value of --compress, when it and --compress-min make sense.
// (check is the proxy's too, which has neither.)
func (o *serveOptions) compression() (server.Compression, error) {
	if o.compressMin > 1<<30 {
		return 0, &badValue{flag: "compress-min", value: o.compressMin.String(), want: "at most 1GiB"}
	}
	switch o.compress {
	case "shared":
		return server.CompressShared, nil
	case "context":
		return server.CompressContext, nil
	case "off":
		return server.CompressOff, nil
	}
	return 0, &badValue{flag: "compress", value: o.compress, want: "shared, context or off"}
}

func isListenAddress(a string) bool {
	_, port, err := net.SplitHostPort(a)
	if err == nil {
		_, err = net.LookupPort("tcp", port)
	}
	return err == nil && port != ""
}

const listenForm = "host:port, like 127.0.0.1:8002, :8002 or [::1]:0"

func (o *serveOptions) options() *handshake.Options {
	return &handshake.Options{Protocols: o.subprotocols, Origins: o.origins}
}

func (o *serveOptions) level() (level slog.Level, err error) {
	err = level.UnmarshalText([]byte(o.logLevel))
	return level, err
}

func (o *serveOptions) logger(stderr io.Writer) *slog.Logger {
	level, _ := o.level() // checked
	h := &slog.HandlerOptions{Level: level}
	if o.logFormat == "json" {
		return slog.New(slog.NewJSONHandler(stderr, h))
	}
	return slog.New(slog.NewTextHandler(stderr, h))
}

// sparedFiles is how many descriptors are kept for everything but connections.
const sparedFiles = 64

func serve(stdout, stderr io.Writer, o *serveOptions) error {
	if err := o.check(); err != nil {
		return err
	}
	compress, err := o.compression()
	if err != nil {
		return err
	}
	topics, err := o.push.topics()
	if err != nil {
		return err
	}
	log := o.logger(stderr)
	stop := make(chan os.Signal, 2)
	signal.Notify(stop, os.Interrupt, syscall.SIGTERM)
	hup := make(chan os.Signal, 1)
	if o.tls.cert != "" {
		signal.Notify(hup, syscall.SIGHUP)
	}

	files, err := raiseFileLimit()
	if err != nil {
		return failed(err)
	}
	spareProcessor(o.loops)
	room := max(1, files-sparedFiles-o.loops*(2+len(o.listen)+len(o.tls.listen)))
	if err := o.nats.check(); err != nil {
		return err
	}
	bare := o.bareEcho || o.barePush
	if bare && (len(o.tls.listen) > 0 || o.metrics.listen != "") {
		return errors.New("--bare-echo and --bare-push are plain TCP and nothing else: no --tls-listen, no --metrics-listen")
	}
	if bare {
		return failed(serveBare(stdout, log, o, stop))
	}
	if o.proxyListen != "" {
		room = max(1, room/3) // each connection through the proxy has two descriptors there
	}
	maxConnections := o.maxConnections
	if maxConnections == 0 {
		maxConnections = room
	} else if maxConnections > room {
		log.Warn("fewer connections than --max-connections are possible: raise the open-files limit (ulimit -Hn), or run several processes",
			"max_connections", maxConnections, "possible", room)
	}
	tlsConfig, reload, err := o.tls.config(log)
	if err != nil {
		return failed(err)
	}
	trace := o.trace.start(stdout, log)
	defer trace.close()
	srv, err := server.New(server.Config{
		Loops:            o.loops,
		MaxHead:          int(o.maxHead),
		MaxMessage:       orUnlimited(int64(o.maxMessage)),
		MaxPending:       int(o.maxPending),
		MaxConnections:   min(maxConnections, room),
		MemoryBudget:     orUnlimited(int64(o.memoryBudget)),
		HandshakeTimeout: o.handshake,
		IdleTimeout:      time.Duration(orUnlimited(int64(o.idle))),
		CloseTimeout:     o.close,
		WriteTimeout:     o.write,
		Handshake:        *o.options(),
		Compress:         compress,
		CompressMin:      int(orUnlimited(int64(o.compressMin))),
		Topics:           topics,
		TLS:              tlsConfig,
		Log:              log,
		Trace:            trace.server(),
		TracePath:        trace.paths(),
	})
	if err != nil {
		return failed(err)
	}
	if err := srv.Handle("/wshandler", server.Echo()); err != nil {
		return failed(err)
	}
	if err := o.push.mount(srv); err != nil {
		return failed(err)
	}
	page, err := o.page(srv, log)
	if err != nil {
		return failed(err)
	}
	link, err := o.nats.join(srv, log, o.push.replay)
	if err != nil {
		return failed(err)
	}
	addrs, err := listenAll("listen", o.listen, srv.Listen)
	if err != nil {
		return failed(err)
	}
	secure, err := listenAll("tls-listen", o.tls.listen, srv.ListenTLS)
	if err != nil {
		return failed(err)
	}
	metrics, err := o.metrics.open(log)
	if err != nil {
		return failed(err)
	}
	defer metrics.end()
	if err := o.writePidfile(); err != nil {
		return failed(err)
	}
	defer o.removePidfile()
	if page != nil {
		page.Listening(addrs[0])
		defer page.Close()
	}
	srv.Start()
	announce(stdout, srv, addrs, "")
	announce(stdout, srv, secure, "s")
	px, err := o.startProxy(stdout, log, addrs[0], room)
	if err != nil {
		return failed(err)
	}
	metrics.start(stdout, srv, px)
	log.Info(fmt.Sprintf("room for %d connections; Ctrl-C ends", min(maxConnections, room)), "open_files", files)

	awaitStop(stop, hup, reload)
	log.Info("ending: closing connections with 1001", "wait", o.drain)
	go func() {
		<-stop
		log.Warn("second signal: ending at once")
		o.removePidfile()
		os.Exit(exitFail)
	}()
	ctx, cancel := context.WithTimeout(context.Background(), o.drain)
	defer cancel()
	if px != nil {
		if err := px.Shutdown(ctx, 0); err != nil {
			log.Warn("the proxy ended before every connection was closed", "error", err)
		}
	}
	if link != nil {
		link.Close(ctx)
	}
	if err := srv.Shutdown(ctx); err != nil {
		log.Warn("ended before every connection was closed", "error", err)
	}
	return nil
}

// awaitStop waits for a signal to end; until then hup is for reload.
func awaitStop(stop, hup <-chan os.Signal, reload func()) {
	for {
		select {
		case <-hup:
			reload()
		case <-stop:
			return
		}
	}
}

// page gives srv its plain HTTP side: the page with its lab, unless that is not wanted.
func (o *serveOptions) page(srv *server.Server, log *slog.Logger) (*web.Page, error) {
	srv.MountHealth()
	if o.noPage {
		srv.MountList()
		return nil, nil
	}
	return web.New(srv, web.Config{MaxMessage: uint64(o.maxMessage), Log: log})
}

func (o *serveOptions) writePidfile() error {
	if o.pidfile == "" {
		return nil
	}
	if err := os.WriteFile(o.pidfile, []byte(strconv.Itoa(os.Getpid())+"\n"), 0o644); err != nil {
		return fmt.Errorf("--pidfile cannot be written: %w", err)
	}
	return nil
}

func (o *serveOptions) removePidfile() {
	if o.pidfile != "" {
		os.Remove(o.pidfile)
	}
}

// orUnlimited maps the 0 of a flag, no limit, to that of server.Config.
func orUnlimited(n int64) int64 {
	if n == 0 {
		return server.Unlimited
	}
	return n
}

// announce says what is served where; s is what TLS puts behind ws and http.
func announce(w io.Writer, srv *server.Server, addrs []net.Addr, s string) {
	for _, a := range addrs {
		host := urlHost(a)
		for path, about := range srv.Endpoints() {
			fmt.Fprintf(w, "ws%s://%s%-13s %s\n", s, host, path, about)
		}
		fmt.Fprintf(w, "http%s://%s/%-10s the WebSocket connection, byte by byte; /healthz for monitors\n", s, host, "")
	}
}

// urlHost is how a person writes the address: localhost rather than 127.0.0.1.
func urlHost(a net.Addr) string {
	host, port, err := net.SplitHostPort(a.String())
	if err != nil {
		return a.String()
	}
	if ip := net.ParseIP(host); ip != nil && (ip.Equal(net.IPv4(127, 0, 0, 1)) || ip.IsUnspecified()) {
		host = "localhost"
	}
	return net.JoinHostPort(host, port)
}

// listenAll opens all addresses of a flag, and returns them with their real ports.
func listenAll(flag string, addrs []string, listen func(addr string) (net.Addr, error)) (all []net.Addr, err error) {
	for _, a := range addrs {
		addr, err := listen(a)
		if err != nil {
			return nil, listenError(flag, a, err)
		}
		all = append(all, addr)
	}
	return all, nil
}

// listenError says what to do about an address that cannot be listened on, which came from a flag.
func listenError(flag, addr string, err error) error {
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		return fmt.Errorf("cannot listen on %s: the address is in use; choose another with --%s, or end what uses it", addr, flag)
	case errors.Is(err, syscall.EACCES):
		return fmt.Errorf("cannot listen on %s: not permitted; a port below 1024 needs root", addr)
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		return fmt.Errorf("cannot listen on %s: this machine has no such address", addr)
	}
	return fmt.Errorf("cannot listen on %s: %w", addr, err)
}

// raiseFileLimit makes the soft limit of open files as high as the hard one
// and returns it.
func raiseFileLimit() (int, error) {
	var r syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &r); err != nil {
		return 0, fmt.Errorf("the limit of open files cannot be read: %w", err)
	}
	if r.Cur < r.Max {
		r.Cur = r.Max
		if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &r); err != nil {
			return 0, fmt.Errorf("the limit of open files cannot be raised to %d: %w", r.Max, err)
		}
	}
	return int(min(r.Cur, 1<<30)), nil
}

// serveBare is serve --bare-echo, or --bare-push.
func serveBare(stdout io.Writer, log *slog.Logger, o *serveOptions, stop <-chan os.Signal) error {
	var g *epoll.Group
	newHandler, does := func(l *epoll.Loop) epoll.Handler { return epoll.Echo{Loop: l} }, "echoes plain TCP bytes"
	if o.barePush {
		all := func() []*epoll.Loop { return g.Loops() }
		newHandler = func(l *epoll.Loop) epoll.Handler { return epoll.Spread{Echo: epoll.Echo{Loop: l}, All: all} }
		does = "sends what one client sends to all others, plain TCP bytes"
	}
	g, err := epoll.NewGroup(epoll.Config{Loops: o.loops, MaxPending: int(o.maxPending)}, newHandler)
	if err != nil {
		return err
	}
	addrs, err := listenAll("listen", o.listen, func(a string) (net.Addr, error) { return g.Listen(a, 0) })
	if err != nil {
		return err
	}
	if err := o.writePidfile(); err != nil {
		return err
	}
	defer o.removePidfile()
	g.Start()
	for _, a := range addrs {
		fmt.Fprintf(stdout, "tcp://%s %s\n", strings.Replace(urlHost(a), "localhost", "127.0.0.1", 1), does)
	}
	<-stop
	log.Info("ending")
	g.Stop()
	return nil
}
