package conform

import (
	"encoding/json"
	"encoding/xml"
	"fmt"
	"io"
	"strings"
	"time"
	"unicode"
)

// Report is the outcome of a run.
type Report struct {
	Peer    string        `json:"peer"` // the URL of the server, or the name of the client
	Started time.Time     `json:"started"`
	Took    time.Duration `json:"nanoseconds"`
	Cases   int           `json:"cases"`  // that were to be run
	Strict  bool          `json:"strict"` // non-strict counts as failed
	Counts  Counts        `json:"counts"`
	Results []Result      `json:"results"`
}

// Counts are how many results have each verdict.
type Counts struct {
	OK            int `json:"ok"`
	NonStrict     int `json:"non_strict"`
	Failed        int `json:"failed"`
	Unimplemented int `json:"unimplemented"`
	Missing       int `json:"missing"` // cases that were not run
}

func (c *Counts) add(v Verdict) {
	switch v {
	case OK:
		c.OK++
	case NonStrict:
		c.NonStrict++
	case Failed:
		c.Failed++
	case Unimplemented:
		c.Unimplemented++
	}
}

// words are the counts that are not zero.
func (c *Counts) words() string {
	var parts []string
	for _, p := range []struct {
		n    int
		what string
	}{{c.OK, "ok"}, {c.NonStrict, "non-strict"}, {c.Failed, "failed"}, {c.Unimplemented, "unimplemented"}, {c.Missing, "not run"}} {
		if p.n > 0 {
			parts = append(parts, fmt.Sprintf("%d %s", p.n, p.what))
		}
	}
	return strings.Join(parts, ", ")
}

// NewReport counts results; cases is how many there should be.
func NewReport(peer string, started time.Time, cases int, strict bool, results []Result) *Report {
	r := &Report{Peer: peer, Started: started, Took: time.Since(started), Cases: cases, Strict: strict, Results: results}
	for i := range results {
		r.Counts.add(results[i].Verdict)
	}
	r.Counts.Missing = cases - len(results)
	return r
}

// Passed reports whether nothing failed and nothing is missing.
func (r *Report) Passed() bool {
	return r.Counts.Failed == 0 && r.Counts.Missing == 0 && (!r.Strict || r.Counts.NonStrict == 0)
}

// bad reports whether a verdict is worth telling in full, and why.
func (r *Report) bad(v Verdict) bool { return v == Failed || v == NonStrict }

// Text writes the report for people: the cases that are not ok, with what was said on the wire, a line for each section,
// and the sum.
func (r *Report) Text(w io.Writer) error {
	var b strings.Builder
	for i := range r.Results {
		if c := &r.Results[i]; r.bad(c.Verdict) {
			c.text(&b)
		}
	}
	sections, counts := r.sections()
	for i, s := range sections {
		fmt.Fprintf(&b, "%-18s %s\n", s, counts[i].words())
	}
	fmt.Fprintf(&b, "\n%s: %d cases in %.1f s: %s\n", r.Peer, r.Cases, r.Took.Seconds(), r.Counts.words())
	_, err := io.WriteString(w, b.String())
	return err
}

// text is one result in full.
func (c *Result) text(b *strings.Builder) {
	fmt.Fprintf(b, "%s  %s\n  %s\n", c.Verdict, c.ID, c.Sentence)
	for _, m := range c.Remarks {
		fmt.Fprintf(b, "  %s: %s\n", m.Verdict, printable(m.Text))
	}
	for _, l := range c.Explained {
		fmt.Fprintf(b, "    %s\n", l)
	}
	b.WriteString("\n")
}

// sections are the sections of the results in their order, and the counts of each.
func (r *Report) sections() (names []string, counts []Counts) {
	for i := range r.Results {
		c := &r.Results[i]
		if n := len(names); n == 0 || names[n-1] != c.Section {
			names, counts = append(names, c.Section), append(counts, Counts{})
		}
		counts[len(counts)-1].add(c.Verdict)
	}
	return names, counts
}

// JSON writes all of the report.
func (r *Report) JSON(w io.Writer) error {
	e := json.NewEncoder(w)
	e.SetIndent("", " ")
	e.SetEscapeHTML(false)
	return e.Encode(r)
}

