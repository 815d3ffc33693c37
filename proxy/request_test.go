package proxy

import (
	"io"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/gobwas/ws"
)

func TestABackendGetsTheRequestOfTheClient(t *testing.T) {
	b := newBehind(t)
	px := serve(t, Config{}, b)
	client := &end{t: t, conn: px.dial(t), client: true}
	client.write([]byte(request("/chat/room%201?a=b&c", "Cookie: id=7", "Origin: http://example.com", "Authorization: Basic eA==",
		"Sec-WebSocket-Protocol: chat, superchat", "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits")))
	head, _ := readHead(t, b.conn())
	local := client.conn.LocalAddr().(interface{ String() string }).String()
	ip := local[:strings.LastIndexByte(local, ':')]
	want := "GET /chat/room%201?a=b&c HTTP/1.1\r\nHost: example.com\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n" +
		"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: " + sampleKey + "\r\nCookie: id=7\r\nOrigin: http://example.com\r\nAuthorization: Basic eA==\r\n" +
		"Sec-WebSocket-Protocol: chat, superchat\r\nSec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n" +
		"X-Forwarded-For: " + ip + "\r\nX-Forwarded-Proto: http\r\nX-Forwarded-Host: example.com\r\n" +
		"Forwarded: for=" + ip + `;host="example.com";proto=http` + "\r\n\r\n"
	if head != want {
		t.Errorf("the backend got\n%s\nwant\n%s", head, want)
	}
}

func TestFieldsForTheNextHopEndAtTheProxy(t *testing.T) {
	b := newBehind(t)
	px := serve(t, Config{}, b)
	_, backend := px.openWith(t, b, request("/", "Connection: keep-alive, Upgrade, X-Mine, Sec-WebSocket-Key", "X-Mine: 1", "X-Other: 2",
		"Keep-Alive: timeout=5", "TE: trailers", "Proxy-Authorization: Basic eA==", "Upgrade: h2c, websocket", "HTTP2-Settings: AAM"))
	for _, gone := range []string{"X-Mine", "Keep-Alive", "TE:", "Proxy-", "h2c", "keep-alive", "HTTP2"} {
		if strings.Contains(backend.head, gone) {
			t.Errorf("%q went on:\n%s", gone, backend.head)
		}
	}
	for _, stays := range []string{"X-Other: 2\r\n", "Connection: Upgrade\r\n", "Upgrade: websocket\r\n", "Sec-WebSocket-Key: "} {
		if strings.Count(backend.head, stays) != 1 {
			t.Errorf("%q is not there once:\n%s", stays, backend.head)
		}
	}
}

func TestForwardingFieldsAreBelievedOfTrustedPeersOnly(t *testing.T) {
	lines := []string{
		"X-Forwarded-For: 203.0.113.9, 10.1.1.1", "X-Forwarded-Proto: https", "X-Forwarded-Host: shop.example", "Forwarded: for=203.0.113.9",
		"X_Forwarded_For: 203.0.113.9",
	}
	b := newBehind(t)
	t.Run("of a stranger they are dropped", func(t *testing.T) {
		px := serve(t, Config{}, b)
		_, backend := px.openWith(t, b, request("/", lines...))
		for _, s := range []string{"203.0.113.9", "https", "shop.example", "10.1.1.1"} {
			if strings.Contains(backend.head, s) {
				t.Errorf("%q went on:\n%s", s, backend.head)
			}
		}
	})
	t.Run("of a trusted peer they are added to", func(t *testing.T) {
		var log lockedLog
		px := serve(t, Config{
			Trusted: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8"), netip.MustParsePrefix("10.0.0.0/8")},
			Access:  log.logger(),
		}, b)
		client, backend := px.openWith(t, b, request("/", lines...))
		for _, s := range []string{
			"X-Forwarded-For: 203.0.113.9, 10.1.1.1, 203.0.113.9, 127.0.0.1\r\n", "X-Forwarded-Proto: https\r\n",
			"X-Forwarded-Host: shop.example\r\n", `Forwarded: for=203.0.113.9, for=127.0.0.1;host="example.com";proto=http` + "\r\n",
		} {
			if !strings.Contains(backend.head, s) {
				t.Errorf("%q is missing in\n%s", s, backend.head)
			}
		}
		client.conn.Close()
		backend.wantClose(ws.StatusGoingAway)
		backend.conn.Close()
		eventually(t, "the end is told", func() bool { return strings.Contains(log.String(), "client=203.0.113.9:0") })
	})
}

func TestAnAbsoluteTargetBecomesAPath(t *testing.T) {
	b := newBehind(t)
	px := serve(t, Config{}, b)
	_, backend := px.openWith(t, b, strings.Replace(request("/"), "GET / ", "GET http://other.example:81?q ", 1))
	if !strings.HasPrefix(backend.head, "GET /?q HTTP/1.1\r\nHost: other.example:81\r\n") {
		t.Errorf("the backend got\n%s", backend.head)
	}
}

