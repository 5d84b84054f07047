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
// open, what the indexes of aliases and uses have wrong, and slots that no record names. It returns how many CMKs there are. It needs the root key
// from beginning to end.
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
	err = errors.Join(s.verifyAliases(ctx, report), s.verifyUses(ctx, report), s.verifySlots(ctx, report))
	return len(cmks) + len(bad), err
}

// walk visits the names under a prefix; a value that does not open is reported and does not end the walk.
func (s *Store) walk(ctx context.Context, prefix string, visit func(key string, value []byte, err error)) error {
	return s.c.Catalog.View(ctx, func(r catalog.Reader) error {
		return catalog.Walk(r, prefix, func(p catalog.Pair, err error) error {
			visit(p.Key, p.Value, err)
			return nil
		})
	})
}

const restoreNext = "restore the state directory from a backup; what is under it can't be attached"

func (s *Store) verifyCMKs(ctx context.Context, report func(Problem)) (good map[uuid.UUID]cmkRecord, bad map[string]bool, err error) {
	good, bad = make(map[uuid.UUID]cmkRecord), make(map[string]bool)
	var stopped error
	err = s.walk(ctx, "key/", func(key string, value []byte, err error) {
		if err = s.tryCMK(good, key, value, err); damages(err) {
			err = s.again(ctx, key, func(value []byte, err error) error { return s.tryCMK(good, key, value, err) })
		}
		if notNow(err) {
			stopped = err // it was locked meanwhile, or the token is away, which says nothing of the key
		} else if err != nil {
			bad[key[strings.LastIndex(key, "/")+1:]] = true
			report(Problem{Damage, "key", key, err.Error(), restoreNext})
		}
	})
	return good, bad, errors.Join(err, stopped)
}

// tryCMK opens all versions of a CMK, and puts it among the good ones unless it is being destroyed.
func (s *Store) tryCMK(good map[uuid.UUID]cmkRecord, key string, value []byte, err error) error {
	var rec cmkRecord
	if err == nil {
		rec, err = parseCMK(key, value)
	}
	if err == nil && rec.key() != key {
		err = fmt.Errorf("%w: it belongs at %q", catalog.ErrDamaged, rec.key())
	}
	if err != nil || rec.State == Deleting {
		return err // one that is Deleting is as good as gone
	}
	if rec.erasing() {
		rec.Versions = nil // so is its material
	}
	for _, v := range rec.Versions {
		if err := s.withCMK(rec, v.Number, func([]byte) error { return nil }); err != nil {
			return err
		}
	}
	good[rec.ID] = rec
	return nil
}

func damages(err error) bool { return err != nil && !notNow(err) }

// again tries what does not open once more, with its record as it is now and while no key is being destroyed: the walk sees the
// catalog as it was when it began, and the erase file as it is. What is gone is no damage.
func (s *Store) again(ctx context.Context, key string, try func(value []byte, err error) error) error {
	s.making.Lock()
	defer s.making.Unlock()
	value, err := s.valueNow(ctx, key)
	if errors.Is(err, catalog.ErrNotFound) {
		return nil
	}
	return try(value, err)
}

func (s *Store) valueNow(ctx context.Context, key string) (value []byte, err error) {
	err = s.c.Catalog.View(ctx, func(r catalog.Reader) (err error) {
		value, err = r.Get(key)
		return err
	})
	return value, err
}

func (s *Store) verifyDEKs(ctx context.Context, cmks map[uuid.UUID]cmkRecord, bad map[string]bool, report func(Problem)) error {
	var stopped error
	err := s.walk(ctx, "dek/", func(key string, value []byte, err error) {
		rec, err := parseDEKOr(key, value, err)
		if err == nil {
			err = s.tryDEK(cmks, bad, rec)
		}
		if damages(err) {
			err = s.again(ctx, key, func(value []byte, err error) error { return s.tryDEKNow(ctx, cmks, bad, key, value, err) })
		}
		if notNow(err) {
			stopped = err
		} else if err != nil {
			report(Problem{Damage, "data key", key, err.Error(), restoreNext})
		}
	})
	return errors.Join(err, stopped)
}

// tryDEKNow is tryDEK with the CMK as it is now.
func (s *Store) tryDEKNow(ctx context.Context, cmks map[uuid.UUID]cmkRecord, bad map[string]bool, key string, value []byte, err error) error {
	rec, err := parseDEKOr(key, value, err)
	if err != nil {
		return err
	}
	cmk := cmkKey(rec.Project, rec.CMK.String())
	value, err = s.valueNow(ctx, cmk)
	delete(cmks, rec.CMK)
	if err := s.tryCMK(cmks, cmk, value, err); notNow(err) {
		return err // what else is wrong with it the walk over the CMKs has told, or it is gone
	}
	return s.tryDEK(cmks, bad, rec)
}

func parseDEKOr(key string, value []byte, err error) (Record, error) {
	if err != nil {
		return Record{}, err
	}
	return parseDEK(key, value)
}

func (s *Store) tryDEK(cmks map[uuid.UUID]cmkRecord, bad map[string]bool, rec Record) error {
	cmk, ok := cmks[rec.CMK]
	switch {
	case ok && len(cmk.Versions) == 0:
		return nil // its material is deleted, and may be imported again
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

// verifySlots holds the erase file and the records against each other, while no key is made or destroyed.
func (s *Store) verifySlots(ctx context.Context, report func(Problem)) error {
	s.making.Lock()
	defer s.making.Unlock()
	var cmks map[uuid.UUID]cmkRecord
	var bad map[string]bool
	err := s.c.Catalog.View(ctx, func(r catalog.Reader) (err error) {
		cmks, bad, err = readableCMKs(r)
		return err
	})
	if err != nil {
		return err
	}
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
