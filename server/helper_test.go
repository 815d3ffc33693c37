package server

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"os"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"wspoll/frame"
	"wspoll/handshake"

	"github.com/gobwas/ws"
	"golang.org/x/sys/unix"
)

// patience is how long a test waits for what must happen. Nothing waits for it
// unless it fails.
const patience = 30 * time.Second

// testServer is a running server with an address, ended by the test's cleanup.
type testServer struct {
	*Server
	addr string
}

// serve starts a server with an echo at /echo and the other endpoints given.
func serve(t testing.TB, cfg Config, more map[string]*Endpoint) *testServer {
	t.Helper()
	if cfg.CloseTimeout == 0 {
		cfg.CloseTimeout = time.Second
	}
	s, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Handle("/echo", Echo()); err != nil {
		t.Fatal(err)
	}
	for path, ep := range more {
		if err := s.Handle(path, ep); err != nil {
			t.Fatal(err)
		}
	}
	s.MountHealth()
	s.MountList()
	return started(t, s)
}

// started is s on a free port, until the test is over.
func started(t testing.TB, s *Server) *testServer {
	t.Helper()
	addr, err := s.Listen("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s.Start()
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
		defer cancel()
		s.Shutdown(ctx) // what a test left open is not its subject
	})
	return &testServer{s, addr.String()}
}

// dial is a TCP connection to the server, closed by the cleanup.
func (s *testServer) dial(t testing.TB) *net.TCPConn {
	t.Helper()
	c, err := net.Dial("tcp", s.addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(patience))
	return c.(*net.TCPConn)
}

// hello is what a test client asks for.
func hello(path string) *handshake.Hello {
	var nonce [16]byte
	rand.Read(nonce[:])
	return &handshake.Hello{Host: "example.com", Target: path, Key: handshake.AppendKey(nil, nonce)}
}

// client is an open WebSocket connection of a test: it sends what it is told,
// and reads frame by frame. It answers nothing by itself.
type client struct {
	t        testing.TB
	conn     net.Conn
	in       []byte // read and not parsed
	parser   frame.Parser
	protocol string
}

var clientRules = frame.Rules{Client: true}

// open is a connection with the handshake done.
func (s *testServer) open(t testing.TB, path string) *client {
	t.Helper()
	return join(t, s.dial(t), hello(path), nil)
}

// join does the handshake on conn, with first glued to the request.
func join(t testing.TB, conn net.Conn, h *handshake.Hello, first []byte) *client {
	t.Helper()
	c := &client{t: t, conn: conn}
	c.write(append(handshake.AppendRequest(nil, h), first...))
	c.accepted(h)
	return c
}

// accepted reads the 101, and what was agreed on compression.
func (c *client) accepted(h *handshake.Hello) handshake.Deflate {
	c.t.Helper()
	var resp handshake.Response
	for {
		n, err := handshake.ParseResponse(c.in, nil, &resp)
		if err != nil {
			c.t.Fatalf("the answer to the handshake cannot be read: %v\n%q", err, c.in)
		}
		if n > 0 {
			if err := resp.Check(h); err != nil {
				c.t.Fatalf("the handshake failed: %v\n%s", err, c.in)
			}
			c.protocol = string(resp.Protocol)
			c.in = append([]byte(nil), c.in[n:]...)
			return resp.Deflate
		}
		if err := c.fill(); err != nil {
			c.t.Fatalf("no answer to the handshake: %v (read so far %q)", err, c.in)
		}
	}
}

// fill reads once.
func (c *client) fill() error {
	if cap(c.in)-len(c.in) < 4<<10 {
		c.in = append(make([]byte, 0, 2*len(c.in)+64<<10), c.in...)
	}
	n, err := c.conn.Read(c.in[len(c.in):cap(c.in)])
	c.in = c.in[:len(c.in)+n]
	if n > 0 {
		return nil
	}
	return err
}

func (c *client) write(b []byte) {
	c.t.Helper()
	if _, err := c.conn.Write(b); err != nil {
		c.t.Fatal(err)
	}
}

// masked is one frame of a client.
func masked(fin bool, op ws.OpCode, payload []byte) []byte {
	return frame.AppendMasked(nil, fin, op, [4]byte{0xa1, 0xb2, 0xc3, 0xd4}, payload)
}

func (c *client) send(op ws.OpCode, payload []byte) { c.t.Helper(); c.write(masked(true, op, payload)) }

func (c *client) close(code ws.StatusCode) {
	c.t.Helper()
	c.write(frame.AppendMaskedClose(nil, [4]byte{1, 2, 3, 4}, code, ""))
}

// received is a frame that came from the server.
type received struct {
	fin     bool
	op      ws.OpCode
	payload []byte
}

