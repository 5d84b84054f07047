package volume

import (
	"context"

	"nbdcrypt/pkg/catalog"
	"nbdcrypt/pkg/refusal"
	"nbdcrypt/pkg/volume/layer"
)

// Extend makes a disk larger, attached or not. The layer has room first, then the catalog knows, then clients see it.
func (s *Service) Extend(ctx context.Context, request, project, ref string, size int64) (Disk, error) {
	d, err := s.claimNow(ctx, project, ref, toExtend)
	if err != nil {
		return Disk{}, err
	}
	d, err = s.extend(ctx, request, d, size)
	err = explain(d.Name, err)
	s.ended(d, toExtend, err)
	s.release(d)
	return s.describe(ctx, d, err)
}

// extend works on the record as it is under the claim, and returns it as it is then.
func (s *Service) extend(ctx context.Context, request string, d diskRecord, size int64) (diskRecord, error) {
	if err := checkSize(size, d.SectorSize); err != nil {
		return d, err
	}
	if size < d.Size {
		return d, refusal.New(refusal.Usage, "make a smaller disk and copy what you need", "disk %s has %d bytes; a disk can't shrink to %d", d.Name, d.Size, size)
	}
	if err := s.resize(ctx, d, size); err != nil {
		return d, err
	}
	grown := d
	err := s.update(ctx, request, func(t catalog.Txn) error {
		now, err := get(t, diskKey(d.ID), parseDisk)
		if err != nil {
			return err
		}
		now.Size = size
		grown = now
		return put(t, diskKey(d.ID), now)
	})
	if err != nil {
		return d, err
	}
	if a := s.attachment(d.ID); a != nil {
		a.Device.Grow(size)
	}
	return grown, nil
}

// resize makes room in the top layer, which may be open or not.
func (s *Service) resize(ctx context.Context, d diskRecord, size int64) error {
	if a := s.attachment(d.ID); a != nil {
		if a.ReadOnly {
			return refusal.New(refusal.Busy, "detach it first", "disk %s is attached read-only", d.Name)
		}
		if err := a.asCatalog(d); err != nil {
			return err
		}
		return a.opened()[0].Resize(size)
	}
	layers, err := s.stack(ctx, d)
	if err != nil {
		return err
	}
	if _, err := s.takeOver(ctx, d); err != nil {
		return err
	}
	l, err := layer.Open(ctx, s.Pool, layers[0].header(), d.Size, layer.Options{})
	if err != nil {
		return err
	}
	defer l.Close()
	return l.Resize(size)
}
