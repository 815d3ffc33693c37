// Measure prints what a message, an idle connection and a handshake cost the
// server, beside a bare TCP echo on the same loops and, if one is given, a bare
// echo in C:
//
//	go run ./measure                       # in bench/peers; about four minutes
//	go run ./measure --only idle --rounds 1
//	go run ./measure --floor './cecho'     # a program that echoes TCP on the port in $1
//
// Each server runs alone on the first processor, this program on the second.
// Rounds are interleaved (A B C, A B C, …), because a shared machine drifts;
// what counts is the ratio within a run. CPU is the server's own, from
// /proc/PID/task/*/schedstat: steadier than throughput.
package main

import (
	"bufio"
	"flag"
	"fmt"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"golang.org/x/sys/unix"
)

var (
	rounds  = flag.Int("rounds", 5, "interleaved rounds of each case")
	seconds = flag.Float64("seconds", 1.5, "time of one measurement")
	only    = flag.String("only", "", "only cases whose name begins so: echo, handshake, idle, gc")
	floor   = flag.String("floor", "", "a program that echoes TCP on 127.0.0.1, on the port in its argument")
	binary  = flag.String("wspoll", "", "the wspoll program (default: built from the module around this one)")
	idle    = flag.Int("idle", 15000, "connections of the idle case")
)

// processors is where the process that is pinned finds how many there are.
const processors = "WSPOLL_MEASURE_PROCESSORS"

func main() {
	if len(os.Args) > 2 && os.Args[1] == "pin" {
		pin(os.Args[2], os.Args[3:])
	}
	if len(os.Args) > 2 && os.Args[1] == "peer" {
		peer(os.Args[2])
		return
	}
	flag.Parse()
	if os.Getenv(processors) == "" { // begin again on the second processor
		os.Setenv(processors, fmt.Sprint(runtime.NumCPU()))
		pin(fmt.Sprint(min(1, runtime.NumCPU()-1)), append([]string{os.Args[0]}, os.Args[1:]...))
	}
	signal.Ignore(unix.SIGPIPE)
	if err := run(); err != nil {
		fmt.Fprintln(os.Stderr, "measure:", err)
		os.Exit(1)
	}
}

// pin replaces this process by the program args, on one processor.
func pin(cpu string, args []string) {
	runtime.LockOSThread()
	var set unix.CPUSet
	var n int
	fmt.Sscan(cpu, &n)
	set.Set(n)
	err := unix.SchedSetaffinity(0, &set)
	if err == nil {
		var path string
		if path, err = exec.LookPath(args[0]); err == nil {
			err = unix.Exec(path, args, os.Environ())
		}
	}
	fmt.Fprintln(os.Stderr, "measure: pin:", err)
	os.Exit(1)
}

func run() error {
	if *binary == "" {
		dir, err := os.MkdirTemp("", "wspoll-measure")
		if err != nil {
			return err
		}
		defer os.RemoveAll(dir)
		*binary = filepath.Join(dir, "wspoll")
		build := exec.Command("go", "build", "-o", *binary, "wspoll")
		build.Stderr = os.Stderr
		if err := build.Run(); err != nil {
			return fmt.Errorf("go build wspoll: %w", err)
		}
	}
	self, err := os.Executable()
	if err != nil {
		return err
	}
	self, err = filepath.EvalSymlinks(self)
	if err != nil {
		return err
	}
	fmt.Printf("%s, %s processors, %s, %s\n", kernel(), os.Getenv(processors), runtime.Version(), time.Now().Format(time.DateOnly))
	for _, c := range cases {
		if !strings.HasPrefix(c.name, *only) {
			continue
		}
		if err := c.run(self, c); err != nil {
			return fmt.Errorf("%s: %w", c.name, err)
		}
	}
	return nil
}

func kernel() string {
	var u unix.Utsname
	if unix.Uname(&u) != nil {
		return "Linux"
	}
	return unix.ByteSliceToString(u.Sysname[:]) + " " + unix.ByteSliceToString(u.Release[:])
}

// process is a server that was started for a measurement.
type process struct {
	cmd  *exec.Cmd
	addr *net.TCPAddr
	in   *bufio.Writer
	out  *bufio.Reader
}

// start runs a server on the first processor and waits for the address that
// it prints, or for its port to answer when it was given one.
func start(self string, args ...string) (*process, error) {
	p := &process{cmd: exec.Command(self, append([]string{"pin", "0"}, args...)...)}
	p.cmd.Stderr = os.Stderr
	p.cmd.Env = slices.DeleteFunc(os.Environ(), func(s string) bool { return strings.HasPrefix(s, "GOMAXPROCS=") })
	in, err := p.cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	out, err := p.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	p.in, p.out = bufio.NewWriter(in), bufio.NewReader(out)
	if err := p.cmd.Start(); err != nil {
		return nil, err
	}
	return p, nil
}

// announced reads the address out of the first line: scheme://host:port/…
func (p *process) announced() error {
	line, err := p.out.ReadString('\n')
	if err != nil {
		return fmt.Errorf("%v said no address: %w", p.cmd.Args, err)
	}
	_, rest, _ := strings.Cut(line, "://")
	host := strings.FieldsFunc(rest, func(r rune) bool { return r == '/' || r == ' ' || r == '\n' })
	if len(host) == 0 {
		return fmt.Errorf("%v: no address in %q", p.cmd.Args, line)
	}
	p.addr, err = net.ResolveTCPAddr("tcp4", host[0])
	return err
}

func (p *process) stop() {
	p.cmd.Process.Signal(unix.SIGTERM)
	p.cmd.Wait()
}

// freePort is a port of loopback that nobody uses now.
func freePort() (int, error) {
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		return 0, err
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port, nil
}

// samples are the results of one server in the rounds.
type samples []float64

func (s samples) median() float64 {
	if len(s) == 0 {
		return 0
	}
	t := slices.Sorted(slices.Values(s))
	return (t[(len(t)-1)/2] + t[len(t)/2]) / 2
}

func (s samples) String() string {
	if len(s) == 0 {
		return "-"
	}
	return fmt.Sprintf("%.2f (%.2f-%.2f)", s.median(), slices.Min(s), slices.Max(s))
}

// table prints rows of cells in columns.
func table(rows [][]string) {
	w := tabwriter.NewWriter(os.Stdout, 0, 0, 2, ' ', 0)
	for _, r := range rows {
		fmt.Fprintln(w, strings.Join(r, "\t"))
	}
	w.Flush()
}
