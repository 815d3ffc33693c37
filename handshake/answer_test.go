package handshake

import (
	"bytes"
	"crypto/sha1"
	"encoding/base64"
	"strings"
	"testing"
)

func TestTheAcceptValueIsThatOfTheRFC(t *testing.T) {
	// RFC 6455 §1.3 and §4.2.2
	got := AppendAccept([]byte("before "), []byte("dGhlIHNhbXBsZSBub25jZQ=="))
	if string(got) != "before s3pPLMBiTxaQ9kYGzzhZRbK+xOo=" {
		t.Errorf("got %s", got)
	}
}

func TestKeysOfAnyLengthAreHashed(t *testing.T) {
	for size := range 80 {
		key := strings.Repeat("k", size)
		sum := sha1.Sum([]byte(key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"))
		if got := AppendAccept(nil, []byte(key)); string(got) != base64.StdEncoding.EncodeToString(sum[:]) || len(got) != AcceptSize {
			t.Errorf("%d bytes: %s", size, got)
		}
	}
}

func TestAnAnswerHasOnlyWhatWasChosen(t *testing.T) {
	const start = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n"
	key := []byte("dGhlIHNhbXBsZSBub25jZQ==")
	for _, c := range []struct {
		ans  Answer
		opts *Options
		want string
	}{
		{Answer{Key: key}, nil, ""},
		{Answer{Key: key}, &Options{Protocols: []string{"unused"}}, ""},
		{Answer{Key: key, Protocol: "chat"}, nil, "Sec-WebSocket-Protocol: chat\r\n"},
		{Answer{Key: key, Extensions: []byte("permessage-deflate; server_no_context_takeover")}, &Options{Header: []byte("Server: x\r\nVia: y\r\n")}, "Sec-WebSocket-Extensions: permessage-deflate; server_no_context_takeover\r\nServer: x\r\nVia: y\r\n"},
	} {
		got := AppendAnswer([]byte("frame"), &c.ans, c.opts)
		if string(got) != "frame"+start+c.want+"\r\n" {
			t.Errorf("got %q", got)
		}
	}
}

func TestAnswersDoNotKeepTheBuffer(t *testing.T) {
	buf := make([]byte, 0, 512)
	first := string(AppendAnswer(buf, &Answer{Key: []byte("dGhlIHNhbXBsZSBub25jZQ==")}, nil))
	copy(buf[:cap(buf)], bytes.Repeat([]byte{0xAA}, cap(buf)))
	if again := string(AppendAnswer(buf, &Answer{Key: []byte("dGhlIHNhbXBsZSBub25jZQ==")}, nil)); again != first {
		t.Errorf("%q, then %q", first, again)
	}
}
