package inspect

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"wspoll/frame"
	"wspoll/handshake"
	"wspoll/server"

	"github.com/gobwas/ws"
)

// liveServer is an echo with the limit of the samples, and its address.
func liveServer(t *testing.T) string {
	t.Helper()
	s, err := server.New(server.Config{
		MaxMessage: sampleLimit, CloseTimeout: time.Second,
		Handshake: handshake.Options{Deflate: &handshake.DeflateOptions{}},
	})
	if err == nil {
		err = s.Handle("/chat", server.Echo())
	}
	if err != nil {
		t.Fatal(err)
	}
	addr, err := s.Listen("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s.Start()
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		if err := s.Shutdown(ctx); err != nil {
			t.Error(err)
		}
	})
	return addr.String()
}

// talk sends bytes to the server and returns all that it sends until it closes.
func talk(t *testing.T, addr string, b []byte) []byte {
	t.Helper()
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(20 * time.Second))
	if _, err := conn.Write(b); err != nil {
		t.Fatal(err)
	}
	got, err := io.ReadAll(conn)
	if err != nil && len(got) == 0 {
		t.Fatal(err)
	}
	return got
}

// closing is the Close frame among the records of a side.
func (x *explained) closing(d Dir) *Close {
	for _, r := range x.wire[d] {
		if r.Frame != nil && r.Frame.Close != nil {
			return r.Frame.Close
		}
	}
	return nil
}

// compresses reports whether the server takes a compressed message, agreed on, and sends it back.
func compresses(t *testing.T, addr string) bool {
	t.Helper()
	request := []byte(changed(exampleRequest, "-Origin", "Sec-WebSocket-Extensions: permessage-deflate"))
	hello := joined(fromClient(0xc1, "\xf2\x48\xcd\xc9\xc9\x07\x00"), fromClient(0x88, "\x03\xe8"))
	x := explain(Options{}, []sent{{Client, request}, {Server, talk(t, addr, joined(request, hello))}}, whole)
	return len(x.message[Server]) == 1 && x.message[Server][0].Message.Text == "Hello"
}

// TestTheLiveServerSendsTheCloseCodeThatAViolationDemands breaks each rule in front of a real server.
func TestTheLiveServerSendsTheCloseCodeThatAViolationDemands(t *testing.T) {
	addr := liveServer(t)
	host := func(head string) string {
		return strings.Replace(head, "http://example.com", "http://server.example.com", 1)
	}
	if !compresses(t, addr) {
		t.Fatal("the server does not take compressed messages")
	}
	for _, s := range samples {
		t.Run(s.kind, func(t *testing.T) {
			request := host(exampleRequest)
			if s.deflate {
				request = changed(request, "Sec-WebSocket-Extensions: permessage-deflate")
			}
			got := talk(t, addr, joined([]byte(request), s.bytes))
			n := bytes.Index(got, []byte("\r\n\r\n")) + 4
			if s.deflate && !bytes.Contains(got[:n], []byte("permessage-deflate")) {
				t.Fatalf("the server does not agree on compression: %q", got[:n])
			}
			x := explain(Options{MaxMessage: sampleLimit}, []sent{{Client, []byte(request)}, {Server, got}, {Client, s.bytes}}, whole)
			v := x.violations()
			if len(v) == 0 || v[0].Kind != s.kind {
				t.Fatalf("the violations are %v", v)
			}
			c := x.closing(Server)
			if c == nil {
				t.Fatalf("no Close in %q", got[n:])
			}
			// The code, and the sentence, which is the reason of the Close.
			if e, _ := errors.AsType[*frame.Error](&v[0]); c.Code != v[0].Code || c.Code != s.code || c.Reason != e.Msg {
				t.Errorf("the server sends %d %q, the violation demands %d: %s", c.Code, c.Reason, v[0].Code, v[0].What)
			}
		})
	}
}

func TestTheLiveServerAnswersARequestWithTheStatusOfAViolation(t *testing.T) {
	addr := liveServer(t)
	for _, tt := range badRequests {
		if tt.kinds[0] == "handshake-upgrade" && len(tt.kinds) == 1 {
			continue // without Upgrade it is plain HTTP to the server, and none of ours
		}
		got := talk(t, addr, []byte(tt.head))
		x := explain(Options{}, []sent{{Client, []byte(tt.head)}, {Server, got}}, whole)
		line, _, _ := strings.Cut(string(got), "\r\n")
		found := false
		for _, v := range x.violations() {
			found = found || v.Status == tt.status && strings.HasPrefix(line, "HTTP/1.1 ") && strings.Contains(line, http.StatusText(tt.status)) && strings.Contains(string(got), v.What)
		}
		if !found {
			t.Errorf("%q: the server answers %q, the violations are %v", tt.head, line, x.violations())
		}
	}
}

// A client that gets a masked frame from a server fails the connection too.
func TestAClientSendsTheCloseCodeThatAViolationOfTheServerDemands(t *testing.T) {
	rules := frame.Rules{Client: true, Mask: func() [4]byte { return [4]byte{1, 2, 3, 4} }}
	b := wire("81 85 37fa213d 7f9f4d5158")
	var c frame.Conn
	var piece frame.Piece
	_, out, err := c.Next(&rules, bytes.Clone(b), nil, &piece)
	if !errors.Is(err, frame.ErrMaskForbidden) {
		t.Fatal(err)
	}
	x := explain(Options{}, []sent{{Server, b}, {Client, out}}, whole)
	v := x.violations()
	if len(v) != 1 || x.closing(Client) == nil || x.closing(Client).Code != v[0].Code || v[0].Code != ws.StatusProtocolError {
		t.Errorf("%v, and the client sends %v", v, x.closing(Client))
	}
}
