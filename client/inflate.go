package client

import (
	"wspoll/frame"
	"wspoll/handshake"

	"github.com/gobwas/ws"
)

// inflation is what permessage-deflate needs for what comes (RFC 7692 §7.2.2).
type inflation struct {
	z     *frame.Inflater
	fresh bool // each message begins with an empty window
	bits  uint8
}

// agree sets up what was negotiated.
func (c *Conn) agree(d handshake.Deflate) {
	if !d.On {
		return
	}
	c.rules.RSV1 = true
	c.z, c.fresh, c.bits = frame.NewInflater(), d.ServerNoContext, d.ServerBits
	c.z.Resume(nil, c.bits)
}

// inflate is join for a compressed message. Its text is checked here, where it shows.
func (c *Conn) inflate(p *frame.Piece) (msg []byte, whole bool, err error) {
	if p.First && c.fresh {
		c.z.Resume(nil, c.bits)
	}
	part := frame.Piece{First: p.First}
	for in, more := p.Data, true; more; part.First = false {
		var n int
		part.Data, n, more, err = c.z.Next(in, p.Last)
		if err != nil {
			return nil, false, err
		}
		in = in[n:]
		if c.size += uint64(len(part.Data)); c.rules.MaxMessage > 0 && c.size > c.rules.MaxMessage {
			return nil, false, frame.ErrTooLarge
		}
		if p.Op == ws.OpText {
			if _, ok := c.text.Write(part.Data); !ok {
				return nil, false, frame.ErrTextUTF8
			}
		}
		part.Last = p.Last && !more
		msg, whole = c.joiner.Add(&part)
	}
	if whole && p.Op == ws.OpText && !c.text.Done() {
		return nil, false, frame.ErrTextTruncated
	}
	return msg, whole, nil
}
