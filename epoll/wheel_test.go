package epoll

import (
	"math/rand/v2"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// alarm is a still loop whose Expired notes the time.
type alarm struct {
	*Loop
	start int64
	rang  map[Slot][]time.Duration
}

func newAlarm(t *testing.T) *alarm {
	a := &alarm{rang: map[Slot][]time.Duration{}}
	a.Loop = stillLoop(t, Config{}, script{expired: func(l *Loop, c Slot) {
		a.rang[c] = append(a.rang[c], time.Duration(l.now-a.start))
	}})
	a.start = a.now
	return a
}

// steps sleeps for d, a tick at a time.
func (a *alarm) steps(d time.Duration) {
	for ; d > 0; d -= Tick {
		sleep(a.Loop, min(d, Tick))
	}
}

// once fails the test unless c rang once, in the two ticks after due.
func (a *alarm) once(t *testing.T, c Slot, due time.Duration) {
	t.Helper()
	if r := a.rang[c]; len(r) != 1 || r[0] < due || r[0] > due+2*Tick {
		t.Errorf("due at %v, rang at %v", due, r)
	}
}

// chair is a connection that only sits on the loop.
func chair(t *testing.T, l *Loop) Slot {
	t.Helper()
	fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC)
	if err != nil {
		t.Fatal(err)
	}
	c, _, e := l.add(int32(fd), 0)
	if e != none {
		t.Fatal(e)
	}
	return c
}

func TestADeadlineFiresOnceInTheTwoTicksAfterIt(t *testing.T) {
	a := newAlarm(t)
	due := map[Slot]time.Duration{}
	for _, d := range []time.Duration{1, time.Millisecond, Tick - 1, Tick, Tick + 1, 7*Tick + 3, time.Second, 30 * time.Second} {
		c := chair(t, a.Loop)
		a.SetDeadline(c, d)
		due[c] = d
	}
	a.steps(time.Minute)
	for c, d := range due {
		a.once(t, c, d)
	}
	if a.wheel.count != 0 {
		t.Errorf("%d timers are left on the wheel", a.wheel.count)
	}
}

func TestADeadlineMovedLaterFiresOnceAtTheNewTime(t *testing.T) {
	a := newAlarm(t)
	c := chair(t, a.Loop)
	for range 50 {
		a.SetDeadline(c, 200*time.Millisecond)
		a.steps(100 * time.Millisecond)
	}
	if a.rang[c] != nil {
		t.Errorf("rang at %v while it was moved", a.rang[c])
	}
	a.steps(10 * time.Second)
	a.once(t, c, 49*100*time.Millisecond+200*time.Millisecond)
}

func TestADeadlineMovedEarlierFiresOnceAtTheNewTime(t *testing.T) {
	a := newAlarm(t)
	c := chair(t, a.Loop)
	a.SetDeadline(c, 10*time.Second)
	a.steps(time.Second)
	a.SetDeadline(c, time.Second)
	a.steps(20 * time.Second)
	a.once(t, c, 2*time.Second)
}

func TestACancelledDeadlineNeverFires(t *testing.T) {
	a := newAlarm(t)
	c, d := chair(t, a.Loop), chair(t, a.Loop)
	a.SetDeadline(c, time.Second)
	a.SetDeadline(d, time.Second)
	a.steps(500 * time.Millisecond)
	a.SetDeadline(c, 0)
	a.SetDeadline(d, -time.Second)
	a.steps(10 * time.Minute)
	if len(a.rang) != 0 {
		t.Errorf("rang: %v", a.rang)
	}
}

func TestADeadlineBeyondARoundWaitsForItsOwn(t *testing.T) {
	a := newAlarm(t)
	const round = wheelSize * Tick
	due := map[Slot]time.Duration{}
	for _, d := range []time.Duration{time.Second, round - Tick, round, round + Tick, round + time.Second, 3*round + time.Second} {
		c := chair(t, a.Loop)
		a.SetDeadline(c, d)
		due[c] = d
	}
	a.steps(4 * round)
	for c, d := range due {
		a.once(t, c, d)
	}
}

