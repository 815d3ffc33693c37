package epoll

// Slot is the place of a connection in its loop's tables, from Opened to
// Closed; afterwards the loop gives it to another connection. Slot 0 is never
// used. Only code on the loop's goroutine may use a Slot; others keep an ID.
type Slot uint32

// ID names one connection of a loop for good: the generation of the slot in
// the upper 32 bits, the slot in the lower. An ID of a connection that is gone
// never names another one. It is also the 64 bits that the kernel gives back
// with each event, so that an event which was queued for a closed connection
// is recognised when its slot was reused within the same batch.
type ID uint64

func (id ID) slot() Slot  { return Slot(id) }
func (id ID) gen() uint32 { return uint32(id >> 32) }

// slot is all that a loop keeps of a connection for which no bytes wait. It
// holds no pointers: the garbage collector never looks at it, and an idle
// connection is this and the handler's own state, nothing else. What few
// connections need is in their extra.
type slot struct {
	gen   uint32 // generation; counts up when the slot is freed
	fd    int32  // descriptor; -1 when the slot is free
	flags uint16
	watch uint8 // epoll events that the kernel was last told to watch
	cause Cause // why a finishing connection finishes

	// The timer wheel: the connection is linked into a bucket. prev is 0 when
	// it is not, and in the first of a bucket the bucket's number and headBit.
	next, prev Slot

	// The tick at which the handler's Expired is due; 0: never. With flagExtra
	// it is the index of the connection's extra, and the tick is in that.
	deadline uint32
}

// What a slot is doing, beside being open.
const (
	flagConnecting uint16 = 1 << iota // a dialed socket whose connect is under way
	flagPaused                        // the handler asked for no more data
	flagCongested                     // so much waits to be sent that reading stopped
	flagFinishing                     // Finish was called: no more data to the handler
	flagLinger                        // after the last byte, wait for the peer's FIN
	flagShut                          // FIN was sent
	flagEOF                           // FIN was received
	flagResumed                       // in the list of connections whose carry is due again
	flagEnding                        // the handler is being told Closed; nothing can be done with it any more
	flagKept                          // the handler keeps it open after the peer's FIN
	flagUnwatched                     // taken from the poller while paused, see hungUp
	flagTapped                        // somebody sees its bytes, see Tap
	flagExtra                         // it has an extra
	flagTLS                           // it has a TLS
	flagShaking                       // whose handshake is under way
)

func (s *slot) is(f uint16) bool { return s.flags&f != 0 }
