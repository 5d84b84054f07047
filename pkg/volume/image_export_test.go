package volume

import (
	"context"
	"errors"

	"nbdcrypt/pkg/catalog"
)

// ReadImage is all that an image holds.
func (s *Service) ReadImage(ctx context.Context, name string) ([]byte, error) {
	var p pointRecord
	err := s.Catalog.View(ctx, func(r catalog.Reader) (err error) {
		p, err = findPoint(r, ImageKind, "default", name)
		return err
	})
	if err != nil {
		return nil, err
	}
	st, err := s.openPoint(ctx, p)
	if err != nil {
		return nil, err
	}
	b := make([]byte, p.Size)
	_, err = st.Device.ReadAt(b, 0)
	return b, errors.Join(err, st.close(nil))
}
