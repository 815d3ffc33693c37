package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"

	"wspoll/cluster"
	"wspoll/server"

	"github.com/spf13/pflag"
)

// natsOptions are the flags of serve that join its topics to those of other
// servers. Without --nats none of this runs.
type natsOptions struct {
	urls    string
	subject string
	creds   string
}

func (o *natsOptions) flags(f *pflag.FlagSet) {
	f.StringVar(&o.urls, "nats", "", "URLs of NATS, like nats://host:4222, separated by commas: what is published to a topic on one server reaches the subscribers of all (default: this server is alone)")
	f.StringVar(&o.subject, "nats-subject", "wspoll.topics", "what is in front of the topics' names in NATS")
	f.StringVar(&o.creds, "nats-creds", "", "file with the credentials for NATS")
}

// check refuses values that make no sense. URLs may have a password in them and
// are not shown.
func (o *natsOptions) check() error {
	switch {
	case o.urls != "" && !cluster.ValidURLs(o.urls):
		return errors.New("--nats: must be like nats://host:4222, or several of them separated by commas")
	case !cluster.ValidSubject(o.subject):
		return &badValue{flag: "nats-subject", value: o.subject, want: "letters, digits, - and _, in parts joined by dots, like wspoll.topics"}
	case o.creds != "" && o.urls == "":
		return errors.New("--nats-creds: without --nats there is nobody to show them to")
	}
	return nil
}

// join joins the topics of srv, which has not been started, to NATS; it returns
// nil when they stay alone.
func (o *natsOptions) join(srv *server.Server, log *slog.Logger, replay int) (*cluster.Link, error) {
	if o.urls == "" {
		return nil, nil
	}
	if o.creds != "" {
		f, err := os.Open(o.creds)
		if err != nil {
			return nil, fmt.Errorf("--nats-creds cannot be read: %w", err)
		}
		f.Close()
	}
	link, err := cluster.Join(context.Background(), cluster.Config{
		URLs: o.urls, Subject: o.subject, Creds: o.creds, Replay: replay, Log: log,
	}, srv.Topics())
	if err != nil {
		return nil, fmt.Errorf("--nats: %w", err)
	}
	srv.Trouble(link.Trouble)
	return link, nil
}
