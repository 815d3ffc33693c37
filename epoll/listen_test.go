package epoll

import (
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

func haveIPv6() bool {
	ln, err := net.Listen("tcp6", "[::1]:0")
	if err != nil {
		return false
	}
	ln.Close()
	return true
}

func TestLoopsShareAnAddressAndEachGetsConnections(t *testing.T) {
	g, addr := serve(t, Config{Loops: 2}, script{})
	if _, port, _ := net.SplitHostPort(addr); port == "0" {
		t.Fatalf("the address is %s", addr)
	}
	for range 100 {
		talk(t, dial(t, addr), "hello")
	}
	g.Do(func(l *Loop) {
		if l.Len() == 0 {
			t.Errorf("loop %d got none of 100 connections", l.Index())
		}
	})
	if st := g.Stats(); st.Accepted != 100 {
		t.Errorf("%d accepted", st.Accepted)
	}
}

func TestConnectionsAreOpenedWithTheTagOfTheirListener(t *testing.T) {
	tags := make(chan uint32, 10)
	g, _ := serve(t, Config{Loops: 2}, script{opened: func(_ *Loop, _ Slot, tag uint32) { tags <- tag }})
	for _, tag := range []uint32{5, 1 << 31} {
		addr, err := g.Listen("127.0.0.1:0", tag)
		if err != nil {
			t.Fatal(err)
		}
		dial(t, addr.String())
		if got := await(t, tags); got != tag {
			t.Errorf("opened with tag %d, want %d", got, tag)
		}
	}
}

func TestAnAddressInUseIsRefused(t *testing.T) {
	g, ours := serve(t, Config{Loops: 2}, script{})
	other := stillGroup(t, Config{Loops: 2}, script{})
	other.Start()
	defer other.Stop()
	theirs := tcpListener(t, "127.0.0.1:0").Addr().String()
	for name, test := range map[string]struct {
		g    *Group
		addr string
	}{
		"of another program":    {g, theirs},
		"of the group itself":   {g, ours},
		"of another such group": {other, ours}, // SO_REUSEPORT must not let it in
	} {
		before := countFds(t)
		if addr, err := test.g.Listen(test.addr, 0); !errors.Is(err, syscall.EADDRINUSE) {
			t.Errorf("an address %s: %v, %v", name, addr, err)
		} else if !strings.Contains(err.Error(), test.addr) {
			t.Errorf("an address %s: the error does not name it: %v", name, err)
		}
		if after := countFds(t); after != before {
			t.Errorf("an address %s: %d descriptors before, %d after", name, before, after)
		}
	}
	talk(t, dial(t, ours), "ours still")
}

func TestAnAddressIsFreeAgainThoughOldConnectionsWait(t *testing.T) {
	noLeak(t)
	addr := "127.0.0.1:0"
	for i := range 2 {
		g := stillGroup(t, Config{Loops: 2}, script{})
		g.Start()
		a, err := g.Listen(addr, 0)
		if err != nil {
			t.Fatalf("round %d: %v", i, err)
		}
		addr = a.String()
		talk(t, dial(t, addr), "hello")
		g.Stop() // it closes first: its side of the connection is in TIME_WAIT
	}
}

func TestAnAddressThatIsNoneIsAnError(t *testing.T) {
	g, _ := serve(t, Config{}, script{})
	for _, addr := range []string{"127.0.0.1", "127.0.0.1:http:1", "127.0.0.1:99999", "192.0.2.1:0"} {
		if a, err := g.Listen(addr, 0); err == nil {
			t.Errorf("%s: listening on %v", addr, a)
		}
	}
}

func TestIPv6AndBothAtOnce(t *testing.T) {
	if !haveIPv6() {
		t.Skip("no IPv6 on this machine: [::1] cannot be listened on")
	}
	peers := make(chan *net.TCPAddr, 10)
	g, _ := serve(t, Config{Loops: 2}, script{opened: func(l *Loop, c Slot, _ uint32) { peers <- l.Peer(c) }})
	for _, test := range []struct {
		listen  string
		reached []string // and not the others
	}{
		{"[::1]:0", []string{"::1"}},
		{"127.0.0.1:0", []string{"127.0.0.1"}},
		{"0.0.0.0:0", []string{"127.0.0.1"}},
		{"[::]:0", []string{"::1", "127.0.0.1"}},
		{":0", []string{"::1", "127.0.0.1"}},
	} {
		addr, err := g.Listen(test.listen, 0)
		if err != nil {
			t.Errorf("%s: %v", test.listen, err)
			continue
		}
		port := strconv.Itoa(addr.(*net.TCPAddr).Port)
		for _, host := range []string{"::1", "127.0.0.1"} {
			want := strings.Contains(fmt.Sprint(test.reached), host)
			c, err := net.Dial("tcp", net.JoinHostPort(host, port))
			if (err == nil) != want {
				t.Errorf("%s: dialing %s gives %v", test.listen, host, err)
			}
			if err != nil {
				continue
			}
			talk(t, c, "hello")
			if peer := await(t, peers); peer.String() != c.LocalAddr().String() {
				t.Errorf("%s: the peer is %v, want %v", test.listen, peer, c.LocalAddr())
			}
			c.Close()
		}
	}
}

func TestAcceptedSocketsAreNonBlockingClosedOnExecAndWithoutDelay(t *testing.T) {
	g, addr := serve(t, Config{}, script{})
	talk(t, dial(t, addr), "hello")
	only(t, g, func(l *Loop, c Slot) {
		fd := uintptr(l.Fd(c))
		if v, err := unix.GetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_NODELAY); v == 0 || err != nil {
			t.Errorf("TCP_NODELAY is %d, %v", v, err)
		}
		if v, err := unix.FcntlInt(fd, unix.F_GETFL, 0); v&unix.O_NONBLOCK == 0 || err != nil {
			t.Errorf("the flags are %x, %v: no O_NONBLOCK", v, err)
		}
		if v, err := unix.FcntlInt(fd, unix.F_GETFD, 0); v&unix.FD_CLOEXEC == 0 || err != nil {
			t.Errorf("the descriptor's flags are %x, %v: no FD_CLOEXEC", v, err)
		}
	})
}

func TestUnlistenRefusesNewConnectionsAndLeavesTheOldOnes(t *testing.T) {
	g, addr := serve(t, Config{Loops: 2}, script{})
	var cs []*net.TCPConn
	for range 20 {
		c := dial(t, addr)
		talk(t, c, "hello")
		cs = append(cs, c)
	}
	g.Unlisten()
	if c, err := net.Dial("tcp", addr); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("dialing gives %v, %v", c, err)
	}
	for _, c := range cs {
		talk(t, c, "still here")
	}
	g.Unlisten() // a second time there is nothing to do
	again, err := g.Listen(addr, 0)
	if err != nil {
		t.Fatal(err)
	}
	talk(t, dial(t, again.String()), "anew")
}

func TestListenAfterStopIsAnErrorAndLeavesNothingOpen(t *testing.T) {
	noLeak(t)
	g := stillGroup(t, Config{Loops: 2}, script{})
	g.Start()
	g.Stop()
	if addr, err := g.Listen("127.0.0.1:0", 0); err == nil {
		t.Errorf("listening on %v", addr)
	}
}

func TestListenBeforeStartServesFromStartOn(t *testing.T) {
	noLeak(t)
	g := stillGroup(t, Config{Loops: 2}, script{})
	addr, err := g.Listen("127.0.0.1:0", 0)
	if err != nil {
		t.Fatal(err)
	}
	c := dial(t, addr.String())
	send(t, c, "early")
	g.Start()
	defer g.Stop()
	expect(t, c, "early")
}
