package server

import (
	"errors"
	"math/rand/v2"
	"net"
	"slices"
	"unsafe"

	"golang.org/x/sys/unix"
)

// simKernel is the epoll.Kernel of a simulation: sockets are queues of bytes,
// time is a number, and whatever a real kernel may do at a bad moment this one
// does by dice. It notes what no program may do: a descriptor that is used
// after its close, or a write behind a FIN.
type simKernel struct {
	sim  *simulation
	rng  *rand.Rand
	now  int64
	last int32 // the newest descriptor
	open map[int32]*simSocket

	polls     []*simPoll
	listeners []*simSocket
	moves     int  // calls that moved something
	short     int  // so many accepts to come find no descriptor
	calm      bool // no dice: every call does what it can
}

// simPoll is an epoll instance.
type simPoll struct {
	watched []*simSocket
	stale   []uint64 // keys of descriptors that are gone
	ready   []unix.EpollEvent
}

// simSocket is what a descriptor stands for: a connection's end on the
// server's side, a listener (with a backlog), an eventfd or an epoll instance.
type simSocket struct {
	fd      int32
	backlog []*simClient // of a listener
	listens bool
	wake    bool // of an eventfd: it has been written
	other   bool // an eventfd or an epoll instance

	client *simClient // of a connection
	in     []byte     // sent by the client, not yet read by the server
	fin    bool       // behind them is the client's FIN
	out    []byte     // written by the server, not yet read by the client
	room   int        // bytes that out may have
	err    unix.Errno // kept for who asks next
	dead   bool       // RST: nothing goes in either direction any more
	shut   bool       // the server has sent FIN
	gone   bool       // the client's program has closed it: bytes are answered by RST

	poll   *simPoll
	key    uint64
	events uint32
}

// simFirst is above all descriptors of this process: who uses one of the
// simulation's in a system call gets EBADF.
const simFirst = 1 << 29

func newSimKernel(s *simulation, rng *rand.Rand) *simKernel {
	return &simKernel{sim: s, rng: rng, now: 1e9, last: simFirst, open: map[int32]*simSocket{}}
}

// dice reports true n times in a hundred, never when the kernel is calm.
func (k *simKernel) dice(n int) bool { return !k.calm && k.rng.IntN(100) < n }

func (k *simKernel) socket() *simSocket {
	k.last++
	s := &simSocket{fd: k.last}
	k.open[s.fd] = s
	return s
}

// at is the socket of fd, which must be open; call names the system call.
func (k *simKernel) at(fd int32, call string) *simSocket {
	s := k.open[fd]
	if s == nil {
		k.sim.fail("%s of descriptor %d, which is closed or was never open", call, max(fd-simFirst, -1))
		return &simSocket{dead: true, err: unix.EBADF}
	}
	return s
}

func (k *simKernel) Now() int64 { return k.now }

func (k *simKernel) Open() (epfd int, wakefd int32, err error) {
	ep, wake := k.socket(), k.socket()
	ep.other, wake.other = true, true
	ep.poll = new(simPoll)
	k.polls = append(k.polls, ep.poll)
	return int(ep.fd), wake.fd, nil
}

func (k *simKernel) Ctl(epfd, op int, fd int32, events uint32, key uint64) unix.Errno {
	ep, s := k.at(int32(epfd), "epoll_ctl"), k.at(fd, "epoll_ctl")
	switch op {
	case unix.EPOLL_CTL_ADD:
		if s.poll != nil {
			k.sim.fail("descriptor %d is added to epoll twice", fd-simFirst)
			return unix.EEXIST
		}
		if s.client != nil {
			if k.dice(1) {
				s.client.unwatched = true
				return unix.ENOSPC // max_user_watches
			}
			k.sim.opened++
		}
		s.poll = ep.poll
		s.poll.watched = append(s.poll.watched, s)
	case unix.EPOLL_CTL_MOD, unix.EPOLL_CTL_DEL:
		if s.poll != ep.poll {
			k.sim.fail("epoll does not watch descriptor %d, which is changed", fd-simFirst)
			return unix.ENOENT
		}
	}
	s.events, s.key = events, key
	if op == unix.EPOLL_CTL_DEL {
		s.poll.forget(s)
		if s.client != nil {
			s.client.detached()
		}
	}
	return 0
}

