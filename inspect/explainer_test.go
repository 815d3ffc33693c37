package inspect

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"wspoll/frame"
	"wspoll/handshake"

	"github.com/gobwas/ws"
)

func TestExamplesOfRFC6455(t *testing.T) {
	long := strings.Repeat("41", 256)
	longer := strings.Repeat("41", 65536)
	for _, tt := range []struct {
		name  string
		dir   Dir
		bytes string
		frame Frame
		text  string // of the message
	}{
		{"unmasked text", Server, "81 05 48 65 6c 6c 6f", Frame{Fin: true, Opcode: 1, Length: 5, LengthBits: 7, Text: "Hello"}, "Hello"},
		{"masked text", Client, "81 85 37 fa 21 3d 7f 9f 4d 51 58", Frame{Fin: true, Opcode: 1, Masked: true, Key: wire("37fa213d"), Length: 5, LengthBits: 7, Text: "Hello"}, "Hello"},
		{"ping", Server, "89 05 48 65 6c 6c 6f", Frame{Fin: true, Opcode: 9, Length: 5, LengthBits: 7, Text: "Hello"}, ""},
		{"masked pong", Client, "8a 85 37 fa 21 3d 7f 9f 4d 51 58", Frame{Fin: true, Opcode: 10, Masked: true, Key: wire("37fa213d"), Length: 5, LengthBits: 7, Text: "Hello"}, ""},
		{"256 bytes", Server, "82 7E 0100" + long, Frame{Fin: true, Opcode: 2, Length: 256, LengthBits: 16}, ""},
		{"64 KiB", Server, "82 7F 0000000000010000" + longer, Frame{Fin: true, Opcode: 2, Length: 65536, LengthBits: 64}, ""},
	} {
		t.Run(tt.name, func(t *testing.T) {
			x := explain(Options{}, one(tt.dir, wire(tt.bytes)), atRandom(1))
			if len(x.wire[tt.dir]) != 1 || len(x.violations()) != 0 {
				t.Fatalf("%d records, violations %v", len(x.wire[tt.dir]), x.violations())
			}
			f := x.wire[tt.dir][0].Frame
			w := tt.frame
			if f.Fin != w.Fin || f.Opcode != w.Opcode || f.Masked != w.Masked || !bytes.Equal(f.Key, w.Key) || f.Length != w.Length || f.LengthBits != w.LengthBits || f.Text != w.Text {
				t.Errorf("%+v, want %+v", f, w)
			}
			if got := x.message[tt.dir]; tt.frame.Opcode < 8 && (len(got) != 1 || got[0].Message.Text != tt.text || !got[0].Message.Whole) {
				t.Errorf("messages %+v", got)
			}
		})
	}
	t.Run("fragments", func(t *testing.T) {
		x := explain(Options{}, one(Server, wire("01 03 48 65 6c 80 02 6c 6f")), byteWise)
		if m := x.message[Server]; len(m) != 1 || m[0].Message.Text != "Hello" || m[0].Message.Count != 2 || m[0].Message.Frames != [2]int{0, 1} || m[0].End != 9 {
			t.Errorf("%s", text(m[0]))
		}
	})
}

