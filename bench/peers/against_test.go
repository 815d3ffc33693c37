package peers

import (
	"bytes"
	"context"
	"encoding/binary"
	"fmt"
	"net/url"
	"strings"
	"sync"
	"testing"
	"time"
)

// each runs a test for every library, all against one server.
func each(t *testing.T, args []string, f func(t *testing.T, lib *library, s *server)) {
	s := start(t, args...)
	for i := range libraries {
		lib := &libraries[i]
		t.Run(lib.name, func(t *testing.T) { f(t, lib, s) })
	}
}

func (lib *library) mustDial(t *testing.T, url string, o options) *client {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	c, err := lib.dial(ctx, url, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.drop)
	return c
}

// next is what arrives next.
func (c *client) next(t *testing.T) event {
	t.Helper()
	select {
	case e := <-c.events:
		return e
	case <-time.After(patience):
		t.Fatal("nothing arrives")
		return event{}
	}
}

// wantEcho fails the test unless the next that arrives is the message.
func (c *client) wantEcho(t *testing.T, text bool, p []byte) {
	t.Helper()
	e := c.next(t)
	if e.end {
		t.Fatalf("the connection ended instead of an echo of %d bytes: code %d %q, %v", len(p), e.code, e.reason, e.err)
	}
	if e.text != text || !bytes.Equal(e.payload, p) {
		t.Fatalf("the echo of %d bytes (text: %v) is %d bytes (text: %v), equal: %v", len(p), text, len(e.payload), e.text, bytes.Equal(e.payload, p))
	}
}

// wantClose fails the test unless the server's Close comes after the messages
// that are still on their way.
func (c *client) wantClose(t *testing.T, code int) {
	t.Helper()
	for {
		if e := c.next(t); e.end {
			if e.code != code {
				t.Errorf("the server closes with %d %q (%v), want %d", e.code, e.reason, e.err, code)
			}
			return
		}
	}
}

// payload is n bytes that differ from their neighbours in any frame or buffer;
// as text it has runes of 1 to 4 bytes.
func payload(text bool, n int) []byte {
	b := make([]byte, 0, n+8)
	for i := uint32(0); len(b) < n; i++ {
		if text {
			b = append(b, fmt.Sprintf("%dß€𝄞", i)...)
		} else {
			b = binary.LittleEndian.AppendUint32(b, i*2654435761)
		}
	}
	if !text {
		return b[:n]
	}
	cut := n
	for cut > 0 && cut < len(b) && b[cut]&0xc0 == 0x80 {
		cut--
	}
	b = b[:cut]
	for len(b) < n {
		b = append(b, '.')
	}
	return b
}

func name(text bool) string {
	if text {
		return "text"
	}
	return "binary"
}

func TestEveryMessageSizeComesBack(t *testing.T) {
	each(t, nil, func(t *testing.T, lib *library, s *server) {
		for _, o := range []options{{}, {deflate: true}} {
			c := lib.mustDial(t, s.url, o)
			for _, text := range []bool{true, false} {
				for _, n := range []int{0, 1, 2, 124, 125, 126, 127, 128, 65534, 65535, 65536, 65537, 1 << 20} {
					t.Run(fmt.Sprintf("%s %d deflate %v", name(text), n, o.deflate), func(t *testing.T) {
						p := payload(text, n)
						// Some libraries mask in place.
						if err := c.send(text, bytes.Clone(p)); err != nil {
							t.Fatal(err)
						}
						c.wantEcho(t, text, p)
					})
				}
			}
		}
	})
}

func TestMessageAtTheLimitComesBackAndAboveItIsClosedWith1009(t *testing.T) {
	each(t, nil, func(t *testing.T, lib *library, s *server) {
		for _, text := range []bool{true, false} {
			c := lib.mustDial(t, s.url, options{})
			p := payload(text, 16<<20)
			if err := c.send(text, bytes.Clone(p)); err != nil {
				t.Fatal(err)
			}
			c.wantEcho(t, text, p)
			for _, n := range []int{16<<20 + 1, 32 << 20} {
				c := lib.mustDial(t, s.url, options{})
				if err := c.send(text, payload(text, n)); err != nil {
					t.Logf("writing %d bytes ends with %v, which is as good as any", n, err)
				}
				c.wantClose(t, 1009)
			}
		}
		s.logged("message too large")
	})
}

