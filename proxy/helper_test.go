package proxy

import (
	"bytes"
	"context"
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

	"wspoll/epoll"
	"wspoll/frame"
	"wspoll/handshake"

	"github.com/gobwas/ws"
)

// patience is how long a test waits for what must happen. Nothing waits for it
// unless it fails.
const patience = 10 * time.Second

// testProxy is a running proxy with an address, ended by the test's cleanup.
type testProxy struct {
	*Proxy
	addr string
}

// serve starts a proxy before backends, unless cfg has routes.
func serve(t testing.TB, cfg Config, backends ...*behind) *testProxy {
	t.Helper()
	if cfg.CloseTimeout == 0 {
		cfg.CloseTimeout = time.Second
	}
	if cfg.Routes == nil {
		r := Route{}
		for _, b := range backends {
			r.To = append(r.To, "ws://"+b.addr)
		}
		cfg.Routes = []Route{r}
	}
	px, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	addr, err := px.Listen("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	px.Start()
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 50*time.Millisecond)
		defer cancel()
		px.Shutdown(ctx, 0) // what a test left open is not its subject
	})
	return &testProxy{px, addr.String()}
}

// dial is a TCP connection to the proxy, closed by the cleanup.
func (px *testProxy) dial(t testing.TB) *net.TCPConn {
	t.Helper()
	c, err := net.Dial("tcp", px.addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(patience))
	return c.(*net.TCPConn)
}

// behind is a backend that does what the test says: it takes connections, and
// the test takes them from it.
type behind struct {
	t     testing.TB
	addr  string
	ln    net.Listener
	conns chan *net.TCPConn
}

func newBehind(t testing.TB) *behind {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return backendOn(t, ln)
}

func backendOn(t testing.TB, ln net.Listener) *behind {
	b := &behind{t: t, addr: ln.Addr().String(), ln: ln, conns: make(chan *net.TCPConn, 1<<14)}
	t.Cleanup(func() { ln.Close() })
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			b.conns <- c.(*net.TCPConn)
		}
	}()
	return b
}

// conn is the next connection that came.
func (b *behind) conn() *net.TCPConn {
	b.t.Helper()
	c := receive(b.t, "a connection to the backend", b.conns)
	b.t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(patience))
	return c
}

// none checks that no connection came.
func (b *behind) none() {
	b.t.Helper()
	select {
	case c := <-b.conns:
		b.t.Errorf("a connection has come to the backend, from %v", c.RemoteAddr())
	default:
	}
}

// head reads a request from c, and returns it with the bytes behind it.
func readHead(t testing.TB, c net.Conn) (head string, rest []byte) {
	t.Helper()
	var in []byte
	buf := make([]byte, 64<<10)
	for {
		n, err := c.Read(buf)
		in = append(in, buf[:n]...)
		if i := bytes.Index(in, []byte("\r\n\r\n")); i >= 0 {
			return string(in[:i+4]), in[i+4:]
		}
		if err != nil {
			t.Fatalf("no request came: %v, %q", err, in)
		}
	}
}

// accept takes the next connection, answers its handshake with 101 and the
// lines given, and is the backend's end of it.
func (b *behind) accept(lines ...string) *end {
	b.t.Helper()
	c := b.conn()
	head, rest := readHead(b.t, c)
	e := &end{t: b.t, conn: c, in: rest, head: head}
	e.write([]byte(answer101(b.t, head, lines...)))
	return e
}

// answer101 is the right answer to a request.
func answer101(t testing.TB, head string, lines ...string) string {
	t.Helper()
	var r handshake.Request
	if n, err := handshake.ParseRequest([]byte(head), nil, &r); n == 0 || err != nil {
		t.Fatalf("the backend cannot read %q: %v", head, err)
	}
	a := handshake.Answer{Key: r.Key}
	opts := handshake.Options{}
	for _, l := range lines {
		opts.Header = append(opts.Header, l+"\r\n"...)
	}
	return string(handshake.AppendAnswer(nil, &a, &opts))
}

const sampleKey = "dGhlIHNhbXBsZSBub25jZQ=="

