package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"wspoll/bench"
	"wspoll/server"

	"github.com/gobwas/ws"
	"golang.org/x/sys/unix"
)

// echoing is our server in this process, and the URL of its echo.
func echoing(t *testing.T) (*server.Server, string) {
	t.Helper()
	srv, err := server.New(server.Config{})
	if err != nil {
		t.Fatal(err)
	}
	if err := srv.Handle("/echo", server.Echo()); err != nil {
		t.Fatal(err)
	}
	addr, err := srv.Listen("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	srv.Start()
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		srv.Shutdown(ctx)
	})
	return srv, "ws://" + addr.String() + "/echo"
}

// benchRun runs wspoll bench in this process.
func benchRun(args ...string) (code int, stdout, stderr string) {
	var out, talk bytes.Buffer
	code = execute(append([]string{"bench"}, args...), &out, &talk)
	return code, out.String(), talk.String()
}

func TestBenchAnswersBadInputWithOneLineAndExit2(t *testing.T) {
	_, url := echoing(t)
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	refused := "ws://" + ln.Addr().String()
	ln.Close()
	web := httptest.NewServer(http.NotFoundHandler())
	defer web.Close()
	secure := httptest.NewUnstartedServer(http.NotFoundHandler())
	secure.Config.ErrorLog = log.New(io.Discard, "", 0)
	secure.StartTLS()
	defer secure.Close()
	mute, err := net.Listen("tcp", "127.0.0.1:0") // accepts in the kernel and never answers
	if err != nil {
		t.Fatal(err)
	}
	defer mute.Close()
	for _, test := range []struct{ args, want string }{
		{"nothing", `"nothing" is not a scenario`},
		{"echo", "arg"},
		{"echo ws://no-such-host.invalid./", `the host "no-such-host.invalid." cannot be found`},
		{"echo http://127.0.0.1:80/", "the scheme of a WebSocket is ws or wss, not http"},
		{"echo 127.0.0.1:80", "is not a URL like"},
		{"echo --rate -1 " + url, "--rate -1: must be from 0"},
		{"echo --rate NaN " + url, "--rate NaN: must be from 0"},
		{"echo --rate 1e9 " + url, "--rate 1e+09: must be from 0"},
		{"echo --rate x " + url, "--rate x: must be"},
		{"echo --ramp -1 " + url, "--ramp -1"},
		{"echo --size x " + url, `--size: "x" is not a number of bytes`},
		{"echo --size 9-3 " + url, "--size 9-3: a range goes from the smaller to the larger"},
		{"echo --size 2GiB " + url, "--size 2GiB"},
		{"echo --header x " + url, `--header "x": must be like "Name: value"`},
		{"echo --header a:b\r\nc:d " + url, `--header`},
		{"echo --origin a\r\nc:d " + url, `--origin`},
		{"echo --local-addr foo " + url, `--local-addr: "foo" is not an IP address`},
		{"echo --local-addr 127.0.0.9-127.0.0.1 " + url, `--local-addr: "127.0.0.9-127.0.0.1" is not a range`},
		{"echo --local-addr 192.0.2.1 " + url, "--local-addr"},
		{"echo --server-pid 999999999 " + url, "--server-pid 999999999: there is no such process"},
		{"echo --server-pid -3 " + url, "--server-pid -3: there is no such process"},
		{"echo --threshold foo " + url, `threshold`},
		{"echo --payload /does/not/exist " + url, "--payload"},
		{"echo --depth 0 " + url, "--depth 0"},
		{"echo --connections 0 " + url, "--connections 0"},
		{"echo --duration 0 " + url, "more than 0"},
		{"echo --duration -1s " + url, "more than 0"},
		{"echo --timeout 1ms " + url, "--timeout 1ms"},
		{"idle --ping 1ms " + url, "--ping 1ms"},
		{"echo --processes 0 " + url, "--processes 0"},
		{"echo --processes 9 -c 5 " + url, "more than the 5 connections"},
		{"echo --processes 3 -n 2 " + url, "--messages 2"},
		{"push --stalled 5 --processes 3 -c 6 " + url, "--stalled 5: must leave each of the 3 processes"},
		{"push --publish --payload bench_cmd_test.go " + url, "begins with its stamp"},
		{"push --publish --size 16-32 " + url, "--size 16-32"},
		{"echo --local-addr 127.0.0.1,192.0.2.77 " + url, "--local-addr 192.0.2.77: this machine has no such address"},
		{"echo --size 0 " + strings.Replace(strings.TrimSuffix(url, "/echo"), "ws", "tcp", 1), "at least 1"},
		{"echo " + refused, "refused"},
		{"connect " + refused, "refused"},
		{"echo --processes 2 " + refused, "refused"},
		{"echo " + strings.Replace(web.URL, "http", "ws", 1), "upgrade refused, status 404"},
		{"connect " + strings.Replace(web.URL, "http", "ws", 1), "upgrade refused, status 404"},
		{"idle " + strings.Replace(secure.URL, "https", "wss", 1), "certificate"},
		{"echo --timeout 100ms ws://" + mute.Addr().String(), "timed out, upgrade"},
		{"diff a.json", "arg"},
		{"diff /does/not/exist.json b.json", "/does/not/exist.json"},
	} {
		t.Run(test.args, func(t *testing.T) {
			t.Setenv(asProgram, "1") // for --processes
			code, stdout, stderr := benchRun(strings.Split(test.args, " ")...)
			if strings.Contains(test.args, "--processes 2") {
				_, stderr, _ = strings.Cut(stderr, "\n") // after what it does
			}
			if code != exitUsage || stdout != "" || !strings.Contains(stderr, test.want) || strings.Count(stderr, "\n") != 1 || !strings.HasPrefix(stderr, "wspoll: ") {
				t.Errorf("exit %d\nstdout %q\nstderr %q, want %q", code, stdout, stderr, test.want)
			}
		})
	}
}

