package layer

import (
	"math/rand/v2"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"nbdcrypt/pkg/pool/pooltest"
)

// At every moment, whoever writes and flushes, also flushes that meet no room, and also where the journal had none for a while: the journal's changes,
// made over what is durable or over what a flush is writing, give what is in memory. Where there is no such journal nobody finds one.
func TestJournalOverTheMapIsMemory(t *testing.T) {
	w := newJournaled(t)
	faults := pooltest.NewFaults(w.pool)
	w.pool = faults
	faults.Hook(func(c pooltest.Call) error {
		if c.Op == pooltest.OpWrite && strings.HasSuffix(c.Volume, "/map") && rand.IntN(4) == 0 {
			return syscall.ENOSPC
		}
		return nil
	})
	l := w.open()
	must(t, l.blocks.prepare(0, 1))
	stop := make(chan struct{})
	var all sync.WaitGroup
	defer func() { close(stop); all.Wait() }()
	during := func(do func()) {
		all.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
					do()
				}
			}
		})
	}
	const blocks = journaledSize / BlockSize
	for range 2 {
		during(func() {
			b := rand.Int64N(blocks)
			l.blocks.set(b, 1+rand.Int64N(min(9, blocks-b)), State(1+rand.IntN(3)))
		})
	}
	during(func() { _ = l.flushes.do(l.flush) })
	looks := 300
	if testing.Short() {
		looks = 60
	}
	for late := time.Now().Add(time.Minute); looks > 0; {
		if time.Now().After(late) {
			t.Error("the journal does not come back")
			break
		}
		if !w.compare(l) {
			time.Sleep(100 * time.Microsecond) // it comes back with the next flush that succeeds
			continue
		}
		if looks--; looks%20 == 0 { // a moment without room
			l.blocks.mu.Lock()
			if l.blocks.journal != nil {
				l.blocks.orEnd(syscall.ENOSPC)
			}
			l.blocks.mu.Unlock()
		}
	}
}

// compare holds the journal against memory as both are now, and tells whether there is one.
func (w *journaled) compare(l *Layer) bool {
	w.t.Helper()
	l.blocks.mu.Lock()
	defer l.blocks.mu.Unlock()
	changes, err := w.read()
	if there := l.blocks.journal != nil && !l.blocks.journal.early; there != (err == nil) {
		w.t.Fatalf("there is a journal: %v; read: %v", there, err)
	}
	if err != nil {
		return false
	}
	r := l.blocks.records.at(0)
	for _, under := range []*states{r.durable, r.flying} {
		if under == nil {
			continue
		}
		got := *under
		for _, c := range changes {
			for b := c.Block; b < c.Block+c.Blocks; b++ {
				got.set(int(b), c.State)
			}
		}
		if got != *r.cur {
			w.t.Fatal("the journal over the map is not what is in memory")
		}
	}
	return true
}
