package inspect

import (
	"bytes"
	"compress/flate"
	"encoding/json"
	"encoding/xml"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"wspoll/frame"

	"github.com/gobwas/ws"
	"github.com/gopacket/gopacket/layers"
)

// seen is a frame as a reader of a capture tells it, in words that two readers share.
type seen struct {
	Dir     Dir
	Fin     bool
	Rsv     int
	Opcode  int
	Masked  bool
	Key     string
	Length  uint64
	Form    int // 7, 16 or 64
	Code    int // of a Close
	Reason  string
	Content string // in hex: of a control frame, and of the message that the frame ends
}

// needTshark is the path of tshark, or the end of the test.
func needTshark(t *testing.T) string {
	t.Helper()
	path, err := exec.LookPath("tshark")
	switch {
	case err == nil:
	case os.Getenv("WSPOLL_REQUIRE") == "1":
		t.Fatal("there is no tshark: apt-get install tshark")
	default:
		t.Skip("there is no tshark to compare with: apt-get install tshark; WSPOLL_REQUIRE=1 makes this an error")
	}
	return path
}

// pdml is tshark's -T pdml, which keeps the order of the frames in a packet.
type pdml struct {
	Packets []struct {
		Protos []pdmlField `xml:"proto"`
	} `xml:"packet"`
}

type pdmlField struct {
	Name   string      `xml:"name,attr"`
	Show   string      `xml:"show,attr"`
	Value  string      `xml:"value,attr"`
	Fields []pdmlField `xml:"field"`
}

// find is the field of a name, anywhere within.
func (f *pdmlField) find(name string) *pdmlField {
	for i := range f.Fields {
		if f.Fields[i].Name == name {
			return &f.Fields[i]
		}
		if g := f.Fields[i].find(name); g != nil {
			return g
		}
	}
	return nil
}

func (f *pdmlField) number(t *testing.T, name string) int {
	t.Helper()
	g := f.find(name)
	if g == nil {
		return 0
	}
	n, err := strconv.ParseInt(g.Show, 0, 64)
	if err != nil {
		t.Fatalf("%s of tshark is %q", name, g.Show)
	}
	return int(n)
}

// byTshark is what tshark says of a capture.
func byTshark(t *testing.T, path, file string, port int) (frames []seen) {
	t.Helper()
	cmd := exec.Command(path, "-r", file, "-T", "pdml")
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		t.Fatalf("%v: %v: %s", cmd.Args, err, &errs)
	}
	var doc pdml
	if err := xml.Unmarshal(out.Bytes(), &doc); err != nil {
		t.Fatal(err)
	}
	for _, p := range doc.Packets {
		dir := Client
		for i := range p.Protos {
			proto := &p.Protos[i]
			switch proto.Name {
			case "tcp":
				if proto.number(t, "tcp.srcport") == port {
					dir = Server
				}
			case "websocket":
				f := seen{
					Dir: dir, Fin: proto.number(t, "websocket.fin") == 1, Rsv: proto.number(t, "websocket.rsv"),
					Opcode: proto.number(t, "websocket.opcode"), Masked: proto.number(t, "websocket.mask") == 1, Form: 7,
					Length: uint64(proto.number(t, "websocket.payload_length")),
					Code:   proto.number(t, "websocket.payload.close.status_code"),
				}
				for form, name := range map[int]string{16: "websocket.payload_length_ext_16", 64: "websocket.payload_length_ext_64"} {
					if proto.find(name) != nil {
						f.Form, f.Length = form, uint64(proto.number(t, name))
					}
				}
				for _, name := range []string{"websocket.payload.text", "websocket.payload.ping", "websocket.payload.pong"} {
					if g := proto.find(name); g != nil {
						f.Content = g.Value
					}
				}
				if g := proto.find("websocket.masking_key"); g != nil {
					f.Key = g.Value
				}
				if g := proto.find("websocket.payload.close.reason"); g != nil {
					f.Reason = g.Show
				}
				frames = append(frames, f)
			case "fake-field-wrapper": // what the dissector handed on: the content of a binary message
				if g := proto.find("data.data"); g != nil && len(frames) > 0 {
					frames[len(frames)-1].Content = g.Value
				}
			}
		}
	}
	return frames
}

// byInspect is what the records of a connection say, taken from their JSON.
func byInspect(t *testing.T, x *explained) (frames []seen) {
	t.Helper()
	for _, r := range x.all {
		var j struct {
			Dir   string
			Frame *struct {
				Fin         bool
				Rsv, Opcode int
				Masked      bool
				Key         string
				Length      uint64
				LengthBits  int `json:"length_bits"`
				Payload     string
				Close       *struct {
					Code   int
					Reason string
				}
			}
			Message *struct{ Content string }
		}
		b, err := json.Marshal(r)
		if err == nil {
			err = json.Unmarshal(b, &j)
		}
		if err != nil {
			t.Fatal(err)
		}
		if f := j.Frame; f != nil {
			s := seen{Dir: r.Dir, Fin: f.Fin, Rsv: f.Rsv, Opcode: f.Opcode, Masked: f.Masked, Key: f.Key, Length: f.Length, Form: f.LengthBits}
			if f.Close != nil && f.Length > 0 {
				s.Code, s.Reason = f.Close.Code, f.Close.Reason
			}
			if f.Opcode == 9 || f.Opcode == 10 {
				s.Content = f.Payload
			}
			frames = append(frames, s)
		}
		if j.Message != nil {
			frames[len(frames)-1].Content = j.Message.Content
		}
	}
	return frames
}

// squeezed is text compressed as permessage-deflate does; z goes on from message to message.
type squeezer struct {
	out bytes.Buffer
	z   *flate.Writer
}

