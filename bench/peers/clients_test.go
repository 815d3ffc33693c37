package peers

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"

	coder "github.com/coder/websocket"
	"github.com/gobwas/ws"
	"github.com/gobwas/ws/wsflate"
	"github.com/gobwas/ws/wsutil"
	gorilla "github.com/gorilla/websocket"
	"github.com/lxzan/gws"
)

// options are what a test asks of a client's handshake.
type options struct {
	protocols []string
	origin    string
	deflate   bool // offer permessage-deflate, and compress all that is sent
	takeover  bool // and take the context over in both directions, if the library can
}

// event is what a client has received: a message, or the end.
type event struct {
	text    bool
	payload []byte

	end    bool
	code   int // of the server's Close, 0 if there was none
	reason string
	err    error
}

// client is a connection of one of the libraries. A goroutine of its own reads
// all the time, as a client must that writes much to an echo.
type client struct {
	protocol   string
	extensions string // that were agreed on
	events     chan event
	pongs      chan []byte

	send func(text bool, p []byte) error
	// fragments sends a message with a frame for each part.
	fragments func(text bool, parts [][]byte) error
	// ping sends a ping; its pong goes to pongs.
	ping func(p []byte) error
	// close sends a Close frame; the server's goes to events.
	close func(code int, reason string) error
	// drop ends the connection without a word.
	drop func()
}

// library is one of the Go WebSocket libraries.
type library struct {
	name string
	dial func(ctx context.Context, url string, o options) (*client, error)

	// What the library does not let its user do.
	ownPings     bool // the payload of a ping is the library's
	goodCodes    bool // a Close with an illegal code cannot be sent
	leavesAtOnce bool // it does not wait for the answer to its Close
	checksCode   bool // its close may check the answer itself, and not show it
	knows1014    bool // it takes 1014 for a legal code
}

var libraries = []library{
	{name: "gorilla", dial: dialGorilla},
	{name: "coder", dial: dialCoder, ownPings: true, goodCodes: true, checksCode: true, knows1014: true},
	{name: "gws", dial: dialGWS, leavesAtOnce: true},
	{name: "gobwas", dial: dialGobwas, knows1014: true},
}

// anyCertificate: the servers of these tests make one themselves.
var anyCertificate = &tls.Config{InsecureSkipVerify: true}

func newClient() *client {
	return &client{events: make(chan event, 1024), pongs: make(chan []byte, 16)}
}

func header(o options) http.Header {
	h := http.Header{}
	if o.origin != "" {
		h.Set("Origin", o.origin)
	}
	return h
}

func dialGorilla(ctx context.Context, url string, o options) (*client, error) {
	d := gorilla.Dialer{Subprotocols: o.protocols, EnableCompression: o.deflate, TLSClientConfig: anyCertificate}
	conn, resp, err := d.DialContext(ctx, url, header(o))
	if err != nil {
		return nil, refusal(resp, err)
	}
	c := newClient()
	c.protocol, c.extensions = conn.Subprotocol(), resp.Header.Get("Sec-WebSocket-Extensions")
	conn.SetPongHandler(func(p string) error { c.pongs <- []byte(p); return nil })
	op := func(text bool) int {
		if text {
			return gorilla.TextMessage
		}
		return gorilla.BinaryMessage
	}
	c.send = func(text bool, p []byte) error { return conn.WriteMessage(op(text), p) }
	c.fragments = func(text bool, parts [][]byte) error {
		// There is no flush: every 4096 bytes, the size of the write
		// buffer, make a frame, wherever the parts end.
		w, err := conn.NextWriter(op(text))
		if err != nil {
			return err
		}
		for _, p := range parts {
			if _, err := w.Write(p); err != nil {
				return err
			}
		}
		return w.Close()
	}
	c.ping = func(p []byte) error { return conn.WriteMessage(gorilla.PingMessage, p) }
	c.close = func(code int, reason string) error {
		return conn.WriteMessage(gorilla.CloseMessage, append(binary.BigEndian.AppendUint16(nil, uint16(code)), reason...))
	}
	c.drop = func() { conn.Close() }
	go func() {
		for {
			t, p, err := conn.ReadMessage()
			if err != nil {
				e := event{end: true, err: err}
				if ce, ok := errors.AsType[*gorilla.CloseError](err); ok && ce.Code != gorilla.CloseAbnormalClosure {
					e.code, e.reason = ce.Code, ce.Text
				}
				c.events <- e
				conn.Close()
				return
			}
			c.events <- event{text: t == gorilla.TextMessage, payload: p}
		}
	}()
	return c, nil
}

