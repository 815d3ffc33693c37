package handshake

import "bytes"

// The lists of RFC 9110 §5.6.1 and of RFC 6455 §9.1, on a byte slice.
//
// httphead.ScanTokens and ScanOptions do not allocate, but they accept what the grammar does not: "chat superchat" is two
// tokens to them though there is no comma, and of "evil permessage-deflate" ScanOptions reports only the second name.
// So the lists are read here, and the tests hold them against httphead for everything that both accept.

// isToken reports whether s is a token (RFC 9110 §5.6.2), as the name of a subprotocol must be.
func isToken(s string) bool {
	l := lexer(s)
	return len(l.token()) == len(s) && s != ""
}

// nextToken cuts the first element of a comma-separated list of tokens. Empty elements are skipped, as RFC 9110
// §5.6.1.2 wants. At the end tok is nil and ok true; ok is false if the list is malformed there.
func nextToken(list []byte) (tok, rest []byte, ok bool) {
	i := 0
	for i < len(list) && (list[i] == ' ' || list[i] == '\t' || list[i] == ',') {
		i++
	}
	if i == len(list) {
		return nil, nil, true
	}
	start := i
	for i < len(list) && tchar[list[i]] {
		i++
	}
	tok = list[start:i]
	for i < len(list) && (list[i] == ' ' || list[i] == '\t') {
		i++
	}
	if len(tok) == 0 || i < len(list) && list[i] != ',' {
		return nil, nil, false
	}
	return tok, list[i:], true
}

// hasToken reports whether the list has the token, without regard to ASCII case. An element that is no token, such as the
// "HTTP/2.0" of an Upgrade list, is passed over: the lists of Upgrade and Connection are not ours alone.
func hasToken(list []byte, token string) bool {
	for len(list) > 0 {
		element := list
		if i := bytes.IndexByte(list, ','); i >= 0 {
			element, list = list[:i], list[i+1:]
		} else {
			list = nil
		}
		if equalFold(trim(element), token) {
			return true
		}
	}
	return false
}

// nextExtension is nextToken for a Sec-WebSocket-Extensions value: it cuts the first element, checks its parameters and
// gives its name.
func nextExtension(list []byte) (name, rest []byte, ok bool) {
	name, _, rest, ok = cutExtension(list)
	return name, rest, ok
}

// cutExtension is nextExtension with the element's parameters, which are read with
//
//	for params.next(';') { name, value, _ := params.param(); ... }
//
// The grammar is that of RFC 6455 §9.1:
//
//	extension-list  = 1#extension
//	extension       = token *( ";" extension-param )
//	extension-param = token [ "=" (token | quoted-string) ]
//
// where the value of a quoted-string must be a token after unescaping. One line of a list may be empty, so the 1# is
// left to the caller.
func cutExtension(list []byte) (name []byte, params lexer, rest []byte, ok bool) {
	s := lexer(list)
	for len(s) > 0 && (s[0] == ',' || s[0] == ' ' || s[0] == '\t') {
		s = s[1:]
	}
	if len(s) == 0 {
		return nil, nil, nil, true
	}
	if name = s.token(); name == nil {
		return nil, nil, nil, false
	}
	params = s
	for s.next(';') {
		if _, _, ok = s.param(); !ok {
			return nil, nil, nil, false
		}
	}
	if len(s) > 0 && s[0] != ',' {
		return nil, nil, nil, false
	}
	return name, params[:len(params)-len(s)], s, true
}

// lexer is what is left of a value.
type lexer []byte

// skip takes white space.
func (s *lexer) skip() {
	for len(*s) > 0 && ((*s)[0] == ' ' || (*s)[0] == '\t') {
		*s = (*s)[1:]
	}
}

// next takes c, and the white space around it, if it comes next.
func (s *lexer) next(c byte) bool {
	s.skip()
	if len(*s) == 0 || (*s)[0] != c {
		return false
	}
	*s = (*s)[1:]
	s.skip()
	return true
}

// token takes a token; nil when there is none.
func (s *lexer) token() []byte {
	i := 0
	for i < len(*s) && tchar[(*s)[i]] {
		i++
	}
	if i == 0 {
		return nil
	}
	t := (*s)[:i]
	*s = (*s)[i:]
	return t
}

// param takes an extension-param. value is nil when there is none; of a quoted-string it is what stands between the
// quotes, and a backslash in it, which no token has, escapes the byte after it.
func (s *lexer) param() (name, value []byte, ok bool) {
	if name = s.token(); name == nil {
		return nil, nil, false
	}
	if !s.next('=') {
		return name, nil, true
	}
	if len(*s) == 0 || (*s)[0] != '"' {
		value = s.token()
		return name, value, value != nil
	}
	for i, n := 1, 0; i < len(*s); i++ {
		c := (*s)[i]
		if c == '"' {
			value = (*s)[1:i]
			*s = (*s)[i+1:]
			return name, value, n > 0
		}
		if c == '\\' {
			if i++; i == len(*s) {
				return nil, nil, false
			}
			c = (*s)[i]
		}
		// RFC 6455 §9.1: the value after unescaping MUST be a token.
		if !tchar[c] {
			return nil, nil, false
		}
		n++
	}
	return nil, nil, false
}
