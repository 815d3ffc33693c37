package bench

import (
	"encoding/json"
	"fmt"
	"io"
	"math"
	"slices"
	"strings"
	"text/tabwriter"
)

func (r *ComparedRow) empty() bool { return len(r.samples("")) == 0 }

// samples are the values of a figure, round by round; with "" a 1 for each
// round that was measured.
func (r *ComparedRow) samples(figure string) (s []float64) {
	for _, f := range r.Rounds {
		if v, ok := f[figure]; ok {
			s = append(s, v)
		} else if figure == "" && f != nil {
			s = append(s, 1)
		}
	}
	return s
}

func (r *ComparedRow) medians() map[string]float64 {
	m := map[string]float64{}
	for _, f := range r.Rounds {
		for name := range f {
			if _, ok := m[name]; !ok {
				m[name] = median(r.samples(name))
			}
		}
	}
	return m
}

// median is that of a list that is not empty.
func median(s []float64) float64 {
	t := slices.Sorted(slices.Values(s))
	return (t[(len(t)-1)/2] + t[len(t)/2]) / 2
}

// column is a figure in the table of a case.
type column struct {
	figure, head string
	unit         float64 // of the table, in that of the figure
}

var memoryColumns = []column{
	{figureEach, "bytes/connection", 1},
	{figureBefore, "MiB before them", 1 << 20},
	{figureQuiet, "CPU ms/s when quiet", 1},
}

// columns are the figures that the table of a kind shows, in this order.
var columns = map[CompareKind][]column{
	CompareEcho: {
		{figureRate, "messages/s", 1},
		{figureP50, "p50 ms", 1},
		{figureP99, "p99 ms", 1},
		{figureP999, "p99.9 ms", 1},
		{figureCPU, "CPU us/message", 1},
	},
	ComparePush: {
		{figureRate, "deliveries/s", 1},
		{figureP50, "p50 ms", 1},
		{figureP99, "p99 ms", 1},
		{figureCPU, "CPU us/delivery", 1},
	},
	CompareHandshake:   {{figureRate, "handshakes/s", 1}, {figureCPU, "CPU us/handshake", 1}},
	CompareIdle:        memoryColumns,
	CompareGenerations: memoryColumns,
	CompareGC: {
		{figureGC0, "cycle us, none open", 1},
		{figureStop0, "stopped us", 1},
		{figureGC, "cycle us, all open", 1},
		{figureStop, "stopped us", 1},
	},
}

// spread is the median of a list, with the least and the most if there are several.
func spread(s []float64, unit float64) string {
	if len(s) == 0 {
		return "-"
	}
	text := figureText(median(s) / unit)
	if len(s) > 1 {
		text += fmt.Sprintf(" (%s-%s)", figureText(slices.Min(s)/unit), figureText(slices.Max(s)/unit))
	}
	return text
}

// figureText writes a number with about three digits.
func figureText(v float64) string {
	switch a := math.Abs(v); {
	case a >= 99.95 || a == 0:
		return fmt.Sprintf("%.0f", v)
	case a >= 9.995:
		return fmt.Sprintf("%.1f", v)
	}
	return fmt.Sprintf("%.2f", v)
}

// WriteTitle writes what holds for all cases.
func (all *Comparison) WriteTitle(w io.Writer) error {
	placed := "server and client on processors of their own"
	if !all.Pinned {
		placed = "not pinned"
	}
	if all.Backend != nil {
		placed = "the proxy on one processor, client and backend on the other"
		if !all.Pinned {
			placed = "proxy, client and backend not pinned"
		}
	}
	_, err := fmt.Fprintf(w, "%s, %s, %d processors, %s, %s; %s\n",
		all.Machine.CPU, all.Machine.Kernel, all.Machine.CPUs, all.Machine.Go, all.Start.Format("2006-01-02"), placed)
	if err != nil {
		return err
	}
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, s := range all.Servers {
		fmt.Fprintf(t, "  %s\t%s\n", s.Name, s.About)
	}
	return t.Flush()
}

// title is what a case is, in words.
func (c *ComparedCase) title() string {
	n := groups(c.Connections)
	switch c.Kind {
	case CompareEcho:
		depth := "one message"
		if c.Depth > 1 {
			depth = fmt.Sprintf("%d messages", c.Depth)
		}
		return fmt.Sprintf("echo of %s, %s connections, %s in flight on each", sizeWords(c.Size), n, depth)
	case ComparePush:
		return fmt.Sprintf("push of %s from one connection to %s others, the next when all have the last", sizeWords(c.Size), n)
	case CompareHandshake:
		return fmt.Sprintf("connect, upgrade and close, %s at once", n)
	case CompareIdle:
		return fmt.Sprintf("private memory of the process with %s connections after one echo each", n)
	case CompareGenerations:
		return fmt.Sprintf("the same after %d generations of %s connections with messages have come and gone", c.Generations, n)
	}
	return fmt.Sprintf("a forced garbage collection in wspoll, without connections and with %s; least of %d", n, collections)
}

