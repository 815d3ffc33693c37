package conform

import (
	"context"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"wspoll/handshake"
)

// flooder is a server that repeats something without an end, behind the handshake and what comes first, or in its place.
func flooder(t *testing.T, first, again string, instead bool) *Target {
	t.Helper()
	flood := []byte(strings.Repeat(again, 32<<10/len(again)))
	return standIn(t, "/", func(conn net.Conn) {
		defer conn.Close()
		if !instead && !answerUpgrade(conn) {
			return
		}
		go io.Copy(io.Discard, conn)
		io.WriteString(conn, first)
		for {
			if _, err := conn.Write(flood); err != nil {
				return
			}
		}
	})
}

// answerUpgrade reads a request and accepts it.
func answerUpgrade(conn net.Conn) bool {
	var in []byte
	b := make([]byte, 4<<10)
	for {
		n, err := conn.Read(b)
		if err != nil {
			return false
		}
		in = append(in, b[:n]...)
		var r handshake.Request
		if n, err := handshake.ParseRequest(in, nil, &r); err != nil || n > 0 {
			conn.Write([]byte("HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: " + rightAccept(r.Key) + "\r\n\r\n"))
			return err == nil
		}
	}
}

// TestAServerThatNeverStopsEndsNoRun: whatever a server repeats, a case comes to an end.
func TestAServerThatNeverStopsEndsNoRun(t *testing.T) {
	for _, f := range []struct {
		name, again string
		instead     bool
		does        string // the case, in a few words
		run         func(s *Session)
		says        string
	}{
		{"pings", "\x89\x01x", false, "waits for a pong", func(s *Session) { s.Open(); s.Alive() }, "no pong came within"},
		{"pings", "\x89\x01x", false, "waits for an echo", func(s *Session) { s.Open(); s.ExpectMessage(text, []byte("x")) }, "did not come within"},
		{"pongs", "\x8a\x01x", false, "waits for an echo", func(s *Session) { s.Open(); s.ExpectMessage(text, []byte("x")) }, "did not come within"},
		{"messages", "\x82\x04data", false, "waits for a pong", func(s *Session) { s.Open(); s.ExpectPong([]byte("x")) }, "101 messages came and no pong"},
		{"fragments", "\x02\x7e\x7f\xfc" + strings.Repeat("d", 0x7ffc), false, "waits for a message", func(s *Session) { s.Open(); s.NextMessage() }, "the peer broke the protocol"},
		{"one frame", "d", true, "waits for an answer", func(s *Session) { s.ask(nil); s.Answer() }, "the peer broke the protocol"},
		{"interim answers", "HTTP/1.1 100 Continue\r\n\r\n", true, "waits for an answer", func(s *Session) { s.ask(nil); s.Answer() }, "101 interim answers came"},
	} {
		t.Run(f.name+", and it "+f.does, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			defer cancel()
			o := Options{Timeout: 100 * time.Millisecond}
			got := Run(ctx, flooder(t, "", f.again, f.instead), []Case{{ID: "rfc6455-5-flood", Run: f.run}}, o, nil)
			if len(got) != 1 || got[0].Verdict != Failed || !strings.Contains(got[0].Why(), f.says) {
				t.Errorf("%d results: %+v", len(got), got)
			}
		})
	}
}

// TestAMessageWithoutAnEndFillsNoMemory: a frame that declares more than all that may come.
func TestAMessageWithoutAnEndFillsNoMemory(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	defer cancel()
	endless := Case{ID: "rfc6455-5-endless", Run: func(s *Session) {
		s.Open()
		s.NextMessage()
	}}
	got := Run(ctx, flooder(t, "\x82\x7f\x00\x00\x00\xff\x00\x00\x00\x00", "d", false), []Case{endless}, Options{Timeout: 5 * time.Second}, nil)
	if len(got) != 1 || !strings.Contains(got[0].Why(), "more than 128 MiB came where a message should come") {
		t.Errorf("%d results: %+v", len(got), got)
	}
}
