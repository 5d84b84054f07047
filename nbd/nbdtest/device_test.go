package nbdtest_test

import (
	"errors"
	"testing"

	"nbdcrypt/nbd"
	"nbdcrypt/nbd/nbdtest"
)

func TestMemory(t *testing.T) {
	nbdtest.RunDevice(t, func(*testing.T) nbd.Device { return nbdtest.NewMemory(1<<20 + 512) })
}

func TestHooked(t *testing.T) {
	calls := 0
	nbdtest.RunDevice(t, func(*testing.T) nbd.Device {
		dev := &nbdtest.Hooked{Full: nbdtest.NewMemory(1 << 20)}
		dev.Before = func(nbdtest.Op, int64, int64) error { return nil }
		calls++
		dev.Nowait = func(int64, int64) error { return nil }
		return dev
	})
	if calls == 0 {
		t.Error("the suite asked for no device")
	}
}

// The server's tests count allocations over this device.
func TestMemoryAllocatesNothing(t *testing.T) {
	dev, p := nbdtest.NewMemory(1<<20), make([]byte, 4096)
	if n := testing.AllocsPerRun(100, func() {
		_, err1 := dev.WriteAt(p, 4096)
		_, err2 := dev.WriteAtFUA(p, 8192)
		_, err3 := dev.ReadAtNowait(p, 4096)
		_, _, _, err4 := dev.Extent(0, 1<<20)
		if errors.Join(err1, err2, err3, err4, dev.ZeroAtFast(0, 8192, true), dev.CacheAt(0, 1), dev.Sync()) != nil {
			t.Error("a call failed")
		}
	}); n != 0 {
		t.Errorf("%v allocations", n)
	}
}
