package peers

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gorilla/websocket"
	natsserver "github.com/nats-io/nats-server/v2/server"
)

const clusterToken = "0123456789abcdef0123"

// natsRoom is a NATS that can be ended and started again at the same place.
type natsRoom struct {
	t    *testing.T
	opts natsserver.Options
	srv  *natsserver.Server
}

func startNATS(t *testing.T, jetStream bool) *natsRoom {
	t.Helper()
	l, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	port := l.Addr().(*net.TCPAddr).Port
	l.Close()
	n := &natsRoom{t: t, opts: natsserver.Options{
		Host: "127.0.0.1", Port: port, NoSigs: true, NoLog: true, JetStream: jetStream, StoreDir: t.TempDir(),
		Username: "somebody", Password: "topsecretword", SyncAlways: true,
	}}
	n.start()
	t.Cleanup(n.stop)
	return n
}

func (n *natsRoom) start() {
	n.t.Helper()
	opts := n.opts
	srv, err := natsserver.NewServer(&opts)
	if err != nil {
		n.t.Fatal(err)
	}
	go srv.Start()
	if !srv.ReadyForConnections(patience) {
		n.t.Fatal("NATS does not start")
	}
	n.srv = srv
}

func (n *natsRoom) stop() {
	n.srv.Shutdown()
	n.srv.WaitForShutdown()
}

func (n *natsRoom) url() string {
	return fmt.Sprintf("nats://somebody:topsecretword@127.0.0.1:%d", n.opts.Port)
}

// join starts a wspoll that shares its topics through NATS.
func (n *natsRoom) join(args ...string) *server {
	n.t.Helper()
	file := filepath.Join(n.t.TempDir(), "token")
	if err := os.WriteFile(file, []byte(clusterToken), 0o600); err != nil {
		n.t.Fatal(err)
	}
	s := start(n.t, append([]string{
		"--nats", n.url(), "--publish-token-file", file, "--topic-retain", "price.*", "--topic-replay", "10000",
		"--topic-pending", "64MiB", "--topic-open", "chat.*",
	}, args...)...)
	n.t.Cleanup(func() {
		if s.log.has("topsecretword") {
			n.t.Error("the log has the password")
		}
	})
	return s
}

func (s *server) path(scheme, path string) string {
	return scheme + strings.TrimSuffix(strings.TrimPrefix(s.url, "ws"), "/wshandler") + path
}

// published is the answer to a POST.
type published struct {
	Seq     uint64 `json:"seq"`
	Waiting bool   `json:"waiting"`
	status  int
}

func (s *server) post(topic, text string) (p published) {
	s.t.Helper()
	p, err := s.tryPost(topic, text)
	if err != nil {
		s.t.Fatal(err)
	}
	return p
}

func (s *server) tryPost(topic, text string) (p published, err error) {
	r, err := http.NewRequestWithContext(s.t.Context(), "POST", s.path("http", "/topics/"+topic), strings.NewReader(text))
	if err != nil {
		return p, err
	}
	r.Header.Set("Authorization", "Bearer "+clusterToken)
	a, err := http.DefaultClient.Do(r)
	if err != nil {
		return p, err
	}
	defer a.Body.Close()
	b, _ := io.ReadAll(a.Body)
	p.status = a.StatusCode
	if a.StatusCode/100 != 2 {
		return p, nil
	}
	return p, json.Unmarshal(b, &p)
}

// health waits for /healthz to say something.
func (s *server) health(want string) {
	s.t.Helper()
	for deadline := time.Now().Add(patience); ; time.Sleep(20 * time.Millisecond) { // nothing tells of it
		a, err := http.Get(s.path("http", "/healthz"))
		if err != nil {
			s.t.Fatal(err)
		}
		b, _ := io.ReadAll(a.Body)
		a.Body.Close()
		if a.StatusCode != http.StatusOK {
			s.t.Fatalf("/healthz: %d", a.StatusCode)
		}
		if strings.HasPrefix(string(b), want) {
			return
		}
		if time.Now().After(deadline) {
			s.t.Fatalf("/healthz says %q, not %q", b, want)
		}
	}
}

// follower is a subscriber with numbers, or without.
type follower struct {
	t    *testing.T
	conn *websocket.Conn

	mu    sync.Mutex
	lines []string // what came; of a message with a number, "seq N NAME|payload"
	more  chan struct{}
}

