package bench

import (
	"strings"
	"testing"
)

func TestURLsThatCanBeATarget(t *testing.T) {
	for in, want := range map[string]Target{
		"ws://127.0.0.1":               {Host: "127.0.0.1", Path: "/"},
		"ws://127.0.0.1:8002/a?b=c%20": {Host: "127.0.0.1:8002", Path: "/a?b=c%20"},
		"wss://[::1]/x":                {Host: "[::1]", Path: "/x"},
		"tcp://127.0.0.1:7":            {Host: "127.0.0.1:7", Path: "/", Raw: true},
	} {
		got, err := ParseTarget(in, false)
		if err != nil || got.Host != want.Host || got.Path != want.Path || got.Raw != want.Raw || (got.TLS != nil) != strings.HasPrefix(in, "wss") {
			t.Errorf("%s: %+v, %v", in, got, err)
		}
	}
	for in, port := range map[string]int{"ws://127.0.0.1": 80, "wss://127.0.0.1": 443, "ws://127.0.0.1:0x": 0, "ws://[::1]:99": 99} {
		if got, err := ParseTarget(in, false); port != 0 && (err != nil || got.Addr.Port != port) {
			t.Errorf("%s: %+v, %v", in, got, err)
		}
	}
}

func TestURLsThatCannotBeATargetAreNamed(t *testing.T) {
	for in, want := range map[string]string{
		"":                              "not a URL",
		"localhost:8002":                "not a URL",
		"ws://":                         "not a URL",
		"ws://:8002/":                   "not a URL",
		"ws://127.0.0.1/?a b":           "not a URL",
		"http://127.0.0.1/":             "ws or wss, not http",
		"https://127.0.0.1/":            "ws or wss, not https",
		"ftp://127.0.0.1/":              "ftp",
		"tcp://127.0.0.1":               "no port",
		"ws://me@127.0.0.1/":            "no user",
		"ws://127.0.0.1/#here":          "no fragment",
		"ws://127.0.0.1:99999/":         "99999",
		"ws://no-such-host.invalid./x":  "cannot be found",
		"ws://a..b.invalid/not/a/label": "",
	} {
		_, err := ParseTarget(in, false)
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%q: %v, want %q", in, err, want)
		}
	}
}

func TestSourceAddressRanges(t *testing.T) {
	for in, want := range map[string]string{
		"127.0.0.1":                        "127.0.0.1",
		"127.0.0.254-127.0.1.1":            "127.0.0.254 127.0.0.255 127.0.1.0 127.0.1.1",
		"127.0.0.3, ::1,10.0.0.1-10.0.0.1": "127.0.0.3 ::1 10.0.0.1",
	} {
		got, err := ParseLocal(in)
		var list []string
		for _, a := range got {
			list = append(list, a.IP.String())
		}
		if err != nil || strings.Join(list, " ") != want {
			t.Errorf("%s: %v, %v", in, list, err)
		}
	}
	for _, in := range []string{"", "foo", "127.0.0.5-127.0.0.1", "127.0.0.1-", "::1-::5", "127.0.0.1-::1", "1.0.0.0-2.0.0.0", "127.0.0.1,,127.0.0.2"} {
		if got, err := ParseLocal(in); err == nil {
			t.Errorf("%q is taken for %v", in, got)
		}
	}
}

func TestConfigDefaults(t *testing.T) {
	got := Config{SizeMin: 5}.withDefaults()
	if got.Timeout <= 0 || got.Opening <= 0 || got.Depth != 1 || got.SizeMax != 5 {
		t.Errorf("%+v", got)
	}
	if _, err := New(Config{}); err == nil {
		t.Error("a client without a target")
	}
	if _, err := New(Config{Targets: make([]Target, 256)}); err == nil {
		t.Error("256 targets")
	}
	if _, err := New(Config{Targets: make([]Target, 1), SizeMin: -1}); err == nil {
		t.Error("a negative size")
	}
}
