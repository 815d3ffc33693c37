package proxy

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"reflect"
	"strings"
	"testing"
	"time"

	"wspoll/frame"

	"github.com/gobwas/ws"
)

func TestFramesThatComeWholePassByteForByte(t *testing.T) {
	b := newBehind(t)
	px := serve(t, Config{}, b)
	client, backend := px.open(t, b)
	for _, dir := range [][2]*end{{client, backend}, {backend, client}} {
		from, to := dir[0], dir[1]
		var all []byte
		for _, n := range []int{0, 1, 125, 126, 1000, holdMax} {
			all = append(all, from.frameOf(false, ws.OpText, []byte(text(n)))...)
			all = append(all, from.frameOf(true, ws.OpPing, []byte("p"))...)
			all = append(all, from.frameOf(true, ws.OpContinuation, nil)...)
			all = append(all, from.frameOf(true, ws.OpPong, []byte("unasked"))...)
			all = append(all, from.frameOf(true, ws.OpBinary, []byte(text(n)))...)
		}
		for rest := all; len(rest) > 0; {
			n := 1 + rand.IntN(min(len(rest), 3000))
			from.write(rest[:n])
			rest = rest[n:]
		}
		if got := to.raw(len(all)); !bytes.Equal(got, all) {
			t.Errorf("%d bytes came that are not those that were sent", len(got))
		}
	}
}

func TestLargeMessagesPassBothWaysAtOnce(t *testing.T) {
	b := newBehind(t)
	px := serve(t, Config{MaxMessage: Unlimited}, b)
	client, backend := px.open(t, b)
	check := make(chan string, 4)
	for _, dir := range [][2]*end{{client, backend}, {backend, client}} {
		from, to := dir[0], dir[1]
		sizes := []int{holdMax + 1, 65535, 65536, 1 << 20, 3<<20 + 7}
		go func() {
			for _, n := range sizes {
				from.conn.Write(from.frameOf(true, ws.OpText, []byte(text(n))))
			}
			check <- ""
		}()
		go func() {
			for _, n := range sizes {
				if _, got := to.message(); string(got) != text(n) {
					check <- fmt.Sprintf("a message of %d bytes came wrong, as %d bytes", n, len(got))
					return
				}
			}
			check <- ""
		}()
	}
	for range 4 {
		if fault := receive(t, "the messages pass", check); fault != "" {
			t.Error(fault)
		}
	}
	st := px.Stats()
	for _, d := range []int{Up, Down} {
		if st.Messages[d][ws.OpText] != 5 || st.Payload[d][ws.OpText] != holdMax+1+65535+65536+1<<20+3<<20+7 {
			t.Errorf("direction %d: %d messages of %d bytes were counted", d, st.Messages[d][ws.OpText], st.Payload[d][ws.OpText])
		}
	}
	if st.Buffered != 0 {
		t.Errorf("%d bytes are held", st.Buffered)
	}
}

func TestIllegalFramesOfAClientEndTheTunnel(t *testing.T) {
	b := newBehind(t)
	var log lockedLog
	px := serve(t, Config{MaxMessage: 1000, Access: log.logger()}, b)
	check := px.calm(t)
	big := frame.AppendMasked(nil, true, ws.OpText, testMask, make([]byte, 1001))
	for name, tt := range map[string]struct {
		bytes []byte
		code  ws.StatusCode
		text  string // to the backend
	}{
		"not masked":                {[]byte{0x81, 1, 'x'}, 1002, "the client broke the protocol"},
		"a reserved opcode":         {[]byte{0x83, 0x80, 1, 2, 3, 4}, 1002, "the client broke the protocol"},
		"RSV1":                      {[]byte{0xc1, 0x80, 1, 2, 3, 4}, 1002, "the client broke the protocol"},
		"a ping in fragments":       {[]byte{0x09, 0x80, 1, 2, 3, 4}, 1002, "the client broke the protocol"},
		"a long length for a short": {[]byte{0x81, 0xfe, 0, 5}, 1002, "the client broke the protocol"},
		"a close code of 1005":      {frame.AppendMasked(nil, true, ws.OpClose, testMask, []byte{3, 0xed}), 1002, "the client broke the protocol"},
		"a close reason in Latin-1": {frame.AppendMasked(nil, true, ws.OpClose, testMask, []byte("\x03\xe8\xfc")), 1007, "the client broke the protocol"},
		"a message too large":       {big[:8], 1009, "a message was larger than the proxy takes"},
	} {
		t.Run(name, func(t *testing.T) {
			client, backend := px.open(t, b)
			client.send(ws.OpText, "before")
			client.write(tt.bytes)
			backend.want("before")
			if got := backend.wantClose(ws.StatusGoingAway); got != tt.text {
				t.Errorf("the backend is told %q", got)
			}
			client.wantClose(tt.code)
			client.wantEnd()
			client.conn.Close()
			backend.close(ws.StatusGoingAway, "")
			backend.conn.Close()
		})
	}
	check()
	if st := px.Stats(); st.Closed[ReasonClientFault] != 7 || st.Closed[ReasonTooLarge] != 1 {
		t.Errorf("%v", st.Closed)
	}
	if !strings.Contains(log.String(), `end="client protocol error" code=1002 reason="frame from a client is not masked"`) {
		t.Errorf("the log has\n%s", log.String())
	}
}

