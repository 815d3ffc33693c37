package inspect

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"wspoll/handshake"
)

func TestTheExampleHandshakeIsExplainedLineByLine(t *testing.T) {
	parts := []sent{{Client, []byte(exampleRequest)}, {Server, []byte(exampleAnswer)}}
	x := explain(Options{}, parts, atRandom(4))
	if v := x.violations(); len(v) != 0 {
		t.Errorf("%v", v)
	}
	for d, head := range []string{exampleRequest, exampleAnswer} {
		var back strings.Builder
		for _, r := range x.wire[d] {
			if r.Kind != KindLine || r.Line.What == "" || r.Line.Section == "" {
				t.Errorf("%s", text(r))
			}
			back.WriteString(r.Line.Text + "\r\n")
		}
		if back.String() != head {
			t.Errorf("%v: the lines are %q", Dir(d), back.String())
		}
	}
	a := x.wire[Server][3].Line.Accept
	if a == nil || a.Key != exampleKey || string(a.Nonce) != "the sample nonce" || a.Joined != "dGhlIHNhbXBsZSBub25jZQ==258EAFA5-E914-47DA-95CA-C5AB0DC85B11" ||
		hexDigits(a.SHA1) != "b37a4f2cc0624f1690f64606cf385945b2bec4ea" || a.Accept != "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" {
		t.Errorf("%+v", a)
	}
}

// request is the example with lines replaced: "Name: value" for one that begins so, "-Name" to take it away, and others added.
func changed(head string, changes ...string) string {
	lines := strings.Split(strings.TrimSuffix(head, "\r\n\r\n"), "\r\n")
	for _, c := range changes {
		name, _, _ := strings.Cut(strings.TrimPrefix(c, "-"), ":")
		i := slices.IndexFunc(lines, func(l string) bool { return strings.HasPrefix(l, name+":") })
		switch {
		case strings.HasPrefix(c, "-"):
			lines = slices.Delete(lines, i, i+1)
		case strings.HasPrefix(c, "+") || i < 0:
			lines = append(lines, strings.TrimPrefix(c, "+"))
		default:
			lines[i] = c
		}
	}
	return strings.Join(lines, "\r\n") + "\r\n\r\n"
}

