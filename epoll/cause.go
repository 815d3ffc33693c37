package epoll

// Cause says how a connection ended, as far as TCP and this package know. A
// handler that ends connections for reasons of its own keeps those itself and
// passes CauseLocal.
type Cause uint8

const (
	CauseLocal   Cause = iota // Close or Finish was called
	CauseEOF                  // the peer closed its side
	CauseReset                // the peer or the network reset the connection (ECONNRESET, EPIPE)
	CauseTimeout              // the kernel gave the connection up (ETIMEDOUT)
	CauseRefused              // a dialed address refused (ECONNREFUSED) or cannot be reached
	CauseStalled              // bytes waited to be sent and the peer read none of them for Config.WriteTimeout
	CausePending              // more bytes waited for the peer than Config.MaxPending
	CauseBudget               // the Budget had no room for bytes that had to be kept
	CauseError                // any other error of a system call
	CauseTLS                  // TLS failed: a bad handshake, certificate or record; see TLS.Err
	numCauses
)

var causeNames = [numCauses]string{
	"local", "eof", "reset", "timeout", "refused", "stalled", "pending", "budget", "error", "tls",
}

func (c Cause) String() string { return causeNames[c] }
