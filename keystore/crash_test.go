package keystore_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"nbdcrypt/keystore"
	"nbdcrypt/pkg/catalog"
	"nbdcrypt/pkg/catalog/catalogtest"
	"nbdcrypt/pkg/refusal"
)

// problems runs Verify and returns what it found, one line each.
func (l *lab) problems() (lines []string) {
	l.t.Helper()
	_, err := l.Verify(l.ctx(), func(p keystore.Problem) {
		if p.Next == "" {
			l.t.Errorf("%+v says nothing of what to do", p)
		}
		lines = append(lines, fmt.Sprintf("%s %s %s: %s", p.Severity, p.What, p.Where, p.Problem))
	})
	must(l.t, err)
	return lines
}

func (l *lab) wantProblems(want ...string) {
	l.t.Helper()
	got := l.problems()
	if len(got) != len(want) {
		l.t.Fatalf("found %q, want %d", got, len(want))
	}
	for _, w := range want {
		if !strings.Contains(strings.Join(got, "\n"), w) {
			l.t.Errorf("%q is not among %q", w, got)
		}
	}
}

// A commit whose outcome is unknown is asked for, and done exactly once either way.
func TestUnknownOutcomeIsAskedFor(t *testing.T) {
	l := newLab(t)
	var unknown *catalogtest.Unknown
	l.wrap = func(s catalog.Store) catalog.Store {
		unknown = catalogtest.NewUnknown(s)
		return unknown
	}
	l.reopen()
	for i, commits := range []bool{true, false} {
		project, alias := fmt.Sprint("p", i), fmt.Sprint("k", i)
		unknown.Inject(commits)
		created, _, err := l.Grant(l.ctx(), l.request(), project, "root")
		if err != nil || !created {
			t.Fatalf("grant: %v, %v", created, err)
		}
		unknown.Inject(commits)
		l.create(project, alias)
		unknown.Inject(commits)
		if info, err := l.Disable(l.ctx(), l.request(), project, alias); err != nil || info.State != keystore.Disabled {
			t.Fatalf("disable: %v, %v", info, err)
		}
		if keys, err := l.Keys(l.ctx(), project); err != nil || len(keys) != 2 {
			t.Fatalf("keys: %v, %v", keys, err)
		}
	}
	l.wantProblems()
}

func TestSameRequestMakesOneKey(t *testing.T) {
	l := newLab(t)
	l.grant("default")
	first, err := l.CreateKey(l.ctx(), "the same", "default", keystore.KeySpec{Alias: "a"})
	must(t, err)
	again, err := l.CreateKey(l.ctx(), "the same", "default", keystore.KeySpec{Alias: "a"})
	if err != nil || !reflect.DeepEqual(again, first) {
		t.Errorf("asked again: %+v, %v", again, err)
	}
	l.wantProblems()
}

// refusing fails every commit for certain.
type refusing struct{ catalog.Store }

var errNoCommit = errors.New("no commit today")

func (refusing) Update(context.Context, string, func(catalog.Txn) error) error { return errNoCommit }

// A key that was not committed gives its erase slot back.
func TestFailedCommitGivesTheSlotBack(t *testing.T) {
	l := newLab(t)
	l.grant("default")
	size := func() int64 {
		st, err := os.Stat(filepath.Join(l.dir, keystore.EraseFile))
		must(t, err)
		return st.Size()
	}
	var before int64
	for range 3 {
		l.wrap = func(s catalog.Store) catalog.Store { return refusing{s} }
		l.reopen()
		if _, err := l.CreateKey(l.ctx(), l.request(), "default", keystore.KeySpec{Alias: "a"}); !errors.Is(err, errNoCommit) {
			t.Fatalf("the error is %v", err)
		}
		l.wantProblems()
		if before != 0 && size() != before {
			t.Errorf("the erase file grew from %d to %d", before, size())
		}
		before = size()
	}
}

// A crash between slot and record leaves a slot that no record names: it is told, and left alone.
func TestSlotWithoutARecordIsReported(t *testing.T) {
	l := newLab(t)
	l.grant("default")
	l.create("default", "a")
	must(t, l.sealed.Update(l.ctx(), l.request(), func(txn catalog.Txn) error {
		key, err := txn.Get("alias/here/default/a")
		return errors.Join(err, txn.Delete("key/default/"+string(key)), txn.Delete("alias/here/default/a"))
	}))
	l.wantProblems("note erase key erase slot 2: no key's record names it")
	l.reopen()
	l.create("default", "b")
	l.wantProblems("note erase key erase slot 2: no key's record names it")
}

func TestVerifyNamesWhatIsDamaged(t *testing.T) {
	l := newLab(t)
	l.grant("default")
	key := l.create("default", "a")
	l.create("default", "b")
	l.dek("default", "a", disk1, "l1")
	l.dek("default", "b", keystore.Holder{Kind: "disk", ID: "d2"}, "l2")
	rec := l.dek("default", "b", keystore.Holder{Kind: "disk", ID: "d3"}, "l3")
	l.wantProblems()
	rec.Blob[20] ^= 1
	l.put(rec)
	must(t, l.raw.Update(l.ctx(), l.request(), func(txn catalog.Txn) error {
		b, err := txn.Get("dek/disk/d2/l2")
		must(t, err)
		b[len(b)-1] ^= 1
		return txn.Put("dek/disk/d2/l2", b)
	}))
	l.wantProblems("damage data key dek/disk/d3/l3", "damage data key dek/disk/d2/l2")
	// Both copies of the slot of key a: its record, and the DEK under it.
	l.breakSlot(2, 0)
	l.wantProblems("damage data key dek/disk/d3/l3", "damage data key dek/disk/d2/l2", "note erase key erase slot 2")
	l.breakSlot(2, 4096)
	l.wantProblems("damage data key dek/disk/d3/l3", "damage data key dek/disk/d2/l2", "damage key key/default/"+key.ID,
		"damage data key dek/disk/d1/l1", "note erase key erase slot 2")
	_, err := l.unwrap("default", disk1, "l1")
	wantCode(t, err, refusal.Damaged)
}

// breakSlot flips a bit of one copy of an erase slot.
func (l *lab) breakSlot(pair, at int64) {
	l.t.Helper()
	f, err := os.OpenFile(filepath.Join(l.dir, keystore.EraseFile), os.O_RDWR, 0)
	must(l.t, err)
	defer f.Close()
	b := make([]byte, 1)
	_, err = f.ReadAt(b, pair*8192+at+25)
	must(l.t, err)
	b[0] ^= 1
	_, err = f.WriteAt(b, pair*8192+at+25)
	must(l.t, err)
}

// BenchmarkListSealed lists 10,000 sealed records: each value opens under a key of its own.
func BenchmarkListSealed(b *testing.B) {
	s := keystore.Seal(catalog.Memory(), keystore.OpenedRoot(randomKey(b), [16]byte{1}))
	const records = 10_000
	for i := 0; i < records; i += 60 {
		err := s.Update(b.Context(), fmt.Sprint("r", i), func(txn catalog.Txn) (err error) {
			for j := i; j < min(i+60, records); j++ {
				err = errors.Join(err, txn.Put(fmt.Sprintf("disk/%05d", j), make([]byte, 300)))
			}
			return err
		})
		if err != nil {
			b.Fatal(err)
		}
	}
	for b.Loop() {
		err := s.View(b.Context(), func(r catalog.Reader) error {
			pairs, err := r.Scan("disk/", "", records)
			if len(pairs) != records {
				b.Errorf("%d records", len(pairs))
			}
			return err
		})
		if err != nil {
			b.Fatal(err)
		}
	}
}
