package cryptdev_test

import (
	"encoding/binary"
	"errors"
	"fmt"
	gosync "sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/google/uuid"

	"nbdcrypt/pkg/pool/pooltest"
	"nbdcrypt/pkg/volume/cryptdev"
	"nbdcrypt/pkg/volume/layer"
)

// tracedTower is a disk on a pool that loses power, with hooks.
func tracedTower(t *testing.T) (*tower, *pooltest.Faults, *pooltest.Power) {
	power := pooltest.NewPower()
	faults := pooltest.NewFaults(power)
	return newTower(t, faults, 8*mib, true), faults, power
}

func nothingBetween() error { return nil }

// pushOnly freezes the top under a new one, which is not sealed.
func (w *tower) pushOnly() {
	w.t.Helper()
	top := &level{rig: w.levels[0].beside(w.size)}
	if err := top.create(); err != nil {
		w.t.Fatal(err)
	}
	w.levels = append([]*level{top}, w.levels...)
	w.device.Push(top.layer(layer.Options{}))
}

// below is what lies under the top, as a disk of its own.
func (w *tower) below() *cryptdev.Device {
	return cryptdev.New(w.device.Layers()[1:], w.size, true)
}

func (w *tower) seal() {
	w.t.Helper()
	if err := w.device.Seal(); err != nil {
		w.t.Fatal(err)
	}
}

// Durability rule 7: a snapshot holds every write that was answered before it, and no write without those that were answered
// before that one began. Each writer puts a number into one place, then into another; the second never is ahead of the first.
func TestDurability7_ExactlyWhatWasAnswered(t *testing.T) {
	w := newTower(t, files(t), 8*mib, true)
	const writers, pushes = 4, 12
	var answered [writers]atomic.Uint64
	stop := make(chan struct{})
	var wg gosync.WaitGroup
	for i := range writers {
		wg.Go(func() {
			p := make([]byte, 700+5000*i)
			for n := uint64(1); ; n++ {
				select {
				case <-stop:
					return
				default:
				}
				binary.LittleEndian.PutUint64(p, n)
				for _, at := range places(i) {
					if _, err := w.device.WriteAt(p, at); err != nil {
						t.Error(err)
					}
				}
				answered[i].Store(n)
			}
		})
	}
	for range pushes {
		for i := range writers {
			for before := answered[i].Load(); answered[i].Load() == before; {
			}
		}
		var before [writers]uint64
		for i := range before {
			before[i] = answered[i].Load()
		}
		w.pushOnly()
		for i := range before {
			at := places(i)
			first, second := number(t, w.below(), at[0]), number(t, w.below(), at[1])
			if second < before[i] || first < second || first > second+1 {
				t.Errorf("writer %d: %d and %d were kept, %d was answered", i, first, second, before[i])
			}
		}
		w.seal()
	}
	close(stop)
	wg.Wait()
	for i := range answered {
		if got := number(t, w.device, places(i)[1]); got != answered[i].Load() {
			t.Errorf("writer %d: the disk holds %d of %d", i, got, answered[i].Load())
		}
	}
}

func places(i int) [2]int64 { return [2]int64{int64(i)*mib + 100, int64(i)*mib + 300<<10} }

func number(t *testing.T, d device, at int64) uint64 {
	t.Helper()
	return binary.LittleEndian.Uint64(read(t, d, at, 8))
}

// Durability rule 7: a write that is at work is waited for and belongs to what is frozen; one that comes meanwhile waits, and
// belongs to what is new. A read that may not wait is told so.
func TestDurability7_WritesInFlight(t *testing.T) {
	w, faults, _ := tracedTower(t)
	working, release := make(chan struct{}), make(chan struct{})
	var once atomic.Bool
	faults.Hook(func(c pooltest.Call) error {
		if !isMap(c) && c.Op == pooltest.OpWrite && once.CompareAndSwap(false, true) {
			close(working)
			<-release
		}
		return nil
	})
	var wg gosync.WaitGroup
	var pushed atomic.Bool
	wg.Go(func() { write(t, w.device, pattern(1, 4096), 3*mib+100<<10) })
	<-working
	wg.Go(func() { w.pushOnly(); pushed.Store(true) })
	var waits error
	for began := time.Now(); !errors.Is(waits, syscall.EAGAIN) && time.Since(began) < 10*time.Second; { // until the push has come to its door
		_, waits = w.device.ReadAtNowait(make([]byte, 512), 6*mib)
		time.Sleep(time.Millisecond)
	}
	if !errors.Is(waits, syscall.EAGAIN) {
		t.Errorf("a read that may not wait: %v", waits)
	}
	meanwhile(&wg, func() { write(t, w.device, pattern(2, 4096), 4*mib) })
	if pushed.Load() {
		t.Error("a write that is at work was not waited for")
	}
	close(release)
	wg.Wait()
	expect(t, w.below(), 3*mib+100<<10, pattern(1, 4096))
	expect(t, w.below(), 4*mib, pattern(0, 4096))
	expect(t, w.device, 3*mib+100<<10, pattern(1, 4096))
	expect(t, w.device, 4*mib, pattern(2, 4096))
}

