package epoll

import (
	"math/bits"
	"time"
)

// Tick is the unit of every deadline on a loop. Deadlines are never early and
// at most two ticks late.
const Tick = 50 * time.Millisecond

// wheelSize is the number of buckets: 204.8 s go round before a bucket holds
// deadlines of different rounds, so the usual timeouts never meet in one.
const wheelSize = 4096

// wheel is a hashed timer wheel over the slots of one loop: a bucket is a
// doubly linked list through slot.next and slot.prev, so a timer needs no
// object. A connection is in at most one bucket. Deadlines that activity
// would move all the time are not moved: a write that makes progress only
// stores its new stall, and the connection is filed again when the old one
// comes; protocols do the same with the time of the last byte.
type wheel struct {
	now     uint32 // the tick up to which buckets were visited
	buckets [wheelSize]Slot
	full    [wheelSize / 64]uint64 // a bit for each bucket that is not empty
	count   int
}

// tickOf is the tick in which nanosecond ns lies. Tick 0 means "never" in a
// slot, so ticks start at 1.
func tickOf(ns int64) uint32 { return uint32(ns/int64(Tick)) + 1 }

// link files slot c under tick at, which must be after w.now.
func (l *Loop) link(c Slot, s *slot, at uint32) {
	w := &l.wheel
	i := at % wheelSize
	s.filed, s.prev, s.next = at, 0, w.buckets[i]
	if s.next != 0 {
		l.slots.At(s.next).prev = c
	}
	w.buckets[i] = c
	w.full[i/64] |= 1 << (i % 64)
	w.count++
}

func (l *Loop) unlink(s *slot) {
	if s.filed == 0 {
		return
	}
	w := &l.wheel
	if s.next != 0 {
		l.slots.At(s.next).prev = s.prev
	}
	if s.prev != 0 {
		l.slots.At(s.prev).next = s.next
	} else {
		i := s.filed % wheelSize
		if w.buckets[i] = s.next; s.next == 0 {
			w.full[i/64] &^= 1 << (i % 64)
		}
	}
	s.filed, s.next, s.prev = 0, 0, 0
	w.count--
}

// refile links c for the earlier of its two deadlines, unless it is filed no
// later than that already.
func (l *Loop) refile(c Slot, s *slot) {
	at := s.deadline
	if s.stall != 0 && (at == 0 || s.stall < at) {
		at = s.stall
	}
	if at == 0 || s.filed != 0 && s.filed <= at {
		return
	}
	l.unlink(s)
	l.link(c, s, max(at, l.wheel.now+1))
}

// advance visits the buckets of the ticks that have passed until tick now, and
// fires the deadlines in them.
func (l *Loop) advance(now uint32) {
	w := &l.wheel
	if w.count == 0 {
		w.now = now
		return
	}
	if now-w.now > wheelSize { // asleep for more than a round: each bucket once will do
		w.now = now - wheelSize
	}
	for w.now != now {
		w.now++
		i := w.now % wheelSize
		if w.full[i/64]&(1<<(i%64)) == 0 {
			continue
		}
		// Take the whole list off the wheel first: firing may link and
		// unlink connections, this bucket's included.
		l.due = l.due[:0]
		for c := w.buckets[i]; c != 0; c = l.slots.At(c).next {
			if l.slots.At(c).filed <= now {
				l.due = append(l.due, l.ID(c))
			}
		}
		l.advancing = true
		for _, id := range l.due {
			if c, s := l.find(id); s != nil {
				l.serving = c
				l.fire(c, s, now)
			}
		}
		l.advancing = false
	}
}

// fire files c again when its deadlines have moved, and acts on those that passed.
func (l *Loop) fire(c Slot, s *slot, now uint32) {
	l.unlink(s)
	if s.stall != 0 && s.stall <= now {
		l.end(c, s, CauseStalled, none)
		return
	}
	if s.deadline != 0 && s.deadline <= now {
		s.deadline = 0
		switch {
		case s.is(flagConnecting):
			l.end(c, s, CauseTimeout, none)
			return
		case s.is(flagFinishing): // the peer's FIN was waited for long enough
			l.end(c, s, s.cause, none)
			return
		}
		id := l.ID(c)
		l.handler.Expired(c)
		if c, s = l.find(id); s == nil {
			return
		}
	}
	l.refile(c, s)
}

// untilNext is how long the loop may sleep, in milliseconds; -1 for ever.
func (l *Loop) untilNext(nowNS int64) int {
	w := &l.wheel
	if w.count == 0 {
		return -1
	}
	from := (w.now + 1) % wheelSize
	for k := uint32(0); k <= wheelSize; {
		i := (from + k) % wheelSize
		if word := w.full[i/64] >> (i % 64); word != 0 {
			tick := int64(w.now) + 1 + int64(k) + int64(bits.TrailingZeros64(word))
			// Tick t begins at (t-1)*Tick; its deadlines are due then.
			ns := (tick-1)*int64(Tick) - nowNS
			return int(max(0, (ns+999_999)/1_000_000))
		}
		k += 64 - i%64
	}
	return -1
}
