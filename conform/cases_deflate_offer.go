package conform

import (
	"fmt"
	"strings"
)

// offerCases are the cases of RFC 7692 §5 and §7.1 for servers: what they answer to offers. handshake.Response.Check
// holds every answer to the offers.
func offerCases() []Case {
	return append(append(goodOfferCases(), fallbackCases()...), badOfferCases()...)
}

// offered is a case of offers that are right: the server takes one and then speaks as it has answered, or declines.
func offered(id, what string, lines ...string) Case {
	return Case{
		ID: "rfc7692-" + id, Peer: Server,
		Sentence: what + " The server may take the offer, and must then obey it, or go on without.",
		Run: func(s *Session) {
			s.offerLines(lines...)
			if !s.pact.on {
				s.plainWorks()
				s.Unimplemented("the peer declines %s", strings.Join(lines, " | "))
			}
			s.Remark("the answer is %s", s.agreed)
			s.compressedWorks()
		},
	}
}

// offerLines opens with these lines of Sec-WebSocket-Extensions.
func (s *Session) offerLines(lines ...string) {
	h := s.Head()
	s.hello.Extensions = strings.Join(lines, ", ")
	for _, l := range lines {
		h.Add("Sec-WebSocket-Extensions: " + l)
	}
	s.dial()
	s.Send(h.Bytes())
	s.ExpectOpen()
}

// compressedWorks shows that the connection does what was agreed, and ends it.
func (s *Session) compressedWorks() {
	var d stream
	s.echoed(text, d.squeeze(digits(700), s.pact.ourBits))
	s.echo(text, letters(100))
	s.echoed(text, d.squeeze(digits(700), s.pact.ourBits))
	s.Finish()
}

// plainWorks shows that the connection does without compression, and ends it.
func (s *Session) plainWorks() {
	s.echo(text, letters(100))
	s.Finish()
}

const pmd = "permessage-deflate"

// goodOfferCases: every parameter alone, and together with the others, in every form.
func goodOfferCases() []Case {
	cases := []Case{
		offered("7.1-offer-plain", "permessage-deflate without parameters.", pmd),
		offered("7.1.1.1-offer-server-no-context", "server_no_context_takeover.", pmd+"; server_no_context_takeover"),
		offered("7.1.1.2-offer-client-no-context", "client_no_context_takeover.", pmd+"; client_no_context_takeover"),
		offered("7.1.2.2-offer-client-bits", "client_max_window_bits without a value.", pmd+"; client_max_window_bits"),
	}
	for bits := 8; bits <= 15; bits++ {
		cases = append(
			cases,
			offered(fmt.Sprintf("7.1.2.1-offer-server-bits-%d", bits), fmt.Sprintf("server_max_window_bits=%d.", bits), fmt.Sprintf(pmd+"; server_max_window_bits=%d", bits)),
			offered(fmt.Sprintf("7.1.2.2-offer-client-bits-%d", bits), fmt.Sprintf("client_max_window_bits=%d.", bits), fmt.Sprintf(pmd+"; client_max_window_bits=%d", bits)),
		)
	}
	params := []struct{ id, param string }{
		{"snct", "server_no_context_takeover"},
		{"cnct", "client_no_context_takeover"},
		{"smwb", "server_max_window_bits=10"},
		{"cmwb", "client_max_window_bits"},
	}
	for mask := 1; mask < 16; mask++ {
		var id, list []string
		for i, p := range params {
			if mask>>i&1 != 0 {
				id, list = append(id, p.id), append(list, p.param)
			}
		}
		if len(list) < 2 {
			continue
		}
		cases = append(cases, offered("7.1-offer-"+strings.Join(id, "-"), strings.Join(list, ", ")+", in one offer.", pmd+"; "+strings.Join(list, "; ")))
	}
	return append(
		cases,
		offered("7.1-offer-all-reversed", "All four parameters in another order.", pmd+"; client_max_window_bits=12; server_max_window_bits=11; client_no_context_takeover; server_no_context_takeover"),
		offered("7.1-offer-no-blanks", "Two parameters without blanks between them.", pmd+";server_no_context_takeover;client_max_window_bits"),
		offered("7.1-offer-blanks-and-tabs", "Two parameters with blanks and tabs around the semicolons.", pmd+" \t;\t server_no_context_takeover \t ; client_max_window_bits"),
		offered("7.1.2.1-offer-quoted", "server_max_window_bits=\"10\", the value in quotes.", pmd+`; server_max_window_bits="10"`),
		offered("7.1.2.2-offer-quoted", "client_max_window_bits=\"10\", the value in quotes.", pmd+`; client_max_window_bits="10"`),
		offered("7.1.2.1-offer-quoted-escaped", "server_max_window_bits=\"1\\0\", a backslash within the quotes.", pmd+`; server_max_window_bits="1\0"`),
		offered("5-offer-behind-unknown", "An unknown extension, and permessage-deflate behind it.", "x-wspoll-unknown; a=b, "+pmd),
		offered("5-offer-before-unknown", "permessage-deflate, and an unknown extension behind it.", pmd+", x-wspoll-unknown"),
		offered("5-offer-on-second-line", "An unknown extension, and permessage-deflate on a second header line.", "x-wspoll-unknown", pmd),
		offered("5-offer-twice", "Two offers without parameters.", pmd+", "+pmd),
		offered("5-offer-on-two-lines", "Two offers, each on a header line.", pmd+"; client_max_window_bits", pmd),
		offered("5-offer-empty-elements", "An offer with empty list elements around it.", ", "+pmd+" ,,"),
		Case{
			ID: "rfc7692-5-offer-none", Peer: Server,
			Sentence: "No offer. The answer may not have an extension, and what comes back may not be compressed.",
			Run: func(s *Session) {
				s.deflates()
				s.Open()
				s.plainWorks()
			},
		},
		Case{
			ID: "rfc7692-5-offer-of-another", Peer: Server,
			Sentence: "An offer of x-webkit-deflate-frame, an extension of old. The answer may not have permessage-deflate.",
			Run: func(s *Session) {
				s.deflates()
				s.offerLines("x-webkit-deflate-frame")
				s.plainWorks()
			},
		},
	)
}

