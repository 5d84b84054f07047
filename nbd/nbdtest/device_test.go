package nbdtest_test

import (
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
		return dev
	})
	if calls == 0 {
		t.Error("the suite asked for no device")
	}
}
