//go:build vm

package vmtest

import (
	"strings"
	"testing"

	"nbdcrypt/cmd/nbdcrypt/vmtest/machine"
	"nbdcrypt/pkg/control"
)

// TestAttachDetach: what a person does with a disk as a device: attach it with a mount, be refused the detach while it is used, detach it.
// A signal to the keeper does the same, and nothing of any of it stays behind.
func TestAttachDetach(t *testing.T) {
	t.Parallel()
	m := withPool(t, "1G", machine.Options{})
	serve(m, "")
	m.Run("nbdcrypt grant create; nbdcrypt disk create d --size 128M --encrypted --sector-size 4096; mkdir -p /srv/d /other")
	at := get[control.Attached](t, m, "attach d --device auto")
	if at.Device == nil || *at.Device != "/dev/nbd0" || at.Mount != "" {
		t.Fatalf("attached %+v", at)
	}
	m.Run(`[ "$(blockdev --getss --getsize64 /dev/nbd0)" = "$(printf '4096\n134217728')" ]; mkfs.ext4 -q /dev/nbd0`)

	t.Log("a detach while it is mounted, and open")
	m.Run("mount /dev/nbd0 /other")
	refused(t, m, 6, "detach d", "/dev/nbd0 is mounted at /other")
	m.Run("umount /other; sleep 1000 </dev/nbd0 & echo $! >/run/holder")
	refused(t, m, 6, "detach d", "(sleep) has /dev/nbd0 open")
	m.Run("kill $(cat /run/holder); nbdcrypt detach d; [ ! -e /sys/block/nbd0/pid ]")

	t.Log("with a mount")
	m.Run("mkdir -p /other/open/d; chmod 777 /other/open")
	refused(t, m, 5, "attach d --device auto --mount /other/open/d", "may change what is in /other/open")
	out := m.Run("nbdcrypt attach d --device /dev/nbd5 --mount /srv/../srv/d")
	if !strings.Contains(out, "device: /dev/nbd5\nmounted at: /srv/d\n") {
		t.Errorf("attach says %s", out)
	}
	if table := m.Run("grep /srv/d /proc/mounts"); !strings.Contains(table, "/dev/nbd5 /srv/d ext4 rw,nosuid,nodev,") {
		t.Errorf("mounted as %s", table)
	}
	refused(t, m, 6, "attach d --device auto", "attached")
	m.Run("echo kept >/srv/d/file; cd /srv/d; sleep 1000 & echo $! >/run/holder")
	refused(t, m, 6, "detach d", "/srv/d can't be unmounted")
	refusedAs(t, m, "NBDCRYPT_RUN=/run/nbdcrypt setpriv --reuid=5 --regid=5 --clear-groups", 5, "detach d", "")
	m.Run("[ $(cat /srv/d/file) = kept ]; kill $(cat /run/holder); sleep 0.1; nbdcrypt detach d; [ -z \"$(grep /dev/nbd /proc/mounts)\" ]; [ ! -e /sys/block/nbd5/pid ]")
}

// refused runs a command that must end with that code, and say so.
func refused(t *testing.T, m *machine.Machine, code int, command, says string) {
	t.Helper()
	refusedAs(t, m, "", code, command, says)
}

func refusedAs(t *testing.T, m *machine.Machine, as string, code int, command, says string) {
	t.Helper()
	out, got, err := m.Try(t.Context(), as+" nbdcrypt "+command+" 2>&1")
	if err != nil || got != code || !strings.Contains(out, says) {
		t.Errorf("%s ended with %d, %v: %s", command, got, err, out)
	}
}
