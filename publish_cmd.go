package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"text/tabwriter"
	"time"

	"wspoll/server"

	"github.com/spf13/cobra"
)

// publishOptions are the flags of publish and topics.
type publishOptions struct {
	server    string
	tokenFile string
	timeout   time.Duration
	insecure  bool
	json      bool

	file   string
	binary bool
	stdin  io.Reader
	source *source // nil if the message is an argument
}

// source is where a message is read from, by a goroutine of its own: stdin may never end, and net/http would wait for it
// whatever its timeout says.
type source struct {
	name string // for people
	r    io.Reader

	mu      sync.Mutex
	waiting bool  // for more of it to come
	err     error // that ended it; io.EOF when it was read whole
}

// Read reads, and notes how it ended.
func (s *source) Read(b []byte) (int, error) {
	s.mu.Lock()
	s.waiting = true
	s.mu.Unlock()
	n, err := s.r.Read(b)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.waiting, s.err = false, err
	return n, err
}

// body is what is read until ctx ends.
func (s *source) body(ctx context.Context) io.Reader {
	out, in := io.Pipe()
	go func() {
		_, err := io.Copy(in, s)
		in.CloseWithError(err)
	}()
	context.AfterFunc(ctx, func() { out.CloseWithError(context.Cause(ctx)) })
	return out
}

// trouble says what is wrong if it is the source that was waited for, or that failed; else nil. late: the time was over.
func (s *source) trouble(interrupted, late bool, limit time.Duration) error {
	if s == nil {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.err != nil && !errors.Is(s.err, io.EOF):
		return fmt.Errorf("%s cannot be read: %w", s.name, s.err)
	case s.err == nil && interrupted:
		return fmt.Errorf("interrupted before %s ended; nothing was published", s.name)
	case s.waiting && late:
		return fmt.Errorf("%s did not end within %v; --timeout sets for how long to wait", s.name, limit)
	}
	return nil
}

func (o *publishOptions) flags(cmd *cobra.Command) {
	f := cmd.Flags()
	f.SortFlags = false
	f.StringVar(&o.server, "server", "http://127.0.0.1:8002", "the server, as http:// or https:// URL")
	f.StringVar(&o.tokenFile, "token-file", "", "file with the token, the one that the server has as --publish-token-file")
	f.DurationVar(&o.timeout, "timeout", 10*time.Second, "for all of it")
	f.BoolVar(&o.insecure, "insecure", false, "accept any certificate of an https server")
	f.BoolVar(&o.json, "json", false, "print what the server answers, in JSON")
}

func publishCommand() *cobra.Command {
	var o publishOptions
	cmd := &cobra.Command{
		Use:   "publish NAME MESSAGE|-",
		Short: "Publish a message to a topic, for all who are connected to /topics/NAME",
		Long: `Publish a message to a topic, for all who are connected to ws://SERVER/topics/NAME. MESSAGE - is stdin.
It is a text message, unless --binary. To how many it is on its way goes to stdout.`,
		Args: cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			o.stdin = cmd.InOrStdin()
			return o.publish(args, cmd.OutOrStdout())
		},
	}
	o.flags(cmd)
	cmd.Flags().StringVar(&o.file, "file", "", "file whose content is the message, in place of MESSAGE")
	cmd.Flags().BoolVar(&o.binary, "binary", false, "a binary message; else it must be UTF-8")
	return cmd
}

func topicsCommand() *cobra.Command {
	var o publishOptions
	cmd := &cobra.Command{
		Use:   "topics",
		Short: "List the topics of a server",
		Long:  "List the topics of a server: who subscribes, what was published, and what became of it.",
		Args:  unknownCommand,
		RunE:  func(cmd *cobra.Command, _ []string) error { return o.list(cmd.OutOrStdout()) },
	}
	o.flags(cmd)
	return cmd
}

