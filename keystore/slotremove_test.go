package keystore_test

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/uuid"

	"nbdcrypt/keystore"
	"nbdcrypt/pkg/refusal"
)

func TestLastSlotIsNeverRemoved(t *testing.T) {
	l := newLab(t)
	wantWords(t, wantCode(t, l.root.RemoveSlot(l.ctx(), keystore.KeyFileSlot), refusal.Busy), "slot add")
	slot := l.addSlot("laptop", horse)
	must(t, os.Rename(l.keyFile, l.keyFile+".away"))
	wantWords(t, wantCode(t, l.root.RemoveSlot(l.ctx(), slot.ID), refusal.Busy), "missing")
	wantCode(t, l.root.RemoveSlot(l.ctx(), keystore.KeyFileSlot), refusal.NotFound)
	must(t, os.Rename(l.keyFile+".away", l.keyFile))
	for _, id := range []string{"", "laptop", "../store", slot.ID + "0", strings.ToUpper(slot.ID)} {
		wantCode(t, l.root.RemoveSlot(l.ctx(), id), refusal.NotFound)
	}
	must(t, l.root.RemoveSlot(l.ctx(), slot.ID))
	wantCode(t, l.root.RemoveSlot(l.ctx(), slot.ID), refusal.NotFound)
	if list := l.slots(); len(list) != 1 || !list[0].Present || !list[0].Automatic {
		t.Errorf("there are left %+v", list)
	}
}

// Removing wipes a file where it lies, so that another name of it shows zeros. A copy that was made before opens on.
func TestRemovedSlotsAreWiped(t *testing.T) {
	l := newLab(t)
	l.grant("default")
	gone, kept := l.addSlot("gone", office), l.addSlot("kept", horse)
	for _, c := range []struct{ id, path string }{{gone.ID, l.slotFile(gone)}, {keystore.KeyFileSlot, l.keyFile}} {
		link := filepath.Join(t.TempDir(), "link")
		must(t, os.Link(c.path, link))
		before := readFile(t, c.path)
		must(t, l.root.RemoveSlot(l.ctx(), c.id))
		if after := readFile(t, link); len(before) == 0 || !bytes.Equal(after, make([]byte, len(before))) {
			t.Errorf("%s holds %q still", c.id, after)
		}
		if _, err := os.Lstat(c.path); err == nil {
			t.Errorf("%s is there", c.path)
		}
		writeFile(t, c.path+".copy", before)
	}
	l.close()
	root := l.atStart()
	_, err := root.UnlockPassphrase(t.Context(), passphrase(t, office))
	wantCode(t, err, refusal.Locked)
	opened, err := root.UnlockPassphrase(t.Context(), passphrase(t, horse))
	if err != nil || opened != kept {
		t.Errorf("opened by %+v, %v", opened, err)
	}
	must(t, os.Rename(l.keyFile+".copy", l.keyFile))
	if l.atStart().Locked() {
		t.Error("the copy of the key file opens nothing")
	}
}

// A power cut while the key file is removed leaves it as it was, or zeros; with zeros the other slots open the store, and
// removing it again ends the removal.
func TestPowerCutWhileTheKeyFileIsRemoved(t *testing.T) {
	l := newLab(t)
	slot := l.addSlot("laptop", horse)
	l.close()
	writeFile(t, l.keyFile, make([]byte, len(readFile(t, l.keyFile))))
	root := l.atStart()
	list := slotsOf(t, root)
	if !root.Locked() || list[0].Present || !strings.Contains(list[0].Detail, "damaged") {
		t.Errorf("it starts with %+v", list)
	}
	_, err := root.UnlockPassphrase(t.Context(), passphrase(t, horse))
	must(t, err)
	must(t, root.RemoveSlot(t.Context(), keystore.KeyFileSlot))
	if _, err := os.Lstat(l.keyFile); err == nil {
		t.Error("the key file is there")
	}
	wantCode(t, root.RemoveSlot(t.Context(), slot.ID), refusal.Busy)
}

