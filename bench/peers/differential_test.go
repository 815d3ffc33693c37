package peers

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"log"
	"math/rand/v2"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	coder "github.com/coder/websocket"
	gorilla "github.com/gorilla/websocket"
	"github.com/lxzan/gws"
)

// The same bytes to our server and to the echo servers of three libraries: what
// each takes, refuses and answers. Where they differ the table says which
// clause of the RFC settles it; a difference that is not in the table fails the
// test, and so does an entry of the table that nothing needs.

// difference is a verdict of ours that a library does not share.
type difference struct {
	peer   string
	ours   string // our verdict; for a Close with its reason
	theirs string // theirs, several divided by |
	clause string
}

// rivals are the echo servers, all with a limit of 1 MiB for a message.
var rivals = map[string]http.HandlerFunc{
	"gorilla": func(w http.ResponseWriter, r *http.Request) {
		c, err := new(gorilla.Upgrader).Upgrade(w, r, nil)
		if err != nil {
			return
		}
		defer c.Close()
		c.SetReadLimit(1 << 20)
		for {
			kind, p, err := c.ReadMessage()
			if err != nil || c.WriteMessage(kind, p) != nil {
				return
			}
		}
	},
	"coder": func(w http.ResponseWriter, r *http.Request) {
		c, err := coder.Accept(w, r, &coder.AcceptOptions{CompressionMode: coder.CompressionDisabled})
		if err != nil {
			return
		}
		defer c.CloseNow()
		c.SetReadLimit(1 << 20)
		for {
			kind, p, err := c.Read(context.Background())
			if err != nil || c.Write(context.Background(), kind, p) != nil {
				return
			}
		}
	},
	"gws": func(w http.ResponseWriter, r *http.Request) {
		o := &gws.ServerOption{CheckUtf8Enabled: true, ReadMaxPayloadSize: 1 << 20}
		c, err := gws.NewUpgrader(gwsRival{}, o).Upgrade(w, r)
		if err != nil {
			return
		}
		c.ReadLoop()
	},
}

type gwsRival struct{ gws.BuiltinEventHandler }

func (gwsRival) OnPing(c *gws.Conn, p []byte) { c.WritePong(p) }

func (gwsRival) OnMessage(c *gws.Conn, m *gws.Message) {
	defer m.Close()
	c.WriteMessage(m.Opcode, m.Bytes())
}

// verdict is what a server made of a stream of bytes.
type verdict struct {
	end      string // "goes on", "ends", or "1002 the reason"
	messages []string
	pongs    []string
}

// code is the end without the reason of a Close.
func (v verdict) code() string {
	if v.end != "" && v.end[0] >= '0' && v.end[0] <= '9' {
		return v.end[:4]
	}
	return v.end
}

func (v verdict) String() string {
	return fmt.Sprintf("%s after messages %.200q and pongs %.80q", v.end, v.messages, v.pongs)
}

// probe is the payload of the ping behind the stream: its pong says that the
// server goes on.
const probe = "does it go on?"

// ask sends stream to the echo at addr and path, on a connection of its own,
// and tells what came of it.
func ask(addr, path string, stream []byte) (v verdict, err error) {
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		return v, err
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(patience))
	fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: %s\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"+
		"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n", path, addr)
	in := bufio.NewReader(conn)
	resp, err := http.ReadResponse(in, nil)
	if err != nil {
		return v, err
	}
	if resp.StatusCode != 101 {
		return v, fmt.Errorf("the handshake is answered with %s", resp.Status)
	}
	// The FIN behind it makes a server go that waits for the rest of a frame.
	go func() {
		conn.Write(append(bytes.Clone(stream), rawFrame(0x89, 0, true, []byte(probe))...))
		conn.(*net.TCPConn).CloseWrite()
	}()
	var message []byte
	for {
		b0, payload, err := readFrame(in)
		switch {
		case err != nil:
			v.end = "ends"
			return v, nil
		case b0&15 == 8:
			v.end = "1005"
			if len(payload) >= 2 {
				v.end = strings.TrimSpace(fmt.Sprintf("%d %s", binary.BigEndian.Uint16(payload), payload[2:]))
			}
			return v, nil
		case b0&15 == 10 && string(payload) == probe:
			v.end = "goes on"
			return v, nil
		case b0&15 == 10:
			v.pongs = append(v.pongs, string(payload))
		default:
			if b0&15 != 0 {
				message = []byte{b0 & 15}
			}
			if message = append(message, payload...); b0&0x80 != 0 {
				v.messages = append(v.messages, string(message))
			}
		}
	}
}

