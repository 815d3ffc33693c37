package proxy

import (
	"cmp"
	"crypto/tls"
	"fmt"
	"net"
	"net/url"
	"slices"
	"strings"
	"sync/atomic"
	"time"
)

// Route sends the requests whose path begins with Prefix to one of To. The
// longest prefix that fits counts.
type Route struct {
	Prefix string   // begins with "/"; empty means "/", every path
	To     []string // ws://host:port, or wss:// with TLS
}

// HasTLS reports whether TLS is spoken to a backend of the route.
func (r Route) HasTLS() bool {
	return slices.ContainsFunc(r.To, func(to string) bool {
		scheme, _, _ := parseURL(to)
		return scheme == "wss"
	})
}

// backend is a server behind the proxy. All loops share it.
type backend struct {
	url   string      // ws://host:port, or wss://
	host  string      // host:port
	tls   *tls.Config // nil: without
	index uint32      // in table.all
	seed  uint64      // hash of url

	addr   atomic.Pointer[net.TCPAddr] // nil while the name cannot be resolved
	active atomic.Int64                // tunnels, from the connect on
	fails  atomic.Int32                // attempts that failed, since one did not
	avoid  atomic.Int64                // until this time of the clock it comes last
	sick   atomic.Bool                 // the last health check failed
}

// table is what the routes say. It is not changed once it is in use; SetRoutes
// puts another in its place.
type table struct {
	all    []*backend // every one there ever was, so that the index of one stays its own
	routes []*route   // the longest prefix first
}

type route struct {
	prefix string
	to     []*backend
	next   atomic.Uint32 // where the next choice among equals begins
}

// newTable makes a table of routes; backends that old has too stay the same.
func newTable(routes []Route, old *table, secure *tls.Config) (*table, error) {
	t := &table{}
	if old != nil {
		t.all = slices.Clone(old.all)
	}
	if len(routes) == 0 {
		return nil, fmt.Errorf("there is no backend")
	}
	for _, r := range routes {
		prefix := cmp.Or(r.Prefix, "/")
		switch {
		case !strings.HasPrefix(prefix, "/"):
			return nil, fmt.Errorf("route %q: a path begins with /", prefix)
		case slices.ContainsFunc(t.routes, func(o *route) bool { return o.prefix == prefix }):
			return nil, fmt.Errorf("route %q is there twice", prefix)
		case len(r.To) == 0:
			return nil, fmt.Errorf("route %q has no backend", prefix)
		}
		made := &route{prefix: prefix}
		for _, to := range r.To {
			b, err := t.backend(to, secure)
			if err != nil {
				return nil, err
			}
			if slices.Contains(made.to, b) {
				return nil, fmt.Errorf("route %q: backend %s is there twice", prefix, to)
			}
			made.to = append(made.to, b)
		}
		t.routes = append(t.routes, made)
	}
	slices.SortStableFunc(t.routes, func(a, b *route) int { return len(b.prefix) - len(a.prefix) })
	return t, nil
}

// backend finds the backend with a URL, or makes it.
func (t *table) backend(raw string, secure *tls.Config) (*backend, error) {
	scheme, host, err := parseURL(raw)
	if err != nil {
		return nil, err
	}
	for _, b := range t.all {
		if b.url == scheme+"://"+host {
			return b, nil
		}
	}
	b := &backend{url: scheme + "://" + host, host: host, index: uint32(len(t.all)), seed: hash(host)}
	if scheme == "wss" {
		b.tls = secure.Clone()
		if b.tls.ServerName == "" {
			b.tls.ServerName, _, _ = net.SplitHostPort(host)
		}
	}
	if err := b.resolve(); err != nil {
		return nil, fmt.Errorf("backend %s: %w", raw, err)
	}
	t.all = append(t.all, b)
	return b, nil
}

// CheckBackend says what is wrong with the URL of a backend.
func CheckBackend(url string) error {
	_, _, err := parseURL(url)
	return err
}

