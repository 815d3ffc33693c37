package bench

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Options are one run of one scenario.
type Options struct {
	Config
	Scenario string        // echo, connect or idle
	Duration time.Duration // measuring time; for connect with Ramp and for idle, how long to hold
	Messages uint64        // end after so many replies, if that comes first; 0 means no such end
	Server   Process       // the server's process, when it is on this machine; 0: unknown
	Command  []string      // for the report

	Progress func(Sample) // called once a second, and at the end of the last interval; may be nil
}

// Run does one run. It ends early, with the results so far, when ctx is done.
// The error says that nothing could be measured at all: no connection could be
// opened, or the options make no sense.
func Run(ctx context.Context, o Options) (*Result, error) {
	if o.Scenario == "echo" && (o.SizeMin == 0 && o.Payload == nil || o.Payload != nil && len(o.Payload) == 0) &&
		slices.ContainsFunc(o.Targets, func(t Target) bool { return t.Raw }) {
		return nil, errors.New("plain TCP does not show an empty message: the size must be at least 1")
	}
	if o.Compress && slices.ContainsFunc(o.Targets, func(t Target) bool { return t.Raw }) {
		return nil, errors.New("plain TCP knows no compression: it is for ws and wss")
	}
	if o.Subscribe && !o.Publish { // what comes, and when, is the server's own
		o.Rate, o.SizeMin, o.SizeMax = 0, 0, 0
	}
	c, err := New(o.Config)
	if err != nil {
		return nil, err
	}
	defer c.Stop()
	r := &run{Options: o, c: c, res: newResult(&o)}
	before := r.serverPrivate()
	r.clientBefore, _ = Process(os.Getpid()).Private()
	r.slabBefore = kernelSlab()

	open := make(chan struct{}) // closed when all connections are
	r.cycle = o.Scenario == "connect" && o.Ramp == 0
	switch {
	case r.cycle:
		close(open)
	case o.Scenario == "connect": // opening them is what is measured
		r.begin()
		go func() {
			c.Open(ctx.Done())
			close(open)
		}()
	default:
		c.Open(ctx.Done())
		close(open)
		if n := c.Counts(); n.Opened == 0 && ctx.Err() == nil {
			return nil, fmt.Errorf("no connection could be opened: %s", firstError(c.Errors()))
		}
	}
	if r.start.IsZero() {
		r.begin()
	}
	switch {
	case r.cycle:
		c.Cycle()
	case o.Scenario == "echo":
		c.Start()
	case o.Scenario == "push":
		c.Publish()
	case o.Scenario == "idle" && (o.SizeMin > 0 || o.Payload != nil):
		once := make(chan struct{})
		go func() { c.Once(); close(once) }() // a server that has echoed once has made what it makes for a connection
		select {
		case <-once:
		case <-ctx.Done():
		}
	}
	r.measure(ctx, open)
	if n := c.Counts(); n.Opened == 0 && ctx.Err() == nil {
		return nil, fmt.Errorf("no connection could be opened: %s", firstError(c.Errors()))
	}
	r.finish(ctx, before)
	return r.res, nil
}

func firstError(list []ErrorCount) string {
	if len(list) == 0 {
		return "no reason is known"
	}
	e := list[0]
	if e.Detail == "" {
		return e.Kind
	}
	return e.Kind + ", " + e.Detail
}

// run is one run under way.
type run struct {
	Options
	c     *Client
	res   *Result
	cycle bool // connections are opened and closed all the time

	silenced bool // the connection that publishes has ended

	start        time.Time
	slabBefore   int64         // bytes of the kernel's
	clientBefore int64         // private bytes of this process without connections
	client0      time.Duration // CPU at start
	server0      time.Duration
	last         mark
}

// mark is where the counters stood at the end of an interval.
type mark struct {
	at     time.Time
	counts Counts
	client time.Duration
	server time.Duration
}

func newResult(o *Options) *Result {
	r := &Result{
		Version: 1, Scenario: o.Scenario, Command: o.Command, Machine: ThisMachine(),
		Connections: o.Connections, Stalled: o.Stalled, SizeMin: o.SizeMin, SizeMax: max(o.SizeMin, o.SizeMax), Rate: o.Rate,
	}
	if o.Payload != nil {
		r.SizeMin, r.SizeMax = len(o.Payload), len(o.Payload)
	}
	switch {
	case o.Rate > 0:
		r.Loop = "open"
	case o.Scenario == "echo":
		r.Loop, r.Depth = "closed", max(o.Depth, 1)
	}
	for _, t := range o.Targets {
		r.URLs = append(r.URLs, t.URL)
	}
	return r
}

