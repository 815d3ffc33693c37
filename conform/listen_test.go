package conform

import (
	"context"
	"crypto/rand"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
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

	offers    string // Sec-WebSocket-Extensions
	oneWindow bool   // goes on with its window whatever was agreed
	farBack   bool   // reaches back as far as it likes
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
	hello := handshake.Hello{Host: addr, Target: path, Key: handshake.AppendKey(nil, nonce), Extensions: e.offers}
	zip := clientZip{echoClient: e}
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
			zip.agreed = resp.Deflate
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
	rules := frame.Rules{Client: true, Mask: key, RSV1: zip.agreed.On}
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
			code := ws.StatusCode(0)
			if piece.Compressed {
				code = zip.inflate(&piece)
			}
			if code != 0 {
				conn.Write(frame.AppendMaskedClose(out, key(), code, ""))
				conn.(*net.TCPConn).CloseWrite()
				conn.SetReadDeadline(time.Now().Add(patience))
				io.Copy(io.Discard, conn)
				return nil
			}
			if msg, whole := j.Add(&piece); whole {
				if piece.Compressed {
					msg = zip.msg
				}
				switch echo := got(piece.Op, msg); {
				case !echo:
				case e.noMask:
					out = frame.AppendFrame(out, true, piece.Op, msg)
				case piece.Compressed:
					begin := len(out)
					out = frame.AppendMasked(out, true, piece.Op, key(), zip.squeeze(msg))
					out[begin] |= rsv1
				default:
					out = frame.AppendMasked(out, true, piece.Op, key(), msg)
				}
				j.Buf, zip.msg = j.Buf[:0], nil
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

// clientZip is what a connection keeps for permessage-deflate.
type clientZip struct {
	*echoClient
	agreed handshake.Deflate
	z      *frame.Inflater
	out    stream
	text   frame.UTF8
	msg    []byte
}

// inflate takes a piece of a compressed message; the result is the code to fail with, 0 for none.
func (c *clientZip) inflate(p *frame.Piece) ws.StatusCode {
	if fresh := c.z == nil; fresh || p.First && c.agreed.ServerNoContext {
		if fresh {
			c.z = frame.NewInflater()
		}
		c.z.Resume(nil, c.agreed.ServerBits)
	}
	if p.First {
		c.text = 0
	}
	in := p.Data
	for more := true; more; {
		out, n, again, err := c.z.Next(in, p.Last)
		in, more = in[n:], again
		if c.msg = append(c.msg, out...); err != nil || len(c.msg) > 32<<20 {
			return ws.StatusInvalidFramePayloadData + 2*ws.StatusCode(b2i(err == nil)) // 1007, 1009
		}
		if p.Op == ws.OpText {
			if _, ok := c.text.Write(out); !ok {
				return ws.StatusInvalidFramePayloadData
			}
		}
	}
	if p.Op == ws.OpText && p.Last && !c.text.Done() {
		return ws.StatusInvalidFramePayloadData
	}
	return 0
}

func (c *clientZip) squeeze(msg []byte) []byte {
	bits := c.agreed.ClientBits
	if c.farBack {
		bits = 15
	}
	wire, _ := c.out.squeeze(msg, bits).message()
	if c.agreed.ClientNoContext && !c.oneWindow {
		c.out.forget()
	}
	return wire
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
	// What a client does not offer or ask for cannot be tested; no case may be left that none of these clients has run.
	untested := map[string]bool{}
	for i, offers := range []string{
		"", "permessage-deflate; client_max_window_bits", "permessage-deflate; server_no_context_takeover; server_max_window_bits=12; client_no_context_takeover",
	} {
		cases := affordable(Cases(Client))
		if i > 0 {
			cases, _ = Select(cases, []string{"rfc7692-*"})
		}
		results := tested(t, &echoClient{offers: offers}, cases, patience)
		if len(results) != len(cases) {
			t.Errorf("%d results of %d cases", len(results), len(cases))
		}
		done := 0
		for j := range results {
			r := &results[j]
			switch {
			case r.ID == cases[j].ID && r.Verdict == OK:
				delete(untested, r.ID)
				done++
			case r.ID == cases[j].ID && r.Verdict == Unimplemented && strings.HasPrefix(r.ID, "rfc7692-"):
				untested[r.ID] = i == 0 || untested[r.ID]
			default:
				t.Errorf("offering %q: %s", offers, text1(r))
			}
		}
		t.Logf("offering %q: %d of %d cases", offers, done, len(results))
		if i == 0 {
			continue
		}
		for id, never := range untested {
			if !never {
				delete(untested, id) // an earlier client has passed it
			}
		}
	}
	for id := range untested {
		t.Errorf("%s: nobody offers what it needs", id)
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
		{"takes any answer to its offer", echoClient{trusts: true, offers: "permessage-deflate; client_max_window_bits"}, []string{
			"rfc7692-7.1-answer-bad-unknown", "rfc7692-7.1-answer-bad-server-bits-7", "rfc7692-7.1-answer-bad-client-bits-266", "rfc7692-7.1-answer-bad-server-bits-doubled",
			"rfc7692-7.1-answer-bad-server-no-context-value", "rfc7692-7.1.2.2-answer-client-bits-without-value", "rfc7692-5-answer-twice", "rfc7692-5-answer-on-two-lines",
			"rfc7692-5-answer-of-another", "rfc7692-5-answer-and-another", "rfc7692-5-answer-malformed",
		}, Failed},
		{"takes any answer to its demands", echoClient{trusts: true, offers: "permessage-deflate; server_no_context_takeover; server_max_window_bits=12"}, []string{
			"rfc7692-7.1.2.2-answer-client-bits-not-offered", "rfc7692-7.1.2.1-answer-server-bits-above", "rfc7692-7.1.2.1-answer-server-bits-missing",
			"rfc7692-7.1.1.1-answer-server-no-context-missing",
		}, Failed},
		{"takes an answer to no offer", echoClient{trusts: true}, []string{"rfc7692-5-answer-not-offered"}, Failed},
		{"goes on with its window", echoClient{oneWindow: true, offers: "permessage-deflate"}, []string{
			"rfc7692-7.1.1.2-answer-client-no-context", "rfc7692-7.1.1-takeover-ours-on-peer-off-replies", "rfc7692-7.1-answer-both-no-context",
		}, Failed},
		{"reaches back as far as it likes", echoClient{farBack: true, offers: "permessage-deflate; client_max_window_bits"}, []string{
			"rfc7692-7.1.2.2-answer-client-bits-8", "rfc7692-7.1.2-window-8-peer", "rfc7692-7.1.2-window-14-peer-messages",
		}, Failed},
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

func TestNameOfAClientSteersNoTerminal(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go (&echoClient{}).visit(l.Addr().String(), "/updateReports?agent=a%1b%5b31m%0ab%c2%9b", nil)
	if _, agent := Listen(t.Context(), l, nil, Options{Timeout: patience}, nil); agent != "a\ufffd[31m b\ufffd" {
		t.Errorf("the agent is %q", agent)
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
