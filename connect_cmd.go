package main

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"
	"unicode/utf8"

	"wspoll/client"
	"wspoll/handshake"

	"github.com/spf13/cobra"
	"golang.org/x/term"
)

// connectOptions are the flags of connect.
type connectOptions struct {
	headers      []string
	origin       string
	subprotocols []string
	insecure     bool
	compress     bool
	timeout      time.Duration
	maxMessage   byteSize

	replies  int
	wait     time.Duration
	follow   bool
	commands bool

	json  bool
	raw   bool
	trace string
	quiet bool

	commandsGiven bool
	stdin         io.Reader
}

func connectCommand() *cobra.Command {
	o := connectOptions{maxMessage: 16 << 20}
	cmd := &cobra.Command{
		Use:   "connect URL [MESSAGE...]",
		Short: "Talk to a WebSocket server, at a terminal or in a pipe",
		Long: `Talk to a WebSocket server. What it sends goes to stdout, a line for each message and control frame:

  <- text Hello            control characters escaped
  <- binary 00 ff 10
  <- close 1000 the reason

On a terminal each line typed is sent as a text message; a line that begins with / is a command (/help
lists them), and // sends one that begins with /. Ctrl-C and Ctrl-D send a Close.

If stdin is no terminal its lines are sent as they are. At its end wspoll waits until as many messages
have come as it sent, or none came for --wait; then it closes. The same with MESSAGE arguments, which
are sent in place of stdin. --replies says how many messages must come, --follow stays.

Exit status 0: the closing handshake was ours, or the server's with 1000, 1001 or no code. 1: refused,
failed, another code, fewer messages than --replies. 2: called wrong.`,
		Args: cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			o.stdin = cmd.InOrStdin()
			o.commandsGiven = cmd.Flags().Changed("commands")
			return o.run(args, cmd.OutOrStdout(), cmd.ErrOrStderr())
		},
	}
	f := cmd.Flags()
	f.SortFlags = false
	f.StringArrayVarP(&o.headers, "header", "H", nil, `request header, "Name: value"; repeatable`)
	f.StringVar(&o.origin, "origin", "", "Origin header")
	f.StringSliceVar(&o.subprotocols, "subprotocol", nil, "subprotocol to offer, the preferred one first; repeatable")
	f.BoolVar(&o.insecure, "insecure", false, "accept any certificate of a wss server")
	f.BoolVar(&o.compress, "compress", false, "offer permessage-deflate, for what the server sends; what is sent to it stays as it is")
	f.DurationVar(&o.timeout, "timeout", client.DefaultTimeout, "for the connect with its handshake, for the answer to a Close, and for 64 KiB to be taken")
	f.Var(&o.maxMessage, "max-message", "longest message to take, inflated, and longest line to send; 0 for no limit; above it: Close 1009")
	f.IntVarP(&o.replies, "replies", "n", 0, "close when so many messages have come; it is a failure if fewer come")
	f.DurationVar(&o.wait, "wait", 5*time.Second, "after the last message sent, how long to wait for the next one to come")
	f.BoolVarP(&o.follow, "follow", "f", false, "stay when all is sent, until the server closes, or Ctrl-C")
	f.BoolVar(&o.commands, "commands", false, "lines that begin with / are commands (default: on a terminal they are)")
	f.BoolVar(&o.json, "json", false, "print one JSON object for each event, in both directions")
	f.BoolVar(&o.raw, "raw", false, "print the payload of messages alone, as it is, a text with a line end behind it")
	f.StringVar(&o.trace, "trace", "", "print all bytes of both directions explained: full, or brief with one line each")
	f.Lookup("trace").NoOptDefVal = "full"
	f.BoolVarP(&o.quiet, "quiet", "q", false, "nothing on stderr but errors")
	return cmd
}

// ownHeaders are those that the handshake writes itself, and what sets them.
var ownHeaders = map[string]string{
	"Upgrade": "", "Connection": "", "Sec-Websocket-Key": "", "Sec-Websocket-Version": "", "Sec-Websocket-Accept": "",
	"Origin": "--origin", "Sec-Websocket-Protocol": "--subprotocol", "Sec-Websocket-Extensions": "--compress",
}

// ownHeader says that a header cannot be given; flag is what sets it, if anything does.
func ownHeader(name, flag string) error {
	if flag == "" {
		return fmt.Errorf("--header %s: the handshake writes its own", shown(name))
	}
	return fmt.Errorf("--header %s: use %s for it", shown(name), flag)
}

