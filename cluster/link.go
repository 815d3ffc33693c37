package cluster

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"wspoll/server"

	"github.com/gobwas/ws"
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/nats-io/nuid"
)

// Config says where NATS is and what is passed through it.
type Config struct {
	// URLs of the servers, separated by commas.
	URLs string
	// Subject is in front of the topics' names: topic a.b is SUBJECT.a.b. The
	// stream has its name, in capitals and with _ for the dots.
	Subject string
	// Creds is a file of credentials; empty means none.
	Creds string
	// Replay is how many messages of a topic the stream must keep at least.
	Replay int
	// Buffer bounds the bytes of messages that wait for NATS; 0 means 8 MiB.
	Buffer int
	// Log gets when the link goes down and comes up; nil means nothing is logged.
	Log *slog.Logger
}

// ValidSubject says whether s can be Config.Subject: tokens of letters, digits,
// - and _, joined by dots.
func ValidSubject(s string) bool { return server.ValidTopicName(s) }

// ValidURLs says whether s is a list of URLs like nats://host:4222.
func ValidURLs(s string) bool {
	for one := range strings.SplitSeq(s, ",") {
		u, err := url.Parse(strings.TrimSpace(one))
		if err != nil || u.Host == "" || u.Scheme != "nats" && u.Scheme != "tls" && u.Scheme != "ws" && u.Scheme != "wss" {
			return false
		}
	}
	return true
}

// Redacted is a list of URLs without passwords and tokens.
func Redacted(urls string) string {
	var all []string
	for one := range strings.SplitSeq(urls, ",") {
		if u, err := url.Parse(strings.TrimSpace(one)); err == nil {
			u.User = nil
			all = append(all, u.String())
		}
	}
	return strings.Join(all, ",")
}

const (
	perSubject = 1000             // messages of a topic that the stream keeps beyond Replay, for servers that lag
	maxWaiting = 1 << 16          // messages that may wait for NATS
	again      = 3 * time.Second  // a message that has not come back by then is sent again
	comeUp     = 10 * time.Second // for NATS to answer at the start
	incoming   = 256              // messages from NATS on their way to the loops
	stuck      = 5 * time.Second  // a connection that takes no bytes for that long is given up
	overhead   = 1024             // bytes of a message's headers in NATS, at most
	sameError  = time.Minute      // for an error of NATS to be logged again
)

// Link joins the topics of a server to those of others.
type Link struct {
	cfg     Config
	topics  *server.Topics
	options []nats.Option
	nc      *nats.Conn          // run's, from begin on
	js      jetstream.JetStream // nil without JetStream; run's, and of what it has begun
	stream  bool                // js is not nil
	self    string              // in the ids of our messages
	largest atomic.Int64        // payload that NATS takes; relay must not wait for the lock of nc

	mu      sync.Mutex
	fresh   []*entry // published, and not seen by run
	bytes   int      // of all that has not come back
	count   int
	up      bool      // messages go to NATS as they come
	since   time.Time // of the last change of up
	closing bool

	lastError string // that was logged
	lastSaid  time.Time

	wake   chan struct{}
	state  chan bool // the connection went down, or came up
	ready  chan ready
	in     chan arrival
	gone   chan struct{}   // the client of NATS has given up
	dialed chan *nats.Conn // and this is another one
	unread chan unread     // the stream is not read any more
	slow   chan struct{}   // the client of NATS had no room and has dropped messages
	first  chan struct{}   // closed by run, when the link is up for the first time
	empty  chan struct{}   // closed by run, when closing and nothing is left to be sent
	quit   chan struct{}   // closed by Close
	ended  chan struct{}   // closed by run

	run run
}

// entry is a message of this server that has not come back yet.
type entry struct {
	server.Passed
	id    uint64
	sent  time.Time // when it was given to NATS last
	local bool      // it was delivered here without a number
	only  bool      // and is not kept for NATS: too much was waiting
}

