package bench

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"strings"
	"time"

	"wspoll/handshake"
)

// Target is one URL of a load.
type Target struct {
	URL  string
	Addr *net.TCPAddr
	Host string      // for the Host header
	Path string      // path and query
	TLS  *tls.Config // for wss; nil for ws and tcp
	Raw  bool        // tcp://: plain TCP, no WebSocket
}

// ParseTarget resolves a URL: ws://, wss://, or tcp:// for a plain TCP echo,
// the floor that WebSocket servers are compared with.
func ParseTarget(s string, insecure bool) (Target, error) {
	rest, raw := strings.CutPrefix(s, "tcp://")
	if raw {
		s = "ws://" + rest // but for its scheme a URL like the others
	}
	u, err := handshake.ParseURL(s)
	if err != nil && raw {
		return Target{}, fmt.Errorf("%q is not an address like tcp://127.0.0.1:7", "tcp://"+rest)
	}
	if err != nil {
		return Target{}, fmt.Errorf("%w; or tcp:// for a plain TCP echo", err)
	}
	t := Target{URL: s, Host: u.Host, Path: u.Target, Raw: raw}
	if raw {
		t.URL = "tcp://" + rest
		if !strings.HasSuffix(u.Host, ":"+u.Port) {
			return Target{}, fmt.Errorf("%s has no port", t.URL)
		}
	}
	if u.Secure {
		t.TLS = &tls.Config{ServerName: u.Hostname, InsecureSkipVerify: insecure, NextProtos: []string{"http/1.1"}}
	}
	addr, err := net.ResolveTCPAddr("tcp", net.JoinHostPort(u.Hostname, u.Port))
	if err != nil {
		var dns *net.DNSError
		if errors.As(err, &dns) {
			return Target{}, fmt.Errorf("%s: the host %q cannot be found", s, u.Hostname)
		}
		return Target{}, fmt.Errorf("%s: %w", s, err)
	}
	t.Addr = addr
	return t, nil
}

// ParseLocal reads source addresses: one, or a range like
// 127.0.0.1-127.0.0.50, separated by commas.
func ParseLocal(s string) ([]*net.TCPAddr, error) {
	var all []*net.TCPAddr
	for part := range strings.SplitSeq(s, ",") {
		from, to, ranged := strings.Cut(strings.TrimSpace(part), "-")
		a := net.ParseIP(from)
		if a == nil {
			return nil, fmt.Errorf("%q is not an IP address, nor a range like 127.0.0.1-127.0.0.50", part)
		}
		if !ranged {
			all = append(all, &net.TCPAddr{IP: a})
			continue
		}
		b := net.ParseIP(to).To4()
		if a = a.To4(); a == nil || b == nil || ipv4(b) < ipv4(a) || ipv4(b)-ipv4(a) > 1<<16 {
			return nil, fmt.Errorf("%q is not a range of up to 65536 IPv4 addresses, the lower first", part)
		}
		for n := ipv4(a); n <= ipv4(b); n++ {
			all = append(all, &net.TCPAddr{IP: net.IPv4(byte(n>>24), byte(n>>16), byte(n>>8), byte(n))})
		}
	}
	return all, nil
}

func ipv4(ip net.IP) uint32 {
	return uint32(ip[0])<<24 | uint32(ip[1])<<16 | uint32(ip[2])<<8 | uint32(ip[3])
}

// Config describes a load. The zero value of a field is its default where the
// comment names one.
type Config struct {
	Targets     []Target       // connections take turns
	Local       []*net.TCPAddr // source addresses, taken in turn; empty: the kernel's, and on loopback more as ports run out
	Connections int            // how many at once
	Opening     int            // how many of them may be being opened at a time; 0 means 256
	Ramp        float64        // connections opened per second; 0 means as fast as they open

	SizeMin, SizeMax int     // payload bytes of a message; each size in turn from a fixed random set
	Payload          []byte  // payload instead of a made one
	Text             bool    // text messages; else binary
	Depth            int     // messages in flight per connection, closed loop; 0 means 1
	Rate             float64 // messages per second over all connections, on schedule (open loop); 0: closed loop

	Subscribe bool // connections only listen for what the server pushes
	Publish   bool // one more connection, to the last target, publishes Rate messages per second; with a Rate of 0, the next when all have the last

	Stalled int // so many of the connections, the first, read nothing once they are open

	Compress bool // offer permessage-deflate, and compress what is sent; a server that does not agree is a failure

	Limit uint64 // messages to be sent in all; 0 means no limit

	Header    []byte // more request header lines, each ended by CRLF
	Protocols []string
	Origin    string

	Ping    time.Duration // a ping on each connection so often; 0 means none
	Timeout time.Duration // for connect, upgrade, and a reply; 0 means 10 s
}

func (cfg Config) withDefaults() Config {
	if cfg.Timeout == 0 {
		cfg.Timeout = 10 * time.Second
	}
	if cfg.Opening == 0 {
		cfg.Opening = 256
	}
	cfg.Depth = max(cfg.Depth, 1)
	cfg.SizeMax = max(cfg.SizeMin, cfg.SizeMax)
	return cfg
}
