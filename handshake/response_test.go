package handshake

import (
	"bufio"
	"bytes"
	"errors"
	"net/http"
	"reflect"
	"strings"
	"testing"

	"github.com/gobwas/ws"
)

// rfcResponse is the response of RFC 6455 §1.3.
const rfcResponse = "HTTP/1.1 101 Switching Protocols\r\n" +
	"Upgrade: websocket\r\n" +
	"Connection: Upgrade\r\n" +
	"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n" +
	"Sec-WebSocket-Protocol: chat\r\n\r\n"

func answerError(t *testing.T, err error) *AnswerError {
	t.Helper()
	var e *AnswerError
	if !errors.As(err, &e) {
		t.Fatalf("got %v, want an AnswerError", err)
	}
	return e
}

func TestTheResponseOfTheRFCIsTakenApart(t *testing.T) {
	b := []byte(rfcResponse + "\x81\x05Hello")
	var r Response
	n, err := ParseResponse(b, nil, &r)
	if err != nil || n != len(rfcResponse) {
		t.Fatal(n, err)
	}
	if r.Status != 101 || r.Minor != 1 || string(r.Reason) != "Switching Protocols" || string(r.Accept) != "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" || string(r.Protocol) != "chat" || r.Extensions != nil {
		t.Errorf("%+v", r)
	}
	if v, count := r.Get("upgrade"); string(v) != "websocket" || count != 1 {
		t.Errorf("upgrade: %q, %d", v, count)
	}
	for i := range n {
		if n, err = ParseResponse(b[:i], nil, &r); n != 0 || err != nil {
			t.Fatalf("%q: %d, %v", b[:i], n, err)
		}
	}
}

func TestStatusLines(t *testing.T) {
	for _, c := range []struct {
		line   string
		status int // 0: refused
		reason string
	}{
		{"HTTP/1.1 101 Switching Protocols\r\n", 101, "Switching Protocols"},
		{"HTTP/1.0 200 OK\r\n", 200, "OK"},
		{"HTTP/1.1 599 \r\n", 599, ""},
		{"HTTP/1.1 404\r\n", 404, ""},
		{"HTTP/1.1 101 gr\xfc\xdfe\t!\r\n", 101, "gr\xfc\xdfe\t!"},
		{"HTTP/2", 0, ""},
		{"HTTP/1.1\r\n", 0, ""},
		{"HTTP/1.1 \r\n", 0, ""},
		{"HTTP/1.1 10\r\n", 0, ""},
		{"HTTP/1.1 0", 0, ""},
		{"HTTP/1.1 1x", 0, ""},
		{"HTTP/1.1  ", 0, ""},
		{"HTTP/1.1 1010", 0, ""},
		{"HTTP/1.11", 0, ""},
		{"HTTP/1.1 101 a\x00", 0, ""},
		{"HTTP/1.1 101 a\n", 0, ""},
		{"HTTX", 0, ""},
		{"\r\n", 0, ""},
		{"\x15\x03", 0, ""}, // a TLS alert: the port speaks wss://
	} {
		b := []byte(c.line)
		if c.status > 0 {
			b = append(b, "\r\n"...)
		}
		var r Response
		n, err := ParseResponse(b, nil, &r)
		if c.status == 0 {
			if e := answerError(t, err); n != 0 || e.Status != 0 || e.Refused() || e.Section == "" || !errors.Is(err, ws.ErrMalformedResponse) {
				t.Errorf("%q: %d, %+v", c.line, n, e)
			}
			continue
		}
		if err != nil || n != len(b) || r.Status != c.status || string(r.Reason) != c.reason {
			t.Errorf("%q: %d, %v, %d %q", c.line, n, err, r.Status, r.Reason)
		}
	}
}