func newSqueezer() *squeezer {
	s := &squeezer{}
	s.z, _ = flate.NewWriter(&s.out, flate.BestCompression)
	return s
}

func (s *squeezer) message(text string) string {
	s.out.Reset()
	s.z.Write([]byte(text))
	s.z.Flush()
	return strings.TrimSuffix(s.out.String(), "\x00\x00\xff\xff")
}

// TestTsharkAgreesFieldByField records conversations, and holds what is said of them here against Wireshark's dissector.
func TestTsharkAgreesFieldByField(t *testing.T) {
	path := needTshark(t)
	r := rand.New(rand.NewPCG(7, 9))
	key := func() [4]byte { return [4]byte{byte(r.Uint32()), byte(r.Uint32()), byte(r.Uint32()), 1} }
	make1 := func(d Dir, first byte, payload string) []byte {
		h := ws.Header{Fin: first&0x80 != 0, Rsv: first >> 4 & 7, OpCode: ws.OpCode(first & 15), Length: int64(len(payload))}
		if d == Client {
			h.Masked, h.Mask = true, key()
		}
		b := frame.AppendHeader(nil, h)
		n := len(b)
		b = append(b, payload...)
		if h.Masked {
			ws.Cipher(b[n:], h.Mask, 0)
		}
		return b
	}
	words := strings.Repeat("all work and no play makes Jack a dull boy. ", 40)
	squeeze := [2]*squeezer{newSqueezer(), newSqueezer()}
	for name, talk := range map[string]func(d Dir, send func(...[]byte)){
		"lengths and opcodes": func(d Dir, send func(...[]byte)) {
			for _, n := range []int{1, 5, 125, 126, 127, 1399, 1400, 65535, 65536, 70000} {
				send(make1(d, 0x82, strings.Repeat("\x01\x02\xfe", n)[:n]))
				send(make1(d, 0x81, strings.Repeat("abc", n)[:n]))
			}
			send(make1(d, 0x89, "ping"), make1(d, 0x8a, "pong"), make1(d, 0x81, "three in one segment"))
			send(make1(d, 0x89, strings.Repeat("p", 125)))
			send(make1(d, 0x89, ""), make1(d, 0x8a, ""), make1(d, 0x81, ""), make1(d, 0x82, ""))
			send(make1(d, 0x81, "Grüße, 世界 🌍"))
		},
		"fragments": func(d Dir, send func(...[]byte)) {
			send(make1(d, 0x01, "one "))
			send(make1(d, 0x89, "between"))
			send(make1(d, 0x00, "two "), make1(d, 0x80, "three"))
			send(make1(d, 0x02, "\x00\x01"))
			send(make1(d, 0x80, "\x02\x03"))
			send(make1(d, 0x01, strings.Repeat("x", 3000)))
			send(make1(d, 0x80, strings.Repeat("y", 3000)))
		},
		"compression": func(d Dir, send func(...[]byte)) {
			send(make1(d, 0xc1, squeeze[d].message(words)))
			send(make1(d, 0x81, "not compressed"))
			send(make1(d, 0xc1, squeeze[d].message(words+"again")))
			send(make1(d, 0xc1, squeeze[d].message("short")))
		},
		"close 1000":       func(d Dir, send func(...[]byte)) { send(make1(d, 0x88, "\x03\xe8")) },
		"close 1001":       func(d Dir, send func(...[]byte)) { send(make1(d, 0x88, "\x03\xe9going away")) },
		"close 1011":       func(d Dir, send func(...[]byte)) { send(make1(d, 0x88, "\x03\xf3"+strings.Repeat("r", 123))) },
		"close 4999":       func(d Dir, send func(...[]byte)) { send(make1(d, 0x88, "\x13\x87Grüße")) },
		"close without":    func(d Dir, send func(...[]byte)) { send(make1(d, 0x88, "")) },
		"reserved opcodes": func(d Dir, send func(...[]byte)) { send(make1(d, 0x83, "x")); send(make1(d, 0x8b, "y")) },
		"reserved bits":    func(d Dir, send func(...[]byte)) { send(make1(d, 0xa9, "x")); send(make1(d, 0x99, "y")) },
	} {
		t.Run(name, func(t *testing.T) {
			name := filepath.Join(t.TempDir(), "talk.pcap")
			file, err := os.Create(name)
			if err != nil {
				t.Fatal(err)
			}
			c := newPcap(t, file, layers.LinkTypeEthernet).open(40000, 80)
			request, answer := exampleRequest, exampleAnswer
			if name := "compression"; strings.Contains(t.Name(), name) {
				request = changed(request, "Sec-WebSocket-Extensions: permessage-deflate")
				answer = changed(answer, "Sec-WebSocket-Extensions: permessage-deflate")
			}
			c.send(Client, []byte(request))
			c.send(Server, []byte(answer))
			for _, d := range []Dir{Client, Server} {
				talk(d, func(frames ...[]byte) { c.send(d, joined(frames...)) })
			}
			if err := file.Close(); err != nil {
				t.Fatal(err)
			}
			b, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			all, _, _ := readCapture(t, b, Options{Excerpt: 1 << 20}, 0)
			ours, theirs := byInspect(t, all[1]), byTshark(t, path, name, 80)
			if len(ours) != len(theirs) || len(ours) == 0 {
				t.Fatalf("%d frames, tshark has %d", len(ours), len(theirs))
			}
			for i := range ours {
				if ours[i] != theirs[i] {
					t.Errorf("frame %d is\n%.400s, tshark says\n%.400s", i, ours[i].json(), theirs[i].json())
				}
			}
		})
	}
}

func (s *seen) json() string {
	b, _ := json.Marshal(s)
	return string(b)
}