func (s *server) follow(target string) *follower {
	s.t.Helper()
	c, _, err := websocket.DefaultDialer.Dial(s.path("ws", target), nil)
	if err != nil {
		s.t.Fatal(err)
	}
	f := &follower{t: s.t, conn: c, more: make(chan struct{}, 1)}
	s.t.Cleanup(func() { c.Close() })
	go func() {
		for {
			_, b, err := c.ReadMessage()
			if err != nil {
				return
			}
			f.mu.Lock()
			f.lines = append(f.lines, strings.Replace(string(b), "\n", "|", 1))
			f.mu.Unlock()
			select {
			case f.more <- struct{}{}:
			default:
			}
		}
	}()
	return f
}

// until waits until ok is content with what has come, and returns that.
func (f *follower) until(what string, ok func(lines []string) bool) []string {
	f.t.Helper()
	deadline := time.After(patience)
	for {
		f.mu.Lock()
		lines := slices.Clone(f.lines)
		f.mu.Unlock()
		if ok(lines) {
			return lines
		}
		select {
		case <-f.more:
		case <-deadline:
			f.t.Fatalf("no %s; the last that came: %q", what, lines[max(0, len(lines)-10):])
		}
	}
}

func (f *follower) has(payload string) []string {
	f.t.Helper()
	return f.until(payload, func(lines []string) bool {
		return slices.ContainsFunc(lines, func(l string) bool {
			return l == payload || strings.HasPrefix(l, "seq ") && strings.HasSuffix(l, "|"+payload)
		})
	})
}

// numbered are the payloads with numbers, in their order, which must be rising.
func numbered(t *testing.T, lines []string) (payloads []string, numbers map[string]uint64) {
	t.Helper()
	numbers = map[string]uint64{}
	last := uint64(0)
	for _, l := range lines {
		rest, ok := strings.CutPrefix(l, "seq ")
		if !ok {
			if strings.HasPrefix(l, "gap ") {
				t.Errorf("it is told of a gap: %q", l)
			}
			continue
		}
		head, payload, _ := strings.Cut(rest, "|")
		n, _, _ := strings.Cut(head, " ")
		number, err := strconv.ParseUint(n, 10, 64)
		if err != nil || number <= last {
			t.Fatalf("%q comes behind number %d", l, last)
		}
		if numbers[payload] != 0 {
			t.Errorf("%q came twice with numbers", payload)
		}
		last, numbers[payload] = number, number
		payloads = append(payloads, payload)
	}
	return payloads, numbers
}

func TestTwoServersShareTheirTopics(t *testing.T) {
	n := startNATS(t, true)
	a, b := n.join("--loops", "2"), n.join("--loops", "1")
	fa, fb, plain := a.follow("/topics/news?seq=1"), b.follow("/topics/news?seq=1"), b.follow("/topics/news")
	fa.until("at", func(l []string) bool { return len(l) > 0 })
	fb.until("at", func(l []string) bool { return len(l) > 0 })

	const each = 200
	var wg sync.WaitGroup
	acked := make([]map[string]uint64, 4)
	for i, s := range []*server{a, b, a, b} {
		acked[i] = map[string]uint64{}
		wg.Go(func() {
			for k := range each {
				text := fmt.Sprintf("%d:%d", i, k)
				p, err := s.tryPost("news", text)
				if err != nil || p.status != http.StatusOK || p.Seq == 0 {
					t.Errorf("%s: %+v, %v", text, p, err)
					return
				}
				acked[i][text] = p.Seq
			}
		})
	}
	wg.Wait()
	a.post("news", "end")
	la, na := numbered(t, fa.has("end"))
	lb, nb := numbered(t, fb.has("end"))
	if !slices.Equal(la, lb) {
		t.Error("the order is not the same on both servers")
	}
	if lp := plain.has("end"); !slices.Equal(lp, la) {
		t.Errorf("without numbers %d came, not the %d with numbers, or in another order", len(lp), len(la))
	}
	for _, m := range acked {
		for text, seq := range m {
			if na[text] != seq || nb[text] != seq {
				t.Errorf("%s was answered with %d, and came as %d and %d", text, seq, na[text], nb[text])
			}
		}
	}

	// What was seen on one server is where another goes on.
	half := la[len(la)/2]
	back := b.follow(fmt.Sprintf("/topics/news?since=%d", na[half]))
	rest, _ := numbered(t, back.has("end"))
	if want := la[len(la)/2+1:]; !slices.Equal(rest, want) {
		t.Errorf("since number %d came %d messages, want %d", na[half], len(rest), len(want))
	}

	// Retained messages are everywhere, on a server that comes later too.
	a.post("price.usd", "1.08")
	b.follow("/topics/price.usd").has("1.08")
	c := n.join()
	c.follow("/topics/price.usd").has("1.08")
	late := c.follow(fmt.Sprintf("/topics/news?since=%d", na[half]))
	if rest, _ := numbered(t, late.has("end")); !slices.Equal(rest, la[len(la)/2+1:]) {
		t.Errorf("on a server that came later, %d messages follow number %d", len(rest), na[half])
	}

	// What a subscriber says reaches those of other servers, and not itself.
	x, y, z := a.follow("/topics/chat.one?seq=1"), a.follow("/topics/chat.one"), c.follow("/topics/chat.one")
	x.until("at", func(l []string) bool { return len(l) > 0 })
	z.conn.WriteMessage(websocket.BinaryMessage, []byte{0xff, 'z'})
	y.until("z's message", func(l []string) bool { return slices.Contains(l, "\xffz") })
	x.conn.WriteMessage(websocket.TextMessage, []byte("hello"))
	y.has("hello")
	z.has("hello")
	x.until("own", func(l []string) bool { return strings.HasPrefix(l[len(l)-1], "own ") })
	if l := z.has("hello"); slices.Contains(l, "\xffz") {
		t.Error("a subscriber got what it said itself")
	}
}

