package frame

import "github.com/gobwas/ws"

// State is what an endpoint, server or client, must know of a connection between
// two messages: how far the closing handshake of §7 is, and the extension in use
// (§9.1). It has no pointers and 6 bytes. The zero value is a connection just opened.
//
// Within a message there is a Parser too, see Next.
type State struct {
	code  ws.StatusCode // of the peer's Close
	close uint8         // closeSent, closeReceived

	// Deflate is what was agreed on compression; the State itself only keeps it.
	Deflate Terms
}

const (
	closeSent = 1 << iota
	closeReceived
)

// Conn is the protocol of one endpoint, server or client: a Parser, the answers
// that §5.5 asks for, and the closing handshake of §7. It has no pointers. The
// zero value is a connection just opened.
//
// A Conn belongs to the goroutine that reads the connection; whoever else
// wants to send a Close asks that goroutine.
type Conn struct {
	Parser
	State
}

// Next is State.Next with the Conn's own Parser.
func (c *Conn) Next(r *Rules, in, out []byte, piece *Piece) (n int, out2 []byte, err error) {
	return c.State.Next(&c.Parser, r, in, out, piece)
}

// Next is p.Next, and does what an endpoint owes to what it found. The
// frames it owes are appended to out, whole ones only, and masked when we are
// the client; the caller sends them.
//
// p is the connection's Parser. Between two messages that is a zero value, so
// who has very many connections need not keep one for each; until a message
// that has begun ends, it must be the same one.
//
//   - A ping is answered by a pong of the same payload (§5.5.2), unless a
//     Close was sent before.
//   - A Close is validated and answered by one with the same code and no
//     reason, without a payload if it had none (§5.5.1), unless one was sent
//     before. Every byte behind it is ignored: such a call consumes all of
//     in, and piece.Op is 0.
//   - A violation is answered by a Close with the error's code and message
//     (§7.1.7), unless one was sent before. The caller then sends out and
//     closes the TCP connection.
//
// Pings, pongs and the Close are still delivered in piece, for the caller to
// look at. After our own Close, data still arrives until the peer's: it is
// delivered too, and the caller discards it.
//
// Calls that consume n bytes make out grow by at most n+127 bytes for a server,
// 3*n+131 for a client.
func (s *State) Next(p *Parser, r *Rules, in, out []byte, piece *Piece) (n int, out2 []byte, err error) {
	if s.close&closeReceived != 0 {
		*piece = Piece{}
		return len(in), out, nil
	}
	n, err = p.Next(r, in, piece)
	if err == nil && (n == 0 || piece.Op&bitControl == 0) {
		return n, out, nil
	}
	return s.react(p, r, n, out, piece, err)
}

// react does what a control frame or an error asks for.
func (s *State) react(p *Parser, r *Rules, n int, out []byte, piece *Piece, err error) (int, []byte, error) {
	if err == nil && piece.Op == ws.OpClose {
		s.code, _, err = ParseClose(piece.Data)
		if err != nil {
			s.code = 0
			n, err = p.fail(err.(*Error))
		}
	}
	switch {
	// §7.1.7: "the endpoint SHOULD send a Close frame with an appropriate
	// status code before proceeding to _Close the WebSocket Connection_".
	case err != nil:
		e := err.(*Error)
		return n, s.AppendClose(r, out, e.Code, e.Msg), err

	// §5.5.1: an endpoint that "did not previously send a Close frame […]
	// MUST send a Close frame in response".
	case piece.Op == ws.OpClose:
		s.close |= closeReceived
		return n, s.AppendClose(r, out, s.code, ""), nil

	// §5.5.2: "an endpoint MUST send a Pong frame in response, unless it
	// already received a Close frame"; §5.5.3: with "identical" data. After
	// a Close of our own the pong could only come behind it, where the peer
	// no longer looks.
	case piece.Op == ws.OpPing && s.close&closeSent == 0:
		if r.Client {
			return n, AppendMasked(out, true, ws.OpPong, r.mask(), piece.Data), nil
		}
		return n, AppendFrame(out, true, ws.OpPong, piece.Data), nil
	}
	return n, out, nil
}

// AppendClose appends a Close frame to out and so starts the closing handshake
// (§7.1.2). A second call appends nothing: an endpoint sends one Close. For
// code and reason see the function AppendClose.
func (s *State) AppendClose(r *Rules, out []byte, code ws.StatusCode, reason string) []byte {
	if s.close&closeSent != 0 {
		return out
	}
	s.close |= closeSent
	if r.Client {
		return AppendMaskedClose(out, r.mask(), code, reason)
	}
	return AppendClose(out, code, reason)
}

// CloseSent reports whether a Close was appended to any out. No data frame
// may follow it (§5.5.1).
func (s *State) CloseSent() bool { return s.close&closeSent != 0 }

// CloseReceived reports whether the peer's Close has come. When CloseSent is
// true as well, the closing handshake is over: the server closes the TCP
// connection, the client waits for that (§7.1.1).
func (s *State) CloseReceived() bool { return s.close&closeReceived != 0 }

// PeerCode returns the code of the Close that was received, 1005 if it had
// none, and 0 if no valid Close was received.
func (s *State) PeerCode() ws.StatusCode { return s.code }

// mask makes the key for one frame that we send as a client.
func (r *Rules) mask() [4]byte {
	if r.Mask == nil {
		panic(MisuseNoMask)
	}
	return r.Mask()
}
