package frame

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"strings"
	"testing"
	"unsafe"

	"github.com/gobwas/ws"
)

// sent is a connection's compressing side in a test, with its peer's inflaters:
// ours, of exactly the agreed window, and the slow judge.
type sent struct {
	z        *Deflater
	out      Deflation
	in       Inflation
	judge    *Inflater
	bits     uint8
	takeover bool
	history  []byte // what the peer's window holds
}

// message compresses msg, cut into fragments, and has it inflated both ways.
func (s *sent) message(t testing.TB, msg []byte, cuts []int) (wire []byte) {
	t.Helper()
	if !s.takeover {
		s.out, s.in, s.history = Deflation{Window: s.out.Window[:0]}, Inflation{}, nil
	}
	refer := &s.out
	if !s.takeover && len(cuts) == 0 {
		refer = nil
	}
	from := 0
	var got []byte
	s.judge.Resume(&s.in, s.bits)
	for i := range len(cuts) + 1 {
		to, last := len(msg), i == len(cuts)
		if !last {
			to = cuts[i]
		}
		part := msg[from:to]
		from = to
		b := s.z.Append(nil, refer, s.bits, part, last)
		s.out.Keep(part, s.bits)
		if !last && len(part) > 0 && !bytes.HasSuffix(b, []byte(syncTail)) {
			t.Fatalf("a fragment ends with % x", b[max(0, len(b)-4):])
		}
		before := len(got)
		for rest, more := b, true; more; {
			var out []byte
			var n int
			var err error
			out, n, more, err = s.judge.Next(rest, last)
			if err != nil {
				t.Fatalf("window %d, fragment %d of %d bytes: %v", s.bits, i, len(part), err)
			}
			rest, got = rest[n:], append(got, out...)
		}
		// A fragment is all there when it has come, not only when the next has.
		if !bytes.Equal(got[before:], part) {
			t.Fatalf("window %d, fragment %d: %d bytes came of %d", s.bits, i, len(got)-before, len(part))
		}
		wire = append(wire, b...)
	}
	s.judge.Suspend(&s.in)
	slow, state := inflateSlowly(append(bytes.Clone(wire), syncTail...), s.history, 1<<s.bits)
	if state != atBlock || !bytes.Equal(slow, msg) {
		t.Fatalf("window %d, takeover %v: the slow decoder finds it %s after %d of %d bytes", s.bits, s.takeover, state, len(slow), len(msg))
	}
	if s.bits == 15 { // compress/flate has one window
		if std, err := flateSays(wire, s.history, "\x01\x00\x00\xff\xff"); err != nil || !bytes.Equal(std, msg) {
			t.Fatalf("compress/flate: %d of %d bytes, %v", len(std), len(msg), err)
		}
	}
	s.history = append(s.history, msg...)
	s.history = s.history[max(0, len(s.history)-1<<s.bits):]
	return wire
}

func TestTheExamplesOfRFC7692AreDeflated(t *testing.T) {
	z := NewDeflater()
	hello := []byte("Hello")
	var s Deflation
	// §7.2.3.1: in a block with the fixed code.
	if b := z.Append(nil, &s, 15, hello, true); !bytes.Equal(b, wire("f2 48 cd c9 c9 07 00")) {
		t.Errorf("one message: % x", b)
	}
	// §7.2.3.2: again, referring to the first. The RFC has f2 00 11 00 00, the
	// letter H and a match of the four others; all five are one match less.
	s.Keep(hello, 15)
	if b := z.Append(nil, &s, 15, hello, true); !bytes.Equal(b, wire("02 13 00 00")) {
		t.Errorf("the same again: % x", b)
	}
	// §7.2.3.3: in a stored block.
	if b := z.Append(nil, nil, 15, hello, true); !bytes.Equal(b, wire("00 05 00 fa ff 48 65 6c 6c 6f 00")) {
		t.Errorf("stored: % x", b)
	}
	// §7.2.3.6: an empty message is one byte.
	for _, s := range []*Deflation{nil, {}, &s} {
		if b := z.Append(nil, s, 15, nil, true); !bytes.Equal(b, wire("00")) {
			t.Errorf("empty: % x", b)
		}
	}
	// In fragments, of which the last is empty.
	b := z.Append(nil, &Deflation{}, 15, hello, false)
	if !bytes.Equal(b, wire("f2 48 cd c9 c9 07 00 00 00 ff ff")) {
		t.Errorf("first fragment: % x", b)
	}
	if b = z.Append(nil, &s, 15, nil, false); len(b) != 0 {
		t.Errorf("an empty fragment: % x", b)
	}
}