// request makes a request with the token.
func (o *publishOptions) request(ctx context.Context, method, path string, body io.Reader) (*http.Request, error) {
	if o.timeout < 10*time.Millisecond || o.timeout > time.Hour {
		return nil, &badValue{flag: "timeout", value: o.timeout.String(), want: "from 10ms to an hour"}
	}
	u, err := url.Parse(o.server)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "" || !isPort(u.Port()) || u.User != nil || strings.Trim(u.Path, "/")+u.RawQuery+u.Fragment != "" {
		return nil, &badValue{flag: "server", value: o.server, want: "like http://127.0.0.1:8002 or https://example.com"}
	}
	r, err := http.NewRequestWithContext(ctx, method, u.Scheme+"://"+u.Host+path, body)
	if err != nil {
		return nil, err
	}
	if o.tokenFile != "" {
		b, err := os.ReadFile(o.tokenFile)
		if err != nil {
			return nil, failed(fmt.Errorf("--token-file cannot be read: %w", err))
		}
		token := strings.TrimSpace(string(b))
		if token == "" || strings.ContainsFunc(token, func(c rune) bool { return c <= ' ' || c > '~' }) {
			return nil, failed(fmt.Errorf("--token-file %s: does not have a token of printable characters in one line", o.tokenFile))
		}
		r.Header.Set("Authorization", "Bearer "+token)
	}
	return r, nil
}

// isPort reports whether a URL may have s as its port; none is fine.
func isPort(s string) bool {
	_, err := strconv.ParseUint(s, 10, 16)
	return s == "" || err == nil
}

// ask sends a request and reads the answer into v. The error says what to do.
func (o *publishOptions) ask(r *http.Request, v any) ([]byte, error) {
	way := http.DefaultTransport.(*http.Transport).Clone() // with the proxy of the environment
	way.TLSClientConfig = &tls.Config{InsecureSkipVerify: o.insecure}
	defer way.CloseIdleConnections()
	c := http.Client{
		Transport:     way,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }, // the token is for this server
	}
	answer, err := c.Do(r)
	if err != nil {
		return nil, failed(o.unreachable(r, err))
	}
	defer answer.Body.Close()
	const most = 16 << 20
	b, err := io.ReadAll(io.LimitReader(answer.Body, most))
	if answer.StatusCode != http.StatusOK && answer.StatusCode != http.StatusAccepted {
		line, _, _ := strings.Cut(strings.TrimSpace(string(b)), "\n")
		why := o.cure(answer.StatusCode, line)
		if line != "" && !strings.HasPrefix(line, "<") { // a page of HTML is of no use here
			line = strings.ToValidUTF8(line[:min(len(line), 300)], "")
			why = ": " + visible(line) + why
		}
		return nil, failed(fmt.Errorf("%s: refused with %s%s", o.server, visible(answer.Status), why))
	}
	if err == nil {
		err = json.Unmarshal(b, v)
	}
	if err != nil {
		return nil, failed(fmt.Errorf("%s: the answer is not that of wspoll serve: %w", o.server, err))
	}
	return b, nil
}

func (o *publishOptions) unreachable(r *http.Request, err error) error {
	if e, ok := errors.AsType[*url.Error](err); ok {
		err = e.Err // the rest is the request's line
	}
	interrupted := errors.Is(r.Context().Err(), context.Canceled)
	// net/http may speak of what it did at the end of the time, like closing the body.
	late := errors.Is(r.Context().Err(), context.DeadlineExceeded) || os.IsTimeout(err)
	if trouble := o.source.trouble(interrupted, late, o.timeout); trouble != nil {
		return trouble
	}
	switch {
	case interrupted && r.Method == http.MethodGet:
		return errors.New("interrupted")
	case interrupted:
		return errors.New("interrupted; whether the message was published is not known")
	case errors.Is(err, syscall.ECONNREFUSED):
		return fmt.Errorf("%s: nobody listens there; start wspoll serve, or say with --server where it is", o.server)
	case late:
		return fmt.Errorf("%s: no answer within %v; --timeout sets for how long to wait", o.server, o.timeout)
	}
	return distrusted(fmt.Errorf("%s: %w", o.server, err))
}

// cure says what to do about a refusal, where the server's line does not.
func (o *publishOptions) cure(status int, line string) string {
	switch {
	case status == http.StatusUnauthorized && o.tokenFile == "":
		return "; give it with --token-file"
	case status == http.StatusUnauthorized:
		return "; " + o.tokenFile + " must have what the server's --publish-token-file has"
	case status == http.StatusBadRequest && strings.Contains(line, "UTF-8"):
		return " (with --binary)"
	case status == http.StatusRequestEntityTooLarge:
		return "; make it smaller, or the server's --max-message and --max-pending larger"
	case status == http.StatusServiceUnavailable && !strings.Contains(line, "again later"):
		return "; try again later"
	case status == http.StatusNotFound, status == http.StatusMethodNotAllowed, status == http.StatusNotImplemented:
		return "; is this wspoll serve?"
	}
	return ""
}

