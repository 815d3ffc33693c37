package bench

import (
	"encoding/json"
	"fmt"
	"os"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
)

// Result is what a run has measured. It is what --json writes, what the
// reports are made from, and what child processes send to their parent, which
// merges theirs.
type Result struct {
	Version     int       `json:"version"`  // of this format: 1
	Scenario    string    `json:"scenario"` // echo, connect, idle, push
	Command     []string  `json:"command"`
	Machine     Machine   `json:"machine"`
	Start       time.Time `json:"start"`
	Seconds     float64   `json:"seconds"` // measuring time; the opening of the connections is not in it
	Interrupted bool      `json:"interrupted,omitempty"`

	OpeningSeconds float64 `json:"opening_seconds,omitempty"` // connect with --ramp: the part of Seconds in which they were opened

	URLs        []string `json:"urls"`
	Loop        string   `json:"loop"` // closed: each reply triggers the next message; open: sent on schedule; empty: neither
	Connections int      `json:"connections"`
	Stalled     int      `json:"stalled,omitempty"` // of them, that read nothing
	SizeMin     int      `json:"size_min"`          // payload bytes
	SizeMax     int      `json:"size_max"`
	Depth       int      `json:"depth,omitempty"`
	Rate        float64  `json:"rate,omitempty"` // messages/s asked for, open loop
	Processes   int      `json:"processes,omitempty"`

	Opened      uint64  `json:"opened"`   // connections that were opened and upgraded
	Sent        uint64  `json:"sent"`     // messages
	Messages    uint64  `json:"messages"` // replies that came back whole and right
	BytesSent   uint64  `json:"bytes_sent"`
	BytesBack   uint64  `json:"bytes_back"`
	InFlight    uint64  `json:"in_flight"`              // sent and not answered when the time was over
	Unsent      uint64  `json:"unsent,omitempty"`       // scheduled by Rate and not sent, because no connection was free
	SlipSeconds float64 `json:"slip_seconds,omitempty"` // the latest that a scheduled message was sent after its time

	Compressed *Compressed `json:"compressed,omitempty"` // with --compress

	Connect Latency `json:"connect"` // from connect to the TCP connection
	Upgrade Latency `json:"upgrade"` // from the request to the 101
	Message Latency `json:"message"` // from sending (closed loop) or the scheduled time (open loop) to the whole reply

	Spread *Latency `json:"spread,omitempty"` // push: from the first to the last receiver of a message

	Errors []ErrorCount `json:"errors,omitempty"` // in falling order of Count

	// SlabPerConn is by how many bytes the kernel's slab memory grew for each
	// open connection: sockets of both ends if the server is on this machine,
	// and what else happened on it meanwhile. 0 when that is not known.
	SlabPerConn float64 `json:"kernel_slab_bytes_per_connection,omitempty"`

	Client Usage    `json:"client"`
	Server *Usage   `json:"server,omitempty"` // with --server-pid
	Series []Sample `json:"series,omitempty"`
	Notes  []string `json:"notes,omitempty"` // what the reader must know, such as that the client was the bottleneck
}

// Machine is where the client ran.
type Machine struct {
	Kernel string `json:"kernel"`
	CPU    string `json:"cpu"`
	CPUs   int    `json:"cpus"`
	Go     string `json:"go"`
}

// ErrorCount counts failures of one kind.
type ErrorCount struct {
	Kind   string `json:"kind"`   // refused, timed out, upgrade refused, reset, closed, protocol, wrong echo, ...
	Detail string `json:"detail"` // the HTTP status, the close code and reason, the RFC section
	Count  uint64 `json:"count"`
}

// Usage is what a process cost during the measuring time.
type Usage struct {
	PID         int     `json:"pid"`
	CPUSeconds  float64 `json:"cpu_seconds"`
	CPUPerMsg   float64 `json:"cpu_us_per_message,omitempty"` // microseconds
	Private     int64   `json:"private_bytes"`                // at the end
	PerConn     float64 `json:"private_bytes_per_connection,omitempty"`
	Threads     int     `json:"threads"`
	Descriptors int     `json:"descriptors"`
}

