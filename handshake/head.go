package handshake

import (
	"bytes"
	"encoding/binary"
	"strconv"
)

// Limits bound a head, so that what a peer can make us hold and scan is known. The zero value means the defaults, and
// so does a nil *Limits.
type Limits struct {
	Head    int // bytes of the whole head, the empty line included; 0 means 8 KiB. Above it: 431
	Target  int // bytes of the request-target; 0 means 4 KiB. Above it: 414
	Headers int // header lines; 0 means 100. Above it: 431
}

// The defaults of Limits.
const (
	DefaultHead    = 8 << 10
	DefaultTarget  = 4 << 10
	DefaultHeaders = 100
)

// or gives the limits with each zero replaced by its default.
func (l *Limits) or() Limits {
	v := Limits{Head: DefaultHead, Target: DefaultTarget, Headers: DefaultHeaders}
	if l == nil {
		return v
	}
	if l.Head > 0 {
		v.Head = l.Head
	}
	if l.Target > 0 {
		v.Target = l.Target
	}
	if l.Headers > 0 {
		v.Headers = l.Headers
	}
	return v
}

// The fields that the handshake itself reads. They are recognised while the lines are scanned, so that the checks
// need no second pass; every other field is found by scanning the lines again when somebody asks.
const (
	fieldHost = iota
	fieldOrigin
	fieldUpgrade
	fieldConnection
	fieldLength   // Content-Length
	fieldEncoding // Transfer-Encoding
	fieldKey
	fieldAccept
	fieldVersion
	fieldProtocol
	fieldExtensions
	fieldCount
	fieldOther = -1
)

// Fields are the header lines of a parsed head, embedded in Request and Response. Names and values alias the parsed
// bytes and are valid until those are overwritten. No method allocates.
type Fields struct {
	lines []byte // the checked lines, each with its CRLF, without the empty line
	first [fieldCount][]byte
	count [fieldCount]int
}

// Get returns the first value of the named field without the white space around it, and on how many lines the field
// stands. The name is compared without regard to ASCII case. A field that is missing gives nil and 0.
func (f *Fields) Get(name string) (value []byte, count int) {
	for n, v := range f.All {
		if equalFold(n, name) {
			if count == 0 {
				value = v
			}
			count++
		}
	}
	return value, count
}

// Each calls yield with the value of every line of the named field, in order, until yield returns false. A field that
// is a list may be spread over several lines (RFC 9110 §5.3), so a list must be read with Each and not with Get.
func (f *Fields) Each(name string, yield func(value []byte) bool) {
	for n, v := range f.All {
		if equalFold(n, name) && !yield(v) {
			return
		}
	}
}

// All calls yield with every header line in order until yield returns false. As a range function:
//
//	for name, value := range r.All { ... }
func (f *Fields) All(yield func(name, value []byte) bool) {
	for b := f.lines; len(b) > 0; {
		end := bytes.IndexByte(b, '\n')
		colon := bytes.IndexByte(b, ':')
		if !yield(b[:colon], trim(b[colon+1:end-1])) {
			return
		}
		b = b[end+1:]
	}
}

// list calls yield with the value of every line of one of the known fields. The ordinary case, one line, needs no scan.
func (f *Fields) list(field int, name string, yield func(value []byte) bool) {
	switch f.count[field] {
	case 0:
	case 1:
		yield(f.first[field])
	default:
		f.Each(name, yield)
	}
}

// scan checks the header lines at the start of win and notes the known fields. n is the number of bytes up to and with
// the empty line, 0 while that has not arrived. Faults are found from left to right, and never with the help of bytes
// that come after the fault, so the answer to a head does not depend on how the network cut it.
func (f *Fields) scan(win []byte, limit int) (n int, fault *Refusal) {
	for count := 0; ; count++ {
		content, size, bare := cutLine(win[n:])
		if len(content) == 0 && !bare {
			if size == 0 {
				return 0, nil
			}
			f.lines = win[:n]
			return n + size, nil
		}
		if count == limit && len(content) > 0 {
			return 0, refuseHeaders
		}
		name, value, fault := scanField(content)
		switch {
		case fault != nil:
			return 0, fault
		case bare:
			return 0, refuseBareLF
		case size == 0:
			return 0, nil
		case value == nil:
			return 0, refuseNoColon
		}
		if k := knownField(name); k != fieldOther {
			if f.count[k] == 0 {
				f.first[k] = trim(value)
			}
			f.count[k]++
		}
		n += size
	}
}

