package main

import (
	"net"
	"net/http"
	"sync"

	"github.com/gorilla/websocket"
	"github.com/lxzan/gws"
)

// The libraries that encode a message once for many connections: what one
// client sends goes to all others. Each does it as its documentation shows:
// gws hands the message to the connections' queues, gorilla writes it from the
// goroutine of the sender.

// crowd is who is connected.
type crowd[C comparable] struct {
	mu  sync.Mutex
	all map[C]struct{}
}

func (c *crowd[C]) join(conn C) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.all == nil {
		c.all = map[C]struct{}{}
	}
	c.all[conn] = struct{}{}
}

func (c *crowd[C]) leave(conn C) {
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.all, conn)
}

// others calls f for everybody else.
func (c *crowd[C]) others(conn C, f func(C)) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for x := range c.all {
		if x != conn {
			f(x)
		}
	}
}

func pushGorilla(l net.Listener) error {
	upgrader := websocket.Upgrader{WriteBufferPool: &sync.Pool{}}
	var all crowd[*websocket.Conn]
	return http.Serve(l, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c, err := upgrader.Upgrade(w, r, nil)
		if err != nil {
			return // it has answered
		}
		defer c.Close()
		all.join(c)
		defer all.leave(c)
		for {
			kind, p, err := c.ReadMessage()
			if err != nil {
				return
			}
			m, err := websocket.NewPreparedMessage(kind, p)
			if err != nil {
				return
			}
			all.others(c, func(x *websocket.Conn) { x.WritePreparedMessage(m) }) // one writer at a time: others holds the lock
		}
	}))
}

func pushGws(l net.Listener) error {
	upgrader := gws.NewUpgrader(&gwsPush{}, &gws.ServerOption{Recovery: gws.Recovery, CheckUtf8Enabled: true})
	return http.Serve(l, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c, err := upgrader.Upgrade(w, r)
		if err != nil {
			return
		}
		go c.ReadLoop()
	}))
}

type gwsPush struct {
	gws.BuiltinEventHandler
	all crowd[*gws.Conn]
}

func (g *gwsPush) OnOpen(c *gws.Conn) { g.all.join(c) }

func (g *gwsPush) OnClose(c *gws.Conn, _ error) { g.all.leave(c) }

func (g *gwsPush) OnMessage(c *gws.Conn, m *gws.Message) {
	defer m.Close()
	b := gws.NewBroadcaster(m.Opcode, m.Bytes())
	defer b.Close()
	g.all.others(c, func(x *gws.Conn) { b.Broadcast(x) })
}
