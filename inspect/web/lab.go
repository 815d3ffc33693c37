package web

import (
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"wspoll/handshake"
	"wspoll/inspect"

	"github.com/gobwas/ws"
)

// The lab sends bytes that no browser sends, and shows what comes back. The server opens a TCP connection for it, to its
// own listener and to nothing else. A visitor can do nothing with it that a program could not do by itself.

// Limits of the lab.
const (
	labBody    = 512 << 10 // of a request to it
	labBytes   = 128 << 10 // that are sent in one experiment
	labAnswer  = 256 << 10 // that are read
	labRecords = 1000      // that are shown: a frame of two bytes takes a thousand times as much to be told of
	labPart    = 4 << 10   // bytes that are explained at a time
	labAtOnce  = 8         // experiments
	labRate    = 20        // experiments per second, and as many at once after a rest
	labTime    = 4 * time.Second
	labQuiet   = 400 * time.Millisecond // so long after the last byte nothing more is expected
	labChopped = 2000                   // bytes that are sent one by one
)

// lab is the state of all experiments.
type lab struct {
	page  *Page
	guard *http.CrossOriginProtection
	slots chan struct{}

	mu     sync.Mutex
	addr   string // of our own listener
	tokens float64
	filled time.Time
	own    map[string]bool // addresses of our connections to ourselves
}

func (l *lab) init(p *Page) {
	l.page, l.guard, l.slots = p, http.NewCrossOriginProtection(), make(chan struct{}, labAtOnce)
	l.tokens, l.own = labRate, map[string]bool{}
}

func (l *lab) mount(mux *http.ServeMux) {
	mux.HandleFunc("GET /lab/presets", func(w http.ResponseWriter, r *http.Request) {
		l.answer(w, http.StatusOK, map[string]any{"head": requestHead(r.Host), "presets": presets})
	})
	mux.Handle("POST /lab/explain", l.guard.Handler(post(l, l.explain)))
	mux.Handle("POST /lab/send", l.guard.Handler(post(l, l.send)))
}

// Listening tells the lab the address of the server's own listener. To be called before the server is used.
func (p *Page) Listening(addr net.Addr) {
	host, port, err := net.SplitHostPort(addr.String())
	if ip := net.ParseIP(host); err == nil && ip.IsUnspecified() {
		host = "127.0.0.1"
		if ip.To4() == nil {
			host = "::1"
		}
	}
	p.lab.mu.Lock()
	defer p.lab.mu.Unlock()
	p.lab.addr = net.JoinHostPort(host, port)
}

// problem is why an experiment was not made, for the visitor.
type problem struct {
	status int
	text   string
}

func (e *problem) Error() string { return e.text }

func bad(format string, args ...any) error {
	return &problem{http.StatusBadRequest, fmt.Sprintf(format, args...)}
}

// post makes a handler for JSON in and out.
func post[T any](l *lab, f func(r *http.Request, in *T) (any, error)) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		out, err := func() (any, error) {
			if kind, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || kind != "application/json" {
				return nil, &problem{http.StatusUnsupportedMediaType, "the lab takes application/json"}
			}
			if l.isOwn(r.RemoteAddr) {
				return nil, &problem{http.StatusLoopDetected, "the lab does not experiment with itself"}
			}
			if !l.admit() {
				return nil, &problem{http.StatusTooManyRequests, fmt.Sprintf("more than %d experiments a second; try again in a moment", labRate)}
			}
			var in T
			d := json.NewDecoder(http.MaxBytesReader(w, r.Body, labBody))
			if err := d.Decode(&in); err != nil {
				if _, large := errors.AsType[*http.MaxBytesError](err); large {
					return nil, &problem{http.StatusRequestEntityTooLarge, fmt.Sprintf("more than %d bytes", labBody)}
				}
				return nil, bad("the request is not the JSON that the lab takes: %v", err)
			}
			return f(r, &in)
		}()
		if e, ok := errors.AsType[*problem](err); ok {
			l.answer(w, e.status, map[string]string{"error": e.text})
			return
		}
		if err != nil {
			l.page.log.Warn("the lab cannot reach its own server", "error", err)
			l.answer(w, http.StatusBadGateway, map[string]string{"error": "the lab cannot reach its own server: " + err.Error()})
			return
		}
		l.answer(w, http.StatusOK, out)
	})
}

func (l *lab) answer(w http.ResponseWriter, status int, v any) {
	b, err := json.Marshal(v)
	if err != nil {
		l.page.log.Error("an answer of the lab cannot be written as JSON", "error", err)
		status, b = http.StatusInternalServerError, []byte(`{"error":"internal error"}`)
	}
	h := w.Header()
	h.Set("Content-Type", "application/json")
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(status)
	l.page.write(w, b)
}

