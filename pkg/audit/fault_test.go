package audit

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"testing"

	"github.com/google/uuid"

	"nbdcrypt/pkg/audit/chain"
	"nbdcrypt/pkg/clock"
)

// faulty is a file that runs out of space after so many bytes, or whose sync fails.
type faulty struct {
	file
	room     int
	syncFail error
}

func (f *faulty) WriteAt(p []byte, off int64) (int, error) {
	n, err := f.file.WriteAt(p[:min(len(p), f.room)], off)
	f.room -= n
	if err == nil && n < len(p) {
		err = syscall.ENOSPC
	}
	return n, err
}

func (f *faulty) Reserve(off, n int64) error {
	if int64(f.room) < n {
		return syscall.ENOSPC
	}
	return f.file.Reserve(off, n)
}

func (f *faulty) Sync() error { return errors.Join(f.file.Sync(), f.syncFail) }

// noKey is for logs whose heads nobody forges.
func noKey([]byte) ([]byte, error) { return make([]byte, 32), nil }

func openFaulty(t *testing.T) (*Log, *faulty, string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "audit.log")
	l, err := Open(t.Context(), Config{Path: path, Clock: clock.System{}, Create: true, MAC: noKey})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	f := &faulty{file: l.f, room: 1 << 20}
	l.f = f
	return l, f, path
}

func add(l *Log) error {
	_, err := l.Append(context.Background(), Record{Verb: "x", Outcome: OK})
	return err
}

func wantWhole(t *testing.T, path string, seq uint64) {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	end, err := chain.Verify(t.Context(), f, chain.Genesis(uuid.Nil), chain.NewWitnesses(), func(int64) {})
	if err != nil || len(end.Torn) != 0 || end.Head.Seq != seq {
		t.Errorf("the log has head %+v, %d torn bytes, %v; want %d records", end.Head, len(end.Torn), err, seq)
	}
}

func TestFullDiskRefusesAndGoesOnOnceThereIsRoom(t *testing.T) {
	l, f, path := openFaulty(t)
	if err := add(l); err != nil {
		t.Fatal(err)
	}
	for _, room := range []int{0, 1, 50} {
		f.room = room
		if err := add(l); !errors.Is(err, syscall.ENOSPC) {
			t.Errorf("with room for %d bytes: %v", room, err)
		}
		wantWhole(t, path, 1)
	}
	f.room = 1 << 20
	if err := add(l); err != nil {
		t.Fatal(err)
	}
	wantMissed(t, path, 3)
	wantWhole(t, path, 3)
}

// wantMissed counts the records that the log says are missing, and returns how many records say so.
func wantMissed(t *testing.T, path string, want int) (notes uint64) {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	missed := 0
	end := chain.Begin(chain.Genesis(uuid.Nil))
	err = end.Walk(f, func(e chain.Entry) error {
		n := 0
		r, err := chain.Parse(e.Line)
		if err != nil {
			return err
		}
		if r.Verb != "audit.missed" {
			return nil
		}
		notes++
		_, err = fmt.Sscanf(r.Message, "%d records", &n)
		missed += n
		return err
	})
	if err != nil || missed != want {
		t.Errorf("the log says that %d records are missing, want %d: %v", missed, want, err)
	}
	return notes
}

// What nobody can undo waits for a log that takes records.
func TestReadyTellsOfTheNextRecord(t *testing.T) {
	l, f, path := openFaulty(t)
	if err := l.Ready(); err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(path); err != nil || info.Size() != 0 {
		t.Errorf("reserving made the file %d bytes long: %v", info.Size(), err)
	}
	f.room = 100
	if err := l.Ready(); !errors.Is(err, syscall.ENOSPC) {
		t.Errorf("without room: %v", err)
	}
	f.room = 1 << 20
	f.syncFail = syscall.EIO
	if add(l) == nil {
		t.Error("a record whose sync failed is taken")
	}
	if err := l.Ready(); !errors.Is(err, syscall.EIO) {
		t.Errorf("after a failed sync: %v", err)
	}
}

func TestFullDiskUnderLoad(t *testing.T) {
	l, f, path := openFaulty(t)
	f.room = 3000
	var wg sync.WaitGroup
	var mu sync.Mutex
	done := uint64(0)
	for range 8 {
		wg.Go(func() {
			for range 5 {
				if add(l) == nil {
					mu.Lock()
					done++
					mu.Unlock()
				}
			}
		})
	}
	wg.Wait()
	if done == 0 || done == 40 {
		t.Fatalf("%d of 40 records were taken: the disk was not full in the midst", done)
	}
	wantWhole(t, path, done)
	// One more, once there is room, and nothing is hidden.
	f.room = 1 << 20
	if err := add(l); err != nil {
		t.Fatal(err)
	}
	wantWhole(t, path, done+1+wantMissed(t, path, int(40-done)))
}

// After a failed sync nobody knows what the disk has, so no key may be released any more.
func TestFailedSyncIsSticky(t *testing.T) {
	l, f, _ := openFaulty(t)
	f.syncFail = syscall.EIO
	if err := add(l); !errors.Is(err, syscall.EIO) {
		t.Fatalf("a record whose sync failed: %v", err)
	}
	f.syncFail = nil
	if err := add(l); !errors.Is(err, syscall.EIO) {
		t.Errorf("a record after it: %v", err)
	}
	if l.Head().Seq != 0 {
		t.Errorf("the head is %+v", l.Head())
	}
}