// request is a good handshake, with lines replaced, or taken away if they are
// "Name:" only, or added.
func request(path string, lines ...string) string {
	all := []string{
		"Host: example.com", "Upgrade: websocket", "Connection: Upgrade",
		"Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: " + sampleKey,
	}
	for _, l := range lines {
		name, value, _ := strings.Cut(l, ":")
		found := false
		for i, a := range all {
			if strings.HasPrefix(a, name+":") && !found {
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

// halfConn is a connection of TCP, or of TLS over it.
type halfConn interface {
	net.Conn
	CloseWrite() error
}

// end is one end of a tunnel in a test, the client's or the backend's. It sends
// what it is told, and reads frame by frame. It answers nothing by itself.
type end struct {
	t      testing.TB
	conn   halfConn
	in     []byte // read and not parsed
	parser frame.Parser
	client bool
	rsv1   bool
	head   string // backend: the request; client: the answer
}

// open is a tunnel: the client's end and the backend's.
func (px *testProxy) open(t testing.TB, b *behind, lines ...string) (client, backend *end) {
	t.Helper()
	return px.openWith(t, b, request("/chat", lines...))
}

func (px *testProxy) openWith(t testing.TB, b *behind, request string, answer ...string) (client, backend *end) {
	t.Helper()
	client = &end{t: t, conn: px.dial(t), client: true}
	client.write([]byte(request))
	backend = b.accept(answer...)
	client.readAnswer()
	return client, backend
}

// readAnswer reads a 101.
func (e *end) readAnswer() {
	e.t.Helper()
	var head []byte
	for {
		if i := bytes.Index(e.in, []byte("\r\n\r\n")); i >= 0 {
			head, e.in = e.in[:i+4], append([]byte(nil), e.in[i+4:]...)
			break
		}
		if err := e.fill(); err != nil {
			e.t.Fatalf("no answer came: %v, %q", err, e.in)
		}
	}
	if e.head = string(head); !strings.HasPrefix(e.head, "HTTP/1.1 101 ") {
		e.t.Fatalf("the answer is %q", e.head)
	}
}

func (e *end) fill() error {
	if cap(e.in)-len(e.in) < 4<<10 {
		e.in = append(make([]byte, 0, 2*len(e.in)+64<<10), e.in...)
	}
	n, err := e.conn.Read(e.in[len(e.in):cap(e.in)])
	e.in = e.in[:len(e.in)+n]
	if n > 0 {
		return nil
	}
	return err
}

func (e *end) write(b []byte) {
	e.t.Helper()
	if _, err := e.conn.Write(b); err != nil {
		e.t.Fatal(err)
	}
}

var testMask = [4]byte{0xa1, 0xb2, 0xc3, 0xd4}

// frameOf is one frame as this end sends it.
func (e *end) frameOf(fin bool, op ws.OpCode, payload []byte) []byte {
	if e.client {
		return frame.AppendMasked(nil, fin, op, testMask, payload)
	}
	return frame.AppendFrame(nil, fin, op, payload)
}

func (e *end) send(op ws.OpCode, payload string) {
	e.t.Helper()
	e.write(e.frameOf(true, op, []byte(payload)))
}

func (e *end) close(code ws.StatusCode, reason string) {
	e.t.Helper()
	e.write(e.closeFrame(code, reason))
}

func (e *end) closeFrame(code ws.StatusCode, reason string) []byte {
	if e.client {
		return frame.AppendMaskedClose(nil, testMask, code, reason)
	}
	return frame.AppendClose(nil, code, reason)
}

// received is a frame that came.
type received struct {
	fin     bool
	op      ws.OpCode
	payload []byte
}

// next reads one frame; its error is the connection's, io.EOF at a clean end.
func (e *end) next() (received, error) {
	rules := frame.Rules{Client: e.client, RSV1: e.rsv1}
	var p frame.Piece
	var f received
	for {
		n, err := e.parser.Next(&rules, e.in, &p)
		if err != nil {
			return f, fmt.Errorf("what came is no frame: %w", err)
		}
		if n == 0 {
			if err := e.fill(); err != nil {
				if err == io.EOF && (len(e.in) > 0 || e.parser.MidFrame()) {
					err = io.ErrUnexpectedEOF
				}
				return f, err
			}
			continue
		}
		f.payload = append(f.payload, p.Data...)
		e.in = e.in[n:]
		if p.End {
			f.fin, f.op = p.Header.Fin, p.Header.OpCode
			return f, nil
		}
	}
}

// frame reads one frame, which must come.
func (e *end) frame() received {
	e.t.Helper()
	f, err := e.next()
	if err != nil {
		e.t.Fatalf("no frame came: %v", err)
	}
	return f
}

// message reads one data message, of however many frames.
func (e *end) message() (op ws.OpCode, payload []byte) {
	e.t.Helper()
	f := e.frame()
	op, payload = f.op, f.payload
	for !f.fin {
		f = e.frame()
		if f.op != ws.OpContinuation {
			e.t.Fatalf("opcode %#x between the fragments of a message", f.op)
		}
		payload = append(payload, f.payload...)
	}
	if op != ws.OpText && op != ws.OpBinary {
		e.t.Fatalf("opcode %#x with %q came, and not a message", op, payload)
	}
	return op, payload
}

// want reads a message with this text.
func (e *end) want(text string) {
	e.t.Helper()
	if _, got := e.message(); string(got) != text {
		e.t.Fatalf("%d bytes %.60q came, want %d bytes %.60q", len(got), got, len(text), text)
	}
}

// wantClose reads a Close with this code, whatever messages come before it are
// dropped; it returns the reason.
func (e *end) wantClose(code ws.StatusCode) string {
	e.t.Helper()
	for {
		f := e.frame()
		if f.op != ws.OpClose {
			continue
		}
		got, reason, err := frame.ParseClose(f.payload)
		if err != nil {
			e.t.Fatalf("the Close is invalid: %v", err)
		}
		if got != code {
			e.t.Fatalf("Close %d %q, want %d", got, reason, code)
		}
		return string(reason)
	}
}

// wantEnd reads the end of the connection, and nothing before it.
func (e *end) wantEnd() {
	e.t.Helper()
	if f, err := e.next(); err != io.EOF {
		e.t.Fatalf("%+v, error %v came, want the end", f, err)
	}
}

// raw reads exactly n bytes.
func (e *end) raw(n int) []byte {
	e.t.Helper()
	for len(e.in) < n {
		if err := e.fill(); err != nil {
			e.t.Fatalf("%d of %d bytes came: %v", len(e.in), n, err)
		}
	}
	b := append([]byte(nil), e.in[:n]...)
	e.in = e.in[n:]
	return b
}

// rest reads all until the end of the connection.
func (e *end) rest() []byte {
	e.t.Helper()
	all, err := io.ReadAll(e.conn)
	if err != nil {
		e.t.Fatalf("the connection did not end well: %v, %d bytes came", err, len(all))
	}
	all = append(e.in, all...)
	e.in = nil
	return all
}

// reset ends the connection with RST.
func (e *end) reset() {
	e.conn.(*net.TCPConn).SetLinger(0)
	e.conn.Close()
}

// passes checks that a tunnel is alive in both directions.
func passes(client, backend *end) {
	client.t.Helper()
	client.send(ws.OpText, "to the backend")
	backend.want("to the backend")
	backend.send(ws.OpText, "to the client")
	client.want("to the client")
}

// text is n bytes of which no two stretches are alike.
func text(n int) string {
	var b strings.Builder
	for i := 0; b.Len() < n; i++ {
		fmt.Fprintf(&b, "%d,", i)
	}
	return b.String()[:n]
}

// answerTo sends a raw request and reads the one answer until the end of the
// connection, which must come.
func (px *testProxy) answerTo(t testing.TB, request string) string {
	t.Helper()
	c := px.dial(t)
	if _, err := io.WriteString(c, request); err != nil {
		t.Fatal(err)
	}
	return readAll(t, c)
}

func readAll(t testing.TB, c net.Conn) string {
	t.Helper()
	all, err := io.ReadAll(c)
	if err != nil {
		t.Fatalf("the connection did not end after the answer: %v\n%s", err, all)
	}
	c.Close()
	return string(all)
}

// status is that of an HTTP answer.
func status(answer string) string {
	line, _, _ := strings.Cut(strings.TrimPrefix(answer, "HTTP/1.1 "), " ")
	return line
}

// eventually waits for a condition that has no event to wait for.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for limit := time.Now().Add(patience); !ok(); {
		if time.Now().After(limit) {
			t.Fatalf("%s: not within %v", what, patience)
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

// calm notes what a proxy holds, and returns a check that it holds no more
// than that again.
func (px *testProxy) calm(t testing.TB) (check func()) {
	t.Helper()
	type holds struct {
		connections, tunnels, http, goroutines, files int
		buffered, active                              int64
	}
	look := func() holds {
		st := px.Stats()
		h := holds{st.Connections, st.Tunnels, st.HTTP, runtime.NumGoroutine(), descriptors(t), st.Buffered, 0}
		for _, b := range px.Backends() {
			h.active += b.Tunnels
		}
		return h
	}
	runtime.GC() // descriptors and goroutines of earlier tests
	http.DefaultClient.CloseIdleConnections()
	before := look()
	return func() {
		t.Helper()
		var now holds
		defer func() {
			if t.Failed() {
				t.Logf("before: %+v, after: %+v", before, now)
			}
		}()
		eventually(t, "the proxy is as it was", func() bool {
			now = look()
			same := now
			same.goroutines, same.files = before.goroutines, before.files
			files := before.files
			if px.Stats().Spliced > 0 {
				files += 2 * px.cfg.Loops // the pipes of the loops stay
			}
			return same == before && now.goroutines <= before.goroutines && now.files <= files
		})
		px.group.Do(func(l *epoll.Loop) {
			if sh := px.shards[l.Index()]; len(sh.attempts)+len(sh.reasons)+len(sh.paths.ids) > 0 {
				t.Errorf("left over: attempts %v, reasons %v, paths %v", sh.attempts, sh.reasons, sh.paths.ids)
			}
		})
	}
}

// waitClosed waits until n connections have ended for this reason.
func (px *testProxy) waitClosed(t testing.TB, r Reason, n uint64) {
	t.Helper()
	eventually(t, fmt.Sprintf("%d connections ended with %q", n, r), func() bool { return px.Stats().Closed[r] >= n })
	if got := px.Stats().Closed[r]; got != n {
		t.Fatalf("%d connections ended with %q, want %d", got, r, n)
	}
}

// lockedLog is a log that a test reads while the proxy writes it.
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

// gone says that an error is the end of a connection, orderly or not.
func gone(err error) bool {
	var op *net.OpError
	return errors.Is(err, io.EOF) || errors.As(err, &op)
}
