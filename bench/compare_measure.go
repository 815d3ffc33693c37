package bench

import (
	"context"
	"fmt"
	"net/url"
	"os"
	"strings"
	"time"
)

// measureOnce starts a server, measures one case, and ends it.
func measureOnce(ctx context.Context, o *CompareOptions, who *Contestant, c *CompareCase) (ComparedFigures, error) {
	if c.Kind == ComparePush {
		if who.Push == nil {
			return nil, errNotForThis
		}
		pushing := *who
		pushing.Args = who.Push
		who = &pushing
	}
	m := &measurement{ctx: ctx, o: o, c: c, client: Process(os.Getpid())}
	pin, proxied := o.Pinning, *who
	if o.Backend != nil {
		b, err := launch(ctx, o.Backend, pin.besideClient())
		if err != nil {
			return nil, fmt.Errorf("the backend: %w", err)
		}
		defer b.end()
		u, err := url.Parse(b.url)
		if err != nil {
			return nil, err
		}
		m.backend, m.backendURL = Process(b.cmd.Process.Pid), b.url
		proxied = who.before(u.Host)
	}
	p, err := launch(ctx, &proxied, pin)
	if err != nil {
		return nil, err
	}
	defer p.end()
	m.p, m.server = p, Process(p.cmd.Process.Pid)
	if m.backendURL != "" {
		if p.url, err = throughProxy(p.url, m.backendURL); err != nil {
			return nil, err
		}
	}
	var figures ComparedFigures
	switch c.Kind {
	case CompareEcho:
		figures, err = m.echo()
	case ComparePush:
		p.url = strings.Replace(p.url, "/wshandler", who.PushPath, 1)
		figures, err = m.push()
	case CompareHandshake:
		figures, err = m.handshakes()
	case CompareIdle:
		figures, err = m.idle()
	case CompareGenerations:
		figures, err = m.generations()
	case CompareGC:
		figures, err = m.collections()
	default:
		err = fmt.Errorf("the kind %q of a case is unknown", c.Kind)
	}
	if err != nil && ctx.Err() == nil && p.hasEnded() { // then all else follows from that
		err = p.whyEnded()
	}
	if err != nil {
		return nil, err
	}
	return figures, nil
}

// measurement is one case on one server.
type measurement struct {
	ctx    context.Context
	o      *CompareOptions
	c      *CompareCase
	p      *contestProcess
	server Process
	client Process

	backend    Process // of proxies; 0 without one
	backendURL string
}

// dial makes the client of the case.
func (m *measurement) dial(connections int) (*Client, error) {
	target, err := ParseTarget(m.p.url, false)
	if err != nil {
		return nil, err
	}
	if target.Raw && m.c.Kind == CompareHandshake {
		return nil, errNotForThis
	}
	push := m.c.Kind == ComparePush
	return New(Config{
		Targets: []Target{target}, Connections: connections,
		SizeMin: m.c.Size, SizeMax: m.c.Size, Depth: m.c.Depth,
		Subscribe: push, Publish: push,
	})
}

// opened is a client whose connections are open.
func (m *measurement) opened(connections int) (*Client, error) {
	cl, err := m.dial(connections)
	if err != nil {
		return nil, err
	}
	cl.Open(m.ctx.Done())
	if n := cl.Counts().Open; n < connections {
		err := m.trouble(cl)
		if err == nil {
			err = fmt.Errorf("only %d of %d connections are open", n, connections)
		}
		cl.Stop()
		return nil, err
	}
	return cl, nil
}

// trouble is what went wrong on the connections, nil if nothing did.
func (m *measurement) trouble(cl *Client) error {
	if err := m.ctx.Err(); err != nil {
		return err
	}
	list := cl.Errors()
	if len(list) == 0 {
		return nil
	}
	return fmt.Errorf("%s, %d times", firstError(list), list[0].Count)
}

// echo is the cost of messages.
func (m *measurement) echo() (ComparedFigures, error) {
	cl, err := m.opened(m.c.Connections)
	if err != nil {
		return nil, err
	}
	defer cl.Stop()
	cl.Start()
	return m.work(cl, func() uint64 { return cl.Counts().Messages })
}

// push is the cost of a message to one of many. One broadcast is under way at
// a time, so that a client which is slower than the server does not make it
// keep what its sockets cannot take.
func (m *measurement) push() (ComparedFigures, error) {
	cl, err := m.opened(m.c.Connections)
	if err != nil {
		return nil, err
	}
	defer cl.Stop()
	cl.Publish()
	// The first may have been sent before a bare server knew everybody.
	for begin := time.Now(); cl.Counts().Messages < 2*uint64(m.c.Connections); {
		if err := m.sleep(10 * time.Millisecond); err != nil {
			return nil, err
		}
		if time.Since(begin) > startLimit {
			return nil, fmt.Errorf("what one connection sends does not reach the others within %s", startLimit)
		}
	}
	return m.work(cl, func() uint64 { return cl.Counts().Messages })
}

// handshakes is the cost of connections that are opened, upgraded and closed.
func (m *measurement) handshakes() (ComparedFigures, error) {
	cl, err := m.dial(m.c.Connections)
	if err != nil {
		return nil, err
	}
	defer cl.Stop()
	cl.Cycle()
	return m.work(cl, func() uint64 { return cl.Counts().Opened })
}

// instant is a reading of all clocks.
type instant struct {
	at             time.Time
	count          uint64
	server, client time.Duration // processor time; the backend of proxies is with the client
}

