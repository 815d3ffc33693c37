package proxy

import (
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/gobwas/ws"
	"golang.org/x/sys/unix"
)

// However a backend ends, its client gets whole frames, and then a Close.
func TestABackendThatDiesCostsItsClientAClose(t *testing.T) {
	b := newBehind(t)
	px := serve(t, Config{}, b)
	check := px.calm(t)
	half := func(e *end, size, have int) []byte { return e.frameOf(true, ws.OpText, []byte(text(size)))[:have] }
	for name, die := range map[string]func(*end){
		"FIN": func(e *end) { e.conn.Close() },
		"RST": (*end).reset,
	} {
		for at, bytes := range map[string]func(*end) []byte{
			"between messages":  func(e *end) []byte { return nil },
			"in a small frame":  func(e *end) []byte { return half(e, 1000, 500) },
			"in a header":       func(e *end) []byte { return half(e, 1000, 3) },
			"in a large frame":  func(e *end) []byte { return half(e, 1<<20, 100_000) },
			"between fragments": func(e *end) []byte { return e.frameOf(false, ws.OpText, []byte("first")) },
			"in a large second fragment": func(e *end) []byte {
				return append(e.frameOf(false, ws.OpText, nil), e.frameOf(true, 0, []byte(text(40_000)))[:30_000]...)
			},
			"in a Close":                  func(e *end) []byte { return e.closeFrame(1000, "bye")[:4] },
			"behind a frame, in the next": func(e *end) []byte { return append(e.frameOf(true, ws.OpBinary, nil), half(e, 60_000, 20_000)...) },
		} {
			t.Run(name+" "+at, func(t *testing.T) {
				client, backend := px.open(t, b)
				passes(client, backend)
				sent := bytes(backend)
				backend.write(sent)
				die(backend)
				if got := client.wantClose(closeRestart); got != "the backend has gone" {
					t.Errorf("the client is told %q", got)
				}
				client.close(closeRestart, "")
				client.wantEnd()
				client.conn.Close()
			})
		}
	}
	check()
	px.waitClosed(t, ReasonBackendGone, 16)
}

// "The backend dies" as a process does that is killed in the middle of a
// message: what was passed on of the message are whole fragments.
func TestOfAMessageThatABackendDidNotEndTheClientHasWholeFragments(t *testing.T) {
	b := newBehind(t)
	px := serve(t, Config{}, b)
	client, backend := px.open(t, b)
	f := backend.frameOf(true, ws.OpText, []byte(text(1<<20)))
	backend.write(f[:300_000])
	backend.conn.Close()
	got := 0
	for {
		f := client.frame()
		if f.op == ws.OpClose {
			break
		}
		if f.fin {
			t.Errorf("a frame ends the message that was not ended")
		}
		got += len(f.payload)
	}
	if got != 300_000-10 {
		t.Errorf("%d bytes of payload came of %d", got, 300_000-10)
	}
}

func TestAClientThatDiesIsToldToTheBackend(t *testing.T) {
	b := newBehind(t)
	px := serve(t, Config{}, b)
	check := px.calm(t)
	for name, die := range map[string]func(*end){
		"FIN":                  func(e *end) { e.conn.Close() },
		"RST":                  (*end).reset,
		"FIN in a small frame": func(e *end) { e.write(e.frameOf(true, ws.OpText, []byte("hello"))[:8]); e.conn.Close() },
		"FIN in a large frame": func(e *end) { e.write(e.frameOf(true, ws.OpText, []byte(text(1<<20)))[:200_000]); e.conn.Close() },
	} {
		t.Run(name, func(t *testing.T) {
			client, backend := px.open(t, b)
			passes(client, backend)
			die(client)
			if got := backend.wantClose(ws.StatusGoingAway); got != "the client has gone" {
				t.Errorf("the backend is told %q", got)
			}
			backend.close(ws.StatusGoingAway, "")
			backend.conn.CloseWrite()
			backend.wantEnd()
			backend.conn.Close()
		})
	}
	px.waitClosed(t, ReasonClientGone, 4)
	check()
}

