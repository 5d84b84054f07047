package cryptdev_test

import (
	"bytes"
	"errors"
	"runtime"
	"strings"
	gosync "sync"
	"sync/atomic"
	"syscall"
	"testing"

	"nbdcrypt/pkg/pool"
	"nbdcrypt/pkg/pool/pooltest"
	"nbdcrypt/pkg/volume/cryptdev"
	"nbdcrypt/pkg/volume/layer"
)

const mib = 1 << 20

// traced is a rig on a pool that loses power, with hooks.
func traced(t *testing.T) (*rig, *pooltest.Faults, *pooltest.Power) {
	power := pooltest.NewPower()
	faults := pooltest.NewFaults(power)
	return newRig(t, faults, 8*mib, 512, true), faults, power
}

// isMap tells whether a call is for a map volume.
func isMap(c pooltest.Call) bool { return c.Volume[len(c.Volume)-4:] == "/map" }

// crash turns the power off and on; the worst case for what was not flushed is that all of it is lost.
func crash(power *pooltest.Power) { power.Restart(nil) }

// Durability rule 1: data is synced before the map says that it is there, the map before the answer.
func TestDurability1_DataBeforeMap(t *testing.T) {
	r, faults, _ := traced(t)
	d := r.open()
	var order []string
	faults.Hook(func(c pooltest.Call) error {
		if c.Op == pooltest.OpWrite || c.Op == pooltest.OpFlush {
			name := "data "
			if isMap(c) {
				name = "map "
			}
			order = append(order, name+string(c.Op))
		}
		return nil
	})
	write(t, d, pattern(1, 4096), 0)
	sync(t, d)
	want := []string{"data write", "data flush", "map write", "map flush"}
	if len(order) != len(want) {
		t.Fatalf("order: %v", order)
	}
	for i := range want {
		if order[i] != want[i] {
			t.Fatalf("order: %v", order)
		}
	}
}

// Durability rule 1: a flush writes the changes that it noted and no later ones, whose data it has not synced; neither in
// the record that it is writing nor in the one that is next.
func TestDurability1_NoLaterChanges(t *testing.T) {
	power := pooltest.NewPower()
	faults := pooltest.NewFaults(power)
	r := newRig(t, faults, 2*recordBytes, 512, true)
	d := r.open()
	blocks := []int64{0, recordBytes}
	for _, off := range blocks {
		write(t, d, pattern(1, 4096), off)
	}
	var once atomic.Bool
	faults.Hook(func(c pooltest.Call) error {
		if isMap(c) && c.Op == pooltest.OpWrite && once.CompareAndSwap(false, true) {
			for _, off := range blocks {
				write(t, d, pattern(2, 4096), off+4096) // after the data's sync, before the map's
			}
		}
		return nil
	})
	sync(t, d)
	faults.Hook(nil)
	crash(power)
	d = r.open()
	for _, off := range blocks {
		expect(t, d, off, pattern(1, 4096))
		expect(t, d, off+4096, pattern(0, 4096)) // not flushed: zeros, where the map's word would have made it noise
	}
}

// Durability rule 1: a flush that comes while a block is on its way to the data volume leaves the block alone, and the
// flush after the write syncs it.
func TestDurability1_AFlushWhileDataIsWritten(t *testing.T) {
	for _, answered := range []bool{false, true} {
		r, faults, power := traced(t)
		d := r.open()
		write(t, d, pattern(1, 4096), 4096)
		var once atomic.Bool
		faults.Hook(func(c pooltest.Call) error {
			if !isMap(c) && c.Op == pooltest.OpWrite && once.CompareAndSwap(false, true) {
				sync(t, d)
				if !answered {
					crash(power)
				}
			}
			return nil
		})
		_, err := d.WriteAt(pattern(2, 4096), 0)
		want := pattern(0, 4096)
		if answered {
			want = pattern(2, 4096)
			sync(t, d)
			crash(power)
		}
		if (err == nil) != answered {
			t.Fatalf("write: %v", err)
		}
		d = r.open()
		expect(t, d, 0, want)
		expect(t, d, 4096, pattern(1, 4096))
	}
}

