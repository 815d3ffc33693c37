package frame

import (
	"bytes"
	"errors"
	"slices"
	"testing"
)

// judgement is what a decoder says of a stream that ends here.
type judgement string

const (
	atBlock judgement = "between two blocks, at a whole byte"
	within  judgement = "within a block"
	broken  judgement = "corrupt"
)

// inflateSlowly is RFC 1951 as simply as can be, a bit at a time and without a
// table: the judge over the Inflater. history is what came out before, window
// how far back a match may reach.
func inflateSlowly(in, history []byte, window int) (out []byte, state judgement) {
	var (
		dry, bad = errors.New("dry"), errors.New("bad")
		pos      int
	)
	out = bytes.Clone(history)
	defer func() {
		out = out[len(history):]
		switch e := recover(); e {
		case nil:
		case dry:
			state = within
		case bad:
			state = broken
		default:
			panic(e)
		}
	}()
	number := func(n int) (v int) {
		for i := range n {
			if pos == 8*len(in) {
				panic(dry)
			}
			v |= int(in[pos/8]>>(pos%8)&1) << i
			pos++
		}
		return v
	}
	demand := func(ok bool) {
		if !ok {
			panic(bad)
		}
	}
	// symbol reads a code word of the code with these lengths.
	symbol := func(lens []int) int {
		word, first := 0, 0
		for n := 1; n <= 15; n++ {
			word = word<<1 | number(1)
			first <<= 1
			for s, l := range lens {
				if l == n {
					if word == first {
						return s
					}
					first++
				}
			}
		}
		panic(bad)
	}
	// isCode judges as zlib does: complete, or, where that is allowed, a
	// single word of one bit or none at all.
	isCode := func(lens []int, lone bool) bool {
		sum, longest := 0, 0
		for _, n := range lens {
			if n > 0 {
				sum += 1 << (15 - n)
				longest = max(longest, n)
			}
		}
		return sum == 1<<15 || lone && sum < 1<<15 && longest <= 1
	}
	for final := false; ; {
		for pos%8 != 0 && final {
			number(1)
		}
		if pos == 8*len(in) {
			return out, atBlock
		}
		final = number(1) == 1
		var literals, distances []int
		switch number(2) {
		case 0:
			for pos%8 != 0 {
				number(1)
			}
			n := number(16)
			demand(n^0xffff == number(16))
			for range n {
				out = append(out, byte(number(8)))
			}
		case 1:
			for i := range 288 {
				literals = append(literals, 8+b2i(i >= 144)-2*b2i(i >= 256)+b2i(i >= 280))
			}
			for range 32 {
				distances = append(distances, 5)
			}
		case 2:
			nlit, ndist, nlen := 257+number(5), 1+number(5), 4+number(4)
			demand(nlit <= 286 && ndist <= 30)
			ofLens := make([]int, 19)
			for i := range nlen {
				ofLens[[]int{16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15}[i]] = number(3)
			}
			demand(isCode(ofLens, false))
			var lens []int
			for len(lens) < nlit+ndist {
				switch s := symbol(ofLens); s {
				case 16:
					demand(len(lens) > 0)
					for range 3 + number(2) {
						lens = append(lens, lens[len(lens)-1])
					}
				case 17:
					lens = append(lens, make([]int, 3+number(3))...)
				case 18:
					lens = append(lens, make([]int, 11+number(7))...)
				default:
					lens = append(lens, s)
				}
			}
			demand(len(lens) == nlit+ndist)
			literals, distances = lens[:nlit], lens[nlit:]
			demand(literals[256] != 0 && isCode(literals, true) && isCode(distances, true))
		case 3:
			panic(bad)
		}
		for literals != nil {
			s := symbol(literals)
			if s < 256 {
				out = append(out, byte(s))
				continue
			}
			if s == 256 {
				break
			}
			demand(s <= 285)
			base, extra := lengthOf(s)
			length := base + number(extra)
			s = symbol(distances)
			demand(s <= 29)
			base, extra = distanceOf(s)
			distance := base + number(extra)
			demand(distance <= window && distance <= len(out))
			for range length {
				out = append(out, out[len(out)-distance])
			}
		}
	}
}

func b2i(b bool) int {
	if b {
		return 1
	}
	return 0
}

// lengthOf and distanceOf are the tables of RFC 1951 §3.2.5.
func lengthOf(symbol int) (base, extra int) {
	e := [...][2]int{
		{3, 0},
		{4, 0},
		{5, 0},
		{6, 0},
		{7, 0},
		{8, 0},
		{9, 0},
		{10, 0},
		{11, 1},
		{13, 1},
		{15, 1},
		{17, 1},
		{19, 2},
		{23, 2},
		{27, 2},
		{31, 2},
		{35, 3},
		{43, 3},
		{51, 3},
		{59, 3},
		{67, 4},
		{83, 4},
		{99, 4},
		{115, 4},
		{131, 5},
		{163, 5},
		{195, 5},
		{227, 5},
		{258, 0},
	}[symbol-257]
	return e[0], e[1]
}

