package frame

// Joiner puts the pieces of a message together (§5.4), for callers that want whole
// messages. The zero value is ready.
//
// Buf is the caller's as much as the Joiner's: between two messages it may be
// given room beforehand, or taken away (Buf = nil) so that an idle connection
// holds none. It grows only by bytes that have arrived.
type Joiner struct{ Buf []byte }

// Add takes the next piece. It returns the whole message when p ends one:
// p.Data itself, without a copy, when the message came in one piece (valid
// until the input is overwritten), else Buf (valid until the next Add). A
// control frame is whole by itself and leaves a message in progress alone.
func (j *Joiner) Add(p *Piece) (msg []byte, whole bool) {
	if p.First {
		if p.Last {
			return p.Data, true
		}
		j.Buf = j.Buf[:0]
	}
	j.Buf = append(j.Buf, p.Data...)
	if !p.Last {
		return nil, false
	}
	return j.Buf, true
}
