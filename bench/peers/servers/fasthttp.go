package main

import (
	"net"
	"sync"

	"github.com/fasthttp/websocket"
	"github.com/valyala/fasthttp"
)

func serveFasthttp(deflate bool) func(net.Listener) error {
	upgrader := websocket.FastHTTPUpgrader{WriteBufferPool: &sync.Pool{}, EnableCompression: deflate}
	return func(l net.Listener) error {
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
}
