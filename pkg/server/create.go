package server

import (
	"context"
	"errors"
	"fmt"

	"github.com/google/uuid"

	"nbdcrypt/pkg/catalog"
	"nbdcrypt/pkg/refusal"
	"nbdcrypt/pkg/volume"
)

// newServer is a server that is being made, and its disks in the order of the record.
type newServer struct {
	serverRecord
	disks []volume.Spec
}

// Create makes a server with its disks, or leaves nothing behind. The same request again finds what it made.
func (s *Service) Create(ctx context.Context, request string, spec Spec, w volume.Work) (Server, error) {
	m := newServer{serverRecord: serverRecord{head: s.newHead(spec.Project, spec.Name, request)}}
	if err := checkName(servers.word, spec.Name, maxServerName); err != nil {
		return Server{}, err
	}
	if made, err := servers.isMade(ctx, s.c.Catalog, m.head); err != nil || made != nil {
		return s.answer(ctx, m.Project, m.Name, err)
	}
	if err := s.plan(ctx, &m, spec); err != nil {
		return Server{}, err
	}
	if err := s.claim(servers.word+" "+m.Name, m.ID, toCreate); err != nil {
		return Server{}, err
	}
	err := s.make(ctx, request, m, w)
	s.release(m.ID)
	return s.answer(ctx, m.Project, m.Name, err)
}

// answer tells about a server that something was done to, though the caller may have gone.
func (s *Service) answer(ctx context.Context, project, ref string, err error) (Server, error) {
	if err != nil {
		return Server{}, err
	}
	return s.Get(context.WithoutCancel(ctx), project, ref)
}

// plan says what the server and its disks are to be, and uses the keys first.
func (s *Service) plan(ctx context.Context, m *newServer, spec Spec) (err error) {
	if m.machine, err = (machine{spec.CPUs, spec.Memory, spec.Network}).withDefaults(); err != nil {
		return err
	}
	if err := checkData(len(spec.Data)); err != nil {
		return err
	}
	image, err := s.c.Volumes.Point(ctx, volume.ImageKind, spec.Project, spec.Image)
	if err != nil {
		return err
	}
	if err := s.imageUsable(ctx, image); err != nil {
		return refuseFor("disk "+diskName(m.Name, 0), err)
	}
	m.of(image, spec.systemOf(image))
	for _, d := range spec.Data {
		m.add(DataRole, volume.Spec{Size: d.Size, SectorSize: d.SectorSize, Encrypted: d.Encrypted, Key: d.Key})
	}
	return s.disksUsable(ctx, m.disks)
}

// of begins the server's disks with a system disk of the image.
func (m *newServer) of(image volume.Point, system volume.Spec) {
	id, _ := uuid.Parse(image.ID)
	m.Image = &volume.Source{Kind: volume.ImageKind, ID: id, Name: image.Name}
	system.Bootable = true
	m.add(SystemRole, system)
}

// add plans one more disk.
func (m *newServer) add(role string, spec volume.Spec) {
	spec.ID, spec.Project, spec.Name = uuid.New(), m.Project, diskName(m.Name, len(m.disks))
	m.disks = append(m.disks, spec)
	m.Disks = append(m.Disks, serverDisk{Role: role, ID: spec.ID, Name: spec.Name})
}

// systemOf is the system disk that is made of an image: one that stands on it, or where that is plain and an encrypted one is wanted, one that its data is copied to.
func (spec Spec) systemOf(image volume.Point) volume.Spec {
	sys := spec.System
	to := volume.Spec{Size: sys.Size, SectorSize: sys.SectorSize, Key: sys.Key, From: &volume.From{Kind: volume.ImageKind, Ref: image.ID}}
	switch {
	case spec.AsImage:
		to.Key, to.From.Encrypted = "", spec.AskedEncrypted
	case image.Encrypted:
		to.From.Encrypted = spec.AskedEncrypted
	case sys.Encrypted:
		to.Encrypted, to.From.Convert = true, true
	}
	return to
}

// make writes the intent, makes the disks, and then has the server be there. Nobody else does anything to it meanwhile: the caller has claimed it.
func (s *Service) make(ctx context.Context, request string, m newServer, w volume.Work) error {
	if err := s.reserve(ctx, m.serverRecord); err != nil {
		return servers.explain(m.Name, err)
	}
	err := s.makeDisks(ctx, m, w)
	if err == nil {
		err = s.update(ctx, request, func(t catalog.Txn) error {
			now, err := servers.get(t, m.ID)
			if err != nil {
				return err
			}
			now.Status = Stopped
			return servers.put(t, now)
		})
	}
	if err == nil || errors.Is(err, catalog.ErrUnknownOutcome) { // then it may be there: the next start finds out
		return servers.explain(m.Name, err)
	}
	// The caller may have gone; what was begun is taken back all the same.
	if undo := s.remove(context.WithoutCancel(ctx), m.serverRecord); undo != nil {
		why := refusal.From(servers.explain(m.Name, err))
		return refusal.New(why.Code, "`nbdcrypt server delete "+m.Name+"` ends what is left of it, and so does the daemon when it starts",
			"%w; and what was made of server %s could not be deleted: %w", why, m.Name, undo)
	}
	return servers.explain(m.Name, err)
}

// reserve writes the intent: from here on a crash is cleaned up at the next start.
func (s *Service) reserve(ctx context.Context, r serverRecord) error {
	return s.update(ctx, r.step("intent"), func(t catalog.Txn) error {
		made, err := servers.madeBefore(t, r.head)
		if err != nil || made != nil {
			return errors.Join(err, busyIf(made != nil, r))
		}
		err = servers.add(t, r)
		for _, d := range r.Disks {
			err = errors.Join(err, t.Put(diskKey(d.ID), []byte(r.ID.String())))
		}
		if r.Group != uuid.Nil {
			err = errors.Join(err, t.Put(memberKey(r.Group, r.Number), []byte(r.ID.String())))
		}
		return err
	})
}

// busyIf refuses what the same request has made between two looks: whoever sent it twice at once asks again.
func busyIf(made bool, r serverRecord) error {
	if !made {
		return nil
	}
	return refusal.New(refusal.Busy, wait, "server %s was made by the same request just now", r.Name)
}

// makeDisks makes the system disk last: where its data is copied that takes long, and what is refused of the others is refused before.
func (s *Service) makeDisks(ctx context.Context, m newServer, w volume.Work) (err error) {
	for i := len(m.disks) - 1; i >= 0 && err == nil; i-- {
		d, request := m.disks[i], m.step(fmt.Sprint(i))
		if d.From != nil && d.From.Convert {
			_, err = s.c.Volumes.CreateCopy(ctx, request, d, w)
		} else {
			_, err = s.c.Volumes.Create(ctx, request, d)
		}
	}
	return err
}
