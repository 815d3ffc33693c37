package bench

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
	"unicode"
)

// The numbers of all reports are written by the functions of this file, so
// that text, page and comparison agree to the last digit.

// maxText is the longest text of a peer, such as the reason of a Close, that
// a report repeats, in characters.
const maxText = 200

// duration writes three significant digits: 1.54us, 123us, 4.56ms, 1.23s.
func duration(d time.Duration) string {
	ns := float64(d)
	switch {
	case d == 0:
		return "0us"
	case ns < 999.5e3: // above, three digits would read 1000us
		return digits3(ns/1e3) + "us"
	case ns < 999.5e6:
		return digits3(ns/1e6) + "ms"
	default:
		return digits3(ns/1e9) + "s"
	}
}

// micros writes microseconds as a duration.
func micros(us float64) string { return duration(time.Duration(us * 1e3)) }

// digits3 writes three significant digits, and all that are before the point.
func digits3(v float64) string {
	a := math.Abs(v)
	switch {
	case a < 9.995:
		return strconv.FormatFloat(v, 'f', 2, 64)
	case a < 99.95:
		return strconv.FormatFloat(v, 'f', 1, 64)
	case a < 1e15:
		return signed(v)
	default:
		return strconv.FormatFloat(v, 'g', 3, 64)
	}
}

// signed writes a rounded number with separators.
func signed(v float64) string {
	if v < 0 {
		return "-" + count(uint64(math.Round(-v)))
	}
	return count(uint64(math.Round(v)))
}

// count writes a number with separators: 1,234,567.
func count[T int | int64 | uint64](n T) string {
	s := fmt.Sprint(n)
	for i := len(s) - 3; i > 0 && s[i-1] != '-'; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

// bytesText writes an amount of memory or of traffic: 512 B, 1.23 KiB, 64.0 MiB.
func bytesText(v float64) string {
	if v < 1023.5 {
		if v == math.Trunc(v) {
			return signed(v) + " B"
		}
		return digits3(v) + " B"
	}
	for _, unit := range []string{"KiB", "MiB", "GiB"} {
		v /= 1024
		if v < 1023.5 {
			return digits3(v) + " " + unit
		}
	}
	return digits3(v/1024) + " TiB"
}

// sizeText writes a size that someone chose, exactly: 32 B, 1,000 B, 16 KiB.
func sizeText(n int) string {
	switch {
	case n >= 1<<20 && n%(1<<20) == 0:
		return count(n>>20) + " MiB"
	case n >= 1<<10 && n%(1<<10) == 0:
		return count(n>>10) + " KiB"
	default:
		return count(n) + " B"
	}
}

// sizes writes the range of the payloads.
func sizes(least, most int) string {
	if least == most {
		return sizeText(least)
	}
	return sizeText(least) + " to " + sizeText(most)
}

// rateText writes how many there were each second.
func rateText(v float64) string { return digits3(v) + "/s" }

// ratioText writes b over a; a dash when there is none.
func ratioText(a, b float64) string {
	if a <= 0 || b < 0 {
		return "-"
	}
	r := b / a
	if r < 0.0995 && r > 0 {
		return strconv.FormatFloat(r, 'g', 2, 64)
	}
	return digits3(r)
}

// clean makes a text of the peer or of the user safe for a terminal: one line,
// nothing that moves the cursor, not too long.
func clean(s string) string {
	var b strings.Builder
	n := 0
	for _, c := range s {
		if n++; n > maxText {
			b.WriteString("...")
			break
		}
		if unicode.IsPrint(c) {
			b.WriteRune(c)
		} else {
			b.WriteString(strings.Trim(strconv.QuoteRune(c), "'"))
		}
	}
	return b.String()
}

// shell writes a command so that a shell reads the same words again.
func shell(words []string) string {
	var quoted []string
	for _, w := range words {
		plain := w != "" && strings.IndexFunc(w, func(c rune) bool {
			return !strings.ContainsRune("-_./:=,@%+", c) && (c > unicode.MaxASCII || !unicode.IsLetter(c) && !unicode.IsDigit(c))
		}) < 0
		if !plain {
			w = "'" + strings.ReplaceAll(w, "'", `'\''`) + "'"
		}
		quoted = append(quoted, w)
	}
	return strings.Join(quoted, " ")
}