// message is the body that the arguments ask for; it is read until ctx ends.
func (o *publishOptions) message(ctx context.Context, args []string) (body io.Reader, done func(), err error) {
	done = func() {}
	switch {
	case len(args) == 0:
		return nil, done, errors.New("publish needs the NAME of a topic and a MESSAGE; see wspoll publish --help")
	case !server.ValidTopicName(args[0]):
		return nil, done, fmt.Errorf("%s: %w", shown(args[0]), server.ErrTopicName)
	case o.file == "" && len(args) == 1:
		return nil, done, errors.New("publish needs a MESSAGE, - for stdin, or --file")
	case o.file != "" && len(args) > 1:
		return nil, done, fmt.Errorf("there is a message, %s, and --file %s; only one can be published", shown(args[1]), shown(o.file))
	case len(args) > 2:
		return nil, done, fmt.Errorf("%s is one argument too many: a message with blanks needs quotes", shown(args[2]))
	case o.file != "":
		f, err := os.Open(o.file)
		if err != nil {
			return nil, done, failed(fmt.Errorf("--file cannot be read: %w", err))
		}
		if st, err := f.Stat(); err == nil && st.IsDir() {
			f.Close()
			return nil, done, failed(fmt.Errorf("--file cannot be read: %s is a directory", shown(o.file)))
		}
		o.source = &source{name: "--file", r: f}
		return o.source.body(ctx), func() { f.Close() }, nil
	case args[1] == "-":
		o.source = &source{name: "stdin", r: o.stdin}
		return o.source.body(ctx), done, nil
	}
	return strings.NewReader(args[1]), done, nil
}

func (o *publishOptions) publish(args []string, stdout io.Writer) error {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	ctx, cancel := context.WithTimeout(ctx, max(o.timeout, 0))
	defer cancel()
	body, done, err := o.message(ctx, args)
	if err != nil {
		return err
	}
	defer done()
	r, err := o.request(ctx, http.MethodPost, "/topics/"+args[0], body)
	if err != nil {
		return err
	}
	if o.file != "" {
		if st, err := os.Stat(o.file); err == nil && st.Mode().IsRegular() {
			r.ContentLength = st.Size() // so that the server need not keep room for more
		}
	}
	r.Header.Set("Content-Type", "text/plain; charset=utf-8")
	if o.binary {
		r.Header.Set("Content-Type", "application/octet-stream")
	}
	var p server.Published
	b, err := o.ask(r, &p)
	switch {
	case err != nil:
		return err
	case o.json:
		_, err = stdout.Write(b)
	case p.Waiting:
		_, err = fmt.Fprintf(stdout, "%s: queued for %d, and waits for other servers\n", p.Topic, p.Queued)
	case p.Seq == 0:
		_, err = fmt.Fprintf(stdout, "%s: queued for nobody, and not kept\n", p.Topic)
	default:
		_, err = fmt.Fprintf(stdout, "%s: number %d, queued for %d\n", p.Topic, p.Seq, p.Queued)
	}
	return failed(err)
}

func (o *publishOptions) list(stdout io.Writer) error {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	ctx, cancel := context.WithTimeout(ctx, max(o.timeout, 0))
	defer cancel()
	r, err := o.request(ctx, http.MethodGet, "/topics", nil)
	if err != nil {
		return err
	}
	var all []server.TopicInfo
	b, err := o.ask(r, &all)
	if err != nil {
		return err
	}
	if o.json {
		_, err := stdout.Write(b)
		return failed(err)
	}
	var table bytes.Buffer
	w := tabwriter.NewWriter(&table, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "TOPIC\tSUBSCRIBERS\tBEHIND\tPUBLISHED\tKEPT\tDROPPED\tPOLICY")
	for _, t := range all {
		dropped := uint64(0)
		for _, n := range t.Dropped {
			dropped += n
		}
		fmt.Fprintf(w, "%s\t%d\t%d\t%d\t%d\t%d\t%s\n", visible(t.Name), t.Subscribers, t.Behind, t.Published, t.Kept, dropped, visible(t.Policy))
	}
	w.Flush()
	_, err = table.WriteTo(stdout)
	return failed(err)
}
