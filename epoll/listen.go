package epoll

import (
	"errors"
	"fmt"
	"net"
	"os"

	"golang.org/x/sys/unix"
)

// A listening address is one socket per loop, joined by SO_REUSEPORT: the
// kernel spreads new connections over them by a hash of their addresses, each
// loop accepts what is its own, and no connection changes loops. The other
// way, one socket that every loop watches with EPOLLEXCLUSIVE, needs fewer
// sockets but spreads worse: the kernel wakes the waiter that is first in its
// list, so a lightly loaded server gives nearly everything to one loop, and
// WebSocket connections stay where they are for long. BenchmarkSpread shows
// both; the README has the figures.

// listener is a loop's socket of one listening address.
type listener struct {
	fd  int32
	tag uint32
}

const (
	backlog     = 4096
	acceptBatch = 64 // connections accepted per event, so that the open ones get their turn
)

// Listen opens addr ("host:port") on every loop of the group and returns the
// address with the port that was chosen when it is 0. Connections that come
// in are Opened with tag. To be called before or while the group runs.
func (g *Group) Listen(addr string, tag uint32) (net.Addr, error) {
	fds, at, err := g.cfg.Kernel.Listen(addr, len(g.loops))
	if err != nil {
		return nil, err
	}
	for i, l := range g.loops {
		if !l.Post(func() { l.addListener(fds[i], tag) }) {
			for _, fd := range fds[i:] { // those before are the loops'
				g.cfg.Kernel.Close(fd)
			}
			return nil, fmt.Errorf("listen %s: the loops have stopped", addr)
		}
	}
	return at, nil
}

// listen opens n sockets for one address.
func listen(addr string, n int) (all []int32, at net.Addr, err error) {
	tcp, err := net.ResolveTCPAddr("tcp", addr)
	if err != nil {
		return nil, nil, err
	}
	var fds []int
	defer func() {
		if err != nil {
			for _, fd := range fds {
				unix.Close(fd)
			}
		}
	}()
	for range n {
		// The first socket binds without SO_REUSEPORT and so fails when
		// anybody has the address, another server of ours included; the
		// option, set afterwards, lets only the others of this group in.
		fd, err := listenSocket(tcp, len(fds) > 0)
		if errors.Is(err, unix.EAFNOSUPPORT) && tcp.IP == nil { // ":8002" on a machine without IPv6
			tcp.IP = net.IPv4zero
			fd, err = listenSocket(tcp, len(fds) > 0)
		}
		if err != nil {
			return nil, nil, fmt.Errorf("listen %s: %w", addr, err)
		}
		fds = append(fds, fd)
		all = append(all, int32(fd))
		if len(fds) == 1 {
			sa, err := unix.Getsockname(fd)
			if err != nil {
				return nil, nil, os.NewSyscallError("getsockname", err)
			}
			zone := tcp.Zone // of a link-local address; the others bind to it too
			tcp = tcpAddr(sa)
			tcp.Zone = zone
		}
		if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEPORT, 1); err != nil {
			return nil, nil, os.NewSyscallError("setsockopt SO_REUSEPORT", err)
		}
	}
	// Listening starts only now, when every socket is bound and has the
	// option: a socket that listens without it joins no group.
	for _, fd := range fds {
		if err := unix.Listen(fd, backlog); err != nil {
			return nil, nil, fmt.Errorf("listen %s: %w", addr, os.NewSyscallError("listen", err))
		}
	}
	return all, tcp, nil
}

// listenSocket returns a bound socket for addr, not yet listening.
func listenSocket(addr *net.TCPAddr, shared bool) (fd int, err error) {
	domain, sa := sockaddr(addr)
	fd, err = unix.Socket(domain, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, os.NewSyscallError("socket", err)
	}
	defer func() {
		if err != nil {
			unix.Close(fd)
		}
	}()
	set := func(level, opt, value int) {
		if err == nil {
			err = os.NewSyscallError("setsockopt", unix.SetsockoptInt(fd, level, opt, value))
		}
	}
	set(unix.SOL_SOCKET, unix.SO_REUSEADDR, 1) // old connections in TIME_WAIT do not keep the port
	set(unix.IPPROTO_TCP, unix.TCP_NODELAY, 1) // accepted sockets inherit it
	if shared {
		set(unix.SOL_SOCKET, unix.SO_REUSEPORT, 1)
	}
	if domain == unix.AF_INET6 {
		v6only := 1
		if addr.IP == nil || addr.IP.IsUnspecified() {
			v6only = 0 // [::] serves IPv4 too
		}
		set(unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, v6only)
	}
	if err == nil {
		err = os.NewSyscallError("bind", unix.Bind(fd, sa))
	}
	return fd, err
}

