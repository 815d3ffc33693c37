package epoll

import (
	"bytes"
	"io"
	"net"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// interrupted is Linux with a signal before every call that one may interrupt.
type interrupted struct {
	linux
	again bool
	count int
}

func (k *interrupted) signal() bool {
	if k.again = !k.again; k.again {
		k.count++
	}
	return k.again
}

func (k *interrupted) Accept(fd int32) (int32, unix.Errno) {
	if k.signal() {
		return -1, unix.EINTR
	}
	return k.linux.Accept(fd)
}

func (k *interrupted) Read(fd int32, p []byte) (int, unix.Errno) {
	if k.signal() {
		return -1, unix.EINTR
	}
	return k.linux.Read(fd, p)
}

func (k *interrupted) Write(fd int32, p []byte) (int, unix.Errno) {
	if k.signal() {
		return -1, unix.EINTR
	}
	return k.linux.Write(fd, p)
}

func (k *interrupted) Writev(fd int32, iov *[2]unix.Iovec) (int, unix.Errno) {
	if k.signal() {
		return -1, unix.EINTR
	}
	return k.linux.Writev(fd, iov)
}

func TestInterruptedCallsAreMadeAgain(t *testing.T) {
	k := new(interrupted)
	g, addr := serve(t, Config{Kernel: k}, script{data: func(l *Loop, c Slot, in []byte) int {
		l.SetOut(append(l.Out(c), in...))
		l.Write(c, in[:min(len(in), throughMin)]) // with the scratch: writev, when in is large
		return len(in)
	}})
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(patience))
	for _, n := range []int{1, 20_000} {
		p := bytes.Repeat([]byte("x"), n)
		conn.Write(p)
		if _, err := io.ReadFull(conn, p); err != nil {
			t.Fatal(err)
		}
	}
	conn.(*net.TCPConn).CloseWrite()
	if _, err := io.Copy(io.Discard, conn); err != nil {
		t.Fatal(err)
	}
	g.Do(func(*Loop) {
		if k.count < 5 {
			t.Errorf("%d calls were interrupted, want 5 at least: accept, two reads, write, writev", k.count)
		}
	})
}

func TestGroupThatIsSteppedServesOnTheGoroutineOfItsMaker(t *testing.T) {
	noLeak(t)
	posted := 0
	g := stillGroup(t, Config{Loops: 2}, script{})
	addr, err := g.Listen("127.0.0.1:0", 0)
	if err != nil {
		t.Fatal(err)
	}
	conn, err := net.Dial("tcp", addr.String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	conn.SetDeadline(time.Now().Add(patience))
	conn.Write([]byte("hello"))
	g.Loops()[0].Post(func() { posted++ })
	got := make(chan error)
	go func() {
		_, err := io.ReadFull(conn, make([]byte, 5))
		got <- err
	}()
	for done := false; !done; {
		for _, l := range g.Loops() {
			l.Step()
		}
		select {
		case err := <-got:
			if err != nil {
				t.Fatal(err)
			}
			done = true
		default: // Step does not wait, so neither may this
		}
	}
	g.Do(func(*Loop) { posted++ })
	if posted != 3 {
		t.Errorf("%d functions ran, want 3", posted)
	}
	if st := g.Stats(); st.Open != 1 || st.Accepted != 1 {
		t.Errorf("%+v, want one connection", st)
	}
	g.Stop()
	if _, err := conn.Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("after Stop: %v, want the end", err)
	}
}

func TestPanicsWhileALoopEndsAreOnPanics(t *testing.T) {
	panics := 0
	g, addr := serve(t, Config{OnPanic: func(*Loop, Slot, any) { panics++ }}, script{closed: func(*Loop, Slot, Cause, unix.Errno) { panic("Closed does") }})
	for range 3 {
		conn, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		conn.SetDeadline(time.Now().Add(patience))
		conn.Write([]byte("x"))
		if _, err := io.ReadFull(conn, make([]byte, 1)); err != nil {
			t.Fatal(err)
		}
	}
	g.Stop()
	if panics != 3 {
		t.Errorf("OnPanic was called %d times, want 3, once for each connection", panics)
	}
}

// A close while bytes wait that nobody read sends RST: what was said last must
// have left before.
func TestLastWordsArriveThoughBytesWereNotRead(t *testing.T) {
	_, addr := serve(t, Config{ReadBuffer: 512}, script{data: func(l *Loop, c Slot, in []byte) int {
		l.Write(c, []byte("farewell"))
		l.Finish(c, false)
		return len(in)
	}})
	for range 20 {
		conn, err := net.Dial("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		conn.SetDeadline(time.Now().Add(patience))
		conn.Write(make([]byte, 64<<10))
		b := make([]byte, 8)
		if _, err := io.ReadFull(conn, b); err != nil || string(b) != "farewell" {
			t.Errorf("%q, %v, want the last words", b, err)
		}
		conn.Close()
	}
}
