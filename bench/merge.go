package bench

import "slices"

// Merge makes one result of those of several processes that ran side by side
// against the same server. Counts and costs add up, distributions are merged,
// times are the longest. all is not empty.
func Merge(all []*Result) *Result {
	m := *all[0]
	m.Connect, m.Upgrade, m.Message = Latency{}, Latency{}, Latency{}
	m.Errors, m.Series, m.Notes = nil, nil, nil
	m.Processes = len(all)
	m.Stalled = 0
	m.Connections, m.Rate, m.Opened, m.Sent, m.Messages, m.BytesSent, m.BytesBack = 0, 0, 0, 0, 0, 0, 0
	m.InFlight, m.Unsent, m.Seconds, m.SlipSeconds = 0, 0, 0, 0
	m.SlabPerConn = m.SlabPerConn * float64(all[0].Connections) // each process saw the growth for all
	m.Client = Usage{PID: all[0].Client.PID}
	if m.Compressed != nil {
		m.Compressed = &Compressed{Agreed: m.Compressed.Agreed}
	}
	counts := map[failureKey]uint64{}
	for _, r := range all {
		m.Connections += r.Connections
		m.Stalled += r.Stalled
		m.Rate += r.Rate
		m.Opened += r.Opened
		m.Sent += r.Sent
		m.Messages += r.Messages
		m.BytesSent += r.BytesSent
		m.BytesBack += r.BytesBack
		m.InFlight += r.InFlight
		m.Unsent += r.Unsent
		m.Interrupted = m.Interrupted || r.Interrupted
		m.Seconds = max(m.Seconds, r.Seconds)
		m.OpeningSeconds = max(m.OpeningSeconds, r.OpeningSeconds)
		m.SlipSeconds = max(m.SlipSeconds, r.SlipSeconds)
		m.Connect.Merge(&r.Connect)
		m.Upgrade.Merge(&r.Upgrade)
		m.Message.Merge(&r.Message)
		for _, e := range r.Errors {
			counts[failureKey{e.Kind, e.Detail}] += e.Count
		}
		m.Client.CPUSeconds += r.Client.CPUSeconds
		m.Client.Private += r.Client.Private
		m.Client.Threads += r.Client.Threads
		m.Client.Descriptors += r.Client.Descriptors
		m.Client.PerConn += r.Client.PerConn * float64(r.Connections)
		if r.Compressed != nil && m.Compressed != nil {
			m.Compressed.SentPlain += r.Compressed.SentPlain
			m.Compressed.SentWire += r.Compressed.SentWire
			m.Compressed.BackPlain += r.Compressed.BackPlain
			m.Compressed.BackWire += r.Compressed.BackWire
		}
		if r.Spread != nil {
			if m.Spread == all[0].Spread {
				m.Spread = &Latency{}
			}
			m.Spread.Merge(r.Spread)
		}
		mergeSeries(&m, r.Series)
		for _, note := range r.Notes {
			if !slices.Contains(m.Notes, note) {
				m.Notes = append(m.Notes, note)
			}
		}
	}
	for k, n := range counts {
		m.Errors = append(m.Errors, ErrorCount{k.kind, k.detail, n})
	}
	sortErrors(m.Errors)
	units := m.Messages
	if m.Scenario == "connect" {
		units = m.Opened
	}
	if units > 0 {
		m.Client.CPUPerMsg = m.Client.CPUSeconds * 1e6 / float64(units)
		if m.Server != nil {
			s := *m.Server
			s.CPUPerMsg = s.CPUSeconds * 1e6 / float64(units)
			s.PerConn = s.PerConn * float64(all[0].Connections) / float64(m.Connections)
			m.Server = &s
		}
	}
	if m.Connections > 0 {
		m.SlabPerConn /= float64(m.Connections)
		m.Client.PerConn /= float64(m.Connections)
	}
	return &m
}

// AddFailed adds a process that gave no result. Its connections are failures, as
// those that one process cannot open are: a threshold on errors is missed.
func (r *Result) AddFailed(connections int, why error) {
	r.Connections += connections
	r.Notes = append(r.Notes, "a process of the client failed: "+why.Error())
	r.Errors = append(r.Errors, ErrorCount{KindOther, "not opened, for a process of the client failed: " + why.Error(), uint64(connections)})
	sortErrors(r.Errors)
}

// mergeSeries adds the intervals of one process to those so far: counts add
// up, and of the latencies, whose distributions are not kept by interval, the
// worst stands.
func mergeSeries(m *Result, series []Sample) {
	for i, s := range series {
		if i == len(m.Series) {
			m.Series = append(m.Series, s)
			continue
		}
		t := &m.Series[i]
		t.Open += s.Open
		t.Messages += s.Messages
		t.Errors += s.Errors
		t.P50, t.P99, t.Max = max(t.P50, s.P50), max(t.P99, s.P99), max(t.Max, s.Max)
		t.ClientCPU += s.ClientCPU
		t.ServerCPU = max(t.ServerCPU, s.ServerCPU)
		t.ServerPrivate = max(t.ServerPrivate, s.ServerPrivate)
	}
}