// cutLine cuts the first line of b. content is the line without its CRLF and size its length with it; bare says that
// the LF has no CR before it. When the LF has not arrived, size is 0 and content what there is of the line, without a
// CR at its end, which may be the first half of the CRLF.
func cutLine(b []byte) (content []byte, size int, bare bool) {
	i := bytes.IndexByte(b, '\n')
	content = b
	if i >= 0 {
		content, size = b[:i], i+1
	}
	if last := len(content) - 1; last >= 0 && content[last] == '\r' {
		return content[:last], size, false
	}
	return content, size, i >= 0
}

// scanField checks one header line, or the part of one that has arrived (RFC 9112 §5). value is nil when there is no
// colon yet; it still has the white space around it.
func scanField(content []byte) (name, value []byte, fault *Refusal) {
	i := 0
	for i < len(content) && tchar[content[i]] {
		i++
	}
	if i == len(content) {
		return content, nil, nil
	}
	if c := content[i]; c != ':' || i == 0 {
		return nil, nil, nameFault(content[:i], c)
	}
	name, value = content[:i], content[i+1:]
	if j := indexControl(value); j >= 0 {
		// RFC 9110 §5.5: a CR, LF or NUL in a value is dangerous, because somebody behind us may read it as a line end;
		// the other control bytes are invalid too, and nobody who means well sends them.
		return nil, nil, malformed("byte "+hex(value[j])+" in the value of header "+quote(name), "RFC 9110 §5.5")
	}
	return name, value, nil
}

// nameFault tells what is wrong with a header name whose first bytes are good and which then has the byte c.
func nameFault(good []byte, c byte) *Refusal {
	switch {
	case (c == ' ' || c == '\t') && len(good) == 0:
		// RFC 9112 §5.2: a server MUST reject a folded line (or replace the fold, which would need a copy).
		return refuseFold
	case c == ' ' || c == '\t':
		// RFC 9112 §5.1: no white space is allowed between name and colon; a server MUST reject it with 400. Proxies
		// that disagree about such a line can be made to disagree about where a request ends.
		return malformed("white space after the header name "+quote(good), "RFC 9112 §5.1")
	case c == ':':
		return refuseNoName
	}
	return malformed("byte "+hex(c)+" in a header name, after "+quote(good), "RFC 9110 §5.1")
}

// knownField gives the index of a field the handshake reads, by length first: most names are ruled out by it alone.
// The name must consist of token bytes.
func knownField(name []byte) int {
	switch len(name) {
	case 4:
		return pick(name, "host", fieldHost)
	case 6:
		return pick(name, "origin", fieldOrigin)
	case 7:
		return pick(name, "upgrade", fieldUpgrade)
	case 10:
		return pick(name, "connection", fieldConnection)
	case 14:
		return pick(name, "content-length", fieldLength)
	case 17:
		if k := pick(name, "sec-websocket-key", fieldKey); k != fieldOther {
			return k
		}
		return pick(name, "transfer-encoding", fieldEncoding)
	case 20:
		return pick(name, "sec-websocket-accept", fieldAccept)
	case 21:
		return pick(name, "sec-websocket-version", fieldVersion)
	case 22:
		return pick(name, "sec-websocket-protocol", fieldProtocol)
	case 24:
		return pick(name, "sec-websocket-extensions", fieldExtensions)
	}
	return fieldOther
}

