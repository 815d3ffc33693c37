package handshake

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/gobwas/ws"
)

// edit gives the RFC's request with the lines that begin with one of the names replaced by what follows the "=": a
// change "Host=" leaves the line away, "Host=Host: a|Host: b" makes two of it, "+X: y" adds one. "1=" is the first line.
func edit(changes ...string) string {
	lines := strings.Split(strings.TrimSuffix(rfcRequest, "\r\n\r\n"), "\r\n")
	for _, change := range changes {
		if added, ok := strings.CutPrefix(change, "+"); ok {
			lines = append(lines, added)
			continue
		}
		name, with, _ := strings.Cut(change, "=")
		var out []string
		for i, line := range lines {
			switch {
			case !(name == "1" && i == 0) && !strings.HasPrefix(line, name+":"):
				out = append(out, line)
			case with != "":
				out = append(out, strings.Split(with, "|")...)
			}
		}
		lines = out
	}
	return strings.Join(lines, "\r\n") + "\r\n\r\n"
}

// sameOrigin makes the RFC's request pass the default origin check.
const sameOrigin = "Origin=Origin: http://server.example.com"

func TestTheHandshakeOfTheRFCIsAnsweredByteForByte(t *testing.T) {
	// §1.3 puts Sec-WebSocket-Protocol after Sec-WebSocket-Accept, as we do.
	const want = "HTTP/1.1 101 Switching Protocols\r\n" +
		"Upgrade: websocket\r\n" +
		"Connection: Upgrade\r\n" +
		"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n" +
		"Sec-WebSocket-Protocol: chat\r\n\r\n"
	opts := Options{Protocols: []string{"chat"}, Origins: []string{"http://example.com"}}
	var ans Answer
	if err := Check(mustParse(t, rfcRequest), &opts, &ans); err != nil {
		t.Fatal(err)
	}
	if got := AppendAnswer(nil, &ans, &opts); string(got) != want {
		t.Errorf("got %q", got)
	}
}

func TestAcceptedVariations(t *testing.T) {
	for _, changes := range [][]string{
		{},
		{"Origin="},
		{"1=GET /chat HTTP/1.2"},
		{"1=GET http://server.example.com/chat HTTP/1.1"},
		{"1=GET http://server.example.com/chat HTTP/1.1", "Host=Host: other.example"}, // the target's host counts
		{"Upgrade=UPGRADE: WebSocket"},
		{"Upgrade=Upgrade: h2c|Upgrade: websocket"},
		{"Connection=Connection: keep-alive, Upgrade"},
		{"Connection=Connection: uPGRADE"},
		{"Connection=Connection: keep-alive|connection: Upgrade"}, // two lines, which gobwas refuses
		{"Connection=Connection: Upgrade|Connection: keep-alive"},
		{"Connection=Connection: , ,Upgrade,"},
		{"+Content-Length: 0"},
		{"Sec-WebSocket-Key=Sec-WebSocket-Key:\t dGhlIHNhbXBsZSBub25jZQ== "},
		{"Sec-WebSocket-Key=sec-websocket-key: AQIDBAUGBwgJCgsMDQ4PEC=="}, // the example of §4.1 item 7
		{"Sec-WebSocket-Key=Sec-WebSocket-Key: ++++////AAAAzzzz9999+A=="},
		{"Sec-WebSocket-Version=sec-websocket-version:13"},
		{"Sec-WebSocket-Protocol="},
		{"Sec-WebSocket-Protocol=Sec-WebSocket-Protocol: chat|Sec-WebSocket-Protocol: superchat"},
		{"Sec-WebSocket-Protocol=Sec-WebSocket-Protocol: chat, Chat"},
		{"+Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits, x-other; a=\"b\""},
		{"+Sec-WebSocket-Extensions:", "+Sec-WebSocket-Extensions: foo"},
	} {
		head := edit(append([]string{sameOrigin}, changes...)...)
		var ans Answer
		req := mustParse(t, head)
		if err := Check(req, nil, &ans); err != nil {
			t.Errorf("%q: %v", changes, err)
		} else if string(ans.Key) != string(req.Key) || ans.Protocol != "" || ans.Extensions != nil {
			t.Errorf("%q: %+v", changes, ans)
		}
	}
}

