package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"wspoll/bench"

	"github.com/spf13/cobra"
)

// compareOptions are the flags of bench compare.
type compareOptions struct {
	only     []string
	cases    []string
	commands []string
	peers    string
	baseline string
	rounds   int
	seconds  float64
	idle     int
	pin      bool
	quick    bool
	proxy    bool
	json     string

	self        []string // the words before serve
	collector   []string // the words of the hidden commands
	reverse     []string
	hasBaseline bool // --baseline was given
}

// The servers that are this program itself.
const (
	compareOurs  = "wspoll"
	compareFloor = "floor"
)

// quickServers are those of --quick, without --only.
var quickServers = []string{compareOurs, compareFloor, "gorilla", "gobwas"}

func compareCommand() *cobra.Command {
	var o compareOptions
	cmd := &cobra.Command{
		Use:   "compare",
		Short: "Measure several servers in turn: this one, other libraries, a bare TCP echo, your own",
		Long: `Measure several servers in turn, in interleaved rounds, and print a table for each case:
throughput, CPU of the server for each message, memory for each idle connection.

The servers are wspoll; floor, a bare TCP echo on the same loops; those of bench/peers in
the source tree, built here unless --peers names the program; and each --command. What counts
is the ratio within a run, because machines drift.

With --proxy proxies are measured, each in front of the same backend: wspoll proxy in both
modes; bare, a relay of TCP on the same loops; nginx and HAProxy, if they are installed; and
the reverse proxy of Go's standard library. In a --command {backend} is the backend's host:port.`,
		Args: unknownCommand,
	}
	f := cmd.Flags()
	f.SortFlags = false
	f.StringSliceVar(&o.only, "only", nil, "names of the servers to measure; repeatable")
	f.StringSliceVar(&o.cases, "case", nil, "cases to measure, by name or its beginning: echo-32, echo-1k, echo-16k, echo-32-d16, echo-1m, push, handshake, idle, gc; with --proxy echo-32, echo-1k, echo-64k, handshake, idle, generations; repeatable")
	f.StringArrayVar(&o.commands, "command", nil, "one more server, 'name=./program {port}', or 'tcp:name=./program {port}' for a bare TCP echo; without {port} it must print its URL; repeatable")
	f.StringVar(&o.peers, "peers", "", "the program built from bench/peers/servers (default: built here, in the source tree)")
	f.StringVar(&o.baseline, "baseline", "gorilla", "server that the others are compared with (with --proxy: wspoll)")
	f.IntVar(&o.rounds, "rounds", 5, "rounds of each case")
	f.Float64Var(&o.seconds, "seconds", 1.5, "time of one measurement")
	f.IntVar(&o.idle, "idle", 15000, "connections of the cases idle, gc and generations (with --proxy: 5000)")
	f.BoolVar(&o.pin, "pin", false, "server and client each on a processor of its own")
	f.BoolVar(&o.quick, "quick", false, "less of everything, to see that it works: one round of 0.3 s, fewer connections and servers")
	f.BoolVar(&o.proxy, "proxy", false, "measure proxies in front of a backend")
	f.StringVar(&o.json, "json", "", "file for the figures of all rounds, - for stdout instead of the tables")
	collector := &cobra.Command{
		Use:    "collector",
		Short:  "Serve, and collect garbage when told to (what the case gc starts)",
		Hidden: true,
		Args:   unknownCommand,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
			defer stop()
			return failed(bench.ServeCollecting(ctx, os.Stdin, cmd.OutOrStdout()))
		},
	}
	reverse := &cobra.Command{
		Use:    "reverse-proxy",
		Short:  "The reverse proxy of Go's standard library (what --proxy starts)",
		Hidden: true,
		Args:   cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
			defer stop()
			return failed(bench.ServeReverseProxy(ctx, args[0], cmd.OutOrStdout()))
		},
	}
	cmd.AddCommand(collector, reverse)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		self, err := os.Executable()
		if err != nil {
			return failed(err)
		}
		o.self = []string{self}
		o.collector = append([]string{self}, strings.Fields(collector.CommandPath())[1:]...)
		o.reverse = append([]string{self}, strings.Fields(reverse.CommandPath())[1:]...)
		o.hasBaseline = f.Changed("baseline")
		if o.proxy {
			if !f.Changed("idle") {
				o.idle = 5000
			}
			if !o.hasBaseline {
				o.baseline = compareOurs
			}
		}
		if o.quick {
			if !f.Changed("rounds") {
				o.rounds = 1
			}
			if !f.Changed("seconds") {
				o.seconds = 0.3
			}
		}
		return compare(cmd.OutOrStdout(), cmd.ErrOrStderr(), &o)
	}
	return cmd
}

