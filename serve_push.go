package main

import (
	"bytes"
	"fmt"
	"os"
	"path"
	"strings"
	"time"
	"unicode/utf8"

	"wspoll/epoll"
	"wspoll/server"

	"github.com/spf13/pflag"
)

// pushOptions are the flags of serve for what the server sends by itself: heart
// beats at /push, and topics.
type pushOptions struct {
	every   time.Duration
	message string
	align   bool

	open     []string
	retain   []string
	replay   int
	policies []string
	pending  byteSize
	max      int

	tokenFile string
	rate      float64
}

func (o *pushOptions) flags(f *pflag.FlagSet) {
	o.pending = 1 << 20
	f.DurationVar(&o.every, "push-every", 3*time.Second, "time between two heart beats at /push")
	f.StringVar(&o.message, "push-message", "heart beat", "the text that /push sends")
	f.BoolVar(&o.align, "push-align", false, "send the heart beats of all clients at the same moments, not each in its own phase")
	f.StringSliceVar(&o.open, "topic-open", nil, "pattern of topics, like chat.*, whose subscribers may publish to each other; repeatable")
	f.StringSliceVar(&o.retain, "topic-retain", nil, "pattern of topics that keep their newest message for newcomers; repeatable")
	f.IntVar(&o.replay, "topic-replay", 0, "messages that each topic keeps for clients that come back with ?since=N")
	f.StringSliceVar(&o.policies, "topic-policy", nil, "what happens to slow readers, PATTERN=close, =drop-oldest or =latest; the first that fits counts; repeatable (default close)")
	f.Var(&o.pending, "topic-pending", "bytes of messages kept for the slow readers of a topic, all together")
	f.IntVar(&o.max, "topic-max", 10000, "most topics at a time")
	f.StringVar(&o.tokenFile, "publish-token-file", "", "file with the token that POST /topics/NAME must bring as Authorization: Bearer (default: nobody may publish over HTTP)")
	f.Float64Var(&o.rate, "publish-rate", 0, "most publishes per second over HTTP, 0 for no limit; above it: 429")
}

// topics is what the flags say of topics. It refuses values that make no sense.
func (o *pushOptions) topics() (server.TopicConfig, error) {
	cfg := server.TopicConfig{
		Open: o.open, Retain: o.retain, Replay: o.replay, Pending: int(o.pending), Max: o.max,
	}
	bad := func(flag string, value any, want string) (server.TopicConfig, error) {
		return cfg, &badValue{flag: flag, value: fmt.Sprint(value), want: want}
	}
	switch {
	case o.every < epoll.Tick || o.every > 24*time.Hour:
		return bad("push-every", o.every, fmt.Sprintf("from %s to a day", epoll.Tick))
	case !utf8.ValidString(o.message) || o.message == "":
		return bad("push-message", o.message, "text in UTF-8, and not empty")
	case o.replay < 0:
		return bad("topic-replay", o.replay, "0 or more")
	case o.pending < 4<<10 || o.pending > 1<<30:
		return bad("topic-pending", &o.pending, "from 4KiB to 1GiB")
	case o.max < 1:
		return bad("topic-max", o.max, "1 or more")
	case !(o.rate >= 0 && o.rate <= 1e9):
		return bad("publish-rate", o.rate, "from 0 to 1e9")
	}
	const form = "a pattern of topics, like news or chat.*"
	for _, p := range o.open {
		if !isPattern(p) {
			return bad("topic-open", p, form)
		}
	}
	for _, p := range o.retain {
		if !isPattern(p) {
			return bad("topic-retain", p, form)
		}
	}
	for _, s := range o.policies {
		pattern, name, _ := strings.Cut(s, "=")
		policy, err := server.ParsePolicy(name)
		if err != nil || !isPattern(pattern) {
			return bad("topic-policy", s, "like PATTERN=close, PATTERN=drop-oldest or PATTERN=latest")
		}
		cfg.Policies = append(cfg.Policies, server.TopicPolicy{Pattern: pattern, Policy: policy})
	}
	return cfg, nil
}

func isPattern(s string) bool {
	_, err := path.Match(s, "")
	return err == nil && s != ""
}

// mount gives srv the endpoints /push and /topics/NAME, and publishing over HTTP.
func (o *pushOptions) mount(srv *server.Server) error {
	token, err := o.token()
	if err != nil {
		return err
	}
	beat, err := srv.HeartBeat(server.HeartBeat{Every: o.every, Message: o.message, Align: o.align})
	if err != nil {
		return err
	}
	if err := srv.Handle("/push", beat); err != nil {
		return err
	}
	srv.Topics().MountHTTP(server.PublishConfig{Token: token, Rate: o.rate})
	return srv.Handle("/topics/", srv.Topics().Endpoint())
}

func (o *pushOptions) token() (string, error) {
	if o.tokenFile == "" {
		return "", nil
	}
	b, err := os.ReadFile(o.tokenFile)
	if err != nil {
		return "", fmt.Errorf("--publish-token-file cannot be read: %w", err)
	}
	if b = bytes.TrimSpace(b); len(b) < 16 {
		return "", fmt.Errorf("--publish-token-file %s: a token of %d bytes; make it 16 or more, like: openssl rand -hex 16", o.tokenFile, len(b))
	}
	return string(b), nil
}
