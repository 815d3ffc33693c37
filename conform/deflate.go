package conform

import (
	"bytes"
	"strings"

	"wspoll/frame"
	"wspoll/handshake"

	"github.com/gobwas/ws"
)

// wish is what a case wants of permessage-deflate (RFC 7692 §7.1), from our side, whichever that is. The zero value wants
// the extension and no parameter.
type wish struct {
	ourNoContext, peerNoContext bool  // each message of the side begins with an empty window
	ourBits, peerBits           uint8 // the side's window is no larger; 0: nothing is said
	takeover                    bool  // we must be allowed to refer to earlier messages
}

// pact is what was agreed, from our side.
type pact struct {
	on                          bool
	ourNoContext, peerNoContext bool
	ourBits, peerBits           uint8

	z    *frame.Inflater
	seen []byte // the last 32 KiB of the text of the peer's compressed messages
	last []byte // the bytes of the peer's last message, nil if it was not compressed
}

// agree makes a pact of what the handshake came to.
func (s *Session) agree(d *handshake.Deflate) {
	s.pact = pact{
		on: d.On, ourNoContext: d.ServerNoContext, peerNoContext: d.ClientNoContext,
		ourBits: d.ServerBits, peerBits: d.ClientBits,
	}
	if s.client {
		p := &s.pact
		p.ourNoContext, p.peerNoContext = d.ClientNoContext, d.ServerNoContext
		p.ourBits, p.peerBits = d.ClientBits, d.ServerBits
	}
}

// OpenDeflate opens with permessage-deflate as w wants it. Where the peer does not go along, the case ends: it is not
// implemented.
func (s *Session) OpenDeflate(w wish) {
	if s.client {
		s.OpenOffer(w.offer())
		if !s.pact.on {
			s.Unimplemented("the peer declines %s", w.offer())
		}
	} else {
		s.openDeflateAnswer(w)
	}
	if w.takeover && s.pact.ourNoContext {
		s.Unimplemented("the peer asks for messages without context takeover")
	}
}

// offer is w in the words of a client.
func (w *wish) offer() string {
	return string(handshake.AppendDeflateOffers(nil, handshake.DeflateOffer{
		ServerNoContext: w.peerNoContext, ClientNoContext: w.ourNoContext, ServerBits: w.peerBits, ClientBits: w.ourBits,
	}))
}

// openDeflateAnswer is OpenDeflate as the server.
func (s *Session) openDeflateAnswer(w wish) {
	var a handshake.Answer
	if !a.AcceptDeflate(s.request, &handshake.DeflateOptions{
		ServerNoContext: w.ourNoContext, ClientNoContext: w.peerNoContext, ServerBits: w.ourBits, ClientBits: w.peerBits,
	}) {
		s.Unimplemented("the client does not offer permessage-deflate")
	}
	if w.peerBits != 0 && a.Deflate.ClientBits > w.peerBits {
		s.Unimplemented("the client does not offer client_max_window_bits")
	}
	s.OpenAnswer(extensionsOf(&a))
	s.agree(&a.Deflate)
}

// extensionsOf is what a says of extensions.
func extensionsOf(a *handshake.Answer) string {
	_, value, _ := strings.Cut(string(handshake.AppendAnswer(nil, a, nil)), "Sec-WebSocket-Extensions: ")
	value, _, _ = strings.Cut(value, "\r\n")
	return value
}

// Unimplemented ends the case: it needs what the peer may leave out and leaves out.
func (s *Session) Unimplemented(format string, args ...any) {
	s.note(Unimplemented, format, args...)
	panic(stop{})
}

// deflates ends the case if the server declines a plain offer, on a connection of its own.
func (s *Session) deflates() {
	if s.OpenOffer("permessage-deflate"); !s.pact.on {
		s.Unimplemented("the peer does not negotiate permessage-deflate")
	}
	s.Finish()
}

// say sends the message that d stands before the end of, compressed, in one frame.
func (s *Session) say(op byte, d *stream) (text []byte) {
	s.needsWindow(d.far)
	wire, text := d.message()
	s.Send(s.Frame(fin|rsv1|op, wire))
	if s.pact.ourNoContext {
		d.forget()
	}
	return text
}

// needsWindow ends the case if we may not reach back so many bytes.
func (s *Session) needsWindow(distance int) {
	if distance > 1<<s.pact.ourBits {
		s.Unimplemented("the peer limits our window to %d bits", s.pact.ourBits)
	}
}

// echoed is say, and the text must come back.
func (s *Session) echoed(op byte, d *stream) {
	s.ExpectMessage(ws.OpCode(op), s.say(op, d))
}

