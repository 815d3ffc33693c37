package epoll

import "golang.org/x/sys/unix"

// Bytes that only pass from one socket to another need not come into the
// memory of the program: splice(2) hands the kernel's pages from the one to a
// pipe and from the pipe to the other. Each is two system calls for what a
// read and a write do, so it pays for large transfers alone.

// pipeSize is how many bytes are asked to fit in the pipe of a loop: several
// times what a socket usually gives at once.
const pipeSize = 1 << 20

// duct is the pipe that bytes pass through. It is empty between two calls of Splice, so
// one per loop is enough. The zero duct is made when it is first used.
type duct struct {
	r, w int32
	made bool
	size int
}

// Splice moves up to most bytes that have arrived at from to the socket of to,
// and returns how many. It moves none while bytes wait to be sent to to, or for
// a connection with a Tap. What
// the socket does not take is kept as if it were written, so Pending of to
// tells when to stop. Called within from's Data, which then must have taken
// everything. A broken connection is left for its next event to show.
func (l *Loop) Splice(from, to Slot, most int) (n int) {
	l.flushOf(to)
	src, dst := l.slots.At(from), l.slots.At(to)
	if (src.flags|dst.flags)&(flagTapped|flagTLS) != 0 {
		return 0 // somebody wants to see the bytes, or they are not what was read
	}
	if src.fd < 0 || dst.fd < 0 || l.pend(dst) != 0 || l.carry(src) != 0 || dst.flags&(flagFinishing|flagEnding|flagShut) != 0 {
		return 0
	}
	if _, onLinux := l.kernel.(linux); !onLinux || !l.duct.ready() {
		return 0
	}
	gen := dst.gen
	for n < most && l.pend(dst) == 0 {
		in, e := splice(src.fd, l.duct.w, min(most-n, l.duct.size, l.cfg.ReadBuffer))
		if e != none || in <= 0 {
			return n // nothing there, FIN, or an error that the next read meets
		}
		n += in
		for in > 0 {
			out, e := splice(l.duct.r, dst.fd, in)
			if e != none || out <= 0 {
				break
			}
			in -= out
		}
		if in > 0 {
			l.unpipe(to, in)
			if dst.gen != gen {
				return n // the rest was not taken because it is broken
			}
		}
	}
	return n
}

// unpipe takes n bytes out of the pipe and writes them to c.
func (l *Loop) unpipe(c Slot, n int) {
	rest := make([]byte, n)
	for got := 0; got < n; {
		k, e := sysRead(l.duct.r, rest[got:])
		if e == unix.EINTR {
			continue
		}
		if e != none || k <= 0 {
			panic("epoll: the pipe has lost bytes: " + e.Error())
		}
		got += k
	}
	l.Direct(c, rest)
}

// ready makes the pipe, if there is none; false when that fails, which it does
// for want of descriptors, and then bytes go through memory.
func (p *duct) ready() bool {
	if p.made {
		return true
	}
	var fds [2]int
	if unix.Pipe2(fds[:], unix.O_NONBLOCK|unix.O_CLOEXEC) != nil {
		return false
	}
	p.r, p.w, p.made = int32(fds[0]), int32(fds[1]), true
	// Beyond the limit of an unprivileged user the kernel says no, and the
	// pipe stays as it is.
	unix.FcntlInt(uintptr(p.w), unix.F_SETPIPE_SZ, pipeSize)
	p.size, _ = unix.FcntlInt(uintptr(p.w), unix.F_GETPIPE_SZ, 0)
	return true
}

func (p *duct) close() {
	if p.made {
		sysClose(p.r)
		sysClose(p.w)
	}
}

// splice moves up to n bytes from one descriptor to another, one of them a pipe.
func splice(from, to int32, n int) (int, unix.Errno) {
	for {
		r, _, e := unix.RawSyscall6(unix.SYS_SPLICE, uintptr(from), 0, uintptr(to), 0, uintptr(n), unix.SPLICE_F_MOVE|unix.SPLICE_F_NONBLOCK)
		if e != unix.EINTR {
			return int(r), e
		}
	}
}
