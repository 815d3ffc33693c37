package epoll

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestAPeerThatHasSentItsFINStillGetsEverything(t *testing.T) {
	for _, who := range []string{"the handler finishes", "the loop finishes"} {
		t.Run(who, func(t *testing.T) {
			ends := newEnds()
			want := CauseEOF
			sc := script{ends: ends}
			if who == "the handler finishes" {
				want = CauseLocal
				sc.eof = func(l *Loop, c Slot) { l.Finish(c, false) }
			}
			_, addr := serve(t, Config{}, sc)
			c := dial(t, addr)
			all := pattern(8 << 20)
			sent := make(chan error, 1)
			go func() {
				_, err := c.Write(all)
				sent <- errors.Join(err, c.CloseWrite())
			}()
			back := make([]byte, len(all))
			if _, err := io.ReadFull(c, back[:1]); err != nil {
				t.Fatal(err)
			}
			if _, err := io.ReadFull(c, back[1:]); err != nil {
				t.Fatal(err)
			}
			same(t, back, all)
			if err := await(t, sent); err != nil {
				t.Fatal(err)
			}
			expectEOF(t, c)
			awaitCause(t, ends, want)
		})
	}
}

func TestFINFromAPeerThatIsFarBehindEndsOnlyAfterTheLastByte(t *testing.T) {
	ends := newEnds()
	g, addr := serve(t, Config{MaxPending: 64 << 20}, script{ends: ends, data: func(l *Loop, c Slot, in []byte) int {
		l.Write(c, make([]byte, 24<<20))
		return len(in)
	}})
	c := dial(t, addr)
	send(t, c, "x")
	if err := c.CloseWrite(); err != nil {
		t.Fatal(err)
	}
	settle(g)
	if len(ends) != 0 {
		t.Fatalf("closed with %v while bytes wait", (<-ends).cause)
	}
	if n, err := io.Copy(io.Discard, c); n != 24<<20 || err != nil {
		t.Errorf("%d bytes came, %v", n, err)
	}
	awaitCause(t, ends, CauseEOF)
}

func TestLingeringSavesTheLastWordsFromThePeersOwnBytes(t *testing.T) {
	ends := newEnds()
	words := string(pattern(1 << 20))
	calls := make(chan int, 4096)
	g, addr := serve(t, Config{MaxPending: 2 << 20}, script{ends: ends, data: func(l *Loop, c Slot, in []byte) int {
		calls <- len(in)
		l.Write(c, []byte(words))
		l.Finish(c, true)
		l.Write(c, []byte("too late"))
		return 0 // what is left after Finish is of no interest
	}})
	c := dial(t, addr)
	send(t, c, "x")
	await(t, calls)
	for range 64 { // much more than is read, before we read a byte
		send(t, c, string(pattern(32<<10)))
	}
	settle(g)
	expect(t, c, words)
	expectEOF(t, c) // EOF, not ECONNRESET
	send(t, c, "still here")
	settle(g)
	if len(ends) != 0 {
		t.Fatalf("closed with %v before the peer's FIN", (<-ends).cause)
	}
	c.Close()
	awaitCause(t, ends, CauseLocal)
	if len(calls) != 0 {
		t.Error("Data was called after Finish")
	}
}

func TestLingeringEndsAfterLingerTimeout(t *testing.T) {
	ends := newEnds()
	const timeout = 100 * time.Millisecond
	began := make(chan time.Time, 1)
	_, addr := serve(t, Config{LingerTimeout: timeout}, script{ends: ends, opened: func(l *Loop, c Slot, _ uint32) {
		began <- time.Now()
		l.SetDeadline(c, time.Hour)
		l.Finish(c, true)
		l.SetDeadline(c, time.Hour) // the deadline of Finish stands
		l.Finish(c, false)          // and the first Finish
	}})
	c := dial(t, addr)
	expectEOF(t, c)
	awaitCause(t, ends, CauseLocal)
	if d := time.Since(await(t, began)); d < timeout || d > timeout+time.Second {
		t.Errorf("lingered for %v, want %v", d, timeout)
	}
}

