package bench

import (
	"encoding/xml"
	"errors"
	"io"
	"math"
	"regexp"
	"strings"
	"testing"
)

func TestPageIsAsInTheGoldenFile(t *testing.T) {
	golden(t, "report.html", written(t, sampleResult().HTML()))
}

func TestPageLoadsNothingAndRunsNothing(t *testing.T) {
	page := written(t, sampleResult().HTML())
	for _, bad := range []string{"<script", "<link", "<img", "<iframe", "src=", "href", "url(", "@import", "xmlns", "<?xml", "javascript:", "http://", "https://"} {
		if strings.Contains(page, bad) {
			t.Errorf("the page has %s", bad)
		}
	}
	for _, good := range []string{`content="default-src 'none'; style-src 'unsafe-inline'"`, `name="viewport"`, "prefers-color-scheme: dark"} {
		if !strings.Contains(page, good) {
			t.Errorf("the page lacks %s", good)
		}
	}
}

func TestPageEscapesAllTexts(t *testing.T) {
	const evil = `"><script>alert(1)</script><!--`
	r := sampleResult()
	r.Scenario, r.URLs, r.Command, r.Notes = "echo"+evil, []string{"ws://h/" + evil}, []string{evil}, []string{evil}
	r.Machine = Machine{Kernel: evil, CPU: evil, Go: evil}
	r.Errors = []ErrorCount{{Kind: evil, Detail: evil, Count: 1}}
	r.Loop = evil
	page := written(t, r.HTML())
	if strings.Contains(page, "<script") || strings.Contains(page, "alert(1)<") || strings.Contains(page, `"><`+"script") {
		t.Error("a text came through as it was")
	}
	if got := strings.Count(page, "&lt;script&gt;"); got < 9 {
		t.Errorf("%d texts of 9 and more", got)
	}
}

// The pictures must be well formed, have a size that follows the page, and no
// coordinate that is no number.
func TestPicturesAreWellFormedAndScale(t *testing.T) {
	page := written(t, sampleResult().HTML())
	pictures := regexp.MustCompile(`(?s)<svg.*?</svg>`).FindAllString(page, -1)
	if len(pictures) != 6 {
		t.Errorf("%d pictures; latency, percentiles, throughput, errors, processors and memory are 6", len(pictures))
	}
	for _, p := range pictures {
		if !strings.HasPrefix(p, `<svg viewBox="0 0 400 225" role="img" aria-label="`) || strings.Contains(p, "NaN") || strings.Contains(p, "Inf") {
			t.Errorf("%.200s", p)
		}
		for d := xml.NewDecoder(strings.NewReader(p)); ; {
			if _, err := d.Token(); errors.Is(err, io.EOF) {
				break
			} else if err != nil {
				t.Fatalf("%v in %.200s", err, p)
			}
		}
	}
}

func TestChartsAreOnlyThoseThatHaveFigures(t *testing.T) {
	r := sampleResult()
	r.Message = Latency{}
	for i := range r.Series {
		s := &r.Series[i]
		*s = Sample{At: s.At, Open: 100 * i, ClientCPU: s.ClientCPU}
	}
	charts, err := r.charts()
	if err != nil {
		t.Fatal(err)
	}
	var titles []string
	for _, c := range charts {
		titles = append(titles, c.Title)
	}
	if got := strings.Join(titles, ", "); got != "Latency by percentile, Open connections, Processors in use" {
		t.Error(got)
	}
	if names := charts[0].Lines; len(names) != 2 || names[0].Name != "connect" || names[1].Name != "upgrade" {
		t.Errorf("without messages the percentiles are of %v", names)
	}
}

func TestChartsOfOddResultsAreDrawn(t *testing.T) {
	for name, change := range map[string]func(r *Result){
		"no series":          func(r *Result) { r.Series = nil },
		"one sample":         func(r *Result) { r.Series = r.Series[:1] },
		"silence in between": func(r *Result) { r.Series[3].P50, r.Series[3].P99, r.Series[3].Max = 0, 0, 0 },
		"one message": func(r *Result) {
			r.Message = Latency{}
			r.Message.Record(5e6)
		},
		"an hour of latency": func(r *Result) { r.Series[3].Max = 3.6e6; r.Message.Record(latencyMax) },
		"no latency at all":  func(r *Result) { r.Message = Latency{}; r.Message.Record(0) },
		"time that stands":   func(r *Result) { r.Series[3].At = r.Series[2].At },
		"time at 0": func(r *Result) {
			for i := range r.Series {
				r.Series[i].At = 0
			}
		},
		"not a number": func(r *Result) { r.Series[3].P99 = math.NaN() },
	} {
		t.Run(name, func(t *testing.T) {
			r := sampleResult()
			change(r)
			if page := written(t, r.HTML()); strings.Contains(page, "NaN") {
				t.Error("the page says NaN")
			}
		})
	}
}

func TestLongSeriesAreThinned(t *testing.T) {
	var series []Sample
	for i := range 3601 {
		series = append(series, Sample{At: float64(i + 1), Messages: 10, Errors: 1, P50: 1, P99: 2, Max: float64(i), ClientCPU: 0.5, Open: i})
	}
	thinned, each := thin(series, maxPoints)
	if each != 7 || len(thinned) > maxPoints {
		t.Fatalf("%d points, %d in one", len(thinned), each)
	}
	var messages uint64
	for _, s := range thinned {
		messages += s.Messages
		if math.Abs(s.ClientCPU-0.5) > 1e-9 {
			t.Fatalf("%+v", s)
		}
	}
	if last := thinned[len(thinned)-1]; messages != 36_010 || thinned[0].Max != 6 || thinned[0].At != 7 || last.At != 3601 {
		t.Errorf("%d messages, %+v to %+v", messages, thinned[0], last)
	}
	if same, one := thin(series[:maxPoints], maxPoints); one != 1 || len(same) != maxPoints {
		t.Errorf("%d points, %d in one", len(same), one)
	}
}

func TestAxesEncloseTheirValuesWithFewRoundTicks(t *testing.T) {
	for top := 1e-4; top < 1e9; top *= 1.07 {
		a := linear(top, tickCount)
		if n := len(a.ticks); a.max < top*0.9999 || n < 3 || n > 7 || a.max > 2*top {
			t.Errorf("0 to %g: %d ticks to %g", top, n, a.max)
		}
		for _, most := range []float64{top * 1.5, top * 9, top * 4321, top * 1e6} {
			a := logarithmic(top, most, tickTime)
			labels := 0
			for _, k := range a.ticks {
				if k.Label != "" {
					labels++
				}
			}
			if a.min > top || a.max < most*0.9999 || labels < 2 || labels > 9 {
				t.Errorf("%g to %g: %d labels from %g to %g", top, most, labels, a.min, a.max)
			}
		}
	}
	for most := 10.0; most < 1e12; most *= 3 {
		if n := len(percentileAxis(most).ticks); n < 3 || n > 15 {
			t.Errorf("%g: %d ticks", most, n)
		}
	}
}
