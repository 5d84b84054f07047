package nbdtest

import (
	"bytes"
	"errors"
	"io"
	"slices"
	"syscall"
	"testing"

	"nbdcrypt/nbd"
)

// nowait: a read that does not wait reads what ReadAt reads, or says EAGAIN; past the end it is refused like any other.
func nowait(t *testing.T, dev nbd.Device) {
	reader, ok := dev.(nbd.NowaitReader)
	if !ok {
		t.Skip("the device can't tell which reads would wait")
	}
	want := random(deviceSize, 11)
	clear(want[300_000:400_000])
	write(t, dev, 0, want[:300_000])
	write(t, dev, 400_000, want[400_000:])
	for _, span := range append(spans(), [2]int{290_000, 200_000}, [2]int{0, deviceSize}) {
		off, n := span[0], span[1]
		holds(t, dev, int64(off), want[off:off+n])
		got := bytes.Repeat([]byte{0xee}, n)
		switch read, err := reader.ReadAtNowait(got, int64(off)); {
		case errors.Is(err, syscall.EAGAIN):
		case err != nil && !errors.Is(err, io.EOF), read != n:
			t.Fatalf("%d bytes at %d without waiting: %d, %v", n, off, read, err)
		case !bytes.Equal(got, want[off:off+n]):
			t.Fatalf("%d bytes at %d are others when read without waiting", n, off)
		}
	}
	size := sizeOf(t, dev)
	for _, off := range []int64{-1, size - 1, size + 1} {
		if n, err := reader.ReadAtNowait(make([]byte, 2), off); err == nil || n > 1 || errors.Is(err, syscall.EAGAIN) {
			t.Errorf("read without waiting at %d of %d: %d, %v", off, size, n, err)
		}
	}
}

// extents: however the device was changed, its extents cover it, and what they call zeros reads as zeros.
func extents(t *testing.T, dev nbd.Device) {
	e, ok := dev.(nbd.Extenter)
	if !ok {
		t.Skip("the device knows no extents")
	}
	want := make([]byte, deviceSize)
	covered(t, dev, e, want)
	for i, span := range spans() {
		p := random(span[1], uint64(90+i))
		copy(want[span[0]:], p)
		write(t, dev, int64(span[0]), p)
		covered(t, dev, e, want)
	}
	for i, do := range zeroings(dev) {
		for _, span := range spans() {
			at, n := span[0]+300*i, span[1]/2
			if err := do(int64(at), int64(n)); err != nil {
				t.Fatal(err)
			}
			clear(want[at : at+n])
			covered(t, dev, e, want)
		}
	}
	size := sizeOf(t, dev)
	for _, at := range [][2]int64{{-1, 1}, {size, 1}, {size - 1, 2}} {
		if _, _, _, err := e.Extent(at[0], at[1]); err == nil {
			t.Errorf("an extent of %d bytes at %d of %d", at[1], at[0], size)
		}
	}
}

// zeroings are the ways in which a device makes zeros.
func zeroings(dev nbd.Device) (all []func(off, n int64) error) {
	if z, ok := dev.(nbd.Zeroer); ok {
		all = append(all, func(off, n int64) error { return z.ZeroAt(off, n, false) },
			func(off, n int64) error { return z.ZeroAt(off, n, true) })
	}
	if tr, ok := dev.(nbd.Trimmer); ok {
		all = append(all, tr.TrimAt)
	}
	return all
}

// covered goes over the extents of a device that holds want and zeros after it, from several places on.
func covered(t *testing.T, dev nbd.Device, e nbd.Extenter, want []byte) {
	t.Helper()
	holds(t, dev, 0, want)
	size := sizeOf(t, dev)
	for _, from := range []int64{0, 4097, 20_001, size - 1} {
		for off := from; off < size; {
			n, hole, zero, err := e.Extent(off, size-off)
			if err != nil || n <= 0 || n > size-off {
				t.Fatalf("extent at %d: %d, %v", off, n, err)
			}
			if one, h, z, err := e.Extent(off, 1); err != nil || one != 1 || h != hole || z != zero {
				t.Fatalf("the first byte of the extent at %d is another: %d %v %v, %v", off, one, h, z, err)
			}
			if end := min(off+n, int64(len(want))); zero && off < end && !isZero(want[off:end]) {
				t.Fatalf("the extent of %d bytes at %d is said to be zeros", n, off)
			}
			off += n
		}
	}
}

func isZero(p []byte) bool { return !slices.ContainsFunc(p, func(b byte) bool { return b != 0 }) }

// cache: advice about any range is taken, and changes nothing.
func cache(t *testing.T, dev nbd.Device) {
	c, ok := dev.(nbd.Cacher)
	if !ok {
		t.Skip("the device caches nothing")
	}
	want := random(deviceSize, 12)
	write(t, dev, 0, want)
	for _, span := range append(spans(), [2]int{0, deviceSize}) {
		if err := c.CacheAt(int64(span[0]), int64(span[1])); err != nil {
			t.Errorf("%d bytes at %d: %v", span[1], span[0], err)
		}
	}
	holds(t, dev, 0, want)
	if size := sizeOf(t, dev); c.CacheAt(size, 1) == nil || c.CacheAt(-1, 1) == nil {
		t.Error("a range past the end was taken")
	}
}

// zeroFast: where it is done it is done whole, where it is refused nothing has changed.
func zeroFast(t *testing.T, dev nbd.Device) {
	z, ok := dev.(nbd.FastZeroer)
	if !ok {
		t.Skip("the device does not zero fast")
	}
	for i, noHole := range []bool{false, true, false} {
		want := random(deviceSize, uint64(13+i))
		write(t, dev, 0, want)
		for _, span := range spans() {
			off, n := span[0], span[1]
			switch err := z.ZeroAtFast(int64(off), int64(n), noHole); {
			case err == nil:
				clear(want[off : off+n])
			case !errors.Is(err, syscall.ENOTSUP):
				t.Fatalf("%d bytes at %d: %v", n, off, err)
			}
			holds(t, dev, 0, want)
		}
		if err := dev.Sync(); err != nil {
			t.Fatal(err)
		}
		holds(t, dev, 0, want)
		if size := sizeOf(t, dev); z.ZeroAtFast(size, 1, noHole) == nil || z.ZeroAtFast(size-1, 2, noHole) == nil {
			t.Error("a range past the end was taken")
		}
	}
}
