package volume

import (
	"context"

	"nbdcrypt/pkg/catalog"
)

// copyStep is how much of an image is copied at a time.
const copyStep = 1 << 20

// CopyImage makes another image of all that an image holds, in one layer under a key of its own: the way to another key, or to none
// (rules C4, D5).
func (s *Service) CopyImage(ctx context.Context, request, project, ref string, spec ImageSpec, w Work) (Point, error) {
	p, free, err := s.lookUpPoint(ctx, ImageKind, project, ref)
	if err != nil {
		return Point{}, err
	}
	defer free()
	stack, err := s.openPoint(ctx, p)
	if err != nil {
		return Point{}, explainPoint(ImageKind, p.Name, err)
	}
	defer stack.close(nil)
	if err := w.released(stack); err != nil {
		return Point{}, err
	}
	spec.Size, spec.SectorSize, spec.from = p.Size, p.SectorSize, &Source{Kind: ImageKind, ID: p.ID, Name: p.Name}
	return s.FillImage(ctx, request, spec, func(to *ImageWriter) (int64, error) {
		return p.Size, copyData(ctx, stack, p.Size, to, w.progress)
	})
}

// openPoint opens what a point holds, for reading. Its layers may be merged meanwhile: what is open stays.
func (s *Service) openPoint(ctx context.Context, p pointRecord) (*Stack, error) {
	s.tree.RLock()
	defer s.tree.RUnlock()
	var layers []layerRecord
	err := s.Catalog.View(ctx, func(r catalog.Reader) (err error) {
		layers, err = s.layersOf(r, p)
		return err
	})
	if err != nil {
		return nil, err
	}
	return s.openStack(ctx, p.holder(), p.Project, p.label(), layers, p.Size, stackOptions{Frozen: true})
}

// copyData copies what is data; holes stay holes.
func copyData(ctx context.Context, from *Stack, size int64, to *ImageWriter, progress func(done, total int64)) error {
	buf := make([]byte, copyStep)
	defer clear(buf)
	for off := int64(0); off < size; progress(off, size) {
		if err := ctx.Err(); err != nil {
			return err
		}
		n, hole, zero, err := from.Device.Extent(off, size-off)
		if err != nil {
			return err
		}
		if !hole && !zero {
			n = min(n, copyStep)
			if _, err := from.Device.ReadAt(buf[:n], off); err != nil {
				return err
			}
			if _, err := to.WriteAt(buf[:n], off); err != nil {
				return err
			}
		}
		off += n
	}
	return nil
}
