package main

import (
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"time"

	"wspoll/proxy"
	"wspoll/server"

	"github.com/gobwas/ws"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/spf13/pflag"
	"golang.org/x/net/netutil"
)

// metricsOptions are the flags of serve and proxy for counters over HTTP.
type metricsOptions struct{ listen string }

func (o *metricsOptions) flags(f *pflag.FlagSet) {
	f.StringVar(&o.listen, "metrics-listen", "", "address for GET /metrics, counters for Prometheus, like 127.0.0.1:9102; port 0 takes a free one and prints it (default: none)")
}

func (o *metricsOptions) check() error {
	if o.listen != "" && !isListenAddress(o.listen) {
		return &badValue{flag: "metrics-listen", value: o.listen, want: listenForm}
	}
	return nil
}

// The bounds of /metrics. A scrape takes some milliseconds, and comes every few seconds.
const (
	scrapeTime  = 5 * time.Second        // else 503: a loop is stuck
	scrapesMost = 8                      // at a time, also those that nobody waits for any more
	scrapeConns = 16                     // connections; more wait until one is through
	scrapeEnd   = 500 * time.Millisecond // at the end of the process, for those that are under way
)

// metrics is what listens at --metrics-listen. It is apart from what it tells of, so that a scrape counts as nothing
// there, and whoever may connect to the service need not see its counters. nil: there is none.
type metrics struct {
	listener net.Listener
	registry *prometheus.Registry
	http     *http.Server
}

// open listens, without an answer to anybody yet, or returns nil when that is not wanted. end is to be called.
func (o *metricsOptions) open(log *slog.Logger) (*metrics, error) {
	if o.listen == "" {
		return nil, nil
	}
	l, err := net.Listen("tcp", o.listen)
	if err != nil {
		return nil, listenError("metrics-listen", o.listen, err)
	}
	return newMetrics(l, log, scrapeTime), nil
}

func newMetrics(l net.Listener, log *slog.Logger, limit time.Duration) *metrics {
	m := &metrics{listener: l, registry: prometheus.NewRegistry()}
	m.registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	mux := http.NewServeMux()
	mux.Handle("GET /metrics", promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{
		ErrorLog:            slog.NewLogLogger(log.Handler(), slog.LevelWarn),
		MaxRequestsInFlight: scrapesMost,
		Timeout:             limit,
	}))
	m.http = &http.Server{
		Handler:                      mux,
		ReadTimeout:                  5 * time.Second,
		WriteTimeout:                 limit + 5*time.Second,
		MaxHeaderBytes:               8 << 10,
		DisableGeneralOptionsHandler: true,
		ErrorLog:                     slog.NewLogLogger(log.Handler(), slog.LevelDebug),
	}
	m.http.SetKeepAlivesEnabled(false) // who is silent between two scrapes holds none of the few connections
	return m
}

// start answers scrapes with the counts of srv and px, which have been started; either may be nil. It says where.
func (m *metrics) start(stdout io.Writer, srv *server.Server, px *proxy.Proxy) {
	if m == nil {
		return
	}
	if srv != nil {
		m.registry.MustRegister(&counts[server.Stats]{srv.Stats, serverSeries}, degraded(srv))
	}
	if px != nil {
		m.registry.MustRegister(&counts[proxyStats]{func() proxyStats { return proxyStats{px.Stats(), px.Backends()} }, proxySeries})
	}
	go m.http.Serve(netutil.LimitListener(m.listener, scrapeConns))
	fmt.Fprintf(stdout, "http://%s/%-10s counters for Prometheus\n", urlHost(m.listener.Addr()), "metrics")
}

// end ends it. To be called when the connections have drained, so that scrapes see that, and are answered until here.
func (m *metrics) end() {
	if m == nil {
		return
	}
	m.listener.Close() // http may not know it yet
	ctx, cancel := context.WithTimeout(context.Background(), scrapeEnd)
	defer cancel()
	if m.http.Shutdown(ctx) != nil {
		m.http.Close()
	}
}

// counts is a prometheus.Collector: it reads an S once per scrape and makes all series of it.
type counts[S any] struct {
	read   func() S
	series []series[S]
}

func (c *counts[S]) Describe(to chan<- *prometheus.Desc) {
	for _, s := range c.series {
		to <- s.desc
	}
}

func (c *counts[S]) Collect(to chan<- prometheus.Metric) {
	now := c.read()
	for _, s := range c.series {
		s.each(&now, func(value float64, labels ...string) {
			to <- prometheus.MustNewConstMetric(s.desc, s.kind, value, labels...)
		})
	}
}

