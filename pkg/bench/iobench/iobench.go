// Package iobench measures how fast our server is, beside other NBD servers on the same file system: the real program, as it is
// started by everybody, under the load of fio and nbdcopy, which know nothing of whom they load.
//
// Machines are noisy. So nothing is measured once: in each of several rounds every server takes its turn at every column, the order
// rotates, and what counts is the median of the rounds. Ratios are made within a round, between neighbours in time, and their median is what
// is told, with the least and the greatest. The processor time of a server is what the kernel says of its process; the load
// generators' is not in it, though they run on the same processors.
package iobench

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"time"

	"nbdcrypt/pkg/process"
	"nbdcrypt/pkg/refusal"
)

// cleanTime bounds what is done at the end, also after Ctrl-C.
const cleanTime = time.Minute

// Options say what to measure.
type Options struct {
	// Only are the names of columns, Peers those of the servers beside ours; none means all.
	Only, Peers []string
	// Connections are the numbers of connections that every column is measured with.
	Connections []int
	// Dir is on the file system that is measured after memory; empty means a temporary directory on one that is no memory.
	Dir     string
	Rounds  int
	Seconds float64
	// Size is that of every disk.
	Size int64
	// Progress hears after each measurement how many there were.
	Progress func(done, total int)
}

// Run measures. What can't be measured is in the report; without fio there is none.
func Run(ctx context.Context, o Options) (Report, error) {
	return alone(ctx, func(ctx context.Context) (Report, error) { return measured(ctx, o) })
}

// alone measures with signals held, and tells an interrupt from what failed.
func alone[R any](ctx context.Context, measure func(context.Context) (R, error)) (R, error) {
	// Servers end with the thread that started them: this one has to live as long as they.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	ctx, release := process.HoldSignals(ctx)
	defer release()
	var none R
	report, err := measure(ctx)
	switch {
	case ctx.Err() != nil && err != nil:
		return none, refusal.New(refusal.Failed, "", "bench: interrupted")
	case err != nil:
		return none, fmt.Errorf("bench: %w", err)
	}
	return report, nil
}

func measured(ctx context.Context, o Options) (report Report, err error) {
	s, err := newSession(ctx, o)
	if err != nil {
		return Report{}, err
	}
	// Each site cleans up after itself: only sockets lay here.
	defer func() { err = errors.Join(err, os.RemoveAll(s.run)) }()
	if err := s.measure(ctx); err != nil {
		return Report{}, err
	}
	return s.report(ctx)
}

// after is a context for what is done at the end, when ctx may be over.
func after(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.WithoutCancel(ctx), cleanTime)
}
