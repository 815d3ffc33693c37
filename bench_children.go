package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"wspoll/bench"

	"github.com/spf13/pflag"
)

// runProcesses splits a load over child processes, since one process may be
// limited in descriptors or in processor time, and merges what they measured.
func runProcesses(ctx context.Context, o *benchOptions, scenario string, urls []string, flags *pflag.FlagSet, stderr io.Writer) (*bench.Result, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, failed(err)
	}
	if o.connections < o.processes {
		return nil, fmt.Errorf("--processes %d: more than the %d connections", o.processes, o.connections)
	}
	for i := range o.processes {
		if c, s := share(o.connections, i, o.processes), share(o.stalled, i, o.processes); s >= c {
			return nil, fmt.Errorf("--stalled %d: must leave each of the %d processes a connection that reads", o.stalled, o.processes)
		}
	}
	results := make([]*bench.Result, o.processes)
	errs := make([]error, o.processes)
	var wg sync.WaitGroup
	for i := range o.processes {
		args := childArgs(o, scenario, urls, flags, i)
		wg.Go(func() { results[i], errs[i] = runChild(ctx, self, args) })
	}
	if !o.quiet {
		fmt.Fprintf(stderr, "%d processes with %d connections between them\n", o.processes, o.connections)
	}
	wg.Wait()
	var good []*bench.Result
	for i, r := range results {
		if errs[i] == nil {
			good = append(good, r)
		}
	}
	if len(good) == 0 {
		return nil, errors.Join(errs[0])
	}
	merged := bench.Merge(good)
	merged.Command = commandShown(os.Args[1:])
	for i, err := range errs {
		if err != nil {
			merged.AddFailed(share(o.connections, i, o.processes), err)
		}
	}
	return merged, nil
}

// childArgs are the arguments of child i: the same, with its share of the load.
func childArgs(o *benchOptions, scenario string, urls []string, flags *pflag.FlagSet, i int) []string {
	args := []string{"bench", scenario}
	own := map[string]string{
		"processes": "1", "json": "-", "quiet": "true",
		"connections": strconv.Itoa(share(o.connections, i, o.processes)),
	}
	if o.stalled > 0 {
		own["stalled"] = strconv.Itoa(share(o.stalled, i, o.processes))
	}
	for name, value := range map[string]float64{"rate": o.rate, "ramp": o.ramp} {
		if value > 0 {
			own[name] = formatFloat(value / float64(o.processes))
		}
	}
	if o.messages > 0 {
		own["messages"] = strconv.Itoa(share(int(o.messages), i, o.processes))
	}
	for name, value := range own {
		args = append(args, "--"+name+"="+value)
	}
	flags.Visit(func(f *pflag.Flag) {
		if _, ok := own[f.Name]; ok || f.Name == "html" || f.Name == "hdr" || f.Name == "threshold" {
			return
		}
		if list, ok := f.Value.(pflag.SliceValue); ok {
			for _, v := range list.GetSlice() {
				args = append(args, "--"+f.Name+"="+v)
			}
			return
		}
		args = append(args, "--"+f.Name+"="+f.Value.String())
	})
	return append(append(args, "--"), urls...)
}

// runChild runs one child to its end. When ctx is done it is interrupted, and
// gives the results so far.
func runChild(ctx context.Context, self string, args []string) (*bench.Result, error) {
	cmd := exec.CommandContext(ctx, self, args...)
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = 30 * time.Second
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // Ctrl-C reaches it once, through us
	var out, talk bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &talk
	err := cmd.Run()
	var res bench.Result
	if e := json.Unmarshal(out.Bytes(), &res); e == nil {
		return &res, nil
	}
	if text := strings.TrimPrefix(strings.TrimSpace(talk.String()), "wspoll: "); text != "" {
		return nil, errors.New(text)
	}
	return nil, err
}
