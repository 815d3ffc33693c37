package inspect

import (
	"bytes"
	"errors"
	"strings"
	"testing"
	"time"
)

func TestAFrameIsDrawnAsInTheRFC(t *testing.T) {
	var out bytes.Buffer
	if err := Explain(&out, Options{}, Text{}, wire("81 85 37fa213d 7f9f4d5158"), nil); err != nil {
		t.Fatal(err)
	}
	want := `client frame 0: bytes 0 to 10, read 0
   0                   1                   2                   3
   0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1 2 3 4 5 6 7 8 9 0 1
  +-+-+-+-+-------+-+-------------+-------------------------------+
  |F|R|R|R|opcode |M| payload len |          masking key          |
  |I|S|S|S| text  |A|      5      |          37 fa 21 3d          |
  |N|V|V|V|       |S|             |                               |
  | |1|2|3|       |K|             |                               |
  |1|0|0|0|0 0 0 1|1|0 0 0 0 1 0 1|0 0 1 1 0 1 1 1 1 1 1 1 1 0 1 0|
  +-+-+-+-+-------+-+-------------+-------------------------------+
  |          masking key          |            payload            |
  |          37 fa 21 3d          |             7f 9f             |
  |0 0 1 0 0 0 0 1 0 0 1 1 1 1 0 1|0 1 1 1 1 1 1 1 1 0 0 1 1 1 1 1|
  +-------------------------------+-------------------------------+
  FIN 1      the only frame of its message (§5.4)
  RSV 000    as it must be, unless an extension says otherwise (§5.2)
  opcode 1   text: the message is UTF-8 (§5.6)
  MASK 1     the payload is masked, as all that a client sends (§5.1)
  length 5   in the 7 bits themselves, since it is at most 125 (§5.2)
  key        37 fa 21 3d: byte i of the payload is XORed with byte i mod 4 of it (§5.3)
  message    number 0, its frame 0
  text       "Hello"
  payload    masked, and without the mask:
       0  7f 9f 4d 51 58           48 65 6c 6c 6f           Hello

client message 0: bytes 0 to 10, read 0
  text, in frame 0, 5 bytes
  "Hello"
`
	if out.String() != want {
		t.Errorf("have\n%s\nwant\n%s", &out, want)
	}
}

func TestTheDiagramHasEveryBitOfEveryHeader(t *testing.T) {
	for _, s := range []string{
		"81", "82 7e 0100", "82 fe 0100 01020304", "82 7f 0000000000010000", "82 ff 0000000000010000 01020304", "80 00", "80 80 01020304",
		"82 7e", "82 ff 0000", "81 85 37", "82 7e 01",
	} {
		b := wire(s)
		drawn := fields(b).diagram()
		var bits, want strings.Builder
		for _, l := range strings.Split(drawn, "\n")[2:] {
			cells := strings.NewReplacer("|", "", " ", "").Replace(l)
			if cells != "" && strings.Trim(cells, "01") == "" && strings.Count(l, "0")+strings.Count(l, "1") >= 8 {
				bits.WriteString(cells)
			}
		}
		for _, c := range b {
			for i := 7; i >= 0; i-- {
				want.WriteByte('0' + c>>i&1)
			}
		}
		if bits.String() != want.String() {
			t.Errorf("%s: the bits are %s, want %s, in\n%s", s, &bits, &want, drawn)
		}
	}
}

func TestTheExplanationOfAConnectionSaysWhatIsInIt(t *testing.T) {
	c := joined([]byte(exampleRequest), fromClient(0x81, "Hello"), fromClient(0x88, "\x03\xe8bye"))
	s := joined([]byte(exampleAnswer), fromServer(0x01, "Hel"), fromServer(0x89, "\x01\x02"), fromServer(0x80, "lo"), fromServer(0x83, ""))
	var full, brief bytes.Buffer
	if err := errors.Join(Explain(&full, Options{}, Text{}, c, s), Explain(&brief, Options{}, Text{Brief: true, Reads: true}, c, s)); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"Sec-WebSocket-Version: 13\n      the version of the protocol", "SHA-1         b3 7a 4f 2c", "base64        s3pPLMBiTxaQ9kYGzzhZRbK+xOo=",
		"code       1000, normal", `reason     "bye"`, "a control frame between the fragments of message 0",
		"text, in 2 frames, 6 to 8, 5 bytes\n  \"Hello\"", "VIOLATION RFC 6455 §5.2: reserved opcode: 3",
		"the receiver has to close 1002 (protocol error)", "cure: send data as text (1)",
	} {
		if !strings.Contains(full.String(), want) {
			t.Errorf("%q is not in\n%s", want, &full)
		}
	}
	wantBrief := `-> read 0, 230 bytes
-> GET /chat HTTP/1.1
`
	if !strings.HasPrefix(brief.String(), wantBrief) {
		t.Errorf("brief:\n%s", &brief)
	}
	for _, want := range []string{
		"\n<- text 3 B (message 0, frame 0) \"Hel\"\n<- ping FIN 2 B \"\\x01\\x02\"\n<- continuation FIN 2 B (message 0, frame 1) \"lo\"\n<- message 0: text, in 2 frames, 6 to 8, 5 bytes \"Hello\"\n" +
			"<- reserved data FIN 0 B  ! RFC 6455 §5.2: reserved opcode: 3; close 1002\n",
		"\n-> text FIN 5 B \"Hello\"\n-> close FIN 5 B 1000 \"bye\"\n",
	} {
		if !strings.Contains(brief.String(), want) {
			t.Errorf("%q is not in\n%s", want, &brief)
		}
	}
}

