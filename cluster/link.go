package cluster

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"strings"
	"sync"
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
)

// Link joins the topics of a server to those of others.
type Link struct {
	cfg    Config
	topics *server.Topics
	nc     *nats.Conn
	js     jetstream.JetStream // nil without JetStream
	self   string              // in the ids of our messages

	mu      sync.Mutex
	fresh   []*entry // published, and not seen by run
	bytes   int      // of all that has not come back
	count   int
	up      bool      // messages go to NATS as they come
	since   time.Time // of the last change of up
	closing bool

	wake  chan struct{}
	state chan bool // the connection went down, or came up
	ready chan ready
	in    chan arrival
	first chan struct{} // closed by run, when the link is up for the first time
	empty chan struct{} // closed by run, when closing and nothing is left to be sent
	quit  chan struct{} // closed by Close
	ended chan struct{} // closed by run

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
	gen int
	msg *nats.Msg
	seq uint64 // in the stream; 0 without one
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
		cfg: cfg, topics: topics, self: nuid.Next(), since: time.Now(),
		wake: make(chan struct{}, 1), state: make(chan bool, 16), ready: make(chan ready), in: make(chan arrival, incoming),
		first: make(chan struct{}),
		empty: make(chan struct{}), quit: make(chan struct{}), ended: make(chan struct{}),
	}
	options := []nats.Option{
		nats.Name("wspoll"), nats.MaxReconnects(-1), nats.ReconnectWait(250 * time.Millisecond),
		nats.ReconnectJitter(100*time.Millisecond, time.Second), nats.Timeout(comeUp / 2),
		nats.ReconnectBufSize(-1), // what waits, waits here
		nats.PingInterval(2 * time.Second), nats.MaxPingsOutstanding(2),
		nats.DisconnectErrHandler(func(*nats.Conn, error) { l.changed(false) }),
		nats.ReconnectHandler(func(*nats.Conn) { l.changed(true) }),
		nats.ErrorHandler(func(_ *nats.Conn, _ *nats.Subscription, err error) { l.asyncError(err) }),
	}
	if cfg.Creds != "" {
		options = append(options, nats.UserCredentials(cfg.Creds))
	}
	var err error
	if l.nc, err = nats.Connect(cfg.URLs, options...); err != nil {
		return nil, fmt.Errorf("NATS at %s cannot be reached: %w", Redacted(cfg.URLs), err)
	}
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
	_, err = l.stream(ctx)
	if errors.Is(err, jetstream.ErrJetStreamNotEnabled) || errors.Is(err, jetstream.ErrJetStreamNotEnabledForAccount) || errors.Is(err, nats.ErrNoResponders) {
		l.js = nil
		l.cfg.Log.Warn("NATS has no JetStream: subscribers that come back, or come to another server, do not get what they missed")
	} else if err != nil {
		return fmt.Errorf("the stream %s: %w", l.streamName(), err)
	}
	l.topics.Join(l.relay, l.js != nil)
	l.run.init(l)
	go l.serve()
	if l.js == nil {
		if err := l.subscribe(); err != nil {
			return err
		}
	}
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

func (l *Link) asyncError(err error) {
	l.cfg.Log.Warn("NATS", "error", err)
	if errors.Is(err, nats.ErrSlowConsumer) {
		l.changed(true) // as if it had been away: messages are lost
	}
}

// relay takes what is published here; it does not wait.
func (l *Link) relay(p server.Passed) error {
	if int64(len(p.Payload))+1024 > l.nc.MaxPayload() && l.nc.MaxPayload() > 0 {
		return server.ErrTooLarge
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	full := l.count >= maxWaiting || l.bytes+len(p.Payload) > l.cfg.Buffer
	switch {
	case l.closing:
		return server.ErrStopped
	case full && l.up, l.count >= 2*maxWaiting || l.bytes > 2*l.cfg.Buffer:
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
