package main

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"wspoll/handshake"

	"github.com/gopacket/gopacket"
	"github.com/gopacket/gopacket/layers"
	"github.com/gopacket/gopacket/pcapgo"
)

const (
	exampleRequest = "GET /chat HTTP/1.1\r\nHost: server.example.com\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n" +
		"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
	exampleAnswer = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n" +
		"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"
	maskedHello   = "\x81\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58"
	unmaskedHello = "\x81\x05Hello"
)

// write makes a file of the test.
func write(t *testing.T, name, content string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// piped runs the program in a process with stdin, for a moment.
func piped(t *testing.T, stdin string, args ...string) (stdout, stderr string) {
	t.Helper()
	cmd := exec.Command(os.Args[0], args...)
	cmd.Env = append(os.Environ(), asProgram+"=1")
	cmd.Stdin = strings.NewReader(stdin)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	cmd.Run() // how it ended shows on stderr
	return out.String(), errs.String()
}

func TestInspectTakesItsInputInEveryForm(t *testing.T) {
	masked := "-> text FIN 5 B \"Hello\"\n"
	unmasked := "<- text FIN 5 B \"Hello\"\n"
	for _, tt := range []struct {
		name string
		args []string
		want string
	}{
		{"a raw file", []string{write(t, "raw", maskedHello)}, masked},
		{"a raw file of a server", []string{write(t, "raw", unmaskedHello)}, unmasked},
		{"a raw file that looks like a capture", []string{"--raw", "--from", "server", write(t, "raw", "\x0a\x0d\x0d\x0a")}, "<- pong 13 B \"\\r\\n\" (truncated)  ! RFC 6455 §5.5: fragmented control frame: a pong without FIN; close 1002\n"},
		{"from the other side", []string{"--from", "server", write(t, "raw", maskedHello)}, "<- text FIN 5 B \"Hello\"  ! RFC 6455 §5.1: frame from a server is masked; close 1002\n"},
		{"a hex file", []string{"--hex", write(t, "hex", "00000000: 8185 37fa 213d 7f9f 4d51 58  ..7.!=..MQX\n")}, masked},
		{"hex as arguments", []string{"--hex", "8185", "37fa213d", "7f9f4d5158"}, masked},
		{"two files", []string{"--client", write(t, "c", exampleRequest+maskedHello), "--server", write(t, "s", exampleAnswer+unmaskedHello)}, unmasked + masked},
		{"two files of hex", []string{"--hex", "--client", write(t, "c", "81 85 37 fa 21 3d 7f 9f 4d 51 58"), "--server", write(t, "s", "8105 48656c6c6f")}, unmasked + masked},
		{"one of the two", []string{"--server", write(t, "s", unmaskedHello)}, unmasked},
		{"a compressed frame", []string{"--hex", "c107f248cdc9c90700"}, "<- text FIN RSV1 7 B inflates to 5 B\n<- message 0: text, compressed, in frame 0, 7 bytes, inflated 5 (compressed to 140 %) \"Hello\"\n"},
		{"a compressed frame, not agreed on", []string{"--hex", "--extensions", "", "c107f248cdc9c90700"}, "<- text FIN RSV1 7 B f2 48 cd c9 c9 07 00  ! RFC 6455 §5.2: reserved bit set and no extension gives it a meaning: RSV1; close 1002\n"},
		{"a limit", []string{"--hex", "--max-message", "4", "8185", "37fa213d", "7f9f4d5158"}, "-> text FIN 5 B \"Hello\"  ! RFC 6455 §10.4: message is larger than the limit: 5 bytes, and the limit is 4; close 1009\n"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			code, stdout, stderr := call(append([]string{"inspect", "--brief"}, tt.args...)...)
			if code != exitOK || stderr != "" || !strings.HasSuffix(stdout, tt.want) {
				t.Errorf("exit %d, stderr %q, stdout\n%s, want\n%s", code, stderr, stdout, tt.want)
			}
		})
	}
	t.Run("stdin", func(t *testing.T) {
		if out, errs := piped(t, maskedHello, "inspect", "--brief", "-"); out != masked || errs != "" {
			t.Errorf("%q, %q", out, errs)
		}
		if out, errs := piped(t, "81 05 48 65 6c 6c 6f\n", "inspect", "--brief", "--hex", "-"); out != unmasked || errs != "" {
			t.Errorf("%q, %q", out, errs)
		}
		if _, errs := piped(t, "81 0", "inspect", "--hex", "-", "--client", "x"); !strings.HasPrefix(errs, "wspoll: --client and --server say which files") {
			t.Errorf("%q", errs)
		}
		if out, errs := piped(t, "81 xyz", "inspect", "--hex", "-"); out != "" || errs != "wspoll: stdin: line 1: \"xyz\" is not whole bytes: it has 3 digits\n" {
			t.Errorf("%q, %q", out, errs)
		}
	})
}

