package server

import (
	"bytes"
	"errors"
	"strings"
	"testing"

	"wspoll/epoll"

	"github.com/gobwas/ws"
)

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
	sent := func() bool { return s.shards[0].fan.count.Load() == 0 }
	round := func() {
		if _, err := s.Topics().Publish("x", ws.OpText, payload); err != nil {
			t.Fatal(err)
		}
		eventually(t, "it is sent", sent)
	}
	for range 100 {
		round()
	}
	if n := testing.AllocsPerRun(200, round); n > 20 {
		t.Errorf("%.1f allocations for a publish to %d subscribers", n, subscribers)
	}
}
