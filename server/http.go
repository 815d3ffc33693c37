package server

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"net"
	"net/http"
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

// httpSide is a net/http server whose connections come from the loops.
type httpSide struct {
	srv   *Server
	mux   *http.ServeMux
	std   *http.Server
	conns chan net.Conn
	open  atomic.Int64
	taken atomic.Uint64
	done  chan struct{}
	once  sync.Once
}

func newHTTPSide(s *Server) *httpSide {
	h := &httpSide{srv: s, mux: http.NewServeMux(), conns: make(chan net.Conn), done: make(chan struct{})}
	h.std = &http.Server{
		Handler:           http.HandlerFunc(h.serve),
		ReadHeaderTimeout: s.cfg.HandshakeTimeout,
		ReadTimeout:       time.Minute,
		WriteTimeout:      time.Minute,
		IdleTimeout:       max(0, s.cfg.IdleTimeout),
		MaxHeaderBytes:    s.cfg.MaxHead,
		ConnContext:       withConn,
		ErrorLog:          slog.NewLogLogger(s.cfg.Log.Handler(), slog.LevelDebug),
	}
	return h
}

func (h *httpSide) start() { go h.std.Serve(h) }

// serve tells handlers of the TLS that net/http does not see.
func (h *httpSide) serve(w http.ResponseWriter, r *http.Request) {
	if c, ok := r.Context().Value(handedKey{}).(*handed); ok && c.inside != nil {
		state := c.inside.State()
		r.TLS = &state
	}
	h.mux.ServeHTTP(w, r)
}

// admit counts a connection in, or says that there are too many.
func (h *httpSide) admit() bool {
	if h.open.Add(1) > int64(h.srv.cfg.MaxHTTP) {
		h.open.Add(-1)
		return false
	}
	h.srv.uncountConn()
	return true
}

// hand takes over an admitted connection with its TLS, if it has one, and the
// bytes read from it. It is called on a loop and does not block.
func (h *httpSide) hand(fd int, inside *epoll.TLS, first []byte) {
	go func() {
		f := os.NewFile(uintptr(fd), "tcp")
		conn, err := net.FileConn(f) // duplicates the descriptor
		f.Close()
		if err != nil {
			h.open.Add(-1)
			h.srv.cfg.Log.Error("a plain HTTP connection could not be handed to net/http", "error", err)
			return
		}
		c := &handed{Conn: conn, raw: conn, inside: inside, first: first, side: h, number: h.taken.Add(1)}
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

// Accept, Close and Addr make the httpSide the net.Listener of its http.Server.
func (h *httpSide) Accept() (net.Conn, error) {
	select {
	case c := <-h.conns:
		return c, nil
	case <-h.done:
		return nil, net.ErrClosed
	}
}

func (h *httpSide) Close() error {
	h.once.Do(func() { close(h.done) })
	return nil
}

func (h *httpSide) Addr() net.Addr { return &net.TCPAddr{} }

func (h *httpSide) shutdown(ctx context.Context) error {
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
	side   *httpSide
	once   sync.Once

	number  uint64
	in, out atomic.Int64 // bytes; see WireBytes
}

func (c *handed) Read(p []byte) (n int, err error) {
	if len(c.first) > 0 {
		n = copy(p, c.first)
		c.first = c.first[n:]
	} else {
		n, err = c.Conn.Read(p)
	}
	c.in.Add(int64(n))
	return n, err
}

func (c *handed) Write(p []byte) (int, error) {
	n, err := c.Conn.Write(p)
	c.out.Add(int64(n))
	return n, err
}

func (c *handed) Close() error {
	c.once.Do(func() { c.side.open.Add(-1) })
	return c.Conn.Close()
}

// leave is Close for a connection that goes on elsewhere: TLS is not ended.
func (c *handed) leave() {
	c.once.Do(func() { c.side.open.Add(-1) })
	c.raw.Close()
}

// SyscallConn lets Upgrade find the socket again.
func (c *handed) SyscallConn() (syscall.RawConn, error) { return c.raw.(syscall.Conn).SyscallConn() }

// adoption is a connection on its way from net/http to a loop.
type adoption struct {
	endpoint uint16
	path     string
	head     []byte // the request, as net/http gives it
	read     []byte // and the bytes behind it
}

// Upgrade takes the connection of a WebSocket handshake out of a net/http
// server, this one's or any other, and puts it on a loop, as a connection of
// the endpoint that Handle was given for the path of r. The handler that
// called it returns then. What is no good handshake is answered with the right
// status, and the error says why. The server must have been started.
//
// The connection must be plain TCP, or of this server: a TLS connection of
// another one is refused with 501, since its bytes pass through crypto/tls and
// not through the socket.
func (s *Server) Upgrade(w http.ResponseWriter, r *http.Request) error {
	head := appendHead(nil, r)
	ep, err := s.checkHTTP(head, r.URL.Path)
	if err != nil {
		return refuseHTTP(w, err)
	}
	conn, buf, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return refuseHTTP(w, &handshake.Refusal{
			Status: http.StatusHTTPVersionNotSupported,
			Msg:    "this connection cannot be taken over for WebSocket: " + err.Error(),
		})
	}
	fd, err := dupSocket(conn)
	if err != nil {
		defer conn.Close()
		r := &handshake.Refusal{Status: http.StatusNotImplemented, Msg: err.Error()}
		conn.Write(handshake.AppendRefusal(nil, r, false))
		return r
	}
	first := make([]byte, buf.Reader.Buffered())
	buf.Read(first)
	var inside *epoll.TLS
	if h, ok := conn.(*handed); ok {
		first = append(first, h.first...)
		inside = h.inside
		h.leave()
	} else {
		conn.Close() // fd keeps the connection; from here on the loop counts it
	}
	sh := s.shards[int(s.next.Add(1))%len(s.shards)]
	if !sh.loop.Post(func() {
		sh.adopted = &adoption{endpoint: ep, path: r.URL.Path, head: head, read: append(head[:len(head):len(head)], first...)}
		if err := sh.loop.AddTLS(fd, tagAdopted, first, inside); err != nil {
			s.cfg.Log.Warn("a connection could not be taken over from net/http", "error", err)
		}
		sh.adopted = nil
	}) {
		unix.Close(fd)
		return ErrStopped
	}
	return nil
}

// checkHTTP finds the endpoint for a handshake that came through net/http, or
// the reason to refuse it.
func (s *Server) checkHTTP(head []byte, path string) (ep uint16, err error) {
	ep, ok := s.endpointOf([]byte(path))
	switch {
	case !ok:
		return 0, handshake.RefuseNotFound
	case s.draining.Load():
		return 0, handshake.RefuseDraining
	case !s.started.Load():
		return 0, &handshake.Refusal{Status: http.StatusServiceUnavailable, Msg: "the WebSocket server has not been started"}
	}
	var req handshake.Request
	var a handshake.Answer
	n, err := handshake.ParseRequest(head, &handshake.Limits{Head: len(head)}, &req)
	if err == nil && n == 0 {
		err = &handshake.Refusal{Status: http.StatusBadRequest, Msg: "the request cannot be read as a handshake"}
	}
	if err != nil {
		return 0, err
	}
	return ep, s.check(ep, &req, &a)
}

// ServeHTTP is Upgrade, to mount the server in somebody's http.ServeMux.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if err := s.Upgrade(w, r); err != nil {
		s.cfg.Log.Debug("handshake refused", "path", r.URL.Path, "error", err)
	}
}

