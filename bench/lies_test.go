package bench

import (
	"bytes"
	"context"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"wspoll/frame"

	"github.com/gobwas/ws"
)

// every makes each n-th message a lie, the others are echoed.
func every(n int, lie func(c *liarConn, op ws.OpCode, p []byte)) func(*liarConn, int, ws.OpCode, []byte) {
	return func(c *liarConn, i int, op ws.OpCode, p []byte) {
		if i%n != 0 {
			c.echo(op, p)
			return
		}
		c.l.lies.Add(1)
		lie(c, op, p)
	}
}

// Where a lie is found: with one message in flight, with eight, and on schedule.
const (
	inDepth1 = 1 << iota
	inDepth8
	inOpenLoop
	inAll = inDepth1 | inDepth8 | inOpenLoop
)

// Interim answers are legal, and none: the upgrade takes until the 101.
func TestAnswersBeforeThe101ArePassedOver(t *testing.T) {
	const hints = "HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\nHTTP/1.1 102 Processing\r\n\r\n"
	l := (&liar{greet: func(c *liarConn) bool {
		for _, part := range []string{hints[:30], hints[30:], hints} { // cut, and with the 101 behind it
			c.Write([]byte(part))
		}
		return c.upgrade()
	}}).listen(t)
	r := measured(t, Options{Scenario: "echo", Duration: patience, Messages: 6, Config: Config{Targets: targets(t, l.url), Connections: 3, SizeMin: 16, Limit: 6}})
	if r.Opened != 3 || r.Messages != 6 || len(r.Errors) > 0 {
		t.Errorf("%d opened, %d messages, %+v", r.Opened, r.Messages, r.Errors)
	}
}

