package server

import (
	"context"
	"errors"
	"slices"

	"github.com/google/uuid"

	"nbdcrypt/pkg/catalog"
	"nbdcrypt/pkg/refusal"
	"nbdcrypt/pkg/volume"
)

// Plan is a change of a server's disks that is allowed as things are. Nothing else is done to the server until Free.
type Plan struct {
	Server Server // as it was
	Disk   Disk
	// Running tells that the server has a run, whose QEMU has to be told.
	Running bool

	s      *Service
	id     uuid.UUID
	change func(catalog.Txn, *serverRecord) error
}

// AttachDisk gives a server a disk, in the records alone: PlanAttach, Commit and Free.
func (s *Service) AttachDisk(ctx context.Context, request, project, ref, disk string, system bool) (Server, error) {
	p, err := s.PlanAttach(ctx, project, ref, disk, system)
	return s.carryOut(ctx, request, project, ref, p, err)
}

// DetachDisk takes a disk from a server, in the records alone: PlanDetach, Commit and Free.
func (s *Service) DetachDisk(ctx context.Context, request, project, ref, disk string) (Server, error) {
	p, err := s.PlanDetach(ctx, project, ref, disk)
	return s.carryOut(ctx, request, project, ref, p, err)
}

// carryOut commits a plan, and answers where the same request did so before.
func (s *Service) carryOut(ctx context.Context, request, project, ref string, p *Plan, err error) (Server, error) {
	if err != nil {
		if done, _ := s.c.Catalog.Outcome(ctx, request); done {
			err = nil
		}
		return s.answer(ctx, project, ref, err)
	}
	defer p.Free()
	return p.Commit(ctx, request)
}

// newPlan claims a server for a change of its disks: one that is stopped, or of its data disks one that runs.
func (s *Service) newPlan(ctx context.Context, project, ref string) (*Plan, serverRecord, error) {
	r, err := claimNow(ctx, s, servers, project, ref, toChange)
	if err != nil {
		return nil, r, err
	}
	p := &Plan{s: s, id: r.ID, Running: s.runOf(r.ID) != nil}
	p.Server, err = s.Get(ctx, project, r.ID.String())
	if err == nil && r.Status != Stopped {
		err = refusal.New(refusal.Busy, "delete it with `nbdcrypt server delete "+r.Name+"`; the daemon does so too when it starts", "server %s is not whole", r.Name)
	}
	if now := p.Server.Status; err == nil && (now == Starting || now == Stopping) {
		err = refusal.New(refusal.Busy, wait, "server %s is %s, and its disks can't be changed", r.Name, now)
	}
	if err != nil {
		p.Free()
		return nil, r, err
	}
	return p, r, nil
}

// PlanAttach begins to give a server a disk. What speaks against it is refused here, so that nothing is plugged in vain.
func (s *Service) PlanAttach(ctx context.Context, project, ref, disk string, system bool) (*Plan, error) {
	p, r, err := s.newPlan(ctx, project, ref)
	if err != nil {
		return nil, err
	}
	d, err := s.c.Volumes.Get(ctx, project, disk)
	if err == nil {
		err = s.mayGive(ctx, r, d, system, p.Running)
	}
	if err != nil {
		p.Free()
		return nil, err
	}
	id, _ := uuid.Parse(d.ID)
	p.Disk = Disk{Role: DataRole, Name: d.Name, ID: id}
	if system {
		p.Disk.Role = SystemRole
	}
	p.change = func(t catalog.Txn, r *serverRecord) error { return s.give(t, r, p.Disk, d.Source) }
	return p, nil
}

// mayGive refuses a disk that a server can't have.
func (s *Service) mayGive(ctx context.Context, r serverRecord, d volume.Disk, system, running bool) error {
	id, err := uuid.Parse(d.ID)
	if err != nil {
		return err
	}
	of, role, err := s.OfDisk(ctx, id)
	switch {
	case err != nil:
		return err
	case of != nil:
		return refusal.New(refusal.Busy, "take it from there first with `nbdcrypt server detach "+of.Name+" "+d.Name+"`", "disk %s is the %s disk of server %s already", d.Name, role, of.Name)
	case d.Shared:
		return refuseShared(d.Name)
	case !system:
		return nil
	case running:
		return refusal.New(refusal.Busy, "run `nbdcrypt server stop "+r.Name+"` first", "server %s runs, and can't get a system disk", r.Name)
	case r.system() != nil:
		return refusal.New(refusal.Busy, "take that from it first with `nbdcrypt server detach "+r.Name+" "+r.system().Name+"`, or leave out --system", "server %s has a system disk, %s", r.Name, r.system().Name)
	case !d.Bootable:
		return refusal.New(refusal.Busy, "leave out --system, and it becomes a data disk; what was a server's system disk is bootable", "disk %s is not bootable", d.Name)
	}
	return nil
}