func TestASleepOfMoreThanARoundFiresWhatPassedAndNothingElse(t *testing.T) {
	a := newAlarm(t)
	const round = wheelSize * Tick
	var passed, ahead []Slot
	for i := range 50 {
		c := chair(t, a.Loop)
		a.SetDeadline(c, time.Duration(i+1)*time.Second/10)
		passed = append(passed, c)
		c = chair(t, a.Loop)
		a.SetDeadline(c, 3*round+time.Duration(i+1)*time.Second)
		ahead = append(ahead, c)
	}
	sleep(a.Loop, 2*round+123*time.Millisecond)
	for _, c := range passed {
		if len(a.rang[c]) != 1 {
			t.Errorf("a deadline that passed rang %d times", len(a.rang[c]))
		}
	}
	for _, c := range ahead {
		if len(a.rang[c]) != 0 {
			t.Errorf("a deadline of a later round rang at %v", a.rang[c])
		}
	}
	a.steps(round + 2*time.Minute - 123*time.Millisecond)
	for i, c := range ahead {
		a.once(t, c, 3*round+time.Duration(i+1)*time.Second)
	}

	// With nothing on the wheel a long sleep is one step, and what is set
	// then counts from then.
	sleep(a.Loop, 100*round)
	a.rang, a.start = map[Slot][]time.Duration{}, a.now
	a.SetDeadline(passed[0], time.Second)
	a.steps(2 * time.Second)
	a.once(t, passed[0], time.Second)
}

func TestAHandlerMayCloseOthersOfTheSameBucket(t *testing.T) {
	var cs []Slot
	fired := 0
	l := stillLoop(t, Config{}, script{expired: func(l *Loop, c Slot) {
		fired++
		for _, o := range cs { // itself as well
			l.Close(o)
		}
		// The slots are used again at once, with deadlines in the wheel.
		for range cs {
			l.SetDeadline(chair(t, l), time.Second)
		}
	}})
	for ; l.top < 2*wheelSize; l.top++ { // the slots have other numbers than the buckets
		l.slots.Grow(l.top)
		l.slots.At(l.top).fd = -1
	}
	for range 10 {
		c := chair(t, l)
		l.SetDeadline(c, 100*time.Millisecond)
		cs = append(cs, c)
	}
	sleep(l, 200*time.Millisecond)
	if fired != 1 {
		t.Errorf("%d deadlines fired, want only the first: it closed the others", fired)
	}
	if l.Len() != 10 || l.wheel.count != 10 {
		t.Errorf("%d connections and %d timers, want the 10 new ones", l.Len(), l.wheel.count)
	}
	checkWheel(t, l)
}

func TestADeadlineSetOnAConnectionThatHasEndedDoesNotHarmTheWheel(t *testing.T) {
	a := newAlarm(t)
	gone := chair(t, a.Loop)
	other := chair(t, a.Loop)
	a.SetDeadline(other, time.Second)
	a.Close(gone)
	a.SetDeadline(gone, time.Second) // as a handler does that did not look whether its Write succeeded
	if a.wheel.count != 1 {
		t.Errorf("%d timers, want 1", a.wheel.count)
	}
	again := chair(t, a.Loop)
	if again != gone {
		t.Fatalf("slot %d was not used again, but %d", gone, again)
	}
	checkWheel(t, a.Loop)
	a.steps(5 * time.Second)
	a.once(t, other, time.Second)
	if a.rang[again] != nil {
		t.Error("the connection that follows in the slot has inherited a deadline")
	}
}

// checkWheel fails the test unless every list of the wheel is sound and holds
// exactly the slots that say so.
func checkWheel(t *testing.T, l *Loop) {
	t.Helper()
	w := &l.wheel
	linked := 0
	for i := range uint32(wheelSize) {
		if bit := w.full[i/64]&(1<<(i%64)) != 0; bit != (w.buckets[i] != 0) {
			t.Fatalf("bucket %d: its bit is %v, its head %d", i, bit, w.buckets[i])
		}
		prev := headBit | Slot(i)
		next := w.now + 1 + (i-w.now-1)%wheelSize // when it has its turn
		for c := w.buckets[i]; c != 0; c = l.slots.At(c).next {
			s := l.slots.At(c)
			if s.fd < 0 || s.prev != prev {
				t.Fatalf("slot %d in bucket %d: fd %d, prev %#x, want %#x", c, i, s.fd, s.prev, prev)
			}
			if at := l.dueAt(s); at != 0 && next > max(at, w.now+1) {
				t.Fatalf("slot %d is due at tick %d, its bucket %d has its turn at %d", c, at, i, next)
			}
			prev = c
			linked++
		}
	}
	for c := Slot(1); c < l.top; c++ {
		if s := l.slots.At(c); s.prev == 0 && (s.next != 0 || s.fd >= 0 && l.dueAt(s) != 0) {
			t.Fatalf("slot %d is not linked, but its next is %d and it is due at tick %d", c, s.next, l.dueAt(s))
		}
	}
	if linked != w.count {
		t.Fatalf("%d slots are linked, count is %d", linked, w.count)
	}
}

