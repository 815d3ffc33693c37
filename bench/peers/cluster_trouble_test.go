package peers

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

const clusterStream = "WSPOLL_TOPICS"

// api asks JetStream for something that it must do.
func (n *natsRoom) api(name string, request any) {
	n.t.Helper()
	if answer := n.ask(name, request); strings.Contains(answer, `"error"`) {
		n.t.Fatalf("%s: %s", name, answer)
	}
}

// ask asks JetStream for something, in the protocol of NATS.
func (n *natsRoom) ask(name string, request any) (answer string) {
	n.t.Helper()
	body := []byte{}
	if request != nil {
		var err error
		if body, err = json.Marshal(request); err != nil {
			n.t.Fatal(err)
		}
	}
	c, err := net.Dial("tcp4", fmt.Sprintf("127.0.0.1:%d", n.opts.Port))
	if err != nil {
		n.t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(patience))
	fmt.Fprintf(c, "CONNECT {\"user\":%q,\"pass\":%q,\"verbose\":false}\r\nSUB answer 1\r\nPUB $JS.API.%s answer %d\r\n%s\r\n",
		n.opts.Username, n.opts.Password, name, len(body), body)
	r := bufio.NewReader(c)
	for {
		line, err := r.ReadString('\n')
		if err != nil {
			n.t.Fatalf("%s: %v", name, err)
		}
		var size int
		if k, _ := fmt.Sscanf(line, "MSG answer 1 %d", &size); k != 1 {
			continue
		}
		b := make([]byte, size)
		if _, err := io.ReadFull(r, b); err != nil {
			n.t.Fatalf("%s: %v", name, err)
		}
		return string(b)
	}
}

// hasStream waits until there is the stream again.
func (n *natsRoom) hasStream() {
	n.t.Helper()
	for deadline := time.Now().Add(patience); ; time.Sleep(20 * time.Millisecond) { // nothing tells of it
		if !strings.Contains(n.ask("STREAM.INFO."+clusterStream, nil), `"error"`) {
			return
		}
		if time.Now().After(deadline) {
			n.t.Fatal("nobody makes the stream again")
		}
	}
}

// rising are the numbers of the payloads, which never go back, and the lines of
// gaps.
func rising(t *testing.T, lines []string) (numbers map[string]uint64, gaps []string) {
	t.Helper()
	numbers = map[string]uint64{}
	last := uint64(0)
	for _, l := range lines {
		head, payload, _ := strings.Cut(l, "|")
		var from, to uint64
		if k, _ := fmt.Sscanf(head, "gap %d %d", &from, &to); k == 2 {
			if gaps = append(gaps, l); from <= last || to < from {
				t.Errorf("%q comes behind number %d", l, last)
			}
			last = to
		} else if k, _ := fmt.Sscanf(head, "seq %d", &to); k == 1 {
			if to <= last {
				t.Errorf("%q comes behind number %d", l, last)
			}
			last, numbers[payload] = to, to
		}
	}
	return numbers, gaps
}

// counting are followers with numbers, who are subscribed.
func counting(servers ...*server) (all []*follower) {
	for _, s := range servers {
		f := s.follow("/topics/news?seq=1")
		f.until("at", func(l []string) bool { return len(l) > 0 })
		all = append(all, f)
	}
	return all
}

// cutOff checks what followers got who had numbers before a loss and after it.
func cutOff(t *testing.T, all []*follower, before, after string) {
	t.Helper()
	var same map[string]uint64
	for i, f := range all {
		f.until(after+" with a number", func(lines []string) bool { n, _ := rising(t, lines); return n[after] > 0 })
		numbers, gaps := rising(t, f.has(after))
		if len(gaps) == 0 || numbers[after] <= numbers[before] {
			t.Errorf("server %d: the numbers are %v, the gaps %q", i, numbers, gaps)
		}
		if same == nil {
			same = numbers
		} else if same[after] != numbers[after] {
			t.Errorf("server %d has number %d for %s, another %d", i, numbers[after], after, same[after])
		}
	}
}

