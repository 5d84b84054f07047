package keystore

import (
	"context"

	"nbdcrypt/pkg/catalog"
)

// change does a verb: it asks the table of states, and commits the CMK's record as fn changes it. Asked again with the same
// request id it answers with the CMK as it is, since the first time was heard.
func (s *Store) change(ctx context.Context, request, project, ref string, v Verb, fn func(t catalog.Txn, rec *cmkRecord) error) (Info, error) {
	done, err := s.c.Catalog.Outcome(ctx, request)
	if err != nil {
		return Info{}, damaged(err)
	}
	if done {
		return s.Key(ctx, project, ref)
	}
	// The calendar must not hear of two changes in another order than the catalog.
	s.changing.Lock()
	defer s.changing.Unlock()
	var rec cmkRecord
	err = s.update(ctx, request, func(t catalog.Txn) (err error) {
		if rec, err = s.find(t, project, ref); err != nil {
			return err
		}
		if err := rec.may(v); err != nil {
			return err
		}
		if err := fn(t, &rec); err != nil {
			return err
		}
		return putJSON(t, rec.key(), rec)
	})
	if err != nil {
		return Info{}, damaged(err)
	}
	s.due.note(rec)
	return rec.info(), nil
}

// May tells about a CMK, and refuses what the verb would be refused with now.
func (s *Store) May(ctx context.Context, project, ref string, v Verb) (info Info, err error) {
	err = s.c.Catalog.View(ctx, func(r catalog.Reader) error {
		rec, err := s.find(r, project, ref)
		if err != nil {
			return err
		}
		info = rec.info()
		if v == Delete {
			return rec.mayDelete(s.c.Clock.Now())
		}
		return rec.may(v)
	})
	return info, damaged(err)
}