// inflate holds a compressed message of the peer to what was agreed, and its text to payload. want says what it is.
func (s *Session) inflate(want string, wire, payload []byte) {
	p := &s.pact
	window := p.seen
	if p.peerNoContext {
		window = nil
	}
	if len(wire) == 0 && len(payload) == 0 {
		s.NonStrict("an empty message came compressed and without a byte (RFC 7692 §7.2.3.6 has one)")
		return
	}
	at, err := p.matches(wire, window, p.peerBits, payload)
	if err != nil {
		s.Fail("%s came back compressed and cannot be read: %s", want, p.why(wire, payload))
	}
	if at >= 0 {
		s.Fail("%s came back compressed and changed from byte %d on", want, at)
	}
	p.seen = append(p.seen, payload[max(0, len(payload)-1<<15):]...)
	p.seen = p.seen[max(0, len(p.seen)-1<<15):]
}

// matches inflates wire behind window, of which 1<<bits bytes can be reached, and returns where its text differs from
// payload, -1 if it does not.
func (p *pact) matches(wire, window []byte, bits uint8, payload []byte) (at int, err error) {
	if p.z == nil {
		p.z = frame.NewInflater()
	}
	p.z.Resume(&frame.Inflation{Window: window}, bits)
	for n, more := 0, true; more; {
		var out []byte
		out, n, more, err = p.z.Next(wire, true)
		wire = wire[n:]
		if i := differ(out, payload[at:]); i >= 0 {
			return at + i, nil
		}
		if at += len(out); err != nil {
			return at, err
		}
	}
	if at == len(payload) {
		at = -1
	}
	return at, nil
}

// why says what is wrong with a message that cannot be read as it was agreed.
func (p *pact) why(wire, payload []byte) string {
	reads := func(wire, window []byte, bits uint8) bool {
		at, err := p.matches(wire, window, bits, payload)
		return err == nil && at < 0
	}
	switch {
	case p.peerNoContext && reads(wire, p.seen, p.peerBits):
		return "it refers to the message before, though it was agreed that each begins anew (RFC 7692 §7.1.1)"
	case reads(wire, p.seen, 15):
		return "it reaches back farther than the window that was agreed (RFC 7692 §7.1.2)"
	case reads(wire, nil, 15):
		return "it is compressed for a window that is not the one of this connection"
	case bytes.HasSuffix(wire, []byte("\x00\x00\xff\xff")) && reads(wire[:len(wire)-4], p.seen, 15):
		return "00 00 ff ff was not left away from its end (RFC 7692 §7.2.1)"
	}
	return "it is no DEFLATE (RFC 1951)"
}

// expectFailUnless is ExpectFail for a fault that the RFC forbids to make and does not say how to answer: a peer that
// takes the message as text, or as whatever if text is nil, tolerates it.
func (s *Session) expectFailUnless(op byte, text []byte, tolerates string, codes ...int) {
	if !s.comesWhole() {
		s.ExpectFail(codes...)
		return
	}
	if text == nil {
		s.NextMessage()
	} else {
		s.ExpectMessage(ws.OpCode(op), text)
	}
	s.NonStrict("%s", tolerates)
	s.Finish()
}

// comesWhole waits for a whole message, which is then there for ExpectMessage. False: something else came before its end.
func (s *Session) comesWhole() bool {
	var pieces []frame.Piece
	for {
		p, a := s.awaited(s.opts.Timeout)
		switch {
		case a != arrived || p.Op == ws.OpClose:
			return false
		case p.Op == ws.OpPong:
			s.pongs = append(s.pongs, p.Data)
		default:
			if pieces = append(pieces, p); p.Last {
				s.aside = append(pieces, s.aside...)
				return true
			}
		}
	}
}

// deflateCase is a case of RFC 7692 that opens as w wants it, does steps, and closes.
func deflateCase(id, sentence string, w wish, steps func(*Session)) Case {
	return Case{ID: "rfc7692-" + id, Sentence: sentence, Run: func(s *Session) {
		s.OpenDeflate(w)
		steps(s)
		s.Finish()
	}}
}

// deflateFault is a case in which bytes must make the peer fail the connection, with one of the codes.
func deflateFault(id, what string, b func(*Session) []byte, codes ...int) Case {
	return Case{
		ID: "rfc7692-" + id, Sentence: what + " The peer must fail the connection, with a Close " + orList(codes) + ".",
		Run: func(s *Session) {
			s.OpenDeflate(wish{})
			s.Send(b(s))
			s.ExpectFail(codes...)
		},
	}
}
