package bench

import (
	"bytes"
	"time"

	"wspoll/epoll"
	"wspoll/frame"

	"github.com/gobwas/ws"
)

// ring holds the times of the messages in flight on one connection, by their
// number. A power of two long, grown as needed; 0 is a message that is not in
// flight.
type ring struct{ at []int64 }

// maxLate is how many messages later a reply that was overtaken is still known
// as late; one that comes after that counts as a duplicate.
const maxLate = 1 << 12

// maxInFlight bounds what one connection may have unanswered in the open loop.
const maxInFlight = 1 << 16

func (r *ring) slot(seq uint32) *int64 { return &r.at[seq&uint32(len(r.at)-1)] }

// room makes sure that the messages from number back to seq have a slot each;
// false when that were too many.
func (r *ring) room(back, seq uint32) bool {
	if n := int(seq - back); n < len(r.at) {
		return true
	} else if n >= maxInFlight {
		return false
	}
	old := *r
	r.at = make([]int64, max(16, 2*len(old.at)))
	for i := back; i != seq && len(old.at) > 0; i++ {
		*r.slot(i) = *old.slot(i)
	}
	return true
}

// Start begins to send: in the closed loop the first messages, each reply is
// then answered with the next one; with a Rate, on schedule.
func (c *Client) Start() {
	c.do(func() {
		if c.cfg.Rate > 0 {
			c.mode = modeRate
			c.loop.Each(func(s epoll.Slot) {
				if c.conns.At(s).phase == phaseOpen {
					c.order = append(c.order, c.loop.ID(s))
				}
			})
			c.next = float64(c.loop.Clock())
			c.loop.SetAlarm(int64(c.next))
			return
		}
		c.mode = modeLoop
		c.each(c.cfg.Depth)
	})
}

// each sends n messages on every open connection.
func (c *Client) each(n int) {
	c.loop.Each(func(s epoll.Slot) {
		k := c.conns.At(s)
		for range n {
			if k.phase == phaseOpen && c.more() {
				c.send(s, k, c.loop.Clock())
			}
		}
	})
}

// more reports whether another message may be sent.
func (c *Client) more() bool { return c.cfg.Limit == 0 || c.counts.Sent < c.cfg.Limit }

// Once sends one message on each connection and returns when every reply is
// back; false when they were not within cfg.Timeout.
func (c *Client) Once() bool {
	home := make(chan struct{})
	c.do(func() {
		c.want, c.home = c.counts.Messages+uint64(c.counts.Open), home
		c.each(1)
	})
	select {
	case <-home:
		return true
	case <-time.After(c.cfg.Timeout):
		return false
	}
}

// Pause sends no more; messages in flight come home.
func (c *Client) Pause() { c.do(func() { c.mode = modeHold; c.loop.SetAlarm(0) }) }

// Settle waits until no message is in flight, for at most limit.
func (c *Client) Settle(limit time.Duration) {
	home := make(chan struct{})
	c.do(func() {
		n := c.count()
		if c.want, c.home = n.Messages+n.InFlight, home; n.InFlight == 0 {
			c.home = nil
			close(home)
		}
	})
	select {
	case <-home:
	case <-time.After(limit):
	}
}

// Arrive waits until n messages have come, for at most limit.
func (c *Client) Arrive(n uint64, limit time.Duration) {
	if n == 0 {
		return
	}
	select {
	case <-c.after(n):
	case <-time.After(limit):
	}
}

// after returns a channel that is closed when n replies have come; nil, which
// never is, for 0.
func (c *Client) after(n uint64) <-chan struct{} {
	if n == 0 {
		return nil
	}
	home := make(chan struct{})
	c.do(func() {
		if c.want, c.home = n, home; c.counts.Messages >= n {
			c.home = nil
			close(home)
		}
	})
	return home
}

// Cycle opens connections and closes each as soon as it is upgraded,
// cfg.Connections at a time, until Pause.
func (c *Client) Cycle() {
	c.do(func() {
		c.mode = modeCycle
		c.rampNext = c.loop.Clock()
		c.dialMore()
	})
}

// alarm: a message or a connection is due.
func (c *Client) alarm() {
	switch c.mode {
	case modeRate:
	case modePublish:
		c.publishDue()
		return
	default:
		c.dialMore()
		return
	}
	now := c.loop.Clock()
	for n := 0; c.next <= float64(now) && c.more(); n++ {
		if n == alarmBatch {
			break // replies must have their turn, however late we are
		}
		c.scheduled(int64(c.next), now)
		c.next += float64(time.Second) / c.cfg.Rate
	}
	if c.more() {
		c.loop.SetAlarm(int64(min(c.next, 1<<62)))
	}
}

