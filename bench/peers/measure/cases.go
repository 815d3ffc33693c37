package main

import (
	"fmt"
	"net"
	"strconv"
	"strings"
	"time"

	"wspoll/bench"
)

// A measurement is one block of the output.
type measurement struct {
	name  string
	about string
	load  bench.Config
	run   func(self string, m measurement) error
}

var cases = []measurement{
	{"echo 32 B", "1,000 connections, one message in flight", bench.Config{Connections: 1000, Size: 32}, echo},
	{"echo 1 KiB", "1,000 connections, one message in flight", bench.Config{Connections: 1000, Size: 1 << 10}, echo},
	{"echo 16 KiB", "1,000 connections, one message in flight", bench.Config{Connections: 1000, Size: 16 << 10}, echo},
	{"echo 32 B, 16 in flight", "1,000 connections", bench.Config{Connections: 1000, Size: 32, Depth: 16}, echo},
	{"echo 1 MiB", "100 connections, one message in flight", bench.Config{Connections: 100, Size: 1 << 20}, echo},
	{"handshake", "connect, upgrade and close, 64 at once", bench.Config{Connections: 64}, handshakes},
	{"idle", "open connections after one echo each", bench.Config{Size: 32}, idleMemory},
	{"gc", "a forced cycle of the garbage collector, with and without open connections", bench.Config{Size: 32}, collector},
}

// contestant is a server in a measurement.
type contestant struct {
	name string
	raw  bool   // speaks plain TCP
	path string // of the WebSocket service
	args func(port int) []string
}

func contestants(self string, names ...string) []contestant {
	local := func(port int) string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(port)) }
	all := []contestant{
		{"wspoll", false, "/wshandler", func(port int) []string { return []string{*binary, "--listen", local(port)} }},
		{"bare TCP on our loops", true, "", func(port int) []string { return []string{*binary, "--bare-echo", "--listen", local(port)} }},
		{"gobwas, goroutine each", false, "/", func(port int) []string { return []string{self, "peer", local(port)} }},
	}
	if *floor != "" {
		all = append(all, contestant{"bare TCP in C", true, "", func(port int) []string { return append(strings.Fields(*floor), strconv.Itoa(port)) }})
	}
	var some []contestant
	for _, c := range all {
		for _, n := range names {
			if c.name == n {
				some = append(some, c)
			}
		}
	}
	return some
}

// launch starts a contestant and waits until its port answers.
func (c contestant) launch(self string) (*process, error) {
	port, err := freePort()
	if err != nil {
		return nil, err
	}
	p, err := start(self, c.args(port)...)
	if err != nil {
		return nil, err
	}
	p.addr = &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1), Port: port}
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(10 * time.Millisecond) {
		conn, err := net.DialTCP("tcp4", nil, p.addr)
		if err == nil {
			return p, conn.Close()
		}
		if time.Now().After(deadline) {
			p.stop()
			return nil, fmt.Errorf("%s does not answer: %w", c.name, err)
		}
	}
}

// cost is the server's CPU per unit of work over the measuring time, in
// microseconds. count counts the units so far.
func cost(p *process, count func() (uint64, error)) (float64, error) {
	proc := bench.Process(p.cmd.Process.Pid)
	time.Sleep(200 * time.Millisecond) // warm up
	n0, err := count()
	if err != nil {
		return 0, err
	}
	t0, err := proc.CPU()
	if err != nil {
		return 0, err
	}
	time.Sleep(time.Duration(*seconds * float64(time.Second)))
	n1, err := count()
	if err != nil {
		return 0, err
	}
	t1, err := proc.CPU()
	if err != nil {
		return 0, err
	}
	if n1 == n0 {
		return 0, fmt.Errorf("nothing was done in %g s", *seconds)
	}
	return float64((t1 - t0).Nanoseconds()) / float64(n1-n0) / 1000, nil
}

// echo prints the CPU per echoed message.
func echo(self string, m measurement) error {
	list := contestants(self, "wspoll", "bare TCP on our loops", "bare TCP in C")
	return inRounds(self, m, list, "us per message", "bare TCP on our loops", func(c contestant, p *process) (float64, error) {
		cfg := m.load
		cfg.Addr, cfg.Path, cfg.Raw = p.addr, c.path, c.raw
		cl, err := bench.New(cfg)
		if err != nil {
			return 0, err
		}
		defer cl.Stop()
		if err := cl.Open(); err != nil {
			return 0, err
		}
		cl.Start()
		return cost(p, func() (uint64, error) { n, err := cl.Counts(); return n.Messages, err })
	})
}

