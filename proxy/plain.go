package proxy

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httputil"
	"net/netip"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"wspoll/epoll"
	"wspoll/handshake"

	"golang.org/x/sys/unix"
)

// plain is the part of the proxy for requests that are no WebSocket handshake:
// net/http's server and its reverse proxy, with connections that come from the
// loops. A handshake that comes later on such a connection goes back to a loop.
type plain struct {
	px    *Proxy
	std   *http.Server
	out   *http.Transport
	back  httputil.ReverseProxy
	conns chan net.Conn
	open  atomic.Int64
	done  chan struct{}
	once  sync.Once
}

func newPlain(px *Proxy) *plain {
	h := &plain{px: px, conns: make(chan net.Conn), done: make(chan struct{})}
	log := slog.NewLogLogger(px.cfg.Log.Handler(), slog.LevelDebug)
	h.std = &http.Server{
		Handler:           h,
		ReadHeaderTimeout: px.cfg.HandshakeTimeout,
		IdleTimeout:       max(0, px.cfg.IdleTimeout),
		MaxHeaderBytes:    px.cfg.MaxHead,
		ErrorLog:          log,
		ConnContext:       func(ctx context.Context, c net.Conn) context.Context { return context.WithValue(ctx, handedKey{}, c) },
	}
	h.out = &http.Transport{
		DialContext:           (&net.Dialer{Timeout: px.cfg.ConnectTimeout}).DialContext,
		TLSClientConfig:       px.cfg.BackendTLS.Clone(),
		TLSHandshakeTimeout:   px.cfg.ConnectTimeout,
		DisableCompression:    true,
		MaxIdleConnsPerHost:   64,
		IdleConnTimeout:       30 * time.Second,
		ResponseHeaderTimeout: time.Minute,
	}
	h.back = httputil.ReverseProxy{
		Rewrite:      h.rewrite,
		Transport:    h,
		ErrorLog:     log,
		ErrorHandler: h.failed,
	}
	return h
}

// choice is which backend a request goes to.
type choice struct {
	route *route
	key   uint64
	tried []*backend // those that could not be connected to, and the last
}

// chosen is the key of a request's *choice in its context, handedKey that of the
// connection on which it came.
type (
	chosen    struct{}
	handedKey struct{}
)

// ServeHTTP passes one request on.
func (h *plain) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	route := h.px.table.Load().find(r.URL.EscapedPath())
	switch {
	case h.px.draining.Load():
		h.refuse(w, handshake.RefuseDraining)
		return
	case route == nil:
		h.refuse(w, refuseNoRoute)
		return
	case wantsWebSocket(r):
		h.giveBack(w, r)
		return
	}
	who := h.origin(r).client(said(r, forwarding[forwardingFor]), h.px.cfg.Trusted)
	key := h.px.cfg.Balance.key(who, func(name string) ([]byte, int) {
		return []byte(r.Header.Get(name)), len(r.Header.Values(name))
	})
	// The backend may answer before the end of the request's body was noticed
	// here. net/http, when an answer begins, else reads and closes the body under
	// the hands of the transport, and that ends the connection to the backend.
	http.NewResponseController(w).EnableFullDuplex()
	h.back.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), chosen{}, &choice{route: route, key: key})))
}

// RoundTrip is the http.RoundTripper of the reverse proxy: it sends a request
// to the first backend that can be connected to.
func (h *plain) RoundTrip(r *http.Request) (*http.Response, error) {
	c := r.Context().Value(chosen{}).(*choice)
	if r.Body != nil {
		r.Body = io.NopCloser(r.Body) // a failed connect would close it; the reverse proxy does
	}
	var last error
	for {
		b := c.route.pick(h.px.cfg.Balance.by, c.key, c.tried, clock())
		if b == nil {
			return nil, last
		}
		c.tried = append(c.tried, b)
		r.URL.Scheme, r.URL.Host = "http", b.addr.Load().String()
		if b.tls != nil {
			r.URL.Scheme, r.URL.Host = "https", b.host // the name is what its certificate is for
		}
		resp, err := h.out.RoundTrip(r)
		op, ok := errors.AsType[*net.OpError](err)
		if !ok || op.Op != "dial" || r.Context().Err() != nil {
			return resp, err
		}
		if b.healthy(clock()) {
			h.px.cfg.Log.Warn("a backend cannot be connected to", "backend", b.url, "error", err)
		}
		b.failed(clock())
		last = err
	}
}