// pick returns field when name is lower without regard to case, else fieldOther. Both are of the same length.
func pick(name []byte, lower string, field int) int {
	for i := range len(lower) {
		// In a token, setting bit 5 only joins upper with lower case: '-' has the bit, and 0x0D is no token byte.
		if name[i]|0x20 != lower[i] {
			return fieldOther
		}
	}
	return field
}

// scanVersion checks the HTTP-version at the start of v, or the part of it that has arrived. minor is valid when len(v)
// is at least 8.
func scanVersion(v []byte) (minor int, fault *Refusal) {
	const form = "HTTP/1."
	for i, c := range v[:min(len(v), len(form))] {
		if c == form[i] {
			continue
		}
		if i == 5 && isDigit(c) {
			return 0, refuseHTTPVersion
		}
		return 0, refuseVersionSyntax
	}
	if len(v) > len(form) {
		if c := v[len(form)]; isDigit(c) {
			return int(c - '0'), nil
		}
		return 0, refuseVersionSyntax
	}
	return 0, nil
}

// indexControl finds the first byte that a field value may not have: all control bytes but HT (RFC 9110 §5.5). Bytes
// from 0x80 are obs-text and allowed. It looks at eight bytes at a time, because this is most of the work of a head.
func indexControl(b []byte) int {
	if len(b) < 8 {
		return slowControl(b)
	}
	for i := 0; i < len(b)-8; i += 8 {
		if suspect(binary.LittleEndian.Uint64(b[i:])) {
			return slowControl(b)
		}
	}
	if suspect(binary.LittleEndian.Uint64(b[len(b)-8:])) { // again some of the bytes before, and never single ones
		return slowControl(b)
	}
	return -1
}

// suspect reports whether one of eight bytes is below 0x20, an HT too, or 0x7F.
func suspect(x uint64) bool {
	const (
		ones  = 0x0101010101010101
		highs = 0x8080808080808080
	)
	y := x ^ 0x7f*ones
	// A byte's high bit appears on the left when it is less than 0x20, on the right when it is 0x7F.
	return ((x-0x20*ones)&^x|(y-ones)&^y)&highs != 0
}

func slowControl(b []byte) int {
	for i, c := range b {
		if c < 0x20 && c != '\t' || c == 0x7f {
			return i
		}
	}
	return -1
}

// tchar are the bytes of a token (RFC 9110 §5.6.2), the same set as in RFC 2616.
var tchar = byteSet("!#$%&'*+-.^_`|~0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz")

func byteSet(chars string) (set [256]bool) {
	for i := range len(chars) {
		set[chars[i]] = true
	}
	return set
}

// trim removes optional white space, SP and HT, at both ends.
func trim(b []byte) []byte {
	for len(b) > 0 && (b[0] == ' ' || b[0] == '\t') {
		b = b[1:]
	}
	for len(b) > 0 && (b[len(b)-1] == ' ' || b[len(b)-1] == '\t') {
		b = b[:len(b)-1]
	}
	return b
}

// equalFold compares without regard to ASCII case. bytes.EqualFold would be wrong: it folds Unicode, and takes the
// long s (U+017F) for an s and the Kelvin sign (U+212A) for a k.
func equalFold[T string | []byte](b []byte, s T) bool {
	if len(b) != len(s) {
		return false
	}
	for i := range len(s) {
		if b[i] != s[i] && lower(b[i]) != lower(s[i]) {
			return false
		}
	}
	return true
}

func lower(c byte) byte {
	if 'A' <= c && c <= 'Z' {
		return c | 0x20
	}
	return c
}

func isDigit(c byte) bool { return '0' <= c && c <= '9' }

// hex writes a byte as people look it up: 0x16.
func hex(c byte) string {
	const digits = "0123456789abcdef"
	return string([]byte{'0', 'x', digits[c>>4], digits[c&15]})
}

// quote makes bytes of the peer fit for a message: escaped, so that they cannot start a line or steer a terminal, and cut.
func quote(b []byte) string {
	const most = 64
	if len(b) > most {
		return strconv.QuoteToASCII(string(b[:most])) + "..."
	}
	return strconv.QuoteToASCII(string(b))
}
