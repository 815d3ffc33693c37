package conform

import (
	"fmt"
	"strings"

	"wspoll/handshake"
)

// Handshake cases for servers differ in how the right head is changed and in what may come back. headCase has the first
// as a function; nil leaves the head right.

type change func(*Head)

// set puts lines in the place of a field.
func set(name string, lines ...string) change { return func(h *Head) { h.Set(name, lines...) } }

// add appends lines.
func add(lines ...string) change { return func(h *Head) { h.Add(lines...) } }

// first gives the head another first line; %s in it is the target.
func first(line string) change {
	return func(h *Head) { h.First = strings.ReplaceAll(line, "%s", strings.Fields(h.First)[1]) }
}

// ask sends the changed head; s.hello is made to fit, so that what the head offers may be answered.
func (s *Session) ask(c change) {
	h := s.Head()
	if c != nil {
		c(h)
	}
	s.hello.Key = []byte(h.Get("Sec-WebSocket-Key"))
	s.dial()
	s.Send(h.Bytes())
}

// works shows that the connection is one: an echo, and the closing handshake.
func (s *Session) works() {
	s.echo(text, []byte("works"))
	s.Finish()
}

// accepted is a case of a head that is right: the connection must open and work.
func accepted(id, sentence string, c change) Case {
	return Case{ID: id, Sentence: sentence + " The connection must open.", Peer: Server, Run: func(s *Session) {
		s.ask(c)
		s.ExpectOpen()
		s.works()
	}}
}

// shouldOpen is a case of a head that is right by the letter and rare: a refusal is non-strict.
func shouldOpen(id, sentence string, c change) Case {
	return Case{ID: id, Sentence: sentence + " The connection should open.", Peer: Server, Run: func(s *Session) {
		s.ask(c)
		if s.ExpectEither(501, 505) {
			s.works()
		} else {
			s.NonStrict("the handshake is right, and was refused")
		}
	}}
}

// either is a case of a head about which RFC 6455 leaves the choice to the server. To redirect is one (§4.2.2, item 3).
func either(id, sentence string, c change) Case {
	return Case{ID: id, Sentence: sentence + " It may open the connection, redirect, or refuse with an error.", Peer: Server, Run: func(s *Session) {
		s.ask(c)
		if s.ExpectEither(501, 505) {
			s.works()
		}
	}}
}

// refused is a case of a head that is wrong: an HTTP error must come.
func refused(id, sentence string, c change, also ...int) Case {
	return Case{ID: id, Sentence: sentence + " It must be refused with an HTTP error.", Peer: Server, Run: func(s *Session) {
		s.ask(c)
		s.ExpectRefusal(also...)
	}}
}

// plain is a case of a request that does not ask for a WebSocket: any answer of HTTP will do, but a 101.
func plain(id, sentence string, c change) Case {
	return Case{ID: id, Sentence: sentence + " Any HTTP answer may come but 101.", Peer: Server, Run: func(s *Session) {
		s.ask(c)
		r, a := s.answer(s.opts.Timeout)
		switch {
		case a == silent:
			s.Fail("no HTTP answer came within %v", s.opts.Timeout)
		case a == over:
			s.NonStrict("%s without an HTTP answer", endWords(s.ended))
		case r.Status == 101:
			s.Fail("the handshake was accepted")
		default:
			s.Remark("answered with %d", r.Status)
		}
	}}
}

// requestCases are the cases of §4 for servers, by the items of §4.2.1.
func requestCases() []Case {
	cases := []Case{
		accepted("rfc6455-4.1-plain", "The handshake as §1.3 shows it.", nil),
		plain("rfc6455-4.2.1-1-plain-http", "A GET without any header of WebSocket.", func(h *Head) {
			h.Drop("Upgrade").Drop("Connection").Drop("Sec-WebSocket-Key").Drop("Sec-WebSocket-Version")
		}),
	}
	cases = append(cases, requestLineCases()...)
	cases = append(cases, hostCases()...)
	cases = append(cases, upgradeCases()...)
	cases = append(cases, keyCases()...)
	cases = append(cases, versionCases()...)
	return append(cases, fieldCases()...)
}

