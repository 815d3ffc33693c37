package conform

import (
	"bytes"
	"fmt"
	"slices"
	"strings"

	"github.com/gobwas/ws"
)

// fieldCases: items 7 to 10 of §4.2.1, the grammar of a head, its size, and how it arrives.
func fieldCases() []Case {
	return slices.Concat(originCases(), subprotocolCases(), extensionCases(), grammarCases(), headSizeCases(), arrivalCases())
}

// originCases: item 7, §10.2.
func originCases() []Case {
	return []Case{
		either("rfc6455-10.2-origin-foreign", "A page of another origin connects (Origin: https://foreign.example).", set("Origin", "Origin: https://foreign.example")),
		either("rfc6455-10.2-origin-null", "Origin: null", set("Origin", "Origin: null")),
		either("rfc6455-10.2-origin-malformed", "Origin: ://not an origin", set("Origin", "Origin: ://not an origin")),
		either("rfc6455-10.2-origin-twice", "Two Origin headers.", set("Origin", "Origin: https://a.example", "Origin: https://b.example")),
	}
}

// subprotocolCases: item 8. The peer picks one of the list, or none; Response.Check sees to it.
func subprotocolCases() []Case {
	offers := func(list ...string) change { return add("Sec-WebSocket-Protocol: " + strings.Join(list, ", ")) }
	var cases []Case
	for _, c := range []struct {
		id, what string
		lines    []string
		offered  []string
	}{
		{"one", "One subprotocol is offered", []string{"chat"}, []string{"chat"}},
		{"two", "Two subprotocols are offered", []string{"chat, superchat"}, []string{"chat", "superchat"}},
		{"two-lines", "Two subprotocols are offered on two lines", []string{"chat", "superchat"}, []string{"chat", "superchat"}},
		{"no-space", "Three subprotocols are offered without a space between them", []string{"a,b,c"}, []string{"a", "b", "c"}},
		{"odd-characters", "A subprotocol of all the odd characters that a token may have is offered", []string{"!#$%&'*+-.^_`|~09azAZ"}, []string{"!#$%&'*+-.^_`|~09azAZ"}},
		{"case", "The same word in two casings is offered; they are two subprotocols", []string{"chat, CHAT"}, []string{"chat", "CHAT"}},
		{"empty-members", "Empty members stand in the list of subprotocols", []string{", chat,, superchat ,"}, []string{"chat", "superchat"}},
		{"same-twice", "The same subprotocol is offered twice (§4.1: all MUST be unique)", []string{"chat, chat"}, []string{"chat"}},
	} {
		cases = append(cases, Case{
			ID: "rfc6455-4.2.1-8-subprotocol-" + c.id, Peer: Server,
			Sentence: c.what + ". The peer may choose one of these or none, or refuse.",
			Run: func(s *Session) {
				h := s.Head()
				for _, l := range c.lines {
					h.Add("Sec-WebSocket-Protocol: " + l)
				}
				s.hello.Protocols = c.offered
				s.dial()
				s.Send(h.Bytes())
				if s.ExpectEither() {
					s.works()
				}
			},
		})
	}
	return append(
		cases,
		refused("rfc6455-4.2.1-8-subprotocol-empty", "An empty Sec-WebSocket-Protocol; the list has one element at least.", offers("")),
		refused("rfc6455-4.2.1-8-subprotocol-two-words", "Sec-WebSocket-Protocol: super chat, not a token.", offers("super chat")),
		refused("rfc6455-4.2.1-8-subprotocol-quoted", "Sec-WebSocket-Protocol: \"chat\", not a token.", offers(`"chat"`)),
		refused("rfc6455-4.2.1-8-subprotocol-separator", "Sec-WebSocket-Protocol: chat@1, not a token.", offers("chat@1")),
		refused("rfc6455-4.2.1-8-subprotocol-not-ascii", "Sec-WebSocket-Protocol: grün, not a token.", offers("grün")),
	)
}