// Durability rule 7: what was pushed down is flushed with the disk until it is sealed, before the top; from then on it is not
// touched.
func TestDurability7_FlushCoversTheOldTop(t *testing.T) {
	w, faults, power := tracedTower(t)
	write(t, w.device, pattern(1, 4096), 0)
	old := w.levels[0].header.ID
	w.pushOnly()
	write(t, w.device, pattern(2, 4096), 4096)
	var flushed []string
	faults.Hook(func(c pooltest.Call) error {
		if c.Op == pooltest.OpFlush {
			which := "new"
			if c.Volume[:36] == old.String() {
				which = "old"
			}
			flushed = append(flushed, which)
		}
		return nil
	})
	sync(t, w.device)
	if got := fmt.Sprint(flushed); got != "[old old new new]" {
		t.Errorf("before the seal: %s", got)
	}
	w.seal()
	flushed = nil
	write(t, w.device, pattern(3, 4096), 8192)
	sync(t, w.device)
	if got := fmt.Sprint(flushed); got != "[new new]" {
		t.Errorf("after it: %s", got)
	}
	crash(power)
	d := w.open()
	for i := range int64(3) {
		expect(t, d, i*4096, pattern(byte(i+1), 4096))
	}
}

// Durability rule 3: FUA over what was pushed down and is not sealed makes its own range durable.
func TestDurability3_FUAOverAnUnsealedLayer(t *testing.T) {
	w, _, power := tracedTower(t)
	write(t, w.device, pattern(1, 8192), 0)
	sync(t, w.device)
	write(t, w.device, pattern(2, 8192), 0)
	w.pushOnly()
	if _, err := w.device.WriteAtFUA(pattern(3, 512), 512); err != nil {
		t.Fatal(err)
	}
	crash(power)
	want := append(append(pattern(2, 512), pattern(3, 512)...), pattern(2, 3072)...)
	d := w.open()
	expect(t, d, 0, want)
	expect(t, d, 4096, pattern(1, 4096)) // was never flushed
}

// Durability rule 6: a sync of the old top that fails is as sticky as one of the top, whoever asked for it.
func TestDurability6_OfWhatWasPushedDown(t *testing.T) {
	for _, by := range []string{"flush", "seal"} {
		w, faults, _ := tracedTower(t)
		write(t, w.device, pattern(1, 4096), 0)
		old := w.levels[0].header.ID
		w.pushOnly()
		faults.Hook(func(c pooltest.Call) error {
			if c.Op == pooltest.OpFlush && c.Volume == layer.DataName(old) {
				return syscall.EIO
			}
			return nil
		})
		err := map[string]func() error{"flush": w.device.Sync, "seal": w.device.Seal}[by]()
		if !errors.Is(err, syscall.EIO) {
			t.Fatalf("%s: %v", by, err)
		}
		faults.Hook(nil)
		_, _, copying := w.device.CopyUp(0, w.size, 1, false)
		for what, err := range map[string]error{
			"write": second(w.device.WriteAt(pattern(2, 512), 0)),
			"fua":   second(w.device.WriteAtFUA(pattern(2, 512), mib)),
			"trim":  w.device.TrimAt(0, 4096),
			"flush": w.device.Sync(),
			"seal":  w.device.Seal(),
			"copy":  copying,
			"said":  w.device.Failed(),
		} {
			if !errors.Is(err, syscall.EIO) {
				t.Errorf("%s after a failed %s: %v", what, by, err)
			}
		}
		expect(t, w.device, 0, pattern(1, 4096))
		w.pushOnly() // another top does not heal it
		if err := errors.Join(w.device.Failed(), w.device.Seal(), second(w.device.WriteAt(pattern(2, 512), 0))); !errors.Is(err, syscall.EIO) ||
			w.device.Failed() == nil {
			t.Errorf("under another top: %v", err)
		}
		if taken, err := w.device.Replace([]uuid.UUID{old}, nil); err == nil {
			t.Errorf("what failed was taken out: %v", taken)
		}
	}
}

