package iobench

import (
	"context"
	"os"
	"slices"
	"time"

	"nbdcrypt/pkg/bench"
	"nbdcrypt/pkg/control"
)

const (
	// probe is the disk that calls are timed with.
	probe = "probe"
	// calls is how often each is timed, warmUp how often before that.
	calls  = 101
	warmUp = 100
)

// Delay is how long something takes, in seconds.
type Delay struct {
	Median float64 `json:"median"`
	Min    float64 `json:"min"`
	Max    float64 `json:"max"`
	// Limit is what the project wants the median to be below, 0 where it wants nothing.
	Limit float64 `json:"limit"`
	Met   bool    `json:"met"`
}

// callTimes are of the same rounds: in each two syncs, an attach and a detach.
type callTimes struct{ syncs, attaches, detaches []float64 }

// calls attaches and detaches a disk to which nothing is written, and syncs a file of the same file system between.
func (c *crowd) calls(ctx context.Context, times *callTimes, n int) error {
	file, err := os.CreateTemp(c.at.dir, "sync")
	if err != nil {
		return err
	}
	defer file.Close()
	for range n {
		sync, err := timed(func() error { return syncTwice(file) })
		if err != nil {
			return err
		}
		attach, err := timed(func() error { _, err := c.client.Attach(ctx, probe, control.Attach{}); return err })
		if err != nil {
			return err
		}
		detach, err := timed(func() error { _, err := c.client.Detach(ctx, probe, false); return err })
		if err != nil {
			return err
		}
		if times != nil {
			times.syncs, times.attaches, times.detaches = append(times.syncs, sync), append(times.attaches, attach), append(times.detaches, detach)
			c.step()
		}
	}
	return nil
}

func timed(do func() error) (seconds float64, err error) {
	begun := time.Now()
	err = do()
	return time.Since(begun).Seconds(), err
}

// syncTwice makes a file longer and syncs it, as a log is written, two times.
func syncTwice(file *os.File) error {
	for range 2 {
		if _, err := file.Write(make([]byte, 512)); err != nil {
			return err
		}
		if err := file.Sync(); err != nil {
			return err
		}
	}
	return nil
}

func (t callTimes) delays() (syncs, attach, detach Delay) {
	syncs = newDelay(t.syncs, 0)
	limit := callLimit.Seconds() + syncs.Median
	return syncs, newDelay(t.attaches, limit), newDelay(t.detaches, limit)
}

func newDelay(of []float64, limit float64) Delay {
	d := Delay{Median: bench.Median(of), Min: slices.Min(of), Max: slices.Max(of), Limit: limit}
	d.Met = limit == 0 || d.Median < limit
	return d
}
