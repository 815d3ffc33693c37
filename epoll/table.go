package epoll

// pageSize is how many elements a page of a Table holds: few enough that a
// server without connections stays small, many enough that finding an element
// costs one load from a page directory that fits the first-level cache: 16 KiB
// for a million. A page of slots is 12288 bytes, which Go's allocator hands out
// without waste: it is a size class, and two fill its span of 24 KiB.
const pageSize = 512

// Table is a growing array whose elements never move: it grows by pages, so
// that growth leaves no old array behind for the garbage collector, and a
// pointer to an element stays good. With an element type that holds no
// pointers the collector does not look into it at all.
//
// Handlers keep their own state of a connection in a Table that is indexed by
// Slot. The zero Table is empty and ready. A Table belongs to one goroutine.
type Table[T any] struct {
	pages []*[pageSize]T
}

// At returns element i, which Grow made.
func (t *Table[T]) At(i Slot) *T { return &t.pages[i/pageSize][i%pageSize] }

// Grow makes every element up to and including i; new ones are zero.
func (t *Table[T]) Grow(i Slot) {
	for Slot(len(t.pages)) <= i/pageSize {
		t.pages = append(t.pages, new([pageSize]T))
	}
}

// Len is one more than the largest index that At may be given.
func (t *Table[T]) Len() int { return len(t.pages) * pageSize }
