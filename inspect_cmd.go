package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"wspoll/inspect"

	"github.com/spf13/cobra"
)

// inspectOptions are the flags of inspect.
type inspectOptions struct {
	hex        bool
	raw        bool
	from       string
	client     string
	server     string
	port       int
	connection int
	json       bool
	brief      bool
	reads      bool
	excerpt    byteSize
	maxMessage byteSize
	extensions string

	given bool // --extensions
	stdin io.Reader
}

func inspectCommand() *cobra.Command {
	o := inspectOptions{excerpt: 256}
	cmd := &cobra.Command{
		Use:   "inspect [FILE|-|HEX...]",
		Short: "Explain the bytes of WebSocket connections",
		Long: `Explain the bytes of WebSocket connections: each line of the handshake, each frame bit by bit, the
messages they make up, and every violation with its section, the close code and the cure.

A FILE, or stdin for -, is a capture (pcap or pcapng, as tcpdump and Wireshark write it) or what one
side sent. Who sent it shows by its first bytes (a request, an answer, the mask of the first frame),
unless --from says it. Both sides of a connection are given with --client and --server. With --hex
files are hexadecimal digits, as "wspoll frame", xxd or hexdump -C print them, and what is neither
a file nor - is digits itself: wspoll inspect --hex 8185 37fa213d 7f9f4d5158`,
		RunE: func(cmd *cobra.Command, args []string) error {
			o.given, o.stdin = cmd.Flags().Changed("extensions"), cmd.InOrStdin()
			return o.run(args, cmd.OutOrStdout(), cmd.ErrOrStderr())
		},
	}
	f := cmd.Flags()
	f.SortFlags = false
	f.BoolVar(&o.hex, "hex", false, "the input is hexadecimal digits; offsets, blanks, 0x, commas and colons are passed over")
	f.BoolVar(&o.raw, "raw", false, "the input is bytes as they were sent, also if it looks like a capture")
	f.StringVar(&o.from, "from", "", "who sent the bytes: client or server")
	f.StringVar(&o.client, "client", "", "file of what the client sent")
	f.StringVar(&o.server, "server", "", "file of what the server sent")
	f.SetAnnotation("server", perCall, []string{})
	f.IntVar(&o.port, "port", 0, "in a capture: only connections to this port of a server (default: all)")
	f.IntVar(&o.connection, "connection", 0, "in a capture: only the connection of this number (default: all)")
	f.BoolVar(&o.json, "json", false, "print records as JSON, one in a line")
	f.BoolVar(&o.brief, "brief", false, "print one line for each line of a handshake, frame and message")
	f.BoolVar(&o.reads, "reads", false, "print also what each read brought")
	f.Var(&o.excerpt, "excerpt", "how much of each payload to print")
	f.Var(&o.maxMessage, "max-message", "the receiver's limit for a message, 0 for none; above it: a violation")
	f.StringVar(&o.extensions, "extensions", "", `the extensions in use, like "permessage-deflate; client_no_context_takeover", or "" for none (default: what the handshake says)`)
	return cmd
}

// check refuses what makes no sense together, and gives the options of package inspect.
func (o *inspectOptions) check(args []string) (inspect.Options, error) {
	opts := inspect.Options{Excerpt: int(o.excerpt), MaxMessage: uint64(o.maxMessage)}
	if o.excerpt == 0 {
		opts.Excerpt = -1
	}
	two := o.client != "" || o.server != ""
	switch {
	case o.hex && o.raw:
		return opts, errors.New("--hex and --raw: the input is one or the other")
	case o.json && o.brief:
		return opts, errors.New("--json and --brief: choose one")
	case o.from != "" && o.from != "client" && o.from != "server":
		return opts, &badValue{flag: "from", value: o.from, want: "client or server"}
	case two && (len(args) > 0 || o.from != ""):
		return opts, errors.New("--client and --server say which files and who sent them; no FILE and no --from beside them")
	case o.client == "-" && o.server == "-":
		return opts, errors.New("--client - and --server -: only one of them can be stdin")
	case !two && len(args) == 0:
		return opts, errors.New("inspect needs a FILE, - for stdin, or hexadecimal digits behind --hex; see wspoll inspect --help")
	case !two && !o.hex && isDigits(args):
		return opts, fmt.Errorf("%s is no file; hexadecimal digits are taken with --hex", shown(args[0]))
	case len(args) > 1 && !o.hex:
		return opts, fmt.Errorf("%q is one file too many; both sides of a connection are given with --client and --server", args[1])
	case o.port < 0 || o.port > 65535:
		return opts, &badValue{flag: "port", value: fmt.Sprint(o.port), want: "from 0 to 65535"}
	case o.connection < 0:
		return opts, &badValue{flag: "connection", value: fmt.Sprint(o.connection), want: "0 or more"}
	case o.excerpt > 1<<30:
		return opts, &badValue{flag: "excerpt", value: o.excerpt.String(), want: "at most 1GiB"}
	}
	if o.given {
		d, err := inspect.ParseExtensions(o.extensions)
		if err != nil {
			return opts, &badValue{flag: "extensions", value: o.extensions, want: "as a server answers it: " + err.Error()}
		}
		opts.Deflate = &d
	}
	return opts, nil
}