func TestEachLieOfAServerIsCaughtCountedAndNamed(t *testing.T) {
	frameOf := func(h ws.Header, p []byte) []byte {
		h.Length = int64(len(p))
		return append(frame.AppendHeader(nil, h), p...)
	}
	var runs []func()
	for _, test := range []struct {
		name   string
		where  int
		kind   string
		detail string
		ends   bool // the connection ends at the first lie
		lie    func(c *liarConn, op ws.OpCode, p []byte)
	}{
		{"drops", inDepth8 | inOpenLoop, KindLost, "later", false, func(*liarConn, ws.OpCode, []byte) {}},
		{"drops the only reply", inDepth1, KindTimeout, "reply", true, func(*liarConn, ws.OpCode, []byte) {}},
		{"duplicates", inAll, KindDuplicate, "twice", false, func(c *liarConn, op ws.OpCode, p []byte) {
			c.echo(op, p)
			c.echo(op, p)
		}},
		{"swaps two", inDepth8 | inOpenLoop, KindReordered, "later", false, nil},
		{"corrupts a byte", inAll, KindWrong, "differs", true, func(c *liarConn, op ws.OpCode, p []byte) {
			p = bytes.Clone(p)
			p[len(p)-3] ^= 1
			c.echo(op, p)
		}},
		{"corrupts the number", inAll, KindWrong, "differs", true, func(c *liarConn, op ws.OpCode, p []byte) {
			p = bytes.Clone(p)
			p[2] = 'x'
			c.echo(op, p)
		}},
		{"invents a number", inAll, KindWrong, "differs", true, func(c *liarConn, op ws.OpCode, p []byte) {
			p = bytes.Clone(p)
			p[0] = 'f'
			c.echo(op, p)
		}},
		{"truncates", inAll, KindWrong, "shorter", true, func(c *liarConn, op ws.OpCode, p []byte) { c.echo(op, p[:len(p)-1]) }},
		{"truncates into the number", inAll, KindWrong, "shorter", true, func(c *liarConn, op ws.OpCode, p []byte) { c.echo(op, p[:5]) }},
		{"sends nothing", inAll, KindWrong, "shorter", true, func(c *liarConn, op ws.OpCode, _ []byte) { c.echo(op, nil) }},
		{"lengthens", inAll, KindWrong, "longer", true, func(c *liarConn, op ws.OpCode, p []byte) { c.echo(op, append(bytes.Clone(p), 'x')) }},
		{"masks", inAll, KindProtocol, "§5.1", true, func(c *liarConn, op ws.OpCode, p []byte) {
			c.Write(frame.AppendMasked(nil, true, op, [4]byte{1, 2, 3, 4}, p))
		}},
		{"uses a reserved bit", inAll, KindProtocol, "§5.2", true, func(c *liarConn, op ws.OpCode, p []byte) {
			c.Write(frameOf(ws.Header{Fin: true, Rsv: ws.Rsv(false, true, false), OpCode: op}, p))
		}},
		{"uses the bit of compression", inAll, KindProtocol, "§5.2", true, func(c *liarConn, op ws.OpCode, p []byte) {
			c.Write(frameOf(ws.Header{Fin: true, Rsv: ws.Rsv(true, false, false), OpCode: op}, p))
		}},
		{"writes the length too long", inAll, KindProtocol, "§5.2", true, func(c *liarConn, op ws.OpCode, p []byte) {
			c.Write(append([]byte{0x80 | byte(op), 126, 0, byte(len(p))}, p...))
		}},
		{"uses a reserved opcode", inAll, KindProtocol, "§5.2", true, func(c *liarConn, _ ws.OpCode, p []byte) {
			c.Write(frameOf(ws.Header{Fin: true, OpCode: 3}, p))
		}},
		{"continues nothing", inAll, KindProtocol, "§5.4", true, func(c *liarConn, _ ws.OpCode, p []byte) {
			c.Write(frameOf(ws.Header{Fin: true, OpCode: ws.OpContinuation}, p))
		}},
		{"sends a ping in fragments", inAll, KindProtocol, "§5.5", true, func(c *liarConn, _ ws.OpCode, p []byte) {
			c.Write(frameOf(ws.Header{OpCode: ws.OpPing}, p))
		}},
		{"closes with a code that is none", inAll, KindProtocol, "§7.4", true, func(c *liarConn, _ ws.OpCode, _ []byte) {
			c.Write(frameOf(ws.Header{Fin: true, OpCode: ws.OpClose}, []byte{3, 0xed}))
		}},
		{"sends binary for text", inAll, KindWrong, "binary", true, func(c *liarConn, _ ws.OpCode, p []byte) { c.echo(ws.OpBinary, p) }},
		{"sends binary for text, cut in the number", inAll, KindWrong, "binary", true, func(c *liarConn, _ ws.OpCode, p []byte) {
			c.Write(frame.AppendFrame(frame.AppendFrame(nil, false, ws.OpBinary, p[:3]), true, ws.OpContinuation, p[3:]))
		}},
		{"sends text that is not UTF-8", inAll, KindProtocol, "§8.1", true, func(c *liarConn, op ws.OpCode, p []byte) {
			p = bytes.Clone(p)
			p[20] = 0xff
			c.echo(op, p)
		}},
		{"closes", inAll, KindClosed, `1011 "out of cheese"`, true, func(c *liarConn, _ ws.OpCode, _ []byte) {
			c.Write(frame.AppendClose(nil, ws.StatusInternalServerError, "out of cheese"))
			c.drain()
		}},
		{"resets", inAll, KindReset, "", true, func(c *liarConn, _ ws.OpCode, _ []byte) {
			c.Conn.(*net.TCPConn).SetLinger(0)
			c.Close()
		}},
		{"ends without a Close", inAll, KindEOF, "FIN", true, func(c *liarConn, _ ws.OpCode, _ []byte) {
			c.Conn.(*net.TCPConn).CloseWrite()
			c.drain()
		}},
	} {
		together(t, &runs, test.name, func(t testing.TB) {
			const connections, messages = 3, 150
			var wg sync.WaitGroup
			for _, in := range []int{inDepth1, inDepth8, inOpenLoop} {
				if test.where&in == 0 {
					continue
				}
				wg.Go(func() {
					name := map[int]string{inDepth1: "depth 1", inDepth8: "depth 8", inOpenLoop: "open loop"}[in]
					l := &liar{}
					if l.answer = every(10, test.lie); test.lie == nil {
						l.answer = func(c *liarConn, n int, op ws.OpCode, p []byte) {
							switch n % 10 {
							case 4:
								c.held = bytes.Clone(p)
							case 5:
								l.lies.Add(1)
								c.echo(op, p)
								c.echo(op, c.held)
							default:
								c.echo(op, p)
							}
						}
					}
					l.listen(t)
					// A run ends with its last reply or its last connection: the
					// times are for what never comes, not for a busy machine.
					o := Options{Scenario: "echo", Duration: patience, Messages: messages, Config: Config{
						Targets: targets(t, l.url), Connections: connections, SizeMin: 32, SizeMax: 32, Text: true, Depth: 1,
						Limit: messages, Timeout: patience,
					}}
					switch test.kind {
					case KindTimeout:
						o.Timeout = 2 * time.Second
					case KindLost:
						o.Messages -= messages / 10 // the most that can be dropped
					case KindReordered:
						o.Messages -= connections // each may hold one back that no other follows
					}
					switch in {
					case inDepth8:
						o.Depth = 8
					case inOpenLoop:
						o.Rate = 600
					}
					r, err := Run(context.Background(), o)
					if err != nil {
						t.Errorf("%s: %v", name, err)
						return
					}
					got, details := errorsOf(r, test.kind)
					lies := uint64(l.lies.Load())
					if !strings.Contains(details, test.detail) || got == 0 {
						t.Errorf("%s: %d times %s with %q; all errors: %+v", name, got, test.kind, details, r.Errors)
					}
					low, high := lies, lies
					if test.ends {
						low, high = connections, connections
					} else {
						low -= min(low, uint64(connections*o.Depth)) // in flight at the end
					}
					if got < low || got > high {
						t.Errorf("%s: %d times %s, want %d to %d; %d lies; %+v", name, got, test.kind, low, high, lies, r.Errors)
					}
					if all := r.failures(); all != got {
						t.Errorf("%s: other errors too: %+v", name, r.Errors)
					}
				})
			}
			wg.Wait()
		})
	}
	for _, wait := range runs {
		wait()
	}
}

