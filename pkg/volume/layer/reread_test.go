package layer

import (
	"errors"
	"sync"
	"syscall"
	"testing"

	"nbdcrypt/pkg/pool/pooltest"
)

// A record of the map that could not be read is read again when it is next needed: only what is damaged stays so. All who asked meanwhile
// hear of the failure.
func TestRecordIsReadAgain(t *testing.T) {
	faults := pooltest.NewFaults(pooltest.NewPower())
	h := Header{ID: testID, SectorSize: 512}
	if err := Create(t.Context(), faults, h, 1<<20); err != nil {
		t.Fatal(err)
	}
	l, err := Open(t.Context(), faults, h, 1<<20, Options{})
	if err != nil {
		t.Fatal(err)
	}
	faults.Hook(func(c pooltest.Call) error {
		if c.Op == pooltest.OpRead {
			return syscall.EIO
		}
		return nil
	})
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			if _, _, err := l.Run(0, 4096, true); !errors.Is(err, syscall.EIO) {
				t.Errorf("looking: %v", err)
			}
			if err := l.WriteNew(make([]byte, 4096), 0); !errors.Is(err, syscall.EIO) {
				t.Errorf("writing: %v", err)
			}
		})
	}
	all.Wait()
	faults.Hook(nil)
	if err := l.WriteNew(make([]byte, 4096), 0); err != nil {
		t.Error(err)
	}
	if state, _, err := l.Run(0, 4096, true); state != Data || err != nil {
		t.Errorf("it is %v, %v", state, err)
	}
	if err := errors.Join(l.Flush(), l.Close()); err != nil {
		t.Error(err)
	}
}
