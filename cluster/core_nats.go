package cluster

import (
	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// What is done only without JetStream, and when the client of NATS is replaced.

// subscribe takes messages as they come, without JetStream.
func (r *run) subscribe() (err error) {
	l := r.l
	r.sub, err = l.nc.Subscribe(l.cfg.Subject+".>", func(m *nats.Msg) {
		select {
		case l.in <- arrival{msg: m}:
		case <-l.ended:
		}
	})
	if err != nil {
		return err
	}
	return r.sub.SetPendingLimits(maxWaiting, 64<<20)
}

// redialed goes on with another client of NATS.
func (r *run) redialed(nc *nats.Conn) {
	l := r.l
	var err error
	if l.nc = nc; l.stream {
		l.js, err = jetstream.New(nc)
	} else {
		r.hole = hole{}
		err = r.subscribe()
	}
	if err != nil { // it has been closed since then, and is followed by another
		l.said(err)
		return
	}
	r.changed(true)
}

// heard is what has come from another server: all counts up to newest, but for
// those in missing. A server sends again what it did not get back.
type heard struct {
	newest  uint64
	missing map[uint64]struct{}
}

// isNew notes that a message came from another server; it is false when it had
// come before.
func (r *run) isNew(from string, id uint64) bool {
	h := r.seen[from]
	if h == nil {
		if len(r.seen) >= 10_000 {
			clear(r.seen) // of servers that are long gone
		}
		r.seen[from] = &heard{newest: id}
		return true
	}
	if id <= h.newest {
		_, missed := h.missing[id]
		delete(h.missing, id)
		return missed
	}
	if skipped := id - h.newest - 1; skipped+uint64(len(h.missing)) > maxWaiting {
		h.missing = nil // more than a server keeps to send it again
	} else if skipped > 0 {
		if h.missing == nil {
			h.missing = map[uint64]struct{}{}
		}
		for n := h.newest + 1; n < id; n++ {
			h.missing[n] = struct{}{}
		}
	}
	h.newest = id
	return true
}

// hole is where messages are missing among those that wait: the client of NATS
// had no room for them.
type hole struct {
	behind  int  // how many have to be delivered before it; 0: there is none
	another bool // and there is one further behind
	dropped int  // by the subscription, when that was logged last
}

// slow: this server does not keep up, and messages are missing behind those
// that wait.
func (r *run) slow() {
	if r.hole.behind > 0 {
		r.hole.another = true
		return
	}
	r.l.cfg.Log.Warn("messages come from NATS faster than they can be sent, and are dropped; subscribers are told of a gap")
	r.hole.behind = r.waiting()
}

// waiting is how many messages have come, and were not delivered; 1 at least.
func (r *run) waiting() int {
	n, _, err := r.sub.Pending()
	if err != nil {
		n = 0 // the connection was closed
	}
	return max(1, n+len(r.l.in))
}

// passed: another message was delivered. Those before the hole go first.
func (r *run) passed() {
	if r.hole.behind == 0 {
		return
	}
	if r.hole.behind--; r.hole.behind > 0 {
		return
	}
	r.l.topics.Lost(0)
	if r.hole.another {
		r.hole.another, r.hole.behind = false, r.waiting()
		return
	}
	n, err := r.sub.Dropped()
	if err != nil {
		return // it is another subscription, which begins with a gap of its own
	}
	r.l.cfg.Log.Warn("messages from NATS were dropped", "messages", n-r.hole.dropped)
	r.hole.dropped = n
}
