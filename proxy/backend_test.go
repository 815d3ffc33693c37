package proxy

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gobwas/ws"
)

// labelled is a backend that answers every handshake with 101 and its name in a
// field, and says how many connections it was asked for.
type labelled struct {
	*behind
	asked atomic.Int64
}

func labelledBackend(t *testing.T, name string) *labelled {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return labelledOn(t, ln, name)
}

func labelledOn(t *testing.T, ln net.Listener, name string) *labelled {
	b := &labelled{behind: backendOn(t, ln)}
	go func() {
		for c := range b.conns {
			go func() {
				defer c.Close()
				in := bufio.NewReader(c)
				r, err := http.ReadRequest(in)
				if err != nil {
					return
				}
				b.asked.Add(1)
				var head strings.Builder
				r.Header.Del("Connection")
				r.Header.Del("Upgrade")
				fmt.Fprintf(&head, "GET %s HTTP/1.1\r\nHost: %s\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n", r.RequestURI, r.Host)
				r.Header.Write(&head)
				io.WriteString(c, answer101(t, head.String()+"\r\n", "X-Backend: "+name))
				io.Copy(io.Discard, in) // until the proxy ends it
			}()
		}
	}()
	t.Cleanup(func() { ln.Close() })
	return b
}

// reached opens a tunnel and returns the name of the backend it goes to.
func (px *testProxy) reached(t *testing.T, lines ...string) (name string, client *end) {
	t.Helper()
	return px.reachedAt(t, "/", lines...)
}

func (px *testProxy) reachedAt(t *testing.T, path string, lines ...string) (name string, client *end) {
	t.Helper()
	client = &end{t: t, conn: px.dial(t), client: true}
	client.write([]byte(request(path, lines...)))
	client.readAnswer()
	_, name, _ = strings.Cut(client.head, "X-Backend: ")
	name, _, _ = strings.Cut(name, "\r\n")
	return name, client
}

