package nbd

import (
	"math/bits"
	"sync/atomic"
	"time"

	"nbdcrypt/nbd/internal/wire"
)

const (
	// commands are numbered as on the wire, up to BLOCK_STATUS.
	commands = int(wire.CmdBlockStatus) + 1
	// latencyBuckets hold latencies under 1 µs, 2 µs, 4 µs … 2²⁴ µs (17 s), and the longer ones.
	latencyBuckets = 26
)

// CommandStats is what one command has done on an export.
type CommandStats struct {
	Name     string
	Requests uint64
	Errors   uint64
	Bytes    uint64 // of payload read or written, or of the range
	Seconds  float64
	// Latency counts requests by how long they took, each bucket alone.
	Latency [latencyBuckets]uint64
}

// LatencyBound is the upper bound of a bucket in seconds; the last has none.
func LatencyBound(bucket int) float64 { return float64(uint64(1)<<bucket) / 1e6 }

// Stats is a look at an export's counters.
type Stats struct {
	Clients  int
	InFlight int64
	Commands []CommandStats
}

// counters are an export's. All methods may be called at any time, and allocate nothing.
type counters struct {
	inFlight atomic.Int64
	command  [commands]commandCounters
}

type commandCounters struct {
	requests, errors, bytes, nanoseconds atomic.Uint64
	latency                              [latencyBuckets]atomic.Uint64
}

// begin counts a request that was read.
func (s *counters) begin() { s.inFlight.Add(1) }

// end counts its answer. Commands that there are not count as in flight only.
func (s *counters) end(command uint16, bytes uint64, failed bool, took time.Duration) {
	s.inFlight.Add(-1)
	if int(command) >= commands {
		return
	}
	c := &s.command[command]
	c.requests.Add(1)
	if failed {
		c.errors.Add(1)
	} else {
		c.bytes.Add(bytes)
	}
	took = max(took, 0)
	c.nanoseconds.Add(uint64(took))
	c.latency[min(bits.Len64(uint64(took/time.Microsecond)), latencyBuckets-1)].Add(1)
}

// Stats looks at the export's counters.
func (e *Export) Stats() Stats {
	s := Stats{Clients: e.Clients(), InFlight: e.counters.inFlight.Load()}
	for command, name := range commandNames {
		if name == "" {
			continue
		}
		c := &e.counters.command[command]
		of := CommandStats{Name: name, Requests: c.requests.Load(), Errors: c.errors.Load(), Bytes: c.bytes.Load(),
			Seconds: time.Duration(c.nanoseconds.Load()).Seconds()}
		for i := range of.Latency {
			of.Latency[i] = c.latency[i].Load()
		}
		s.Commands = append(s.Commands, of)
	}
	return s
}

// commandNames are the protocol's; DISC is never counted.
var commandNames = [commands]string{
	wire.CmdRead: "read", wire.CmdWrite: "write", wire.CmdFlush: "flush", wire.CmdTrim: "trim",
	wire.CmdCache: "cache", wire.CmdWriteZeroes: "write_zeroes", wire.CmdBlockStatus: "block_status",
}
