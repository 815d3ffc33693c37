package epoll

import (
	"encoding/binary"
	"net/netip"
	"unsafe"

	"golang.org/x/sys/unix"
)

// PeerAddr is Peer without an allocation, for those who ask it of every
// connection. It is the zero AddrPort when the connection is broken. The zone
// of a link-local address is left away.
func (l *Loop) PeerAddr(c Slot) netip.AddrPort {
	if _, onLinux := l.kernel.(linux); !onLinux {
		if a := l.Peer(c); a != nil {
			return a.AddrPort()
		}
		return netip.AddrPort{}
	}
	var sa unix.RawSockaddrInet6 // the larger of the two
	size := uint32(unsafe.Sizeof(sa))
	_, _, e := unix.RawSyscall(unix.SYS_GETPEERNAME, uintptr(l.Fd(c)), uintptr(unsafe.Pointer(&sa)), uintptr(unsafe.Pointer(&size)))
	if e != none {
		return netip.AddrPort{}
	}
	// The port has the bytes of the network's order, at the same place in both.
	port := binary.BigEndian.Uint16((*[2]byte)(unsafe.Pointer(&sa.Port))[:])
	switch sa.Family {
	case unix.AF_INET:
		sa4 := (*unix.RawSockaddrInet4)(unsafe.Pointer(&sa))
		return netip.AddrPortFrom(netip.AddrFrom4(sa4.Addr), port)
	case unix.AF_INET6:
		return netip.AddrPortFrom(netip.AddrFrom16(sa.Addr), port)
	}
	return netip.AddrPort{}
}