// checkNext compares untilNext with a look into every bucket.
func checkNext(t *testing.T, l *Loop) {
	t.Helper()
	want := -1
	for k := int64(1); k <= wheelSize; k++ {
		if l.wheel.buckets[(int64(l.wheel.now)+k)%wheelSize] != 0 {
			begin := (int64(l.wheel.now) + k - 1) * int64(Tick)
			want = int(max(0, (begin-l.now+999_999)/1_000_000))
			break
		}
	}
	ms := l.untilNext(l.now)
	if ms != want {
		t.Fatalf("untilNext is %d ms, want %d", ms, want)
	}
}

func TestUntilNextSleepsToTheTickOfTheNextDeadline(t *testing.T) {
	a := newAlarm(t)
	if ms := a.untilNext(a.now); ms != -1 {
		t.Errorf("with no deadline the loop sleeps %d ms, want for ever", ms)
	}
	c := chair(t, a.Loop)
	for range 200 { // every alignment of the wheel's words
		d := 3*time.Second + 10*time.Millisecond
		a.SetDeadline(c, d)
		begin := (a.now + int64(d) + int64(Tick)) / int64(Tick) * int64(Tick) // of the tick after it
		if ms := int64(a.untilNext(a.now)) * 1_000_000; a.now+ms < begin || a.now+ms >= begin+1_000_000 {
			t.Fatalf("untilNext is %v, the tick begins in %v", time.Duration(ms), time.Duration(begin-a.now))
		}
		checkNext(t, a.Loop)
		if ms := a.untilNext(a.now + int64(time.Minute)); ms != 0 {
			t.Fatalf("a deadline that has passed leaves %d ms to sleep", ms)
		}
		a.SetDeadline(c, 0)
		if ms := a.untilNext(a.now); ms != -1 {
			t.Fatalf("with the deadline cancelled the loop sleeps %d ms, want for ever", ms)
		}
		sleep(a.Loop, Tick*7)
	}
}

// TestTheWheelAgreesWithANaiveModel drives deadlines and write stalls at random
// beside a map of what is due when.
func TestTheWheelAgreesWithANaiveModel(t *testing.T) {
	type due struct {
		deadline, stall int64 // 0: none
		carry           int   // bytes
	}
	const stallAfter = 7 * time.Second
	r := rand.New(rand.NewPCG(1, 2))
	model := map[Slot]*due{}
	fired, stalled := 0, 0
	var l *Loop
	var change func(depth int)
	l = stillLoop(t, Config{WriteTimeout: stallAfter}, script{
		expired: func(l *Loop, c Slot) {
			fired++
			m := model[c]
			if m == nil || m.deadline == 0 || m.deadline > l.now {
				t.Fatalf("slot %d expired at %d, the model says %+v", c, l.now, m)
			}
			m.deadline = 0
			for range r.IntN(3) {
				change(1)
			}
		},
		closed: func(l *Loop, c Slot, cause Cause, _ unix.Errno) {
			if m := model[c]; cause == CauseStalled {
				stalled++
				if m.stall == 0 || m.stall > l.now {
					t.Fatalf("slot %d stalled at %d, the model says %+v", c, l.now, m)
				}
			}
			delete(model, c)
		},
	})
	pick := func() (Slot, *due) {
		n := r.IntN(max(1, len(model)))
		for c := Slot(1); c < l.top; c++ {
			if m := model[c]; m != nil {
				if n == 0 {
					return c, m
				}
				n--
			}
		}
		return 0, nil
	}
	change = func(int) {
		c, m := pick()
		if m == nil || len(model) < 20 || len(model) < 80 && r.IntN(8) == 0 {
			model[chair(t, l)] = &due{}
			return
		}
		s := l.slots.At(c)
		switch r.IntN(13) {
		case 0:
			l.Close(c)
		case 1:
			l.SetDeadline(c, 0)
			m.deadline = 0
		case 2:
			l.progress(c, s)
			m.stall = l.now + int64(stallAfter)
		case 3, 4:
			if m.stall = 0; s.is(flagExtra) {
				l.extra(s).stall = 0
				l.tidy(s)
			}
		case 5:
			d := time.Duration(r.Int64N(int64(900 * time.Second)))
			l.SetDeadline(c, d+1)
			m.deadline = l.now + int64(d) + 1
		case 6: // another use of the extra that has the stall
			if n := l.bufs.len(l.carry(s)); n != m.carry {
				t.Fatalf("slot %d has a carry of %d bytes, the model says %d", c, n, m.carry)
			}
			if l.bufs.add(&l.extra(s).carry, []byte("left"), nil) {
				m.carry += len("left")
			}
		case 7:
			l.dropCarry(s)
			m.carry = 0
		case 8: // as when a dial is connected: it stays linked where it is
			*l.deadline(s), m.deadline = 0, 0
		default:
			d := time.Duration(r.Int64N(int64(3 * time.Second)))
			l.SetDeadline(c, d+1)
			m.deadline = l.now + int64(d) + 1
		}
	}
	for step := range 10_000 {
		for range r.IntN(4) {
			change(0)
		}
		d := time.Duration(r.Int64N(int64(3 * Tick)))
		if r.IntN(100) == 0 {
			d = time.Duration(r.Int64N(int64(500 * time.Second)))
		}
		sleep(l, d)
		for c, m := range model {
			for _, at := range []int64{m.deadline, m.stall} {
				if at != 0 && at <= l.now-2*int64(Tick) {
					t.Fatalf("step %d: slot %d was due at %d and has not fired at %d", step, c, at, l.now)
				}
			}
		}
		if step%100 == 0 {
			checkWheel(t, l)
			checkNext(t, l)
			checkExtras(t, l)
		}
	}
	if fired < 1000 || stalled < 50 {
		t.Errorf("only %d deadlines and %d stalls: the model was not tried", fired, stalled)
	}
}

