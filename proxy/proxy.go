package proxy

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"wspoll/epoll"
)

// Proxy is a WebSocket reverse proxy. Make one with New, then Listen and Start.
type Proxy struct {
	cfg       Config
	tls       *tls.Config // for ListenTLS; nil: none
	group     *epoll.Group
	plain     *plain
	shards    []*shard
	addresses *addresses
	table     atomic.Pointer[table]
	reload    sync.Mutex // held by SetRoutes

	started  atomic.Bool
	conns    atomic.Int64 // connections of clients on the loops, each with its backend
	draining atomic.Bool
	closing  atomic.Bool   // drained for long enough: everybody is sent 1001
	empty    chan struct{} // closed when draining and no connection is left
	once     sync.Once
	next     atomic.Uint32 // loop for the next connection that comes from net/http

	stopHealth context.CancelFunc
	health     sync.WaitGroup
}

// New makes a proxy; it does nothing yet.
func New(cfg Config) (*Proxy, error) {
	px := &Proxy{cfg: cfg.withDefaults(), empty: make(chan struct{}), stopHealth: func() {}}
	px.addresses = newAddresses(px.cfg.MaxPerAddress, px.cfg.HandshakesPerSecond)
	t, err := newTable(cfg.Routes, nil, px.cfg.BackendTLS)
	if err != nil {
		return nil, err
	}
	if px.tls, err = epoll.PrepareTLS(px.cfg.TLS, "http/1.1"); err != nil {
		return nil, err
	}
	px.table.Store(t)
	ec := px.cfg.epoll()
	ec.OnPanic = func(l *epoll.Loop, c epoll.Slot, v any) { px.shards[l.Index()].panicked(c, v) }
	px.group, err = epoll.NewGroup(ec, func(l *epoll.Loop) epoll.Handler {
		sh := newShard(px, l)
		px.shards = append(px.shards, sh)
		return sh
	})
	if err != nil {
		return nil, err
	}
	px.plain = newPlain(px)
	return px, nil
}

// SetRoutes puts other routes in the place of those there are. Tunnels that
// are open stay, also those to backends that are gone from the routes. With an
// error everything stays as it was.
func (px *Proxy) SetRoutes(routes []Route) error {
	px.reload.Lock()
	defer px.reload.Unlock()
	t, err := newTable(routes, px.table.Load(), px.cfg.BackendTLS)
	if err != nil {
		return err
	}
	px.table.Store(t)
	return nil
}

// Listen opens a TCP address, "host:port". It returns the address with the
// port that was chosen for port 0. May be called before or after Start.
func (px *Proxy) Listen(addr string) (net.Addr, error) { return px.group.Listen(addr, fromListener) }

// ListenTLS is Listen for clients that begin with TLS, by Config.TLS.
func (px *Proxy) ListenTLS(addr string) (net.Addr, error) {
	if px.tls == nil {
		return nil, errors.New("no TLS was configured")
	}
	return px.group.Listen(addr, fromTLSListener)
}

// Start begins to serve, on goroutines of its own.
func (px *Proxy) Start() {
	px.group.Start()
	px.plain.start()
	px.started.Store(true)
	if px.cfg.HealthEvery > 0 {
		ctx, cancel := context.WithCancel(context.Background())
		px.stopHealth = cancel
		px.health.Go(func() { px.watchHealth(ctx) })
	}
}

// Shutdown refuses new requests with 503 and lets tunnels run for grace; then
// both sides of each are sent Close 1001. It waits until all have ended or ctx
// is done, ends the rest, and the loops. The error tells how many did not end
// by themselves. A proxy that was never started is ended too.
func (px *Proxy) Shutdown(ctx context.Context, grace time.Duration) error {
	px.stopHealth()
	if !px.started.Load() {
		px.Start() // the loops close what they hold
	}
	px.draining.Store(true)
	px.checkEmpty()
	if grace > 0 {
		timer := time.NewTimer(grace)
		select {
		case <-px.empty:
		case <-timer.C:
		case <-ctx.Done():
		}
		timer.Stop()
	}
	px.closing.Store(true)
	px.group.Do(func(l *epoll.Loop) { px.shards[l.Index()].drain() })
	px.checkEmpty()
	var err error
	select {
	case <-px.empty:
	case <-ctx.Done():
		if n := px.conns.Load(); n > 0 {
			err = fmt.Errorf("%d connections did not end in time", n)
		}
	}
	px.group.Unlisten()
	httpErr := px.plain.shutdown(ctx)
	px.group.Stop()
	px.health.Wait()
	return errors.Join(err, httpErr)
}

// count counts a client's connection and reports whether it is one too many.
func (px *Proxy) count() (full bool) {
	n := px.conns.Add(1)
	return px.cfg.MaxConnections > 0 && n+px.plain.open.Load() > int64(px.cfg.MaxConnections)
}

func (px *Proxy) uncount() {
	if px.conns.Add(-1) == 0 && px.draining.Load() {
		px.checkEmpty()
	}
}

// checkEmpty ends the wait of Shutdown when no connection is left.
func (px *Proxy) checkEmpty() {
	if px.conns.Load() == 0 {
		px.once.Do(func() { close(px.empty) })
	}
}

// Stats are the counts of all loops, taken on the loops; after Shutdown what
// they were at the end.
func (px *Proxy) Stats() Stats {
	var mu sync.Mutex
	var sum Stats
	if !px.started.Load() {
		return sum // there is no loop to ask
	}
	px.group.Read(func(l *epoll.Loop) {
		mu.Lock()
		defer mu.Unlock()
		sum.add(&px.shards[l.Index()].stats)
	})
	poll := px.group.Stats()
	sum.Accepted, sum.Starved = poll.Accepted, poll.Starved
	sum.Connections = int(px.conns.Load())
	sum.HTTP = int(px.plain.open.Load())
	sum.Buffered = px.group.Budget().Used()
	return sum
}

// Backends tells how each backend of the routes is.
func (px *Proxy) Backends() (all []Backend) {
	now := clock()
	for _, b := range px.table.Load().inUse() {
		all = append(all, Backend{b.url, b.active.Load(), b.healthy(now)})
	}
	return all
}

// clock is the time that avoiding backends and limiting addresses go by, in
// nanoseconds, the same for all loops and goroutines.
func clock() int64 { return int64(time.Since(began)) }

var began = time.Now()
