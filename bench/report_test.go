package bench

import (
	"bytes"
	"encoding/json"
	"flag"
	"math"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

var update = flag.Bool("update", false, "write the golden files of the reports")

// sampleResult is a small result with everything in it, always the same.
func sampleResult() *Result {
	r := &Result{
		Version: 1, Scenario: "echo",
		Command: []string{"wspoll", "bench", "echo", "-c", "1000", "--header", "X-Who: <me>", "ws://127.0.0.1:8002/wshandler"},
		Machine: Machine{Kernel: "Linux 6.18", CPU: "AMD EPYC <test>", CPUs: 2, Go: "go1.26.8"},
		Start:   time.Date(2026, 11, 23, 2, 0, 0, 0, time.UTC), Seconds: 5,
		URLs: []string{"ws://127.0.0.1:8002/wshandler"}, Loop: "closed",
		Connections: 1000, SizeMin: 32, SizeMax: 1024, Depth: 2, Processes: 2,
		Opened: 998, Sent: 50_060, Messages: 50_000, BytesSent: 26_431_680, BytesBack: 26_400_000, InFlight: 57,
		Errors: []ErrorCount{
			{Kind: "wrong echo", Detail: "byte 7 of 32", Count: 3},
			{Kind: "refused", Detail: "", Count: 1},
			{Kind: "upgrade refused", Detail: "HTTP 503 <b>\x1b[31m", Count: 1_200},
		},
		Client: Usage{PID: 10, CPUSeconds: 0.405, CPUPerMsg: 8.1, Private: 9 << 20, PerConn: 487, Threads: 5, Descriptors: 1006},
		Server: &Usage{PID: 11, CPUSeconds: 0.59, CPUPerMsg: 11.8, Private: 3 << 20, PerConn: 111, Threads: 6, Descriptors: 1011},
		Notes:  []string{"the client was busy 97 % of the time: these are its limits & not the server's"},
	}
	random := rand.New(rand.NewPCG(1, 2))
	for range 998 {
		r.Connect.Record(int64(40e3 * math.Exp(random.NormFloat64()/3)))
		r.Upgrade.Record(int64(180e3 * math.Exp(random.NormFloat64()/3)))
	}
	for range 50_000 {
		r.Message.Record(int64(300e3 * math.Exp(random.NormFloat64()/2)))
	}
	r.Message.Record(int64(104 * time.Millisecond))
	for i := range 10 {
		s := Sample{
			At: float64(i+1) / 2, Open: 998, Messages: uint64(4800 + 37*(i*7%11)), P50: 0.3 + 0.01*float64(i%3), P99: 0.95 + 0.2*float64(i%4),
			Max: 2 + float64(i%5), ClientCPU: 0.9 + 0.01*float64(i%4), ServerCPU: 0.6 + 0.02*float64(i%3), ServerPrivate: 3<<20 - int64(9-i)<<14,
		}
		if i == 6 {
			s.Max, s.Errors = 104, 4
		}
		r.Series = append(r.Series, s)
	}
	return r
}

// written is what a reporter writes.
func written(t *testing.T, report Reporter) string {
	t.Helper()
	var b bytes.Buffer
	if err := report(&b); err != nil {
		t.Fatal(err)
	}
	return b.String()
}

// golden compares with a file of testdata, or writes it with -update.
func golden(t *testing.T, name, got string) {
	t.Helper()
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.MkdirAll("testdata", 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(got), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got == string(want) {
		return
	}
	g, w := strings.Split(got, "\n"), strings.Split(string(want), "\n")
	for i := range max(len(g), len(w)) {
		if i >= len(g) || i >= len(w) || g[i] != w[i] {
			t.Fatalf("%s differs from line %d on (go test ./bench -run %s -update writes it anew)\ngot  %q\nwant %q",
				path, i+1, t.Name(), g[min(i, len(g)-1)], w[min(i, len(w)-1)])
		}
	}
}

func TestTextIsAsInTheGoldenFile(t *testing.T) {
	golden(t, "report.txt", written(t, sampleResult().Text()))
}

func TestTextOfOtherScenariosIsAsInTheGoldenFiles(t *testing.T) {
	open := sampleResult()
	open.Loop, open.Rate, open.Unsent, open.SlipSeconds, open.Server, open.Interrupted = "open", 10_000, 812, 0.0123, nil, true
	open.Errors, open.Notes = nil, nil
	golden(t, "report_open.txt", written(t, open.Text()))

	connect := sampleResult()
	connect.Scenario, connect.Loop, connect.Message, connect.Depth = "connect", "", Latency{}, 0
	connect.Sent, connect.Messages, connect.BytesSent, connect.BytesBack, connect.InFlight = 0, 0, 0, 0, 0
	connect.Client.CPUPerMsg, connect.Server.CPUPerMsg = 0, 0
	golden(t, "report_connect.txt", written(t, connect.Text()))
}

func TestTextOfAnEmptyResultIsShort(t *testing.T) {
	text := written(t, (&Result{Scenario: "idle"}).Text())
	if strings.Contains(text, "NaN") || strings.Count(text, "\n") > 8 {
		t.Errorf("%s", text)
	}
	for _, report := range []Reporter{(&Result{}).JSON(), (&Result{}).HDR(), (&Result{}).HTML(), Diff(&Result{}, &Result{})} {
		if s := written(t, report); strings.Contains(s, "NaN") {
			t.Errorf("%s", s)
		}
	}
}

func TestTextsOfThePeerCannotMoveTheCursor(t *testing.T) {
	r := sampleResult()
	r.Errors = []ErrorCount{{Kind: "closed", Detail: "1008 \x1b[2J\r\nfine\u202e" + strings.Repeat("x", 1000), Count: 1}}
	r.Notes = []string{"a\x1b]0;title\a"}
	for line := range strings.Lines(written(t, r.Text())) {
		if strings.ContainsAny(line, "\x1b\r\a\u202e") || len(line) > 400 {
			t.Errorf("%q", line)
		}
	}
}

func TestManyKindsOfErrorsAreSummedUp(t *testing.T) {
	r := &Result{}
	for i := range 50 {
		r.Errors = append(r.Errors, ErrorCount{Kind: "closed", Detail: strconv.Itoa(4000 + i), Count: uint64(i + 1)})
	}
	rows := r.errorTable().Rows
	if got := rows[len(rows)-2:]; len(rows) != errorRows+2 || got[0][1] != "465" || got[1][1] != "1,275" {
		t.Errorf("%d rows, the last are %q", len(rows), got)
	}
	if rows[0][1] != "50" || r.Errors[0].Count != 1 {
		t.Errorf("first row %q, first of the result %v", rows[0], r.Errors[0])
	}
}

func TestHDRIsAsInTheGoldenFile(t *testing.T) {
	golden(t, "report.hgrm", written(t, sampleResult().HDR()))
}

// What the plotters do: split at spaces, skip what begins with # and the head.
func TestHDRReadsBackAsOrderedPercentilesOfTheSameHistogram(t *testing.T) {
	r := sampleResult()
	lines := strings.Split(strings.TrimSpace(written(t, r.HDR())), "\n")
	if f := strings.Fields(lines[0]); !slices.Equal(f, []string{"Value", "Percentile", "TotalCount", "1/(1-Percentile)"}) || lines[1] != "" {
		t.Fatalf("head %q", lines[:2])
	}
	var last [3]float64
	rows, footers := 0, 0
	for _, line := range lines[2:] {
		if line[0] == '#' {
			footers++
			continue
		}
		rows++
		f := strings.Fields(line)
		var v [3]float64
		for i := range v {
			var err error
			if v[i], err = strconv.ParseFloat(f[i], 64); err != nil || v[i] < last[i] {
				t.Fatalf("%q after %v: %v", line, last, err)
			}
		}
		if len(f) != 4 || v[1] < 1 && f[3] == "inf" {
			t.Errorf("%q", line)
		}
		last = v
	}
	if rows < 40 || footers != 3 || last[1] != 1 || last[2] != float64(r.Message.Count()) || math.Abs(last[0]-ms(r.Message.At(100))) > 0.001 {
		t.Errorf("%d rows, %d footers, the last row is %v", rows, footers, last)
	}
}

func TestHDRWithoutMessagesIsOfTheUpgrade(t *testing.T) {
	r := sampleResult()
	r.Message = Latency{}
	if text := written(t, r.HDR()); !strings.Contains(text, "Total count    =          998]") {
		t.Error(text)
	}
}

func TestJSONReadsBackTheSame(t *testing.T) {
	r := sampleResult()
	path := filepath.Join(t.TempDir(), "r.json")
	text := written(t, r.JSON())
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	back, err := ReadResult(path)
	if err != nil {
		t.Fatal(err)
	}
	for i, s := range r.stages() {
		got := back.stages()[i]
		if !s.Histogram().Equals(got.Histogram()) || s.Mean() != got.Mean() {
			t.Errorf("%s: another histogram", s.name)
		}
		for q := 0.0; q <= 100; q += 0.1 {
			if s.At(q) != got.At(q) {
				t.Fatalf("%s: p%.1f is %v, was %v", s.name, q, got.At(q), s.At(q))
			}
		}
	}
	if again := written(t, back.JSON()); again != text {
		t.Error("written again it is not the same")
	}
	if again := written(t, back.Text()); again != written(t, r.Text()) {
		t.Error("as text it is not the same")
	}
}

func TestJSONHasTheFiguresForScripts(t *testing.T) {
	var got struct {
		Figures figures
	}
	if err := json.Unmarshal([]byte(written(t, sampleResult().JSON())), &got); err != nil {
		t.Fatal(err)
	}
	want := figures{Rate: 10_000, SentRate: 10_012, ByteRate: 5_280_000, ByteOutRate: 5_286_336, Errors: 1204}
	if got.Figures != want {
		t.Errorf("%+v, want %+v", got.Figures, want)
	}
}
