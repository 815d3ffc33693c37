// Package web is the page at / of a server: the WebSocket connection, byte by byte.
//
// A browser does not show its own frames. So the page opens two connections: a mirror, over which the server tells it
// what it saw, and another, at /lab, which is what there is to see. The server taps the bytes of the second one on its
// loop, an inspect.Live explains them on a goroutine of its own, and the records go to the page as JSON. The page draws
// them; it parses nothing.
//
// Which mirror gets the bytes of a connection is said by a random token that the server gave to that mirror alone, so
// nobody sees the connection of another visitor. Both endpoints are for pages of this server only, whatever other origins
// its other endpoints allow: a mirror shows headers that a page may not read otherwise.
//
// The lab sends bytes that no browser would send, by a TCP connection that the server opens to its own listener and to
// nothing else; see lab.go.
//
// All is bounded: mirrors, connections of each, the bytes that wait for the explainer and for a page that reads slowly. What
// there is no room for is counted, and the page says so.
package web

import (
	"embed"
	"html/template"
	"log/slog"
	"net/http"
	"sync"
	"time"

	"wspoll/inspect"
	"wspoll/server"
)

//go:embed page
var files embed.FS

var index = template.Must(template.ParseFS(files, "page/index.html"))

// policy forbids the page everything but its own files and connections to this server.
const policy = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src data:; " +
	"base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

// Limits of the page's side of a server.
const (
	maxMirrors  = 64
	maxConns    = 4         // of a mirror at a time
	maxUnread   = 512 << 10 // bytes on their way to a page that it has not said it has read
	waitPerConn = 256 << 10 // bytes of a connection that wait to be explained
	waitForAll  = 8 << 20
)

// Page is the page of one server.
type Page struct {
	srv        *server.Server
	log        *slog.Logger
	live       *inspect.Live
	lab        lab
	maxMessage uint64
	sleep      time.Duration

	mu      sync.Mutex
	mirrors map[string]*mirror // by token
}

// Config is what a Page is made with.
type Config struct {
	// MaxMessage is the server's limit for a message, 0 for none.
	MaxMessage uint64
	// Sleep is how long a page may be open without a connection and a command; 0 means 15 min.
	Sleep time.Duration
	// Log gets what fails; nil means nothing is logged.
	Log *slog.Logger
}

// New gives srv the page and what belongs to it. To be called after the last Handle and before Start.
func New(srv *server.Server, cfg Config) (*Page, error) {
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	if cfg.Sleep == 0 {
		cfg.Sleep = 15 * time.Minute
	}
	p := &Page{srv: srv, log: cfg.Log, maxMessage: cfg.MaxMessage, sleep: cfg.Sleep, mirrors: map[string]*mirror{}}
	p.lab.init(p)
	if err := srv.Handle("/lab", p.labEndpoint()); err != nil {
		return nil, err
	}
	if err := srv.Handle("/lab/mirror", p.mirrorEndpoint()); err != nil {
		return nil, err
	}
	mux := srv.Mux()
	mux.HandleFunc("GET /{$}", p.index)
	for _, f := range []struct{ name, kind string }{{"style.css", "text/css"}, {"script.js", "text/javascript"}} {
		mux.HandleFunc("GET /page/"+f.name, func(w http.ResponseWriter, r *http.Request) {
			b, err := files.ReadFile("page/" + f.name)
			if err != nil {
				http.NotFound(w, r)
				return
			}
			headers(w, f.kind)
			p.write(w, b)
		})
	}
	mux.HandleFunc("GET /lab/value", p.value)
	p.lab.mount(mux)
	p.live = inspect.NewLive(inspect.LiveOptions{
		Room: waitForAll, PerConn: waitPerConn, Conns: maxMirrors * maxConns,
		Records: p.records, Lost: p.lost, End: p.end,
	})
	return p, nil
}

// Close ends what the page has running. To be called after the server's Shutdown.
func (p *Page) Close() {
	p.live.Close(time.Second)
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, m := range p.mirrors {
		m.stop()
	}
}

func headers(w http.ResponseWriter, kind string) {
	h := w.Header()
	h.Set("Content-Type", kind+"; charset=utf-8")
	h.Set("Content-Security-Policy", policy)
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("Cross-Origin-Opener-Policy", "same-origin")
	h.Set("Cross-Origin-Resource-Policy", "same-origin")
	h.Set("Cache-Control", "no-cache")
}

func (p *Page) write(w http.ResponseWriter, b []byte) {
	if _, err := w.Write(b); err != nil {
		p.log.Debug("the page could not be sent", "error", err)
	}
}

// index is the page itself, with the list of what the server serves.
func (p *Page) index(w http.ResponseWriter, _ *http.Request) {
	type row struct{ Path, About string }
	var rows []row
	for path, about := range p.srv.Endpoints() {
		rows = append(rows, row{path, about})
	}
	headers(w, "text/html")
	if err := index.Execute(w, rows); err != nil {
		p.log.Debug("the page could not be sent", "error", err)
	}
}
