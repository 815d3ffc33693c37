package server

import (
	"strconv"
	"sync/atomic"

	"wspoll/epoll"
	"wspoll/frame"

	"github.com/gobwas/ws"
)

// mode is the form in which a subscriber gets messages. Whatever differs
// between subscribers is a mode: a message is encoded once for each, and the
// bytes are shared by all.
//
// The lowest bit says whether it comes with a number, the others how large the
// window is that was agreed on for our side, 8 to 15 bits, or 0 without
// compression, and the highest whether the context is taken over.
type mode uint8

const (
	modePlain mode = iota // as it was published
	modeSeq               // behind a line that has its number and its topic
	numUncompressed

	modeChained mode = 1 << 5
)

// under is the mode for a connection with these terms.
func (md mode) under(terms frame.Terms) mode {
	if !terms.On() {
		return md
	}
	if md |= mode(terms.OutBits()) << 1; !terms.FreshOut() {
		md |= modeChained
	}
	return md
}

func (md mode) numbered() bool     { return md&modeSeq != 0 }
func (md mode) chained() bool      { return md&modeChained != 0 }
func (md mode) bits() uint8        { return uint8(md&^modeChained) >> 1 }
func (md mode) alone() mode        { return md &^ modeChained } // without reference to other messages
func (md mode) uncompressed() mode { return md & modeSeq }

// message is one publish. What it says does not change; loops and topics hold
// references to it, and with the last its bytes go back to the memory budget.
type message struct {
	topic  *topic
	seq    uint64 // its place among those of its topic here: they go up by one
	num    uint64 // the number that subscribers are told: seq, or that of the relay; 0: it has none yet
	after  uint64 // the last number before it
	lost   bool   // there may have been others between, which never came here
	again  bool   // it was sent without a number, now it comes with one
	op     ws.OpCode
	head   int                     // bytes of header in front of the payload in frames[modePlain]
	frames [numUncompressed][]byte // whole frames; nil for a mode that nobody had when it was published
	size   int                     // bytes taken from the budget when it was published
	refs   atomic.Int32

	// Compressed frames, each made by the loop that needs it first: so who
	// publishes does not compress, and the loops do it once in all.
	forms   atomic.Pointer[form] // a list; topic.packing is held to put one in front of it
	charged int                  // to the budget for them; guarded by topic.packing

	// The subscriber that sent it, which does not get it back; nil: none.
	from   *shard
	fromID epoll.ID
}

func (m *message) hold() *message {
	m.refs.Add(1)
	return m
}

func (m *message) release() {
	if m.refs.Add(-1) == 0 {
		m.topic.topics.srv.group.Budget().Release(m.size + m.charged)
	}
}

// last is the newest number of its topic when it has been sent.
func (m *message) last() uint64 { return max(m.num, m.after) }

func (m *message) payload() []byte { return m.frames[modePlain][m.head:] }

// form is a message in a compressed mode. It does not change.
type form struct {
	mode  mode
	frame []byte // nil: compressed it is no shorter, and goes as it is
	next  *form

	linked    bool   // it is in the chain of its mode, see topic_chain.go
	key, prev uint64 // seq of the keyframe there, and of the link before it
}

func (m *message) find(md mode) *form {
	f := m.forms.Load()
	for f != nil && f.mode != md {
		f = f.next
	}
	return f
}

// bytes is the message as a frame for subscribers of mode md on sh, and whether
// that is compressed. An uncompressed form that was not wanted when the message
// was published is made in room.
func (m *message) bytes(sh *shard, md mode, room *[]byte) (b []byte, deflated bool) {
	if md.bits() != 0 {
		if b := m.deflated(sh, md, room); b != nil {
			return b, true
		}
	}
	return m.plain(md.uncompressed(), room), false
}

