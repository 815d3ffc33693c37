package handshake

import (
	"errors"
	"strings"
	"testing"

	"github.com/gobwas/ws"
)

// extensionHead is a request of HTTP/1.1 with these Sec-WebSocket-Extensions lines.
func extensionHead(lines ...string) string {
	var head strings.Builder
	head.WriteString(strings.TrimSuffix(edit(sameOrigin), "\r\n"))
	for _, l := range lines {
		head.WriteString("Sec-WebSocket-Extensions: " + l + "\r\n")
	}
	return head.String() + "\r\n"
}

// answered gives the value of Sec-WebSocket-Extensions in the 101 for a; "" when there is none.
func answered(t testing.TB, a *Answer) (string, Response) {
	t.Helper()
	var r Response
	head := AppendAnswer(nil, a, nil)
	if n, err := ParseResponse(head, nil, &r); err != nil || n != len(head) {
		t.Fatal(n, err)
	}
	return string(r.Extensions), r
}

const pmd = "permessage-deflate"

func TestOffersOfDeflateAndTheirAnswers(t *testing.T) {
	var (
		plain    = DeflateOptions{}
		frugal   = DeflateOptions{ServerNoContext: true, ClientNoContext: true}
		narrow   = DeflateOptions{ServerBits: 11, ClientBits: 10}
		smallest = DeflateOptions{ServerNoContext: true, ClientNoContext: true, ServerBits: 8, ClientBits: 8}
		full     = DeflateOptions{ServerBits: 15, ClientBits: 15}
	)
	for _, c := range []struct {
		offer string // lines are parted by |
		opts  DeflateOptions
		want  string // empty: declined
	}{
		// Each parameter alone, for a server that wants nothing.
		{pmd, plain, pmd},
		{pmd + "; server_no_context_takeover", plain, pmd + "; server_no_context_takeover"},
		{pmd + "; client_no_context_takeover", plain, pmd + "; client_no_context_takeover"},
		{pmd + "; server_max_window_bits=8", plain, pmd + "; server_max_window_bits=8"},
		{pmd + "; server_max_window_bits=9", plain, pmd + "; server_max_window_bits=9"},
		{pmd + "; server_max_window_bits=10", plain, pmd + "; server_max_window_bits=10"}, // 15 of wsflate.Extension
		{pmd + "; server_max_window_bits=15", plain, pmd + "; server_max_window_bits=15"},
		{pmd + "; client_max_window_bits", plain, pmd},
		{pmd + "; client_max_window_bits=8", plain, pmd + "; client_max_window_bits=8"},
		{pmd + "; client_max_window_bits=15", plain, pmd + "; client_max_window_bits=15"},
		{pmd + "; client_max_window_bits", full, pmd},

		// A server that wants something, asked or not.
		{pmd, frugal, pmd + "; server_no_context_takeover; client_no_context_takeover"},
		{pmd, DeflateOptions{ServerNoContext: true}, pmd + "; server_no_context_takeover"},
		{pmd, DeflateOptions{ClientNoContext: true}, pmd + "; client_no_context_takeover"},
		{pmd + "; client_no_context_takeover; server_no_context_takeover", frugal, pmd + "; server_no_context_takeover; client_no_context_takeover"},
		{pmd, full, pmd},
		{pmd, narrow, pmd + "; server_max_window_bits=11"},
		{pmd + "; server_max_window_bits=12", narrow, pmd + "; server_max_window_bits=11"},
		{pmd + "; server_max_window_bits=11", narrow, pmd + "; server_max_window_bits=11"},
		{pmd + "; server_max_window_bits=9", narrow, pmd + "; server_max_window_bits=9"},
		{pmd + "; client_max_window_bits", narrow, pmd + "; server_max_window_bits=11; client_max_window_bits=10"},
		{pmd + "; client_max_window_bits=12", narrow, pmd + "; server_max_window_bits=11; client_max_window_bits=10"},
		{pmd + "; client_max_window_bits=9", narrow, pmd + "; server_max_window_bits=11; client_max_window_bits=9"},

		// All together.
		{
			pmd + "; client_max_window_bits; server_max_window_bits=14; client_no_context_takeover; server_no_context_takeover", plain,
			pmd + "; server_no_context_takeover; client_no_context_takeover; server_max_window_bits=14",
		},
		{pmd, smallest, pmd + "; server_no_context_takeover; client_no_context_takeover; server_max_window_bits=8"},
		{
			pmd + "; client_max_window_bits", smallest,
			pmd + "; server_no_context_takeover; client_no_context_takeover; server_max_window_bits=8; client_max_window_bits=8",
		},
		{pmd, DeflateOptions{ServerBits: 3, ClientBits: 3}, pmd + "; server_max_window_bits=8"},
		{pmd + "; client_max_window_bits", DeflateOptions{ServerBits: 99, ClientBits: 99}, pmd},

		// Spaces, quotes, escapes.
		{pmd + ";server_max_window_bits=10;client_max_window_bits=9", plain, pmd + "; server_max_window_bits=10; client_max_window_bits=9"},
		{" \t" + pmd + " ;\tserver_max_window_bits = 10 ; client_max_window_bits\t=\t9 ", plain, pmd + "; server_max_window_bits=10; client_max_window_bits=9"},
		{pmd + `; server_max_window_bits="10"; client_max_window_bits="9"`, plain, pmd + "; server_max_window_bits=10; client_max_window_bits=9"},
		{pmd + `; server_max_window_bits="\10"; client_max_window_bits="1\2"`, plain, pmd + "; server_max_window_bits=10; client_max_window_bits=12"},
		{pmd + `; server_max_window_bits="\1\0"`, plain, pmd + "; server_max_window_bits=10"},

		// Other extensions and fallbacks, on one line and on several.
		{"", plain, ""},
		{"x-foo; a=b", plain, ""},
		{"x-foo; " + pmd, plain, ""},
		{"x-foo; a=" + pmd + ", " + pmd, plain, pmd},
		{"x-foo, " + pmd + ", x-bar", plain, pmd},
		{"x-foo| |x-bar, " + pmd + "; client_max_window_bits=9|" + pmd, plain, pmd + "; client_max_window_bits=9"},
		{pmd + "; server_max_window_bits=10, " + pmd, plain, pmd + "; server_max_window_bits=10"},
		{pmd + "; x=1, " + pmd + "; server_max_window_bits=7," + pmd + "; client_no_context_takeover", plain, pmd + "; client_no_context_takeover"},
		{pmd + "; x=1|" + pmd + "; server_max_window_bits=7|" + pmd + "; client_no_context_takeover", plain, pmd + "; client_no_context_takeover"},
		// What a declined offer had says nothing of the next.
		{pmd + "; server_no_context_takeover; server_max_window_bits=9; client_max_window_bits=9; x, " + pmd, plain, pmd},
		{pmd + "; server_no_context_takeover; x, " + pmd + "; server_no_context_takeover", plain, pmd + "; server_no_context_takeover"},

		// Declined.
		{pmd + "; x", plain, ""},
		{pmd + "; x, " + pmd + "; y=1", plain, ""},
		{pmd + "; server_no_context_takeover=1", plain, ""},
		{pmd + "; server_no_context_takeover=true", plain, ""},
		{pmd + `; client_no_context_takeover="1"`, plain, ""},
		{pmd + "; server_max_window_bits", plain, ""},
		{pmd + "; server_max_window_bits=7", plain, ""},
		{pmd + "; server_max_window_bits=16", plain, ""},
		{pmd + "; server_max_window_bits=0", plain, ""},
		{pmd + "; server_max_window_bits=1", plain, ""},
		{pmd + "; server_max_window_bits=08", plain, ""},
		{pmd + "; server_max_window_bits=010", plain, ""},
		{pmd + "; server_max_window_bits=100", plain, ""},
		{pmd + "; server_max_window_bits=151", plain, ""},
		{pmd + "; server_max_window_bits=266", plain, ""}, // 10 in eight bits
		{pmd + "; server_max_window_bits=2570", plain, ""},
		{pmd + "; server_max_window_bits=4294967306", plain, ""},
		{pmd + "; server_max_window_bits=+9", plain, ""},
		{pmd + "; server_max_window_bits=-9", plain, ""},
		{pmd + "; server_max_window_bits=0xa", plain, ""},
		{pmd + "; server_max_window_bits=a", plain, ""},
		{pmd + "; server_max_window_bits=1a", plain, ""},
		{pmd + "; server_max_window_bits=9.0", plain, ""},
		{pmd + `; server_max_window_bits="08"`, plain, ""},
		{pmd + `; server_max_window_bits="\08"`, plain, ""},
		{pmd + "; client_max_window_bits=7", plain, ""},
		{pmd + "; client_max_window_bits=16", plain, ""},
		{pmd + "; client_max_window_bits=08", plain, ""},
		{pmd + "; client_max_window_bits=+9", plain, ""},
		{pmd + "; client_max_window_bits=nine", plain, ""},
		{pmd + "; server_no_context_takeover; server_no_context_takeover", plain, ""},
		{pmd + "; client_no_context_takeover; client_no_context_takeover", plain, ""},
		{pmd + "; server_max_window_bits=10; server_max_window_bits=10", plain, ""},
		{pmd + "; client_max_window_bits; client_max_window_bits", plain, ""},
		{pmd + "; client_max_window_bits=10; client_max_window_bits", plain, ""},
		{pmd + "; client_max_window_bits; client_max_window_bits=10", plain, ""},

		// Names are compared by case, and whole.
		{"Permessage-Deflate", plain, ""},
		{pmd + "; Server_No_Context_Takeover", plain, ""},
		{pmd + "; CLIENT_MAX_WINDOW_BITS", plain, ""},
		{"PERMESSAGE-DEFLATE, " + pmd, plain, pmd},
		{"permessage-deflat", plain, ""},
		{"permessage-deflates", plain, ""},
		{"x-webkit-deflate-frame", plain, ""},
		{pmd + "; server_max_window_bit=10", plain, ""},
		{pmd + "; max_window_bits=10", plain, ""},
	} {
		req := mustParse(t, extensionHead(strings.Split(c.offer, "|")...))
		if c.offer == "" {
			req = mustParse(t, extensionHead())
		}
		var a Answer
		if err := Check(req, &Options{Deflate: &c.opts}, &a); err != nil {
			t.Errorf("%q: %v", c.offer, err)
			continue
		}
		got, resp := answered(t, &a)
		if got != c.want || a.Deflate.On != (c.want != "") {
			t.Errorf("%q: answered %q, agreed %+v; want %q", c.offer, got, a.Deflate, c.want)
		}
		if !a.Deflate.On && a.Deflate != (Deflate{}) {
			t.Errorf("%q: declined with %+v", c.offer, a.Deflate)
		}
		// The client which made the offer agrees.
		h := Hello{Key: req.Key, Extensions: strings.ReplaceAll(c.offer, "|", ",")}
		if err := resp.Check(&h); err != nil || resp.Deflate != a.Deflate {
			t.Errorf("%q: %v, server %+v, client %+v", c.offer, err, a.Deflate, resp.Deflate)
		}
	}
}

