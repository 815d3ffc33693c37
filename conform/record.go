package conform

import (
	"bytes"
	"encoding/hex"
	"fmt"
)

// keepBytes is how much of each direction of a case is kept for its report.
const keepBytes = 128 << 10

// Chunk is what one write or one read carried, or something else that happened to the connection.
type Chunk struct {
	Sent bool   `json:"sent"` // by us, else by the peer
	Data Hex    `json:"data,omitempty"`
	Lost int    `json:"lost,omitempty"` // bytes behind Data that were not kept
	Note string `json:"note,omitempty"` // "end of TCP" and the like
	New  bool   `json:"new,omitempty"`  // another connection begins
}

// Hex are bytes that are hexadecimal digits in JSON.
type Hex []byte

// MarshalText makes the digits.
func (h Hex) MarshalText() ([]byte, error) { return hex.AppendEncode(nil, h), nil }

// UnmarshalText reads the digits.
func (h *Hex) UnmarshalText(b []byte) (err error) {
	*h, err = hex.AppendDecode(nil, b)
	return err
}

// transcript is all that was said in a case, in order.
type transcript struct {
	chunks []Chunk
	kept   [2]int // bytes of each direction
	conns  int
}

func (t *transcript) add(sent bool, b []byte) {
	dir := 0
	if sent {
		dir = 1
	}
	keep := min(len(b), keepBytes-t.kept[dir])
	t.kept[dir] += keep
	lost := len(b) - keep
	if last := len(t.chunks) - 1; keep == 0 && last >= 0 && t.chunks[last].Sent == sent && t.chunks[last].Note == "" {
		t.chunks[last].Lost += lost
		return
	}
	t.chunks = append(t.chunks, Chunk{Sent: sent, Data: bytes.Clone(b[:keep]), Lost: lost})
}

func (t *transcript) mark(sent bool, note string) {
	t.chunks = append(t.chunks, Chunk{Sent: sent, Note: note})
}

// connect notes a connection; the first one goes without saying.
func (t *transcript) connect() {
	if t.conns++; t.conns > 1 {
		t.chunks = append(t.chunks, Chunk{Sent: true, New: true, Note: fmt.Sprintf("connection %d", t.conns)})
	}
}
