package main

import (
	"bytes"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"wspoll/server"

	"github.com/gobwas/ws"
	"github.com/gobwas/ws/wsutil"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil/promlint"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
)

// samples are the values of one scrape, by name and labels as the text format has them.
type samples map[string]float64

// requestMetrics is the answer to one request for /metrics, on a connection of its own.
func requestMetrics(method, url string) (status int, body []byte, err error) {
	r, err := http.NewRequest(method, url, nil)
	if err != nil {
		return 0, nil, err
	}
	c := http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: patience}
	resp, err := c.Do(r)
	if err != nil {
		return 0, nil, err
	}
	defer resp.Body.Close()
	body, err = io.ReadAll(resp.Body)
	return resp.StatusCode, body, err
}

func scrape(t *testing.T, url string) samples {
	t.Helper()
	status, body, err := requestMetrics("GET", url)
	if err != nil || status != http.StatusOK {
		t.Fatalf("GET %s: %d %q, %v", url, status, body, err)
	}
	return parsed(t, body)
}

func parsed(t *testing.T, body []byte) samples {
	t.Helper()
	p := expfmt.NewTextParser(model.LegacyValidation)
	families, err := p.TextToMetricFamilies(bytes.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	s := samples{}
	for name, f := range families {
		for _, m := range f.GetMetric() {
			var labels []string
			for _, l := range m.GetLabel() {
				labels = append(labels, fmt.Sprintf("%s=%q", l.GetName(), l.GetValue()))
			}
			key := name
			if labels != nil {
				key += "{" + strings.Join(labels, ",") + "}"
			}
			s[key] = m.GetCounter().GetValue() + m.GetGauge().GetValue() // it has one of them
		}
	}
	return s
}

// ours are those that tell of the server and the proxy.
func (s samples) ours() samples {
	s = maps.Clone(s)
	maps.DeleteFunc(s, func(key string, _ float64) bool { return !strings.HasPrefix(key, "wspoll_") })
	return s
}

// scrapeUntil scrapes until these are the values, of those that are not 0.
func scrapeUntil(t *testing.T, url string, want samples) {
	t.Helper()
	var have samples
	for deadline := time.Now().Add(patience); time.Now().Before(deadline); {
		have = scrape(t, url).ours()
		maps.DeleteFunc(have, func(_ string, v float64) bool { return v == 0 })
		if maps.Equal(have, want) {
			return
		}
	}
	for _, key := range slices.Sorted(maps.Keys(have)) {
		if have[key] != want[key] {
			t.Errorf("%s is %v, want %v", key, have[key], want[key])
		}
	}
	for _, key := range slices.Sorted(maps.Keys(want)) {
		if have[key] == 0 {
			t.Errorf("%s is 0 or not there, want %v", key, want[key])
		}
	}
}

// metricsURL is the one that the process prints for --metrics-listen.
func (p *process) metricsURL() string {
	p.t.Helper()
	url, _, _ := strings.Cut(p.stdout.next("/metrics"), " ")
	if !regexp.MustCompile(`^http://localhost:[1-9]\d*/metrics$`).MatchString(url) {
		p.t.Fatalf("%q", url)
	}
	return url
}

// sayClose sends a Close, and reads the answer.
func sayClose(t *testing.T, c net.Conn) {
	t.Helper()
	if err := ws.WriteFrame(c, ws.MaskFrameInPlace(ws.NewCloseFrame(ws.NewCloseFrameBody(ws.StatusNormalClosure, "")))); err != nil {
		t.Fatal(err)
	}
	if code := closeCode(t, c); code != ws.StatusNormalClosure {
		t.Errorf("Close %d", code)
	}
	c.Close()
}

func TestMetricsOfServeAgreeWithWhatClientsDid(t *testing.T) {
	p, url := serving(t, "serve", "--metrics-listen", "127.0.0.1:0", "--topic-open", "chat")
	at := p.metricsURL()
	for range 3 {
		c := dial(t, url)
		for range 4 {
			echo(t, c, "hello")
		}
	}
	sayClose(t, dial(t, url))
	c := dial(t, url)
	c.Write(ws.MustCompileFrame(ws.NewTextFrame([]byte("not masked"))))
	if code := closeCode(t, c); code != ws.StatusProtocolError {
		t.Errorf("Close %d", code)
	}
	c.Close()
	if _, err := tryDial(ws.Dialer{}, strings.Replace(url, "wshandler", "nowhere", 1)); err == nil {
		t.Error("there is something at /nowhere")
	}
	if status, _, err := requestMetrics("GET", strings.Replace(strings.Replace(url, "ws:", "http:", 1), "wshandler", "metrics", 1)); status != http.StatusNotFound {
		t.Errorf("/metrics of the service itself: %d, %v", status, err)
	}
	from, to := dial(t, strings.Replace(url, "wshandler", "topics/chat", 1)), dial(t, strings.Replace(url, "wshandler", "topics/chat", 1))
	if err := wsutil.WriteClientText(from, []byte("to all")); err != nil {
		t.Fatal(err)
	}
	if f, err := readFrame(to); err != nil || string(f.Payload) != "to all" {
		t.Fatalf("%q, %v", f.Payload, err)
	}
	scrapeUntil(t, at, samples{
		"wspoll_connections":                              5,
		"wspoll_websockets":                               5,
		"wspoll_accepted_total":                           9,
		`wspoll_handshakes_total{result="upgraded"}`:      7,
		`wspoll_handshakes_total{result="refused"}`:       1,
		"wspoll_messages_received_total":                  13,
		"wspoll_received_bytes_total":                     66,
		"wspoll_frames_sent_total":                        13,
		"wspoll_sent_bytes_total":                         66,
		`wspoll_closed_total{reason="peer-closed"}`:       1,
		`wspoll_closed_total{reason="protocol-error"}`:    1,
		`wspoll_closed_total{reason="handshake-refused"}`: 1,
		`wspoll_closed_total{reason="plain-http"}`:        1,
		"wspoll_published_total":                          1,
	})
	one, two := scrape(t, at), scrape(t, at)
	if !maps.Equal(one.ours(), two.ours()) {
		t.Errorf("a scrape counts as something:\n%v\n%v", one.ours(), two.ours())
	}
	if one["go_goroutines"] < 1 || one["process_resident_memory_bytes"] < 1<<20 || one["process_open_fds"] < 4 {
		t.Errorf("of the process: %v goroutines, %v bytes, %v descriptors", one["go_goroutines"], one["process_resident_memory_bytes"], one["process_open_fds"])
	}
	p.stop()
}

func TestMetricsOfProxyAgreeWithWhatClientsDid(t *testing.T) {
	_, behind := serving(t)
	behind = strings.TrimSuffix(behind, "/wshandler")
	gone, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	gone.Close()
	dead := "ws://" + gone.Addr().String()
	p, url := proxying(t, "--to", behind, "--to", dead, "--health-every", "50ms", "--metrics-listen", "127.0.0.1:0")
	at := p.metricsURL()
	of := func(name, backend string) string {
		return fmt.Sprintf("wspoll_proxy_backend_%s{backend=%q}", name, backend)
	}
	scrapeUntil(t, at, samples{of("healthy", behind): 1}) // the dead one was asked
	if s := scrape(t, at); s[of("healthy", dead)] != 0 || len(s) < 10 {
		t.Errorf("the dead backend is healthy")
	}
	for range 2 {
		echo(t, dial(t, url+"wshandler"), "hello")
	}
	c := dial(t, url+"wshandler")
	if err := ws.WriteFrame(c, ws.MaskFrameInPlace(ws.NewPingFrame([]byte("?")))); err != nil {
		t.Fatal(err)
	}
	if f, err := readFrame(c); err != nil || f.Header.OpCode != ws.OpPong {
		t.Fatalf("%+v, %v", f, err)
	}
	sayClose(t, c)
	if status, _, err := requestMetrics("GET", strings.Replace(url, "ws:", "http:", 1)+"metrics"); status != http.StatusNotFound {
		t.Errorf("/metrics through the proxy: %d, %v", status, err) // a plain request, which the backend answers
	}
	raw, err := net.Dial("tcp", strings.Trim(strings.TrimPrefix(url, "ws://"), "/"))
	if err != nil {
		t.Fatal(err)
	}
	defer raw.Close()
	io.WriteString(raw, "GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n\r\n")
	if b, err := io.ReadAll(raw); !bytes.HasPrefix(b, []byte("HTTP/1.1 400 ")) {
		t.Errorf("without a key: %q, %v", b, err)
	}
	raw.Close()
	scrapeUntil(t, at, samples{
		"wspoll_proxy_connections":                                          2,
		"wspoll_proxy_tunnels":                                              2,
		"wspoll_proxy_accepted_total":                                       5,
		`wspoll_proxy_handshakes_total{result="upgraded"}`:                  3,
		`wspoll_proxy_handshakes_total{result="refused"}`:                   1,
		`wspoll_proxy_messages_total{direction="up",opcode="text"}`:         2,
		`wspoll_proxy_messages_total{direction="down",opcode="text"}`:       2,
		`wspoll_proxy_messages_total{direction="up",opcode="ping"}`:         1,
		`wspoll_proxy_messages_total{direction="down",opcode="pong"}`:       1,
		`wspoll_proxy_messages_total{direction="up",opcode="close"}`:        1,
		`wspoll_proxy_messages_total{direction="down",opcode="close"}`:      1,
		`wspoll_proxy_payload_bytes_total{direction="up",opcode="text"}`:    10,
		`wspoll_proxy_payload_bytes_total{direction="down",opcode="text"}`:  10,
		`wspoll_proxy_payload_bytes_total{direction="up",opcode="ping"}`:    1,
		`wspoll_proxy_payload_bytes_total{direction="down",opcode="pong"}`:  1,
		`wspoll_proxy_payload_bytes_total{direction="up",opcode="close"}`:   2,
		`wspoll_proxy_payload_bytes_total{direction="down",opcode="close"}`: 2,
		`wspoll_proxy_passed_bytes_total{direction="up"}`:                   2*(6+5) + (6 + 1) + (6 + 2),
		`wspoll_proxy_passed_bytes_total{direction="down"}`:                 2*(2+5) + (2 + 1) + (2 + 2),
		`wspoll_proxy_closed_total{reason="client-closed"}`:                 1,
		`wspoll_proxy_closed_total{reason="refused"}`:                       1,
		`wspoll_proxy_closed_total{reason="plain-http"}`:                    1,
		of("tunnels", behind):                                               2,
		of("healthy", behind):                                               1,
	})
	p.stop()
}

func TestServeWithItsProxyHasBothCounts(t *testing.T) {
	p, url := serving(t, "WSPOLL_METRICS_LISTEN=127.0.0.1:0", "serve", "--proxy-listen", "127.0.0.1:0")
	p.stdout.next("/topics/")
	through := p.url()
	at := p.metricsURL()
	echo(t, dial(t, through+"wshandler"), "hello")
	echo(t, dial(t, url), "hello")
	s := scrape(t, at)
	want := samples{"wspoll_websockets": 2, "wspoll_messages_received_total": 2, "wspoll_proxy_tunnels": 1, `wspoll_proxy_messages_total{direction="up",opcode="text"}`: 1}
	for name, want := range want {
		if s[name] != want {
			t.Errorf("%s is %v, want %v", name, s[name], want)
		}
	}
	p.stop()
}

// TestEveryCountIsInASeries fills all counts with numbers of their own, also those that are added one day.
func TestEveryCountIsInASeries(t *testing.T) {
	n := 0
	var fill func(reflect.Value)
	fill = func(v reflect.Value) {
		switch v.Kind() {
		case reflect.Struct:
			for _, field := range v.Fields() {
				fill(field)
			}
		case reflect.Array:
			for i := range v.Len() {
				fill(v.Index(i))
			}
		case reflect.Uint64:
			n++
			v.SetUint(uint64(n))
		case reflect.Int, reflect.Int64:
			n++
			v.SetInt(int64(n))
		default:
			t.Fatalf("a count is a %s", v.Type())
		}
	}
	var srv server.Stats
	fill(reflect.ValueOf(&srv).Elem())
	ofServer := n
	var px proxyStats
	fill(reflect.ValueOf(&px.Stats).Elem())
	registry := prometheus.NewRegistry()
	registry.MustRegister(&counts[server.Stats]{func() server.Stats { return srv }, serverSeries}, &counts[proxyStats]{func() proxyStats { return px }, proxySeries})
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	seen := map[float64]string{}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			v := m.GetCounter().GetValue() + m.GetGauge().GetValue()
			if seen[v] != "" {
				t.Errorf("%s and %s have the same count", seen[v], f.GetName())
			}
			if seen[v] = f.GetName(); (v > float64(ofServer)) != strings.HasPrefix(f.GetName(), "wspoll_proxy_") {
				t.Errorf("%s has the count of the other", f.GetName())
			}
		}
	}
	delete(seen, 0)
	// Left out are two that say "open", and counts by opcodes that no frame passed on has.
	if left := 2 + 2*2*(16-len(opcodes)); len(seen) != n-left {
		t.Errorf("%d of %d counts are in series, want all but %d", len(seen), n, left)
	}
}

