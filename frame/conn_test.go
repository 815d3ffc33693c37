package frame

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"reflect"
	"slices"
	"testing"
	"unsafe"

	"github.com/gobwas/ws"
)

// talk feeds input to c in chunks and returns what it appends, the opcodes and
// data of the pieces, and the error.
func talk(t testing.TB, c *Conn, r *Rules, input []byte, cut func(int) int) (out []byte, seen string, err error) {
	t.Helper()
	var piece Piece
	var buf []byte
	for len(input) > 0 {
		n := min(max(cut(len(input)), 1), len(input))
		buf = append(slices.Clone(buf), input[:n]...)
		input = input[n:]
		for {
			n, out, err = c.Next(r, buf, out, &piece)
			if err != nil {
				size := len(out)
				again, out2, err2 := c.Next(r, buf, out, &piece)
				if again != 0 || len(out2) != size || err2 != err {
					t.Fatalf("error %v was not final", err)
				}
				return out, seen, err
			}
			if n == 0 {
				break
			}
			switch {
			case piece.Op == 0: // ignored
			case piece.Op.IsControl():
				seen += fmt.Sprintf("<%x %q>", byte(piece.Op), piece.Data)
			default:
				seen += string(piece.Data)
				if piece.Last {
					seen += "."
				}
			}
			scribble(buf[:n])
			buf = buf[n:]
		}
	}
	return out, seen, nil
}

func TestAnEndpointAnswers(t *testing.T) {
	key := " 00 00 00 00 "
	violation := func(e *Error) string { return fmt.Sprintf("%x", AppendClose(nil, e.Code, e.Msg)) }
	for _, test := range []struct {
		name  string
		rules *Rules
		in    string
		out   string
		seen  string
		err   error
		state string // CloseSent, CloseReceived, PeerCode
	}{
		{
			"a ping with a pong of the same data (§5.7)", client,
			"89 05 48 65 6c 6c 6f", "8a 85 37 fa 21 3d 7f 9f 4d 51 58",
			`<9 "Hello">`, nil, "false false 0",
		},
		{
			"a masked ping with an unmasked pong", server,
			"89 85 37 fa 21 3d 7f 9f 4d 51 58", "8a 05 48 65 6c 6c 6f",
			`<9 "Hello">`, nil, "false false 0",
		},
		{
			"pings between fragments, in their order", server,
			"01 81" + key + "61 89 81" + key + "31 00 81" + key + "62 89 81" + key + "32 80 81" + key + "63",
			"8a 01 31 8a 01 32", `a<9 "1">b<9 "2">c.`, nil, "false false 0",
		},
		{
			"a pong that nobody asked for with nothing", server,
			"8a 81" + key + "61", "", `<a "a">`, nil, "false false 0",
		},
		{
			"a Close with the same code and no reason", server,
			"88 85" + key + "03 e9 62 79 65", "88 02 03 e9",
			`<8 "\x03\xe9bye">`, nil, "true true 1001",
		},
		{
			"a Close without a code with one without", server,
			"88 80" + key, "88 00", `<8 "">`, nil, "true true 1005",
		},
		{
			"a Close to a client with a masked one", client,
			"88 02 03 e8", "88 82 37 fa 21 3d 34 12", `<8 "\x03\xe8">`, nil, "true true 1000",
		},
		{
			"a Close in the middle of a message", server,
			"01 81" + key + "61 88 82" + key + "03 e8", "88 02 03 e8",
			`a<8 "\x03\xe8">`, nil, "true true 1000",
		},
		{
			"nothing behind a Close, legal or not", server,
			"88 82" + key + "03 e8 89 80" + key + "ff ff ff 81 88 80", "88 02 03 e8",
			`<8 "\x03\xe8">`, nil, "true true 1000",
		},
		{
			"a Close of one byte with 1002", server,
			"88 81" + key + "03", violation(ErrCloseLength), "", ErrCloseLength, "true false 0",
		},
		{
			"a Close with a bad code with 1002", server,
			"88 82" + key + "03 ee", violation(ErrCloseCode), "", ErrCloseCode, "true false 0",
		},
		{
			"a Close with a bad reason with 1007", server,
			"88 83" + key + "03 e8 ff", violation(ErrCloseReason), "", ErrCloseReason, "true false 0",
		},
		{
			"a violation with 1002", server,
			"81 81" + key + "61 83", violation(ErrReservedOpcode), "a.", ErrReservedOpcode, "true false 0",
		},
		{
			"bad text with 1007", server,
			"89 80" + key + "81 81" + key + "ff", "8a 00" + violation(ErrTextUTF8), `<9 "">`, ErrTextUTF8, "true false 0",
		},
		{
			"too much with 1009", &Rules{MaxMessage: 2},
			"82 83", violation(ErrTooLarge), "", ErrTooLarge, "true false 0",
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			input := wire(test.in)
			for n := range len(input) {
				cut := splitAt(n)
				if n == 0 {
					cut = oneByOne
				}
				var c Conn
				out, seen, err := talk(t, &c, test.rules, input, cut)
				state := fmt.Sprint(c.CloseSent(), c.CloseReceived(), uint16(c.PeerCode()))
				if !bytes.Equal(out, wire(test.out)) || err != test.err && (err != nil || test.err != nil) || state != test.state {
					t.Errorf("split at %d: % x, %v, %s", n, out, err, state)
				}
				if seen != test.seen {
					t.Errorf("split at %d: saw %s", n, seen)
				}
			}
		})
	}
}

