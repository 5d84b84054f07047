package pool_test

import (
	"bytes"
	"errors"
	"os"
	"runtime"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"nbdcrypt/pkg/pool"
)

// made is a volume with data in it.
func made(t *testing.T, data []byte) pool.Volume {
	t.Helper()
	p := files(t)
	if err := p.Create(t.Context(), volume, int64(len(data))); err != nil {
		t.Fatal(err)
	}
	v, err := p.Open(t.Context(), volume, false)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = v.Close() })
	if _, err := v.WriteAt(data, 0); err != nil {
		t.Fatal(err)
	}
	return v
}

// tellsWaits skips where the file system can't tell which reads would wait.
func tellsWaits(t *testing.T) {
	t.Helper()
	f, err := os.CreateTemp(t.TempDir(), "")
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := unix.Preadv2(int(f.Fd()), [][]byte{make([]byte, 1)}, 0, unix.RWF_NOWAIT); errors.Is(err, unix.EOPNOTSUPP) {
		t.Skip("the file system of the temporary folder refuses RWF_NOWAIT")
	}
}

// What is not in the page cache, or only in part, is EAGAIN and not a short read; once it is read, or fetched, it is read.
func TestFilesNowait(t *testing.T) {
	tellsWaits(t)
	data := bytes.Repeat([]byte("01234567"), 1<<20)
	v := made(t, data)
	got := make([]byte, len(data))
	nowait := func(n int) error {
		read, err := v.ReadAtNowait(got[:n], 0)
		if err == nil && (read != n || !bytes.Equal(got[:n], data[:n])) {
			t.Errorf("%d of %d bytes, or other bytes", read, n)
		}
		return err
	}
	if err := v.Settle(true); err != nil {
		t.Fatal(err)
	}
	if err := nowait(len(data)); !errors.Is(err, unix.EAGAIN) {
		t.Errorf("nothing is cached: %v", err)
	}
	half := func() error { // is cached: what is written is, and the kernel may still be reading the rest, for what was asked before
		if err := v.Settle(true); err != nil {
			t.Fatal(err)
		}
		if _, err := v.WriteAt(data[:4096], 0); err != nil {
			t.Fatal(err)
		}
		return nowait(8192)
	}
	for began := time.Now(); !errors.Is(half(), unix.EAGAIN); {
		if time.Since(began) > 10*time.Second {
			t.Fatal("of what is cached by half all can be had")
		}
	}
	if err := errors.Join(v.Settle(true), v.Prefetch(0, int64(len(data)))); err != nil {
		t.Fatal(err)
	}
	for began := time.Now(); errors.Is(nowait(len(data)), unix.EAGAIN); runtime.Gosched() {
		if time.Since(began) > 10*time.Second {
			t.Fatal("what was asked for is still not cached")
		}
	}
}

// Nothing is allocated on the way of a request.
func TestFilesAllocateNothing(t *testing.T) {
	v, p := made(t, make([]byte, 1<<20)), make([]byte, 8192)
	for name, do := range map[string]func([]byte, int64) (int, error){
		"read": v.ReadAt, "nowait": v.ReadAtNowait, "write": v.WriteAt, "synchronous write": v.WriteAtSync,
	} {
		if n := testing.AllocsPerRun(20, func() {
			if _, err := do(p, 4096); err != nil {
				t.Error(name, err)
			}
		}); n != 0 {
			t.Errorf("%s: %v allocations", name, n)
		}
	}
	if err := v.Flush(); err != nil {
		t.Fatal(err)
	}
	if n := testing.AllocsPerRun(20, func() { _ = v.Flush() }); n != 0 {
		t.Errorf("flush: %v allocations", n)
	}
}
