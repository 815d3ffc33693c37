package server

import "wspoll/epoll"

// roster is a list of slots that grows and shrinks at its end and never moves
// when it is long: one that is copied as it grows leaves as much garbage as it
// holds, which nobody collects while all is quiet.
type roster struct {
	pages [][]epoll.Slot // all but the last are full
	n     int
}

const (
	rosterPage = 1 << 10 // slots of a page
	minSlots   = 16      // of the first page, which is short in a short list
)

func (r *roster) len() int { return r.n }

func (r *roster) at(i int) epoll.Slot { return r.pages[i/rosterPage][i%rosterPage] }

func (r *roster) set(i int, c epoll.Slot) { r.pages[i/rosterPage][i%rosterPage] = c }

func (r *roster) add(c epoll.Slot) {
	page, i := r.n/rosterPage, r.n%rosterPage
	switch {
	case page == len(r.pages) && page == 0:
		r.pages = append(r.pages, make([]epoll.Slot, minSlots))
	case page == len(r.pages):
		r.pages = append(r.pages, make([]epoll.Slot, rosterPage))
	case i == len(r.pages[page]):
		r.resize(2 * i)
	}
	r.pages[page][i] = c
	r.n++
}

// drop takes the last one off. A page is kept until the one before it is half
// empty too, lest one who comes and goes makes it anew each time.
func (r *roster) drop() {
	r.n--
	last := len(r.pages) - 1
	if last > 0 && r.n <= last*rosterPage-rosterPage/2 {
		r.pages[last] = nil
		r.pages = r.pages[:last]
	} else if size := len(r.pages[0]); last == 0 && size > minSlots && r.n < size/4 {
		r.resize(max(minSlots, size/2))
	}
}

// resize makes the first page, which is the only one, longer or shorter.
func (r *roster) resize(n int) {
	p := make([]epoll.Slot, n)
	copy(p, r.pages[0])
	r.pages[0] = p
}

// room is how many slots the memory would hold.
func (r *roster) room() (n int) {
	for _, p := range r.pages {
		n += len(p)
	}
	return n
}