func TestBenchSaysTheSameInEveryFormat(t *testing.T) {
	srv, url := echoing(t)
	dir := t.TempDir()
	file := func(name string) string { return filepath.Join(dir, name) }
	args := []string{"echo", url, "-c", "3", "-n", "500", "--hdr", file("a.hgrm"), "--html", file("a.html"), "--threshold", "errors==0"}
	code, stdout, stderr := benchRun(append(args, "--json", "-", "-q")...)
	var res bench.Result
	if err := json.Unmarshal([]byte(stdout), &res); code != exitOK || err != nil || stderr != "" || res.Messages != 500 {
		t.Fatalf("exit %d, %v\n%s\n%s", code, err, stdout, stderr)
	}
	for name, part := range map[string]string{"a.hgrm": "Percentile", "a.html": "<svg"} {
		b, err := os.ReadFile(file(name))
		if err != nil || !bytes.Contains(b, []byte(part)) {
			t.Errorf("%s: %v, %d bytes without %q", name, err, len(b), part)
		}
	}
	code, stdout, _ = benchRun(append(args, "--json", file("b.json"))...)
	if code != exitOK || !strings.Contains(stdout, "500 messages") || !strings.Contains(stdout, "no errors") {
		t.Errorf("exit %d\n%s", code, stdout)
	}
	if r, err := bench.ReadResult(file("b.json")); err != nil || r.Messages != 500 {
		t.Errorf("%v", err)
	}
	if n := srv.Stats().MessagesIn; n != 1000 {
		t.Errorf("the server has %d messages", n)
	}
	code, stdout, stderr = benchRun("diff", file("b.json"), file("b.json"))
	if code != exitOK || stdout == "" || stderr != "" {
		t.Errorf("diff: exit %d\n%s\n%s", code, stdout, stderr)
	}
	if code, _, stderr := benchRun("diff", file("b.json"), file("a.html")); code != exitUsage || !strings.Contains(stderr, "not a result") {
		t.Errorf("exit %d, %s", code, stderr)
	}
	before := srv.Stats().Upgraded
	for path, want := range map[string]string{file("no/such/dir.json"): "no such file", t.TempDir(): "is a directory"} {
		if code, _, stderr := benchRun("echo", url, "-n", "5", "--json", path); code != exitFail || !strings.Contains(stderr, want) {
			t.Errorf("exit %d, %s", code, stderr)
		}
	}
	if n := srv.Stats().Upgraded - before; n != 0 {
		t.Errorf("%d connections were opened for a result that cannot be written", n)
	}
	// What cannot be written when the time is over does not take the rest with it.
	if code, stdout, stderr := benchRun("echo", url, "-n", "5", "--json", "/dev/full", "--threshold", "errors==0"); code != exitFail || !strings.Contains(stdout, "5 messages") || !strings.Contains(stderr, "no space left") {
		t.Errorf("exit %d\n%s\n%s", code, stdout, stderr)
	}
}

