package main

import (
	"errors"
	"fmt"
	"net"
	"os"
	"runtime"
	"sync"
	"syscall"

	"github.com/gobwas/ws"
	"github.com/gobwas/ws/wsutil"
	"golang.org/x/sys/unix"
)

// echoMessage waits for a message and writes it back.
func echoMessage(conn net.Conn) error {
	p, op, err := wsutil.ReadClientData(conn)
	if err != nil {
		return err
	}
	return wsutil.WriteServerMessage(conn, op, p)
}

func serveGobwas(l net.Listener) error {
	return accept(l, func(conn net.Conn) {
		go func() {
			defer conn.Close()
			if _, err := ws.Upgrade(conn); err != nil {
				return
			}
			for echoMessage(conn) == nil {
			}
		}()
	})
}

// serveGobwasEpoll is the usual way to save the goroutines: they end after the
// handshake, and one for each processor waits in epoll_wait for the connections
// that have something to read. A message that has begun is read to its end.
func serveGobwasEpoll(l net.Listener) error {
	pollers := make([]*poller, runtime.GOMAXPROCS(0))
	failed := make(chan error, len(pollers)+1)
	for i := range pollers {
		p, err := newPoller()
		if err != nil {
			return err
		}
		pollers[i] = p
		go func() { failed <- p.run() }()
	}
	next := 0
	go func() {
		failed <- accept(l, func(conn net.Conn) {
			p := pollers[next%len(pollers)]
			next++
			go func() {
				if _, err := ws.Upgrade(conn); err != nil || p.add(conn) != nil {
					conn.Close()
				}
			}()
		})
	}()
	return <-failed
}

// poller is an epoll instance with the connections that it watches.
type poller struct {
	epfd  int
	mu    sync.Mutex
	conns map[int32]net.Conn // by descriptor
}

func newPoller() (*poller, error) {
	epfd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, os.NewSyscallError("epoll_create1", err)
	}
	return &poller{epfd: epfd, conns: map[int32]net.Conn{}}, nil
}

func (p *poller) add(conn net.Conn) error {
	sc, ok := conn.(syscall.Conn)
	if !ok {
		return fmt.Errorf("%T has no descriptor", conn)
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return err
	}
	return errors.Join(raw.Control(func(fd uintptr) {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.conns[int32(fd)] = conn
		if err = unix.EpollCtl(p.epfd, unix.EPOLL_CTL_ADD, int(fd), &unix.EpollEvent{Events: unix.EPOLLIN | unix.EPOLLRDHUP, Fd: int32(fd)}); err != nil {
			delete(p.conns, int32(fd))
		}
	}), err)
}

func (p *poller) run() error {
	events := make([]unix.EpollEvent, 256)
	for {
		n, err := unix.EpollWait(p.epfd, events, -1)
		if err != nil && !errors.Is(err, unix.EINTR) {
			return os.NewSyscallError("epoll_wait", err)
		}
		for _, e := range events[:max(n, 0)] {
			p.mu.Lock()
			conn := p.conns[e.Fd]
			p.mu.Unlock()
			if conn != nil && echoMessage(conn) != nil {
				p.drop(e.Fd, conn)
			}
		}
	}
}

// drop forgets a connection before its descriptor can be used anew.
func (p *poller) drop(fd int32, conn net.Conn) {
	p.mu.Lock()
	delete(p.conns, fd)
	p.mu.Unlock()
	conn.Close() // takes it out of the epoll instance too
}

// serveTCP echoes without any protocol.
func serveTCP(l net.Listener) error {
	return accept(l, func(conn net.Conn) {
		go func() {
			defer conn.Close()
			buf := make([]byte, 16<<10)
			for {
				n, err := conn.Read(buf)
				if err != nil {
					return
				}
				if _, err := conn.Write(buf[:n]); err != nil {
					return
				}
			}
		}()
	})
}
