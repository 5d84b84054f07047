package layer

import (
	"sync/atomic"
	"testing"

	"nbdcrypt/pkg/pool/pooltest"
)

// Space that was noted just after a flush took the map's change away comes back with the next flush, though that has nothing
// to write.
func TestPunchWithoutChanges(t *testing.T) {
	faults := pooltest.NewFaults(pooltest.NewPower())
	h := Header{ID: testID, SectorSize: 512}
	if err := Create(t.Context(), faults, h, 1<<20); err != nil {
		t.Fatal(err)
	}
	l, err := Open(t.Context(), faults, h, 1<<20, Options{})
	if err != nil {
		t.Fatal(err)
	}
	if err := l.Zero(0, 4096, false); err != nil {
		t.Fatal(err)
	}
	noted := l.punches.take()
	if err := l.Flush(); err != nil {
		t.Fatal(err)
	}
	var punched atomic.Int64
	faults.Hook(func(c pooltest.Call) error {
		if c.Op == pooltest.OpDiscard {
			punched.Add(c.N)
		}
		return nil
	})
	l.punches.put(noted)
	if err := l.Flush(); err != nil {
		t.Fatal(err)
	}
	if err := l.Close(); err != nil || punched.Load() != 4096 {
		t.Errorf("%d bytes came back, %v", punched.Load(), err)
	}
}
