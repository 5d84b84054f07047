package catalog_test

import (
	"errors"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"nbdcrypt/pkg/catalog"
)

// small mounts a file system of so many bytes.
func small(t *testing.T, size string) string {
	t.Helper()
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size="+size); err != nil {
		t.Skip("it takes the right to mount: ", err)
	}
	t.Cleanup(func() { must(t, unix.Unmount(dir, unix.MNT_DETACH)) })
	return dir
}

// A full file system refuses changes and nothing else; once there is room they go on.
func TestFullFileSystem(t *testing.T) {
	mount := small(t, "40m")
	dir := filepath.Join(mount, "catalog")
	s := openAt(t, dir, 0)
	put(t, s, 1)
	ballast := fill(t, mount)
	for range 2 {
		err := s.Update(t.Context(), "full", func(txn catalog.Txn) error { return txn.Put("a", nil) })
		if !errors.Is(err, syscall.ENOSPC) || errors.Is(err, catalog.ErrUnknownOutcome) {
			t.Errorf("the error is %v", err)
		}
		if found, err := s.Outcome(t.Context(), "full"); err != nil || found {
			t.Errorf("the outcome is %v, %v", found, err)
		}
	}
	must(t, os.Remove(ballast))
	put(t, s, 2)
	// Closing needs room too; without it nothing is lost.
	revision, err := s.Revision(t.Context())
	must(t, err)
	ballast = fill(t, mount)
	must(t, s.Close())
	if _, err := catalog.Open(dir, catalog.Options{}); !errors.Is(err, syscall.ENOSPC) || errors.Is(err, catalog.ErrDamaged) {
		t.Errorf("opening gives %v", err)
	}
	must(t, os.Remove(ballast))
	s = openAt(t, dir, revision)
	put(t, s, 3)
	must(t, s.Close())
}

// fill leaves not a byte, and returns the file that takes them.
func fill(t *testing.T, mount string) string {
	t.Helper()
	ballast := filepath.Join(mount, "ballast")
	f, err := os.Create(ballast)
	must(t, err)
	for err == nil {
		_, err = f.Write(make([]byte, 1<<12))
	}
	if !errors.Is(err, syscall.ENOSPC) {
		t.Fatal(err)
	}
	must(t, f.Close())
	return ballast
}
