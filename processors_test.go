package main

import (
	"runtime"
	"testing"
)

func TestThereIsAProcessorMoreThanLoopsUnlessTheUserSaidHowMany(t *testing.T) {
	was := runtime.GOMAXPROCS(0)
	defer runtime.GOMAXPROCS(was)
	for _, c := range []struct {
		env         string
		have, loops int
		want        int
	}{
		{"", 1, 1, 2},
		{"", 2, 2, 3},
		{"", 4, 2, 4},
		{"1", 1, 1, 1},
	} {
		t.Setenv("GOMAXPROCS", c.env)
		runtime.GOMAXPROCS(c.have)
		spareProcessor(c.loops)
		if got := runtime.GOMAXPROCS(0); got != c.want {
			t.Errorf("GOMAXPROCS=%q, %d processors, %d loops: %d processors, want %d", c.env, c.have, c.loops, got, c.want)
		}
	}
}
