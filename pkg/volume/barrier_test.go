package volume_test

import (
	"encoding/binary"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"nbdcrypt/pkg/volume"
)

// Durability rule 7: while writers go on, a snapshot holds of each what was answered before it was asked for, or later, and nothing
// that began after it was answered. Each writer counts up in a place of its own.
func TestSnapshotsUnderLoad(t *testing.T) {
	r := newRig(t)
	r.create(secretDisk)
	a := r.attach("vault")
	const writers = 4
	var begun, answered [writers]atomic.Uint64
	stop := make(chan struct{})
	var load sync.WaitGroup
	for w := range writers {
		load.Go(func() {
			place := int64(w) * 3 * 4096
			for n := uint64(1); ; n++ {
				select {
				case <-stop:
					return
				default:
				}
				begun[w].Store(n)
				if _, err := a.Device.WriteAt(binary.LittleEndian.AppendUint64(nil, n), place); err != nil {
					t.Error(err)
					return
				}
				answered[w].Store(n)
			}
		})
	}
	type moment struct{ before, after [writers]uint64 }
	var moments []moment
	var seen [writers]uint64
	for i := range 5 {
		var m moment
		for w := range writers {
			for m.before[w] = answered[w].Load(); m.before[w] <= seen[w]; m.before[w] = answered[w].Load() {
				time.Sleep(time.Millisecond) // a busy machine may let none of them write for a while
			}
			seen[w] = m.before[w]
		}
		r.snap("vault", fmt.Sprint("s", i))
		for w := range writers {
			m.after[w] = begun[w].Load()
		}
		moments = append(moments, m)
	}
	close(stop)
	load.Wait()
	for i, m := range moments {
		name := fmt.Sprint("d", i)
		r.linked(fmt.Sprint("s", i), name)
		r.with(name, func(a *volume.Attachment) {
			for w := range writers {
				got := make([]byte, 8)
				_, err := a.Device.ReadAt(got, int64(w)*3*4096)
				must(t, err)
				if n := binary.LittleEndian.Uint64(got); n < m.before[w] || n > m.after[w] {
					t.Errorf("snapshot %d of writer %d holds %d, which is not in %d to %d", i, w, n, m.before[w], m.after[w])
				}
			}
		})
	}
}
