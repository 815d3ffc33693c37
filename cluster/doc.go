// Package cluster joins the topics of several servers through NATS: what is
// published on one reaches the subscribers of all.
//
// A message that is published goes to NATS first and comes back from there,
// to the server that sent it as to every other. With JetStream it comes back
// in the order of a stream, so that all servers send the messages of a topic in
// one order, with the numbers of the stream, and each keeps what the stream
// holds for newcomers and for those who come back: with whichever server. A
// publish over HTTP is answered when the message is in the stream. Without
// JetStream there are no common numbers and no common memory, and the order is
// that of each publisher alone.
//
// While NATS cannot be reached, messages go to the subscribers of their own
// server at once and wait, up to Config.Buffer, for NATS. When it is back, the
// server first takes what the stream has got meanwhile, and then sends what
// waits. So a message is never behind one of its own publisher; but subscribers
// of this server have had its own messages before those of others that came
// earlier in the stream. Whoever counts (?seq=1) gets them again, with their
// numbers; others do not.
//
// What is in the stream is not lost while the stream keeps it. What only waits
// here is lost with the process.
package cluster
