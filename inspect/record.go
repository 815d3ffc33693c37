package inspect

import (
	"encoding/json"
	"time"

	"wspoll/frame"

	"github.com/gobwas/ws"
)

// Dir says who sent bytes.
type Dir uint8

// The two sides of a connection.
const (
	Client Dir = iota
	Server
)

func (d Dir) String() string {
	if d == Server {
		return "server"
	}
	return "client"
}

// MarshalText makes a Dir a word in JSON.
func (d Dir) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// other is the side that receives what d sends.
func (d Dir) other() Dir { return 1 - d }

// Kind says what a Record is about, and which of its pointers is set.
type Kind string

// The kinds of records.
const (
	KindRead    Kind = "read"    // lane of reads: what one call of Feed brought, or a gap
	KindLine    Kind = "line"    // lane of the wire: a line of a handshake
	KindFrame   Kind = "frame"   // lane of the wire
	KindBytes   Kind = "bytes"   // lane of the wire: neither of them
	KindMessage Kind = "message" // lane of messages
)

// Record is one thing that was found. What it points to belongs to whoever received the Record.
type Record struct {
	Kind Kind `json:"kind"`
	Dir  Dir  `json:"dir"`
	N    int  `json:"n"` // its number in its lane and direction, from 0

	// Start and End are the bytes that it is about, counted in their direction from 0; End is the first behind it. For a
	// message they are from its first frame to the end of its last, and control frames may lie between.
	Start int64 `json:"start"`
	End   int64 `json:"end"`

	// When the last of the bytes came; of a read, all of them.
	When time.Time `json:"when,omitzero"`

	// Reads are the numbers of the first and the last read that brought bytes of it.
	Reads [2]int `json:"reads"`

	Read    *Read    `json:"read,omitempty"`
	Line    *Line    `json:"line,omitempty"`
	Frame   *Frame   `json:"frame,omitempty"`
	Bytes   *Bytes   `json:"bytes,omitempty"`
	Message *Message `json:"message,omitempty"`

	Notes      []string    `json:"notes,omitempty"` // what is worth knowing and no violation
	Violations []Violation `json:"violations,omitempty"`
}

// Read is what one call of Feed or Gap brought.
type Read struct {
	Gap  bool   `json:"gap,omitempty"` // the bytes are missing in the capture
	Wire [2]int `json:"wire"`          // numbers of the first and the last record of the wire that it has bytes of
}

// Bytes are neither a line nor a frame.
type Bytes struct {
	What    string `json:"what"` // one sentence
	Excerpt Hex    `json:"excerpt,omitempty"`
}

// Line is one line of a request or an answer, with its CRLF.
type Line struct {
	Text    string  `json:"text"` // without the line end; bytes that are not UTF-8 replaced
	Name    string  `json:"name,omitempty"`
	Value   string  `json:"value,omitempty"`
	What    string  `json:"what"` // what it is for
	Section string  `json:"section,omitempty"`
	Accept  *Accept `json:"accept,omitempty"` // of the lines with the key and with the accept value
}

// Frame is a frame, or what there is of one.
type Frame struct {
	Fin    bool   `json:"fin"`
	Rsv    byte   `json:"rsv"` // three bits, RSV1 is 4
	Opcode byte   `json:"opcode"`
	Name   string `json:"name"` // of the opcode
	Masked bool   `json:"masked"`
	Key    Hex    `json:"key,omitempty"`

	Length     uint64 `json:"length"`      // of the payload, as declared
	LengthBits int    `json:"length_bits"` // 7, 16 or 64: the form in which it is written
	Header     Hex    `json:"header"`

	// The first bytes of the payload, as they were on the wire and without the mask.
	Wire    Hex  `json:"wire,omitempty"`
	Payload Hex  `json:"payload,omitempty"`
	Cut     bool `json:"cut,omitempty"`     // there is more payload than that
	Missing int  `json:"missing,omitempty"` // bytes of payload that are missing in the capture

	Truncated bool `json:"truncated,omitempty"` // the stream ended inside it

	Message  *int   `json:"message,omitempty"` // number of its message, for data frames
	Fragment int    `json:"fragment"`          // which frame of its message it is, from 0
	Text     string `json:"text,omitempty"`    // Payload as text, for text that is not compressed, pings and pongs if they are UTF-8
	Close    *Close `json:"close,omitempty"`

	Inflated *int64 `json:"inflated,omitempty"` // bytes that its payload inflates to, in a compressed message

	compressed bool // of a compressed message
}

// Close is the payload of a Close frame (§5.5.1).
type Close struct {
	Code    ws.StatusCode `json:"code"` // 1005 for none
	Meaning string        `json:"meaning"`
	Reason  string        `json:"reason,omitempty"`
}

// Message is what frames make up (§5.4).
type Message struct {
	Opcode byte   `json:"opcode"`
	Name   string `json:"name"`

	Frames [2]int `json:"frames"` // numbers of its first and last frame in the lane of the wire
	Count  int    `json:"count"`  // of its frames; control frames between them are none of it
	Size   int64  `json:"size"`   // of all payload, as it was on the wire

	Compressed bool   `json:"compressed,omitempty"`
	Inflated   *int64 `json:"inflated,omitempty"` // bytes after inflating
	Whole      bool   `json:"whole"`              // its last frame came, all of it

	Content Hex    `json:"content,omitempty"` // the first bytes, inflated
	Text    string `json:"text,omitempty"`    // the same, if it is text and UTF-8
	Cut     bool   `json:"cut,omitempty"`     // there is more than that
}

// Violation is a rule that was broken.
type Violation struct {
	Kind    string        `json:"kind"`             // one of Kinds, or "handshake-" and the part that is wrong
	At      int64         `json:"at"`               // the byte that shows it, counted as Start
	Section string        `json:"section"`          // the clause: "RFC 6455 §5.1"
	Code    ws.StatusCode `json:"code,omitempty"`   // the receiver closes with it; 0: it does not
	Status  int           `json:"status,omitempty"` // a server answers the request with it
	What    string        `json:"what"`             // what is wrong
	Cure    string        `json:"cure"`             // what the sender should do

	err error // what package frame or handshake says
}

// Unwrap returns the *frame.Error, *handshake.Refusal or *handshake.AnswerError behind a violation, or nil.
func (v *Violation) Unwrap() error { return v.err }

// Error makes a violation one line.
func (v *Violation) Error() string { return v.Section + ": " + v.What }

// Demands says in words what the receiver does.
func (v *Violation) Demands() string {
	switch {
	case v.Code != 0:
		return "close " + itoa(int(v.Code))
	case v.Status != 0:
		return "answer " + itoa(v.Status)
	case v.Kind == kindDataAfterClose:
		return "ignore it"
	}
	return "fail the connection"
}

// Hex are bytes that are hexadecimal digits in JSON.
type Hex []byte

// MarshalJSON writes the digits as a string.
func (h Hex) MarshalJSON() ([]byte, error) { return json.Marshal(hexDigits(h)) }

// section is the clause of a frame.Error in full.
func section(e *frame.Error) string {
	if e.Section[0] == 'R' {
		return e.Section
	}
	return "RFC 6455 §" + e.Section
}
