package handshake

import (
	"slices"
	"strconv"

	"github.com/gobwas/ws"
)

// Response is a parsed response head. Every slice aliases the parsed bytes and is valid until they are overwritten. The
// struct can be reused: ParseResponse overwrites all of it.
type Response struct {
	Status int    // 100 to 999
	Minor  int    // the y of HTTP/1.y
	Reason []byte // may be empty

	// The first value of each, nil when the field is missing. After Check, Protocol and Extensions are what is in use on
	// the connection (RFC 6455 §4.1).
	Accept     []byte // Sec-WebSocket-Accept
	Protocol   []byte // Sec-WebSocket-Protocol
	Extensions []byte // Sec-WebSocket-Extensions

	Deflate Deflate // set by Check: what the server agreed to of permessage-deflate

	Fields // all header lines
}

// AnswerError says why a server's answer does not open the connection: it is no HTTP, it refuses, or it breaks a rule
// of the handshake.
type AnswerError struct {
	Status  int    // the HTTP status, 0 when there was no readable head. Other than 101: the server refused
	Msg     string // one line that names the fault; bytes of the peer in it are quoted and cut
	Section string // the rule behind it, as "RFC 6455 §4.1"
	Err     error  // the error of gobwas/ws for the same fault, or nil
}

// Error gives the message and the section.
func (e *AnswerError) Error() string { return e.Msg + " (" + e.Section + ")" }

// Unwrap gives the error of gobwas/ws for the same fault, so that errors.Is finds it.
func (e *AnswerError) Unwrap() error { return e.Err }

// Refused reports whether the server answered in good HTTP with a status other than 101.
func (e *AnswerError) Refused() bool { return e.Status != 0 && e.Status != 101 }

// ParseResponse finds and parses one response head at the start of b, by the same rules as ParseRequest: n is its length
// with the empty line, 0 without an error while it is not complete, and b[n:] is what follows: frames after a 101, else
// the body. The error is an *AnswerError with Status 0. Limits.Target is not used.
func ParseResponse(b []byte, lim *Limits, r *Response) (n int, err error) {
	*r = Response{}
	l := lim.or()
	n, fault := r.parse(b[:min(len(b), l.Head)], &l)
	if fault == nil && n == 0 && len(b) >= l.Head {
		fault = responseTooLarge
	}
	if fault != nil {
		return 0, &AnswerError{Msg: "the answer is not HTTP/1.1 as we know it: " + fault.Msg, Section: fault.Section, Err: ws.ErrMalformedResponse}
	}
	return n, nil
}

var (
	responseStatus   = malformed("the status line has no status of three digits", "RFC 9112 §4")
	responseTooLarge = malformed("the head is too large", "RFC 6455 §10.4")
	responseHeaders  = malformed("the head has too many header lines", "RFC 6455 §10.4")
)

func (r *Response) parse(win []byte, l *Limits) (n int, fault *Refusal) {
	line, size, bare := cutLine(win)
	if fault = r.scanLine(line, size > 0); fault != nil {
		return 0, fault
	}
	switch {
	case bare:
		return 0, refuseBareLF
	case size == 0:
		return 0, nil
	}
	n, fault = r.scan(win[size:], l.Headers)
	if fault == refuseHeaders {
		fault = responseHeaders
	}
	if fault != nil || n == 0 {
		return 0, fault
	}
	r.Accept = r.first[fieldAccept]
	r.Protocol = r.first[fieldProtocol]
	r.Extensions = r.first[fieldExtensions]
	return size + n, nil
}

// scanLine checks the status line, or the part of one that has arrived: "HTTP/1.1 101 Switching Protocols" (RFC 9112
// §4). The reason may be missing, and the space before it too, as some servers have it.
func (r *Response) scanLine(line []byte, whole bool) *Refusal {
	minor, fault := scanVersion(line)
	if fault != nil {
		return fault
	}
	r.Minor = minor
	const at = len("HTTP/1.1 ")
	for i := at - 1; i < min(len(line), at+4); i++ {
		switch c := line[i]; i {
		case at - 1, at + 3:
			if c != ' ' {
				return responseStatus
			}
		default:
			if !isDigit(c) || i == at && c == '0' {
				return responseStatus
			}
			r.Status = r.Status*10 + int(c-'0')
		}
	}
	if len(line) < at+3 {
		if whole {
			return responseStatus
		}
		return nil
	}
	if len(line) > at+4 {
		r.Reason = line[at+4:]
	}
	if i := indexControl(r.Reason); i >= 0 {
		return malformed("byte "+hex(r.Reason[i])+" in the reason phrase", "RFC 9112 §4")
	}
	return nil
}

// Check validates the response to h as RFC 6455 §4.1 asks; if it returns an error, which is an *AnswerError, the client
// MUST fail the connection. When it returns nil the connection is open, with the subprotocol r.Protocol and the extensions
// r.Extensions, of which permessage-deflate is judged against the offers and agreed on in r.Deflate; whether the
// parameters of others suit the offer is for whoever implements them to check.
// Interim answers (100, 102, 103; RFC 9110 §15.2) count as refusals here: a caller that may meet them parses on behind
// them before it asks.
func (r *Response) Check(h *Hello) error {
	if e := r.check(h); e != nil {
		e.Status = r.Status
		return e
	}
	return nil
}

