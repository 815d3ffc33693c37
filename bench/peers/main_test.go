package peers

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// patience is how long a test waits for something that should come at once.
const patience = time.Minute

// wspoll is the path of the binary under test.
var wspoll string

func TestMain(m *testing.M) {
	code, err := buildAndRun(m)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

func buildAndRun(m *testing.M) (int, error) {
	dir, err := os.MkdirTemp("", "wspoll")
	if err != nil {
		return 0, err
	}
	defer os.RemoveAll(dir)
	wspoll = filepath.Join(dir, "wspoll")
	args := []string{"build", "-C", filepath.Join("..", ".."), "-o", wspoll}
	if os.Getenv("WSPOLL_RACE") == "1" {
		args = append(args, "-race")
	}
	if out, err := exec.Command("go", append(args, ".")...).CombinedOutput(); err != nil {
		return 0, fmt.Errorf("wspoll cannot be built: %w\n%s", err, out)
	}
	return m.Run(), nil
}

// server is wspoll as a process.
type server struct {
	t      *testing.T
	cmd    *exec.Cmd
	url    string // of the echo
	secure string // the same by TLS, with --tls-listen
	log    *logLines
}

// logLines is what the process has written to stderr.
type logLines struct {
	mu    sync.Mutex
	lines []string
	more  chan struct{} // has a token when lines has grown
	ended chan struct{} // closed when no more can come
}

func (l *logLines) read(r io.Reader) {
	defer close(l.ended)
	for sc := bufio.NewScanner(r); sc.Scan(); {
		l.mu.Lock()
		l.lines = append(l.lines, sc.Text())
		l.mu.Unlock()
		select {
		case l.more <- struct{}{}:
		default:
		}
	}
}

// has reports whether a line contains all parts.
func (l *logLines) has(parts ...string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return slices.ContainsFunc(l.lines, func(line string) bool {
		return !slices.ContainsFunc(parts, func(p string) bool { return !strings.Contains(line, p) })
	})
}

// start runs wspoll on a free port until the test ends; then it must end well.
func start(t *testing.T, args ...string) *server {
	t.Helper()
	s := &server{t: t, log: &logLines{more: make(chan struct{}, 1), ended: make(chan struct{})}}
	s.cmd = exec.Command(wspoll, append([]string{"--listen", "127.0.0.1:0", "--log-level", "debug", "--close-timeout", "2s"}, args...)...)
	s.cmd.Env = append(os.Environ(), "GORACE=atexit_sleep_ms=10")
	stdout, err := s.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	stderr, err := s.cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := s.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go s.log.read(stderr)
	t.Cleanup(s.stop)
	out := bufio.NewScanner(stdout)
	for out.Scan() {
		url, _, _ := strings.Cut(out.Text(), " ")
		switch {
		case strings.HasPrefix(url, "ws://") && s.url == "":
			s.url = url
		case strings.HasPrefix(url, "wss://") && s.secure == "":
			s.secure = url
		}
		if s.url != "" && (s.secure != "" || !slices.Contains(args, "--tls-listen")) {
			go func() {
				for out.Scan() {
				}
			}()
			return s
		}
	}
	t.Fatal("wspoll ended without printing its URL")
	return nil
}

// page is the address of the page with the list of endpoints.
func (s *server) page() string {
	return "http://" + strings.TrimSuffix(strings.TrimPrefix(s.url, "ws://"), "wshandler")
}

// stop ends the server, unless it was ended before.
func (s *server) stop() {
	if s.cmd.ProcessState != nil {
		return
	}
	s.cmd.Process.Signal(syscall.SIGTERM)
	kill := time.AfterFunc(patience, func() { s.cmd.Process.Kill() })
	<-s.log.ended
	err := s.cmd.Wait()
	kill.Stop()
	if err != nil {
		s.t.Errorf("wspoll ends with %v after SIGTERM", err)
	}
	if s.t.Failed() {
		s.t.Logf("the server's log ends with\n%s", strings.Join(s.log.lines[max(0, len(s.log.lines)-50):], "\n"))
	}
	if s.log.has("DATA RACE") {
		s.t.Errorf("the race detector has found something:\n%s", strings.Join(s.log.lines, "\n"))
	}
}

// logged waits for a log line that has all the parts.
func (s *server) logged(parts ...string) {
	s.t.Helper()
	deadline := time.After(patience)
	for {
		if s.log.has(parts...) {
			return
		}
		select {
		case <-s.log.more:
		case <-deadline:
			s.t.Fatalf("the server's log has no line with %q", parts)
		}
	}
}

// missing skips a test that lacks a tool, or fails it where all must be there.
func missing(t *testing.T, format string, args ...any) {
	t.Helper()
	if os.Getenv("WSPOLL_REQUIRE") == "1" {
		t.Fatalf(format, args...)
	}
	t.Skipf(format, args...)
}

// statusOf is the HTTP status in the error of a refused handshake.
func statusOf(err error) int {
	if e, ok := errors.AsType[*refused](err); ok {
		return e.status
	}
	return 0
}

// refused is a handshake that was answered with another status than 101.
type refused struct {
	status int
	err    error
}

func (e *refused) Error() string { return fmt.Sprintf("status %d: %v", e.status, e.err) }

// refusal makes a refused out of the error of a client's dialer.
func refusal(resp *http.Response, err error) error {
	if err != nil && resp != nil {
		return &refused{resp.StatusCode, err}
	}
	return err
}

// runWspoll runs wspoll to its end, and returns what it has printed.
func runWspoll(args ...string) (string, error) {
	out, err := exec.Command(wspoll, args...).CombinedOutput()
	return string(out), err
}
