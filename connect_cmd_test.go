package main

import (
	"bytes"
	"crypto/tls"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http/httptest"
	"os"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
	"unicode"

	"wspoll/handshake"
)

// scripted is a server that does talk with each connection, behind the request's head. answer is a good answer but for
// the empty line.
func scripted(t *testing.T, talk func(c net.Conn, answer string)) (url string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go scriptedOn(l, talk)
	return "ws://" + l.Addr().String() + "/"
}

func scriptedOn(l net.Listener, talk func(c net.Conn, answer string)) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		go func() {
			defer c.Close()
			c.SetDeadline(time.Now().Add(patience))
			var head []byte
			var r handshake.Request
			for n := 0; n == 0; {
				b := make([]byte, 4096)
				m, err := c.Read(b)
				if err != nil {
					return
				}
				head = append(head, b[:m]...)
				if n, err = handshake.ParseRequest(head, nil, &r); err != nil {
					return
				}
			}
			talk(c, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"+
				"Sec-WebSocket-Accept: "+string(handshake.AppendAccept(nil, r.Key))+"\r\n")
		}()
	}
}

// fed runs wspoll as a process with stdin, to its end.
func fed(t *testing.T, stdin string, args ...string) (code int, stdout, stderr string) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0], args...)
	cmd.Env = append(os.Environ(), asProgram+"=1", "GORACE=atexit_sleep_ms=10")
	cmd.Stdin = strings.NewReader(stdin)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	cmd.Run() // how it ended shows in its state
	return cmd.ProcessState.ExitCode(), out.String(), errs.String()
}

func TestConnectIsCalledRightOrSaysWhy(t *testing.T) {
	for _, tt := range []struct {
		args []string
		code int
		want string
	}{
		{nil, 2, "connect needs the URL of a server, like ws://localhost:8002/wshandler"},
		{[]string{"localhost"}, 2, `"localhost" is not a URL like ws://localhost:8002/wshandler`},
		{[]string{"http://a/"}, 2, "http://a/: the scheme of a WebSocket is ws or wss, not http (RFC 6455 §3)"},
		{[]string{"ws://a/", "\xff"}, 2, `the message "\xff" is not UTF-8, as a text message must be (RFC 6455 §5.6)`},
		{[]string{"ws://a/", "--header", "nonsense"}, 2, `--header "nonsense": must be like "Name: value"`},
		{[]string{"ws://a/", "-H", "upgrade: x"}, 2, "--header upgrade: the handshake writes its own"},
		{[]string{"ws://a/", "-H", "Origin: http://a"}, 2, "--header Origin: use --origin for it"},
		{[]string{"ws://a/", "--origin", "a\nb"}, 2, `--origin "a\nb": must be one line`},
		{[]string{"ws://a/", "--subprotocol", "a b"}, 2, "--subprotocol: "},
		{[]string{"ws://a/", "--timeout", "1ms"}, 2, "--timeout 1ms: must be from 10ms to an hour"},
		{[]string{"ws://a/", "--wait", "-1s"}, 2, "--wait -1s: must be 0s or more"},
		{[]string{"ws://a/", "--replies", "-1"}, 2, "--replies -1: must be 0 or more"},
		{[]string{"ws://a/", "--max-message", "much"}, 2, "--max-message much: must be a number of bytes"},
		{[]string{"ws://a/", "--trace=some"}, 2, "--trace some: must be full or brief"},
		{[]string{"--trace", "brief", "ws://a/"}, 2, "--trace brief: the value goes behind =, like --trace=brief"},
		{[]string{"ws://a/", "--trace", "full"}, 2, "--trace full: the value goes behind =, like --trace=full"},
		{[]string{"ws://nobody.invalid/"}, 1, "ws://nobody.invalid/: there is no host nobody.invalid ("},
		{[]string{"ws://a/", "--raw", "--json"}, 2, "--raw prints payload alone"},
		{[]string{"ws://a/", "--json", "--trace=brief"}, 2, "--trace=brief is for people"},
		{[]string{"ws://127.0.0.1:1/"}, 1, "ws://127.0.0.1:1/: nobody listens there (dial tcp 127.0.0.1:1: connect: connection refused)"},
	} {
		code, stdout, stderr := call(append([]string{"connect"}, tt.args...)...)
		oneLine(t, stderr)
		if code != tt.code || stdout != "" || !strings.HasPrefix(stderr, "wspoll: "+tt.want) {
			t.Errorf("%q: exit %d, stdout %q, stderr %q; want exit %d and %q", tt.args, code, stdout, stderr, tt.code, tt.want)
		}
	}
}

