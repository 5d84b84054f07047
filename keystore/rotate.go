package keystore

import (
	"context"
	"slices"

	"nbdcrypt/pkg/catalog"
	"nbdcrypt/pkg/refusal"
)

// How often a CMK can be rotated on its own (rule B6), and how many versions of it there can be: its record holds all.
const (
	MinRotationDays = 30
	MaxRotationDays = 365
	MaxVersions     = 250
)

// RotateKey adds a version of key material to a CMK. New DEKs are wrapped under it; the versions before it stay, so that
// what they wrap opens as ever.
func (s *Store) RotateKey(ctx context.Context, request, project, ref string) (Info, error) {
	s.making.Lock()
	defer s.making.Unlock()
	var rec cmkRecord
	err := s.c.Catalog.View(ctx, func(r catalog.Reader) (err error) {
		rec, err = s.find(r, project, ref)
		return err
	})
	if err != nil {
		return Info{}, damaged(err)
	}
	next := cmkVersion{}
	if rec.mayRotate() == nil { // where it may not, change says so, unless the same request has done it before
		if next, err = s.makeVersion(rec); err != nil {
			return Info{}, damaged(err)
		}
	}
	return s.change(ctx, request, project, rec.ID.String(), Rotate, func(_ catalog.Txn, rec *cmkRecord) error {
		if err := rec.mayRotate(); err != nil {
			return err
		}
		if next.Number != rec.newest().Number+1 {
			return refusal.New(refusal.Busy, "try again", "key %s was changed meanwhile", rec.name())
		}
		rec.Versions = append(slices.Clip(rec.Versions), next)
		if rec.RotationDays > 0 {
			rec.RotationFrom = &next.Created
		}
		return nil
	})
}

func (c cmkRecord) mayRotate() error {
	if err := c.may(Rotate); err != nil {
		return err
	}
	if len(c.Versions) >= MaxVersions {
		return refusal.New(refusal.KeyForbids, "make another key, and put the disks under it with `nbdcrypt key rewrap "+c.Alias+" --to KEY`",
			"key %s has %d versions, and no more are kept", c.name(), len(c.Versions))
	}
	return nil
}

// makeVersion makes the material of the version after the newest.
func (s *Store) makeVersion(c cmkRecord) (v cmkVersion, err error) {
	if err := s.c.Root.needOpen(); err != nil {
		return v, err
	}
	eraseKey, err := s.erase.read(c.Slot, c.ID)
	if err != nil {
		return v, err
	}
	defer eraseKey.Destroy()
	v = cmkVersion{Number: c.newest().Number + 1, Created: s.c.Clock.Now()}
	v.Wrapped, err = s.generateCMK(c, v.Number, eraseKey)
	return v, err
}

// SetRotation has a CMK rotated every so many days, or no more where days is 0. The days count from when that was turned on, and
// then from each rotation; another number of days does not begin anew.
func (s *Store) SetRotation(ctx context.Context, request, project, ref string, days int) (Info, error) {
	if days != 0 && (days < MinRotationDays || days > MaxRotationDays) {
		return Info{}, refusal.New(refusal.Usage, "use 30 to 365, or off", "a key can't be rotated every %d days", days)
	}
	now := s.c.Clock.Now()
	return s.change(ctx, request, project, ref, SetRotation, func(_ catalog.Txn, rec *cmkRecord) error {
		switch {
		case days == 0:
			rec.RotationFrom = nil
		case rec.RotationDays == 0:
			rec.RotationFrom = &now
		}
		rec.RotationDays = days
		return nil
	})
}
