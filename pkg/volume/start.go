package volume

import (
	"bytes"
	"context"
	"errors"
	"fmt"

	"github.com/google/uuid"

	"nbdcrypt/keystore"
	"nbdcrypt/pkg/catalog"
)

// finishAll ends what a crash cut off: layers, disks and points that were half made or half gone. Each is a step that can be cut off
// again. What can't be read is told by Unreadable, and stays.
func (s *Service) finishAll(ctx context.Context) error {
	for _, step := range []func(context.Context) error{s.dropMaking, s.dropDoomed, s.endDisks, s.endPoints, s.endMerges, s.endBackups, s.trimAll} {
		if err := step(ctx); isDamage(err) {
			s.cannot("what a crash cut off", err)
		} else if err != nil {
			return err
		}
	}
	return nil
}

func (s *Service) cannot(what string, err error) {
	s.unreadable = append(s.unreadable, fmt.Errorf("%s can't be cleaned up: %w", what, err))
}

// dropMaking dooms the layers that nothing was made of, with the DEK record that there may be already.
func (s *Service) dropMaking(ctx context.Context) error {
	var list []uuid.UUID
	err := s.Catalog.View(ctx, func(r catalog.Reader) error {
		return eachID(r, makingPrefix, func(id uuid.UUID) error { list = append(list, id); return nil })
	})
	if isDamage(err) {
		s.cannot("a layer that was being made", err)
		err = nil
	}
	for _, id := range list {
		if err == nil {
			err = s.unmake(ctx, id)
		}
		if isDamage(err) {
			s.cannot("layer "+id.String(), err)
			err = nil
		}
	}
	return err
}

// unmake takes back a layer that was being made.
func (s *Service) unmake(ctx context.Context, id uuid.UUID) error {
	err := s.update(ctx, "unmake-"+uuid.NewString(), func(t catalog.Txn) error {
		h, err := get(t, makingKey(id), parseMaker)
		if errors.Is(err, catalog.ErrNotFound) {
			return nil
		}
		if err != nil {
			return err
		}
		return errors.Join(keystore.DropDEKs(t, h, id.String()), t.Delete(makingKey(id)), doom(t, id))
	})
	if err != nil {
		return err
	}
	return s.finish(ctx, id)
}

// makerOf is the value of the mark of a layer that is being made.
func makerOf(h keystore.Holder) []byte { return []byte(h.Kind + " " + h.ID) }

func parseMaker(key string, b []byte) (keystore.Holder, error) {
	kind, id, ok := bytes.Cut(b, []byte(" "))
	if !ok {
		return keystore.Holder{}, fmt.Errorf("%w: record %q names no holder", catalog.ErrDamaged, key)
	}
	return keystore.Holder{Kind: string(kind), ID: string(id)}, nil
}

func (s *Service) dropDoomed(ctx context.Context) error {
	return s.finishDoomed(ctx, func(id uuid.UUID, err error) { s.cannot("layer "+id.String(), err) })
}

// endDisks ends the disks that are half made or half deleted.
func (s *Service) endDisks(ctx context.Context) error {
	unfinished, err := s.unfinished(ctx)
	for _, d := range unfinished {
		s.Log.Warn("finishing what was cut off", "disk", d.Name, "status", d.Status)
		err := s.remove(ctx, d)
		if isDamage(err) {
			s.cannot("disk "+d.Name, err)
		} else if err != nil {
			return fmt.Errorf("volume: clean up disk %s: %w", d.Name, err)
		}
	}
	return err
}

// endPoints ends the points that are half made or half deleted.
func (s *Service) endPoints(ctx context.Context) error {
	unfinished, err := s.unfinishedPoints(ctx)
	for _, p := range unfinished {
		s.Log.Warn("finishing what was cut off", p.Kind, p.Name, "status", p.Status)
		_, err := s.dropPoint(ctx, "drop-"+uuid.NewString(), p)
		if isDamage(err) {
			s.cannot(p.Kind+" "+p.Name, err)
		} else if err != nil {
			return fmt.Errorf("volume: clean up %s %s: %w", p.Kind, p.Name, err)
		}
	}
	return err
}

// unfinishedPoints passes by what is available as unfinished does. Backups end in a way of their own.
func (s *Service) unfinishedPoints(ctx context.Context) (list []pointRecord, err error) {
	finished := []byte(`"status":"` + Available + `"`)
	err = s.Catalog.View(ctx, func(r catalog.Reader) error {
		for _, kind := range []string{SnapshotKind, ImageKind} {
			err := catalog.Walk(r, kind+"/", func(pair catalog.Pair, err error) error {
				if err == nil && bytes.Contains(pair.Value, finished) {
					return nil
				}
				var p pointRecord
				if err == nil {
					p, err = parsePoint(pair.Key, pair.Value)
				}
				if err != nil {
					s.unreadable = append(s.unreadable, err)
				} else if p.Status == Creating || p.Status == Deleting {
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
	return list, err
}

func (s *Service) trimAll(ctx context.Context) error {
	list, err := s.toTrim(ctx)
	for _, h := range list {
		if err == nil {
			err = s.trimDEKs(ctx, h)
		}
		if isDamage(err) {
			s.cannot(h.Kind+" "+h.ID, err)
			err = nil
		}
	}
	return err
}
