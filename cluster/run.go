package cluster

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode/utf8"

	"wspoll/server"

	"github.com/gobwas/ws"
	"github.com/nats-io/nats.go"
)

// Messages carry their kind, and the id by which their server knows them again
// and JetStream knows that it has them already: the server's name and a count.
const (
	opHeader = "Wspoll-Op"
	binaryOp = "binary"
	idPrefix = "wspoll:" // of a server's name; the ids of other programs mean nothing here
)

func validText(b []byte) bool { return utf8.Valid(b) }

// run is what belongs to the goroutine of serve.
type run struct {
	l       *Link
	out     []*entry // sent or to be sent and not come back, by id
	nextID  uint64
	gen     int             // of connects
	target  uint64          // with a stream: what has to come before the link is up
	wait    bool            // for target
	last    uint64          // number that came last
	trimmed map[string]bool // topics of which the stream has let messages go
	catch   func()          // ends what the last ready began
	back    time.Time       // when one of ours came last
	backID  uint64          // and the highest id among them

	// Without a stream:
	seen map[string]*heard // of other servers
	sub  *nats.Subscription
	hole hole
}

func (r *run) init(l *Link) { r.l, r.seen, r.catch = l, map[string]*heard{}, func() {} }

// serve is the one goroutine that gives messages to NATS and to the topics.
func (l *Link) serve() {
	r := &l.run
	defer close(l.ended)
	defer func() { r.catch() }()
	tick := time.NewTicker(again / 4)
	defer tick.Stop()
	for {
		select {
		case <-l.quit:
			return
		case up := <-l.state:
			r.changed(up)
		case s := <-l.ready:
			r.resumed(s)
		case a := <-l.in:
			r.arrived(a)
			r.passed()
		case u := <-l.unread:
			r.reread(u)
		case <-l.slow:
			r.slow()
		case <-l.gone:
			l.said(l.nc.LastError())
			r.changed(false)
			go l.redial()
		case nc := <-l.dialed:
			r.redialed(nc)
		case <-l.wake:
		case <-tick.C:
			r.sendAgain()
		}
		r.takeFresh()
		if l.isClosing() && (len(r.out) == 0 || !l.isUp()) {
			select {
			case <-l.empty:
			default:
				close(l.empty)
			}
		}
	}
}

func (l *Link) isClosing() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.closing && len(l.fresh) == 0
}

func (l *Link) isUp() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.up
}

// set changes up, and says so.
func (l *Link) set(up bool) {
	l.mu.Lock()
	changed := l.up != up
	if changed {
		l.up, l.since = up, time.Now()
	}
	n := l.count
	l.mu.Unlock()
	switch {
	case !changed:
	case up:
		l.cfg.Log.Info("the link to NATS is up", "subject", l.cfg.Subject, "jetstream", l.stream, "waiting", n)
	default:
		l.topics.Hold(false) // here nothing is waited for
		l.cfg.Log.Warn("the link to NATS is down; messages reach the subscribers of this server alone until it is up again")
	}
}

// changed: the connection to NATS is there, or is not.
func (r *run) changed(up bool) {
	l := r.l
	r.gen++
	r.catch()
	r.catch = func() {}
	l.set(false)
	for _, e := range r.out {
		r.deliverLocal(e)
	}
	switch {
	case !up:
	case !l.stream:
		l.topics.Lost(0)
		r.begin()
	default:
		r.catch = l.resume(r.gen, r.last)
	}
}

// resumed: the stream can be read from where we were.
func (r *run) resumed(s ready) {
	if s.gen != r.gen {
		return
	}
	if s.first > r.last+1 {
		r.l.topics.Lost(s.first - 1)
		r.last = s.first - 1
	}
	r.trimmed, r.target, r.wait = s.trimmed, s.last, true
	r.caughtUp(s.rest)
}

// reread: the stream cannot be read any more, though NATS is there.
func (r *run) reread(u unread) {
	if u.gen == r.gen {
		r.l.said(u.err)
		r.changed(true)
	}
}

// caughtUp goes on when all that the stream had has come: when what came last
// is target, or nothing comes after it, since what was there has been deleted.
func (r *run) caughtUp(rest uint64) {
	if r.wait && rest == 0 {
		r.last = max(r.last, r.target)
	}
	if r.wait && r.last >= r.target {
		r.wait, r.trimmed = false, nil
		r.begin()
	}
}

// begin sends what waits, and from now on what comes. What the stream had from
// us has come back by now: nothing is sent twice.
func (r *run) begin() {
	r.back = time.Now()
	r.sendAll()
	r.l.set(true)
	select {
	case <-r.l.first:
	default:
		close(r.l.first)
	}
}

// takeFresh sends what was published, or delivers it here when it cannot be sent.
func (r *run) takeFresh() {
	l := r.l
	l.mu.Lock()
	fresh, up := l.fresh, l.up
	l.fresh = nil
	l.mu.Unlock()
	for _, e := range fresh {
		r.nextID++
		e.id = r.nextID
		if e.only && up {
			e.only = false // it is up again since then
		}
		switch {
		case e.only:
			r.keepHere(e)
		case !up:
			r.out = append(r.out, e)
			r.deliverLocal(e)
		case errors.Is(r.send(e), nats.ErrMaxPayload):
			r.keepHere(e)
		default:
			r.out = append(r.out, e)
		}
	}
}

