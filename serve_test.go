package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/gobwas/ws"
)

func TestEveryAddressIsPrintedWithItsRealPort(t *testing.T) {
	args := []string{"--listen", "127.0.0.1:0", "--listen", "0.0.0.0:0"}
	if l, err := net.Listen("tcp", "[::1]:0"); err == nil {
		l.Close()
		args = append(args, "--listen", "[::1]:0")
	} else {
		t.Log("no IPv6 here, that is left out:", err)
	}
	p := start(t, args...)
	ports := map[string]bool{}
	for range len(args) / 2 {
		url, _, _ := strings.Cut(p.stdout.next("/wshandler"), " ")
		m := regexp.MustCompile(`^ws://(localhost|\[::1\]):([1-9]\d*)/wshandler$`).FindStringSubmatch(url)
		if m == nil {
			t.Fatalf("%q is no URL with a port", url)
		}
		if ports[m[2]] {
			t.Errorf("port %s is there twice", m[2])
		}
		ports[m[2]] = true
		echo(t, dial(t, url), "over "+url)
	}
	p.stop()
	for _, line := range p.stdout.all() {
		if !regexp.MustCompile(`^(ws|http)://\S+:[1-9]\d*/\S* +\S.*$`).MatchString(line) {
			t.Errorf("stdout has a line other than a URL and what is there: %q", line)
		}
	}
	if n := len(p.stdout.seen); n != 2*len(args) {
		t.Errorf("stdout has %d lines for %d addresses, want 4 for each:\n%s", n, len(args)/2, strings.Join(p.stdout.seen, "\n"))
	}
}

func TestPlainWspollIsServe(t *testing.T) {
	outputs := map[string]string{}
	for _, command := range []string{"", "serve"} {
		var p *process
		var url string
		if command == "" {
			p, url = serving(t, "--log-level", "warn", "--subprotocol", "a")
		} else {
			p, url = serving(t, command, "--log-level", "warn", "--subprotocol", "a")
		}
		echo(t, dial(t, url), "hello")
		p.stop()
		both := append(p.stdout.all(), p.stderr.all()...)
		outputs[command] = regexp.MustCompile(`:\d+`).ReplaceAllString(strings.Join(both, "\n"), ":PORT")
	}
	if outputs[""] != outputs["serve"] {
		t.Errorf("wspoll prints\n%s\nwspoll serve prints\n%s", outputs[""], outputs["serve"])
	}
}

func TestFlagsHaveTwinsInTheEnvironment(t *testing.T) {
	env := []string{"WSPOLL_LISTEN=127.0.0.1:0,127.0.0.1:0", "WSPOLL_SUBPROTOCOL=one,two", "WSPOLL_LOG_FORMAT=json"}
	protocol := func(url string) string {
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		c, _, hs, err := ws.Dialer{Protocols: []string{"zero", "two"}}.Dial(ctx, url)
		if err != nil {
			t.Fatal(err)
		}
		c.Close()
		return hs.Protocol
	}

	p := start(t, env...)
	p.url()
	p.stdout.next("/topics/")
	if got := protocol(p.url()); got != "two" {
		t.Errorf("the second address agrees on subprotocol %q, want two", got)
	}
	if line := p.stderr.next("room for"); !json.Valid([]byte(line)) {
		t.Errorf("WSPOLL_LOG_FORMAT=json, and the log has %q", line)
	}
	p.stop()

	p = start(t, append(env, "--subprotocol", "zero", "--listen", "127.0.0.1:0")...)
	if got := protocol(p.url()); got != "zero" {
		t.Errorf("--subprotocol zero is given, and the subprotocol is %q", got)
	}
	p.stop()
	if lines := p.stdout.all(); len(lines) != 4 {
		t.Errorf("--listen is given once, and stdout is\n%s", strings.Join(lines, "\n"))
	}
}

func TestCompressSaysWhatIsAgreedOn(t *testing.T) {
	for _, tt := range []struct {
		args []string
		want string
	}{
		{nil, "permessage-deflate; server_no_context_takeover; client_no_context_takeover"},
		{[]string{"--compress", "context"}, "permessage-deflate; server_max_window_bits=12; client_max_window_bits=12"},
		{[]string{"WSPOLL_COMPRESS=off"}, ""},
	} {
		p := start(t, append(tt.args, "--listen", "127.0.0.1:0")...)
		req, err := http.NewRequestWithContext(t.Context(), "GET", strings.Replace(p.url(), "ws:", "http:", 1), nil)
		if err != nil {
			t.Fatal(err)
		}
		for name, v := range map[string]string{
			"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13",
			"Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==", "Sec-WebSocket-Extensions": "permessage-deflate; client_max_window_bits",
		} {
			req.Header.Set(name, v)
		}
		res, err := http.DefaultTransport.RoundTrip(req)
		if err != nil {
			t.Fatal(err)
		}
		if got := res.Header.Get("Sec-WebSocket-Extensions"); got != tt.want {
			t.Errorf("%q: %q, want %q", tt.args, got, tt.want)
		}
		res.Body.Close()
		p.stop()
	}
}

