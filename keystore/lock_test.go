package keystore_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"nbdcrypt/keystore"
	"nbdcrypt/pkg/catalog"
	"nbdcrypt/pkg/refusal"
	"nbdcrypt/pkg/secret"
)

// held counts the keys of a kind that are in memory for a store.
func held(kind, id string) (n int) {
	for _, k := range secret.List() {
		if k.Kind == kind && (id == "" || k.ID == id) {
			n++
		}
	}
	return n
}

// wantLocked wants the refusal that everything gets which needs the root key.
func wantLocked(t *testing.T, what string, err error) {
	t.Helper()
	if r := refusal.From(err); r == nil || r.Code != refusal.Locked || r.Hint != "run `nbdcrypt root unlock`" {
		t.Errorf("%s: %+v", what, r)
	}
}

// While the root key is locked it is in no memory, the catalog is read and written on, and what wraps or unwraps refuses.
func TestRuleA4_LockedRootKeyOpensNothing(t *testing.T) {
	l := newLab(t)
	l.grant("default")
	l.create("default", "mine")
	l.dek("default", "mine", disk1, "l1")
	slot := l.addSlot("laptop", horse)
	must(t, l.root.Lock())
	must(t, l.root.Lock())
	id := l.root.Store.String()
	if !l.root.Locked() || held("root", id) != 0 || held("catalog", id) != 1 || held("cmk", "") != 0 {
		t.Errorf("locked, there are in memory %v", secret.List())
	}
	erase := readFile(t, filepath.Join(l.dir, keystore.EraseFile))
	for what, do := range lockedRefuses(l, slot) {
		wantLocked(t, what, do(l.ctx()))
	}
	if !bytes.Equal(readFile(t, filepath.Join(l.dir, keystore.EraseFile)), erase) {
		t.Error("an erase slot was spent on what was refused")
	}
	for what, do := range lockedWorks(l) {
		if err := do(l.ctx()); err != nil {
			t.Errorf("%s: %v", what, err)
		}
	}
	must(t, l.root.UnlockFile())
	if _, err := l.unwrap("default", keystore.Holder{Kind: "disk", ID: "moved"}, "l1"); refusal.CodeOf(err) != refusal.Damaged {
		t.Errorf("a record that was moved meanwhile: %v", err)
	}
	_, err := l.unwrap("default", disk1, "l1")
	must(t, err)
	l.wantProblems("damage data key dek/disk/moved/l1")
}

func lockedRefuses(l *lab, slot keystore.SlotInfo) map[string]func(context.Context) error {
	return map[string]func(context.Context) error{
		"unwrap": func(context.Context) error { _, err := l.unwrap("default", disk1, "l1"); return err },
		"wrap": func(ctx context.Context) error {
			_, err := l.GenerateDEK(ctx, "default", "mine", disk1, "l2", 512)
			return err
		},
		"key create": func(ctx context.Context) error {
			_, err := l.CreateKey(ctx, "r", "default", keystore.KeySpec{Alias: "other"})
			return err
		},
		"first grant": func(ctx context.Context) error { _, _, err := l.Grant(ctx, "r", "b", "root"); return err },
		"check":       func(ctx context.Context) error { _, err := l.Verify(ctx, func(keystore.Problem) {}); return err },
		"slot add": func(ctx context.Context) error {
			_, err := l.root.AddPassphrase(ctx, "n", passphrase(l.t, office))
			return err
		},
		"slot remove": func(ctx context.Context) error { return l.root.RemoveSlot(ctx, slot.ID) },
	}
}

func lockedWorks(l *lab) map[string]func(context.Context) error {
	return map[string]func(context.Context) error{
		"key list": func(ctx context.Context) error {
			keys, err := l.Keys(ctx, "default")
			if len(keys) != 2 {
				err = errors.Join(err, fmt.Errorf("%d keys", len(keys)))
			}
			return err
		},
		"key disable and enable": func(ctx context.Context) error {
			_, off := l.Disable(ctx, "off", "default", "mine")
			_, on := l.Enable(ctx, "on", "default", "mine")
			return errors.Join(off, on)
		},
		"grant revoke and again": func(ctx context.Context) error {
			away := l.RevokeGrant(ctx, "away", "default")
			_, _, again := l.Grant(ctx, "again", "default", "root")
			return errors.Join(away, again)
		},
		"writing and dropping records": func(ctx context.Context) error {
			return l.sealed.Update(ctx, "records", func(txn catalog.Txn) error {
				b, err := txn.Get("dek/disk/d1/l1")
				return errors.Join(err, txn.Put("dek/disk/moved/l1", b), keystore.DropDEKs(txn, keystore.Holder{Kind: "disk", ID: "d9"}, "l"))
			})
		},
		"slot list": func(context.Context) error { _, err := l.root.Slots(); return err },
	}
}

