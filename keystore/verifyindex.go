package keystore

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/google/uuid"

	"nbdcrypt/pkg/catalog"
)

// verifyAliases holds the index of aliases and the CMKs against each other, in this region and as both are now: keys may have been made,
// renamed and destroyed since the check began.
func (s *Store) verifyAliases(ctx context.Context, report func(Problem)) error {
	tell := func(where, problem string) {
		report(Problem{Damage, "alias", where, problem, "name the key by its id, which `nbdcrypt key list` shows; restore the state directory from a backup"})
	}
	return s.c.Catalog.View(ctx, func(r catalog.Reader) error {
		cmks, bad, err := readableCMKs(r)
		if err != nil {
			return err
		}
		named := map[string]string{}
		err = catalog.Walk(r, "alias/"+s.c.Region+"/", func(p catalog.Pair, err error) error {
			id, _ := uuid.Parse(string(p.Value))
			_, known := cmks[id]
			switch {
			case err != nil:
				tell(p.Key, err.Error())
			case !known && !bad[string(p.Value)]:
				tell(p.Key, fmt.Sprintf("it names key %.100q, whose record is missing", p.Value))
			}
			named[p.Key] = string(p.Value)
			return nil
		})
		for id, rec := range cmks {
			key := aliasPrefix(rec.Region, rec.Project) + rec.Alias
			if name, there := named[key]; rec.Region == s.c.Region && (!there || name != id.String() && name != "") {
				tell(key, fmt.Sprintf("it does not name key %s, whose alias it is", id))
			}
		}
		return err
	})
}

// readableCMKs are the CMKs that are not being destroyed, and the ids of those that can't be read.
func readableCMKs(r catalog.Reader) (cmks map[uuid.UUID]cmkRecord, bad map[string]bool, err error) {
	cmks, bad = map[uuid.UUID]cmkRecord{}, map[string]bool{}
	err = catalog.Walk(r, "key/", func(p catalog.Pair, err error) error {
		var rec cmkRecord
		if err == nil {
			rec, err = parseCMK(p.Key, p.Value)
		}
		if err != nil || rec.key() != p.Key {
			bad[p.Key[strings.LastIndex(p.Key, "/")+1:]] = true
		} else if rec.State != Deleting {
			cmks[rec.ID] = rec
		}
		return nil
	})
	return cmks, bad, err
}

// verifyUses looks for DEK records that the index of uses leaves out: predictions would leave them out too.
func (s *Store) verifyUses(ctx context.Context, report func(Problem)) error {
	return s.c.Catalog.View(ctx, func(r catalog.Reader) error {
		indexed := map[string]bool{}
		err := catalog.EachName(r, usesMarker+"/", func(key string) error { indexed[key] = true; return nil })
		if err != nil {
			return err
		}
		return catalog.Walk(r, "dek/", func(p catalog.Pair, err error) error {
			if err != nil {
				return nil // verifyDEKs has told
			}
			rec, err := parseDEK(p.Key, p.Value)
			if err == nil && !indexed[rec.usesKey()] {
				report(Problem{Damage, "index", rec.usesKey(), fmt.Sprintf("it is missing: `key uses` and dry runs leave out %s %s", rec.Holder.Kind, rec.Holder.ID),
					"restore the state directory from a backup"})
			}
			return nil
		})
	})
}

// CheckDEK tells whether the DEK of a holder's layer opens, whatever the state of its CMK. One whose CMK was deleted is not
// damaged, and neither is one whose material may be imported again: both are nil.
func (s *Store) CheckDEK(ctx context.Context, h Holder, layer string) error {
	err := s.checkDEK(ctx, h, layer)
	if damages(err) { // its CMK may have been destroyed since its record was read
		s.making.Lock()
		defer s.making.Unlock()
		err = s.checkDEK(ctx, h, layer)
	}
	if notNow(err) {
		return nil
	}
	return err
}

func (s *Store) checkDEK(ctx context.Context, h Holder, layer string) error {
	var rec Record
	var cmk cmkRecord
	gone := false
	err := s.c.Catalog.View(ctx, func(r catalog.Reader) (err error) {
		if rec, err = readDEK(r, h, layer); err != nil {
			return err
		}
		cmk, err = readCMK(r, cmkKey(rec.Project, rec.CMK.String()))
		gone = errors.Is(err, catalog.ErrNotFound) || cmk.State == Deleting || cmk.erasing()
		return err
	})
	if gone {
		return nil
	}
	if err == nil {
		err = s.tryDEK(map[uuid.UUID]cmkRecord{cmk.ID: cmk}, nil, rec)
	}
	return err
}
