package catalog_test

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"nbdcrypt/pkg/catalog"
)

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func put(t *testing.T, s catalog.Store, i int) {
	t.Helper()
	must(t, s.Update(t.Context(), fmt.Sprint("put-", i), func(txn catalog.Txn) error {
		if i%10 == 0 {
			must(t, txn.Put("large", bytes.Repeat([]byte{byte(i)}, 20_000)))
		}
		return txn.Put(fmt.Sprintf("record/%03d", i), fmt.Appendf(nil, "value %d", i))
	}))
}

// files are the contents of a directory by name.
func files(t *testing.T, dir string) map[string][]byte {
	t.Helper()
	all := make(map[string][]byte)
	entries, err := os.ReadDir(dir)
	must(t, err)
	for _, e := range entries {
		b, err := os.ReadFile(filepath.Join(dir, e.Name()))
		must(t, err)
		all[e.Name()] = b
	}
	return all
}

func writeFiles(t *testing.T, dir string, all map[string][]byte) {
	t.Helper()
	must(t, os.MkdirAll(dir, 0o700))
	for name, b := range all {
		must(t, os.WriteFile(filepath.Join(dir, name), b, 0o600))
	}
}

// crashed returns the files of a catalog with tables, a manifest of several changes and a log in use, as a kill
// would leave them, and its revision.
func crashed(t *testing.T) (map[string][]byte, uint64) {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "catalog")
	for round := range 3 {
		s := openAt(t, dir, 0)
		for i := range 20 {
			put(t, s, 20*round+i)
		}
		must(t, s.Close())
	}
	s := openAt(t, dir, 0)
	defer s.Close()
	for i := 60; i < 75; i++ {
		put(t, s, i)
	}
	revision, err := s.Revision(t.Context())
	must(t, err)
	return files(t, dir), revision
}

func wantIntact(t *testing.T, s catalog.Store) {
	t.Helper()
	must(t, s.View(t.Context(), func(r catalog.Reader) error {
		pairs, err := r.Scan("record/", "", 1000)
		if len(pairs) != 75 {
			t.Errorf("%d records, want 75", len(pairs))
		}
		for i, p := range pairs {
			if string(p.Value) != fmt.Sprint("value ", i) {
				t.Errorf("%s holds %q", p.Key, p.Value)
			}
		}
		large, err2 := r.Get("large")
		if !bytes.Equal(large, bytes.Repeat([]byte{70}, 20_000)) {
			t.Error("the large value differs")
		}
		return errors.Join(err, err2)
	}))
}

func TestKilledCatalogOpensWhole(t *testing.T) {
	t.Parallel()
	all, revision := crashed(t)
	dir := filepath.Join(t.TempDir(), "catalog")
	writeFiles(t, dir, all)
	s := openAt(t, dir, revision)
	defer s.Close()
	wantIntact(t, s)
	if _, err := os.Stat(dir + ".before"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("the copy is still there: %v", err)
	}
}

// TestKilledWhileBadgerRemovesALog: Badger cuts a log to nothing before it removes it. A kill between the two leaves an empty file, which is no damage; nor is
// the one that a kill leaves right after a log was made.
func TestKilledWhileBadgerRemovesALog(t *testing.T) {
	t.Parallel()
	all, revision := crashed(t)
	for _, empty := range []string{"000000.vlog", "000099.vlog", "00000.mem", "00099.mem"} {
		left := copyOf(all)
		left[empty] = nil
		dir := filepath.Join(t.TempDir(), "catalog")
		writeFiles(t, dir, left)
		s := openAt(t, dir, revision)
		wantIntact(t, s)
		must(t, s.Close())
		s = openAt(t, dir, revision)
		wantIntact(t, s)
		must(t, s.Close())
	}
}