func TestExamplesOfRFC7692(t *testing.T) {
	for _, tt := range []struct {
		name, bytes string
		sizes       []int64 // of the messages, before inflating
	}{
		{"one frame", "c1 07 f2 48 cd c9 c9 07 00", []int64{7}},
		{"two fragments", "41 03 f2 48 cd 80 04 c9 c9 07 00", []int64{7}},
		{"the window is shared", "c1 07 f2 48 cd c9 c9 07 00 c1 05 f2 00 11 00 00", []int64{7, 5}},
		{"a stored block", "c1 0b 00 05 00 fa ff 48 65 6c 6c 6f 00", []int64{11}},
		{"BFINAL", "c1 08 f3 48 cd c9 c9 07 00 00", []int64{8}},
		{"two blocks", "c1 0d f2 48 05 00 00 00 ff ff ca c9 c9 07 00", []int64{13}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			for _, o := range []Options{{}, {Deflate: deflateOn}} {
				x := explain(o, one(Server, wire(tt.bytes)), atRandom(2))
				if v := x.violations(); len(v) != 0 || len(x.message[Server]) != len(tt.sizes) {
					t.Fatalf("violations %v, messages %v", v, x.message[Server])
				}
				for i, size := range tt.sizes {
					m := x.message[Server][i].Message
					if m.Text != "Hello" || m.Size != size || *m.Inflated != 5 || !m.Compressed || !m.Whole {
						t.Errorf("message %d: %s", i, text(x.message[Server][i]))
					}
				}
				if noted := len(x.wire[Server][0].Notes) > 0; noted != (o.Deflate == nil) {
					t.Errorf("options %v: notes %q", o, x.wire[Server][0].Notes)
				}
			}
		})
	}
	t.Run("a window that was agreed to be forgotten is not used", func(t *testing.T) {
		d := *deflateOn
		d.ServerNoContext = true
		x := explain(Options{Deflate: &d}, one(Server, wire("c1 07 f2 48 cd c9 c9 07 00 c1 05 f2 00 11 00 00")), whole)
		if got := kindsOf(x.violations()); !slices.Equal(got, []string{"deflate-corrupt"}) {
			t.Errorf("%q", got)
		}
	})
}

// TestTenThousandRandomFramesGoThroughBothWays encodes frames, explains them, and makes the same bytes of what was explained.
func TestTenThousandRandomFramesGoThroughBothWays(t *testing.T) {
	r := rand.New(rand.NewPCG(6455, 7692))
	for i := range 10_000 {
		dir := Dir(i % 2)
		h := ws.Header{
			Fin: r.IntN(2) == 0, Rsv: byte(r.IntN(8)), OpCode: ws.OpCode(r.IntN(16)), Masked: r.IntN(4) != 0,
			Length: []int64{0, 1, 5, 125, 126, 127, 300, 65535, 65536, 70000}[min(r.IntN(30), 9)] & int64(r.Uint64()|0xffff),
		}
		if i%50 != 0 {
			h.Length %= 400
		}
		if h.Masked {
			h.Mask = [4]byte{byte(r.Uint32()), byte(r.Uint32()), byte(r.Uint32()), byte(r.Uint32())}
		}
		payload := make([]byte, h.Length)
		for i := range payload {
			payload[i] = byte(r.Uint32())
		}
		b := frame.AppendHeader(nil, h)
		n := len(b)
		b = append(b, payload...)
		if h.Masked {
			ws.Cipher(b[n:], h.Mask, 0)
		}

		x := explain(Options{Excerpt: 1 << 20, Frames: true, Deflate: &handshake.Deflate{}}, one(dir, b), atRandom(uint64(i)))
		if len(x.wire[dir]) != 1 || x.wire[dir][0].Frame == nil {
			t.Fatalf("%x: %d records", b, len(x.wire[dir]))
		}
		f := x.wire[dir][0].Frame
		back := ws.Header{Fin: f.Fin, Rsv: f.Rsv, OpCode: ws.OpCode(f.Opcode), Masked: f.Masked, Length: int64(f.Length)}
		copy(back.Mask[:], f.Key)
		if back != h || !bytes.Equal(f.Payload, payload) || f.Truncated || f.Cut {
			t.Fatalf("%x: %+v, want %+v", b, back, h)
		}
		if again := append(frame.AppendHeader(nil, back), f.Wire...); !bytes.Equal(again, b) || !bytes.Equal(f.Header, b[:n]) {
			t.Fatalf("%x comes back as %x", b, again)
		}
	}
}

