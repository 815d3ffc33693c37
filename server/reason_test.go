package server

import (
	"io"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"wspoll/epoll"

	"github.com/gobwas/ws"
	"golang.org/x/sys/unix"
)

// TestEveryReasonIsProducedCountedAndLogged provokes each way a connection can
// end. What the log must say of it stands beside.
func TestEveryReasonIsProducedCountedAndLogged(t *testing.T) {
	short := 60 * time.Millisecond
	push := func(op ws.OpCode, size, times int) *Endpoint {
		return &Endpoint{Open: func(c Conn) {
			for range times {
				c.Send(op, make([]byte, size))
			}
		}}
	}
	open := func(path string) func(*testing.T, *testServer) {
		return func(t *testing.T, s *testServer) { s.open(t, path) }
	}
	write := func(b []byte) func(*testing.T, *testServer) {
		return func(t *testing.T, s *testServer) { s.open(t, "/echo").write(b) }
	}
	raw := func(b string) func(*testing.T, *testServer) {
		return func(t *testing.T, s *testServer) { io.WriteString(s.dial(t), b) }
	}
	produced := map[Reason]bool{ReasonNone: true}
	for _, tt := range []struct {
		reason  Reason
		cfg     Config
		ep      *Endpoint
		provoke func(*testing.T, *testServer)
		logged  []string
	}{
		{ReasonPeerClosed, Config{}, nil, func(t *testing.T, s *testServer) { s.open(t, "/echo").close(4321) }, []string{"code=4321", "path=/echo", "peer=127.0.0.1:"}},
		{ReasonPeerClosed, Config{}, nil, func(t *testing.T, s *testServer) { s.dial(t).Close() }, nil},
		{ReasonEndpoint, Config{CloseTimeout: short}, &Endpoint{Open: func(c Conn) { c.Close(1000, "") }}, open("/x"), []string{"path=/x"}},
		{ReasonProtocol, Config{CloseTimeout: short}, nil, write([]byte{0x81, 0x00}), []string{"§5.1", "not masked"}},
		{ReasonProtocol, Config{CloseTimeout: short}, nil, write([]byte{0xf1}), []string{"§5.2", "reserved bit"}},
		{ReasonUTF8, Config{CloseTimeout: short}, nil, write(masked(true, ws.OpText, []byte{0xff})), []string{"§8.1", "UTF-8"}},
		{ReasonTooLarge, Config{CloseTimeout: short, MaxMessage: 10}, nil, write(masked(true, ws.OpText, make([]byte, 11))), []string{"§10.4", "larger than the limit"}},
		{ReasonIdle, Config{IdleTimeout: 2 * short, CloseTimeout: short}, nil, open("/echo"), nil},
		{ReasonDrain, Config{CloseTimeout: short}, nil, func(t *testing.T, s *testServer) { s.open(t, "/echo"); s.shutdown(patience) }, nil},
		{ReasonSlowReader, Config{MaxPending: 64 << 10}, push(ws.OpBinary, 60<<10, 400), open("/x"), []string{"tcp=pending"}},
		{ReasonStalled, Config{MaxPending: 64 << 20, WriteTimeout: short}, push(ws.OpBinary, 32<<20, 1), open("/x"), []string{"tcp=stalled"}},
		{ReasonMemory, Config{MaxPending: 64 << 20, MemoryBudget: 64 << 10}, push(ws.OpBinary, 32<<20, 1), open("/x"), []string{"tcp=budget"}},
		{ReasonEOF, Config{}, nil, func(t *testing.T, s *testServer) { s.open(t, "/echo").conn.Close() }, nil},
		{ReasonEOF, Config{}, nil, func(t *testing.T, s *testServer) { c := s.dial(t); io.WriteString(c, "GET /"); c.Close() }, nil},
		{ReasonReset, Config{}, nil, func(t *testing.T, s *testServer) { reset(s.open(t, "/echo").conn) }, []string{"tcp=reset", "errno="}},
		{ReasonRefused, Config{CloseTimeout: short}, nil, raw(request("/none")), []string{"404", "no WebSocket service"}},
		{ReasonHandshake, Config{HandshakeTimeout: short, CloseTimeout: short}, nil, raw("GET /"), []string{"408"}},
		{ReasonHandshake, Config{HandshakeTimeout: short}, nil, raw(""), nil},
		{ReasonFull, Config{MaxConnections: 1, CloseTimeout: short}, nil, func(t *testing.T, s *testServer) { s.open(t, "/echo"); s.dial(t) }, []string{"503", "as many connections"}},
		{ReasonHTTP, Config{}, nil, raw("GET / HTTP/1.1\r\nHost: a\r\n\r\n"), []string{""}},
		{ReasonPanic, Config{CloseTimeout: short}, &Endpoint{Open: func(Conn) { panic("boom") }}, open("/x"), []string{"boom"}},
	} {
		t.Run(tt.reason.String(), func(t *testing.T) {
			var log lockedLog
			tt.cfg.Log = log.logger()
			more := map[string]*Endpoint{}
			if tt.ep != nil {
				more["/x"] = tt.ep
			}
			s := serve(t, tt.cfg, more)
			tt.provoke(t, s)
			if tt.reason == ReasonDrain { // the loops have stopped then, and there is nobody to ask
				eventually(t, "it has ended", func() bool { return strings.Contains(log.String(), "reason="+tt.reason.String()) })
			} else {
				s.waitClosed(t, tt.reason, 1)
				for r, n := range s.Stats().Closed {
					if n != 0 && Reason(r) != tt.reason {
						t.Errorf("%d ended with %q too", n, Reason(r))
					}
				}
			}
			if len(tt.logged) == 1 && tt.logged[0] == "" {
				return // its end is not seen here
			}
			line := ""
			for l := range strings.Lines(log.String()) {
				if strings.Contains(l, "connection ended") {
					line = l
				}
			}
			want := append([]string{"level=DEBUG", "reason=" + quoted(tt.reason.String())}, tt.logged...)
			if tt.reason == ReasonPanic {
				line = log.String()
			}
			for _, w := range want {
				if !strings.Contains(line, w) {
					t.Errorf("the log does not say %q: %s", w, line)
				}
			}
		})
		produced[tt.reason] = true
	}
	produced[ReasonError] = true   // see TestFailedSystemCallIsAReason
	produced[ReasonTLS] = true     // see TestReasonsOverTLS
	produced[ReasonInflate] = true // see TestWhatIsWrongWithACompressedMessageIsSaidAtOnce
	for r := range NumReasons {
		if !produced[r] {
			t.Errorf("no test produces %q", r)
		}
		if r.String() == "" {
			t.Errorf("reason %d has no name", r)
		}
	}
}

