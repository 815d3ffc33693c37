package conform

import (
	"bytes"
	"compress/flate"
	"io"
	"slices"
	"strings"
	"testing"
	"time"

	"wspoll/frame"
	"wspoll/handshake"
)

// zip is what an echoConn keeps for permessage-deflate.
type zip struct {
	agreed     handshake.Deflate
	compressed bool // the message at hand
	z          *frame.Inflater
	out        stream
	raw        []byte // what has come of a message, for mutants that wait for its end
}

// failsRSV judges the reserved bits.
func (c *echoConn) failsRSV(b0 byte) bool {
	op := b0 & 15
	switch {
	case b0&0x70 == 0:
		return false
	case c.leaveOut == "rsv":
		return false
	case b0&0x30 != 0 || !c.agreed.On:
		return c.leaveOut != "rsv1-not-agreed" || b0&0x30 != 0
	case op >= 8:
		return c.leaveOut != "rsv1-control"
	case op == 0:
		return c.leaveOut != "rsv1-continuation"
	}
	return false
}

// beginZip begins a message.
func (c *echoConn) beginZip(b0 byte) {
	c.compressed = b0&0x40 != 0 && c.agreed.On
	if !c.compressed {
		return
	}
	bits := c.agreed.ClientBits
	switch c.leaveOut {
	case "window-beyond":
		bits = 15
	case "window-short":
		bits = max(8, bits-1)
	}
	fresh := c.z == nil || c.agreed.ClientNoContext && c.leaveOut != "window-kept" || c.leaveOut == "window-lost"
	if c.z == nil {
		c.z = frame.NewInflater()
	}
	if fresh {
		c.z.Resume(nil, bits)
	}
}

// passPlain: the payload of a message that is not compressed.
func (c *echoConn) passPlain(payload []byte) {
	if c.leaveOut == "window-plain" && c.z != nil {
		var d stream
		for _, part := range cut(payload, 65535) {
			d.stored(part, false)
		}
		wire, _ := d.message()
		c.z.Next(wire, true)
	}
}

// inflates takes bytes of a compressed message; the result is the code to fail with, 0 for none.
func (c *echoConn) inflates(in []byte, last bool) int {
	if c.leaveOut == "inflate" {
		return 1007
	}
	if c.leaveOut == "late" || c.leaveOut == "bfinal" {
		if c.raw = append(c.raw, in...); !last {
			return 0
		}
		if in, c.raw = c.raw, nil; c.leaveOut == "bfinal" {
			// compress/flate ends with the block that says it is the last.
			b, _ := io.ReadAll(flate.NewReader(io.MultiReader(bytes.NewReader(in), strings.NewReader("\x00\x00\xff\xff\x01\x00\x00\xff\xff"))))
			c.msg = append(c.msg, b...)
			return 0
		}
	}
	if c.leaveOut == "stored" && len(in) > 0 && len(c.msg) == 0 && in[0]&6 == 0 && in[0] != 0 {
		return 1007
	}
	if c.op == text && c.leaveOut == "utf8-raw" {
		if _, ok := c.text.Write(in); !ok {
			return 1007
		}
	}
	limit := uint64(32 << 20)
	if c.limit != 0 {
		limit = c.limit
	}
	for more := true; more; {
		out, n, again, err := c.z.Next(in, last)
		in, more = in[n:], again
		c.msg = append(c.msg, out...)
		switch {
		case uint64(len(c.msg)) > limit:
			return 1009
		case c.op == text && !c.lateText && c.leaveOut != "utf8-raw" && c.leaveOut != "utf8":
			if _, ok := c.text.Write(out); !ok {
				return 1007
			}
		}
		if err != nil && c.leaveOut != "corrupt" {
			return 1007
		}
	}
	return 0
}

// endOfFrame ends a frame of a compressed message.
func (c *echoConn) endOfFrame(b0 byte) int {
	if b0 < 0x80 && c.leaveOut != "fragments" {
		return 0
	}
	return c.inflates(nil, true)
}