func TestBadHandshakesNeverReachABackend(t *testing.T) {
	b := newBehind(t)
	px := serve(t, Config{HandshakeTimeout: 300 * time.Millisecond}, b)
	check := px.calm(t)
	for name, tt := range map[string]struct{ request, status string }{
		"no key":                 {request("/", "Sec-WebSocket-Key:"), "400"},
		"a short key":            {request("/", "Sec-WebSocket-Key: eA=="), "400"},
		"two keys":               {request("/", "X: 1\r\nSec-WebSocket-Key: "+sampleKey), "400"},
		"no version":             {request("/", "Sec-WebSocket-Version:"), "400"},
		"version 8":              {request("/", "Sec-WebSocket-Version: 8"), "426"},
		"no Connection: Upgrade": {request("/", "Connection: keep-alive"), "400"},
		"no Host":                {request("/", "Host:"), "400"},
		"two Hosts":              {request("/", "X: 1\r\nHost: other"), "400"},
		"a body":                 {request("/", "Content-Length: 5") + "12345", "400"},
		"a chunked body":         {request("/", "Transfer-Encoding: chunked"), "400"},
		"POST":                   {strings.Replace(request("/"), "GET", "POST", 1), "405"},
		"HTTP/1.0":               {strings.Replace(request("/"), "HTTP/1.1", "HTTP/1.0", 1), "505"},
		"a bare LF":              {strings.Replace(request("/"), "\r\n", "\n", 1), "400"},
		"a folded line":          {request("/", "X: 1\r\n 2"), "400"},
		"a space before a colon": {request("/", "X : 1"), "400"},
		"a subprotocol twice":    {request("/", "Sec-WebSocket-Protocol: a, a"), "400"},
		"bad extensions":         {request("/", "Sec-WebSocket-Extensions: ;"), "400"},
		"a head that is large":   {request("/", "X: "+strings.Repeat("x", 9000)), "431"},
		"a target that is large": {request("/" + strings.Repeat("x", 5000)), "414"},
		"half a request":         {"GET / HTTP/1.1\r\nHost: exa", "408"},
		"TLS":                    {"\x16\x03\x01\x02\x00\x01\x00", "400"},
	} {
		t.Run(name, func(t *testing.T) {
			if got := px.answerTo(t, tt.request); status(got) != tt.status {
				t.Errorf("the answer is %q, want status %s", got, tt.status)
			}
		})
	}
	b.none()
	check()
}

// What is glued to the request must not be sent before the 101, which would
// make a second request of it, and must not be lost.
func TestBytesBehindTheRequestWaitForThe101(t *testing.T) {
	b := newBehind(t)
	px := serve(t, Config{}, b)
	client := &end{t: t, conn: px.dial(t), client: true}
	hello := client.frameOf(true, ws.OpText, []byte("hello"))
	client.write(append([]byte(request("/")), hello...))
	client.send(ws.OpText, "and more")
	backend := &end{t: t, conn: b.conn()}
	backend.head, backend.in = readHead(t, backend.conn)
	backend.conn.SetReadDeadline(time.Now().Add(100 * time.Millisecond))
	if n, err := backend.conn.Read(make([]byte, 10)); n > 0 || len(backend.in) > 0 || gone(err) && !strings.Contains(err.Error(), "timeout") {
		t.Fatalf("%d bytes came before the 101, %v", n+len(backend.in), err)
	}
	backend.conn.SetReadDeadline(time.Now().Add(patience))
	backend.write([]byte(answer101(t, backend.head)))
	client.readAnswer()
	if got := backend.raw(len(hello)); string(got) != string(hello) {
		t.Errorf("% x came", got)
	}
	backend.want("and more")
}

func TestBytesBehindThe101ReachTheClient(t *testing.T) {
	b := newBehind(t)
	px := serve(t, Config{}, b)
	client := &end{t: t, conn: px.dial(t), client: true}
	client.write([]byte(request("/")))
	backend := &end{t: t, conn: b.conn()}
	backend.head, _ = readHead(t, backend.conn)
	backend.write(append([]byte(answer101(t, backend.head)), backend.frameOf(true, ws.OpText, []byte("glued"))...))
	client.readAnswer()
	client.want("glued")
	passes(client, backend)
}

func TestARefusedUpgradeCannotSmuggleASecondRequest(t *testing.T) {
	b := newBehind(t)
	px := serve(t, Config{}, b)
	c := px.dial(t)
	io.WriteString(c, request("/")+"GET /admin HTTP/1.1\r\nHost: x\r\n\r\n")
	conn := b.conn()
	_, rest := readHead(t, conn)
	io.WriteString(conn, "HTTP/1.1 404 Not Found\r\nContent-Length: 2\r\n\r\nno")
	if got := readAll(t, c); got != "HTTP/1.1 404 Not Found\r\nContent-Length: 2\r\nConnection: close\r\n\r\nno" {
		t.Errorf("the client got %q", got)
	}
	if more := readAll(t, conn); len(rest)+len(more) > 0 {
		t.Errorf("the backend got %q as well", string(rest)+more)
	}
	b.none()
}
