package handshake

import (
	"fmt"
	"slices"

	"github.com/gobwas/ws"
)

// Options are what a server decides about its handshakes. The zero value, and nil, mean: no subprotocol, pages of the same
// host only, no extra header. Many connections may use one Options at the same time; nothing writes to it.
type Options struct {
	// Protocols are the subprotocols the server speaks, compared by case. Of those the client offers, the first that
	// is in Protocols is chosen: the client's list is ordered by its preference (RFC 6455 §4.1 item 10), and the
	// order of Protocols does not matter. None in common means none chosen, which the client may accept or not.
	Protocols []string

	// Origins are the allowed origins: "https://example.com", "https://*.example.com" for its subdomains (at any
	// depth, but not for itself), "null", or "*" for any. Scheme and host are compared without regard to case, and a
	// port that is the scheme's default may be left away. Empty means: the host and port of the Host header. Requests
	// without Origin are not of a browser and always pass.
	Origins []string

	// Deflate is how compressed messages are agreed on (RFC 7692), nil: they are not. A server that sets it must obey
	// Answer.Deflate in its frames.
	Deflate *DeflateOptions

	// Header are extra header lines for the answer, each ended by CRLF, or nil.
	Header []byte
}

// Answer is what Check finds out for the 101. The server may set Extensions, change Protocol, and set Deflate to its zero
// value to do without, before AppendAnswer.
type Answer struct {
	Key        []byte  // the client's Sec-WebSocket-Key; aliases the request
	Protocol   string  // the chosen subprotocol, an element of Options.Protocols; empty: none
	Deflate    Deflate // what AcceptDeflate agreed to
	Extensions []byte  // further extensions, as in a Sec-WebSocket-Extensions header; empty: none. Check sets it to nil

	saysServer, saysClient bool // the offer named the window, so the answer does, also when it is 15
}

// maxProtocols bounds the subprotocols that a client may offer. Finding a doubled one compares each with each, so a
// head full of them would cost a thousand times its own scan.
const maxProtocols = 32

const (
	headerUpgrade = "Upgrade: websocket\r\n"
	headerVersion = "Sec-WebSocket-Version: 13\r\n"
)

// Refusals of a request that is good HTTP but no good opening handshake.
var (
	refuseOldHTTP = &Refusal{Status: 505, Msg: "a WebSocket handshake needs HTTP/1.1", Section: "RFC 6455 §4.2.1 item 1", Err: ws.ErrHandshakeBadProtocol}
	refuseMethod  = &Refusal{Status: 405, Msg: "a WebSocket handshake is a GET request", Section: "RFC 6455 §4.2.1 item 1", Header: "Allow: GET\r\n", Err: ws.ErrHandshakeBadMethod}
	refuseForm    = &Refusal{Status: 400, Msg: "the request target of a WebSocket handshake is a path", Section: "RFC 6455 §4.2.1 item 1"}
	refuseEmpty   = &Refusal{Status: 400, Msg: "the Host header is empty", Section: "RFC 6455 §4.2.1 item 2", Err: ws.ErrHandshakeBadHost}

	refuseUpgrade    = &Refusal{Status: 426, Msg: "this is a WebSocket service; open it with a WebSocket client (Upgrade: websocket)", Section: "RFC 6455 §4.2.1 item 3", Header: headerUpgrade, Err: ws.ErrHandshakeBadUpgrade}
	refuseConnection = &Refusal{Status: 400, Msg: "the Connection header does not list Upgrade (a proxy on the way may have dropped it)", Section: "RFC 6455 §4.2.1 item 4", Err: ws.ErrHandshakeBadConnection}
	refuseBody       = &Refusal{Status: 400, Msg: "a WebSocket handshake has no body (Content-Length or Transfer-Encoding)", Section: "RFC 9110 §7.8"}

	refuseNoKey   = &Refusal{Status: 400, Msg: "the Sec-WebSocket-Key header is missing", Section: "RFC 6455 §4.2.1 item 5", Err: ws.ErrHandshakeBadSecKey}
	refuseTwoKeys = &Refusal{Status: 400, Msg: "there is more than one Sec-WebSocket-Key header", Section: "RFC 6455 §11.3.1", Err: ws.ErrHandshakeBadSecKey}
	refuseBadKey  = &Refusal{Status: 400, Msg: "the Sec-WebSocket-Key is not 16 bytes in base64", Section: "RFC 6455 §4.2.1 item 5", Err: ws.ErrHandshakeBadSecKey}

	refuseNoVersionField = &Refusal{Status: 400, Msg: "the Sec-WebSocket-Version header is missing", Section: "RFC 6455 §4.2.1 item 6", Header: headerVersion, Err: ws.ErrHandshakeBadSecVersion}
	refuseTwoVersions    = &Refusal{Status: 400, Msg: "there is more than one Sec-WebSocket-Version header", Section: "RFC 6455 §11.3.5", Header: headerVersion, Err: ws.ErrHandshakeBadSecVersion}

	refuseProtocolSyntax  = &Refusal{Status: 400, Msg: "Sec-WebSocket-Protocol is not a list of tokens", Section: "RFC 6455 §4.1 item 10", Err: ws.ErrMalformedRequest}
	refuseProtocolTwice   = &Refusal{Status: 400, Msg: "Sec-WebSocket-Protocol lists a subprotocol twice", Section: "RFC 6455 §4.1 item 10", Err: ws.ErrMalformedRequest}
	refuseProtocolMany    = &Refusal{Status: 400, Msg: "Sec-WebSocket-Protocol lists more than 32 subprotocols", Section: "RFC 6455 §10.4"}
	refuseExtensionSyntax = &Refusal{Status: 400, Msg: "Sec-WebSocket-Extensions is not a list of extensions", Section: "RFC 6455 §9.1", Err: ws.ErrMalformedRequest}

	refuseTwoOrigins = &Refusal{Status: 400, Msg: "there is more than one Origin header", Section: "RFC 6454 §7.3"}
)