// give adds a disk to the record, if it is there and nobody else's.
func (s *Service) give(t catalog.Txn, r *serverRecord, d Disk, source *volume.Source) error {
	if err := s.c.Volumes.MayHold(t, r.Project, volume.HolderKind, d.ID); err != nil {
		return err
	}
	of, err := serverOf(t, d.ID)
	if err != nil {
		return err
	}
	if of != nil {
		return refusal.New(refusal.Busy, wait, "disk %s has become one of server %s", d.Name, of.Name)
	}
	added := serverDisk{Role: d.Role, ID: d.ID, Name: d.Name, Given: r.Group != uuid.Nil}
	if d.Role == SystemRole {
		r.Disks = slices.Insert(r.Disks, 0, added)
		r.Image = nil
		if source != nil && source.Kind == volume.ImageKind {
			r.Image = source
		}
	} else {
		r.Disks = append(r.Disks, added)
	}
	if r.dataDisks() > MaxDataDisks {
		return refusal.New(refusal.Busy, "take another from it first with `nbdcrypt server detach`", "server %s has %d data disks, and can't have more", r.Name, MaxDataDisks)
	}
	return t.Put(diskKey(d.ID), []byte(r.ID.String()))
}

func (r serverRecord) dataDisks() int {
	if r.system() == nil {
		return len(r.Disks)
	}
	return len(r.Disks) - 1
}

// PlanDetach begins to take a disk from a server, by its name or id: a system disk only while the server is stopped. The disk itself is not looked at: it may be damaged, or gone.
func (s *Service) PlanDetach(ctx context.Context, project, ref, disk string) (*Plan, error) {
	p, r, err := s.newPlan(ctx, project, ref)
	if err != nil {
		return nil, err
	}
	if err := s.planDetach(ctx, p, r, disk); err != nil {
		p.Free()
		return nil, err
	}
	return p, nil
}

func (s *Service) planDetach(ctx context.Context, p *Plan, r serverRecord, disk string) error {
	i := slices.IndexFunc(r.Disks, func(d serverDisk) bool { return d.Name == disk || d.ID.String() == disk })
	if i < 0 {
		return refusal.New(refusal.NotFound, "`nbdcrypt server show "+r.Name+"` shows its disks", "server %s has no disk %.200q", r.Name, disk)
	}
	d := r.Disks[i]
	p.Disk = Disk{Role: d.Role, Name: d.Name, ID: d.ID}
	p.change = func(t catalog.Txn, r *serverRecord) error { return take(t, r, d.ID) }
	if d.Role != SystemRole {
		return nil
	}
	if p.Running {
		return refusal.New(refusal.Busy, "run `nbdcrypt server stop "+r.Name+"` first", "disk %s is the system disk of server %s, which runs", d.Name, r.Name)
	}
	return s.notMember(ctx, r, "left without its system disk")
}

// take removes a disk from the record.
func take(t catalog.Txn, r *serverRecord, disk uuid.UUID) error {
	if r.role(disk) == SystemRole {
		r.Image = nil
	}
	r.Disks = slices.DeleteFunc(r.Disks, func(d serverDisk) bool { return d.ID == disk })
	return dropIf(t, diskKey(disk), r.ID)
}

// Commit writes the change.
func (p *Plan) Commit(ctx context.Context, request string) (Server, error) {
	err := p.s.changeDisks(ctx, request, p.id, p.change)
	return p.s.answer(ctx, p.Server.Project, p.id.String(), servers.explain(p.Server.Name, err))
}

// Free lets others change the server, whether the change was written or not.
func (p *Plan) Free() { p.s.release(p.id) }

func (s *Service) changeDisks(ctx context.Context, request string, id uuid.UUID, change func(catalog.Txn, *serverRecord) error) error {
	return s.update(ctx, request, func(t catalog.Txn) error {
		r, err := servers.get(t, id)
		if err != nil {
			return err
		}
		return errors.Join(change(t, &r), servers.put(t, r))
	})
}

// Left takes a disk from the server that the guest has given away, once nothing else is done to the server.
func (r *Run) Left(ctx context.Context, request string, disk uuid.UUID) (Server, error) {
	s, v := r.s, r.server
	if err := s.claimSoon(ctx, "server "+v.Name, v.ID, toChange); err != nil {
		return Server{}, err
	}
	defer s.release(v.ID)
	err := s.changeDisks(ctx, request, v.ID, func(t catalog.Txn, rec *serverRecord) error {
		if rec.role(disk) == SystemRole {
			return refusal.New(refusal.Busy, "stop the server", "a server that runs keeps its system disk")
		}
		return take(t, rec, disk)
	})
	return s.answer(ctx, v.Project, v.ID.String(), servers.explain(v.Name, err))
}