// extensionCases: item 9, §9.1: malformed data MUST fail the connection, unknown extensions are declined by not
// answering.
func extensionCases() []Case {
	const field = "Sec-WebSocket-Extensions: "
	var cases []Case
	for _, c := range []struct{ id, what, value string }{
		{"unknown", "An extension that nobody knows is offered", "x-wspoll-unknown"},
		{"unknown-parameters", "An unknown extension with parameters is offered", `x-wspoll-unknown; a; b=1; c="2"`},
		{"unknown-list", "Three unknown extensions are offered", "x-wspoll-a, x-wspoll-b; p, x-wspoll-c"},
		{"empty-members", "Empty members stand in the list of extensions", ", x-wspoll-a ,, x-wspoll-b,"},
		{"white-space", "An extension is offered with blanks and tabs wherever they may be", "x-wspoll-a \t;\t a = 1 ; b\t, x-wspoll-b"},
		{"quoted-escape", "A parameter is quoted, with an escaped letter in it", `x-wspoll-a; p="\ab\c"`},
	} {
		build := accepted
		if c.id == "white-space" || c.id == "empty-members" || c.id == "quoted-escape" {
			build = shouldOpen
		}
		cases = append(cases, build("rfc6455-9.1-extension-"+c.id, c.what+".", add(field+c.value)))
	}
	cases = append(cases, shouldOpen("rfc6455-9.1-extension-lines", "Extensions are offered on two lines.", add(field+"x-wspoll-a; p", field+"x-wspoll-b")))
	for _, c := range []struct{ id, value string }{
		{"empty", ""},
		{"only-commas", ", ,"},
		{"only-semicolon", ";"},
		{"trailing-semicolon", "x-wspoll-a;"},
		{"parameter-without-name", "x-wspoll-a; =1"},
		{"value-missing", "x-wspoll-a; p="},
		{"two-words", "x-wspoll-a x-wspoll-b"},
		{"two-values", "x-wspoll-a; p=1 2"},
		{"separator", "x-wspoll@a"},
		{"quote-open", `x-wspoll-a; p="1`},
		{"quoted-not-a-token", `x-wspoll-a; p="1 2"`},
		{"quoted-empty", `x-wspoll-a; p=""`},
		{"quoted-name", `"x-wspoll-a"`},
		{"not-ascii", "x-wspoll-ä"},
	} {
		cases = append(cases, refused("rfc6455-9.1-extension-malformed-"+c.id, "Sec-WebSocket-Extensions: "+c.value+" breaks the grammar of §9.1.", add(field+c.value)))
	}
	return cases
}

