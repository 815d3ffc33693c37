package main

import (
	"os"
	"runtime"
)

// spareProcessor gives the Go scheduler one processor more than there are
// loops, unless GOMAXPROCS is set. With as many as loops none is ever idle, and
// then the scheduler's monitor takes the processor from a loop that sleeps in
// epoll_wait for 20 us, and to see that looks every 20 us itself: on loops that
// are half idle that was a fifth of all CPU time. With a spare one it lets them
// sleep; and net/http, the collector and Blocking functions have a place to run
// while every loop is busy.
func spareProcessor(loops int) {
	if os.Getenv("GOMAXPROCS") == "" && runtime.GOMAXPROCS(0) <= loops {
		runtime.GOMAXPROCS(loops + 1)
	}
}