var badRequests = []struct {
	head   string
	kinds  []string // in the order of the lines
	status int      // of the first that a server would find
}{
	{"POST" + exampleRequest[3:], []string{"handshake-line"}, 405},
	{strings.Replace(exampleRequest, "HTTP/1.1", "HTTP/1.0", 1), []string{"handshake-line"}, 505},
	{strings.Replace(exampleRequest, " HTTP/1.1", "", 1), []string{"handshake-grammar"}, 400},
	{strings.Replace(exampleRequest, "/chat", "/chat#x", 1), []string{"handshake-grammar"}, 400},
	{changed(exampleRequest, "-Host"), []string{"handshake-host"}, 400},
	{changed(exampleRequest, "+Host: other"), []string{"handshake-host"}, 400},
	{changed(exampleRequest, "Host: a b"), []string{"handshake-host"}, 400},
	{changed(exampleRequest, "-Upgrade"), []string{"handshake-upgrade"}, 426},
	{changed(exampleRequest, "-Connection"), []string{"handshake-connection"}, 400},
	{changed(exampleRequest, "Connection: keep-alive"), []string{"handshake-connection"}, 400},
	{changed(exampleRequest, "Content-Length: 3"), []string{"handshake-body"}, 400},
	{changed(exampleRequest, "-Sec-WebSocket-Version"), []string{"handshake-version"}, 400},
	{changed(exampleRequest, "Sec-WebSocket-Version: 8"), []string{"handshake-version"}, 426},
	{changed(exampleRequest, "+Sec-WebSocket-Version: 13"), []string{"handshake-version"}, 400},
	{changed(exampleRequest, "-Sec-WebSocket-Key"), []string{"handshake-key"}, 400},
	{changed(exampleRequest, "Sec-WebSocket-Key: c2hvcnQ="), []string{"handshake-key"}, 400},
	{changed(exampleRequest, "+Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="), []string{"handshake-key"}, 400},
	{changed(exampleRequest, "Sec-WebSocket-Protocol: a b"), []string{"handshake-protocol"}, 400},
	{changed(exampleRequest, "Sec-WebSocket-Protocol: a, a"), []string{"handshake-protocol"}, 400},
	{changed(exampleRequest, "Sec-WebSocket-Extensions: a b"), []string{"handshake-extensions"}, 400},
	{changed(exampleRequest, "+Origin: http://other"), []string{"handshake-origin"}, 400},
	{changed(exampleRequest, "Bad Name: x"), []string{"handshake-grammar"}, 400},
	{changed(exampleRequest, "no colon"), []string{"handshake-grammar"}, 400},
	{strings.Replace(exampleRequest, "Upgrade: websocket\r\n", "Upgrade: websocket\n", 1), []string{"handshake-grammar"}, 400},
	// A file in which an editor left no CR: each line has that fault, and none is missing.
	{"GET / HTTP/1.1\nHost: h\nUpgrade: websocket\nConnection: Upgrade\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\nSec-WebSocket-Version: 13\n\r\n", slices.Repeat([]string{"handshake-grammar"}, 6), 400},
	{
		changed("PUT"+exampleRequest[3:], "-Connection", "Sec-WebSocket-Key: x", "Sec-WebSocket-Version: 7", "+Host: b", "+Origin: c"),
		[]string{"handshake-line", "handshake-connection", "handshake-key", "handshake-version", "handshake-host", "handshake-origin"},
		400,
	},
}

func TestEveryFaultOfARequestIsFound(t *testing.T) {
	for _, tt := range badRequests {
		x := explain(Options{}, one(Client, []byte(tt.head)), atRandom(9))
		v := x.violations()
		got, want := kindsOf(v), slices.Clone(tt.kinds)
		slices.Sort(got)
		slices.Sort(want)
		if !slices.Equal(got, want) {
			t.Errorf("%q: %q, want %q", tt.head, got, want)
		}
		accounted(t, x, [2]int{len(tt.head), 0})

		// What a server answers is among them, with its status and section.
		var r handshake.Request
		var a handshake.Answer
		_, err := handshake.ParseRequest([]byte(tt.head), nil, &r)
		if err == nil {
			err = handshake.Check(&r, &handshake.Options{Origins: []string{"*"}}, &a)
		}
		refusal, ok := err.(*handshake.Refusal)
		if !ok || refusal.Status != tt.status {
			t.Errorf("%q: %v, want status %d", tt.head, err, tt.status)
			continue
		}
		if !slices.ContainsFunc(v, func(v Violation) bool {
			return v.Status == refusal.Status && v.What == refusal.Msg && v.Section == refusal.Section && v.Cure != ""
		}) {
			t.Errorf("%q: %v is not among %v", tt.head, refusal, v)
		}
	}
}

func TestAGoodRequestInUnusualFormHasNoViolation(t *testing.T) {
	for _, head := range []string{
		changed(exampleRequest, "Connection: keep-alive, upgrade", "Upgrade: WebSocket"),
		changed(exampleRequest, "-Origin", "-Sec-WebSocket-Protocol"),
		changed(exampleRequest, "+Sec-WebSocket-Protocol: third", "Sec-WebSocket-Extensions: x; a=1, permessage-deflate"),
		strings.Replace(exampleRequest, "GET /chat", "GET http://server.example.com/chat?x=1", 1),
		changed(exampleRequest, "Sec-WebSocket-Key: AQIDBAUGBwgJCgsMDQ4PEC=="),
		changed(exampleRequest, "Cookie: "+strings.Repeat("x", 20000)),
	} {
		if v := explain(Options{}, one(Client, []byte(head)), whole).violations(); len(v) != 0 {
			t.Errorf("%.200q: %v", head, v)
		}
	}
}