func TestIllegalFramesOfABackendEndTheTunnel(t *testing.T) {
	b := newBehind(t)
	px := serve(t, Config{MaxMessage: 1000}, b)
	check := px.calm(t)
	for name, tt := range map[string]struct {
		bytes []byte
		code  ws.StatusCode // to the backend
	}{
		"masked":              {frame.AppendMasked(nil, true, ws.OpText, testMask, []byte("x")), 1002},
		"RSV2":                {[]byte{0xa1, 0}, 1002},
		"two messages in one": {[]byte{0x01, 0, 0x81, 0}, 1002},
		"a message too large": {[]byte{0x82, 126, 4, 0}, 1009},
	} {
		t.Run(name, func(t *testing.T) {
			client, backend := px.open(t, b)
			backend.write(tt.bytes)
			backend.wantClose(tt.code)
			client.wantClose(ws.StatusInternalServerError)
			client.close(ws.StatusInternalServerError, "")
			client.wantEnd()
			backend.wantEnd()
			client.conn.Close()
			backend.conn.Close()
		})
	}
	check()
	if st := px.Stats(); st.Closed[ReasonBackendFault] != 3 || st.Closed[ReasonTooLarge] != 1 {
		t.Errorf("%v", st.Closed)
	}
}

func TestTextIsNotLookedAt(t *testing.T) {
	b := newBehind(t)
	px := serve(t, Config{}, b)
	client, backend := px.open(t, b)
	sent := client.frameOf(true, ws.OpText, []byte("\xff\xfe"))
	client.write(sent)
	if got := backend.raw(len(sent)); !bytes.Equal(got, sent) {
		t.Errorf("% x came", got)
	}
}

func TestCompressedFramesPassWhereCompressionWasAgreedOn(t *testing.T) {
	b := newBehind(t)
	px := serve(t, Config{}, b)
	const offer = "Sec-WebSocket-Extensions: permessage-deflate"
	client, backend := px.openWith(t, b, request("/", offer), offer)
	for _, dir := range [][2]*end{{client, backend}, {backend, client}} {
		from, to := dir[0], dir[1]
		to.rsv1 = true
		f := from.frameOf(true, ws.OpBinary, []byte(text(100_000)))
		f[0] |= 0x40
		go from.conn.Write(f)
		want := byte(0x42) // its first fragment keeps RSV1
		if first := to.raw(1)[0]; first&^0x80 != want {
			t.Errorf("the first byte is %#x, want %#x", first, want)
		} else {
			to.in = append([]byte{first}, to.in...)
		}
		if _, got := to.message(); string(got) != text(100_000) {
			t.Errorf("%d bytes came", len(got))
		}
	}
}

// RFC 6455 §5.4: fragments must not change when the meaning of an extension is
// not known.
func TestWithAnUnknownExtensionBytesPassAsTheyAre(t *testing.T) {
	b := newBehind(t)
	px := serve(t, Config{}, b)
	for _, extension := range []string{"x-other", "permessage-deflate, x-other", "x-other; a=\"b\""} {
		offer := "Sec-WebSocket-Extensions: " + extension
		client, backend := px.openWith(t, b, request("/", offer), offer)
		f := client.frameOf(true, ws.OpBinary, []byte(text(100_000)))
		f[0] |= 0x70
		go client.conn.Write(f)
		if got := backend.raw(len(f)); !bytes.Equal(got, f) {
			t.Errorf("%s: %d bytes came that were not sent", extension, len(got))
		}
	}
}

