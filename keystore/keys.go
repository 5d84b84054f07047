package keystore

import (
	"context"
	"errors"
	"fmt"
	"strings"

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
	if errors.Is(err, catalog.ErrNotFound) || err == nil && (rec.Region != s.c.Region || rec.State == Deleting) {
		return rec, refusal.New(refusal.NotFound, "`nbdcrypt key list --project "+project+"` lists the keys",
			"there is no key %.300q in project %s", ref, project)
	}
	return rec, err
}

// under finds the CMK that something is under, by its id: in whichever region it is. One that is deleted is refused, though another may have its id
// for an alias by now.
func under(r catalog.Reader, project, id string) (cmkRecord, error) {
	rec, err := readCMK(r, cmkKey(project, id))
	if errors.Is(err, catalog.ErrNotFound) || err == nil && rec.State == Deleting {
		return rec, Info{ID: id, Project: project}.May(Use)
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

// KeyOf tells about the CMK with that id, in whichever region it is: what is under it belongs to no region, and goes on in each.
func (s *Store) KeyOf(ctx context.Context, project, id string) (info Info, err error) {
	err = s.c.Catalog.View(ctx, func(r catalog.Reader) error {
		rec, err := readCMK(r, cmkKey(project, id))
		if errors.Is(err, catalog.ErrNotFound) || err == nil && rec.State == Deleting {
			return refusal.New(refusal.NotFound, "`nbdcrypt key list --project "+project+"` lists the keys", "there is no key %.300q in project %s", id, project)
		}
		info = rec.info()
		return err
	})
	return info, damaged(err)
}

// Keys lists the CMKs of a project in this region. One whose record is damaged is among them.
func (s *Store) Keys(ctx context.Context, project string) (infos []Info, err error) {
	err = s.c.Catalog.View(ctx, func(r catalog.Reader) error {
		return catalog.Walk(r, cmkPrefix(project), func(p catalog.Pair, err error) error {
			var rec cmkRecord
			if err == nil {
				rec, err = parseCMK(p.Key, p.Value)
			}
			if err != nil {
				infos = append(infos, s.damagedInfo(r, project, strings.TrimPrefix(p.Key, cmkPrefix(project))))
			} else if rec.Region == s.c.Region && rec.State != Deleting {
				infos = append(infos, rec.info())
			}
			return nil
		})
	})
	return infos, damaged(err)
}

// damagedInfo is what is known of a CMK whose record can't be read.
func (s *Store) damagedInfo(r catalog.Reader, project, id string) Info {
	info := Info{ID: id, Project: project, Region: s.c.Region, Unreadable: true}
	prefix := aliasPrefix(s.c.Region, project)
	_ = catalog.Walk(r, prefix, func(p catalog.Pair, err error) error {
		if err == nil && string(p.Value) == id {
			info.Alias = strings.TrimPrefix(p.Key, prefix)
		}
		return nil
	})
	return info
}

// Enable makes a disabled CMK usable again; one that is enabled stays so.
func (s *Store) Enable(ctx context.Context, request, project, ref string) (Info, error) {
	return s.change(ctx, request, project, ref, Enable, func(_ catalog.Txn, rec *cmkRecord) error {
		rec.State = Enabled
		return nil
	})
}

// Disable makes a CMK unusable for every later attach. A default key can't be disabled (rule A7).
func (s *Store) Disable(ctx context.Context, request, project, ref string) (Info, error) {
	return s.change(ctx, request, project, ref, Disable, func(_ catalog.Txn, rec *cmkRecord) error {
		rec.State = Disabled
		return nil
	})
}

// usable refuses a CMK that may not wrap or unwrap now (rules A15, A16, A18, C13).
func (c cmkRecord) usable() error { return c.may(Use) }
