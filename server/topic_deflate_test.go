package server

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"runtime"
	"testing"
	"time"
	"unsafe"

	"wspoll/frame"
	"wspoll/handshake"

	"github.com/gobwas/ws"
)

// serverBits are offers of a client that allows the server windows of all sizes.
func serverBits() (all []handshake.DeflateOffer) {
	for bits := uint8(8); bits <= 15; bits++ {
		all = append(all, handshake.DeflateOffer{ServerBits: bits, ClientBits: 15})
	}
	return all
}

// Whatever window was agreed on, a subscriber gets what was published, with
// numbers and without, live, retained and replayed; each message is compressed
// once for each size of window.
func TestSubscribersGetCompressedMessages(t *testing.T) {
	for _, mode := range []Compression{CompressShared, CompressContext} {
		s := withTopics(t, Config{Loops: 2, Compress: mode, Topics: TopicConfig{Retain: []string{"*"}, Replay: 100}})
		type message struct {
			op      ws.OpCode
			payload []byte
		}
		all := []message{
			{ws.OpText, []byte("first, and retained until the others come; " + string(jsonText(300)))},
			{ws.OpText, jsonText(300)},
			{ws.OpText, []byte("too small")},
			{ws.OpText, bytes.Repeat([]byte("too small"), 20)},
			{ws.OpText, nil},
			{ws.OpText, jsonText(40_000)}, // more than any window
			{ws.OpBinary, noise(3000)},    // becomes no shorter
			{ws.OpBinary, append(noise(5000), noise(5000)...)},
			{ws.OpText, jsonText(256)},
		}
		small := 3
		publish := func(m message) Published {
			p, err := s.Topics().Publish("x", m.op, m.payload)
			if err != nil {
				t.Fatal(err)
			}
			return p
		}
		first := publish(all[0]).Seq
		var plain, numbered []*compressor
		for _, o := range serverBits() {
			for range 3 { // on both loops
				plain = append(plain, s.openCompressed(t, "/topics/x", o))
				numbered = append(numbered, s.openCompressed(t, "/topics/x?seq=1", o))
			}
		}
		asIs := s.open(t, "/topics/x")
		asIs.hears(string(all[0].payload))
		s.subscribers(t, "x", len(plain)+len(numbered)+1)
		for _, m := range all[1:] {
			publish(m)
		}
		for _, m := range all[1:] {
			if op, got := asIs.message(); op != m.op || !bytes.Equal(got, m.payload) {
				t.Fatalf("opcode %#x and %d bytes came uncompressed for %d", op, len(got), len(m.payload))
			}
		}
		for _, c := range plain {
			for i, m := range all {
				c.wantMessage(m.op, m.payload)
				noise := i == 6 || i == 7 && c.agreed.ServerBits < 13
				if want := len(m.payload) >= 256 && !noise; c.deflated != want {
					t.Errorf("mode %d, %d bits: message %d came compressed: %v, want %v", mode, c.agreed.ServerBits, i, c.deflated, want)
				}
			}
		}
		windows := uint64(len(serverBits()))
		if mode == CompressContext {
			windows = 12 - 8 + 1 // no larger one is agreed on
		}
		line := func(i int) []byte { return fmt.Appendf(nil, "seq %d x\n", first+uint64(i)) }
		for _, c := range numbered {
			c.wantMessage(ws.OpText, fmt.Appendf(nil, "at %d x", first-1))
			for i, m := range all {
				c.wantMessage(m.op, append(line(i), m.payload...))
			}
		}
		if want, n := 2*windows*uint64(len(all)-small), s.info("x").Deflated; n != want {
			t.Errorf("mode %d: %d messages were compressed %d times for %d sizes of window, with and without numbers, want %d", mode, len(all), n, windows, want)
		}
		// Who comes later gets what was compressed already.
		late := s.openCompressed(t, fmt.Sprint("/topics/x?since=", first), handshake.DeflateOffer{ServerBits: 9})
		late.wantMessage(ws.OpText, fmt.Appendf(nil, "at %d x", first))
		for i, m := range all[1:] {
			late.wantMessage(m.op, append(line(i+1), m.payload...))
		}
		want := 2 * windows * uint64(len(all)-small)
		if mode == CompressContext {
			want += 3 // who comes in between needs them without reference to others; two become no shorter
		}
		if n := s.info("x").Deflated; n != want {
			t.Errorf("mode %d: after a replay %d, want %d", mode, n, want)
		}
		kept := s.info("x").KeptBytes
		if used := s.Stats().Buffered; used <= int64(kept) {
			t.Errorf("mode %d: the compressed messages are not in the budget: %d bytes, %d as they are", mode, used, kept)
		}
	}
}

