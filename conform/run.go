package conform

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"time"
)

// Options are what a run is done with. The zero value is of no use: Timeout must be set.
type Options struct {
	Timeout  time.Duration // for each thing that must come
	Parallel int           // cases at the same time; 0 means 1
	Chop     int           // cut all that is sent into pieces of so many bytes; 0 means not
	Cut      int           // run each case again and again, what is sent cut in two at every Cut-th position, see cuts; 0 means not. Not for Listen
	Origin   string        // value of the Origin header; empty means none
	Header   []string      // further header lines for every request
}

// Result is what a case found.
type Result struct {
	ID         string        `json:"id"`
	Section    string        `json:"section"`
	Sentence   string        `json:"sentence"`
	Verdict    Verdict       `json:"verdict"`
	Remarks    []Remark      `json:"remarks,omitempty"`
	Took       time.Duration `json:"nanoseconds"`
	Runs       int           `json:"runs,omitempty"`       // how often it was run, with Options.Cut
	Explained  []string      `json:"explained,omitempty"`  // the bytes in words; not for ok
	Transcript []Chunk       `json:"transcript,omitempty"` // the bytes; not for ok
}

// heavyAtOnce is how many cases that move megabytes run at the same time.
const heavyAtOnce = 2

// Run runs cases against the server at t and tells each result to done, one at a time, in the order in which they come.
// The results are in the order of the cases; those that a cancelled ctx left undone are missing.
func Run(ctx context.Context, t *Target, cases []Case, o Options, done func(*Result)) []Result {
	results := make([]*Result, len(cases))
	todo := make(chan int)
	heavy := make(chan struct{}, heavyAtOnce)
	var workers sync.WaitGroup
	var mu sync.Mutex
	for range max(1, o.Parallel) {
		workers.Go(func() {
			var beside beacon
			defer beside.end()
			fresh := func() *Session { return &Session{ctx: ctx, opts: &o, client: true, target: t, beside: &beside} }
			for i := range todo {
				if cases[i].Heavy {
					heavy <- struct{}{}
				}
				s := fresh()
				r := runCase(&cases[i], s)
				if o.Cut > 0 && r != nil {
					r = cutEverywhere(&cases[i], r, s.sent, i%o.Cut, fresh)
				}
				if cases[i].Heavy {
					<-heavy
				}
				if r == nil {
					continue
				}
				mu.Lock()
				results[i] = r
				if done != nil {
					done(r)
				}
				mu.Unlock()
			}
		})
	}
feed:
	for i := range cases {
		select {
		case todo <- i:
		case <-ctx.Done():
			break feed
		}
	}
	close(todo)
	workers.Wait()
	var all []Result
	for _, r := range results {
		if r != nil {
			all = append(all, *r)
		}
	}
	return all
}

// runCase runs one case on s; nil if ctx ended it.
func runCase(c *Case, s *Session) *Result {
	began := time.Now()
	s.run(c)
	s.release()
	if s.ctx.Err() != nil {
		return nil
	}
	r := &Result{
		ID: c.ID, Section: c.Section(), Sentence: c.Sentence,
		Verdict: s.verdict, Remarks: s.remarks, Took: time.Since(began),
	}
	if r.Verdict != OK {
		r.Transcript = s.record.chunks
		r.Explained = explain(r.Transcript, s.client)
	}
	return r
}

func (s *Session) run(c *Case) {
	defer func() {
		if v := recover(); v != nil {
			if _, ok := v.(stop); !ok {
				panic(fmt.Sprintf("case %s: %v", c.ID, v))
			}
		}
	}()
	c.Run(s)
}

// Probe finds out whether there is a server at t that takes the handshake, so that one line can tell what hundreds of
// cases would. The error wraps that of the network or of TLS, if it was one.
func Probe(ctx context.Context, t *Target, o Options) error {
	c := Case{ID: "rfc6455-4-probe", Run: func(s *Session) {
		s.ask(nil)
		if r := s.Answer(); r.Status != 101 {
			s.Fail("it answers %s; a URL of an echo is needed", printable(strings.TrimSpace(fmt.Sprintf("%d %s", r.Status, r.Reason))))
		}
	}}
	s := &Session{ctx: ctx, opts: &o, client: true, target: t}
	r := runCase(&c, s)
	switch {
	case r == nil:
		return ctx.Err()
	case s.trouble != nil:
		return fmt.Errorf("%s: cannot connect: %w", t.URL, s.trouble)
	case r.Verdict == Failed:
		return fmt.Errorf("%s: %s", t.URL, r.Why())
	}
	return nil
}
