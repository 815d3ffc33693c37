package frame

import (
	"io"

	"github.com/klauspost/compress/flate"
)

// MisuseDeflate is what a Deflater panics with.
const MisuseDeflate Misuse = "window of fewer than 8 or more than 15 bits for compression (RFC 7692 §7.1.2)"

// Deflater compresses messages for permessage-deflate (RFC 7692 §7.2.1). Like an
// Inflater it holds what is large, some 1,060 KiB for each size of window that was
// asked for, made when it is, and nothing that it would have to keep for a
// connection: one Deflater, of one goroutine, serves any number of them, each
// with a Deflation of its own or none. It allocates nothing after its first use
// for a size, if what it appends to has room.
//
// A message in one frame:
//
//	out = z.Append(out, s, bits, payload, true)
//
// And in fragments, each of which the receiver can inflate when it has come:
//
//	out = z.Append(out, s, bits, first, false)   RSV1
//	s.Keep(first, bits)
//	out = z.Append(out, s, bits, second, true)   the last one
//	s.Keep(second, bits)
type Deflater struct {
	sink    sink
	windows [maxWindowBits - minWindowBits + 1]*flate.Writer
	short   *flate.Writer
	dict    []byte // a copy for the writer, which keeps a reference
}

const (
	minWindowBits = 8
	maxWindowBits = 15

	// Below this size flate's writers with a window look for no matches at all,
	// not even in what went before; that of level 7 does. It cannot be told a
	// window, but with so short a payload the dictionary can be cut so that no
	// distance is too large.
	shortPayload = 128
)

// Deflation is what is kept of the messages that went out on one connection: the
// plain text that the next ones may refer to. The zero value is the beginning of
// a stream. It is kept between messages only with context takeover, and between
// the fragments of one message in any case. To forget it, at any time, is
// allowed: what comes then just refers to nothing (RFC 7692 §7.1.1).
type Deflation struct {
	// Window is the last plain text that was compressed, at most 1<<bits bytes.
	// Its array is reused. It grows by doubling, from 256 bytes on.
	Window []byte
}

// sink is the io.Writer of a flate.Writer: a slice to append to.
type sink struct{ b []byte }

func (s *sink) Write(p []byte) (int, error) {
	s.b = append(s.b, p...)
	return len(p), nil
}

// NewDeflater returns a Deflater, which is small until it is used.
func NewDeflater() *Deflater { return new(Deflater) }

// Append appends the compressed form of payload to dst, as the whole message or
// the next fragment of one; last says that the message ends with it. It refers
// to what is in s, which is only read: who sends it calls s.Keep. A nil s is an
// empty one. Matches reach back less than 1<<bits bytes: bits are 8 to 15, as
// negotiated for our side, and others are misuse.
//
// What is appended ends at a whole byte, with an empty stored block, of which
// the last fragment's lacks the 00 00 ff ff (§7.2.1): an empty message is one
// byte 00. dst may grow by more than len(payload); then the message is better
// sent as it is, if it has not begun.
func (z *Deflater) Append(dst []byte, s *Deflation, bits uint8, payload []byte, last bool) []byte {
	if bits < minWindowBits || bits > maxWindowBits {
		panic(MisuseDeflate)
	}
	if !last && len(payload) == 0 {
		return dst
	}
	z.dict = z.dict[:0]
	w := &z.windows[bits-minWindowBits]
	if s != nil && len(payload) < shortPayload {
		reach := 1<<bits - len(payload)
		z.dict = append(z.dict, s.Window[max(len(s.Window)-reach, 0):]...)
		w = &z.short
	} else if s != nil {
		z.dict = append(z.dict, s.Window[max(len(s.Window)-1<<bits, 0):]...)
	}
	z.sink.b = dst
	if *w == nil {
		*w = z.newWriter(bits, w == &z.short)
	}
	(*w).ResetDict(&z.sink, z.dict)
	(*w).Write(payload) // a sink does not fail
	(*w).Flush()
	dst = z.sink.b
	z.sink.b = nil
	if last {
		dst = dst[:len(dst)-len(syncTail)]
	}
	return dst
}

func (z *Deflater) newWriter(bits uint8, short bool) *flate.Writer {
	var w *flate.Writer
	var err error
	if short {
		w, err = flate.NewWriter(io.Discard, 7)
	} else {
		w, err = flate.NewWriterWindow(io.Discard, 1<<bits)
	}
	if err != nil {
		panic(err) // both have been in range
	}
	return w
}

// Keep adds to the window what was compressed, and sent, last. A message that is
// sent as it is does not belong to it.
func (s *Deflation) Keep(payload []byte, bits uint8) {
	limit := 1 << bits
	if len(payload) >= limit {
		payload = payload[len(payload)-limit:]
	}
	kept := min(len(s.Window), limit-len(payload))
	if need := kept + len(payload); need > cap(s.Window) {
		room := 256
		for room < need {
			room *= 2
		}
		s.Window = append(make([]byte, 0, room), s.Window[len(s.Window)-kept:]...)
	} else {
		s.Window = s.Window[:copy(s.Window, s.Window[len(s.Window)-kept:])]
	}
	s.Window = append(s.Window, payload...)
}
