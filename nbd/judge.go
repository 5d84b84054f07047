package nbd

import (
	"sync/atomic"
	"time"

	"nbdcrypt/nbd/internal/wire"
)

const (
	// slowWrite is what a batch of the loop with writes in it may take besides a nanosecond a byte: it has others to serve
	// meanwhile. Less than this happens where a machine is merely busy.
	slowWrite = 4 * time.Millisecond
	// slowTime is how long an export's writes are for workers after it has happened twice in a row.
	slowTime = 50 * time.Millisecond
	// quickSync is what a sync takes that has nothing to wait for: in memory, or in a cache that keeps its power.
	quickSync = 50 * time.Microsecond
	// quickSyncs must follow each other before the loop syncs by itself. One that was not ends it.
	quickSyncs = 16
)

// pacing is what an export has learned of its device, from which its loops tell what to do by themselves.
type pacing struct {
	slow      atomic.Bool  // the last batch with writes in it was
	slowUntil atomic.Int64 // by the clock; writes are for workers until then
	quick     atomic.Int32 // syncs since the last that had to wait
}

// judgeWrites looks at the time that a batch with writes in it took. Once is no sign: threads are held up by others, too.
func (p *pacing) judgeWrites(began time.Duration, bytes int) {
	now := clock()
	slow := now-began > slowWrite+time.Duration(bytes)
	if slow != p.slow.Load() {
		p.slow.Store(slow)
	} else if slow {
		p.slowUntil.Store(int64(now + slowTime))
	}
}

// judgeSync looks at the time that a sync took.
func (p *pacing) judgeSync(took time.Duration) {
	if took > quickSync {
		p.quick.Store(0)
	} else if p.quick.Load() < quickSyncs {
		p.quick.Add(1)
	}
}

// writesNow tells whether the loop writes by itself. It does on a device that takes care not to keep it waiting when it
// reads, while that is quick.
func (s *session) writesNow() bool {
	return s.export.device.nowait != nil && int64(s.began) >= s.export.pacing.slowUntil.Load()
}

// syncsNow tells the same of flushes and FUA.
func (s *session) syncsNow() bool {
	return s.export.device.nowait != nil && s.export.pacing.quick.Load() >= quickSyncs
}

// isSync tells whether the answer to a request has to wait for storage. FUA says nothing on what changes nothing.
func isSync(r wire.Request) bool {
	switch r.Type {
	case wire.CmdFlush:
		return true
	case wire.CmdWrite, wire.CmdTrim, wire.CmdWriteZeroes:
		return r.Flags&wire.CmdFlagFUA != 0
	}
	return false
}
