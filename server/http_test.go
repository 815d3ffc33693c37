package server

import (
	"bufio"
	"bytes"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"wspoll/handshake"

	"github.com/gobwas/ws"
)

func TestListNamesTheEndpoints(t *testing.T) {
	s := serve(t, Config{}, map[string]*Endpoint{"/other": {About: "does <nothing>"}, "/unlisted": {}})
	r, body := s.answer(t, "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
	if r.StatusCode != 200 || r.Header.Get("Content-Type") != "text/plain; charset=utf-8" {
		t.Errorf("%s %v", r.Status, r.Header)
	}
	for _, want := range []string{"/echo", "/other          does <nothing>\n"} {
		if !strings.Contains(body, want) {
			t.Errorf("the list does not have %q: %q", want, body)
		}
	}
	if strings.Contains(body, "/unlisted") {
		t.Errorf("an endpoint without words is listed: %q", body)
	}
}

func TestWireBytesAreThoseOfTheConnection(t *testing.T) {
	type count struct {
		conn    uint64
		in, out int64
		ok      bool
	}
	counts := make(chan count, 2)
	s := serve(t, Config{}, nil)
	s.Mux().HandleFunc("POST /count", func(w http.ResponseWriter, r *http.Request) {
		io.Copy(io.Discard, r.Body)
		var c count
		c.conn, c.in, c.out, c.ok = WireBytes(r)
		counts <- c
		io.WriteString(w, "ok")
	})
	request := "POST /count HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello"
	conn := s.dial(t)
	in, out := int64(0), int64(0)
	from := bufio.NewReader(conn)
	for range 2 {
		io.WriteString(conn, request)
		in += int64(len(request))
		var raw bytes.Buffer
		r, err := http.ReadResponse(bufio.NewReader(io.TeeReader(from, &raw)), nil)
		if err != nil {
			t.Fatal(err)
		}
		io.Copy(io.Discard, r.Body)
		if c := <-counts; !c.ok || c.conn == 0 || c.in != in || c.out != out {
			t.Errorf("%+v, want %d and %d", c, in, out)
		}
		out += int64(raw.Len())
	}
	if _, _, _, ok := WireBytes(httptest.NewRequest("GET", "/", nil)); ok {
		t.Error("a request of another server has bytes")
	}
}

func TestPlainRequestsGetTheirAnswers(t *testing.T) {
	s := serve(t, Config{}, nil)
	for _, tt := range []struct {
		request string
		status  int
		body    string
	}{
		{"GET /healthz HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", 200, "ok\n"},
		{"\r\nGET /healthz HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", 200, "ok\n"},
		{"GET /healthz HTTP/1.0\r\n\r\n", 200, "ok\n"},
		{"GET /nothing HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", 404, "404 page not found\n"},
		{"POST /healthz HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 0\r\n\r\n", 405, "Method Not Allowed\n"},
		{"OPTIONS * HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", 200, ""},
	} {
		if r, body := s.answer(t, tt.request); r.StatusCode != tt.status || body != tt.body {
			t.Errorf("%.30q: %s %q, want %d %q", tt.request, r.Status, body, tt.status, tt.body)
		}
	}
	eventually(t, "no plain connection is left", func() bool { st := s.Stats(); return st.HTTP == 0 && st.Connections == 0 })
	if st := s.Stats(); st.Closed[ReasonHTTP] != 6 || st.Refused != 0 {
		t.Errorf("%+v", st)
	}
}

// withMux is a server with a handler of its own for plain HTTP.
func withMux(t *testing.T, cfg Config, pattern string, h http.HandlerFunc) *testServer {
	t.Helper()
	s, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	s.Mux().HandleFunc(pattern, h)
	if err := s.Handle("/echo", Echo()); err != nil {
		t.Fatal(err)
	}
	return started(t, s)
}

func TestBodyReachesItsHandlerHoweverItIsCut(t *testing.T) {
	s := withMux(t, Config{}, "POST /upload", func(w http.ResponseWriter, r *http.Request) {
		b, err := io.ReadAll(r.Body)
		if err != nil {
			t.Error(err)
		}
		w.Write(bytes.ToUpper(b))
	})
	large := strings.Repeat("body ", 60_000)
	for _, tt := range []struct {
		name  string
		parts []string
		want  string
	}{
		{"glued to the head", []string{"POST /upload HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 5\r\n\r\nhello"}, "HELLO"},
		{"chunked", []string{"POST /upload HTTP/1.1\r\nHost: a\r\nConnection: close\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhel", "lo\r\n0\r\n\r\n"}, "HELLO"},
		{"large", []string{"POST /upload HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 300000\r\n\r\n" + large}, strings.ToUpper(large)},
		{"head cut", []string{"POST /upl", "oad HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 5\r\n\r", "\nhel", "lo"}, "HELLO"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := s.dial(t)
			for i, p := range tt.parts {
				in := s.Stats().Connections + s.Stats().HTTP
				io.WriteString(c, p)
				if i == 0 && len(tt.parts) > 1 {
					eventually(t, "the first part has arrived", func() bool { return s.Stats().Connections+s.Stats().HTTP > in-1 })
				}
			}
			if r, body := readAnswer(t, c); r.StatusCode != 200 || body != tt.want {
				t.Errorf("%s, %d bytes", r.Status, len(body))
			}
		})
	}
}