func TestAddressThatCannotBeListenedOnIsOneLineAndStatus1(t *testing.T) {
	held, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer held.Close()
	other, url := serving(t)
	otherAddr := "127.0.0.1:" + regexp.MustCompile(`:(\d+)/`).FindStringSubmatch(url)[1]
	free, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	free.Close()
	for _, tt := range []struct {
		name string
		addr string
		args []string
		want string
	}{
		{"held by a stranger", held.Addr().String(), nil, "the address is in use; choose another with --listen, or end what uses it"},
		{"held by another wspoll", otherAddr, nil, "the address is in use; choose another with --listen, or end what uses it"},
		{"held by another wspoll, bare echo", otherAddr, []string{"--bare-echo"}, "the address is in use; choose another with --listen, or end what uses it"},
		{"given twice", free.Addr().String(), []string{"--listen", free.Addr().String()}, "the address is in use; choose another with --listen, or end what uses it"},
		{"not of this machine", "192.0.2.1:8002", nil, "this machine has no such address"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := start(t, append(tt.args, "--listen", tt.addr)...)
			code := p.wait()
			stderr, stdout := p.stderr.all(), p.stdout.all()
			if want := fmt.Sprintf("wspoll: cannot listen on %s: %s", tt.addr, tt.want); code != exitFail || len(stderr) != 1 || stderr[0] != want {
				t.Errorf("exit %d, stderr %q; want 1 and %q", code, stderr, want)
			}
			if len(stdout) != 0 {
				t.Errorf("stdout has %q", stdout)
			}
		})
	}
	echo(t, dial(t, url), "the other one still serves")
	other.stop()
}

func TestPidfileIsThereWhileItServes(t *testing.T) {
	for _, args := range [][]string{nil, {"--bare-echo"}} {
		t.Run(strings.Join(args, " "), func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "pid")
			p := start(t, append(args, "--pidfile", path, "--listen", "127.0.0.1:0")...)
			p.stdout.next("://")
			b, err := os.ReadFile(path)
			if want := strconv.Itoa(p.cmd.Process.Pid) + "\n"; err != nil || string(b) != want {
				t.Errorf("it has %q, %v; want %q", b, err, want)
			}
			p.stop()
			if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("it is still there: %v", err)
			}
		})
	}
	t.Run("one that cannot be written is one line and status 1", func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "missing", "pid")
		p := start(t, "--pidfile", path, "--listen", "127.0.0.1:0")
		code := p.wait()
		if lines := p.stderr.all(); code != exitFail || len(lines) != 1 || !strings.Contains(lines[0], "--pidfile") || !strings.Contains(lines[0], path) {
			t.Errorf("exit %d, stderr %q", code, lines)
		}
		if lines := p.stdout.all(); len(lines) != 0 {
			t.Errorf("stdout has %q", lines)
		}
	})
}

func TestSignalClosesEveryConnectionWith1001(t *testing.T) {
	for _, sig := range []syscall.Signal{syscall.SIGTERM, syscall.SIGINT} {
		t.Run(sig.String(), func(t *testing.T) {
			p, url := serving(t, "--log-level", "debug")
			var conns []net.Conn
			for range 20 {
				c := dial(t, url)
				echo(t, c, "hello")
				conns = append(conns, c)
			}
			idle, err := net.Dial("tcp", strings.TrimSuffix(strings.TrimPrefix(url, "ws://"), "/wshandler"))
			if err != nil {
				t.Fatal(err)
			}
			defer idle.Close()
			p.signal(sig)
			for _, c := range conns {
				if code := closeCode(t, c); code != ws.StatusGoingAway {
					t.Errorf("closed with %d, want 1001", code)
				}
				if err := ws.WriteFrame(c, ws.MaskFrame(ws.NewCloseFrame(ws.NewCloseFrameBody(ws.StatusGoingAway, "")))); err != nil {
					t.Error(err)
				}
			}
			if code := p.wait(); code != exitOK {
				t.Errorf("exit %d, want 0", code)
			}
			log := strings.Join(p.stderr.all(), "\n")
			if n := strings.Count(log, "reason=drain"); n < len(conns) {
				t.Errorf("%d connections ended with reason=drain, want %d:\n%s", n, len(conns), log)
			}
			if _, err := net.Dial("tcp", idle.RemoteAddr().String()); err == nil {
				t.Error("connections are still taken")
			}
		})
	}
}

