package frame

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"unicode"

	"github.com/gobwas/ws"
)

func TestEveryErrorFitsIntoTheCloseFrameThatAnswersIt(t *testing.T) {
	seen := map[string]bool{}
	for _, e := range faults[1:] {
		if !ValidCloseCode(e.Code) {
			t.Errorf("%v: code %d", e, e.Code)
		}
		if e.Msg == "" || cutReason(e.Msg) != e.Msg {
			t.Errorf("%v: the message does not fit", e)
		}
		if rfc := strings.HasPrefix(e.Section, "RFC "); e.Section == "" || !rfc && !unicode.IsDigit(rune(e.Section[0])) {
			t.Errorf("%v: section %q", e, e.Section)
		}
		if seen[e.Msg] {
			t.Errorf("%v: message used twice", e)
		}
		seen[e.Msg] = true
	}
}

func TestErrorsHaveTheCodeAndSectionOfTheRFC(t *testing.T) {
	for _, test := range []struct {
		err     *Error
		code    ws.StatusCode
		section string
		cause   error
	}{
		{ErrReservedBits, 1002, "5.2", ws.ErrProtocolNonZeroRsv},
		{ErrRSV1Misplaced, 1002, "5.2", ws.ErrProtocolNonZeroRsv},
		{ErrReservedOpcode, 1002, "5.2", ws.ErrProtocolOpCodeReserved},
		{ErrControlFragmented, 1002, "5.5", ws.ErrProtocolControlNotFinal},
		{ErrControlTooLong, 1002, "5.5", ws.ErrProtocolControlPayloadOverflow},
		{ErrContinuationUnexpected, 1002, "5.4", ws.ErrProtocolContinuationUnexpected},
		{ErrContinuationExpected, 1002, "5.4", ws.ErrProtocolContinuationExpected},
		{ErrMaskRequired, 1002, "5.1", ws.ErrProtocolMaskRequired},
		{ErrMaskForbidden, 1002, "5.1", ws.ErrProtocolMaskUnexpected},
		{ErrLengthNotMinimal, 1002, "5.2", nil},
		{ErrLengthMSB, 1002, "5.2", ws.ErrHeaderLengthMSB},
		{ErrTooLarge, 1009, "10.4", nil},
		{ErrTextUTF8, 1007, "8.1", nil},
		{ErrTextTruncated, 1007, "8.1", nil},
		{ErrCloseLength, 1002, "5.5.1", nil},
		{ErrCloseCode, 1002, "7.4", nil},
		{ErrCloseReason, 1007, "8.1", ws.ErrProtocolInvalidUTF8},
		{ErrInflate, 1007, "RFC 7692 §7.2.2", nil},
	} {
		if test.err.Code != test.code || test.err.Section != test.section {
			t.Errorf("%v: %d §%s", test.err, test.err.Code, test.err.Section)
		}
		if errors.Unwrap(test.err) != test.cause {
			t.Errorf("%v wraps %v, want %v", test.err, test.err.Err, test.cause)
		}
	}
}

func TestAnErrorNamesTheRFCThatIsBroken(t *testing.T) {
	for err, want := range map[*Error]string{
		ErrTextUTF8: "RFC 6455 §8.1: text message is not UTF-8",
		ErrInflate:  "RFC 7692 §7.2.2: compressed message is not valid DEFLATE data",
	} {
		if err.Error() != want {
			t.Errorf("%q, want %q", err.Error(), want)
		}
	}
}

func ExampleError() {
	var p Parser
	var piece Piece
	_, err := p.Next(&Rules{}, []byte{0x81, 0x05, 'H', 'e', 'l', 'l', 'o'}, &piece)
	fmt.Println(err)
	var e *Error
	if errors.As(err, &e) {
		fmt.Println(e.Code, e.Section)
	}
	fmt.Println(errors.Is(err, ws.ErrProtocolMaskRequired))
	// Output:
	// RFC 6455 §5.1: frame from a client is not masked
	// 1002 5.1
	// true
}