// randomStream is frames, most of them legal, and now and then bytes that are not.
func randomStream(r *rand.Rand, dir Dir) (b []byte) {
	texts := []string{"", "x", "Hello", "héllo", "a", "b", "c", "d", "e", "f", "\u20ac", "\xe2\x82", "\xac", "\xff", "\xed\xa0\x80", "\xf0\x9f", "\x92\xa9", strings.Repeat("y", 126), "\x03\xe8", "\x03\xe8bye", "\x03", "\x03\xed", "\x03\xe8\xff"}
	begin, goOn := []byte{0x81, 0x82, 0x01, 0x02, 0x89, 0x8a}, []byte{0x00, 0x80, 0x80, 0x89}
	inside := false
	for range 1 + r.IntN(8) {
		firsts := begin
		if inside != (r.IntN(12) == 0) {
			firsts = goOn
		}
		first := firsts[r.IntN(len(firsts))]
		if r.IntN(20) == 0 {
			first = byte(r.Uint32())
		}
		if first&8 == 0 {
			inside = first&0x80 == 0
		}
		b = append(b, build(first, texts[r.IntN(len(texts))], (dir == Client) != (r.IntN(25) == 0))...)
		switch r.IntN(30) {
		case 0:
			b = append(b, 0x82, 0xfe, 0, byte(r.IntN(3)), 1, 2, 3, 4)
		case 1:
			b = append(b, byte(r.Uint32()), byte(r.Uint32()))
		case 2:
			b = append(b, 0x82, 0xff, byte(r.IntN(2)*0x80), 0, 0, 0, 0, byte(r.IntN(2)), byte(r.IntN(2)), 7, 1, 2, 3, 4)
		case 3:
			b = b[:r.IntN(len(b)+1)]
		}
	}
	return b
}

// verdict is what frame.Parser and frame.ParseClose say of the bytes.
func verdict(rules *frame.Rules, b []byte) error {
	var p frame.Parser
	var piece frame.Piece
	for b = bytes.Clone(b); ; {
		n, err := p.Next(rules, b, &piece)
		if err != nil || n == 0 {
			return err
		}
		if piece.Op == ws.OpClose {
			if _, _, err := frame.ParseClose(piece.Data); err != nil {
				return err
			}
		}
		b = b[n:]
	}
}

// first is the first violation that package frame can find.
func (x *explained) first() error {
	for _, r := range x.all {
		for _, v := range r.Violations {
			e, ok := errors.AsType[*frame.Error](&v)
			if ok && (r.Frame == nil || !r.Frame.compressed || e != frame.ErrInflate && e.Code != 1007) {
				return e
			}
		}
	}
	return nil
}

func checkStream(t testing.TB, dir Dir, b []byte, o Options, seed uint64) {
	t.Helper()
	o.Frames = true
	want := explain(o, one(dir, b), whole)
	size := [2]int{}
	size[dir] = len(b)
	accounted(t, want, size)
	for i, cut := range []func(int) int{byteWise, atRandom(seed), atRandom(seed + 1)} {
		got := explain(o, one(dir, b), cut)
		sameExplanation(t, fmt.Sprintf("%x, cut %d", b, i), want, got)
		accounted(t, got, size)
	}
	rules := &frame.Rules{Client: dir == Server, MaxMessage: o.MaxMessage, RSV1: o.Deflate.On}
	if err, found := verdict(rules, b), want.first(); err != found && (err != nil || found != nil) {
		if err == nil || found == nil || err.Error() != found.Error() {
			t.Fatalf("%x: the first violation is %v, and frame.Parser says %v", b, found, err)
		}
	}
}

func TestTheFirstViolationIsTheOneOfTheParserHoweverTheStreamIsCut(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	faults := 0
	for i := range 5000 {
		dir := Dir(i % 2)
		b := randomStream(r, dir)
		o := Options{Deflate: &handshake.Deflate{}}
		if i%3 == 0 {
			o.MaxMessage = 100
		}
		if i%5 == 0 {
			o.Deflate = deflateOn
		}
		checkStream(t, dir, b, o, uint64(i))
		if verdict(&frame.Rules{Client: dir == Server}, b) != nil {
			faults++
		}
	}
	if faults < 1000 || faults > 4500 {
		t.Errorf("%d of 5000 streams had a fault", faults)
	}
}

