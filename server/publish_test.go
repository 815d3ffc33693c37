package server

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/gobwas/ws"
)

const token = "0123456789abcdef"

// withPublishing is a server that takes publishes over HTTP.
func withPublishing(t *testing.T, cfg Config, p PublishConfig) *testServer {
	t.Helper()
	s, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	s.Topics().MountHTTP(p)
	s.Handle("/topics/", s.Topics().Endpoint())
	return started(t, s)
}

// do makes a request, with the token unless the header says otherwise.
func (s *testServer) do(t *testing.T, method, path string, body io.Reader, header ...string) (status int, answer string, h http.Header) {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), method, "http://"+s.addr+path, body)
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Authorization", "Bearer "+token)
	for i := 0; i < len(header); i += 2 {
		if r.Header.Del(header[i]); header[i+1] != "" {
			r.Header.Set(header[i], header[i+1])
		}
	}
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(b), resp.Header
}

func TestPublishOverHTTPReachesSubscribersAndSaysHowMany(t *testing.T) {
	s := withPublishing(t, Config{Loops: 2}, PublishConfig{Token: token})
	var all []*client
	for range 5 {
		all = append(all, s.open(t, "/topics/news.local"))
	}
	s.subscribers(t, "news.local", 5)
	var seq uint64
	for i, tt := range []struct {
		kind, text string
		op         ws.OpCode
	}{
		{"", "plain", ws.OpText},
		{"text/plain; charset=utf-8", "déjà vu", ws.OpText},
		{"application/json", `{"a":1}`, ws.OpText},
		{"application/x-www-form-urlencoded", "as curl sends it", ws.OpText},
		{"application/octet-stream", "\xff\x00", ws.OpBinary},
		{"Application/Octet-Stream; x=y", "", ws.OpBinary},
		{"", strings.Repeat("long ", 50_000), ws.OpText},
	} {
		// Half of them without a Content-Length.
		body := io.Reader(strings.NewReader(tt.text))
		if i%2 == 1 {
			body = io.MultiReader(body)
		}
		status, answer, h := s.do(t, "POST", "/topics/news.local", body, "Content-Type", tt.kind)
		var p Published
		if err := json.Unmarshal([]byte(answer), &p); err != nil || status != 200 || h.Get("Content-Type") != "application/json" {
			t.Fatalf("%d %q %v, %v", status, answer, h, err)
		}
		if p.Topic != "news.local" || p.Queued != 5 || i > 0 && p.Seq != seq+1 {
			t.Errorf("%+v after %d", p, seq)
		}
		seq = p.Seq
		for _, c := range all {
			if op, got := c.message(); op != tt.op || string(got) != tt.text {
				t.Errorf("opcode %d, %.40q, want %d, %.40q", op, got, tt.op, tt.text)
			}
		}
	}
	if status, answer, _ := s.do(t, "POST", "/topics/nobody", strings.NewReader("x")); status != 200 || answer != `{"topic":"nobody","seq":0,"queued":0}`+"\n" {
		t.Errorf("%d %q", status, answer)
	}
	eventually(t, "the budget is free", func() bool { return s.Stats().Buffered == 0 })
}

