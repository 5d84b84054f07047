package keystore

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"nbdcrypt/pkg/catalog"
	"nbdcrypt/pkg/refusal"
)

// EndProject takes a project's rights back, in every region, and destroys its default keys as the deletion of a key does. It refuses
// while there is a key of the project's own, or a default key that something is under. It may be asked again where it was interrupted.
func (s *Store) EndProject(ctx context.Context, request, project string) error {
	s.making.Lock()
	defer s.making.Unlock()
	s.changing.Lock()
	defer s.changing.Unlock()
	keys, err := s.lastKeys(ctx, project)
	if err != nil {
		return damaged(err)
	}
	grants, err := s.grantsOf(ctx, project)
	if err != nil {
		return damaged(err)
	}
	err = s.update(ctx, request+"/keys", func(t catalog.Txn) (err error) {
		for _, name := range grants {
			err = errors.Join(err, t.Delete(name))
		}
		for i := range keys {
			err = errors.Join(err, s.putDeleting(t, &keys[i]))
		}
		return err
	})
	for i := 0; i < len(keys) && err == nil; i++ {
		s.due.note(keys[i])
		err = s.finish(ctx, keys[i])
	}
	return damaged(err)
}

// MayEndProject refuses what EndProject would refuse now.
func (s *Store) MayEndProject(ctx context.Context, project string) error {
	_, err := s.lastKeys(ctx, project)
	return damaged(err)
}

// lastKeys are the keys of a project in all regions. It refuses where somebody may want one of them.
func (s *Store) lastKeys(ctx context.Context, project string) (keys []cmkRecord, err error) {
	err = s.each(ctx, cmkPrefix(project), func(p catalog.Pair) error {
		rec, err := parseCMK(p.Key, p.Value)
		keys = append(keys, rec)
		return err
	})
	if err != nil {
		return nil, err
	}
	return keys, s.unwanted(ctx, project, keys)
}

func (s *Store) unwanted(ctx context.Context, project string, keys []cmkRecord) error {
	var own []string
	for _, k := range keys {
		if !k.Default && k.State != Deleting {
			own = append(own, k.Alias)
		}
	}
	if len(own) > 0 {
		return refusal.New(refusal.Busy, "`nbdcrypt key schedule-deletion` sets the date at which a key goes, at least 7 days ahead; delete the project after it",
			"project %s has keys: %s", project, few(own))
	}
	return s.c.Catalog.View(ctx, func(r catalog.Reader) error {
		for _, k := range keys {
			uses, err := r.Scan(usesPrefix(k.ID), "", 1)
			if err != nil {
				return err
			}
			if len(uses) > 0 && k.State != Deleting {
				return refusal.New(refusal.Busy, "`nbdcrypt key uses "+k.Alias+" --project "+project+"` lists what",
					"something is under the key %s of project %s", k.Alias, project)
			}
		}
		return nil
	})
}

// few names the first of many.
func few(names []string) string {
	if len(names) > 3 {
		return fmt.Sprintf("%s and %d more", strings.Join(names[:3], ", "), len(names)-3)
	}
	return strings.Join(names, ", ")
}

// grantsOf are the names of a project's grants in all regions.
func (s *Store) grantsOf(ctx context.Context, project string) (names []string, err error) {
	err = s.each(ctx, "grant/", func(p catalog.Pair) error {
		if strings.HasSuffix(p.Key, "/"+project) {
			names = append(names, p.Key)
		}
		return nil
	})
	return names, err
}

// putDeleting makes a CMK one that is gone for everybody, and its alias free.
func (s *Store) putDeleting(t catalog.Txn, rec *cmkRecord) error {
	if rec.State == Deleting {
		return nil
	}
	rec.State, rec.Deletion = Deleting, nil
	return errors.Join(t.Delete(aliasPrefix(rec.Region, rec.Project)+rec.Alias), putJSON(t, rec.key(), *rec))
}

// CountKeys is how many CMKs Verify looks at in a project, damaged ones too.
func (s *Store) CountKeys(ctx context.Context, project string) (n int, err error) {
	err = s.walk(ctx, cmkPrefix(project), func(string, []byte, error) { n++ })
	return n, err
}
