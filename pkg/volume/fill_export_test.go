package volume

import (
	"context"

	"github.com/google/uuid"

	"nbdcrypt/pkg/catalog"
)

// FillOf tells why a disk is being filled; empty where it is not.
func (s *Service) FillOf(ctx context.Context, project, ref string) (why string, err error) {
	d, err := s.lookUp(ctx, project, ref)
	if err != nil || d.Fill == nil {
		return "", err
	}
	return d.Fill.Why, nil
}

// Shrink has the catalog tell that a layer is smaller than it is.
func (s *Service) Shrink(ctx context.Context, id uuid.UUID, size int64) error {
	return s.update(ctx, "shrink", func(t catalog.Txn) error {
		l, err := get(t, layerKey(id), parseLayer)
		if err != nil {
			return err
		}
		l.Size = size
		return put(t, layerKey(id), l)
	})
}
