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

// headBit marks, in the prev of the first connection of a bucket, that the
// rest is the bucket's number. There are fewer slots than that: descriptors
// have 31 bits.
const headBit Slot = 1 << 31

// wheel is a hashed timer wheel over the slots of one loop: a bucket is a
// doubly linked list through slot.next and slot.prev, so a timer needs no
// object. A connection is in at most one bucket, and that with a deadline is
// in one whose turn comes no later than its dueAt. Deadlines that activity
// would move all the time are not moved: a write that makes progress only
// stores its new stall, and the connection is filed again when the bucket has
// its turn; protocols do the same with the time of the last byte.
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
	s.prev, s.next = headBit|Slot(i), w.buckets[i]
	if s.next != 0 {
		l.slots.At(s.next).prev = c
	}
	w.buckets[i] = c
	w.full[i/64] |= 1 << (i % 64)
	w.count++
}

func (l *Loop) unlink(s *slot) {
	if s.prev == 0 {
		return
	}
	w := &l.wheel
	if s.next != 0 {
		l.slots.At(s.next).prev = s.prev
	}
	if s.prev&headBit == 0 {
		l.slots.At(s.prev).next = s.next
	} else {
		i := s.prev &^ headBit
		if w.buckets[i] = s.next; s.next == 0 {
			w.full[i/64] &^= 1 << (i % 64)
		}
	}
	s.next, s.prev = 0, 0
	w.count--
}

// file links c, which is not linked, for the earlier of its two deadlines.
func (l *Loop) file(c Slot, s *slot) {
	if at := l.dueAt(s); at != 0 {
		l.link(c, s, max(at, l.wheel.now+1))
	}
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
		// Note the whole list first: firing may link and unlink connections,
		// this bucket's included. Those of a later round stay where they are.
		l.due = l.due[:0]
		for c := w.buckets[i]; c != 0; c = l.slots.At(c).next {
			if at := l.dueAt(l.slots.At(c)); at <= now || at%wheelSize != i {
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
	if s.is(flagExtra) {
		if at := l.extra(s).stall; at != 0 && at <= now {
			l.end(c, s, CauseStalled, none)
			return
		}
	}
	if at := l.deadline(s); *at != 0 && *at <= now {
		*at = 0
		switch {
		case s.is(flagConnecting):
			l.end(c, s, CauseTimeout, none)
			return
		case s.is(flagFinishing): // the peer's FIN was waited for long enough
			l.end(c, s, s.cause, none)
			return
		}
		l.file(c, s) // for a stall, also if Expired panics
		l.handler.Expired(c)
		return
	}
	l.file(c, s)
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
