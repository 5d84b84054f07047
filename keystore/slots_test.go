package keystore_test

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/google/uuid"

	"nbdcrypt/keystore"
	"nbdcrypt/pkg/refusal"
	"nbdcrypt/pkg/secret"
)

const (
	horse  = "correct horse battery staple"
	office = "another passphrase"
)

func passphrase(t *testing.T, s string) *secret.Key {
	t.Helper()
	k, err := secret.Work(max(1, len(s)), secret.Purpose{Kind: "test"})
	must(t, err)
	copy(k.Bytes(), s)
	t.Cleanup(k.Destroy)
	return k
}

func (l *lab) addSlot(name, pass string) keystore.SlotInfo {
	l.t.Helper()
	s, err := l.root.AddPassphrase(l.ctx(), name, passphrase(l.t, pass))
	must(l.t, err)
	return s
}

func (l *lab) slots() []keystore.SlotInfo {
	l.t.Helper()
	s, err := l.root.Slots()
	must(l.t, err)
	return s
}

func (l *lab) slotFile(s keystore.SlotInfo) string {
	return filepath.Join(l.dir, keystore.SlotsDir, s.ID)
}

// atStart opens the root key alone, and closes it at the end of the test.
func (l *lab) atStart() *keystore.Root {
	l.t.Helper()
	r, err := keystore.OpenRoot(l.keyFile, l.dir)
	must(l.t, err)
	l.t.Cleanup(r.Close)
	return r
}

// A passphrase opens a store whose key file is away, and nothing else does.
func TestPassphraseOpensTheStore(t *testing.T) {
	l := newLab(t)
	l.grant("default")
	l.dek("default", "", disk1, "l1")
	before, err := l.unwrap("default", disk1, "l1")
	must(t, err)
	laptop := l.addSlot("laptop", horse)
	l.addSlot("office", office)
	l.close()
	must(t, os.Rename(l.keyFile, l.keyFile+".away"))

	root := l.atStart()
	if list := slotsOf(t, root); list[0].Detail != l.keyFile+" is missing" || list[0].Present || !list[0].Created.IsZero() {
		t.Errorf("the key file is %+v", list[0])
	}
	if !root.Locked() || root.First || root.Made {
		t.Fatalf("without its key file the root key is %+v", root)
	}
	wantWords(t, wantCode(t, root.UnlockFile(), refusal.Locked), l.keyFile)
	for _, wrong := range []string{horse + "\n", strings.ToUpper(horse), "short", strings.Repeat("x", 1025)} {
		_, err := root.UnlockPassphrase(t.Context(), passphrase(t, wrong))
		wantWords(t, wantCode(t, err, refusal.Locked), "the passphrase opens no slot")
		if !root.Locked() {
			t.Fatalf("%.40q opens it", wrong)
		}
	}
	opened, err := root.UnlockPassphrase(t.Context(), passphrase(t, horse))
	if err != nil || opened != laptop || root.Locked() {
		t.Fatalf("opened by %+v, %v, want %+v", opened, err, laptop)
	}
	again, err := root.UnlockPassphrase(t.Context(), passphrase(t, office))
	if err != nil || again.Name != "office" {
		t.Errorf("open already: %+v, %v", again, err)
	}
	root.Close()
	l.pass = horse
	l.open()
	after, err := l.unwrap("default", disk1, "l1")
	if err != nil || !bytes.Equal(before, after) {
		t.Errorf("the DEK opens to something else: %v", err)
	}
}

// Neither root key nor passphrase stands in any file of the state directory, as it is or as hex; nor in the root key file's
// folder once the key file is removed.
func TestRuleA5_SlotsHoldTheRootKeyWrappedOnly(t *testing.T) {
	l := newLab(t)
	l.grant("default")
	slot := l.addSlot("laptop", horse)
	root := bytes.Clone(l.root.Key().Bytes())
	needles := [][]byte{root, root[:16], root[16:], []byte(horse)}
	if found := contains(t, l.dir, needles...); len(found) > 0 {
		t.Errorf("running, %v holds root key or passphrase", found)
	}
	if found := contains(t, filepath.Dir(l.dir), needles...); len(found) == 0 || found[0] != l.keyFile {
		t.Errorf("positive control: found in %v", found)
	}
	st, err := os.Stat(l.slotFile(slot))
	must(t, err)
	dir, err := os.Stat(filepath.Dir(l.slotFile(slot)))
	must(t, err)
	if st.Mode().Perm() != 0o600 || dir.Mode().Perm() != 0o700 {
		t.Errorf("their modes are %v and %v", st.Mode(), dir.Mode())
	}
	must(t, l.root.RemoveSlot(l.ctx(), keystore.KeyFileSlot))
	l.close()
	if found := contains(t, filepath.Dir(l.dir), needles...); len(found) > 0 {
		t.Errorf("without the key file, %v holds root key or passphrase", found)
	}
}