func TestAMissedThresholdIsExit1AndTheSummaryComesAllTheSame(t *testing.T) {
	_, url := echoing(t)
	code, stdout, stderr := benchRun("echo", url, "-n", "50", "--threshold", "errors==0", "--threshold", "p99<1us", "--threshold", "messages>1000")
	if code != exitFail || !strings.Contains(stdout, "50 messages") || !strings.Contains(stderr, "threshold missed: p99 = ") || !strings.Contains(stderr, "messages = 50") || strings.Contains(stderr, "errors") && strings.Contains(stderr, "errors =") {
		t.Errorf("exit %d\n%s\n%s", code, stdout, stderr)
	}
}

func TestProgressGoesToStderrOnly(t *testing.T) {
	_, url := echoing(t)
	code, stdout, stderr := benchRun("echo", url, "-d", "1100ms", "-c", "2", "--rate", "100", "--json", "-")
	if code != exitOK || !json.Valid([]byte(stdout)) || !strings.Contains(stderr, "2 open") || strings.Contains(stderr, "\x1b") {
		t.Errorf("exit %d\n%s\n%s", code, stdout, stderr)
	}
}

func TestHeadersOriginAndSubprotocolReachTheServer(t *testing.T) {
	got := make(chan http.Header, 1)
	web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		got <- r.Header
		w.WriteHeader(http.StatusTeapot)
	}))
	defer web.Close()
	code, _, stderr := benchRun("echo", strings.Replace(web.URL, "http", "ws", 1), "-c", "1", "-H", "X-A: one, two", "-H", "Authorization: Bearer x", "--origin", "https://example.com", "--subprotocol", "a,b")
	if code != exitUsage || !strings.Contains(stderr, "status 418") {
		t.Errorf("exit %d, %s", code, stderr)
	}
	h := <-got
	if h.Get("X-A") != "one, two" || h.Get("Authorization") != "Bearer x" || h.Get("Origin") != "https://example.com" || h.Get("Sec-WebSocket-Protocol") != "a, b" {
		t.Errorf("%v", h)
	}
}

