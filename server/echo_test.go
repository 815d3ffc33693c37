package server

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"math/rand"
	"runtime"
	"strings"
	"testing"
	"time"

	"wspoll/frame"

	"github.com/gobwas/ws"
)

func TestMessagesOfEverySizeOfHeaderComeBack(t *testing.T) {
	s := serve(t, Config{Loops: 2}, nil)
	c := s.open(t, "/echo")
	big := make([]byte, 1<<20)
	rand.New(rand.NewSource(1)).Read(big)
	text := []byte(strings.Repeat("grün ", 1<<18))
	for _, n := range []int{0, 1, 125, 126, 127, 65535, 65536, 1 << 20} {
		c.echoes(ws.OpBinary, big[:n])
		c.echoes(ws.OpText, bytes.ToValidUTF8(text[:n], []byte("?")))
	}
	eventually(t, "no buffer is left", func() bool { return s.Stats().Buffered == 0 })
	if st := s.Stats(); st.MessagesIn != 16 || st.BytesIn != st.BytesOut {
		t.Errorf("%+v", st)
	}
}

func TestControlFramesPassBetweenFragments(t *testing.T) {
	s := serve(t, Config{}, nil)
	c := s.open(t, "/echo")
	for i, step := range []struct {
		in   []byte
		want received
	}{
		{masked(false, ws.OpText, []byte("gr\xc3")), received{false, ws.OpText, []byte("gr\xc3")}},
		{masked(true, ws.OpPing, []byte("a")), received{true, ws.OpPong, []byte("a")}},
		{masked(false, ws.OpContinuation, []byte("\xbcn")), received{false, ws.OpContinuation, []byte("\xbcn")}},
		{append(masked(true, ws.OpPong, []byte("nobody asked")), masked(true, ws.OpPing, nil)...), received{true, ws.OpPong, nil}},
		{masked(true, ws.OpContinuation, nil), received{true, ws.OpContinuation, nil}},
	} {
		c.write(step.in)
		if got := c.frame(); fmt.Sprint(got) != fmt.Sprint(step.want) {
			t.Errorf("step %d: %+v, want %+v", i, got, step.want)
		}
	}
}

func TestFramesMayComeByteByByte(t *testing.T) {
	s := serve(t, Config{}, nil)
	conn := s.packets(t)
	c := join(t, conn, hello("/echo"), nil)
	stream := masked(false, ws.OpText, []byte("grü"))
	stream = append(stream, masked(true, ws.OpPing, []byte("ping"))...)
	stream = append(stream, masked(true, ws.OpContinuation, bytes.Repeat([]byte("ß"), 70))...)
	stream = frame.AppendMaskedClose(stream, [4]byte{9, 9, 9, 9}, 1000, "bye")
	for i := range stream {
		conn.Write(stream[i : i+1])
	}
	var text []byte
	pong := false
	for {
		f := c.frame()
		if f.op == ws.OpClose {
			break
		}
		if f.op == ws.OpPong {
			pong = string(f.payload) == "ping"
			continue
		}
		text = append(text, f.payload...)
	}
	if string(text) != "grü"+strings.Repeat("ß", 70) || !pong {
		t.Errorf("%q, pong %v", text, pong)
	}
	c.wantEnd()
}

func TestEverythingInOnePacketIsAnsweredWithOneWrite(t *testing.T) {
	s := serve(t, Config{}, nil)
	conn := s.packets(t) // a read of this test is a write of the server
	c := join(t, conn, hello("/echo"), nil)
	for _, tt := range []struct{ frames, size int }{{1, 32}, {16, 32}, {16, 1000}, {300, 5}, {1, 9000}, {1, 60000}} {
		var in, want []byte
		for i := range tt.frames {
			payload := bytes.Repeat([]byte{byte('a' + i%26)}, tt.size)
			in = append(in, masked(true, ws.OpText, payload)...)
			want = frame.AppendFrame(want, true, ws.OpText, payload)
			if i == tt.frames/2 { // and what the protocol owes is in the same write
				in = append(in, masked(true, ws.OpPing, []byte("x"))...)
				want = frame.AppendFrame(want, true, ws.OpPong, []byte("x"))
			}
		}
		c.write(in)
		got := make([]byte, 200<<10)
		n, err := conn.Read(got)
		if err != nil || !bytes.Equal(got[:n], want) {
			// A payload that is written from where it is takes what is behind it into the next write.
			if tt.size >= 8<<10 && err == nil && bytes.HasPrefix(want, got[:n]) {
				m, _ := conn.Read(got[n:])
				if bytes.Equal(got[:n+m], want) {
					continue
				}
			}
			t.Errorf("%d frames of %d bytes: the first write has %d bytes of %d, error %v", tt.frames, tt.size, n, len(want), err)
		}
	}
	// The 101 and the answer to frames in the same packet, too.
	conn = s.packets(t)
	h := hello("/echo")
	b := masked(true, ws.OpText, []byte("first"))
	join(t, conn, h, b).justThis(frame.AppendFrame(nil, true, ws.OpText, []byte("first")))
}