func TestAClientThatSendsFINStillGetsItsAnswers(t *testing.T) {
	b := newBehind(t)
	px := serve(t, Config{}, b)
	check := px.calm(t)
	client, backend := px.open(t, b)
	client.send(ws.OpText, "question")
	client.conn.CloseWrite()
	backend.want("question")
	backend.wantClose(ws.StatusGoingAway)
	backend.send(ws.OpText, text(200_000))
	backend.close(ws.StatusGoingAway, "")
	client.want(text(200_000))
	client.wantClose(ws.StatusGoingAway)
	client.wantEnd()
	client.conn.Close()
	backend.conn.Close()
	check()
}

func TestABackendThatSendsCloseAndFINStillGetsTheAnswer(t *testing.T) {
	b := newBehind(t)
	px := serve(t, Config{}, b)
	check := px.calm(t)
	client, backend := px.open(t, b)
	backend.close(1000, "done")
	backend.conn.CloseWrite()
	client.wantClose(1000)
	time.Sleep(20 * time.Millisecond) // the FIN is there before the answer
	client.close(1000, "")
	backend.wantClose(1000)
	backend.wantEnd()
	client.wantEnd()
	client.conn.Close()
	backend.conn.Close()
	check()
}

// fill sends messages until nothing more is taken, and returns how many bytes were.
func (e *end) flood(t *testing.T) (sent int) {
	t.Helper()
	f := e.frameOf(true, ws.OpBinary, make([]byte, 32<<10))
	rest := f
	for {
		e.conn.SetWriteDeadline(time.Now().Add(300 * time.Millisecond))
		n, err := e.conn.Write(rest)
		sent += n
		if rest = rest[n:]; len(rest) == 0 {
			rest = f
		}
		if err != nil {
			e.conn.SetWriteDeadline(time.Now().Add(patience))
			return sent
		}
		if sent > 200<<20 {
			t.Fatal("no end of what is taken")
		}
	}
}

func TestASideThatDoesNotReadHoldsTheOtherBack(t *testing.T) {
	b := newBehind(t)
	px := serve(t, Config{}, b)
	for _, slow := range []string{"backend", "client"} {
		t.Run(slow, func(t *testing.T) {
			check := px.calm(t)
			client, backend := px.open(t, b)
			from, to := client, backend
			if slow == "client" {
				from, to = backend, client
			}
			sent := from.flood(t)
			held := px.Stats().Buffered
			t.Logf("%d bytes were taken, %d of them are in the proxy", sent, held)
			if most := int64(pauseAt + readBuffer + 64<<10); held > 2*most || held == 0 {
				t.Errorf("%d bytes are held, at most %d, in a buffer of twice that, should be", held, most)
			}
			// The other direction is not held up by that.
			to.send(ws.OpText, "still here")
			from.want("still here")
			// And when it reads, it gets everything.
			got := 0
			for want := sent / (32<<10 + 8) * (32 << 10); got < want; {
				got += len(to.frame().payload)
			}
			eventually(t, "nothing is held", func() bool { return px.Stats().Buffered <= 33<<10 })
			client.reset()
			backend.reset()
			check()
		})
	}
}

func TestASideThatTakesNoBytesIsGivenUp(t *testing.T) {
	b := newBehind(t)
	px := serve(t, Config{WriteTimeout: 1500 * time.Millisecond}, b)
	check := px.calm(t)
	client, backend := px.open(t, b)
	client.flood(t)
	if got := client.wantClose(closeTryAgain); got != "the backend takes no bytes; try again later" {
		t.Errorf("the client is told %q", got)
	}
	client.reset()
	backend.conn.Close()
	px.waitClosed(t, ReasonBackendStalled, 1)

	client, backend = px.open(t, b)
	backend.flood(t)
	backend.wantClose(ws.StatusGoingAway)
	backend.reset()
	client.conn.Close()
	px.waitClosed(t, ReasonClientStalled, 1)
	check()
}

