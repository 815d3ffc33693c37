package bench

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strconv"

	"wspoll/epoll"
	"wspoll/frame"
	"wspoll/handshake"

	"github.com/gobwas/ws"
	"golang.org/x/sys/unix"
)

// The kinds of failure, as they stand in ErrorCount.Kind.
const (
	KindRefused     = "refused"         // nobody listens at the address, or it cannot be reached
	KindTimeout     = "timed out"       // connect, upgrade, or a reply took longer than Config.Timeout
	KindUpgrade     = "upgrade refused" // an HTTP status other than 101
	KindHandshake   = "bad handshake"   // a 101 that breaks RFC 6455 §4.1, or no HTTP at all
	KindReset       = "reset"           // RST in the middle
	KindEOF         = "ended"           // FIN without a Close
	KindClosed      = "closed"          // the server sent Close
	KindProtocol    = "protocol"        // the server broke a rule of RFC 6455
	KindWrong       = "wrong echo"      // the reply is not what was sent
	KindLost        = "lost"            // a reply never came though later ones did
	KindDuplicate   = "duplicated"      // a reply came twice
	KindReordered   = "reordered"       // replies came in another order
	KindDescriptors = "descriptors"     // this process may open no more files
	KindPorts       = "ports"           // no source port is left
	KindTLS         = "tls"             // the TLS handshake failed
	KindOther       = "other"
)

type failureKey struct{ kind, detail string }

// failures count what went wrong, by kind and detail.
type failures struct {
	n     map[failureKey]uint64
	total uint64
}

// maxDetails bounds the details that are told apart: a server that names every
// connection in its Close reason does not fill our memory.
const maxDetails = 64

func (f *failures) add(kind, detail string, n uint64) {
	if f.n == nil {
		f.n = map[failureKey]uint64{}
	}
	k := failureKey{kind, detail}
	if _, ok := f.n[k]; !ok && len(f.n) >= maxDetails {
		k.detail = "others"
	}
	f.n[k] += n
	f.total += n
}

// list is what was counted, the most frequent first.
func (f *failures) list() []ErrorCount {
	var all []ErrorCount
	for k, n := range f.n {
		all = append(all, ErrorCount{Kind: k.kind, Detail: k.detail, Count: n})
	}
	sortErrors(all)
	return all
}

// sortErrors puts the most frequent first.
func sortErrors(all []ErrorCount) {
	slices.SortFunc(all, func(a, b ErrorCount) int {
		return cmp.Or(cmp.Compare(b.Count, a.Count), cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.Detail, b.Detail))
	})
}

// ofError sorts an error of the handshake or of the parser.
func ofError(err error) (kind, detail string) {
	var answer *handshake.AnswerError
	var fault *frame.Error
	switch {
	case errors.As(err, &answer) && answer.Refused():
		return KindUpgrade, fmt.Sprintf("status %d", answer.Status)
	case errors.As(err, &answer):
		return KindHandshake, answer.Error()
	case errors.Is(err, errNotAgreed):
		return KindUpgrade, errNotAgreed.Error()
	case errors.As(err, &fault):
		return KindProtocol, fault.Error()
	}
	return ofErrno(err)
}

// ofErrno sorts an error of a system call.
func ofErrno(err error) (kind, detail string) {
	switch {
	case errors.Is(err, unix.EMFILE), errors.Is(err, unix.ENFILE):
		return KindDescriptors, "this process may open no more files: raise ulimit -n, or split the load with --processes"
	case errors.Is(err, unix.EADDRNOTAVAIL), errors.Is(err, unix.EADDRINUSE):
		return KindPorts, "no source port is left: give more source addresses with --local-addr"
	case errors.Is(err, unix.ECONNREFUSED), errors.Is(err, unix.EHOSTUNREACH), errors.Is(err, unix.ENETUNREACH):
		return KindRefused, unwrapped(err)
	case errors.Is(err, unix.ECONNRESET), errors.Is(err, unix.EPIPE):
		return KindReset, ""
	case errors.Is(err, unix.ETIMEDOUT):
		return KindTimeout, "connect"
	}
	return KindOther, err.Error()
}

// closeText is a received Close in words.
func closeText(code ws.StatusCode, reason []byte) string {
	if len(reason) == 0 {
		return strconv.Itoa(int(code))
	}
	return fmt.Sprintf("%d %q", code, reason)
}

func unwrapped(err error) string {
	var e unix.Errno
	if errors.As(err, &e) {
		return e.Error()
	}
	return err.Error()
}

// ofCause sorts the end of a connection that TCP told, or t, its TLS if it has one.
func ofCause(c epoll.Cause, e unix.Errno, t *epoll.TLS) (kind, detail string) {
	switch c {
	case epoll.CauseTLS:
		return KindTLS, t.Err().Error()
	case epoll.CauseTimeout:
		if t != nil && t.Begun() {
			return KindTimeout, "TLS handshake"
		}
		return KindTimeout, "connect"
	case epoll.CauseEOF:
		return KindEOF, ""
	case epoll.CauseStalled:
		return KindTimeout, "the server does not read"
	}
	if e != 0 {
		return ofErrno(e)
	}
	return KindOther, c.String()
}
