package inspect

import (
	"slices"
	"strings"
	"testing"

	"wspoll/frame"
	"wspoll/handshake"

	"github.com/gobwas/ws"
)

// sample is what a client sends to break one rule, and what the RFC demands.
type sample struct {
	kind    string
	bytes   []byte
	section string
	code    ws.StatusCode
	cure    string // a part of it
	deflate bool   // permessage-deflate is agreed on
}

// limit is that of the receiver in the samples, and so short are the other messages.
const sampleLimit = 1024

var samples = []sample{
	{"opcode-reserved-data", fromClient(0x83, "x"), "RFC 6455 §5.2", 1002, "text (1) or binary (2)", false},
	{"opcode-reserved-data", fromClient(0x07, ""), "RFC 6455 §5.2", 1002, "text (1) or binary (2)", false},
	{"opcode-reserved-control", fromClient(0x8b, ""), "RFC 6455 §5.2", 1002, "close (8), ping (9)", false},
	{"opcode-reserved-control", fromClient(0x8f, "x"), "RFC 6455 §5.2", 1002, "close (8), ping (9)", false},
	{"rsv1-not-agreed", fromClient(0xc1, "x"), "RFC 6455 §5.2", 1002, "permessage-deflate", false},
	{"rsv1-not-agreed", fromClient(0xc9, "x"), "RFC 6455 §5.2", 1002, "permessage-deflate", false},
	{"rsv2", fromClient(0xa1, "x"), "RFC 6455 §5.2", 1002, "clear RSV2", false},
	{"rsv3", fromClient(0x92, "x"), "RFC 6455 §5.2", 1002, "clear RSV3", false},
	{"rsv1-on-control", fromClient(0xc9, "x"), "RFC 6455 §5.2", 1002, "never compressed", true},
	{"rsv1-on-continuation", joined(fromClient(0x42, "\xf2\x48"), fromClient(0xc0, "\xcd\xc9\xc9\x07\x00")), "RFC 6455 §5.2", 1002, "first frame", true},
	{"close-fragmented", fromClient(0x08, "\x03\xe8"), "RFC 6455 §5.5", 1002, "one frame", false},
	{"ping-fragmented", fromClient(0x09, "x"), "RFC 6455 §5.5", 1002, "one frame", false},
	{"pong-fragmented", fromClient(0x0a, "x"), "RFC 6455 §5.5", 1002, "one frame", false},
	{"close-too-long", fromClient(0x88, "\x03\xe8"+strings.Repeat("x", 124)), "RFC 6455 §5.5", 1002, "123 bytes", false},
	{"ping-too-long", fromClient(0x89, strings.Repeat("x", 126)), "RFC 6455 §5.5", 1002, "125 bytes", false},
	{"pong-too-long", fromClient(0x8a, strings.Repeat("x", 126)), "RFC 6455 §5.5", 1002, "125 bytes", false},
	{"continuation-without-message", fromClient(0x80, "x"), "RFC 6455 §5.4", 1002, "begin a message", false},
	{"continuation-without-message", joined(fromClient(0x81, "x"), fromClient(0x80, "x")), "RFC 6455 §5.4", 1002, "begin a message", false},
	{"text-inside-message", joined(fromClient(0x01, "x"), fromClient(0x81, "y")), "RFC 6455 §5.4", 1002, "continuation (0)", false},
	{"binary-inside-message", joined(fromClient(0x02, "x"), fromClient(0x89, ""), fromClient(0x82, "y")), "RFC 6455 §5.4", 1002, "continuation (0)", false},
	{"mask-missing", fromServer(0x81, "x"), "RFC 6455 §5.1", 1002, "random key", false},
	{"mask-missing", fromServer(0x89, ""), "RFC 6455 §5.1", 1002, "random key", false},
	{"length-16-not-minimal", wire("82 fe 007d 00000000" + strings.Repeat("41", 125)), "RFC 6455 §5.2", 1002, "7 bits", false},
	{"length-16-not-minimal", wire("81 fe 0000 00000000"), "RFC 6455 §5.2", 1002, "7 bits", false},
	{"length-64-not-minimal", wire("82 ff 0000000000000001 00000000 41"), "RFC 6455 §5.2", 1002, "16 bits", false},
	{"length-64-not-minimal", wire("82 ff 000000000000ffff 00000000"), "RFC 6455 §5.2", 1002, "16 bits", false},
	{"length-top-bit", wire("82 ff 8000000000000001 00000000"), "RFC 6455 §5.2", 1002, "byte order", false},
	{"message-too-large", fromClient(0x82, strings.Repeat("x", sampleLimit+1)), "RFC 6455 §10.4", 1009, "smaller messages", false},
	{"message-too-large", joined(fromClient(0x02, strings.Repeat("x", sampleLimit)), fromClient(0x80, "y")), "RFC 6455 §10.4", 1009, "smaller messages", false},
	{"utf8-continuation-alone", fromClient(0x81, "x\x80"), "RFC 6455 §8.1", 1007, "binary (2)", false},
	{"utf8-overlong", fromClient(0x81, "\xc0\x80"), "RFC 6455 §8.1", 1007, "shortest form", false},
	{"utf8-overlong", fromClient(0x81, "\xe0\x9f\x80"), "RFC 6455 §8.1", 1007, "shortest form", false},
	{"utf8-overlong", joined(fromClient(0x01, "\xf0"), fromClient(0x80, "\x8f\x80\x80")), "RFC 6455 §8.1", 1007, "shortest form", false},
	{"utf8-surrogate", fromClient(0x81, "\xed\xa0\x80"), "RFC 6455 §8.1", 1007, "surrogate", false},
	{"utf8-beyond-unicode", fromClient(0x81, "\xf4\x90\x80\x80"), "RFC 6455 §8.1", 1007, "U+10FFFF", false},
	{"utf8-beyond-unicode", fromClient(0x81, "\xf5"), "RFC 6455 §8.1", 1007, "U+10FFFF", false},
	{"utf8-impossible-byte", fromClient(0x81, "abc\xff"), "RFC 6455 §8.1", 1007, "F8 to FF", false},
	{"utf8-sequence-broken", fromClient(0x81, "caf\xe9 au lait"), "RFC 6455 §8.1", 1007, "Latin-1", false},
	{"utf8-sequence-broken", joined(fromClient(0x01, "\xe2\x82"), fromClient(0x80, "x")), "RFC 6455 §8.1", 1007, "Latin-1", false},
	{"utf8-truncated", fromClient(0x81, "\xe2\x82"), "RFC 6455 §8.1", 1007, "between two characters", false},
	{"utf8-truncated", joined(fromClient(0x01, "x\xf0"), fromClient(0x00, "\x9f\x92"), fromClient(0x80, "")), "RFC 6455 §8.1", 1007, "between two characters", false},
	{"close-one-byte", fromClient(0x88, "\x03"), "RFC 6455 §5.5.1", 1002, "two bytes", false},
	{"close-code-below-1000", fromClient(0x88, "\x00\x00"), "RFC 6455 §7.4", 1002, "1000", false},
	{"close-code-below-1000", fromClient(0x88, "\x03\xe7"), "RFC 6455 §7.4", 1002, "1000", false},
	{"close-code-local", fromClient(0x88, "\x03\xed"), "RFC 6455 §7.4", 1002, "empty", false},
	{"close-code-local", fromClient(0x88, "\x03\xee"), "RFC 6455 §7.4", 1002, "empty", false},
	{"close-code-local", fromClient(0x88, "\x03\xf7"), "RFC 6455 §7.4", 1002, "empty", false},
	{"close-code-reserved", fromClient(0x88, "\x03\xec"), "RFC 6455 §7.4", 1002, "4000 to 4999", false},
	{"close-code-reserved", fromClient(0x88, "\x0b\xb7"), "RFC 6455 §7.4", 1002, "4000 to 4999", false},
	{"close-code-above-4999", fromClient(0x88, "\x13\x88"), "RFC 6455 §7.4", 1002, "5000", false},
	{"close-code-above-4999", fromClient(0x88, "\xff\xff"), "RFC 6455 §7.4", 1002, "5000", false},
	{"close-reason-utf8", fromClient(0x88, "\x03\xe8caf\xe9"), "RFC 6455 §8.1", 1007, "UTF-8", false},
	{"deflate-corrupt", fromClient(0xc2, "\xff\xff\xff"), "RFC 7692 §7.2.2", 1007, "raw DEFLATE", true},
	{"utf8-impossible-byte", fromClient(0xc1, "\x00\x01\x00\xfe\xff\xff\x00"), "RFC 6455 §8.1", 1007, "F8 to FF", true},
}

