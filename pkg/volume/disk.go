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

// Spec is what a new disk should be.
type Spec struct {
	Project, Name string
	Size          int64
	SectorSize    int // 512 or 4096
	Encrypted     bool
	Key           string // id or alias; empty for the project's default key
}

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
	Status            Status
	Created           time.Time
	Layers            []Layer
	Attachment        *Attachment
	Warnings          []string
}

func holder(d diskRecord) keystore.Holder { return keystore.Holder{Kind: "disk", ID: d.ID.String()} }

// Create makes a disk, or leaves nothing behind. The key is used first: a bad one fails here and not at attach.
func (s *Service) Create(ctx context.Context, request string, spec Spec) (Disk, error) {
	if err := checkSpec(spec); err != nil {
		return Disk{}, err
	}
	now := s.Clock.Now()
	l := layerRecord{Version: recordVersion, ID: uuid.New(), Size: spec.Size, SectorSize: spec.SectorSize,
		Encrypted: spec.Encrypted, Created: now}
	d := diskRecord{Version: recordVersion, ID: uuid.New(), Name: spec.Name, Project: spec.Project, Size: spec.Size,
		SectorSize: spec.SectorSize, Encrypted: spec.Encrypted, Status: Creating, Top: l.ID, Created: now, Request: request}
	var dek keystore.Record
	if spec.Encrypted {
		var err error
		dek, err = s.Keys.GenerateDEK(ctx, spec.Project, spec.Key, holder(d), l.ID.String(), spec.SectorSize)
		if err != nil {
			return Disk{}, err
		}
		d.Key = dek.CMK.String()
	}
	made, err := s.reserve(ctx, request, d, l)
	if err != nil || made.ID != d.ID {
		return s.describe(ctx, made, err)
	}
	if err := s.build(ctx, request, d, l, dek); err != nil {
		// The caller may have gone; what was begun is taken back all the same.
		return Disk{}, explain(d.Name, errors.Join(err, s.remove(context.WithoutCancel(ctx), d)))
	}
	d.Status = Available
	return s.describe(ctx, d, nil)
}

func checkSpec(spec Spec) error {
	if err := CheckName(spec.Name); err != nil {
		return err
	}
	if spec.SectorSize != 512 && spec.SectorSize != 4096 {
		return refusal.New(refusal.Usage, "use 512 or 4096", "a sector can't have %d bytes", spec.SectorSize)
	}
	if !spec.Encrypted && spec.Key != "" {
		return refusal.New(refusal.Usage, "leave out --plain, or leave out --key", "a plain disk has no key")
	}
	return checkSize(spec.Size, spec.SectorSize)
}

// reserve writes the intent: from here on a crash is cleaned up at the next start. It answers the disk that the name
// stands for, which is another where the same request had made it before.
func (s *Service) reserve(ctx context.Context, request string, d diskRecord, l layerRecord) (diskRecord, error) {
	made := d
	err := s.update(ctx, request+"/intent", func(t catalog.Txn) error {
		made = d
		other, err := s.find(t, d.Project, d.Name)
		if err == nil && other.Request == request {
			made = other
			return nil
		}
		if err == nil {
			return refusal.New(refusal.Busy, "choose another name, or delete that disk first",
				"project %s has a disk %s already", d.Project, d.Name)
		}
		if refusal.CodeOf(err) != refusal.NotFound {
			return err
		}
		return errors.Join(put(t, diskKey(d.ID), d), put(t, layerKey(l.ID), l),
			t.Put(nameKey(d.Project, d.Name), []byte(d.ID.String())))
	})
	return made, err
}

// build makes the layer, and then the disk available together with its key.
func (s *Service) build(ctx context.Context, request string, d diskRecord, l layerRecord, dek keystore.Record) error {
	if err := s.claim(d, Creating); err != nil {
		return err
	}
	defer s.release(d)
	if err := layer.Create(ctx, s.Pool, l.header(), d.Size); err != nil {
		return err
	}
	d.Status = Available
	return s.update(ctx, request, func(t catalog.Txn) error {
		if d.Encrypted {
			if err := keystore.PutDEK(t, dek); err != nil {
				return err
			}
		}
		return put(t, diskKey(d.ID), d)
	})
}

