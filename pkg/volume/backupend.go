package volume

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/google/uuid"

	"nbdcrypt/pkg/catalog"
	"nbdcrypt/pkg/refusal"
)

// releaseAnchors lets go of the layers that backups of a disk were made of, those of keep aside. The backups stay. It needs no key and no room:
// merging what is left needs both, and is another's work.
func (s *Service) releaseAnchors(ctx context.Context, disk uuid.UUID, keep ...uuid.UUID) error {
	var list []pointRecord
	err := s.eachBackup(ctx, func(p pointRecord) {
		if p.Disk == disk && p.Layer != uuid.Nil && p.Status == Available && !slices.Contains(keep, p.ID) {
			list = append(list, p)
		}
	})
	for _, p := range list {
		if err == nil {
			err = s.releaseAnchor(ctx, p, nil)
		}
	}
	return err
}

// releaseUnread lets go of the layers that no disk, snapshot or image stands on any more, as after a rollback or a re-key: nobody has their keys, and
// the next backup of the disk does not go on from there.
func (s *Service) releaseUnread(ctx context.Context) error {
	list, err := s.unread(ctx)
	for _, p := range list {
		if err == nil {
			err = s.releaseAnchor(ctx, p, isUnread)
		}
	}
	return err
}

// unread are the backups whose layers nobody reads.
func (s *Service) unread(ctx context.Context) (list []pointRecord, err error) {
	err = s.eachBackup(ctx, func(p pointRecord) {
		if p.Layer != uuid.Nil && p.Status == Available {
			list = append(list, p)
		}
	})
	if err != nil {
		return nil, err
	}
	var found []pointRecord
	err = s.Catalog.View(ctx, func(r catalog.Reader) error {
		for _, p := range list {
			if yes, err := isUnread(r, p); err != nil {
				return err
			} else if yes {
				found = append(found, p)
			}
		}
		return nil
	})
	return found, err
}

func isUnread(r catalog.Reader, p pointRecord) (bool, error) {
	l, err := get(r, layerKey(p.Layer), parseLayer)
	if err != nil || l.Merged != uuid.Nil { // who stands on one that is merged is on the way to another
		return false, err
	}
	h, err := standing(r, p.Layer)
	return len(h.disks) == 0 && !slices.ContainsFunc(h.points, func(p pointRecord) bool { return p.Kind != BackupKind || p.Status != Available }), err
}

// releaseAnchor does so where when, if there is one, says yes.
func (s *Service) releaseAnchor(ctx context.Context, p pointRecord, when func(catalog.Reader, pointRecord) (bool, error)) error {
	var layer uuid.UUID
	err := s.update(ctx, "release-"+uuid.NewString(), func(t catalog.Txn) error {
		now, err := get(t, p.key(), parsePoint)
		if layer = now.Layer; err != nil || layer == uuid.Nil {
			return ifThere(err)
		}
		if when != nil {
			if yes, err := when(t, now); err != nil || !yes {
				layer = uuid.Nil
				return err
			}
		}
		now.Layer = uuid.Nil
		return errors.Join(dropRef(t, layer, p.Kind, p.ID), put(t, p.key(), now))
	})
	if err != nil || layer == uuid.Nil {
		return err
	}
	return s.finish(ctx, layer)
}

// dropBackup ends a backup, whole or half made. Its key goes first, its file before its record: what is cut off a start does again.
func (s *Service) dropBackup(ctx context.Context, p pointRecord) error {
	err := s.update(ctx, "delete-"+uuid.NewString(), func(t catalog.Txn) error {
		now, err := get(t, p.key(), parsePoint)
		if err != nil {
			return ifThere(err)
		}
		now.Status = Deleting
		return put(t, p.key(), now)
	})
	if err == nil {
		err = s.dropDEKs(ctx, p.holder())
	}
	if err == nil {
		err = s.dropBackupFiles(p.ID)
	}
	var layer uuid.UUID
	if err == nil {
		err = s.update(ctx, "drop-"+uuid.NewString(), func(t catalog.Txn) (err error) {
			layer, err = forgetPoint(t, p)
			return err
		})
	}
	if err != nil || layer == uuid.Nil {
		return err
	}
	return s.finish(ctx, layer)
}

// endBackups ends the backups that a crash left half made or half deleted.
func (s *Service) endBackups(ctx context.Context) error {
	var list []pointRecord
	err := s.eachBackup(ctx, func(p pointRecord) {
		if p.Status != Available {
			list = append(list, p)
		}
	})
	for _, p := range list {
		s.Log.Warn("finishing what was cut off", "backup", p.Name, "status", p.Status)
		if err := s.dropBackup(ctx, p); isDamage(err) {
			s.cannot("backup "+p.Name, err)
		} else if err != nil {
			return fmt.Errorf("volume: clean up backup %s: %w", p.Name, err)
		}
	}
	return errors.Join(err, s.dropParts(ctx))
}

// DeleteBackup ends a backup that no other stands on.
func (s *Service) DeleteBackup(ctx context.Context, project, ref string) error {
	p, err := s.lookUpBackup(ctx, project, ref)
	if err != nil {
		return err
	}
	free, err := s.takePoint(p)
	if err != nil {
		return err
	}
	defer free()
	on, err := s.standingOn(ctx, p)
	if err != nil {
		return err
	}
	if len(on) > 0 {
		return refusal.New(refusal.Busy, "delete those first, the newest first; `nbdcrypt backup prune` keeps what is still needed by itself",
			"backup %s can't be deleted, since these stand on it: %s", p.Name, strings.Join(on, ", "))
	}
	return explainBackup(p.Name, s.dropBackup(context.WithoutCancel(ctx), p))
}

// standingOn names the backups that can't be restored without p, the oldest first.
func (s *Service) standingOn(ctx context.Context, p pointRecord) (names []string, err error) {
	list, err := s.backupsOf(ctx, p.Project, "")
	needs := map[uuid.UUID]bool{p.ID: true}
	for found := true; found; {
		found = false
		for _, o := range list {
			if needs[o.Backup.Parent] && !needs[o.ID] {
				needs[o.ID], found = true, true
				names = append(names, o.Name)
			}
		}
	}
	return names, err
}

// ToPrune are the backups of a disk that go when the newest keep stay, with all that those stand on; the newest of them first, so that each goes before
// what it stands on.
func (s *Service) ToPrune(ctx context.Context, project, disk string, keep int) (list []Backup, err error) {
	all, err := s.backupsOf(ctx, project, disk)
	if err != nil {
		return nil, err
	}
	all = slices.DeleteFunc(all, func(p pointRecord) bool { return p.Status != Available })
	parents, stays := map[uuid.UUID]uuid.UUID{}, map[uuid.UUID]bool{}
	for _, p := range all {
		parents[p.ID] = p.Backup.Parent
	}
	for _, p := range all[max(0, len(all)-keep):] {
		for id := p.ID; id != uuid.Nil && !stays[id]; id = parents[id] {
			stays[id] = true
		}
	}
	for _, p := range slices.Backward(all) {
		if !stays[p.ID] {
			list = append(list, s.describeBackup(ctx, p))
		}
	}
	return list, nil
}