func (r *Response) check(h *Hello) *AnswerError {
	switch {
	// Item 1: a status other than 101 is HTTP, and for the caller.
	case r.Status != 101:
		return &AnswerError{
			Msg:     "the server refused the upgrade with " + strconv.Itoa(r.Status) + " " + quote(r.Reason),
			Section: "RFC 6455 §4.1 response item 1", Err: ws.StatusError(r.Status),
		}
	case r.Minor < 1:
		return &AnswerError{Msg: "the answer is HTTP/1.0, which cannot switch protocols", Section: "RFC 9110 §15.2", Err: ws.ErrHandshakeBadProtocol}
	// Item 2: the value, not a member of it, is "websocket" in any case.
	case r.count[fieldUpgrade] != 1 || !equalFold(r.first[fieldUpgrade], "websocket"):
		return &AnswerError{Msg: "Upgrade in the answer is not websocket", Section: "RFC 6455 §4.1 response item 2", Err: ws.ErrHandshakeBadUpgrade}
	// Item 3: a token "Upgrade" in any case.
	case !r.connectionUpgrades():
		return &AnswerError{Msg: "Connection in the answer does not list Upgrade", Section: "RFC 6455 §4.1 response item 3", Err: ws.ErrHandshakeBadConnection}
	case r.announcesBody():
		return &AnswerError{Msg: "the answer announces a body (Content-Length or Transfer-Encoding) where frames should follow", Section: "RFC 9112 §6.3"}
	}
	if e := r.checkAccept(h.Key); e != nil {
		return e
	}
	if e := r.checkExtensions(h.Extensions); e != nil {
		return e
	}
	return r.checkProtocol(h.Protocols)
}

// checkAccept enforces item 4.
func (r *Response) checkAccept(key []byte) *AnswerError {
	const section = "RFC 6455 §4.1 response item 4"
	switch n := r.count[fieldAccept]; {
	case n == 0:
		return &AnswerError{Msg: "Sec-WebSocket-Accept is missing in the answer", Section: section, Err: ws.ErrHandshakeBadSecAccept}
	case n > 1:
		return &AnswerError{Msg: "Sec-WebSocket-Accept is there more than once in the answer", Section: "RFC 6455 §11.3.3", Err: ws.ErrHandshakeBadSecAccept}
	}
	var buf [AcceptSize]byte
	if want := AppendAccept(buf[:0], key); string(r.Accept) != string(want) {
		return &AnswerError{
			Msg:     "Sec-WebSocket-Accept is " + quote(r.Accept) + " where the key asks for " + quote(want),
			Section: section, Err: ws.ErrHandshakeBadSecAccept,
		}
	}
	return nil
}

// checkExtensions enforces item 5: none that was not offered.
func (r *Response) checkExtensions(offer string) *AnswerError {
	r.Deflate = Deflate{}
	switch n := r.count[fieldExtensions]; {
	case n == 0:
		return nil
	case n > 1:
		// §11.3.2 says MUST NOT, though §4.2.2 item 5.6 speaks of several instances. The registration is the stricter.
		return &AnswerError{Msg: "Sec-WebSocket-Extensions is there more than once in the answer", Section: "RFC 6455 §11.3.2", Err: ws.ErrHandshakeBadExtensions}
	}
	var buf [256]byte // so that the offers of most need no memory
	offered := append(buf[:0], offer...)
	for rest, count := r.Extensions, 0; ; count++ {
		var (
			name   []byte
			params lexer
			ok     bool
		)
		name, params, rest, ok = cutExtension(rest)
		switch {
		case !ok || name == nil && count == 0:
			return &AnswerError{Msg: "Sec-WebSocket-Extensions in the answer is not a list of extensions", Section: "RFC 6455 §9.1", Err: ws.ErrMalformedResponse}
		case name == nil:
			return nil
		case !offers(offered, name):
			return &AnswerError{
				Msg:     "the server uses the extension " + quote(name) + ", which was not offered",
				Section: "RFC 6455 §4.1 response item 5", Err: ws.ErrHandshakeBadExtensions,
			}
		case string(name) != deflateName:
		case r.Deflate.On:
			// Offers of the same name are fallbacks, and two would both use RSV1.
			return deflateFault("it is there twice", "RFC 7692 §5")
		default:
			if e := r.agree(params, offered); e != nil {
				return e
			}
		}
	}
}

// offers reports whether the offered list has an extension of this name.
func offers(offered, name []byte) bool {
	for rest := offered; ; {
		var n []byte
		n, rest, _ = nextExtension(rest)
		if n == nil || string(n) == string(name) {
			return n != nil
		}
	}
}

// checkProtocol enforces item 6: none that was not offered, compared by case.
func (r *Response) checkProtocol(offered []string) *AnswerError {
	switch n := r.count[fieldProtocol]; {
	case n == 0:
		return nil
	case n > 1:
		return &AnswerError{Msg: "Sec-WebSocket-Protocol is there more than once in the answer", Section: "RFC 6455 §11.3.4", Err: ws.ErrHandshakeBadSubProtocol}
	}
	if slices.ContainsFunc(offered, func(p string) bool { return p == string(r.Protocol) }) {
		return nil
	}
	return &AnswerError{
		Msg:     "the server chose the subprotocol " + quote(r.Protocol) + ", which was not offered",
		Section: "RFC 6455 §4.1 response item 6", Err: ws.ErrHandshakeBadSubProtocol,
	}
}