func TestManyPipelinedRequestsAreAllAnsweredInOrder(t *testing.T) {
	s := withMux(t, Config{}, "GET /n/{n}", func(w http.ResponseWriter, r *http.Request) { io.WriteString(w, r.PathValue("n")) })
	c := s.dial(t)
	const n = 500 // much more than one buffer of net/http
	var all strings.Builder
	for i := range n {
		all.WriteString("GET /n/" + strings.Repeat("x", i%7) + " HTTP/1.1\r\nHost: a\r\n\r\n")
	}
	io.WriteString(c, all.String())
	in := bufio.NewReader(c)
	for i := range n {
		r, err := http.ReadResponse(in, nil)
		if err != nil {
			t.Fatalf("answer %d: %v", i, err)
		}
		if body, err := io.ReadAll(r.Body); err != nil || string(body) != strings.Repeat("x", i%7) && i%7 > 0 {
			t.Fatalf("answer %d: %q, %v", i, body, err)
		}
	}
}

func TestKeptAliveConnectionMayUpgradeLater(t *testing.T) {
	s := serve(t, Config{}, nil)
	check := s.calm(t)
	c := s.dial(t)
	h := hello("/echo?later")
	// Everything in one packet: two plain requests, the handshake, two frames.
	b := []byte(strings.Repeat("GET /healthz HTTP/1.1\r\nHost: example.com\r\n\r\n", 2))
	b = handshake.AppendRequest(b, h)
	b = append(b, masked(true, ws.OpText, []byte("glued"))...)
	b = append(b, masked(true, ws.OpText, bytes.Repeat([]byte("and more "), 3000))...)
	c.Write(b)
	in := bufio.NewReader(c)
	for range 2 {
		r, err := http.ReadResponse(in, nil)
		if err != nil {
			t.Fatal(err)
		}
		if body, _ := io.ReadAll(r.Body); string(body) != "ok\n" {
			t.Errorf("%q", body)
		}
	}
	cl := &client{t: t, conn: c}
	cl.in, _ = in.Peek(in.Buffered())
	cl.in = bytes.Clone(cl.in)
	cl.accepted(h)
	if _, got := cl.message(); string(got) != "glued" {
		t.Errorf("%q", got)
	}
	if _, got := cl.message(); len(got) != 27000 {
		t.Errorf("%d bytes", len(got))
	}
	cl.echoes(ws.OpBinary, make([]byte, 100_000))
	st := s.Stats()
	if st.HTTP != 0 || st.WebSockets != 1 || st.Upgraded != 1 || st.Connections != 1 {
		t.Errorf("%+v", st)
	}
	cl.close(1000)
	cl.wantClose(1000)
	cl.wantEnd()
	c.Close()
	check()
}

func TestTooManyPlainConnectionsAreAnsweredWith503(t *testing.T) {
	s := serve(t, Config{MaxHTTP: 2}, nil)
	get := "GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n"
	for range 2 {
		c := s.dial(t)
		io.WriteString(c, get)
		if _, err := http.ReadResponse(bufio.NewReader(c), nil); err != nil {
			t.Fatal(err)
		}
	}
	r, body := s.answer(t, get)
	checkRefusal(t, r, body, 503, "as many connections")
	s.open(t, "/echo").echoes(ws.OpText, []byte("WebSocket has room")) // the limit is for plain HTTP only
	if st := s.Stats(); st.HTTP != 2 || st.Closed[ReasonFull] != 1 {
		t.Errorf("%+v", st)
	}
}

func TestPlainConnectionsCountForMaxConnections(t *testing.T) {
	s := serve(t, Config{MaxConnections: 2}, nil)
	c := s.dial(t)
	io.WriteString(c, "GET /healthz HTTP/1.1\r\nHost: a\r\n\r\n")
	if _, err := http.ReadResponse(bufio.NewReader(c), nil); err != nil {
		t.Fatal(err)
	}
	s.open(t, "/echo")
	r, body := readAnswer(t, s.dial(t))
	checkRefusal(t, r, body, 503, "as many connections")
}

func TestHealthzOfADrainingServerIs503(t *testing.T) {
	s := serve(t, Config{}, nil)
	s.draining.Store(true)
	w := httptest.NewRecorder()
	s.Mux().ServeHTTP(w, httptest.NewRequest("GET", "/healthz", nil))
	if w.Code != 503 || w.Body.String() != "draining\n" {
		t.Errorf("%d %q", w.Code, w.Body)
	}
}
