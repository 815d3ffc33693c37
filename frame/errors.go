package frame

import (
	"strings"

	"github.com/gobwas/ws"
)

// Error is a fault of the PEER, found in the bytes that it sent. It carries
// what the layers above need: the code for the Close frame that answers it,
// the clause that was broken, and a sentence short enough to be the reason of
// that Close frame.
//
// Every Error is one of the variables below, so errors may be compared with
// == and reporting one never allocates.
type Error struct {
	Code    ws.StatusCode // for the Close frame of §7.1.7: 1002, 1007 or 1009
	Section string        // the clause of RFC 6455, "5.2" for §5.2; of another one, "RFC 7692 §7.2.2"
	Msg     string        // at most 123 bytes, fit for a Close reason (§5.5)
	Err     error         // what gobwas/ws calls the same fault, or nil
}

// Error returns the clause and the message: "RFC 6455 §5.1: …".
func (e *Error) Error() string {
	if strings.HasPrefix(e.Section, "RFC ") {
		return e.Section + ": " + e.Msg
	}
	return "RFC 6455 §" + e.Section + ": " + e.Msg
}

// Unwrap returns the gobwas/ws error for the same fault, or nil.
func (e *Error) Unwrap() error { return e.Err }

// The violations that a Parser finds.
var (
	ErrReservedBits = &Error{
		ws.StatusProtocolError, "5.2",
		"reserved bit set and no extension gives it a meaning",
		ws.ErrProtocolNonZeroRsv,
	}
	ErrRSV1Misplaced = &Error{
		ws.StatusProtocolError, "5.2",
		"RSV1 is for the first frame of a data message (RFC 7692 section 6)",
		ws.ErrProtocolNonZeroRsv,
	}
	ErrReservedOpcode = &Error{
		ws.StatusProtocolError, "5.2", "reserved opcode",
		ws.ErrProtocolOpCodeReserved,
	}
	ErrControlFragmented = &Error{
		ws.StatusProtocolError, "5.5", "fragmented control frame",
		ws.ErrProtocolControlNotFinal,
	}
	ErrControlTooLong = &Error{
		ws.StatusProtocolError, "5.5", "control frame with more than 125 bytes of payload",
		ws.ErrProtocolControlPayloadOverflow,
	}
	ErrContinuationUnexpected = &Error{
		ws.StatusProtocolError, "5.4", "continuation frame and no message to continue",
		ws.ErrProtocolContinuationUnexpected,
	}
	ErrContinuationExpected = &Error{
		ws.StatusProtocolError, "5.4", "new data frame inside a fragmented message",
		ws.ErrProtocolContinuationExpected,
	}
	ErrMaskRequired = &Error{
		ws.StatusProtocolError, "5.1", "frame from a client is not masked",
		ws.ErrProtocolMaskRequired,
	}
	ErrMaskForbidden = &Error{
		ws.StatusProtocolError, "5.1", "frame from a server is masked",
		ws.ErrProtocolMaskUnexpected,
	}
	ErrLengthNotMinimal = &Error{
		ws.StatusProtocolError, "5.2", "payload length not in its shortest form", nil,
	}
	ErrLengthMSB = &Error{
		ws.StatusProtocolError, "5.2", "most significant bit of a 64-bit payload length is set",
		ws.ErrHeaderLengthMSB,
	}
	ErrTooLarge = &Error{
		ws.StatusMessageTooBig, "10.4", "message is larger than the limit", nil,
	}
	ErrTextUTF8 = &Error{
		ws.StatusInvalidFramePayloadData, "8.1", "text message is not UTF-8", nil,
	}
	ErrTextTruncated = &Error{
		ws.StatusInvalidFramePayloadData, "8.1", "text message ends inside a UTF-8 sequence", nil,
	}
)

// ErrInflate is what an Inflater finds.
var ErrInflate = &Error{
	ws.StatusInvalidFramePayloadData, "RFC 7692 §7.2.2",
	"compressed message is not valid DEFLATE data", nil,
}

// The violations that ParseClose finds in the body of a Close frame.
var (
	ErrCloseLength = &Error{
		ws.StatusProtocolError, "5.5.1", "Close frame with a payload of one byte", nil,
	}
	ErrCloseCode = &Error{
		ws.StatusProtocolError, "7.4", "Close frame with a status code that may not be sent", nil,
	}
	ErrCloseReason = &Error{
		ws.StatusInvalidFramePayloadData, "8.1", "reason in a Close frame is not UTF-8",
		ws.ErrProtocolInvalidUTF8,
	}
)

// faults numbers the errors, so that a Parser can remember its own in one
// byte and stays free of pointers. Number 0 is "no error".
var faults = [...]*Error{
	nil,
	ErrReservedBits, ErrRSV1Misplaced, ErrReservedOpcode,
	ErrControlFragmented, ErrControlTooLong,
	ErrContinuationUnexpected, ErrContinuationExpected,
	ErrMaskRequired, ErrMaskForbidden,
	ErrLengthNotMinimal, ErrLengthMSB, ErrTooLarge,
	ErrTextUTF8, ErrTextTruncated,
	ErrCloseLength, ErrCloseCode, ErrCloseReason,
	ErrInflate,
}

// Misuse is OUR fault: an encoder was asked for bytes that no endpoint may
// send. It is a bug in the calling program, never something that a peer can
// cause, so the encoders panic with it.
type Misuse string

// Error returns the text of the constant.
func (m Misuse) Error() string { return "frame: " + string(m) }

// What the encoders panic with.
const (
	MisuseControl Misuse = "control frame that is fragmented or longer than 125 bytes (§5.5)"
	MisuseLength  Misuse = "payload length is negative"
	MisuseCode    Misuse = "close code that may not appear on the wire (§7.4)"
	MisuseNoMask  Misuse = "Rules.Client is set and Rules.Mask is nil (§5.3)"
)
