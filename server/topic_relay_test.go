package server

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/gobwas/ws"
)

// newRelayed is a server whose relay keeps what it is given, for the test to
// bring back.
func newRelayed(t *testing.T, cfg TopicConfig, stream bool) (s *crowd, passed *[]Passed) {
	t.Helper()
	s, passed = newCrowd(t, Config{Topics: cfg}), new([]Passed)
	s.Topics().Join(func(p Passed) error { *passed = append(*passed, p); return nil }, stream)
	return s, passed
}

func (s *crowd) deliver(t *testing.T, d Delivery) {
	t.Helper()
	d.Topic, d.Op = "x", ws.OpText
	if _, err := s.Topics().Deliver(&d); err != nil {
		t.Fatal(err)
	}
	s.settle()
}

// got takes the texts of what has come to a subscriber.
func (p *pipe) got(t *testing.T) (texts []string) {
	t.Helper()
	c := &client{t: t, in: p.out}
	for p.out = nil; len(c.in) > 0; {
		f, err := c.next()
		if err != nil {
			t.Fatal(err)
		}
		texts = append(texts, string(f.payload))
	}
	return texts
}

func (p *pipe) wants(t *testing.T, who string, want ...string) {
	t.Helper()
	if got := p.got(t); fmt.Sprintf("%q", got) != fmt.Sprintf("%q", want) {
		t.Errorf("%s: %q came, want %q", who, got, want)
	}
}

func TestWhatIsPublishedGoesToTheRelayAlone(t *testing.T) {
	s, passed := newRelayed(t, TopicConfig{Open: []string{"*"}}, true)
	a, b := s.join(t, 0, "/topics/x?seq=1", 1<<40), s.join(t, 0, "/topics/x", 1<<40)
	a.wants(t, "a", "at 0 x")
	p, err := s.Topics().Publish("x", ws.OpText, []byte("one"))
	if err != nil || !p.Waiting || p.Queued != 2 {
		t.Errorf("%+v, %v", p, err)
	}
	a.in = masked(true, ws.OpText, []byte("two"))
	s.settle()
	a.wants(t, "a")
	b.wants(t, "b")
	if len(*passed) != 2 || string((*passed)[0].Payload) != "one" || string((*passed)[1].Payload) != "two" {
		t.Fatalf("%+v", *passed)
	}
	if used := s.group.Budget().Used(); used != 6 {
		t.Errorf("%d bytes of the budget are taken for what the relay has", used)
	}
	// They come back in another order.
	s.deliver(t, Delivery{Payload: []byte("two"), Number: 7, From: (*passed)[1].From})
	s.deliver(t, Delivery{Payload: []byte("one"), Number: 9})
	a.wants(t, "a, who sent two", "own 7 x", "seq 9 x\none")
	b.wants(t, "b", "two", "one")
	(*passed)[0].Release()
	(*passed)[1].Release()
	if used := s.group.Budget().Used(); used != 0 {
		t.Errorf("%d bytes of the budget are taken at the end", used)
	}
}

func TestWhatComesBeforeItsNumberComesAgainToThoseWhoCount(t *testing.T) {
	s, _ := newRelayed(t, TopicConfig{Retain: []string{"*"}, Replay: 10}, true)
	counts, plain := s.join(t, 0, "/topics/x?seq=1", 1<<40), s.join(t, 0, "/topics/x", 1<<40)
	slow := s.join(t, 0, "/topics/x", 0)
	s.deliver(t, Delivery{Payload: []byte("a"), Number: 5})
	s.deliver(t, Delivery{Payload: []byte("b")})
	s.deliver(t, Delivery{Payload: []byte("c")})
	counts.wants(t, "who counts", "at 0 x", "seq 5 x\na", "local x\nb", "local x\nc")
	plain.wants(t, "who does not", "a", "b", "c")
	retained := s.join(t, 0, "/topics/x", 1<<40)
	s.settle()
	retained.wants(t, "a newcomer", "c")
	since := s.join(t, 0, "/topics/x?since=5", 1<<40)
	s.settle()
	since.wants(t, "who comes back", "at 5 x")

	s.deliver(t, Delivery{Payload: []byte("other"), Number: 6})
	s.deliver(t, Delivery{Payload: []byte("b"), Number: 8, Again: true})
	s.deliver(t, Delivery{Payload: []byte("c"), Number: 9, Again: true})
	counts.wants(t, "who counts", "seq 6 x\nother", "seq 8 x\nb", "seq 9 x\nc")
	since.wants(t, "who comes back", "seq 6 x\nother", "seq 8 x\nb", "seq 9 x\nc")
	plain.wants(t, "who does not", "other")
	retained.wants(t, "the newcomer", "other")
	slow.room = 1 << 40
	s.settle()
	slow.wants(t, "who was slow", "a", "b", "c", "other")
	late := s.join(t, 0, "/topics/x", 1<<40)
	s.settle()
	late.wants(t, "a newcomer afterwards", "c")
	s.deliver(t, Delivery{Payload: []byte("d"), Number: 10})
	for _, p := range []*pipe{plain, slow, retained, late} {
		p.wants(t, "everybody without numbers", "d")
	}
}

