package server

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

	"github.com/gobwas/ws"
	"golang.org/x/sys/unix"
)

// shutdown starts Shutdown and gives its end.
func (s *testServer) shutdown(timeout time.Duration) chan error {
	done := make(chan error, 1)
	go func() {
		ctx, cancel := context.WithTimeout(context.Background(), timeout)
		defer cancel()
		done <- s.Shutdown(ctx)
	}()
	return done
}

func TestShutdownSaysGoodbyeAndWaits(t *testing.T) {
	s := serve(t, Config{Loops: 2, CloseTimeout: patience}, nil)
	var all []*client
	for range 20 {
		all = append(all, s.open(t, "/echo"))
	}
	unspoken := s.dial(t)
	eventually(t, "all are there", func() bool { return s.Stats().Connections == 21 })
	done := s.shutdown(patience)
	for i, c := range all {
		c.wantClose(ws.StatusGoingAway)
		if i == len(all)-1 {
			select {
			case err := <-done:
				t.Errorf("Shutdown did not wait for the last: %v", err)
			default:
			}
		}
		c.close(ws.StatusGoingAway)
		c.wantEnd()
	}
	if b, err := io.ReadAll(unspoken); len(b) > 0 || err != nil {
		t.Errorf("a connection that had not said anything got %q, %v", b, err)
	}
	if err := receive(t, "Shutdown", done); err != nil {
		t.Error(err)
	}
	if c, err := net.Dial("tcp", s.addr); !errors.Is(err, unix.ECONNREFUSED) {
		t.Errorf("a new connection: %v, %v", c, err)
	}
	if n := s.shards[0].stats.Closed[ReasonDrain] + s.shards[1].stats.Closed[ReasonDrain]; n != 21 {
		t.Errorf("%d ended by drain", n)
	}
}

func TestStatsStayWhatTheyWereAtTheEnd(t *testing.T) {
	s := serve(t, Config{Loops: 2, CloseTimeout: 50 * time.Millisecond}, nil)
	for range 10 {
		s.open(t, "/echo") // and nobody answers the Close
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for st := (Stats{}); st.Closed[ReasonDrain] < 10; { // it never goes back, and comes to an end
			now := s.Stats()
			if now.Upgraded < st.Upgraded || now.Accepted < st.Accepted || now.Closed[ReasonDrain] < st.Closed[ReasonDrain] {
				t.Errorf("%+v, and then %+v", st, now)
				return
			}
			st = now
		}
	}()
	receive(t, "Shutdown", s.shutdown(patience))
	receive(t, "Stats", ended)
	if st := s.Stats(); st.Upgraded != 10 || st.Accepted != 10 || st.Closed[ReasonDrain] != 10 || st.Connections != 0 || st.WebSockets != 0 {
		t.Errorf("%+v", st)
	}
}

func TestShutdownOfNothingReturnsAtOnce(t *testing.T) {
	files := descriptors(t)
	s := serve(t, Config{Loops: 3}, nil)
	began := time.Now()
	if err := receive(t, "Shutdown", s.shutdown(patience)); err != nil {
		t.Error(err)
	}
	if d := time.Since(began); d > 2*time.Second {
		t.Errorf("took %v", d)
	}
	if err := receive(t, "a second Shutdown", s.shutdown(patience)); err != nil {
		t.Error(err)
	}
	eventually(t, "its descriptors are closed", func() bool { return descriptors(t) <= files })
}

func TestServerThatWasNeverStartedCanBeEndedAndAsked(t *testing.T) {
	files := descriptors(t)
	s, err := New(Config{Loops: 2})
	if err != nil {
		t.Fatal(err)
	}
	ts := &testServer{s, ""}
	if _, err := s.Listen("127.0.0.1:0"); err != nil {
		t.Fatal(err)
	}
	stats := make(chan Stats, 1)
	go func() { stats <- s.Stats() }()
	if st := receive(t, "Stats", stats); st.Connections != 0 {
		t.Errorf("%+v", st)
	}
	if err := receive(t, "Shutdown", ts.shutdown(patience)); err != nil {
		t.Error(err)
	}
	eventually(t, "its descriptors are closed", func() bool { return descriptors(t) <= files })
}

func TestShutdownRefusesHandshakesInProgress(t *testing.T) {
	s := serve(t, Config{}, nil)
	keep := s.open(t, "/echo") // so that Shutdown has something to wait for
	whole := request("/echo")
	half := s.dial(t)
	io.WriteString(half, whole[:40])
	eventually(t, "it is there", func() bool { return s.Stats().Connections == 2 })
	plain := s.dial(t)
	io.WriteString(plain, "GET /heal")
	eventually(t, "it is there", func() bool { return s.Stats().Connections == 3 })
	done := s.shutdown(patience)
	keep.wantClose(1001)
	io.WriteString(half, whole[40:])
	r, body := readAnswer(t, half)
	checkRefusal(t, r, body, 503, "shutting down")
	io.WriteString(plain, "thz HTTP/1.1\r\nHost: a\r\n\r\n")
	r, body = readAnswer(t, plain)
	checkRefusal(t, r, body, 503, "shutting down")
	keep.conn.Close()
	if err := receive(t, "Shutdown", done); err != nil {
		t.Error(err)
	}
}