func TestConnectSendsItsArgumentsAndPrintsTheReplies(t *testing.T) {
	url := echoURL(t)
	for _, tt := range []struct {
		args []string
		want string
	}{
		{[]string{"Hello"}, "<- text Hello\n<- close 1000\n"},
		{[]string{"one", "/two", ""}, "<- text one\n<- text /two\n<- text\n<- close 1000\n"},
		{[]string{"a\x1b[2Jb\n"}, `<- text "a\x1b[2Jb\n"` + "\n<- close 1000\n"},
		{[]string{"Hello", "--raw"}, "Hello\n"},
		{[]string{"one", "two", "--raw", "-n", "1"}, "one\n"},
	} {
		code, stdout, stderr := call(append([]string{"connect", url, "-q"}, tt.args...)...)
		if code != 0 || stdout != tt.want || stderr != "" {
			t.Errorf("%q: exit %d, stdout %q, stderr %q; want %q", tt.args, code, stdout, stderr, tt.want)
		}
	}
	code, _, stderr := call("connect", url, "Hello")
	if want := "open: " + url + "\nclosed: 1000\n"; code != 0 || stderr != want {
		t.Errorf("exit %d, stderr %q, want %q", code, stderr, want)
	}
}

func TestConnectSendsTheLinesOfAPipe(t *testing.T) {
	url := echoURL(t)
	long := strings.Repeat("x", 100_000)
	for _, tt := range []struct {
		stdin, want string
		args        []string
	}{
		{"a\nb\n", "a\nb\n", nil},
		{"/close\n//x\nno end", "/close\n//x\nno end\n", nil}, // nothing is a command
		{"", "", nil},
		{"\n\n", "\n\n", nil},
		{long + "\n" + long, long + "\n" + long + "\n", nil},
		{"/hex 61 0a\n//x\n", "a\n/x\n", []string{"--commands"}},
		{"a\n/close\nb\n", "a\n", []string{"--commands"}},
	} {
		code, stdout, stderr := fed(t, tt.stdin, append([]string{"connect", url, "-q", "--raw"}, tt.args...)...)
		if code != 0 || stdout != tt.want || stderr != "" {
			t.Errorf("%.50q: exit %d, stdout %.50q, stderr %q; want %.50q", tt.stdin, code, stdout, stderr, tt.want)
		}
	}
	for _, tt := range []struct {
		stdin, want string
		args        []string
	}{
		{"a\n\xff\nb\n", "line 2 of stdin: not UTF-8, as a text message must be (RFC 6455 §5.6)", nil},
		{"a\n12345\n", "line 2 of stdin is longer than --max-message", []string{"--max-message", "4"}},
		{"/nonsense x\n", "line 1 of stdin: /nonsense is not a command; /help lists them, and //nonsense sends the line", []string{"--commands"}},
		{"/close 1005\n", "line 1 of stdin: /close 1005: not a code that may be sent", []string{"--commands"}},
		{"/hex 0g\n", "line 1 of stdin: /hex 0g: must be hexadecimal digits", []string{"--commands"}},
		{"/ping " + strings.Repeat("x", 126) + "\n", "line 1 of stdin: /ping: 126 bytes, and 125 are the most", []string{"--commands"}},
	} {
		code, _, stderr := fed(t, tt.stdin, append([]string{"connect", url, "-q"}, tt.args...)...)
		if oneLine(t, stderr); code != 1 || !strings.HasPrefix(stderr, "wspoll: "+tt.want) {
			t.Errorf("%.50q: exit %d, stderr %q; want %q", tt.stdin, code, stderr, tt.want)
		}
	}
}

// stamps are what differs from run to run.
var stamps = regexp.MustCompile(`"(time|when)":"[^"]*"|127\.0\.0\.1:\d+`)

