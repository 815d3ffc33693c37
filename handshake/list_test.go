package handshake

import (
	"slices"
	"strings"
	"testing"

	"github.com/gobwas/httphead"
)

// tokens reads a whole list; ok false means malformed.
func tokens(list string, next func([]byte) (tok, rest []byte, ok bool)) (all []string, ok bool) {
	for rest := []byte(list); ; {
		var tok []byte
		tok, rest, ok = next(rest)
		if tok == nil {
			return all, ok
		}
		all = append(all, string(tok))
	}
}

func TestTokenLists(t *testing.T) {
	for _, c := range []struct {
		list string
		ok   bool
		want []string
	}{
		{"", true, nil},
		{" \t,, ,", true, nil},
		{"chat", true, []string{"chat"}},
		{"chat, superchat", true, []string{"chat", "superchat"}},
		{" chat\t,\tsuperchat , ", true, []string{"chat", "superchat"}},
		{",,a,,b", true, []string{"a", "b"}},
		{"a b", false, nil}, // two tokens to httphead
		{"a, b c", false, []string{"a"}},
		{"a;b", false, nil},
		{`"a"`, false, nil},
		{"a,(b)", false, []string{"a"}},
		{"gr\xc3\xbcn", false, nil},
	} {
		got, ok := tokens(c.list, nextToken)
		if ok != c.ok || !slices.Equal(got, c.want) {
			t.Errorf("%q: %q, %v", c.list, got, ok)
		}
	}
}

func TestExtensionLists(t *testing.T) {
	for _, c := range []struct {
		list string
		ok   bool
		want []string
	}{
		// RFC 6455 §9.1
		{"deflate-stream", true, []string{"deflate-stream"}},
		{"mux; max-channels=4; flow-control, deflate-stream", true, []string{"mux", "deflate-stream"}},
		{"private-extension", true, []string{"private-extension"}},
		{"foo, bar; baz=2", true, []string{"foo", "bar"}},
		// RFC 7692 §7.1
		{"permessage-deflate; client_max_window_bits", true, []string{"permessage-deflate"}},
		{`permessage-deflate; client_max_window_bits; server_max_window_bits="10", permessage-deflate`, true, []string{"permessage-deflate", "permessage-deflate"}},
		{`a;b="c\d\e"`, true, []string{"a"}},
		{"a ; b = c ; d , e", true, []string{"a", "e"}},
		{" ,, a ,,", true, []string{"a"}},
		{"", true, nil},
		{"evil permessage-deflate", false, nil}, // permessage-deflate to httphead
		{"a;", false, nil},
		{"a;;b", false, nil},
		{";a", false, nil},
		{"=a", false, nil},
		{"a=b", false, nil},
		{"a;b=", false, nil},
		{"a;b=,c", false, nil},
		{`a;b=""`, false, nil},
		{`a;b="`, false, nil},
		{`a;b="c`, false, nil},
		{`a;b="c\`, false, nil},
		{`a;b="c d"`, false, nil},
		{`a;b="c"d`, false, nil},
		{`a;"b"`, false, nil},
		{`"a"`, false, nil},
		{"a;b=c d", false, nil},
	} {
		got, ok := tokens(c.list, nextExtension)
		if ok != c.ok || !slices.Equal(got, c.want) {
			t.Errorf("%q: %q, %v", c.list, got, ok)
		}
	}
}

func TestTokenBytesAreThoseOfHTTPHead(t *testing.T) {
	for c := range 256 {
		if tchar[c] != httphead.OctetTypes[c].IsToken() {
			t.Errorf("byte %#x: %v", c, tchar[c])
		}
	}
}

// FuzzLists holds our scanners against httphead: what we accept, it accepts, with the same elements. Only it takes a tab
// for a separator that is not white space, so tabs are left out.
func FuzzLists(f *testing.F) {
	for _, s := range []string{"chat, superchat", "a b", ",a", "mux; max-channels=4; flow-control, deflate-stream", `a;b="c\d"`, `a;b="c",d`} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		s = strings.ReplaceAll(s, "\t", " ")
		if all, ok := tokens(s, nextToken); ok && all != nil {
			var theirs []string
			if !httphead.ScanTokens([]byte(s), func(v []byte) bool { theirs = append(theirs, string(v)); return true }) || !slices.Equal(all, theirs) {
				t.Fatalf("%q: %q, httphead %q", s, all, theirs)
			}
			for _, tok := range all {
				if !hasToken([]byte(s), tok) {
					t.Fatalf("%q has no %q", s, tok)
				}
			}
		}
		if all, ok := tokens(s, nextExtension); ok && all != nil {
			options, ok := httphead.ParseOptions([]byte(s), nil)
			var theirs []string
			for _, o := range options {
				theirs = append(theirs, string(o.Name))
			}
			if !ok || !slices.Equal(all, theirs) {
				t.Fatalf("%q: %q, httphead %q, %v", s, all, theirs, ok)
			}
		}
	})
}
