package bench

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"math"
	"slices"
	"strings"
	"unicode/utf8"

	"github.com/HdrHistogram/hdrhistogram-go"
)

// Reporter writes a report.
type Reporter func(io.Writer) error

// textWidth is where the lines of a text report are folded. Tables are not.
const textWidth = 90

// Text is the summary for people, on a terminal or in the log of a CI run.
func (r *Result) Text() Reporter {
	return func(w io.Writer) error {
		s := r.summary()
		var b strings.Builder
		b.WriteString(s.title + "\n")
		writeFacts(&b, s.facts)
		for i, t := range []table{s.latency, s.errors, s.cost} {
			if len(t.Rows) > 0 {
				b.WriteString("\n")
				writeTable(&b, t)
			} else if i == 1 {
				b.WriteString("\n  no errors\n")
			}
		}
		if len(s.notes) > 0 {
			b.WriteString("\n")
		}
		for _, n := range s.notes {
			writeFolded(&b, "note: ", n)
		}
		_, err := io.WriteString(w, b.String())
		return err
	}
}

// writeFacts writes names and texts in two columns.
func writeFacts(b *strings.Builder, facts []fact) {
	width := 0
	for _, f := range facts {
		width = max(width, utf8.RuneCountInString(f.Name))
	}
	for _, f := range facts {
		writeFolded(b, fmt.Sprintf("  %-*s  ", width, f.Name), f.Text)
	}
}

// writeFolded writes the text after head, in lines of at most textWidth that
// all begin below the first one's text.
func writeFolded(b *strings.Builder, head, text string) {
	indent := strings.Repeat(" ", utf8.RuneCountInString(head))
	line := head
	used := false
	for word := range strings.FieldsSeq(text) {
		if used && utf8.RuneCountInString(line)+1+utf8.RuneCountInString(word) > textWidth {
			b.WriteString(line + "\n")
			line, used = indent, false
		}
		if used {
			line += " "
		}
		line, used = line+word, true
	}
	b.WriteString(strings.TrimRight(line, " ") + "\n")
}

// writeTable writes the columns aligned, two spaces apart.
func writeTable(b *strings.Builder, t table) {
	widths := make([]int, len(t.Head))
	all := append([][]string{t.Head}, t.Rows...)
	for _, row := range all {
		for i, cell := range row {
			widths[i] = max(widths[i], utf8.RuneCountInString(cell))
		}
	}
	for _, row := range all {
		var line strings.Builder
		for i, cell := range row {
			pad := strings.Repeat(" ", widths[i]-utf8.RuneCountInString(cell))
			if i == 0 || slices.Contains(t.left, i) {
				line.WriteString("  " + cell + pad)
			} else {
				line.WriteString("  " + pad + cell)
			}
		}
		b.WriteString(strings.TrimRight(line.String(), " ") + "\n")
	}
}

// figures are in a JSON report what follows from the counts, for scripts that
// would rather not divide. Reading a result does not need them.
type figures struct {
	Rate        float64 `json:"messages_per_second"`
	SentRate    float64 `json:"sent_per_second"`
	OpenedRate  float64 `json:"opened_per_second,omitempty"` // scenario connect only
	ByteRate    float64 `json:"bytes_back_per_second"`
	ByteOutRate float64 `json:"bytes_sent_per_second"`
	Errors      uint64  `json:"errors"`
}

func (r *Result) figures() figures {
	f := figures{
		Rate: r.perSecond(r.Messages), SentRate: r.perSecond(r.Sent),
		ByteRate: r.perSecond(r.BytesBack), ByteOutRate: r.perSecond(r.BytesSent), Errors: r.failures(),
	}
	if r.Scenario == "connect" {
		f.OpenedRate = r.openedPerSecond()
	}
	return f
}

// JSON is the whole result, which ReadResult reads back, and beside it the
// figures that follow from it.
func (r *Result) JSON() Reporter {
	return func(w io.Writer) error {
		e := json.NewEncoder(w)
		e.SetIndent("", "  ")
		e.SetEscapeHTML(false)
		return e.Encode(struct {
			*Result
			Figures figures `json:"figures"`
		}{r, r.figures()})
	}
}

// ticks is how many lines a percentile distribution has for each halving of
// the distance to 100 %; 5 is what the other programs take.
const ticks = 5

// HDR is the percentile distribution of the message latency in milliseconds,
// the .hgrm file that the plotters of HdrHistogram read. A run without
// messages (scenario connect, idle) has that of the upgrade instead.
func (r *Result) HDR() Reporter {
	return func(w io.Writer) error {
		h := r.Message.Histogram()
		if h == nil {
			h = r.Upgrade.Histogram()
		}
		if h == nil {
			h = hdrhistogram.New(latencyMin, latencyMax, latencyDigits)
		}
		var b bytes.Buffer
		// The library's own lines have six digits of the percentile, too few
		// from a million messages on, and a header with tabs. These are as
		// the Java and C libraries write them.
		fmt.Fprintf(&b, "%12s %14s %10s %14s\n\n", "Value", "Percentile", "TotalCount", "1/(1-Percentile)")
		for _, p := range distribution(h) {
			fmt.Fprintf(&b, "%12.3f %2.12f %10d ", float64(p.ValueAt)/1e6, p.Quantile/100, p.Count)
			if x := 1 / (1 - p.Quantile/100); math.IsInf(x, 0) {
				fmt.Fprintf(&b, "%14s\n", "inf")
			} else {
				fmt.Fprintf(&b, "%14.2f\n", x)
			}
		}
		var lines bytes.Buffer
		if _, err := h.PercentilesPrint(&lines, 1, 1e6); err != nil {
			return err
		}
		for line := range bytes.Lines(lines.Bytes()) {
			if line[0] == '#' {
				b.Write(line)
			}
		}
		_, err := w.Write(b.Bytes())
		return err
	}
}

// distribution is the percentile distribution of h; empty when h is.
func distribution(h *hdrhistogram.Histogram) []hdrhistogram.Bracket {
	if h == nil || h.TotalCount() == 0 {
		return nil
	}
	return h.CumulativeDistributionWithTicks(ticks)
}