// Another server may have told a higher number than this one has reached.
func TestNumberOfAServerThatIsAheadIsWaitedFor(t *testing.T) {
	s, _ := newRelayed(t, TopicConfig{Replay: 10}, true)
	s.deliver(t, Delivery{Payload: []byte("a"), Number: 5})
	ahead := s.join(t, 0, "/topics/x?since=7", 1<<40)
	between := s.join(t, 0, "/topics/x?since=8", 1<<40)
	s.settle()
	ahead.wants(t, "since 7", "at 7 x")
	between.wants(t, "since 8", "at 8 x")
	s.deliver(t, Delivery{Payload: []byte("b"), Number: 6})
	s.deliver(t, Delivery{Payload: []byte("c"), Number: 7})
	s.deliver(t, Delivery{Payload: []byte("d"), Number: 9})
	s.deliver(t, Delivery{Payload: []byte("e"), Number: 12})
	ahead.wants(t, "since 7", "seq 9 x\nd", "seq 12 x\ne")
	between.wants(t, "since 8", "seq 9 x\nd", "seq 12 x\ne")
	if n := s.Topics().List()[0].Behind; n != 0 {
		t.Errorf("%d are behind", n)
	}
}

func TestWhatMayBeLostIsToldBeforeTheNextMessage(t *testing.T) {
	s, _ := newRelayed(t, TopicConfig{Replay: 2}, true)
	s.Topics().Lost(3)
	counts, plain := s.join(t, 0, "/topics/x?seq=1", 1<<40), s.join(t, 0, "/topics/x", 1<<40)
	s.deliver(t, Delivery{Payload: []byte("a"), Number: 5})
	s.Topics().Lost(8)
	s.deliver(t, Delivery{Payload: []byte("b")}) // without a number: the gap is not known yet
	s.deliver(t, Delivery{Payload: []byte("c"), Number: 11})
	s.deliver(t, Delivery{Payload: []byte("d"), Number: 15, Lost: true})
	s.deliver(t, Delivery{Payload: []byte("e"), Number: 16, Lost: true})
	counts.wants(t, "who counts", "at 3 x", "seq 5 x\na", "local x\nb", "gap 6 10 x", "seq 11 x\nc", "gap 12 14 x", "seq 15 x\nd", "seq 16 x\ne")
	plain.wants(t, "who does not", "a", "b", "c", "d", "e")
	back := s.join(t, 0, "/topics/x?since=5", 1<<40)
	s.settle()
	back.wants(t, "who comes back", "at 5 x", "gap 6 11 x", "gap 12 14 x", "seq 15 x\nd", "seq 16 x\ne")
	// On a topic where nothing was since all of it is here, nothing is lost.
	quiet := s.join(t, 0, "/topics/quiet?since=9", 1<<40)
	quiet.wants(t, "on a quiet topic", "at 8 quiet")
	older := s.join(t, 0, "/topics/quiet?since=4", 1<<40)
	older.wants(t, "from before", "at 4 quiet", "gap 5 8 quiet")
}

