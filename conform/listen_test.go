package conform

import (
	"context"
	"crypto/rand"
	"fmt"
	"net"
	"strconv"
	"sync"
	"testing"
	"time"

	"wspoll/frame"
	"wspoll/handshake"

	"github.com/gobwas/ws"
)

// echoClient is a client of the project's own packages, with the driver that clients of the industry's suite have. The
// zero value is right.
type echoClient struct {
	trusts  bool // takes every answer for a 101
	noPong  bool
	noMask  bool
	oneKey  bool
	oneNone bool // sends the same Sec-WebSocket-Key each time
}

// visit opens a path and hands every message to got, which returns what to send back; until the connection is over.
func (e *echoClient) visit(addr, path string, got func(op ws.OpCode, msg []byte) bool) error {
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		return err
	}
	defer conn.Close()
	var nonce [16]byte
	if !e.oneNone {
		rand.Read(nonce[:])
	}
	hello := handshake.Hello{Host: addr, Target: path, Key: handshake.AppendKey(nil, nonce)}
	conn.Write(handshake.AppendRequest(nil, &hello))

	var in, out []byte
	b := make([]byte, 64<<10)
	for open := false; !open; {
		n, err := conn.Read(b)
		in = append(in, b[:n]...)
		var resp handshake.Response
		size, bad := handshake.ParseResponse(in, nil, &resp)
		switch {
		case bad != nil:
			return bad
		case size > 0:
			if bad := resp.Check(&hello); bad != nil && !e.trusts {
				return bad
			}
			in, open = in[size:], true
		case err != nil:
			return err
		}
	}

	key := func() (k [4]byte) {
		if !e.oneKey {
			rand.Read(k[:])
		}
		return k
	}
	rules := frame.Rules{Client: true, Mask: key}
	var c frame.Conn
	var j frame.Joiner
	for {
		var piece frame.Piece
		n, o, err := c.Next(&rules, in, out[:0], &piece)
		in, out = in[n:], o
		if e.noPong && piece.Op == ws.OpPing {
			out = out[:0]
		}
		if n > 0 && err == nil && piece.Op.IsData() {
			if msg, whole := j.Add(&piece); whole {
				if got(piece.Op, msg) {
					if e.noMask {
						out = frame.AppendFrame(out, true, piece.Op, msg)
					} else {
						out = frame.AppendMasked(out, true, piece.Op, key(), msg)
					}
				}
				j.Buf = j.Buf[:0]
			}
		}
		conn.Write(out)
		switch {
		case err != nil:
			return err
		case n > 0:
		default:
			m, err := conn.Read(b)
			if in = append(in, b[:m]...); m == 0 && err != nil {
				return nil
			}
		}
	}
}

// drive does what a driver does: ask for the number of cases, run each of the numbers, end.
func (e *echoClient) drive(t *testing.T, addr string, agent string) {
	t.Helper()
	count := 0
	err := e.visit(addr, "/getCaseCount", func(_ ws.OpCode, msg []byte) bool {
		count, _ = strconv.Atoi(string(msg))
		return false
	})
	if err != nil || count == 0 {
		t.Errorf("getCaseCount: %d cases, %v", count, err)
	}
	echo := func(ws.OpCode, []byte) bool { return true }
	next := make(chan int)
	var all sync.WaitGroup
	for range 4 {
		all.Go(func() {
			for n := range next {
				e.visit(addr, fmt.Sprintf("/runCase?case=%d&agent=%s", n, agent), echo)
			}
		})
	}
	for n := 1; n <= count; n++ {
		next <- n
	}
	close(next)
	all.Wait()
	if err := e.visit(addr, "/updateReports?agent="+agent, echo); err != nil {
		t.Errorf("updateReports: %v", err)
	}
}

// tested runs cases against a client.
func tested(t *testing.T, e *echoClient, cases []Case, timeout time.Duration) []Result {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go e.drive(t, l.Addr().String(), "our%20client")
	results, agent := Listen(t.Context(), l, cases, Options{Timeout: timeout}, nil)
	if agent != "our client" {
		t.Errorf("the agent is %q", agent)
	}
	return results
}

