package server

import (
	"context"
	"errors"

	"github.com/google/uuid"

	"nbdcrypt/pkg/catalog"
)

// Count is how many servers, scaling configurations and groups a project has, those that can't be read too.
func (s *Service) Count(ctx context.Context, project string) (ofServers, ofConfigs, ofGroups int, err error) {
	err = s.c.Catalog.View(ctx, func(r catalog.Reader) error {
		var errs [3]error
		ofServers, errs[0] = r.Count(servers.nameKey(project, ""))
		ofConfigs, errs[1] = r.Count(configs.nameKey(project, ""))
		ofGroups, errs[2] = r.Count(groups.nameKey(project, ""))
		return errors.Join(errs[:]...)
	})
	return ofServers, ofConfigs, ofGroups, err
}

// Get tells about one server.
func (s *Service) Get(ctx context.Context, project, ref string) (Server, error) {
	var v Server
	err := s.c.Catalog.View(ctx, func(r catalog.Reader) error {
		rec, err := servers.find(r, project, ref)
		if err == nil {
			v = s.describe(r, rec, map[uuid.UUID]Named{})
		}
		return err
	})
	return v, servers.explain(ref, err)
}

// List calls fn with every server of a project, in the order of their names. One whose record can't be read is among them with the status Damaged.
func (s *Service) List(ctx context.Context, project string, fn func(Server) error) error {
	named := map[uuid.UUID]Named{} // groups
	return explainList(s.c.Catalog.View(ctx, func(r catalog.Reader) error {
		return servers.walk(r, project, func(rec serverRecord, h head, err error) error {
			if err := ctx.Err(); err != nil {
				return err
			}
			if err != nil {
				return fn(Server{ID: h.ID, Name: h.Name, Project: project, Status: Damaged, Warnings: []string{err.Error()}})
			}
			return fn(s.describe(r, rec, named))
		})
	}))
}

// OfDisk is the server that has a disk, nil where none has, and the disk's role there.
func (s *Service) OfDisk(ctx context.Context, disk uuid.UUID) (of *Server, role string, err error) {
	err = s.c.Catalog.View(ctx, func(r catalog.Reader) error {
		rec, err := serverOf(r, disk)
		if err == nil && rec != nil {
			v := s.describe(r, *rec, map[uuid.UUID]Named{})
			of, role = &v, rec.role(disk)
		}
		return err
	})
	return of, role, servers.explain("of the disk", err)
}

// describe makes of a record what users see. What groups are called is looked up once.
func (s *Service) describe(r catalog.Reader, rec serverRecord, named map[uuid.UUID]Named) Server {
	v := Server{ID: rec.ID, Name: rec.Name, Project: rec.Project, Status: s.status(rec), CPUs: rec.CPUs, Memory: rec.Memory, Network: rec.Network,
		Image: rec.Image, Created: rec.Created}
	for _, d := range rec.Disks {
		v.Disks = append(v.Disks, Disk{Role: d.Role, Name: d.Name, ID: d.ID})
	}
	if rec.Group != uuid.Nil {
		g, ok := named[rec.Group]
		if !ok {
			g = Named{ID: rec.Group}
			if group, err := groups.get(r, rec.Group); err == nil {
				g.Name = group.Name
			}
			named[rec.Group] = g
		}
		v.Group = &g
	}
	if v.Status == Error {
		v.Warnings = append(v.Warnings, "it is not whole: `nbdcrypt server delete "+rec.Name+"` ends it, and so does the daemon when it starts")
	}
	s.describeRun(&v)
	return v
}
