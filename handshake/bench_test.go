package handshake

import "testing"

// chromium is the request head of Chromium 140 on Linux, with a page's cookies.
const chromium = "GET /ws/notifications?token=5f2b7c1e9a HTTP/1.1\r\n" +
	"Host: push.example.com\r\n" +
	"Connection: Upgrade\r\n" +
	"Pragma: no-cache\r\n" +
	"Cache-Control: no-cache\r\n" +
	"User-Agent: Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0.0.0 Safari/537.36\r\n" +
	"Upgrade: websocket\r\n" +
	"Origin: https://push.example.com\r\n" +
	"Sec-WebSocket-Version: 13\r\n" +
	"Accept-Encoding: gzip, deflate, br, zstd\r\n" +
	"Accept-Language: de-DE,de;q=0.9,en-US;q=0.8,en;q=0.7\r\n" +
	"Cookie: session=0d9f4f0a6c0b4e0f9c2e6d4a; theme=dark; _ga=GA1.1.1234567890.1700000000\r\n" +
	"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n" +
	"Sec-WebSocket-Protocol: chat, superchat\r\n" +
	"Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n\r\n"

// BenchmarkAccept is the server's whole work for one handshake.
func BenchmarkAccept(b *testing.B) {
	var (
		in   = []byte(chromium)
		out  = make([]byte, 0, 512)
		opts = Options{Protocols: []string{"superchat"}, Origins: []string{"https://*.example.com"}}
		req  Request
		ans  Answer
	)
	b.ReportAllocs()
	b.SetBytes(int64(len(in)))
	for b.Loop() {
		n, err := ParseRequest(in, nil, &req)
		if err != nil || n != len(in) {
			b.Fatal(n, err)
		}
		if err = Check(&req, &opts, &ans); err != nil {
			b.Fatal(err)
		}
		out = AppendAnswer(out[:0], &ans, &opts)
	}
}

func BenchmarkParseRequest(b *testing.B) {
	in := []byte(chromium)
	var req Request
	b.ReportAllocs()
	for b.Loop() {
		if n, err := ParseRequest(in, nil, &req); err != nil || n != len(in) {
			b.Fatal(n, err)
		}
	}
}

func BenchmarkCheck(b *testing.B) {
	var (
		opts = Options{Protocols: []string{"superchat"}}
		req  Request
		ans  Answer
	)
	if _, err := ParseRequest([]byte(chromium), nil, &req); err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		if err := Check(&req, &opts, &ans); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkAppendAccept(b *testing.B) {
	key, out := []byte("dGhlIHNhbXBsZSBub25jZQ=="), make([]byte, 0, 64)
	b.ReportAllocs()
	for b.Loop() {
		out = AppendAccept(out[:0], key)
	}
}

// BenchmarkClient is the client's whole work for one handshake, without the network.
func BenchmarkClient(b *testing.B) {
	h := Hello{Host: "push.example.com", Target: "/ws", Key: []byte("dGhlIHNhbXBsZSBub25jZQ=="), Extensions: "permessage-deflate"}
	answer := AppendAnswer(nil, &Answer{Key: h.Key, Extensions: []byte("permessage-deflate")}, nil)
	out := make([]byte, 0, 512)
	var resp Response
	b.ReportAllocs()
	for b.Loop() {
		out = AppendRequest(out[:0], &h)
		if _, err := ParseResponse(answer, nil, &resp); err != nil {
			b.Fatal(err)
		}
		if err := resp.Check(&h); err != nil {
			b.Fatal(err)
		}
	}
}
