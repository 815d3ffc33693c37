package frame

import (
	"fmt"
	"strings"
	"testing"

	"github.com/gobwas/ws"
)

// benchNext parses masked frames of size bytes that lie one behind the other,
// as after a read. What a round unmasks, the next one masks again, so every
// second round sees text that is not ASCII: text only with a zero key.
func benchNext(b *testing.B, op ws.OpCode, mask [4]byte, payload []byte) {
	const frames = 16
	var in []byte
	for range frames {
		in = AppendMasked(in, true, op, mask, payload)
	}
	rules := &Rules{MaxMessage: 1 << 20}
	var p Parser
	var piece Piece
	b.SetBytes(int64(len(payload)))
	b.ResetTimer()
	rest := in
	for range b.N {
		n, err := p.Next(rules, rest, &piece)
		if n == 0 || err != nil || !piece.Last {
			b.Fatal(n, err)
		}
		if rest = rest[n:]; len(rest) == 0 {
			rest = in
		}
	}
}

var benchMask = [4]byte{0x37, 0xfa, 0x21, 0x3d}

func BenchmarkNext32(b *testing.B)  { benchNext(b, ws.OpBinary, benchMask, make([]byte, 32)) }
func BenchmarkNext1K(b *testing.B)  { benchNext(b, ws.OpBinary, benchMask, make([]byte, 1<<10)) }
func BenchmarkNext16K(b *testing.B) { benchNext(b, ws.OpBinary, benchMask, make([]byte, 16<<10)) }

func BenchmarkNext32Text(b *testing.B) {
	benchNext(b, ws.OpText, [4]byte{}, []byte(strings.Repeat("a", 32)))
}

func BenchmarkNext1KText(b *testing.B) {
	benchNext(b, ws.OpText, [4]byte{}, []byte(strings.Repeat("a", 1<<10)))
}

func BenchmarkConnNext32(b *testing.B) {
	in := AppendMasked(nil, true, ws.OpBinary, benchMask, make([]byte, 32))
	rules := &Rules{MaxMessage: 1 << 20}
	var c Conn
	var piece Piece
	for range b.N {
		n, _, err := c.Next(rules, in, nil, &piece)
		if n == 0 || err != nil {
			b.Fatal(n, err)
		}
	}
}

func BenchmarkUTF8(b *testing.B) {
	for _, t := range []struct{ name, text string }{
		{"ascii", strings.Repeat("The quick brown fox. ", 200)},
		{"greek", strings.Repeat("Ξεσκεπάζω την ψυχοφθόρα βδελυγμία. ", 100)},
		{"chinese", strings.Repeat("天地玄黃宇宙洪荒", 200)},
		{"emoji", strings.Repeat("😀🙃😇", 300)},
	} {
		text := []byte(t.text)
		b.Run(t.name, func(b *testing.B) {
			b.SetBytes(int64(len(text)))
			for range b.N {
				var s UTF8
				if _, ok := s.Write(text); !ok {
					b.Fatal("refused")
				}
			}
		})
	}
}

func BenchmarkUnmask(b *testing.B) {
	for _, size := range []int{4, 8, 16, 32, 64, 100, 127} {
		p := make([]byte, size)
		b.Run(fmt.Sprint("ours/", size), func(b *testing.B) {
			b.SetBytes(int64(size))
			for range b.N {
				unmask(p, keyOf(benchMask[:]), 0)
			}
		})
		b.Run(fmt.Sprint("gobwas/", size), func(b *testing.B) {
			b.SetBytes(int64(size))
			for range b.N {
				ws.Cipher(p, benchMask, 0)
			}
		})
	}
}

func BenchmarkAppendFrame32(b *testing.B) {
	payload, out := make([]byte, 32), make([]byte, 0, 64)
	for range b.N {
		out = AppendFrame(out[:0], true, ws.OpBinary, payload)
	}
}

func BenchmarkAppendMasked32(b *testing.B) {
	payload, out := make([]byte, 32), make([]byte, 0, 64)
	for range b.N {
		out = AppendMasked(out[:0], true, ws.OpBinary, benchMask, payload)
	}
}
