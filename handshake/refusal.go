package handshake

import (
	"strconv"
	"unicode"
	"unicode/utf8"

	"github.com/gobwas/ws"
)

// Refusal is an HTTP answer other than 101. As an error it says what is wrong with the request, or why the server does
// not want it; AppendRefusal writes it to the peer. The predeclared ones are shared by all connections: read them only.
type Refusal struct {
	Status  int    // the HTTP status, 300 to 599
	Msg     string // one line that names the fault for people; bytes of the peer in it are quoted and cut
	Section string // the rule behind it, as "RFC 6455 §4.2.1 item 5"; empty when it is the server's own wish
	Header  string // extra header lines, each ended by CRLF, or empty
	Err     error  // the error of gobwas/ws for the same fault, or nil
}

// Error gives the status, the message and the section.
func (r *Refusal) Error() string {
	s := "handshake refused with " + strconv.Itoa(r.Status) + ": " + r.Msg
	if r.Section != "" {
		s += " (" + r.Section + ")"
	}
	return s
}

// Unwrap gives the error of gobwas/ws for the same fault, so that errors.Is finds it.
func (r *Refusal) Unwrap() error { return r.Err }

// Refusals of the server's own, for everything around the handshake.
var (
	// RefuseNotFound: no service has the name of the target (RFC 6455 §4.2.2 /resource name/).
	RefuseNotFound = &Refusal{Status: 404, Msg: "there is no WebSocket service at this path", Section: "RFC 6455 §4.2.2"}
	// RefuseTimeout: the head did not arrive before the deadline.
	RefuseTimeout = &Refusal{Status: 408, Msg: "the request head took too long to arrive", Section: "RFC 9110 §15.5.9"}
	// RefuseOverloaded: a limit of connections or memory is reached.
	RefuseOverloaded = &Refusal{Status: 503, Msg: "the server has as many connections as it can hold; try again in a few seconds", Section: "RFC 9110 §15.6.4", Header: "Retry-After: 5\r\n"}
	// RefuseDraining: the server is going down and takes no new connection.
	RefuseDraining = &Refusal{Status: 503, Msg: "the server is shutting down; try again in a second, another one may be up", Section: "RFC 9110 §15.6.4", Header: "Retry-After: 1\r\n"}
)

// Refusals of a head that is malformed or too large.
var (
	refuseTLS = &Refusal{Status: 400, Msg: "this looks like a TLS ClientHello, but this port speaks plain ws://, not wss://", Section: "RFC 6455 §3", Err: ws.ErrMalformedRequest}

	refuseMethodSyntax  = malformed("a request begins with a method, one space, a target, one space and HTTP/1.1", "RFC 9112 §3")
	refuseNoTarget      = malformed("the request line has no target, or more than one space before it", "RFC 9112 §3")
	refuseNoVersion     = malformed("the request line ends without an HTTP version", "RFC 9112 §3")
	refuseVersionSyntax = malformed("the HTTP version is not of the form HTTP/1.1", "RFC 9112 §2.3")
	refuseAfterVersion  = malformed("the request line goes on after the HTTP version", "RFC 9112 §3")
	refuseTargetForm    = malformed("the request target is neither a path nor an http or https URI with a host", "RFC 9112 §3.2")
	refuseFragment      = malformed("the request target has a fragment (#); fragments are not sent to servers", "RFC 6455 §3")
	refuseBareLF        = malformed("a line ends in LF without CR", "RFC 9112 §2.2")
	refuseFold          = malformed("a header line begins with white space; folded lines are obsolete", "RFC 9112 §5.2")
	refuseNoColon       = malformed("a header line has no colon", "RFC 9112 §5")
	refuseNoName        = malformed("a header line has no name before its colon", "RFC 9112 §5")

	refuseNoHost   = &Refusal{Status: 400, Msg: "the Host header is missing", Section: "RFC 9112 §3.2", Err: ws.ErrHandshakeBadHost}
	refuseTwoHosts = &Refusal{Status: 400, Msg: "there is more than one Host header", Section: "RFC 9112 §3.2", Err: ws.ErrHandshakeBadHost}
	refuseBadHost  = &Refusal{Status: 400, Msg: "the Host header is not a host with an optional port", Section: "RFC 9112 §3.2", Err: ws.ErrHandshakeBadHost}

	refuseTarget      = &Refusal{Status: 414, Msg: "the request target is too long", Section: "RFC 9110 §15.5.15"}
	refuseHead        = &Refusal{Status: 431, Msg: "the request head is too large", Section: "RFC 6585 §5"}
	refuseHeaders     = &Refusal{Status: 431, Msg: "the request head has too many header lines", Section: "RFC 6585 §5"}
	refuseHTTPVersion = &Refusal{Status: 505, Msg: "this port speaks HTTP/1.1 only (HTTP/2 with prior knowledge does not work here)", Section: "RFC 9110 §15.6.6", Err: ws.ErrHandshakeBadProtocol}
)