func TestInspectPrintsTheWholeExplanation(t *testing.T) {
	_, stdout, _ := call("inspect", "--client", write(t, "c", exampleRequest+maskedHello), "--server", write(t, "s", exampleAnswer))
	for _, want := range []string{
		"client request:\n  GET /chat HTTP/1.1\n", "SHA-1         b3 7a 4f 2c", "|1|0|0|0|0 0 0 1|1|0 0 0 0 1 0 1|",
		"7f 9f 4d 51 58           48 65 6c 6c 6f           Hello",
	} {
		if !strings.Contains(stdout, want) {
			t.Errorf("%q is not in\n%s", want, stdout)
		}
	}
	if strings.Contains(stdout, "\x1b") {
		t.Error("there is colour, and stdout is no terminal")
	}
}

func TestABadRequestComesBeforeItsAnswerAllTheSame(t *testing.T) {
	bad := strings.Replace(exampleRequest, "Host:", "X-Host:", 1)
	_, stdout, _ := call("inspect", "--brief", "--client", write(t, "c", bad+maskedHello), "--server", write(t, "s", exampleAnswer+unmaskedHello))
	request, answer := strings.Index(stdout, "-> GET"), strings.Index(stdout, "<- HTTP/1.1 101")
	if request < 0 || answer < request || strings.Index(stdout, "-> text") < answer || !strings.Contains(stdout, "the Host header is missing") {
		t.Errorf("stdout\n%s", stdout)
	}
	if strings.Contains(stdout, "the request is not in sight") {
		t.Error("the request is in sight")
	}
}

func TestInspectPrintsJSONLines(t *testing.T) {
	code, stdout, stderr := call("inspect", "--json", "--reads", "--hex", "8185", "37fa213d", "7f9f4d5158", "8301", "00")
	lines := strings.Split(strings.TrimSuffix(stdout, "\n"), "\n")
	if code != exitOK || stderr != "" || len(lines) != 4 {
		t.Fatalf("exit %d, %q, %d lines:\n%s", code, stderr, len(lines), stdout)
	}
	var kinds []string
	for _, l := range lines {
		var r struct {
			Kind       string
			Dir        string
			Violations []struct {
				Kind, Section, What, Cure string
				Code                      int
			}
		}
		d := json.NewDecoder(strings.NewReader(l))
		if err := d.Decode(&r); err != nil || r.Dir != "client" {
			t.Fatalf("%v: %s", err, l)
		}
		kinds = append(kinds, r.Kind)
		if len(kinds) == 4 {
			if len(r.Violations) != 2 || r.Violations[0].Kind != "opcode-reserved-data" || r.Violations[0].Code != 1002 || r.Violations[1].Kind != "mask-missing" {
				t.Errorf("%s", l)
			}
		}
	}
	if strings.Join(kinds, " ") != "read frame message frame" {
		t.Errorf("%q", kinds)
	}
}

