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
// then drops the copy, and opens for work. Where the proof fails the files are put back as they were, with a copy in
// DIR.damaged, and the error wraps ErrDamaged.
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
	proven, err := prove(d, o)
	if err != nil {
		return nil, errors.Join(d.explain(err), d.setAside(errors.Is(err, ErrDamaged)))
	}
	if err := d.dropCopy(); err != nil {
		return nil, err
	}
	return openProven(d, o, proven)
}

// prove opens Badger and checks that everything is there, at which it leaves the tables alone.
func prove(d *lockedDir, o Options) (m meta, err error) {
	if err := precheck(d.path, o.Create); err != nil {
		return m, err
	}
	if err := d.dropEmptied(); err != nil {
		return m, err
	}
	b, err := openBadger(d, o.Log, func(options badger.Options) badger.Options {
		return options.WithNumCompactors(0).WithNumLevelZeroTablesStall(1 << 20)
	})
	if err != nil {
		return m, err
	}
	m, err = proveWhole(b, o)
	if closed := b.db.Close(); err == nil && closed != nil {
		err = fmt.Errorf("catalog: %s: %w", d.path, closed)
	}
	return m, err
}

// openProven opens the catalog for work.
func openProven(d *lockedDir, o Options, proven meta) (Store, error) {
	b, err := openBadger(d, o.Log, func(options badger.Options) badger.Options { return options })
	if err != nil {
		return nil, err
	}
	snap, err := b.snapshot()
	if err != nil {
		return nil, errors.Join(err, b.db.Close())
	}
	now, err := readMeta(snap)
	snap.release()
	if err == nil && now != proven {
		err = fmt.Errorf("%w: it was proven at revision %d and opens at %d", ErrDamaged, proven.revision, now.revision)
	}
	if err != nil {
		return nil, errors.Join(err, b.db.Close())
	}
	b.collect()
	return newStore(b), nil
}

func openBadger(d *lockedDir, to *slog.Logger, as func(badger.Options) badger.Options) (b *badgerBackend, err error) {
	defer func() {
		if p := recover(); p != nil {
			b, err = nil, fmt.Errorf("%w: %s: badger gave up: %v", ErrDamaged, d.path, p)
		}
	}()
	log := &badgerLog{to: to}
	db, err := badger.Open(as(badgerOptions(d.path, log)))
	var errno syscall.Errno
	switch {
	case errors.As(err, &errno):
		return nil, fmt.Errorf("catalog: %s: %w", d.path, err)
	case err != nil:
		return nil, fmt.Errorf("%w: %s: %w", ErrDamaged, d.path, err)
	}
	return &badgerBackend{db: db, dir: d, log: log, stopGC: make(chan struct{})}, nil
}

func proveWhole(b *badgerBackend, o Options) (m meta, err error) {
	snap := badgerSnapshot{b.db.NewTransaction(false)}
	defer snap.release()
	m, err = verify(snap, b.splits())
	if err != nil {
		return m, err
	}
	if m.revision < o.MinRevision {
		return m, fmt.Errorf("%w: it opens at revision %d, and revision %d was committed", ErrDamaged, m.revision, o.MinRevision)
	}
	if o.Check == nil {
		return m, nil
	}
	return m, o.Check(reader{snap})
}
