package inspect

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
	"github.com/gopacket/gopacket/pcapgo"
	"github.com/gopacket/gopacket/reassembly"
)

// IsCapture reports whether b, at least the first four bytes of a file, begins a pcap or a pcapng file.
func IsCapture(b []byte) bool {
	if len(b) < 4 {
		return false
	}
	switch string(b[:4]) {
	case "\xa1\xb2\xc3\xd4", "\xd4\xc3\xb2\xa1", "\xa1\xb2\x3c\x4d", "\x4d\x3c\xb2\xa1", "\x0a\x0d\x0d\x0a":
		return true
	}
	return false
}

// Connection is a TCP connection in a capture.
type Connection struct {
	N      int    // from 1, in the order of their first packets
	Client string // address and port
	Server string
	Midway bool // the capture does not have its beginning
}

// Stats are the counts of a capture.
type Stats struct {
	Packets     int
	Connections int // of TCP
	WebSocket   int // of these, how many were shown
	TLS         int // were encrypted
	Short       int // packets that the capture does not have whole
	Reused      int // connections that are not told from one before, which had the same ports and was reset or has no end here
}

// ReadCapture reads a pcap or pcapng file, and explains each WebSocket connection in it. show is called with records of
// one connection after another, as the packets came; a connection that turns out to be something else is not shown. port
// is that of the servers to look at, 0 for all. A file that is cut is shown up to there. It stops at the first error of
// show.
func ReadCapture(r io.Reader, o Options, port int, show func(c *Connection, records []Record) error) (Stats, error) {
	packets, err := newPackets(r)
	if err != nil {
		return Stats{}, fmt.Errorf("not a pcap or pcapng file that can be read: %w", err)
	}
	t := &tracker{o: o, port: port, show: show}
	a := reassembly.NewAssembler(reassembly.NewStreamPool(t))
	// What waits for a packet that is missing waits for so much, or for two seconds of the capture.
	a.MaxBufferedPagesPerConnection = 256
	a.MaxBufferedPagesTotal = 64 << 10 // of 1.9 KB, so 120 MB, however many connections the file has
	var flushed time.Time
	for t.err == nil {
		var data []byte
		var ci gopacket.CaptureInfo
		var link gopacket.Decoder
		if data, ci, link, err = packets(); err != nil {
			break
		}
		t.stats.Packets++
		if ci.CaptureLength < ci.Length {
			t.stats.Short++
		}
		p := gopacket.NewPacket(data, link, gopacket.DecodeOptions{Lazy: true, NoCopy: true})
		tcp, ok := p.TransportLayer().(*layers.TCP)
		if !ok || p.NetworkLayer() == nil || port != 0 && int(tcp.SrcPort) != port && int(tcp.DstPort) != port {
			continue
		}
		c := moment(ci)
		a.AssembleWithContext(p.NetworkLayer().NetworkFlow(), tcp, &c)
		if ci.Timestamp.Sub(flushed) > time.Second {
			flushed = ci.Timestamp
			a.FlushWithOptions(reassembly.FlushOptions{T: flushed.Add(-2 * time.Second)})
		}
	}
	a.FlushAll() // also what came before a packet that cannot be read
	switch {
	case t.err != nil:
		return t.stats, t.err
	case errors.Is(err, io.EOF):
		return t.stats, nil
	}
	return t.stats, fmt.Errorf("packet %d: %w", t.stats.Packets+1, err)
}

// newPackets opens a file of either format. The function that it returns gives the next packet, which is valid until the
// next call, and what is to be made of its first bytes.
func newPackets(r io.Reader) (func() ([]byte, gopacket.CaptureInfo, gopacket.Decoder, error), error) {
	in := bufio.NewReaderSize(r, 64<<10)
	magic, err := in.Peek(4)
	if err != nil {
		return nil, err
	}
	if magic[0] != 0x0a {
		p, err := pcapgo.NewReader(in)
		if err != nil {
			return nil, err
		}
		return func() ([]byte, gopacket.CaptureInfo, gopacket.Decoder, error) {
			b, ci, err := p.ReadPacketData()
			return b, ci, p.LinkType(), err
		}, nil
	}
	p, err := pcapgo.NewNgReader(in, pcapgo.NgReaderOptions{WantMixedLinkType: true, SkipUnknownVersion: true})
	if err != nil {
		return nil, err
	}
	return func() ([]byte, gopacket.CaptureInfo, gopacket.Decoder, error) {
		b, ci, err := p.ReadPacketData()
		if err != nil {
			return nil, ci, nil, err
		}
		i, err := p.Interface(ci.InterfaceIndex)
		return b, ci, i.LinkType, err
	}, nil
}

// moment is when a packet came, as package reassembly wants it.
type moment gopacket.CaptureInfo

func (m *moment) GetCaptureInfo() gopacket.CaptureInfo { return gopacket.CaptureInfo(*m) }

// tracker makes the streams of the assembler.
type tracker struct {
	o     Options
	port  int
	show  func(c *Connection, records []Record) error
	stats Stats
	err   error
}

// stream is one connection of the capture.
type stream struct {
	t       *tracker
	c       Connection
	e       *Explainer
	decided bool    // who is the client is known
	swapped bool    // the first packet was of the server
	first   string  // address and port that the first packet came from
	second  string  // and went to
	begun   [2]bool // the SYN of a direction was seen
	isn     uint32  // the sequence number of the SYN that opened it
	gapped  bool    // bytes are missing, which may have been the handshake
	held    []Record
	shown   bool
	over    bool // it is something else, and not explained any more
	tls     bool
	when    time.Time
}