func distanceOf(symbol int) (base, extra int) {
	e := [...][2]int{
		{1, 0},
		{2, 0},
		{3, 0},
		{4, 0},
		{5, 1},
		{7, 1},
		{9, 2},
		{13, 2},
		{17, 3},
		{25, 3},
		{33, 4},
		{49, 4},
		{65, 5},
		{97, 5},
		{129, 6},
		{193, 6},
		{257, 7},
		{385, 7},
		{513, 8},
		{769, 8},
		{1025, 9},
		{1537, 9},
		{2049, 10},
		{3073, 10},
		{4097, 11},
		{6145, 11},
		{8193, 12},
		{12289, 12},
		{16385, 13},
		{24577, 13},
	}[symbol]
	return e[0], e[1]
}

// inflater feeds an Inflater a message in the pieces that cut makes (see run)
// and hands the stream from one Inflater to another between any two calls when
// there are two.
type inflater struct {
	z     []*Inflater
	bits  uint8
	kept  Inflation
	calls int
}

func (f *inflater) message(t testing.TB, in []byte, last bool, cut func(int) int) (out []byte, err error) {
	t.Helper()
	in = bytes.Clone(in) // it is scribbled on
	z := f.z[0]
	if f.calls == 0 {
		z.Resume(&f.kept, f.bits)
	}
	for idle := 0; ; {
		piece := in
		if len(in) > 0 {
			piece = in[:min(cut(len(in)), len(in))]
		}
		ends := last && len(piece) == len(in)
		got, n, more, err := z.Next(piece, ends)
		f.calls++
		if n < 0 || n > len(piece) || !more && err == nil && n != len(piece) {
			t.Fatalf("%d of %d bytes consumed, more %v", n, len(piece), more)
		}
		if more && err != nil {
			t.Fatal("more to come behind an error")
		}
		if idle++; n > 0 || len(got) > 0 {
			idle = 0
		}
		if idle > 2 && more {
			t.Fatal("more without end")
		}
		out = append(out, got...)
		scribble(piece[:n])
		in = in[n:]
		if len(f.z) > 1 {
			z.Suspend(&f.kept)
			z.Resume(nil, 15)
			f.z[0], f.z[1] = f.z[1], f.z[0]
			z = f.z[0]
			z.Resume(&f.kept, f.bits)
		}
		if err != nil || len(in) == 0 && !more {
			return out, err
		}
	}
}

// judged is the Inflater's judgement of a message: all of it at once, cut as
// cut says, and suspended between the pieces; with the judge's. They agree, or
// the test fails.
func judged(t testing.TB, history, in []byte, bits uint8, cut func() func(int) int) ([]byte, error) {
	t.Helper()
	want, state := inflateSlowly(append(bytes.Clone(in), syncTail...), history, 1<<bits)
	for _, how := range []struct {
		name string
		z    []*Inflater
		cut  func(int) int
	}{
		{"whole", fuzzed[:1], whole},
		{"in pieces", fuzzed[:1], cut()},
		{"suspended", fuzzed[:2], cut()},
	} {
		f := inflater{z: how.z, bits: bits, kept: Inflation{Window: bytes.Clone(history)}}
		out, err := f.message(t, in, true, how.cut)
		if !bytes.Equal(out, want) {
			t.Fatalf("%s: % x\ninflated to %d bytes %.300q\nwant        %d bytes %.300q", how.name, in, len(out), out, len(want), want)
		}
		if (err == nil) != (state == atBlock) || err != nil && err != error(ErrInflate) {
			t.Fatalf("%s: % x: error %v, the judge says %s", how.name, in, err, state)
		}
	}
	if state != atBlock {
		return want, ErrInflate
	}
	return want, nil
}

// Cuts for judged, which wants a new one for each time.
func byByte() func(int) int            { return oneByOne }
func cutAt(n int) func() func(int) int { return func() func(int) int { return splitAt(n) } }

// fuzzed are the Inflaters for judged.
var fuzzed = []*Inflater{NewInflater(), NewInflater()}

// bitWriter writes DEFLATE by hand.
type bitWriter struct {
	b    []byte
	bits int
}

// number writes n bits of v, the lowest first.
func (w *bitWriter) number(v, n int) *bitWriter {
	for i := range n {
		if w.bits%8 == 0 {
			w.b = append(w.b, 0)
		}
		w.b[w.bits/8] |= byte(v>>i&1) << (w.bits % 8)
		w.bits++
	}
	return w
}