func FuzzStream(f *testing.F) {
	for _, s := range samples {
		f.Add(s.bytes, true, s.deflate, uint16(sampleLimit))
	}
	f.Add(wire("01 03 48 65 6c 89 00 80 02 6c 6f"), false, false, uint16(0))
	f.Fuzz(func(t *testing.T, b []byte, client, deflate bool, limit uint16) {
		if len(b) > 1<<12 {
			return
		}
		o := Options{Deflate: &handshake.Deflate{}, MaxMessage: uint64(limit)}
		if deflate {
			o.Deflate = deflateOn
		}
		dir := Server
		if client {
			dir = Client
		}
		checkStream(t, dir, b, o, 11)
	})
}

// FuzzConnection holds whatever two sides send to the accounting: handshakes, frames and nonsense.
func FuzzConnection(f *testing.F) {
	f.Add([]byte(exampleRequest+"\x81\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58"), []byte(exampleAnswer+"\x81\x05Hello"))
	f.Add([]byte("GET / HTTP/1.1\r\nHost: a\r\n\r\nGET / HTTP/1.1\n\n"), []byte("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabcHTTP/1.1 404 No\r\n\r\n"))
	f.Add([]byte("\x16\x03\x01\x02"), []byte("HTTP/1.1 100\r\n\r\nHTTP/1.1 101 x\r\nUpgrade: x\r\n\r\n\x88\x00"))
	f.Fuzz(func(t *testing.T, c, s []byte) {
		if len(c)+len(s) > 1<<13 {
			return
		}
		parts := []sent{{Client, c}, {Server, s}}
		want := explain(Options{}, parts, whole)
		size := [2]int{len(c), len(s)}
		accounted(t, want, size)
		for _, cut := range []func(int) int{byteWise, atRandom(5)} {
			got := explain(Options{}, parts, cut)
			sameExplanation(t, fmt.Sprintf("%q %q", c, s), want, got)
			accounted(t, got, size)
		}
	})
}

func TestAWholeConnectionIsAccountedForHoweverItIsCut(t *testing.T) {
	frames := joined(fromClient(0x81, "Hello"), fromClient(0x01, "a"), fromClient(0x89, "p"), fromClient(0x80, "b"), fromServer(0x81, "no mask"), fromClient(0x83, "?"), fromClient(0x88, "\x03\xe8"))
	answers := joined(fromServer(0x81, "Hello"), fromServer(0x8a, "p"), fromServer(0x82, strings.Repeat("z", 70000)), fromServer(0x88, "\x03\xe8"), wire("81"))
	parts := []sent{
		{Client, []byte("GET /poll HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n\r\nhello")},
		{Server, []byte("HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\nnothing")},
		{Client, []byte(exampleRequest)},
		{Server, []byte(exampleAnswer)},
		{Client, frames[:20]},
		{Server, answers[:9]},
		{Client, frames[20:]},
		{Server, answers[9:]},
	}
	size := [2]int{}
	for _, p := range parts {
		size[p.dir] += len(p.bytes)
	}
	want := explain(Options{}, parts, whole)
	accounted(t, want, size)
	for seed := range uint64(200) {
		got := explain(Options{}, parts, atRandom(seed))
		sameExplanation(t, fmt.Sprint("seed ", seed), want, got)
		accounted(t, got, size)
	}
	sameExplanation(t, "byte by byte", want, explain(Options{}, parts, byteWise))
	if got := kindsOf(want.violations()); !slices.Equal(got, []string{"mask-missing", "opcode-reserved-data", "data-after-close"}) {
		t.Errorf("%q", got)
	}
	if n := len(want.message[Server]); n != 2 || !want.message[Server][1].Message.Cut || want.message[Server][1].Message.Size != 70000 {
		t.Errorf("%d messages of the server", n)
	}
}

