package server

import (
	"slices"
	"unsafe"

	"wspoll/epoll"

	"golang.org/x/sys/unix"
)

// pipes is a kernel whose sockets are queues of bytes, for tests that decide
// when a socket has room and when a loop takes its next step.
type pipes struct {
	epoll.Kernel // nil: what is not below is not asked for
	now          int64
	last         int32
	wakes        int
	open         map[int32]*pipe
	polls        map[int][]*pipe // by epoll instance, in the order in which they were added
}

type pipe struct {
	fd     int32
	wake   bool
	in     []byte // for the server to read
	out    []byte // that it has written
	room   int    // bytes that out may get yet
	broken bool   // reset by the peer
	told   bool   // and epoll reports it; else a write finds it first
	events uint32
	key    uint64
}

func newPipes() *pipes {
	return &pipes{now: 1e9, last: 1 << 29, open: map[int32]*pipe{}, polls: map[int][]*pipe{}}
}

func (k *pipes) make() *pipe {
	k.last++
	p := &pipe{fd: k.last}
	k.open[p.fd] = p
	return p
}

func (k *pipes) Now() int64 { return k.now }

func (k *pipes) Open() (int, int32, error) {
	k.last++
	return int(k.last), k.make().fd, nil
}

func (k *pipes) Ctl(epfd, op int, fd int32, events uint32, key uint64) unix.Errno {
	p := k.open[fd]
	if op == unix.EPOLL_CTL_ADD {
		k.polls[epfd] = append(k.polls[epfd], p)
	}
	p.events, p.key = events, key
	return 0
}

func (k *pipes) Poll(epfd int, evs []unix.EpollEvent) (n int, _ unix.Errno) {
	k.polls[epfd] = slices.DeleteFunc(k.polls[epfd], func(p *pipe) bool { return k.open[p.fd] == nil })
	for _, p := range k.polls[epfd] {
		var ev uint32
		if p.wake || len(p.in) > 0 || p.told {
			ev |= unix.EPOLLIN
		}
		if p.room > 0 || p.told {
			ev |= unix.EPOLLOUT
		}
		if ev &= p.events; ev != 0 && n < len(evs) {
			evs[n] = unix.EpollEvent{Events: ev}
			*(*uint64)(unsafe.Pointer(&evs[n].Fd)) = p.key
			n++
		}
	}
	return n, 0
}

func (k *pipes) Wake(fd int32)                { k.open[fd].wake = true; k.wakes++ }
func (k *pipes) Nonblock(int32) error         { return nil }
func (k *pipes) SocketError(int32) unix.Errno { return 0 }
func (k *pipes) Shutdown(int32)               {}
func (k *pipes) Close(fd int32)               { delete(k.open, fd) }

func (k *pipes) Read(fd int32, b []byte) (int, unix.Errno) {
	p := k.open[fd]
	switch {
	case p.wake:
		p.wake = false
		return 8, 0
	case p.broken:
		return -1, unix.ECONNRESET
	case len(p.in) == 0:
		return -1, unix.EAGAIN
	}
	n := copy(b, p.in)
	p.in = p.in[n:]
	return n, 0
}

func (k *pipes) Write(fd int32, b []byte) (int, unix.Errno) {
	p := k.open[fd]
	switch {
	case p.broken:
		p.told = true
		return -1, unix.EPIPE
	case p.room == 0:
		return -1, unix.EAGAIN
	}
	n := min(p.room, len(b))
	p.out = append(p.out, b[:n]...)
	p.room -= n
	return n, 0
}

func (k *pipes) Writev(fd int32, iov *[2]unix.Iovec) (int, unix.Errno) {
	var all []byte
	for _, v := range iov {
		all = append(all, unsafe.Slice(v.Base, v.Len)...)
	}
	return k.Write(fd, all)
}
