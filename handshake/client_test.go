package handshake

import (
	"bufio"
	"encoding/base64"
	"net/http"
	"strings"
	"testing"
)

func TestKeysAreTheNonceInBase64(t *testing.T) {
	// RFC 6455 §1.3; §4.1 item 7 writes "AQIDBAUGBwgJCgsMDQ4PEC==" for the bytes 1 to 16, with a bit set that encoders leave 0.
	for nonce, want := range map[[16]byte]string{
		[16]byte([]byte("the sample nonce")):                    "dGhlIHNhbXBsZSBub25jZQ==",
		{1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16}: "AQIDBAUGBwgJCgsMDQ4PEA==",
	} {
		key := AppendKey([]byte("k"), nonce)
		if string(key) != "k"+want || !validKey(key[1:]) {
			t.Errorf("%x: %s", nonce, key)
		}
		if back, err := base64.StdEncoding.DecodeString(want); err != nil || string(back) != string(nonce[:]) {
			t.Errorf("%s: %x, %v", want, back, err)
		}
	}
}

func TestARequestHasWhatTheHelloSays(t *testing.T) {
	key := []byte("dGhlIHNhbXBsZSBub25jZQ==")
	for _, c := range []struct {
		h    Hello
		want string
	}{
		{
			Hello{Host: "example.com", Key: key},
			"GET / HTTP/1.1\r\nHost: example.com\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n" +
				"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n",
		},
		{
			Hello{
				Host: "[::1]:9001", Target: "/chat?a=b", Key: key, Origin: "http://example.com", Protocols: []string{"chat", "superchat"},
				Extensions: "permessage-deflate; client_max_window_bits", Header: []byte("Cookie: a=b\r\nUser-Agent: x\r\n"),
			},
			"GET /chat?a=b HTTP/1.1\r\nHost: [::1]:9001\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n" +
				"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nOrigin: http://example.com\r\n" +
				"Sec-WebSocket-Protocol: chat, superchat\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n" +
				"Cookie: a=b\r\nUser-Agent: x\r\n\r\n",
		},
	} {
		got := AppendRequest(nil, &c.h)
		if string(got) != c.want {
			t.Errorf("got %q", got)
		}
		if _, err := http.ReadRequest(bufio.NewReader(strings.NewReader(string(got)))); err != nil {
			t.Error(err)
		}
	}
}

func TestBothSidesAgreeWhateverTheyNegotiate(t *testing.T) {
	for _, protocols := range [][]string{nil, {"chat"}, {"superchat", "chat"}} {
		for _, spoken := range [][]string{nil, {"chat"}, {"chat", "superchat"}} {
			for _, extensions := range []string{"", "permessage-deflate; client_max_window_bits, permessage-deflate"} {
				for _, origin := range []string{"", "https://push.example.com:8443"} {
					h := Hello{
						Host: "push.example.com:8443", Target: "/ws?x", Key: AppendKey(nil, [16]byte{byte(len(spoken)), 0xff}),
						Origin: origin, Protocols: protocols, Extensions: extensions,
					}
					req := mustParse(t, string(AppendRequest(nil, &h)))
					opts := Options{Protocols: spoken}
					var ans Answer
					if err := Check(req, &opts, &ans); err != nil {
						t.Fatal(err)
					}
					if v, n := req.Get("Sec-WebSocket-Extensions"); n > 0 && string(v) == extensions {
						ans.Extensions = []byte("permessage-deflate; server_max_window_bits=12")
					}
					down := AppendAnswer(nil, &ans, &opts)
					var resp Response
					n, err := ParseResponse(down, nil, &resp)
					if err != nil || n != len(down) {
						t.Fatal(n, err)
					}
					if err = resp.Check(&h); err != nil {
						t.Fatal(err)
					}
					if string(resp.Protocol) != ans.Protocol || string(resp.Extensions) != string(ans.Extensions) {
						t.Errorf("client: %q, %q; server: %+v", resp.Protocol, resp.Extensions, ans)
					}
				}
			}
		}
	}
}

func TestAClientSeesTheStatusOfARefusal(t *testing.T) {
	h := Hello{Host: "a", Key: []byte("short")}
	var ans Answer
	r := refusal(t, Check(mustParse(t, string(AppendRequest(nil, &h))), nil, &ans), 400)
	var resp Response
	out := AppendRefusal(nil, r, false)
	n, err := ParseResponse(out, nil, &resp)
	if err != nil {
		t.Fatal(err)
	}
	if body := string(out[n:]); body != r.Msg+"\n" {
		t.Errorf("body %q", body)
	}
	if e := answerError(t, resp.Check(&h)); e.Status != 400 || !e.Refused() {
		t.Errorf("%+v", e)
	}
}
