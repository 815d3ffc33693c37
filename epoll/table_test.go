package epoll

import (
	"reflect"
	"runtime"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// pointers are the paths of everything in type t that the garbage collector
// would follow.
func pointers(t reflect.Type, path string) []string {
	switch t.Kind() {
	case reflect.Struct:
		var found []string
		for f := range t.Fields() {
			found = append(found, pointers(f.Type, path+"."+f.Name)...)
		}
		return found
	case reflect.Array:
		return pointers(t.Elem(), path+"[]")
	case reflect.Pointer, reflect.Slice, reflect.String, reflect.Map, reflect.Chan, reflect.Func, reflect.Interface, reflect.UnsafePointer:
		return []string{path + " " + t.String()}
	}
	return nil
}

func TestASlotHoldsNoPointersAndIsSmall(t *testing.T) {
	if ps := append(pointers(reflect.TypeFor[slot](), "slot"), pointers(reflect.TypeFor[extra](), "extra")...); ps != nil {
		t.Errorf("the collector would look into %v", ps)
	}
	if n := unsafe.Sizeof(slot{}); n != 24 {
		t.Errorf("a slot is %d bytes, want 24", n)
	}
	if n := unsafe.Sizeof(extra{}); n != 20 {
		t.Errorf("an extra is %d bytes, want 20", n)
	}
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	for _, page := range []uintptr{unsafe.Sizeof([pageSize]slot{}), unsafe.Sizeof([pageSize]extra{})} {
		exact := false
		for _, class := range m.BySize {
			exact = exact || uintptr(class.Size) == page
		}
		if !exact {
			t.Errorf("a page of %d bytes has no size class of its own", page)
		}
	}
	// The walk itself finds pointers where there are some.
	if ps := pointers(reflect.TypeFor[[2]struct{ a buffer }](), "x"); len(ps) != 1 {
		t.Errorf("the pointers of a buffer are %v, want one", ps)
	}
}

func TestElementsOfATableNeverMoveAndBeginAsZero(t *testing.T) {
	var table Table[int]
	if table.Len() != 0 {
		t.Fatalf("the zero Table has %d elements", table.Len())
	}
	at := map[Slot]*int{}
	for _, i := range []Slot{0, 1, pageSize - 1, pageSize, 5*pageSize + 3, 40 * pageSize} {
		table.Grow(i)
		if table.Len() <= int(i) {
			t.Fatalf("Len is %d after Grow(%d)", table.Len(), i)
		}
		p := table.At(i)
		if *p != 0 {
			t.Errorf("new element %d is %d", i, *p)
		}
		*p = int(i) + 1
		at[i] = p
	}
	before := table.Len()
	table.Grow(7)
	if table.Len() != before {
		t.Errorf("Grow within the table changed its length from %d to %d", before, table.Len())
	}
	for i, p := range at {
		if table.At(i) != p || *p != int(i)+1 {
			t.Errorf("element %d has moved or changed", i)
		}
	}
}

func TestAnIDIsNotFoundAfterItsConnectionNorForTheNextInTheSlot(t *testing.T) {
	l := stillLoop(t, Config{}, script{})
	c, _ := couple(t, l)
	old := l.ID(c)
	if found, ok := l.Find(old); !ok || found != c {
		t.Fatalf("Find of an open connection gave %d, %v", found, ok)
	}
	l.Close(c)
	if _, ok := l.Find(old); ok {
		t.Error("a closed connection was found")
	}
	again, _ := couple(t, l)
	if again != c {
		t.Fatalf("slot %d was not used again, but %d", c, again)
	}
	if _, ok := l.Find(old); ok {
		t.Error("the ID of a closed connection found the next one in its slot")
	}
	if _, ok := l.Find(l.ID(again)); !ok {
		t.Error("the new connection was not found")
	}
	for _, id := range []ID{0, ID(keyWake), ID(listenerGen) << 32, ID(l.Slots()), ID(c) | 77<<32} {
		if found, ok := l.Find(id); ok {
			t.Errorf("Find(%x) gave slot %d", uint64(id), found)
		}
	}
}

func TestAGenerationNeverBecomesThatOfListeners(t *testing.T) {
	l := stillLoop(t, Config{}, script{})
	c, _ := couple(t, l)
	l.slots.At(c).gen = listenerGen - 1
	l.Close(c)
	if gen := l.slots.At(c).gen; gen != 0 {
		t.Errorf("after the last generation comes %x, want 0", gen)
	}
}

func TestAnEventOfAClosedConnectionIsDroppedWhenItsSlotIsUsedAgainInTheBatch(t *testing.T) {
	var served []ID
	var other Slot
	var fresh ID
	l := stillLoop(t, Config{}, script{data: func(l *Loop, c Slot, in []byte) int {
		served = append(served, l.ID(c))
		if other != 0 { // the first event of the batch: replace the connection of the second
			victim := other
			other = 0
			l.Close(victim)
			again, _ := couple(t, l)
			if again != victim {
				t.Fatalf("slot %d was not used again, but %d", victim, again)
			}
			fresh = l.ID(again)
		}
		return len(in)
	}})
	a, peerA := couple(t, l)
	b, peerB := couple(t, l)
	idB := l.ID(b)
	for _, fd := range []int{peerA, peerB} {
		if _, err := unix.Write(fd, []byte("x")); err != nil {
			t.Fatal(err)
		}
	}
	evs := make([]unix.EpollEvent, 8)
	n, _ := sysPoll(l.epfd, evs)
	if n != 2 {
		t.Fatalf("%d events in the batch, want both", n)
	}
	first := ID(*keyOf(&evs[0]))
	if other = b; first == idB {
		other = a
	}
	for i := range n {
		l.dispatch(&evs[i])
	}
	if len(served) != 1 || served[0] != first {
		t.Errorf("the batch served %x, want only %x: the new connection %x has no bytes", served, first, fresh)
	}
	if _, ok := l.Find(fresh); !ok {
		t.Error("the stale event has ended the new connection")
	}

	// Stale hang-ups and errors are no better.
	stale := unix.EpollEvent{Events: unix.EPOLLIN | unix.EPOLLOUT | unix.EPOLLERR | unix.EPOLLHUP}
	for _, id := range []ID{idB, l.ID(a) + 7<<32, ID(l.Slots()) + 5} {
		if fresh != id && l.ID(a) != id && l.ID(b) != id {
			*keyOf(&stale) = uint64(id)
			l.dispatch(&stale)
		}
	}
	if l.Len() != 2 || len(served) != 1 {
		t.Errorf("%d connections and %d calls of Data after stale events, want 2 and 1", l.Len(), len(served))
	}
}