func (r *run) begin() {
	r.client0, _ = Process(os.Getpid()).CPU()
	if r.Server != 0 {
		r.server0, _ = r.Server.CPU()
	}
	counts := r.c.Counts()
	r.start = time.Now() // after all that takes its time
	r.res.Start = r.start
	r.last = mark{at: r.start, client: r.client0, server: r.server0, counts: counts}
}

// measure waits for the end of the run and takes a Sample every second. The
// time begins when open is closed.
func (r *run) measure(ctx context.Context, open <-chan struct{}) {
	var end <-chan time.Time // never, if Messages are to come however long that takes
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	look := time.NewTicker(100 * time.Millisecond)
	defer look.Stop()
	enough := r.c.after(r.Messages)
	for {
		select {
		case <-ctx.Done():
			r.res.Interrupted = true
			return
		case <-enough:
			return
		case <-open:
			open = nil
			if r.Scenario == "connect" && !r.cycle {
				r.res.OpeningSeconds = time.Since(r.start).Seconds()
			}
			if r.Duration > 0 || r.Messages == 0 {
				end = time.After(r.Duration)
			}
		case <-end:
			return
		case <-tick.C:
			r.sample()
			r.c.Overdue()
			if n := r.c.Counts(); r.Limit > 0 && n.Sent >= r.Limit && n.InFlight == 0 {
				return // some were lost with their connections
			}
		case <-look.C:
			var n Counts
			r.c.do(func() { n = r.c.counts; n.Failures = r.c.errs.total })
			switch {
			case r.Scenario != "connect" && n.Open == 0:
				r.res.Notes = append(r.res.Notes, "every connection had ended before the time was over")
				return
			case r.cycle && n.Opened == 0 && n.Failures > 0:
				return // it does not get better
			}
		}
	}
}

// sample closes an interval.
func (r *run) sample() {
	now := time.Now()
	s := Sample{At: now.Sub(r.start).Seconds()}
	var n Counts
	r.c.do(func() {
		n = r.c.count()
		lat := &r.c.interval
		s.P50, s.P99, s.Max = ms(lat.At(50)), ms(lat.At(99)), ms(lat.At(100))
		r.c.message.Merge(lat)
		lat.Reset()
	})
	took := now.Sub(r.last.at)
	s.Open = n.Open
	s.Messages = n.Messages - r.last.counts.Messages
	if r.Scenario == "connect" {
		s.Messages = n.Opened - r.last.counts.Opened
	}
	s.Errors = n.Failures - r.last.counts.Failures
	client, _ := Process(os.Getpid()).CPU()
	s.ClientCPU = float64(client-r.last.client) / float64(took)
	next := mark{at: now, counts: n, client: client}
	if r.Server != 0 {
		if cpu, err := r.Server.CPU(); err == nil {
			next.server = cpu
			s.ServerCPU = float64(cpu-r.last.server) / float64(took)
		}
		s.ServerPrivate = r.serverPrivate()
	}
	r.last = next
	r.res.Series = append(r.res.Series, s)
	if r.Progress != nil {
		r.Progress(s)
	}
}

func (r *run) serverPrivate() int64 {
	if r.Server == 0 {
		return 0
	}
	n, _ := r.Server.Private()
	return n
}

// lastWait is how long replies are waited for when the time is over.
const lastWait = 2 * time.Second

// finish takes the final figures.
func (r *run) finish(ctx context.Context, serverBefore int64) {
	took := time.Since(r.start)
	before := r.c.Counts() // at the end of the time; what comes home later is not counted
	client, _ := Process(os.Getpid()).CPU()
	r.c.Pause()
	res := r.res
	res.Seconds = took.Seconds()
	units := before.Messages
	if r.Scenario == "connect" {
		units = before.Opened
	}
	res.Client = usage(Process(os.Getpid()), client-r.client0, units)
	res.Client.PerConn = perConn(res.Client.Private-r.clientBefore, before.Open)
	if o := before.Open; o >= 100 { // with fewer it would be noise
		res.SlabPerConn = perConn(kernelSlab()-r.slabBefore, o)
	}
	if r.Server != 0 {
		cpu, _ := r.Server.CPU()
		u := usage(r.Server, cpu-r.server0, units)
		u.PerConn = perConn(u.Private-serverBefore, before.Open)
		res.Server = &u
	}
	r.sample()
	switch wait := min(r.c.cfg.Timeout, lastWait); {
	case ctx.Err() != nil:
	case r.Publish:
		n := r.c.Counts() // with what was published between the count and the pause
		r.c.Arrive(n.Sent*n.Opened, wait)
	default: // also for what was sent between the count and the pause
		r.c.Settle(wait)
		r.c.Overdue() // those that the last second was too short for
	}
	var after Counts
	r.c.do(func() {
		r.c.message.Merge(&r.c.interval)
		res.Connect, res.Upgrade, res.Message = r.c.connect, r.c.upgrade, r.c.message
		after = r.c.count()
		if r.c.squeeze != nil {
			count := r.c.squeeze.count
			res.Compressed = &count
		}
	})
	res.Opened, res.Sent, res.Messages = after.Opened, after.Sent, after.Messages
	res.BytesSent, res.BytesBack = after.BytesSent, after.BytesBack
	res.InFlight, res.Unsent, res.SlipSeconds = after.InFlight, after.Unsent, after.Slip.Seconds()
	if r.Subscribe {
		r.fanOut(after)
	}
	if after.InFlight > 0 && ctx.Err() == nil {
		r.res.Notes = append(r.res.Notes, fmt.Sprintf("%d messages had no reply yet %s after the time was over: they are not in the latencies, which would be worse with them",
			after.InFlight, min(r.c.cfg.Timeout, lastWait)))
	}
	limit := r.c.cfg.Timeout + time.Second // each connection has Timeout for its own end
	if ctx.Err() != nil {
		limit = time.Second // who has pressed Ctrl-C waits
	}
	r.c.Close(limit)
	res.Errors = r.c.Errors()
	r.notes()
}

