package client

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"syscall"
	"time"

	"wspoll/frame"
	"wspoll/handshake"
)

const (
	// MaxHead is the longest answer to the handshake, in bytes, interim answers included.
	MaxHead = 32 << 10
	// MaxBody is how much is kept of the body of an answer that refuses.
	MaxBody = 4 << 10

	bufferSize = 64 << 10 // for reading; MaxHead fits, and frames behind it
	bodyTime   = 2 * time.Second
)

// DefaultTimeout is that of Options.
const DefaultTimeout = 10 * time.Second

// Options say how to connect. The zero value is good.
type Options struct {
	Host      string   // Host header; empty means that of the URL
	Origin    string   // Origin header; empty means none
	Protocols []string // subprotocols to offer, the preferred one first
	Header    []byte   // further header lines, each ended by CRLF
	Compress  bool     // offer permessage-deflate; what we send is not compressed either way, which is legal

	// MaxMessage is the largest message to take, in bytes, as it comes and inflated; 0 means no limit. The server is
	// told with 1009.
	MaxMessage uint64

	// Timeout bounds the connect with TLS and handshake, the wait for an answer to our Close, and the time in which
	// 64 KiB must have been written. 0 means DefaultTimeout.
	Timeout time.Duration

	// Tap sees all bytes, without TLS, as they are written and have been read. It is called by several goroutines,
	// never by two at a time, and keeps nothing of b.
	Tap func(sent bool, b []byte)
}

// RefusedError is an answer that is good HTTP and not a 101.
type RefusedError struct {
	Status   int
	Reason   string // of the status line; may be empty
	Location string // where another answer may be found
	Body     []byte // its first MaxBody bytes, as far as they came
}

// Error returns the status line.
func (e *RefusedError) Error() string {
	return fmt.Sprintf("the server refused the upgrade with %d %s", e.Status, e.Reason)
}

// Dial connects to t and does the opening handshake (RFC 6455 §4.1). ctx is for that alone. The errors are a
// *RefusedError, a *handshake.AnswerError for an answer that breaks a rule, a *TLSError, or of the network.
func Dial(ctx context.Context, t *Target, o Options) (*Conn, error) {
	if o.Timeout == 0 {
		o.Timeout = DefaultTimeout
	}
	limited, cancel := context.WithTimeout(ctx, o.Timeout)
	defer cancel()
	conn, err := t.Connect(limited)
	if err != nil {
		return nil, late(ctx, err, "connection", o.Timeout)
	}
	c := &Conn{
		conn: conn, o: o, buf: make([]byte, bufferSize), wrote: make(chan struct{}),
		rules: frame.Rules{Client: true, MaxMessage: o.MaxMessage, Mask: newMask},
	}
	c.change.L = &c.mu
	stop := context.AfterFunc(limited, func() { conn.SetDeadline(time.Unix(1, 0)) })
	err = c.handshake(t)
	if !stop() && err == nil {
		err = context.Cause(limited)
	}
	if err != nil {
		conn.Close()
		return nil, late(ctx, err, "answer to the handshake", o.Timeout)
	}
	conn.SetDeadline(time.Time{})
	go c.write()
	return c, nil
}

// late says of an error what it is when it comes from our own limit of time.
func late(ctx context.Context, err error, what string, limit time.Duration) error {
	var n net.Error
	switch {
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, os.ErrDeadlineExceeded), errors.As(err, &n) && n.Timeout():
		return fmt.Errorf("no %s within %v: %w", what, limit, os.ErrDeadlineExceeded)
	}
	return err
}

// newMask makes a masking key that cannot be predicted (§10.3).
func newMask() (k [4]byte) {
	rand.Read(k[:])
	return k
}

// handshake asks, and checks the answer. What comes behind it stays in c.in.
func (c *Conn) handshake(t *Target) error {
	var nonce [16]byte
	rand.Read(nonce[:])
	hello := handshake.Hello{
		Host: t.Host, Target: t.Path, Key: handshake.AppendKey(nil, nonce),
		Origin: c.o.Origin, Protocols: c.o.Protocols, Header: c.o.Header,
	}
	if c.o.Host != "" {
		hello.Host = c.o.Host
	}
	if c.o.Compress {
		hello.Extensions = string(handshake.AppendDeflateOffers(nil, handshake.DeflateOffer{ClientBits: 15}))
	}
	request := handshake.AppendRequest(nil, &hello)
	c.tap(true, request)
	if _, err := c.conn.Write(request); err != nil {
		return err
	}
	var r handshake.Response
	limits := handshake.Limits{Head: MaxHead}
	for have, begin := 0, 0; ; {
		n, err := handshake.ParseResponse(c.buf[begin:have], &limits, &r)
		switch {
		case err != nil:
			return err
		case n > 0 && r.Status < 200 && r.Status != 101:
			begin += n // RFC 9110 §15.2: interim answers may come before the one that counts
			if begin > MaxHead {
				return &handshake.AnswerError{Msg: "interim answers without an end", Section: "RFC 6455 §10.4"}
			}
			continue
		case n > 0 && r.Status != 101:
			return c.refused(&r, c.buf[begin:have])
		case n > 0:
			if err := r.Check(&hello); err != nil {
				return err
			}
			c.Protocol, c.Extensions = string(r.Protocol), string(r.Extensions)
			c.agree(r.Deflate)
			c.in = c.buf[begin+n : have]
			return nil
		}
		m, err := c.conn.Read(c.buf[have:])
		c.tap(false, c.buf[have:have+m])
		have += m
		switch {
		case m > 0:
		case errors.Is(err, io.EOF):
			return errNoAnswer
		case errors.Is(err, syscall.ECONNRESET):
			return fmt.Errorf("%w (%w)", errNoAnswer, syscall.ECONNRESET)
		case err != nil:
			return err
		}
	}
}

var errNoAnswer = errors.New("the server ended TCP without a whole answer to the handshake")

// refused reads what there is of the body. r and have are the answer's head, and the bytes from its beginning on.
func (c *Conn) refused(r *handshake.Response, have []byte) error {
	e := &RefusedError{Status: r.Status, Reason: string(r.Reason)}
	if v, n := r.Get("Location"); n > 0 {
		e.Location = string(v)
	}
	c.conn.SetReadDeadline(time.Now().Add(min(bodyTime, c.o.Timeout)))
	rest := io.LimitReader(tapped{c}, 4*MaxBody) // chunks have sizes between them
	answer, err := http.ReadResponse(bufio.NewReader(io.MultiReader(bytes.NewReader(bytes.Clone(have)), rest)), nil)
	if err == nil {
		e.Body, _ = io.ReadAll(io.LimitReader(answer.Body, MaxBody)) // what came of it
	}
	return e
}

// tapped reads the connection and lets the tap see it.
type tapped struct{ c *Conn }

func (t tapped) Read(b []byte) (int, error) {
	n, err := t.c.conn.Read(b)
	t.c.tap(false, b[:n])
	return n, err
}

// tap shows bytes to Options.Tap.
func (c *Conn) tap(sent bool, b []byte) {
	if c.o.Tap != nil && len(b) > 0 {
		c.tapping.Lock()
		defer c.tapping.Unlock()
		c.o.Tap(sent, b)
	}
}
