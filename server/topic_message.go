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
	seq    uint64
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

// appendNumbered appends the frame of modeSeq: the line "seq NUMBER TOPIC" and
// the payload, in one message of the opcode that was published.
func (m *message) appendNumbered(dst []byte) []byte {
	var room [maxLine]byte
	line := appendLine(room[:0], "seq", m.topic.name, m.seq)
	line = append(line, '\n')
	p := m.payload()
	dst = frame.AppendHeader(dst, ws.Header{Fin: true, OpCode: m.op, Length: int64(len(line) + len(p))})
	return append(append(dst, line...), p...)
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

// numberedSize is the size of the frame that appendNumbered makes.
func (m *message) numberedSize() int {
	var room [maxLine]byte
	n := len(appendLine(room[:0], "seq", m.topic.name, m.seq)) + 1 + len(m.payload())
	return ws.HeaderSize(ws.Header{Length: int64(n)}) + n
}
