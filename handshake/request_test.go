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

// rfcRequest is the request of RFC 6455 §1.3.
const rfcRequest = "GET /chat HTTP/1.1\r\n" +
	"Host: server.example.com\r\n" +
	"Upgrade: websocket\r\n" +
	"Connection: Upgrade\r\n" +
	"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n" +
	"Origin: http://example.com\r\n" +
	"Sec-WebSocket-Protocol: chat, superchat\r\n" +
	"Sec-WebSocket-Version: 13\r\n\r\n"

func mustParse(t *testing.T, head string) *Request {
	t.Helper()
	req := new(Request)
	n, err := ParseRequest([]byte(head), nil, req)
	if err != nil || n != len(head) {
		t.Fatalf("%q: %d of %d bytes, error %v", head, n, len(head), err)
	}
	return req
}

// refusal asserts that err is a *Refusal of this status and gives it.
func refusal(t *testing.T, err error, status int) *Refusal {
	t.Helper()
	var r *Refusal
	if !errors.As(err, &r) {
		t.Fatalf("got %v, want a refusal with %d", err, status)
	}
	if r.Status != status {
		t.Fatalf("got %v, want %d", err, status)
	}
	return r
}

func TestTheRequestOfTheRFCIsTakenApart(t *testing.T) {
	req := mustParse(t, rfcRequest)
	got := []string{
		string(req.Method), string(req.Target), string(req.Path), string(req.Query), string(req.Host), string(req.Origin),
		string(req.Key), string(req.Version), string(req.Protocols), string(req.Extensions),
	}
	want := []string{
		"GET", "/chat", "/chat", "", "server.example.com", "http://example.com",
		"dGhlIHNhbXBsZSBub25jZQ==", "13", "chat, superchat", "",
	}
	if !reflect.DeepEqual(got, want) || req.Minor != 1 || req.Extensions != nil {
		t.Errorf("got %q, HTTP/1.%d, want %q", got, req.Minor, want)
	}
}

func TestEveryTruncationOfAGoodHeadNeedsMore(t *testing.T) {
	for _, head := range []string{rfcRequest, chromium, EmptyLine + rfcRequest} {
		var req Request
		for i := range len(head) {
			if n, err := ParseRequest([]byte(head[:i]), nil, &req); n != 0 || err != nil {
				t.Fatalf("%q: %d, %v", head[:i], n, err)
			}
		}
	}
}

func TestOneEmptyLineBeforeTheRequestLineIsIgnored(t *testing.T) {
	plain, behind := mustParse(t, rfcRequest), mustParse(t, EmptyLine+rfcRequest)
	if !reflect.DeepEqual(plain, behind) {
		t.Errorf("%+v, and behind an empty line %+v", plain, behind)
	}
	// It counts as part of the head.
	for limit, fits := range map[int]bool{len(rfcRequest) + 2: true, len(rfcRequest) + 1: false} {
		n, err := ParseRequest([]byte(EmptyLine+rfcRequest), &Limits{Head: limit}, new(Request))
		if fits != (n == len(rfcRequest)+2 && err == nil) {
			t.Errorf("limit %d: %d, %v", limit, n, err)
		}
	}
}

func TestBytesAfterTheHeadAreLeftAlone(t *testing.T) {
	for _, after := range []string{"\x81\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58", "\r\n\r\n", "\x00", "GET / HTTP/9.9\r\n", strings.Repeat("x", DefaultHead)} {
		b := []byte(rfcRequest + after)
		var req Request
		n, err := ParseRequest(b, nil, &req)
		if err != nil || n != len(rfcRequest) || string(b[n:]) != after {
			t.Errorf("before %q: %d, %v", after, n, err)
		}
	}
}

func TestARequestAliasesItsBytesAndCanBeReused(t *testing.T) {
	b := []byte(rfcRequest)
	var req Request
	if _, err := ParseRequest(b, nil, &req); err != nil {
		t.Fatal(err)
	}
	copy(b, "PUT /TALK")
	if string(req.Method) != "PUT" || string(req.Path) != "/TALK" {
		t.Errorf("copied: %s %s", req.Method, req.Path)
	}
	for i := range b {
		b[i] = 0xAA
	}
	if _, err := ParseRequest([]byte("GET / HTTP/1.0\r\n\r\n"), nil, &req); err != nil {
		t.Fatal(err)
	}
	if v, n := req.Get("Origin"); req.Key != nil || req.Host != nil || v != nil || n != 0 || req.count != [fieldCount]int{} {
		t.Errorf("left over: %+v", req)
	}
}

