package frame

import (
	"bytes"
	"compress/flate"
	"fmt"
	"io"
	"testing"

	kflate "github.com/klauspost/compress/flate"
)

// inflateCases are messages, each a stream of its own (no context takeover).
var inflateCases = []struct {
	name  string
	size  int
	level int
}{
	{"JSON100", 100, 1},
	{"JSON1K", 1 << 10, 1},
	{"JSON1K", 1 << 10, 6},
	{"JSON16K", 16 << 10, 6},
	{"JSON1M", 1 << 20, 6},
}

func BenchmarkInflate(b *testing.B) {
	for _, c := range inflateCases {
		in := deflated(b, c.level, sampleText[:c.size])
		whole := append(bytes.Clone(in), "\x00\x00\xff\xff\x01\x00\x00\xff\xff"...)
		var out [maxWindow]byte
		name := fmt.Sprintf("%sL%d/", c.name, c.level)
		b.Run(name+"Inflater", func(b *testing.B) {
			z := NewInflater()
			b.SetBytes(int64(c.size))
			b.ReportAllocs()
			for b.Loop() {
				z.Resume(nil, 15)
				for rest, more := in, true; more; {
					var n int
					var err error
					if _, n, more, err = z.Next(rest, true); err != nil {
						b.Fatal(err)
					}
					rest = rest[n:]
				}
			}
		})
		for _, lib := range []struct {
			name string
			r    io.Reader
		}{
			{"klauspost", kflate.NewReader(nil)},
			{"std", flate.NewReader(bytes.NewReader(nil))},
		} {
			b.Run(name+lib.name, func(b *testing.B) {
				src := bytes.NewReader(nil)
				b.SetBytes(int64(c.size))
				b.ReportAllocs()
				for b.Loop() {
					src.Reset(whole)
					if err := lib.r.(flate.Resetter).Reset(src, nil); err != nil {
						b.Fatal(err)
					}
					for {
						if _, err := lib.r.Read(out[:]); err == io.EOF {
							break
						} else if err != nil {
							b.Fatal(err)
						}
					}
				}
			})
		}
	}
}

// What it costs to keep a full window for the next message.
func BenchmarkInflateTakeover(b *testing.B) {
	z, s := NewInflater(), Inflation{Window: bytes.Clone(sampleText[:maxWindow])}
	in := deflated(b, 6, sampleText[:1<<10])
	b.SetBytes(1 << 10)
	for b.Loop() {
		z.Resume(&s, 15)
		if _, _, _, err := z.Next(in, true); err != nil {
			b.Fatal(err)
		}
		z.Suspend(&s)
	}
}