// arrival is a message from NATS; gen tells to which connect it belongs.
type arrival struct {
	gen  int
	msg  *nats.Msg
	seq  uint64 // its number in the stream; 0 without one
	rest uint64 // how many messages the stream has behind it
}

// Join connects to NATS and joins topics to it, whose server must not have been
// started. With JetStream it returns when everything that the stream keeps is
// there. An error has no secret in it.
func Join(ctx context.Context, cfg Config, topics *server.Topics) (*Link, error) {
	if cfg.Buffer == 0 {
		cfg.Buffer = 8 << 20
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	l := &Link{
		cfg: cfg, topics: topics, self: idPrefix + nuid.Next(), since: time.Now(),
		wake: make(chan struct{}, 1), state: make(chan bool, 16), ready: make(chan ready), in: make(chan arrival, incoming),
		gone: make(chan struct{}, 1), dialed: make(chan *nats.Conn), unread: make(chan unread, 1), slow: make(chan struct{}, 1),
		first: make(chan struct{}),
		empty: make(chan struct{}), quit: make(chan struct{}), ended: make(chan struct{}),
	}
	l.options = []nats.Option{
		nats.Name("wspoll"), nats.MaxReconnects(-1), nats.ReconnectWait(250 * time.Millisecond),
		nats.ReconnectJitter(100*time.Millisecond, time.Second), nats.Timeout(comeUp / 2),
		nats.ReconnectBufSize(-1), // what waits, waits here
		nats.FlusherTimeout(stuck),
		// Credentials that are refused now may be good again, or be replaced in the file.
		nats.IgnoreAuthErrorAbort(),
		nats.PingInterval(2 * time.Second), nats.MaxPingsOutstanding(2),
		nats.DisconnectErrHandler(func(_ *nats.Conn, err error) { l.changed(false); l.said(err) }),
		nats.ReconnectHandler(func(nc *nats.Conn) { l.largest.Store(nc.MaxPayload()); l.changed(true) }),
		nats.ClosedHandler(func(*nats.Conn) { l.lostClient() }),
		nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) { l.asyncError(err) }),
	}
	if cfg.Creds != "" {
		l.options = append(l.options, nats.UserCredentials(cfg.Creds))
	}
	var err error
	if l.nc, err = nats.Connect(cfg.URLs, l.options...); err != nil {
		return nil, fmt.Errorf("NATS at %s cannot be reached: %w", Redacted(cfg.URLs), err)
	}
	l.largest.Store(l.nc.MaxPayload())
	if err := l.begin(ctx); err != nil {
		l.nc.Close()
		return nil, fmt.Errorf("NATS at %s: %w", Redacted(cfg.URLs), err)
	}
	return l, nil
}

// begin finds out whether there is JetStream, and takes what it keeps.
func (l *Link) begin(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, comeUp)
	defer cancel()
	js, err := jetstream.New(l.nc)
	if err != nil {
		return err
	}
	l.js = js
	_, err = l.lookUp(ctx, 0)
	if errors.Is(err, jetstream.ErrJetStreamNotEnabled) || errors.Is(err, jetstream.ErrJetStreamNotEnabledForAccount) || errors.Is(err, nats.ErrNoResponders) {
		l.js = nil
		l.cfg.Log.Warn("NATS has no JetStream: subscribers that come back, or come to another server, do not get what they missed")
	} else if err != nil {
		return fmt.Errorf("the stream %s: %w", l.streamName(), err)
	}
	l.stream = l.js != nil
	l.run.init(l)
	if !l.stream {
		if err := l.run.subscribe(); err != nil {
			return err
		}
	}
	l.topics.Join(l.relay, l.stream)
	go l.serve()
	l.changed(true)
	select {
	case <-l.first: // all that the stream keeps is here
		return nil
	case <-ctx.Done():
		close(l.quit)
		<-l.ended
		return fmt.Errorf("what the stream %s keeps has not come within %s", l.streamName(), comeUp)
	}
}

