package bench

import (
	"cmp"
	"slices"
	"strings"
	"time"
)

// summary is what a result says to people, as text: the readable summary and
// the page are two layouts of it.
type summary struct {
	title   string
	facts   []fact
	latency table
	errors  table
	cost    table
	notes   []string
}

// fact is a line of a summary.
type fact struct{ Name, Text string }

// table is a head and rows of the same length. The columns are aligned to the
// right but for the first and those of left.
type table struct {
	Head []string
	Rows [][]string
	left []int
}

// errorRows is how many kinds of errors a summary shows; the JSON has all.
const errorRows = 20

// closedLoop and openLoop say what the figures of each loop mean.
const (
	closedLoop = "closed: each reply triggers the next message. A stall of the server shows once per connection, not once per message that would have been sent (coordinated omission); use --rate to see it in full"
	openLoop   = "messages/s on schedule, whatever the replies do; latency counts from the scheduled time, so that a stall shows in full"
)

// percentiles are those that every report shows.
var percentiles = []struct {
	name string
	q    float64
}{{"p50", 50}, {"p90", 90}, {"p99", 99}, {"p99.9", 99.9}, {"max", 100}}

// stages are the three latencies of a result.
func (r *Result) stages() []stage {
	all := []stage{{"connect", &r.Connect}, {"upgrade", &r.Upgrade}, {"message", &r.Message}}
	if r.Spread != nil { // from the first to the last receiver of a message
		all = append(all, stage{"spread", r.Spread})
	}
	return all
}

// stage is a named Latency.
type stage struct {
	name string
	*Latency
}

// perSecond is n over the measuring time; 0 when there was none.
func (r *Result) perSecond(n uint64) float64 {
	if r.Seconds <= 0 {
		return 0
	}
	return float64(n) / r.Seconds
}

// openedPerSecond is how fast connections were opened; the time for which they
// were only held does not count.
func (r *Result) openedPerSecond() float64 {
	if r.OpeningSeconds > 0 {
		return float64(r.Opened) / r.OpeningSeconds
	}
	return r.perSecond(r.Opened)
}

// rate is what the scenario is about: replies per second, or connections
// opened per second for the scenario connect.
func (r *Result) rate() float64 {
	if r.Scenario == "connect" {
		return r.openedPerSecond()
	}
	return r.perSecond(r.Messages)
}

// failures is how many errors of all kinds there were.
func (r *Result) failures() (n uint64) {
	for _, e := range r.Errors {
		n += e.Count
	}
	return n
}

// processors is how many the process kept busy on average.
func (u *Usage) processors(seconds float64) float64 {
	if seconds <= 0 {
		return 0
	}
	return u.CPUSeconds / seconds
}

func (r *Result) summary() *summary {
	s := &summary{title: r.title(), facts: r.facts(), latency: r.latencyTable(), errors: r.errorTable(), cost: r.costTable()}
	if r.Interrupted {
		s.notes = append(s.notes, "interrupted early: the figures are of the time until then")
	}
	if r.Sent > 0 && r.Message.Count() == 0 {
		s.notes = append(s.notes, "no reply came back, so there is no message latency")
	}
	for _, n := range r.Notes {
		s.notes = append(s.notes, clean(n))
	}
	return s
}

// title is the scenario and the target.
func (r *Result) title() string {
	return clean(r.Scenario + " " + strings.Join(r.URLs, " "))
}

