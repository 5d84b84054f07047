package pooltest

import (
	"bytes"
	"context"
	"errors"
	"sync"
	"syscall"
	"testing"

	"nbdcrypt/pkg/pool"
)

// Run shows that a pool does what pool.Pool says. make gives a new, empty pool for each part.
func Run(t *testing.T, make func(t *testing.T) pool.Pool) {
	for name, test := range map[string]func(*testing.T, pool.Pool){
		"RoundTrip":   testRoundTrip,
		"Names":       testNames,
		"Bounds":      testBounds,
		"Discard":     testDiscard,
		"Reserve":     testReserve,
		"Resize":      testResize,
		"Concurrent":  testConcurrent,
		"ReopenKeeps": testReopen,
		"NextData":    testNextData,
		"Nowait":      testNowait,
		"Prefetch":    testPrefetch,
		"Freeze":      testFreeze,
		"Settle":      testSettle,
	} {
		t.Run(name, func(t *testing.T) { test(t, make(t)) })
	}
}

const testVolume = "0190b5a0-0000-7000-8000-000000000001/data"

func create(t *testing.T, p pool.Pool, size int64) pool.Volume {
	t.Helper()
	if err := p.Create(t.Context(), testVolume, size); err != nil {
		t.Fatal(err)
	}
	return open(t, p)
}

func open(t *testing.T, p pool.Pool) pool.Volume {
	t.Helper()
	v, err := p.Open(t.Context(), testVolume, false)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = v.Close() })
	return v
}

func write(t *testing.T, v pool.Volume, p []byte, off int64) {
	t.Helper()
	if n, err := v.WriteAt(p, off); err != nil || n != len(p) {
		t.Fatalf("WriteAt: %d, %v", n, err)
	}
}

func expect(t *testing.T, v pool.Volume, off int64, want []byte) {
	t.Helper()
	got := bytes.Repeat([]byte{0xee}, len(want))
	if n, err := v.ReadAt(got, off); err != nil || n != len(want) {
		t.Fatalf("ReadAt: %d, %v", n, err)
	}
	if !bytes.Equal(got, want) {
		t.Fatalf("bytes at %d differ", off)
	}
}

func testRoundTrip(t *testing.T, p pool.Pool) {
	v := create(t, p, 1<<20)
	expect(t, v, 0, make([]byte, 1<<20))
	data := bytes.Repeat([]byte("0123456"), 1000)
	write(t, v, data, 4095)
	expect(t, v, 4095, data)
	expect(t, v, 0, make([]byte, 4095))
	if _, err := v.WriteAtSync(data[:512], 512); err != nil {
		t.Fatal(err)
	}
	expect(t, v, 512, data[:512])
	if err := v.Flush(); err != nil {
		t.Fatal(err)
	}
	write(t, v, nil, 0)
	expect(t, v, 1<<20, nil)
}

func testNames(t *testing.T, p pool.Pool) {
	ctx := context.Background()
	if _, err := p.Open(ctx, testVolume, false); !errors.Is(err, pool.ErrNotExist) {
		t.Fatalf("open of nothing: %v", err)
	}
	if err := p.Delete(ctx, testVolume); !errors.Is(err, pool.ErrNotExist) {
		t.Fatalf("delete of nothing: %v", err)
	}
	v := create(t, p, 4096)
	if err := p.Create(ctx, testVolume, 4096); !errors.Is(err, pool.ErrExist) {
		t.Fatalf("create twice: %v", err)
	}
	if names, err := p.List(ctx); err != nil || len(names) != 1 || names[0] != testVolume {
		t.Fatalf("list: %v %v", names, err)
	}
	if err := v.Close(); err != nil {
		t.Fatal(err)
	}
	if err := p.Delete(ctx, testVolume); err != nil {
		t.Fatal(err)
	}
	if names, err := p.List(ctx); err != nil || len(names) != 0 {
		t.Fatalf("list after delete: %v %v", names, err)
	}
}

