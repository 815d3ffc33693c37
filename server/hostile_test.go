package server

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"math/rand"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"wspoll/frame"
	"wspoll/handshake"

	"github.com/gobwas/ws"
	"golang.org/x/sys/unix"
)

func TestHeadThatNeverEndsIsCutOff(t *testing.T) {
	s := serve(t, Config{HandshakeTimeout: 200 * time.Millisecond}, nil)
	check := s.calm(t)
	slow := s.dial(t)
	slow.SetNoDelay(true)
	io.WriteString(slow, "GET /echo HTTP/1.1\r\nHost: a\r\n")
	gone := make(chan error, 1)
	go func() {
		for i := 0; ; i++ { // a header byte now and then does not buy more time
			if _, err := io.WriteString(slow, "x"); err != nil {
				gone <- err
				return
			}
			<-time.After(10 * time.Millisecond)
		}
	}()
	b := make([]byte, 1000)
	if n, err := slow.Read(b); err != nil || !bytes.HasPrefix(b[:n], []byte("HTTP/1.1 408 ")) {
		t.Errorf("%q, %v", b[:n], err)
	}
	slow.Close()
	receive(t, "the writer ends", gone)

	fast := s.dial(t)
	line := []byte("X-Filler: " + strings.Repeat("x", 1000) + "\r\n")
	io.WriteString(fast, "GET /echo HTTP/1.1\r\nHost: a\r\n")
	for range 9 {
		fast.Write(line)
	}
	if n, err := fast.Read(b); err != nil || !bytes.HasPrefix(b[:n], []byte("HTTP/1.1 431 ")) {
		t.Errorf("%q, %v", b[:n], err)
	}
	fast.Close()
	check()
}

func TestDeclaredLengthAllocatesNothing(t *testing.T) {
	huge := frame.AppendHeader(nil, ws.Header{Fin: true, OpCode: ws.OpBinary, Masked: true, Length: 1<<63 - 1})
	t.Run("limited", func(t *testing.T) {
		s := serve(t, Config{}, nil)
		check := s.calm(t)
		c := s.open(t, "/echo")
		c.write(huge)
		c.wantClose(ws.StatusMessageTooBig)
		c.conn.Close()
		check()
	})
	t.Run("unlimited", func(t *testing.T) {
		var m runtime.MemStats
		s := serve(t, Config{MaxMessage: Unlimited}, map[string]*Endpoint{"/join": {Message: func(Conn, ws.OpCode, []byte) {}}})
		check := s.calm(t)
		runtime.ReadMemStats(&m)
		before := m.TotalAlloc
		for i, path := range []string{"/echo", "/join"} {
			n := uint64(i + 1)
			c := s.open(t, path)
			c.write(append(huge, make([]byte, 1000)...))
			eventually(t, "the bytes that arrived are taken", func() bool { return s.Stats().BytesIn >= n*1000 })
			if b := s.Stats().Buffered; b > 4096 {
				t.Errorf("%d bytes wait for 1000 that came", b)
			}
			reset(c.conn)
			s.waitClosed(t, ReasonReset, n)
		}
		runtime.ReadMemStats(&m)
		if got := m.TotalAlloc - before; got > 8<<20 {
			t.Errorf("%d bytes were allocated", got)
		}
		check()
	})
}

func TestHundredThousandTinyFragments(t *testing.T) {
	const n = 100_000
	lens := make(chan int, 1)
	s := serve(t, Config{}, map[string]*Endpoint{"/join": {Message: func(_ Conn, _ ws.OpCode, p []byte) { lens <- len(p) }}})
	check := s.calm(t)
	all := masked(false, ws.OpText, []byte("x"))
	for i := range n - 1 {
		all = frame.AppendMasked(all, i == n-2, ws.OpContinuation, [4]byte{1, 2, 3, 4}, []byte("x"))
	}
	c := s.open(t, "/echo")
	go c.conn.Write(all)
	if _, got := c.message(); len(got) != n {
		t.Errorf("%d bytes came back of %d", len(got), n)
	}
	c.conn.Close()

	c = s.open(t, "/join")
	c.write(all)
	if got := receive(t, "the message", lens); got != n {
		t.Errorf("%d bytes were joined of %d", got, n)
	}
	// Empty ones, without end: they cost nothing.
	empty := masked(false, ws.OpText, nil)
	for range n {
		empty = frame.AppendMasked(empty, false, ws.OpContinuation, [4]byte{}, nil)
	}
	c.write(empty)
	c.send(ws.OpPing, []byte("done?"))
	if f := c.frame(); f.op != ws.OpPong {
		t.Errorf("%+v", f)
	}
	if b := s.Stats().Buffered; b > 1024 {
		t.Errorf("%d bytes wait for a message of none", b)
	}
	c.conn.Close()
	check()
}