// send gives a message to NATS. One that fails is sent again in time.
func (r *run) send(e *entry) error {
	m := nats.NewMsg(r.l.cfg.Subject + "." + e.Topic)
	m.Data = e.Payload
	m.Header.Set(nats.MsgIdHdr, r.l.self+"-"+strconv.FormatUint(e.id, 10))
	if e.Op == ws.OpBinary {
		m.Header.Set(opHeader, binaryOp)
	}
	e.sent = time.Now()
	err := r.l.nc.PublishMsg(m)
	if err != nil {
		r.l.cfg.Log.Debug("a message could not be given to NATS", "error", err)
	}
	return err
}

// sendAll sends all that has not come back. What NATS would never take, since
// it takes less than when it was published, stays with this server.
func (r *run) sendAll() {
	r.out = slices.DeleteFunc(r.out, func(e *entry) bool {
		if err := r.send(e); !errors.Is(err, nats.ErrMaxPayload) {
			return false
		}
		r.keepHere(e)
		return true
	})
}

// keepHere gives a message up that no other server will get.
func (r *run) keepHere(e *entry) {
	e.only = true
	r.deliverLocal(e)
	r.done(e)
}

// sendAgain sends what should have come back by now: nothing has for a while,
// or what was sent later has. JetStream knows by its id what it has already.
func (r *run) sendAgain() {
	if !r.l.isUp() || len(r.out) == 0 || time.Since(r.out[0].sent) < again {
		return
	}
	if time.Since(r.back) < again && r.backID < r.out[0].id {
		return // they are on their way: there are many
	}
	r.l.cfg.Log.Warn("NATS has not returned messages; they are sent again", "messages", len(r.out))
	if r.l.stream {
		r.changed(true) // is there a stream at all?
		return
	}
	r.sendAll()
}

// deliverLocal gives a message to the subscribers of this server before it has
// come back.
func (r *run) deliverLocal(e *entry) {
	if e.local {
		return
	}
	e.local = true
	r.deliver(&server.Delivery{Topic: e.Topic, Op: e.Op, Payload: e.Payload, From: e.From, Only: e.only})
	if e.Done != nil {
		e.Done(0, false)
		e.Done = nil
	}
}

func (r *run) deliver(d *server.Delivery) (number uint64) {
	number, err := r.l.topics.Deliver(d)
	if err != nil && !errors.Is(err, server.ErrStopped) {
		r.l.cfg.Log.Debug("a message from NATS cannot be delivered", "topic", fmt.Sprintf("%.150q", d.Topic), "error", err)
	}
	return number
}

// arrived: a message came from NATS, perhaps one of ours.
func (r *run) arrived(a arrival) {
	if a.gen != r.gen && a.seq > 0 {
		return // it comes again, since we resume behind last
	}
	name := strings.TrimPrefix(a.msg.Subject, r.l.cfg.Subject+".")
	d := server.Delivery{Topic: name, Op: opOf(a.msg), Payload: a.msg.Data, Number: a.seq}
	if a.seq > 0 {
		if a.seq <= r.last {
			return
		}
		if a.seq > r.last+1 && !r.wait {
			r.l.topics.Lost(a.seq - 1) // the stream has let go of them before they came
		}
		if d.Lost = r.trimmed[name]; d.Lost {
			delete(r.trimmed, name)
		}
		r.last = a.seq
		defer r.caughtUp(a.rest)
		if name == filler {
			if len(a.msg.Data) > 0 {
				r.l.topics.Lost(a.seq)
			}
			return
		}
	}
	from, id := parseID(a.msg.Header.Get(nats.MsgIdHdr))
	if from != r.l.self {
		if a.seq > 0 || from == "" || r.isNew(from, id) {
			r.deliver(&d)
		}
		return
	}
	r.back, r.backID = time.Now(), max(r.backID, id)
	i, ok := slices.BinarySearchFunc(r.out, id, func(e *entry, id uint64) int { return cmp.Compare(e.id, id) })
	if !ok {
		if a.seq > 0 {
			r.deliver(&d) // the stream has it twice: so it has for all
		}
		return
	}
	e := r.out[i]
	if i == 0 { // as it nearly always is; the others need not move
		r.out[0], r.out = nil, r.out[1:]
	} else {
		r.out = slices.Delete(r.out, i, i+1)
	}
	d.From, d.Again = e.From, e.local
	number := a.seq
	if !e.local || a.seq > 0 {
		number = r.deliver(&d)
	}
	if e.Done != nil {
		e.Done(number, true)
	}
	r.done(e)
}

// done: a message needs no place here any more.
func (r *run) done(e *entry) {
	l := r.l
	e.Release()
	l.mu.Lock()
	l.count--
	l.bytes -= len(e.Payload)
	calm := l.bytes < l.cfg.Buffer/4 && l.count < maxWaiting/4
	l.mu.Unlock()
	if calm {
		l.topics.Hold(false)
	}
}

// parseID splits the id of a message; from is empty when no server of ours made it.
func parseID(s string) (from string, id uint64) {
	from, count, _ := strings.Cut(s, "-")
	id, err := strconv.ParseUint(count, 10, 64)
	if !strings.HasPrefix(from, idPrefix) || err != nil {
		return "", 0
	}
	return from, id
}
