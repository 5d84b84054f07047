package catalog

import (
	"fmt"
	"testing"
)

// Only so many requests are remembered, and the store does not grow for more; an id that was used again stays.
func TestOldRequestsAreForgotten(t *testing.T) {
	s := Memory().(*store)
	update := func(id string) {
		t.Helper()
		if err := s.Update(t.Context(), id, func(Txn) error { return nil }); err != nil {
			t.Fatal(err)
		}
	}
	update("first")
	update("again")
	// Going 10,000 commits by hand is slow on a memory store; the revision is what counts.
	jump(t, s, keptRequests-2)
	for range 2 {
		update("again")
	}
	update("last")
	for id, want := range map[string]bool{"first": false, "again": true, "last": true} {
		if got, err := s.Outcome(t.Context(), id); err != nil || got != want {
			t.Errorf("outcome of %s is %v, %v, want %v", id, got, err, want)
		}
	}
	snap, err := s.b.snapshot()
	if err != nil {
		t.Fatal(err)
	}
	if pairs, _ := snap.scan(orderPrefix, "", 100); len(pairs) != 3 {
		t.Errorf("%d requests are listed: %v", len(pairs), pairs)
	}
	if _, err := verify(snap, []string{"b"}); err != nil {
		t.Error(err)
	}
}

// jump raises the revision by n.
func jump(t *testing.T, s *store, n uint64) {
	t.Helper()
	err := s.change(t.Context(), func(snap snapshot) ([]change, []string, error) {
		m, err := readMeta(snap)
		m.revision += n
		return []change{{metaKey, m.encode()}}, nil, err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// Whatever is done to the pairs behind the store's back, counting finds it.
func TestAccountFindsEveryChange(t *testing.T) {
	for i, behind := range [][]change{
		{{"a", []byte("other")}}, {{"a", nil}}, {{"c", []byte{}}}, {{"a", []byte("2")}, {"b", []byte("1")}},
		{{requestKey("r"), nil}}, {{metaKey, nil}}, {{metaKey, []byte{2}}},
	} {
		s := Memory().(*store)
		err := s.Update(t.Context(), "r", func(txn Txn) error {
			_ = txn.Put("a", []byte("1"))
			return txn.Put("b", []byte("2"))
		})
		if err != nil {
			t.Fatal(err)
		}
		if err := s.b.commit(behind); err != nil {
			t.Fatal(err)
		}
		snap, _ := s.b.snapshot()
		if _, err := verify(snap, []string{"b"}); err == nil {
			t.Error(fmt.Sprint(i, ": it goes unseen"))
		}
	}
}

// A commit that failed half-way leaves the store refusing everything until it is opened again.
func TestBrokenCommitIsRemembered(t *testing.T) {
	s := newStore(breaking{Memory().(*store).b})
	for range 2 {
		if err := s.Update(t.Context(), "r", func(Txn) error { return nil }); err == nil {
			t.Fatal("it commits")
		}
	}
	if _, err := s.Revision(t.Context()); err == nil {
		t.Error("it still reads")
	}
}

type breaking struct{ backend }

func (breaking) commit([]change) error { return fmt.Errorf("half of it is written") }
