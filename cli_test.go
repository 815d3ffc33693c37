package main

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"math/big"
	"net"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"
	"unicode"

	"wspoll/epoll"

	"github.com/spf13/pflag"
)

// call runs the program in this process, for calls that end by themselves.
func call(args ...string) (code int, stdout, stderr string) {
	var out, errs bytes.Buffer
	code = execute(args, &out, &errs)
	return code, out.String(), errs.String()
}

// oneLine fails the test unless s is a single whole line.
func oneLine(t *testing.T, s string) {
	t.Helper()
	if strings.Count(s, "\n") != 1 || !strings.HasSuffix(s, "\n") {
		t.Errorf("want one line, have %q", s)
	}
}

func TestBadValueOfAFlagIsOneLineAndStatus2(t *testing.T) {
	for _, tt := range []struct {
		args []string
		want string // the whole line
	}{
		{[]string{"--loops", "x"}, "--loops x: must be a whole number"},
		{[]string{"--loops", "99999999999999999999"}, "--loops 99999999999999999999: must be a whole number"},
		{[]string{"--loops", "0"}, "--loops 0: must be from 1 to 1024"},
		{[]string{"--loops", "1025"}, "--loops 1025: must be from 1 to 1024"},
		{[]string{"--max-head", "8kb"}, "--max-head 8kb: must be a number of bytes like 4096, 8KiB, 16MiB or 1GiB"},
		{[]string{"--max-head", "127"}, "--max-head 127B: must be from 128B to 64KiB"},
		{[]string{"--max-head", "65KiB"}, "--max-head 65KiB: must be from 128B to 64KiB"},
		{[]string{"--max-message", "-1"}, "--max-message -1: must be a number of bytes like 4096, 8KiB, 16MiB or 1GiB"},
		{[]string{"--max-message", "9999999999GiB"}, "--max-message 9999999999GiB: must be a number of bytes like 4096, 8KiB, 16MiB or 1GiB"},
		{[]string{"--max-pending", ""}, `--max-pending "": must be a number of bytes like 4096, 8KiB, 16MiB or 1GiB`},
		{[]string{"--max-pending", "4095"}, "--max-pending 4095B: must be from 4KiB to 1GiB"},
		{[]string{"--max-pending", "2GiB"}, "--max-pending 2GiB: must be from 4KiB to 1GiB"},
		{[]string{"--max-connections", "many"}, "--max-connections many: must be a whole number"},
		{[]string{"--max-connections", "-1"}, "--max-connections -1: must be 0 or more"},
		{[]string{"--memory-budget", "1.5GiB"}, "--memory-budget 1.5GiB: must be a number of bytes like 4096, 8KiB, 16MiB or 1GiB"},
		{[]string{"--handshake-timeout", "5"}, "--handshake-timeout 5: must be a time like 500ms, 5s, 2m or 1h30m"},
		{[]string{"--handshake-timeout", "0"}, "--handshake-timeout 0s: must be from " + epoll.Tick.String() + " to a year"},
		{[]string{"--idle-timeout", "-2m"}, "--idle-timeout -2m0s: must be from 0s to a year"},
		{[]string{"--idle-timeout", "soon"}, "--idle-timeout soon: must be a time like 500ms, 5s, 2m or 1h30m"},
		{[]string{"--close-timeout", "1ms"}, "--close-timeout 1ms: must be from " + epoll.Tick.String() + " to a year"},
		{[]string{"--write-timeout", "9000h"}, "--write-timeout 9000h0m0s: must be from " + epoll.Tick.String() + " to a year"},
		{[]string{"--drain", "-1s"}, "--drain -1s: must be from 0s to a year"},
		{[]string{"--listen", "8002"}, "--listen 8002: must be host:port, like 127.0.0.1:8002, :8002 or [::1]:0"},
		{[]string{"--listen", "127.0.0.1:"}, "--listen 127.0.0.1:: must be host:port, like 127.0.0.1:8002, :8002 or [::1]:0"},
		{[]string{"--listen", "127.0.0.1:65536"}, "--listen 127.0.0.1:65536: must be host:port, like 127.0.0.1:8002, :8002 or [::1]:0"},
		{[]string{"--listen", ""}, `--listen "": must be host:port, like 127.0.0.1:8002, :8002 or [::1]:0`},
		{[]string{"--listen", "127.0.0.1:0,nonsense"}, "--listen nonsense: must be host:port, like 127.0.0.1:8002, :8002 or [::1]:0"},
		{[]string{"--subprotocol", "two words"}, `--subprotocol "two words": must be a token of RFC 9110, like chat or v2.example.org`},
		{[]string{"--subprotocol", "a,a"}, `--subprotocol: subprotocol "a" is there twice`},
		{[]string{"--subprotocol", strings.Repeat("a,", 250) + "a"}, "--subprotocol: 251 are too many; 250 at the most"},
		{[]string{"--origin", "example.com"}, `--origin example.com: must be like https://example.com, https://*.example.com or http://localhost:3000, without a path; or "*"`},
		{[]string{"--origin", "https://example.com/"}, `--origin https://example.com/: must be like https://example.com, https://*.example.com or http://localhost:3000, without a path; or "*"`},
		{[]string{"--log-level", "loud"}, "--log-level loud: must be debug, info, warn or error"},
		{[]string{"--log-level", "a\nb"}, `--log-level "a\nb": must be debug, info, warn or error`},
		{[]string{"--log-format", "xml"}, "--log-format xml: must be text or json"},
		{[]string{"--compress", "yes"}, "--compress yes: must be shared, context or off"},
		{[]string{"--compress", ""}, `--compress "": must be shared, context or off`},
		{[]string{"--compress-min", "2GiB"}, "--compress-min 2GiB: must be at most 1GiB"},
		{[]string{"--compress-min", "-1"}, "--compress-min -1: must be a number of bytes like 4096, 8KiB, 16MiB or 1GiB"},
		{[]string{"--push-every", "1ms"}, "--push-every 1ms: must be from " + epoll.Tick.String() + " to a day"},
		{[]string{"--push-message", "\xff"}, `--push-message "\xff": must be text in UTF-8, and not empty`},
		{[]string{"--push-align=perhaps"}, "--push-align perhaps: must be true or false"},
		{[]string{"--topic-open", "["}, "--topic-open [: must be a pattern of topics, like news or chat.*"},
		{[]string{"--topic-retain", "["}, "--topic-retain [: must be a pattern of topics, like news or chat.*"},
		{[]string{"--topic-replay", "-1"}, "--topic-replay -1: must be 0 or more"},
		{[]string{"--topic-policy", "news=never"}, "--topic-policy news=never: must be like PATTERN=close, PATTERN=drop-oldest or PATTERN=latest"},
		{[]string{"--topic-pending", "1KiB"}, "--topic-pending 1KiB: must be from 4KiB to 1GiB"},
		{[]string{"--topic-max", "0"}, "--topic-max 0: must be 1 or more"},
		{[]string{"--nats", "nats://somebody:secret@"}, "--nats: must be like nats://host:4222, or several of them separated by commas"},
		{[]string{"--nats-subject", "a b"}, `--nats-subject "a b": must be letters, digits, - and _, in parts joined by dots, like wspoll.topics`},
		{[]string{"--nats-creds", "file"}, "--nats-creds: without --nats there is nobody to show them to"},
		{[]string{"--publish-rate", "-1"}, "--publish-rate -1: must be from 0 to 1e9"},
		{[]string{"--publish-token-file"}, "flag needs an argument: --publish-token-file; see wspoll --help"},
		{[]string{"--proxy-listen", "8082"}, "--proxy-listen 8082: must be host:port, like 127.0.0.1:8002, :8002 or [::1]:0"},
		{[]string{"--tls-listen", "8443"}, "--tls-listen 8443: must be host:port, like 127.0.0.1:8002, :8002 or [::1]:0"},
		{[]string{"--tls-cert", "a", "--tls-key", "b"}, "a certificate is of no use without an address for it: --tls-listen"},
		{[]string{"--tls-key", "b", "--tls-listen", "127.0.0.1:0"}, "--tls-cert and --tls-key belong together"},
		{[]string{"--bare-echo", "--metrics-listen", "127.0.0.1:0"}, "--bare-echo and --bare-push are plain TCP and nothing else: no --tls-listen, no --metrics-listen"},
		{[]string{"--tls-self-signed=perhaps"}, "--tls-self-signed perhaps: must be true or false"},
		{[]string{"--metrics-listen", "9102"}, "--metrics-listen 9102: must be host:port, like 127.0.0.1:8002, :8002 or [::1]:0"},
		{[]string{"--trace=perhaps"}, "--trace perhaps: must be true or false"},
		{[]string{"--trace-path", "["}, "--trace-path [: must be a pattern of paths, like /wshandler or /topics/*"},
		{[]string{"--trace-path", ""}, `--trace-path "": must be a pattern of paths, like /wshandler or /topics/*`},
		{[]string{"--trace-format", "loud"}, "--trace-format loud: must be full, brief or json"},
		{[]string{"--no-page=perhaps"}, "--no-page perhaps: must be true or false"},
		{[]string{"--bare-echo=perhaps"}, "--bare-echo perhaps: must be true or false"},
		{[]string{"--bare-push=perhaps"}, "--bare-push perhaps: must be true or false"},
		{[]string{"--pidfile"}, "flag needs an argument: --pidfile; see wspoll --help"},
		{[]string{"--lisen", ":0"}, "unknown flag: --lisen; see wspoll --help"},
		{[]string{"-x"}, "unknown shorthand flag: 'x' in -x; see wspoll --help"},
		{[]string{"sevre"}, `"sevre" is not a command; see wspoll --help`},
		{[]string{"serve", "now"}, `"now" is not an argument of wspoll serve; see wspoll serve --help`},
	} {
		t.Run(strings.Join(tt.args, " "), func(t *testing.T) {
			variants := [][]string{tt.args}
			if strings.HasPrefix(tt.args[0], "-") {
				variants = append(variants, append([]string{"serve"}, tt.args...))
			}
			for _, args := range variants {
				code, stdout, stderr := call(args...)
				if code != exitUsage || stdout != "" || stderr != "wspoll: "+tt.want+"\n" {
					t.Errorf("%q: exit %d, stdout %q, stderr\n%s want\nwspoll: %s", args, code, stdout, stderr, tt.want)
				}
				oneLine(t, stderr)
			}
		})
	}
	t.Run("every flag that has a wrong value is in the table", func(t *testing.T) {
		source, err := os.ReadFile("cli_test.go")
		if err != nil {
			t.Fatal(err)
		}
		serveCommand().Flags().VisitAll(func(f *pflag.Flag) {
			if !bytes.Contains(source, []byte(`{[]string{"--`+f.Name)) {
				t.Errorf("--%s is not", f.Name)
			}
		})
	})
}

