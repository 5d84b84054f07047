package volume

import (
	"context"
	"errors"
	"path"
	"slices"

	"github.com/google/uuid"

	"nbdcrypt/pkg/catalog"
)

// Problem is one thing that Check found. Severity is "damage" or "note".
type Problem struct {
	Severity, What, Where, Problem, Next string
	// stops tells that a disk can't be attached because of it.
	stops bool
}

// Checked is what Check looked at: disks and points, of which some can be opened as far as their records and files go, and blocks of data.
type Checked struct {
	Disks, Open        int
	Points, PointsOpen int
	Blocks             int64
}

const (
	damage = "damage"
	note   = "note"
)

const restoreCatalog = "restore the state directory from a backup; until then the disk can't be used"

// Check looks at one disk, at all disks and points of a project where ref is empty, or at everything where project is empty too; whether
// attached or not. Where the root key is open it tries the keys too.
func (s *Service) Check(ctx context.Context, project, ref string, found func(Problem), progress func(done, total int64)) (c Checked, err error) {
	disks, err := s.toCheck(ctx, project, ref, found)
	if err != nil {
		return c, err
	}
	var points []pointRecord
	if ref == "" {
		if points, err = s.pointsToCheck(ctx, project, found); err != nil {
			return c, err
		}
	}
	k := &checking{s: s, tell: found, named: ref != "", progress: progress, stops: map[uuid.UUID]bool{}}
	for _, d := range disks {
		k.total += d.Size
	}
	for _, p := range points {
		k.total += p.Size
	}
	c.Disks, c.Points = len(disks), len(points)
	for _, d := range disks {
		opens, err := k.disk(ctx, d)
		if err != nil {
			return Checked{}, err
		}
		c.Open += map[bool]int{true: 1}[opens]
	}
	for _, p := range points {
		opens, err := k.point(ctx, p)
		if err != nil {
			return Checked{}, err
		}
		c.PointsOpen += map[bool]int{true: 1}[opens]
	}
	c.Blocks = k.blocks
	if ref == "" {
		err = s.checkNames(ctx, project, found)
	}
	if project == "" && err == nil {
		err = errors.Join(s.checkTree(ctx, found), s.checkStrays(ctx, found), s.strayBackups(ctx, found))
	}
	return c, err
}

func (s *Service) toCheck(ctx context.Context, project, ref string, found func(Problem)) (records []diskRecord, err error) {
	if ref != "" {
		d, err := s.lookUp(ctx, project, ref)
		return []diskRecord{d}, err
	}
	err = s.walkDisks(ctx, func(d diskRecord, err error) error {
		if err != nil {
			if project == "" { // whose it is nobody knows
				found(Problem{damage, "disk " + d.ID.String(), "catalog", err.Error(), restoreCatalog, true})
			}
			return nil
		}
		if project == "" || d.Project == project {
			records = append(records, d)
		}
		return nil
	})
	return records, explainList(err)
}

// checkStrays reports layers in the pool that the catalog does not know. They are never removed: a catalog that was set
// back would cost disks.
func (s *Service) checkStrays(ctx context.Context, found func(Problem)) error {
	names, err := s.Pool.List(ctx)
	if err != nil {
		return err
	}
	err = s.Catalog.View(ctx, func(r catalog.Reader) error {
		var failed error
		names = slices.DeleteFunc(names, func(name string) bool {
			known, err := knowsLayer(r, path.Dir(name))
			failed = errors.Join(failed, err)
			return known
		})
		return failed
	})
	if err != nil || len(names) == 0 {
		return err
	}
	left, err := s.Pool.List(ctx) // what was removed meanwhile is no stray
	for _, name := range names {
		if slices.Contains(left, name) {
			found(Problem{note, "pool", name, "no disk uses this volume",
				"if the catalog was not set back, it can be deleted by hand", false})
		}
	}
	return err
}

// knowsLayer tells whether the catalog has a layer of that name. One whose record can't be read is known: nobody should
// think that its files can go.
func knowsLayer(r catalog.Reader, name string) (bool, error) {
	id, err := uuid.Parse(name)
	if err != nil {
		return false, nil
	}
	_, err = r.Get(layerKey(id))
	if errors.Is(err, catalog.ErrNotFound) {
		return false, nil
	}
	if errors.Is(err, catalog.ErrDamaged) {
		return true, nil
	}
	return err == nil, err
}