func TestDrainEndsAfterItsTime(t *testing.T) {
	p, url := serving(t, "--drain", "300ms", "--close-timeout", "1h")
	c := dial(t, url)
	p.signal(syscall.SIGTERM)
	if code := closeCode(t, c); code != ws.StatusGoingAway {
		t.Errorf("closed with %d, want 1001", code)
	}
	// The answer to the Close never comes.
	if code := p.wait(); code != exitOK {
		t.Errorf("exit %d, want 0", code)
	}
	log := strings.Join(p.stderr.all(), "\n")
	if !strings.Contains(log, "1 connections did not end in time") {
		t.Errorf("the log does not say that a connection was cut off:\n%s", log)
	}
}

func TestSecondSignalEndsAtOnce(t *testing.T) {
	pidfile := filepath.Join(t.TempDir(), "pid")
	p, url := serving(t, "--drain", "1h", "--close-timeout", "1h", "--pidfile", pidfile)
	c := dial(t, url)
	p.signal(syscall.SIGTERM)
	closeCode(t, c) // it drains, and this client does not answer
	p.signal(syscall.SIGINT)
	if code := p.wait(); code != exitFail {
		t.Errorf("exit %d, want 1", code)
	}
	p.stderr.next("second signal: ending at once")
	if _, err := os.Stat(pidfile); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the pidfile is still there: %v", err)
	}
}

func TestLogTellsWhyEachConnectionEnded(t *testing.T) {
	masked := func(f ws.Frame) []byte { return ws.MustCompileFrame(ws.MaskFrame(f)) }
	p, url := serving(t, "--log-level", "debug", "--log-format", "json", "--max-message", "1KiB")
	host := strings.TrimSuffix(strings.TrimPrefix(url, "ws://"), "/wshandler")
	for _, tt := range []struct {
		name  string
		do    func(t *testing.T)
		wants map[string]any // in the line about the end
	}{
		{"peer closed", func(t *testing.T) {
			dial(t, url).Write(masked(ws.NewCloseFrame(ws.NewCloseFrameBody(3001, "bye"))))
		}, map[string]any{"code": 3001.0, "path": "/wshandler"}},
		{"eof", func(t *testing.T) { dial(t, url).Close() }, map[string]any{"path": "/wshandler"}},
		{"protocol error", func(t *testing.T) {
			dial(t, url).Write(ws.MustCompileFrame(ws.NewTextFrame([]byte("not masked"))))
		}, nil},
		{"invalid UTF-8", func(t *testing.T) {
			dial(t, url).Write(masked(ws.NewTextFrame([]byte("\xff"))))
		}, nil},
		{"message too large", func(t *testing.T) {
			dial(t, url).Write(masked(ws.NewBinaryFrame(make([]byte, 1025))))
		}, nil},
		{"reset", func(t *testing.T) {
			c := dial(t, url)
			c.(*net.TCPConn).SetLinger(0)
			c.Close()
		}, map[string]any{"path": "/wshandler"}},
		{"handshake refused", func(t *testing.T) {
			if _, err := tryDial(ws.Dialer{}, "ws://"+host+"/nothing"); err == nil {
				t.Error("there is something at /nothing")
			}
		}, nil},
	} {
		t.Run(tt.name, func(t *testing.T) {
			tt.do(t)
			line := p.stderr.next("connection ended")
			var entry map[string]any
			if err := json.Unmarshal([]byte(line), &entry); err != nil {
				t.Fatalf("%q: %v", line, err)
			}
			if entry["reason"] != tt.name || entry["level"] != "DEBUG" {
				t.Errorf("the line is %s", line)
			}
			for k, v := range tt.wants {
				if entry[k] != v {
					t.Errorf("%s is %v, want %v: %s", k, entry[k], v, line)
				}
			}
			if tt.wants == nil && entry["fault"] == nil {
				t.Errorf("the fault is not named: %s", line)
			}
		})
	}
	p.stop()
	for _, line := range p.stderr.all() {
		if !json.Valid([]byte(line)) {
			t.Errorf("--log-format json, and the log has %q", line)
		}
	}
}

func TestQuietLogSaysNothing(t *testing.T) {
	p, url := serving(t, "--log-level", "error")
	c := dial(t, url)
	echo(t, c, "hello")
	c.Close()
	p.stop()
	if lines := p.stderr.all(); len(lines) != 0 {
		t.Errorf("stderr has %q", lines)
	}
}

