package conform

import (
	"bufio"
	"encoding/binary"
	"io"
	"net"
	"slices"
	"strings"
	"testing"
	"time"

	"wspoll/frame"
	"wspoll/handshake"

	"github.com/gobwas/ws"
)

// echoServer is an echo on net.Conn, as a library of an afternoon might be, but right; and then wrong in one thing. The
// zero value is right.
type echoServer struct {
	leaveOut string // a check of frames that it does not make
	lateText bool   // looks at UTF-8 when the message is complete
	linger   bool   // does not end TCP
	noClose  bool   // ends TCP without a Close
	reply    func(*handshake.Request, error) []byte
	sends    func(f []byte) []byte         // every frame passes through it
	pongs    func(payload []byte) [][]byte // payloads of the pongs to a ping
	echoes   func(op ws.OpCode, payload []byte) []byte
	codes    func(code int) []byte // body of the Close
	limit    uint64
	deflate  *handshake.DeflateOptions // nil: permessage-deflate is not negotiated
	squeezes func(c *echoConn, msg []byte) []byte
}

// start serves on a free port until the test is over.
func (e *echoServer) start(t *testing.T) *Target {
	t.Helper()
	return standIn(t, "/echo", func(conn net.Conn) {
		(&echoConn{echoServer: e, conn: conn, r: bufio.NewReaderSize(conn, 64<<10)}).serve()
	})
}

type echoConn struct {
	*echoServer
	conn net.Conn
	r    *bufio.Reader
	op   byte // of the message in progress
	msg  []byte
	text frame.UTF8
	zip
}

func (c *echoConn) serve() {
	// What was not read must not turn the end of TCP into a RST.
	defer func() {
		if c.linger {
			time.AfterFunc(10*time.Second, func() { c.conn.Close() })
			return
		}
		c.conn.(*net.TCPConn).CloseWrite()
		c.conn.SetReadDeadline(time.Now().Add(time.Second))
		io.Copy(io.Discard, c.r)
		c.conn.Close()
	}()
	if !c.open() {
		return
	}
	for c.next() {
	}
}

// open does the handshake.
func (c *echoConn) open() bool {
	var head []byte
	var req handshake.Request
	for {
		n, err := handshake.ParseRequest(head, nil, &req)
		if n > 0 || err != nil {
			c.r.Discard(0)
			var ans handshake.Answer
			if err == nil {
				err = handshake.Check(&req, &handshake.Options{Origins: []string{"*"}, Protocols: []string{"superchat"}, Deflate: c.deflate}, &ans)
			}
			c.zip.agreed = ans.Deflate
			var out []byte
			switch {
			case c.reply != nil:
				out = c.reply(&req, err)
			case err != nil:
				out = handshake.AppendRefusal(nil, err.(*handshake.Refusal), false)
			default:
				out = handshake.AppendAnswer(nil, &ans, nil)
			}
			c.conn.Write(out)
			return strings.HasPrefix(string(out), "HTTP/1.1 101")
		}
		b, err := c.r.ReadByte()
		if err != nil {
			return false
		}
		head = append(head, b)
	}
}

// fails reports whether a check has found a fault that the server minds.
func (c *echoConn) fails(check string, wrong bool) bool { return wrong && c.leaveOut != check }