// junit is the format that build servers read, as far as it is the same everywhere.
type junit struct {
	XMLName  xml.Name     `xml:"testsuites"`
	Name     string       `xml:"name,attr"`
	Tests    int          `xml:"tests,attr"`
	Failures int          `xml:"failures,attr"`
	Skipped  int          `xml:"skipped,attr"`
	Time     string       `xml:"time,attr"`
	Suites   []junitSuite `xml:"testsuite"`
}

type junitSuite struct {
	Name     string      `xml:"name,attr"`
	Tests    int         `xml:"tests,attr"`
	Failures int         `xml:"failures,attr"`
	Skipped  int         `xml:"skipped,attr"`
	Time     string      `xml:"time,attr"`
	Cases    []junitCase `xml:"testcase"`
}

type junitCase struct {
	Name    string        `xml:"name,attr"`
	Class   string        `xml:"classname,attr"`
	Time    string        `xml:"time,attr"`
	Failure *junitMessage `xml:"failure"`
	Skipped *junitMessage `xml:"skipped"`
	Out     string        `xml:"system-out,omitempty"`
}

type junitMessage struct {
	Message string `xml:"message,attr"`
	Text    string `xml:",chardata"`
}

// JUnit writes the report as JUnit XML: a suite for each section. Non-strict is a failure only when it counts as one,
// unimplemented is skipped.
func (r *Report) JUnit(w io.Writer) error {
	seconds := func(d time.Duration) string { return fmt.Sprintf("%.6f", d.Seconds()) }
	x := junit{Name: "wspoll conform " + r.Peer, Time: seconds(r.Took)}
	var took time.Duration
	for i := range r.Results {
		c := &r.Results[i]
		if n := len(x.Suites); n == 0 || x.Suites[n-1].Name != c.Section {
			x.Suites, took = append(x.Suites, junitSuite{Name: c.Section}), 0
		}
		s := &x.Suites[len(x.Suites)-1]
		took += c.Took
		s.Time = seconds(took)
		j := junitCase{Name: c.ID, Class: c.Section, Time: seconds(c.Took)}
		message := &junitMessage{Message: c.Why()}
		switch {
		case c.Verdict == Failed || c.Verdict == NonStrict && r.Strict:
			var b strings.Builder
			c.text(&b)
			message.Text = b.String()
			j.Failure = message
			s.Failures++
			x.Failures++
		case c.Verdict == Unimplemented:
			j.Skipped = message
			s.Skipped++
			x.Skipped++
		default:
			j.Out = printable(c.Why())
		}
		message.Message = printable(message.Message)
		s.Tests++
		x.Tests++
		s.Cases = append(s.Cases, j)
	}
	if _, err := io.WriteString(w, xml.Header); err != nil {
		return err
	}
	e := xml.NewEncoder(w)
	e.Indent("", " ")
	if err := e.Encode(x); err != nil {
		return err
	}
	_, err := io.WriteString(w, "\n")
	return err
}

// printable takes out of s what XML 1.0 cannot hold and terminals should not get.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		if !unicode.IsGraphic(r) && r != '\n' && r != '\t' {
			return '�'
		}
		return r
	}, s)
}

// Why is the worst remark of a result, or all remarks of one that is ok.
func (c *Result) Why() string {
	var parts []string
	for _, m := range c.Remarks {
		if m.Verdict == c.Verdict {
			parts = append(parts, m.Text)
		}
	}
	return strings.Join(parts, "; ")
}

// listed is a case in a list.
type listed struct {
	ID       string `json:"id"`
	Section  string `json:"section"`
	Sentence string `json:"sentence"`
}

// List writes the ids and sentences of cases.
func List(w io.Writer, cases []Case) error {
	for i := range cases {
		if _, err := fmt.Fprintf(w, "%s\n    %s\n", cases[i].ID, cases[i].Sentence); err != nil {
			return err
		}
	}
	return nil
}

// ListJSON is List for machines.
func ListJSON(w io.Writer, cases []Case) error {
	list := make([]listed, len(cases))
	for i := range cases {
		list[i] = listed{cases[i].ID, cases[i].Section(), cases[i].Sentence}
	}
	e := json.NewEncoder(w)
	e.SetIndent("", " ")
	e.SetEscapeHTML(false)
	return e.Encode(list)
}
