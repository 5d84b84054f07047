package secret

import (
	"errors"
	"testing"
)

// TestWorkGoesOnWhenKeysFillTheMemory: what is attached can still be flushed, listed and detached then.
func TestWorkGoesOnWhenKeysFillTheMemory(t *testing.T) {
	a := newArena(heap("best"))
	if _, err := a.key(chunkSize, Purpose{}, false); err != nil {
		t.Fatal(err)
	}
	a.mapper[0] = failing("best", errLimit)
	if _, err := a.key(1, Purpose{}, false); !errors.Is(err, ErrFull) {
		t.Errorf("a key that stays was put where work is done: %v", err)
	}
	for range 10 {
		k, err := a.key(chunkSize, Purpose{}, true)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := a.key(1, Purpose{}, true); !errors.Is(err, ErrFull) {
			t.Errorf("more work than memory: %v", err)
		}
		lease := k.lease.Load()
		k.Destroy()
		if lease.chunk != a.chunks[0] {
			t.Error("work is not done in the first chunk")
		}
	}
}

func TestListNamesEveryKey(t *testing.T) {
	a := newArena(heap("heap"))
	root := Purpose{"root", "1", "everything"}
	first, _ := a.key(32, root, false)
	second, _ := a.key(100, Purpose{"dek", "2", "a disk"}, true)
	list := a.list()
	if len(list) != 2 || list[0].Purpose != root || list[1].Size != 100 || list[1].For != "a disk" || list[1].Since.Before(list[0].Since) {
		t.Errorf("%+v", list)
	}
	first.Destroy()
	if list := a.list(); len(list) != 1 || list[0].ID != "2" {
		t.Errorf("%+v", list)
	}
	second.Destroy()
	if list := a.list(); len(list) != 0 {
		t.Errorf("%+v", list)
	}
}

func TestUnwipedFindsWhatWasWrittenToADestroyedKey(t *testing.T) {
	arenas(t, func(t *testing.T, a *arena) {
		k, err := a.key(100, Purpose{}, false)
		if err != nil {
			t.Fatal(err)
		}
		late := k.Bytes()
		late[3] = 1
		if n := a.unwiped(); n != 0 {
			t.Errorf("%d bytes of a key that is held are counted", n)
		}
		k.Destroy()
		if n := a.unwiped(); n != 0 {
			t.Errorf("%d bytes are left of a destroyed key", n)
		}
		late[99] = 1
		if n := a.unwiped(); n != 1 {
			t.Errorf("%d bytes found, one was written", n)
		}
		spans := a.spans()
		if len(spans) != 2 || spans[0].To-spans[0].From != chunkSize {
			t.Errorf("spans: %+v", spans)
		}
	})
}

func TestRestrict(t *testing.T) {
	a := newArena(heap("best"), heap("second"))
	if err := a.restrict("third"); err == nil {
		t.Error("an unknown kind is taken")
	}
	if err := a.restrict("second"); err != nil {
		t.Fatal(err)
	}
	if _, err := a.key(1, Purpose{}, false); err != nil || a.stats().Kind != "second" {
		t.Errorf("%v, %+v", err, a.stats())
	}
	if err := a.restrict("second"); err == nil {
		t.Error("restricted with keys in it")
	}
}
