package bench

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Contestant is a server that Compare can start.
type Contestant struct {
	Name  string   `json:"name"`
	About string   `json:"about"`
	Args  []string `json:"command"` // the program and its arguments; {port} stands for a free port

	// Push is the command of the same server, or of one like it, that sends
	// what one connection sends to all others; nil if there is none. PushPath
	// takes the place of the path /wshandler in its URL.
	Push     []string `json:"push_command,omitempty"`
	PushPath string   `json:"-"`

	// TCP: with {port}, that it echoes bare TCP. A server without {port}
	// prints its URL, ws:// or tcp://, at the beginning of its first line.
	TCP bool `json:"tcp,omitempty"`

	// Config is the text of a file that the program reads: {config} in Args is
	// its path, {port} and {dir}, a directory of its own, are replaced in it.
	Config string `json:"config,omitempty"`
}

const portMark = "{port}"

// ParseContestant reads 'name=command {port}', or 'tcp:name=command {port}'
// for an echo of bare TCP. Blanks separate the words of the command; there is
// no shell.
func ParseContestant(s string) (Contestant, error) {
	name, command, ok := strings.Cut(s, "=")
	name, tcp := strings.CutPrefix(name, "tcp:")
	args := strings.Fields(command)
	if !ok || name == "" || len(args) == 0 || strings.ContainsAny(name, " \t,") {
		return Contestant{}, fmt.Errorf("%q is not like 'name=./server {port}' or 'tcp:name=./echo {port}'", s)
	}
	if tcp && !strings.Contains(command, portMark) {
		return Contestant{}, fmt.Errorf("%q: the command of a bare TCP echo needs a %s", s, portMark)
	}
	return Contestant{Name: name, About: strings.Join(args, " "), Args: args, TCP: tcp}, nil
}

const (
	startLimit = 15 * time.Second // for a server to come up
	endLimit   = 5 * time.Second  // and to end after SIGTERM
)

// contestProcess is a server that runs.
type contestProcess struct {
	cmd   *exec.Cmd
	url   string
	dir   string // of its file; "": none
	in    io.Writer
	lines chan string   // of its stdout; those that nobody waits for are dropped
	last  *lastLine     // of its stderr
	ended chan struct{} // closed when it has ended
	err   error         // how; after ended
}

// launch starts a server and waits until it can be connected to.
func launch(ctx context.Context, who *Contestant, pin *Pinning) (*contestProcess, error) {
	args, port, dir, err := who.prepare()
	if err != nil {
		return nil, err
	}
	p := &contestProcess{cmd: exec.Command(args[0], args[1:]...), dir: dir, lines: make(chan string, 16), last: &lastLine{}, ended: make(chan struct{})}
	p.cmd.Stdout = &lineWriter{to: p.lines}
	p.cmd.Stderr = p.last
	p.cmd.WaitDelay = time.Second
	// Neither our settings nor the number of our processors are the server's.
	p.cmd.Env = slices.DeleteFunc(os.Environ(), func(s string) bool {
		return strings.HasPrefix(s, "GOMAXPROCS=") || strings.HasPrefix(s, "WSPOLL_")
	})
	// Ctrl-C is for this process, which then ends its servers; they do not
	// outlive it either.
	p.cmd.SysProcAttr = &unix.SysProcAttr{Setpgid: true, Pdeathsig: unix.SIGKILL}
	if p.in, err = p.cmd.StdinPipe(); err != nil {
		p.removeDir()
		return nil, err
	}
	if err := pin.start(p.cmd); err != nil {
		p.removeDir()
		return nil, fmt.Errorf("it cannot be started: %w", err)
	}
	go func() {
		p.err = p.cmd.Wait()
		close(p.ended)
	}()
	if port == 0 {
		err = p.announced(ctx)
	} else {
		scheme := "ws"
		if who.TCP {
			scheme = "tcp"
		}
		p.url = fmt.Sprintf("%s://127.0.0.1:%d/", scheme, port)
		err = p.answers(ctx, port)
	}
	if err != nil {
		p.end()
		return nil, err
	}
	return p, nil
}