func TestNothingThatAPeerSendsSteersTheTerminal(t *testing.T) {
	evil := "\x1b[2J\x07\u202e\u009b31m\x00"
	c := joined(
		[]byte("GET /"+evil+" HTTP/1.1\r\nUpgrade: websocket\r\nX\x1b: y\r\nSec-WebSocket-Key: "+evil+"\r\nSec-WebSocket-Protocol: "+evil+"\r\n\r\n"),
		fromClient(0x81, evil), fromClient(0x82, evil), fromClient(0x89, evil), fromClient(0x88, "\x03\xe8"+evil), fromClient(0x88, "\x00\x01"+evil))
	s := joined([]byte("HTTP/1.1 101 "+evil+"\r\nSec-WebSocket-Accept: "+evil+"\r\n\r\n"), fromServer(0x81, evil))
	for _, text := range []Text{{}, {Brief: true}, {Reads: true}} {
		var out bytes.Buffer
		if err := Explain(&out, Options{}, text, c, s); err != nil {
			t.Fatal(err)
		}
		for _, r := range out.String() {
			if r < ' ' && r != '\n' || r >= 0x7f && r < 0xa0 || r == '\u202e' {
				t.Fatalf("%U is in\n%q", r, &out)
			}
		}
	}
}

func TestColourIsOnlyThereWhenItIsAskedFor(t *testing.T) {
	b := fromClient(0x83, "x")
	var without, with bytes.Buffer
	if err := errors.Join(Explain(&without, Options{}, Text{}, b, nil), Explain(&with, Options{}, Text{Color: true}, b, nil)); err != nil {
		t.Fatal(err)
	}
	if strings.Contains(without.String(), "\x1b") || !strings.Contains(with.String(), red+"VIOLATION") {
		t.Errorf("%q\n%q", &without, &with)
	}
	stripped := strings.NewReplacer(plain, "", bold, "", faint, "", red, "", green, "", yellow, "", cyan, "").Replace(with.String())
	if stripped != without.String() {
		t.Errorf("colour changes the words:\n%s\n%s", stripped, &without)
	}
}

// fullDisk takes some bytes and then no more.
type fullDisk struct{ left int }

func (d *fullDisk) Write(b []byte) (int, error) {
	if d.left -= len(b); d.left < 0 {
		return 0, errors.New("no space left on device")
	}
	return len(b), nil
}

func TestAnErrorOfTheWriterIsReported(t *testing.T) {
	c := joined([]byte(exampleRequest), fromClient(0x81, "Hello"))
	for _, room := range []int{0, 50, 1000} {
		if err := Explain(&fullDisk{room}, Options{}, Text{}, c, nil); err == nil {
			t.Errorf("%d bytes of room: no error", room)
		}
	}
}

func TestARecordSaysWhenItCame(t *testing.T) {
	e := New(Options{})
	at := time.Date(2024, 5, 6, 7, 8, 9, 123456000, time.UTC)
	var line string
	for _, r := range e.Feed(Client, at, fromClient(0x8a, "")) {
		line = r.String()
	}
	if line != "07:08:09.123456 -> pong FIN 0 B" {
		t.Errorf("%q", line)
	}
}

