package peers

import (
	"bufio"
	"crypto/sha1"
	"encoding/base64"
	"encoding/binary"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// How proxies behave on the wire when something is not as it should be: a
// table, each cell of which is what a client and a backend of this test saw.

var update = flag.Bool("update", false, "write what was seen to testdata/proxies.md")

// scene is a row: f plays client and backend around a proxy and says in a few
// words what came of it.
type scene struct {
	about string
	f     func(s *stage) string
}

var scenes = []scene{
	{"backend dies between messages", func(s *stage) string {
		client, backend := s.open()
		backend.Close()
		return client.ending()
	}},
	{"backend dies in the middle of a message", func(s *stage) string {
		client, backend := s.open()
		backend.Write(append([]byte{0x82, 127, 0, 0, 0, 0, 0, 16, 0, 0}, make([]byte, 100_000)...)) // 1 MiB is announced
		backend.Close()
		return client.ending()
	}},
	{"silence longer than the idle timeout", func(s *stage) string {
		client, _ := s.open()
		return client.ending()
	}},
	{"wrong Sec-WebSocket-Accept of the backend", func(s *stage) string {
		client := s.dial()
		io.WriteString(client, s.request())
		backend := s.backend()
		backend.head()
		io.WriteString(backend, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: AAAAAAAAAAAAAAAAAAAAAAAAAAA=\r\n\r\n")
		return "client gets " + client.status()
	}},
	{"frame of a client that is not masked", func(s *stage) string {
		client, backend := s.open()
		client.Write([]byte{0x81, 2, 'h', 'i'})
		backend.SetReadDeadline(time.Now().Add(short))
		b0, payload, err := backend.frame()
		if err == nil && b0 == 0x81 && string(payload) == "hi" {
			return "passed on"
		}
		return client.ending()
	}},
	{"request without Sec-WebSocket-Key", func(s *stage) string {
		client := s.dial()
		io.WriteString(client, strings.Replace(s.request(), "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n", "", 1))
		select {
		case c := <-s.conns:
			c.Close()
			return "passed on"
		case <-time.After(short):
			return client.status() + ", backend not asked"
		}
	}},
	{"client sends FIN and waits for answers", func(s *stage) string {
		client, backend := s.open()
		client.CloseWrite()
		time.Sleep(short / 2) // a proxy that gives up at the FIN has done so; nothing tells of one that does not
		backend.Write([]byte{0x81, 4, 't', 'a', 'i', 'l'})
		client.SetReadDeadline(time.Now().Add(short))
		if b0, payload, err := client.frame(); err != nil || b0 != 0x81 || string(payload) != "tail" {
			return "tail lost"
		}
		return "tail kept; backend sees " + backend.ending()
	}},
	{"backend sends FIN and still reads", func(s *stage) string {
		client, backend := s.open()
		backend.CloseWrite()
		time.Sleep(short / 2) // as above
		client.Write([]byte{0x82, 0x84, 0, 0, 0, 0, 't', 'a', 'i', 'l'})
		backend.SetReadDeadline(time.Now().Add(short))
		tail := "tail lost"
		if _, payload, err := backend.frame(); err == nil && string(payload) == "tail" {
			tail = "tail kept"
		}
		return tail + "; client sees " + client.ending()
	}},
	{"bytes glued to the request", func(s *stage) string {
		client := s.dial()
		io.WriteString(client, s.request()+"\x81\x82\x00\x00\x00\x00hi")
		backend := s.backend()
		head := backend.head()
		backend.SetReadDeadline(time.Now().Add(short / 2))
		if n, _ := backend.in.Peek(1); len(n) > 0 {
			return "sent on before the 101"
		}
		io.WriteString(backend, answer(head))
		backend.SetReadDeadline(time.Now().Add(short))
		if _, payload, err := backend.frame(); err != nil || string(payload) != "hi" {
			return "lost"
		}
		return "kept until the 101"
	}},
	{"bytes glued to the 101", func(s *stage) string {
		client := s.dial()
		io.WriteString(client, s.request())
		backend := s.backend()
		io.WriteString(backend, answer(backend.head())+"\x81\x02hi")
		if got := client.status(); got != "101" {
			return "client gets " + got
		}
		client.SetReadDeadline(time.Now().Add(short))
		if _, payload, err := client.frame(); err != nil || string(payload) != "hi" {
			return "lost"
		}
		return "kept"
	}},
	{"X-Forwarded-For made up by the client", func(s *stage) string {
		client := s.dial()
		io.WriteString(client, strings.Replace(s.request(), "\r\n\r\n", "\r\nX-Forwarded-For: 203.0.113.9\r\n\r\n", 1))
		head := s.backend().head()
		r, err := http.ReadRequest(bufio.NewReader(strings.NewReader(head)))
		if err != nil {
			return err.Error()
		}
		switch got := strings.Join(r.Header.Values("X-Forwarded-For"), " | "); got {
		case "127.0.0.1":
			return "dropped"
		case "203.0.113.9, 127.0.0.1":
			return "added to"
		case "203.0.113.9 | 127.0.0.1":
			return "kept beside"
		default:
			return "became " + got
		}
	}},
	{"settings are read again", func(s *stage) string {
		if s.px.reload == nil {
			return "not possible"
		}
		client, backend := s.open()
		s.px.reload()
		client.Write([]byte{0x81, 0x82, 0, 0, 0, 0, 'h', 'i'})
		backend.SetReadDeadline(time.Now().Add(short))
		if _, payload, err := backend.frame(); err != nil || string(payload) != "hi" {
			return "open tunnels end"
		}
		return "open tunnels stay"
	}},
}

// short is how long a scene waits for what comes at once, if it comes.
const short = 600 * time.Millisecond

// stage is a proxy with a backend that the scene plays.
type stage struct {
	t     *testing.T
	px    *running
	conns chan *net.TCPConn
}

func newStage(t *testing.T, f front) *stage {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	s := &stage{t: t, conns: make(chan *net.TCPConn, 100)}
	s.px = f.start(t, ln.Addr().String())
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			s.conns <- c.(*net.TCPConn)
		}
	}()
	return s
}