// malformed makes the refusal of a head that breaks the grammar.
func malformed(msg, section string) *Refusal {
	return &Refusal{Status: 400, Msg: msg, Section: section, Err: ws.ErrMalformedRequest}
}

// AppendRefusal appends the whole HTTP answer: status line, headers, and Msg with a line feed as the body. The
// connection must be closed after it. head says that the request was a HEAD: then the body is left away and
// Content-Length still tells its size (RFC 9110 §9.3.2). A status that cannot be a refusal is sent as 500. It does not
// allocate when dst has room.
func AppendRefusal(dst []byte, r *Refusal, head bool) []byte {
	status := r.Status
	if status < 300 || status > 599 || status == 304 {
		status = 500 // below 300 is no refusal, and a 304 has no body
	}
	dst = append(dst, "HTTP/1.1 "...)
	dst = strconv.AppendInt(dst, int64(status), 10)
	dst = append(dst, ' ')
	dst = append(dst, reason(status)...)
	dst = append(dst, "\r\nContent-Type: text/plain; charset=utf-8\r\nX-Content-Type-Options: nosniff\r\nContent-Length: "...)
	dst = strconv.AppendInt(dst, int64(len(r.Msg)+1), 10)
	// RFC 9110 §7.8: who sends Upgrade MUST send it as a connection option too; 426 always comes with Upgrade.
	if status == 426 {
		dst = append(dst, "\r\nConnection: Upgrade, close\r\n"...)
	} else {
		dst = append(dst, "\r\nConnection: close\r\n"...)
	}
	dst = append(dst, r.Header...)
	dst = append(dst, "\r\n"...)
	if head {
		return dst
	}
	return append(appendLine(dst, r.Msg), '\n')
}

// appendLine appends s with the bytes of every control character, line separator and broken rune replaced by '?', so
// that it stays one line of as many bytes, and cannot steer the terminal that shows it.
func appendLine(dst []byte, s string) []byte {
	for i := 0; i < len(s); {
		c, n := utf8.DecodeRuneInString(s[i:])
		if c == utf8.RuneError && n == 1 || unicode.IsControl(c) || c == 0x2028 || c == 0x2029 {
			dst = append(dst, "???"[:n]...)
		} else {
			dst = append(dst, s[i:i+n]...)
		}
		i += n
	}
	return dst
}

// reason gives the reason phrase of RFC 9110 §15. It is a list of our own because net/http is not a codec's business.
func reason(status int) string {
	switch status {
	case 301:
		return "Moved Permanently"
	case 302:
		return "Found"
	case 303:
		return "See Other"
	case 307:
		return "Temporary Redirect"
	case 308:
		return "Permanent Redirect"
	case 400:
		return "Bad Request"
	case 401:
		return "Unauthorized"
	case 403:
		return "Forbidden"
	case 404:
		return "Not Found"
	case 405:
		return "Method Not Allowed"
	case 408:
		return "Request Timeout"
	case 414:
		return "URI Too Long"
	case 426:
		return "Upgrade Required"
	case 429:
		return "Too Many Requests"
	case 431:
		return "Request Header Fields Too Large"
	case 500:
		return "Internal Server Error"
	case 501:
		return "Not Implemented"
	case 502:
		return "Bad Gateway"
	case 503:
		return "Service Unavailable"
	case 504:
		return "Gateway Timeout"
	case 505:
		return "HTTP Version Not Supported"
	}
	return "Refused" // RFC 9112 §4: the phrase means nothing to a client
}
