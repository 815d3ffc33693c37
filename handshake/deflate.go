package handshake

import (
	"strconv"

	"github.com/gobwas/ws"
)

// The negotiation of permessage-deflate, RFC 7692 §5 and §7.1, for both sides. What is agreed here the frames then obey.
//
// Names are compared by case, as all names of extensions are here: RFC 6455 says of the values of Upgrade and Connection
// that they match in any case (§4.2.1 items 3 and 4), and of extensions and their parameters it does not, nor does
// RFC 7692. Browsers and the other servers compare them so too.
const (
	deflateName = "permessage-deflate"

	serverNoContext = "server_no_context_takeover"
	clientNoContext = "client_no_context_takeover"
	serverMaxBits   = "server_max_window_bits"
	clientMaxBits   = "client_max_window_bits"
)

// A window is a power of two, and named by its logarithm (RFC 7692 §7.1.2): 8 is 256 bytes, 15 is 32 KiB. 15 is what
// DEFLATE has without a word about it.
const (
	minBits = 8
	maxBits = 15
)

// Deflate is what both sides agreed on (RFC 7692 §7.1). The zero value means: no compression. It holds no pointer and
// can be compared.
type Deflate struct {
	On              bool  // the extension is in use; when false the rest is zero
	ServerNoContext bool  // the server begins each message with an empty window (server_no_context_takeover)
	ClientNoContext bool  // the client does (client_no_context_takeover)
	ServerBits      uint8 // the server's window, 8 to 15: its matches reach back 1<<ServerBits bytes at most
	ClientBits      uint8 // the client's window, 8 to 15
}

// DeflateOptions are what a server wants of permessage-deflate. The zero value wants nothing: it takes what the client
// offers. Windows outside of 8 to 15 count as the nearest.
type DeflateOptions struct {
	// ServerNoContext and ClientNoContext say that the side begins each message anew. It costs compression and saves
	// the window between messages: ServerNoContext the memory of our compressor, ClientNoContext that of our
	// decompressor. A server may answer with either, asked or not (RFC 7692 §7.1.1).
	ServerNoContext bool
	ClientNoContext bool

	// ServerBits is the largest window that we compress with, 8 to 15; 0 means 15. Below 15 it is answered also to
	// a client which did not ask (RFC 7692 §7.1.2.1).
	ServerBits uint8

	// ClientBits is the largest window that we want to hold for what the client compresses, 8 to 15; 0 means 15. A
	// client that does not offer client_max_window_bits cannot be told (RFC 7692 §7.1.2.2): its window is 15, which
	// Deflate.ClientBits then says.
	ClientBits uint8
}

// DeflateOffer is one offer of a client. The zero value is plain "permessage-deflate".
type DeflateOffer struct {
	ServerNoContext bool  // asks that the server begin each message anew; a server that will not must decline
	ClientNoContext bool  // says that we shall, whatever the server answers (RFC 7692 §7.1.1.2)
	ServerBits      uint8 // the largest window that the server may use, 8 to 15; 0: not asked, which means 15
	ClientBits      uint8 // 0: the server may not limit our window; 15: it may; 8 to 14: it may, and we use no larger one anyhow
}

// AppendDeflateOffers appends offers for Hello.Extensions, the preferred one first: the later ones are for a server that
// declines the earlier (RFC 7692 §5). Windows outside of 8 to 15 count as the nearest. It does not allocate when dst
// has room.
func AppendDeflateOffers(dst []byte, offers ...DeflateOffer) []byte {
	for i, o := range offers {
		if i > 0 {
			dst = append(dst, ", "...)
		}
		p := deflateParams{serverNoContext: o.ServerNoContext, clientNoContext: o.ClientNoContext}
		if o.ServerBits != 0 {
			p.server, p.serverBits = true, window(o.ServerBits)
		}
		if o.ClientBits != 0 {
			p.client, p.clientBits = true, window(o.ClientBits)
		}
		if p.clientBits == maxBits {
			p.clientBits = 0 // the value says nothing that its absence does not
		}
		dst = p.append(dst)
	}
	return dst
}

