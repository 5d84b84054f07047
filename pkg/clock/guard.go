package clock

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"nbdcrypt/pkg/catalog"
)

// markKey is where the catalog keeps the latest time that was ever seen.
const markKey = "clock/high-water"

// markEvery is how far time has to go before the mark follows.
const markEvery = time.Hour

// Guard is a clock that remembers, in the catalog, how late it has been already (rule B3).
type Guard struct {
	Clock
	store catalog.Store

	mu   sync.Mutex
	mark time.Time
}

// NewGuard reads the mark; it writes nothing.
func NewGuard(ctx context.Context, store catalog.Store, base Clock) (*Guard, error) {
	g := &Guard{Clock: base, store: store}
	err := store.View(ctx, func(r catalog.Reader) error {
		b, err := r.Get(markKey)
		if err != nil {
			return err
		}
		return g.mark.UnmarshalText(b)
	})
	if err != nil && !errors.Is(err, catalog.ErrNotFound) {
		return nil, fmt.Errorf("clock: %w", err)
	}
	return g, nil
}

// Keep moves the mark up to now, if it is an hour behind, and tells whether it did. Call it at the start and now
// and then.
func (g *Guard) Keep(ctx context.Context, request string) (bool, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	now := g.Now()
	if now.Before(g.mark.Add(markEvery)) {
		return false, nil
	}
	text, err := now.MarshalText()
	if err != nil {
		return false, fmt.Errorf("clock: %w", err)
	}
	err = catalog.Commit(ctx, g.store, request, func(t catalog.Txn) error { return t.Put(markKey, text) })
	if err != nil {
		return false, fmt.Errorf("clock: %w", err)
	}
	g.mark = now
	return true, nil
}

// Behind tells whether the clock shows less than it once did, and by how much at least.
func (g *Guard) Behind() (time.Duration, bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	d := g.mark.Sub(g.Now())
	return max(d, 0), d > 0
}