func TestConnectPrintsEventsAsJSON(t *testing.T) {
	url := echoURL(t)
	code, stdout, stderr := fed(t, "a\n/ping x\n/hex 00ff\n/close 4000 bye\n", "connect", url, "-q", "--json", "--commands")
	want := []string{
		`{"time","event":"open","url":"ws://HOST/echo","subprotocol":"","extensions":""}`,
		`{"time","event":"text","dir":"sent","text":"a"}`,
		`{"time","event":"ping","dir":"sent","text":"x"}`,
		`{"time","event":"binary","dir":"sent","hex":"00ff"}`,
		`{"time","event":"close","dir":"sent","code":4000,"reason":"bye"}`,
		`{"time","event":"text","dir":"received","text":"a"}`,
		`{"time","event":"pong","dir":"received","text":"x"}`,
		`{"time","event":"binary","dir":"received","hex":"00ff"}`,
		`{"time","event":"close","dir":"received","code":4000}`,
		`{"time","event":"end","code":4000,"ok":true}`,
	}
	lines := strings.Split(strings.TrimSpace(stamps.ReplaceAllStringFunc(stdout, func(s string) string {
		if strings.HasPrefix(s, `"`) {
			return `"time"`
		}
		return "HOST"
	})), "\n")
	// The two directions mix as they fall.
	order := func(dir string) (out []string) {
		for _, l := range lines {
			if strings.Contains(l, dir) {
				out = append(out, l)
			}
		}
		return out
	}
	for _, dir := range []string{`"dir":"sent"`, `"dir":"received"`} {
		var only []string
		for _, w := range want {
			if strings.Contains(w, dir) {
				only = append(only, w)
			}
		}
		if got := order(dir); !slices.Equal(got, only) {
			t.Errorf("have\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(only, "\n"))
		}
	}
	if code != 0 || stderr != "" || len(lines) != len(want) || lines[0] != want[0] || lines[len(lines)-1] != want[len(want)-1] {
		t.Errorf("exit %d, stderr %q, stdout\n%s", code, stderr, strings.Join(lines, "\n"))
	}

	url = scripted(t, func(c net.Conn, answer string) {
		io.WriteString(c, answer+"\r\n\x89\x01p\x89\x01\xff\x01\x01a\x80\x01b\x88\x04\x0f\xa1no")
		io.Copy(io.Discard, c)
	})
	code, stdout, _ = call("connect", url, "--json", "-f", "x")
	for _, w := range []string{
		`"event":"ping","dir":"received","text":"p"}`, `"event":"pong","dir":"sent","text":"p"}`,
		`"event":"ping","dir":"received","hex":"ff"}`, `"event":"pong","dir":"sent","hex":"ff"}`,
		`"event":"text","dir":"received","text":"ab","frames":2}`,
		`"event":"close","dir":"received","code":4001,"reason":"no"}`, `"event":"close","dir":"sent","code":4001}`,
		`"event":"end","code":4001,"ok":false,"error":"the server closed with 4001 (private to the application)"}`,
	} {
		if !strings.Contains(stdout, w) {
			t.Errorf("no %s in\n%s", w, stdout)
		}
	}
	for line := range strings.Lines(stdout) {
		if !json.Valid([]byte(line)) {
			t.Errorf("not JSON: %s", line)
		}
	}
	if code != 1 {
		t.Errorf("exit %d", code)
	}
}

func TestConnectJudgesHowTheConnectionEnds(t *testing.T) {
	open := func(frames string) func(net.Conn, string) {
		return func(c net.Conn, answer string) {
			io.WriteString(c, answer+"\r\n"+frames)
			io.Copy(io.Discard, c)
		}
	}
	fin := func(c net.Conn, answer string) { // and no RST, which a close with unread bytes would be
		io.WriteString(c, answer+"\r\n")
		c.(*net.TCPConn).CloseWrite()
		io.Copy(io.Discard, c)
	}
	for name, tt := range map[string]struct {
		talk func(c net.Conn, answer string)
		args []string
		code int
		want string // the last line on stderr
	}{
		"1000":       {open("\x88\x02\x03\xe8"), nil, 0, "closed by the server: 1000"},
		"1001":       {open("\x88\x02\x03\xe9"), nil, 0, "closed by the server: 1001"},
		"no code":    {open("\x88\x00"), nil, 0, "closed by the server: without a code"},
		"1011":       {open("\x88\x02\x03\xf3"), nil, 1, "wspoll: the server closed with 1011 (internal error: the server met something unexpected)"},
		"too few":    {open("\x81\x01x\x88\x02\x03\xe8"), []string{"-n", "2"}, 1, "wspoll: 1 of 2 messages came"},
		"FIN":        {fin, nil, 1, "wspoll: the server ended TCP without a Close (RFC 6455 §7.1.5: 1006)"},
		"masked":     {open("\x81\x81\x00\x00\x00\x00x"), nil, 1, "wspoll: RFC 6455 §5.1: frame from a server is masked"},
		"RSV":        {open("\xa1\x00"), nil, 1, "wspoll: RFC 6455 §5.2: reserved bit set and no extension gives it a meaning"},
		"2^63":       {open("\x82\x7f\x80\x00\x00\x00\x00\x00\x00\x00"), nil, 1, "wspoll: RFC 6455 §5.2: most significant bit of a 64-bit payload length is set"},
		"2^63 - 1":   {open("\x82\x7f\x7f\xff\xff\xff\xff\xff\xff\xff"), nil, 1, "wspoll: RFC 6455 §10.4: message is larger than the limit"},
		"not UTF-8":  {open("\x81\x01\xff"), nil, 1, "wspoll: RFC 6455 §8.1: text message is not UTF-8"},
		"no answer":  {open(""), []string{"--wait", "10ms", "--timeout", "200ms"}, 0, "closed: the server did not answer our Close (RFC 6455 §5.5.1) within 200ms"},
		"no replies": {open(""), []string{"-n", "1", "--wait", "10ms", "--timeout", "200ms"}, 1, "wspoll: 0 of 1 messages came"},
		"reset":      {func(c net.Conn, _ string) { c.(*net.TCPConn).SetLinger(0) }, nil, 1, "wspoll: URL: the server ended TCP without a whole answer to the handshake"},
		"plain HTTP": {func(c net.Conn, _ string) { io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n") }, nil, 1, "wspoll: URL: refused with 200 OK: this is plain HTTP; is there a WebSocket at this path?"},
		"no head":    {func(c net.Conn, _ string) { io.Copy(io.Discard, c) }, []string{"--timeout", "200ms"}, 1, "wspoll: URL: no answer to the handshake within 200ms: i/o timeout"},
		"endless head": {func(c net.Conn, _ string) {
			for _, err := io.WriteString(c, "HTTP/1.1 101 Yes\r\n"); err == nil; _, err = io.WriteString(c, "A: "+strings.Repeat("b", 1000)+"\r\n") {
			}
		}, nil, 1, "wspoll: URL: the server broke the protocol: the answer is not HTTP/1.1 as we know it: the head is too large (RFC 6455 §10.4)"},
		"wrong accept": {func(c net.Conn, _ string) {
			io.WriteString(c, "HTTP/1.1 101 Yes\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n")
			io.Copy(io.Discard, c)
		}, nil, 1, `wspoll: URL: the server broke the protocol: Sec-WebSocket-Accept is "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" where the key asks for`},
		"refused": {func(c net.Conn, _ string) {
			io.WriteString(c, "HTTP/1.1 403 For\x1bbidden\r\nConnection: close\r\n\r\nnot\x1b[2J you\nnor others\n")
		}, nil, 1, "wspoll: URL: the server broke the protocol: the answer is not HTTP/1.1 as we know it: byte 0x1b in the reason phrase (RFC 9112 §4)"},
		"moved": {func(c net.Conn, _ string) {
			io.WriteString(c, "HTTP/1.1 302 Found\r\nLocation: https://a/\r\nContent-Length: 0\r\n\r\n")
		}, nil, 1, "wspoll: URL: refused with 302 Found: it is at https://a/"},
		"401": {func(c net.Conn, _ string) {
			io.WriteString(c, "HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n")
		}, nil, 1, `wspoll: URL: refused with 401 Unauthorized: it wants credentials; give them with --header "Authorization: ..."`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			url := scripted(t, tt.talk)
			code, _, stderr := call(append([]string{"connect", url, "hi"}, tt.args...)...)
			lines := strings.Split(strings.TrimSpace(stderr), "\n")
			last := strings.ReplaceAll(lines[len(lines)-1], url, "URL")
			if code != tt.code || !strings.HasPrefix(last, tt.want) {
				t.Errorf("exit %d, stderr %q; want exit %d and %q", code, stderr, tt.code, tt.want)
			}
		})
	}
}

func TestConnectShowsTheBodyOfARefusal(t *testing.T) {
	url := scripted(t, func(c net.Conn, _ string) {
		io.WriteString(c, "HTTP/1.1 403 Forbidden\r\nConnection: close\r\n\r\nnot\x1b[2J you\nnor others\n")
	})
	code, stdout, stderr := call("connect", url, "x")
	if want := "  | \"not\\x1b[2J you\"\n  | nor others\nwspoll: " + url + ": refused with 403 Forbidden\n"; code != 1 || stdout != "" || stderr != want {
		t.Errorf("exit %d, stdout %q, stderr %q; want %q", code, stdout, stderr, want)
	}
	code, stdout, _ = call("connect", url, "x", "--json")
	if want := `"event":"end","ok":false,"error":"` + url + `: refused with 403 Forbidden","status":403,"body":"not\u001b[2J you\nnor others\n"}`; code != 1 || !strings.Contains(stdout, want) {
		t.Errorf("exit %d, stdout %s; want %s", code, stdout, want)
	}
}

func TestConnectAsksForWhatItsFlagsSay(t *testing.T) {
	got := make(chan string, 1)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		c, err := l.Accept()
		if err != nil {
			return
		}
		defer c.Close()
		b := make([]byte, 4096)
		n, _ := c.Read(b)
		got <- string(b[:n])
	}()
	call("connect", "ws://"+l.Addr().String()+"/a?b", "x", "--origin", "http://o", "--subprotocol", "p,q", "--compress", "-H", "X-A: 1, 2", "-H", "Host: other")
	head := <-got
	for _, line := range []string{
		"GET /a?b HTTP/1.1", "Host: other", "Origin: http://o", "Sec-WebSocket-Protocol: p, q", "X-A: 1, 2",
		"Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits", "Sec-WebSocket-Version: 13",
	} {
		if strings.Count(head, line+"\r\n") != 1 {
			t.Errorf("no line %q in\n%s", line, head)
		}
	}
	if strings.Count(head, "Host:") != 1 {
		t.Errorf("not one Host in\n%s", head)
	}
}

func TestConnectInflatesWhatIsCompressed(t *testing.T) {
	url := scripted(t, func(c net.Conn, answer string) {
		io.WriteString(c, answer+"Sec-WebSocket-Extensions: permessage-deflate\r\n\r\n\xc1\x07\xf2\x48\xcd\xc9\xc9\x07\x00\x88\x02\x03\xe8")
		io.Copy(io.Discard, c)
	})
	code, stdout, stderr := call("connect", url, "x", "--compress")
	if code != 0 || stdout != "<- text Hello\n<- close 1000\n" || !strings.HasPrefix(stderr, "open: "+url+", permessage-deflate\n") {
		t.Errorf("exit %d, stdout %q, stderr %q", code, stdout, stderr)
	}
}

func TestJSONDoesNotSteerTheTerminal(t *testing.T) {
	const text = "a\x1b[2J\x7f\u009b2J\u0080\u00a0é"
	url := scripted(t, func(c net.Conn, answer string) {
		c.Write(append([]byte(answer+"\r\n\x81"), append([]byte{byte(len(text))}, text...)...))
		io.WriteString(c, "\x88\x02\x03\xe8")
		io.Copy(io.Discard, c)
	})
	for _, args := range [][]string{
		{"connect", url, "x", "--json"},
		{"connect", url, "x", "--json", "--trace"},
		{"inspect", "--json", "--hex", fmt.Sprintf("81%02x%x", len(text), text)},
	} {
		_, stdout, _ := call(args...)
		if strings.ContainsFunc(stdout, func(c rune) bool { return c != '\n' && unicode.IsControl(c) }) {
			t.Errorf("%q: %q", args, stdout)
		}
		found := false
		for line := range strings.Lines(stdout) {
			var v any
			if err := json.Unmarshal([]byte(line), &v); err != nil {
				t.Errorf("%q: %v: %s", args, err, line)
			}
			found = found || strings.Contains(fmt.Sprintf("%v", v), text)
		}
		if !found {
			t.Errorf("%q: the text is not in it: %q", args, stdout)
		}
	}
}

func TestConnectOverTLS(t *testing.T) {
	s := httptest.NewUnstartedServer(nil)
	s.StartTLS()
	cert := s.TLS.Certificates
	s.Close()
	l, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: cert})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go scriptedOn(l, func(c net.Conn, answer string) {
		io.WriteString(c, answer+"\r\n\x81\x06secure\x88\x02\x03\xe8")
		io.Copy(io.Discard, c)
	})
	url := "wss://" + l.Addr().String() + "/"
	code, stdout, _ := call("connect", url, "x", "--insecure", "--raw")
	if code != 0 || stdout != "secure\n" {
		t.Errorf("exit %d, stdout %q", code, stdout)
	}
	code, stdout, stderr := call("connect", url, "x")
	if oneLine(t, stderr); code != 1 || stdout != "" || !strings.HasPrefix(stderr, "wspoll: "+url+": TLS: ") || strings.Contains(stderr, "tls:") || !strings.HasSuffix(stderr, "; --insecure accepts any certificate\n") {
		t.Errorf("exit %d, stdout %q, stderr %q", code, stdout, stderr)
	}
	code, _, stderr = call("connect", "wss"+strings.TrimPrefix(echoURL(t), "ws"), "x")
	if oneLine(t, stderr); code != 1 || !strings.HasSuffix(stderr, ": TLS: what answers does not speak it; is it ws:// there, and not wss://?\n") {
		t.Errorf("TLS to a server without: exit %d, stderr %q", code, stderr)
	}
}

