package frame

import (
	"strings"
)

// goods are messages that are right, if some only just.
func goods() []named {
	end := lens(257, 256, 1)
	two := lens(257, 'a', 1, 256, 1)
	return []named{
		{"an empty message, §7.2.3.6", []byte{0}},
		{"an empty stored block", new(bitWriter).stored(nil).flushed()},
		{"stored blocks", new(bitWriter).stored([]byte("ab")).stored([]byte("cde")).flushed()},
		{"stored blocks behind odd bits", new(bitWriter).fixed(text("x")...).stored([]byte("cde")).fixed().stored(nil).flushed()},
		{"an empty fixed block", new(bitWriter).fixed().flushed()},
		{"every literal of the fixed code", new(bitWriter).fixed(text(string(allBytes()))...).flushed()},
		{"a code of nothing but the end", new(bitWriter).dynamic(end, lens(1)).tokens(end, lens(1)).flushed()},
		{"no distances", new(bitWriter).dynamic(two, lens(1)).tokens(two, lens(1), text("aaa")...).flushed()},
		{"no distances, thirty times", new(bitWriter).dynamic(two, lens(30)).tokens(two, lens(30), text("aaa")...).flushed()},
		{"one distance, never used", new(bitWriter).dynamic(two, lens(1, 0, 1)).tokens(two, lens(1, 0, 1), text("aaa")...).flushed()},
		{"one distance, of one bit", func() []byte {
			l, d := lens(258, 'a', 1, 256, 2, 257, 2), lens(4, 3, 1)
			return new(bitWriter).dynamic(l, d).tokens(l, d, append(text("aaaa"), token{length: 3, distance: 4})...).flushed()
		}()},
		{"all 286 literals and lengths, all 30 distances", func() []byte {
			l, d := make([]int, 286), make([]int, 30)
			for i := range l {
				l[i] = 8 + b2i(i >= 226)
			}
			for i := range d {
				d[i] = 5 - b2i(i >= 28)
			}
			return new(bitWriter).dynamic(l, d).tokens(l, d, append(text("abc"), token{length: 258, distance: 3})...).flushed()
		}()},
		{"length 258 the long way", func() []byte {
			l, d := fixedLens()
			w := new(bitWriter).number(1<<1, 3).symbol(codeOf(l), 'a').symbol(codeOf(l), 284).number(31, 5)
			return w.symbol(codeOf(d), 0).symbol(codeOf(l), 256).flushed()
		}()},
		{"words of every length up to 15", func() []byte {
			l, d := lens(258, 256, 15, 257, 15), make([]int, 15)
			for i := range 14 {
				l['a'+i], d[i] = i+1, i+1
			}
			d[13], d[14] = 14, 14
			return new(bitWriter).dynamic(l, d).tokens(l, d, append(text("abcdefghijklmn"),
				token{length: 3, distance: 1}, token{length: 3, distance: 8}, token{length: 3, distance: 19})...).flushed()
		}()},
		{"lengths repeated, from literals into distances", func() []byte {
			// 256 lengths of 0, one of 1, then 1 again, for the distances.
			w := new(bitWriter).lengthsHead(257, 4, 1, 2, 0, 2, 16, 2, 18, 2)
			c := codeOf(lens(19, 1, 2, 0, 2, 16, 2, 18, 2))
			w.symbol(c, 18).number(127, 7).symbol(c, 18).number(107, 7).symbol(c, 1)
			w.symbol(c, 1).symbol(c, 1).symbol(c, 0).symbol(c, 0)
			return w.number(0, 1).flushed()
		}()},
		{"a length of 0 repeated over the border", func() []byte {
			l := lens(258, 'a', 1, 256, 1)
			w := new(bitWriter).lengthsHead(258, 30, 1, 1, 0, 2, 16, 3, 18, 3)
			c := codeOf(lens(19, 1, 1, 0, 2, 16, 3, 18, 3))
			w.symbol(c, 18).number(97-11, 7).symbol(c, 1).symbol(c, 18).number(127, 7).symbol(c, 18).number(9, 7).symbol(c, 1)
			w.symbol(c, 18).number(31-11-6, 7).symbol(c, 16).number(3, 2)
			return w.tokens(l, lens(30), text("aa")...).flushed()
		}()},
		{"BFINAL in the middle", new(bitWriter).fixed(text("a")...).number(3, 3).number(0, 7).number(0, 4).stored([]byte("b")).flushed()},
		{"BFINAL on a stored block", append(wire("01 01 00 fe ff 61"), 0)},
	}
}

type named struct {
	name string
	in   []byte
}

func allBytes() []byte {
	b := make([]byte, 256)
	for i := range b {
		b[i] = byte(i)
	}
	return b
}

