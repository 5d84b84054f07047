package volume

import (
	"context"
	"errors"
	"slices"

	"github.com/google/uuid"

	"nbdcrypt/keystore"
	"nbdcrypt/pkg/catalog"
	"nbdcrypt/pkg/refusal"
	"nbdcrypt/pkg/volume/layer"
)

// Spec is what a new disk should be.
type Spec struct {
	ID            uuid.UUID // as planned; the zero UUID for a new one
	Project, Name string
	Size          int64
	SectorSize    int // 512 or 4096
	Encrypted     bool
	Key           string // id or alias; empty for the project's default key
	HideHoles     bool
	Bootable      bool // a server is to boot from it
	Shared        bool // it can be attached several times at once
	// From is what it is to stand on, nil for nothing. What is zero then is as that has it, and Encrypted is not looked at.
	From *From
}

// Create makes a disk, or leaves nothing behind. The key is used first: a bad one fails here and not at attach.
func (s *Service) Create(ctx context.Context, request string, spec Spec) (Disk, error) {
	if spec.From != nil && spec.From.Convert {
		return Disk{}, errors.New("volume: the data of an image is copied by CreateCopy")
	}
	if spec.From != nil {
		return s.createFrom(ctx, request, spec)
	}
	if err := checkSpec(spec); err != nil {
		return Disk{}, err
	}
	m, err := s.draw(ctx, request, spec, Creating, nil)
	if err != nil {
		return Disk{}, err
	}
	made, err := s.reserveAndBuild(ctx, request, m, toCreate)
	return s.describe(ctx, made, err)
}

// draw makes the records of a disk that stands on nothing, and its key.
func (s *Service) draw(ctx context.Context, request string, spec Spec, status Status, from *Source) (m newDisk, err error) {
	now := s.Clock.Now()
	m.top = layerRecord{Version: recordVersion, ID: uuid.New(), Size: spec.Size, SectorSize: spec.SectorSize, Encrypted: spec.Encrypted, Created: now}
	m.disk = diskRecord{Version: recordVersion, ID: spec.id(), Name: spec.Name, Project: spec.Project, Size: spec.Size, SectorSize: spec.SectorSize,
		Encrypted: spec.Encrypted, Status: status, Top: m.top.ID, Created: now, HideHoles: spec.HideHoles, Bootable: spec.Bootable, Shared: spec.Shared,
		Source: from, Request: request}
	if !spec.Encrypted {
		return m, nil
	}
	dek, err := s.Keys.GenerateDEK(ctx, spec.Project, spec.Key, holder(m.disk), m.top.ID.String(), spec.SectorSize)
	m.disk.Key, m.deks = dek.CMK.String(), []keystore.Record{dek}
	return m, err
}

func (spec Spec) id() uuid.UUID {
	if spec.ID == uuid.Nil {
		return uuid.New()
	}
	return spec.ID
}

// newDisk is a disk that is being made.
type newDisk struct {
	disk diskRecord
	top  layerRecord
	deks []keystore.Record
	on   *pointRecord // what it stands on
	// fill writes the data that it is to have before it is there, nil for none.
	fill func(*Stack) error
}

// reserveAndBuild works under a claim from before the disk's name is there: nobody attaches or deletes half a disk.
func (s *Service) reserveAndBuild(ctx context.Context, request string, m newDisk, v verb) (diskRecord, error) {
	d := m.disk
	// A planned disk that is there already may be in use, which its claim would refuse.
	if made, err := s.madeDisk(ctx, d); err != nil || made != nil {
		return orNone(made), err
	}
	if err := s.claim(d, v); err != nil {
		return d, err
	}
	defer s.release(d)
	if made, err := s.reserve(ctx, request, m); err != nil || made != nil {
		return orNone(made), err
	}
	if err := s.build(ctx, request, m); errors.Is(err, catalog.ErrUnknownOutcome) {
		return d, explain(d.Name, err) // it may be there: the next start finds out, and must find all of it
	} else if err != nil {
		// The caller may have gone; what was begun is taken back all the same.
		return d, explain(d.Name, errors.Join(err, s.remove(context.WithoutCancel(ctx), d)))
	}
	d.Status = Available
	return d, nil
}

func orNone(made *diskRecord) diskRecord {
	if made == nil {
		return diskRecord{}
	}
	return *made
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

// reserve writes the intent: from here on a crash is cleaned up at the next start. Where the same request had made the disk before, it
// answers that one and writes nothing.
func (s *Service) reserve(ctx context.Context, request string, m newDisk) (made *diskRecord, err error) {
	d := m.disk
	err = s.update(ctx, request+"/intent", func(t catalog.Txn) (err error) {
		if made, err = s.madeBy(t, d); err != nil || made != nil {
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

// madeBy finds the disk that the request which is to make one had made before, and refuses a name or an id that another has.
func (s *Service) madeBy(r catalog.Reader, d diskRecord) (*diskRecord, error) {
	for _, ref := range []string{d.Name, d.ID.String()} {
		other, err := s.find(r, d.Project, ref)
		switch {
		case err == nil && other.Request == d.Request && other.Name == d.Name:
			return &other, s.notHalf(other)
		case err == nil:
			return nil, refusal.New(refusal.Busy, "choose another name, or delete that disk first", "project %s has a disk %s already", d.Project, other.Name)
		case refusal.CodeOf(err) != refusal.NotFound:
			return nil, err
		}
	}
	return nil, nil
}

// notHalf refuses to answer with a disk whose making ended half-way.
func (s *Service) notHalf(d diskRecord) error {
	now := s.status(d)
	if !slices.Contains(half, now) {
		return nil
	}
	return refusal.New(refusal.Busy, fillIn(d, nextStep(toCreate, now)), "disk %s is %s: its making ended half-way", d.Name, now)
}

// madeDisk is madeBy in a view of its own.
func (s *Service) madeDisk(ctx context.Context, d diskRecord) (made *diskRecord, err error) {
	err = s.Catalog.View(ctx, func(r catalog.Reader) (err error) {
		made, err = s.madeBy(r, d)
		return err
	})
	return made, err
}

// build makes the layer with what is to be in it, and then the disk available together with its key.
func (s *Service) build(ctx context.Context, request string, m newDisk) error {
	d := m.disk
	if err := layer.Create(ctx, s.Pool, m.top.header(), d.Size); err != nil {
		return err
	}
	last := max(0, len(m.deks)-1)
	if m.fill != nil {
		last = len(m.deks) // it is written under them
	}
	if err := s.putDEKs(ctx, m.deks[:last]); err != nil {
		return err
	}
	if m.fill != nil {
		if err := s.fillNew(ctx, m); err != nil {
			return err
		}
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

// fillNew has a new disk's data be written, and durable.
func (s *Service) fillNew(ctx context.Context, m newDisk) (err error) {
	st, err := s.openStack(ctx, holder(m.disk), m.disk.Project, m.disk.label(), []layerRecord{m.top}, m.disk.Size, stackOptions{})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, st.close(nil)) }()
	if err := m.fill(st); err != nil {
		return err
	}
	return st.Device.Sync()
}
