package server

import (
	"cmp"
	"errors"
	"fmt"
	"path"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"wspoll/frame"

	"github.com/gobwas/ws"
)

// Topics passes messages on to the connections that subscribed to a name. A
// topic exists while it has subscribers or keeps messages; nobody declares it.
//
// Publish encodes a message once, gives it the next number of its topic, and
// puts it into a queue of each loop that has subscribers, whose number makes
// no difference. For subscribers that agreed on compression the first loop that
// sends it compresses it, once for each mode, for all loops. A loop works its queue off in slices, so that the
// other connections on it are served in between. All subscribers of a topic
// get its messages in the order of their numbers.
//
// A subscriber whose socket is full costs the others nothing: at most the
// unsent part of one frame is copied for it. It leaves the list that messages
// are sent along, and goes on from where it was when its socket has room; the
// messages it missed are kept meanwhile, shared by all who need them, up to
// TopicConfig.Pending bytes. What happens beyond that is the topic's Policy.
//
// Methods may be called by any goroutine, also on a loop, except Subscribe and
// Unsubscribe, which take a Conn, and List.
type Topics struct {
	srv   *Server
	cfg   TopicConfig
	limit int // most bytes of a payload

	// Publishing and subscribing hold mu to read, making and freeing a topic
	// to write; behind it come topic.mu, and fan.mu or topic.packing.
	mu      sync.RWMutex
	byName  map[string]*topic
	stopped bool

	published atomic.Uint64
	dropped   [NumDrops]atomic.Uint64
	paused    pausedConns

	relay     func(Passed) error // of Join; nil: this server is alone
	stream    bool               // of Join
	relayFull atomic.Bool        // of Hold
	whole     atomic.Uint64      // of Lost
	newest    atomic.Uint64      // number that was delivered, when they are those of a stream
}

// TopicConfig is what a server's topics are like. Where patterns choose
// topics, * stands for any characters, ? for one, [a-f] for one of a range.
type TopicConfig struct {
	// Open are patterns of the topics whose subscribers may publish too: what
	// one sends goes to the others. Nil means none; who tries is closed with 1008.
	Open []string
	// Retain are patterns of the topics that keep their newest message for
	// those who subscribe later. Nil means none.
	Retain []string
	// Replay is how many messages each topic keeps for subscribers that come
	// back and say which they saw last; 0 means none.
	Replay int
	// Policies say what happens to a subscriber that reads too slowly; the
	// first whose Pattern fits counts, and PolicyClose if none does.
	Policies []TopicPolicy
	// Pending is how many bytes of messages are kept for subscribers that
	// are behind, per topic and not per subscriber, and for Replay half as
	// many; 0 means 1 MiB. Their compressed forms are not counted here, but in
	// the memory budget, and there may be one for each size of window.
	Pending int
	// Max bounds how many topics there are at a time; 0 means 10000.
	Max int
}

// TopicPolicy is a policy for the topics that fit a pattern.
type TopicPolicy struct {
	Pattern string
	Policy  Policy
}

// Policy is what happens when a subscriber is more than TopicConfig.Pending behind.
type Policy uint8

const (
	PolicyClose      Policy = iota // Close 1013
	PolicyDropOldest               // it does not get the oldest of those it has not got
	PolicyLatest                   // it gets the newest only, when it is behind at all
)

var policyNames = []string{"close", "drop-oldest", "latest"}

func (p Policy) String() string { return policyNames[p] }

// ParsePolicy reads the name of a policy.
func ParsePolicy(s string) (Policy, error) {
	if i := slices.Index(policyNames, s); i >= 0 {
		return Policy(i), nil
	}
	return 0, fmt.Errorf("%q is not one of %s", s, strings.Join(policyNames, ", "))
}

// Drop is why a message did not reach a subscriber, or was not taken at all.
type Drop uint8

const (
	DropOldest Drop = iota // skipped by PolicyDropOldest
	DropLatest             // skipped by PolicyLatest
	DropClosed             // the subscriber was closed by PolicyClose before it got them
	DropEnded              // the subscriber was behind, and its connection ended otherwise
	DropMemory             // a publish that found no room in the memory budget
	DropBusy               // a publish that came while too many waited on a loop
	DropLink               // a publish that the other servers will not get: they could not be reached, and too much waited for that
	DropBeat               // a heart beat, not sent because the one before still waited
	NumDrops
)

var dropNames = [NumDrops]string{"drop-oldest", "latest", "closed", "ended", "memory", "busy", "link", "heart beat"}

func (d Drop) String() string { return dropNames[d] }

