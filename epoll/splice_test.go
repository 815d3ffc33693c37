package epoll

import (
	"io"
	"testing"
)

func TestSpliceMovesWhatHasArrived(t *testing.T) {
	l := stillLoop(t, Config{}, script{})
	from, sender := tcpCouple(t, l)
	to, receiver := tcpCouple(t, l)
	want := pattern(100 << 10)
	if _, err := sender.Write(want); err != nil {
		t.Fatal(err)
	}
	l.Write(to, []byte("first "))
	n := 0
	until(t, "everything has moved", func() bool { n += l.Splice(from, to, 1<<20); return n == len(want) })
	expect(t, receiver, "first "+string(want))
	if n := l.Splice(from, to, 1<<20); n != 0 {
		t.Errorf("%d bytes moved where there are none", n)
	}
	sender.CloseWrite()
	if n := l.Splice(from, to, 1<<20); n != 0 {
		t.Errorf("%d bytes moved at FIN", n)
	}
}

// What the receiver does not take is in no pipe, but waits as written bytes do.
func TestSpliceKeepsWhatTheSocketDoesNotTake(t *testing.T) {
	l := stillLoop(t, Config{}, script{})
	from, sender := tcpCouple(t, l)
	to, receiver := tcpCouple(t, l)
	want := pattern(16 << 20)
	l.Pause(from) // the test does its reading
	go sender.Write(want)
	moved := 0
	until(t, "the socket is full", func() bool { moved += l.Splice(from, to, 64<<10); return l.Pending(to) > 0 })
	if n := l.Splice(from, to, 64<<10); n != 0 {
		t.Errorf("%d bytes moved past those that wait", n)
	}
	got := make(chan []byte)
	go func() {
		b, _ := io.ReadAll(receiver)
		got <- b
	}()
	until(t, "everything has moved", func() bool {
		poll(l)
		moved += l.Splice(from, to, 1<<20)
		return moved == len(want) && l.Pending(to) == 0
	})
	l.Finish(to, false)
	same(t, await(t, got), want)
}

func TestSpliceToABrokenConnectionEndsIt(t *testing.T) {
	ends := newEnds()
	l := stillLoop(t, Config{}, script{ends: ends})
	from, sender := tcpCouple(t, l)
	to, receiver := tcpCouple(t, l)
	receiver.SetLinger(0)
	receiver.Close()
	if _, err := sender.Write(pattern(64 << 10)); err != nil {
		t.Fatal(err)
	}
	until(t, "the end is seen", func() bool { l.Splice(from, to, 1<<20); return l.Len() == 1 })
	if e := await(t, ends); e.cause != CauseReset {
		t.Errorf("it ended with %v", e.cause)
	}
	// Nothing is left in the pipe for the next pair.
	from, sender = tcpCouple(t, l)
	to, receiver = tcpCouple(t, l)
	send(t, sender, "mine")
	until(t, "it has moved", func() bool { return l.Splice(from, to, 1<<20) > 0 })
	expect(t, receiver, "mine")
}