// AcceptDeflate goes through the client's offers in their order, over all lines, takes the first permessage-deflate that
// is valid into a.Deflate, and reports whether there was one. Other extensions are passed over, and so are bad offers: a
// parameter that is unknown, doubled or has a bad value makes the server decline that offer, and not fail the handshake
// (RFC 7692 §7.1). AppendAnswer then says what was agreed. Check calls it when Options.Deflate is set; a server that
// decides later calls it itself, after Check, which has looked at the form of the list. It does not allocate.
func (a *Answer) AcceptDeflate(r *Request, o *DeflateOptions) bool {
	a.Deflate, a.saysServer, a.saysClient = Deflate{}, false, false
	r.list(fieldExtensions, "Sec-WebSocket-Extensions", func(v []byte) bool {
		for {
			name, params, rest, ok := cutExtension(v)
			if name == nil {
				return ok
			}
			if string(name) == deflateName {
				if offer, _, why := parseDeflate(params); why == "" {
					a.accept(&offer, o)
					return false
				}
			}
			v = rest
		}
	})
	return a.Deflate.On
}

// accept answers one valid offer.
func (a *Answer) accept(p *deflateParams, o *DeflateOptions) {
	d := Deflate{
		On: true,
		// §7.1.1.1: what was asked must be in the answer.
		ServerNoContext: p.serverNoContext || o.ServerNoContext,
		// §7.1.1.2: in an offer it is a hint. We take it up, so that both sides can forget the window.
		ClientNoContext: p.clientNoContext || o.ClientNoContext,
		ServerBits:      window(o.ServerBits),
		ClientBits:      maxBits,
	}
	if p.server {
		// §7.1.2.1: the same value or a smaller one, and it must be in the answer, also when it is 15.
		d.ServerBits = min(d.ServerBits, p.serverBits)
		a.saysServer = true
	}
	if p.client {
		// §7.1.2.2: only a client that offered it may be told.
		d.ClientBits = min(window(o.ClientBits), window(p.clientBits))
		a.saysClient = p.clientBits != 0
	}
	a.Deflate = d
}

// appendDeflate appends what a agreed to as an element of Sec-WebSocket-Extensions.
func (a *Answer) appendDeflate(dst []byte) []byte {
	d := &a.Deflate
	p := deflateParams{
		serverNoContext: d.ServerNoContext, clientNoContext: d.ClientNoContext,
		server: a.saysServer || d.ServerBits < maxBits, serverBits: d.ServerBits,
		client: a.saysClient || d.ClientBits < maxBits, clientBits: d.ClientBits,
	}
	return p.append(dst)
}

// agree judges the parameters of the server's permessage-deflate against the offers, and fills in r.Deflate. A client
// MUST fail the connection when they break a rule (RFC 7692 §7.1).
func (r *Response) agree(params lexer, offered []byte) *AnswerError {
	p, bad, why := parseDeflate(params)
	if why == "" && p.client && p.clientBits == 0 {
		// §7.1.2.2: without a value it is an offer and no answer.
		bad, why = []byte(clientMaxBits), needsBits
	}
	if why != "" {
		return deflateFault("the parameter "+quote(bad)+" "+why, "RFC 7692 §7.1")
	}
	d := Deflate{
		On: true, ServerNoContext: p.serverNoContext, ClientNoContext: p.clientNoContext,
		ServerBits: window(p.serverBits), ClientBits: window(p.clientBits),
	}
	// The answer does not say which offer it accepts. It must fit one.
	var last deflateParams
	valid, fits := false, false
	for rest := offered; ; {
		var name []byte
		name, params, rest, _ = cutExtension(rest)
		if name == nil {
			break
		}
		if string(name) != deflateName {
			continue
		}
		q, _, why := parseDeflate(params)
		if why != "" {
			continue // no server may have accepted it
		}
		last, valid = q, true
		if p.misfit(&q) != "" {
			continue
		}
		// The hints of an offer bind us without an answer (§7.1.1.2, §7.1.2.2). Of several that fit, the strictest does
		// for all.
		fits = true
		d.ClientNoContext = d.ClientNoContext || q.clientNoContext
		d.ClientBits = min(d.ClientBits, window(q.clientBits))
	}
	switch {
	case fits:
		r.Deflate = d
		return nil
	case !valid:
		return deflateFault("no valid offer was made for it", "RFC 7692 §7.1")
	}
	// The last offer is the one that asks least, if the client ordered them well: what breaks even that is the fault.
	return p.explain(&last)
}

// misfit names the parameter by which an answer is none to the offer q; empty: it fits. That a side begins each message
// anew, and that the server has a smaller window, the answer may say unasked.
func (p *deflateParams) misfit(q *deflateParams) string {
	switch {
	case q.serverNoContext && !p.serverNoContext:
		return serverNoContext
	case q.server && (!p.server || p.serverBits > q.serverBits):
		return serverMaxBits
	case p.client && (!q.client || p.clientBits > window(q.clientBits)):
		return clientMaxBits
	}
	return ""
}

