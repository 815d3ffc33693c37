package proxy

import (
	"io"
	"math/rand/v2"
	"strings"
	"testing"
	"time"
)

func TestThe101OfTheBackendReachesTheClientUnchanged(t *testing.T) {
	b := newBehind(t)
	px := serve(t, Config{}, b)
	c := px.dial(t)
	io.WriteString(c, request("/", "Sec-WebSocket-Protocol: a, b"))
	conn := b.conn()
	head, _ := readHead(t, conn)
	answer := strings.TrimSuffix(answer101(t, head), "\r\n") + "sec-websocket-protocol: b\r\nSet-Cookie: x=y; Path=/\r\nServer:  some\t thing \r\n\r\n"
	io.WriteString(conn, answer)
	got, _ := readHead(t, c)
	if got != answer {
		t.Errorf("%q came, want %q", got, answer)
	}
}

// exchange sends a good request and lets the backend say answer; the backend
// ends the connection after it when hangUp is set. It returns what the client got.
func exchange(t *testing.T, px *testProxy, b *behind, answer string, hangUp bool) string {
	t.Helper()
	c := px.dial(t)
	io.WriteString(c, request("/", "Sec-WebSocket-Protocol: chat"))
	conn := b.conn()
	head, _ := readHead(t, conn)
	answer = strings.ReplaceAll(answer, "ACCEPT", accept(t, head))
	for answer != "" { // however it is cut
		n := 1 + rand.IntN(min(len(answer), 200))
		if _, err := io.WriteString(conn, answer[:n]); err != nil {
			break // the proxy has seen enough
		}
		answer = answer[n:]
	}
	if hangUp {
		conn.Close()
	}
	got := readAll(t, c)
	conn.Close()
	return got
}

func accept(t *testing.T, head string) string {
	_, v, _ := strings.Cut(answer101(t, head), "Sec-WebSocket-Accept: ")
	return v[:28]
}

func TestRefusalsOfTheBackendReachTheClientWithTheirBody(t *testing.T) {
	b := newBehind(t)
	px := serve(t, Config{}, b)
	check := px.calm(t)
	for name, tt := range map[string]struct {
		answer, want string
		hangUp       bool
	}{
		"401": {
			answer: "HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: Basic realm=\"x\"\r\nSet-Cookie: a=b\r\nContent-Length: 9\r\n\r\nwho is it",
			want:   "HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: Basic realm=\"x\"\r\nSet-Cookie: a=b\r\nContent-Length: 9\r\nConnection: close\r\n\r\nwho is it",
		},
		"302 without a body": {
			answer: "HTTP/1.1 302 Found\r\nLocation: /login\r\nConnection: keep-alive\r\nKeep-Alive: timeout=5\r\nContent-Length: 0\r\n\r\n",
			want:   "HTTP/1.1 302 Found\r\nLocation: /login\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
		},
		"503 until the end": {
			answer: "HTTP/1.1 503 Service Unavailable\r\nRetry-After: 9\r\n\r\nlater",
			want:   "HTTP/1.1 503 Service Unavailable\r\nRetry-After: 9\r\nConnection: close\r\n\r\nlater",
			hangUp: true,
		},
		"500 in chunks": {
			answer: "HTTP/1.1 500 Internal Server Error\r\nTransfer-Encoding: chunked\r\n\r\n5;x=\"y\"\r\nabc\r\n\r\nA\r\n0123456789\r\n0\r\nX-T: 1\r\n\r\n",
			want:   "HTTP/1.1 500 Internal Server Error\r\nTransfer-Encoding: chunked\r\nConnection: close\r\n\r\n5;x=\"y\"\r\nabc\r\n\r\nA\r\n0123456789\r\n0\r\nX-T: 1\r\n\r\n",
		},
		"426 with Upgrade": {
			answer: "HTTP/1.1 426 Upgrade Required\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nContent-Length: 0\r\n\r\n",
			want:   "HTTP/1.1 426 Upgrade Required\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nContent-Length: 0\r\nConnection: Upgrade, close\r\n\r\n",
		},
		"204 ends with its head": {
			answer: "HTTP/1.1 204 No Content\r\n\r\n",
			want:   "HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n",
		},
		"103 and then 404": {
			answer: "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 404 Not Found\r\nContent-Length: 1\r\n\r\nx",
			want:   "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 404 Not Found\r\nContent-Length: 1\r\nConnection: close\r\n\r\nx",
		},
		"what is behind the body is dropped": {
			answer: "HTTP/1.1 404 Not Found\r\nContent-Length: 1\r\n\r\nxHTTP/1.1 200 OK\r\n\r\n",
			want:   "HTTP/1.1 404 Not Found\r\nContent-Length: 1\r\nConnection: close\r\n\r\nx",
		},
	} {
		t.Run(name, func(t *testing.T) {
			if got := exchange(t, px, b, tt.answer, tt.hangUp); got != tt.want {
				t.Errorf("the client got\n%q, want\n%q", got, tt.want)
			}
		})
	}
	check()
	if n := px.Stats().Closed[ReasonBackendRefused]; n != 8 {
		t.Errorf("%d were counted", n)
	}
}

