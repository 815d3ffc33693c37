package main

import (
	"context"
	"net"
	"net/http"
	"sync"

	coder "github.com/coder/websocket"
	"github.com/gorilla/websocket"
	"github.com/lxzan/gws"
)

// The libraries that upgrade a request of net/http.

func serveGorilla(deflate bool) func(net.Listener) error {
	upgrader := websocket.Upgrader{WriteBufferPool: &sync.Pool{}, EnableCompression: deflate}
	return func(l net.Listener) error {
		return http.Serve(l, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			c, err := upgrader.Upgrade(w, r, nil)
			if err != nil {
				return // it has answered
			}
			defer c.Close()
			for {
				kind, p, err := c.ReadMessage()
				if err != nil || c.WriteMessage(kind, p) != nil {
					return
				}
			}
		}))
	}
}

func serveCoder(mode coder.CompressionMode) func(net.Listener) error {
	return func(l net.Listener) error {
		return http.Serve(l, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			c, err := coder.Accept(w, r, &coder.AcceptOptions{CompressionMode: mode})
			if err != nil {
				return
			}
			defer c.CloseNow()
			c.SetReadLimit(-1) // else 32 KiB
			ctx := context.Background()
			for {
				kind, p, err := c.Read(ctx)
				if err != nil || c.Write(ctx, kind, p) != nil {
					return
				}
			}
		}))
	}
}

func serveGws(deflate gws.PermessageDeflate) func(net.Listener) error {
	return func(l net.Listener) error {
		upgrader := gws.NewUpgrader(gwsEcho{}, &gws.ServerOption{Recovery: gws.Recovery, CheckUtf8Enabled: true, PermessageDeflate: deflate})
		return http.Serve(l, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			c, err := upgrader.Upgrade(w, r)
			if err != nil {
				return
			}
			go c.ReadLoop() // the goroutine of net/http ends, and what it holds
		}))
	}
}

type gwsEcho struct{ gws.BuiltinEventHandler }

func (gwsEcho) OnPing(c *gws.Conn, p []byte) { c.WritePong(p) }

func (gwsEcho) OnMessage(c *gws.Conn, m *gws.Message) {
	defer m.Close()
	c.WriteMessage(m.Opcode, m.Bytes())
}
