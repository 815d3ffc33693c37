package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"encoding/xml"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"wspoll/conform"
	"wspoll/handshake"
	"wspoll/server"
)

// echoURL is an echo of our own server.
func echoURL(t *testing.T) string {
	t.Helper()
	s, err := server.New(server.Config{})
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Handle("/echo", server.Echo()); err != nil {
		t.Fatal(err)
	}
	addr, err := s.Listen("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s.Start()
	t.Cleanup(func() { s.Shutdown(context.Background()) })
	return "ws://" + addr.String() + "/echo"
}

func TestConformIsCalledRightOrSaysWhy(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	taken := l.Addr().String()
	for _, tt := range []struct {
		args []string
		code int
		want string
	}{
		{nil, 2, "what is to be tested? give the URL of a server, or --server ADDR for clients to connect to"},
		{[]string{"ws://a/", "ws://b/"}, 2, "ws://b/ is one URL too many; one server is tested at a time"},
		{[]string{"ws://a/", "--server", ":0"}, 2, "there is a URL, ws://a/, and --server :0; only one of them can be tested"},
		{[]string{"--server", ":0", "--parallel", "3"}, 2, "--parallel is about the connections to a URL, and with --server it is the clients that connect"},
		{[]string{"http://a/"}, 2, "http://a/: the scheme of a WebSocket is ws or wss, not http (RFC 6455 §3)"},
		{[]string{"ws://a/", "--timeout", "1ms"}, 2, "--timeout 1ms: must be from 10ms to an hour"},
		{[]string{"ws://a/", "--timeout", "soon"}, 2, "--timeout soon: must be a time like 500ms, 5s, 2m or 1h30m"},
		{[]string{"ws://a/", "--parallel", "0"}, 2, "--parallel 0: must be from 1 to 1024"},
		{[]string{"ws://a/", "--chop", "-1"}, 2, "--chop -1: must be from 0 to 1048576"},
		{[]string{"ws://a/", "--cut", "-1"}, 2, "--cut -1: must be from 0 to 1048576"},
		{[]string{"ws://a/", "--cut", "1", "--chop", "1"}, 2, "--cut and --chop both say how bytes are cut; give one of them"},
		{[]string{"--server", ":0", "--cut", "3"}, 2, "--cut is about the connections to a URL, and with --server it is the clients that connect"},
		{[]string{"ws://a/", "--origin", "a\r\nb"}, 2, `--origin "a\r\nb": must be one line`},
		{[]string{"ws://a/", "--header", "x"}, 2, `--header "x": must be like "Name: value"`},
		{[]string{"ws://a/", "--only", "rfc1-*"}, 2, "--only rfc1-*: no case has such an id; see wspoll conform --list"},
		{[]string{"ws://a/", "--json", "-", "--junit", "-"}, 2, "--json and --junit cannot both go to stdout"},
		{[]string{"--list", "--junit", "x"}, 2, "--list has no form for --junit; it has one for --json"},
		{[]string{"ws://127.0.0.1:1/"}, 1, "ws://127.0.0.1:1/: cannot connect: dial tcp 127.0.0.1:1: connect: connection refused"},
		{[]string{"--server", "256.0.0.1:0"}, 1, "cannot listen on 256.0.0.1:0: "},
		{[]string{"--server", "here"}, 2, "--server here: must be host:port, like 127.0.0.1:8002"},
		{[]string{"--server", "127.0.0.1:99999"}, 2, "--server 127.0.0.1:99999: must be host:port"},
		{[]string{"--server", taken}, 1, "cannot listen on " + taken + ": the address is in use; choose another with --server, or end what uses it"},
		{[]string{"ws://a/", "-H", "sec-websocket-key: x"}, 2, "--header sec-websocket-key: the handshake writes its own"},
		{[]string{"ws://a/", "-H", "Sec-WebSocket-Extensions: x"}, 2, "--header Sec-WebSocket-Extensions: the handshake writes its own"},
		{[]string{"ws://a/", "-H", "Host: b"}, 2, "--header Host: the handshake writes its own"},
		{[]string{"ws://a/", "-H", "Origin: http://a"}, 2, "--header Origin: use --origin for it"},
	} {
		code, stdout, stderr := call(append([]string{"conform"}, tt.args...)...)
		oneLine(t, stderr)
		if code != tt.code || stdout != "" || !strings.HasPrefix(stderr, "wspoll: "+tt.want) {
			t.Errorf("%q: exit %d, stdout %q, stderr %q; want exit %d and %q", tt.args, code, stdout, stderr, tt.code, tt.want)
		}
	}
}

func TestConformListsItsCases(t *testing.T) {
	code, stdout, _ := call("conform", "--list")
	if n := strings.Count(stdout, "\nrfc6455-"); code != 0 || n < 350 {
		t.Errorf("exit %d, %d cases", code, n)
	}
	readme, err := os.ReadFile("README.md")
	if want := fmt.Sprintf("%d cases of RFC 6455 and %d of RFC 7692", strings.Count("\n"+stdout, "\nrfc6455-"), strings.Count("\n"+stdout, "\nrfc7692-")); err != nil || !strings.Contains(string(readme), want) {
		t.Errorf("README.md does not say that there are %s; %v", want, err)
	}
	code, stdout, _ = call("conform", "--list", "--server", ":0", "--only", "rfc6455-4.1-answer-*", "--json", "-")
	var list []struct{ ID, Section, Sentence string }
	if err := json.Unmarshal([]byte(stdout), &list); err != nil || code != 0 || len(list) < 20 || list[0].Section != "RFC 6455 §4.1" || list[0].Sentence == "" {
		t.Errorf("exit %d, %v, %d cases: %+v", code, err, len(list), list)
	}
	file := filepath.Join(t.TempDir(), "list.json")
	if code, stdout, _ := call("conform", "--list", "--json", file); code != 0 || stdout != "" {
		t.Errorf("exit %d, stdout %q", code, stdout)
	}
	if b, err := os.ReadFile(file); err != nil || json.Unmarshal(b, &list) != nil {
		t.Errorf("%v, %.100q", err, b)
	}
}

func TestConformReportsWhereItIsAskedTo(t *testing.T) {
	url := echoURL(t)
	jsonFile, junitFile := filepath.Join(t.TempDir(), "r.json"), filepath.Join(t.TempDir(), "r.xml")
	code, stdout, stderr := call("conform", url, "--only", "rfc6455-5.6-*", "--only", "rfc6455-4.1-plain", "--json", jsonFile, "--junit", junitFile, "-H", "X-Test: 1", "--origin", "http"+strings.TrimSuffix(strings.TrimPrefix(url, "ws"), "/echo"))
	if code != 0 || stderr != "" || !strings.Contains(stdout, url+": 47 cases in ") || !strings.HasSuffix(stdout, ": 47 ok\n") {
		t.Errorf("exit %d, stdout %q, stderr %q", code, stdout, stderr)
	}
	var r conform.Report
	b, err := os.ReadFile(jsonFile)
	if err != nil || json.Unmarshal(b, &r) != nil || len(r.Results) != 47 || r.Counts.OK != 47 {
		t.Errorf("%v, %d results, %+v", err, len(r.Results), r.Counts)
	}
	b, err = os.ReadFile(junitFile)
	var x struct {
		Tests int `xml:"tests,attr"`
	}
	if err != nil || xml.Unmarshal(b, &x) != nil || x.Tests != 47 {
		t.Errorf("%v, %+v", err, x)
	}
	code, stdout, _ = call("conform", url, "--only", "rfc6455-5.6-text-[0-9]", "--json", "-", "--cut", "1")
	if err := json.Unmarshal([]byte(stdout), &r); code != 0 || err != nil || r.Results[0].Runs < 10 {
		t.Errorf("exit %d, %v: %q", code, err, stdout)
	}
	code, stdout, _ = call("conform", url, "--only", "rfc6455-4.1-plain", "--json", "-")
	if err := json.Unmarshal([]byte(stdout), &r); code != 0 || err != nil {
		t.Errorf("exit %d, %v: %q", code, err, stdout)
	}
	if code, stdout, _ = call("conform", url, "--only", "rfc6455-4.1-plain", "--junit", "-"); code != 0 || xml.Unmarshal([]byte(stdout), &x) != nil {
		t.Errorf("exit %d: %q", code, stdout)
	}
	// A file that cannot be written is told before the run, which may take minutes, and what is there stays until it is over.
	bad := filepath.Join(jsonFile, "x")
	code, stdout, stderr = call("conform", url, "--only", "rfc6455-4.1-plain", "--json", bad, "--junit", junitFile)
	if oneLine(t, stderr); code != 1 || stdout != "" || !strings.HasPrefix(stderr, "wspoll: --json "+bad+" cannot be written: ") {
		t.Errorf("exit %d for a file that cannot be written, stdout %q, stderr %q", code, stdout, stderr)
	}
	if again, err := os.ReadFile(junitFile); err != nil || !bytes.Equal(again, b) {
		t.Errorf("%v, %q", err, again)
	}
}

func TestConformInterruptedBeforeTheServerAnsweredSaysSo(t *testing.T) {
	accepted := make(chan struct{})
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		if conn, err := l.Accept(); err == nil {
			defer conn.Close()
			conn.Read(make([]byte, 1))
			close(accepted)
			io.Copy(io.Discard, conn)
		}
	}()
	p := start(t, "conform", "ws://"+l.Addr().String()+"/", "--timeout", "1m")
	<-accepted
	p.signal(os.Interrupt)
	p.stderr.next("wspoll: interrupted before the server answered")
	if code := p.wait(); code != 1 {
		t.Errorf("exit %d", code)
	}
}