func TestProcessesShareTheLoadAndTheirSumIsTheServers(t *testing.T) {
	srv, url := echoing(t)
	for _, args := range [][]string{
		{"-n", "1000", "--size", "16-100"},
		{"-d", "500ms", "--rate", "600"},
	} {
		before := srv.Stats()
		p := start(t, append([]string{"bench", "echo", url, "-c", "10", "--processes", "3", "--json", "-"}, args...)...)
		lines := p.stdout.all()
		var res bench.Result
		err := json.Unmarshal([]byte(strings.Join(lines, "\n")), &res)
		if code := p.wait(); code != exitOK || err != nil {
			t.Fatalf("exit %d, %v, %v", code, err, p.stderr.all())
		}
		st := srv.Stats()
		if n := st.MessagesIn - before.MessagesIn; res.Sent != n || res.Sent-res.Messages != res.InFlight || res.InFlight > 10 || uint64(res.Message.Count()) != res.Messages {
			t.Errorf("%d sent, %d back; the server has %d", res.Sent, res.Messages, n)
		}
		if n := st.BytesIn - before.BytesIn; res.BytesSent != n {
			t.Errorf("%d bytes, the server has %d", res.BytesSent, n)
		}
		if n := st.Upgraded - before.Upgraded; res.Opened != 10 || n != 10 || res.Processes != 3 || res.Connections != 10 || len(res.Errors) > 0 {
			t.Errorf("%+v", res)
		}
		if args[0] == "-n" && res.Messages != 1000 || args[0] == "-d" && (res.Rate != 600 || res.Messages < 200) {
			t.Errorf("%d messages, rate %g", res.Messages, res.Rate)
		}
		if !strings.Contains(strings.Join(p.stderr.all(), " "), "3 processes with 10 connections") {
			t.Error("nothing is said about the processes")
		}
	}
}

func TestAProcessThatFailsIsNoted(t *testing.T) {
	srv, err := server.New(server.Config{})
	if err != nil {
		t.Fatal(err)
	}
	srv.Handle("/", server.Echo())
	srv.Start()
	defer srv.Shutdown(t.Context())
	var mu sync.Mutex
	unwanted := ""
	web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		if unwanted == "" {
			unwanted = r.Header.Get("Sec-WebSocket-Key") // each process has its own
		}
		bad := unwanted == r.Header.Get("Sec-WebSocket-Key")
		mu.Unlock()
		if bad {
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		srv.Upgrade(w, r)
	}))
	defer web.Close()
	p := start(t, "bench", "echo", strings.Replace(web.URL, "http", "ws", 1), "-c", "6", "--processes", "3", "-n", "90", "--json", "-", "--threshold", "errors==0")
	var res bench.Result
	err = json.Unmarshal([]byte(strings.Join(p.stdout.all(), "\n")), &res)
	if code := p.wait(); code != exitFail || err != nil || res.Messages != 60 || res.Opened != 4 || res.Connections != 6 || srv.Stats().MessagesIn != 60 {
		t.Errorf("exit %d, %v, %+v", code, err, res)
	}
	if notes := strings.Join(res.Notes, "\n"); !strings.Contains(notes, "a process of the client failed: no connection could be opened: upgrade refused, status 503") {
		t.Errorf("%q", notes)
	}
	if talk := strings.Join(p.stderr.all(), "\n"); !strings.Contains(talk, "threshold missed: errors = 2, wanted == 0") {
		t.Errorf("its connections are no errors: %s", talk)
	}
}

func TestProcessesShareThoseThatReadNothing(t *testing.T) {
	_, url := echoing(t)
	p := start(t, "bench", "push", url, "-c", "20", "--stalled", "8", "--processes", "4", "-d", "200ms", "--json", "-")
	var res bench.Result
	err := json.Unmarshal([]byte(strings.Join(p.stdout.all(), "\n")), &res)
	if code := p.wait(); code != exitOK || err != nil || res.Stalled != 8 || res.Opened != 12 || res.Connections != 20 {
		t.Errorf("exit %d, %v, %+v", code, err, res)
	}
}

func TestProgressFitsIntoARowOfTheTerminal(t *testing.T) {
	_, url := echoing(t)
	p := newPty(t)
	unix.IoctlSetWinsize(int(p.tty.Fd()), unix.TIOCSWINSZ, &unix.Winsize{Row: 24, Col: 40})
	out, err := os.Create(filepath.Join(t.TempDir(), "out"))
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	cmd := p.start(out, "bench", "echo", url, "-c", "2", "-d", "1500ms", "--rate", "100")
	p.sees("open")
	p.ends(cmd, exitOK)
	for row := range strings.SplitSeq(string(p.seen), "\r") {
		if row = strings.TrimPrefix(strings.TrimSpace(row), "\x1b[K"); len(row) >= 40 {
			t.Errorf("%d columns of 40: %q", len(row), row)
		}
	}
}

