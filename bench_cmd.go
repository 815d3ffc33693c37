package main

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/textproto"
	"os"
	"os/signal"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	"wspoll/bench"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"golang.org/x/sys/unix"
	"golang.org/x/term"
)

// benchOptions are the flags that the scenarios of bench share.
type benchOptions struct {
	connections int
	size        string
	payload     string
	text        bool
	depth       int
	rate        float64
	stalled     int
	publish     bool
	compress    bool
	ramp        float64
	duration    time.Duration
	hold        time.Duration
	messages    uint64
	ping        time.Duration
	timeout     time.Duration
	headers     []string
	protocols   []string
	origin      string
	insecure    bool
	local       []string
	processes   int
	serverPID   int
	thresholds  []string
	json, hdr   string
	html        string
	quiet       bool
}

func benchCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "bench",
		Short: "Load-test a WebSocket server, this one or any other",
		Long: `Load-test a WebSocket server, this one or any other.

The summary goes to stdout, progress to stderr. Exit status 0: done; 1: a --threshold
was missed, or the run failed; 2: nothing could be measured with these arguments.`,
		Args: func(cmd *cobra.Command, args []string) error {
			if len(args) > 0 {
				return fmt.Errorf("%q is not a scenario of bench; see %s --help", args[0], cmd.CommandPath())
			}
			return nil
		},
		RunE: func(cmd *cobra.Command, _ []string) error { return cmd.Help() },
	}
	cmd.AddCommand(
		scenarioCommand("echo", "Send messages and wait for each to come back",
			`Send messages and wait for each to come back, byte for byte.

Closed loop, the default: each reply triggers the next message, --depth of them in flight on
each connection. Open loop, with --rate: messages are sent on schedule whatever the replies
do, and latency counts from the scheduled time, so that a stall of the server is not hidden.`),
		scenarioCommand("connect", "Open connections: handshakes per second, connect and upgrade times",
			`Open connections, upgrade them and close them again, --connections at a time, for --duration.
With --ramp, open that many per second until --connections are open, hold them for --hold,
and close them.`),
		scenarioCommand("idle", "Open connections and hold them: what each costs the server",
			`Open connections, send one message on each (--size 0 for none), and hold them for --hold.
With --server-pid, says what each costs the server: private memory, CPU, threads, descriptors.`),
		scenarioCommand("push", "Listen for what the server pushes: how late, how far apart, what is lost",
			`Open connections that listen. Every message that begins with the stamp "wspoll NUMBER NANOSECONDS "
counts: how late it came, how far the first and the last receiver were apart, what was lost or
out of order. With --publish, one more connection publishes such messages, --rate per second,
to the last URL given (or the only one), from where the server is to push them to all.`),
		compareCommand(),
		pollingCommand(),
		diffCommand(),
	)
	return cmd
}

