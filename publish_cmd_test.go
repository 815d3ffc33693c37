package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"wspoll/server"

	"github.com/gobwas/ws"
	"github.com/gobwas/ws/wsutil"
)

const testToken = "0123456789abcdef"

func TestPublishIsCalledRightOrSaysWhy(t *testing.T) {
	file := write(t, "message", "x")
	for _, tt := range []struct {
		args []string
		code int
		want string
	}{
		{[]string{"publish"}, 2, "publish needs the NAME of a topic and a MESSAGE"},
		{[]string{"publish", "news"}, 2, "publish needs a MESSAGE, - for stdin, or --file"},
		{[]string{"publish", "a/b", "x"}, 2, "a/b: a topic's name is 1 to 128 letters"},
		{[]string{"publish", "news", "two", "words"}, 2, "words is one argument too many: a message with blanks needs quotes"},
		{[]string{"publish", "news", "x", "--file", file}, 2, "there is a message, x, and --file "},
		{[]string{"publish", "news", "--file", file + "x"}, 1, "--file cannot be read: open "},
		{[]string{"publish", "news", "x", "--server", "127.0.0.1:8002"}, 2, "--server 127.0.0.1:8002: must be like http://127.0.0.1:8002"},
		{[]string{"publish", "news", "x", "--server", "http://a/path"}, 2, "--server http://a/path: must be like"},
		{[]string{"publish", "news", "x", "--server", "http://a:99999"}, 2, "--server http://a:99999: must be like"},
		{[]string{"publish", "news", "--file", t.TempDir()}, 1, "--file cannot be read: "},
		{[]string{"publish", "news", "x", "--timeout", "0"}, 2, "--timeout 0s: must be from 10ms to an hour"},
		{[]string{"publish", "news", "x", "--token-file", file + "x"}, 1, "--token-file cannot be read: open "},
		{[]string{"publish", "news", "x", "--token-file", write(t, "bad", "sec ret")}, 1, "--token-file "},
		{[]string{"publish", "news", "x", "--server", "http://127.0.0.1:1"}, 1, "http://127.0.0.1:1: nobody listens there; start wspoll serve, or say with --server where it is"},
		{[]string{"topics", "now"}, 2, `"now" is not an argument of wspoll topics`},
		{[]string{"topics", "--server", "http://127.0.0.1:1"}, 1, "http://127.0.0.1:1: nobody listens there"},
	} {
		code, stdout, stderr := call(tt.args...)
		if oneLine(t, stderr); code != tt.code || stdout != "" || !strings.HasPrefix(stderr, "wspoll: "+tt.want) || strings.Contains(stderr, "sec ret") {
			t.Errorf("%q: exit %d, stdout %q, stderr %q; want exit %d and %q", tt.args, code, stdout, stderr, tt.code, tt.want)
		}
	}
}

