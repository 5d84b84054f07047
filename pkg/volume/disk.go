package volume

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"

	"nbdcrypt/keystore"
	"nbdcrypt/pkg/catalog"
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
	Status            Status
	Created           time.Time
	Layers            []Layer
	Attachment        *Attachment
	Warnings          []string
}

func holder(d diskRecord) keystore.Holder { return keystore.Holder{Kind: "disk", ID: d.ID.String()} }

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

// stack reads the layers of a disk, top first. A disk that is being made may have none yet.
func (s *Service) stack(ctx context.Context, d diskRecord) (layers []layerRecord, err error) {
	err = s.Catalog.View(ctx, func(r catalog.Reader) error {
		layers = nil
		for id := d.Top; id != uuid.Nil; {
			l, err := get(r, layerKey(id), parseLayer)
			if err != nil {
				return fmt.Errorf("disk %s: layer %s: %w", d.Name, id, err)
			}
			layers = append(layers, l)
			id = l.Parent
		}
		return nil
	})
	return layers, err
}

// Get tells about one disk.
func (s *Service) Get(ctx context.Context, project, ref string) (Disk, error) {
	d, err := s.lookUp(ctx, project, ref)
	return s.describe(ctx, d, err)
}

// List tells about every disk of a project, in the order of their ids.
func (s *Service) List(ctx context.Context, project string) ([]Disk, error) {
	var records []diskRecord
	err := s.eachDisk(ctx, func(d diskRecord) error {
		if d.Project == project {
			records = append(records, d)
		}
		return nil
	})
	if err != nil {
		return nil, explainList(err)
	}
	disks := make([]Disk, 0, len(records))
	for _, r := range records {
		d, err := s.describe(ctx, r, nil)
		if refusal.CodeOf(err) == refusal.NotFound {
			continue
		}
		if err != nil {
			return nil, err
		}
		disks = append(disks, d)
	}
	return disks, nil
}

// Count is how many disks there are, in all projects.
func (s *Service) Count(ctx context.Context) (n int, err error) {
	err = s.eachDisk(ctx, func(diskRecord) error { n++; return nil })
	return n, err
}

// describe makes of a record what users see.
func (s *Service) describe(ctx context.Context, r diskRecord, err error) (Disk, error) {
	if err != nil {
		return Disk{}, err
	}
	d := Disk{ID: r.ID.String(), Name: r.Name, Project: r.Project, Size: r.Size, SectorSize: r.SectorSize,
		Encrypted: r.Encrypted, HideHoles: r.HideHoles, Status: s.status(r), Created: r.Created, Attachment: s.attachment(r.ID)}
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
		// Without its files a layer has no segments to show; that it is damaged is for attach and check to say.
		paths, _ := s.Pool.Segments(layer.DataName(l.ID))
		d.Layers = append(d.Layers, Layer{ID: l.ID.String(), Segments: paths})
	}
	d.Warnings = s.warnings(ctx, r)
	return d, nil
}

// keyOf tells about the disk's key. One that can't be read has the zero state: the disk can still be listed and deleted.
func (s *Service) keyOf(ctx context.Context, d diskRecord) *keystore.Info {
	info, err := s.Keys.Key(ctx, d.Project, d.Key)
	if err != nil {
		return &keystore.Info{ID: d.Key}
	}
	return &info
}

// warnings say what a person should know of a disk.
func (s *Service) warnings(ctx context.Context, d diskRecord) (w []string) {
	if space, err := s.Pool.Space(); err == nil && d.Size > space.Free && d.Status == Available {
		w = append(w, fmt.Sprintf("the disk is larger (%d bytes) than what is free in the pool (%d bytes); "+
			"writes fail with ENOSPC when the pool is full", d.Size, space.Free))
	}
	a := s.attachment(d.ID)
	if a != nil && a.Device.Failed() != nil {
		return append(w, "a sync failed: nothing more is written; detach the disk, and see to the storage below it")
	}
	if a != nil {
		return w
	}
	left, err := s.leftBehind(ctx, d)
	if err == nil && left != nil {
		w = append(w, left.warning())
	}
	return w
}
