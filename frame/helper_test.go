package frame

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"github.com/gobwas/ws"
)

// wire reads hex with blanks, as the RFC prints its examples.
func wire(s string) []byte {
	b, err := hex.DecodeString(strings.Join(strings.Fields(s), ""))
	if err != nil {
		panic(err)
	}
	return b
}

// event is what must not depend on how the input was cut: a frame with its
// whole payload (done), or the beginning of a data frame that did not end.
type event struct {
	header     ws.Header
	op         ws.OpCode
	first      bool // the frame begins a message
	last       bool // the frame ends it
	compressed bool
	done       bool
	data       string
}

// result is everything that came of one input.
type result struct {
	events   []event
	err      error
	consumed int
	parser   Parser
	data     []byte // of the last event, while it is not done
}

// add joins pieces to frames, and checks that their flags fit together.
func (r *result) add(t testing.TB, p *Piece) {
	t.Helper()
	open := len(r.events) > 0 && !r.events[len(r.events)-1].done
	if open == p.Start {
		t.Fatalf("Start = %v after events %v", p.Start, r.events)
	}
	if p.Start {
		r.events = append(r.events, event{header: p.Header, op: p.Op, first: p.First, compressed: p.Compressed})
	}
	e := &r.events[len(r.events)-1]
	if p.First && !p.Start || p.Last && !p.End {
		t.Fatalf("message flags inside a frame: %+v", p)
	}
	if e.header != p.Header || e.op != p.Op || e.compressed != p.Compressed || e.done {
		t.Fatalf("piece %+v does not continue %+v", p, e)
	}
	r.data = append(r.data, p.Data...)
	e.done, e.last = p.End, p.Last
	if want := int64(len(r.data)) == p.Header.Length; e.done != want {
		t.Fatalf("End = %v with %d of %d bytes", p.End, len(r.data), p.Header.Length)
	}
	if e.done {
		e.data, r.data = string(r.data), r.data[:0]
	}
}

// run feeds input in chunks of the sizes that cut returns, as a server does:
// bytes that are not consumed are kept in a new buffer and the next chunk is
// appended. The old buffer is scribbled over, so a Parser that kept a part of
// it would show.
func run(t testing.TB, r *Rules, input []byte, cut func(left int) int) (res result) {
	t.Helper()
	var piece Piece
	var kept []byte
	defer func() {
		if n := len(res.events); n > 0 && !res.events[n-1].done {
			res.events[n-1].data = string(res.data)
		}
	}()
	for {
		if len(input) > 0 {
			n := min(max(cut(len(input)), 1), len(input))
			kept = append(kept, input[:n]...)
			input = input[n:]
		}
		buf := slices.Clone(kept)
		for {
			n, err := res.parser.Next(r, buf, &piece)
			if err != nil {
				if n != 0 {
					t.Fatalf("%d bytes consumed with error %v", n, err)
				}
				again, err2 := res.parser.Next(r, buf, &piece)
				if again != 0 || err2 != err {
					t.Fatalf("error %v was not final: %d, %v", err, again, err2)
				}
				res.err = err
				return res
			}
			if n == 0 {
				break
			}
			res.add(t, &piece)
			res.consumed += n
			scribble(buf[:n])
			buf = buf[n:]
		}
		if len(buf) > MaxKeep {
			t.Fatalf("%d bytes left unconsumed", len(buf))
		}
		// What was not consumed is as it was.
		if !bytes.Equal(buf, kept[len(kept)-len(buf):]) {
			t.Fatal("bytes that were not consumed were changed")
		}
		kept = slices.Clone(buf)
		scribble(buf)
		if len(input) == 0 {
			return res
		}
	}
}

func scribble(b []byte) {
	for i := range b {
		b[i] = 0xee
	}
}

func whole(left int) int           { return left }
func oneByOne(int) int             { return 1 }
func inChunks(n int) func(int) int { return func(int) int { return n } }

func atRandom(seed uint64) func(int) int {
	rnd := rand.New(rand.NewPCG(seed, 1))
	return func(left int) int {
		if rnd.IntN(3) > 0 {
			return 1 + rnd.IntN(8)
		}
		return 1 + rnd.IntN(left)
	}
}

// splitAt cuts once, behind n bytes.
func splitAt(n int) func(int) int {
	first := true
	return func(left int) int {
		if first {
			first = false
			return n
		}
		return left
	}
}

// same compares two results. When text turns out wrong, the piece with the
// wrong byte is not delivered, and how many bytes before it were depends on
// the cut; all else must be equal.
func same(t testing.TB, how string, want, got result) {
	t.Helper()
	if want.err != got.err {
		t.Fatalf("%s: error %v, as a whole %v", how, got.err, want.err)
	}
	a, b := want.events, got.events
	if want.err == error(ErrTextUTF8) || want.err == error(ErrTextTruncated) {
		a, b = finished(a), finished(b)
	} else if want.consumed != got.consumed {
		t.Fatalf("%s: %d bytes consumed, as a whole %d", how, got.consumed, want.consumed)
	} else if want.parser != got.parser {
		t.Fatalf("%s: parser is left as %+v, as a whole %+v", how, got.parser, want.parser)
	}
	if !slices.Equal(a, b) {
		t.Fatalf("%s: %s\nas a whole: %s", how, show(b), show(a))
	}
}

func finished(e []event) []event {
	if len(e) > 0 && !e[len(e)-1].done {
		return e[:len(e)-1]
	}
	return e
}

func show(events []event) string {
	var b strings.Builder
	for _, e := range events {
		fmt.Fprintf(&b, "\n  %+v", e)
	}
	return b.String()
}

// everyCut checks that the input gives the same however it is cut.
func everyCut(t testing.TB, r *Rules, input []byte) result {
	t.Helper()
	want := run(t, r, input, whole)
	same(t, "byte by byte", want, run(t, r, input, oneByOne))
	splits := len(input) - 1
	if splits > 1000 {
		splits = 20 // the headers, and enough of a long payload
	}
	for n := 1; n <= splits; n++ {
		same(t, fmt.Sprint("split at ", n), want, run(t, r, input, splitAt(n)))
	}
	for _, n := range []int{2, 3, 4, 5, 6, 7, 9, 13, 19, 1000} {
		same(t, fmt.Sprint("chunks of ", n), want, run(t, r, input, inChunks(n)))
	}
	return want
}

var (
	server = &Rules{}
	client = &Rules{Client: true, Mask: func() [4]byte { return rfcMask }}
	// rfcMask is the key in the examples of §5.7.
	rfcMask = [4]byte{0x37, 0xfa, 0x21, 0x3d}
)
