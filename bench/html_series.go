package bench

import (
	"math"
	"strconv"

	"gonum.org/v1/plot"
	"gonum.org/v1/plot/plotter"
)

// charts are the pictures of a result: those for which it has figures.
func (r *Result) charts() ([]chart, error) {
	var all []chart
	series, each := thin(r.Series, maxPoints)
	for _, make := range []func([]Sample) chart{r.latencyChart, r.percentileChart, r.throughputChart, r.openChart, r.errorChart, r.cpuChart, r.memoryChart} {
		c := make(series)
		if len(c.Lines) == 0 {
			continue
		}
		if c.x.max == 0 {
			c.x, c.xName = linear(series[len(series)-1].At, tickCount), "seconds"
			if each > 1 {
				c.Note = join(c.Note, "each point stands for "+strconv.Itoa(each)+" intervals")
			}
		}
		if err := c.draw(); err != nil {
			return nil, err
		}
		all = append(all, c)
	}
	return all, nil
}

func join(a, b string) string {
	if a == "" {
		return b
	}
	return a + "; " + b
}

// curve is a line over time. get returns NaN where there is a gap.
func curve(series []Sample, name string, of chartColor, get func(s Sample) float64) line {
	l := line{Name: name, color: of}
	for _, s := range series {
		l.pts = append(l.pts, plotter.XY{X: s.At, Y: get(s)})
	}
	return l
}

// highest is the largest y of the lines.
func highest(lines []line) (top float64) {
	for _, l := range lines {
		for _, p := range l.pts {
			if p.Y > top {
				top = p.Y
			}
		}
	}
	return top
}

// never reports whether get is 0 in all samples, so that there is no chart.
func never(series []Sample, get func(s Sample) float64) bool {
	for _, s := range series {
		if get(s) > 0 {
			return false
		}
	}
	return true
}

// gap is v, or a gap of the line if there was nothing to measure.
func gap(v float64) float64 {
	if v <= 0 {
		return math.NaN()
	}
	return v
}

func (r *Result) latencyChart(series []Sample) chart {
	c := chart{Title: "Message latency over time"}
	if never(series, func(s Sample) float64 { return s.Max }) {
		return c
	}
	c.Lines = []line{
		curve(series, "max", red, func(s Sample) float64 { return gap(s.Max) }),
		curve(series, "p99", orange, func(s Sample) float64 { return gap(s.P99) }),
		curve(series, "p50", blue, func(s Sample) float64 { return gap(s.P50) }),
	}
	c.y = latencyAxis(c.Lines)
	if r.Loop == "closed" {
		c.Note = "closed loop: a stall shows once per connection"
	}
	return c
}

// percentileChart has the messages, or else what the opening of connections
// took.
func (r *Result) percentileChart([]Sample) chart {
	c := chart{Title: "Latency by percentile"}
	stages := r.stages()
	if r.Message.Count() > 0 {
		stages = stages[2:]
	}
	most := 10.0
	for i, s := range stages {
		if s.Count() == 0 {
			continue
		}
		total := float64(s.Count())
		l := line{Name: s.name, color: []chartColor{blue, orange}[i%2]}
		for _, b := range distribution(s.Histogram()) {
			// Of so many messages nothing is known beyond one in so many.
			x := total
			if b.Quantile < 100 {
				x = min(total, 1/(1-b.Quantile/100))
			}
			l.pts = append(l.pts, plotter.XY{X: x, Y: float64(b.ValueAt) / 1e6})
		}
		most = max(most, total)
		c.Lines = append(c.Lines, l)
	}
	if len(c.Lines) > 0 {
		c.x, c.y = percentileAxis(most), latencyAxis(c.Lines)
	}
	return c
}

