package conform

import (
	"context"
	"crypto/tls"
	"io"
	"maps"
	"net"
	"net/http/httptest"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"wspoll/handshake"
	"wspoll/server"

	"github.com/gobwas/ws"
)

// patience is for the tests in which everything that must come comes.
const patience = 10 * time.Second

// ours is our own server with an echo, as it is without a word about it.
func ours(t *testing.T) *Target { return oursWith(t, server.Config{Loops: 2}) }

func oursWith(t *testing.T, cfg server.Config) *Target {
	t.Helper()
	s, err := server.New(cfg)
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
	target, err := ParseTarget("ws://"+addr.String()+"/echo", false)
	if err != nil {
		t.Fatal(err)
	}
	return target
}

// standIn is a server at path on a free port, until the test is over. talk is called with each connection, in a goroutine
// of its own, and closes it.
func standIn(t *testing.T, path string, talk func(net.Conn)) *Target {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	accepting(t, l, talk)
	target, err := ParseTarget("ws://"+l.Addr().String()+path, false)
	if err != nil {
		t.Fatal(err)
	}
	return target
}

// accepting takes the connections of l for talk, as in standIn.
func accepting(t *testing.T, l net.Listener, talk func(net.Conn)) {
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go talk(conn)
		}
	}()
}

// affordable are the cases that the race detector, which makes everything ten times slower, leaves time for: under it, not
// those that move megabytes.
func affordable(cases []Case) []Case {
	return slices.DeleteFunc(cases, func(c Case) bool { return raced && c.Heavy })
}

// modes are the ways in which our server compresses, and the cases that need what it then leaves out.
var modes = []struct {
	name string
	cfg  server.Config
	out  *regexp.Regexp
}{
	{"off", server.Config{Compress: server.CompressOff}, regexp.MustCompile("^rfc7692-")},
	// Every message begins anew in both directions.
	{"shared", server.Config{Compress: server.CompressShared}, regexp.MustCompile(`-takeover-ours-on-peer-(on|off)-refers$|-message-before$|` +
		`^rfc7692-7\.2\.3\.2-(shared-window|many-messages|window-slides|.*-between|.*enters?)$|-7\.2\.3\.4-window-over-final$|-7\.2\.3\.6-empty-between$`)},
	// It keeps 4 KiB of what a client sends.
	{"context", server.Config{Compress: server.CompressContext}, regexp.MustCompile("-7.1.2-window-1[345]-ours-(farthest|farthest-message-before|beyond)$")},
	{"context of 32 KiB", server.Config{Compress: server.CompressContext, Handshake: handshake.Options{Deflate: &handshake.DeflateOptions{}}}, regexp.MustCompile("^$")},
}

func TestOurServerPassesEveryCaseStrictly(t *testing.T) {
	cases := affordable(Cases(Server))
	for _, m := range modes {
		t.Run(m.name, func(t *testing.T) {
			cfg := m.cfg
			cfg.Loops = 2
			results := Run(t.Context(), oursWith(t, cfg), cases, Options{Timeout: patience, Parallel: 16}, nil)
			if len(results) != len(cases) {
				t.Errorf("%d results of %d cases", len(results), len(cases))
			}
			for i := range results {
				r := &results[i]
				if want := Verdict(b2i(m.out.MatchString(r.ID))); r.Verdict != want { // OK, Unimplemented
					t.Errorf("want %s: %s", want, text1(r))
				}
			}
		})
	}
}

// text1 is a result in full.
func text1(r *Result) string {
	var b strings.Builder
	r.text(&b)
	return b.String()
}

func TestCasesPassWhenAllIsCutIntoSmallSegments(t *testing.T) {
	cases, _ := Select(Cases(Server), []string{"rfc6455-4*", "rfc6455-5*", "rfc6455-7*"})
	for _, r := range Run(t.Context(), ours(t), cases, Options{Timeout: patience, Parallel: 16, Chop: 3}, nil) {
		if r.Verdict != OK {
			t.Errorf("%s", text1(&r))
		}
	}
}