func TestResponseHeadersFollowTheRulesOfRequests(t *testing.T) {
	for fault, says := range map[string]string{
		"Host : a":  "white space",
		" folded":   "folded",
		"A: b\nC":   "LF without CR",
		"A: b\x00":  "0x00",
		"A\r\n":     "no colon",
		"A: b\rc\n": "0x0d",
	} {
		var r Response
		_, err := ParseResponse([]byte("HTTP/1.1 101 x\r\n"+fault), nil, &r)
		if e := answerError(t, err); !strings.Contains(e.Error(), says) {
			t.Errorf("%q: %v", fault, e)
		}
	}
}

func TestResponsesAreLimited(t *testing.T) {
	var r Response
	for _, c := range []struct {
		lim  Limits
		says string
	}{
		{Limits{}, ""},
		{Limits{Head: len(rfcResponse), Headers: 4}, ""},
		{Limits{Head: len(rfcResponse) - 1}, "too large"},
		{Limits{Headers: 3}, "too many header lines"},
	} {
		n, err := ParseResponse([]byte(rfcResponse), &c.lim, &r)
		if c.says == "" {
			if err != nil || n != len(rfcResponse) {
				t.Errorf("%+v: %d, %v", c.lim, n, err)
			}
		} else if e := answerError(t, err); !strings.Contains(e.Msg, c.says) {
			t.Errorf("%+v: %v", c.lim, e)
		}
	}
}

