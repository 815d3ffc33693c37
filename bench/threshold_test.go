package bench

import (
	"strings"
	"testing"
)

func TestThresholdsAreCheckedAndSayWhatTheyGot(t *testing.T) {
	r := sampleResult() // 10,000 messages/s, 1,204 errors
	r.Message = Latency{}
	for range 1000 {
		r.Message.Record(61_200_000)
	}
	r.Message.Record(100)
	for _, c := range []struct {
		text string
		ok   bool
		got  string
	}{
		{"p99<50ms", false, "p99 = 61.2ms, wanted < 50ms"},
		{"p99<61300us", true, "p99 = 61.2ms, wanted < 61300us"},
		{" p50 <= 0.07s ", true, "p50 = 61.2ms, wanted <= 0.07s"},
		{"p90>1s", false, "p90 = 61.2ms, wanted > 1s"},
		{"p99.9>=1ms", true, "p99.9 = 61.2ms, wanted >= 1ms"},
		{"max!=0us", true, "max = 61.2ms, wanted != 0us"},
		{"mean<1us", false, "mean = 61.1ms, wanted < 1us"},
		{"connect_p99<1s", true, "connect_p99 = 86.0us, wanted < 1s"},
		{"upgrade_p99<1us", false, "upgrade_p99 = 398us, wanted < 1us"},
		{"errors==0", false, "errors = 1,204, wanted == 0"},
		{"errors==1204", true, "errors = 1,204, wanted == 1204"},
		{"errors!=1204", false, "errors = 1,204, wanted != 1204"},
		{"rate>=10000", true, "rate = 10,000, wanted >= 10000"},
		{"rate>10000", false, "rate = 10,000, wanted > 10000"},
		{"messages>=50001", false, "messages = 50,000, wanted >= 50001"},
		{"opened==998", true, "opened = 998, wanted == 998"},
		{"client_cpu_us<=8", false, "client_cpu_us = 8.10, wanted <= 8"},
		{"server_cpu_us<11.9", true, "server_cpu_us = 11.8, wanted < 11.9"},
	} {
		th, err := ParseThreshold(c.text)
		if err != nil {
			t.Errorf("%s: %v", c.text, err)
			continue
		}
		if ok, got := th.Check(r); ok != c.ok || got != c.got {
			t.Errorf("%s: %t, %q, want %t, %q", c.text, ok, got, c.ok, c.got)
		}
		if want := strings.ReplaceAll(strings.TrimSpace(c.text), " ", ""); th.String() != want {
			t.Errorf("%s is written %s", c.text, th)
		}
	}
}

func TestBadThresholdsAreNamedInOneLine(t *testing.T) {
	for _, c := range []struct{ text, says string }{
		{"", "has no operator"},
		{"p99", "has no operator"},
		{"p99=50ms", "no such operator"},
		{"p99!50ms", "no such operator"},
		{"p98<50ms", `there is no "p98"; there are p50 p90`},
		{"<50ms", `there is no ""`},
		{"P99<50ms", `there is no "P99"`},
		{"p99<50", `"50" is not; write it with us, ms or s, such as p99<50ms`},
		{"p99<", `p99 is a time`},
		{"p99<ms", `"ms" is not a time`},
		{"p99<-5ms", `"-5ms" is not a time`},
		{"p99<1e3ms", `"1e3ms" is not a time`},
		{"p99<infs", `"infs" is not a time`},
		{"p99<50min", `"50min" is not`},
		{"p99<50ns", `"50ns" is not a time`},
		{"p99<=>50ms", `">50ms" is not a time`},
		{"errors==0ms", `"0ms" is not a number`},
		{"errors==", `"" is not a number`},
		{"rate>=10,000", `"10,000" is not a number`},
		{"rate>=10k", `"10k" is not a number`},
		{"rate>=NaN", `"NaN" is not a number`},
		{"rate>=0x10", `"0x10" is not a number`},
		{"rate>=1.2.3", `"1.2.3" is not a number`},
		{"errors\n==x\ny", `"x\ny" is not a number`},
	} {
		th, err := ParseThreshold(c.text)
		if err == nil {
			t.Errorf("%q: accepted as %s", c.text, th)
			continue
		}
		if !strings.Contains(err.Error(), c.says) || strings.Contains(err.Error(), "\n") || !strings.HasPrefix(err.Error(), "threshold ") {
			t.Errorf("%q: %s", c.text, err)
		}
	}
}

func TestAnUnknownFigureDoesNotMeetAThreshold(t *testing.T) {
	for text, want := range map[string]string{
		"p99<50ms":          "p99: no message was measured, wanted < 50ms",
		"mean>=0us":         "mean: no message was measured, wanted >= 0us",
		"connect_p99<1s":    "connect_p99: no connect was measured, wanted < 1s",
		"server_cpu_us<100": "server_cpu_us: the server's CPU is not known (--server-pid), wanted < 100",
		"client_cpu_us<100": "client_cpu_us: the client's CPU per message is not known, wanted < 100",
	} {
		th, err := ParseThreshold(text)
		if err != nil {
			t.Fatal(err)
		}
		if ok, got := th.Check(&Result{}); ok || got != want {
			t.Errorf("%s: %t, %q", text, ok, got)
		}
	}
}

func TestARoundedValueDoesNotContradictTheVerdict(t *testing.T) {
	r := &Result{Seconds: 10, Messages: 99_999_6}
	r.Message.Record(50_010_000)
	for text, want := range map[string]string{
		"p99<=50ms":    "p99 = 50.036735ms, wanted <= 50ms",
		"rate>=100000": "rate = 99999.6, wanted >= 100000",
	} {
		th, err := ParseThreshold(text)
		if err != nil {
			t.Fatal(err)
		}
		if ok, got := th.Check(r); ok || got != want {
			t.Errorf("%s: %t, %q, want %q", text, ok, got, want)
		}
	}
}

func TestTheRateOfConnectIsItsHandshakes(t *testing.T) {
	r := &Result{Scenario: "connect", Seconds: 2, Opened: 30_000}
	th, _ := ParseThreshold("rate>=15000")
	if ok, got := th.Check(r); !ok {
		t.Error(got)
	}
}