// Idle connections cost nothing until their time: one that is not due is not
// touched when the wheel comes round to its bucket.
func TestAConnectionThatIsNotDueIsLeftAlone(t *testing.T) {
	a := newAlarm(t)
	const round = wheelSize * Tick
	c, behind := chair(t, a.Loop), chair(t, a.Loop)
	for _, d := range []time.Duration{2 * time.Minute, round + time.Minute, 4*round - Tick} {
		a.start, a.rang = a.now, map[Slot][]time.Duration{}
		a.SetDeadline(c, d)
		a.SetDeadline(behind, d) // the first of the bucket
		linked := [2]slot{*a.slots.At(c), *a.slots.At(behind)}
		for slept := time.Duration(0); slept < d-Tick; slept += Tick {
			sleep(a.Loop, Tick)
			if len(a.due) != 0 || linked != [2]slot{*a.slots.At(c), *a.slots.At(behind)} {
				t.Fatalf("due in %v, touched after %v", d, slept)
			}
		}
		a.steps(4 * Tick)
		a.once(t, c, d)
		a.once(t, behind, d)
		a.due = a.due[:0]
	}
}

// A write that makes progress is not filed anew each time; when it makes none
// any more, it is given up in time.
func TestProgressMovesNothingOnTheWheelUntilTheBucketHasItsTurn(t *testing.T) {
	ends := newEnds()
	l := stillLoop(t, Config{WriteTimeout: 10 * time.Second}, script{ends: ends})
	c := chair(t, l)
	s := l.slots.At(c)
	l.progress(c, s)
	var moved []time.Duration
	begin := l.now
	for range 30 * time.Second / Tick {
		sleep(l, Tick)
		was := s.prev
		if l.progress(c, s); s.prev != was {
			t.Fatal("progress has moved it")
		}
		if len(l.due) > 0 {
			moved = append(moved, time.Duration(l.now-begin))
			l.due = l.due[:0]
		}
	}
	if len(moved) < 2 || len(moved) > 3 {
		t.Errorf("it was filed anew at %v, want once in 10 s", moved)
	}
	last := l.now
	for l.Len() > 0 && l.now < last+int64(time.Minute) {
		sleep(l, Tick)
	}
	awaitCause(t, ends, CauseStalled)
	if d := time.Duration(l.now - last); d < 10*time.Second || d > 10*time.Second+2*Tick {
		t.Errorf("it was given up after %v", d)
	}
}

// OnPanic need not close the connection: whoever does not still has it given
// up when it stalls.
func TestAStallIsNotForgottenWhenExpiredPanics(t *testing.T) {
	ends := newEnds()
	panics := 0
	cfg := Config{WriteTimeout: 3 * time.Second, MaxPending: 64 << 20, OnPanic: func(*Loop, Slot, any) { panics++ }}
	l := stillLoop(t, cfg, script{ends: ends, expired: func(*Loop, Slot) { panic("expired") }})
	c, _ := couple(t, l)
	l.Direct(c, make([]byte, 4<<20))
	if l.Pending(c) == 0 {
		t.Fatal("the socket took everything")
	}
	l.SetDeadline(c, time.Second)
	for range 5 * time.Second / Tick {
		func() {
			defer l.goOn()
			sleep(l, Tick)
		}()
	}
	if panics != 1 {
		t.Errorf("%d panics, want 1", panics)
	}
	awaitCause(t, ends, CauseStalled)
}