func TestEveryFaultOfAnAnswerIsFound(t *testing.T) {
	offer := changed(exampleRequest, "Sec-WebSocket-Extensions: permessage-deflate")
	for _, tt := range []struct {
		head  string
		kinds []string
	}{
		{changed(exampleAnswer, "-Upgrade"), []string{"handshake-answer-upgrade"}},
		{changed(exampleAnswer, "Connection: close"), []string{"handshake-answer-connection"}},
		{changed(exampleAnswer, "Content-Length: 4"), []string{"handshake-answer-body"}},
		{changed(exampleAnswer, "-Sec-WebSocket-Accept"), []string{"handshake-answer-accept"}},
		{changed(exampleAnswer, "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOp="), []string{"handshake-answer-accept"}},
		{changed(exampleAnswer, "Sec-WebSocket-Protocol: other"), []string{"handshake-answer-protocol"}},
		{changed(exampleAnswer, "Sec-WebSocket-Extensions: x-webkit-deflate-frame"), []string{"handshake-answer-extensions"}},
		{changed(exampleAnswer, "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits=10"), []string{"handshake-answer-extensions"}},
		{strings.Replace(exampleAnswer, "1.1", "1.0", 1), []string{"handshake-answer-line"}},
		{strings.Replace(exampleAnswer, "HTTP/1.1", "HTTP/2", 1), []string{"handshake-answer-grammar"}},
		{
			changed(exampleAnswer, "-Upgrade", "-Connection", "Sec-WebSocket-Accept: x", "Sec-WebSocket-Protocol: none"),
			[]string{"handshake-answer-accept", "handshake-answer-connection", "handshake-answer-protocol", "handshake-answer-upgrade"},
		},
	} {
		x := explain(Options{}, []sent{{Client, []byte(offer)}, {Server, []byte(tt.head)}}, atRandom(3))
		v := x.violations()
		got := kindsOf(v)
		slices.Sort(got)
		if !slices.Equal(got, tt.kinds) {
			t.Errorf("%q: %q, want %q", tt.head, got, tt.kinds)
		}
		for _, v := range v {
			if _, ok := errors.AsType[*handshake.AnswerError](&v); !ok || v.Demands() != "fail the connection" || v.Cure == "" || v.Section == "" {
				t.Errorf("%+v", v)
			}
		}
	}
}

func TestWhatTheAnswerAgreesToHoldsForTheFrames(t *testing.T) {
	offer := changed(exampleRequest, "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits")
	hello := wire("c1 07 f2 48 cd c9 c9 07 00")
	for _, tt := range []struct {
		name, request, extensions string
		want                      []string
	}{
		{"agreed", offer, "permessage-deflate", nil},
		{"not answered", offer, "", []string{"rsv1-not-agreed", "rsv1-not-agreed"}},
		{"forgotten between messages", offer, "permessage-deflate; server_no_context_takeover", []string{"deflate-corrupt"}},
		{"not offered", exampleRequest, "permessage-deflate", []string{"handshake-answer-extensions", "rsv1-not-agreed", "rsv1-not-agreed"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			answer := exampleAnswer
			if tt.extensions != "" {
				answer = changed(answer, "Sec-WebSocket-Extensions: "+tt.extensions)
			}
			second := wire("c1 05 f2 00 11 00 00") // refers to the first
			x := explain(Options{}, []sent{{Client, []byte(tt.request)}, {Server, joined([]byte(answer), hello, second)}}, atRandom(6))
			if got := kindsOf(x.violations()); !slices.Equal(got, tt.want) {
				t.Errorf("%q, want %q", got, tt.want)
			}
		})
	}
}