func TestThousandsOfPingsWithoutReading(t *testing.T) {
	s := serve(t, Config{WriteTimeout: 200 * time.Millisecond}, nil)
	check := s.calm(t)
	c := s.open(t, "/echo")
	b := bytes.Repeat(masked(true, ws.OpPing, make([]byte, 125)), 1000)
	most := int64(0)
	broken := make(chan error, 1)
	go func() {
		for {
			if _, err := c.conn.Write(b); err != nil {
				broken <- err
				return
			}
		}
	}()
	eventually(t, "the connection is cut off", func() bool {
		st := s.Stats()
		most = max(most, st.Buffered)
		return st.Closed[ReasonStalled] == 1
	})
	receive(t, "the peer sees it", broken)
	if most > 1<<20 {
		t.Errorf("%d bytes waited for one peer", most)
	}
	c.conn.Close()
	check()
}

func TestEndInTheMiddleOfAFrame(t *testing.T) {
	s := serve(t, Config{}, map[string]*Endpoint{"/join": {Message: func(Conn, ws.OpCode, []byte) { t.Error("half a message came") }}})
	check := s.calm(t)
	whole := masked(true, ws.OpText, make([]byte, 50_000))
	n := uint64(0)
	for _, path := range []string{"/echo", "/join"} {
		for _, cut := range []int{1, 3, 8, 1000, len(whole) - 1} {
			n++
			c := s.open(t, path)
			c.write(whole[:cut])
			c.conn.Close() // FIN, or RST when an echo of it was not read
			c = s.open(t, path)
			c.write(whole[:cut])
			reset(c.conn)
		}
	}
	eventually(t, "all have ended", func() bool { st := s.Stats(); return st.Closed[ReasonEOF]+st.Closed[ReasonReset] == 2*n })
	if got := s.closed(ReasonEOF); got == 0 || s.closed(ReasonReset) < n {
		t.Errorf("%d by FIN, %d by RST", got, s.closed(ReasonReset))
	}
	check()
}

func TestGarbageOnManyConnections(t *testing.T) {
	s := serve(t, Config{Loops: 2, CloseTimeout: 100 * time.Millisecond}, nil)
	check := s.calm(t)
	rnd := rand.New(rand.NewSource(20251123))
	var wg sync.WaitGroup
	for i := range 200 {
		b := make([]byte, 1+rnd.Intn(5000))
		rnd.Read(b)
		c := s.dial(t)
		switch i % 4 {
		case 0: // from the first byte
		case 1: // behind a handshake
			b = append([]byte(request("/echo")), b...)
		case 2: // in frames with good headers
			in := []byte(request("/echo"))
			for len(b) > 0 {
				n := min(len(b), rnd.Intn(300))
				op := []ws.OpCode{0, 1, 2, 9, 10}[rnd.Intn(5)]
				if op > 2 {
					n = min(n, 125)
				}
				in = frame.AppendMasked(in, op > 2 || rnd.Intn(2) == 0, op, [4]byte{b[0]}, b[:n])
				b = b[max(1, n):]
			}
			b = in
		case 3: // what looks like HTTP
			b = append([]byte("GET / HTTP/1.1\r\nHost: a\r\n"), b...)
		}
		cuts := []int{rnd.Intn(len(b)), len(b)}
		wg.Go(func() {
			from := 0
			for _, to := range cuts {
				c.Write(b[from:max(from, to)])
				from = max(from, to)
			}
			c.CloseWrite()
			io.Copy(io.Discard, c)
			c.Close()
		})
	}
	wg.Wait()
	check()
}

