// Package client is a WebSocket client on an ordinary connection of package net, with goroutines that block: for a
// person at a terminal, a script, a test. What loads a server with thousands of connections is package bench.
//
//	target, err := client.ParseTarget("ws://localhost:8002/wshandler", false)
//	c, err := client.Dial(ctx, target, client.Options{})
//	defer c.Release()
//	c.Send(ws.OpText, []byte("Hello"))
//	for {
//		e, err := c.Next()
//		if err != nil {
//			break // io.EOF after a closing handshake
//		}
//		fmt.Println(e.Op, string(e.Data))
//		c.Close(ws.StatusNormalClosure, "")
//	}
//
// One goroutine calls Next, over and over: it is what reads, answers pings, and takes part in the closing handshake.
// Others send and close meanwhile. A goroutine of the Conn writes, so that both sides may send much at a time and neither
// waits for the other to read.
//
// What a server can make a Conn hold is bounded: the head of its answer by MaxHead, messages by Options.MaxMessage, as
// they come and inflated, and answers to pings by not reading on while they wait. Nothing is allocated for a length that is
// only declared. Every wait is bounded by Options.Timeout, but for the one for the next message.
package client
