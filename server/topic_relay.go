package server

import (
	"context"
	"errors"
	"time"
	"unicode/utf8"

	"wspoll/epoll"

	"github.com/gobwas/ws"
)

// How the topics of several servers are joined. This package knows nothing of
// what lies between them: Join takes a function that is given what is published
// here, and Deliver takes what comes back, in the one order that all servers
// see, the messages of this server among it.

// Passed is a message that was published here and goes to the relay first.
type Passed struct {
	Topic   string
	Op      ws.OpCode
	Payload []byte // the relay's, until it calls Release
	From    Ref    // the subscriber that sent it, the zero Ref if none did

	// Done, if it is not nil, is to be called once: with the number that the
	// message got and true, or with false when it was delivered here alone for now.
	Done func(number uint64, passed bool)

	budget *epoll.Budget
}

// Release gives the payload's bytes back to the memory budget.
func (p *Passed) Release() { p.budget.Release(len(p.Payload)) }

// Delivery is a message for the subscribers of this server.
type Delivery struct {
	Topic   string
	Op      ws.OpCode
	Payload []byte // the caller's again when Deliver returns
	From    Ref    // its sender, if that is a connection of this server

	// Number is the one that the message has everywhere. With 0 it gets the
	// next of this server's own, or, when numbers are those of a stream, none:
	// it is to come Again then.
	Number uint64
	Again  bool
	// Lost: messages of the topic before it may have been lost.
	Lost bool
	// Only: no other server gets it. It is counted as DropLink.
	Only bool
}

// Join makes relay the way of all that is published: Publish gives messages to
// it, and what Deliver is given reaches the subscribers. relay is called by any
// goroutine, also on a loop, and must not wait; its error is that of Publish.
// With stream, messages have numbers of one stream, which all servers share,
// and all that it holds above the number of the last Lost is delivered. To be
// called before Start.
func (tp *Topics) Join(relay func(Passed) error, stream bool) { tp.relay, tp.stream = relay, stream }

// pass gives a message to the relay.
func (tp *Topics) pass(name string, op ws.OpCode, payload []byte, from Ref, done func(uint64, bool)) error {
	if len(payload) > tp.limit {
		return ErrTooLarge
	}
	tp.mu.RLock()
	defer tp.mu.RUnlock() // until it is handed over, so that a drain finds it
	if tp.stopped {
		return ErrStopped
	}
	budget := tp.srv.group.Budget()
	if !budget.Reserve(len(payload)) {
		tp.dropped[DropMemory].Add(1)
		return ErrMemory
	}
	p := Passed{Topic: name, Op: op, Payload: append([]byte(nil), payload...), From: from, Done: done, budget: budget}
	err := tp.relay(p)
	if err != nil {
		p.Release()
		if errors.Is(err, ErrBusy) {
			tp.dropped[DropBusy].Add(1)
		}
	}
	return err
}

// PublishWait is Publish, and waits until the message has its number, or ctx
// is done: then it is still Waiting.
func (tp *Topics) PublishWait(ctx context.Context, name string, op ws.OpCode, payload []byte) (Published, error) {
	if tp.relay == nil {
		return tp.Publish(name, op, payload)
	}
	if err := checkPublish(name, op, payload); err != nil {
		return Published{}, err
	}
	p := Published{Topic: name, Queued: tp.subscribers(name), Waiting: true}
	type answer struct {
		number uint64
		passed bool
	}
	done := make(chan answer, 1)
	if err := tp.pass(name, op, payload, Ref{}, func(n uint64, passed bool) { done <- answer{n, passed} }); err != nil {
		return p, err
	}
	select {
	case a := <-done:
		p.Seq, p.Waiting = a.number, !a.passed
	case <-ctx.Done():
	}
	return p, nil
}

// subscribers is how many a topic has on this server.
func (tp *Topics) subscribers(name string) int {
	tp.mu.RLock()
	defer tp.mu.RUnlock()
	t := tp.byName[name]
	if t == nil {
		return 0
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.subs
}

// What Deliver waits for when the loops, or the memory budget, have no room.
const (
	deliverAgain = 2 * time.Millisecond
	deliverLimit = 10 * time.Second // for memory; then the message is lost here, and subscribers are told
)

// Deliver sends a message to the subscribers of this server. To be called by
// one goroutine, which is not a loop's: it waits while the loops have too much
// to send. A message that cannot be delivered at all is an error, and a gap for
// the subscribers of its topic.
func (tp *Topics) Deliver(d *Delivery) (number uint64, err error) {
	if err := checkPublish(d.Topic, d.Op, d.Payload); err != nil {
		return 0, err
	}
	x := &publication{
		name: d.Topic, op: d.Op, payload: d.Payload, from: d.From,
		num: d.Number, lost: d.Lost, unnumbered: tp.stream && d.Number == 0, again: d.Again, tried: true,
	}
	if d.Only {
		tp.dropLink(d.Topic)
	}
	defer func() { tp.newest.Store(max(tp.newest.Load(), d.Number)) }()
	for began := time.Now(); ; time.Sleep(deliverAgain) {
		if tp.crowded() && !tp.isStopped() {
			continue
		}
		p, err := tp.publish(x)
		if err == nil || errors.Is(err, ErrStopped) {
			return p.Seq, err
		}
		if errors.Is(err, ErrBusy) {
			continue
		}
		if !errors.Is(err, ErrMemory) || time.Since(began) > deliverLimit {
			tp.lost(d.Topic, errors.Is(err, ErrMemory))
			return 0, err
		}
	}
}

// crowded: a loop has as much to send as it may.
func (tp *Topics) crowded() bool {
	for _, sh := range tp.srv.shards {
		if sh.fan.full() {
			return true
		}
	}
	return false
}

func (tp *Topics) isStopped() bool {
	tp.mu.RLock()
	defer tp.mu.RUnlock()
	return tp.stopped
}

func (tp *Topics) dropLink(name string) {
	tp.mu.RLock()
	defer tp.mu.RUnlock()
	if t := tp.byName[name]; t != nil {
		t.drop(DropLink, 1)
	} else {
		tp.dropped[DropLink].Add(1)
	}
}

// lost notes that a message of a topic did not come.
func (tp *Topics) lost(name string, memory bool) {
	tp.mu.RLock()
	defer tp.mu.RUnlock()
	if t := tp.byName[name]; t != nil {
		t.mu.Lock()
		t.lost = true
		t.mu.Unlock()
		if memory {
			t.drop(DropMemory, 1)
		}
	}
}

// Lost says that messages of any topic may have been lost up to a number of the
// stream; without a stream the number means nothing. Subscribers with numbers
// are told of it before the next message of their topic.
func (tp *Topics) Lost(upTo uint64) {
	tp.mu.Lock()
	defer tp.mu.Unlock()
	tp.whole.Store(upTo)
	tp.newest.Store(max(upTo, tp.newest.Load()))
	for _, t := range tp.byName {
		t.mu.Lock()
		t.lost = true
		t.mu.Unlock()
	}
}

// Hold makes connections that publish wait, or lets them go on: the relay has
// much to send.
func (tp *Topics) Hold(hold bool) {
	if tp.relayFull.Swap(hold) && !hold {
		tp.paused.resume()
	}
}

// checkPublish says what is wrong with a message.
func checkPublish(name string, op ws.OpCode, payload []byte) error {
	switch {
	case !ValidTopicName(name):
		return ErrTopicName
	case op != ws.OpText && op != ws.OpBinary:
		return ErrOpcode
	case op == ws.OpText && !utf8.Valid(payload):
		return ErrText
	}
	return nil
}