func must(t testing.TB) func(b Balance, err error) Balance {
	return func(b Balance, err error) Balance {
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
}

func TestLeastConnectionsTakesTheBackendWithTheFewest(t *testing.T) {
	a, b := labelledBackend(t, "a"), labelledBackend(t, "b")
	px := serve(t, Config{}, a.behind, b.behind)
	count := map[string]int{}
	for range 20 {
		name, _ := px.reached(t)
		count[name]++
	}
	if count["a"] != 10 || count["b"] != 10 {
		t.Errorf("%v", count)
	}
}

func TestRoundRobinTakesThemInTurn(t *testing.T) {
	a, b, c := labelledBackend(t, "a"), labelledBackend(t, "b"), labelledBackend(t, "c")
	px := serve(t, Config{Balance: must(t)(ParseBalance("round-robin"))}, a.behind, b.behind, c.behind)
	var got []string
	for range 6 {
		name, client := px.reached(t)
		client.reset()
		got = append(got, name)
	}
	if strings.Join(got, "") != "abcabc" {
		t.Errorf("%s", got)
	}
}

func TestHashingKeepsAKeyAtItsBackend(t *testing.T) {
	a, b, c := labelledBackend(t, "a"), labelledBackend(t, "b"), labelledBackend(t, "c")
	px := serve(t, Config{Balance: must(t)(ParseBalance("hash:X-User"))}, a.behind, b.behind, c.behind)
	of := map[string]string{}
	count := map[string]int{}
	for range 2 {
		for user := range 60 {
			key := fmt.Sprint("user", user)
			name, client := px.reached(t, "X-User: "+key)
			client.reset()
			if of[key] != "" && of[key] != name {
				t.Errorf("%s went to %s and to %s", key, of[key], name)
			}
			of[key] = name
			count[name]++
		}
	}
	for _, name := range []string{"a", "b", "c"} {
		if count[name] < 12 {
			t.Errorf("of 120, %d went to %s", count[name], name)
		}
	}
	// When one goes, only its own keys move.
	if err := px.SetRoutes([]Route{{To: []string{"ws://" + a.addr, "ws://" + b.addr}}}); err != nil {
		t.Fatal(err)
	}
	for key, was := range of {
		name, client := px.reached(t, "X-User: "+key)
		client.reset()
		if was != "c" && name != was {
			t.Errorf("%s moved from %s to %s", key, was, name)
		}
	}
}

func TestHashOfTheAddressKeepsAClientAtItsBackend(t *testing.T) {
	a, b := labelledBackend(t, "a"), labelledBackend(t, "b")
	px := serve(t, Config{
		Balance: must(t)(ParseBalance("hash:ip")),
		Trusted: []netip.Prefix{netip.MustParsePrefix("127.0.0.1/32")},
	}, a.behind, b.behind)
	seen := map[string]bool{}
	for i := range 20 {
		from := fmt.Sprintf("X-Forwarded-For: 203.0.113.%d", i)
		first, c1 := px.reached(t, from)
		second, c2 := px.reached(t, from)
		c1.reset()
		c2.reset()
		if first != second {
			t.Errorf("%s went to %s and to %s", from, first, second)
		}
		seen[first] = true
	}
	if len(seen) != 2 {
		t.Errorf("all went to %v", seen)
	}
}

func TestUnknownBalancesAreRefused(t *testing.T) {
	for _, s := range []string{"", "random", "hash:", "hash:a b", "hash:a:b"} {
		if _, err := ParseBalance(s); err == nil {
			t.Errorf("%q was taken", s)
		}
	}
}

// free is an address on which nobody listens.
func free(t *testing.T) string {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	return ln.Addr().String()
}

func TestAFailedConnectIsTriedAtAnotherBackend(t *testing.T) {
	dead, a := free(t), labelledBackend(t, "a")
	px := serve(t, Config{
		Balance: must(t)(ParseBalance("round-robin")),
		Routes:  []Route{{To: []string{"ws://" + dead, "ws://" + a.addr}}},
	})
	check := px.calm(t)
	for range 10 {
		name, client := px.reached(t)
		client.reset()
		if name != "a" {
			t.Fatalf("%q was reached", name)
		}
	}
	if n := px.Stats().Retries; n == 0 || n > 3 {
		t.Errorf("%d retries: one that fails should come last for a while", n)
	}
	for _, b := range px.Backends() {
		if healthy := strings.Contains(b.URL, a.addr); b.Healthy != healthy {
			t.Errorf("%+v", b)
		}
	}
	check()
}

func TestWithoutABackendTheAnswerIs502(t *testing.T) {
	px := serve(t, Config{Routes: []Route{{To: []string{"ws://" + free(t), "ws://" + free(t)}}}})
	check := px.calm(t)
	for range 3 { // also when all are known to fail, one is tried
		if got := px.answerTo(t, request("/")); status(got) != "502" {
			t.Errorf("%q", got)
		}
	}
	px.waitClosed(t, ReasonNoBackend, 3)
	check()
}

func TestABackendThatComesBackIsUsedAgain(t *testing.T) {
	addr := free(t)
	px := serve(t, Config{Routes: []Route{{To: []string{"ws://" + addr}}}})
	if got := px.answerTo(t, request("/")); status(got) != "502" {
		t.Errorf("%q", got)
	}
	ln, err := net.Listen("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	b := labelledOn(t, ln, "back")
	if name, _ := px.reached(t); name != "back" || b.asked.Load() != 1 {
		t.Errorf("%q", name)
	}
	if !px.Backends()[0].Healthy {
		t.Error("it is still avoided")
	}
}

func TestHealthChecksDoARealHandshake(t *testing.T) {
	good := labelledBackend(t, "good")
	bad := newBehind(t)
	go func() {
		for c := range bad.conns {
			io.WriteString(c, "HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n")
			c.Close()
		}
	}()
	var log lockedLog
	px := serve(t, Config{HealthEvery: 20 * time.Millisecond, Log: log.logger()}, good.behind, bad)
	eventually(t, "the bad one is found", func() bool {
		for _, b := range px.Backends() {
			if b.Healthy != strings.Contains(b.URL, good.addr) {
				return false
			}
		}
		return good.asked.Load() > 1
	})
	for range 5 {
		if name, _ := px.reached(t); name != "good" {
			t.Errorf("%q was reached", name)
		}
	}
	if !strings.Contains(log.String(), `msg="a backend is not well" backend=ws://`+bad.addr) {
		t.Errorf("the log has\n%s", log.String())
	}
}

func TestAWrongAcceptIsFoundByTheHealthCheck(t *testing.T) {
	bad := newBehind(t)
	go func() {
		for c := range bad.conns {
			readHead(t, c)
			io.WriteString(c, "HTTP/1.1 101 X\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: AAAAAAAAAAAAAAAAAAAAAAAAAAA=\r\n\r\n")
		}
	}()
	px := serve(t, Config{HealthEvery: 20 * time.Millisecond}, bad)
	eventually(t, "it is found", func() bool { return !px.Backends()[0].Healthy })
}

func TestRoutesGoByTheLongestPrefix(t *testing.T) {
	a, b, c := labelledBackend(t, "a"), labelledBackend(t, "b"), labelledBackend(t, "c")
	px := serve(t, Config{Routes: []Route{
		{Prefix: "/a/", To: []string{"ws://" + a.addr}},
		{Prefix: "/a/deep/", To: []string{"ws://" + b.addr}},
		{Prefix: "/c", To: []string{"ws://" + c.addr}},
	}})
	for path, want := range map[string]string{"/a/": "a", "/a/x": "a", "/a/deep/x?y": "b", "/a/deeper": "a", "/c": "c", "/cc": "c"} {
		if name, _ := px.reachedAt(t, path); name != want {
			t.Errorf("%s went to %q, want %q", path, name, want)
		}
	}
	for _, path := range []string{"/", "/a", "/b/"} {
		if got := px.answerTo(t, request(path)); status(got) != "404" {
			t.Errorf("%s: %q", path, got)
		}
	}
}

func TestNewRoutesLeaveOpenTunnelsAlone(t *testing.T) {
	a, b := newBehind(t), labelledBackend(t, "b")
	px := serve(t, Config{}, a)
	client, backend := px.open(t, a)
	if err := px.SetRoutes([]Route{{To: []string{"ws://" + b.addr}}}); err != nil {
		t.Fatal(err)
	}
	if name, _ := px.reached(t); name != "b" {
		t.Errorf("%q was reached", name)
	}
	passes(client, backend)
	if err := px.SetRoutes([]Route{{To: []string{"tcp://" + b.addr}}}); err == nil {
		t.Error("bad routes were taken")
	}
	if name, _ := px.reached(t); name != "b" {
		t.Errorf("after bad routes, %q was reached", name)
	}
	client.close(1000, "")
	backend.wantClose(1000)
}

func TestBadRoutesAreRefusedInWords(t *testing.T) {
	for _, tt := range []struct {
		routes []Route
		want   string
	}{
		{nil, "there is no backend"},
		{[]Route{{}}, `route "/" has no backend`},
		{[]Route{{Prefix: "a", To: []string{"ws://h:1"}}}, `route "a": a path begins with /`},
		{[]Route{{To: []string{"127.0.0.1:8002"}}}, `backend "127.0.0.1:8002" is no URL like ws://127.0.0.1:8002`},
		{[]Route{{To: []string{"ws://"}}}, `backend "ws://" is no URL like ws://127.0.0.1:8002`},
		{[]Route{{To: []string{"tcp://127.0.0.1:1"}}}, `backend "tcp://127.0.0.1:1" is no URL like ws://127.0.0.1:8002`},
		{[]Route{{To: []string{"ws://127.0.0.1:1/base"}}}, "backend ws://127.0.0.1:1/base: only scheme, host and port; the path is the client's"},
		{[]Route{{To: []string{"ws://127.0.0.1:1", "ws://127.0.0.1:1/"}}}, `route "/": backend ws://127.0.0.1:1/ is there twice`},
		{[]Route{{To: []string{"ws://127.0.0.1:1"}}, {Prefix: "/", To: []string{"ws://127.0.0.1:2"}}}, `route "/" is there twice`},
	} {
		if _, err := New(Config{Routes: tt.routes}); err == nil || err.Error() != tt.want {
			t.Errorf("%v: %v, want %s", tt.routes, err, tt.want)
		}
	}
	if _, err := New(Config{Routes: []Route{{To: []string{"ws://no.such.host.invalid:1"}}}}); err == nil || !strings.Contains(err.Error(), "no.such.host.invalid") {
		t.Errorf("a name that is not there: %v", err)
	}
}

func TestATunnelCountsAtItsBackendUntilItsEnd(t *testing.T) {
	b := newBehind(t)
	px := serve(t, Config{}, b)
	client, backend := px.open(t, b)
	if got := px.Backends()[0].Tunnels; got != 1 {
		t.Errorf("%d", got)
	}
	client.close(ws.StatusNormalClosure, "")
	backend.wantClose(ws.StatusNormalClosure)
	backend.conn.Close()
	eventually(t, "none is counted", func() bool { return px.Backends()[0].Tunnels == 0 })
}