func TestEveryReasonIsThereFromTheStart(t *testing.T) {
	p, _ := serving(t, "serve", "--proxy-listen", "127.0.0.1:0", "--metrics-listen", "127.0.0.1:0")
	s := scrape(t, p.metricsURL())
	p.stop()
	for name, want := range map[string]string{
		"wspoll_handshakes_total{result":       "refused upgraded",
		"wspoll_proxy_handshakes_total{result": "refused upgraded",
		"wspoll_closed_total{reason": "corrupt-compression drain endpoint-closed endpoint-panicked eof handshake-refused handshake-timeout idle " +
			"invalid-utf-8 memory-budget message-too-large peer-closed plain-http protocol-error reset slow-reader system-error tls-failed too-many-connections write-stalled",
		"wspoll_dropped_total{why": "busy closed drop-oldest ended heart-beat latest link memory",
		"wspoll_proxy_closed_total{reason": "backend-closed backend-did-not-answer backend-gone backend-protocol-error backend-refused backend-stalled " +
			"bad-answer-of-the-backend client-closed client-gone client-protocol-error client-stalled drain handshake-timeout idle limit-of-the-address " +
			"memory-budget message-too-large no-backend panic plain-http refused system-error tls-failed too-many-connections",
		"wspoll_proxy_passed_bytes_total{direction":                "down up",
		`wspoll_proxy_messages_total{direction="up",opcode`:        "binary close ping pong text",
		`wspoll_proxy_messages_total{direction="down",opcode`:      "binary close ping pong text",
		`wspoll_proxy_payload_bytes_total{direction="up",opcode`:   "binary close ping pong text",
		`wspoll_proxy_payload_bytes_total{direction="down",opcode`: "binary close ping pong text",
	} {
		var have []string
		for key := range s {
			if value, ok := strings.CutPrefix(key, name+`="`); ok {
				have = append(have, strings.TrimSuffix(value, `"}`))
			}
		}
		slices.Sort(have)
		if got := strings.Join(have, " "); got != want {
			t.Errorf("%s is one of\n%s\nwant\n%s", name, got, want)
		}
	}
	for _, name := range []string{"wspoll_accept_starved_total", "wspoll_buffered_bytes", "wspoll_http_connections", "wspoll_proxy_retries_total", "wspoll_proxy_spliced_bytes_total"} {
		if v, ok := s[name]; !ok || v != 0 {
			t.Errorf("%s: %v, %v", name, v, ok)
		}
	}
}