func TestCasesPassWhereverTheyAreCut(t *testing.T) {
	every := 10 // all positions, 1, take minutes: wspoll conform --cut 1
	if raced {
		every = 60
	}
	cases := affordable(Cases(Server))
	// One loop: a pong beside then shows that the first part has been read.
	target := oursWith(t, server.Config{Compress: server.CompressContext, Handshake: handshake.Options{Deflate: &handshake.DeflateOptions{}}})
	began, runs := time.Now(), 0
	for _, r := range Run(t.Context(), target, cases, Options{Timeout: patience, Parallel: 8, Cut: every}, nil) {
		if runs += r.Runs; r.Verdict != OK || r.Runs == 0 {
			t.Errorf("%d runs, %s", r.Runs, text1(&r))
		}
	}
	t.Logf("%d cases, every %dth position: %d runs, %.1f s", len(cases), every, runs, time.Since(began).Seconds())
	if runs < 2*len(cases) {
		t.Errorf("%d runs of %d cases", runs, len(cases))
	}
}

// A server that takes each read for one whole frame is right until its bytes are cut.
func TestAServerThatDependsOnHowBytesArriveIsCaughtByCutting(t *testing.T) {
	target := standIn(t, "/", func(conn net.Conn) {
		defer conn.Close()
		b := make([]byte, 4096)
		var req handshake.Request
		var ans handshake.Answer
		n, _ := conn.Read(b)
		if handshake.ParseRequest(b[:n], nil, &req); handshake.Check(&req, nil, &ans) != nil {
			return
		}
		conn.Write(handshake.AppendAnswer(nil, &ans, nil))
		for {
			n, err := conn.Read(b)
			if err != nil || n < 6 {
				return
			}
			f := b[:n]
			ws.Cipher(f[6:], [4]byte(f[2:6]), 0)
			if f[0] == fin|ping {
				f[0] = fin | pong
			}
			conn.Write(append([]byte{f[0], byte(n - 6)}, f[6:]...))
			if f[0] == fin|closing {
				return
			}
		}
	})
	cases, _ := Select(Cases(Server), []string{"rfc6455-5.6-text-8"})
	for cutting, want := range map[int]Verdict{0: OK, 1: Failed} {
		r := Run(t.Context(), target, cases, Options{Timeout: 500 * time.Millisecond, Cut: cutting}, nil)[0]
		if r.Verdict != want || want == Failed && !strings.HasPrefix(r.Why(), "when what was sent was cut behind byte ") {
			t.Errorf("cut %d: %s", cutting, text1(&r))
		}
	}
}

func TestCutsAreAllPositionsOfWhatIsShort(t *testing.T) {
	for n, want := range map[int]int{0: 0, 1: 0, 2: 1, 3: 2, cutAll: cutAll - 1, cutAll + 1: cutBegin + cutBetOne + cutEnd, cutHuge: cutBegin + cutBetOne + cutEnd, 16 << 20: 9} {
		at := cuts(n)
		if len(at) != want || !slices.IsSorted(at) || len(slices.Compact(slices.Clone(at))) != want || want > 0 && (at[0] != 1 || at[want-1] != n-1) {
			t.Errorf("%d bytes: %d cuts %v", n, len(at), at)
		}
	}
}

func TestIDsAreUniqueSortedAndOfOneForm(t *testing.T) {
	form := regexp.MustCompile(`^rfc(6455|7692)-[0-9]+(\.[0-9]+)*-[a-z0-9]+([-.][a-z0-9]+)*$`)
	for _, peer := range []Peer{Server, Client} {
		seen := map[string]bool{}
		cases := Cases(peer)
		for i, c := range cases {
			switch {
			case seen[c.ID]:
				t.Errorf("%s is there twice", c.ID)
			case !form.MatchString(c.ID):
				t.Errorf("%s is not made as ids are", c.ID)
			case c.Run == nil || !strings.HasSuffix(c.Sentence, "."):
				t.Errorf("%s does nothing or says nothing: %q", c.ID, c.Sentence)
			case i > 0 && compareIDs(cases[i-1].ID, c.ID) >= 0:
				t.Errorf("%s does not come after %s", c.ID, cases[i-1].ID)
			}
			seen[c.ID] = true
		}
	}
	for prefix, least := range map[string]int{"rfc6455-": 350, "rfc7692-": 150} {
		for _, peer := range []Peer{Server, Client} {
			if n := len(slices.DeleteFunc(Cases(peer), func(c Case) bool { return !strings.HasPrefix(c.ID, prefix) })); n < least {
				t.Errorf("there are %d cases %s, want %d at least", n, prefix, least)
			}
		}
	}
}

