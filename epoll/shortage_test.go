package epoll

import (
	"bufio"
	"encoding/json"
	"net"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

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

	began := time.Now()
	before := ask("?")
	time.Sleep(300 * time.Millisecond) // time is the subject: what it does all by itself
	after := ask("?")
	took := time.Since(began)
	if cpu := after.CPU - before.CPU; cpu > took/10 {
		t.Errorf("starving costs %v of processor time in %v", cpu, took)
	}
	if n := after.Stats.Starved - before.Stats.Starved; n == 0 || n > uint64(3*took/Tick) {
		t.Errorf("accepting was tried %d times in %v, want about once a tick", n, took)
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
