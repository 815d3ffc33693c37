package main

import (
	"bytes"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"

	"wspoll/frame"
	"wspoll/inspect"

	"github.com/gobwas/ws"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// frameOptions are the flags of frame.
type frameOptions struct {
	text, binary, ping, pong string
	close                    int
	reason                   string
	opcode                   int
	mask                     string
	fragment                 []int
	fin                      bool
	rsv1, rsv2, rsv3         bool
	lengthForm               int
	raw, explain             bool
}

func frameCommand() *cobra.Command {
	var o frameOptions
	cmd := &cobra.Command{
		Use:   "frame",
		Short: "Build WebSocket frames and print their bytes",
		Long: `Build the frames of one message and print their bytes, one frame in a line. Legal or not: what
no endpoint may send can be built to see what the other one makes of it.

The examples of RFC 6455 §5.7:
  wspoll frame --text Hello
  wspoll frame --text Hello --mask 37fa213d
  wspoll frame --text Hello --fragment 3
  wspoll frame --ping Hello
  wspoll frame --pong Hello --mask 37fa213d
An unmasked Close with a code that may not be sent, explained:
  wspoll frame --close 1005 | wspoll inspect --hex --from client -`,
		Args: unknownCommand,
		RunE: func(cmd *cobra.Command, _ []string) error { return o.run(cmd.Flags(), cmd.OutOrStdout()) },
	}
	f := cmd.Flags()
	f.SortFlags = false
	f.StringVar(&o.text, "text", "", "a text message")
	f.StringVar(&o.binary, "binary", "", "a binary message: hexadecimal digits, or @FILE")
	f.StringVar(&o.ping, "ping", "", "a ping with this text as its payload")
	f.StringVar(&o.pong, "pong", "", "a pong with this text as its payload")
	f.IntVar(&o.close, "close", 0, "a Close with this code; 0 for one without a code")
	f.StringVar(&o.reason, "reason", "", "the reason of the Close")
	f.IntVar(&o.opcode, "opcode", 0, "opcode of the first frame, 0 to 15 (default: that of the message)")
	f.StringVar(&o.mask, "mask", "", "masking key of each frame: 8 hexadecimal digits, or random (default: no mask, as a server sends)")
	f.IntSliceVar(&o.fragment, "fragment", nil, "payload bytes of each frame; the last size given holds for all that follow: 1,2 is 1, 2, 2, ...")
	f.BoolVar(&o.fin, "fin", true, "FIN of the last frame")
	f.BoolVar(&o.rsv1, "rsv1", false, "set RSV1 of the first frame")
	f.BoolVar(&o.rsv2, "rsv2", false, "set RSV2 of the first frame")
	f.BoolVar(&o.rsv3, "rsv3", false, "set RSV3 of the first frame")
	f.IntVar(&o.lengthForm, "length-form", 0, "bits of the length: 7, 16 or 64 (default: the fewest, as the RFC demands)")
	f.BoolVar(&o.raw, "raw", false, "print the bytes themselves")
	f.BoolVar(&o.explain, "explain", false, `explain the frames, as "wspoll inspect" does`)
	return cmd
}

// message is the opcode and the payload that the flags ask for.
func (o *frameOptions) message(flags *pflag.FlagSet) (op ws.OpCode, payload []byte, err error) {
	var given []string
	for _, name := range []string{"text", "binary", "ping", "pong", "close"} {
		if flags.Changed(name) {
			given = append(given, "--"+name)
		}
	}
	switch {
	case len(given) > 1:
		return 0, nil, fmt.Errorf("%s: one message at a time", strings.Join(given, " and "))
	case len(given) == 0 && !flags.Changed("opcode"):
		return 0, nil, errors.New("frame needs one of --text, --binary, --ping, --pong and --close, or an --opcode; see wspoll frame --help")
	case flags.Changed("reason") && (!flags.Changed("close") || o.close == 0):
		return 0, nil, errors.New("--reason needs a --close with a code: the reason stands behind it")
	case o.close < 0 || o.close > 65535:
		return 0, nil, &badValue{flag: "close", value: strconv.Itoa(o.close), want: "from 0 to 65535"}
	case o.opcode < 0 || o.opcode > 15:
		return 0, nil, &badValue{flag: "opcode", value: strconv.Itoa(o.opcode), want: "from 0 to 15"}
	}
	if len(given) > 0 {
		switch given[0] {
		case "--text":
			op, payload = ws.OpText, []byte(o.text)
		case "--binary":
			op = ws.OpBinary
			payload, err = o.bytes()
		case "--ping":
			op, payload = ws.OpPing, []byte(o.ping)
		case "--pong":
			op, payload = ws.OpPong, []byte(o.pong)
		case "--close":
			op = ws.OpClose
			if o.close != 0 {
				payload = append(binary.BigEndian.AppendUint16(nil, uint16(o.close)), o.reason...)
			}
		}
	}
	if flags.Changed("opcode") {
		op = ws.OpCode(o.opcode)
	}
	return op, payload, err
}

// bytes are those of --binary.
func (o *frameOptions) bytes() ([]byte, error) {
	if name, ok := strings.CutPrefix(o.binary, "@"); ok {
		b, err := os.ReadFile(name)
		if err != nil {
			return nil, fmt.Errorf("--binary: %w", err)
		}
		return b, nil
	}
	b, err := inspect.ReadHex(o.binary)
	if err != nil {
		return nil, &badValue{flag: "binary", value: o.binary, want: "hexadecimal digits, or @ and the name of a file"}
	}
	return b, nil
}

// key makes the masking key of one frame; nil: none.
func (o *frameOptions) key() ([]byte, error) {
	switch o.mask {
	case "":
		return nil, nil
	case "random":
		key := make([]byte, 4)
		rand.Read(key)
		return key, nil
	}
	key, err := inspect.ReadHex(o.mask)
	if err != nil || len(key) != 4 {
		return nil, &badValue{flag: "mask", value: o.mask, want: "8 hexadecimal digits like 37fa213d, or random"}
	}
	return key, nil
}

// cut cuts the payload into those of the frames. There is always one.
func (o *frameOptions) cut(payload []byte) (parts [][]byte, err error) {
	for i := 0; len(o.fragment) > 0 && len(payload) > 0; i++ {
		size := o.fragment[min(i, len(o.fragment)-1)]
		if size < 0 || size == 0 && i >= len(o.fragment)-1 {
			return nil, &badValue{flag: "fragment", value: strconv.Itoa(size), want: "at least 1; only one that is not the last may be 0"}
		}
		size = min(size, len(payload))
		parts = append(parts, payload[:size])
		payload = payload[size:]
	}
	if len(parts) == 0 {
		parts = [][]byte{payload}
	}
	return parts, nil
}

// frames are the bytes of each frame.
func (o *frameOptions) frames(flags *pflag.FlagSet) ([][]byte, error) {
	op, payload, err := o.message(flags)
	if err != nil {
		return nil, err
	}
	parts, err := o.cut(payload)
	if err != nil {
		return nil, err
	}
	var out [][]byte
	for i, part := range parts {
		h := ws.Header{OpCode: op, Fin: i == len(parts)-1 && o.fin, Length: int64(len(part))}
		if i == 0 {
			h.Rsv = ws.Rsv(o.rsv1, o.rsv2, o.rsv3)
		} else {
			h.OpCode = ws.OpContinuation
		}
		key, err := o.key()
		if err != nil {
			return nil, err
		}
		if key != nil {
			h.Masked, h.Mask = true, [4]byte(key)
		}
		b, err := o.header(h)
		if err != nil {
			return nil, err
		}
		start := len(b)
		b = append(b, part...)
		if h.Masked {
			ws.Cipher(b[start:], h.Mask, 0)
		}
		out = append(out, b)
	}
	return out, nil
}

// header is the header of a frame, with its length in the form of --length-form.
func (o *frameOptions) header(h ws.Header) ([]byte, error) {
	b := frame.AppendHeader(nil, h)
	length, size := b[1]&0x80, 0
	switch o.lengthForm {
	case 0:
		return b, nil
	case 7:
		if h.Length > 125 {
			return nil, fmt.Errorf("--length-form 7: a payload of %d bytes does not fit, 125 at the most", h.Length)
		}
		return b, nil
	case 16:
		if h.Length > 65535 {
			return nil, fmt.Errorf("--length-form 16: a payload of %d bytes does not fit, 65535 at the most", h.Length)
		}
		length, size = length|126, 2
	case 64:
		length, size = length|127, 8
	default:
		return nil, &badValue{flag: "length-form", value: strconv.Itoa(o.lengthForm), want: "7, 16 or 64"}
	}
	var wide [8]byte
	binary.BigEndian.PutUint64(wide[:], uint64(h.Length))
	out := append([]byte{b[0], length}, wide[8-size:]...)
	if h.Masked {
		out = append(out, h.Mask[:]...)
	}
	return out, nil
}

func (o *frameOptions) run(flags *pflag.FlagSet, stdout io.Writer) error {
	if o.raw && o.explain {
		return errors.New("--raw and --explain: choose one")
	}
	frames, err := o.frames(flags)
	if err != nil {
		return err
	}
	switch {
	case o.raw:
		_, err = stdout.Write(bytes.Join(frames, nil))
	case o.explain:
		text := inspect.Text{Color: wantsColor(stdout)}
		all := bytes.Join(frames, nil)
		client, server := all, []byte(nil)
		if o.mask == "" {
			client, server = nil, all
		}
		err = inspect.Explain(stdout, inspect.Options{Frames: true}, text, client, server)
	default:
		for _, f := range frames {
			if _, err = fmt.Fprintf(stdout, "% x\n", f); err != nil {
				break
			}
		}
	}
	return failed(err)
}
