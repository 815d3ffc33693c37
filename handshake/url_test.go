package handshake

import (
	"strings"
	"testing"
)

func TestURLsOfWebSockets(t *testing.T) {
	for in, want := range map[string]URL{
		"ws://example.com":                {false, "example.com", "80", "example.com", "/"},
		"WS://example.com?a=b":            {false, "example.com", "80", "example.com", "/?a=b"},
		"ws://example.com:8002/a?b=c%20d": {false, "example.com", "8002", "example.com:8002", "/a?b=c%20d"},
		"wss://example.com/":              {true, "example.com", "443", "example.com", "/"},
		"wss://example.com:80/ä":          {true, "example.com", "80", "example.com:80", "/%C3%A4"},
		"ws://[::1]:8002/":                {false, "::1", "8002", "[::1]:8002", "/"},
		"ws://[::1]":                      {false, "::1", "80", "[::1]", "/"},
	} {
		if got, err := ParseURL(in); err != nil || got != want {
			t.Errorf("%s: %+v, %v", in, got, err)
		}
	}
}

func TestWhatIsNoURLOfAWebSocketIsToldWhy(t *testing.T) {
	for in, want := range map[string]string{
		"":                         `"" is not a URL like ws://localhost:8002/wshandler`,
		"localhost:8002":           "is not a URL",
		"ws://":                    "is not a URL",
		"ws://:80/":                "is not a URL",
		"ws://a:b/":                "is not a URL",
		"ws://a/?b c":              "is not a URL",
		"ws://a/\r\nX-Smuggled: 1": "is not a URL",
		"ws://a/\x1b[2J":           "is not a URL",
		"%":                        "is not a URL",
		"ws://a:65536/":            "ws://a:65536/: there is no port 65536",
		"http://a/":                "http://a/: the scheme of a WebSocket is ws or wss, not http (RFC 6455 §3)",
		"https://a/":               "not https (RFC 6455 §3)",
		"ftp://a/":                 `must be ws or wss, not "ftp"`,
		"ws://a/b#c":               "no user and no fragment (RFC 6455 §3)",
		"ws://me:secret@a/":        "ws://me:xxxxx@a/: a WebSocket URL has no user",
	} {
		_, err := ParseURL(in)
		if err == nil || !strings.Contains(err.Error(), want) || strings.ContainsAny(err.Error(), "\r\n\x1b") {
			t.Errorf("%q: %v, want %q", in, err, want)
		}
	}
}
