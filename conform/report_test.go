package conform

import (
	"bytes"
	"encoding/json"
	"encoding/xml"
	"errors"
	"flag"
	"io"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"
)

var update = flag.Bool("update", false, "write the golden files anew")

var (
	exampleHello  = []byte("GET / HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n")
	exampleAnswer = []byte("HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n")
	// A server that does not look at UTF-8.
	exampleBroken = []Chunk{
		{Sent: true, Data: exampleHello},
		{Data: exampleAnswer},
		{Sent: true, Data: []byte("\x81\x82\x37\xfa\x21\x3d\xf7\x55")},
		{Data: []byte("\x81\x02\xc0\xaf\x88\x02\x03\xe8")},
		{Note: "end of TCP"},
	}
	// One that refuses.
	exampleRefused = []Chunk{
		{Sent: true, Data: []byte("\x00G")},
		{Sent: true, Data: []byte("ET / HTTP/1.1\r\n"), Lost: 7},
		{Data: []byte("HTTP/1.1 400 Bad Request\r\n\r\n")},
		{Note: "end of TCP"},
	}
)

// example is a report with a result of each kind.
func example() *Report {
	result := func(id, sentence string, v Verdict, chunks []Chunk, explained []string, remarks ...Remark) Result {
		c := Case{ID: id, Sentence: sentence}
		r := Result{ID: id, Section: c.Section(), Sentence: sentence, Verdict: v, Remarks: remarks, Took: 1500 * time.Microsecond}
		if v != OK {
			r.Transcript, r.Explained = chunks, explained
		}
		return r
	}
	r := NewReport("ws://127.0.0.1:8002/echo", time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC), 6, false, []Result{
		result("rfc6455-4.1-plain", "The handshake.", OK, nil, nil, Remark{OK, "accepted"}),
		result("rfc6455-4.2.1-5-key", "A key with a <NUL>.", NonStrict, exampleRefused, []string{`-> "\x00GET / HTTP/1.1\r\n"`, "<- end of TCP"}, Remark{NonStrict, "no \"error\" & \x00 <none>"}),
		result("rfc6455-7.1.5-tcp-reset", "A reset.", Failed, exampleBroken[:2], []string{"-> GET / HTTP/1.1", "connection 2"}, Remark{Failed, "end of TCP"}),
		result("rfc6455-8.1-broken-c0-af", "A text with an overlong /.", Failed, exampleBroken, []string{"-> text FIN 2 B c0 af   [81 82 37 fa 21 3d | f7 55]"}, Remark{OK, "by the way"}, Remark{Failed, "a whole text message came"}),
		result("rfc7692-7-offer", "An offer.", Unimplemented, exampleBroken[:1], nil, Remark{Unimplemented, "no permessage-deflate"}),
	})
	r.Took = 1234 * time.Millisecond
	return r
}

func TestTextOfAReport(t *testing.T) {
	golden(t, "report.txt", example().Text)
}

func TestJUnitOfAReport(t *testing.T) {
	golden(t, "report.xml", example().JUnit)
	var b bytes.Buffer
	r := example()
	r.Strict = true
	if err := r.JUnit(&b); err != nil {
		t.Fatal(err)
	}
	var x struct {
		Tests    int `xml:"tests,attr"`
		Failures int `xml:"failures,attr"`
		Skipped  int `xml:"skipped,attr"`
		Suites   []struct {
			Name  string `xml:"name,attr"`
			Cases []struct {
				Name    string    `xml:"name,attr"`
				Failure *struct{} `xml:"failure"`
				Skipped *struct{} `xml:"skipped"`
			} `xml:"testcase"`
		} `xml:"testsuite"`
	}
	if err := xml.Unmarshal(b.Bytes(), &x); err != nil {
		t.Fatal(err)
	}
	failures := 0
	for _, s := range x.Suites {
		for _, c := range s.Cases {
			if c.Failure != nil {
				failures++
			}
		}
	}
	if x.Tests != 5 || x.Failures != 3 || failures != 3 || x.Skipped != 1 || len(x.Suites) != 5 || x.Suites[4].Cases[0].Skipped == nil {
		t.Errorf("strict: %+v", x)
	}
}

func TestJSONOfAReportComesBackTheSame(t *testing.T) {
	var b bytes.Buffer
	want := example()
	if err := want.JSON(&b); err != nil {
		t.Fatal(err)
	}
	for _, words := range []string{`"verdict": "non-strict"`, `"data": "818237fa213df755"`, `"non_strict": 1`, `"missing": 1`} {
		if !strings.Contains(b.String(), words) {
			t.Errorf("no %s in %s", words, b.String())
		}
	}
	var got Report
	if err := json.Unmarshal(b.Bytes(), &got); err != nil {
		t.Fatal(err)
	}
	if !reflect.DeepEqual(&got, want) {
		t.Errorf("got  %+v\nwant %+v", &got, want)
	}
	if err := json.Unmarshal([]byte(`{"results":[{"verdict":"perhaps"}]}`), &got); err == nil {
		t.Error("a verdict that does not exist was read")
	}
}

