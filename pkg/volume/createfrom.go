package volume

import (
	"context"

	"nbdcrypt/pkg/catalog"
	"nbdcrypt/pkg/refusal"
)

// From names a snapshot or an image that a new disk is to stand on.
type From struct {
	Kind, Ref string
	// Encrypted is what was asked for, nil for what the source is. Anything else is refused (rules A27, A29).
	Encrypted *bool
	// Full has the disk copy in the background all that it stands on, until it needs the source no more.
	Full bool
	// Convert is for CreateCopy alone: the disk gets the data of an image and stands on nothing, encrypted or plain, under any key and with any
	// sector size, as Spec says. Encrypted and Full are not looked at then.
	Convert bool
}

// createFrom makes a disk that stands on the layers of a point, and writes to one of its own. Nothing is copied.
func (s *Service) createFrom(ctx context.Context, request string, spec Spec) (Disk, error) {
	if err := CheckName(spec.Name); err != nil {
		return Disk{}, err
	}
	p, free, err := s.lookUpPoint(ctx, spec.From.Kind, spec.Project, spec.From.Ref)
	if err != nil {
		return Disk{}, err
	}
	defer free()
	if err := s.inherit(ctx, &spec, p); err != nil {
		return Disk{}, err
	}
	m := newDisk{on: &p, disk: diskRecord{Version: recordVersion, ID: spec.id(), Name: spec.Name, Project: spec.Project, Size: spec.Size,
		SectorSize: spec.SectorSize, Encrypted: spec.Encrypted, Key: p.Key, Status: Creating, Created: s.Clock.Now(),
		HideHoles: spec.HideHoles, Bootable: spec.Bootable, Shared: spec.Shared, Source: &Source{p.Kind, p.ID, p.Name}, Request: request}}
	if spec.From.Full {
		if err := s.roomToCopy(ctx, p); err != nil {
			return Disk{}, err
		}
		m.disk.Fill = &fill{Why: fillFull}
	}
	v := toCreate
	if p.Kind == ImageKind {
		v = toDownload
	}
	made, err := s.buildOn(ctx, request, m, v)
	return s.describe(ctx, made, err)
}

// buildOn keeps the layers below the disk what they are until it stands on them.
func (s *Service) buildOn(ctx context.Context, request string, m newDisk, v verb) (diskRecord, error) {
	s.tree.RLock()
	defer s.tree.RUnlock()
	on, err := s.stackOn(ctx, m.disk, *m.on)
	if err != nil {
		return m.disk, explainPoint(m.on.Kind, m.on.Name, err)
	}
	m.top, m.deks, m.disk.Top = on.top, on.deks, on.top.ID
	return s.reserveAndBuild(ctx, request, m, v)
}

// standOn has the new top stand on the point's layer, which goes no more from then on, if the point is as it was when it was looked at.
func (m newDisk) standOn(t catalog.Txn) error {
	now, err := get(t, m.on.key(), parsePoint)
	if err != nil {
		return err
	}
	if now.Key != m.on.Key || now.Status != Available {
		return m.on.busy("it has changed meanwhile")
	}
	if err := addRef(t, m.top.Parent, layerRef, m.top.ID); err != nil {
		return err
	}
	return addRef(t, m.top.ID, HolderKind, m.disk.ID)
}

// inherit fills in what a disk has of its source, and refuses what was asked for otherwise.
func (s *Service) inherit(ctx context.Context, spec *Spec, p pointRecord) error {
	const next = "leave it out, and the disk is as what it is made from"
	is := map[bool]string{true: "encrypted", false: "plain"}
	switch asked := spec.From.Encrypted; {
	case asked != nil && *asked != p.Encrypted:
		return refusal.New(refusal.Usage, next, "%s %s is %s, and so are disks made from it", p.Kind, p.Name, is[p.Encrypted])
	case spec.Key != "" && !p.Encrypted:
		return refusal.New(refusal.Usage, next, "%s %s is plain, and disks made from it have no key", p.Kind, p.Name)
	case spec.SectorSize != 0 && spec.SectorSize != p.SectorSize:
		return refusal.New(refusal.Usage, next, "%s %s has sectors of %d bytes, and so have disks made from it", p.Kind, p.Name, p.SectorSize)
	case spec.Size != 0 && spec.Size < p.Size:
		return refusal.New(refusal.Usage, "give a size of at least that, or none", "%s %s has %d bytes, and a disk made from it can't have %d", p.Kind, p.Name, p.Size, spec.Size)
	}
	if spec.Key != "" {
		key, err := s.Keys.Key(ctx, spec.Project, spec.Key)
		if err != nil {
			return err
		}
		if key.ID != p.Key {
			return refusal.New(refusal.Usage, next, "%s %s is under another key than %s, and disks made from it are under its own", p.Kind, p.Name, key.Alias)
		}
	}
	spec.Encrypted, spec.SectorSize = p.Encrypted, p.SectorSize
	if spec.Size == 0 {
		spec.Size = p.Size
	}
	return checkSize(spec.Size, spec.SectorSize)
}

// roomToCopy refuses to copy a point where the pool has no room for that.
func (s *Service) roomToCopy(ctx context.Context, p pointRecord) error {
	held, err := s.usage(ctx, diskRecord{Top: p.Layer}, nil)
	if err != nil {
		return explainPoint(p.Kind, p.Name, err)
	}
	return s.room(held.Written)
}