func TestWhatAClientAcceptsAndFails(t *testing.T) {
	h := Hello{
		Key: []byte("dGhlIHNhbXBsZSBub25jZQ=="), Protocols: []string{"chat", "superchat"},
		Extensions: `permessage-deflate; client_max_window_bits, x-foo; a="b", x-bar`,
	}
	const (
		status  = "HTTP/1.1 101 Switching Protocols\r\n"
		upgrade = "Upgrade: websocket\r\n"
		conn    = "Connection: Upgrade\r\n"
		accept  = "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"
		good    = status + upgrade + conn + accept
	)
	for _, c := range []struct {
		head    string
		status  int // 0: accepted
		section string
		err     error
	}{
		{rfcResponse, 0, "", nil},
		{good, 0, "", nil},
		{status + "upgrade: WebSocket\r\nconnection: keep-alive\r\nCONNECTION: x, uPGRADE\r\nsec-websocket-accept:\t s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\t\r\n", 0, "", nil},
		{good + "Sec-WebSocket-Protocol: superchat\r\n", 0, "", nil},
		{good + "Sec-WebSocket-Extensions: x-bar, permessage-deflate; server_max_window_bits=10\r\n", 0, "", nil},
		{good + "Set-Cookie: a\r\nSet-Cookie: b\r\n", 0, "", nil},
		{good + "Content-Length: 0\r\n", 0, "", nil},

		{"HTTP/1.1 200 OK\r\n", 200, "4.1 response item 1", ws.StatusError(200)},
		{"HTTP/1.1 403 \r\n", 403, "4.1 response item 1", ws.StatusError(403)},
		{"HTTP/1.1 100 Continue\r\n", 100, "4.1 response item 1", ws.StatusError(100)},
		{"HTTP/1.0 101 x\r\n" + upgrade + conn + accept, 101, "RFC 9110 §15.2", ws.ErrHandshakeBadProtocol},
		{status + conn + accept, 101, "4.1 response item 2", ws.ErrHandshakeBadUpgrade},
		{status + "Upgrade: websockets\r\n" + conn + accept, 101, "4.1 response item 2", ws.ErrHandshakeBadUpgrade},
		{status + "Upgrade: h2c, websocket\r\n" + conn + accept, 101, "4.1 response item 2", ws.ErrHandshakeBadUpgrade},
		{status + "Upgrade: web\u017focket\r\n" + conn + accept, 101, "4.1 response item 2", ws.ErrHandshakeBadUpgrade},
		{status + upgrade + upgrade + conn + accept, 101, "4.1 response item 2", ws.ErrHandshakeBadUpgrade},
		{status + upgrade + accept, 101, "4.1 response item 3", ws.ErrHandshakeBadConnection},
		{status + upgrade + "Connection: close\r\n" + accept, 101, "4.1 response item 3", ws.ErrHandshakeBadConnection},
		{good + "Content-Length: 4\r\n", 101, "RFC 9112 §6.3", nil},
		{good + "Transfer-Encoding: chunked\r\n", 101, "RFC 9112 §6.3", nil},
		{status + upgrade + conn, 101, "4.1 response item 4", ws.ErrHandshakeBadSecAccept},
		{good + accept, 101, "11.3.3", ws.ErrHandshakeBadSecAccept},
		{status + upgrade + conn + "Sec-WebSocket-Accept: dGhlIHNhbXBsZSBub25jZQ==\r\n", 101, "4.1 response item 4", ws.ErrHandshakeBadSecAccept},
		{status + upgrade + conn + "Sec-WebSocket-Accept: S3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n", 101, "4.1 response item 4", ws.ErrHandshakeBadSecAccept},
		{status + upgrade + conn + "Sec-WebSocket-Accept:\r\n", 101, "4.1 response item 4", ws.ErrHandshakeBadSecAccept},
		{good + "Sec-WebSocket-Protocol: other\r\n", 101, "4.1 response item 6", ws.ErrHandshakeBadSubProtocol},
		{good + "Sec-WebSocket-Protocol: Chat\r\n", 101, "4.1 response item 6", ws.ErrHandshakeBadSubProtocol},
		{good + "Sec-WebSocket-Protocol:\r\n", 101, "4.1 response item 6", ws.ErrHandshakeBadSubProtocol},
		{good + "Sec-WebSocket-Protocol: chat, superchat\r\n", 101, "4.1 response item 6", ws.ErrHandshakeBadSubProtocol},
		{good + "Sec-WebSocket-Protocol: chat\r\nSec-WebSocket-Protocol: chat\r\n", 101, "11.3.4", ws.ErrHandshakeBadSubProtocol},
		{good + "Sec-WebSocket-Extensions: x-baz\r\n", 101, "4.1 response item 5", ws.ErrHandshakeBadExtensions},
		{good + "Sec-WebSocket-Extensions: permessage-deflate, x-baz\r\n", 101, "4.1 response item 5", ws.ErrHandshakeBadExtensions},
		{good + "Sec-WebSocket-Extensions: client_max_window_bits\r\n", 101, "4.1 response item 5", ws.ErrHandshakeBadExtensions},
		{good + "Sec-WebSocket-Extensions: x-baz permessage-deflate\r\n", 101, "9.1", ws.ErrMalformedResponse},
		{good + "Sec-WebSocket-Extensions: permessage-deflate;\r\n", 101, "9.1", ws.ErrMalformedResponse},
		{good + "Sec-WebSocket-Extensions:\r\n", 101, "9.1", ws.ErrMalformedResponse},
		{good + "Sec-WebSocket-Extensions: x-foo\r\nSec-WebSocket-Extensions: x-bar\r\n", 101, "11.3.2", ws.ErrHandshakeBadExtensions},
	} {
		head := strings.TrimSuffix(c.head, "\r\n\r\n")
		head = strings.TrimSuffix(head, "\r\n") + "\r\n\r\n"
		var r Response
		if n, err := ParseResponse([]byte(head), nil, &r); err != nil || n != len(head) {
			t.Fatalf("%q: %d, %v", head, n, err)
		}
		err := r.Check(&h)
		if c.status == 0 {
			if err != nil {
				t.Errorf("%q: %v", head, err)
			}
			continue
		}
		e := answerError(t, err)
		if e.Status != c.status || e.Refused() != (c.status != 101) || !strings.Contains(e.Error(), c.section) {
			t.Errorf("%q: %+v", head, e)
		}
		if e.Err != c.err || c.err != nil && !errors.Is(err, c.err) {
			t.Errorf("%q: wraps %v, want %v", head, e.Err, c.err)
		}
	}
}