// captured is a pcap file of a conversation, and of one that is no WebSocket.
func captured(t *testing.T) string {
	t.Helper()
	var file bytes.Buffer
	w := pcapgo.NewWriter(&file)
	if err := w.WriteFileHeader(65536, layers.LinkTypeRaw); err != nil {
		t.Fatal(err)
	}
	seq := map[[2]int]uint32{}
	n := 0
	packet := func(from, to int, tcp layers.TCP, payload string) {
		ip := &layers.IPv4{Version: 4, IHL: 5, TTL: 64, Protocol: layers.IPProtocolTCP, SrcIP: []byte{127, 0, 0, 1}, DstIP: []byte{127, 0, 0, 1}}
		way := [2]int{from, to}
		tcp.SrcPort, tcp.DstPort, tcp.Seq = layers.TCPPort(from), layers.TCPPort(to), seq[way]
		seq[way] += uint32(len(payload))
		if tcp.SYN {
			seq[way]++
		}
		if err := tcp.SetNetworkLayerForChecksum(ip); err != nil {
			t.Fatal(err)
		}
		b := gopacket.NewSerializeBuffer()
		if err := gopacket.SerializeLayers(b, gopacket.SerializeOptions{FixLengths: true, ComputeChecksums: true}, ip, &tcp, gopacket.Payload(payload)); err != nil {
			t.Fatal(err)
		}
		n++
		ci := gopacket.CaptureInfo{Timestamp: time.Unix(1_700_000_000, int64(n)*1e6), CaptureLength: len(b.Bytes()), Length: len(b.Bytes())}
		if err := w.WritePacket(ci, b.Bytes()); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []int{5000, 5001, 5002} {
		packet(c, 8002, layers.TCP{SYN: true}, "")
		packet(8002, c, layers.TCP{SYN: true, ACK: true}, "")
	}
	packet(5000, 8002, layers.TCP{ACK: true}, "GET / HTTP/1.1\r\nHost: h\r\n\r\n")
	packet(5001, 8002, layers.TCP{ACK: true}, exampleRequest)
	packet(5002, 8002, layers.TCP{ACK: true}, exampleRequest)
	packet(8002, 5001, layers.TCP{ACK: true}, exampleAnswer+unmaskedHello)
	packet(8002, 5002, layers.TCP{ACK: true}, exampleAnswer)
	packet(5001, 8002, layers.TCP{ACK: true}, maskedHello)
	return write(t, "capture.pcap", file.String())
}

func TestInspectReadsACapture(t *testing.T) {
	path := captured(t)
	code, stdout, stderr := call("inspect", "--brief", path)
	if code != exitOK || stderr != "wspoll: TCP connections in the capture: 2 WebSocket; not shown: 0 TLS, which cannot be read, and 1 other\n" {
		t.Errorf("exit %d, %q", code, stderr)
	}
	for _, want := range []string{
		"== connection 2: client 127.0.0.1:5001, server 127.0.0.1:8002\n22:13:20.008000 -> GET /chat HTTP/1.1\n",
		"== connection 3: client 127.0.0.1:5002, server 127.0.0.1:8002\n",
		"<- text FIN 5 B \"Hello\"\n", "-> text FIN 5 B \"Hello\"\n",
	} {
		if !strings.Contains(stdout, want) {
			t.Errorf("%q is not in\n%s", want, stdout)
		}
	}
	if _, stdout, _ = call("inspect", "--brief", "--connection", "3", path); strings.Contains(stdout, "Hello") || !strings.Contains(stdout, "connection 3") {
		t.Errorf("--connection 3:\n%s", stdout)
	}
	if _, stdout, stderr = call("inspect", "--brief", "--port", "443", path); stdout != "" || !strings.HasPrefix(stderr, "wspoll: TCP connections in the capture: 0 WebSocket;") {
		t.Errorf("--port 443: %q, %q", stdout, stderr)
	}
	_, stdout, _ = call("inspect", "--json", path)
	if first, _, _ := strings.Cut(stdout, "\n"); !strings.HasPrefix(first, `{"connection":2,"client":"127.0.0.1:5001","server":"127.0.0.1:8002","kind":"line"`) {
		t.Errorf("--json begins with %s", first)
	}
}

func TestInspectSaysWhatIsWrongWithTheCall(t *testing.T) {
	raw := write(t, "raw", maskedHello)
	for _, tt := range []struct {
		args []string
		code int
		want string
	}{
		{nil, exitUsage, "inspect needs a FILE, - for stdin, or hexadecimal digits behind --hex; see wspoll inspect --help"},
		{[]string{"--hex", "--raw", raw}, exitUsage, "--hex and --raw: the input is one or the other"},
		{[]string{"--json", "--brief", raw}, exitUsage, "--json and --brief: choose one"},
		{[]string{"--from", "both", raw}, exitUsage, "--from both: must be client or server"},
		{[]string{raw, "second"}, exitUsage, `"second" is one file too many; both sides of a connection are given with --client and --server`},
		{[]string{"--client", "-", "--server", "-"}, exitUsage, "--client - and --server -: only one of them can be stdin"},
		{[]string{"--port", "70000", raw}, exitUsage, "--port 70000: must be from 0 to 65535"},
		{[]string{"--connection", "-1", raw}, exitUsage, "--connection -1: must be 0 or more"},
		{[]string{"--excerpt", "2GiB", raw}, exitUsage, "--excerpt 2GiB: must be at most 1GiB"},
		{[]string{"--extensions", "permessage-deflate; x", raw}, exitUsage, `--extensions "permessage-deflate; x": must be as a server answers it: permessage-deflate in the answer: the parameter "x" is unknown (RFC 7692 §7.1)`},
		{[]string{"8185", "37fa213d"}, exitUsage, "8185 is no file; hexadecimal digits are taken with --hex"},
		{[]string{os.DevNull}, exitFail, "there are no bytes to explain: the input is empty"},
		{[]string{"--hex", "--client", os.DevNull, "--server", os.DevNull}, exitFail, "there are no bytes to explain: the input is empty"},
		{[]string{"/nowhere/at/all"}, exitFail, "open /nowhere/at/all: no such file or directory"},
		{[]string{"--hex", "zz"}, exitFail, `zz is neither a file nor hexadecimal digits: line 1: "zz" is not hexadecimal digits`},
		{[]string{"--from", "client", captured(t)}, exitFail, "--from is for the bytes of one side, and this is a capture; --raw takes it as bytes"},
		{[]string{write(t, "cut.pcap", "\xd4\xc3\xb2\xa1\x02\x00")}, exitFail, "not a pcap or pcapng file that can be read: unexpected EOF"},
	} {
		code, stdout, stderr := call(append([]string{"inspect"}, tt.args...)...)
		if code != tt.code || stdout != "" || stderr != "wspoll: "+tt.want+"\n" {
			t.Errorf("%q: exit %d, %q, %q, want %d, %q", tt.args, code, stdout, stderr, tt.code, tt.want)
		}
	}
}

func TestAcceptDerivesTheValueOfTheRFCStepByStep(t *testing.T) {
	code, stdout, stderr := call("accept", "dGhlIHNhbXBsZSBub25jZQ==")
	want := `key           dGhlIHNhbXBsZSBub25jZQ==
is base64 of  74 68 65 20 73 61 6d 70 6c 65 20 6e 6f 6e 63 65 (16 random bytes; they are not decoded for what follows)
key + GUID    dGhlIHNhbXBsZSBub25jZQ==258EAFA5-E914-47DA-95CA-C5AB0DC85B11
SHA-1         b3 7a 4f 2c c0 62 4f 16 90 f6 46 06 cf 38 59 45 b2 be c4 ea
base64        s3pPLMBiTxaQ9kYGzzhZRbK+xOo=
`
	if code != exitOK || stdout != want || stderr != "" {
		t.Errorf("exit %d, %q, stdout\n%s", code, stderr, stdout)
	}
	var steps struct{ Accept, SHA1 string }
	if _, stdout, _ = call("accept", "--json", "AQIDBAUGBwgJCgsMDQ4PEC=="); json.Unmarshal([]byte(stdout), &steps) != nil ||
		steps.Accept != string(handshake.AppendAccept(nil, []byte("AQIDBAUGBwgJCgsMDQ4PEC=="))) || len(steps.SHA1) != 40 {
		t.Errorf("--json: %q", stdout)
	}
	for key, want := range map[string]string{
		"c2hvcnQ=":                 "this one decodes to 5 bytes",
		"dGhlIHNhbXBsZSBub25jZ!==": "character 22, '!', is none of base64",
		"":                         "this one decodes to 0 bytes",
	} {
		code, stdout, stderr := call("accept", key)
		if code != exitFail || stdout != "" || !strings.Contains(stderr, want) {
			t.Errorf("%q: exit %d, %q, %q", key, code, stdout, stderr)
		}
		oneLine(t, stderr)
	}
	if code, _, stderr := call("accept"); code != exitUsage || stderr != "wspoll: accept needs a KEY, like dGhlIHNhbXBsZSBub25jZQ==\n" {
		t.Errorf("without a key: exit %d", code)
	}
}
