package volume

import (
	"context"

	"nbdcrypt/pkg/catalog"
)

// KeyOf tells the id of a disk, and of the CMK that it is under: empty for a plain one.
func (s *Service) KeyOf(ctx context.Context, project, ref string) (disk, key string, err error) {
	d, err := s.lookUp(ctx, project, ref)
	return d.ID.String(), d.Key, err
}

// IDs are the ids of the disks and points of a project.
func (s *Service) IDs(ctx context.Context, project string) (map[string]bool, error) {
	ids := map[string]bool{}
	err := s.eachDisk(ctx, func(d diskRecord) error {
		if d.Project == project {
			ids[d.ID.String()] = true
		}
		return nil
	})
	if err != nil {
		return nil, explainList(err)
	}
	points, err := s.pointsToCheck(ctx, project, func(Problem) {})
	for _, p := range points {
		ids[p.ID.String()] = true
	}
	return ids, err
}

// CountPoints is how many points of a kind a project has, or all projects have where it is empty.
func (s *Service) CountPoints(ctx context.Context, kind, project string) (n int, err error) {
	prefix := kind + "-name/"
	if project != "" {
		prefix = pointNameKey(kind, project, "")
	}
	err = s.Catalog.View(ctx, func(r catalog.Reader) (err error) {
		n, err = r.Count(prefix)
		return err
	})
	return n, err
}

// CountIn is how many disks a project has, those that can't be read too.
func (s *Service) CountIn(ctx context.Context, project string) (n int, err error) {
	err = s.Catalog.View(ctx, func(r catalog.Reader) (err error) {
		n, err = r.Count(nameKey(project, ""))
		return err
	})
	return n, err
}