// What was compressed goes back to the budget with its message, to the byte, and
// what a chain holds with the last subscriber.
func TestCompressedMessagesLeaveTheBudget(t *testing.T) {
	for mode, windows := range map[Compression]uint64{CompressShared: 8, CompressContext: 5} {
		s := newCrowd(t, Config{Loops: 2, Compress: mode})
		var all []*pipe
		for i, o := range serverBits() {
			all = append(all, s.joinCompressed(t, i%2, "/topics/x", o), s.joinCompressed(t, (i+1)%2, "/topics/x?seq=1", o))
			all = append(all, s.joinCompressed(t, (i+1)%2, "/topics/x", o), s.joinCompressed(t, i%2, "/topics/x?seq=1", o))
		}
		for range 10 {
			if _, err := s.Topics().Publish("x", ws.OpText, jsonText(2000)); err != nil {
				t.Fatal(err)
			}
		}
		if n := s.Topics().List()[0].Deflated; n != 0 {
			t.Errorf("who publishes has compressed %d messages", n)
		}
		before := s.group.Budget().Used()
		sh := s.shards[0]
		for sh.loop.Step(); sh.fan.busy(); sh.loop.Step() {
			if s.group.Budget().Used() < before {
				t.Fatal("the other loop has not sent a message, and its bytes are free")
			}
		}
		if s.group.Budget().Used() == before {
			t.Error("compressed messages are not in the budget")
		}
		s.settle()
		held := int64(0)
		for _, ch := range s.topics.byName["x"].chains {
			held += int64(cap(ch.Window))
		}
		for _, sh := range s.shards {
			for _, d := range sh.squeeze.out {
				held += int64(unsafe.Sizeof(*d))
			}
		}
		if used := s.group.Budget().Used(); used != held || (held > 0) != (mode == CompressContext) {
			t.Errorf("mode %d: %d bytes of the budget are taken when all was sent, chains hold %d", mode, used, held)
		}
		if n := s.Topics().List()[0].Deflated; n != 10*2*windows {
			t.Errorf("mode %d: 10 messages were compressed %d times for %d sizes of window, with and without numbers", mode, n, windows)
		}
		for _, p := range all {
			p.broken, p.told = true, true
		}
		if s.settle(); s.group.Budget().Used() != 0 {
			t.Errorf("mode %d: %d bytes are taken at the end", mode, s.group.Budget().Used())
		}
	}
}

// Without memory for what is compressed, a message goes as it is.
func TestMessageGoesAsItIsWhenThereIsNoMemoryToCompressIt(t *testing.T) {
	payload := jsonText(2500)
	s := newCrowd(t, Config{MemoryBudget: 4000, MaxPending: 3800})
	p := s.joinCompressed(t, 0, "/topics/x", handshake.DeflateOffer{})
	if _, err := s.Topics().Publish("x", ws.OpText, payload); err != nil {
		t.Fatal(err)
	}
	if s.settle(); !bytes.Equal(p.out, frame.AppendFrame(nil, true, ws.OpText, payload)) {
		t.Errorf("%.20q and %d bytes came", p.out, len(p.out))
	}
	if used := s.group.Budget().Used(); used != 0 || s.Topics().List()[0].Deflated != 0 {
		t.Errorf("%d bytes are taken, %d messages were compressed", used, s.Topics().List()[0].Deflated)
	}
}

