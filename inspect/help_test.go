package inspect

import (
	"encoding/hex"
	"encoding/json"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"wspoll/frame"
	"wspoll/handshake"

	"github.com/gobwas/ws"
)

// wire reads hexadecimal digits with blanks, as the RFC prints its examples.
func wire(s string) []byte {
	b, err := hex.DecodeString(strings.Join(strings.Fields(s), ""))
	if err != nil {
		panic(err)
	}
	return b
}

// The handshake of §1.3.
const (
	exampleRequest = "GET /chat HTTP/1.1\r\nHost: server.example.com\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n" +
		"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nOrigin: http://example.com\r\n" +
		"Sec-WebSocket-Protocol: chat, superchat\r\nSec-WebSocket-Version: 13\r\n\r\n"
	exampleAnswer = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n" +
		"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\nSec-WebSocket-Protocol: chat\r\n\r\n"
)

// deflateOn is permessage-deflate without parameters.
var deflateOn = &handshake.Deflate{On: true, ServerBits: 15, ClientBits: 15}

// part is bytes of one side.
type sent struct {
	dir   Dir
	bytes []byte
}

// explained is what came of a connection, by lane and direction.
type explained struct {
	read, wire, message [2][]Record
	all                 []Record
}

func (x *explained) add(records []Record) {
	for _, r := range records {
		lane := &x.wire
		switch r.Kind {
		case KindRead:
			lane = &x.read
		case KindMessage:
			lane = &x.message
		}
		lane[r.Dir] = append(lane[r.Dir], r)
		x.all = append(x.all, r)
	}
}

// explain feeds what was sent, each part cut into the sizes that cut returns. The bytes are scribbled over afterwards: an
// Explainer that kept them would show it.
func explain(o Options, parts []sent, cut func(left int) int) *explained {
	e, x := New(o), &explained{}
	for _, p := range parts {
		for b := p.bytes; len(b) > 0; {
			n := cut(len(b))
			chunk := slices.Clone(b[:n])
			x.add(e.Feed(p.dir, time.Time{}, chunk))
			if string(chunk) != string(b[:n]) {
				panic("Feed changed its input")
			}
			for i := range chunk {
				chunk[i] = 0xa5
			}
			b = b[n:]
		}
	}
	x.add(e.Finish())
	return x
}

func whole(left int) int         { return left }
func byteWise(_ int) int         { return 1 }
func one(d Dir, b []byte) []sent { return []sent{{d, b}} }

func atRandom(seed uint64) func(int) int {
	r := rand.New(rand.NewPCG(seed, 7))
	return func(left int) int { return 1 + r.IntN(min(left, 1+r.IntN(200))) }
}

// violations are all of them, in their order.
func (x *explained) violations() (v []Violation) {
	for _, r := range x.all {
		v = append(v, r.Violations...)
	}
	return v
}

func kindsOf(v []Violation) (names []string) {
	for _, x := range v {
		names = append(names, x.Kind)
	}
	return names
}

// sameExplanation compares the lanes that must not depend on how the bytes were cut.
func sameExplanation(t testing.TB, what string, want, got *explained) {
	t.Helper()
	for d := range 2 {
		for _, lane := range []struct {
			name      string
			want, got []Record
		}{{"wire", want.wire[d], got.wire[d]}, {"message", want.message[d], got.message[d]}} {
			if len(lane.want) != len(lane.got) {
				t.Fatalf("%s: %v: %d %s records, want %d", what, Dir(d), len(lane.got), lane.name, len(lane.want))
			}
			for i := range lane.want {
				if a, b := text(lane.want[i]), text(lane.got[i]); a != b {
					t.Fatalf("%s: %v: %s record %d is\n%s, want\n%s", what, Dir(d), lane.name, i, b, a)
				}
			}
		}
	}
}

// text is all of a record but its reads.
func text(r Record) string {
	r.Reads = [2]int{}
	b, err := json.Marshal(r)
	if err != nil {
		panic(err)
	}
	return string(b)
}

// accounted checks that the records of the two lower lanes have each byte exactly once, and that the lanes refer to each
// other rightly.
func accounted(t testing.TB, x *explained, size [2]int) {
	t.Helper()
	for d := range 2 {
		reads, items, messages := x.read[d], x.wire[d], x.message[d]
		for _, lane := range [][]Record{reads, items} {
			at := int64(0)
			for i, r := range lane {
				if r.N != i || r.Start != at || r.End < r.Start || r.End == r.Start && r.Kind != KindFrame {
					t.Fatalf("%v: record %d is %s number %d of bytes %d to %d, want it to begin at %d", Dir(d), i, r.Kind, r.N, r.Start, r.End, at)
				}
				at = r.End
			}
			if at != int64(size[d]) {
				t.Fatalf("%v: the records end at %d of %d bytes", Dir(d), at, size[d])
			}
		}
		holds := func(lane []Record, n int, at int64) bool {
			return n < len(lane) && lane[n].Start <= at && at < lane[n].End
		}
		for _, r := range items {
			if !holds(reads, r.Reads[0], r.Start) || !holds(reads, r.Reads[1], r.End-1) {
				t.Fatalf("%v: %s %d of bytes %d to %d did not come with reads %v", Dir(d), r.Kind, r.N, r.Start, r.End, r.Reads)
			}
			for _, v := range r.Violations {
				if v.At < r.Start || v.At >= max(r.End, r.Start+1) {
					t.Fatalf("%v: %s is at %d, outside of bytes %d to %d", Dir(d), v.Kind, v.At, r.Start, r.End)
				}
			}
			if f := r.Frame; f != nil && f.Message != nil {
				m := messages[*f.Message]
				if r.N < m.Message.Frames[0] || r.N > m.Message.Frames[1] || r.Start < m.Start || r.End > m.End {
					t.Fatalf("%v: frame %d of bytes %d to %d is outside of its message: %s", Dir(d), r.N, r.Start, r.End, text(m))
				}
			}
		}
		for _, r := range reads {
			if !holds(items, r.Read.Wire[0], r.Start) || !holds(items, r.Read.Wire[1], r.End-1) {
				t.Fatalf("%v: read %d of bytes %d to %d did not bring records %v", Dir(d), r.N, r.Start, r.End, r.Read.Wire)
			}
		}
		for i, m := range messages {
			count, bytes := 0, int64(0)
			for _, r := range items {
				if r.Frame != nil && r.Frame.Message != nil && *r.Frame.Message == i {
					count++
					bytes += r.End - r.Start - int64(len(r.Frame.Header))
				}
			}
			if m.N != i || m.Message.Count != count || m.Message.Size != bytes {
				t.Fatalf("%v: message %d has %d frames with %d bytes: %s", Dir(d), i, count, bytes, text(m))
			}
		}
	}
}

// fromClient and fromServer make frames, legal or not: first is FIN, RSV and opcode.
func fromClient(first byte, payload string) []byte { return build(first, payload, true) }
func fromServer(first byte, payload string) []byte { return build(first, payload, false) }

func build(first byte, payload string, masked bool) []byte {
	h := ws.Header{Fin: first&0x80 != 0, Rsv: first >> 4 & 7, OpCode: ws.OpCode(first & 15), Length: int64(len(payload))}
	if masked {
		h.Masked, h.Mask = true, [4]byte{0x37, 0xfa, 0x21, 0x3d}
	}
	b := frame.AppendHeader(nil, h)
	n := len(b)
	b = append(b, payload...)
	if masked {
		ws.Cipher(b[n:], h.Mask, 0)
	}
	return b
}

func joined(frames ...[]byte) []byte { return slices.Concat(frames...) }
