// Package frame is the WebSocket protocol after the handshake, RFC 6455 §5 to
// §8, on byte slices: what arrived goes in, pieces of messages and the bytes
// to answer come out. It does no IO, asks no clock, starts no goroutine, and
// on its way without errors it allocates nothing.
//
// # Frames
//
// After the handshake both sides send frames, one behind the other. A frame
// is a header of 2 to 14 bytes and a payload (§5.2):
//
//	byte 0   1... ....   FIN: the last frame of its message
//	         .1.. ....   RSV1: the message is compressed, if that was agreed
//	         ..11 ....   RSV2, RSV3: always 0
//	         .... 1111   opcode
//	byte 1   1... ....   MASK: a masking key follows
//	         .111 1111   payload length: 0 to 125 is the length itself,
//	                     126 says that it is in the next 2 bytes,
//	                     127 in the next 8, most significant byte first
//	then     0, 2 or 8 bytes of length, 0 or 4 bytes of masking key, payload
//
// The length must be in its shortest form: 5 is never written as 126, 0, 5.
// The text "Hello", as a server sends it and as a client does:
//
//	81 05               48 65 6c 6c 6f
//	81 85 37 fa 21 3d   7f 9f 4d 51 58
//
// A client masks: byte i of the payload is XORed with byte i mod 4 of a key
// that is new and random for each frame (§5.3), so that a script cannot make
// a browser write bytes of its choice past a proxy (§10.3). A server does not
// mask. Either closes the connection when the other does it wrong (§5.1).
//
// # Messages
//
// A message is one frame, or several, its fragments (§5.4): the first has the
// opcode text (1) or binary (2), the others have continuation (0), the last
// has FIN. So a sender may begin before it knows the end:
//
//	01 03 48 65 6c      text, more to come   "Hel"
//	89 00               a ping may come between
//	80 02 6c 6f         continuation, FIN    "lo"
//
// The text of a whole message is UTF-8 (§5.6); a fragment may end inside a
// code point.
//
// Control frames are close (8), ping (9) and pong (10), at most 125 bytes and
// never in fragments (§5.5), so they can be answered at once, between the
// fragments of whatever else is going on.
//
// # Closing
//
// Who wants to end sends a Close, with a status code and perhaps a reason,
// and after it no more data. The other answers with a Close (§5.5.1). Who has
// both sent and received one is done, and the server closes the TCP
// connection. The same frame tells the peer which rule it broke: 1002 for the
// protocol, 1007 for text that is not UTF-8, 1009 for too large a message.
//
// # The package
//
// A Parser is the receiving half, 32 bytes that remember where the stream
// stands between two reads. Parser.Next takes the bytes that have arrived,
// however they are cut, and yields a Piece: payload of one frame, unmasked
// where it lies. A large message passes in as many pieces as reads, without
// ever being in memory as a whole; a Joiner makes whole messages of them for
// who wants that.
//
// A Conn is a Parser that also answers pings and does both sides of the
// closing handshake. An intermediary that only passes frames on uses the
// Parser; an endpoint uses the Conn. One with a million idle connections keeps
// of each only its State, 6 bytes: between two messages a Parser is its zero value.
//
// An Inflater decompresses the messages of permessage-deflate (RFC 7692) as they
// come, and a Deflater compresses them; both serve all connections of a
// goroutine. Terms are what one connection has agreed on.
//
// AppendFrame, AppendMasked, AppendClose and AppendMaskedClose write frames,
// AppendHeader a header alone.
//
// Faults of the peer are values of type *Error, with the close code and the
// section. Faults of the caller are panics with a Misuse: no bytes from the
// network can lead to one.
package frame