func TestRefusedHandshakes(t *testing.T) {
	var many []string
	for i := range maxProtocols + 1 {
		many = append(many, fmt.Sprint("p", i))
	}
	for _, c := range []struct {
		change  string
		status  int
		section string
		header  string
		says    string
		err     error
	}{
		{"1=GET /chat HTTP/1.0", 505, "4.2.1 item 1", "", "HTTP/1.1", ws.ErrHandshakeBadProtocol},
		{"1=POST /chat HTTP/1.1", 405, "4.2.1 item 1", "Allow: GET\r\n", "GET", ws.ErrHandshakeBadMethod},
		{"1=HEAD /chat HTTP/1.1", 405, "4.2.1 item 1", "Allow: GET\r\n", "GET", ws.ErrHandshakeBadMethod},
		{"1=get /chat HTTP/1.1", 405, "4.2.1 item 1", "Allow: GET\r\n", "GET", ws.ErrHandshakeBadMethod},
		{"1=GET * HTTP/1.1", 400, "4.2.1 item 1", "", "path", nil},
		{"Host=Host:", 400, "4.2.1 item 2", "", "empty", ws.ErrHandshakeBadHost},
		{"Upgrade=", 426, "4.2.1 item 3", "Upgrade: websocket\r\n", "WebSocket client", ws.ErrHandshakeBadUpgrade},
		{"Upgrade=Upgrade: h2c", 426, "4.2.1 item 3", "Upgrade: websocket\r\n", "WebSocket client", ws.ErrHandshakeBadUpgrade},
		{"Connection=", 400, "4.2.1 item 4", "", "Connection", ws.ErrHandshakeBadConnection},
		{"Connection=Connection: keep-alive", 400, "4.2.1 item 4", "", "Connection", ws.ErrHandshakeBadConnection},
		{"Connection=Connection: keep-alive|Connection: close", 400, "4.2.1 item 4", "", "Connection", ws.ErrHandshakeBadConnection},
		{"Connection=Connection: Upgraded", 400, "4.2.1 item 4", "", "Connection", ws.ErrHandshakeBadConnection},
		{"+Content-Length: 5", 400, "RFC 9110 §7.8", "", "body", nil},
		{"+Transfer-Encoding: chunked", 400, "RFC 9110 §7.8", "", "body", nil},
		{"Sec-WebSocket-Version=", 400, "4.2.1 item 6", "Sec-WebSocket-Version: 13\r\n", "missing", ws.ErrHandshakeBadSecVersion},
		{"+Sec-WebSocket-Version: 13", 400, "11.3.5", "Sec-WebSocket-Version: 13\r\n", "more than one", ws.ErrHandshakeBadSecVersion},
		{"Sec-WebSocket-Version=Sec-WebSocket-Version: 25", 426, "4.2.2", "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n", `"25"`, ws.ErrHandshakeUpgradeRequired},
		{"Sec-WebSocket-Version=Sec-WebSocket-Version: 8", 426, "4.2.2", "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n", `"8"`, ws.ErrHandshakeUpgradeRequired},
		{"Sec-WebSocket-Version=Sec-WebSocket-Version: 013", 426, "4.2.2", "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n", `"013"`, ws.ErrHandshakeUpgradeRequired},
		{"Sec-WebSocket-Version=Sec-WebSocket-Version:", 426, "4.2.2", "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n", `""`, ws.ErrHandshakeUpgradeRequired},
		{"Sec-WebSocket-Version=Sec-WebSocket-Version: 13, 8", 426, "4.2.2", "Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n", `"13, 8"`, ws.ErrHandshakeUpgradeRequired},
		{"Sec-WebSocket-Key=", 400, "4.2.1 item 5", "", "missing", ws.ErrHandshakeBadSecKey},
		{"+Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==", 400, "11.3.1", "", "more than one", ws.ErrHandshakeBadSecKey}, // passes in gobwas
		{"Sec-WebSocket-Key=Sec-WebSocket-Key:", 400, "4.2.1 item 5", "", "16 bytes", ws.ErrHandshakeBadSecKey},
		{"Sec-WebSocket-Key=Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=", 400, "4.2.1 item 5", "", "16 bytes", ws.ErrHandshakeBadSecKey},
		{"Sec-WebSocket-Key=Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZSE=", 400, "4.2.1 item 5", "", "16 bytes", ws.ErrHandshakeBadSecKey},  // 17 bytes
		{"Sec-WebSocket-Key=Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZSEh", 400, "4.2.1 item 5", "", "16 bytes", ws.ErrHandshakeBadSecKey},  // 18 bytes; passes in gobwas
		{"Sec-WebSocket-Key=Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25j-_==", 400, "4.2.1 item 5", "", "16 bytes", ws.ErrHandshakeBadSecKey},  // the URL alphabet
		{"Sec-WebSocket-Key=Sec-WebSocket-Key: ????????????????????????", 400, "4.2.1 item 5", "", "16 bytes", ws.ErrHandshakeBadSecKey},  // passes in gobwas
		{"Sec-WebSocket-Key=Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZ===", 400, "4.2.1 item 5", "", "16 bytes", ws.ErrHandshakeBadSecKey},  // padding too early
		{"Sec-WebSocket-Key=Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==x", 400, "4.2.1 item 5", "", "16 bytes", ws.ErrHandshakeBadSecKey}, // a byte more
		{"Sec-WebSocket-Protocol=Sec-WebSocket-Protocol:", 400, "4.1 item 10", "", "not a list", ws.ErrMalformedRequest},
		{"Sec-WebSocket-Protocol=Sec-WebSocket-Protocol: , ,", 400, "4.1 item 10", "", "not a list", ws.ErrMalformedRequest},
		{"Sec-WebSocket-Protocol=Sec-WebSocket-Protocol: chat superchat", 400, "4.1 item 10", "", "not a list", ws.ErrMalformedRequest},
		{"Sec-WebSocket-Protocol=Sec-WebSocket-Protocol: chat|Sec-WebSocket-Protocol: a/b", 400, "4.1 item 10", "", "not a list", ws.ErrMalformedRequest},
		{"Sec-WebSocket-Protocol=Sec-WebSocket-Protocol: chat, a, chat", 400, "4.1 item 10", "", "twice", ws.ErrMalformedRequest},
		{"Sec-WebSocket-Protocol=Sec-WebSocket-Protocol: chat|Sec-WebSocket-Protocol: chat", 400, "4.1 item 10", "", "twice", ws.ErrMalformedRequest},
		{"Sec-WebSocket-Protocol=Sec-WebSocket-Protocol: " + strings.Join(many, ","), 400, "10.4", "", "more than 32", nil},
		{"+Sec-WebSocket-Extensions:", 400, "9.1", "", "not a list", ws.ErrMalformedRequest},
		{"+Sec-WebSocket-Extensions: permessage-deflate;", 400, "9.1", "", "not a list", ws.ErrMalformedRequest},
		{"+Sec-WebSocket-Extensions: a|Sec-WebSocket-Extensions: b c", 400, "9.1", "", "not a list", ws.ErrMalformedRequest},
		{"Origin=Origin: http://evil.example", 403, "10.2", "", `"http://evil.example"`, nil},
		{"Origin=Origin: null", 403, "10.2", "", `"null"`, nil},
		{"Origin=Origin:", 403, "10.2", "", `""`, nil},
		{"Origin=Origin: http://server.example.com|Origin: http://server.example.com", 400, "RFC 6454 §7.3", "", "more than one", nil},
		{"1=GET http://other.example/chat HTTP/1.1", 403, "10.2", "", "origin", nil},
	} {
		t.Run(c.change[:min(len(c.change), 70)], func(t *testing.T) {
			changes := []string{sameOrigin}
			if added, ok := strings.CutPrefix(c.change, "+"); ok {
				for line := range strings.SplitSeq(added, "|") {
					changes = append(changes, "+"+line)
				}
			} else {
				changes = append(changes, c.change)
			}
			req, ans := mustParse(t, edit(changes...)), Answer{Key: []byte("old")}
			r := refusal(t, Check(req, &Options{Protocols: []string{"superchat"}}, &ans), c.status)
			if !strings.Contains(r.Section, c.section) || r.Header != c.header || !strings.Contains(r.Msg, c.says) {
				t.Errorf("%+v", r)
			}
			if c.err != nil && !errors.Is(r, c.err) || c.err == nil && r.Err != nil {
				t.Errorf("wraps %v, want %v", r.Err, c.err)
			}
			if ans.Key != nil {
				t.Errorf("the answer has the key %q", ans.Key)
			}
		})
	}
}

