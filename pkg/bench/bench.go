// Package bench measures what this machine can do: how fast each implementation of the cipher is, and how near that is to the
// processor's AES rounds alone, which no implementation can pass.
//
// The machine may have other work, and its frequency may change. So nothing is measured at one stretch: in each of many rounds every
// row has a short slice between two slices of AES rounds, and what counts is the median of the rounds. A row's share of the ceiling so
// means nearly the same on a machine that has other work; the bytes a second don't. What stays is a neighbour on the same core: it takes
// more from a cipher, which loads and stores, than from AES rounds.
package bench

import (
	"context"
	"runtime"
	"slices"
	"time"

	"nbdcrypt/pkg/refusal"
	"nbdcrypt/xts"
)

// Rounds is how often every row is measured by default: a few seconds for all.
const Rounds = 101

// slice is long against the reading of the clock, and so short against a scheduler's turn of milliseconds that most slices are whole:
// many short ones give steadier medians than few long ones.
const slice = 200 * time.Microsecond

// Options say what to measure.
type Options struct {
	// Impls are the names of the implementations; none means all.
	Impls []string
	// Rounds is how often every row is measured, once at least.
	Rounds int
	// Progress hears after each slice how many there were.
	Progress func(done, total int)
}

// Report is what Cipher found.
type Report struct {
	Rows []Row
	// Ceilings are those of each width of register, the widest first: that one is the ceiling of the rows. Without AES instructions
	// in the processor, or in the build, there is none.
	Ceilings []Ceiling
}

// Ceiling is how fast the rounds of AES-256 alone are on registers of one width.
type Ceiling struct {
	Bits           int
	BytesPerSecond int64
}

// Cipher measures implementations of XTS on one core.
func Cipher(ctx context.Context, o Options) (Report, error) {
	subject, err := newSubject()
	if err != nil {
		return Report{}, refusal.New(refusal.Failed, "raise the limit of locked memory (LimitMEMLOCK, ulimit -l)", "bench: no cipher to measure: %w", err)
	}
	defer subject.destroy()
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	s := session{now: time.Now, rounds: o.Rounds, progress: o.Progress, widths: widths()}
	for _, impl := range xts.Implementations() {
		if len(o.Impls) == 0 || slices.Contains(o.Impls, impl.String()) {
			s.rows = append(s.rows, subject.tasks(impl)...)
		}
	}
	if s.measure(ctx) != nil {
		return Report{}, refusal.New(refusal.Failed, "", "bench: interrupted")
	}
	return s.report(), nil
}

// Implementations are the names of what this machine and build can run, the fastest first.
func Implementations() []string {
	var names []string
	for _, impl := range xts.Implementations() {
		names = append(names, impl.String())
	}
	return names
}