// admit takes a token, of which labRate come a second.
func (l *lab) admit() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	l.tokens = min(labRate, l.tokens+labRate*now.Sub(l.filled).Seconds())
	l.filled = now
	if l.tokens < 1 {
		return false
	}
	l.tokens--
	return true
}

func (l *lab) isOwn(addr string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.own[addr]
}

// experiment is what a visitor sends.
type experiment struct {
	Head   string `json:"head"`   // the request, in lines; empty: a good one
	Frames string `json:"frames"` // hexadecimal digits
	Chop   bool   `json:"chop"`   // one byte at a time
}

func (x *experiment) bytes() ([]byte, error) {
	b, err := inspect.ReadHex(x.Frames)
	if err != nil {
		return nil, bad("these are no hexadecimal digits: %v", err)
	}
	if len(b) > labBytes {
		return nil, bad("%d bytes; the lab sends up to %d", len(b), labBytes)
	}
	return b, nil
}

// explained is what the bytes of frames mean, without sending them.
type explained struct {
	Bytes   int            `json:"bytes"`
	Digits  string         `json:"digits,omitempty"` // the bytes, however they were written
	Records []inspect.View `json:"records"`
	Omitted int            `json:"omitted,omitempty"` // at least so many records more; labRecords are shown
}

func (l *lab) explain(_ *http.Request, x *experiment) (any, error) {
	b, err := x.bytes()
	if err != nil {
		return nil, err
	}
	done, err := l.begin()
	if err != nil {
		return nil, err
	}
	defer done()
	o := inspect.Options{Frames: true, MaxMessage: l.page.maxMessage}
	if !strings.Contains(strings.ToLower(x.Head), "permessage-deflate") {
		o.Deflate = &handshake.Deflate{} // what is not offered is not agreed on (RFC 6455 §9.1)
	}
	e := inspect.New(o)
	out := explained{Bytes: len(b), Digits: hex.EncodeToString(b)}
	for part := range slices.Chunk(b, labPart) {
		if out.Omitted == 0 {
			out.add(e.Feed(inspect.Client, time.Time{}, part))
		}
	}
	out.add(e.Finish())
	return out, nil
}

// begin takes one of the places for experiments; done gives it back.
func (l *lab) begin() (done func(), err error) {
	select {
	case l.slots <- struct{}{}:
		return func() { <-l.slots }, nil
	default:
		return nil, &problem{http.StatusTooManyRequests, fmt.Sprintf("%d experiments are running; try again in a moment", labAtOnce)}
	}
}

func (x *explained) add(records []inspect.Record) {
	for i := range records {
		if len(x.Records) == labRecords {
			x.Omitted += len(records) - i
			return
		}
		r := records[i] // what it points to is not used again
		x.Records = append(x.Records, r.View())
	}
}

// outcome is what came of an experiment.
type outcome struct {
	explained
	Sent     int    `json:"sent"`
	Received int    `json:"received"`
	Ended    string `json:"ended"`  // how: "closed", "reset", "quiet", "timeout" or "long"
	Status   string `json:"status"` // the server's answer to the request
	// The server's Close, if it sent one.
	Code    ws.StatusCode `json:"code,omitempty"`
	Reason  string        `json:"reason,omitempty"`
	Meaning string        `json:"meaning,omitempty"`
	// The first rule that was broken, and whether the server did what it demands.
	Violation *inspect.Violation `json:"violation,omitempty"`
	Demand    string             `json:"demand,omitempty"`
	Agrees    bool               `json:"agrees"`
}

func (l *lab) send(r *http.Request, x *experiment) (any, error) {
	b, err := x.bytes()
	if err != nil {
		return nil, err
	}
	head := x.Head
	if head == "" {
		head = requestHead(r.Host)
	}
	if len(head) > labBytes {
		return nil, bad("a request of %d bytes; the lab sends up to %d", len(head), labBytes)
	}
	if x.Chop && len(head)+len(b) > labChopped {
		return nil, bad("%d bytes; one at a time the lab sends up to %d", len(head)+len(b), labChopped)
	}
	done, err := l.begin()
	if err != nil {
		return nil, err
	}
	defer done()
	return l.talk([]byte(crlf(head)), b, x.Chop)
}

// crlf gives lines the end that HTTP wants; browsers make \n of it in a text field.
func crlf(s string) string {
	return strings.ReplaceAll(strings.ReplaceAll(s, "\r\n", "\n"), "\n", "\r\n")
}