// Durability rule 1: a flush that coincides joins only a sync that has not started.
func TestDurability1_JoinsOnlyALaterSync(t *testing.T) {
	r, faults, power := traced(t)
	d := r.open()
	write(t, d, pattern(1, 4096), 0)
	started, release := make(chan struct{}), make(chan struct{})
	var syncs atomic.Int32
	faults.Hook(func(c pooltest.Call) error {
		if !isMap(c) && c.Op == pooltest.OpFlush && syncs.Add(1) == 1 {
			close(started)
			<-release
		}
		return nil
	})
	var wg gosync.WaitGroup
	wg.Go(func() { sync(t, d) })
	<-started
	write(t, d, pattern(2, 4096), 4096) // answered while the first sync runs
	for range 4 {
		wg.Go(func() { sync(t, d) })
	}
	close(release)
	wg.Wait()
	if n := syncs.Load(); n < 2 {
		t.Errorf("%d syncs: a flush joined one that had started", n)
	}
	crash(power)
	expect(t, r.open(), 4096, pattern(2, 4096))
}

// Durability rule 1: a flush that finds nothing to do waits for the one that runs, which has taken away the marks of what was
// answered before.
func TestDurability1_ACleanFlushWaitsForTheOneThatRuns(t *testing.T) {
	r, faults, _ := traced(t)
	d := r.open()
	write(t, d, pattern(1, 4096), 0)
	started, release := make(chan struct{}), make(chan struct{})
	var once gosync.Once
	var synced atomic.Bool
	faults.Hook(func(c pooltest.Call) error {
		if isMap(c) && c.Op == pooltest.OpFlush {
			once.Do(func() { close(started); <-release })
			synced.Store(true)
		}
		return nil
	})
	var wg gosync.WaitGroup
	wg.Go(func() { sync(t, d) })
	<-started
	meanwhile(&wg, func() {
		sync(t, d)
		if !synced.Load() {
			t.Error("answered before the map was durable")
		}
	})
	close(release)
	wg.Wait()
}

// Durability rule 3: FUA on durable data is one synchronous write, FUA on anything else is data, map, sync.
func TestDurability3_FUA(t *testing.T) {
	r, faults, power := traced(t)
	d := r.open()
	fua := func(b byte, n int, off int64) {
		t.Helper()
		if _, err := d.WriteAtFUA(pattern(b, n), off); err != nil {
			t.Fatal(err)
		}
	}
	fua(1, 8192, 0)
	var ops []pooltest.Op
	faults.Hook(func(c pooltest.Call) error { ops = append(ops, c.Op); return nil })
	fua(2, 4096, 4096)
	if len(ops) != 1 || ops[0] != pooltest.OpSync {
		t.Errorf("FUA on durable data made %v", ops)
	}
	faults.Hook(nil)
	fua(3, 100, 8192+50)
	crash(power)
	d = r.open()
	expect(t, d, 0, pattern(1, 4096))
	expect(t, d, 4096, pattern(2, 4096))
	expect(t, d, 8192, bytes.Join([][]byte{pattern(0, 50), pattern(3, 100), pattern(0, 4096-150)}, nil))
}