// Clients that agree on all sizes of windows do not use up the groups of a loop.
func TestManyGroupsAreNotCompressed(t *testing.T) {
	s := newCrowd(t, Config{})
	s.manyGroups = 3 // two of them, since the first index is none
	offers := serverBits()
	var all []*pipe
	for _, o := range offers {
		all = append(all, s.joinCompressed(t, 0, "/topics/x?seq=1", o))
	}
	s.settle()
	p, err := s.Topics().Publish("x", ws.OpText, jsonText(500))
	if err != nil || p.Queued != len(offers) {
		t.Fatalf("%+v, %v", p, err)
	}
	s.settle()
	deflated := 0
	for _, p := range all {
		_, b, _ := bytes.Cut(p.out, []byte(" x")) // "at N x"
		if b[0]&0x40 != 0 {
			deflated++
		} else if !bytes.HasSuffix(b, jsonText(500)) {
			t.Errorf("%q", b)
		}
	}
	if n := len(s.topics.byName["x"].locals[0].groups); n != 3 || deflated != 2 {
		t.Errorf("%d groups, %d subscribers got compressed messages, want 3 and 2", n, deflated)
	}
	for _, p := range all {
		p.broken, p.told = true, true
	}
	if s.settle(); len(s.topics.byName) != 0 {
		t.Errorf("the topic is left: %+v", s.Topics().List())
	}
}

// A message of a topic moves the window of a client that takes the context
// over: what the server sends it alone afterwards must not reach back past it,
// and what it sends alone must not come between the links of a chain.
func TestMessagesOfATopicAmongThoseOfAContext(t *testing.T) {
	s, err := New(Config{Compress: CompressContext, CompressMin: 32})
	if err != nil {
		t.Fatal(err)
	}
	names := []string{"x", "y"}
	s.Handle("/mine", &Endpoint{
		Message: func(c Conn, op ws.OpCode, p []byte) {
			for _, n := range names {
				switch string(p) {
				case "on " + n:
					if err := s.Topics().Subscribe(c, n); err != nil {
						t.Error(err)
					}
				case "off " + n:
					s.Topics().Unsubscribe(c, n)
				}
			}
			c.Send(op, p)
		},
	})
	ts := started(t, s)
	for _, o := range serverBits()[:5] {
		c := ts.openCompressed(t, "/mine", o)
		number := 0
		own := func(deflated bool) int {
			t.Helper()
			number++
			m := fmt.Appendf(nil, `{"number":%d,"text":"a message for this one alone, which resembles those before it"}`, number)
			c.send(ws.OpText, m)
			if c.wantMessage(ws.OpText, m); c.deflated != deflated {
				t.Errorf("%d bits: message %d for one alone came compressed: %v", c.agreed.ServerBits, number, c.deflated)
			}
			return c.wire
		}
		say := func(word string) {
			c.send(ws.OpText, []byte(word))
			c.wantMessage(ws.OpText, []byte(word))
		}
		topic := func(name string) int {
			t.Helper()
			number++
			m := fmt.Appendf(nil, `{"number":%d,"text":"a message of topic %s, which has not much to say, and has not much to say, and has not much to say"}`, number, name)
			ts.publish(t, name, string(m))
			if c.wantMessage(ws.OpText, m); !c.deflated {
				t.Errorf("%d bits: message %d, of a topic, is not compressed", c.agreed.ServerBits, number)
			}
			return c.wire
		}
		alone := own(true)
		if n := own(true); n >= alone/2 {
			t.Errorf("%d bytes for a message that refers to the one before, %d for that", n, alone)
		}
		say("on x")
		own(true)
		key := topic("x")
		for range 100 { // over a keyframe
			own(false)
			topic("x")
		}
		if n := topic("x"); n >= key/2 {
			t.Errorf("%d bytes for a message of a topic that refers to others, %d for a keyframe", n, key)
		}
		say("on y") // on two topics no link follows another
		for range 70 {
			topic("x")
			if n := topic("y"); n < key/2 {
				t.Errorf("%d bytes for a message that cannot refer to others", n)
			}
			number++
			m := fmt.Appendf(nil, `{"number":%d,"text":"for one alone, among those of two topics"}`, number)
			c.send(ws.OpText, m)
			c.wantMessage(ws.OpText, m)
		}
		topic("x")
		say("off y")
		topic("x")
		say("off x")
		own(true)
		if n := own(true); n >= alone/2 {
			t.Errorf("%d bytes for a message that refers to the one before, %d for that", n, alone)
		}
		c.conn.Close()
		eventually(t, "all is free", func() bool { return s.Stats().Buffered == 0 })
	}
}

