package conform

import (
	"fmt"
	"strings"

	"wspoll/handshake"
)

// deflateAnswerCases are the cases of RFC 7692 §5 and §7.1 for clients: what they take for an answer to their offer.
func deflateAnswerCases() []Case {
	return append(goodAnswerCases(), badAnswerCases()...)
}

// asked is what a client asks for with its first valid offer, and what an answer to it must have.
type asked struct {
	noContext bool
	bits      uint8 // 0: nothing
}

// answer is the least that may be answered.
func (o asked) answer() string {
	v := pmd
	if o.noContext {
		v += "; server_no_context_takeover"
	}
	if o.bits != 0 {
		v += fmt.Sprintf("; server_max_window_bits=%d", o.bits)
	}
	return v
}

// clientOffer is what the client asks for, and whether it lets us limit its window. The case ends if it makes no offer.
func (s *Session) clientOffer() (o asked, mayLimit bool) {
	var a handshake.Answer
	if !a.AcceptDeflate(s.request, &handshake.DeflateOptions{ServerBits: 15, ClientBits: 8}) {
		s.Unimplemented("the client does not offer permessage-deflate")
	}
	o.noContext = a.Deflate.ServerNoContext
	if value := extensionsOf(&a); strings.Contains(value, "server_max_window_bits") {
		o.bits = a.Deflate.ServerBits
	}
	return o, a.Deflate.ClientBits == 8
}

// answered101 sends the 101 with these lines of Sec-WebSocket-Extensions, which are wrong, and a ping behind it. The case
// ends if they are right: who offers permessage-deflate several times may be answered as any of the offers asks.
func (s *Session) answered101(lines ...string) {
	h := s.AnswerHead()
	for _, l := range lines {
		h.Add("Sec-WebSocket-Extensions: " + l)
	}
	var offers []string
	s.request.Each("Sec-WebSocket-Extensions", func(v []byte) bool {
		offers = append(offers, string(v))
		return true
	})
	var r handshake.Response
	if _, err := handshake.ParseResponse(h.Bytes(), nil, &r); err == nil && r.Check(&handshake.Hello{Key: s.request.Key, Extensions: strings.Join(offers, ", ")}) == nil {
		s.Unimplemented("one of the client's offers allows %s", strings.Join(lines, " | "))
	}
	s.Send(append(h.Bytes(), s.Frame(fin|ping, []byte("open?"))...))
}

// goodAnswerCases: what a server may say asked and unasked.
func goodAnswerCases() []Case {
	good := func(id, what string, w wish) Case {
		return Case{
			ID: "rfc7692-" + id, Peer: Client,
			Sentence: "An answer with " + what + ". The client must take it, and speak accordingly.",
			Run: func(s *Session) {
				s.OpenDeflate(w)
				s.Remark("the answer is %s", s.agreed)
				s.compressedWorks()
			},
		}
	}
	cases := []Case{
		good("7.1-answer-plain", "what the offer asks for and nothing more", wish{}),
		good("7.1.1.1-answer-server-no-context", "server_no_context_takeover, asked or not", wish{ourNoContext: true}),
		good("7.1.1.2-answer-client-no-context", "client_no_context_takeover, asked or not", wish{peerNoContext: true}),
		good("7.1-answer-both-no-context", "both parameters for messages that begin anew", wish{ourNoContext: true, peerNoContext: true}),
		good("7.1-answer-all", "all four parameters", wish{ourNoContext: true, peerNoContext: true, ourBits: 10, peerBits: 11}),
		{
			ID: "rfc7692-7.1-answer-declined", Peer: Client,
			Sentence: "An answer without extensions: the offer is declined. The client must take it, and compress nothing.",
			Run: func(s *Session) {
				s.clientOffer()
				s.Open()
				s.plainWorks()
			},
		},
		{
			ID: "rfc7692-7.1.2.1-answer-quoted", Peer: Client,
			Sentence: "An answer with server_max_window_bits=\"10\", the value in quotes, asked or not. The client must take it.",
			Run: func(s *Session) {
				o, _ := s.clientOffer()
				if o.bits != 0 && o.bits < 10 {
					s.Unimplemented("the client asks for a window of %d bits", o.bits)
				}
				s.OpenAnswer(asked{noContext: o.noContext}.answer() + `; server_max_window_bits="10"`)
				s.agree(&handshake.Deflate{On: true, ServerNoContext: o.noContext, ServerBits: 10, ClientBits: 15})
				s.works()
			},
		},
	}
	for bits := uint8(8); bits <= 15; bits++ {
		cases = append(
			cases,
			good(fmt.Sprintf("7.1.2.1-answer-server-bits-%d", bits), fmt.Sprintf("server_max_window_bits of %d at most, asked or not", bits), wish{ourBits: bits}),
			good(fmt.Sprintf("7.1.2.2-answer-client-bits-%d", bits), fmt.Sprintf("client_max_window_bits of %d at most, if it was offered", bits), wish{peerBits: bits}),
		)
	}
	return cases
}