func TestWhatIsDeflatedObeysItsWindowAndIsInflatedToTheSame(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	noise := make([]byte, 70_000)
	for i := range noise {
		noise[i] = byte(r.Uint32())
	}
	// Noise that comes again just within and just beyond each window.
	var again []byte
	for bits := 8; bits <= 15; bits++ {
		for _, d := range []int{-300, -1, 0, 1, 300} {
			if d += 1 << bits; d > 0 {
				again = append(append(again, noise[:d]...), noise[:200]...)
			}
		}
	}
	messages := [][]byte{
		[]byte("Hello"),
		{},
		[]byte("Hello"), []byte("a"), sampleText[:127], sampleText[:128], sampleText[:1000], sampleText[200:300],
		noise[:100], noise[:100], noise[:300], sampleText[500:5000], make([]byte, 10_000), noise[:2000], noise[:2000],
		[]byte(strings.Repeat("ab", 5000)), again[:20_000], sampleText[:40_000],
	}
	z := NewDeflater()
	for bits := uint8(8); bits <= 15; bits++ {
		for _, takeover := range []bool{false, true} {
			t.Run(fmt.Sprintf("window %d takeover %v", bits, takeover), func(t *testing.T) {
				s := &sent{z: z, judge: NewInflater(), bits: bits, takeover: takeover}
				for _, m := range messages {
					s.message(t, m, nil)
					var cuts []int
					for at := r.IntN(len(m) + 1); at < len(m) && len(cuts) < 20; at += r.IntN(len(m)/3 + 2) {
						cuts = append(cuts, at)
					}
					s.message(t, m, cuts)
				}
				if c := cap(s.out.Window); c > 1<<bits {
					t.Errorf("%d bytes are kept", c)
				}
				if testing.Short() {
					return
				}
				s.message(t, again, nil)
				s.message(t, again, []int{65536})
			})
		}
	}
}

// A small message that resembles the one before is a few bytes, and so it is not
// because of its size alone.
func TestSmallMessagesReferToEarlierOnes(t *testing.T) {
	first := []byte(`{"id":123456,"user":"alice","price":17.25,"side":"buy"}`)
	again := []byte(`{"id":123457,"user":"alice","price":17.30,"side":"buy"}`)
	z := NewDeflater()
	for bits := uint8(8); bits <= 15; bits++ {
		var s Deflation
		s.Keep(first, bits)
		if n := len(z.Append(nil, &s, bits, again, true)); n > 20 {
			t.Errorf("window %d: %d bytes", bits, n)
		}
	}
}

func TestKeepHoldsTheLastBytesAndGrowsAsTheyCome(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 9))
	for bits := uint8(8); bits <= 15; bits++ {
		var s Deflation
		var all []byte
		for range 200 {
			b := sampleText[:r.IntN(pickSize(r, 10, 500, 40_000))]
			all = append(all, b...)
			s.Keep(b, bits)
			if want := all[max(0, len(all)-1<<bits):]; !bytes.Equal(s.Window, want) {
				t.Fatalf("window %d: %d bytes are kept of %d", bits, len(s.Window), len(all))
			}
			if c := cap(s.Window); c > 1<<bits || c > max(256, 2*len(all)) {
				t.Fatalf("window %d: room for %d bytes after %d", bits, c, len(all))
			}
		}
	}
}

func pickSize(r *rand.Rand, sizes ...int) int { return sizes[r.IntN(len(sizes))] + 1 }