func TestBadValueFromTheEnvironmentNamesTheVariable(t *testing.T) {
	for _, tt := range []struct{ name, value, want string }{
		{"WSPOLL_LOOPS", "x", "WSPOLL_LOOPS=x: must be a whole number"},
		{"WSPOLL_LOOPS", "0", "WSPOLL_LOOPS=0: must be from 1 to 1024"},
		{"WSPOLL_MAX_MESSAGE", "", `WSPOLL_MAX_MESSAGE="": must be a number of bytes like 4096, 8KiB, 16MiB or 1GiB`},
		{"WSPOLL_IDLE_TIMEOUT", "5", "WSPOLL_IDLE_TIMEOUT=5: must be a time like 500ms, 5s, 2m or 1h30m"},
		{"WSPOLL_LISTEN", "nowhere", "WSPOLL_LISTEN=nowhere: must be host:port, like 127.0.0.1:8002, :8002 or [::1]:0"},
		{"WSPOLL_METRICS_LISTEN", "9102", "WSPOLL_METRICS_LISTEN=9102: must be host:port, like 127.0.0.1:8002, :8002 or [::1]:0"},
		{"WSPOLL_LOG_FORMAT", "xml", "WSPOLL_LOG_FORMAT=xml: must be text or json"},
		{"WSPOLL_BARE_ECHO", "perhaps", "WSPOLL_BARE_ECHO=perhaps: must be true or false"},
	} {
		t.Run(tt.name+"="+tt.value, func(t *testing.T) {
			t.Setenv(tt.name, tt.value)
			for _, args := range [][]string{{}, {"serve"}} { // without any cobra would take those of the test
				code, stdout, stderr := call(args...)
				if code != exitUsage || stdout != "" || stderr != "wspoll: "+tt.want+"\n" {
					t.Errorf("%q: exit %d, stdout %q, stderr\n%s want\nwspoll: %s", args, code, stdout, stderr, tt.want)
				}
			}
		})
	}
	t.Run("a flag that is given wins and the variable is not looked at", func(t *testing.T) {
		t.Setenv("WSPOLL_LOOPS", "x")
		_, _, stderr := call("--loops", "0")
		if want := "wspoll: --loops 0: must be from 1 to 1024\n"; stderr != want {
			t.Errorf("stderr %q, want %q", stderr, want)
		}
	})
}