func TestOpenFilesLimitIsRaised(t *testing.T) {
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	hard := int(min(limit.Max, 1<<30))
	if hard < 1000 {
		lacking(t, "the hard limit of open files is %d, too low to tell anything", hard)
	}
	cmd := exec.Command("sh", "-c", `ulimit -Sn 256 && exec "$0" "$@"`, os.Args[0], "--listen", "127.0.0.1:0", "--loops", "2", "--log-format", "json")
	p := startCmd(t, cmd)
	url := p.url()
	var line struct {
		Msg       string `json:"msg"`
		OpenFiles int    `json:"open_files"`
	}
	if err := json.Unmarshal([]byte(p.stderr.next("room for")), &line); err != nil {
		t.Fatal(err)
	}
	room := hard - sparedFiles - 2*(2+1)
	if line.OpenFiles != hard || !strings.HasPrefix(line.Msg, fmt.Sprintf("room for %d connections;", room)) {
		t.Errorf("the hard limit is %d; the log says %+v", hard, line)
	}
	for range 400 {
		echo(t, dial(t, url), "more than the soft limit allows")
	}
	p.signal(syscall.SIGKILL)
	p.wait()

	t.Run("a --max-connections above it is told", func(t *testing.T) {
		p, _ := serving(t, "--loops", "2", "--max-connections", strconv.Itoa(hard+1))
		if line := p.stderr.next("--max-connections"); !strings.Contains(line, "level=WARN") || !strings.Contains(line, fmt.Sprintf("possible=%d", room)) {
			t.Errorf("the warning is %s", line)
		}
		p.stderr.next(fmt.Sprintf("room for %d connections", room))
		p.stop()
	})
}

func TestMaxConnectionsRefusesTheNextWith503(t *testing.T) {
	p, url := serving(t, "--max-connections", "1", "--log-level", "debug")
	p.stderr.next("room for 1 connections")
	first := dial(t, url)
	echo(t, first, "hello")
	_, err := tryDial(ws.Dialer{}, url)
	if status, ok := errors.AsType[ws.StatusError](err); !ok || status != 503 {
		t.Errorf("the second connection gets %v, want 503", err)
	}
	p.stderr.next("too many connections")
	first.Close()
	p.stderr.next("reason=eof")
	// The line comes a moment before the place is free.
	var c net.Conn
	for until := time.Now().Add(patience); time.Now().Before(until); {
		if c, err = tryDial(ws.Dialer{}, url); err == nil {
			break
		}
	}
	if err != nil {
		t.Fatal("the place of the connection that ended is not given to another:", err)
	}
	defer c.Close()
	echo(t, c, "there is room again")
	p.stop()
}

func TestBarePushSendsBytesToAllOthers(t *testing.T) {
	p := start(t, "--bare-push", "--loops", "2", "--listen", "127.0.0.1:0")
	addr, _, _ := strings.Cut(strings.TrimPrefix(p.stdout.next("tcp://"), "tcp://"), " ")
	var all []net.Conn
	for range 8 {
		c, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		c.SetDeadline(time.Now().Add(patience))
		all = append(all, c)
		if _, err := c.Write([]byte("new")); err != nil {
			t.Fatal(err)
		}
		if len(all) == 2 {
			// Whether the server knew the first by then is luck; from here on, who
			// has said something that was heard is known.
			heard := make(chan error, 1)
			go func() {
				_, err := io.ReadFull(all[0], make([]byte, 3))
				heard <- err
			}()
			for again, waiting := time.NewTicker(10*time.Millisecond), true; waiting; {
				select {
				case err := <-heard:
					if err != nil {
						t.Fatal(err)
					}
					again.Stop()
					waiting = false
				case <-again.C:
				}
				if _, err := c.Write([]byte("new")); err != nil {
					t.Fatal(err)
				}
			}
		}
		for _, old := range all[:len(all)-1] {
			got := make([]byte, 3)
			if _, err := io.ReadFull(old, got); err != nil || string(got) != "new" {
				t.Fatalf("what comes is %q, %v", got, err)
			}
		}
	}
	p.stop()
}

func TestBareEchoEchoesBytes(t *testing.T) {
	p := start(t, "--bare-echo", "--listen", "127.0.0.1:0", "--listen", "127.0.0.1:0")
	for range 2 {
		line := p.stdout.next("tcp://")
		addr, _, _ := strings.Cut(strings.TrimPrefix(line, "tcp://"), " ")
		c, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		c.SetDeadline(time.Now().Add(patience))
		sent := []byte("no frames here \x00\xff\r\n")
		for range 3 {
			got := make([]byte, len(sent))
			if _, err := c.Write(sent); err != nil {
				t.Fatal(err)
			}
			if _, err := io.ReadFull(c, got); err != nil || string(got) != string(sent) {
				t.Fatalf("the echo is %q, %v", got, err)
			}
		}
	}
	p.stop()
}