// Durability rule 3, the trap: the block is durably data, a trim of it is being flushed, and then it is written, once more
// with FUA. The map that is on its way says zero, so a synchronous write of the data alone would be lost.
func TestDurability3_FUADuringTheFlushOfATrim(t *testing.T) {
	for _, before := range []string{"trimmed", "written again"} {
		t.Run(before, func(t *testing.T) {
			r, faults, power := traced(t)
			d := r.open()
			write(t, d, pattern(1, 4096), 0)
			sync(t, d)
			if err := d.TrimAt(0, 4096); err != nil {
				t.Fatal(err)
			}
			inFlush, release := make(chan struct{}), make(chan struct{})
			var once atomic.Bool
			faults.Hook(func(c pooltest.Call) error {
				if isMap(c) && c.Op == pooltest.OpWrite && once.CompareAndSwap(false, true) {
					close(inFlush)
					<-release
				}
				return nil
			})
			var wg gosync.WaitGroup
			wg.Go(func() { sync(t, d) })
			<-inFlush
			if before == "written again" {
				write(t, d, pattern(2, 4096), 0)
			}
			wg.Go(func() {
				if _, err := d.WriteAtFUA(pattern(3, 4096), 0); err != nil {
					t.Error(err)
				}
			})
			// The write is visible before it is durable; then the flush that holds the old word may go on.
			for read(t, d, 0, 1)[0] != 3 {
			}
			close(release)
			wg.Wait()
			crash(power)
			expect(t, r.open(), 0, pattern(3, 4096))
		})
	}
}

// Durability rule 3, the other trap: a flush of trims meets ENOSPC in the map after it wrote some records, and the storage
// makes those durable by itself. They say zero, so a synchronous write of the data alone would be lost.
func TestDurability3_FUAAfterAFlushWithoutRoom(t *testing.T) {
	faults := pooltest.NewFaults(pooltest.NewPower())
	r := newRig(t, faults, 2*recordBytes, 512, true)
	d := r.open()
	blocks := []int64{0, recordBytes}
	for _, off := range blocks {
		write(t, d, pattern(1, 4096), off)
	}
	sync(t, d)
	for _, off := range blocks {
		if err := d.TrimAt(off, 4096); err != nil {
			t.Fatal(err)
		}
	}
	var pages atomic.Int32
	faults.Hook(func(c pooltest.Call) error {
		if isMap(c) && c.Op == pooltest.OpWrite && pages.Add(1) > 1 {
			return syscall.ENOSPC
		}
		return nil
	})
	if err := d.Sync(); !errors.Is(err, syscall.ENOSPC) {
		t.Fatalf("Sync: %v", err)
	}
	faults.Hook(nil)
	for _, off := range blocks {
		write(t, d, pattern(2, 4096), off)
		if _, err := d.WriteAtFUA(pattern(3, 4096), off); err != nil {
			t.Fatal(err)
		}
	}
	writeBack(t, faults, layer.MapName(r.header.ID))
	crash(faults.Pool.(*pooltest.Power))
	d = r.open()
	for _, off := range blocks {
		expect(t, d, off, pattern(3, 4096))
	}
}

// writeBack makes all that was written to a volume durable, as storage may do at any time.
func writeBack(t *testing.T, p pool.Pool, name string) {
	t.Helper()
	v, err := p.Open(t.Context(), name, false)
	if err != nil {
		t.Fatal(err)
	}
	if err := v.Flush(); err != nil {
		t.Fatal(err)
	}
}

// Durability rule 4: the first write to part of a block writes the whole block, from the parent where there is one.
func TestDurability4_FirstPartialWrite(t *testing.T) {
	r, faults, power := traced(t)
	below := newRig(t, faults, 8*mib, 512, true)
	base := below.open()
	write(t, base, pattern(7, 8192), 0)
	sync(t, base)
	d := r.over(below)
	write(t, d, pattern(9, 10), 4096+1000)
	want := bytes.Join([][]byte{pattern(7, 1000), pattern(9, 10), pattern(7, 4096-1010)}, nil)
	expect(t, d, 4096, want)
	sync(t, d)
	crash(power)
	d = r.over(below)
	expect(t, d, 0, pattern(7, 4096))
	expect(t, d, 4096, want)
}