func TestABadListIsRefusedAndABadOfferIsNot(t *testing.T) {
	opts := Options{Deflate: &DeflateOptions{}}
	for _, list := range []string{
		pmd + ";", pmd + "; server_max_window_bits=", pmd + `; server_max_window_bits=""`, pmd + `; server_max_window_bits="1 0"`,
		pmd + `; server_max_window_bits="10`, pmd + " server_no_context_takeover", pmd + "; =10", pmd + ", " + pmd + ";", "",
	} {
		var a Answer
		r := refusal(t, Check(mustParse(t, extensionHead(list)), &opts, &a), 400)
		if r != refuseExtensionSyntax || a.Deflate.On {
			t.Errorf("%q: %v, %+v", list, r, a.Deflate)
		}
	}
	// Who asks for an answer without Check gets none out of what follows the fault.
	var a Answer
	if a.AcceptDeflate(mustParse(t, extensionHead("x-foo;, "+pmd, pmd)), opts.Deflate) {
		t.Errorf("%+v", a.Deflate)
	}
}

func TestWithoutOptionsNothingIsCompressed(t *testing.T) {
	req := mustParse(t, chromium)
	var a Answer
	if err := Check(req, &Options{Origins: []string{"*"}}, &a); err != nil || a.Deflate.On {
		t.Fatal(err, a.Deflate)
	}
	// A server may decide after Check, and take it back.
	if !a.AcceptDeflate(req, &DeflateOptions{ClientBits: 12}) || a.Deflate != (Deflate{On: true, ServerBits: 15, ClientBits: 12}) {
		t.Errorf("%+v", a.Deflate)
	}
	a.Extensions = []byte("x-foo; a=1, x-bar")
	if got, _ := answered(t, &a); got != pmd+"; client_max_window_bits=12, x-foo; a=1, x-bar" {
		t.Errorf("%q", got)
	}
	a.Deflate = Deflate{}
	if got, _ := answered(t, &a); got != "x-foo; a=1, x-bar" {
		t.Errorf("%q", got)
	}
	a.Extensions = nil
	if got, _ := answered(t, &a); got != "" {
		t.Errorf("%q", got)
	}
}