func TestStreamThatIsDeletedWhileWeRunIsMadeAgain(t *testing.T) {
	n := startNATS(t, true)
	a, b := n.join(), n.join()
	all := counting(a, b)
	a.post("news", "one")
	for _, f := range all {
		f.has("one")
	}
	n.api("STREAM.DELETE."+clusterStream, nil)
	n.hasStream() // though nobody publishes
	for _, s := range []*server{a, b} {
		s.logged("the link to NATS is down")
		s.health("ok")
	}
	b.post("news", "two")
	cutOff(t, all, "one", "two")

	// When somebody publishes before it is noticed, the message is not lost.
	n.api("STREAM.DELETE."+clusterStream, nil)
	if p := a.post("news", "three"); p.status/100 != 2 {
		t.Errorf("%+v", p)
	}
	cutOff(t, all, "two", "three")
	a.health("ok")
	if p := a.post("news", "four"); p.status != http.StatusOK {
		t.Errorf("afterwards: %+v", p)
	}
}

func TestStorageThatIsEmptyAfterARestartOfNATS(t *testing.T) {
	n := startNATS(t, true)
	a, b := n.join(), n.join()
	all := counting(a, b)
	first := a.post("news", "one")
	for _, f := range all {
		f.has("one")
	}
	n.stop()
	a.health("degraded")
	b.health("degraded")
	if p := a.post("news", "between"); p.status != http.StatusAccepted || !p.Waiting {
		t.Errorf("%+v", p)
	}
	if err := os.RemoveAll(filepath.Join(n.opts.StoreDir, "jetstream")); err != nil {
		t.Fatal(err)
	}
	n.start()
	a.health("ok")
	b.health("ok")
	if p := b.post("news", "two"); p.status != http.StatusOK {
		t.Errorf("%+v", p)
	}
	cutOff(t, all, "one", "two")
	for _, f := range all {
		if numbers, _ := rising(t, f.has("two")); numbers["between"] == 0 {
			t.Error("what waited has not come")
		}
	}
	// Everything begins anew, and a client comes back that had been here before.
	b.stop()
	a.stop()
	n.stop()
	if err := os.RemoveAll(filepath.Join(n.opts.StoreDir, "jetstream")); err != nil {
		t.Fatal(err)
	}
	n.start()
	c := n.join()
	back := c.follow(fmt.Sprintf("/topics/news?since=%d", first.Seq))
	p := c.post("news", "three")
	numbers, gaps := rising(t, back.has("three"))
	if len(gaps) == 0 || numbers["three"] != p.Seq || p.Seq <= first.Seq {
		t.Errorf("the numbers are %v, the gaps %q, the answer %+v", numbers, gaps, p)
	}
}

// NATS does not sync its files at once: what it loses when the power fails are
// the newest messages.
func TestStorageThatLostItsNewestMessages(t *testing.T) {
	n := startNATS(t, true)
	a, b := n.join(), n.join()
	all := counting(a, b)
	a.post("news", "one")
	n.stop()
	old := filepath.Join(t.TempDir(), "old")
	if err := os.CopyFS(old, os.DirFS(n.opts.StoreDir)); err != nil {
		t.Fatal(err)
	}
	n.start()
	a.health("ok")
	b.health("ok")
	a.post("news", "two")
	b.post("news", "three")
	for _, f := range all {
		f.has("three")
	}
	n.stop()
	a.health("degraded")
	b.health("degraded")
	if err := os.RemoveAll(n.opts.StoreDir); err != nil {
		t.Fatal(err)
	}
	if err := os.CopyFS(n.opts.StoreDir, os.DirFS(old)); err != nil {
		t.Fatal(err)
	}
	n.start()
	a.health("ok")
	b.health("ok")
	if !a.log.has("NATS has lost messages") && !b.log.has("NATS has lost messages") {
		t.Error("the log does not say it")
	}
	a.post("news", "four")
	cutOff(t, all, "three", "four")
}

// A stream that somebody else made begins at 1, and again when it is made again.
func TestStreamOfSomebodyElseThatBeginsAgain(t *testing.T) {
	n := startNATS(t, true)
	create := map[string]any{"name": clusterStream, "subjects": []string{"wspoll.topics.>"}, "storage": "file", "retention": "limits", "discard": "old", "num_replicas": 1}
	n.api("STREAM.CREATE."+clusterStream, create)
	a, b := n.join(), n.join()
	all := counting(a, b)
	for i := range 5 {
		a.post("news", fmt.Sprint(i))
	}
	for _, f := range all {
		f.has("4")
	}
	n.api("STREAM.DELETE."+clusterStream, nil)
	for strings.Contains(n.ask("STREAM.CREATE."+clusterStream, create), `"error"`) {
		n.ask("STREAM.DELETE."+clusterStream, nil) // a server of ours was faster
	}
	for _, s := range []*server{a, b} {
		s.logged("the link to NATS is down")
		s.health("ok")
	}
	if p := a.post("news", "new"); p.status/100 != 2 {
		t.Errorf("%+v", p)
	}
	cutOff(t, all, "4", "new")
}

