package access

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"nbdcrypt/pkg/catalog"
	"nbdcrypt/pkg/refusal"
)

const recordVersion = 1

// record is what lies in the catalog as JSON, and refuses what a build of this version could not have written under that name.
type record interface{ check(name string) error }

func checkVersion(v int) error {
	if v != recordVersion {
		return fmt.Errorf("it has version %d, this build reads version %d", v, recordVersion)
	}
	return nil
}

// parse reads a record, of which every field must be known: an attribute that nobody reads must not look as if it held.
func parse[R record](name string, b []byte) (rec R, err error) {
	if err = catalog.DecodeStrict(b, &rec); err == nil {
		err = rec.check(name)
	}
	if err != nil {
		return rec, fmt.Errorf("%w: record %q: %w", catalog.ErrDamaged, name, err)
	}
	return rec, nil
}

func get[R record](r catalog.Reader, name string) (rec R, err error) {
	b, err := r.Get(name)
	if err != nil {
		return rec, err
	}
	return parse[R](name, b)
}

func put(t catalog.Txn, name string, rec record) error {
	b, err := json.Marshal(rec)
	if err != nil {
		return fmt.Errorf("access: %w", err)
	}
	return t.Put(name, b)
}

// each visits the records under a prefix, in order.
func each[R record](r catalog.Reader, prefix string, visit func(name string, rec R) error) error {
	for after := ""; ; {
		pairs, err := r.Scan(prefix, after, 256)
		if err != nil || len(pairs) == 0 {
			return err
		}
		for _, p := range pairs {
			rec, err := parse[R](p.Key, p.Value)
			if err == nil {
				err = visit(p.Key, rec)
			}
			if err != nil {
				return err
			}
			after = p.Key
		}
	}
}

// Unreadable are the records of this package that can't be read, with their names.
func (a *Access) Unreadable(ctx context.Context, tell func(name string, err error)) error {
	return a.store.View(ctx, func(r catalog.Reader) error {
		return errors.Join(unreadable[roleRecord](r, "role/", tell), unreadable[projectRecord](r, projectPrefix, tell),
			unreadable[keyGrantRecord](r, "key-grant/", tell))
	})
}

func unreadable[R record](r catalog.Reader, prefix string, tell func(name string, err error)) error {
	return catalog.Walk(r, prefix, func(p catalog.Pair, err error) error {
		if err == nil {
			_, err = parse[R](p.Key, p.Value)
		}
		if err != nil {
			tell(p.Key, err)
		}
		return nil
	})
}

// damaged makes a refusal of damage below.
func damaged(err error) error {
	if !errors.Is(err, catalog.ErrDamaged) {
		return err
	}
	return refusal.New(refusal.Damaged, "`nbdcrypt check` lists what is damaged", "the rights can't be read: %w", err)
}