func testBounds(t *testing.T, p pool.Pool) {
	v := create(t, p, 8192)
	for _, off := range []int64{-1, 8192, 8191, 1 << 62, -1 << 63} {
		if _, err := v.ReadAtNowait(make([]byte, 2), off); err == nil || errors.Is(err, syscall.EAGAIN) {
			t.Errorf("read of 2 bytes at %d without waiting: %v", off, err)
		}
		if v.Prefetch(off, 2) == nil {
			t.Errorf("prefetch of 2 bytes at %d: no error", off)
		}
		if _, err := v.ReadAt(make([]byte, 2), off); err == nil {
			t.Errorf("read of 2 bytes at %d: no error", off)
		}
		if _, err := v.WriteAt(make([]byte, 2), off); err == nil {
			t.Errorf("write of 2 bytes at %d: no error", off)
		}
	}
	if v.Size() != 8192 {
		t.Errorf("size changed to %d", v.Size())
	}
}

func testDiscard(t *testing.T, p pool.Pool) {
	v := create(t, p, 16384)
	data := bytes.Repeat([]byte{7}, 16384)
	write(t, v, data, 0)
	if err := v.Discard(4096, 8192); err != nil {
		t.Fatal(err)
	}
	expect(t, v, 0, data[:4096])
	expect(t, v, 12288, data[:4096])
	write(t, v, data[:8192], 4096)
	expect(t, v, 0, data)
}

func testReserve(t *testing.T, p pool.Pool) {
	v := create(t, p, 16384)
	data := bytes.Repeat([]byte{9}, 4096)
	write(t, v, data, 4096)
	if err := v.Reserve(0, 16384); err != nil {
		t.Fatal(err)
	}
	expect(t, v, 0, make([]byte, 4096))
	expect(t, v, 4096, data)
	expect(t, v, 8192, make([]byte, 8192))
}

func testResize(t *testing.T, p pool.Pool) {
	v := create(t, p, 8192)
	data := bytes.Repeat([]byte{5}, 8192)
	write(t, v, data, 0)
	if err := v.Resize(1 << 20); err != nil {
		t.Fatal(err)
	}
	if v.Size() != 1<<20 {
		t.Fatalf("size %d", v.Size())
	}
	expect(t, v, 0, data)
	expect(t, v, 8192, make([]byte, 1<<20-8192))
	write(t, v, data, 1<<20-8192)
	expect(t, v, 1<<20-8192, data)
}

func testConcurrent(t *testing.T, p pool.Pool) {
	v := create(t, p, 1<<20)
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			mine := bytes.Repeat([]byte{byte(i + 1)}, 700)
			for n := range 50 {
				off := int64(i*700 + n*8*700)
				if _, err := v.WriteAt(mine, off); err != nil {
					t.Error(err)
				}
				if n%10 == 0 && v.Flush() != nil {
					t.Error("flush failed")
				}
			}
		})
	}
	wg.Wait()
	for i := range 8 * 50 {
		expect(t, v, int64(i*700), bytes.Repeat([]byte{byte(i%8 + 1)}, 700))
	}
}

// testNextData: nothing that was written is ever skipped.
func testNextData(t *testing.T, p pool.Pool) {
	v := create(t, p, 4<<20)
	for _, at := range []int64{1 << 20, 3<<20 + 5} {
		write(t, v, []byte{1}, at)
	}
	for _, off := range []int64{0, 1 << 20, 1<<20 + 1, 2 << 20, 3<<20 + 5, 3<<20 + 6, 4 << 20} {
		next, err := v.NextData(off)
		if err != nil || next < off || next > v.Size() {
			t.Fatalf("next data from %d: %d, %v", off, next, err)
		}
		for _, at := range []int64{1 << 20, 3<<20 + 5} {
			if off <= at && at < next {
				t.Errorf("from %d the byte at %d was skipped", off, at)
			}
		}
	}
}

