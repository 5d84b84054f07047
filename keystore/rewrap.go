package keystore

import (
	"bytes"
	"context"
	"errors"
	"fmt"

	"nbdcrypt/pkg/catalog"
	"nbdcrypt/pkg/refusal"
)

// Rewrapped is a DEK that is wrapped anew: what its record was, and what it shall be. Both open to the same DEK.
type Rewrapped struct{ Old, New Record }

// Rewrap wraps the DEK of a holder's layer under the newest version of the CMK that keyRef names, and opens what it made before it
// answers (rule C5). Nothing changes until the caller commits it with ReplaceDEK. Both CMKs have to be usable: a DEK that is in
// memory because its disk is attached is no way round a key that is disabled. needed is false where it is wrapped so already.
func (s *Store) Rewrap(ctx context.Context, project, keyRef string, h Holder, layer string) (w Rewrapped, needed bool, err error) {
	var from, to cmkRecord
	err = s.c.Catalog.View(ctx, func(r catalog.Reader) (err error) {
		if err := s.needGrant(r, project); err != nil {
			return err
		}
		if w.Old, err = readDEK(r, h, layer); err != nil {
			return err
		}
		if w.Old.Project != project {
			return fmt.Errorf("%w: record %q is of project %s, not %s", catalog.ErrDamaged, dekKey(h, layer), w.Old.Project, project)
		}
		if from, err = s.cmkOf(r, w.Old); err != nil {
			return err
		}
		if to, err = s.find(r, project, keyRef); err != nil {
			return err
		}
		return errors.Join(from.usable(), to.usable())
	})
	if err != nil {
		return w, false, damaged(err)
	}
	w.New = w.Old
	w.New.CMK, w.New.CMKVersion = to.ID, to.newest().Number
	if w.New.CMK == w.Old.CMK && w.New.CMKVersion == w.Old.CMKVersion {
		return w, false, nil
	}
	dek, err := s.openDEK(from, w.Old)
	if err != nil {
		return w, false, damaged(s.changedMeanwhile(ctx, from, w.Old, err))
	}
	defer dek.Destroy()
	if err := s.wrapDEK(to, &w.New, dek); err != nil {
		return w, false, damaged(s.changedMeanwhile(ctx, to, w.New, err))
	}
	return w, true, nil
}

// ReplaceDEK puts what Rewrap made in the place of what it was made from, in the caller's transaction. It refuses where either is not
// as it was then.
func (s *Store) ReplaceDEK(t catalog.Txn, w Rewrapped) error {
	now, err := readDEK(t, w.Old.Holder, w.Old.Layer)
	if err != nil {
		return err
	}
	if now.CMK != w.Old.CMK || now.CMKVersion != w.Old.CMKVersion || !bytes.Equal(now.Blob, w.Old.Blob) {
		return refusal.New(refusal.Busy, "try again", "the DEK of %s %s was wrapped anew by somebody else meanwhile", now.Holder.Kind, now.Holder.ID)
	}
	to, err := s.cmkOf(t, w.New)
	if err != nil {
		return err
	}
	if err := to.usable(); err != nil {
		return err
	}
	return PutDEK(t, w.New)
}