func TestAViolationIsAnsweredByAMaskedCloseFromAClient(t *testing.T) {
	var c Conn
	out, _, err := talk(t, &c, client, wire("81 80"), whole)
	want := AppendMaskedClose(nil, rfcMask, ErrMaskForbidden.Code, ErrMaskForbidden.Msg)
	if err != error(ErrMaskForbidden) || !bytes.Equal(out, want) {
		t.Errorf("% x, %v", out, err)
	}
}

func TestOneCloseIsSentAndNoMore(t *testing.T) {
	var c Conn
	out := c.AppendClose(server, nil, 1001, "bye")
	if !bytes.Equal(out, wire("88 05 03 e9 62 79 65")) || !c.CloseSent() || c.CloseReceived() {
		t.Fatalf("% x", out)
	}
	if out := c.AppendClose(server, nil, 1000, ""); out != nil {
		t.Errorf("a second Close: % x", out)
	}
	// Data under way is still delivered, a ping is not answered, and neither
	// is the Close that answers ours.
	in := wire("81 81 00 00 00 00 61  89 80 00 00 00 00  88 82 00 00 00 00 03 e9  81 81")
	out, seen, err := talk(t, &c, server, in, oneByOne)
	if len(out) != 0 || err != nil || seen != `a.<9 ""><8 "\x03\xe9">` {
		t.Errorf("% x, %s, %v", out, seen, err)
	}
	if !c.CloseReceived() || c.PeerCode() != 1001 {
		t.Error("the Close was not noticed")
	}
}

func TestAViolationAfterOurCloseIsNotAnswered(t *testing.T) {
	var c Conn
	c.AppendClose(server, nil, 1000, "")
	out, _, err := talk(t, &c, server, wire("83"), whole)
	if len(out) != 0 || err != error(ErrReservedOpcode) {
		t.Errorf("% x, %v", out, err)
	}
}

func TestClosesThatCrossEndBothSides(t *testing.T) {
	var s, c Conn
	fromServer := s.AppendClose(server, nil, 1001, "shutdown")
	fromClient := c.AppendClose(client, nil, 1000, "done")
	out1, _, err1 := talk(t, &s, server, fromClient, oneByOne)
	out2, _, err2 := talk(t, &c, client, fromServer, oneByOne)
	if len(out1)+len(out2) != 0 || err1 != nil || err2 != nil {
		t.Errorf("% x % x %v %v", out1, out2, err1, err2)
	}
	// §7.1.5: each sees the code of the other.
	if s.PeerCode() != 1000 || c.PeerCode() != 1001 || !s.CloseReceived() || !c.CloseReceived() {
		t.Errorf("%d %d", s.PeerCode(), c.PeerCode())
	}
}

func TestAClientStartsTheClosingHandshakeAndTheServerEndsIt(t *testing.T) {
	var s, c Conn
	request := c.AppendClose(client, nil, 4000, "enough")
	answer, _, err := talk(t, &s, server, request, whole)
	if err != nil || !s.CloseSent() || !s.CloseReceived() {
		t.Fatal(err)
	}
	if out, _, err := talk(t, &c, client, answer, whole); len(out) != 0 || err != nil {
		t.Errorf("% x, %v", out, err)
	}
	if !c.CloseSent() || !c.CloseReceived() || c.PeerCode() != 4000 {
		t.Errorf("%+v", c)
	}
}

func TestAClientNeedsAMask(t *testing.T) {
	bare := &Rules{Client: true}
	mustPanic(t, MisuseNoMask, func() {
		var c Conn
		c.AppendClose(bare, nil, 1000, "")
	})
	mustPanic(t, MisuseNoMask, func() {
		var c Conn
		var piece Piece
		_, _, _ = c.Next(bare, wire("89 00"), nil, &piece)
	})
}

func TestEveryFrameOfAClientHasItsOwnKey(t *testing.T) {
	var count byte
	rules := &Rules{Client: true, Mask: func() [4]byte { count++; return [4]byte{count} }}
	var c Conn
	out, _, err := talk(t, &c, rules, wire("89 00 89 01 61 88 00"), oneByOne)
	if want := wire("8a 80 01 00 00 00  8a 81 02 00 00 00 63  88 80 03 00 00 00"); err != nil || !bytes.Equal(out, want) {
		t.Errorf("% x, %v", out, err)
	}
}

