package keystore_test

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"nbdcrypt/keystore"
	"nbdcrypt/pkg/clock"
	"nbdcrypt/pkg/refusal"
)

// tryRoot opens the root key alone.
func (l *lab) tryRoot() error {
	root, err := keystore.OpenRoot(l.keyFile, l.dir)
	if err == nil {
		root.Close()
	}
	return err
}

func wantWords(t *testing.T, r *refusal.Error, words ...string) {
	t.Helper()
	for _, w := range words {
		if !strings.Contains(r.Message+"\n"+r.Hint, w) {
			t.Errorf("%q (%q) does not say %q", r.Message, r.Hint, w)
		}
	}
}

func readFile(t *testing.T, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	must(t, err)
	return b
}

func writeFile(t *testing.T, path string, b []byte) {
	t.Helper()
	must(t, os.WriteFile(path, b, 0o600))
}

func TestOtherStoresRootKeyIsRefused(t *testing.T) {
	l, other := newLab(t), newLab(t)
	l.close()
	other.close()
	mine := readFile(t, l.keyFile)
	writeFile(t, l.keyFile, readFile(t, other.keyFile))
	wantWords(t, wantCode(t, l.tryRoot(), refusal.Locked), l.root0(t), other.root0(t))
	writeFile(t, l.keyFile, mine)
	must(t, l.tryRoot())
}

// A key file that names the right store and holds a wrong key is told by the header's root line.
func TestWrongKeyOfTheRightStoreIsRefused(t *testing.T) {
	l := newLab(t)
	id, key := l.root.Store, randomKey(t)
	l.close()
	writeFile(t, l.keyFile, keystore.RootKeyText(id, key))
	wantWords(t, wantCode(t, l.tryRoot(), refusal.Locked), id.String(), "not that store's")
}

func TestDamagedRootKeyAndHeaderAreRefused(t *testing.T) {
	l := newLab(t)
	l.close()
	for _, path := range []string{l.keyFile, filepath.Join(l.dir, "store")} {
		whole := readFile(t, path)
		bad := map[string][]byte{"empty": nil, "longer": append(bytes.Clone(whole), '\n'), "huge": bytes.Repeat(whole, 40)}
		for i := range whole {
			bad[fmt.Sprint("cut at ", i)] = whole[:i]
			flipped := bytes.Clone(whole)
			flipped[i] ^= 1
			bad[fmt.Sprint("flipped at ", i)] = flipped
		}
		for what, b := range bad {
			writeFile(t, path, b)
			if r := refusal.From(l.tryRoot()); r == nil || r.Code != refusal.Damaged || r.Hint == "" || !strings.Contains(r.Message, path) {
				t.Errorf("%s %s: %v", path, what, r)
			}
		}
		writeFile(t, path, bytes.Replace(whole, []byte(" 1\n"), []byte(" 3\n"), 1))
		wantWords(t, wantCode(t, l.tryRoot(), refusal.Damaged), path, "version 3", "reads version 1")
		writeFile(t, path, whole)
	}
	l.open()
}

func TestRootKeyThatOthersCanReachIsRefused(t *testing.T) {
	l := newLab(t)
	l.close()
	for _, mode := range []os.FileMode{0o640, 0o604, 0o620, 0o601, 0o660} {
		must(t, os.Chmod(l.keyFile, mode))
		wantWords(t, wantCode(t, l.tryRoot(), refusal.Locked), "chmod 600 "+l.keyFile, fmt.Sprintf("%04o", mode))
	}
	must(t, os.Chmod(l.keyFile, 0o400))
	must(t, l.tryRoot())
}

func TestRootKeyThatBelongsToAnotherIsRefused(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("only root can give a file away")
	}
	l := newLab(t)
	l.close()
	must(t, os.Chown(l.keyFile, 12345, -1))
	wantWords(t, wantCode(t, l.tryRoot(), refusal.Locked), "12345", "chown")
}

func TestRootKeyHasToBeARegularFile(t *testing.T) {
	l := newLab(t)
	l.close()
	away := l.keyFile + ".away"
	must(t, os.Rename(l.keyFile, away))
	must(t, os.Symlink(away, l.keyFile))
	wantWords(t, wantCode(t, l.tryRoot(), refusal.Locked), "symbolic link")
	must(t, os.Remove(l.keyFile))
	must(t, os.Mkdir(l.keyFile, 0o700))
	wantWords(t, wantCode(t, l.tryRoot(), refusal.Locked), "not a regular file")
}

