package epoll

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

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

// The tests of a shortage of descriptors run in a process of their own: the
// test binary, executed again.

const envChild = "EPOLL_TEST_CHILD"

// report is what the child tells for each line that it reads.
type report struct {
	Addr  string
	Stats Stats
	CPU   time.Duration // used by the process until now
	Err   string
}

// child is the other process: a server with an allowance of descriptors. It
// obeys lines on its standard input until that ends.
func child() int {
	var rl unix.Rlimit
	limit := func(more int) {
		// New descriptors get the lowest free number, and the limit is one of
		// the number: count those that are free.
		for rl.Cur = 0; more > 0; rl.Cur++ {
			if _, err := unix.FcntlInt(uintptr(rl.Cur), unix.F_GETFD, 0); err != nil {
				more--
			}
		}
		if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &rl); err != nil {
			panic(err)
		}
	}
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &rl); err != nil {
		panic(err)
	}
	full := rl.Cur
	out := json.NewEncoder(os.Stdout)
	newEcho := func(l *Loop) Handler { return Echo{l} }

	var r report
	limit(5)
	if _, err := NewGroup(Config{Loops: 8}, newEcho); err != nil {
		r.Err = err.Error()
	}
	rl.Cur = full
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &rl); err != nil {
		panic(err)
	}
	g, err := NewGroup(Config{}, newEcho)
	if err != nil {
		panic(err)
	}
	g.Start()
	addr, err := g.Listen("127.0.0.1:0", 0)
	if err != nil {
		panic(err)
	}
	r.Addr = addr.String()
	var held []int
	tell := func() {
		var ru unix.Rusage
		if err := unix.Getrusage(unix.RUSAGE_SELF, &ru); err != nil {
			panic(err)
		}
		r.Stats, r.CPU = g.Stats(), time.Duration(ru.Utime.Nano()+ru.Stime.Nano())
		if err := out.Encode(r); err != nil {
			panic(err)
		}
		r.Err = ""
	}
	limit(30)
	tell()
	for in := bufio.NewScanner(os.Stdin); in.Scan(); tell() {
		switch in.Text() {
		case "hold":
			for range 10 {
				fd, err := unix.Open("/dev/null", unix.O_RDONLY|unix.O_CLOEXEC, 0)
				if err != nil {
					panic(err)
				}
				held = append(held, fd)
			}
		case "free":
			for _, fd := range held {
				unix.Close(fd)
			}
			held = nil
		}
	}
	g.Stop()
	return 0
}

func TestAcceptingPausesWhileDescriptorsAreShort(t *testing.T) {
	noLeak(t)
	cmd := exec.Command("/proc/self/exe")
	cmd.Env = append(os.Environ(), envChild+"=1", "GORACE=atexit_sleep_ms=0")
	cmd.Stderr = os.Stderr
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() {
		stdin.Close()
		if err := cmd.Wait(); err != nil {
			t.Errorf("the child ended with %v", err)
		}
	}()
	in := json.NewDecoder(stdout)
	heard := func() (r report) {
		t.Helper()
		if err := in.Decode(&r); err != nil {
			t.Fatal(err)
		}
		return r
	}
	ask := func(line string) report {
		t.Helper()
		send(t, stdin, line+"\n")
		return heard()
	}
	r := heard()
	if !strings.Contains(r.Err, syscall.EMFILE.Error()) {
		t.Errorf("NewGroup with too few descriptors gave %q", r.Err)
	}
	addr := r.Addr
	ask("hold") // 20 of its 30 are left

	var cs []*net.TCPConn
	for range 45 {
		cs = append(cs, dial(t, addr)) // the kernel takes them all
	}
	until(t, "starvation", func() bool { r = ask("?"); return r.Stats.Starved > 0 })
	if r.Stats.Open != 20 {
		t.Errorf("%d connections are open, want 20", r.Stats.Open)
	}
	for _, c := range cs[:20] {
		talk(t, c, "the open ones are served")
	}

	before := ask("?")
	time.Sleep(300 * time.Millisecond) // what is measured is what it does all by itself
	after := ask("?")
	if cpu := after.CPU - before.CPU; cpu > 30*time.Millisecond {
		t.Errorf("starving costs %v of processor time in 300 ms", cpu)
	}
	if n := after.Stats.Starved - before.Stats.Starved; n == 0 || n > 20 {
		t.Errorf("accepting was tried %d times in 300 ms, want about once a tick", n)
	}

	// Descriptors that others gave back are found.
	ask("free")
	for _, c := range cs[20:30] {
		talk(t, c, "the next ten")
	}
	until(t, "starvation again", func() bool { r = ask("?"); return r.Stats.Open == 30 })
	// And so are those of connections that end.
	for _, c := range cs[:20] {
		c.Close()
	}
	for _, c := range cs[20:] {
		talk(t, c, "all of them")
	}
	if r := ask("?"); r.Stats.Open != 25 || r.Stats.Accepted != 45 {
		t.Errorf("at the end %d are open and %d were accepted, want 25 and 45", r.Stats.Open, r.Stats.Accepted)
	}
}

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