func TestPublishOverHTTPIsRefusedInOneLine(t *testing.T) {
	s := withPublishing(t, Config{MaxPending: 64 << 10, Topics: TopicConfig{Max: 1, Replay: 1}}, PublishConfig{Token: token})
	limit := s.Topics().limit
	for _, tt := range []struct {
		name   string
		path   string
		body   io.Reader
		header []string
		status int
		says   string
	}{
		{"no token", "/topics/a", strings.NewReader("x"), []string{"Authorization", ""}, 401, "token is missing or wrong"},
		{"another token", "/topics/a", strings.NewReader("x"), []string{"Authorization", "Bearer " + token + "0"}, 401, "token is missing or wrong"},
		{"a prefix of the token", "/topics/a", strings.NewReader("x"), []string{"Authorization", "Bearer " + token[:15]}, 401, "token is missing or wrong"},
		{"another scheme", "/topics/a", strings.NewReader("x"), []string{"Authorization", "Basic " + token}, 401, "token is missing or wrong"},
		{"a page elsewhere, with the token", "/topics/a", strings.NewReader("x"), []string{"Origin", "https://evil.example"}, 403, `pages of the origin "https://evil.example"`},
		{"a page without an origin", "/topics/a", strings.NewReader("x"), []string{"Origin", "null"}, 403, "pages of the origin"},
		{"too large, as it says", "/topics/a", bytes.NewReader(make([]byte, limit+1)), nil, 413, "too large"},
		{"too large, as it shows", "/topics/a", io.MultiReader(bytes.NewReader(make([]byte, limit+1))), nil, 413, "too large"},
		{"not UTF-8", "/topics/a", strings.NewReader("\xff"), nil, 400, "not UTF-8"},
		{"no name of a topic", "/topics/a%20b", strings.NewReader("x"), nil, 400, "a topic's name is"},
		{"two parts", "/topics/a/b", strings.NewReader("x"), nil, 404, "no WebSocket service"},
		{"one topic too many", "/topics/second", strings.NewReader("x"), nil, 503, "as many topics"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			if tt.status == 503 {
				s.publish(t, "first", "")
			}
			status, answer, h := s.do(t, "POST", tt.path, tt.body, tt.header...)
			if status != tt.status || !strings.Contains(answer, tt.says) || strings.Count(answer, "\n") != 1 {
				t.Errorf("%d %q, want %d with %q", status, answer, tt.status, tt.says)
			}
			if (status == 401) != (h.Get("WWW-Authenticate") == "Bearer") {
				t.Errorf("WWW-Authenticate: %q", h.Get("WWW-Authenticate"))
			}
		})
	}
	if status, answer, _ := s.do(t, "POST", "/topics/first", bytes.NewReader(make([]byte, limit)), "Origin", "http://"+s.addr); status != 200 {
		t.Errorf("the limit itself, from a page of this server: %d %q", status, answer)
	}
	if n := s.Stats().Published; n != 2 {
		t.Errorf("%d were published", n)
	}
	if used, kept := s.Stats().Buffered, s.info("first").KeptBytes; used != int64(kept) {
		t.Errorf("%d bytes of the budget are taken, %d are kept", used, kept)
	}
}

func TestPublishingIsOffWithoutAToken(t *testing.T) {
	s := withPublishing(t, Config{}, PublishConfig{})
	for _, auth := range []string{"", "Bearer ", "Bearer", "Bearer x"} {
		for _, r := range [][2]string{{"POST", "/topics/a"}, {"GET", "/topics"}} {
			if status, answer, _ := s.do(t, r[0], r[1], nil, "Authorization", auth); status != 403 || !strings.Contains(answer, "is off") {
				t.Errorf("%s %q: %d %q", r, auth, status, answer)
			}
		}
	}
}

func TestPublishRateIsBounded(t *testing.T) {
	s := withPublishing(t, Config{}, PublishConfig{Token: token, Rate: 5})
	taken, refused := 0, 0
	for range 30 {
		switch status, answer, h := s.do(t, "POST", "/topics/a", strings.NewReader("x")); {
		case status == 200:
			taken++
		case status == 429 && h.Get("Retry-After") == "1" && strings.Count(answer, "\n") == 1:
			refused++
		default:
			t.Errorf("%d %q", status, answer)
		}
	}
	if taken < 5 || refused == 0 {
		t.Errorf("%d taken, %d refused", taken, refused)
	}
	// Wrong tokens do not use it up.
	if status, _, _ := s.do(t, "POST", "/topics/a", strings.NewReader("x"), "Authorization", "Bearer x"); status != 401 {
		t.Errorf("%d", status)
	}
}

