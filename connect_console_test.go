package main

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// pty is a terminal, from its other side: what a person types and sees.
type pty struct {
	t    *testing.T
	side *os.File // of the person
	tty  *os.File // of the program
	seen []byte
}

func newPty(t *testing.T) *pty {
	t.Helper()
	side, err := os.OpenFile("/dev/ptmx", os.O_RDWR, 0)
	if err != nil {
		lacking(t, "no pseudo terminals here: %v", err)
	}
	t.Cleanup(func() { side.Close() })
	n, err := unix.IoctlGetInt(int(side.Fd()), unix.TIOCGPTN)
	if err == nil {
		err = unix.IoctlSetPointerInt(int(side.Fd()), unix.TIOCSPTLCK, 0)
	}
	if err != nil {
		t.Fatal(err)
	}
	tty, err := os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|syscall.O_NOCTTY, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { tty.Close() })
	unix.IoctlSetWinsize(int(tty.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Row: 24, Col: 200})
	return &pty{t: t, side: side, tty: tty}
}

// start runs wspoll on the terminal; stdout may be elsewhere.
func (p *pty) start(stdout *os.File, args ...string) *exec.Cmd {
	p.t.Helper()
	cmd := exec.CommandContext(p.t.Context(), os.Args[0], args...)
	cmd.Env = append(os.Environ(), asProgram+"=1", "GORACE=atexit_sleep_ms=10", "TERM=xterm", "NO_COLOR=")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = p.tty, p.tty, p.tty
	if stdout != nil {
		cmd.Stdout = stdout
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	if err := cmd.Start(); err != nil {
		p.t.Fatal(err)
	}
	return cmd
}

func (p *pty) types(s string) {
	p.t.Helper()
	if _, err := p.side.WriteString(s); err != nil {
		p.t.Fatal(err)
	}
}

// sees waits until part is on the terminal, behind what it was asked for before.
func (p *pty) sees(part string) {
	p.t.Helper()
	deadline := time.Now().Add(patience)
	for {
		if i := bytes.Index(p.seen, []byte(part)); i >= 0 {
			p.seen = p.seen[i+len(part):]
			return
		}
		p.read(deadline, part)
	}
}

func (p *pty) read(deadline time.Time, part string) {
	p.t.Helper()
	fds := []unix.PollFd{{Fd: int32(p.side.Fd()), Events: unix.POLLIN}}
	n, err := unix.Poll(fds, int(time.Until(deadline).Milliseconds()))
	if err == unix.EINTR {
		return
	}
	b := make([]byte, 4096)
	if err == nil && n > 0 {
		n, err = p.side.Read(b)
	}
	if err != nil || n <= 0 {
		p.t.Fatalf("no %q on the terminal (%v); it has %q", part, err, p.seen)
	}
	p.seen = append(p.seen, b[:n]...)
}

// cooked reports whether the terminal is in the mode in which it was.
func (p *pty) cooked() bool {
	p.t.Helper()
	m, err := unix.IoctlGetTermios(int(p.tty.Fd()), unix.TCGETS)
	if err != nil {
		p.t.Fatal(err)
	}
	return m.Lflag&unix.ICANON != 0 && m.Lflag&unix.ECHO != 0
}

func (p *pty) ends(cmd *exec.Cmd, code int) {
	p.t.Helper()
	timer := time.AfterFunc(patience, func() { cmd.Process.Kill() })
	defer timer.Stop()
	cmd.Wait() // how shows in its state
	if got := cmd.ProcessState.ExitCode(); got != code || !p.cooked() {
		p.t.Errorf("exit %d, want %d; terminal as it was: %v", got, code, p.cooked())
	}
}

func TestATerminalIsForTalking(t *testing.T) {
	p := newPty(t)
	cmd := p.start(nil, "connect", echoURL(t))
	p.sees("/help for more")
	p.sees("> ")
	p.types("hello\r")
	p.sees("\x1b[36m<-\x1b[0m text hello\r\n")
	p.types("\r//slash\r") // an empty line sends nothing
	p.sees("\x1b[36m<-\x1b[0m text /slash\r\n")
	p.types("/ping are you there\r")
	p.sees("pong are you there")
	p.types("/hex 00 ff\r")
	p.sees("binary 00 ff")
	p.types("/what\r")
	p.sees("/what is not a command")
	p.types("/help\r")
	p.sees("/close [CODE [REASON]]")
	p.types("/close 4001 done\r")
	p.sees("close 4001")
	p.sees("closed: 4001")
	p.ends(cmd, 0)
}

func TestALineBeingTypedIsDrawnAgainBelowWhatComes(t *testing.T) {
	p := newPty(t)
	release := make(chan struct{})
	url := scripted(t, func(c net.Conn, answer string) {
		c.Write([]byte(answer + "\r\n"))
		<-release
		c.Write([]byte("\x81\x04news"))
		io.ReadFull(c, make([]byte, 8))
		c.Write([]byte("\x88\x02\x03\xe8"))
	})
	cmd := p.start(nil, "connect", url)
	p.sees("> ")
	p.types("unfinished")
	p.sees("unfinished")
	close(release)
	p.sees("text news\r\n")
	p.sees("> unfinished")
	p.types("\x15\x04") // Ctrl-U takes it away, Ctrl-D ends
	p.sees("close 1000")
	p.ends(cmd, 0)
}

func TestATerminalIsGivenBackWhenTheServerEnds(t *testing.T) {
	p := newPty(t)
	url := scripted(t, func(c net.Conn, answer string) { c.Write([]byte(answer + "\r\n\x88\x02\x03\xf3")) })
	cmd := p.start(nil, "connect", url)
	p.sees("wspoll: the server closed with 1011")
	p.ends(cmd, 1)
}

func TestASecondCtrlCEndsAtOnce(t *testing.T) {
	p := newPty(t)
	closing := make(chan struct{})
	url := scripted(t, func(c net.Conn, answer string) {
		c.Write([]byte(answer + "\r\n"))
		c.Read(make([]byte, 8)) // the Close, which is not answered
		close(closing)
		c.Read(make([]byte, 8))
	})
	cmd := p.start(nil, "connect", url, "--timeout", "1m")
	p.sees("> ")
	p.types("\x03")
	<-closing
	p.types("\x03") // the terminal is as before, so this is a signal
	p.sees("wspoll: interrupted before the server answered our Close")
	p.ends(cmd, 1)
}

func TestDataGoesToAPipeWhileAPersonTypes(t *testing.T) {
	p := newPty(t)
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	cmd := p.start(w, "connect", echoURL(t), "--raw")
	w.Close()
	p.sees("> ")
	p.types("for the pipe\r")
	p.sees("for the pipe")
	b := make([]byte, 100)
	n, err := r.Read(b)
	if string(b[:n]) != "for the pipe\n" {
		t.Errorf("the pipe got %q, %v", b[:n], err)
	}
	p.types("\x04")
	p.sees("closed: 1000")
	p.ends(cmd, 0)
}

func TestATerminalHasNoColourIfNobodyWantsIt(t *testing.T) {
	p := newPty(t)
	t.Setenv("NO_COLOR", "1")
	cmd := exec.CommandContext(t.Context(), os.Args[0], "connect", echoURL(t), "hello", "-q")
	cmd.Env = append(os.Environ(), asProgram+"=1", "TERM=xterm")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = p.tty, p.tty, p.tty
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	p.sees("<- text hello")
	if bytes.Contains(p.seen, []byte("\x1b[36m")) || strings.Contains(string(p.seen), "open:") {
		t.Errorf("the terminal has %q", p.seen)
	}
	p.ends(cmd, 0)
}

func TestALineThatTheEditorCutsIsNotSent(t *testing.T) {
	p := newPty(t)
	cmd := p.start(nil, "connect", echoURL(t))
	p.sees("> ")
	typed := func(n int) {
		for part := strings.Repeat("x", 255) + "y"; n > 0; n -= len(part) {
			p.types(part)
			p.sees("y") // what is echoed has to be read
		}
	}
	typed(maxTyped)
	p.types("\r")
	p.sees("text " + strings.Repeat("x", 255)) // the longest
	typed(maxTyped)
	p.types("zz\r")
	p.sees("not sent: a line that is typed has at most 4096 characters")
	p.types("after that\r")
	p.sees("> ")
	p.sees("\x1b[36m<-\x1b[0m text after that\r\n")
	typed(maxTyped)
	p.types("z\x15a new one\r") // Ctrl-U takes the line away
	p.sees("text a new one")
	p.types("\x04")
	p.ends(cmd, 0)
}
