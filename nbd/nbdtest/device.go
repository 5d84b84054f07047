package nbdtest

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"sync"
	"testing"

	"nbdcrypt/nbd"
)

// deviceSize is what RunDevice needs at least; minimal devices are made as large as they like.
const deviceSize = 1 << 20

// RunDevice is the conformance suite of nbd.Device: every implementation runs it. open returns a fresh device of at
// least 1 MiB that reads as zeros; RunDevice calls it for each part and does not close it.
func RunDevice(t *testing.T, open func(t *testing.T) nbd.Device) {
	for _, part := range []struct {
		name string
		run  func(*testing.T, nbd.Device)
	}{
		{"FreshReadsZeros", freshReadsZeros},
		{"RoundTrip", roundTrip},
		{"PartialBlocks", partialBlocks},
		{"OutOfBounds", outOfBounds},
		{"Empty", empty},
		{"CallersBuffer", callersBuffer},
		{"Overlap", overlap},
		{"Zero", zero},
		{"Trim", trim},
		{"FUA", fua},
		{"Nowait", nowait},
		{"Extents", extents},
		{"Cache", cache},
		{"ZeroFast", zeroFast},
		{"Concurrent", concurrent},
		{"SharedBlocks", sharedBlocks},
	} {
		t.Run(part.name, func(t *testing.T) {
			dev := open(t)
			if size := sizeOf(t, dev); size < deviceSize {
				t.Fatalf("the suite needs %d bytes, the device has %d", deviceSize, size)
			}
			part.run(t, dev)
		})
	}
}

func sizeOf(t *testing.T, dev nbd.Device) int64 {
	t.Helper()
	size, err := dev.Size()
	if err != nil {
		t.Fatal(err)
	}
	return size
}

func random(n int, seed uint64) []byte {
	b := make([]byte, n)
	rng := rand.NewPCG(seed, uint64(n))
	for i := range b {
		b[i] = byte(rng.Uint64())
	}
	return b
}

func write(t *testing.T, dev nbd.Device, off int64, p []byte) {
	t.Helper()
	if n, err := dev.WriteAt(p, off); n != len(p) || err != nil {
		t.Fatalf("write %d bytes at %d: %d, %v", len(p), off, n, err)
	}
}

// holds fails the test unless the device holds want at off. A device may say io.EOF with the last byte.
func holds(t *testing.T, dev nbd.Device, off int64, want []byte) {
	t.Helper()
	got := bytes.Repeat([]byte{0xee}, len(want))
	n, err := dev.ReadAt(got, off)
	if n != len(want) || err != nil && !errors.Is(err, io.EOF) {
		t.Fatalf("read %d bytes at %d: %d, %v", len(want), off, n, err)
	}
	for i := range got {
		if got[i] != want[i] {
			t.Fatalf("byte %d is %#x and not %#x (%d bytes were read at %d)", off+int64(i), got[i], want[i], len(want), off)
		}
	}
}

func freshReadsZeros(t *testing.T, dev nbd.Device) {
	holds(t, dev, 0, make([]byte, deviceSize))
	holds(t, dev, 4097, make([]byte, 5))
	holds(t, dev, sizeOf(t, dev)-700, make([]byte, 700))
}

func roundTrip(t *testing.T, dev nbd.Device) {
	want := random(deviceSize, 1)
	write(t, dev, 0, want)
	holds(t, dev, 0, want)
	if err := dev.Sync(); err != nil {
		t.Fatal(err)
	}
	holds(t, dev, 0, want)
	end := sizeOf(t, dev) - 4096
	write(t, dev, end, want[:4096])
	holds(t, dev, end, want[:4096])
}

func partialBlocks(t *testing.T, dev nbd.Device) {
	want := make([]byte, deviceSize)
	for i, n := range []int{1, 2, 511, 512, 513, 4095, 4096, 4097, 12289, 65536, 70001} {
		for j, off := range []int{0, 1, 511, 4095, 4096, 100_000, deviceSize - n} {
			p := random(n, uint64(i*100+j))
			copy(want[off:], p)
			write(t, dev, int64(off), p)
			holds(t, dev, int64(off), p)
		}
	}
	holds(t, dev, 0, want)
	for _, n := range []int{1, 513, 4099} {
		for off := 0; off+n <= 20_000; off += 777 {
			holds(t, dev, int64(off), want[off:off+n])
		}
	}
}

// outOfBounds: the server checks ranges, so a device may be strict in its own way, but it never takes a range past
// its end for good, and never touches what is inside.
func outOfBounds(t *testing.T, dev nbd.Device) {
	size := sizeOf(t, dev)
	inside := random(100, 3)
	write(t, dev, size-100, inside)
	for _, off := range []int64{size - 1, size, size + 1, 1<<63 - 1, -1} {
		if n, err := dev.WriteAt(make([]byte, 2), off); err == nil {
			t.Errorf("write at %d of %d: %d and no error", off, size, n)
		}
		if n, err := dev.ReadAt(make([]byte, 2), off); err == nil || n > 1 {
			t.Errorf("read at %d of %d: %d, %v", off, size, n, err)
		}
	}
	holds(t, dev, size-100, inside[:99])
}

func empty(t *testing.T, dev nbd.Device) {
	for _, off := range []int64{0, 1, sizeOf(t, dev)} {
		if n, err := dev.WriteAt(nil, off); n != 0 || err != nil {
			t.Errorf("write of nothing at %d: %d, %v", off, n, err)
		}
		if n, err := dev.ReadAt(nil, off); n != 0 || err != nil && !errors.Is(err, io.EOF) {
			t.Errorf("read of nothing at %d: %d, %v", off, n, err)
		}
	}
	holds(t, dev, 0, make([]byte, 4096))
}

