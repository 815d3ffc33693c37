package handshake

import (
	"slices"
	"strings"
	"testing"

	"github.com/gobwas/httphead"
	"github.com/gobwas/ws/wsflate"
)

// FuzzDeflate: whatever the lines, the answer is one that our client accepts for them, it costs no memory, and what
// both wsflate and we can read, we read alike.
func FuzzDeflate(f *testing.F) {
	for _, s := range []string{
		"", pmd, pmd + "; client_max_window_bits", pmd + `; server_max_window_bits="1\0"; client_max_window_bits=12|` + pmd,
		pmd + "; server_no_context_takeover; client_no_context_takeover, x-foo; a=b", pmd + "; x|" + pmd + "; server_max_window_bits=15",
		pmd + "; client_max_window_bits, " + pmd + "; client_max_window_bits=10; client_no_context_takeover",
	} {
		f.Add(s, uint8(0), uint8(0), uint8(0))
		f.Add(s, uint8(3), uint8(10), uint8(9))
	}
	f.Fuzz(func(t *testing.T, s string, flags, server, client uint8) {
		if len(s) > 600 {
			return
		}
		var req Request
		if n, err := ParseRequest([]byte(extensionHead(strings.Split(s, "|")...)), nil, &req); err != nil || n == 0 {
			return
		}
		var a Answer
		o := DeflateOptions{flags&1 > 0, flags&2 > 0, server, client}
		if n := testing.AllocsPerRun(4, func() { a.AcceptDeflate(&req, &o) }); n != 0 {
			t.Fatalf("%q: %v allocations", s, n)
		}
		if Check(&req, &Options{Deflate: &o}, &a) != nil {
			return
		}
		var lines []string
		req.Each("Sec-WebSocket-Extensions", func(v []byte) bool { lines = append(lines, string(v)); return true })
		h := Hello{Key: a.Key, Extensions: strings.Join(lines, ",")}
		answer, resp := answered(t, &a)
		err := resp.Check(&h)
		// Hints of several offers that fit can bind the client to more than the server holds it to.
		c, d := resp.Deflate, a.Deflate
		if err != nil || c.On != d.On || c.ServerNoContext != d.ServerNoContext || c.ServerBits != d.ServerBits ||
			d.ClientNoContext && !c.ClientNoContext || c.ClientBits > d.ClientBits {
			t.Fatalf("%q: answered %q, %v\nserver %+v\nclient %+v", s, answer, err, d, c)
		}
		if !d.On {
			return
		}
		if slices.Min([]uint8{c.ServerBits, c.ClientBits}) < 8 || slices.Max([]uint8{d.ServerBits, d.ClientBits}) > 15 {
			t.Fatalf("%q: server %+v, client %+v", s, d, c)
		}
		compareWithWSFlate(t, h.Extensions)
		compareWithWSFlate(t, answer)
	})
}

// compareWithWSFlate reads each permessage-deflate of the list with wsflate too.
func compareWithWSFlate(t *testing.T, list string) {
	t.Helper()
	for rest := []byte(list); ; {
		before := rest
		name, params, after, _ := cutExtension(rest)
		if name == nil {
			return
		}
		rest = after
		if string(name) != pmd {
			continue
		}
		ours, _, why := parseDeflate(params)
		element := strings.ReplaceAll(string(before[:len(before)-len(after)]), "\t", " ") // no white space to httphead
		options, ok := httphead.ParseOptions([]byte(element), nil)
		if why != "" || !ok || len(options) != 1 {
			continue
		}
		var theirs wsflate.Parameters
		if theirs.Parse(options[0]) != nil {
			continue
		}
		wantClient := wsflate.WindowBits(ours.clientBits)
		if ours.client && ours.clientBits == 0 {
			wantClient = 1 // their way to say that it has no value
		}
		if want := (wsflate.Parameters{
			ServerNoContextTakeover: ours.serverNoContext, ClientNoContextTakeover: ours.clientNoContext,
			ServerMaxWindowBits: wsflate.WindowBits(ours.serverBits), ClientMaxWindowBits: wantClient,
		}); theirs != want {
			t.Fatalf("%q: %+v, wsflate %+v", element, want, theirs)
		}
	}
}