// requestLineCases: item 1, "An HTTP/1.1 or higher GET request".
func requestLineCases() []Case {
	var cases []Case
	for _, m := range []string{"POST", "PUT", "DELETE", "PATCH", "OPTIONS", "HEAD", "get", "WEBSOCKET"} {
		also := []int{501}
		if m == "OPTIONS" || m == "HEAD" {
			also = append(also, 200, 204)
		}
		id := strings.ToLower(m)
		if m == "get" {
			id = "get-in-lower-case"
		}
		cases = append(cases, refused("rfc6455-4.2.1-1-method-"+id, "The handshake with the method "+m+".", first(m+" %s HTTP/1.1"), also...))
	}
	return append(
		cases,
		refused("rfc6455-4.2.1-1-http-1.0", "The handshake in HTTP/1.0.", first("GET %s HTTP/1.0"), 505),
		refused("rfc6455-4.2.1-1-http-0.9", "A request line without a version.", first("GET %s"), 505),
		either("rfc6455-4.2.1-1-http-2.0", "The handshake in the form of HTTP/1.1, called HTTP/2.0, which is \"HTTP/1.1 or higher\" by its number.", first("GET %s HTTP/2.0")),
		either("rfc6455-4.2.1-1-http-1.2", "The handshake in HTTP/1.2, which is \"HTTP/1.1 or higher\" and does not exist.", first("GET %s HTTP/1.2")),
		refused("rfc6455-4.2.1-1-http-in-lower-case", "The version is http/1.1; it is case-sensitive.", first("GET %s http/1.1"), 505),
		refused("rfc6455-4.2.1-1-http-malformed", "The version is HTTP/1.x.", first("GET %s HTTP/1.x"), 505),
		accepted("rfc6455-4.2.1-1-target-absolute", "The target is an absolute http: or https: URI.", func(h *Head) {
			scheme := "http://"
			if strings.HasPrefix(h.URL, "wss:") {
				scheme = "https://"
			}
			h.First = "GET " + scheme + h.Get("Host") + strings.Fields(h.First)[1] + " HTTP/1.1"
		}),
		refused("rfc6455-4.2.1-1-target-without-slash", "The target is a word without a slash.", first("GET wshandler HTTP/1.1")),
		refused("rfc6455-4.2.1-1-target-missing", "The request line has no target.", first("GET HTTP/1.1"), 505),
		refused("rfc6455-4.2.1-1-target-asterisk", "The target is *, which names no resource.", first("GET * HTTP/1.1"), 501),
		either("rfc6455-3-target-with-fragment", "The target ends in #fragment, which a client MUST NOT send.", first("GET %s#fragment HTTP/1.1")),
		either("rfc6455-3-target-with-query", "The target has one more query parameter.", func(h *Head) {
			target := strings.Fields(h.First)[1]
			sep := "?"
			if strings.Contains(target, "?") {
				sep = "&"
			}
			h.First = "GET " + target + sep + "conform=1&empty= HTTP/1.1"
		}),
		either("rfc6455-4.2.2-other-path", "The target is a path that hardly exists.", first("GET /no/such/resource/8fa3c1 HTTP/1.1")),
		either("rfc6455-4.2.1-1-two-spaces", "Two spaces before the target.", first("GET  %s HTTP/1.1")),
		refused("rfc6455-4.2.1-1-space-in-target", "A space inside the target.", first("GET %s other HTTP/1.1"), 505),
		refused("rfc6455-4.2.1-1-nul-in-target", "A NUL byte inside the target.", first("GET %s\x00 HTTP/1.1"), 505),
		shouldOpen("rfc6455-4.2.1-1-empty-line-before", "An empty line before the request line (RFC 9112 §2.2: SHOULD be ignored).", func(h *Head) {
			h.First = "\r\n" + h.First
		}),
	)
}

