package frame

import (
	"bytes"
	"compress/flate"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"unsafe"

	kflate "github.com/klauspost/compress/flate"
)

// sampleText is JSON as applications send it.
var sampleText = sample(1 << 20)

func sample(size int) []byte {
	r := rand.New(rand.NewPCG(1, 2))
	names := strings.Fields("alpha beta gamma delta epsilon zeta eta theta iota kappa lambda mu")
	var b []byte
	for len(b) < size {
		b = fmt.Appendf(b, `{"id":%d,"user":"%s-%d","price":%.2f,"side":"%s","tags":["%s","%s"],"open":%t,"at":"2024-11-%02dT%02d:%02d:%02dZ","note":"%x"},`,
			r.IntN(1e6), names[r.IntN(len(names))], r.IntN(100), 100*r.Float64(), []string{"buy", "sell"}[r.IntN(2)],
			names[r.IntN(len(names))], names[r.IntN(len(names))], r.IntN(2) == 0,
			1+r.IntN(30), r.IntN(24), r.IntN(60), r.IntN(60), r.Uint32())
	}
	return b[:size]
}

// deflated is a message that compress/flate made.
func deflated(t testing.TB, level int, msg []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	w, err := flate.NewWriter(&b, level)
	if err != nil {
		t.Fatal(err)
	}
	_, _ = w.Write(msg)
	if err := w.Flush(); err != nil {
		t.Fatal(err)
	}
	return bytes.TrimSuffix(b.Bytes(), []byte(syncTail))
}

func TestTheExamplesOfRFC7692AreInflated(t *testing.T) {
	for _, test := range []struct{ name, first, second string }{
		{"one block, §7.2.3.1", "f2 48 cd c9 c9 07 00", ""},
		{"the window shared, §7.2.3.2", "f2 48 cd c9 c9 07 00", "f2 00 11 00 00"},
		{"no compression, §7.2.3.3", "00 05 00 fa ff 48 65 6c 6c 6f 00", ""},
		{"BFINAL, §7.2.3.4", "f3 48 cd c9 c9 07 00 00", ""},
		{"BFINAL, and the window goes on", "f3 48 cd c9 c9 07 00 00", "f2 00 11 00 00"},
		{"two blocks, §7.2.3.5", "f2 48 05 00 00 00 ff ff ca c9 c9 07 00", ""},
		{"the same message again", "f2 48 cd c9 c9 07 00", "f2 48 cd c9 c9 07 00"},
	} {
		for _, z := range [][]*Inflater{{NewInflater()}, {NewInflater(), NewInflater()}} {
			f := inflater{z: z, bits: 8}
			for _, in := range []string{test.first, test.second} {
				if in == "" {
					continue
				}
				out, err := f.message(t, wire(in), true, oneByOne)
				if string(out) != "Hello" || err != nil {
					t.Errorf("%s: %q, %v", test.name, out, err)
				}
			}
		}
	}
	// Two fragments, §7.2.3.1.
	z := NewInflater()
	out, n, more, err := z.Next(wire("f2 48 cd"), false)
	if string(out) != "He" || n != 3 || more || err != nil {
		t.Errorf("first fragment: %q, %d, %v, %v", out, n, more, err)
	}
	out, n, more, err = z.Next(wire("c9 c9 07 00"), true)
	if string(out) != "llo" || n != 4 || more || err != nil {
		t.Errorf("second fragment: %q, %d, %v, %v", out, n, more, err)
	}
}

// behind is what may stand behind a fault or a word of importance: nothing, so
// that the careful loop sees it, or enough for the fast one.
var behind = [][]byte{nil, make([]byte, 3), bytes.Repeat([]byte{0x55}, 40), bytes.Repeat([]byte{0xff}, 40)}

func TestWhatIsOnlyJustRightIsInflated(t *testing.T) {
	for _, test := range goods() {
		t.Run(test.name, func(t *testing.T) {
			for n := range len(test.in) + 1 {
				if _, err := judged(t, nil, test.in, 9, cutAt(n)); err != nil {
					t.Fatal(err)
				}
			}
			for _, more := range behind {
				_, _ = judged(t, nil, slices.Concat(test.in, more), 9, byByte)
			}
		})
	}
}

func TestCorruptDataIsRefused(t *testing.T) {
	for _, test := range corruptions() {
		t.Run(test.name, func(t *testing.T) {
			for n := range len(test.in) + 1 {
				if _, err := judged(t, nil, test.in, 8, cutAt(n)); err == nil {
					t.Fatal("let pass")
				}
			}
			for _, more := range behind {
				_, _ = judged(t, nil, slices.Concat(test.in, more), 8, byByte)
			}
		})
	}
}

