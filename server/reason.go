package server

import (
	"wspoll/epoll"
	"wspoll/frame"

	"github.com/gobwas/ws"
)

// Reason is why a connection ended. Every connection that ends has one; they
// are counted in Stats and told in the log at debug level.
type Reason uint8

const (
	ReasonNone       Reason = iota // still open
	ReasonPeerClosed               // the peer sent Close, or ended a plain TCP connection before a request
	ReasonEndpoint                 // the endpoint's code closed it
	ReasonProtocol                 // the peer broke a rule of RFC 6455: Close 1002
	ReasonUTF8                     // text or a Close reason was not UTF-8: Close 1007
	ReasonTooLarge                 // a message above MaxMessage: Close 1009
	ReasonIdle                     // nothing arrived for IdleTimeout: Close 1001
	ReasonDrain                    // the server is going down: Close 1001
	ReasonSlowReader               // more than MaxPending waited for the peer
	ReasonStalled                  // bytes waited and the peer took none for WriteTimeout
	ReasonMemory                   // no room in MemoryBudget: Close 1013 where it can be sent
	ReasonEOF                      // FIN without a Close
	ReasonReset                    // RST, or the network gave the connection up
	ReasonRefused                  // the handshake was refused, with an HTTP status
	ReasonHandshake                // no whole request before HandshakeTimeout
	ReasonFull                     // MaxConnections: 503
	ReasonHTTP                     // plain HTTP, handed to net/http; its end is not seen here
	ReasonPanic                    // the endpoint's code panicked: Close 1011
	ReasonError                    // a system call failed
	ReasonInflate                  // a compressed message was corrupt: Close 1007
	ReasonTLS                      // the TLS handshake failed, or a record was bad: an alert
	NumReasons
)

var reasonNames = [NumReasons]string{
	"open", "peer closed", "endpoint closed", "protocol error", "invalid UTF-8", "message too large", "idle",
	"drain", "slow reader", "write stalled", "memory budget", "eof", "reset", "handshake refused",
	"handshake timeout", "too many connections", "plain http", "endpoint panicked", "system error", "corrupt compression",
	"tls failed",
}

func (r Reason) String() string { return reasonNames[r] }

// reasonOf is the reason for a fault that the parser found.
func reasonOf(e *frame.Error) Reason {
	switch {
	case e == frame.ErrInflate:
		return ReasonInflate
	case e.Code == ws.StatusInvalidFramePayloadData:
		return ReasonUTF8
	case e.Code == ws.StatusMessageTooBig:
		return ReasonTooLarge
	}
	return ReasonProtocol
}

// reasonOfCause is the reason when TCP ended the connection and not we.
func reasonOfCause(c epoll.Cause) Reason {
	switch c {
	case epoll.CauseEOF:
		return ReasonEOF
	case epoll.CauseReset, epoll.CauseTimeout, epoll.CauseRefused:
		return ReasonReset
	case epoll.CauseStalled:
		return ReasonStalled
	case epoll.CausePending:
		return ReasonSlowReader
	case epoll.CauseBudget:
		return ReasonMemory
	case epoll.CauseTLS:
		return ReasonTLS
	case epoll.CauseLocal:
		return ReasonDrain // the loop stopped under it
	}
	return ReasonError
}

// Stats count what a server, or one of its loops, has done since it started.
type Stats struct {
	Connections int                // open now: in the handshake, WebSocket or closing
	WebSockets  int                // of these, WebSocket connections
	HTTP        int                // plain HTTP connections, beside these
	Accepted    uint64             // TCP connections accepted
	Upgraded    uint64             // handshakes answered with 101
	Refused     uint64             // handshakes answered otherwise
	MessagesIn  uint64             // messages whose last byte arrived
	BytesIn     uint64             // their payload
	FramesOut   uint64             // data frames sent, or waiting to be
	BytesOut    uint64             // their payload
	Closed      [NumReasons]uint64 // connections that ended, by Reason
	Buffered    int64              // bytes of the memory budget in use
	Starved     uint64             // times that accepting stopped because descriptors ran out
	Published   uint64             // messages published to topics
	Dropped     [NumDrops]uint64   // messages that did not reach a subscriber, by Drop
}

func (s *Stats) add(o *Stats) {
	s.Connections += o.Connections
	s.WebSockets += o.WebSockets
	s.Accepted += o.Accepted
	s.Upgraded += o.Upgraded
	s.Refused += o.Refused
	s.MessagesIn += o.MessagesIn
	s.BytesIn += o.BytesIn
	s.FramesOut += o.FramesOut
	s.BytesOut += o.BytesOut
	for i, n := range o.Closed {
		s.Closed[i] += n
	}
}
