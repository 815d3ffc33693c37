package epoll

import (
	"io"
	"net"
	"net/netip"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// tcpCouple puts one end of a TCP connection on a still loop and returns the other.
func tcpCouple(t *testing.T, l *Loop) (Slot, *net.TCPConn) {
	t.Helper()
	ln := tcpListener(t, "127.0.0.1:0")
	fd, err := connect(ln.Addr().(*net.TCPAddr), nil)
	if err != nil {
		t.Fatal(err)
	}
	conn, err := ln.AcceptTCP()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	conn.SetDeadline(time.Now().Add(patience))
	c, _, e := l.add(fd, 0)
	if e != none {
		t.Fatal(e)
	}
	return c, conn
}

func TestAKeptConnectionCanBeWrittenToAfterThePeersFIN(t *testing.T) {
	eofs := 0
	l := stillLoop(t, Config{}, script{eof: func(l *Loop, c Slot) { eofs++; l.KeepOpen(c) }})
	c, fd := couple(t, l)
	unix.Shutdown(fd, unix.SHUT_WR)
	poll(l)
	poll(l)
	if eofs != 1 {
		t.Fatalf("EOF was told %d times", eofs)
	}
	l.Write(c, []byte("the rest"))
	l.flush()
	if s := got(t, fd); s != "the rest" {
		t.Errorf("%q came", s)
	}
	l.Finish(c, false)
	if l.Len() != 0 {
		t.Error("it did not end")
	}
}

func TestShutSendsFINBehindWhatWaits(t *testing.T) {
	drained, read := 0, ""
	var shut bool
	l := stillLoop(t, Config{MaxPending: 8 << 20, ReadBuffer: 64 << 10, Congested: 8 << 20}, script{
		data:    func(l *Loop, c Slot, in []byte) int { read += string(in); return len(in) },
		drained: func(l *Loop, c Slot) { drained++; shut = l.Shut(c) },
	})
	c, conn := tcpCouple(t, l)
	l.Write(c, []byte("in the scratch"))
	for range 2 { // again is no fault
		if !l.Shut(c) {
			t.Fatal("nothing waits, and FIN was not sent")
		}
	}
	if b, err := io.ReadAll(conn); string(b) != "in the scratch" || err != nil {
		t.Errorf("%q, %v", b, err)
	}
	send(t, conn, "the other direction goes on")
	until(t, "it is read", func() bool { poll(l); return read == "the other direction goes on" })

	c, conn = tcpCouple(t, l)
	large := pattern(8 << 20)
	l.Write(c, large)
	if l.Pending(c) == 0 || l.Shut(c) {
		t.Fatal("FIN was sent before what waits")
	}
	all := make(chan []byte)
	go func() {
		b, _ := io.ReadAll(conn)
		all <- b
	}()
	until(t, "everything has gone", func() bool { poll(l); return shut })
	same(t, await(t, all), large)
	if drained != 1 {
		t.Errorf("Drained %d times", drained)
	}
}

// Both directions have ended, and bytes wait in the kernel for a connection
// that is paused: they are not lost, and the loop does not spin.
func TestAPausedConnectionThatHasHungUpKeepsItsBytes(t *testing.T) {
	var read []byte
	eof := false
	l := stillLoop(t, Config{}, script{
		data: func(l *Loop, c Slot, in []byte) int { read = append(read, in...); return len(in) },
		eof:  func(l *Loop, c Slot) { eof = true },
	})
	c, conn := tcpCouple(t, l)
	l.Pause(c)
	if !l.Shut(c) {
		t.Fatal("FIN was not sent")
	}
	want := pattern(20 << 10) // with the FIN, it fits in the socket
	if _, err := conn.Write(want); err != nil {
		t.Fatal(err)
	}
	conn.CloseWrite()
	if _, err := io.ReadAll(conn); err != nil {
		t.Fatal(err)
	}
	s := l.slots.At(c)
	until(t, "the hang-up is seen", func() bool { poll(l); return s.is(flagUnwatched) })
	if n, _ := sysPoll(l.epfd, make([]unix.EpollEvent, 4)); n != 0 {
		t.Errorf("%d events are still reported", n)
	}
	if l.Len() != 1 || len(read) > 0 {
		t.Fatalf("%d connections, %d bytes read", l.Len(), len(read))
	}
	l.Resume(c)
	until(t, "all is read", func() bool { poll(l); return eof })
	same(t, read, want)
	if l.Len() != 0 {
		t.Error("it did not end")
	}
}

func TestAPausedConnectionThatWasResetEnds(t *testing.T) {
	ends := newEnds()
	l := stillLoop(t, Config{}, script{ends: ends})
	c, conn := tcpCouple(t, l)
	l.Pause(c)
	conn.SetLinger(0)
	conn.Close()
	until(t, "the end is seen", func() bool { poll(l); return l.Len() == 0 })
	awaitCause(t, ends, CauseReset)
}

func TestPeerAddrIsThatOfPeer(t *testing.T) {
	l := stillLoop(t, Config{}, script{})
	c, conn := tcpCouple(t, l)
	want := conn.LocalAddr().(*net.TCPAddr).AddrPort()
	if got := l.PeerAddr(c); got != want || l.Peer(c).AddrPort() != want {
		t.Errorf("%v, want %v; Peer says %v", got, want, l.Peer(c))
	}
	if n := testing.AllocsPerRun(100, func() { l.PeerAddr(c) }); n > 0 {
		t.Errorf("%v allocations", n)
	}
	u, _ := couple(t, l) // no address of TCP
	if got := l.PeerAddr(u); got != (netip.AddrPort{}) {
		t.Errorf("%v", got)
	}
	if !haveIPv6() {
		t.Log("no IPv6 on this machine: ::1 is not tried")
		return
	}
	ln := tcpListener(t, "[::1]:0")
	fd, err := connect(ln.Addr().(*net.TCPAddr), nil)
	if err != nil {
		t.Fatal(err)
	}
	c6, _, _ := l.add(fd, 0)
	if got := l.PeerAddr(c6); got != ln.Addr().(*net.TCPAddr).AddrPort() {
		t.Errorf("%v, want %v", got, ln.Addr())
	}
}