// next reads one frame; its error is the connection's, io.EOF at a clean end.
func (c *client) next() (received, error) {
	var p frame.Piece
	var f received
	for {
		n, err := c.parser.Next(&clientRules, c.in, &p)
		if err != nil {
			return f, fmt.Errorf("what came is no frame of a server: %w", err)
		}
		if n == 0 {
			if err := c.fill(); err != nil {
				if err == io.EOF && (len(c.in) > 0 || c.parser.MidFrame()) {
					err = io.ErrUnexpectedEOF
				}
				return f, err
			}
			continue
		}
		f.payload = append(f.payload, p.Data...)
		c.in = c.in[n:]
		if p.End {
			f.fin, f.op = p.Header.Fin, p.Header.OpCode
			return f, nil
		}
	}
}

// frame reads one frame, which must come.
func (c *client) frame() received {
	c.t.Helper()
	f, err := c.next()
	if err != nil {
		c.t.Fatalf("no frame came: %v", err)
	}
	return f
}

// message reads one data message; controls between its frames are an error.
func (c *client) message() (op ws.OpCode, payload []byte) {
	c.t.Helper()
	f := c.frame()
	op, payload = f.op, f.payload
	for !f.fin {
		f = c.frame()
		if f.op != ws.OpContinuation {
			c.t.Fatalf("opcode %#x between the fragments of a message", f.op)
		}
		payload = append(payload, f.payload...)
	}
	if op != ws.OpText && op != ws.OpBinary {
		c.t.Fatalf("opcode %#x with %q came, and not a message", op, payload)
	}
	return op, payload
}

// echoes sends a message and reads it back.
func (c *client) echoes(op ws.OpCode, payload []byte) {
	c.t.Helper()
	c.send(op, payload)
	if gotOp, got := c.message(); gotOp != op || !bytes.Equal(got, payload) {
		c.t.Fatalf("opcode %#x and %d bytes came back for opcode %#x and %d bytes", gotOp, len(got), op, len(payload))
	}
}

// wantClose reads a Close with this code, whatever comes before it is dropped,
// and then the end of the connection; it returns the reason.
func (c *client) wantClose(code ws.StatusCode) string {
	c.t.Helper()
	for {
		f := c.frame()
		if f.op != ws.OpClose {
			continue
		}
		got, reason, err := frame.ParseClose(f.payload)
		if err != nil {
			c.t.Fatalf("the Close is invalid: %v", err)
		}
		if got != code {
			c.t.Fatalf("Close %d %q, want %d", got, reason, code)
		}
		return string(reason)
	}
}

// wantEnd reads the end of the connection, and nothing before it.
func (c *client) wantEnd() {
	c.t.Helper()
	if f, err := c.next(); err != io.EOF {
		c.t.Fatalf("%+v, error %v came, want the end", f, err)
	}
}

// reset ends the connection with RST.
func reset(c net.Conn) {
	c.(*net.TCPConn).SetLinger(0)
	c.Close()
}

// answer sends a raw request and reads the one answer, whole, until the end of
// the connection, which must come.
func (s *testServer) answer(t testing.TB, request string) (*http.Response, string) {
	t.Helper()
	c := s.dial(t)
	if _, err := io.WriteString(c, request); err != nil {
		t.Fatal(err)
	}
	return readAnswer(t, c)
}

func readAnswer(t testing.TB, c net.Conn) (*http.Response, string) {
	t.Helper()
	return parseAnswer(t, rawAnswer(t, c))
}

func rawAnswer(t testing.TB, c net.Conn) []byte {
	t.Helper()
	all, err := io.ReadAll(c)
	if err != nil {
		t.Fatalf("the connection did not end after the answer: %v\n%s", err, all)
	}
	c.Close()
	return all
}

func parseAnswer(t testing.TB, all []byte) (*http.Response, string) {
	t.Helper()
	r, err := http.ReadResponse(bufio.NewReader(bytes.NewReader(all)), nil)
	if err != nil {
		t.Fatalf("%v\n%q", err, all)
	}
	body, err := io.ReadAll(r.Body)
	if err != nil {
		t.Fatalf("%v\n%q", err, all)
	}
	return r, string(body)
}

// request is a good handshake, with lines replaced, or taken away if they are
// "Name:" only, or added.
func request(path string, lines ...string) string {
	all := []string{
		"Host: example.com", "Upgrade: websocket", "Connection: Upgrade",
		"Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
	}
	for _, l := range lines {
		name, value, _ := strings.Cut(l, ":")
		found := false
		for i, a := range all {
			if strings.HasPrefix(a, name+":") {
				all[i], found = l, true
			}
		}
		if !found && value != "" {
			all = append(all, l)
		}
	}
	var out strings.Builder
	out.WriteString("GET " + path + " HTTP/1.1\r\n")
	for _, l := range all {
		if !strings.HasSuffix(l, ":") {
			out.WriteString(l + "\r\n")
		}
	}
	return out.String() + "\r\n"
}