func TestSectionsAreInTheOrderOfTheRFC(t *testing.T) {
	var order []string
	for _, c := range Cases(Server) {
		if n := len(order); n == 0 || order[n-1] != c.Section() {
			order = append(order, c.Section())
		}
	}
	at := func(s string) int { return slices.Index(order, "RFC 6455 §"+s) }
	for _, p := range [][2]string{{"3", "4.1"}, {"4.2.1", "4.2.2"}, {"5.2", "5.3"}, {"5.5", "5.5.1"}, {"8.1", "9.1"}, {"9.1", "10.2"}, {"10.2", "10.4"}} {
		if at(p[0]) < 0 || at(p[0]) >= at(p[1]) {
			t.Errorf("§%s is at %d and §%s at %d of %q", p[0], at(p[0]), p[1], at(p[1]), order)
		}
	}
}

func TestSelectTakesGlobs(t *testing.T) {
	all := Cases(Server)
	some, bad := Select(all, []string{"rfc6455-5.3-*", "rfc6455-4.1-plain"})
	if bad != "" || len(some) != 6 || some[0].ID != "rfc6455-4.1-plain" {
		t.Errorf("%d cases, bad %q", len(some), bad)
	}
	for _, glob := range []string{"rfc6455-99*", "[", ""} {
		if _, bad := Select(all, []string{"*", glob}); bad != glob {
			t.Errorf("glob %q: bad %q", glob, bad)
		}
	}
	if same, _ := Select(all, nil); len(same) != len(all) {
		t.Errorf("no glob selects %d of %d", len(same), len(all))
	}
}

func TestEchoServerOfTheTestsIsRight(t *testing.T) {
	target := (&echoServer{}).start(t)
	cases, _ := Select(Cases(Server), []string{"rfc6455-4*", "rfc6455-5*", "rfc6455-7*", "rfc6455-8*", "rfc6455-9*"})
	for _, r := range Run(t.Context(), target, cases, Options{Timeout: patience, Parallel: 8}, nil) {
		if r.Verdict != OK {
			t.Errorf("%s", text1(&r))
		}
	}
}

func TestMutantsAreCaught(t *testing.T) { catch(t, mutants) }

func catch(t *testing.T, mutants []mutant) {
	for _, m := range mutants {
		t.Run(m.name, func(t *testing.T) {
			t.Parallel()
			cases, bad := Select(Cases(Server), m.caught)
			if bad != "" {
				t.Fatalf("there is no case %s", bad)
			}
			cases = affordable(cases)
			// Silence is what some of them are about: it has to be waited for.
			silence := 500 * time.Millisecond
			if raced {
				silence *= 6
			}
			results := Run(t.Context(), m.server.start(t), cases, Options{Timeout: silence, Parallel: 4}, nil)
			if len(results) != len(cases) || len(cases) == 0 || !raced && len(cases) != len(m.caught) {
				t.Fatalf("%d results for %d cases", len(results), len(m.caught))
			}
			for _, r := range results {
				switch {
				case r.Verdict != m.as:
					t.Errorf("verdict %s, want %s\n%s", r.Verdict, m.as, text1(&r))
				case r.Why() == "" || len(r.Transcript) == 0 || len(r.Explained) == 0:
					t.Errorf("%s does not say why, or what was said: %+v", r.ID, r)
				}
			}
		})
	}
}

func TestAServerWithASmallLimitIsOKAndSaysSo(t *testing.T) {
	cases, _ := Select(Cases(Server), []string{"rfc6455-10.4-text-*", "rfc6455-10.4-binary-*"})
	words := map[string]int{}
	for _, r := range Run(t.Context(), (&echoServer{limit: 300 << 10}).start(t), cases, Options{Timeout: patience, Parallel: 4}, nil) {
		if r.Verdict != OK {
			t.Errorf("%s", text1(&r))
		}
		for _, m := range r.Remarks {
			words[m.Text]++
		}
	}
	if words["16777216 bytes are too large for the peer"] == 0 || words["262144 bytes are too large for the peer"] != 0 {
		t.Errorf("remarks %v", slices.Sorted(maps.Keys(words)))
	}
}

