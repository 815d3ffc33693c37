package inspect

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
	"github.com/gopacket/gopacket/pcapgo"
)

// recorder writes TCP connections as a capture: packets as they would have been on the network.
type recorder struct {
	t    testing.TB
	link layers.LinkType
	v6   bool
	out  func(gopacket.CaptureInfo, []byte) error
	when time.Time
	drop func(n int) bool // of the packets that are made, which are not in the capture
	n    int
}

func newPcap(t testing.TB, w io.Writer, link layers.LinkType) *recorder {
	p := pcapgo.NewWriterNanos(w)
	if err := p.WriteFileHeader(65536, link); err != nil {
		t.Fatal(err)
	}
	return &recorder{t: t, link: link, out: p.WritePacket, when: time.Unix(1_700_000_000, 0).UTC()}
}

// conn is a connection being recorded.
type recorded struct {
	r    *recorder
	port [2]uint16
	seq  [2]uint32
}

// open records the beginning of a connection, from a client's port to a server's.
func (r *recorder) open(from, to uint16) *recorded {
	c := &recorded{r: r, port: [2]uint16{from, to}, seq: [2]uint32{0xfffffff0, 7000}} // one wraps soon
	c.packet(Client, layers.TCP{SYN: true}, nil)
	c.packet(Server, layers.TCP{SYN: true, ACK: true}, nil)
	c.packet(Client, layers.TCP{ACK: true}, nil)
	return c
}

// send records bytes in segments of at most 1400.
func (c *recorded) send(d Dir, b []byte) {
	for len(b) > 0 {
		n := min(1400, len(b))
		c.packet(d, layers.TCP{ACK: true, PSH: true}, b[:n])
		b = b[n:]
	}
}

func (c *recorded) close() {
	c.packet(Client, layers.TCP{FIN: true, ACK: true}, nil)
	c.packet(Server, layers.TCP{FIN: true, ACK: true}, nil)
	c.packet(Client, layers.TCP{ACK: true}, nil)
}

func (c *recorded) packet(d Dir, tcp layers.TCP, payload []byte) {
	r := c.r
	r.t.Helper()
	tcp.SrcPort, tcp.DstPort = layers.TCPPort(c.port[d]), layers.TCPPort(c.port[d.other()])
	tcp.Seq, tcp.Ack, tcp.Window = c.seq[d], c.seq[d.other()], 65000
	c.seq[d] += uint32(len(payload))
	if tcp.SYN || tcp.FIN {
		c.seq[d]++
	}
	hosts := [2]string{"192.0.2.1", "198.51.100.2"}
	var ip gopacket.SerializableLayer
	kind := layers.EthernetTypeIPv4
	if r.v6 {
		hosts = [2]string{"2001:db8::1", "2001:db8::2"}
		kind = layers.EthernetTypeIPv6
		l := &layers.IPv6{Version: 6, HopLimit: 64, NextHeader: layers.IPProtocolTCP, SrcIP: net.ParseIP(hosts[d]), DstIP: net.ParseIP(hosts[d.other()])}
		ip = l
		tcp.SetNetworkLayerForChecksum(l)
	} else {
		l := &layers.IPv4{Version: 4, IHL: 5, TTL: 64, Protocol: layers.IPProtocolTCP, SrcIP: net.ParseIP(hosts[d]).To4(), DstIP: net.ParseIP(hosts[d.other()]).To4()}
		ip = l
		tcp.SetNetworkLayerForChecksum(l)
	}
	var first []gopacket.SerializableLayer
	var cooked []byte
	switch r.link {
	case layers.LinkTypeEthernet:
		first = append(first, &layers.Ethernet{SrcMAC: net.HardwareAddr{2, 0, 0, 0, 0, 1}, DstMAC: net.HardwareAddr{2, 0, 0, 0, 0, 2}, EthernetType: kind})
	case layers.LinkTypeNull:
		cooked = binary.LittleEndian.AppendUint32(nil, map[bool]uint32{false: 2, true: 30}[r.v6])
	case layers.LinkTypeLinuxSLL:
		cooked = binary.BigEndian.AppendUint16([]byte{0, 0, 0, 1, 0, 6, 2, 0, 0, 0, 0, 1, 0, 0}, uint16(kind))
	case layers.LinkTypeLinuxSLL2:
		cooked = append(binary.BigEndian.AppendUint16(nil, uint16(kind)), 0, 0, 0, 0, 0, 1, 0, 1, 0, 6, 2, 0, 0, 0, 0, 1, 0, 0)
	}
	buf := gopacket.NewSerializeBuffer()
	err := gopacket.SerializeLayers(buf, gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true},
		append(first, ip, &tcp, gopacket.Payload(payload))...)
	if err != nil {
		r.t.Fatal(err)
	}
	b := append(cooked, buf.Bytes()...)
	r.when = r.when.Add(time.Millisecond)
	r.n++
	if r.drop != nil && r.drop(r.n) {
		return
	}
	if err := r.out(gopacket.CaptureInfo{Timestamp: r.when, CaptureLength: len(b), Length: len(b)}, b); err != nil {
		r.t.Fatal(err)
	}
}