func TestHelpListsEveryFlagAndCommand(t *testing.T) {
	for _, args := range [][]string{{"--help"}, {"serve", "--help"}, {"help", "serve"}} {
		code, stdout, stderr := call(args...)
		if code != exitOK || stderr != "" {
			t.Errorf("%q: exit %d, stderr %q", args, code, stderr)
		}
		serveCommand().Flags().VisitAll(func(f *pflag.Flag) {
			if !strings.Contains(stdout, "--"+f.Name+" ") {
				t.Errorf("%q does not list --%s", args, f.Name)
			}
			if f.Usage == "" {
				t.Errorf("--%s says nothing about itself", f.Name)
			}
		})
		if !strings.Contains(stdout, "WSPOLL_") {
			t.Errorf("%q does not tell of the environment", args)
		}
	}
	_, stdout, _ := call("--help")
	for _, c := range commands() {
		if !regexp.MustCompile(`(?m)^  ` + c.Name() + ` `).MatchString(stdout) {
			t.Errorf("--help does not list the command %s", c.Name())
		}
	}
}

func TestCompletionIsAScriptOnStdout(t *testing.T) {
	for shell, want := range map[string]string{"bash": "__start_wspoll", "zsh": "#compdef wspoll", "fish": "complete -c wspoll"} {
		code, stdout, stderr := call("completion", shell)
		if code != exitOK || stderr != "" || !strings.Contains(stdout, want) {
			t.Errorf("%s: exit %d, stderr %q, %d bytes, want %q in them", shell, code, stderr, len(stdout), want)
		}
	}
	if _, stdout, _ := call("__complete", "--max-"); !strings.Contains(stdout, "--max-message") {
		t.Errorf("--max- is completed by %q", stdout)
	}
}

