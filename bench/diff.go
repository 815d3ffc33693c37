package bench

import (
	"fmt"
	"io"
	"strings"
	"time"
)

// diffRow is a figure of two results.
type diffRow struct {
	name  string
	get   func(r *Result) float64 // 0 or less when it is not known
	write func(v float64) string
}

// diffRows are the figures that are compared, all from the functions that the
// other reports use.
func diffRows() []diffRow {
	nanos := func(v float64) string { return duration(time.Duration(v)) }
	rows := []diffRow{
		{"opened/s", func(r *Result) float64 {
			if r.Scenario != "connect" {
				return 0
			}
			return r.openedPerSecond()
		}, rateText},
		{"sent", func(r *Result) float64 { return r.perSecond(r.Sent) }, rateText},
		{"came back", func(r *Result) float64 { return r.perSecond(r.Messages) }, rateText},
		{"bytes sent", func(r *Result) float64 { return r.perSecond(r.BytesSent) }, func(v float64) string { return bytesText(v) + "/s" }},
		{"bytes back", func(r *Result) float64 { return r.perSecond(r.BytesBack) }, func(v float64) string { return bytesText(v) + "/s" }},
	}
	for i, name := range []string{"connect", "upgrade", "message"} {
		rows = append(rows, diffRow{name + " mean", func(r *Result) float64 { return float64(r.stages()[i].Mean()) }, nanos})
		for _, p := range percentiles {
			rows = append(rows, diffRow{name + " " + p.name, func(r *Result) float64 { return float64(r.stages()[i].At(p.q)) }, nanos})
		}
	}
	for _, u := range []struct {
		name string
		get  func(r *Result) Usage
	}{{"client", func(r *Result) Usage { return r.Client }}, {"server", func(r *Result) Usage {
		if r.Server == nil {
			return Usage{}
		}
		return *r.Server
	}}} {
		rows = append(
			rows,
			diffRow{u.name + " CPU/message", func(r *Result) float64 { return u.get(r).CPUPerMsg }, micros},
			diffRow{u.name + " memory/connection", func(r *Result) float64 { return u.get(r).PerConn }, bytesText},
		)
	}
	return rows
}

// Diff compares two results: a is what was, b what is now, and the ratio is b
// over a. It says so when the two are not of the same thing.
func Diff(a, b *Result) Reporter {
	return func(w io.Writer) error {
		var s strings.Builder
		writeFacts(&s, []fact{{"a", a.about()}, {"b", b.about()}})
		t := table{Head: []string{"", "a", "b", "b/a"}}
		for _, row := range diffRows() {
			va, vb := row.get(a), row.get(b)
			if va <= 0 && vb <= 0 {
				continue
			}
			t.Rows = append(t.Rows, []string{row.name, known(va, row.write), known(vb, row.write), quotient(va, vb)})
		}
		ea, eb := a.failures(), b.failures()
		t.Rows = append(t.Rows, []string{"errors", count(ea), count(eb), ratioText(float64(ea), float64(eb))})
		s.WriteString("\n")
		writeTable(&s, t)
		if warnings := append(differences(a, b), remarks(a, b)...); len(warnings) > 0 {
			s.WriteString("\n")
			for _, line := range warnings {
				writeFolded(&s, "warning: ", line)
			}
		}
		_, err := io.WriteString(w, s.String())
		return err
	}
}

// quotient is ratioText of two figures of which 0 means unknown.
func quotient(a, b float64) string {
	if b == 0 {
		return "-"
	}
	return ratioText(a, b)
}

// about is one line about a result.
func (r *Result) about() string {
	return fmt.Sprintf("%s; %s, %s", r.title(), r.Start.UTC().Format("2006-01-02 15:04:05 UTC"), duration(time.Duration(r.Seconds*1e9)))
}

// differences names what makes a comparison of a and b doubtful.
func differences(a, b *Result) (lines []string) {
	for _, d := range []struct{ name, a, b string }{
		{"scenario", a.Scenario, b.Scenario},
		{"payload", sizes(a.SizeMin, a.SizeMax), sizes(b.SizeMin, b.SizeMax)},
		{"depth", count(a.Depth), count(b.Depth)},
		{"connections", count(a.Connections), count(b.Connections)},
		{"loop", a.Loop, b.Loop},
		{"rate asked for", rateText(a.Rate), rateText(b.Rate)},
		{"client processes", count(max(a.Processes, 1)), count(max(b.Processes, 1))},
		{"machine", a.Machine.text(), b.Machine.text()},
	} {
		if d.a != d.b {
			lines = append(lines, fmt.Sprintf("not the same %s: a %s, b %s", d.name, orNone(clean(d.a)), orNone(clean(d.b))))
		}
	}
	return lines
}

// remarks are what a and b say about themselves.
func remarks(a, b *Result) (lines []string) {
	for _, r := range []struct {
		name string
		*Result
	}{{"a", a}, {"b", b}} {
		for _, n := range r.summary().notes {
			lines = append(lines, r.name+" says: "+n)
		}
	}
	return lines
}

// text is the machine in one line.
func (m Machine) text() string {
	return clean(fmt.Sprintf("%s CPUs %s, %s, %s", count(m.CPUs), m.CPU, m.Kernel, m.Go))
}

func orNone(s string) string {
	if s == "" {
		return "none"
	}
	return s
}