// badAnswerCases: answers that break a rule. "the client MUST _Fail the WebSocket Connection_" (§7.1).
func badAnswerCases() []Case {
	bad := func(id, what string, lines func(*Session) []string) Case {
		return Case{
			ID: "rfc7692-" + id, Peer: Client,
			Sentence: "An answer " + what + ". The client must fail the connection and send no frame.",
			Run: func(s *Session) {
				s.answered101(lines(s)...)
				s.mustLeave()
			},
		}
	}
	// with makes the answer of what the client asks for and more.
	with := func(more string) func(*Session) []string {
		return func(s *Session) []string {
			o, _ := s.clientOffer()
			return []string{o.answer() + more}
		}
	}
	var cases []Case
	for _, b := range badParams {
		cases = append(cases, Case{
			ID: "rfc7692-7.1-answer-bad-" + b.id, Peer: Client,
			Sentence: "An answer with " + b.params + ". The client must fail the connection and send no frame.",
			Run: func(s *Session) {
				s.clientOffer()
				s.answered101(pmd + "; " + b.params)
				s.mustLeave()
			},
		})
	}
	return append(
		cases,
		bad("7.1.2.2-answer-client-bits-without-value", "with client_max_window_bits without a value, which only an offer may have", with("; client_max_window_bits")),
		bad("7.1.2.2-answer-client-bits-not-offered", "with client_max_window_bits=10, which the client has not offered", func(s *Session) []string {
			o, asked := s.clientOffer()
			if asked {
				s.Unimplemented("the client offers client_max_window_bits")
			}
			return []string{o.answer() + "; client_max_window_bits=10"}
		}),
		bad("7.1.2.1-answer-server-bits-above", "with server_max_window_bits above what the client asked for", func(s *Session) []string {
			o, _ := s.clientOffer()
			if o.bits == 0 || o.bits == 15 {
				s.Unimplemented("the client does not ask for a smaller window")
			}
			o.bits++
			return []string{o.answer()}
		}),
		bad("7.1.2.1-answer-server-bits-missing", "without the server_max_window_bits that the client asked for", func(s *Session) []string {
			o, _ := s.clientOffer()
			if o.bits == 0 {
				s.Unimplemented("the client does not ask for it")
			}
			o.bits = 0
			return []string{o.answer()}
		}),
		bad("7.1.1.1-answer-server-no-context-missing", "without the server_no_context_takeover that the client asked for", func(s *Session) []string {
			o, _ := s.clientOffer()
			if !o.noContext {
				s.Unimplemented("the client does not ask for it")
			}
			o.noContext = false
			return []string{o.answer()}
		}),
		bad("5-answer-not-offered", "with permessage-deflate, which the client has not offered", func(s *Session) []string {
			if _, n := s.request.Get("Sec-WebSocket-Extensions"); n > 0 {
				s.Unimplemented("the client offers extensions")
			}
			return []string{pmd}
		}),
		bad("5-answer-of-another", "with the extension x-webkit-deflate-frame", func(*Session) []string { return []string{"x-webkit-deflate-frame"} }),
		bad("5-answer-and-another", "with permessage-deflate and an extension that was not offered", with(", x-wspoll-unknown")),
		bad("5-answer-twice", "with permessage-deflate twice: both would use RSV1", func(s *Session) []string {
			o, _ := s.clientOffer()
			return []string{o.answer() + ", " + o.answer()}
		}),
		bad("5-answer-on-two-lines", "with permessage-deflate on two header lines", func(s *Session) []string {
			o, _ := s.clientOffer()
			return []string{o.answer(), o.answer()}
		}),
		bad("5-answer-malformed", "with a malformed parameter (permessage-deflate; =10)", func(s *Session) []string {
			s.clientOffer()
			return []string{pmd + "; =10"}
		}),
	)
}