// remove ends a disk whose record says that it is being made or deleted.
func (s *Service) remove(ctx context.Context, d diskRecord) error {
	layers, err := s.stack(ctx, d)
	if err != nil {
		return err
	}
	if err := s.dropData(ctx, layers); err != nil {
		return err
	}
	return s.update(ctx, "remove-"+uuid.NewString(), func(t catalog.Txn) error {
		if err := s.dropName(t, d); err != nil {
			return err
		}
		for _, l := range layers {
			if err := errors.Join(t.Delete(layerKey(l.ID)), keystore.DropDEKs(t, holder(d), l.ID.String())); err != nil {
				return err
			}
		}
		return errors.Join(t.Delete(attachmentKey(d.ID)), t.Delete(diskKey(d.ID)))
	})
}

// dropName frees the disk's name, unless another disk has it by now.
func (s *Service) dropName(t catalog.Txn, d diskRecord) error {
	id, err := t.Get(nameKey(d.Project, d.Name))
	if errors.Is(err, catalog.ErrNotFound) || err == nil && string(id) != d.ID.String() {
		return nil
	}
	if err != nil {
		return err
	}
	return t.Delete(nameKey(d.Project, d.Name))
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
		return nil, explain("list", err)
	}
	disks := make([]Disk, 0, len(records))
	for _, r := range records {
		d, err := s.describe(ctx, r, nil)
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
		Encrypted: r.Encrypted, Status: s.status(r), Created: r.Created, Attachment: s.attachment(r.ID)}
	if r.Encrypted {
		d.Key = s.keyOf(ctx, r)
	}
	layers, err := s.stack(ctx, r)
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

// Delete ends a disk. It needs no key, and its DEKs are gone before its bytes are.
func (s *Service) Delete(ctx context.Context, request, project, ref string) error {
	d, err := s.lookUp(ctx, project, ref)
	if err != nil {
		return err
	}
	if err := s.claim(d, Deleting); err != nil {
		return err
	}
	defer s.release(d)
	if s.attachment(d.ID) != nil {
		return refusal.New(refusal.Busy, "run `nbdcrypt detach "+d.Name+"` first", "disk %s is attached", d.Name)
	}
	layers, err := s.stack(ctx, d)
	if err != nil {
		return explain(d.Name, err)
	}
	d.Status = Deleting
	err = s.markDeleting(ctx, request, d, layers)
	if isFull(err) {
		// On a full file system deleting is how people make room, so it must not need any: the bytes go first. A crash
		// here leaves a disk without its data, which can be deleted again.
		if err := s.dropData(ctx, layers); err != nil {
			return explain(d.Name, err)
		}
		err = s.markDeleting(ctx, request, d, layers)
	}
	if err != nil {
		return explain(d.Name, err)
	}
	return explain(d.Name, s.remove(context.WithoutCancel(ctx), d))
}

// markDeleting takes the disk's keys and name away, durably. From here on a start finishes the deletion.
func (s *Service) markDeleting(ctx context.Context, request string, d diskRecord, layers []layerRecord) error {
	return s.update(ctx, request, func(t catalog.Txn) error {
		for _, l := range layers {
			if err := keystore.DropDEKs(t, holder(d), l.ID.String()); err != nil {
				return err
			}
		}
		return errors.Join(put(t, diskKey(d.ID), d), s.dropName(t, d))
	})
}

func (s *Service) dropData(ctx context.Context, layers []layerRecord) error {
	for _, l := range layers {
		if err := layer.Delete(ctx, s.Pool, l.ID); err != nil {
			return err
		}
	}
	return nil
}
