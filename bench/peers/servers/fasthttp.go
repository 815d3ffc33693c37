package main

import (
	"net"
	"sync"

	"github.com/fasthttp/websocket"
	"github.com/valyala/fasthttp"
)

func serveFasthttp(l net.Listener) error {
	upgrader := websocket.FastHTTPUpgrader{WriteBufferPool: &sync.Pool{}}
	return fasthttp.Serve(l, func(ctx *fasthttp.RequestCtx) {
		// An error has been answered.
		_ = upgrader.Upgrade(ctx, func(c *websocket.Conn) {
			for {
				kind, p, err := c.ReadMessage()
				if err != nil || c.WriteMessage(kind, p) != nil {
					return
				}
			}
		})
	})
}