// A store whose root key was not open since the start tells nothing of its catalog.
func TestRuleA4_LockedFromTheStartReadsNoCatalog(t *testing.T) {
	l := newLab(t)
	l.grant("default")
	l.addSlot("laptop", horse)
	l.close()
	must(t, os.Remove(l.keyFile))
	root := l.atStart()
	if !root.Locked() || held("catalog", root.Store.String()) != 0 {
		t.Errorf("locked, there are in memory %v", secret.List())
	}
	_, err := catalog.Open(filepath.Join(l.dir, keystore.CatalogDir), catalog.Options{Check: keystore.CheckSealed(root)})
	wantLocked(t, "opening the catalog", err)
	empty := keystore.Seal(catalog.Memory(), root)
	wantLocked(t, "writing", empty.Update(t.Context(), "r", func(txn catalog.Txn) error { return txn.Put("a", nil) }))
}

// Losing the root key by locking it is refused.
func TestLockNeedsAWayBack(t *testing.T) {
	l := newLab(t)
	must(t, os.Rename(l.keyFile, l.keyFile+".away"))
	refused := func(why string) {
		t.Helper()
		wantWords(t, wantCode(t, l.root.Lock(), refusal.Busy), why)
		if l.root.Locked() {
			t.Fatal("it is locked")
		}
	}
	refused("missing")
	writeFile(t, l.keyFile, []byte("nonsense"))
	refused("damaged")
	slot := l.addSlot("laptop", horse)
	whole := readFile(t, l.slotFile(slot))
	writeFile(t, l.slotFile(slot), whole[:100])
	refused("damaged")
	writeFile(t, l.slotFile(slot), whole)
	must(t, l.root.Lock())
	_, err := l.root.UnlockPassphrase(l.ctx(), passphrase(t, horse))
	must(t, err)
}

// Wraps, reading and locking at once: each does its work or is told that the root key is locked.
func TestLockWhileKeysAreUsed(t *testing.T) {
	l := newLab(t)
	l.grant("default")
	l.dek("default", "", disk1, "l1")
	var all sync.WaitGroup
	for _, use := range []func() error{
		func() error { _, err := l.unwrap("default", disk1, "l1"); return err },
		func() error { _, err := l.GenerateDEK(l.ctx(), "default", "", disk1, "l2", 512); return err },
		func() error {
			_, err := l.Verify(l.ctx(), func(p keystore.Problem) { t.Errorf("check found %+v", p) })
			return err
		},
	} {
		all.Go(func() {
			for range 300 {
				if err := use(); err != nil {
					wantLocked(t, "meanwhile", err)
				}
				if _, err := l.Keys(l.ctx(), "default"); err != nil {
					t.Error(err)
				}
			}
		})
	}
	for range 100 {
		must(t, l.root.Lock())
		if id := l.root.Store.String(); held("root", id) != 0 || held("cmk", "") != 0 {
			t.Fatalf("locked, there are in memory %v", secret.List())
		}
		must(t, l.root.UnlockFile())
	}
	all.Wait()
}

// locking locks the root key whenever records under its prefix are read.
type locking struct {
	catalog.Store
	l      *lab
	prefix string
}

func (s *locking) View(ctx context.Context, fn func(catalog.Reader) error) error {
	return s.Store.View(ctx, func(r catalog.Reader) error { return fn(lockingReader{r, s}) })
}

type lockingReader struct {
	catalog.Reader
	*locking
}

func (r lockingReader) Scan(prefix, after string, limit int) ([]catalog.Pair, error) {
	if prefix == r.prefix {
		must(r.l.t, r.l.root.Lock())
	}
	return r.Reader.Scan(prefix, after, limit)
}

// A check during which the root key is locked says that, and calls nothing damaged.
func TestLockDuringACheck(t *testing.T) {
	l := newLab(t)
	l.grant("default")
	l.dek("default", "", disk1, "l1")
	var s *locking
	l.wrap = func(below catalog.Store) catalog.Store {
		s = &locking{below, l, ""}
		return s
	}
	l.reopen()
	for _, s.prefix = range []string{"key/", "dek/"} {
		_, err := l.Verify(l.ctx(), func(p keystore.Problem) { t.Errorf("locked at %s, it finds %+v", s.prefix, p) })
		wantLocked(t, s.prefix, err)
		must(t, l.root.UnlockFile())
	}
}
