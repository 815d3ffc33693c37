package web

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"wspoll/server"

	"github.com/gobwas/ws"
	"github.com/gobwas/ws/wsutil"
)

const patience = 20 * time.Second

// recorded is a connection that counts and keeps what passes.
type recorded struct {
	net.Conn
	mu      sync.Mutex
	in, out []byte
}

func (c *recorded) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	c.mu.Lock()
	c.in = append(c.in, b[:n]...)
	c.mu.Unlock()
	return n, err
}

func (c *recorded) Write(b []byte) (int, error) {
	n, err := c.Conn.Write(b)
	c.mu.Lock()
	c.out = append(c.out, b[:n]...)
	c.mu.Unlock()
	return n, err
}

// open opens a WebSocket connection, as a page of this server unless another origin is given.
func (s *live) open(t *testing.T, path string, origin ...string) *recorded {
	t.Helper()
	var c *recorded
	o := "http://" + s.addr
	if len(origin) > 0 {
		o = origin[0]
	}
	d := ws.Dialer{
		Header: ws.HandshakeHeaderHTTP(http.Header{"Origin": {o}}),
		NetDial: func(ctx context.Context, network, addr string) (net.Conn, error) {
			conn, err := net.Dial(network, addr)
			c = &recorded{Conn: conn}
			return c, err
		},
	}
	_, br, _, err := d.Dial(t.Context(), "ws://"+s.addr+path)
	if err != nil {
		t.Fatalf("%s: %v", path, err)
	}
	if br != nil { // frames that came with the answer
		rest := make([]byte, br.Buffered())
		io.ReadFull(br, rest)
		c.Conn = &fronted{c.Conn, rest}
	}
	c.SetDeadline(time.Now().Add(patience))
	t.Cleanup(func() { c.Close() })
	return c
}

// fronted has bytes that were read already.
type fronted struct {
	net.Conn
	rest []byte
}

func (c *fronted) Read(b []byte) (int, error) {
	if len(c.rest) > 0 {
		n := copy(b, c.rest)
		c.rest = c.rest[n:]
		return n, nil
	}
	return c.Conn.Read(b)
}

// pageMirror is a mirror as the page has it.
type pageMirror struct {
	*recorded
	t     *testing.T
	token string
	deaf  bool // it does not say what it has read
}

// heard is a message of it.
type heard struct {
	Token   string
	Conn    int
	Dropped int
	Lost    int64
	End     bool
	Error   string
	Records []struct {
		Kind, Dir string
		N         int
		Start     int64
		End       int64
		Line      *struct{ Text, Name, Value string }
		Frame     *struct {
			Opcode  int
			Payload string
			Fin     bool
			Text    string
			Length  int
			Close   *struct{ Code int }
		}
		Message *struct{ Count int }
	}
}

func (s *live) mirror(t *testing.T) *pageMirror {
	t.Helper()
	m := &pageMirror{recorded: s.open(t, "/lab/mirror"), t: t}
	if m.token = m.hear().Token; len(m.token) < 26 {
		t.Fatalf("the token is %q", m.token)
	}
	return m
}

func (m *pageMirror) hear() heard {
	m.t.Helper()
	b, err := wsutil.ReadServerText(m)
	if err != nil {
		m.t.Fatal("the mirror:", err)
	}
	var h heard
	if err := json.Unmarshal(b, &h); err != nil {
		m.t.Fatal(err)
	}
	if !m.deaf {
		m.say(`{"do":"read","n":%d}`, len(b))
	}
	return h
}

func (m *pageMirror) say(format string, args ...any) {
	m.t.Helper()
	if err := wsutil.WriteClientText(m, fmt.Appendf(nil, format, args...)); err != nil {
		m.t.Fatal(err)
	}
}

func readFrame(c io.Reader) (f ws.Frame, err error) {
	if f.Header, err = ws.ReadHeader(c); err == nil {
		f.Payload = make([]byte, f.Header.Length)
		_, err = io.ReadFull(c, f.Payload)
	}
	return f, err
}

