package epoll

import (
	"bytes"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
)

func TestABufferIsAPowerOfTwoThatHoldsWhatWasAskedFor(t *testing.T) {
	p := bufs{budget: NewBudget(0)}
	for _, n := range []int{1, 255, 256, 257, 511, 512, 513, 64 << 10, 64<<10 + 1, 8 << 20, 8<<20 + 1} {
		b := p.alloc(n)
		size := cap(b)
		if size < n || size < minBuffer || size&(size-1) != 0 || size > minBuffer && size >= 2*n {
			t.Errorf("alloc(%d) has %d bytes", n, size)
		}
		if c := class(n); size != minBuffer<<c {
			t.Errorf("class(%d) is %d, the buffer has %d bytes", n, c, size)
		}
		if p.budget.Used() != int64(size) {
			t.Errorf("a buffer of %d bytes reserves %d", size, p.budget.Used())
		}
		p.release(b)
		if p.budget.Used() != 0 {
			t.Errorf("%d bytes are still reserved", p.budget.Used())
		}
	}
}

func TestFreedBuffersAreKeptForReuseUpToABound(t *testing.T) {
	p := bufs{budget: NewBudget(0)}
	var bs [][]byte
	for range 1000 {
		bs = append(bs, p.alloc(4096))
	}
	for _, b := range bs {
		p.release(b)
	}
	p.release(p.alloc(16 << 20)) // of no class that is kept
	kept := 0
	for _, s := range p.spare {
		for _, b := range s {
			kept += cap(b)
		}
	}
	if kept != p.idle || kept != maxIdle {
		t.Errorf("%d bytes are kept and %d counted, want %d", kept, p.idle, maxIdle)
	}
	if n := testing.AllocsPerRun(100, func() { p.release(p.alloc(4096)) }); n != 0 {
		t.Errorf("a buffer that was kept is allocated anew (%v allocations)", n)
	}
	if p.idle != maxIdle {
		t.Errorf("%d bytes are counted after reuse, want %d", p.idle, maxIdle)
	}
}

func TestABufferThatTheBudgetRefusesChangesNothing(t *testing.T) {
	p := bufs{budget: NewBudget(1024)}
	var h, other handle
	if !p.add(&h, []byte("abc"), nil) || !p.add(&h, make([]byte, 200), []byte("end")) {
		t.Fatal("no room in an empty budget")
	}
	before := bytes.Clone(p.bytes(h))
	if p.add(&h, make([]byte, 800), nil) { // 1024 for the larger one, while the 256 are held
		t.Fatal("more than the budget was given")
	}
	if p.add(&other, make([]byte, 800), nil) || other != 0 {
		t.Fatalf("a refused buffer has handle %d", other)
	}
	if !bytes.Equal(p.bytes(h), before) || p.budget.Used() != 256 {
		t.Errorf("the refusal changed the buffer, or the budget: %d used", p.budget.Used())
	}
	if !p.add(&other, make([]byte, 512), nil) {
		t.Error("512 of the 768 bytes left were refused")
	}
	p.discard(&h)
	p.discard(&other)
	p.discard(&other) // a second time there is nothing to do
	if p.budget.Used() != 0 {
		t.Errorf("%d bytes used at the end", p.budget.Used())
	}
}

// TestBuffersAgreeWithANaiveModel does what loops do with buffers at random,
// beside plain slices.
func TestBuffersAgreeWithANaiveModel(t *testing.T) {
	r := rand.New(rand.NewPCG(3, 4))
	p := bufs{budget: NewBudget(256 << 10)}
	handles := make([]handle, 40)
	model := make([][]byte, len(handles))
	junk := pattern(96 << 10)
	piece := func() []byte {
		size := 300
		if r.IntN(20) == 0 {
			size = 48 << 10
		}
		at := r.IntN(len(junk) / 2)
		return junk[at : at+r.IntN(size)]
	}
	refused := 0
	for step := range 40_000 {
		i := r.IntN(len(handles))
		h := &handles[i]
		switch r.IntN(10) {
		case 0, 1, 2, 3, 4:
			a, c := piece(), piece()
			used := p.budget.Used()
			if p.add(h, a, c) {
				model[i] = append(append(model[i], a...), c...)
			} else if refused++; p.budget.Used() != used {
				t.Fatalf("step %d: a refusal changed the budget from %d to %d", step, used, p.budget.Used())
			}
		case 5:
			p.discard(h)
			model[i] = nil
		default:
			n := r.IntN(len(model[i]) + 1)
			p.drop(h, n)
			model[i] = model[i][n:]
		}
		if !bytes.Equal(p.bytes(*h), model[i]) || p.len(*h) != len(model[i]) {
			t.Fatalf("step %d: buffer %d has %d bytes, the model %d", step, i, p.len(*h), len(model[i]))
		}
		if (*h == 0) != (len(model[i]) == 0) {
			t.Fatalf("step %d: handle %d for %d bytes", step, *h, len(model[i]))
		}
		if step%50 == 0 {
			var sum int64
			for k, h := range handles {
				if !bytes.Equal(p.bytes(h), model[k]) {
					t.Fatalf("step %d: buffer %d changed with another", step, k)
				}
				if h != 0 {
					sum += int64(cap(p.all[h].b))
				}
			}
			if sum != p.budget.Used() || sum > 256<<10 {
				t.Fatalf("step %d: buffers of %d bytes, %d used", step, sum, p.budget.Used())
			}
		}
	}
	if refused < 100 {
		t.Errorf("only %d refusals: the budget was not tried", refused)
	}
	for i := range handles {
		p.discard(&handles[i])
	}
	if p.budget.Used() != 0 {
		t.Errorf("%d bytes used at the end", p.budget.Used())
	}
	if p.idle > maxIdle {
		t.Errorf("%d bytes kept, at most %d allowed", p.idle, maxIdle)
	}
}

func TestABudgetIsNeverOverdrawnByManyGoroutines(t *testing.T) {
	b := NewBudget(1000)
	var held atomic.Int64
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for k := range 5000 {
				n := 1 + (i*31+k*17)%400
				if !b.Reserve(n) {
					continue
				}
				if now := held.Add(int64(n)); now > 1000 {
					t.Errorf("%d bytes are held of 1000", now)
				}
				held.Add(-int64(n))
				b.Release(n)
			}
		})
	}
	wg.Wait()
	if b.Used() != 0 {
		t.Errorf("%d bytes used at the end", b.Used())
	}
	if b.Reserve(1001) {
		t.Error("more than all was given")
	}
	if !b.Reserve(1000) {
		t.Error("all of it was refused")
	}
}

func TestTheZeroBudgetHasNoLimitAndCounts(t *testing.T) {
	var b Budget
	if !b.Reserve(1<<40) || b.Used() != 1<<40 {
		t.Errorf("%d used after reserving 1 TiB", b.Used())
	}
}