func TestALargeBodyOfARefusalIsBounded(t *testing.T) {
	b := newBehind(t)
	px := serve(t, Config{}, b)
	c := px.dial(t)
	io.WriteString(c, request("/"))
	conn := b.conn()
	readHead(t, conn)
	go func() {
		io.WriteString(conn, "HTTP/1.1 500 Internal Server Error\r\n\r\n")
		chunk := make([]byte, 64<<10)
		for {
			if _, err := conn.Write(chunk); err != nil {
				return
			}
		}
	}()
	n, err := io.Copy(io.Discard, c)
	if n < maxBody || n > maxBody+readBuffer+1000 || err != nil {
		t.Errorf("%d bytes came, %v", n, err)
	}
}

func TestAnswersThatAreWrongBecome502(t *testing.T) {
	b := newBehind(t)
	px := serve(t, Config{}, b)
	check := px.calm(t)
	const upgrade = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
	for name, answer := range map[string]string{
		"a wrong Accept":             upgrade + "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOA=\r\n\r\n",
		"no Accept":                  upgrade + "\r\n",
		"two Accepts":                upgrade + "Sec-WebSocket-Accept: ACCEPT\r\nSec-WebSocket-Accept: ACCEPT\r\n\r\n",
		"no Upgrade":                 "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: ACCEPT\r\n\r\n",
		"a subprotocol nobody asked": upgrade + "Sec-WebSocket-Accept: ACCEPT\r\nSec-WebSocket-Protocol: other\r\n\r\n",
		"an extension nobody asked":  upgrade + "Sec-WebSocket-Accept: ACCEPT\r\nSec-WebSocket-Extensions: permessage-deflate\r\n\r\n",
		"a body with a 101":          upgrade + "Sec-WebSocket-Accept: ACCEPT\r\nContent-Length: 5\r\n\r\n",
		"no HTTP":                    "SSH-2.0-OpenSSH_9.2\r\n",
		"a head that is large":       upgrade + "X: " + strings.Repeat("x", 9000) + "\r\n\r\n",
		"two lengths":                "HTTP/1.1 404 Not Found\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nxx",
		"length and chunks":          "HTTP/1.1 404 Not Found\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			if got := exchange(t, px, b, answer, false); status(got) != "502" {
				t.Errorf("the client got %q", got)
			}
		})
	}
	t.Run("an end without an answer", func(t *testing.T) {
		if got := exchange(t, px, b, "HTTP/1.1 101 Swi", true); status(got) != "502" {
			t.Errorf("the client got %q", got)
		}
	})
	check()
	if n := px.Stats().Closed[ReasonBackendAnswer]; n != 12 {
		t.Errorf("%d were counted", n)
	}
}

func TestABackendThatNeverAnswersTheHandshakeIs504(t *testing.T) {
	b := newBehind(t)
	px := serve(t, Config{AnswerTimeout: 200 * time.Millisecond}, b)
	check := px.calm(t)
	c := px.dial(t)
	io.WriteString(c, request("/"))
	conn := b.conn()
	readHead(t, conn)
	if got := readAll(t, c); status(got) != "504" {
		t.Errorf("the client got %q", got)
	}
	if rest := readAll(t, conn); rest != "" {
		t.Errorf("the backend got %q", rest)
	}
	px.waitClosed(t, ReasonBackendNoAnswer, 1)
	check()
}

func TestAClientThatGoesBeforeTheAnswerTakesTheBackendsConnectionWithIt(t *testing.T) {
	b := newBehind(t)
	px := serve(t, Config{}, b)
	check := px.calm(t)
	c := px.dial(t)
	io.WriteString(c, request("/"))
	conn := b.conn()
	readHead(t, conn)
	c.SetLinger(0)
	c.Close()
	if rest := readAll(t, conn); rest != "" {
		t.Errorf("the backend got %q", rest)
	}
	px.waitClosed(t, ReasonClientGone, 1)
	check()
}

func TestChunksEndWhereverTheyAreCut(t *testing.T) {
	const in = "5\r\nhello\r\n1a;name=value\r\nabcdefghijklmnopqrstuvwxyz\r\n0\r\nTrailer: x\r\n\r\nbehind"
	for range 200 {
		var c chunks
		got := 0
		for rest := in; rest != ""; {
			n := 1 + rand.IntN(len(rest))
			k := c.next([]byte(rest[:n]))
			got += k
			if k < n {
				break
			}
			rest = rest[n:]
		}
		if want := len(in) - len("behind"); got != want || c.state != chunkEnd {
			t.Fatalf("%d bytes, state %d, want %d", got, c.state, want)
		}
	}
}
