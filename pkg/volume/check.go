package volume

import (
	"context"
	"errors"
	"fmt"
	"path"

	"github.com/google/uuid"

	"nbdcrypt/pkg/catalog"
	"nbdcrypt/pkg/pool"
	"nbdcrypt/pkg/refusal"
	"nbdcrypt/pkg/volume/layer"
)

// Problem is one thing that Check found. Severity is "damage" or "note".
type Problem struct{ Severity, What, Where, Problem, Next string }

const (
	damage = "damage"
	note   = "note"
)

// Check looks at one disk, or at all disks where ref is empty, whether attached or not. It needs no key. It returns how
// many disks it looked at, and how many blocks of data it read.
func (s *Service) Check(ctx context.Context, project, ref string, found func(Problem), progress func(done, total int64)) (disks int, blocks int64, err error) {
	records, err := s.toCheck(ctx, project, ref)
	if err != nil {
		return 0, 0, err
	}
	var done, total int64
	for _, d := range records {
		total += d.Size
	}
	for _, d := range records {
		n, err := s.checkClaimed(ctx, d, ref != "", found, func(n int64) { progress(done+min(n, d.Size), total) })
		if err != nil {
			return 0, 0, err
		}
		blocks += n
		done += d.Size
	}
	if ref == "" {
		err = s.checkStrays(ctx, found)
	}
	return len(records), blocks, err
}

func (s *Service) toCheck(ctx context.Context, project, ref string) (records []diskRecord, err error) {
	if ref != "" {
		d, err := s.lookUp(ctx, project, ref)
		return []diskRecord{d}, err
	}
	err = s.eachDisk(ctx, func(d diskRecord) error { records = append(records, d); return nil })
	return records, explainList(err)
}

// checkClaimed checks a disk that is neither attached, extended nor deleted meanwhile. One that something else works on
// is refused where it was asked for by name, and else passed over, which is said.
func (s *Service) checkClaimed(ctx context.Context, d diskRecord, named bool, found func(Problem), progress func(int64)) (blocks int64, err error) {
	if err := s.claim(d, Checking); err != nil {
		if named {
			return 0, err
		}
		found(Problem{note, "disk " + d.Project + "/" + d.Name, "disk", "not checked: " + err.Error(), "check it when that is done"})
		return 0, nil
	}
	defer s.release(d)
	// What was read before the claim may be old by now.
	now, err := s.lookUp(ctx, d.Project, d.ID.String())
	var r *refusal.Error
	if errors.As(err, &r) && r.Code == refusal.NotFound && !named {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	return s.checkDisk(ctx, now, found, progress)
}

// checkDisk tells what it finds; an error is only for what ends the whole check.
func (s *Service) checkDisk(ctx context.Context, d diskRecord, found func(Problem), progress func(int64)) (blocks int64, err error) {
	what := fmt.Sprintf("disk %s/%s", d.Project, d.Name)
	layers, err := s.stack(ctx, d)
	if err != nil {
		found(Problem{damage, what, "catalog", err.Error(), "restore the state directory from a backup"})
		return 0, nil
	}
	if left, err := s.leftBehind(ctx, d); err == nil && left != nil && s.attachment(d.ID) == nil {
		found(Problem{note, what, "catalog", left.warning(), "attach it and run a file system check"})
	}
	for i, l := range layers {
		size := l.Size
		if i == 0 {
			size = d.Size
		}
		n, err := s.checkLayer(ctx, d, i, l, size, what, found, progress)
		if err != nil {
			return 0, err
		}
		blocks += n
	}
	progress(d.Size)
	return blocks, nil
}

func (s *Service) checkLayer(ctx context.Context, d diskRecord, i int, l layerRecord, size int64, what string, found func(Problem), progress func(int64)) (blocks int64, err error) {
	open, done, err := s.borrow(ctx, d, i, l, size)
	if errors.Is(err, pool.ErrInUse) {
		found(Problem{note, what, "layer " + l.ID.String(), "not checked: " + err.Error(), "stop the other daemon that uses this pool"})
		return 0, nil
	}
	if err != nil {
		found(Problem{damage, what, "layer " + l.ID.String(), err.Error(), "restore the layer's files from a backup"})
		return 0, nil
	}
	defer done()
	blocks, err = open.Check(ctx, size, func(f layer.Finding) {
		p := Problem{note, what, fmt.Sprintf("layer %s, %s", l.ID, f.Where), f.What, "nothing is lost; the next write there mends it"}
		if f.Lost {
			p.Severity, p.Next = damage, "restore these bytes from a backup; writing them anew makes them readable again"
		}
		found(p)
	}, progress)
	if err != nil && ctx.Err() == nil {
		found(Problem{damage, what, "layer " + l.ID.String(), err.Error(), "restore the layer's files from a backup"})
		return 0, nil
	}
	return blocks, err
}

// borrow gives the layer as this run has it open, or opens it for reading.
func (s *Service) borrow(ctx context.Context, d diskRecord, i int, l layerRecord, size int64) (*layer.Layer, func(), error) {
	if a := s.attachment(d.ID); a != nil {
		return a.layers[i], func() {}, nil
	}
	open, err := layer.Open(ctx, s.Pool, l.header(), size, layer.Options{ReadOnly: true})
	if err != nil {
		return nil, nil, err
	}
	return open, func() { _ = open.Close() }, nil
}

// checkStrays reports layers in the pool that the catalog does not know. They are never removed: a catalog that was set
// back would cost disks.
func (s *Service) checkStrays(ctx context.Context, found func(Problem)) error {
	names, err := s.Pool.List(ctx)
	if err != nil {
		return err
	}
	return s.Catalog.View(ctx, func(r catalog.Reader) error {
		for _, name := range names {
			known, err := knowsLayer(r, path.Dir(name))
			if err != nil {
				return err
			}
			if !known {
				found(Problem{note, "pool", name, "no disk uses this volume",
					"if the catalog was not set back, it can be deleted by hand"})
			}
		}
		return nil
	})
}

// knowsLayer tells whether the catalog has a layer of that name. A record that can't be read is an error: nobody should
// think that the layer's files can go.
func knowsLayer(r catalog.Reader, name string) (bool, error) {
	id, err := uuid.Parse(name)
	if err != nil {
		return false, nil
	}
	_, err = r.Get(layerKey(id))
	if errors.Is(err, catalog.ErrNotFound) {
		return false, nil
	}
	return err == nil, err
}
