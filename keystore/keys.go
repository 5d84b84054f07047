package keystore

import (
	"context"
	"errors"
	"fmt"

	"nbdcrypt/pkg/catalog"
	"nbdcrypt/pkg/refusal"
)

// byAlias finds a CMK by its alias; catalog.ErrNotFound where there is none.
func (s *Store) byAlias(r catalog.Reader, project, alias string) (cmkRecord, error) {
	key := aliasPrefix(s.c.Region, project) + alias
	id, err := r.Get(key)
	if err != nil {
		return cmkRecord{}, err
	}
	rec, err := readCMK(r, cmkKey(project, string(id)))
	if errors.Is(err, catalog.ErrNotFound) {
		return rec, fmt.Errorf("%w: record %q names CMK %s, which is missing", catalog.ErrDamaged, key, id)
	}
	return rec, err
}

// find finds a CMK by id or alias. An empty ref is the default key.
func (s *Store) find(r catalog.Reader, project, ref string) (rec cmkRecord, err error) {
	if ref == "" {
		ref = DefaultAlias
	}
	err = catalog.ErrNotFound
	if isUUID(ref) {
		rec, err = readCMK(r, cmkKey(project, ref))
	}
	if errors.Is(err, catalog.ErrNotFound) && aliasRule.MatchString(ref) {
		rec, err = s.byAlias(r, project, ref)
	}
	if errors.Is(err, catalog.ErrNotFound) || err == nil && rec.Region != s.c.Region {
		return rec, refusal.New(refusal.NotFound, "`nbdcrypt key list --project "+project+"` lists the keys",
			"there is no key %.300q in project %s", ref, project)
	}
	return rec, err
}

// Key tells about the CMK with that id or alias.
func (s *Store) Key(ctx context.Context, project, ref string) (info Info, err error) {
	err = s.c.Catalog.View(ctx, func(r catalog.Reader) error {
		rec, err := s.find(r, project, ref)
		info = rec.info()
		return err
	})
	return info, damaged(err)
}

// Keys lists the CMKs of a project in this region.
func (s *Store) Keys(ctx context.Context, project string) (infos []Info, err error) {
	err = s.each(ctx, cmkPrefix(project), func(p catalog.Pair) error {
		rec, err := parseCMK(p.Key, p.Value)
		if err == nil && rec.Region == s.c.Region {
			infos = append(infos, rec.info())
		}
		return err
	})
	return infos, damaged(err)
}

// Enable makes a disabled CMK usable again; one that is enabled stays so.
func (s *Store) Enable(ctx context.Context, request, project, ref string) (Info, error) {
	return s.setState(ctx, request, project, ref, Enabled)
}

// Disable makes a CMK unusable for every later attach. A default key can't be disabled (rule A7).
func (s *Store) Disable(ctx context.Context, request, project, ref string) (Info, error) {
	return s.setState(ctx, request, project, ref, Disabled)
}

func (s *Store) setState(ctx context.Context, request, project, ref string, to State) (info Info, err error) {
	err = s.update(ctx, request, func(t catalog.Txn) error {
		rec, err := s.find(t, project, ref)
		if err != nil {
			return err
		}
		if err := rec.mayBecome(to); err != nil {
			return err
		}
		rec.State = to
		info = rec.info()
		return putJSON(t, rec.key(), rec)
	})
	return info, damaged(err)
}

// mayBecome is the table of verbs and states (rule B2), as far as there are verbs.
func (c cmkRecord) mayBecome(to State) error {
	switch {
	case c.Default && to != Enabled:
		return refusal.New(refusal.KeyForbids, "disks under it can be deleted or detached instead; a key of your own can be disabled",
			"%s is a default key, which can't be disabled", c.name())
	case c.State != Enabled && c.State != Disabled:
		return refusal.New(refusal.KeyForbids, "`nbdcrypt key show` tells what can be done with it", "key %s is %s", c.name(), c.State)
	}
	return nil
}

// usable refuses a CMK that may not wrap or unwrap now (rules A15, A16, C13).
func (c cmkRecord) usable() error {
	if c.State == Enabled {
		return nil
	}
	return refusal.New(refusal.KeyForbids, fmt.Sprintf("run `nbdcrypt key enable %s --project %s`", c.Alias, c.Project),
		"key %s is %s", c.name(), c.State)
}
