package main

import (
	"bufio"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/gobwas/ws"
	"github.com/gobwas/ws/wsutil"
)

// listener is a client of an endpoint that speaks first.
type listener struct {
	io.Reader
	io.Writer
}

func listen(t *testing.T, url string) listener {
	t.Helper()
	c, br, _, err := ws.Dial(t.Context(), url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(patience))
	if br == nil {
		br = bufio.NewReader(c)
	}
	return listener{br, c}
}

func (l listener) text(t *testing.T) string {
	t.Helper()
	b, op, err := wsutil.ReadServerData(l)
	if err != nil || op != ws.OpText {
		t.Fatalf("%v %q, %v", op, b, err)
	}
	return string(b)
}

func TestPushSendsTheHeartBeatThatTheFlagsSay(t *testing.T) {
	for _, args := range [][]string{
		{"--push-every", "50ms", "--push-message", "tick"},
		{"--push-every", "50ms", "--push-message", "tick", "--push-align"},
	} {
		p, url := serving(t, args...)
		l := listen(t, strings.Replace(url, "/wshandler", "/push", 1))
		for range 3 {
			if s := l.text(t); s != "tick" {
				t.Errorf("%q: %q", args, s)
			}
		}
		p.stop()
	}
}

func TestWhatIsPublishedReachesTheSubscribers(t *testing.T) {
	file := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(file, []byte("0123456789abcdef\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	p, url := serving(t, "--publish-token-file", file, "--topic-open", "chat.*", "--topic-retain", "news", "--topic-policy", "news=latest")
	url = strings.TrimSuffix(url, "/wshandler")
	post := func(token, text string) int {
		t.Helper()
		r, err := http.NewRequestWithContext(t.Context(), "POST", "http"+strings.TrimPrefix(url, "ws")+"/topics/news", strings.NewReader(text))
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Authorization", "Bearer "+token)
		answer, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		answer.Body.Close()
		return answer.StatusCode
	}
	if code := post("0123456789abcdef", "first"); code != http.StatusOK {
		t.Errorf("published: %d", code)
	}
	if code := post("0123456789abcdeF", "no"); code != http.StatusUnauthorized {
		t.Errorf("with another token: %d", code)
	}
	l := listen(t, url+"/topics/news")
	if s := l.text(t); s != "first" {
		t.Errorf("a newcomer gets %q, not the retained message", s)
	}
	if post("0123456789abcdef", "second"); l.text(t) != "second" {
		t.Error("the second message did not come next")
	}

	a, b := listen(t, url+"/topics/chat.one"), listen(t, url+"/topics/chat.one")
	// That b is subscribed shows in what it says itself.
	if err := wsutil.WriteClientText(b, []byte("hello")); err != nil {
		t.Fatal(err)
	}
	if s := a.text(t); s != "hello" {
		t.Errorf("of another subscriber came %q", s)
	}
	p.stop()
}

func TestATokenFileThatCannotBeUsedIsRefused(t *testing.T) {
	short := filepath.Join(t.TempDir(), "short")
	if err := os.WriteFile(short, []byte("secret\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for file, want := range map[string]string{
		short:        "a token of 6 bytes",
		short + "er": "--publish-token-file cannot be read",
	} {
		code, stdout, stderr := call("--listen", "127.0.0.1:0", "--publish-token-file", file)
		if oneLine(t, stderr); code != exitFail || stdout != "" || !strings.Contains(stderr, want) || strings.Contains(stderr, "secret") {
			t.Errorf("%s: exit %d, stdout %q, stderr %q", file, code, stdout, stderr)
		}
	}
}

// What was accepted before SIGTERM is delivered before the 1001, also to who
// reads late.
func TestWhatWasPublishedBeforeTheEndIsDelivered(t *testing.T) {
	file := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(file, []byte("0123456789abcdef\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	const messages = 60
	p, url := serving(t, "--publish-token-file", file, "--topic-pending", "64MiB", "--drain", "30s")
	url = strings.TrimSuffix(url, "/wshandler")
	var late []listener
	for range 3 {
		late = append(late, listen(t, url+"/topics/x"))
	}
	text := strings.Repeat("x", 200<<10) // together more than sockets take
	for i := range messages {
		r, err := http.NewRequestWithContext(t.Context(), "POST", "http"+strings.TrimPrefix(url, "ws")+"/topics/x", strings.NewReader(strconv.Itoa(i)+" "+text))
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Authorization", "Bearer 0123456789abcdef")
		a, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		if a.Body.Close(); a.StatusCode != http.StatusOK {
			t.Fatalf("message %d: %s", i, a.Status)
		}
	}
	p.signal(syscall.SIGTERM)
	p.stderr.next("ending")
	for k, l := range late {
		for i := range messages {
			h, err := ws.ReadHeader(l)
			if err != nil {
				t.Fatalf("reader %d: instead of message %d: %v", k, i, err)
			}
			b := make([]byte, h.Length)
			if _, err := io.ReadFull(l, b); err != nil || h.OpCode != ws.OpText || string(b) != strconv.Itoa(i)+" "+text {
				t.Fatalf("reader %d: instead of message %d: %v %.20q, %v", k, i, h.OpCode, b, err)
			}
		}
		h, err := ws.ReadHeader(l)
		b := make([]byte, h.Length)
		if err == nil {
			_, err = io.ReadFull(l, b)
		}
		if code, _ := ws.ParseCloseFrameData(b); err != nil || h.OpCode != ws.OpClose || code != ws.StatusGoingAway {
			t.Errorf("reader %d: instead of Close 1001: %v %q, %v", k, h.OpCode, b, err)
		}
		if err := wsutil.WriteClientMessage(l, ws.OpClose, ws.NewCloseFrameBody(ws.StatusGoingAway, "")); err != nil {
			t.Error(err)
		}
	}
	if code := p.wait(); code != exitOK {
		t.Errorf("exit %d", code)
	}
}
