package conform

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"strconv"
	"strings"
	"sync"

	"wspoll/handshake"
)

// house is the server that tests clients. A client that has a driver for the industry's suite needs to know nothing new:
//
//	/getCaseCount               a text message tells how many cases there are
//	/runCase?case=N&agent=NAME  runs case N, counted from 1; the client sends back whatever comes
//	/updateReports?agent=NAME   the client is done
type house struct {
	ctx   context.Context
	opts  *Options
	cases []Case
	told  func(*Result)

	mu      sync.Mutex
	keys    map[string]int
	results []*Result
	agent   string
	conns   sync.WaitGroup
	done    chan struct{} // closed when a client is done
	once    sync.Once
}

// Listen runs cases against a client that connects to l, and tells each result to told, one at a time. It returns when a
// client has asked for /updateReports or ctx is cancelled, with the results in the order of the cases, those missing that
// were never asked for, and the name that the client gave itself. l is closed.
func Listen(ctx context.Context, l net.Listener, cases []Case, o Options, told func(*Result)) (results []Result, agent string) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	h := &house{
		ctx: ctx, opts: &o, cases: cases, told: told,
		keys: map[string]int{}, results: make([]*Result, len(cases)), done: make(chan struct{}),
	}
	stopped := context.AfterFunc(ctx, func() { l.Close() })
	defer stopped()
	go func() {
		<-h.done
		l.Close()
	}()
	for {
		conn, err := l.Accept()
		if err != nil {
			if ctx.Err() == nil && !h.finished() && !errors.Is(err, net.ErrClosed) {
				continue // out of descriptors, or a client that was gone already
			}
			break
		}
		h.conns.Go(func() { h.serve(conn) })
	}
	h.once.Do(func() { close(h.done) })
	h.conns.Wait()
	for _, r := range h.results {
		if r != nil {
			results = append(results, *r)
		}
	}
	return results, h.agent
}

func (h *house) finished() bool {
	select {
	case <-h.done:
		return true
	default:
		return false
	}
}

// serve is one connection: the request, and what it asks for.
func (h *house) serve(conn net.Conn) {
	s := &Session{ctx: h.ctx, opts: h.opts, house: h}
	s.adopt(conn)
	defer func() {
		s.release()
		// A cancelled context unwinds the session from wherever it waits.
		if v := recover(); v != nil {
			if _, ok := v.(stop); !ok {
				panic(v)
			}
		}
	}()
	req, err := s.readRequest()
	if req == nil && err == nil {
		return // it went away
	}
	var bad *handshake.Refusal
	if err == nil {
		err = handshake.Check(req, &handshake.Options{Origins: []string{"*"}}, &handshake.Answer{})
	}
	if err != nil {
		errors.As(err, &bad)
		conn.Write(handshake.AppendRefusal(nil, bad, false))
	}
	if req == nil {
		return
	}
	s.request = req
	query, _ := url.ParseQuery(string(req.Query))
	switch string(req.Path) {
	case "/getCaseCount":
		if bad == nil {
			s.Open()
			s.Send(s.Frame(fin|text, strconv.AppendInt(nil, int64(len(h.cases)), 10)))
			s.goodbye()
		}
	case "/runCase":
		h.runCase(s, query, bad)
	case "/updateReports":
		h.mu.Lock()
		h.agent = strings.Join(strings.Fields(printable(query.Get("agent"))), " ") // for one line of a terminal
		h.mu.Unlock()
		if bad == nil {
			s.Open()
			s.goodbye()
		}
		h.once.Do(func() { close(h.done) })
	default:
		conn.Write(handshake.AppendRefusal(nil, handshake.RefuseNotFound, false))
	}
}

// goodbye closes, and minds nothing.
func (s *Session) goodbye() {
	s.sendClose(CloseBody(1000, ""))
	for !s.gotClose {
		if _, a := s.next(s.opts.Timeout); a != arrived {
			return
		}
	}
	s.expectEnd(false)
}

// readRequest waits for the request head. Both results are nil when there was none.
func (s *Session) readRequest() (*handshake.Request, error) {
	for {
		// The request aliases what it was parsed from; s.buf goes on changing.
		r := &handshake.Request{}
		n, err := handshake.ParseRequest(append([]byte(nil), s.buf...), nil, r)
		if err != nil {
			return nil, err
		}
		if n > 0 {
			s.buf = s.buf[n:]
			return r, nil
		}
		if !s.more(s.opts.Timeout) {
			return nil, nil
		}
	}
}

// runCase runs the case that the client asks for. A request that is wrong has failed whatever the case is about.
func (h *house) runCase(s *Session, query url.Values, bad *handshake.Refusal) {
	n, err := strconv.Atoi(query.Get("case"))
	if err != nil || n < 1 || n > len(h.cases) {
		if bad == nil {
			s.conn.Write(handshake.AppendRefusal(nil, &handshake.Refusal{
				Status: 404, Msg: fmt.Sprintf("case=%q: must be from 1 to %d", query.Get("case"), len(h.cases)),
			}, false))
		}
		return
	}
	h.mu.Lock()
	h.keys[string(s.request.Key)]++
	h.mu.Unlock()
	c := h.cases[n-1]
	if bad != nil {
		c.Run = func(s *Session) { s.Fail("the request was refused: %v", bad) }
	} else if len(s.buf) > 0 {
		run := c.Run
		c.Run = func(s *Session) {
			s.NonStrict("bytes came behind the request and before the answer (RFC 6455 §4.1)")
			run(s)
		}
	}
	r := runCase(&c, s)
	if r == nil {
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.results[n-1] = r
	if h.told != nil {
		h.told(r)
	}
}
