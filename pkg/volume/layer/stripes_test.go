package layer

import (
	"math/bits"
	"sync"
	"sync/atomic"
	"testing"
	"unsafe"
)

// Writers have a block alone, readers share it, and nobody waits for ever, whichever of the two ways they lock.
func TestLock(t *testing.T) {
	var l Layer
	const units = 3 * stripeCount
	var readers, writers [units]atomic.Int32
	var wg sync.WaitGroup
	for g := range 8 {
		wg.Go(func() {
			for i := range 5000 {
				lo := int64(i*7+g) % units
				hi := min(units, lo+1+int64(i%3))
				if i%500 == 0 {
					lo, hi = 0, units
				}
				write := (i+g)%4 == 0
				h := l.Lock(0, 0, false)
				if i%2 == 0 {
					h = l.Lock(lo*stripeSize+4096, (hi-lo-1)*stripeSize+1, write)
				} else if got, ok := l.TryLock(lo*stripeSize, (hi-lo)*stripeSize, write); ok {
					h = got
				} else {
					continue
				}
				use(t, &readers, &writers, lo, hi, write)
				h.Unlock()
			}
		})
	}
	wg.Wait()
	if h, ok := l.TryLock(0, MaxSize, true); !ok {
		t.Error("a lock is left")
	} else {
		h.Unlock()
	}
}

// use notes who is in [lo, hi), and that nobody is who may not be.
func use(t *testing.T, readers, writers *[3 * stripeCount]atomic.Int32, lo, hi int64, write bool) {
	count := readers
	if write {
		count = writers
	}
	for b := lo; b < hi; b++ {
		count[b].Add(1)
		if w := writers[b].Load(); w > 1 || w == 1 && readers[b].Load() > 0 {
			t.Errorf("unit %d: %d writers, %d readers", b, w, readers[b].Load())
		}
	}
	for b := lo; b < hi; b++ {
		count[b].Add(-1)
	}
}

// A reader that waits for a writer holds up no stripe that it got before, once it gives up.
func TestTryLockLeavesNothing(t *testing.T) {
	var l Layer
	held := l.Lock(5*stripeSize, 1, true)
	if _, ok := l.TryLock(0, 8*stripeSize, false); ok {
		t.Fatal("two have one range")
	}
	held.Unlock()
	all, ok := l.TryLock(0, MaxSize, true)
	if !ok {
		t.Fatal("a try that failed left a lock")
	}
	all.Unlock()
}

// What a lock covers: the stripe of every byte, all of them for a long range, none for no bytes; places a power of two apart
// have stripes of their own mostly.
func TestCover(t *testing.T) {
	if unsafe.Sizeof(stripes{}) > 8<<10 {
		t.Errorf("the locks of a layer take %d bytes", unsafe.Sizeof(stripes{}))
	}
	if cover(12345, 0) != (stripeSet{}) || cover(77, 8<<20) != (stripeSet{^uint64(0), ^uint64(0)}) {
		t.Error("none or all")
	}
	for _, off := range []int64{0, 4095, 8<<20 - 1, 1<<50 - 1<<20} {
		whole := cover(off, 1<<20)
		for at := off; at < off+1<<20; at += 4096 {
			if one := cover(at, 1); bits.OnesCount64(one[0])+bits.OnesCount64(one[1]) != 1 ||
				one[0]&^whole[0] != 0 || one[1]&^whole[1] != 0 {
				t.Fatalf("byte %d of the range at %d is not covered", at, off)
			}
		}
	}
	for step := int64(8 << 20); step < 1<<40; step *= 2 {
		var seen stripeSet
		for i := range int64(16) {
			one := cover(i*step, 1)
			seen[0], seen[1] = seen[0]|one[0], seen[1]|one[1]
		}
		if n := bits.OnesCount64(seen[0]) + bits.OnesCount64(seen[1]); n < 8 {
			t.Errorf("16 places %d apart share %d stripes", step, n)
		}
	}
}