// fallbackCases: several offers, the preferred one first (§5.2, §7.1.3).
func fallbackCases() []Case {
	var cases []Case
	for _, c := range []struct{ id, first, second string }{
		{"server-bits", "server_max_window_bits=10", ""},
		{"server-no-context", "server_no_context_takeover", ""},
		{"both", "server_max_window_bits=9; server_no_context_takeover", "server_max_window_bits=12"},
		{"client-bits", "client_max_window_bits", ""},
	} {
		first, second := pmd+"; "+c.first, pmd
		if c.second != "" {
			second += "; " + c.second
		}
		cases = append(cases, Case{
			ID: "rfc7692-5-fallback-" + c.id, Peer: Server,
			Sentence: "Two offers, of which the first is preferred: " + first + ", " + second + ". A server that takes the first when it is alone should take it here.",
			Run: func(s *Session) {
				s.offerLines(first)
				alone := s.agreed
				s.Finish()
				s.offerLines(first + ", " + second)
				switch {
				case !s.pact.on && alone == "":
					s.Unimplemented("the peer declines both")
				case !s.pact.on:
					s.NonStrict("the peer declines the two offers, and takes the first when it is alone")
					s.plainWorks()
					return
				case alone != "" && s.agreed != alone:
					s.NonStrict("the answer is %s, and for the first offer alone %s: the second was preferred", s.agreed, alone)
				}
				s.compressedWorks()
			},
		})
	}
	for _, b := range []struct{ id, offer string }{
		{"unknown", "x_wspoll_unknown"},
		{"server-bits-7", "server_max_window_bits=7"},
		{"server-bits-without-value", "server_max_window_bits"},
		{"value", "server_no_context_takeover=1"},
		{"doubled", "server_max_window_bits=10; server_max_window_bits=10"},
	} {
		cases = append(cases, Case{
			ID: "rfc7692-5-fallback-behind-bad-" + b.id, Peer: Server,
			Sentence: "Two offers: " + pmd + "; " + b.offer + ", which must be declined, and " + pmd + ". The second should be taken, as when it is alone.",
			Run: func(s *Session) {
				s.deflates()
				s.offerLines(pmd + "; " + b.offer + ", " + pmd)
				if !s.pact.on {
					s.NonStrict("the second offer was passed over")
					s.plainWorks()
					return
				}
				s.compressedWorks()
			},
		})
	}
	return append(cases, Case{
		ID: "rfc7692-5-fallback-third", Peer: Server,
		Sentence: "Three offers of which the first two must be declined, over two lines. The third should be taken, as when it is alone.",
		Run: func(s *Session) {
			s.deflates()
			s.offerLines(pmd+"; server_max_window_bits=16, "+pmd+"; x=y", pmd)
			if !s.pact.on {
				s.NonStrict("the third offer was passed over")
				s.plainWorks()
				return
			}
			s.compressedWorks()
		},
	})
}

