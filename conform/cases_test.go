package conform

import (
	"bufio"
	"bytes"
	"crypto/rand"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"wspoll/frame"
	"wspoll/handshake"

	"github.com/gobwas/ws"
)

// verdict1 runs one case against a server.
func verdict1(t *testing.T, target *Target, id string) Result {
	t.Helper()
	cases, bad := Select(Cases(Server), []string{id})
	if bad != "" || len(cases) != 1 {
		t.Fatalf("%d cases are called %s", len(cases), id)
	}
	return Run(t.Context(), target, cases, Options{Timeout: 500 * time.Millisecond}, nil)[0]
}

// rewritten is a right server that takes a head for another one.
func rewritten(t *testing.T, taken, as string) *Target {
	t.Helper()
	right := (&echoServer{}).start(t)
	return standIn(t, "/echo", func(conn net.Conn) {
		defer conn.Close()
		back, err := net.Dial("tcp", right.Addr)
		if err != nil {
			return
		}
		defer back.Close()
		b := make([]byte, 64<<10)
		n, _ := conn.Read(b) // a head comes in one segment
		back.Write(bytes.Replace(b[:n], []byte(taken), []byte(as), 1))
		go func() {
			io.Copy(back, conn)
			back.(*net.TCPConn).CloseWrite()
		}()
		io.Copy(conn, back)
	})
}

// What the RFC leaves to a server may be done either way, and what it does not may not.
func TestHeadsThatAServerMayTakeOrNot(t *testing.T) {
	for _, tt := range []struct {
		id, taken, as string
		want          Verdict
	}{
		{"rfc6455-4.2.1-1-http-2.0", "HTTP/2.0", "HTTP/1.1", OK}, // "An HTTP/1.1 or higher GET request"
		{"rfc6455-4.2.1-1-http-2.0", "", "", OK},                 // refused
		{"rfc6455-4.2.1-blank-before-first-field", "\n Host", "\nHost", Failed},
		{"rfc6455-4.2.1-blank-before-first-field", "", "", OK},
		{"rfc6455-4.2.1-1-http-1.0", "HTTP/1.0", "HTTP/1.1", Failed},
	} {
		if r := verdict1(t, rewritten(t, tt.taken, tt.as), tt.id); r.Verdict != tt.want {
			t.Errorf("%q taken for %q: want %s: %s", tt.taken, tt.as, tt.want, text1(&r))
		}
	}
}

// §4.2.2, item 3: "The server MAY redirect the client using a 3xx status code".
func TestAServerMayRedirect(t *testing.T) {
	elsewhere := &echoServer{reply: func(r *handshake.Request, err error) []byte {
		if err == nil && string(r.Path) == "/echo" {
			return answered(rightAccept)(r, nil)
		}
		return []byte("HTTP/1.1 302 Found\r\nLocation: /echo\r\nContent-Length: 0\r\n\r\n")
	}}
	if r := verdict1(t, elsewhere.start(t), "rfc6455-4.2.2-other-path"); r.Verdict != OK {
		t.Error(text1(&r))
	}
}

// RFC 9110 §5.4 lets a server refuse fields of more bytes than it wishes to process.
func TestAServerMayHaveASmallLimitForHeads(t *testing.T) {
	small := &echoServer{reply: func(r *handshake.Request, err error) []byte {
		if _, n := r.Get("X-Filler-0"); n > 0 {
			return []byte("HTTP/1.1 431 Request Header Fields Too Large\r\nContent-Length: 0\r\n\r\n")
		}
		return answered(rightAccept)(r, err)
	}}
	target := small.start(t)
	for _, id := range []string{"rfc6455-10.4-head-2k", "rfc6455-10.4-head-40-lines"} {
		if r := verdict1(t, target, id); r.Verdict != NonStrict {
			t.Error(text1(&r))
		}
	}
}

