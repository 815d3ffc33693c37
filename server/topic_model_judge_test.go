package server

import "slices"

// settle lets everything that is on its way arrive.
func (m *model) settle() {
	for _, r := range m.readers {
		r.p.room = 1 << 40
		if r.midSend {
			r.piece()
		}
	}
	for _, r := range m.readers {
		r.p.told = r.p.broken
	}
	for quiet := 0; quiet < 10; quiet++ {
		for _, sh := range m.srv.shards {
			if sh.loop.Step(); sh.fan.busy() {
				quiet = 0
			}
		}
		for _, r := range m.readers {
			before := len(r.p.out)
			if r.look(); len(r.p.out) != before {
				quiet = 0
			}
		}
	}
}

// judge holds what each reader that is still there has to what there is.
func (m *model) judge() {
	for _, r := range m.readers {
		c, ok := r.sh.loop.Find(r.conn)
		if !ok || r.closed != 0 {
			continue
		}
		if r.sh.loop.Pending(c) > 0 || r.sh.isApart(c, r.sh.conns.At(c)) {
			m.failf("%d is still behind", r.id)
		}
		for _, name := range r.topics {
			if r.left[name] {
				continue
			}
			t := m.srv.topics.byName[name]
			if r.numbered {
				if r.pos[name] != t.seq && !(r.pos[name] == 0 && t.published == 0) {
					m.failf("%d is at %d of %s, which is at %d", r.id, r.pos[name], name, t.seq)
				}
				continue
			}
			m.judgePlain(r, t)
		}
	}
}

func (m *model) judgePlain(r *reader, t *topic) {
	heard := r.heard[t.name]
	var want []uint64
	for _, x := range m.sent[t.name] {
		if x.from != r && (x.seq > r.before[t.name] || len(heard) > 0 && x.seq >= heard[0]) {
			want = append(want, x.seq)
		}
	}
	if t.policy == PolicyClose && !slices.Equal(heard, want) {
		m.failf("%d, who began at %d of %s, got %d, want %d", r.id, r.began[t.name], t.name, heard, want)
	}
	if len(want) > 0 && (len(heard) == 0 || heard[len(heard)-1] != want[len(want)-1]) {
		m.failf("%d did not get the newest of %s: %d, want %d", r.id, t.name, heard, want)
	}
	if t.retain && r.began[t.name] > 0 && m.message(t.name, r.began[t.name]).seq != 0 && len(heard) > 0 && heard[0] > r.began[t.name] && t.policy == PolicyClose {
		m.failf("%d, who began at %d of %s, did not get the retained message: %d", r.id, r.began[t.name], t.name, heard)
	}
}

// end closes all connections and looks for what is left.
func (m *model) end() {
	for _, r := range m.readers {
		if c, ok := r.sh.loop.Find(r.conn); ok {
			r.sh.loop.Post(func() { r.sh.loop.Close(c) })
		}
	}
	for range 10 + len(m.readers) { // a function that panics ends its step
		for _, sh := range m.srv.shards {
			sh.loop.Step()
		}
	}
	if m.srv.topics.cfg.Pending == 1<<20 && (m.told.slow > 0 || m.srv.topics.dropped[DropOldest].Load() > 0) {
		m.failf("%d were closed for being slow, and %d messages dropped, though all fits", m.told.slow, m.srv.topics.dropped[DropOldest].Load())
	}
	kept, forms := 0, 0
	for name, t := range m.srv.topics.byName {
		if len(t.kept) == 0 || t.subs != 0 || t.behind.Load() != 0 || slices.ContainsFunc(t.locals, func(lc *local) bool { return lc != nil }) {
			m.failf("topic %s is left: %d subscribers, %d kept", name, t.subs, len(t.kept))
		}
		sum := 0
		for _, x := range t.kept {
			sum += x.size
			forms += x.charged
		}
		if sum != t.keptBytes {
			m.failf("topic %s keeps %d bytes and counts %d", name, sum, t.keptBytes)
		}
		kept += sum
	}
	if used := m.srv.group.Budget().Used(); used != int64(kept+forms) {
		m.failf("%d bytes of the budget are taken, %d are kept, and %d of them compressed", used, kept, forms)
	}
	for i, sh := range m.srv.shards {
		if n := sh.fan.count.Load(); n != 0 || sh.fan.bytes.Load() != 0 || len(sh.several) != 0 {
			m.failf("loop %d has %d messages to send, %d bytes, %d connections on several topics", i, n, sh.fan.bytes.Load(), len(sh.several))
		}
		for _, g := range sh.groups {
			if g != nil {
				m.failf("a group of topic %s is left", g.local.topic.name)
			}
		}
	}
}