func TestFinishWithoutLingerClosesAfterTheLastByte(t *testing.T) {
	ends := newEnds()
	words := string(pattern(12 << 20))
	g, addr := serve(t, Config{MaxPending: 32 << 20}, script{ends: ends, data: func(l *Loop, c Slot, in []byte) int {
		l.Write(c, []byte(words))
		l.Finish(c, false)
		return len(in)
	}})
	c := dial(t, addr)
	send(t, c, "x")
	settle(g)
	if len(ends) != 0 {
		t.Fatalf("closed with %v while bytes wait", (<-ends).cause)
	}
	expect(t, c, words)
	awaitCause(t, ends, CauseLocal) // though the peer has sent no FIN
	expectEOF(t, c)
}

func TestAConnectionMayBeClosedWithinEveryCallback(t *testing.T) {
	for _, where := range []string{"Opened", "Data", "EOF", "Drained", "Expired"} {
		for _, how := range []string{"Close", "Finish", "Detach"} {
			t.Run(how+" in "+where, func(t *testing.T) {
				ends := newEnds()
				over := make(chan bool, 2)
				leave := func(at string) func(l *Loop, c Slot) {
					return func(l *Loop, c Slot) {
						if at != where {
							return
						}
						switch how {
						case "Close":
							l.Write(c, []byte("dropped"))
							l.Close(c)
						case "Finish":
							l.Finish(c, false)
						case "Detach":
							unix.Close(l.Detach(c))
						}
						// Nothing of this may reach the next in the slot.
						useless(l, c)
						over <- true
					}
				}
				g, addr := serve(t, Config{MaxPending: 64 << 20}, script{
					ends: ends,
					opened: func(l *Loop, c Slot, tag uint32) {
						if where == "Expired" {
							l.SetDeadline(c, time.Millisecond)
						}
						leave("Opened")(l, c)
					},
					data: func(l *Loop, c Slot, in []byte) int {
						if where == "Drained" {
							l.Write(c, make([]byte, 12<<20))
						}
						leave("Data")(l, c)
						return 0
					},
					eof:     leave("EOF"),
					drained: leave("Drained"),
					expired: leave("Expired"),
				})
				c := dial(t, addr)
				switch where {
				case "Data", "Drained":
					send(t, c, "x")
				case "EOF":
					if err := c.CloseWrite(); err != nil {
						t.Fatal(err)
					}
				}
				if where == "Drained" { // else the kernel might take it all, and nothing would ever drain
					until(t, "bytes to wait", func() (wait bool) {
						g.Do(func(l *Loop) { l.Each(func(c Slot) { wait = wait || l.Pending(c) > 0 }) })
						return wait
					})
				}
				go io.Copy(io.Discard, c)
				await(t, over)
				if how != "Detach" {
					awaitCause(t, ends, CauseLocal)
				}
				settle(g)
				if st := g.Stats(); st.Open != 0 || len(ends) != 0 || len(over) != 0 {
					t.Errorf("%d open, %d more ends, %d more calls", st.Open, len(ends), len(over))
				}
				g.Do(func(l *Loop) { checkWheel(t, l) })
				if n := g.Budget().Used(); n != 0 {
					t.Errorf("%d bytes of the budget are used at the end", n)
				}
			})
		}
	}
}

// useless calls everything there is for a connection that has ended, or that
// is being told Closed.
func useless(l *Loop, c Slot) {
	l.Write(c, []byte("dropped"))
	l.Write(c, make([]byte, 2*outScratch))
	l.SetOut(append(l.Out(c), "dropped"...))
	l.Direct(c, []byte("dropped"))
	l.Flush(c)
	l.Pause(c)
	l.Resume(c)
	l.SetDeadline(c, time.Millisecond)
	l.Peer(c)
	l.Pending(c)
	l.Finish(c, true)
	l.Close(c)
	if fd := l.Detach(c); fd >= 0 {
		panic(fmt.Sprint("detached descriptor ", fd, " of a connection that has ended"))
	}
	l.Write(c, []byte("dropped"))
}

