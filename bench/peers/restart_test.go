package peers

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// A backend process that is killed and started again on its address.
type mortal struct {
	t    *testing.T
	addr string
	cmd  *exec.Cmd
}

func (m *mortal) start() {
	m.t.Helper()
	m.cmd = exec.Command(wspoll, "--listen", m.addr, "--proxy-listen", "", "--log-level", "error", "--idle-timeout", "0")
	m.cmd.Stderr = m.t.Output()
	out, err := m.cmd.StdoutPipe()
	if err != nil {
		m.t.Fatal(err)
	}
	if err := m.cmd.Start(); err != nil {
		m.t.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		m.t.Fatalf("the backend prints no URL: %v", err)
	}
	m.addr = hostOf(m.t, strings.Fields(line)[0])
}

func (m *mortal) kill() {
	m.cmd.Process.Kill()
	m.cmd.Wait()
}

// sockets is how many a process has open. Its other descriptors do not count:
// Go's runtime makes some when it needs them first.
func sockets(t *testing.T, pid int) (n int) {
	t.Helper()
	dir := fmt.Sprintf("/proc/%d/fd", pid)
	list, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range list {
		if to, _ := os.Readlink(filepath.Join(dir, e.Name())); strings.HasPrefix(to, "socket:") {
			n++
		}
	}
	return n
}

// 10,000 tunnels are 20,000 descriptors, more than one process may have here:
// there are two proxies before three backends, each a process.
func TestTenThousandTunnelsWhileBackendsRestartOneByOne(t *testing.T) {
	tunnels := 10_000
	if os.Getenv("WSPOLL_RACE") == "1" {
		tunnels = 1000
	}
	const workers = 64
	backends := make([]*mortal, 3)
	args := []string{"proxy", "--log-level", "error", "--health-every", "0", "--idle-timeout", "10m", "--answer-timeout", "1m", "--balance", "round-robin"}
	for i := range backends {
		backends[i] = &mortal{t: t, addr: "127.0.0.1:0"}
		backends[i].start()
		t.Cleanup(func() { backends[i].kill() })
		args = append(args, "--to", "ws://"+backends[i].addr)
	}
	proxies := []*server{start(t, args...), start(t, args...)}
	var before [2]int
	for i, px := range proxies {
		before[i] = sockets(t, px.cmd.Process.Pid)
	}

	all := make([]*wire, tunnels)
	open := func(i int) error {
		addr := hostOf(t, proxies[i%len(proxies)].url)
		c, err := net.Dial("tcp", addr)
		if err != nil {
			return err
		}
		c.SetDeadline(time.Now().Add(3 * patience))
		w := &wire{c.(*net.TCPConn), t, bufio.NewReaderSize(c, 512)}
		all[i] = w
		io.WriteString(c, "GET /wshandler HTTP/1.1\r\nHost: "+addr+"\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n")
		line, err := w.in.ReadString('\n')
		if err != nil || !strings.HasPrefix(line, "HTTP/1.1 101 ") {
			return fmt.Errorf("the answer is %q, %v", line, err)
		}
		for line != "\r\n" {
			if line, err = w.in.ReadString('\n'); err != nil {
				return err
			}
		}
		return nil
	}
	t.Cleanup(func() {
		for _, w := range all {
			if w != nil {
				w.Close()
			}
		}
	})
	each := func(f func(i int) error) {
		t.Helper()
		var wg sync.WaitGroup
		for k := range workers {
			wg.Go(func() {
				for i := k; i < tunnels; i += workers {
					if err := f(i); err != nil {
						t.Errorf("tunnel %d: %v", i, err)
						return
					}
				}
			})
		}
		wg.Wait()
		if t.Failed() {
			t.FailNow()
		}
	}
	each(open)
	held := 0
	for i, px := range proxies {
		held += sockets(t, px.cmd.Process.Pid) - before[i]
	}
	if held != 2*tunnels {
		t.Errorf("the proxies have %d more sockets with %d tunnels", held, tunnels)
	}
	for k, b := range backends {
		b.kill()
		b.start()
		var told atomic.Int64
		each(func(i int) error {
			w := all[i]
			w.Write([]byte{0x81, 0x85, 0, 0, 0, 0, 'h', 'e', 'l', 'l', 'o'})
			b0, payload, err := w.frame()
			switch {
			case err != nil:
				return fmt.Errorf("it ended without a Close: %w", err)
			case b0 == 0x81 && bytes.Equal(payload, []byte("hello")):
				return nil
			case b0 != 0x88 || len(payload) < 2 || binary.BigEndian.Uint16(payload) != 1012:
				return fmt.Errorf("%#x %q came, want Close 1012", b0, payload)
			}
			told.Add(1)
			w.Write([]byte{0x88, 0x82, 0, 0, 0, 0, 3, 0xf4})
			w.Close()
			return open(i)
		})
		if told.Load() == 0 {
			t.Errorf("backend %d died and nobody noticed", k)
		}
		t.Logf("backend %d of %d killed and restarted: %d of %d tunnels were told with Close 1012 and came back", k+1, len(backends), told.Load(), tunnels)
	}
	each(func(i int) error { return all[i].Close() })
	for i, px := range proxies {
		for end := time.Now().Add(patience); ; time.Sleep(20 * time.Millisecond) { // nothing tells of it
			n := sockets(t, px.cmd.Process.Pid)
			if n <= before[i] {
				break
			}
			if time.Now().After(end) {
				t.Fatalf("a proxy has %d sockets, %d before", n, before[i])
			}
		}
	}
}
