package bench

import (
	"bytes"
	"strconv"
	"time"

	"wspoll/epoll"
	"wspoll/frame"

	"github.com/gobwas/ws"
)

// A pushed message begins with its number and the time at which it was sent,
// the wall clock in nanoseconds, so that any process of this machine (or of
// another whose clock agrees) can tell how old it is: "wspoll 17 1795392000123456789 ".
// Padding follows.
const stampPrefix = "wspoll "

// AppendStamp appends a message that begins with a stamp, of at least size bytes.
func AppendStamp(b []byte, seq uint64, at time.Time, size int) []byte {
	begin := len(b)
	b = append(b, stampPrefix...)
	b = strconv.AppendUint(b, seq, 10)
	b = append(b, ' ')
	b = strconv.AppendInt(b, at.UnixNano(), 10)
	b = append(b, ' ')
	for len(b)-begin < size {
		b = append(b, '.')
	}
	return b
}

// parseStamp reads what AppendStamp wrote.
func parseStamp(b []byte) (seq uint64, at int64, ok bool) {
	rest, ok := bytes.CutPrefix(b, []byte(stampPrefix))
	if !ok {
		return 0, 0, false
	}
	first, rest, ok := bytes.Cut(rest, []byte(" "))
	second, _, ok2 := bytes.Cut(rest, []byte(" "))
	if !ok || !ok2 {
		return 0, 0, false
	}
	seq, err := strconv.ParseUint(string(first), 10, 64)
	at, err2 := strconv.ParseInt(string(second), 10, 64)
	return seq, at, err == nil && err2 == nil
}

// fanOut is what is known of the messages that are pushed to many connections.
type fanOut struct {
	parts     map[epoll.Slot]*part // of messages that come in pieces
	recent    [1024]delivery       // by number
	spread    Latency              // from the first to the last receiver of a message
	published uint64               // number of the next one that we publish
	foreign   uint64               // messages without a stamp
	buf       []byte
}

// part is what has come of a message. Its stamp is all that is looked at, so a
// server that never ends a message takes no memory with it.
type part struct {
	head []byte // its first bytes
	size uint64
}

// stampSize is enough for the longest stamp.
const stampSize = 64

// delivery is what is known of one message.
type delivery struct {
	seq         uint64
	count       int
	first, last int64 // wall clock, nanoseconds
}

// pushed takes a piece of a message that the server pushed to a subscriber.
func (c *Client) pushed(s epoll.Slot, k *conn, p *frame.Piece) {
	f := c.fan
	msg, size := p.Data, uint64(len(p.Data))
	if !p.First || !p.Last {
		m := f.parts[s]
		if m == nil {
			m = new(part)
			f.parts[s] = m
		}
		m.head = append(m.head, p.Data[:min(len(p.Data), stampSize-len(m.head))]...)
		if m.size += size; !p.Last {
			return
		}
		delete(f.parts, s)
		msg, size = m.head, m.size
	}
	c.counts.BytesBack += size
	if c.counts.Messages++; c.home != nil && c.counts.Messages >= c.want {
		close(c.home)
		c.home = nil
	}
	seq, at, ok := parseStamp(msg)
	if !ok {
		f.foreign++
		return
	}
	now := time.Now().UnixNano()
	c.interval.Record(now - at)
	if n := f.delivered(seq, now); n >= c.counts.Open && c.mode == modePublish && c.cfg.Rate == 0 {
		c.publishDue()
	}

	// began is one more than the number of the last message here; 0 is none.
	switch next := int64(seq) + 1; {
	case k.began == 0 || next == k.began+1:
		k.began = next
	case next > k.began:
		c.errs.add(KindLost, "a message of the stream never came to a subscriber", uint64(next-k.began-1))
		k.began = next
	case next == k.began:
		c.errs.add(KindDuplicate, "a message came twice to a subscriber", 1)
	default:
		c.errs.add(KindReordered, "a message came after a later one", 1)
	}
}

// delivered notes that one more subscriber has message seq, and says how many have.
func (f *fanOut) delivered(seq uint64, now int64) int {
	d := &f.recent[seq%uint64(len(f.recent))]
	if d.count > 0 && d.seq != seq {
		f.close(d)
	}
	if d.count == 0 {
		d.seq, d.first = seq, now
	}
	d.count++
	d.last = max(d.last, now)
	return d.count
}

// close takes the spread of a message that no more subscriber will get.
func (f *fanOut) close(d *delivery) {
	f.spread.Record(d.last - d.first)
	*d = delivery{}
}

// publish sends the next message through the publishing connection, for the
// server to push to all.
func (c *Client) publish(s epoll.Slot) {
	f := c.fan
	f.buf = AppendStamp(f.buf[:0], f.published, time.Now(), c.cfg.SizeMin)
	f.published++
	c.counts.Sent++
	c.counts.BytesSent += uint64(len(f.buf))
	if c.squeeze != nil {
		c.write(s, c.pack(s, c.conns.At(s), c.framed[0].mask, f.buf))
		return
	}
	op := ws.OpBinary
	if c.cfg.Text {
		op = ws.OpText
	}
	if c.cfg.Targets[c.conns.At(s).target].Raw { // nobody there unmasks it
		c.write(s, frame.AppendFrame(nil, true, op, f.buf))
		return
	}
	c.write(s, frame.AppendMasked(nil, true, op, c.framed[0].mask, f.buf))
}

// Publish begins to publish at Config.Rate, or as fast as all get it, when
// there is a publishing connection; without one the server is left to push by
// itself.
func (c *Client) Publish() {
	c.do(func() {
		if c.publisher == 0 {
			return
		}
		c.mode = modePublish
		c.next = float64(c.loop.Clock())
		c.loop.SetAlarm(int64(c.next))
	})
}

// publishing reports whether the connection that publishes is open.
func (c *Client) publishing() (open bool) {
	c.do(func() { _, open = c.loop.Find(c.publisher) })
	return open
}

// publishAnyway is after how long the next message is published though not all
// have the last: some may not have been there yet.
const publishAnyway = time.Second

// publishDue is alarm for modePublish.
func (c *Client) publishDue() {
	now := c.loop.Clock()
	s, ok := c.loop.Find(c.publisher)
	if !ok {
		return
	}
	if c.cfg.Rate == 0 {
		c.publish(s)
		c.loop.SetAlarm(now + int64(publishAnyway))
		return
	}
	for ; int64(c.next) <= now; c.next += float64(time.Second) / c.cfg.Rate {
		c.counts.Slip = max(c.counts.Slip, time.Duration(now-int64(c.next)))
		c.publish(s)
	}
	c.loop.SetAlarm(int64(c.next))
}

// spreads closes all messages and returns the distribution of their spreads,
// and how many messages had no stamp.
func (c *Client) spreads() (spread Latency, foreign uint64) {
	c.do(func() {
		for i := range c.fan.recent {
			if d := &c.fan.recent[i]; d.count > 0 {
				c.fan.close(d)
			}
		}
		spread, foreign = c.fan.spread, c.fan.foreign
	})
	return spread, foreign
}
