package catalog

import (
	"context"
	"fmt"
	"sync"
)

// change is one write of a commit: a value, or the key's removal where value is nil.
type change struct {
	key   string
	value []byte
}

// snapshot reads one revision of a backend, its own records included.
type snapshot interface {
	get(key string) ([]byte, error)
	scan(prefix, after string, limit int) ([]Pair, error)
	names(prefix, after string, limit int) []string
	count(prefix string) int
	// visit calls fn with each pair from a name on, until it returns false. The bytes are lent.
	visit(from string, fn func(key, value []byte) bool) error
	release()
}

// backend keeps pairs; everything else that a Store promises is done once, in store. Calls of commit never
// overlap, and one that returns an error other than errNotCommitted leaves the outcome unknown.
type backend interface {
	snapshot() (snapshot, error)
	commit([]change) error
	close() error
}

// store is a Store over a backend.
type store struct {
	b backend
	w watchers
	// writer holds the one token of whoever commits: updates are serialised, so that none ever conflicts.
	writer chan struct{}

	mu     sync.Mutex
	closed bool
	broken error
	users  sync.WaitGroup
}

func newStore(b backend) *store {
	return &store{b: b, writer: make(chan struct{}, 1)}
}

// enter counts the caller in, so that Close waits for it.
func (s *store) enter(ctx context.Context) error {
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("catalog: %w", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return ErrClosed
	}
	if s.broken != nil {
		return s.broken
	}
	s.users.Add(1)
	return nil
}

// lock waits for the turn to write.
func (s *store) lock(ctx context.Context) error {
	select {
	case s.writer <- struct{}{}:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("catalog: %w", ctx.Err())
	}
}

func (s *store) unlock() { <-s.writer }

// View implements Store.
func (s *store) View(ctx context.Context, fn func(Reader) error) error {
	if err := s.enter(ctx); err != nil {
		return err
	}
	defer s.users.Done()
	snap, err := s.b.snapshot()
	if err != nil {
		return err
	}
	defer snap.release()
	return fn(reader{snap})
}

// Update implements Store. Calling it from inside another Update of the same store never returns.
func (s *store) Update(ctx context.Context, request string, fn func(Txn) error) error {
	if err := checkRequest(request); err != nil {
		return err
	}
	return s.change(ctx, func(snap snapshot) ([]change, []string, error) {
		t := newTxn(snap)
		if err := fn(t); err != nil {
			return nil, nil, err
		}
		if t.failed != nil {
			return nil, nil, t.failed
		}
		changes, err := account(snap, t.changes(), request)
		return changes, t.keys(), err
	})
}

// change makes one commit of what plan wants, and tells the watchers.
func (s *store) change(ctx context.Context, plan func(snapshot) ([]change, []string, error)) error {
	if err := s.enter(ctx); err != nil {
		return err
	}
	defer s.users.Done()
	if err := s.lock(ctx); err != nil {
		return err
	}
	defer s.unlock()
	snap, err := s.b.snapshot()
	if err != nil {
		return err
	}
	defer snap.release()
	changes, keys, err := plan(snap)
	if err != nil {
		return err
	}
	if err := s.commit(changes); err != nil {
		return err
	}
	s.w.notify(keys)
	return nil
}

// commit remembers a commit that failed half-way: what memory holds may then be more than what the disk holds,
// and only opening again tells.
func (s *store) commit(changes []change) error {
	err := s.b.commit(changes)
	if err == nil || isNotCommitted(err) {
		return err
	}
	err = fmt.Errorf("%w: commit: %w", ErrUnknownOutcome, err)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.broken = fmt.Errorf("catalog: a commit failed earlier; the catalog must be opened again: %v", err)
	return err
}

// Outcome implements Store.
func (s *store) Outcome(ctx context.Context, request string) (bool, error) {
	if err := checkRequest(request); err != nil {
		return false, err
	}
	found := false
	err := s.View(ctx, func(r Reader) error {
		_, err := r.(reader).snap.get(requestKey(request))
		found = err == nil
		return ignoreNotFound(err)
	})
	return found, err
}

// Revision implements Store.
func (s *store) Revision(ctx context.Context) (uint64, error) {
	var m meta
	err := s.View(ctx, func(r Reader) (err error) {
		m, err = readMeta(r.(reader).snap)
		return err
	})
	return m.revision, err
}

// Watch implements Store.
func (s *store) Watch(ctx context.Context, prefix string) (<-chan Event, error) {
	if err := s.enter(ctx); err != nil {
		return nil, err
	}
	defer s.users.Done()
	return s.w.add(ctx, prefix), nil
}

// Close implements Store. It waits for what is under way; closing twice is no error.
func (s *store) Close() error {
	s.mu.Lock()
	was := s.closed
	s.closed = true
	s.mu.Unlock()
	if was {
		return nil
	}
	s.users.Wait()
	s.w.close()
	return s.b.close()
}
