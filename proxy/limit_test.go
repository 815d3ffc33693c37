package proxy

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/gobwas/ws"
)

func TestConnectionsOfAnAddressAreBounded(t *testing.T) {
	b := newBehind(t)
	px := serve(t, Config{MaxPerAddress: 2}, b)
	c1, _ := px.open(t, b)
	c2, _ := px.open(t, b)
	third := px.dial(t)
	if got := readAll(t, third); status(got) != "429" || !strings.Contains(got, "Retry-After: ") {
		t.Errorf("%q", got)
	}
	px.waitClosed(t, ReasonLimit, 1)
	c1.reset()
	eventually(t, "there is room again", func() bool { return px.Stats().Connections == 1 })
	c3, b3 := px.open(t, b)
	passes(c3, b3)
	// Another address has its own.
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 9)}}
	other, err := d.Dial("tcp", px.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	io.WriteString(other, request("/"))
	b.accept()
	c2.reset()
}

func TestATrustedPeerIsNotBoundedButItsClientsAre(t *testing.T) {
	b := newBehind(t)
	px := serve(t, Config{MaxPerAddress: 1, Trusted: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}}, b)
	px.open(t, b, "X-Forwarded-For: 203.0.113.1")
	px.open(t, b, "X-Forwarded-For: 203.0.113.2")
	px.open(t, b, "X-Forwarded-For: 2001:db8::1")
	for _, again := range []string{"203.0.113.1", "2001:db8::ffff"} { // a /64 is one
		if got := px.answerTo(t, request("/", "X-Forwarded-For: "+again)); status(got) != "429" {
			t.Errorf("%s: %q", again, got)
		}
	}
}

func TestHandshakesOfAnAddressAreBounded(t *testing.T) {
	b := labelledBackend(t, "b")
	px := serve(t, Config{HandshakesPerSecond: 3}, b.behind)
	good := 0
	for range 20 {
		c := px.dial(t)
		io.WriteString(c, request("/"))
		head := &end{t: t, conn: c, client: true}
		for !strings.Contains(string(head.in), "\r\n\r\n") {
			if err := head.fill(); err != nil {
				t.Fatal(err)
			}
		}
		switch status(string(head.in)) {
		case "101":
			good++
		case "429":
		default:
			t.Errorf("%q", head.in)
		}
		c.Close()
	}
	if good < 3 || good > 10 {
		t.Errorf("%d of 20 at once were let in", good)
	}
}

func TestTokensGrowBackAndAddressesAreForgotten(t *testing.T) {
	x := newAddresses(0, 10)
	a := netip.MustParseAddr("203.0.113.1")
	n := 0
	for ; x.ask(a, 0); n++ {
	}
	if n != 10 {
		t.Errorf("a burst of %d", n)
	}
	if !x.ask(a, int64(100*time.Millisecond)) || x.ask(a, int64(100*time.Millisecond)) {
		t.Error("after a tenth of a second there is one")
	}
	for i := range 5000 {
		x.ask(netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)}), int64(i)*int64(time.Second))
	}
	if len(x.known) > 1100 {
		t.Errorf("%d addresses are known", len(x.known))
	}
}

func TestConnectionsAreBounded(t *testing.T) {
	b := newBehind(t)
	px := serve(t, Config{MaxConnections: 1}, b)
	client, backend := px.open(t, b)
	if got := px.answerTo(t, request("/")); status(got) != "503" {
		t.Errorf("%q", got)
	}
	passes(client, backend)
	px.waitClosed(t, ReasonFull, 1)
}

func TestDrainRefusesNewRequestsAndEndsOldTunnelsLater(t *testing.T) {
	b := newBehind(t)
	px := serve(t, Config{}, b)
	client, backend := px.open(t, b)
	ended := make(chan error, 1)
	go func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		ended <- px.Shutdown(ctx, 300*time.Millisecond)
	}()
	eventually(t, "it drains", px.draining.Load)
	if got := px.answerTo(t, request("/")); status(got) != "503" || !strings.Contains(got, "Retry-After") {
		t.Errorf("%q", got)
	}
	passes(client, backend)
	for _, e := range []*end{client, backend} {
		if got := e.wantClose(ws.StatusGoingAway); got != "the proxy is going down" {
			t.Errorf("reason %q", got)
		}
		e.close(ws.StatusGoingAway, "")
	}
	client.wantEnd()
	backend.conn.Close()
	if err := receive(t, "it has ended", ended); err != nil {
		t.Error(err)
	}
	if n := px.conns.Load(); n != 0 {
		t.Errorf("%d connections are left", n)
	}
	// The counts stay what they were at the end.
	if st := px.Stats(); st.Accepted != 2 || st.Upgraded != 1 || st.Refused != 1 || st.Closed[ReasonDrain] != 1 || st.Connections+st.Tunnels != 0 {
		t.Errorf("%+v", st)
	}
}

func TestDrainDoesNotWaitForWhoDoesNotEnd(t *testing.T) {
	for _, mode := range []Mode{ModeFrames, ModeTunnel} {
		b := newBehind(t)
		px := serve(t, Config{CloseTimeout: 100 * time.Millisecond, Mode: mode}, b)
		px.open(t, b)
		c := px.dial(t) // a handshake that the backend never answers
		io.WriteString(c, request("/"))
		conn := b.conn()
		readHead(t, conn)
		ctx, cancel := context.WithTimeout(context.Background(), time.Second)
		defer cancel()
		begin := time.Now()
		if err := px.Shutdown(ctx, 0); err == nil || err.Error() != "1 connections did not end in time" {
			t.Errorf("%v", err)
		}
		if d := time.Since(begin); d > 3*time.Second {
			t.Errorf("it took %v", d)
		}
	}
}