func TestClosedMayCallAnythingAndIsCalledOnce(t *testing.T) {
	ends := newEnds()
	g, addr := serve(t, Config{}, script{ends: ends, closed: func(l *Loop, c Slot, _ Cause, _ unix.Errno) {
		if id := l.ID(c); id.slot() != c {
			t.Errorf("the ID in Closed is %x", uint64(id))
		}
		useless(l, c)
		l.Each(func(o Slot) { l.Direct(o, []byte("somebody left\n")) })
		l.Each(func(o Slot) { l.Write(o, []byte("really\n")) })
	}})
	stays := dial(t, addr)
	talk(t, stays, "hello")
	for i := range 20 {
		c := dial(t, addr)
		talk(t, c, "x")
		if i%2 == 0 {
			if err := c.SetLinger(0); err != nil {
				t.Fatal(err)
			}
		}
		c.Close()
		await(t, ends)
		expect(t, stays, "somebody left\nreally\n")
	}
	talk(t, stays, "still here")
	settle(g)
	st := g.Stats()
	sum := uint64(0)
	for _, n := range st.Closed {
		sum += n
	}
	if sum != 20 || st.Open != 1 || len(ends) != 0 {
		t.Errorf("%d ends counted, %d open, %d told too often; want 20, 1, 0", sum, st.Open, len(ends))
	}
	g.Do(func(l *Loop) { checkWheel(t, l) })
}

func TestADetachedDescriptorWorksAndTheLoopForgetsIt(t *testing.T) {
	ends := newEnds()
	type detached struct {
		fd int
		in string
		id ID
	}
	out := make(chan detached, 1)
	g, addr := serve(t, Config{}, script{ends: ends, data: func(l *Loop, c Slot, in []byte) int {
		if len(in) < 4 {
			return 1 // part of it is carried when the rest comes
		}
		id := l.ID(c)
		s := string(in)
		l.SetDeadline(c, time.Millisecond)
		out <- detached{l.Detach(c), s, id}
		return 0
	}})
	c := dial(t, addr)
	send(t, c, "abc")
	until(t, "a carry", func() bool { return g.Budget().Used() > 0 })
	send(t, c, "defg")
	d := await(t, out)
	if d.in != "bcdefg" {
		t.Errorf("it was detached with %q", d.in)
	}
	f := os.NewFile(uintptr(d.fd), "")
	nc, err := net.FileConn(f)
	if err != nil {
		t.Fatal(err)
	}
	f.Close()
	defer nc.Close()
	send(t, nc, "from outside")
	expect(t, c, "from outside")
	send(t, c, "to outside")
	expect(t, nc, "to outside")
	settle(g)
	g.Do(func(l *Loop) {
		if _, ok := l.Find(d.id); ok || l.Len() != 0 || l.wheel.count != 0 {
			t.Errorf("found: %v; %d connections, %d timers", ok, l.Len(), l.wheel.count)
		}
	})
	if len(ends) != 0 || g.Budget().Used() != 0 {
		t.Errorf("Closed called %d times, %d bytes used", len(ends), g.Budget().Used())
	}
}

