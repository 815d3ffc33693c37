package inspect

import (
	"encoding/hex"
	"fmt"
	"regexp"
	"strconv"
	"strings"
)

var (
	// The offset of xxd, and of tcpdump -x: digits, a colon and a blank.
	colonOffset = regexp.MustCompile(`^\s*(?:0x)?([0-9a-fA-F]{4,16}):(?:\s+|$)`)
	// That of hexdump -C and od: digits and blanks. Either is one only when it is the right number.
	plainOffset = regexp.MustCompile(`^([0-9a-fA-F]{6,8})(\s+|$)`)
	words       = regexp.MustCompile(`^[0-9a-f]{4}( +[0-9a-f]{4})*\s*$`)
	noDigits    = strings.NewReplacer("0x", " ", "0X", " ", `\x`, " ", ",", " ", ":", " ", ";", " ", "{", " ", "}", " ", `"`, " ", "'", " ", "-", " ")
)

// ReadHex reads bytes that are written as hexadecimal digits: 8185 37fa, 0x81, 0x85, 81:85, \x81\x85, and what xxd,
// hexdump -C, od -t x1 and tcpdump -x print, with their offsets and characters. What follows a # is a comment.
func ReadHex(text string) ([]byte, error) {
	var out []byte
	for i, line := range strings.Split(text, "\n") {
		digits, err := hexLine(strings.TrimRight(line, "\r"), len(out))
		if err != nil {
			return nil, fmt.Errorf("line %d: %w", i+1, err)
		}
		out = append(out, digits...)
	}
	return out, nil
}

// hexLine reads one line. at is how many bytes came before it.
func hexLine(line string, at int) ([]byte, error) {
	if m := colonOffset.FindStringSubmatch(line); m != nil && offset(m[1], at) {
		// The characters stand behind two blanks.
		line, _, _ = strings.Cut(strings.TrimLeft(line[len(m[0]):], " \t"), "  ")
	} else {
		line, _, _ = strings.Cut(line, "#")
		line, _, _ = strings.Cut(line, "|")
		if m := plainOffset.FindStringSubmatch(line); m != nil {
			rest := line[len(m[0]):]
			switch right := offset(m[1], at); {
			case !right:
			case len(m[1]) == 7 && words.MatchString(rest):
				return nil, fmt.Errorf("these are words of 16 bits whose order depends on the machine; use hexdump -C or xxd")
			// Seven digits are no whole bytes, and nobody puts two blanks behind the first of them.
			case len(m[1]) == 7 || len(m[2]) > 1 || m[2] == "" && at > 0:
				line = rest
			}
		}
	}
	if strings.TrimSpace(line) == "*" {
		return nil, fmt.Errorf("a * stands for lines that were left out; use hexdump -v")
	}
	var out []byte
	for token := range strings.FieldsSeq(noDigits.Replace(line)) {
		if len(token) == 1 {
			token = "0" + token // 0x5
		}
		b, err := hex.DecodeString(token)
		if err != nil && len(token)%2 != 0 {
			return nil, fmt.Errorf("%q is not whole bytes: it has %d digits", token, len(token))
		}
		if err != nil {
			return nil, fmt.Errorf("%q is not hexadecimal digits", token)
		}
		out = append(out, b...)
	}
	return out, nil
}

// offset reports whether digits say at: in hexadecimal, or in octal as od does.
func offset(digits string, at int) bool {
	h, err := strconv.ParseInt(digits, 16, 64)
	o, err8 := strconv.ParseInt(digits, 8, 64)
	return err == nil && int(h) == at || err8 == nil && int(o) == at
}
