package volume

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"

	"github.com/google/uuid"

	"nbdcrypt/pkg/catalog"
)

// pointsToCheck are the points of a project, or of all. What can't be read is told where all is looked at: whose it is nobody knows.
func (s *Service) pointsToCheck(ctx context.Context, project string, found func(Problem)) (list []pointRecord, err error) {
	err = s.Catalog.View(ctx, func(r catalog.Reader) error {
		for _, kind := range PointKinds {
			err := catalog.Walk(r, kind+"/", func(pair catalog.Pair, err error) error {
				var p pointRecord
				if err == nil {
					p, err = parsePoint(pair.Key, pair.Value)
				}
				if err != nil && project == "" {
					found(Problem{damage, strings.Replace(pair.Key, "/", " ", 1), "catalog", err.Error(), "restore the state directory from a backup; until then it can't be used", true})
				} else if err == nil && (project == "" || p.Project == project) {
					list = append(list, p)
				}
				return nil
			})
			if err != nil {
				return err
			}
		}
		return nil
	})
	return list, explainList(err)
}

// point checks a point, which can't be deleted meanwhile. One that is being made, or deleted, is passed over.
func (k *checking) point(ctx context.Context, p pointRecord) (opens bool, err error) {
	defer k.ends(p.Size, k.done)
	free, err := k.s.usePoint(p)
	if err != nil {
		return true, nil
	}
	defer free()
	var layers []layerRecord
	err = k.s.Catalog.View(ctx, func(r catalog.Reader) error {
		if p, err = get(r, p.key(), parsePoint); err != nil || p.Status != Available {
			return err
		}
		layers, err = k.s.layersFrom(r, p.Layer)
		return err
	})
	what := fmt.Sprintf("%s %s/%s", p.Kind, p.Project, p.Name)
	switch {
	case errors.Is(err, catalog.ErrNotFound) && !isDamage(err):
		return true, nil
	case isDamage(err):
		k.tell(Problem{damage, what, "catalog", err.Error(), "restore the state directory from a backup; until then it can't be used", true})
		return false, nil
	case err != nil || p.Status != Available:
		return true, err
	}
	if p.Kind == BackupKind {
		return k.backup(ctx, p, what)
	}
	return k.stack(ctx, subject{holder: p.holder(), what: what, size: p.Size, sealed: p.Encrypted}, layers)
}

// backup looks for a backup's file, and at the key of it: `backup verify` reads what is in it. The layer that the next one begins at is read
// with its disk.
func (k *checking) backup(ctx context.Context, p pointRecord, what string) (opens bool, err error) {
	opens = true
	bad := func(where string, err error, next string) {
		k.tell(Problem{damage, what, where, err.Error(), next, true})
		opens = false
	}
	path := k.s.backupPath(p.ID, backupSuffix)
	if info, err := os.Stat(path); err != nil {
		bad(path, err, "put the file back; or delete the backup, and import a copy of it")
	} else if p.Backup != nil && info.Size() != p.Backup.Length {
		bad(path, fmt.Errorf("it has %d bytes, and should have %d", info.Size(), p.Backup.Length), "delete the backup, and import a copy of it")
	}
	if p.Encrypted && p.Backup != nil && p.Backup.Store == k.s.Keys.ID() {
		if err := k.s.Keys.CheckDEK(ctx, p.holder(), p.fileLayer()); err != nil {
			bad("data key", err, "delete the backup, and import a copy of it")
		}
	}
	return opens, nil
}

// strayBackups tells of files that no backup has: a copy that somebody put there, perhaps.
func (s *Service) strayBackups(ctx context.Context, found func(Problem)) error {
	paths, err := filepath.Glob(filepath.Join(s.Config.Backups, "*"+backupSuffix))
	if err != nil {
		return err
	}
	return s.Catalog.View(ctx, func(r catalog.Reader) error {
		for _, path := range paths {
			id, err := uuid.Parse(strings.TrimSuffix(filepath.Base(path), backupSuffix))
			if err == nil {
				_, err = r.Get(pointKey(BackupKind, id))
			}
			if err != nil && !errors.Is(err, catalog.ErrDamaged) {
				found(Problem{note, "backup", path, "no backup has this file", "`nbdcrypt backup import` takes it; else it can be deleted by hand", false})
			}
		}
		return nil
	})
}