// quoted is how slog writes a value of several words.
func quoted(s string) string {
	if strings.Contains(s, " ") {
		return `"` + s + `"`
	}
	return s
}

// A descriptor that is no socket fails in the system calls of a socket.
func TestFailedSystemCallIsAReason(t *testing.T) {
	var log lockedLog
	s := serve(t, Config{Log: log.logger()}, nil)
	var fds [2]int
	if err := unix.Pipe2(fds[:], unix.O_NONBLOCK|unix.O_CLOEXEC); err != nil {
		t.Fatal(err)
	}
	l := s.shards[0].loop
	added := make(chan error, 1)
	// A pipe can be read, but not be sent to.
	l.Post(func() { added <- l.Add(fds[0], 0, nil) })
	if err := receive(t, "it is on the loop", added); err != nil {
		t.Fatal(err)
	}
	w := os.NewFile(uintptr(fds[1]), "pipe")
	defer w.Close()
	io.WriteString(w, "no HTTP\n")
	s.waitClosed(t, ReasonRefused, 1) // the refusal could not be written; it was the reason all the same
	if !strings.Contains(log.String(), "errno=\"socket operation on non-socket\"") {
		t.Errorf("the log does not say what failed: %s", log.String())
	}
	for cause, want := range map[epoll.Cause]Reason{
		epoll.CauseEOF: ReasonEOF, epoll.CauseReset: ReasonReset, epoll.CauseTimeout: ReasonReset, epoll.CauseRefused: ReasonReset,
		epoll.CauseStalled: ReasonStalled, epoll.CausePending: ReasonSlowReader, epoll.CauseBudget: ReasonMemory,
		epoll.CauseLocal: ReasonDrain, epoll.CauseError: ReasonError,
		epoll.CauseTLS: ReasonTLS,
	} {
		if got := reasonOfCause(cause); got != want {
			t.Errorf("%v is %q, want %q", cause, got, want)
		}
	}

	// And one that fails in reading: the writing end of a pipe, whose other end is gone.
	if err := unix.Pipe2(fds[:], unix.O_NONBLOCK|unix.O_CLOEXEC); err != nil {
		t.Fatal(err)
	}
	l.Post(func() { added <- l.Add(fds[1], 0, nil) })
	if err := receive(t, "it is on the loop", added); err != nil {
		t.Fatal(err)
	}
	unix.Close(fds[0])
	s.waitClosed(t, ReasonError, 1)
}

func TestConfigIsChecked(t *testing.T) {
	var cfg Config
	cfg.Handshake.Protocols = []string{"not a token"}
	if s, err := New(cfg); err == nil {
		t.Errorf("%v was made", s)
	}
	s := serve(t, Config{}, nil)
	if a, err := s.Listen(s.addr); err == nil {
		t.Errorf("listens twice on %v", a)
	}
	if _, err := s.Listen("127.0.0.1:none"); err == nil {
		t.Error("listens on no port")
	}
	second, err := s.Listen("127.0.0.1:0") // after Start
	if err != nil {
		t.Fatal(err)
	}
	c, err := net.Dial("tcp", second.String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(patience))
	join(t, c, hello("/echo"), nil).echoes(ws.OpText, []byte("both are served"))
	s.open(t, "/echo").echoes(ws.OpText, []byte("both are served"))
}
