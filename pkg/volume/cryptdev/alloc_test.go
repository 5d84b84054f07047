//go:build !race

// The race detector makes pools drop buffers at random.

package cryptdev_test

import (
	"errors"
	"fmt"
	"testing"
)

// What the NBD server calls for a request allocates nothing, on settled data, whatever the offset.
func TestNothingIsAllocated(t *testing.T) {
	for _, sector := range []int{512, 4096} {
		for _, encrypted := range []bool{true, false} {
			d := newRig(t, files(t), 8*mib, sector, encrypted).open()
			write(t, d, pattern(1, 4*mib), 0)
			sync(t, d)
			for _, r := range [][2]int64{{4096, 4096}, {512, 512}, {4097, 5000}, {8192, 300 << 10}} {
				p, off := make([]byte, r[1]), r[0]
				for name, do := range map[string]func() error{
					"read":   func() error { return second(d.ReadAt(p, off)) },
					"nowait": func() error { return second(d.ReadAtNowait(p, off)) },
					"write":  func() error { return second(d.WriteAt(p, off)) },
					"extent": func() error { _, _, _, err := d.Extent(off, r[1]); return err },
					"cache":  func() error { return d.CacheAt(off, r[1]) },
					"zeros":  func() error { return second(d.ReadAt(p, 4*mib+off)) },
				} {
					mustNotAllocate(t, fmt.Sprintf("%s, %d bytes at %d, sector %d, encrypted %v", name, r[1], off, sector, encrypted), do)
				}
			}
			sync(t, d)
			p := make([]byte, 4096)
			mustNotAllocate(t, "FUA", func() error { return second(d.WriteAtFUA(p, 8192)) })
			mustNotAllocate(t, "unaligned FUA", func() error { return second(d.WriteAtFUA(p, 8292)) })
			mustNotAllocate(t, "flush of a clean disk", d.Sync)
			mustNotAllocate(t, "an empty write", func() error { return second(d.WriteAt(nil, 5)) })
		}
	}
}

// Nor does it where the disk has many layers, each of which holds a part of what is read.
func TestNothingIsAllocatedThroughLayers(t *testing.T) {
	w := newTower(t, files(t), 8*mib, true)
	write(t, w.device, pattern(1, 4*mib), 0)
	for i := range 7 {
		if err := w.push(nothingBetween); err != nil {
			t.Fatal(err)
		}
		write(t, w.device, pattern(byte(i+2), 64<<10), int64(i)*128<<10)
	}
	d := w.device
	sync(t, d)
	for _, r := range [][2]int64{{2 * mib, 4096}, {64<<10 + 100, 700}, {4096, mib}, {5 * mib, 8192}} {
		p, off := make([]byte, r[1]), r[0]
		for name, do := range map[string]func() error{
			"read":   func() error { return second(d.ReadAt(p, off)) },
			"nowait": func() error { return second(d.ReadAtNowait(p, off)) },
			"extent": func() error { _, _, _, err := d.Extent(off, r[1]); return err },
			"cache":  func() error { return d.CacheAt(off, r[1]) },
			"failed": d.Failed,
		} {
			mustNotAllocate(t, fmt.Sprintf("%s, %d bytes at %d", name, r[1], off), do)
		}
	}
	p := make([]byte, 5000)
	write(t, d, p, 2*mib+100)
	mustNotAllocate(t, "write", func() error { return second(d.WriteAt(p, 2*mib+100)) })
	sync(t, d)
	mustNotAllocate(t, "flush of a clean disk", d.Sync)
}

func mustNotAllocate(t *testing.T, what string, do func() error) {
	t.Helper()
	var failed error
	// The collector empties pools of buffers: a buffer that is made anew now and then is no allocation of a request.
	if n := testing.AllocsPerRun(100, func() { failed = errors.Join(failed, do()) }); n >= 1 || failed != nil {
		t.Errorf("%s: %v allocations, %v", what, n, failed)
	}
}