func TestShutdownEndsTheRestAtItsDeadlineAndCountsThem(t *testing.T) {
	s := serve(t, Config{CloseTimeout: patience}, nil)
	var all []*client
	for range 3 {
		all = append(all, s.open(t, "/echo"))
	}
	began := time.Now()
	err := receive(t, "Shutdown", s.shutdown(200*time.Millisecond))
	if err == nil || !strings.Contains(err.Error(), "3 connections did not end in time") {
		t.Errorf("error %v", err)
	}
	if d := time.Since(began); d < 200*time.Millisecond || d > 3*time.Second {
		t.Errorf("took %v", d)
	}
	for _, c := range all {
		c.wantClose(1001)
		if f, err := c.next(); err == nil {
			t.Errorf("then %+v", f)
		}
	}
}

func TestShutdownDoesNotWaitForAStuckFunctionBeyondItsDeadline(t *testing.T) {
	stuck, release := make(chan bool, 1), make(chan bool)
	s := serve(t, Config{}, map[string]*Endpoint{"/stuck": {Blocking: func(Ref, ws.OpCode, []byte) {
		stuck <- true
		<-release
	}}})
	defer close(release)
	c := s.open(t, "/stuck")
	c.send(ws.OpText, nil)
	receive(t, "it is called", stuck)
	done := s.shutdown(200 * time.Millisecond)
	c.wantClose(1001)
	c.close(1001)
	if err := receive(t, "Shutdown", done); err == nil || !strings.Contains(err.Error(), "Blocking") {
		t.Errorf("error %v", err)
	}
}

func TestShutdownWaitsForFunctionsThatEnd(t *testing.T) {
	began, release, ended := make(chan bool, 1), make(chan bool), make(chan bool, 1)
	s := serve(t, Config{}, map[string]*Endpoint{"/slow": {Blocking: func(Ref, ws.OpCode, []byte) {
		began <- true
		<-release
		ended <- true
	}}})
	c := s.open(t, "/slow")
	c.send(ws.OpText, nil)
	receive(t, "it is called", began)
	done := s.shutdown(patience)
	c.wantClose(1001)
	c.close(1001)
	c.wantEnd()
	release <- true
	if err := receive(t, "Shutdown", done); err != nil || len(ended) != 1 {
		t.Errorf("error %v, ended %d", err, len(ended))
	}
}

func TestShutdownDeliversWhatWasInFlight(t *testing.T) {
	s := serve(t, Config{WriteTimeout: patience}, nil)
	c := s.open(t, "/echo")
	payload := bytes.Repeat([]byte("0123456789abcdef"), 1<<16)
	wrote := make(chan bool)
	go func() {
		for range 8 {
			c.conn.Write(masked(true, ws.OpBinary, payload))
		}
		close(wrote)
	}()
	eventually(t, "bytes wait for the peer", func() bool { return s.Stats().Buffered > 0 })
	before := s.Stats().BytesOut
	done := s.shutdown(patience)
	var got []byte
	for {
		f := c.frame()
		if f.op == ws.OpClose {
			break
		}
		got = append(got, f.payload...)
	}
	if uint64(len(got)) < before {
		t.Errorf("%d bytes were echoed before Shutdown, %d arrived", before, len(got))
	}
	for i := 0; i < len(got); i += 16 {
		if n := min(16, len(got)-i); !bytes.Equal(got[i:i+n], payload[:n]) {
			t.Fatalf("byte %d is wrong", i)
		}
	}
	receive(t, "all is written", wrote) // the server reads on and drops
	c.close(1001)
	c.wantEnd()
	if err := receive(t, "Shutdown", done); err != nil {
		t.Error(err)
	}
}

func TestShutdownDrainsPlainHTTP(t *testing.T) {
	s, err := New(Config{})
	if err != nil {
		t.Fatal(err)
	}
	inside, release := make(chan bool, 2), make(chan bool)
	s.Mux().HandleFunc("/slow", func(w http.ResponseWriter, _ *http.Request) {
		inside <- true
		<-release
		io.WriteString(w, "done")
	})
	ts := started(t, s)
	c := ts.dial(t)
	io.WriteString(c, "GET /slow HTTP/1.1\r\nHost: a\r\n\r\n")
	receive(t, "the request", inside)
	done := ts.shutdown(patience)
	eventually(t, "it drains", s.draining.Load)
	release <- true
	if r, body := readAnswer(t, c); r.StatusCode != 200 || body != "done" {
		t.Errorf("%v %q", r.Status, body)
	}
	if err := receive(t, "Shutdown", done); err != nil {
		t.Error(err)
	}
}

func TestPlainHTTPThatDoesNotEndIsNamed(t *testing.T) {
	s, err := New(Config{})
	if err != nil {
		t.Fatal(err)
	}
	inside := make(chan bool, 1)
	s.Mux().HandleFunc("/stuck", func(_ http.ResponseWriter, r *http.Request) {
		inside <- true
		<-r.Context().Done()
	})
	ts := started(t, s)
	io.WriteString(ts.dial(t), "GET /stuck HTTP/1.1\r\nHost: a\r\n\r\n")
	receive(t, "the request", inside)
	err = receive(t, "Shutdown", ts.shutdown(100*time.Millisecond))
	if err == nil || err.Error() != "plain HTTP requests did not end in time" {
		t.Errorf("error %v", err)
	}
}
