package bench

import (
	"crypto/rand"
	mrand "math/rand/v2"

	"wspoll/frame"

	"github.com/gobwas/ws"
)

// A message carries its number on the connection in its first eight bytes, in
// hexadecimal digits so that text stays text: a reply that is lost, doubled or
// out of order is recognised. Shorter messages carry none.
const seqSize = 8

// template is a message that is sent again and again, with another number each
// time.
type template struct {
	payload []byte // as the reply must be
	wire    []byte // the whole frame, masked; the payload itself on plain TCP
	at      int    // where the payload begins in wire
	mask    [4]byte
	seq     bool // carries a number
}

// templates makes the messages of a load: one, or for a range of sizes, and when
// they are compressed, 64 of random sizes and content. The masking key is random and the same for all connections: a
// load gains nothing from fresh ones, and RFC 6455 §10.3 wants them against
// payloads that an attacker chose, while these are our own.
func templates(cfg *Config, raw bool) []template {
	n := 1
	if cfg.Payload == nil && (cfg.SizeMax > cfg.SizeMin || cfg.Compress && cfg.SizeMax <= 1<<20) {
		n = 64
	}
	random := mrand.New(mrand.NewPCG(1, 2)) // the same sizes in each run, so that runs compare
	all := make([]template, n)
	for i := range all {
		t := &all[i]
		t.payload = cfg.Payload
		if t.payload == nil {
			t.payload = make([]byte, cfg.SizeMin+random.IntN(cfg.SizeMax-cfg.SizeMin+1))
			for k := range t.payload {
				t.payload[k] = 'a' + byte(k%26)
			}
			if cfg.Compress {
				records(t.payload, random)
			}
			t.seq = !raw && len(t.payload) >= seqSize
		}
		if raw {
			t.wire = t.payload
			continue
		}
		op := ws.OpBinary
		if cfg.Text {
			op = ws.OpText
		}
		rand.Read(t.mask[:])
		t.wire = frame.AppendMasked(nil, true, op, t.mask, t.payload)
		t.at = len(t.wire) - len(t.payload)
	}
	return all
}

// number writes seq into the frame.
func (t *template) number(seq uint32) {
	if !t.seq {
		return
	}
	w := t.wire[t.at : t.at+seqSize]
	putSeq(w, seq)
	for i := range w {
		w[i] ^= t.mask[i%4]
	}
}

// putSeq writes seq into the first bytes of b.
func putSeq(b []byte, seq uint32) {
	for i := range seqSize {
		b[i] = hexDigits[seq>>(28-4*i)&15]
	}
}

const hexDigits = "0123456789abcdef"

// parseSeq is the number in the first bytes of a reply; false when they are none.
func parseSeq(b *[seqSize]byte) (seq uint32, ok bool) {
	for _, c := range b {
		var d byte
		switch {
		case '0' <= c && c <= '9':
			d = c - '0'
		case 'a' <= c && c <= 'f':
			d = c - 'a' + 10
		default:
			return 0, false
		}
		seq = seq<<4 | uint32(d)
	}
	return seq, true
}