// eventually waits for a condition that has no event to wait for.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !ok(); {
		if time.Now().After(end) {
			buf := make([]byte, 1<<20)
			t.Fatalf("%s: not within %v\n%s", what, patience, buf[:runtime.Stack(buf, true)])
		}
		time.Sleep(2 * time.Millisecond) // between two looks
	}
}

// receive takes a value that must come.
func receive[T any](t testing.TB, what string, c <-chan T) (v T) {
	t.Helper()
	select {
	case v = <-c:
	case <-time.After(patience):
		t.Fatalf("%s: not within %v", what, patience)
	}
	return v
}

func descriptors(t testing.TB) int {
	t.Helper()
	d, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(d)
}

// calm notes what a server holds, and returns a check that it holds no more
// than that again and serves others.
func (s *testServer) calm(t testing.TB) (check func()) {
	t.Helper()
	idle := func(at Stats) string {
		return fmt.Sprintf("connections %d, websockets %d, http %d, buffered %d bytes", at.Connections, at.WebSockets, at.HTTP, at.Buffered)
	}
	runtime.GC() // descriptors and goroutines of earlier tests
	http.DefaultClient.CloseIdleConnections()
	before, goroutines, files := s.Stats(), runtime.NumGoroutine(), descriptors(t)
	return func() {
		t.Helper()
		c := s.open(t, "/echo")
		c.echoes(ws.OpText, []byte("is anybody there?"))
		c.close(ws.StatusNormalClosure)
		c.wantClose(ws.StatusNormalClosure)
		c.conn.Close()
		var now string
		defer func() {
			if t.Failed() {
				t.Logf("before: %s, goroutines %d, descriptors %d; after: %s", idle(before), goroutines, files, now)
			}
		}()
		eventually(t, "the server is as it was", func() bool {
			st, g, f := s.Stats(), runtime.NumGoroutine(), descriptors(t)
			now = fmt.Sprintf("%s, goroutines %d, descriptors %d", idle(st), g, f)
			return idle(st) == idle(before) && g <= goroutines && f <= files
		})
	}
}

// closed is how many connections ended for the reason r.
func (s *testServer) closed(r Reason) uint64 { return s.Stats().Closed[r] }

// waitClosed waits until one connection has ended for this reason.
func (s *testServer) waitClosed(t testing.TB, r Reason, n uint64) {
	t.Helper()
	eventually(t, fmt.Sprintf("%d connections ended with %q", n, r), func() bool { return s.closed(r) >= n })
	if got := s.closed(r); got != n {
		t.Fatalf("%d connections ended with %q, want %d", got, r, n)
	}
}

// packets is a connection to the server over a socket that keeps the bounds of
// writes: each write of one side is exactly one read of the other, so a test
// decides how the bytes are cut and sees how often the server writes.
func (s *testServer) packets(t testing.TB) net.Conn {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	f := os.NewFile(uintptr(fds[1]), "seqpacket")
	defer f.Close()
	c, err := net.FileConn(f)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(patience))
	l := s.shards[0].loop
	added := make(chan error, 1)
	l.Post(func() { added <- l.Add(fds[0], 0, nil) })
	if err := receive(t, "the connection is on the loop", added); err != nil {
		t.Fatal(err)
	}
	return packetConn{c.(*net.UnixConn)}
}

// packetConn reads all packets that came before the end. Linux looks for a
// packet in a SOCK_SEQPACKET socket and then, apart, whether the peer has
// closed: of a peer that writes and closes in between it reports the end before
// the packet. At the end nothing more can come, so a second look is enough.
type packetConn struct{ *net.UnixConn }

func (c packetConn) Read(b []byte) (int, error) {
	n, err := c.UnixConn.Read(b)
	if n == 0 && err == io.EOF {
		n, err = c.UnixConn.Read(b)
	}
	return n, err
}

// lockedLog is a log that a test reads while the server writes it.
type lockedLog struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedLog) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedLog) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

func (l *lockedLog) logger() *slog.Logger {
	return slog.New(slog.NewTextHandler(l, &slog.HandlerOptions{Level: slog.LevelDebug}))
}

// isReset says that an error is what a peer sees of a connection cut off.
func isReset(err error) bool {
	return errors.Is(err, unix.ECONNRESET) || errors.Is(err, unix.EPIPE)
}

// tcpTable is what the kernel says of IPv4 connections.
func tcpTable(t testing.TB) string {
	t.Helper()
	b, err := os.ReadFile("/proc/net/tcp")
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// tcpEntry is how the table has an established connection.
func tcpEntry(local, remote string) string {
	entry := func(addr string) string {
		a, err := net.ResolveTCPAddr("tcp4", addr)
		if err != nil {
			return err.Error()
		}
		ip := a.IP.To4()
		return fmt.Sprintf("%02X%02X%02X%02X:%04X", ip[3], ip[2], ip[1], ip[0], a.Port)
	}
	return entry(local) + " " + entry(remote) + " 01"
}