func TestNothingAcknowledgedIsLostWhenNATSIsRestarted(t *testing.T) {
	n := startNATS(t, true)
	all := []*server{n.join(), n.join(), n.join("--loops", "1")}
	var followers []*follower
	for _, s := range all {
		f := s.follow("/topics/news?seq=1")
		f.until("at", func(l []string) bool { return len(l) > 0 })
		followers = append(followers, f)
	}
	plain := all[0].follow("/topics/news")

	stop := make(chan struct{})
	var wg sync.WaitGroup
	acked, waiting := make([]map[string]uint64, 3), make([][]string, 3)
	for i, s := range all {
		acked[i] = map[string]uint64{}
		wg.Go(func() {
			for k := 0; ; k++ {
				select {
				case <-stop:
					return
				default:
				}
				text := fmt.Sprintf("%d:%d", i, k)
				p, err := s.tryPost("news", text)
				switch {
				case err != nil || p.status/100 != 2:
					t.Errorf("%s: %+v, %v", text, p, err)
					return
				case p.Waiting != (p.status == http.StatusAccepted):
					t.Errorf("%s: %+v", text, p)
				case p.Waiting:
					waiting[i] = append(waiting[i], text)
					time.Sleep(5 * time.Millisecond) // so that it does not fill what may wait
				default:
					acked[i][text] = p.Seq
				}
			}
		})
	}
	followers[1].until("100 messages", func(l []string) bool { return len(l) > 100 })
	n.stop()
	for i, s := range all {
		s.health("degraded: the link to NATS is down")
		text := fmt.Sprintf("down:%d", i)
		if p := s.post("news", text); p.status != http.StatusAccepted {
			t.Errorf("while the link is down: %+v", p)
		}
		followers[i].until(text, func(l []string) bool { return slices.Contains(l, "local news|"+text) })
	}
	plain.has("down:0")
	all[1].post("price.eur", "2.5")
	all[1].follow("/topics/price.eur").has("2.5")
	n.start()
	for _, s := range all {
		s.health("ok")
	}
	count := len(followers[1].until("", func([]string) bool { return true }))
	followers[1].until("100 more", func(l []string) bool { return len(l) > count+100 })
	close(stop)
	wg.Wait()
	if p := all[2].post("news", "end"); p.status != http.StatusOK {
		t.Fatalf("the last: %+v", p)
	}
	var first []string
	for i, f := range followers {
		got, numbers := numbered(t, f.has("end"))
		if i == 0 {
			first = got
		} else if !slices.Equal(got, first) {
			t.Errorf("server %d has another order than server 0", i)
		}
		for k := range acked {
			for text, seq := range acked[k] {
				if numbers[text] != seq {
					t.Errorf("server %d: %s was acknowledged as %d and came as %d", i, text, seq, numbers[text])
				}
			}
			for _, text := range append(waiting[k], fmt.Sprintf("down:%d", k)) {
				if numbers[text] == 0 {
					t.Errorf("server %d never sent %s, which waited for NATS", i, text)
				}
			}
		}
	}
	// Without numbers each message comes once.
	seen := map[string]bool{}
	for _, l := range plain.has("end") {
		if seen[l] {
			t.Errorf("%q came twice to a subscriber without numbers", l)
		}
		seen[l] = true
	}
	for _, text := range first {
		if !seen[text] {
			t.Errorf("%q never came to a subscriber without numbers", text)
		}
	}
	all[0].follow("/topics/price.eur").has("2.5")
	t.Logf("%d acknowledged by the first server, %d waited", len(acked[0]), len(waiting[0]))
}

