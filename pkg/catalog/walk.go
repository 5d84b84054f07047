package catalog

import (
	"errors"
	"slices"
)

// page is how many pairs are read at a time, at most.
const page = 1024

// Each calls fn with every pair whose key starts with prefix, in order. It ends at the first value that can't be read.
func Each(r Reader, prefix string, fn func(Pair) error) error {
	return Walk(r, prefix, func(p Pair, err error) error {
		if err != nil {
			return err
		}
		return fn(p)
	})
}

// Walk is Each for those who go on where a value can't be read: fn gets its key with the error.
func Walk(r Reader, prefix string, fn func(p Pair, err error) error) error {
	for after, limit := "", page; ; {
		pairs, err := r.Scan(prefix, after, limit)
		for _, p := range pairs {
			if err := fn(p, nil); err != nil {
				return err
			}
			after = p.Key
		}
		limit = min(2*limit, page)
		var bad DamagedRecord
		switch {
		case errors.As(err, &bad):
			if err := fn(Pair{Key: bad.Key}, err); err != nil {
				return err
			}
			// The next ones may be damaged too, and what is read of a page after one is read in vain.
			after, limit = bad.Key, 1
		case err != nil:
			return err
		case len(pairs) == 0:
			return nil
		}
	}
}

// EachName calls fn with every key that starts with prefix, in order.
func EachName(r Reader, prefix string, fn func(key string) error) error {
	for after := ""; ; {
		names, err := r.Names(prefix, after, page)
		if err != nil || len(names) == 0 {
			return err
		}
		for _, name := range names {
			if err := fn(name); err != nil {
				return err
			}
		}
		after = names[len(names)-1]
	}
}

// GetAll calls fn with those of the keys, in order, that are there, and where a value can't be read with the error.
func GetAll(r Reader, keys []string, fn func(p Pair, err error) error) error {
	for len(keys) > 0 {
		some := keys[:min(page, len(keys))]
		pairs, err := r.GetMany(some)
		for _, p := range pairs {
			if err := fn(p, nil); err != nil {
				return err
			}
		}
		var bad DamagedRecord
		if errors.As(err, &bad) {
			if err := fn(Pair{Key: bad.Key}, err); err != nil {
				return err
			}
			some = some[:slices.Index(some, bad.Key)+1]
		} else if err != nil {
			return err
		}
		keys = keys[len(some):]
	}
	return nil
}
