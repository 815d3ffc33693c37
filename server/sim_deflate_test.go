package server

import (
	"bytes"
	"fmt"
	"slices"

	"wspoll/frame"
)

// Compressed conversations of a simulation. What clients send is made by our own
// Deflater, and then perhaps damaged; what it means, and what the server's
// messages mean, is for simInflate to say.

// simDeflate is what one direction has agreed on, and where its messages stand.
type simDeflate struct {
	bits    int
	fresh   bool // each message begins with an empty window
	history []byte
	packed  []byte // of the message, so far
	done    int    // bytes of it that were inflated and shown
	begun   bool   // something of it was shown
	damaged []byte // inflated before the fault, and perhaps shown
}

// simCorrupt is what simReader says of a message that cannot be inflated: Close
// 1007, for another reason than text that is wrong.
const simCorrupt = 11007

// inflate is the next part of a message: what is new of it, and whether it can
// be inflated so far.
func (d *simDeflate) inflate(packed []byte, last bool) (plain []byte, ok bool) {
	d.packed = append(d.packed, packed...)
	plain, ok = simInflate(d.packed, d.history, 1<<d.bits, last)
	plain = plain[min(d.done, len(plain)):]
	d.done += len(plain)
	return plain, ok
}

// end is the end of a message.
func (d *simDeflate) end() {
	all, _ := simInflate(d.packed, d.history, 1<<d.bits, true)
	d.history = append(d.history, all...)
	d.history = d.history[max(0, len(d.history)-1<<d.bits):]
	if d.fresh {
		d.history = nil
	}
	d.packed, d.done, d.begun = nil, 0, false
}

