package server

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"

	"wspoll/epoll"
	"wspoll/handshake"
)

// Server serves WebSocket connections on epoll loops, and everything else on
// the same ports with net/http. Make one with New, give it endpoints with
// Handle and Mux, then Listen and Start. It is also of use without Listen: see
// Upgrade.
type Server struct {
	cfg   Config
	tls   *tls.Config // nil: none
	group *epoll.Group
	http  *httpSide

	topics     *Topics
	sliceSends int        // of a fan-out, before the other connections have their turn
	manyGroups int        // on a loop, before no more are made for compression
	aligned    []*aligned // heart beats of all connections at once
	trouble    func() string

	// Written before Start, only read afterwards.
	endpoints []*Endpoint
	paths     []string
	byPath    map[string]uint16
	shards    []*shard

	started  atomic.Bool
	conns    atomic.Int64 // connections on the loops
	draining atomic.Bool
	empty    chan struct{} // closed when draining and no connection is left
	once     sync.Once
	next     atomic.Uint32 // loop for the next adopted connection
	blocking sync.WaitGroup
	running  atomic.Int64 // goroutines in blocking
}

// New makes a server; it does nothing yet.
func New(cfg Config) (*Server, error) {
	s := &Server{cfg: cfg.withDefaults(), byPath: map[string]uint16{}, empty: make(chan struct{}), sliceSends: sliceSends, manyGroups: manyGroups}
	if err := s.cfg.Handshake.Validate(); err != nil {
		return nil, err
	}
	var err error
	if s.tls, err = epoll.PrepareTLS(s.cfg.TLS, "http/1.1"); err != nil {
		return nil, err
	}
	if s.topics, err = newTopics(s); err != nil {
		return nil, err
	}
	ec := s.cfg.epoll()
	ec.OnAlarm = s.alarm
	ec.OnPanic = func(l *epoll.Loop, c epoll.Slot, v any) { s.shards[l.Index()].panicked(c, v) }
	s.group, err = epoll.NewGroup(ec, func(l *epoll.Loop) epoll.Handler {
		sh := newShard(s, l)
		s.shards = append(s.shards, sh)
		return sh
	})
	if err != nil {
		return nil, err
	}
	s.http = newHTTPSide(s)
	return s, nil
}

// Handle makes ep the WebSocket endpoint of path, "/" and what follows it. One
// that ends in another "/" is for every path with one more part behind it. To
// be called before Start.
func (s *Server) Handle(path string, ep *Endpoint) error {
	switch n := btoi(ep.Message != nil) + btoi(ep.Piece != nil) + btoi(ep.Blocking != nil); {
	case s.started.Load():
		return fmt.Errorf("endpoint %s: the server has been started", path)
	case !strings.HasPrefix(path, "/"):
		return fmt.Errorf("endpoint %q: a path begins with /", path)
	case s.handles(path):
		return fmt.Errorf("endpoint %s: there is one already", path)
	case n > 1:
		return fmt.Errorf("endpoint %s: more than one of Message, Piece and Blocking is set", path)
	}
	s.byPath[path] = uint16(len(s.endpoints))
	s.endpoints = append(s.endpoints, ep)
	s.paths = append(s.paths, path+ep.tail)
	s.http.mux.Handle(path, s) // for requests on a connection that net/http has already
	return nil
}

func (s *Server) handles(path string) bool { _, ok := s.byPath[path]; return ok }

// endpointOf is the index of the endpoint for a path.
func (s *Server) endpointOf(path []byte) (ep uint16, ok bool) {
	if ep, ok = s.byPath[string(path)]; ok {
		return ep, true
	}
	if i := bytes.LastIndexByte(path, '/'); i > 0 {
		ep, ok = s.byPath[string(path[:i+1])]
	}
	return ep, ok
}

// check applies the rules of the handshake, and those of the endpoint, to a request.
func (s *Server) check(ep uint16, r *handshake.Request, a *handshake.Answer) error {
	o := &s.cfg.Handshake
	if f := s.endpoints[ep].Uncompressed; f != nil && o.Deflate != nil && f(r) {
		plain := *o
		plain.Deflate = nil
		o = &plain
	}
	if err := handshake.Check(r, o, a); err != nil {
		return err
	}
	if f := s.endpoints[ep].accept; f != nil {
		if ref := f(r); ref != nil {
			return ref
		}
	}
	return nil
}

func btoi(b bool) int {
	if b {
		return 1
	}
	return 0
}