func TestNothingThatWasNotOfferedIsAccepted(t *testing.T) {
	h := Hello{Key: []byte("dGhlIHNhbXBsZSBub25jZQ==")}
	var r Response
	if _, err := ParseResponse([]byte(rfcResponse), nil, &r); err != nil {
		t.Fatal(err)
	}
	if e := answerError(t, r.Check(&h)); !strings.Contains(e.Msg, `"chat"`) {
		t.Error(e)
	}
}

func TestAClientsHandshakeAllocatesNothing(t *testing.T) {
	h := Hello{Host: "a", Key: []byte("dGhlIHNhbXBsZSBub25jZQ=="), Protocols: []string{"chat"}, Extensions: "permessage-deflate"}
	in := AppendAnswer(nil, &Answer{Key: h.Key, Protocol: "chat", Extensions: []byte("permessage-deflate")}, nil)
	out, key := make([]byte, 0, 512), make([]byte, 0, KeySize)
	var (
		resp Response
		err  error
	)
	if n := testing.AllocsPerRun(200, func() {
		key = AppendKey(key[:0], [16]byte{1})
		out = AppendRequest(out[:0], &h)
		if _, err = ParseResponse(in, nil, &resp); err == nil {
			err = resp.Check(&h)
		}
	}); n != 0 || err != nil {
		t.Errorf("%v allocations, %v", n, err)
	}
}

// FuzzResponse compares with net/http whatever both accept, and feeds every prefix.
func FuzzResponse(f *testing.F) {
	for _, s := range []string{
		rfcResponse, rfcResponse + "\x81\x00", "HTTP/1.1 404\r\n\r\n", "HTTP/1.0 200 OK\r\nA: b\r\nA:\tc \r\n\r\nbody", "HTTP/2 200\r\n\r\n",
		string(AppendRefusal(nil, refuseUpgrade, false)), "HTTP/1.1 101 x\r\nSec-WebSocket-Extensions: a;b=\"c\", d\r\n\r\n",
	} {
		f.Add([]byte(s))
	}
	h := Hello{Key: []byte("dGhlIHNhbXBsZSBub25jZQ=="), Protocols: []string{"chat"}, Extensions: "a, b"}
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) > 600 {
			return
		}
		var r, part Response
		n, err := ParseResponse(b, nil, &r)
		for i := range len(b) + 1 {
			m, e := ParseResponse(b[:i], nil, &part)
			if (m != 0 || e != nil) && (m != n || !reflect.DeepEqual(e, err) || n > 0 && !reflect.DeepEqual(part, r)) {
				t.Fatalf("after %d of %d bytes: %d, %v; whole: %d, %v", i, len(b), m, e, n, err)
			}
		}
		if n == 0 {
			return
		}
		if r.Check(&h) == nil && (r.Status != 101 || string(r.Accept) != "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=") {
			t.Fatalf("accepted %q", b[:n])
		}
		theirs, err := http.ReadResponse(bufio.NewReader(bytes.NewReader(b[:n])), &http.Request{Method: "HEAD"})
		if err != nil {
			return
		}
		if theirs.StatusCode != r.Status || theirs.ProtoMajor != 1 || theirs.ProtoMinor != r.Minor {
			t.Fatalf("HTTP/1.%d %d, net/http: %s %s", r.Minor, r.Status, theirs.Proto, theirs.Status)
		}
		ours := http.Header{}
		for name, value := range r.All {
			ours.Add(string(name), string(value))
		}
		for _, name := range []string{"Connection", "Transfer-Encoding", "Content-Length", "Trailer", "Cache-Control"} {
			delete(ours, name)
			delete(theirs.Header, name)
		}
		if !reflect.DeepEqual(ours, theirs.Header) {
			t.Fatalf("fields %q, net/http: %q", ours, theirs.Header)
		}
	})
}