// Without key file and passphrase nothing opens; a copy of a slot in another store opens nothing there.
func TestRuleA4_SlotsOpenTheirOwnStoreOnly(t *testing.T) {
	l, other := newLab(t), newLab(t)
	mine, theirs := l.addSlot("laptop", horse), other.addSlot("laptop", office)
	l.close()
	must(t, os.Remove(l.keyFile))
	must(t, os.Rename(l.slotFile(mine), l.slotFile(mine)+".away"))
	writeFile(t, l.slotFile(theirs), readFile(t, other.slotFile(theirs)))
	wantWords(t, wantCode(t, l.tryRoot(), refusal.Locked), l.keyFile)
	must(t, os.Rename(l.slotFile(mine)+".away", l.slotFile(mine)))
	root := l.atStart()
	_, err := root.UnlockPassphrase(t.Context(), passphrase(t, office))
	wantCode(t, err, refusal.Locked)
	for _, s := range slotsOf(t, root)[1:] {
		if s.Present != (s.ID == mine.ID) || !s.Present && !strings.Contains(s.Detail, other.root.Store.String()) {
			t.Errorf("%+v", s)
		}
	}
	_, err = root.UnlockPassphrase(t.Context(), passphrase(t, horse))
	must(t, err)
}

func slotsOf(t *testing.T, r *keystore.Root) []keystore.SlotInfo {
	t.Helper()
	s, err := r.Slots()
	must(t, err)
	return s
}

// A slot that is damaged in whatever way is listed as that, and keeps none from opening; it can be removed.
func TestDamagedSlotKeepsNoOtherFromOpening(t *testing.T) {
	for what, spoil := range map[string]func(t *testing.T, path string){
		"flipped": func(t *testing.T, path string) { writeFile(t, path, spoilAt(200)(readFile(t, path))) },
		"empty":   func(t *testing.T, path string) { writeFile(t, path, nil) },
		"zeros":   func(t *testing.T, path string) { writeFile(t, path, make([]byte, len(readFile(t, path)))) },
		"huge":    func(t *testing.T, path string) { must(t, os.Truncate(path, 1<<40)) },
		"a folder": func(t *testing.T, path string) {
			must(t, os.Remove(path))
			mkdir(t, path)
		},
		"a link": func(t *testing.T, path string) {
			must(t, os.Rename(path, path+".away"))
			must(t, os.Symlink(path+".away", path))
		},
		"a pipe": func(t *testing.T, path string) {
			must(t, os.Remove(path))
			must(t, syscall.Mkfifo(path, 0o600))
		},
		"another slot's": func(t *testing.T, path string) {
			must(t, os.Rename(path, filepath.Join(filepath.Dir(path), uuid.NewString())))
		},
	} {
		t.Run(what, func(t *testing.T) {
			l := newLab(t)
			bad, good := l.addSlot("bad", office), l.addSlot("good", horse)
			l.close()
			must(t, os.Remove(l.keyFile))
			spoil(t, l.slotFile(bad))
			root := l.atStart()
			list := slotsOf(t, root)
			if len(list) != 3 || list[0].Present || list[1].Present == list[2].Present {
				t.Fatalf("the list is %+v", list)
			}
			opened, err := root.UnlockPassphrase(t.Context(), passphrase(t, horse))
			if err != nil || opened.ID != good.ID {
				t.Errorf("opened by %+v, %v", opened, err)
			}
			_, err = root.UnlockPassphrase(t.Context(), passphrase(t, office))
			wantCode(t, err, refusal.Locked)
			for _, s := range list[1:] {
				if !s.Present && (s.Detail == "" || s.Created.IsZero() && what != "a folder" && what != "a link" && what != "a pipe") {
					t.Errorf("%+v does not help", s)
				}
				if err := root.RemoveSlot(t.Context(), s.ID); !s.Present && err != nil && what != "a folder" && what != "a link" && what != "a pipe" {
					t.Errorf("%+v is not removed: %v", s, err)
				}
			}
			if list := slotsOf(t, root); !slices.ContainsFunc(list, func(s keystore.SlotInfo) bool { return s.ID == good.ID }) {
				t.Errorf("the last good one is gone: %+v", list)
			}
		})
	}
}

func TestPassphrasesAndNamesThatAreNotTaken(t *testing.T) {
	l := newLab(t)
	for _, pass := range []string{"", "1234567", strings.Repeat("x", 1025)} {
		_, err := l.root.AddPassphrase(l.ctx(), "laptop", sized(t, pass))
		wantCode(t, err, refusal.Usage)
	}
	// The last ones would be taken for another slot's id, also by who wants to remove it.
	for _, name := range []string{"", "a b", "ä", strings.Repeat("x", 65), "a\n", keystore.KeyFileSlot, uuid.NewString(), strings.ToUpper(uuid.NewString())} {
		_, err := l.root.AddPassphrase(l.ctx(), name, passphrase(t, horse))
		wantCode(t, err, refusal.Usage)
	}
	l.addSlot("s0", "12345678")
	_, err := l.root.AddPassphrase(l.ctx(), "s0", passphrase(t, horse))
	wantCode(t, err, refusal.Busy)
	for i := range 7 {
		l.addSlot(fmt.Sprint("s", i+1), strings.Repeat("x", 1024))
	}
	_, err = l.root.AddPassphrase(l.ctx(), "s8", passphrase(t, horse))
	wantWords(t, wantCode(t, err, refusal.Busy), "8 slots", "slot remove")
	must(t, l.root.RemoveSlot(l.ctx(), l.slots()[3].ID))
	l.addSlot("s8", horse)
}

