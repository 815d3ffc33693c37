package handshake

import (
	"bytes"
	"slices"
	"strings"
	"testing"
)

func TestFieldsAreFoundInAnyCaseAndCountedOverLines(t *testing.T) {
	req := mustParse(t, "GET / HTTP/1.1\r\nHost: a\r\nX-Tag: one\r\nx-tAG:\t two \t\r\nX-Empty:\r\nX-Tags: no\r\n\r\n")
	if v, n := req.Get("x-TAG"); string(v) != "one" || n != 2 {
		t.Errorf("X-Tag: %q, %d times", v, n)
	}
	if v, n := req.Get("X-Empty"); v == nil || len(v) != 0 || n != 1 {
		t.Errorf("X-Empty: %q, %d times", v, n)
	}
	if v, n := req.Get("X-Missing"); v != nil || n != 0 {
		t.Errorf("X-Missing: %q, %d times", v, n)
	}
	var values []string
	req.Each("X-Tag", func(v []byte) bool { values = append(values, string(v)); return true })
	if !slices.Equal(values, []string{"one", "two"}) {
		t.Errorf("Each: %q", values)
	}
}

func TestRangingOverFieldsCanStop(t *testing.T) {
	req := mustParse(t, "GET / HTTP/1.1\r\nHost: a\r\nX-Tag: one\r\nX-Tag: two\r\n\r\n")
	var names []string
	for name := range req.All {
		names = append(names, string(name))
		if len(names) == 2 {
			break
		}
	}
	if !slices.Equal(names, []string{"Host", "X-Tag"}) {
		t.Errorf("All: %q", names)
	}
	n := 0
	req.Each("x-tag", func([]byte) bool { n++; return false })
	if n != 1 {
		t.Errorf("Each went on %d times", n)
	}
}

func TestAHeadWithoutFieldsHasNone(t *testing.T) {
	req := mustParse(t, "GET / HTTP/1.0\r\n\r\n")
	for name, value := range req.All {
		t.Errorf("field %q: %q", name, value)
	}
}

func TestControlBytesAreFoundAtEveryPlace(t *testing.T) {
	for size := range 40 {
		clean := bytes.Repeat([]byte{'v'}, size)
		if i := indexControl(clean); i >= 0 {
			t.Fatalf("%q: byte %d", clean, i)
		}
		for at := range size {
			for c := range 256 {
				b := bytes.Clone(clean)
				b[at] = byte(c)
				want := -1
				if c < 0x20 && c != '\t' || c == 0x7f {
					want = at
				}
				if got := indexControl(b); got != want {
					t.Fatalf("%q: got %d, want %d", b, got, want)
				}
			}
		}
	}
	if i := indexControl([]byte("\t\t\t\t\t\t\t\t\t\x00")); i != 9 {
		t.Errorf("behind tabs: %d", i)
	}
}

// bytes.EqualFold, which gobwas uses, takes U+017F for an s and U+212A for a k.
func TestCaseIsThatOfASCII(t *testing.T) {
	for _, c := range []struct {
		a, b string
		want bool
	}{
		{"WebSocket", "webSOCKET", true},
		{"webſocket", "websocket", false},
		{"webſocket", "webssocket", false},
		{"websoc\u212aet", "websocket", false},
		{"\u212a", "abc", false},
		{"[", "{", false},
		{"@", "`", false},
		{"a", "ab", false},
		{"", "", true},
	} {
		if got := equalFold([]byte(c.a), c.b); got != c.want {
			t.Errorf("%q and %q: %v", c.a, c.b, got)
		}
	}
}

func TestKnownFieldsAreKnownInAnyCase(t *testing.T) {
	names := map[string]int{
		"Host": fieldHost, "Origin": fieldOrigin, "Upgrade": fieldUpgrade, "Connection": fieldConnection,
		"Content-Length": fieldLength, "Transfer-Encoding": fieldEncoding, "Sec-WebSocket-Key": fieldKey,
		"Sec-WebSocket-Accept": fieldAccept, "Sec-WebSocket-Version": fieldVersion,
		"Sec-WebSocket-Protocol": fieldProtocol, "Sec-WebSocket-Extensions": fieldExtensions,
	}
	if len(names) != fieldCount {
		t.Errorf("%d names for %d fields", len(names), fieldCount)
	}
	for name, field := range names {
		for _, s := range []string{name, strings.ToLower(name), strings.ToUpper(name)} {
			if got := knownField([]byte(s)); got != field {
				t.Errorf("%s: %d, want %d", s, got, field)
			}
			other := s[:len(s)-1] + "~"
			if got := knownField([]byte(other)); got != fieldOther {
				t.Errorf("%s: %d", other, got)
			}
		}
	}
	if got := knownField([]byte("Accept")); got != fieldOther {
		t.Errorf("Accept: %d", got)
	}
	if got := knownField(nil); got != fieldOther {
		t.Errorf("no name: %d", got)
	}
}

func TestQuotedBytesAreHarmlessAndShort(t *testing.T) {
	if got := quote([]byte("a\r\n\x1b[2J\xffé")); got != `"a\r\n\x1b[2J\xff\u00e9"` {
		t.Errorf("got %s", got)
	}
	if got := quote(bytes.Repeat([]byte("x"), 64)); strings.HasSuffix(got, "...") {
		t.Errorf("64 bytes were cut: %s", got)
	}
	if got := quote(bytes.Repeat([]byte("x"), 65)); got != `"`+strings.Repeat("x", 64)+`"...` {
		t.Errorf("65 bytes: %s", got)
	}
}