func TestEachFieldIsSaidInWords(t *testing.T) {
	for _, tt := range []struct {
		dir   Dir
		bytes []byte
		want  []string
	}{
		{Client, fromServer(0x89, ""), []string{"MASK 0     no mask; a client must have one", "opcode 9   ping: the other answers", "FIN 1      a control frame is whole in itself"}},
		{Server, fromClient(0x8a, "x"), []string{"MASK 1     the payload is masked; a server does not do that", "opcode a   pong"}},
		{Server, fromServer(0x02, strings.Repeat("x", 300)), []string{"FIN 0      more frames of the message follow", "length 300 the 7 bits say 126: the length is in the next 16 bits, since the 7 say up to 125 themselves", "... 300 bytes in all", "binary, in frame 0, 300 bytes; it did not end"}},
		{Server, fromServer(0x82, strings.Repeat("x", 65536)), []string{"the 7 bits say 127: the length is in the next 64 bits, since it does not fit into 16"}},
		{Server, wire("81 7e 0001 41"), []string{"the 7 bits say 126: the length is in the next 16 bits, though it would fit into the 7"}},
		{Server, wire("81 7f 0000000000000001 41"), []string{"the 7 bits say 127: the length is in the next 64 bits, though it would fit into fewer"}},
		{Server, fromServer(0xb3, ""), []string{"RSV 011    set, without a meaning", "opcode 3   reserved for data frames to come"}},
		{Server, fromServer(0x8b, ""), []string{"opcode b   reserved for control frames to come"}},
		{Server, fromServer(0x88, ""), []string{"code       none was sent (§7.1.5)"}},
		{Server, wire("c1 07 f2 48 cd c9 c9 07 00"), []string{"RSV 100    RSV1: the message is compressed", "inflates   7 bytes to 5", "text, compressed, in frame 0, 7 bytes, inflated 5 (compressed to 140 %)"}},
		{Server, fromServer(0x81, strings.Repeat("long ", 80)), []string{`text       "long long`, ` long l" ...`}},
		{Server, wire("80 01 61"), []string{"FIN 1      the last frame of its message", "continuation: goes on with the message that has begun"}},
		{Client, wire("81"), []string{"the stream ends here, in the middle of the header"}},
		{Client, wire("81 85 37fa213d 7f"), []string{"the stream ends inside this frame"}},
		{Client, []byte("\x16\x03\x01rest"), []string{"client bytes: bytes 0 to 6", "TLS: all that follows is encrypted"}},
		{Client, joined(fromClient(0x88, ""), fromClient(0x8a, "")), []string{"note: comes after the Close of the same side"}},
		{Client, joined(fromClient(0x88, ""), fromClient(0x81, "")), []string{"the receiver has to ignore it"}},
		{Server, []byte("HTTP/1.1 101 x\r\n\r\n"), []string{"the receiver has to fail the connection", "the server agrees: after the empty line"}},
		{Server, []byte("HTTP/1.1 426 x\r\nSec-WebSocket-Version: 13\r\n\r\n"), []string{"another version of it", "the versions that the server speaks"}},
		{Client, []byte("POST / HTTP/1.1\r\nUpgrade: websocket\r\n\r\n"), []string{"the receiver has to answer 405", "cure: send GET"}},
		{Client, []byte("GET / HTTP/1.0\r\nUpgrade: websocket\r\nno colon"), []string{"note: the head ends here", "a line without a name and a colon"}},
	} {
		var out bytes.Buffer
		client, server := tt.bytes, []byte(nil)
		if tt.dir == Server {
			client, server = nil, tt.bytes
		}
		if err := Explain(&out, Options{}, Text{Reads: true}, client, server); err != nil {
			t.Fatal(err)
		}
		for _, want := range tt.want {
			if !strings.Contains(out.String(), want) {
				t.Errorf("%.20x: %q is not in\n%s", tt.bytes, want, &out)
			}
		}
	}
}

func TestAGapIsShownWhereItIs(t *testing.T) {
	var out bytes.Buffer
	text := Text{W: &out, Reads: true}
	e := New(Options{Frames: true})
	write := func(records []Record) {
		for i := range records {
			text.Write(&records[i])
		}
	}
	text.Heading("== first")
	b := fromServer(0x82, strings.Repeat("x", 20))
	write(e.Feed(Server, time.Time{}, b[:5]))
	write(e.Gap(Server, time.Time{}, 10))
	write(e.Feed(Server, time.Time{}, b[15:]))
	text.Heading("== second")
	for _, want := range []string{"== first\n", "server gap 1: bytes 5 to 14", "10 bytes of its payload are missing", "\n\n== second\n", "reads 0 to 2"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("%q is not in\n%s", want, &out)
		}
	}
	if text.Err() != nil {
		t.Error(text.Err())
	}
}
