package bench

import (
	"os"
	"runtime"
	"runtime/debug"
	"testing"
	"time"
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
	ballast := make([]byte, 64<<20)
	for i := 0; i < len(ballast); i += 4096 {
		ballast[i] = 1
	}
	if more, err := me.Private(); err != nil || more-private < 24<<20 {
		t.Errorf("%d bytes more, %v", more-private, err)
	}
	runtime.KeepAlive(ballast)
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
