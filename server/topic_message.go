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
type mode uint8

const (
	modePlain mode = iota // as it was published
	modeSeq               // behind a line that has its number and its topic
	numModes
)

// message is one publish. It does not change; loops and topics hold references
// to it, and with the last its bytes go back to the memory budget.
type message struct {
	topic  *topic
	seq    uint64 // its place among those of its topic here: they go up by one
	num    uint64 // the number that subscribers are told: seq, or that of the relay; 0: it has none yet
	after  uint64 // the last number before it
	lost   bool   // there may have been others between, which never came here
	again  bool   // it was sent without a number, now it comes with one
	op     ws.OpCode
	head   int              // bytes of header in front of the payload in frames[modePlain]
	frames [numModes][]byte // whole frames; nil for a mode that nobody had when it was published
	size   int              // bytes taken from the budget
	refs   atomic.Int32

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
		m.topic.topics.srv.group.Budget().Release(m.size)
	}
}

// last is the newest number of its topic when it has been sent.
func (m *message) last() uint64 { return max(m.num, m.after) }

func (m *message) payload() []byte { return m.frames[modePlain][m.head:] }

// bytes is the message as a frame for subscribers of mode md. A form that was
// not wanted when the message was published is made in room.
func (m *message) bytes(md mode, room *[]byte) []byte {
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