// mostHeld is how many records wait for a sign that a connection is a WebSocket. A request that wants one comes with all its
// lines at once; what waits is plain HTTP before it.
const mostHeld = 512

// New is called for the first packet of a connection.
func (t *tracker) New(net, tcp gopacket.Flow, p *layers.TCP, _ reassembly.AssemblerContext) reassembly.Stream {
	t.stats.Connections++
	s := &stream{t: t, e: New(t.o), c: Connection{N: t.stats.Connections}}
	s.first, s.second = endpoint(net.Src(), tcp.Src()), endpoint(net.Dst(), tcp.Dst())
	switch {
	case t.port != 0:
		s.decide(int(p.SrcPort) == t.port)
	case p.SYN:
		s.decide(p.ACK)
	}
	return s
}

func endpoint(host, port gopacket.Endpoint) string {
	if h := host.String(); strings.Contains(h, ":") {
		return "[" + h + "]:" + port.String()
	}
	return host.String() + ":" + port.String()
}

// decide settles who is the client.
func (s *stream) decide(swapped bool) {
	s.decided, s.swapped = true, swapped
	s.c.Client, s.c.Server = s.first, s.second
	if swapped {
		s.c.Client, s.c.Server = s.second, s.first
	}
}

// half is a direction of package reassembly as an index: 0 is that of the first packet.
func half(d reassembly.TCPFlowDirection) int {
	if d == reassembly.TCPDirClientToServer {
		return 0
	}
	return 1
}

// Accept takes every packet, also of connections whose beginning is missing.
func (s *stream) Accept(tcp *layers.TCP, _ gopacket.CaptureInfo, d reassembly.TCPFlowDirection, _ reassembly.Sequence, start *bool, _ reassembly.AssemblerContext) bool {
	h := half(d)
	if tcp.SYN && !tcp.ACK {
		if s.begun[h] && s.isn != tcp.Seq { // and not the same SYN once more
			s.t.stats.Reused++
		}
		s.isn = tcp.Seq
	}
	s.begun[h] = s.begun[h] || tcp.SYN
	*start = true
	return true
}

// ReassembledSG gets the bytes of one direction in their order.
func (s *stream) ReassembledSG(sg reassembly.ScatterGather, ac reassembly.AssemblerContext) {
	d, _, _, skip := sg.Info()
	n, _ := sg.Lengths()
	b := sg.Fetch(n)
	if len(b) == 0 || s.over || s.t.err != nil {
		return
	}
	s.when = ac.GetCaptureInfo().Timestamp
	h := half(d)
	if !s.decided {
		s.decide(s.guess(h, b))
	}
	dir := Dir(h)
	if s.swapped {
		dir = dir.other()
	}
	if !s.begun[h] {
		s.begun[h], s.c.Midway = true, true
		s.give(s.e.Gap(dir, s.when, -1))
	}
	if skip > 0 {
		s.gapped = true
		s.give(s.e.Gap(dir, s.when, int64(skip)))
	}
	s.tls = s.tls || b[0] == 0x16 && len(b) > 1 && b[1] == 3
	s.give(s.e.Feed(dir, s.when, b))
}

// guess reports whether the server sent the first packet, by what came from direction h.
func (s *stream) guess(h int, b []byte) bool {
	dir, sure := GuessDir(b)
	if !sure {
		// Servers have the lower port.
		return port(s.first) < port(s.second)
	}
	return (dir == Server) == (h == 0)
}

// port is the number at the end of an address.
func port(addr string) int {
	n, _ := strconv.Atoi(addr[strings.LastIndexByte(addr, ':')+1:])
	return n
}

// GuessDir tells by the first bytes of a stream who sent it: a request, an answer, or the mask of the first frame. It is
// not sure when there are not two bytes.
func GuessDir(b []byte) (dir Dir, sure bool) {
	client, server := side{dir: Client}, side{dir: Server}
	switch {
	case len(b) < 2:
		return Client, false
	case server.surelyHead(b):
		return Server, true
	case client.looksLikeHead(b):
		return Client, true
	case b[1]&0x80 != 0:
		return Client, true
	}
	return Server, true
}

// isWebSocket reports whether it is known that this is one. A connection of which all is there begins with a handshake
// (§4): bytes of something else that read like a frame by chance are none.
func (s *stream) isWebSocket() bool {
	if s.c.Midway || s.gapped {
		return s.e.WebSocket()
	}
	return s.e.shaken()
}

// give shows records, or holds them until it is known that this is a WebSocket.
func (s *stream) give(records []Record) {
	if len(records) == 0 || s.t.err != nil {
		return
	}
	if !s.shown && !s.isWebSocket() {
		switch {
		case s.e.foreign && !s.c.Midway && !s.gapped:
			s.over, s.held = true, nil
		case len(s.held)+len(records) > mostHeld:
			s.held = nil // the newest are nearest to a handshake
			fallthrough
		default:
			s.held = append(s.held, slices.Clone(records[max(0, len(records)-mostHeld):])...)
		}
		return
	}
	if !s.shown {
		s.shown = true
		s.t.stats.WebSocket++
		records = append(s.held, records...)
		s.held = nil
	}
	s.t.err = s.t.show(&s.c, records)
}

// ReassemblyComplete is called at the end of a connection. It stays known, or the last packets, that have no bytes, would
// be taken for those of another.
func (s *stream) ReassemblyComplete(reassembly.AssemblerContext) bool {
	if !s.over {
		s.give(s.e.Finish())
	}
	if !s.shown && s.tls {
		s.t.stats.TLS++
	}
	s.held, s.e = nil, nil
	return false
}
