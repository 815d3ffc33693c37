package bench

import (
	"strings"
	"testing"
)

func TestDiffIsAsInTheGoldenFile(t *testing.T) {
	a, b := sampleResult(), sampleResult()
	b.Start = b.Start.AddDate(0, 0, 1)
	b.Seconds, b.Messages, b.Client.CPUPerMsg, b.Client.PerConn, b.Errors = 4, 60_000, 6.5, 430, nil
	b.Message = Latency{}
	for i := range int64(60_000) {
		b.Message.Record(100_000 + i*10)
	}
	golden(t, "diff.txt", written(t, Diff(a, b)))
}

func TestDiffOfTheSameHasRatiosOfOneAndNoWarnings(t *testing.T) {
	a, b := sampleResult(), sampleResult()
	a.Notes, b.Notes = nil, nil
	text := written(t, Diff(a, b))
	if strings.Contains(text, "warning") {
		t.Error(text)
	}
	_, body, _ := strings.Cut(text, "b/a\n")
	rows := 0
	for line := range strings.Lines(body) {
		if rows++; !strings.HasSuffix(line, "  1.00\n") {
			t.Errorf("%q", line)
		}
	}
	if rows < 24 {
		t.Errorf("%d rows:\n%s", rows, text)
	}
}

func TestDiffWarnsOfEachThingThatIsNotTheSame(t *testing.T) {
	for _, c := range []struct {
		change func(r *Result)
		says   string
	}{
		{func(r *Result) { r.Scenario = "push" }, "not the same scenario: a echo, b push"},
		{func(r *Result) { r.SizeMax = 2048 }, "not the same payload: a 32 B to 1 KiB, b 32 B to 2 KiB"},
		{func(r *Result) { r.Depth = 16 }, "not the same depth: a 2, b 16"},
		{func(r *Result) { r.Connections = 64 }, "not the same connections: a 1,000, b 64"},
		{func(r *Result) { r.Loop = "open" }, "not the same loop: a closed, b open"},
		{func(r *Result) { r.Loop = "" }, "not the same loop: a closed, b none"},
		{func(r *Result) { r.Rate = 500 }, "not the same rate asked for: a 0.00/s, b 500/s"},
		{func(r *Result) { r.Processes = 1 }, "not the same client processes: a 2, b 1"},
		{func(r *Result) { r.Machine.Kernel = "Linux 7.0" }, "Linux 7.0"},
		{func(r *Result) { r.Machine.CPUs = 4 }, "b 4 CPUs"},
		{func(r *Result) { r.Machine.Go = "go1.27" }, "go1.27"},
		{func(r *Result) { r.Interrupted = true }, "b says: interrupted early"},
		{func(r *Result) { r.Notes = []string{"too slow"} }, "b says: too slow"},
	} {
		a, b := sampleResult(), sampleResult()
		a.Notes, b.Notes = nil, nil
		c.change(b)
		text := strings.Join(strings.Fields(written(t, Diff(a, b))), " ")
		if strings.Count(text, "warning: ") != 1 || !strings.Contains(text, c.says) {
			t.Errorf("want one warning %q:\n%s", c.says, text)
		}
	}
}

func TestDiffHasNoRatioOfWhatOneDoesNotKnow(t *testing.T) {
	a, b := sampleResult(), sampleResult()
	a.Server = nil
	b.Client.PerConn = 0
	for line := range strings.Lines(written(t, Diff(a, b))) {
		unknown := strings.Contains(line, "server CPU/message") || strings.Contains(line, "client memory/connection")
		if unknown && !strings.HasSuffix(line, "  -\n") {
			t.Errorf("%q", line)
		}
	}
}