// handshakes prints the CPU per connection that is opened, upgraded and closed.
func handshakes(self string, m measurement) error {
	list := contestants(self, "wspoll", "gobwas, goroutine each")
	return inRounds(self, m, list, "us per connection", "gobwas, goroutine each", func(c contestant, p *process) (float64, error) {
		cfg := m.load
		cfg.Addr, cfg.Path = p.addr, c.path
		cl, err := bench.New(cfg)
		if err != nil {
			return 0, err
		}
		defer cl.Stop()
		cl.Cycle()
		return cost(p, func() (uint64, error) { n, err := cl.Counts(); return n.Handshake, err })
	})
}

// inRounds starts each contestant once, measures them in turn, and prints the
// medians and their ratio to the one called base.
func inRounds(self string, m measurement, list []contestant, unit, base string, one func(contestant, *process) (float64, error)) error {
	fmt.Printf("\n%s: %s; %s of the server, median (least-most) of %d rounds\n", m.name, m.about, unit, *rounds)
	procs := make([]*process, len(list))
	for i, c := range list {
		p, err := c.launch(self)
		if err != nil {
			return err
		}
		defer p.stop()
		procs[i] = p
	}
	results := make([]samples, len(list))
	for range *rounds {
		for i, c := range list {
			v, err := one(c, procs[i])
			if err != nil {
				return fmt.Errorf("%s: %w", c.name, err)
			}
			results[i] = append(results[i], v)
		}
	}
	var ref samples
	for i, c := range list {
		if c.name == base {
			ref = results[i]
		}
	}
	var rows [][]string
	for i, c := range list {
		pairs := make(samples, *rounds)
		for r := range pairs {
			pairs[r] = results[i][r] / ref[r]
		}
		rows = append(rows, []string{"  " + c.name, results[i].String(), fmt.Sprintf("x %.2f of %s; round by round %s", results[i].median()/ref.median(), base, pairs)})
	}
	table(rows)
	return nil
}

// idleMemory prints the private memory and the CPU that connections cost which
// do nothing after one echo each.
func idleMemory(self string, m measurement) error {
	fmt.Printf("\n%s: %d %s; no garbage collection forced\n", m.name, *idle, m.about)
	list := contestants(self, "wspoll", "bare TCP on our loops", "gobwas, goroutine each")
	rows := [][]string{{"  server", "bytes each", "of", "CPU in 5 quiet seconds"}}
	for range *rounds {
		for _, c := range list {
			row, err := idleOne(self, m, c)
			if err != nil {
				return fmt.Errorf("%s: %w", c.name, err)
			}
			rows = append(rows, row)
		}
	}
	table(rows)
	return nil
}

func idleOne(self string, m measurement, c contestant) ([]string, error) {
	p, err := c.launch(self)
	if err != nil {
		return nil, err
	}
	defer p.stop()
	proc := bench.Process(p.cmd.Process.Pid)
	cfg := m.load
	cfg.Addr, cfg.Path, cfg.Raw, cfg.Connections = p.addr, c.path, c.raw, *idle
	cl, err := bench.New(cfg)
	if err != nil {
		return nil, err
	}
	defer cl.Stop()
	before, err := proc.Private()
	if err != nil {
		return nil, err
	}
	if err := cl.Open(); err != nil {
		return nil, err
	}
	if err := cl.Once(); err != nil {
		return nil, err
	}
	after, err := proc.Private()
	if err != nil {
		return nil, err
	}
	time.Sleep(time.Second)
	t0, err := proc.CPU()
	if err != nil {
		return nil, err
	}
	time.Sleep(5 * time.Second)
	t1, err := proc.CPU()
	if err != nil {
		return nil, err
	}
	return []string{
		"  " + c.name, fmt.Sprintf("%.0f", float64(after-before)/float64(*idle)),
		fmt.Sprintf("%.1f MiB before, %.1f after", float64(before)/(1<<20), float64(after)/(1<<20)), (t1 - t0).Round(10 * time.Microsecond).String(),
	}, nil
}

// collector prints how long a cycle of the garbage collector takes.
func collector(self string, m measurement) error {
	fmt.Printf("\n%s: %s; a wspoll server in a process that does it on demand, least of 20 cycles\n", m.name, m.about)
	p, err := start(self, self, "peer", "wspoll")
	if err != nil {
		return err
	}
	defer p.stop()
	if err := p.announced(); err != nil {
		return err
	}
	var rows [][]string
	for _, n := range []int{0, *idle} {
		cfg := m.load
		cfg.Addr, cfg.Path, cfg.Connections = p.addr, "/wshandler", n
		cl, err := bench.New(cfg)
		if err != nil {
			return err
		}
		defer cl.Stop()
		if n > 0 {
			if err := cl.Open(); err != nil {
				return err
			}
			if err := cl.Once(); err != nil {
				return err
			}
		}
		p.in.WriteString("gc\n")
		p.in.Flush()
		line, err := p.out.ReadString('\n')
		if err != nil {
			return err
		}
		rows = append(rows, []string{fmt.Sprintf("  %d connections", n), strings.TrimSpace(line)})
	}
	table(rows)
	return nil
}