func (s *sample) options() Options {
	o := Options{MaxMessage: sampleLimit, Frames: true, Deflate: &handshake.Deflate{}}
	if s.deflate {
		o.Deflate = deflateOn
	}
	return o
}

func TestEveryKindOfViolationHasItsSectionCodeAndCure(t *testing.T) {
	seen := map[string]bool{}
	for _, s := range samples {
		seen[s.kind] = true
		t.Run(s.kind, func(t *testing.T) {
			for name, cut := range map[string]func(int) int{"whole": whole, "byte by byte": byteWise} {
				v := explain(s.options(), one(Client, s.bytes), cut).violations()
				if len(v) == 0 {
					t.Fatalf("%s: %x: no violation", name, s.bytes)
				}
				if got := v[0]; got.Kind != s.kind || got.Section != s.section || got.Code != s.code || !strings.Contains(got.Cure, s.cure) {
					t.Errorf("%s: %x: %+v, want %+v", name, s.bytes, got, s)
				}
			}
		})
	}
	// A server that masks: found by clients.
	v := explain(Options{}, one(Server, wire("81 85 37fa213d 7f9f4d5158")), whole).violations()
	if len(v) != 1 || v[0].Kind != "mask-forbidden" || v[0].Section != "RFC 6455 §5.1" || v[0].Code != 1002 || v[0].Cure == "" {
		t.Errorf("a masked frame of a server: %+v", v)
	}
	// What comes behind a Close is nobody's business any more.
	v = explain(Options{}, one(Client, joined(fromClient(0x88, ""), fromClient(0x81, "x"))), whole).violations()
	if len(v) != 1 || v[0].Kind != "data-after-close" || v[0].Code != 0 || v[0].Section != "RFC 6455 §5.5.1" {
		t.Errorf("data after a Close: %+v", v)
	}
	seen["mask-forbidden"], seen["data-after-close"] = true, true
	for _, k := range Kinds() {
		if !seen[k] {
			t.Errorf("no sample of %s", k)
		}
	}
	if len(Kinds()) < 30 {
		t.Errorf("%d kinds", len(Kinds()))
	}
}

