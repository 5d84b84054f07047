package catalog

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"syscall"

	"github.com/dgraph-io/badger/v4"
)

// Options are what Open wants to know.
type Options struct {
	// MinRevision is the lowest revision that the catalog may be at: the one that the audit log saw last.
	MinRevision uint64
	// Create allows a catalog to be made. Without it a directory that is missing or holds none is damage.
	Create bool
	// Check is asked last about what is in the catalog: whether every value opens, say. Nil skips it.
	Check func(Reader) error
	// Log gets Badger's words, at debug level. Nil drops them.
	Log *slog.Logger
}

// Open opens the embedded catalog in dir, which it makes where it is missing.
//
// Badger repairs as it opens: it cuts its logs at the first record that it can't read, and removes tables that
// its manifest does not list. So Open works on the terms of "first prove, then let go": it copies the files to
// DIR.before, opens, compares every pair with the store's account and its revision with MinRevision, and only
// then drops the copy. Where the proof fails the files are put back as they were, with a copy in DIR.damaged, and the
// error wraps ErrDamaged.
func Open(dir string, o Options) (Store, error) {
	if o.Log == nil {
		o.Log = slog.New(slog.DiscardHandler)
	}
	if o.Create {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return nil, fmt.Errorf("catalog: %w", err)
		}
	}
	d, err := lockDir(dir)
	if err != nil {
		return nil, err
	}
	s, err := openLocked(d, o)
	if err != nil {
		return nil, errors.Join(err, d.Close())
	}
	return s, nil
}

func openLocked(d *lockedDir, o Options) (Store, error) {
	if err := d.resume(); err != nil {
		return nil, err
	}
	if err := d.reserve(); err != nil {
		return nil, err
	}
	if err := d.keepCopy(); err != nil {
		return nil, err
	}
	b, err := prove(d, o)
	if err != nil {
		return nil, errors.Join(d.explain(err), d.setAside(errors.Is(err, ErrDamaged)))
	}
	if err := d.dropCopy(); err != nil {
		return nil, errors.Join(err, b.db.Close())
	}
	b.collect()
	return newStore(b), nil
}

// prove opens Badger and checks that everything is there.
func prove(d *lockedDir, o Options) (*badgerBackend, error) {
	if err := precheck(d.path, o.Create); err != nil {
		return nil, err
	}
	log := &badgerLog{to: o.Log}
	db, err := openBadger(d.path, log)
	if err != nil {
		return nil, err
	}
	b := &badgerBackend{db: db, dir: d, log: log, stopGC: make(chan struct{})}
	if err := proveWhole(b, o); err != nil {
		return nil, errors.Join(err, db.Close())
	}
	return b, nil
}

func openBadger(dir string, log *badgerLog) (db *badger.DB, err error) {
	defer func() {
		if p := recover(); p != nil {
			db, err = nil, fmt.Errorf("%w: %s: badger gave up: %v", ErrDamaged, dir, p)
		}
	}()
	db, err = badger.Open(badgerOptions(dir, log))
	var errno syscall.Errno
	switch {
	case errors.As(err, &errno):
		return nil, fmt.Errorf("catalog: %s: %w", dir, err)
	case err != nil:
		return nil, fmt.Errorf("%w: %s: %w", ErrDamaged, dir, err)
	}
	return db, nil
}

func proveWhole(b *badgerBackend, o Options) error {
	snap, err := b.snapshot()
	if err != nil {
		return err
	}
	defer snap.release()
	m, err := verify(snap)
	if err != nil {
		return err
	}
	if m.revision < o.MinRevision {
		return fmt.Errorf("%w: it opens at revision %d, and revision %d was committed", ErrDamaged, m.revision, o.MinRevision)
	}
	if o.Check == nil {
		return nil
	}
	return o.Check(reader{snap})
}
