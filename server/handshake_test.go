package server

import (
	"crypto/tls"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"wspoll/handshake"

	"github.com/gobwas/ws"
)

func TestHandshakeOfTheRFCIsAnsweredWithItsAccept(t *testing.T) {
	s := serve(t, Config{}, nil)
	c := s.dial(t)
	io.WriteString(c, request("/echo"))
	want := "HTTP/1.1 101 Switching Protocols\r\n" +
		"Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"
	got := make([]byte, len(want))
	if _, err := io.ReadFull(c, got); err != nil || string(got) != want {
		t.Fatalf("error %v\n%s", err, got)
	}
	if st := s.Stats(); st.Upgraded != 1 || st.WebSockets != 1 || st.Connections != 1 || st.Accepted != 1 {
		t.Errorf("%+v", st)
	}
}

func TestEveryRefusalHasItsStatusOneLineAndTheEnd(t *testing.T) {
	s := serve(t, Config{}, nil)
	long := strings.Repeat("x", 5000)
	for _, tt := range []struct {
		name, request string
		status        int
		says          string
		header        string // "Name: value" that must be there
	}{
		{"line feed alone", "GET /echo HTTP/1.1\nHost: a\n\n", 400, "LF without CR", ""},
		{"no key", request("/echo", "Sec-WebSocket-Key:"), 400, "Sec-WebSocket-Key header is missing", ""},
		{"short key", request("/echo", "Sec-WebSocket-Key: AAAA"), 400, "not 16 bytes", ""},
		{"two hosts", request("/echo", "Host: a\r\nHost: b"), 400, "more than one Host", ""},
		{"no host", request("/echo", "Host:"), 400, "Host header is missing", ""},
		{"no Connection", request("/echo", "Connection:"), 400, "does not list Upgrade", ""},
		{"a body", request("/echo", "Content-Length: 5") + "hello", 400, "no body", ""},
		{"other origin", request("/echo", "Origin: https://evil.example"), 403, "may not connect", ""},
		{"unknown path", request("/nothing"), 404, "no WebSocket service", ""},
		{"POST", strings.Replace(request("/echo"), "GET", "POST", 1), 405, "GET", "Allow: GET"},
		{"long target", request("/echo?" + long), 414, "target is too long", ""},
		{"plain GET", "GET /echo HTTP/1.1\r\nHost: a\r\n\r\n", 426, "WebSocket client", "Upgrade: websocket"},
		{"version 8", request("/echo", "Sec-WebSocket-Version: 8"), 426, "only 13", "Sec-WebSocket-Version: 13"},
		{"long head", request("/echo", "X: "+long+long), 431, "head is too large", ""},
		{"many lines", request("/echo", strings.Repeat("X: y\r\n", 120)+"X: y"), 431, "too many header lines", ""},
		{"HTTP/1.0", strings.Replace(request("/echo"), "1.1", "1.0", 1), 505, "HTTP/1.1", ""},
		{"HTTP/2 preface", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505, "HTTP/1.1 only", ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			before := s.Stats()
			r, body := s.answer(t, tt.request)
			checkRefusal(t, r, body, tt.status, tt.says)
			if name, value, _ := strings.Cut(tt.header, ": "); name != "" && r.Header.Get(name) != value {
				t.Errorf("%s: %q, want %q", name, r.Header.Get(name), value)
			}
			after := s.Stats()
			if after.Refused != before.Refused+1 || after.Upgraded != before.Upgraded {
				t.Errorf("refused %d, then %d", before.Refused, after.Refused)
			}
		})
	}
}

func checkRefusal(t *testing.T, r *http.Response, body string, status int, says string) {
	t.Helper()
	if r.StatusCode != status || !strings.Contains(body, says) {
		t.Errorf("%s: %q, want %d and %q", r.Status, body, status, says)
	}
	if strings.Count(body, "\n") != 1 || !strings.HasSuffix(body, "\n") {
		t.Errorf("the body is not one line: %q", body)
	}
	if !r.Close {
		t.Errorf("the answer does not say Connection: close: %v", r.Header)
	}
	if int(r.ContentLength) != len(body) {
		t.Errorf("Content-Length %d of %d bytes", r.ContentLength, len(body))
	}
}

// headRequest has a HEAD request refused: with the length of a body and without it.
func (s *testServer) headRequest(t *testing.T) {
	t.Helper()
	c := s.dial(t)
	io.WriteString(c, strings.Replace(request("/nothing"), "GET", "HEAD", 1))
	b, err := io.ReadAll(c)
	c.Close()
	if err != nil || !strings.HasPrefix(string(b), "HTTP/1.1 404 ") || !strings.HasSuffix(string(b), "\r\n\r\n") {
		t.Fatalf("HEAD: error %v, %q", err, b)
	}
}

func TestHeadMayComeByteByByte(t *testing.T) {
	s := serve(t, Config{}, nil)
	c := s.packets(t) // each write is one read of the server
	h := hello("/echo")
	head := append(handshake.AppendRequest(nil, h), masked(true, ws.OpText, []byte("first"))...)
	for i := range head {
		c.Write(head[i : i+1])
	}
	cl := &client{t: t, conn: c}
	cl.accepted(h)
	if op, got := cl.message(); op != ws.OpText || string(got) != "first" {
		t.Errorf("%v %q", op, got)
	}
}