func TestPlainRequestsPassThroughNetHTTP(t *testing.T) {
	got := make(chan *http.Request, 10)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	site := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		got <- r
		w.Header().Set("X-Site", "yes")
		w.WriteHeader(http.StatusTeapot)
		io.WriteString(w, "you sent "+string(body))
	})}
	go site.Serve(ln)
	t.Cleanup(func() { site.Close() })
	px := serve(t, Config{Routes: []Route{{To: []string{"ws://" + ln.Addr().String()}}}})
	check := px.calm(t)
	req, _ := http.NewRequest("POST", "http://"+px.addr+"/form?x=1", strings.NewReader("a body"))
	req.Header.Set("X-Forwarded-For", "203.0.113.9")
	req.Header.Set("X_Forwarded_For", "203.0.113.9")
	req.Host = "shop.example"
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	body, _ := io.ReadAll(resp.Body)
	resp.Body.Close()
	if resp.StatusCode != http.StatusTeapot || string(body) != "you sent a body" || resp.Header.Get("X-Site") != "yes" {
		t.Errorf("%d %q %v", resp.StatusCode, body, resp.Header)
	}
	r := receive(t, "the request", got)
	for name, want := range map[string]string{
		"X-Forwarded-For": "127.0.0.1", "X-Forwarded-Proto": "http", "X-Forwarded-Host": "shop.example",
		"Forwarded": `for=127.0.0.1;host="shop.example";proto=http`,
	} {
		if v := r.Header.Values(name); len(v) != 1 || v[0] != want {
			t.Errorf("%s: %q, want %q", name, v, want)
		}
	}
	if r.Host != "shop.example" || r.RequestURI != "/form?x=1" || strings.Contains(fmt.Sprint(r.Header), "X_") {
		t.Errorf("%q %q %v", r.Host, r.RequestURI, r.Header)
	}
	if n := px.Stats().Closed[ReasonHTTP]; n != 1 {
		t.Errorf("%d were counted", n)
	}
	http.DefaultClient.CloseIdleConnections()
	px.plain.out.CloseIdleConnections()
	site.Close()
	check()
}

func TestAHandshakeOnAConnectionThatHadPlainRequestsGoesToALoop(t *testing.T) {
	b := newBehind(t)
	px := serve(t, Config{MaxPerAddress: 5}, b)
	check := px.calm(t)
	client := &end{t: t, conn: px.dial(t), client: true}
	io.WriteString(client.conn, "GET /page HTTP/1.1\r\nHost: example.com\r\n\r\n")
	page := b.conn()
	readHead(t, page)
	io.WriteString(page, "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\npage")
	for !strings.HasSuffix(string(client.in), "page") {
		if err := client.fill(); err != nil {
			t.Fatal(err)
		}
	}
	client.in = nil
	first := client.frameOf(true, ws.OpText, []byte("glued"))
	client.write(append([]byte(request("/chat?x=1", "Cookie: a=b")), first...))
	backend := b.accept()
	client.readAnswer()
	if !strings.Contains(backend.head, "GET /chat?x=1 HTTP/1.1\r\n") || !strings.Contains(backend.head, "Cookie: a=b\r\n") {
		t.Errorf("the backend got %q", backend.head)
	}
	backend.want("glued")
	passes(client, backend)
	if st := px.Stats(); st.Tunnels != 1 || st.HTTP != 0 {
		t.Errorf("%d tunnels, %d plain", st.Tunnels, st.HTTP)
	}
	client.reset()
	backend.conn.Close()
	page.Close()
	px.plain.out.CloseIdleConnections()
	check()
	if n := len(px.addresses.known); n != 0 {
		t.Errorf("%d addresses are still counted", n)
	}
}

func TestPlainRequestsWithoutABackendAre502And404(t *testing.T) {
	px := serve(t, Config{Routes: []Route{{Prefix: "/a", To: []string{"ws://" + free(t)}}}})
	for path, want := range map[string]int{"/a": 502, "/b": 404} {
		resp, err := http.Get("http://" + px.addr + path)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != want {
			t.Errorf("%s: %d", path, resp.StatusCode)
		}
	}
}

func TestPlainRequestsTryAnotherBackendWhenOneCannotBeConnectedTo(t *testing.T) {
	site := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		w.Write(body)
	}))
	t.Cleanup(site.Close)
	balance, err := ParseBalance("round-robin")
	if err != nil {
		t.Fatal(err)
	}
	px := serve(t, Config{Balance: balance, Routes: []Route{{To: []string{"ws://" + free(t), "ws://" + site.Listener.Addr().String()}}}})
	for range 2 { // one of them begins at the backend that is not there
		resp, err := http.Post("http://"+px.addr+"/", "text/plain", strings.NewReader("a body"))
		if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		if resp.StatusCode != 200 || string(body) != "a body" {
			t.Errorf("%d %q", resp.StatusCode, body)
		}
	}
	if all := px.Backends(); all[0].Healthy || !all[1].Healthy {
		t.Errorf("the backends are %+v", all)
	}
}