func TestClosesPassWithCodeAndReason(t *testing.T) {
	b := newBehind(t)
	var log lockedLog
	px := serve(t, Config{Access: log.logger()}, b)
	check := px.calm(t)
	for _, first := range []string{"client", "backend"} {
		for _, code := range []ws.StatusCode{1000, 1001, 1011, 1013, 3000, 4999, 0} {
			t.Run(fmt.Sprint(first, code), func(t *testing.T) {
				client, backend := px.open(t, b)
				from, to := client, backend
				if first == "backend" {
					from, to = backend, client
				}
				reason, want := "over, and out", code
				if code == 0 {
					reason, want = "", ws.StatusNoStatusRcvd
				}
				from.close(code, reason)
				from.send(ws.OpText, "too late") // behind a Close nothing counts
				if got := to.wantClose(want); got != reason {
					t.Errorf("reason %q", got)
				}
				to.close(code, "")
				from.wantClose(want)
				client.wantEnd() // to a client the proxy is the server, which ends TCP first
				client.conn.Close()
				backend.conn.CloseWrite()
				backend.wantEnd()
				backend.conn.Close()
			})
		}
	}
	check()
	if st := px.Stats(); st.Closed[ReasonClient] != 7 || st.Closed[ReasonBackend] != 7 {
		t.Errorf("%v", st.Closed)
	}
	for _, want := range []string{`end="client closed" code=4999 reason="over, and out"`, `end="backend closed" code=1005`} {
		if !strings.Contains(log.String(), want) {
			t.Errorf("the log has no %s", want)
		}
	}
}

func TestASideThatDoesNotAnswerACloseIsCutOff(t *testing.T) {
	b := newBehind(t)
	px := serve(t, Config{CloseTimeout: 150 * time.Millisecond}, b)
	check := px.calm(t)
	client, backend := px.open(t, b)
	client.close(4000, "bye")
	backend.wantClose(4000)
	client.wantClose(4000) // the proxy owes it the answer that the backend did not give
	client.wantEnd()
	backend.wantEnd()
	client.conn.Close()
	backend.conn.Close()

	client, backend = px.open(t, b)
	backend.close(4001, "bye")
	client.wantClose(4001)
	client.wantEnd()
	backend.wantClose(4001)
	client.conn.Close()
	backend.conn.Close()
	check()
}

func TestSilentSidesArePingedAndTheirPongsAreNotPassedOn(t *testing.T) {
	b := newBehind(t)
	px := serve(t, Config{IdleTimeout: 600 * time.Millisecond}, b)
	client, backend := px.open(t, b)
	for range 2 {
		for _, e := range []*end{client, backend} {
			f := e.frame()
			if f.op != ws.OpPing || string(f.payload) != pingText {
				t.Fatalf("%+v came, want a ping", f)
			}
			// Another pong is the other side's business.
			e.write(append(e.frameOf(true, ws.OpPong, []byte("mine")), e.frameOf(true, ws.OpPong, f.payload)...))
		}
		for _, e := range []*end{client, backend} {
			if f := e.frame(); f.op != ws.OpPong || string(f.payload) != "mine" {
				t.Fatalf("%+v came, want a pong", f)
			}
		}
	}
	passes(client, backend)
}

func TestASilentClientAndASilentBackendAreEnded(t *testing.T) {
	b := newBehind(t)
	px := serve(t, Config{IdleTimeout: 200 * time.Millisecond, CloseTimeout: 100 * time.Millisecond}, b)
	check := px.calm(t)
	alive := func(e *end, stop chan bool) {
		for {
			select {
			case <-stop:
				return
			case <-time.After(20 * time.Millisecond):
				e.conn.Write(e.frameOf(true, ws.OpPong, nil))
			}
		}
	}
	client, backend := px.open(t, b)
	stop := make(chan bool)
	go alive(backend, stop)
	if got := backend.wantClose(ws.StatusGoingAway); got != "the client has been silent for too long" {
		t.Errorf("the backend is told %q", got)
	}
	close(stop)
	client.wantClose(ws.StatusGoingAway)
	client.wantEnd()
	client.conn.Close()
	backend.conn.Close()

	client, backend = px.open(t, b)
	stop = make(chan bool)
	go alive(client, stop)
	if got := client.wantClose(closeRestart); got != "the backend has been silent for too long" {
		t.Errorf("the client is told %q", got)
	}
	close(stop)
	backend.wantClose(ws.StatusGoingAway)
	client.conn.Close()
	backend.conn.Close()
	px.waitClosed(t, ReasonIdle, 2)
	check()
}

func TestStateOfAConnectionIsSmallAndWithoutPointers(t *testing.T) {
	var look func(typ reflect.Type, name string)
	look = func(typ reflect.Type, name string) {
		switch typ.Kind() {
		case reflect.Struct:
			for field := range typ.Fields() {
				look(field.Type, name+"."+field.Name)
			}
		case reflect.Array:
			look(typ.Elem(), name+"[]")
		case reflect.Bool, reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64,
			reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		default:
			t.Errorf("%s is a %v", name, typ)
		}
	}
	for typ, most := range map[reflect.Type]uintptr{reflect.TypeFor[state](): 56, reflect.TypeFor[pair](): 96} {
		look(typ, typ.Name())
		if typ.Size() > most {
			t.Errorf("%s has %d bytes", typ.Name(), typ.Size())
		}
	}
}
