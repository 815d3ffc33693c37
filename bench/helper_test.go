package bench

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"wspoll/server"
)

// patience is how long a test waits for what must happen.
const patience = 30 * time.Second

// targets makes Targets of URLs.
func targets(t testing.TB, urls ...string) (all []Target) {
	t.Helper()
	for _, u := range urls {
		target, err := ParseTarget(u, true)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, target)
	}
	return all
}

// honest is our own server in this process, with its echo at /echo.
func honest(t *testing.T) (*server.Server, string) {
	t.Helper()
	srv, err := server.New(server.Config{MaxMessage: 64 << 20})
	if err != nil {
		t.Fatal(err)
	}
	if err := srv.Handle("/echo", server.Echo()); err != nil {
		t.Fatal(err)
	}
	addr, err := srv.Listen("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	srv.Start()
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		if err := srv.Shutdown(ctx); err != nil {
			t.Error(err)
		}
	})
	return srv, "ws://" + addr.String() + "/echo"
}

// measured is Run, which must not fail.
func measured(t *testing.T, o Options) *Result {
	t.Helper()
	r, err := Run(context.Background(), o)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func errorsOf(r *Result, kind string) (n uint64, details string) {
	for _, e := range r.Errors {
		if e.Kind == kind {
			n += e.Count
			details += e.Detail + "; "
		}
	}
	return n, details
}

// together starts f beside the others, which wait for most of their time, and
// tells of it in a subtest when wait is called.
func together(t *testing.T, waits *[]func(), name string, f func(t testing.TB)) {
	done := make(chan struct{})
	n := &noted{TB: t}
	go func() {
		defer close(done)
		f(n)
	}()
	*waits = append(*waits, func() {
		<-done
		t.Run(name, func(t *testing.T) {
			for _, line := range n.lines {
				t.Error(line)
			}
		})
	})
}

// noted keeps errors for a subtest.
type noted struct {
	testing.TB
	mu    sync.Mutex
	lines []string
}

func (n *noted) Errorf(format string, args ...any) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.lines = append(n.lines, fmt.Sprintf(format, args...))
}