func TestAnExplainerKeepsLittleOfALargeMessage(t *testing.T) {
	e := New(Options{Frames: true})
	chunk := bytes.Repeat([]byte{'a'}, 1<<16)
	e.Feed(Server, time.Time{}, wire("81 7f 0000000040000000")) // 1 GiB
	feed := func() { e.Feed(Server, time.Time{}, chunk) }
	feed()
	// One record of the read and its Read; nothing that grows with the payload.
	n := testing.AllocsPerRun(100, feed)
	for range 4 { // others of this process are counted too: what tests before this one have left to end by itself
		n = min(n, testing.AllocsPerRun(100, feed))
	}
	if n > 2 {
		t.Errorf("%v allocations for 64 KiB", n)
	}
	if s := &e.sides[Server]; len(s.frame.Wire) != 256 || len(s.message.content) != 256 || len(e.scratch) > 16<<10 {
		t.Errorf("%d, %d and %d bytes kept", len(s.frame.Wire), len(s.message.content), len(e.scratch))
	}
}

func TestAGapInsideAFrameCostsOnlyItsPayload(t *testing.T) {
	e, x := New(Options{Frames: true}), &explained{}
	b := joined(fromServer(0x81, strings.Repeat("a", 100)), fromServer(0x89, "ping"))
	x.add(e.Feed(Server, time.Time{}, b[:20]))
	x.add(e.Gap(Server, time.Time{}, 30))
	x.add(e.Feed(Server, time.Time{}, b[50:]))
	x.add(e.Finish())
	accounted(t, x, [2]int{0, len(b)})
	if len(x.wire[Server]) != 2 || x.wire[Server][0].Frame.Missing != 30 || x.wire[Server][1].Frame.Text != "ping" || !x.read[Server][1].Read.Gap {
		t.Errorf("%v", x.wire[Server])
	}
	if m := x.message[Server][0].Message; m.Whole || m.Text != strings.Repeat("a", 18) || m.Size != 100 {
		t.Errorf("%+v", m)
	}
}

func TestAfterAGapThatTakesAHeaderTheNextReadIsLookedAtForOne(t *testing.T) {
	e, x := New(Options{Frames: true}), &explained{}
	add := func(b []byte) { x.add(e.Feed(Client, time.Time{}, b)) }
	a := fromClient(0x01, "begun ")
	b := fromClient(0x00, "middle ")
	add(a)
	add(b[:3])
	x.add(e.Gap(Client, time.Time{}, int64(len(b)-3+40)))
	add([]byte("no frame at all"))
	add(joined(fromClient(0x80, "end"), fromClient(0x81, "whole")))
	x.add(e.Finish())
	accounted(t, x, [2]int{len(a) + len(b) + 40 + 15 + 9 + 11, 0})
	if v := x.violations(); len(v) != 0 {
		t.Errorf("%v", v) // the continuation has lost its beginning, which is not its fault
	}
	var got []string
	for _, r := range x.wire[Client] {
		got = append(got, string(r.Kind))
	}
	if want := []string{"frame", "bytes", "frame", "frame"}; !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
	if m := x.message[Client]; len(m) != 3 || m[0].Message.Whole || m[1].Message.Name != "unknown" || m[2].Message.Text != "whole" {
		t.Errorf("%v", m)
	}
}

func TestAStreamThatBeginsInTheMiddleIsJoinedAtAFrame(t *testing.T) {
	e, x := New(Options{}), &explained{}
	e.Gap(Server, time.Time{}, -1)
	x.add(e.Feed(Server, time.Time{}, []byte("the rest of a frame")))
	// It refers to a message that is not there, which is no fault of the sender.
	x.add(e.Feed(Server, time.Time{}, wire("c1 05 f2 00 11 00 00 81 02 68 69")))
	x.add(e.Finish())
	if v := x.violations(); len(v) != 0 {
		t.Errorf("%v", v)
	}
	if w := x.wire[Server]; len(w) != 3 || w[0].Kind != KindBytes || w[2].Frame.Text != "hi" || !strings.Contains(strings.Join(w[1].Notes, ""), "cannot be inflated") {
		t.Errorf("%v", w)
	}
}