// talk is the experiment.
func (l *lab) talk(head, frames []byte, chop bool) (*outcome, error) {
	l.mu.Lock()
	addr := l.addr
	l.mu.Unlock()
	conn, err := net.DialTimeout("tcp", addr, labTime)
	if err != nil {
		return nil, err
	}
	defer conn.Close()
	me := conn.LocalAddr().String()
	l.mu.Lock()
	l.own[me] = true
	l.mu.Unlock()
	defer func() {
		l.mu.Lock()
		delete(l.own, me)
		l.mu.Unlock()
	}()
	end := time.Now().Add(labTime)
	conn.SetWriteDeadline(end)
	t := &talker{conn: conn, end: end, chop: chop, e: inspect.New(inspect.Options{MaxMessage: l.page.maxMessage}), out: &outcome{}}
	t.write(head)
	t.read(labTime, func() bool { return t.headDone })
	if t.out.Ended == "" {
		t.write(frames)
		quiet := labQuiet
		if t.out.Violation != nil {
			quiet = labTime // there will be an answer
		}
		t.read(quiet, func() bool { return false })
	}
	t.out.add(t.e.Finish())
	t.out.judge()
	return t.out, nil
}

// talker has one connection of an experiment.
type talker struct {
	conn     net.Conn
	end      time.Time
	chop     bool
	e        *inspect.Explainer
	out      *outcome
	headDone bool // the head of an answer has come
}

// write sends b, as far as the other side takes it.
func (t *talker) write(b []byte) {
	for len(b) > 0 {
		n := len(b)
		if t.chop {
			n = 1
		}
		n, err := t.conn.Write(b[:n])
		t.out.Sent += n
		for part := range slices.Chunk(b[:n], labPart) {
			t.out.add(t.e.Feed(inspect.Client, time.Now(), part))
		}
		if err != nil {
			return // what it said before it closed is still to be read
		}
		b = b[n:]
	}
}

// read takes what comes until enough, the end of the connection, or silence for some time.
func (t *talker) read(silence time.Duration, enough func() bool) {
	buf := make([]byte, labPart)
	for !enough() {
		if t.out.Received >= labAnswer {
			t.out.Ended = "long"
			return
		}
		quiet := time.Now().Add(silence)
		if quiet.After(t.end) {
			quiet = t.end
		}
		t.conn.SetReadDeadline(quiet)
		n, err := t.conn.Read(buf)
		t.out.Received += n
		records := t.e.Feed(inspect.Server, time.Now(), buf[:n])
		for i := range records {
			if r := &records[i]; r.Line != nil && r.Line.Text == "" {
				t.headDone = true
			}
		}
		t.out.add(records)
		var timeout net.Error
		switch {
		case err == nil:
			continue
		case errors.As(err, &timeout) && timeout.Timeout() && time.Now().Before(t.end):
			t.out.Ended = "quiet"
		case errors.As(err, &timeout) && timeout.Timeout():
			t.out.Ended = "timeout"
		case errors.Is(err, syscall.ECONNRESET):
			t.out.Ended = "reset"
		case errors.Is(err, io.EOF):
			t.out.Ended = "closed"
		default:
			t.out.Ended = err.Error()
		}
		return
	}
}

// add shows records, as far as there is room, and notes what is judged: the answer, the Close, and the first violation of
// the client.
func (x *outcome) add(records []inspect.Record) {
	for i := range records {
		r := &records[i]
		server := r.Dir == inspect.Server
		switch {
		case server && r.Line != nil && x.Status == "":
			_, x.Status, _ = strings.Cut(r.Line.Text, " ")
		case server && r.Frame != nil && r.Frame.Close != nil && x.Meaning == "":
			c := r.Frame.Close
			x.Code, x.Reason, x.Meaning = c.Code, c.Reason, c.Meaning
		case !server && len(r.Violations) > 0 && x.Violation == nil:
			v := r.Violations[0]
			x.Violation, x.Demand = &v, v.Demands()
		}
	}
	x.explained.add(records)
}

// judge compares what the server did with what the first violation demands.
func (x *outcome) judge() {
	switch v := x.Violation; {
	case v == nil:
	case v.Status != 0:
		x.Agrees = strings.HasPrefix(x.Status, fmt.Sprint(v.Status))
	case v.Code != 0:
		x.Agrees = x.Code == v.Code
	default: // what follows a Close is ignored
		x.Agrees = x.Meaning != "" && x.Code < 1002
	}
}