func (s *stage) request() string {
	return "GET / HTTP/1.1\r\nHost: " + s.px.addr + "\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
}

// wire is one connection of a scene.
type wire struct {
	*net.TCPConn
	t  *testing.T
	in *bufio.Reader
}

func (s *stage) wire(c *net.TCPConn) *wire {
	s.t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(patience))
	return &wire{c, s.t, bufio.NewReader(c)}
}

func (s *stage) dial() *wire {
	s.t.Helper()
	c, err := net.Dial("tcp", s.px.addr)
	if err != nil {
		s.t.Fatal(err)
	}
	return s.wire(c.(*net.TCPConn))
}

func (s *stage) backend() *wire {
	s.t.Helper()
	select {
	case c := <-s.conns:
		return s.wire(c)
	case <-time.After(patience):
		s.t.Fatal("no connection comes to the backend")
		return nil
	}
}

// open is a tunnel.
func (s *stage) open() (client, backend *wire) {
	s.t.Helper()
	client = s.dial()
	io.WriteString(client, s.request())
	backend = s.backend()
	io.WriteString(backend, answer(backend.head()))
	if got := client.status(); got != "101" {
		s.t.Fatalf("the client gets %s", got)
	}
	return client, backend
}

// head reads up to an empty line.
func (w *wire) head() string {
	w.t.Helper()
	var b strings.Builder
	for !strings.HasSuffix(b.String(), "\r\n\r\n") {
		line, err := w.in.ReadString('\n')
		if b.WriteString(line); err != nil {
			w.t.Fatalf("half a head came: %v, %q", err, b.String())
		}
	}
	return b.String()
}

// status reads the head of an answer.
func (w *wire) status() string {
	w.t.Helper()
	_, rest, _ := strings.Cut(w.head(), " ")
	return rest[:3]
}