// grammarCases are about header lines as such (RFC 9112 §5, RFC 9110 §5).
func grammarCases() []Case {
	rename := func(f func(string) string) change {
		return func(h *Head) {
			for i, l := range h.Lines {
				name, value, _ := strings.Cut(l, ":")
				h.Lines[i] = f(name) + ":" + value
			}
		}
	}
	return []Case{
		accepted("rfc6455-4.2.1-names-lower-case", "All header names in lower case.", rename(strings.ToLower)),
		accepted("rfc6455-4.2.1-names-upper-case", "All header names in upper case.", rename(strings.ToUpper)),
		accepted("rfc6455-4.2.1-order-reversed", "All header lines in reverse order, which \"is not important\".", func(h *Head) { slices.Reverse(h.Lines) }),
		accepted("rfc6455-4.2.1-no-space-after-colon", "No space after the colons.", func(h *Head) {
			for i, l := range h.Lines {
				h.Lines[i] = strings.Replace(l, ": ", ":", 1)
			}
		}),
		accepted("rfc6455-4.2.1-white-space-around-values", "Blanks and tabs around all values but Host.", func(h *Head) {
			for i, l := range h.Lines {
				if !isField(l, "Host") {
					h.Lines[i] = strings.Replace(l, ": ", ": \t ", 1) + " \t"
				}
			}
		}),
		accepted("rfc6455-4.2.1-10-unknown-fields", "Unknown header fields, which are ignored.", add("X-Unknown: 1", "X-Empty:", "x_underscore.and~others: 2")),
		accepted("rfc6455-4.2.1-10-cookie", "A Cookie header.", add("Cookie: a=1; b=\"2\"")),
		accepted("rfc6455-4.2.1-10-browser", "The further headers of a browser.", add(
			"Pragma: no-cache", "Cache-Control: no-cache", "User-Agent: Mozilla/5.0 (X11; Linux x86_64)",
			"Accept-Encoding: gzip, deflate, br", "Accept-Language: de,en;q=0.9", "Sec-Fetch-Mode: websocket",
		)),
		either("rfc6455-4.2.1-10-authorization", "An Authorization header nobody asked for.", add("Authorization: Basic dXNlcjpwYXNz")),
		either("rfc6455-4.2.1-content-length-0", "Content-Length: 0", add("Content-Length: 0")),
		either("rfc6455-4.2.1-expect-continue", "Expect: 100-continue", add("Expect: 100-continue")),
		either("rfc6455-4.2.1-value-utf8", "A header value with bytes above 127.", add("X-Name: grün")),
		either("rfc6455-4.2.1-value-nul", "A header value with a NUL byte.", add("X-Name: a\x00b")),
		either("rfc6455-4.2.1-value-cr", "A header value with a bare CR.", add("X-Name: a\rb")),
		either("rfc6455-4.2.1-folded", "A header value goes on on a second line that begins with a blank (RFC 9112 §5.2).", add("X-Folded: a\r\n b")),
		either("rfc6455-4.2.1-folded-upgrade", "The value of Upgrade stands on a line of its own, folded.", set("Upgrade", "Upgrade:\r\n websocket")),
		either("rfc6455-4.2.1-folded-key", "The key stands on a line of its own, folded.", func(h *Head) {
			k := h.Get("Sec-WebSocket-Key")
			h.Set("Sec-WebSocket-Key", "Sec-WebSocket-Key:\r\n\t"+k)
		}),
		refused("rfc6455-4.2.1-blank-before-first-field", "The first header line, Host, begins with a blank; who passes over it (RFC 9112 §2.2) is left without a Host.", func(h *Head) {
			h.Lines[0] = " " + h.Lines[0]
		}),
		refused("rfc6455-4.2.1-name-space-before-colon", "Upgrade : websocket, a blank before the colon (RFC 9112 §5.1: MUST be rejected).", set("Upgrade", "Upgrade : websocket")),
		refused("rfc6455-4.2.1-name-empty", "A header line that begins with a colon.", add(": value")),
		refused("rfc6455-4.2.1-line-without-colon", "A header line without a colon.", add("no colon here")),
		refused("rfc6455-4.2.1-name-with-space", "A header name with a blank inside.", add("X Name: value")),
		either("rfc6455-4.2.1-bare-lf", "Lines end in LF instead of CRLF (RFC 9112 §2.2: MAY be taken).", nil).with(func(s *Session) {
			b := s.Head().Bytes()
			s.dial()
			s.Send(bytes.ReplaceAll(b, []byte("\r\n"), []byte("\n")))
			if s.ExpectEither() {
				s.works()
			}
		}),
	}
}

// with gives a case another function.
func (c Case) with(run func(*Session)) Case {
	c.Run = run
	return c
}