// sized is a passphrase; an empty one is a key that was destroyed, as there are none of no bytes.
func sized(t *testing.T, s string) *secret.Key {
	k := passphrase(t, s)
	if s == "" {
		k.Destroy()
	}
	return k
}

// What was added and removed at the same time is there once, or not at all; the last way in stays.
func TestSlotsAtTheSameTime(t *testing.T) {
	l := newLab(t)
	passes := []*secret.Key{passphrase(t, horse), passphrase(t, office)}
	results := make(chan error)
	for _, pass := range passes {
		go func() {
			_, err := l.root.AddPassphrase(l.ctx(), "same", pass)
			results <- err
		}()
	}
	if a, b := <-results, <-results; (a == nil) == (b == nil) {
		t.Errorf("adding two of one name: %v, %v", a, b)
	}
	for _, s := range l.slots() {
		go func() { results <- l.root.RemoveSlot(l.ctx(), s.ID) }()
	}
	if a, b := <-results, <-results; (a == nil) == (b == nil) || len(l.slots()) > 2 {
		t.Errorf("removing all: %v, %v", a, b)
	}
	if n := held("derived", "") + held("root", l.root.Store.String()); n != 1 || secret.Unwiped() != 0 {
		t.Errorf("there are in memory %v, %d bytes not wiped", secret.List(), secret.Unwiped())
	}
}

// A slot that opens to a key which is not the store's is told from a wrong passphrase, and keeps no other from opening.
func TestRuleA4_ForgedSlotIsRefused(t *testing.T) {
	l := newLab(t)
	must(t, l.root.ForgeSlot(l.ctx(), passphrase(t, horse), randomKey(t)))
	must(t, l.root.Lock())
	_, err := l.root.UnlockPassphrase(l.ctx(), passphrase(t, horse))
	wantWords(t, wantCode(t, err, refusal.Damaged), "not this store's root key")
	if id := l.root.Store.String(); !l.root.Locked() || held("root", id) != 0 {
		t.Errorf("there are in memory %v", secret.List())
	}
	must(t, l.root.UnlockFile())
	l.addSlot("mine", horse)
	must(t, l.root.Lock())
	opened, err := l.root.UnlockPassphrase(l.ctx(), passphrase(t, horse))
	if err != nil || opened.Name != "mine" {
		t.Errorf("opened by %+v, %v", opened, err)
	}
}

// A start that nothing opens says of each slot why it does not help: no daemon runs that could be asked for the list.
func TestStartSaysWhySlotsDontOpen(t *testing.T) {
	for what, c := range map[string]struct {
		spoil func(t *testing.T, l *lab, slot string)
		words string
	}{
		"damaged": {func(t *testing.T, l *lab, slot string) { writeFile(t, slot, spoilAt(200)(readFile(t, slot))) }, "its sum does not fit"},
		"of another store": {func(t *testing.T, l *lab, slot string) {
			other := newLab(t)
			theirs := other.addSlot("laptop", office)
			writeFile(t, slot, readFile(t, other.slotFile(theirs)))
		}, "it is the file of slot"},
		"no folder": {func(t *testing.T, l *lab, slot string) {
			must(t, os.RemoveAll(filepath.Dir(slot)))
			writeFile(t, filepath.Dir(slot), nil)
		}, "the slots can't be listed"},
		"a link to nowhere": {func(t *testing.T, l *lab, slot string) {
			must(t, os.RemoveAll(filepath.Dir(slot)))
			must(t, os.Symlink("nowhere", filepath.Dir(slot)))
		}, "the slots can't be listed"},
	} {
		t.Run(what, func(t *testing.T) {
			l := newLab(t)
			slot := l.addSlot("laptop", horse)
			c.spoil(t, l, l.slotFile(slot))
			if err := l.root.Reopens(); err != nil {
				t.Errorf("with its key file: %v", err)
			}
			err := l.root.RemoveSlot(l.ctx(), keystore.KeyFileSlot)
			if err == nil || !strings.Contains(err.Error(), c.words) {
				t.Errorf("the key file is removed: %v", err)
			}
			must(t, os.Rename(l.keyFile, l.keyFile+".away"))
			if err := l.root.Reopens(); err == nil || !strings.Contains(err.Error(), c.words) {
				t.Errorf("without its key file it reopens: %v", err)
			}
			l.close()
			refused := wantCode(t, l.tryRoot(), refusal.Locked)
			wantWords(t, refused, l.keyFile+" is missing", c.words, "put the root key file")
		})
	}
}
