package epoll

import (
	"math/bits"
	"sync/atomic"
)

// Budget bounds the bytes that all loops that share it hold in buffers of
// connections. It is exact: a buffer exists only while its whole capacity is
// reserved. The zero Budget has no limit and counts all the same.
type Budget struct {
	max  int64
	used atomic.Int64
}

// NewBudget returns a Budget of max bytes; 0 means no limit.
func NewBudget(max int64) *Budget { return &Budget{max: max} }

// Reserve takes n bytes, and reports false, taking none, when they are not there.
// Any goroutine may call it.
func (b *Budget) Reserve(n int) bool {
	if now := b.used.Add(int64(n)); b.max > 0 && now > b.max {
		b.used.Add(-int64(n))
		return false
	}
	return true
}

// Release gives n bytes back. Any goroutine may call it.
func (b *Budget) Release(n int) { b.used.Add(-int64(n)) }

// Used is the number of bytes that are reserved now.
func (b *Budget) Used() int64 { return b.used.Load() }

// handle names a buffer of a loop; 0 is none. Slots hold handles because they
// must not hold pointers.
type handle uint32

// buffer is a run of bytes that wait: b[off:] in the order of the stream.
type buffer struct {
	b   []byte
	off int
}

// bufs are the buffers of one loop. A buffer's capacity is a power of two of
// at least minBuffer; freed ones are kept for reuse, by size, up to maxIdle
// bytes in all, so that a loop whose connections take turns to need a buffer
// does not allocate. Kept ones are not charged to the budget.
type bufs struct {
	budget *Budget
	all    []buffer
	free   []handle
	spare  [numClasses][][]byte
	idle   int // bytes in spare
}

const (
	minBuffer  = 256
	numClasses = 16        // 256 B to 8 MiB are kept; larger ones go to the collector
	maxIdle    = 256 << 10 // bytes
)

// class is the index of the smallest size that holds n bytes.
func class(n int) int {
	if n <= minBuffer {
		return 0
	}
	return bits.Len(uint(n-1)) - bits.Len(minBuffer-1)
}

// alloc returns an empty slice with room for n bytes, nil when the budget has none.
func (p *bufs) alloc(n int) []byte {
	c := class(n)
	size := minBuffer << c
	if !p.budget.Reserve(size) {
		return nil
	}
	if c < numClasses {
		if s := p.spare[c]; len(s) > 0 {
			b := s[len(s)-1]
			p.spare[c] = s[:len(s)-1]
			p.idle -= size
			return b
		}
	}
	return make([]byte, 0, size)
}

func (p *bufs) release(b []byte) {
	size := cap(b)
	p.budget.Release(size)
	if c := class(size); c < numClasses && p.idle+size <= maxIdle {
		p.spare[c] = append(p.spare[c], b[:0])
		p.idle += size
	}
}

// bytes are the bytes that wait in h; valid until the next add or drop.
func (p *bufs) bytes(h handle) []byte {
	if h == 0 {
		return nil
	}
	return p.all[h].b[p.all[h].off:]
}

func (p *bufs) len(h handle) int {
	if h == 0 {
		return 0
	}
	return len(p.all[h].b) - p.all[h].off
}

// add appends a and then c to the buffer *h, making it when *h is 0. It
// reports false, and has changed nothing, when the budget has no room.
func (p *bufs) add(h *handle, a, c []byte) bool {
	need := len(a) + len(c)
	if need == 0 {
		return true
	}
	if *h == 0 {
		b := p.alloc(need)
		if b == nil {
			return false
		}
		*h = p.take(append(append(b, a...), c...))
		return true
	}
	x := &p.all[*h]
	if cap(x.b)-len(x.b) < need {
		waiting := len(x.b) - x.off
		if waiting+need > cap(x.b) {
			b := p.alloc(waiting + need)
			if b == nil {
				return false
			}
			b = append(b, x.b[x.off:]...)
			p.release(x.b)
			x.b, x.off = b, 0
		} else { // there is room once the sent bytes in front are gone
			x.b = x.b[:copy(x.b, x.b[x.off:])]
			x.off = 0
		}
	}
	x.b = append(append(x.b, a...), c...)
	return true
}

// take enters b, which alloc gave, under a handle.
func (p *bufs) take(b []byte) handle {
	if n := len(p.free); n > 0 {
		h := p.free[n-1]
		p.free = p.free[:n-1]
		p.all[h] = buffer{b: b}
		return h
	}
	if len(p.all) == 0 {
		p.all = append(p.all, buffer{}) // handle 0 is none
	}
	p.all = append(p.all, buffer{b: b})
	return handle(len(p.all) - 1)
}

// drop forgets the first n bytes of *h, and the buffer when none are left.
func (p *bufs) drop(h *handle, n int) {
	if n == 0 {
		return
	}
	x := &p.all[*h]
	if x.off += n; x.off == len(x.b) {
		p.discard(h)
	}
}

// discard frees the buffer *h, if there is one, and sets *h to 0.
func (p *bufs) discard(h *handle) {
	if *h == 0 {
		return
	}
	p.release(p.all[*h].b)
	p.all[*h] = buffer{}
	p.free = append(p.free, *h)
	*h = 0
}