func (m *measurement) read(count func() uint64) (now instant, err error) {
	if now.server, err = m.server.CPU(); err != nil {
		return now, err
	}
	if now.client, err = m.client.CPU(); err != nil {
		return now, err
	}
	if m.backend != 0 { // it works for the client, on the same processor
		behind, err := m.backend.CPU()
		if err != nil {
			return now, err
		}
		now.client += behind
	}
	now.count, now.at = count(), time.Now()
	return now, nil
}

// work measures what goes on: count counts the units of work so far.
func (m *measurement) work(cl *Client, count func() uint64) (ComparedFigures, error) {
	if err := m.sleep(max(200*time.Millisecond, min(m.o.Interval/5, time.Second))); err != nil { // to warm up
		return nil, err
	}
	latencies := m.o.Latency != nil && (m.c.Kind == CompareEcho || m.c.Kind == ComparePush)
	if latencies {
		m.o.Latency(cl)
	}
	a, err := m.read(count)
	if err != nil {
		return nil, err
	}
	if err := m.sleep(m.o.Interval); err != nil {
		return nil, err
	}
	b, err := m.read(count)
	if err != nil {
		return nil, err
	}
	if err := m.trouble(cl); err != nil {
		return nil, err
	}
	if a.count == b.count {
		return nil, fmt.Errorf("nothing was done in %s", m.o.Interval)
	}
	seconds, n := b.at.Sub(a.at).Seconds(), float64(b.count-a.count)
	f := ComparedFigures{
		figureRate:   n / seconds,
		figureCPU:    float64(b.server-a.server) / float64(time.Microsecond) / n,
		figureServer: (b.server - a.server).Seconds() / seconds,
		figureClient: (b.client - a.client).Seconds() / seconds,
	}
	if latencies {
		if l := m.o.Latency(cl); l.Count() > 0 {
			f[figureP50], f[figureP99], f[figureP999] = ms(l.At(50)), ms(l.At(99)), ms(l.At(99.9))
		}
	}
	return f, nil
}

// settled is the private memory of the server when it has nothing to do any
// more: it may still be starting, or clearing up.
func (m *measurement) settled() (int64, error) {
	last, err := m.server.CPU()
	for range 20 {
		if err != nil {
			return 0, err
		}
		if err := m.sleep(100 * time.Millisecond); err != nil {
			return 0, err
		}
		var now time.Duration
		if now, err = m.server.CPU(); err == nil && now-last < 500*time.Microsecond {
			break
		}
		last = now
	}
	return m.server.Private()
}

// idle is the private memory and the CPU that connections cost which do
// nothing after one echo each. No garbage collection is forced.
func (m *measurement) idle() (ComparedFigures, error) {
	before, err := m.settled()
	if err != nil {
		return nil, err
	}
	cl, err := m.opened(m.c.Connections)
	if err != nil {
		return nil, err
	}
	defer cl.Stop()
	if err := m.once(cl); err != nil {
		return nil, err
	}
	after, err := m.server.Private()
	if err != nil {
		return nil, err
	}
	quiet := min(max(m.o.Interval, 300*time.Millisecond), 5*time.Second)
	if err := m.sleep(quiet / 2); err != nil { // until what the echoes set off is over
		return nil, err
	}
	a, err := m.server.CPU()
	if err != nil {
		return nil, err
	}
	if err := m.sleep(quiet); err != nil {
		return nil, err
	}
	b, err := m.server.CPU()
	if err != nil {
		return nil, err
	}
	if err := m.trouble(cl); err != nil {
		return nil, err
	}
	return ComparedFigures{
		figureEach:   float64(after-before) / float64(m.c.Connections),
		figureBefore: float64(before),
		figureQuiet:  ms(b-a) / quiet.Seconds(),
	}, nil
}

// collections is how long a cycle of the garbage collector takes in our
// server, without connections and with them.
func (m *measurement) collections() (ComparedFigures, error) {
	f := ComparedFigures{}
	collect := func(cycle, stop string) error {
		line, err := m.p.ask(m.ctx, collectWord)
		if err != nil {
			return err
		}
		var us, stopped float64
		if _, err := fmt.Sscan(line, &us, &stopped); err != nil {
			return fmt.Errorf("the answer %q to %q: %w", line, collectWord, err)
		}
		f[cycle], f[stop] = us, stopped
		return nil
	}
	if err := collect(figureGC0, figureStop0); err != nil {
		return nil, err
	}
	cl, err := m.opened(m.c.Connections)
	if err != nil {
		return nil, err
	}
	defer cl.Stop()
	if err := m.once(cl); err != nil {
		return nil, err
	}
	if err := collect(figureGC, figureStop); err != nil {
		return nil, err
	}
	return f, m.trouble(cl)
}

// once sends a message on each connection and waits for its echo, or for the
// end of the context.
func (m *measurement) once(cl *Client) error {
	home := make(chan bool, 1)
	go func() { home <- cl.Once() }()
	select {
	case ok := <-home:
		if err := m.trouble(cl); err != nil {
			return err
		}
		if !ok {
			return fmt.Errorf("echoes are missing: %d of %d came back in time", cl.Counts().Messages, m.c.Connections)
		}
		return nil
	case <-m.ctx.Done():
		return m.ctx.Err()
	}
}

// sleep waits for d, or until the server or the context has ended.
func (m *measurement) sleep(d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-m.p.ended:
		return m.p.whyEnded()
	case <-m.ctx.Done():
		return m.ctx.Err()
	}
}