func TestTargetsOfEachForm(t *testing.T) {
	const none = "-"
	for _, c := range []struct{ method, target, path, query, host string }{
		{"GET", "/", "/", "", "h"},
		{"GET", "/a/b?x=1&y=?2", "/a/b", "x=1&y=?2", "h"},
		{"GET", "/?", "/", "", "h"},
		{"GET", "/%2e%2e/%00", "/%2e%2e/%00", "", "h"},
		{"GET", "//double", "//double", "", "h"},
		{"GET", "http://example.com/chat?q", "/chat", "q", "example.com"},
		{"GET", "HTTPS://Example.com:8443/chat", "/chat", "", "Example.com:8443"},
		{"GET", "http://example.com", "/", "", "example.com"},
		{"GET", "http://[::1]:80?q", "/", "q", "[::1]:80"},
		{"OPTIONS", "*", "*", "", "h"},
		{"CONNECT", "example.com:443", "", "", "h"},
		{"GET", "/a#b", none, "", ""},
		{"GET", "chat", none, "", ""},
		{"GET", "ws://example.com/", none, "", ""},
		{"GET", "http://", none, "", ""},
		{"GET", "https://", none, "", ""},
		{"GET", "http:///chat", none, "", ""},
		{"GET", "http://user@example.com/", none, "", ""},
		{"GET", "http://example.com:8o/", none, "", ""},
	} {
		var req Request
		_, err := ParseRequest([]byte(c.method+" "+c.target+" HTTP/1.1\r\nHost: h\r\n\r\n"), nil, &req)
		if c.path == none {
			refusal(t, err, 400)
			continue
		}
		if err != nil || string(req.Path) != c.path || string(req.Query) != c.query || string(req.Host) != c.host || string(req.Target) != c.target {
			t.Errorf("%s %s: path %q, query %q, host %q, %v", c.method, c.target, req.Path, req.Query, req.Host, err)
		}
	}
}

