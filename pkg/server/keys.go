package server

import (
	"context"
	"fmt"

	"github.com/google/uuid"

	"nbdcrypt/keystore"
	"nbdcrypt/pkg/refusal"
	"nbdcrypt/pkg/volume"
)

// Keys are tried by drawing a DEK that nothing keeps: so what is refused here is what would be refused when a disk is made.

// tryKey answers the id of the key that a new disk would be under.
func (s *Service) tryKey(ctx context.Context, project, key string, sector int) (string, error) {
	rec, err := s.c.Keys.GenerateDEK(ctx, project, key, keystore.Holder{Kind: volume.HolderKind, ID: uuid.NewString()}, uuid.NewString(), sector)
	return rec.CMK.String(), err
}

// imageUsable refuses an image whose key is not (rule A36).
func (s *Service) imageUsable(ctx context.Context, image volume.Point) error {
	if image.Key == nil {
		return nil
	}
	_, err := s.c.Keys.GenerateDEKUnder(ctx, image.Project, image.Key.ID, keystore.Holder{Kind: volume.HolderKind, ID: uuid.NewString()}, uuid.NewString(), image.SectorSize)
	return refuseFor("image "+image.Name+" can't be used", err)
}

// disksUsable refuses disks that have another key than what they stand on and whose key is not usable.
func (s *Service) disksUsable(ctx context.Context, disks []volume.Spec) error {
	for _, d := range disks {
		if !d.Encrypted {
			continue
		}
		if _, err := s.tryKey(ctx, d.Project, d.Key, sectorOf(d.SectorSize)); err != nil {
			return refuseFor("disk "+d.Name, err)
		}
	}
	return nil
}

// sectorOf is a sector size that a DEK can be for. What is none is refused where the disk is made.
func sectorOf(size int) int {
	if size == 4096 {
		return size
	}
	return 512
}

// refuseFor says what a refusal is about.
func refuseFor(what string, err error) error {
	if err == nil {
		return nil
	}
	r := refusal.From(err)
	if r.Hint == "" {
		return fmt.Errorf("%s: %w", what, err)
	}
	return refusal.New(r.Code, r.Hint, "%s: %w", what, err)
}