// headSizeCases: heads up to what is usual should pass, though a server may set its limits where it likes (RFC 9110 §5.4);
// heads beyond all reason should be refused (§10.4).
func headSizeCases() []Case {
	tooLarge := func(id, what string, c change) Case {
		return Case{
			ID: "rfc6455-10.4-head-" + id, Peer: Server,
			Sentence: what + " An HTTP error should come, or the end of TCP.",
			Run: func(s *Session) {
				s.ask(c)
				r, a := s.answer(s.opts.Timeout)
				switch {
				case a == silent:
					s.NonStrict("neither an answer nor the end of TCP came within %v", s.opts.Timeout)
				case a == over:
					s.Remark("%s without an HTTP answer", endWords(s.ended))
				case r.Status == 101:
					s.NonStrict("the handshake was accepted")
				default:
					s.Remark("refused with %d", r.Status)
				}
			},
		}
	}
	lines := func(n, size int) change {
		return func(h *Head) {
			for i := range n {
				h.Add(fmt.Sprintf("X-Filler-%d: %s", i, strings.Repeat("x", size)))
			}
		}
	}
	return []Case{
		shouldOpen("rfc6455-10.4-head-2k", "A head with a value of 2 KiB.", lines(1, 2<<10)),
		shouldOpen("rfc6455-10.4-head-40-lines", "A head with 40 more lines.", lines(40, 16)),
		either("rfc6455-10.4-head-7k", "A head with a value of 7 KiB.", lines(1, 7<<10)),
		either("rfc6455-10.4-head-16k", "A head with a value of 16 KiB.", lines(1, 16<<10)),
		either("rfc6455-10.4-head-200-lines", "A head with 200 more lines.", lines(200, 8)),
		tooLarge("4m", "A head with a value of 4 MiB.", lines(1, 4<<20)),
		tooLarge("4m-lines", "A head with 4 MiB of lines.", lines(4<<10, 1<<10)),
		tooLarge("4m-name", "A head with a header name of 4 MiB.", func(h *Head) { h.Add(strings.Repeat("x", 4<<20) + ": 1") }),
		tooLarge("4m-target", "A request line with a target of 4 MiB.", func(h *Head) {
			h.First = "GET /" + strings.Repeat("x", 4<<20) + " HTTP/1.1"
		}),
		tooLarge("4m-method", "A request line with a method of 4 MiB.", func(h *Head) {
			h.First = strings.Repeat("G", 4<<20) + " / HTTP/1.1"
		}),
		{
			ID: "rfc6455-10.4-head-endless", Peer: Server,
			Sentence: "4 MiB of header lines and no end of the head. An HTTP error should come, or the end of TCP.",
			Run: func(s *Session) {
				h := s.Head().Add(strings.Repeat("X-Filler: "+strings.Repeat("x", 1<<10)+"\r\n", 4<<10))
				s.dial()
				s.Send(bytes.TrimRight(h.Bytes(), "\r\n"))
				switch r, a := s.answer(s.opts.Timeout); {
				case a == silent:
					s.NonStrict("neither an answer nor the end of TCP came within %v", s.opts.Timeout)
				case a == arrived && r.Status == 101:
					s.Fail("a 101 came before the head had ended")
				}
			},
		},
	}
}