// check refuses values that make no sense, and reads those of --command and --case.
func (o *compareOptions) check() (extra []bench.Contestant, cases []bench.CompareCase, err error) {
	bad := func(flag string, value any, want string) error {
		return &badValue{flag: flag, value: fmt.Sprint(value), want: want}
	}
	switch {
	case o.rounds < 1 || o.rounds > 1000:
		return nil, nil, bad("rounds", o.rounds, "from 1 to 1000")
	case !(o.seconds >= 0.05 && o.seconds <= 3600):
		return nil, nil, bad("seconds", o.seconds, "from 0.05 to 3600")
	case o.idle < 1 || o.idle > 1<<24:
		return nil, nil, bad("idle", o.idle, "1 or more")
	}
	for _, c := range o.commands {
		s, err := bench.ParseContestant(c)
		if err != nil {
			return nil, nil, fmt.Errorf("--command %w", err)
		}
		extra = append(extra, s)
	}
	all := bench.CompareCases(o.idle, o.quick)
	if o.proxy {
		all = bench.ProxyCases(o.idle, o.quick)
	}
	if cases, err = bench.PickCases(all, o.cases); err != nil {
		return nil, nil, fmt.Errorf("--case: %w", err)
	}
	return extra, cases, nil
}

func compare(stdout, stderr io.Writer, o *compareOptions) error {
	if _, _, err := o.check(); err != nil {
		return err
	}
	var pinning *bench.Pinning
	if o.pin {
		var err error
		if pinning, err = bench.Pin(); err != nil {
			return failed(err)
		}
	}
	if err := o.limitIdle(stderr); err != nil {
		return failed(err)
	}
	extra, cases, err := o.check() // again, with that limit
	if err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	dir, err := os.MkdirTemp("", "wspoll-compare")
	if err != nil {
		return failed(err)
	}
	defer os.RemoveAll(dir)
	servers, err := o.servers(ctx, stderr, dir, extra)
	switch {
	case ctx.Err() != nil:
		return failed(errInterrupted)
	case err != nil:
		return failed(err)
	}
	if servers, err = o.pick(servers, extra); err != nil {
		return err
	}
	out := stdout
	var file io.WriteCloser
	switch o.json {
	case "":
	case "-":
		out = io.Discard
	default: // now, not when everything is measured
		if file, err = os.Create(o.json); err != nil {
			return failed(fmt.Errorf("--json cannot be written: %w", err))
		}
		defer file.Close()
	}

	var backend *bench.Contestant
	floor := compareFloor
	if o.proxy {
		backend, floor = o.backend(), compareBare
	}
	progress := &compareProgress{w: stderr, terminal: isTerminal(stderr), rounds: o.rounds}
	all := bench.Compare(ctx, &bench.CompareOptions{
		Servers: servers, Cases: cases, Rounds: o.rounds, Interval: time.Duration(o.seconds * float64(time.Second)),
		Collector: bench.Contestant{Name: compareOurs, Args: o.collector}, Backend: backend,
		Baseline: o.baseline, Floor: floor, Pinning: pinning, Command: os.Args,
		Begin:    func(all *bench.Comparison) { all.WriteTitle(out) },
		Latency:  (*bench.Client).TakeLatency,
		Progress: progress.show,
		CaseDone: func(c *bench.ComparedCase) {
			progress.clear()
			c.WriteText(out)
		},
	})
	progress.clear()
	if err := all.WriteNote(out); err != nil {
		return failed(err)
	}
	if o.json == "-" {
		err = all.WriteJSON(stdout)
	} else if file != nil {
		err = errors.Join(all.WriteJSON(file), file.Close())
	}
	if err != nil {
		return failed(fmt.Errorf("--json cannot be written: %w", err))
	}
	if all.Interrupted {
		return failed(errInterrupted)
	}
	if lines := all.Failures(); len(lines) > 0 {
		return failed(errors.New(strings.Join(lines, "; ")))
	}
	return nil
}

var errInterrupted = errors.New("interrupted")

// limitIdle sees that the connections of --idle fit into the open-files limit,
// here and in the servers, which inherit it.
func (o *compareOptions) limitIdle(stderr io.Writer) error {
	files, err := raiseFileLimit()
	if err != nil {
		return err
	}
	// Once more: Go gives its children the limit that it found, unless it was set.
	var limit syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return fmt.Errorf("the limit of open files cannot be read: %w", err)
	}
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &limit); err != nil {
		return fmt.Errorf("the limit of open files cannot be set: %w", err)
	}
	most := max(1, files-2*sparedFiles)
	if o.proxy {
		most = max(1, (files-2*sparedFiles)/2) // a tunnel has two
	}
	if o.idle > most {
		fmt.Fprintf(stderr, "--idle %d: the open-files limit leaves room for %d (ulimit -Hn)\n", o.idle, most)
		o.idle = most
	}
	return nil
}

