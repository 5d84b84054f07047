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

// remove ends a disk whose record says that it is being made or deleted.
func (s *Service) remove(ctx context.Context, d diskRecord) error {
	layers, err := s.stack(ctx, d)
	if err != nil {
		return err
	}
	if err := s.dropData(ctx, layers); err != nil {
		return err
	}
	return s.update(ctx, "remove-"+uuid.NewString(), func(t catalog.Txn) error {
		if err := s.dropName(t, d); err != nil {
			return err
		}
		for _, l := range layers {
			if err := errors.Join(t.Delete(layerKey(l.ID)), keystore.DropDEKs(t, holder(d), l.ID.String())); err != nil {
				return err
			}
		}
		return errors.Join(t.Delete(attachmentKey(d.ID)), t.Delete(diskKey(d.ID)))
	})
}

// dropName frees the disk's name, unless another disk has it by now.
func (s *Service) dropName(t catalog.Txn, d diskRecord) error {
	id, err := t.Get(nameKey(d.Project, d.Name))
	if errors.Is(err, catalog.ErrNotFound) || err == nil && string(id) != d.ID.String() {
		return nil
	}
	if err != nil {
		return err
	}
	return t.Delete(nameKey(d.Project, d.Name))
}

// Delete ends a disk. It needs no key, and its DEKs are gone before its bytes are.
func (s *Service) Delete(ctx context.Context, request, project, ref string) error {
	d, err := s.lookUp(ctx, project, ref)
	if err != nil {
		return err
	}
	if err := s.claim(d, Deleting); err != nil {
		return err
	}
	defer s.release(d)
	if s.attachment(d.ID) != nil {
		return refusal.New(refusal.Busy, "run `nbdcrypt detach "+d.Name+"` first", "disk %s is attached", d.Name)
	}
	layers, err := s.stack(ctx, d)
	if err != nil {
		return explain(d.Name, err)
	}
	d.Status = Deleting
	err = s.markDeleting(ctx, request, d, layers)
	if isFull(err) {
		// On a full file system deleting is how people make room, so it must not need any: the bytes go first. A crash
		// here leaves a disk without its data, which can be deleted again.
		if err := s.dropData(ctx, layers); err != nil {
			return explain(d.Name, err)
		}
		err = s.markDeleting(ctx, request, d, layers)
	}
	if err != nil {
		return explain(d.Name, err)
	}
	return explain(d.Name, s.remove(context.WithoutCancel(ctx), d))
}

// markDeleting takes the disk's keys and name away, durably. From here on a start finishes the deletion.
func (s *Service) markDeleting(ctx context.Context, request string, d diskRecord, layers []layerRecord) error {
	return s.update(ctx, request, func(t catalog.Txn) error {
		for _, l := range layers {
			if err := keystore.DropDEKs(t, holder(d), l.ID.String()); err != nil {
				return err
			}
		}
		return errors.Join(put(t, diskKey(d.ID), d), s.dropName(t, d))
	})
}

func (s *Service) dropData(ctx context.Context, layers []layerRecord) error {
	for _, l := range layers {
		if err := layer.Delete(ctx, s.Pool, l.ID); err != nil {
			return err
		}
	}
	return nil
}