func scenarioCommand(name, short, long string) *cobra.Command {
	var o benchOptions
	cmd := &cobra.Command{
		Use:   name + " URL...",
		Short: short,
		Long:  long,
		Args:  cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, urls []string) error {
			return o.run(name, urls, cmd.Flags(), cmd.OutOrStdout(), cmd.ErrOrStderr())
		},
	}
	f := cmd.Flags()
	f.SortFlags = false
	f.IntVarP(&o.connections, "connections", "c", 64, "connections at once")
	if name != "connect" {
		f.StringVar(&o.size, "size", "32", "payload bytes of a message, like 32, 16KiB, or a range like 16-4KiB")
		f.StringVar(&o.payload, "payload", "", "file whose content is the payload")
		f.BoolVar(&o.text, "text", false, "send text messages (default: binary)")
	}
	switch name {
	case "echo":
		f.IntVar(&o.depth, "depth", 1, "messages in flight on each connection (closed loop)")
		f.Float64Var(&o.rate, "rate", 0, "messages per second over all connections, sent on schedule (open loop)")
		f.DurationVarP(&o.duration, "duration", "d", 10*time.Second, "how long to measure")
		f.Uint64VarP(&o.messages, "messages", "n", 0, "end after so many replies, if that comes before --duration")
	case "connect":
		f.DurationVarP(&o.duration, "duration", "d", 10*time.Second, "how long to measure, without --ramp")
		f.DurationVar(&o.hold, "hold", 0, "with --ramp: how long to hold the connections")
	case "push":
		f.IntVar(&o.stalled, "stalled", 0, "of the connections, how many read nothing, to see what they cost the others")
		f.BoolVar(&o.publish, "publish", false, "publish through one more connection, to the last URL given")
		f.Float64Var(&o.rate, "rate", 10, "messages published per second")
		f.DurationVarP(&o.duration, "duration", "d", 10*time.Second, "how long to measure")
	case "idle":
		f.DurationVar(&o.hold, "hold", 10*time.Second, "how long to hold the connections")
		f.DurationVar(&o.ping, "ping", 0, "send a ping on each connection so often")
	}
	f.BoolVar(&o.compress, "compress", false, "offer permessage-deflate, compress what is sent, and report bytes on the wire against payload; the made payload is JSON then")
	f.Float64Var(&o.ramp, "ramp", 0, "connections opened per second (default: as fast as they open)")
	f.DurationVar(&o.timeout, "timeout", 10*time.Second, "for a connect, an upgrade, and a reply")
	f.StringArrayVarP(&o.headers, "header", "H", nil, `request header, "Name: value"; repeatable`)
	f.StringSliceVar(&o.protocols, "subprotocol", nil, "subprotocol to offer; repeatable")
	f.StringVar(&o.origin, "origin", "", "Origin header")
	f.BoolVar(&o.insecure, "insecure", false, "accept any certificate of a wss server")
	f.StringSliceVar(&o.local, "local-addr", nil, "source addresses, like 127.0.0.1-127.0.0.50, so that ports do not run out")
	f.IntVar(&o.processes, "processes", 1, "split the load over so many processes, each with its own descriptors, and merge their results")
	f.IntVar(&o.serverPID, "server-pid", 0, "process id of the server, if it runs on this machine: its CPU and memory are reported")
	f.StringArrayVar(&o.thresholds, "threshold", nil, `condition like 'p99<50ms' or 'errors==0'; missed: exit status 1; repeatable`)
	f.StringVar(&o.json, "json", "", "file for the result, - for stdout instead of the summary")
	f.StringVar(&o.hdr, "hdr", "", "file for the latency percentiles (.hgrm)")
	f.StringVar(&o.html, "html", "", "file for a report page")
	f.BoolVarP(&o.quiet, "quiet", "q", false, "no progress")
	return cmd
}

// options turns the flags into what package bench takes.
func (o *benchOptions) options(scenario string, urls []string) (bench.Options, error) {
	b := bench.Options{Scenario: scenario, Duration: o.duration, Messages: o.messages, Server: bench.Process(o.serverPID)}
	b.Config = bench.Config{
		Connections: o.connections, Ramp: o.ramp, Text: o.text, Depth: o.depth, Rate: o.rate, Limit: o.messages,
		Protocols: o.protocols, Origin: o.origin, Ping: o.ping, Timeout: o.timeout,
	}
	b.Compress = o.compress
	b.Subscribe, b.Publish, b.Stalled = scenario == "push", o.publish, o.stalled
	if scenario == "idle" || o.ramp > 0 && scenario == "connect" {
		b.Duration = o.hold
	}
	switch {
	case o.connections < 1 || o.connections > 10_000_000:
		return b, fmt.Errorf("--connections %d: must be from 1 to 10000000", o.connections)
	case scenario == "echo" && (o.depth < 1 || o.depth > 1<<15):
		return b, fmt.Errorf("--depth %d: must be from 1 to %d", o.depth, 1<<15)
	case !(o.rate >= 0 && o.rate <= 1e7): // nor NaN
		return b, fmt.Errorf("--rate %g: must be from 0 to ten million messages per second", o.rate)
	case o.publish && (o.rate == 0 || o.processes > 1):
		return b, errors.New("--publish needs a --rate, and one process")
	case o.publish && o.payload != "":
		return b, errors.New("--payload: a message that is published begins with its stamp; say its --size")
	case o.publish && strings.Contains(o.size, "-"):
		return b, fmt.Errorf("--size %s: with --publish all messages have one size", o.size)
	case o.stalled < 0 || o.stalled >= o.connections:
		return b, fmt.Errorf("--stalled %d: must be fewer than --connections, %d", o.stalled, o.connections)
	case !(o.ramp >= 0 && o.ramp <= 1e6):
		return b, fmt.Errorf("--ramp %g: must be from 0 to a million connections per second", o.ramp)
	case strings.ContainsAny(o.origin+strings.Join(o.protocols, ""), "\r\n"):
		return b, errors.New("--origin and --subprotocol must be one line")
	case o.messages > 0 && o.messages < uint64(o.processes):
		return b, fmt.Errorf("--messages %d: must be at least one for each of the %d processes", o.messages, o.processes)
	case o.processes < 1 || o.processes > 256:
		return b, fmt.Errorf("--processes %d: must be from 1 to 256", o.processes)
	case o.timeout < 50*time.Millisecond:
		return b, fmt.Errorf("--timeout %s: must be at least 50ms", o.timeout)
	case b.Duration < 0, b.Duration == 0 && scenario != "connect":
		return b, errors.New("the time to measure must be more than 0")
	case o.ping < 0 || o.ping > 0 && o.ping < 50*time.Millisecond:
		return b, fmt.Errorf("--ping %s: must be at least 50ms", o.ping)
	case o.serverPID != 0:
		if _, err := b.Server.CPU(); err != nil {
			return b, fmt.Errorf("--server-pid %d: there is no such process on this machine", o.serverPID)
		}
	}
	for _, u := range urls {
		t, err := bench.ParseTarget(u, o.insecure)
		if err != nil {
			return b, err
		}
		if t.Raw && o.compress {
			return b, fmt.Errorf("--compress: %s is plain TCP, which knows no compression", u)
		}
		b.Targets = append(b.Targets, t)
	}
	var err error
	if b.SizeMin, b.SizeMax, err = parseSizes(o.size); err != nil {
		return b, err
	}
	if o.payload != "" {
		if b.Payload, err = os.ReadFile(o.payload); err != nil {
			return b, fmt.Errorf("--payload: %w", err)
		}
	}
	if len(o.local) > 0 {
		if b.Local, err = bench.ParseLocal(strings.Join(o.local, ",")); err != nil {
			return b, fmt.Errorf("--local-addr: %w", err)
		}
		for _, a := range b.Local {
			// Later the kernel would say the same as when ports have run out.
			probe, err := net.ListenUDP("udp", &net.UDPAddr{IP: a.IP})
			if errors.Is(err, unix.EADDRNOTAVAIL) {
				return b, fmt.Errorf("--local-addr %s: this machine has no such address", a.IP)
			}
			if err == nil {
				probe.Close()
			}
		}
	}
	b.Header, err = parseHeaders(o.headers)
	return b, err
}

