package server

import (
	"context"

	"github.com/google/uuid"

	"nbdcrypt/keystore"
	"nbdcrypt/pkg/catalog"
	"nbdcrypt/pkg/refusal"
	"nbdcrypt/pkg/volume"
)

// Config tells about one scaling configuration.
func (s *Service) Config(ctx context.Context, project, ref string) (ScalingConfig, error) {
	rec, err := configs.lookUp(ctx, s.c.Catalog, project, ref)
	if err != nil {
		return ScalingConfig{}, err
	}
	return s.describeConfig(ctx, rec), nil
}

// Configs calls fn with every scaling configuration of a project, in the order of their names. One whose record can't be read is among them with the status Damaged.
func (s *Service) Configs(ctx context.Context, project string, fn func(ScalingConfig) error) error {
	return explainList(s.c.Catalog.View(ctx, func(r catalog.Reader) error {
		return configs.walk(r, project, func(rec configRecord, h head, err error) error {
			if err != nil {
				return fn(ScalingConfig{ID: h.ID, Name: h.Name, Project: project, Status: Damaged, Warnings: []string{err.Error()}})
			}
			return fn(s.describeConfig(ctx, rec))
		})
	}))
}

// describeConfig shows attribute and key of each disk (rule A35); those of the system disk are the image's.
func (s *Service) describeConfig(ctx context.Context, rec configRecord) ScalingConfig {
	v := ScalingConfig{ID: rec.ID, Name: rec.Name, Project: rec.Project, Status: s.statusOf(rec.head), Image: Named{rec.Image, rec.ImageName}, Owned: rec.Owned,
		Source: rec.Source, CPUs: rec.CPUs, Memory: rec.Memory, Network: rec.Network, Created: rec.Created}
	sys := ConfigDisk{Role: SystemRole, Size: rec.SystemSize}
	image, err := s.c.Volumes.Point(ctx, volume.ImageKind, rec.Project, rec.Image.String())
	if err != nil {
		v.Warnings = append(v.Warnings, "its image can't be used: "+err.Error())
	} else {
		sys.SectorSize, sys.Encrypted, sys.Key = image.SectorSize, image.Encrypted, image.Key
	}
	v.Disks = append(v.Disks, sys)
	for _, d := range rec.Data {
		is := ConfigDisk{Role: DataRole, Size: d.Size, SectorSize: d.SectorSize, Encrypted: d.Encrypted}
		if d.Encrypted {
			is.Key = s.keyOf(ctx, rec.Project, d.Key)
		}
		v.Disks = append(v.Disks, is)
	}
	if v.Status == Error {
		v.Warnings = append(v.Warnings, "it is not whole: `nbdcrypt scaling config delete "+rec.Name+"` ends it, and so does the daemon when it starts")
	}
	return v
}

// keyOf tells about a key, of one that is not there its id alone.
func (s *Service) keyOf(ctx context.Context, project, id string) *keystore.Info {
	info, err := s.c.Keys.KeyOf(ctx, project, id)
	if err != nil {
		return &keystore.Info{ID: id, Project: project, Unreadable: refusal.CodeOf(err) != refusal.NotFound}
	}
	return &info
}

// ConfigsUnder are a project's scaling configurations with a disk under a key, those of whose image that is the key too.
func (s *Service) ConfigsUnder(ctx context.Context, project, keyID string) (list []Named, err error) {
	images := map[uuid.UUID]string{} // by the key of each
	key := func(image uuid.UUID) string {
		if _, seen := images[image]; !seen {
			images[image] = ""
			if p, err := s.c.Volumes.Point(ctx, volume.ImageKind, project, image.String()); err == nil && p.Key != nil {
				images[image] = p.Key.ID
			}
		}
		return images[image]
	}
	err = s.c.Catalog.View(ctx, func(r catalog.Reader) error {
		return configs.walk(r, project, func(rec configRecord, _ head, err error) error {
			if err != nil || keyID == "" {
				return nil // what can't be read is told by a list and by check
			}
			uses := key(rec.Image) == keyID
			for _, d := range rec.Data {
				uses = uses || d.Key == keyID
			}
			if uses {
				list = append(list, Named{rec.ID, rec.Name})
			}
			return nil
		})
	})
	return list, explainList(err)
}