// alarmBatch is how many messages are sent on schedule before events are looked at.
const alarmBatch = 256

// scheduled sends the message that is due at a time, on the next connection
// that can take it.
func (c *Client) scheduled(due, now int64) {
	for range len(c.order) {
		if c.turn >= len(c.order) {
			c.turn = 0
		}
		s, ok := c.loop.Find(c.order[c.turn])
		if !ok {
			c.order[c.turn] = c.order[len(c.order)-1]
			c.order = c.order[:len(c.order)-1]
			continue
		}
		c.turn++
		if k := c.conns.At(s); k.phase == phaseOpen && c.send(s, k, due) {
			c.counts.Slip = max(c.counts.Slip, time.Duration(now-due))
			return
		}
	}
	c.counts.Unsent++
}

// send sends the next message of a connection; at is when it is taken to be
// sent. False when too many are in flight.
func (c *Client) send(s epoll.Slot, k *conn, at int64) bool {
	if c.many {
		r := c.rings.At(s)
		for k.low != k.back && k.sent-k.low >= maxLate {
			c.raiseLow(k, r) // that reply will not come
		}
		if !r.room(k.low, k.sent+1) {
			return false
		}
		*r.slot(k.sent) = at
	} else {
		k.began = at
	}
	t := c.template(k, k.sent)
	wire := t.wire
	if c.squeeze != nil {
		wire = c.pack(s, k, t.mask, c.squeeze.numbered(t, k.sent))
	} else {
		t.number(k.sent)
	}
	k.sent++
	c.counts.Sent++
	c.counts.BytesSent += uint64(len(t.payload))
	c.write(s, wire)
	return true
}

// raiseLow moves low to the next number without a reply.
func (c *Client) raiseLow(k *conn, r *ring) {
	for k.low++; k.low != k.back && *r.slot(k.low) == 0; {
		k.low++
	}
}

// template is the message with that number.
func (c *Client) template(k *conn, seq uint32) *template {
	all := c.framed
	if c.cfg.Targets[k.target].Raw {
		all = c.bare
	}
	if len(all) == 1 {
		return &all[0]
	}
	return &all[seq%uint32(len(all))]
}

// write sends bytes.
func (c *Client) write(s epoll.Slot, b []byte) {
	if c.cfg.Targets[c.conns.At(s).target].TLS == nil {
		c.counts.WireOut += uint64(len(b))
	}
	c.loop.Write(s, b)
}

// raw counts what a plain TCP echo brings back.
func (c *Client) raw(s epoll.Slot, k *conn, in []byte) int {
	k.got += len(in)
	id := c.loop.ID(s)
	for {
		size := len(c.template(k, k.back).payload)
		switch {
		case c.loop.ID(s) != id:
			return len(in)
		case k.back == k.sent:
			if k.got > 0 {
				c.lose(s, KindWrong, "bytes that answer nothing")
			}
			return len(in)
		case k.got < size:
			return len(in)
		}
		k.got -= size
		c.reply(s, k, k.back, size)
	}
}

// frames checks that each reply is what was sent, byte for byte.
func (c *Client) frames(s epoll.Slot, k *conn, in []byte) (done int) {
	id := c.loop.ID(s)
	p := &c.piece
	for done < len(in) {
		n, err := k.parser.Next(&c.rules, in[done:], p)
		if err != nil {
			c.broke(s, err)
			return len(in)
		}
		if n == 0 {
			return done
		}
		done += n
		switch {
		case p.Op.IsControl():
			c.control(s, p)
		case c.squeeze == nil:
			c.data(s, k, p)
		default:
			if c.squeeze.count.BackWire += uint64(n); !p.Compressed {
				c.squeeze.count.BackPlain += uint64(len(p.Data))
				c.data(s, k, p)
				break
			}
			if err := c.unpack(s, k, p, func(p *frame.Piece) bool {
				c.data(s, k, p)
				return c.loop.ID(s) == id
			}); err != nil {
				c.broke(s, err)
			}
		}
		if c.loop.ID(s) != id {
			return len(in)
		}
	}
	return done
}

