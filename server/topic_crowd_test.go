package server

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
	"time"

	"wspoll/frame"
	"wspoll/handshake"

	"github.com/gobwas/ws"
)

// crowd is a server on pipes with many connections, for tests that count its
// steps.
type crowd struct {
	*Server
	k *pipes
}

func newCrowd(t testing.TB, cfg Config) *crowd {
	t.Helper()
	k := newPipes()
	cfg.kernel = k
	s, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	for path, ep := range map[string]*Endpoint{"/topics/": s.Topics().Endpoint(), "/echo": Echo()} {
		if err := s.Handle(path, ep); err != nil {
			t.Fatal(err)
		}
	}
	s.started.Store(true)
	return &crowd{s, k}
}

// join opens a connection on a loop; its socket takes room bytes behind the 101.
func (s *crowd) join(t testing.TB, loop int, target string, room int) *pipe {
	t.Helper()
	return s.joinWith(t, loop, crowdHello(target), room)
}

func crowdHello(target string) *handshake.Hello {
	return &handshake.Hello{Host: "a", Target: target, Key: []byte("dGhlIHNhbXBsZSBub25jZQ==")}
}

func (s *crowd) joinWith(t testing.TB, loop int, h *handshake.Hello, room int) *pipe {
	t.Helper()
	p, sh := s.k.make(), s.shards[loop]
	p.room = 1 << 40
	ep, ok := s.endpointOf([]byte(strings.Split(h.Target, "?")[0]))
	if !ok {
		t.Fatalf("no endpoint for %s", h.Target)
	}
	sh.adopted = &adoption{endpoint: ep, head: handshake.AppendRequest(nil, h)}
	if err := sh.loop.Add(int(p.fd), 0, nil); err != nil {
		t.Fatal(err)
	}
	sh.adopted = nil
	if !bytes.HasPrefix(p.out, []byte("HTTP/1.1 101 ")) {
		t.Fatalf("the answer is %q", p.out)
	}
	_, p.out, _ = bytes.Cut(p.out, []byte("\r\n\r\n"))
	p.room = room
	return p
}

// settle lets all loops work until they have nothing to send.
func (s *crowd) settle() {
	for quiet := 0; quiet < 2; quiet++ {
		for _, sh := range s.shards {
			if sh.loop.Step(); sh.fan.busy() {
				quiet = 0
			}
		}
	}
}

// A connection beside a large fan-out waits for one slice of it.
func TestOthersAreServedBetweenTheSlicesOfAFanOut(t *testing.T) {
	s := newCrowd(t, Config{})
	const subscribers = 15_000
	var all []*pipe
	for range subscribers {
		all = append(all, s.join(t, 0, "/topics/x", 1<<40))
	}
	echo := s.join(t, 0, "/echo", 1<<40)
	s.settle()
	if _, err := s.Topics().Publish("x", ws.OpText, []byte("news")); err != nil {
		t.Fatal(err)
	}
	have := 0
	count := func() (n int) {
		for _, p := range all {
			if len(p.out) > 0 {
				n++
			}
		}
		return n
	}
	question, answer := masked(true, ws.OpText, []byte("?")), frame.AppendFrame(nil, true, ws.OpText, []byte("?"))
	for steps := 0; have < subscribers; steps++ {
		if steps > subscribers/sliceSends+10 {
			t.Fatalf("after %d steps %d have the message", steps, have)
		}
		echo.in, echo.out = append(echo.in, question...), nil
		s.shards[0].loop.Step()
		if !bytes.Equal(echo.out, answer) {
			t.Fatalf("step %d, with %d served: the echo is %q", steps, have, echo.out)
		}
		n := count()
		if n-have > sliceSends {
			t.Errorf("a slice of %d messages", n-have)
		}
		have = n
	}
	for _, p := range all {
		if want := frame.AppendFrame(nil, true, ws.OpText, []byte("news")); !bytes.Equal(p.out, want) {
			t.Fatalf("%q came", p.out)
		}
	}
}

