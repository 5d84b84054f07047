package daemon

import (
	"context"
	"runtime"
	"time"
)

const (
	// lookTime is how often the connections are looked at, busyRequests how many requests make one busy.
	lookTime     = 100 * time.Millisecond
	busyRequests = 10
	// aloneLooks is how often the same must be seen before Go is left one processor.
	aloneLooks = 2
)

// watchProcessors leaves Go one processor while a single connection is busy, on a machine that has two. Each time that a
// goroutine is woken Go wakes another thread, too, to look for more work; there is none, and it takes the other processor from
// the client. What it gives is in docs/performance.md. Where there are more processors, or more connections, nothing is changed,
// nor for a client that waits for each answer: its next request finds that thread looking.
func (d *Daemon) watchProcessors(ctx context.Context) {
	if runtime.GOMAXPROCS(0) != 2 {
		return
	}
	look := time.NewTicker(lookTime)
	defer look.Stop()
	for alone := 0; ; {
		select {
		case <-ctx.Done():
			return
		case <-look.C:
		}
		before := alone
		busy, deep := d.nbd.Busy(busyRequests)
		alone = nextAlone(alone, busy, deep)
		switch {
		case alone == aloneLooks && before < aloneLooks:
			runtime.GOMAXPROCS(1)
		case alone == 0 && before >= aloneLooks:
			runtime.GOMAXPROCS(2)
		}
	}
}

// nextAlone counts the looks at which one connection alone was busy, with several requests in flight, up to aloneLooks.
func nextAlone(alone, busy, deep int) int {
	if busy != 1 || deep != 1 {
		return 0
	}
	return min(alone+1, aloneLooks)
}
