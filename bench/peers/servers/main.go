// Servers runs the echo of another library, for wspoll bench compare:
//
//	servers gorilla 127.0.0.1:0     # prints ws://127.0.0.1:PORT/ and serves until SIGTERM
//	servers gws 127.0.0.1:0 push    # sends what one client sends to all others, if it can
//	servers list                    # prints the names
//
// Each echo is what the library's own documentation shows, with the settings
// that it recommends for many connections, without compression. Those that are
// not in the list, gorilla-deflate and the like, are the same with compression
// as the library offers it, for wspoll conform. The addresses are those of
// loopback only: these servers check nothing.
package main

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"runtime/debug"
	"slices"
	"strings"
	"syscall"
	"text/tabwriter"

	coder "github.com/coder/websocket"
	"github.com/lxzan/gws"
)

// A peer is a server that can be run.
type peer struct {
	name   string
	module string // of the library; its version is shown
	about  string
	tcp    bool                     // echoes bare TCP
	serve  func(net.Listener) error // returns only if it fails
	push   func(net.Listener) error // sends what one client sends to all others; nil: has no way of its own for that
}

var peers = []peer{
	{"gorilla", "github.com/gorilla/websocket", "goroutine each, pooled write buffers", false, serveGorilla(false), pushGorilla},
	{"coder", "github.com/coder/websocket", "goroutine each", false, serveCoder(coder.CompressionDisabled), nil},
	{"gws", "github.com/lxzan/gws", "goroutine each, callbacks", false, serveGws(gws.PermessageDeflate{}), pushGws},
	{"gobwas", "github.com/gobwas/ws", "wsutil, goroutine each", false, serveGobwas, nil},
	{"gobwas-epoll", "github.com/gobwas/ws", "wsutil, a simple epoll over net.Conn", false, serveGobwasEpoll, nil},
	{"netpoll", "github.com/cloudwego/netpoll", "gobwas/ws on its zero-copy buffers", false, serveNetpoll, nil},
	{"fasthttp", "github.com/fasthttp/websocket", "on fasthttp, goroutine each, pooled write buffers", false, serveFasthttp(false), nil},
	{"tcp-go", "", "bare TCP in plain Go, goroutine each: a floor", true, serveTCP, nil},
}

// deflating are servers that negotiate permessage-deflate, with as much of it
// as the library has.
var deflating = []peer{
	{"gorilla-deflate", "github.com/gorilla/websocket", "no context takeover", false, serveGorilla(true), nil},
	{"coder-deflate", "github.com/coder/websocket", "context takeover", false, serveCoder(coder.CompressionContextTakeover), nil},
	{"gws-deflate", "github.com/lxzan/gws", "context takeover", false, serveGws(gws.PermessageDeflate{
		Enabled: true, ServerContextTakeover: true, ClientContextTakeover: true, ServerMaxWindowBits: 15, ClientMaxWindowBits: 15, Threshold: 1,
	}), nil},
	{"fasthttp-deflate", "github.com/fasthttp/websocket", "no context takeover", false, serveFasthttp(true), nil},
}

func main() {
	if err := run(os.Args[1:], os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "servers: "+err.Error())
		os.Exit(1)
	}
}

func run(args []string, stdout io.Writer) error {
	switch {
	case len(args) == 1 && args[0] == "list":
		return list(stdout)
	case len(args) < 2 || len(args) > 3 || len(args) == 3 && args[2] != "push":
		return errors.New("call it with a name and an address, like gorilla 127.0.0.1:0, and push behind them if it is to push; or with list")
	}
	for _, p := range slices.Concat(peers, deflating) {
		if p.name == args[0] {
			if len(args) == 3 {
				if p.serve = p.push; p.push == nil {
					return fmt.Errorf("%s does not push", p.name)
				}
			}
			return p.run(args[1], stdout)
		}
	}
	return fmt.Errorf("there is no server %q; see servers list", args[0])
}

// list prints a line for each server: its name, the library with its version,
// a few words.
func list(w io.Writer) error {
	versions := map[string]string{}
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, m := range info.Deps {
			versions[m.Path] = m.Version
		}
	}
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for _, p := range peers {
		about := p.about
		if p.module != "" {
			about = strings.TrimSpace(strings.TrimPrefix(p.module, "github.com/")+" "+versions[p.module]) + ", " + about
		}
		if p.push != nil {
			about += "; pushes"
		}
		fmt.Fprintf(t, "%s\t%s\n", p.name, about)
	}
	return t.Flush()
}

// run serves on addr until SIGTERM or SIGINT.
func (p *peer) run(addr string, stdout io.Writer) error {
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, syscall.SIGTERM, os.Interrupt)
	l, err := net.Listen("tcp4", addr)
	if err != nil {
		return err
	}
	bound := l.Addr().(*net.TCPAddr)
	if !bound.IP.IsLoopback() {
		return fmt.Errorf("%s is not an address of loopback", addr)
	}
	ended := make(chan error, 1)
	go func() { ended <- p.serve(l) }()
	if p.tcp {
		fmt.Fprintf(stdout, "tcp://%s\n", bound)
	} else {
		fmt.Fprintf(stdout, "ws://%s/\n", bound)
	}
	select {
	case err := <-ended:
		return fmt.Errorf("%s: %w", p.name, err)
	case <-stop:
		return nil
	}
}

// accept gives each connection of l to f.
func accept(l net.Listener, f func(net.Conn)) error {
	for {
		conn, err := l.Accept()
		if err != nil {
			return err
		}
		f(conn)
	}
}