// squeezed is the echo, compressed as was agreed.
func (c *echoConn) squeezed(msg []byte) []byte {
	wire, _ := c.out.squeeze(msg, c.agreed.ServerBits).message()
	if c.agreed.ServerNoContext {
		c.out.forget()
	}
	return whole(fin|rsv1|int(c.op), wire)
}

// deflating is an echoServer that negotiates, wrong in one thing.
func deflating(leaveOut string) echoServer {
	return echoServer{leaveOut: leaveOut, deflate: &handshake.DeflateOptions{}}
}

// squeezing is one that is wrong in how it compresses.
func squeezing(f func(c *echoConn, msg []byte) []byte) echoServer {
	return echoServer{deflate: &handshake.DeflateOptions{}, squeezes: f}
}

// answering is one that answers to offers with whatever change makes of the right answer.
func answering(change func(r *handshake.Request, right string) string) echoServer {
	return echoServer{deflate: &handshake.DeflateOptions{}, reply: func(r *handshake.Request, err error) []byte {
		var a handshake.Answer
		a.Key = r.Key
		a.AcceptDeflate(r, &handshake.DeflateOptions{})
		if v := change(r, extensionsOf(&a)); v == "400" {
			return []byte("HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")
		} else if v != "" {
			return answered(rightAccept, "Sec-WebSocket-Extensions: "+v)(r, err)
		}
		return answered(rightAccept)(r, err)
	}}
}

