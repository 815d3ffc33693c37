package frame

import (
	"fmt"
	"testing"
	"unsafe"
)

// messages feeds input in chunks of size to a Parser and a Joiner.
func messages(t *testing.T, j *Joiner, input []byte, size int) (got []string) {
	t.Helper()
	var p Parser
	var piece Piece
	var buf []byte
	for len(input) > 0 {
		n := min(size, len(input))
		buf = append(buf, input[:n]...)
		input = input[n:]
		for {
			n, err := p.Next(client, buf, &piece)
			if err != nil {
				t.Fatal(err)
			}
			if n == 0 {
				break
			}
			if msg, whole := j.Add(&piece); whole {
				got = append(got, fmt.Sprintf("%x:%s", byte(piece.Op), msg))
			} else if msg != nil {
				t.Fatalf("part of a message: %q", msg)
			}
			scribble(buf[:n])
			buf = buf[n:]
		}
	}
	return got
}

func TestMessagesAreJoinedHoweverTheyCome(t *testing.T) {
	input := wire("81 02 48 69" + // "Hi"
		"02 03 01 02 03  89 01 70  00 00  80 01 04" + // 01 02 03 04, a ping between
		"01 00 80 00" + // an empty text in two fragments
		"82 00" +
		"01 01 61 80 01 62")
	want := fmt.Sprint([]string{"1:Hi", "9:p", "2:\x01\x02\x03\x04", "1:", "2:", "1:ab"})
	for size := 1; size <= len(input); size++ {
		var j Joiner
		if got := fmt.Sprint(messages(t, &j, input, size)); got != want {
			t.Errorf("chunks of %d: %q, want %q", size, got, want)
		}
	}
}

func TestAMessageInOnePieceIsNotCopied(t *testing.T) {
	in := wire("81 05 48 65 6c 6c 6f")
	var p Parser
	var piece Piece
	j := Joiner{Buf: make([]byte, 0, 100)}
	if _, err := p.Next(client, in, &piece); err != nil {
		t.Fatal(err)
	}
	msg, whole := j.Add(&piece)
	if !whole || string(msg) != "Hello" || unsafe.SliceData(msg) != &in[2] {
		t.Errorf("%q, %v", msg, whole)
	}
}

func TestTheCallerMayTakeTheBufferAway(t *testing.T) {
	j := Joiner{Buf: make([]byte, 0, 64)}
	room := unsafe.SliceData(j.Buf[:1])
	in := wire("01 01 61 80 01 62")
	if got := messages(t, &j, in, 100); got[0] != "1:ab" || unsafe.SliceData(j.Buf) != room {
		t.Errorf("%q, not in the caller's room", got)
	}
	j.Buf = nil
	if got := messages(t, &j, in, 100); got[0] != "1:ab" {
		t.Errorf("%q after the buffer was taken", got)
	}
}

func ExampleJoiner() {
	stream := []byte("\x01\x03Hel" + "\x89\x00" + "\x80\x02lo")
	rules := &Rules{Client: true}
	var p Parser
	var piece Piece
	var j Joiner
	for len(stream) > 0 {
		n, err := p.Next(rules, stream, &piece)
		if n == 0 || err != nil {
			break
		}
		if msg, whole := j.Add(&piece); whole {
			fmt.Printf("opcode %x %q\n", byte(piece.Op), msg)
		}
		stream = stream[n:]
	}
	// Output:
	// opcode 9 ""
	// opcode 1 "Hello"
}
