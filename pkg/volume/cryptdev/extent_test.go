package cryptdev_test

import (
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"

	"nbdcrypt/pkg/pool"
	"nbdcrypt/pkg/pool/pooltest"
	"nbdcrypt/pkg/volume/cryptdev"
)

// extents writes down the extents of [off, end) in units of 4096 bytes.
func extents(t *testing.T, d *cryptdev.Device, off, end int64) string {
	t.Helper()
	var all []string
	for off < end {
		n, hole, zero, err := d.Extent(off, end-off)
		if err != nil || n <= 0 {
			t.Fatalf("extent at %d: %d, %v", off, n, err)
		}
		kind := map[[2]bool]string{{true, true}: "hole", {false, true}: "zero", {false, false}: "data"}[[2]bool{hole, zero}]
		all = append(all, fmt.Sprintf("%v %s", float64(n)/4096, kind))
		off += n
	}
	return strings.Join(all, ", ")
}

// The top decides, what it lacks the layers below do, past a shorter one are zeros, and equal neighbours are one extent.
func TestNBD27_Extents(t *testing.T) {
	below := newRig(t, files(t), 8*4096, 512, true)
	base := below.open()
	write(t, base, pattern(1, 4*4096), 0)
	if err := errors.Join(base.ZeroAt(2*4096, 4096, true), base.TrimAt(3*4096, 4096), base.Sync()); err != nil {
		t.Fatal(err)
	}
	if got := extents(t, base, 0, 8*4096); got != "2 data, 1 zero, 5 hole" {
		t.Errorf("the base: %s", got)
	}
	below.closeAll()
	d := newRig(t, below.pool, 32*4096, 512, true).over(below)
	if got := extents(t, d, 0, 32*4096); got != "2 data, 1 zero, 29 hole" {
		t.Errorf("over it: %s", got)
	}
	write(t, d, pattern(2, 4096), 10*4096)
	if err := errors.Join(d.TrimAt(0, 4096), d.ZeroAt(3*4096, 4096, true)); err != nil {
		t.Fatal(err)
	}
	if got := extents(t, d, 0, 32*4096); got != "1 hole, 1 data, 2 zero, 6 hole, 1 data, 21 hole" {
		t.Errorf("after changes: %s", got)
	}
	if got := extents(t, d, 4096+1024, 9*4096+2048); got != "0.75 data, 2 zero, 5.5 hole" {
		t.Errorf("of a part: %s", got)
	}
	d.HideHoles()
	if got := extents(t, d, 0, 32*4096); got != "32 data" {
		t.Errorf("with hidden holes: %s", got)
	}
}

// The same through layers that were pushed: each block is what the highest layer that has it says.
func TestNBD27_ExtentsThroughLayers(t *testing.T) {
	w := newTower(t, files(t), 32*4096, true)
	write(t, w.device, pattern(1, 16*4096), 0)
	d := stackOf(t, w)
	if err := errors.Join(d.TrimAt(2*4096, 4*4096), d.ZeroAt(8*4096, 2*4096, true)); err != nil {
		t.Fatal(err)
	}
	d = stackOf(t, w)
	write(t, d, pattern(2, 2*4096), 3*4096)
	write(t, d, pattern(2, 4096), 20*4096)
	const want = "2 data, 1 hole, 2 data, 1 hole, 2 data, 2 zero, 6 data, 4 hole, 1 data, 11 hole"
	for range 3 {
		if got := extents(t, d, 0, 32*4096); got != want {
			t.Errorf("through %d layers: %s", len(w.levels), got)
		}
		d = stackOf(t, w)
	}
	if err := w.fill(len(w.levels)-1, nothingBetween); err != nil {
		t.Fatal(err)
	}
	if got := extents(t, d, 0, 32*4096); got != "2 data, 1 hole, 2 data, 1 hole, 2 data, 2 hole, 6 data, 4 hole, 1 data, 11 hole" {
		t.Errorf("copied up: %s", got)
	}
}

// An extent is long, and looks at a bounded piece of the map.
func TestNBD27_ExtentsOfALargeDisk(t *testing.T) {
	faults := pooltest.NewFaults(pooltest.NewPower())
	d := newRig(t, faults, 1<<40, 512, true).open()
	write(t, d, pattern(1, 4096), 3<<30)
	var reads atomic.Int32
	faults.Hook(func(c pooltest.Call) error { reads.Add(1); return nil })
	n, hole, zero, err := d.Extent(0, 1<<40)
	if err != nil || !hole || !zero || n != 3<<30 {
		t.Errorf("%d %v %v, %v", n, hole, zero, err)
	}
	n, _, _, err = d.Extent(4<<30, 1<<40-4<<30)
	if err != nil || n < 3<<30 || reads.Load() > 128 {
		t.Errorf("%d bytes with %d reads, %v", n, reads.Load(), err)
	}
}

