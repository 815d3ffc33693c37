package frame

import (
	"fmt"
	"testing"
)

// What compressing costs and brings, by size of the message and of the window
// that is referred to.
func BenchmarkDeflate(b *testing.B) {
	z := NewDeflater()
	var out []byte
	for _, c := range []struct {
		size   int
		window uint8 // 0: nothing is referred to
	}{
		{64, 0},
		{128, 0},
		{256, 0},
		{512, 0},
		{1024, 0},
		{16384, 0},
		{64, 12},
		{128, 12},
		{256, 12},
		{1024, 8},
		{1024, 10},
		{1024, 11},
		{1024, 12},
		{1024, 13},
		{1024, 15},
	} {
		name := "alone"
		var s *Deflation
		bits := uint8(15)
		if c.window > 0 {
			name, bits, s = fmt.Sprintf("window %d", c.window), c.window, new(Deflation)
			s.Keep(sampleText[:1<<c.window], c.window)
		}
		b.Run(fmt.Sprintf("%d bytes, %s", c.size, name), func(b *testing.B) {
			b.SetBytes(int64(c.size))
			at, total, n := 1<<16, 0, 0
			for b.Loop() {
				out = z.Append(out[:0], s, bits, sampleText[at:at+c.size], true)
				at = 1<<16 + (at+c.size)%(1<<19)
				total, n = total+len(out), n+1
			}
			b.ReportMetric(100*float64(total)/float64(n*c.size), "%")
		})
	}
}