// deflated is the frame of a compressed mode, nil if the message goes as it is:
// because it is small, or becomes no smaller, or there is no memory for it.
//
// A loop that finds another one at it waits, which takes no longer than to do it.
func (m *message) deflated(sh *shard, md mode, room *[]byte) []byte {
	if f := m.find(md); f != nil {
		return f.frame
	}
	size := len(m.payload())
	if md.numbered() {
		var line [maxLine]byte
		size += len(m.appendLine(line[:0])) + 1
	}
	if size < sh.squeeze.min {
		return nil
	}
	m.topic.packing.Lock()
	defer m.topic.packing.Unlock()
	f := m.find(md)
	switch {
	case f != nil:
	case md.chained():
		f = m.link(sh, md, size, room)
	default:
		f = m.add(m.pack(sh, md, nil, size, room))
	}
	if f == nil {
		return nil
	}
	return f.frame
}

// pack makes a form, to be added; the last size bytes of the uncompressed frame are to be
// compressed. m.topic.packing is held. Nil: there is no memory for it.
func (m *message) pack(sh *shard, md mode, refer *frame.Deflation, size int, room *[]byte) *form {
	b := m.plain(md.uncompressed(), room)
	budget := sh.srv.group.Budget()
	if !budget.Reserve(len(b)) { // it will be less
		return nil
	}
	f := &form{mode: md}
	m.topic.deflated.Add(1)
	h := ws.Header{Fin: true, Rsv: ws.Rsv(true, false, false), OpCode: m.op}
	if packed := sh.squeeze.pack(refer, md.bits(), b[len(b)-size:], true); len(packed) < size {
		before := b[:len(b)-size-ws.HeaderSize(ws.Header{Length: int64(size)})] // what tells of a gap
		h.Length = int64(len(packed))
		f.frame = append(make([]byte, 0, len(before)+ws.HeaderSize(h)+len(packed)), before...)
		f.frame = append(frame.AppendHeader(f.frame, h), packed...)
	}
	budget.Release(len(b) - len(f.frame))
	m.charged += len(f.frame)
	return f
}

// add lets all loops see f, which may be nil.
func (m *message) add(f *form) *form {
	if f != nil {
		f.next = m.forms.Load()
		m.forms.Store(f)
	}
	return f
}

// plain is the frame of an uncompressed mode.
func (m *message) plain(md mode, room *[]byte) []byte {
	if b := m.frames[md]; b != nil {
		return b
	}
	*room = m.appendNumbered((*room)[:0])
	return *room
}

// appendNumbered appends the frame of modeSeq: the line "seq NUMBER TOPIC", or
// "local TOPIC", and the payload, in one message of the opcode that was
// published; in front of it a message that tells of a gap, if there may be one.
func (m *message) appendNumbered(dst []byte) []byte {
	var room [maxLine]byte
	if m.lost && m.num > m.after+1 {
		dst = frame.AppendFrame(dst, true, ws.OpText, appendLine(room[:0], "gap", m.topic.name, m.after+1, m.num-1))
	}
	line := append(m.appendLine(room[:0]), '\n')
	p := m.payload()
	dst = frame.AppendHeader(dst, ws.Header{Fin: true, OpCode: m.op, Length: int64(len(line) + len(p))})
	return append(append(dst, line...), p...)
}

func (m *message) appendLine(dst []byte) []byte {
	if m.num == 0 {
		return appendLine(dst, "local", m.topic.name)
	}
	return appendLine(dst, "seq", m.topic.name, m.num)
}

// maxLine is the longest line that appendLine makes, and its end.
const maxLine = len("seq ") + 2*len("18446744073709551615 ") + MaxTopicName + 1

// appendLine appends what subscribers of modeSeq are told: a word, one or two
// numbers, the topic.
func appendLine(dst []byte, word, topic string, numbers ...uint64) []byte {
	dst = append(append(dst, word...), ' ')
	for _, n := range numbers {
		dst = append(strconv.AppendUint(dst, n, 10), ' ')
	}
	return append(dst, topic...)
}

// numberedSize is the size of what appendNumbered makes, or a little more.
func (m *message) numberedSize() int {
	n := ws.MaxHeaderSize + maxLine + len(m.payload())
	if m.lost {
		n += 4 + maxLine
	}
	return n
}