// next serves one frame; false: the connection is over.
func (c *echoConn) next() bool {
	b, err := c.r.Peek(2)
	if err != nil {
		return false
	}
	b0, b1 := b[0], b[1]
	op := b0 & 15
	control := op >= 8
	if c.failsRSV(b0) || c.fails("opcode", op > 2 && op < 8 || op > 10) || c.fails("mask", b1 < 0x80) ||
		c.fails("control-fin", control && b0 < 0x80) || c.fails("control-length", control && b1&127 > 125) ||
		c.fails("continuation", op == 0 && c.op == 0) || c.fails("sequence", !control && op != 0 && c.op != 0) {
		return c.fail(1002)
	}
	c.r.Discard(2)
	length, wide := uint64(b1&127), 0
	if length > 125 {
		wide = 2 + 6*int(length-126)
		var raw [8]byte
		if _, err := io.ReadFull(c.r, raw[8-wide:]); err != nil {
			return false
		}
		length = binary.BigEndian.Uint64(raw[:])
		if c.fails("minimal", wide == 2 && length < 126 || wide == 8 && length < 65536) {
			return c.fail(1002)
		}
		if c.leaveOut == "msb" {
			length &= 1<<63 - 1
		}
	}
	limit := uint64(32 << 20)
	if c.limit != 0 {
		limit = c.limit
	}
	if length+uint64(len(c.msg)) > limit {
		if length >= 1<<63 {
			return c.fail(1002)
		}
		return c.fail(1009)
	}
	var key [4]byte
	if b1 >= 0x80 {
		if _, err := io.ReadFull(c.r, key[:]); err != nil {
			return false
		}
	}
	if !control && op != 0 {
		c.op = op
		c.beginZip(b0)
	}
	payload := make([]byte, 0, length)
	for uint64(len(payload)) < length {
		piece := payload[len(payload):min(len(payload)+4096, int(length))]
		n, err := c.r.Read(piece)
		if err != nil {
			return false
		}
		piece = piece[:n]
		if b1 >= 0x80 {
			ws.Cipher(piece, key, len(payload))
		}
		if c.compressed && !control {
			if code := c.inflates(piece, false); code != 0 {
				return c.fail(code)
			}
		} else if c.op == text && !control && !c.lateText {
			if _, ok := c.text.Write(piece); c.fails("utf8", !ok) {
				return c.fail(1007)
			}
		}
		payload = payload[:len(payload)+n]
	}
	switch op {
	case ping:
		all := [][]byte{payload}
		if c.pongs != nil {
			all = c.pongs(payload)
		}
		for _, p := range all {
			c.send(frame.AppendFrame(nil, true, ws.OpPong, p))
		}
	case closing:
		return c.close(payload)
	case pong:
	default:
		return c.data(b0, payload)
	}
	return true
}

// data takes a frame of a message.
func (c *echoConn) data(b0 byte, payload []byte) bool {
	if !c.compressed {
		c.msg = append(c.msg, payload...)
		c.passPlain(payload)
	} else if code := c.endOfFrame(b0); code != 0 {
		return c.fail(code)
	}
	if b0 < 0x80 {
		return true
	}
	if c.op == text {
		if c.lateText {
			c.text.Write(c.msg)
		}
		if c.fails("utf8", !c.text.Done()) {
			return c.fail(1007)
		}
	}
	op := ws.OpCode(c.op)
	out := frame.AppendFrame(nil, true, op&1|op&2, c.msg)
	switch {
	case c.compressed && c.squeezes != nil:
		out = c.squeezes(c, c.msg)
	case c.compressed:
		out = c.squeezed(c.msg)
	case c.echoes != nil:
		out = c.echoes(op, c.msg)
	}
	c.op, c.msg, c.text = 0, nil, 0
	c.send(out)
	return true
}

func (c *echoConn) send(f []byte) {
	if c.sends != nil {
		f = c.sends(f)
	}
	c.conn.Write(f)
}

// close answers a Close.
func (c *echoConn) close(payload []byte) bool {
	code, _, err := frame.ParseClose(payload)
	switch {
	case err == frame.ErrCloseReason && c.leaveOut != "reason":
		return c.fail(1007)
	case err != nil && err != frame.ErrCloseReason && c.leaveOut != "code":
		return c.fail(1002)
	}
	return c.fail(int(code))
}

// fail closes with a code, 1005 for none.
func (c *echoConn) fail(code int) bool {
	body := CloseBody(code, "")
	if code == 1005 {
		body = nil
	}
	if c.codes != nil {
		body = c.codes(code)
	}
	if !c.noClose {
		c.send(append([]byte{fin | closing, byte(len(body))}, body...))
	}
	return false
}

// whole makes the echo out of frames that are given as first byte and payload.
func whole(parts ...any) (b []byte) {
	for i := 0; i < len(parts); i += 2 {
		p := parts[i+1].([]byte)
		h := ws.Header{Fin: parts[i].(int)&fin != 0, Rsv: byte(parts[i].(int)) >> 4 & 7, OpCode: ws.OpCode(parts[i].(int) & 15), Length: int64(len(p))}
		b = append(frame.AppendHeader(b, h), p...)
	}
	return b
}