// deflateMutants are servers that are wrong in one thing of RFC 7692.
var deflateMutants = []mutant{
	// Offers.
	{"accepts any offer", answering(func(r *handshake.Request, _ string) string {
		if len(r.Extensions) > 0 {
			return "permessage-deflate"
		}
		return ""
	}), []string{
		"rfc7692-7.1-decline-unknown", "rfc7692-7.1-decline-server-bits-7", "rfc7692-7.1-decline-server-bits-4294967306", "rfc7692-7.1-decline-client-bits-08",
		"rfc7692-7.1-decline-server-no-context-value", "rfc7692-7.1-decline-client-no-context-doubled", "rfc7692-7.1-decline-client-bits-doubled-with-and-without",
		"rfc7692-7.1.1.1-offer-server-no-context", "rfc7692-7.1.2.1-offer-server-bits-10", "rfc7692-7.1-offer-snct-cnct-smwb-cmwb", "rfc7692-5-offer-of-another",
	}, Failed},
	{"refuses the handshake for a bad offer", answering(func(r *handshake.Request, right string) string {
		if len(r.Extensions) > 0 && right == "" {
			return "400"
		}
		return right
	}), []string{"rfc7692-7.1-decline-unknown", "rfc7692-7.1-decline-client-bits-16", "rfc7692-5-offer-of-another"}, Failed},
	{"limits the client's window unasked", answering(func(_ *handshake.Request, right string) string {
		if right == "permessage-deflate" {
			return right + "; client_max_window_bits=12"
		}
		return right
	}), []string{"rfc7692-7.1-offer-plain", "rfc7692-5-offer-behind-unknown", "rfc7692-5-offer-twice"}, Failed},
	{"answers with a larger window than was asked", answering(func(_ *handshake.Request, right string) string {
		return strings.Replace(right, "server_max_window_bits=10", "server_max_window_bits=11", 1)
	}), []string{"rfc7692-7.1.2.1-offer-server-bits-10", "rfc7692-7.1.2.1-offer-quoted", "rfc7692-7.1-offer-smwb-cmwb"}, Failed},
	{"answers client_max_window_bits without a value", answering(func(_ *handshake.Request, right string) string {
		before, _, _ := strings.Cut(right, "client_max_window_bits=")
		if before != right {
			return before + "client_max_window_bits"
		}
		return right
	}), []string{"rfc7692-7.1.2.2-offer-client-bits-10"}, Failed},
	{"answers with two extensions for two offers", answering(func(r *handshake.Request, right string) string {
		if strings.Contains(string(r.Extensions), ",") && right != "" {
			return right + ", " + right
		}
		return right
	}), []string{"rfc7692-5-offer-twice", "rfc7692-5-fallback-server-bits"}, Failed},
	{"looks at the first offer only", answering(func(r *handshake.Request, right string) string {
		if strings.Contains(string(r.Extensions), ",") {
			return ""
		}
		return right
	}), []string{"rfc7692-5-fallback-behind-bad-unknown", "rfc7692-5-fallback-both"}, NonStrict},
	{"does not negotiate", echoServer{}, []string{
		"rfc7692-7.1-offer-plain", "rfc7692-7.1-decline-unknown", "rfc7692-5-fallback-both", "rfc7692-7.2.3.1-one-frame", "rfc7692-6-not-negotiated-text",
		"rfc7692-7.1.2-window-8-peer", "rfc7692-8-bomb-1m", "rfc7692-7.2.2-corrupt-reserved-block", "rfc7692-6.2-text-valid",
	}, Unimplemented},

	// Windows and context.
	{"compresses with the largest window", squeezing(func(c *echoConn, msg []byte) []byte {
		c.agreed.ServerBits = 15
		return c.squeezed(msg)
	}), []string{
		"rfc7692-7.1.2-window-8-peer", "rfc7692-7.1.2-window-9-peer", "rfc7692-7.1.2-window-10-peer", "rfc7692-7.1.2-window-11-peer", "rfc7692-7.1.2-window-12-peer",
		"rfc7692-7.1.2-window-13-peer", "rfc7692-7.1.2-window-14-peer", "rfc7692-7.1.2-window-8-peer-messages", "rfc7692-7.1.2-window-14-peer-messages", "rfc7692-7.1.2.1-offer-server-bits-8",
	}, Failed},
	{"compresses with a window one bit too large, as zlib does for 8", squeezing(func(c *echoConn, msg []byte) []byte {
		saved := c.agreed.ServerBits
		c.agreed.ServerBits = max(saved, 9)
		defer func() { c.agreed.ServerBits = saved }()
		return c.squeezed(msg)
	}), []string{"rfc7692-7.1.2-window-8-peer", "rfc7692-7.1.2-window-8-peer-messages"}, Failed},
	{"takes its context over all the same", squeezing(func(c *echoConn, msg []byte) []byte {
		c.agreed.ServerNoContext = false
		return c.squeezed(msg)
	}), []string{"rfc7692-7.1.1-takeover-ours-on-peer-off-replies", "rfc7692-7.1.1-takeover-ours-off-peer-off-replies", "rfc7692-7.1.1.1-offer-server-no-context"}, Failed},
	{"forgets the client's window", deflating("window-lost"), []string{
		"rfc7692-7.2.3.2-shared-window", "rfc7692-7.1.1-takeover-ours-on-peer-on-refers", "rfc7692-7.2.3.2-ping-between", "rfc7692-7.2.3.6-empty-between",
		"rfc7692-7.1.2-window-8-ours-farthest-message-before", "rfc7692-7.2.3.2-window-slides",
	}, Failed},
	{"keeps the client's window without context takeover", deflating("window-kept"), []string{
		"rfc7692-7.1.1-takeover-ours-off-peer-on-refers", "rfc7692-7.1.1-takeover-ours-off-peer-off-refers",
	}, NonStrict},
	{"lets uncompressed messages into the window", deflating("window-plain"), []string{"rfc7692-7.2.3.2-uncompressed-between", "rfc7692-7.2.3.2-uncompressed-fragments-between"}, Failed},
	{"reaches back half the window only", deflating("window-short"), []string{
		"rfc7692-7.1.2-window-9-ours-farthest", "rfc7692-7.1.2-window-12-ours-farthest", "rfc7692-7.1.2-window-15-ours-farthest", "rfc7692-7.1.2-window-10-ours-farthest-message-before",
		"rfc7692-7.2.2-all-distances",
	}, Failed},
	{"reaches back beyond the window", deflating("window-beyond"), []string{"rfc7692-7.1.2-window-8-ours-beyond", "rfc7692-7.1.2-window-14-ours-beyond"}, NonStrict},

	// RSV1, fragments, blocks.
	{"accepts RSV1 on continuations", deflating("rsv1-continuation"), []string{
		"rfc7692-6.1-rsv1-continuation", "rfc7692-6.1-rsv1-continuation-only", "rfc7692-6.1-rsv1-continuation-middle", "rfc7692-6.1-rsv1-continuation-empty",
	}, Failed},
	{"accepts RSV1 on control frames", deflating("rsv1-control"), []string{"rfc7692-6.1-rsv1-ping", "rfc7692-6.1-rsv1-pong", "rfc7692-6.1-rsv1-ping-between"}, Failed},
	{"accepts RSV1 without an agreement", deflating("rsv1-not-agreed"), []string{"rfc7692-6-not-negotiated-binary"}, Failed},
	{"inflates each fragment by itself", deflating("fragments"), []string{
		"rfc7692-7.2.3.1-two-fragments", "rfc7692-6.1-fragments-stored", "rfc7692-6.1-fragments-empty", "rfc7692-6.1-pings-between", "rfc7692-7.2.3.2-fragments-enter",
	}, Failed},
	{"ends at BFINAL", deflating("bfinal"), []string{"rfc7692-7.2.2-final-in-the-middle", "rfc7692-6.1-fragments-final"}, Failed},

	// What cannot be read.
	{"takes what it can read", deflating("corrupt"), []string{
		"rfc7692-7.2.2-corrupt-reserved-block", "rfc7692-7.2.2-corrupt-stored-length", "rfc7692-7.2.2-corrupt-literals-287", "rfc7692-7.2.2-corrupt-lengths-incomplete",
		"rfc7692-7.2.2-corrupt-symbol-286", "rfc7692-7.2.2-corrupt-distance-30", "rfc7692-7.2.2-corrupt-before-the-beginning", "rfc7692-7.2.2-corrupt-ff",
		"rfc7692-7.2.2-corrupt-after-good", "rfc7692-7.2.2-corrupt-no-end", "rfc7692-7.2.2-corrupt-zlib-header",
	}, Failed},
	{"takes what it can read of what is cut off", deflating("corrupt"), []string{"rfc7692-7.2.2-cut-off-fixed", "rfc7692-7.2.2-cut-off-stored-bytes", "rfc7692-7.2.2-cut-off-final-nothing-behind"}, NonStrict},
	{"inflates when the message is complete", deflating("late"), []string{"rfc7692-7.2.2-corrupt-before-the-end", "rfc7692-6.2-text-broken-ff-early"}, NonStrict},

	// Text.
	{"does not look at UTF-8 after inflating", deflating("utf8"), []string{"rfc7692-6.2-text-broken-ff", "rfc7692-6.2-text-broken-ed-a0-80", "rfc7692-6.2-text-far-in", "rfc7692-6.2-text-made-by-a-match"}, Failed},
	{"looks at UTF-8 before inflating", deflating("utf8-raw"), []string{"rfc7692-7.2.3.1-one-frame", "rfc7692-6.2-text-valid"}, Failed},
	{"looks at UTF-8 when the message is complete", echoServer{lateText: true, deflate: &handshake.DeflateOptions{}}, []string{"rfc7692-6.2-text-broken-ff-early", "rfc7692-6.2-text-broken-c0-af-early"}, NonStrict},

	// What it compresses.
	{"leaves 00 00 ff ff in its messages", squeezing(func(c *echoConn, msg []byte) []byte {
		wire, _ := c.out.squeeze(msg, 15).message()
		return whole(fin|rsv1|int(c.op), append(wire, 0, 0, 0xff, 0xff))
	}), []string{"rfc7692-7.2.3.1-one-frame", "rfc7692-6-reply-compressed"}, Failed},
	{"leaves RSV1 away", squeezing(func(c *echoConn, msg []byte) []byte {
		wire, _ := c.out.squeeze(msg, 15).message()
		return whole(fin|int(c.op), wire)
	}), []string{"rfc7692-7.2.3.1-one-frame", "rfc7692-8-text-64k"}, Failed},
	{"sets RSV1 on each fragment", squeezing(func(c *echoConn, msg []byte) []byte {
		wire, _ := c.out.squeeze(msg, 15).message()
		return whole(rsv1|int(c.op), wire[:1], fin|rsv1, wire[1:])
	}), []string{"rfc7692-7.2.3.1-one-frame", "rfc7692-7.2.1-level-6"}, Failed},
	{"sets RSV1 on what is not compressed", squeezing(func(c *echoConn, msg []byte) []byte { return whole(fin|rsv1|int(c.op), msg) }), []string{"rfc7692-7.2.3.1-one-frame"}, Failed},
	{"sets RSV1 on pongs", echoServer{deflate: &handshake.DeflateOptions{}, sends: func(f []byte) []byte {
		if f[0] == fin|pong {
			f[0] |= rsv1
		}
		return f
	}}, []string{"rfc7692-6-ping-uncompressed", "rfc7692-6.1-pings-between"}, Failed},
	{"changes a byte of what it compresses", squeezing(func(c *echoConn, msg []byte) []byte {
		if msg = slices.Clone(msg); len(msg) > 0 {
			msg[len(msg)-1] ^= 1
		}
		return c.squeezed(msg)
	}), []string{"rfc7692-7.2.3.1-one-frame", "rfc7692-8-binary-64k"}, Failed},
	{"loses the last byte of what it compresses", squeezing(func(c *echoConn, msg []byte) []byte { return c.squeezed(msg[:max(0, len(msg)-1)]) }), []string{"rfc7692-7.2.3.1-one-frame"}, Failed},
	{"compresses empty messages to nothing", squeezing(func(c *echoConn, msg []byte) []byte {
		if len(msg) == 0 {
			return whole(fin|rsv1|int(c.op), []byte(nil))
		}
		return c.squeezed(msg)
	}), []string{"rfc7692-7.2.3.6-empty"}, NonStrict},
}

