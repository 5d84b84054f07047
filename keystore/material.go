package keystore

import (
	"context"
	"time"

	"github.com/google/uuid"

	"nbdcrypt/pkg/catalog"
	"nbdcrypt/pkg/refusal"
)

// DeleteMaterial destroys the imported key material of a CMK, at once. The CMK stays, and is Pending import: importing the same bytes
// makes what is under it open again.
func (s *Store) DeleteMaterial(ctx context.Context, request, project, ref string) (Info, error) {
	find := func(r catalog.Reader) (cmkRecord, error) { return s.find(r, project, ref) }
	return s.dropMaterial(ctx, request, find, func(c cmkRecord) error { return c.may(DeleteMaterial) })
}

// ExpireDue is DeleteMaterial for what Due has named: its time has come, in whatever state the CMK is. It also finishes what was
// interrupted.
func (s *Store) ExpireDue(ctx context.Context, request string, d Due) (Info, error) {
	find := func(r catalog.Reader) (cmkRecord, error) { return readCMK(r, cmkKey(d.Project, d.ID)) }
	return s.dropMaterial(ctx, request, find, func(c cmkRecord) error { return c.mayExpire(s.c.Clock.Now()) })
}

func (c cmkRecord) mayExpire(now time.Time) error {
	if len(c.Versions) == 0 || c.Import == nil || c.Import.Expires == nil || c.Import.Expires.After(now) {
		return refusal.New(refusal.KeyForbids, "there is nothing to do", "no key material of key %s has expired", c.name())
	}
	return nil
}

// erasing tells that the key material of a CMK is as good as gone: its erase key is being overwritten, and a start finishes that.
func (c cmkRecord) erasing() bool { return c.Import != nil && c.Import.Erasing && c.Slot != 0 }

// dropMaterial destroys key material in steps, each of which is durable before the next: the record says that it is being erased, from
// when on nothing uses it; its erase key is overwritten; the record has it no more.
func (s *Store) dropMaterial(ctx context.Context, request string, find func(catalog.Reader) (cmkRecord, error), may func(cmkRecord) error) (Info, error) {
	s.making.Lock()
	defer s.making.Unlock()
	done, err := s.c.Catalog.Outcome(ctx, request)
	if err != nil {
		return Info{}, damaged(err)
	}
	var rec cmkRecord
	err = s.alter(ctx, request, &rec, find, func(rec *cmkRecord) error {
		if rec.erasing() || done {
			return nil
		}
		if err := may(*rec); err != nil {
			return err
		}
		now := *rec.Import
		now.Erasing = true
		rec.Import = &now
		rec.suspend()
		return nil
	})
	if err == nil && rec.erasing() {
		rec, err = s.finishMaterial(ctx, rec)
	}
	return rec.info(), damaged(err)
}

// suspend makes a CMK whose material goes Pending import; one that is to be deleted stays so.
func (c *cmkRecord) suspend() {
	if c.State == Enabled || c.State == Disabled {
		c.State = PendingImport
	}
}

// finishMaterial destroys what a record that says so names. It may have been interrupted anywhere before, and begins anew.
func (s *Store) finishMaterial(ctx context.Context, was cmkRecord) (rec cmkRecord, err error) {
	if err := s.erase.wipe(was.Slot, was.ID); err != nil {
		return was, refusal.New(refusal.Failed, "see to the storage below the state directory; the daemon tries again until it is done",
			"nothing uses the key material of key %s any more, but it is not destroyed yet: %w", was.name(), err)
	}
	find := func(r catalog.Reader) (cmkRecord, error) { return readCMK(r, was.key()) }
	err = s.alter(ctx, uuid.NewString(), &rec, find, func(rec *cmkRecord) error {
		now := *rec.Import
		now.Erasing, now.Expires = false, nil
		rec.Import, rec.Slot, rec.Versions = &now, 0, nil
		rec.suspend()
		return nil
	})
	if err == nil {
		s.erase.release(was.Slot)
	}
	return rec, err
}

// alter commits a CMK's record as fn changes it, and leaves the result in rec.
func (s *Store) alter(ctx context.Context, request string, rec *cmkRecord, find func(catalog.Reader) (cmkRecord, error), fn func(*cmkRecord) error) error {
	s.changing.Lock()
	defer s.changing.Unlock()
	err := s.update(ctx, request, func(t catalog.Txn) (err error) {
		if *rec, err = find(t); err != nil {
			return err
		}
		if err := fn(rec); err != nil {
			return err
		}
		return putJSON(t, rec.key(), *rec)
	})
	if err == nil {
		s.due.note(*rec)
	}
	return err
}
