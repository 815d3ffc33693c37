package proxy

import (
	"bytes"
	"cmp"
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
var forwarding = []string{"X-Forwarded-For", "X-Forwarded-Proto", "X-Forwarded-Host", "Forwarded"}

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
	if is("Host") || slices.ContainsFunc(hopByHop, is) || slices.ContainsFunc(forwarding, is) {
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
	values := forwardingValues(func(name string) string { return joined(r, name) }, string(r.Host), from)
	for i, name := range forwarding {
		dst = appendField(dst, name, values[i])
	}
	return dst
}

// forwardingValues are the values of the fields in forwarding, the last in the
// form of RFC 7239. What a trusted peer says is kept, and the peer added to it.
func forwardingValues(said func(name string) string, host string, from origin) (v [4]string) {
	if from.trusted {
		for i, name := range forwarding {
			v[i] = said(name)
		}
	}
	add := func(list *string, own string) {
		if *list != "" {
			*list += ", "
		}
		*list += own
	}
	peer := from.peer.String()
	add(&v[0], peer)
	v[1] = cmp.Or(v[1], "http")
	v[2] = cmp.Or(v[2], host)
	if from.peer.Is6() {
		peer = `"[` + peer + `]"`
	}
	add(&v[3], "for="+peer+`;host="`+host+`";proto=http`)
	return v
}