func TestAnAnswerWithoutItsRequestIsNotHeldAgainstIt(t *testing.T) {
	answer := changed(exampleAnswer, "Sec-WebSocket-Extensions: permessage-deflate")
	x := explain(Options{}, one(Server, joined([]byte(answer), wire("c1 07 f2 48 cd c9 c9 07 00"))), whole)
	if v := x.violations(); len(v) != 0 || x.message[Server][0].Message.Text != "Hello" {
		t.Errorf("%v", v)
	}
	if n := x.wire[Server][0].Notes; len(n) != 1 {
		t.Errorf("%q", n)
	}
}

func TestHTTPBeforeTheHandshakeIsPassedOver(t *testing.T) {
	refusal := "HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: Basic\r\nContent-Length: 5\r\n\r\nwho?\n"
	x := explain(Options{}, []sent{
		{Client, []byte("GET /page HTTP/1.1\r\nHost: h\r\n\r\n")},
		{Server, []byte("HTTP/1.1 204 No Content\r\n\r\n")},
		{Client, []byte(exampleRequest)},
		{Server, []byte(refusal)},
		{Client, []byte(exampleRequest)},
		{Server, []byte("HTTP/1.1 103 Early Hints\r\n\r\n" + exampleAnswer)},
		{Client, fromClient(0x81, "Hello")},
	}, atRandom(8))
	if v := x.violations(); len(v) != 0 {
		t.Errorf("%v", v)
	}
	if m := x.message[Client]; len(m) != 1 || m[0].Message.Text != "Hello" {
		t.Errorf("%v", m)
	}
	var bodies int
	for _, r := range x.wire[Server] {
		if r.Kind == KindBytes {
			bodies++
			if string(r.Bytes.Excerpt) != "who?\n" {
				t.Errorf("%q", r.Bytes.Excerpt)
			}
		}
	}
	if bodies != 1 {
		t.Errorf("%d bodies", bodies)
	}
}

func TestAHeadWithoutEndIsExplainedAsFarAsItGoes(t *testing.T) {
	x := explain(Options{}, one(Client, []byte(exampleRequest[:60])), whole)
	w := x.wire[Client]
	if len(w) != 3 || !strings.Contains(strings.Join(w[2].Notes, ""), "ends here") || len(x.violations()) != 0 {
		t.Errorf("%v", w)
	}
	long := exampleRequest[:20] + strings.Repeat("X: "+strings.Repeat("y", 997)+"\r\n", 100)
	x = explain(Options{}, one(Client, []byte(long)), atRandom(2))
	accounted(t, x, [2]int{len(long), 0})
	w = x.wire[Client]
	if last := w[len(w)-1]; last.Kind != KindBytes || last.Start != MaxHead || !strings.Contains(last.Bytes.What, "longer than") {
		t.Errorf("%s", text(last))
	}
}

func TestAKeyThatIsNoneIsRefusedWithTheReason(t *testing.T) {
	for key, want := range map[string]string{
		"":                                 "0 bytes",
		"c2hvcnQ=":                         "decodes to 5 bytes",
		"dGhlIHNhbXBsZSBub25jZQ":           "22 characters and is not whole base64",
		"dGhlIHNhbXBsZSBub25jZ!==":         "character 22, '!'",
		"dGhlIHNhbXBsZSBub25jZQ== ":        "character 25, ' '",
		"dGhlIHNhbXBsZSBub25jZQ==\r\nX: y": `character 25, '\r'`,
		"dGhlIHNhbXBsZSBub25jZXh4":         "decodes to 18 bytes",
	} {
		if _, err := Derive(key); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", key, err, want)
		}
	}
	for _, key := range []string{exampleKey, "AQIDBAUGBwgJCgsMDQ4PEC=="} {
		a, err := Derive(key)
		if err != nil || len(a.Nonce) != 16 || a.Accept != string(handshake.AppendAccept(nil, []byte(key))) {
			t.Errorf("%q: %+v, %v", key, a, err)
		}
	}
}
