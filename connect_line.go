package main

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"unicode/utf8"

	"wspoll/frame"
	"wspoll/inspect"

	"github.com/gobwas/ws"
)

// connectHelp is what /help shows.
const connectHelp = `/ping [TEXT]             send a ping; the server answers with a pong of the same text
/pong [TEXT]             send a pong that nobody asked for
/hex DIGITS              send a binary message: /hex 00 ff 10
/close [CODE [REASON]]   begin the closing handshake; with 1000 if there is no code
//TEXT                   send a line that begins with /
/help                    this`

// order is what a line asks for.
type order struct {
	op      ws.OpCode // 0: show the help
	payload []byte
	code    ws.StatusCode // of a Close
	reason  string
}

// parseOrder reads a line. Without commands every line is a text message.
func parseOrder(line string, commands bool) (order, error) {
	switch {
	case !commands || !strings.HasPrefix(line, "/"):
		return textOrder(line)
	case strings.HasPrefix(line, "//"):
		return textOrder(line[1:])
	}
	name, rest, _ := strings.Cut(line, " ")
	switch name {
	case "/help":
		return order{}, nil
	case "/ping", "/pong":
		op := ws.OpPing
		if name == "/pong" {
			op = ws.OpPong
		}
		if len(rest) > ws.MaxControlFramePayloadSize {
			return order{}, fmt.Errorf("%s: %d bytes, and 125 are the most in a control frame (RFC 6455 §5.5)", name, len(rest))
		}
		return order{op: op, payload: []byte(rest)}, nil
	case "/hex":
		b, err := inspect.ReadHex(rest)
		if err != nil || strings.TrimSpace(rest) == "" {
			return order{}, fmt.Errorf("/hex %s: must be hexadecimal digits, like 00 ff 10", rest)
		}
		return order{op: ws.OpBinary, payload: b}, nil
	case "/close":
		return closeOrder(rest)
	}
	return order{}, fmt.Errorf("%s is not a command; /help lists them, and //%s sends the line", shown(name), shown(strings.TrimPrefix(name, "/")))
}

func textOrder(line string) (order, error) {
	if !utf8.ValidString(line) {
		return order{}, errors.New("not UTF-8, as a text message must be (RFC 6455 §5.6)")
	}
	return order{op: ws.OpText, payload: []byte(line)}, nil
}

func closeOrder(rest string) (order, error) {
	digits, reason, _ := strings.Cut(strings.TrimSpace(rest), " ")
	if digits == "" {
		return order{op: ws.OpClose, code: ws.StatusNormalClosure}, nil
	}
	n, err := strconv.ParseUint(digits, 10, 16)
	switch code := ws.StatusCode(n); {
	case err != nil || !frame.ValidCloseCode(code):
		return order{}, fmt.Errorf("/close %s: not a code that may be sent: 1000 to 1003, 1007 to 1014, 3000 to 4999 (RFC 6455 §7.4)", shown(digits))
	case len(reason) > ws.MaxControlFramePayloadSize-2:
		return order{}, fmt.Errorf("/close: a reason of %d bytes, and 123 are the most (RFC 6455 §5.5)", len(reason))
	case !utf8.ValidString(reason):
		return order{}, errors.New("/close: the reason is not UTF-8 (RFC 6455 §5.5.1)")
	default:
		return order{op: ws.OpClose, code: code, reason: reason}, nil
	}
}
