package keystore

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"nbdcrypt/pkg/catalog"
	"nbdcrypt/pkg/refusal"
)

// DefaultAlias is the alias of the Default Master Key, which appears with a project's first grant (rule A6).
const DefaultAlias = "evs/default"

// GrantInfo is the key store's rights of a project in this region.
type GrantInfo struct {
	Project string
	Region  string
	By      string
	Created time.Time
}

// Grant gives a project the key store's rights. created is false where it has them already. The default key
// is made with the first grant that the project ever has in this region, exactly once.
func (s *Store) Grant(ctx context.Context, request, project, by string) (created bool, key Info, err error) {
	if !nameRule.MatchString(project) {
		return false, key, refusal.New(refusal.Usage, "use 1 to 64 letters, digits, '.', '_' or '-'", "%q can't be a project's name", project)
	}
	s.making.Lock()
	defer s.making.Unlock()
	granted, rec, err := s.grantState(ctx, project)
	if err != nil || granted {
		return false, rec.info(), damaged(err)
	}
	grant := grantRecord{recordVersion, project, s.c.Region, by, s.c.Clock.Now()}
	write := func(t catalog.Txn) error { return putJSON(t, grantKey(s.c.Region, project), grant) }
	if rec.Version == 0 {
		rec, err = s.makeCMK(ctx, request, cmkRecord{Alias: DefaultAlias, Project: project, Default: true, Origin: OriginGenerated}, write)
	} else {
		err = s.update(ctx, request, write)
	}
	return err == nil, rec.info(), damaged(err)
}

// grantState reads whether a project is granted, and its default key where it has one.
func (s *Store) grantState(ctx context.Context, project string) (granted bool, rec cmkRecord, err error) {
	err = s.c.Catalog.View(ctx, func(r catalog.Reader) error {
		_, err := r.Get(grantKey(s.c.Region, project))
		granted = err == nil
		if err != nil && !errors.Is(err, catalog.ErrNotFound) {
			return err
		}
		rec, err = s.byAlias(r, project, DefaultAlias)
		if errors.Is(err, catalog.ErrNotFound) && !granted {
			return nil
		}
		return err
	})
	return granted, rec, err
}

// RevokeGrant takes the rights away; keys and disks stay as they are.
func (s *Store) RevokeGrant(ctx context.Context, request, project string) error {
	err := s.update(ctx, request, func(t catalog.Txn) error {
		if _, err := t.Get(grantKey(s.c.Region, project)); err != nil {
			return err
		}
		return t.Delete(grantKey(s.c.Region, project))
	})
	if errors.Is(err, catalog.ErrNotFound) {
		return refusal.New(refusal.NotFound, "`nbdcrypt grant list` shows the grants", "project %s has no grant in region %s", project, s.c.Region)
	}
	return damaged(err)
}

// Grants lists the grants of this region.
func (s *Store) Grants(ctx context.Context) (grants []GrantInfo, err error) {
	err = s.each(ctx, grantPrefix(s.c.Region), func(p catalog.Pair) error {
		var g grantRecord
		if err := decodeJSON(p.Key, p.Value, &g); err != nil {
			return err
		}
		grants = append(grants, GrantInfo{g.Project, g.Region, g.By, g.Created})
		return nil
	})
	return grants, damaged(err)
}

// Granted tells whether a project has the key store's rights in this region.
func (s *Store) Granted(ctx context.Context, project string) (granted bool, err error) {
	err = s.c.Catalog.View(ctx, func(r catalog.Reader) (err error) {
		granted, err = s.granted(r, project)
		return err
	})
	return granted, damaged(err)
}

func (s *Store) granted(r catalog.Reader, project string) (bool, error) {
	_, err := r.Get(grantKey(s.c.Region, project))
	if errors.Is(err, catalog.ErrNotFound) {
		return false, nil
	}
	return err == nil, err
}

// needGrant refuses where the rights are not granted, and says whom to ask (rule A38).
func (s *Store) needGrant(r catalog.Reader, project string) error {
	granted, err := s.granted(r, project)
	if err != nil || granted {
		return err
	}
	who := "a security administrator"
	if s.c.Administrators != nil {
		if names := s.c.Administrators(project); len(names) > 0 {
			who = strings.Join(names, " or ")
		}
	}
	return refusal.New(refusal.Denied, fmt.Sprintf("ask %s to run `nbdcrypt grant create --project %s`", who, project),
		"the key store's rights are not granted to project %s in region %s; the security administrators are: %s", project, s.c.Region, who)
}

// each walks the pairs under a prefix, page by page in one view.
func (s *Store) each(ctx context.Context, prefix string, fn func(catalog.Pair) error) error {
	return s.c.Catalog.View(ctx, func(r catalog.Reader) error {
		for after := ""; ; {
			pairs, err := r.Scan(prefix, after, 256)
			if err != nil || len(pairs) == 0 {
				return err
			}
			for _, p := range pairs {
				if err := fn(p); err != nil {
					return err
				}
				after = p.Key
			}
		}
	})
}
