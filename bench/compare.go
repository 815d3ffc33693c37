package bench

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// CompareCase is one load that all contestants get.
type CompareCase struct {
	Name        string      `json:"name"`
	Kind        CompareKind `json:"kind"`
	Connections int         `json:"connections"`
	Size        int         `json:"size,omitempty"`  // payload bytes of a message
	Depth       int         `json:"depth,omitempty"` // messages in flight per connection
	Generations int         `json:"generations,omitempty"`
	MostRounds  int         `json:"most_rounds,omitempty"` // however many the others have; 0: as many
}

// CompareKind is what a case measures.
type CompareKind string

// The kinds.
const (
	CompareEcho      CompareKind = "echo"      // messages
	CompareHandshake CompareKind = "handshake" // connect, upgrade, close; Connections at once
	CompareIdle      CompareKind = "idle"      // open connections after one echo each
	ComparePush      CompareKind = "push"      // messages of one connection to all others, the next when all have the last
	CompareGC        CompareKind = "gc"        // a forced garbage collection in our own server
	// Open connections, as in CompareIdle, after Generations of as many have
	// come, exchanged messages, and gone.
	CompareGenerations CompareKind = "generations"
)

// CompareCases are the cases of bench compare; those of idle and gc with that
// many connections, push with no more. Quick ones have fewer.
func CompareCases(idle int, quick bool) []CompareCase {
	many, few, most, crowd := 1000, 100, idle, min(idle, 10_000)
	if quick {
		many, few, most, crowd = 200, 10, min(idle, 2000), min(idle, 1000)
	}
	return []CompareCase{
		{Name: "echo-32", Kind: CompareEcho, Connections: many, Size: 32, Depth: 1},
		{Name: "echo-1k", Kind: CompareEcho, Connections: many, Size: 1 << 10, Depth: 1},
		{Name: "echo-16k", Kind: CompareEcho, Connections: many, Size: 16 << 10, Depth: 1},
		{Name: "echo-32-d16", Kind: CompareEcho, Connections: many, Size: 32, Depth: 16},
		{Name: "echo-1m", Kind: CompareEcho, Connections: few, Size: 1 << 20, Depth: 1},
		{Name: "push", Kind: ComparePush, Connections: crowd, Size: 128},
		{Name: "handshake", Kind: CompareHandshake, Connections: 64},
		{Name: "idle", Kind: CompareIdle, Connections: most, Size: 32},
		{Name: "gc", Kind: CompareGC, Connections: most, Size: 32},
	}
}

// CompareOptions say what Compare does.
type CompareOptions struct {
	Servers   []Contestant
	Collector Contestant  // for CompareGC: a process that runs ServeCollecting
	Backend   *Contestant // the server behind Servers, which are proxies then; else nil
	Cases     []CompareCase
	Rounds    int
	Interval  time.Duration // of one measurement, after its warm-up
	Baseline  string        // the server that others are compared with; may be empty
	Floor     string        // the bare echo that they are compared with; may be empty
	Pinning   *Pinning      // nil: the system places the processes
	Command   []string      // for the record

	Begin    func(*Comparison)                              // before the first measurement; may be nil
	Progress func(c *CompareCase, round int, server string) // before each measurement; may be nil
	CaseDone func(*ComparedCase)                            // when a case has had its rounds, or was interrupted; may be nil

	// Latency takes the latencies of the messages since it was called last.
	// It is called at the beginning and at the end of each measurement. With
	// nil there are no latencies.
	Latency func(*Client) Latency
}

// Comparison is what Compare has measured.
type Comparison struct {
	Version     int             `json:"version"` // of this format: 1
	Command     []string        `json:"command"`
	Machine     Machine         `json:"machine"`
	Start       time.Time       `json:"start"`
	Pinned      bool            `json:"pinned"`
	Rounds      int             `json:"rounds"`
	Seconds     float64         `json:"seconds"` // of one measurement
	Baseline    string          `json:"baseline,omitempty"`
	Floor       string          `json:"floor,omitempty"`
	Interrupted bool            `json:"interrupted,omitempty"`
	Servers     []Contestant    `json:"servers"`
	Backend     *Contestant     `json:"backend,omitempty"` // of proxies
	Cases       []*ComparedCase `json:"cases"`
}

// ComparedCase is a case with what each server has shown in it.
type ComparedCase struct {
	CompareCase
	Rows []*ComparedRow `json:"rows"`

	all *Comparison
}

// ComparedRow is one server in one case.
type ComparedRow struct {
	Server string             `json:"server"`
	Error  string             `json:"error,omitempty"` // why there are no more rounds
	Rounds []ComparedFigures  `json:"rounds"`
	Median map[string]float64 `json:"median"`
}

// ComparedFigures are the figures of one round by name. A round that was not
// measured has none.
type ComparedFigures map[string]float64