func TestConnectExplainsAllBytes(t *testing.T) {
	url := echoURL(t)
	code, stdout, stderr := call("connect", url, "Hello", "--trace", "-q")
	for _, part := range []string{
		"client request:\n  GET /echo HTTP/1.1\n", "server answer:\n  HTTP/1.1 101 Switching Protocols\n",
		"MASK 1", "masked, as all that a client sends (§5.1)", "MASK 0", `"Hello"`, "opcode 8",
	} {
		if !strings.Contains(stdout, part) {
			t.Errorf("no %q in\n%s", part, stdout)
		}
	}
	if code != 0 || stderr != "" || strings.Contains(stdout, "VIOLATION") || strings.Contains(stdout, "<- text Hello\n") {
		t.Errorf("exit %d, stderr %q, stdout\n%s", code, stderr, stdout)
	}
	_, stdout, _ = call("connect", url, "Hello", "--trace=brief")
	if !regexp.MustCompile(`(?m)^\S+ -> text FIN 5 B "Hello"$`).MatchString(stdout) || !regexp.MustCompile(`(?m)^\S+ <- close FIN 2 B 1000$`).MatchString(stdout) {
		t.Errorf("stdout\n%s", stdout)
	}
	_, stdout, _ = call("connect", url, "Hello", "--trace", "--json")
	for line := range strings.Lines(stdout) {
		if !json.Valid([]byte(line)) || !strings.Contains(line, `"dir":"`) {
			t.Errorf("not a record: %s", line)
		}
	}
	// What a server does wrong is explained before the connection ends for it.
	url = scripted(t, func(c net.Conn, answer string) {
		io.WriteString(c, answer+"\r\n\x81\x81\x00\x00\x00\x00x")
		io.Copy(io.Discard, c)
	})
	code, stdout, _ = call("connect", url, "x", "--trace")
	if code != 1 || !strings.Contains(stdout, "VIOLATION RFC 6455 §5.1") {
		t.Errorf("exit %d, stdout\n%s", code, stdout)
	}
	url = scripted(t, func(c net.Conn, _ string) { io.WriteString(c, "HTTP/1.1 403 No\r\nContent-Length: 3\r\n\r\nno!") })
	if _, stdout, _ = call("connect", url, "x", "--trace"); !strings.Contains(stdout, "HTTP/1.1 403 No") {
		t.Errorf("the trace of a refusal is\n%s", stdout)
	}
}

