package frame

import (
	"bytes"
	"fmt"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/gobwas/ws"
)

func TestCloseCodesAreThoseOfTheRegistry(t *testing.T) {
	valid := func(c int) bool {
		switch c {
		case 1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014:
			return true
		}
		return c >= 3000 && c < 5000
	}
	for c := range 1 << 16 {
		if got := ValidCloseCode(ws.StatusCode(c)); got != valid(c) {
			t.Errorf("%d: %v", c, got)
		}
	}
}

// TestWhereGobwasJudgesCloseCodesOtherwise pins the traps of
// ws.CheckCloseFrameData and ws.ParseCloseFrameData.
func TestWhereGobwasJudgesCloseCodesOtherwise(t *testing.T) {
	for _, test := range []struct {
		code   ws.StatusCode
		ours   error
		gobwas bool
	}{
		{1012, nil, false},
		{1013, nil, false},
		{1014, nil, false},
		{5000, ErrCloseCode, true},
		{65535, ErrCloseCode, true},
	} {
		payload := []byte{byte(test.code >> 8), byte(test.code)}
		_, _, err := ParseClose(payload)
		if err != test.ours && (err != nil || test.ours != nil) {
			t.Errorf("%d: %v, want %v", test.code, err, test.ours)
		}
		if (ws.CheckCloseFrameData(test.code, "") == nil) != test.gobwas {
			t.Errorf("%d: gobwas changed its mind", test.code)
		}
	}
	one, _ := ws.ParseCloseFrameData([]byte{3})
	none, _ := ws.ParseCloseFrameData(nil)
	if one != none {
		t.Error("gobwas tells a payload of one byte from an empty one now")
	}
}

func TestTheBodyOfACloseFrameIsRead(t *testing.T) {
	for _, test := range []struct {
		name   string
		wire   string
		code   ws.StatusCode
		reason string
		err    error
	}{
		{"empty", "", 1005, "", nil},
		{"one byte", "03", 0, "", ErrCloseLength},
		{"a code alone", "03 e8", 1000, "", nil},
		{"a code and a reason", "03 e9 62 79 65", 1001, "bye", nil},
		{"the last private code", "13 87", 4999, "", nil},
		{"0", "00 00", 0, "", ErrCloseCode},
		{"999", "03 e7", 999, "", ErrCloseCode},
		{"1004", "03 ec", 1004, "", ErrCloseCode},
		{"1005, which only stands for none", "03 ed", 1005, "", ErrCloseCode},
		{"1006", "03 ee", 1006, "", ErrCloseCode},
		{"1015", "03 f7", 1015, "", ErrCloseCode},
		{"2999", "0b b7", 2999, "", ErrCloseCode},
		{"5000", "13 88", 5000, "", ErrCloseCode},
		{"a reason that is not UTF-8", "03 e8 c0 80", 1000, "", ErrCloseReason},
		{"a reason that ends inside a character", "03 e8 e2 82", 1000, "", ErrCloseReason},
		{"a bad code is worse than a bad reason", "03 e7 ff", 999, "", ErrCloseCode},
	} {
		t.Run(test.name, func(t *testing.T) {
			code, reason, err := ParseClose(wire(test.wire))
			if code != test.code || string(reason) != test.reason || err != test.err {
				t.Errorf("%d %q %v", code, reason, err)
			}
		})
	}
}

func TestReasonsAreCutBetweenCharacters(t *testing.T) {
	for _, test := range []struct{ name, reason, want string }{
		{"123 bytes stay", strings.Repeat("a", 123), strings.Repeat("a", 123)},
		{"124 bytes do not", strings.Repeat("a", 124), strings.Repeat("a", 123)},
		{"122 bytes and half a character", strings.Repeat("a", 122) + "é", strings.Repeat("a", 122)},
		{"121 bytes and a whole one", strings.Repeat("a", 121) + "é!", strings.Repeat("a", 121) + "é"},
		{"characters of four bytes", strings.Repeat("😀", 40), strings.Repeat("😀", 30)},
		{"what is not UTF-8 is left out", "bye \xff bye", "bye "},
		{"U+FFFD is a character like others", "a\ufffdb", "a\ufffdb"},
	} {
		t.Run(test.name, func(t *testing.T) {
			for _, rules := range []*Rules{server, client} {
				// What a client sends, a server reads, and the other way round.
				var b []byte
				if rules.Client {
					b = AppendMaskedClose(nil, rfcMask, 1000, test.reason)
				} else {
					b = AppendClose(nil, 1000, test.reason)
				}
				var p Parser
				var piece Piece
				n, err := p.Next(&Rules{Client: !rules.Client}, b, &piece)
				if n != len(b) || err != nil {
					t.Fatal(n, err)
				}
				code, reason, err := ParseClose(piece.Data)
				if code != 1000 || string(reason) != test.want || err != nil {
					t.Errorf("%d %q %v", code, reason, err)
				}
			}
		})
	}
	// The trap: gobwas cuts the character.
	if body := ws.NewCloseFrameBody(1000, strings.Repeat("a", 122)+"é"); utf8.Valid(body[2:]) {
		t.Error("gobwas cuts between characters now")
	}
}

func TestACloseWithoutACodeHasNoPayload(t *testing.T) {
	for _, code := range []ws.StatusCode{0, ws.StatusNoStatusRcvd} {
		if got := AppendClose(nil, code, "ignored"); !bytes.Equal(got, wire("88 00")) {
			t.Errorf("%d: % x", code, got)
		}
		if got := AppendMaskedClose(nil, rfcMask, code, "ignored"); !bytes.Equal(got, wire("88 80 37 fa 21 3d")) {
			t.Errorf("%d, masked: % x", code, got)
		}
	}
}

func TestACodeThatMayNotBeSentIsOurFault(t *testing.T) {
	for _, code := range []ws.StatusCode{1, 999, 1004, 1006, 1015, 2000, 5000} {
		mustPanic(t, MisuseCode, func() { AppendClose(nil, code, "") })
		mustPanic(t, MisuseCode, func() { AppendMaskedClose(nil, rfcMask, code, "") })
	}
}

func mustPanic(t *testing.T, want Misuse, f func()) {
	t.Helper()
	defer func() {
		t.Helper()
		if got := recover(); got != want {
			t.Errorf("panic %v, want %v", got, want)
		}
	}()
	f()
}

func ExampleAppendClose() {
	fmt.Printf("% x\n", AppendClose(nil, ws.StatusGoingAway, "bye"))
	fmt.Printf("% x\n", AppendClose(nil, 0, ""))
	// Output:
	// 88 05 03 e9 62 79 65
	// 88 00
}

func ExampleParseClose() {
	code, reason, err := ParseClose([]byte("\x03\xe9bye"))
	fmt.Println(code, string(reason), err)
	_, _, err = ParseClose([]byte{0x03})
	fmt.Println(err)
	// Output:
	// 1001 bye <nil>
	// RFC 6455 §5.5.1: Close frame with a payload of one byte
}