func TestAMaskingKeyThatIsNoSecretIsNoted(t *testing.T) {
	x := explain(Options{}, one(Client, joined(wire("89 80 00000000"), fromClient(0x89, "x"), fromClient(0x89, "y"))), whole)
	w := x.wire[Client]
	if len(w[0].Notes) != 1 || len(w[1].Notes) != 0 || len(w[2].Notes) != 1 || len(x.violations()) != 0 {
		t.Errorf("%q %q %q", w[0].Notes, w[1].Notes, w[2].Notes)
	}
}

func TestBytesThatAreTLSAreSaidToBe(t *testing.T) {
	x := explain(Options{}, one(Client, []byte("\x16\x03\x01\x02\x00\x01\x00")), byteWise)
	if w := x.wire[Client]; len(w) != 1 || w[0].Kind != KindBytes || !strings.Contains(w[0].Bytes.What, "TLS") || w[0].End != 7 {
		t.Errorf("%v", w)
	}
}

func TestGapsAnywhereAreAccountedFor(t *testing.T) {
	body := "HTTP/1.1 200 OK\r\nContent-Length: 30\r\n\r\n" + strings.Repeat("b", 30)
	c := joined([]byte(exampleRequest), fromClient(0x81, strings.Repeat("text ", 40)), fromClient(0x89, "p"), fromClient(0xc2, "?"), wire("82 ff 8000000000000000 00000000 4142"))
	s := joined([]byte(body), []byte(exampleAnswer), fromServer(0x01, "a"), fromServer(0x80, strings.Repeat("b", 300)), fromServer(0x88, ""))
	for seed := range uint64(2000) {
		r := rand.New(rand.NewPCG(seed, 1))
		e, x := New(Options{}), &explained{}
		left := [2][]byte{c, s}
		for len(left[0])+len(left[1]) > 0 {
			d := Dir(r.IntN(2))
			n := 1 + r.IntN(60)
			b := left[d][:min(n, len(left[d]))]
			left[d] = left[d][len(b):]
			if r.IntN(8) == 0 {
				x.add(e.Gap(d, time.Time{}, int64(len(b))))
			} else {
				x.add(e.Feed(d, time.Time{}, b))
			}
		}
		x.add(e.Finish())
		accounted(t, x, [2]int{len(c), len(s)})
	}
}

func TestALengthThatCannotBeEndsTheExplanationOfItsSide(t *testing.T) {
	b := joined(fromClient(0x81, "a"), wire("82 ff ffffffffffffff00 01020304"), []byte("whatever follows"))
	x := explain(Options{}, one(Client, b), atRandom(1))
	accounted(t, x, [2]int{len(b), 0})
	w := x.wire[Client]
	if len(w) != 3 || w[2].Kind != KindBytes || !strings.Contains(w[2].Bytes.What, "cannot be") || !slices.Equal(kindsOf(x.violations()), []string{"length-top-bit"}) {
		t.Errorf("%v", w)
	}
	v := w[1].Violations[0]
	if v.Error() != "RFC 6455 §5.2: most significant bit of a 64-bit payload length is set: 0xffffffffffffff00" || v.Demands() != "close 1002" || !errors.Is(&v, frame.ErrLengthMSB) {
		t.Errorf("%v, %s", &v, v.Demands())
	}
}

func TestAMessageThatInflatesBeyondTheLimitIsTooLarge(t *testing.T) {
	z := newSqueezer()
	b := fromServer(0xc1, z.message(strings.Repeat("a", 5000)))
	x := explain(Options{Deflate: deflateOn, MaxMessage: 1000}, one(Server, b), atRandom(1))
	if got := kindsOf(x.violations()); !slices.Equal(got, []string{"message-too-large"}) || *x.message[Server][0].Message.Inflated != 5000 {
		t.Errorf("%q", got)
	}
}

func TestExtensionsAreReadAsAServerAnswersThem(t *testing.T) {
	for value, want := range map[string]handshake.Deflate{
		"":                   {},
		"permessage-deflate": *deflateOn,
		"permessage-deflate; client_no_context_takeover; server_max_window_bits=9; client_max_window_bits=10": {On: true, ClientNoContext: true, ServerBits: 9, ClientBits: 10},
	} {
		if got, err := ParseExtensions(value); got != want || err != nil {
			t.Errorf("%q: %+v, %v", value, got, err)
		}
	}
	for _, value := range []string{"x", "permessage-deflate; x", "permessage-deflate\r\nX: y", "permessage-deflate; server_max_window_bits=7"} {
		if got, err := ParseExtensions(value); err == nil {
			t.Errorf("%q: %+v", value, got)
		}
	}
}