func TestAServerWhoseHandshakeIsWrongIsNamedAtOnce(t *testing.T) {
	say := func(text string) func(*liarConn) bool {
		return func(c *liarConn) bool {
			c.more()
			c.Write([]byte(text))
			c.drain()
			return false
		}
	}
	var runs []func()
	for _, test := range []struct {
		name, want string
		greet      func(*liarConn) bool
	}{
		{"403", "upgrade refused, status 403", say("HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")},
		{"200", "upgrade refused, status 200", say("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi")},
		{"wrong accept", "bad handshake", say("HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: AAAAAAAAAAAAAAAAAAAAAAAAAAA=\r\n\r\n")},
		{"no accept", "bad handshake", say("HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n")},
		{"not HTTP", "bad handshake", say("SSH-2.0-OpenSSH_9.9\r\n")},
		{"never answers", "timed out, upgrade", func(c *liarConn) bool { c.drain(); return false }},
		{"half an answer", "timed out, upgrade", say("HTTP/1.1 101 Swi")},
		{"hangs up", "ended", func(c *liarConn) bool { c.more(); return false }},
	} {
		for _, scenario := range []string{"echo", "connect", "idle"} {
			together(t, &runs, test.name+", "+scenario, func(t testing.TB) {
				l := (&liar{greet: test.greet}).listen(t)
				timeout := patience // for an answer that comes
				if strings.HasPrefix(test.want, "timed out") {
					timeout = 200 * time.Millisecond
				}
				_, err := Run(context.Background(), Options{Scenario: scenario, Duration: patience, Config: Config{
					Targets: targets(t, l.url), Connections: 3, SizeMin: 32, Timeout: timeout,
				}})
				if err == nil || !strings.Contains(err.Error(), test.want) || strings.Contains(err.Error(), "\n") {
					t.Errorf("%v, want %q", err, test.want)
				}
			})
		}
	}
	for _, wait := range runs {
		wait()
	}
}

func TestASlowServerIsMeasuredAndNotBlamed(t *testing.T) {
	l := (&liar{answer: func(c *liarConn, _ int, op ws.OpCode, p []byte) {
		<-time.After(20 * time.Millisecond) // the slowness itself
		c.echo(op, p)
	}}).listen(t)
	r := measured(t, Options{Scenario: "echo", Duration: patience, Messages: 20, Config: Config{Targets: targets(t, l.url), Connections: 2, SizeMin: 32, Limit: 20}})
	if p := r.Message.At(1); len(r.Errors) > 0 || r.Messages != 20 || p < 20*time.Millisecond*99/100 {
		t.Errorf("%d messages, the fastest in %s, %+v", r.Messages, p, r.Errors)
	}
}

func TestAReplyThatComesAHundredMessagesLateIsReorderedAndNotLost(t *testing.T) {
	l := (&liar{answer: func(c *liarConn, n int, op ws.OpCode, p []byte) {
		switch n {
		case 5:
			c.held = bytes.Clone(p)
			return
		case 105:
			defer c.echo(op, c.held)
		}
		c.echo(op, p)
	}}).listen(t)
	r := measured(t, Options{Scenario: "echo", Duration: patience, Messages: 200, Config: Config{Targets: targets(t, l.url), Connections: 1, SizeMin: 32, Depth: 8, Limit: 200}})
	if n, _ := errorsOf(r, KindReordered); n != 1 || r.failures() != 1 || r.Messages != 200 {
		t.Errorf("%d messages, %+v", r.Messages, r.Errors)
	}
}

func TestAServerThatAnswersUnaskedIsCaught(t *testing.T) {
	l := (&liar{greet: func(c *liarConn) bool {
		ok := c.upgrade()
		c.echo(ws.OpBinary, []byte("hello, hello, hello"))
		return ok
	}}).listen(t)
	for _, size := range []int{4, 32} {
		r := measured(t, Options{Scenario: "idle", Duration: patience, Config: Config{Targets: targets(t, l.url), Connections: 2, SizeMax: size}})
		if n, _ := errorsOf(r, KindWrong); n != 2 {
			t.Errorf("size %d: %+v", size, r.Errors)
		}
	}
}
