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

	"wspoll/server"
)

// patience is for the tests in which everything that must come comes.
const patience = 10 * time.Second

// ours is our own server with an echo.
func ours(t *testing.T) *Target {
	t.Helper()
	s, err := server.New(server.Config{Loops: 2})
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

func TestOurServerPassesEveryCaseStrictly(t *testing.T) {
	cases := Cases(Server)
	results := Run(t.Context(), ours(t), cases, Options{Timeout: patience, Parallel: 16}, nil)
	if len(results) != len(cases) {
		t.Errorf("%d results of %d cases", len(results), len(cases))
	}
	for i := range results {
		if r := &results[i]; r.Verdict != withoutDeflate(r.ID) {
			t.Errorf("%s", text1(r))
		}
	}
}

// withoutDeflate is the verdict of a server that is right and does not negotiate permessage-deflate.
func withoutDeflate(id string) Verdict {
	if strings.HasPrefix(id, "rfc7692-") {
		return Unimplemented
	}
	return OK
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
			// Silence is what some of them are about: it has to be waited for.
			results := Run(t.Context(), m.server.start(t), cases, Options{Timeout: 500 * time.Millisecond, Parallel: 4}, nil)
			if len(results) != len(m.caught) {
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
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
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
			}()
		}
	}()
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