// Durability rule 4: over a parent TRIM makes zero, never absent; the same for parts of blocks.
func TestDurability4_TrimOverAParent(t *testing.T) {
	r, faults, _ := traced(t)
	below := newRig(t, faults, 8*mib, 512, true)
	base := below.open()
	write(t, base, pattern(7, 16384), 0)
	sync(t, base)
	d := r.over(below)
	if err := d.TrimAt(4096+100, 8192); err != nil {
		t.Fatal(err)
	}
	want := pattern(7, 16384)
	clear(want[4196 : 4196+8192])
	expect(t, d, 0, want)
	sync(t, d)
	expect(t, r.over(below), 0, want)
}

// Durability rule 5: a hole is punched only after the map that says so is durable.
func TestDurability5_PunchAfterMap(t *testing.T) {
	r, faults, power := traced(t)
	d := r.open()
	write(t, d, pattern(1, 8192), 0)
	sync(t, d)
	if err := d.TrimAt(0, 4096); err != nil {
		t.Fatal(err)
	}
	crash(power)
	d = r.open()
	expect(t, d, 0, pattern(1, 8192)) // the trim was not flushed and its data is whole
	if err := d.TrimAt(0, 4096); err != nil {
		t.Fatal(err)
	}
	var mapped, punched atomic.Bool
	faults.Hook(func(c pooltest.Call) error {
		mapped.Store(mapped.Load() || isMap(c) && c.Op == pooltest.OpFlush)
		if c.Op == pooltest.OpDiscard {
			punched.Store(true)
			if !mapped.Load() {
				t.Error("punched before the map was durable")
			}
		}
		return nil
	})
	sync(t, d)
	r.closeAll() // waits for what is being punched
	if !punched.Load() {
		t.Error("the space never came back")
	}
}

// Durability rule 5: a block that was written again after its trim is not punched.
func TestDurability5_WrittenAgain(t *testing.T) {
	r, faults, _ := traced(t)
	d := r.open()
	write(t, d, pattern(1, 8192), 0)
	sync(t, d)
	if err := d.TrimAt(0, 8192); err != nil {
		t.Fatal(err)
	}
	var once atomic.Bool
	faults.Hook(func(c pooltest.Call) error {
		if isMap(c) && c.Op == pooltest.OpFlush && once.CompareAndSwap(false, true) {
			write(t, d, pattern(2, 4096), 0) // the map says zero by now, and this is answered
		}
		return nil
	})
	sync(t, d)
	faults.Hook(nil)
	expect(t, d, 0, pattern(2, 4096))
	expect(t, d, 4096, pattern(0, 4096))
	sync(t, d)
	expect(t, r.open(), 0, pattern(2, 4096))
}

// Durability rule 5: a block that is trimmed again while a flush makes its content durable waits for the next flush.
func TestDurability5_TrimmedAgain(t *testing.T) {
	r, faults, power := traced(t)
	d := r.open()
	trim := func() {
		t.Helper()
		if err := d.TrimAt(0, 4096); err != nil {
			t.Fatal(err)
		}
	}
	write(t, d, pattern(1, 4096), 0)
	sync(t, d)
	trim()
	write(t, d, pattern(2, 4096), 0)
	var once atomic.Bool
	faults.Hook(func(c pooltest.Call) error {
		if isMap(c) && c.Op == pooltest.OpFlush && once.CompareAndSwap(false, true) {
			trim()
		}
		return nil
	})
	sync(t, d)
	crash(power)
	expect(t, r.open(), 0, pattern(2, 4096))
}

// meanwhile does something beside the caller, who goes on when it is done or has had its chance: what is kept out
// by a lock that the caller holds comes later.
func meanwhile(wg *gosync.WaitGroup, do func()) {
	done := make(chan struct{})
	wg.Go(func() { defer close(done); do() })
	for range 20_000 {
		select {
		case <-done:
			return
		default:
			runtime.Gosched()
		}
	}
}

