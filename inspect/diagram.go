package inspect

import (
	"fmt"
	"strings"
)

// cell is a field of a header in the diagram.
type cell struct {
	name  string
	value string // under the name
	bits  int
}

const ruler = "   0                   1                   2                   3\n" +
	"   0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1\n"

// diagram draws a header as §5.2 does, 32 bits in a row, with the bits that came under the names.
func (f *Frame) diagram() string {
	h := []byte(f.Header)
	cells := []cell{
		{"FIN", "", 1},
		{"RSV1", "", 1},
		{"RSV2", "", 1},
		{"RSV3", "", 1},
		{"opcode", f.Name, 4},
	}
	if len(h) > 1 {
		cells = append(cells, cell{"MASK", "", 1}, cell{"payload len", itoa(int(h[1] & 0x7f)), 7})
	}
	rest := len(h) - 2
	if size := f.LengthBits / 8; size > 1 && rest > 0 {
		cells = append(cells, cell{"extended payload length", fmt.Sprint(f.Length), 8 * min(size, rest)})
		rest -= size
	}
	if f.Masked && rest > 0 {
		cells = append(cells, cell{"masking key", spaced(f.Key), 8 * rest})
	}
	if used := len(h) % 4; used != 0 && len(f.Wire) > 0 {
		n := min(4-used, len(f.Wire))
		h = append(h[:len(h):len(h)], f.Wire[:n]...)
		cells = append(cells, cell{"payload", spaced(f.Wire[:n]), 8 * n})
	}
	return ruler + rows(cells, h)
}

// rows draws the cells over the bits of h. A cell goes on in the next row.
func rows(cells []cell, h []byte) string {
	var out strings.Builder
	line := func(c []cell) string {
		var b strings.Builder
		for _, x := range c {
			b.WriteString("+" + strings.Repeat("-", 2*x.bits-1))
		}
		return "  " + b.String() + "+\n"
	}
	bit := 0
	var above []cell
	for len(cells) > 0 {
		row, left := []cell(nil), 32
		for len(cells) > 0 && left > 0 {
			c := cells[0]
			if c.bits > left {
				cells[0].bits -= left
				c.bits = left
			} else {
				cells = cells[1:]
			}
			left -= c.bits
			row = append(row, c)
		}
		if above == nil || width(row) > width(above) {
			above = row
		}
		out.WriteString(line(above))
		out.WriteString(labels(row))
		out.WriteString("  ")
		for _, c := range row {
			out.WriteByte('|')
			for i := range c.bits {
				if i > 0 {
					out.WriteByte(' ')
				}
				out.WriteByte('0' + h[bit/8]>>(7-bit%8)&1)
				bit++
			}
		}
		out.WriteString("|\n")
		above = row
	}
	out.WriteString(line(above))
	return out.String()
}

func width(row []cell) (n int) {
	for _, c := range row {
		n += c.bits
	}
	return n
}

// labels writes the names over the cells of a row: downward in those of one bit, else across with the value under them.
func labels(row []cell) string {
	const high = 4
	var text [high]string
	used := 0
	for _, c := range row {
		for i := range high {
			s := ""
			switch {
			case c.bits == 1 && i < len(c.name):
				s = c.name[i : i+1]
			case c.bits > 1 && i == 0:
				s = c.name
			case c.bits > 1 && i == 1:
				s = c.value
			}
			if s != "" {
				used = max(used, i+1)
			}
			text[i] += "|" + centred(s, 2*c.bits-1)
		}
	}
	var out strings.Builder
	for _, t := range text[:used] {
		out.WriteString("  " + t + "|\n")
	}
	return out.String()
}

// centred puts s in the middle of n columns, cut if it is longer.
func centred(s string, n int) string {
	if len(s) > n {
		s = s[:n]
	}
	left := (n - len(s)) / 2
	return strings.Repeat(" ", left) + s + strings.Repeat(" ", n-len(s)-left)
}

// spaced is b as hexadecimal digits with a blank between bytes.
func spaced(b []byte) string { return fmt.Sprintf("% x", []byte(b)) }
