package inspect

import (
	"fmt"
	"regexp"

	"github.com/gobwas/ws"
)

// Field is a field of a frame with its place in it, for those who draw it.
type Field struct {
	Name    string `json:"name"`
	Value   string `json:"value"`
	At      int    `json:"at"`   // its first bit, counted from that of the frame
	Bits    int    `json:"bits"` // as many as came
	What    string `json:"what"` // what it says
	Section string `json:"section,omitempty"`
}

// View is a Record with what else a program needs to show it, but for the drawing.
type View struct {
	*Record
	Brief   string   `json:"brief"` // Record.String without the time
	Fields  []Field  `json:"fields,omitempty"`
	Demands []string `json:"demands,omitempty"` // of each violation
}

// View returns the View of r, which it shares.
func (r *Record) View() View {
	v := View{Record: r, Brief: r.brief()}
	if r.Frame != nil {
		v.Fields = r.Frame.Fields(r.Dir)
	}
	for i := range r.Violations {
		v.Demands = append(v.Demands, r.Violations[i].Demands())
	}
	return v
}

// Fields are the fields of the header in the order of their bits, and, of a Close, those of its payload. d is who sent it.
func (f *Frame) Fields(d Dir) (all []Field) {
	at := 0
	add := func(name, value string, bits int, why string) {
		what, section := clause(why)
		all = append(all, Field{Name: name, Value: value, At: at, Bits: bits, What: what, Section: section})
		at += bits
	}
	add("FIN", itoa(bit(f.Fin)), 1, f.finWhy())
	for i, name := range [...]string{"RSV1", "RSV2", "RSV3"} {
		one := *f
		one.Rsv &= 4 >> i
		add(name, itoa(bit(one.Rsv != 0)), 1, one.rsvWhy())
	}
	add("opcode", fmt.Sprintf("%#x", f.Opcode), 4, opMeaning(ws.OpCode(f.Opcode)))
	if len(f.Header) < 2 {
		return all
	}
	add("MASK", itoa(bit(f.Masked)), 1, f.maskWhy(d))
	add("payload length", itoa(int(f.Header[1]&0x7f)), 7, f.LengthWhy()+" (§5.2)")
	rest := len(f.Header) - 2
	if size := f.LengthBits / 8; size > 1 && rest > 0 {
		n := min(size, rest)
		add("extended payload length", fmt.Sprint(f.Length), 8*n, fmt.Sprintf("the length as %d bits, most significant byte first (§5.2)", f.LengthBits))
		rest -= n
	}
	if f.Masked && rest > 0 {
		add("masking key", spaced(f.Key), 8*rest, keyWhy)
	}
	if c := f.Close; c != nil && f.Length >= 2 {
		add("code", itoa(int(c.Code)), 16, c.Meaning+" (§7.4)")
		if n := min(len(f.Wire), int(f.Length)) - 2; n > 0 {
			add("reason", quoted(c.Reason), 8*n, "text for people, in UTF-8 (§5.5.1)")
		}
	} else if n := len(f.Wire); n > 0 {
		add("payload", itoa(int(f.Length))+" bytes", 8*n, f.payloadWhy())
	}
	return all
}

// keyWhy says what the masking key is for.
const keyWhy = "byte i of the payload is XORed with byte i mod 4 of it (§5.3)"

func (f *Frame) finWhy() string {
	switch {
	case f.Fin && ws.OpCode(f.Opcode).IsControl():
		return "a control frame is whole in itself (§5.5)"
	case f.Fin && f.Fragment == 0 && ws.OpCode(f.Opcode) != ws.OpContinuation:
		return "the only frame of its message (§5.4)"
	case f.Fin:
		return "the last frame of its message (§5.4)"
	}
	return "more frames of the message follow (§5.4)"
}

func (f *Frame) rsvWhy() string {
	switch {
	case f.Rsv == 0:
		return "as it must be, unless an extension says otherwise (§5.2)"
	case f.Rsv == 4 && f.compressed && f.Fragment == 0:
		return "RSV1: the message is compressed (RFC 7692 §6)"
	}
	return "set, without a meaning that was agreed on (§5.2)"
}

func (f *Frame) maskWhy(d Dir) string {
	switch {
	case f.Masked && d == Client:
		return "the payload is masked, as all that a client sends (§5.1)"
	case f.Masked:
		return "the payload is masked; a server does not do that (§5.1)"
	case d == Server:
		return "no mask, as all that a server sends (§5.1)"
	}
	return "no mask; a client must have one (§5.1)"
}

func (f *Frame) payloadWhy() string {
	switch {
	case f.Inflated != nil:
		return fmt.Sprintf("%d bytes that inflate to %d (RFC 7692 §7.2.2)", f.Length, *f.Inflated)
	case f.Masked:
		return "what is said, under the mask (§5.3)"
	}
	return "what is said (§5.6)"
}

var clauseAtEnd = regexp.MustCompile(`^(.*) \(((?:RFC \d+ )?§[0-9.]+)\)$`)

// clause takes the section off the end of an explanation; one without the number of an RFC is of RFC 6455.
func clause(why string) (what, section string) {
	m := clauseAtEnd.FindStringSubmatch(why)
	if m == nil {
		return why, ""
	}
	if section = m[2]; section[0] != 'R' {
		section = "RFC 6455 " + section
	}
	return m[1], section
}

func bit(b bool) int {
	if b {
		return 1
	}
	return 0
}