// Durability rule 5: while a hole is punched, a write of the block waits: it is not punched away.
func TestDurability5_PunchKeepsWritesOut(t *testing.T) {
	r, faults, _ := traced(t)
	d := r.open()
	write(t, d, pattern(1, 4096), 0)
	sync(t, d)
	if err := d.TrimAt(0, 4096); err != nil {
		t.Fatal(err)
	}
	var wg gosync.WaitGroup
	var once atomic.Bool
	faults.Hook(func(c pooltest.Call) error {
		if c.Op == pooltest.OpDiscard && once.CompareAndSwap(false, true) {
			meanwhile(&wg, func() { write(t, d, pattern(2, 4096), 0) })
		}
		return nil
	})
	sync(t, d)
	r.closeAll() // waits for what is being punched
	wg.Wait()
	if !once.Load() {
		t.Fatal("nothing was punched")
	}
	expect(t, d, 0, pattern(2, 4096))
}

// Durability rule 5: a block is not punched between the look at its state and the read of its data.
func TestDurability5_ReadsKeepPunchesOut(t *testing.T) {
	r, faults, _ := traced(t)
	d := r.open()
	write(t, d, pattern(1, 4096), 0)
	sync(t, d)
	var wg gosync.WaitGroup
	var once atomic.Bool
	faults.Hook(func(c pooltest.Call) error {
		if !isMap(c) && c.Op == pooltest.OpRead && once.CompareAndSwap(false, true) {
			meanwhile(&wg, func() {
				if err := errors.Join(d.TrimAt(0, 4096), d.Sync()); err != nil {
					t.Error(err)
				}
			})
		}
		return nil
	})
	expect(t, d, 0, pattern(1, 4096))
	wg.Wait()
	expect(t, d, 0, pattern(0, 4096))
}

// Durability rule 5: zero ciphertext in a data block is damage; a read answers EIO, not noise, and check finds it.
func TestDurability5_LostExtent(t *testing.T) {
	r, _, power := traced(t)
	d := r.open()
	write(t, d, pattern(1, 16384), 0)
	sync(t, d)
	v, err := power.Open(t.Context(), layer.DataName(r.header.ID), false)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := v.WriteAt(make([]byte, 512), 4096+1024); err != nil {
		t.Fatal(err)
	}
	buf := pattern(0xcc, 8192)
	if _, err := d.ReadAt(buf, 0); !errors.Is(err, syscall.EIO) {
		t.Errorf("read of a lost sector: %v", err)
	}
	expect(t, d, 8192, pattern(1, 8192))
	var found []layer.Finding
	l := r.layer(layer.Options{ReadOnly: true})
	blocks, err := l.Check(t.Context(), r.size, func(f layer.Finding) { found = append(found, f) }, func(int64) {})
	if err != nil || blocks != 4 || len(found) != 1 || !found[0].Lost {
		t.Errorf("check: %v %+v", err, found)
	}
}