// The newest message of the stream may have been deleted: it is not waited for.
func TestServerStartsThoughTheNewestMessageWasDeleted(t *testing.T) {
	n := startNATS(t, true)
	a := n.join()
	a.post("price.usd", "1")
	a.post("price.eur", "2")
	n.api("STREAM.PURGE."+clusterStream, map[string]string{"filter": "wspoll.topics.price.eur"})
	b := n.join()
	b.follow("/topics/price.usd").has("1")
	if p := b.post("news", "x"); p.status != http.StatusOK {
		t.Errorf("%+v", p)
	}
}

func TestWhatNATSCannotGetIsRefusedWhenTooMuchWaits(t *testing.T) {
	n := startNATS(t, true)
	a, b := n.join("--max-message", "1MiB"), n.join()
	n.stop()
	a.health("degraded")
	b.health("degraded")
	large := strings.Repeat("x", 900_000)
	var taken int
	for taken = 0; ; taken++ {
		p := a.post("news", fmt.Sprintf("%d %s", taken, large))
		if p.status == http.StatusServiceUnavailable {
			break
		}
		if p.status != http.StatusAccepted || !p.Waiting || taken > 20 {
			t.Fatalf("message %d: %d, %+v", taken, p.status, p)
		}
	}
	if taken != 8<<20/900_002 {
		t.Errorf("%d messages of 900 KB wait in 8 MiB", taken)
	}
	before := resident(t, a)
	for range 200 {
		if p := a.post("news", large); p.status != http.StatusServiceUnavailable {
			t.Fatalf("%+v", p)
		}
	}
	if grown := resident(t, a) - before; grown > 64<<20 {
		t.Errorf("180 MB that were refused take %d MiB", grown>>20)
	}
	a.health("degraded: the link to NATS is down for ")
	if _, body := a.healthz(); !strings.Contains(body, fmt.Sprintf("and %d wait", taken)) {
		t.Errorf("/healthz says %q, not that %d wait", body, taken)
	}
	if p := a.post("news", "small"); p.status != http.StatusAccepted {
		t.Errorf("a small one, for which there is room: %+v", p)
	}
	f := counting(b)[0]
	n.start()
	lines := f.has("small")
	if numbers, _ := rising(t, lines); len(numbers) != taken+1 {
		t.Errorf("%d of %d came to the other server", len(numbers), taken+1)
	}
}

func (s *server) healthz() (status int, body string) {
	s.t.Helper()
	a, err := http.Get(s.path("http", "/healthz"))
	if err != nil {
		s.t.Fatal(err)
	}
	defer a.Body.Close()
	b, _ := io.ReadAll(a.Body)
	return a.StatusCode, string(b)
}

// resident is how many bytes of memory a server takes.
func resident(t *testing.T, s *server) (bytes int) {
	t.Helper()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/statm", s.cmd.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	var total, pages int
	if _, err := fmt.Sscan(string(b), &total, &pages); err != nil {
		t.Fatal(err)
	}
	return pages * os.Getpagesize()
}

// A NATS that comes back takes less than the one that went away.
func TestMessageThatNATSNoLongerTakesDoesNotHoldUpTheOthers(t *testing.T) {
	n := startNATS(t, true)
	a := n.join()
	f := counting(a)[0]
	n.stop()
	a.health("degraded")
	a.post("news", strings.Repeat("x", 100_000))
	a.post("news", "small")
	n.opts.MaxPayload = 10_000
	n.start()
	f.until("small with a number", func(lines []string) bool { k, _ := rising(t, lines); return k["small"] > 0 })
	a.health("ok")
	if p := a.post("news", strings.Repeat("x", 20_000)); p.status != http.StatusRequestEntityTooLarge {
		t.Errorf("%+v", p)
	}
	n.stop()
	a.health("degraded")
	if _, body := a.healthz(); !strings.Contains(body, "and 0 wait") {
		t.Errorf("/healthz says %q: what NATS does not take still waits", body)
	}
}