// parseURL reads ws://host:port, or wss://; http and https mean the same.
func parseURL(raw string) (scheme, host string, err error) {
	u, err := url.Parse(raw)
	if err == nil {
		scheme = map[string]string{"ws": "ws", "http": "ws", "wss": "wss", "https": "wss"}[u.Scheme]
	}
	switch {
	case err != nil || scheme == "" || u.Hostname() == "":
		return "", "", fmt.Errorf("backend %q is no URL like ws://127.0.0.1:8002", raw)
	case u.Path != "" && u.Path != "/" || u.RawQuery != "" || u.Fragment != "" || u.User != nil:
		return "", "", fmt.Errorf("backend %s: only scheme, host and port; the path is the client's", raw)
	}
	port := "80"
	if scheme == "wss" {
		port = "443"
	}
	return scheme, net.JoinHostPort(strings.ToLower(u.Hostname()), cmp.Or(u.Port(), port)), nil
}

// resolve looks the name up. An address that was found before stays when that fails.
func (b *backend) resolve() error {
	a, err := net.ResolveTCPAddr("tcp", b.host)
	if err != nil {
		return err
	}
	if a.IP == nil {
		a.IP = net.IPv4(127, 0, 0, 1)
	}
	b.addr.Store(a)
	return nil
}

// find is the route for a path, nil when none fits.
func (t *table) find(path string) *route {
	for _, r := range t.routes {
		if strings.HasPrefix(path, r.prefix) {
			return r
		}
	}
	return nil
}

// pick chooses a backend that was not tried yet, nil when there is none. Those
// that seem to be out of order come last, not never: if all seem so, trying
// one costs little, and refusing everybody much.
func (r *route) pick(by balance, key uint64, tried []*backend, now int64) *backend {
	if b := r.pickOf(by, key, tried, func(b *backend) bool { return b.healthy(now) }); b != nil {
		return b
	}
	return r.pickOf(by, key, tried, func(*backend) bool { return true })
}

func (r *route) pickOf(by balance, key uint64, tried []*backend, may func(*backend) bool) (best *backend) {
	first := 0
	if by == leastConnections || by == roundRobin {
		first = int(r.next.Add(1)-1) % len(r.to)
	}
	var most uint64
	for i := range r.to {
		b := r.to[(first+i)%len(r.to)]
		if slices.Contains(tried, b) || !may(b) {
			continue
		}
		switch by {
		case roundRobin:
			return b
		case leastConnections:
			if best == nil || b.active.Load() < best.active.Load() {
				best = b
			}
		default:
			// Rendezvous hashing: each backend has a number for this key, and
			// the highest wins. When one goes, only its own keys move.
			if n := mix(key ^ b.seed); best == nil || n > most {
				best, most = b, n
			}
		}
	}
	return best
}

func (b *backend) healthy(now int64) bool { return !b.sick.Load() && now >= b.avoid.Load() }

// What a failed attempt costs: the backend comes last for half a second, twice
// as long for each further failure in a row.
const (
	avoidFirst = 500 * time.Millisecond
	avoidMost  = 30 * time.Second
)

// failed notes that an attempt at time now did not succeed.
func (b *backend) failed(now int64) {
	n := min(b.fails.Add(1), 10)
	b.avoid.Store(now + int64(min(avoidFirst<<(n-1), avoidMost)))
}

// answered notes that an attempt did succeed.
func (b *backend) answered() {
	if b.fails.Load() != 0 {
		b.fails.Store(0)
		b.avoid.Store(0)
	}
}

// hash is FNV-1a, and mix spreads its bits: the choice of a backend must be
// the same in every process, so maphash will not do.
func hash[T string | []byte](s T) uint64 {
	h := uint64(14695981039346656037)
	for i := range len(s) {
		h = (h ^ uint64(s[i])) * 1099511628211
	}
	return mix(h)
}

func mix(x uint64) uint64 {
	x ^= x >> 31
	x *= 0x7fb5d329728ea185
	x ^= x >> 27
	x *= 0x81dadef4bc2dd44d
	return x ^ x>>33
}

// Backend is what Proxy.Backends tells.
type Backend struct {
	URL     string
	Tunnels int64 // open, or being opened
	Healthy bool  // false: comes last when one is chosen
}