// justThis says whether exactly b was read behind the last thing that was taken.
func (c *client) justThis(b []byte) {
	c.t.Helper()
	if !bytes.Equal(c.in, b) {
		c.t.Errorf("%q was read, want %q", c.in, b)
	}
}

// TestHugeMessageNeedsNoMemory streams one frame through the echo, of 1 GiB,
// less where that takes long.
func TestHugeMessageNeedsNoMemory(t *testing.T) {
	size := int64(1 << 30)
	if raceEnabled || testing.Short() {
		size = 256 << 20
	}
	s := serve(t, Config{MaxMessage: Unlimited}, nil)
	c := s.open(t, "/echo")
	c.conn.SetDeadline(time.Now().Add(3 * patience))
	chunk := bytes.Repeat([]byte("0123456789abcdef"), 4<<10)
	sent := make(chan error, 1)
	go func() {
		// A masking key of zeros leaves the bytes as they are.
		head := frame.AppendHeader(nil, ws.Header{Fin: true, OpCode: ws.OpBinary, Masked: true, Length: size})
		_, err := c.conn.Write(head)
		for n := int64(0); n < size && err == nil; n += int64(len(chunk)) {
			_, err = c.conn.Write(chunk)
		}
		sent <- err
	}()
	live := func() uint64 { // without the garbage, of other tests too
		var m runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	heap, buffered, got, looks := live(), int64(0), int64(0), int64(0)
	var p frame.Piece
	first, last := true, false
	for got < size {
		if err := c.fill(); err != nil {
			t.Fatalf("after %d bytes: %v", got, err)
		}
		in := c.in
		for len(in) > 0 {
			n, err := c.parser.Next(&clientRules, in, &p)
			if err != nil {
				t.Fatal(err)
			}
			if n == 0 {
				break
			}
			if p.First != first {
				t.Fatal("more than one message came")
			}
			for i, b := range p.Data[:min(len(p.Data), 16)] {
				if want := chunk[(got+int64(i))%16]; b != want {
					t.Fatalf("byte %d is %q, want %q", got+int64(i), b, want)
				}
			}
			first, last = false, p.Last
			got += int64(len(p.Data))
			in = in[n:]
		}
		c.in = c.in[:copy(c.in[:cap(c.in)], in)]
		if got>>24 > looks { // every 16 MiB
			looks = got >> 24
			heap = max(heap, live())
			buffered = max(buffered, s.Stats().Buffered)
		}
	}
	if err := receive(t, "all is sent", sent); err != nil || !last {
		t.Errorf("error %v, last %v", err, last)
	}
	if buffered > 1<<20 || heap > 32<<20 {
		t.Errorf("%d bytes waited in buffers, the heap had %d bytes, for a message of %d", buffered, heap, size)
	}
	c.echoes(ws.OpText, []byte("and on"))
}

func TestViolationsAreAnsweredWithTheirCode(t *testing.T) {
	s := serve(t, Config{MaxMessage: 1000}, nil)
	key := []byte{1, 2, 3, 4}
	raw := func(b ...byte) []byte { return b }
	for _, tt := range []struct {
		name string
		in   []byte
		code ws.StatusCode
		says string
	}{
		{"not masked", frame.AppendFrame(nil, true, ws.OpText, []byte("hi")), 1002, "not masked"},
		{"RSV1", append(raw(0xc1, 0x82), key...), 1002, "reserved bit"},
		{"RSV2", append(raw(0xa1, 0x82), key...), 1002, "reserved bit"},
		{"RSV3", append(raw(0x91, 0x82), key...), 1002, "reserved bit"},
		{"reserved data opcode", append(raw(0x83, 0x80), key...), 1002, "opcode"},
		{"reserved control opcode", append(raw(0x8b, 0x80), key...), 1002, "opcode"},
		{"fragmented ping", append(raw(0x09, 0x80), key...), 1002, "fragmented"},
		{"long ping", append(raw(0x89, 0xfe, 0, 126), key...), 1002, "125"},
		{"lone continuation", masked(true, ws.OpContinuation, nil), 1002, "continuation"},
		{"text inside text", append(masked(false, ws.OpText, nil), masked(true, ws.OpText, nil)...), 1002, "inside a fragmented message"},
		{"length not minimal", append(raw(0x81, 0xfe, 0, 5), key...), 1002, "shortest form"},
		{"length with its top bit", append(raw(0x82, 0xff, 0x80, 0, 0, 0, 0, 0, 0, 0), key...), 1002, "most significant bit"},
		{"text is not UTF-8", masked(true, ws.OpText, []byte("a\xffb")), 1007, "UTF-8"},
		{"text ends in a code point", masked(true, ws.OpText, []byte("gr\xc3")), 1007, "UTF-8"},
		{"declared above the limit", raw(0x82, 0xfe, 0x03, 0xe9), 1009, "larger than the limit"},
		{"above the limit in fragments", append(masked(false, ws.OpBinary, make([]byte, 900)), raw(0x80, 0xe5)...), 1009, "larger than the limit"},
		{"Close of one byte", masked(true, ws.OpClose, []byte{3}), 1002, "one byte"},
		{"Close 1005", masked(true, ws.OpClose, []byte{0x03, 0xed}), 1002, "status code"},
		{"Close 999", masked(true, ws.OpClose, []byte{0x03, 0xe7}), 1002, "status code"},
		{"Close 5000", masked(true, ws.OpClose, []byte{0x13, 0x88}), 1002, "status code"},
		{"Close reason is not UTF-8", masked(true, ws.OpClose, []byte{0x03, 0xe8, 0xff}), 1007, "UTF-8"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			c := s.open(t, "/echo")
			c.write(tt.in)
			if says := c.wantClose(tt.code); !strings.Contains(says, tt.says) {
				t.Errorf("the reason is %q, want it to say %q", says, tt.says)
			}
			c.wantEnd()
		})
	}
	s.open(t, "/echo").echoes(ws.OpText, make([]byte, 1000)) // the limit itself is allowed
}