// callersBuffer: what is written is not changed on its way, and nothing is written past what was asked to be read.
func callersBuffer(t *testing.T, dev nbd.Device) {
	p := random(9000, 4)
	before := bytes.Clone(p)
	write(t, dev, 123, p)
	if !bytes.Equal(p, before) {
		t.Error("the caller's buffer was changed by a write")
	}
	clear(p)
	holds(t, dev, 123, before)
	frame := bytes.Repeat([]byte{0xaa}, 1000)
	if _, err := dev.ReadAt(frame[100:600:600], 123); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(frame[:100], bytes.Repeat([]byte{0xaa}, 100)) || !bytes.Equal(frame[600:], bytes.Repeat([]byte{0xaa}, 400)) {
		t.Error("a read wrote outside of its buffer")
	}
}

func overlap(t *testing.T, dev nbd.Device) {
	want := make([]byte, 64<<10)
	for i, span := range [][2]int{{0, 64 << 10}, {100, 9000}, {5000, 9000}, {4096, 4096}, {4000, 200}, {13_999, 1}} {
		p := random(span[1], uint64(50+i))
		copy(want[span[0]:], p)
		write(t, dev, int64(span[0]), p)
	}
	holds(t, dev, 0, want)
}

// spans are ranges whose edges lie everywhere in sectors and blocks.
func spans() [][2]int {
	return [][2]int{{0, 512}, {600, 1}, {1000, 3000}, {4096, 4096}, {8191, 4098}, {20_000, 50_000}, {99_999, 0}, {131072, 65536}}
}

func zero(t *testing.T, dev nbd.Device) {
	zeroer, ok := dev.(nbd.Zeroer)
	if !ok {
		t.Skip("the device does not zero")
	}
	for _, noHole := range []bool{false, true} {
		makeZeros(t, dev, func(off, n int64) error { return zeroer.ZeroAt(off, n, noHole) })
	}
}

func trim(t *testing.T, dev nbd.Device) {
	trimmer, ok := dev.(nbd.Trimmer)
	if !ok {
		t.Skip("the device does not trim")
	}
	makeZeros(t, dev, trimmer.TrimAt)
}

// makeZeros: zeros inside the range, nothing changed outside of it, and writable afterwards.
func makeZeros(t *testing.T, dev nbd.Device, do func(off, n int64) error) {
	t.Helper()
	want := random(deviceSize, 5)
	write(t, dev, 0, want)
	for _, span := range spans() {
		if err := do(int64(span[0]), int64(span[1])); err != nil {
			t.Fatalf("%d bytes at %d: %v", span[1], span[0], err)
		}
		clear(want[span[0] : span[0]+span[1]])
		holds(t, dev, 0, want)
	}
	if err := dev.Sync(); err != nil {
		t.Fatal(err)
	}
	holds(t, dev, 0, want)
	p := random(7000, 6)
	copy(want[22_222:], p)
	write(t, dev, 22_222, p)
	holds(t, dev, 0, want)
	if size := sizeOf(t, dev); do(size, 1) == nil || do(size-1, 2) == nil {
		t.Error("a range past the end was taken")
	}
}

func fua(t *testing.T, dev nbd.Device) {
	writer, ok := dev.(nbd.FUAWriter)
	if !ok {
		t.Skip("the device writes durably by Sync alone")
	}
	want := make([]byte, deviceSize)
	for i, span := range [][2]int{{0, 4096}, {5000, 10}, {0, 4096}, {4095, 9000}} {
		p := random(span[1], uint64(70+i))
		copy(want[span[0]:], p)
		if n, err := writer.WriteAtFUA(p, int64(span[0])); n != len(p) || err != nil {
			t.Fatalf("write %d bytes at %d: %d, %v", len(p), span[0], n, err)
		}
		holds(t, dev, 0, want)
	}
}

// concurrent: writers of their own stretches, syncs and reads all at once.
func concurrent(t *testing.T, dev nbd.Device) {
	const writers = 8
	const stretch = deviceSize / writers
	want := random(deviceSize, 8)
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			rng := rand.New(rand.NewPCG(uint64(w), 1))
			for off := w * stretch; off < (w+1)*stretch; {
				n := min(1+rng.IntN(20_000), (w+1)*stretch-off)
				if _, err := dev.WriteAt(want[off:off+n], int64(off)); err != nil {
					t.Error(err)
				}
				off += n
			}
		})
		wg.Go(func() {
			if err := dev.Sync(); err != nil {
				t.Error(err)
			}
			if _, err := dev.ReadAt(make([]byte, stretch), int64(w*stretch)); err != nil && !errors.Is(err, io.EOF) {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	holds(t, dev, 0, want)
}

// sharedBlocks: many writers of single bytes that share sectors; a read-modify-write that races loses some.
func sharedBlocks(t *testing.T, dev nbd.Device) {
	const writers, rounds = 8, 64
	want := make([]byte, 4096)
	var wg sync.WaitGroup
	for w := range writers {
		wg.Go(func() {
			for i := range rounds {
				at := i*writers*8 + w*8
				if _, err := dev.WriteAt(bytes.Repeat([]byte{byte(w + 1)}, 7), int64(at)); err != nil {
					t.Error(err)
				}
			}
		})
		for i := range rounds {
			copy(want[i*writers*8+w*8:], bytes.Repeat([]byte{byte(w + 1)}, 7))
		}
	}
	wg.Wait()
	holds(t, dev, 0, want)
}
