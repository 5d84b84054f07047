package cli

import (
	"net/http"
	"slices"

	"nbdcrypt/pkg/control"
	"nbdcrypt/pkg/refusal"
)

// snapshotRoutes answer as the daemon does about snapshots.
func (f *fake) snapshotRoutes(handle func(string, func(*http.Request) (any, error))) {
	handle(control.RouteSnapshotCreate, func(r *http.Request) (any, error) {
		var ask control.SnapshotCreate
		if err := control.ReadJSON(r, &ask); err != nil {
			return nil, err
		}
		d, err := f.disk(ask.Disk)
		if err != nil {
			return nil, err
		}
		if d.Key != nil && d.Key.State != "Enabled" {
			return nil, refusal.New(refusal.KeyForbids, "`nbdcrypt key enable "+d.Key.Alias+"`", "key %s is %s", d.Key.Alias, d.Key.State)
		}
		s := &control.Snapshot{ID: f.id(), Name: ask.Name, Project: r.URL.Query().Get(control.QueryProject), Size: d.Size, SectorSize: d.SectorSize, Encrypted: d.Encrypted,
			Key: d.Key, Status: "available", Source: &control.DiskSource{Kind: "disk", ID: d.ID, Name: d.Name}, Created: moment0()}
		f.snapshots = append(f.snapshots, s)
		return s, nil
	})
	handle(control.RouteSnapshotList, func(r *http.Request) (any, error) {
		list := []*control.Snapshot{}
		for _, s := range f.snapshots {
			if disk := r.URL.Query().Get(control.QueryDisk); disk == "" || disk == s.Source.Name {
				list = append(list, s)
			}
		}
		return list, nil
	})
	handle(control.RouteSnapshotShow, func(r *http.Request) (any, error) { return f.snapshot(r.PathValue("snapshot")) })
	handle(control.RouteDiskRekey, func(r *http.Request) (any, error) {
		d, err := f.disk(r.PathValue("disk"))
		if err != nil {
			return nil, err
		}
		out := *d
		out.Space = &control.DiskSpace{Written: 1 << 20, Shared: 4096}
		out.Warnings = []string{"the old data keys stay with snapshot before, and go when those are deleted"}
		return out, nil
	})
	handle(control.RouteSnapshotDelete, func(r *http.Request) (any, error) {
		name := r.PathValue("snapshot")
		if r.URL.Query().Get(control.QueryYes) != "true" {
			return nil, refusal.New(refusal.Confirm, "repeat it with --yes to do it", "snapshot %s of disk db1 will be deleted", name)
		}
		f.snapshots = slices.DeleteFunc(f.snapshots, func(s *control.Snapshot) bool { return s.Name == name })
		return control.SnapshotDeleted{Warnings: []string{"snapshot " + name + " is deleted, and its data is kept for disk twin"}}, nil
	})
	handle(control.RouteDiskRollback, func(r *http.Request) (any, error) {
		var ask control.DiskRollback
		if err := control.ReadJSON(r, &ask); err != nil {
			return nil, err
		}
		d, err := f.disk(r.PathValue("disk"))
		if err != nil {
			return nil, err
		}
		s, err := f.snapshot(ask.Snapshot)
		if err != nil {
			return nil, err
		}
		if r.URL.Query().Get(control.QueryYes) != "true" {
			return nil, refusal.New(refusal.Confirm, "repeat it with --yes", "disk %s will hold what snapshot %s holds, and what was written since is lost", d.Name, s.Name)
		}
		return d, nil
	})
}

func (f *fake) snapshot(name string) (*control.Snapshot, error) {
	for _, s := range f.snapshots {
		if s.Name == name || s.ID == name {
			return s, nil
		}
	}
	return nil, refusal.New(refusal.NotFound, "`nbdcrypt snapshot list` lists them.", "no snapshot %s", name)
}

// inherit fills in what a new disk has of the snapshot that it is made from.
func (f *fake) inherit(ask control.DiskCreate, d *control.Disk) error {
	s, err := f.snapshot(ask.FromSnapshot)
	if err != nil {
		return err
	}
	if ask.Encrypted != nil && *ask.Encrypted != s.Encrypted {
		return refusal.New(refusal.Usage, "leave it out", "snapshot %s is another kind of disk", s.Name)
	}
	d.Size, d.SectorSize, d.Encrypted, d.Key = max(ask.Size, s.Size), s.SectorSize, s.Encrypted, s.Key
	d.Source = &control.DiskSource{Kind: "snapshot", ID: s.ID, Name: s.Name}
	return nil
}