// rewrite makes the request that the backend gets.
func (h *plain) rewrite(pr *httputil.ProxyRequest) {
	pr.Out.URL.Scheme, pr.Out.Host = "http", pr.In.Host // RoundTrip knows better
	for name := range pr.Out.Header {                   // the like of X_Forwarded_For too
		for _, ours := range forwarding {
			if equalName([]byte(name), ours) {
				pr.Out.Header.Del(name)
				delete(pr.Out.Header, name)
			}
		}
	}
	from := h.origin(pr.In)
	for i, name := range forwarding {
		kept := ""
		if from.trusted {
			kept = said(pr.In, name)
		}
		pr.Out.Header.Set(name, string(appendForwardingValue(nil, i, kept, pr.In.Host, from)))
	}
}

// origin is where r came from.
func (h *plain) origin(r *http.Request) origin {
	ap, _ := netip.ParseAddrPort(r.RemoteAddr) // net/http has written it
	peer := ap.Addr().Unmap()
	c, _ := r.Context().Value(handedKey{}).(*handed)
	return origin{peer: peer, secure: c != nil && c.inside != nil, trusted: isTrusted(peer, h.px.cfg.Trusted)}
}

// said is what r says in a field that may be on several lines.
func said(r *http.Request, name string) string { return strings.Join(r.Header.Values(name), ", ") }

// failed answers when no backend did.
func (h *plain) failed(w http.ResponseWriter, r *http.Request, err error) {
	if r.Context().Err() == nil { // else the client has gone
		h.px.cfg.Log.Warn("no backend answered a request", "path", r.URL.Path, "error", err)
	}
	h.refuse(w, refuseNoBackend)
}

func (h *plain) refuse(w http.ResponseWriter, r *handshake.Refusal) {
	w.Header().Set("Connection", "close")
	http.Error(w, r.Msg, r.Status)
}

func wantsWebSocket(r *http.Request) bool {
	for _, v := range r.Header.Values("Upgrade") {
		for t := range strings.SplitSeq(v, ",") {
			if strings.EqualFold(strings.TrimSpace(t), "websocket") {
				return true
			}
		}
	}
	return false
}

// giveBack takes a connection on which a handshake has come back to a loop,
// with the request as the first bytes.
func (h *plain) giveBack(w http.ResponseWriter, r *http.Request) {
	head := appendHead(nil, r)
	conn, buf, err := http.NewResponseController(w).Hijack()
	if err != nil {
		h.refuse(w, &handshake.Refusal{Status: http.StatusHTTPVersionNotSupported, Msg: "this connection cannot be taken over for WebSocket: " + err.Error()})
		return
	}
	c, ok := conn.(*handed)
	if !ok {
		conn.Close()
		return
	}
	fd, err := c.dup()
	if err != nil {
		conn.Close()
		h.px.cfg.Log.Error("a connection could not be taken from net/http", "error", err)
		return
	}
	rest := make([]byte, buf.Reader.Buffered())
	buf.Read(rest)
	head = append(append(head, rest...), c.first...)
	c.leave()
	l := h.px.shards[int(h.px.next.Add(1))%len(h.px.shards)].loop
	if !l.Post(func() {
		if err := l.AddTLS(fd, fromListener, head, c.inside); err != nil {
			h.px.cfg.Log.Warn("a connection could not be taken from net/http", "error", err)
		}
	}) {
		unix.Close(fd)
	}
}