// badParams are parameters that no offer and no answer may have (§7.1).
var badParams = []struct{ id, params string }{
	{"unknown", "x_wspoll_unknown"},
	{"unknown-value", "x_wspoll_unknown=10"},
	{"unknown-behind-good", "server_no_context_takeover; x_wspoll_unknown"},
	{"server-bits-without-value", "server_max_window_bits"},
	{"server-bits-0", "server_max_window_bits=0"},
	{"server-bits-7", "server_max_window_bits=7"},
	{"server-bits-16", "server_max_window_bits=16"},
	{"server-bits-100", "server_max_window_bits=100"},
	{"server-bits-08", "server_max_window_bits=08"},
	{"server-bits-010", "server_max_window_bits=010"},
	{"server-bits-negative", "server_max_window_bits=-10"},
	{"server-bits-plus", "server_max_window_bits=+10"},
	{"server-bits-fraction", "server_max_window_bits=10.0"},
	{"server-bits-hex", "server_max_window_bits=0xa"},
	{"server-bits-letter", "server_max_window_bits=1x"},
	{"server-bits-word", "server_max_window_bits=ten"},
	{"server-bits-266", "server_max_window_bits=266"},
	{"server-bits-4294967306", "server_max_window_bits=4294967306"},
	{"server-bits-quoted-16", `server_max_window_bits="16"`},
	{"client-bits-0", "client_max_window_bits=0"},
	{"client-bits-7", "client_max_window_bits=7"},
	{"client-bits-16", "client_max_window_bits=16"},
	{"client-bits-08", "client_max_window_bits=08"},
	{"client-bits-negative", "client_max_window_bits=-10"},
	{"client-bits-letter", "client_max_window_bits=1x"},
	{"client-bits-266", "client_max_window_bits=266"},
	{"client-bits-4294967306", "client_max_window_bits=4294967306"},
	{"client-bits-quoted-7", `client_max_window_bits="7"`},
	{"server-no-context-value", "server_no_context_takeover=1"},
	{"server-no-context-true", "server_no_context_takeover=true"},
	{"server-no-context-quoted", `server_no_context_takeover="1"`},
	{"client-no-context-value", "client_no_context_takeover=10"},
	{"client-no-context-quoted", `client_no_context_takeover="true"`},
	{"server-no-context-doubled", "server_no_context_takeover; server_no_context_takeover"},
	{"client-no-context-doubled", "client_no_context_takeover; client_no_context_takeover"},
	{"server-bits-doubled", "server_max_window_bits=10; server_max_window_bits=10"},
	{"server-bits-doubled-other", "server_max_window_bits=10; server_max_window_bits=12"},
	{"client-bits-doubled", "client_max_window_bits=10; client_max_window_bits=10"},
	{"client-bits-doubled-with-and-without", "client_max_window_bits; client_max_window_bits=10"},
}

// badOfferCases: offers that a server MUST decline. It goes on without the extension.
func badOfferCases() []Case {
	var cases []Case
	for _, b := range badParams {
		cases = append(cases, Case{
			ID: "rfc7692-7.1-decline-" + b.id, Peer: Server,
			Sentence: "An offer with " + b.params + ". The server must decline it, and accept the connection without the extension.",
			Run: func(s *Session) {
				s.deflates()
				s.offerLines(pmd + "; " + b.params)
				if s.agreed != "" {
					s.Fail("the answer is %s", s.agreed)
				}
				s.plainWorks()
			},
		})
	}
	return cases
}