// joinCompressed is join for a client with an offer of compression.
func (s *crowd) joinCompressed(t testing.TB, loop int, target string, o handshake.DeflateOffer) *pipe {
	t.Helper()
	h := crowdHello(target)
	h.Extensions = string(handshake.AppendDeflateOffers(nil, o))
	return s.joinWith(t, loop, h, 1<<40)
}

// What a stream of small messages that resemble each other costs on the wire.
func TestBytesOfSmallMessages(t *testing.T) {
	const messages = 200
	var wire [3]int
	for i, mode := range []Compression{CompressOff, CompressShared, CompressContext} {
		s := newCrowd(t, Config{Compress: mode, CompressMin: -1})
		p := s.joinCompressed(t, 0, "/topics/x", handshake.DeflateOffer{})
		whole := 0
		for n := range messages {
			m := fmt.Appendf(nil, `{"type":"trade","symbol":"%s","price":%d.%02d,"quantity":%d,"side":"%s","time":"2026-11-25T20:%02d:%02d.%03dZ","sequence":%d,"venue":"XETR"}`,
				[]string{"SAP.DE", "BMW.DE", "ALV.DE"}[n*7%3], 100+n*31%50, n*37%100, 1+n*13%900, []string{"buy", "sell"}[n*11%2], n/60, n%60, n*7919%1000, 100_000+n)
			whole += len(m)
			if _, err := s.Topics().Publish("x", ws.OpText, m); err != nil {
				t.Fatal(err)
			}
		}
		s.settle()
		wire[i] = len(p.out)
		t.Logf("mode %d: %.1f bytes with the header for a message of %.1f", mode, float64(wire[i])/messages, float64(whole)/messages)
	}
	if wire[1] >= wire[0] || wire[2] > wire[0]/3 {
		t.Errorf("%d bytes as they are, %d compressed each for itself, %d with reference to others", wire[0], wire[1], wire[2])
	}
}