// appendHead writes the head of r as it was on the wire, so that the one
// parser of handshakes reads it too.
func appendHead(b []byte, r *http.Request) []byte {
	b = append(b, r.Method+" "+r.RequestURI+" "+r.Proto+"\r\n"...)
	b = appendField(b, "Host", r.Host)
	if len(r.TransferEncoding) > 0 { // net/http has taken it out of the header
		b = appendField(b, "Transfer-Encoding", strings.Join(r.TransferEncoding, ", "))
	}
	for name, values := range r.Header {
		for _, v := range values {
			b = appendField(b, name, v)
		}
	}
	return append(b, "\r\n"...)
}

func (h *plain) start() { go h.std.Serve(h) }

// admit counts a connection in, or says that there are too many.
func (h *plain) admit() bool {
	if h.open.Add(1) > int64(h.px.cfg.MaxHTTP) {
		h.open.Add(-1)
		return false
	}
	return true
}

// hand takes over an admitted connection with its TLS, if it has one, and the
// bytes read from it; ended is called at its end. It is called on a loop and does
// not block.
func (h *plain) hand(fd int, inside *epoll.TLS, first []byte, ended func()) {
	go func() {
		f := os.NewFile(uintptr(fd), "tcp")
		conn, err := net.FileConn(f) // duplicates the descriptor
		f.Close()
		if err != nil {
			h.open.Add(-1)
			ended()
			h.px.cfg.Log.Error("a plain HTTP connection could not be handed to net/http", "error", err)
			return
		}
		c := &handed{Conn: conn, raw: conn, inside: inside, first: first, side: h, ended: ended}
		if inside != nil {
			c.Conn = inside.Over(conn)
		}
		select {
		case h.conns <- c:
		case <-h.done:
			c.Close()
		}
	}()
}

// Accept, Close and Addr make it the net.Listener of its http.Server.
func (h *plain) Accept() (net.Conn, error) {
	select {
	case c := <-h.conns:
		return c, nil
	case <-h.done:
		return nil, net.ErrClosed
	}
}

func (h *plain) Close() error {
	h.once.Do(func() { close(h.done) })
	return nil
}

func (h *plain) Addr() net.Addr { return &net.TCPAddr{} }

func (h *plain) shutdown(ctx context.Context) error {
	defer h.out.CloseIdleConnections()
	err := h.std.Shutdown(ctx)
	if err != nil {
		h.std.Close()
		if errors.Is(err, ctx.Err()) {
			return errors.New("plain HTTP requests did not end in time")
		}
	}
	return err
}

// handed is a connection that comes from a loop, with the bytes that the loop
// read from it in front.
type handed struct {
	net.Conn
	raw    net.Conn   // what the descriptor is of
	inside *epoll.TLS // nil: plain
	first  []byte
	side   *plain
	ended  func()
	once   sync.Once
}

func (c *handed) Read(p []byte) (int, error) {
	if len(c.first) > 0 {
		n := copy(p, c.first)
		c.first = c.first[n:]
		return n, nil
	}
	return c.Conn.Read(p)
}

func (c *handed) Close() error {
	c.once.Do(c.gone)
	return c.Conn.Close()
}

// leave is Close for a connection that goes on elsewhere, by another descriptor
// and there counted: TLS is not ended.
func (c *handed) leave() {
	c.once.Do(c.gone)
	c.raw.Close()
}

func (c *handed) gone() {
	c.side.open.Add(-1)
	c.ended()
}

// dup is a descriptor of its own for the socket.
func (c *handed) dup() (fd int, err error) {
	raw, err := c.raw.(syscall.Conn).SyscallConn()
	if err != nil {
		return -1, err
	}
	ctlErr := raw.Control(func(s uintptr) { fd, err = unix.FcntlInt(s, unix.F_DUPFD_CLOEXEC, 0) })
	return fd, errors.Join(ctlErr, os.NewSyscallError("fcntl", err))
}
