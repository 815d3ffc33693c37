package server

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"testing"

	"wspoll/frame"
	"wspoll/handshake"

	"github.com/gobwas/ws"
)

// compressor is a client that has agreed on compression: what it sends can be
// deflated, and what comes is inflated.
type compressor struct {
	*client
	terms    frame.Terms
	z        *frame.Deflater
	judge    *frame.Inflater
	out      frame.Deflation
	in       frame.Inflation
	agreed   handshake.Deflate
	deflated bool // the last message that came was
	frames   int  // in how many frames
	wire     int  // and payload bytes on the wire
}

// openCompressed is a connection of a client that makes these offers.
func (s *testServer) openCompressed(t testing.TB, path string, offers ...handshake.DeflateOffer) *compressor {
	t.Helper()
	h := hello(path)
	h.Extensions = string(handshake.AppendDeflateOffers(nil, append(offers, handshake.DeflateOffer{ClientBits: 15})...))
	c := &client{t: t, conn: s.dial(t)}
	c.write(handshake.AppendRequest(nil, h))
	d := c.accepted(h)
	if !d.On {
		t.Fatal("compression was not agreed on")
	}
	return &compressor{
		client: c, agreed: d, z: frame.NewDeflater(), judge: frame.NewInflater(),
		terms: frame.NewTerms(d.ClientBits, d.ServerBits, d.ClientNoContext, d.ServerNoContext),
	}
}

// deflate is a message as the client compresses it, its frames masked, cut into
// so many fragments.
func (c *compressor) deflate(op ws.OpCode, msg []byte, fragments int) (b []byte) {
	if c.terms.FreshOut() {
		c.out.Window = c.out.Window[:0]
	}
	for i := range fragments {
		part := msg[len(msg)*i/fragments : len(msg)*(i+1)/fragments]
		packed := c.z.Append(nil, &c.out, c.terms.OutBits(), part, i == fragments-1)
		c.out.Keep(part, c.terms.OutBits())
		b = append(b, rsv1(i == 0, i == fragments-1, op, packed)...)
	}
	return b
}

// rsv1 is a frame of a compressed message.
func rsv1(first, last bool, op ws.OpCode, packed []byte) []byte {
	if !first {
		return masked(last, ws.OpContinuation, packed)
	}
	b := masked(last, op, packed)
	b[0] |= 0x40
	return b
}

var compressedRules = frame.Rules{Client: true, RSV1: true}

// inflate reads one message.
func (c *compressor) inflate() (op ws.OpCode, msg []byte) {
	c.t.Helper()
	var p frame.Piece
	c.frames, c.wire = 0, 0
	if c.judge.Resume(&c.in, c.terms.InBits()); c.terms.FreshIn() {
		c.judge.Resume(nil, c.terms.InBits())
	}
	for {
		n, err := c.parser.Next(&compressedRules, c.client.in, &p)
		if err != nil {
			c.t.Fatalf("what came is no frame of a server: %v", err)
		}
		if n == 0 {
			if err := c.fill(); err != nil {
				c.t.Fatalf("%d bytes of a message came, then %v", len(msg), err)
			}
			continue
		}
		c.client.in = c.client.in[n:]
		if p.Op.IsControl() {
			c.t.Fatalf("opcode %#x with %q came, and not a message", p.Op, p.Data)
		}
		if p.Start {
			c.frames++
		}
		c.wire += len(p.Data)
		if c.deflated = p.Compressed; !p.Compressed {
			msg = append(msg, p.Data...)
		}
		for more := p.Compressed; more; {
			var out []byte
			var k int
			if out, k, more, err = c.judge.Next(p.Data, p.Last); err != nil {
				c.t.Fatalf("the message cannot be inflated after %d bytes: %v", len(msg), err)
			}
			msg, p.Data = append(msg, out...), p.Data[k:]
		}
		if p.Last {
			if p.Compressed {
				c.judge.Suspend(&c.in)
			}
			return p.Op, msg
		}
	}
}

func (c *compressor) wantMessage(op ws.OpCode, msg []byte) {
	c.t.Helper()
	if gotOp, got := c.inflate(); gotOp != op || !bytes.Equal(got, msg) {
		c.t.Fatalf("opcode %#x and %d bytes came for %#x and %d bytes", gotOp, len(got), op, len(msg))
	}
}

// jsonText is text of n bytes that compresses as such things do.
func jsonText(n int) []byte {
	r := rand.New(rand.NewPCG(5, 6))
	var b []byte
	for len(b) < n {
		b = fmt.Appendf(b, `{"id":%d,"user":"user-%d","price":%.2f,"side":"%s"},`,
			r.IntN(1e6), r.IntN(500), 100*r.Float64(), []string{"buy", "sell"}[r.IntN(2)])
	}
	return b[:n]
}

func noise(n int) []byte {
	r := rand.New(rand.NewPCG(7, 8))
	b := make([]byte, n)
	for i := range b {
		b[i] = byte(r.Uint32())
	}
	return b
}

// compressedFrame reads one frame as it is on the wire.
func (c *compressor) compressedFrame() (f received) {
	c.t.Helper()
	var p frame.Piece
	for {
		n, err := c.parser.Next(&compressedRules, c.client.in, &p)
		if err != nil {
			c.t.Fatal(err)
		}
		if n == 0 {
			if err := c.fill(); err != nil {
				c.t.Fatal(err)
			}
			continue
		}
		c.client.in = c.client.in[n:]
		f.payload = append(f.payload, p.Data...)
		if p.End {
			f.fin, f.op = p.Header.Fin, p.Header.OpCode
			return f
		}
	}
}
