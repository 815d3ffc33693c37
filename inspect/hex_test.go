package inspect

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"strings"
	"testing"
)

func TestHexIsReadInTheFormsThatProgramsPrint(t *testing.T) {
	hello := []byte("\x81\x05Hello, this is |more| than: a row")
	for name, in := range map[string]string{
		"plain":      hex.EncodeToString(hello),
		"spaced":     fmt.Sprintf("% x", hello),
		"upper":      fmt.Sprintf("% X", hello),
		"0x":         "{ " + strings.ReplaceAll(fmt.Sprintf("%# x", hello), " ", ", ") + " };",
		"colons":     strings.ReplaceAll(fmt.Sprintf("% x", hello), " ", ":"),
		"escapes":    `"` + strings.ReplaceAll(fmt.Sprintf(" % x", hello), " ", `\x`) + `"`,
		"hexdump -C": hex.Dump(hello) + fmt.Sprintf("%08x\n", len(hello)),
		"xxd":        xxd(hello, "%08x: "),
		"tcpdump":    xxd(hello, "\t0x%04x:  "),
		"od":         od(hello),
		"frames":     "81 05 # a header\r\n" + fmt.Sprintf("% x", hello[2:]) + "\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			got, err := ReadHex(in)
			if err != nil || !bytes.Equal(got, hello) {
				t.Errorf("%q\nis read as %q, %v", in, got, err)
			}
		})
	}
	if got, err := ReadHex("00000000 81 05"); err != nil || !bytes.Equal(got, []byte{0, 0, 0, 0, 0x81, 5}) {
		t.Errorf("zeros at the front that are no offset: %x, %v", got, err)
	}
}

// xxd prints as xxd does, with an offset of the given form.
func xxd(b []byte, offset string) string {
	var out strings.Builder
	for i := 0; i < len(b); i += 16 {
		row := b[i:min(i+16, len(b))]
		fmt.Fprintf(&out, offset, i)
		for k := 0; k < len(row); k += 2 {
			fmt.Fprintf(&out, "%x ", row[k:min(k+2, len(row))])
		}
		fmt.Fprintf(&out, " %s\n", strings.Map(func(c rune) rune { return max(c, '.') }, string(row)))
	}
	return out.String()
}

// od prints as od -t x1 does.
func od(b []byte) string {
	var out strings.Builder
	for i := 0; i < len(b); i += 16 {
		fmt.Fprintf(&out, "%07o % x\n", i, b[i:min(i+16, len(b))])
	}
	fmt.Fprintf(&out, "%07o\n", len(b))
	return out.String()
}

func TestHexThatIsNoneIsRefusedWithTheLineAndTheReason(t *testing.T) {
	for in, want := range map[string]string{
		"81 zz":                       `line 1: "zz" is not hexadecimal digits`,
		"81\n123":                     `line 2: "123" is not whole bytes: it has 3 digits`,
		"0000000 0581 6548 6c6c 006f": "line 1: these are words of 16 bits",
		"00000000  81 05\n*\n":        "line 2: a * stands for lines that were left out",
	} {
		if b, err := ReadHex(in); err == nil || !strings.HasPrefix(err.Error(), want) {
			t.Errorf("%q: %x, %v, want %q", in, b, err, want)
		}
	}
}
