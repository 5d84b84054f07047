package keystore

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/google/uuid"

	"nbdcrypt/pkg/catalog"
	"nbdcrypt/pkg/refusal"
)

// How many days ahead a deletion can be scheduled (rule B1).
const (
	MinDeletionDays = 7
	MaxDeletionDays = 1096
)

// dropBatch is how many records one commit of a deletion drops, below catalog.MaxOps.
const dropBatch = 60

// ScheduleDeletion sets the date at which a CMK is destroyed. From now on it can't be used.
func (s *Store) ScheduleDeletion(ctx context.Context, request, project, ref string, days int) (Info, error) {
	if err := CheckDeletionDays(days); err != nil {
		return Info{}, err
	}
	return s.change(ctx, request, project, ref, ScheduleDeletion, func(_ catalog.Txn, rec *cmkRecord) error {
		at := s.DeletionDate(days)
		rec.State, rec.Deletion = PendingDeletion, &at
		return nil
	})
}

// CheckDeletionDays holds a number of days against rule B1.
func CheckDeletionDays(days int) error {
	if days < MinDeletionDays || days > MaxDeletionDays {
		return refusal.New(refusal.Usage, fmt.Sprintf("give %d to %d days", MinDeletionDays, MaxDeletionDays),
			"a key can't be scheduled for deletion in %d days", days)
	}
	return nil
}

// DeletionDate is the date that many days from now.
func (s *Store) DeletionDate(days int) time.Time {
	return s.c.Clock.Now().Add(time.Duration(days) * 24 * time.Hour)
}

// CancelDeletion keeps a CMK that is scheduled for deletion. It is Disabled then (D2), or Enabled where that is asked for; one
// without key material is Pending import again.
func (s *Store) CancelDeletion(ctx context.Context, request, project, ref string, enable bool) (Info, error) {
	return s.change(ctx, request, project, ref, CancelDeletion, func(_ catalog.Txn, rec *cmkRecord) error {
		rec.Deletion = nil
		switch {
		case len(rec.Versions) == 0:
			rec.State = PendingImport
		case enable:
			rec.State = Enabled
		default:
			rec.State = Disabled
		}
		return nil
	})
}

// Delete destroys a CMK whose date of deletion has come. Afterwards nothing opens what is under it (rule A21).
func (s *Store) Delete(ctx context.Context, request, project, ref string) (Info, error) {
	return s.destroy(ctx, request, func(r catalog.Reader) (cmkRecord, error) { return s.find(r, project, ref) })
}

// DeleteDue is Delete for what Due has named. It also finishes what was interrupted.
func (s *Store) DeleteDue(ctx context.Context, request string, d Due) (Info, error) {
	return s.destroy(ctx, request, func(r catalog.Reader) (cmkRecord, error) { return readCMK(r, cmkKey(d.Project, d.ID)) })
}

// destroy takes a CMK away in steps, each of which is durable before the next: the record says Deleting, from when on the CMK is
// gone for everybody; its erase key is overwritten; what is left of it in the catalog goes.
func (s *Store) destroy(ctx context.Context, request string, find func(catalog.Reader) (cmkRecord, error)) (Info, error) {
	s.making.Lock()
	defer s.making.Unlock()
	s.changing.Lock()
	defer s.changing.Unlock()
	var rec cmkRecord
	var was Info
	err := s.update(ctx, request, func(t catalog.Txn) (err error) {
		if rec, err = find(t); err != nil {
			return err
		}
		was = rec.info()
		if rec.State == Deleting {
			return nil
		}
		if err := rec.mayDelete(s.c.Clock.Now()); err != nil {
			return err
		}
		rec.State, rec.Deletion = Deleting, nil
		return errors.Join(t.Delete(aliasPrefix(rec.Region, rec.Project)+rec.Alias), putJSON(t, rec.key(), rec))
	})
	if err != nil {
		return was, damaged(err)
	}
	s.due.note(rec)
	if err := s.finish(ctx, rec); err != nil {
		return was, refusal.New(refusal.Failed, "see to the storage below the state directory; the daemon tries again until it is done",
			"key %s is gone for everybody, but is not destroyed yet: %w", rec.name(), err)
	}
	return was, nil
}

// mayDelete refuses to delete a CMK before its date.
func (c cmkRecord) mayDelete(now time.Time) error {
	if err := c.may(Delete); err != nil {
		return err
	}
	if c.Deletion.After(now) {
		return refusal.New(refusal.KeyForbids, "it is destroyed on its own then; no way leads past the date",
			"key %s can't be deleted before its date, which is %s", c.name(), date(c.Deletion))
	}
	return nil
}

// finish destroys what a record in state Deleting names. It may have been interrupted anywhere before, and begins anew.
func (s *Store) finish(ctx context.Context, rec cmkRecord) error {
	if rec.Slot != 0 {
		if err := s.erase.wipe(rec.Slot, rec.ID); err != nil {
			return err
		}
	}
	for more := true; more; {
		err := s.update(ctx, uuid.NewString(), func(t catalog.Txn) error {
			grants, err := t.Scan(keyGrantPrefix(rec.ID.String()), "", dropBatch)
			if err != nil {
				return err
			}
			for _, g := range grants {
				if err := t.Delete(g.Key); err != nil {
					return err
				}
			}
			if more = len(grants) == dropBatch; more {
				return nil
			}
			return t.Delete(rec.key())
		})
		if err != nil {
			return err
		}
	}
	s.erase.release(rec.Slot)
	s.due.forget(rec)
	return nil
}

// keyGrantPrefix is where the grants of a CMK to users lie.
func keyGrantPrefix(cmk string) string { return "key-grant/" + cmk + "/" }
