package pool_test

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"nbdcrypt/pkg/pool"
	"nbdcrypt/pkg/pool/pooltest"
)

const volume = "0190b5a0-0000-7000-8000-000000000001/data"

func files(t *testing.T) *pool.Files {
	t.Helper()
	p, err := pool.OpenFiles(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	return p
}

func TestFilesIsAPool(t *testing.T) {
	pooltest.Run(t, func(t *testing.T) pool.Pool { return files(t) })
}

func TestFilesSegments(t *testing.T) {
	p := files(t)
	const size = 3*pool.SegmentSize + 4096
	if err := p.Create(t.Context(), volume, size); err != nil {
		t.Fatal(err)
	}
	paths, err := p.Segments(volume)
	if err != nil || len(paths) != 4 {
		t.Fatalf("segments: %v %v", paths, err)
	}
	v, err := p.Open(t.Context(), volume, false)
	if err != nil {
		t.Fatal(err)
	}
	defer v.Close()
	across := bytes.Repeat([]byte("edge"), 2048)
	at := int64(2*pool.SegmentSize - 4096)
	if _, err := v.WriteAt(across, at); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, len(across))
	if _, err := v.ReadAt(got, at); err != nil || !bytes.Equal(got, across) {
		t.Fatalf("across a border: %v", err)
	}
	last := make([]byte, 4096)
	file, err := os.Open(paths[2])
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	if _, err := file.ReadAt(last, 0); err != nil || !bytes.Equal(last, across[4096:]) {
		t.Errorf("segment 2 does not begin at its natural offset: %v", err)
	}
	if err := v.Resize(5 * pool.SegmentSize); err != nil {
		t.Fatal(err)
	}
	if _, err := v.WriteAt(across, 5*pool.SegmentSize-8192); err != nil {
		t.Errorf("write at the new end: %v", err)
	}
}

// Holes are skipped, also over whole segments: a check of a large, empty disk reads nothing.
func TestFilesNextData(t *testing.T) {
	p := files(t)
	const size = 3 * pool.SegmentSize
	if err := p.Create(t.Context(), volume, size); err != nil {
		t.Fatal(err)
	}
	v, err := p.Open(t.Context(), volume, false)
	if err != nil {
		t.Fatal(err)
	}
	defer v.Close()
	if next, err := v.NextData(0); err != nil || next != size {
		t.Errorf("of an empty volume: %d, %v", next, err)
	}
	const at = 2*pool.SegmentSize + 1<<30
	if _, err := v.WriteAt([]byte{1}, at); err != nil {
		t.Fatal(err)
	}
	if next, err := v.NextData(5); err != nil || next > at || next < at-1<<20 {
		t.Errorf("next data from 5: %d, %v", next, err)
	}
}

func TestFilesOneWriter(t *testing.T) {
	p := files(t)
	if err := p.Create(t.Context(), volume, 4096); err != nil {
		t.Fatal(err)
	}
	v, err := p.Open(t.Context(), volume, false)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := p.Open(t.Context(), volume, false); !errors.Is(err, pool.ErrInUse) {
		t.Fatalf("second writer: %v", err)
	}
	if err := p.Fence(t.Context(), v.Identity()); err != nil {
		t.Fatal(err)
	}
	<-v.Lost()
	if _, err := v.WriteAt([]byte("x"), 0); !errors.Is(err, pool.ErrLost) {
		t.Errorf("write after the fence: %v", err)
	}
	if err := v.Flush(); !errors.Is(err, pool.ErrLost) {
		t.Errorf("flush after the fence: %v", err)
	}
	again, err := p.Open(t.Context(), volume, false)
	if err != nil {
		t.Fatalf("open after the fence: %v", err)
	}
	defer again.Close()
}

func TestFilesFenceOfStrangers(t *testing.T) {
	p := files(t)
	if err := p.Fence(t.Context(), "file 00000000-boot 1 12345 X"); err != nil {
		t.Errorf("an opener of another boot is gone: %v", err)
	}
	if err := p.Fence(t.Context(), "nonsense"); err == nil {
		t.Error("nonsense was fenced")
	}
}

func TestFilesDamage(t *testing.T) {
	const size = 2*pool.SegmentSize + 4096
	for name, harm := range map[string]func(paths []string) error{
		"missing middle": func(p []string) error { return os.Remove(p[1]) },
		"short middle":   func(p []string) error { return os.Truncate(p[1], 100) },
	} {
		t.Run(name, func(t *testing.T) {
			p := files(t)
			if err := p.Create(t.Context(), volume, size); err != nil {
				t.Fatal(err)
			}
			paths, err := p.Segments(volume)
			if err != nil {
				t.Fatal(err)
			}
			if err := harm(paths); err != nil {
				t.Fatal(err)
			}
			if _, err := p.Open(t.Context(), volume, false); !errors.Is(err, pool.ErrDamaged) {
				t.Errorf("open: %v", err)
			}
		})
	}
}

func TestFilesNamesStayInside(t *testing.T) {
	p := files(t)
	for _, name := range []string{"", "x", "/x", "x/", "../x", "../x/y", "x/../../y", "x/y.0000", ".hid/x"} {
		if err := p.Create(t.Context(), name, 4096); err == nil {
			t.Errorf("%q was taken", name)
		}
	}
}