func TestDeflateMutantsAreCaught(t *testing.T) { catch(t, deflateMutants) }

func TestABombThatIsHeldUntilItsEndIsFound(t *testing.T) {
	cases, _ := Select(Cases(Server), []string{"rfc7692-8-bomb-before-its-end"})
	late := deflating("late")
	r := Run(t.Context(), late.start(t), cases, Options{Timeout: patience}, nil)[0]
	if r.Verdict != NonStrict || !strings.Contains(r.Why(), "only when the message was complete") {
		t.Errorf("%s", text1(&r))
	}
}

func TestDeflatingEchoServerOfTheTestsIsRight(t *testing.T) {
	target := (&echoServer{deflate: &handshake.DeflateOptions{}}).start(t)
	cases, _ := Select(Cases(Server), []string{"rfc7692-*", "rfc6455-5.*"})
	for _, r := range Run(t.Context(), target, affordable(cases), Options{Timeout: patience, Parallel: 8}, nil) {
		if r.Verdict != OK {
			t.Errorf("%s", text1(&r))
		}
	}
}

func TestAServerWithASmallLimitForCompressedMessagesIsOK(t *testing.T) {
	cases, _ := Select(Cases(Server), []string{"rfc7692-8-*"})
	began := time.Now()
	tooLarge := 0
	for _, r := range Run(t.Context(), (&echoServer{limit: 300 << 10, deflate: &handshake.DeflateOptions{}}).start(t), cases, Options{Timeout: patience, Parallel: 4}, nil) {
		if r.Verdict != OK {
			t.Errorf("%s", text1(&r))
		}
		for _, m := range r.Remarks {
			tooLarge += b2i(strings.HasSuffix(m.Text, "bytes are too large for the peer"))
		}
	}
	if tooLarge < 10 {
		t.Errorf("%d remarks about the limit, after %v", tooLarge, time.Since(began))
	}
}