func (p *simPoll) forget(s *simSocket) {
	p.watched = slices.DeleteFunc(p.watched, func(w *simSocket) bool { return w == s })
	if p.stale = append(p.stale, s.key); len(p.stale) > 8 {
		p.stale = p.stale[1:]
	}
	s.poll = nil
}

// state is what could be reported of s.
func (s *simSocket) state() (ev uint32) {
	switch {
	case s.other:
		if s.wake {
			return unix.EPOLLIN
		}
		return 0
	case s.listens:
		if len(s.backlog) > 0 {
			return unix.EPOLLIN
		}
		return 0
	}
	if len(s.in) > 0 || s.fin || s.dead {
		ev |= unix.EPOLLIN
	}
	if len(s.out) < s.room || s.dead {
		ev |= unix.EPOLLOUT
	}
	if s.err != 0 {
		ev |= unix.EPOLLERR
	}
	if s.dead || s.shut && s.fin {
		ev |= unix.EPOLLHUP
	}
	return ev
}

// Poll reports some of what is ready in any order, and at times what is not:
// the loop must be able to live with both.
func (k *simKernel) Poll(epfd int, evs []unix.EpollEvent) (int, unix.Errno) {
	p := k.at(int32(epfd), "epoll_wait").poll
	if k.dice(1) {
		return -1, unix.EINTR
	}
	p.ready = p.ready[:0]
	report := func(events uint32, key uint64) {
		ev := unix.EpollEvent{Events: events}
		*(*uint64)(unsafe.Pointer(&ev.Fd)) = key
		p.ready = append(p.ready, ev)
	}
	for _, s := range p.watched {
		ev := s.state() & (s.events | unix.EPOLLERR | unix.EPOLLHUP)
		if !s.listens && !s.other && k.dice(2) {
			// Spurious, or overtaken: it was ready when the batch was made.
			ev |= unix.EPOLLIN | unix.EPOLLOUT
		}
		if ev != 0 && !k.dice(10) {
			report(ev, s.key)
		}
	}
	for _, key := range p.stale {
		if k.dice(3) {
			report(unix.EPOLLIN|unix.EPOLLOUT|unix.EPOLLERR|unix.EPOLLHUP, key)
		}
	}
	k.rng.Shuffle(len(p.ready), func(i, j int) { p.ready[i], p.ready[j] = p.ready[j], p.ready[i] })
	return copy(evs, p.ready), 0
}

func (k *simKernel) Wait(int, []unix.EpollEvent, int64) (int, unix.Errno) {
	k.sim.fail("a loop that is stepped waits")
	return 0, 0
}

func (k *simKernel) Wake(wakefd int32) { k.at(wakefd, "write").wake = true }

func (k *simKernel) Listen(_ string, n int) (fds []int32, at net.Addr, err error) {
	for range n {
		s := k.socket()
		s.listens = true
		k.listeners = append(k.listeners, s)
		fds = append(fds, s.fd)
	}
	return fds, &net.TCPAddr{IP: net.IPv4(10, 0, 0, 1), Port: 80}, nil
}

func (k *simKernel) Accept(fd int32) (int32, unix.Errno) {
	ln := k.at(fd, "accept")
	switch {
	case k.dice(2):
		return -1, unix.EINTR
	case len(ln.backlog) == 0 || k.dice(2):
		return -1, unix.EAGAIN
	case k.short > 0:
		k.short--
		return -1, []unix.Errno{unix.EMFILE, unix.ENFILE, unix.ENOBUFS, unix.ENOMEM}[k.rng.IntN(4)]
	}
	k.moves++
	c := ln.backlog[0]
	ln.backlog = ln.backlog[1:]
	if k.dice(1) {
		c.lost()
		return -1, unix.ECONNABORTED
	}
	s := c.sock
	k.last++
	s.fd = k.last
	k.open[s.fd] = s
	c.accepted()
	return s.fd, 0
}

