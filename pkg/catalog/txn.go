package catalog

import (
	"errors"
	"fmt"
	"slices"
	"sort"
	"strings"
)

// ownPrefix begins the names of the store's own records, which no caller sees. It sorts before every other name.
const ownPrefix = "\x00"

// afterOwn sorts after every name of the store's own and before every other.
const afterOwn = "\x00\xff"

var errNotCommitted = errors.New("catalog: nothing was changed")

func isNotCommitted(err error) bool { return errors.Is(err, errNotCommitted) }

func ignoreNotFound(err error) error {
	if errors.Is(err, ErrNotFound) {
		return nil
	}
	return err
}

func checkKey(key string) error {
	switch {
	case len(key) > MaxKey:
		return fmt.Errorf("%w: a key of %d bytes, %d are allowed", ErrTooLarge, len(key), MaxKey)
	case key == "" || strings.HasPrefix(key, ownPrefix):
		return fmt.Errorf("catalog: %q can't be a key", key)
	}
	return nil
}

// reader is what View hands out: a snapshot without the store's own records.
type reader struct{ snap snapshot }

// Get implements Reader.
func (r reader) Get(key string) ([]byte, error) {
	if err := checkKey(key); err != nil {
		return nil, err
	}
	return r.snap.get(key)
}

// Scan implements Reader.
func (r reader) Scan(prefix, after string, limit int) ([]Pair, error) {
	if limit <= 0 || strings.HasPrefix(prefix, ownPrefix) {
		return nil, nil
	}
	return r.snap.scan(prefix, max(after, afterOwn), limit)
}

// GetMany implements Reader.
func (r reader) GetMany(keys []string) ([]Pair, error) { return getMany(r, keys) }

func getMany(r Reader, keys []string) (pairs []Pair, _ error) {
	for _, key := range keys {
		v, err := r.Get(key)
		if errors.Is(err, ErrNotFound) {
			continue
		}
		if err != nil {
			return pairs, err
		}
		pairs = append(pairs, Pair{key, v})
	}
	return pairs, nil
}

// Names implements Reader.
func (r reader) Names(prefix, after string, limit int) ([]string, error) {
	if limit <= 0 || strings.HasPrefix(prefix, ownPrefix) {
		return nil, nil
	}
	return r.snap.names(prefix, max(after, afterOwn), limit), nil
}

// Count implements Reader.
func (r reader) Count(prefix string) (int, error) {
	if strings.HasPrefix(prefix, ownPrefix) {
		return 0, nil
	}
	n := r.snap.count(prefix)
	if prefix == "" {
		n -= r.snap.count(ownPrefix)
	}
	return n, nil
}

// txn lays the changes of one Update over a snapshot. The first limit that it meets stays with it, so that a
// function which overlooks the error does not commit half of what it meant.
type txn struct {
	reader
	wrote  map[string][]byte
	ops    int
	failed error
}

func newTxn(snap snapshot) *txn {
	return &txn{reader: reader{snap}, wrote: make(map[string][]byte)}
}

// Get implements Reader: the transaction sees its own changes.
func (t *txn) Get(key string) ([]byte, error) {
	if v, ok := t.wrote[key]; ok {
		if v == nil {
			return nil, ErrNotFound
		}
		return slices.Clone(v), nil
	}
	return t.reader.Get(key)
}

// Scan implements Reader over the snapshot and the changes.
func (t *txn) Scan(prefix, after string, limit int) ([]Pair, error) {
	if limit <= 0 {
		return nil, nil
	}
	// Each change hides at most one pair of the snapshot.
	below, err := t.reader.Scan(prefix, after, limit+len(t.wrote))
	last, all := "", err == nil
	var bad DamagedRecord
	if errors.As(err, &bad) {
		last = bad.Key
	} else if err != nil {
		return nil, err
	}
	pairs := slices.DeleteFunc(below, func(p Pair) bool { _, ok := t.wrote[p.Key]; return ok })
	for k, v := range t.wrote {
		if v != nil && k > after && (all || k < last) && strings.HasPrefix(k, prefix) {
			pairs = append(pairs, Pair{k, slices.Clone(v)})
		}
	}
	sort.Slice(pairs, func(i, j int) bool { return pairs[i].Key < pairs[j].Key })
	if len(pairs) >= limit {
		return pairs[:limit], nil
	}
	return pairs, err
}

// GetMany implements Reader.
func (t *txn) GetMany(keys []string) ([]Pair, error) { return getMany(t, keys) }

// Names implements Reader over the snapshot and the changes.
func (t *txn) Names(prefix, after string, limit int) ([]string, error) {
	names, err := t.reader.Names(prefix, after, limit+len(t.wrote))
	if err != nil || limit <= 0 {
		return nil, err
	}
	names = slices.DeleteFunc(names, func(k string) bool { _, ok := t.wrote[k]; return ok })
	for k, v := range t.wrote {
		if v != nil && k > after && strings.HasPrefix(k, prefix) {
			names = append(names, k)
		}
	}
	slices.Sort(names)
	return names[:min(limit, len(names))], nil
}

// Count implements Reader over the snapshot and the changes.
func (t *txn) Count(prefix string) (int, error) {
	n, err := t.reader.Count(prefix)
	for k, v := range t.wrote {
		if err != nil || !strings.HasPrefix(k, prefix) {
			continue
		}
		_, below := t.reader.Get(k)
		switch {
		case v != nil && errors.Is(below, ErrNotFound):
			n++
		case v == nil && !errors.Is(below, ErrNotFound):
			n--
		}
	}
	return n, err
}

// Put implements Txn.
func (t *txn) Put(key string, value []byte) error {
	if len(value) > MaxValue {
		return t.fail(fmt.Errorf("%w: %s: a value of %d bytes, %d are allowed", ErrTooLarge, key, len(value), MaxValue))
	}
	return t.write(key, append([]byte{}, value...))
}

// Delete implements Txn. Deleting what is absent is no error.
func (t *txn) Delete(key string) error { return t.write(key, nil) }

func (t *txn) write(key string, value []byte) error {
	if err := checkKey(key); err != nil {
		return t.fail(err)
	}
	if t.ops++; t.ops > MaxOps {
		return t.fail(fmt.Errorf("%w: more than %d operations", ErrTooLarge, MaxOps))
	}
	t.wrote[key] = value
	return nil
}

func (t *txn) fail(err error) error {
	if t.failed == nil {
		t.failed = err
	}
	return err
}

func (t *txn) keys() []string {
	keys := make([]string, 0, len(t.wrote))
	for k := range t.wrote {
		keys = append(keys, k)
	}
	sort.Strings(keys)
	return keys
}

func (t *txn) changes() []change {
	changes := make([]change, 0, len(t.wrote))
	for _, k := range t.keys() {
		changes = append(changes, change{k, t.wrote[k]})
	}
	return changes
}
