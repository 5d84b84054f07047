package volume

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"

	"nbdcrypt/keystore"
	"nbdcrypt/pkg/catalog"
	"nbdcrypt/pkg/pool"
	"nbdcrypt/pkg/refusal"
	"nbdcrypt/pkg/volume/layer"
)

// Layer is one layer of a disk with the files that hold it.
type Layer struct {
	ID       string
	Segments []string
}

// Disk is a disk as it is now.
type Disk struct {
	ID, Name, Project string
	Size              int64
	SectorSize        int
	Encrypted         bool
	Key               *keystore.Info
	HideHoles         bool
	Bootable          bool // it was made to boot a server from
	Shared            bool
	Status            Status
	Created           time.Time
	Layers            []Layer
	Attachment        *Attachment
	Warnings          []string
	// Source is what the disk was made from, nil where it was nothing.
	Source *Source
}

func holder(d diskRecord) keystore.Holder {
	return keystore.Holder{Kind: HolderKind, ID: d.ID.String()}
}

// find looks a disk up by name or id.
func (s *Service) find(r catalog.Reader, project, ref string) (diskRecord, error) {
	id := ref
	if _, err := uuid.Parse(ref); err != nil {
		if err := CheckName(ref); err != nil {
			return diskRecord{}, noDisk(project, ref)
		}
		b, err := r.Get(nameKey(project, ref))
		if errors.Is(err, catalog.ErrNotFound) {
			return diskRecord{}, noDisk(project, ref)
		}
		if err != nil {
			return diskRecord{}, err
		}
		id = string(b)
	}
	parsed, err := uuid.Parse(id)
	if err != nil {
		return diskRecord{}, fmt.Errorf("%w: record %q names %q", catalog.ErrDamaged, nameKey(project, ref), id)
	}
	d, err := get(r, diskKey(parsed), parseDisk)
	if errors.Is(err, catalog.ErrNotFound) && id != ref {
		return d, fmt.Errorf("%w: record %q names disk %s, whose record is missing", catalog.ErrDamaged, nameKey(project, ref), id)
	}
	if errors.Is(err, catalog.ErrNotFound) || err == nil && d.Project != project {
		return diskRecord{}, noDisk(project, ref)
	}
	return d, err
}

func noDisk(project, ref string) error {
	return refusal.New(refusal.NotFound, "`nbdcrypt disk list --project "+project+"` shows the disks",
		"project %s has no disk %.200q", project, ref)
}

// lookUp is find in a view of its own.
func (s *Service) lookUp(ctx context.Context, project, ref string) (d diskRecord, err error) {
	err = s.Catalog.View(ctx, func(r catalog.Reader) (err error) {
		d, err = s.find(r, project, ref)
		return err
	})
	return d, explain(ref, err)
}

// label is what refusals and purposes of keys call a disk.
func (d diskRecord) label() string { return "disk " + d.Project + "/" + d.Name }

// stack reads the layers of a disk, top first. A disk that is being made may have none yet.
func (s *Service) stack(ctx context.Context, d diskRecord) (layers []layerRecord, err error) {
	err = s.Catalog.View(ctx, func(r catalog.Reader) (err error) {
		layers, err = s.layersFrom(r, d.Top)
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("disk %s: %w", d.Name, err)
	}
	return layers, nil
}

// Get tells about one disk.
func (s *Service) Get(ctx context.Context, project, ref string) (Disk, error) {
	d, err := s.lookUp(ctx, project, ref)
	return s.describe(ctx, d, err)
}

// Count is how many disks there are, in all projects.
func (s *Service) Count(ctx context.Context) (n int, err error) {
	err = s.Catalog.View(ctx, func(r catalog.Reader) (err error) {
		n, err = r.Count(diskPrefix)
		return err
	})
	return n, err
}

// describe makes of a record what users see.
func (s *Service) describe(ctx context.Context, r diskRecord, err error) (Disk, error) {
	if err != nil {
		return Disk{}, err
	}
	d := s.plain(r)
	if r.Encrypted {
		d.Key = s.keyOf(ctx, r)
	}
	layers, err := s.stack(ctx, r)
	if errors.Is(err, catalog.ErrNotFound) {
		// Most likely the disk was deleted meanwhile.
		if _, gone := s.lookUp(ctx, r.Project, r.ID.String()); gone != nil {
			return Disk{}, gone
		}
	}
	if err != nil {
		return Disk{}, explain(r.Name, err)
	}
	for _, l := range layers {
		d.Layers = append(d.Layers, s.files(l))
	}
	// Where the pool does not tell its space, or the record of an attachment is damaged, there is no warning of it: attach and check tell.
	space, _ := s.Pool.Space()
	left, _ := s.leftBehind(ctx, r)
	d.Warnings = s.warnings(r, space, left)
	return d, nil
}

// plain is what the disk's own record tells, and this run.
func (s *Service) plain(r diskRecord) Disk {
	return Disk{ID: r.ID.String(), Name: r.Name, Project: r.Project, Size: r.Size, SectorSize: r.SectorSize,
		Encrypted: r.Encrypted, HideHoles: r.HideHoles, Bootable: r.Bootable, Shared: r.Shared, Status: s.status(r), Created: r.Created, Attachment: s.attachment(r.ID),
		Source: r.Source}
}

// files are a layer's. Without its files a layer has no segments to show; that it is damaged is for attach and check to say.
func (s *Service) files(l layerRecord) Layer {
	paths, _ := s.Pool.Segments(layer.DataName(l.ID))
	return Layer{ID: l.ID.String(), Segments: paths}
}

// keyOf tells about the disk's key.
func (s *Service) keyOf(ctx context.Context, d diskRecord) *keystore.Info {
	return s.keyUnder(ctx, d.Project, d.Key)
}

// keyUnder tells about a key. One that is deleted, or can't be read, has the zero state: what is under it can still be listed and deleted.
func (s *Service) keyUnder(ctx context.Context, project, key string) *keystore.Info {
	info, err := s.Keys.KeyOf(ctx, project, key)
	if err != nil {
		return &keystore.Info{ID: key, Project: project, Unreadable: refusal.CodeOf(err) != refusal.NotFound}
	}
	return &info
}

// warnings say what a person should know of a disk. left is the attachment that the catalog knows of, if there is one.
func (s *Service) warnings(d diskRecord, space pool.Space, left *attachRecord) (w []string) {
	if space.Total > 0 && d.Size > space.Free && d.Status == Available {
		w = append(w, fmt.Sprintf("the disk is larger (%d bytes) than what is free in the pool (%d bytes); "+
			"writes fail with ENOSPC when the pool is full", d.Size, space.Free))
	}
	a := s.attachment(d.ID)
	if a != nil && a.Device.Failed() != nil {
		return append(w, "a sync failed: nothing more is written; detach the disk, and see to the storage below it")
	}
	if a != nil && !a.ReadOnly && s.journals != nil && a.unjournaled() {
		w = append(w, "its journal is off for now: where the daemon is killed, what was not flushed may be lost")
	}
	if a == nil && left.lossy() {
		w = append(w, left.warning())
	}
	return w
}

// unjournaled tells whether what is written goes into no journal right now. One that is just being closed has no layers any more.
func (a *Attachment) unjournaled() bool {
	open := a.opened()
	return len(open) > 0 && !open[0].Journaled()
}