// adopt makes c, new on the loop, the connection of a handshake that was
// checked by Upgrade.
func (sh *shard) adopt(c epoll.Slot, st *state, a *adoption) {
	var ans handshake.Answer
	limits := handshake.Limits{Head: len(a.head)}
	if _, err := handshake.ParseRequest(a.head, &limits, &sh.head); err != nil {
		sh.refuseError(c, st, err, 0)
		return
	}
	if err := sh.srv.check(a.endpoint, &sh.head, &ans); err != nil {
		sh.refuseError(c, st, err, 0)
		return
	}
	if sh.srv.draining.Load() { // since it was checked
		sh.refuse(c, st, handshake.RefuseDraining, ReasonRefused)
		return
	}
	sh.read = a.read
	sh.open(c, st, a.endpoint, &sh.head, &ans)
	sh.read = nil
}

// refuseHTTP writes a refusal as the answer of a net/http handler.
func refuseHTTP(w http.ResponseWriter, err error) error {
	var ref *handshake.Refusal
	if !errors.As(err, &ref) {
		return err
	}
	h := w.Header()
	for line := range bytes.SplitSeq([]byte(ref.Header), []byte("\r\n")) {
		if name, value, ok := bytes.Cut(line, []byte(": ")); ok {
			h.Set(string(name), string(value))
		}
	}
	h.Set("Connection", "close")
	if h.Get("Upgrade") != "" {
		h.Add("Connection", "Upgrade") // RFC 9110 §7.8
	}
	http.Error(w, ref.Msg, ref.Status)
	return err
}

// appendHead writes the head of r as it was on the wire, so that the one
// parser of handshakes reads it too.
func appendHead(b []byte, r *http.Request) []byte {
	b = append(append(append(append(append(b, r.Method...), ' '), r.RequestURI...), ' '), r.Proto...)
	b = append(append(append(b, "\r\nHost: "...), r.Host...), "\r\n"...)
	if len(r.TransferEncoding) > 0 { // net/http has taken it out of the header
		b = append(append(append(b, "Transfer-Encoding: "...), strings.Join(r.TransferEncoding, ", ")...), "\r\n"...)
	}
	for name, values := range r.Header {
		for _, v := range values {
			b = append(append(append(append(b, name...), ": "...), v...), "\r\n"...)
		}
	}
	return append(b, "\r\n"...)
}

// dupSocket is a descriptor of its own for the socket of conn.
func dupSocket(conn net.Conn) (fd int, err error) {
	sc, ok := conn.(syscall.Conn)
	if !ok {
		return -1, errors.New("only plain TCP connections can be taken over for WebSocket, and this one is not (is it TLS?)")
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return -1, err
	}
	ctlErr := raw.Control(func(s uintptr) { fd, err = unix.FcntlInt(s, unix.F_DUPFD_CLOEXEC, 0) })
	if ctlErr != nil {
		return -1, ctlErr
	}
	return fd, os.NewSyscallError("fcntl", err)
}
