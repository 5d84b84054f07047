package catalog

import (
	"maps"
	"slices"
	"sort"
	"strings"
	"sync/atomic"
)

// Memory makes a Store that forgets everything when the process ends: for tests and for what is thrown away.
func Memory() Store {
	b := &memory{}
	b.now.Store(&revision{pairs: map[string][]byte{}})
	return newStore(b)
}

// revision is one state of a memory store; it is never changed once it is published.
type revision struct {
	pairs map[string][]byte
	keys  []string
}

type memory struct{ now atomic.Pointer[revision] }

func (m *memory) snapshot() (snapshot, error) { return m.now.Load(), nil }

func (m *memory) commit(changes []change) error {
	next := &revision{pairs: maps.Clone(m.now.Load().pairs)}
	for _, c := range changes {
		if c.value == nil {
			delete(next.pairs, c.key)
		} else {
			next.pairs[c.key] = c.value
		}
	}
	next.keys = slices.Sorted(maps.Keys(next.pairs))
	m.now.Store(next)
	return nil
}

func (m *memory) close() error { return nil }

func (r *revision) get(key string) ([]byte, error) {
	v, ok := r.pairs[key]
	if !ok {
		return nil, ErrNotFound
	}
	return append([]byte{}, v...), nil
}

func (r *revision) scan(prefix, after string, limit int) (pairs []Pair, _ error) {
	from := max(prefix, after)
	for _, k := range r.keys[sort.SearchStrings(r.keys, from):] {
		if !strings.HasPrefix(k, prefix) || len(pairs) == limit {
			break
		}
		if k > after {
			pairs = append(pairs, Pair{k, append([]byte{}, r.pairs[k]...)})
		}
	}
	return pairs, nil
}

func (r *revision) names(prefix, after string, limit int) (names []string) {
	for _, k := range r.keys[sort.SearchStrings(r.keys, max(prefix, after)):] {
		if !strings.HasPrefix(k, prefix) || len(names) == limit {
			break
		}
		if k > after {
			names = append(names, k)
		}
	}
	return names
}

func (r *revision) count(prefix string) (n int) {
	for _, k := range r.keys[sort.SearchStrings(r.keys, prefix):] {
		if !strings.HasPrefix(k, prefix) {
			break
		}
		n++
	}
	return n
}

func (r *revision) visit(from string, fn func(key, value []byte) bool) error {
	for _, k := range r.keys[sort.SearchStrings(r.keys, from):] {
		if !fn([]byte(k), r.pairs[k]) {
			break
		}
	}
	return nil
}

func (r *revision) release() {}
