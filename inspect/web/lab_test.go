package web

import (
	"bytes"
	"context"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"wspoll/inspect"
	"wspoll/server"
)

// live is a server with the page, and its address.
type live struct {
	page *Page
	addr string
}

// most is the limit for a message of these servers.
const most = 1 << 20

func start(t *testing.T) *live {
	t.Helper()
	s, err := server.New(server.Config{Loops: 2, MaxMessage: most, CloseTimeout: time.Second})
	if err == nil {
		err = s.Handle("/echo", server.Echo())
	}
	if err != nil {
		t.Fatal(err)
	}
	return startServer(t, s)
}

func startServer(t *testing.T, s *server.Server, sleep ...time.Duration) *live {
	t.Helper()
	s.MountHealth()
	cfg := Config{MaxMessage: most}
	if len(sleep) > 0 {
		cfg.Sleep = sleep[0]
	}
	p, err := New(s, cfg)
	if err != nil {
		t.Fatal(err)
	}
	addr, err := s.Listen("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	p.Listening(addr)
	s.Start()
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		if err := s.Shutdown(ctx); err != nil {
			t.Error(err)
		}
		p.Close()
	})
	return &live{p, addr.String()}
}

// result is an outcome, as a browser reads it.
type result struct {
	Error    string
	Sent     int
	Received int
	Ended    string
	Status   string
	Code     int
	Reason   string
	Demand   string
	Agrees   bool
	Omitted  int
	Digits   string
	Records  []struct {
		Dir, Kind, Brief string
		Start, End       int64
		Violations       []struct{ Kind, Section, Cure string }
		Fields           []inspect.Field
		Demands          []string
	}
	Violation *struct {
		Kind, Section, What, Cure string
		Code, Status              int
	}
}

// post sends v to the lab, as a page of this server does.
func (s *live) post(t *testing.T, path string, v any, headers ...string) (int, *result) {
	t.Helper()
	b, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	r, err := http.NewRequest("POST", "http://"+s.addr+path, bytes.NewReader(b))
	if err != nil {
		t.Fatal(err)
	}
	r.Header.Set("Content-Type", "application/json")
	r.Header.Set("Origin", "http://"+s.addr)
	for i := 0; i < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	resp, err := http.DefaultClient.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	var out result
	if json.Unmarshal(body, &out) != nil {
		out.Error = string(body)
	}
	return resp.StatusCode, &out
}

// request is what the page makes of the head of a preset.
func (p *preset) request() string {
	head := requestHead("localhost")
	name, line := p.Head[0], p.Head[1]
	if name == "" && line == "" {
		return head
	}
	var lines []string
	for l := range strings.SplitSeq(strings.TrimSuffix(head, "\r\n\r\n"), "\r\n") {
		if name == "" || !strings.HasPrefix(l, name) {
			lines = append(lines, l)
		} else if line != "" {
			lines = append(lines, line)
		}
	}
	if name == "" {
		lines = append(lines, line)
	}
	return strings.Join(lines, "\n") + "\n\n"
}

// TestTheLabShowsWhatTheServerAnswersToEachPreset: what is said to be demanded is what the live server does.
func TestTheLabShowsWhatTheServerAnswersToEachPreset(t *testing.T) {
	s := start(t)
	kinds := map[string]bool{}
	for i := range presets {
		p := &presets[i]
		t.Run(p.ID, func(t *testing.T) {
			s.page.lab.refill()
			x := experiment{Frames: p.Frames}
			if p.Head != [2]string{} {
				x.Head = p.request()
			}
			status, got := s.post(t, "/lab/send", x)
			if status != 200 {
				t.Fatalf("%d %s", status, got.Error)
			}
			if int(got.Code) != int(p.Code) || p.Status != 0 && !strings.HasPrefix(got.Status, strconv.Itoa(p.Status)) {
				t.Errorf("the server answers %q and closes with %d, want %d or status %d", got.Status, got.Code, p.Code, p.Status)
			}
			switch {
			case p.Kind == "" && got.Violation != nil:
				t.Errorf("it is legal, and a violation is %v", got.Violation)
			case p.Kind == "":
			case got.Violation == nil || got.Violation.Kind != p.Kind:
				t.Errorf("the violation is %v, want %s", got.Violation, p.Kind)
			case !got.Agrees || got.Violation.Section == "" || got.Violation.Cure == "" || got.Demand == "":
				t.Errorf("%+v, agrees %v", got.Violation, got.Agrees)
			}
			frames, _ := hex.DecodeString(p.Frames)
			sent, seen := map[string]int64{}, map[string]int64{}
			for _, r := range got.Records {
				if r.Kind == "read" {
					sent[r.Dir] += r.End - r.Start
				} else if r.Kind != "message" {
					if r.Start != seen[r.Dir] {
						t.Errorf("%s: a record begins at %d, want %d", r.Dir, r.Start, seen[r.Dir])
					}
					seen[r.Dir] = r.End
				}
			}
			if sent["client"] != int64(got.Sent) || sent["server"] != int64(got.Received) || seen["client"] != sent["client"] || seen["server"] != sent["server"] {
				t.Errorf("%d sent and %d received, the records have %v and %v", got.Sent, got.Received, sent, seen)
			}
			if p.Status == 0 && got.Sent != len(requestHead(s.addr))+len(frames) {
				t.Errorf("%d bytes were sent", got.Sent)
			}
			if p.Kind != "" {
				kinds[p.Kind] = true
			}
		})
	}
	t.Logf("%d kinds of violations went through the lab", len(kinds))
	if len(kinds) < 35 {
		t.Errorf("%d kinds of violations", len(kinds))
	}
	for _, k := range inspect.Kinds() {
		// A client cannot break these in front of this server: the first is a server's, the others need compression.
		if !kinds[k] && !slices.Contains([]string{"mask-forbidden", "deflate-corrupt", "rsv1-on-control", "rsv1-on-continuation"}, k) {
			t.Errorf("no preset of %s", k)
		}
	}
}

