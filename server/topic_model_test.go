package server

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"testing"
	"unsafe"

	"wspoll/epoll"
	"wspoll/frame"
	"wspoll/handshake"

	"github.com/gobwas/ws"
	"golang.org/x/sys/unix"
)

// pipes is a kernel whose sockets are queues of bytes, for tests that decide
// when a socket has room and when a loop takes its next step.
type pipes struct {
	epoll.Kernel // nil: what is not below is not asked for
	now          int64
	last         int32
	wakes        int
	open         map[int32]*pipe
	polls        map[int][]*pipe // by epoll instance, in the order in which they were added
}

type pipe struct {
	fd     int32
	wake   bool
	in     []byte // for the server to read
	out    []byte // that it has written
	room   int    // bytes that out may get yet
	broken bool   // reset by the peer
	told   bool   // and epoll reports it; else a write finds it first
	events uint32
	key    uint64
}

func newPipes() *pipes {
	return &pipes{now: 1e9, last: 1 << 29, open: map[int32]*pipe{}, polls: map[int][]*pipe{}}
}

func (k *pipes) make() *pipe {
	k.last++
	p := &pipe{fd: k.last}
	k.open[p.fd] = p
	return p
}

func (k *pipes) Now() int64 { return k.now }

func (k *pipes) Open() (int, int32, error) {
	k.last++
	return int(k.last), k.make().fd, nil
}

func (k *pipes) Ctl(epfd, op int, fd int32, events uint32, key uint64) unix.Errno {
	p := k.open[fd]
	if op == unix.EPOLL_CTL_ADD {
		k.polls[epfd] = append(k.polls[epfd], p)
	}
	p.events, p.key = events, key
	return 0
}

func (k *pipes) Poll(epfd int, evs []unix.EpollEvent) (n int, _ unix.Errno) {
	k.polls[epfd] = slices.DeleteFunc(k.polls[epfd], func(p *pipe) bool { return k.open[p.fd] == nil })
	for _, p := range k.polls[epfd] {
		var ev uint32
		if p.wake || len(p.in) > 0 || p.told {
			ev |= unix.EPOLLIN
		}
		if p.room > 0 || p.told {
			ev |= unix.EPOLLOUT
		}
		if ev &= p.events; ev != 0 && n < len(evs) {
			evs[n] = unix.EpollEvent{Events: ev}
			*(*uint64)(unsafe.Pointer(&evs[n].Fd)) = p.key
			n++
		}
	}
	return n, 0
}

func (k *pipes) Wake(fd int32)                { k.open[fd].wake = true; k.wakes++ }
func (k *pipes) Nonblock(int32) error         { return nil }
func (k *pipes) SocketError(int32) unix.Errno { return 0 }
func (k *pipes) Shutdown(int32)               {}
func (k *pipes) Close(fd int32)               { delete(k.open, fd) }

func (k *pipes) Read(fd int32, b []byte) (int, unix.Errno) {
	p := k.open[fd]
	switch {
	case p.wake:
		p.wake = false
		return 8, 0
	case p.broken:
		return -1, unix.ECONNRESET
	case len(p.in) == 0:
		return -1, unix.EAGAIN
	}
	n := copy(b, p.in)
	p.in = p.in[n:]
	return n, 0
}

func (k *pipes) Write(fd int32, b []byte) (int, unix.Errno) {
	p := k.open[fd]
	switch {
	case p.broken:
		p.told = true
		return -1, unix.EPIPE
	case p.room == 0:
		return -1, unix.EAGAIN
	}
	n := min(p.room, len(b))
	p.out = append(p.out, b[:n]...)
	p.room -= n
	return n, 0
}

func (k *pipes) Writev(fd int32, iov *[2]unix.Iovec) (int, unix.Errno) {
	var all []byte
	for _, v := range iov {
		all = append(all, unsafe.Slice(v.Base, v.Len)...)
	}
	return k.Write(fd, all)
}

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

