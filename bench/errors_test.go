package bench

import (
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"testing"

	"wspoll/epoll"

	"golang.org/x/sys/unix"
)

func TestErrorsOfTheSystemAreSortedAndNameTheCure(t *testing.T) {
	for _, test := range []struct {
		err          error
		kind, detail string
	}{
		{os.NewSyscallError("socket", unix.EMFILE), KindDescriptors, "ulimit -n"},
		{&net.OpError{Op: "dial", Err: os.NewSyscallError("socket", unix.ENFILE)}, KindDescriptors, "--processes"},
		{os.NewSyscallError("connect", unix.EADDRNOTAVAIL), KindPorts, "--local-addr"},
		{os.NewSyscallError("bind", unix.EADDRINUSE), KindPorts, "--local-addr"},
		{unix.ECONNREFUSED, KindRefused, "connection refused"},
		{unix.ENETUNREACH, KindRefused, "unreachable"},
		{unix.EHOSTUNREACH, KindRefused, "no route"},
		{unix.ECONNRESET, KindReset, ""},
		{unix.EPIPE, KindReset, ""},
		{unix.ETIMEDOUT, KindTimeout, "connect"},
		{errors.New("something"), KindOther, "something"},
	} {
		if kind, detail := ofErrno(test.err); kind != test.kind || !strings.Contains(detail, test.detail) {
			t.Errorf("%v is %s, %q", test.err, kind, detail)
		}
	}
}

func TestTheEndOfAConnectionIsSorted(t *testing.T) {
	for _, test := range []struct {
		cause        epoll.Cause
		errno        unix.Errno
		kind, detail string
	}{
		{epoll.CauseTimeout, 0, KindTimeout, "connect"},
		{epoll.CauseEOF, 0, KindEOF, ""},
		{epoll.CauseStalled, 0, KindTimeout, "does not read"},
		{epoll.CauseReset, unix.ECONNRESET, KindReset, ""},
		{epoll.CauseRefused, unix.ECONNREFUSED, KindRefused, "connection refused"},
		{epoll.CauseBudget, 0, KindOther, "budget"},
	} {
		if kind, detail := ofCause(test.cause, test.errno, nil); kind != test.kind || !strings.Contains(detail, test.detail) {
			t.Errorf("%v, %v is %s, %q", test.cause, test.errno, kind, detail)
		}
	}
}

func TestAServerThatNamesEveryConnectionDoesNotFillTheMemory(t *testing.T) {
	var f failures
	for i := range 10_000 {
		f.add(KindClosed, fmt.Sprint(i), 1)
	}
	f.add(KindReset, "", 7)
	list := f.list()
	if len(list) > maxDetails+2 || f.total != 10_007 || list[0].Detail != "others" {
		t.Errorf("%d kinds, %d in all, %+v", len(list), f.total, list[0])
	}
	var sum uint64
	for i, e := range list {
		sum += e.Count
		if i > 0 && e.Count > list[i-1].Count {
			t.Error("not in falling order")
		}
	}
	if sum != f.total {
		t.Errorf("%d, want %d", sum, f.total)
	}
}
