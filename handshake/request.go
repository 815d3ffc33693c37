package handshake

import "bytes"

// Request is a parsed request head. Every slice aliases the parsed bytes and is valid until they are overwritten. The
// struct can be reused: ParseRequest overwrites all of it.
type Request struct {
	Method []byte // a token, case-sensitive: "GET"
	Target []byte // the request-target as sent
	Path   []byte // the raw path of the target, not unescaped: "/chat". "*" and empty for the forms that have none
	Query  []byte // what follows the first '?', not unescaped; empty also when there is no '?'
	Minor  int    // the y of HTTP/1.y; other major versions are refused with 505

	// Host is the value of the Host header, or of the target's authority if the target is an absolute URI, which
	// wins (RFC 9112 §3.2.2): "example.com:8080". Checked to be a host with an optional port; may be empty.
	Host []byte

	// The first value of each, nil when the field is missing. The lists (Protocols, Extensions) may go on in further
	// lines: use Each, or Check, which knows.
	Origin     []byte
	Key        []byte // Sec-WebSocket-Key
	Version    []byte // Sec-WebSocket-Version
	Protocols  []byte // Sec-WebSocket-Protocol
	Extensions []byte // Sec-WebSocket-Extensions

	Fields // all header lines
}

// ParseRequest finds and parses one request head at the start of b. n is its length with the final empty line; the
// bytes b[n:] are what the peer sent after it, its first frames or a request body. n == 0 and a nil error: the head is
// not complete, call again when there are more bytes. However the network cut the head, the result is the same. The
// error is a *Refusal, and comes as soon as the bytes show the fault, also when the head is not complete. r is valid
// only when n > 0. lim may be nil.
//
// The grammar is that of RFC 9112 with one of its leniencies: an empty line, of CR and LF, may come before the request
// line, and is part of n. A second one may not, lines end in CRLF and not in LF, and there are single spaces in the
// request line. A request that two parsers can read in two ways is the raw material of request smuggling, and all
// WebSocket clients write the strict form.
func ParseRequest(b []byte, lim *Limits, r *Request) (n int, err error) {
	*r = Request{}
	l := lim.or()
	n, fault := r.parse(b[:min(len(b), l.Head)], &l)
	switch {
	case fault != nil:
		return 0, fault
	case n == 0 && len(b) >= l.Head:
		// The empty line is not within the limit, whatever may follow.
		return 0, refuseHead
	}
	return n, nil
}

// EmptyLine is what may come before a request, once. Who hands a request on to another parser leaves it away.
const EmptyLine = "\r\n"

func (r *Request) parse(win []byte, l *Limits) (n int, fault *Refusal) {
	// RFC 9112 §2.2: a server SHOULD ignore at least one empty line in front of the request line. We ignore one.
	start := len(EmptyLine)
	if len(win) < start || string(win[:start]) != EmptyLine {
		start = 0
	}
	line, size, bare := cutLine(win[start:])
	if fault = r.scanLine(line, size > 0, l.Target); fault != nil {
		return 0, fault
	}
	switch {
	case bare:
		return 0, refuseBareLF
	case size == 0:
		return 0, nil
	}
	if fault = r.splitTarget(); fault != nil {
		return 0, fault
	}
	size += start
	n, fault = r.scan(win[size:], l.Headers)
	if fault != nil || n == 0 {
		return 0, fault
	}
	if fault = r.takeFields(); fault != nil {
		return 0, fault
	}
	return size + n, nil
}

// scanLine checks the request line, or the part of one that has arrived, from left to right (RFC 9112 §3).
func (r *Request) scanLine(line []byte, whole bool, limit int) *Refusal {
	i := 0
	for i < len(line) && tchar[line[i]] {
		i++
	}
	if i == len(line) {
		if whole {
			return refuseMethodSyntax
		}
		return nil
	}
	if i == 0 {
		return firstByteFault(line[0])
	}
	if line[i] != ' ' {
		return refuseMethodSyntax
	}
	r.Method = line[:i]

	rest := line[i+1:]
	i = 0
	for i < len(rest) && rest[i] > 0x20 && rest[i] < 0x7f {
		i++
	}
	switch {
	case i > limit:
		return refuseTarget
	case i == len(rest) && whole && i == 0:
		return refuseNoTarget
	case i == len(rest) && whole:
		return refuseNoVersion
	case i == len(rest):
		return nil
	case rest[i] != ' ':
		return malformed("byte "+hex(rest[i])+" in the request target; it should be percent-encoded", "RFC 9112 §3.2")
	case i == 0:
		return refuseNoTarget
	}
	r.Target = rest[:i]

	version := rest[i+1:]
	minor, fault := scanVersion(version)
	switch {
	case fault != nil:
		return fault
	case len(version) > len("HTTP/1.1"):
		return refuseAfterVersion
	case len(version) < len("HTTP/1.1") && whole:
		return refuseVersionSyntax
	}
	r.Minor = minor
	return nil
}