func TestWithoutAStreamNumbersAreTheServersOwn(t *testing.T) {
	s, _ := newRelayed(t, TopicConfig{Replay: 10}, false)
	c := s.join(t, 0, "/topics/x?seq=1", 1<<40)
	var at uint64
	if _, err := fmt.Sscanf(c.got(t)[0], "at %d x", &at); err != nil {
		t.Fatal(err)
	}
	s.deliver(t, Delivery{Payload: []byte("a")})
	s.Topics().Lost(0)
	s.deliver(t, Delivery{Payload: []byte("b"), Only: true})
	c.wants(t, "who counts", fmt.Sprintf("seq %d x\na", at+1), fmt.Sprintf("gap %d %d x", at+2, at+2), fmt.Sprintf("seq %d x\nb", at+3))
	other := s.join(t, 0, fmt.Sprint("/topics/x?since=", at+1), 1<<40)
	other.wants(t, "who brings a number, perhaps of another server", fmt.Sprintf("gap %d %d x", at+2, at+3), fmt.Sprintf("at %d x", at+3))
	higher := s.join(t, 0, fmt.Sprint("/topics/x?since=", at+9), 1<<40)
	higher.wants(t, "who brings a higher one", fmt.Sprintf("gap %d %d x", at+10, at+10), fmt.Sprintf("at %d x", at+3))
	if n := s.Topics().List()[0].Dropped["link"]; n != 1 {
		t.Errorf("%d are counted that no other server gets", n)
	}
}

func TestWhatCannotBeDeliveredIsAnErrorAndAGap(t *testing.T) {
	s, _ := newRelayed(t, TopicConfig{}, true)
	c := s.join(t, 0, "/topics/x?seq=1", 1<<40)
	for _, d := range []Delivery{
		{Topic: "a b", Op: ws.OpText},
		{Topic: "x", Op: ws.OpPing},
		{Topic: "x", Op: ws.OpText, Payload: []byte("\xff")},
		{Topic: "x", Op: ws.OpBinary, Payload: make([]byte, s.topics.limit+1), Number: 4},
	} {
		if _, err := s.Topics().Deliver(&d); err == nil {
			t.Errorf("%.40q %v is no error", d.Topic, d.Op)
		}
	}
	s.deliver(t, Delivery{Payload: []byte("a"), Number: 5})
	c.wants(t, "who counts", "at 0 x", "gap 1 4 x", "seq 5 x\na")
}

func TestPublishersAreHeldWhileTheRelayHasMuch(t *testing.T) {
	s, passed := newRelayed(t, TopicConfig{Open: []string{"*"}}, true)
	p := s.join(t, 0, "/topics/x", 1<<40)
	say := func() {
		p.in = append(p.in, masked(true, ws.OpText, []byte("x"))...)
		s.settle()
	}
	s.Topics().Hold(true)
	say()
	say()
	if len(*passed) != 1 || len(p.in) == 0 {
		t.Errorf("%d messages were passed, %d bytes are unread", len(*passed), len(p.in))
	}
	s.Topics().Hold(false)
	s.settle()
	if len(*passed) != 2 {
		t.Errorf("%d messages were passed", len(*passed))
	}
}

// The relay may take less than this server does.
func TestWhatIsTooLargeForTheRelayIsAnsweredWith413(t *testing.T) {
	s := withPublishingRelay(t, func(Passed) error { return ErrTooLarge })
	status, answer, h := s.do(t, "POST", "/topics/x", strings.NewReader("large"))
	if status != http.StatusRequestEntityTooLarge || answer != ErrTooLarge.Error()+"\n" || h.Get("Retry-After") != "" {
		t.Errorf("%d %q, Retry-After %q", status, answer, h.Get("Retry-After"))
	}
	s = withPublishingRelay(t, func(Passed) error { return ErrBusy })
	if status, _, h := s.do(t, "POST", "/topics/x", strings.NewReader("more")); status != http.StatusServiceUnavailable || h.Get("Retry-After") != "1" {
		t.Errorf("when it is busy: %d, Retry-After %q", status, h.Get("Retry-After"))
	}
}

func withPublishingRelay(t *testing.T, relay func(Passed) error) *testServer {
	t.Helper()
	s, err := New(Config{})
	if err != nil {
		t.Fatal(err)
	}
	s.Topics().MountHTTP(PublishConfig{Token: token})
	s.Topics().Join(relay, true)
	return started(t, s)
}