func TestDeflatingAllocatesNothing(t *testing.T) {
	z := NewDeflater()
	var s Deflation
	out := make([]byte, 0, 128<<10)
	round := func() {
		for _, n := range []int{0, 50, 127, 128, 1000, 70_000} {
			z.Append(out, &s, 12, sampleText[:n], true)
			s.Keep(sampleText[:n], 12)
			z.Append(out, nil, 15, sampleText[:n], false)
		}
	}
	round()
	if n := testing.AllocsPerRun(50, round); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

// What a Deflater holds is for a goroutine, and not for a connection.
func TestSizesOfTheDeflater(t *testing.T) {
	var before, after runtime.MemStats
	use := func(bits uint8, s *Deflation) uint64 {
		z := NewDeflater()
		out := make([]byte, 0, 1000)
		runtime.ReadMemStats(&before)
		z.Append(out, s, bits, sampleText[:100], true)
		runtime.ReadMemStats(&after)
		return after.TotalAlloc - before.TotalAlloc
	}
	for bits := uint8(8); bits <= 15; bits++ {
		if n := use(bits, nil); n > 1100<<10 {
			t.Errorf("a window of %d bits: %d bytes", bits, n)
		}
	}
	if n := use(15, &Deflation{}); n > 1100<<10 {
		t.Errorf("for small messages that refer to others: %d bytes", n)
	}
	if n := unsafe.Sizeof(Deflater{}) + unsafe.Sizeof(Deflation{}); n > 256 {
		t.Errorf("without use: %d bytes", n)
	}
}

func TestADeflaterOfOtherBitsIsMisuse(t *testing.T) {
	for _, bits := range []uint8{0, 7, 16, 255} {
		func() {
			defer func() {
				if e := recover(); e != MisuseDeflate {
					t.Errorf("%d bits: %v", bits, e)
				}
			}()
			NewDeflater().Append(nil, nil, bits, nil, true)
		}()
	}
}

func TestTermsAreWhatWasPutIn(t *testing.T) {
	if Terms(0).On() {
		t.Error("the zero value is on")
	}
	for out := uint8(8); out <= 15; out++ {
		for in := uint8(8); in <= 15; in++ {
			for i := range 4 {
				x := NewTerms(out, in, i&1 != 0, i&2 != 0)
				if !x.On() || x.OutBits() != out || x.InBits() != in || x.FreshOut() != (i&1 != 0) || x.FreshIn() != (i&2 != 0) {
					t.Errorf("%d %d %d: %016b", out, in, i, x)
				}
			}
		}
	}
}

// A compressed frame that is taken back, anywhere, comes again as if nothing had
// been.
func TestUnreadPayloadComesAgain(t *testing.T) {
	r := &Rules{RSV1: true, MaxMessage: 5, Inflates: true}
	key := [4]byte{1, 2, 3, 4}
	payload := sampleText[:150]
	var in []byte
	for i, part := range [][]byte{payload[:100], payload[100:101], payload[101:]} {
		at := len(in)
		in = AppendMasked(in, i == 2, [3]ws.OpCode{ws.OpText}[i], key, part)
		if i == 0 {
			in[at] |= bitRSV1
		}
	}
	for cut := 1; cut < 40; cut++ {
		for keep := range 40 {
			var p Parser
			var got []byte
			b := bytes.Clone(in)
			for done, calls := 0, 0; done < len(b); calls++ {
				var piece Piece
				before := p
				end := min(len(b), done+cut+14)
				n, err := p.Next(r, b[done:end], &piece)
				if err != nil || n == 0 {
					t.Fatal(n, err)
				}
				if k := keep; calls%2 == 0 && k < len(piece.Data) {
					got = append(got, piece.Data[:k]...)
					n = p.Unread(&before, r, b[done:end], n, &piece, k)
				} else {
					got = append(got, piece.Data...)
				}
				done += n
			}
			if !bytes.Equal(got, payload) || p != (Parser{}) {
				t.Fatalf("cut %d, keep %d: %q", cut, keep, got)
			}
		}
	}
}

// MaxMessage is for messages that are not compressed, when the caller inflates.
func TestTheLimitOfCompressedMessagesIsTheInflaters(t *testing.T) {
	in := AppendMasked(nil, true, 2, [4]byte{}, make([]byte, 300))
	for _, c := range []struct {
		first byte
		rules Rules
		err   error
	}{
		{0x82, Rules{MaxMessage: 299, RSV1: true, Inflates: true}, ErrTooLarge},
		{0xc2, Rules{MaxMessage: 299, RSV1: true, Inflates: true}, nil},
		{0xc2, Rules{MaxMessage: 299, RSV1: true}, ErrTooLarge},
	} {
		in[0] = c.first
		var piece Piece
		if _, err := new(Parser).Next(&c.rules, bytes.Clone(in), &piece); !errors.Is(err, c.err) {
			t.Errorf("%#x: %v, want %v", c.first, err, c.err)
		}
	}
}

// Any bytes, in any fragments and windows, come out as they went in.
func FuzzDeflate(f *testing.F) {
	f.Add([]byte("Hello, Hello"), []byte("Hello"), uint8(0), uint16(3), true)
	f.Add([]byte(sampleText[:600]), []byte(sampleText[:300]), uint8(7), uint16(500), false)
	f.Add(make([]byte, 600), []byte{1}, uint8(1), uint16(299), true)
	z, judge := NewDeflater(), NewInflater()
	f.Fuzz(func(t *testing.T, a, b []byte, bits uint8, cut uint16, takeover bool) {
		if len(a)+len(b) > 1000 {
			return // the judge is slow
		}
		s := &sent{z: z, judge: judge, bits: 8 + bits%8, takeover: takeover}
		for range 2 {
			s.message(t, a, nil)
			s.message(t, b, []int{int(cut) % (len(b) + 1)})
			s.message(t, a, []int{int(cut) % (len(a) + 1), len(a)})
		}
	})
}
