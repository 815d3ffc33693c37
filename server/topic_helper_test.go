package server

import (
	"fmt"
	"testing"

	"github.com/gobwas/ws"
)

// withTopics is a server with topics at /topics/.
func withTopics(t testing.TB, cfg Config) *testServer {
	t.Helper()
	s, err := New(cfg)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Handle("/echo", Echo()); err != nil {
		t.Fatal(err)
	}
	if err := s.Handle("/topics/", s.Topics().Endpoint()); err != nil {
		t.Fatal(err)
	}
	return started(t, s)
}

func (s *testServer) publish(t testing.TB, topic, text string) Published {
	t.Helper()
	p, err := s.Topics().Publish(topic, ws.OpText, []byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// subscribers waits until a topic has n of them.
func (s *testServer) subscribers(t testing.TB, topic string, n int) {
	t.Helper()
	eventually(t, fmt.Sprint(n, " subscribers of ", topic), func() bool { return s.info(topic).Subscribers == n })
}

func (s *testServer) info(topic string) TopicInfo {
	for _, i := range s.Topics().List() {
		if i.Name == topic {
			return i
		}
	}
	return TopicInfo{}
}

// hears reads messages, which must be these.
func (c *client) hears(want ...string) {
	c.t.Helper()
	for _, w := range want {
		if _, got := c.message(); string(got) != w {
			c.t.Fatalf("got %.80q, want %.80q", got, w)
		}
	}
}
