package cluster

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"wspoll/server"

	"github.com/gobwas/ws"
	"github.com/gobwas/ws/wsutil"
	"github.com/nats-io/nats.go"
)

const patience = 30 * time.Second

// scripted is a NATS without JetStream that returns what it gets, unless drop
// says that it does not.
type scripted struct {
	l      net.Listener
	joined chan net.Conn // connections that have subscribed to the topics

	mu   sync.Mutex
	drop func(payload string) bool
}

func newScripted(t *testing.T) *scripted {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &scripted{l: l, joined: make(chan net.Conn, 10), drop: func(string) bool { return false }}
	var all sync.WaitGroup
	all.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			all.Go(func() { defer c.Close(); s.serve(c) })
		}
	})
	t.Cleanup(func() { l.Close(); all.Wait() })
	return s
}

func (s *scripted) serve(c net.Conn) {
	io.WriteString(c, `INFO {"server_id":"x","version":"2.10.0","proto":1,"headers":true,"max_payload":1048576}`+"\r\n")
	in := bufio.NewReader(c)
	var inbox, topics string
	for {
		line, err := in.ReadString('\n')
		if err != nil {
			return
		}
		f := strings.Fields(line)
		switch f[0] {
		case "PING":
			io.WriteString(c, "PONG\r\n")
		case "SUB":
			if strings.HasPrefix(f[1], "_INBOX.") {
				inbox = f[2]
				continue
			}
			topics = f[2]
			s.joined <- c
		case "PUB", "HPUB":
			var size, head int
			fmt.Sscan(f[len(f)-1], &size)
			if f[0] == "HPUB" {
				fmt.Sscan(f[len(f)-2], &head)
			}
			body := make([]byte, size+2)
			if _, err := io.ReadFull(in, body); err != nil {
				return
			}
			if strings.HasPrefix(f[1], "$JS.API.") { // nobody answers
				const none = "NATS/1.0 503\r\n\r\n"
				fmt.Fprintf(c, "HMSG %s %s %d %d\r\n%s\r\n", f[2], inbox, len(none), len(none), none)
				continue
			}
			s.mu.Lock()
			drop := s.drop(string(body[head:size]))
			s.mu.Unlock()
			if !drop {
				fmt.Fprintf(c, "HMSG %s %s %d %d\r\n%s", f[1], topics, head, size, body)
			}
		}
	}
}

// lines is a log.
type lines struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lines) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lines) count(part string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Count(l.b.String(), part)
}

// joined is a server that shares its topics through s, and a subscriber with
// numbers, to topic x.
type joined struct {
	t      *testing.T
	link   *Link
	topics *server.Topics
	log    *lines
	conn   net.Conn
	in     io.Reader // of conn
	peer   net.Conn  // NATS's side of the link
}

