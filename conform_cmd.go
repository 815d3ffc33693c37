package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"wspoll/conform"

	"github.com/spf13/cobra"
)

// conformOptions are the flags of conform.
type conformOptions struct {
	server   string
	only     []string
	list     bool
	json     string
	junit    string
	timeout  time.Duration
	parallel int
	chop     int
	cut      int
	strict   bool
	insecure bool
	origin   string
	headers  []string
}

func conformCommand() *cobra.Command {
	var o conformOptions
	cmd := &cobra.Command{
		Use:   "conform URL | conform --server ADDR",
		Short: "Hold a WebSocket server, or a client, to RFC 6455 and RFC 7692 case by case",
		Long: `Hold a WebSocket server, or a client, to RFC 6455 and RFC 7692 case by case.

With a URL, the cases run against the echo that is there. With --server, clients connect to
ADDR: ws://ADDR/getCaseCount answers with a text message, the number of cases,
ws://ADDR/runCase?case=N&agent=NAME runs one while the client sends back whatever comes, and
ws://ADDR/updateReports?agent=NAME ends it all.

Every case has a verdict: ok, non-strict (the RFC tolerates it, or a SHOULD was missed, or the
right thing came late), failed, unimplemented. The report goes to stdout, with the bytes of
both directions explained for what is not ok; progress goes to stderr. Exit status 1: a case
failed.`,
		Args: cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			for _, name := range []string{"parallel", "cut", "insecure", "origin", "header"} {
				if o.server != "" && cmd.Flags().Changed(name) && !wasFromEnvironment(cmd.Flags(), name) {
					return fmt.Errorf("--%s is about the connections to a URL, and with --server it is the clients that connect", name)
				}
			}
			return o.run(args, cmd.OutOrStdout(), cmd.ErrOrStderr())
		},
	}
	f := cmd.Flags()
	f.SortFlags = false
	f.StringVar(&o.server, "server", "", "listen on this address and test the clients that connect, instead of a server")
	f.SetAnnotation("server", perCall, []string{})
	f.StringArrayVar(&o.only, "only", nil, "run the cases whose id matches a pattern like 'rfc6455-5.*'; repeatable")
	f.BoolVar(&o.list, "list", false, "list the cases and run none; with --server those for clients, with --json for machines")
	f.StringVar(&o.json, "json", "", "file for the results, - for stdout instead of the report")
	f.StringVar(&o.junit, "junit", "", "file for the results as JUnit XML, - for stdout instead of the report")
	f.DurationVar(&o.timeout, "timeout", 2*time.Second, "how long to wait for each thing that must come")
	f.IntVar(&o.parallel, "parallel", 16, "cases at the same time")
	f.IntVar(&o.chop, "chop", 0, "cut all that is sent into pieces of so many bytes; 0: as the cases say")
	f.IntVar(&o.cut, "cut", 0, "run each case again and again, what is sent cut in two, at every so many-th byte; 1: at all, which takes minutes")
	f.BoolVar(&o.strict, "strict", false, "non-strict counts as failed")
	f.BoolVar(&o.insecure, "insecure", false, "accept any certificate of a wss server")
	f.StringVar(&o.origin, "origin", "", "Origin header")
	f.StringArrayVarP(&o.headers, "header", "H", nil, `request header, "Name: value"; repeatable`)
	return cmd
}

// check refuses what makes no sense and returns what the run is done with.
func (o *conformOptions) check(args []string) (conform.Options, error) {
	c := conform.Options{Timeout: o.timeout, Parallel: o.parallel, Chop: o.chop, Cut: o.cut, Origin: o.origin, Header: o.headers}
	switch {
	case o.timeout < 10*time.Millisecond || o.timeout > time.Hour:
		return c, &badValue{flag: "timeout", value: o.timeout.String(), want: "from 10ms to an hour"}
	case o.parallel < 1 || o.parallel > 1024:
		return c, &badValue{flag: "parallel", value: fmt.Sprint(o.parallel), want: "from 1 to 1024"}
	case o.chop < 0 || o.chop > 1<<20:
		return c, &badValue{flag: "chop", value: fmt.Sprint(o.chop), want: "from 0 to 1048576"}
	case o.cut < 0 || o.cut > 1<<20:
		return c, &badValue{flag: "cut", value: fmt.Sprint(o.cut), want: "from 0 to 1048576"}
	case o.cut > 0 && o.chop > 0:
		return c, errors.New("--cut and --chop both say how bytes are cut; give one of them")
	case strings.ContainsAny(o.origin, "\r\n"):
		return c, &badValue{flag: "origin", value: o.origin, want: "one line"}
	case o.json == "-" && o.junit == "-":
		return c, errors.New("--json and --junit cannot both go to stdout")
	case o.list && o.junit != "":
		return c, errors.New("--list has no form for --junit; it has one for --json")
	case len(args) > 0 && o.server != "":
		return c, fmt.Errorf("there is a URL, %s, and --server %s; only one of them can be tested", args[0], o.server)
	case len(args) > 1:
		return c, fmt.Errorf("%s is one URL too many; one server is tested at a time", shown(args[1]))
	case o.server != "" && !isListenAddress(o.server):
		return c, &badValue{flag: "server", value: o.server, want: listenForm}
	case len(args) == 0 && o.server == "" && !o.list:
		return c, errors.New("what is to be tested? give the URL of a server, or --server ADDR for clients to connect to")
	}
	if _, err := parseHeaders(o.headers); err != nil {
		return c, err
	}
	for _, l := range o.headers {
		name, _, _ := strings.Cut(l, ":")
		switch key := http.CanonicalHeaderKey(name); {
		case key == "Sec-Websocket-Protocol": // the cases offer it
		case key == "Origin":
			return c, ownHeader(name, "--origin")
		case key == "Host":
			return c, ownHeader(name, "")
		default:
			if _, own := ownHeaders[key]; own {
				return c, ownHeader(name, "")
			}
		}
	}
	return c, nil
}