// The faults that a decoder can see, it sees at once: a message that never ends
// could otherwise be fed for ever.
func TestCorruptDataIsRefusedBeforeTheEnd(t *testing.T) {
	for _, test := range corruptions() {
		if strings.HasPrefix(test.name, "the end") || strings.HasPrefix(test.name, "BFINAL") || strings.HasPrefix(test.name, "the tail") {
			continue
		}
		z := NewInflater()
		z.Resume(nil, 8)
		if _, _, _, err := z.Next(append(test.in, 0), false); err != error(ErrInflate) {
			t.Errorf("%s: %v", test.name, err)
		}
	}
}

func TestAnErrorStaysUntilTheNextResume(t *testing.T) {
	z, s := NewInflater(), Inflation{}
	for range 3 {
		out, _, more, err := z.Next(wire("f2 48 cd 07 ff ff"), false)
		if err != error(ErrInflate) || more {
			t.Fatalf("%q, more %v, %v", out, more, err)
		}
		z.Suspend(&s)
		z.Resume(&s, 15)
		if out, n, more, err := z.Next(wire("00"), true); len(out) > 0 || n != 0 || more || err != error(ErrInflate) {
			t.Fatalf("then %q, %d, %v, %v", out, n, more, err)
		}
	}
	if len(s.Window) != 0 {
		t.Errorf("%d bytes of window are kept for a stream that is at its end", len(s.Window))
	}
	z.Resume(nil, 15)
	if out, _, _, err := z.Next(wire("f2 48 cd c9 c9 07 00"), true); string(out) != "Hello" || err != nil {
		t.Errorf("after Resume: %q, %v", out, err)
	}
}

func TestEveryTruncationAndEverySplitIsJudgedAlike(t *testing.T) {
	msg := sampleText[:300]
	for _, level := range []int{flate.HuffmanOnly, 0, 1, 6} {
		in := deflated(t, level, msg)
		for n := range in {
			_, err := judged(t, msg[:40], in[:n], 15, byByte)
			if err == nil && n > 0 && level != 0 {
				t.Fatalf("level %d: %d of %d bytes are a message", level, n, len(in))
			}
			if out, err := judged(t, nil, in, 15, cutAt(n)); err != nil || !bytes.Equal(out, msg) {
				t.Fatalf("level %d, split at %d: %q, %v", level, n, out, err)
			}
		}
	}
}

// The output of a symbol is there with the byte that has its last bit.
func TestOutputComesWithTheByteThatCompletesIt(t *testing.T) {
	literals, distances := fixedLens()
	tokens := append(text("to be or not "), token{length: 5, distance: 13}, token{literal: '!'}, token{length: 100, distance: 3})
	z, at := NewInflater(), 0
	w := new(bitWriter).fixed(tokens...)
	in := append(slices.Clone(w.b), 0)
	var out []byte
	complete := func(size int) (n int) { // bytes of output that size bytes of input tell
		for k := len(tokens); k >= 0; k-- {
			w := new(bitWriter).number(1<<1, 3).tokens(literals, distances, tokens[:k]...)
			if w.bits-7 <= 8*size { // without the end of the block
				return len(expand(nil, tokens[:k]...))
			}
		}
		return 0
	}
	for i := range in {
		got, _, _, err := z.Next(in[i:i+1], false)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, got...)
		if at = complete(i + 1); len(out) != at {
			t.Fatalf("after %d bytes %d are out, of %d that are known", i+1, len(out), at)
		}
	}
	if !bytes.Equal(out, expand(nil, tokens...)) {
		t.Errorf("%q", out)
	}
}