// TestEveryExampleOfTheRFCsComesBackByteForByte: explained, and made again of what was explained.
func TestEveryExampleOfTheRFCsComesBackByteForByte(t *testing.T) {
	for name, head := range map[Dir]string{Client: exampleRequest, Server: exampleAnswer} { // §1.3
		var again strings.Builder
		for _, r := range explain(Options{}, []sent{{Client, []byte(exampleRequest)}, {Server, []byte(exampleAnswer)}}, atRandom(4)).wire[name] {
			again.WriteString(r.Line.Text + "\r\n")
			if a := r.Line.Accept; a != nil && a.Accept != "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" {
				t.Errorf("§1.3: the accept value is %s", a.Accept)
			}
		}
		if again.String() != head {
			t.Errorf("§1.3, the %v: %q", name, again.String())
		}
	}
	for _, tt := range []struct {
		section string
		dir     Dir
		bytes   string
	}{
		{"RFC 6455 §5.7", Server, "81 05 48 65 6c 6c 6f"},
		{"RFC 6455 §5.7", Client, "81 85 37 fa 21 3d 7f 9f 4d 51 58"},
		{"RFC 6455 §5.7", Server, "01 03 48 65 6c 80 02 6c 6f"},
		{"RFC 6455 §5.7", Server, "89 05 48 65 6c 6c 6f"},
		{"RFC 6455 §5.7", Client, "8a 85 37 fa 21 3d 7f 9f 4d 51 58"},
		{"RFC 6455 §5.7", Server, "82 7E 0100" + strings.Repeat("5a", 256)},
		{"RFC 6455 §5.7", Server, "82 7F 0000000000010000" + strings.Repeat("a5", 65536)},
		{"RFC 7692 §7.2.3.1", Server, "c1 07 f2 48 cd c9 c9 07 00"},
		{"RFC 7692 §7.2.3.1", Server, "41 03 f2 48 cd 80 04 c9 c9 07 00"},
		{"RFC 7692 §7.2.3.2", Server, "c1 07 f2 48 cd c9 c9 07 00 c1 07 f2 48 cd c9 c9 07 00"},
		{"RFC 7692 §7.2.3.2", Server, "c1 07 f2 48 cd c9 c9 07 00 c1 05 f2 00 11 00 00"},
		{"RFC 7692 §7.2.3.3", Server, "c1 0b 00 05 00 fa ff 48 65 6c 6c 6f 00"},
		{"RFC 7692 §7.2.3.4", Server, "c1 08 f3 48 cd c9 c9 07 00 00"},
		{"RFC 7692 §7.2.3.5", Server, "c1 0d f2 48 05 00 00 00 ff ff ca c9 c9 07 00"},
	} {
		b := wire(tt.bytes)
		var again []byte
		for _, r := range explain(Options{Excerpt: 1 << 20, Frames: true, Deflate: deflateOn}, one(tt.dir, b), atRandom(5)).wire[tt.dir] {
			f := r.Frame
			h := ws.Header{Fin: f.Fin, Rsv: f.Rsv, OpCode: ws.OpCode(f.Opcode), Masked: f.Masked, Length: int64(f.Length)}
			copy(h.Mask[:], f.Key)

			again = frame.AppendHeader(again, h)
			at := len(again)
			again = append(again, f.Payload...)
			if f.Masked {
				ws.Cipher(again[at:], h.Mask, 0)
			}
			if len(r.Violations) > 0 {
				t.Errorf("%s: %.20x: %v", tt.section, b, r.Violations)
			}
		}
		if !bytes.Equal(again, b) {
			t.Errorf("%s: %.20x comes back as %.20x", tt.section, b, again)
		}
	}
}
