package frame

// Terms are what was agreed on permessage-deflate (RFC 7692 §7.1), as an
// endpoint keeps them for each connection: in two bytes. The zero value is a
// connection without compression.
type Terms uint16

const (
	termsOn Terms = 1 << iota
	termsFreshOut
	termsFreshIn
	termsBits // of the windows that follow, three bits each
)

// NewTerms are those of an endpoint that compresses with a window of out bits
// and inflates with one of in bits, 8 to 15. freshOut and freshIn say that no
// message refers to an earlier one (server_no_context_takeover and
// client_no_context_takeover, or the other way round).
func NewTerms(out, in uint8, freshOut, freshIn bool) Terms {
	t := termsOn | Terms(out-minWindowBits)&7*termsBits | Terms(in-minWindowBits)&7*termsBits<<3
	if freshOut {
		t |= termsFreshOut
	}
	if freshIn {
		t |= termsFreshIn
	}
	return t
}

// On reports whether compression was agreed on.
func (t Terms) On() bool { return t&termsOn != 0 }

// FreshOut reports that each message that we compress begins with an empty window.
func (t Terms) FreshOut() bool { return t&termsFreshOut != 0 }

// FreshIn reports that each message of the peer does.
func (t Terms) FreshIn() bool { return t&termsFreshIn != 0 }

// OutBits is the size of our window, as a power of two, 8 to 15.
func (t Terms) OutBits() uint8 { return uint8(t/termsBits)&7 + minWindowBits }

// InBits is the size of the peer's.
func (t Terms) InBits() uint8 { return uint8(t/termsBits>>3)&7 + minWindowBits }