// word writes the n bits of a code word, the highest first.
func (w *bitWriter) word(v, n int) *bitWriter {
	for i := n - 1; i >= 0; i-- {
		w.number(v>>i, 1)
	}
	return w
}

// stored writes a stored block.
func (w *bitWriter) stored(b []byte) *bitWriter {
	w.number(0, 3).number(0, -w.bits&7).number(len(b), 16).number(^len(b), 16)
	w.b = append(w.b, b...)
	w.bits += 8 * len(b)
	return w
}

// dynamic writes the head of a dynamic block with these lengths of code words,
// each as a number of four bits: in a code for lengths where 0 to 15 have words
// of four bits.
func (w *bitWriter) dynamic(literals, distances []int) *bitWriter {
	w.number(2<<1, 3).number(len(literals)-257, 5).number(len(distances)-1, 5).number(15, 4)
	w.number(0, 9)
	for range 16 {
		w.number(4, 3)
	}
	for _, n := range slices.Concat(literals, distances) {
		w.word(n, 4)
	}
	return w
}

// lengthsHead writes the head of a dynamic block as far as the code for lengths,
// whose words are as long as ofLens says: a list of symbol, length.
func (w *bitWriter) lengthsHead(nlit, ndist int, ofLens ...int) *bitWriter {
	w.number(2<<1, 3).number(nlit-257, 5).number(ndist-1, 5).number(15, 4)
	for _, s := range lengthsOrder {
		n := 0
		for i := 0; i < len(ofLens); i += 2 {
			if ofLens[i] == int(s) {
				n = ofLens[i+1]
			}
		}
		w.number(n, 3)
	}
	return w
}

// token is a literal, or a match when it has a length.
type token struct {
	literal          byte
	length, distance int
}

func text(s string) (tokens []token) {
	for _, c := range []byte(s) {
		tokens = append(tokens, token{literal: c})
	}
	return tokens
}

// testCode is a code: the lengths and the values of its words (RFC 1951 §3.2.2).
type testCode struct{ lens, words []int }

func codeOf(lens []int) testCode {
	c := testCode{lens, make([]int, len(lens))}
	word := 0
	for n := 1; n <= 15; n++ {
		word <<= 1
		for s, l := range lens {
			if l == n {
				c.words[s] = word
				word++
			}
		}
	}
	return c
}

func (w *bitWriter) symbol(c testCode, s int) *bitWriter { return w.word(c.words[s], c.lens[s]) }

// fixedLens are the lengths of the fixed code.
func fixedLens() (literals, distances []int) {
	literals = slices.Concat(
		slices.Repeat([]int{8}, 144), slices.Repeat([]int{9}, 112), slices.Repeat([]int{7}, 24), slices.Repeat([]int{8}, 8))
	return literals, slices.Repeat([]int{5}, 32)
}

// tokens writes the symbols of a block in these codes and its end.
func (w *bitWriter) tokens(literals, distances []int, tokens ...token) *bitWriter {
	lit, dist := codeOf(literals), codeOf(distances)
	for _, t := range tokens {
		if t.length == 0 {
			w.symbol(lit, int(t.literal))
			continue
		}
		s := 285
		for ; ; s-- {
			if base, _ := lengthOf(s); base <= t.length {
				break
			}
		}
		base, extra := lengthOf(s)
		w.symbol(lit, s).number(t.length-base, extra)
		for s = 29; ; s-- {
			if base, _ := distanceOf(s); base <= t.distance {
				break
			}
		}
		base, extra = distanceOf(s)
		w.symbol(dist, s).number(t.distance-base, extra)
	}
	return w.symbol(lit, endSymbol)
}

// fixed writes a block in the fixed code.
func (w *bitWriter) fixed(tokens ...token) *bitWriter {
	literals, distances := fixedLens()
	return w.number(1<<1, 3).tokens(literals, distances, tokens...)
}

// flushed is the end of a message: an empty stored block without the bytes that
// the sender leaves away.
func (w *bitWriter) flushed() []byte {
	w.number(0, 3).number(0, -w.bits&7)
	return w.b
}

// expand appends what tokens mean.
func expand(out []byte, tokens ...token) []byte {
	for _, t := range tokens {
		if t.length == 0 {
			out = append(out, t.literal)
		}
		for range t.length {
			out = append(out, out[len(out)-t.distance])
		}
	}
	return out
}

// lens is a list of code lengths of which those not named are 0: symbol, length.
func lens(size int, named ...int) []int {
	l := make([]int, size)
	for i := 0; i < len(named); i += 2 {
		l[named[i]] = named[i+1]
	}
	return l
}
