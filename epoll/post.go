package epoll

// Post runs f on the loop's goroutine, after functions that were posted before
// it. Any goroutine may call it. It reports false, and never runs f, when the
// loop has ended. However many functions wait, the loop is woken once.
func (l *Loop) Post(f func()) bool {
	l.mu.Lock()
	if l.dead {
		l.mu.Unlock()
		return false
	}
	l.posted = append(l.posted, f)
	wake := !l.woken.Swap(true)
	if wake {
		// Within the lock: exit closes the descriptor after taking it.
		l.kernel.Wake(l.wakefd)
	}
	l.mu.Unlock()
	return true
}

// runPosted runs what has been posted so far. What those functions post runs
// in the next batch, after the connections had their turn.
func (l *Loop) runPosted() {
	if len(l.running) == 0 {
		l.mu.Lock()
		l.running, l.posted = l.posted, nil
		l.woken.Store(false)
		l.mu.Unlock()
	}
	for len(l.running) > 0 {
		f := l.running[0]
		l.running = l.running[1:]
		f()
	}
	l.running = nil
	l.flush()
}

// clearWake empties the eventfd.
func (l *Loop) clearWake() {
	l.read(l.wakefd, l.in[:8]) // nothing is being read into it now
}