func TestOurClientPassesEveryCaseStrictly(t *testing.T) {
	cases := Cases(Client)
	results := tested(t, &echoClient{}, cases, patience)
	if len(results) != len(cases) {
		t.Errorf("%d results of %d cases", len(results), len(cases))
	}
	for i := range results {
		if r := &results[i]; r.ID != cases[i].ID || r.Verdict != OK {
			t.Errorf("%s", text1(r))
		}
	}
}

func TestWrongClientsAreCaught(t *testing.T) {
	for _, tt := range []struct {
		name   string
		client echoClient
		caught []string
		as     Verdict
	}{
		{"takes any answer for a 101", echoClient{trusts: true}, []string{
			"rfc6455-4.1-answer-4-accept-missing", "rfc6455-4.1-answer-4-accept-of-another-key", "rfc6455-4.1-answer-4-accept-in-other-case",
			"rfc6455-4.1-answer-2-upgrade-missing", "rfc6455-4.1-answer-1-status-200", "rfc6455-4.1-answer-6-subprotocol-not-offered",
			"rfc6455-4.1-answer-5-extension-not-offered",
		}, Failed},
		{"does not mask", echoClient{noMask: true}, []string{"rfc6455-5.6-text-1", "rfc6455-5.3-keys-of-the-client"}, Failed},
		{"masks with one key", echoClient{oneKey: true}, []string{"rfc6455-5.3-keys-of-the-client"}, Failed},
		{"does not answer pings", echoClient{noPong: true}, []string{"rfc6455-5.5.2-ping-5"}, Failed},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			cases, bad := Select(Cases(Client), tt.caught)
			if bad != "" {
				t.Fatalf("there is no case %s", bad)
			}
			for _, r := range tested(t, &tt.client, cases, 500*time.Millisecond) {
				if r.Verdict != tt.as {
					t.Errorf("verdict %s, want %s\n%s", r.Verdict, tt.as, text1(&r))
				}
			}
		})
	}
}

func TestAClientThatSendsTheSameKeyAgainIsCaught(t *testing.T) {
	one, _ := Select(Cases(Client), []string{"rfc6455-4.1-request"})
	results := tested(t, &echoClient{oneNone: true}, append(one, one...), patience)
	worst := OK
	for _, r := range results {
		worst = max(worst, r.Verdict)
	}
	if len(results) != 2 || worst != Failed {
		t.Errorf("results %+v", results)
	}
}

func TestListenRefusesWhatItDoesNotKnow(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	over := make(chan []Result)
	go func() {
		results, _ := Listen(ctx, l, Cases(Client)[:3], Options{Timeout: patience}, nil)
		over <- results
	}()
	e := &echoClient{}
	for _, path := range []string{"/", "/runCase", "/runCase?case=0", "/runCase?case=4", "/runCase?case=x", "/other"} {
		var refused *handshake.AnswerError
		err := e.visit(l.Addr().String(), path, nil)
		if err, ok := err.(*handshake.AnswerError); ok {
			refused = err
		}
		if refused == nil || refused.Status != 404 {
			t.Errorf("%s: %v, want a 404", path, err)
		}
	}
	cancel()
	if results := <-over; len(results) != 0 {
		t.Errorf("results %v", results)
	}
}

func TestARequestThatIsWrongFailsItsCase(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		conn, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			return
		}
		defer conn.Close()
		fmt.Fprintf(conn, "GET /runCase?case=1&agent=x HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: short\r\n\r\n")
		conn.SetReadDeadline(time.Now().Add(patience))
		for b := make([]byte, 4096); err == nil; {
			_, err = conn.Read(b)
		}
		(&echoClient{}).visit(l.Addr().String(), "/updateReports?agent=x", nil)
	}()
	results, agent := Listen(t.Context(), l, Cases(Client)[:1], Options{Timeout: patience}, nil)
	if len(results) != 1 || results[0].Verdict != Failed || agent != "x" {
		t.Fatalf("agent %q, results %+v", agent, results)
	}
	if want := "the request was refused"; len(results[0].Why()) < len(want) || results[0].Why()[:len(want)] != want {
		t.Errorf("%s", text1(&results[0]))
	}
}
