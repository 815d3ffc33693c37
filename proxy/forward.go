package proxy

import (
	"bytes"
	"net/netip"
	"slices"
	"strings"

	"wspoll/handshake"
)

// The request as a backend gets it. It is written anew from what the parser
// understood, so that nobody behind us can read it in another way.

// origin is where a request came from.
type origin struct {
	peer    netip.Addr // the other end of the TCP connection
	secure  bool       // it came over TLS
	trusted bool       // what it says of others is believed
}

// client is who sent the request: the peer, or who a trusted peer says it was,
// which is the last address in the list, that of X-Forwarded-For, that is not
// trusted itself.
func (o origin) client(list string, trusted []netip.Prefix) netip.Addr {
	who := o.peer
	for o.trusted && list != "" {
		var last string
		if i := strings.LastIndexByte(list, ','); i >= 0 {
			list, last = list[:i], list[i+1:]
		} else {
			list, last = "", list
		}
		a, ok := parseAddr(strings.TrimSpace(last))
		if !ok {
			return who
		}
		if who = a; !isTrusted(a, trusted) {
			return who
		}
	}
	return who
}

// parseAddr reads an address as it stands in X-Forwarded-For, perhaps with a port.
func parseAddr(s string) (netip.Addr, bool) {
	if ap, err := netip.ParseAddrPort(s); err == nil {
		return ap.Addr().Unmap(), true
	}
	a, err := netip.ParseAddr(strings.Trim(s, "[]"))
	return a.Unmap(), err == nil
}

func isTrusted(a netip.Addr, trusted []netip.Prefix) bool {
	return slices.ContainsFunc(trusted, func(p netip.Prefix) bool { return p.Contains(a) })
}

// joined is the value of a list that may be on several lines (RFC 9110 §5.3).
func joined(r *handshake.Request, name string) string {
	var all []string
	for n, v := range r.All {
		if equalName(n, name) {
			all = append(all, string(v))
		}
	}
	return strings.Join(all, ", ")
}

// equalName compares field names as those do who turn them into variables:
// case does not count, and "_" is "-". X_Forwarded_For is not to slip through.
func equalName(name []byte, want string) bool {
	if len(name) != len(want) {
		return false
	}
	for i, c := range name {
		if c == '_' {
			c = '-'
		}
		if lower(c) != lower(want[i]) {
			return false
		}
	}
	return true
}

func lower(c byte) byte {
	if 'A' <= c && c <= 'Z' {
		return c | 0x20
	}
	return c
}

// hopByHop are the fields that are for us and not for who is behind us (RFC
// 9110 §7.6.1), beside those that Connection names.
var hopByHop = []string{
	"Connection", "Upgrade", "Keep-Alive", "Proxy-Connection", "Proxy-Authorization", "Proxy-Authenticate", "TE", "Trailer",
	"Transfer-Encoding", "HTTP2-Settings",
}

// forwarding are the fields that we write ourselves.
var forwarding = [...]string{
	forwardingFor: "X-Forwarded-For", forwardingProto: "X-Forwarded-Proto", forwardingHost: "X-Forwarded-Host",
	forwardingForwarded: "Forwarded",
}

const (
	forwardingFor = iota
	forwardingProto
	forwardingHost
	forwardingForwarded
)

// appendRequest appends the handshake that is sent to a backend.
func appendRequest(dst []byte, r *handshake.Request, from origin) []byte {
	dst = append(dst, "GET "...)
	dst = append(dst, r.Path...)
	if q := bytes.IndexByte(r.Target, '?'); q >= 0 {
		dst = append(dst, r.Target[q:]...)
	}
	dst = appendField(append(dst, " HTTP/1.1\r\n"...), "Host", r.Host)
	dst = append(dst, "Upgrade: websocket\r\nConnection: Upgrade\r\n"...)
	for name, value := range r.All {
		if forwarded(r, name) {
			dst = appendField(dst, string(name), value)
		}
	}
	dst = appendForwarding(dst, r, from)
	return append(dst, "\r\n"...)
}

// forwarded reports whether a field goes on as it is.
func forwarded(r *handshake.Request, name []byte) bool {
	is := func(s string) bool { return equalName(name, s) }
	if is("Host") || slices.ContainsFunc(hopByHop, is) || slices.ContainsFunc(forwarding[:], is) {
		return false
	}
	// "Connection: Upgrade, Sec-WebSocket-Key" must not take the key away:
	// what is meant for every recipient is not to be listed there (RFC 9110 §7.6.1).
	return handshakeField(name) || !named(r, name)
}

func handshakeField(name []byte) bool {
	const prefix = "Sec-WebSocket-"
	return len(name) > len(prefix) && equalName(name[:len(prefix)], prefix)
}

// named reports whether Connection lists a field.
func named(r *handshake.Request, name []byte) bool {
	found := false
	r.Each("Connection", func(list []byte) bool {
		for option := range bytes.SplitSeq(list, []byte{','}) {
			if bytes.EqualFold(bytes.TrimSpace(option), name) {
				found = true
			}
		}
		return !found
	})
	return found
}

func appendField[T string | []byte](dst []byte, name string, value T) []byte {
	dst = append(dst, name...)
	dst = append(dst, ": "...)
	dst = append(dst, value...)
	return append(dst, "\r\n"...)
}

// appendForwarding appends X-Forwarded-For, -Proto and -Host, and Forwarded.
func appendForwarding(dst []byte, r *handshake.Request, from origin) []byte {
	for i, name := range forwarding {
		said := ""
		if from.trusted {
			said = joined(r, name)
		}
		dst = append(append(dst, name...), ": "...)
		dst = appendForwardingValue(dst, i, said, r.Host, from)
		dst = append(dst, "\r\n"...)
	}
	return dst
}

// appendForwardingValue appends the value of field i of forwarding, the last
// in the form of RFC 7239. said is what a trusted peer says there, which is
// kept, and the peer added to it; "" of others.
func appendForwardingValue[T string | []byte](dst []byte, i int, said string, host T, from origin) []byte {
	list := i == forwardingFor || i == forwardingForwarded
	if said != "" {
		if dst = append(dst, said...); !list {
			return dst
		}
		dst = append(dst, ", "...)
	}
	peer, proto := from.peer, "http"
	if from.secure {
		proto = "https"
	}
	switch i {
	case forwardingFor:
		return peer.AppendTo(dst)
	case forwardingProto:
		return append(dst, proto...)
	case forwardingHost:
		return append(dst, host...)
	}
	dst = append(dst, "for="...)
	if peer.Is6() {
		dst = append(peer.AppendTo(append(dst, `"[`...)), `]"`...)
	} else {
		dst = peer.AppendTo(dst)
	}
	dst = append(append(dst, `;host="`...), host...)
	return append(append(dst, `";proto=`...), proto...)
}