// hostCases: item 2. What RFC 9112 §3.2 says of Host holds too.
func hostCases() []Case {
	return []Case{
		refused("rfc6455-4.2.1-2-host-missing", "No Host header.", func(h *Head) { h.Drop("Host") }),
		refused("rfc6455-4.2.1-2-host-doubled", "Two equal Host headers.", func(h *Head) { h.Add("Host: " + h.Get("Host")) }),
		refused("rfc6455-4.2.1-2-host-twice", "Two Host headers that differ.", add("Host: example.com")),
		either("rfc6455-4.2.1-2-host-empty", "An empty Host header.", set("Host", "Host:")),
		refused("rfc6455-4.2.1-2-host-with-space", "Host: exam ple.com", set("Host", "Host: exam ple.com")),
		refused("rfc6455-4.2.1-2-host-with-slash", "Host: example.com/path", set("Host", "Host: example.com/path")),
		refused("rfc6455-4.2.1-2-host-open-bracket", "Host: [::1", set("Host", "Host: [::1")),
		refused("rfc6455-4.2.1-2-host-port-malformed", "Host: example.com:80a", set("Host", "Host: example.com:80a")),
		either("rfc6455-4.2.1-2-host-other", "Host names another server.", set("Host", "Host: other.example")),
	}
}

// upgradeCases: items 3 and 4, and the lists of HTTP (RFC 9110 §5.6.1).
func upgradeCases() []Case {
	cases := []Case{
		plain("rfc6455-4.2.1-3-upgrade-missing", "No Upgrade header.", func(h *Head) { h.Drop("Upgrade") }),
		plain("rfc6455-4.2.1-3-upgrade-empty", "An empty Upgrade header.", set("Upgrade", "Upgrade:")),
		plain("rfc6455-4.2.1-3-upgrade-other", "Upgrade: h2c", set("Upgrade", "Upgrade: h2c")),
		plain("rfc6455-4.2.1-3-upgrade-longer", "Upgrade: websockets", set("Upgrade", "Upgrade: websockets")),
		plain("rfc6455-4.2.1-3-upgrade-shorter", "Upgrade: websocke", set("Upgrade", "Upgrade: websocke")),
		plain("rfc6455-4.2.1-3-upgrade-two-words", "Upgrade: web socket", set("Upgrade", "Upgrade: web socket")),
		either("rfc6455-4.2.1-3-upgrade-with-version", "Upgrade: websocket/13", set("Upgrade", "Upgrade: websocket/13")),
		either("rfc6455-4.2.1-3-upgrade-doubled", "Two lines Upgrade: websocket.", add("Upgrade: websocket")),
		shouldOpen("rfc6455-4.2.1-3-upgrade-list", "Upgrade: h2c, websocket", set("Upgrade", "Upgrade: h2c, websocket")),
		shouldOpen("rfc6455-4.2.1-3-upgrade-lines", "Upgrade: h2c and Upgrade: websocket on two lines.", set("Upgrade", "Upgrade: h2c", "Upgrade: websocket")),

		plain("rfc6455-4.2.1-4-connection-missing", "No Connection header.", func(h *Head) { h.Drop("Connection") }),
		plain("rfc6455-4.2.1-4-connection-empty", "An empty Connection header.", set("Connection", "Connection:")),
		plain("rfc6455-4.2.1-4-connection-keep-alive", "Connection: keep-alive", set("Connection", "Connection: keep-alive")),
		plain("rfc6455-4.2.1-4-connection-longer", "Connection: upgraded", set("Connection", "Connection: upgraded")),
		plain("rfc6455-4.2.1-4-connection-two-words", "Connection: keep-alive Upgrade, without the comma.", set("Connection", "Connection: keep-alive Upgrade")),
		accepted("rfc6455-4.2.1-4-connection-list", "Connection: keep-alive, Upgrade", set("Connection", "Connection: keep-alive, Upgrade")),
		accepted("rfc6455-4.2.1-4-connection-list-reversed", "Connection: Upgrade, keep-alive", set("Connection", "Connection: Upgrade, keep-alive")),
		accepted("rfc6455-4.2.1-4-connection-list-no-space", "Connection: keep-alive,Upgrade", set("Connection", "Connection: keep-alive,Upgrade")),
		accepted("rfc6455-4.2.1-4-connection-list-tabs", "Connection: keep-alive, then a tab, a comma, a tab, Upgrade.", set("Connection", "Connection: keep-alive\t,\tUpgrade")),
		shouldOpen("rfc6455-4.2.1-4-connection-list-empty-members", "Connection: , ,Upgrade,", set("Connection", "Connection: , ,Upgrade,")),
		shouldOpen("rfc6455-4.2.1-4-connection-lines", "Connection: keep-alive and Connection: Upgrade on two lines.", set("Connection", "Connection: keep-alive", "Connection: Upgrade")),
		either("rfc6455-4.2.1-4-connection-close", "Connection: close, Upgrade", set("Connection", "Connection: close, Upgrade")),
	}
	for _, v := range []string{"WebSocket", "WEBSOCKET", "wEbSoCkEt"} {
		cases = append(cases, accepted("rfc6455-4.2.1-3-upgrade-case-"+casing(v), "Upgrade: "+v+", compared without regard to case.", set("Upgrade", "Upgrade: "+v)))
	}
	for _, v := range []string{"upgrade", "UPGRADE", "uPgRaDe"} {
		cases = append(cases, accepted("rfc6455-4.2.1-4-connection-case-"+casing(v), "Connection: "+v+", compared without regard to case.", set("Connection", "Connection: "+v)))
	}
	return cases
}