func TestAnAnswerThatIsUsedAgainForgetsTheLastOffer(t *testing.T) {
	var a Answer
	for _, c := range []struct{ offer, want string }{
		{pmd + "; server_max_window_bits=15; client_max_window_bits=15", pmd + "; server_max_window_bits=15; client_max_window_bits=15"},
		{pmd, pmd},
		{"x", ""},
	} {
		a.AcceptDeflate(mustParse(t, extensionHead(c.offer)), &DeflateOptions{})
		if got, _ := answered(t, &a); got != c.want {
			t.Errorf("%q: %q", c.offer, got)
		}
	}
}

func TestWhatAClientOffers(t *testing.T) {
	for _, c := range []struct {
		offers []DeflateOffer
		want   string
	}{
		{nil, ""},
		{[]DeflateOffer{{}}, pmd},
		{[]DeflateOffer{{ClientBits: 15}}, pmd + "; client_max_window_bits"}, // what browsers offer
		{[]DeflateOffer{{ClientBits: 14}}, pmd + "; client_max_window_bits=14"},
		{[]DeflateOffer{{ServerBits: 15}}, pmd + "; server_max_window_bits=15"},
		{[]DeflateOffer{{ServerBits: 3, ClientBits: 99}}, pmd + "; server_max_window_bits=8; client_max_window_bits"},
		{
			[]DeflateOffer{{ServerNoContext: true, ClientNoContext: true, ServerBits: 9, ClientBits: 8}, {ClientBits: 15}, {}},
			pmd + "; server_no_context_takeover; client_no_context_takeover; server_max_window_bits=9; client_max_window_bits=8, " +
				pmd + "; client_max_window_bits, " + pmd,
		},
	} {
		if got := AppendDeflateOffers([]byte("-"), c.offers...); string(got) != "-"+c.want {
			t.Errorf("%+v: %q", c.offers, got)
		}
	}
}

