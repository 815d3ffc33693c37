package main

import (
	"bufio"
	"encoding/json"
	"io"
	"net"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestTraceShowsTheConversation: both sides in the order of the wire, violations with their section, and no secrets.
func TestTraceShowsTheConversation(t *testing.T) {
	p, url := serving(t, "serve", "--trace", "--trace-format", "brief")
	host := strings.TrimSuffix(strings.TrimPrefix(url, "ws://"), "/wshandler")
	conn, err := net.Dial("tcp", host)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	io.WriteString(conn, "GET /wshandler HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nCookie: id=s3cr3t\r\nAuthorization: Bearer s3cr3t\r\n"+
		"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"+
		"\x81\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58"+"\x81\x02no")
	io.ReadAll(conn)
	for _, want := range []string{
		"== connection 1: client " + conn.LocalAddr().String(),
		"-> GET /wshandler HTTP/1.1",
		"-> Cookie: (not shown)",
		"-> Authorization: (not shown)",
		`-> text FIN 5 B "Hello"`, // in the same packet as the request
		"! RFC 6455 §5.1: frame from a client is not masked; close 1002",
		"<- HTTP/1.1 101 Switching Protocols",
		"<- Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=",
		`<- text FIN 5 B "Hello"`,
		`<- close FIN 35 B 1002 "frame from a client is not masked"`,
		"-- connection 1 has ended",
	} {
		p.stdout.next(want)
	}
	p.signal(syscall.SIGTERM)
	if s := p.wait(); s != 0 {
		t.Errorf("status %d", s)
	}
	if out := strings.Join(p.stdout.all(), "\n"); strings.Contains(out, "s3cr3t") {
		t.Errorf("a secret is shown:\n%s", out)
	}
}

func TestTracePathAndJSON(t *testing.T) {
	p, url := serving(t, "serve", "--trace", "--trace-format", "json", "--trace-path", "/topics/*")
	base := strings.TrimSuffix(url, "/wshandler")
	echo(t, dial(t, url), "not this one")
	dial(t, base+"/topics/news").Close()
	p.stdout.next(`"kind":"end"`)
	lines := 0
	for _, l := range p.stdout.seen {
		if strings.Contains(l, "not this one") || strings.Contains(l, "/wshandler HTTP") {
			t.Errorf("a connection to another path is shown: %s", l)
		}
		if !strings.HasPrefix(l, "{") {
			continue
		}
		var r struct {
			Connection int
			Client     string
			Kind       string
		}
		if err := json.Unmarshal([]byte(l), &r); err != nil || r.Connection == 0 || r.Kind == "" {
			t.Errorf("%s: %v", l, err)
		}
		lines++
	}
	if lines < 10 {
		t.Errorf("%d lines of JSON", lines)
	}
}

// A request that is for net/http is not a conversation of ours; one that never became whole is one to see.
func TestTraceLeavesPlainHTTPOut(t *testing.T) {
	p, url := serving(t, "serve", "--trace", "--trace-format", "brief")
	host := strings.TrimSuffix(strings.TrimPrefix(url, "ws://"), "/wshandler")
	for _, head := range []string{"GET /healthz HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", "GET /wshandler HTTP/1.1\r\nHo"} {
		conn, err := net.Dial("tcp", host)
		if err != nil {
			t.Fatal(err)
		}
		io.WriteString(conn, head)
		conn.(*net.TCPConn).CloseWrite()
		io.ReadAll(conn)
		conn.Close()
	}
	p.stdout.next("-> GET /wshandler HTTP/1.1")
	p.stdout.next("-> Ho")
	p.stdout.next("-- connection 2 has ended")
	if out := strings.Join(p.stdout.seen, "\n"); strings.Contains(out, "/healthz HTTP") {
		t.Errorf("plain HTTP is shown:\n%s", out)
	}
}

func TestProxyTracesBothSides(t *testing.T) {
	_, backend := serving(t, "serve")
	to := strings.TrimSuffix(backend, "/wshandler")
	p, url := proxying(t, "--to", to, "--trace", "--trace-format", "brief", "--trace-path", "/wshandler", "--mode", "tunnel", "--health-every", "0")
	conn := dial(t, url+"wshandler")
	echo(t, conn, "through")
	conn.Close()
	for _, want := range []string{"== connection 1: client 127.0.0.1", "-> GET /wshandler", "== connection 2: client here, server " + strings.TrimPrefix(to, "ws://"), "-> GET /wshandler", `"through"`, `"through"`} {
		p.stdout.next(strings.Replace(want, "localhost", "127.0.0.1", 1))
	}
}

// TestTraceNeverWaitsForItsReader: nobody reads what is printed, and the echo goes on.
func TestTraceNeverWaitsForItsReader(t *testing.T) {
	cmd := exec.Command(os.Args[0], "serve", "--listen", "127.0.0.1:0", "--trace")
	cmd.Env = append(os.Environ(), asProgram+"=1", "WSPOLL_CLOSE_TIMEOUT=100ms")
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	errs, err := cmd.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { cmd.Process.Kill(); cmd.Wait() }()
	r := bufio.NewReader(out)
	line, err := r.ReadString('\n') // and nothing more: the pipe holds 64 KiB
	if err != nil {
		t.Fatal(err)
	}
	url, _, _ := strings.Cut(line, " ")
	log := newStream(t, "stderr", errs)
	conn := dial(t, url)
	text := strings.Repeat("x", 10_000)
	for range 1500 { // 30 MB of wire, over the 4 MiB that may wait
		echo(t, conn, text)
	}
	log.next("the trace has gaps: whoever reads stdout is too slow") // while nobody reads
	// The reader comes back, and is told what it has missed when there is room to show something again.
	told := make(chan string, 1)
	go func() {
		for {
			line, err := r.ReadString('\n')
			if err != nil || strings.Contains(line, "not shown: they came faster") {
				told <- line
				return
			}
		}
	}()
	for deadline := time.Now().Add(patience); ; {
		echo(t, conn, "once more")
		select {
		case line := <-told:
			if !strings.Contains(line, " bytes of the ") {
				t.Errorf("%q", line)
			}
			return
		default:
		}
		if time.Now().After(deadline) {
			t.Fatal("nothing is said of what was not shown")
		}
	}
}

// TestTraceEndsWithItsReader: whoever looked at the trace has seen enough, and the server is there for others.
func TestTraceEndsWithItsReader(t *testing.T) {
	for _, format := range []string{"full", "json"} {
		t.Run(format, func(t *testing.T) {
			r, w, err := os.Pipe()
			if err != nil {
				t.Fatal(err)
			}
			cmd := exec.Command(os.Args[0], "serve", "--listen", "127.0.0.1:0", "--trace", "--trace-format", format)
			cmd.Env = append(os.Environ(), asProgram+"=1", "WSPOLL_CLOSE_TIMEOUT=100ms")
			cmd.Stdout = w
			errs, err := cmd.StderrPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			defer cmd.Process.Kill()
			w.Close()
			line, err := bufio.NewReader(r).ReadString('\n')
			if err != nil {
				t.Fatal(err)
			}
			url, _, _ := strings.Cut(line, " ")
			log := newStream(t, "stderr", errs)
			conn := dial(t, url)
			echo(t, conn, "while somebody looks")
			r.Close()
			echo(t, conn, "and when nobody does")
			log.next("stdout cannot be written: the trace ends, serving goes on")
			echo(t, conn, "and later")
			echo(t, dial(t, url), "and on another connection")
			conn.Close()
			cmd.Process.Signal(syscall.SIGTERM)
			rest := log.all()
			if err := cmd.Wait(); err != nil {
				t.Errorf("%v: %q", err, rest)
			}
			if all := strings.Join(rest, "\n"); strings.Count(all, "the trace ends") != 1 {
				t.Errorf("%s", all)
			}
		})
	}
}

func TestTraceFlagsOfTheProxyAreChecked(t *testing.T) {
	for _, args := range [][]string{{"--trace-format", "loud"}, {"--trace-path", "["}, {"--trace-path", ""}} {
		p := start(t, append([]string{"proxy"}, args...)...)
		p.stderr.next("wspoll: " + args[0])
		if s := p.wait(); s != exitUsage {
			t.Errorf("%v: status %d", args, s)
		}
	}
}
