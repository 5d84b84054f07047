package cryptdev_test

import (
	"bytes"
	"errors"
	gosync "sync"
	"sync/atomic"
	"syscall"
	"testing"

	"nbdcrypt/pkg/pool/pooltest"
	"nbdcrypt/pkg/volume/cryptdev"
	"nbdcrypt/pkg/volume/layer"
)

// copyAll copies up until there is nothing left, and tells how many bytes were data.
func copyAll(t *testing.T, d *cryptdev.Device, depth int, over bool) (all int64) {
	t.Helper()
	size, _ := d.Size()
	for at := int64(0); at < size; {
		next, copied, err := d.CopyUp(at, size, depth, over)
		if err != nil || next <= at || copied > mib {
			t.Fatalf("at %d: to %d, %d bytes, %v", at, next, copied, err)
		}
		at, all = next, all+copied
	}
	return all
}

func stackOf(t *testing.T, w *tower) *cryptdev.Device {
	t.Helper()
	if err := w.push(nothingBetween); err != nil {
		t.Fatal(err)
	}
	return w.device
}

func usage(t *testing.T, d *cryptdev.Device) layer.Usage {
	t.Helper()
	u, err := d.Layers()[0].Usage(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return u
}

// What the top lacks is copied, once, and what it has is left alone; the disk reads the same all along, and without the layers.
func TestCopyUp(t *testing.T) {
	w := newTower(t, files(t), 8*mib, true)
	write(t, w.device, pattern(1, 3*mib), 0)
	d := stackOf(t, w)
	write(t, d, pattern(2, mib), 2*mib+512)
	if err := d.TrimAt(4096, 8192); err != nil {
		t.Fatal(err)
	}
	want := read(t, d, 0, 8*mib)
	missing := int64(2*mib - 8192) // the block that the write began in was filled up from below
	if got := copyAll(t, d, 1, false); got != missing {
		t.Errorf("%d bytes were copied, %d were missing", got, missing)
	}
	if got := copyAll(t, d, 1, false); got != 0 {
		t.Errorf("%d bytes were copied again", got)
	}
	expect(t, d, 0, want)
	sync(t, d)
	if err := w.replace(w.levels[1:], nil); err != nil {
		t.Fatal(err)
	}
	expect(t, d, 0, want)
	if got := extents(t, d, 0, 8*mib); got != "1 data, 2 hole, 766 data, 1279 hole" {
		t.Errorf("extents: %s", got)
	}
}

// Zeros above something become zeros of the top, or what is below them would show; above nothing they stay absent.
func TestCopyUpOfZeros(t *testing.T) {
	for _, over := range []bool{true, false} {
		w := newTower(t, files(t), 8*mib, true)
		write(t, w.device, pattern(1, mib), 0)
		d := stackOf(t, w)
		if err := errors.Join(d.TrimAt(4096, 8192), d.ZeroAt(64<<10, 4096, true)); err != nil {
			t.Fatal(err)
		}
		want := read(t, d, 0, mib)
		d = stackOf(t, w)
		depth := map[bool]int{true: 1, false: 2}[over]
		copied := copyAll(t, d, depth, over)
		if rest := int64(mib - 12288); over && copied != 0 || !over && copied != rest {
			t.Errorf("%d bytes were copied", copied)
		}
		state, end, err := d.Layers()[0].Run(4096, mib, true)
		if is := map[bool]layer.State{true: layer.Zero, false: layer.Absent}[over]; state != is || end != 12288 || err != nil {
			t.Errorf("over %v: state %d to %d, %v", over, state, end, err)
		}
		if err := w.replace(w.levels[1:1+depth], nil); err != nil {
			t.Fatal(err)
		}
		expect(t, d, 0, want)
	}
}

// Layers may be smaller than the disk, and of sizes that are not whole blocks: what lies past them is zeros.
func TestCopyUpFromShorterLayers(t *testing.T) {
	const first, then = 5*4096 + 3*512, 40*4096 + 512
	w := newTower(t, files(t), first, true)
	write(t, w.device, pattern(1, first), 0)
	d := stackOf(t, w)
	if err := w.grow(then); err != nil {
		t.Fatal(err)
	}
	write(t, d, pattern(2, 700), then-700)
	d = stackOf(t, w)
	if err := w.grow(8 * mib); err != nil {
		t.Fatal(err)
	}
	want := append(pattern(1, first), make([]byte, 8*mib-first)...)
	copy(want[then-700:], pattern(2, 700))
	expect(t, d, 0, want)
	if got := copyAll(t, d, 2, false); got != 8*4096 {
		t.Errorf("%d bytes were copied", got)
	}
	if err := w.replace(w.levels[1:], nil); err != nil {
		t.Fatal(err)
	}
	expect(t, d, 0, want)
	if u := usage(t, d); u.Data != 8*4096 {
		t.Errorf("%+v", u)
	}
}

// Durability rule 4: copying up keeps every overlapping write out, aligned ones too, from the look at the map to the write.
func TestDurability4_CopyUpKeepsWritesOut(t *testing.T) {
	for _, off := range []int64{0, 4096, 5000, 700 << 10} {
		w, faults, _ := tracedTower(t)
		write(t, w.device, pattern(1, mib), 0)
		d := stackOf(t, w)
		var wg gosync.WaitGroup
		var once, copied atomic.Bool
		faults.Hook(func(c pooltest.Call) error {
			if !isMap(c) && c.Op == pooltest.OpWrite && once.CompareAndSwap(false, true) {
				expect(t, d, 0, pattern(1, mib)) // a reader need not wait
				meanwhile(&wg, func() {
					write(t, d, pattern(2, 4096), off)
					if !copied.Load() {
						t.Errorf("a write at %d came between", off)
					}
				})
			}
			if !isMap(c) && c.Op == pooltest.OpWrite && c.Off+c.N == mib {
				copied.Store(true) // as soon as the hook lets the last of it through
			}
			return nil
		})
		copyAll(t, d, 1, false)
		wg.Wait()
		if !once.Load() {
			t.Fatal("nothing was copied")
		}
		want := pattern(1, mib)
		copy(want[off:], pattern(2, 4096))
		expect(t, d, 0, want)
	}
}

// Rule 4 the other way round: a write that came between the search for what is to be copied and the copy is not undone.
func TestDurability4_CopyUpSeesWhatCameMeanwhile(t *testing.T) {
	w, faults, _ := tracedTower(t)
	write(t, w.device, pattern(1, 4096), 0)
	d := stackOf(t, w)
	d = w.open() // so that the map of the layer below is looked up in storage
	var once atomic.Bool
	faults.Hook(func(c pooltest.Call) error {
		if isMap(c) && c.Op == pooltest.OpRead && c.Volume == layer.MapName(w.levels[1].header.ID) && once.CompareAndSwap(false, true) {
			write(t, d, pattern(2, 4096), 0)
		}
		return nil
	})
	if got := copyAll(t, d, 1, false); got != 0 || !once.Load() {
		t.Errorf("%d bytes were copied over a write", got)
	}
	expect(t, d, 0, pattern(2, 4096))
}

// A failure is told and harms nothing; what was copied before counts, and it goes on from there.
func TestCopyUpThatFails(t *testing.T) {
	w, faults, _ := tracedTower(t)
	write(t, w.device, pattern(1, 3*mib), 0)
	d := stackOf(t, w)
	for errno, op := range map[syscall.Errno]pooltest.Op{syscall.ENOSPC: pooltest.OpWrite, syscall.EIO: pooltest.OpRead} {
		faults.Hook(func(c pooltest.Call) error {
			if c.Op == op && !isMap(c) && c.Off >= mib {
				return errno
			}
			return nil
		})
		at, _, err := d.CopyUp(0, w.size, 1, false)
		if err == nil {
			_, _, err = d.CopyUp(at, w.size, 1, false)
		}
		if !errors.Is(err, errno) {
			t.Errorf("%v: %v", errno, err)
		}
	}
	faults.Hook(nil)
	expect(t, d, 0, pattern(1, 3*mib))
	if got := copyAll(t, d, 1, false); got != 2*mib {
		t.Errorf("%d bytes were left to be copied", got)
	}
	expect(t, d, 0, pattern(1, 3*mib))
}

// Promise 2: plaintext does not stay in buffers, also where a read fails half-way.
func TestCopyUpLeavesNoPlaintext(t *testing.T) {
	w, faults, _ := tracedTower(t)
	words := bytes.Repeat([]byte("plain words "), 100<<10/12)
	write(t, w.device, words, 0)
	stackOf(t, w)
	write(t, w.device, words[:8192], 32<<10)
	d := stackOf(t, w)
	buffers := d.Buffers()
	faults.Hook(func(c pooltest.Call) error {
		if c.Op == pooltest.OpRead && c.Off+c.N > 60<<10 {
			return syscall.EIO
		}
		return nil
	})
	if _, _, err := d.CopyUp(0, w.size, 2, false); !errors.Is(err, syscall.EIO) {
		t.Errorf("a read that fails: %v", err)
	}
	faults.Hook(nil)
	copyAll(t, d, 2, false)
	if len(*buffers) == 0 {
		t.Fatal("no buffers were seen")
	}
	for _, b := range *buffers {
		if bytes.Contains(b, []byte("plain words")) {
			t.Error("a buffer went back with plaintext in it")
		}
	}
}

// A large empty disk is passed in few steps, and one that is read-only is left alone.
func TestCopyUpOfALargeDisk(t *testing.T) {
	w := newTower(t, pooltest.NewPower(), 1<<40, true)
	write(t, w.device, pattern(1, 4096), 1<<39)
	d := stackOf(t, w)
	steps := 0
	for at := int64(0); at < w.size; steps++ {
		next, _, err := d.CopyUp(at, w.size, 1, false)
		if err != nil {
			t.Fatal(err)
		}
		at = next
	}
	if steps > 300 {
		t.Errorf("%d steps", steps)
	}
	if u := usage(t, d); u.Data != 4096 {
		t.Errorf("%+v", u)
	}
	if _, _, err := w.below().CopyUp(0, w.size, 1, false); !errors.Is(err, syscall.EPERM) {
		t.Errorf("of a read-only disk: %v", err)
	}
}
