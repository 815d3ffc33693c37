package proxy

import (
	"crypto/tls"
	"fmt"
	"log/slog"
	"net/netip"
	"strings"
	"time"

	"wspoll/epoll"
	"wspoll/handshake"
)

// Mode is how bytes pass after the handshake.
type Mode uint8

const (
	ModeFrames Mode = iota // frame by frame, checked and counted
	ModeTunnel             // as they are
)

// Config is what a Proxy is made with. Routes is required; of the rest the
// comment of each field says what zero means.
type Config struct {
	// Routes say which requests go to which backends.
	Routes []Route
	// Balance chooses among the backends of a route; the zero value takes the
	// one with the fewest connections.
	Balance Balance

	Mode  Mode
	Loops int // number of event loops, each with a goroutine; 0 means 1

	// MaxHead bounds a request head, and the head of a backend's answer, in
	// bytes; 0 means 8 KiB. Above it: 431, and 502.
	MaxHead int
	// MaxMessage bounds a message over all its fragments, in ModeFrames; 0
	// means 16 MiB, Unlimited means no bound. Above it: Close 1009.
	MaxMessage int64
	// MaxConnections bounds the connections of clients; 0 means no bound but
	// the descriptors, of which each needs two. Above it: 503.
	MaxConnections int
	// MaxHTTP bounds the plain HTTP connections among them; 0 means 1024.
	MaxHTTP int
	// MemoryBudget bounds the bytes that wait for all connections together; 0
	// means 1 GiB, Unlimited means no bound.
	MemoryBudget int64

	// MaxPerAddress bounds the connections of one client address (one /64 of
	// IPv6); 0 means no bound. Above it: 429. A trusted peer is not an
	// address of this kind, those that it names are.
	MaxPerAddress int
	// HandshakesPerSecond bounds the requests of one client address, with
	// bursts of as many; 0 means no bound. Above it: 429.
	HandshakesPerSecond float64
	// Trusted are the peers whose X-Forwarded-For, -Proto, -Host and Forwarded
	// are believed and added to. Those of others are dropped.
	Trusted []netip.Prefix

	// Trace is asked of each new connection, a client's or one to a backend, on
	// its loop, who shall see its bytes; it may return nil, and nil means nobody
	// of any. When the request has come and TracePath says no to its path, the
	// Tap is taken off; nil means yes to all. What is seen is not spliced.
	Trace     func(peer netip.AddrPort, backend bool) epoll.Tap
	TracePath func(path []byte) bool

	// HandshakeTimeout: the request must be complete by then; 0 means 5 s.
	HandshakeTimeout time.Duration
	// ConnectTimeout: a backend must have taken the connection by then; 0 means 3 s.
	ConnectTimeout time.Duration
	// AnswerTimeout: a backend must have answered the handshake by then, and
	// with a refusal its body must have come; 0 means 10 s.
	AnswerTimeout time.Duration
	// IdleTimeout: in ModeFrames a side that was silent for half of it is sent
	// a ping, for all of it a Close. In ModeTunnel both are ended when both
	// were silent. 0 means 2 min; negative means never.
	IdleTimeout time.Duration
	// CloseTimeout: how long to wait for a side's Close, and then for its FIN;
	// 0 means 5 s.
	CloseTimeout time.Duration
	// WriteTimeout: a side takes none of the bytes that wait for it for so
	// long: it is given up. 0 means 30 s.
	WriteTimeout time.Duration
	// VanishTimeout: sent bytes are not acknowledged by the other machine for
	// so long: it is gone (TCP_USER_TIMEOUT). 0 means 30 s; negative leaves it
	// to the kernel, which takes a quarter of an hour.
	VanishTimeout time.Duration

	// HealthEvery: each backend is sent a real handshake so often, and avoided
	// while that fails; 0 means never.
	HealthEvery time.Duration
	// HealthPath is the target of these handshakes; empty means "/", where any
	// answer below 500 is good. With a path it must be 101.
	HealthPath string

	// TLS is for what ListenTLS listens on; nil means that it is not called. Of
	// the versions of HTTP only 1.1 is spoken, which WebSocket needs.
	TLS *tls.Config
	// BackendTLS is for backends of wss://; nil means that their certificates are
	// held to the machine's roots. The name that a certificate must be for, unless
	// ServerName says another, is that of the URL.
	BackendTLS *tls.Config

	// Log gets what goes wrong; nil means nothing is logged.
	Log *slog.Logger
	// Access gets a line at the end of every connection that brought a
	// request; nil means none.
	Access *slog.Logger
}

