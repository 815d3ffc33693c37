package bench

import (
	"cmp"
	"encoding/json"
	"html"
	"math"
	"math/rand/v2"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"
)

func TestNumbersAreWrittenShortAndWithTheirUnit(t *testing.T) {
	for _, c := range []struct{ got, want string }{
		{duration(0), "0us"},
		{duration(1540), "1.54us"},
		{duration(123 * time.Microsecond), "123us"},
		{duration(999_499), "999us"},
		{duration(999_500), "1.00ms"},
		{duration(4_560_000), "4.56ms"},
		{duration(9_996_000), "10.0ms"},
		{duration(99_960_000), "100ms"},
		{duration(999_600_000), "1.00s"},
		{duration(1_230_000_000), "1.23s"},
		{duration(time.Hour), "3,600s"},
		{count(0), "0"},
		{count(999), "999"},
		{count(1_000), "1,000"},
		{count(1_234_567), "1,234,567"},
		{count(uint64(math.MaxUint64)), "18,446,744,073,709,551,615"},
		{count(-1_234), "-1,234"},
		{count(-123), "-123"},
		{bytesText(0), "0 B"},
		{bytesText(512), "512 B"},
		{bytesText(487.25), "487 B"},
		{bytesText(1023.9), "1.00 KiB"},
		{bytesText(1260), "1.23 KiB"},
		{bytesText(64 << 20), "64.0 MiB"},
		{bytesText(3 << 30), "3.00 GiB"},
		{bytesText(5 << 40), "5.00 TiB"},
		{sizes(32, 32), "32 B"},
		{sizes(1000, 1100), "1,000 B to 1,100 B"},
		{sizes(16<<10, 1<<20), "16 KiB to 1 MiB"},
		{rateText(12_345.6), "12,346/s"},
		{rateText(0.5), "0.50/s"},
		{ratioText(2, 3), "1.50"},
		{ratioText(1000, 2), "0.002"},
		{ratioText(0, 3), "-"},
		{ratioText(3, 0), "0.00"},
		{shell([]string{"wspoll", "--header", "A: it's", "", "ws://h:1/a?b=c"}), `wspoll --header 'A: it'\''s' '' 'ws://h:1/a?b=c'`},
	} {
		if c.got != c.want {
			t.Errorf("%s, want %s", c.got, c.want)
		}
	}
}

// latencies of a text report: name to its cells, count first.
func cells(text string) map[string][]string {
	rows := map[string][]string{}
	for line := range strings.Lines(text) {
		if f := strings.Fields(line); len(f) == 8 && slices.Contains([]string{"connect", "upgrade", "message"}, f[0]) {
			rows[f[0]] = f[1:]
		}
	}
	return rows
}

var tag = regexp.MustCompile(`<[^>]*>`)

// plainPage is the page without its pictures and tags: one line per row.
func plainPage(page string) string {
	page = regexp.MustCompile(`(?s)<(svg|style).*?</(svg|style)>`).ReplaceAllString(page, "")
	page = regexp.MustCompile(`</t[dh]>|</dt>`).ReplaceAllString(page, "  ")
	return html.UnescapeString(tag.ReplaceAllString(page, ""))
}

func TestTextPageAndJSONSayTheSameNumbers(t *testing.T) {
	r := sampleResult()
	text, page := written(t, r.Text()), plainPage(written(t, r.HTML()))
	fromText, fromPage := cells(text), cells(page)

	var j map[string]json.RawMessage
	if err := json.Unmarshal([]byte(written(t, r.JSON())), &j); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"connect", "upgrade", "message"} {
		var l latencyJSON
		if err := json.Unmarshal(j[name], &l); err != nil {
			t.Fatal(err)
		}
		want := []string{count(l.Count)}
		for _, v := range []float64{l.Mean, l.P50, l.P90, l.P99, l.P999, l.Max} {
			want = append(want, duration(time.Duration(math.Round(v*1e6))))
		}
		if !slices.Equal(fromText[name], want) || !slices.Equal(fromPage[name], want) {
			t.Errorf("%s:\nJSON %q\ntext %q\npage %q", name, want, fromText[name], fromPage[name])
		}
	}

	var f figures
	if err := json.Unmarshal(j["figures"], &f); err != nil {
		t.Fatal(err)
	}
	var raw Result
	if err := json.Unmarshal([]byte(written(t, r.JSON())), &raw); err != nil {
		t.Fatal(err)
	}
	want := []string{
		count(raw.Messages) + " messages, " + rateText(f.Rate) + ", " + bytesText(f.ByteRate) + "/s",
		count(raw.Sent) + " messages, " + rateText(f.SentRate) + ", " + bytesText(f.ByteOutRate) + "/s",
		count(f.Errors), micros(raw.Client.CPUPerMsg), micros(raw.Server.CPUPerMsg), bytesText(raw.Client.PerConn), bytesText(raw.Server.PerConn),
	}
	for _, e := range raw.Errors {
		want = append(want, e.Kind, count(e.Count), clean(e.Detail))
	}
	for _, w := range want {
		if !strings.Contains(text, w) || !strings.Contains(page, w) {
			t.Errorf("%q: in the text %t, in the page %t", w, strings.Contains(text, w), strings.Contains(page, w))
		}
	}
	// And the words are the same too, each fact and each row.
	squeeze := func(s string) string { return strings.Join(strings.Fields(s), " ") }
	s, words, pageWords := r.summary(), squeeze(text), squeeze(page)
	for _, f := range s.facts {
		if w := squeeze(f.Name + " " + f.Text); !strings.Contains(words, w) || !strings.Contains(pageWords, w) {
			t.Errorf("fact %q is not in both", w)
		}
	}
	for _, row := range slices.Concat(s.latency.Rows, s.errors.Rows, s.cost.Rows) {
		if w := squeeze(strings.Join(row, " ")); !strings.Contains(words, w) || !strings.Contains(pageWords, w) {
			t.Errorf("row %q is not in both", w)
		}
	}
}