func TestAPlainRequestForAWebPageIsSentTo426(t *testing.T) {
	var ans Answer
	err := Check(mustParse(t, "GET / HTTP/1.1\r\nHost: a\r\n\r\n"), nil, &ans)
	if r := refusal(t, err, 426); r.Header != "Upgrade: websocket\r\n" {
		t.Errorf("header %q", r.Header)
	}
}

func TestTheFirstSubprotocolOfTheClientThatTheServerSpeaksIsChosen(t *testing.T) {
	for _, c := range []struct {
		offered string // lines are parted by |
		spoken  []string
		want    string
	}{
		{"chat, superchat", []string{"superchat", "chat"}, "chat"},
		{"chat, superchat", []string{"superchat"}, "superchat"},
		{"a|b,c|d", []string{"d", "c"}, "c"},
		{"Chat", []string{"chat"}, ""}, // compared by case
		{"chat", []string{"other"}, ""},
		{"chat", nil, ""},
	} {
		lines := "Sec-WebSocket-Protocol: " + strings.ReplaceAll(c.offered, "|", "|Sec-WebSocket-Protocol: ")
		var ans Answer
		if err := Check(mustParse(t, edit("Origin=", "Sec-WebSocket-Protocol="+lines)), &Options{Protocols: c.spoken}, &ans); err != nil || ans.Protocol != c.want {
			t.Errorf("%q: %q, %v", c.offered, ans.Protocol, err)
		}
	}
}