func TestManyMoreConnectionsThanAllowed(t *testing.T) {
	const limit = 100
	tries := 20_000
	if raceEnabled || testing.Short() {
		tries = 2000
	}
	s := serve(t, Config{Loops: 2, MaxConnections: limit, CloseTimeout: 200 * time.Millisecond}, nil)
	check := s.calm(t)
	var held []*client
	for range limit {
		held = append(held, s.open(t, "/echo"))
	}
	var wg sync.WaitGroup
	var mu sync.Mutex
	answers := map[string]int{}
	for range 8 {
		wg.Go(func() {
			for range tries / 8 {
				c, err := net.Dial("tcp", s.addr)
				if err != nil {
					t.Error(err)
					return
				}
				c.SetDeadline(time.Now().Add(patience))
				b, _ := io.ReadAll(c)
				c.Close()
				mu.Lock()
				answers[string(b[:min(12, len(b))])]++
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	if answers["HTTP/1.1 503"] != tries || len(answers) != 1 {
		t.Errorf("%v", answers)
	}
	for _, c := range held {
		c.echoes(ws.OpText, []byte("undisturbed"))
	}
	for _, c := range held {
		c.conn.Close()
	}
	eventually(t, "all have gone", func() bool { return s.Stats().Connections == 0 })
	check()
	if n := s.closed(ReasonFull); n != uint64(tries) {
		t.Errorf("%d were refused for being too many, want %d", n, tries)
	}
}

// TestMoreConnectionsThanDescriptors runs a server in a process of its own,
// with few descriptors: what has no room waits in the kernel's queue, costs no
// processor meanwhile, and is served when descriptors come back.
func TestMoreConnectionsThanDescriptors(t *testing.T) {
	cmd := exec.Command(os.Args[0], "-test.run=^TestHelperWithFewDescriptors$", "-test.v=false")
	cmd.Env = append(os.Environ(), "WSPOLL_FEW_DESCRIPTORS=64", "GOCOVERDIR="+t.TempDir())
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	pipe, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	watch := time.AfterFunc(2*patience, func() { cmd.Process.Kill() })
	defer watch.Stop()
	out := bufio.NewScanner(pipe)
	ask := func(what string) string {
		t.Helper()
		if what != "" {
			io.WriteString(in, what+"\n")
		}
		if !out.Scan() {
			t.Fatalf("the child said nothing to %q", what)
		}
		return out.Text()
	}
	s := &testServer{addr: ask("")}
	const tries = 200
	var all []*client
	for range tries {
		h := hello("/echo")
		c := &client{t: t, conn: s.dial(t)}
		c.write(handshake.AppendRequest(nil, h))
		all = append(all, c)
	}
	if got := ask("wait until starved"); got != "starved" {
		t.Fatal(got)
	}
	before, _ := strconv.Atoi(ask("cpu"))
	timer := time.NewTimer(300 * time.Millisecond) // time is the subject: what is used up in it
	<-timer.C
	after, _ := strconv.Atoi(ask("cpu"))
	if used := time.Duration(after - before); used > 150*time.Millisecond {
		t.Errorf("while out of descriptors the server used %v of processor in 300ms", used)
	}
	served := 0
	for _, c := range all { // in the order of their coming: each leaves and makes room
		if err := c.fill(); err != nil {
			t.Fatalf("connection %d: %v", served, err)
		}
		if !bytes.HasPrefix(c.in, []byte("HTTP/1.1 101 ")) {
			t.Fatalf("connection %d: %q", served, c.in)
		}
		served++
		c.conn.Close()
	}
	if got := ask("wait until empty"); got != "empty" {
		t.Error(got)
	}
	in.Close()
	if err := cmd.Wait(); err != nil {
		t.Errorf("the child: %v", err)
	}
	if served != tries {
		t.Errorf("%d of %d were served", served, tries)
	}
}

// TestHelperWithFewDescriptors is the child of the test above.
func TestHelperWithFewDescriptors(t *testing.T) {
	few, _ := strconv.Atoi(os.Getenv("WSPOLL_FEW_DESCRIPTORS"))
	if few == 0 {
		t.Skip("runs only as the child process of TestMoreConnectionsThanDescriptors")
	}
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: uint64(few), Max: uint64(few)}); err != nil {
		t.Fatal(err)
	}
	s := serve(t, Config{Loops: 1}, nil)
	fmt.Println(s.addr)
	for in := bufio.NewScanner(os.Stdin); in.Scan(); {
		switch in.Text() {
		case "wait until starved":
			eventually(t, "starved", func() bool { return s.Stats().Starved > 0 })
			fmt.Println("starved")
		case "wait until empty":
			eventually(t, "empty", func() bool { return s.Stats().Connections == 0 })
			fmt.Println("empty")
		case "cpu":
			var u unix.Rusage
			if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
				t.Fatal(err)
			}
			fmt.Println(u.Utime.Nano() + u.Stime.Nano())
		}
	}
}

// A client that answers the ping of the server but lets its bytes drip.
func TestBytesThatDripAreServedLikeOthers(t *testing.T) {
	s := serve(t, Config{}, nil)
	check := s.calm(t)
	c := s.open(t, "/echo")
	c.conn.(*net.TCPConn).SetNoDelay(true)
	payload := binary.BigEndian.AppendUint64(nil, 0x0123456789abcdef)
	f := masked(true, ws.OpBinary, payload)
	for range 50 {
		for i := range f {
			c.write(f[i : i+1])
		}
	}
	for range 50 {
		if _, got := c.message(); !bytes.Equal(got, payload) {
			t.Fatalf("%x", got)
		}
	}
	c.conn.Close()
	check()
}