// answer is the 101 to a request.
func answer(head string) string {
	r, err := http.ReadRequest(bufio.NewReader(strings.NewReader(head)))
	if err != nil {
		return "HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n"
	}
	sum := sha1.Sum([]byte(r.Header.Get("Sec-WebSocket-Key") + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"))
	return "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: " + base64.StdEncoding.EncodeToString(sum[:]) + "\r\n\r\n"
}

// frame reads one frame, unmasked.
func (w *wire) frame() (b0 byte, payload []byte, err error) {
	var h [2]byte
	if _, err := io.ReadFull(w.in, h[:]); err != nil {
		return 0, nil, err
	}
	length := uint64(h[1] & 0x7f)
	if more := map[uint64]int{126: 2, 127: 8}[length]; more > 0 {
		var b [8]byte
		if _, err := io.ReadFull(w.in, b[8-more:]); err != nil {
			return 0, nil, cut(err)
		}
		length = binary.BigEndian.Uint64(b[:])
	}
	var key [4]byte
	if h[1]&0x80 != 0 {
		if _, err := io.ReadFull(w.in, key[:]); err != nil {
			return 0, nil, cut(err)
		}
	}
	payload = make([]byte, length)
	if _, err := io.ReadFull(w.in, payload); err != nil {
		return 0, nil, cut(err)
	}
	for i := range payload {
		payload[i] ^= key[i%4]
	}
	return h[0], payload, nil
}

// cut: an end in the middle of a frame is none between two.
func cut(err error) error {
	if err == io.EOF {
		return io.ErrUnexpectedEOF
	}
	return err
}

// ending reads until the connection ends and says how it did. Pings and
// messages on the way do not count.
func (w *wire) ending() string {
	w.SetReadDeadline(time.Now().Add(idleOfFronts + 2*time.Second))
	for {
		b0, payload, err := w.frame()
		switch {
		case err == nil && b0 == 0x88 && len(payload) >= 2:
			return fmt.Sprintf("Close %d", binary.BigEndian.Uint16(payload))
		case err == nil:
		case errors.Is(err, os.ErrDeadlineExceeded):
			return "nothing"
		case errors.Is(err, io.ErrUnexpectedEOF):
			return "FIN in the middle of a frame"
		case err == io.EOF:
			return "FIN without a Close"
		case errors.Is(err, syscall.ECONNRESET):
			return "RST"
		default:
			return err.Error()
		}
	}
}

func TestHowProxiesBehaveOnTheWire(t *testing.T) {
	var mu sync.Mutex
	seen := map[string]string{}
	t.Run("scenes", func(t *testing.T) {
		for _, f := range fronts {
			for _, sc := range scenes {
				t.Run(f.name+": "+sc.about, func(t *testing.T) {
					t.Parallel()
					got := sc.f(newStage(t, f))
					mu.Lock()
					defer mu.Unlock()
					seen[f.name+sc.about] = got
				})
			}
		}
	})
	var table strings.Builder
	table.WriteString("| |")
	for _, f := range fronts {
		table.WriteString(" " + f.name + " |")
	}
	table.WriteString("\n|---|" + strings.Repeat("---|", len(fronts)) + "\n")
	for _, sc := range scenes {
		table.WriteString("| " + sc.about + " |")
		for _, f := range fronts {
			table.WriteString(" " + seen[f.name+sc.about] + " |")
		}
		table.WriteString("\n")
	}
	path := filepath.Join("testdata", "proxies.md")
	if *update {
		if err := os.WriteFile(path, []byte(table.String()), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if len(seen) < len(fronts)*len(scenes) {
		t.Skipf("%d of %d cells could be filled, the rest lacks a program", len(seen), len(fronts)*len(scenes))
	}
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if got := table.String(); got != string(want) {
		t.Errorf("what was seen:\n%s\nis not what %s says:\n%s", got, path, want)
	}
}