// distributions are shapes of latencies, in nanoseconds.
var distributions = []struct {
	name string
	draw func(r *rand.Rand) float64
}{
	{"uniform to 10 ms", func(r *rand.Rand) float64 { return r.Float64() * 10e6 }},
	{"exponential, 1 ms", func(r *rand.Rand) float64 { return r.ExpFloat64() * 1e6 }},
	{"lognormal around 300 us", func(r *rand.Rand) float64 { return 300e3 * math.Exp(r.NormFloat64()) }},
	{"Pareto from 100 us", func(r *rand.Rand) float64 { return 100e3 / math.Pow(1-r.Float64(), 1/1.2) }},
	{"two humps, 200 us and 100 ms", func(r *rand.Rand) float64 {
		return []float64{200e3, 200e3, 200e3, 100e6}[r.IntN(4)] * (1 + r.NormFloat64()/20)
	}},
	{"always the same", func(*rand.Rand) float64 { return 1234567 }},
	{"below a microsecond and 0", func(r *rand.Rand) float64 { return r.Float64() * 1000 }},
	{"minutes", func(r *rand.Rand) float64 { return r.Float64() * 3000e9 }},
}

// inBucket reports whether got is the histogram's answer for the exact value:
// the top of its bucket, which is at most a thousandth wide, or 512 ns where
// that is more.
func inBucket(got time.Duration, exact int64) bool {
	d := int64(got) - exact
	return d >= 0 && d <= max(512, exact/1000)
}

func TestPercentilesAgreeWithASortedList(t *testing.T) {
	for i, d := range distributions {
		for round := range 20 {
			random := rand.New(rand.NewPCG(uint64(i), uint64(round)))
			var l Latency
			sorted := make([]int64, 1+random.IntN(5000))
			for k := range sorted {
				v := min(max(int64(d.draw(random)), 0), latencyMax)
				sorted[k] = v
				l.Record(v)
			}
			slices.Sort(sorted)
			last := time.Duration(0)
			for q := 0.0; q <= 100; q += 0.1 {
				got := l.At(q)
				if got < last {
					t.Fatalf("%s, round %d: p%.1f = %v is less than the one before, %v", d.name, round, q, got, last)
				}
				last = got
			}
			for _, p := range percentiles {
				// The rank that HdrHistogram takes: the nearest, from 1 to n.
				rank := min(max(int(p.q/100*float64(len(sorted))+0.5), 1), len(sorted))
				if got := l.At(p.q); !inBucket(got, sorted[rank-1]) {
					t.Errorf("%s, round %d, %d samples: %s = %v, the sorted list has %v", d.name, round, len(sorted), p.name, got, time.Duration(sorted[rank-1]))
				}
			}
			if l.Count() != int64(len(sorted)) {
				t.Errorf("%s: %d of %d counted", d.name, l.Count(), len(sorted))
			}
		}
	}
}

func TestMergeIsLikeRecordingAllInOne(t *testing.T) {
	for i, d := range distributions {
		random := rand.New(rand.NewPCG(uint64(i), 99))
		var one, sum Latency
		parts := make([]Latency, 5) // the last stays empty
		for range 20_000 {
			v := int64(d.draw(random))
			one.Record(v)
			parts[random.IntN(4)].Record(v)
		}
		for k := range parts {
			sum.Merge(&parts[k])
		}
		if !sum.Histogram().Equals(one.Histogram()) || cmp.Compare(sum.Mean(), one.Mean()) != 0 || sum.At(100) != one.At(100) {
			t.Errorf("%s: merged %v, in one %v", d.name, sum.At(99), one.At(99))
		}
	}
}