// flateReads is what compress/flate makes of a message behind a window.
func flateReads(wire, window []byte) ([]byte, error) {
	end := "\x00\x00\xff\xff\x01\x00\x00\xff\xff" // the tail of §7.2.1, and an empty last block
	return io.ReadAll(flate.NewReaderDict(io.MultiReader(bytes.NewReader(wire), strings.NewReader(end)), window))
}

// The streams that are written by hand mean what they say: compress/flate, which has no part in them, reads their text.
func TestStreamsWrittenByHandAreDeflate(t *testing.T) {
	var d stream
	for i, write := range []func(){
		func() {},
		func() { d.fixed("Hello") },
		func() { d.fixed(match{5, 5}, "x", match{258, 1}) },
		func() { d.stored(noise(40000), false).fixed(match{258, 32768}, match{3, 32767}) },
		func() { d.squeeze(letters(100000), 15) },
		func() { d.squeeze(digits(100000), 9) },
		func() { d.squeeze(repeated(256), 8) },
		func() { d.squeeze(nil, 8).stored(nil, false).fixed().squeeze([]byte("abc"), 8) },
		func() {
			d.dynamic(lens(258, 'a', 1, endOfBlock, 2, 257, 2), []int{1}).word(0, 1).word(3, 2).word(0, 1).word(2, 2)
			d.text = append(d.text, "aaaa"...)
		},
	} {
		window := slices.Clone(d.text[max(0, len(d.text)-1<<15):])
		write()
		wire, want := d.message()
		got, err := flateReads(wire, window)
		if err != nil || !bytes.Equal(got, want) {
			t.Errorf("stream %d: %v; %d bytes, want %d", i, err, len(got), len(want))
		}
	}
	for n := range 600 {
		if got, err := flateReads(bomb(n+1), nil); err != nil || !bytes.Equal(got, make([]byte, n+1)) {
			t.Fatalf("a bomb of %d bytes makes %d, %v", n+1, len(got), err)
		}
	}
}