func TestServersShareTopicsWithoutJetStream(t *testing.T) {
	n := startNATS(t, false)
	a, b := n.join(), n.join()
	fa, fb, plain := a.follow("/topics/news?seq=1"), b.follow("/topics/news?seq=1"), b.follow("/topics/news")
	fa.until("at", func(l []string) bool { return len(l) > 0 })
	fb.until("at", func(l []string) bool { return len(l) > 0 })
	if p := a.post("news", "one"); p.status != http.StatusOK || p.Seq == 0 {
		t.Errorf("%+v", p)
	}
	plain.has("one")
	fa.has("one")
	fb.has("one")
	n.stop()
	a.health("degraded")
	b.health("degraded")
	if p := a.post("news", "two"); p.status != http.StatusAccepted {
		t.Errorf("%+v", p)
	}
	fa.has("two")
	n.start()
	a.health("ok")
	b.health("ok")
	b.post("news", "three")
	// Whether b was back when a sent two is luck: nothing keeps it for b.
	if l := plain.has("three"); !slices.Equal(l, []string{"one", "two", "three"}) && !slices.Equal(l, []string{"one", "three"}) {
		t.Errorf("what came is %q", l)
	}
	if l := fb.has("three"); !slices.ContainsFunc(l, func(s string) bool { return strings.HasPrefix(s, "gap ") }) {
		t.Errorf("what came is %q, without a gap", l)
	}
	lines := fa.has("three")
	var gaps, twos int
	for _, l := range lines {
		if strings.HasPrefix(l, "gap ") {
			gaps++
		}
		if strings.HasSuffix(l, "|two") {
			twos++
		}
	}
	if gaps != 1 || twos != 1 {
		t.Errorf("what came is %q, want two once, and a gap for what others may have sent meanwhile", lines)
	}
}

func TestDrainWithNATSSendsWhatWasTaken(t *testing.T) {
	n := startNATS(t, true)
	a, b := n.join(), n.join()
	fa, fb := a.follow("/topics/chat.x?seq=1"), b.follow("/topics/chat.x?seq=1")
	fa.until("at", func(l []string) bool { return len(l) > 0 })
	fb.until("at", func(l []string) bool { return len(l) > 0 })
	talker := a.follow("/topics/chat.x?seq=1")
	talker.until("at", func(l []string) bool { return len(l) > 0 })
	for k := range 500 {
		if err := talker.conn.WriteMessage(websocket.TextMessage, []byte(strconv.Itoa(k))); err != nil {
			t.Fatal(err)
		}
	}
	fa.has("100")
	a.stop()
	var own int
	for _, l := range talker.until("", func([]string) bool { return true }) {
		if strings.HasPrefix(l, "own ") {
			own++
		}
	}
	here, _ := numbered(t, fa.until("", func([]string) bool { return true }))
	if own < 100 || len(here) < own {
		t.Errorf("its sender was told of %d, and %d came to another subscriber", own, len(here))
	}
	there, _ := numbered(t, fb.has(here[len(here)-1]))
	if !slices.Equal(here, there[:len(here)]) {
		t.Errorf("%d came on the server that ended, %d on the other", len(here), len(there))
	}
}

func TestNATSThatCannotBeReachedIsSaidWithoutThePassword(t *testing.T) {
	for _, url := range []string{"nats://somebody:topsecretword@127.0.0.1:1", "nats://somebody:topsecretword@"} {
		out, err := runWspoll("--listen", "127.0.0.1:0", "--nats", url)
		if err == nil || strings.Contains(out, "topsecretword") || !strings.Contains(out, "--nats: ") || strings.Count(strings.TrimSpace(out), "\n") > 0 {
			t.Errorf("%v: %s", err, out)
		}
	}
}
