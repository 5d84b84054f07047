package volume

import (
	"context"
	"errors"

	"nbdcrypt/pkg/catalog"
)

// Abandon ends an attachment as a crash does: keys and files are gone, and the catalog does not know.
func (a *Attachment) Abandon() { _ = a.end(nil) }

// ReadPoint reads all of a point through the point's own keys.
func (s *Service) ReadPoint(ctx context.Context, kind, project, ref string) ([]byte, error) {
	p, free, err := s.lookUpPoint(ctx, kind, project, ref)
	if err != nil {
		return nil, err
	}
	defer free()
	var layers []layerRecord
	err = s.Catalog.View(ctx, func(r catalog.Reader) (err error) {
		layers, err = s.layersFrom(r, p.Layer)
		return err
	})
	if err != nil {
		return nil, err
	}
	st, err := s.openStack(ctx, p.holder(), p.Project, p.label(), layers, p.Size, stackOptions{Frozen: true})
	if err != nil {
		return nil, err
	}
	got := make([]byte, p.Size)
	_, err = st.Device.ReadAt(got, 0)
	return got, errors.Join(err, st.close(nil))
}
