package catalogtest

import (
	"context"
	"sync"

	"nbdcrypt/pkg/catalog"
)

// Twice decorates a store so that the function of every Update runs two times, the first for nothing: what a
// store that meets a conflict does.
func Twice(s catalog.Store) catalog.Store { return twice{s} }

type twice struct{ catalog.Store }

// errAgain ends the first run.
type errAgain struct{}

func (errAgain) Error() string { return "catalogtest: run again" }

// Update implements catalog.Store.
func (t twice) Update(ctx context.Context, request string, fn func(catalog.Txn) error) error {
	err := t.Store.Update(ctx, request, func(txn catalog.Txn) error {
		if err := fn(txn); err != nil {
			return err
		}
		return errAgain{}
	})
	if _, ok := err.(errAgain); !ok {
		return err
	}
	return t.Store.Update(ctx, request, fn)
}

// Unknown decorates a store with commits whose outcome is unknown to the caller.
type Unknown struct {
	catalog.Store
	mu   sync.Mutex
	next []bool
}

// NewUnknown decorates s; nothing fails until Inject says so.
func NewUnknown(s catalog.Store) *Unknown { return &Unknown{Store: s} }

// Inject makes the next Update that is not spoken for end with catalog.ErrUnknownOutcome, and tells whether it
// commits all the same.
func (u *Unknown) Inject(commits bool) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.next = append(u.next, commits)
}

func (u *Unknown) take() (commits, injected bool) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if len(u.next) == 0 {
		return false, false
	}
	commits = u.next[0]
	u.next = u.next[1:]
	return commits, true
}

// Update implements catalog.Store.
func (u *Unknown) Update(ctx context.Context, request string, fn func(catalog.Txn) error) error {
	commits, injected := u.take()
	if !injected {
		return u.Store.Update(ctx, request, fn)
	}
	err := u.Store.Update(ctx, request, func(txn catalog.Txn) error {
		if err := fn(txn); err != nil {
			return err
		}
		if !commits {
			return catalog.ErrUnknownOutcome
		}
		return nil
	})
	if err != nil {
		return err
	}
	return catalog.ErrUnknownOutcome
}

// Asking decorates a store so that ask is called before every commit; its error is answered in place of the commit, as where the
// power has gone.
func Asking(s catalog.Store, ask func() error) catalog.Store { return asking{s, ask} }

type asking struct {
	catalog.Store
	ask func() error
}

// Update implements catalog.Store.
func (a asking) Update(ctx context.Context, request string, fn func(catalog.Txn) error) error {
	if err := a.ask(); err != nil {
		return err
	}
	return a.Store.Update(ctx, request, fn)
}