func TestFragmentsMakeOneMessage(t *testing.T) {
	each(t, nil, func(t *testing.T, lib *library, s *server) {
		c := lib.mustDial(t, s.url, options{})
		for _, text := range []bool{true, false} {
			for _, size := range []int{1, 3, 4096, 5000, 100_000} { // 1 and 3 cut runes
				for _, count := range []int{1, 2, 7, 40} {
					whole := payload(text, size*count)
					var parts [][]byte
					for i := range count {
						parts = append(parts, bytes.Clone(whole[i*size:][:size]))
					}
					if err := c.fragments(text, parts); err != nil {
						t.Fatal(err)
					}
					c.wantEcho(t, text, whole)
				}
			}
		}
	})
}

func TestPingIsAnsweredWithItsPayload(t *testing.T) {
	each(t, nil, func(t *testing.T, lib *library, s *server) {
		c := lib.mustDial(t, s.url, options{})
		for _, n := range []int{0, 1, 4, 124, 125} {
			p := payload(false, n)
			if err := c.ping(bytes.Clone(p)); err != nil {
				t.Fatal(err)
			}
			select {
			case got := <-c.pongs:
				// A library that makes its own payload checks it, too.
				if !lib.ownPings && !bytes.Equal(got, p) {
					t.Errorf("the pong for %x has %x", p, got)
				}
			case e := <-c.events:
				t.Fatalf("instead of a pong there is %+v", e)
			case <-time.After(patience):
				t.Fatal("there is no pong")
			}
		}
		if err := c.send(true, []byte("after the pings")); err != nil {
			t.Fatal(err)
		}
		c.wantEcho(t, true, []byte("after the pings"))
	})
}

func TestLegalCloseCodesComeBack(t *testing.T) {
	each(t, nil, func(t *testing.T, lib *library, s *server) {
		for _, code := range []int{1000, 1001, 1002, 1003, 1007, 1008, 1009, 1010, 1011, 1012, 1013, 1014, 3000, 3999, 4000, 4999} {
			t.Run(fmt.Sprint(code), func(t *testing.T) {
				c := lib.mustDial(t, s.url, options{})
				if err := c.send(true, []byte("first")); err != nil {
					t.Fatal(err)
				}
				c.wantEcho(t, true, []byte("first"))
				if err := c.close(code, "grüße"); err != nil {
					t.Fatal(err)
				}
				switch {
				case lib.checksCode:
					if e := c.next(t); !e.end || e.code != 0 && e.code != code {
						t.Errorf("the answer is %+v", e)
					}
				case !lib.leavesAtOnce && (code != 1014 || lib.knows1014):
					c.wantClose(t, code)
				}
				s.logged(`reason="peer closed"`, fmt.Sprintf("code=%d", code))
			})
		}
	})
}

func TestIllegalCloseCodesAreAnsweredWith1002(t *testing.T) {
	each(t, nil, func(t *testing.T, lib *library, s *server) {
		if lib.goodCodes {
			t.Skipf("%s sends no illegal code", lib.name)
		}
		for _, code := range []int{0, 999, 1004, 1005, 1006, 1015, 1016, 2000, 2999, 5000, 65535} {
			if lib.leavesAtOnce && code < 1000 {
				continue // gws makes 1000 of it
			}
			c := lib.mustDial(t, s.url, options{})
			if err := c.close(code, ""); err != nil {
				t.Fatal(err)
			}
			if !lib.leavesAtOnce {
				c.wantClose(t, 1002)
			}
		}
		s.logged(`reason="protocol error"`)
	})
}

func TestTextThatIsNotUTF8IsClosedWith1007(t *testing.T) {
	each(t, nil, func(t *testing.T, lib *library, s *server) {
		for _, bad := range []string{"\xff", "ok so far \xc0\xaf", "\xed\xa0\x80", "\xf4\x90\x80\x80", "ends in mid-rune \xe2\x82", strings.Repeat("x", 70_000) + "\xfe"} {
			c := lib.mustDial(t, s.url, options{})
			if err := c.send(true, []byte(bad)); err != nil {
				t.Fatal(err)
			}
			c.wantClose(t, 1007)

			// The same bytes are fine as binary.
			c = lib.mustDial(t, s.url, options{})
			if err := c.send(false, []byte(bad)); err != nil {
				t.Fatal(err)
			}
			c.wantEcho(t, false, []byte(bad))
		}
		s.logged(`reason="invalid UTF-8"`)
	})
}

