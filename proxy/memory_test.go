package proxy

import (
	"io"
	"runtime"
	"testing"

	"wspoll/frame"

	"github.com/gobwas/ws"
)

func TestAMessageThatPassesAllocatesNothing(t *testing.T) {
	const messages = 20_000
	for name, mode := range map[string]Mode{"frames": ModeFrames, "tunnel": ModeTunnel} {
		t.Run(name, func(t *testing.T) {
			b := newBehind(t)
			px := serve(t, Config{Mode: mode}, b)
			client, backend := px.open(t, b)
			up := client.frameOf(true, ws.OpText, make([]byte, 1000))
			down := frame.AppendFrame(nil, true, ws.OpText, make([]byte, 1000))
			got := make([]byte, 2000)
			round := func() {
				if _, err := client.conn.Write(up); err != nil {
					t.Fatal(err)
				}
				if _, err := io.ReadFull(backend.conn, got[:len(up)]); err != nil {
					t.Fatal(err)
				}
				if _, err := backend.conn.Write(down); err != nil {
					t.Fatal(err)
				}
				if _, err := io.ReadFull(client.conn, got[:len(down)]); err != nil {
					t.Fatal(err)
				}
			}
			for range 100 {
				round()
			}
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			for range messages {
				round()
			}
			runtime.ReadMemStats(&after)
			if n := after.Mallocs - before.Mallocs; n > 200 {
				t.Errorf("%d allocations for %d messages", n, messages)
			}
		})
	}
}

// An idle tunnel has no goroutine and no buffer.
func TestIdleTunnelsCostNoGoroutineAndNoBuffer(t *testing.T) {
	b := newBehind(t)
	px := serve(t, Config{Loops: 2}, b)
	before := runtime.NumGoroutine()
	for range 300 {
		passes(px.open(t, b))
	}
	if n := runtime.NumGoroutine(); n > before {
		t.Errorf("%d goroutines, %d before", n, before)
	}
	if st := px.Stats(); st.Buffered != 0 || st.Tunnels != 300 {
		t.Errorf("%d bytes are held for %d tunnels", st.Buffered, st.Tunnels)
	}
}
