package bench

import (
	"bytes"
	"context"
	"strings"
	"sync"
	"testing"
	"time"

	"wspoll/epoll"
	"wspoll/frame"
	"wspoll/server"

	"github.com/gobwas/ws"
)

// fanOutServer sends every message that anybody sends to everybody. tamper may
// change what goes to one connection: nothing, the message, or more of them.
func fanOutServer(t *testing.T, tamper func(subscriber int, payload []byte) [][]byte) Target {
	t.Helper()
	s, err := server.New(server.Config{})
	if err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	var refs []server.Ref
	err = s.Handle("/all", &server.Endpoint{
		Open: func(c server.Conn) { mu.Lock(); refs = append(refs, c.Ref()); mu.Unlock() },
		Message: func(_ server.Conn, op ws.OpCode, payload []byte) {
			mu.Lock()
			defer mu.Unlock()
			for i, r := range refs {
				for _, p := range tamper(i, payload) {
					r.Send(op, p)
				}
			}
		},
	})
	if err != nil {
		t.Fatal(err)
	}
	addr, err := s.Listen("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s.Start()
	t.Cleanup(func() {
		ctx, cancel := context.WithCancel(context.Background())
		cancel()
		s.Shutdown(ctx)
	})
	target, err := ParseTarget("ws://"+addr.String()+"/all", false)
	if err != nil {
		t.Fatal(err)
	}
	return target
}

func runPush(t *testing.T, target Target, size int) *Result {
	t.Helper()
	r, err := Run(t.Context(), Options{
		Config: Config{
			Targets: []Target{target}, Connections: 40, Rate: 50, SizeMin: size, Subscribe: true, Publish: true, Timeout: 5 * time.Second,
		},
		Scenario: "push", Duration: 600 * time.Millisecond,
	})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func untouched(_ int, p []byte) [][]byte { return [][]byte{p} }

func TestPushMeasuresEveryDelivery(t *testing.T) {
	for _, size := range []int{0, 128, 30_000} {
		r := runPush(t, fanOutServer(t, untouched), size)
		if r.Sent < 20 || r.Messages != r.Sent*40 || r.Opened != 40 || len(r.Errors) != 0 {
			t.Errorf("size %d: %d published, %d delivered to %d, errors %v", size, r.Sent, r.Messages, r.Opened, r.Errors)
		}
		if n := r.Message.Count(); uint64(n) != r.Messages {
			t.Errorf("size %d: %d latencies of %d deliveries", size, n, r.Messages)
		}
		if n := r.Spread.Count(); uint64(n) != r.Sent || r.Spread.At(100) > r.Message.At(100) {
			t.Errorf("size %d: %d spreads of %d messages; the widest is %s, the latest delivery %s", size, n, r.Sent, r.Spread.At(100), r.Message.At(100))
		}
	}
}

// seventh tampers with every seventh message to subscriber 3.
func seventh(f func(p []byte) [][]byte) func(int, []byte) [][]byte {
	return func(i int, p []byte) [][]byte {
		if seq, _, ok := parseStamp(p); ok && i == 3 && seq%7 == 5 {
			return f(p)
		}
		return [][]byte{p}
	}
}

func TestPushNamesWhatASubscriberMissed(t *testing.T) {
	var kept []byte
	for _, c := range []struct {
		kind   string
		tamper func(int, []byte) [][]byte
	}{
		{KindLost, seventh(func([]byte) [][]byte { return nil })},
		{KindDuplicate, seventh(func(p []byte) [][]byte { return [][]byte{p, p} })},
		{KindReordered, func(i int, p []byte) [][]byte { // the sixth comes after the seventh
			seq, _, _ := parseStamp(p)
			switch {
			case i != 3:
			case seq%7 == 5:
				kept = append([]byte(nil), p...)
				return nil
			case seq%7 == 6 && kept != nil:
				return [][]byte{p, kept}
			}
			return [][]byte{p}
		}},
	} {
		r := runPush(t, fanOutServer(t, c.tamper), 64)
		found := false
		for _, e := range r.Errors {
			found = found || e.Kind == c.kind && e.Count > 0
		}
		if !found {
			t.Errorf("%s: not found; errors are %v", c.kind, r.Errors)
		}
	}
}

// bareSpread is a server that sends what one connection sends to all others.
func bareSpread(t *testing.T) Target {
	t.Helper()
	var g *epoll.Group
	g, err := epoll.NewGroup(epoll.Config{Loops: 2}, func(l *epoll.Loop) epoll.Handler {
		return epoll.Spread{Echo: epoll.Echo{Loop: l}, All: func() []*epoll.Loop { return g.Loops() }}
	})
	if err != nil {
		t.Fatal(err)
	}
	addr, err := g.Listen("127.0.0.1:0", 0)
	if err != nil {
		t.Fatal(err)
	}
	g.Start()
	t.Cleanup(g.Stop)
	return targets(t, "tcp://"+addr.String())[0]
}

func TestTheNextIsPublishedWhenAllHaveTheLast(t *testing.T) {
	for name, target := range map[string]Target{"WebSocket": fanOutServer(t, untouched), "TCP": bareSpread(t)} {
		t.Run(name, func(t *testing.T) {
			const connections, messages = 30, 50
			cl, err := New(Config{Targets: []Target{target}, Connections: connections, SizeMin: 128, Subscribe: true, Publish: true})
			if err != nil {
				t.Fatal(err)
			}
			defer cl.Stop()
			cl.Open(t.Context().Done())
			cl.Publish()
			for deadline := time.Now().Add(30 * time.Second); ; {
				n := cl.Counts()
				// The first may go to those alone whom a bare server knows by then.
				if n.Messages > n.Sent*connections || n.Messages+2*connections < n.Sent*connections {
					t.Fatalf("%d were sent, %d have come to %d subscribers", n.Sent, n.Messages, connections)
				}
				if n.Sent >= messages {
					break
				}
				if time.Now().After(deadline) {
					t.Fatalf("%d were sent, %d have come", n.Sent, n.Messages)
				}
				time.Sleep(time.Millisecond) // nothing says when another has come
			}
			if e := cl.Errors(); len(e) > 0 {
				t.Error(e)
			}
		})
	}
}

// Those that read nothing get what their sockets take; the others get all.
func TestStalledConnectionsReadNothingAndAreNotCounted(t *testing.T) {
	r, err := Run(t.Context(), Options{
		Config: Config{
			Targets: []Target{fanOutServer(t, untouched)}, Connections: 10, Stalled: 3, Rate: 100, SizeMin: 64 << 10,
			Subscribe: true, Publish: true, Timeout: 5 * time.Second,
		},
		Scenario: "push", Duration: time.Second,
	})
	if err != nil {
		t.Fatal(err)
	}
	if r.Opened != 7 || r.Stalled != 3 || !strings.Contains(textOf(t, r), "7 opened of 7, and 3 that read nothing") || r.Messages == 0 || r.Messages > 7*r.Sent || len(r.Errors) > 0 {
		t.Errorf("%d opened, %d sent, %d have come, errors %v", r.Opened, r.Sent, r.Messages, r.Errors)
	}
}

func TestPushCountsWhatHasNoStampAndSaysSo(t *testing.T) {
	r := runPush(t, fanOutServer(t, func(int, []byte) [][]byte { return [][]byte{[]byte("heart beat")} }), 64)
	if r.Messages == 0 || r.Message.Count() != 0 || !strings.Contains(strings.Join(r.Notes, " "), "no time stamp") {
		t.Errorf("%d messages, %d latencies, notes %q", r.Messages, r.Message.Count(), r.Notes)
	}
}

func TestAStampIsReadBackAndNothingElseIsOne(t *testing.T) {
	at := time.Unix(1_795_392_000, 123_456_789)
	b := AppendStamp(nil, 17, at, 100)
	if seq, ns, ok := parseStamp(b); !ok || seq != 17 || ns != at.UnixNano() || len(b) != 100 {
		t.Errorf("%q: %d, %d, %v", b, seq, ns, ok)
	}
	for _, bad := range []string{"", "wspoll", "wspoll 1", "wspoll 1 2", "wspoll x 2 ", "wspoll 1 x ", "wspoll -1 2 ", "heart beat"} {
		if _, _, ok := parseStamp([]byte(bad)); ok {
			t.Errorf("%q is taken for a stamp", bad)
		}
	}
}

func TestAMessageThatDoesNotEndTakesNoMemory(t *testing.T) {
	const size, fragments = 64 << 10, 1000
	held := make(chan int64, 1)
	made := make(chan *Client, 1)
	l := (&liar{greet: func(k *liarConn) bool {
		if !k.upgrade() {
			return false
		}
		k.Write(frame.AppendFrame(nil, false, ws.OpBinary, AppendStamp(nil, 7, time.Now(), size)))
		for range fragments - 2 {
			k.Write(frame.AppendFrame(nil, false, ws.OpContinuation, make([]byte, size)))
		}
		k.Write(frame.AppendFrame(nil, true, ws.OpPing, nil)) // answered when all before has been taken
		if !k.answered() {
			held <- -1
			return false
		}
		c := <-made
		c.do(func() {
			n := int64(0)
			for _, p := range c.fan.parts {
				n += int64(cap(p.head))
			}
			held <- n
		})
		k.Write(frame.AppendFrame(nil, true, ws.OpContinuation, make([]byte, size)))
		k.drain()
		return false
	}}).listen(t)
	c := l.subscriber(t)
	made <- c
	c.Open(nil)
	if n := <-held; n <= 0 || n > 128 {
		t.Errorf("%d bytes are held of %d that came", n, size*(fragments-1))
	}
	c.Arrive(1, patience)
	late := c.TakeLatency()
	if n := c.Counts(); n.Messages != 1 || n.BytesBack != size*fragments || late.Count() != 1 || n.Failures != 0 {
		t.Errorf("%+v, %d with a stamp", n, late.Count())
	}
}

// subscriber is a client with one connection to l, which has yet to be opened.
func (l *liar) subscriber(t *testing.T) *Client {
	t.Helper()
	target, err := ParseTarget(l.url, false)
	if err != nil {
		t.Fatal(err)
	}
	c, err := New(Config{Targets: []Target{target}, Connections: 1, Subscribe: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Stop)
	return c
}

func TestPingsWhoseAnswersAreNotReadTakeNoMemory(t *testing.T) {
	l := (&liar{greet: func(k *liarConn) bool {
		if !k.upgrade() {
			return false
		}
		pings := bytes.Repeat(frame.AppendFrame(nil, true, ws.OpPing, make([]byte, 125)), 1000)
		for range 300 { // 38 MB
			k.Write(pings)
		}
		k.Write(frame.AppendFrame(nil, true, ws.OpBinary, []byte("all were sent")))
		<-t.Context().Done()
		return false
	}}).listen(t)
	c := l.subscriber(t)
	c.Open(nil)
	c.Arrive(1, patience)
	if n := c.Counts(); n.Messages != 1 {
		t.Errorf("%+v, %v", n, c.Errors())
	}
	c.do(func() {
		c.loop.Each(func(s epoll.Slot) {
			if n := c.loop.Pending(s); n > 2<<20 {
				t.Errorf("%d bytes of pongs wait", n)
			}
		})
	})
}

func textOf(t *testing.T, r *Result) string {
	t.Helper()
	var b strings.Builder
	if err := r.Text()(&b); err != nil {
		t.Fatal(err)
	}
	return strings.Join(strings.Fields(b.String()), " ") // not folded
}

func TestOfWhatTheServerPushesByItselfNoScheduleIsReported(t *testing.T) {
	l := (&liar{greet: func(k *liarConn) bool {
		if k.upgrade() {
			for range 5 {
				k.Write(frame.AppendFrame(nil, true, ws.OpText, []byte("heart beat")))
			}
			k.drain()
		}
		return false
	}}).listen(t)
	// The rate and the size are those of the flags' defaults. At ten per second a second is enough to miss them.
	r := measured(t, Options{Scenario: "push", Duration: time.Second, Config: Config{
		Targets: targets(t, l.url), Connections: 3, Rate: 10, SizeMin: 32, Subscribe: true,
	}})
	text := textOf(t, r)
	if r.Messages != 15 || r.Rate != 0 || r.Loop != "" || !strings.Contains(text, "payload 10 B on average") {
		t.Errorf("%d messages, rate %g, loop %q\n%s", r.Messages, r.Rate, r.Loop, text)
	}
	for _, wrong := range []string{"bottleneck", "schedule ", "loop ", "32 B", "sent 0"} {
		if strings.Contains(text, wrong) {
			t.Errorf("it says %q:\n%s", wrong, text)
		}
	}
}

func TestWhoMayNotPublishIsNotTheBottleneck(t *testing.T) {
	l := (&liar{answer: func(c *liarConn, _ int, _ ws.OpCode, _ []byte) {
		c.Write(frame.AppendClose(nil, ws.StatusPolicyViolation, "nobody may"))
	}}).listen(t)
	r := measured(t, Options{Scenario: "push", Duration: time.Second, Config: Config{
		Targets: targets(t, l.url), Connections: 3, Rate: 20, SizeMin: 10, Subscribe: true, Publish: true,
	}})
	text := textOf(t, r)
	if n, _ := errorsOf(r, KindClosed); n != 1 || r.Sent == 0 || strings.Contains(text, "bottleneck") || !strings.Contains(text, "the connection that publishes ended") {
		t.Errorf("%d closed, %d sent\n%s", n, r.Sent, text)
	}
	if size := int(r.BytesSent / r.Sent); r.SizeMin != size || r.SizeMax != size || size < 29 {
		t.Errorf("a payload from %d to %d bytes, and %d were sent in %d messages", r.SizeMin, r.SizeMax, r.BytesSent, r.Sent)
	}
}
