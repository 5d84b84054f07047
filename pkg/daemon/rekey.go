package daemon

import (
	"context"
	"strings"

	"nbdcrypt/pkg/control"
	"nbdcrypt/pkg/refusal"
	"nbdcrypt/pkg/volume"
)

// diskRekey gives a disk another data key: a job, during which the disk may be attached, written and detached.
func (d *Daemon) diskRekey(c *call) (any, error) {
	v, err := d.volumes.Get(c.ctx, c.project, c.disk())
	if err != nil {
		return nil, err
	}
	if v.Key != nil {
		c.keyID = v.Key.ID
	}
	if err := roomForDisk(); err != nil {
		return nil, err
	}
	return d.startJob(c, control.Job{Verb: "disk rekey", Resource: v.Name, Unit: "bytes"},
		func(ctx context.Context, progress func(done, total int64)) (any, error) {
			d.chores.drop(d.fillChore(v.Project, v.ID, v.Name).key())
			kept, err := d.volumes.Rekey(ctx, c.request, c.project, v.ID, d.workOf(c, "disk rekey", v.Name, progress, nil))
			if err != nil {
				return nil, err
			}
			d.tidySoon()
			now, err := d.volumes.Get(ctx, c.project, v.ID)
			view := d.diskShown(c, now)
			if len(kept) > 0 {
				view.Warnings = append(view.Warnings, "the old data keys stay with "+strings.Join(kept, ", ")+", and go when those are deleted")
			}
			return view, err
		})
}

// snapshotDelete ends a snapshot: a job, since what others need of it may have to be copied.
func (d *Daemon) snapshotDelete(c *call) (any, error) {
	p, err := d.volumes.Point(c.ctx, volume.SnapshotKind, c.project, c.http.PathValue("snapshot"))
	if err != nil {
		return nil, err
	}
	if p.Key != nil {
		c.keyID = p.Key.ID
	}
	if !c.yes() {
		return nil, refusal.New(refusal.Confirm, "repeat it with --yes to do it; disks that were made of it stay as they are",
			"snapshot %s of disk %s will be deleted", p.Name, p.DiskName)
	}
	return d.startJob(c, control.Job{Verb: "snapshot delete", Resource: p.Name, Unit: "bytes"},
		func(ctx context.Context, progress func(done, total int64)) (any, error) {
			warnings, err := d.volumes.DeleteSnapshot(ctx, c.request, c.project, p.ID, d.workOf(c, "snapshot delete", p.Name, progress, nil))
			return control.SnapshotDeleted{Warnings: warnings}, err
		})
}
