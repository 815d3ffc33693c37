package server

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"wspoll/epoll"

	"github.com/gobwas/ws"
)

// withTopics is a server with topics at /topics/.
func withTopics(t testing.TB, cfg Config) *testServer {
	t.Helper()
	s, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Handle("/echo", Echo()); err != nil {
		t.Fatal(err)
	}
	if err := s.Handle("/topics/", s.Topics().Endpoint()); err != nil {
		t.Fatal(err)
	}
	addr, err := s.Listen("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s.Start()
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
		defer cancel()
		s.Shutdown(ctx) // what a test left open is not its subject
	})
	return &testServer{s, addr.String()}
}

func (s *testServer) publish(t testing.TB, topic, text string) Published {
	t.Helper()
	p, err := s.Topics().Publish(topic, ws.OpText, []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// subscribers waits until a topic has n of them.
func (s *testServer) subscribers(t testing.TB, topic string, n int) {
	t.Helper()
	eventually(t, fmt.Sprint(n, " subscribers of ", topic), func() bool { return s.info(topic).Subscribers == n })
}

func (s *testServer) info(topic string) TopicInfo {
	for _, i := range s.Topics().List() {
		if i.Name == topic {
			return i
		}
	}
	return TopicInfo{}
}

// hears reads messages, which must be these.
func (c *client) hears(want ...string) {
	c.t.Helper()
	for _, w := range want {
		if _, got := c.message(); string(got) != w {
			c.t.Fatalf("got %.80q, want %.80q", got, w)
		}
	}
}

func TestPublishedMessageReachesEverySubscriberInOrder(t *testing.T) {
	s := withTopics(t, Config{Loops: 3})
	var all []*client
	for range 30 {
		all = append(all, s.open(t, "/topics/news"))
	}
	other := s.open(t, "/topics/other")
	s.subscribers(t, "news", 30)
	for i := range 100 {
		if p := s.publish(t, "news", fmt.Sprint("item ", i)); p.Queued != 30 || p.Seq == 0 || p.Topic != "news" {
			t.Fatalf("%+v", p)
		}
	}
	if p, err := s.Topics().Publish("news", ws.OpBinary, []byte{0xff, 0}); err != nil || p.Queued != 30 {
		t.Fatalf("%+v, %v", p, err)
	}
	for _, c := range all {
		for i := range 100 {
			c.hears(fmt.Sprint("item ", i))
		}
		if op, got := c.message(); op != ws.OpBinary || !bytes.Equal(got, []byte{0xff, 0}) {
			t.Fatalf("opcode %d, %x", op, got)
		}
	}
	s.publish(t, "other", "only this")
	other.hears("only this")
	if st := s.Stats(); st.Published != 102 || st.FramesOut != 30*101+1 || st.BytesOut == 0 || st.Buffered != 0 {
		t.Errorf("%+v", st)
	}
}

func TestOrderIsTheSameForAllWhoeverPublishes(t *testing.T) {
	s := withTopics(t, Config{Loops: 2})
	const publishers, each = 8, 100
	var all []*client
	for range 6 {
		all = append(all, s.open(t, "/topics/race"))
	}
	s.subscribers(t, "race", len(all))
	var wg sync.WaitGroup
	for p := range publishers {
		wg.Go(func() {
			for i := range each {
				s.publish(t, "race", fmt.Sprint(p, " ", i))
			}
		})
	}
	var first []string
	for n, c := range all {
		var got []string
		for range publishers * each {
			_, m := c.message()
			got = append(got, string(m))
		}
		if n == 0 {
			first = got
		}
		if !slices.Equal(got, first) {
			t.Fatalf("subscriber %d has another order than subscriber 0", n)
		}
	}
	wg.Wait()
	for p := range publishers {
		next := 0
		for _, m := range first {
			if rest, ok := strings.CutPrefix(m, fmt.Sprint(p, " ")); ok {
				if rest != fmt.Sprint(next) {
					t.Fatalf("publisher %d: %s comes where %d should", p, rest, next)
				}
				next++
			}
		}
	}
}

func TestNewcomerGetsTheRetainedMessageOnceAndThenTheLiveOnes(t *testing.T) {
	s := withTopics(t, Config{Loops: 2, Topics: TopicConfig{Retain: []string{"price.*"}}})
	if p := s.publish(t, "price.tea", "0"); p.Queued != 0 || p.Seq == 0 {
		t.Errorf("%+v", p)
	}
	if p := s.publish(t, "other", "lost"); p.Seq != 0 {
		t.Errorf("%+v of a topic that nobody has and that keeps nothing", p)
	}
	stop, done := make(chan bool), make(chan int)
	go func() { // while it changes all the time
		n := 1
		for ; ; n++ {
			select {
			case <-stop:
				done <- n
				return
			default:
				s.Topics().Publish("price.tea", ws.OpText, []byte(strconv.Itoa(n)))
				time.Sleep(20 * time.Microsecond) // a rate, not a wait
			}
		}
	}()
	var all []*client
	for range 40 {
		all = append(all, s.open(t, "/topics/price.tea"))
	}
	close(stop)
	last := <-done - 1
	for _, c := range all {
		for next := -1; next != last+1; next++ {
			_, m := c.message()
			got, err := strconv.Atoi(string(m))
			if next < 0 {
				next = got
			}
			if err != nil || got != next {
				t.Fatalf("got %q, want %d", m, next)
			}
		}
	}
	late := s.open(t, "/topics/price.tea")
	late.hears(strconv.Itoa(last))
	s.publish(t, "price.tea", "after")
	late.hears("after")
	for _, c := range all {
		c.hears("after")
	}
}

func TestSubscriberThatComesBackGetsWhatItMissedAndIsToldOfTheRest(t *testing.T) {
	s := withTopics(t, Config{Topics: TopicConfig{Replay: 5}})
	p := s.publish(t, "log", "m0")
	first := p.Seq
	for i := 1; i < 10; i++ {
		s.publish(t, "log", fmt.Sprint("m", i))
	}
	line := func(word string, n ...uint64) string { return string(appendLine(nil, word, "log", n...)) }
	msg := func(i int) string { return fmt.Sprintf("%s\nm%d", line("seq", first+uint64(i)), i) }
	at := func(i int) uint64 { return first + uint64(i) }

	c := s.open(t, fmt.Sprint("/topics/log?since=", at(6)))
	c.hears(line("at", at(6)), msg(7), msg(8), msg(9))
	c = s.open(t, fmt.Sprint("/topics/log?since=", at(9)))
	c.hears(line("at", at(9)))
	gap := s.open(t, fmt.Sprint("/topics/log?since=", at(1)))
	gap.hears(line("at", at(1)), line("gap", at(2), at(4)), msg(5), msg(6), msg(7), msg(8), msg(9))
	all := s.open(t, "/topics/log?since=0")
	all.hears(line("at", 0), msg(5), msg(6), msg(7), msg(8), msg(9))
	plain := s.open(t, "/topics/log")
	numbered := s.open(t, "/topics/log?seq=1")
	numbered.hears(line("at", at(9)))
	future := s.open(t, fmt.Sprint("/topics/log?since=", at(1000)))
	future.hears(line("at", at(9)))
	s.subscribers(t, "log", 7)
	s.publish(t, "log", "m10")
	for _, c := range []*client{c, gap, all, numbered, future} {
		c.hears(msg(10))
	}
	plain.hears("m10")
	binary, err := s.Topics().Publish("log", ws.OpBinary, []byte{0xff})
	if err != nil {
		t.Fatal(err)
	}
	if op, got := c.message(); op != ws.OpBinary || string(got) != line("seq", binary.Seq)+"\n\xff" {
		t.Errorf("opcode %d, %q", op, got)
	}
}

// Numbers do not begin anew with a topic that was freed: who comes back is told.
func TestNumbersNeverComeTwice(t *testing.T) {
	s := withTopics(t, Config{})
	c := s.open(t, "/topics/x?seq=1")
	s.subscribers(t, "x", 1)
	p := s.publish(t, "x", "1")
	c.conn.Close()
	eventually(t, "the topic is freed", func() bool { return len(s.Topics().List()) == 0 })
	if p := s.publish(t, "x", "2"); p.Seq != 0 {
		t.Errorf("%+v", p)
	}
	c = s.open(t, fmt.Sprint("/topics/x?since=", p.Seq))
	c.hears(fmt.Sprintf("at %d x", p.Seq))
	_, m := c.message()
	var from, to uint64
	if n, _ := fmt.Sscanf(string(m), "gap %d %d x", &from, &to); n != 2 || from != p.Seq+1 || to <= from {
		t.Errorf("%q, want a gap behind %d", m, p.Seq)
	}
	s.subscribers(t, "x", 1)
	if p := s.publish(t, "x", "3"); p.Seq != to+1 {
		t.Errorf("number %d, want %d", p.Seq, to+1)
	}
}

func TestSeveralTopicsOnOneConnection(t *testing.T) {
	s := withTopics(t, Config{Loops: 2, Topics: TopicConfig{Retain: []string{"b"}, Replay: 3, Open: []string{"a"}}})
	b := s.publish(t, "b", "retained")
	d := s.publish(t, "d", "first")
	s.publish(t, "d", "second")
	c := s.open(t, fmt.Sprintf("/topics/a?also=b,a&also=c%%2Cd:%d", d.Seq))
	for range 4 {
		_, m := c.message()
		switch word, _, _ := strings.Cut(string(m), " "); {
		case word == "at", string(m) == fmt.Sprintf("seq %d b\nretained", b.Seq), string(m) == fmt.Sprintf("seq %d d\nsecond", d.Seq+1):
		default:
			t.Errorf("%q", m)
		}
	}
	c.message()
	c.message() // two of the six are messages
	for _, n := range []string{"a", "b", "c", "d"} {
		s.subscribers(t, n, 1)
		p := s.publish(t, n, "live")
		c.hears(fmt.Sprintf("seq %d %s\nlive", p.Seq, n))
	}
	// What it sends goes to the topic of the path, and to the others there.
	other := s.open(t, "/topics/a")
	s.subscribers(t, "a", 2)
	c.send(ws.OpText, []byte("from c"))
	other.hears("from c")
	c.hears(fmt.Sprintf("own %d a", s.info("a").Seq))
	c.conn.Close()
	other.conn.Close()
	eventually(t, "all have left", func() bool {
		return !slices.ContainsFunc(s.Topics().List(), func(i TopicInfo) bool { return i.Subscribers > 0 })
	})
}

func TestOpenTopicPassesMessagesToTheOthers(t *testing.T) {
	s := withTopics(t, Config{Loops: 2, Topics: TopicConfig{Open: []string{"chat.*"}}})
	a, b, c := s.open(t, "/topics/chat.x"), s.open(t, "/topics/chat.x"), s.open(t, "/topics/chat.x")
	s.subscribers(t, "chat.x", 3)
	for i := range 50 {
		a.send(ws.OpText, fmt.Append(nil, "a", i))
		b.hears(fmt.Sprint("a", i))
		c.hears(fmt.Sprint("a", i))
		b.send(ws.OpBinary, fmt.Append(nil, "b", i))
		a.hears(fmt.Sprint("b", i)) // and not its own
		c.hears(fmt.Sprint("b", i))
	}
	c.write(masked(false, ws.OpText, []byte("in ")))
	c.write(masked(true, ws.OpContinuation, []byte("pieces")))
	a.hears("in pieces")
	b.hears("in pieces")
}

func TestClosedTopicTakesNoMessagesFromClients(t *testing.T) {
	s := withTopics(t, Config{Topics: TopicConfig{Open: []string{"chat.*"}}})
	c := s.open(t, "/topics/news")
	c.send(ws.OpText, []byte("me too"))
	if says := c.wantClose(ws.StatusPolicyViolation); says != "topic news takes no messages from clients" {
		t.Errorf("%q", says)
	}
}

func TestMessageTooLargeForATopicIsRefused(t *testing.T) {
	s := withTopics(t, Config{MaxPending: 64 << 10, Topics: TopicConfig{Open: []string{"*"}}})
	limit := s.Topics().limit
	c, d := s.open(t, "/topics/x"), s.open(t, "/topics/x")
	s.subscribers(t, "x", 2)
	if _, err := s.Topics().Publish("x", ws.OpBinary, make([]byte, limit+1)); !errors.Is(err, ErrTooLarge) {
		t.Errorf("error %v", err)
	}
	if _, err := s.Topics().Publish("x", ws.OpBinary, make([]byte, limit)); err != nil {
		t.Error(err)
	}
	for _, c := range []*client{c, d} {
		if _, m := c.message(); len(m) != limit {
			t.Errorf("%d bytes", len(m))
		}
	}
	c.send(ws.OpBinary, make([]byte, limit+1))
	if says := c.wantClose(ws.StatusMessageTooBig); !strings.Contains(says, strconv.Itoa(limit)) {
		t.Errorf("%q", says)
	}
}

func TestWhatCannotBePublishedOrSubscribedTo(t *testing.T) {
	s := withTopics(t, Config{Topics: TopicConfig{Max: 2, Replay: 1}})
	tp := s.Topics()
	for _, bad := range []struct {
		name string
		op   ws.OpCode
		text string
		want error
	}{
		{"", ws.OpText, "", ErrTopicName},
		{"a b", ws.OpText, "", ErrTopicName},
		{"a/b", ws.OpText, "", ErrTopicName},
		{".a", ws.OpText, "", ErrTopicName},
		{"a.", ws.OpText, "", ErrTopicName},
		{"a..b", ws.OpText, "", ErrTopicName},
		{"*", ws.OpText, "", ErrTopicName},
		{"ä", ws.OpText, "", ErrTopicName},
		{"(push 0)", ws.OpText, "", ErrTopicName},
		{strings.Repeat("x", 129), ws.OpText, "", ErrTopicName},
		{"a", ws.OpPing, "", ErrOpcode},
		{"a", ws.OpContinuation, "", ErrOpcode},
		{"a", ws.OpText, "\xff", ErrText},
	} {
		if _, err := tp.Publish(bad.name, bad.op, []byte(bad.text)); !errors.Is(err, bad.want) {
			t.Errorf("%q %d %q: error %v, want %v", bad.name, bad.op, bad.text, err, bad.want)
		}
	}
	for _, good := range []string{strings.Repeat("x", 128), "A-z_0~9.b"} {
		s.publish(t, good, "")
	}
	if _, err := tp.Publish("third", ws.OpText, nil); !errors.Is(err, ErrTopicMax) {
		t.Errorf("error %v", err)
	}
	c := s.open(t, "/topics/third")
	if says := c.wantClose(1013); says != ErrTopicMax.Error() {
		t.Errorf("%q", says)
	}
	for path, want := range map[string]struct {
		status int
		says   string
	}{
		"/topics/":                    {404, "a topic's name is"},
		"/topics/a/b":                 {404, "no WebSocket service"},
		"/topics/a%20b":               {404, "a topic's name is"},
		"/topics/a?also=b,c%20d":      {400, `also="c d"`},
		"/topics/a?since=x":           {400, `since "x" is not the number`},
		"/topics/a?since=-1":          {400, `since "-1" is not the number`},
		"/topics/a?since=":            {400, `since "" is not the number`},
		"/topics/a?also=b:1:2":        {400, `since "1:2" is not`},
		"/topics/a?also=%zz":          {400, "query cannot be read"},
		"/topics/a?also=" + manyNames: {400, "more than 32 topics"},
	} {
		r, body := s.answer(t, request(path))
		if r.StatusCode != want.status || !strings.Contains(body, want.says) {
			t.Errorf("%s: %s %q, want %d with %q", path, r.Status, body, want.status, want.says)
		}
	}
	if r, _ := s.answer(t, "GET /topics/a HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"); r.StatusCode != 426 {
		t.Errorf("without Upgrade: %s", r.Status)
	}
}

var manyNames = strings.Repeat("x,", 40) + "x"

func TestTopicsTakeHandshakesFromNetHTTP(t *testing.T) {
	s := withTopics(t, Config{})
	// The first request on the connection makes it net/http's.
	c := s.dial(t)
	fmt.Fprint(c, "GET /none HTTP/1.1\r\nHost: example.com\r\n\r\n")
	b := make([]byte, 4096)
	n, err := c.Read(b)
	if err != nil || !bytes.Contains(b[:n], []byte("404")) {
		t.Fatalf("%q, %v", b[:n], err)
	}
	cl := join(t, c, hello("/topics/a?seq=1"), nil)
	_, m := cl.message()
	if !strings.HasPrefix(string(m), "at ") {
		t.Errorf("%q", m)
	}
	p := s.publish(t, "a", "x")
	cl.hears(fmt.Sprintf("seq %d a\nx", p.Seq))
	c = s.dial(t)
	fmt.Fprint(c, "GET /none HTTP/1.1\r\nHost: example.com\r\n\r\n")
	if _, err = c.Read(b); err != nil {
		t.Fatal(err)
	}
	fmt.Fprint(c, request("/topics/a?since=x"))
	if n, err = c.Read(b); err != nil || !bytes.Contains(b[:n], []byte(" 400 ")) {
		t.Errorf("%q, %v", b[:n], err)
	}
}

func TestConfigOfTopicsThatCannotBeIsRefused(t *testing.T) {
	for _, cfg := range []TopicConfig{
		{Open: []string{"["}},
		{Retain: []string{""}},
		{Policies: []TopicPolicy{{"[", PolicyClose}}},
		{Policies: []TopicPolicy{{"*", 9}}},
		{Replay: -1},
		{Pending: -1},
		{Max: -1},
	} {
		if s, err := New(Config{Topics: cfg}); err == nil {
			s.Shutdown(context.Background())
			t.Errorf("%+v is taken", cfg)
		}
	}
	for _, p := range []Policy{PolicyClose, PolicyDropOldest, PolicyLatest} {
		if q, err := ParsePolicy(p.String()); err != nil || q != p {
			t.Errorf("%v is read as %v, %v", p, q, err)
		}
	}
	if _, err := ParsePolicy("drop"); err == nil {
		t.Error(`"drop" is a policy`)
	}
}

// Endpoints of one's own may put their connections on topics.
func TestAnyEndpointCanSubscribe(t *testing.T) {
	s, err := New(Config{Topics: TopicConfig{Retain: []string{"a"}}})
	if err != nil {
		t.Fatal(err)
	}
	var begun sync.WaitGroup
	begun.Add(1)
	s.Handle("/mine", &Endpoint{
		Open: func(c Conn) {
			for _, n := range []string{"a", "b", "a"} {
				if err := s.Topics().Subscribe(c, n); err != nil {
					t.Error(err)
				}
			}
			if err := s.Topics().Subscribe(c, "a b"); !errors.Is(err, ErrTopicName) {
				t.Error(err)
			}
		},
		Message: func(c Conn, op ws.OpCode, p []byte) {
			switch string(p) {
			case "begin":
				c.SendPiece(ws.OpText, true, false, []byte("one "))
				begun.Done()
			case "end":
				c.SendPiece(ws.OpText, false, true, []byte("message"))
			case "leave":
				s.Topics().Unsubscribe(c, "a")
				s.Topics().Unsubscribe(c, "nothing")
				c.Send(op, p)
			}
		},
	})
	addr, err := s.Listen("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s.Start()
	ts := &testServer{s, addr.String()}
	defer s.Shutdown(closedContext(t))
	c := ts.open(t, "/mine")
	ts.subscribers(t, "a", 1)
	ts.subscribers(t, "b", 1)
	ts.publish(t, "a", "1")
	c.hears("1")
	// While the endpoint is in the middle of a message, those of topics wait.
	c.send(ws.OpText, []byte("begin"))
	begun.Wait()
	ts.publish(t, "a", "2")
	ts.publish(t, "b", "3")
	eventually(t, "they wait", func() bool { return ts.info("a").Behind == 1 && ts.info("b").Behind == 1 })
	c.send(ws.OpText, []byte("end"))
	c.hears("one message")
	_, x := c.message()
	_, y := c.message()
	if got := []string{string(x), string(y)}; !slices.Contains(got, "2") || !slices.Contains(got, "3") {
		t.Errorf("%q", got)
	}
	c.send(ws.OpText, []byte("leave"))
	c.hears("leave")
	ts.publish(t, "a", "not any more")
	ts.publish(t, "b", "4")
	c.hears("4")
}

// closedContext is a context that is done.
func closedContext(t testing.TB) context.Context {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	return ctx
}

func TestPublishAfterShutdownIsRefused(t *testing.T) {
	s := withTopics(t, Config{})
	receive(t, "Shutdown", s.shutdown(patience))
	if _, err := s.Topics().Publish("a", ws.OpText, nil); !errors.Is(err, ErrStopped) {
		t.Errorf("error %v", err)
	}
}

// What Publish has taken arrives before the Close of Shutdown, also at a
// subscriber that is behind; who has nothing to wait for is told at once.
func TestShutdownDeliversWhatWasPublishedBefore(t *testing.T) {
	s := withTopics(t, Config{Loops: 2, CloseTimeout: patience, WriteTimeout: patience, Topics: TopicConfig{Pending: 64 << 20}})
	var all []*client
	for range 20 {
		all = append(all, s.open(t, "/topics/x"))
	}
	slow := s.dial(t)
	slow.SetReadBuffer(128 << 10)
	all = append(all, join(t, slow, hello("/topics/x"), nil))
	echo := s.open(t, "/echo")
	s.subscribers(t, "x", len(all))
	const n = 150
	var last Published
	for i := range n {
		last = s.publish(t, "x", fmt.Sprintf("%d %s", i, strings.Repeat("x", 50_000)))
	}
	eventually(t, "somebody is behind", func() bool { return s.info("x").Behind > 0 })
	done := s.shutdown(patience)
	echo.wantClose(ws.StatusGoingAway)
	var wg sync.WaitGroup
	for _, c := range all {
		wg.Go(func() {
			for i := range n {
				_, m := c.message()
				if head, _, _ := strings.Cut(string(m), " "); head != fmt.Sprint(i) {
					t.Errorf("%s where %d should come", head, i)
					return
				}
			}
			c.wantClose(ws.StatusGoingAway)
			c.close(ws.StatusGoingAway)
		})
	}
	wg.Wait()
	echo.close(ws.StatusGoingAway)
	if err := receive(t, "Shutdown", done); err != nil {
		t.Error(err)
	}
	if used := s.group.Budget().Used(); used != 0 {
		t.Errorf("%d bytes of the budget are taken after the end; published up to %d", used, last.Seq)
	}
}

func TestPublishesWhileShutdownBeginsAreDeliveredOrRefused(t *testing.T) {
	for range 20 {
		s := withTopics(t, Config{Loops: 2})
		c := s.open(t, "/topics/x")
		s.subscribers(t, "x", 1)
		var taken [4]int
		var wg sync.WaitGroup
		for p := range taken {
			wg.Go(func() {
				for {
					switch _, err := s.Topics().Publish("x", ws.OpText, fmt.Append(nil, p)); {
					case errors.Is(err, ErrStopped):
						return
					case err == nil:
						taken[p]++
					case !errors.Is(err, ErrBusy):
						t.Error(err)
						return
					}
				}
			})
		}
		got := make(chan [4]int, 1)
		go func() {
			var n [4]int
			for {
				f, err := c.next()
				if err != nil || f.op == ws.OpClose {
					got <- n
					return
				}
				n[f.payload[0]-'0']++
			}
		}()
		time.Sleep(time.Millisecond) // they are in the middle of it
		done := s.shutdown(patience)
		wg.Wait()
		if n := receive(t, "the Close", got); n != taken {
			t.Fatalf("%v were taken, %v arrived", taken, n)
		}
		c.conn.Close()
		receive(t, "Shutdown", done)
	}
}

// A publisher that is faster than the loops is told so; a client that is, is
// not read from for a while, and loses nothing.
func TestPublishersAreHeldBackWhenTheLoopsAreBehind(t *testing.T) {
	s := withTopics(t, Config{Topics: TopicConfig{Open: []string{"*"}, Pending: 64 << 20}})
	var all []*client
	for range 10 {
		all = append(all, s.open(t, "/topics/x"))
	}
	from := s.open(t, "/topics/x")
	s.subscribers(t, "x", 11)
	release, held := make(chan bool), make(chan bool)
	s.shards[0].loop.Post(func() { close(held); <-release })
	receive(t, "the loop is held up", held)
	n := 0
	for ; ; n++ {
		_, err := s.Topics().Publish("x", ws.OpText, []byte("api"))
		if errors.Is(err, ErrBusy) {
			break
		}
		if err != nil || n > 2*queueCount {
			t.Fatalf("after %d: %v", n, err)
		}
	}
	if n < queueCount {
		t.Errorf("busy after %d", n)
	}
	b := bytes.Repeat(masked(true, ws.OpText, []byte("client")), 500)
	close(release)
	const times = 40
	go func() {
		for range times {
			from.conn.Write(b)
		}
	}()
	for _, c := range all {
		for i := range n + 500*times {
			if _, m := c.message(); (string(m) == "client") != (i >= n) && i < n-queueCount {
				t.Fatalf("message %d is %q", i, m)
			}
		}
	}
	if d := s.info("x").Dropped["busy"]; d != 1 {
		t.Errorf("%d counted as busy", d)
	}
	eventually(t, "nothing waits", func() bool { return s.shards[0].fan.count.Load() == 0 && s.Topics().paused.count.Load() == 0 })
}

func TestPublishThatFindsNoMemoryIsRefusedAndCounted(t *testing.T) {
	s := withTopics(t, Config{MemoryBudget: 100_000, Topics: TopicConfig{Replay: 100}})
	c := s.open(t, "/topics/x")
	s.subscribers(t, "x", 1)
	for range 50 { // what is kept makes room
		s.publish(t, "x", strings.Repeat("x", 10_000))
		c.message()
	}
	eventually(t, "the loop is done", func() bool { return s.shards[0].fan.count.Load() == 0 })
	if b := s.Stats().Buffered; b > 100_000 {
		t.Errorf("%d bytes", b)
	}
	if _, err := s.Topics().Publish("x", ws.OpText, make([]byte, 95_000)); !errors.Is(err, ErrMemory) {
		t.Errorf("error %v", err)
	}
	if n := s.Stats().Dropped[DropMemory]; n != 1 || s.info("x").Dropped["memory"] != 1 {
		t.Errorf("%d counted", n)
	}
}

func TestSubscribersAreCountedAndKeptSmall(t *testing.T) {
	s := withTopics(t, Config{})
	for range 300 {
		s.open(t, "/topics/x")
	}
	s.subscribers(t, "x", 300)
	s.publish(t, "x", "hello")
	eventually(t, "it is sent", func() bool { return s.shards[0].fan.count.Load() == 0 })
	s.group.Do(func(l *epoll.Loop) {
		sh := s.shards[l.Index()]
		g := sh.groups[1]
		if g.slots.len() != 300 || g.slots.room() > 600 || len(g.behind)+len(sh.several)+len(sh.values) != 0 {
			t.Errorf("%d in a list of %d, %d apart, %d on several topics", g.slots.len(), g.slots.room(), len(g.behind), len(sh.several))
		}
	})
	if st := s.Stats(); st.Buffered != 0 {
		t.Errorf("%d bytes are kept", st.Buffered)
	}
}

// A delivery allocates nothing; a publish allocates the same whatever the
// number of subscribers.
func TestDeliveryAllocatesNothing(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector allocates")
	}
	s := withTopics(t, Config{})
	const subscribers = 200
	for range subscribers {
		c := s.open(t, "/topics/x")
		go func() { // it reads and does not look
			b := make([]byte, 64<<10)
			for {
				if _, err := c.conn.Read(b); err != nil {
					return
				}
			}
		}()
	}
	s.subscribers(t, "x", subscribers)
	payload := bytes.Repeat([]byte("x"), 128)
	round := func() {
		if _, err := s.Topics().Publish("x", ws.OpText, payload); err != nil {
			t.Fatal(err)
		}
		for s.shards[0].fan.count.Load() > 0 {
			time.Sleep(100 * time.Microsecond)
		}
	}
	for range 100 {
		round()
	}
	if n := testing.AllocsPerRun(200, round); n > 20 {
		t.Errorf("%.1f allocations for a publish to %d subscribers", n, subscribers)
	}
}

func TestShutdownEndsSubscribersThatNeverCatchUpAtItsDeadline(t *testing.T) {
	s := withTopics(t, Config{CloseTimeout: patience, WriteTimeout: patience, Topics: TopicConfig{Pending: 64 << 20}})
	c := s.dial(t)
	c.SetReadBuffer(4 << 10)
	join(t, c, hello("/topics/x"), nil)
	s.subscribers(t, "x", 1)
	for range 100 {
		s.publish(t, "x", strings.Repeat("x", 100_000))
	}
	err := receive(t, "Shutdown", s.shutdown(300*time.Millisecond))
	if err == nil || !strings.Contains(err.Error(), "1 connections did not end in time") {
		t.Errorf("error %v", err)
	}
}
