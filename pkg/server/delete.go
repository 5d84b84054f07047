package server

import (
	"context"
	"errors"

	"github.com/google/uuid"

	"nbdcrypt/pkg/catalog"
	"nbdcrypt/pkg/refusal"
	"nbdcrypt/pkg/volume"
)

// Delete ends a server that is stopped, and its disks with their snapshots unless keepDisks.
func (s *Service) Delete(ctx context.Context, request, project, ref string, keepDisks bool) error {
	r, err := s.claimServer(ctx, project, ref, toDelete)
	if err != nil {
		return err
	}
	defer s.release(r.ID)
	if err := s.notMember(ctx, r, "deleted"); err != nil {
		return err
	}
	if !keepDisks {
		return s.end(ctx, request, r)
	}
	err = s.update(ctx, request, func(t catalog.Txn) error { return forget(t, r) })
	if err == nil {
		s.forgetEnded(r.ID)
	}
	return servers.explain(r.Name, err)
}

// notMember refuses what only its group does to a member, which a group that is not there can't.
func (s *Service) notMember(ctx context.Context, r serverRecord, verb string) error {
	if r.Group == uuid.Nil {
		return nil
	}
	g, err := groups.lookUp(ctx, s.c.Catalog, r.Project, r.Group.String())
	if refusal.CodeOf(err) == refusal.NotFound {
		return nil
	}
	if err != nil {
		return err
	}
	return refusal.New(refusal.Busy, "`nbdcrypt scaling group scale "+g.Name+" N` takes the newest members away", "server %s is a member of scaling group %s, and can't be %s alone", r.Name, g.Name, verb)
}

// end deletes a server with its disks.
func (s *Service) end(ctx context.Context, request string, r serverRecord) error {
	if err := s.disksMayGo(ctx, r); err != nil {
		return err
	}
	err := s.update(ctx, request, func(t catalog.Txn) error {
		now, err := servers.get(t, r.ID)
		if err != nil {
			return err
		}
		now.Status = Deleting
		return servers.put(t, now)
	})
	// On a full file system deleting is how people make room, so it must not need any: then the disks go first. A crash leaves a server that lacks some, which can
	// be deleted again.
	if err != nil && !isFull(err) {
		return servers.explain(r.Name, err)
	}
	if err := s.remove(context.WithoutCancel(ctx), r); err != nil {
		why := refusal.From(servers.explain(r.Name, err))
		return refusal.New(why.Code, "see to that, then delete it again", "server %s is deleted in part: %w", r.Name, why)
	}
	return nil
}

// disksMayGo refuses while a disk is used, before any of them is gone.
func (s *Service) disksMayGo(ctx context.Context, r serverRecord) error {
	for _, d := range r.going() {
		disk, err := s.c.Volumes.Get(ctx, r.Project, d.ID.String())
		if refusal.CodeOf(err) == refusal.NotFound {
			continue
		}
		if err != nil {
			return err
		}
		if disk.Attachment != nil {
			return refusal.New(refusal.Busy, "run `nbdcrypt detach "+disk.Name+"` first, or keep the disks with --keep-disks", "server %s can't be deleted: its disk %s is attached", r.Name, disk.Name)
		}
		if !sound[disk.Status] {
			return refusal.New(refusal.Busy, wait, "server %s can't be deleted: its disk %s is %s", r.Name, disk.Name, disk.Status)
		}
	}
	return nil
}

// sound are the statuses in which a disk can be deleted.
var sound = map[volume.Status]bool{volume.Available: true, volume.Error: true, volume.ErrorDeleting: true, volume.ErrorExtending: true, volume.ErrorRestoring: true, volume.ErrorRollbacking: true}

// going are the disks that go with the server: all that it was made with, and those that it was given unless it was made by a group.
func (r serverRecord) going() (list []serverDisk) {
	for _, d := range r.Disks {
		if !d.Given {
			list = append(list, d)
		}
	}
	return list
}

// remove deletes the disks that there are of a server, and then the server. It may be asked again where it was cut off.
func (s *Service) remove(ctx context.Context, r serverRecord) error {
	for _, d := range r.going() {
		err := s.c.Volumes.DeleteHeld(ctx, "delete-"+uuid.NewString(), r.Project, d.ID.String())
		if err != nil && refusal.CodeOf(err) != refusal.NotFound {
			return err
		}
	}
	err := s.update(ctx, "remove-"+uuid.NewString(), func(t catalog.Txn) error { return forget(t, r) })
	if err == nil {
		s.forgetEnded(r.ID)
	}
	return err
}

func (s *Service) forgetEnded(id uuid.UUID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.ended, id)
}

// forget takes a server's record away with all that names it.
func forget(t catalog.Txn, r serverRecord) error {
	err := servers.drop(t, r.head)
	for _, d := range r.Disks {
		err = errors.Join(err, dropIf(t, diskKey(d.ID), r.ID))
	}
	if r.Group != uuid.Nil {
		err = errors.Join(err, dropIf(t, memberKey(r.Group, r.Number), r.ID))
	}
	return err
}

// dropIf deletes an index that names this one, and leaves one that names another.
func dropIf(t catalog.Txn, key string, id uuid.UUID) error {
	b, err := t.Get(key)
	if err != nil || string(b) != id.String() {
		return ifThere(err)
	}
	return t.Delete(key)
}