// A power cut while a slot is added leaves a temporary file, which is no slot and goes with the next one.
func TestPowerCutWhileASlotIsAdded(t *testing.T) {
	l := newLab(t)
	slot := l.addSlot("first", office)
	whole := readFile(t, l.slotFile(slot))
	left := []string{l.slotFile(slot) + ".tmp123", l.slotFile(slot) + ".tmp124"}
	link := filepath.Join(t.TempDir(), "link")
	writeFile(t, left[0], whole)
	writeFile(t, left[1], whole[:17])
	must(t, os.Link(left[0], link))
	writeFile(t, l.slotFile(slot)+".bak", whole)
	if list := l.slots(); len(list) != 2 {
		t.Errorf("the list is %+v", list)
	}
	l.addSlot("second", horse)
	for _, path := range left {
		if _, err := os.Lstat(path); err == nil {
			t.Errorf("%s is there", path)
		}
	}
	if !bytes.Equal(readFile(t, link), make([]byte, len(whole))) {
		t.Error("what was left is not wiped")
	}
	readFile(t, l.slotFile(slot)+".bak") // not ours to touch
}

// What is not a root key file, or not this store's, is never wiped.
func TestOtherFilesAreNotWiped(t *testing.T) {
	l, other := newLab(t), newLab(t)
	l.addSlot("laptop", horse)
	for what, b := range map[string][]byte{
		"something else":     []byte("minutes of the meeting\n"),
		"another store's":    readFile(t, other.keyFile),
		"nothing to be seen": []byte("\x00\x00minutes"),
	} {
		writeFile(t, l.keyFile, b)
		if err := l.root.RemoveSlot(l.ctx(), keystore.KeyFileSlot); err == nil || !bytes.Equal(readFile(t, l.keyFile), b) {
			t.Errorf("%s is wiped: %v", what, err)
		}
	}
	must(t, os.Remove(l.keyFile))
	must(t, os.Symlink(other.keyFile, l.keyFile))
	whole := readFile(t, other.keyFile)
	if err := l.root.RemoveSlot(l.ctx(), keystore.KeyFileSlot); err == nil || !bytes.Equal(readFile(t, other.keyFile), whole) {
		t.Errorf("through a link it is wiped: %v", err)
	}
}

// Who gives up while a slot is made leaves none behind.
func TestAddingIsGivenUp(t *testing.T) {
	l := newLab(t)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := l.root.AddPassphrase(ctx, "laptop", passphrase(t, horse)); !errors.Is(err, context.Canceled) {
		t.Errorf("given up: %v", err)
	}
	if list := l.slots(); len(list) != 1 {
		t.Errorf("there is %+v", list)
	}
	if err := l.root.RemoveSlot(ctx, keystore.KeyFileSlot); !errors.Is(err, context.Canceled) {
		t.Errorf("given up: %v", err)
	}
	if _, err := l.root.UnlockPassphrase(ctx, passphrase(t, horse)); refusal.CodeOf(err) != refusal.Locked {
		t.Errorf("no slot takes a passphrase: %v", err)
	}
	l.addSlot("laptop", horse)
	if _, err := l.root.UnlockPassphrase(ctx, passphrase(t, horse)); !errors.Is(err, context.Canceled) {
		t.Errorf("given up: %v", err)
	}
}

// killChild kills the nth child of this process that computes argon2.
func killChild(nth int, done <-chan struct{}) {
	seen := map[string]bool{}
	for {
		select {
		case <-done:
			return
		case <-time.After(time.Millisecond):
		}
		lists, _ := filepath.Glob("/proc/self/task/*/children")
		for _, list := range lists {
			pids, _ := os.ReadFile(list)
			for _, pid := range strings.Fields(string(pids)) {
				name, _ := os.ReadFile("/proc/" + pid + "/cmdline")
				if n, err := strconv.Atoi(pid); err == nil && string(name) == "nbdcrypt-child\x00argon2\x00" && !seen[pid] {
					seen[pid] = true
					if len(seen) == nth {
						_ = syscall.Kill(n, syscall.SIGKILL)
						return
					}
				}
			}
		}
	}
}

// A child that is killed, as where memory runs out, while a slot is made, or while it is proven: there is no slot, and
// nothing is left of it.
func TestKilledWhileASlotIsAdded(t *testing.T) {
	defer keystore.Product()()
	l := newLab(t)
	for nth := 1; nth <= 2; nth++ {
		done, killed := make(chan struct{}), make(chan struct{})
		go func() {
			defer close(killed)
			killChild(nth, done)
		}()
		_, err := l.root.AddPassphrase(l.ctx(), "laptop", passphrase(t, horse))
		close(done)
		<-killed
		wantWords(t, wantCode(t, err, refusal.Failed), "killed", "256 MiB")
		entries, _ := os.ReadDir(filepath.Join(l.dir, keystore.SlotsDir))
		if len(entries) != 0 || len(l.slots()) != 1 || l.root.Locked() {
			t.Errorf("killed the %d. time, there is left %v", nth, entries)
		}
	}
}