// closeCode reads up to the Close of the server.
func closeCode(t *testing.T, c net.Conn) ws.StatusCode {
	t.Helper()
	for {
		f, err := readFrame(c)
		if err != nil {
			t.Fatal(err)
		}
		if f.Header.OpCode == ws.OpClose {
			code, _ := ws.ParseCloseFrameData(f.Payload)
			return code
		}
	}
}

// TestTheMirrorShowsEachByteOnce: what the records cover is what the socket has carried, both ways.
func TestTheMirrorShowsEachByteOnce(t *testing.T) {
	s := start(t)
	m := s.mirror(t)
	c := s.open(t, "/lab?n=7&mirror="+m.token)
	r := rand.New(rand.NewPCG(1, 9))
	go func() {
		for range 40 {
			wsutil.WriteClientBinary(c, make([]byte, r.IntN(1+r.IntN(4000))))
		}
		ws.WriteFrame(c, ws.MaskFrame(ws.NewCloseFrame(ws.NewCloseFrameBody(1000, "bye"))))
	}()
	closeCode(t, c)
	io.Copy(io.Discard, c)
	wire, reads := map[string]int64{}, map[string]int64{}
	for {
		h := m.hear()
		if h.Conn != 7 || h.Dropped > 0 || h.Lost > 0 || h.Error != "" {
			t.Fatalf("%+v", h)
		}
		for _, r := range h.Records {
			at := wire
			if r.Kind == "read" {
				at = reads
			}
			if r.Kind == "message" {
				continue
			}
			if at[r.Dir] != r.Start {
				t.Fatalf("%s %s begins at %d, want %d", r.Dir, r.Kind, r.Start, at[r.Dir])
			}
			at[r.Dir] = r.End
		}
		if h.End {
			break
		}
	}
	for dir, want := range map[string]int{"client": len(c.out), "server": len(c.in)} {
		if wire[dir] != int64(want) || reads[dir] != int64(want) {
			t.Errorf("%s: %d bytes are explained, %d were read or written, %d were on the socket", dir, wire[dir], reads[dir], want)
		}
	}
}

func TestNobodySeesTheConnectionOfAnother(t *testing.T) {
	s := start(t)
	mine, other := s.mirror(t), s.mirror(t)
	if mine.token == other.token {
		t.Fatal("two mirrors have the same token")
	}
	c := s.open(t, "/lab?n=1&mirror="+mine.token)
	wsutil.WriteClientText(c, []byte("secret"))
	wsutil.ReadServerText(c)
	other.say(`{"do":"ping","conn":1}`) // of which it has none
	if h := other.hear(); h.Error == "" || len(h.Records) > 0 {
		t.Errorf("the other mirror is told %+v", h)
	}
	for _, path := range []string{"/lab?n=1&mirror=" + strings.ToLower(mine.token), "/lab?n=1&mirror=", "/lab?n=0&mirror=" + mine.token, "/lab?mirror=" + mine.token} {
		if code := closeCode(t, s.open(t, path)); code != 1008 {
			t.Errorf("%s: %d", path, code)
		}
	}
	if code := closeCode(t, s.open(t, "/lab?n=1&mirror="+mine.token)); code != 1013 {
		t.Errorf("a number that is taken: %d", code)
	}
}

// A page of another origin gets neither, whatever the server allows its other endpoints: a mirror shows cookies.
func TestOnlyPagesOfThisServerAreMirrored(t *testing.T) {
	srv, err := server.New(server.Config{CloseTimeout: time.Second, Handshake: anyOrigin})
	if err != nil {
		t.Fatal(err)
	}
	s := startServer(t, srv)
	for _, path := range []string{"/lab/mirror", "/lab"} {
		if code := closeCode(t, s.open(t, path, "https://evil.example")); code != 1008 {
			t.Errorf("%s: %d", path, code)
		}
	}
	s.mirror(t)
}

