package server

import (
	"sync"

	"wspoll/epoll"

	"github.com/gobwas/ws"
)

// queue holds the messages of one connection for Endpoint.Blocking. The loop
// puts them in; a goroutine that lives while there are any takes them out.
type queue struct {
	mu      sync.Mutex
	waiting []queued
	bytes   int
	running bool
	held    bool // the loop has stopped reading from the connection
}

type queued struct {
	op      ws.OpCode
	payload []byte
}

const (
	queueHigh = 64 << 10 // bytes that wait: reading stops
	queueMany = 64       // messages that wait: reading stops
)

// full is asked with mu held.
func (q *queue) full() bool { return q.bytes > queueHigh || len(q.waiting) > queueMany }

// enqueue is called on the loop.
func (sh *shard) enqueue(c epoll.Slot, st *state, conn Conn, ep *Endpoint, op ws.OpCode, msg []byte) {
	if !sh.srv.group.Budget().Reserve(len(msg)) {
		sh.sendClose(c, st, ReasonMemory, statusTryAgainLater, "out of memory for messages; try again later")
		return
	}
	q := sh.queues[c]
	if q == nil {
		q = new(queue)
		sh.queues[c] = q
		st.flags |= flagQueued
	}
	q.mu.Lock()
	defer q.mu.Unlock()
	q.waiting = append(q.waiting, queued{op, append([]byte(nil), msg...)})
	q.bytes += len(msg)
	if q.full() && !q.held {
		q.held = true
		sh.loop.Pause(c)
	}
	if !q.running {
		q.running = true
		sh.srv.blocking.Go(func() { q.run(conn.Ref(), ep) })
	}
}

// run handles what waits, one message after another, and ends when none does.
func (q *queue) run(r Ref, ep *Endpoint) {
	r.sh.srv.running.Add(1)
	defer r.sh.srv.running.Add(-1)
	q.mu.Lock()
	defer q.mu.Unlock()
	for len(q.waiting) > 0 {
		m := q.waiting[0]
		q.waiting[0] = queued{}
		q.waiting = q.waiting[1:]
		q.mu.Unlock()
		q.call(r, ep, m)
		r.sh.srv.group.Budget().Release(len(m.payload))
		q.mu.Lock()
		q.bytes -= len(m.payload)
		if q.held && !q.full() {
			q.held = false
			r.post(func() {
				if c, ok := r.sh.loop.Find(r.id); ok {
					r.sh.loop.Resume(c)
				}
			}, func() {})
		}
	}
	q.waiting = nil
	q.running = false
}

// call runs the endpoint's function. A panic in it costs its own connection,
// as it does on the loop.
func (q *queue) call(r Ref, ep *Endpoint, m queued) {
	defer func() {
		if v := recover(); v != nil {
			r.sh.srv.logPanic(v)
			r.Do(func(c Conn) {
				if slot, st := c.find(); st != nil {
					c.sh.panicClose(slot, st)
				}
			})
		}
	}()
	ep.Blocking(r, m.op, m.payload)
}
