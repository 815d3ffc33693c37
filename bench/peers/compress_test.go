package peers

import (
	"fmt"
	"strings"
	"testing"
)

// Clients that compress, with and without context takeover, against the server
// in both of its ways, directly and through the proxy.
func TestCompressedMessagesComeBack(t *testing.T) {
	for _, mode := range []string{"shared", "context"} {
		s := start(t, "--compress", mode, "--compress-min", "1")
		px := startWspollProxy(t, hostOf(t, s.url), "frames", "--idle-timeout", "2m")
		for way, url := range map[string]string{"directly": s.url, "through the proxy": through(t, px, s.url)} {
			for i := range libraries[:3] { // gobwas leaves compressing to its user
				lib := &libraries[i]
				for _, takeover := range []bool{false, true} {
					t.Run(fmt.Sprintf("%s %s %s takeover %v", mode, way, lib.name, takeover), func(t *testing.T) {
						c := lib.mustDial(t, url, options{deflate: true, takeover: takeover})
						if !strings.HasPrefix(c.extensions, "permessage-deflate") {
							t.Fatalf("agreed on %q", c.extensions)
						}
						if asked := lib.name == "gorilla" || !takeover || mode == "shared"; strings.Contains(c.extensions, "server_no_context_takeover") != asked {
							t.Errorf("agreed on %q", c.extensions)
						}
						for range 2 {
							for _, n := range []int{0, 1, 125, 126, 65535, 65536, 1 << 20} {
								for _, text := range []bool{true, false} {
									p := payload(text, n)
									if err := c.send(text, append([]byte(nil), p...)); err != nil {
										t.Fatal(err)
									}
									c.wantEcho(t, text, p)
									parts := [][]byte{append([]byte(nil), p[:n/3]...), append([]byte(nil), p[n/3:n/2]...), append([]byte(nil), p[n/2:]...)}
									if err := c.fragments(text, parts); err != nil {
										t.Fatal(err)
									}
									c.wantEcho(t, text, p)
								}
							}
						}
						// So short that nothing of it is echoed: coder 1.8.15 panics when a
						// Close comes within a compressed message, with context takeover.
						c.send(true, []byte(strings.Repeat("x", 1000)+"\xfe"))
						c.wantClose(t, 1007)
					})
				}
			}
		}
	}
}