func TestCtrlCClosesTheConnection(t *testing.T) {
	url := echoURL(t)
	p := start(t, "connect", url, "--follow", "hello")
	p.stdout.next("<- text hello")
	p.signal(os.Interrupt)
	if code := p.wait(); code != 0 {
		t.Errorf("exit %d", code)
	}
	if out := p.stdout.all(); out[len(out)-1] != "<- close 1000" {
		t.Errorf("stdout %q", out)
	}

	// A server that does not answer the Close: the second one ends it at once.
	closing := make(chan struct{})
	url = scripted(t, func(c net.Conn, answer string) {
		io.WriteString(c, answer+"\r\n\x81\x02hi")
		io.ReadFull(c, make([]byte, 7+8)) // "x", and the Close
		close(closing)
		io.Copy(io.Discard, c)
	})
	p = start(t, "connect", url, "--follow", "x", "--timeout", "1m")
	p.stdout.next("<- text hi")
	p.signal(os.Interrupt)
	<-closing
	p.signal(syscall.SIGTERM)
	if code := p.wait(); code != 1 {
		t.Errorf("exit %d", code)
	}
	if errs := p.stderr.all(); errs[len(errs)-1] != "wspoll: interrupted before the server answered our Close" {
		t.Errorf("stderr %q", errs)
	}

	// Before the connection is open.
	asked := make(chan struct{})
	url = scripted(t, func(c net.Conn, _ string) { close(asked); io.Copy(io.Discard, c) })
	p = start(t, "connect", url, "x")
	<-asked
	p.signal(os.Interrupt)
	if code, errs := p.wait(), p.stderr.all(); code != 1 || errs[len(errs)-1] != "wspoll: "+url+": interrupted before the connection was open" {
		t.Errorf("exit %d, stderr %q", code, errs)
	}
}

