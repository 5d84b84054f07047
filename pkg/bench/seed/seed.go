// Package seed fills a state directory with many keys and disks for benchmarks, in less time than a daemon takes: the records are
// made by the packages that make them for users, in memory, and go into the catalog in large commits. The disks have no files. It
// is for directories that are thrown away: nothing holds on to a store that was there before.
package seed

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sync"

	"nbdcrypt/keystore"
	"nbdcrypt/pkg/catalog"
	"nbdcrypt/pkg/clock"
)

// Options say what to fill, and how much there should be. No daemon may run on the directory, and one must have started there.
type Options struct {
	State, RootKey, Region string
	// Projects are made, of Keys keys each.
	Projects, Keys int
	// Disks are in the project default under its default key, and Few more under the key FewKey there.
	Disks, Few int
	FewKey     string
	Size       int64
}

// Project names the project with that number, from 0.
func Project(i int) string { return fmt.Sprintf("project-%d", i) }

// seeder gathers the records.
type seeder struct {
	o    Options
	root *keystore.Root

	mu       sync.Mutex
	records  map[string][]byte // sealed
	revision uint64
}

// Fill fills it.
func Fill(ctx context.Context, o Options) (err error) {
	root, err := keystore.OpenRoot(o.RootKey, o.State)
	if err != nil {
		return err
	}
	defer root.Close()
	s := &seeder{o: o, root: root, records: map[string][]byte{}}
	for _, step := range []func(context.Context) error{s.read, s.keys, s.disks, s.write} {
		if err := step(ctx); err != nil {
			return fmt.Errorf("seed: %w", err)
		}
	}
	return nil
}

func (s *seeder) dir() string { return filepath.Join(s.o.State, keystore.CatalogDir) }

// read takes over what is there already.
func (s *seeder) read(ctx context.Context) (err error) {
	store, err := catalog.Open(s.dir(), catalog.Options{})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, store.Close()) }()
	if s.revision, err = store.Revision(ctx); err != nil {
		return err
	}
	return s.gather(ctx, store)
}

// gather keeps the records of a store.
func (s *seeder) gather(ctx context.Context, store catalog.Store) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return store.View(ctx, func(r catalog.Reader) error {
		return catalog.Each(r, "", func(p catalog.Pair) error {
			s.records[p.Key] = p.Value
			return nil
		})
	})
}

// slate is a small catalog in memory to work on, for a time.
type slate struct{ catalog.Store }

// wipe begins anew, with the records of these names.
func (s *slate) wipe(ctx context.Context, from *seeder, names ...string) error {
	s.Store = catalog.Memory()
	from.mu.Lock()
	defer from.mu.Unlock()
	return s.Update(ctx, "wipe", func(t catalog.Txn) error {
		for _, name := range names {
			if err := t.Put(name, from.records[name]); err != nil {
				return err
			}
		}
		return nil
	})
}

// open opens the key store on a slate.
func (s *seeder) open(ctx context.Context, on *slate) (*keystore.Store, catalog.Store, error) {
	if err := on.wipe(ctx, s, "store"); err != nil {
		return nil, nil, err
	}
	sealed := keystore.Seal(on, s.root)
	keys, err := keystore.Open(ctx, keystore.Config{Catalog: sealed, Root: s.root, Region: s.o.Region, Clock: clock.System{}})
	return keys, sealed, err
}

// write makes the catalog anew, of everything.
func (s *seeder) write(ctx context.Context) (err error) {
	if err := os.RemoveAll(s.dir()); err != nil {
		return err
	}
	store, err := catalog.Open(s.dir(), catalog.Options{Create: true})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, store.Close()) }()
	var stream bytes.Buffer
	if err := catalog.WriteStream(ctx, &stream, s.revision, s.sorted()); err != nil {
		return err
	}
	return store.Import(ctx, io.Reader(&stream))
}

// sorted reads the records in their order.
func (s *seeder) sorted() *sorted {
	return &sorted{values: s.records, names: slices.Sorted(maps.Keys(s.records))}
}