// parseSizes reads "32", "16KiB" or "16-4KiB"; nothing means 0.
func parseSizes(s string) (low, high int, err error) {
	if s == "" {
		return 0, 0, nil
	}
	from, to, ranged := strings.Cut(s, "-")
	var a, b byteSize
	if err := a.Set(from); err != nil {
		return 0, 0, fmt.Errorf("--size: %w", err)
	}
	b = a
	if ranged {
		if err := b.Set(to); err != nil {
			return 0, 0, fmt.Errorf("--size: %w", err)
		}
	}
	if b < a || b > 1<<30 {
		return 0, 0, fmt.Errorf("--size %s: a range goes from the smaller to the larger, 1GiB at most", s)
	}
	return int(a), int(b), nil
}

// parseHeaders checks "Name: value" lines and ends each by CRLF.
func parseHeaders(lines []string) ([]byte, error) {
	var out []byte
	for _, l := range lines {
		in := textproto.NewReader(bufio.NewReader(strings.NewReader(l + "\r\n\r\n")))
		if h, err := in.ReadMIMEHeader(); err != nil || len(h) != 1 {
			return nil, fmt.Errorf(`--header %q: must be like "Name: value"`, l)
		}
		out = append(append(out, l...), "\r\n"...)
	}
	return out, nil
}

// run is a scenario from its flags to its exit status.
func (o *benchOptions) run(scenario string, urls []string, flags *pflag.FlagSet, stdout, stderr io.Writer) error {
	b, err := o.options(scenario, urls)
	if err != nil {
		return err
	}
	var limits []bench.Threshold
	for _, t := range o.thresholds {
		l, err := bench.ParseThreshold(t)
		if err != nil {
			return fmt.Errorf("--threshold: %w", err)
		}
		limits = append(limits, l)
	}
	for _, path := range []string{o.json, o.hdr, o.html} {
		if err := writable(path); err != nil {
			return failed(err)
		}
	}
	spareProcessor(1)
	if _, err := raiseFileLimit(); err != nil {
		return failed(err)
	}
	b.Command = commandShown(os.Args[1:])
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()

	var res *bench.Result
	p := newProgress(stderr, o.quiet)
	if o.processes > 1 {
		res, err = runProcesses(ctx, o, scenario, urls, flags, stderr)
	} else {
		b.Progress = p.show
		res, err = bench.Run(ctx, b)
	}
	p.end()
	if err != nil {
		return err
	}
	return o.report(res, limits, stdout)
}

