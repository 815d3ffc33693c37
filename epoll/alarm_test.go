package epoll

import (
	"testing"
	"time"
)

func TestAnAlarmComesOnceAndNotBeforeItsTime(t *testing.T) {
	type ring struct{ due, now int64 }
	rings := make(chan ring, 8)
	var due int64 // the loop's
	g, _ := serve(t, Config{OnAlarm: func(l *Loop) { rings <- ring{due, l.Now()} }}, script{})
	for _, after := range []time.Duration{0, 300 * time.Microsecond, 20 * time.Millisecond} {
		g.Do(func(l *Loop) {
			due = l.Clock() + int64(after)
			l.SetAlarm(due + int64(time.Hour)) // replaced by the next
			l.SetAlarm(due)
		})
		r := await(t, rings)
		if r.now < r.due {
			t.Errorf("an alarm in %s came %s early", after, time.Duration(r.due-r.now))
		}
	}
	g.Do(func(l *Loop) {
		l.SetAlarm(l.Clock() + int64(time.Hour))
		l.SetAlarm(0)
	})
	settle(g)
	if len(rings) != 0 {
		t.Error("an alarm came twice, or after it was taken back")
	}
}

func TestAnAlarmFarAwayDoesNotHoldUpDeadlines(t *testing.T) {
	expired := make(chan bool, 1)
	g, addr := serve(t, Config{OnAlarm: func(*Loop) { t.Error("the alarm of in an hour came") }}, script{
		opened: func(l *Loop, c Slot, _ uint32) {
			l.SetAlarm(l.Clock() + int64(time.Hour))
			l.SetDeadline(c, time.Millisecond)
		},
		expired: func(*Loop, Slot) { expired <- true },
	})
	dial(t, addr)
	await(t, expired)
	g.Do(func(l *Loop) { l.SetAlarm(0) })
}