// readFrame reads one frame of a server.
func readFrame(in *bufio.Reader) (b0 byte, payload []byte, err error) {
	var h [8]byte
	if _, err = io.ReadFull(in, h[:2]); err != nil {
		return 0, nil, err
	}
	b0 = h[0]
	n := uint64(h[1])
	switch n {
	case 126:
		_, err = io.ReadFull(in, h[6:])
		n = uint64(binary.BigEndian.Uint16(h[6:]))
	case 127:
		_, err = io.ReadFull(in, h[:])
		n = binary.BigEndian.Uint64(h[:])
	}
	if err != nil || n > 16<<20 {
		return 0, nil, errors.Join(err, errors.New("no frame"))
	}
	payload = make([]byte, n)
	_, err = io.ReadFull(in, payload)
	return b0, payload, err
}

// rawFrame is a frame of a client, legal or not; form is the least number of
// bytes for the extended length: 0, 2 or 8.
func rawFrame(b0 byte, form int, masked bool, payload []byte) []byte {
	b, mask := []byte{b0}, byte(0)
	if masked {
		mask = 0x80
	}
	switch n := len(payload); {
	case form == 0 && n < 126:
		b = append(b, mask|byte(n))
	case form <= 2 && n < 65536:
		b = binary.BigEndian.AppendUint16(append(b, mask|126), uint16(n))
	default:
		b = binary.BigEndian.AppendUint64(append(b, mask|127), uint64(n))
	}
	if !masked {
		return append(b, payload...)
	}
	key := [4]byte{0x37, 0xfa, 0x21, 0x3d}
	b = append(b, key[:]...)
	for i, c := range payload {
		b = append(b, c^key[i%4])
	}
	return b
}

// stream is a case by name.
type stream struct {
	name  string
	bytes []byte
}