// Validate reports what in o could never work, for whoever takes options from people.
func (o *Options) Validate() error {
	if d := o.Deflate; d != nil {
		for _, bits := range [...]uint8{d.ServerBits, d.ClientBits} {
			if bits != 0 && (bits < minBits || bits > maxBits) {
				return fmt.Errorf("a compression window of %d bits does not exist: 8 to 15, or 0 for 15", bits)
			}
		}
	}
	for i, p := range o.Protocols {
		if !isToken(p) {
			return fmt.Errorf("subprotocol %q is not a token: letters, digits and some of !#$%%&'*+-.^_`|~", p)
		}
		if slices.Contains(o.Protocols[:i], p) {
			return fmt.Errorf("subprotocol %q is there twice", p)
		}
	}
	for _, p := range o.Origins {
		if _, ok := splitOrigin(p); !ok && p != "*" && p != "null" {
			return fmt.Errorf("origin %q is neither like https://example.com, with a port if need be, nor *", p)
		}
	}
	return nil
}

// Check applies RFC 6455 §4.2.1 and the decisions of §4.2.2 to a parsed request, and fills in a. The error is a *Refusal.
// Whether there is a service at r.Path is for the caller to decide. It does not allocate, but to refuse.
//
// The order of the checks is from the general to the particular, so that a browser's user, curl or an old client each
// get the answer that helps: what HTTP it is, whether a WebSocket is meant, which version of it, and only then the rest.
func Check(r *Request, o *Options, a *Answer) error {
	*a = Answer{}
	if o == nil {
		o = &noOptions
	}
	if fault := check(r, o, a); fault != nil {
		return fault
	}
	a.Key = r.Key
	if o.Deflate != nil {
		a.AcceptDeflate(r, o.Deflate)
	}
	return nil
}

var noOptions Options

func check(r *Request, o *Options, a *Answer) *Refusal {
	switch {
	// Item 1: an HTTP/1.1 or higher GET request with a resource name.
	case r.Minor < 1:
		return refuseOldHTTP
	case string(r.Method) != "GET":
		return refuseMethod
	case len(r.Path) == 0 || r.Path[0] != '/':
		return refuseForm
	// Item 2: a Host header with the server's authority. HTTP lets it be empty; a ws: URI has a host.
	case len(r.Host) == 0:
		return refuseEmpty
	// Item 3: an Upgrade header with the value "websocket", in any case.
	case !r.WantsWebSocket():
		return refuseUpgrade
	// Item 4: a Connection header that includes the token "Upgrade", in any case.
	case !r.connectionUpgrades():
		return refuseConnection
	// The bytes after the head are frames to us. To whoever reads a body there, they are a body: the two of us would
	// disagree about where the request ends.
	case r.HasBody():
		return refuseBody
	}
	if fault := checkVersion(r); fault != nil {
		return fault
	}
	if fault := checkKey(r); fault != nil {
		return fault
	}
	if r.count[fieldProtocol] > 0 {
		if fault := a.choose(r, o.Protocols); fault != nil {
			return fault
		}
	}
	if r.count[fieldExtensions] > 0 && !extensionsWellFormed(r) {
		return refuseExtensionSyntax
	}
	return checkOrigin(r, o.Origins)
}