// servers are all that there are here; dir is for what must be built.
func (o *compareOptions) servers(ctx context.Context, stderr io.Writer, dir string, extra []bench.Contestant) ([]bench.Contestant, error) {
	if o.proxy {
		return append(o.proxies(stderr), extra...), nil
	}
	serve := func(flags ...string) []string {
		return append(append(slices.Clone(o.self), "serve", "--listen", "127.0.0.1:0", "--log-level", "warn"), flags...)
	}
	all := []bench.Contestant{
		{
			Name: compareOurs, About: "this program", Args: serve(),
			Push: serve("--topic-open", "push"), PushPath: "/topics/push",
		},
		{Name: compareFloor, About: "bare TCP on the same loops", Args: serve("--bare-echo"), Push: serve("--bare-push"), TCP: true},
	}
	needed := func(name string) bool { return len(o.only) == 0 && !o.quick || slices.Contains(o.only, name) }
	others := len(o.only) == 0 // whether peers are needed
	for _, n := range o.only {
		own := n == compareOurs || n == compareFloor || n == bench.NpmName
		others = others || !own && !slices.ContainsFunc(extra, func(e bench.Contestant) bool { return e.Name == n })
	}
	wd, err := os.Getwd()
	if err != nil {
		return nil, err
	}
	tree := bench.FindPeers(wd)
	binary := o.peers
	if binary == "" && others {
		if tree == "" {
			fmt.Fprintln(stderr, "without the servers of other libraries: this is not the source tree, and there is no --peers")
		} else {
			fmt.Fprintf(stderr, "building the servers of other libraries in %s\n", tree)
			binary = filepath.Join(dir, "servers")
			if err := bench.BuildPeers(ctx, tree, binary, stderr); err != nil {
				return nil, err
			}
		}
	}
	if binary != "" && others {
		peers, err := bench.Peers(ctx, binary)
		if err != nil {
			return nil, fmt.Errorf("--peers: %w", err)
		}
		all = append(all, peers...)
	}
	if tree != "" && needed(bench.NpmName) {
		if npm, err := bench.NpmPeer(tree); err != nil {
			fmt.Fprintf(stderr, "without %s: %v\n", bench.NpmName, err)
		} else {
			all = append(all, npm)
		}
	}
	return append(all, extra...), nil
}

// pick takes those of --only, or of --quick, and checks --baseline.
func (o *compareOptions) pick(all, extra []bench.Contestant) ([]bench.Contestant, error) {
	var names []string
	for _, s := range all {
		if slices.Contains(names, s.Name) {
			return nil, fmt.Errorf("--command: there is a server called %s already", s.Name)
		}
		names = append(names, s.Name)
	}
	for _, n := range o.only {
		if !slices.Contains(names, n) {
			return nil, fmt.Errorf("--only: no server is called %q; there are %s", n, strings.Join(names, ", "))
		}
	}
	chosen := o.only
	if len(chosen) == 0 && o.quick {
		chosen = slices.Clone(quickServers)
		if o.proxy {
			chosen = slices.Clone(quickProxies)
		}
		for _, e := range extra {
			chosen = append(chosen, e.Name)
		}
	}
	if len(chosen) > 0 {
		all = slices.DeleteFunc(all, func(s bench.Contestant) bool { return !slices.Contains(chosen, s.Name) })
	}
	if o.hasBaseline && !slices.ContainsFunc(all, func(s bench.Contestant) bool { return s.Name == o.baseline }) {
		return nil, &badValue{flag: "baseline", value: o.baseline, want: "one of the servers that are measured"}
	}
	return all, nil
}

// compareProgress says on stderr what is being measured: on a terminal in one
// line that changes, else a line for each case.
type compareProgress struct {
	w        io.Writer
	terminal bool
	rounds   int
	last     string
}

func (p *compareProgress) show(c *bench.CompareCase, round int, server string) {
	if p.terminal {
		fmt.Fprintf(p.w, "\r\x1b[K%s, round %d of %d: %s", c.Name, round+1, p.rounds, server)
	} else if p.last != c.Name {
		fmt.Fprintf(p.w, "measuring %s\n", c.Name)
	}
	p.last = c.Name
}

func (p *compareProgress) clear() {
	if p.terminal && p.last != "" {
		fmt.Fprint(p.w, "\r\x1b[K")
	}
}

// isTerminal reports whether w is a terminal.
func isTerminal(w io.Writer) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	st, err := f.Stat()
	return err == nil && st.Mode()&os.ModeCharDevice != 0
}