// A chain that finds no memory for its text goes on with keyframes, and what
// comes is right whenever the memory comes and goes.
func TestChainWithoutMemory(t *testing.T) {
	s := newCrowd(t, Config{Compress: CompressContext, MemoryBudget: 16 << 10, MaxPending: 4 << 10})
	budget := s.group.Budget()
	var all []*pipe
	var in [6]frame.Inflation
	var parsers [6]frame.Parser
	for range in {
		all = append(all, s.joinCompressed(t, 0, "/topics/x", handshake.DeflateOffer{ServerBits: 11}))
	}
	z := frame.NewInflater()
	rng := rand.New(rand.NewPCG(1, 2))
	deflated, plain, short, taken := 0, 0, 0, 0
	for i := range 2000 {
		if i%7 == 0 { // others take as much as they like
			budget.Release(taken)
			if taken = rng.IntN(16 << 10); !budget.Reserve(taken) {
				taken = 0
			}
		}
		msg := jsonText(300 + rng.IntN(300))
		msg = append(msg, fmt.Sprint(i)...)
		if _, err := s.Topics().Publish("x", ws.OpText, msg); err != nil {
			continue
		}
		s.settle()
		for n, p := range all {
			var piece frame.Piece
			k, err := parsers[n].Next(&compressedRules, p.out, &piece)
			if err != nil || k != len(p.out) || !piece.Last {
				t.Fatalf("message %d, client %d: %v, %d bytes of %d", i, n, err, k, len(p.out))
			}
			if p.out = p.out[:0]; !piece.Compressed {
				if plain++; !bytes.Equal(piece.Data, msg) {
					t.Fatalf("message %d, client %d: %q", i, n, piece.Data)
				}
				continue
			}
			if deflated++; len(piece.Data) < len(msg)/4 {
				short++
			}
			z.Resume(&in[n], 11)
			var got []byte
			for data, more := piece.Data, true; more; {
				out, used, again, err := z.Next(data, true)
				if err != nil {
					t.Fatalf("message %d, client %d: %v", i, n, err)
				}
				got, data, more = append(got, out...), data[used:], again
			}
			if z.Suspend(&in[n]); !bytes.Equal(got, msg) {
				t.Fatalf("message %d, client %d: %q", i, n, got)
			}
		}
	}
	budget.Release(taken)
	for _, p := range all {
		p.broken, p.told = true, true
	}
	s.settle()
	t.Logf("%d compressed, %d of these by a reference to others, %d not", deflated, short, plain)
	if deflated == 0 || plain == 0 || short == 0 || budget.Used() != 0 {
		t.Errorf("%d bytes are taken at the end; %d compressed, %d by a reference to others, %d not", budget.Used(), deflated, short, plain)
	}
}

// Several loops make one chain, while clients come in between its keyframes.
func TestChainOfSeveralLoops(t *testing.T) {
	s := withTopics(t, Config{Loops: 3, Compress: CompressContext, CompressMin: 32, Topics: TopicConfig{Retain: []string{"*"}}})
	text := func(n int) string {
		return fmt.Sprintf(`{"number":%d,"text":"what is said of it, again and again and again, with %d words"}`, n, n*n%1000)
	}
	s.publish(t, "x", text(0))
	opened, published := make(chan bool), make(chan int)
	go func() {
		messages := 0 // until all clients are there, and then some
		for more := 500; more > 0; messages++ {
			select {
			case <-opened:
				more--
			default:
				time.Sleep(50 * time.Microsecond) // a rate, not a wait
			}
			if _, err := s.Topics().Publish("x", ws.OpText, []byte(text(messages+1))); err != nil {
				t.Error(err)
			}
			for _, sh := range s.shards { // none lags far behind, see topic_chain.go
				for sh.fan.count.Load() > 8 {
					runtime.Gosched()
				}
			}
		}
		published <- messages
	}()
	var all []*compressor
	for i := range 24 {
		all = append(all, s.openCompressed(t, "/topics/x", handshake.DeflateOffer{ServerBits: uint8(9 + i%2*3)}))
	}
	close(opened)
	messages := receive(t, "all is published", published)
	referring, got := 0, 0
	for _, c := range all {
		next := -1
		for next <= messages {
			_, m := c.inflate()
			if next < 0 {
				if _, err := fmt.Sscanf(string(m), `{"number":%d`, &next); err != nil {
					t.Fatalf("%q", m)
				}
			}
			if string(m) != text(next) {
				t.Fatalf("got %q, want number %d", m, next)
			}
			if got++; c.wire < 25 {
				referring++
			}
			next++
		}
		c.conn.Close()
	}
	if referring < got/2 {
		t.Errorf("%d of %d messages referred to others", referring, got)
	}
	t.Logf("%d messages came, %d of them refer to others; %d were compressed", got, referring, s.info("x").Deflated)
	eventually(t, "only the retained message is held", func() bool { return s.info("x").Subscribers == 0 })
	if held := s.Stats().Buffered; held > 1000 {
		t.Errorf("%d bytes are held", held)
	}
}