// A pool's folder may have any name, and what its name happens to match is another pool's.
func TestFilesInAFolderOfAnyName(t *testing.T) {
	root := t.TempDir()
	var pools []*pool.Files
	for _, dir := range []string{"p[1]*", "p1", "p[1]*x"} {
		p, err := pool.OpenFiles(filepath.Join(root, dir))
		if err != nil {
			t.Fatal(err)
		}
		if err := p.Create(t.Context(), volume, 4096); err != nil {
			t.Fatal(err)
		}
		pools = append(pools, p)
	}
	v, err := pools[0].Open(t.Context(), volume, false)
	if err != nil {
		t.Fatal(err)
	}
	if err := errors.Join(v.Close(), pools[0].Delete(t.Context(), volume)); err != nil {
		t.Fatal(err)
	}
	for i, p := range pools {
		names, err := p.List(t.Context())
		if want := min(i, 1); err != nil || len(names) != want {
			t.Errorf("pool %d has %v, want %d names: %v", i, names, want, err)
		}
	}
}

// A synchronous write needs no new descriptor: without one it would fail, and a failed sync ends all writing.
func TestFilesSyncWriteWithoutDescriptors(t *testing.T) {
	p := files(t)
	if err := p.Create(t.Context(), volume, 4096); err != nil {
		t.Fatal(err)
	}
	v, err := p.Open(t.Context(), volume, false)
	if err != nil {
		t.Fatal(err)
	}
	defer v.Close()
	withoutDescriptors(t, func() { _, err = v.WriteAtSync([]byte("x"), 0) })
	if err != nil {
		t.Error(err)
	}
}

// withoutDescriptors calls f while the process can open nothing.
func withoutDescriptors(t *testing.T, f func()) {
	t.Helper()
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &unix.Rlimit{Cur: 3, Max: limit.Max}); err != nil {
		t.Fatal(err)
	}
	f()
	if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
}

// That there are no descriptors left does not mean that a volume is gone.
func TestFilesWithoutDescriptors(t *testing.T) {
	p := files(t)
	if err := p.Create(t.Context(), volume, 4096); err != nil {
		t.Fatal(err)
	}
	ctx := t.Context()
	for name, do := range map[string]func() error{
		"open": func() error { _, err := p.Open(ctx, volume, false); return err }, "segments": func() error { _, err := p.Segments(volume); return err },
		"list": func() error { _, err := p.List(ctx); return err }, "delete": func() error { return p.Delete(ctx, volume) },
	} {
		var err error
		withoutDescriptors(t, func() { err = do() })
		if !errors.Is(err, unix.EMFILE) || errors.Is(err, pool.ErrNotExist) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := p.Segments(volume); err != nil {
		t.Error(err)
	}
}

func TestFilesModes(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "a", "pool")
	p, err := pool.OpenFiles(dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := p.Create(t.Context(), volume, 4096); err != nil {
		t.Fatal(err)
	}
	err = filepath.WalkDir(dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := d.Info()
		if err == nil && info.Mode().Perm()&0o077 != 0 {
			t.Errorf("%s has mode %v", path, info.Mode())
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

// A crash after the last file of a layer went, or before its first was made, leaves an empty folder: deleting again takes
// that too, and never a folder with something in it.
func TestDeleteTakesTheEmptyFolder(t *testing.T) {
	dir := t.TempDir()
	p, err := pool.OpenFiles(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"empty", "full"} {
		if err := os.Mkdir(filepath.Join(dir, name), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if err := p.Create(t.Context(), "full/map", 4096); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"empty/data", "full/data"} {
		if err := p.Delete(t.Context(), name); !errors.Is(err, pool.ErrNotExist) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if left, _ := filepath.Glob(dir + "/*"); len(left) != 1 || filepath.Base(left[0]) != "full" {
		t.Errorf("left: %v", left)
	}
}

// What is frozen has readers beside, and no writer as long as one is left.
func TestFilesFreezeLetsReadersIn(t *testing.T) {
	p := files(t)
	if err := p.Create(t.Context(), volume, 4096); err != nil {
		t.Fatal(err)
	}
	open := func(readOnly bool) (pool.Volume, error) { return p.Open(t.Context(), volume, readOnly) }
	v, err := open(false)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := open(true); !errors.Is(err, pool.ErrInUse) {
		t.Fatalf("a reader beside a writer: %v", err)
	}
	if err := v.Freeze(); err != nil {
		t.Fatal(err)
	}
	reader, err := open(true)
	if err != nil {
		t.Fatalf("a reader beside a frozen one: %v", err)
	}
	for _, last := range []pool.Volume{v, reader} {
		if _, err := open(false); !errors.Is(err, pool.ErrInUse) {
			t.Errorf("a writer beside readers: %v", err)
		}
		_ = last.Close()
	}
	if v, err = open(false); err != nil {
		t.Fatalf("a writer after the readers: %v", err)
	}
	if err := errors.Join(v.Close(), v.Freeze()); !errors.Is(err, os.ErrClosed) {
		t.Errorf("freezing what is closed: %v", err)
	}
}