// A damaged record is an error to who asks for its place, not to who asks for what is before it.
func TestNBD27_ExtentsEndAtDamage(t *testing.T) {
	faults := pooltest.NewFaults(pooltest.NewPower())
	d := newRig(t, faults, 2*recordBytes, 512, true).open()
	write(t, d, pattern(1, 4096), 0)
	faults.Hook(func(pooltest.Call) error { return syscall.EIO })
	if n, _, _, err := d.Extent(4096, 2*recordBytes-4096); n != recordBytes-4096 || err != nil {
		t.Errorf("before it: %d, %v", n, err)
	}
	if _, _, _, err := d.Extent(recordBytes, 1); !errors.Is(err, syscall.EIO) {
		t.Errorf("at it: %v", err)
	}
}

// slowReserve is a pool that allocates by writing.
type slowReserve struct{ pool.Pool }

func (p slowReserve) Capabilities() pool.Capabilities {
	return pool.Capabilities{Discard: true, Reserve: true}
}

// FAST_ZERO writes no data, or it says ENOTSUP and has changed nothing.
func TestNBD23_ZeroFastWritesNothing(t *testing.T) {
	faults := pooltest.NewFaults(pooltest.NewPower())
	d := newRig(t, faults, mib+100, 512, true).open()
	write(t, d, pattern(1, 16*4096), 0)
	write(t, d, pattern(1, 1000), mib-900)
	faults.Hook(func(c pooltest.Call) error {
		if !isMap(c) && (c.Op == pooltest.OpWrite || c.Op == pooltest.OpSync) {
			t.Errorf("%s of %d bytes at %d", c.Op, c.N, c.Off)
		}
		return nil
	})
	for _, c := range []struct {
		off, n int64
		noHole bool
		fast   bool
	}{
		{100, 50, false, false},       // a part of a block of data
		{4096, 5000, false, false},    // its tail is
		{4097, 4096 * 2, true, false}, // its head is
		{4096, 8192, false, true},
		{4100, 8000, false, true}, // what was zeroed already, in part
		{4100, 8000, true, true},  // its space is allocated, too
		{20 * 4096, 7, true, true},
		{15 * 4096, 9 * 4096, true, true},
		{mib, 99, false, false},
		{mib - 4096, 4096 + 100, false, true}, // the last block, as far as the disk goes
		{mib + 50, 50, true, true},
	} {
		want := read(t, d, 0, mib+100)
		err := d.ZeroAtFast(c.off, c.n, c.noHole)
		if c.fast && err != nil || !c.fast && !errors.Is(err, syscall.ENOTSUP) {
			t.Errorf("%+v: %v", c, err)
		}
		if err == nil {
			clear(want[c.off : c.off+c.n])
		}
		expect(t, d, 0, want)
	}
}

// Where allocating means writing, it is not fast, and says so before it has begun.
func TestNBD23_ZeroFastWithoutFallocate(t *testing.T) {
	d := newRig(t, slowReserve{pooltest.NewPower()}, mib, 512, true).open()
	write(t, d, pattern(1, 8192), 0)
	if err := d.ZeroAtFast(0, 8192, true); !errors.Is(err, syscall.ENOTSUP) {
		t.Errorf("with space: %v", err)
	}
	expect(t, d, 0, pattern(1, 8192))
	if err := d.ZeroAtFast(0, 8192, false); err != nil {
		t.Errorf("with a hole: %v", err)
	}
	expect(t, d, 0, pattern(0, 8192))
}

// What is read ahead: data where it lies, the map where it is not in memory, nothing where there are zeros; a bounded piece
// of a long range.
func TestCacheReadsAhead(t *testing.T) {
	faults := pooltest.NewFaults(pooltest.NewPower())
	below := newRig(t, faults, mib, 512, true)
	base := below.open()
	write(t, base, pattern(1, 8192), 0)
	sync(t, base)
	below.closeAll()
	d := newRig(t, faults, 1<<40, 512, true).over(below)
	ahead := func(off, n int64) string {
		t.Helper()
		var asked []string
		faults.Hook(func(c pooltest.Call) error {
			if c.Op != pooltest.OpFetch {
				t.Errorf("it waits for a %s of %s", c.Op, c.Volume)
			}
			asked = append(asked, fmt.Sprintf("%s %d+%d", c.Volume[len(c.Volume)-4:], c.Off, c.N))
			return nil
		})
		defer faults.Hook(nil)
		if err := d.CacheAt(off, n); err != nil {
			t.Error(err)
		}
		return strings.Join(asked, ", ")
	}
	if got := ahead(0, 64<<10); got != "/map 8192+8192, data 0+65536" {
		t.Errorf("of the top, whose map is not in memory: %s", got)
	}
	read(t, d, 0, 4096)
	if got := ahead(0, 64<<10); got != "data 0+8192" {
		t.Errorf("of the layer below: %s", got)
	}
	if got := ahead(1<<30, 1<<39); strings.Count(got, "+") > 4 {
		t.Errorf("of a long range: %s", got)
	}
}
