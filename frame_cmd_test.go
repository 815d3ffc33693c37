package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestFrameBuildsTheExamplesOfTheRFC(t *testing.T) {
	file := filepath.Join(t.TempDir(), "payload")
	if err := os.WriteFile(file, bytes.Repeat([]byte{0xab}, 65536), 0o600); err != nil {
		t.Fatal(err)
	}
	long := strings.Repeat("ab", 256)
	for _, tt := range []struct{ args, want string }{
		{"--text Hello", "81 05 48 65 6c 6c 6f\n"},
		{"--text Hello --mask 37fa213d", "81 85 37 fa 21 3d 7f 9f 4d 51 58\n"},
		{"--text Hello --fragment 3", "01 03 48 65 6c\n80 02 6c 6f\n"},
		{"--ping Hello", "89 05 48 65 6c 6c 6f\n"},
		{"--pong Hello --mask 0x37:fa:21:3d", "8a 85 37 fa 21 3d 7f 9f 4d 51 58\n"},
		{"--binary " + long, "82 7e 01 00 " + spacedHex(long) + "\n"},
		{"--binary @" + file, "82 7f 00 00 00 00 00 01 00 00 " + spacedHex(strings.Repeat("ab", 65536)) + "\n"},
		{"--close 1000 --reason bye", "88 05 03 e8 62 79 65\n"},
		{"--close 0", "88 00\n"},
		{"--close 1005", "88 02 03 ed\n"},
		{"--text Hello --fragment 1,0,2 --rsv1", "41 01 48\n00 00\n00 02 65 6c\n80 02 6c 6f\n"},
		{"--text Hello --fragment 9 --fin=false --rsv2 --rsv3", "31 05 48 65 6c 6c 6f\n"},
		{"--text x --opcode 15", "8f 01 78\n"},
		{"--opcode 9", "89 00\n"},
		{"--text x --length-form 16", "81 7e 00 01 78\n"},
		{"--text x --length-form 64 --mask 00000000", "81 ff 00 00 00 00 00 00 00 01 00 00 00 00 78\n"},
		{"--text x --length-form 7", "81 01 78\n"},
		{"--ping " + strings.Repeat("x", 126), "89 7e 00 7e" + strings.Repeat(" 78", 126) + "\n"},
	} {
		code, stdout, stderr := call(append([]string{"frame"}, strings.Fields(tt.args)...)...)
		if code != exitOK || stdout != tt.want || stderr != "" {
			t.Errorf("%.60s: exit %d, %.200q, %q, want %.200q", tt.args, code, stdout, stderr, tt.want)
		}
	}
	_, stdout, _ := call("frame", "--raw", "--text", "Hello", "--fragment", "3")
	if stdout != "\x01\x03Hel\x80\x02lo" {
		t.Errorf("--raw: %q", stdout)
	}
	_, a, _ := call("frame", "--text", "Hello", "--mask", "random")
	_, b, _ := call("frame", "--text", "Hello", "--mask", "random")
	if len(a) != len("81 85 37 fa 21 3d 7f 9f 4d 51 58\n") || a == b {
		t.Errorf("--mask random: %q and %q", a, b)
	}
}

func spacedHex(digits string) string {
	var b strings.Builder
	for i := 0; i < len(digits); i += 2 {
		if i > 0 {
			b.WriteByte(' ')
		}
		b.WriteString(digits[i : i+2])
	}
	return b.String()
}

func TestFrameExplainsWhatItBuilt(t *testing.T) {
	_, stdout, _ := call("frame", "--ping", "Hello", "--fin=false", "--explain")
	for _, want := range []string{"server frame 0", "|0|0|0|0|1 0 0 1|0|", "VIOLATION RFC 6455 §5.5: fragmented control frame"} {
		if !strings.Contains(stdout, want) {
			t.Errorf("%q is not in\n%s", want, stdout)
		}
	}
	if _, stdout, _ = call("frame", "--text", "Hello", "--mask", "random", "--explain"); !strings.HasPrefix(stdout, "client frame 0") {
		t.Errorf("with a mask:\n%s", stdout)
	}
}

func TestFrameRefusesWhatItCannotBuild(t *testing.T) {
	for args, want := range map[string]string{
		"":                           "frame needs one of --text, --binary, --ping, --pong and --close, or an --opcode; see wspoll frame --help",
		"--text a --ping b":          "--text and --ping: one message at a time",
		"--text a --reason b":        "--reason needs a --close with a code: the reason stands behind it",
		"--close 65536":              "--close 65536: must be from 0 to 65535",
		"--close x":                  "--close x: must be a whole number",
		"--opcode 16":                "--opcode 16: must be from 0 to 15",
		"--text a --mask 37fa21":     "--mask 37fa21: must be 8 hexadecimal digits like 37fa213d, or random",
		"--binary zz":                "--binary zz: must be hexadecimal digits, or @ and the name of a file",
		"--binary @/nowhere/at/all":  "--binary: open /nowhere/at/all: no such file or directory",
		"--text abc --fragment 0":    "--fragment 0: must be at least 1; only one that is not the last may be 0",
		"--text abc --fragment 1,-1": "--fragment -1: must be at least 1; only one that is not the last may be 0",
		"--text a --length-form 8":   "--length-form 8: must be 7, 16 or 64",
		"--text a --raw --explain":   "--raw and --explain: choose one",
		"--length-form 7 --text " + strings.Repeat("x", 126): "--length-form 7: a payload of 126 bytes does not fit, 125 at the most",
		"a": `"a" is not an argument of wspoll frame; see wspoll frame --help`,
	} {
		code, stdout, stderr := call(append([]string{"frame"}, strings.Fields(args)...)...)
		if code != exitUsage || stdout != "" || stderr != "wspoll: "+want+"\n" {
			t.Errorf("%.60s: exit %d, %q, %q, want %q", args, code, stdout, stderr, want)
		}
	}
}

func TestWhatFramePrintsIsReadAsHex(t *testing.T) {
	_, stdout, _ := call("frame", "--text", "Hello", "--fragment", "2", "--mask", "37fa213d")
	code, out, _ := call(append([]string{"inspect", "--brief", "--hex"}, strings.Fields(stdout)...)...)
	want := "-> text 2 B (message 0, frame 0) \"He\"\n-> continuation 2 B (message 0, frame 1) \"ll\"\n" +
		"-> continuation FIN 1 B (message 0, frame 2) \"o\"\n-> message 0: text, in 3 frames, 0 to 2, 5 bytes \"Hello\"\n"
	if code != exitOK || out != want {
		t.Errorf("exit %d\n%s, want\n%s", code, out, want)
	}
}