// wantRefused opens a damaged catalog twice and wants it refused and left as it was, or opened with everything
// there. It tells which.
func wantRefused(t *testing.T, name, how string, all map[string][]byte, revision uint64) (refused bool) {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "catalog")
	writeFiles(t, dir, all)
	for range 2 {
		s, err := catalog.Open(dir, catalog.Options{MinRevision: revision})
		if err == nil {
			wantIntact(t, s)
			must(t, s.Close())
			return false
		}
		if !errors.Is(err, catalog.ErrDamaged) || !strings.Contains(err.Error(), dir) || !strings.Contains(err.Error(), name) {
			t.Errorf("%s %s: the error is %v", name, how, err)
		}
		for file, b := range all {
			now, err := os.ReadFile(filepath.Join(dir, file))
			if err != nil || !bytes.Equal(now, b) {
				t.Errorf("%s %s: opening changed %s: %v", name, how, file, err)
			}
		}
	}
	return true
}

func used(b []byte) int { return len(bytes.TrimRight(b, "\x00")) }

// Every file in turn loses its end, is emptied or is removed.
func TestTruncatedCatalogIsRefused(t *testing.T) {
	t.Parallel()
	all, revision := crashed(t)
	for name, b := range all {
		n := used(b)
		cuts := map[string]int{"cut in half": n / 2}
		if !testing.Short() {
			cuts["emptied"], cuts["cut to its head"], cuts["cut by a byte"] = 0, min(24, n), max(n-1, 0)
		}
		for how, at := range cuts {
			damaged := copyOf(all)
			damaged[name] = b[:at]
			refused := wantRefused(t, name, how, damaged, revision)
			if kind := filepath.Ext(name); (kind == ".mem" || kind == ".sst") && n > 24 && !refused {
				t.Errorf("%s %s: it opens", name, how)
			}
		}
		removed := copyOf(all)
		delete(removed, name)
		refused := wantRefused(t, "", name+" removed", removed, revision)
		if kind := filepath.Ext(name); (kind == ".sst" || name == "MANIFEST") && !refused {
			t.Errorf("%s removed: it opens", name)
		}
	}
}

func copyOf(all map[string][]byte) map[string][]byte {
	c := make(map[string][]byte, len(all))
	for name, b := range all {
		c[name] = b
	}
	return c
}

// One bit is flipped at many places of every file. Wherever the catalog still opens, everything is there.
func TestFlippedBitInCatalogIsRefused(t *testing.T) {
	t.Parallel()
	all, revision := crashed(t)
	count, places, enough := map[bool]int{}, 6, 15
	if testing.Short() {
		places, enough = 1, 3
	}
	for name, b := range all {
		n := used(b)
		for at := 0; at < n; at += max(1, n/places) {
			damaged := copyOf(all)
			damaged[name] = bytes.Clone(b)
			damaged[name][at] ^= 0x10
			count[wantRefused(t, name, fmt.Sprintf("flipped at %d", at), damaged, revision)]++
		}
	}
	t.Logf("refused %d, harmless %d", count[true], count[false])
	if count[true] < enough {
		t.Errorf("only %d flips were refused", count[true])
	}
}

// A catalog that was rolled back as a whole is consistent; only its revision tells.
func TestRolledBackCatalogIsRefused(t *testing.T) {
	t.Parallel()
	all, revision := crashed(t)
	dir := filepath.Join(t.TempDir(), "catalog")
	writeFiles(t, dir, all)
	_, err := catalog.Open(dir, catalog.Options{MinRevision: revision + 1})
	want := fmt.Sprintf("opens at revision %d, and revision %d", revision, revision+1)
	if !errors.Is(err, catalog.ErrDamaged) || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), dir+".damaged") {
		t.Errorf("the error is %v", err)
	}
	// A backup that is put in its place is what the next start begins from.
	if kept := files(t, dir+".damaged"); len(kept) != len(all) {
		t.Errorf("the copy has %d files of %d", len(kept), len(all))
	}
	must(t, os.RemoveAll(dir))
	s := openAt(t, dir, 0)
	defer s.Close()
	put(t, s, 0)
}

// A start that was killed between Badger's repairs and the proof left a copy: the next one begins from it.
func TestInterruptedOpenBeginsFromTheCopy(t *testing.T) {
	t.Parallel()
	all, revision := crashed(t)
	dir := filepath.Join(t.TempDir(), "catalog")
	writeFiles(t, dir+".before", all)
	writeFiles(t, dir, map[string][]byte{"MANIFEST": []byte("repaired to death"), "00009.sst": {}})
	writeFiles(t, dir+".before.part", map[string][]byte{"MANIFEST": {}})
	s := openAt(t, dir, revision)
	defer s.Close()
	wantIntact(t, s)
	for _, left := range []string{".before", ".before.part"} {
		if _, err := os.Stat(dir + left); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s is still there", left)
		}
	}
}