// Unlimited takes a bound away where 0 means a default.
const Unlimited = -1

// readBuffer is what one read takes at most: a frame of 64 KiB with its header
// is then one read, and one write.
const readBuffer = 128 << 10

// maxPending is never reached: reading from the other side stops at pauseAt,
// and what comes above that is one read.
const (
	maxPending = 1 << 20
	pauseAt    = 64 << 10
)

func (cfg Config) withDefaults() Config {
	def := func(p *int, v int) {
		if *p == 0 {
			*p = v
		}
	}
	defTime := func(p *time.Duration, v time.Duration) {
		if *p == 0 {
			*p = v
		}
	}
	def(&cfg.Loops, 1)
	def(&cfg.MaxHead, handshake.DefaultHead)
	def(&cfg.MaxHTTP, 1024)
	if cfg.MaxMessage == 0 {
		cfg.MaxMessage = 16 << 20
	}
	if cfg.MemoryBudget == 0 {
		cfg.MemoryBudget = 1 << 30
	}
	defTime(&cfg.HandshakeTimeout, 5*time.Second)
	defTime(&cfg.ConnectTimeout, 3*time.Second)
	defTime(&cfg.AnswerTimeout, 10*time.Second)
	defTime(&cfg.IdleTimeout, 2*time.Minute)
	defTime(&cfg.CloseTimeout, 5*time.Second)
	defTime(&cfg.WriteTimeout, 30*time.Second)
	defTime(&cfg.VanishTimeout, 30*time.Second)
	if cfg.BackendTLS == nil {
		cfg.BackendTLS = &tls.Config{}
	}
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	return cfg
}

// epoll is the part of the settings that is the loops'.
func (cfg *Config) epoll() epoll.Config {
	return epoll.Config{
		Loops:      cfg.Loops,
		ReadBuffer: readBuffer,
		MaxPending: maxPending,
		// Never: a backend that cannot send because we do not read may be the
		// reason why it does not read.
		Congested:     maxPending,
		WriteTimeout:  cfg.WriteTimeout,
		LingerTimeout: cfg.CloseTimeout,
		Budget:        epoll.NewBudget(max(0, cfg.MemoryBudget)),
	}
}

// Balance is a way to choose among the backends of a route.
type Balance struct {
	by     balance
	header string
}

type balance uint8

const (
	leastConnections balance = iota
	roundRobin
	hashAddress
	hashHeader
)

// ParseBalance reads "least-connections", "round-robin", "hash:ip" (the same
// client address has the same backend), or "hash:" and the name of a header
// whose value takes the place of the address.
func ParseBalance(s string) (Balance, error) {
	switch {
	case s == "least-connections":
		return Balance{}, nil
	case s == "round-robin":
		return Balance{by: roundRobin}, nil
	case s == "hash:ip":
		return Balance{by: hashAddress}, nil
	}
	if h, ok := strings.CutPrefix(s, "hash:"); ok && h != "" && !strings.ContainsFunc(h, notToken) {
		return Balance{by: hashHeader, header: h}, nil
	}
	return Balance{}, fmt.Errorf("%q is no balance: least-connections, round-robin, hash:ip or hash:HEADER", s)
}

func notToken(r rune) bool {
	return r <= ' ' || r > '~' || strings.ContainsRune(`"(),/:;<=>?@[\]{}`, r)
}