// Why a message was not published, or a topic not subscribed to.
var (
	ErrTopicName  = errors.New("a topic's name is 1 to 128 letters, digits and - _ ~, in parts joined by single dots")
	ErrTopicMax   = errors.New("there are as many topics as the server is to have")
	ErrBusy       = errors.New("more is published than can be sent; try again later")
	ErrTooLarge   = errors.New("a message too large to be published: it must fit in MaxMessage, and in MaxPending with its header")
	ErrText       = errors.New("a text message that is not UTF-8")
	ErrOpcode     = errors.New("only text and binary messages can be published")
	ErrSubscribed = errors.New("a connection cannot be on more than 65534 topics, nor on any when it has heart beats or has ended")
)

// MaxTopicName is the length of the longest name, in bytes.
const MaxTopicName = 128

// ValidTopicName says whether s can name a topic: 1 to 128 bytes out of
// A-Z a-z 0-9 - _ ~, in parts joined by single dots. Such a name is the same
// in a path, in a query and in a pattern.
func ValidTopicName(s string) bool {
	if len(s) > MaxTopicName {
		return false
	}
	last := byte('.')
	for i := range len(s) {
		c := s[i]
		switch {
		case 'a' <= c && c <= 'z', 'A' <= c && c <= 'Z', '0' <= c && c <= '9', c == '-', c == '_', c == '~':
		case c == '.' && last != '.':
		default:
			return false
		}
		last = c
	}
	return last != '.'
}

// Validate reports what in cfg could never work.
func (cfg *TopicConfig) Validate() error {
	patterns := slices.Concat(cfg.Open, cfg.Retain)
	for _, p := range cfg.Policies {
		if int(p.Policy) >= len(policyNames) {
			return fmt.Errorf("policy %d of the topics %q does not exist", p.Policy, p.Pattern)
		}
		patterns = append(patterns, p.Pattern)
	}
	for _, p := range patterns {
		if _, err := path.Match(p, ""); err != nil || p == "" {
			return fmt.Errorf("%q is not a pattern of topics, like chat.* or *", p)
		}
	}
	switch {
	case cfg.Replay < 0:
		return fmt.Errorf("replay of %d messages: must be 0 or more", cfg.Replay)
	case cfg.Pending < 0:
		return fmt.Errorf("%d bytes for subscribers that are behind: must be 0 or more", cfg.Pending)
	case cfg.Max < 0:
		return fmt.Errorf("%d topics: must be 0 or more", cfg.Max)
	}
	return nil
}

func newTopics(s *Server) (*Topics, error) {
	tp := &Topics{srv: s, cfg: s.cfg.Topics, byName: map[string]*topic{}}
	if tp.cfg.Pending == 0 {
		tp.cfg.Pending = 1 << 20
	}
	if tp.cfg.Max == 0 {
		tp.cfg.Max = 10_000
	}
	// What waits for a slow reader is the rest of one frame, and with it a few
	// control frames.
	const beside = 1024
	tp.limit = max(s.cfg.MaxPending-beside, s.cfg.MaxPending/2)
	if s.cfg.MaxMessage > 0 {
		tp.limit = int(min(int64(tp.limit), s.cfg.MaxMessage))
	}
	return tp, tp.cfg.Validate()
}

// Topics are the server's.
func (s *Server) Topics() *Topics { return s.topics }

// topic is one of them.
type topic struct {
	topics *Topics
	name   string
	open   bool
	policy Policy
	keep   int // messages to keep for those who subscribe later
	retain bool
	hidden bool // of the server's own, not to be listed

	mu        sync.Mutex
	seq       uint64     // of the newest message
	num       uint64     // the newest number
	lost      bool       // messages after it may have been lost
	locals    []*local   // by loop; nil where nobody subscribed
	subs      int        // subscribers on all loops
	numbered  int        // and those with numbers
	kept      []*message // the newest ones, without a gap, up to seq
	keptBytes int
	published uint64

	behind  atomic.Int64 // subscribers that wait for their sockets
	dropped [NumDrops]atomic.Uint64

	deflated atomic.Uint64 // messages that were compressed, once for each mode
	packing  sync.Mutex    // held to compress a message; nothing but the budget is asked for meanwhile
	chains   map[mode]*chain
}

func matches(patterns []string, name string) bool {
	return slices.ContainsFunc(patterns, func(p string) bool { ok, _ := path.Match(p, name); return ok })
}

