package server

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gobwas/ws"
)

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
	ts := started(t, s)
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