func TestStateIsSmallAndWithoutPointers(t *testing.T) {
	if size := unsafe.Sizeof(State{}); size != 6 || hasPointers(reflect.TypeFor[State]()) {
		t.Errorf("%d bytes, pointers: %v", size, hasPointers(reflect.TypeFor[State]()))
	}
}

func TestAnsweringDoesNotAllocate(t *testing.T) {
	in := wire("89 85 37 fa 21 3d 7f 9f 4d 51 58 88 82 00 00 00 00 03 e8")
	out, buf := make([]byte, 0, 100), make([]byte, len(in))
	var piece Piece
	if n := testing.AllocsPerRun(100, func() {
		var c Conn
		copy(buf, in)
		n, out, _ := c.Next(server, buf, out, &piece)
		_, _, _ = c.Next(server, buf[n:], out, &piece)
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func ExampleConn() {
	var c Conn
	var piece Piece
	rules := &Rules{MaxMessage: 1 << 20}
	in := []byte("\x89\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58" + // ping "Hello"
		"\x88\x82\x00\x00\x00\x00\x03\xe8") // Close 1000
	var out []byte
	for len(in) > 0 {
		n, o, err := c.Next(rules, in, out, &piece)
		if n == 0 || err != nil {
			break
		}
		in, out = in[n:], o
	}
	fmt.Printf("% x\n", out)
	fmt.Println(c.CloseSent(), c.CloseReceived(), c.PeerCode())
	// Output:
	// 8a 05 48 65 6c 6c 6f 88 02 03 e8
	// true true 1000
}

func FuzzConn(f *testing.F) {
	rnd := rand.New(rand.NewPCG(1, 1))
	stream, _ := randomFrames(rnd, 20, true)
	f.Add(stream, uint64(1), false)
	stream, _ = randomFrames(rnd, 20, false)
	f.Add(stream, uint64(2), true)
	for _, s := range []string{
		"89 05 48 65 6c 6c 6f 88 02 03 e8 81", "89 00 89 00 89 00 88 00", "88 01 03", "88 83 00 00 00 00 03 e8 ff", "89 85 37 fa 21 3d 7f 9f 4d 51 58 83",
	} {
		f.Add(wire(s), uint64(3), false)
		f.Add(wire(s), uint64(4), true)
	}
	f.Fuzz(func(t *testing.T, input []byte, seed uint64, isClient bool) {
		if len(input) > 1<<10 {
			return
		}
		rules := &Rules{Client: isClient, RSV1: seed&1 != 0, MaxMessage: seed >> 1 & 0xff, Mask: client.Mask}
		var c Conn
		out, _, err := talk(t, &c, rules, input, atRandom(seed))

		var byBytes Conn
		out2, _, err2 := talk(t, &byBytes, rules, input, oneByOne)
		if !bytes.Equal(out, out2) || err != err2 {
			t.Fatalf("cut otherwise: % x, %v\n% x, %v", out, err, out2, err2)
		}
		// A State that gets a new Parser wherever no message has begun says the same.
		var s State
		var p Parser
		var piece Piece
		var out3 []byte
		var err3 error
		for in := bytes.Clone(input); len(in) > 0 && err3 == nil; {
			var n int
			if n, out3, err3 = s.Next(&p, rules, in, out3, &piece); n == 0 {
				break
			}
			if in = in[n:]; err3 == nil && !p.MidMessage() {
				p = Parser{}
			}
		}
		if !bytes.Equal(out, out3) || err != err3 || s != c.State {
			t.Fatalf("with new parsers: % x, %v, %+v\n% x, %v, %+v", out, err, c.State, out3, err3, s)
		}
		// A pong to a server's ping costs four bytes more than the ping, so at
		// most three times; and there is one Close, at most 131 bytes.
		if bound := 3*len(input) + 131; len(out) > bound {
			t.Fatalf("%d bytes out of %d", len(out), len(input))
		}
		if !isClient && len(out) > len(input)+127 {
			t.Fatalf("%d bytes out of %d", len(out), len(input))
		}
		// The other side takes what we say.
		other := run(t, &Rules{Client: !isClient}, out, whole)
		if other.err != nil || other.consumed != len(out) {
			t.Fatalf("our own bytes are refused: %v: % x", other.err, out)
		}
		for i, e := range other.events {
			switch e.op {
			case ws.OpPong:
			case ws.OpClose:
				if i != len(other.events)-1 {
					t.Fatal("a frame behind our Close")
				}
				if _, _, err := ParseClose([]byte(e.data)); err != nil {
					t.Fatalf("our own Close: %v", err)
				}
			default:
				t.Fatalf("a frame that nobody asked for: %+v", e)
			}
		}
		if closed := len(other.events) > 0 && other.events[len(other.events)-1].op == ws.OpClose; closed != c.CloseSent() {
			t.Fatalf("CloseSent = %v", c.CloseSent())
		}
		if (err != nil || c.CloseReceived()) && !c.CloseSent() {
			t.Fatal("no Close was sent")
		}
	})
}
