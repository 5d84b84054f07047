package audit

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"

	"nbdcrypt/pkg/catalog"
	"nbdcrypt/pkg/refusal"
)

// headKey is where the catalog keeps the log's head.
const headKey = "audit/head"

// Witness decorates the sealed catalog: every commit also holds the log's head as it is then, so that a log which
// is cut below it is found. It takes one of an Update's operations.
func Witness(store catalog.Store, l *Log) catalog.Store { return witness{store, l} }

type witness struct {
	catalog.Store
	log *Log
}

// Update implements catalog.Store.
func (w witness) Update(ctx context.Context, request string, fn func(catalog.Txn) error) error {
	return w.Store.Update(ctx, request, func(t catalog.Txn) error {
		if err := fn(t); err != nil {
			return err
		}
		b, err := json.Marshal(w.log.Head())
		if err != nil {
			return fmt.Errorf("audit: %w", err)
		}
		return t.Put(headKey, b)
	})
}

// CheckHead holds the log against the head that the sealed catalog saw last.
func (l *Log) CheckHead(ctx context.Context, store catalog.Store) error {
	var seen Head
	err := store.View(ctx, func(r catalog.Reader) error {
		b, err := r.Get(headKey)
		if err != nil {
			return err
		}
		if err := json.Unmarshal(b, &seen); err != nil {
			return fmt.Errorf("%w: record %q: %w", catalog.ErrDamaged, headKey, err)
		}
		return nil
	})
	if errors.Is(err, catalog.ErrNotFound) {
		return nil
	}
	if errors.Is(err, catalog.ErrDamaged) {
		return refusal.New(refusal.Damaged, "restore the state directory from a backup", "the log's head in the catalog: %w", err)
	}
	if err != nil {
		return fmt.Errorf("audit: the head in the catalog: %w", err)
	}
	have, err := l.hashOf(seen.Seq)
	if err != nil || have == seen.Hash {
		return err
	}
	return refusal.New(refusal.Damaged, "keep the file as evidence, and restore the state directory from a backup",
		"the audit log was altered or cut: it ends at record %d, and the catalog saw record %d with another hash", l.Head().Seq, seen.Seq)
}

// hashOf reads the hash of one record; it is empty where there is none.
func (l *Log) hashOf(seq uint64) (hash string, err error) {
	if seq == 0 {
		return genesis(l.store), nil
	}
	f, err := os.Open(l.path)
	if err != nil {
		return "", fmt.Errorf("audit: %w", err)
	}
	defer f.Close()
	_, err = walk(f, l.store, func(r Record) error {
		if r.Seq == seq {
			hash = r.Hash
		}
		return nil
	})
	return hash, err
}

// Unrecorded records at a start that the catalog is at a higher revision than the log knows: a verb was carried
// out and the daemon ended before it was recorded. It tells whether that was so.
func (l *Log) Unrecorded(ctx context.Context, revision uint64) (bool, error) {
	known := l.Revision()
	if revision <= known {
		return false, nil
	}
	_, err := l.Append(ctx, Record{
		Verb: "audit.unrecorded", Outcome: OK, Catalog: revision,
		Message: fmt.Sprintf("the catalog is at revision %d, the log knew of %d: what was done between is not recorded", revision, known),
	})
	return true, err
}
