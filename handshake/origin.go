package handshake

// The same-origin decision of RFC 6455 §10.2. A browser sends cookies with a WebSocket handshake to any host a page names, and
// no CORS rule stands in between: unless the server looks at Origin, every page on the web can open a connection in the
// name of its visitor.

// originAllowed decides about the value of an Origin header. It is only asked when there is one: a client that sends none
// is no browser (§4.2.1 item 7), and what is no browser could send any.
func originAllowed(origin, host []byte, allowed []string) bool {
	if len(allowed) == 0 {
		return sameHost(origin, host)
	}
	for _, pattern := range allowed {
		if pattern == "*" || equalFold(origin, pattern) || originMatches(origin, pattern) {
			return true
		}
	}
	return false
}

// sameHost reports whether the origin is a page of the host and port which the request is for. A Host without a port is
// read with the default port of the origin's scheme: if TLS ends before us, only the browser knows the scheme.
func sameHost(origin, host []byte) bool {
	o, ok := splitOrigin(origin)
	if !ok || o.defaultPort() == "" {
		return false
	}
	name, port, ok := splitHost(host)
	if !ok || len(name) == 0 {
		return false
	}
	return equalFold(name, o.host) && samePort(port, o.port, o.defaultPort())
}

// originMatches compares an origin with one of Options.Origins; the host of the pattern may begin with "*.", which stands
// for one or more labels, and not for none.
func originMatches(origin []byte, pattern string) bool {
	o, ok := splitOrigin(origin)
	if !ok {
		return false
	}
	p, ok := splitOrigin(pattern)
	if !ok || !equalFold(o.scheme, p.scheme) || !samePort(o.port, []byte(p.port), o.defaultPort()) {
		return false
	}
	if len(p.host) > 2 && p.host[:2] == "*." {
		suffix := p.host[1:]
		return len(o.host) > len(suffix) && o.host[0] != '[' && equalFold(o.host[len(o.host)-len(suffix):], suffix)
	}
	return equalFold(o.host, p.host)
}

// originParts are scheme, host and port of a serialized origin (RFC 6454 §6.2). port is empty for the default.
type originParts[T string | []byte] struct{ scheme, host, port T }

func (o originParts[T]) defaultPort() string {
	switch {
	case len(o.scheme) == 4 && equalFold([]byte(o.scheme), "http"):
		return "80"
	case len(o.scheme) == 5 && equalFold([]byte(o.scheme), "https"):
		return "443"
	}
	return ""
}

// splitOrigin takes "scheme://host[:port]" apart. Whatever has a path, a user or white space is no serialized origin;
// "null" is none either, it stands for the lack of one.
func splitOrigin[T string | []byte](s T) (o originParts[T], ok bool) {
	i := 0
	for i < len(s) && tchar[s[i]] {
		i++
	}
	if i == 0 || len(s) < i+3 || s[i] != ':' || s[i+1] != '/' || s[i+2] != '/' {
		return o, false
	}
	o.scheme = s[:i]
	o.host, o.port, ok = splitHost(s[i+3:])
	return o, ok && len(o.host) > 0
}

// splitHost takes "host", "host:port" or "[v6]:port" apart and checks the bytes of both (RFC 3986 §3.2.2). The brackets
// stay with the host. An empty host is allowed here, as in a Host header; so is an empty port.
func splitHost[T string | []byte](s T) (host, port T, ok bool) {
	i := 0
	if len(s) > 0 && s[0] == '[' {
		for i = 1; i < len(s) && ip6char[s[i]]; i++ {
		}
		if i < 3 || i == len(s) || s[i] != ']' {
			return host, port, false
		}
		i++
	} else {
		for i < len(s) && hostchar[s[i]] {
			i++
		}
	}
	host = s[:i]
	if i == len(s) {
		return host, port, true
	}
	if s[i] != ':' {
		return host, port, false
	}
	port = s[i+1:]
	for j := range len(port) {
		if !isDigit(port[j]) {
			return host, port, false
		}
	}
	return host, port, true
}

// samePort compares two ports, an empty one being the default. A leading zero makes another port, which no browser sends.
func samePort(a, b []byte, standard string) bool {
	if len(a) == 0 && len(b) == 0 {
		return true
	}
	if len(a) == 0 {
		return string(b) == standard
	}
	if len(b) == 0 {
		return string(a) == standard
	}
	return string(a) == string(b)
}

var (
	// hostchar are the bytes of a registered name (RFC 3986 §3.2.2) and of the "*" of our patterns.
	hostchar = byteSet("-._~%!$&'()*+,;=0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz")
	// ip6char are the bytes between the brackets of an IPv6 address.
	ip6char = byteSet(":.0123456789ABCDEFabcdef")
)
