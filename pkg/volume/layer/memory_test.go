package layer

import (
	"context"
	"runtime"
	"testing"

	"nbdcrypt/pkg/pool"
	"nbdcrypt/pkg/pool/pooltest"
)

// What the map of a full disk of 1 TiB takes in memory, as docs/disk-format.md says: least where each record has one state,
// most where none has.
func TestMapOfAFullDiskInMemory(t *testing.T) {
	for _, c := range []struct {
		name  string
		mixed bool
		most  int64
	}{{"of one state", false, 3 << 20}, {"of two", true, 75 << 20}} {
		m := newBlockMap(testID, mapVolume(t, 1<<40))
		before := heap()
		for index := range records(1 << 40) {
			if err := m.prepare(index*recordStates, 1); err != nil {
				t.Fatal(err)
			}
			m.set(index*recordStates, recordStates, Data)
			if c.mixed {
				m.set(index*recordStates, 1, Zero)
			}
		}
		m.land(m.takeOff(), true)
		m.dirty = map[int64]*record{}
		took := heap() - before
		t.Logf("records %s: %d KiB", c.name, took>>10)
		if took > c.most {
			t.Errorf("records %s take %d bytes, more than %d", c.name, took, c.most)
		}
		runtime.KeepAlive(m)
	}
}

func mapVolume(t *testing.T, size int64) pool.Volume {
	t.Helper()
	p := pooltest.NewPower()
	ctx := context.Background()
	if err := p.Create(ctx, "l/map", MapSize(size)); err != nil {
		t.Fatal(err)
	}
	v, err := p.Open(ctx, "l/map", false)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func heap() int64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.GC()
	runtime.ReadMemStats(&m)
	return int64(m.HeapAlloc)
}
