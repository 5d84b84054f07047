// Package keystore keeps the keys of disks: a root key that a file or a passphrase opens, customer master keys (CMKs)
// under it, and under those one data encryption key (DEK) for each layer and holder. Everything that it stores lies sealed
// in a catalog; docs/keystore-format.md has the bytes.
//
// A plaintext key lives only in memory of pkg/secret, and every computation on it runs in secret.Do. The root key is open
// until it is locked; a CMK, an erase key or a wrapping key for one wrap or unwrap; a DEK belongs to whoever asked for it.
// A passphrase becomes a key in a process of its own, see pkg/child. What the package does not
// promise: to hide which keys exist (names are in clear), or to notice that a single record was put back to an
// older state.
package keystore

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"path/filepath"
	"regexp"
	"slices"
	"sync"
	"time"

	"github.com/google/uuid"

	"nbdcrypt/pkg/catalog"
	"nbdcrypt/pkg/refusal"
)

// Clock tells when something was made.
type Clock interface{ Now() time.Time }

// Config is what a key store works on.
type Config struct {
	// Catalog is the sealed catalog, see Seal.
	Catalog catalog.Store
	// Root is from OpenRoot. It stays the caller's.
	Root *Root
	// Region is part of every CMK's identity.
	Region string
	Clock  Clock
	// Administrators names who can grant rights in a project, for refusals (rule A38).
	Administrators func(project string) []string
}

// Store is the key store. Its methods may be called from many goroutines.
type Store struct {
	c     Config
	erase *eraseFile
	// making serialises what allocates and frees erase slots.
	making sync.Mutex
	// changing serialises changes of CMKs, and is taken after making.
	changing sync.Mutex
	due      calendar
	finished []Due

	unreadable []error
}

// Unreadable is what Open met and could not read.
func (s *Store) Unreadable() []error { return s.unreadable }

// storeKey is the catalog's proof that it is this store's.
const storeKey = "store"

var nameRule = regexp.MustCompile(`^[a-zA-Z0-9._-]{1,64}$`)

// Open opens the key store; on the first start it completes the store.
func Open(ctx context.Context, c Config) (*Store, error) {
	if !nameRule.MatchString(c.Region) {
		return nil, refusal.New(refusal.Usage, "use 1 to 64 letters, digits, '.', '_' or '-'", "%q can't be a region's name", c.Region)
	}
	path := filepath.Join(c.Root.stateDir, EraseFile)
	if c.Root.First && !exists(path) {
		if err := createErase(path, c.Root.Store); err != nil {
			return nil, err
		}
	}
	e, err := openErase(path, c.Root.Store)
	if err != nil {
		return nil, refusal.New(refusal.Damaged, "restore it from a backup of the state directory", "the erase keys are damaged: %w", err)
	}
	s := &Store{c: c, erase: e}
	for _, step := range []func(context.Context) error{s.bind, s.readKeys, s.indexUses} {
		if err := step(ctx); err != nil {
			return nil, errors.Join(err, e.close())
		}
	}
	return s, nil
}

// readKeys keeps the erase slots that CMKs name for them, whatever the erase file looks like, fills the calendar, and finishes
// the deletions that were cut off.
func (s *Store) readKeys(ctx context.Context) error {
	named := map[int64]bool{}
	var cut []cmkRecord
	err := s.walk(ctx, "key/", func(key string, value []byte, err error) {
		var rec cmkRecord
		if err == nil {
			rec, err = parseCMK(key, value)
		}
		if err != nil {
			s.unreadable = append(s.unreadable, err)
			return
		}
		named[rec.Slot] = true
		s.due.note(rec)
		if rec.State == Deleting || rec.erasing() {
			cut = append(cut, rec)
		}
	})
	if err != nil {
		return damaged(err)
	}
	s.erase.keepFor(named)
	for _, rec := range cut {
		// One that fails stays due, and keeps nobody from starting: it is gone for everybody already.
		begun := slices.DeleteFunc(rec.dates(), func(d Due) bool { return !d.Begun() })
		if rec.State == Deleting {
			err = s.finish(ctx, rec)
		} else {
			_, err = s.finishMaterial(ctx, rec)
		}
		if err == nil {
			s.finished = append(s.finished, begun...)
		}
	}
	return nil
}

// Finished lists what a run before this one began to destroy, and this start has: nobody has told of it yet.
func (s *Store) Finished() []Due { return s.finished }

// bind checks that the catalog is of this store; the first start writes that into it.
func (s *Store) bind(ctx context.Context) error {
	var id []byte
	err := s.c.Catalog.View(ctx, func(r catalog.Reader) (err error) {
		id, err = r.Get(storeKey)
		return err
	})
	want := s.c.Root.Store.String()
	if errors.Is(err, catalog.ErrNotFound) && s.c.Root.First {
		id = []byte(want)
		err = s.update(ctx, "first-start-"+want, func(t catalog.Txn) error {
			return errors.Join(t.Put(storeKey, id), t.Put(usesMarker, nil))
		})
	}
	if errors.Is(err, catalog.ErrNotFound) || errors.Is(err, catalog.ErrDamaged) || err == nil && string(id) != want {
		return refusal.New(refusal.Damaged, "restore the catalog from a backup of the state directory",
			"the catalog is not of store %s: %w", want, errors.Join(err, fmt.Errorf("it names store %q", id)))
	}
	if err != nil {
		return fmt.Errorf("keystore: bind the catalog to its store: %w", err)
	}
	if s.c.Root.First {
		return s.c.Root.complete()
	}
	return nil
}

// Close closes the store's own files, not the catalog and not the root key.
func (s *Store) Close() error { return s.erase.close() }

func (s *Store) update(ctx context.Context, request string, fn func(catalog.Txn) error) error {
	return catalog.Commit(ctx, s.c.Catalog, request, fn)
}

// decodeJSON reads a record into v, which must take all of it: a field that this build does not know is refused.
func decodeJSON(key string, b []byte, v any) error {
	if err := catalog.DecodeStrict(b, v); err != nil {
		return fmt.Errorf("%w: record %q: %w", catalog.ErrDamaged, key, err)
	}
	return nil
}

func putJSON(t catalog.Txn, key string, v any) error {
	var b bytes.Buffer
	e := json.NewEncoder(&b)
	e.SetEscapeHTML(false) // six bytes for one add up in a tag's value
	if err := e.Encode(v); err != nil {
		return fmt.Errorf("keystore: record %q: %w", key, err)
	}
	return t.Put(key, bytes.TrimSuffix(b.Bytes(), []byte("\n")))
}

// damaged makes a refusal of damage below, and leaves other errors alone.
func damaged(err error) error {
	if err == nil || !errors.Is(err, catalog.ErrDamaged) && !errors.Is(err, errBlob) && !errors.Is(err, errSlot) {
		return err
	}
	return refusal.New(refusal.Damaged, "`nbdcrypt check` lists what is damaged and what still opens", "%w", err)
}

func isUUID(s string) bool {
	id, err := uuid.Parse(s)
	return err == nil && id.String() == s
}