// upgrading is a server that takes every handshake and calls talk with the number of the connection, from 1.
func upgrading(t *testing.T, talk func(n int, conn net.Conn)) (url string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for k := 1; ; k++ {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				var req handshake.Request
				var ans handshake.Answer
				b := make([]byte, 4096)
				n := 0
				for size := 0; size == 0; {
					m, err := conn.Read(b[n:])
					if n += m; err != nil {
						return
					}
					if size, err = handshake.ParseRequest(b[:n], nil, &req); err != nil {
						return
					}
				}
				if handshake.Check(&req, nil, &ans) == nil {
					conn.Write(handshake.AppendAnswer(nil, &ans, nil))
					talk(k, conn)
				}
			}()
		}
	}()
	return "ws://" + l.Addr().String() + "/"
}

func TestConformExitsWith1WhenACaseFailed(t *testing.T) {
	// It ends TCP when something comes.
	url := upgrading(t, func(_ int, conn net.Conn) { conn.Read(make([]byte, 4096)) })
	for _, tt := range []struct {
		args []string
		code int
		want string
	}{
		{[]string{"--only", "rfc6455-5.6-text-1"}, 1, "wspoll: 1 of 1 cases failed\n"},
		{[]string{"--only", "rfc6455-7.4-code-1000"}, 0, ""},
		{[]string{"--only", "rfc6455-7.4-code-1000", "--strict"}, 1, "wspoll: 1 of 1 cases are non-strict, and --strict was given\n"},
	} {
		code, stdout, stderr := call(append([]string{"conform", url}, tt.args...)...)
		if code != tt.code || stderr != tt.want || !strings.Contains(stdout, "<- HTTP/1.1 101 Switching Protocols") {
			t.Errorf("%q: exit %d, stderr %q, stdout %s", tt.args, code, stderr, stdout)
		}
	}
}

