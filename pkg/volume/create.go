package volume

import (
	"context"
	"errors"

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
	HideHoles     bool
	Shared        bool // it can be attached several times at once
	// From is what it is to stand on, nil for nothing. What is zero then is as that has it, and Encrypted is not looked at.
	From *From
}

// Create makes a disk, or leaves nothing behind. The key is used first: a bad one fails here and not at attach.
func (s *Service) Create(ctx context.Context, request string, spec Spec) (Disk, error) {
	if spec.From != nil {
		return s.createFrom(ctx, request, spec)
	}
	if err := checkSpec(spec); err != nil {
		return Disk{}, err
	}
	now := s.Clock.Now()
	l := layerRecord{Version: recordVersion, ID: uuid.New(), Size: spec.Size, SectorSize: spec.SectorSize,
		Encrypted: spec.Encrypted, Created: now}
	d := diskRecord{Version: recordVersion, ID: uuid.New(), Name: spec.Name, Project: spec.Project, Size: spec.Size,
		SectorSize: spec.SectorSize, Encrypted: spec.Encrypted, Status: Creating, Top: l.ID, Created: now,
		HideHoles: spec.HideHoles, Shared: spec.Shared, Request: request}
	m := newDisk{disk: d, top: l}
	if spec.Encrypted {
		dek, err := s.Keys.GenerateDEK(ctx, spec.Project, spec.Key, holder(d), l.ID.String(), spec.SectorSize)
		if err != nil {
			return Disk{}, err
		}
		m.disk.Key, m.deks = dek.CMK.String(), []keystore.Record{dek}
	}
	made, err := s.reserveAndBuild(ctx, request, m, toCreate)
	return s.describe(ctx, made, err)
}

// newDisk is a disk that is being made.
type newDisk struct {
	disk diskRecord
	top  layerRecord
	deks []keystore.Record
	on   *pointRecord // what it stands on
}

// reserveAndBuild works under a claim from before the disk's name is there: nobody attaches or deletes half a disk.
func (s *Service) reserveAndBuild(ctx context.Context, request string, m newDisk, v verb) (diskRecord, error) {
	d := m.disk
	if err := s.claim(d, v); err != nil {
		return d, err
	}
	defer s.release(d)
	made, err := s.reserve(ctx, request, m)
	if err != nil || made.ID != d.ID {
		return made, err
	}
	if err := s.build(ctx, request, m); errors.Is(err, catalog.ErrUnknownOutcome) {
		return d, explain(d.Name, err) // it may be there: the next start finds out, and must find all of it
	} else if err != nil {
		// The caller may have gone; what was begun is taken back all the same.
		return d, explain(d.Name, errors.Join(err, s.remove(context.WithoutCancel(ctx), d)))
	}
	made.Status = Available
	return made, nil
}

func checkSpec(spec Spec) error {
	if err := CheckName(spec.Name); err != nil {
		return err
	}
	if err := checkSector(spec.SectorSize); err != nil {
		return err
	}
	if !spec.Encrypted && spec.Key != "" {
		return refusal.New(refusal.Usage, "leave out --plain, or leave out --key", "a plain disk has no key")
	}
	return checkSize(spec.Size, spec.SectorSize)
}

// reserve writes the intent: from here on a crash is cleaned up at the next start. It answers the disk that the name
// stands for, which is another where the same request had made it before.
func (s *Service) reserve(ctx context.Context, request string, m newDisk) (diskRecord, error) {
	d := m.disk
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
		err = errors.Join(put(t, diskKey(d.ID), d), put(t, layerKey(m.top.ID), m.top), t.Put(nameKey(d.Project, d.Name), []byte(d.ID.String())))
		if err != nil || m.on == nil {
			return err
		}
		return m.standOn(t)
	})
	return made, err
}

// build makes the layer, and then the disk available together with its key.
func (s *Service) build(ctx context.Context, request string, m newDisk) error {
	d := m.disk
	if err := layer.Create(ctx, s.Pool, m.top.header(), d.Size); err != nil {
		return err
	}
	last := max(0, len(m.deks)-1)
	if err := s.putDEKs(ctx, m.deks[:last]); err != nil {
		return err
	}
	d.Status = Available
	return s.update(ctx, request, func(t catalog.Txn) error {
		for _, rec := range m.deks[last:] {
			if err := s.Keys.PutUsableDEK(t, rec); err != nil {
				return err
			}
		}
		return put(t, diskKey(d.ID), d)
	})
}