// conversation records the example of the RFC.
func (c *recorded) conversation() {
	c.send(Client, []byte(exampleRequest))
	c.send(Server, []byte(exampleAnswer))
	c.send(Client, fromClient(0x81, "Hello"))
	c.send(Server, joined(fromServer(0x81, "Hello"), fromServer(0x82, strings.Repeat("z", 5000))))
	c.send(Client, fromClient(0x88, "\x03\xe8"))
	c.send(Server, fromServer(0x88, "\x03\xe8"))
}

// readCapture explains a capture, by connection.
func readCapture(t testing.TB, b []byte, o Options, port int) (map[int]*explained, map[int]Connection, Stats) {
	t.Helper()
	all, conns := map[int]*explained{}, map[int]Connection{}
	stats, err := ReadCapture(bytes.NewReader(b), o, port, func(c *Connection, records []Record) error {
		if all[c.N] == nil {
			all[c.N] = &explained{}
		}
		all[c.N].add(records)
		conns[c.N] = *c
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all, conns, stats
}

// texts are the messages of a side.
func (x *explained) texts(d Dir) (out []string) {
	for _, r := range x.message[d] {
		out = append(out, r.Message.Text)
	}
	return out
}

func TestACaptureOfEachKindOfLinkIsRead(t *testing.T) {
	for _, link := range []layers.LinkType{layers.LinkTypeEthernet, layers.LinkTypeNull, layers.LinkTypeRaw, layers.LinkTypeLinuxSLL, layers.LinkTypeLinuxSLL2} {
		for _, v6 := range []bool{false, true} {
			t.Run(fmt.Sprint(link, " IPv6 ", v6), func(t *testing.T) {
				var file bytes.Buffer
				r := newPcap(t, &file, link)
				r.v6 = v6
				c := r.open(40000, 8002)
				c.conversation()
				c.close()
				if !IsCapture(file.Bytes()) {
					t.Error("it is not recognised")
				}
				all, conns, stats := readCapture(t, file.Bytes(), Options{}, 0)
				if stats.Connections != 1 || stats.WebSocket != 1 || len(all) != 1 {
					t.Fatalf("%+v", stats)
				}
				want := Connection{N: 1, Client: "192.0.2.1:40000", Server: "198.51.100.2:8002"}
				if v6 {
					want.Client, want.Server = "[2001:db8::1]:40000", "[2001:db8::2]:8002"
				}
				if conns[1] != want {
					t.Errorf("%+v, want %+v", conns[1], want)
				}
				x := all[1]
				if len(x.violations()) != 0 || !slices.Equal(x.texts(Client), []string{"Hello"}) || !slices.Equal(x.texts(Server), []string{"Hello", ""}) {
					t.Errorf("%v, %q, %q", x.violations(), x.texts(Client), x.texts(Server))
				}
				accounted(t, x, [2]int{len(exampleRequest) + 11 + 8, len(exampleAnswer) + 7 + 5004 + 4})
				if at := x.wire[Client][0].When; !at.Equal(time.Unix(1_700_000_000, 4_000_000)) {
					t.Errorf("the request came at %v", at)
				}
			})
		}
	}
}

func TestAPcapngFileIsRead(t *testing.T) {
	var file bytes.Buffer
	w, err := pcapgo.NewNgWriter(&file, layers.LinkTypeEthernet)
	if err != nil {
		t.Fatal(err)
	}
	r := &recorder{t: t, link: layers.LinkTypeEthernet, out: w.WritePacket, when: time.Unix(1_700_000_000, 0)}
	c := r.open(40000, 80)
	c.conversation()
	if err := w.Flush(); err != nil {
		t.Fatal(err)
	}
	all, _, stats := readCapture(t, file.Bytes(), Options{}, 0)
	if stats.WebSocket != 1 || !IsCapture(file.Bytes()) || !slices.Equal(all[1].texts(Client), []string{"Hello"}) {
		t.Errorf("%+v", stats)
	}
}

func TestConnectionsThatAreNoWebSocketAreCounted(t *testing.T) {
	var file bytes.Buffer
	r := newPcap(t, &file, layers.LinkTypeEthernet)
	tls := r.open(40001, 443)
	tls.send(Client, []byte("\x16\x03\x01\x00\x05hello"))
	tls.send(Server, []byte("\x16\x03\x03\x00\x05hello"))
	plain := r.open(40002, 80)
	plain.send(Client, []byte("GET / HTTP/1.1\r\nHost: h\r\n\r\n"))
	a := r.open(40003, 80)
	b := r.open(40004, 8002)
	a.send(Client, []byte(exampleRequest))
	b.conversation()
	plain.send(Server, []byte("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"))
	a.send(Server, []byte(exampleAnswer))
	a.send(Server, fromServer(0x81, "pushed"))

	all, conns, stats := readCapture(t, file.Bytes(), Options{}, 0)
	if stats.Connections != 4 || stats.WebSocket != 2 || stats.TLS != 1 || len(all) != 2 {
		t.Errorf("%+v, %d shown", stats, len(all))
	}
	if !slices.Equal(all[3].texts(Server), []string{"pushed"}) || conns[4].Server != "198.51.100.2:8002" {
		t.Errorf("%q, %+v", all[3].texts(Server), conns[4])
	}
	if _, conns, stats = readCapture(t, file.Bytes(), Options{}, 8002); len(conns) != 1 || stats.Connections != 1 || conns[1].Client != "192.0.2.1:40004" {
		t.Errorf("of port 8002: %+v, %+v", conns, stats)
	}
}

func TestWhatTheNetworkDidToThePacketsDoesNotMatter(t *testing.T) {
	type packet struct {
		ci gopacket.CaptureInfo
		b  []byte
	}
	var packets []packet
	var ignore bytes.Buffer
	r := newPcap(t, &ignore, layers.LinkTypeEthernet)
	r.out = func(ci gopacket.CaptureInfo, b []byte) error {
		packets = append(packets, packet{ci, b})
		return nil
	}
	r.open(40000, 80).conversation()
	// Two segments change places, one comes twice. The 5000 bytes are in segments 7 to 10.
	packets[7], packets[8] = packets[8], packets[7]
	packets = slices.Insert(packets, 10, packets[8])
	var file bytes.Buffer
	w := pcapgo.NewWriter(&file)
	if err := w.WriteFileHeader(65536, layers.LinkTypeEthernet); err != nil {
		t.Fatal(err)
	}
	for _, p := range packets {
		if err := w.WritePacket(p.ci, p.b); err != nil {
			t.Fatal(err)
		}
	}
	all, _, _ := readCapture(t, file.Bytes(), Options{}, 0)
	x := all[1]
	if v := x.violations(); len(v) != 0 {
		t.Errorf("%v", v)
	}
	accounted(t, x, [2]int{len(exampleRequest) + 11 + 8, len(exampleAnswer) + 7 + 5004 + 4})
}

func TestAPacketThatIsMissingIsAGap(t *testing.T) {
	var file bytes.Buffer
	r := newPcap(t, &file, layers.LinkTypeEthernet)
	r.drop = func(n int) bool { return n == 8 } // of the segments of the 5000 bytes, the second
	r.open(40000, 80).conversation()
	all, _, _ := readCapture(t, file.Bytes(), Options{}, 0)
	x := all[1]
	accounted(t, x, [2]int{len(exampleRequest) + 11 + 8, len(exampleAnswer) + 7 + 5004 + 4})
	missing := 0
	for _, r := range x.wire[Server] {
		if r.Frame != nil {
			missing += r.Frame.Missing
		}
	}
	if missing != 1400 || len(x.violations()) != 0 || len(x.message[Server]) != 2 || x.message[Server][1].Message.Whole {
		t.Errorf("%d bytes missing, %v", missing, x.violations())
	}
}

func TestACaptureThatBeginsInTheMiddleSaysSo(t *testing.T) {
	for name, port := range map[string]int{"": 0, "of a port": 80} {
		t.Run("connections "+name, func(t *testing.T) {
			var file bytes.Buffer
			r := newPcap(t, &file, layers.LinkTypeEthernet)
			r.drop = func(n int) bool { return n <= 5 } // the handshakes of TCP and of WebSocket
			c := r.open(40000, 80)
			c.send(Client, []byte(exampleRequest))
			c.send(Server, []byte(exampleAnswer))
			c.send(Server, fromServer(0x81, "from the server"))
			c.send(Client, fromClient(0x81, "from the client"))
			all, conns, stats := readCapture(t, file.Bytes(), Options{}, port)
			if stats.WebSocket != 1 {
				t.Fatalf("%+v", stats)
			}
			if want := (Connection{N: 1, Client: "192.0.2.1:40000", Server: "198.51.100.2:80", Midway: true}); conns[1] != want {
				t.Errorf("%+v, want %+v", conns[1], want)
			}
			x := all[1]
			if len(x.violations()) != 0 || !slices.Equal(x.texts(Client), []string{"from the client"}) || !slices.Equal(x.texts(Server), []string{"from the server"}) {
				t.Errorf("%v, %q, %q", x.violations(), x.texts(Client), x.texts(Server))
			}
		})
	}
}

func TestAFileThatIsNoCaptureOrIsCutIsRefused(t *testing.T) {
	show := func(*Connection, []Record) error { return nil }
	for _, b := range []string{"", "GET ", "\xa1\xb2\xc3\xd4", "\x0a\x0d\x0d\x0a\x00\x00\x00\x04garbage"} {
		if _, err := ReadCapture(strings.NewReader(b), Options{}, 0, show); err == nil {
			t.Errorf("%q is read", b)
		}
	}
	var file bytes.Buffer
	newPcap(t, &file, layers.LinkTypeEthernet).open(1, 2).conversation()
	if _, err := ReadCapture(bytes.NewReader(file.Bytes()[:file.Len()-3]), Options{}, 0, show); err == nil || !strings.HasPrefix(err.Error(), "packet 1") {
		t.Errorf("a file that is cut: %v", err)
	}
	full := errors.New("full")
	if _, err := ReadCapture(&file, Options{}, 0, func(*Connection, []Record) error { return full }); !errors.Is(err, full) {
		t.Errorf("the error of show is lost: %v", err)
	}
}

func TestWhatIsNoWebSocketFromItsBeginningIsNotShown(t *testing.T) {
	// Frames that are good by chance are in each of them: 81 02 of a server, and a masked one of the client.
	chance := "\x81\x02hi\x82\x80\x00\x00\x00\x00"
	for name, said := range map[string][2]string{
		"a binary protocol":           {"\x00\x00\x00\x08" + chance, "N" + chance},
		"the server speaks first":     {"\x10\x0e\x00\x04" + chance, chance},
		"HTTP/2":                      {"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x12" + chance, chance},
		"HTTP that is no handshake":   {"GET / HTTP/1.1\r\nHost: h\r\n\r\n" + chance, chance},
		"frames, and there is no 101": {chance, chance},
	} {
		t.Run(name, func(t *testing.T) {
			var file bytes.Buffer
			c := newPcap(t, &file, layers.LinkTypeEthernet).open(40000, 5432)
			if name == "the server speaks first" {
				c.send(Server, []byte(said[Server]))
				c.send(Client, []byte(said[Client]))
			} else {
				c.send(Client, []byte(said[Client]))
				c.send(Server, []byte(said[Server]))
			}
			c.close()
			if all, _, stats := readCapture(t, file.Bytes(), Options{}, 0); len(all) != 0 || stats.Connections != 1 || stats.WebSocket != 0 {
				t.Errorf("%d shown, %+v", len(all), stats)
			}
		})
	}
}

func TestWhatIsNoWebSocketTakesNoMemory(t *testing.T) {
	// Each byte could be half a frame of its own, or a line of a head, with a record that takes a thousand times as much.
	var file bytes.Buffer
	r := newPcap(t, &file, layers.LinkTypeEthernet)
	for i, said := range [][]byte{make([]byte, 40_000), bytes.Repeat([]byte("ab\n"), 10_000), bytes.Repeat([]byte("GET / HTTP/1.1\r\nHost: h\r\n\r\n"), 2_000)} {
		for k := range 50 {
			r.open(uint16(20_000+100*i+k), 9999).send(Client, said)
		}
	}
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	var stats Stats
	var err error
	held := uint64(0)
	stop := errors.New("stop")
	last := r.open(19_999, 80) // all are still open when this one is shown
	last.conversation()
	stats, err = ReadCapture(&file, Options{}, 0, func(*Connection, []Record) error {
		runtime.GC()
		runtime.ReadMemStats(&after)
		held = after.HeapAlloc - min(before.HeapAlloc, after.HeapAlloc)
		return stop
	})
	if !errors.Is(err, stop) || stats.Connections != 151 {
		t.Fatalf("%v, %+v", err, stats)
	}
	if held > 100<<20 {
		t.Errorf("%d MB are held for 150 connections that are no WebSocket", held>>20)
	}
}

func TestAConnectionWhoseHandshakeIsMissingIsShown(t *testing.T) {
	var file bytes.Buffer
	r := newPcap(t, &file, layers.LinkTypeEthernet)
	r.drop = func(n int) bool { return n == 4 || n == 5 } // behind SYN, SYN ACK, ACK
	c := r.open(40000, 80)
	c.conversation()
	c.close()
	all, _, stats := readCapture(t, file.Bytes(), Options{}, 0)
	if stats.WebSocket != 1 || len(all) != 1 || !slices.Equal(all[1].texts(Client), []string{"Hello"}) {
		t.Errorf("%+v, %d shown", stats, len(all))
	}
}

func TestPortsThatAreUsedAgain(t *testing.T) {
	// Behind a FIN of both sides it is another connection. Behind a RST it cannot be told from the one before, which is said.
	for name, tt := range map[string]struct {
		end  func(c *recorded)
		want Stats
	}{
		"FIN": {(*recorded).close, Stats{Connections: 3, WebSocket: 3}},
		"RST": {func(c *recorded) { c.packet(Client, layers.TCP{RST: true}, nil) }, Stats{Connections: 1, WebSocket: 1, Reused: 2}},
	} {
		var file bytes.Buffer
		r := newPcap(t, &file, layers.LinkTypeEthernet)
		for i := range uint32(3) {
			c := &recorded{r: r, port: [2]uint16{40000, 80}, seq: [2]uint32{1000 + i<<20, 5000 + i<<20}}
			c.packet(Client, layers.TCP{SYN: true}, nil)
			c.seq[Client]--
			c.packet(Client, layers.TCP{SYN: true}, nil) // once more
			c.packet(Server, layers.TCP{SYN: true, ACK: true}, nil)
			c.conversation()
			tt.end(c)
		}
		_, _, stats := readCapture(t, file.Bytes(), Options{}, 0)
		if stats.Packets = 0; stats != tt.want {
			t.Errorf("%s: %+v, want %+v", name, stats, tt.want)
		}
	}
}

func FuzzCapture(f *testing.F) {
	var file bytes.Buffer
	c := newPcap(f, &file, layers.LinkTypeRaw).open(40000, 80)
	c.conversation()
	f.Add(file.Bytes())
	f.Fuzz(func(t *testing.T, b []byte) {
		if len(b) > 1<<14 {
			return
		}
		all := map[int]*explained{}
		ReadCapture(bytes.NewReader(b), Options{}, 0, func(c *Connection, records []Record) error {
			if all[c.N] == nil {
				all[c.N] = &explained{}
			}
			all[c.N].add(records)
			return nil
		})
		for _, x := range all {
			size := [2]int{}
			for d := range 2 {
				if n := len(x.read[d]); n > 0 {
					size[d] = int(x.read[d][n-1].End)
				}
			}
			accounted(t, x, size)
		}
	})
}

func TestWhoIsTheClientShowsByWhatIsSent(t *testing.T) {
	for _, tt := range []struct {
		bytes string
		dir   Dir
		sure  bool
	}{
		{"", Client, false},
		{"\x81", Client, false},
		{"GET / HTTP/1.1", Client, true},
		{"HTTP/1.1 101", Server, true},
		{"\x81\x85", Client, true},
		{"\x81\x05", Server, true},
		{"HEAD / HTTP/1.1", Client, true},
	} {
		if dir, sure := GuessDir([]byte(tt.bytes)); dir != tt.dir || sure != tt.sure {
			t.Errorf("%q: %v, %v", tt.bytes, dir, sure)
		}
	}
	// One byte alone says nothing: then the server has the lower port.
	for _, d := range []Dir{Client, Server} {
		var file bytes.Buffer
		r := newPcap(t, &file, layers.LinkTypeEthernet)
		r.drop = func(n int) bool { return n <= 3 }
		c := r.open(40000, 80)
		frame := build(0x81, "split", d == Client)
		c.send(d, frame[:1])
		c.send(d, frame[1:])
		c.send(d, build(0x81, "whole", d == Client))
		_, conns, _ := readCapture(t, file.Bytes(), Options{}, 0)
		if conns[1].Server != "198.51.100.2:80" {
			t.Errorf("%v first: %+v", d, conns[1])
		}
	}
}

func TestPacketsThatAreCutAreCounted(t *testing.T) {
	var file bytes.Buffer
	r := newPcap(t, &file, layers.LinkTypeEthernet)
	out := r.out
	r.out = func(ci gopacket.CaptureInfo, b []byte) error {
		if len(b) > 1000 {
			b = b[:1000]
			ci.CaptureLength = 1000
		}
		return out(ci, b)
	}
	r.open(40000, 80).conversation()
	all, _, stats := readCapture(t, file.Bytes(), Options{}, 0)
	if stats.Short != 3 {
		t.Errorf("%+v", stats)
	}
	accounted(t, all[1], [2]int{len(exampleRequest) + 11 + 8, len(exampleAnswer) + 7 + 5004 + 4})
}
