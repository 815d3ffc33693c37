package epoll

// extra is what a loop keeps of a connection beside its slot while any of it
// is needed: bytes wait, or a dialed socket is to be opened with a tag. Few
// connections are in such a state at a time. Like a slot it holds no pointers.
// It belongs to the loop's goroutine.
type extra struct {
	carry handle // bytes that arrived and that the handler left for later
	pend  handle // bytes to be sent that the socket did not take
	tag   uint32 // of Dial, until connected
	stall uint32 // tick at which a write that makes no progress is given up; 0: no write waits

	// The slot's, whose place the index of this record has taken. In a free
	// record it is the next free one.
	deadline uint32
}

// extras are the records of one loop. They are used again and again: there
// are never more than were needed at once. The zero extras are ready.
type extras struct {
	all  Table[extra]
	made uint32 // of all, those from 1 to made have been used
	free uint32 // the first free one of them, 0: none
}

func (p *extras) at(i uint32) *extra { return p.all.At(Slot(i)) }

// take returns the index of a record that is empty but for its deadline.
func (p *extras) take() uint32 {
	if p.free == 0 {
		p.made++
		p.all.Grow(Slot(p.made))
		return p.made
	}
	i := p.free
	p.free = p.at(i).deadline
	return i
}

// giveBack frees record i, which is empty but for its deadline.
func (p *extras) giveBack(i uint32) { p.at(i).deadline, p.free = p.free, i }

// carry is the buffer of what the handler left, 0 if there is none. It and
// pend look no further than at the slot of a connection without an extra.
func (l *Loop) carry(s *slot) handle {
	if !s.is(flagExtra) {
		return 0
	}
	return l.extras.at(s.deadline).carry
}

// pend is the buffer of what waits to be sent, 0 if nothing does.
func (l *Loop) pend(s *slot) handle {
	if !s.is(flagExtra) {
		return 0
	}
	return l.extras.at(s.deadline).pend
}

// deadline is the place of the tick at which Expired is due.
func (l *Loop) deadline(s *slot) *uint32 {
	if !s.is(flagExtra) {
		return &s.deadline
	}
	return &l.extras.at(s.deadline).deadline
}

// dueAt is the earlier of the deadline and the stall of s, 0 if it has neither.
func (l *Loop) dueAt(s *slot) uint32 {
	if !s.is(flagExtra) {
		return s.deadline
	}
	x := l.extras.at(s.deadline)
	if x.stall != 0 && (x.deadline == 0 || x.stall < x.deadline) {
		return x.stall
	}
	return x.deadline
}

// extra returns the record of s, and gives it one if it has none. Who empties
// a field of it calls tidy; it stays good until then.
func (l *Loop) extra(s *slot) *extra {
	if !s.is(flagExtra) {
		i := l.extras.take()
		l.extras.at(i).deadline = s.deadline
		s.deadline = i
		s.flags |= flagExtra
	}
	return l.extras.at(s.deadline)
}

// tidy takes the record of s back when there is nothing in it.
func (l *Loop) tidy(s *slot) {
	if !s.is(flagExtra) {
		return
	}
	i := s.deadline
	if x := l.extras.at(i); x.carry|x.pend == 0 && x.tag|x.stall == 0 {
		s.deadline = x.deadline
		s.flags &^= flagExtra
		l.extras.giveBack(i)
	}
}

// dropCarry forgets what the handler left of what arrived.
func (l *Loop) dropCarry(s *slot) {
	if l.carry(s) != 0 {
		l.bufs.discard(&l.extra(s).carry)
		l.tidy(s)
	}
}

// dropExtra forgets all that waits for s.
func (l *Loop) dropExtra(s *slot) {
	if s.is(flagExtra) {
		x := l.extras.at(s.deadline)
		l.bufs.discard(&x.carry)
		l.bufs.discard(&x.pend)
		x.tag, x.stall = 0, 0
		l.tidy(s)
	}
}
