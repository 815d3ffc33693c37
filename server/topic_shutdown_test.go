package server

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/gobwas/ws"
)

func TestPublishAfterShutdownIsRefused(t *testing.T) {
	s := withTopics(t, Config{})
	receive(t, "Shutdown", s.shutdown(patience))
	if _, err := s.Topics().Publish("a", ws.OpText, nil); !errors.Is(err, ErrStopped) {
		t.Errorf("error %v", err)
	}
}

// What Publish has taken arrives before the Close of Shutdown, also at a
// subscriber that is behind; who has nothing to wait for is told at once.
func TestShutdownDeliversWhatWasPublishedBefore(t *testing.T) {
	s := withTopics(t, Config{Loops: 2, CloseTimeout: patience, WriteTimeout: patience, Topics: TopicConfig{Pending: 64 << 20}})
	var all []*client
	for range 20 {
		all = append(all, s.open(t, "/topics/x"))
	}
	slow := s.dial(t)
	slow.SetReadBuffer(128 << 10)
	all = append(all, join(t, slow, hello("/topics/x"), nil))
	echo := s.open(t, "/echo")
	s.subscribers(t, "x", len(all))
	const n = 150
	var last Published
	for i := range n {
		last = s.publish(t, "x", fmt.Sprintf("%d %s", i, strings.Repeat("x", 50_000)))
	}
	eventually(t, "somebody is behind", func() bool { return s.info("x").Behind > 0 })
	done := s.shutdown(patience)
	echo.wantClose(ws.StatusGoingAway)
	var wg sync.WaitGroup
	for _, c := range all {
		wg.Go(func() {
			for i := range n {
				_, m := c.message()
				if head, _, _ := strings.Cut(string(m), " "); head != fmt.Sprint(i) {
					t.Errorf("%s where %d should come", head, i)
					return
				}
			}
			c.wantClose(ws.StatusGoingAway)
			c.close(ws.StatusGoingAway)
		})
	}
	wg.Wait()
	echo.close(ws.StatusGoingAway)
	if err := receive(t, "Shutdown", done); err != nil {
		t.Error(err)
	}
	if used := s.group.Budget().Used(); used != 0 {
		t.Errorf("%d bytes of the budget are taken after the end; published up to %d", used, last.Seq)
	}
}

func TestPublishesWhileShutdownBeginsAreDeliveredOrRefused(t *testing.T) {
	for range 20 {
		s := withTopics(t, Config{Loops: 2})
		c := s.open(t, "/topics/x")
		s.subscribers(t, "x", 1)
		var taken [4]int
		var wg sync.WaitGroup
		for p := range taken {
			wg.Go(func() {
				for {
					switch _, err := s.Topics().Publish("x", ws.OpText, fmt.Append(nil, p)); {
					case errors.Is(err, ErrStopped):
						return
					case err == nil:
						taken[p]++
					case !errors.Is(err, ErrBusy):
						t.Error(err)
						return
					}
				}
			})
		}
		got := make(chan [4]int, 1)
		go func() {
			var n [4]int
			for {
				f, err := c.next()
				if err != nil || f.op == ws.OpClose {
					got <- n
					return
				}
				n[f.payload[0]-'0']++
			}
		}()
		time.Sleep(time.Millisecond) // they are in the middle of it
		done := s.shutdown(patience)
		wg.Wait()
		if n := receive(t, "the Close", got); n != taken {
			t.Fatalf("%v were taken, %v arrived", taken, n)
		}
		c.conn.Close()
		receive(t, "Shutdown", done)
	}
}

func TestShutdownEndsSubscribersThatNeverCatchUpAtItsDeadline(t *testing.T) {
	s := withTopics(t, Config{CloseTimeout: patience, WriteTimeout: patience, Topics: TopicConfig{Pending: 64 << 20}})
	c := s.dial(t)
	c.SetReadBuffer(4 << 10)
	join(t, c, hello("/topics/x"), nil)
	s.subscribers(t, "x", 1)
	for range 100 {
		s.publish(t, "x", strings.Repeat("x", 100_000))
	}
	err := receive(t, "Shutdown", s.shutdown(300*time.Millisecond))
	if err == nil || !strings.Contains(err.Error(), "1 connections did not end in time") {
		t.Errorf("error %v", err)
	}
}
