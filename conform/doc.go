// Package conform holds a peer to RFC 6455 and RFC 7692: some 1200 cases, each a short conversation over a connection
// of its own, in which the suite says something right or wrong and knows what may come back. The peer is any server at a
// ws:// or wss:// URL that echoes (Run), or any client that connects to us and echoes (Listen).
//
// # Verdicts
//
//   - ok: what the RFC asks for came. Remarks may say more.
//   - non-strict: the RFC tolerates it, or asks for better with a SHOULD only, or the right thing came late.
//   - failed: a MUST was broken, by what the case looks at or by anything else in its bytes: all that the peer sends goes
//     through frame.Parser or handshake.ParseResponse.
//   - unimplemented: the case needs something optional that the peer does not offer.
//
// The worst that was said in a case is its verdict. One MUST is not held so: where TCP ends without the Close that is owed
// for ours (RFC 6455 §5.5.1), that is non-strict, since every case of such a peer would fail, and for nothing else.
//
// # How a case is written
//
// A Case is a value: an id, the sentence that is shown to people, and a function that holds the conversation.
//
//	{
//		ID:       "rfc6455-5.5.2-ping-payload-125",
//		Sentence: "A ping with 125 bytes of payload. A pong with the same bytes must come back.",
//		Run: func(s *Session) {
//			s.Open()
//			s.Send(s.Frame(fin|ping, payload))
//			s.ExpectPong(payload)
//			s.Finish()
//		},
//	},
//
// The id is "rfc6455-" or "rfc7692-", the section, "-", and words of a-z, 0-9 and hyphens; it never changes its meaning. Sentences say
// "the peer", since most cases run in both directions; those that do not are for one Peer.
//
// A method of Session that does not get what it must get ends the case, as t.Fatal ends a test: what follows it may rely
// on it. NonStrict and Remark note something and let the case go on. Nothing sleeps. What must come is waited for,
// Options.Timeout long; that something does NOT come is shown by what must come behind it: a pong (Alive), or the end of
// the closing handshake (Finish). A case that leaves the connection in order ends with Finish; one in which the peer must
// fail the connection ends with ExpectFail.
//
// Frames are made by Session.Frame, which masks when we are the client. Its first argument is the first byte of the
// header, FIN, RSV and opcode, right or wrong. What no header of that kind can be, such as a length that is not minimal,
// is written as bytes and goes through Session.Raw, which only adds the masking.
//
// What only one kind of peer can be asked says so in Case.Peer: cases for servers build their request with Session.Head,
// change it, and wait with ExpectOpen, ExpectRefusal or ExpectEither; cases for clients begin when the request has come
// and been found right, and answer with Session.AnswerHead.
//
// A new file of cases is one function that returns them, and one line in the table groups.
//
// # Compression
//
// Cases of RFC 7692 open with OpenDeflate, which is given what they wish for in terms of us and the peer; a peer that does
// not go along makes them unimplemented. A stream writes what we compress bit by bit: stored blocks, blocks in the fixed
// code with exactly the matches that a case is about, codes of its own, right or wrong; it knows the text they stand for.
// Session.say sends it, echoed waits for the text too. What the peer compresses is inflated with exactly the window that was
// agreed, behind the text of its earlier messages or behind nothing, so that a match which reaches too far fails the case;
// the digits that the window cases send come again at distances where only a larger window would see them.
//
// Whether a peer has a limit for messages cannot be asked. Large messages, and small ones that become large, may come back
// or be refused with 1009; a remark tells which.
//
// Where a rule binds only the sender, because the RFC has no words for the receiver (a match beyond the agreed window, a
// reference to a message before without context takeover, a stream that is cut off), a peer that tolerates the breach is
// non-strict. What is no DEFLATE at all must fail the connection; RFC 7692 names no code for it, so 1007 and 1002 are ok.
//
// # Cutting
//
// With Options.Cut each case is run again and again, what it sends cut in two at another position each time, and once byte by
// byte; see cuts.
package conform