func TestCtrlCEndsAllProcessesWithAResult(t *testing.T) {
	for _, processes := range []string{"1", "3"} {
		opened := make(chan struct{}, 100)
		srv, err := server.New(server.Config{})
		if err != nil {
			t.Fatal(err)
		}
		n := 0
		srv.Handle("/echo", &server.Endpoint{Message: func(c server.Conn, op ws.OpCode, p []byte) {
			if n++; n == 500 {
				opened <- struct{}{}
			}
			c.Send(op, p)
		}})
		addr, err := srv.Listen("127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		srv.Start()
		p := start(t, "bench", "echo", "ws://"+addr.String()+"/echo", "-c", "6", "-d", "1h", "--rate", "1000", "--processes", processes, "-q")
		<-opened
		p.signal(os.Interrupt)
		out := strings.Join(p.stdout.all(), "\n")
		if code := p.wait(); code != exitOK || !strings.Contains(out, "interrupted early") || !strings.Contains(out, "6 opened of 6") {
			t.Errorf("exit %d\n%s\n%v", code, out, p.stderr.all())
		}
		srv.Shutdown(t.Context())
	}
}

func TestTooFewDescriptorsNameTheCure(t *testing.T) {
	_, url := echoing(t)
	p := startCmd(t, exec.Command("sh", "-c", `ulimit -n 60 && exec "$0" "$@"`, os.Args[0], "bench", "idle", url, "-c", "100", "--hold", "10ms", "--json", "-"))
	var res bench.Result
	err := json.Unmarshal([]byte(strings.Join(p.stdout.all(), "\n")), &res)
	if code := p.wait(); code != exitOK || err != nil {
		t.Fatalf("exit %d, %v, %v", code, err, p.stderr.all())
	}
	if res.Opened < 30 || res.Opened > 60 || len(res.Errors) != 1 || res.Errors[0].Count != 100-res.Opened || res.Errors[0].Kind != bench.KindDescriptors || !strings.Contains(res.Errors[0].Detail, "ulimit -n") {
		t.Errorf("%d opened, %+v", res.Opened, res.Errors)
	}
}

func TestAThousandPortsAreEnoughForFiveThousandConnections(t *testing.T) {
	if os.Getuid() != 0 {
		lacking(t, "making a network namespace needs root")
	}
	ns := fmt.Sprintf("wspoll-test-%d", os.Getpid())
	if out, err := exec.Command("ip", "netns", "add", ns).CombinedOutput(); err != nil {
		lacking(t, "no network namespace can be made here: %v, %s", err, out)
	}
	defer exec.Command("ip", "netns", "del", ns).Run()
	inside := func(args ...string) *exec.Cmd {
		return exec.Command("ip", append([]string{"netns", "exec", ns}, args...)...)
	}
	for _, cmd := range []string{"ip link set lo up", "echo 20000 20999 >/proc/sys/net/ipv4/ip_local_port_range"} {
		if out, err := inside("sh", "-c", cmd).CombinedOutput(); err != nil {
			lacking(t, "%s: %v, %s", cmd, err, out)
		}
	}
	serve := startCmd(t, inside(os.Args[0], "serve", "--listen", "127.0.0.1:8002"))
	url := serve.url()
	p := startCmd(t, inside(os.Args[0], "bench", "idle", url, "-c", "5000", "--hold", "50ms", "--json", "-"))
	var res bench.Result
	err := json.Unmarshal([]byte(strings.Join(p.stdout.all(), "\n")), &res)
	if code := p.wait(); code != exitOK || err != nil || res.Opened != 5000 || res.Messages != 5000 || len(res.Errors) > 0 {
		t.Errorf("exit %d, %v, %d opened, %d messages, %+v, %v", code, err, res.Opened, res.Messages, res.Errors, p.stderr.all())
	}
	// And when the source addresses are given, that they are too few is said, with the cure.
	p = startCmd(t, inside(os.Args[0], "bench", "idle", url, "-c", "2100", "--local-addr", "127.0.1.1-127.0.1.2", "--hold", "50ms", "--json", "-"))
	res = bench.Result{}
	err = json.Unmarshal([]byte(strings.Join(p.stdout.all(), "\n")), &res)
	if code := p.wait(); code != exitOK || err != nil || res.Opened != 2000 || len(res.Errors) != 1 || res.Errors[0].Kind != bench.KindPorts || !strings.Contains(res.Errors[0].Detail, "--local-addr") {
		t.Errorf("exit %d, %v, %d opened, %+v", code, err, res.Opened, res.Errors)
	}
	serve.stop()
}

func TestAnIdleConnectionCostsTheClientAtMost500Bytes(t *testing.T) {
	if raced {
		t.Skip("the race detector's own memory would be measured")
	}
	p, url := serving(t, "serve")
	const n = 9_000 // and the server as many, in 20,000 descriptors
	b := start(t, "bench", "idle", url, "-c", fmt.Sprint(n), "--hold", "100ms", "--server-pid", fmt.Sprint(p.cmd.Process.Pid), "--json", "-")
	var res bench.Result
	err := json.Unmarshal([]byte(strings.Join(b.stdout.all(), "\n")), &res)
	if code := b.wait(); code != exitOK || err != nil || res.Opened != n || len(res.Errors) > 0 || res.Server == nil {
		t.Fatalf("exit %d, %v, %d opened, %+v, %v", code, err, res.Opened, res.Errors, b.stderr.all())
	}
	t.Logf("client %.0f bytes, server %.0f bytes", res.Client.PerConn, res.Server.PerConn)
	if res.Client.PerConn > 500 || res.Client.PerConn <= 0 || res.Server.PerConn <= 0 || res.Server.PID != p.cmd.Process.Pid || res.Server.Descriptors < n {
		t.Errorf("%+v, %+v", res.Client, *res.Server)
	}
	p.stop()
}

func TestAReportDoesNotGiveCredentialsAway(t *testing.T) {
	args := []string{
		"bench", "echo", "-H", "Authorization: Bearer s3cret", "-HCookie: a=s3cret", "--header=Proxy-Authorization:s3cret", "-H=cookie: s3cret",
		"-H", "X-A: Authorization: b", "ws://h/authorization:x", "-H",
	}
	want := []string{
		"wspoll", "bench", "echo", "-H", "Authorization: (not shown)", "-HCookie: (not shown)", "--header=Proxy-Authorization: (not shown)", "-H=cookie: (not shown)",
		"-H", "X-A: Authorization: b", "ws://h/authorization:x", "-H",
	}
	if got := commandShown(args); !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
}

func TestSizesReadWhatPeopleWrite(t *testing.T) {
	for in, want := range map[string][2]int{"": {}, "0": {}, "32": {32, 32}, "16KiB": {16384, 16384}, "16-4KiB": {16, 4096}, "7-7": {7, 7}} {
		if a, b, err := parseSizes(in); err != nil || a != want[0] || b != want[1] {
			t.Errorf("%q is %d to %d, %v", in, a, b, err)
		}
	}
}

func TestSharesAddUp(t *testing.T) {
	for _, n := range []int{3, 10, 64, 1001} {
		sum := 0
		for i := range 3 {
			s := share(n, i, 3)
			if s < n/3 || s > n/3+1 {
				t.Errorf("%d of %d", s, n)
			}
			sum += s
		}
		if sum != n {
			t.Errorf("%d, want %d", sum, n)
		}
	}
}