// Durability rule 6: a failed sync is remembered until detach; WRITE, FLUSH, FUA, trim and zero answer EIO.
func TestDurability6_FailedSyncIsSticky(t *testing.T) {
	for _, broken := range []string{"data", "map", "fua"} {
		t.Run(broken, func(t *testing.T) {
			r, faults, _ := traced(t)
			var told atomic.Int32
			l := r.layer(layer.Options{OnFailure: func(error) { told.Add(1) }})
			d := cryptdev.New([]cryptdev.Layer{l}, r.size, false)
			write(t, d, pattern(1, 8192), 0)
			sync(t, d)
			faults.Hook(func(c pooltest.Call) error {
				flush := c.Op == pooltest.OpFlush && isMap(c) == (broken == "map") && broken != "fua"
				if flush || broken == "fua" && c.Op == pooltest.OpSync {
					return syscall.ENOSPC // after a sync it means the same as EIO: nobody knows what was kept
				}
				return nil
			})
			if broken == "fua" {
				if _, err := d.WriteAtFUA(pattern(2, 4096), 0); !errors.Is(err, syscall.EIO) {
					t.Fatalf("FUA: %v", err)
				}
			} else {
				write(t, d, pattern(2, 4096), 1*mib)
				if err := d.Sync(); !errors.Is(err, syscall.EIO) {
					t.Fatalf("Sync: %v", err)
				}
			}
			faults.Hook(nil) // the disk below is well again, which changes nothing
			for name, err := range map[string]error{
				"write": second(d.WriteAt(pattern(3, 512), 0)),
				"fua":   second(d.WriteAtFUA(pattern(3, 512), 0)),
				"flush": d.Sync(),
				"trim":  d.TrimAt(0, 4096),
				"zero":  d.ZeroAt(0, 4096, true),
				"grow":  l.Resize(16 * mib),
			} {
				if !errors.Is(err, syscall.EIO) || errors.Is(err, syscall.ENOSPC) {
					t.Errorf("%s after the failed sync: %v", name, err)
				}
			}
			if told.Load() != 1 {
				t.Errorf("told %d times", told.Load())
			}
			read(t, d, 0, 4096)
			again := r.open()
			write(t, again, pattern(4, 512), 0)
			sync(t, again)
		})
	}
}

// The catalog says what a layer is: a header that tells otherwise is damage, or whoever writes the pool could turn
// encryption off or swap layers.
func TestHeaderMustBeTheCatalogs(t *testing.T) {
	r, _, _ := traced(t)
	other := newRig(t, r.pool, r.size, 4096, true).header
	for what, want := range map[string]layer.Header{
		"plain":       {ID: r.header.ID, SectorSize: 512},
		"sector size": {ID: r.header.ID, Encrypted: true, SectorSize: 4096},
	} {
		if _, err := layer.Open(t.Context(), r.pool, want, r.size, layer.Options{}); !errors.Is(err, layer.ErrDamaged) {
			t.Errorf("%s: %v", what, err)
		}
	}
	page := make([]byte, 8192)
	from, to := volumeOf(t, r.pool, layer.MapName(r.header.ID)), volumeOf(t, r.pool, layer.MapName(other.ID))
	if _, err := from.ReadAt(page, 0); err != nil {
		t.Fatal(err)
	}
	if _, err := to.WriteAt(page, 0); err != nil {
		t.Fatal(err)
	}
	swapped := layer.Header{ID: other.ID, Encrypted: true, SectorSize: 512}
	if _, err := layer.Open(t.Context(), r.pool, swapped, r.size, layer.Options{}); !errors.Is(err, layer.ErrDamaged) {
		t.Errorf("another layer's header: %v", err)
	}
}

