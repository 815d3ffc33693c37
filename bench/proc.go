package bench

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"time"
)

// Process reads what a process of this machine costs, from /proc.
type Process int

// CPU is the processor time that the threads of the process have used. It is
// the scheduler's account, in nanoseconds, not the sampled one of /proc/PID/stat;
// threads that have ended are not in it.
func (p Process) CPU() (time.Duration, error) {
	files, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/schedstat", int(p)))
	if err != nil || len(files) == 0 {
		return 0, fmt.Errorf("process %d: no such process", int(p))
	}
	var sum time.Duration
	for _, f := range files {
		b, err := os.ReadFile(f)
		if err != nil {
			continue // the thread has ended
		}
		first, _, _ := bytes.Cut(b, []byte(" "))
		ns, err := strconv.ParseInt(string(first), 10, 64)
		if err != nil {
			return 0, fmt.Errorf("%s: %w", f, err)
		}
		sum += time.Duration(ns)
	}
	return sum, nil
}

// Private is the memory, in bytes, that only this process has: Private_Clean
// and Private_Dirty of smaps_rollup. Pages that are shared with others, and
// the kernel's memory for its sockets, are not in it.
func (p Process) Private() (int64, error) {
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/smaps_rollup", int(p)))
	if err != nil {
		return 0, err
	}
	var sum int64
	for line := range bytes.Lines(b) {
		f := bytes.Fields(line)
		if len(f) == 3 && bytes.HasPrefix(f[0], []byte("Private_")) && !bytes.HasPrefix(f[0], []byte("Private_Hugetlb")) {
			kib, err := strconv.ParseInt(string(f[1]), 10, 64)
			if err != nil {
				return 0, fmt.Errorf("smaps_rollup: %q: %w", line, err)
			}
			sum += kib << 10
		}
	}
	return sum, nil
}

// count is how many entries a directory of the process has in /proc: its
// threads (task) or descriptors (fd). 0 when it cannot be read.
func (p Process) count(dir string) int {
	entries, err := os.ReadDir(fmt.Sprintf("/proc/%d/%s", int(p), dir))
	if err != nil {
		return 0
	}
	return len(entries)
}

// kernelSlab is how many bytes the kernel of this machine has in its slab
// caches, where sockets are; 0 when /proc/meminfo does not say.
func kernelSlab() int64 {
	b, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		return 0
	}
	for line := range bytes.Lines(b) {
		if f := bytes.Fields(line); len(f) == 3 && string(f[0]) == "Slab:" {
			kib, err := strconv.ParseInt(string(f[1]), 10, 64)
			if err != nil {
				return 0
			}
			return kib << 10
		}
	}
	return 0
}