func TestAMatchReachesBackAsFarAsTheWindowAndNoFurther(t *testing.T) {
	for bits := uint8(8); bits <= 15; bits++ {
		window := 1 << bits
		old := make([]byte, window+10)
		r := rand.New(rand.NewPCG(3, uint64(bits)))
		for i := range old {
			old[i] = byte(r.Uint32())
		}
		for _, distance := range []int{1, window - 1, window, window + 1, window + 10} {
			if distance > maxWindow {
				continue // there is no word for it
			}
			match := append([]token{{length: 20, distance: distance}}, text(strings.Repeat("z", 60))...)
			want := expand(slices.Clone(old), match...)
			// In one message with what it refers to, near the end of the
			// message and far from it, and in the next one.
			messages := [][][]byte{
				{new(bitWriter).stored(old).fixed(match...).flushed()},
				{new(bitWriter).stored(old).fixed(match[:1]...).flushed(), new(bitWriter).fixed(match[1:]...).flushed()},
				{new(bitWriter).stored(old).flushed(), new(bitWriter).fixed(match...).flushed()},
			}
			for i, m := range messages {
				for _, z := range [][]*Inflater{fuzzed[:1], fuzzed} {
					f := inflater{z: z, bits: bits}
					var out []byte
					var err error
					for _, in := range m {
						var part []byte
						if part, err = f.message(t, in, true, inChunks(1000)); err != nil {
							break
						}
						out = append(out, part...)
					}
					if distance > window {
						if err != error(ErrInflate) {
							t.Errorf("%d bits, distance %d, case %d: %v", bits, distance, i, err)
						}
					} else if err != nil || !bytes.Equal(out, want) {
						t.Errorf("%d bits, distance %d, case %d: %v", bits, distance, i, err)
					}
				}
			}
		}
	}
}

func TestAWindowOfOtherBitsIsMisuse(t *testing.T) {
	for _, bits := range []uint8{0, 7, 16, 255} {
		func() {
			defer func() {
				if e := recover(); e != MisuseWindow {
					t.Errorf("%d bits: %v", bits, e)
				}
			}()
			NewInflater().Resume(nil, bits)
		}()
	}
}

// A window that is larger than the bits say may not be reached into.
func TestResumeTakesOnlyTheEndOfALargeWindow(t *testing.T) {
	z := NewInflater()
	s := Inflation{Window: append(bytes.Repeat([]byte("a"), 100), bytes.Repeat([]byte("b"), 256)...)}
	for distance, ok := range map[int]bool{256: true, 257: false} {
		z.Resume(&s, 8)
		out, _, _, err := z.Next(new(bitWriter).fixed(token{length: 3, distance: distance}).flushed(), true)
		if ok != (err == nil) || ok && string(out) != "bbb" {
			t.Errorf("distance %d: %q, %v", distance, out, err)
		}
	}
}

// randomLens are the lengths of a complete code, deep ones among them.
func randomLens(r *rand.Rand, size, words, deepest int) []int {
	depths := []int{1, 1}
	for len(depths) < words {
		i := r.IntN(len(depths))
		if r.IntN(3) == 0 {
			i = len(depths) - 1 // a long chain
		}
		if depths[i] < deepest {
			depths[i]++
			depths = append(depths, depths[i])
		}
	}
	l := make([]int, size)
	symbols := r.Perm(size)
	if i := slices.Index(symbols, endSymbol); i >= words {
		symbols[r.IntN(words)] = endSymbol
	}
	for i, n := range depths {
		l[symbols[i]] = n
	}
	return l
}

// Random codes and random symbols: every combination of the tables' parts, of
// length and distance, in both loops, over the end of the buffer, cut and
// suspended.
func TestRandomSymbolsInRandomCodesAreInflated(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 6))
	for round := range 150 {
		var (
			w    bitWriter
			want []byte
		)
		for range 1 + r.IntN(6) {
			l, d := fixedLens()
			if r.IntN(8) == 0 {
				w.number(1<<1, 3)
			} else {
				nlit, ndist := 257+r.IntN(30), 2+r.IntN(29)
				l = randomLens(r, nlit, 2+r.IntN(nlit-1), 9+r.IntN(7))
				d = randomLens(r, ndist, 2+r.IntN(ndist-1), 6+r.IntN(10))
				w.dynamic(l, d)
			}
			var litSymbols, distSymbols []int
			for s, n := range l {
				if n > 0 && s != endSymbol && s <= 285 {
					litSymbols = append(litSymbols, s)
				}
			}
			for s, n := range d {
				if n > 0 && s < 30 {
					distSymbols = append(distSymbols, s)
				}
			}
			var tokens []token
			size := len(want)
			for n := r.IntN(3000); n > 0 && len(litSymbols) > 0; n-- {
				s := litSymbols[r.IntN(len(litSymbols))]
				if s < 256 {
					tokens = append(tokens, token{literal: byte(s)})
					size++
					continue
				}
				base, extra := lengthOf(s)
				length := base + r.IntN(1<<extra)
				s = distSymbols[r.IntN(len(distSymbols))]
				base, extra = distanceOf(s)
				distance := base + r.IntN(1<<extra)
				if distance > size || length == 258 && l[min(285, len(l)-1)]*b2i(len(l) > 285) == 0 {
					continue
				}
				tokens = append(tokens, token{length: length, distance: distance})
				size += length
			}
			w.tokens(l, d, tokens...)
			want = expand(want, tokens...)
		}
		in := w.flushed()
		for _, cut := range []func(int) int{whole, inChunks(1 + r.IntN(100)), atRandom(uint64(round))} {
			for _, z := range [][]*Inflater{fuzzed[:1], fuzzed} {
				f := inflater{z: z, bits: 15}
				out, err := f.message(t, in, true, cut)
				if err != nil || !bytes.Equal(out, want) {
					t.Fatalf("round %d: %d of %d bytes, %v", round, len(out), len(want), err)
				}
			}
		}
	}
}

