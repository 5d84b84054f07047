// Package clock is time that tests can set. It promises nothing about the time being right: Guard, which keeps a
// high-water mark in the catalog, notices a clock that was set back, and only says so.
package clock

import (
	"sync"
	"time"
)

// Clock tells the time.
type Clock interface{ Now() time.Time }

// System is the machine's clock, in UTC and without a monotonic reading: its times are for records.
type System struct{}

// Now implements Clock.
func (System) Now() time.Time { return time.Now().UTC().Round(0) }

// Fake is a clock for tests; it stands still unless it is told.
type Fake struct {
	mu  sync.Mutex
	now time.Time
}

// NewFake makes a clock that shows t.
func NewFake(t time.Time) *Fake { return &Fake{now: t.UTC()} }

// Now implements Clock.
func (f *Fake) Now() time.Time {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.now
}

// Advance moves the clock by d, backward too.
func (f *Fake) Advance(d time.Duration) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.now = f.now.Add(d)
}
