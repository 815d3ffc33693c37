package main

import (
	"bufio"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"sync"
	"time"
	"unicode"
	"unicode/utf8"

	"wspoll/client"
	"wspoll/inspect"

	"github.com/gobwas/ws"
)

// connectPrinter writes what connect has to say. Several goroutines use it.
type connectPrinter struct {
	o       *connectOptions
	console *console // nil if there is none
	stdout  io.Writer
	stderr  io.Writer
	color   bool

	mu        sync.Mutex
	err       error // of stdout; nothing more is printed after it
	explainer *inspect.Explainer
	records   *inspectOutput
}

// connectEvent is a line of --json.
type connectEvent struct {
	Time  time.Time `json:"time"`
	Event string    `json:"event"`         // open, text, binary, ping, pong, close, end
	Dir   string    `json:"dir,omitempty"` // received or sent; not of open and end

	// Of open.
	URL         string  `json:"url,omitempty"`
	Subprotocol *string `json:"subprotocol,omitempty"`
	Extensions  *string `json:"extensions,omitempty"`

	// Of messages and control frames: the payload, as text or in hexadecimal digits if it is binary or not UTF-8.
	Text       *string `json:"text,omitempty"`
	Hex        *string `json:"hex,omitempty"`
	Frames     int     `json:"frames,omitempty"` // that a message came in, if more than one
	Compressed bool    `json:"compressed,omitempty"`

	Code   ws.StatusCode `json:"code,omitempty"` // of a Close; 1005: it had none. Of end: that of the server's Close
	Reason string        `json:"reason,omitempty"`

	// Of end.
	OK     *bool  `json:"ok,omitempty"` // the exit status will be 0
	Error  string `json:"error,omitempty"`
	Status int    `json:"status,omitempty"` // of an answer that refused
	Body   string `json:"body,omitempty"`   // its body, the beginning
}

func newConnectPrinter(o *connectOptions, stdout, stderr io.Writer) *connectPrinter {
	return &connectPrinter{o: o, stdout: stdout, stderr: stderr, color: wantsColor(stdout)}
}

// wantsColor reports whether w is a terminal that shows colours, and nobody asked for none (no-color.org).
func wantsColor(w io.Writer) bool {
	return isTerm(w) && os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb"
}

// useConsole lets what is printed go by way of the console, which keeps it apart from what is being typed.
func (p *connectPrinter) useConsole(k *console) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.console = k
	p.stderr = k
	if k.shows(p.stdout) {
		p.stdout = k
		if p.records != nil {
			p.records.w.Reset(k)
		}
	}
}

// trace makes the tap that explains all bytes.
func (p *connectPrinter) trace(maxMessage uint64) func(sent bool, b []byte) {
	p.explainer = inspect.New(inspect.Options{MaxMessage: maxMessage})
	w := bufio.NewWriter(p.stdout)
	p.records = &inspectOutput{
		o: &inspectOptions{json: p.o.json}, w: w,
		text: inspect.Text{W: w, Color: p.color, Brief: p.o.trace == "brief"},
	}
	return func(sent bool, b []byte) {
		p.mu.Lock()
		defer p.mu.Unlock()
		dir := inspect.Server
		if sent {
			dir = inspect.Client
		}
		p.print(p.explainer.Feed(dir, time.Now(), b))
	}
}

func (p *connectPrinter) print(records []inspect.Record) {
	if p.err == nil {
		p.err = p.records.records(records)
	}
}

// failure is the error of stdout.
func (p *connectPrinter) failure() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.err
}

// write writes one line, or whatever it is, to stdout.
func (p *connectPrinter) write(s string) {
	if p.err == nil {
		_, p.err = io.WriteString(p.stdout, s)
	}
}

func (p *connectPrinter) event(e connectEvent) {
	e.Time = time.Now()
	b, err := json.Marshal(e)
	if p.err == nil && err != nil {
		p.err = err
	}
	p.write(jsonControls.Replace(string(b)) + "\n")
}

// talk says something on stderr.
func (p *connectPrinter) talk(format string, args ...any) {
	p.mu.Lock()
	defer p.mu.Unlock()
	fmt.Fprintf(p.stderr, format+"\n", args...)
}

// opened tells of the open connection.
func (p *connectPrinter) opened(url string, c *client.Conn, typed bool) {
	if p.o.json && p.o.trace == "" {
		p.mu.Lock()
		p.event(connectEvent{Event: "open", URL: url, Subprotocol: &c.Protocol, Extensions: &c.Extensions})
		p.mu.Unlock()
	}
	if p.o.quiet {
		return
	}
	line := "open: " + visible(url)
	if c.Protocol != "" {
		line += ", speaks " + visible(c.Protocol)
	}
	if c.Extensions != "" {
		line += ", " + visible(c.Extensions)
	}
	if typed {
		line += "; a line is sent as a text message, /help for more, Ctrl-C ends"
	}
	p.talk("%s", line)
}