func TestSubprotocolIsOneThatBothSpeak(t *testing.T) {
	each(t, []string{"--subprotocol", "chat.v2", "--subprotocol", "chat.v1"}, func(t *testing.T, lib *library, s *server) {
		for _, tt := range []struct {
			offer []string
			want  string
		}{
			{nil, ""},
			{[]string{"chat.v1"}, "chat.v1"},
			{[]string{"chat.v2"}, "chat.v2"},
			{[]string{"other", "chat.v1"}, "chat.v1"},
		} {
			c := lib.mustDial(t, s.url, options{protocols: tt.offer})
			if c.protocol != tt.want {
				t.Errorf("%q is offered and %q agreed on, want %q", tt.offer, c.protocol, tt.want)
			}
			if err := c.send(true, []byte("hello")); err != nil {
				t.Fatal(err)
			}
			c.wantEcho(t, true, []byte("hello"))
		}
	})
}

func TestOriginOfAnotherHostIsRefusedWith403(t *testing.T) {
	dial := func(t *testing.T, lib *library, s *server, origin string) error {
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		c, err := lib.dial(ctx, s.url, options{origin: origin})
		if err == nil {
			c.drop()
		}
		return err
	}
	check := func(t *testing.T, lib *library, s *server, good, bad []string) {
		for _, o := range good {
			if err := dial(t, lib, s, o); err != nil {
				t.Errorf("origin %q is refused: %v", o, err)
			}
		}
		for _, o := range bad {
			err := dial(t, lib, s, o)
			// gws tells no status.
			if err == nil || statusOf(err) != 403 && statusOf(err) != 0 {
				t.Errorf("origin %q gets %v, want 403", o, err)
			}
		}
	}
	t.Run("by default", func(t *testing.T) {
		each(t, nil, func(t *testing.T, lib *library, s *server) {
			u, err := url.Parse(s.url)
			if err != nil {
				t.Fatal(err)
			}
			check(t, lib, s, []string{"", "http://" + u.Host}, []string{"http://evil.example", "http://localhost:1", "null", "https://" + u.Hostname()})
		})
	})
	t.Run("with --origin", func(t *testing.T) {
		each(t, []string{"--origin", "https://*.example.com"}, func(t *testing.T, lib *library, s *server) {
			check(t, lib, s, []string{"", "https://a.example.com"}, []string{"https://example.com", "http://a.example.com", "https://a.example.com.evil.example"})
		})
	})
}

func TestManyConnectionsEchoAtOnce(t *testing.T) {
	each(t, nil, func(t *testing.T, lib *library, s *server) {
		var wg sync.WaitGroup
		for i := range 100 {
			wg.Go(func() {
				ctx, cancel := context.WithTimeout(t.Context(), patience)
				defer cancel()
				c, err := lib.dial(ctx, s.url, options{})
				if err != nil {
					t.Error(err)
					return
				}
				defer c.drop()
				for j := range 100 {
					p := fmt.Appendf(nil, "connection %d, message %d, %s", i, j, payload(true, (i*31+j*977)%3000))
					if err := c.send(true, bytes.Clone(p)); err != nil {
						t.Error(err)
						return
					}
				}
				for j := range 100 {
					want := fmt.Appendf(nil, "connection %d, message %d, %s", i, j, payload(true, (i*31+j*977)%3000))
					select {
					case e := <-c.events:
						if e.end || !e.text || !bytes.Equal(e.payload, want) {
							t.Errorf("connection %d: message %d comes back as %.60q, %v", i, j, e.payload, e.err)
							return
						}
					case <-ctx.Done():
						t.Errorf("connection %d: message %d does not come back", i, j)
						return
					}
				}
			})
		}
		wg.Wait()
	})
}

func TestShutdownClosesEveryClientWith1001(t *testing.T) {
	s := start(t)
	var clients []*client
	for i := range libraries {
		c := libraries[i].mustDial(t, s.url, options{})
		if err := c.send(true, []byte("hello")); err != nil {
			t.Fatal(err)
		}
		c.wantEcho(t, true, []byte("hello"))
		clients = append(clients, c)
	}
	s.stop()
	for _, c := range clients {
		c.wantClose(t, 1001)
	}
}
