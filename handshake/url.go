package handshake

import (
	"fmt"
	"net/url"
	"strings"
)

// URL is a WebSocket URL (RFC 6455 §3) in the parts that a client needs.
type URL struct {
	Secure   bool   // wss: TLS before the handshake
	Hostname string // to connect to, and for the certificate; an IPv6 address without its brackets
	Port     string // to connect to: 80 for ws and 443 for wss, if the URL has none
	Host     string // for Hello.Host: as it stands in the URL
	Target   string // for Hello.Target: path and query, "/" if there is no path (§3)
}

// ParseURL reads a ws:// or wss:// URL. The error is one line that quotes it.
func ParseURL(s string) (URL, error) {
	u, err := url.Parse(s)
	switch {
	// url.Parse takes a space in the query, which a request line cannot have; control bytes it refuses.
	case err != nil || u.Hostname() == "" || strings.Contains(u.RawQuery, " "):
		return URL{}, fmt.Errorf("%q is not a URL like ws://localhost:8002/wshandler", s)
	case u.Scheme == "http" || u.Scheme == "https":
		return URL{}, fmt.Errorf("%s: the scheme of a WebSocket is ws or wss, not %s (RFC 6455 §3)", s, u.Scheme)
	case u.Scheme != "ws" && u.Scheme != "wss":
		return URL{}, fmt.Errorf("%s: the scheme must be ws or wss, not %q (RFC 6455 §3)", s, u.Scheme)
	// §3: fragment identifiers "MUST NOT be used on these URIs". The grammar there has no user either.
	case u.User != nil || u.Fragment != "":
		return URL{}, fmt.Errorf("%s: a WebSocket URL has no user and no fragment (RFC 6455 §3)", u.Redacted())
	case !validPort(u.Port()):
		return URL{}, fmt.Errorf("%s: there is no port %s", s, u.Port())
	}
	p := URL{Secure: u.Scheme == "wss", Hostname: u.Hostname(), Port: u.Port(), Host: u.Host, Target: u.RequestURI()}
	switch {
	case p.Port != "":
	case p.Secure:
		p.Port = "443"
	default:
		p.Port = "80"
	}
	return p, nil
}

// validPort says whether a port, of digits only, can be one.
func validPort(s string) bool {
	n := 0
	for i := range len(s) {
		if n = n*10 + int(s[i]-'0'); n > 65535 {
			return false
		}
	}
	return true
}
