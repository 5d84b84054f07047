package blockdev

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"nbdcrypt/pkg/refusal"
)

// fixture is a host with those files, which is where we are during the test.
func fixture(t *testing.T, files map[string]string) host {
	t.Helper()
	h := host{t.TempDir()}
	for name, text := range files {
		h.write(t, name, text)
	}
	before := here
	here = h
	t.Cleanup(func() { here = before })
	return h
}

func (h host) write(t *testing.T, name, text string) {
	t.Helper()
	path := filepath.Join(h.root, name)
	if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, []byte(text), 0o644)); err != nil {
		t.Fatal(err)
	}
}

func TestPaths(t *testing.T) {
	for path, want := range map[string]int{"/dev/nbd0": 0, "/dev/nbd15": 15, "/dev/nbd65535": 65535} {
		if got, err := indexOf(path); got != want || err != nil || pathOf(got) != path {
			t.Errorf("%s: %d, %v", path, got, err)
		}
	}
	for _, path := range []string{"", "auto", "nbd0", "/dev/nbd", "/dev/nbd0p1", "/dev/nbd00", "/dev/nbd+1", "/dev/nbd-1", "/dev/nbd65536", "/dev/sda", "/dev/nbd0/../sda"} {
		if _, err := indexOf(path); refusal.CodeOf(err) != refusal.Usage {
			t.Errorf("%q: %v", path, err)
		}
	}
}

func TestBackend(t *testing.T) {
	h := fixture(t, map[string]string{"sys/block/nbd0/pid": "12\n", "sys/block/nbd0/backend": "nbdcrypt:x\n", "sys/block/nbd1/pid": "13\n", "sys/block/nbd2/dev": "43:64\n"})
	for path, want := range map[string]struct {
		name string
		is   bool
	}{"/dev/nbd0": {"nbdcrypt:x", true}, "/dev/nbd1": {"", true}, "/dev/nbd2": {"", false}, "/dev/nbd3": {"", false}} {
		if name, is, err := Backend(path); name != want.name || is != want.is || err != nil {
			t.Errorf("%s: %q, %v, %v", path, name, is, err)
		}
	}
	if _, _, err := Backend("/dev/sda"); refusal.CodeOf(err) != refusal.Usage {
		t.Error(err)
	}
	if path, err := h.free(); path != "/dev/nbd2" || err != nil {
		t.Errorf("%s is free, %v", path, err)
	}
}

const mountTable = `22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
30 22 43:0 / /mnt/with\040blank rw shared:2 master:1 - ext4 /dev/nbd0 rw
31 22 43:1 /sub /srv rw - xfs /dev/nbd0p1 rw
32 22 0:40 / /data rw - btrfs /dev/nbd0p2 rw
33 22 43:16 / /other rw - ext4 /dev/nbd1 rw
`

func TestUsers(t *testing.T) {
	fixture(t, map[string]string{
		"proc/self/mountinfo":                "",
		"dev/nbd0":                           "",
		"sys/block/nbd0/dev":                 "43:0\n",
		"sys/block/nbd0/nbd0p1/dev":          "43:1\n",
		"sys/block/nbd0/nbd0p2/dev":          "43:2\n",
		"sys/block/nbd0/queue/dev":           "no partition\n",
		"sys/block/loop0/loop/backing_file":  "/srv/image\n",
		"sys/block/nbd0/nbd0p1/holders/none": "",
	})
	if err := os.Remove(filepath.Join(here.root, "sys/block/nbd0/nbd0p1/holders/none")); err != nil {
		t.Fatal(err)
	}
	if list, err := Users("/dev/nbd0"); len(list) != 0 || err != nil {
		t.Errorf("nobody uses it: %q, %v", list, err)
	}
	for _, use := range []struct {
		file, text string
		want       []string
	}{
		{"proc/self/mountinfo", mountTable, []string{"/dev/nbd0 is mounted at /mnt/with blank", "/dev/nbd0p1 is mounted at /srv", "/dev/nbd0p2 is mounted at /data"}},
		{"proc/swaps", "Filename Type Size Used Priority\n/dev/nbd0p2 partition 1 0 -2\n/dev/nbd0p22 partition 1 0 -2\n", []string{"/dev/nbd0p2 is swap space"}},
		{"sys/block/nbd0/holders/dm-3", "", []string{"/dev/nbd0 is part of /dev/dm-3"}},
		{"sys/block/dm-3/dm/name", "vault\n", []string{"/dev/nbd0 is part of /dev/dm-3 (vault)"}},
		{"sys/block/nbd0/nbd0p1/holders/md0", "", []string{"/dev/nbd0p1 is part of /dev/md0"}},
		{"sys/block/loop1/loop/backing_file", "/dev/nbd0p1\n", []string{"/dev/nbd0p1 is below /dev/loop1"}},
	} {
		here.write(t, use.file, use.text)
		list, err := Users("/dev/nbd0")
		for _, want := range use.want {
			if !slices.Contains(list, want) || err != nil {
				t.Errorf("%s: %q is missing in %q, %v", use.file, want, list, err)
			}
		}
		if use.file == "proc/self/mountinfo" {
			here.write(t, use.file, "")
		}
		if slices.ContainsFunc(list, func(s string) bool { return strings.Contains(s, "other") || strings.Contains(s, "image") }) {
			t.Errorf("%q", list)
		}
	}
}

// A device is one command's to keep, until that ends.
func TestLock(t *testing.T) {
	h := fixture(t, map[string]string{"run/x": "", "sys/block/nbd0/pid": "1\n"})
	first, err := h.lock("/dev/nbd0")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := h.lock("/dev/nbd0"); refusal.CodeOf(err) != refusal.Busy || !errors.Is(err, syscall.EBUSY) {
		t.Error("a second one:", err)
	}
	if kept, err := Kept("/dev/nbd0"); !kept || err != nil {
		t.Error(kept, err)
	}
	if other, err := h.lock("/dev/nbd1"); err != nil || other.Close() != nil {
		t.Error("another device:", err)
	}
	// Whoever keeps a device that has gone is about to end.
	if err := os.Remove(h.block("/dev/nbd0", "pid")); err != nil {
		t.Fatal(err)
	}
	time.AfterFunc(50*time.Millisecond, func() { first.Close() })
	second, err := h.lock("/dev/nbd0")
	if err != nil {
		t.Error("the first one ended:", err)
	}
	second.Close()
	if kept, err := Kept("/dev/nbd0"); kept || err != nil {
		t.Error("nobody keeps it:", kept, err)
	}
	if info, err := os.Stat(filepath.Join(h.root, lockDir)); err != nil || info.Mode().Perm() != 0o700 {
		t.Error(info, err)
	}
	link := filepath.Join(h.root, lockDir, "nbd2")
	if err := os.Symlink(filepath.Join(h.root, "elsewhere"), link); err != nil {
		t.Fatal(err)
	}
	if _, err := h.lock("/dev/nbd2"); err == nil {
		t.Error("a link was followed")
	}
}

// A device that is announced gets the kernel's word for a change; one that is not there gets nothing.
func TestAnnounce(t *testing.T) {
	h := fixture(t, map[string]string{"sys/block/nbd0/uevent": ""})
	Announce("/dev/nbd0")
	Announce("/dev/nbd1")
	if text, err := h.line(h.block("/dev/nbd0", "uevent")); text != "change" || err != nil {
		t.Errorf("%q, %v", text, err)
	}
}