func TestAsManySubprotocolsAsTheLimitAreRead(t *testing.T) {
	var offered []string
	for i := range maxProtocols {
		offered = append(offered, fmt.Sprint("p", i))
	}
	var ans Answer
	last := offered[maxProtocols-1]
	err := Check(mustParse(t, edit("Origin=", "Sec-WebSocket-Protocol=Sec-WebSocket-Protocol: "+strings.Join(offered, ","))), &Options{Protocols: []string{last}}, &ans)
	if err != nil || ans.Protocol != last {
		t.Errorf("%q, %v", ans.Protocol, err)
	}
}

func TestTheOriginOptionIsObeyed(t *testing.T) {
	req := mustParse(t, rfcRequest) // http://example.com at server.example.com
	var ans Answer
	refusal(t, Check(req, nil, &ans), 403)
	refusal(t, Check(req, &Options{Origins: []string{"https://example.com"}}, &ans), 403)
	for _, o := range []string{"http://example.com", "*"} {
		if err := Check(req, &Options{Origins: []string{o}}, &ans); err != nil {
			t.Errorf("%s: %v", o, err)
		}
	}
	// What sends no Origin is no browser.
	if err := Check(mustParse(t, edit("Origin=")), &Options{Origins: []string{"https://example.com"}}, &ans); err != nil {
		t.Error(err)
	}
}

func TestAcceptingAllocatesNothing(t *testing.T) {
	for _, head := range []string{
		chromium,
		// lists over several lines take the other way through Fields
		edit("Origin=", "Connection=Connection: a|Connection: Upgrade", "Upgrade=Upgrade: a|Upgrade: websocket",
			"Sec-WebSocket-Protocol=Sec-WebSocket-Protocol: a|Sec-WebSocket-Protocol: superchat",
			"+Sec-WebSocket-Extensions: a", "+Sec-WebSocket-Extensions: b;c=\"d\"", "+Content-Length: 0", "+Content-Length: 0"),
	} {
		var (
			in   = []byte(head)
			out  = make([]byte, 0, 512)
			opts = Options{Protocols: []string{"superchat"}, Header: []byte("Server: wspoll\r\n")}
			req  Request
			ans  Answer
			err  error
		)
		if n := testing.AllocsPerRun(200, func() {
			if _, err = ParseRequest(in[:len(in)-1], nil, &req); err != nil {
				return
			}
			if _, err = ParseRequest(in, nil, &req); err != nil {
				return
			}
			if err = Check(&req, &opts, &ans); err != nil {
				return
			}
			out = AppendAnswer(out[:0], &ans, &opts)
		}); n != 0 || err != nil {
			t.Errorf("%v allocations, %v", n, err)
		}
	}
}

func TestCommonRefusalsAllocateNothing(t *testing.T) {
	out := make([]byte, 0, 512)
	for _, head := range []string{
		"GET / HTTP/1.1\r\nHost: a\r\n\r\n", "\x16\x03\x01", "GET / HTTP/1.1\r\n\r\n", edit("Sec-WebSocket-Key="), strings.Repeat("a", DefaultHead),
	} {
		in := []byte(head)
		var (
			req Request
			ans Answer
		)
		if n := testing.AllocsPerRun(200, func() {
			_, err := ParseRequest(in, nil, &req)
			if err == nil {
				err = Check(&req, nil, &ans)
			}
			out = AppendRefusal(out[:0], err.(*Refusal), false)
		}); n != 0 {
			t.Errorf("%q: %v allocations", head[:min(len(head), 60)], n)
		}
	}
}