func TestCasesRunOverTLS(t *testing.T) {
	plain := ours(t)
	// A certificate and a listener of net/http/httptest; behind it a pipe to our server.
	front := httptest.NewUnstartedServer(nil)
	front.StartTLS()
	cert := front.TLS.Certificates
	front.Close()
	l, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: cert})
	if err != nil {
		t.Fatal(err)
	}
	accepting(t, l, func(conn net.Conn) {
		defer conn.Close()
		back, err := net.Dial("tcp", plain.Addr)
		if err != nil {
			return
		}
		defer back.Close()
		go func() {
			io.Copy(back, conn)
			back.(*net.TCPConn).CloseWrite()
		}()
		io.Copy(conn, back)
	})
	url := "wss://" + l.Addr().String() + plain.Path
	target, err := ParseTarget(url, true)
	if err != nil {
		t.Fatal(err)
	}
	cases, _ := Select(Cases(Server), []string{"rfc6455-4.1-*", "rfc6455-4.2.1-1-*", "rfc6455-5*", "rfc6455-7.1.5-tcp-ends*"})
	for _, r := range Run(t.Context(), target, cases, Options{Timeout: patience, Parallel: 4}, nil) {
		if r.Verdict != OK {
			t.Errorf("%s", text1(&r))
		}
	}
	careful, _ := ParseTarget(url, false)
	if err := Probe(t.Context(), careful, Options{Timeout: patience}); err == nil || !strings.Contains(err.Error(), "certificate") {
		t.Errorf("error %v for a certificate that nobody signed", err)
	}
}

func TestACancelledRunReturnsWhatItHas(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cases := Cases(Server)
	n := 0
	results := Run(ctx, ours(t), cases, Options{Timeout: patience, Parallel: 2}, func(*Result) {
		if n++; n == 20 {
			cancel()
		}
	})
	if len(results) < 20 || len(results) > 25 {
		t.Errorf("%d results after a cancel at 20", len(results))
	}
}

func TestASubprotocolOfAHeaderIsOffered(t *testing.T) {
	cases, _ := Select(Cases(Server), []string{"rfc6455-4.1-plain"})
	o := Options{Timeout: patience, Header: []string{"Sec-WebSocket-Protocol: chat, superchat"}}
	if r := Run(t.Context(), (&echoServer{}).start(t), cases, o, nil)[0]; r.Verdict != OK {
		t.Errorf("%s", text1(&r))
	}
}

func TestProbeSaysInOneLineWhatIsWrong(t *testing.T) {
	target := ours(t)
	if err := Probe(t.Context(), target, Options{Timeout: patience}); err != nil {
		t.Error(err)
	}
	elsewhere := *target
	elsewhere.Path, elsewhere.URL = "/nowhere", target.URL+"/nowhere"
	if err := Probe(t.Context(), &elsewhere, Options{Timeout: patience}); err == nil || !strings.Contains(err.Error(), "it answers 404") {
		t.Errorf("error %v for a path without an echo", err)
	}
	for reason, want := range map[string]string{" a\u009b31mb\xff": "it answers 404 a\ufffd31mb\ufffd; a URL", " ": "it answers 404; a URL"} {
		rude := standIn(t, "/", func(conn net.Conn) {
			defer conn.Close()
			conn.Read(make([]byte, 4<<10))
			io.WriteString(conn, "HTTP/1.1 404"+reason+"\r\nContent-Length: 0\r\n\r\n")
		})
		if err := Probe(t.Context(), rude, Options{Timeout: patience}); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("reason %q: error %q, want %q", reason, err, want)
		}
	}
	nobody := *target
	nobody.Addr = "127.0.0.1:1"
	if err := Probe(t.Context(), &nobody, Options{Timeout: patience}); err == nil || !strings.Contains(err.Error(), "cannot connect") {
		t.Errorf("error %v where nobody listens", err)
	}
}

func TestTargetsAreURLsOfWebSockets(t *testing.T) {
	for _, tt := range []struct{ url, addr, path string }{
		{"ws://example.com", "example.com:80", "/"},
		{"ws://example.com:8002/a?b=c", "example.com:8002", "/a?b=c"},
		{"wss://example.com/a", "example.com:443", "/a"},
		{"ws://[::1]:8002/", "[::1]:8002", "/"},
	} {
		target, err := ParseTarget(tt.url, true)
		if err != nil || target.Addr != tt.addr || target.Path != tt.path || (target.TLS != nil) != strings.HasPrefix(tt.url, "wss") {
			t.Errorf("%s: %+v, %v", tt.url, target, err)
		}
	}
	for _, url := range []string{"", "example.com", "http://example.com", "ws://", "ws://a/b#c", "ws://u@a/", "ws://a:b/", "%"} {
		if _, err := ParseTarget(url, false); err == nil {
			t.Errorf("%q was taken", url)
		}
	}
}