func TestAReportPassesOnlyWhenAllHasBeenRunAndNothingFailed(t *testing.T) {
	for _, tt := range []struct {
		cases    int
		strict   bool
		verdicts []Verdict
		want     bool
	}{
		{2, false, []Verdict{OK, OK}, true},
		{2, false, []Verdict{OK, NonStrict}, true},
		{2, true, []Verdict{OK, NonStrict}, false},
		{2, true, []Verdict{OK, Unimplemented}, true},
		{2, false, []Verdict{OK, Failed}, false},
		{3, false, []Verdict{OK, OK}, false},
	} {
		var results []Result
		for _, v := range tt.verdicts {
			results = append(results, Result{Verdict: v})
		}
		if got := NewReport("", time.Now(), tt.cases, tt.strict, results).Passed(); got != tt.want {
			t.Errorf("%+v: %v", tt, got)
		}
	}
}

func TestReportsReturnTheErrorOfTheirWriter(t *testing.T) {
	r := example()
	for name, write := range map[string]func(io.Writer) error{
		"Text": r.Text, "JSON": r.JSON, "JUnit": r.JUnit,
		"List":     func(w io.Writer) error { return List(w, Cases(Server)) },
		"ListJSON": func(w io.Writer) error { return ListJSON(w, Cases(Server)) },
	} {
		if err := write(full{}); !errors.Is(err, errFull) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

var errFull = errors.New("the disk is full")

type full struct{}

func (full) Write([]byte) (int, error) { return 0, errFull }

func TestFramesAreExplainedOneByOne(t *testing.T) {
	chunks := append(exampleBroken[:5:5], Chunk{Sent: true, Note: "connection 2", New: true}, Chunk{Sent: true, Data: exampleHello}, Chunk{Note: "RST of TCP"})
	for _, client := range []bool{true, false} {
		if !client { // the same bytes, but we are the server
			chunks = append([]Chunk(nil), chunks...)
			for i := range chunks {
				chunks[i].Sent = !chunks[i].Sent
			}
		}
		lines := explain(chunks, client)
		for i, want := range []string{
			0: "-> GET / HTTP/1.1", 7: "<- HTTP/1.1 101", 12: "[81 82 37 fa 21 3d | f7 55]", 13: "[81 02 | c0 af]",
			14: "[88 02 | 03 e8]", 15: "<- end of TCP", 16: "connection 2", 17: "-> GET / HTTP/1.1", 24: "<- RST of TCP",
		} {
			if i >= len(lines) || !strings.Contains(lines[i], want) {
				t.Fatalf("client %v: line %d has no %q: %q", client, i, want, lines)
			}
		}
		if !strings.HasPrefix(lines[12], "-> text") || !strings.HasPrefix(lines[13], "<- text") || !strings.Contains(lines[12], "§8.1") {
			t.Errorf("client %v: %q", client, lines[12:14])
		}
	}
}

func TestAHeadThatWasNotAcceptedIsShownAsItIs(t *testing.T) {
	want := []string{`-> "\x00GET / HTTP/1.1\r\n"`, "-> 7 more bytes", `<- "HTTP/1.1 400 Bad Request\r\n"`, `<- "\r\n"`, "<- end of TCP"}
	if lines := explain(exampleRefused, true); !reflect.DeepEqual(lines, want) {
		t.Errorf("got  %q\nwant %q", lines, want)
	}
}

func TestALongConversationIsCutInTheMiddle(t *testing.T) {
	chunks := []Chunk{{Data: []byte("HTTP/1.1 101 Switching Protocols\r\n\r\n")}}
	for range 1000 {
		chunks = append(chunks, Chunk{Data: []byte("\x8a\x00")})
	}
	lines := explain(append(chunks, Chunk{Note: "end of TCP"}), true)
	if n := len(lines); n != explainLines*3/2+1 || lines[explainLines] != "... 943 more ..." || lines[n-1] != "<- end of TCP" {
		t.Errorf("%d lines: %q", n, lines)
	}
}

// golden compares what write makes with a file of testdata.
func golden(t *testing.T, name string, write func(io.Writer) error) {
	t.Helper()
	var b bytes.Buffer
	if err := write(&b); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join("testdata", name)
	if *update {
		if err := os.WriteFile(path, b.Bytes(), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if b.String() != string(want) {
		t.Errorf("%s differs; look, and run with -update if it is better now:\n%s", path, b.String())
	}
}