// received prints what came.
func (p *connectPrinter) received(e *client.Event) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case p.o.trace != "":
	case p.o.json:
		v := connectEvent{Event: opWord(e.Op), Dir: "received", Compressed: e.Compressed}
		if e.Frames > 1 {
			v.Frames = e.Frames
		}
		p.event(v.of(e.Op, e.Code, e.Data))
	case p.o.raw:
		switch e.Op {
		case ws.OpText:
			p.write(string(e.Data) + "\n")
		case ws.OpBinary:
			p.write(string(e.Data))
		}
	default:
		arrow := "<-"
		if p.color {
			arrow = "\x1b[36m<-\x1b[0m"
		}
		line := arrow + " " + opWord(e.Op)
		switch {
		case e.Op == ws.OpBinary || !utf8.Valid(e.Data):
			line += fmt.Sprintf(" % x", e.Data)
		case e.Op == ws.OpClose:
			line += " " + closeWords(e.Code, string(e.Data))
		case len(e.Data) > 0:
			line += " " + visible(string(e.Data))
		}
		p.write(line + "\n")
	}
	if e.Answered && p.o.json && p.o.trace == "" {
		op, data := e.Op, e.Data
		switch op {
		case ws.OpPing:
			op = ws.OpPong
		case ws.OpClose:
			data = nil // a Close is answered with its code alone
		}
		p.event((&connectEvent{Event: opWord(op), Dir: "sent"}).of(op, e.Code, data))
	}
}

// sent prints what was sent, where that is asked for.
func (p *connectPrinter) sent(d *order) {
	if !p.o.json || p.o.trace != "" {
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	data := d.payload
	if d.op == ws.OpClose {
		data = []byte(d.reason)
	}
	p.event((&connectEvent{Event: opWord(d.op), Dir: "sent"}).of(d.op, d.code, data))
}

// of fills in the payload.
func (v *connectEvent) of(op ws.OpCode, code ws.StatusCode, data []byte) connectEvent {
	switch {
	case op == ws.OpClose:
		v.Code, v.Reason = code, string(data)
	case op != ws.OpBinary && utf8.Valid(data):
		s := string(data)
		v.Text = &s
	default:
		s := hex.EncodeToString(data)
		v.Hex = &s
	}
	return *v
}

// end tells how it ended, and returns err. code is that of the server's Close.
func (p *connectPrinter) end(code ws.StatusCode, err, cause error) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.explainer != nil {
		p.print(p.explainer.Finish())
	}
	refused, _ := cause.(*client.RefusedError)
	if p.o.json && p.o.trace == "" {
		ok := err == nil
		e := connectEvent{Event: "end", OK: &ok, Code: code}
		if err != nil {
			e.Error = err.Error()
		}
		if refused != nil {
			e.Status, e.Body = refused.Status, strings.ToValidUTF8(string(refused.Body), "\uFFFD")
		}
		p.event(e)
	}
	if refused != nil {
		for line := range strings.Lines(strings.TrimSpace(string(refused.Body))) {
			fmt.Fprintln(p.stderr, "  | "+visible(strings.TrimRight(line, "\r\n")))
		}
	}
	if err == nil && p.err != nil {
		return failed(fmt.Errorf("stdout cannot be written: %w", p.err))
	}
	return err
}

// closeWords are the code and the reason of a Close.
func closeWords(code ws.StatusCode, reason string) string {
	switch {
	case code == ws.StatusNoStatusRcvd:
		return "without a code"
	case reason == "":
		return strconv.Itoa(int(code))
	}
	return strconv.Itoa(int(code)) + " " + visible(reason)
}

// opWord is what an opcode of RFC 6455 §5.2 is called.
func opWord(op ws.OpCode) string {
	switch op {
	case ws.OpText:
		return "text"
	case ws.OpBinary:
		return "binary"
	case ws.OpPing:
		return "ping"
	case ws.OpPong:
		return "pong"
	}
	return "close"
}

// visible is s on one line: as it is if all of it can be printed, else quoted, with escapes for what could steer a terminal.
func visible(s string) string {
	if !utf8.ValidString(s) || strings.ContainsFunc(s, func(r rune) bool { return !unicode.IsGraphic(r) }) {
		return strconv.QuoteToGraphic(s)
	}
	return s
}
