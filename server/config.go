package server

import (
	"crypto/tls"
	"log/slog"
	"net/netip"
	"time"

	"wspoll/epoll"
	"wspoll/handshake"
)

// Config is what a Server is made with. The zero value is a good server: the
// comment of each field says what zero means.
type Config struct {
	// Loops is the number of event loops, each with a goroutine; 0 means 1.
	Loops int

	// MaxHead bounds a request head, in bytes; 0 means 8 KiB. Above it: 431.
	MaxHead int
	// MaxMessage bounds a message over all its fragments, in bytes; 0 means
	// 16 MiB, Unlimited means no bound. Above it: Close 1009, as soon as a
	// header declares it.
	MaxMessage int64
	// MaxPending bounds the bytes that wait for one slow reader; 0 means
	// 1 MiB. Above it the connection is closed.
	MaxPending int
	// MaxConnections bounds the connections of all kinds; 0 means no bound
	// but the descriptors. Above it: 503.
	MaxConnections int
	// MaxHTTP bounds the plain HTTP connections among them; 0 means 1024.
	MaxHTTP int
	// MemoryBudget bounds the bytes that all connections together hold in
	// buffers; 0 means 1 GiB, Unlimited means no bound. A connection that
	// needs more is closed with 1013, or refused with 503.
	MemoryBudget int64

	// HandshakeTimeout: the request head must be complete by then; 0 means 5 s.
	HandshakeTimeout time.Duration
	// IdleTimeout: nothing arrived for half of it: a ping; for all of it:
	// Close 1001. 0 means 2 min; negative means never.
	IdleTimeout time.Duration
	// CloseTimeout: how long to wait for the peer's Close, and then for its
	// FIN; 0 means 5 s.
	CloseTimeout time.Duration
	// WriteTimeout: bytes wait for the peer and none could be sent for that
	// long: the connection is closed. 0 means 10 s.
	WriteTimeout time.Duration

	// Handshake has the subprotocols, the allowed origins and extra header
	// lines; see there for what zero means.
	Handshake handshake.Options

	// Compress says how messages are compressed (RFC 7692) for clients that
	// offer it; 0 means CompressShared. Handshake.Deflate, when it is set and
	// Compress is not CompressOff, says it in detail instead.
	Compress Compression
	// CompressMin is the payload in bytes from which a message that the server
	// sends of its own is compressed; 0 means 256, a negative one means that all
	// are. Echo answers as it was asked, whatever the size.
	CompressMin int

	// Topics says what the topics are like; see there for what zero means.
	Topics TopicConfig

	// TLS is for what ListenTLS listens on; nil means that it is not called. Of
	// the versions of HTTP only 1.1 is spoken, which WebSocket needs.
	TLS *tls.Config

	// Log gets what happens; nil means nothing is logged. The end of every
	// connection is told at debug level.
	Log *slog.Logger

	// Trace is asked of each new connection, on its loop, who shall see its
	// bytes; it may return nil, and nil means nobody of any. When the request
	// has come and TracePath says no to its path, the Tap is taken off; nil
	// means yes to all.
	Trace     func(peer netip.AddrPort) epoll.Tap
	TracePath func(path []byte) bool

	kernel epoll.Kernel // of a simulation; nil means Linux
}

// Compression is a way to use permessage-deflate.
type Compression uint8

const (
	// CompressShared: each message is compressed for itself, in both directions
	// (server_no_context_takeover, client_no_context_takeover), by what all
	// connections of a loop share. A connection holds nothing between messages.
	CompressShared Compression = iota

	// CompressContext: a message may refer to the ones before, in both
	// directions, which pays for small messages that resemble each other. Each
	// connection holds two windows, in the memory budget, of up to 4 KiB each;
	// that of the client is up to 32 KiB if it does not let us choose
	// (client_max_window_bits).
	CompressContext

	// CompressOff: not negotiated.
	CompressOff
)

// Unlimited takes a bound away where 0 means a default.
const Unlimited = -1

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
	def(&cfg.MaxPending, 1<<20)
	def(&cfg.MaxHTTP, 1024)
	def(&cfg.CompressMin, 256)
	cfg.Handshake.Deflate = cfg.deflate()
	if cfg.MaxMessage == 0 {
		cfg.MaxMessage = 16 << 20
	}
	if cfg.MemoryBudget == 0 {
		cfg.MemoryBudget = 1 << 30
	}
	defTime(&cfg.HandshakeTimeout, 5*time.Second)
	defTime(&cfg.IdleTimeout, 2*time.Minute)
	defTime(&cfg.CloseTimeout, 5*time.Second)
	defTime(&cfg.WriteTimeout, 10*time.Second)
	if cfg.Log == nil {
		cfg.Log = slog.New(slog.DiscardHandler)
	}
	return cfg
}

// epoll is the part of the settings that is the loops'.
func (cfg *Config) epoll() epoll.Config {
	return epoll.Config{
		Loops:         cfg.Loops,
		MaxPending:    cfg.MaxPending,
		WriteTimeout:  cfg.WriteTimeout,
		LingerTimeout: cfg.CloseTimeout,
		Budget:        epoll.NewBudget(max(0, cfg.MemoryBudget)),
		Kernel:        cfg.kernel,
	}
}