func TestAllViolationsOfAFrameAreListed(t *testing.T) {
	for _, tt := range []struct {
		name  string
		dir   Dir
		bytes []byte
		want  []string
	}{
		{"a ping that does all wrong", Client, wire("79 7e 0001 41"), []string{"rsv1-not-agreed", "rsv2", "rsv3", "ping-fragmented", "mask-missing", "ping-too-long", "length-16-not-minimal"}},
		{"a text of a server, in a message, masked, too long a length, no text", Server, joined(fromServer(0x02, ""), wire("81 ff 0000000000000001 00000000 ff")), []string{"text-inside-message", "mask-forbidden", "length-64-not-minimal", "utf8-impossible-byte"}},
		{"a Close with a bad code and a bad reason", Client, fromClient(0x88, "\x03\xee\xff"), []string{"close-code-local", "close-reason-utf8"}},
		{"a Close that is too long, and is cut inside a character to look at it", Client, fromClient(0x88, "\x03\xe8"+strings.Repeat("é", 70)), []string{"close-too-long"}},
		{"a Close that is too long, of no text", Client, fromClient(0x88, "\x03\xe8"+strings.Repeat("\xe9", 130)), []string{"close-too-long", "close-reason-utf8"}},
		{"two bad messages one after the other", Client, joined(fromClient(0x81, "\xff\xff"), fromClient(0x81, "\xc0"), fromClient(0x81, "fine")), []string{"utf8-impossible-byte", "utf8-overlong"}},
		{"a reserved opcode and then a good message", Client, joined(fromClient(0x8d, "x"), fromClient(0x81, "fine")), []string{"opcode-reserved-control"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			x := explain(Options{Frames: true, Deflate: &handshake.Deflate{}}, one(tt.dir, tt.bytes), byteWise)
			if got := kindsOf(x.violations()); !slices.Equal(got, tt.want) {
				t.Errorf("%q, want %q", got, tt.want)
			}
			size := [2]int{}
			size[tt.dir] = len(tt.bytes)
			accounted(t, x, size)
		})
	}
}

