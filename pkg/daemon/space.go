package daemon

import (
	"fmt"

	"github.com/docker/go-units"

	"nbdcrypt/pkg/control"
	"nbdcrypt/pkg/pool"
	"nbdcrypt/pkg/volume"
)

// lookAtPool tells once when the pool fills up, and again when it has had room meanwhile. Long work that waits for room goes on once there is some.
func (d *Daemon) lookAtPool() {
	space, err := d.space()
	if err != nil {
		return // status says so
	}
	filling := volume.Filling(space)
	if filling && !d.poolTold {
		d.notify(event{Event: eventPoolFilling, Resource: d.o.Pool, Message: fillingWord(d.o.Pool, space)})
	}
	switch {
	case filling:
		d.poolTold = true
	case !volume.Filling(pool.Space{Total: space.Total, Free: space.Free - space.Free/5}):
		d.poolTold = false // so that one that goes up and down around the limit is not told each time
		d.chores.hasRoom()
	}
}

func fillingWord(pool string, space pool.Space) string {
	return fmt.Sprintf("the pool %s fills up: %s of %s are free; writes fail with ENOSPC when it is full. Make room in its file system, "+
		"or delete disks and snapshots that are not needed", pool, units.BytesSize(float64(space.Free)), units.BytesSize(float64(space.Total)))
}

// poolWarnings warn while there is little room.
func (d *Daemon) poolWarnings() []string {
	if space, err := d.space(); err == nil && volume.Filling(space) {
		return []string{fillingWord(d.o.Pool, space)}
	}
	return nil
}

// spaceView is what a disk takes, as the API shows it.
func spaceView(s *volume.Space) *control.DiskSpace {
	if s == nil {
		return nil
	}
	return &control.DiskSpace{Written: s.Written, Shared: s.Shared, Reserved: s.Reserved}
}

// diskShown is a disk as `disk show` shows it: with what it takes, which is counted for this, and what a person should know of that.
func (d *Daemon) diskShown(c *call, v volume.Disk) control.Disk {
	view := d.diskView(v)
	space, err := d.volumes.Space(c.ctx, v.Project, v.ID)
	if err != nil {
		view.Warnings = append(view.Warnings, "what the disk takes can't be counted: "+err.Error())
	}
	view.Space = spaceView(space)
	if view.Server, err = d.serverOf(c.ctx, v.ID); err != nil {
		view.Warnings = append(view.Warnings, "whether a server has the disk can't be told: "+err.Error())
	}
	view.Warnings = append(view.Warnings, d.poolWarnings()...)
	view.Warnings = append(view.Warnings, d.paused(c)...)
	return view
}

// paused says what of a disk's long work is not done.
func (d *Daemon) paused(c *call) []string {
	why, err := d.volumes.Paused(c.ctx, c.project, c.disk())
	if err != nil || why == "" {
		return nil // that the disk can't be read is told where it is asked for
	}
	return []string{why}
}
