package server

import (
	"context"
	"fmt"
	"io"
	"iter"
	"net"
	"net/http"
)

// Endpoints yields the path of each endpoint and what it does, in the order of
// Handle. Those without an About are left out.
func (s *Server) Endpoints() iter.Seq2[string, string] {
	return func(yield func(path, about string) bool) {
		for i, p := range s.paths {
			if about := s.endpoints[i].About; about != "" && !yield(p, about) {
				return
			}
		}
	}
}

// Trouble gives /healthz something to ask: what f returns, if anything, is said
// there, as "degraded: ...", with 200 still, since clients are served. To be
// called before Start.
func (s *Server) Trouble(f func() string) { s.trouble = f }

// Degraded is what the function of Trouble says now; "" when nothing is wrong.
func (s *Server) Degraded() string {
	if s.trouble == nil {
		return ""
	}
	return s.trouble()
}

// MountHealth puts /healthz on the server's Mux, which is for monitors.
func (s *Server) MountHealth() {
	s.http.mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		if s.draining.Load() {
			w.WriteHeader(http.StatusServiceUnavailable)
			io.WriteString(w, "draining\n")
			return
		}
		if text := s.Degraded(); text != "" {
			io.WriteString(w, "degraded: "+text+"\n")
			return
		}
		io.WriteString(w, "ok\n")
	})
}

// MountList puts a list of the endpoints on the server's Mux as /, in plain
// text.
func (s *Server) MountList() {
	s.http.mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		w.Header().Set("X-Content-Type-Options", "nosniff")
		for p, about := range s.Endpoints() {
			fmt.Fprintf(w, "%-15s %s\n", p, about)
		}
	})
}

// WireBytes are the bytes that the connection of a plain HTTP request has
// brought and taken until now, TCP and IP not counted; conn numbers the
// connections. ok is false for a request that came through another server.
func WireBytes(r *http.Request) (conn uint64, in, out int64, ok bool) {
	c, ok := r.Context().Value(handedKey{}).(*handed)
	if !ok {
		return 0, 0, 0, false
	}
	return c.number, c.in.Load(), c.out.Load(), true
}

// handedKey is the key of a request's connection in its context.
type handedKey struct{}

func withConn(ctx context.Context, c net.Conn) context.Context {
	return context.WithValue(ctx, handedKey{}, c)
}
