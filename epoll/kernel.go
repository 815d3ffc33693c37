package epoll

import (
	"net"

	"golang.org/x/sys/unix"
)

// Kernel is what a loop asks of the operating system: the calls it makes, and
// the clock. Config.Kernel is nil for Linux. A simulation puts its own in that
// place, with sockets that are queues of bytes and a clock that it turns, and
// drives the loops with Loop.Step; nothing of it needs a descriptor or a
// second to pass.
//
// All methods but Wait and Listen return at once. A Kernel must not keep the
// slices it is given. Wake may be called by any goroutine, so may Now; the
// others are called by the goroutine of their loop, or before it runs.
type Kernel interface {
	// Now is the monotonic time in nanoseconds, of the same origin for all loops.
	Now() int64

	// Open makes an epoll instance and the eventfd that wakes who waits for it.
	Open() (epfd int, wakefd int32, err error)
	// Ctl is epoll_ctl; key comes back in each event of fd.
	Ctl(epfd, op int, fd int32, events uint32, key uint64) unix.Errno
	// Poll is epoll_wait that does not wait.
	Poll(epfd int, evs []unix.EpollEvent) (int, unix.Errno)
	// Wait is epoll_wait for up to ns nanoseconds, for ever when ns is negative.
	Wait(epfd int, evs []unix.EpollEvent, ns int64) (int, unix.Errno)
	// Wake makes the eventfd readable; reading 8 bytes from it undoes that.
	Wake(wakefd int32)

	// Listen opens n sockets that listen on one address and share what comes in.
	Listen(addr string, n int) (fds []int32, at net.Addr, err error)
	// Accept takes a connection, non-blocking, from a listening socket.
	Accept(fd int32) (int32, unix.Errno)
	// Connect begins to connect to addr, from local if that is not nil.
	Connect(addr, local *net.TCPAddr) (fd int32, err error)
	// Nonblock prepares a socket that was made elsewhere.
	Nonblock(fd int32) error
	// Peer is the address of the other end, nil when there is none.
	Peer(fd int32) *net.TCPAddr

	// Read, Write and Writev are one call each; they may be interrupted (EINTR).
	Read(fd int32, p []byte) (int, unix.Errno)
	Write(fd int32, p []byte) (int, unix.Errno)
	Writev(fd int32, iov *[2]unix.Iovec) (int, unix.Errno)
	// SocketError takes the error that is kept for a socket.
	SocketError(fd int32) unix.Errno
	// Shutdown sends FIN: nothing more will be written.
	Shutdown(fd int32)
	Close(fd int32)
}

// linux is the Kernel of every loop that is not simulated.
type linux struct{}

func (linux) Now() int64 { return sysNow() }

func (linux) Open() (epfd int, wakefd int32, err error) { return sysOpen() }

func (linux) Ctl(epfd, op int, fd int32, events uint32, key uint64) unix.Errno {
	return sysCtl(epfd, op, fd, events, key)
}

func (linux) Poll(epfd int, evs []unix.EpollEvent) (int, unix.Errno) { return sysPoll(epfd, evs) }

func (linux) Wait(epfd int, evs []unix.EpollEvent, ns int64) (int, unix.Errno) {
	switch {
	case ns < 0:
		return sysWait(epfd, evs, -1)
	case ns%1_000_000 == 0:
		return sysWait(epfd, evs, int(ns/1_000_000))
	}
	return sysWaitFine(epfd, evs, ns)
}

func (linux) Wake(wakefd int32) { sysWake(wakefd) }

func (linux) Listen(addr string, n int) (fds []int32, at net.Addr, err error) {
	return listen(addr, n)
}

func (linux) Accept(fd int32) (int32, unix.Errno) { return sysAccept(fd) }

func (linux) Connect(addr, local *net.TCPAddr) (int32, error) { return connect(addr, local) }

func (linux) Nonblock(fd int32) error { return unix.SetNonblock(int(fd), true) }

func (linux) Peer(fd int32) *net.TCPAddr {
	sa, err := unix.Getpeername(int(fd))
	if err != nil {
		return nil
	}
	return tcpAddr(sa)
}

func (linux) Read(fd int32, p []byte) (int, unix.Errno) {
	n, e := sysRecv(fd, p)
	if e == unix.ENOTSOCK { // the eventfd
		return sysRead(fd, p)
	}
	return n, e
}

func (linux) Write(fd int32, p []byte) (int, unix.Errno)            { return sysSend(fd, p) }
func (linux) Writev(fd int32, iov *[2]unix.Iovec) (int, unix.Errno) { return sysWritev(fd, iov) }
func (linux) SocketError(fd int32) unix.Errno                       { return socketError(fd) }
func (linux) Shutdown(fd int32)                                     { sysShutdown(fd) }
func (linux) Close(fd int32)                                        { sysClose(fd) }

// The calls of a loop that a signal may interrupt are made again.

func (l *Loop) read(fd int32, p []byte) (n int, e unix.Errno) {
	for {
		if n, e = l.kernel.Read(fd, p); e != unix.EINTR {
			return n, e
		}
	}
}

func (l *Loop) write(fd int32, p []byte) (n int, e unix.Errno) {
	for {
		if n, e = l.kernel.Write(fd, p); e != unix.EINTR {
			return n, e
		}
	}
}

// writev writes a and then b, neither of them empty, in one call.
func (l *Loop) writev(fd int32, a, b []byte) (n int, e unix.Errno) {
	setIovec(&l.iov[0], a)
	setIovec(&l.iov[1], b)
	for {
		if n, e = l.kernel.Writev(fd, &l.iov); e != unix.EINTR {
			l.iov[0].Base, l.iov[1].Base = nil, nil
			return n, e
		}
	}
}

func (l *Loop) acceptOne(fd int32) (conn int32, e unix.Errno) {
	for {
		if conn, e = l.kernel.Accept(fd); e != unix.EINTR {
			return conn, e
		}
	}
}
