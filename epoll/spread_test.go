package epoll

import (
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"testing"

	"golang.org/x/sys/unix"
)

// BenchmarkSpread compares two ways to share a listening address between
// loops: a SO_REUSEPORT socket for each, as Listen does it, and one socket that
// all watch with EPOLLEXCLUSIVE. It reports the share of 2,000 connections
// that the most loaded of 4 loops got: 25 % would be even.
func BenchmarkSpread(b *testing.B) {
	const loops, connections = 4, 2000
	for _, way := range []struct {
		name string
		open func(b *testing.B, loops int) (addr string, counts func() []int)
	}{{"reuseport", spreadReuseport}, {"exclusive", spreadExclusive}} {
		for _, burst := range []int{1, 200} {
			b.Run(fmt.Sprintf("%s/burst=%d", way.name, burst), func(b *testing.B) {
				noLeak(b)
				addr, counts := way.open(b, loops)
				sum := func() (n int) {
					for _, k := range counts() {
						n += k
					}
					return n
				}
				most, all := 0.0, 0
				for b.Loop() {
					before := counts()
					var fds []int
					for len(fds) < connections {
						for range burst {
							fds = append(fds, startConnect(b, addr))
						}
						all += burst
						until(b, "the connections to be accepted", func() bool { return sum() == all })
					}
					for _, fd := range fds {
						unix.Close(fd)
					}
					after := counts()
					for i := range after {
						most = max(most, float64(after[i]-before[i])/connections)
					}
				}
				b.ReportMetric(100*most, "%most")
				b.ReportMetric(0, "ns/op")
			})
		}
	}
}

// startConnect begins to connect and does not wait.
func startConnect(b *testing.B, addr string) int {
	tcp, err := net.ResolveTCPAddr("tcp", addr)
	if err != nil {
		b.Fatal(err)
	}
	domain, sa := sockaddr(tcp)
	fd, err := unix.Socket(domain, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		b.Fatal(err)
	}
	if err := unix.Connect(fd, sa); err != nil && err != unix.EINPROGRESS {
		b.Fatal(err)
	}
	return fd
}

func spreadReuseport(b *testing.B, loops int) (string, func() []int) {
	accepted := make([]atomic.Int64, loops)
	_, addr := serve(b, Config{Loops: loops}, script{opened: func(l *Loop, _ Slot, _ uint32) { accepted[l.Index()].Add(1) }})
	return addr, func() []int { return values(accepted) }
}

func values(as []atomic.Int64) []int {
	vs := make([]int, len(as))
	for i := range as {
		vs[i] = int(as[i].Load())
	}
	return vs
}

func spreadExclusive(b *testing.B, loops int) (string, func() []int) {
	fd, err := listenSocket(&net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)}, false)
	if err != nil {
		b.Fatal(err)
	}
	if err := unix.Listen(fd, backlog); err != nil {
		b.Fatal(err)
	}
	sa, err := unix.Getsockname(fd)
	if err != nil {
		b.Fatal(err)
	}
	accepted := make([]atomic.Int64, loops)
	stop, err := unix.Eventfd(0, unix.EFD_NONBLOCK|unix.EFD_CLOEXEC)
	if err != nil {
		b.Fatal(err)
	}
	var wg sync.WaitGroup
	for i := range loops {
		epfd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
		if err != nil {
			b.Fatal(err)
		}
		sysCtl(epfd, unix.EPOLL_CTL_ADD, int32(fd), unix.EPOLLIN|unix.EPOLLEXCLUSIVE, 1)
		sysCtl(epfd, unix.EPOLL_CTL_ADD, int32(stop), unix.EPOLLIN, 2)
		wg.Go(func() {
			defer unix.Close(epfd)
			var conns []int32
			evs := make([]unix.EpollEvent, maxEvents)
			for {
				n, e := sysPoll(epfd, evs)
				if n <= 0 {
					n, e = sysWait(epfd, evs, -1)
				}
				if e == unix.EINTR {
					continue
				}
				for _, ev := range evs[:n] {
					switch key := *keyOf(&ev); key {
					case 1:
						for range acceptBatch {
							c, e := sysAccept(int32(fd))
							if e != none {
								break
							}
							conns = append(conns, c)
							sysCtl(epfd, unix.EPOLL_CTL_ADD, c, unix.EPOLLIN, uint64(c)<<32)
							accepted[i].Add(1)
						}
					case 2:
						for _, c := range conns {
							sysClose(c)
						}
						return
					default: // the client has closed
						sysCtl(epfd, unix.EPOLL_CTL_DEL, int32(key>>32), 0, 0)
					}
				}
			}
		})
	}
	b.Cleanup(func() {
		if _, err := unix.Write(stop, []byte{1, 0, 0, 0, 0, 0, 0, 0}); err != nil {
			b.Error(err)
		}
		wg.Wait()
		unix.Close(stop)
		unix.Close(fd)
	})
	return tcpAddr(sa).String(), func() []int { return values(accepted) }
}