// Mux is for plain HTTP requests; patterns may be added to it before Start.
func (s *Server) Mux() *http.ServeMux { return s.http.mux }

// Listen opens a TCP address, "host:port". It returns the address with the
// port that was chosen for port 0. May be called before or after Start.
func (s *Server) Listen(addr string) (net.Addr, error) { return s.group.Listen(addr, tagPlain) }

// ListenTLS is Listen for connections that begin with TLS, by Config.TLS.
func (s *Server) ListenTLS(addr string) (net.Addr, error) {
	if s.tls == nil {
		return nil, errors.New("no TLS was configured")
	}
	return s.group.Listen(addr, tagTLS)
}

// Tags of connections on a loop.
const (
	tagPlain   uint32 = iota // from Listen
	tagTLS                   // from ListenTLS
	tagAdopted               // from net/http
)

// Start begins to serve, on goroutines of its own.
func (s *Server) Start() {
	s.group.Start()
	s.http.start()
	s.started.Store(true)
}

// Shutdown takes no new connections and no more messages for topics, sends
// Close 1001 to every WebSocket connection when it has what was published to
// its topics before, and waits until all have ended or ctx is done; then it ends the
// rest, and the loops. The error tells how many did not end by themselves. A
// server that was never started is ended too.
func (s *Server) Shutdown(ctx context.Context) error {
	if !s.started.Load() {
		s.Start() // the loops close what they hold
	}
	s.draining.Store(true)
	s.topics.stop()
	s.group.Unlisten()
	s.group.Do(func(l *epoll.Loop) { s.shards[l.Index()].depart() })
	s.checkEmpty()
	httpErr := s.http.shutdown(ctx)
	var err error
	select {
	case <-s.empty:
	case <-ctx.Done():
		if n := s.conns.Load(); n > 0 {
			err = fmt.Errorf("%d connections did not end in time", n)
		}
	}
	s.group.Stop()
	blocked := make(chan struct{})
	go func() { s.blocking.Wait(); close(blocked) }()
	select {
	case <-blocked:
	case <-ctx.Done():
		if n := s.running.Load(); n > 0 {
			err = errors.Join(err, fmt.Errorf("%d Blocking functions did not end in time", n))
		}
	}
	return errors.Join(err, httpErr)
}

// depart tells the connections of a loop that the server goes down.
func (sh *shard) depart() {
	sh.leaving = true
	all := false
	defer func() {
		if !all { // the Close of an endpoint panicked: the others are told soon
			sh.loop.Post(sh.depart)
		}
	}()
	sh.loop.Each(func(c epoll.Slot) {
		st := sh.conns.At(c)
		switch {
		case st.phase == phaseOpen:
			sh.goodbye(c, st)
		case st.phase == phaseHead && st.flags&flagSpoke == 0:
			st.reason = ReasonDrain
			sh.loop.Close(c) // a connection made in reserve, or one that will retry
		}
	})
	all = true
}

// countConn counts a new connection and reports whether it is one too many.
func (s *Server) countConn() (full bool) {
	n := s.conns.Add(1)
	return s.cfg.MaxConnections > 0 && n+s.http.open.Load() > int64(s.cfg.MaxConnections)
}

func (s *Server) uncountConn() {
	if s.conns.Add(-1) == 0 && s.draining.Load() {
		s.checkEmpty()
	}
}

// checkEmpty ends the wait of Shutdown when no connection is left.
func (s *Server) checkEmpty() {
	if s.conns.Load() == 0 {
		s.once.Do(func() { close(s.empty) })
	}
}

// Stats are the counts of all loops, taken on the loops; after Shutdown what
// they were at the end. Not to be called from an Endpoint's functions.
func (s *Server) Stats() Stats {
	var mu sync.Mutex
	var sum Stats
	if !s.started.Load() {
		return sum // there is no loop to ask
	}
	s.group.Read(func(l *epoll.Loop) {
		mu.Lock()
		defer mu.Unlock()
		sum.add(&s.shards[l.Index()].stats)
	})
	poll := s.group.Stats()
	sum.Connections, sum.Accepted, sum.Starved = poll.Open, poll.Accepted, poll.Starved
	sum.HTTP = int(s.http.open.Load())
	sum.Buffered = s.group.Budget().Used()
	sum.Published = s.topics.published.Load()
	for i := range sum.Dropped {
		sum.Dropped[i] = s.topics.dropped[i].Load()
	}
	return sum
}