func TestAnswersThatAClientAcceptsAndFails(t *testing.T) {
	const (
		chat = "x-foo, "
		ask  = pmd + "; server_no_context_takeover; server_max_window_bits=10; client_max_window_bits=12"
	)
	for _, c := range []struct {
		offer, answer string
		want          Deflate // when says is empty
		section, says string
	}{
		{"x-foo", "x-foo", Deflate{}, "", ""},
		{pmd, "", Deflate{}, "", ""},
		{chat + pmd, "x-foo", Deflate{}, "", ""},
		{pmd, pmd, Deflate{true, false, false, 15, 15}, "", ""},
		{chat + pmd, "x-foo, " + pmd, Deflate{true, false, false, 15, 15}, "", ""},
		// Unasked, and allowed.
		{pmd, pmd + "; server_no_context_takeover", Deflate{true, true, false, 15, 15}, "", ""},
		{pmd, pmd + "; client_no_context_takeover", Deflate{true, false, true, 15, 15}, "", ""},
		{pmd, pmd + "; server_max_window_bits=15", Deflate{true, false, false, 15, 15}, "", ""},
		{pmd, pmd + "; server_max_window_bits=8", Deflate{true, false, false, 8, 15}, "", ""},
		{pmd, pmd + ` ; server_max_window_bits = "\9"`, Deflate{true, false, false, 9, 15}, "", ""},
		{pmd + "; client_max_window_bits", pmd + "; client_max_window_bits=8", Deflate{true, false, false, 15, 8}, "", ""},
		{pmd + "; client_max_window_bits", pmd + "; client_max_window_bits=15", Deflate{true, false, false, 15, 15}, "", ""},
		{pmd + "; client_max_window_bits", pmd, Deflate{true, false, false, 15, 15}, "", ""},
		{ask, pmd + "; server_no_context_takeover; server_max_window_bits=10; client_max_window_bits=12", Deflate{true, true, false, 10, 12}, "", ""},
		{ask, pmd + "; client_max_window_bits=8; server_max_window_bits=8; client_no_context_takeover; server_no_context_takeover", Deflate{true, true, true, 8, 8}, "", ""},
		// What the client said of itself holds without an answer.
		{ask, pmd + "; server_no_context_takeover; server_max_window_bits=10", Deflate{true, true, false, 10, 12}, "", ""},
		{pmd + "; client_no_context_takeover", pmd, Deflate{true, false, true, 15, 15}, "", ""},
		// Fallbacks: one offer must fit.
		{ask + ", " + pmd, pmd, Deflate{true, false, false, 15, 15}, "", ""},
		{ask + ", " + pmd, pmd + "; server_max_window_bits=11", Deflate{true, false, false, 11, 15}, "", ""},
		{ask + ", " + pmd, pmd + "; server_no_context_takeover; server_max_window_bits=10; client_max_window_bits=12", Deflate{true, true, false, 10, 12}, "", ""},
		{ask + ", x-foo, " + pmd + "; client_max_window_bits", pmd + "; client_max_window_bits=13", Deflate{true, false, false, 15, 13}, "", ""},
		{pmd + "; client_max_window_bits=9, " + pmd + "; client_no_context_takeover", pmd, Deflate{true, false, true, 15, 9}, "", ""},
		{pmd + "; unknown, " + pmd, pmd, Deflate{true, false, false, 15, 15}, "", ""},

		// Not offered.
		{"", pmd, Deflate{}, "RFC 6455 §4.1 response item 5", "was not offered"},
		{"x-foo", pmd, Deflate{}, "RFC 6455 §4.1 response item 5", "was not offered"},
		{pmd, "Permessage-Deflate", Deflate{}, "RFC 6455 §4.1 response item 5", `"Permessage-Deflate", which was not offered`},
		{pmd + "; unknown", pmd, Deflate{}, "RFC 7692 §7.1", "no valid offer"},
		{pmd, pmd + ", " + pmd, Deflate{}, "RFC 7692 §5", "it is there twice"},
		{pmd + ", " + pmd, pmd + ", " + pmd + "; server_no_context_takeover", Deflate{}, "RFC 7692 §5", "it is there twice"},
		// Bad parameters.
		{pmd, pmd + "; x=1", Deflate{}, "RFC 7692 §7.1", `"x" is unknown`},
		{pmd, pmd + "; Server_no_context_takeover", Deflate{}, "RFC 7692 §7.1", `"Server_no_context_takeover" is unknown`},
		{pmd, pmd + "; server_no_context_takeover=1", Deflate{}, "RFC 7692 §7.1", `"server_no_context_takeover" takes no value`},
		{pmd, pmd + "; client_no_context_takeover=1", Deflate{}, "RFC 7692 §7.1", `"client_no_context_takeover" takes no value`},
		{pmd, pmd + "; server_no_context_takeover; server_no_context_takeover", Deflate{}, "RFC 7692 §7.1", `"server_no_context_takeover" is there twice`},
		{pmd, pmd + "; server_max_window_bits", Deflate{}, "RFC 7692 §7.1", `"server_max_window_bits" needs a value of 8 to 15`},
		{pmd, pmd + "; server_max_window_bits=16", Deflate{}, "RFC 7692 §7.1", `"server_max_window_bits" needs a value of 8 to 15`},
		{ask, pmd + "; client_max_window_bits=7", Deflate{}, "RFC 7692 §7.1", `"client_max_window_bits" needs a value of 8 to 15`},
		{pmd + "; client_max_window_bits", pmd + "; client_max_window_bits", Deflate{}, "RFC 7692 §7.1", `"client_max_window_bits" needs a value of 8 to 15`},
		{pmd + "; client_max_window_bits", pmd + "; client_max_window_bits; client_max_window_bits=9", Deflate{}, "RFC 7692 §7.1", `is there twice`},
		// Good parameters that are no answer to the offer.
		{ask, pmd + "; server_max_window_bits=10", Deflate{}, "RFC 7692 §7.1.1.1", "server_no_context_takeover was asked and is missing"},
		{ask, pmd + "; server_no_context_takeover", Deflate{}, "RFC 7692 §7.1.2.1", "server_max_window_bits=10 was asked and is missing"},
		{ask, pmd + "; server_no_context_takeover; server_max_window_bits=11", Deflate{}, "RFC 7692 §7.1.2.1", "server_max_window_bits=10 was asked and 11 answered"},
		{pmd + "; server_max_window_bits=15", pmd, Deflate{}, "RFC 7692 §7.1.2.1", "server_max_window_bits=15 was asked and is missing"},
		{pmd, pmd + "; client_max_window_bits=15", Deflate{}, "RFC 7692 §7.1.2.2", "client_max_window_bits was not offered"},
		{ask, pmd + "; server_no_context_takeover; server_max_window_bits=10; client_max_window_bits=13", Deflate{}, "RFC 7692 §7.1.2.2", "client_max_window_bits=12 was offered and 13 answered"},
		{ask + ", " + pmd, pmd + "; client_max_window_bits=12", Deflate{}, "RFC 7692 §7.1.2.2", "client_max_window_bits was not offered"},
		{ask + ", " + pmd + "; unknown", pmd, Deflate{}, "RFC 7692 §7.1.1.1", "was asked and is missing"},
	} {
		a := Answer{Key: []byte("dGhlIHNhbXBsZSBub25jZQ=="), Extensions: []byte(c.answer)}
		_, r := answered(t, &a)
		r.Deflate = Deflate{On: true, ServerBits: 99} // of a response before
		err := r.Check(&Hello{Key: a.Key, Extensions: c.offer})
		if c.says == "" {
			if err != nil || r.Deflate != c.want {
				t.Errorf("offered %q, answered %q: %v, %+v", c.offer, c.answer, err, r.Deflate)
			}
			continue
		}
		if e := answerError(t, err); e.Status != 101 || e.Section != c.section || !strings.Contains(e.Msg, c.says) || !errors.Is(err, ws.ErrHandshakeBadExtensions) {
			t.Errorf("offered %q, answered %q: %+v", c.offer, c.answer, e)
		}
	}
}

