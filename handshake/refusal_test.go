package handshake

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/gobwas/ws"
)

// readAll reads an answer with net/http and says that nothing follows it.
func readAll(t *testing.T, b []byte, method string) (*http.Response, string) {
	t.Helper()
	br := bufio.NewReader(bytes.NewReader(b))
	resp, err := http.ReadResponse(br, &http.Request{Method: method})
	if err != nil {
		t.Fatalf("%q: %v", b, err)
	}
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatalf("%q: %v", b, err)
	}
	if rest, _ := io.ReadAll(br); len(rest) > 0 {
		t.Fatalf("%q: %q follows", b, rest)
	}
	return resp, string(body)
}

func TestARefusalIsAWholeHTTPAnswer(t *testing.T) {
	const (
		head = "HTTP/1.1 405 Method Not Allowed\r\n" +
			"Content-Type: text/plain; charset=utf-8\r\n" +
			"X-Content-Type-Options: nosniff\r\n" +
			"Content-Length: 39\r\n" +
			"Connection: close\r\n" +
			"Allow: GET\r\n\r\n"
		body = "a WebSocket handshake is a GET request\n"
	)
	got := AppendRefusal([]byte("x"), refuseMethod, false)
	if string(got) != "x"+head+body {
		t.Errorf("got %q", got)
	}
	if got = AppendRefusal(nil, refuseMethod, true); string(got) != head {
		t.Errorf("to a HEAD: %q", got)
	}
	resp, text := readAll(t, got, "HEAD")
	if text != "" || !resp.Close {
		t.Errorf("to a HEAD: %q, close %v", text, resp.Close)
	}
}

func TestThePredeclaredRefusals(t *testing.T) {
	for _, c := range []struct {
		r      *Refusal
		status int
		reason string
		retry  bool
	}{
		{RefuseNotFound, 404, "404 Not Found", false},
		{RefuseTimeout, 408, "408 Request Timeout", false},
		{RefuseOverloaded, 503, "503 Service Unavailable", true},
		{RefuseDraining, 503, "503 Service Unavailable", true},
		{refuseUpgrade, 426, "426 Upgrade Required", false},
	} {
		out := AppendRefusal(nil, c.r, false)
		resp, body := readAll(t, out, "GET")
		if resp.StatusCode != c.status || resp.Status != c.reason || body != c.r.Msg+"\n" || !resp.Close {
			t.Errorf("%v: %s, %q, close %v", c.r, resp.Status, body, resp.Close)
		}
		if (resp.Header.Get("Retry-After") != "") != c.retry {
			t.Errorf("%v: Retry-After %q", c.r, resp.Header.Get("Retry-After"))
		}
		// RFC 9110 §7.8: Upgrade comes with its connection option.
		if up := resp.Header.Get("Upgrade") != ""; up != strings.Contains(string(out), "\r\nConnection: Upgrade, close\r\n") {
			t.Errorf("%q", out)
		}
	}
}

func TestReasonPhrasesAreThoseOfNetHTTP(t *testing.T) {
	known := 0
	for status := 300; status < 600; status++ {
		got := reason(status)
		if got == "Refused" {
			continue
		}
		known++
		want := http.StatusText(status)
		if status == 414 {
			want = "URI Too Long" // RFC 9110 §15.5.15; net/http has the name of RFC 2616
		}
		if got != want {
			t.Errorf("%d: %s, want %s", status, got, want)
		}
	}
	if known < 20 {
		t.Errorf("only %d are known", known)
	}
}

func TestAStatusThatIsNoRefusalIsSentAs500(t *testing.T) {
	for status, want := range map[int]string{0: "500", 101: "500", 204: "500", 304: "500", 600: "500", -1: "500", 300: "300", 418: "418", 599: "599"} {
		if got := AppendRefusal(nil, &Refusal{Status: status}, false); !strings.HasPrefix(string(got), "HTTP/1.1 "+want+" ") {
			t.Errorf("%d: %q", status, got)
		}
	}
}

func TestAMessageStaysOneLineAndText(t *testing.T) {
	for msg, want := range map[string]string{
		"plain":               "plain",
		"größer than 1 €":     "größer than 1 €",
		"a\r\nb\tc\x00d\x7fe": "a??b?c?d?e",
		"\xff\xc3":            "??",
		"\u009b2J\u0085x":     "??2J??x",
		"a\u2028b\u2029c":     "a???b???c",
		"a\ufffdb":            "a\ufffdb",
	} {
		_, body := readAll(t, AppendRefusal(nil, &Refusal{Status: 400, Msg: msg}, false), "GET")
		if body != want+"\n" {
			t.Errorf("%q: %q", msg, body)
		}
	}
}

func TestARefusalAsAnError(t *testing.T) {
	if got := refuseBadKey.Error(); got != "handshake refused with 400: the Sec-WebSocket-Key is not 16 bytes in base64 (RFC 6455 §4.2.1 item 5)" {
		t.Error(got)
	}
	if got := (&Refusal{Status: 401, Msg: "log in first"}).Error(); got != "handshake refused with 401: log in first" {
		t.Error(got)
	}
	if !errors.Is(refuseBadKey, ws.ErrHandshakeBadSecKey) || errors.Is(refuseBadKey, ws.ErrHandshakeBadHost) {
		t.Error("the error of gobwas is not found")
	}
}

func TestPeersBytesInAMessageAreEscapedAndCut(t *testing.T) {
	var ans Answer
	err := Check(mustParse(t, edit("Origin=Origin: http://\xff<script>\t"+strings.Repeat("x", 500))), nil, &ans)
	r := refusal(t, err, 403)
	if !strings.Contains(r.Msg, `\xff<script>\tx`) || len(r.Msg) > 160 {
		t.Errorf("%q", r.Msg)
	}
}

// FuzzRefusal: whatever the message, the answer is one that net/http can read, with one line of text as the body.
func FuzzRefusal(f *testing.F) {
	f.Add(400, "plain", false)
	f.Add(426, "a\r\nSet-Cookie: b\r\n\r\n", false)
	f.Add(503, "\xff\u0085\u2028é", true)
	f.Add(304, "", false)
	f.Fuzz(func(t *testing.T, status int, msg string, head bool) {
		method := "GET"
		if head {
			method = "HEAD"
		}
		resp, body := readAll(t, AppendRefusal(nil, &Refusal{Status: status, Msg: msg}, head), method)
		if resp.StatusCode < 300 || resp.StatusCode > 599 || !resp.Close || int(resp.ContentLength) != len(msg)+1 {
			t.Fatalf("%d, close %v, %d bytes", resp.StatusCode, resp.Close, resp.ContentLength)
		}
		if head {
			if body != "" {
				t.Fatalf("to a HEAD: %q", body)
			}
			return
		}
		if !utf8.ValidString(body) || len(body) != len(msg)+1 || strings.IndexByte(body, '\n') != len(body)-1 || strings.ContainsAny(body, "\r\x00\x1b\u0085\u2028\u2029") {
			t.Fatalf("body %q", body)
		}
	})
}