// casing is how a word is written, for an id.
func casing(v string) string {
	switch v {
	case strings.ToUpper(v):
		return "upper"
	case strings.ToLower(v):
		return "lower"
	case "WebSocket":
		return "camel"
	}
	return "mixed"
}

// keyCases: item 5, a base64 value of 16 bytes, and the accept value that comes back for it.
func keyCases() []Case {
	const field = "Sec-WebSocket-Key"
	cases := []Case{
		refused("rfc6455-4.2.1-5-key-missing", "No Sec-WebSocket-Key.", func(h *Head) { h.Drop(field) }),
		refused("rfc6455-4.2.1-5-key-doubled", "The same Sec-WebSocket-Key twice (§11.3.1: MUST NOT).", func(h *Head) { h.Add(field + ": " + h.Get(field)) }),
		refused("rfc6455-4.2.1-5-key-twice", "Two different keys.", add(field+": AAAAAAAAAAAAAAAAAAAAAA==")),
	}
	for _, k := range []struct{ id, what, key string }{
		{"empty", "empty", ""},
		{"15-bytes", "15 bytes in base64", "AQIDBAUGBwgJCgsMDQ4P"},
		{"17-bytes", "17 bytes in base64", "AQIDBAUGBwgJCgsMDQ4PEBE="},
		{"18-bytes", "18 bytes in base64, 24 characters", "AQIDBAUGBwgJCgsMDQ4PEBES"},
		{"32-bytes", "32 bytes in base64", "AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="},
		{"unpadded", "without its padding", "dGhlIHNhbXBsZSBub25jZQ"},
		{"half-padded", "with one = instead of two", "dGhlIHNhbXBsZSBub25jZQ="},
		{"padded-too-much", "with three =", "dGhlIHNhbXBsZSBub25jZQ==="},
		{"padded-inside", "with a = in the middle", "dGhlIHNhb=BsZSBub25jZQ=="},
		{"url-alphabet", "in the alphabet of URLs", "__________________-_-w=="},
		{"not-base64", "of characters that base64 has not", "!!!!!!!!!!!!!!!!!!!!!!=="},
		{"space-inside", "with a space inside", "dGhlIHNhbXBs ZSBub25jZQ=="},
		{"hexadecimal", "hexadecimal", "000102030405060708090a0b0c0d0e0f"},
		{"list", "two keys with a comma between", "AAAAAAAAAAAAAAAAAAAAAA==, AAAAAAAAAAAAAAAAAAAAAA=="},
	} {
		cases = append(cases, refused("rfc6455-4.2.1-5-key-"+k.id, "A Sec-WebSocket-Key "+k.what+".", set(field, field+": "+k.key)))
	}
	for _, k := range []struct{ id, what, key string }{
		{"example", "of the RFC's example", "dGhlIHNhbXBsZSBub25jZQ=="},
		{"example-loose-bits", "of the RFC's other example, whose last character has bits that mean nothing", "AQIDBAUGBwgJCgsMDQ4PEC=="},
		{"zeros", "of 16 zero bytes", "AAAAAAAAAAAAAAAAAAAAAA=="},
		{"ones", "of 16 bytes ff: many slashes", "/////////////////////w=="},
		{"plus", "with many +", "++++++++++++++++++++++=="},
	} {
		cases = append(cases, accepted("rfc6455-4.2.2-5.4-accept-"+k.id, "The key "+k.what+". The accept value is made of its characters.", set(field, field+": "+k.key)))
	}
	return append(
		cases,
		accepted("rfc6455-4.2.2-5.4-accept-white-space", "The key with blanks and tabs around it, which are not part of it.", func(h *Head) { h.Set(field, field+": \t "+h.Get(field)+" \t ") }),
	)
}