// On a full file system a slot is not added, says what to do, and leaves nothing behind; those that are there open and
// can be removed.
func TestNoRoomForASlot(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root, to mount a small file system")
	}
	l := newLab(t)
	l.close()
	small := filepath.Join(l.dir, keystore.SlotsDir)
	mkdir(t, small)
	must(t, syscall.Mount("tmpfs", small, "tmpfs", 0, "size=64k"))
	defer syscall.Unmount(small, syscall.MNT_DETACH)
	l.open()
	slot := l.addSlot("first", horse)
	filler, err := os.Create(filepath.Join(small, "filler"))
	must(t, err)
	for err == nil {
		_, err = filler.Write(make([]byte, 4096))
	}
	if !errors.Is(err, syscall.ENOSPC) {
		t.Fatal(err)
	}
	must(t, filler.Close())
	_, err = l.root.AddPassphrase(l.ctx(), "second", passphrase(t, office))
	wantWords(t, wantCode(t, err, refusal.Failed), "make room")
	entries, err := os.ReadDir(small)
	if err != nil || len(entries) != 2 || len(l.slots()) != 2 {
		t.Errorf("there is left %v, %v", entries, err)
	}
	if _, err := l.root.UnlockPassphrase(l.ctx(), passphrase(t, horse)); err != nil {
		t.Error(err)
	}
	must(t, l.root.RemoveSlot(l.ctx(), slot.ID))
	l.close()
}

// A slot that is there and opens nothing by now (its credential is another, its TPM has other registers) is no way back: what still
// opens the root key is neither removed nor locked away.
func TestRuleC8_SlotThatOpensNothingIsNoWayBack(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("CREDENTIALS_DIRECTORY", dir)
	l := newLab(t)
	credential := filepath.Join(dir, "mine")
	given := passphrase(t, strings.Repeat("x", 32))
	slot, _, err := l.root.AddCredential(l.ctx(), "mine", "mine", given)
	must(t, err)
	writeFile(t, credential, []byte(strings.Repeat("y", 32)))
	wantWords(t, wantCode(t, l.root.RemoveSlot(l.ctx(), keystore.KeyFileSlot), refusal.Busy), slot.ID, "does not open")
	must(t, os.Rename(l.keyFile, l.keyFile+".away"))
	wantWords(t, wantCode(t, l.root.Lock(), refusal.Busy), slot.ID, "does not open")
	writeFile(t, credential, given.Bytes())
	must(t, l.root.Lock())
	_, err = l.root.UnlockAutomatic(l.ctx())
	must(t, err)
	must(t, os.Rename(l.keyFile+".away", l.keyFile))
	must(t, l.root.RemoveSlot(l.ctx(), keystore.KeyFileSlot))
	wantCode(t, l.root.RemoveSlot(l.ctx(), slot.ID), refusal.Busy)
}

// What is no regular file is no slot's: it is listed, left alone, and named as what it is.
func TestRemovingWhatIsNoFile(t *testing.T) {
	l := newLab(t)
	l.addSlot("laptop", horse)
	elsewhere := filepath.Join(t.TempDir(), "elsewhere")
	writeFile(t, elsewhere, []byte("not ours"))
	for _, put := range []func(path string) error{
		func(path string) error { return os.Mkdir(path, 0o700) },
		func(path string) error { return os.Symlink(elsewhere, path) },
		func(path string) error { return syscall.Mkfifo(path, 0o600) },
	} {
		id := uuid.NewString()
		path := filepath.Join(l.dir, keystore.SlotsDir, id)
		must(t, put(path))
		refused := wantCode(t, l.root.RemoveSlot(l.ctx(), id), refusal.Failed)
		wantWords(t, refused, "not a regular file", "by hand")
		if _, err := os.Lstat(path); err != nil || len(l.slots()) != 3 {
			t.Errorf("%v, slots %+v", err, l.slots())
		}
		must(t, os.Remove(path))
	}
	if text := readFile(t, elsewhere); string(text) != "not ours" {
		t.Errorf("it holds %q", text)
	}
}
