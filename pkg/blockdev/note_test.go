package blockdev

import (
	"errors"
	"os"
	"strings"
	"syscall"
	"testing"
)

// A note is of one connection of a device, the last one counts, and it outlives who left it.
func TestNote(t *testing.T) {
	h := fixture(t, map[string]string{"sys/block/nbd0/pid": "1\n", "sys/block/nbd0/backend": "nbdcrypt:x\n", "run/x": ""})
	want := func(line string) {
		t.Helper()
		if got, err := Noted("/dev/nbd0"); got != line || err != nil {
			t.Errorf("it says %q, %v", got, err)
		}
	}
	want("")
	d, err := newDevice(Config{Path: "/dev/nbd0", Identifier: "nbdcrypt:x"})
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range []string{"a longer one", "short", strings.Repeat("x", 300)} {
		if err := d.Note(line); err != nil {
			t.Fatal(err)
		}
		want(line)
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	want(strings.Repeat("x", 300))
	h.write(t, lockDir+"/nbd0", "nbdcrypt:x torn")
	want("")
	h.write(t, lockDir+"/nbd0", "nbdcrypt:x whole\n")
	want("whole")
	h.write(t, "sys/block/nbd0/backend", "nbdcrypt:xy\n")
	want("")
	h.write(t, lockDir+"/nbd0", "nbdcrypt:xy whole\n")
	if err := os.Remove(h.root + "/sys/block/nbd0/pid"); err != nil {
		t.Fatal(err)
	}
	want("")
}

// A device is kept as long as somebody has locked it. Those that look are in nobody's way.
func TestKept(t *testing.T) {
	fixture(t, map[string]string{"sys/block/nbd0/pid": "1\n", "run/x": ""})
	want := func(is bool) {
		t.Helper()
		if kept, err := Kept("/dev/nbd0"); kept != is || err != nil {
			t.Errorf("kept %v, %v", kept, err)
		}
	}
	want(false)
	d, err := newDevice(Config{Path: "/dev/nbd0"})
	if err != nil {
		t.Fatal(err)
	}
	want(true)
	if _, err := newDevice(Config{Path: "/dev/nbd0"}); !errors.Is(err, syscall.EBUSY) {
		t.Error("locked twice:", err)
	}
	if err := d.Close(); err != nil {
		t.Fatal(err)
	}
	want(false)
}