// series is one metric, with all values of its labels.
type series[S any] struct {
	desc *prometheus.Desc
	kind prometheus.ValueType
	each func(now *S, emit func(value float64, labels ...string))
}

const (
	counter = prometheus.CounterValue // only grows; its name ends in _total
	gauge   = prometheus.GaugeValue
)

// one is a metric without labels.
func one[S any, N int | int64 | uint64](kind prometheus.ValueType, name, help string, value func(now *S) N) series[S] {
	return many(kind, name, help, nil, func(now *S, emit func(float64, ...string)) { emit(float64(value(now))) })
}

func many[S any](kind prometheus.ValueType, name, help string, labels []string, each func(now *S, emit func(float64, ...string))) series[S] {
	return series[S]{prometheus.NewDesc(name, help, labels, nil), kind, each}
}

// word is the name of a reason as the value of a label: "peer closed" is peer-closed. Values are part of what people
// build on, like the names of flags.
func word(reason fmt.Stringer) string {
	return strings.ToLower(strings.ReplaceAll(reason.String(), " ", "-"))
}

var serverSeries = []series[server.Stats]{
	one(gauge, "wspoll_connections", "Connections open now: in the handshake, WebSocket or closing; those of plain HTTP are not among them.",
		func(now *server.Stats) int { return now.Connections }),
	one(gauge, "wspoll_websockets", "WebSocket connections open now.",
		func(now *server.Stats) int { return now.WebSockets }),
	one(gauge, "wspoll_http_connections", "Connections of plain HTTP open now.",
		func(now *server.Stats) int { return now.HTTP }),
	one(gauge, "wspoll_buffered_bytes", "Bytes of --memory-budget in use: what waits for peers, half messages, what topics keep.",
		func(now *server.Stats) int64 { return now.Buffered }),
	one(counter, "wspoll_accepted_total", "TCP connections accepted.",
		func(now *server.Stats) uint64 { return now.Accepted }),
	one(counter, "wspoll_accept_starved_total", "Times that accepting paused because the process had no descriptor left.",
		func(now *server.Stats) uint64 { return now.Starved }),
	many(counter, "wspoll_handshakes_total", "Handshakes by their answer: upgraded with 101, refused with another HTTP status.", []string{"result"},
		func(now *server.Stats, emit func(float64, ...string)) {
			emit(float64(now.Upgraded), "upgraded")
			emit(float64(now.Refused), "refused")
		}),
	one(counter, "wspoll_messages_received_total", "Messages of peers whose last byte arrived.",
		func(now *server.Stats) uint64 { return now.MessagesIn }),
	one(counter, "wspoll_received_bytes_total", "Payload bytes of messages received, without headers and inflated.",
		func(now *server.Stats) uint64 { return now.BytesIn }),
	one(counter, "wspoll_frames_sent_total", "Data frames sent, or waiting to be.",
		func(now *server.Stats) uint64 { return now.FramesOut }),
	one(counter, "wspoll_sent_bytes_total", "Payload bytes of data frames sent, without headers and before compression.",
		func(now *server.Stats) uint64 { return now.BytesOut }),
	many(counter, "wspoll_closed_total", "Connections that ended, by reason; plain-http are those that came for plain HTTP, which may still be open.", []string{"reason"},
		func(now *server.Stats, emit func(float64, ...string)) {
			for r := server.ReasonNone + 1; r < server.NumReasons; r++ {
				emit(float64(now.Closed[r]), word(r))
			}
		}),
	one(counter, "wspoll_published_total", "Messages published to topics.",
		func(now *server.Stats) uint64 { return now.Published }),
	many(counter, "wspoll_dropped_total", "Messages that did not reach a subscriber (counted for each subscriber) or could not be published.", []string{"why"},
		func(now *server.Stats, emit func(float64, ...string)) {
			for d := range server.NumDrops {
				emit(float64(now.Dropped[d]), word(d))
			}
		}),
}

// degraded tells of what /healthz tells in words.
func degraded(srv *server.Server) prometheus.Collector {
	return prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "wspoll_degraded", Help: "1 while /healthz says degraded, as when the link to NATS is down; else 0.",
	}, func() float64 {
		if srv.Degraded() != "" {
			return 1
		}
		return 0
	})
}

// proxyStats are what a scrape reads of a proxy.
type proxyStats struct {
	proxy.Stats
	backends []proxy.Backend
}