// simInflate is RFC 1951 a bit at a time. The window is that of the side that
// compressed; what came before is in history.
func simInflate(packed, history []byte, window int, last bool) (plain []byte, ok bool) {
	if last {
		packed = append(bytes.Clone(packed), 0, 0, 0xff, 0xff)
	}
	const dry, bad = "dry", "bad"
	pos, out := 0, bytes.Clone(history)
	defer func() {
		plain = out[len(history):]
		switch e := recover(); e {
		case nil: // between two blocks, at a whole byte
			ok = true
		case dry:
			ok = !last
		case bad:
			ok = false
		default:
			panic(e)
		}
	}()
	take := func(n int) (v int) {
		for i := range n {
			if pos == 8*len(packed) {
				panic(dry)
			}
			v |= int(packed[pos/8]>>(pos%8)&1) << i
			pos++
		}
		return v
	}
	must := func(ok bool) {
		if !ok {
			panic(bad)
		}
	}
	symbol := func(lens []int) int {
		for word, first, n := 0, 0, 1; n <= 15; n++ {
			word, first = word<<1|take(1), first<<1
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
	isCode := func(lens []int, lone bool) bool {
		sum, longest := 0, 0
		for _, n := range lens {
			if n > 0 {
				sum, longest = sum+1<<(15-n), max(longest, n)
			}
		}
		return sum == 1<<15 || lone && sum < 1<<15 && longest <= 1
	}
	// value is the base of code c and the bits that follow it: codes in groups of
	// size, with one bit more in each group after the first two.
	value := func(c, size, base int) int {
		extra := max(0, c/size-1)
		for i := range c {
			base += 1 << max(0, i/size-1)
		}
		return base + take(extra)
	}
	for final := false; ; {
		if final {
			pos = (pos + 7) &^ 7
		}
		if pos == 8*len(packed) {
			return nil, true
		}
		final = take(1) == 1
		var literals, distances []int
		switch take(2) {
		case 0:
			pos = (pos + 7) &^ 7
			n := take(16)
			must(n^0xffff == take(16))
			for range n {
				out = append(out, byte(take(8)))
			}
			continue
		case 1:
			for i := range 288 {
				literals = append(literals, 8+btoi(i >= 144)-2*btoi(i >= 256)+btoi(i >= 280))
			}
			for range 32 {
				distances = append(distances, 5)
			}
		case 2:
			nlit, ndist, nlen := 257+take(5), 1+take(5), 4+take(4)
			must(nlit <= 286 && ndist <= 30)
			code := make([]int, 19)
			for i := range nlen {
				code["\x10\x11\x12\x00\x08\x07\x09\x06\x0a\x05\x0b\x04\x0c\x03\x0d\x02\x0e\x01\x0f"[i]] = take(3)
			}
			must(isCode(code, false))
			var lens []int
			for len(lens) < nlit+ndist {
				switch s := symbol(code); s {
				case 16:
					must(len(lens) > 0)
					lens = append(lens, slices.Repeat(lens[len(lens)-1:], 3+take(2))...)
				case 17:
					lens = append(lens, make([]int, 3+take(3))...)
				case 18:
					lens = append(lens, make([]int, 11+take(7))...)
				default:
					lens = append(lens, s)
				}
			}
			must(len(lens) == nlit+ndist)
			literals, distances = lens[:nlit], lens[nlit:]
			must(literals[256] != 0 && isCode(literals, true) && isCode(distances, true))
		case 3:
			panic(bad)
		}
		for {
			s := symbol(literals)
			if s < 256 {
				out = append(out, byte(s))
				continue
			}
			if s == 256 {
				break
			}
			must(s <= 285)
			length := 258
			if s < 285 {
				length = value(s-257, 4, 3)
			}
			s = symbol(distances)
			must(s < 30)
			distance := value(s, 2, 1)
			must(distance <= window && distance <= len(out))
			for range length {
				out = append(out, out[len(out)-distance])
			}
		}
	}
}

// simOffer is an offer and what comes of it.
type simOffer struct {
	line    string
	in, out *simDeflate // the client's and the server's direction; nil: none
}

func (t *simTalk) offer(mode Compression) (o simOffer) {
	kind := t.n(8)
	switch {
	case kind < 3:
		return o
	case kind < 5:
		o.line = "permessage-deflate"
	case kind < 7:
		o.line = "permessage-deflate; client_max_window_bits"
	default:
		o.line = "permessage-deflate; nonsense, permessage-deflate; server_max_window_bits=9; client_no_context_takeover"
	}
	switch mode {
	case CompressOff:
	case CompressShared:
		o.in, o.out = &simDeflate{bits: 15, fresh: true}, &simDeflate{bits: 15, fresh: true}
	case CompressContext:
		o.in, o.out = &simDeflate{bits: 15, fresh: kind == 7}, &simDeflate{bits: 12}
		if kind == 5 || kind == 6 {
			o.in.bits = 12
		}
	}
	if kind == 7 && o.out != nil {
		o.out.bits = 9
	}
	return o
}

// agreement is the answer to the offer.
func (o *simOffer) agreement() string {
	line := "permessage-deflate"
	if o.out.fresh {
		line += "; server_no_context_takeover"
	}
	if o.in.fresh {
		line += "; client_no_context_takeover"
	}
	if o.out.bits < 15 {
		line += fmt.Sprintf("; server_max_window_bits=%d", o.out.bits)
	}
	if o.in.bits < 15 {
		line += fmt.Sprintf("; client_max_window_bits=%d", o.in.bits)
	}
	return line
}

// deflater makes t compress some of its messages; small ones only, when they are
// to be judged byte by byte.
func (t *simTalk) deflater(o simOffer, small bool) {
	if o.in != nil {
		t.z, t.agreed, t.small = frame.NewDeflater(), *o.in, small
	}
}

// packed is a compressed message.
func (t *simTalk) packed(p []byte) (b []byte) {
	bits := uint8(t.agreed.bits)
	if t.agreed.fresh {
		t.window = frame.Deflation{}
	}
	for {
		n := len(p)
		if t.one(3) {
			n = t.n(n + 1)
		}
		b = t.z.Append(b, &t.window, bits, p[:n], n == len(p))
		t.window.Keep(p[:n], bits)
		if n == len(p) {
			return b
		}
		p = p[n:]
	}
}

// compressed sends a message that is compressed, in frames that are cut anywhere.
func (t *simTalk) compressed(op byte, b []byte) {
	op |= 0x40
	for t.one(2) {
		n := t.n(len(b) + 1)
		t.frame(op, b[:n])
		op, b = 0, b[n:]
		for t.one(4) {
			t.control()
		}
	}
	t.frame(0x80|op, b)
}

// corrupt is compressed messages, one of them damaged.
func (t *simTalk) corrupt() {
	t.messages()
	if t.z == nil {
		return
	}
	b := t.packed(t.text(t.n(600)))
	switch t.n(4) {
	case 0:
		b = b[:t.n(len(b)+1)]
	case 1:
		b = append(b, t.binary(1+t.n(5))...)
	default:
		for range 1 + t.n(3) {
			if len(b) > 0 {
				b[t.n(len(b))] ^= 1 << t.n(8)
			}
		}
	}
	t.compressed(pick[byte](t, 1, 2), b)
	t.messages()
}

// bomb inflates to more than the largest message, or to just that.
func (t *simTalk) bomb() {
	if t.z == nil || t.max > 200_000 || t.small {
		t.messages()
		return
	}
	b := make([]byte, t.max+pick(t, 0, 1, 5000))
	for i := range b {
		b[i] = 'x'
	}
	t.compressed(pick[byte](t, 1, 2), t.packed(b))
}
