// Package inspect explains the bytes of WebSocket connections: what each line of the handshake is for (RFC 6455 §4), where
// the accept value comes from (§1.3), what each bit of a frame says (§5.2), which messages the frames make up (§5.4), and
// every rule that was broken, with the clause, the close code that it demands and the cure.
//
// # One connection
//
// An Explainer is fed what each side sent, in any pieces, and returns Records:
//
//	e := inspect.New(inspect.Options{})
//	for {
//		... // n bytes of one side, Client or Server, have come into b
//		for _, r := range e.Feed(inspect.Client, time.Now(), b[:n]) {
//			text.Write(&r)
//		}
//	}
//	e.Finish()
//
// Records lie in three lanes. The lane of reads has what each call of Feed brought. The lane of the wire has what the bytes
// are: lines of a handshake, frames, and bytes that are neither. The lane of messages has what the frames make up. Each
// lane of each direction is numbered from 0, and records refer to those of other lanes by number. In the lane of reads and
// in that of the wire every byte belongs to exactly one record, and the records of the last two lanes do not depend on how
// the bytes were cut, but for the numbers of the reads.
//
// # Live
//
// A Live follows connections while they run. Event loops hand it what they read and wrote, by an epoll.Tap that is a
// LiveConn, and never wait: it copies what there is room for, counts the rest, and explains on a goroutine of its own.
//
// # Judgement
//
// A receiver stops at the first violation, as package frame does, and closes. An Explainer goes on as long as it knows
// where the next frame begins, and lists all violations. What is a violation, its section, and the close code are
// not decided here: they are the values Err… of package frame and the refusals of package handshake. The tests hold the
// first violation that is listed against what frame.Parser says of the same bytes, and against what a live server
// answers. What this package adds is the name of the kind, where it is, and what to do about it.
//
// The handshake has many faults that package handshake would tell one at a time. Here each part of it (the request line,
// Host, Upgrade, the key, ...) is put into a handshake that is otherwise right, and that is judged.
//
// # Limits
//
// An Explainer keeps no record that it has returned, and of payload only an excerpt (Options.Excerpt), of a head at most
// MaxHead bytes, and for each direction that is compressed an inflater of 80 KiB. It reads no clock and does no IO.
//
// # Captures
//
// ReadCapture takes the TCP connections out of a pcap or pcapng file, which tcpdump, tshark and Wireshark write. What
// is missing in the capture is told with Explainer.Gap; a gap inside a frame whose length is known loses nothing but
// its payload.
//
// # Output
//
// View is a Record with what else a program needs to draw it: the fields of a frame with their bits and words. Text writes
// records for people: the header as a diagram like that of §5.2, then in words, then the payload as it was
// on the wire and without its mask. Record.String is one line, for traces. Records have JSON tags, for machines.
// Explain does it all for the bytes of one connection.
package inspect