// data takes a piece of a message, inflated.
func (c *Client) data(s epoll.Slot, k *conn, p *frame.Piece) {
	if c.fan != nil {
		if !k.publishes { // what it published comes back to it, too, from some servers
			c.pushed(s, k, p)
		}
	} else if wrong := c.check(s, k, p); wrong != "" {
		c.lose(s, KindWrong, wrong)
	}
}

// maxOwed is how many bytes may wait to be sent on a connection before pings go
// unanswered.
const maxOwed = 1 << 20

// control answers a ping and takes a Close for the end.
func (c *Client) control(s epoll.Slot, p *frame.Piece) {
	switch p.Op {
	case ws.OpPing:
		if c.loop.Pending(s) > maxOwed {
			return // it asks and does not read the answers; §5.5.3 demands only the latest
		}
		c.write(s, frame.AppendMasked(nil, true, ws.OpPong, c.framed[0].mask, p.Data))
	case ws.OpClose:
		code, reason, err := frame.ParseClose(p.Data)
		if err != nil {
			c.broke(s, err)
			return
		}
		c.lose(s, KindClosed, closeText(code, reason))
	}
}

// check compares a piece of a reply with what was sent. It returns what is
// wrong, or nothing.
func (c *Client) check(s epoll.Slot, k *conn, p *frame.Piece) (wrong string) {
	if k.sent == k.back && k.holes == 0 && !c.numbered {
		return "a message that answers nothing"
	}
	if p.First && (p.Op == ws.OpText) != c.cfg.Text {
		return "text came back as binary, or the other way round"
	}
	d := p.Data
	if c.numbered && k.got < seqSize {
		n := copy(k.digits[k.got:], d)
		k.got += n
		d = d[n:]
		if k.got == seqSize {
			var ok bool
			if k.seq, ok = parseSeq(&k.digits); !ok || k.seq >= k.sent {
				return "the payload differs"
			}
		}
	} else if !c.numbered {
		k.seq = k.back
	}
	if k.got < seqSize && c.numbered {
		if p.Last {
			return "the reply is shorter"
		}
		return ""
	}
	t := c.template(k, k.seq)
	end := k.got + len(d)
	switch {
	case end > len(t.payload):
		return "the reply is longer"
	case !bytes.Equal(d, t.payload[k.got:end]):
		return "the payload differs"
	case p.Last && end < len(t.payload):
		return "the reply is shorter"
	}
	if k.got = end; p.Last {
		k.got = 0
		c.reply(s, k, k.seq, len(t.payload))
	}
	return ""
}

// reply takes the whole reply with that number: its time is measured, its
// order checked, and in the closed loop the next message sent.
func (c *Client) reply(s epoll.Slot, k *conn, seq uint32, size int) {
	at := &k.began
	if c.many {
		at = c.rings.At(s).slot(seq)
	}
	switch {
	case seq == k.back:
		k.back++
	case int32(seq-k.back) > 0: // those in between are missing, for now
		k.holes += seq - k.back
		k.back = seq + 1
	case c.many && k.holes > 0 && int32(seq-k.low) >= 0 && *at != 0:
		k.holes--
		c.errs.add(KindReordered, "a reply came after that to a later message", 1)
	default:
		c.errs.add(KindDuplicate, "a reply came twice", 1)
		return
	}
	now := c.loop.Clock()
	c.interval.Record(now - *at)
	*at = 0
	if c.many && seq == k.low {
		c.raiseLow(k, c.rings.At(s))
	}
	c.counts.BytesBack += uint64(size)
	if c.counts.Messages++; c.home != nil && c.counts.Messages >= c.want {
		close(c.home)
		c.home = nil
	}
	if c.mode == modeLoop && c.more() {
		c.send(s, k, now)
	}
}

// Overdue ends the connections that have waited for a reply for longer than
// cfg.Timeout.
func (c *Client) Overdue() {
	c.do(func() {
		limit := c.loop.Clock() - int64(c.cfg.Timeout)
		c.loop.Each(func(s epoll.Slot) {
			k := c.conns.At(s)
			if k.phase != phaseOpen || k.sent == k.back && k.holes == 0 {
				return
			}
			at := k.began
			if c.many && k.sent == k.back { // only replies that were overtaken are waited for
				at = *c.rings.At(s).slot(k.low)
			} else if c.many {
				at = *c.rings.At(s).slot(k.back)
			}
			if at != 0 && at < limit {
				c.lose(s, KindTimeout, "reply")
			}
		})
	})
}
