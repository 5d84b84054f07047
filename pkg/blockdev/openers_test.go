package blockdev

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
)

// Who has a device or a partition of it open is named once, by number and program.
func TestOpeners(t *testing.T) {
	h := fixture(t, map[string]string{"proc/77/comm": "qemu\n", "proc/78/comm": "cat\n", "proc/self/comm": "us\n"})
	for link, to := range map[string]string{"proc/77/fd/3": "/dev/nbd0p1", "proc/77/fd/4": "/dev/nbd0p1", "proc/77/fd/5": "/dev/nbd0", "proc/78/fd/0": "/dev/nbd01",
		"proc/78/fd/1": "/srv/dev/nbd0", "proc/self/fd/3": "/dev/nbd0"} {
		path := filepath.Join(h.root, link)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(to, path); err != nil {
			t.Fatal(err)
		}
	}
	got, err := h.openNow([]part{{"nbd0", "43:0"}, {"nbd0p1", "43:1"}})
	if want := []string{"process 77 (qemu) has /dev/nbd0p1 open", "process 77 (qemu) has /dev/nbd0 open"}; err != nil || !slices.Equal(got, want) {
		t.Errorf("%q, %v", got, err)
	}
	// What only looks has gone by the time that it is looked for again.
	go func() { _ = os.RemoveAll(filepath.Join(h.root, "proc/77")) }()
	if got, err := h.openers([]part{{"nbd0", "43:0"}, {"nbd0p1", "43:1"}}); err != nil || len(got) != 0 {
		t.Errorf("%q, %v", got, err)
	}
}