// One of a hundred reads nothing. The others get each message in the step in
// which they get it without those, and memory never goes past the budget.
func TestStalledReadersCostTheOthersNothing(t *testing.T) {
	const subscribers, messages, budget = 1000, 300, 200 << 10
	payload := bytes.Repeat([]byte("x"), 2000)
	size := len(frame.AppendFrame(nil, true, ws.OpText, payload))
	// steps runs it, and returns in which step the last of the healthy got each
	// message.
	steps := func(stalled int, policy Policy) (when []int, s *crowd) {
		s = newCrowd(t, Config{
			Loops: 2, MemoryBudget: budget, MaxPending: 8 << 10,
			Topics: TopicConfig{Pending: 64 << 10, Policies: []TopicPolicy{{"x", policy}}},
		})
		var healthy, slow []*pipe
		for i := range subscribers {
			if i%100 < stalled {
				slow = append(slow, s.join(t, i%2, "/topics/x", 100*(i%7))) // some take a part of the first
			} else {
				healthy = append(healthy, s.join(t, i%2, "/topics/x", 1<<40))
			}
		}
		s.settle()
		for m := range messages {
			if _, err := s.Topics().Publish("x", ws.OpText, payload); err != nil {
				t.Fatalf("%v, message %d: %v", policy, m, err)
			}
			for step := 1; ; step++ {
				for _, sh := range s.shards {
					sh.loop.Step()
				}
				if used := s.group.Budget().Used(); used > budget {
					t.Fatalf("%v: %d bytes are taken, the budget is %d", policy, used, budget)
				}
				all := true
				for _, p := range healthy {
					all = all && len(p.out) == size
				}
				if all {
					when = append(when, step)
					break
				}
				if step > 100 {
					t.Fatalf("%v: message %d has not come to all who read", policy, m)
				}
			}
			for _, p := range healthy {
				p.out = nil
			}
			s.settle()
		}
		if n := s.Topics().List()[0].Behind; policy != PolicyClose && int(n) != len(slow) {
			t.Errorf("%v: %d are behind, %d do not read", policy, n, len(slow))
		}
		for _, p := range slow { // what they have lost is counted when they read again
			p.room = 1 << 40
		}
		s.settle()
		return when, s
	}
	without, _ := steps(0, PolicyClose)
	for _, policy := range []Policy{PolicyClose, PolicyDropOldest, PolicyLatest} {
		with, s := steps(1, policy)
		if fmt.Sprint(with) != fmt.Sprint(without) {
			t.Errorf("%v: with stalled readers the messages came in steps %v, without in %v", policy, with, without)
		}
		var sum uint64
		for _, n := range s.Topics().List()[0].Dropped {
			sum += n
		}
		behind, closed := s.Topics().List()[0].Behind, subscribers-s.Topics().List()[0].Subscribers
		want := 0
		if policy == PolicyClose {
			want = subscribers / 100
		}
		if behind != 0 || closed != want || sum == 0 {
			t.Errorf("%v: at the end %d are behind, %d were closed, %d messages were dropped", policy, behind, closed, sum)
		}
		t.Logf("%v: dropped %v", policy, s.Topics().List()[0].Dropped)
	}
}

// What a subscriber costs over an open connection is its place in a list.
func TestSubscriberCostsAtMostEightBytes(t *testing.T) {
	s := newCrowd(t, Config{})
	const subscribers = 15_000
	for range subscribers {
		s.join(t, 0, "/topics/x", 1<<40)
	}
	sh := s.shards[0]
	g := s.topics.byName["x"].locals[0].groups[0]
	if n := g.slots.room() * 4; g.slots.len() != subscribers || n > 8*subscribers {
		t.Errorf("%d bytes for a list of %d", n, g.slots.len())
	}
	if n := len(g.behind) + len(sh.several) + len(sh.values) + len(sh.joins) + len(sh.postponed); n != 0 {
		t.Errorf("%d entries in maps", n)
	}
	if used := s.group.Budget().Used(); used != 0 {
		t.Errorf("%d bytes in buffers", used)
	}
}

// BenchmarkPublish is what a publish costs the goroutine that publishes. The
// loops' work is not in it.
func BenchmarkPublish(b *testing.B) {
	for _, n := range []int{10, 1000, 15_000} {
		b.Run(fmt.Sprint(n, " subscribers"), func(b *testing.B) {
			s := newCrowd(b, Config{Loops: 2})
			for i := range n {
				s.join(b, i%2, "/topics/x", 1<<62)
			}
			s.settle()
			payload := make([]byte, 128)
			var spent time.Duration
			done := 0
			for b.Loop() {
				began := time.Now()
				if _, err := s.Topics().Publish("x", ws.OpBinary, payload); err != nil {
					b.Fatal(err)
				}
				spent += time.Since(began)
				if done++; done%1000 == 0 { // before the queues are full
					b.StopTimer()
					for _, sh := range s.shards {
						for _, j := range sh.fan.jobs {
							sh.fan.count.Add(-1)
							sh.fan.bytes.Add(-int64(j.m.size))
							j.m.release()
						}
						sh.fan.jobs = sh.fan.jobs[:0]
					}
					b.StartTimer()
				}
			}
			b.ReportMetric(float64(spent.Nanoseconds())/float64(done), "ns/publish")
		})
	}
}

// A publish is one encoding and one queue entry for each loop with subscribers,
// and wakes a loop once: nothing of it is for each subscriber.
func TestPublishIsTheSameWorkForAnyNumberOfSubscribers(t *testing.T) {
	allocations := map[int]float64{}
	for _, n := range []int{10, 2000} {
		s := newCrowd(t, Config{Loops: 2})
		for i := range n {
			s.join(t, i%2, "/topics/x", 1<<62)
		}
		s.settle()
		payload, before := make([]byte, 128), s.k.wakes
		allocations[n] = testing.AllocsPerRun(100, func() {
			if _, err := s.Topics().Publish("x", ws.OpBinary, payload); err != nil {
				t.Fatal(err)
			}
		})
		if s.k.wakes != before+2 {
			t.Errorf("two loops were woken %d times for 101 messages", s.k.wakes-before)
		}
		for _, sh := range s.shards {
			if jobs := len(sh.fan.jobs); jobs != 101 {
				t.Errorf("%d messages wait on a loop with %d subscribers, want 101", jobs, n)
			}
		}
	}
	if allocations[10] != allocations[2000] || allocations[10] > 8 {
		t.Errorf("%v allocations for a publish, by number of subscribers", allocations)
	}
}
