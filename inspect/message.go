package inspect

import (
	"unicode/utf8"

	"wspoll/frame"

	"github.com/gobwas/ws"
)

// message is one that has begun and not ended (§5.4).
type message struct {
	n          int
	op         ws.OpCode // 0 when its first frame is a stray continuation
	compressed bool
	declared   uint64 // payload of its frames, as their headers say
	size       int64  // payload that came
	inflated   int64
	start, end int64
	first      int // numbers of its first and last frame
	last       int
	reads      [2]int
	count      int
	content    []byte // excerpt
	cut        bool
	hole       bool // bytes are missing: its text cannot be judged

	text      frame.UTF8
	begun     []byte // the sequence that the text stopped in
	badText   bool   // said once
	badLarge  bool
	badStream bool // cannot be inflated from here on
}

// join gives a data frame its message: the one that it continues, or a new one.
func (e *Explainer) join(s *side, f *Frame) {
	op := ws.OpCode(f.Opcode)
	switch {
	case op.IsControl():
		if s.message != nil {
			s.note("a control frame between the fragments of message " + itoa(s.message.n) + ", which is allowed (§5.4)")
		}
		return
	case op.IsReserved():
		return
	}
	if op != ws.OpContinuation {
		e.endMessage(s, false) // one that should have ended
	}
	if s.message == nil {
		m := &message{n: s.messages, op: op, first: s.wire, start: s.start, reads: [2]int{s.first}}
		m.compressed = f.Rsv&4 != 0 && e.agreed.On && op != ws.OpContinuation
		// Whether a text begins in the middle of a character, or is compressed, is not known of a stray one, nor what RSV1
		// means where nothing was agreed on.
		m.badText = op != ws.OpText || f.Rsv&4 != 0 && !e.agreed.On
		s.messages++
		s.message = m
		if m.compressed {
			e.beginInflating(s)
		}
	}
	s.uncertain = false
	m := s.message
	f.compressed = m.compressed
	n := m.n
	f.Message, f.Fragment = &n, m.count
	m.last, m.end = s.wire, s.off
	m.count++
	if f.Length < 1<<63 {
		m.declared += f.Length
	}
	if m.compressed {
		f.Inflated = new(int64)
	}
}

// beginInflating gets the inflater of a side ready for a message.
func (e *Explainer) beginInflating(s *side) {
	bits, fresh := e.agreed.ClientBits, e.agreed.ClientNoContext
	if s.dir == Server {
		bits, fresh = e.agreed.ServerBits, e.agreed.ServerNoContext
	}
	switch {
	case s.z == nil:
		s.z = frame.NewInflater()
		s.z.Resume(nil, bits)
		s.zLost = s.zLost || s.midway
	case fresh:
		s.z.Resume(nil, bits)
	}
	if fresh {
		s.zLost = false
	}
}

// content takes payload of the message, without its mask. last: it ends the message. Offsets of violations count from off,
// where the bytes begin.
func (e *Explainer) content(s *side, b []byte, last bool) {
	m := s.message
	m.size += int64(len(b))
	m.end, m.reads[1] = s.off+int64(len(b)), s.reads-1
	if !m.compressed {
		e.plain(s, b, s.off, last)
		return
	}
	if m.badStream || m.hole {
		return
	}
	// The faults of what is inflated are not at a byte of their own: they are said of the frame.
	for more := true; more; {
		out, n, again, err := s.z.Next(b, last)
		b, more = b[n:], again
		m.inflated += int64(len(out))
		*s.frame.Inflated += int64(len(out))
		e.plain(s, out, s.start, last && !more && err == nil)
		if limit := e.o.MaxMessage; limit != 0 && uint64(m.inflated) > limit && !m.badLarge {
			m.badLarge = true
			s.violate(kindTooLarge.at(s.start, "it inflates to more than %d bytes, the limit", limit))
		}
		if err == nil {
			continue
		}
		m.badStream = true
		if s.zLost {
			s.note("cannot be inflated: it refers to messages that are not known here")
		} else {
			s.violate(kindInflate.at(s.start, "after %d bytes inflated", m.inflated))
		}
		// What later messages refer to was not inflated.
		s.zLost = true
		s.z.Resume(nil, 15)
	}
}

// plain takes content as the application will see it. at is where it begins, or, if it was inflated, its frame.
func (e *Explainer) plain(s *side, b []byte, at int64, last bool) {
	m := s.message
	if !m.hole {
		k := min(len(b), max(0, e.o.Excerpt-len(m.content)))
		m.content = append(m.content, b[:k]...)
		m.cut = m.cut || k < len(b)
	}
	if m.badText || m.hole {
		return
	}
	n, ok := m.text.Write(b)
	if !ok {
		m.badText = true
		begun := unfinished(append(m.begun, b[max(0, n-4):n]...))
		if !m.compressed {
			at += int64(n)
		}
		s.violate(badUTF8(begun, b[n]).at(at, "%x", append(begun, b[n])))
		return
	}
	if m.text.Done() {
		m.begun = nil
	} else {
		m.begun = append([]byte(nil), unfinished(append(m.begun, b[max(0, len(b)-4):]...))...)
	}
	if last && !m.text.Done() {
		m.badText = true
		if !m.compressed {
			at = max(s.start, at+int64(len(b))-1)
		}
		s.violate(kindUTF8Truncated.at(at, "%x", m.begun))
	}
}

// unfinished is the sequence at the end of b that may yet be completed: a lead byte and fewer bytes than it asks for.
func unfinished(b []byte) []byte {
	for i := len(b) - 1; i >= max(0, len(b)-3); i-- {
		if !utf8.RuneStart(b[i]) {
			continue
		}
		if b[i] >= utf8.RuneSelf && !utf8.FullRune(b[i:]) {
			return b[i:]
		}
		break
	}
	return nil
}

// endMessage makes the record of the message that has begun, if there is one. whole: all its frames came.
func (e *Explainer) endMessage(s *side, whole bool) {
	m := s.message
	if m == nil {
		return
	}
	s.message = nil
	if m.compressed && !whole {
		s.zLost = true
	}
	out := &Message{
		Opcode: byte(m.op), Name: opName(byte(m.op)), Frames: [2]int{m.first, m.last}, Count: m.count, Size: m.size,
		Compressed: m.compressed, Whole: whole && !m.hole, Content: m.content, Cut: m.cut || m.hole,
	}
	if m.op == ws.OpContinuation {
		out.Name = "unknown"
	}
	if m.compressed {
		out.Inflated = &m.inflated
	}
	if m.op == ws.OpText {
		out.Text = asText(m.content, m.cut || m.hole || !whole)
	}
	e.out = append(e.out, Record{
		Kind: KindMessage, Dir: s.dir, N: m.n, Start: m.start, End: m.end, When: s.when, Reads: m.reads, Message: out,
	})
}
