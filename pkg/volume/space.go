package volume

import (
	"context"

	"github.com/google/uuid"

	"nbdcrypt/pkg/catalog"
	"nbdcrypt/pkg/pool"
)

// Space is what a disk takes in the pool, in bytes: what is written in its layers, the part of that which others stand on too, so that
// it would stay without the disk, and what is allocated for zeros.
type Space struct{ Written, Shared, Reserved int64 }

// Space counts what a disk takes, by the maps of its layers. While the disk is worked on it is not known: nil.
func (s *Service) Space(ctx context.Context, project, ref string) (*Space, error) {
	d, err := s.lookUp(ctx, project, ref)
	if err != nil {
		return nil, err
	}
	st, done, ok := s.look(d.ID)
	if !ok {
		return nil, nil
	}
	defer done()
	space, err := s.usage(ctx, d, st)
	if err != nil {
		return nil, explain(d.Name, err)
	}
	return &space, nil
}

// usage counts what the layers of a disk hold, of which st, which may be nil, has some open.
func (s *Service) usage(ctx context.Context, d diskRecord, st *Stack) (total Space, err error) {
	s.tree.RLock()
	defer s.tree.RUnlock()
	layers, shared, err := s.sharedFrom(ctx, d)
	if err != nil || len(layers) == 0 {
		return total, err
	}
	open, done, err := s.openMaps(ctx, st, layers)
	if err != nil {
		return total, err
	}
	defer done()
	for i, l := range open {
		u, err := l.Usage(ctx)
		if err != nil {
			return total, err
		}
		total.Written += u.Data
		total.Reserved += u.Reserved
		if i >= shared {
			total.Shared += u.Data
		}
	}
	return total, nil
}

// sharedFrom are a disk's layers, and from which one on somebody else stands on them too.
func (s *Service) sharedFrom(ctx context.Context, d diskRecord) (layers []layerRecord, shared int, err error) {
	err = s.Catalog.View(ctx, func(r catalog.Reader) error {
		if layers, err = s.layersFrom(r, d.Top); err != nil {
			return err
		}
		for shared = 1; shared < len(layers); shared++ {
			if _, only, err := onlyChild(r, layers[shared].ID); err != nil || !only {
				return err
			}
		}
		return nil
	})
	return layers, shared, err
}

// Filling tells whether so little is left of a pool that somebody should make room: less than a tenth, or than 64 GiB of a large one.
func Filling(space pool.Space) bool {
	return space.Total > 0 && space.Free < min(space.Total/10, 64<<30)
}

// Remnants are frozen layers that nobody needs for themselves, one of each chain of them: what a merge gives back. What is made or ended
// meanwhile may be missing.
func (s *Service) Remnants(ctx context.Context) (list []uuid.UUID, err error) {
	err = s.Catalog.View(ctx, func(r catalog.Reader) error {
		var last uuid.UUID
		return catalog.EachName(r, refPrefix, func(key string) error {
			id, err := uuid.Parse(key[len(refPrefix):min(len(key), len(refPrefix)+36)])
			if err != nil || id == last {
				return nil // `check` tells of what is no reference
			}
			last = id
			child, only, err := onlyChild(r, id)
			if err != nil || !only {
				return err
			}
			if _, more, err := onlyChild(r, child); err != nil || more {
				return err // the one above it is of the same chain
			}
			list = append(list, id)
			return nil
		})
	})
	return list, err
}

const refPrefix = "ref/"
