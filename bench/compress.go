package bench

import (
	"errors"
	"fmt"
	mrand "math/rand/v2"

	"wspoll/epoll"
	"wspoll/frame"
	"wspoll/handshake"

	"github.com/gobwas/ws"
)

// permessage-deflate (RFC 7692) of a load. What is large there is once for all
// connections; what one keeps is in maps, and only where the server agreed to
// take contexts over, or while a compressed message is coming.

// Compressed is what compression did. Plain is the payload of the messages, wire
// the frames that they went in, headers included; both count all that passed,
// also what belongs to no whole reply.
type Compressed struct {
	Agreed    string `json:"agreed"` // Sec-WebSocket-Extensions of the first answer
	SentPlain uint64 `json:"sent_plain_bytes"`
	SentWire  uint64 `json:"sent_wire_bytes"`
	BackPlain uint64 `json:"back_plain_bytes"`
	BackWire  uint64 `json:"back_wire_bytes"`
}

// squeeze is what a client has for compression; nil without Config.Compress.
type squeeze struct {
	count    Compressed
	deflater *frame.Deflater
	inflater *frame.Inflater
	out      map[epoll.Slot]*frame.Deflation
	in       map[epoll.Slot]*inflation
	plain    []byte
	packed   []byte
	frame    []byte
}

type inflation struct {
	frame.Inflation
	begun bool // a piece of the message was looked at
}

func newSqueeze() *squeeze {
	return &squeeze{
		deflater: frame.NewDeflater(), inflater: frame.NewInflater(),
		out: map[epoll.Slot]*frame.Deflation{}, in: map[epoll.Slot]*inflation{},
	}
}

// deflateOffer is what a load offers: whatever the server likes is agreed to.
var deflateOffer = string(handshake.AppendDeflateOffers(nil, handshake.DeflateOffer{ClientBits: 15}))

// errNotAgreed ends a connection on which nothing would be compressed.
var errNotAgreed = errors.New("the server did not agree to permessage-deflate")

// agree takes what the answer says.
func (c *Client) agree(k *conn) error {
	d := &c.resp.Deflate
	if !d.On {
		return errNotAgreed
	}
	k.terms = frame.NewTerms(d.ClientBits, d.ServerBits, d.ClientNoContext, d.ServerNoContext)
	if c.squeeze.count.Agreed == "" {
		c.squeeze.count.Agreed = string(c.resp.Extensions)
	}
	return nil
}

// pack makes the frame of a whole message, compressed unless that is longer.
func (c *Client) pack(s epoll.Slot, k *conn, mask [4]byte, payload []byte) []byte {
	q := c.squeeze
	out := q.out[s]
	q.packed = q.deflater.Append(q.packed[:0], out, k.terms.OutBits(), payload, true)
	h := ws.Header{Fin: true, Rsv: ws.Rsv(true, false, false), OpCode: ws.OpBinary, Masked: true, Mask: mask}
	if c.cfg.Text {
		h.OpCode = ws.OpText
	}
	body := q.packed
	if len(body) >= len(payload) {
		h.Rsv, body = 0, payload
	} else if !k.terms.FreshOut() {
		if out == nil {
			out = new(frame.Deflation)
			q.out[s] = out
		}
		out.Keep(payload, k.terms.OutBits())
	}
	h.Length = int64(len(body))
	q.frame = append(frame.AppendHeader(q.frame[:0], h), body...)
	ws.Cipher(q.frame[len(q.frame)-len(body):], mask, 0)
	q.count.SentPlain += uint64(len(payload))
	q.count.SentWire += uint64(len(q.frame))
	return q.frame
}

// numbered is the payload of t with that number, valid until the next call.
func (q *squeeze) numbered(t *template, seq uint32) []byte {
	if !t.seq {
		return t.payload
	}
	q.plain = append(q.plain[:0], t.payload...)
	putSeq(q.plain, seq)
	return q.plain
}

// unpack inflates a piece of a compressed message and gives what comes out to
// yield, which reports whether to go on.
func (c *Client) unpack(s epoll.Slot, k *conn, p *frame.Piece, yield func(*frame.Piece) bool) error {
	q := c.squeeze
	in := q.in[s]
	begun := false
	if in != nil {
		q.inflater.Resume(&in.Inflation, k.terms.InBits())
		begun = in.begun
	} else {
		q.inflater.Resume(nil, k.terms.InBits())
	}
	part := *p
	for rest, more := p.Data, true; more; {
		var n int
		var err error
		part.Data, n, more, err = q.inflater.Next(rest, p.Last)
		if err != nil {
			return err
		}
		rest = rest[n:]
		part.First, part.Last = !begun, p.Last && !more
		if len(part.Data) == 0 && !part.Last {
			continue
		}
		begun = true
		q.count.BackPlain += uint64(len(part.Data))
		if part.Last { // yield may send the next message, but it inflates nothing
			begun = false
		}
		if !yield(&part) {
			return nil
		}
	}
	if p.Last && k.terms.FreshIn() {
		if in != nil {
			delete(q.in, s)
		}
		return nil
	}
	if in == nil {
		in = new(inflation)
		q.in[s] = in
	}
	q.inflater.Suspend(&in.Inflation)
	in.begun = begun
	return nil
}

// forget drops what is kept of a connection.
func (q *squeeze) forget(s epoll.Slot) {
	delete(q.in, s)
	delete(q.out, s)
}

// records fills b with text as applications send it, JSON, since the alphabet
// over and over would be compressed to nothing.
func records(b []byte, random *mrand.Rand) {
	var text []byte
	for len(text) < len(b) {
		text = fmt.Appendf(text, `{"id":%d,"user":"user-%d","price":%.2f,"side":"%s","time":"2026-11-%02dT%02d:%02d:%02dZ"},`,
			random.IntN(1e6), random.IntN(500), 100*random.Float64(), []string{"buy", "sell"}[random.IntN(2)],
			1+random.IntN(30), random.IntN(24), random.IntN(60), random.IntN(60))
	}
	copy(b, text)
}
