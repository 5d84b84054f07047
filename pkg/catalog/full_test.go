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
	s := openAt(t, filepath.Join(mount, "catalog"), 0)
	defer s.Close()
	put(t, s, 1)
	ballast := filepath.Join(mount, "ballast")
	f, err := os.Create(ballast)
	must(t, err)
	for err == nil {
		_, err = f.Write(make([]byte, 1<<16))
	}
	if !errors.Is(err, syscall.ENOSPC) {
		t.Fatal(err)
	}
	must(t, f.Close())
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
}