// refill makes the rate no matter.
func (l *lab) refill() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.tokens = labRate
}

func TestTheLabAnswersTheSameWhenEveryByteComesAlone(t *testing.T) {
	s := start(t)
	for _, id := range []string{"hello", "utf8-ff", "mask-missing", "continuation"} {
		p := presets[slices.IndexFunc(presets, func(p preset) bool { return p.ID == id })]
		_, whole := s.post(t, "/lab/send", experiment{Frames: p.Frames})
		_, chopped := s.post(t, "/lab/send", experiment{Frames: p.Frames, Chop: true})
		if whole.Code != chopped.Code || whole.Reason != chopped.Reason || whole.Ended != chopped.Ended {
			t.Errorf("%s: %d %q (%s), and one by one %d %q (%s)", id, whole.Code, whole.Reason, whole.Ended, chopped.Code, chopped.Reason, chopped.Ended)
		}
	}
}

func TestTheEditorSaysOfAnExperimentWhatTheServerDoes(t *testing.T) {
	s := start(t)
	for i := range presets {
		p := &presets[i]
		if p.Frames == "" {
			continue
		}
		s.page.lab.refill()
		_, got := s.post(t, "/lab/explain", experiment{Head: requestHead("h"), Frames: p.Frames})
		kind, demand := "", ""
		for _, r := range got.Records {
			if len(r.Violations) > 0 && kind == "" {
				kind, demand = r.Violations[0].Kind, r.Demands[0]
			}
		}
		if want := fmt.Sprintf("close %d", p.Code); kind != p.Kind || kind != "" && kind != "data-after-close" && demand != want {
			t.Errorf("%s: %q, %q, want %q, %q", p.ID, kind, demand, p.Kind, want)
		}
	}
	// What RSV1 means is not known where compression was offered.
	offer := strings.Replace(requestHead("h"), "Upgrade:", "Sec-WebSocket-Extensions: permessage-deflate\r\nUpgrade:", 1)
	if _, got := s.post(t, "/lab/explain", experiment{Head: offer, Frames: masked(0xc1, "\xf2\x48\xcd\xc9\xc9\x07\x00")}); len(got.Records) != 3 || len(got.Records[1].Violations) > 0 {
		t.Errorf("%+v", got)
	}
}

func TestTheLabExplainsWithoutSending(t *testing.T) {
	s := start(t)
	if _, got := s.post(t, "/lab/explain", experiment{Frames: "0x81, 0x5, \\x48\n00000003: 656c 6c6f  Hello"}); got.Digits != "810548656c6c6f" {
		t.Errorf("%q, %s", got.Digits, got.Error)
	}
	status, got := s.post(t, "/lab/explain", experiment{Frames: "8185 37fa213d 7f9f4d5158 # Hello"})
	if status != 200 || len(got.Records) != 3 || got.Records[1].Brief != `-> text FIN 5 B "Hello"` || len(got.Records[1].Fields) != 9 {
		t.Errorf("%d %+v", status, got)
	}
	if status, got = s.post(t, "/lab/explain", experiment{Frames: "8105 48656c6c6f"}); len(got.Records) != 3 || got.Records[1].Violations[0].Kind != "mask-missing" || got.Records[1].Demands[0] != "close 1002" {
		t.Errorf("%d %+v", status, got)
	}
}

