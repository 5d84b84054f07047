package audit

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"

	"nbdcrypt/pkg/audit/chain"
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

// keyedKey tells in the catalog that there is a head file.
const keyedKey = "audit/keyed"

// CheckHead holds the log against the head that the sealed catalog saw last. Where the catalog knows of a head file there must be one.
func (l *Log) CheckHead(ctx context.Context, store catalog.Store) error {
	seen, keyed, err := seenBy(ctx, store)
	if err != nil {
		return err
	}
	if keyed && l.head == nil {
		return headDamage(os.ErrNotExist)
	}
	check := chain.NewWitnesses()
	if seen != nil {
		check.Add(*seen, catalogName)
	}
	return l.checkLast(check)
}

// catalogName is what a refusal calls the catalog.
const catalogName = "the catalog"

// CatalogHead is the head that the sealed catalog saw last, for Verify. It is empty before the first.
func CatalogHead(ctx context.Context, store catalog.Store) (map[string][]Head, error) {
	seen, _, err := seenBy(ctx, store)
	if err != nil || seen == nil {
		return map[string][]Head{}, err
	}
	return map[string][]Head{catalogName: {*seen}}, nil
}

// seenBy reads what the sealed catalog knows of the log.
func seenBy(ctx context.Context, store catalog.Store) (seen *Head, keyed bool, err error) {
	err = store.View(ctx, func(r catalog.Reader) error {
		// One that can't be read says as much as one that can.
		if _, err := r.Get(keyedKey); err == nil || errors.Is(err, catalog.ErrDamaged) {
			keyed = true
		} else if !errors.Is(err, catalog.ErrNotFound) {
			return err
		}
		b, err := r.Get(headKey)
		if errors.Is(err, catalog.ErrNotFound) {
			// Every commit holds it.
			if n, err := r.Count(""); err != nil || n == 0 {
				return err
			}
			return fmt.Errorf("%w: record %q is missing", catalog.ErrDamaged, headKey)
		}
		if err != nil {
			return err
		}
		if err := json.Unmarshal(b, &seen); err != nil {
			return fmt.Errorf("%w: record %q: %w", catalog.ErrDamaged, headKey, err)
		}
		return nil
	})
	if errors.Is(err, catalog.ErrDamaged) {
		return nil, false, refusal.New(refusal.Damaged, "restore the state directory from a backup", "the log's head in the catalog: %w", err)
	}
	if err != nil {
		return nil, false, fmt.Errorf("audit: the head in the catalog: %w", err)
	}
	return seen, keyed, nil
}

// checkLast holds records against their witnesses, from the last back to the first that one of them knows.
func (l *Log) checkLast(check *chain.Witnesses) error {
	l.mu.Lock()
	now := l.durable
	l.mu.Unlock()
	if err := check.End(now.Head); err != nil {
		return err
	}
	f, err := os.Open(l.c.Path)
	if err != nil {
		return fmt.Errorf("audit: %w", err)
	}
	defer f.Close()
	return chain.Backward(f, now.Size, func(line []byte, _ int64) (more bool, err error) {
		link, err := chain.ParseLink(line)
		if err != nil {
			return false, err
		}
		return link.Seq > check.First(), check.Visit(link)
	})
}

// KeepHead makes the head file of a store from before there was one, and has the catalog remember that there is one. A log that replaces
// another is remembered in any case.
func (l *Log) KeepHead(ctx context.Context, request string, store catalog.Store, replaces bool) error {
	if !replaces {
		if _, keyed, err := seenBy(ctx, store); err != nil || keyed {
			return err
		}
	}
	if l.head == nil {
		if err := l.makeHead(); err != nil {
			return err
		}
	}
	return catalog.Commit(ctx, store, request, func(t catalog.Txn) error { return t.Put(keyedKey, []byte("1")) })
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