func (l *Loop) addListener(fd int32, tag uint32) {
	l.listeners = append(l.listeners, listener{fd: fd, tag: tag})
	if !l.starved {
		l.watchListener(len(l.listeners) - 1)
	}
}

func (l *Loop) watchListener(i int) {
	if fd := l.listeners[i].fd; fd >= 0 {
		l.kernel.Ctl(l.epfd, unix.EPOLL_CTL_ADD, fd, unix.EPOLLIN, uint64(listenerGen)<<32|uint64(i))
	}
}

// watchListeners accepts again after descriptors had run out.
func (l *Loop) watchListeners() {
	l.starved = false
	for i := range l.listeners {
		l.watchListener(i)
	}
}

// accept takes connections out of the queue of listener i.
func (l *Loop) accept(i int) {
	for range acceptBatch {
		fd, e := l.acceptOne(l.listeners[i].fd)
		switch e {
		case none:
		case unix.EAGAIN:
			return
		case unix.EMFILE, unix.ENFILE, unix.ENOBUFS, unix.ENOMEM:
			l.starve()
			return
		default:
			continue // ECONNABORTED and network errors of that one connection
		}
		c, _, e := l.add(fd, 0)
		if e != none {
			l.kernel.Close(fd)
			continue
		}
		l.stats.Accepted++
		l.opened(c, l.listeners[i].tag)
	}
}

// starve stops watching the listeners: a queue that cannot be accepted from
// would be reported again and again. They are watched anew when this loop
// closes a connection, and on every tick in case others gave descriptors back.
// The peers wait in the queue meanwhile.
func (l *Loop) starve() {
	l.starved = true
	l.stats.Starved++
	l.retry = l.tick + 1
	for _, ln := range l.listeners {
		if ln.fd >= 0 {
			l.kernel.Ctl(l.epfd, unix.EPOLL_CTL_DEL, ln.fd, 0, 0)
		}
	}
}

// closeListeners refuses new connections from now on.
func (l *Loop) closeListeners() {
	for i := range l.listeners {
		if fd := l.listeners[i].fd; fd >= 0 {
			l.listeners[i].fd = -1 // events that are queued for it find nothing
			l.kernel.Close(fd)
		}
	}
}

// sockaddr is addr in the form of the system calls.
func sockaddr(addr *net.TCPAddr) (domain int, sa unix.Sockaddr) {
	if ip := addr.IP.To4(); ip != nil {
		return unix.AF_INET, &unix.SockaddrInet4{Port: addr.Port, Addr: [4]byte(ip)}
	}
	sa6 := &unix.SockaddrInet6{Port: addr.Port}
	copy(sa6.Addr[:], addr.IP.To16())
	if ifi, err := net.InterfaceByName(addr.Zone); err == nil {
		sa6.ZoneId = uint32(ifi.Index)
	}
	return unix.AF_INET6, sa6
}

// tcpAddr is the address in sa; nil when it is of another family.
func tcpAddr(sa unix.Sockaddr) *net.TCPAddr {
	switch sa := sa.(type) {
	case *unix.SockaddrInet4:
		return &net.TCPAddr{IP: net.IP(sa.Addr[:]), Port: sa.Port}
	case *unix.SockaddrInet6:
		return &net.TCPAddr{IP: net.IP(sa.Addr[:]), Port: sa.Port}
	}
	return nil
}

// Peer is the address of the other end, nil when the connection is broken.
func (l *Loop) Peer(c Slot) *net.TCPAddr { return l.kernel.Peer(l.slots.At(c).fd) }
