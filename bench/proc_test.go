package bench

import (
	"os"
	"runtime/debug"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestAProcessReadsItsOwnCosts(t *testing.T) {
	me := Process(os.Getpid())
	before, err := me.CPU()
	if err != nil {
		t.Fatal(err)
	}
	for x, end := 0, time.Now().Add(time.Second); time.Now().Before(end); x++ {
		if x%1000 == 0 {
			if now, err := me.CPU(); err != nil {
				t.Fatal(err)
			} else if now-before > 50*time.Millisecond {
				break
			}
		}
	}
	if after, err := me.CPU(); err != nil || after <= before {
		t.Errorf("%s, then %s, %v", before, after, err)
	}
	debug.FreeOSMemory() // so that it does not happen meanwhile
	private, err := me.Private()
	if err != nil || private < 1<<20 {
		t.Errorf("%d bytes, %v", private, err)
	}
	// Not of the Go heap, which gives back and takes as it likes.
	ballast, err := unix.Mmap(-1, 0, 256<<20, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(ballast); i += 4096 {
		ballast[i] = 1
	}
	if more, err := me.Private(); err != nil || more-private < 128<<20 {
		t.Errorf("%d bytes more, %v", more-private, err)
	}
	if err := unix.Munmap(ballast); err != nil {
		t.Error(err)
	}
	if me.count("task") < 2 || me.count("fd") < 3 {
		t.Errorf("%d threads, %d descriptors", me.count("task"), me.count("fd"))
	}
}

func TestAProcessThatIsNotThereIsAnError(t *testing.T) {
	p := Process(999_999_999)
	if _, err := p.CPU(); err == nil {
		t.Error("it has CPU")
	}
	if _, err := p.Private(); err == nil {
		t.Error("it has memory")
	}
	if p.count("fd") != 0 {
		t.Error("it has descriptors")
	}
}
