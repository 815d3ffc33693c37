package bench

import (
	"fmt"
	"net"
	"strconv"
	"time"

	"wspoll/epoll"
	"wspoll/handshake"

	"golang.org/x/sys/unix"
)

// Delivery is what N clients cost and got that wanted to know of every update
// of a value: those that asked for it again and again, or those that were told.
type Delivery struct {
	Way       string  `json:"way"` // polling or push
	Clients   int     `json:"clients"`
	Seconds   float64 `json:"seconds"`
	Updates   uint64  `json:"updates"`    // that the clients saw, all together
	Missed    uint64  `json:"missed"`     // that were overwritten before a client saw them
	Requests  uint64  `json:"requests"`   // HTTP requests, or none
	WireIn    uint64  `json:"wire_in"`    // bytes of TCP payload from the server
	WireOut   uint64  `json:"wire_out"`   // and to it
	ServerCPU float64 `json:"server_cpu"` // processors used
	Late      Latency `json:"late"`       // from the update to a client's knowing of it
	Failures  uint64  `json:"failures"`
}

// Pollers are clients that ask for a value over HTTP, each on a connection of
// its own that it keeps, as a page with a timer does.
type Pollers struct {
	addr     *net.TCPAddr
	request  []byte
	interval time.Duration
	timeout  time.Duration

	group *epoll.Group
	loop  *epoll.Loop
	conns epoll.Table[poller]
	resp  handshake.Response
	got   Delivery
	up    int
	ready chan struct{}
	want  int
}

// poller is the state of one of them. No pointers.
type poller struct {
	last  uint64 // number of the newest update that it knows, plus one
	next  int64  // when it asks the next time, in the terms of the loop's Now
	asked bool
}

// NewPollers opens n connections that each ask for path every interval, evenly
// spread over it. They begin at once.
func NewPollers(addr *net.TCPAddr, path string, n int, interval time.Duration) (*Pollers, error) {
	p := &Pollers{addr: addr, interval: interval, timeout: 10 * time.Second, ready: make(chan struct{}), want: n}
	p.request = fmt.Appendf(nil, "GET %s HTTP/1.1\r\nHost: %s\r\nAccept: text/plain\r\nCache-Control: no-cache\r\n\r\n", path, addr)
	group, err := epoll.NewGroup(epoll.Config{}, func(l *epoll.Loop) epoll.Handler {
		p.loop = l
		return p
	})
	if err != nil {
		return nil, err
	}
	p.group = group
	group.Start()
	group.Do(func(l *epoll.Loop) {
		for i := range n {
			c, e := l.Dial(addr, nil, 0, p.timeout)
			if e != nil {
				err = e
				return
			}
			p.conns.Grow(c)
			*p.conns.At(c) = poller{next: int64(interval) * int64(i) / int64(n)} // from its Opened
		}
	})
	if err == nil {
		select {
		case <-p.ready:
		case <-time.After(p.timeout):
			err = fmt.Errorf("%d of %d connections could not be opened within %s", n-p.up, n, p.timeout)
		}
	}
	if err != nil {
		group.Stop()
		return nil, err
	}
	return p, nil
}

// Counts are the figures so far.
func (p *Pollers) Counts() (d Delivery) {
	p.group.Do(func(*epoll.Loop) {
		d = p.got
		d.Late = Latency{}
		d.Late.Merge(&p.got.Late)
	})
	return d
}

// Stop ends them.
func (p *Pollers) Stop() { p.group.Stop() }

// Opened waits for its turn.
func (p *Pollers) Opened(c epoll.Slot, _ uint32) {
	if p.up++; p.up == p.want {
		close(p.ready)
	}
	p.conns.At(c).next += p.loop.Now()
	p.wait(c)
}

// wait sets the deadline for the next request. Deadlines come up to a tick
// late; what was late once does not make the next one late as well.
func (p *Pollers) wait(c epoll.Slot) {
	p.loop.SetDeadline(c, max(1, time.Duration(p.conns.At(c).next-p.loop.Now())-epoll.Tick/2))
}