// TestBothSidesAgreeOnEveryOfferAndOption plays every offer against every option and holds the agreement against the
// rules written down once more, as a formula.
func TestBothSidesAgreeOnEveryOfferAndOption(t *testing.T) {
	bits := []uint8{0, 8, 11, 12, 15}
	or15 := func(b uint8) uint8 {
		if b == 0 {
			return 15
		}
		return b
	}
	var offers []DeflateOffer
	for i := range 4 * len(bits) * len(bits) {
		offers = append(offers, DeflateOffer{i&1 > 0, i&2 > 0, bits[i/4%len(bits)], bits[i/4/len(bits)]})
	}
	var (
		req      Request
		resp     Response
		ans      Answer
		out, ext []byte
		pairs    int
	)
	h := Hello{Host: "a", Key: AppendKey(nil, [16]byte{7})}
	for _, of := range offers {
		// The fallback must change nothing: the first offer is valid, and a server of ours takes it.
		for _, fallback := range [][]DeflateOffer{nil, {{ClientBits: 15}}} {
			ext = AppendDeflateOffers(ext[:0], append([]DeflateOffer{of}, fallback...)...)
			h.Extensions = string(ext)
			up := AppendRequest(nil, &h)
			if n, err := ParseRequest(up, nil, &req); err != nil || n != len(up) {
				t.Fatal(n, err)
			}
			for _, op := range offers {
				opts := Options{Deflate: &DeflateOptions{op.ServerNoContext, op.ClientNoContext, op.ServerBits, op.ClientBits}}
				if err := Check(&req, &opts, &ans); err != nil {
					t.Fatal(err)
				}
				want := Deflate{
					On:              true,
					ServerNoContext: of.ServerNoContext || op.ServerNoContext,
					ClientNoContext: of.ClientNoContext || op.ClientNoContext,
					ServerBits:      min(or15(of.ServerBits), or15(op.ServerBits)),
					ClientBits:      15,
				}
				if of.ClientBits != 0 {
					want.ClientBits = min(of.ClientBits, or15(op.ClientBits))
				}
				out = AppendAnswer(out[:0], &ans, &opts)
				if n, err := ParseResponse(out, nil, &resp); err != nil || n != len(out) {
					t.Fatal(n, err)
				}
				if err := resp.Check(&h); err != nil || ans.Deflate != want || resp.Deflate != want {
					t.Fatalf("offered %q, options %+v: %v\nserver %+v\nclient %+v\nwant   %+v", h.Extensions, *opts.Deflate, err, ans.Deflate, resp.Deflate, want)
				}
				pairs++
			}
		}
	}
	if pairs != 2*100*100 {
		t.Errorf("%d pairs", pairs)
	}
}