// squeeze keeps to its window: a decompressor of exactly that reads it, and needs it.
func TestSqueezeKeepsToItsWindow(t *testing.T) {
	z := frame.NewInflater()
	for bits := uint8(8); bits <= 15; bits++ {
		for _, gap := range []int{1 << bits, 1<<bits - 1, 1<<bits + 1, 2 << bits} {
			wire, want := new(stream).squeeze(repeated(gap), bits).message()
			z.Resume(nil, bits)
			var got []byte
			for more := true; more; {
				out, n, again, err := z.Next(wire, true)
				if got, wire, more = append(got, out...), wire[n:], again; err != nil {
					t.Fatalf("%d bits, repeated after %d: %v", bits, gap, err)
				}
			}
			if !bytes.Equal(got, want) {
				t.Fatalf("%d bits, repeated after %d: another text", bits, gap)
			}
		}
		full, _ := new(stream).squeeze(repeated(1<<bits), bits).message()
		if bits == 8 {
			continue
		}
		if z.Resume(nil, bits-1); errOf(z, full) == nil {
			t.Errorf("%d bits: half the window reads it too, so it proves nothing", bits)
		}
	}
}

func errOf(z *frame.Inflater, wire []byte) error {
	for {
		_, n, more, err := z.Next(wire, true)
		if wire = wire[n:]; err != nil || !more {
			return err
		}
	}
}