func (f *Fields) connectionUpgrades() bool {
	found := false
	f.list(fieldConnection, "Connection", func(v []byte) bool {
		found = hasToken(v, "upgrade")
		return !found
	})
	return found
}

// checkVersion enforces item 6. Another version gets the 426 of §4.2.2 with the one we speak. A missing or a doubled field
// breaks the form of the handshake and gets 400, with the version all the same.
func checkVersion(r *Request) *Refusal {
	switch n := r.count[fieldVersion]; {
	case n == 0:
		return refuseNoVersionField
	case n > 1:
		// §11.3.5: it MUST NOT appear more than once in a request.
		return refuseTwoVersions
	case string(r.Version) != "13":
		return &Refusal{
			Status:  426,
			Msg:     "Sec-WebSocket-Version " + quote(r.Version) + " is not spoken here, only 13",
			Section: "RFC 6455 §4.2.2 /version/",
			Header:  headerUpgrade + headerVersion,
			Err:     ws.ErrHandshakeUpgradeRequired,
		}
	}
	return nil
}

// checkKey enforces item 5: a value that decodes to 16 bytes, which is 22 characters and two of padding.
func checkKey(r *Request) *Refusal {
	switch n := r.count[fieldKey]; {
	case n == 0:
		return refuseNoKey
	case n > 1:
		// §11.3.1: it MUST NOT appear more than once.
		return refuseTwoKeys
	case !validKey(r.Key):
		return refuseBadKey
	}
	return nil
}

// KeySize is the length of a Sec-WebSocket-Key: 16 bytes in base64.
const KeySize = 24

// validKey reports whether key is the base64 of 16 bytes, without line breaks, in the standard alphabet and padded. The
// last character holds four bits that mean nothing. They should be zero, but a decoder need not ask (RFC 4648 §3.5), and
// must not here: the example of RFC 6455 §4.1 item 7, "AQIDBAUGBwgJCgsMDQ4PEC==", has one set.
func validKey(key []byte) bool {
	if len(key) != KeySize || key[22] != '=' || key[23] != '=' {
		return false
	}
	for _, c := range key[:22] {
		if !base64char[c] {
			return false
		}
	}
	return true
}

var base64char = byteSet("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/")

// choose reads the offered subprotocols and sets a.Protocol to the first that the server speaks. The whole list is
// checked, also after the choice: the elements MUST be tokens and MUST all be different (§4.1 item 10).
func (a *Answer) choose(r *Request, spoken []string) (fault *Refusal) {
	var offered [maxProtocols][]byte
	n := 0
	r.list(fieldProtocol, "Sec-WebSocket-Protocol", func(v []byte) bool {
		for {
			tok, rest, ok := nextToken(v)
			switch {
			case !ok:
				fault = refuseProtocolSyntax
				return false
			case tok == nil:
				return true
			case n == maxProtocols:
				fault = refuseProtocolMany
				return false
			}
			for _, t := range offered[:n] {
				if string(t) == string(tok) {
					fault = refuseProtocolTwice
					return false
				}
			}
			offered[n] = tok
			n++
			v = rest
		}
	})
	if fault != nil {
		return fault
	}
	if n == 0 {
		return refuseProtocolSyntax // 1#token: at least one
	}
	for _, tok := range offered[:n] {
		for _, p := range spoken {
			if string(tok) == p {
				a.Protocol = p
				return nil
			}
		}
	}
	return nil
}

// extensionsWellFormed enforces §9.1: a recipient of a list that breaks the grammar MUST fail the connection, also one
// that would use none of the extensions.
func extensionsWellFormed(r *Request) bool {
	ok, n := true, 0
	r.list(fieldExtensions, "Sec-WebSocket-Extensions", func(v []byte) bool {
		for ok {
			var name []byte
			if name, v, ok = nextExtension(v); name == nil {
				break
			}
			n++
		}
		return ok
	})
	return ok && n > 0
}

// checkOrigin enforces §4.2.2 /origin/ and §10.2.
func checkOrigin(r *Request, allowed []string) *Refusal {
	switch n := r.count[fieldOrigin]; {
	case n == 0:
		return nil
	case n > 1:
		return refuseTwoOrigins
	case originAllowed(r.Origin, r.Host, allowed):
		return nil
	}
	return &Refusal{
		Status:  403,
		Msg:     "pages of the origin " + quote(r.Origin) + " may not connect here",
		Section: "RFC 6455 §10.2",
	}
}
