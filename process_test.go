package main

import (
	"bufio"
	"context"
	"errors"
	"io"
	"net"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/gobwas/ws"
	"github.com/gobwas/ws/wsutil"
)

// asProgram makes the test binary be wspoll: the processes that these tests
// start have the race detector and the coverage of the tests.
const asProgram = "WSPOLL_TEST_AS_PROGRAM"

func TestMain(m *testing.M) {
	if os.Getenv(asProgram) != "" {
		os.Exit(run(os.Args[1:]))
	}
	os.Exit(m.Run())
}

// patience is how long a test waits for something that should come at once.
const patience = 30 * time.Second

// lacking skips a test for which this machine lacks something, or fails it
// where all must be there.
func lacking(t *testing.T, format string, args ...any) {
	t.Helper()
	if os.Getenv("WSPOLL_REQUIRE") == "1" {
		t.Fatalf(format, args...)
	}
	t.Skipf(format, args...)
}

// process is wspoll as a process of its own.
type process struct {
	t      *testing.T
	cmd    *exec.Cmd
	stdout *stream
	stderr *stream
}

// stream is an output of a process, line by line.
type stream struct {
	t     *testing.T
	name  string
	lines chan string
	seen  []string
}

func newStream(t *testing.T, name string, r io.Reader) *stream {
	s := &stream{t: t, name: name, lines: make(chan string, 1<<16)}
	go func() {
		defer close(s.lines)
		for sc := bufio.NewScanner(r); sc.Scan(); {
			s.lines <- sc.Text()
		}
	}()
	return s
}

// next is the next line that contains part.
func (s *stream) next(part string) string {
	s.t.Helper()
	deadline := time.After(patience)
	for {
		select {
		case line, ok := <-s.lines:
			if !ok {
				s.t.Fatalf("%s ended without a line with %q; it has\n%s", s.name, part, strings.Join(s.seen, "\n"))
			}
			s.seen = append(s.seen, line)
			if strings.Contains(line, part) {
				return line
			}
		case <-deadline:
			s.t.Fatalf("no line with %q on %s; it has\n%s", part, s.name, strings.Join(s.seen, "\n"))
		}
	}
}

// all waits for the end of the process and returns every line.
func (s *stream) all() []string {
	for line := range s.lines {
		s.seen = append(s.seen, line)
	}
	return s.seen
}

// start runs wspoll with the arguments. Variables of the environment, as
// NAME=value, come first.
func start(t *testing.T, args ...string) *process {
	t.Helper()
	n := slices.IndexFunc(args, func(a string) bool { return !regexp.MustCompile(`^[A-Z_]+=`).MatchString(a) })
	if n < 0 {
		n = len(args)
	}
	return startCmd(t, exec.Command(os.Args[0], args[n:]...), args[:n]...)
}

func startCmd(t *testing.T, cmd *exec.Cmd, env ...string) *process {
	t.Helper()
	// The clients of these tests seldom answer a Close; and the race detector
	// need not sleep a second at each end.
	cmd.Env = append(append(os.Environ(), asProgram+"=1", "WSPOLL_CLOSE_TIMEOUT=100ms", "GORACE=atexit_sleep_ms=10"), env...)
	stdout, w1, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	stderr, w2, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stdout, cmd.Stderr = w1, w2
	err = cmd.Start()
	w1.Close()
	w2.Close()
	if err != nil {
		t.Fatal(err)
	}
	p := &process{t: t, cmd: cmd, stdout: newStream(t, "stdout", stdout), stderr: newStream(t, "stderr", stderr)}
	t.Cleanup(func() {
		if cmd.ProcessState == nil {
			cmd.Process.Kill()
			cmd.Wait()
		}
		stdout.Close()
		stderr.Close()
	})
	return p
}

// serving starts wspoll on a free port and returns the URL it prints.
func serving(t *testing.T, args ...string) (p *process, url string) {
	t.Helper()
	p = start(t, append(args, "--listen", "127.0.0.1:0")...)
	return p, p.url()
}

// url is the next ws:// URL that the process prints.
func (p *process) url() string {
	p.t.Helper()
	url, _, _ := strings.Cut(p.stdout.next("ws://"), " ")
	return url
}

// wait returns the exit status, after the process has ended by itself.
func (p *process) wait() int {
	p.t.Helper()
	timer := time.AfterFunc(patience, func() {
		p.t.Error("the process does not end")
		p.cmd.Process.Kill()
	})
	defer timer.Stop()
	err := p.cmd.Wait()
	if exit, ok := errors.AsType[*exec.ExitError](err); err != nil && !ok {
		p.t.Fatal(err, exit)
	}
	return p.cmd.ProcessState.ExitCode()
}

func (p *process) signal(s os.Signal) {
	p.t.Helper()
	if err := p.cmd.Process.Signal(s); err != nil {
		p.t.Fatal(err)
	}
}

// stop ends the process and fails the test unless it ends well.
func (p *process) stop() {
	p.t.Helper()
	p.signal(syscall.SIGTERM)
	if code := p.wait(); code != exitOK {
		p.t.Errorf("exit %d after SIGTERM, want 0; stderr\n%s", code, strings.Join(p.stderr.all(), "\n"))
	}
}

func dial(t *testing.T, url string) net.Conn {
	t.Helper()
	c, err := tryDial(ws.Dialer{}, url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func tryDial(d ws.Dialer, url string) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	c, br, _, err := d.Dial(ctx, url)
	if br != nil {
		return nil, errors.New("the server spoke first")
	}
	if err == nil {
		c.SetDeadline(time.Now().Add(patience))
	}
	return c, err
}

func readFrame(c net.Conn) (f ws.Frame, err error) {
	f.Header, err = ws.ReadHeader(c)
	if err == nil {
		f.Payload = make([]byte, f.Header.Length)
		_, err = io.ReadFull(c, f.Payload)
	}
	return f, err
}

func echo(t *testing.T, c net.Conn, text string) {
	t.Helper()
	if err := wsutil.WriteClientText(c, []byte(text)); err != nil {
		t.Fatal(err)
	}
	f, err := readFrame(c)
	if err != nil || f.Header.OpCode != ws.OpText || string(f.Payload) != text {
		t.Fatalf("echo of %q is %v %q, %v", text, f.Header.OpCode, f.Payload, err)
	}
}

// closeCode reads the Close frame that must come next.
func closeCode(t *testing.T, c net.Conn) ws.StatusCode {
	t.Helper()
	f, err := readFrame(c)
	if err != nil || f.Header.OpCode != ws.OpClose {
		t.Fatalf("want a Close frame, have %v %q, %v", f.Header.OpCode, f.Payload, err)
	}
	code, _ := ws.ParseCloseFrameData(f.Payload)
	return code
}
