package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/netip"
	"os/signal"
	"path"
	"slices"
	"sync/atomic"
	"syscall"
	"time"

	"wspoll/epoll"
	"wspoll/inspect"

	"github.com/spf13/pflag"
)

// traceOptions are the flags of serve and proxy for watching connections live.
type traceOptions struct {
	on     bool
	path   string
	format string
}

func (o *traceOptions) flags(f *pflag.FlagSet) {
	f.BoolVar(&o.on, "trace", false, "print the conversation of each connection as it runs, explained; values of cookies and credentials are left out")
	f.StringVar(&o.path, "trace-path", "*", "trace connections to these paths only: a pattern like /topics/*, * alone for all")
	f.StringVar(&o.format, "trace-format", "full", "full, brief (one line for each line of a handshake, frame and message) or json")
}

func (o *traceOptions) check() error {
	switch {
	case o.path == "" || !isPattern(o.path):
		return &badValue{flag: "trace-path", value: o.path, want: "a pattern of paths, like /wshandler or /topics/*"}
	case o.format != "full" && o.format != "brief" && o.format != "json":
		return &badValue{flag: "trace-format", value: o.format, want: "full, brief or json"}
	}
	return nil
}

// wants reports whether connections to a path are traced. The page's own mirror, which tells of others, is so only when
// it is asked for.
func (o *traceOptions) wants(p []byte) bool {
	if o.path == "*" {
		return string(p) != "/lab/mirror"
	}
	ok, err := path.Match(o.path, string(p))
	return ok && err == nil
}

// trace prints connections as they run. Its methods for loops never wait for whoever reads what is printed.
type trace struct {
	o     *traceOptions
	out   *inspectOutput
	flush *bufio.Writer
	live  *inspect.Live

	numbers   atomic.Int64
	unwatched atomic.Int64 // connections, because too many were watched
	told      int64        // of these; of the goroutine of live, as the rest
	failed    bool         // nobody reads any more
	log       *slog.Logger
}

// traced is what is known of a connection that is traced.
type traced struct {
	id      inspect.Connection
	decided bool             // it is decided whether it is shown
	shown   bool             // it is
	held    []inspect.Record // until then
}

// start begins to trace, or returns nil. log gets what is wrong with the trace.
func (o *traceOptions) start(stdout io.Writer, log *slog.Logger) *trace {
	if !o.on {
		return nil
	}
	signal.Ignore(syscall.SIGPIPE) // a server does not end because nobody looks any more
	w := bufio.NewWriter(stdout)
	t := &trace{o: o, flush: w, log: log}
	t.out = &inspectOutput{o: &inspectOptions{json: o.format == "json", brief: o.format == "brief"}, w: w, text: inspect.Text{
		W: w, Brief: o.format == "brief",
		Color: wantsColor(stdout),
	}}
	t.live = inspect.NewLive(inspect.LiveOptions{Room: 4 << 20, Records: t.records, Lost: t.lost, End: t.end, Behind: t.behind})
	return t
}

// server, proxy and paths are for the settings of these; nil when nothing is traced.

func (t *trace) server() func(netip.AddrPort) epoll.Tap {
	if t == nil {
		return nil
	}
	return t.watch
}

func (t *trace) proxy() func(netip.AddrPort, bool) epoll.Tap {
	if t == nil {
		return nil
	}
	return t.watchSide
}

func (t *trace) paths() func([]byte) bool {
	if t == nil {
		return nil
	}
	return t.o.wants
}

// watch sees a connection of a server, or of a client of the proxy.
func (t *trace) watch(peer netip.AddrPort) epoll.Tap {
	return t.tap(inspect.Server, inspect.Connection{Client: peer.String(), Server: "here"})
}

// watchSide sees a connection of the proxy.
func (t *trace) watchSide(peer netip.AddrPort, backend bool) epoll.Tap {
	if backend {
		return t.tap(inspect.Client, inspect.Connection{Client: "here", Server: peer.String()})
	}
	return t.watch(peer)
}

