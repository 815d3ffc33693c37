package client

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"strings"

	"wspoll/handshake"
)

// Target is a server, and what is there.
type Target struct {
	URL  string
	Addr string      // for the dialer: "host:port"
	Host string      // for the Host header
	Path string      // path and query
	TLS  *tls.Config // nil for ws
}

// ParseTarget reads a ws:// or wss:// URL (RFC 6455 §3). insecure: any certificate will do.
func ParseTarget(s string, insecure bool) (*Target, error) {
	u, err := handshake.ParseURL(s)
	if err != nil {
		return nil, err
	}
	t := &Target{URL: s, Addr: net.JoinHostPort(u.Hostname, u.Port), Host: u.Host, Path: u.Target}
	if u.Secure {
		// No HTTP/2: a handshake is a request of HTTP/1.1 (§4.1).
		t.TLS = &tls.Config{ServerName: u.Hostname, InsecureSkipVerify: insecure, NextProtos: []string{"http/1.1"}}
	}
	return t, nil
}

// Connect does what comes before the handshake: TCP, and TLS for wss (§4.1). It ends with ctx.
func (t *Target) Connect(ctx context.Context) (net.Conn, error) {
	var d net.Dialer
	conn, err := d.DialContext(ctx, "tcp", t.Addr)
	if err != nil || t.TLS == nil {
		return conn, err
	}
	secure := tls.Client(conn, t.TLS)
	if err := secure.HandshakeContext(ctx); err != nil {
		conn.Close()
		return nil, &TLSError{err}
	}
	return secure, nil
}

// TLSError is what the TLS handshake failed with.
type TLSError struct{ Err error }

// Error returns that of Err, in other words if it is not TLS that the server speaks.
func (e *TLSError) Error() string {
	if _, ok := errors.AsType[tls.RecordHeaderError](e.Err); ok {
		return "TLS: what answers does not speak it; is it ws:// there, and not wss://?"
	}
	return "TLS: " + strings.TrimPrefix(e.Err.Error(), "tls: ")
}

// Unwrap returns Err.
func (e *TLSError) Unwrap() error { return e.Err }
