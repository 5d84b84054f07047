package volume

import (
	"context"
	"errors"
	"fmt"

	"github.com/google/uuid"

	"nbdcrypt/keystore"
	"nbdcrypt/pkg/catalog"
	"nbdcrypt/pkg/refusal"
	"nbdcrypt/pkg/volume/layer"
)

// Delete ends a disk, and its snapshots with it (rule B11). It needs no key, and its DEKs are gone before its bytes are. What others stand
// on stays.
func (s *Service) Delete(ctx context.Context, request, project, ref string) error {
	return s.delete(ctx, request, project, ref, s.Held)
}

// DeleteHeld is Delete for whoever holds the disk: Held is not asked.
func (s *Service) DeleteHeld(ctx context.Context, request, project, ref string) error {
	return s.delete(ctx, request, project, ref, nil)
}

func (s *Service) delete(ctx context.Context, request, project, ref string, held held) error {
	d, err := s.claimNow(ctx, project, ref, toDelete)
	if err != nil {
		return err
	}
	defer s.release(d)
	if _, err := s.stack(ctx, d); err != nil {
		return explain(d.Name, err)
	}
	free, err := s.takePoints(ctx, d)
	if err != nil {
		return explain(d.Name, err)
	}
	defer free()
	d.Status = Deleting
	err = s.markDeleting(ctx, request, d, held)
	if isFull(err) {
		err = s.deleteWhereFull(ctx, request, d, held)
	}
	if err != nil {
		return explain(d.Name, err)
	}
	return explain(d.Name, s.remove(context.WithoutCancel(ctx), d))
}

// deleteWhereFull is markDeleting on a full file system, where deleting is how people make room, so that it must not need any: the bytes go first, of
// the layer that nobody else stands on. A crash here leaves a disk without its data, which can be deleted again.
func (s *Service) deleteWhereFull(ctx context.Context, request string, d diskRecord, held held) error {
	// The commit may have found no room before it came to ask.
	err := s.Catalog.View(ctx, func(r catalog.Reader) error { return held.ask(r, HolderKind, d.ID) })
	if err == nil {
		err = layer.Delete(ctx, s.Pool, d.Top)
	}
	if err != nil {
		return err
	}
	if err := s.markDeleting(ctx, request, d, nil); err != nil {
		return refusal.New(refusal.CodeOf(err), "make room, then delete it again", "the data of disk %s is gone, and the disk is there still: %w", d.Name, err)
	}
	return nil
}

// markDeleting takes the disk's name and keys away, durably: that of its own layer, without which the rest is of no use, and as many as one
// commit takes. From here on a start finishes the deletion.
func (s *Service) markDeleting(ctx context.Context, request string, d diskRecord, held held) error {
	return s.update(ctx, request, func(t catalog.Txn) error {
		if err := held.ask(t, HolderKind, d.ID); err != nil {
			return err
		}
		layers, err := keystore.HeldLayers(t, holder(d))
		if err != nil {
			return err
		}
		first := append([]string{d.Top.String()}, layers[:min(dropsAtOnce, len(layers))]...)
		return errors.Join(keystore.DropDEKs(t, holder(d), first...), put(t, diskKey(d.ID), d), s.dropName(t, d))
	})
}

// remove ends a disk whose record says that it is being made or deleted. Of the layers only its top is its own: the others go where
// nobody refers to them.
func (s *Service) remove(ctx context.Context, d diskRecord) error {
	if err := s.dropDEKs(ctx, holder(d)); err != nil {
		return err
	}
	if err := errors.Join(s.removePointsOf(ctx, d), s.releaseAnchors(ctx, d.ID)); err != nil {
		return err
	}
	if err := layer.Delete(ctx, s.Pool, d.Top); err != nil {
		return err
	}
	var below uuid.UUID
	err := s.update(ctx, "remove-"+uuid.NewString(), func(t catalog.Txn) (err error) {
		if below, err = dropLayer(t, d.Top); err != nil {
			return err
		}
		return errors.Join(s.dropName(t, d), t.Delete(refKey(d.Top, HolderKind, d.ID)), t.Delete(attachmentKey(d.ID)), t.Delete(diskKey(d.ID)))
	})
	if err != nil {
		return err
	}
	return s.finish(ctx, below)
}

// dropName frees the disk's name, unless another disk has it by now.
func (s *Service) dropName(t catalog.Txn, d diskRecord) error {
	return dropNameOf(t, nameKey(d.Project, d.Name), d.ID)
}

func dropNameOf(t catalog.Txn, key string, of uuid.UUID) error {
	id, err := t.Get(key)
	if errors.Is(err, catalog.ErrNotFound) || err == nil && string(id) != of.String() {
		return nil
	}
	if err != nil {
		return err
	}
	return t.Delete(key)
}

// pointsWith are the points of a disk that go with it.
func (s *Service) pointsWith(ctx context.Context, d diskRecord) (list []pointRecord, err error) {
	err = s.Catalog.View(ctx, func(r catalog.Reader) error {
		return eachID(r, pointsOf(d.ID, SnapshotKind), func(id uuid.UUID) error {
			p, err := get(r, pointKey(SnapshotKind, id), parsePoint)
			if errors.Is(err, catalog.ErrNotFound) {
				return nil
			}
			list = append(list, p)
			return err
		})
	})
	if err != nil {
		return nil, fmt.Errorf("the snapshots of disk %s: %w", d.Name, err)
	}
	return list, nil
}