func TestMalformedHeadsAreRefusedAtTheFirstByteThatShowsIt(t *testing.T) {
	const line = "GET / HTTP/1.1\r\n"
	for _, c := range []struct {
		name   string
		head   string // ends with the byte that shows the fault
		status int
		says   string
	}{
		{"TLS", "\x16", 400, "wss://"},
		{"a zero byte", "\x00", 400, "0x00"},
		{"a frame instead of a request", "\x81", 400, "0x81"},
		{"two empty lines before the request line", "\r\n\r\n", 400, "begins with a method"},
		{"a CR and no LF before the request line", "\rG", 400, "0x0d"},
		{"a TLS record behind an empty line", "\r\n\x16", 400, "wss://"},
		{"an LF behind an empty line", "\r\n\n", 400, "begins with a method"},
		{"an LF before the request line", "\n", 400, "begins with a method"},
		{"white space before the method", " ", 400, "0x20"},
		{"no target", "GET\r\n", 400, "begins with a method"},
		{"a method that is no token", "GET:", 400, "begins with a method"},
		{"a tab after the method", "GET\t", 400, "begins with a method"},
		{"two spaces before the target", "GET  ", 400, "no target"},
		{"a method, a space and the end", "GET \r\n", 400, "no target"},
		{"no version", "GET /\r\n", 400, "without an HTTP version"},
		{"a control byte in the target", "GET /\x07", 400, "0x07"},
		{"a byte that should be percent-encoded", "GET /\xc3", 400, "0xc3"},
		{"a CR in the target", "GET /\rX", 400, "0x0d"},
		{"two spaces before the version", "GET /  ", 400, "HTTP/1.1"},
		{"another protocol", "GET / I", 400, "HTTP/1.1"},
		{"a version in lower case", "GET / h", 400, "HTTP/1.1"},
		{"a version without a minor", "GET / HTTP/1\r\n", 400, "HTTP/1.1"},
		{"a minor version of no digit", "GET / HTTP/1.x", 400, "HTTP/1.1"},
		{"an empty version", "GET / \r\n", 400, "HTTP/1.1"},
		{"a long version", "GET / HTTP/1.10", 400, "goes on"},
		{"four parts", "GET / HTTP/1.1 ", 400, "goes on"},
		{"HTTP/2 with prior knowledge", "PRI * HTTP/2", 505, "HTTP/1.1 only"},
		{"HTTP/0.9 with a version", "GET / HTTP/0", 505, "HTTP/1.1 only"},
		{"an LF alone after the request line", "GET / HTTP/1.1\n", 400, "LF without CR"},
		{"a bad form of target", "GET chat HTTP/1.1\r\n", 400, "neither a path"},
		{"an LF alone after a header line", line + "Host: a\n", 400, "LF without CR"},
		{"an LF alone as the empty line", line + "Host: a\r\n\n", 400, "LF without CR"},
		{"a CR within a value", line + "Host: a\rb", 400, "0x0d"},
		{"two CRs", line + "Host: a\r\r", 400, "0x0d"},
		{"a zero byte in a value", line + "X-Y: a\x00", 400, `value of header "X-Y"`},
		{"DEL in a value", line + "X-Y: \x7f", 400, "0x7f"},
		{"a folded first line", line + " ", 400, "folded"},
		{"a folded line", line + "Host: a\r\n\t", 400, "folded"},
		{"a space before the colon", line + "Host ", 400, `"Host"`},
		{"a tab before the colon", line + "Host\t", 400, `"Host"`},
		{"no name", line + ":", 400, "no name"},
		{"no colon", line + "Host\r\n", 400, "no colon"},
		{"a name that is no token", line + "Ho(", 400, "0x28"},
		{"a name that is not ASCII", line + "H\xc3", 400, "0xc3"},
		{"no Host", line + "X: y\r\n\r\n", 400, "missing"},
		{"two Hosts", line + "Host: a\r\nhost: a\r\n\r\n", 400, "more than one Host"},
		{"two Hosts for HTTP/1.0", "GET / HTTP/1.0\r\nHost: a\r\nhost: a\r\n\r\n", 400, "more than one Host"},
		{"a Host with a path", line + "Host: a/b\r\n\r\n", 400, "not a host"},
		{"a Host with a user", line + "Host: u@a\r\n\r\n", 400, "not a host"},
		{"a list of Hosts", line + "Host: a, b\r\n\r\n", 400, "not a host"},
	} {
		t.Run(c.name, func(t *testing.T) {
			var req Request
			for i := range len(c.head) {
				if n, err := ParseRequest([]byte(c.head[:i]), nil, &req); n != 0 || err != nil {
					t.Fatalf("early, %q: %d, %v", c.head[:i], n, err)
				}
			}
			n, err := ParseRequest([]byte(c.head), nil, &req)
			r := refusal(t, err, c.status)
			if n != 0 || !strings.Contains(r.Msg, c.says) || r.Section == "" {
				t.Errorf("%d, %v, want %q", n, err, c.says)
			}
			for _, more := range []string{"\n", "\r\n", " HTTP/1.1\r\nHost: a\r\n\r\n", "\x03\x01"} {
				if _, again := ParseRequest([]byte(c.head+more), nil, &req); !reflect.DeepEqual(again, err) {
					t.Errorf("with %q after it: %v, before it: %v", more, again, err)
				}
			}
		})
	}
}

func TestOddButGoodHeadsAreAccepted(t *testing.T) {
	for _, head := range []string{
		"GET / HTTP/1.0\r\n\r\n",
		"GET / HTTP/1.9\r\nHost: a\r\n\r\n",
		"GET / HTTP/1.1\r\nHost:\r\n\r\n",
		"GET / HTTP/1.1\r\nHost:a:\r\n\r\n",
		"GET / HTTP/1.1\r\nHost: [2001:db8::1]:8080\r\n\r\n",
		"GET / HTTP/1.1\r\nHOST:\t a:1 \t\r\nX-Text: gr\xc3\xbc\xc3\x9fe \xff\tand\ttabs\r\n!#$%&'*+-.^_`|~1aZ: x\r\n\r\n",
		"QUERY-ME! / HTTP/1.1\r\nHost: a\r\n\r\n",
		"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n",
		"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n",
	} {
		mustParse(t, head)
	}
}