// streams are the cases: both sides of every rule of §5, §7 and §8.
func streams() (all []stream) {
	f := func(b0 byte, payload string) []byte { return rawFrame(b0, 0, true, []byte(payload)) }
	add := func(name string, frames ...[]byte) { all = append(all, stream{name, bytes.Join(frames, nil)}) }
	hello := f(0x81, "Hello")
	for _, n := range []int{0, 1, 125, 126, 127, 65535, 65536, 65537} {
		p := payload(true, n)
		add(fmt.Sprintf("text of %d bytes", n), rawFrame(0x81, 0, true, p))
		add(fmt.Sprintf("binary of %d bytes", n), rawFrame(0x82, 0, true, p))
		half := n / 2
		for half > 0 && half < n && p[half]&0xc0 == 0x80 {
			half++
		}
		add(fmt.Sprintf("text of %d bytes in two fragments", n), rawFrame(0x01, 0, true, p[:half]), rawFrame(0x80, 0, true, p[half:]))
	}
	for rsv := byte(0x10); rsv < 0x80; rsv += 0x10 {
		for _, b0 := range []byte{0x81, 0x82, 0x02, 0x88, 0x89, 0x8a} {
			add(fmt.Sprintf("first byte %#x", b0|rsv), hello, f(b0|rsv, ""))
		}
		add(fmt.Sprintf("continuation with reserved bits %#x", rsv), f(0x01, "a"), f(0x80|rsv, "b"))
	}
	for _, op := range []byte{3, 4, 5, 6, 7, 11, 12, 13, 14, 15} {
		add(fmt.Sprintf("opcode %d", op), hello, f(0x80|op, ""))
		add(fmt.Sprintf("opcode %d with payload, not final", op), hello, f(op, "abc"))
	}
	add("opcode 3 without a mask", hello, rawFrame(0x83, 0, false, nil))
	for _, b0 := range []byte{0x81, 0x82, 0x01, 0x88, 0x89, 0x8a} {
		add(fmt.Sprintf("no mask on %#x", b0), hello, rawFrame(b0, 0, false, nil))
		add(fmt.Sprintf("no mask on %#x with payload", b0), hello, rawFrame(b0, 0, false, []byte("\x03\xe8x")))
	}
	for _, op := range []byte{8, 9, 10} {
		add(fmt.Sprintf("control frame %d in fragments", op), hello, f(op, ""), f(0x80, ""))
		add(fmt.Sprintf("control frame %d of 126 bytes", op), hello, f(0x80|op, "\x03\xe8"+strings.Repeat("x", 124)))
		add(fmt.Sprintf("control frame %d with a long length of 5", op), hello, rawFrame(0x80|op, 2, true, []byte("\x03\xe8xxx")))
	}
	for _, n := range []int{0, 1, 125} {
		add(fmt.Sprintf("ping of %d bytes", n), f(0x89, strings.Repeat("p", n)), hello)
		add(fmt.Sprintf("pong of %d bytes unasked", n), f(0x8a, strings.Repeat("p", n)), hello)
	}
	add("ping between fragments", f(0x01, "a"), f(0x89, "ping"), f(0x00, "b"), f(0x8a, "pong"), f(0x80, "c"))
	add("empty fragments", f(0x01, ""), f(0x00, ""), f(0x00, ""), f(0x80, ""))
	add("continuation of nothing", hello, f(0x80, "x"))
	add("continuation of nothing, not final", hello, f(0x00, "x"))
	add("text within a message", f(0x01, "a"), f(0x81, "b"))
	add("binary within a message, not final", f(0x02, "a"), f(0x02, "b"))
	for _, n := range []int{0, 1, 125} {
		add(fmt.Sprintf("length %d in two bytes", n), hello, rawFrame(0x82, 2, true, make([]byte, n)))
	}
	for _, n := range []int{0, 125, 126, 65535} {
		add(fmt.Sprintf("length %d in eight bytes", n), hello, rawFrame(0x82, 8, true, make([]byte, n)))
	}
	add("length 2^63", hello, []byte{0x82, 0xff, 0x80, 0, 0, 0, 0, 0, 0, 0, 1, 2, 3, 4})
	add("length 2^63-1", hello, []byte{0x82, 0xff, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1, 2, 3, 4})
	add("message at the limit", rawFrame(0x82, 0, true, make([]byte, 1<<20)))
	add("message above the limit", hello, rawFrame(0x82, 0, true, make([]byte, 1<<20+1)))
	add("message above the limit in sum", hello, rawFrame(0x02, 0, true, make([]byte, 1<<19)), rawFrame(0x80, 0, true, make([]byte, 1<<19+1)))

	closing := func(code int, reason string) []byte {
		return f(0x88, string(binary.BigEndian.AppendUint16(nil, uint16(code)))+reason)
	}
	add("Close without a code", hello, f(0x88, ""))
	add("Close of one byte", hello, f(0x88, "\x03"))
	for _, code := range []int{0, 999, 1000, 1001, 1002, 1003, 1004, 1005, 1006, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014, 1015, 1016, 1100, 1999, 2000, 2999, 3000, 3999, 4000, 4999, 5000, 65535} {
		add(fmt.Sprintf("Close %d", code), hello, closing(code, ""))
	}
	add("Close with a reason", hello, closing(1000, "bye, Ünïcode"))
	add("Close with the longest reason", hello, closing(1000, strings.Repeat("x", 123)))
	add("Close whose reason is not UTF-8", hello, closing(1000, "\xc3("))
	add("Close 999 with a reason that is not UTF-8", hello, closing(999, "\xc3("))
	add("Close within a message", f(0x01, "a"), closing(1001, ""))
	add("data behind a Close", closing(1000, ""), hello, f(0x89, "ping"))
	add("two Closes", closing(1000, ""), closing(1001, ""))

	for _, s := range []string{"\u0000", "\u007f", "\u0080", "\u07ff", "\u0800", "\ud7ff", "\ue000", "\ufffd", "\ufeff", "\uffff", "\U00010000", "\U0010ffff"} {
		add(fmt.Sprintf("text %x", s), f(0x81, s))
		for i := 1; i < len(s); i++ {
			add(fmt.Sprintf("text %x cut after %d", s, i), f(0x01, s[:i]), f(0x80, s[i:]))
			add(fmt.Sprintf("text %x ends after %d", s, i), f(0x81, s[:i]))
			add(fmt.Sprintf("text %x goes on wrongly after %d", s, i), f(0x81, s[:i]+"a"))
		}
	}
	for _, s := range []string{"\x80", "\xbf", "\xc0\x80", "\xc0\xaf", "\xc1\xbf", "\xe0\x80\x80", "\xe0\x9f\xbf", "\xed\xa0\x80", "\xed\xbf\xbf", "\xf0\x80\x80\x80", "\xf0\x8f\xbf\xbf", "\xf4\x90\x80\x80", "\xf5\x80\x80\x80", "\xf8\x88\x80\x80\x80", "\xfe", "\xff"} {
		add(fmt.Sprintf("text %x", s), f(0x81, s))
		add(fmt.Sprintf("text with %x in its middle", s), f(0x81, "good "+s+" good"))
		add(fmt.Sprintf("text with %x and no end", s), f(0x01, "good "+s))
		add(fmt.Sprintf("binary %x", s), f(0x82, s))
	}
	// What follows a frame that is cut off becomes its payload, until FIN.
	add("a frame that does not end", hello, rawFrame(0x82, 0, true, make([]byte, 100))[:50])
	add("text that is not UTF-8 in a frame that does not end", hello, rawFrame(0x81, 0, true, bytes.Repeat([]byte("\xff"), 100))[:50])
	return all
}

