package server

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	"wspoll/frame"
	"wspoll/handshake"

	"github.com/gobwas/ws"
)

// FuzzCompressedBytes sends a message that says of itself that it is compressed,
// corrupt mostly, in two fragments, and another one, over a connection that has
// agreed on compression, whole and cut in chunks: the server goes on, what comes
// is frames that a server may send, and the cuts make no difference.
func FuzzCompressedBytes(f *testing.F) {
	z := frame.NewDeflater()
	for _, s := range []string{"", "Hello", "gr\u00fc\u00dfe", "bad \xff", strings.Repeat("again and ", 3000), string(make([]byte, 40_000))} {
		f.Add(z.Append(nil, nil, 15, []byte(s), true), uint16(len(s)/2), uint8(5), true)
		f.Add(z.Append(nil, nil, 9, []byte(s), false), uint16(3), uint8(100), false)
	}
	for _, b := range [][]byte{{7}, {0, 1}, {0, 9, 0, 0xf6, 0xff, 'H'}, {0x02, 0x13, 0, 0}, {0xf3, 0x48, 0xcd, 0xc9, 0xc9, 7, 0, 0}, nil} {
		f.Add(b, uint16(1), uint8(0), true)
	}
	modes := []Compression{CompressShared, CompressContext}
	var servers [2]*testServer
	for i, mode := range modes {
		servers[i] = serve(f, Config{Compress: mode, MaxMessage: 20_000}, compressingEndpoints)
	}
	offer := string(handshake.AppendDeflateOffers(nil, handshake.DeflateOffer{ClientBits: 15}))
	f.Fuzz(func(t *testing.T, packed []byte, cut uint16, chunk uint8, text bool) {
		if len(packed) > 50_000 {
			return
		}
		op := ws.OpBinary
		if text {
			op = ws.OpText
		}
		at := int(cut) % (len(packed) + 1)
		b := append(rsv1(true, false, op, packed[:at]), masked(true, ws.OpPing, []byte("between"))...)
		b = append(b, rsv1(false, true, op, packed[at:])...)
		b = append(b, rsv1(true, true, ws.OpText, z.Append(nil, nil, 8, []byte("and another one"), true))...)
		b = append(b, masked(true, ws.OpBinary, []byte("as it is"))...)
		for i, s := range servers {
			for _, path := range []string{"/echo", "/message"} {
				in := append([]byte(request(path, "Sec-WebSocket-Extensions: "+offer)), b...)
				whole := normalizeCompressed(t, modes[i], s.exchange(t, in, 60_000))
				parts := normalizeCompressed(t, modes[i], s.exchange(t, in, max(int(chunk)+1, len(in)/200)))
				if whole != parts {
					t.Fatalf("%s, mode %d: the cuts make a difference:\n%.1000q\nwhole, and cut:\n%.1000q", path, i, whole, parts)
				}
			}
			if n := s.Stats().Buffered; n < 0 {
				t.Fatalf("%d bytes of the budget are used", n)
			}
		}
	})
}

// normalizeCompressed is what came, inflated: whole messages, and the Close.
// Messages that are not over, when the Close comes, depend on the cuts.
func normalizeCompressed(t *testing.T, mode Compression, out []byte) string {
	t.Helper()
	head, rest, ok := bytes.Cut(out, []byte("\r\n\r\n"))
	if !ok || !bytes.HasPrefix(head, []byte("HTTP/1.1 101 ")) || !bytes.Contains(head, []byte("permessage-deflate")) {
		t.Fatalf("the answer: %q", out)
	}
	bits := uint8(15)
	if mode == CompressContext {
		bits = contextBits
	}
	var got strings.Builder
	var p frame.Piece
	var parser frame.Parser
	var in frame.Inflation
	var message []byte
	z := frame.NewInflater()
	for len(rest) > 0 {
		n, err := parser.Next(&compressedRules, rest, &p)
		if err != nil || n == 0 {
			t.Fatalf("what came is no frame of a server, error %v: %q", err, rest)
		}
		rest = rest[n:]
		switch {
		case p.Op.IsControl():
			fmt.Fprintf(&got, "control %#x %q\n", p.Op, p.Data)
			continue
		case !p.Compressed:
			message = append(message, p.Data...)
		default:
			if z.Resume(&in, bits); p.First && mode == CompressShared {
				z.Resume(nil, bits)
			}
			for more := true; more; {
				var part []byte
				var k int
				if part, k, more, err = z.Next(p.Data, p.Last); err != nil {
					t.Fatalf("what came cannot be inflated: %v", err)
				}
				message, p.Data = append(message, part...), p.Data[k:]
			}
			z.Suspend(&in)
		}
		if p.Last {
			got.WriteString("message " + string(message) + "\n")
			message = nil
		}
	}
	return got.String()
}