// prepare chooses a port, 0 when none is asked for, and writes the
// contestant's file into a directory, "" when it has none.
func (who *Contestant) prepare() (args []string, port int, dir string, err error) {
	if strings.Contains(strings.Join(who.Args, " ")+who.Config, portMark) {
		if port, err = freePort(); err != nil {
			return nil, 0, "", err
		}
	}
	marks := []string{portMark, strconv.Itoa(port)}
	if who.Config != "" {
		if dir, err = os.MkdirTemp("", "wspoll-compare"); err != nil {
			return nil, 0, "", err
		}
		path := filepath.Join(dir, "config")
		marks = append(marks, dirMark, dir, configMark, path)
		if err := os.WriteFile(path, []byte(strings.NewReplacer(marks...).Replace(who.Config)), 0o600); err != nil {
			return nil, 0, "", errors.Join(err, os.RemoveAll(dir))
		}
	}
	filled := strings.NewReplacer(marks...)
	for _, a := range who.Args {
		args = append(args, filled.Replace(a))
	}
	return args, port, dir, nil
}

// announced waits for the URL that the server prints.
func (p *contestProcess) announced(ctx context.Context) error {
	line, err := p.line(ctx)
	if err != nil {
		return err
	}
	url, _, _ := strings.Cut(line, " ")
	// What a person reads as localhost is this address; a resolver may say another.
	p.url = strings.Replace(url, "://localhost:", "://127.0.0.1:", 1)
	if _, err := ParseTarget(p.url, false); err != nil {
		return fmt.Errorf("its first line is %q, not a URL like ws://127.0.0.1:8002/", line)
	}
	return nil
}

// line waits for a line of stdout.
func (p *contestProcess) line(ctx context.Context) (string, error) {
	limit := time.NewTimer(startLimit)
	defer limit.Stop()
	select {
	case line := <-p.lines:
		return line, nil
	case <-p.ended:
		return "", p.whyEnded()
	case <-limit.C:
		return "", fmt.Errorf("it has printed nothing for %s", startLimit)
	case <-ctx.Done():
		return "", ctx.Err()
	}
}

// ask writes a line to the server's stdin and waits for one in return.
func (p *contestProcess) ask(ctx context.Context, word string) (string, error) {
	if _, err := fmt.Fprintln(p.in, word); err != nil {
		return "", err
	}
	return p.line(ctx)
}

