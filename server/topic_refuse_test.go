package server

import (
	"context"
	"errors"
	"strconv"
	"strings"
	"testing"

	"github.com/gobwas/ws"
)

func TestClosedTopicTakesNoMessagesFromClients(t *testing.T) {
	s := withTopics(t, Config{Topics: TopicConfig{Open: []string{"chat.*"}}})
	c := s.open(t, "/topics/news")
	c.send(ws.OpText, []byte("me too"))
	if says := c.wantClose(ws.StatusPolicyViolation); says != "topic news takes no messages from clients" {
		t.Errorf("%q", says)
	}
}

func TestMessageTooLargeForATopicIsRefused(t *testing.T) {
	s := withTopics(t, Config{MaxPending: 64 << 10, Topics: TopicConfig{Open: []string{"*"}}})
	limit := s.Topics().limit
	c, d := s.open(t, "/topics/x"), s.open(t, "/topics/x")
	s.subscribers(t, "x", 2)
	if _, err := s.Topics().Publish("x", ws.OpBinary, make([]byte, limit+1)); !errors.Is(err, ErrTooLarge) {
		t.Errorf("error %v", err)
	}
	if _, err := s.Topics().Publish("x", ws.OpBinary, make([]byte, limit)); err != nil {
		t.Error(err)
	}
	for _, c := range []*client{c, d} {
		if _, m := c.message(); len(m) != limit {
			t.Errorf("%d bytes", len(m))
		}
	}
	c.send(ws.OpBinary, make([]byte, limit+1))
	if says := c.wantClose(ws.StatusMessageTooBig); !strings.Contains(says, strconv.Itoa(limit)) {
		t.Errorf("%q", says)
	}
}

func TestWhatCannotBePublishedOrSubscribedTo(t *testing.T) {
	s := withTopics(t, Config{Topics: TopicConfig{Max: 2, Replay: 1}})
	tp := s.Topics()
	for _, bad := range []struct {
		name string
		op   ws.OpCode
		text string
		want error
	}{
		{"", ws.OpText, "", ErrTopicName},
		{"a b", ws.OpText, "", ErrTopicName},
		{"a/b", ws.OpText, "", ErrTopicName},
		{".a", ws.OpText, "", ErrTopicName},
		{"a.", ws.OpText, "", ErrTopicName},
		{"a..b", ws.OpText, "", ErrTopicName},
		{"*", ws.OpText, "", ErrTopicName},
		{"ä", ws.OpText, "", ErrTopicName},
		{"(push 0)", ws.OpText, "", ErrTopicName},
		{strings.Repeat("x", 129), ws.OpText, "", ErrTopicName},
		{"a", ws.OpPing, "", ErrOpcode},
		{"a", ws.OpContinuation, "", ErrOpcode},
		{"a", ws.OpText, "\xff", ErrText},
	} {
		if _, err := tp.Publish(bad.name, bad.op, []byte(bad.text)); !errors.Is(err, bad.want) {
			t.Errorf("%q %d %q: error %v, want %v", bad.name, bad.op, bad.text, err, bad.want)
		}
	}
	for _, good := range []string{strings.Repeat("x", 128), "A-z_0~9.b"} {
		s.publish(t, good, "")
	}
	if _, err := tp.Publish("third", ws.OpText, nil); !errors.Is(err, ErrTopicMax) {
		t.Errorf("error %v", err)
	}
	c := s.open(t, "/topics/third")
	if says := c.wantClose(1013); says != ErrTopicMax.Error() {
		t.Errorf("%q", says)
	}
	for path, want := range map[string]struct {
		status int
		says   string
	}{
		"/topics/":                    {404, "a topic's name is"},
		"/topics/a/b":                 {404, "no WebSocket service"},
		"/topics/a%20b":               {404, "a topic's name is"},
		"/topics/a?also=b,c%20d":      {400, `also="c d"`},
		"/topics/a?since=x":           {400, `since "x" is not the number`},
		"/topics/a?since=-1":          {400, `since "-1" is not the number`},
		"/topics/a?since=":            {400, `since "" is not the number`},
		"/topics/a?also=b:1:2":        {400, `since "1:2" is not`},
		"/topics/a?also=%zz":          {400, "query cannot be read"},
		"/topics/a?also=" + manyNames: {400, "more than 32 topics"},
	} {
		r, body := s.answer(t, request(path))
		if r.StatusCode != want.status || !strings.Contains(body, want.says) {
			t.Errorf("%s: %s %q, want %d with %q", path, r.Status, body, want.status, want.says)
		}
	}
	if r, _ := s.answer(t, "GET /topics/a HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"); r.StatusCode != 426 {
		t.Errorf("without Upgrade: %s", r.Status)
	}
}

var manyNames = strings.Repeat("x,", 40) + "x"

func TestConfigOfTopicsThatCannotBeIsRefused(t *testing.T) {
	for _, cfg := range []TopicConfig{
		{Open: []string{"["}},
		{Retain: []string{""}},
		{Policies: []TopicPolicy{{"[", PolicyClose}}},
		{Policies: []TopicPolicy{{"*", 9}}},
		{Replay: -1},
		{Pending: -1},
		{Max: -1},
	} {
		if s, err := New(Config{Topics: cfg}); err == nil {
			s.Shutdown(context.Background())
			t.Errorf("%+v is taken", cfg)
		}
	}
	for _, p := range []Policy{PolicyClose, PolicyDropOldest, PolicyLatest} {
		if q, err := ParsePolicy(p.String()); err != nil || q != p {
			t.Errorf("%v is read as %v, %v", p, q, err)
		}
	}
	if _, err := ParsePolicy("drop"); err == nil {
		t.Error(`"drop" is a policy`)
	}
}