func (k *simKernel) Connect(_, _ *net.TCPAddr) (int32, error) {
	return -1, errors.New("nobody listens in a simulation")
}

func (k *simKernel) Nonblock(fd int32) error {
	k.at(fd, "fcntl")
	return nil
}

func (k *simKernel) Peer(fd int32) *net.TCPAddr {
	s := k.open[fd]
	if s == nil || s.client == nil {
		return nil
	}
	return &net.TCPAddr{IP: net.IPv4(10, 0, 0, 2), Port: s.client.id}
}

func (k *simKernel) Read(fd int32, p []byte) (int, unix.Errno) {
	s := k.at(fd, "read")
	switch {
	case k.dice(2):
		return -1, unix.EINTR
	case s.other:
		if !s.wake {
			return -1, unix.EAGAIN
		}
		s.wake = false
		return 8, 0
	case k.dice(2):
		return -1, unix.EAGAIN
	case len(s.in) > 0:
		k.moves++
		n := min(len(p), len(s.in))
		if k.dice(40) {
			n = 1 + k.rng.IntN(n)
		}
		copy(p, s.in[:n])
		s.client.wasRead(s.in[:n])
		s.in = s.in[n:]
		return n, 0
	case s.err != 0:
		e := s.err
		s.err = 0
		return -1, e
	case s.fin || s.dead:
		s.client.finWasRead()
		return 0, 0
	}
	return -1, unix.EAGAIN
}

// Write takes what there is room for, or less.
func (k *simKernel) Write(fd int32, p []byte) (int, unix.Errno) {
	s := k.at(fd, "write")
	if k.dice(2) {
		return -1, unix.EINTR
	}
	if e := k.writable(s); e != 0 {
		return -1, e
	}
	n := min(len(p), s.room-len(s.out))
	if n > 1 && k.dice(10) {
		n = 1 + k.rng.IntN(n)
	}
	if n > 0 {
		k.moves++
		s.out = append(s.out, p[:n]...)
		s.client.wasWritten(p[:n])
	}
	return n, 0
}

func (k *simKernel) writable(s *simSocket) unix.Errno {
	switch {
	case s.shut:
		k.sim.fail("client %d: a write behind the server's FIN", s.client.id)
		return unix.EPIPE
	case s.err != 0:
		e := s.err
		s.err = 0
		return e
	case s.dead:
		return unix.EPIPE
	case len(s.out) >= s.room || k.dice(2):
		return unix.EAGAIN
	}
	return 0
}

func (k *simKernel) Writev(fd int32, iov *[2]unix.Iovec) (int, unix.Errno) {
	var all []byte
	for _, v := range iov {
		all = append(all, unsafe.Slice(v.Base, v.Len)...)
	}
	return k.Write(fd, all)
}

func (k *simKernel) SocketError(fd int32) unix.Errno {
	s := k.at(fd, "getsockopt")
	e := s.err
	s.err = 0
	return e
}

func (k *simKernel) Shutdown(fd int32) {
	s := k.at(fd, "shutdown")
	if s.shut {
		k.sim.fail("client %d: the server's FIN is sent twice", s.client.id)
	}
	s.shut, s.client.shutAt = true, k.now
}

func (k *simKernel) Close(fd int32) {
	k.moves++
	s := k.at(fd, "close")
	delete(k.open, fd)
	if s.poll != nil && !s.other {
		s.poll.forget(s)
	}
	switch {
	case s.client != nil:
		s.client.wasClosed()
	case s.listens:
		k.listeners = slices.DeleteFunc(k.listeners, func(l *simSocket) bool { return l == s })
		for _, c := range s.backlog {
			c.lost()
		}
		s.backlog = nil
	}
}

// reset is a RST from the client's side, or from the network.
func (s *simSocket) reset(k *simKernel) {
	if s.dead {
		return
	}
	s.dead, s.err = true, unix.ECONNRESET
	switch {
	case s.fin:
		s.err = unix.EPIPE // as Linux has it once the FIN is there
	case k.dice(20):
		s.err = unix.ETIMEDOUT
	}
	if k.dice(50) {
		s.in = nil // what was not read may be lost or not
	}
	s.out = nil
}
