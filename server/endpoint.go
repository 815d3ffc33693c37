package server

import (
	"wspoll/frame"
	"wspoll/handshake"

	"github.com/gobwas/ws"
)

// Endpoint is what happens on the WebSocket connections of one path. Its
// functions run on the loop of the connection, one at a time per loop, and
// must not block: whoever waits in one holds up every connection of that loop.
// An endpoint is one value for all its connections and loops, so what its
// functions share needs locks; what belongs to a connection goes into
// Conn.SetValue.
//
// At most one of Message, Piece and Blocking is set. With none of them data
// that arrives is checked and dropped.
type Endpoint struct {
	// About is a few words for people, for the list of endpoints.
	About string

	// Open is called when the 101 is on its way. c.Request is there only now.
	Open func(c Conn)

	// Message gets whole messages. payload is valid, and may be written to,
	// until Message returns. A message that comes in fragments is held in
	// memory until its end.
	Message func(c Conn, op ws.OpCode, payload []byte)

	// Piece gets a message as its bytes arrive, so that its size costs no
	// memory. p and p.Data are valid, and p.Data may be written to, until
	// Piece returns. A compressed message comes inflated; the Header is then
	// that of the frame on the wire.
	Piece func(c Conn, p *frame.Piece)

	// Blocking gets whole messages on a goroutine that exists only while
	// messages of this connection wait: one message at a time, in order. It
	// may take its time; when much waits the loop stops reading from the
	// connection. payload belongs to it. It may run after Close.
	Blocking func(r Ref, op ws.OpCode, payload []byte)

	// Close is called once for each Open, when the connection has ended. c
	// can send nothing any more; its Value is still there.
	Close func(c Conn, why Reason)

	// Uncompressed may say of a handshake that compression is not agreed on,
	// whatever the client offers. nil: what Config.Handshake says.
	Uncompressed func(r *handshake.Request) bool

	tail   string                                        // of the path as people read it, behind a path that ends in "/"
	plain  bool                                          // plain HTTP requests for the path are for net/http, not refused
	accept func(r *handshake.Request) *handshake.Refusal // may refuse a handshake
	beat   *beat                                         // sent to each connection in its own phase
}

// Echo sends every message back as it arrives, piece by piece: a message of
// any size costs no memory. A piece that is not a whole frame leaves as a
// fragment of its own, so a frame that was begun is never waited for. What came
// compressed goes back compressed, unless it is a small message that would not
// become shorter, and what came as it is goes back as it is.
func Echo() *Endpoint {
	return &Endpoint{
		About: "echoes text and binary messages",
		Piece: func(c Conn, p *frame.Piece) {
			if len(p.Data) > 0 || p.First || p.Last { // an empty piece in the middle says nothing
				how := packNever
				if p.Compressed {
					how = packAlways
				}
				c.sendPiece(p.Op, p.First, p.Last, p.Data, how)
			}
		},
	}
}