// mutants are valid streams with something changed, each by its seed.
func mutants(n int) (all []stream) {
	for seed := range n {
		rng := rand.New(rand.NewPCG(uint64(seed), 7692))
		var b []byte
		var starts []int
		for range 2 + rng.IntN(4) {
			starts = append(starts, len(b))
			p := payload(true, rng.IntN(40))
			if rng.IntN(6) == 0 {
				p = payload(true, 120+rng.IntN(20))
			}
			switch rng.IntN(5) {
			case 0, 1:
				b = append(b, rawFrame(0x81, 0, true, p)...)
			case 2:
				b = append(b, rawFrame(0x82, 0, true, p)...)
			case 3:
				b = append(b, rawFrame(0x01, 0, true, p)...)
				b = append(b, rawFrame(0x80, 0, true, p)...)
			case 4:
				b = append(b, rawFrame(0x89, 0, true, p[:min(len(p), 9)])...)
			}
		}
		for range 1 + rng.IntN(2) {
			at := rng.IntN(len(b))
			if rng.IntN(3) > 0 { // in a header
				at = min(len(b)-1, starts[rng.IntN(len(starts))]+rng.IntN(2))
			}
			b[at] ^= 1 << rng.IntN(8)
		}
		all = append(all, stream{fmt.Sprintf("mutant %d", seed), b})
	}
	return all
}

func TestServersDifferOnlyWhereAClauseSettlesIt(t *testing.T) {
	ours := start(t, "--max-message", "1MiB")
	addrs := map[string]string{}
	for name, h := range rivals {
		l, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		s := &http.Server{Handler: h, ErrorLog: log.New(io.Discard, "", 0)} // a panic of a library is a verdict, too
		go s.Serve(l)
		t.Cleanup(func() { s.Close() })
		addrs[name] = l.Addr().String()
	}
	host, path, _ := strings.Cut(strings.TrimPrefix(ours.url, "ws://"), "/")

	type answered struct {
		stream
		scripted bool
		ours     verdict
		theirs   map[string]verdict
	}
	var results []*answered
	for _, s := range streams() {
		results = append(results, &answered{stream: s, scripted: true})
	}
	for _, s := range mutants(400) {
		results = append(results, &answered{stream: s})
	}
	var wg sync.WaitGroup
	places := make(chan struct{}, 16)
	for _, r := range results {
		places <- struct{}{}
		wg.Go(func() {
			defer func() { <-places }()
			var err error
			if r.ours, err = ask(host, "/"+path, r.bytes); err != nil {
				t.Errorf("%s: %v", r.name, err)
			}
			r.theirs = map[string]verdict{}
			for name, addr := range addrs {
				if r.theirs[name], err = ask(addr, "/", r.bytes); err != nil {
					t.Errorf("%s: %s: %v", r.name, name, err)
				}
			}
		})
	}
	wg.Wait()

	needed := make([]bool, len(differences))
	same, listed := 0, 0
	for _, r := range results {
		for name, v := range r.theirs {
			i := slices.IndexFunc(differences, func(d difference) bool {
				return d.peer == name && d.ours == r.ours.end && (!r.scripted || slices.Contains(strings.Split(d.theirs, "|"), v.code()))
			})
			switch {
			case r.ours.code() == v.code() && slices.Equal(r.ours.messages, v.messages) && slices.Equal(r.ours.pongs, v.pongs):
				same++
			case i >= 0:
				needed[i] = needed[i] || r.scripted
				listed++
			default:
				t.Errorf("%s (%.60x)\n\twspoll:  %v\n\t%s: %v", r.name, r.bytes, r.ours, name, v)
			}
		}
	}
	for i, d := range differences {
		if !needed[i] {
			t.Errorf("the table says that %s differs where we say %q, and no case shows it", d.peer, d.ours)
		}
	}
	t.Logf("%d streams: %d verdicts are the same, %d differ as the table says", len(results), same, listed)
}
