package cluster

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// ready: the stream can be read, and this is what it holds.
type ready struct {
	gen         int
	first, last uint64          // numbers, see base
	rest        uint64          // how many will come
	trimmed     map[string]bool // topics of which it has let messages go
}

func (l *Link) streamName() string {
	return strings.ToUpper(strings.ReplaceAll(l.cfg.Subject, ".", "_"))
}

// lookUp looks the stream up, and makes it when there is none. Its numbers
// begin at the time, in microseconds, and above last: so they go up also when it
// is made anew.
func (l *Link) lookUp(ctx context.Context, last uint64) (jetstream.Stream, error) {
	s, err := l.js.Stream(ctx, l.streamName())
	if !errors.Is(err, jetstream.ErrStreamNotFound) {
		return s, err
	}
	s, err = l.js.CreateStream(ctx, jetstream.StreamConfig{
		Name: l.streamName(), Subjects: []string{l.cfg.Subject + ".>"}, Description: "topics of wspoll",
		MaxMsgsPerSubject: int64(max(1, l.cfg.Replay) + perSubject), MaxBytes: streamBytes,
		Discard: jetstream.DiscardOld, FirstSeq: max(last+1, uint64(time.Now().UnixMicro())),
	})
	if errors.Is(err, jetstream.ErrStreamNameAlreadyInUse) { // another server was faster
		return l.js.Stream(ctx, l.streamName())
	}
	return s, err
}

// streamBytes bounds what the stream that we make keeps.
const streamBytes = 1 << 30

// resume begins to read the stream behind last, in the background and until it
// can; stop ends that.
func (l *Link) resume(gen int, last uint64) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for ctx.Err() == nil {
			err := l.read(ctx, gen, last)
			if err == nil {
				return
			}
			if ctx.Err() == nil {
				l.said(fmt.Errorf("the stream cannot be read yet: %w", err))
			}
			select {
			case <-time.After(250 * time.Millisecond):
			case <-ctx.Done():
			}
		}
	}()
	return func() { cancel(); <-ended }
}

// unread: the stream cannot be read any more.
type unread struct {
	gen int
	err error
}

// read reads the stream until ctx is done; an error means that it could not begin.
func (l *Link) read(ctx context.Context, gen int, last uint64) error {
	s, base, r, err := l.look(ctx, gen, last)
	if err != nil {
		return err
	}
	begin := uint64(1)
	if last >= base {
		begin = last - base + 1
	}
	consumer, err := s.OrderedConsumer(ctx, jetstream.OrderedConsumerConfig{
		DeliverPolicy: jetstream.DeliverByStartSequencePolicy, OptStartSeq: begin,
	})
	if err != nil {
		return err
	}
	r.rest = consumer.CachedInfo().NumPending
	select {
	case l.ready <- r:
	case <-ctx.Done():
		return nil
	}
	c, err := consumer.Consume(func(m jetstream.Msg) {
		meta, err := m.Metadata()
		if err != nil {
			return
		}
		msg := &nats.Msg{Subject: m.Subject(), Header: m.Headers(), Data: m.Data()}
		select {
		case l.in <- arrival{gen: gen, msg: msg, seq: base + meta.Sequence.Stream, rest: meta.NumPending}:
		case <-ctx.Done():
		}
	}, jetstream.PullMaxMessages(incoming), jetstream.PullHeartbeat(time.Second), jetstream.PullExpiry(10*time.Second),
		jetstream.ConsumeErrHandler(func(_ jetstream.ConsumeContext, err error) {
			// It would look for the stream that it knew, for ever.
			select {
			case l.unread <- unread{gen, err}:
			default:
			}
		}))
	if err != nil {
		return err
	}
	<-ctx.Done()
	go c.Stop() // it may wait for an answer of NATS
	return nil
}

// base is added to the numbers of a stream. One that we have made has numbers
// that begin at its time; one that others have made begins at 1, and when it is
// made again, it does so again.
func base(info *jetstream.StreamInfo) uint64 {
	if info.Config.FirstSeq >= 1e15 {
		return 0
	}
	return uint64(info.Created.UnixMicro())
}

// look finds out what the stream holds.
func (l *Link) look(ctx context.Context, gen int, last uint64) (jetstream.Stream, uint64, ready, error) {
	ctx, cancel := context.WithTimeout(ctx, comeUp/2)
	defer cancel()
	s, err := l.lookUp(ctx, last)
	if err != nil {
		return nil, 0, ready{}, err
	}
	info, err := s.Info(ctx, jetstream.WithSubjectFilter(">"))
	if err != nil {
		return nil, 0, ready{}, err
	}
	r := ready{gen: gen, trimmed: map[string]bool{}}
	base := base(info)
	if have := base + info.State.LastSeq; have < last {
		if err := l.fill(ctx, last+1-have); err != nil {
			return nil, 0, ready{}, err
		}
		if info, err = s.Info(ctx, jetstream.WithSubjectFilter(">")); err != nil {
			return nil, 0, ready{}, err
		}
		if base+info.State.LastSeq <= last {
			return nil, 0, ready{}, fmt.Errorf("the stream has not taken the numbers up to %d", last)
		}
		l.cfg.Log.Error("NATS has lost messages that were in the stream; subscribers are told of a gap", "stream", l.streamName(), "had", last, "has", have)
	}
	r.first, r.last = base+info.State.FirstSeq, base+info.State.LastSeq
	if info.State.Msgs == 0 {
		r.first = r.last + 1
	}
	if most := info.Config.MaxMsgsPerSubject; most > 0 {
		for subject, n := range info.State.Subjects {
			if int64(n) >= most {
				r.trimmed[strings.TrimPrefix(subject, l.cfg.Subject+".")] = true
			}
		}
	}
	return s, base, r, nil
}

// filler takes numbers that must not be given again; no topic has this name.
// The last one has a payload, and is where a gap is.
const (
	filler     = "="
	mostFiller = 1 << 17
)

// fill publishes n messages that nobody gets, behind the end of a stream whose
// storage has lost its newest ones.
func (l *Link) fill(ctx context.Context, n uint64) error {
	subject := l.cfg.Subject + "." + filler
	if n > mostFiller {
		return fmt.Errorf("%d numbers cannot be filled: the stream must be deleted, or its storage brought back", n)
	}
	for range n - 1 {
		if err := l.nc.Publish(subject, nil); err != nil {
			return err
		}
	}
	_, err := l.js.Publish(ctx, subject, []byte("gap")) // when this one is there, all are
	return err
}