// TestTheLabShowsOnlySoManyRecords: frames of two bytes would make an answer a thousand times as large as the request.
func TestTheLabShowsOnlySoManyRecords(t *testing.T) {
	s := start(t)
	const wrong = 5000
	pings := strings.Repeat("8980"+"00000000", wrong)
	status, got := s.post(t, "/lab/explain", experiment{Frames: pings})
	if status != 200 || len(got.Records) != labRecords || got.Omitted == 0 {
		t.Errorf("explained: %d, %d records, %d omitted", status, len(got.Records), got.Omitted)
	}
	// What is judged may stand behind what is shown.
	status, got = s.post(t, "/lab/send", experiment{Frames: pings + masked(0x83, "x")})
	if status != 200 || len(got.Records) != labRecords || got.Omitted < 2*wrong-labRecords || got.Code != 1002 || !got.Agrees || got.Violation == nil || got.Violation.Kind != "opcode-reserved-data" {
		t.Errorf("sent: %d, %d records, %d omitted, %d %v %+v", status, len(got.Records), got.Omitted, got.Code, got.Agrees, got.Violation)
	}
}

func TestTheLabExplainsOnlySoMuchAtATime(t *testing.T) {
	s := start(t)
	for range labAtOnce {
		s.page.lab.slots <- struct{}{}
	}
	if status, got := s.post(t, "/lab/explain", experiment{Frames: presets[0].Frames}); status != 429 || !strings.Contains(got.Error, "are running") {
		t.Errorf("%d %q", status, got.Error)
	}
}

func TestTheLabRefusesWhatItIsNotFor(t *testing.T) {
	s := start(t)
	fine := experiment{Frames: presets[0].Frames}
	for _, tt := range []struct {
		name    string
		v       any
		headers []string
		status  int
		says    string
	}{
		{"a page elsewhere", fine, []string{"Origin", "https://evil.example"}, 403, "cross-origin"},
		{"a page elsewhere, in a browser that says so", fine, []string{"Sec-Fetch-Site", "cross-site"}, 403, "cross-origin"},
		{"a form", fine, []string{"Content-Type", "text/plain"}, 415, "application/json"},
		{"no digits", experiment{Frames: "zz"}, nil, 400, "no hexadecimal digits"},
		{"no experiment", []int{1}, nil, 400, "not the JSON"},
		{"too much", experiment{Frames: strings.Repeat("00", labBytes+1)}, nil, 400, "131073 bytes; the lab sends up to 131072"},
		{"far too much", experiment{Frames: strings.Repeat("00", labBody)}, nil, 413, "more than"},
		{"too long a request", experiment{Head: strings.Repeat("x", labBytes+1)}, nil, 400, "a request of"},
		{"too much one by one", experiment{Frames: strings.Repeat("00", labChopped), Chop: true}, nil, 400, "one at a time"},
	} {
		s.page.lab.refill()
		if status, got := s.post(t, "/lab/send", tt.v, tt.headers...); status != tt.status || !strings.Contains(got.Error, tt.says) {
			t.Errorf("%s: %d %q, want %d %q", tt.name, status, got.Error, tt.status, tt.says)
		}
	}
	r, err := http.Get("http://" + s.addr + "/lab/send")
	if err != nil {
		t.Fatal(err)
	}
	if r.Body.Close(); r.StatusCode != 405 {
		t.Errorf("GET: %s", r.Status)
	}
}

// An experiment with the lab itself would be one within another.
func TestTheLabDoesNotExperimentWithItself(t *testing.T) {
	s := start(t)
	body := `{"frames":""}`
	head := "POST /lab/send HTTP/1.1\nHost: localhost\nContent-Type: application/json\nContent-Length: " + "13" + "\n\n" + body
	_, got := s.post(t, "/lab/send", experiment{Head: head})
	if !strings.HasPrefix(got.Status, "508") {
		t.Errorf("%q %q", got.Status, got.Error)
	}
}

func TestTheLabIsLimitedInRateAndNumber(t *testing.T) {
	s := start(t)
	statuses := map[int]int{}
	var mu sync.Mutex
	var all sync.WaitGroup
	began := time.Now()
	for range 60 {
		all.Go(func() {
			status, _ := s.post(t, "/lab/send", experiment{Frames: presets[0].Frames})
			mu.Lock()
			statuses[status]++
			mu.Unlock()
		})
	}
	all.Wait()
	most := labRate + int(labRate*time.Since(began).Seconds()) + 1
	if statuses[200] == 0 || statuses[200] > most || statuses[429] == 0 || statuses[200]+statuses[429] != 60 {
		t.Errorf("%v, at most %d should be made", statuses, most)
	}
	if len(s.page.lab.own) != 0 || len(s.page.lab.slots) != 0 {
		t.Errorf("%d connections and %d places are left", len(s.page.lab.own), len(s.page.lab.slots))
	}
}
