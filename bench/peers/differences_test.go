package peers

// differences are where the libraries judge otherwise than we do. The clauses
// are of RFC 6455.
var differences = []difference{
	// gorilla/websocket leaves UTF-8 to its user, and looks at no form of a length.
	{"gorilla", "1007 text message is not UTF-8", "goes on|1002|ends", "§8.1: text that is not UTF-8 fails the connection; and at once, not at the end of the message"},
	{"gorilla", "1007 text message ends inside a UTF-8 sequence", "goes on", "§8.1, §5.6: the whole message is UTF-8"},
	{"gorilla", "1007 reason in a Close frame is not UTF-8", "1002", "§7.4.1: 1007 is for data that is not consistent with its type, as text that is not UTF-8"},
	{"gorilla", "1002 Close frame with a payload of one byte", "1005", "§5.5.1: if there is a body, its first two bytes are the code"},
	{"gorilla", "1014", "1002", "§7.4.2: 1000-2999 are registered with IANA, and 1014 is"},
	{"gorilla", "1002 payload length not in its shortest form", "goes on", "§5.2: the minimal number of bytes MUST be used"},
	{"gorilla", "1002 most significant bit of a 64-bit payload length is set", "ends", "§7.1.7: a Close with a code SHOULD say what was wrong"},

	// coder/websocket does not look at UTF-8 either.
	{"coder", "1007 text message is not UTF-8", "goes on|1002|ends", "§8.1"},
	{"coder", "1007 text message ends inside a UTF-8 sequence", "goes on", "§8.1, §5.6"},
	{"coder", "1007 reason in a Close frame is not UTF-8", "1000", "§5.5.1: the reason is UTF-8; §8.1"},
	{"coder", "1002 payload length not in its shortest form", "goes on", "§5.2: the minimal number of bytes MUST be used"},
	{"coder", "1002 control frame with more than 125 bytes of payload", "goes on|1000", "§5.2: the minimal number of bytes MUST be used; for a control frame that leaves the short form alone (§5.5)"},
	{"coder", "1002 frame from a client is not masked", "ends", "§5.1: the server MAY send 1002; §7.1.7: it SHOULD say what was wrong"},
	{"coder", "1002 reserved opcode", "ends", "§5.2 and §5.1 at once, no mask; §7.1.7"},
	{"coder", "1002 most significant bit of a 64-bit payload length is set", "ends", "§7.1.7"},
	{"coder", "1009 message is larger than the limit", "ends", "§7.4.1: 1009; a declared length of 2^63-1 is legal and too large"},

	// gws looks at UTF-8 when the message is whole.
	{"gws", "1007 text message is not UTF-8", "goes on|1000|1002", "§8.1: on receiving bytes that are not UTF-8, so at once; others of its answers are for what came next"},
	{"gws", "1002 payload length not in its shortest form", "goes on", "§5.2: the minimal number of bytes MUST be used"},
	{"gws", "1002 most significant bit of a 64-bit payload length is set", "ends", "§5.2: the bit MUST be 0; gws takes the length for a negative number and panics, which net/http catches"},
	{"gws", "1002 Close frame with a status code that may not be sent", "1007", "§7.4, and a reason that is not UTF-8, §8.1: either answer is right, the code comes first on the wire"},
	{"gws", "1001", "1000", "§5.5.1: the answer typically echoes the code; it need not"},
	{"gws", "1002", "1000", "§5.5.1"},
	{"gws", "1003", "1000", "§5.5.1"},
	{"gws", "1007", "1000", "§5.5.1"},
	{"gws", "1008", "1000", "§5.5.1"},
	{"gws", "1009", "1000", "§5.5.1"},
	{"gws", "1010", "1000", "§5.5.1"},
	{"gws", "1011", "1000", "§5.5.1"},
	{"gws", "1012", "1000", "§5.5.1"},
	{"gws", "1013", "1000", "§5.5.1"},
	{"gws", "1014", "1002", "§7.4.2: 1000-2999 are registered with IANA, and 1014 is"},
	{"gws", "ends", "1000", "§7.1.4: TCP was closed without a Close, which is not clean; who has sent FIN gets a Close 1000 that closes nothing"},
}