// fanOut adds what only push has.
func (r *run) fanOut(n Counts) {
	spread, foreign := r.c.spreads()
	r.res.Spread = &spread
	if n.Sent > 0 { // a stamp may be longer than the size that was asked for
		size := int(n.BytesSent / n.Sent)
		r.res.SizeMin, r.res.SizeMax = max(r.res.SizeMin, size), max(r.res.SizeMax, size)
	}
	if r.silenced = r.Publish && !r.c.publishing(); r.silenced {
		r.res.Notes = append(r.res.Notes, "the connection that publishes ended before the time was over: nothing was published after that")
	}
	if foreign > 0 {
		r.res.Notes = append(r.res.Notes, fmt.Sprintf("%d messages had no time stamp of wspoll's: they are counted, but not how late they came", foreign))
	}
	if want := n.Sent * n.Opened; r.Publish && n.Messages < want {
		r.res.Notes = append(r.res.Notes, fmt.Sprintf("%d of %d deliveries had not come when the run ended", want-n.Messages, want))
	}
}

func perConn(bytes int64, n int) float64 {
	if n == 0 || bytes <= 0 {
		return 0
	}
	return float64(bytes) / float64(n)
}

// notes says what the reader of the figures must know.
func (r *run) notes() {
	res := r.res
	say := func(format string, args ...any) { res.Notes = append(res.Notes, fmt.Sprintf(format, args...)) }
	if cpu := res.Client.CPUSeconds / res.Seconds; cpu > 0.9 {
		say("the client was the bottleneck: its loop used %.0f %% of a processor; the server may be able to do more. Use --processes, or another machine", 100*cpu)
	}
	due := r.Rate * res.Seconds
	if sent := float64(res.Sent + res.Unsent); r.Rate > 0 && r.Limit == 0 && !r.silenced && sent < 0.99*due-1 {
		say("the client was the bottleneck: it sent %.0f %% of the messages that were due; the rate is more than it can do. Use --processes, or another machine", 100*sent/due)
	}
	if slip := time.Duration(res.SlipSeconds * 1e9); slip > 10*time.Millisecond && r.Rate > 0 {
		say("the schedule slipped: a message was sent %s after its time; the latencies count from the scheduled time", slip.Round(100*time.Microsecond))
	}
	if res.Unsent > 0 {
		say("%d messages that were due could not be sent: each connection had %d unanswered, or none was open", res.Unsent, maxInFlight)
	}
	if res.Machine.CPUs < 2 {
		say("client and server share one processor")
	}
}

// usage is what a process has cost.
func usage(p Process, cpu time.Duration, messages uint64) Usage {
	u := Usage{PID: int(p), CPUSeconds: cpu.Seconds()}
	if messages > 0 {
		u.CPUPerMsg = float64(cpu.Microseconds()) / float64(messages)
	}
	u.Private, _ = p.Private()
	u.Threads = p.count("task")
	u.Descriptors = p.count("fd")
	return u
}

// ThisMachine describes where the client runs.
func ThisMachine() Machine {
	m := Machine{CPUs: runtime.NumCPU(), Go: runtime.Version(), Kernel: "Linux"}
	var u unix.Utsname
	if unix.Uname(&u) == nil {
		m.Kernel = unix.ByteSliceToString(u.Sysname[:]) + " " + unix.ByteSliceToString(u.Release[:])
	}
	info, _ := os.ReadFile("/proc/cpuinfo")
	for line := range strings.Lines(string(info)) {
		if name, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(name) == "model name" {
			m.CPU = strings.TrimSpace(value)
			break
		}
	}
	return m
}
