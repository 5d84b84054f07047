//go:build vm

package vmtest

import (
	"bytes"
	"path/filepath"
	"strings"
	"testing"

	"nbdcrypt/cmd/nbdcrypt/vmtest/machine"
)

// A machine boots from an encrypted disk by QEMU's own NBD driver: its firmware, a boot loader, a kernel and a root file system that is written. What was written
// is there when it boots again; none of it is in the pool's files as it was; without its key the disk can't be attached.
func TestBootFromEncryptedDisk(t *testing.T) {
	t.Parallel()
	dir, image := t.TempDir(), t.TempDir()+"/image"
	check(t, machine.BootImage(image))
	nbdcrypt := serveHere(t, dir)
	nbdcrypt("grant", "create")
	nbdcrypt("key", "create", "servers")
	nbdcrypt("image", "create", "system", "--from-file", image, "--key", "servers")
	nbdcrypt("disk", "create", "server", "--from-image", "system")
	uri := "nbd+unix:///server?socket=" + dir + "/run/nbd.sock"
	boot := func() *machine.Machine {
		nbdcrypt("attach", "server")
		return machine.Start(t, machine.Options{FromDisk: true, Disks: []machine.Disk{{Source: uri, Serial: "server"}}})
	}
	m := boot()
	if root := m.Run("grep ' / ' /proc/mounts | tail -n 1"); !strings.HasPrefix(root, "/dev/vda2 / ext4 rw") {
		t.Errorf("the root is %q", root)
	}
	const word = "a word that is written on the root file system\n"
	m.Run("yes '" + strings.TrimSpace(word) + "' | head -c 1000000 >/words; sync")
	m.Stop()
	nbdcrypt("detach", "server")
	m = boot()
	if words := m.Get("/words"); len(words) != 1_000_000 || !bytes.HasPrefix(words, []byte(word)) {
		t.Errorf("%d bytes are in the file that was written before, not 1000000", len(words))
	}
	m.Stop()
	nbdcrypt("detach", "server")
	for _, secret := range []string{word, "LABEL linux", "secretmem.enable"} {
		if found := containing(t, dir+"/state", secret); found != "" {
			t.Errorf("%q is in %s", secret, found)
		}
	}
	if containing(t, filepath.Dir(image), "LABEL linux") != image {
		t.Error("the search finds nothing in the image itself")
	}
	nbdcrypt("key", "disable", "servers")
	if out, err := command(dir, "attach", "server").CombinedOutput(); err == nil {
		t.Errorf("attached without its key: %s", out)
	}
}