// pipe is a connected pair of TCP sockets: a descriptor to Add and its peer.
func pipe(t *testing.T) (fd int, peer *net.TCPConn) {
	t.Helper()
	ln, err := net.ListenTCP("tcp", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer ln.Close()
	peer = dial(t, ln.Addr().String())
	c, err := ln.AcceptTCP()
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	rc, err := c.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	if err := rc.Control(func(raw uintptr) { fd, err = unix.FcntlInt(raw, unix.F_DUPFD_CLOEXEC, 0) }); err != nil || fd < 0 {
		t.Fatal(err)
	}
	return fd, peer
}

func TestBytesThatWereReadBeforeAddAreShownFirst(t *testing.T) {
	type seen struct{ what, in string }
	calls := make(chan seen, 100)
	g, _ := serve(t, Config{}, script{
		opened: func(_ *Loop, _ Slot, tag uint32) { calls <- seen{what: fmt.Sprint("opened ", tag)} },
		data: func(l *Loop, c Slot, in []byte) int {
			calls <- seen{"data", string(in)}
			l.Write(c, in)
			return len(in)
		},
		eof: func(*Loop, Slot) { calls <- seen{what: "eof"} },
	})
	for _, rest := range []string{"", " and the rest"} {
		for _, fin := range []bool{false, true} {
			fd, peer := pipe(t)
			send(t, peer, rest)
			if fin {
				if err := peer.CloseWrite(); err != nil {
					t.Fatal(err)
				}
			}
			g.Do(func(l *Loop) {
				if err := l.Add(fd, 7, []byte("the first")); err != nil {
					t.Error(err)
				}
			})
			if s := await(t, calls); s.what != "opened 7" {
				t.Fatalf("the first call was %+v", s)
			}
			want := "the first" + rest
			expect(t, peer, want)
			if fin {
				expectEOF(t, peer)
			}
			peer.Close()
			var all strings.Builder
			for s := await(t, calls); s.what != "eof"; s = await(t, calls) {
				all.WriteString(s.in)
			}
			if all.String() != want {
				t.Errorf("Data saw %q before EOF, want %q", all.String(), want)
			}
		}
	}
}

func TestAddOwnsTheDescriptorAlsoWhenItFails(t *testing.T) {
	cfg := Config{Budget: NewBudget(1 << 20)}
	g, _ := serve(t, cfg, script{opened: func(*Loop, Slot, uint32) { t.Error("Opened was called") }})
	file := func() int {
		fd, err := unix.Open("/proc/self/exe", unix.O_RDONLY|unix.O_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		return fd
	}
	sock := func() int { fd, _ := pipe(t); return fd }
	for _, test := range []struct {
		name  string
		fd    int
		first int
		taken int // of the budget
	}{
		{"more than MaxCarry", sock(), cfg.MaxCarry() + 1, 0},
		{"more than the budget", sock(), 2048, 1<<20 - 2047},
		{"not a socket", file(), 0, 0},
		{"not a descriptor", 1 << 30, 0, 0},
	} {
		g.Do(func(l *Loop) {
			cfg.Budget.Reserve(test.taken)
			defer cfg.Budget.Release(test.taken)
			if err := l.Add(test.fd, 0, make([]byte, test.first)); err == nil {
				t.Errorf("%s: added", test.name)
			} else if _, e := unix.FcntlInt(uintptr(test.fd), unix.F_GETFD, 0); e != unix.EBADF {
				t.Errorf("%s: the descriptor is still open (%v)", test.name, e)
			}
			if l.Len() != 0 || cfg.Budget.Used() != int64(test.taken) {
				t.Errorf("%s: %d connections, %d bytes used", test.name, l.Len(), cfg.Budget.Used())
			}
		})
	}
}

func TestDeadlinesSetInCallbacksFireInTime(t *testing.T) {
	const d = 60 * time.Millisecond
	n := 0
	began := time.Now()
	_, addr := serve(t, Config{}, script{
		opened: func(l *Loop, c Slot, _ uint32) { l.SetDeadline(c, d) },
		expired: func(l *Loop, c Slot) {
			l.Write(c, []byte("tick\n"))
			if n++; n < 3 {
				l.SetDeadline(c, d)
				return
			}
			l.SetDeadline(c, time.Nanosecond)
			l.SetDeadline(c, 0)
		},
		data: func(l *Loop, c Slot, in []byte) int {
			l.SetDeadline(c, time.Nanosecond)
			return len(in)
		},
	})
	c := dial(t, addr)
	for i := range 3 {
		expect(t, c, "tick\n")
		if got := time.Since(began); got < time.Duration(i+1)*d {
			t.Errorf("tick %d came after %v", i+1, got)
		}
	}
	send(t, c, "x")
	expect(t, c, "tick\n")
}