func volumeOf(t *testing.T, p pool.Pool, name string) pool.Volume {
	t.Helper()
	v, err := p.Open(t.Context(), name, false)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// Durability rule 2: a damaged record is EIO each time, for reads and for writes, and its neighbour is well.
func TestDurability2_DamagedRecordStaysAnError(t *testing.T) {
	p := pooltest.NewPower()
	r := newRig(t, p, 2*recordBytes, 512, true)
	d := r.open()
	write(t, d, pattern(1, 4096), 0)
	write(t, d, pattern(1, 4096), recordBytes)
	sync(t, d)
	if _, err := volumeOf(t, p, layer.MapName(r.header.ID)).WriteAt([]byte{0xff}, 8192+100); err != nil {
		t.Fatal(err)
	}
	d = r.open()
	for range 2 {
		_, read := d.ReadAt(make([]byte, 512), 0)
		for what, err := range map[string]error{
			"read": read, "write": second(d.WriteAt(pattern(2, 4096), 4096)), "trim": d.TrimAt(0, 4096),
			"fua": second(d.WriteAtFUA(pattern(2, 4096), 0)),
		} {
			if !errors.Is(err, syscall.EIO) {
				t.Errorf("%s: %v", what, err)
			}
		}
	}
	expect(t, d, recordBytes, pattern(1, 4096))
}

// Durability rule 2: every writing of a page has a number of its own, else two torn ones could add up to a whole.
func TestDurability2_EveryPageWriteHasItsNumber(t *testing.T) {
	p := pooltest.NewPower()
	r := newRig(t, p, 8*mib, 512, true)
	d, seen := r.open(), map[[4]byte]bool{}
	const writes = 6
	for i := range int64(writes) {
		write(t, d, pattern(1, 4096), i*4096)
		sync(t, d)
		var number [4]byte // generations take turns on two pages
		if _, err := volumeOf(t, p, layer.MapName(r.header.ID)).ReadAt(number[:], 8192+i%2*4096+504); err != nil {
			t.Fatal(err)
		}
		seen[number] = true
	}
	if len(seen) != writes {
		t.Errorf("%d writes have %d numbers", writes, len(seen))
	}
}

// Records that are all of one state share memory until one of them changes.
func TestUniformRecordsAreNotShared(t *testing.T) {
	r := newRig(t, pooltest.NewPower(), 2*recordBytes, 512, true)
	d := r.open()
	if err := d.ZeroAt(0, 2*recordBytes, true); err != nil {
		t.Fatal(err)
	}
	write(t, d, pattern(1, 4096), 0)
	expect(t, d, 0, pattern(1, 4096))
	expect(t, d, recordBytes, pattern(0, 4096))
	sync(t, d)
	d = r.open()
	expect(t, d, 0, pattern(1, 4096))
	expect(t, d, recordBytes, pattern(0, 4096))
}

// What WRITE_ZEROES with NO_HOLE allocated is durable after a flush.
func TestReservedSpaceIsSynced(t *testing.T) {
	r, faults, _ := traced(t)
	d := r.open()
	if err := d.ZeroAt(0, 4096, true); err != nil {
		t.Fatal(err)
	}
	var synced atomic.Bool
	faults.Hook(func(c pooltest.Call) error {
		synced.Store(synced.Load() || !isMap(c) && c.Op == pooltest.OpFlush)
		return nil
	})
	sync(t, d)
	if !synced.Load() {
		t.Error("the data volume was not synced")
	}
}

// What an earlier opener left in caches is made durable before anything is read, and is dropped where it may be what a
// failed sync left: the map always, the data after an unclean end. If that fails the layer does not open.
func TestOpeningSettles(t *testing.T) {
	r, faults, _ := traced(t)
	var calls []string
	var fail string
	faults.Hook(func(c pooltest.Call) error {
		name := map[bool]string{true: "map ", false: "data "}[isMap(c)] + string(c.Op)
		calls = append(calls, name)
		if name == fail {
			return syscall.EIO
		}
		return nil
	})
	for _, c := range []struct {
		options layer.Options
		want    string
	}{
		{layer.Options{}, "data settle, map settle-and-drop, map read"},
		{layer.Options{Unclean: true}, "data settle-and-drop, map settle-and-drop, map read"},
		{layer.Options{Unclean: true, ReadOnly: true}, "map read"},
	} {
		calls = nil
		r.layer(c.options)
		if got := strings.Join(calls, ", "); got != c.want {
			t.Errorf("%+v: %s; want %s", c.options, got, c.want)
		}
	}
	for _, fail = range []string{"data settle", "map settle-and-drop"} {
		if _, err := layer.Open(t.Context(), faults, r.header, r.size, layer.Options{}); !errors.Is(err, syscall.EIO) {
			t.Errorf("opened in spite of a failed %s: %v", fail, err)
		}
	}
}

func second(_ int, err error) error { return err }

// Durability rule 6: a flush that panics has failed, and no later one says that all is well.
func TestDurability6_APanicIsAFailedSync(t *testing.T) {
	r, faults, _ := traced(t)
	d := r.open()
	write(t, d, pattern(1, 4096), 0)
	faults.Hook(func(c pooltest.Call) error {
		if c.Op == pooltest.OpFlush {
			panic("on purpose")
		}
		return nil
	})
	func() {
		defer func() { _ = recover() }()
		_ = d.Sync()
		t.Error("no panic")
	}()
	faults.Hook(nil)
	if err := d.Sync(); !errors.Is(err, syscall.EIO) {
		t.Errorf("the next flush: %v", err)
	}
}

// No room: the client gets ENOSPC, nothing else is harmed, and with room again the disk goes on.
func TestNoSpaceIsNotSticky(t *testing.T) {
	for _, at := range []string{"data write", "map reserve", "map write"} {
		t.Run(at, func(t *testing.T) {
			r, faults, power := traced(t)
			d := r.open()
			if at == "map write" {
				write(t, d, pattern(1, 4096), 0)
			}
			faults.Hook(func(c pooltest.Call) error {
				name := map[bool]string{true: "map ", false: "data "}[isMap(c)] + string(c.Op)
				if name == at {
					return syscall.ENOSPC
				}
				return nil
			})
			err := second(d.WriteAt(pattern(2, 4096), 4096))
			if at == "map write" {
				err = d.Sync()
			}
			if !errors.Is(err, syscall.ENOSPC) {
				t.Fatalf("without room: %v", err)
			}
			faults.Hook(nil)
			write(t, d, pattern(3, 4096), 4096)
			sync(t, d)
			crash(power)
			expect(t, r.open(), 4096, pattern(3, 4096))
		})
	}
}

// What a flush without room left undone the next one does, though nothing was written meanwhile.
func TestFlushAfterAFlushWithoutRoom(t *testing.T) {
	r, faults, power := traced(t)
	d := r.open()
	write(t, d, pattern(1, 4096), 0)
	faults.Hook(func(c pooltest.Call) error {
		if isMap(c) && c.Op == pooltest.OpWrite {
			return syscall.ENOSPC
		}
		return nil
	})
	if err := d.Sync(); !errors.Is(err, syscall.ENOSPC) {
		t.Fatalf("Sync: %v", err)
	}
	faults.Hook(nil)
	sync(t, d)
	crash(power)
	expect(t, r.open(), 0, pattern(1, 4096))
}

// Space whose flush met ENOSPC comes back with the next flush.
func TestTrimAfterAFlushWithoutRoom(t *testing.T) {
	r, faults, _ := traced(t)
	d := r.open()
	write(t, d, pattern(1, 4096), 0)
	sync(t, d)
	if err := d.TrimAt(0, 4096); err != nil {
		t.Fatal(err)
	}
	faults.Hook(func(c pooltest.Call) error {
		switch {
		case c.Op == pooltest.OpDiscard:
			t.Error("punched though the map is not durable")
		case isMap(c) && c.Op == pooltest.OpWrite:
			return syscall.ENOSPC
		}
		return nil
	})
	if err := d.Sync(); !errors.Is(err, syscall.ENOSPC) {
		t.Fatalf("Sync: %v", err)
	}
	var punched atomic.Int64
	faults.Hook(func(c pooltest.Call) error {
		if c.Op == pooltest.OpDiscard {
			punched.Add(c.N)
		}
		return nil
	})
	sync(t, d)
	r.closeAll() // waits for what is being punched
	if punched.Load() != 4096 {
		t.Errorf("%d bytes came back", punched.Load())
	}
}

// Space that is given up comes back also when the client never flushes.
func TestTrimWithoutFlush(t *testing.T) {
	r, faults, _ := traced(t)
	d := r.open()
	write(t, d, pattern(1, 4096), 0)
	punched := make(chan struct{})
	var once gosync.Once
	faults.Hook(func(c pooltest.Call) error {
		if c.Op == pooltest.OpDiscard {
			once.Do(func() { close(punched) })
		}
		return nil
	})
	if err := d.TrimAt(0, 4096); err != nil {
		t.Fatal(err)
	}
	<-punched
}
