package handshake

import "testing"

func TestWithoutAListPagesOfTheSameHostAndPortAreAllowed(t *testing.T) {
	for _, c := range []struct {
		origin, host string
		want         bool
	}{
		{"http://example.com", "example.com", true},
		{"https://example.com", "example.com", true}, // TLS may end before us
		{"HTTPS://Example.COM", "eXample.com", true},
		{"http://example.com", "example.com:80", true},
		{"https://example.com", "example.com:443", true},
		{"http://example.com:80", "example.com", true},
		{"http://example.com:8080", "example.com:8080", true},
		{"http://[::1]:8080", "[::1]:8080", true},
		{"http://[2001:DB8::1]", "[2001:db8::1]:80", true},
		{"http://127.0.0.1:9001", "127.0.0.1:9001", true},
		{"http://example.com:", "example.com", true},

		{"https://example.com", "example.com:80", false},
		{"http://example.com", "example.com:443", false},
		{"http://example.com", "example.com:8080", false},
		{"http://example.com:8080", "example.com", false},
		{"http://example.com:080", "example.com", false},
		{"http://sub.example.com", "example.com", false},
		{"http://example.com.evil.net", "example.com", false},
		{"http://evilexample.com", "example.com", false},
		{"http://evil.net", "example.com", false},
		{"http://[::1]", "[::2]", false},
		{"http://::1", "[::1]", false},
		{"null", "null", false},
		{"", "", false},
		{"http://", "", false},
		{"http://example.com", "", false},
		{"http://example.com", "exa mple.com", false},
		{"chrome-extension://abc", "abc", false},
		{"http:/example.com", "example.com", false},
		{"//example.com", "example.com", false},
		{"http://example.com/", "example.com", false},
		{"http://user@example.com", "example.com", false},
		{"http://example.com http://evil.net", "example.com", false},
		{"http://example.com:8x", "example.com", false},
	} {
		if got := originAllowed([]byte(c.origin), []byte(c.host), nil); got != c.want {
			t.Errorf("origin %q, host %q: %v", c.origin, c.host, got)
		}
	}
}

func TestAListOfOriginsIsExactButForWildcards(t *testing.T) {
	const host = "api.example.com"
	for _, c := range []struct {
		pattern, origin string
		want            bool
	}{
		{"https://example.com", "https://example.com", true},
		{"https://example.com", "HTTPS://EXAMPLE.com", true},
		{"https://example.com", "https://example.com:443", true},
		{"https://example.com:443", "https://example.com", true},
		{"https://example.com:8443", "https://example.com:8443", true},
		{"http://[::1]:3000", "http://[::1]:3000", true},
		{"https://*.example.com", "https://a.example.com", true},
		{"https://*.example.com", "https://a.B.Example.com:443", true},
		{"https://*.example.com:8443", "https://a.example.com:8443", true},
		{"chrome-extension://abcdef", "chrome-extension://abcdef", true},
		{"chrome-extension://abcdef", "chrome-extension://abcdef:80", false},
		{"null", "null", true},
		{"*", "null", true},
		{"*", "https://anything.example", true},
		{"*", "not an origin", true},

		{"https://example.com", "https://" + host, false}, // with a list, the own host is not allowed by itself
		{"https://example.com", "http://example.com", false},
		{"https://example.com", "https://example.com:8443", false},
		{"https://example.com", "https://www.example.com", false},
		{"https://example.com", "null", false},
		{"https://example.com", "", false},
		{"https://*.example.com", "https://example.com", false},
		{"https://*.example.com", "https://.example.com", false},
		{"https://*.example.com", "https://evilexample.com", false},
		{"https://*.example.com", "https://a.example.com.evil.net", false},
		{"https://*.example.com", "http://a.example.com", false},
		{"https://*.example.com", "https://a.example.com:8443", false},
		{"https://*.example.com:8443", "https://a.example.com", false},
		{"example.com", "https://example.com", false},
		{"", "https://example.com", false},
	} {
		if got := originAllowed([]byte(c.origin), []byte(host), []string{"https://other.example", c.pattern}); got != c.want {
			t.Errorf("pattern %q, origin %q: %v", c.pattern, c.origin, got)
		}
	}
}

func TestHostsAreSplit(t *testing.T) {
	for _, c := range []struct {
		in, host, port string
		ok             bool
	}{
		{"example.com", "example.com", "", true},
		{"example.com:8080", "example.com", "8080", true},
		{"example.com:", "example.com", "", true},
		{"", "", "", true},
		{":80", "", "80", true},
		{"[::1]", "[::1]", "", true},
		{"[::ffff:1.2.3.4]:80", "[::ffff:1.2.3.4]", "80", true},
		{"[]", "", "", false},
		{"[:]", "", "", false},
		{"[::1", "", "", false},
		{"[::g]", "", "", false},
		{"[::1]80", "", "", false},
		{"::1", "", "", false},
		{"a:80:90", "", "", false},
		{"a:-1", "", "", false},
		{"a b", "", "", false},
		{"a/b", "", "", false},
		{"u@a", "", "", false},
		{"\xc3\xbc", "", "", false},
	} {
		host, port, ok := splitHost(c.in)
		if ok != c.ok || ok && (host != c.host || port != c.port) {
			t.Errorf("%q: %q, %q, %v", c.in, host, port, ok)
		}
	}
}