// The figures. Those that begin with cpu are the server's processor time,
// microseconds for each message or connection.
const (
	figureRate   = "per_second" // messages or handshakes
	figureCPU    = "cpu_us"
	figureP50    = "p50_ms"
	figureP99    = "p99_ms"
	figureP999   = "p99.9_ms"
	figureClient = "client_busy" // processors that the client used, and the backend of proxies; 1 is one whole
	figureServer = "server_busy"
	figureEach   = "private_bytes_each" // of an idle connection
	figureBefore = "private_bytes_before"
	figureQuiet  = "quiet_cpu_ms_per_second"
	figureGC0    = "gc_us_empty" // a cycle without connections, and how long of it the world stops
	figureStop0  = "gc_stop_us_empty"
	figureGC     = "gc_us_full"
	figureStop   = "gc_stop_us_full"
)

// key is the figure whose ratios are shown: less is better.
func (k CompareKind) key() string {
	switch k {
	case CompareIdle, CompareGenerations:
		return figureEach
	case CompareGC:
		return ""
	}
	return figureCPU
}

// errNotForThis is why a bare TCP server has no row in a case.
var errNotForThis = errors.New("there is nothing to measure")

// Compare measures the servers case by case, in rounds A B C, A B C, because a
// shared machine drifts. Each measurement has a process of its own. A server
// that fails has no more rounds of the case; the others go on. When ctx ends,
// what was measured until then is the result.
func Compare(ctx context.Context, o *CompareOptions) *Comparison {
	all := &Comparison{
		Version: 1, Command: o.Command, Machine: ThisMachine(), Start: time.Now(), Pinned: o.Pinning != nil,
		Rounds: o.Rounds, Seconds: o.Interval.Seconds(), Baseline: o.Baseline, Floor: o.Floor, Servers: o.Servers, Backend: o.Backend,
	}
	if o.Pinning != nil {
		all.Machine.CPUs = o.Pinning.all // this process sees its own alone
	}
	if o.Begin != nil {
		o.Begin(all)
	}
	for i := range o.Cases {
		if ctx.Err() != nil {
			break
		}
		c := compareOne(ctx, o, &o.Cases[i])
		c.all = all
		all.Cases = append(all.Cases, c)
		if o.CaseDone != nil {
			o.CaseDone(c)
		}
	}
	all.Interrupted = ctx.Err() != nil
	return all
}

func compareOne(ctx context.Context, o *CompareOptions, c *CompareCase) *ComparedCase {
	servers := o.Servers
	if c.Kind == CompareGC {
		servers = []Contestant{o.Collector}
	}
	rounds := o.Rounds
	if c.MostRounds > 0 {
		rounds = min(rounds, c.MostRounds)
	}
	result := &ComparedCase{CompareCase: *c}
	for _, s := range servers {
		result.Rows = append(result.Rows, &ComparedRow{Server: s.Name, Rounds: make([]ComparedFigures, rounds)})
	}
	skip := make([]bool, len(servers))
all:
	for round := range rounds {
		for i := range servers {
			if skip[i] {
				continue
			}
			if o.Progress != nil {
				o.Progress(c, round, servers[i].Name)
			}
			figures, err := measureOnce(ctx, o, &servers[i], c)
			switch {
			case ctx.Err() != nil:
				break all
			case errors.Is(err, errNotForThis):
				skip[i] = true
			case err != nil:
				skip[i], result.Rows[i].Error = true, err.Error()
			default:
				result.Rows[i].Rounds[round] = figures
			}
		}
	}
	result.Rows = slices.DeleteFunc(result.Rows, func(r *ComparedRow) bool { return r.empty() && r.Error == "" })
	for _, r := range result.Rows {
		r.Median = r.medians()
	}
	return result
}

// Failures are the servers that could not be measured, a line for each.
func (all *Comparison) Failures() (lines []string) {
	for _, c := range all.Cases {
		for _, r := range c.Rows {
			if r.Error != "" {
				lines = append(lines, fmt.Sprintf("%s, %s: %s", c.Name, r.Server, r.Error))
			}
		}
	}
	return lines
}

// PickCases are the cases whose names are, or begin with, one of those given;
// all if none is.
func PickCases(all []CompareCase, names []string) ([]CompareCase, error) {
	if len(names) == 0 {
		return all, nil
	}
	var known []string
	for _, c := range all {
		known = append(known, c.Name)
	}
	for _, n := range names {
		if n == "" || !slices.ContainsFunc(known, func(k string) bool { return strings.HasPrefix(k, n) }) {
			return nil, fmt.Errorf("no case is called %q; there are %s", n, strings.Join(known, ", "))
		}
	}
	return slices.DeleteFunc(slices.Clone(all), func(c CompareCase) bool {
		return !slices.ContainsFunc(names, func(n string) bool {
			// A whole name means that case alone: echo-32 is not echo-32-d16.
			return n == c.Name || !slices.Contains(known, n) && strings.HasPrefix(c.Name, n)
		})
	}), nil
}
