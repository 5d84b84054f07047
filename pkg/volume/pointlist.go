package volume

import (
	"cmp"
	"context"
	"errors"
	"slices"
	"time"

	"github.com/google/uuid"

	"nbdcrypt/keystore"
	"nbdcrypt/pkg/catalog"
	"nbdcrypt/pkg/refusal"
)

// Point is a snapshot, an image or a backup as it is now.
type Point struct {
	Kind, ID, Name, Project string
	// Disk is what it was made of, and DiskName how that was called then; both are empty where it was no disk.
	Disk, DiskName string
	// Source is what the data of an image was that is of no disk.
	Source     *Source
	Size       int64
	SectorSize int
	Encrypted  bool
	Key        *keystore.Info
	Status     Status
	Created    time.Time
	Warnings   []string

	record pointRecord
}

// lookUpPoint finds a point by name or id, and keeps it from going until free is called. It has to be available.
func (s *Service) lookUpPoint(ctx context.Context, kind, project, ref string) (p pointRecord, free func(), err error) {
	find := func(ref string) error {
		return s.Catalog.View(ctx, func(r catalog.Reader) (err error) {
			p, err = findPoint(r, kind, project, ref)
			return err
		})
	}
	if err = find(ref); err != nil {
		return p, nil, explainPoint(kind, ref, err)
	}
	if free, err = s.usePoint(p); err != nil {
		return p, nil, err
	}
	// What was read before may be old by now.
	if err = explainPoint(kind, ref, find(p.ID.String())); err == nil {
		err = p.whole()
	}
	if err != nil {
		free()
		return p, nil, err
	}
	return p, free, nil
}

// explainPoint turns what the catalog says of damage into a refusal.
func explainPoint(kind, ref string, err error) error {
	var r *refusal.Error
	if err == nil || errors.As(err, &r) || !isDamage(err) {
		return err
	}
	return refusal.New(refusal.Damaged, "run `nbdcrypt check`; then restore the state directory from a backup", "%s %.200s is damaged: %w", kind, ref, err)
}

// Point tells about one point.
func (s *Service) Point(ctx context.Context, kind, project, ref string) (Point, error) {
	var p pointRecord
	err := s.Catalog.View(ctx, func(r catalog.Reader) (err error) {
		p, err = findPoint(r, kind, project, ref)
		return err
	})
	if err != nil {
		return Point{}, explainPoint(kind, ref, err)
	}
	return s.describePoint(ctx, p), nil
}

func (s *Service) describePoint(ctx context.Context, r pointRecord) Point {
	p := Point{Kind: r.Kind, ID: r.ID.String(), Name: r.Name, Project: r.Project, DiskName: r.DiskName, Size: r.Size, SectorSize: r.SectorSize,
		Encrypted: r.Encrypted, Status: r.Status, Created: r.Created, Source: r.From, record: r}
	if r.Disk != uuid.Nil {
		p.Disk = r.Disk.String()
	}
	if r.Encrypted {
		p.Key = s.keyUnder(ctx, r.Project, r.Key)
	}
	if r.Lost != "" {
		p.Warnings = append(p.Warnings, r.Lost)
	}
	return p
}

// Points calls fn with every point of a kind in a project, in the order of their names; with those of one disk where that is named. One
// whose record can't be read is among them with the status Damaged, of a disk's without its name.
func (s *Service) Points(ctx context.Context, kind, project, disk string, fn func(Point) error) error {
	if disk != "" {
		return s.pointsOfDisk(ctx, kind, project, disk, fn)
	}
	prefix := pointNameKey(kind, project, "")
	return explainList(s.Catalog.View(ctx, func(r catalog.Reader) error {
		return catalog.Walk(r, prefix, func(pair catalog.Pair, err error) error {
			name := pair.Key[len(prefix):]
			var p pointRecord
			if err == nil {
				p, err = findPoint(r, kind, project, name)
			}
			switch {
			case refusal.CodeOf(err) == refusal.NotFound:
				return nil
			case isDamage(err):
				return fn(damagedPoint(kind, project, string(pair.Value), name, err))
			case err != nil:
				return err
			}
			return fn(s.describePoint(ctx, p))
		})
	}))
}

func damagedPoint(kind, project, id, name string, err error) Point {
	return Point{Kind: kind, ID: id, Name: name, Project: project, Status: Damaged, Warnings: []string{err.Error()}}
}

// pointsOfDisk takes them from the disk's index: a project may have very many others.
func (s *Service) pointsOfDisk(ctx context.Context, kind, project, disk string, fn func(Point) error) error {
	d, err := s.lookUp(ctx, project, disk)
	if err != nil {
		return err
	}
	var list []Point
	err = s.Catalog.View(ctx, func(r catalog.Reader) error {
		list = nil
		return eachID(r, pointsOf(d.ID, kind), func(id uuid.UUID) error {
			p, err := get(r, pointKey(kind, id), parsePoint)
			if isDamage(err) {
				list = append(list, damagedPoint(kind, project, id.String(), "", err))
				return nil
			}
			if err == nil {
				list = append(list, s.describePoint(ctx, p))
			}
			return ifThere(err)
		})
	})
	slices.SortFunc(list, func(a, b Point) int { return cmp.Compare(a.Name, b.Name) })
	for _, p := range list {
		if err == nil {
			err = fn(p)
		}
	}
	return explainList(err)
}