func TestEveryLengthAtEveryShortDistanceIsCopied(t *testing.T) {
	for distance := 1; distance <= 40; distance++ {
		tokens := text(string(allBytes()[100:140]))
		for length := 3; length <= 258; length++ {
			tokens = append(tokens, token{length: length, distance: distance}, token{literal: byte(length)})
		}
		f := inflater{z: fuzzed[:1], bits: 8}
		out, err := f.message(t, new(bitWriter).fixed(tokens...).flushed(), true, whole)
		if err != nil || !bytes.Equal(out, expand(nil, tokens...)) {
			t.Errorf("distance %d: %d bytes, %v", distance, len(out), err)
		}
	}
}

// A writer as compress/flate and klauspost/compress have it.
type writer interface {
	Write(b []byte) (int, error)
	Flush() error
	Close() error
}

func TestWhatOthersDeflateIsInflated(t *testing.T) {
	noise := make([]byte, 100_000)
	r := rand.New(rand.NewPCG(7, 8))
	for i := range noise {
		noise[i] = byte(r.Uint32())
	}
	messages := [][]byte{
		[]byte("Hello"),
		{},
		[]byte("Hello"), []byte("a"), sampleText[:1000], sampleText[:1000], noise[:300], sampleText[500:3000],
		make([]byte, 200_000), noise, sampleText[:150_000], []byte(strings.Repeat("ab", 50_000)), sampleText[140_000:200_000],
		noise[20_000:60_000], bytes.Repeat(sampleText[:32768], 3),
	}
	for _, lib := range []struct {
		name string
		make func(b *bytes.Buffer, level int, dict []byte) writer
		from int
	}{
		{"compress/flate", func(b *bytes.Buffer, level int, dict []byte) writer {
			w, err := flate.NewWriterDict(b, level, dict)
			if err != nil {
				t.Fatal(err)
			}
			return w
		}, flate.HuffmanOnly},
		{"klauspost/compress", func(b *bytes.Buffer, level int, dict []byte) writer {
			w, err := kflate.NewWriterDict(b, level, dict)
			if err != nil {
				t.Fatal(err)
			}
			return w
		}, kflate.ConstantCompression},
	} {
		for level := lib.from; level <= 9; level++ {
			t.Run(fmt.Sprintf("%s level %d", lib.name, level), func(t *testing.T) {
				var b bytes.Buffer
				alone, handed := inflater{z: fuzzed[:1], bits: 15}, inflater{z: []*Inflater{NewInflater(), NewInflater()}, bits: 15}
				w, history := lib.make(&b, level, nil), []byte(nil)
				for i, m := range messages {
					_, _ = w.Write(m)
					if i%3 == 2 {
						// One with BFINAL: the next writer gets the window.
						_ = w.Close()
						b.WriteByte(0)
					} else {
						_ = w.Flush()
						b.Truncate(b.Len() - len(syncTail))
					}
					history = append(history, m...)
					in := bytes.Clone(b.Bytes())
					for _, f := range []*inflater{&alone, &handed} {
						if out, err := f.message(t, in, true, inChunks(5000)); err != nil || !bytes.Equal(out, m) {
							t.Fatalf("message %d: %d bytes, want %d: %v", i, len(out), len(m), err)
						}
					}
					b.Reset()
					if i%3 == 2 {
						w = lib.make(&b, level, history[max(0, len(history)-maxWindow):])
					}
				}
			})
		}
	}
}