// testNowait: a read that does not wait reads what is there, or says EAGAIN; what was just read needs no wait, or the
// volume could do without the method.
func testNowait(t *testing.T, p pool.Pool) {
	v := create(t, p, 1<<20)
	data := bytes.Repeat([]byte("0123456"), 1000)
	write(t, v, data, 4095)
	for _, drop := range []bool{false, true} {
		if err := v.Settle(drop); err != nil {
			t.Fatal(err)
		}
		got := make([]byte, len(data))
		n, err := v.ReadAtNowait(got, 4095)
		if !errors.Is(err, syscall.EAGAIN) && (err != nil || n != len(data) || !bytes.Equal(got, data)) {
			t.Fatalf("a read without waiting: %d, %v", n, err)
		}
	}
	expect(t, v, 4095, data)
	got := make([]byte, len(data))
	if n, err := v.ReadAtNowait(got, 4095); err != nil || n != len(data) || !bytes.Equal(got, data) {
		t.Fatalf("what was just read, without waiting: %d, %v", n, err)
	}
}

// testPrefetch: it changes nothing, and no more does writing out.
func testPrefetch(t *testing.T, p pool.Pool) {
	v := create(t, p, 1<<20)
	data := bytes.Repeat([]byte("0123456"), 1000)
	write(t, v, data, 4095)
	for _, r := range [][2]int64{{0, 1 << 20}, {4095, 7000}, {1 << 20, 0}} {
		if err := errors.Join(v.Prefetch(r[0], r[1]), v.WriteOut(r[0], r[1])); err != nil {
			t.Errorf("%d bytes at %d: %v", r[1], r[0], err)
		}
	}
	expect(t, v, 4095, data)
}

func testReopen(t *testing.T, p pool.Pool) {
	v := create(t, p, 8192)
	first := v.Identity()
	write(t, v, []byte("kept"), 4094)
	if err := v.Flush(); err != nil {
		t.Fatal(err)
	}
	if err := v.Close(); err != nil {
		t.Fatal(err)
	}
	if err := p.Fence(t.Context(), first); err != nil {
		t.Fatalf("fence of a closed opening: %v", err)
	}
	v = open(t, p)
	expect(t, v, 4094, []byte("kept"))
	if v.Identity() == first {
		t.Error("two openings share an identity")
	}
}

// testFreeze: what was written stays, nothing changes it any more, and it can be frozen again, also where it was opened for
// reading.
func testFreeze(t *testing.T, p pool.Pool) {
	v := create(t, p, 1<<20)
	data := bytes.Repeat([]byte("0123456"), 1000)
	write(t, v, data, 4096)
	if err := errors.Join(v.Flush(), v.Freeze(), v.Freeze()); err != nil {
		t.Fatal(err)
	}
	again, err := p.Open(t.Context(), testVolume, true)
	if err != nil {
		t.Fatalf("a reader of a frozen volume: %v", err)
	}
	t.Cleanup(func() { _ = again.Close() })
	if err := again.Freeze(); err != nil {
		t.Errorf("freezing what is open for reading: %v", err)
	}
	for _, v := range []pool.Volume{v, again} {
		_, write := v.WriteAt(data, 4096)
		_, writeSync := v.WriteAtSync(data, 4096)
		for what, err := range map[string]error{
			"write": write, "synchronous write": writeSync, "discard": v.Discard(4096, 4096), "reserve": v.Reserve(0, 4096),
			"resize": v.Resize(2 << 20),
		} {
			if !errors.Is(err, syscall.EROFS) {
				t.Errorf("%s of a frozen volume: %v", what, err)
			}
		}
		if err := v.Flush(); err != nil {
			t.Errorf("flush of a frozen volume: %v", err)
		}
		expect(t, v, 4096, data)
	}
}

// testSettle: a pool whose storage is well has nothing to tell, whatever was written to it.
func testSettle(t *testing.T, p pool.Pool) {
	v := create(t, p, 1<<20)
	if _, err := v.WriteAt(make([]byte, 4096), 0); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := p.Settle(); err != nil {
			t.Error(err)
		}
	}
}
