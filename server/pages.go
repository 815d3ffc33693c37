package server

import (
	"crypto/sha256"
	_ "embed"
	"encoding/base64"
	"html/template"
	"io"
	"iter"
	"net/http"
	"strings"
)

//go:embed page.html
var pageSource string

var page = template.Must(template.New("page").Parse(pageSource))

// pagePolicy forbids the page everything but its own style and script, which
// are named by their hashes, and connections to this server.
var pagePolicy = func() string {
	inline := func(tag string) string {
		_, rest, _ := strings.Cut(pageSource, "<"+tag+">")
		text, _, _ := strings.Cut(rest, "</"+tag+">")
		sum := sha256.Sum256([]byte(text))
		return "'sha256-" + base64.StdEncoding.EncodeToString(sum[:]) + "'"
	}
	return "default-src 'none'; connect-src 'self'; img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; style-src " +
		inline("style") + "; script-src " + inline("script")
}()

// Endpoints yields the path of each endpoint and what it does, in the order of Handle.
func (s *Server) Endpoints() iter.Seq2[string, string] {
	return func(yield func(path, about string) bool) {
		for i, p := range s.paths {
			if !yield(p, s.endpoints[i].About) {
				return
			}
		}
	}
}

// Trouble gives /healthz something to ask: what f returns, if anything, is said
// there, as "degraded: ...", with 200 still, since clients are served. To be
// called before Start.
func (s *Server) Trouble(f func() string) { s.trouble = f }

// MountPages puts the server's own pages on its Mux: / names the endpoints and
// lets a browser try the first one, /healthz is for monitors. To be called
// after the last Handle.
func (s *Server) MountPages() {
	type row struct{ Path, About string }
	var rows []row
	for p, about := range s.Endpoints() {
		rows = append(rows, row{p, about})
	}
	s.http.mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, _ *http.Request) {
		h := w.Header()
		h.Set("Content-Type", "text/html; charset=utf-8")
		h.Set("Content-Security-Policy", pagePolicy)
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Referrer-Policy", "no-referrer")
		if err := page.Execute(w, rows); err != nil {
			s.cfg.Log.Debug("the page could not be sent", "error", err)
		}
	})
	s.http.mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		if s.draining.Load() {
			w.WriteHeader(http.StatusServiceUnavailable)
			io.WriteString(w, "draining\n")
			return
		}
		if s.trouble != nil {
			if text := s.trouble(); text != "" {
				io.WriteString(w, "degraded: "+text+"\n")
				return
			}
		}
		io.WriteString(w, "ok\n")
	})
}