func TestPublishReachesTheSubscribers(t *testing.T) {
	token := write(t, "token", testToken+"\n")
	p, url := serving(t, "--publish-token-file", token, "--max-message", "64KiB")
	url = strings.TrimSuffix(url, "/wshandler")
	t.Setenv("WSPOLL_SERVER", "http"+strings.TrimPrefix(url, "ws"))
	t.Setenv("WSPOLL_TOKEN_FILE", token)

	if code, stdout, stderr := call("publish", "news", "x"); code != 0 || stdout != "news: queued for nobody, and not kept\n" || stderr != "" {
		t.Errorf("without a subscriber: exit %d, stdout %q, stderr %q", code, stdout, stderr)
	}
	l := listen(t, url+"/topics/news")
	wsutil.WriteClientMessage(l, ws.OpPing, nil) // after the pong it is surely subscribed
	if h, err := ws.ReadHeader(l); err != nil || h.OpCode != ws.OpPong {
		t.Fatal(h, err)
	}
	code, stdout, stderr := call("publish", "news", "of today")
	var seq uint64
	if n, _ := fmt.Sscanf(stdout, "news: number %d, queued for 1\n", &seq); n != 1 || code != 0 || stderr != "" {
		t.Errorf("exit %d, stdout %q, stderr %q", code, stdout, stderr)
	}
	if s := l.text(t); s != "of today" {
		t.Errorf("came %q", s)
	}
	var answer server.Published
	code, stdout, _ = call("publish", "news", "--file", write(t, "message", "of a file"), "--json")
	if err := json.Unmarshal([]byte(stdout), &answer); code != 0 || err != nil || answer.Topic != "news" || answer.Seq != seq+1 || answer.Queued != 1 {
		t.Errorf("exit %d, %v: %q", code, err, stdout)
	}
	if s := l.text(t); s != "of a file" {
		t.Errorf("came %q", s)
	}
	if code, stdout, stderr := fed(t, "of stdin", "publish", "news", "-"); code != 0 || stderr != "" || l.text(t) != "of stdin" {
		t.Errorf("exit %d, stdout %q, stderr %q", code, stdout, stderr)
	}
	if code, _, stderr := call("publish", "news", "\xff"); code != 1 || !strings.Contains(stderr, "400 Bad Request: the body is not UTF-8") || !strings.Contains(stderr, "--binary") {
		t.Errorf("exit %d, stderr %q", code, stderr)
	}
	code, _, _ = call("publish", "news", "\xff", "--binary")
	if b, op, err := wsutil.ReadServerData(l); code != 0 || err != nil || op != ws.OpBinary || string(b) != "\xff" {
		t.Errorf("exit %d, %v %q, %v", code, op, b, err)
	}
	large := write(t, "large", strings.Repeat("x", 64<<10+1))
	if code, _, stderr := call("publish", "news", "--file", large); code != 1 || !strings.Contains(stderr, "413 ") || !strings.Contains(stderr, "make it smaller") {
		t.Errorf("exit %d, stderr %q", code, stderr)
	}

	code, stdout, stderr = call("topics")
	lines := strings.Split(stdout, "\n")
	if code != 0 || stderr != "" || len(lines) != 3 || strings.Join(strings.Fields(lines[0]), " ") != "TOPIC SUBSCRIBERS BEHIND PUBLISHED KEPT DROPPED POLICY" ||
		!strings.HasPrefix(strings.Join(strings.Fields(lines[1]), " "), "news 1 0 4 0 0 close") {
		t.Errorf("exit %d, stdout\n%s stderr %q", code, stdout, stderr)
	}
	var list []server.TopicInfo
	code, stdout, _ = call("topics", "--json")
	if err := json.Unmarshal([]byte(stdout), &list); code != 0 || err != nil || len(list) != 1 || list[0].Name != "news" {
		t.Errorf("exit %d, %v: %q", code, err, stdout)
	}

	t.Setenv("WSPOLL_TOKEN_FILE", "")
	if code, _, stderr := call("publish", "news", "x", "--token-file", write(t, "other", "0123456789abcdeX")); code != 1 || !strings.Contains(stderr, "401 Unauthorized: the token is missing or wrong") || !strings.Contains(stderr, "must have what the server's --publish-token-file has") || strings.Contains(stderr, "abcdeX") {
		t.Errorf("exit %d, stderr %q", code, stderr)
	}
	if code, _, stderr := call("publish", "news", "x"); code != 1 || !strings.Contains(stderr, "401 ") || !strings.Contains(stderr, "; give it with --token-file") {
		t.Errorf("exit %d, stderr %q", code, stderr)
	}
	p.stop()
}

