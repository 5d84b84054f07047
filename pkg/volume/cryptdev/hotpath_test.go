package cryptdev_test

import (
	"errors"
	"runtime"
	gosync "sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"nbdcrypt/pkg/pool/pooltest"
	"nbdcrypt/pkg/volume/cryptdev"
)

// EAGAIN is what a read that may not wait is told while the map's record is not in memory.
func TestNowaitWantsTheMapInMemory(t *testing.T) {
	r, _, _ := traced(t)
	d := r.open()
	write(t, d, pattern(1, 4096), 0)
	sync(t, d)
	d = r.open()
	p := make([]byte, 4096)
	if _, err := d.ReadAtNowait(p, 0); !errors.Is(err, syscall.EAGAIN) {
		t.Errorf("before the map was read: %v", err)
	}
	expect(t, d, 0, pattern(1, 4096))
	if n, err := d.ReadAtNowait(p, 0); n != 4096 || err != nil || p[0] != 1 {
		t.Errorf("after it: %d, %v", n, err)
	}
}

// EAGAIN is what it is told while somebody writes there, and what the storage says of the data is passed on.
func TestNowaitDoesNotWaitForWriters(t *testing.T) {
	r, faults, _ := traced(t)
	d := r.open()
	write(t, d, pattern(1, 8192), 0)
	p := make([]byte, 4096)
	nowait := func(off int64) error { return second(d.ReadAtNowait(p, off)) }
	var asked atomic.Bool
	faults.Hook(func(c pooltest.Call) error {
		if c.Op == pooltest.OpWrite {
			asked.Store(true)
			if err := nowait(4096); !errors.Is(err, syscall.EAGAIN) {
				t.Errorf("beside a write: %v", err)
			}
		}
		return nil
	})
	write(t, d, pattern(2, 4096), 4096)
	if !asked.Load() {
		t.Fatal("no write was seen")
	}
	if err := nowait(4096); err != nil {
		t.Errorf("after the write: %v", err)
	}
	faults.Hook(func(c pooltest.Call) error {
		if c.Op == pooltest.OpNowait {
			return syscall.EAGAIN
		}
		return nil
	})
	if err := nowait(4096); !errors.Is(err, syscall.EAGAIN) {
		t.Errorf("storage would wait: %v", err)
	}
	if err := nowait(4 * mib); err != nil {
		t.Errorf("zeros need no storage: %v", err)
	}
}

// While one record of the map is read from storage, once for all who want it, those in memory are there for everybody.
func TestHitsDoNotWaitForMisses(t *testing.T) {
	faults := pooltest.NewFaults(pooltest.NewPower())
	r := newRig(t, faults, 3*recordBytes, 512, true)
	d := r.open()
	for i := range int64(2) {
		write(t, d, pattern(byte(i+1), 4096), i*recordBytes)
	}
	sync(t, d)
	d = r.open()
	expect(t, d, 0, pattern(1, 4096))
	reading, release := make(chan struct{}), make(chan struct{})
	var reads atomic.Int32
	faults.Hook(func(c pooltest.Call) error {
		if isMap(c) && c.Op == pooltest.OpRead && reads.Add(1) == 1 {
			close(reading)
			<-release
		}
		return nil
	})
	var wg gosync.WaitGroup
	for range 4 {
		wg.Go(func() { expect(t, d, recordBytes, pattern(2, 4096)) })
	}
	<-reading
	for range 10_000 { // the others get there too
		runtime.Gosched()
	}
	expect(t, d, 0, pattern(1, 4096))
	write(t, d, pattern(3, 4096), 4096)
	sync(t, d)
	close(release)
	wg.Wait()
	if n := reads.Load(); n != 1 {
		t.Errorf("the record was read %d times", n)
	}
}

// Long work lets others have their turn: who wants to read a place gets it long before the end. Space is reserved 4 MiB at a
// time, holes are made by records of the map.
func TestLongZeroingGoesInSteps(t *testing.T) {
	for _, noHole := range []bool{true, false} {
		faults := pooltest.NewFaults(pooltest.NewPower())
		size := map[bool]int64{true: recordBytes, false: 16 * recordBytes}[noHole]
		below := newRig(t, faults, size, 512, true)
		base := below.open()
		for off := int64(0); off < size; off += recordBytes {
			write(t, base, pattern(1, 4096), off)
		}
		sync(t, base)
		below.closeAll()
		d := newRig(t, faults, size, 512, true).over(below)
		var wg gosync.WaitGroup
		var began, done atomic.Bool
		var steps, before atomic.Int32 // all, and those before the read was done
		faults.Hook(func(c pooltest.Call) error {
			if c.Op != pooltest.OpReserve || isMap(c) == noHole {
				return nil
			}
			if began.CompareAndSwap(false, true) {
				wg.Go(func() { read(t, d, 8192, 4096); done.Store(true) })
			}
			// Long enough for the read to get its turn on a busy machine, if it may have one.
			for wait := time.Now(); !done.Load() && time.Since(wait) < 50*time.Millisecond; {
				runtime.Gosched()
			}
			if steps.Add(1); !done.Load() {
				before.Add(1)
			}
			return nil
		})
		if err := d.ZeroAt(0, size, noHole); err != nil {
			t.Fatal(err)
		}
		wg.Wait()
		if all, n := steps.Load(), before.Load(); all != 16 || n == 0 || n > 8 {
			t.Errorf("a read waited for %d steps of %d", n, all)
		}
		expect(t, d, 0, pattern(0, 4096))
	}
}

// What an idle disk costs on the heap.
func TestIdleDiskIsSmall(t *testing.T) {
	const disks = 64
	p := files(t)
	var rigs []*rig
	for range disks {
		rigs = append(rigs, newRig(t, p, 1<<40, 512, false))
	}
	before := heap()
	var open []*cryptdev.Device
	for _, r := range rigs {
		d := r.open()
		open = append(open, d)
		read(t, d, 1<<30, 4096)
	}
	each := (heap() - before) / disks
	t.Logf("%d bytes for each disk", each)
	if each > 24<<10 {
		t.Errorf("an idle disk takes %d bytes", each)
	}
	runtime.KeepAlive(open)
}

func heap() int64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.GC()
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}