// check refuses what makes no sense and returns whom to connect to, and how.
func (o *connectOptions) check(args []string) (*client.Target, client.Options, error) {
	c := client.Options{Origin: o.origin, Protocols: o.subprotocols, Compress: o.compress, Timeout: o.timeout, MaxMessage: uint64(o.maxMessage)}
	switch {
	case len(args) == 0:
		return nil, c, errors.New("connect needs the URL of a server, like ws://localhost:8002/wshandler")
	case strings.ContainsAny(o.origin, "\r\n"):
		return nil, c, &badValue{flag: "origin", value: o.origin, want: "one line"}
	case o.timeout < 10*time.Millisecond || o.timeout > time.Hour:
		return nil, c, &badValue{flag: "timeout", value: o.timeout.String(), want: "from 10ms to an hour"}
	case o.wait < 0:
		return nil, c, &badValue{flag: "wait", value: o.wait.String(), want: "0s or more"}
	case o.replies < 0:
		return nil, c, &badValue{flag: "replies", value: fmt.Sprint(o.replies), want: "0 or more"}
	case o.trace != "" && o.trace != "full" && o.trace != "brief":
		return nil, c, &badValue{flag: "trace", value: o.trace, want: "full or brief"}
	case o.raw && (o.json || o.trace != ""):
		return nil, c, errors.New("--raw prints payload alone, and --json and --trace more than that: choose one")
	case o.json && o.trace == "brief":
		return nil, c, errors.New("--trace=brief is for people; with --json it is --trace")
	}
	for _, m := range args {
		if o.trace != "" && (m == "full" || m == "brief") {
			return nil, c, fmt.Errorf("--trace %s: the value goes behind =, like --trace=%s; a message %q comes from stdin", m, m, m)
		}
	}
	for _, m := range args[1:] {
		if !utf8.ValidString(m) {
			return nil, c, fmt.Errorf("the message %q is not UTF-8, as a text message must be (RFC 6455 §5.6)", m)
		}
	}
	if err := (&handshake.Options{Protocols: o.subprotocols}).Validate(); err != nil {
		return nil, c, fmt.Errorf("--subprotocol: %w", err)
	}
	for _, l := range o.headers {
		lines, err := parseHeaders([]string{l})
		if err != nil {
			return nil, c, err
		}
		name, value, _ := strings.Cut(l, ":")
		switch flag, own := ownHeaders[http.CanonicalHeaderKey(strings.TrimSpace(name))]; {
		case strings.EqualFold(name, "Host"):
			c.Host = strings.TrimSpace(value)
		case own:
			return nil, c, ownHeader(name, flag)
		default:
			c.Header = append(c.Header, lines...)
		}
	}
	t, err := client.ParseTarget(args[0], o.insecure)
	return t, c, err
}

func (o *connectOptions) run(args []string, stdout, stderr io.Writer) error {
	target, opts, err := o.check(args)
	if err != nil {
		return err
	}
	s := &connectSession{o: o, replies: o.replies, typed: len(args) == 1 && isTerm(o.stdin)}
	if !o.commandsGiven {
		o.commands = s.typed
	}
	s.printer = newConnectPrinter(o, stdout, stderr)
	if o.trace != "" {
		opts.Tap = s.printer.trace(opts.MaxMessage)
	}
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	ctx, cancel := context.WithCancelCause(context.Background())
	defer cancel(nil)
	s.cancel = cancel
	go func() {
		for range signals {
			s.interrupt()
		}
	}()
	defer func() {
		signal.Stop(signals)
		close(signals)
	}()
	conn, err := client.Dial(ctx, target, opts)
	if err != nil {
		return s.printer.end(0, failed(fmt.Errorf("%s: %w", target.URL, dialError(err))), err)
	}
	defer conn.Release()
	if s.typed {
		if k := openConsole(o.stdin, stdout, stderr); k != nil {
			defer k.close()
			s.printer.useConsole(k)
			s.console = k
			o.stdin = k
		}
	}
	s.printer.opened(target.URL, conn, s.typed)
	err = s.talk(conn, args[1:])
	return s.printer.end(conn.PeerCode(), failed(err), nil)
}

// dialError is err in words for people, where it has none.
func dialError(err error) error {
	var refused *client.RefusedError
	switch {
	case errors.Is(err, context.Canceled):
		return errors.New("interrupted before the connection was open")
	case errors.Is(err, syscall.ECONNREFUSED):
		return fmt.Errorf("nobody listens there (%w)", err)
	case errors.As(err, &refused):
		line := fmt.Sprintf("refused with %s", strings.TrimSpace(fmt.Sprintf("%d %s", refused.Status, visible(refused.Reason))))
		switch {
		case refused.Location != "":
			line += ": it is at " + visible(refused.Location)
		case refused.Status == http.StatusUnauthorized:
			line += `: it wants credentials; give them with --header "Authorization: ..."`
		case refused.Status < 300:
			line += ": this is plain HTTP; is there a WebSocket at this path?"
		}
		return errors.New(line)
	}
	if unknown, ok := errors.AsType[*net.DNSError](err); ok && unknown.IsNotFound {
		return fmt.Errorf("there is no host %s (%w)", shown(unknown.Name), err)
	}
	var unknown *handshake.AnswerError
	if errors.As(err, &unknown) {
		return fmt.Errorf("the server broke the protocol: %w", err)
	}
	return distrusted(err)
}

// distrusted adds to an error about a certificate what to do about it, for commands that have --insecure.
func distrusted(err error) error {
	if _, ok := errors.AsType[*tls.CertificateVerificationError](err); ok {
		return fmt.Errorf("%w; --insecure accepts any certificate", err)
	}
	return err
}

// isTerm reports whether r or w is a terminal that can be switched to single keys.
func isTerm(v any) bool {
	f, ok := v.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}

// connectLines reads the lines of r, without their ends, and gives each to send until that fails. None is longer than
// limit, if there is one.
func connectLines(r io.Reader, limit int64, send func(line []byte) error) error {
	in := bufio.NewReaderSize(r, 64<<10)
	var line []byte
	for n := 1; ; n++ {
		line = line[:0]
		part, err := in.ReadSlice('\n')
		for {
			line = append(line, part...)
			if limit > 0 && int64(len(bytes.TrimSuffix(line, []byte("\n")))) > limit {
				return fmt.Errorf("line %d of stdin is longer than --max-message", n)
			}
			if !errors.Is(err, bufio.ErrBufferFull) {
				break
			}
			part, err = in.ReadSlice('\n')
		}
		if err != nil && (!errors.Is(err, io.EOF) || len(line) == 0) {
			if errors.Is(err, io.EOF) {
				return nil
			}
			return fmt.Errorf("stdin cannot be read: %w", err)
		}
		if k := len(line) - 1; line[k] == '\n' {
			line = line[:k]
		}
		if err := send(line); err != nil {
			return fmt.Errorf("line %d of stdin: %w", n, err)
		}
	}
}