// Durability rule 5: space that was given up just before comes back, and nothing is punched once the layer is sealed.
func TestDurability5_SealGivesSpaceBack(t *testing.T) {
	w, faults, power := tracedTower(t)
	write(t, w.device, pattern(1, 8192), 0)
	sync(t, w.device)
	if err := w.device.TrimAt(0, 4096); err != nil {
		t.Fatal(err)
	}
	var punched atomic.Int64
	faults.Hook(func(c pooltest.Call) error {
		if c.Op == pooltest.OpDiscard {
			punched.Add(c.N)
		}
		return nil
	})
	w.pushOnly()
	expect(t, w.device, 0, pattern(0, 4096))
	w.seal()
	if punched.Load() != 4096 {
		t.Errorf("%d bytes came back", punched.Load())
	}
	crash(power)
	d := w.open()
	expect(t, d, 0, append(pattern(0, 4096), pattern(1, 4096)...))
}

// A push takes no longer where much was written: it looks at none of it.
func TestPushTouchesNoStorage(t *testing.T) {
	w, faults, _ := tracedTower(t)
	write(t, w.device, pattern(1, 4*mib), 0)
	top := w.levels[0].beside(w.size)
	if err := top.create(); err != nil {
		t.Fatal(err)
	}
	l := top.layer(layer.Options{})
	faults.Hook(func(c pooltest.Call) error { t.Errorf("a %s of %s", c.Op, c.Volume); return nil })
	w.device.Push(l)
	faults.Hook(nil)
	expect(t, w.device, 0, pattern(1, 4*mib))
}

// Layers are replaced below the top only, once they are sealed, and one below the other.
func TestReplaceRefuses(t *testing.T) {
	w, _, _ := tracedTower(t)
	for range 3 {
		if err := w.push(nothingBetween); err != nil {
			t.Fatal(err)
		}
	}
	w.pushOnly()
	id := func(i int) uuid.UUID { return w.levels[i].header.ID }
	for what, out := range map[string][]uuid.UUID{
		"nothing": nil, "the top": {id(0)}, "what is not sealed": {id(1)}, "both": {id(1), id(2)}, "with a gap": {id(2), id(4)},
		"upside down": {id(3), id(2)}, "past the bottom": {id(4), id(4)}, "a stranger": {uuid.New()},
	} {
		if taken, err := w.device.Replace(out, nil); !errors.Is(err, syscall.EINVAL) || taken != nil {
			t.Errorf("%s: %v, %v", what, taken, err)
		}
	}
	taken, err := w.device.Replace([]uuid.UUID{id(2), id(3)}, nil)
	if err != nil || len(taken) != 2 || taken[0].ID != id(2) || taken[1].ID != id(3) {
		t.Errorf("what may be replaced: %v, %v", taken, err)
	}
	left := w.device.Layers()
	if len(left) != 3 || left[0].ID != id(0) || left[1].ID != id(1) || left[2].ID != id(4) {
		t.Errorf("what is left: %v", left)
	}
}

// What was taken out can be closed: whoever reads it, or asks for its extents, is waited for.
func TestReplaceWaitsForItsReaders(t *testing.T) {
	for name, use := range map[string]func(d *cryptdev.Device) error{
		"read":   func(d *cryptdev.Device) error { return second(d.ReadAt(make([]byte, 512), 0)) },
		"write":  func(d *cryptdev.Device) error { return second(d.WriteAt(make([]byte, 512), 0)) },
		"extent": func(d *cryptdev.Device) error { _, _, _, err := d.Extent(0, mib); return err },
	} {
		w, faults, _ := tracedTower(t)
		write(t, w.device, pattern(1, 4096), 0)
		if err := w.push(nothingBetween); err != nil {
			t.Fatal(err)
		}
		w.open() // without its map in memory
		working, release := make(chan struct{}), make(chan struct{})
		var once atomic.Bool
		old := w.levels[1].header.ID.String()
		faults.Hook(func(c pooltest.Call) error {
			if c.Volume[:36] == old && c.Op == pooltest.OpRead && once.CompareAndSwap(false, true) {
				close(working)
				<-release
			}
			return nil
		})
		var wg gosync.WaitGroup
		wg.Go(func() {
			if err := use(w.device); err != nil {
				t.Errorf("%s: %v", name, err)
			}
		})
		<-working
		var replaced atomic.Bool
		meanwhile(&wg, func() {
			if err := w.replace(w.levels[1:], nil); err != nil {
				t.Error(err)
			}
			replaced.Store(true)
		})
		if replaced.Load() {
			t.Errorf("%s: was not waited for", name)
		}
		close(release)
		wg.Wait()
	}
}