// percentileAxis is 1/(1-q), logarithmic: 0 %, 50 %, 90 %, 99 %, 99.9 %.
func percentileAxis(most float64) axis {
	a := axis{log: true, min: 1, max: most, ticks: []plot.Tick{{Value: 1, Label: "0%"}}}
	decades := int(math.Ceil(math.Log10(most) - 1e-9))
	if decades <= 3 {
		a.ticks = append(a.ticks, plot.Tick{Value: 2, Label: "50%"})
	}
	for k := 1; k <= decades; k++ {
		t := plot.Tick{Value: math.Pow10(k)}
		if decades <= 5 || k%2 == 0 || k == 1 {
			t.Label = strconv.FormatFloat(100-100/t.Value, 'f', max(k-2, 0), 64) + "%"
		}
		a.ticks = append(a.ticks, t)
	}
	return a
}

func (r *Result) throughputChart(series []Sample) chart {
	c := chart{Title: "Replies per second"}
	if never(series, func(s Sample) float64 { return float64(s.Messages) }) {
		return c
	}
	before := 0.0
	c.Lines = []line{curve(series, "messages/s", blue, func(s Sample) float64 {
		interval := s.At - before
		before = s.At
		if interval <= 0 {
			return math.NaN()
		}
		return float64(s.Messages) / interval
	})}
	c.y = linear(highest(c.Lines), tickCount)
	return c
}

// openChart is left out when all connections were open all the time.
func (r *Result) openChart(series []Sample) chart {
	c := chart{Title: "Open connections"}
	same := true
	for _, s := range series {
		same = same && s.Open == series[0].Open
	}
	if same {
		return c
	}
	c.Lines = []line{curve(series, "open", green, func(s Sample) float64 { return float64(s.Open) })}
	c.y = linear(highest(c.Lines), tickCount)
	return c
}

func (r *Result) errorChart(series []Sample) chart {
	c := chart{Title: "Errors in each interval"}
	get := func(s Sample) float64 { return float64(s.Errors) }
	if never(series, get) {
		return c
	}
	c.Lines = []line{curve(series, "errors", red, get)}
	c.y = linear(highest(c.Lines), tickCount)
	return c
}

func (r *Result) cpuChart(series []Sample) chart {
	c := chart{Title: "Processors in use"}
	for _, l := range []struct {
		name  string
		color chartColor
		get   func(s Sample) float64
	}{
		{"client", blue, func(s Sample) float64 { return s.ClientCPU }},
		{"server", orange, func(s Sample) float64 { return s.ServerCPU }},
	} {
		if !never(series, l.get) {
			c.Lines = append(c.Lines, curve(series, l.name, l.color, l.get))
		}
	}
	c.y = linear(highest(c.Lines), tickCount)
	return c
}

func (r *Result) memoryChart(series []Sample) chart {
	c := chart{Title: "Private memory of the server"}
	if never(series, func(s Sample) float64 { return float64(s.ServerPrivate) }) {
		return c
	}
	// One unit for the whole axis, so that its steps are round.
	unit, name := 1024.0, " KiB"
	for _, s := range series {
		if s.ServerPrivate >= 4<<20 {
			unit, name = 1<<20, " MiB"
		}
	}
	c.Lines = []line{curve(series, "server", orange, func(s Sample) float64 { return gap(float64(s.ServerPrivate) / unit) })}
	c.y = linear(highest(c.Lines), func(v float64) string { return tickCount(v) + name })
	return c
}

// thin makes at most most samples out of a series, each out of the same number
// of intervals: sums of the counts, the worst of the latencies (p50 is the
// largest too: medians cannot be added), the averages of the processors.
func thin(series []Sample, most int) (thinned []Sample, each int) {
	each = (len(series) + most - 1) / most
	if each <= 1 {
		return series, 1
	}
	for start := 0; start < len(series); start += each {
		group := series[start:min(start+each, len(series))]
		sum := group[len(group)-1] // the end of the interval, what is open, the memory
		sum.Messages, sum.Errors, sum.ClientCPU, sum.ServerCPU = 0, 0, 0, 0
		for _, s := range group {
			sum.Messages += s.Messages
			sum.Errors += s.Errors
			sum.P50, sum.P99, sum.Max = max(sum.P50, s.P50), max(sum.P99, s.P99), max(sum.Max, s.Max)
			sum.ClientCPU += s.ClientCPU / float64(len(group))
			sum.ServerCPU += s.ServerCPU / float64(len(group))
		}
		thinned = append(thinned, sum)
	}
	return thinned, each
}