// Expired asks, unless the last answer is still missing: then this turn is lost.
func (p *Pollers) Expired(c epoll.Slot) {
	k := p.conns.At(c)
	k.next += int64(p.interval)
	p.wait(c)
	if k.asked {
		p.got.Failures++
		return
	}
	k.asked = true
	p.got.Requests++
	p.got.WireOut += uint64(len(p.request))
	p.loop.Write(c, p.request)
}

// Data reads an answer.
func (p *Pollers) Data(c epoll.Slot, in []byte) int {
	n, err := handshake.ParseResponse(in, nil, &p.resp)
	if err != nil {
		return p.broke(c, len(in))
	}
	if n == 0 {
		return 0
	}
	value, _ := p.resp.Get("Content-Length")
	size, err := strconv.Atoi(string(value))
	if err != nil || p.resp.Status != 200 || size < 0 || size > 32<<10 {
		return p.broke(c, len(in))
	}
	if len(in) < n+size {
		return 0
	}
	p.got.WireIn += uint64(n + size)
	k := p.conns.At(c)
	k.asked = false
	if seq, at, ok := parseStamp(in[n : n+size]); ok && seq+1 > k.last {
		if k.last > 0 {
			p.got.Missed += seq - k.last
			p.got.Updates++
			p.got.Late.Record(time.Now().UnixNano() - at)
		}
		k.last = seq + 1 // the first one seen is as old as it is: no lateness
	}
	return n + size
}

func (p *Pollers) broke(c epoll.Slot, n int) int {
	p.got.Failures++
	p.loop.Close(c)
	return n
}

// EOF is a failure: the connection was to be kept.
func (p *Pollers) EOF(c epoll.Slot) { p.broke(c, 0) }

// Drained needs nothing.
func (p *Pollers) Drained(epoll.Slot) {}

// Closed counts one that the server or the network ended.
func (p *Pollers) Closed(_ epoll.Slot, cause epoll.Cause, _ unix.Errno) {
	if cause != epoll.CauseLocal {
		p.got.Failures++
	}
}

// Polled measures pollers of an address for a while.
func Polled(addr *net.TCPAddr, path string, n int, interval, d time.Duration, server Process) (Delivery, error) {
	p, err := NewPollers(addr, path, n, interval)
	if err != nil {
		return Delivery{}, err
	}
	defer p.Stop()
	time.Sleep(interval) // each has asked once: from here on it is the steady state
	return delivered("polling", n, d, server, p.Counts)
}

// Told measures subscribers of a target for a while.
func Told(t Target, n int, d time.Duration, server Process) (Delivery, error) {
	c, err := New(Config{Targets: []Target{t}, Connections: n, Subscribe: true})
	if err != nil {
		return Delivery{}, err
	}
	defer c.Stop()
	c.Open(nil)
	if e := c.Errors(); len(e) > 0 {
		return Delivery{}, fmt.Errorf("a connection could not be opened: %s", firstError(e))
	}
	return delivered("push", n, d, server, func() (got Delivery) {
		c.do(func() {
			got = Delivery{
				Updates: c.counts.Messages, WireIn: c.counts.WireIn, WireOut: c.counts.WireOut, Failures: c.errs.total,
			}
			got.Late.Merge(&c.interval)
		})
		return got
	})
}

// delivered is what was counted between now and d later.
func delivered(way string, n int, d time.Duration, server Process, counts func() Delivery) (Delivery, error) {
	before := counts()
	cpu0, err := server.CPU()
	if err != nil {
		return Delivery{}, err
	}
	start := time.Now()
	time.Sleep(d)
	after := counts()
	took := time.Since(start)
	cpu1, err := server.CPU()
	if err != nil {
		return Delivery{}, err
	}
	after.Way, after.Clients, after.Seconds = way, n, took.Seconds()
	after.ServerCPU = float64(cpu1-cpu0) / float64(took)
	after.Updates -= before.Updates
	after.Missed -= before.Missed
	after.Requests -= before.Requests
	after.WireIn -= before.WireIn
	after.WireOut -= before.WireOut
	after.Failures -= before.Failures
	return after, nil
}
