package frame

import (
	"bytes"
	"fmt"
	"strings"
	"testing"

	"github.com/gobwas/ws"
)

func TestTheExamplesOfTheRFCAreWritten(t *testing.T) {
	hello := []byte("Hello")
	for _, test := range []struct {
		name string // as in §5.7
		got  []byte
		wire string
	}{
		{
			"a single-frame unmasked text message",
			AppendFrame(nil, true, ws.OpText, hello), "81 05 48 65 6c 6c 6f",
		},
		{
			"a single-frame masked text message",
			AppendMasked(nil, true, ws.OpText, rfcMask, hello), "81 85 37 fa 21 3d 7f 9f 4d 51 58",
		},
		{
			"a fragmented unmasked text message",
			AppendFrame(AppendFrame(nil, false, ws.OpText, hello[:3]), true, ws.OpContinuation, hello[3:]),
			"01 03 48 65 6c 80 02 6c 6f",
		},
		{
			"unmasked ping request",
			AppendFrame(nil, true, ws.OpPing, hello), "89 05 48 65 6c 6c 6f",
		},
		{
			"masked ping response",
			AppendMasked(nil, true, ws.OpPong, rfcMask, hello), "8a 85 37 fa 21 3d 7f 9f 4d 51 58",
		},
		{
			"256 bytes binary message in a single unmasked frame",
			AppendFrame(nil, true, ws.OpBinary, make([]byte, 256)), "82 7e 0100" + strings.Repeat("00", 256),
		},
		{
			"64KiB binary message in a single unmasked frame",
			AppendFrame(nil, true, ws.OpBinary, make([]byte, 65536)),
			"82 7f 0000000000010000" + strings.Repeat("00", 65536),
		},
	} {
		if want := wire(test.wire); !bytes.Equal(test.got, want) {
			t.Errorf("%s: % x, want % x", test.name, test.got, want)
		}
	}
}

func TestHeadersAreWhatGobwasWrites(t *testing.T) {
	for _, length := range []int64{0, 1, 125, 126, 127, 255, 256, 65535, 65536, 1 << 32, 1<<63 - 1} {
		for b0 := range 256 {
			for _, masked := range []bool{false, true} {
				h := ws.Header{
					Fin: b0&0x80 != 0, Rsv: byte(b0) >> 4 & 7, OpCode: ws.OpCode(b0 & 15),
					Masked: masked, Length: length,
				}
				if masked {
					h.Mask = rfcMask
				}
				var want bytes.Buffer
				if err := ws.WriteHeader(&want, h); err != nil {
					t.Fatal(err)
				}
				got := AppendHeader([]byte("x"), h)
				if string(got) != "x"+want.String() {
					t.Fatalf("%+v: % x, gobwas: % x", h, got[1:], want.Bytes())
				}
				if len(got)-1 != ws.HeaderSize(h) {
					t.Fatalf("%+v: %d bytes", h, len(got)-1)
				}
			}
		}
	}
}

func TestMaskingLeavesTheCallersBytesAlone(t *testing.T) {
	payload := []byte("the caller still needs this")
	before := bytes.Clone(payload)
	dst := AppendMasked([]byte("kept"), true, ws.OpBinary, rfcMask, payload)
	if !bytes.Equal(payload, before) {
		t.Error("payload changed")
	}
	if !bytes.HasPrefix(dst, []byte("kept")) {
		t.Error("what was in dst is gone")
	}
}

func TestEncodersHoldTheirCallerToTheRules(t *testing.T) {
	for _, op := range []ws.OpCode{ws.OpClose, ws.OpPing, ws.OpPong} {
		AppendFrame(nil, true, op, make([]byte, 125))
		AppendMasked(nil, true, op, rfcMask, make([]byte, 125))
		mustPanic(t, MisuseControl, func() { AppendFrame(nil, true, op, make([]byte, 126)) })
		mustPanic(t, MisuseControl, func() { AppendMasked(nil, true, op, rfcMask, make([]byte, 126)) })
		mustPanic(t, MisuseControl, func() { AppendFrame(nil, false, op, nil) })
		mustPanic(t, MisuseControl, func() { AppendMasked(nil, false, op, rfcMask, nil) })
	}
	mustPanic(t, MisuseLength, func() { AppendHeader(nil, ws.Header{Length: -1}) })
	if got := MisuseLength.Error(); got != "frame: payload length is negative" {
		t.Error(got)
	}
}

func TestEncodersDoNotAllocateWhenDstHasRoom(t *testing.T) {
	payload, dst := make([]byte, 1000), make([]byte, 0, 2000)
	for name, f := range map[string]func(){
		"AppendHeader":      func() { AppendHeader(dst, ws.Header{Length: 1 << 20, Masked: true}) },
		"AppendFrame":       func() { AppendFrame(dst, true, ws.OpText, payload) },
		"AppendMasked":      func() { AppendMasked(dst, true, ws.OpText, rfcMask, payload) },
		"AppendClose":       func() { AppendClose(dst, 1000, "bye") },
		"AppendMaskedClose": func() { AppendMaskedClose(dst, rfcMask, 1000, "bye") },
	} {
		if n := testing.AllocsPerRun(100, f); n != 0 {
			t.Errorf("%s: %v allocations", name, n)
		}
	}
}

func ExampleAppendFrame() {
	fmt.Printf("% x\n", AppendFrame(nil, true, ws.OpText, []byte("Hello")))
	b := AppendFrame(nil, false, ws.OpText, []byte("Hel"))
	fmt.Printf("% x\n", AppendFrame(b, true, ws.OpContinuation, []byte("lo")))
	// Output:
	// 81 05 48 65 6c 6c 6f
	// 01 03 48 65 6c 80 02 6c 6f
}

func ExampleAppendMasked() {
	key := [4]byte{0x37, 0xfa, 0x21, 0x3d}
	fmt.Printf("% x\n", AppendMasked(nil, true, ws.OpText, key, []byte("Hello")))
	// Output:
	// 81 85 37 fa 21 3d 7f 9f 4d 51 58
}
