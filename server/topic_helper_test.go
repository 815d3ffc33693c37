package server

import (
	"context"
	"fmt"
	"testing"
	"time"

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
	addr, err := s.Listen("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s.Start()
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), 2*time.Second)
		defer cancel()
		s.Shutdown(ctx) // what a test left open is not its subject
	})
	return &testServer{s, addr.String()}
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

// closedContext is a context that is done.
func closedContext(t testing.TB) context.Context {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	return ctx
}