// Sample is one interval of a run.
type Sample struct {
	At            float64 `json:"at"` // seconds since Start, the end of the interval
	Open          int     `json:"open"`
	Messages      uint64  `json:"messages"` // in the interval
	Errors        uint64  `json:"errors"`
	P50           float64 `json:"p50_ms"` // of the messages of the interval, milliseconds
	P99           float64 `json:"p99_ms"`
	Max           float64 `json:"max_ms"`
	ClientCPU     float64 `json:"client_cpu"`               // processors used, 1 is one whole
	ServerCPU     float64 `json:"server_cpu,omitempty"`     // the same of the server
	ServerPrivate int64   `json:"server_private,omitempty"` // bytes
}

// Latency is a distribution of times. The histogram counts nanoseconds from
// 1 us to an hour with three significant digits; longer times count as an hour.
type Latency struct{ h *hdrhistogram.Histogram }

// The range and the precision of every histogram.
const (
	latencyMin    = int64(time.Microsecond)
	latencyMax    = int64(time.Hour)
	latencyDigits = 3
)

// Record counts one time.
func (l *Latency) Record(ns int64) {
	if l.h == nil {
		l.h = hdrhistogram.New(latencyMin, latencyMax, latencyDigits)
	}
	l.h.RecordValue(min(max(ns, 0), latencyMax))
}

// Reset forgets all times.
func (l *Latency) Reset() {
	if l.h != nil {
		l.h.Reset()
	}
}

// Count is how many times were recorded.
func (l *Latency) Count() int64 {
	if l.h == nil {
		return 0
	}
	return l.h.TotalCount()
}

// At is the time at or below which q percent of the recorded ones lie; 0 if
// there are none. At(100) is the largest.
func (l *Latency) At(q float64) time.Duration {
	if l.h == nil {
		return 0
	}
	if q >= 100 {
		return time.Duration(l.h.Max())
	}
	return time.Duration(l.h.ValueAtQuantile(q))
}

// Mean is the average; Histogram is the distribution itself, nil when nothing
// was recorded.
func (l *Latency) Mean() time.Duration {
	if l.h == nil {
		return 0
	}
	return time.Duration(l.h.Mean())
}

// Histogram is the distribution itself, nil when nothing was recorded.
func (l *Latency) Histogram() *hdrhistogram.Histogram { return l.h }

// Merge adds the times of o.
func (l *Latency) Merge(o *Latency) {
	if o.h == nil {
		return
	}
	if l.h == nil {
		l.h = hdrhistogram.New(latencyMin, latencyMax, latencyDigits)
	}
	l.h.Merge(o.h)
}

// latencyJSON is a Latency in a result file: the usual figures for people and
// scripts, in milliseconds, and the whole distribution for merging and diff.
type latencyJSON struct {
	Count     int64   `json:"count"`
	Mean      float64 `json:"mean_ms"`
	P50       float64 `json:"p50_ms"`
	P90       float64 `json:"p90_ms"`
	P99       float64 `json:"p99_ms"`
	P999      float64 `json:"p99.9_ms"`
	Max       float64 `json:"max_ms"`
	Histogram string  `json:"histogram,omitempty"` // HdrHistogram V2, compressed, base64
}

func ms(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// MarshalJSON writes the figures and the distribution.
func (l Latency) MarshalJSON() ([]byte, error) {
	j := latencyJSON{
		Count: l.Count(), Mean: ms(l.Mean()), P50: ms(l.At(50)), P90: ms(l.At(90)), P99: ms(l.At(99)), P999: ms(l.At(99.9)), Max: ms(l.At(100)),
	}
	if l.h != nil {
		b, err := l.h.Encode(hdrhistogram.V2CompressedEncodingCookieBase)
		if err != nil {
			return nil, err
		}
		j.Histogram = string(b)
	}
	return json.Marshal(j)
}

// UnmarshalJSON reads the distribution; the figures follow from it.
func (l *Latency) UnmarshalJSON(b []byte) error {
	var j latencyJSON
	if err := json.Unmarshal(b, &j); err != nil {
		return err
	}
	l.h = nil
	if j.Histogram == "" {
		return nil
	}
	h, err := hdrhistogram.Decode([]byte(j.Histogram))
	if err != nil {
		return fmt.Errorf("histogram: %w", err)
	}
	l.h = h
	return nil
}

// ReadResult reads a file that --json wrote.
func ReadResult(path string) (*Result, error) {
	b, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	var r Result
	if err := json.Unmarshal(b, &r); err != nil {
		return nil, fmt.Errorf("%s is not a result of wspoll bench --json: %w", path, err)
	}
	if r.Version != 1 {
		return nil, fmt.Errorf("%s has format version %d; this program reads version 1", path, r.Version)
	}
	return &r, nil
}