func TestGarbageIsAnsweredWithAnErrorOrTheEnd(t *testing.T) {
	for name, tt := range map[string]struct {
		talk func(conn net.Conn, b []byte)
		want Verdict
	}{
		"echo":      {func(conn net.Conn, b []byte) { conn.Write(b) }, Failed},
		"a frame":   {func(conn net.Conn, _ []byte) { io.WriteString(conn, "\x81\x05Hello") }, Failed},
		"a 101":     {func(conn net.Conn, _ []byte) { io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\n\r\n") }, Failed},
		"a 200":     {func(conn net.Conn, _ []byte) { io.WriteString(conn, "HTTP/1.1 200 OK\r\n\r\n") }, Failed},
		"a 400":     {func(conn net.Conn, _ []byte) { io.WriteString(conn, "HTTP/1.1 400 Bad Request\r\n\r\n") }, OK},
		"a 400 cut": {func(conn net.Conn, _ []byte) { io.WriteString(conn, "<html>400 Bad Request</html>") }, OK},
		"an alert":  {func(conn net.Conn, _ []byte) { io.WriteString(conn, "\x15\x03\x01\x00\x02\x02\x46") }, OK},
		"the end":   {func(net.Conn, []byte) {}, OK},
	} {
		t.Run(name, func(t *testing.T) {
			target := standIn(t, "/", func(conn net.Conn) {
				defer conn.Close()
				b := make([]byte, 4<<10)
				n, _ := conn.Read(b)
				tt.talk(conn, b[:n])
			})
			for _, what := range []string{"frame-first", "tls-hello", "zeros", "lines"} {
				if r := verdict1(t, target, "rfc6455-4.2.1-garbage-"+what); r.Verdict != tt.want {
					t.Errorf("want %s: %s", tt.want, text1(&r))
				}
			}
		})
	}
}

// RFC 1951 §3.2.5 gives symbol 284 the lengths from 227 to 257.
func TestALengthOf258TheLongWayMayBeRefused(t *testing.T) {
	for _, leaveOut := range []string{"", "inflate"} {
		s := deflating(leaveOut)
		if r := verdict1(t, s.start(t), "rfc7692-7.2.2-length-258-the-long-way"); r.Verdict != OK {
			t.Error(text1(&r))
		}
	}
}

// visitAs makes the request of a client for the first case and lets talk do the rest.
func visitAs(t *testing.T, id string, talk func(conn net.Conn)) Result {
	t.Helper()
	cases, bad := Select(Cases(Client), []string{id})
	if bad != "" || len(cases) != 1 {
		t.Fatalf("%d cases are called %s", len(cases), id)
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		addr := l.Addr().String()
		if conn, err := net.Dial("tcp", addr); err == nil {
			var nonce [16]byte
			rand.Read(nonce[:])
			conn.Write(handshake.AppendRequest(nil, &handshake.Hello{Host: addr, Target: "/runCase?case=1&agent=x", Key: handshake.AppendKey(nil, nonce)}))
			talk(conn)
			conn.Close()
		}
		(&echoClient{}).visit(addr, "/updateReports?agent=x", nil)
	}()
	results, _ := Listen(t.Context(), l, cases, Options{Timeout: time.Second}, nil)
	if len(results) != 1 {
		t.Fatalf("%d results", len(results))
	}
	return results[0]
}

// §4.1: "If the status code received from the server is not 101, the client handles the response per HTTP procedures."
func TestAClientMayWaitForTheAnswerBehindAnInterimOne(t *testing.T) {
	for _, status := range []string{"100", "102"} {
		r := visitAs(t, "rfc6455-4.1-answer-1-status-"+status, func(conn net.Conn) {
			in := bufio.NewReader(conn)
			for {
				resp, err := http.ReadResponse(in, nil)
				if err != nil || resp.StatusCode >= 200 || resp.StatusCode == 101 {
					return
				}
			}
		})
		if r.Verdict != OK {
			t.Error(text1(&r))
		}
	}
}

// RFC 7692 §5: an answer may be to any of the offers.
func TestAClientWithASecondOfferMayGetItsAnswer(t *testing.T) {
	for id, offers := range map[string]string{
		"rfc7692-7.1.1.1-answer-server-no-context-missing": "permessage-deflate; server_no_context_takeover, permessage-deflate",
		"rfc7692-7.1.2.1-answer-server-bits-missing":       "permessage-deflate; server_max_window_bits=10, permessage-deflate",
		"rfc7692-7.1.2.1-answer-server-bits-above":         "permessage-deflate; server_max_window_bits=10, permessage-deflate; server_max_window_bits=12",
	} {
		cases, _ := Select(Cases(Client), []string{id})
		for want, client := range map[Verdict]*echoClient{
			Unimplemented: {offers: offers},
			Failed:        {offers: strings.Split(offers, ",")[0], trusts: true},
		} {
			for _, r := range tested(t, client, cases, 500*time.Millisecond) {
				if r.Verdict != want {
					t.Errorf("%s: want %s: %s", client.offers, want, text1(&r))
				}
			}
		}
	}
}

// §10.4: what a client says that took a head of 4 MiB need not be a pong.
func TestAClientThatTakesAnEndlessHeadIsCaught(t *testing.T) {
	for want, says := range map[Verdict][]byte{
		OK:        nil,
		NonStrict: frame.AppendMasked(nil, true, ws.OpText, [4]byte{1, 2, 3, 4}, []byte("thanks")),
	} {
		r := visitAs(t, "rfc6455-10.4-answer-4m", func(conn net.Conn) {
			io.CopyN(io.Discard, conn, 4<<20)
			conn.Write(says)
			conn.(*net.TCPConn).CloseWrite()
			io.Copy(io.Discard, conn)
		})
		if r.Verdict != want {
			t.Errorf("want %s: %s", want, text1(&r))
		}
	}
}

// §7.4.1: 1010 "is not used by the server".
func TestNoClientIsSentACodeThatServersDoNotUse(t *testing.T) {
	if _, bad := Select(Cases(Client), []string{"rfc6455-7.4-code-1010"}); bad == "" {
		t.Error("a client is sent a Close 1010")
	}
	if _, bad := Select(Cases(Server), []string{"rfc6455-7.4-code-1010"}); bad != "" {
		t.Error("no server is sent a Close 1010")
	}
}

// What §4.1 has a client look at in a status line is the status.
func TestAClientMayTakeA101OfHTTP10(t *testing.T) {
	for want, talk := range map[Verdict]func(net.Conn){
		OK: func(conn net.Conn) { conn.Read(make([]byte, 4<<10)) },
		NonStrict: func(conn net.Conn) {
			conn.Read(make([]byte, 4<<10))
			conn.Write(frame.AppendMasked(nil, true, ws.OpPong, [4]byte{1, 2, 3, 4}, []byte("open?")))
			conn.Read(make([]byte, 4<<10))
			conn.Write(frame.AppendMaskedClose(nil, [4]byte{1, 2, 3, 4}, 1000, ""))
			io.Copy(io.Discard, conn)
		},
	} {
		if r := visitAs(t, "rfc6455-4.1-answer-1-http-1.0", talk); r.Verdict != want {
			t.Errorf("want %s: %s", want, text1(&r))
		}
	}
}

// A client that takes a wrong answer for a 101 may leave without an answer to our ping, and with one of its own.
func TestAPingOfAClientThatMustLeaveIsCaught(t *testing.T) {
	for _, id := range []string{"rfc6455-4.1-answer-4-accept-of-another-key", "rfc6455-4.1-answer-1-status-100", "rfc6455-4.1-answer-odd-cut-off"} {
		r := visitAs(t, id, func(conn net.Conn) {
			conn.Read(make([]byte, 4<<10))
			conn.Write([]byte("\x89\x80\x01\x02\x03\x04"))
			conn.(*net.TCPConn).CloseWrite()
			io.Copy(io.Discard, conn)
		})
		if r.Verdict != Failed || !strings.Contains(r.Why(), "a ping came") {
			t.Error(text1(&r))
		}
	}
}