func TestNegotiatingDeflateAllocatesNothing(t *testing.T) {
	const offers = pmd + "; x, " + pmd + `; server_max_window_bits="1\0"; client_max_window_bits=12; client_no_context_takeover, ` + pmd
	in := []byte(extensionHead("x-foo; a=b", offers))
	opts := Options{Deflate: &DeflateOptions{ServerNoContext: true, ServerBits: 9, ClientBits: 11}}
	h := Hello{Key: []byte("dGhlIHNhbXBsZSBub25jZQ=="), Extensions: offers}
	var (
		req  Request
		ans  Answer
		resp Response
		err  error
	)
	out, ext := make([]byte, 0, 512), make([]byte, 0, 256)
	if n := testing.AllocsPerRun(200, func() {
		if _, err = ParseRequest(in, nil, &req); err == nil {
			err = Check(&req, &opts, &ans)
		}
		out = AppendAnswer(out[:0], &ans, &opts)
	}); n != 0 || err != nil {
		t.Errorf("the server: %v allocations, %v", n, err)
	}
	if n := testing.AllocsPerRun(200, func() {
		ext = AppendDeflateOffers(ext[:0], DeflateOffer{ServerBits: 10, ClientBits: 12, ClientNoContext: true}, DeflateOffer{})
		if _, err = ParseResponse(out, nil, &resp); err == nil {
			err = resp.Check(&h)
		}
	}); n != 0 || err != nil {
		t.Errorf("the client: %v allocations, %v", n, err)
	}
	if want := (Deflate{true, true, true, 9, 11}); ans.Deflate != want || resp.Deflate != want {
		t.Errorf("server %+v, client %+v", ans.Deflate, resp.Deflate)
	}
}

func TestWindowsThatDoNotExistAreReported(t *testing.T) {
	for bits := range uint8(20) {
		good := bits == 0 || bits >= 8 && bits <= 15
		for _, d := range []DeflateOptions{{ServerBits: bits}, {ClientBits: bits}} {
			if err := (&Options{Deflate: &d}).Validate(); (err == nil) != good {
				t.Errorf("%+v: %v", d, err)
			}
		}
	}
}

// BenchmarkAcceptDeflate is what the negotiation adds to a handshake.
func BenchmarkAcceptDeflate(b *testing.B) {
	var (
		req Request
		a   Answer
		o   = DeflateOptions{ClientNoContext: true, ClientBits: 12}
		out = make([]byte, 0, 128)
	)
	if _, err := ParseRequest([]byte(chromium), nil, &req); err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		if !a.AcceptDeflate(&req, &o) {
			b.Fatal("declined")
		}
		out = a.appendDeflate(out[:0])
	}
}