func (tp *Topics) newTopic(name string) *topic {
	t := &topic{
		topics: tp,
		name:   name,
		open:   matches(tp.cfg.Open, name),
		retain: matches(tp.cfg.Retain, name),
		keep:   tp.cfg.Replay,
		locals: make([]*local, len(tp.srv.shards)),
		// Numbers go on from the time, so that they never come twice, also
		// when the topic was freed meanwhile or the server began anew: who
		// comes back with a number is told of a gap and not given others.
		seq: uint64(time.Now().UnixMicro()),
	}
	if t.num = t.seq; tp.stream {
		t.num = tp.newest.Load()
	}
	if t.retain {
		t.keep = max(t.keep, 1)
	}
	if tp.stream && t.keep > 0 {
		t.num = tp.whole.Load() // what came since then would be kept
	}
	i := slices.IndexFunc(tp.cfg.Policies, func(p TopicPolicy) bool { return matches([]string{p.Pattern}, name) })
	if i >= 0 {
		t.policy = tp.cfg.Policies[i].Policy
	}
	if name[0] == ownTopic {
		*t = topic{topics: tp, name: name, policy: PolicyLatest, hidden: true, locals: t.locals, seq: t.seq, num: t.seq}
	}
	return t
}

// ownTopic begins the names of topics that the server has for itself; no other
// name can.
const ownTopic = '('

func (t *topic) drop(why Drop, n uint64) {
	t.dropped[why].Add(n)
	t.topics.dropped[why].Add(n)
}

// Published tells of a message that was published.
type Published struct {
	Topic  string `json:"topic"`
	Seq    uint64 `json:"seq"`    // its number; 0 when nobody subscribed and nothing is kept
	Queued int    `json:"queued"` // subscribers it is on its way to, those of this server

	// Waiting: it has no number yet, and whether other servers get it is not
	// known. It is for servers that share their topics (Topics.Join).
	Waiting bool `json:"waiting,omitempty"`
}

// Publish sends a message, text or binary, to the subscribers of a topic.
// payload is the caller's again when it returns. It does not wait: when it
// returns no error the message is in the queues of the loops, and will reach
// every subscriber that keeps up and stays connected, also when the server is
// told to end meanwhile.
func (tp *Topics) Publish(name string, op ws.OpCode, payload []byte) (Published, error) {
	if err := checkPublish(name, op, payload); err != nil {
		return Published{}, err
	}
	if tp.relay != nil {
		return Published{Topic: name, Queued: tp.subscribers(name), Waiting: true}, tp.pass(name, op, payload, Ref{}, nil)
	}
	return tp.publish(&publication{name: name, op: op, payload: payload})
}

// publication is what is published.
type publication struct {
	name    string
	op      ws.OpCode
	payload []byte

	// The subscriber that sent it, if one did: queues that are full do not stop
	// it, since its sender will be held back.
	from Ref

	// What only Deliver says.
	num        uint64
	unnumbered bool
	again      bool
	lost       bool
	tried      bool // failures are counted by Deliver, which tries again
}

// publish is Publish for what has been checked.
func (tp *Topics) publish(x *publication) (Published, error) {
	p := Published{Topic: x.name}
	if len(x.payload) > tp.limit {
		return p, ErrTooLarge
	}
	tp.mu.RLock()
	defer tp.mu.RUnlock()
	t, err := tp.find(x.name, matches(tp.cfg.Retain, x.name) || tp.cfg.Replay > 0)
	if err != nil || t == nil {
		return p, err
	}
	return t.publish(x)
}

// find is the topic of this name, made if there is none and make says so. It
// is called, and returns, with mu held to read, for as long as which the topic stays.
func (tp *Topics) find(name string, create bool) (*topic, error) {
	for {
		t := tp.byName[name]
		switch {
		case tp.stopped:
			return nil, ErrStopped
		case t != nil || !create:
			return t, nil
		case len(tp.byName) >= tp.cfg.Max:
			return nil, ErrTopicMax
		}
		t = tp.newTopic(name)
		tp.mu.RUnlock()
		tp.mu.Lock()
		if tp.byName[name] == nil && len(tp.byName) < tp.cfg.Max {
			tp.byName[name] = t
		}
		tp.mu.Unlock()
		tp.mu.RLock() // meanwhile it may have gone again
	}
}

