package proxy

import (
	"context"
	"encoding/binary"
	"log/slog"
	"net/netip"
	"time"

	"wspoll/epoll"
	"wspoll/handshake"

	"github.com/gobwas/ws"
)

// pair is what the two sides of a tunnel share; it begins with the client's
// connection and ends with the later of the two. No pointers.
type pair struct {
	client, backend epoll.Slot // 0: not yet, or no more
	path            pathID
	to              uint32 // index of the backend in table.all
	began           uint32 // tick at which the client came

	// What has passed, by direction. Before the 101, when nothing has, the
	// client's key is in this place; see setKey.
	messages, bytes [2]uint64

	who    [16]byte // address of the client, IPv4 as IPv6; see addr
	port   uint16
	status uint16 // HTTP status that the client was sent; 0: none
	code   ws.StatusCode
	reason Reason
	flags  uint8
}

const (
	pairCounted    uint8 = 1 << iota // counted for its address
	pairTrusted                      // the peer is trusted: who is what it says, from the request on
	pairAsked                        // a request has come: its end is told in the access log
	pairUpgraded                     // 101
	pairCompressed                   // permessage-deflate was agreed on
	pairReason                       // there is a close reason in shard.reasons
	pairHTTP                         // went to net/http, which keeps the count of its address
	pairEnded                        // told, and free
)

// pairID is the index of a pair in shard.pairs; 0 is none.
type pairID = epoll.Slot

// setKey keeps a Sec-WebSocket-Key until the answer comes.
func (p *pair) setKey(key []byte) {
	p.messages[0] = binary.LittleEndian.Uint64(key)
	p.messages[1] = binary.LittleEndian.Uint64(key[8:])
	p.bytes[0] = binary.LittleEndian.Uint64(key[16:handshake.KeySize])
}

// takeKey appends the key to dst and makes room for the counts.
func (p *pair) takeKey(dst []byte) []byte {
	for _, part := range [3]uint64{p.messages[0], p.messages[1], p.bytes[0]} {
		dst = binary.LittleEndian.AppendUint64(dst, part)
	}
	p.messages, p.bytes = [2]uint64{}, [2]uint64{}
	return dst
}

func (p *pair) addr() netip.Addr { return netip.AddrFrom16(p.who).Unmap() }

// newPair makes the pair of a client that has come.
func (sh *shard) newPair(c epoll.Slot) pairID {
	var id pairID
	if n := len(sh.freed); n > 0 {
		id = sh.freed[n-1]
		sh.freed = sh.freed[:n-1]
	} else {
		sh.top++
		id = sh.top
		sh.pairs.Grow(id)
	}
	p := sh.pairs.At(id)
	*p = pair{client: c, began: sh.loop.Tick()}
	if a := sh.loop.PeerAddr(c); a.IsValid() {
		p.who, p.port = a.Addr().As16(), a.Port()
	}
	return id
}

// endPair tells that a pair has ended, and frees it.
func (sh *shard) endPair(id pairID) {
	p := sh.pairs.At(id)
	sh.stats.Closed[p.reason]++
	if p.flags&pairUpgraded != 0 {
		sh.stats.Tunnels--
	}
	if p.flags&(pairCounted|pairHTTP) == pairCounted {
		sh.px.addresses.leave(p.addr())
	}
	if log := sh.px.cfg.Access; p.flags&pairAsked != 0 && p.flags&pairHTTP == 0 && log != nil && log.Enabled(context.Background(), slog.LevelInfo) {
		sh.access(id, p)
	}
	sh.paths.drop(p.path)
	delete(sh.reasons, id)
	sh.endAttempt(id)
	p.flags |= pairEnded
	sh.freed = append(sh.freed, id)
	sh.px.uncount()
}

// access writes the line of a pair that ends.
func (sh *shard) access(id pairID, p *pair) {
	attrs := make([]slog.Attr, 0, 14)
	attrs = append(attrs,
		slog.String("client", netip.AddrPortFrom(p.addr(), p.port).String()),
		slog.String("path", sh.paths.name(p.path)),
		slog.Int("status", int(p.status)))
	if p.flags&pairUpgraded != 0 || p.reason == ReasonBackendRefused {
		attrs = append(attrs, slog.String("backend", sh.px.table.Load().all[p.to].host))
	}
	attrs = append(attrs, slog.Duration("duration", time.Duration(sh.loop.Tick()-p.began)*epoll.Tick))
	if p.flags&pairUpgraded != 0 {
		attrs = append(attrs,
			slog.Uint64("messages_up", p.messages[Up]), slog.Uint64("bytes_up", p.bytes[Up]),
			slog.Uint64("messages_down", p.messages[Down]), slog.Uint64("bytes_down", p.bytes[Down]))
	}
	attrs = append(attrs, slog.String("end", p.reason.String()))
	if p.code != 0 {
		attrs = append(attrs, slog.Int("code", int(p.code)))
	}
	if p.flags&pairReason != 0 {
		attrs = append(attrs, slog.String("reason", sh.reasons[id]))
	}
	sh.px.cfg.Access.LogAttrs(context.Background(), slog.LevelInfo, "tunnel", attrs...)
}

// maxPath is how much of a path is kept for the access log, in bytes: a tunnel
// is not to cost as much memory as a head may be long.
const maxPath = 512

// paths keeps the paths of requests for the access log, each once: tables
// without pointers can then name them by number, and ten thousand tunnels to
// one path are no strings for the garbage collector to look at. Number 0 is
// the empty path.
type paths struct {
	ids  map[string]pathID
	all  []pathUse
	free []pathID
}

type pathID uint32

type pathUse struct {
	name string
	uses int
}

func (x *paths) take(name []byte) pathID {
	if id, ok := x.ids[string(name)]; ok {
		x.all[id].uses++
		return id
	}
	if x.ids == nil {
		x.ids = map[string]pathID{}
		x.all = make([]pathUse, 1)
	}
	use := pathUse{string(name), 1}
	id := pathID(len(x.all))
	if n := len(x.free); n > 0 {
		id = x.free[n-1]
		x.free = x.free[:n-1]
		x.all[id] = use
	} else {
		x.all = append(x.all, use)
	}
	x.ids[use.name] = id
	return id
}

func (x *paths) drop(id pathID) {
	if id == 0 {
		return
	}
	u := &x.all[id]
	if u.uses--; u.uses == 0 {
		delete(x.ids, u.name)
		*u = pathUse{}
		x.free = append(x.free, id)
	}
}

func (x *paths) name(id pathID) string {
	if id == 0 {
		return ""
	}
	return x.all[id].name
}
