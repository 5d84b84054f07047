package layer

import (
	"sync"
	"sync/atomic"
	"testing"
)

// Writers have a block alone, readers share it, and nobody waits for ever.
func TestRangeLock(t *testing.T) {
	var l rangeLock
	var readers, writers [8]atomic.Int32
	var wg sync.WaitGroup
	for g := range 8 {
		wg.Go(func() {
			for i := range 20_000 {
				lo := int64((i*7 + g) % 8)
				hi := min(8, lo+1+int64(i%3))
				write := (i+g)%4 == 0
				s := l.lock(lo, hi, write)
				count := &readers
				if write {
					count = &writers
				}
				for b := lo; b < hi; b++ {
					count[b].Add(1)
					if w := writers[b].Load(); w > 1 || w == 1 && readers[b].Load() > 0 {
						t.Errorf("block %d: %d writers, %d readers", b, w, readers[b].Load())
					}
				}
				for b := lo; b < hi; b++ {
					count[b].Add(-1)
				}
				l.unlock(s)
			}
		})
	}
	wg.Wait()
	if len(l.spans) != 0 {
		t.Errorf("%d spans are left", len(l.spans))
	}
}