// commandShown is the command as reports repeat it. They are passed around, so what
// a header proves who we are with is left out.
func commandShown(args []string) []string {
	out := []string{"wspoll"}
	for _, a := range args {
		head, line := "", a
		for _, flag := range []string{"--header=", "-H="} {
			if rest, ok := strings.CutPrefix(a, flag); ok {
				head, line = flag, rest
			}
		}
		if rest, ok := strings.CutPrefix(a, "-H"); ok && head == "" {
			head, line = "-H", rest
		}
		name, _, ok := strings.Cut(line, ":")
		switch strings.ToLower(strings.TrimSpace(name)) {
		case "authorization", "proxy-authorization", "cookie":
			if ok {
				a = head + name + ": (not shown)"
			}
		}
		out = append(out, a)
	}
	return out
}

// report writes the result wherever it was asked for and checks the thresholds. A
// file that cannot be written is no reason to lose the rest.
func (o *benchOptions) report(res *bench.Result, limits []bench.Threshold, stdout io.Writer) error {
	var errs []error
	for _, f := range []struct {
		path string
		r    bench.Reporter
	}{{o.json, res.JSON()}, {o.hdr, res.HDR()}, {o.html, res.HTML()}} {
		switch f.path {
		case "":
		case "-":
			errs = append(errs, f.r(stdout))
		default:
			errs = append(errs, writeFile(f.path, f.r))
		}
	}
	if o.json != "-" && o.hdr != "-" && o.html != "-" {
		errs = append(errs, res.Text()(stdout))
	}
	var missed []string
	for _, l := range limits {
		if ok, got := l.Check(res); !ok {
			missed = append(missed, got)
		}
	}
	if len(missed) > 0 {
		errs = append(errs, fmt.Errorf("threshold missed: %s", strings.Join(missed, "; ")))
	}
	return failed(errors.Join(errs...))
}

// writable looks before a run of perhaps an hour whether there can be a file for
// its result. It opens nothing: a reader at the other end of a FIFO would take that
// for all there is.
func writable(path string) error {
	if path == "" || path == "-" {
		return nil
	}
	at := path
	switch st, err := os.Stat(path); {
	case errors.Is(err, fs.ErrNotExist):
		at = filepath.Dir(path)
	case err == nil && st.IsDir():
		return &fs.PathError{Op: "write", Path: path, Err: unix.EISDIR}
	}
	if err := unix.Access(at, unix.W_OK); err != nil {
		return &fs.PathError{Op: "write", Path: path, Err: err}
	}
	return nil
}

func writeFile(path string, r bench.Reporter) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	return errors.Join(r(f), f.Close())
}

// progress shows each interval on stderr: on a terminal one line that changes,
// elsewhere a line each.
type progress struct {
	w        io.Writer
	terminal bool
	quiet    bool
	shown    bool
}

func newProgress(w io.Writer, quiet bool) *progress {
	return &progress{w: w, quiet: quiet, terminal: isTerminal(w)}
}

func (p *progress) show(s bench.Sample) {
	if p.quiet {
		return
	}
	line := fmt.Sprintf("%5.1f s  %d open  %d/s  p50 %.3f ms  p99 %.3f ms  max %.1f ms  errors %d  client CPU %.0f %%",
		s.At, s.Open, s.Messages, s.P50, s.P99, s.Max, s.Errors, 100*s.ClientCPU)
	if s.ServerCPU > 0 {
		line += fmt.Sprintf("  server CPU %.0f %%", 100*s.ServerCPU)
	}
	if p.terminal {
		fmt.Fprintf(p.w, "\r\x1b[K%s", fitting(p.w, line))
	} else {
		fmt.Fprintln(p.w, line)
	}
	p.shown = true
}

// fitting is line without what has no room in a row of the terminal: a longer one
// could not be written over.
func fitting(terminal io.Writer, line string) string {
	f, ok := terminal.(*os.File)
	if !ok {
		return line
	}
	if width, _, err := term.GetSize(int(f.Fd())); err == nil && width > 0 {
		line = line[:min(len(line), width-1)]
	}
	return line
}

func (p *progress) end() {
	if p.shown && p.terminal {
		fmt.Fprintln(p.w)
	}
}

func diffCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "diff BEFORE.json AFTER.json",
		Short: "Compare two results that --json wrote",
		Args:  cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			a, err := bench.ReadResult(args[0])
			if err != nil {
				return err
			}
			b, err := bench.ReadResult(args[1])
			if err != nil {
				return err
			}
			return failed(bench.Diff(a, b)(cmd.OutOrStdout()))
		},
	}
}

// share is what part of n child i of count gets.
func share(n, i, count int) int { return n*(i+1)/count - n*i/count }

func formatFloat(f float64) string { return strconv.FormatFloat(f, 'g', -1, 64) }