func TestLimitsAreExactAndReportedEarly(t *testing.T) {
	head := "GET /12345 HTTP/1.1\r\nHost: a\r\nX: y\r\n\r\n"
	for _, c := range []struct {
		name  string
		lim   Limits
		shows int // bytes that show the fault, 0: none does
		want  int
	}{
		{"none", Limits{}, 0, 0},
		{"head as long as the limit", Limits{Head: len(head)}, 0, 0},
		{"head a byte longer", Limits{Head: len(head) - 1}, len(head) - 1, 431},
		{"target as long as the limit", Limits{Target: 6}, 0, 0},
		{"target a byte longer", Limits{Target: 5}, len("GET /12345"), 414},
		{"as many lines as the limit", Limits{Headers: 2}, 0, 0},
		{"a line more", Limits{Headers: 1}, len("GET /12345 HTTP/1.1\r\nHost: a\r\nX"), 431},
	} {
		t.Run(c.name, func(t *testing.T) {
			var req Request
			for i := range len(head) + 1 {
				n, err := ParseRequest([]byte(head[:i]), &c.lim, &req)
				switch {
				case c.shows > 0 && i >= c.shows:
					if r := refusal(t, err, c.want); n != 0 || r.Section == "" {
						t.Fatalf("after %d bytes: %d, %v", i, n, err)
					}
				case err != nil || (n == len(head)) != (i == len(head)):
					t.Fatalf("after %d bytes: %d, %v", i, n, err)
				}
			}
		})
	}
}

func TestTheDefaultLimitsHold(t *testing.T) {
	var req Request
	_, err := ParseRequest([]byte("GET /"+strings.Repeat("a", DefaultTarget)), nil, &req)
	refusal(t, err, 414)
	_, err = ParseRequest([]byte("GET / HTTP/1.1\r\nCookie: "+strings.Repeat("a", DefaultHead)), nil, &req)
	refusal(t, err, 431)
	_, err = ParseRequest([]byte("GET / HTTP/1.1\r\n"+strings.Repeat("A:b\r\n", DefaultHeaders+1)), nil, &req)
	refusal(t, err, 431)
	_, err = ParseRequest([]byte(strings.Repeat("A", DefaultHead)), nil, &req)
	refusal(t, err, 431)
	mustParse(t, "GET / HTTP/1.1\r\nHost: a\r\n"+strings.Repeat("A:b\r\n", DefaultHeaders-1)+"\r\n")
}

func TestWhoMeansAWebSocket(t *testing.T) {
	for _, c := range []struct {
		lines string
		want  bool
	}{
		{"", false},
		{"Upgrade: websocket\r\n", true},
		{"Upgrade: WebSocket\r\n", true},
		{"upgrade: h2c , websocket\r\n", true},
		{"Upgrade: HTTP/2.0, websocket\r\n", true},
		{"Upgrade: h2c\r\nUpgrade: websocket\r\n", true},
		{"Upgrade: websocket\r\nUpgrade: h2c\r\n", true},
		{"Upgrade: h2c\r\n", false},
		{"Upgrade:\r\n", false},
		{"Upgrade: websockets\r\n", false},
		{"Upgrade: websocket/13\r\n", false},
		{"Upgrade: web\u017focket\r\n", false},
		{"X-Upgrade: websocket\r\n", false},
	} {
		req := mustParse(t, "POST / HTTP/1.1\r\nHost: a\r\n"+c.lines+"\r\n")
		if req.WantsWebSocket() != c.want {
			t.Errorf("%q: %v", c.lines, !c.want)
		}
	}
}

func TestBodiesAreNoticed(t *testing.T) {
	for _, c := range []struct {
		lines string
		want  bool
	}{
		{"", false},
		{"Content-Length: 0\r\n", false},
		{"Content-Length: 0\r\nContent-Length: 0\r\n", false},
		{"Content-Length: 1\r\n", true},
		{"Content-Length: 0\r\ncontent-length: 7\r\n", true},
		{"Content-Length: 0, 7\r\n", true},
		{"Content-Length:\r\n", true},
		{"Transfer-Encoding: chunked\r\n", true},
		{"transfer-encoding: identity\r\n", true},
	} {
		if got := mustParse(t, "GET / HTTP/1.1\r\nHost: a\r\n"+c.lines+"\r\n").HasBody(); got != c.want {
			t.Errorf("%q: %v", c.lines, got)
		}
	}
}

func TestRefusalsOfAHeadCarryTheErrorOfGobwas(t *testing.T) {
	var req Request
	for head, want := range map[string]error{
		"GET / HTTP/2.0":                             ws.ErrHandshakeBadProtocol,
		"GET / HTTP/1.1\r\n\r\n":                     ws.ErrHandshakeBadHost,
		"GET / HTTP/1.1\n":                           ws.ErrMalformedRequest,
		"GET / HTTP/1.1\r\nA: b\x00":                 ws.ErrMalformedRequest,
		"GET / HTTP/1.1\r\nHost:a\r\nHost:b\r\n\r\n": ws.ErrHandshakeBadHost,
	} {
		if _, err := ParseRequest([]byte(head), nil, &req); !errors.Is(err, want) {
			t.Errorf("%q: %v, want %v", head, err, want)
		}
	}
}

