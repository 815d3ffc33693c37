// Package proxy is a WebSocket reverse proxy on the loops of package epoll: it
// takes connections of clients, checks their handshake, connects to a backend,
// and passes frames both ways.
//
// # Two slots
//
// A proxied connection, a tunnel, is two connections of one loop that know
// each other by number. What arrives at one is written to the other from the
// loop's read buffer, with one write for each read. While nothing happens
// there is no goroutine, no buffer and no pointer: 272 bytes of tables.
//
//	client ──► slot ─┐ request checked, rebuilt ┌─► slot ──► backend
//	       ◄──       └──────── frames ──────────┘       ◄──
//
// # The handshake
//
// The request is parsed and checked before a backend hears of it. It is
// written anew: hop-by-hop fields go, X-Forwarded-For, -Proto, -Host and
// Forwarded come, everything else stays as the client sent it, the key
// included. What the client sends behind it waits until the backend has said
// 101; nothing of it can be taken for a second request. The 101 goes to the
// client as it is, once its Sec-WebSocket-Accept has been found right. Any
// other answer goes to the client with its body, and then both connections end.
//
// A backend that cannot be connected to is avoided for a while and the next
// one is tried. Once a backend has been sent the request there is no second try.
//
// # Frames
//
// In ModeFrames every header is parsed as it passes and the payload is left
// alone, masked as it is. Both sides are held to RFC 6455: who sends what is
// no frame is told by a Close, and so is the other side. Messages are bounded and
// counted, silent connections pinged, codes of Close seen.
//
// What was passed on ends with a whole frame at every moment. Frames up to
// 16 KiB go on when they are there. Larger ones go on as they arrive, each run
// of bytes as a fragment of its own (RFC 6455 §5.4). So a backend that dies in
// the middle of a message costs its client a Close 1012, and not a connection
// that is cut somewhere in a frame.
//
// A connection on which an extension other than permessage-deflate was agreed
// must not be fragmented anew (§5.4); it goes on as in ModeTunnel.
//
// # Tunnel
//
// In ModeTunnel bytes go on as they are after the handshake. Nothing is
// parsed, counted by message or limited; large transfers do not come into the
// program's memory (splice). A FIN goes on as a FIN, and the other direction
// stays. When one side dies the other is ended, wherever its frames stand.
//
// # Slow and dead
//
// A side that does not take its bytes stops the reading from the other, so
// what waits in between is bounded; after Config.WriteTimeout without progress
// it is given up. A side that vanished without a FIN is found by the pings and
// by TCP_USER_TIMEOUT. What the other side is told:
//
//	backend gone                       client: Close 1012
//	backend takes no bytes, no memory  client: Close 1013
//	backend sends what is no frame     client: Close 1011 (1014 exists, but some clients refuse it)
//	client gone or at fault            backend: Close 1001
//	proxy going down                   both: Close 1001
//
// Requests that are no WebSocket handshake are handed to net/http and its
// reverse proxy, with the same routes and backends; there too another backend
// is tried when one cannot be connected to.
package proxy