// answers waits until the port takes connections.
func (p *contestProcess) answers(ctx context.Context, port int) error {
	addr := &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: port}
	limit := time.NewTimer(startLimit)
	defer limit.Stop()
	again := time.NewTicker(10 * time.Millisecond)
	defer again.Stop()
	for {
		conn, err := net.DialTCP("tcp4", nil, addr)
		if err == nil {
			return conn.Close()
		}
		select {
		case <-again.C:
		case <-p.ended:
			return p.whyEnded()
		case <-limit.C:
			return fmt.Errorf("it does not listen on port %d within %s", port, startLimit)
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// hasEnded is asked when something went wrong with the connections: they may
// end a moment before the process has.
func (p *contestProcess) hasEnded() bool {
	select {
	case <-p.ended:
		return true
	case <-time.After(200 * time.Millisecond):
		return false
	}
}

// whyEnded says how a server ended that should not have.
func (p *contestProcess) whyEnded() error {
	how := "status 0"
	if p.err != nil {
		how = p.err.Error()
	}
	if said := p.last.String(); said != "" {
		how += ": " + said
	}
	return fmt.Errorf("it ended by itself with %s", how)
}

// end ends the server, by force if it does not obey.
func (p *contestProcess) end() {
	defer p.removeDir()
	p.cmd.Process.Signal(unix.SIGTERM) // an error means that it has ended
	limit := time.NewTimer(endLimit)
	defer limit.Stop()
	select {
	case <-p.ended:
	case <-limit.C:
		p.cmd.Process.Kill()
		<-p.ended
	}
}

func (p *contestProcess) removeDir() {
	if p.dir != "" {
		os.RemoveAll(p.dir)
	}
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

// lineWriter sends each line that is written to it, unless the channel is full.
type lineWriter struct {
	to   chan<- string
	part []byte
}

func (w *lineWriter) Write(p []byte) (int, error) {
	w.part = append(w.part, p...)
	for {
		line, rest, ok := bytes.Cut(w.part, []byte("\n"))
		if !ok {
			if len(w.part) > 64<<10 {
				w.part = nil
			}
			return len(p), nil
		}
		select {
		case w.to <- string(line):
		default:
		}
		w.part = rest
	}
}

// lastLine keeps the last line that is written to it.
type lastLine struct {
	mu   sync.Mutex
	text []byte
}

func (w *lastLine) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.text = append(w.text, p...)
	w.text = slices.Clone(w.text[max(0, len(w.text)-1000):])
	return len(p), nil
}

func (w *lastLine) String() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	t := bytes.TrimSpace(w.text)
	return string(t[bytes.LastIndexByte(t, '\n')+1:])
}

// Pinning keeps the server and the client on processors of their own, of all
// that there are.
type Pinning struct{ server, client, all int }

// pinMark is where the program that was begun again finds its Pinning.
const pinMark = "WSPOLL_COMPARE_PROCESSORS"

// Pin puts this process on the second of the processors that it may use; its
// servers will be on the first. For that the program begins again, with the
// same arguments, so that no thread is left elsewhere: call it before anything
// that cannot be done twice.
func Pin() (*Pinning, error) {
	p := &Pinning{}
	if s := os.Getenv(pinMark); s != "" {
		_, err := fmt.Sscanf(s, "%d,%d,%d", &p.server, &p.client, &p.all)
		return p, err
	}
	runtime.LockOSThread() // until exec
	defer runtime.UnlockOSThread()
	var may unix.CPUSet
	if err := unix.SchedGetaffinity(0, &may); err != nil {
		return nil, fmt.Errorf("sched_getaffinity: %w", err)
	}
	var cpus []int
	for i := range len(may) * 64 {
		if may.IsSet(i) {
			cpus = append(cpus, i)
		}
	}
	if len(cpus) < 2 {
		return nil, errors.New("--pin needs two processors, and this process may use only one")
	}
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	if err := onProcessor(cpus[1]); err != nil {
		return nil, err
	}
	env := append(os.Environ(), fmt.Sprintf("%s=%d,%d,%d", pinMark, cpus[0], cpus[1], len(cpus)))
	return nil, fmt.Errorf("%s cannot be begun again: %w", self, unix.Exec(self, os.Args, env))
}

// onProcessor puts the calling thread on a processor.
func onProcessor(cpu int) error {
	var set unix.CPUSet
	set.Set(cpu)
	if err := unix.SchedSetaffinity(0, &set); err != nil {
		return fmt.Errorf("sched_setaffinity to processor %d: %w", cpu, err)
	}
	return nil
}

// besideClient is for a server that is to be on the client's processor.
func (p *Pinning) besideClient() *Pinning {
	if p == nil {
		return nil
	}
	return &Pinning{server: p.client, client: p.client, all: p.all}
}

// start starts a command on the server's processor. A child begins where the
// thread is that forks it.
func (p *Pinning) start(cmd *exec.Cmd) error {
	if p == nil {
		return cmd.Start()
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := onProcessor(p.server); err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return errors.Join(err, onProcessor(p.client))
	}
	if err := onProcessor(p.client); err != nil {
		cmd.Process.Kill()
		cmd.Wait()
		return err
	}
	return nil
}