func requestSeeds(f *testing.F) {
	for _, s := range []string{
		rfcRequest, EmptyLine + rfcRequest, chromium, "", "\x16\x03\x01", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "GET http://a:1?x HTTP/1.1\r\nHost: b\r\n\r\n",
		"OPTIONS * HTTP/1.0\r\n\r\n", "CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\n\r\n", "GET / HTTP/1.1\nHost: a\n\n",
		"GET / HTTP/1.1\r\nHost: a\r\n folded\r\n\r\n", "POST /%zz HTTP/1.1\r\nHost:a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
		"GET / HTTP/1.1\r\nHost: a\r\nX: \t1\r\nx:2 \r\nConnection: a, b\r\nUpgrade: websocket\r\n\r\n\x81\x00",
	} {
		f.Add([]byte(s))
	}
}

// FuzzRequest compares with net/http whatever both accept. Ours may refuse more.
func FuzzRequest(f *testing.F) {
	requestSeeds(f)
	f.Fuzz(func(t *testing.T, b []byte) {
		in := bytes.Clone(b)
		var req Request
		n, err := ParseRequest(b, nil, &req)
		if !bytes.Equal(in, b) {
			t.Fatal("the input was changed")
		}
		if n < 0 || n > len(b) || err != nil && n != 0 {
			t.Fatal(n, err)
		}
		var ans Answer
		if n == 0 {
			return
		}
		if refused := Check(&req, nil, &ans); refused == nil && !req.WantsWebSocket() {
			t.Fatal("accepted what is no handshake")
		}
		theirs, err := http.ReadRequest(bufio.NewReader(bytes.NewReader(bytes.TrimPrefix(b[:n], []byte(EmptyLine)))))
		if err != nil {
			return
		}
		if theirs.Method != string(req.Method) || theirs.RequestURI != string(req.Target) {
			t.Fatalf("%s %s, net/http: %s %s", req.Method, req.Target, theirs.Method, theirs.RequestURI)
		}
		if theirs.ProtoMajor != 1 || theirs.ProtoMinor != req.Minor {
			t.Fatalf("HTTP/1.%d, net/http: %s", req.Minor, theirs.Proto)
		}
		// For CONNECT net/http takes the host from the target, and it unescapes hosts.
		if string(req.Method) != "CONNECT" && !bytes.Contains(req.Host, []byte("%")) && theirs.Host != string(req.Host) {
			t.Fatalf("host %q, net/http: %q", req.Host, theirs.Host)
		}
		if p := theirs.URL.EscapedPath(); p == string(theirs.URL.Path) && string(req.Method) != "CONNECT" && p != string(req.Path) && p != "" {
			t.Fatalf("path %q, net/http: %q", req.Path, p)
		}
		ours := http.Header{}
		for name, value := range req.All {
			ours.Add(string(name), string(value))
			if v, count := req.Get(string(name)); count == 0 || string(v) != ours.Get(string(name)) {
				t.Fatalf("Get(%q): %q, %d times", name, v, count)
			}
		}
		// net/http moves these to fields of its own, or adds them.
		for _, name := range []string{"Host", "Transfer-Encoding", "Content-Length", "Trailer", "Cache-Control"} {
			delete(ours, name)
			delete(theirs.Header, name)
		}
		if !reflect.DeepEqual(ours, theirs.Header) {
			t.Fatalf("fields %q, net/http: %q", ours, theirs.Header)
		}
	})
}

// FuzzRequestChunks feeds every prefix: the first result that is not "more" is the result of the whole.
func FuzzRequestChunks(f *testing.F) {
	requestSeeds(f)
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) > 600 {
			return // each prefix is parsed: keep the square small
		}
		for _, lim := range []*Limits{nil, {Head: 64, Target: 8, Headers: 2}} {
			var whole, part Request
			n, err := ParseRequest(b, lim, &whole)
			for i := range len(b) + 1 {
				m, e := ParseRequest(b[:i], lim, &part)
				if m == 0 && e == nil {
					continue
				}
				if m != n || !reflect.DeepEqual(e, err) {
					t.Fatalf("after %d of %d bytes: %d, %v; whole: %d, %v", i, len(b), m, e, n, err)
				}
				if n > 0 && !reflect.DeepEqual(part, whole) {
					t.Fatalf("part %+v, whole %+v", part, whole)
				}
			}
		}
	})
}