func TestBadByteIsAnsweredBeforeTheMessageIsWhole(t *testing.T) {
	s := serve(t, Config{}, nil)
	c := s.open(t, "/echo")
	whole := masked(true, ws.OpText, append([]byte("good so far \xff"), make([]byte, 1000)...))
	c.write(whole[:len(whole)-1000]) // the 1000 never come
	c.wantClose(ws.StatusInvalidFramePayloadData)
	c.wantEnd()
}

func TestEveryCloseCodeThatMayBeSentComesBack(t *testing.T) {
	s := serve(t, Config{}, nil)
	for _, code := range []ws.StatusCode{1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014, 3000, 3999, 4000, 4999} {
		c := s.open(t, "/echo")
		c.close(code)
		c.wantClose(code)
		c.wantEnd()
	}
	c := s.open(t, "/echo")
	c.send(ws.OpClose, nil)
	if f := c.frame(); f.op != ws.OpClose || len(f.payload) != 0 {
		t.Errorf("a Close without a code was answered by %+v", f)
	}
	c.wantEnd()
	s.waitClosed(t, ReasonPeerClosed, 17)
}

func TestCloseEndsAMessageInTheMiddle(t *testing.T) {
	s := serve(t, Config{}, nil)
	c := s.open(t, "/echo")
	c.write(masked(false, ws.OpText, []byte("never ended")))
	if f := c.frame(); string(f.payload) != "never ended" || f.fin {
		t.Errorf("%+v", f)
	}
	c.write(frame.AppendMaskedClose(nil, [4]byte{}, 1000, ""))
	c.wantClose(1000)
	c.wantEnd()
	s.waitClosed(t, ReasonPeerClosed, 1)
}

func TestNothingIsAnsweredBehindTheClose(t *testing.T) {
	s := serve(t, Config{}, nil)
	c := s.open(t, "/echo")
	b := frame.AppendMaskedClose(nil, [4]byte{}, 1000, "")
	c.write(append(b, masked(true, ws.OpText, []byte("too late"))...))
	if f := c.frame(); f.op != ws.OpClose {
		t.Errorf("%+v", f)
	}
	c.wantEnd()
}

// A peer that shuts down its sending side right behind its last message still
// gets the answer, whatever waited meanwhile.
func TestHalfClosedPeerGetsItsAnswers(t *testing.T) {
	s := serve(t, Config{}, nil)
	c := s.open(t, "/echo")
	payload := make([]byte, 8<<20)
	binary.BigEndian.PutUint64(payload, 42)
	go func() {
		c.conn.Write(masked(true, ws.OpBinary, payload))
		c.conn.(interface{ CloseWrite() error }).CloseWrite()
	}()
	if _, got := c.message(); !bytes.Equal(got, payload) {
		t.Errorf("%d bytes came back of %d", len(got), len(payload))
	}
	if _, err := c.next(); err != io.EOF {
		t.Errorf("then %v", err)
	}
	s.waitClosed(t, ReasonEOF, 1)
}

// A peer that reads slowly is held back, not cut off, however low the limit of
// what may wait for it is.
func TestSlowReaderOfItsOwnEchoIsHeldBack(t *testing.T) {
	for _, pending := range []int{4 << 10, 64 << 10, 1 << 20} {
		t.Run(fmt.Sprint(pending), func(t *testing.T) {
			s := serve(t, Config{MaxPending: pending}, nil)
			c := s.dial(t)
			c.SetReadBuffer(128 << 10)
			cl := join(t, c, hello("/echo"), nil)
			payload := make([]byte, 12<<20)
			c.SetDeadline(time.Now().Add(time.Minute)) // small reads, and a kernel that drops what it cannot queue
			go func() {
				for n := 0; n < len(payload); n += 1 << 20 {
					if _, err := c.Write(masked(true, ws.OpBinary, payload[n:n+1<<20])); err != nil {
						return
					}
				}
			}()
			eventually(t, "bytes wait for the peer", func() bool { st := s.Stats(); return st.Buffered > 0 || st.Connections == 0 })
			for got := 0; got < len(payload); {
				f, err := cl.next()
				if err != nil {
					t.Fatalf("after %d bytes of %d: %v; ended: %v", got, len(payload), err, s.Stats().Closed)
				}
				got += len(f.payload)
			}
		})
	}
}
