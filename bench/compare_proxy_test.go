package bench

import (
	"bytes"
	"context"
	"io"
	"net/url"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestComparedBackend and TestComparedReverseProxy are the processes that
// Compare starts in the tests of proxies.
func TestComparedBackend(t *testing.T) {
	if os.Getenv(comparedProcess) != "proxy" {
		t.Skip("not started by another test")
	}
	ctx, stop := signal.NotifyContext(t.Context(), syscall.SIGTERM)
	defer stop()
	ServeCollecting(ctx, os.Stdin, os.Stdout)
	os.Exit(0)
}

func TestComparedReverseProxy(t *testing.T) {
	if os.Getenv(comparedProcess) != "proxy" {
		t.Skip("not started by another test")
	}
	ctx, stop := signal.NotifyContext(t.Context(), syscall.SIGTERM)
	defer stop()
	ServeReverseProxy(ctx, os.Getenv("COMPARED_BACKEND"), os.Stdout)
	os.Exit(0)
}

func TestCompareMeasuresProxiesBeforeABackend(t *testing.T) {
	t.Setenv(comparedProcess, "proxy")
	who := func(test string) Contestant {
		return Contestant{Name: test, Args: []string{os.Args[0], "-test.run=^" + test + "$"}}
	}
	backend, proxy := who("TestComparedBackend"), who("TestComparedReverseProxy")
	// env gives the backend's address to the test binary, which takes no arguments.
	proxy.Args = append([]string{"/usr/bin/env", "COMPARED_BACKEND=" + backendMark}, proxy.Args...)
	all := Compare(t.Context(), &CompareOptions{
		Servers: []Contestant{proxy}, Backend: &backend, Floor: proxy.Name, Rounds: 2, Interval: 50 * time.Millisecond,
		Cases: []CompareCase{
			{Name: "echo", Kind: CompareEcho, Connections: 4, Size: 32, Depth: 1},
			{Name: "handshake", Kind: CompareHandshake, Connections: 2},
			{Name: "generations", Kind: CompareGenerations, Connections: 10, Size: 32, Depth: 1, Generations: 2, MostRounds: 1},
		},
	})
	if lines := all.Failures(); len(lines) > 0 || len(all.Cases) != 3 {
		t.Fatalf("failures %q in %d cases", lines, len(all.Cases))
	}
	for i, want := range []struct {
		figure string
		rounds int
	}{{figureCPU, 2}, {figureCPU, 2}, {figureEach, 1}} {
		if got := all.Cases[i].Rows[0].samples(want.figure); len(got) != want.rounds || got[0] <= 0 {
			t.Errorf("%s: %s is %v", all.Cases[i].Name, want.figure, got)
		}
	}
	var b strings.Builder
	all.WriteTitle(&b)
	all.Cases[2].WriteText(&b)
	all.WriteNote(&b)
	for _, want := range []string{
		"proxy, client and backend not pinned\n",
		"\ngenerations: the same after 2 generations of 10 connections with messages have come and gone\n",
		"it / TestComparedReverseProxy: how\nmany times as much it costs as TestComparedReverseProxy",
	} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("%q is not in\n%s", want, b.String())
		}
	}
}

func TestABackendThatFailsIsNamed(t *testing.T) {
	none := Contestant{Name: "none", Args: []string{"/nonexistent/program"}}
	all := Compare(t.Context(), &CompareOptions{
		Servers: []Contestant{none}, Backend: &none, Rounds: 1, Interval: time.Millisecond,
		Cases: []CompareCase{{Name: "echo", Kind: CompareEcho, Connections: 1, Size: 1}},
	})
	if lines := all.Failures(); len(lines) != 1 || !strings.Contains(lines[0], "the backend: it cannot be started") {
		t.Errorf("the failures are %q", lines)
	}
}

func TestSettingsOfAProxyAreWrittenForIt(t *testing.T) {
	who := Contestant{Args: []string{"p", "-c", configMark, "--to", backendMark}, Config: "listen {port}; to {backend}; temp {dir}/x"}
	made := who.before("127.0.0.1:7")
	args, port, dir, err := made.prepare()
	if err != nil {
		t.Fatal(err)
	}
	defer os.RemoveAll(dir)
	path := filepath.Join(dir, "config")
	if want := []string{"p", "-c", path, "--to", "127.0.0.1:7"}; !slices.Equal(args, want) || port == 0 {
		t.Errorf("the command is %q, the port %d, want %q", args, port, want)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if strings.ContainsAny(string(text), "{}") || !strings.Contains(string(text), "to 127.0.0.1:7; temp "+dir+"/x") {
		t.Errorf("the file says %q", text)
	}
	if who.Args[4] != backendMark {
		t.Error("before changes the contestant itself")
	}
	p := contestProcess{dir: dir}
	p.removeDir()
	if _, err := os.Stat(dir); !os.IsNotExist(err) {
		t.Errorf("the directory is still there: %v", err)
	}
}

func TestProxiesThatAreNotInstalledAreNamed(t *testing.T) {
	t.Setenv("PATH", t.TempDir())
	var said bytes.Buffer
	all := Proxies([]string{"wspoll", "reverse-proxy"}, &said)
	if len(all) != 1 || all[0].Name != "go" || !slices.Equal(all[0].Args, []string{"wspoll", "reverse-proxy", backendMark}) {
		t.Errorf("the proxies are %+v", all)
	}
	for _, want := range []string{"without nginx: it is not installed", "without HAProxy: it is not installed"} {
		if !strings.Contains(said.String(), want) {
			t.Errorf("%q is not in %q", want, said.String())
		}
	}
}

func TestReverseProxyEndsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	r, w := io.Pipe()
	done := make(chan error, 1)
	go func() { done <- ServeReverseProxy(ctx, "127.0.0.1:1", w) }()
	line := make([]byte, 100)
	n, err := r.Read(line)
	if err != nil {
		t.Fatal(err)
	}
	if u, err := url.Parse(strings.TrimSpace(string(line[:n]))); err != nil || u.Scheme != "ws" {
		t.Errorf("the first line is %q, %v", line[:n], err)
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

func TestURLsThroughAProxyKeepThePathOfTheBackend(t *testing.T) {
	if got, err := throughProxy("tcp://127.0.0.1:82", "ws://127.0.0.1:8002/wshandler?a=b"); err != nil || got != "ws://127.0.0.1:82/wshandler?a=b" {
		t.Errorf("the URL is %q, %v", got, err)
	}
}

func TestQuickProxyCasesAreFewer(t *testing.T) {
	full, quick := ProxyCases(5000, false), ProxyCases(5000, true)
	for i, c := range quick {
		if c.Name != full[i].Name || c.Connections > full[i].Connections || c.Generations > full[i].Generations {
			t.Errorf("quick %+v, full %+v", c, full[i])
		}
	}
	if full[4].Connections != 5000 || full[5].Generations != 10 {
		t.Errorf("the cases of memory are %+v", full[4:])
	}
}
