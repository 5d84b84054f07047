package secret

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"unsafe"
)

// heap is a mapper for tests of the bookkeeping alone.
func heap(kind string) mapper {
	return mapper{kind, func(size int) ([]byte, error) { return make([]byte, size), nil }}
}

func failing(kind string, err error) mapper {
	return mapper{kind, func(int) ([]byte, error) { return nil, err }}
}

func TestKeysArePacked(t *testing.T) {
	a := newArena(heap("heap"))
	var keys []*Key
	for i := range chunkCells {
		k, err := a.key(1+i%cellSize, Purpose{}, false)
		if err != nil {
			t.Fatal(err)
		}
		keys = append(keys, k)
	}
	if u := a.stats(); len(a.chunks) != 2 || u.Keys != chunkCells || u.Used != chunkSize {
		t.Errorf("%d chunks, %+v", len(a.chunks), u)
	}
	freed := &keys[10].Bytes()[0]
	keys[10].Destroy()
	keys[12].Destroy()
	if k, err := a.key(2*cellSize, Purpose{}, false); err != nil || len(a.chunks) != 3 {
		t.Errorf("two cells do not fit, but: %v, %v, %d chunks", k, err, len(a.chunks))
	}
	keys[11].Destroy()
	k, err := a.key(3*cellSize, Purpose{}, false)
	if err != nil || &k.Bytes()[0] != freed || len(a.chunks) != 3 {
		t.Errorf("three free cells were not used again: %v, %d chunks", err, len(a.chunks))
	}
}

func TestFallsBackOnlyBeforeTheFirstKey(t *testing.T) {
	missing := errors.New("function not implemented")
	a := newArena(failing("best", missing), heap("second"))
	if a.stats().Kind != "" {
		t.Errorf("an arena without memory is of kind %q", a.stats().Kind)
	}
	if _, err := a.key(1, Purpose{}, false); err != nil || a.stats().Kind != "second" {
		t.Errorf("%v, %+v", err, a.stats())
	}
	a = newArena(heap("best"), heap("second"))
	if _, err := a.key(chunkSize, Purpose{}, false); err != nil {
		t.Fatal(err)
	}
	a.mapper[0] = failing("best", missing)
	if _, err := a.key(1, Purpose{}, false); !errors.Is(err, missing) || errors.Is(err, ErrFull) || a.stats().Kind != "best" {
		t.Errorf("%v, %+v", err, a.stats())
	}
	a = newArena(failing("best", missing), failing("second", missing))
	if _, err := a.key(1, Purpose{}, false); !errors.Is(err, missing) {
		t.Error(err)
	}
}

func TestErrFullNamesUseAndLimit(t *testing.T) {
	a := newArena(heap("best"), heap("second"))
	if _, err := a.key(chunkSize-1, Purpose{}, false); err != nil {
		t.Fatal(err)
	}
	a.mapper[0] = failing("best", fmt.Errorf("%w: cannot allocate memory", errLimit))
	_, err := a.key(100, Purpose{}, false)
	if !errors.Is(err, ErrFull) {
		t.Fatal(err)
	}
	for _, part := range []string{"100 bytes", "65536 bytes in keys, 131072 locked", "cannot allocate memory", "RLIMIT_MEMLOCK"} {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("%q does not tell %q", err, part)
		}
	}
	if u := a.stats(); u.Keys != 1 {
		t.Errorf("a key that failed is counted: %+v", u)
	}
}

// TestManyGoroutines has each key filled with a byte of its own, so that two that share a cell show, and the race detector watch.
func TestManyGoroutines(t *testing.T) {
	arenas(t, func(t *testing.T, a *arena) {
		var wg sync.WaitGroup
		for g := range 8 {
			wg.Go(func() {
				r := rand.New(rand.NewPCG(uint64(g), 0))
				for range 300 {
					if err := useKey(a, 1+r.IntN(3000), byte(g+1)); err != nil {
						t.Error(err)
						return
					}
				}
			})
		}
		wg.Wait()
		if u := a.stats(); u.Keys != 0 || u.Used != 0 {
			t.Errorf("after all are destroyed: %+v", u)
		}
	})
}

func useKey(a *arena, n int, fill byte) error {
	k, err := a.key(n, Purpose{}, false)
	if err != nil {
		return err
	}
	b := k.Bytes()
	if uintptr(unsafe.Pointer(&b[0]))%cellSize != 0 || !bytes.Equal(b, make([]byte, n)) {
		return fmt.Errorf("a key of %d at %p is not aligned or not zeroed", n, &b[0])
	}
	for i := range b {
		b[i] = fill
	}
	if bytes.Count(b, []byte{fill}) != n {
		return errors.New("another key wrote into this one")
	}
	var wg sync.WaitGroup
	for range 2 {
		wg.Go(k.Destroy)
	}
	wg.Wait()
	return nil
}
