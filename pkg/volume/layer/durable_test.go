package layer

import (
	"testing"

	"github.com/google/uuid"

	"nbdcrypt/pkg/pool"
)

// syncCounter counts how its volume is made durable.
type syncCounter struct {
	pool.Volume
	alone chan struct{}
}

func (c syncCounter) WriteAtSync(p []byte, off int64) (int, error) {
	c.alone <- struct{}{}
	return c.Volume.WriteAtSync(p, off)
}

// TestDurability3_ManyDurableWritesShareAFlush: a few durable writes are synchronous; beyond these they are left to the Flush
// that who writes asks for then.
func TestDurability3_ManyDurableWritesShareAFlush(t *testing.T) {
	p, err := pool.OpenFiles(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	h := Header{ID: uuid.New(), SectorSize: 512}
	if err := Create(t.Context(), p, h, 1<<20); err != nil {
		t.Fatal(err)
	}
	l, err := Open(t.Context(), p, h, 1<<20, Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	block := make([]byte, BlockSize)
	if err := l.WriteNew(block, 0); err != nil {
		t.Fatal(err)
	}
	if err := l.Flush(); err != nil {
		t.Fatal(err)
	}
	alone := make(chan struct{}, 1)
	l.data = syncCounter{l.data, alone}
	if durable, err := l.Write(block, 0, true); err != nil || !durable || len(alone) != 1 {
		t.Errorf("one durable write: durable %v, %d synchronous writes, %v", durable, len(alone), err)
	}
	<-alone
	l.durable.Add(manyDurable - 1)
	if durable, err := l.Write(block, 0, true); err != nil || durable || len(alone) != 0 || !l.written.Load() {
		t.Errorf("one of many: durable %v, %d synchronous writes, to be flushed %v, %v", durable, len(alone), l.written.Load(), err)
	}
	if l.durable.Load() != manyDurable-1 {
		t.Errorf("%d durable writes are counted in progress", l.durable.Load())
	}
}