// directions and opcodes are values of labels; the first are indexed by proxy.Up and proxy.Down.
var (
	directions = [...]string{proxy.Up: "up", proxy.Down: "down"}
	opcodes    = [...]struct {
		op   ws.OpCode
		word string
	}{{ws.OpText, "text"}, {ws.OpBinary, "binary"}, {ws.OpClose, "close"}, {ws.OpPing, "ping"}, {ws.OpPong, "pong"}}
)

// byOpcode emits counts by direction and opcode.
func byOpcode(n *[2][16]uint64, emit func(float64, ...string)) {
	for d, direction := range directions {
		for _, o := range opcodes {
			emit(float64(n[d][o.op]), direction, o.word)
		}
	}
}

var proxySeries = []series[proxyStats]{
	one(gauge, "wspoll_proxy_connections", "Connections of clients open now; those of plain HTTP are not among them.",
		func(now *proxyStats) int { return now.Connections }),
	one(gauge, "wspoll_proxy_tunnels", "Connections of clients past the handshake, each with one to a backend.",
		func(now *proxyStats) int { return now.Tunnels }),
	one(gauge, "wspoll_proxy_http_connections", "Connections of plain HTTP clients open now.",
		func(now *proxyStats) int { return now.HTTP }),
	one(gauge, "wspoll_proxy_buffered_bytes", "Bytes of --memory-budget in use: what waits for clients and backends.",
		func(now *proxyStats) int64 { return now.Buffered }),
	one(counter, "wspoll_proxy_accepted_total", "TCP connections of clients accepted.",
		func(now *proxyStats) uint64 { return now.Accepted }),
	one(counter, "wspoll_proxy_accept_starved_total", "Times that accepting paused because the process had no descriptor left.",
		func(now *proxyStats) uint64 { return now.Starved }),
	many(counter, "wspoll_proxy_handshakes_total", "Handshakes by their answer: upgraded with 101 by a backend, refused by the proxy itself; what backends refused is in wspoll_proxy_closed_total.", []string{"result"},
		func(now *proxyStats, emit func(float64, ...string)) {
			emit(float64(now.Upgraded), "upgraded")
			emit(float64(now.Refused), "refused")
		}),
	one(counter, "wspoll_proxy_retries_total", "Backends tried because another could not be connected to.",
		func(now *proxyStats) uint64 { return now.Retries }),
	many(counter, "wspoll_proxy_messages_total", "Messages and control frames passed on, up to backends and down to clients; not counted with --mode tunnel.", []string{"direction", "opcode"},
		func(now *proxyStats, emit func(float64, ...string)) { byOpcode(&now.Messages, emit) }),
	many(counter, "wspoll_proxy_payload_bytes_total", "Payload bytes passed on, as they are on the wire; not counted with --mode tunnel.", []string{"direction", "opcode"},
		func(now *proxyStats, emit func(float64, ...string)) { byOpcode(&now.Payload, emit) }),
	many(counter, "wspoll_proxy_passed_bytes_total", "All bytes passed on after the handshake, headers of frames included.", []string{"direction"},
		func(now *proxyStats, emit func(float64, ...string)) {
			for d, direction := range directions {
				emit(float64(now.Bytes[d]), direction)
			}
		}),
	one(counter, "wspoll_proxy_spliced_bytes_total", "Bytes passed on that the kernel moved, without the process seeing them.",
		func(now *proxyStats) uint64 { return now.Spliced }),
	many(counter, "wspoll_proxy_closed_total", "Connections of clients that ended, by reason; plain-http are those that came for plain HTTP, which may still be open.", []string{"reason"},
		func(now *proxyStats, emit func(float64, ...string)) {
			for r := proxy.ReasonNone + 1; r < proxy.NumReasons; r++ {
				emit(float64(now.Closed[r]), word(r))
			}
		}),
	many(gauge, "wspoll_proxy_backend_tunnels", "Tunnels to a backend of the routes, open or being opened.", []string{"backend"},
		func(now *proxyStats, emit func(float64, ...string)) {
			for _, b := range now.backends {
				emit(float64(b.Tunnels), b.URL)
			}
		}),
	many(gauge, "wspoll_proxy_backend_healthy", "1, or 0 for a backend that comes last when one is chosen, because it failed.", []string{"backend"},
		func(now *proxyStats, emit func(float64, ...string)) {
			for _, b := range now.backends {
				healthy := 0.0
				if b.Healthy {
					healthy = 1
				}
				emit(healthy, b.URL)
			}
		}),
}
