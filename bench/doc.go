// Package bench is the load client: the other end of what package server is,
// on the same loops, with the same parser and encoder, so that one core of
// client can saturate a server.
//
// A Client opens connections to a WebSocket server (or to a plain TCP echo,
// the floor that servers are compared with) and keeps messages in flight on
// them; what comes back is compared with what was sent, byte for byte. CPU and
// memory of the server come from /proc (Process).
package bench
