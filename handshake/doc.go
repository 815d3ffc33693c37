// Package handshake is the opening handshake of the WebSocket protocol, RFC 6455 §4, for both sides, on byte slices: it
// reads no connection, starts no goroutine and asks no clock. What it parses aliases the bytes it was given.
//
// # What the handshake is for
//
// A WebSocket begins its life as an HTTP request, so that one port, and the proxies before it, can serve both. The client
// asks the server to switch the connection to another protocol (RFC 6455 §1.3):
//
//	GET /chat HTTP/1.1
//	Host: server.example.com
//	Upgrade: websocket
//	Connection: Upgrade
//	Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==
//	Origin: http://example.com
//	Sec-WebSocket-Protocol: chat, superchat
//	Sec-WebSocket-Version: 13
//
// Upgrade names the protocol. Connection lists Upgrade to say that it is meant for the next hop only: a proxy which does not
// know WebSocket must drop both, and the server then sees a plain GET. Each line ends in CR LF, and an empty line ends the
// head. A server that agrees answers 101, and with the byte after its empty line both sides speak frames:
//
//	HTTP/1.1 101 Switching Protocols
//	Upgrade: websocket
//	Connection: Upgrade
//	Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=
//	Sec-WebSocket-Protocol: chat
//
// Any other status means that the connection goes on as HTTP.
//
// # Where the accept value comes from
//
// A server that never heard of WebSocket might be made to send something that looks like a yes, for instance by echoing
// what it was sent. So the yes has to show that its sender knows the protocol. The client sends a random key, 16 bytes
// in base64:
//
//	dGhlIHNhbXBsZSBub25jZQ==
//
// The server puts a constant behind it, a GUID that stands in the RFC and nowhere else:
//
//	dGhlIHNhbXBsZSBub25jZQ==258EAFA5-E914-47DA-95CA-C5AB0DC85B11
//
// It takes the SHA-1 of these 60 bytes,
//
//	b3 7a 4f 2c c0 62 4f 16 90 f6 46 06 cf 38 59 45 b2 be c4 ea
//
// and sends that in base64: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=. The client does the same and compares. The key changes with each
// connection, so that no cache can give the answer. It is no secret and authenticates nobody, and that SHA-1 is broken as
// a signature does not matter for it (§10.8). The names Sec-... are there because scripts in a browser cannot set such
// headers: no XMLHttpRequest can pretend to be a handshake.
//
// # What is negotiated
//
// Sec-WebSocket-Version is 13 since the RFC; for any other the server answers 426 and says which it knows.
// Sec-WebSocket-Protocol lists what may be spoken inside the messages; the server picks one of the list, or none.
// Sec-WebSocket-Extensions offers changes to the framing, in practice permessage-deflate (RFC 7692), of which the next
// section tells. A package that implements another reads the offers with Request.Each and puts its answer into
// Answer.Extensions.
//
// Origin is the page whose script opens the connection. A browser lets every page on the web connect to every
// WebSocket server, with the cookies of that server, so the server must look at it (§10.2): Check allows pages of the
// same host and port, unless Options.Origins says otherwise. A program that is no browser can send any Origin, or none;
// the check protects users of browsers and is no access control.
//
// # How compression is agreed on
//
// A client lists its offers, the one it likes best first, and the others for servers that decline it (RFC 7692 §7.1):
//
//	Sec-WebSocket-Extensions: permessage-deflate; server_max_window_bits=10; client_max_window_bits, permessage-deflate
//
// The server takes the first that is valid, and its answer has what then holds:
//
//	Sec-WebSocket-Extensions: permessage-deflate; server_max_window_bits=10; client_max_window_bits=12
//
// There are four parameters, and all are about memory. A compressor finds bytes again that lie in its window, and the
// other side must hold as much of what it received. With max_window_bits=10 that is 1 KiB in place of the 32 KiB of 15.
// With no_context_takeover each message begins with an empty window, so neither side has to keep one between messages;
// small messages that resemble each other then compress less well. Each stands once for the server's direction and once
// for the client's:
//
//	                            asked by the client                   answered by the server
//	server_no_context_takeover  must be answered                      also unasked
//	client_no_context_takeover  a hint; the client does it anyhow     also unasked
//	server_max_window_bits=N    must be answered, with N or less      also unasked
//	client_max_window_bits      "you may limit me"                    with a value, only if asked
//	client_max_window_bits=N    the same; the client keeps to N       with N or less
//
// Options.Deflate says what a server wants, and Answer.Deflate what came of it; AppendDeflateOffers writes a client's
// offers, and Response.Check judges the answer, which is in Response.Deflate. Who compresses what is secret together with
// what others choose shows them the length of the one by the other; a server leaves Options.Deflate nil where that matters.
//
// # How to use it
//
// A server collects bytes and calls ParseRequest until n > 0 or there is an error; then Check, and AppendAnswer. Each
// error of these is a *Refusal and goes to the peer with AppendRefusal:
//
//	n, err := handshake.ParseRequest(b, nil, &req)
//	if err == nil && n == 0 {
//		return // read more
//	}
//	if err == nil {
//		err = handshake.Check(&req, &opts, &ans)
//	}
//	if err != nil {
//		out = handshake.AppendRefusal(out, err.(*handshake.Refusal), false)
//		return // flush, then close
//	}
//	out = handshake.AppendAnswer(out, &ans, &opts)
//	frames := b[n:] // a client may not send any yet, but bytes that are there are not lost
//
// A request that is no WebSocket handshake at all (Request.WantsWebSocket) is plain HTTP, and b can be handed on whole.
// A client fills a Hello, sends AppendRequest, calls ParseResponse until n > 0, and Response.Check.
//
// The accepting path, parse and check and answer, does not allocate.
package handshake