func (t *trace) tap(local inspect.Dir, id inspect.Connection) epoll.Tap {
	c := t.live.Watch(local, inspect.Options{Redact: true}, &traced{id: id})
	if c == nil {
		t.unwatched.Add(1)
		return nil // and not a nil *LiveConn in an interface
	}
	id.N = int(t.numbers.Add(1))
	c.Value.(*traced).id = id
	return c
}

// close prints what waits, if somebody reads it.
func (t *trace) close() {
	if t != nil {
		t.live.Close(time.Second)
	}
}

// records prints the records of a connection, once it is clear that it is one to be shown: not before its request is
// whole, for the path is chosen, and plain HTTP requests are for somebody else.
func (t *trace) records(c *inspect.LiveConn, records []inspect.Record) {
	x := c.Value.(*traced)
	if x.decided {
		t.print(x, records)
		return
	}
	for i := range records {
		r := records[i]
		x.held = append(x.held, r)
		switch {
		case r.Kind == inspect.KindRead:
		case r.Dir == inspect.Client && r.Line != nil && r.N == 0:
			if p, ok := inspect.RequestPath(r.Line.Text); ok && !t.o.wants([]byte(p)) {
				x.decided, x.held = true, nil
				return
			}
		case r.Dir == inspect.Server:
			x.decided, x.shown = true, true // the loop has answered it
		case r.Line != nil && r.Line.Text == "" && c.WebSocket():
			x.decided, x.shown = true, true
		}
	}
	if x.shown {
		t.print(x, x.held)
		x.held = nil
	}
}

func (t *trace) print(x *traced, records []inspect.Record) {
	if x.shown && !t.failed {
		t.check(t.out.of(&x.id, records))
	}
}

// check ends the trace if stdout cannot be written.
func (t *trace) check(err error) {
	if err != nil {
		t.failed = true
		t.log.Warn("stdout cannot be written: the trace ends, serving goes on", "error", err)
		go t.live.Close(0) // which is not to be called by the goroutine that it waits for
	}
}

// behind is called while others of these functions wait for whoever reads.
func (t *trace) behind(n int64) {
	t.log.Warn("the trace has gaps: whoever reads stdout is too slow", "bytes", n)
}

// say prints a line that is no record.
func (t *trace) say(x *traced, v any, format string, args ...any) {
	switch {
	case t.failed || x != nil && !x.shown:
		return
	case t.o.format == "json":
		t.check(errors.Join(t.out.json(v), t.flush.Flush()))
	default:
		if x != nil {
			t.out.switchTo(&x.id)
		}
		fmt.Fprintf(t.flush, format+"\n", args...)
		t.check(t.flush.Flush())
	}
}

// traceLine is what the JSON has beside records.
type traceLine struct {
	Connection int          `json:"connection,omitempty"`
	Kind       string       `json:"kind"` // "lost", "end" or "unwatched"
	Dir        *inspect.Dir `json:"dir,omitempty"`
	Bytes      int64        `json:"bytes,omitempty"`
	Count      int64        `json:"connections,omitempty"`
}

func (t *trace) lost(c *inspect.LiveConn, d inspect.Dir, n int64) {
	x := c.Value.(*traced)
	t.say(x, traceLine{Connection: x.id.N, Kind: "lost", Dir: &d, Bytes: n}, "-- %d bytes of the %s not shown: they came faster than they could be printed", n, d)
}

func (t *trace) end(c *inspect.LiveConn) {
	x := c.Value.(*traced)
	ended := func(r inspect.Record) bool { return r.Line != nil && r.Line.Text == "" }
	if !x.decided && len(x.held) > 0 && !slices.ContainsFunc(x.held, ended) { // a request that never became whole is worth seeing; a plain one is somebody else's
		x.decided, x.shown = true, true
		t.print(x, x.held)
	}
	t.say(x, traceLine{Connection: x.id.N, Kind: "end"}, "-- connection %d has ended", x.id.N)
	if n := t.unwatched.Load(); n != t.told {
		t.say(nil, traceLine{Kind: "unwatched", Count: n - t.told}, "-- %d connections not shown: too many at a time", n-t.told)
		t.told = n
	}
}