// deafen makes a socket drop everything that arrives, so that nothing of it is
// acknowledged: to the other end the machine has vanished.
func deafen(t *testing.T, conn halfConn) {
	t.Helper()
	raw, err := conn.(*net.TCPConn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	drop := []unix.SockFilter{{Code: unix.BPF_RET | unix.BPF_K, K: 0}}
	var ctlErr error
	err = raw.Control(func(fd uintptr) {
		ctlErr = unix.SetsockoptSockFprog(int(fd), unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &unix.SockFprog{Len: 1, Filter: &drop[0]})
	})
	if err != nil || ctlErr != nil {
		t.Fatal(err, ctlErr)
	}
}

func TestAClientThatVanishesIsFoundByThePingAndTheKernel(t *testing.T) {
	b := newBehind(t)
	var log lockedLog
	px := serve(t, Config{IdleTimeout: 20 * time.Second, VanishTimeout: 500 * time.Millisecond, Access: log.logger()}, b)
	check := px.calm(t)
	client, backend := px.open(t, b)
	passes(client, backend)
	deafen(t, client.conn)
	backend.send(ws.OpText, "is anybody there?")
	if got := backend.wantClose(ws.StatusGoingAway); got != "the client has gone" {
		t.Errorf("the backend is told %q", got)
	}
	backend.close(ws.StatusGoingAway, "")
	backend.conn.Close()
	client.conn.Close()
	px.waitClosed(t, ReasonClientGone, 1)
	check()
}

func TestABackendThatVanishesIsFound(t *testing.T) {
	b := newBehind(t)
	px := serve(t, Config{VanishTimeout: 500 * time.Millisecond}, b)
	check := px.calm(t)
	client, backend := px.open(t, b)
	passes(client, backend)
	deafen(t, backend.conn)
	client.send(ws.OpText, "is anybody there?")
	client.wantClose(closeRestart)
	client.close(closeRestart, "")
	client.conn.Close()
	backend.conn.Close()
	px.waitClosed(t, ReasonBackendGone, 1)
	check()
}

func TestTheAccessLogTellsOfEveryRequestOnce(t *testing.T) {
	b := newBehind(t)
	var log lockedLog
	px := serve(t, Config{Access: log.logger()}, b)
	client, backend := px.openWith(t, b, request("/room/7?token=secret"))
	passes(client, backend)
	client.send(ws.OpBinary, strings.Repeat("x", 1000))
	backend.want(strings.Repeat("x", 1000))
	client.close(4003, "tired")
	backend.wantClose(4003)
	backend.close(4003, "")
	client.wantClose(4003)
	client.wantEnd()
	client.conn.Close()
	backend.conn.Close()
	px.answerTo(t, request("/bad", "Sec-WebSocket-Key:"))
	c := px.dial(t) // a connection without a request is nothing to tell of
	c.Close()
	eventually(t, "all have ended", func() bool { return px.Stats().Connections == 0 })
	lines := strings.Split(strings.TrimSpace(log.String()), "\n")
	if len(lines) != 2 {
		t.Fatalf("the log has\n%s", log.String())
	}
	up := 6 + 14 + 8 + 1000 + len(client.closeFrame(4003, "tired"))
	down := 2 + 13 + len(backend.closeFrame(4003, ""))
	for _, part := range []string{
		"client=" + client.conn.LocalAddr().String(), "path=/room/7 ", "status=101", "backend=" + b.addr, "duration=",
		fmt.Sprintf("messages_up=2 bytes_up=%d messages_down=1 bytes_down=%d", up, down), `end="client closed" code=4003 reason=tired`,
	} {
		if !strings.Contains(lines[0], part) {
			t.Errorf("no %q in %s", part, lines[0])
		}
	}
	for _, part := range []string{"path=/bad ", "status=400", "end=refused"} {
		if !strings.Contains(lines[1], part) {
			t.Errorf("no %q in %s", part, lines[1])
		}
	}
	if strings.Contains(log.String(), "secret") {
		t.Error("the query is in the log")
	}
}
