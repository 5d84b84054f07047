package cryptdev_test

import (
	"errors"
	"math/rand/v2"
	gosync "sync"
	"sync/atomic"
	"syscall"
	"testing"

	"nbdcrypt/pkg/volume/cryptdev"
)

// Everything at once over one small piece of disk: overlapping unaligned writers, readers of both kinds, trims, zeros, flushes,
// extents. Each write puts one byte value into its whole range, and each range keeps to 700-byte cells, so that a cell which
// reads as two values was seen half-way: writes of one cell go through one sector's read-modify-write or another's.
func TestAllAtOnce(t *testing.T) {
	for _, encrypted := range []bool{true, false} {
		r := newRig(t, files(t), mib, 512, encrypted)
		want := allAtOnce(t, r.open(), nil)
		expect(t, r.open(), 0, want)
	}
}

// The same while the stack changes: new tops, copying up, layers that go and layers that are merged.
func TestAllAtOnceOverAStack(t *testing.T) {
	for _, encrypted := range []bool{true, false} {
		w := newTower(t, files(t), mib, encrypted)
		rng, changes := rand.New(rand.NewPCG(5, 5)), 0
		want := allAtOnce(t, w.device, func() error {
			changes++
			switch depth := len(w.levels) - 1; {
			case depth > 0 && rng.IntN(3) == 0:
				return w.fill(1+rng.IntN(depth), nothingBetween)
			case depth > 1 && rng.IntN(3) == 0:
				return w.merge(1 + rng.IntN(depth-1))
			case depth < 5:
				return w.push(nothingBetween)
			}
			return nil
		})
		t.Logf("%d changes of the stack", changes)
		if changes < 20 {
			t.Errorf("the stack changed %d times", changes)
		}
		expect(t, w.open(), 0, want)
	}
}

// allAtOnce plays on a device while change is called again and again, and returns what the device holds then, durably.
func allAtOnce(t *testing.T, d *cryptdev.Device, change func() error) []byte {
	const cell, cells, rounds = 700, 150, 400
	var wg, changing gosync.WaitGroup
	var stop atomic.Bool
	changing.Go(func() {
		for change != nil && !stop.Load() {
			if err := change(); err != nil {
				t.Error(err)
				return
			}
		}
	})
	whole := func(p []byte) bool {
		for at := 0; at < len(p); at += cell {
			for _, b := range p[at : at+cell] {
				if b != p[at] {
					return false
				}
			}
		}
		return true
	}
	for g := range 8 {
		wg.Go(func() {
			rng := rand.New(rand.NewPCG(uint64(g), 9))
			for range rounds {
				first := rng.IntN(cells)
				n := cell * (1 + rng.IntN(min(20, cells-first)))
				off, p := int64(first*cell), make([]byte, n)
				var err error
				switch rng.IntN(8) {
				case 0:
					err = d.TrimAt(off, cell)
				case 1:
					err = d.ZeroAt(off, cell, true)
				case 2:
					err = d.Sync()
				case 3:
					_, _, _, err = d.Extent(off, int64(n))
				case 4:
					if _, err = d.ReadAt(p, off); err == nil && !whole(p) {
						t.Error("a cell was read half-way")
					}
				case 5:
					if _, err = d.ReadAtNowait(p, off); err == nil && !whole(p) {
						t.Error("a cell was read half-way, without waiting")
					} else if errors.Is(err, syscall.EAGAIN) {
						err = nil
					}
				case 6:
					_, err = d.WriteAtFUA(pattern(byte(1+rng.IntN(255)), cell), off)
				default:
					_, err = d.WriteAt(pattern(byte(1+rng.IntN(255)), n), off)
				}
				if err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	stop.Store(true)
	changing.Wait()
	want := read(t, d, 0, cell*cells)
	if !whole(want) {
		t.Error("a cell holds two writes")
	}
	sync(t, d)
	return want
}