// Badger ends the process where some of its files are none.
func TestDirectoryInThePlaceOfAFile(t *testing.T) {
	t.Parallel()
	all, revision := crashed(t)
	for name := range all {
		dir := filepath.Join(t.TempDir(), "catalog")
		writeFiles(t, dir, all)
		must(t, os.Remove(filepath.Join(dir, name)))
		must(t, os.Mkdir(filepath.Join(dir, name), 0o700))
		if _, err := catalog.Open(dir, catalog.Options{MinRevision: revision}); !errors.Is(err, catalog.ErrDamaged) || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestNothingIsMadeAnewUnasked(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "catalog")
	for range 2 {
		if _, err := catalog.Open(dir, catalog.Options{}); !errors.Is(err, catalog.ErrDamaged) {
			t.Errorf("the error is %v", err)
		}
		must(t, os.MkdirAll(dir, 0o700))
	}
}

func TestSecondOpenerIsRefused(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "catalog")
	s := openAt(t, dir, 0)
	defer s.Close()
	if _, err := catalog.Open(dir, catalog.Options{Create: true}); err == nil || errors.Is(err, catalog.ErrDamaged) {
		t.Errorf("the error is %v", err)
	}
}

func TestCheckThatFailsPutsEverythingBack(t *testing.T) {
	t.Parallel()
	all, revision := crashed(t)
	dir := filepath.Join(t.TempDir(), "catalog")
	writeFiles(t, dir, all)
	broken := errors.New("does not open")
	_, err := catalog.Open(dir, catalog.Options{MinRevision: revision, Check: func(r catalog.Reader) error {
		_, err := r.Get("record/000")
		return errors.Join(err, broken)
	}})
	if !errors.Is(err, broken) || errors.Is(err, catalog.ErrNotFound) {
		t.Errorf("the error is %v", err)
	}
	s := openAt(t, dir, revision)
	defer s.Close()
	wantIntact(t, s)
}

func FuzzImport(f *testing.F) {
	s := catalog.Memory()
	err := s.Update(f.Context(), "seed", func(txn catalog.Txn) error {
		return errors.Join(txn.Put("a", []byte("1")), txn.Put("empty", nil))
	})
	var stream bytes.Buffer
	if err = errors.Join(err, s.Export(f.Context(), &stream)); err != nil || stream.Len() == 0 {
		f.Fatal("no seed", err)
	}
	f.Add(stream.Bytes())
	f.Add(stream.Bytes()[:stream.Len()-1])
	f.Add([]byte("nbdcrypt-catalog 1\n"))
	f.Fuzz(func(t *testing.T, b []byte) {
		s := catalog.Memory()
		defer s.Close()
		if s.Import(t.Context(), bytes.NewReader(b)) == nil {
			return
		}
		must(t, s.View(t.Context(), func(r catalog.Reader) error {
			pairs, err := r.Scan("", "", 1)
			if len(pairs) != 0 {
				t.Error("a refused stream left something behind")
			}
			return err
		}))
	})
}

// A power cut in the midst of the last commit leaves half of it in the log. Nobody had an answer for it, so the
// catalog opens at the revision before.
func TestUnansweredLastCommitIsDropped(t *testing.T) {
	t.Parallel()
	all, revision := crashed(t)
	for name, b := range all {
		if filepath.Ext(name) == ".mem" {
			n := used(b)
			all[name] = append(bytes.Clone(b[:n-20]), make([]byte, len(b)-n+20)...)
		}
	}
	dir := filepath.Join(t.TempDir(), "catalog")
	writeFiles(t, dir, all)
	s := openAt(t, dir, revision-1)
	defer s.Close()
	if now, err := s.Revision(t.Context()); err != nil || now != revision-1 {
		t.Errorf("it opens at revision %d of %d, %v", now, revision, err)
	}
	put(t, s, 74)
	wantIntact(t, s)
}
