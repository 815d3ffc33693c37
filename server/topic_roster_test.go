package server

import (
	"math/rand/v2"
	"slices"
	"testing"

	"wspoll/epoll"
)

// A roster is a slice, in less memory.
func TestRosterIsAListOfSlots(t *testing.T) {
	rng := rand.New(rand.NewPCG(1, 2))
	var r roster
	var want []epoll.Slot
	for _, n := range []int{1, 17, 3, 0, 5000, 1024, 1025, 1500, 40, 9000, 0, 2000} {
		for len(want) < n {
			c := epoll.Slot(rng.Uint32())
			want = append(want, c)
			r.add(c)
		}
		for len(want) > n {
			i := rng.IntN(len(want))
			last := len(want) - 1
			want[i] = want[last]
			r.set(i, r.at(last))
			want = want[:last]
			r.drop()
		}
		var got []epoll.Slot
		for i := range r.len() {
			got = append(got, r.at(i))
		}
		if !slices.Equal(got, want) {
			t.Fatalf("with %d it differs", n)
		}
		if most := max(minSlots, 4*n, n+2*rosterPage); r.room() > most || n < rosterPage/2 && r.room() > max(minSlots, 4*n+rosterPage) {
			t.Errorf("room for %d with %d", r.room(), n)
		}
	}
}
