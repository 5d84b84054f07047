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

// Func is a function that tells the time.
type Func func() time.Time

// Now implements Clock.
func (f Func) Now() time.Time { return f() }

// Booted is a clock that also tells for how long the machine has been up, suspended or not, and in which boot. Setting the clock
// does not touch that. The boot is empty where it is not known.
type Booted interface {
	Clock
	Uptime() (boot string, up time.Duration)
}

// Fake is a clock for tests; it stands still unless it is told.
type Fake struct {
	mu   sync.Mutex
	now  time.Time
	boot string
	up   time.Duration
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

// Pass lets time go by, of which a Booted clock knows that it did.
func (f *Fake) Pass(d time.Duration) {
	f.Advance(d)
	f.mu.Lock()
	defer f.mu.Unlock()
	f.up += d
}

// Boot begins a boot of that name.
func (f *Fake) Boot(boot string) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.boot, f.up = boot, 0
}

// Uptime implements Booted.
func (f *Fake) Uptime() (boot string, up time.Duration) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.boot, f.up
}
