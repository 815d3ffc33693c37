package main

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"os"
	"os/signal"
	"runtime"
	"time"

	"wspoll/server"

	"github.com/gobwas/ws"
	"github.com/gobwas/ws/wsutil"
	"golang.org/x/sys/unix"
)

// peer is a server of this program's own: "wspoll" is ours in a process that
// collects garbage when told to, an address is gobwas/ws with a goroutine for
// each connection.
func peer(what string) {
	var err error
	if what == "wspoll" {
		err = collectingServer()
	} else {
		err = gobwasServer(what)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "measure: peer:", err)
		os.Exit(1)
	}
}

func collectingServer() error {
	s, err := server.New(server.Config{})
	if err != nil {
		return err
	}
	if err := s.Handle("/wshandler", server.Echo()); err != nil {
		return err
	}
	addr, err := s.Listen("127.0.0.1:0")
	if err != nil {
		return err
	}
	s.Start()
	fmt.Printf("ws://%s/wshandler\n", addr)
	go func() {
		for in := bufio.NewScanner(os.Stdin); in.Scan(); {
			least := time.Duration(1 << 62)
			var pause uint64
			for range 20 {
				start := time.Now()
				runtime.GC()
				if d := time.Since(start); d < least {
					least = d
					var m runtime.MemStats
					runtime.ReadMemStats(&m)
					pause = m.PauseNs[(m.NumGC+255)%256]
				}
			}
			fmt.Printf("%.0f us, the world stopped for %.0f us of it\n", float64(least.Nanoseconds())/1000, float64(pause)/1000)
		}
	}()
	term := make(chan os.Signal, 1)
	signal.Notify(term, unix.SIGTERM)
	<-term
	ctx, cancel := context.WithCancel(context.Background())
	cancel() // nobody to wait for
	s.Shutdown(ctx)
	return nil
}

func gobwasServer(addr string) error {
	l, err := net.Listen("tcp4", addr)
	if err != nil {
		return err
	}
	for {
		conn, err := l.Accept()
		if err != nil {
			return err
		}
		go func() {
			defer conn.Close()
			if _, err := ws.Upgrade(conn); err != nil {
				return
			}
			for {
				msg, op, err := wsutil.ReadClientData(conn)
				if err != nil || wsutil.WriteServerMessage(conn, op, msg) != nil {
					return
				}
			}
		}()
	}
}
