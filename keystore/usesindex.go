package keystore

import (
	"context"
	"errors"
	"fmt"

	"github.com/google/uuid"

	"nbdcrypt/pkg/catalog"
)

// The index of what a CMK wraps: one empty record for each DEK record, written and dropped in the same commit as that.
const (
	// usesMarker says that the index is complete.
	usesMarker = "uses"
	// usesBatch is how many records one commit adds when the index is built, well below catalog.MaxOps.
	usesBatch = 30
)

func usesPrefix(cmk uuid.UUID) string { return "uses/" + cmk.String() + "/" }

func (r Record) usesKey() string {
	return usesPrefix(r.CMK) + r.Holder.Kind + "/" + r.Holder.ID + "/" + r.Layer
}

// dropUse drops the index record of the DEK at a place. A DEK record that can't be read does not say which CMK it was under:
// it must be possible to drop it all the same, and what stays then is an entry of a holder that is gone.
func dropUse(t catalog.Txn, h Holder, layer string) error {
	old, err := readDEK(t, h, layer)
	if errors.Is(err, catalog.ErrDamaged) {
		return nil // missing counts as damaged
	}
	if err != nil {
		return err
	}
	return t.Delete(old.usesKey())
}

// indexUses builds the index in a store from before there was one, in commits of few records; the marker is last.
func (s *Store) indexUses(ctx context.Context) error {
	err := s.c.Catalog.View(ctx, func(r catalog.Reader) error {
		_, err := r.Get(usesMarker)
		return err
	})
	// Where the marker is damaged the index is built anew: nothing is lost with it.
	if err == nil || !errors.Is(err, catalog.ErrNotFound) && !errors.Is(err, catalog.ErrDamaged) {
		return err
	}
	var names []string
	err = s.walk(ctx, "dek/", func(key string, value []byte, err error) {
		if err != nil {
			return // what it was under nobody knows; `check` tells of it
		}
		if rec, err := parseDEK(key, value); err == nil {
			names = append(names, rec.usesKey())
		}
	})
	for len(names) > 0 && err == nil {
		n := min(usesBatch, len(names))
		err = s.putEmpty(ctx, names[:n])
		names = names[n:]
	}
	if err == nil {
		err = s.putEmpty(ctx, []string{usesMarker})
	}
	if err != nil {
		return fmt.Errorf("keystore: index what keys are used by: %w", err)
	}
	return nil
}

func (s *Store) putEmpty(ctx context.Context, names []string) error {
	return s.update(ctx, "index-uses-"+uuid.NewString(), func(t catalog.Txn) error {
		for _, name := range names {
			if err := t.Put(name, nil); err != nil {
				return err
			}
		}
		return nil
	})
}
