package epoll

import (
	"net"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// dialer is a group whose Opened and Closed are told to the test.
func dialer(t *testing.T) (g *Group, opened chan opening, ends chan end) {
	t.Helper()
	opened, ends = make(chan opening, 10), newEnds()
	g, _ = serve(t, Config{}, script{ends: ends, opened: func(l *Loop, c Slot, tag uint32) {
		sa, err := unix.Getsockname(l.Fd(c))
		if err != nil {
			t.Error(err)
		}
		nodelay, _ := unix.GetsockoptInt(l.Fd(c), unix.IPPROTO_TCP, unix.TCP_NODELAY)
		opened <- opening{l.ID(c), tag, tcpAddr(sa), l.Peer(c), nodelay}
		l.Write(c, []byte("hello"))
	}})
	return g, opened, ends
}

type opening struct {
	id          ID
	tag         uint32
	local, peer *net.TCPAddr
	nodelay     int
}

func tcpListener(t *testing.T, addr string) *net.TCPListener {
	t.Helper()
	ln, err := net.Listen("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	return ln.(*net.TCPListener)
}

func TestDialOpensAConnection(t *testing.T) {
	g, opened, ends := dialer(t)
	for _, host := range []string{"127.0.0.1", "::1"} {
		if host == "::1" && !haveIPv6() {
			t.Log("no IPv6 on this machine: ::1 is not tried")
			continue
		}
		ln := tcpListener(t, net.JoinHostPort(host, "0"))
		to := ln.Addr().(*net.TCPAddr)
		g.Do(func(l *Loop) {
			c, err := l.Dial(to, nil, 42, 50*time.Millisecond)
			if err != nil {
				t.Error(err)
				return
			}
			if _, ok := l.Find(l.ID(c)); ok {
				t.Error("it is found before it is connected")
			}
			l.Each(func(Slot) { t.Error("Each sees it before it is connected") })
		})
		peer, err := ln.AcceptTCP()
		if err != nil {
			t.Fatal(err)
		}
		o := await(t, opened)
		if o.tag != 42 || o.peer.Port != to.Port || !o.peer.IP.Equal(to.IP) || o.nodelay == 0 {
			t.Errorf("opened with %+v", o)
		}
		expect(t, peer, "hello")
		// The dial's timeout does not count any more.
		g.Do(func(l *Loop) { l.advance(l.Tick() + 1) })
		talk(t, peer, "echo")
		peer.Close()
		if e := awaitCause(t, ends, CauseEOF); e.id != o.id {
			t.Errorf("%x was opened, %x closed", uint64(o.id), uint64(e.id))
		}
	}
}

func TestDialIsRefusedWhereNobodyListens(t *testing.T) {
	g, opened, ends := dialer(t)
	ln := tcpListener(t, "127.0.0.1:0")
	to := ln.Addr().(*net.TCPAddr)
	ln.Close()
	var id ID
	g.Do(func(l *Loop) {
		c, err := l.Dial(to, nil, 0, 0)
		if err != nil {
			t.Error(err)
			return
		}
		id = l.ID(c)
	})
	if e := awaitCause(t, ends, CauseRefused); e.id != id || e.errno != unix.ECONNREFUSED {
		t.Errorf("%+v, want %x", e, uint64(id))
	}
	settle(g)
	if len(opened) != 0 || g.Stats().Open != 0 {
		t.Error("it was opened")
	}
}

// deaf is an address that answers no SYN: a listener with a full queue.
func deaf(t *testing.T) *net.TCPAddr {
	t.Helper()
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	if err := unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		t.Fatal(err)
	}
	if err := unix.Listen(fd, 0); err != nil {
		t.Fatal(err)
	}
	sa, err := unix.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	for range 10 {
		c, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { unix.Close(c) })
		if err := unix.Connect(c, sa); err != nil && err != unix.EINPROGRESS {
			t.Fatal(err)
		}
		p := []unix.PollFd{{Fd: int32(c), Events: unix.POLLOUT}}
		if n, _ := unix.Poll(p, 20); n == 0 {
			return tcpAddr(sa)
		}
	}
	t.Skip("the queue of a listener with backlog 0 does not get full here")
	return nil
}

func TestADialThatNobodyAnswersTimesOut(t *testing.T) {
	g, opened, ends := dialer(t)
	to := deaf(t)
	const timeout = 100 * time.Millisecond
	began := time.Now()
	g.Do(func(l *Loop) {
		for _, d := range []time.Duration{timeout, 0} {
			if _, err := l.Dial(to, nil, 0, d); err != nil {
				t.Error(err)
			}
		}
	})
	awaitCause(t, ends, CauseTimeout)
	if d := time.Since(began); d < timeout || d > timeout+time.Second {
		t.Errorf("it took %v, want %v", d, timeout)
	}
	if st := g.Stats(); st.Open != 1 || len(opened) != 0 {
		t.Errorf("%d are left, want the one without a timeout", st.Open)
	}
	g.Stop() // and that ends as well
	awaitCause(t, ends, CauseLocal)
}

func TestADialMayBeGivenUp(t *testing.T) {
	g, opened, ends := dialer(t)
	to := deaf(t)
	g.Do(func(l *Loop) {
		c, err := l.Dial(to, nil, 0, time.Minute)
		if err != nil {
			t.Error(err)
			return
		}
		l.Close(c)
		l.Close(c)
	})
	awaitCause(t, ends, CauseLocal)
	settle(g)
	if len(ends)+len(opened) != 0 || g.Stats().Open != 0 {
		t.Error("there is more to it")
	}
}

func TestDialFromALocalAddress(t *testing.T) {
	g, opened, _ := dialer(t)
	ln := tcpListener(t, "127.0.0.1:0")
	local := &net.TCPAddr{IP: net.IPv4(127, 0, 0, 77)}
	g.Do(func(l *Loop) {
		if _, err := l.Dial(ln.Addr().(*net.TCPAddr), local, 0, 0); err != nil {
			t.Error(err)
		}
	})
	if o := await(t, opened); !o.local.IP.Equal(local.IP) || o.local.Port == 0 {
		t.Errorf("the local address is %v", o.local)
	}
}

func TestADialThatCannotBeStartedIsAnError(t *testing.T) {
	g, opened, ends := dialer(t)
	g.Do(func(l *Loop) {
		// 192.0.2.1 is no address of this machine.
		if _, err := l.Dial(&net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: 1}, &net.TCPAddr{IP: net.IPv4(192, 0, 2, 1)}, 0, 0); err == nil {
			t.Error("bound to a foreign address")
		}
		// The broadcast address is nobody's to connect to.
		if _, err := l.Dial(&net.TCPAddr{IP: net.IPv4bcast, Port: 1}, nil, 0, 0); err == nil {
			t.Error("connecting to the broadcast address")
		}
		if l.Len() != 0 {
			t.Errorf("%d connections", l.Len())
		}
	})
	if len(opened)+len(ends) != 0 {
		t.Error("the handler was told")
	}
}

func TestWordsWrittenBeforeADialIsConnectedWaitForIt(t *testing.T) {
	g, opened, _ := dialer(t)
	ln := tcpListener(t, "127.0.0.1:0")
	g.Do(func(l *Loop) {
		c, err := l.Dial(ln.Addr().(*net.TCPAddr), nil, 0, 0)
		if err != nil {
			t.Error(err)
			return
		}
		l.Write(c, []byte("early "))
	})
	await(t, opened)
	peer, err := ln.AcceptTCP()
	if err != nil {
		t.Fatal(err)
	}
	defer peer.Close()
	expect(t, peer, "early hello")
}
