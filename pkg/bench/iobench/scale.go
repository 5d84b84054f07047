package iobench

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"time"

	"nbdcrypt/pkg/control"
	"nbdcrypt/pkg/process"
)

// What the project wants at most.
const (
	attachmentLimit = 64 << 10
	connectionLimit = 32 << 10
	callLimit       = 5 * time.Millisecond // and two syncs of the file system
)

// ScaleOptions say how much there should be of everything.
type ScaleOptions struct {
	Disks, Connections int
	// StoredDisks and StoredKeys lie in the catalog of another daemon, where Fill puts them.
	StoredDisks, StoredKeys int
	Fill                    func(context.Context, Fill) error
	// Size is that of every disk.
	Size int64
	// Dir is where all is made; empty means a temporary directory that is no memory.
	Dir string
	// Progress hears how many steps there were.
	Progress func(done, total int)
}

// ScaleReport is what Scale found: the JSON of docs/cli.md.
type ScaleReport struct {
	Machine    Machine   `json:"machine"`
	Version    string    `json:"version"`
	FileSystem string    `json:"file_system"`
	Dir        string    `json:"dir"`
	Size       int64     `json:"size"`
	Attachment Footprint `json:"attachment"`
	Connection Footprint `json:"connection"`
	Sync       Delay     `json:"sync"` // two of them
	Attach     Delay     `json:"attach"`
	Detach     Delay     `json:"detach"`
	Stored     Stored    `json:"stored"`
}

// crowd is a daemon with many disks.
type crowd struct {
	*ours
	o     ScaleOptions
	at    *site
	done  int
	total int
	mu    sync.Mutex
}

// Scale measures what idle attachments and connections take, and how long a call takes among many.
func Scale(ctx context.Context, o ScaleOptions) (ScaleReport, error) {
	return alone(ctx, func(ctx context.Context) (ScaleReport, error) { return scaled(ctx, o) })
}

func scaled(ctx context.Context, o ScaleOptions) (report ScaleReport, err error) {
	run, err := process.TempDir("disk-99999.sock.d/control.sock")
	if err != nil {
		return ScaleReport{}, err
	}
	defer func() { err = errors.Join(err, os.RemoveAll(run)) }()
	at, err := realSite(o.Dir, run)
	if err != nil {
		return ScaleReport{}, err
	}
	defer func() { err = errors.Join(err, at.end()) }()
	if err := at.begin(int64(o.Disks)*perDisk + int64(o.StoredDisks)*perStored + int64(o.StoredKeys)*perKey + 256<<20); err != nil {
		return ScaleReport{}, err
	}
	c := &crowd{o: o, at: at, total: 2*o.Disks + o.Connections + calls + 1 + 6*looks}
	if report, err = c.attached(ctx); err == nil {
		report.Stored, err = stored(ctx, o, at, c.step)
	}
	return report, err
}

// attached measures with a daemon of its own.
func (c *crowd) attached(ctx context.Context) (ScaleReport, error) {
	s, err := startOurs(ctx, c.at)
	if err != nil {
		return ScaleReport{}, err
	}
	defer func() {
		ctx, cancel := after(ctx)
		defer cancel()
		s.close(ctx)
	}()
	c.ours = s.(*ours)
	return c.measure(ctx)
}

// perDisk is more than the metadata of an empty disk takes, perStored and perKey what records alone, twice over, do.
const (
	perDisk   = 64 << 10
	perStored = 8 << 10
	perKey    = 16 << 10
)

func (c *crowd) measure(ctx context.Context) (ScaleReport, error) {
	r := ScaleReport{Machine: thisMachine(), Version: ownVersion(), FileSystem: c.at.FileSystem, Dir: c.at.Dir, Size: c.o.Size}
	if err := c.create(ctx); err != nil {
		return r, err
	}
	if err := c.calls(ctx, nil, warmUp); err != nil {
		return r, err
	}
	var err error
	if r.Attachment, err = c.footprint(ctx, c.o.Disks, attachmentLimit, c.attachAll); err != nil {
		return r, err
	}
	if r.Connection, err = c.connections(ctx); err != nil {
		return r, err
	}
	var times callTimes
	if err := c.calls(ctx, &times, calls); err != nil {
		return r, err
	}
	r.Sync, r.Attach, r.Detach = times.delays()
	return r, nil
}

// each calls f for every number below n, some at once, and stops at the first failure.
func (c *crowd) each(ctx context.Context, n int, f func(ctx context.Context, i int) error) error {
	const atOnce = 8
	ctx, cancel := context.WithCancelCause(ctx)
	defer cancel(nil)
	next := make(chan int, n)
	for i := range n {
		next <- i
	}
	close(next)
	var all sync.WaitGroup
	for range atOnce {
		all.Go(func() {
			for i := range next {
				if ctx.Err() != nil {
					return
				}
				if err := f(ctx, i); err != nil {
					cancel(err)
					return
				}
				c.step()
			}
		})
	}
	all.Wait()
	return context.Cause(ctx)
}

func (c *crowd) step() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.done++
	c.o.Progress(c.done, c.total)
}

func nameOf(i int) string { return fmt.Sprint("disk", i) }

// create makes all disks, and one more, which calls are timed with.
func (c *crowd) create(ctx context.Context) error {
	encrypted := true
	if _, err := c.client.DiskCreate(ctx, control.DiskCreate{Name: probe, Size: c.o.Size, Encrypted: &encrypted}); err != nil {
		return err
	}
	return c.each(ctx, c.o.Disks, func(ctx context.Context, i int) error {
		_, err := c.client.DiskCreate(ctx, control.DiskCreate{Name: nameOf(i), Size: c.o.Size, Encrypted: &encrypted})
		return err
	})
}

func (c *crowd) attachAll(ctx context.Context) error {
	return c.each(ctx, c.o.Disks, func(ctx context.Context, i int) error {
		_, err := c.client.Attach(ctx, nameOf(i), control.Attach{})
		return err
	})
}