// corruptions are messages that break one rule each.
func corruptions() []named {
	two := lens(257, 'a', 1, 256, 1)
	match := lens(258, 'a', 1, 256, 2, 257, 2)
	fixedLit, fixedDist := fixedLens()
	start := func() *bitWriter { return new(bitWriter).number(1<<1, 3).symbol(codeOf(fixedLit), 'a') }
	head := func(literals, distances []int) []byte {
		return new(bitWriter).dynamic(literals, distances).number(0, 40).b
	}
	return []named{
		{"block type 3", new(bitWriter).fixed(text("a")...).number(3<<1, 3).b},
		{"LEN and NLEN", wire("00 05 00 fa fe 48 65 6c 6c 6f 00")},
		{"287 literals", new(bitWriter).number(2<<1, 3).number(30, 5).number(0, 70).b},
		{"31 distances", new(bitWriter).number(2<<1, 3).number(29, 5).number(30, 5).number(0, 70).b},
		{"code for lengths: three words of one bit", new(bitWriter).lengthsHead(257, 1, 0, 1, 1, 1, 2, 1).number(0, 300).b},
		{"code for lengths: incomplete", new(bitWriter).lengthsHead(257, 1, 0, 2, 1, 2).number(0, 300).b},
		{"code for lengths: one word", new(bitWriter).lengthsHead(257, 1, 1, 1).number(0, 300).b},
		{"code for lengths: no word", new(bitWriter).lengthsHead(257, 1).number(0, 300).b},
		{"nothing to repeat", new(bitWriter).lengthsHead(257, 1, 16, 1, 1, 1).number(1, 1).number(0, 300).b},
		{"16 beyond the last", new(bitWriter).lengthsHead(257, 1, 16, 1, 1, 1).number(0, 256).number(1, 1).number(0, 2).b},
		{"17 beyond the last", new(bitWriter).lengthsHead(257, 1, 17, 1, 1, 1).number(0, 256).number(1, 1).number(0, 3).b},
		{"18 beyond the last", new(bitWriter).lengthsHead(257, 1, 18, 1, 1, 1).number(1, 1).number(127, 7).number(1, 1).number(127, 7).b},
		{"nothing to repeat, and nothing wrong but that", func() []byte {
			l := lens(257, 'a', 1, 256, 1)
			w := new(bitWriter).lengthsHead(257, 1, 16, 2, 18, 2, 1, 2, 0, 2)
			c := codeOf(lens(19, 16, 2, 18, 2, 1, 2, 0, 2))
			w.symbol(c, 16).number(3, 2).symbol(c, 18).number(91-11, 7).symbol(c, 1)
			w.symbol(c, 18).number(127, 7).symbol(c, 18).number(20-11, 7).symbol(c, 1).symbol(c, 0)
			return w.tokens(l, lens(1), text("aa")...).flushed()
		}()},
		{"287 literals, and nothing wrong but that", new(bitWriter).dynamic(lens(287, 'a', 1, 256, 1), lens(1)).tokens(lens(287, 'a', 1, 256, 1), lens(1), text("aaa")...).flushed()},
		{"31 distances, and nothing wrong but that", new(bitWriter).dynamic(two, lens(31)).tokens(two, lens(31), text("aaa")...).flushed()},
		{"the end of a block one bit before that of the tail", dataInTheTail(new(bitWriter), 10)},
		{"the end of a block two bits before that of the tail", dataInTheTail(new(bitWriter), 9)},
		{"no end of block", head(lens(257, 'a', 1, 'b', 1), lens(1))},
		{"literals: incomplete", head(lens(257, 'a', 2, 256, 1), lens(1))},
		{"literals: one word, of two bits", head(lens(257, 256, 2), lens(1))},
		{"literals: too many", head(lens(257, 'a', 1, 'b', 2, 'c', 2, 256, 2), lens(1))},
		{"distances: incomplete", head(two, lens(3, 0, 2, 1, 2, 2, 2))},
		{"distances: one word, of two bits", head(two, lens(1, 0, 2))},
		{"distances: too many", head(two, lens(3, 0, 1, 1, 1, 2, 15))},
		{"symbol 286", start().symbol(codeOf(fixedLit), 286).number(0, 20).b},
		{"symbol 287", start().symbol(codeOf(fixedLit), 287).number(0, 20).b},
		{"distance symbol 30", start().symbol(codeOf(fixedLit), 257).symbol(codeOf(fixedDist), 30).number(0, 20).b},
		{"distance symbol 31", start().symbol(codeOf(fixedLit), 257).symbol(codeOf(fixedDist), 31).number(0, 20).b},
		{"word that is not in a literal code of one", new(bitWriter).dynamic(lens(257, 256, 1), lens(1)).number(1, 1).b},
		{"word that is not in a distance code of one", new(bitWriter).dynamic(match, lens(1, 0, 1)).word(0, 1).word(3, 2).word(1, 1).b},
		{"distance where there are none", new(bitWriter).dynamic(match, lens(1)).word(0, 1).word(3, 2).word(0, 1).b},
		{"distance before the beginning", new(bitWriter).fixed(append(text("abc"), token{length: 3, distance: 4})...).flushed()},
		{"distance at the beginning", new(bitWriter).fixed(token{length: 3, distance: 1}).flushed()},
		{"distance beyond 256", new(bitWriter).fixed(append(text(strings.Repeat("ab", 150)), token{length: 3, distance: 257})...).flushed()},
		{"the end within a fixed block", wire("f2 48 cd")},
		{"the end within LEN", wire("00 05")},
		{"the end within a stored block", wire("00 0a 00 f5 ff 48 65 6c")},
		{"the end within the code for lengths", new(bitWriter).lengthsHead(257, 1, 0, 1, 1, 1).b[:3]},
		{"the end within the lengths", new(bitWriter).dynamic(two, lens(1)).b[:30]},
		{"the end before the first byte: even an empty message has one, §7.2.3.6", nil},
		{"BFINAL and not a byte more", wire("f3 48 cd c9 c9 07 00")},
		{"the tail, though it belongs to nobody", wire("f2 48 cd c9 c9 07 00 00 00 ff ff")},
	}
}

// dataInTheTail writes a message behind w that ends within a block. The zeros of
// the tail are matches of length 227 there, and its ones are the rest of a third,
// of length 257, then as many as end says the end of the block. Eleven is right.
func dataInTheTail(w *bitWriter, end int) []byte {
	l, d := lens(285, 284, 1, 256, end), []int{1, 1}
	for i := range end - 1 {
		l['a'+i] = i + 2
	}
	w.dynamic(l, d)
	if w.bits%2 == 1 {
		w.symbol(codeOf(l), 'b')
	}
	for w.bits%8 != 0 {
		w.symbol(codeOf(l), 'a')
	}
	return w.b
}