// changed is told by the client of NATS, which must not be held up.
func (l *Link) changed(up bool) {
	select {
	case l.state <- up:
	case <-l.ended:
	}
}

// lostClient: the client of NATS has given up, as it does when NATS says what
// it does not understand. Close brings this about too.
func (l *Link) lostClient() {
	select {
	case l.gone <- struct{}{}:
	default: // it is known
	}
}

// redial makes another client, until it can or Close is called.
func (l *Link) redial() {
	for {
		nc, err := nats.Connect(l.cfg.URLs, l.options...)
		if err == nil {
			l.largest.Store(nc.MaxPayload())
			select {
			case l.dialed <- nc:
			case <-l.ended:
				nc.Close()
			}
			return
		}
		l.said(err)
		select {
		case <-time.After(time.Second):
		case <-l.ended:
			return
		}
	}
}

func (l *Link) asyncError(err error) {
	if !errors.Is(err, nats.ErrSlowConsumer) || l.stream { // what the stream has comes again by itself
		l.said(err)
		return
	}
	select {
	case l.slow <- struct{}{}:
	default: // run will see
	}
}

// said logs an error of NATS, one that is the same as the last only now and
// then: a client without a permission gets it for each message.
func (l *Link) said(err error) {
	if err == nil {
		return
	}
	l.mu.Lock()
	again := err.Error() == l.lastError && time.Since(l.lastSaid) < sameError
	if !again {
		l.lastError, l.lastSaid = err.Error(), time.Now()
	}
	l.mu.Unlock()
	if !again {
		l.cfg.Log.Warn("NATS", "error", err)
	}
}

// relay takes what is published here; it does not wait.
func (l *Link) relay(p server.Passed) error {
	if most := l.largest.Load(); most > 0 && int64(len(p.Payload))+overhead > most {
		return server.ErrTooLarge
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	full := l.count >= maxWaiting || l.bytes+len(p.Payload) > l.cfg.Buffer
	switch {
	case l.closing:
		return server.ErrStopped
	// A publisher that gets an answer is told that it does not fit; what a
	// subscriber says reaches at least those of this server.
	case full && (l.up || p.From == server.Ref{}), l.count >= 2*maxWaiting || l.bytes > 2*l.cfg.Buffer:
		return server.ErrBusy
	}
	l.fresh = append(l.fresh, &entry{Passed: p, only: full})
	l.count++
	l.bytes += len(p.Payload)
	if l.up && l.bytes > l.cfg.Buffer/2 || l.count > maxWaiting/2 && l.up {
		l.topics.Hold(true)
	}
	select {
	case l.wake <- struct{}{}:
	default:
	}
	return nil
}

// Trouble says what is wrong with the link; it is empty when nothing is.
func (l *Link) Trouble() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.up {
		return ""
	}
	return fmt.Sprintf("the link to NATS is down for %s; messages reach the subscribers of this server alone, and %d wait",
		time.Since(l.since).Round(time.Second), l.count)
}

// Close takes no more messages, waits until those that were taken have come
// back, or ctx is done, or NATS cannot be reached, and ends the link. The
// server goes on with what was delivered.
func (l *Link) Close(ctx context.Context) {
	l.mu.Lock()
	l.closing = true
	l.mu.Unlock()
	select {
	case l.wake <- struct{}{}:
	default:
	}
	select {
	case <-l.empty:
	case <-ctx.Done():
	}
	close(l.quit)
	<-l.ended
	l.mu.Lock()
	n := l.count
	l.mu.Unlock()
	if n > 0 {
		l.cfg.Log.Warn("messages have not reached NATS, and so no other server", "messages", n)
	}
	l.nc.Close()
}

// opOf reads what kind of message it is; other programs need not say.
func opOf(m *nats.Msg) ws.OpCode {
	if m.Header.Get(opHeader) == binaryOp || !validText(m.Data) {
		return ws.OpBinary
	}
	return ws.OpText
}