// reader is a client that subscribed.
type reader struct {
	m        *model
	id       int
	p        *pipe
	sh       *shard
	conn     epoll.ID
	numbered bool
	pieces   bool // its endpoint sends messages in pieces between
	midSend  bool
	topics   []string
	began    map[string]uint64 // number of the newest message when it subscribed, by topic
	before   map[string]uint64 // number of the newest message then, also of a topic that was freed
	since    map[string]uint64
	hello    *handshake.Hello
	parser   frame.Parser
	in       frame.Inflation
	terms    frame.Terms
	message  []byte
	pos      map[string]uint64 // what it knows of
	heard    map[string][]uint64
	closed   ws.StatusCode // Close that it got
	left     map[string]bool
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

// look takes what the server has written.
func (r *reader) look() {
	var p frame.Piece
	if i := bytes.Index(r.p.out, []byte("\r\n\r\n")); i >= 0 && bytes.HasPrefix(r.p.out, []byte("HTTP/1.1 101")) {
		r.answered(r.p.out[:i+4])
		r.p.out = r.p.out[i+4:]
	} else if bytes.HasPrefix(r.p.out, []byte("HTTP")) || bytes.HasPrefix([]byte("HTTP"), r.p.out) {
		return
	}
	for len(r.p.out) > 0 {
		n, err := r.parser.Next(r.rules(), r.p.out, &p)
		if err != nil {
			r.m.failf("%d got what is no frame: %v", r.id, err)
		}
		if n == 0 {
			return
		}
		r.p.out = r.p.out[n:]
		switch {
		case p.Op == ws.OpClose:
			r.closed, _, _ = frame.ParseClose(p.Data)
			r.m.say("%d is closed: %q", r.id, p.Data[2:])
			if r.closed == 1013 {
				r.m.told.slow++
			}
			return
		case p.Op.IsControl():
			continue
		}
		if p.Compressed {
			r.m.told.deflated++
			r.inflate(p.Data, p.Last)
		} else {
			r.message = append(r.message, p.Data...)
		}
		if p.Last {
			r.got(string(r.message))
			r.message = r.message[:0]
		}
	}
}

// answered reads what was agreed on.
func (r *reader) answered(head []byte) {
	var resp handshake.Response
	if _, err := handshake.ParseResponse(head, nil, &resp); err != nil {
		r.m.failf("%d got an answer that cannot be read: %v", r.id, err)
	}
	if err := resp.Check(r.hello); err != nil {
		r.m.failf("%d: %v", r.id, err)
	}
	if d := resp.Deflate; d.On {
		r.terms = frame.NewTerms(d.ClientBits, d.ServerBits, d.ClientNoContext, d.ServerNoContext)
	}
}

func (r *reader) rules() *frame.Rules {
	if r.terms.On() {
		return &compressedRules
	}
	return &clientRules
}

// inflate adds to the message.
func (r *reader) inflate(packed []byte, last bool) {
	z := r.m.judges
	z.Resume(&r.in, r.terms.InBits())
	for more := true; more; {
		out, n, again, err := z.Next(packed, last)
		if err != nil {
			r.m.failf("%d got what cannot be inflated: %v", r.id, err)
		}
		r.message, packed, more = append(r.message, out...), packed[n:], again
	}
	if z.Suspend(&r.in); last && r.terms.FreshIn() {
		r.in = frame.Inflation{}
	}
}

// got checks a message: for a reader with numbers each must be the next one,
// or be told of as a gap, but the first of one that began with since=0; for a
// reader without, it must be newer than the last.
func (r *reader) got(s string) {
	m := r.m
	if strings.HasPrefix(s, "piece") {
		if s != pieceText+pieceText {
			m.failf("%d got %q in pieces", r.id, s)
		}
		return
	}
	m.say("%d gets %.40q", r.id, s)
	m.told.messages++
	if !r.numbered {
		name, seq := m.identify(s)
		if h := r.heard[name]; len(h) > 0 && seq <= h[len(h)-1] {
			m.failf("%d got number %d after %d", r.id, seq, h[len(h)-1])
		}
		r.heard[name] = append(r.heard[name], seq)
		return
	}
	line, payload, _ := strings.Cut(s, "\n")
	f := strings.Fields(line)
	name := f[len(f)-1]
	a, _ := strconv.ParseUint(f[1], 10, 64)
	pos, known := r.pos[name]
	switch {
	case f[0] == "at" && !known:
		if since, ok := r.since[name]; ok && a != since && since <= r.began[name] {
			m.failf("%d came back with %d and stands at %d", r.id, since, a)
		}
		r.pos[name] = a
	case f[0] == "gap" && known && (a == pos+1 || pos == 0):
		b, _ := strconv.ParseUint(f[2], 10, 64)
		if b < a {
			m.failf("%d is told of a gap from %d to %d", r.id, a, b)
		}
		m.told.gaps++
		r.pos[name] = b
	case f[0] == "seq" && known && (a == pos+1 || pos == 0):
		if n, seq := m.identify(payload); n != name || seq != a {
			m.failf("%d got %q as %s %d; it is %s %d", r.id, payload, name, a, n, seq)
		}
		if m.message(name, a).from == r {
			m.failf("%d got its own message back", r.id)
		}
		r.pos[name] = a
	case f[0] == "own" && known && (a == pos+1 || pos == 0) && m.message(name, a).from == r:
		m.told.own++
		r.pos[name] = a
	case f[0] == "at" || f[0] == "seq" || f[0] == "own" || f[0] == "gap":
		m.failf("%d got %q and was at %d", r.id, line, pos)
	default:
		m.failf("%d got %q", r.id, line)
	}
}

// identify finds the message with this text.
func (m *model) identify(text string) (name string, seq uint64) {
	name, rest, _ := strings.Cut(text, " ")
	n, _, _ := strings.Cut(rest, " ")
	i, err := strconv.Atoi(n)
	if err != nil || i >= len(m.sent[name]) || m.sent[name][i].text != text {
		m.failf("%q was never published", text)
	}
	return name, m.sent[name][i].seq
}

func (m *model) message(name string, seq uint64) modelMessage {
	for _, x := range m.sent[name] {
		if x.seq == seq {
			return x
		}
	}
	return modelMessage{}
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

// settle lets everything that is on its way arrive.
func (m *model) settle() {
	for _, r := range m.readers {
		r.p.room = 1 << 40
		if r.midSend {
			r.piece()
		}
	}
	for _, r := range m.readers {
		r.p.told = r.p.broken
	}
	for quiet := 0; quiet < 10; quiet++ {
		for _, sh := range m.srv.shards {
			if sh.loop.Step(); sh.fan.busy() {
				quiet = 0
			}
		}
		for _, r := range m.readers {
			before := len(r.p.out)
			if r.look(); len(r.p.out) != before {
				quiet = 0
			}
		}
	}
}

// judge holds what each reader that is still there has to what there is.
func (m *model) judge() {
	for _, r := range m.readers {
		c, ok := r.sh.loop.Find(r.conn)
		if !ok || r.closed != 0 {
			continue
		}
		if r.sh.loop.Pending(c) > 0 || r.sh.isApart(c, r.sh.conns.At(c)) {
			m.failf("%d is still behind", r.id)
		}
		for _, name := range r.topics {
			if r.left[name] {
				continue
			}
			t := m.srv.topics.byName[name]
			if r.numbered {
				if r.pos[name] != t.seq && !(r.pos[name] == 0 && t.published == 0) {
					m.failf("%d is at %d of %s, which is at %d", r.id, r.pos[name], name, t.seq)
				}
				continue
			}
			m.judgePlain(r, t)
		}
	}
}

func (m *model) judgePlain(r *reader, t *topic) {
	heard := r.heard[t.name]
	var want []uint64
	for _, x := range m.sent[t.name] {
		if x.from != r && (x.seq > r.before[t.name] || len(heard) > 0 && x.seq >= heard[0]) {
			want = append(want, x.seq)
		}
	}
	if t.policy == PolicyClose && !slices.Equal(heard, want) {
		m.failf("%d, who began at %d of %s, got %d, want %d", r.id, r.began[t.name], t.name, heard, want)
	}
	if len(want) > 0 && (len(heard) == 0 || heard[len(heard)-1] != want[len(want)-1]) {
		m.failf("%d did not get the newest of %s: %d, want %d", r.id, t.name, heard, want)
	}
	if t.retain && r.began[t.name] > 0 && m.message(t.name, r.began[t.name]).seq != 0 && len(heard) > 0 && heard[0] > r.began[t.name] && t.policy == PolicyClose {
		m.failf("%d, who began at %d of %s, did not get the retained message: %d", r.id, r.began[t.name], t.name, heard)
	}
}

// end closes all connections and looks for what is left.
func (m *model) end() {
	for _, r := range m.readers {
		if c, ok := r.sh.loop.Find(r.conn); ok {
			r.sh.loop.Post(func() { r.sh.loop.Close(c) })
		}
	}
	for range 10 + len(m.readers) { // a function that panics ends its step
		for _, sh := range m.srv.shards {
			sh.loop.Step()
		}
	}
	if m.srv.topics.cfg.Pending == 1<<20 && (m.told.slow > 0 || m.srv.topics.dropped[DropOldest].Load() > 0) {
		m.failf("%d were closed for being slow, and %d messages dropped, though all fits", m.told.slow, m.srv.topics.dropped[DropOldest].Load())
	}
	kept, forms := 0, 0
	for name, t := range m.srv.topics.byName {
		if len(t.kept) == 0 || t.subs != 0 || t.behind.Load() != 0 || slices.ContainsFunc(t.locals, func(lc *local) bool { return lc != nil }) {
			m.failf("topic %s is left: %d subscribers, %d kept", name, t.subs, len(t.kept))
		}
		sum := 0
		for _, x := range t.kept {
			sum += x.size
			forms += x.charged
		}
		if sum != t.keptBytes {
			m.failf("topic %s keeps %d bytes and counts %d", name, sum, t.keptBytes)
		}
		kept += sum
	}
	if used := m.srv.group.Budget().Used(); used != int64(kept+forms) {
		m.failf("%d bytes of the budget are taken, %d are kept, and %d of them compressed", used, kept, forms)
	}
	for i, sh := range m.srv.shards {
		if n := sh.fan.count.Load(); n != 0 || sh.fan.bytes.Load() != 0 || len(sh.several) != 0 {
			m.failf("loop %d has %d messages to send, %d bytes, %d connections on several topics", i, n, sh.fan.bytes.Load(), len(sh.several))
		}
		for _, g := range sh.groups {
			if g != nil {
				m.failf("a group of topic %s is left", g.local.topic.name)
			}
		}
	}
}
