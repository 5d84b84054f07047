package keystore

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/google/uuid"

	"nbdcrypt/pkg/catalog"
)

// Severities of a Problem.
const (
	Damage = "damage"
	Note   = "note"
)

// Problem is one thing that Verify found.
type Problem struct{ Severity, What, Where, Problem, Next string }

// Verify opens every key record and every DEK record, whatever the CMKs' states, and reports those that don't
// open and slots that no record names. It returns how many CMKs there are. It needs the root key from beginning to end.
func (s *Store) Verify(ctx context.Context, report func(Problem)) (keys int, err error) {
	if err := s.c.Root.needOpen(); err != nil {
		return 0, err
	}
	cmks, bad, err := s.verifyCMKs(ctx, report)
	if err != nil {
		return 0, err
	}
	if err := s.verifyDEKs(ctx, cmks, bad, report); err != nil {
		return 0, err
	}
	return len(cmks) + len(bad), s.verifySlots(cmks, bad, report)
}

// walk visits the names under a prefix; a value that does not open is reported and does not end the walk.
func (s *Store) walk(ctx context.Context, prefix string, visit func(key string, value []byte, err error)) error {
	return s.c.Catalog.View(ctx, func(r catalog.Reader) error {
		after := ""
		for {
			pairs, err := r.Scan(prefix, after, 1)
			var bad damagedRecord
			switch {
			case errors.As(err, &bad):
				visit(bad.key, nil, err)
				after = bad.key
			case err != nil:
				return err
			case len(pairs) == 0:
				return nil
			default:
				visit(pairs[0].Key, pairs[0].Value, nil)
				after = pairs[0].Key
			}
		}
	})
}

const restoreNext = "restore the state directory from a backup; what is under it can't be attached"

func (s *Store) verifyCMKs(ctx context.Context, report func(Problem)) (good map[uuid.UUID]cmkRecord, bad map[string]bool, err error) {
	good, bad = make(map[uuid.UUID]cmkRecord), make(map[string]bool)
	var stopped error
	err = s.walk(ctx, "key/", func(key string, value []byte, err error) {
		var rec cmkRecord
		if err == nil {
			rec, err = parseCMK(key, value)
		}
		if err == nil && rec.key() != key {
			err = fmt.Errorf("%w: it belongs at %q", catalog.ErrDamaged, rec.key())
		}
		for i := 0; err == nil && i < len(rec.Versions); i++ {
			err = s.withCMK(rec, rec.Versions[i].Number, func([]byte) error { return nil })
		}
		if errors.Is(err, errLocked) {
			stopped = err // it was locked meanwhile, which says nothing of the key
			return
		}
		if err != nil {
			bad[key[strings.LastIndex(key, "/")+1:]] = true
			report(Problem{Damage, "key", key, err.Error(), restoreNext})
			return
		}
		good[rec.ID] = rec
	})
	return good, bad, errors.Join(err, stopped)
}

func (s *Store) verifyDEKs(ctx context.Context, cmks map[uuid.UUID]cmkRecord, bad map[string]bool, report func(Problem)) error {
	var stopped error
	err := s.walk(ctx, "dek/", func(key string, value []byte, err error) {
		var rec Record
		if err == nil {
			rec, err = parseDEK(key, value)
		}
		if err == nil {
			err = s.tryDEK(cmks, bad, rec)
		}
		if errors.Is(err, errLocked) {
			stopped = err
		} else if err != nil {
			report(Problem{Damage, "data key", key, err.Error(), restoreNext})
		}
	})
	return errors.Join(err, stopped)
}

func (s *Store) tryDEK(cmks map[uuid.UUID]cmkRecord, bad map[string]bool, rec Record) error {
	cmk, ok := cmks[rec.CMK]
	switch {
	case ok:
	case bad[rec.CMK.String()]:
		return fmt.Errorf("its key %s is damaged", rec.CMK)
	default:
		// A deleted CMK is no damage: that its DEKs never open again is what deleting is for.
		return nil
	}
	dek, err := s.openDEK(cmk, rec)
	if err == nil {
		dek.Destroy()
	}
	return err
}

func (s *Store) verifySlots(cmks map[uuid.UUID]cmkRecord, bad map[string]bool, report func(Problem)) error {
	s.making.Lock()
	defer s.making.Unlock()
	return s.erase.each(func(pair int64, cmk uuid.UUID, err error) {
		rec, ok := cmks[cmk]
		where := fmt.Sprintf("%s slot %d", EraseFile, pair)
		switch {
		case errors.Is(err, errSlotEmpty):
		case ok && rec.Slot == pair && err != nil:
			report(Problem{Note, "erase key", where, "one of its two copies is damaged", "back up the state directory now"})
		case ok && rec.Slot == pair, bad[cmk.String()]:
		default:
			report(Problem{Note, "erase key", where, "no key's record names it", "nothing: an interrupted `key create` leaves one"})
		}
	})
}