// arrivalCases are about how a head comes in: cut anywhere, or with more behind it.
func arrivalCases() []Case {
	return []Case{
		accepted("rfc6455-4.2.1-byte-by-byte", "The head comes byte by byte.", nil).with(func(s *Session) {
			b := s.Head().Bytes()
			s.dial()
			s.SendChopped(b, 1)
			s.ExpectOpen()
			s.works()
		}),
		accepted("rfc6455-4.2.1-two-parts", "The head comes in two parts, cut at every fifth position and at all of the end, on many connections.", nil).with(func(s *Session) {
			for i := 1; ; i++ {
				b := s.Head().Bytes()
				if i == len(b) {
					return
				}
				if i%5 != 0 && i < len(b)-6 {
					continue
				}
				s.dial()
				s.Send(b[:i])
				s.Send(b[i:])
				s.ExpectOpen()
				s.Finish()
			}
		}),
		{
			ID: "rfc6455-4.1-frame-behind-head", Peer: Server,
			Sentence: "A text frame in the same segment as the head, which a client MUST NOT send before the answer. The message may come back or the connection be refused; its bytes may not be lost.",
			Run: func(s *Session) {
				b := s.Head().Bytes()
				s.dial()
				s.Send(append(b, s.Frame(fin|text, []byte("early"))...))
				if s.ExpectEither() {
					s.pipelined()
				}
			},
		},
		{
			ID: "rfc6455-4.1-frame-behind-head-cut", Peer: Server,
			Sentence: "As before, but the segment ends in the middle of the frame.",
			Run: func(s *Session) {
				b := s.Head().Bytes()
				s.dial()
				f := s.Frame(fin|text, []byte("early"))
				s.Send(append(b, f[:3]...))
				if s.ExpectEither() {
					s.Send(f[3:])
					s.pipelined()
				}
			},
		},
		{
			ID: "rfc6455-4.2.1-body", Peer: Server,
			Sentence: "The head announces a body of 5 bytes (Content-Length). The peer may refuse; if it accepts, the body may not be taken for frames.",
			Run: func(s *Session) {
				h := s.Head().Add("Content-Length: 5")
				s.dial()
				s.Send(append(h.Bytes(), "hello"...))
				if s.ExpectEither() {
					s.works()
				}
			},
		},
		{
			ID: "rfc6455-4.2.1-body-chunked", Peer: Server,
			Sentence: "The head announces a chunked body. The peer may refuse; if it accepts, the body may not be taken for frames.",
			Run: func(s *Session) {
				h := s.Head().Add("Transfer-Encoding: chunked")
				s.dial()
				s.Send(append(h.Bytes(), "5\r\nhello\r\n0\r\n\r\n"...))
				if s.ExpectEither(501) {
					s.works()
				}
			},
		},
		garbage("frame-first", "A masked text frame without any handshake.", func(s *Session) []byte { return s.Frame(fin|text, []byte("Hello")) }),
		garbage("tls-hello", "The beginning of a TLS handshake; over wss, inside it.", func(*Session) []byte {
			return append([]byte{0x16, 3, 1, 2, 0, 1, 0, 1, 0xfc, 3, 3}, make([]byte, 512)...)
		}),
		garbage("zeros", "A kilobyte of zeros.", func(*Session) []byte { return make([]byte, 1024) }),
		garbage("lines", "Lines that are no HTTP.", func(*Session) []byte { return []byte("HELO example.com\r\nMAIL FROM: x\r\n\r\n") }),
		{
			ID: "rfc6455-4.2.1-cut-off", Peer: Server,
			Sentence: "TCP ends in the middle of the head, several times. No 101 may come; the next connection must work.",
			Run: func(s *Session) {
				for _, n := range []int{0, 1, 20, 100} {
					b := s.Head().Bytes()
					s.dial()
					if n > 0 {
						s.Send(b[:n])
					}
					s.Shut()
					switch r, a := s.answer(s.opts.Timeout); {
					case a == silent:
						s.NonStrict("TCP was not ended within %v after we did", s.opts.Timeout)
					case a == arrived && r.Status == 101:
						s.Fail("a 101 came for half a head")
					}
				}
				s.Open()
				s.works()
			},
		},
	}
}

// pipelined waits for the echo of "early", which was sent before the peer had answered.
func (s *Session) pipelined() {
	probe := []byte("after early")
	s.Send(s.Frame(fin|text, probe))
	m := s.NextMessage()
	if bytes.Equal(m.Payload, probe) {
		s.NonStrict("the frame that came with the head was lost")
	} else if string(m.Payload) != "early" {
		s.Fail("the message came back changed: %s", excerpt(m.Payload))
	} else {
		s.ExpectMessage(ws.OpText, probe)
	}
	s.Finish()
}

// garbage is a case of bytes that are no HTTP at all.
func garbage(id, sentence string, b func(*Session) []byte) Case {
	return Case{
		ID: "rfc6455-4.2.1-garbage-" + id, Peer: Server,
		Sentence: sentence + " An HTTP error or the end of TCP must come.",
		Run: func(s *Session) {
			s.dial()
			sent := append(b(s), "\r\n\r\n"...)
			s.Send(sent)
			const line = "HTTP/1.1 400" // as much as is needed of it
			for len(s.buf) < len(line) && s.more(s.opts.Timeout) {
			}
			switch got := s.buf; {
			case len(got) == 0 && s.ended == nil:
				s.Fail("neither an answer nor the end of TCP came within %v", s.opts.Timeout)
			case len(got) == 0:
			case len(got) >= len(line) && bytes.HasPrefix(got, []byte("HTTP/1.")):
				if status := got[9:12]; status[0] != '4' && status[0] != '5' {
					s.Fail("the answer is %s and not an error", status)
				}
			case got[0] >= 0x80:
				s.Fail("what came begins as a frame and not as HTTP: %s", excerpt(got))
			case bytes.HasPrefix(sent, got[:min(len(sent), len(got))]):
				s.Fail("the bytes came back: %s", excerpt(got))
			default:
				s.Remark("what came is no HTTP: %s", excerpt(got)) // as an alert of TLS, or the body of an error without a head
			}
		},
	}
}