// firstByteFault tells what a connection is about whose first byte cannot begin a method.
func firstByteFault(c byte) *Refusal {
	if c == 0x16 {
		// A TLS record of type handshake: the client was told wss:// for a ws:// port.
		return refuseTLS
	}
	return malformed("byte "+hex(c)+" cannot begin an HTTP request", "RFC 9112 §3")
}

var (
	rootPath = []byte("/")
	question = []byte("?")
	httpURI  = []byte("http://")
	httpsURI = []byte("https://")
)

// splitTarget finds path and query in the four forms of a request-target (RFC 9112 §3.2).
func (r *Request) splitTarget() *Refusal {
	t := r.Target
	if bytes.IndexByte(t, '#') >= 0 {
		return refuseFragment
	}
	switch {
	case t[0] == '/':
		// origin-form
	case string(r.Method) == "CONNECT":
		return nil // authority-form: there is no path
	case string(t) == "*":
		r.Path = t // asterisk-form
		return nil
	default:
		// RFC 9112 §3.2.2: a server MUST accept the absolute-form, though only clients of proxies send it.
		var rest []byte
		switch {
		case len(t) > len(httpURI) && equalFold(t[:len(httpURI)], httpURI):
			rest = t[len(httpURI):]
		case len(t) > len(httpsURI) && equalFold(t[:len(httpsURI)], httpsURI):
			rest = t[len(httpsURI):]
		default:
			return refuseTargetForm
		}
		end := bytes.IndexAny(rest, "/?")
		if end < 0 {
			end = len(rest)
		}
		host, _, ok := splitHost(rest[:end])
		if !ok || len(host) == 0 {
			return refuseTargetForm
		}
		// An origin server MUST ignore the Host header of such a request and take the host of the target.
		r.Host = rest[:end]
		t = rest[end:]
	}
	r.Path = t
	if path, query, ok := bytes.Cut(t, question); ok {
		r.Path, r.Query = path, query
	}
	if len(r.Path) == 0 {
		r.Path = rootPath
	}
	return nil
}

// takeFields hands the known fields out and checks Host.
func (r *Request) takeFields() *Refusal {
	// RFC 9112 §3.2: a server MUST answer 400 to a request of HTTP/1.1 that lacks a Host header, and to any request
	// with more than one or with an invalid one.
	switch n := r.count[fieldHost]; {
	case n == 0 && r.Minor > 0:
		return refuseNoHost
	case n > 1:
		return refuseTwoHosts
	}
	if _, _, ok := splitHost(r.first[fieldHost]); !ok {
		return refuseBadHost
	}
	if r.Host == nil {
		r.Host = r.first[fieldHost]
	}
	r.Origin = r.first[fieldOrigin]
	r.Key = r.first[fieldKey]
	r.Version = r.first[fieldVersion]
	r.Protocols = r.first[fieldProtocol]
	r.Extensions = r.first[fieldExtensions]
	return nil
}

// WantsWebSocket reports whether the client means a WebSocket, right or wrong: one of the Upgrade lines lists
// "websocket" in any case. What does not is plain HTTP.
func (r *Request) WantsWebSocket() bool {
	found := false
	r.list(fieldUpgrade, "Upgrade", func(v []byte) bool {
		found = hasToken(v, "websocket")
		return !found
	})
	return found
}

// HasBody reports whether the head announces a body: a Transfer-Encoding, or a Content-Length other than 0.
func (r *Request) HasBody() bool { return r.announcesBody() }

func (f *Fields) announcesBody() bool {
	if f.count[fieldEncoding] > 0 {
		return true
	}
	body := false
	f.list(fieldLength, "Content-Length", func(v []byte) bool {
		body = string(v) != "0"
		return !body
	})
	return body
}
