package cluster

import (
	"context"
	"errors"
	"strings"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
)

// ready: the stream can be read, and this is what it holds.
type ready struct {
	gen         int
	first, last uint64
	anew        bool            // last is before what we have had
	trimmed     map[string]bool // topics of which it has let messages go
}

func (l *Link) streamName() string {
	return strings.ToUpper(strings.ReplaceAll(l.cfg.Subject, ".", "_"))
}

// stream looks the stream up, and makes it when there is none. Its numbers
// begin at the time, in microseconds: so they go up also when it is made anew.
func (l *Link) stream(ctx context.Context) (jetstream.Stream, error) {
	s, err := l.js.Stream(ctx, l.streamName())
	if !errors.Is(err, jetstream.ErrStreamNotFound) {
		return s, err
	}
	s, err = l.js.CreateStream(ctx, jetstream.StreamConfig{
		Name: l.streamName(), Subjects: []string{l.cfg.Subject + ".>"}, Description: "topics of wspoll",
		MaxMsgsPerSubject: int64(max(1, l.cfg.Replay) + perSubject), MaxBytes: streamBytes,
		Discard: jetstream.DiscardOld, FirstSeq: uint64(time.Now().UnixMicro()),
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
				l.cfg.Log.Debug("the stream cannot be read yet", "error", err)
			}
			select {
			case <-time.After(250 * time.Millisecond):
			case <-ctx.Done():
			}
		}
	}()
	return func() { cancel(); <-ended }
}

// read reads the stream until ctx is done; an error means that it could not begin.
func (l *Link) read(ctx context.Context, gen int, last uint64) error {
	s, r, err := l.look(ctx, gen, last)
	if err != nil {
		return err
	}
	begin := last + 1
	if r.anew {
		begin = 1
	}
	consumer, err := s.OrderedConsumer(ctx, jetstream.OrderedConsumerConfig{
		DeliverPolicy: jetstream.DeliverByStartSequencePolicy, OptStartSeq: begin,
	})
	if err != nil {
		return err
	}
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
		case l.in <- arrival{gen, msg, meta.Sequence.Stream}:
		case <-ctx.Done():
		}
	}, jetstream.PullMaxMessages(incoming), jetstream.PullHeartbeat(time.Second), jetstream.PullExpiry(10*time.Second))
	if err != nil {
		return err
	}
	<-ctx.Done()
	c.Stop()
	return nil
}

// look finds out what the stream holds.
func (l *Link) look(ctx context.Context, gen int, last uint64) (jetstream.Stream, ready, error) {
	ctx, cancel := context.WithTimeout(ctx, comeUp/2)
	defer cancel()
	s, err := l.stream(ctx)
	if err != nil {
		return nil, ready{}, err
	}
	info, err := s.Info(ctx, jetstream.WithSubjectFilter(">"))
	if err != nil {
		return nil, ready{}, err
	}
	r := ready{gen: gen, first: info.State.FirstSeq, last: info.State.LastSeq, trimmed: map[string]bool{}}
	if info.State.Msgs == 0 {
		r.first = r.last + 1
	}
	r.anew = last > r.last
	if most := info.Config.MaxMsgsPerSubject; most > 0 {
		for subject, n := range info.State.Subjects {
			if int64(n) >= most {
				r.trimmed[strings.TrimPrefix(subject, l.cfg.Subject+".")] = true
			}
		}
	}
	return s, r, nil
}

// subscribe takes messages as they come, without JetStream.
func (l *Link) subscribe() error {
	sub, err := l.nc.Subscribe(l.cfg.Subject+".>", func(m *nats.Msg) {
		select {
		case l.in <- arrival{msg: m}:
		case <-l.ended:
		}
	})
	if err != nil {
		return err
	}
	return sub.SetPendingLimits(maxWaiting, 64<<20)
}
