package keystore

import (
	"context"
	"errors"
	"fmt"

	"nbdcrypt/pkg/catalog"
)

// ShareDEK wraps the DEK of a layer that one holder has for another, under the newest version of the CMK with that id, and opens
// what it made before it answers. Both CMKs have to be usable: a holder is no way round a key that is disabled. The record of the first
// holder stays as it is; the caller commits the new one with PutUsableDEK.
func (s *Store) ShareDEK(ctx context.Context, project, key string, from, to Holder, layer string) (Record, error) {
	if err := checkPlace(to, layer); err != nil {
		return Record{}, err
	}
	var old Record
	var theirs, ours cmkRecord
	err := s.c.Catalog.View(ctx, func(r catalog.Reader) (err error) {
		if err := s.needGrant(r, project); err != nil {
			return err
		}
		if old, err = readDEK(r, from, layer); err != nil {
			return err
		}
		if old.Project != project {
			return fmt.Errorf("%w: record %q is of project %s, not %s", catalog.ErrDamaged, dekKey(from, layer), old.Project, project)
		}
		if theirs, err = s.cmkOf(r, old); err != nil {
			return err
		}
		if ours, err = under(r, project, key); err != nil {
			return err
		}
		return errors.Join(theirs.usable(), ours.usable())
	})
	if err != nil {
		return Record{}, damaged(err)
	}
	dek, err := s.openDEK(theirs, old)
	if err != nil {
		return Record{}, damaged(s.changedMeanwhile(ctx, theirs, old, err))
	}
	defer dek.Destroy()
	rec := old
	rec.Holder, rec.CMK, rec.CMKVersion, rec.Blob = to, ours.ID, ours.newest().Number, nil
	if err := s.wrapDEK(ours, &rec, dek); err != nil {
		return Record{}, damaged(s.changedMeanwhile(ctx, ours, rec, err))
	}
	return rec, nil
}

// PutUsableDEK is PutDEK of a record that was made a moment ago. It refuses where the CMK can't be used any more: the record might never
// open again.
func (s *Store) PutUsableDEK(t catalog.Txn, rec Record) error {
	cmk, err := s.cmkOf(t, rec)
	if err != nil {
		return err
	}
	if err := cmk.usable(); err != nil {
		return err
	}
	return PutDEK(t, rec)
}