func TestPublishToAServerThatDoesNotWantToIsOneLine(t *testing.T) {
	p, url := serving(t)
	to := "http" + strings.TrimSuffix(strings.TrimPrefix(url, "ws"), "/wshandler")
	code, _, stderr := call("publish", "news", "x", "--server", to)
	if oneLine(t, stderr); code != 1 || stderr != "wspoll: "+to+": refused with 403 Forbidden: publishing over HTTP is off; the server needs --publish-token-file\n" {
		t.Errorf("exit %d, stderr %q", code, stderr)
	}
	p.stop()

	token := write(t, "token", testToken)
	p, url = serving(t, "--publish-token-file", token, "--publish-rate", "0.01")
	to = "http" + strings.TrimSuffix(strings.TrimPrefix(url, "ws"), "/wshandler")
	call("publish", "news", "x", "--server", to, "--token-file", token)
	code, _, stderr = call("publish", "news", "x", "--server", to, "--token-file", token)
	if oneLine(t, stderr); code != 1 || !strings.Contains(stderr, "429 Too Many Requests: more messages than --publish-rate allows; try again later\n") {
		t.Errorf("exit %d, stderr %q", code, stderr)
	}
	p.stop()

	for _, tt := range []struct {
		answer http.HandlerFunc
		want   string
	}{
		{func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "no room", http.StatusServiceUnavailable) }, "refused with 503 Service Unavailable: no room; try again later\n"},
		{func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusAccepted) }, "the answer is not that of wspoll serve"},
		{func(w http.ResponseWriter, r *http.Request) { http.NotFound(w, r) }, "refused with 404 Not Found: 404 page not found; is this wspoll serve?\n"},
		{func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "http://127.0.0.1:1/", http.StatusFound)
		}, "refused with 302 Found\n"}, // the token goes nowhere else
		{func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(http.StatusNotImplemented)
			io.WriteString(w, "<!DOCTYPE HTML>\n<html>")
		}, "refused with 501 Not Implemented; is this wspoll serve?\n"},
		{func(w http.ResponseWriter, _ *http.Request) {
			http.Error(w, strings.Repeat("€", 200), http.StatusInternalServerError)
		}, "refused with 500 Internal Server Error: €€"},
		{func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "<html>") }, "the answer is not that of wspoll serve"},
		{func(w http.ResponseWriter, _ *http.Request) {
			http.Error(w, "\x1b[2J"+strings.Repeat("x", 1000), http.StatusInternalServerError)
		}, `refused with 500 Internal Server Error: "\x1b[2Jx`},
	} {
		s := httptest.NewServer(tt.answer)
		code, stdout, stderr := call("publish", "news", "x", "--server", s.URL, "--token-file", token)
		if oneLine(t, stderr); code != 1 || stdout != "" || !strings.HasPrefix(stderr, "wspoll: "+s.URL+": "+tt.want) || len(stderr) > 600 {
			t.Errorf("exit %d, stderr %q, want %q", code, stderr, tt.want)
		}
		s.Close()
	}

	l, err := net.Listen("tcp", "127.0.0.1:0") // accepts, in the kernel, and says nothing
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	code, _, stderr = call("publish", "news", "x", "--server", "http://"+l.Addr().String(), "--timeout", "100ms")
	if want := "wspoll: http://" + l.Addr().String() + ": no answer within 100ms; --timeout sets for how long to wait\n"; code != 1 || stderr != want {
		t.Errorf("exit %d, stderr %q, want %q", code, stderr, want)
	}
}

// mute accepts connections and answers nothing; came is closed when the first bytes have come.
func mute(t *testing.T) (url string, came chan struct{}) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	came = make(chan struct{})
	go func() {
		if conn, err := l.Accept(); err == nil {
			defer conn.Close()
			conn.Read(make([]byte, 1))
			close(came)
			io.Copy(io.Discard, conn)
		}
	}()
	return "http://" + l.Addr().String(), came
}

func TestPublishInterruptedSaysWhatBecameOfTheMessage(t *testing.T) {
	for _, tt := range []struct {
		args []string
		want string
	}{
		{[]string{"publish", "news", "x"}, "wspoll: interrupted; whether the message was published is not known"},
		{[]string{"publish", "news", "-"}, "wspoll: interrupted before stdin ended; nothing was published"},
		{[]string{"topics"}, "wspoll: interrupted"},
	} {
		url, came := mute(t)
		cmd := exec.Command(os.Args[0], append(tt.args, "--server", url)...)
		in, err := cmd.StdinPipe() // never closed, so that stdin does not end
		if err != nil {
			t.Fatal(err)
		}
		p := startCmd(t, cmd)
		io.WriteString(in, "half a")
		<-came
		p.signal(os.Interrupt)
		if code, lines := p.wait(), p.stderr.all(); code != 1 || len(lines) != 1 || lines[0] != tt.want {
			t.Errorf("%q: exit %d, %q", tt.args, code, lines)
		}
	}
}