func TestBucketGivesTheRateAndOneSecondOfBurst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) { // its clock is false: a sleep sets it forward and takes no time
		for _, rate := range []float64{0.5, 1, 7.5, 100} {
			b := bucket{perSecond: rate}
			n := 0
			for begin := time.Now(); time.Since(begin) < time.Minute; time.Sleep(time.Millisecond) {
				if b.take(time.Now()) == 0 {
					n++
				}
			}
			if want := 60*rate + max(1, rate); float64(n) < want-2 || float64(n) > want+1 {
				t.Errorf("%g per second: %d in a minute, want %g", rate, n, want)
			}
			for b.take(time.Now()) == 0 {
			}
			time.Sleep(b.take(time.Now()) + time.Microsecond)
			if b.take(time.Now()) != 0 {
				t.Errorf("%g per second: there is none when it was said", rate)
			}
		}
		if b := (bucket{}); b.take(time.Now()) != 0 {
			t.Error("without a rate there is a bound")
		}
	})
}

func TestTopicsAreListed(t *testing.T) {
	s := withPublishing(t, Config{Topics: TopicConfig{Open: []string{"b"}, Retain: []string{"b"}, Policies: []TopicPolicy{{"b", PolicyLatest}}}}, PublishConfig{Token: token})
	if status, answer, _ := s.do(t, "GET", "/topics", nil); status != 200 || answer != "[]\n" {
		t.Errorf("%d %q", status, answer)
	}
	p := s.publish(t, "b", "hello")
	s.open(t, "/topics/a")
	s.open(t, "/topics/a")
	s.subscribers(t, "a", 2)
	status, answer, _ := s.do(t, "GET", "/topics", nil)
	var list []TopicInfo
	if err := json.Unmarshal([]byte(answer), &list); err != nil || status != 200 || len(list) != 2 {
		t.Fatalf("%d %s, %v", status, answer, err)
	}
	want := TopicInfo{Name: "b", Seq: p.Seq, Published: 1, Kept: 1, KeptBytes: 7, Open: true, Policy: "latest"}
	if fmt.Sprint(list[1]) != fmt.Sprint(want) {
		t.Errorf("%+v, want %+v", list[1], want)
	}
	if a := list[0]; a.Name != "a" || a.Subscribers != 2 || a.Policy != "close" || a.Open || a.Published != 0 {
		t.Errorf("%+v", a)
	}
	for _, header := range [][2]string{{"Authorization", ""}, {"Origin", "https://evil.example"}} {
		if status, answer, _ := s.do(t, "GET", "/topics", nil, header[0], header[1]); status != 401 && status != 403 || strings.Contains(answer, "subscribers") {
			t.Errorf("%v: %d %q", header, status, answer)
		}
	}
}

// A body is in the budget while it arrives.
func TestBodyThatDoesNotFitInTheBudgetIsRefused(t *testing.T) {
	s := withPublishing(t, Config{MemoryBudget: 100_000}, PublishConfig{Token: token})
	pr, pw := io.Pipe()
	done := make(chan int, 1)
	go func() {
		status, _, _ := s.do(t, "POST", "/topics/a", pr, "Content-Type", "text/plain")
		done <- status
	}()
	if status := receive(t, "an answer", done); status != 503 {
		t.Errorf("a body of any size: %d", status) // up to MaxPending, which is more than there is
	}
	pw.Close()
	if status, _, _ := s.do(t, "POST", "/topics/a", strings.NewReader(strings.Repeat("x", 40_000))); status != 200 {
		t.Errorf("one that fits: %d", status)
	}
	eventually(t, "the budget is free", func() bool { return s.Stats().Buffered == 0 })
}

func TestBrowserPageElsewhereCannotSubscribe(t *testing.T) {
	s := withPublishing(t, Config{}, PublishConfig{Token: token})
	if r, body := s.answer(t, request("/topics/a", "Origin: https://evil.example")); r.StatusCode != 403 {
		t.Errorf("%s %q", r.Status, body)
	}
}