// explain says in what the answer p does not fit the offer q.
func (p *deflateParams) explain(q *deflateParams) *AnswerError {
	switch p.misfit(q) {
	case serverNoContext:
		return deflateFault(serverNoContext+" was asked and is missing", "RFC 7692 §7.1.1.1")
	case serverMaxBits:
		asked := serverMaxBits + "=" + strconv.Itoa(int(q.serverBits)) + " was asked"
		if !p.server {
			return deflateFault(asked+" and is missing", "RFC 7692 §7.1.2.1")
		}
		return deflateFault(asked+" and "+strconv.Itoa(int(p.serverBits))+" answered", "RFC 7692 §7.1.2.1")
	}
	if !q.client {
		return deflateFault(clientMaxBits+" was not offered", "RFC 7692 §7.1.2.2")
	}
	return deflateFault(clientMaxBits+"="+strconv.Itoa(int(q.clientBits))+" was offered and "+strconv.Itoa(int(p.clientBits))+" answered", "RFC 7692 §7.1.2.2")
}

func deflateFault(msg, section string) *AnswerError {
	return &AnswerError{Msg: "permessage-deflate in the answer: " + msg, Section: section, Err: ws.ErrHandshakeBadExtensions}
}

// deflateParams are the parameters of one permessage-deflate, in an offer or an answer.
type deflateParams struct {
	serverNoContext, clientNoContext bool
	server, client                   bool  // server_max_window_bits and client_max_window_bits are there
	serverBits, clientBits           uint8 // their values, 8 to 15; 0: not there, or client_max_window_bits without a value
}

const (
	takesNoValue = "takes no value"
	needsBits    = "needs a value of 8 to 15"
)

// parseDeflate reads the parameters that cutExtension gave. If one is bad, why says what about it, else why is empty.
func parseDeflate(params lexer) (p deflateParams, bad []byte, why string) {
	for params.next(';') {
		name, value, _ := params.param()
		var there *bool
		bits := uint8(0)
		switch string(name) {
		case serverNoContext:
			there = &p.serverNoContext
		case clientNoContext:
			there = &p.clientNoContext
		case serverMaxBits:
			there, bits = &p.server, readBits(value)
			p.serverBits = bits
		case clientMaxBits:
			there, bits = &p.client, readBits(value)
			p.clientBits = bits
		default:
			return p, name, "is unknown"
		}
		windowed := there == &p.server || there == &p.client
		switch {
		case *there:
			return p, name, "is there twice"
		case !windowed && value != nil:
			return p, name, takesNoValue
		case windowed && bits == 0 && (value != nil || there == &p.server):
			return p, name, needsBits
		}
		*there = true
	}
	return p, nil, ""
}

// readBits reads a window as lexer.param gives it: 8 to 15 in decimal without a leading zero (RFC 7692 §7.1.2). 0 means
// that it is none.
func readBits(value []byte) uint8 {
	n := uint8(0)
	for i := 0; i < len(value); i++ {
		c := value[i]
		if c == '\\' { // only in a quoted-string, and never its last byte
			i++
			c = value[i]
		}
		if !isDigit(c) || n == 0 && c == '0' || n > maxBits {
			return 0
		}
		n = n*10 + c - '0'
	}
	if n < minBits || n > maxBits {
		return 0
	}
	return n
}

// window gives the bits of a window for which 0 means 15.
func window(bits uint8) uint8 {
	if bits == 0 {
		return maxBits
	}
	return min(max(bits, minBits), maxBits)
}

// append appends the element of Sec-WebSocket-Extensions.
func (p *deflateParams) append(dst []byte) []byte {
	dst = append(dst, deflateName...)
	if p.serverNoContext {
		dst = append(dst, "; "+serverNoContext...)
	}
	if p.clientNoContext {
		dst = append(dst, "; "+clientNoContext...)
	}
	if p.server {
		dst = append(dst, "; "+serverMaxBits+"="...)
		dst = strconv.AppendUint(dst, uint64(p.serverBits), 10)
	}
	if p.client {
		dst = append(dst, "; "+clientMaxBits...)
		if p.clientBits != 0 {
			dst = append(dst, '=')
			dst = strconv.AppendUint(dst, uint64(p.clientBits), 10)
		}
	}
	return dst
}