func TestMetricsHaveNothingThatLintFinds(t *testing.T) {
	s := serveHere(t, patience, nil)
	_, body, err := requestMetrics("GET", s.at)
	if err != nil {
		t.Fatal(err)
	}
	problems, err := promlint.New(bytes.NewReader(body)).Lint()
	if err != nil || len(problems) != 0 {
		t.Errorf("%v, %v", problems, err)
	}
	for key := range parsed(t, body) {
		for _, value := range regexp.MustCompile(`="([^"]*)"`).FindAllStringSubmatch(key, -1) {
			if strings.HasPrefix(key, "wspoll_") && !strings.Contains(key, "{backend=") && !regexp.MustCompile(`^[a-z]+(-[a-z0-9]+)*$`).MatchString(value[1]) {
				t.Errorf("%s has a label that is no word", key)
			}
		}
	}
}

func TestWhatHealthzSaysInWordsIsAGauge(t *testing.T) {
	srv, err := server.New(server.Config{})
	if err != nil {
		t.Fatal(err)
	}
	defer srv.Shutdown(t.Context())
	says := ""
	registry := prometheus.NewRegistry()
	registry.MustRegister(degraded(srv))
	value := func() float64 {
		t.Helper()
		all, err := registry.Gather()
		if err != nil || len(all) != 1 || all[0].GetName() != "wspoll_degraded" {
			t.Fatalf("%v, %v", all, err)
		}
		return all[0].GetMetric()[0].GetGauge().GetValue()
	}
	if v := value(); v != 0 {
		t.Errorf("%v before there is anything to ask", v)
	}
	srv.Trouble(func() string { return says })
	for _, says = range []string{"", "the link is down", ""} {
		want := 0.0
		if says != "" {
			want = 1
		}
		if v := value(); v != want {
			t.Errorf("%v when it says %q", v, says)
		}
	}
}
