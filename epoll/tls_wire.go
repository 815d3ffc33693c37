package epoll

import (
	"errors"
	"net"
	"time"
)

// errDry is what the wire of a connection on the loop says when all that has
// arrived is read. It is a temporary net.Error, so that crypto/tls keeps what it
// has of a record and goes on when Read is called again.
type errDry struct{}

func (errDry) Error() string   { return "nothing more has arrived" }
func (errDry) Timeout() bool   { return true }
func (errDry) Temporary() bool { return true }

// wire is a TLS as the net.Conn that its tls.Conn reads and writes. Which of
// three it is, a goroutine's that may wait, the loop's, or that of who took the
// connection over, its fields say.
type wire TLS

func (w *wire) Read(p []byte) (int, error) {
	switch {
	case w.shake != nil:
		return w.wait(p)
	case w.raw != nil && len(w.in) == 0:
		return w.raw.Read(p)
	case len(w.in) == 0:
		return 0, errDry{}
	}
	n := copy(p, w.in)
	if w.in = w.in[n:]; len(w.in) == 0 {
		w.in = nil
	}
	return n, nil
}

// wait is Read in the goroutine of the handshake. While it waits others compute.
func (w *wire) wait(p []byte) (int, error) {
	h := w.shake
	h.mu.Lock()
	defer h.mu.Unlock()
	if len(w.in) == 0 && !h.ended {
		turns := w.loop.cfg.turns
		<-turns
		for len(w.in) == 0 && !h.ended {
			h.arrived.Wait()
		}
		h.mu.Unlock()
		turns <- struct{}{}
		h.mu.Lock()
	}
	if h.ended {
		return 0, net.ErrClosed
	}
	n := copy(p, w.in)
	if w.in = w.in[n:]; len(w.in) == 0 && h.full {
		h.full = false
		w.post(func(c Slot, s *slot) { w.loop.rewatch(c, s) })
	}
	return n, nil
}

func (w *wire) Write(p []byte) (int, error) {
	switch {
	case w.shake != nil:
		b := append([]byte(nil), p...)
		w.post(func(c Slot, s *slot) { w.loop.put(c, s, b, nil) })
	case w.raw != nil:
		return w.raw.Write(p)
	default:
		w.loop.sealed = append(w.loop.sealed, p...)
	}
	return len(p), nil
}

// post runs f on the loop, if the connection is there by then.
func (w *wire) post(f func(c Slot, s *slot)) {
	w.loop.Post(func() {
		if c, s := w.loop.find(w.id); s != nil {
			f(c, s)
		}
	})
}

func (w *wire) Close() error {
	if w.raw != nil {
		return w.raw.Close()
	}
	return nil // the descriptor is the loop's
}

func (w *wire) LocalAddr() net.Addr {
	if w.raw != nil {
		return w.raw.LocalAddr()
	}
	return nil
}

func (w *wire) RemoteAddr() net.Addr {
	if w.raw != nil {
		return w.raw.RemoteAddr()
	}
	return nil
}

// The deadlines of a connection on the loop are the loop's.

func (w *wire) SetDeadline(t time.Time) error {
	return errors.Join(w.SetReadDeadline(t), w.SetWriteDeadline(t))
}

func (w *wire) SetReadDeadline(t time.Time) error {
	if w.raw != nil {
		return w.raw.SetReadDeadline(t)
	}
	return nil
}

func (w *wire) SetWriteDeadline(t time.Time) error {
	if w.raw != nil {
		return w.raw.SetWriteDeadline(t)
	}
	return nil
}