func TestEachCommandDoesWhatItSays(t *testing.T) {
	s := start(t)
	m := s.mirror(t)
	c := s.open(t, "/lab?n=1&mirror="+m.token)
	next := func() ws.Frame {
		t.Helper()
		f, err := readFrame(c)
		if err != nil {
			t.Fatal(err)
		}
		return f
	}
	want := func(what string, op ws.OpCode, fin bool, payload string) {
		t.Helper()
		if f := next(); f.Header.OpCode != op || f.Header.Fin != fin || string(f.Payload) != payload {
			t.Errorf("%s: %v %q, want %v %q", what, f.Header, f.Payload, op, payload)
		}
	}
	m.say(`{"do":"ping","conn":1}`)
	want("ping", ws.OpPing, true, "are you there?")
	m.say(`{"do":"pong","conn":1}`)
	want("pong", ws.OpPong, true, "I am here")
	m.say(`{"do":"fragments","conn":1}`)
	want("fragments", ws.OpText, false, fragments[0])
	want("fragments", ws.OpContinuation, false, fragments[1])
	want("fragments", ws.OpContinuation, true, fragments[2])
	m.say(`{"do":"interleave","conn":1}`)
	want("interleave", ws.OpText, false, fragments[0])
	want("interleave", ws.OpPing, true, "between fragments")
	want("interleave", ws.OpContinuation, false, fragments[1])
	want("interleave", ws.OpPong, true, "and again")
	want("interleave", ws.OpContinuation, true, fragments[2])
	for _, size := range []int{0, 125, 70000} {
		m.say(`{"do":"send","conn":1,"size":%d,"binary":true}`, size)
		want("send", ws.OpBinary, true, filler(size))
	}
	m.say(`{"do":"send","conn":1,"size":3}`)
	want("send", ws.OpText, true, filler(3))
	m.say(`{"do":"beat","conn":1,"on":true}`)
	for range 2 {
		if f := next(); !strings.HasPrefix(string(f.Payload), "heart beat ") {
			t.Errorf("beat: %q", f.Payload)
		}
	}
	m.say(`{"do":"beat","conn":1,"on":false}`)
	wsutil.WriteClientText(c, []byte("echo"))
	for {
		if f := next(); !strings.HasPrefix(string(f.Payload), "heart beat ") { // one may have been on its way
			if string(f.Payload) != "echo" {
				t.Errorf("echo: %q", f.Payload)
			}
			break
		}
	}
	m.say(`{"do":"close","conn":1,"code":1012,"reason":"so it is"}`)
	want("close", ws.OpClose, true, "\x03\xf4so it is")

	// And what is none.
	for text, says := range map[string]string{
		`{"do":"dance","conn":1}`:               "no such connection",
		`no json`:                               "no JSON",
		`{"do":"ping","conn":2}`:                "no such connection",
		`{"do":"ping"}`:                         "no such connection",
		`{"do":"read","n":-5}`:                  "",
		`{"do":"send","conn":3,"size":1048577}`: "1048577 bytes",
		`{"do":"send","conn":3,"size":-1}`:      "-1 bytes",
		`{"do":"close","conn":3,"code":1005}`:   "1005 is no code",
		`{"do":"close","conn":3,"reason":"` + strings.Repeat("r", 124) + `"}`: "123 bytes",
		`{"do":"dance","conn":3}`: `"dance" is no command`,
	} {
		var third *recorded
		if strings.Contains(text, `"conn":3`) {
			third = s.open(t, "/lab?n=3&mirror="+m.token)
		} else {
			io.Copy(io.Discard, c) // number 1 has ended
		}
		m.say("%s", text)
		for says != "" {
			if h := m.hear(); h.Error != "" {
				if !strings.Contains(h.Error, says) {
					t.Errorf("%s: %q, want %q", text, h.Error, says)
				}
				break
			}
		}
		if strings.Contains(text, `"conn":3`) {
			third.Close()
			for h := m.hear(); !h.End; h = m.hear() {
			}
		}
	}
}

