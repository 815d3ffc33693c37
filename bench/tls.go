package bench

import (
	"bytes"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"syscall"
	"time"

	"wspoll/epoll"

	"golang.org/x/sys/unix"
)

// wss: the TLS handshake is done on a goroutine of its own, in the ordinary
// way; then the connection moves to the loop, and its crypto/tls with it: from
// there on tls.Conn reads what the loop has read, and gets a temporary error
// when that is used up, after which it can be asked again.

// tlsLink is the crypto/tls of one connection.
type tlsLink struct {
	conn *tls.Conn
	pipe *loopPipe
	kept []byte // decrypted bytes that the handler left
}

// loopPipe is the net.Conn under a tls.Conn: first the socket, then the loop.
type loopPipe struct {
	net.Conn // until it moves; nil afterwards
	loop     *epoll.Loop
	slot     epoll.Slot
	in       []byte // encrypted bytes that tls.Conn has not read
}

// errDry is what a tls.Conn gets when the loop has no more bytes for it.
type errDry struct{}

func (errDry) Error() string   { return "no more bytes yet" }
func (errDry) Timeout() bool   { return true }
func (errDry) Temporary() bool { return true }

func (p *loopPipe) Read(b []byte) (int, error) {
	if p.Conn != nil {
		return p.Conn.Read(b)
	}
	if len(p.in) == 0 {
		return 0, errDry{}
	}
	n := copy(b, p.in)
	p.in = p.in[n:]
	return n, nil
}

func (p *loopPipe) Write(b []byte) (int, error) {
	if p.Conn != nil {
		return p.Conn.Write(b)
	}
	p.loop.Write(p.slot, b)
	return len(b), nil
}

// SetWriteDeadline is called by tls.Conn when it closes; the loop has its own.
func (p *loopPipe) SetWriteDeadline(t time.Time) error {
	if p.Conn != nil {
		return p.Conn.SetWriteDeadline(t)
	}
	return nil
}

// dialTLS connects to a wss target. cfg.Opening bounds how many goroutines do.
func (c *Client) dialTLS(target int) {
	t := &c.cfg.Targets[target]
	d := net.Dialer{Timeout: c.cfg.Timeout}
	if local := c.source(t.Addr); local != nil {
		d.LocalAddr = local
	}
	full := c.local
	go func() {
		began := time.Now()
		fd, link, connected, err := shakeTLS(&d, t, c.cfg.Timeout)
		posted := c.loop.Post(func() {
			if err != nil {
				if errors.Is(err, unix.EADDRNOTAVAIL) && c.nextSource(t.Addr, full) {
					c.dialTLS(target)
					return
				}
				c.waiting--
				kind, detail := ofTLS(err, connected > 0)
				c.errs.add(kind, detail, 1)
				c.dialMore()
				return
			}
			c.adopt(fd, target, link, c.loop.Clock()-int64(time.Since(began))+int64(connected), int64(connected))
		})
		if !posted && err == nil {
			unix.Close(fd)
		}
	}()
}

// ofTLS sorts an error of shakeTLS; connected tells whether TCP stood.
func ofTLS(err error, connected bool) (kind, detail string) {
	var timeout net.Error
	switch kind, detail = ofErrno(err); {
	case kind != KindOther:
		return kind, detail
	case errors.As(err, &timeout) && timeout.Timeout():
		if connected {
			return KindTimeout, "TLS handshake"
		}
		return KindTimeout, "connect"
	case errors.Is(err, io.EOF):
		return KindEOF, "FIN in the TLS handshake"
	case connected:
		return KindTLS, err.Error()
	}
	return kind, detail
}

// shakeTLS connects and does the TLS handshake. connected is how long the
// connect took, 0 if it failed.
func shakeTLS(d *net.Dialer, t *Target, timeout time.Duration) (fd int, link *tlsLink, connected time.Duration, err error) {
	began := time.Now()
	conn, err := d.Dial("tcp", t.Addr.String())
	if err != nil {
		return -1, nil, 0, err
	}
	defer conn.Close() // the loop gets a descriptor of its own
	connected = time.Since(began)
	conn.SetDeadline(began.Add(timeout))
	pipe := &loopPipe{Conn: conn}
	link = &tlsLink{conn: tls.Client(pipe, t.TLS), pipe: pipe}
	if err := link.conn.Handshake(); err != nil {
		return -1, nil, connected, err
	}
	raw, err := conn.(syscall.Conn).SyscallConn()
	if err != nil {
		return -1, nil, connected, err
	}
	if e := raw.Control(func(s uintptr) { fd, err = unix.FcntlInt(s, unix.F_DUPFD_CLOEXEC, 0) }); e != nil {
		err = e
	}
	pipe.Conn = nil
	return fd, link, connected, err
}

// adopt puts a connection on the loop whose TLS handshake is done. The upgrade
// begins now; the TLS handshake counts as part of the connect.
func (c *Client) adopt(fd, target int, link *tlsLink, tcpUp, connected int64) {
	c.pending = &pendingTLS{target: uint8(target), link: link, began: tcpUp - connected}
	err := c.loop.Add(fd, 0, nil)
	c.pending = nil
	if err != nil {
		c.waiting--
		kind, detail := ofErrno(err)
		c.errs.add(kind, detail, 1)
		c.dialMore()
	}
}

// pendingTLS is what Opened must know of a connection that adopt adds.
type pendingTLS struct {
	target uint8
	link   *tlsLink
	began  int64
}

// decrypt feeds what arrived to crypto/tls and what comes out to plain.
func (c *Client) decrypt(s epoll.Slot, k *conn, in []byte) int {
	link := c.links[s]
	link.pipe.in = in
	id := c.loop.ID(s)
	for {
		n := len(link.kept)
		if c.clear == nil {
			c.clear = make([]byte, 64<<10) // a record has at most 16 KiB
		}
		if len(c.clear) < n+32<<10 {
			c.clear = make([]byte, 2*n+32<<10)
		}
		copy(c.clear, link.kept)
		m, err := link.conn.Read(c.clear[n:])
		if m > 0 {
			b := c.clear[:n+m]
			done := c.plain(s, k, b)
			if c.loop.ID(s) != id {
				return len(in)
			}
			if link.kept = nil; done < len(b) {
				link.kept = bytes.Clone(b[done:])
			}
		}
		var dry errDry
		switch {
		case errors.As(err, &dry):
			return len(in)
		case errors.Is(err, io.EOF):
			c.EOF(s)
			return len(in)
		case err != nil:
			c.lose(s, KindTLS, err.Error())
			return len(in)
		}
	}
}
