package bench

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"runtime"
	"time"

	"wspoll/server"
)

// collectWord is what a server of ServeCollecting waits for on its stdin.
const collectWord = "gc"

// collections is how many garbage collections it then does.
const collections = 20

// ServeCollecting serves the echo of wspoll serve in a process that collects
// garbage when told to: for each line "gc" it writes how long the shortest of
// some cycles took, and how long the world was stopped in it, in microseconds.
// It returns at the end of ctx or of in.
func ServeCollecting(ctx context.Context, in io.Reader, out io.Writer) error {
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
	fmt.Fprintf(out, "ws://%s/wshandler\n", addr)
	over := make(chan struct{})
	go func() {
		defer close(over)
		for sc := bufio.NewScanner(in); sc.Scan(); {
			if sc.Text() == collectWord {
				cycle, stopped := shortestCycle()
				fmt.Fprintf(out, "%.1f %.1f\n", cycle, stopped)
			}
		}
	}()
	select {
	case <-ctx.Done():
	case <-over:
	}
	done, cancel := context.WithCancel(context.Background())
	cancel() // nobody to wait for
	s.Shutdown(done)
	return nil
}

// shortestCycle is in microseconds.
func shortestCycle() (cycle, stopped float64) {
	least := time.Duration(1<<63 - 1)
	var m runtime.MemStats
	for range collections {
		start := time.Now()
		runtime.GC()
		if d := time.Since(start); d < least {
			runtime.ReadMemStats(&m)
			least, stopped = d, float64(m.PauseNs[(m.NumGC+255)%256])/1000
		}
	}
	return float64(least.Nanoseconds()) / 1000, stopped
}