func join(t *testing.T, s *scripted) *joined {
	t.Helper()
	srv, err := server.New(server.Config{Loops: 1})
	if err != nil {
		t.Fatal(err)
	}
	j := &joined{t: t, topics: srv.Topics(), log: &lines{}}
	j.link, err = Join(t.Context(), Config{URLs: "nats://" + s.l.Addr().String(), Subject: "wspoll.topics", Log: slog.New(slog.NewTextHandler(j.log, nil))}, srv.Topics())
	if err != nil {
		t.Fatal(err)
	}
	j.peer = <-s.joined
	if err := srv.Handle("/topics/", srv.Topics().Endpoint()); err != nil {
		t.Fatal(err)
	}
	addr, err := srv.Listen("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	srv.Start()
	var early *bufio.Reader // has what came with the answer
	if j.conn, early, _, err = ws.Dial(t.Context(), "ws://"+addr.String()+"/topics/x?seq=1"); err != nil {
		t.Fatal(err)
	}
	j.in = j.conn
	if early != nil {
		j.in = io.MultiReader(io.LimitReader(early, int64(early.Buffered())), j.conn)
	}
	j.conn.SetDeadline(time.Now().Add(patience))
	t.Cleanup(func() {
		ctx, cancel := context.WithCancel(context.Background())
		cancel() // at once
		j.link.Close(ctx)
		j.conn.Close()
		srv.Shutdown(ctx)
	})
	j.hears("at ")
	return j
}

// hears reads the next message, which must begin like this.
func (j *joined) hears(want string) string {
	j.t.Helper()
	b, err := wsutil.ReadServerText(struct {
		io.Reader
		io.Writer
	}{j.in, j.conn})
	if err != nil || !strings.HasPrefix(string(b), want) {
		j.t.Fatalf("%q came, not %q: %v", b, want, err)
	}
	return string(b)
}

func (j *joined) publish(text string) server.Published {
	j.t.Helper()
	ctx, cancel := context.WithTimeout(j.t.Context(), patience)
	defer cancel()
	p, err := j.topics.PublishWait(ctx, "x", ws.OpText, []byte(text))
	if err != nil {
		j.t.Errorf("%s: %v", text, err)
	}
	return p
}

// One that was lost between two that were not is sent again, and taken again.
func TestMessageThatDidNotComeBackIsSentAgain(t *testing.T) {
	s := newScripted(t)
	lost := false
	s.drop = func(payload string) bool {
		first := payload == "one" && !lost
		lost = lost || first
		return first
	}
	j := join(t, s)
	if _, err := j.topics.Publish("x", ws.OpText, []byte("one")); err != nil {
		t.Fatal(err)
	}
	if p := j.publish("two"); p.Waiting {
		t.Errorf("%+v", p)
	}
	if l := j.hears("seq "); !strings.HasSuffix(l, "\ntwo") {
		t.Errorf("%q came first", l)
	}
	if l := j.hears("seq "); !strings.HasSuffix(l, "\none") {
		t.Errorf("%q came, not what was lost", l)
	}
	if n := j.log.count("sent again"); n != 1 {
		t.Errorf("it is logged %d times", n)
	}
}

// The client of NATS gives up for ever when NATS says such a thing.
func TestNATSThatCallsUsASlowConsumerIsConnectedToAgain(t *testing.T) {
	s := newScripted(t)
	j := join(t, s)
	j.publish("one")
	j.hears("seq ")
	io.WriteString(j.peer, "-ERR 'Slow Consumer'\r\n")
	select {
	case <-s.joined:
	case <-time.After(patience):
		t.Fatal("nobody comes again")
	}
	j.publish("two")
	var gap bool
	for l := ""; !strings.HasSuffix(l, "\ntwo"); {
		l = j.hears("")
		gap = gap || strings.HasPrefix(l, "gap ")
	}
	if !gap {
		t.Error("subscribers are not told of a gap")
	}
}

func TestMessagesThatAreDroppedAreAGapBehindThoseThatWait(t *testing.T) {
	j := join(t, newScripted(t))
	j.publish("one")
	j.hears("seq ")
	j.link.asyncError(nats.ErrSlowConsumer)
	for range 100 { // the first that comes after it is noticed is before the hole
		j.publish("more")
		if l := j.hears(""); strings.HasPrefix(l, "gap ") {
			j.hears("seq ")
			if n := j.log.count("faster than they can be sent"); n != 1 {
				t.Errorf("it is logged %d times", n)
			}
			return
		}
	}
	t.Error("no gap is told")
}

func TestWhatOtherServersSendAgainIsTakenOnce(t *testing.T) {
	r := &run{seen: map[string]*heard{}}
	for i, tt := range []struct {
		id   uint64
		want bool
	}{
		{5, true},
		{5, false},
		{4, false},
		{8, true},
		{6, true},
		{6, false},
		{7, true},
		{8, false},
		{9, true},
		{9 + 2*maxWaiting, true},
		{11, false},
		{10 + 2*maxWaiting, true},
	} {
		if got := r.isNew("a", tt.id); got != tt.want {
			t.Errorf("step %d, count %d: %v", i, tt.id, got)
		}
	}
	if n := len(r.seen["a"].missing); n != 0 {
		t.Errorf("%d are missing", n)
	}
}

func TestIDsOfOtherProgramsMeanNothing(t *testing.T) {
	for s, want := range map[string]string{"": "", "order-17": "", "wspoll:abc-17": "wspoll:abc", "wspoll:abc": "", "wspoll:abc-x": ""} {
		if from, _ := parseID(s); from != want {
			t.Errorf("%q is of %q, want %q", s, from, want)
		}
	}
}

func TestRedactedURLsHaveNoSecrets(t *testing.T) {
	if s := Redacted("nats://me:secret@a:1, tls://token@b:2"); s != "nats://a:1,tls://b:2" {
		t.Error(s)
	}
}
