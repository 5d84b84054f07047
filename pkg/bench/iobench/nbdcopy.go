package iobench

import (
	"context"
	"fmt"
	"time"
)

// nbdcopy copies the disk to nowhere, again and again until the time is over.
func nbdcopy(ctx context.Context, uri string, connections int, t turn) (done, error) {
	var all done
	for all.took < t.length {
		begun := time.Now()
		if _, err := run(ctx, t.length+patience, "nbdcopy", fmt.Sprintf("--connections=%d", connections), uri, "null:"); err != nil {
			return done{}, err
		}
		all.took += time.Since(begun)
		all.bytes += t.size
	}
	return all, nil
}