func TestMuchOutputComesInPortions(t *testing.T) {
	const size = 10 << 20
	in := deflated(t, 9, make([]byte, size))
	z, total, calls := NewInflater(), 0, 0
	for more := true; more; calls++ {
		var (
			out []byte
			n   int
			err error
		)
		out, n, more, err = z.Next(in, true)
		if err != nil {
			t.Fatal(err)
		}
		if len(out) > inflateRoom || more && len(out) < leastRoom {
			t.Fatalf("%d bytes at once, more %v", len(out), more)
		}
		in, total = in[n:], total+len(out)
	}
	if total != size {
		t.Errorf("%d bytes, want %d", total, size)
	}
	if calls > 2+size/maxWindow {
		t.Errorf("%d calls", calls)
	}
}

// A stored block of which a part has been taken as bits when the room ends.
func TestTheRoomMayEndInAStoredBlock(t *testing.T) {
	for room := range 20 {
		old := sampleText[:inflateRoom-room-5]
		in := new(bitWriter).stored(old).fixed(text("12345")...).stored([]byte("abcdefghijkl")).flushed()
		for _, z := range [][]*Inflater{{NewInflater()}, {NewInflater(), NewInflater()}} {
			f := inflater{z: z, bits: 15}
			out, err := f.message(t, in, true, whole)
			if want := string(old) + "12345abcdefghijkl"; err != nil || string(out) != want {
				t.Errorf("room for %d: %d bytes of %d, %v", room, len(out), len(want), err)
			}
		}
	}
}

func TestTheRoomMayEndInTheTail(t *testing.T) {
	in := dataInTheTail(new(bitWriter).stored(sampleText[:inflateRoom-600]), 11)
	want, state := inflateSlowly(append(bytes.Clone(in), syncTail...), nil, maxWindow)
	if state != atBlock || len(want) < inflateRoom {
		t.Fatal(len(want), state)
	}
	for _, z := range [][]*Inflater{{NewInflater()}, {NewInflater(), NewInflater()}} {
		f := inflater{z: z, bits: 15}
		for range 2 {
			if out, err := f.message(t, in, true, whole); err != nil || !bytes.Equal(out, want) {
				t.Fatalf("%d bytes of %d, %v", len(out), len(want), err)
			}
		}
		if f.calls < 4 {
			t.Errorf("%d calls: the room did not end in the tail", f.calls)
		}
	}
}

func TestTheWindowGrowsWithTheOutputAndIsReused(t *testing.T) {
	for _, bits := range []uint8{8, 11, 15} {
		z, s, total := NewInflater(), Inflation{}, 0
		var room *byte
		for total < 3<<bits {
			z.Resume(&s, bits)
			out, _, _, err := z.Next(new(bitWriter).stored(sampleText[total:total+100]).flushed(), true)
			if err != nil {
				t.Fatal(err)
			}
			total += len(out)
			z.Suspend(&s)
			if want := sampleText[max(0, total-1<<bits):total]; !bytes.Equal(s.Window, want) {
				t.Fatalf("%d bits, after %d bytes: another window, of %d", bits, total, len(s.Window))
			}
			if cap(s.Window) > 1<<bits || cap(s.Window) > max(256, 2*total) {
				t.Fatalf("%d bits, after %d bytes: room for %d", bits, total, cap(s.Window))
			}
			if s.Size() != int(unsafe.Sizeof(s))+cap(s.Window) {
				t.Fatalf("size %d", s.Size())
			}
			if total > 1<<bits {
				if now := unsafe.SliceData(s.Window); room != nil && room != now {
					t.Fatal("a full window is allocated again")
				}
				room = unsafe.SliceData(s.Window)
			}
		}
	}
}

func TestInflatingAllocatesNothing(t *testing.T) {
	z := NewInflater()
	in := deflated(t, 6, sampleText[:50_000])
	var s Inflation
	step := func() {
		z.Resume(nil, 15)
		for rest, more := in, true; more; {
			var n int
			_, n, more, _ = z.Next(rest[:min(1000, len(rest))], len(rest) <= 1000)
			rest = rest[n:]
			more = more || len(rest) > 0
			z.Suspend(&s)
			z.Resume(&s, 15)
		}
	}
	step()
	if n := testing.AllocsPerRun(20, step); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func TestSizesOfTheInflater(t *testing.T) {
	if n := unsafe.Sizeof(Inflater{}); n > 100<<10 {
		t.Errorf("an Inflater is %d bytes", n)
	}
	if n := unsafe.Sizeof(Inflation{}); n > 256 {
		t.Errorf("an Inflation is %d bytes", n)
	}
}
