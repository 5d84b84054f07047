package layer

import (
	"math/bits"
	"sync"
	"unsafe"
)

const (
	stripeCount = 128
	stripeSize  = 64 << 10
)

// stripe is one lock, in a cache line of its own.
type stripe struct {
	sync.RWMutex
	_ [64 - unsafe.Sizeof(sync.RWMutex{})]byte
}

// stripes let readers of a range share it and a writer have it alone. A range has the stripes of its pieces of 64 KiB, so
// that a lock costs no memory and no search; that two ranges share a stripe by chance makes one wait, no more. Everybody
// takes stripes from the first to the last, so nobody waits in a circle, and Go's RWMutex starves neither side.
type stripes [stripeCount]stripe

// Held is a range that is locked.
type Held struct {
	stripes *stripes
	set     stripeSet
	write   bool
}

// stripeSet has a bit for each stripe.
type stripeSet [stripeCount / 64]uint64

// cover gives the stripes of [off, off+n): all of them from 8 MiB on. Each 8 MiB begin at another stripe, so that streams
// which are a power of two apart do not run side by side over the same stripes.
func cover(off, n int64) (set stripeSet) {
	if n <= 0 {
		return set
	}
	first, last := uint64(off)/stripeSize, uint64(off+n-1)/stripeSize
	if last-first >= stripeCount-1 {
		return stripeSet{^uint64(0), ^uint64(0)}
	}
	for unit := first; unit <= last; unit++ {
		const golden = 0x9e3779b97f4a7c15
		turned := unit + unit/stripeCount*golden>>32
		set[turned%stripeCount/64] |= 1 << (turned % 64)
	}
	return set
}

// Lock waits until [off, off+n), and what else is in its blocks, is free for reading, or for writing. A range as long as the
// disk keeps everybody out.
func (l *Layer) Lock(off, n int64, write bool) Held {
	h := Held{&l.locks, cover(off, n), write}
	for word, set := range h.set {
		for ; set != 0; set &= set - 1 {
			s := &h.stripes[word*64+bits.TrailingZeros64(set)]
			if write {
				s.Lock()
			} else {
				s.RLock()
			}
		}
	}
	return h
}

// TryLock is Lock where nobody has to be waited for.
func (l *Layer) TryLock(off, n int64, write bool) (h Held, ok bool) {
	h = Held{stripes: &l.locks, write: write}
	for word, set := range cover(off, n) {
		for ; set != 0; set &= set - 1 {
			s := &h.stripes[word*64+bits.TrailingZeros64(set)]
			if write && !s.TryLock() || !write && !s.TryRLock() {
				h.Unlock()
				return Held{}, false
			}
			h.set[word] |= set & -set
		}
	}
	return h, true
}

// Unlock ends the lock.
func (h Held) Unlock() {
	for word, set := range h.set {
		for ; set != 0; set &= set - 1 {
			s := &h.stripes[word*64+bits.TrailingZeros64(set)]
			if h.write {
				s.Unlock()
			} else {
				s.RUnlock()
			}
		}
	}
}
