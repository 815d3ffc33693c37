package bench

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

// Threshold is a demand on a result, such as p99<50ms; a run that does not
// meet it fails in CI.
type Threshold struct {
	Metric string
	Op     string  // < <= > >= == !=
	Value  float64 // nanoseconds if the metric is a time
	text   string  // the value as it was written
}

// metric is something that a threshold can be about. get returns false when
// the result does not know it, with the reason.
type metric struct {
	name string
	time bool
	get  func(r *Result) (v float64, known bool, reason string)
}

const unknownServer = "the server's CPU is not known (--server-pid)"

// metrics are all of them, in the order in which an error names them.
var metrics = []metric{
	quantile("p50", message, 50), quantile("p90", message, 90), quantile("p99", message, 99),
	quantile("p99.9", message, 99.9), quantile("max", message, 100),
	{"mean", true, func(r *Result) (float64, bool, string) {
		return float64(r.Message.Mean()), r.Message.Count() > 0, "no message was measured"
	}},
	quantile("connect_p99", func(r *Result) stage { return stage{"connect", &r.Connect} }, 99),
	quantile("upgrade_p99", func(r *Result) stage { return stage{"upgrade", &r.Upgrade} }, 99),
	plain("errors", func(r *Result) float64 { return float64(r.failures()) }),
	plain("rate", (*Result).rate),
	plain("messages", func(r *Result) float64 { return float64(r.Messages) }),
	plain("opened", func(r *Result) float64 { return float64(r.Opened) }),
	{"client_cpu_us", false, func(r *Result) (float64, bool, string) {
		return r.Client.CPUPerMsg, r.Client.CPUPerMsg > 0, "the client's CPU per message is not known"
	}},
	{"server_cpu_us", false, func(r *Result) (float64, bool, string) {
		if r.Server == nil {
			return 0, false, unknownServer
		}
		return r.Server.CPUPerMsg, r.Server.CPUPerMsg > 0, unknownServer
	}},
}

func message(r *Result) stage { return stage{"message", &r.Message} }

func quantile(name string, of func(*Result) stage, q float64) metric {
	return metric{name, true, func(r *Result) (float64, bool, string) {
		s := of(r)
		return float64(s.At(q)), s.Count() > 0, "no " + s.name + " was measured"
	}}
}

func plain(name string, get func(*Result) float64) metric {
	return metric{name, false, func(r *Result) (float64, bool, string) { return get(r), true, "" }}
}

// operators, the longer ones first, because < is the beginning of <=.
var operators = []string{"<=", ">=", "==", "!=", "<", ">"}

// units of the times.
var units = []struct {
	name string
	ns   float64
}{{"us", 1e3}, {"ms", 1e6}, {"s", 1e9}}

// ParseThreshold reads a threshold: a metric, an operator and a value, such as
// p99<50ms, errors==0, rate>=10000.
func ParseThreshold(s string) (Threshold, error) {
	bad := func(format string, args ...any) (Threshold, error) {
		return Threshold{}, fmt.Errorf("threshold %q: %s", s, fmt.Sprintf(format, args...))
	}
	at := strings.IndexAny(s, "<>=!")
	if at < 0 {
		return bad("has no operator; write it like p99<50ms, errors==0 or rate>=10000 (%s)", strings.Join(operators, " "))
	}
	t := Threshold{Metric: strings.TrimSpace(s[:at])}
	for _, op := range operators {
		if strings.HasPrefix(s[at:], op) {
			t.Op = op
			break
		}
	}
	if t.Op == "" {
		return bad("has no such operator; there are %s", strings.Join(operators, " "))
	}
	t.text = strings.TrimSpace(s[at+len(t.Op):])
	m := metricOf(t.Metric)
	if m == nil {
		return bad("there is no %q; there are %s", t.Metric, strings.Join(metricNames(), " "))
	}
	number, scale := t.text, 1.0
	if m.time {
		scale = 0
		for _, u := range units {
			if n, ok := strings.CutSuffix(t.text, u.name); ok {
				number, scale = strings.TrimSpace(n), u.ns
				break // "s" is the end of all of them and comes last
			}
		}
		if scale == 0 {
			return bad("%s is a time, %q is not; write it with us, ms or s, such as %s%s50ms", t.Metric, t.text, t.Metric, t.Op)
		}
	}
	// Digits and a point: no sign, no infinity, nothing hexadecimal.
	v, err := strconv.ParseFloat(number, 64)
	if err != nil || strings.Trim(number, "0123456789.") != "" {
		if m.time {
			return bad("%q is not a time; write it with us, ms or s, such as %s%s50ms", t.text, t.Metric, t.Op)
		}
		return bad("%q is not a number; write it in digits and without a unit, such as %s%s10", t.text, t.Metric, t.Op)
	}
	t.Value = v * scale
	return t, nil
}

func metricOf(name string) *metric {
	for i := range metrics {
		if metrics[i].name == name {
			return &metrics[i]
		}
	}
	return nil
}

func metricNames() (names []string) {
	for _, m := range metrics {
		names = append(names, m.name)
	}
	return names
}

// String is the threshold as it is written on the command line.
func (t Threshold) String() string { return t.Metric + t.Op + t.text }

// Check reports whether the result meets the threshold, and what it has
// instead: "p99 = 61.2ms, wanted < 50ms". A result that does not know the
// metric does not meet it.
func (t Threshold) Check(r *Result) (ok bool, got string) {
	wanted := ", wanted " + t.Op + " " + t.text
	m := metricOf(t.Metric)
	if m == nil {
		return false, t.Metric + ": no such metric" + wanted
	}
	v, known, reason := m.get(r)
	if !known {
		return false, t.Metric + ": " + reason + wanted
	}
	ok = t.holds(v)
	return ok, t.Metric + " = " + t.show(m, v, ok) + wanted
}

// holds compares.
func (t Threshold) holds(v float64) bool {
	switch t.Op {
	case "<":
		return v < t.Value
	case "<=":
		return v <= t.Value
	case ">":
		return v > t.Value
	case ">=":
		return v >= t.Value
	case "==":
		return v == t.Value
	case "!=":
		return v != t.Value
	}
	return false
}

// show writes v like all reports, and with all digits where the rounded value
// would contradict the verdict: 50.01 ms is not "50.0ms, wanted <= 50ms".
func (t Threshold) show(m *metric, v float64, ok bool) string {
	if m.time {
		s := duration(time.Duration(v))
		if rounded, err := ParseThreshold(t.Metric + "==" + s); err == nil && t.holds(rounded.Value) != ok {
			return time.Duration(v).String()
		}
		return s
	}
	s := digits3(v)
	if v == math.Trunc(v) && math.Abs(v) < 1e15 {
		s = signed(v) // two errors are not 2.00
	}
	if rounded, err := strconv.ParseFloat(strings.ReplaceAll(s, ",", ""), 64); err == nil && t.holds(rounded) != ok {
		return strconv.FormatFloat(v, 'f', -1, 64)
	}
	return s
}
