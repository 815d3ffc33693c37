package proxy

import "wspoll/epoll"

// Reason is why a connection of a client ended. Every one that ends has one;
// they are counted in Stats and told in the access log.
type Reason uint8

const (
	ReasonNone            Reason = iota // still open
	ReasonClient                        // the client sent Close, or ended a TCP connection before a request
	ReasonBackend                       // the backend sent Close
	ReasonClientGone                    // the client ended the connection without a Close, or vanished
	ReasonBackendGone                   // the backend did: Close 1012
	ReasonClientFault                   // the client broke a rule of RFC 6455
	ReasonBackendFault                  // the backend did: Close 1011
	ReasonTooLarge                      // a message above MaxMessage: Close 1009
	ReasonIdle                          // a side was silent for IdleTimeout
	ReasonDrain                         // the proxy is going down: Close 1001
	ReasonClientStalled                 // the client took no bytes for WriteTimeout
	ReasonBackendStalled                // the backend did: Close 1013
	ReasonMemory                        // no room in MemoryBudget: Close 1013
	ReasonRefused                       // the request was refused by the proxy
	ReasonBackendRefused                // the backend answered with another status than 101
	ReasonNoBackend                     // no backend could be connected to: 502
	ReasonBackendNoAnswer               // the backend did not answer the handshake in time: 504
	ReasonBackendAnswer                 // its answer was no good one: 502
	ReasonHandshake                     // no whole request before HandshakeTimeout
	ReasonLimit                         // MaxPerAddress or HandshakesPerSecond: 429
	ReasonFull                          // MaxConnections: 503
	ReasonHTTP                          // plain HTTP, handed to net/http; its end is not seen here
	ReasonPanic                         // a bug in the proxy
	ReasonError                         // a system call failed
	ReasonTLS                           // TLS with the client failed: a bad handshake, or record
	NumReasons
)

var reasonNames = [NumReasons]string{
	"open", "client closed", "backend closed", "client gone", "backend gone", "client protocol error",
	"backend protocol error", "message too large", "idle", "drain", "client stalled", "backend stalled", "memory budget",
	"refused", "backend refused", "no backend", "backend did not answer", "bad answer of the backend",
	"handshake timeout", "limit of the address", "too many connections", "plain http", "panic", "system error",
	"tls failed",
}

func (r Reason) String() string { return reasonNames[r] }

// reasonOfCause is the reason when TCP ended the connection of one side.
func reasonOfCause(c epoll.Cause, backend bool) Reason {
	pick := func(client, behind Reason) Reason {
		if backend {
			return behind
		}
		return client
	}
	switch c {
	case epoll.CauseEOF, epoll.CauseReset, epoll.CauseTimeout, epoll.CauseRefused:
		return pick(ReasonClientGone, ReasonBackendGone)
	case epoll.CauseStalled, epoll.CausePending:
		return pick(ReasonClientStalled, ReasonBackendStalled)
	case epoll.CauseBudget:
		return ReasonMemory
	case epoll.CauseTLS:
		return pick(ReasonTLS, ReasonBackendGone)
	case epoll.CauseLocal:
		return ReasonDrain // the loop stopped under it
	}
	return ReasonError
}

// The two directions of Stats.
const (
	Up   = iota // from clients to backends
	Down        // from backends to clients
)

// Stats count what a proxy, or one of its loops, has done since it started.
type Stats struct {
	Connections int    // of clients, open now
	Tunnels     int    // of these, those past the handshake
	HTTP        int    // plain HTTP connections, beside these
	Accepted    uint64 // TCP connections accepted
	Upgraded    uint64 // handshakes that a backend answered with 101
	Refused     uint64 // handshakes refused by the proxy
	Retries     uint64 // backends tried because another could not be connected to

	// Of ModeFrames: what was passed on in each direction. Messages by opcode;
	// Payload are the bytes in them.
	Messages [2][16]uint64
	Payload  [2][16]uint64
	Bytes    [2]uint64 // of all modes, headers included
	Spliced  uint64    // of these, bytes that did not come into memory

	Closed   [NumReasons]uint64 // connections of clients that ended, by Reason
	Buffered int64              // bytes of the memory budget in use
	Starved  uint64             // times that accepting stopped because descriptors ran out
}

func (s *Stats) add(o *Stats) {
	s.Tunnels += o.Tunnels
	s.Upgraded += o.Upgraded
	s.Refused += o.Refused
	s.Retries += o.Retries
	s.Spliced += o.Spliced
	for d := range s.Bytes {
		s.Bytes[d] += o.Bytes[d]
		for op := range s.Messages[d] {
			s.Messages[d][op] += o.Messages[d][op]
			s.Payload[d][op] += o.Payload[d][op]
		}
	}
	for i, n := range o.Closed {
		s.Closed[i] += n
	}
}