// isDigits reports whether the arguments are hexadecimal digits and no file.
func isDigits(args []string) bool {
	if _, err := os.Stat(args[0]); err == nil {
		return false
	}
	b, err := inspect.ReadHex(strings.Join(args, " "))
	return err == nil && len(b) > 1
}

// errNothing is the end of an input that had nothing.
var errNothing = errors.New("there are no bytes to explain: the input is empty")

func (o *inspectOptions) run(args []string, stdout, stderr io.Writer) error {
	opts, err := o.check(args)
	if err != nil {
		return err
	}
	w := bufio.NewWriter(stdout)
	out := &inspectOutput{o: o, w: w, text: inspect.Text{
		W: w, Brief: o.brief, Reads: o.reads,
		Color: wantsColor(stdout),
	}}
	switch {
	case o.client != "" || o.server != "":
		err = o.both(opts, out)
	case o.hex:
		var b []byte
		if b, err = o.digits(args); err == nil {
			err = o.stream(opts, out, strings.NewReader(string(b)))
		}
	default:
		err = o.file(args[0], opts, out, stderr)
	}
	return failed(errors.Join(err, w.Flush()))
}

// inspectOutput prints records.
type inspectOutput struct {
	o    *inspectOptions
	w    *bufio.Writer
	text inspect.Text
	conn int // that was printed last, of a capture
}

func (p *inspectOutput) records(records []inspect.Record) error { return p.of(nil, records) }

// of prints records of a connection of a capture, or of the only one if c is nil. What a read brought is seen at once.
func (p *inspectOutput) of(c *inspect.Connection, records []inspect.Record) error {
	if len(records) == 0 {
		return nil
	}
	if c != nil && !p.o.json {
		p.switchTo(c)
	}
	for i := range records {
		r := &records[i]
		if !p.o.json {
			p.text.Write(r)
			continue
		}
		if r.Kind == inspect.KindRead && !p.o.reads {
			continue
		}
		line := struct {
			Connection int    `json:"connection,omitempty"`
			Client     string `json:"client,omitempty"`
			Server     string `json:"server,omitempty"`
			*inspect.Record
		}{Record: r}
		if c != nil {
			line.Connection, line.Client, line.Server = c.N, c.Client, c.Server
		}
		if err := p.json(line); err != nil {
			return err
		}
	}
	return errors.Join(p.text.Err(), p.w.Flush())
}

func (p *inspectOutput) json(v any) error {
	b, err := json.Marshal(v)
	jsonControls.WriteString(p.w, string(b)+"\n")
	return err
}

// switchTo prints the heading of a connection, unless it is that of what was printed last.
func (p *inspectOutput) switchTo(c *inspect.Connection) {
	if c.N != p.conn {
		p.heading(c)
		p.conn = c.N
	}
}

func (p *inspectOutput) heading(c *inspect.Connection) {
	s := fmt.Sprintf("== connection %d: client %s, server %s", c.N, c.Client, c.Server)
	if c.Midway {
		s += "; its beginning is not in the capture"
	}
	p.text.Heading(s)
}

// open is a file, or stdin.
func (o *inspectOptions) open(name string) (io.ReadCloser, error) {
	if name == "-" {
		return io.NopCloser(o.stdin), nil
	}
	return os.Open(name)
}

// file explains a capture or what one side sent.
func (o *inspectOptions) file(name string, opts inspect.Options, out *inspectOutput, stderr io.Writer) error {
	f, err := o.open(name)
	if err != nil {
		return err
	}
	defer f.Close()
	in := bufio.NewReaderSize(f, 64<<10)
	if !o.raw {
		if magic, _ := in.Peek(4); inspect.IsCapture(magic) {
			return o.capture(opts, out, in, stderr)
		}
	}
	return o.stream(opts, out, in)
}

