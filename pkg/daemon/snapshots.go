package daemon

import (
	"cmp"
	"strings"
	"time"

	"nbdcrypt/keystore"
	"nbdcrypt/pkg/access"
	"nbdcrypt/pkg/control"
	"nbdcrypt/pkg/refusal"
	"nbdcrypt/pkg/volume"
)

// snapshotView is a snapshot as the API shows it.
func snapshotView(p volume.Point) control.Snapshot {
	view := control.Snapshot{ID: p.ID, Name: p.Name, Project: p.Project, Size: p.Size, SectorSize: p.SectorSize, Encrypted: p.Encrypted,
		Key: underKey(p.Key), Status: string(p.Status), Created: p.Created, Warnings: p.Warnings}
	if p.Disk != "" {
		view.Source = &control.DiskSource{Kind: volume.HolderKind, ID: p.Disk, Name: p.DiskName}
	}
	if p.Key != nil {
		if r := refusal.From(p.Key.May(keystore.Use)); r != nil {
			view.Warnings = append(view.Warnings, "nothing can be made of the snapshot: "+r.Message+"; "+r.Hint)
		}
	}
	return view
}

func (d *Daemon) snapshotCreate(c *call) (any, error) {
	var in control.SnapshotCreate
	if err := control.ReadJSON(c.http, &in); err != nil {
		return nil, err
	}
	if err := roomForDisk(); err != nil { // for the new layer, and to take back half of it
		return nil, err
	}
	p, err := d.volumes.CreateSnapshot(c.ctx, c.request, c.project, in.Disk, in.Name)
	return snapshotView(p), err
}

func (d *Daemon) snapshotList(c *call) (any, error) {
	sees, err := d.sees(c, access.SnapshotList, access.Decrypt)
	if err != nil {
		return nil, err
	}
	disk := c.http.URL.Query().Get(control.QueryDisk)
	if disk != "" { // once a list has begun nothing is refused any more
		if disk, _, err = d.volumes.KeyOf(c.ctx, c.project, disk); err != nil {
			return nil, err
		}
	}
	return control.Stream(func(next func(any) error) error {
		return d.volumes.Points(c.ctx, volume.SnapshotKind, c.project, disk, func(p volume.Point) error {
			key := ""
			if p.Key != nil {
				key = p.Key.ID
			}
			if yes, err := sees(key); err != nil || !yes {
				return err
			}
			return next(snapshotView(p))
		})
	}), nil
}

func (d *Daemon) snapshotShow(c *call) (any, error) {
	p, err := d.volumes.Point(c.ctx, volume.SnapshotKind, c.project, c.snapshot())
	return snapshotView(p), err
}

// snapshot is the snapshot that the path names.
func (c *call) snapshot() string { return cmp.Or(c.onlySnapshot, c.http.PathValue("snapshot")) }

func (d *Daemon) diskRollback(c *call) (any, error) {
	var in control.DiskRollback
	if err := control.ReadJSON(c.http, &in); err != nil {
		return nil, err
	}
	p, err := d.volumes.Point(c.ctx, volume.SnapshotKind, c.project, in.Snapshot)
	if err != nil {
		return nil, err
	}
	v, err := d.volumes.Get(c.ctx, c.project, c.disk())
	if err != nil {
		return nil, err
	}
	if !c.yes() {
		return nil, refusal.New(refusal.Confirm, "repeat it with --yes to do it; another snapshot before it keeps what the disk holds now",
			"%s will hold what snapshot %s of %s holds, and what was written since is lost", nameOf(v), p.Name, p.Created.Format(time.RFC3339))
	}
	if err := roomForDisk(); err != nil {
		return nil, err
	}
	v, err = d.volumes.Rollback(c.ctx, c.request, c.project, v.ID, p.ID)
	d.tidySoon() // what the disk stood on may be needed by nobody else
	return d.diskView(v), err
}

// withSnapshots says which snapshots a disk's deletion takes along (rule B11).
func (d *Daemon) withSnapshots(c *call, v volume.Disk) (string, error) {
	var names []string
	err := d.volumes.Points(c.ctx, volume.SnapshotKind, c.project, v.ID, func(p volume.Point) error {
		names = append(names, cmp.Or(p.Name, p.ID))
		return nil
	})
	if err != nil || len(names) == 0 {
		return "", err
	}
	return " with its snapshots (" + strings.Join(names, ", ") + ")", nil
}

// sourceOf names what a new disk is to stand on, nil for nothing. Whoever may make it because of a grant gets what is under that key alone.
func (d *Daemon) sourceOf(c *call, in control.DiskCreate) (*volume.From, error) {
	p, err := d.pointFor(c, in)
	if err != nil || p == nil {
		return nil, err
	}
	if p.Key != nil {
		if err := c.stillOnly(p.Key.ID); err != nil {
			return nil, err
		}
	}
	return &volume.From{Kind: p.Kind, Ref: p.ID, Encrypted: in.Encrypted, Full: in.Full}, nil
}

// pointFor is what a new disk is to be made from, nil where that is nothing.
func (d *Daemon) pointFor(c *call, in control.DiskCreate) (*volume.Point, error) {
	kind, ref := volume.SnapshotKind, in.FromSnapshot
	if in.FromImage != "" {
		kind, ref = volume.ImageKind, in.FromImage
	}
	switch {
	case in.FromSnapshot != "" && in.FromImage != "":
		return nil, refusal.New(refusal.Usage, "name one of them", "a disk is made from a snapshot or from an image, not from both")
	case ref == "" && in.Full:
		return nil, refusal.New(refusal.Usage, "name a source with --from-snapshot or --from-image, or leave out --full", "a disk that is made from nothing has nothing to copy")
	case ref == "":
		return nil, nil
	}
	p, err := d.volumes.Point(c.ctx, kind, c.project, ref)
	return &p, err
}
