package handshake_test

import (
	"crypto/sha1"
	"encoding/base64"
	"fmt"
	"strings"

	"wspoll/handshake"
)

// The accept value of RFC 6455 §1.3, step by step and with AppendAccept.
func ExampleAppendAccept() {
	key := "dGhlIHNhbXBsZSBub25jZQ=="

	sum := sha1.Sum([]byte(key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"))
	fmt.Printf("% x\n", sum)
	fmt.Println(base64.StdEncoding.EncodeToString(sum[:]))

	fmt.Println(string(handshake.AppendAccept(nil, []byte(key))))
	// Output:
	// b3 7a 4f 2c c0 62 4f 16 90 f6 46 06 cf 38 59 45 b2 be c4 ea
	// s3pPLMBiTxaQ9kYGzzhZRbK+xOo=
	// s3pPLMBiTxaQ9kYGzzhZRbK+xOo=
}

// Both sides of a whole handshake; the slices stand for what goes over the wire.
func Example() {
	// The client asks. In earnest the nonce comes from crypto/rand.
	hello := handshake.Hello{
		Host: "server.example.com", Target: "/chat",
		Key:       handshake.AppendKey(nil, [16]byte([]byte("the sample nonce"))),
		Protocols: []string{"chat", "superchat"},
	}
	up := handshake.AppendRequest(nil, &hello)
	up = append(up, "a frame"...)

	// The server reads, checks and answers.
	var (
		req  handshake.Request
		ans  handshake.Answer
		opts = handshake.Options{Protocols: []string{"superchat", "chat"}}
	)
	n, err := handshake.ParseRequest(up, nil, &req)
	if err == nil {
		err = handshake.Check(&req, &opts, &ans)
	}
	fmt.Printf("server: %s %s, error %v, then %q\n", req.Method, req.Path, err, up[n:])
	down := handshake.AppendAnswer(nil, &ans, &opts)
	fmt.Print(strings.ReplaceAll(string(down), "\r\n", "\n"))

	// The client makes sure that it is understood.
	var resp handshake.Response
	_, err = handshake.ParseResponse(down, nil, &resp)
	if err == nil {
		err = resp.Check(&hello)
	}
	fmt.Printf("client: %d %s, error %v, speaks %s\n", resp.Status, resp.Reason, err, resp.Protocol)
	// Output:
	// server: GET /chat, error <nil>, then "a frame"
	// HTTP/1.1 101 Switching Protocols
	// Upgrade: websocket
	// Connection: Upgrade
	// Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=
	// Sec-WebSocket-Protocol: chat
	//
	// client: 101 Switching Protocols, error <nil>, speaks chat
}

// The handshake of RFC 6455 §1.3, byte for byte; only the CR before each line end is taken away to print it.
func ExampleAppendRequest() {
	hello := handshake.Hello{
		Host: "server.example.com", Target: "/chat",
		Key:       []byte("dGhlIHNhbXBsZSBub25jZQ=="),
		Origin:    "http://example.com",
		Protocols: []string{"chat", "superchat"},
	}
	request := handshake.AppendRequest(nil, &hello)
	fmt.Print(strings.ReplaceAll(string(request), "\r\n", "\n"))

	var req handshake.Request
	var ans handshake.Answer
	opts := handshake.Options{Protocols: []string{"chat"}, Origins: []string{"http://example.com"}}
	if _, err := handshake.ParseRequest(request, nil, &req); err != nil {
		fmt.Println(err)
	}
	if err := handshake.Check(&req, &opts, &ans); err != nil {
		fmt.Println(err)
	}
	fmt.Print(strings.ReplaceAll(string(handshake.AppendAnswer(nil, &ans, &opts)), "\r\n", "\n"))
	// Output:
	// GET /chat HTTP/1.1
	// Host: server.example.com
	// Upgrade: websocket
	// Connection: Upgrade
	// Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==
	// Origin: http://example.com
	// Sec-WebSocket-Protocol: chat, superchat
	// Sec-WebSocket-Version: 13
	//
	// HTTP/1.1 101 Switching Protocols
	// Upgrade: websocket
	// Connection: Upgrade
	// Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=
	// Sec-WebSocket-Protocol: chat
}

// A URL in the parts of which the handshake is made.
func ExampleParseURL() {
	u, err := handshake.ParseURL("wss://example.com/chat?room=1")
	fmt.Println(u.Secure, u.Hostname, u.Port, u.Host, u.Target, err)
	_, err = handshake.ParseURL("ws://example.com/#fragment")
	fmt.Println(err)
	// Output:
	// true example.com 443 example.com /chat?room=1 <nil>
	// ws://example.com/#fragment: a WebSocket URL has no user and no fragment (RFC 6455 §3)
}

// What a person sees who opens a WebSocket URL with curl.
func ExampleAppendRefusal() {
	var (
		req handshake.Request
		ans handshake.Answer
	)
	handshake.ParseRequest([]byte("GET /chat HTTP/1.1\r\nHost: localhost\r\nUser-Agent: curl/8\r\nAccept: */*\r\n\r\n"), nil, &req)
	err := handshake.Check(&req, nil, &ans)
	out := handshake.AppendRefusal(nil, err.(*handshake.Refusal), false)
	fmt.Print(strings.ReplaceAll(string(out), "\r\n", "\n"))
	// Output:
	// HTTP/1.1 426 Upgrade Required
	// Content-Type: text/plain; charset=utf-8
	// X-Content-Type-Options: nosniff
	// Content-Length: 82
	// Connection: Upgrade, close
	// Upgrade: websocket
	//
	// this is a WebSocket service; open it with a WebSocket client (Upgrade: websocket)
}