func TestWhatIsLegalHasNoViolation(t *testing.T) {
	for _, tt := range []struct {
		dir   Dir
		bytes []byte
	}{
		{Client, fromClient(0x88, "")},
		{Client, fromClient(0x88, "\x03\xe8"+strings.Repeat("x", 123))},
		{Client, fromClient(0x88, "\x03\xf6bad gateway")}, // 1014
		{Client, fromClient(0x88, "\x0f\xa0")},
		{Client, fromClient(0x89, strings.Repeat("x", 125))},
		{Client, joined(fromClient(0x01, "\xe2"), fromClient(0x89, ""), fromClient(0x00, ""), fromClient(0x80, "\x82\xac"))},
		{Client, fromClient(0x82, strings.Repeat("\xff", 126))},
		{Client, fromClient(0x82, strings.Repeat("\xff", 65536))},
		{Client, fromClient(0x81, "\xf4\x8f\xbf\xbf\xef\xbf\xbf\xed\x9f\xbf")},
		{Server, joined(fromServer(0x81, ""), fromServer(0x8a, "unasked"), fromServer(0x82, ""))},
	} {
		x := explain(Options{Frames: true, Deflate: &handshake.Deflate{}}, one(tt.dir, tt.bytes), atRandom(3))
		if v := x.violations(); len(v) != 0 {
			t.Errorf("%.20x: %+v", tt.bytes, v)
		}
	}
}

func TestEveryErrorOfPackageFrameHasAKind(t *testing.T) {
	for _, err := range []*frame.Error{
		frame.ErrReservedBits, frame.ErrRSV1Misplaced, frame.ErrReservedOpcode, frame.ErrControlFragmented, frame.ErrControlTooLong,
		frame.ErrContinuationUnexpected, frame.ErrContinuationExpected, frame.ErrMaskRequired, frame.ErrMaskForbidden,
		frame.ErrLengthNotMinimal, frame.ErrLengthMSB, frame.ErrTooLarge, frame.ErrTextUTF8, frame.ErrTextTruncated,
		frame.ErrCloseLength, frame.ErrCloseCode, frame.ErrCloseReason, frame.ErrInflate,
	} {
		if !slices.ContainsFunc(kinds, func(k *kind) bool { return k.err == err }) {
			t.Errorf("%v", err)
		}
	}
}

func TestEveryCloseCodeHasAMeaning(t *testing.T) {
	for c := range 1 << 16 {
		code := ws.StatusCode(c)
		m := meaning(code)
		if m == "" {
			t.Fatalf("%d has none", c)
		}
		if unknown := m == "not valid" || m == "not used"; unknown && frame.ValidCloseCode(code) {
			t.Errorf("%d may be sent and is %q", c, m)
		}
	}
}