// capture explains the connections of a capture, and says on stderr what is not shown.
func (o *inspectOptions) capture(opts inspect.Options, out *inspectOutput, in io.Reader, stderr io.Writer) error {
	if o.from != "" {
		return errors.New("--from is for the bytes of one side, and this is a capture; --raw takes it as bytes")
	}
	stats, err := inspect.ReadCapture(in, opts, o.port, func(c *inspect.Connection, records []inspect.Record) error {
		if o.connection != 0 && o.connection != c.N {
			return nil
		}
		return out.of(c, records)
	})
	if err != nil {
		return err
	}
	if other := stats.Connections - stats.WebSocket; other > 0 || stats.WebSocket == 0 {
		fmt.Fprintf(stderr, "wspoll: TCP connections in the capture: %d WebSocket; not shown: %d TLS, which cannot be read, and %d other\n",
			stats.WebSocket, stats.TLS, other-stats.TLS)
	}
	if stats.Reused > 0 {
		fmt.Fprintf(stderr, "wspoll: not shown: %d connections with the ports of one before that was reset, or whose end is not in the capture\n", stats.Reused)
	}
	if stats.Short > 0 {
		fmt.Fprintf(stderr, "wspoll: %d of %d packets are not whole in the capture; tcpdump -s 0 takes all of them\n", stats.Short, stats.Packets)
	}
	return nil
}

// digits are the bytes of hexadecimal digits: in a file, on stdin, or in the arguments.
func (o *inspectOptions) digits(args []string) ([]byte, error) {
	name := args[0]
	if _, err := os.Stat(name); len(args) > 1 || name != "-" && err != nil {
		text := strings.Join(args, " ")
		b, bad := inspect.ReadHex(text)
		if bad != nil {
			return nil, fmt.Errorf("%s is neither a file nor hexadecimal digits: %w", shown(text), bad)
		}
		return b, nil
	}
	return o.whole(name)
}

// whole is a file as bytes, read as digits if it is that.
func (o *inspectOptions) whole(name string) ([]byte, error) {
	if name == "" {
		return nil, nil
	}
	f, err := o.open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	b, err := io.ReadAll(f)
	if err != nil || !o.hex {
		return b, err
	}
	if b, err = inspect.ReadHex(string(b)); err != nil {
		if name == "-" {
			name = "stdin"
		}
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	return b, nil
}

// both explains two files. The bytes of each are in order, but not how they fell between one another: the request comes
// first, then all of the server.
func (o *inspectOptions) both(opts inspect.Options, out *inspectOutput) error {
	client, err := o.whole(o.client)
	if err != nil {
		return err
	}
	server, err := o.whole(o.server)
	if err != nil {
		return err
	}
	if len(client)+len(server) == 0 {
		return errNothing
	}
	e := inspect.New(opts)
	n := inspect.RequestSize(client)
	for _, part := range []struct {
		dir   inspect.Dir
		bytes []byte
	}{{inspect.Client, client[:n]}, {inspect.Server, server}, {inspect.Client, client[n:]}} {
		if err := out.records(e.Feed(part.dir, time.Time{}, part.bytes)); err != nil {
			return err
		}
	}
	return out.records(e.Finish())
}

// stream explains what one side sent, as it comes.
func (o *inspectOptions) stream(opts inspect.Options, out *inspectOutput, in io.Reader) error {
	e := inspect.New(opts)
	dir, known := inspect.Client, o.from != ""
	if o.from == "server" {
		dir = inspect.Server
	}
	buf := make([]byte, 64<<10)
	n, some := 0, false
	for {
		k, err := in.Read(buf[n:])
		n += k
		some = some || k > 0
		if !known {
			dir, known = inspect.GuessDir(buf[:n])
		}
		if known || err != nil {
			if err := out.records(e.Feed(dir, time.Time{}, buf[:n])); err != nil {
				return err
			}
			n = 0
		}
		if errors.Is(err, io.EOF) && !some {
			return errNothing
		}
		if errors.Is(err, io.EOF) {
			return out.records(e.Finish())
		}
		if err != nil {
			return err
		}
	}
}

func acceptCommand() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "accept KEY",
		Short: "Derive the Sec-WebSocket-Accept of a key",
		Long: `Derive the Sec-WebSocket-Accept of a Sec-WebSocket-Key, step by step (RFC 6455 §4.2.2 item 5.4).
The example of the RFC: wspoll accept dGhlIHNhbXBsZSBub25jZQ==`,
		Args: cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			switch {
			case len(args) == 0:
				return errors.New("accept needs a KEY, like dGhlIHNhbXBsZSBub25jZQ==")
			case len(args) > 1:
				return fmt.Errorf("%s is one KEY too many", shown(args[1]))
			}
			a, err := inspect.Derive(args[0])
			if err != nil {
				return failed(fmt.Errorf("%s: %w", shown(args[0]), err))
			}
			if asJSON {
				return failed(json.NewEncoder(cmd.OutOrStdout()).Encode(a))
			}
			_, err = io.WriteString(cmd.OutOrStdout(), a.Steps())
			return failed(err)
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print the steps as JSON")
	return cmd
}
