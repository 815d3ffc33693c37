package main

import (
	"context"
	"net"

	"github.com/cloudwego/netpoll"
	"github.com/gobwas/ws"
	"github.com/gobwas/ws/wsutil"
)

// serveNetpoll has gobwas/ws read from netpoll's buffers and write into them.
// The replies to what has arrived together leave together.
func serveNetpoll(l net.Listener) error {
	nl, err := netpoll.ConvertListener(l)
	if err != nil {
		return err
	}
	loop, err := netpoll.NewEventLoop(
		func(_ context.Context, conn netpoll.Connection) error {
			rw := buffered{conn}
			for conn.Reader().Len() > 0 {
				p, op, err := wsutil.ReadClientData(rw)
				if err == nil {
					err = wsutil.WriteServerMessage(rw, op, p)
				}
				if err != nil {
					conn.Writer().Flush() // the Close that answers the peer's
					return conn.Close()
				}
			}
			return conn.Writer().Flush()
		},
		netpoll.WithOnConnect(func(ctx context.Context, conn netpoll.Connection) context.Context {
			if _, err := ws.Upgrade(conn); err != nil {
				conn.Close()
			}
			return ctx
		}),
	)
	if err != nil {
		return err
	}
	return loop.Serve(nl)
}

// buffered writes without sending, until there is nothing left to read.
type buffered struct{ netpoll.Connection }

func (b buffered) Read(p []byte) (int, error) {
	if b.Reader().Len() == 0 {
		if err := b.Writer().Flush(); err != nil {
			return 0, err
		}
	}
	return b.Connection.Read(p)
}

func (b buffered) Write(p []byte) (int, error) {
	// A copy, because gobwas takes header buffers from a pool and back.
	dst, err := b.Writer().Malloc(len(p))
	if err != nil {
		return 0, err
	}
	return copy(dst, p), nil
}
