package server

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"wspoll/epoll"
	"wspoll/frame"
	"wspoll/handshake"

	"github.com/gobwas/ws"
)

// model is a server on pipes, and a naive idea of what its topics are.
type model struct {
	t       *testing.T
	rng     *rand.Rand
	k       *pipes
	srv     *Server
	sent    map[string][]modelMessage // all that was published, by topic
	readers []*reader
	trace   []string
	told    struct{ messages, gaps, own, slow, deflated int }
	judges  *frame.Inflater // of all readers
}

type modelMessage struct {
	seq  uint64
	text string
	from *reader
}

const modelTopics = 5

func (m *model) failf(format string, args ...any) {
	m.t.Helper()
	m.t.Fatalf("%s\n%s", fmt.Sprintf(format, args...), strings.Join(m.trace[max(0, len(m.trace)-60):], "\n"))
}

func (m *model) say(format string, args ...any) {
	m.trace = append(m.trace, fmt.Sprintf(format, args...))
}

func (m *model) topic() string { return string(rune('a' + m.rng.IntN(modelTopics))) }

// open makes a connection and its subscriptions.
func (m *model) open() {
	r := &reader{
		m: m, id: len(m.readers), p: m.k.make(), sh: m.srv.shards[m.rng.IntN(len(m.srv.shards))],
		began: map[string]uint64{}, before: map[string]uint64{}, since: map[string]uint64{}, pos: map[string]uint64{}, heard: map[string][]uint64{}, left: map[string]bool{},
	}
	m.readers = append(m.readers, r)
	r.p.room = []int{1 << 20, 1 << 20, 1 << 20, 700, 0}[m.rng.IntN(5)]
	r.topics = append(r.topics, m.topic())
	for m.rng.IntN(4) == 0 {
		if n := m.topic(); !slices.Contains(r.topics, n) {
			r.topics = append(r.topics, n)
		}
	}
	path := "/topics/"
	if r.pieces = m.rng.IntN(4) == 0; r.pieces {
		path = "/pieces/"
	} else {
		r.numbered = m.rng.IntN(2) == 0
	}
	query := []string{"also=" + strings.Join(r.topics[1:], ",")}
	if len(r.topics) == 1 {
		query = nil
	}
	if r.numbered {
		query = append(query, "seq=1")
		if m.rng.IntN(2) == 0 { // comes back
			now := m.newest(r.topics[0])
			since := now - min(now, uint64(m.rng.IntN(30)))
			if m.rng.IntN(8) == 0 {
				since = 0
			}
			r.since[r.topics[0]] = since
			query = append(query, fmt.Sprint("since=", since))
		}
	}
	for _, n := range r.topics {
		r.began[n] = m.newest(n)
		if s := m.sent[n]; len(s) > 0 {
			r.before[n] = s[len(s)-1].seq
		}
	}
	target := path + r.topics[0] + "?" + strings.Join(query, "&")
	m.say("%d opens %s on loop %d, room %d", r.id, target, r.sh.loop.Index(), r.p.room)
	r.hello = &handshake.Hello{Host: "a", Target: target, Key: []byte("dGhlIHNhbXBsZSBub25jZQ==")}
	if m.rng.IntN(2) == 0 { // compression, with windows of a few sizes
		offer := handshake.DeflateOffer{ServerNoContext: m.rng.IntN(4) == 0, ServerBits: []uint8{0, 8, 9, 15}[m.rng.IntN(4)]}
		r.hello.Extensions = string(handshake.AppendDeflateOffers(nil, offer))
	}
	ep, _ := m.srv.endpointOf([]byte(path + "x"))
	r.sh.adopted = &adoption{endpoint: ep, head: handshake.AppendRequest(nil, r.hello)}
	r.sh.loop.Add(int(r.p.fd), 0, nil)
	r.sh.adopted = nil
	for c := epoll.Slot(1); c < r.sh.loop.Slots(); c++ {
		if _, ok := r.sh.loop.Find(r.sh.loop.ID(c)); ok && r.sh.loop.Fd(c) == int(r.p.fd) {
			r.conn = r.sh.loop.ID(c)
		}
	}
	r.look()
}

// newest is the number of the newest message of a topic, 0 when there is no topic.
func (m *model) newest(name string) uint64 {
	if t := m.srv.topics.byName[name]; t != nil {
		return t.seq
	}
	return 0
}

func (m *model) publish(from *reader) {
	name := m.topic()
	text := fmt.Sprintf("%s %d ", name, len(m.sent[name]))
	text += strings.Repeat("x", []int{0, 0, 5, 200}[m.rng.IntN(4)])
	if from != nil {
		if c, ok := from.sh.loop.Find(from.conn); !ok || from.closed != 0 || from.sh.conns.At(c).group == groupNone || from.pieces || from.sh.loop.Held(c) {
			return
		}
		name = from.topics[0]
		text = fmt.Sprintf("%s %d ", name, len(m.sent[name]))
		before := m.newest(name)
		from.p.in = append(from.p.in, masked(true, ws.OpText, []byte(text))...)
		for tries := 0; len(from.p.in) > 0 && tries < 20; tries++ { // a panic ends a step before it is done
			from.sh.loop.Step()
		}
		if m.newest(name) == before+1 {
			m.sent[name] = append(m.sent[name], modelMessage{before + 1, text, from})
			m.say("%d publishes %.20q as %d", from.id, text, before+1)
		} else {
			m.say("%d could not publish %.20q", from.id, text)
		}
		return
	}
	p, err := m.srv.topics.Publish(name, ws.OpText, []byte(text))
	if err != nil {
		m.failf("publish: %v", err)
	}
	if p.Seq != 0 {
		m.sent[name] = append(m.sent[name], modelMessage{p.Seq, text, nil})
	}
	m.say("%.20q is published as %d for %d", text, p.Seq, p.Queued)
}