// versionCases: item 6, and §4.4.
func versionCases() []Case {
	const field = "Sec-WebSocket-Version"
	cases := []Case{
		refused("rfc6455-4.2.1-6-version-missing", "No Sec-WebSocket-Version.", func(h *Head) { h.Drop(field) }),
		refused("rfc6455-4.2.1-6-version-doubled", "Sec-WebSocket-Version: 13 twice (§11.3.5: MUST NOT).", add(field+": 13")),
		refused("rfc6455-4.2.1-6-version-twice", "Sec-WebSocket-Version: 13 and Sec-WebSocket-Version: 8.", add(field+": 8")),
		accepted("rfc6455-4.2.1-6-version-white-space", "Blanks and tabs around the 13.", set(field, field+": \t 13 \t ")),
	}
	for _, v := range []string{"0", "7", "8", "12", "14", "25", "130", "255", "256", "-13", "13.0", "013", "0x0d", "13 13", "13, 8", "thirteen", ""} {
		id := strings.NewReplacer(" ", "-", ",", "-and", ".", "-point-").Replace(v)
		switch v {
		case "":
			id = "empty"
		case "-13":
			id = "minus-13"
		}
		number := len(v) > 0 && strings.Trim(v, "0123456789") == "" && v != "013" && v != "256"
		words := "It must be refused with an HTTP error"
		if number {
			words += ", should be 426, and the answer must name the versions that are spoken"
		}
		cases = append(cases, Case{
			ID: "rfc6455-4.4-version-" + id, Peer: Server,
			Sentence: fmt.Sprintf("Sec-WebSocket-Version: %s. %s.", v, words),
			Run: func(s *Session) {
				s.ask(set(field, field+": "+v))
				r := s.ExpectRefusal()
				if !number || r.Status == 0 {
					return
				}
				if r.Status != 426 {
					s.Remark("§4.2.2 suggests 426")
				}
				if !namesVersion(r) {
					s.Fail("the answer has no Sec-WebSocket-Version with 13 in it (RFC 6455 §4.4)")
				}
			},
		})
	}
	return cases
}

// namesVersion reports whether an answer says that 13 is spoken.
func namesVersion(r *handshake.Response) (found bool) {
	for v := range func(yield func([]byte) bool) { r.Each("Sec-WebSocket-Version", yield) } {
		for one := range strings.SplitSeq(string(v), ",") {
			found = found || strings.TrimSpace(one) == "13"
		}
	}
	return found
}