func (o *conformOptions) run(args []string, stdout, stderr io.Writer) error {
	opts, err := o.check(args)
	if err != nil {
		return err
	}
	peer := conform.Server
	if o.server != "" {
		peer = conform.Client
	}
	cases, bad := conform.Select(conform.Cases(peer), o.only)
	if bad != "" {
		return fmt.Errorf("--only %s: no case has such an id; see wspoll conform --list", shown(bad))
	}
	if o.list {
		return o.writeList(cases, stdout)
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	p := &conformProgress{w: stderr, terminal: isTerminal(stderr), total: len(cases)}
	began := time.Now()
	var results []conform.Result
	var name string
	if o.server != "" {
		l, err := net.Listen("tcp", o.server)
		if err != nil {
			return failed(listenError("server", o.server, err))
		}
		if err := o.writable(); err != nil {
			return failed(errors.Join(err, l.Close()))
		}
		fmt.Fprintf(stderr, "ws://%s/getCaseCount, /runCase?case=N&agent=NAME with N from 1 to %d, /updateReports?agent=NAME\n", l.Addr(), len(cases))
		results, name = conform.Listen(ctx, l, cases, opts, p.show)
		if name == "" {
			name = "client"
		}
	} else {
		target, err := conform.ParseTarget(args[0], o.insecure)
		if err != nil {
			return err
		}
		name = target.URL
		switch err := conform.Probe(ctx, target, opts); {
		case errors.Is(err, context.Canceled):
			return failed(errors.New("interrupted before the server answered"))
		case err != nil:
			return failed(distrusted(err))
		}
		if err := o.writable(); err != nil {
			return failed(err)
		}
		results = conform.Run(ctx, target, cases, opts, p.show)
	}
	p.clear()
	report := conform.NewReport(name, began, len(cases), o.strict, results)
	err = o.report(report, stdout)
	if err != nil && ctx.Err() != nil && report.Counts.Missing > 0 {
		return failed(fmt.Errorf("interrupted: %w", err))
	}
	return err
}

func (o *conformOptions) writeList(cases []conform.Case, stdout io.Writer) error {
	switch o.json {
	case "":
		return failed(conform.List(stdout, cases))
	case "-":
		return failed(conform.ListJSON(stdout, cases))
	}
	return failed(writeFile(o.json, func(w io.Writer) error { return conform.ListJSON(w, cases) }))
}

// writable finds out whether the files can be written, before a run that may take minutes. It changes nothing in them.
func (o *conformOptions) writable() error {
	for _, f := range []struct{ flag, path string }{{"json", o.json}, {"junit", o.junit}} {
		if f.path == "" || f.path == "-" {
			continue
		}
		file, err := os.OpenFile(f.path, os.O_WRONLY|os.O_CREATE, 0o666)
		if err == nil {
			err = file.Close()
		}
		if err != nil {
			return fmt.Errorf("--%s %s cannot be written: %w", f.flag, shown(f.path), err)
		}
	}
	return nil
}

// report writes the report wherever it was asked for; the error says what did not pass.
func (o *conformOptions) report(r *conform.Report, stdout io.Writer) error {
	for _, f := range []struct {
		path  string
		write func(io.Writer) error
	}{{o.json, r.JSON}, {o.junit, r.JUnit}} {
		switch f.path {
		case "":
		case "-":
			if err := f.write(stdout); err != nil {
				return failed(err)
			}
		default:
			if err := writeFile(f.path, f.write); err != nil {
				return failed(err)
			}
		}
	}
	if o.json != "-" && o.junit != "-" {
		if err := r.Text(stdout); err != nil {
			return failed(err)
		}
	}
	switch c := r.Counts; {
	case r.Passed():
		return nil
	case c.Failed > 0 && c.Missing > 0:
		return failed(fmt.Errorf("%d of the %d cases that were run failed, and %d were not run", c.Failed, r.Cases-c.Missing, c.Missing))
	case c.Failed > 0:
		return failed(fmt.Errorf("%d of %d cases failed", c.Failed, r.Cases))
	case c.Missing > 0:
		return failed(fmt.Errorf("%d of %d cases were not run", c.Missing, r.Cases))
	default:
		return failed(fmt.Errorf("%d of %d cases are non-strict, and --strict was given", c.NonStrict, r.Cases))
	}
}

// conformProgress says on a terminal how far the run is; elsewhere nothing, it takes only seconds.
type conformProgress struct {
	w                       io.Writer
	terminal                bool
	total                   int
	done, failed, nonStrict int
}

func (p *conformProgress) show(r *conform.Result) {
	p.done++
	switch r.Verdict {
	case conform.Failed:
		p.failed++
	case conform.NonStrict:
		p.nonStrict++
	}
	if p.terminal {
		fmt.Fprintf(p.w, "\r\x1b[K%d of %d cases, %d failed, %d non-strict  %s", p.done, p.total, p.failed, p.nonStrict, r.ID)
	}
}

func (p *conformProgress) clear() {
	if p.terminal && p.done > 0 {
		fmt.Fprint(p.w, "\r\x1b[K")
	}
}