func dialCoder(ctx context.Context, url string, o options) (*client, error) {
	c := newClient()
	opts := &coder.DialOptions{
		HTTPClient:     &http.Client{Transport: &http.Transport{TLSClientConfig: anyCertificate}},
		HTTPHeader:     header(o),
		Subprotocols:   o.protocols,
		OnPongReceived: func(_ context.Context, p []byte) { c.pongs <- bytes.Clone(p) },
	}
	if o.deflate {
		opts.CompressionMode, opts.CompressionThreshold = coder.CompressionNoContextTakeover, 1
		if o.takeover {
			opts.CompressionMode = coder.CompressionContextTakeover
		}
	}
	conn, resp, err := coder.Dial(ctx, url, opts)
	if err != nil {
		return nil, refusal(resp, err)
	}
	conn.SetReadLimit(-1)
	c.protocol, c.extensions = conn.Subprotocol(), resp.Header.Get("Sec-WebSocket-Extensions")
	bg := context.Background()
	op := func(text bool) coder.MessageType {
		if text {
			return coder.MessageText
		}
		return coder.MessageBinary
	}
	c.send = func(text bool, p []byte) error { return conn.Write(bg, op(text), p) }
	c.fragments = func(text bool, parts [][]byte) error {
		w, err := conn.Writer(bg, op(text))
		if err != nil {
			return err
		}
		for _, p := range parts {
			if _, err := w.Write(p); err != nil {
				return err
			}
		}
		return w.Close()
	}
	c.ping = func([]byte) error { return conn.Ping(bg) }
	c.close = func(code int, reason string) error { return conn.Close(coder.StatusCode(code), reason) }
	c.drop = func() { conn.CloseNow() }
	go func() {
		for {
			t, p, err := conn.Read(bg)
			if err != nil {
				e := event{end: true, err: err}
				if ce, ok := errors.AsType[coder.CloseError](err); ok {
					e.code, e.reason = int(ce.Code), ce.Reason
				}
				c.events <- e
				conn.CloseNow()
				return
			}
			c.events <- event{text: t == coder.MessageText, payload: p}
		}
	}()
	return c, nil
}

// gwsEvents passes the events of a gws connection on.
type gwsEvents struct {
	gws.BuiltinEventHandler
	c *client
}

func (h *gwsEvents) OnMessage(_ *gws.Conn, m *gws.Message) {
	h.c.events <- event{text: m.Opcode == gws.OpcodeText, payload: bytes.Clone(m.Bytes())}
	m.Close()
}

func (h *gwsEvents) OnPong(_ *gws.Conn, p []byte) { h.c.pongs <- bytes.Clone(p) }

func (h *gwsEvents) OnClose(_ *gws.Conn, err error) {
	e := event{end: true, err: err}
	if ce, ok := errors.AsType[*gws.CloseError](err); ok {
		e.code, e.reason = int(ce.Code), string(ce.Reason)
	}
	h.c.events <- e
}

// partReader returns one part for each Read.
type partReader struct{ parts [][]byte }

func (r *partReader) Read(p []byte) (int, error) {
	if len(r.parts) == 0 {
		return 0, io.EOF
	}
	n := copy(p, r.parts[0])
	if r.parts[0] = r.parts[0][n:]; len(r.parts[0]) == 0 {
		r.parts = r.parts[1:]
	}
	return n, nil
}

