package epoll

import (
	"encoding/binary"
	"sync"
	"sync/atomic"
	"testing"
)

func TestPostedFunctionsOfAGoroutineRunInOrderEachOnce(t *testing.T) {
	g, _ := serve(t, Config{}, script{})
	l := g.Loops()[0]
	const goroutines, posts = 8, 5000
	next := make([]int, goroutines) // the loop's
	sum := 0
	var wg sync.WaitGroup
	for i := range goroutines {
		wg.Go(func() {
			for k := range posts {
				if !l.Post(func() {
					if next[i] != k {
						t.Errorf("function %d of goroutine %d ran when %d was due", k, i, next[i])
					}
					next[i] = k + 1
					sum++
				}) {
					t.Error("a running loop refused a function")
				}
			}
		})
	}
	wg.Wait()
	g.Do(func(*Loop) {
		if sum != goroutines*posts {
			t.Errorf("%d functions ran, want %d", sum, goroutines*posts)
		}
	})
}

func TestALoopIsWokenOnceForManyPosts(t *testing.T) {
	g, _ := serve(t, Config{}, script{})
	l := g.Loops()[0]
	before := g.Stats()
	const posts = 10_000
	ran := 0
	g.Do(func(l *Loop) { // while the loop is busy here, they gather
		for range posts {
			l.Post(func() { ran++ })
		}
	})
	done := make(chan int, 1)
	l.Post(func() { done <- ran })
	if n := await(t, done); n != posts {
		t.Errorf("%d functions ran, want %d", n, posts)
	}
	after := g.Stats()
	if waits, events := after.Waits-before.Waits, after.Events-before.Events; waits > 20 || events > 20 {
		t.Errorf("%d posts took %d batches with %d events", posts, waits, events)
	}
}

func TestTheEventfdIsWrittenOnceForABatch(t *testing.T) {
	l := stillLoop(t, Config{}, script{})
	ran := 0
	for round := range 3 {
		for range 100 {
			l.Post(func() { ran++ })
		}
		var b [8]byte
		if _, e := sysRead(l.wakefd, b[:]); e != none {
			t.Fatal(e)
		}
		if n := binary.NativeEndian.Uint64(b[:]); n != 1 {
			t.Errorf("round %d: the eventfd was written %d times for 100 functions", round, n)
		}
		if l.runPosted(); ran != 100*(round+1) {
			t.Errorf("round %d: %d functions ran", round, ran)
		}
	}
}

func TestWhatAPostedFunctionPostsRunsInALaterBatch(t *testing.T) {
	g, addr := serve(t, Config{}, script{})
	done := make(chan bool, 1)
	n := 0
	var again func()
	g.Do(func(l *Loop) {
		again = func() {
			n++
			select {
			case <-done:
			default:
				l.Post(again)
			}
		}
		l.Post(again)
	})
	// It would go on for ever, and connections still have their turn.
	talk(t, dial(t, addr), "between")
	done <- true
	settle(g)
	settle(g)
	g.Do(func(*Loop) {
		if n < 2 {
			t.Errorf("it ran %d times", n)
		}
	})
}

func TestWordsOfPostedFunctionsAreSent(t *testing.T) {
	g, addr := serve(t, Config{}, script{})
	c := dial(t, addr)
	talk(t, c, "hello")
	only(t, g, func(l *Loop, c Slot) { l.Write(c, []byte("posted")) })
	expect(t, c, "posted")
}

func TestPostAfterStopIsRefused(t *testing.T) {
	g, _ := serve(t, Config{}, script{})
	g.Stop()
	if g.Loops()[0].Post(func() { t.Error("it ran") }) {
		t.Error("it was taken")
	}
	g.Do(func(*Loop) { t.Error("Do ran") })
	g.Stop() // a second time there is nothing to do
}

func TestWhatIsPostedInTheLastBatchRuns(t *testing.T) {
	g, _ := serve(t, Config{}, script{})
	ran := 0
	l := g.Loops()[0]
	l.Post(func() {
		l.stopping = true // as Stop does
		if !l.Post(func() { ran++ }) {
			t.Error("it was refused")
		}
	})
	g.Stop()
	if ran != 1 {
		t.Errorf("it ran %d times", ran)
	}
}

func TestWhatPostTookRunsThoughTheLoopStops(t *testing.T) {
	for range 50 {
		g, _ := serve(t, Config{Loops: 2}, script{})
		var taken, ran atomic.Int64
		var wg sync.WaitGroup
		begun := make(chan bool, 4)
		for range 4 {
			wg.Go(func() {
				for i := 0; ; i++ {
					l := g.Loops()[i%2]
					if !l.Post(func() { ran.Add(1) }) {
						return
					}
					taken.Add(1)
					if i == 10 {
						begun <- true
					}
					if i%3 == 0 {
						g.Do(func(*Loop) {}) // must not hang
					}
				}
			})
		}
		await(t, begun)
		g.Stop()
		wg.Wait()
		if taken.Load() != ran.Load() {
			t.Fatalf("%d functions were taken and %d ran", taken.Load(), ran.Load())
		}
	}
}