// pick is a reader whose connection is open.
func (m *model) pick() *reader {
	if len(m.readers) == 0 {
		return nil
	}
	r := m.readers[m.rng.IntN(len(m.readers))]
	if _, ok := r.sh.loop.Find(r.conn); !ok {
		return nil
	}
	return r
}

func (m *model) act() {
	switch n := m.rng.IntN(100); {
	case n < 30:
		m.srv.shards[m.rng.IntN(len(m.srv.shards))].loop.Step()
	case n < 55:
		m.publish(nil)
	case n < 65:
		m.publish(m.pick())
	case n < 75:
		if len(m.readers) < 400 {
			m.open()
		}
	default:
		r := m.pick()
		if r == nil {
			return
		}
		c, _ := r.sh.loop.Find(r.conn)
		switch {
		case n < 83 && r.pieces:
			r.piece()
		case n < 88: // it reads
			r.p.room += []int{0, 3, 100, 1000, 1 << 20}[m.rng.IntN(5)]
		case n < 90:
			r.p.room = 0 // it has stopped reading
		case n < 94 && r.pieces:
			r.piece()
		case n < 95 && r.pieces:
			m.say("%d unsubscribes", r.id)
			r.sh.loop.Post(func() { m.srv.topics.Unsubscribe(Conn{r.sh, r.conn}, r.topics[0]) })
			r.left[r.topics[0]] = true
		case n == 95:
			m.say("%d breaks", r.id)
			r.p.broken, r.p.told = true, m.rng.IntN(2) == 0
		case n == 96:
			m.say("%d is ended", r.id)
			r.sh.loop.Post(func() { r.sh.loop.Close(c) })
		case n == 97 && r.closed == 0:
			m.say("%d says goodbye", r.id)
			r.p.in = append(r.p.in, frame.AppendMaskedClose(nil, [4]byte{}, 1000, "")...)
		}
	}
}

var pieceText = "piece of a message of the endpoint's own " + strings.Repeat("x", 40)

// piece begins a message of the endpoint's own, or ends it.
func (r *reader) piece() {
	first := !r.midSend
	r.sh.loop.Post(func() { Conn{r.sh, r.conn}.SendPiece(ws.OpText, first, !first, []byte(pieceText)) })
	r.midSend = first
}

func (m *model) lookAll() {
	for _, r := range m.readers {
		r.look()
	}
}

func newModel(t *testing.T, seed uint64) *model {
	m := &model{t: t, rng: rand.New(rand.NewPCG(seed, 7)), k: newPipes(), sent: map[string][]modelMessage{}, judges: frame.NewInflater()}
	any := []string{"*"}
	cfg := Config{
		Loops:      1 + m.rng.IntN(3),
		MaxPending: 64 << 10,
		kernel:     m.k,

		Compress: []Compression{CompressShared, CompressContext}[m.rng.IntN(2)], CompressMin: 32,
		Topics: TopicConfig{
			Open: any, Replay: []int{0, 0, 3, 20}[m.rng.IntN(4)], Pending: []int{300, 2000, 1 << 20}[m.rng.IntN(3)],
			Policies: []TopicPolicy{{"a", PolicyDropOldest}, {"b", PolicyLatest}, {"c", PolicyDropOldest}},
		},
	}
	if m.rng.IntN(2) == 0 {
		cfg.Topics.Retain = []string{"[a-d]"}
	}
	srv, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	m.srv = srv
	srv.sliceSends = 1 + m.rng.IntN(4)
	if m.rng.IntN(4) == 0 {
		srv.manyGroups = 3
	}
	if err := srv.Handle("/topics/", srv.Topics().Endpoint()); err != nil {
		t.Fatal(err)
	}
	if err := srv.Handle("/pieces/", &Endpoint{
		Open: func(c Conn) {
			w, _ := parseWishes(c.Request())
			for _, x := range w.topics {
				srv.Topics().Subscribe(c, x.name)
			}
		},
		Close: func(c Conn, _ Reason) {
			if c.id%5 == 0 {
				panic("an endpoint's Close panics")
			}
		},
	}); err != nil {
		t.Fatal(err)
	}
	srv.started.Store(true)
	return m
}

// TestModelOfTopics drives a server step by step, with readers that are slow,
// stop reading, send messages in pieces, publish, break and come back, in any
// order between the slices of a fan-out, and holds what each of them got to
// what was published: all of it, once, in order, and every gap told of.
func TestModelOfTopics(t *testing.T) {
	seeds, steps := 100, 1500
	if raceEnabled {
		seeds = 10
	}
	var told struct{ messages, gaps, own, slow, deflated int }
	for seed := range uint64(seeds) {
		t.Run(fmt.Sprint("seed ", seed), func(t *testing.T) {
			m := newModel(t, seed)
			for range steps {
				m.act()
				m.lookAll()
			}
			m.settle()
			m.judge()
			told.messages += m.told.messages
			told.gaps += m.told.gaps
			told.own += m.told.own
			told.slow += m.told.slow
			told.deflated += m.told.deflated
			m.end()
		})
	}
	t.Logf("%+v", told)
	if told.messages == 0 || told.gaps == 0 || told.own == 0 || told.slow == 0 || told.deflated == 0 {
		t.Errorf("something never happened: %+v", told)
	}
}