func TestByteSizeIsReadAndPrinted(t *testing.T) {
	for _, tt := range []struct {
		in    string
		value int64
		out   string
	}{
		{"0", 0, "0"},
		{"0MiB", 0, "0"},
		{"1", 1, "1B"},
		{"7B", 7, "7B"},
		{"1023", 1023, "1023B"},
		{"1024", 1024, "1KiB"},
		{"8KiB", 8192, "8KiB"},
		{"1536KiB", 1536 << 10, "1536KiB"},
		{"16MiB", 16 << 20, "16MiB"},
		{"1024MiB", 1 << 30, "1GiB"},
		{"1GiB", 1 << 30, "1GiB"},
		{"4611686018427387904", 1 << 62, "4294967296GiB"},
		{"4294967296GiB", 1 << 62, "4294967296GiB"},
	} {
		var b byteSize
		if err := b.Set(tt.in); err != nil || int64(b) != tt.value {
			t.Errorf("%q is read as %d, %v; want %d", tt.in, int64(b), err, tt.value)
		}
		if b.String() != tt.out {
			t.Errorf("%d is printed as %q, want %q", tt.value, &b, tt.out)
		}
		var again byteSize
		if err := again.Set(b.String()); err != nil || again != b {
			t.Errorf("%q is read back as %d, %v", &b, int64(again), err)
		}
	}
	for _, in := range []string{"", "KiB", "-1", "1.5MiB", "1 MiB", " 1", "8kb", "8K", "0x10", "1e3", "1_000", "4294967297GiB", "4611686018427387905", "9223372036854775808"} {
		b := byteSize(42)
		if err := b.Set(in); err == nil {
			t.Errorf("%q is read as %d, want an error", in, int64(b))
		}
		if b != 42 {
			t.Errorf("%q changed the value to %d", in, int64(b))
		}
	}
}

// TestReadmeNamesTheFirstCommandsAndEveryFlag holds the README to the two commands that everything begins
// with, and to every flag.
func TestReadmeNamesTheFirstCommandsAndEveryFlag(t *testing.T) {
	readme, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	first, second := bytes.Index(readme, []byte("go run .")), bytes.Index(readme, []byte("go test ./..."))
	if first < 0 || second < first {
		t.Errorf("README.md must name `go run .` and then `go test ./...`; they are at %d and %d", first, second)
	}
	serveCommand().Flags().VisitAll(func(f *pflag.Flag) {
		if !regexp.MustCompile("--" + f.Name + `\b`).Match(readme) {
			t.Errorf("README.md does not tell of --%s", f.Name)
		}
	})
}

func TestAnErrorWithWordsOfAnotherDoesNotSteerTheTerminal(t *testing.T) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	// crypto/x509 puts the names of a certificate into its error as they are.
	cert := &x509.Certificate{
		SerialNumber: big.NewInt(1), NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		DNSNames: []string{"a\x1b]0;title\x07\x1b[2Jb.example"},
	}
	der, err := x509.CreateCertificate(rand.Reader, cert, cert, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	l, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			c.(*tls.Conn).Handshake()
			c.Close()
		}
	}()
	_, port, _ := net.SplitHostPort(l.Addr().String())
	for _, args := range [][]string{
		{"connect", "wss://localhost:" + port + "/"},
		{"bench", "connect", "-c", "1", "-d", "1s", "-q", "wss://localhost:" + port + "/"},
		{"topics", "--server", "https://localhost:" + port},
	} {
		code, _, stderr := call(args...)
		if oneLine(t, stderr); code == 0 || !strings.Contains(stderr, `a\x1b]0;title\a\x1b[2Jb.example`) ||
			strings.ContainsFunc(strings.TrimSuffix(stderr, "\n"), unicode.IsControl) {
			t.Errorf("%q: exit %d, %q", args, code, stderr)
		}
	}
}