func TestAHostileServerCostsConnectNoMemory(t *testing.T) {
	if raced {
		t.Skip("the race detector needs memory of its own")
	}
	// 64 MiB of a message that is larger than the limit would be, in fragments, and endless pings.
	for name, flood := range map[string]string{
		"fragments": "\x00\x7e\x40\x00" + strings.Repeat("x", 0x4000),
		"pings":     strings.Repeat("\x89\x7d"+strings.Repeat("p", 125), 100),
	} {
		url := scripted(t, func(c net.Conn, answer string) {
			io.WriteString(c, answer+"\r\n")
			if name == "fragments" {
				io.WriteString(c, "\x02\x00")
			}
			go io.Copy(io.Discard, c)
			for range 64 << 20 / len(flood) {
				if _, err := io.WriteString(c, flood); err != nil {
					return
				}
			}
			io.WriteString(c, "\x88\x02\x03\xe8")
			io.Copy(io.Discard, c)
		})
		cmd := exec.CommandContext(t.Context(), os.Args[0], "connect", url, "--max-message", "1MiB", "--follow", "x", "-q")
		cmd.Env = append(os.Environ(), asProgram+"=1")
		var errs bytes.Buffer
		cmd.Stderr = &errs
		cmd.Run()
		kib := cmd.ProcessState.SysUsage().(*syscall.Rusage).Maxrss
		t.Logf("%s: %d KiB at most, %s", name, kib, errs.String())
		if kib > 64<<10 || name == "fragments" && !strings.Contains(errs.String(), "RFC 6455 §10.4") || name == "pings" && errs.Len() > 0 {
			t.Errorf("%s: %d KiB at most, stderr %q", name, kib, errs.String())
		}
	}
}

func TestConnectSendsNoLineLongerThanMaxMessage(t *testing.T) {
	url := echoURL(t)
	for _, stdin := range []string{"1234", "1234\n"} {
		if code, stdout, stderr := fed(t, stdin, "connect", url, "--max-message", "4", "--raw", "-q"); code != 0 || stdout != "1234\n" || stderr != "" {
			t.Errorf("%q: exit %d, stdout %q, stderr %q", stdin, code, stdout, stderr)
		}
	}
	for _, stdin := range []string{"12345", "12345\n"} {
		if code, stdout, stderr := fed(t, stdin, "connect", url, "--max-message", "4", "--raw", "-q"); code != 1 || stdout != "" || stderr != "wspoll: line 1 of stdin is longer than --max-message\n" {
			t.Errorf("%q: exit %d, stdout %q, stderr %q", stdin, code, stdout, stderr)
		}
	}
}
