package conform

import (
	"bytes"
	"fmt"

	"github.com/gobwas/ws"
)

// limitCases are the cases of §10.4: messages up to 16 MiB. Who has a smaller limit says so with 1009.
func limitCases() []Case {
	var cases []Case
	for _, k := range []struct {
		name string
		op   byte
		data func(int) []byte
	}{{"text", text, letters}, {"binary", binaryOp, noise}} {
		for _, kib := range []int{256, 512, 1024, 2048, 4096, 8192, 16384} {
			cases = append(cases, large(fmt.Sprintf("%s-%dk", k.name, kib), fmt.Sprintf("A %s message of %d KiB in one frame.", k.name, kib), k.op,
				func(s *Session) []byte {
					data := k.data(kib << 10)
					s.Send(s.Frame(fin|k.op, data))
					return data
				}))
		}
		for _, c := range []struct{ kib, part int }{
			{1024, 64}, {1024, 256}, {1024, 1024}, {4096, 4096}, {4096, 65536}, {16384, 16384}, {16384, 65536}, {16384, 1 << 20},
		} {
			cases = append(cases, large(fmt.Sprintf("%s-%dk-fragments-of-%d", k.name, c.kib, c.part),
				fmt.Sprintf("A %s message of %d KiB in fragments of %d bytes.", k.name, c.kib, c.part), k.op,
				func(s *Session) []byte {
					data := k.data(c.kib << 10)
					var b []byte
					for _, f := range s.fragments(k.op, cut(data, c.part)...) {
						if b = append(b, f...); len(b) >= 256<<10 {
							s.write(b)
							b = b[:0]
						}
					}
					s.write(b)
					return data
				}))
		}
		for _, n := range []int{127, 997, 8191, 65536} {
			kib := 1024
			if n < 200 {
				kib = 256
			}
			cases = append(cases, large(fmt.Sprintf("%s-%dk-segments-of-%d", k.name, kib, n),
				fmt.Sprintf("A %s message of %d KiB in one frame, in segments of %d bytes.", k.name, kib, n), k.op,
				func(s *Session) []byte {
					data := k.data(kib << 10)
					s.SendChopped(s.Frame(fin|k.op, data), n)
					return data
				}))
		}
	}
	return append(
		cases,
		large("text-1024k-of-three-bytes", "A text message of 1 MiB of three-byte characters, in fragments of 1000 bytes, which cut them.", text, func(s *Session) []byte {
			data := bytes.Repeat([]byte("€"), 1<<20/3)
			s.Send(bytes.Join(s.fragments(text, cut(data, 1000)...), nil))
			return data
		}),
		Case{
			ID: "rfc6455-10.4-broken-after-4096k", Heavy: true,
			Sentence: "A text of 4 MiB in one frame whose last byte is wrong. The peer must fail the connection, with a Close 1007, or 1009 if it is too large.",
			Run: func(s *Session) {
				s.Open()
				s.Send(s.Frame(fin|text, append(letters(4<<20-1), 0xff)))
				s.ExpectFail(1007, 1009)
			},
		},
	)
}

// large is a case of a message that may be too large for the peer; send returns what it sent.
func large(id, sentence string, op byte, send func(*Session) []byte) Case {
	return Case{
		ID: "rfc6455-10.4-" + id, Heavy: true,
		Sentence: sentence + " It must come back, or the peer close with 1009.",
		Run: func(s *Session) {
			s.Open()
			data := send(s)
			if s.echoOrTooBig(ws.OpCode(op), data) {
				s.Finish()
			}
		},
	}
}

// echoOrTooBig is ExpectMessage for a message that the peer may find too large; it then ends the connection, and false is
// returned. A peer that echoes as it reads may have sent a part by then.
func (s *Session) echoOrTooBig(op ws.OpCode, data []byte) bool {
	for whole := false; !whole; {
		switch p, a := s.next(s.opts.Timeout); {
		case a == silent:
			s.Fail("neither the echo nor a Close came within %v", s.opts.Timeout)
		case a == over:
			s.NonStrict("%s without a Close where the echo should come, or a Close 1009", endWords(s.ended))
			return false
		case p.Op == ws.OpClose:
			s.judgeCode([]int{int(ws.StatusMessageTooBig)})
			s.Remark("%d bytes are too large for the peer", len(data))
			s.answerClose()
			s.expectEnd(false)
			return false
		case p.Op == ws.OpPong:
			s.pongs = append(s.pongs, p.Data)
		default:
			s.aside, whole = append(s.aside, p), p.Last
		}
	}
	s.ExpectMessage(op, data)
	return true
}