func (t *topic) publish(x *publication) (p Published, err error) {
	p.Topic = t.name
	m := &message{topic: t, op: x.op, again: x.again, from: x.from.sh, fromID: x.from.id}
	h := ws.Header{Fin: true, OpCode: x.op, Length: int64(len(x.payload))}
	m.head = ws.HeaderSize(h)
	m.size = m.head + len(x.payload)
	if !t.reserve(m.size) {
		t.refused(x, DropMemory)
		return p, ErrMemory
	}
	m.refs.Store(1)
	defer m.release()
	m.frames[modePlain] = append(frame.AppendHeader(make([]byte, 0, m.size), h), x.payload...)

	t.mu.Lock()
	defer t.mu.Unlock()
	for _, lc := range t.locals {
		if lc != nil && x.from.sh == nil && lc.sh.fan.full() {
			t.refused(x, DropBusy)
			return p, ErrBusy
		}
	}
	m.seq, m.after, m.lost = t.seq+1, t.num, t.lost || x.lost
	switch {
	case x.num > 0:
		m.num = x.num
	case !x.unnumbered:
		m.num = t.num + 1
		if m.lost {
			m.num++ // so that there is a number that will not come
		}
	default:
		m.lost = false // to be told with the next number
	}
	if t.numbered > 0 {
		n := m.numberedSize()
		if !t.topics.srv.group.Budget().Reserve(n) {
			t.refused(x, DropMemory)
			return p, ErrMemory
		}
		m.size += n
		m.frames[modeSeq] = m.appendNumbered(make([]byte, 0, n))
	}
	if t.seq = m.seq; m.num > 0 {
		t.num, t.lost = m.num, false
	}
	t.published++
	t.topics.published.Add(1)
	if t.keep > 0 {
		t.kept = append(t.kept, m.hold())
		t.keptBytes += m.size
		t.trim(t.keep)
	}
	// The queues are filled under the lock, so that all have the same order.
	for _, lc := range t.locals {
		if lc != nil {
			lc.sh.fan.push(lc, m.hold())
		}
	}
	p.Seq, p.Queued = m.num, t.subs
	if x.from.sh != nil {
		p.Queued--
	}
	return p, nil
}

func (t *topic) refused(x *publication, why Drop) {
	if !x.tried {
		t.drop(why, 1)
	}
}

// reserve takes n bytes of the budget, from what the topic keeps if need be.
func (t *topic) reserve(n int) bool {
	budget := t.topics.srv.group.Budget()
	if budget.Reserve(n) {
		return true
	}
	t.mu.Lock()
	t.trim(min(1, t.keep))
	t.mu.Unlock()
	return budget.Reserve(n)
}

// trim lets go of the oldest messages above the count of most, or above half
// of Pending bytes; the newest stays. mu is held.
func (t *topic) trim(most int) {
	for len(t.kept) > most || len(t.kept) > 1 && t.keptBytes > t.topics.cfg.Pending/2 {
		t.keptBytes -= t.kept[0].size
		t.kept[0].release()
		t.kept[0] = nil
		t.kept = t.kept[1:]
	}
}

// stop takes no more messages; those that were taken are in the queues when it returns.
func (tp *Topics) stop() {
	tp.mu.Lock()
	tp.stopped = true
	tp.mu.Unlock()
}

// TopicInfo tells of a topic.
type TopicInfo struct {
	Name        string            `json:"name"`
	Subscribers int               `json:"subscribers"`
	Behind      int64             `json:"behind"` // subscribers that wait for their sockets to take more
	Seq         uint64            `json:"seq"`    // number of the newest message
	Published   uint64            `json:"published"`
	Kept        int               `json:"kept"` // messages kept for those who subscribe later
	KeptBytes   int               `json:"kept_bytes"`
	Open        bool              `json:"open"`
	Policy      string            `json:"policy"`
	Deflated    uint64            `json:"deflated"` // times that a message was compressed: once for each size of window among its subscribers, with context takeover up to twice
	Dropped     map[string]uint64 `json:"dropped"`  // by reason; those that are 0 are not in it
}

// List tells of all topics, by name.
func (tp *Topics) List() []TopicInfo {
	tp.mu.RLock()
	defer tp.mu.RUnlock()
	list := make([]TopicInfo, 0, len(tp.byName))
	for _, t := range tp.byName {
		if t.hidden {
			continue
		}
		t.mu.Lock()
		info := TopicInfo{
			Name: t.name, Subscribers: t.subs, Behind: t.behind.Load(), Seq: t.num, Published: t.published,
			Kept: len(t.kept), KeptBytes: t.keptBytes, Open: t.open, Policy: t.policy.String(), Deflated: t.deflated.Load(), Dropped: map[string]uint64{},
		}
		t.mu.Unlock()
		for d := range NumDrops {
			if n := t.dropped[d].Load(); n > 0 {
				info.Dropped[d.String()] = n
			}
		}
		list = append(list, info)
	}
	slices.SortFunc(list, func(a, b TopicInfo) int { return cmp.Compare(a.Name, b.Name) })
	return list
}
