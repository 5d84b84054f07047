package server

import (
	"context"
	"fmt"

	"nbdcrypt/keystore"
	"nbdcrypt/pkg/refusal"
	"nbdcrypt/pkg/volume"
)

// Preflight refuses a scaling configuration from which no server can be made now, and names the disks and the keys that are in the way.
func (s *Service) Preflight(ctx context.Context, project, config string) error {
	_, err := s.usableConfig(ctx, project, config)
	return err
}

// usableConfig is a configuration that servers can be made of.
func (s *Service) usableConfig(ctx context.Context, project, ref string) (configRecord, error) {
	c, err := configs.lookUp(ctx, s.c.Catalog, project, ref)
	if err != nil {
		return c, err
	}
	if c.Status != Available {
		return c, refusal.New(refusal.Busy, wait, "scaling configuration %s is %s", c.Name, s.statusOf(c.head))
	}
	image, err := s.c.Volumes.Point(ctx, volume.ImageKind, project, c.Image.String())
	if err == nil && image.Status != volume.Available {
		err = refusal.New(refusal.Busy, wait, "image %s is %s", image.Name, image.Status)
	}
	if err == nil {
		err = s.imageUsable(ctx, image)
	}
	problems := problemsOf{refuseFor("system disk", err)}
	for i, d := range c.Data {
		if d.Encrypted {
			problems = append(problems, refuseFor(fmt.Sprintf("data disk %d", i+1), s.usable(ctx, project, d.Key)))
		}
	}
	return c, refuseFor("no server can be made of scaling configuration "+c.Name, problems.one())
}

// usable refuses a key that is known by its id and is not usable, or gone.
func (s *Service) usable(ctx context.Context, project, id string) error {
	if info := s.keyOf(ctx, project, id); info.State != keystore.Enabled {
		return info.May(keystore.Use)
	}
	_, err := s.tryKey(ctx, project, id, 512)
	return err
}

// problemsOf are refusals, and nil for what is none.
type problemsOf []error

// one is a refusal that says them all, with the code and the way out of the first.
func (p problemsOf) one() error {
	var all *refusal.Error
	for _, err := range p {
		switch {
		case err == nil:
		case all == nil:
			all = refusal.From(err)
		default:
			all = refusal.From(refusal.New(all.Code, all.Hint, "%w; %w", all, err))
		}
	}
	if all == nil {
		return nil
	}
	return all
}
