package epoll

import (
	"runtime"
	"time"

	"golang.org/x/sys/unix"
)

// Handler is a protocol on a loop. Its methods are called on the loop's
// goroutine, one at a time; one that blocks holds up every connection of the
// loop. Within a method the handler may call any method of the Loop, for any
// connection. There is one Handler per loop, so it may keep state without locks.
type Handler interface {
	// Opened: c was accepted by the listener with that tag, or added or
	// dialed with it, and is ready.
	Opened(c Slot, tag uint32)

	// Data: in holds what arrived, in order, behind what an earlier call left.
	// Data returns how many bytes it is done with; the loop keeps the rest and
	// shows it again, in front, when more has arrived. Leaving bytes is for
	// units that cannot be handled in part; it must leave less than MaxCarry.
	// in may be written to, and is valid until Data returns.
	Data(c Slot, in []byte) (done int)

	// EOF: the peer sent FIN; nothing more will arrive. Bytes can still be
	// sent to it. The handler should Close or Finish.
	EOF(c Slot)

	// Drained: bytes that waited to be sent have all gone to the socket.
	Drained(c Slot)

	// Expired: the deadline of SetDeadline has passed.
	Expired(c Slot)

	// Closed: the descriptor is closed and the slot is free when Closed
	// returns. errno is the failed system call's error, or 0. Called exactly
	// once for each Opened; and once, without an Opened, for a Dial that failed.
	// It may run inside a call of Close.
	Closed(c Slot, cause Cause, errno unix.Errno)
}

// Config is what the loops of a Group share.
type Config struct {
	Loops int // number of loops; 0 means 1

	// ReadBuffer is how many bytes one read takes at most; 0 means the smaller
	// of 256 KiB and half of MaxPending. There is one such buffer per loop. What
	// a call costs beside its bytes, acknowledgements and the waking of the peer,
	// is a third of what 64 KiB cost in all, so large messages want large reads.
	ReadBuffer int

	// MaxPending bounds the bytes that wait for one peer to read; a
	// connection above it is closed with CausePending. 0 means 1 MiB.
	MaxPending int

	// Congested is how many waiting bytes stop the reading from their
	// connection until all of them are sent: a peer that does not read its
	// answers gets to ask no more. 0 means the smaller of 64 KiB and a
	// quarter of MaxPending.
	Congested int

	// WriteTimeout closes a connection with CauseStalled when bytes wait to be
	// sent to it and none could be for that long. 0 means 10 s.
	WriteTimeout time.Duration

	// LingerTimeout bounds how long Finish waits for the peer's FIN. 0 means 2 s.
	LingerTimeout time.Duration

	// MaxHandshakes bounds the TLS handshakes that are under way on each loop,
	// each with a goroutine and up to 80 KiB that wait for it; further ones wait
	// for their turn, with what they sent left in the kernel. 0 means 1,024.
	MaxHandshakes int

	// Kernel is what the loops ask for everything; nil means Linux.
	Kernel Kernel

	// Budget bounds the bytes in buffers of connections; nil means no bound.
	Budget *Budget

	// OnAlarm is called, on the loop, when the time of SetAlarm has come.
	OnAlarm func(l *Loop)

	// OnPanic is called, on the loop, when a Handler or a posted function has
	// panicked with v; c is the connection that was served, 0 if none was. The
	// loop then goes on with the others. nil means that the panic ends the program.
	OnPanic func(l *Loop, c Slot, v any)

	turns chan struct{} // of the group's TLS handshakes, to compute
}

func (cfg Config) withDefaults() Config {
	def := func(p *int, v int) {
		if *p == 0 {
			*p = v
		}
	}
	def(&cfg.Loops, 1)
	def(&cfg.MaxHandshakes, 1024)
	def(&cfg.MaxPending, 1<<20)
	// What may wait before reading stops, and the echo of one more read, fit
	// in what may wait at all: a peer that reads slowly is held back first.
	def(&cfg.ReadBuffer, min(256<<10, cfg.MaxPending/2))
	def(&cfg.Congested, min(64<<10, cfg.MaxPending/4))
	if cfg.WriteTimeout == 0 {
		cfg.WriteTimeout = 10 * time.Second
	}
	if cfg.LingerTimeout == 0 {
		cfg.LingerTimeout = 2 * time.Second
	}
	if cfg.Kernel == nil {
		cfg.Kernel = linux{}
	}
	if cfg.Budget == nil {
		cfg.Budget = NewBudget(0)
	}
	if cfg.turns == nil {
		// Half of the processors at the most are the handshakes': a loop that
		// wants to go on is never behind a queue of them.
		cfg.turns = make(chan struct{}, max(1, runtime.GOMAXPROCS(0)/2))
	}
	return cfg
}

// MaxCarry is how many bytes a handler's Data may leave at the most: what it
// may leave after a whole read of an earlier leftover. A connection of which
// more is left is ended with CauseBudget.
func (cfg Config) MaxCarry() int {
	cfg = cfg.withDefaults()
	return cfg.maxCarry()
}

func (cfg *Config) maxCarry() int { return cfg.ReadBuffer + 64<<10 }