func sizeWords(n int) string {
	switch {
	case n >= 1<<20 && n%(1<<20) == 0:
		return fmt.Sprintf("%d MiB", n>>20)
	case n >= 1<<10 && n%(1<<10) == 0:
		return fmt.Sprintf("%d KiB", n>>10)
	}
	return fmt.Sprintf("%d B", n)
}

// groups writes a number with commas: 15,000.
func groups(n int) string {
	s := fmt.Sprint(n)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

// WriteText writes the table of the case.
func (c *ComparedCase) WriteText(w io.Writer) error {
	var b strings.Builder
	fmt.Fprintf(&b, "\n%s: %s\n", c.Name, c.title())
	t := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	shown := slices.DeleteFunc(slices.Clone(columns[c.Kind]), func(col column) bool {
		return !slices.ContainsFunc(c.Rows, func(r *ComparedRow) bool { return len(r.samples(col.figure)) > 0 })
	})
	fmt.Fprint(t, "  server")
	for _, col := range shown {
		fmt.Fprint(t, "\t"+col.head)
	}
	floor, baseline := c.row(c.all.Floor), c.row(c.all.Baseline)
	if floor != nil {
		fmt.Fprint(t, "\tit / "+floor.Server)
	}
	if baseline != nil {
		fmt.Fprint(t, "\t"+baseline.Server+" / it")
	}
	fmt.Fprintln(t)
	var bound []string
	for _, r := range c.Rows {
		name := r.Server
		if r.Median[figureClient] > 0.9 && r.Median[figureServer] < 0.9 {
			bound = append(bound, name)
			name += " *"
		}
		fmt.Fprint(t, "  "+name)
		for _, col := range shown {
			fmt.Fprint(t, "\t"+spread(r.samples(col.figure), col.unit))
		}
		if floor != nil {
			fmt.Fprint(t, "\t"+spread(c.ratios(r, floor), 1))
		}
		if baseline != nil {
			fmt.Fprint(t, "\t"+spread(c.ratios(baseline, r), 1))
		}
		fmt.Fprintln(t)
	}
	t.Flush()
	if len(bound) > 0 {
		b.WriteString("  * the client was the bottleneck: messages and handshakes per second, and latencies, are its own\n")
	}
	for _, r := range c.Rows {
		if r.Error != "" {
			fmt.Fprintf(&b, "  %s failed: %s\n", r.Server, r.Error)
		}
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// row is that of a server for ratios; nil if it has no figures, or the case
// has no ratios.
func (c *ComparedCase) row(server string) *ComparedRow {
	key := c.Kind.key()
	for _, r := range c.Rows {
		if key != "" && r.Server == server && len(r.samples(key)) > 0 {
			return r
		}
	}
	return nil
}

// ratios are those of the key figure, round by round.
func (c *ComparedCase) ratios(a, b *ComparedRow) (s []float64) {
	key := c.Kind.key()
	for i := range min(len(a.Rounds), len(b.Rounds)) {
		x, ok := a.Rounds[i][key]
		y, and := b.Rounds[i][key]
		if ok && and && y > 0 {
			s = append(s, x/y)
		}
	}
	return s
}

// WriteNote writes what the figures are.
func (all *Comparison) WriteNote(w io.Writer) error {
	what := "One round"
	if all.Rounds > 1 {
		what = fmt.Sprintf("Median (least-most) of %d rounds", all.Rounds)
	}
	if all.Backend != nil {
		return all.writeProxyNote(w, what)
	}
	note := fmt.Sprintf("\n%s of %g s. CPU is the server's own; the ratios are those of the CPU, or of the\nmemory, round by round: it / %s is the price above a bare echo, %s / it how many times less it costs.\n",
		what, all.Seconds, orWords(all.Floor, "the floor"), orWords(all.Baseline, "the baseline"))
	if all.Interrupted {
		note += interruptedNote
	}
	_, err := io.WriteString(w, note)
	return err
}

func (all *Comparison) writeProxyNote(w io.Writer, what string) error {
	note := fmt.Sprintf("\n%[1]s of %[2]g s; memory once. CPU is the proxy's own, for a message there and back. it / %[3]s: how\nmany times as much it costs as %[3]s; %[4]s / it: how many times less; of CPU or memory, round by round.\n",
		what, all.Seconds, orWords(all.Floor, "the bare relay"), orWords(all.Baseline, "the baseline"))
	if all.Interrupted {
		note += interruptedNote
	}
	_, err := io.WriteString(w, note)
	return err
}

const interruptedNote = "Interrupted: the last table has fewer rounds, and further cases are missing.\n"

func orWords(s, otherwise string) string {
	if s == "" {
		return otherwise
	}
	return s
}

// WriteJSON writes all figures of all rounds.
func (all *Comparison) WriteJSON(w io.Writer) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	return e.Encode(all)
}