func TestPublishSaysThatStdinDidNotEnd(t *testing.T) {
	url, _ := mute(t)
	cmd := exec.Command(os.Args[0], "publish", "news", "-", "--server", url, "--timeout", "200ms")
	if _, err := cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	p := startCmd(t, cmd)
	if code, lines := p.wait(), p.stderr.all(); code != 1 || len(lines) != 1 || lines[0] != "wspoll: stdin did not end within 200ms; --timeout sets for how long to wait" {
		t.Errorf("exit %d, %q", code, lines)
	}
}

func TestTheServerOfPublishIsNotThatOfOtherCommands(t *testing.T) {
	t.Setenv("WSPOLL_SERVER", "http://127.0.0.1:1")
	hello := filepath.Clean(write(t, "hello", unmaskedHello))
	if code, stdout, stderr := call("inspect", "--brief", hello); code != 0 || !strings.Contains(stdout, `"Hello"`) {
		t.Errorf("inspect: exit %d, stdout %q, stderr %q", code, stdout, stderr)
	}
	if code, stdout, stderr := call("conform", "--list", "--only", "rfc6455-4.1-plain"); code != 0 || stdout == "" {
		t.Errorf("conform: exit %d, stdout %q, stderr %q", code, stdout, stderr)
	}
	if !bytes.Contains([]byte(aboutFlags), []byte("WSPOLL_SERVER")) {
		t.Error("the help does not tell of it")
	}
}

// A server that shares its topics may have lost the others for a while.
func TestPublishThatWaitsForOtherServersIsNoFailure(t *testing.T) {
	const body = `{"topic":"news","seq":0,"queued":3,"waiting":true}`
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusAccepted)
		io.WriteString(w, body)
	}))
	defer s.Close()
	if code, stdout, stderr := call("publish", "news", "x", "--server", s.URL); code != 0 || stdout != "news: queued for 3, and waits for other servers\n" || stderr != "" {
		t.Errorf("exit %d, stdout %q, stderr %q", code, stdout, stderr)
	}
	if code, stdout, _ := call("publish", "news", "x", "--server", s.URL, "--json"); code != 0 || stdout != body {
		t.Errorf("exit %d, stdout %q", code, stdout)
	}
}

func TestPublishAndTopicsOverTLS(t *testing.T) {
	asked := 0
	s := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if asked++; r.Method == http.MethodGet {
			io.WriteString(w, `[{"name":"news"}]`)
			return
		}
		io.WriteString(w, `{"topic":"news","seq":7,"queued":1}`)
	}))
	s.Config.ErrorLog = log.New(io.Discard, "", 0) // the handshakes that the client ends
	s.StartTLS()
	defer s.Close()
	token := write(t, "token", testToken)
	for _, args := range [][]string{{"publish", "news", "x"}, {"topics"}} {
		args = append(args, "--server", s.URL, "--token-file", token)
		code, stdout, stderr := call(args...)
		if oneLine(t, stderr); code != 1 || stdout != "" || !strings.HasPrefix(stderr, "wspoll: "+s.URL+": tls: ") || !strings.HasSuffix(stderr, "; --insecure accepts any certificate\n") {
			t.Errorf("%q: exit %d, stdout %q, stderr %q", args, code, stdout, stderr)
		}
		if asked > 0 {
			t.Fatal("the token went to a server whose certificate is not known")
		}
	}
	if code, stdout, stderr := call("publish", "news", "x", "--server", s.URL, "--token-file", token, "--insecure"); code != 0 || stdout != "news: number 7, queued for 1\n" || stderr != "" {
		t.Errorf("exit %d, stdout %q, stderr %q", code, stdout, stderr)
	}
	if code, stdout, stderr := call("topics", "--server", s.URL, "--token-file", token, "--insecure"); code != 0 || !strings.Contains(stdout, "\nnews ") || stderr != "" {
		t.Errorf("exit %d, stdout %q, stderr %q", code, stdout, stderr)
	}
}