func TestConformThatIsInterruptedSaysHowFarItCame(t *testing.T) {
	for _, failing := range []bool{true, false} {
		// The first connection is the probe's; the third case gets no answer.
		stuck := make(chan bool)
		url := upgrading(t, func(n int, conn net.Conn) {
			b := make([]byte, 4096)
			if n == 4 {
				close(stuck)
				io.Copy(io.Discard, conn)
			}
			conn.Read(b)
			if failing {
				io.WriteString(conn, "\x88\x02\x03\xee") // 1006, which may not be sent
			} else {
				io.WriteString(conn, "\x88\x02\x03\xe8")
			}
		})
		p := start(t, "conform", url, "--only", "rfc6455-7.1.6-reason-*", "--parallel", "1", "--timeout", "1m")
		<-stuck
		p.signal(os.Interrupt)
		want := "wspoll: interrupted: 6 of 8 cases were not run"
		if failing {
			want = "wspoll: interrupted: 2 of the 2 cases that were run failed, and 6 were not run"
		}
		if got := p.stderr.next("wspoll: "); got != want {
			t.Errorf("%q, want %q", got, want)
		}
		if code := p.wait(); code != 1 {
			t.Errorf("exit %d", code)
		}
	}
}

func TestConformNamesTheFlagForACertificateThatNobodySigned(t *testing.T) {
	s := httptest.NewUnstartedServer(http.NotFoundHandler())
	s.Config.ErrorLog = log.New(io.Discard, "", 0)
	s.StartTLS()
	defer s.Close()
	url := "wss" + strings.TrimPrefix(s.URL, "https") + "/"
	code, stdout, stderr := call("conform", url)
	if oneLine(t, stderr); code != 1 || stdout != "" || !strings.HasPrefix(stderr, "wspoll: "+url+": cannot connect: TLS: ") || !strings.HasSuffix(stderr, "; --insecure accepts any certificate\n") {
		t.Errorf("exit %d, stdout %q, stderr %q", code, stdout, stderr)
	}
	code, _, stderr = call("conform", url, "--insecure")
	if oneLine(t, stderr); code != 1 || stderr != "wspoll: "+url+": it answers 404 Not Found; a URL of an echo is needed\n" {
		t.Errorf("with --insecure: exit %d, stderr %q", code, stderr)
	}
}

func TestConformTestsClients(t *testing.T) {
	out, in := io.Pipe()
	var stdout bytes.Buffer
	done := make(chan int, 1)
	go func() {
		defer in.Close()
		done <- execute([]string{"conform", "--server", "127.0.0.1:0", "--only", "rfc6455-4.1-answer-right-plain", "--only", "rfc6455-4.1-request"}, &stdout, in)
	}()
	lines := bufio.NewScanner(out)
	lines.Scan()
	addr, _, _ := strings.Cut(strings.TrimPrefix(lines.Text(), "ws://"), "/")
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	conn.Write(handshake.AppendRequest(nil, &handshake.Hello{Host: addr, Target: "/updateReports?agent=tester", Key: handshake.AppendKey(nil, [16]byte{1})}))
	conn.(*net.TCPConn).CloseWrite() // it need not wait for our Close
	if b, err := io.ReadAll(conn); err != nil || !bytes.HasSuffix(b, []byte("\x88\x02\x03\xe8")) {
		t.Errorf("%q, %v", b, err)
	}
	var rest []string
	for lines.Scan() {
		rest = append(rest, lines.Text())
	}
	if code := <-done; code != 1 || len(rest) != 1 || rest[0] != "wspoll: 2 of 2 cases were not run" || !strings.Contains(stdout.String(), "tester: 2 cases in ") {
		t.Errorf("exit %d, stderr %q, stdout %q", code, rest, stdout.String())
	}
}
