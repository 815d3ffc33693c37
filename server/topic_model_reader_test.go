package server

import (
	"bytes"
	"strconv"
	"strings"

	"wspoll/epoll"
	"wspoll/frame"
	"wspoll/handshake"

	"github.com/gobwas/ws"
)

// reader is a client that subscribed.
type reader struct {
	m        *model
	id       int
	p        *pipe
	sh       *shard
	conn     epoll.ID
	numbered bool
	pieces   bool // its endpoint sends messages in pieces between
	midSend  bool
	topics   []string
	began    map[string]uint64 // number of the newest message when it subscribed, by topic
	before   map[string]uint64 // number of the newest message then, also of a topic that was freed
	since    map[string]uint64
	hello    *handshake.Hello
	parser   frame.Parser
	in       frame.Inflation
	terms    frame.Terms
	message  []byte
	pos      map[string]uint64 // what it knows of
	heard    map[string][]uint64
	closed   ws.StatusCode // Close that it got
	left     map[string]bool
}

// look takes what the server has written.
func (r *reader) look() {
	var p frame.Piece
	if i := bytes.Index(r.p.out, []byte("\r\n\r\n")); i >= 0 && bytes.HasPrefix(r.p.out, []byte("HTTP/1.1 101")) {
		r.answered(r.p.out[:i+4])
		r.p.out = r.p.out[i+4:]
	} else if bytes.HasPrefix(r.p.out, []byte("HTTP")) || bytes.HasPrefix([]byte("HTTP"), r.p.out) {
		return
	}
	for len(r.p.out) > 0 {
		n, err := r.parser.Next(r.rules(), r.p.out, &p)
		if err != nil {
			r.m.failf("%d got what is no frame: %v", r.id, err)
		}
		if n == 0 {
			return
		}
		r.p.out = r.p.out[n:]
		switch {
		case p.Op == ws.OpClose:
			r.closed, _, _ = frame.ParseClose(p.Data)
			r.m.say("%d is closed: %q", r.id, p.Data[2:])
			if r.closed == 1013 {
				r.m.told.slow++
			}
			return
		case p.Op.IsControl():
			continue
		}
		if p.Compressed {
			r.m.told.deflated++
			r.inflate(p.Data, p.Last)
		} else {
			r.message = append(r.message, p.Data...)
		}
		if p.Last {
			r.got(string(r.message))
			r.message = r.message[:0]
		}
	}
}

// answered reads what was agreed on.
func (r *reader) answered(head []byte) {
	var resp handshake.Response
	if _, err := handshake.ParseResponse(head, nil, &resp); err != nil {
		r.m.failf("%d got an answer that cannot be read: %v", r.id, err)
	}
	if err := resp.Check(r.hello); err != nil {
		r.m.failf("%d: %v", r.id, err)
	}
	if d := resp.Deflate; d.On {
		r.terms = frame.NewTerms(d.ClientBits, d.ServerBits, d.ClientNoContext, d.ServerNoContext)
	}
}

func (r *reader) rules() *frame.Rules {
	if r.terms.On() {
		return &compressedRules
	}
	return &clientRules
}

// inflate adds to the message.
func (r *reader) inflate(packed []byte, last bool) {
	z := r.m.judges
	z.Resume(&r.in, r.terms.InBits())
	for more := true; more; {
		out, n, again, err := z.Next(packed, last)
		if err != nil {
			r.m.failf("%d got what cannot be inflated: %v", r.id, err)
		}
		r.message, packed, more = append(r.message, out...), packed[n:], again
	}
	if z.Suspend(&r.in); last && r.terms.FreshIn() {
		r.in = frame.Inflation{}
	}
}

// got checks a message: for a reader with numbers each must be the next one,
// or be told of as a gap, but the first of one that began with since=0; for a
// reader without, it must be newer than the last.
func (r *reader) got(s string) {
	m := r.m
	if strings.HasPrefix(s, "piece") {
		if s != pieceText+pieceText {
			m.failf("%d got %q in pieces", r.id, s)
		}
		return
	}
	m.say("%d gets %.40q", r.id, s)
	m.told.messages++
	if !r.numbered {
		name, seq := m.identify(s)
		if h := r.heard[name]; len(h) > 0 && seq <= h[len(h)-1] {
			m.failf("%d got number %d after %d", r.id, seq, h[len(h)-1])
		}
		r.heard[name] = append(r.heard[name], seq)
		return
	}
	line, payload, _ := strings.Cut(s, "\n")
	f := strings.Fields(line)
	name := f[len(f)-1]
	a, _ := strconv.ParseUint(f[1], 10, 64)
	pos, known := r.pos[name]
	switch {
	case f[0] == "at" && !known:
		if since, ok := r.since[name]; ok && a != since && since <= r.began[name] {
			m.failf("%d came back with %d and stands at %d", r.id, since, a)
		}
		r.pos[name] = a
	case f[0] == "gap" && known && (a == pos+1 || pos == 0):
		b, _ := strconv.ParseUint(f[2], 10, 64)
		if b < a {
			m.failf("%d is told of a gap from %d to %d", r.id, a, b)
		}
		m.told.gaps++
		r.pos[name] = b
	case f[0] == "seq" && known && (a == pos+1 || pos == 0):
		if n, seq := m.identify(payload); n != name || seq != a {
			m.failf("%d got %q as %s %d; it is %s %d", r.id, payload, name, a, n, seq)
		}
		if m.message(name, a).from == r {
			m.failf("%d got its own message back", r.id)
		}
		r.pos[name] = a
	case f[0] == "own" && known && (a == pos+1 || pos == 0) && m.message(name, a).from == r:
		m.told.own++
		r.pos[name] = a
	case f[0] == "at" || f[0] == "seq" || f[0] == "own" || f[0] == "gap":
		m.failf("%d got %q and was at %d", r.id, line, pos)
	default:
		m.failf("%d got %q", r.id, line)
	}
}

// identify finds the message with this text.
func (m *model) identify(text string) (name string, seq uint64) {
	name, rest, _ := strings.Cut(text, " ")
	n, _, _ := strings.Cut(rest, " ")
	i, err := strconv.Atoi(n)
	if err != nil || i >= len(m.sent[name]) || m.sent[name][i].text != text {
		m.failf("%q was never published", text)
	}
	return name, m.sent[name][i].seq
}

func (m *model) message(name string, seq uint64) modelMessage {
	for _, x := range m.sent[name] {
		if x.seq == seq {
			return x
		}
	}
	return modelMessage{}
}