// answered is a reply that accepts whatever Check has against it.
func answered(accept func(key []byte) string, lines ...string) func(*handshake.Request, error) []byte {
	return func(r *handshake.Request, err error) []byte {
		if _, ok := err.(*handshake.Refusal); ok && len(r.Key) == 0 {
			return handshake.AppendRefusal(nil, err.(*handshake.Refusal), false)
		}
		h := &Head{First: "HTTP/1.1 101 Switching Protocols", Lines: []string{"Upgrade: websocket", "Connection: Upgrade", "Sec-WebSocket-Accept: " + accept(r.Key)}}
		return h.Add(lines...).Bytes()
	}
}

func rightAccept(key []byte) string { return string(handshake.AppendAccept(nil, key)) }

// lateAnswer puts the pong to a ping that must no longer be answered before a Close.
func lateAnswer(f []byte) []byte {
	if f[0] == fin|closing {
		f = append(frame.AppendFrame(nil, true, ws.OpPong, []byte("too late")), f...)
	}
	return f
}

// mutant is a server that is wrong in one thing, and the cases that must not be ok for it.
type mutant struct {
	name   string
	server echoServer
	caught []string // ids, each of which must get the verdict
	as     Verdict
}

var mutants = []mutant{
	{"accepts frames without a mask", echoServer{leaveOut: "mask"}, []string{"rfc6455-5.1-masking-text", "rfc6455-5.1-masking-ping", "rfc6455-5.1-masking-continuation"}, Failed},
	{"answers a Close without a mask", echoServer{leaveOut: "mask"}, []string{"rfc6455-5.1-masking-close", "rfc6455-5.1-masking-close-empty"}, NonStrict},
	{"accepts reserved bits", echoServer{leaveOut: "rsv"}, []string{"rfc6455-5.2-rsv-100-text", "rfc6455-5.2-rsv-010-binary", "rfc6455-5.2-rsv-001-ping", "rfc6455-5.2-rsv-111-continuation"}, Failed},
	{"answers a Close with reserved bits", echoServer{leaveOut: "rsv"}, []string{"rfc6455-5.2-rsv-100-close"}, NonStrict},
	{"accepts reserved opcodes", echoServer{leaveOut: "opcode"}, []string{"rfc6455-5.2-opcode-3", "rfc6455-5.2-opcode-b", "rfc6455-5.2-opcode-f-payload"}, Failed},
	{"accepts fragmented control frames", echoServer{leaveOut: "control-fin"}, []string{"rfc6455-5.5-ping-without-fin", "rfc6455-5.5-pong-without-fin"}, Failed},
	{"answers a fragmented Close", echoServer{leaveOut: "control-fin"}, []string{"rfc6455-5.5-close-without-fin-empty"}, NonStrict},
	{"accepts long control frames", echoServer{leaveOut: "control-length"}, []string{"rfc6455-5.5-pong-126", "rfc6455-5.5-pong-65536"}, Failed},
	{"accepts a continuation of nothing", echoServer{leaveOut: "continuation"}, []string{"rfc6455-5.4-continuation-first", "rfc6455-5.4-continuation-after-message-fin"}, Failed},
	{"accepts a message inside a message", echoServer{leaveOut: "sequence"}, []string{"rfc6455-5.4-text-in-text", "rfc6455-5.4-binary-in-text"}, Failed},
	{"accepts lengths that are not minimal", echoServer{leaveOut: "minimal"}, []string{"rfc6455-5.2-not-minimal-text-0-in-16-bits", "rfc6455-5.2-not-minimal-binary-65535-in-64-bits"}, NonStrict},
	{"accepts lengths with the top bit", echoServer{leaveOut: "msb"}, []string{"rfc6455-5.2-length-8000000000000005"}, Failed},
	{"does not look at UTF-8", echoServer{leaveOut: "utf8"}, []string{"rfc6455-8.1-broken-c0-af", "rfc6455-8.1-broken-ed-a0-80-fragments", "rfc6455-8.1-truncated-f0-90-80", "rfc6455-8.1-place-ascii-31"}, Failed},
	{"looks at UTF-8 when the message is complete", echoServer{lateText: true}, []string{"rfc6455-8.1-broken-ff-fragments", "rfc6455-8.1-broken-ff-segments", "rfc6455-8.1-second-fragment"}, NonStrict},
	{"sends codes back that may not be sent", echoServer{leaveOut: "code"}, []string{"rfc6455-7.4-bad-code-1006", "rfc6455-7.4-bad-code-999", "rfc6455-7.4-bad-code-65535"}, Failed},
	{"takes a reason that is not UTF-8", echoServer{leaveOut: "reason"}, []string{"rfc6455-8.1-reason-ff", "rfc6455-8.1-reason-truncated"}, NonStrict},
	{"answers each Close with 1001", echoServer{codes: func(int) []byte { return CloseBody(1001, "") }}, []string{"rfc6455-7.4-code-1000", "rfc6455-5.6-text-0", "rfc6455-5.1-masking-text"}, NonStrict},
	{"answers each Close with 1006", echoServer{codes: func(int) []byte { return CloseBody(1006, "") }}, []string{"rfc6455-7.4-code-1000", "rfc6455-5.6-text-0"}, Failed},
	{"answers each Close with one byte", echoServer{codes: func(int) []byte { return []byte{3} }}, []string{"rfc6455-5.5.1-close-empty"}, Failed},
	{"answers with a reason that is not UTF-8", echoServer{codes: func(c int) []byte { return CloseBody(c, "gr\xfc") }}, []string{"rfc6455-7.4-code-3000"}, Failed},
	{"ends TCP without a Close", echoServer{noClose: true}, []string{"rfc6455-7.4-code-1000", "rfc6455-5.6-text-0", "rfc6455-5.2-opcode-3"}, NonStrict},
	{"does not end TCP", echoServer{linger: true}, []string{"rfc6455-7.4-code-1000", "rfc6455-5.2-opcode-3"}, Failed},
	{"does not answer pings", echoServer{pongs: func([]byte) [][]byte { return nil }}, []string{"rfc6455-5.5.2-ping-5", "rfc6455-5.4-ping-5-between-fragments", "rfc6455-5.5.3-pong-5"}, Failed},
	{"answers pings with nothing in the pong", echoServer{pongs: func([]byte) [][]byte { return [][]byte{nil} }}, []string{"rfc6455-5.5.2-ping-5", "rfc6455-5.5.2-ten-pings-at-once"}, Failed},
	{"answers pings with one byte less", echoServer{pongs: func(p []byte) [][]byte { return [][]byte{p[:max(0, len(p)-1)]} }}, []string{"rfc6455-5.5.2-ping-125"}, Failed},
	{"masks its frames", echoServer{sends: func(f []byte) []byte { return append([]byte{f[0], f[1] | 0x80, 0, 0, 0, 0}, f[2:]...) }}, []string{"rfc6455-5.6-text-0", "rfc6455-5.5.2-ping-5"}, Failed},
	{"sets RSV1", echoServer{sends: func(f []byte) []byte { f[0] |= 0x40; return f }}, []string{"rfc6455-5.6-text-1", "rfc6455-5.5.2-ping-0"}, Failed},
	{"writes lengths in 16 bits", echoServer{echoes: func(op ws.OpCode, p []byte) []byte {
		return append([]byte{fin | byte(op), 126, byte(len(p) >> 8), byte(len(p))}, p...)
	}}, []string{"rfc6455-5.6-text-1", "rfc6455-5.6-binary-124"}, Failed},
	{"sends text back as binary", echoServer{echoes: func(_ ws.OpCode, p []byte) []byte { return whole(fin|binaryOp, p) }}, []string{"rfc6455-5.6-text-1"}, Failed},
	{"loses the last byte", echoServer{echoes: func(op ws.OpCode, p []byte) []byte { return whole(fin|int(op), p[:max(0, len(p)-1)]) }}, []string{"rfc6455-5.6-text-126", "rfc6455-5.4-binary-fragments-ten"}, Failed},
	{"changes a byte", echoServer{echoes: func(op ws.OpCode, p []byte) []byte {
		p = slices.Clone(p)
		if len(p) > 0 {
			p[len(p)/2] ^= 1
		}
		return whole(fin|int(op), p)
	}}, []string{"rfc6455-5.6-text-126", "rfc6455-10.4-binary-256k"}, Failed},
	{"sends messages back twice", echoServer{echoes: func(op ws.OpCode, p []byte) []byte { return whole(fin|int(op), p, fin|int(op), p) }}, []string{"rfc6455-5.6-text-5", "rfc6455-5.6-text-126"}[1:], Failed},
	{"begins each fragment anew", echoServer{echoes: func(op ws.OpCode, p []byte) []byte { return whole(int(op), p, fin|int(op), []byte(nil)) }}, []string{"rfc6455-5.6-text-126"}, Failed},
	{"never ends a message", echoServer{echoes: func(op ws.OpCode, p []byte) []byte { return whole(int(op), p) }}, []string{"rfc6455-5.6-text-126"}, Failed},
	{"sends a data frame behind its Close", echoServer{sends: func(f []byte) []byte {
		if f[0] == fin|closing {
			f = append(f, fin|text, 1, 'x')
		}
		return f
	}}, []string{"rfc6455-7.4-code-1000", "rfc6455-5.2-opcode-3"}, Failed},
	{"answers a ping behind a violation", echoServer{sends: lateAnswer}, []string{"rfc6455-7.1.7-ping-after-violation"}, Failed},
	{"answers a ping behind a Close", echoServer{sends: lateAnswer}, []string{"rfc6455-5.5.1-ping-after-close"}, NonStrict},
	{"sends two Closes", echoServer{sends: func(f []byte) []byte {
		if f[0] == fin|closing {
			f = append(f, f...)
		}
		return f
	}}, []string{"rfc6455-7.4-code-1000"}, NonStrict},

	{"answers with the accept value of another key", echoServer{reply: answered(func([]byte) string { return "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" })}, []string{"rfc6455-4.1-plain", "rfc6455-4.2.2-5.4-accept-zeros"}, Failed},
	{"accepts any handshake with a key", echoServer{reply: answered(rightAccept)}, []string{
		"rfc6455-4.2.1-1-method-post", "rfc6455-4.2.1-1-http-1.0", "rfc6455-4.2.1-3-upgrade-missing", "rfc6455-4.2.1-4-connection-keep-alive",
		"rfc6455-4.2.1-5-key-15-bytes", "rfc6455-4.4-version-12", "rfc6455-4.2.1-6-version-missing", "rfc6455-9.1-extension-malformed-quote-open",
		"rfc6455-4.2.1-8-subprotocol-two-words",
	}, Failed},
	{"chooses a subprotocol that was not offered", echoServer{reply: answered(rightAccept, "Sec-WebSocket-Protocol: x")}, []string{"rfc6455-4.1-plain", "rfc6455-4.2.1-8-subprotocol-one"}, Failed},
	{"uses an extension that was not offered", echoServer{reply: answered(rightAccept, "Sec-WebSocket-Extensions: permessage-deflate")}, []string{"rfc6455-4.1-plain"}, Failed},
	{"answers with a body", echoServer{reply: answered(rightAccept, "Content-Length: 2")}, []string{"rfc6455-4.1-plain"}, Failed},
	{"refuses with 200", echoServer{reply: func(*handshake.Request, error) []byte {
		return []byte("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
	}}, []string{"rfc6455-4.1-plain", "rfc6455-4.2.1-5-key-missing"}, Failed},
	{"says nothing to a bad handshake", echoServer{reply: func(r *handshake.Request, err error) []byte {
		if err != nil {
			return nil
		}
		return answered(rightAccept)(r, nil)
	}}, []string{"rfc6455-4.2.1-5-key-missing", "rfc6455-4.4-version-12"}, NonStrict},
	{"does not say which version it speaks", echoServer{reply: func(r *handshake.Request, err error) []byte {
		if err != nil {
			return []byte("HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n")
		}
		return answered(rightAccept)(r, nil)
	}}, []string{"rfc6455-4.4-version-12", "rfc6455-4.4-version-255"}, Failed},
}
