package layer

import (
	"bytes"
	"context"
	"errors"
	"syscall"
	"testing"

	"github.com/google/uuid"

	"nbdcrypt/pkg/pool"
	"nbdcrypt/pkg/pool/pooltest"
)

func fresh(t *testing.T, p pool.Pool, size int64) *Layer {
	t.Helper()
	h := Header{ID: uuid.New(), Encrypted: true, SectorSize: 512}
	if err := Create(t.Context(), p, h, size); err != nil {
		t.Fatal(err)
	}
	return reopen(t, p, h, size)
}

func reopen(t *testing.T, p pool.Pool, h Header, size int64) *Layer {
	t.Helper()
	l, err := Open(t.Context(), p, h, size, Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return l
}

// What is sealed is durable, has given its space back, and takes no write; it can be sealed again.
func TestSeal(t *testing.T) {
	power := pooltest.NewPower()
	faults := pooltest.NewFaults(power)
	l := fresh(t, faults, 1<<20)
	var punched, late int64
	sealed := false
	faults.Hook(func(c pooltest.Call) error {
		if c.Op == pooltest.OpDiscard {
			punched += c.N
		}
		if sealed && (c.Op == pooltest.OpWrite || c.Op == pooltest.OpDiscard) {
			late++
		}
		return nil
	})
	if err := errors.Join(l.WriteNew(bytes.Repeat([]byte{7}, 8*BlockSize), 0), l.Zero(0, BlockSize, false)); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := l.Seal(); err != nil {
			t.Fatal(err)
		}
		sealed = true
	}
	if punched != BlockSize || late != 0 {
		t.Errorf("%d bytes were given back, %d operations came after", punched, late)
	}
	if err := l.WriteNew(make([]byte, BlockSize), 0); !errors.Is(err, syscall.EROFS) {
		t.Errorf("a write after it: %v", err)
	}
	power.Restart(nil)
	again := reopen(t, faults, l.Header, 1<<20)
	if state, end, err := again.Run(BlockSize, 1<<20, true); state != Data || end != 8*BlockSize || err != nil {
		t.Errorf("after a power cut: %v to %d, %v", state, end, err)
	}
}

// A flush that fails leaves the layer as it is: without room it can be sealed later, after a failed sync it can't.
func TestSealThatFails(t *testing.T) {
	for errno, again := range map[syscall.Errno]error{syscall.ENOSPC: nil, syscall.EIO: syscall.EIO} {
		faults := pooltest.NewFaults(pooltest.NewPower())
		l := fresh(t, faults, 1<<20)
		if err := l.WriteNew(make([]byte, BlockSize), 0); err != nil {
			t.Fatal(err)
		}
		faults.Hook(func(c pooltest.Call) error {
			if c.Op == pooltest.OpFreeze {
				t.Error("frozen though it is not durable")
			}
			if c.Op == pooltest.OpWrite {
				return errno
			}
			return nil
		})
		if err := l.Seal(); !errors.Is(err, errno) {
			t.Errorf("%v: %v", errno, err)
		}
		faults.Hook(nil)
		if err := l.Seal(); !errors.Is(err, again) {
			t.Errorf("after %v: %v", errno, err)
		}
	}
}

// A layer that lost its lock is not taken for one that is well, now or later.
func TestSealThatLosesItsLock(t *testing.T) {
	faults := pooltest.NewFaults(pooltest.NewPower())
	l := fresh(t, faults, 1<<20)
	faults.Hook(func(c pooltest.Call) error {
		if c.Op == pooltest.OpFreeze {
			return pool.ErrInUse
		}
		return nil
	})
	if err := l.Seal(); !errors.Is(err, pool.ErrInUse) || !errors.Is(err, syscall.EIO) {
		t.Errorf("Seal: %v", err)
	}
	faults.Hook(nil)
	if err := errors.Join(l.Failed(), l.Seal()); !errors.Is(err, syscall.EIO) {
		t.Errorf("afterwards: %v", err)
	}
}

// Usage counts data and reserved blocks, wherever their records are: in memory, in the map, or both.
func TestUsage(t *testing.T) {
	p := pooltest.NewPower()
	const size = 4 * bytesPerRecord
	l := fresh(t, p, size)
	usage := func(want Usage) {
		t.Helper()
		if got, err := l.Usage(t.Context()); err != nil || got != want {
			t.Errorf("%+v, %v; want %+v", got, err, want)
		}
	}
	usage(Usage{})
	do := func(errs ...error) {
		t.Helper()
		if err := errors.Join(errs...); err != nil {
			t.Fatal(err)
		}
	}
	blocks := func(n int) []byte { return bytes.Repeat([]byte{1}, n*BlockSize) }
	do(l.WriteNew(blocks(5), 0), l.WriteNew(blocks(3), bytesPerRecord-BlockSize), l.Zero(3*bytesPerRecord, bytesPerRecord, true),
		l.Zero(BlockSize, BlockSize, false))
	want := Usage{Data: 7 * BlockSize, Reserved: bytesPerRecord}
	usage(want)
	do(l.Flush(), l.Close())
	l = reopen(t, p, l.Header, size)
	usage(want)
	do(l.Zero(0, BlockSize, false), l.WriteNew(blocks(1), 2*bytesPerRecord))
	usage(want)
	stopped, stop := context.WithCancel(t.Context())
	stop()
	if _, err := l.Usage(stopped); !errors.Is(err, context.Canceled) {
		t.Errorf("of a call that was ended: %v", err)
	}
	if _, err := l.mapVol.WriteAt([]byte{0xff}, pageAt(1, 1)+100); err != nil {
		t.Fatal(err)
	}
	if _, err := l.Usage(t.Context()); !errors.Is(err, syscall.EIO) {
		t.Errorf("of a damaged map: %v", err)
	}
}