func TestRuleA5_RootKeyInsideTheStateDirectoryIsRefused(t *testing.T) {
	base := t.TempDir()
	state, link := filepath.Join(base, "state"), filepath.Join(base, "link")
	mkdir(t, state)
	must(t, os.Symlink(state, link))
	for _, path := range []string{filepath.Join(state, "root.key"), filepath.Join(link, "a", "b", "root.key"), filepath.Join(base, "x", "..", "state", "k")} {
		for _, dir := range []string{state, link} {
			_, err := keystore.OpenRoot(path, dir)
			wantWords(t, wantCode(t, err, refusal.Locked), "inside the state directory", path)
		}
	}
	for _, path := range []string{filepath.Join(base, "state.key"), filepath.Join(base, "..state", "k")} {
		mkdir(t, filepath.Join(base, "fresh"))
		root, err := keystore.OpenRoot(path, filepath.Join(base, "fresh"))
		must(t, err)
		root.Close()
		must(t, os.RemoveAll(filepath.Join(base, "fresh")))
	}
}

// A first start that was cut short at any point goes on with the same root key, or makes one where none was used.
func TestFirstStartGoesOnWhereItStopped(t *testing.T) {
	base := t.TempDir()
	l := &lab{t: t, dir: filepath.Join(base, "state"), keyFile: filepath.Join(base, "root.key"), region: "here", clock: clock.NewFake(time.Unix(1e9, 0))}
	mkdir(t, l.dir)
	root, err := keystore.OpenRoot(l.keyFile, l.dir)
	must(t, err)
	if !root.Made || !root.First {
		t.Fatalf("the first start: %+v", root)
	}
	first := root.Store
	root.Close()
	root, err = keystore.OpenRoot(l.keyFile, l.dir)
	must(t, err)
	if root.Made || !root.First || root.Store != first {
		t.Fatalf("the second try: %+v", root)
	}
	root.Close()
	// The header is there and the key file not yet: nothing was sealed, so a new key may be made.
	must(t, os.Remove(l.keyFile))
	root, err = keystore.OpenRoot(l.keyFile, l.dir)
	must(t, err)
	if !root.Made || !root.First || root.Store == first {
		t.Fatalf("without the key file: %+v", root)
	}
	root.Close()
	// With anything else there the key was in use.
	must(t, os.Rename(l.keyFile, l.keyFile+".away"))
	for _, name := range []string{keystore.EraseFile, keystore.CatalogDir, keystore.AuditFile, keystore.SlotsDir} {
		writeFile(t, filepath.Join(l.dir, name), nil)
		wantCode(t, l.tryRoot(), refusal.Locked)
		must(t, os.Remove(filepath.Join(l.dir, name)))
	}
	must(t, os.Rename(l.keyFile+".away", l.keyFile))
	l.open()
	defer l.close()
	l.grant("default")
	if _, err := os.Stat(filepath.Join(l.dir, "store.new")); err == nil {
		t.Error("the first start is not complete")
	}
}

func TestTracesOfAStoreWithoutItsHeader(t *testing.T) {
	l := newLab(t)
	l.close()
	header := filepath.Join(l.dir, "store")
	must(t, os.Rename(header, header+".away"))
	wantWords(t, wantCode(t, l.tryRoot(), refusal.Damaged), header)
	// A key file, and a state directory that is empty: it is not mounted, perhaps.
	empty := filepath.Join(filepath.Dir(l.dir), "empty")
	mkdir(t, empty)
	_, err := keystore.OpenRoot(l.keyFile, empty)
	wantWords(t, wantCode(t, err, refusal.Locked), "mounted", l.keyFile, empty)
}

func TestMissingPartsAreNeverMadeAnew(t *testing.T) {
	l := newLab(t)
	l.grant("default")
	l.close()
	for _, name := range []string{keystore.EraseFile, keystore.CatalogDir} {
		path := filepath.Join(l.dir, name)
		must(t, os.Rename(path, path+".away"))
		if err := l.tryOpen(); err == nil {
			t.Errorf("it opens without %s", name)
		}
		l.Store = nil
		if _, err := os.Stat(path); err == nil {
			t.Errorf("%s was made anew", name)
		}
		must(t, os.Rename(path+".away", path))
	}
	l.open()
}

func TestRootKeyThatCannotBeMade(t *testing.T) {
	base := t.TempDir()
	writeFile(t, filepath.Join(base, "file"), nil)
	mkdir(t, filepath.Join(base, "state"))
	_, err := keystore.OpenRoot(filepath.Join(base, "file", "root.key"), filepath.Join(base, "state"))
	wantWords(t, wantCode(t, err, refusal.Failed), filepath.Join(base, "file"))
	_, err = keystore.OpenRoot(filepath.Join(base, "root.key"), filepath.Join(base, "no state"))
	wantCode(t, err, refusal.Failed)
}
