package audit

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"
	"syscall"
	"testing"

	"github.com/google/uuid"

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

func (f *faulty) Sync() error { return errors.Join(f.file.Sync(), f.syncFail) }

func openFaulty(t *testing.T) (*Log, *faulty, string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "audit.log")
	l, err := Open(t.Context(), Config{Path: path, Clock: clock.System{}, Create: true})
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
	head, torn, err := Verify(t.Context(), path, uuid.Nil)
	if err != nil || torn != 0 || head.Seq != seq {
		t.Errorf("the log has head %+v, %d torn bytes, %v; want %d records", head, torn, err, seq)
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
	_, err = walk(f, uuid.Nil, func(r Record) error {
		n := 0
		if r.Verb != "audit.missed" {
			return nil
		}
		notes++
		_, err := fmt.Sscanf(r.Message, "%d records", &n)
		missed += n
		return err
	})
	if err != nil || missed != want {
		t.Errorf("the log says that %d records are missing, want %d: %v", missed, want, err)
	}
	return notes
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

func FuzzLine(f *testing.F) {
	rec := Record{Seq: 1, Verb: "disk.attach", Prev: genesis(uuid.Nil), Outcome: OK, Message: "é<\n"}
	line, err := encode(&rec)
	if err != nil || len(line) == 0 {
		f.Fatal("no seed", err)
	}
	f.Add(line)
	f.Add(line[:len(line)-1])
	f.Add([]byte(`{"hash":""}`))
	f.Fuzz(func(t *testing.T, line []byte) {
		rec, err := decode(line)
		if err != nil {
			return
		}
		// A line that is taken has a hash over all of its bytes, so it is a line that encode could have made but
		// for its spelling.
		if len(rec.Hash) != 64 {
			t.Errorf("%q is taken", line)
		}
	})
}

func FuzzLog(f *testing.F) {
	dir := f.TempDir()
	l, err := Open(f.Context(), Config{Path: filepath.Join(dir, "audit.log"), Clock: clock.System{}, Create: true})
	if err != nil {
		f.Fatal(err)
	}
	for range 2 {
		if err := add(l); err != nil {
			f.Fatal(err)
		}
	}
	seed, err := os.ReadFile(filepath.Join(dir, "audit.log"))
	if err != nil || len(seed) == 0 {
		f.Fatal("no seed", err)
	}
	f.Add(seed)
	f.Add(seed[:len(seed)-5])
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, b []byte) {
		n := uint64(0)
		c, err := walk(&chunks{b}, uuid.Nil, func(Record) error { n++; return nil })
		if err == nil && (c.head.Seq != n || int(c.size)+len(c.torn) != len(b)) {
			t.Errorf("%d records, head %d, %d+%d of %d bytes", n, c.head.Seq, c.size, len(c.torn), len(b))
		}
	})
}

// chunks gives few bytes at a time.
type chunks struct{ b []byte }

func (c *chunks) Read(p []byte) (int, error) {
	if len(c.b) == 0 {
		return 0, io.EOF
	}
	n := copy(p[:min(len(p), 7)], c.b)
	c.b = c.b[n:]
	return n, nil
}
