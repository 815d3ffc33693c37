package epoll

import (
	"encoding/binary"
	"net"
	"os"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// The system calls of a loop. Those that cannot block (every descriptor here
// is O_NONBLOCK) go through RawSyscall: an ordinary Syscall tells the Go
// scheduler that the thread may be gone for long, and with few processors the
// scheduler then takes the processor away during each of them, which costs
// over 40 % per small message. The price is that a garbage collection that
// wants to stop the world waits for the call to return, a few microseconds.
// Only the waiting form of epoll_wait is an ordinary system call.

// none is returned in place of an error number when a call succeeded.
const none = unix.Errno(0)

// sysRead is for what is no socket.
func sysRead(fd int32, p []byte) (int, unix.Errno) {
	n, _, e := unix.RawSyscall(unix.SYS_READ, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(p))), uintptr(len(p)))
	return int(n), e
}

// sysRecv and sysSend are read and write for sockets, without the kernel's
// layer of files around them: 2.5 % less for 1 KiB over loopback, and no
// SIGPIPE that the runtime would have to ignore.

func sysRecv(fd int32, p []byte) (int, unix.Errno) { return sr(unix.SYS_RECVFROM, fd, p, 0) }

func sysSend(fd int32, p []byte) (int, unix.Errno) {
	return sr(unix.SYS_SENDTO, fd, p, unix.MSG_NOSIGNAL)
}

// sr does a recv or a send of p.
func sr(trap uintptr, fd int32, p []byte, flags uintptr) (int, unix.Errno) {
	if len(p) == 0 {
		return 0, none
	}
	n, _, e := unix.RawSyscall6(trap, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(p))), uintptr(len(p)), flags, 0, 0)
	return int(n), e
}

func sysWritev(fd int32, iov *[2]unix.Iovec) (int, unix.Errno) {
	n, _, e := unix.RawSyscall(unix.SYS_WRITEV, uintptr(fd), uintptr(unsafe.Pointer(iov)), 2)
	return int(n), e
}

func setIovec(v *unix.Iovec, b []byte) {
	v.Base = unsafe.SliceData(b)
	v.SetLen(len(b))
}

// sysAccept takes one connection out of a listener's queue, non-blocking and
// closed on exec. TCP_NODELAY is inherited from the listener.
func sysAccept(fd int32) (int32, unix.Errno) {
	n, _, e := unix.RawSyscall6(unix.SYS_ACCEPT4, uintptr(fd), 0, 0, unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0, 0)
	return int32(n), e
}

// sysConnect begins to connect a socket; for IPv4 without garbage, which a
// proxy would make with every client.
func sysConnect(fd int, to *net.TCPAddr) unix.Errno {
	ip := to.IP.To4()
	if ip == nil {
		_, sa := sockaddr(to)
		e, _ := unix.Connect(fd, sa).(unix.Errno)
		return e
	}
	sa := unix.RawSockaddrInet4{Family: unix.AF_INET, Addr: [4]byte(ip)}
	binary.BigEndian.PutUint16((*[2]byte)(unsafe.Pointer(&sa.Port))[:], uint16(to.Port))
	_, _, e := unix.RawSyscall(unix.SYS_CONNECT, uintptr(fd), uintptr(unsafe.Pointer(&sa)), unix.SizeofSockaddrInet4)
	return e
}

// sysOpen makes what a loop waits on and what wakes it.
func sysOpen() (epfd int, wakefd int32, err error) {
	epfd, err = unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return -1, -1, os.NewSyscallError("epoll_create1", err)
	}
	fd, err := unix.Eventfd(0, unix.EFD_NONBLOCK|unix.EFD_CLOEXEC)
	if err != nil {
		unix.Close(epfd)
		return -1, -1, os.NewSyscallError("eventfd", err)
	}
	return epfd, int32(fd), nil
}

// sysWake adds one to an eventfd.
func sysWake(fd int32) {
	one := uint64(1)
	unix.RawSyscall(unix.SYS_WRITE, uintptr(fd), uintptr(unsafe.Pointer(&one)), 8)
}

// sysCtl changes what epfd watches of fd; key comes back in each event.
func sysCtl(epfd, op int, fd int32, events uint32, key uint64) unix.Errno {
	var ev unix.EpollEvent
	ev.Events = events
	*keyOf(&ev) = key
	_, _, e := unix.RawSyscall6(unix.SYS_EPOLL_CTL, uintptr(epfd), uintptr(op), uintptr(fd), uintptr(unsafe.Pointer(&ev)), 0, 0)
	return e
}

// keyOf is the 64 bits of user data in an event. x/sys splits them into Fd and
// Pad, which are adjacent; on amd64 the kernel packs the struct, so the two
// words are four bytes aligned, which amd64 reads as one all the same.
func keyOf(ev *unix.EpollEvent) *uint64 { return (*uint64)(unsafe.Pointer(&ev.Fd)) }

// sysPoll is epoll_wait that does not wait.
func sysPoll(epfd int, evs []unix.EpollEvent) (int, unix.Errno) {
	n, _, e := unix.RawSyscall6(unix.SYS_EPOLL_PWAIT, uintptr(epfd), uintptr(unsafe.Pointer(unsafe.SliceData(evs))), uintptr(len(evs)), 0, 0, 0)
	return int(n), e
}

// sysWait is epoll_wait that waits for up to ms milliseconds, -1 for ever. The
// Go scheduler may use the processor for other goroutines meanwhile.
func sysWait(epfd int, evs []unix.EpollEvent, ms int) (int, unix.Errno) {
	n, _, e := unix.Syscall6(unix.SYS_EPOLL_PWAIT, uintptr(epfd), uintptr(unsafe.Pointer(unsafe.SliceData(evs))), uintptr(len(evs)), uintptr(ms), 0, 0)
	return int(n), e
}

// sysWaitFine is sysWait for up to ns nanoseconds. A kernel before 5.11 has no
// such call; there the time is rounded up to milliseconds.
func sysWaitFine(epfd int, evs []unix.EpollEvent, ns int64) (int, unix.Errno) {
	ts := unix.NsecToTimespec(ns)
	n, _, e := unix.Syscall6(unix.SYS_EPOLL_PWAIT2, uintptr(epfd), uintptr(unsafe.Pointer(unsafe.SliceData(evs))), uintptr(len(evs)),
		uintptr(unsafe.Pointer(&ts)), 0, 0)
	if e == unix.ENOSYS {
		return sysWait(epfd, evs, int((ns+999_999)/1_000_000))
	}
	return int(n), e
}

func sysClose(fd int32) { unix.RawSyscall(unix.SYS_CLOSE, uintptr(fd), 0, 0) }

// sysShutdown sends FIN: we shall write no more.
func sysShutdown(fd int32) { unix.RawSyscall(unix.SYS_SHUTDOWN, uintptr(fd), unix.SHUT_WR, 0) }

// start is the origin of every loop's clock, so that ticks of different loops
// compare.
var start = time.Now()

// sysNow is the monotonic time since the program started, in nanoseconds.
func sysNow() int64 { return int64(time.Since(start)) }