func (r *Result) facts() (f []fact) {
	add := func(name string, text ...string) {
		f = append(f, fact{name, strings.Join(text, "")})
	}
	opened := count(r.Opened) + " opened"
	if r.Scenario == "connect" {
		opened += ", " + rateText(r.openedPerSecond()) + "; " + count(r.Connections) + " at once"
	} else {
		opened += " of " + count(r.Connections-r.Stalled)
	}
	if r.Stalled > 0 {
		opened += ", and " + count(r.Stalled) + " that read nothing"
	}
	if r.Processes > 1 {
		opened += ", by " + count(r.Processes) + " processes"
	}
	add("connections", opened)
	switch {
	case r.Sent == 0 && r.Messages > 0:
		add("payload", bytesText(float64(r.BytesBack)/float64(r.Messages)), " on average, of messages that the server pushed by itself")
	case r.Sent > 0 || r.Messages > 0:
		text := sizes(r.SizeMin, r.SizeMax)
		if r.Depth > 0 {
			text += ", " + count(r.Depth) + " in flight per connection"
		}
		add("payload", text)
	}
	switch r.Loop {
	case "closed":
		add("loop", closedLoop)
	case "open":
		add("loop", "open: ", digits3(r.Rate), " ", openLoop)
	}
	add("measured", duration(time.Duration(r.Seconds*1e9)))
	if r.Sent > 0 {
		add("sent", r.flow(r.Sent, r.BytesSent))
	}
	if r.Sent > 0 || r.Messages > 0 {
		add("came back", r.flow(r.Messages, r.BytesBack))
	}
	if z := r.Compressed; z != nil {
		text := "nothing was sent"
		if z.SentPlain+z.BackPlain > 0 {
			text = "sent " + shrunk(z.SentPlain, z.SentWire) + "; came back " + shrunk(z.BackPlain, z.BackWire) + "; frame headers included"
		}
		add("compression", text)
		add("agreed", clean(z.Agreed))
	}
	if r.SlabPerConn > 0 && r.Scenario == "idle" {
		add("kernel", bytesText(r.SlabPerConn), " of slab memory per connection, of both ends if the server is on this machine")
	}
	if r.InFlight > 0 {
		add("in flight", count(r.InFlight), " at the end")
	}
	if r.Loop == "open" {
		if r.Unsent > 0 {
			add("not sent", count(r.Unsent), " that were due, because no connection was free")
		}
		add("schedule", duration(time.Duration(r.SlipSeconds*1e9)), " late at most")
	}
	return f
}

// shrunk says what compression made of one direction.
func shrunk(plain, wire uint64) string {
	if plain == 0 {
		return "nothing"
	}
	return bytesText(float64(plain)) + " as " + bytesText(float64(wire)) + ", " + digits3(100*float64(wire)/float64(plain)) + " %"
}

// flow is one direction of the traffic.
func (r *Result) flow(messages, bytes uint64) string {
	return count(messages) + " messages, " + rateText(r.perSecond(messages)) + ", " + bytesText(r.perSecond(bytes)) + "/s"
}

func (r *Result) latencyTable() table {
	t := table{Head: []string{"latency", "count", "mean"}}
	for _, p := range percentiles {
		t.Head = append(t.Head, p.name)
	}
	for _, s := range r.stages() {
		if s.Count() == 0 {
			continue
		}
		row := []string{s.name, count(s.Count()), duration(s.Mean())}
		for _, p := range percentiles {
			row = append(row, duration(s.At(p.q)))
		}
		t.Rows = append(t.Rows, row)
	}
	return t
}

func (r *Result) errorTable() table {
	t := table{Head: []string{"errors", "count", "detail"}, left: []int{2}}
	sorted := slices.SortedStableFunc(slices.Values(r.Errors), func(a, b ErrorCount) int { return cmp.Compare(b.Count, a.Count) })
	var rest uint64
	for i, e := range sorted {
		if i >= errorRows {
			rest += e.Count
			continue
		}
		t.Rows = append(t.Rows, []string{clean(e.Kind), count(e.Count), clean(e.Detail)})
	}
	if rest > 0 {
		t.Rows = append(t.Rows, []string{"others", count(rest), count(len(sorted)-errorRows) + " more kinds; the JSON has them"})
	}
	if len(t.Rows) > 1 {
		t.Rows = append(t.Rows, []string{"all", count(r.failures()), ""})
	}
	return t
}

func (r *Result) costTable() table {
	t := table{Head: []string{"cost", "CPU", "cores", "CPU/message", "memory", "memory/connection", "threads", "files"}}
	for _, u := range []struct {
		name string
		*Usage
	}{{"client", &r.Client}, {"server", r.Server}} {
		if u.Usage == nil || *u.Usage == (Usage{}) {
			continue
		}
		t.Rows = append(t.Rows, []string{
			u.name, duration(time.Duration(u.CPUSeconds * 1e9)), digits3(u.processors(r.Seconds)),
			known(u.CPUPerMsg, micros), bytesText(float64(u.Private)), known(u.PerConn, bytesText), count(u.Threads), count(u.Descriptors),
		})
	}
	return t
}

// known writes v, or a dash if it was not measured.
func known(v float64, write func(float64) string) string {
	if v == 0 {
		return "-"
	}
	return write(v)
}
