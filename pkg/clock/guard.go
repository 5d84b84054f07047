package clock

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"

	"nbdcrypt/pkg/catalog"
)

// markKey is where the catalog keeps the latest time that was ever seen.
const markKey = "clock/high-water"

const (
	// markEvery is how far time has to go before the mark follows.
	markEvery = time.Hour
	// FarForward is how much further than is known to have gone by the clock may show without being doubted.
	FarForward = 30 * 24 * time.Hour
)

// mark is the latest time that was seen, and how long the machine had been up then in which boot. The boot is empty where that is
// not known.
type mark struct {
	time time.Time
	boot string
	up   time.Duration
}

func (m mark) encode() ([]byte, error) {
	text, err := m.time.MarshalText()
	if err != nil || m.boot == "" {
		return text, err
	}
	return fmt.Appendf(text, " %s %d", m.boot, int64(m.up/time.Second)), nil
}

// parseMark reads a mark. Before the boot was kept there was the time alone.
func parseMark(text []byte) (m mark, err error) {
	words := strings.Split(string(text), " ")
	if err := m.time.UnmarshalText([]byte(words[0])); err != nil || len(words) == 1 {
		return m, err
	}
	if len(words) != 3 {
		return m, fmt.Errorf("%q is no time with a boot", text)
	}
	seconds, err := strconv.ParseInt(words[2], 10, 32)
	m.boot, m.up = words[1], time.Duration(seconds)*time.Second
	return m, err
}

// Guard is a clock that remembers, in the catalog, how late it has been already (rule B3). Now is the machine's time, whatever it
// is; what is destroyed at a date goes by Latest, and only while Ahead doubts nothing.
type Guard struct {
	Clock
	store catalog.Store
	// uptime tells for how long the machine has been up, in which boot; a clock that is set does not touch it.
	uptime func() (boot string, up time.Duration)

	mu   sync.Mutex
	mark mark
	// damage is why the mark can't be read. Nothing is known of the time then, and every clock doubted, until one is accepted.
	damage error
}

// NewGuard reads the mark; it writes nothing.
func NewGuard(ctx context.Context, store catalog.Store, base Clock) (*Guard, error) {
	g := &Guard{Clock: base, store: store, uptime: uptime}
	if b, knows := base.(Booted); knows {
		g.uptime = b.Uptime
	}
	err := store.View(ctx, func(r catalog.Reader) error {
		b, err := r.Get(markKey)
		if err != nil {
			return err
		}
		if g.mark, err = parseMark(b); err != nil {
			g.mark = mark{}
			err = fmt.Errorf("%w: record %q: %w", catalog.ErrDamaged, markKey, err)
		}
		return err
	})
	switch {
	case err == nil || errors.Is(err, catalog.ErrNotFound):
		return g, nil
	case errors.Is(err, catalog.ErrDamaged):
		g.damage = err
		return g, nil
	}
	return nil, fmt.Errorf("clock: %w", err)
}

// Keep moves the mark up to now, if it is an hour behind, and tells whether it did. A clock that is doubted moves nothing. Call it
// at the start and now and then.
func (g *Guard) Keep(ctx context.Context, request string) (bool, error) {
	return g.keep(ctx, request, markEvery)
}

// KeepLast is Keep for a daemon that ends: the mark becomes the time of its end.
func (g *Guard) KeepLast(ctx context.Context, request string) (bool, error) {
	return g.keep(ctx, request, 0)
}

func (g *Guard) keep(ctx context.Context, request string, every time.Duration) (bool, error) {
	g.mu.Lock()
	defer g.mu.Unlock()
	now := g.Now()
	if _, far := g.ahead(now); far || now.Before(g.mark.time.Add(every)) {
		return false, nil
	}
	return true, g.set(ctx, request, now)
}

// Accept takes the clock for right: the mark becomes what it shows, be that later or earlier.
func (g *Guard) Accept(ctx context.Context, request string) error {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.set(ctx, request, g.Now())
}

func (g *Guard) set(ctx context.Context, request string, now time.Time) error {
	m := mark{time: now}
	m.boot, m.up = g.uptime()
	text, err := m.encode()
	if err == nil {
		err = catalog.Commit(ctx, g.store, request, func(t catalog.Txn) error { return t.Put(markKey, text) })
	}
	if err != nil {
		return fmt.Errorf("clock: %w", err)
	}
	g.mark, g.damage = m, nil
	return nil
}

// Damage is why the latest time that was seen is not known; nil where it is, or there is none yet.
func (g *Guard) Damage() error {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.damage
}

// Mark is the latest time that is known to have been; zero before the first was kept.
func (g *Guard) Mark() time.Time {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.mark.time
}

// Latest is the time that dates are set from and held against: what the clock shows, and no earlier than the mark.
func (g *Guard) Latest() time.Time {
	g.mu.Lock()
	defer g.mu.Unlock()
	if now := g.Now(); now.After(g.mark.time) {
		return now
	}
	return g.mark.time
}

// Behind tells whether the clock shows less than it once did, and by how much at least.
func (g *Guard) Behind() (time.Duration, bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	d := g.mark.time.Sub(g.Now())
	return max(d, 0), d > 0
}

// Ahead tells whether the clock is so far ahead of what is known to have gone by that it is doubted, and by how much it is.
func (g *Guard) Ahead() (time.Duration, bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.ahead(g.Now())
}

func (g *Guard) ahead(now time.Time) (time.Duration, bool) {
	if g.damage != nil {
		return 0, true
	}
	if g.mark.time.IsZero() {
		return 0, false // nothing was ever seen: nothing is scheduled either
	}
	known := g.mark.time
	if boot, up := g.uptime(); boot != "" && boot == g.mark.boot && up > g.mark.up {
		known = known.Add(up - g.mark.up)
	}
	d := now.Sub(known)
	return max(d, 0), d > FarForward
}
