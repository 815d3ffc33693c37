package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"text/tabwriter"
	"time"

	"wspoll/bench"
	"wspoll/server"

	"github.com/gobwas/ws"
	"github.com/spf13/cobra"
)

// pollingOptions are the flags of bench polling.
type pollingOptions struct {
	clients  int
	interval time.Duration
	every    time.Duration
	duration time.Duration
	size     int
	json     bool
	serve    bool
}

func pollingCommand() *cobra.Command {
	var o pollingOptions
	cmd := &cobra.Command{
		Use:   "polling",
		Short: "Clients that ask again and again against clients that are told, for the same updates",
		Long: `Clients that ask again and again against clients that are told, for the same updates.

A server of its own has a value that changes every --every. First --connections clients poll it over
HTTP every --interval, then as many are told of each change over WebSocket: requests, bytes on
the wire, CPU of the server, and how late each client knew.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if err := o.check(); err != nil {
				return err
			}
			if o.serve {
				return failed(servePolling(cmd.OutOrStdout(), &o))
			}
			return failed(comparePolling(cmd.OutOrStdout(), cmd.ErrOrStderr(), &o))
		},
	}
	f := cmd.Flags()
	f.SortFlags = false
	f.IntVarP(&o.clients, "connections", "c", 1000, "clients, each with a connection")
	f.DurationVar(&o.interval, "interval", time.Second, "a polling client asks so often")
	f.DurationVar(&o.every, "every", time.Second, "the value changes so often")
	f.DurationVarP(&o.duration, "duration", "d", 10*time.Second, "how long to measure each way")
	f.IntVar(&o.size, "size", 128, "bytes of the value")
	f.BoolVar(&o.json, "json", false, "write the figures as JSON")
	f.BoolVar(&o.serve, "serve", false, "be the server of the measurement")
	f.Lookup("serve").Hidden = true
	return cmd
}

func (o *pollingOptions) check() error {
	switch {
	case o.clients < 1 || o.clients > 19_000:
		return fmt.Errorf("--connections %d: must be from 1 to 19000", o.clients)
	case o.interval < 100*time.Millisecond:
		return fmt.Errorf("--interval %s: must be at least 100ms", o.interval)
	case o.every < 10*time.Millisecond:
		return fmt.Errorf("--every %s: must be at least 10ms", o.every)
	case o.duration <= 0:
		return fmt.Errorf("--duration %s: must be more than 0", o.duration)
	case o.size < 64 || o.size > 16<<10:
		return fmt.Errorf("--size %d: must be from 64 to 16384", o.size)
	}
	return nil
}

// comparePolling measures both ways, each against a fresh server.
func comparePolling(stdout, stderr io.Writer, o *pollingOptions) error {
	if _, err := raiseFileLimit(); err != nil {
		return err
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	var both []bench.Delivery
	for _, way := range []string{"polling", "push"} {
		fmt.Fprintf(stderr, "%s: %d clients for %s\n", way, o.clients, o.duration)
		d, err := measureWay(ctx, way, o)
		if err != nil {
			return fmt.Errorf("%s: %w", way, err)
		}
		both = append(both, d)
	}
	if o.json {
		e := json.NewEncoder(stdout)
		e.SetIndent("", "  ")
		return e.Encode(both)
	}
	return writeDeliveries(stdout, o, both)
}

func measureWay(ctx context.Context, way string, o *pollingOptions) (d bench.Delivery, err error) {
	self, err := os.Executable()
	if err != nil {
		return d, err
	}
	cmd := exec.CommandContext(ctx, self, "bench", "polling", "--serve", fmt.Sprint("--every=", o.every), fmt.Sprint("--size=", o.size))
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		return d, err
	}
	if err := cmd.Start(); err != nil {
		return d, err
	}
	defer func() {
		cmd.Process.Signal(syscall.SIGTERM)
		cmd.Wait()
	}()
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		return d, fmt.Errorf("the server did not come up: %w", err)
	}
	t, err := bench.ParseTarget(strings.TrimSpace(line), false)
	if err != nil {
		return d, err
	}
	if way == "polling" {
		d, err = bench.Polled(t.Addr, "/value", o.clients, o.interval, o.duration, bench.Process(cmd.Process.Pid))
	} else {
		d, err = bench.Told(t, o.clients, o.duration, bench.Process(cmd.Process.Pid))
	}
	if ctx.Err() != nil {
		return d, errors.New("interrupted")
	}
	return d, err
}

// writeDeliveries is the table for people.
func writeDeliveries(w io.Writer, o *pollingOptions, both []bench.Delivery) error {
	fmt.Fprintf(w, "%d clients, a value of %d bytes that changes every %s; polled every %s\n\n", o.clients, o.size, o.every, o.interval)
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	row := func(name string, f func(d *bench.Delivery) string) {
		fmt.Fprintf(t, "%s\t", name)
		for i := range both {
			fmt.Fprintf(t, "%s\t", f(&both[i]))
		}
		fmt.Fprintln(t)
	}
	ms := func(d time.Duration) string { return fmt.Sprintf("%.1f ms", float64(d)/float64(time.Millisecond)) }
	row("", func(d *bench.Delivery) string { return d.Way })
	row("requests per second", func(d *bench.Delivery) string { return fmt.Sprintf("%.0f", float64(d.Requests)/d.Seconds) })
	row("updates seen", func(d *bench.Delivery) string { return fmt.Sprint(d.Updates) })
	row("updates overwritten before they were seen", func(d *bench.Delivery) string { return fmt.Sprint(d.Missed) })
	row("bytes on the wire per second", func(d *bench.Delivery) string { return fmt.Sprintf("%.0f", float64(d.WireIn+d.WireOut)/d.Seconds) })
	row("bytes on the wire per update seen", func(d *bench.Delivery) string {
		return fmt.Sprintf("%.0f", float64(d.WireIn+d.WireOut)/float64(max(1, d.Updates)))
	})
	row("CPU of the server, % of one", func(d *bench.Delivery) string { return fmt.Sprintf("%.1f", 100*d.ServerCPU) })
	row("late, median", func(d *bench.Delivery) string { return ms(d.Late.At(50)) })
	row("late, 99 %", func(d *bench.Delivery) string { return ms(d.Late.At(99)) })
	row("late, most", func(d *bench.Delivery) string { return ms(d.Late.At(100)) })
	row("failures", func(d *bench.Delivery) string { return fmt.Sprint(d.Failures) })
	return t.Flush()
}

// servePolling is the server of the measurement: /value answers with the
// newest value, /live tells each new one.
func servePolling(stdout io.Writer, o *pollingOptions) error {
	if _, err := raiseFileLimit(); err != nil {
		return err
	}
	stop := make(chan os.Signal, 1)
	signal.Notify(stop, os.Interrupt, syscall.SIGTERM)
	s, err := server.New(server.Config{MaxHTTP: o.clients + 20_000})
	if err != nil {
		return err
	}
	var mu sync.Mutex
	live := map[server.Ref]bool{}
	err = s.Handle("/live", &server.Endpoint{
		Open:  func(c server.Conn) { mu.Lock(); live[c.Ref()] = true; mu.Unlock() },
		Close: func(c server.Conn, _ server.Reason) { mu.Lock(); delete(live, c.Ref()); mu.Unlock() },
	})
	if err != nil {
		return err
	}
	var value atomic.Pointer[[]byte]
	first := bench.AppendStamp(nil, 0, time.Now(), o.size)
	value.Store(&first)
	s.Mux().HandleFunc("GET /value", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		w.Header().Set("Cache-Control", "no-store")
		w.Write(*value.Load())
	})
	addr, err := s.Listen(net.JoinHostPort("127.0.0.1", "0"))
	if err != nil {
		return err
	}
	s.Start()
	fmt.Fprintf(stdout, "ws://%s/live\n", addr)
	tick := time.NewTicker(o.every)
	defer tick.Stop()
	for seq := uint64(1); ; seq++ {
		select {
		case <-stop:
			ctx, cancel := context.WithCancel(context.Background())
			cancel() // the clients have gone, or need not be waited for
			s.Shutdown(ctx)
			return nil
		case <-tick.C:
		}
		v := bench.AppendStamp(nil, seq, time.Now(), o.size)
		value.Store(&v)
		mu.Lock()
		for r := range live {
			r.Send(ws.OpText, v)
		}
		mu.Unlock()
	}
}