func dialGWS(_ context.Context, url string, o options) (*client, error) {
	c := newClient()
	h := header(o)
	if len(o.protocols) > 0 {
		h.Set("Sec-WebSocket-Protocol", strings.Join(o.protocols, ", "))
	}
	opts := &gws.ClientOption{
		Addr:                url,
		TlsConfig:           anyCertificate,
		RequestHeader:       h,
		ReadMaxPayloadSize:  64 << 20,
		WriteMaxPayloadSize: 64 << 20,
	}
	opts.PermessageDeflate = gws.PermessageDeflate{
		Enabled: o.deflate, Threshold: 1, ServerContextTakeover: o.takeover, ClientContextTakeover: o.takeover,
	}
	conn, resp, err := gws.NewClient(&gwsEvents{c: c}, opts)
	if err != nil {
		return nil, refusal(resp, err)
	}
	c.protocol, c.extensions = conn.SubProtocol(), resp.Header.Get("Sec-WebSocket-Extensions")
	op := func(text bool) gws.Opcode {
		if text {
			return gws.OpcodeText
		}
		return gws.OpcodeBinary
	}
	c.send = func(text bool, p []byte) error { return conn.WriteMessage(op(text), p) }
	c.fragments = func(text bool, parts [][]byte) error {
		return conn.WriteFile(op(text), &partReader{append([][]byte(nil), parts...)})
	}
	c.ping = conn.WritePing
	c.close = func(code int, reason string) error { return conn.WriteClose(uint16(code), []byte(reason)) }
	c.drop = func() { conn.NetConn().Close() }
	go conn.ReadLoop()
	return c, nil
}

func dialGobwas(ctx context.Context, url string, o options) (*client, error) {
	status := 0
	d := ws.Dialer{
		Protocols:     o.protocols,
		TLSConfig:     anyCertificate,
		Header:        ws.HandshakeHeaderHTTP(header(o)),
		OnStatusError: func(s int, _ []byte, _ io.Reader) { status = s },
	}
	if o.deflate {
		d.Extensions = append(d.Extensions, wsflate.DefaultParameters.Option())
	}
	conn, br, hs, err := d.Dial(ctx, url)
	if err != nil {
		if status != 0 {
			return nil, &refused{status, err}
		}
		return nil, err
	}
	c := newClient()
	c.protocol = hs.Protocol
	op := func(text bool) ws.OpCode {
		if text {
			return ws.OpText
		}
		return ws.OpBinary
	}
	var mu sync.Mutex // pongs and Closes are answered by the reading goroutine
	write := func(fin bool, op ws.OpCode, p []byte) error {
		mu.Lock()
		defer mu.Unlock()
		return ws.WriteFrame(conn, ws.MaskFrame(ws.NewFrame(op, fin, p)))
	}
	c.send = func(text bool, p []byte) error { return write(true, op(text), p) }
	c.fragments = func(text bool, parts [][]byte) error {
		for i, p := range parts {
			o := op(text)
			if i > 0 {
				o = ws.OpContinuation
			}
			if err := write(i == len(parts)-1, o, p); err != nil {
				return err
			}
		}
		return nil
	}
	c.ping = func(p []byte) error { return write(true, ws.OpPing, p) }
	c.close = func(code int, reason string) error {
		return write(true, ws.OpClose, append(binary.BigEndian.AppendUint16(nil, uint16(code)), reason...))
	}
	c.drop = func() { conn.Close() }
	var src io.Reader = conn
	if br != nil {
		src = br
	}
	go readGobwas(c, conn, src, write)
	return c, nil
}

func readGobwas(c *client, conn net.Conn, src io.Reader, write func(fin bool, op ws.OpCode, p []byte) error) {
	defer conn.Close()
	control := func(h ws.Header, r io.Reader) error {
		p, err := io.ReadAll(r)
		if err != nil {
			return err
		}
		switch h.OpCode {
		case ws.OpPong:
			c.pongs <- p
		case ws.OpPing:
			return write(true, ws.OpPong, p)
		case ws.OpClose:
			code, reason := ws.ParseCloseFrameData(p)
			write(true, ws.OpClose, p)
			return wsutil.ClosedError{Code: code, Reason: reason}
		}
		return nil
	}
	rd := &wsutil.Reader{Source: src, State: ws.StateClientSide, CheckUTF8: true, OnIntermediate: control}
	for {
		h, err := rd.NextFrame()
		var p []byte
		if err == nil {
			if h.OpCode.IsControl() {
				if err = control(h, rd); err == nil {
					continue
				}
			} else {
				p, err = io.ReadAll(rd)
			}
		}
		if err != nil {
			e := event{end: true, err: err}
			if ce, ok := errors.AsType[wsutil.ClosedError](err); ok {
				e.code, e.reason = int(ce.Code), ce.Reason
			}
			c.events <- e
			return
		}
		c.events <- event{text: h.OpCode == ws.OpText, payload: p}
	}
}
