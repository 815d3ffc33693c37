package epoll

import (
	"net"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// Dial starts to connect to addr, from local if that is not nil, and returns
// at once. When the connection stands the handler is told Opened with tag;
// when it fails, or timeout (0: none) passes, only Closed for the slot that
// Dial returned. An error means that the attempt could not be started.
func (l *Loop) Dial(addr, local *net.TCPAddr, tag uint32, timeout time.Duration) (Slot, error) {
	fd, err := l.kernel.Connect(addr, local)
	if err != nil {
		return 0, err
	}
	c, s, e := l.add(fd, flagConnecting)
	if e != none {
		l.kernel.Close(fd)
		return 0, os.NewSyscallError("epoll_ctl", e)
	}
	if tag != 0 {
		l.extra(s).tag = tag
	}
	l.setDeadline(c, s, timeout)
	return c, nil
}

// connect makes a socket and starts to connect it.
func connect(addr, local *net.TCPAddr) (int32, error) {
	domain := unix.AF_INET
	if addr.IP.To4() == nil {
		domain = unix.AF_INET6
	}
	fd, err := unix.Socket(domain, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, os.NewSyscallError("socket", err)
	}
	if err := unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1); err != nil {
		unix.Close(fd)
		return 0, os.NewSyscallError("setsockopt TCP_NODELAY", err)
	}
	if local != nil {
		// With a port of 0 the kernel chooses one at connect, when it knows
		// the other end: a port can then serve one connection per target.
		_, lsa := sockaddr(local)
		err := unix.SetsockoptInt(fd, unix.IPPROTO_IP, unix.IP_BIND_ADDRESS_NO_PORT, 1)
		if err == nil {
			err = unix.Bind(fd, lsa)
		}
		if err != nil {
			unix.Close(fd)
			return 0, os.NewSyscallError("bind", err)
		}
	}
	if e := sysConnect(fd, addr); e != none && e != unix.EINPROGRESS {
		unix.Close(fd)
		return 0, os.NewSyscallError("connect", e)
	}
	return int32(fd), nil
}

// connected finds out how the connect of c ended.
func (l *Loop) connected(c Slot, s *slot, events uint32) {
	if events&(unix.EPOLLERR|unix.EPOLLHUP) != 0 {
		if e := l.kernel.SocketError(s.fd); e != none {
			l.end(c, s, causeOf(e), e)
			return
		}
	}
	if s.is(flagTLS) { // the deadline stands, and to others c is still connecting
		s.flags |= flagShaking
		l.begin(c, s, l.tls[c])
		l.rewatch(c, s)
		return
	}
	s.flags &^= flagConnecting
	*l.deadline(s) = 0
	tag := l.takeTag(s)
	l.rewatch(c, s)
	l.opened(c, tag)
}

// takeTag is the tag of Dial.
func (l *Loop) takeTag(s *slot) (tag uint32) {
	if s.is(flagExtra) {
		x := l.extra(s)
		tag, x.tag = x.tag, 0
		l.tidy(s)
	}
	return tag
}
