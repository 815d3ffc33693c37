package frame_test

import (
	"bytes"
	"fmt"

	"wspoll/frame"

	"github.com/gobwas/ws"
)

// The example frames of RFC 6455 §5.7, all of them, written.
func Example() {
	hello := []byte("Hello")
	key := [4]byte{0x37, 0xfa, 0x21, 0x3d}

	fmt.Println("A single-frame unmasked text message")
	fmt.Printf("% x\n", frame.AppendFrame(nil, true, ws.OpText, hello))

	fmt.Println("A single-frame masked text message")
	fmt.Printf("% x\n", frame.AppendMasked(nil, true, ws.OpText, key, hello))

	fmt.Println("A fragmented unmasked text message")
	fmt.Printf("% x\n", frame.AppendFrame(nil, false, ws.OpText, hello[:3]))
	fmt.Printf("% x\n", frame.AppendFrame(nil, true, ws.OpContinuation, hello[3:]))

	fmt.Println("Unmasked Ping request and masked Ping response")
	fmt.Printf("% x\n", frame.AppendFrame(nil, true, ws.OpPing, hello))
	fmt.Printf("% x\n", frame.AppendMasked(nil, true, ws.OpPong, key, hello))

	fmt.Println("256 bytes binary message in a single unmasked frame")
	b := frame.AppendFrame(nil, true, ws.OpBinary, make([]byte, 256))
	fmt.Printf("% x [%d bytes of binary data]\n", b[:4], len(b[4:]))

	fmt.Println("64KiB binary message in a single unmasked frame")
	b = frame.AppendFrame(nil, true, ws.OpBinary, make([]byte, 64<<10))
	fmt.Printf("% x [%d bytes of binary data]\n", b[:10], len(b[10:]))
	// Output:
	// A single-frame unmasked text message
	// 81 05 48 65 6c 6c 6f
	// A single-frame masked text message
	// 81 85 37 fa 21 3d 7f 9f 4d 51 58
	// A fragmented unmasked text message
	// 01 03 48 65 6c
	// 80 02 6c 6f
	// Unmasked Ping request and masked Ping response
	// 89 05 48 65 6c 6c 6f
	// 8a 85 37 fa 21 3d 7f 9f 4d 51 58
	// 256 bytes binary message in a single unmasked frame
	// 82 7e 01 00 [256 bytes of binary data]
	// 64KiB binary message in a single unmasked frame
	// 82 7f 00 00 00 00 00 01 00 00 [65536 bytes of binary data]
}

// The same frames, read: one after the other, as they would come from a server.
func ExampleParser() {
	stream := bytes.Join([][]byte{
		{0x81, 0x05, 0x48, 0x65, 0x6c, 0x6c, 0x6f},
		{0x01, 0x03, 0x48, 0x65, 0x6c},
		{0x89, 0x05, 0x48, 0x65, 0x6c, 0x6c, 0x6f}, // a ping may come between fragments
		{0x80, 0x02, 0x6c, 0x6f},
		{0x82, 0x7e, 0x01, 0x00},
		make([]byte, 256),
		{0x82, 0x7f, 0x00, 0x00, 0x00, 0x00, 0x00, 0x01, 0x00, 0x00},
		make([]byte, 64<<10),
		{0x81}, // half a header: more must come
	}, nil)
	rules := &frame.Rules{Client: true}
	var p frame.Parser
	var piece frame.Piece
	for {
		n, err := p.Next(rules, stream, &piece)
		if err != nil {
			fmt.Println(err)
			return
		}
		if n == 0 {
			fmt.Printf("% x: not enough\n", stream)
			return
		}
		fmt.Printf("opcode %x, FIN %t, %d bytes, message begins %t, ends %t\n",
			byte(piece.Header.OpCode), piece.Header.Fin, len(piece.Data), piece.First, piece.Last)
		stream = stream[n:]
	}
	// Output:
	// opcode 1, FIN true, 5 bytes, message begins true, ends true
	// opcode 1, FIN false, 3 bytes, message begins true, ends false
	// opcode 9, FIN true, 5 bytes, message begins true, ends true
	// opcode 0, FIN true, 2 bytes, message begins false, ends true
	// opcode 2, FIN true, 256 bytes, message begins true, ends true
	// opcode 2, FIN true, 65536 bytes, message begins true, ends true
	// 81: not enough
}

// The masked frames of §5.7 come from a client, and only a server may take them (§5.1).
func ExampleRules() {
	masked := []byte{0x81, 0x85, 0x37, 0xfa, 0x21, 0x3d, 0x7f, 0x9f, 0x4d, 0x51, 0x58}
	for _, client := range []bool{false, true} {
		var p frame.Parser
		var piece frame.Piece
		_, err := p.Next(&frame.Rules{Client: client}, bytes.Clone(masked), &piece)
		if err != nil {
			fmt.Println(err)
			continue
		}
		fmt.Printf("%s\n", piece.Data)
	}
	// Output:
	// Hello
	// RFC 6455 §5.1: frame from a server is masked
}