func TestFramesInThePacketOfTheRequestAreNotLost(t *testing.T) {
	s := serve(t, Config{}, nil)
	first := append(masked(true, ws.OpText, []byte("one")), masked(false, ws.OpBinary, []byte("tw"))...)
	c := join(t, s.dial(t), hello("/echo"), first)
	if _, got := c.message(); string(got) != "one" {
		t.Errorf("%q", got)
	}
	c.write(masked(true, ws.OpContinuation, []byte("o")))
	if op, got := c.message(); op != ws.OpBinary || string(got) != "two" {
		t.Errorf("%v %q", op, got)
	}
}

func TestSubprotocolIsTheClientsFirstThatTheServerSpeaks(t *testing.T) {
	protocol := make(chan string, 1)
	s := serve(t, Config{Handshake: handshake.Options{Protocols: []string{"v1", "v2"}}}, map[string]*Endpoint{
		"/proto": {Open: func(c Conn) { protocol <- c.Protocol() }},
	})
	for _, tt := range []struct {
		offer []string
		want  string
	}{{[]string{"v3", "v2", "v1"}, "v2"}, {[]string{"v1"}, "v1"}, {[]string{"v3"}, ""}, {nil, ""}} {
		h := hello("/proto")
		h.Protocols = tt.offer
		c := join(t, s.dial(t), h, nil)
		if got := receive(t, "Open", protocol); c.protocol != tt.want || got != tt.want {
			t.Errorf("offered %v: the client was told %q, the endpoint %q, want %q", tt.offer, c.protocol, got, tt.want)
		}
	}
}

func TestOriginsAreTheOwnHostUnlessAListSaysOtherwise(t *testing.T) {
	own := serve(t, Config{}, nil)
	list := serve(t, Config{Handshake: handshake.Options{Origins: []string{"https://*.example.org", "null"}}}, nil)
	for _, tt := range []struct {
		s      *testServer
		origin string
		ok     bool
	}{
		{own, "", true},
		{own, "http://example.com", true},
		{own, "http://example.com:8080", false},
		{own, "https://evil.example", false},
		{own, "null", false},
		{list, "", true},
		{list, "https://a.example.org", true},
		{list, "null", true},
		{list, "http://example.com", false}, // the own host is not in the list
	} {
		c := tt.s.dial(t)
		h := hello("/echo")
		h.Origin = tt.origin
		if tt.ok {
			join(t, c, h, nil).echoes(ws.OpText, []byte("hi"))
			continue
		}
		c.Write(handshake.AppendRequest(nil, h))
		r, body := readAnswer(t, c)
		checkRefusal(t, r, body, 403, tt.origin)
	}
}

func TestHalfAHeadIsAnsweredWith408AndNoHeadWithSilence(t *testing.T) {
	s := serve(t, Config{HandshakeTimeout: 400 * time.Millisecond}, nil)
	silent, half := s.dial(t), s.dial(t)
	io.WriteString(half, "GET /echo HTTP/1.1\r\nHost: exa")
	eventually(t, "half a head has arrived", func() bool { return s.Stats().Connections == 2 })
	s.headRequest(t) // its answer has no body; that of the others must have
	r, body := readAnswer(t, half)
	checkRefusal(t, r, body, 408, "took too long")
	if b, err := io.ReadAll(silent); len(b) > 0 || err != nil {
		t.Errorf("a connection without a byte got %q, error %v; want its end", b, err)
	}
	s.waitClosed(t, ReasonHandshake, 2)
}

func TestOneConnectionTooManyIsAnsweredWith503(t *testing.T) {
	s := serve(t, Config{MaxConnections: 2}, nil)
	a, b := s.open(t, "/echo"), s.open(t, "/echo")
	r, body := readAnswer(t, s.dial(t)) // without having sent a byte
	checkRefusal(t, r, body, 503, "as many connections as it can hold")
	if r.Header.Get("Retry-After") == "" {
		t.Error("no Retry-After")
	}
	a.echoes(ws.OpText, []byte("still here"))
	b.close(1000)
	b.wantClose(1000)
	s.waitClosed(t, ReasonPeerClosed, 1)
	eventually(t, "the refused one has gone", func() bool { return s.Stats().Connections == 1 })
	s.open(t, "/echo").echoes(ws.OpText, []byte("room again"))
	if n := s.closed(ReasonFull); n != 1 {
		t.Errorf("%d were refused for being too many", n)
	}
}

func TestHEADRequestTakesNoBodyFromOthers(t *testing.T) {
	s := serve(t, Config{MaxConnections: 1}, nil)
	s.headRequest(t)
	eventually(t, "the HEAD request is gone", func() bool { return s.Stats().Connections == 0 })
	s.dial(t) // one that says nothing
	r, body := readAnswer(t, s.dial(t))
	checkRefusal(t, r, body, 503, "as many connections as it can hold")
}

func TestTLSClientIsToldThatThisIsPlain(t *testing.T) {
	s := serve(t, Config{}, nil)
	r, body := s.answer(t, "\x16\x03\x01\x00\xc4\x01\x00\x00\xc0\x03\x03")
	checkRefusal(t, r, body, 400, "wss://")

	err := tls.Client(s.dial(t), &tls.Config{ServerName: "localhost"}).Handshake()
	var rec tls.RecordHeaderError
	if !errors.As(err, &rec) || string(rec.RecordHeader[:]) != "HTTP/" {
		t.Errorf("a TLS client saw %v", err)
	}
}
