package frame

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"testing"
	"unicode/utf8"
)

// firstBad finds the first wrong byte by brute force: b[:n] can be the
// beginning of a text if some completion of it is valid. It returns len(b)
// when there is none.
func firstBad(b []byte) int {
	tails := []string{
		"", "\x80", "\x80\x80", "\x80\x80\x80", "\xbf", "\xbf\xbf", "\xbf\xbf\xbf",
		"\xa0\x80", "\x9f\xbf", "\x90\x80\x80", "\x8f\xbf\xbf",
	}
	// Code points are at most four bytes, so a valid beginning need not be
	// looked at again.
	start := 0
	for n := 1; n <= len(b); n++ {
		ok := false
		for _, tail := range tails {
			if utf8.Valid(append(bytes.Clone(b[start:n]), tail...)) {
				ok = true
				if tail == "" {
					start = n
				}
				break
			}
		}
		if !ok {
			return n - 1
		}
	}
	return len(b)
}

// checkUTF8 compares Write with the brute force, and in two parts with whole.
func checkUTF8(t testing.TB, b []byte, splits ...int) {
	t.Helper()
	bad := firstBad(b)
	for _, split := range append(splits, len(b)) {
		var s UTF8
		n, ok := s.Write(b[:split])
		if ok {
			var n2 int
			n2, ok = s.Write(b[split:])
			n += n2
		}
		if n != bad || ok != (bad == len(b)) {
			t.Fatalf("% x split at %d: wrong byte at %d (%v), want %d", b, split, n, ok, bad)
		}
		if got, want := s.Done(), utf8.Valid(b); got != want {
			t.Fatalf("% x: Done = %v, utf8.Valid = %v", b, got, want)
		}
		if !ok {
			if n, ok := s.Write([]byte("a")); n != 0 || ok {
				t.Fatal("broken text goes on")
			}
		}
	}
}

func TestEveryCodePointIsJudgedAsTheStandardLibraryDoes(t *testing.T) {
	var buf [12]byte
	for r := rune(0); r <= utf8.MaxRune; r++ {
		if r >= 0xd800 && r <= 0xdfff {
			continue
		}
		size := utf8.EncodeRune(buf[:], r)
		var s UTF8
		if n, ok := s.Write(buf[:size]); n != size || !ok || !s.Done() {
			t.Fatalf("%U alone is refused", r)
		}
		// With room behind it, the fast path takes it.
		if n, ok := s.Write(append(buf[:size:size], "        "...)); !ok || !s.Done() {
			t.Fatalf("%U is refused at %d", r, n)
		}
	}
}

func TestEveryPairOfBytesIsJudgedByBruteForce(t *testing.T) {
	// All second bytes behind all first bytes, with endings that complete,
	// and far enough from the end for the fast path.
	for a := range 256 {
		for b := range 256 {
			for _, tail := range []string{"", "\x80", "\x80\x80", "\xc0", "\x80\xc0", "a", "\x80\x80\x80"} {
				text := append([]byte{byte(a), byte(b)}, tail...)
				checkUTF8(t, text, 1)
				if b%16 == 0 || b%16 == 15 {
					checkUTF8(t, append(text, "zzzzzzzzz"...), 2)
				}
			}
		}
	}
}

func TestWrongBytesAreFoundWhereverTheyStand(t *testing.T) {
	rnd := rand.New(rand.NewPCG(3, 629))
	runes := []rune("aZ 0é߿ࠀ€퟿￿𐀀😀\U0010ffff")
	for range 20000 {
		var text []byte
		for range rnd.IntN(30) {
			if rnd.IntN(2) == 0 {
				text = append(text, "abcdefghijklmnopqrstuvwxyz0123456789"[:rnd.IntN(36)]...)
			}
			text = utf8.AppendRune(text, runes[rnd.IntN(len(runes))])
		}
		if len(text) == 0 {
			continue
		}
		checkUTF8(t, text, rnd.IntN(len(text)))
		text[rnd.IntN(len(text))] = byte(rnd.Uint32())
		checkUTF8(t, text, rnd.IntN(len(text)))
	}
}

// TestTheWellKnownFaultsAreFoundAtTheirByte lists one of each kind.
func TestTheWellKnownFaultsAreFoundAtTheirByte(t *testing.T) {
	for _, test := range []struct {
		wire string
		bad  int
	}{
		{"80", 0},
		{"bf", 0},
		{"c0", 0},
		{"c1", 0},
		{"f5", 0},
		{"ff", 0},
		{"f8", 0},
		{"c2 20", 1},
		{"e0 80", 1},
		{"e0 9f", 1},
		{"ed a0", 1},
		{"f0 8f", 1},
		{"f4 90", 1},
		{"e1 80 c0", 2},
		{"f1 80 80 20", 3},
		{"ce ba e1 bd b9 cf 83 ce bc ce b5 ed a0 80", 12},
	} {
		for pad := range 40 {
			b := append(bytes.Repeat([]byte("x"), pad), wire(test.wire)...)
			var s UTF8
			if n, ok := s.Write(b); ok || n != pad+test.bad {
				t.Errorf("%s behind %d bytes: %d, %v", test.wire, pad, n, ok)
			}
			for i := range len(b) {
				checkUTF8(t, b, i)
			}
		}
	}
}

func ExampleUTF8() {
	var text UTF8
	fmt.Println(text.Write([]byte("na\xc3"))) // a character that goes on
	fmt.Println(text.Done())
	fmt.Println(text.Write([]byte("\xafve")))
	fmt.Println(text.Done())
	fmt.Println(text.Write([]byte("ab\xed\xa0\x80"))) // a surrogate
	// Output:
	// 3 true
	// false
	// 3 true
	// true
	// 3 false
}

func FuzzUTF8(f *testing.F) {
	for _, s := range []string{
		"", "Hello", "\xe2\x82\xac", "\xf4\x90\x80\x80", "\xed\xa0\x80", "\xc0\x80",
		"0123456789012345678901234567890123456789\xe0\x80", "κόσμε κόσμε κόσμε", "天地玄黃宇宙洪荒\xff", "😀🙃😇\xf0\x80\x80\x80",
	} {
		f.Add([]byte(s), uint(len(s)/2))
	}
	f.Fuzz(func(t *testing.T, b []byte, split uint) {
		if len(b) > 256 {
			return
		}
		checkUTF8(t, b, int(split%uint(len(b)+1)))
	})
}
