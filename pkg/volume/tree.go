package volume

import (
	"context"
	"errors"
	"fmt"

	"github.com/google/uuid"

	"nbdcrypt/pkg/catalog"
	"nbdcrypt/pkg/volume/layer"
)

// maxDepth is how many layers a stack may have before it can't be frozen once more.
const maxDepth = 32

// layersFrom reads a layer and all that stand below it. In the place of a layer that was merged into another stands that one.
func (s *Service) layersFrom(r catalog.Reader, id uuid.UUID) (layers []layerRecord, err error) {
	seen := map[uuid.UUID]bool{}
	for id != uuid.Nil {
		l, err := get(r, layerKey(id), parseLayer)
		if errors.Is(err, catalog.ErrNotFound) {
			err = fmt.Errorf("%w: record %q is missing: %w", catalog.ErrDamaged, layerKey(id), err)
		}
		if err == nil && seen[id] {
			err = fmt.Errorf("%w: record %q stands on itself", catalog.ErrDamaged, layerKey(id))
		}
		if err != nil {
			return nil, fmt.Errorf("layer %s: %w", id, err)
		}
		seen[id] = true
		if l.Merged != uuid.Nil {
			id = l.Merged
			continue
		}
		layers = append(layers, l)
		id = l.Parent
	}
	return layers, nil
}

// layersOf reads the layers of a point as it is now: a merge may have moved it since its record was read.
func (s *Service) layersOf(r catalog.Reader, p pointRecord) ([]layerRecord, error) {
	now, err := get(r, p.key(), parsePoint)
	if err != nil {
		return nil, err
	}
	return s.layersFrom(r, now.Layer)
}

// settle makes a frozen layer durable that a crash kept from being sealed, and notes it: it is opened for writing this once.
func (s *Service) settle(ctx context.Context, l layerRecord) error {
	s.settling.Lock()
	defer s.settling.Unlock()
	if err := s.settleFiles(ctx, l); err != nil {
		return err
	}
	return s.update(ctx, "settle-"+uuid.NewString(), func(t catalog.Txn) error { return markSealed(t, l.ID) })
}

// settleFiles makes durable what a layer holds, whoever wrote it.
func (s *Service) settleFiles(ctx context.Context, l layerRecord) error {
	open, err := layer.Open(ctx, s.Pool, l.header(), l.Size, layer.Options{Unclean: true})
	if err != nil {
		return err
	}
	return errors.Join(open.Flush(), open.Close())
}

// settleAll settles a stack that nobody has open, the top of which is not frozen yet: whoever freezes it notes that.
func (s *Service) settleAll(ctx context.Context, layers []layerRecord) error {
	for _, l := range layers[1:] {
		if !l.Sealed {
			if err := s.settle(ctx, l); err != nil {
				return err
			}
		}
	}
	return s.settleFiles(ctx, layers[0])
}

// markSealed notes that a frozen layer is durable.
func markSealed(t catalog.Txn, id uuid.UUID) error {
	l, err := get(t, layerKey(id), parseLayer)
	if err != nil || l.Sealed {
		return err
	}
	l.Sealed = true
	return put(t, layerKey(id), l)
}