// TestAPageThatDoesNotReadCostsNothing: records for it are dropped and counted, and its connection goes on.
func TestAPageThatDoesNotReadCostsNothing(t *testing.T) {
	s := start(t)
	m := s.mirror(t)
	m.deaf = true
	c := s.open(t, "/lab?n=1&mirror="+m.token)
	const n = 3000
	go func() {
		for range n {
			wsutil.WriteClientText(c, []byte("a message"))
		}
	}()
	for range n {
		if b, err := wsutil.ReadServerText(c); err != nil || string(b) != "a message" {
			t.Fatal(string(b), err)
		}
	}
	c.Close()
	read, records, dropped := 0, 0, 0
	for {
		b, err := wsutil.ReadServerText(m)
		if err != nil {
			t.Fatal(err)
		}
		read += len(b)
		var h heard
		if err := json.Unmarshal(b, &h); err != nil {
			t.Fatal(err)
		}
		records += len(h.Records)
		dropped += h.Dropped
		if h.End {
			break
		}
	}
	if read > maxUnread+64<<10 {
		t.Errorf("%d bytes were sent to a page that has not said it read any, at most %d should be", read, maxUnread)
	}
	if dropped == 0 || records == 0 || records+dropped < 4*n {
		t.Errorf("%d records and %d dropped, of at least %d", records, dropped, 4*n)
	}
}

func TestMirrorsAndTheirConnectionsAreLimited(t *testing.T) {
	s := start(t)
	m := s.mirror(t)
	for i := range maxConns {
		s.open(t, fmt.Sprintf("/lab?n=%d&mirror=%s", i+1, m.token))
	}
	if code := closeCode(t, s.open(t, "/lab?n=99&mirror="+m.token)); code != 1013 {
		t.Errorf("one connection too many: %d", code)
	}
	for range maxMirrors - 1 {
		s.mirror(t)
	}
	if code := closeCode(t, s.open(t, "/lab/mirror")); code != 1013 {
		t.Errorf("one mirror too many: %d", code)
	}
	m.Close()
	// Its place is free when the server has seen that.
	for deadline := time.Now().Add(patience); ; {
		s.page.mu.Lock()
		n := len(s.page.mirrors)
		s.page.mu.Unlock()
		if n < maxMirrors {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("the place of a mirror that has gone is not free")
		}
	}
	s.mirror(t)
}

func TestAMirrorThatNobodyUsesIsClosed(t *testing.T) {
	srv, err := server.New(server.Config{CloseTimeout: time.Second})
	if err != nil {
		t.Fatal(err)
	}
	s := startServer(t, srv, 50*time.Millisecond)
	if code := closeCode(t, s.mirror(t)); code != 1001 {
		t.Errorf("code %d", code)
	}
	// One with a connection stays.
	m := s.mirror(t)
	c := s.open(t, "/lab?n=1&mirror="+m.token)
	deadline := time.Now().Add(200 * time.Millisecond)
	for time.Now().Before(deadline) {
		wsutil.WriteClientText(c, []byte("x"))
		wsutil.ReadServerText(c)
	}
	m.say(`{"do":"ping","conn":1}`)
	if f, err := readFrame(c); err != nil || f.Header.OpCode != ws.OpPing {
		t.Errorf("%v %v", f.Header, err)
	}
}

func TestPollingIsCountedAsItIsOnTheWire(t *testing.T) {
	s := start(t)
	conn, err := net.Dial("tcp", s.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	const request = "GET /lab/value HTTP/1.1\r\nHost: localhost\r\nX: abc\r\n\r\n"
	total := 0
	for range 3 {
		io.WriteString(conn, request)
		b := make([]byte, 4096)
		n, err := conn.Read(b)
		if err != nil {
			t.Fatal(err)
		}
		_, body, _ := strings.Cut(string(b[:n]), "\r\n\r\n")
		var v struct {
			Value, Now, Conn int64
			Bytes            int
		}
		if err := json.Unmarshal([]byte(body), &v); err != nil {
			t.Fatalf("%q: %v", body, err)
		}
		if total += len(request); v.Bytes != total || v.Conn == 0 || v.Now/1000 != v.Value {
			t.Errorf("%+v, want %d bytes", v, total)
		}
		total += n
	}
}
